//! The units in `dist/`, and what systemd does by them: it holds Docker's socket and starts vswitchd with it.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::process::Command;

use vswitch_tests::{DockerHost, needs, program};

fn dist() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../dist")
}

#[test]
fn systemd_finds_no_fault_with_the_units() {
    needs!("systemd-analyze");
    let directory = std::env::temp_dir().join(format!("vswitch-units-{}", std::process::id()));
    std::fs::create_dir_all(directory.join("docker.service.d")).unwrap();
    let built = program("vswitchd").parent().unwrap().display().to_string();
    for name in ["vswitchd.service", "vswitchd-docker.socket", "docker.service.d/vswitch.conf"] {
        // It looks whether the programs are there.
        let unit = std::fs::read_to_string(dist().join(name)).unwrap().replace("/usr/local/bin", &built);
        std::fs::write(directory.join(name), unit).unwrap();
    }
    std::fs::write(directory.join("docker.service"), "[Service]\nExecStart=/bin/true\n").unwrap();
    let verify = |name: &str| {
        let output = Command::new("systemd-analyze").args(["verify", &format!("./{name}")]).current_dir(&directory).output();
        String::from_utf8(output.unwrap().stderr).unwrap()
    };
    // What it has to say about other units of the machine is not about these.
    let ours = |said: &str| said.lines().filter(|line| line.contains("vswitch")).map(str::to_owned).collect::<Vec<_>>();
    for name in ["vswitchd.service", "vswitchd-docker.socket", "docker.service"] {
        assert_eq!(ours(&verify(name)), Vec::<String>::new(), "{name}");
    }
    let wrong = directory.join("vswitch-wrong.service");
    std::fs::write(&wrong, "[Service]\nExecStart=/bin/true\nRestartt=always\n").unwrap();
    assert_eq!(ours(&verify("vswitch-wrong.service")).len(), 1, "it would have found a fault");
    std::fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn a_call_of_dockers_waits_at_the_socket_and_starts_the_switch() {
    needs!("dockerd", "docker", "unshare", "busybox", "dnsmasq", "iptables", "curl", "nc", "systemd-socket-activate");
    let mut host = DockerHost::new();
    host.write("/run/switch.toml", "[docker]\nenabled = true\n");
    host.start_dockerd(&[]);
    host.import();
    let socket = std::fs::read_to_string(dist().join("vswitchd-docker.socket")).unwrap();
    let path = socket.lines().find_map(|line| line.strip_prefix("ListenStream=")).unwrap();
    let activate = format!(
        "mkdir -p $(dirname {path}); systemd-socket-activate -l {path} $(command -v vswitchd) --config /run/switch.toml"
    );
    host.sh(&format!(
        "({activate}) > /run/vswitchd.out 2> /run/vswitchd.log < /dev/null & disown; until [ -S {path} ]; do sleep 0.02; done"
    ))
    .ok();
    let file = host.sh(&format!("stat -c %i {path}")).ok();
    assert_eq!(host.sh("cat /run/vswitchd.out").ok(), "", "nobody has called yet");
    host.sh("docker network create -d vswitch --subnet 10.92.0.0/24 net && docker run --rm --network net busybox ping -c 1 10.92.0.1").ok();
    assert_eq!(host.sh("cat /run/vswitchd.out").ok(), "ready\n");
    assert_eq!(host.sh(&format!("stat -c %i {path}")).ok(), file, "the socket is another one");
    host.sh("docker network rm net && vsctl shutdown").ok();
    host.until("the switch has ended", |host| !host.file("/run/vswitch/control.sock").exists());
    assert_eq!(host.sh(&format!("stat -c %i {path}")).ok(), file, "the socket is systemd's to remove");
}
