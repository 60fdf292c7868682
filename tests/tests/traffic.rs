//! Real network stacks through the switch: every kind of port to every other, offloads on and off.

use vswitch_tests::{Lab, Transfer, checksum_errors, iperf3, needs, ping, tcp, udp_is_well};

/// Less than any combination reaches on a slow machine, more than one that loses its super-frames or checksums gets: TCP then
/// lives on retransmitted timeouts.
const FLOWING: f64 = 50e6;

/// A port on `br0`, and the station behind it at 10.0.0.N and fd00::N.
struct Station {
    name: &'static str,
    kind: &'static str,
    number: u8,
    more: &'static str,
}

impl Station {
    const fn new(name: &'static str, kind: &'static str, number: u8) -> Self {
        Self { name, kind, number, more: "" }
    }

    fn address(&self) -> String {
        format!("10.0.0.{}", self.number)
    }

    fn toml(&self) -> String {
        let Self { name, kind, number, more } = self;
        let place = match *kind {
            "link" => format!("device = \"{name}\"\n"),
            _ => format!("netns = \"@{name}\"\naddresses = [\"10.0.0.{number}/24\", \"fd00::{number}/64\"]\n"),
        };
        format!("[[port]]\nname = \"{name}\"\nbridge = \"br0\"\nkind = \"{kind}\"\n{place}{more}")
    }

    /// A link is somebody's veth end; its station is on the other one.
    fn make_link(&self, lab: &Lab, mtu: u16) {
        let Self { name, number, .. } = self;
        lab.add_netns(name);
        lab.sh(&format!(
            "ip -n @host link add {name} mtu {mtu} type veth peer name eth0 mtu {mtu} netns @{name} && \
             ip -n @host link set {name} up && ip -n @{name} link set eth0 up && \
             ip -n @{name} addr add 10.0.0.{number}/24 dev eth0 && ip -n @{name} addr add fd00::{number}/64 dev eth0 nodad"
        ))
        .ok();
    }
}

fn lab(mtu: u16, stations: &[Station]) -> Lab {
    let mut lab = Lab::new();
    for station in stations.iter().filter(|station| station.kind == "link") {
        station.make_link(&lab, mtu);
    }
    let ports: String = stations.iter().map(Station::toml).collect();
    lab.write(&format!("[[bridge]]\nname = \"br0\"\nmtu = {mtu}\n{ports}"));
    lab.start();
    lab
}

/// What a station's own stack leaves to its device.
fn offloads(lab: &Lab, station: &Station, on: bool) {
    let word = if on { "on" } else { "off" };
    // Some devices have only some of them; what cannot be changed is no matter.
    lab.run_in(
        station.name,
        &format!("for what in tx rx tso gso gro tx-udp-segmentation; do ethtool -K eth0 $what {word}; done"),
    );
}

/// Bulk TCP from one to the other, with every packet whole at the receiver.
#[track_caller]
fn flows(lab: &Lab, from: &Station, to: &Station, what: &str) {
    let before = checksum_errors(lab, to.name) + checksum_errors(lab, from.name);
    let transfer = tcp(lab, from.name, to.name, &to.address(), "-n 64M");
    eprintln!("{what}: {} {} to {} {}: {:.0} Mbit/s", from.kind, from.name, to.kind, to.name, transfer.bits / 1e6);
    assert!(transfer.bits > FLOWING, "{what}: {} to {}: {transfer:?}", from.name, to.name);
    assert_eq!(checksum_errors(lab, to.name) + checksum_errors(lab, from.name), before, "{what}: {} to {}", from.name, to.name);
}

