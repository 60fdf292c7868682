//! The gateway beside what users would take instead: `cargo bench -p vswitch-tests --bench gateway`, as root.
//!
//! - One TCP stream through NAT by an uplink of kind link, beside the kernel's router with nftables' `masquerade` between veth pairs.
//! - One TCP stream by an uplink of kind host at MTU 1500, beside slirp4netns at MTU 1500.
//!
//! Both directions each; the far end is a namespace behind one more veth pair. As in `side_by_side`, `VSWITCH_BENCH_PAIRS` and
//! `VSWITCH_BENCH_SECONDS` set how much is measured.
#![allow(clippy::unwrap_used, clippy::panic, reason = "what fails here ends the benchmark")]

use std::process::ExitCode;

use vswitch_tests::bench::{self, Contest, seconds};
use vswitch_tests::{Lab, ping, tcp};

const FILE: &str = r#"
[[uplink]]
name = "wan"
kind = "link"
device = "wan"
address = "192.0.2.10/24"
gateway = "192.0.2.1"
[[uplink]]
name = "sockets"
kind = "host"
[[bridge]]
name = "br0"
addresses = ["10.0.0.1/24"]
uplink = "wan"
[[bridge]]
name = "br1"
addresses = ["10.1.0.1/24"]
uplink = "sockets"
[[port]]
name = "a"
bridge = "br0"
netns = "@a"
addresses = ["10.0.0.2/24"]
[[port]]
name = "b"
bridge = "br1"
netns = "@b"
addresses = ["10.1.0.2/24"]
"#;

/// The far end, which three ways lead to: the uplink's link, the kernel's router, and the host's own.
const OUTSIDE: &str = "
ip netns add @out && ip -n @out link set lo up && ip -n @out addr add 198.51.100.1/32 dev lo
ip -n @host link add wan type veth peer name o0 netns @out && ip -n @host link set wan up
ip -n @host link add own type veth peer name o1 netns @out && ip -n @host link set own up
ip netns add @router && ip -n @router link set lo up
ip -n @router link add wan type veth peer name o2 netns @out && ip -n @router link set wan up
for n in 0 1 2; do ip -n @out link set o$n up; ip -n @out addr add 192.0.$((2 + n)).1/24 dev o$n; done
ip -n @host addr add 192.0.3.10/24 dev own && ip -n @host route add default via 192.0.3.1
ip -n @router addr add 192.0.4.10/24 dev wan && ip -n @router route add default via 192.0.4.1
ip netns add @k && ip -n @k link set lo up
ip -n @router link add lan type veth peer name eth0 netns @k && ip -n @router link set lan up && ip -n @k link set eth0 up
ip -n @router addr add 10.2.0.1/24 dev lan && ip -n @k addr add 10.2.0.2/24 dev eth0 && ip -n @k route add default via 10.2.0.1
ip netns exec @router sh -c 'echo 1 > /proc/sys/net/ipv4/ip_forward'
ip netns exec @router nft 'add table nat; add chain nat post { type nat hook postrouting priority 100; }; add rule nat post oifname wan masquerade'
ip netns add @s && ip -n @s link set lo up
";

fn main() -> ExitCode {
    bench::main(&["ip", "nsenter", "iperf3", "nft", "slirp4netns"], run)
}

fn run() {
    let mut lab = Lab::new();
    lab.sh(OUTSIDE).ok();
    lab.write(FILE);
    lab.start();
    let target = lab.named("/run/netns/@s");
    lab.spawn_in("host", &format!("slirp4netns --configure --mtu=1500 --netns-type=path {target} tap0"));
    for from in ["a", "b", "k", "s"] {
        lab.until("the far end is reached", |lab| ping(lab, from, "198.51.100.1"));
    }
    let stream = |from: &'static str, more: &'static str| {
        Box::new(move |lab: &Lab| tcp(lab, from, "out", "198.51.100.1", &format!("-t {} {more}", seconds())).bits / 1e9)
    };
    let contest = |name, beside, (ours, theirs): (&'static str, &'static str), more| Contest {
        name,
        beside,
        unit: "Gbit/s",
        ours: stream(ours, more),
        theirs: stream(theirs, more),
    };
    let contests = [
        contest("NAT by a link, one TCP stream out", "nftables masquerade", ("a", "k"), ""),
        contest("NAT by a link, one TCP stream in", "nftables masquerade", ("a", "k"), "-R"),
        contest("the host's sockets, one TCP stream out", "slirp4netns", ("b", "s"), ""),
        contest("the host's sockets, one TCP stream in", "slirp4netns", ("b", "s"), "-R"),
    ];
    bench::compare(&lab, &contests);
}
