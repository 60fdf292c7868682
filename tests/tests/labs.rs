//! The labs: each fails unsolved, passes solved, fails with a wrong solution, and leaves nothing behind. As an ordinary user where that is enough.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde_json::Value;
use vswitch_tests::{ORDINARY, needs, program};

/// A learner with a directory for labs, whose name is short enough for sockets.
struct Learner {
    directory: tempfile::TempDir,
    is_root: bool,
}

impl Learner {
    fn new(is_root: bool) -> Self {
        let directory = tempfile::Builder::new().prefix("lab").rand_bytes(4).tempdir_in("/tmp").unwrap();
        // The checkout may be where other users cannot go.
        for name in ["vsctl", "vswitchd"] {
            fs::copy(program(name), directory.path().join(name)).unwrap();
        }
        assert!(Command::new("chmod").args(["-R", "a+rwX"]).arg(directory.path()).status().unwrap().success());
        Self { directory, is_root }
    }

    fn place(&self) -> PathBuf {
        self.directory.path().join("l")
    }

    fn run(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }

    fn command(&self, words: &[&str]) -> Command {
        let vsctl = self.directory.path().join("vsctl");
        let mut command = Command::new(if self.is_root { "env" } else { ORDINARY[0] });
        command.args(if self.is_root { &[] } else { &ORDINARY[1..] }).arg(vsctl);
        command.arg("lab").args(words).env("VSWITCH_LAB_DIR", self.place()).env("HOME", self.directory.path());
        command.current_dir(self.directory.path());
        command
    }

    #[track_caller]
    fn does(&self, words: &[&str]) -> String {
        let output = self.run(words);
        assert!(output.status.success(), "{words:?}: {}{}", text(&output.stdout), text(&output.stderr));
        text(&output.stdout)
    }

    #[track_caller]
    fn is_told(&self, words: &[&str], part: &str) {
        let output = self.run(words);
        let said = text(&output.stderr);
        assert!(output.status.code() == Some(1) && said.contains(part), "{words:?}: {said}");
    }

    fn json(&self, words: &[&str]) -> Value {
        serde_json::from_slice(&self.run(words).stdout).unwrap()
    }

    /// What is mounted in its directory, as this host sees it.
    fn mounts(&self) -> usize {
        let directory = self.directory.path().display().to_string();
        fs::read_to_string("/proc/self/mounts").unwrap().lines().filter(|line| line.contains(&directory)).count()
    }

