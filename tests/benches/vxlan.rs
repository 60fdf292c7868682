//! TCP between two hosts through VXLAN beside the kernel's bridge and tunnel: `cargo bench -p vswitch-tests --bench vxlan`, as root.
//!
//! Four namespaces are hosts on one Ethernet: two have a vswitchd and a TAP, two a bridge, a vxlan device and a veth. With the
//! underlay's offloads on, the kernel passes 64 KiB super-frames from station to station without ever cutting one, which no real
//! network does. As in `side_by_side`, `VSWITCH_BENCH_PAIRS` and `VSWITCH_BENCH_SECONDS` set how much is measured.
#![allow(clippy::unwrap_used, clippy::panic, reason = "what fails here ends the benchmark")]

use std::process::ExitCode;

use vswitch_tests::bench::{self, Contest, seconds};
use vswitch_tests::{Lab, Underlay, across};

fn main() -> ExitCode {
    bench::main(&["ip", "nsenter", "iperf3", "ethtool"], run)
}

fn run() {
    let underlay = Underlay::new();
    let switches = [1, 2].map(|number: u8| underlay.host(number, &tunnel(number, 3 - number)));
    let kernels = [3, 4].map(|number: u8| kernel(&underlay, number, 7 - number));
    for (name, segmentation) in [("one TCP stream, underlay tso and gso off", false), ("one TCP stream, everything on", true)] {
        for (number, lab) in (1..).zip(switches.iter().chain(&kernels)) {
            underlay.set_offloads(lab, number, true);
            underlay.set_features(lab, number, "tso gso tx-udp-segmentation", segmentation);
        }
        let extent = format!("-t {}", seconds());
        let contest = Contest {
            name,
            beside: "the kernel's bridge and vxlan",
            unit: "Gbit/s",
            ours: Box::new(|_| across(&switches[0], &switches[1], "10.0.0.2", &extent) / 1e9),
            theirs: Box::new(|_| across(&kernels[0], &kernels[1], "10.0.0.4", &extent) / 1e9),
        };
        bench::compare(&switches[0], &[contest]);
    }
}

fn tunnel(number: u8, peer: u8) -> String {
    format!(
        "[[vxlan]]\nname = \"vx0\"\nbridge = \"br0\"\nvni = 42\nlocal = \"192.0.2.{number}\"\npeers = [\"192.0.2.{peer}\"]\n"
    )
}

fn kernel(underlay: &Underlay, number: u8, peer: u8) -> Lab {
    let lab = Lab::new();
    underlay.join(&lab, number);
    lab.add_netns("a");
    lab.sh(&format!(
        "ip -n @host link add vx0 type vxlan id 43 local 192.0.2.{number} remote 192.0.2.{peer} dstport 4789 udpcsum && \
         ip -n @host link add br0 type bridge && ip -n @host link set br0 up && ip -n @host link set vx0 master br0 up && \
         ip -n @host link add lan mtu 1450 type veth peer name eth0 mtu 1450 netns @a && \
         ip -n @host link set lan master br0 up && ip -n @a link set eth0 up && ip -n @a addr add 10.0.0.{number}/24 dev eth0"
    ))
    .ok();
    lab
}
