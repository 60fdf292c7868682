//! Words that Tab completes: the names of what the running switch has.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap_complete::CompleteEnv;
use clap_complete::engine::{ArgValueCandidates, CompletionCandidate};
use clap_complete::env::Shells;

use super::ClientError;
use super::arguments::{Arguments, DEFAULT_CONTROL};
use super::connection::Control;
use api::{Reply, Request, SwitchInfo};

/// How long the user who presses Tab waits for names.
const PATIENCE: Duration = Duration::from_secs(2);

/// The bridges.
pub(super) fn bridges() -> ArgValueCandidates {
    ArgValueCandidates::new(|| candidates(|switch| switch.bridges.iter().map(|bridge| bridge.name.to_string()).collect()))
}

/// The ports that are no tunnels.
pub(super) fn ports() -> ArgValueCandidates {
    ArgValueCandidates::new(|| candidates(port_names))
}

/// The tunnels.
pub(super) fn tunnels() -> ArgValueCandidates {
    ArgValueCandidates::new(|| candidates(tunnel_names))
}

/// The uplinks.
pub(super) fn uplinks() -> ArgValueCandidates {
    ArgValueCandidates::new(|| candidates(uplink_names))
}

/// All that has counters and can be captured.
pub(super) fn counted() -> ArgValueCandidates {
    ArgValueCandidates::new(|| candidates(|switch| [port_names(switch), tunnel_names(switch), uplink_names(switch)].concat()))
}

/// What may know MAC addresses.
pub(super) fn members() -> ArgValueCandidates {
    ArgValueCandidates::new(|| candidates(|switch| [port_names(switch), tunnel_names(switch)].concat()))
}

/// What has neighbours.
pub(super) fn interfaces() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        candidates(|switch| {
            let gateways = switch.bridges.iter().filter(|bridge| !bridge.gateway.addresses.is_empty());
            gateways.map(|bridge| bridge.name.to_string()).chain(uplink_names(switch)).collect()
        })
    })
}

/// The containers of Docker's.
pub(super) fn containers() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        candidates(|switch| switch.ports.iter().filter_map(|port| port.docker.container.clone()).collect())
    })
}

fn port_names(switch: &SwitchInfo) -> Vec<String> {
    switch.ports.iter().map(|port| port.name.to_string()).collect()
}

fn tunnel_names(switch: &SwitchInfo) -> Vec<String> {
    switch.vxlans.iter().map(|vxlan| vxlan.name.to_string()).collect()
}

fn uplink_names(switch: &SwitchInfo) -> Vec<String> {
    switch.uplinks.iter().map(|uplink| uplink.name.to_string()).collect()
}

/// What a shell has to be told so that it asks vsctl at each Tab.
pub(super) fn registration(shell: clap_complete::Shell) -> Result<Vec<u8>, ClientError> {
    let (shells, mut text) = (Shells::builtins(), Vec::new());
    let name = shell.to_string();
    let shell = shells.completer(&name).ok_or_else(|| ClientError::Argument(format!("{name} cannot be helped")))?;
    let written = shell.write_registration(VARIABLE, "vsctl", "vsctl", "vsctl", &mut text);
    written.map_err(|source| ClientError::Write { what: "completions".to_owned(), source })?;
    Ok(text)
}

/// Answers a shell that asks what the word at Tab may be, and ends the process then.
pub fn complete() {
    CompleteEnv::with_factory(Arguments::arranged).var(VARIABLE).bin("vsctl").complete();
}

/// The environment variable by which a shell asks.
const VARIABLE: &str = "VSCTL_COMPLETE";

/// Where no vswitchd answers, there is nothing to complete, and the line that is being typed is no place to say why.
fn candidates(names: impl Fn(&SwitchInfo) -> Vec<String>) -> Vec<CompletionCandidate> {
    let mut all = ask().map(|switch| names(&switch)).unwrap_or_default();
    all.sort_unstable();
    all.dedup();
    all.into_iter().map(CompletionCandidate::new).collect()
}

fn ask() -> Option<SwitchInfo> {
    let control = Control { path: control(std::env::args_os()), patience: PATIENCE };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
    match runtime.block_on(control.ask(&Request::Show)).ok()? {
        Reply::Switch(switch) => Some(*switch),
        _ => None,
    }
}

/// The control socket that the line names, or else the environment.
fn control(words: impl Iterator<Item = OsString>) -> PathBuf {
    let words: Vec<OsString> = words.collect();
    let apart = words.iter().position(|word| word == "--control").and_then(|place| words.get(place + 1)).cloned();
    let joined = || words.iter().find_map(|word| Some(OsString::from(word.to_str()?.strip_prefix("--control=")?)));
    let named = apart.or_else(joined).or_else(|| std::env::var_os("VSWITCH_CONTROL"));
    named.map_or_else(|| PathBuf::from(DEFAULT_CONTROL), PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_from_the_switch_that_the_line_names() {
        let of = |line: &str| control(line.split_whitespace().map(OsString::from));
        assert_eq!(of("vsctl -- vsctl --control /x stats"), PathBuf::from("/x"));
        assert_eq!(of("vsctl -- vsctl stats --control=/y"), PathBuf::from("/y"));
    }
}