fn every_protocol_crosses(mtu: u16) {
    let (a, b) = (Station::new("a", "tap", 1), Station::new("b", "tap", 2));
    let stations = [a, b];
    let lab = lab(mtu, &stations);
    let [a, b] = &stations;
    assert!(ping(&lab, "a", "10.0.0.2") && ping(&lab, "b", "10.0.0.1"));
    lab.until("IPv6 addresses are no longer tentative", |lab| ping(lab, "a", "fd00::2"));
    let whole = mtu - 28;
    lab.run_in("a", &format!("ping -n -c 1 -W 2 -M do -s {whole} 10.0.0.2")).ok();
    let too_long = lab.run_in("a", &format!("ping -n -c 1 -W 1 -M do -s {} 10.0.0.2", whole + 1));
    assert_ne!(too_long.code, Some(0), "{too_long:?}");
    lab.run_in("a", "ping -n -c 1 -W 2 -s 20000 10.0.0.2").ok();
    lab.run_in("a", "ping -n -c 1 -W 2 -s 20000 fd00::2").ok();
    flows(&lab, a, b, "IPv4");
    flows(&lab, b, a, "IPv4");
    for (from, to, address) in [("a", "b", "fd00::2"), ("b", "a", "fd00::1")] {
        assert!(tcp(&lab, from, to, address, "-n 64M").bits > FLOWING, "{from} to {address}");
    }
    for (from, to, address) in [("a", "b", "10.0.0.2"), ("b", "a", "10.0.0.1"), ("a", "b", "fd00::2")] {
        udp_is_well(&lab, [from, to], address, "-n 8M -b 100M", |transfer| transfer.bits > 80e6 && transfer.lost < 0.05);
    }
    assert_eq!(checksum_errors(&lab, "a") + checksum_errors(&lab, "b"), 0);
}

#[test]
fn every_protocol_crosses_at_mtu_1500() {
    needs!("ping", "iperf3");
    every_protocol_crosses(1500);
}

#[test]
fn every_protocol_crosses_at_mtu_9000() {
    needs!("ping", "iperf3");
    every_protocol_crosses(9000);
}

#[test]
fn any_kind_sends_to_any_other_with_offloads_on_and_off() {
    needs!("ping", "iperf3", "ethtool");
    let stations = [
        Station::new("t1", "tap", 1),
        Station::new("t2", "tap", 2),
        Station::new("v1", "veth", 3),
        Station::new("v2", "veth", 4),
        Station::new("l1", "link", 5),
        Station::new("l2", "link", 6),
    ];
    let lab = lab(1500, &stations);
    let [t1, t2, v1, v2, l1, l2] = &stations;
    let pairs = [(t1, t2), (t1, v1), (t1, l1), (v1, l1), (v1, v2), (l1, l2)];
    for (here, there) in [(true, true), (true, false), (false, true), (false, false)] {
        for (one, other) in pairs {
            offloads(&lab, one, here);
            offloads(&lab, other, there);
            let what = format!("offloads {here} {there}");
            flows(&lab, one, other, &what);
            flows(&lab, other, one, &what);
        }
    }
}

#[test]
fn ports_without_offload_get_frames_as_on_a_wire() {
    needs!("ping", "iperf3", "ethtool");
    let wire = |name, kind, number| Station { more: "offload = false\n", ..Station::new(name, kind, number) };
    let stations = [Station::new("t1", "tap", 1), wire("t2", "tap", 2), wire("v1", "veth", 3), wire("l1", "link", 4)];
    let lab = lab(1500, &stations);
    let [tap, others @ ..] = &stations;
    for other in others {
        flows(&lab, tap, other, "offload = false");
        flows(&lab, other, tap, "offload = false");
    }
    flows(&lab, &stations[1], &stations[3], "offload = false on both");
    flows(&lab, &stations[3], &stations[1], "offload = false on both");
}

