//! TCP between two hosts through VXLAN beside the kernel's bridge and tunnel: `cargo bench -p vswitch-tests --bench vxlan`, as root.
//!
//! Four namespaces are hosts on one Ethernet: two have a vswitchd and a TAP, two a bridge, a vxlan device and a veth. With the
//! underlay's offloads on, the kernel passes 64 KiB super-frames from station to station without ever cutting one, which no real
//! network does. TCP is controlled by CUBIC and, where this machine prefers another algorithm, by that as well.
//! `VSWITCH_BENCH_PAIRS` (5) is the number of turns, `VSWITCH_BENCH_SECONDS` (3) the length of a measurement.
//! `tests/bench --only vxlan,vxlan-offload` measures more of it, in places of their own.

use std::process::ExitCode;

use vswitch_tests::bench::{self, Contest, hosts, kernel_host, seconds, vswitch_host};
use vswitch_tests::{Underlay, across};

fn main() -> ExitCode {
    bench::main(&["ip", "nsenter", "iperf3", "ethtool"], run)
}

fn run() {
    let underlay = Underlay::new();
    let switches = hosts(&underlay, vswitch_host, [1, 2]);
    let kernels = hosts(&underlay, kernel_host, [3, 4]);
    for (name, segmentation) in [("one TCP stream, underlay tso and gso off", false), ("one TCP stream, everything on", true)] {
        for (number, lab) in (1..).zip(switches.iter().chain(&kernels)) {
            underlay.set_segmentation(lab, number, segmentation);
        }
        let extent = format!("-t {}", seconds());
        let own = own_choice().map(|control| (format!("{name}, {control}"), format!("{extent} -C {control}")));
        for (name, extent) in std::iter::once((name.to_owned(), extent)).chain(own) {
            let contest = Contest {
                name: &name,
                beside: "the kernel's bridge and vxlan",
                unit: "Gbit/s",
                ours: Box::new(|_| across(&switches[0], &switches[1], "10.0.0.2", &extent) / 1e9),
                theirs: Box::new(|_| across(&kernels[0], &kernels[1], "10.0.0.4", &extent) / 1e9),
            };
            bench::compare(&switches[0], &[contest]);
        }
    }
}

/// How this machine controls TCP, if not by CUBIC.
fn own_choice() -> Option<String> {
    let control = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control").ok()?;
    Some(control.trim().to_owned()).filter(|control| !control.is_empty() && control != "cubic")
}
