//! An upgrade in place: another vswitchd takes over while everything runs, and nobody notices; or it cannot, and nobody notices that either.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use vswitch_tests::{EVERY_WAY, Lab, Traffic, every_way, needs, ping, program};

#[test]
fn a_vswitchd_takes_over_under_traffic_by_every_kind_of_way() {
    needs!("iperf3", "ping");
    let mut lab = every_way(EVERY_WAY);
    assert!(ping(&lab, "a", "10.0.0.9") && ping(&lab, "a", "10.0.0.4") && ping(&lab, "a", "192.0.2.1"));
    // More of them, by hand: VSWITCH_TAKEOVERS=100, and the load with which they are to be had: VSWITCH_RATE="-b 0".
    let number = |name: &str| std::env::var(name).ok();
    let count: u32 = number("VSWITCH_TAKEOVERS").map_or(5, |count| count.parse().unwrap());
    let traffic = Traffic::begin(&mut lab, 10 + count, number("VSWITCH_RATE").as_deref().unwrap_or("-b 20M"));
    let devices =
        |lab: &Lab| lab.run_in("a", "ip -o link show eth0; ip -o addr show eth0; ip route").ok().replace("tentative ", "");
    let before = devices(&lab);
    for _ in 0..count {
        let pid = lab.pid();
        lab.take_over().ended();
        assert_ne!(lab.pid(), pid);
        std::thread::sleep(Duration::from_millis(500));
    }
    assert_eq!(devices(&lab), before, "nothing about the device has changed");
    let pings = traffic.end();
    println!("{pings:#?}");
    assert!(pings.iter().all(|pings| pings.missed == 0), "{pings:#?}");
    assert!(lab.stop().success());
}

/// A bridge whose way out is the host's own sockets.
const HOST: &str = r#"
[[bridge]]
name = "br0"
addresses = ["10.0.0.254/24"]
uplink = "out"
[[uplink]]
name = "out"
kind = "host"
[[forward]]
uplink = "out"
protocol = "tcp"
port = 5202
to = "10.0.0.2:5201"
[[port]]
name = "a"
bridge = "br0"
netns = "@a"
addresses = ["10.0.0.1/24"]
[[port]]
name = "b"
bridge = "br0"
netns = "@b"
addresses = ["10.0.0.2/24"]
"#;

#[test]
fn connections_by_the_hosts_sockets_are_seen_through_by_the_one_that_began_them() {
    needs!("iperf3", "ping", "curl", "nc");
    let mut lab = Lab::new();
    lab.add_netns("world");
    lab.run_in(
        "host",
        "ip link add wan type veth peer name wan netns @world && ip link set wan up && ip addr add 192.0.2.10/24 dev wan",
    )
    .ok();
    lab.run_in("world", "ip link set wan up && ip addr add 192.0.2.1/24 dev wan").ok();
    lab.write(HOST);
    lab.start();
    for (netns, port) in [("world", 5210), ("world", 5211), ("b", 5201)] {
        lab.spawn_in(netns, &format!("iperf3 -s -p {port}"));
    }
    lab.until("they listen", |lab| {
        let count = |netns, port| lab.run_in(netns, &format!("ss -Hltn sport = :{port}")).ok().len();
        count("world", 5210) > 0 && count("world", 5211) > 0 && count("b", 5201) > 0
    });
    let begin = |lab: &Lab, netns: &str, to: &str| {
        let log = lab.path(&to.replace(' ', "-")).display().to_string();
        let line = format!("iperf3 -c {to} -b 30M -t 8 > {log} 2>&1");
        (lab.command_in(netns, &line).spawn().unwrap(), log)
    };
    let mut connections = vec![begin(&lab, "a", "192.0.2.1 -p 5210"), begin(&lab, "world", "192.0.2.10 -p 5202")];
    let established = |lab: &Lab| {
        let rows = lab.json("sessions");
        rows.as_array().unwrap().iter().filter(|row| row["protocol"] == "tcp" && row["state"] == "established").count()
    };
    lab.until("both have begun", |lab| established(lab) == 4);
    let mut first = lab.take_over();
    let handed = lab.json("sessions");
    assert!(handed.as_array().unwrap().iter().all(|row| row["state"] == "handed-over"), "{handed}");
    // What begins now is the successor's, and is handed over in its turn.
    connections.push(begin(&lab, "a", "192.0.2.1 -p 5211"));
    lab.until("the third has begun", |lab| established(lab) == 2);
    let mut second = lab.take_over();
    assert!(first.runs() && second.runs());
    // What carries frames between them has no right.
    let rights = lab.sh(&format!(
        "grep -lx relay /proc/{}/task/*/comm | sed 's/comm$/status/' | xargs grep -hE 'CapEff|Seccomp:'",
        first.pid()
    ));
    assert_eq!(rights.ok().split_whitespace().collect::<Vec<_>>(), ["CapEff:", "0000000000000000", "Seccomp:", "2"]);
    for (mut child, log) in connections {
        assert!(child.wait().unwrap().success(), "{}", std::fs::read_to_string(&log).unwrap());
    }
    first.ended();
    second.ended();
    // The published port and the way out are the third one's now.
    let (mut again, log) = begin(&lab, "world", "192.0.2.10 -p 5202");
    assert!(again.wait().unwrap().success(), "{}", std::fs::read_to_string(&log).unwrap());
    lab.until("nothing is left of the others", |lab| {
        lab.json("sessions").as_array().unwrap().iter().all(|row| row["state"] != "handed-over")
    });
    assert!(lab.stop().success());
}

