//! The programs that other runtimes than Docker call for a container's interface: `vswitch-cni` and `vswitch-netavark`.
//!
//! A call is a process that reads one JSON document, asks vswitchd one thing over the control socket, and prints one document. Nothing is decided
//! or kept here ([`containers`](crate::containers) is where that is): each module only translates one runtime's words, and puts what
//! vswitchd refuses into that runtime's form.

pub mod cni;
pub mod netavark;

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use ipnet::IpNet;

use crate::client::{self, ClientError};
use api::{Reply, Request};

/// Where vswitchd listens, unless `VSWITCH_CONTROL` says otherwise.
const CONTROL: &str = "/run/vswitch/control.sock";
/// How long an answer may take; runtimes wait for as long as it takes.
const PATIENCE: Duration = Duration::from_secs(60);
/// Most bytes of a document; a container may have thousands of ports.
const LONGEST: u64 = 16 << 20;
/// Most names of a container.
const MOST_NAMES: usize = 64;

/// What a call was given besides its document.
pub type Variable<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// What a call prints, and whether it has done what it was asked for.
pub struct Outcome {
    /// What it prints.
    pub text: String,
    /// Whether it is done.
    pub is_done: bool,
}

impl Outcome {
    /// Prints it. Where that cannot be, as on a full disk, the runtime knows nothing of what was done, and is told that it failed.
    pub fn tell(&self) -> ExitCode {
        match lab::print(self.text.as_bytes()) {
            Ok(_) if self.is_done => ExitCode::SUCCESS,
            Ok(_) => ExitCode::FAILURE,
            Err(error) => {
                eprintln!("cannot write to stdout: {error}");
                ExitCode::FAILURE
            }
        }
    }
}

/// Why there is no answer, for the user of a runtime, who cannot pass options to the plugin.
fn sentence(error: &ClientError) -> String {
    match error {
        ClientError::Unreachable { path, source } => {
            format!("no vswitchd answers at {path}: {source}; start it, or name its socket in VSWITCH_CONTROL")
        }
        error => error.to_string(),
    }
}

/// Asks vswitchd.
fn ask(variable: Variable<'_>, request: &Request) -> Result<Reply, ClientError> {
    let path = variable("VSWITCH_CONTROL").filter(|path| !path.is_empty());
    client::ask(path.map_or_else(|| CONTROL.into(), PathBuf::from), PATIENCE, request)
}

/// Whether nothing is to be had from vswitchd now, so that trying again may help.
const fn is_away(error: &ClientError) -> bool {
    matches!(error, ClientError::Unreachable { .. } | ClientError::Silent { .. })
}

/// The first address that a host may have in a subnet.
fn first_host(net: &IpNet) -> Option<IpAddr> {
    // In IPv6, the address of the subnet itself belongs to every router there (RFC 4291, section 2.6.1).
    let is_subnet = |address: &IpAddr| *address == net.network() && net.max_prefix_len() - net.prefix_len() > 1;
    net.hosts().find(|address| !is_subnet(address))
}

/// Those of a container's names that can be asked for: each a host name's label or several (RFC 1123, section 2.1), once.
fn askable(names: impl Iterator<Item = String>) -> Vec<String> {
    let is_label = |label: &str| {
        let plain = label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
        plain && (1..=63).contains(&label.len())
    };
    let mut askable: Vec<String> = Vec::new();
    for name in names.filter(|name| name.len() <= 253 && name.split('.').all(is_label)).take(MOST_NAMES) {
        if !askable.contains(&name) {
            askable.push(name);
        }
    }
    askable
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_cannot_be_asked_for_are_left_out() {
        let long = "n".repeat(64);
        let names = ["web", "web.1", "", "a b", &long, "web", ".x", "w\u{e9}b"];
        assert_eq!(askable(names.iter().map(|name| (*name).to_owned())), ["web", "web.1"]);
    }
}
