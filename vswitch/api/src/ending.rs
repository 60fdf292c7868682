//! The answer to `vsctl shutdown`: what was removed from the kernel and what stays for the next start.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a planned end came to: of all that vswitchd made in the kernel, what is gone, and what the next start finds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ending {
    /// The process that ends.
    pub pid: u32,
    /// What was removed.
    pub removed: Vec<MadeThing>,
    /// What stays, and why.
    pub left: Vec<MadeThing>,
}

/// Something that vswitchd made in the kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MadeThing {
    /// What it is.
    pub what: MadeKind,
    /// What it is called.
    pub name: String,
    /// Why it stays.
    pub why: Option<String>,
}

/// A kind of thing that vswitchd makes in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MadeKind {
    /// The device of a port.
    Port,
    /// A network namespace under `/run/netns`.
    Netns,
}

impl fmt::Display for MadeThing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.what {
            MadeKind::Port => "port",
            MadeKind::Netns => "namespace",
        };
        write!(f, "{what} \"{}\"", self.name)?;
        self.why.iter().try_for_each(|why| write!(f, ": {why}"))
    }
}
