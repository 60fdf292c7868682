//! Rings of three switches, joined by veth pairs: ours alone, with a bridge of the kernel's, with an Open vSwitch. Numbered broadcasts tell
//! whether a frame comes twice, and how long a ring is open when a link goes down.
#![allow(clippy::unwrap_used, clippy::panic, reason = "what fails here fails its test")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use vswitch_tests::{BROADCAST, Lab, Wire, frame, mac, mark, needs};

/// Of numbered frames.
const NUMBERED: [u8; 2] = [0x88, 0xb6];
/// Between two of them.
const PACE: Duration = Duration::from_millis(2);

/// Each has a namespace, in which `r` leads to the next, `l` to the one before, and a station.
struct Ring {
    labs: Vec<Lab>,
    wires: Vec<Wire>,
}

/// What a switch is.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Ours,
    Linux,
    OpenVswitch,
}

impl Ring {
    /// A ring of these, of which the first is the root.
    fn new(kinds: [Kind; 3]) -> Self {
        let mut labs: Vec<Lab> = kinds.iter().map(|_| Lab::new()).collect();
        for (number, lab) in labs.iter().enumerate() {
            lab.run_in("host", "echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6").ok();
            let next = labs[(number + 1) % 3].named("@host");
            lab.sh(&format!("ip -n @host link add r type veth peer name l netns {next} && ip -n @host link set dev r up")).ok();
            lab.sh(&format!("ip -n {next} link set dev l up")).ok();
            lab.add_netns("a");
            lab.run_in("a", "echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6").ok();
        }
        for ((number, lab), kind) in (1..).zip(&mut labs).zip(kinds) {
            start(lab, kind, 4096 * number);
        }
        let wires = labs.iter().map(|lab| Wire::open(lab, "a")).collect();
        Self { labs, wires }
    }

    /// Waits until each station hears every other.
    fn settle(&self) {
        for (number, from) in self.wires.iter().enumerate() {
            for to in self.wires.iter().filter(|to| !std::ptr::eq(*to, from)) {
                let name = format!("from {number} at {:?} ", Instant::now());
                let begun = Instant::now();
                let over = Arc::new(AtomicBool::new(false));
                std::thread::scope(|scope| {
                    let done = Arc::clone(&over);
                    scope.spawn(move || {
                        while !done.load(Ordering::Relaxed) {
                            from.try_send(&mark(mac(900 + u16::try_from(number).unwrap()), &name));
                            std::thread::sleep(Duration::from_millis(20));
                        }
                    });
                    to.heard_until(|frame| {
                        begun.elapsed() > Duration::from_secs(18)
                            || frame.windows(6).any(|part| part == format!("from {number}").as_bytes())
                    });
                    over.store(true, Ordering::Relaxed);
                });
            }
        }
    }

    /// Sends numbered broadcasts from one station for so long, in the middle of which something happens; for each that listens, the longest
    /// time in which none arrived. No frame may arrive twice.
    fn watch(&self, (from, to): (usize, &[usize]), time: Duration, during: impl FnOnce(&Self)) -> Vec<Duration> {
        let (begun, mut during, mut sent) = (Instant::now(), Some(during), 0_u32);
        let source = mac(900 + u16::try_from(from).unwrap());
        while begun.elapsed() < time {
            if begun.elapsed() > time / 4
                && let Some(during) = during.take()
            {
                during(self);
            }
            self.wires[from].try_send(&frame(BROADCAST, source, &NUMBERED, &sent.to_be_bytes()));
            sent += 1;
            std::thread::sleep(PACE);
        }
        self.wires[from].send(&mark(source, "over"));
        let pace = begun.elapsed() / sent.max(1);
        to.iter().map(|number| pace * longest_gap(&self.wires[*number].heard_before("over"), sent, *number)).collect()
    }

    fn tree(&self, switch: usize) -> serde_json::Value {
        self.labs[switch].json("stp br0")[0].clone()
    }
}

/// Of frames numbered from 0 to `sent`, the most in a row that did not arrive.
fn longest_gap(heard: &[Vec<u8>], sent: u32, station: usize) -> u32 {
    let numbers = heard.iter().filter(|frame| frame[12..14] == NUMBERED);
    let numbers: Vec<u32> = numbers.map(|frame| u32::from_be_bytes(*frame[14..].first_chunk().unwrap())).collect();
    assert!(numbers.is_sorted_by(|one, next| one < next), "a frame came twice, or late, at station {station}");
    let ends = [0].into_iter().chain(numbers.iter().map(|number| number + 1)).zip(numbers.iter().copied().chain([sent]));
    ends.map(|(after, next)| next - after).max().unwrap()
}

