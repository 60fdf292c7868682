//! What the process that keeps the rights does for a vswitchd that asks for more than it should.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, Command};

use serde_json::{Value, json};
use vswitch_tests::{Lab, needs, program};

/// A broker, asked as by a vswitchd that runs an attacker's code.
struct Asked {
    broker: Child,
    stream: UnixStream,
}

impl Asked {
    /// One that its vswitchd starts is told what it is for, before that one reads anything of others; one that is a service finds it in the file.
    fn new(lab: &Lab, is_service: bool) -> Self {
        let (stream, its) = UnixStream::pair().unwrap();
        let word = if is_service { "--broker-service" } else { "--broker" };
        let broker = Command::new(program("vswitchd"))
            .arg(word)
            .arg("--config")
            .arg(lab.file())
            .stdin(OwnedFd::from(its))
            .spawn()
            .unwrap();
        let mut asked = Self { broker, stream };
        let path = |name: &str| lab.path(name).display().to_string();
        let own = json!({ "sockets": [path("control.sock")], "owner": null, "successors": path("successors"), "docker": null, "writable": path("state") });
        let all = json!({ "sockets": [path("control.sock"), path("other.sock")], "owner": null, "successors": path("other.sock"), "docker": path("other.sock"), "writable": "/none" });
        // Later words change nothing.
        for bounds in [own, all].iter().filter(|_| !is_service) {
            assert_eq!(asked.ask("settle", &json!([bounds])), json!({ "Ok": null }));
        }
        asked
    }

    /// A request without descriptors, and its outcome.
    fn ask(&mut self, name: &str, arguments: &Value) -> Value {
        say(&mut self.stream, &json!([name, arguments, 0]));
        hear(&mut self.stream)[0].clone()
    }
}

fn say(stream: &mut UnixStream, what: &Value) {
    let text = what.to_string();
    stream.write_all(&[&u32::try_from(text.len()).unwrap().to_le_bytes()[..], text.as_bytes()].concat()).unwrap();
}

fn hear(stream: &mut UnixStream) -> Value {
    let mut length = [0; 4];
    stream.read_exact(&mut length).unwrap();
    let mut text = vec![0; u32::from_le_bytes(length) as usize];
    stream.read_exact(&mut text).unwrap();
    serde_json::from_slice(&text).unwrap()
}

impl Drop for Asked {
    fn drop(&mut self) {
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
        let _ = self.broker.wait();
    }
}

#[test]
fn a_broker_does_no_more_than_it_is_for_whoever_asks() {
    needs!();
    does_no_more_than_it_is_for(false);
}

#[test]
fn a_broker_that_is_a_service_does_no_more_than_the_file_says_whoever_asks() {
    needs!();
    does_no_more_than_it_is_for(true);
}

fn does_no_more_than_it_is_for(is_service: bool) {
    let lab = Lab::new();
    lab.write("[[bridge]]\nname = \"br0\"\n");
    let path = |name: &str| lab.path(name).display().to_string();
    std::fs::create_dir(lab.path("state")).unwrap();
    let mut asked = Asked::new(&lab, is_service);
    for name in ["precious", "state/program"] {
        std::fs::write(lab.path(name), "#!/bin/sh\ntouch ran\n").unwrap();
        lab.sh(&format!("chmod 755 {}", path(name))).ok();
    }
    let is_refused =
        |outcome: &Value| assert!(outcome["Ok"]["Err"].is_object() || outcome["Ok"]["Err"].is_string(), "{outcome}");
    // Names of namespaces lead nowhere else.
    for name in [path("precious"), format!("../..{}", path("precious"))] {
        is_refused(&asked.ask("remove_netns", &json!([name])));
        is_refused(&asked.ask("mark_netns", &json!([name, "mark"])));
    }
    // Sockets are those of the file, and so is what is removed.
    is_refused(&asked.ask("make_socket", &json!([path("other.sock"), 0o666, null])));
    let _other = UnixListener::bind(lab.path("other.sock")).unwrap();
    is_refused(&asked.ask("identify", &json!([path("other.sock")])));
    let found = std::fs::metadata(lab.path("other.sock")).unwrap();
    asked.ask("remove_socket", &json!([path("other.sock"), [found.dev(), found.ino()]]));
    assert!(lab.path("other.sock").exists() && lab.path("precious").exists());
    is_refused(&asked.ask("connect_to_docker", &Value::Null));
    // No program is started that the asker can have written: in its directory, without a name, or of no file at all.
    let opened = std::fs::File::open(lab.path("state/program")).unwrap();
    std::fs::copy(lab.path("state/program"), lab.path("state/gone")).unwrap();
    let gone = std::fs::File::open(lab.path("state/gone")).unwrap();
    std::fs::remove_file(lab.path("state/gone")).unwrap();
    let own = std::process::id();
    let of = |file: &std::fs::File| format!("/proc/{own}/fd/{}", file.as_raw_fd());
    let programs = [path("state/program"), of(&opened), of(&gone), format!("{}/../state/program", path("state"))];
    for program in programs.iter().filter(|_| !is_service) {
        is_refused(&asked.ask("start_successor", &json!([program])));
    }
    assert!(!lab.path("ran").exists() && !std::path::Path::new("ran").exists());
    // What is no request ends it.
    drop(asked);
    let unknown: &[&str] = if is_service { &["run", "settle", "start_successor"] } else { &["run"] };
    for name in unknown {
        let mut asked = Asked::new(&lab, is_service);
        say(&mut asked.stream, &json!([name, ["/bin/sh"], 0]));
        assert_eq!(asked.broker.wait().unwrap().code(), Some(1), "{name}");
    }
}

