//! The tables of a lab's file as they are written: serde fills them, `read` makes sense of them.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;
use toml::Spanned;

use super::About;
use crate::draw::Draw;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub(super) lab: About,
    #[serde(default, rename = "draw")]
    _draw: Option<IgnoredAny>,
    #[serde(default)]
    pub(super) host: Vec<HostTable>,
    #[serde(default)]
    pub(super) link: Vec<LinkTable>,
    #[serde(default)]
    pub(super) fault: Vec<FaultTable>,
    #[serde(default)]
    pub(super) stage: Vec<StageTable>,
    #[serde(default)]
    pub(super) port: Vec<PortTable>,
    // What vswitchd reads, as `draw` was read before.
    #[serde(default, rename = "bridge")]
    _bridge: Option<IgnoredAny>,
    #[serde(default, rename = "vxlan")]
    _vxlan: Option<IgnoredAny>,
    #[serde(default, rename = "uplink")]
    _uplink: Option<IgnoredAny>,
    #[serde(default, rename = "forward")]
    _forward: Option<IgnoredAny>,
    #[serde(default, rename = "nat")]
    _nat: Option<IgnoredAny>,
    #[serde(default, rename = "capture")]
    _capture: Option<IgnoredAny>,
    #[serde(default, rename = "docker")]
    _docker: Option<IgnoredAny>,
}

/// Of a port only where it is.
#[derive(Deserialize)]
pub(super) struct PortTable {
    pub(super) netns: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HostTable {
    pub(super) name: Spanned<String>,
    #[serde(default)]
    pub(super) start: Vec<String>,
    #[serde(default)]
    pub(super) daemons: Vec<String>,
    #[serde(default)]
    pub(super) files: BTreeMap<Spanned<String>, String>,
    pub(super) switch: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LinkTable {
    pub(super) name: Option<String>,
    pub(super) ends: Spanned<[String; 2]>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FaultTable {
    pub(super) run: Vec<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StageTable {
    pub(super) title: Spanned<String>,
    #[serde(default)]
    pub(super) hints: Vec<String>,
    #[serde(default)]
    pub(super) solve: Vec<Spanned<String>>,
    #[serde(default)]
    pub(super) wrong: Vec<Spanned<String>>,
    #[serde(default)]
    pub(super) check: Vec<CheckTable>,
    #[serde(default)]
    pub(super) question: Vec<QuestionTable>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CheckTable {
    pub(super) says: String,
    #[serde(default = "one")]
    pub(super) points: u32,
    pub(super) run: Spanned<String>,
    #[serde(default)]
    pub(super) fails: bool,
    pub(super) shows: Option<Spanned<String>>,
    pub(super) hides: Option<Spanned<String>>,
    pub(super) between: Option<Spanned<[f64; 2]>>,
    pub(super) within: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) holds: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct QuestionTable {
    pub(super) name: Spanned<String>,
    pub(super) ask: String,
    #[serde(default = "one")]
    pub(super) points: u32,
    pub(super) answer: Option<String>,
    pub(super) from: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) tolerance: f64,
}

fn one() -> u32 {
    1
}

/// Of a file that is not yet filled.
#[derive(Deserialize)]
pub(super) struct Draws {
    #[serde(default)]
    pub(super) draw: BTreeMap<String, Draw>,
}
