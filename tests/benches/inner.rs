//! TCP through the kernel's vxlan between two stations of one switch: `cargo bench -p vswitch-tests --bench inner`, as root.
//!
//! Beside the same tunnel over the kernel's bridge and veths, where nothing is ever cut, and over ports with `offload = false`.
//! `VSWITCH_BENCH_PAIRS` (5) is the number of turns, `VSWITCH_BENCH_SECONDS` (3) the length of a measurement.

use std::process::ExitCode;

use vswitch_tests::bench::{self, Contest, seconds};
use vswitch_tests::{Lab, tcp};

fn main() -> ExitCode {
    bench::main(&["ip", "nsenter", "iperf3"], run)
}

/// The kinds of ports between which it goes, by the names of their stations.
const WAYS: [(&str, [&str; 2]); 4] = [
    ("tap to tap", ["t1", "t2"]),
    ("veth to veth", ["v1", "v2"]),
    ("tap to veth", ["t1", "v1"]),
    ("veth to tap", ["v1", "t1"]),
];

fn run() {
    let (switch, bare, kernel) = (switch(""), switch("offload = false\n"), kernel());
    for sums in ["udpcsum", "noudpcsum"] {
        for (way, stations) in WAYS {
            [&switch, &bare].iter().for_each(|lab| tunnel(lab, stations, sums));
            tunnel(&kernel, ["a", "b"], sums);
            let (beside_kernel, beside_bare) = (format!("{way}, {sums}"), format!("{way}, {sums}, offload"));
            let contest = |name, beside, other, ends: [&'static str; 2]| Contest {
                name,
                beside,
                unit: "Gbit/s",
                ours: Box::new(move |switch: &Lab| rate(switch, stations)),
                theirs: Box::new(move |_: &Lab| rate(other, ends)),
            };
            let contests = [
                contest(&beside_kernel, "the kernel's bridge", &kernel, ["a", "b"]),
                contest(&beside_bare, "offload = false", &bare, stations),
            ];
            bench::compare(&switch, &contests);
        }
    }
}

fn rate(lab: &Lab, [from, to]: [&str; 2]) -> f64 {
    tcp(lab, from, to, "10.7.0.2", &format!("-t {}", seconds())).bits / 1e9
}

/// Stations `t1`, `t2` on TAPs and `v1`, `v2` on veth pairs.
fn switch(more: &str) -> Lab {
    let ports: String = [("t1", 1, "tap"), ("t2", 2, "tap"), ("v1", 3, "veth"), ("v2", 4, "veth")]
        .map(|(name, number, kind)| {
            format!(
                "[[port]]\nname = \"{name}\"\nbridge = \"br0\"\nkind = \"{kind}\"\nnetns = \"@{name}\"\n\
                 addresses = [\"10.0.0.{number}/24\"]\n{more}"
            )
        })
        .concat();
    Lab::with(&format!("[[bridge]]\nname = \"br0\"\n{ports}"))
}

/// Stations `a` and `b` on a bridge of the kernel's.
fn kernel() -> Lab {
    let lab = Lab::new();
    lab.sh("ip -n @host link add br0 type bridge mcast_snooping 0 && ip -n @host link set br0 up").ok();
    for (number, name) in [(1, "a"), (2, "b")] {
        lab.add_netns(name);
        lab.sh(&format!(
            "ip -n @host link add {name} type veth peer name eth0 netns @{name} && ip -n @host link set {name} master br0 up && \
             ip -n @{name} addr add 10.0.0.{number}/24 dev eth0 && ip -n @{name} link set eth0 up"
        ))
        .ok();
    }
    lab
}

/// Puts a vxlan device between two stations, 10.7.0.1 and 10.7.0.2, where another may have been.
fn tunnel(lab: &Lab, stations: [&str; 2], sums: &str) {
    let address = |netns: &str| lab.run_in(netns, "ip -4 -br addr show dev eth0 | awk '{print $3}' | cut -d/ -f1").ok();
    let addresses = stations.map(|netns| address(netns).trim().to_owned());
    for (number, (netns, [local, remote])) in
        (1..).zip([(stations[0], [&addresses[0], &addresses[1]]), (stations[1], [&addresses[1], &addresses[0]])])
    {
        lab.run_in(
            netns,
            &format!(
                "ip link del t0 2>/dev/null; \
                 ip link add t0 mtu 1450 type vxlan id 7 dstport 4789 local {local} remote {remote} {sums} && \
                 ip addr add 10.7.0.{number}/24 dev t0 && ip link set t0 up"
            ),
        )
        .ok();
    }
}
