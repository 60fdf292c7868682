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
    fn new(lab: &Lab) -> Self {
        let (stream, its) = UnixStream::pair().unwrap();
        let mut broker = Command::new(program("vswitchd"));
        let broker = broker.arg("--broker").arg("--config").arg(lab.file()).stdin(OwnedFd::from(its)).spawn().unwrap();
        let mut asked = Self { broker, stream };
        let path = |name: &str| lab.path(name).display().to_string();
        let bounds = json!({ "sockets": [path("control.sock")], "successors": path("successors"), "docker": null, "writable": path("state") });
        assert_eq!(asked.ask("settle", &json!([bounds])), json!({ "Ok": null }));
        asked
    }

    /// A request without descriptors, and its outcome.
    fn ask(&mut self, name: &str, arguments: &Value) -> Value {
        let text = json!([name, arguments, 0]).to_string();
        self.stream.write_all(&u32::try_from(text.len()).unwrap().to_le_bytes()).unwrap();
        self.stream.write_all(text.as_bytes()).unwrap();
        let mut length = [0; 4];
        self.stream.read_exact(&mut length).unwrap();
        let mut text = vec![0; u32::from_le_bytes(length) as usize];
        self.stream.read_exact(&mut text).unwrap();
        serde_json::from_slice::<Value>(&text).unwrap()[0].clone()
    }
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
    let lab = Lab::new();
    lab.write("[[bridge]]\nname = \"br0\"\n");
    let mut asked = Asked::new(&lab);
    let path = |name: &str| lab.path(name).display().to_string();
    std::fs::create_dir(lab.path("state")).unwrap();
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
    for program in [path("state/program"), of(&opened), of(&gone), format!("{}/../state/program", path("state"))] {
        is_refused(&asked.ask("start_successor", &json!([program])));
    }
    assert!(!lab.path("ran").exists() && !std::path::Path::new("ran").exists());
    // What is no request ends it.
    let text = json!(["run", ["/bin/sh"], 0]).to_string();
    asked.stream.write_all(&[&u32::try_from(text.len()).unwrap().to_le_bytes()[..], text.as_bytes()].concat()).unwrap();
    assert_eq!(asked.broker.wait().unwrap().code(), Some(1));
}