/// Asks for everything as a vswitchd does, and then does what its argument says.
const IMPOSTOR: &str = r#"
import array, json, os, socket, struct, sys, time
way, place, state = sys.argv[1:]
door = socket.socket(socket.AF_UNIX)
door.connect(place)
def say(message):
    text = json.dumps(message).encode()
    door.sendall(struct.pack("<I", len(text)) + text)
if way == "garbage":
    door.sendall(b"\xff" * 64)
elif way == "silence":
    pass
else:
    say({"ask": {"format": 99 if way == "format" else 1, "workers": 1, "state_dir": state}})
header = b""
while len(header) < 4:
    part = door.recv(4 - len(header))
    if not part:
        sys.exit("nothing")
    header += part
text = b""
while len(text) < struct.unpack("<I", header)[0]:
    text += door.recv(struct.unpack("<I", header)[0] - len(text))
answer = json.loads(text)
print(json.dumps(answer)[:2000], flush=True)
held = []
if "offer" in answer:
    while len(held) < len(answer["offer"]):
        _, ancillary, _, _ = door.recvmsg(1, socket.CMSG_SPACE(64 * 4))
        for _, _, data in ancillary:
            held += array.array("i", data)
if way == "late":
    say("ready")
    header = door.recv(4, socket.MSG_WAITALL)
    print("go", flush=True)
if way in ("die", "late"):
    os.kill(os.getpid(), 9)
if way == "fail":
    say({"failed": "it rains"})
if way == "wrong":
    say({"offer": []})
time.sleep(2)
"#;

