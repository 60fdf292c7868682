//! docs/debugging.md: every command is run as it is printed, on the networks of docs/debugging.toml, and says what the page says.
#![allow(clippy::unwrap_used, clippy::panic, reason = "what fails here fails its test")]

use vswitch_tests::{Lab, needs};

const PAGE: &str = include_str!("../../docs/debugging.md");
const NETWORKS: &str = include_str!("../../docs/debugging.toml");

/// The lines of the page's blocks of shell, but for those that make `wan` and start vswitchd.
fn lines() -> impl Iterator<Item = &'static str> {
    let blocks = PAGE.split("```sh\n").skip(3).filter_map(|rest| rest.split("```").next());
    blocks.flat_map(str::lines)
}

/// Runs a line as its reader would; what it says, on both streams.
fn run(lab: &Lab, line: &str) -> String {
    if let Some(rest) = line.strip_prefix("ip netns exec ") {
        let (netns, command) = rest.split_once(' ').unwrap();
        let outcome = lab.run_in(netns, &format!("{command} 2>&1"));
        return outcome.stdout;
    }
    let words = line.strip_prefix("vsctl ").unwrap_or_else(|| panic!("neither of a station nor of vsctl: {line}"));
    let control = lab.path("control.sock");
    let vsctl = vswitch_tests::program("vsctl");
    lab.sh(&format!("{} --control {} {words} 2>&1", vsctl.display(), control.display())).stdout
}

#[test]
fn each_of_ten_broken_networks_is_found_by_the_commands_of_the_page() {
    needs!("ip", "ping", "arping", "nc");
    let mut lab = Lab::new();
    lab.sh("netns @out && ip -n @host link add wan type veth peer name o0 netns @out && ip -n @host link set wan up && \
         ip -n @host addr add 192.0.2.9/24 dev wan && ip -n @out addr add 192.0.2.1/24 dev o0 && ip -n @out link set o0 up")
        .ok();
    lab.write(&NETWORKS.replace("netns = \"", "netns = \"@"));
    lab.start();
    let mut told = 0;
    for line in lines() {
        let (command, says) = line.split_once("# says: ").map_or((line, None), |(command, says)| (command, Some(says)));
        let said = run(&lab, command.trim_end());
        let Some(says) = says else { continue };
        assert!(said.contains(says), "{command} does not say \"{says}\", but:\n{said}");
        told += 1;
    }
    assert!(told >= 12, "only {told} lines of the page say what to look for");
}
