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

/// What systemd does for a unit with `Type=notify`, `Restart=always`, a socket and a store of descriptors; SIGUSR1 is `systemctl restart`.
const MANAGER: &str = r#"
import fcntl, os, signal, socket, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
notify.bind("/run/notify")
notify.settimeout(0.02)
store, asked = [], []

def take():
    try:
        data, fds, _, _ = socket.recv_fds(notify, 4096, 64)
    except TimeoutError:
        return False
    lines = data.decode().split()
    name = next((line[7:] for line in lines if line.startswith("FDNAME=")), "stored")
    if "FDSTORE=1" in lines:
        store.extend((name, fd) for fd in fds)
        for fd in fds:
            os.set_inheritable(fd, False)
    if "FDSTOREREMOVE=1" in lines:
        for entry in [entry for entry in store if entry[0] == name]:
            os.close(entry[1])
            store.remove(entry)
    with open("/run/store", "w") as file:
        file.write("".join(name + "\n" for name, _ in store))
    return True

def start():
    passed = [("vswitchd-docker.socket", listener.fileno())] + store
    pid = os.fork()
    if pid:
        return pid
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 1000) for _, fd in passed]
    for number, fd in enumerate(high):
        os.dup2(fd, 3 + number)
    names = ":".join(name for name, _ in passed)
    os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(passed)), LISTEN_FDNAMES=names, NOTIFY_SOCKET="/run/notify")
    os.execvp("vswitchd", ["vswitchd", "--config", "/run/switch.toml"])

signal.signal(signal.SIGUSR1, lambda *_: asked.append(1))
pid = start()
while True:
    take()
    if asked:
        asked.clear()
        os.kill(pid, signal.SIGTERM)
    if os.waitpid(pid, os.WNOHANG)[0]:
        while take():
            pass
        pid = start()
"#;

#[test]
fn no_link_goes_down_when_the_switch_is_restarted() {
    needs!("dockerd", "docker", "unshare", "busybox", "dnsmasq", "iptables", "curl", "nc", "python3");
    let mut host = DockerHost::new();
    let file = |workers: usize| format!("[docker]\nenabled = true\n[switch]\nworkers = {workers}\n");
    host.write("/run/switch.toml", &file(1));
    host.write("/run/manager.py", MANAGER);
    host.sh("mkdir -p /run/docker/plugins; (python3 /run/manager.py /run/docker/plugins/vswitch.sock) > /run/vswitchd.out 2> /run/vswitchd.log < /dev/null &").ok();
    let mut starts = 0;
    let mut started = |host: &mut DockerHost| {
        starts += 1;
        host.until("vswitchd is ready", |host| host.sh("grep -c ready /run/vswitchd.out").stdout == format!("{starts}\n"));
    };
    started(&mut host);
    host.start_dockerd(&[]);
    host.import();
    let run = |host: &DockerHost, name: &str| drop(host.sh(&format!("docker run -d --name {name} --network net httpd")).ok());
    host.sh("docker network create -d vswitch --subnet 10.93.0.0/24 net").ok();
    run(&host, "box");
    let changes =
        |host: &DockerHost, name: &str| host.sh(&format!("docker exec {name} cat /sys/class/net/eth0/carrier_changes")).ok();
    let mut restart = |host: &mut DockerHost, workers: usize| {
        host.write("/run/switch.toml", &file(workers));
        let before = changes(host, "box");
        host.sh("kill -USR1 $(pgrep -f '^python3 /run/manager.py')").ok();
        started(host);
        assert_eq!(changes(host, "box"), before, "{workers} workers");
        host.until("the descriptors are the switch's alone", |host| host.sh("cat /run/store").stdout.is_empty());
    };
    // The device of box has one queue, that of web one for each worker; then there are fewer and more workers.
    restart(&mut host, 2);
    run(&host, "web");
    let before = changes(&host, "web");
    for workers in [2, 1, 3] {
        restart(&mut host, workers);
        host.sh("docker exec box ping -c 3 -W 3 web && docker exec web ping -c 3 -W 3 box").ok();
        assert_eq!(changes(&host, "web"), before, "{workers} workers");
    }
    // A crash hands nothing over.
    host.sh("kill -9 $(pidof vswitchd)").ok();
    started(&mut host);
    assert_ne!(changes(&host, "web"), before, "what else would a link notice?");
    host.sh("docker exec box ping -c 3 -W 3 web && docker rm -f box web && docker network rm net").ok();
    assert_eq!(host.sh("vsctl --json list-ports; ip -o link | grep ep-").stdout, "[]\n");
}
