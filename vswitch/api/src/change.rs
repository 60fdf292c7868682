//! What `vsctl` changed at run time, as `vsctl changes` lists it. The control side compares the switch with its file and fills these rows.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A kind of thing that `switch.toml` describes and `vsctl` changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// A bridge.
    Bridge,
    /// A port.
    Port,
    /// An uplink.
    Uplink,
    /// A published port.
    Forward,
    /// A tunnel.
    Vxlan,
}

impl Part {
    /// The command of `vsctl` that removes it.
    pub fn deletion(self, name: &str) -> String {
        let command = match self {
            Self::Bridge => "del-br",
            Self::Port => "del-port",
            Self::Uplink => "del-uplink",
            Self::Forward => "del-forward",
            Self::Vxlan => "del-vxlan",
        };
        format!("{command} {name}")
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bridge => "bridge",
            Self::Port => "port",
            Self::Uplink => "uplink",
            Self::Forward => "forward",
            Self::Vxlan => "vxlan",
        })
    }
}

/// Something that `vsctl` changed, so that the switch differs from `switch.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeInfo {
    /// What it is.
    pub what: Part,
    /// What it is called.
    pub name: String,
    /// What was done to it.
    pub change: ChangeKind,
    /// Whether the switch is like that; what does not fit the file any more is left out.
    pub in_force: bool,
    /// Why it is left out, or how long it holds.
    pub why: Option<String>,
}

/// What `vsctl` did to something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    /// It is not in the file.
    Added,
    /// It is otherwise in the file.
    Changed,
    /// It is in the file.
    Deleted,
}

impl fmt::Display for ChangeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Added => "added",
            Self::Changed => "changed",
            Self::Deleted => "deleted",
        })
    }
}