fn start(lab: &mut Lab, kind: Kind, priority: u32) {
    if kind == Kind::Ours {
        let port =
            |name: &str| format!("[[port]]\nname = \"{name}\"\nbridge = \"br0\"\nkind = \"link\"\ndevice = \"{name}\"\n");
        let station = "[[port]]\nname = \"a\"\nbridge = \"br0\"\nnetns = \"@a\"\nstp-edge = true\n";
        let bridge = format!("[[bridge]]\nname = \"br0\"\nstp = \"rstp\"\nstp-priority = {priority}\n");
        lab.write(&format!("{bridge}{}{}{station}", port("l"), port("r")));
        return lab.start();
    }
    lab.sh(
        "ip -n @host link add lan type veth peer name eth0 netns @a && ip -n @host link set dev lan up && ip -n @a link set eth0 up",
    )
    .ok();
    match kind {
        Kind::Linux => {
            let settings =
                format!("stp_state 1 priority {priority} forward_delay 200 hello_time 100 max_age 600 mcast_snooping 0");
            lab.sh(&format!("ip -n @host link add br0 type bridge {settings}; ip -n @host link set br0 up")).ok();
            lab.sh("for port in l r lan; do ip -n @host link set dev $port master br0; done").ok();
        }
        _ => start_open_vswitch(lab, priority),
    }
}

/// One that runs in user space, in a directory of its own.
fn start_open_vswitch(lab: &mut Lab, priority: u32) {
    let home = lab.path("").display().to_string();
    let run = format!("env OVS_RUNDIR={home} OVS_LOGDIR={home} OVS_DBDIR={home}");
    lab.sh(&format!("ovsdb-tool create {home}/conf.db /usr/share/openvswitch/vswitch.ovsschema")).ok();
    lab.spawn_in("host", &format!("{run} ovsdb-server {home}/conf.db --remote=punix:{home}/db.sock --unixctl={home}/db.ctl"));
    lab.until("ovsdb-server listens", |lab| lab.path("db.sock").exists());
    lab.run_in("host", &format!("{run} ovs-vsctl --no-wait --db=unix:{home}/db.sock init")).ok();
    let options = format!("--pidfile={home}/ovs.pid --unixctl={home}/ovs.ctl --disable-system");
    lab.spawn_in("host", &format!("{run} ovs-vswitchd unix:{home}/db.sock {options}"));
    lab.until("ovs-vswitchd listens", |lab| lab.path("ovs.ctl").exists());
    let bridge = format!("set bridge br0 datapath_type=netdev rstp_enable=true other_config:rstp-priority={priority}");
    let words = format!(
        "--timeout=50 --db=unix:{home}/db.sock add-br br0 -- {bridge} -- add-port br0 l -- add-port br0 r -- add-port br0 lan"
    );
    lab.run_in("host", &format!("{run} ovs-vsctl {words}")).ok();
}

#[test]
fn a_ring_of_ours_heals_within_a_second_and_survives_its_root() {
    needs!();
    let mut ring = Ring::new([Kind::Ours; 3]);
    ring.settle();
    let blocked = ring.tree(2)["ports"].as_array().unwrap().iter().filter(|port| port["state"] == "discarding").count();
    assert_eq!((blocked, &ring.tree(2)["root_port"]), (1, &"r".into()), "{}", ring.tree(2));
    assert!(ring.labs[2].ctl("list-ports").ok().contains("up, discarding"));
    let refused = ring.labs[2].ctl("trace --port l arp who-has 10.0.0.1 tell 10.0.0.2 from 02:54:00:00:00:09").ok();
    assert!(refused.contains("stp-discarding") && refused.contains("vsctl stp br0"), "{refused}");
    let gaps = ring
        .watch((0, &[1, 2]), Duration::from_secs(2), |ring| drop(ring.labs[0].run_in("host", "ip link set dev r down").ok()));
    assert!(gaps.iter().all(|gap| *gap < Duration::from_secs(1)), "{gaps:?}");
    let back = ring.watch((1, &[0, 2]), Duration::from_millis(1500), |ring| {
        drop(ring.labs[0].run_in("host", "ip link set dev r up").ok())
    });
    assert!(back.iter().all(|gap| *gap < Duration::from_secs(1)), "{back:?}");
    // Its neighbours see their links go on, and hear of it again before they miss it. Between them the ring leads through it.
    ring.labs[0].kill();
    ring.labs[0].start();
    ring.watch((1, &[2]), Duration::from_millis(1500), |_| ());
    ring.settle();
    let events = ring.labs[2].ctl("events --kind stp").ok();
    assert!(events.contains("the spanning tree blocks it") && events.contains("it forwards now"), "{events}");
}

