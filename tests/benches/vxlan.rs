//! TCP between two hosts through VXLAN, vswitchd and the kernel's bridge and tunnel in turns: `cargo bench -p vswitch-tests --bench
//! vxlan`, as root, with nothing else running. `-- ROUNDS SECONDS` changes how often (5) and how long (3).
//!
//! Four namespaces are hosts on one Ethernet: two have a vswitchd and a TAP, two a bridge, a vxlan device and a veth. Each round
//! measures both, so that whatever else the machine does befalls both; the ratio is that of the medians. With the underlay's
//! offloads on, the kernel passes 64 KiB super-frames from station to station without ever cutting one, which no real network does.
#![allow(missing_docs)]

use vswitch_tests::{Lab, Underlay, across, median, missing};

fn main() {
    if let Some(reason) = missing(&["ip", "nsenter", "iperf3", "ethtool"]) {
        return println!("SKIPPED: {reason}");
    }
    let numbers: Vec<u64> = std::env::args().filter_map(|word| word.parse().ok()).collect();
    let (rounds, seconds) = (numbers.first().copied().unwrap_or(5), numbers.get(1).copied().unwrap_or(3));
    let underlay = Underlay::new();
    let switches = [1, 2].map(|number: u8| underlay.host(number, &tunnel(number, 3 - number)));
    let kernels = [3, 4].map(|number: u8| kernel(&underlay, number, 7 - number));
    for (what, segmentation) in [("underlay tso and gso off", false), ("everything on", true)] {
        for (number, lab) in (1..).zip(switches.iter().chain(&kernels)) {
            underlay.set_offloads(lab, number, true);
            underlay.set_features(lab, number, "tso gso tx-udp-segmentation", segmentation);
        }
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            ours.push(across(&switches[0], &switches[1], "10.0.0.2", &format!("-t {seconds}")));
            theirs.push(across(&kernels[0], &kernels[1], "10.0.0.4", &format!("-t {seconds}")));
        }
        let (ours, theirs) = (median(ours), median(theirs));
        println!("{what}: vswitchd {:.2} Gbit/s, kernel {:.2} Gbit/s: {:.2}x", ours / 1e9, theirs / 1e9, ours / theirs);
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