#[test]
fn a_switch_takes_no_broker_of_another_version_or_file() {
    needs!();
    let lab = Lab::new();
    lab.write("[[bridge]]\nname = \"br0\"\n");
    let (place, file) = (lab.path("broker.sock"), lab.file().display().to_string());
    let refused = |said: &str| {
        let mut vswitchd = Command::new(program("vswitchd"));
        let output = vswitchd.arg("--config").arg(lab.file()).arg("--broker-at").arg(&place).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(1) && stderr.contains(said), "{said}: {stderr}");
    };
    refused("no process that keeps the rights is to be had at ");
    let listener = UnixListener::bind(&place).unwrap();
    // What its own broker would say.
    let (mut own, its) = UnixStream::pair().unwrap();
    let mut broker = Command::new(program("vswitchd"));
    let mut broker = broker.args(["--broker-service", "--config", &file]).stdin(OwnedFd::from(its)).spawn().unwrap();
    say(&mut own, &json!(["introduce", null, 0]));
    let right = hear(&mut own);
    drop(own);
    broker.wait().unwrap();
    let changed = |key: &str| {
        let mut other = right.clone();
        other[0]["Ok"][key] = json!("other");
        other
    };
    for (introduction, said) in
        [(changed("requests"), "is of another version of vswitchd"), (changed("file"), "reads other: it is")]
    {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut stream = listener.accept().unwrap().0;
                assert_eq!(hear(&mut stream)[0], "introduce");
                say(&mut stream, &introduction);
            });
            refused(said);
        });
    }
}

#[test]
fn a_broker_ends_with_its_process_though_the_socket_is_kept_open() {
    needs!("python3");
    let lab = Lab::new();
    lab.write("[[bridge]]\nname = \"br0\"\n");
    // The process that has the socket ends, and leaves it to another one.
    let leave = "import socket, subprocess, sys\n\
        own, its = socket.socketpair()\n\
        broker = subprocess.Popen([sys.argv[1], '--broker-service', '--config', sys.argv[2]], stdin=its, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)\n\
        keeper = subprocess.Popen(['sleep', '30'], pass_fds=[own.fileno()], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)\n\
        own.sendall(b'\\x14\\0\\0\\0[\"introduce\",null,0]')\n\
        own.recv(1)\n\
        print(broker.pid, keeper.pid)";
    let output = Command::new("python3").args(["-c", leave]).arg(program("vswitchd")).arg(lab.file()).output().unwrap();
    let said = String::from_utf8(output.stdout.clone()).unwrap();
    let [broker, keeper] = [0, 1].map(|part| said.split_whitespace().nth(part).unwrap_or_else(|| panic!("{output:?}")));
    let is_gone = |pid: &str| std::fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z"));
    lab.until("the broker has ended", |_| is_gone(broker));
    assert!(!is_gone(keeper), "the socket is open");
    lab.sh(&format!("kill {keeper}")).ok();
}