#[test]
fn whoever_cannot_take_over_changes_nothing() {
    needs!("ping", "python3");
    let mut lab = every_way(EVERY_WAY);
    assert!(ping(&lab, "a", "10.0.0.9") && ping(&lab, "a", "192.0.2.1"));
    let log = lab.path("ping").display().to_string();
    let mut pings = lab.command_in("a", &format!("ping -i 0.01 -w 20 10.0.0.4 > {log} 2>&1")).spawn().unwrap();
    let (pid, before) = (lab.pid(), lab.json("show"));
    // One that another cannot be: with an error in its file, with other workers, with another directory, with a device that is not there.
    let told = |lab: &Lab, file: &str, part: &str| {
        lab.write(file);
        let said = lab.start_refused(&["--takeover"]);
        assert!(said.code == Some(1) && said.stderr.contains(part), "{said:?}");
        lab.write(EVERY_WAY);
    };
    told(&lab, &EVERY_WAY.replace("veth", "vath"), "vath");
    let absent = "[[port]]\nname = \"e\"\nbridge = \"br0\"\nkind = \"link\"\ndevice = \"e0\"\n";
    told(&lab, &format!("{EVERY_WAY}{absent}"), "e0");
    // Nor does what its file has no longer go before it has taken over.
    let (first, rest) = EVERY_WAY.split_once("[[port]]\nname = \"c\"").unwrap();
    let (_, others) = rest.split_once("[[port]]").unwrap();
    told(&lab, &format!("{first}[[port]]{others}{absent}"), "e0");
    assert!(ping(&lab, "a", "10.0.0.3"));
    let head = |workers: u32, state: &str| {
        let directory = lab.path("").display().to_string();
        format!(
            "[switch]\ncontrol = \"{directory}/control.sock\"\nstate-dir = \"{directory}/{state}\"\nworkers = {workers}\n{EVERY_WAY}"
        )
    };
    told(&lab, &head(2, "state"), "`workers` would be 2 instead of 1, which takes a restart");
    told(&lab, &head(1, "other"), "`state-dir` would be");
    std::fs::write(lab.path("impostor.py"), IMPOSTOR).unwrap();
    let place = lab.path("control.sock.takeover").display().to_string();
    let impostor = |lab: &Lab, way: &str| {
        let line = format!("python3 {} {way} {place} {}", lab.path("impostor.py").display(), lab.path("state").display());
        lab.sh(&line)
    };
    assert!(impostor(&lab, "format").stdout.contains("they speak format 99 and 1: restart instead"));
    assert!(impostor(&lab, "garbage").stdout.contains("what it asks cannot be read"));
    for (way, why) in [
        ("silence", ""),
        ("die", "it ended without a word"),
        ("late", "it ended without a word"),
        ("fail", "it rains"),
        ("wrong", "it said something else"),
    ] {
        let said = impostor(&lab, way).stdout;
        assert_eq!(said.contains("queue"), way != "silence", "{way}: {said}");
        lab.until("it goes on", |lab| way == "silence" || lab.log().contains(&format!("this one goes on: {why}")));
        assert!(ping(&lab, "a", "10.0.0.2") && ping(&lab, "a", "10.0.0.3") && ping(&lab, "a", "192.0.2.1"), "{way}");
    }
    assert_eq!(lab.pid(), pid);
    let facts = |show: &serde_json::Value| show["bridges"].clone();
    assert_eq!(facts(&lab.json("show")).as_array().map(Vec::len), facts(&before).as_array().map(Vec::len));
    // After all that it can be taken over from.
    lab.take_over().ended();
    assert!(ping(&lab, "a", "10.0.0.9") && ping(&lab, "c", "10.0.0.2"));
    lab.ctl("add-port br0 later --netns @later --address 10.0.0.7/24").ok();
    assert!(ping(&lab, "a", "10.0.0.7"));
    pings.wait().unwrap();
    let said = std::fs::read_to_string(&log).unwrap();
    assert!(said.contains(" 0% packet loss"), "{said}");
    // Without a vswitchd there is nothing to take over.
    assert!(lab.stop().success());
    assert!(lab.start_refused(&["--takeover"]).stderr.contains("no vswitchd hears at"));
    assert!(!lab.path("control.sock").exists() && !lab.path("control.sock.takeover").exists());
}