#[test]
fn a_ring_with_an_open_vswitch_heals_within_a_second() {
    needs!("ovs-vswitchd", "ovsdb-server", "ovs-vsctl", "ovsdb-tool");
    let ring = Ring::new([Kind::Ours, Kind::OpenVswitch, Kind::Ours]);
    ring.settle();
    let ports = ring.tree(0)["ports"].clone();
    assert!(ports.as_array().unwrap().iter().any(|port| port["port"] == "r" && port["peer"] == "rstp"), "{ports}");
    let gaps = ring
        .watch((0, &[1, 2]), Duration::from_secs(2), |ring| drop(ring.labs[0].run_in("host", "ip link set dev l down").ok()));
    assert!(gaps.iter().all(|gap| *gap < Duration::from_secs(1)), "{gaps:?}");
}

#[test]
fn a_bridge_where_a_station_should_be_takes_its_port_down_until_it_is_set_up() {
    let lab = Lab::with(
        "[[bridge]]\nname = \"br0\"\nstp = \"rstp\"\n\
         [[port]]\nname = \"a\"\nbridge = \"br0\"\nnetns = \"@a\"\nstp-edge = true\nbpdu-guard = true\n\
         [[port]]\nname = \"b\"\nbridge = \"br0\"\nnetns = \"@b\"\nstp-edge = true\n",
    );
    let states = || {
        let ports = lab.json("list-ports");
        ["a", "b"].map(|name| {
            let port = ports.as_array().unwrap().iter().find(|port| port["name"] == name).unwrap();
            port["state"].as_str().unwrap().to_owned()
        })
    };
    assert_eq!(states(), ["up", "up"]);
    // A topology change notification of 1998, in 802.3 with LLC (802.1D-2004, 9.3.2).
    let bpdu = [&[1, 0x80, 0xc2, 0, 0, 0, 2, 0, 0, 0, 0, 9, 0, 7, 0x42, 0x42, 3, 0, 0, 0, 0x80][..], &[0; 39]].concat();
    let wires = ["a", "b"].map(|name| Wire::open(&lab, name));
    wires.iter().for_each(|wire| wire.send(&bpdu));
    let deadline = Instant::now() + Duration::from_secs(5);
    while states()[0] == "up" && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(states(), ["a BPDU came in, and bpdu-guard is set: vsctl set-port a --up", "up"]);
    let has_carrier = |name| !lab.run_in(name, "ip link show dev eth0").ok().contains("NO-CARRIER");
    assert_eq!(["a", "b"].map(has_carrier), [false, true]);
    let events = lab.ctl("events").ok();
    assert!(events.contains("it is down: a BPDU came in, and bpdu-guard is set, so a bridge is there"), "{events}");
    // Another change leaves it down.
    lab.ctl("set-port a --broadcast-limit 100").ok();
    assert!(!has_carrier("a"));
    lab.ctl("set-port a --up").ok();
    assert_eq!((states()[0].as_str(), has_carrier("a")), ("up", true));
    let shown = lab.ctl("show").ok();
    assert!(shown.contains("bpdu-guard"), "{shown}");
}

#[test]
fn a_ring_with_a_bridge_of_the_kernels_has_one_way() {
    needs!();
    let ring = Ring::new([Kind::Linux, Kind::Ours, Kind::Ours]);
    ring.settle();
    let gaps = ring.watch((1, &[0, 2]), Duration::from_millis(500), |_| ());
    assert!(gaps.iter().all(|gap| *gap < Duration::from_millis(200)), "{gaps:?}");
    let peer = |switch: usize, port: &str| {
        let tree = ring.tree(switch);
        let row = tree["ports"].as_array().unwrap().iter().find(|row| row["port"] == port).unwrap().clone();
        (row["peer"].clone(), row["role"].clone())
    };
    assert_eq!(peer(1, "l"), ("stp".into(), "root".into()));
    assert_eq!(peer(2, "r"), ("stp".into(), "root".into()));
    assert_eq!(peer(2, "l"), ("rstp".into(), "alternate".into()));
}
