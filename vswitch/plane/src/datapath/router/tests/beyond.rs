//! A network of several hosts, each of which has a subnet of it and routes: here 10.0.0.0/16, of which bridge 0 has 10.0.0.0/24.

use super::*;
use crate::datapath::{RemoteStation, TunnelSettings};

/// The tunnel to the other hosts, and the side that it is the only port of.
const TUNNEL: PortId = PortId(5);
const BEYOND: BridgeId = BridgeId(5);

/// The first address of the subnet here, that of the host with 10.0.6.0/24, and a station there.
const OWN: [u8; 4] = [10, 0, 0, 0];
const OTHER: [u8; 4] = [10, 0, 6, 0];
const THERE: [u8; 4] = [10, 0, 6, 2];

impl Lab {
    /// All bridges are isolated; host `station(6)` has 10.0.6.0/24, and `station(7)` 10.0.7.0/24.
    fn with_hosts() -> Self {
        let mut lab = Self::new(true, nat());
        lab.introduce();
        lab.datapath.set_bridge(lab.now, BEYOND, BridgeSettings { mtu: 1450, ..BridgeSettings::default() });
        lab.set_hosts(&[(6, 6), (7, 7)]);
        lab
    }

    /// Subnets, by their third number, and the stations that route to them.
    fn set_hosts(&mut self, hosts: &[(u8, u8)]) {
        let address = |subnet: u8| IpAddr::from([10, 0, subnet, 0]);
        let known = |(subnet, number): &(u8, u8)| RemoteStation {
            mac: station(*number),
            peer: u16::from(*number),
            ip: Some(address(*subnet)),
        };
        let stations = hosts.iter().map(known).collect();
        let tunnel = Some(TunnelSettings { learn: false, mtu: 1450, stations, told: false });
        let vlans = VlanMode::Access(VlanId::DEFAULT);
        self.datapath.set_port(TUNNEL, &PortSettings { vlans, tunnel, ..PortSettings::on(BEYOND) });
        let route = |(subnet, _): &(u8, u8)| (IpNet::new(address(*subnet), 24).unwrap(), address(*subnet));
        let settings = GatewaySettings {
            mac: gateway(5),
            vlan: VlanId::DEFAULT,
            mtu: 1450,
            addresses: nets(&["10.0.0.0/32"]),
            routes: hosts.iter().map(route).collect(),
            side: Side::Beyond { of: BridgeId(0), network: "10.0.0.0/16".parse().unwrap() },
        };
        self.datapath.set_gateway(BEYOND, Some(settings));
    }
}

fn to(destination: [u8; 4]) -> Vec<u8> {
    udp((station(1), [10, 0, 0, 11], 5000), (gateway(0), destination, 80), 64, b"x")
}

fn from(number: u8, source: [u8; 4], destination: [u8; 4]) -> Vec<u8> {
    udp((station(number), source, 80), (gateway(5), destination, 5000), 64, b"x")
}

#[test]
fn what_is_for_another_hosts_subnet_goes_to_that_host_as_it_is_and_is_never_asked_for() {
    let mut lab = Lab::with_hosts();
    let left = lab.send(A, &to(THERE));
    let [Left(TUNNEL, frame)] = &left[..] else { panic!("{left:?}") };
    assert_eq!((&frame[..6], &frame[6..12]), (&station(6).0[..], &gateway(5).0[..]));
    assert_eq!(flow(frame), ([10, 0, 0, 11], 5000, THERE, 80, 63), "no NAT");
    let left = lab.send(A, &to(OTHER));
    assert!(matches!(&left[..], [Left(TUNNEL, _)]), "the host itself has an address there: {left:?}");
    // A host that was installed anew is followed with the next packet.
    lab.set_hosts(&[(6, 8), (7, 7)]);
    let left = lab.send(A, &to(THERE));
    assert_eq!(left[0].1[..6], station(8).0);
    for _ in 0..40 {
        assert_eq!(lab.tick(), []);
        assert_eq!(lab.send(A, &to(THERE)).len(), 1);
    }
}

#[test]
fn a_subnet_that_moves_to_another_bridge_is_there_when_the_first_goes() {
    let mut lab = Lab::new(false, nat());
    // Bridge 0 has it before bridge 1 is gone.
    let addresses = nets(&["10.0.1.1/24"]);
    lab.datapath.set_gateway(BridgeId(0), Some(GatewaySettings { addresses, ..inside(0, false) }));
    lab.datapath.set_gateway(BridgeId(1), Some(GatewaySettings { mtu: 1400, ..inside(1, false) }));
    lab.datapath.set_gateway(BridgeId(1), None);
    for (port, number) in [(A, 1), (B, 2)] {
        let question = arp(ArpOperation::REQUEST, station(number), Mac::BROADCAST, [10, 0, 1, 10 + number], [10, 0, 1, 1]);
        assert!(!lab.send(port, &question).is_empty());
    }
    let left = lab.send(A, &udp((station(1), [10, 0, 1, 11], 5000), (gateway(0), [10, 0, 1, 12], 80), 64, b"x"));
    assert!(matches!(&left[..], [Left(B, _)]), "{left:?}");
    assert_eq!(lab.drops(A, DropReason::NoRoute), 0);
}

