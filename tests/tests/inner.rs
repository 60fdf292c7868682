//! Tunnels of the kernel's own between stations: what belongs to an inner header, a checksum or a super-frame, is finished by whoever is on
//! the way. Every kind of port to every other, and through both kinds of uplink.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by them")]

use vswitch_tests::{Lab, checksum_errors, needs, ping, tcp, udp_is_well};

/// Less than any way reaches on a slow machine, more than one that loses its super-frames or checksums gets.
const FLOWING: f64 = 5e6;

/// Where a tunnel ends: a namespace, its addresses there, and those by which the other end reaches it.
struct End {
    netns: &'static str,
    local: [String; 2],
    seen: [String; 2],
}

impl End {
    fn new(netns: &'static str, local: [&str; 2], seen: [&str; 2]) -> Self {
        let owned = |addresses: [&str; 2]| addresses.map(str::to_owned);
        Self { netns, local: owned(local), seen: owned(seen) }
    }

    /// Station `number` of a bridge.
    fn station(netns: &'static str, number: u8) -> Self {
        let addresses = [format!("10.0.0.{number}"), format!("fd00::{number}")];
        Self { netns, local: addresses.clone(), seen: addresses }
    }
}

/// A kind of tunnel: what `ip link add` is told, whether over IPv6, and the MTU inside.
struct Tunnel(&'static str, usize, u16);

const VXLAN: [Tunnel; 3] = [
    Tunnel("vxlan id 7 dstport 4789 nolearning udpcsum", 0, 1450),
    Tunnel("vxlan id 7 dstport 4789 nolearning noudpcsum", 0, 1450),
    Tunnel("vxlan id 7 dstport 4789 nolearning noudp6zerocsumtx", 1, 1430),
];
/// What has no ports, or no checksum, which no NAT knows.
const OTHERS: [Tunnel; 6] = [
    Tunnel("vxlan id 7 dstport 4789 nolearning udp6zerocsumtx udp6zerocsumrx", 1, 1430),
    Tunnel("gre", 0, 1476),
    Tunnel("gre csum key 42", 0, 1468),
    Tunnel("ipip", 0, 1480),
    Tunnel("ip6gre", 1, 1448),
    Tunnel("ip6tnl mode any", 1, 1452),
];

/// Makes the tunnel at both ends; whether this kernel has such a one. Inside, `from` is 10.7.0.1 and `to` is 10.7.0.2.
#[track_caller]
fn make(lab: &Lab, ends: [&End; 2], Tunnel(kind, version, mtu): &Tunnel) -> bool {
    for (number, (own, other)) in [(1, (ends[0], ends[1])), (2, (ends[1], ends[0]))] {
        let (local, remote) = (&own.local[*version], &other.seen[*version]);
        let (name, options) = kind.split_once(' ').unwrap_or((kind, ""));
        let made = lab.run_in(
            own.netns,
            &format!(
                "ip link add t0 mtu {mtu} type {name} local {local} remote {remote} {options} && ip link set t0 up && \
                 ip addr add 10.7.0.{number}/24 dev t0 && ip addr add fd07::{number}/64 dev t0 nodad"
            ),
        );
        if made.stderr.contains("Unknown device type") || made.stderr.contains("not supported") {
            eprintln!("this kernel has no {name}");
            return false;
        }
        made.ok();
    }
    true
}

/// Bulk TCP both ways through a tunnel between two ends, and UDP, with every packet whole at its receiver.
#[track_caller]
fn crosses(lab: &Lab, ends: [&End; 2], tunnel: &Tunnel, what: &str) {
    let what = format!("{what}, {}: {} to {}", tunnel.0, ends[0].netns, ends[1].netns);
    let errors = || checksum_errors(lab, ends[0].netns) + checksum_errors(lab, ends[1].netns);
    if make(lab, ends, tunnel) {
        let names = ends.map(|end| end.netns);
        lab.until(&format!("a ping through the tunnel, {what}"), |lab| ping(lab, names[0], "10.7.0.2"));
        // A datagram without a checksum is an error where its tunnel is not there yet.
        let before = errors();
        for (from, to, address) in [(names[0], names[1], "10.7.0.2"), (names[1], names[0], "fd07::1")] {
            let transfer = tcp(lab, from, to, address, "-n 16M");
            eprintln!("{what}: from {from}: {:.0} Mbit/s", transfer.bits / 1e6);
            assert!(transfer.bits > FLOWING, "{what}: from {from}: {transfer:?}");
            assert_eq!(errors(), before, "{what}: from {from}: checksums");
        }
        eprintln!("{what}: UDP");
        udp_is_well(lab, names, "10.7.0.2", "-n 2M -b 50M", |transfer| transfer.lost < 0.5);
        assert_eq!(errors(), before, "{what}: checksums of UDP");
    }
    for end in ends {
        lab.run_in(end.netns, "ip link del t0 2>&1");
    }
}

/// What a station's own stack leaves to its device.
fn set_offloads(lab: &Lab, netns: &str, on: bool) {
    let word = if on { "on" } else { "off" };
    let line = format!("for what in tx rx tso gso gro tx-udp_tnl-segmentation; do ethtool -K eth0 $what {word} 2>&1; done");
    lab.run_in(netns, &line);
}

/// Two stations on each kind of port; a link is somebody's veth end, its station is on the other one.
fn bridged(more: &str) -> (Lab, Vec<End>) {
    let mut lab = Lab::new();
    let kinds = [("t1", "tap"), ("t2", "tap"), ("v1", "veth"), ("v2", "veth"), ("l1", "link"), ("l2", "link")];
    let mut file = String::from("[[bridge]]\nname = \"br0\"\n");
    for (number, (name, kind)) in (1_u8..).zip(kinds) {
        let addresses = format!("10.0.0.{number}/24");
        let place = if kind == "link" {
            lab.add_netns(name);
            lab.sh(&format!(
                "ip -n @host link add {name} type veth peer name eth0 netns @{name} && ip -n @host link set {name} up && \
                 ip -n @{name} link set eth0 up && ip -n @{name} addr add {addresses} dev eth0 && \
                 ip -n @{name} addr add fd00::{number}/64 dev eth0 nodad"
            ))
            .ok();
            format!("device = \"{name}\"\n")
        } else {
            format!("netns = \"@{name}\"\naddresses = [\"{addresses}\", \"fd00::{number}/64\"]\n")
        };
        file += &format!("[[port]]\nname = \"{name}\"\nbridge = \"br0\"\nkind = \"{kind}\"\n{place}{more}");
    }
    lab.write(&file);
    lab.start();
    lab.until("IPv6 addresses are no longer tentative", |lab| ping(lab, "t1", "fd00::3") && ping(lab, "v2", "fd00::2"));
    (lab, (1..).zip(kinds).map(|(number, (name, _))| End::station(name, number)).collect())
}

const PAIRS: [(usize, usize); 6] = [(0, 1), (0, 2), (0, 4), (2, 3), (2, 4), (4, 5)];

#[test]
fn a_kernel_s_tunnel_crosses_from_any_kind_of_port_to_any_other() {
    needs!("ping", "iperf3", "ethtool");
    let (lab, ends) = bridged("");
    for (from, to) in PAIRS {
        for tunnel in VXLAN.iter().chain(&OTHERS) {
            crosses(&lab, [&ends[from], &ends[to]], tunnel, "offloads on");
        }
    }
}

#[test]
fn a_kernel_s_tunnel_crosses_where_one_station_or_both_finish_their_frames() {
    needs!("ping", "iperf3", "ethtool");
    let (lab, ends) = bridged("");
    for (here, there) in [(true, false), (false, true), (false, false)] {
        for (from, to) in PAIRS {
            set_offloads(&lab, ends[from].netns, here);
            set_offloads(&lab, ends[to].netns, there);
            crosses(&lab, [&ends[from], &ends[to]], &VXLAN[0], &format!("offloads {here} {there}"));
        }
    }
}

#[test]
fn a_kernel_s_tunnel_crosses_ports_without_offload() {
    needs!("ping", "iperf3", "ethtool");
    let (lab, ends) = bridged("offload = false\n");
    for (from, to) in PAIRS {
        for tunnel in &VXLAN {
            crosses(&lab, [&ends[from], &ends[to]], tunnel, "offload = false");
        }
    }
}

/// A station on each kind of port behind an uplink, to which its tunnel is published, and a host outside with the other end. With
/// `wire`, what the host outside sends is finished, as it is once it was on one.
#[track_caller]
fn through_uplink(uplink: &str, own: [&str; 2], kind: &str, wire: bool) {
    let mut lab = Lab::new();
    lab.sh("ip netns add @out && ip -n @out link set lo up && \
         ip -n @host link add wan type veth peer name eth0 netns @out && ip -n @host link set wan up && \
         ip -n @out addr add 192.0.2.1/24 dev eth0 && ip -n @out addr add 2001:db8::1/64 dev eth0 nodad && \
         ip -n @out link set eth0 up && ip -n @host addr add 192.0.2.2/24 dev wan && \
         ip -n @host addr add 2001:db8::2/64 dev wan nodad")
        .ok();
    if wire {
        set_offloads(&lab, "out", false);
    }
    // Where the uplink's addresses are the host's, each has a listener of its own.
    let listen = |address: &str| if uplink == HOST { format!("listen = \"{address}\"\n") } else { String::new() };
    let forward = |at: &str, to: &str| {
        let listen = listen(at);
        format!("[[forward]]\nuplink = \"wan\"\nprotocol = \"udp\"\nport = 4789\n{listen}to = \"{to}:4789\"\n")
    };
    let link = if kind == "link" {
        lab.add_netns("a");
        lab.sh("ip -n @host link add lan type veth peer name eth0 netns @a && ip -n @host link set lan up && \
             ip -n @a link set eth0 up && ip -n @a addr add 10.10.0.2/24 dev eth0 && \
             ip -n @a addr add fd10::2/64 dev eth0 nodad && ip -n @a route add default via 10.10.0.1 && \
             ip -n @a route add default via fd10::1")
            .ok();
        "device = \"lan\"\n"
    } else {
        "netns = \"@a\"\naddresses = [\"10.10.0.2/24\", \"fd10::2/64\"]\n"
    };
    lab.write(&format!(
        "{uplink}[[bridge]]\nname = \"br0\"\naddresses = [\"10.10.0.1/24\", \"fd10::1/64\"]\nuplink = \"wan\"\n\
         [[port]]\nname = \"a\"\nbridge = \"br0\"\nkind = \"{kind}\"\n{link}{}{}",
        forward(own[0], "10.10.0.2"),
        forward(own[1], "[fd10::2]")
    ));
    lab.start();
    lab.until("the way out works", |lab| ping(lab, "a", "192.0.2.1") && ping(lab, "a", "2001:db8::1"));
    let inside = End::new("a", ["10.10.0.2", "fd10::2"], own);
    let outside = End::new("out", ["192.0.2.1", "2001:db8::1"], ["192.0.2.1", "2001:db8::1"]);
    for tunnel in &VXLAN {
        crosses(&lab, [&inside, &outside], tunnel, &format!("{kind} to uplink, finished outside: {wire}"));
    }
}

const LINK: &str = "[[uplink]]\nname = \"wan\"\nkind = \"link\"\ndevice = \"wan\"\naddress = [\"192.0.2.10/24\", \"2001:db8::10/64\"]\n\
                    gateway = [\"192.0.2.1\", \"2001:db8::1\"]\n";
const HOST: &str = "[[uplink]]\nname = \"wan\"\nkind = \"host\"\n";

#[test]
fn a_kernel_s_tunnel_crosses_an_uplink_on_a_link() {
    needs!("ping", "iperf3", "ethtool");
    for kind in ["tap", "veth", "link"] {
        for wire in [false, true] {
            through_uplink(LINK, ["192.0.2.10", "2001:db8::10"], kind, wire);
        }
    }
}

#[test]
fn a_kernel_s_tunnel_crosses_the_host_s_sockets() {
    needs!("ping", "iperf3", "ethtool");
    for kind in ["tap", "veth", "link"] {
        through_uplink(HOST, ["192.0.2.2", "2001:db8::2"], kind, true);
    }
}
