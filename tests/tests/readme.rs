//! README's blocks, typed as they are printed, by somebody who has a clean checkout and nothing built.
//!
//! The host is one of the harness's, with a world outside that has 1.1.1.1 and is the other end of the tunnel. Only the optimizer is switched off,
//! and crates that the tests were built of are not compiled again: the first line takes less than a minute instead of three. The compiler leaves the
//! processors to the other tests.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use vswitch_tests::{DockerHost, ORDINARY, Terminal, needs};

/// The blocks of a language, in their order.
fn blocks<'a>(page: &'a str, language: &str) -> Vec<Vec<&'a str>> {
    let parts = page.split(&*format!("```{language}\n")).skip(1).collect::<Vec<_>>();
    parts.into_iter().map(|part| part.split("```").next().unwrap().lines().collect()).collect()
}

/// Where the host has the checkout, which an ordinary user must reach.
const HOME: &str = "/mnt";

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

    /// A new terminal in it, on a host that has it at [`HOME`], of a user.
    fn terminal(host: &DockerHost, user: &[&str]) -> Terminal {
        let mut command = host.command();
        command.env("PATH", std::env::var_os("PATH").unwrap()).env("CARGO_NET_OFFLINE", "true").env_remove("CARGO_TARGET_DIR");
        // What is built is what the tests are built of, as far as its features are the same; that is looked for by `tests/rustc`.
        for (key, value) in [
            ("OPT_LEVEL", "0"),
            ("DEBUG_ASSERTIONS", "true"),
            ("OVERFLOW_CHECKS", "true"),
            ("PANIC", "unwind"),
            ("STRIP", "debuginfo"),
        ] {
            command.env(format!("CARGO_PROFILE_RELEASE_{key}"), value);
        }
        let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
        command.env("RUSTC_WRAPPER", tests.join("rustc")).env("COMPILED", vswitch_tests::program("vsctl").parent().unwrap());
        command.args(["env", "-C", HOME]).args(user);
        Terminal::open(command)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

/// Types the lines one after the other, each when the one before has ended well, and what `&` starts is there.
#[track_caller]
fn type_all(terminal: &mut Terminal, lines: &[&str]) -> String {
    let mut shown = String::new();
    for line in lines {
        let (code, text) = terminal.line(line);
        assert_eq!(code, 0, "{line}\n{text}");
        shown += &text;
        let sign = match line.split_once(" &") {
            Some((program, "")) if program.contains("http.server") => "Serving HTTP",
            Some((program, "")) if program.contains("vswitchd") => READY,
            _ => continue,
        };
        if !text.contains(sign) {
            shown += &terminal.until(sign, SOON);
        }
    }
    shown
}

/// What vswitchd prints, at a terminal.
const READY: &str = "ready\r\n";
/// Long enough for a build on a slow machine that does other things as well.
const BUILD: Duration = Duration::from_secs(1200);
/// Long enough for anything else.
const SOON: Duration = Duration::from_secs(60);

#[test]
fn the_blocks_of_readme_run_as_they_are_printed() {
    needs!("dockerd", "unshare", "script", "busybox", "dnsmasq", "curl", "ping", "tcpdump", "python3", "git", "setpriv");
    let clone = Clone::new();
    let page = std::fs::read_to_string(clone.path("README.md")).unwrap();
    let blocks_of_shell = blocks(&page, "sh");
    let starts: Vec<&str> = blocks_of_shell.iter().map(|block| block[0].split_whitespace().next().unwrap()).collect();
    // What `tests/run` and the benchmarks print is not for here.
    let expected =
        ["cargo", "ip", "target/release/vswitchd", "ip", "unshare", "vsctl", "vsctl", "vsctl", "tests/run", "tests/bench"];
    assert_eq!(starts, expected, "a block was added or moved: run it here");
    let [first, look, gateway, beyond, rootless, change, labs, tunnel, ..] = &blocks_of_shell[..] else { unreachable!() };

    let host = DockerHost::new();
    host.sh(&format!("mount --bind {} {HOME}", clone.path("").display())).ok();
    // The outside that README asks.
    host.sh("outside ip addr add 1.1.1.1/32 dev lo && echo 'It works!' > /run/outside/www/index.html").ok();
    let mut daemon = Clone::terminal(&host, &[]);
    assert_eq!(first.len(), 1, "one line runs the main job");
    daemon.start(first[0]);
    daemon.until(READY, BUILD);
    for name in ["vswitchd", "vsctl"] {
        assert!(clone.path("target/release").join(name).is_file(), "{name} is built by the first line");
    }

    let mut user = Clone::terminal(&host, &[]);
    let (watch, once) = look.split_last().unwrap();
    let shown = type_all(&mut user, once);
    assert!(shown.contains("3 received") && shown.contains("bridge br0"), "{shown}");
    user.start(watch);
    user.until("reading from file", SOON);
    host.sh("ip netns exec blue ping -c 2 10.10.0.2").ok();
    user.until("ICMP echo reply", SOON);
    user.interrupt();
    user.ended(SOON);
    end(&mut daemon);
    assert_eq!(host.sh("ls /run/netns").ok(), "outside\n", "what it made is gone");

    assert_eq!(gateway.len(), 1);
    daemon.start(gateway[0]);
    daemon.until(READY, SOON);
    let shown = type_all(&mut user, beyond);
    assert!(shown.contains("It works!") && shown.contains("Directory listing") && shown.contains("tcp"), "{shown}");
    let path = "export PATH=$PWD/target/release:$PATH";
    assert!(page.contains(&format!("`{path}`")), "README says how they come on the path");
    type_all(&mut user, &[path]);
    let shown = type_all(&mut user, change);
    assert!(shown.contains("10.10.0.4 > 10.10.0.3: ICMP echo request") && shown.contains("3 packets captured"), "{shown}");
    let export = std::fs::read_to_string(clone.path("now.toml")).unwrap();
    assert!(export.contains("5000-5100") && !export.contains("green"), "{export}");

    let shown = type_all(&mut user, labs);
    assert!(
        shown.contains("vsctl lab start NAME") && shown.contains("web view   http://127.0.0.1:") && shown.contains("eth0"),
        "{shown}"
    );

    let shown = type_all(&mut user, tunnel);
    assert!(shown.contains("192.0.2.3"), "{shown}");
    let linux = "ip link add vx0 type vxlan id 42 local 192.0.2.2 remote 192.0.2.1 dstport 4789";
    assert!(page.contains(&format!("`{linux}`")), "README says how a Linux host takes part");
    host.sh(&format!("outside {linux} && outside ip link set vx0 up && outside ip addr add 10.10.0.9/24 dev vx0")).ok();
    type_all(&mut user, &["ip netns exec red ping -c 1 -W 5 10.10.0.9"]);
    let file = [std::fs::read_to_string(clone.path("gateway.toml")).unwrap(), blocks(&page, "toml")[0].join("\n")].join("\n");
    std::fs::write(clone.path("tunnel.toml"), file).unwrap();
    type_all(&mut user, &["vswitchd --config tunnel.toml --check"]);
    end(&mut daemon);

    let mut ordinary = Clone::terminal(&host, &ORDINARY);
    let shown = type_all(&mut ordinary, rootless);
    assert!(shown.contains("3 received") && shown.contains("Directory listing") && shown.contains("bridge br0"), "{shown}");
    assert!(host.sh("curl -s -m 5 http://localhost:8080/").ok().contains("Directory listing"), "the host reaches it");
}

/// Types Ctrl-C for what runs, which ends well.
#[track_caller]
fn end(daemon: &mut Terminal) {
    daemon.interrupt();
    assert_eq!(daemon.ended(SOON).0, 0);
}

/// Each `path.rs::name` of a page that is a test's name.
fn tests_of(page: &str) -> Vec<(&str, &str)> {
    let words = page.split('`').skip(1).step_by(2).filter_map(|word| word.split_once("::"));
    words.filter(|(file, _)| file.ends_with(".rs")).collect()
}

#[test]
fn every_claim_of_the_security_page_names_tests_that_there_are() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let page = std::fs::read_to_string(root.join("SECURITY.md")).unwrap();
    let claims =
        page.split_once("## Who may do what by default").unwrap().1.split("## What the programs are made of").next().unwrap();
    let without: Vec<&str> = claims.lines().filter(|line| line.starts_with("- ") && tests_of(line).is_empty()).collect();
    assert_eq!(without, Vec::<&str>::new(), "claims without a test");
    let tests = tests_of(&page);
    assert!(tests.len() > 60, "{}", tests.len());
    for (file, name) in tests {
        let source = std::fs::read_to_string(root.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        // One of both engines is in a list, without an attribute of its own.
        let place = source.find(&format!("fn {name}(")).unwrap_or_else(|| panic!("{file} has no {name}"));
        let before = source[..place]
            .lines()
            .rev()
            .take(4)
            .any(|line| ["#[test]", "#[tokio::test"].iter().any(|attribute| line.trim().starts_with(attribute)));
        let listed = source.split("on_each_engine!").nth(1).is_some_and(|list| list.split('}').next().unwrap().contains(name));
        assert!(before || listed, "{file}: {name} is no test");
    }
}