#[test]
fn vsctl_upgrade_starts_the_successor_and_says_how_it_went() {
    needs!("ping", "setpriv");
    let mut lab = every_way(EVERY_WAY);
    let told = |lab: &Lab, program: &str, part: &str| {
        let said = lab.ctl(&format!("upgrade {program}")).refused();
        assert!(said.contains(part), "{said}");
    };
    told(&lab, "/no/such/program", "cannot be started: No such file or directory");
    told(&lab, "/bin/true", "/bin/true is not started: it is no vswitchd");
    // What a vswitchd could be that is none.
    let script = |lab: &Lab, name: &str, lines: &str| {
        let text = format!("#!/bin/sh\n# A userspace virtual switch for containers, namespaces and VMs\n{lines}\n");
        std::fs::write(lab.path(name), text).unwrap();
        lab.sh(&format!("chmod +x {}", lab.path(name).display())).ok();
    };
    script(&lab, "false", "exit 1");
    let other = lab.path("false").display().to_string();
    told(&lab, &other, &format!("{other} does not take"));
    script(&lab, "mute", "exec sleep 1000");
    told(&lab, &lab.path("mute").display().to_string(), "does not say within 5 seconds");
    lab.write(&EVERY_WAY.replace("veth", "vath"));
    let vswitchd = program("vswitchd").display().to_string();
    told(&lab, &vswitchd, "vath");
    lab.write(&format!("{EVERY_WAY}[[port]]\nname = \"e\"\nbridge = \"br0\"\nkind = \"link\"\ndevice = \"e0\"\n"));
    for _ in 0..2 {
        told(&lab, &vswitchd, "this one goes on: port \"e\": there is no interface \"e0\"");
    }
    let broker = lab.broker();
    let left = std::fs::read_to_string(format!("/proc/{broker}/task/{broker}/children")).unwrap();
    assert_eq!(left, "", "nobody has asked how they ended");
    lab.write(EVERY_WAY);
    // One that leaves what it said to others, who go on.
    script(&lab, "lasting", "echo no >&2\nsleep 30 &\nexit 1");
    told(&lab, &lab.path("lasting").display().to_string(), "no");
    // One that takes any file, and then ends.
    script(&lab, "brief", "exit 0");
    told(&lab, &lab.path("brief").display().to_string(), "has ended (exit status: 0) and taken over nothing");
    let kept = lab.path("state/vswitchd").display().to_string();
    std::fs::copy(program("vswitchd"), &kept).unwrap();
    told(&lab, &kept, "is not started, for this vswitchd itself may have written it");
    // The group of the control socket may change the network, but not run programs as root.
    let socket = lab.path("control.sock").display().to_string();
    lab.sh(&format!("chmod 666 {socket} && chmod 755 {}", lab.path("").display())).ok();
    let other = lab.sh(&format!(
        "setpriv --reuid=65534 --regid=65534 --clear-groups {} --control {socket} upgrade {vswitchd}",
        program("vsctl").display()
    ));
    assert!(other.stderr.contains("only") || other.code == Some(126), "{other:?}");
    assert!(ping(&lab, "a", "10.0.0.9"));
    let (old, outcome) = (lab.pid(), lab.ctl(&format!("upgrade {vswitchd}")));
    let said = outcome.stderr.clone();
    outcome.ok();
    let new = said.split("process ").nth(1).and_then(|rest| rest.split(' ').next());
    let new: u32 = new.and_then(|word| word.parse().ok()).unwrap_or_else(|| panic!("{said}"));
    assert!(said.contains(&format!("process {new} has taken over from process {old}")), "{said}");
    assert!(lab.ended().success());
    assert!(ping(&lab, "a", "10.0.0.9") && ping(&lab, "c", "10.0.0.2"));
    // It is nobody's child here.
    lab.ctl("shutdown").ok();
    // Nobody may have asked how it ended yet.
    lab.until("it has ended", |_| {
        std::fs::read_to_string(format!("/proc/{new}/stat")).map_or(true, |stat| stat.contains(") Z"))
    });
}

#[test]
fn the_service_manager_hears_who_goes_on() {
    needs!();
    let mut lab = Lab::new();
    lab.write("[[bridge]]\nname = \"br0\"\n");
    let place = lab.path("notify");
    let manager = UnixDatagram::bind(&place).unwrap();
    manager.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let hear = |part: &str| {
        let mut bytes = [0; 1000];
        loop {
            let length = manager.recv(&mut bytes).unwrap_or_else(|error| panic!("{part} is not said: {error}"));
            let said = String::from_utf8_lossy(&bytes[..length]).into_owned();
            if said.contains(part) {
                return said;
            }
        }
    };
    let (vswitchd, file) = (program("vswitchd").display().to_string(), lab.file().display().to_string());
    let told = format!("NOTIFY_SOCKET={} WATCHDOG_USEC=1000000", place.display());
    let old = lab.spawn_in("host", &format!("env {told} {vswitchd} --config {file}"));
    hear("READY=1");
    hear("WATCHDOG=1");
    lab.ctl(&format!("upgrade {vswitchd}")).ok();
    let new: u32 = hear("MAINPID=").trim().trim_start_matches("MAINPID=").parse().unwrap();
    assert_ne!(new, old);
    lab.until("the old one has ended", |_| {
        std::fs::read_to_string(format!("/proc/{old}/stat")).map_or(true, |stat| stat.contains(") Z"))
    });
    // What it said last may wait here.
    (0..8).for_each(|_| drop(hear("WATCHDOG=1")));
    lab.ctl("shutdown").ok();
}