/// Sends `count` datagrams of `size` bytes by one `UDP_SEGMENT` send each, and prints how many arrived whole.
const UDP_SEGMENTS: &str = r#"
import socket, sys, struct
role, address, size, count = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
if role == "send":
    s.setsockopt(17, 103, size)  # SOL_UDP, UDP_SEGMENT
    data = b"".join(struct.pack(">I", n) * (size // 4) for n in range(count))
    s.sendto(data + b"end", (address, 7000))
else:
    s.bind((address, 7000)); s.settimeout(10)
    print("bound", flush=True)
    got = []
    while True:
        d = s.recv(65535)
        if d == b"end": break
        got.append(d)
    assert got == [struct.pack(">I", n) * (size // 4) for n in range(count)], got
    print(len(got))
"#;

#[test]
fn datagrams_sent_as_one_super_frame_arrive_one_by_one() {
    needs!("python3");
    let stations = [
        Station::new("t1", "tap", 1),
        Station::new("t2", "tap", 2),
        Station::new("v1", "veth", 3),
        Station::new("l1", "link", 4),
        Station { more: "offload = false\n", ..Station::new("t3", "tap", 5) },
    ];
    let lab = lab(1500, &stations);
    std::fs::write(lab.path("udp.py"), UDP_SEGMENTS).unwrap();
    let script = lab.path("udp.py").display().to_string();
    let [t1, others @ ..] = &stations;
    for (from, to) in others.iter().map(|other| (t1, other)).chain(others.iter().map(|other| (other, t1))) {
        let before = checksum_errors(&lab, to.name);
        let log = lab.path(&format!("{}-to-{}", from.name, to.name));
        let line = format!("python3 {script} receive {} 1000 40 > {} 2>&1", to.address(), log.display());
        let mut receiver = lab.command_in(to.name, &line).spawn().unwrap();
        let said = || std::fs::read_to_string(&log).unwrap_or_default();
        lab.until("the receiver is bound", |_| said().contains("bound"));
        assert!(ping(&lab, from.name, &to.address()));
        lab.run_in(from.name, &format!("python3 {script} send {} 1000 40", to.address())).ok();
        let what = format!("{} to {}", from.name, to.name);
        assert!(receiver.wait().unwrap().success(), "{what}: {}", said());
        assert_eq!(said().trim_end(), "bound\n40", "{what}");
        assert_eq!(checksum_errors(&lab, to.name), before, "{what}");
    }
}

#[test]
fn fragments_cross_every_kind_of_port() {
    needs!("ping", "iperf3");
    let stations = [Station::new("t1", "tap", 1), Station::new("v1", "veth", 2), Station::new("l1", "link", 3)];
    let lab = lab(1500, &stations);
    let [t1, v1, l1] = &stations;
    for (from, to) in [(t1, v1), (v1, t1), (t1, l1), (l1, t1)] {
        assert!(ping(&lab, from.name, &to.address()));
        let is_well = |transfer: &Transfer| transfer.bits > 40e6 && transfer.lost < 0.05;
        udp_is_well(&lab, [from.name, to.name], &to.address(), "-n 4M -b 50M -l 8000", is_well);
    }
}

/// Four streams are held to a rate by whichever end of the way: they get it, hardly lose anything, and a ping beside them is not kept waiting.
#[test]
fn a_rate_delays_what_is_too_much_and_a_ping_beside_it_hardly() {
    needs!("ping", "iperf3");
    for (from, to) in [("tap", "veth"), ("veth", "tap")] {
        for (key, at) in [("send-rate", 0), ("receive-rate", 1)] {
            let mut stations = [Station::new("a", from, 1), Station::new("b", to, 2)];
            let more = format!("{key} = \"20mbit\"\n");
            stations[at].more = more.leak();
            let lab = lab(1500, &stations);
            assert!(ping(&lab, "a", "10.0.0.2"));
            // A loaded machine may be late once or twice.
            let mut tries = Vec::new();
            let is_well = |(rate, wait, lost): &(f64, f64, u64)| (17e6..21e6).contains(rate) && *wait < 10.0 && *lost < 1000;
            while !tries.last().is_some_and(is_well) {
                assert!(tries.len() < 3, "{key}, {from} to {to}: {tries:?}");
                tries.push(beside_streams(&lab));
            }
            let way = if at == 0 { "in" } else { "out" };
            let stats = lab.json(&format!("stats {}", ["a", "b"][at]));
            assert!(
                stats[0]["counters"][format!("rate_{way}_delayed")].as_u64().is_some_and(|delayed| delayed > 1000),
                "{stats}"
            );
        }
    }
}

/// What four streams from a to b come to in bits a second, the round trip in milliseconds that one of ten pings beside them exceeds, and how
/// many segments were sent again.
fn beside_streams(lab: &Lab) -> (f64, f64, u64) {
    std::thread::scope(|scope| {
        let streams = scope.spawn(|| iperf3((lab, "a"), (lab, "b"), "10.0.0.2", "-P 4 -t 3"));
        let pings = lab.run_in("a", "sleep 1; ping -n -i 0.02 -c 80 10.0.0.2").stdout;
        let times = pings.lines().filter_map(|line| line.split("time=").nth(1)?.split(' ').next()?.parse::<f64>().ok());
        let mut times: Vec<f64> = times.collect();
        times.sort_by(f64::total_cmp);
        let report = streams.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let end = &report["end"];
        let rate = end["sum_received"]["bits_per_second"].as_f64().unwrap_or_default();
        let sent_again = end["sum_sent"]["retransmits"].as_u64().unwrap_or(u64::MAX);
        // A ping that was lost waited for ever.
        (rate, times.get(72).copied().unwrap_or(f64::MAX), sent_again)
    })
}