    /// Processes that use its programs; those that ended wait for a parent that may never ask.
    fn processes(&self) -> usize {
        let own = |entry: &fs::DirEntry| {
            fs::read_link(entry.path().join("exe")).is_ok_and(|exe| exe.starts_with(self.directory.path()))
        };
        fs::read_dir("/proc").unwrap().flatten().filter(own).count()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn every_lab_can_be_passed_and_only_by_doing_it() {
    needs!("unshare", "nsenter", "setsid", "setpriv", "bird", "dockerd", "tcpdump", "iperf3", "dig", "traceroute", "tshark");
    let everybody = Learner::new(false);
    let labs = everybody.json(&["list", "--json"]);
    let labs: Vec<(String, bool)> =
        labs.as_array().unwrap().iter().map(|lab| (lab["name"].as_str().unwrap().to_owned(), lab["root"] == true)).collect();
    assert!(labs.len() >= 16, "{labs:?}");
    let (queue, wrong) = (Mutex::new(labs), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        // They wait most of the time.
        for _ in 0..6 {
            scope.spawn(|| {
                loop {
                    let Some((name, root)) = queue.lock().unwrap().pop() else { break };
                    let learner = Learner::new(root);
                    let output = learner.run(&["verify", "--quick", &name]);
                    if !output.status.success() {
                        wrong.lock().unwrap().push(format!("{}{}", text(&output.stdout), text(&output.stderr)));
                    }
                    assert_eq!(learner.processes(), 0, "{name} leaves something behind");
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn starting_and_stopping_ten_times_leaves_nothing() {
    needs!("unshare", "nsenter", "setsid", "setpriv");
    for is_root in [true, false] {
        let learner = Learner::new(is_root);
        for _ in 0..10 {
            learner.does(&["start", "vlans"]);
            learner.does(&["stop"]);
        }
        assert_eq!((learner.processes(), learner.mounts()), (0, 0));
        assert!(!learner.place().join("run").exists());
    }
}

#[test]
fn a_lab_whose_every_process_was_killed_is_stopped_and_started_like_any_other() {
    needs!("unshare", "nsenter", "setsid", "setpriv");
    let learner = Learner::new(false);
    learner.does(&["start", "vlans"]);
    assert!(learner.processes() >= 3);
    let own = |entry: &fs::DirEntry| {
        fs::read_link(entry.path().join("exe")).is_ok_and(|exe| exe.starts_with(learner.directory.path()))
    };
    for entry in fs::read_dir("/proc").unwrap().flatten().filter(own) {
        Command::new("kill").arg("-9").arg(entry.file_name()).status().unwrap();
    }
    for _ in 0..1000 {
        if learner.processes() > 0 {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
    learner.is_told(&["check"], "the lab has ended: `vsctl lab reset` starts it anew");
    learner.does(&["reset"]);
    learner.does(&["stop"]);
    learner.is_told(&["stop"], "no lab runs here");
    assert_eq!((learner.processes(), learner.mounts()), (0, 0));
}

#[test]
fn a_learner_is_told_what_was_seen_and_is_graded() {
    needs!("unshare", "nsenter", "setsid", "setpriv");
    let learner = Learner::new(false);
    learner.does(&["new", "mine"]);
    learner.is_told(&["new", "mine"], "mine.toml is there already");
    learner.does(&["verify", "mine.toml"]);
    let said = learner.does(&["start", "mine.toml", "--seed", "ada"]);
    assert!(said.contains("## Make red and blue reach each other") && said.contains("http://127.0.0.1:"), "{said}");
    learner.is_told(&["start", "mine.toml"], "the lab mine runs already: end it with `vsctl lab stop`");
    let output = learner.run(&["check"]);
    assert!(text(&output.stdout).contains("✗ red reaches blue\n      seen: "), "{}", text(&output.stdout));
    assert_eq!(text(&output.stderr), "1 of 3 points; stage 1 is not done yet\n");
    assert!(learner.does(&["hint"]).contains("list-ports"));
    let vlan =
        learner.does(&["shell", "--", "sh", "-c", "vsctl --json list-ports | grep -o '\"vlan\": [0-9]*' | grep -o '[0-9]*'"]);
    learner.does(&["shell", "--", "vsctl", "set-port", "blue", "--vlan", vlan.trim()]);
    learner.is_told(&["answer", "vlna", "7"], "there is no question \"vlna\" in this lab: it has vlan");
    learner.does(&["answer", "vlan", "7"]);
    learner.is_told(&["check"], "2 of 3 points");
    learner.does(&["answer", "vlan", vlan.trim()]);
    // A browser gets the same text beside the topology.
    let page = learner.json(&["status", "--json"])["page"].as_str().unwrap().to_owned();
    let guide = Command::new("curl").args(["-s", "-m", "5"]).arg(format!("{page}api/guide")).output().unwrap();
    assert!(text(&guide.stdout).contains("Make red and blue reach each other"), "{}", text(&guide.stdout));
    fs::create_dir(learner.directory.path().join("class")).unwrap();
    assert!(Command::new("chmod").arg("777").arg(learner.directory.path().join("class")).status().unwrap().success());
    learner.does(&["check", "--report", "class/ada.json"]);
    // What is undone is not done, though it stays earned.
    learner.does(&["shell", "--", "vsctl", "set-port", "blue", "--vlan", "4000"]);
    learner.is_told(&["check", "--stage", "1"], "3 of 3 points; stage 1 was done, and is not so any more");
    learner.does(&["shell", "--", "vsctl", "set-port", "blue", "--vlan", vlan.trim()]);
    learner.does(&["check", "--stage", "1"]);
    learner.does(&["stop"]);
    assert!(learner.does(&["grade", "class"]).contains("3/3?"));
    assert!(learner.does(&["grade", "class", "--csv"]).contains("red reaches blue,1,1,1,false,"));
    assert_eq!(learner.json(&["grade", "class", "--json"])[0]["points"], 3);
}

#[test]
fn a_file_that_cannot_be_a_lab_is_told_with_its_line() {
    needs!("unshare", "nsenter", "setsid", "setpriv");
    let learner = Learner::new(true);
    learner.does(&["new", "mine"]);
    let file = learner.directory.path().join("mine.toml");
    let good = fs::read_to_string(&file).unwrap();
    let line = |part: &str| good.lines().position(|line| line.contains(part)).unwrap() + 1;
    let told = |from: &str, to: &str, part: &str| {
        fs::write(&file, good.replacen(from, to, 1)).unwrap();
        learner.is_told(&["start", "mine.toml", "--no-web"], &format!("mine.toml:{}", line(from.lines().next().unwrap())));
        learner.is_told(&["start", "mine.toml", "--no-web"], part);
    };
    told("\"red$ ping", "\"rde$ ping", "there is no host \"rde\": this lab has blue, red");
    told("vlan      = {{vlan}}", "send-rate = \"0\"", "is no rate");
    told("bridge    = \"br0\"", "bridge    = \"br1\"", "br1");
    told("# A lab:", "link = [{ ends = [\"red:eth1\", \"red:eth2\"] }] # A lab:", "both ends of the link are at red");
    fs::write(&file, good.replace("10.0.0.2\"", "10.0.0.9\"")).unwrap();
    learner.is_told(&["verify", "mine.toml"], "its solution does not make \"red reaches blue\" hold; seen: ");
    fs::write(&file, good.replace("holds = true", "")).unwrap();
    learner.is_told(&["verify", "mine.toml"], "\"red is still in its VLAN\" holds before anything is done");
    assert!(!Path::new(&learner.place()).join("run").exists(), "nothing is left of what did not start");
}

/// A lab that reaches a server outside, and is reached by a published port.
const WAY_OUT: &str = r#"
[lab]
name    = "out"
title   = "The way out"
summary = "A host behind the host's own sockets."
minutes = 5
way-out = true

[[uplink]]
name = "host"
kind = "host"

[[bridge]]
name      = "br0"
addresses = ["10.66.0.1/24"]

[[port]]
name      = "pc"
bridge    = "br0"
netns     = "pc"
addresses = ["10.66.0.2/24"]

[[host]]
name    = "pc"
daemons = ["python3 -m http.server 8000"]

[[stage]]
title = "Out and in"
hints = ["An uplink of a bridge is its way out."]
solve = ["$ vsctl set-br br0 --uplink host", "$ vsctl add-forward host tcp/PUBLISHED 10.66.0.2:8000"]
wrong = ["$ vsctl add-br br1 --address 10.67.0.1/24 --uplink host"]

  [[stage.check]]
  says  = "pc reaches a server outside"
  run   = "pc$ curl -s -m 2 http://OUTSIDE/"
  shows = "from outside"

  [[stage.check]]
  says   = "pc is reached from outside"
  run    = "$ curl -s -m 2 http://127.0.0.1:PUBLISHED/"
  shows  = "Directory listing"
  within = "5s"
"#;

#[test]
fn a_lab_with_a_way_out_reaches_the_outside_and_is_reached_by_root_and_others() {
    needs!("unshare", "nsenter", "setsid", "setpriv", "curl", "python3");
    // The address by which this machine would go out; nothing is sent.
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    let outside = socket.connect("192.0.2.1:9").and_then(|()| socket.local_addr()).map(|address| address.ip());
    let listener = TcpListener::bind((outside.unwrap_or(Ipv4Addr::LOCALHOST.into()), 0)).unwrap();
    let outside = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut request = [0; 1000];
            let _ = stream.read(&mut request);
            let _ = stream.write_all(b"HTTP/1.0 200 OK\r\nContent-Length: 12\r\n\r\nfrom outside");
        }
    });
    for is_root in [true, false] {
        let learner = Learner::new(is_root);
        let published = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
        let lab = WAY_OUT.replace("OUTSIDE", &outside).replace("PUBLISHED", &published);
        fs::write(learner.directory.path().join("out.toml"), lab).unwrap();
        fs::write(learner.directory.path().join("out.md"), "# The way out\n\n## Out and in\n\nReach it.\n").unwrap();
        let said = learner.does(&["verify", "--quick", "out.toml"]);
        assert!(said.contains("fails unsolved, passes solved") && said.contains("fails with a wrong solution"), "{said}");
        assert_eq!((learner.processes(), learner.mounts()), (0, 0));
    }
}

#[test]
fn a_wrong_solution_has_the_time_that_a_learners_check_has_and_an_interrupted_one_is_stopped() {
    needs!("unshare", "nsenter", "setsid", "setpriv");
    let learner = Learner::new(false);
    learner.does(&["new", "mine"]);
    let file = learner.directory.path().join("mine.toml");
    let good = fs::read_to_string(&file).unwrap();
    // What mends it a second later would pass a learner's check, which waits for two.
    let late = "wrong = [\"$ (sleep 1; vsctl set-port blue --vlan {{vlan}}) > /dev/null 2>&1 &\"]";
    fs::write(&file, good.replace("wrong = [\"$ vsctl set-port red --vlan 1\"]", late)).unwrap();
    learner.is_told(&["verify", "mine.toml"], "is passed by what only seems to solve it");

    fs::write(&file, good.replace("solve = [", "solve = [\"red$ sleep 50\", ")).unwrap();
    let mut verifying = learner.command(&["verify", "mine.toml"]).stderr(Stdio::piped()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    let sleeps = || {
        let words = |entry: fs::DirEntry| fs::read(entry.path().join("cmdline")).unwrap_or_default();
        fs::read_dir("/proc").unwrap().flatten().any(|entry| words(entry) == b"sleep\x0050\0")
    };
    while !sleeps() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
    }
    let begun = Instant::now();
    Command::new("kill").arg("-INT").arg(verifying.id().to_string()).status().unwrap();
    let status = verifying.wait().unwrap();
    let mut said = String::new();
    verifying.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(status.code() == Some(1) && said.contains("interrupted: what was verified is stopped"), "{status} {said}");
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    assert_eq!((learner.processes(), learner.mounts()), (0, 0));
    assert!(
        fs::read_dir(learner.place()).unwrap().flatten().all(|entry| !entry.file_name().to_string_lossy().starts_with('v'))
    );
}
