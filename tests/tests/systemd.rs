//! The units in `dist/`, and what systemd does by them: it holds Docker's socket and starts vswitchd with it, and leaves the service no more than it
//! needs.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

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
    let units = ["vswitchd.service", "vswitchd-broker.socket", "vswitchd-broker@.service", "vswitchd-docker.socket"];
    for name in units.into_iter().chain(["docker.service.d/vswitch.conf"]) {
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
    for name in units.into_iter().chain(["docker.service"]) {
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

/// Boots systemd of this machine, as far as basic.target, in namespaces of its own and an overlay of the root directory, with the built programs in
/// `$1` installed, and the units of `$2`.
const BOOT: &str = r#"
set -e
mount -t tmpfs none /mnt
mkdir /mnt/up /mnt/work /mnt/root
mount -t overlay overlay -o lowerdir=/,upperdir=/mnt/up,workdir=/mnt/work /mnt/root
cd /mnt/root
mount -t proc none proc && mount -t sysfs none sys && mount -t cgroup2 none sys/fs/cgroup
mount -t tmpfs none run && mount -t tmpfs none tmp && mount --rbind /dev dev
mount --bind "$1" usr/local/bin
rm -rf etc/systemd/system/*.wants etc/systemd/system/*.requires
ln -sf /lib/systemd/system/basic.target etc/systemd/system/default.target
cp "$2"/vswitchd.service "$2"/vswitchd-broker.socket "$2"/vswitchd-broker@.service etc/systemd/system/
mkdir -p etc/sysusers.d && cp "$2"/vswitch.sysusers etc/sysusers.d/vswitch.conf && systemd-sysusers --root="$PWD" vswitch.conf
rm -rf var/lib/vswitch && mkdir -p etc/vswitch
cat > etc/vswitch/switch.toml
mount --make-rprivate /
pivot_root . mnt
umount -l /mnt
# As on any machine; systemd does it itself but for a container.
mount --make-rshared /
export container=other
exec /lib/systemd/systemd --system --show-status=0 --log-target=null
"#;

/// A machine that systemd has booted. It is gone with this.
struct Machine(Child);

impl Machine {
    fn boot(switch: &str) -> Self {
        let mut command = Command::new("unshare");
        command.args([
            "--fork",
            "--kill-child",
            "--pid",
            "--mount",
            "--net",
            "--uts",
            "--ipc",
            "--cgroup",
            "bash",
            "-c",
            BOOT,
            "boot",
        ]);
        command.arg(program("vswitchd").parent().unwrap()).arg(dist()).stdin(Stdio::piped());
        let mut child = command.spawn().unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), switch.as_bytes()).unwrap();
        let machine = Self(child);
        machine.until("systemd has booted", "systemctl is-system-running | grep -q 'running\\|degraded'");
        machine
    }

    fn sh(&self, line: &str) -> Output {
        // What unshare has forked is the first process of the machine.
        let first = Command::new("pgrep").args(["-P", &self.0.id().to_string()]).output().unwrap().stdout;
        let first = String::from_utf8(first).unwrap();
        Command::new("nsenter").args(["-a", "-t", first.trim(), "sh", "-c", line]).stdin(Stdio::null()).output().unwrap()
    }

    #[track_caller]
    fn ok(&self, line: &str) -> String {
        let Output { status, stdout, stderr } = self.sh(line);
        let log = || String::from_utf8(self.sh("journalctl -u vswitchd -o cat | tail -n 30").stdout).unwrap();
        assert!(status.success(), "{line}: {}{}", String::from_utf8_lossy(&stderr), log());
        String::from_utf8(stdout).unwrap()
    }

    #[track_caller]
    fn until(&self, what: &str, line: &str) {
        let begun = Instant::now();
        while !self.sh(line).status.success() {
            assert!(begun.elapsed() < Duration::from_secs(60), "not in time: {what}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // All of its processes end with the first one.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_service_works_with_what_its_unit_leaves_it() {
    needs!("unshare", "pivot_root", "systemctl", "pgrep", "ping", "systemd-analyze", "busybox");
    let station = |name: &str, number: u8, more: &str| {
        format!(
            "[[port]]\nname = \"{name}\"\nbridge = \"br0\"\nnetns = \"{name}\"\naddresses = [\"10.10.0.{number}/24\"]\n{more}"
        )
    };
    let file = "[[bridge]]\nname = \"br0\"\naddresses = [\"10.10.0.1/24\"]\ndhcp = true\nuplink = \"host\"\n[[uplink]]\nname = \"host\"\nkind = \"host\"\n\
        [[forward]]\nuplink = \"host\"\nprotocol = \"tcp\"\nport = \"80\"\nto = \"10.10.0.2:80\"\n[switch]\ncontrol-group = \"daemon\"\n[web]\nlisten = \"127.0.0.1:8080\"\n";
    let machine = Machine::boot(&format!("{file}{}{}", station("red", 2, ""), station("blue", 3, "kind = \"veth\"\n")));
    machine.ok("ip link set lo up && systemctl start vswitchd");
    // Names of namespaces are seen by all, and what is in them works.
    machine.ok("ip netns exec red ping -c 1 -W 5 10.10.0.3 && ip netns exec blue ping -c 1 -W 5 10.10.0.1");
    machine
        .ok("test $(stat -c %a /run/netns) = 755 && test $(stat -c '%a %G' /run/vswitch/control.sock | tr ' ' -) = 660-daemon");
    machine.ok("vsctl add-port br0 green --netns green --mac 02:00:00:00:00:04 && ip netns exec green busybox udhcpc -f -n -q -i eth0 -s /bin/true");
    // A port below 1024, through which a client on the host gets to red.
    machine.ok("ip netns exec red sh -c 'echo hello > /run/index.html; busybox httpd -p 80 -h /run' && busybox wget -q -O - http://127.0.0.1/index.html");
    let shown = machine.ok("vsctl show");
    assert!(shown.contains("sandbox on") && shown.contains("flow_queues"), "{shown}");
    let held = machine.ok("pid=$(systemctl show -p MainPID --value vswitchd); cat /proc/$pid/task/*/status");
    let (threads, user) = (held.matches("Name:\t").count(), machine.ok("id -u vswitch"));
    for line in ["NoNewPrivs:\t1\n", "CapPrm:\t0000000000000000\n", "Seccomp:\t2\n", &format!("Uid:\t{0}\t{0}", user.trim())] {
        assert_eq!(held.matches(line).count(), threads, "{line}: {held}");
    }
    // Who asked is told, though processes are hidden from it.
    machine.ok("journalctl -u vswitchd -o cat | grep -q 'add-port br0 green, asked for by uid 0, vsctl ('");
    machine.ok("systemctl reload vswitchd && vsctl add-br br1 && vsctl del-port green && systemctl restart vswitchd");
    machine.ok("vsctl list-br | grep br1 && ip netns exec red ping -c 1 -W 5 10.10.0.3");
    // Devices of the host, and a tunnel.
    machine.ok("ip link add wan0 type veth peer name wan1 && ip link add lan0 type veth peer name lan1 && ip address add 192.0.2.1/24 dev wan1 && ip link set wan1 up && ip link set wan0 up && ip link set lan0 up && ip link set lan1 up");
    machine.ok("vsctl add-uplink wan --kind link --device wan0 --address 192.0.2.2/24 --gateway 192.0.2.1 && vsctl set-br br1 --address 10.11.0.1/24 --uplink wan && vsctl add-port br1 lan --kind link --device lan0");
    machine.ok("vsctl add-port br1 far --netns far --address 10.11.0.2/24 && ip netns exec far ping -c 1 -W 5 192.0.2.1");
    machine.ok("vsctl add-vxlan br1 tun --vni 7 --local 127.0.0.1 --peer 127.0.0.2 && vsctl list-vxlan");
    machine.ok("vsctl upgrade /usr/local/bin/vswitchd && ip netns exec far ping -c 1 -W 5 192.0.2.1");
    machine.ok("vsctl del-port far && vsctl del-port lan && vsctl del-vxlan tun && vsctl set-br br1 --uplink none && vsctl del-uplink wan");
    assert_eq!(machine.ok("ip netns list | grep -c green; true"), "0\n");
    machine.ok("pkill busybox; systemctl stop vswitchd");
    let log = machine.ok("journalctl -o cat -u 'vswitchd*'");
    let complaints = log.lines().filter(|line| line.contains(" WARN ") || line.contains(" ERROR "));
    // Nothing is at the other end of the tunnel.
    let complaints: Vec<&str> = complaints.filter(|line| !line.contains("peer 127.0.0.2: connection refused")).collect();
    assert!(complaints.is_empty(), "{complaints:#?}");
    assert_eq!(machine.ok("ip netns list; systemctl show -p Result --value vswitchd"), "success\n");
    machine.until("its brokers have ended", "! systemctl list-units 'vswitchd-broker@*' | grep -q running");
}

#[test]
fn as_a_service_it_is_replaced_killed_and_stopped_with_the_process_that_keeps_its_rights() {
    needs!("unshare", "pivot_root", "systemctl", "pgrep", "ping", "python3");
    let file = "[[bridge]]\nname = \"br0\"\naddresses = [\"10.10.0.1/24\"]\n[[port]]\nname = \"red\"\nbridge = \"br0\"\nnetns = \"red\"\naddresses = [\"10.10.0.2/24\"]\n";
    let machine = Machine::boot(file);
    machine.ok("ip link set lo up && systemctl start vswitchd");
    let main = || machine.ok("systemctl show -p MainPID --value vswitchd").trim().to_owned();
    let brokers =
        || machine.ok("pgrep -x vswitchd-broker | wc -l; systemctl list-units --no-legend 'vswitchd-broker@*' | wc -l");
    let works = || machine.ok("ip netns exec red ping -c 1 -W 5 10.10.0.1");
    let restarts = || machine.ok("systemctl show -p NRestarts --value vswitchd");
    works();
    assert_eq!(brokers(), "1\n1\n");
    // The unit holds nothing: neither the switch, nor what starts its successor. All rights are the broker's.
    let held = machine.ok("for pid in $(systemctl show -p MainPID --value vswitchd) $(pgrep -x vswitchd-start); do grep -E 'Name|CapPrm|CapBnd' /proc/$pid/status; done");
    assert_eq!(held.matches(":\t0000000000000000\n").count(), 4, "{held}");
    let broker = machine.ok("grep CapEff /proc/$(pgrep -x vswitchd-broker)/status");
    assert!(!broker.contains(":\t0000000000000000\n"), "{broker}");
    // The successor is a process of the service, with a broker of its own, and no restart.
    let before = main();
    let said = machine.ok("vsctl upgrade /usr/local/bin/vswitchd 2>&1");
    assert!(said.contains(&format!("has taken over from process {before}")), "{said}");
    machine.until("systemd knows the successor", &format!("[ $(systemctl show -p MainPID --value vswitchd) != {before} ]"));
    machine.until("the broker of the one before has ended", "[ $(pgrep -x vswitchd-broker | wc -l) = 1 ]");
    works();
    assert_eq!((brokers(), restarts()), ("1\n1\n".to_owned(), "0\n".to_owned()));
    let group = machine.ok(&format!("cat /proc/{}/cgroup", main()));
    assert!(group.ends_with("/vswitchd.service\n"), "{group}");
    // Of the two that need each other, both end and come back, whichever is killed.
    let back = |before: &str| {
        let is_other = format!(
            "pid=$(systemctl show -p MainPID --value vswitchd); [ $pid != {before} ] && [ $pid != 0 ] && systemctl -q is-active vswitchd"
        );
        machine.until("it is there again", &is_other);
        machine.until("the old broker has ended", "[ $(pgrep -x vswitchd-broker | wc -l) = 1 ]");
        works();
    };
    for killed in ["$(systemctl show -p MainPID --value vswitchd)", "$(pgrep -x vswitchd-broker)"] {
        let before = main();
        machine.ok(&format!("kill -9 {killed}"));
        back(&before);
    }
    assert_eq!((brokers(), restarts()), ("1\n1\n".to_owned(), "2\n".to_owned()));
    // Without what starts successors, it goes on.
    let before = main();
    machine.ok("kill -9 $(pgrep -x vswitchd-start)");
    let said = machine.ok("vsctl upgrade /usr/local/bin/vswitchd 2>&1; true");
    assert!(said.contains("the process that starts successors does not answer") && main() == before, "{said}");
    // A file that only those with rights may read, and one with an error.
    machine.ok("chmod 600 /etc/vswitch/switch.toml && systemctl restart vswitchd && vsctl upgrade /usr/local/bin/vswitchd");
    works();
    machine.ok("echo '[[brigde]]' >> /etc/vswitch/switch.toml; vsctl reload 2>&1 | grep -q brigde; vsctl upgrade /usr/local/bin/vswitchd 2>&1 | grep -q brigde");
    works();
    machine.ok("sed -i '/brigde/d' /etc/vswitch/switch.toml");
    // However often others call where the broker is had, it is had there again, and where it is not, it comes with the switch.
    let before = main();
    machine.ok("python3 -c 'import socket\nfor _ in range(600): socket.socket(socket.AF_UNIX).connect(\"/run/vswitchd-broker.sock\")' 2>&1 | tail -n 1");
    machine.ok("kill -9 $(systemctl show -p MainPID --value vswitchd)");
    back(&before);
    machine.ok("systemctl stop vswitchd-broker.socket");
    works();
    let before = main();
    machine.ok("systemctl restart vswitchd");
    back(&before);
    machine.ok("systemctl stop vswitchd && systemctl stop vswitchd-broker.socket");
    assert_eq!(machine.ok("pgrep vswitchd; ls /run/vswitchd-broker.sock 2> /dev/null; ip netns list; true"), "");
}

/// What systemd says of how far a unit is shut in; peers: dnsmasq, Docker and Open vSwitch have 9.5 and more.
#[test]
fn the_units_are_shut_in() {
    needs!("systemd-analyze");
    let directory = tempfile::tempdir().unwrap();
    for (unit, most) in [("vswitchd.service", 16), ("vswitchd-broker@.service", 33)] {
        let copy = directory.path().join(unit.replace('@', ""));
        std::fs::copy(dist().join(unit), &copy).unwrap();
        let mut analyze = Command::new("systemd-analyze");
        analyze.args(["security", "--offline=true", &format!("--threshold={most}"), "--no-pager"]).arg(copy);
        let analyzed = analyze.output().unwrap();
        assert!(analyzed.status.success(), "{unit}: {}", String::from_utf8_lossy(&analyzed.stdout));
    }
}