#[test]
fn what_comes_from_another_host_gets_to_the_bridge_of_the_network_and_to_no_other() {
    let mut lab = Lab::with_hosts();
    for source in [THERE, OTHER, [10, 0, 7, 2]] {
        let left = lab.send(TUNNEL, &from(6, source, [10, 0, 0, 11]));
        let [Left(A, frame)] = &left[..] else { panic!("{left:?}") };
        assert_eq!(flow(frame), (source, 80, [10, 0, 0, 11], 5000, 63));
    }
    let left = lab.send(TUNNEL, &ping((station(6), OTHER), (gateway(5), OWN)));
    assert!(matches!(&left[..], [Left(TUNNEL, answer)] if icmp(answer) == (OTHER, 0, 0)), "{left:?}");
    let left = lab.send(TUNNEL, &ping((station(6), THERE), (gateway(5), [10, 0, 0, 1])));
    assert!(matches!(&left[..], [Left(TUNNEL, answer)] if icmp(answer) == (THERE, 0, 0)), "the gateway answers: {left:?}");
    for (destination, why) in [([10, 0, 1, 13], "another bridge"), (HOST, "an uplink"), ([10, 0, 7, 2], "a third host")] {
        let left = lab.send(TUNNEL, &from(6, THERE, destination));
        assert!(left.iter().all(|Left(port, frame)| (*port, icmp(frame)) == (TUNNEL, (THERE, 3, 0))), "{why}: {left:?}");
    }
    for source in [HOST, [10, 0, 0, 11], [10, 0, 8, 2], [10, 0, 1, 13]] {
        assert_eq!(lab.send(TUNNEL, &from(6, source, [10, 0, 0, 11])), [], "{source:?} is no host's");
    }
    assert_eq!(lab.drops(TUNNEL, DropReason::MartianSource), 4);
}

#[test]
fn the_network_is_for_its_bridge_alone_and_never_left_by_an_uplink() {
    let mut lab = Lab::with_hosts();
    let left = lab.send(A, &to([10, 0, 99, 1]));
    let [Left(A, answer)] = &left[..] else { panic!("{left:?}") };
    assert_eq!((icmp(answer), lab.drops(A, DropReason::NoRoute)), (([10, 0, 0, 11], 3, 0), 1), "no host has it");
    assert!(matches!(&lab.send(A, &to(HOST))[..], [Left(WAN, _)]), "the rest of the world is where it was");
    let other = udp((station(3), [10, 0, 1, 13], 1), (gateway(1), THERE, 2), 64, b"x");
    assert!(lab.send(C, &other).iter().all(|Left(port, _)| *port == WAN), "another bridge has no part in it");
    // A station cannot speak for another host's.
    assert_eq!(lab.send(A, &udp((station(1), THERE, 1), (gateway(0), HOST, 2), 64, b"x")), []);
    lab.datapath.set_gateway(BEYOND, None);
    assert!(matches!(&lab.send(A, &to(THERE))[..], [Left(WAN, _)]), "the network is left");
}

#[test]
fn what_is_too_long_for_the_tunnel_is_told_and_a_way_that_is_too_long_shows_its_hops() {
    let mut lab = Lab::with_hosts();
    let mut long = udp((station(1), [10, 0, 0, 11], 1), (gateway(0), THERE, 2), 64, &[7; 1460]);
    long[20] = 0x40;
    long[24..26].fill(0);
    let sum = packet::checksum::Sum::new().plus(&long[14..34]).checksum();
    long[24..26].copy_from_slice(&sum.to_be_bytes());
    let left = lab.send(A, &long);
    let [Left(A, answer)] = &left[..] else { panic!("{left:?}") };
    assert_eq!((icmp(answer), &answer[40..42]), (([10, 0, 0, 11], 3, 4), &1450u16.to_be_bytes()[..]));
    let short = udp((station(6), THERE, 1), (gateway(5), [10, 0, 0, 11], 2), 1, b"x");
    let left = lab.send(TUNNEL, &short);
    let [Left(TUNNEL, answer)] = &left[..] else { panic!("{left:?}") };
    assert_eq!((icmp(answer), &answer[26..30]), ((THERE, 11, 0), &OWN[..]));
}
