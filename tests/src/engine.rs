//! The engines that a [`DockerHost`](crate::DockerHost) runs: the machine's own, and the newest that Debian has, from a root directory of its own.
//!
//! `tests/engine` makes that root in the checkout's `target`. Where it cannot be had, for want of a network say, that is no fault of the code: its tests say
//! `SKIPPED` and why.

use std::path::PathBuf;
use std::process::{Command, Stdio};

/// The dockerd that a host runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// The machine's own.
    Installed,
    /// Docker, compose, Podman and what the tests type, from Debian's newest distribution.
    Newest,
}

impl Engine {
    /// Its root directory; `None`: the machine's.
    ///
    /// # Errors
    /// Why it cannot be had.
    ///
    /// # Panics
    /// If `tests/engine` cannot be run.
    pub fn root(self) -> Result<Option<PathBuf>, String> {
        if self == Self::Installed {
            return Ok(None);
        }
        let engines = crate::program("vsctl").ancestors().nth(2).expect("target").join("engines");
        let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/engine"));
        let output = command.arg(&engines).stdin(Stdio::null()).output().expect("tests/engine");
        let said = String::from_utf8_lossy(&output.stdout);
        let reason = || said.lines().collect::<Vec<_>>().join("; ");
        if output.status.success() { Ok(Some(engines.join("debian"))) } else { Err(reason()) }
    }
}
