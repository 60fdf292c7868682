//! README's blocks, typed as they are printed, by somebody who has a clean checkout and nothing built.
//!
//! The host is one of the harness's, with a world outside that has 1.1.1.1. Only the optimizer is switched off, which makes the first line take one
//! minute instead of three.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use vswitch_tests::{DockerHost, Terminal, needs};

/// The blocks of shell, in their order.
fn blocks(page: &str) -> Vec<Vec<String>> {
    let parts = page.split("```sh\n").skip(1);
    parts.map(|part| part.split("```").next().unwrap().lines().map(str::to_owned).collect()).collect()
}

/// A copy of what git has of this checkout, as it is now, without anything built.
struct Clone(tempfile::TempDir);

impl Clone {
    fn new() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        // Beside what is built: /tmp may be small.
        let target = vswitch_tests::program("vsctl").ancestors().nth(2).unwrap().to_owned();
        let clone = Self(tempfile::Builder::new().prefix("readme-").tempdir_in(target).unwrap());
        let copy = "git -C \"$0\" ls-files -z --cached --others --exclude-standard --deduplicate | \
            (cd \"$0\" && while IFS= read -r -d '' file; do [ ! -e \"$file\" ] || printf '%s\\0' \"$file\"; done) | \
            tar -C \"$0\" --null -T - -c | tar -C \"$1\" -x";
        let status = Command::new("bash").args(["-o", "pipefail", "-c", copy]).arg(root).arg(clone.0.path()).status().unwrap();
        assert!(status.success());
        // An ordinary user works in it, too.
        assert!(Command::new("chmod").args(["-R", "a+rwX"]).arg(clone.0.path()).status().unwrap().success());
        clone
    }

    /// A new terminal in it, on the host, of a user.
    fn terminal(&self, host: &DockerHost, user: &[&str]) -> Terminal {
        let mut command = host.command();
        command.env("PATH", std::env::var_os("PATH").unwrap()).env("CARGO_NET_OFFLINE", "true").env_remove("CARGO_TARGET_DIR");
        command.env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "0").args(["env", "-C"]).arg(self.0.path()).args(user);
        Terminal::open(command)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

/// Types the lines one after the other, each when the one before has ended well. What `&` starts has a moment to come up, which a person
/// takes to type the next line.
#[track_caller]
fn type_all<'a>(terminal: &mut Terminal, lines: impl IntoIterator<Item = &'a String>) -> String {
    let mut shown = String::new();
    for line in lines {
        let (code, text) = terminal.line(line);
        assert_eq!(code, 0, "{line}\n{text}");
        shown += &text;
        if line.ends_with('&') {
            std::thread::sleep(Duration::from_secs(1));
        }
    }
    shown
}

/// Long enough for a build on a slow machine that does other things as well.
const BUILD: Duration = Duration::from_secs(1200);
/// Long enough for anything else.
const SOON: Duration = Duration::from_secs(60);

#[test]
fn the_first_blocks_of_readme_run_as_they_are_printed() {
    needs!("dockerd", "unshare", "script", "busybox", "dnsmasq", "curl", "ping", "tcpdump", "python3", "git", "setpriv");
    let clone = Clone::new();
    let page = std::fs::read_to_string(clone.path("README.md")).unwrap();
    let blocks = blocks(&page);
    let starts: Vec<&str> = blocks.iter().map(|block| block[0].split_whitespace().next().unwrap()).collect();
    // What `tests/run` and the benchmarks print is not for here, nor are the last lines of this test.
    let expected = ["cargo", "ip", "target/release/vswitchd", "ip", "unshare", "vsctl", "vsctl", "tests/run", "tests/bench"];
    assert_eq!(starts, expected, "a block was added or moved: run it here");
    let [first, look, ..] = &blocks[..] else { unreachable!() };

    let host = DockerHost::new();
    // The outside that README asks, and an address for a tunnel.
    host.sh("outside ip addr add 1.1.1.1/32 dev lo && ip addr add 192.0.2.1/24 dev lo; true").ok();
    let mut daemon = clone.terminal(&host, &[]);
    assert_eq!(first.len(), 1, "one line runs the main job");
    daemon.start(&first[0]);
    daemon.until("\nready", BUILD);
    for name in ["vswitchd", "vsctl"] {
        assert!(clone.path("target/release").join(name).is_file(), "{name} is built by the first line");
    }

    let mut user = clone.terminal(&host, &[]);
    let (watch, once) = look.split_last().unwrap();
    let shown = type_all(&mut user, once);
    assert!(shown.contains("3 received") && shown.contains("bridge br0"), "{shown}");
    user.start(watch);
    user.until("reading from file", SOON);
    host.sh("ip netns exec blue ping -c 2 10.10.0.2").ok();
    user.until("ICMP echo reply", SOON);
    user.interrupt();
    user.ended(SOON);
    daemon.interrupt();
    assert_eq!(daemon.ended(SOON).0, 0);
    assert_eq!(host.sh("ls /run/netns").ok(), "outside\n", "what it made is gone");
}
