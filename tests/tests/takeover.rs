//! An upgrade in place: another vswitchd takes over while everything runs, and nobody notices; or it cannot, and nobody notices that either.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::Child;

use vswitch_tests::{Lab, needs, ping};

/// Every kind of port, uplink and tunnel: `a` and `b` are TAPs, `c` is a veth pair, `d` a link; `wan` leads to the world, where a kernel's VXLAN has
/// 10.0.0.9.
const FILE: &str = r#"
[[bridge]]
name = "br0"
addresses = ["10.0.0.254/24"]
uplink = "wan"
[[uplink]]
name = "wan"
kind = "link"
device = "wan"
address = "192.0.2.10/24"
[[forward]]
uplink = "wan"
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
[[port]]
name = "c"
bridge = "br0"
kind = "veth"
netns = "@c"
addresses = ["10.0.0.3/24"]
[[port]]
name = "d"
bridge = "br0"
kind = "link"
device = "d0"
[[vxlan]]
name = "vx0"
bridge = "br0"
vni = 7
local = "198.51.100.1"
peers = ["198.51.100.2"]
"#;

/// The lab, and the world around it.
fn lab(file: &str) -> Lab {
    let mut lab = Lab::new();
    lab.add_netns("world");
    lab.add_netns("d");
    lab.run_in("host", "ip link add wan type veth peer name wan netns @world && ip link set wan up").ok();
    lab.run_in("world", "ip link set wan up && ip addr add 192.0.2.1/24 dev wan && ip addr add 198.51.100.2/32 dev lo").ok();
    lab.run_in("host", "ip addr add 198.51.100.1/32 dev lo && ip addr add 192.0.2.20/24 dev wan && ip route add 198.51.100.2 via 192.0.2.1 src 198.51.100.1").ok();
    lab.run_in("world", "ip route add 198.51.100.1 via 192.0.2.20 src 198.51.100.2").ok();
    lab.run_in("world", "ip link add vx0 type vxlan id 7 local 198.51.100.2 remote 198.51.100.1 dstport 4789 && ip link set vx0 up && ip addr add 10.0.0.9/24 dev vx0").ok();
    lab.run_in("host", "ip link add d0 type veth peer name eth0 netns @d && ip link set d0 up").ok();
    lab.run_in("d", "ip link set eth0 up && ip addr add 10.0.0.4/24 dev eth0").ok();
    lab.write(file);
    lab.start();
    lab
}

/// Connections that go on for so many seconds, by every kind of way: the stations' to `b`, out to the world, in by the published port.
fn connect(lab: &mut Lab, seconds: u32, rate: &str) -> Vec<(String, Child)> {
    let ways =
        [("a", "10.0.0.2"), ("c", "10.0.0.2"), ("d", "10.0.0.2"), ("world", "10.0.0.2"), ("a", "192.0.2.1"), ("c", "10.0.0.9")];
    for port in 5210..5210 + ways.len() {
        for netns in ["b", "world"] {
            lab.spawn_in(netns, &format!("iperf3 -s -p {port}"));
        }
    }
    lab.spawn_in("b", "iperf3 -s");
    lab.until("they listen", |lab| {
        ["b", "world"].iter().all(|netns| {
            lab.run_in(netns, "ss -Hltn | grep -c ':52'").stdout.trim().parse::<usize>().is_ok_and(|count| count >= ways.len())
        })
    });
    let mut all = Vec::new();
    for (number, (from, to)) in ways.into_iter().enumerate() {
        let log = lab.path(&format!("way-{number}")).display().to_string();
        let line = format!("iperf3 -c {to} -p {} {rate} -t {seconds} > {log} 2>&1", 5210 + number);
        all.push((log, lab.command_in(from, &line).spawn().unwrap()));
    }
    let log = lab.path("published").display().to_string();
    let line = format!("iperf3 -c 192.0.2.10 -p 5202 {rate} -t {seconds} > {log} 2>&1");
    all.push((log, lab.command_in("world", &line).spawn().unwrap()));
    lab.until("traffic flows", |lab| lab.json("stats b")[0]["tx_frames"].as_u64().unwrap() > 1000);
    all
}

#[test]
fn a_vswitchd_takes_over_under_traffic_by_every_kind_of_way() {
    needs!("iperf3", "ping");
    let mut lab = lab(FILE);
    assert!(ping(&lab, "a", "10.0.0.9") && ping(&lab, "a", "10.0.0.4") && ping(&lab, "a", "192.0.2.1"));
    let connections = connect(&mut lab, 15, "-b 20M");
    let pings: Vec<(String, Child)> = ["10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.9", "192.0.2.1"]
        .into_iter()
        .map(|to| {
            let log = lab.path(&format!("ping-{to}")).display().to_string();
            (log.clone(), lab.command_in("a", &format!("ping -i 0.01 -w 12 {to} > {log} 2>&1")).spawn().unwrap())
        })
        .collect();
    let devices = |lab: &Lab| lab.run_in("a", "ip -o link show eth0; ip -o addr show eth0; ip route; ip neigh").ok();
    let before = devices(&lab);
    for _ in 0..5 {
        let pid = lab.pid();
        lab.take_over();
        assert_ne!(lab.pid(), pid);
    }
    let strip = |text: String| text.replace("STALE", "").replace("REACHABLE", "").replace("DELAY", "");
    assert_eq!(strip(devices(&lab)), strip(before), "the carrier was there all the time");
    for (log, mut child) in pings {
        child.wait().unwrap();
        let said = std::fs::read_to_string(&log).unwrap();
        let lost = said.split("received, ").nth(1).and_then(|rest| rest.split('%').next()).unwrap();
        println!("{log}: {}", said.lines().rev().take(3).collect::<Vec<_>>().join(" "));
        assert_eq!(lost, "0", "{said}");
    }
    for (log, mut child) in connections {
        assert!(child.wait().unwrap().success(), "{log}: {}", std::fs::read_to_string(&log).unwrap());
    }
    assert!(lab.stop().success());
}
