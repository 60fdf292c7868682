//! A lab's file: what it may say, and what it comes to for a seed.
//!
//! The tables of `switch.toml` (bridge, port, vxlan, uplink, forward, nat, capture, docker) are the lab's own switch, and vswitchd reads them. The others are
//! the lab's: `[lab]`, `[draw]`, `[[host]]`, `[[link]]`, `[[fault]]` and `[[stage]]` with its checks and questions.

mod read;
mod switch;
mod table;

use std::fmt;
use std::time::Duration;

use regex::Regex;
use serde::{Deserialize, Serialize};

use crate::draw::Values;
use crate::step::Step;

pub(crate) use read::{Source, read};

/// The name of a host, which is that of its network namespace: at most 15 of a-z, 0-9 and `-`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct HostName(String);

impl HostName {
    /// # Errors
    /// What would be right.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let is_part = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if (1..=15).contains(&text.len()) && text.bytes().all(is_part) && !text.starts_with('-') {
            return Ok(Self(text.to_owned()));
        }
        Err(format!("\"{}\" is no name of a host: use at most 15 of a-z, 0-9 and -", text.escape_debug()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A lab with the values of a seed in it.
#[derive(Debug)]
pub(crate) struct Lab {
    pub(crate) about: About,
    /// What the seed drew.
    pub(crate) values: Values,
    /// `switch.toml` of the lab's own switch, but for `[switch]`.
    pub(crate) switch: String,
    /// Every host, in the order of their names.
    pub(crate) hosts: Vec<Host>,
    /// What is typed once all runs, to break it.
    pub(crate) faults: Vec<Step>,
    pub(crate) stages: Vec<Stage>,
    /// What comes before the first stage of the text.
    pub(crate) introduction: String,
}

/// `[lab]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct About {
    pub(crate) name: String,
    pub(crate) title: String,
    /// What is learned, in one sentence.
    pub(crate) summary: String,
    /// How long it takes.
    pub(crate) minutes: u32,
    /// Programs beyond a shell and iproute2, and the Debian package of each.
    #[serde(default)]
    pub(crate) needs: std::collections::BTreeMap<String, String>,
    /// Whether it runs in the host's network, for `host` uplinks and published ports that the world reaches.
    #[serde(default)]
    pub(crate) way_out: bool,
    /// Whether only root can run it.
    #[serde(default)]
    pub(crate) root: bool,
}

/// A network namespace, and what is in it.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) name: HostName,
    /// What is typed in it at the start, in this order.
    pub(crate) start: Vec<String>,
    /// What runs in it until the lab ends.
    pub(crate) daemons: Vec<String>,
    /// Contents by path: relative to the host's own directory, or of a file in /etc that only this host has so.
    pub(crate) files: Vec<(String, String)>,
    /// `switch.toml` of a switch that runs in this host, but for `[switch]`.
    pub(crate) switch: Option<String>,
}

/// A part of a lab with something to do or to find out.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) title: String,
    /// Its part of the text, in Markdown, with its heading.
    pub(crate) text: String,
    pub(crate) hints: Vec<String>,
    /// What does it.
    pub(crate) solve: Vec<Step>,
    /// What seems to do it and does not: for the lab's own test.
    pub(crate) wrong: Vec<Step>,
    pub(crate) tasks: Vec<Task>,
}

/// What a stage is graded by.
#[derive(Debug)]
pub(crate) struct Task {
    /// What is claimed or asked.
    pub(crate) says: String,
    pub(crate) points: u32,
    pub(crate) kind: TaskKind,
}

/// How a task is graded.
#[derive(Debug)]
pub(crate) enum TaskKind {
    Check(Check),
    Question(Question),
}

/// Something that must be so.
#[derive(Debug)]
pub(crate) struct Check {
    pub(crate) step: Step,
    /// The command must fail instead of ending well.
    pub(crate) fails: bool,
    /// What it prints must match this, and must not match that.
    pub(crate) shows: Option<Regex>,
    pub(crate) hides: Option<Regex>,
    /// What the first group of `shows` says must be a number of this range.
    pub(crate) between: Option<[f64; 2]>,
    /// How long it may take to become so.
    pub(crate) within: Duration,
    /// It holds from the start, and must still hold.
    pub(crate) holds: bool,
}

/// Something that the learner must find out.
#[derive(Debug)]
pub(crate) struct Question {
    /// By which it is answered.
    pub(crate) name: String,
    pub(crate) answer: Answer,
    /// By which part of the answer a number may differ.
    pub(crate) tolerance: f64,
}

/// Where the answer to a question is known from.
#[derive(Debug)]
pub(crate) enum Answer {
    /// The file.
    Text(String),
    /// The network: what this prints.
    Asked(Step),
}

impl Lab {
    pub(crate) fn host(&self, name: &HostName) -> Option<&Host> {
        self.hosts.iter().find(|host| host.name == *name)
    }

    pub(crate) fn points(&self) -> u32 {
        self.stages.iter().map(Stage::points).fold(0, u32::saturating_add)
    }
}

impl Stage {
    pub(crate) fn questions(&self) -> impl Iterator<Item = &Question> {
        self.tasks.iter().filter_map(|task| match &task.kind {
            TaskKind::Question(question) => Some(question),
            TaskKind::Check(_) => None,
        })
    }

    pub(crate) fn points(&self) -> u32 {
        self.tasks.iter().map(|task| task.points).fold(0, u32::saturating_add)
    }
}
