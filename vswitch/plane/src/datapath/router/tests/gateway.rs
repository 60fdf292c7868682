//! What is for the gateway itself.

use super::*;
use crate::datapath::Tickets;

#[test]
fn arp_that_may_be_about_an_address_by_dhcp_goes_to_its_client() {
    let mut lab = Lab::new(true, nat());
    let own = [192, 0, 2, 10];
    for (operation, mac, sender, target, expected) in [
        (ArpOperation::REQUEST, 4, [192, 0, 2, 1], own, 0),
        (ArpOperation::REQUEST, 4, [192, 0, 2, 1], [192, 0, 2, 7], 0),
        (ArpOperation::REPLY, 4, [192, 0, 2, 7], [0; 4], 1),
        (ArpOperation::REQUEST, 4, [0; 4], [192, 0, 2, 7], 1),
        (ArpOperation::REQUEST, 4, own, [192, 0, 2, 1], 1),
        (ArpOperation::REPLY, 4, own, own, 1),
    ] {
        lab.send(WAN, &arp(operation, station(mac), Mac::BROADCAST, sender, target));
        assert_eq!(lab.datapath.take_punts().count(), expected, "{sender:?} {target:?}");
    }
    // It is no affair of a bridge's own, and what the uplink says itself may come back to it.
    lab.send(A, &arp(ArpOperation::REQUEST, station(1), Mac::BROADCAST, [0; 4], [10, 0, 0, 7]));
    lab.send(WAN, &arp(ArpOperation::REQUEST, gateway(9), Mac::BROADCAST, own, own));
    assert_eq!(lab.datapath.take_punts().count(), 0);
}

/// An echo request of this many bytes, in fragments of packets of at most 600 bytes.
fn long_ping(from: std::net::IpAddr, to: std::net::IpAddr, length: usize) -> Vec<Vec<u8>> {
    let mut message = vec![7; length];
    (message[0], message[2], message[3]) = (if from.is_ipv4() { 8 } else { 128 }, 0, 0);
    let (pseudo, kind) = match (from, to) {
        (std::net::IpAddr::V6(from), std::net::IpAddr::V6(to)) => {
            let sum = packet::checksum::Sum::new().plus(&from.octets()).plus(&to.octets());
            (sum.plus_number(u16::try_from(length).unwrap()).plus_number(58), 58)
        }
        _ => (packet::checksum::Sum::new(), 1),
    };
    let sum = pseudo.plus(&message).checksum();
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut request = crate::fragments::whole(from, to, kind, &message);
    request[..6].copy_from_slice(&gateway(0).0);
    request[6..12].copy_from_slice(&station(1).0);
    crate::fragments::cut(&request, 600, 77)
}

/// Changes bytes of an IPv4 header.
fn altered(frame: &[u8], at: usize, bytes: [u8; 2]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame[at..at + 2].copy_from_slice(&bytes);
    frame[24..26].fill(0);
    let sum = packet::checksum::Sum::new().plus(&frame[14..34]).checksum();
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    frame
}

#[test]
fn a_ping_in_fragments_is_answered_in_fragments_that_fit() {
    let mut lab = Lab::new(true, nat());
    lab.introduce();
    for (from, to) in [("10.0.0.11", "10.0.0.1"), ("fd00::11", "fd00::1")] {
        let mut request = long_ping(from.parse().unwrap(), to.parse().unwrap(), 4000);
        // The last comes first.
        request.reverse();
        let (last, parts) = request.split_last().unwrap();
        for part in parts {
            assert_eq!(lab.send(A, part), [], "the rest is missing");
        }
        let left = lab.send(A, last);
        assert_eq!(left.len(), 3, "{left:?}");
        let mut reassembly = crate::fragments::Reassembly::default();
        let whole = left.iter().filter_map(|Left(_, frame)| {
            let ethernet = Ethernet::parse(frame).unwrap();
            assert!(frame.len() <= 14 + 1500 && ethernet.source == gateway(0));
            let ip = IpPacket::parse(frame, &ethernet).unwrap();
            reassembly.add((), frame, &ip, ip.fragment.unwrap(), lab.now).whole
        });
        let (frame, ip) = whole.last().unwrap();
        let said = &frame[ip.transport..ip.end];
        assert_eq!((said.len(), said[0], &said[8..]), (4000, if ip.source.is_ipv4() { 0 } else { 129 }, &[7; 3992][..]));
    }
}

#[test]
fn fragments_of_one_station_leave_room_for_those_of_another_and_are_counted() {
    let mut lab = Lab::new(true, nat());
    lab.introduce();
    let [modest, greedy] = [12, 11].map(|number| long_ping([10, 0, 0, number].into(), [10, 0, 0, 1].into(), 1000));
    assert_eq!(lab.send(B, &modest[0]), []);
    for number in 0..500_u16 {
        lab.send(A, &altered(&greedy[0], 18, number.to_be_bytes()));
    }
    lab.tick();
    assert_eq!(lab.drops(A, DropReason::FragmentForGateway), 500 - 127);
    assert_eq!(lab.send(B, &modest[1]).len(), 1, "answered");
    // The same bytes again are ignored; others in their place end the packet.
    lab.send(B, &modest[0]);
    lab.send(B, &modest[0]);
    lab.send(B, &altered(&modest[1], 20, [0, 70]));
    lab.tick();
    assert_eq!(lab.drops(B, DropReason::FragmentForGateway), 2);
    (0..30).for_each(|_| drop(lab.tick()));
    assert_eq!(lab.drops(A, DropReason::FragmentForGateway), 500);
}

#[test]
fn a_flood_for_the_services_is_counted_and_leaves_room_for_others() {
    let mut lab = Lab::new(true, nat());
    lab.introduce();
    let asks = |number: u8| udp((station(number), [10, 0, 0, 10 + number], 9), (gateway(0), [10, 0, 0, 1], 53), 64, b"dns");
    for _ in 0..2 * Tickets::MOST {
        lab.send(A, &asks(1));
    }
    lab.send(B, &asks(2));
    let punts: Vec<Punt> = lab.datapath.take_punts().collect();
    let of = |port| punts.iter().filter(|punt| punt.port == port).count();
    assert_eq!((of(A), of(B)), (Tickets::MOST / 2, 1));
    assert_eq!(lab.drops(A, DropReason::QueueFull), 3 * Tickets::MOST as u64 / 2);
    // On their way they count still.
    lab.send(A, &asks(1));
    assert_eq!(lab.datapath.take_punts().count(), 0);
    drop(punts);
    lab.send(A, &asks(1));
    assert_eq!(lab.datapath.take_punts().count(), 1);
}

#[test]
fn an_arp_request_from_another_subnet_is_answered_and_its_sender_not_learned() {
    let mut lab = Lab::new(true, nat());
    for (port, number, own, sender) in [
        (A, 0, [10, 0, 0, 1], [172, 16, 5, 9]),
        (A, 0, [10, 0, 0, 1], [10, 0, 1, 13]),
        (WAN, 9, [192, 0, 2, 10], [203, 0, 113, 9]),
    ] {
        let left = lab.send(port, &arp(ArpOperation::REQUEST, station(1), Mac::BROADCAST, sender, own));
        let answer = left.iter().find(|left| left.0 == port).unwrap_or_else(|| panic!("{sender:?}: {left:?}"));
        assert_eq!((&answer.1[..6], &answer.1[22..28]), (&station(1).0[..], &gateway(number).0[..]));
        assert_eq!((&answer.1[28..32], &answer.1[38..42]), (&own[..], &sender[..]));
    }
    let rows = |bridge| lab.datapath.neighbors(lab.now, bridge);
    assert_eq!((rows(BridgeId(0)), rows(UPLINK)), (vec![], vec![]));
    for sender in [[127, 0, 0, 1], [224, 0, 0, 1], [255, 255, 255, 255], [10, 0, 0, 255]] {
        let left = lab.send(A, &arp(ArpOperation::REQUEST, station(1), Mac::BROADCAST, sender, [10, 0, 0, 1]));
        assert_eq!(left.len(), 1, "no station has {sender:?}");
    }
}

#[test]
fn a_solicitation_from_another_subnet_is_answered_and_its_sender_not_learned() {
    let mut lab = Lab::new(true, nat());
    for (port, own, sender) in [(A, "fd00::1", "2001:db8:77::9"), (WAN, "2001:db8::10", "fd77::9")] {
        let frame = discovery(station(1), sender, "ff02::1:ff00:1", 135, own);
        let left = lab.send(port, &frame);
        let answer = left.iter().find(|left| left.0 == port).unwrap_or_else(|| panic!("{sender}: {left:?}"));
        assert_eq!((answer.1[54], &answer.1[..6]), (136, &station(1).0[..]));
    }
    assert_eq!((lab.datapath.neighbors(lab.now, BridgeId(0)), lab.datapath.neighbors(lab.now, UPLINK)), (vec![], vec![]));
}

/// A message of neighbour discovery about `target`, which the sender of type 136 has; with a link-layer address.
fn discovery(mac: Mac, from: &str, to: &str, kind: u8, target: &str) -> Vec<u8> {
    let [from, to, target]: [std::net::Ipv6Addr; 3] = [from, to, target].map(|address| address.parse().unwrap());
    let mut rest = target.octets().to_vec();
    rest.extend([if kind == 135 { 1 } else { 2 }, 1]);
    rest.extend(mac.0);
    let mut frame = Vec::new();
    let ip = PacketBuilder::ethernet2(mac.0, [0x33, 0x33, 0, 0, 0, 1]).ipv6(from.octets(), to.octets(), 255);
    ip.icmpv6_raw(kind, 0, [0x60, 0, 0, 0]).write(&mut frame, &rest).unwrap();
    frame
}

#[test]
fn a_claim_to_an_address_of_the_gateways_goes_no_further_on_any_port() {
    let mut lab = Lab::new(true, nat());
    let link_local = gateway(0).link_local().to_string();
    let own = [10, 0, 0, 1];
    let owner = PortSettings { owner: Some(station(7)), ..PortSettings::on(BridgeId(0)) };
    lab.datapath.set_port(B, &owner);
    for port in [A, B] {
        for frame in [
            arp(ArpOperation::REPLY, station(1), station(2), own, [10, 0, 0, 12]),
            arp(ArpOperation::REQUEST, station(1), Mac::BROADCAST, own, own),
            arp(ArpOperation::REQUEST, station(1), Mac::BROADCAST, own, [10, 0, 0, 12]),
            discovery(station(1), "fe80::11", "ff02::1", 136, "fd00::1"),
            discovery(station(1), "fe80::11", "ff02::1", 136, &link_local),
            discovery(station(1), "fd00::1", "ff02::1", 135, "fd00::12"),
            discovery(station(1), &link_local, "ff02::1", 134, "::"),
            discovery(station(1), &link_local, "fe80::12", 137, "fd00::12"),
        ] {
            let before = lab.drops(port, DropReason::SpoofedAddress);
            assert_eq!(lab.send(port, &frame), []);
            assert_eq!(lab.drops(port, DropReason::SpoofedAddress), before + 1);
        }
    }
    for frame in [
        arp(ArpOperation::REQUEST, station(1), Mac::BROADCAST, [0; 4], own),
        arp(ArpOperation::REQUEST, station(1), Mac::BROADCAST, [10, 0, 0, 11], [10, 0, 0, 12]),
        discovery(station(1), "fe80::11", "ff02::1", 136, "fe80::11"),
        discovery(station(1), "fd00::11", "ff02::1", 135, "fd00::12"),
    ] {
        assert!(lab.send(A, &frame).iter().any(|left| left.0 == B), "what is not the gateway's goes on");
    }
    // The DHCP client of an uplink hears of another host with the uplink's address.
    lab.send(WAN, &arp(ArpOperation::REQUEST, station(4), Mac::BROADCAST, [192, 0, 2, 10], [192, 0, 2, 1]));
    assert_eq!((lab.datapath.take_punts().count(), lab.drops(WAN, DropReason::SpoofedAddress)), (1, 0));
}

#[test]
fn no_station_is_the_router_where_the_gateway_is_and_what_lies_behind_a_link_may_be() {
    let mut lab = Lab::new(true, nat());
    let advertisement = discovery(station(1), "fe80::11", "ff02::1", 134, "::");
    assert_eq!(lab.send(A, &advertisement), []);
    assert_eq!(lab.drops(A, DropReason::RogueRouter), 1);
    lab.datapath.set_port(A, &PortSettings { owner: Some(station(7)), ..PortSettings::on(BridgeId(0)) });
    assert_eq!(lab.send(A, &advertisement).len(), 1);
    let v4_only = GatewaySettings { addresses: nets(&["10.0.0.1/24"]), ..inside(0, true) };
    lab.datapath.set_gateway(BridgeId(0), Some(v4_only));
    assert_eq!(lab.send(B, &advertisement).len(), 1, "the gateway routes no IPv6");
}

#[test]
fn an_address_that_the_configuration_gives_to_a_port_is_no_other_ports() {
    let mut lab = Lab::new(true, nat());
    let addresses = vec!["10.0.0.12".parse().unwrap(), "fd00::12".parse().unwrap()];
    lab.datapath.set_port(B, &PortSettings { addresses, ..PortSettings::on(BridgeId(0)) });
    lab.introduce();
    let stolen = [
        arp(ArpOperation::REQUEST, station(1), Mac::BROADCAST, [10, 0, 0, 12], [10, 0, 0, 1]),
        arp(ArpOperation::REPLY, station(1), gateway(0), [10, 0, 0, 12], [10, 0, 0, 1]),
        discovery(station(1), "fd00::12", "ff02::1", 135, "fd00::1"),
        discovery(station(1), "fe80::11", "ff02::1", 136, "fd00::12"),
    ];
    for frame in &stolen {
        assert_eq!(lab.send(A, frame), []);
    }
    assert_eq!(lab.drops(A, DropReason::SpoofedAddress), 4);
    let rows = lab.datapath.neighbors(lab.now, BridgeId(0));
    let row = rows.iter().find(|row| row.address == IpAddr::from([10, 0, 0, 12])).unwrap();
    assert_eq!(row.mac, Some(station(2)), "the gateway sends it where it was");
    // Its own port may have another device, and two ports may have one address.
    assert!(!lab.send(B, &arp(ArpOperation::REQUEST, station(6), Mac::BROADCAST, [10, 0, 0, 12], [10, 0, 0, 1])).is_empty());
    let addresses = vec!["10.0.0.12".parse().unwrap()];
    lab.datapath.set_port(A, &PortSettings { addresses, ..PortSettings::on(BridgeId(0)) });
    assert!(!lab.send(A, &stolen[0]).is_empty());
    lab.datapath.remove_port(B);
    lab.datapath.set_port(A, &PortSettings::on(BridgeId(0)));
    assert!(!lab.send(A, &stolen[0]).is_empty(), "nobody's now");
}

#[test]
fn one_address_in_two_vlans_is_two() {
    let mut lab = Lab::new(true, nat());
    for (port, number) in [(A, 10), (B, 20)] {
        let vlans = VlanMode::Access(VlanId::try_from(number).unwrap());
        let addresses = vec!["10.0.0.12".parse().unwrap()];
        lab.datapath.set_port(port, &PortSettings { vlans, addresses, ..PortSettings::on(BridgeId(0)) });
    }
    let claim = arp(ArpOperation::REQUEST, station(1), Mac::BROADCAST, [10, 0, 0, 12], [10, 0, 0, 9]);
    lab.send(A, &claim);
    lab.send(B, &claim);
    assert_eq!((lab.drops(A, DropReason::SpoofedAddress), lab.drops(B, DropReason::SpoofedAddress)), (0, 0));
}

#[test]
fn only_the_gateway_speaks_to_dhcp_clients_where_it_gives_out_addresses() {
    let mut lab = Lab::new(false, nat());
    let side = Side::Inside { uplink: Some(UPLINK), isolated: false, dhcp: true };
    lab.datapath.set_gateway(BridgeId(0), Some(GatewaySettings { side, ..inside(0, false) }));
    lab.introduce();
    let offer = |to| udp((station(1), [10, 0, 0, 11], 67), to, 64, &[2; 240]);
    let all = (Mac::BROADCAST, [255; 4], 68);
    for frame in [offer(all), offer((station(2), [10, 0, 0, 12], 68)), offer((gateway(0), [10, 0, 0, 12], 68))] {
        let before = lab.drops(A, DropReason::RogueDhcp);
        assert_eq!(lab.send(A, &frame), []);
        assert_eq!(lab.drops(A, DropReason::RogueDhcp), before + 1);
    }
    let mut six = Vec::new();
    let ip = PacketBuilder::ethernet2(station(1).0, station(2).0).ipv6([0xfe; 16], [0xfd; 16], 64);
    ip.udp(547, 546).write(&mut six, &[2; 40]).unwrap();
    assert_eq!(lab.send(A, &six), []);
    // A relay asks a server, and a server answers a relay, or a client of another bridge.
    assert!(!lab.send(A, &udp((station(1), [10, 0, 0, 11], 67), (station(2), [10, 0, 0, 12], 67), 64, &[1; 240])).is_empty());
    assert!(!lab.send(A, &offer((gateway(0), [10, 0, 1, 13], 68))).is_empty());
    assert!(
        !lab.send(C, &udp((station(3), [10, 0, 1, 13], 67), all, 64, &[2; 240])).is_empty()
            || lab.drops(C, DropReason::RogueDhcp) == 0
    );
    // A frame after another with the same header is looked at as well.
    let plain = udp((station(1), [10, 0, 0, 11], 5000), (station(2), [10, 0, 0, 12], 5001), 64, &[0; 240]);
    lab.batch.set_ingress(A.0);
    [&plain, &offer((station(2), [10, 0, 0, 12], 68)), &plain]
        .iter()
        .for_each(|frame| lab.batch.push(frame, Offload::default()));
    lab.datapath.forward(lab.now, &mut lab.batch, &mut lab.outputs);
    assert_eq!(lab.collect().len(), 2);
}

#[test]
fn the_dhcp_server_is_told_which_station_says_that_it_has_which_address() {
    let mut lab = Lab::new(true, nat());
    let side = Side::Inside { uplink: Some(UPLINK), isolated: true, dhcp: true };
    lab.datapath.set_gateway(BridgeId(0), Some(GatewaySettings { side, ..inside(0, true) }));
    for (operation, to, sender, target, expected) in [
        (ArpOperation::REQUEST, Mac::BROADCAST, [10, 0, 0, 11], [10, 0, 0, 12], 1),
        (ArpOperation::REPLY, gateway(0), [10, 0, 0, 11], [0; 4], 1),
        (ArpOperation::REPLY, gateway(0), [10, 0, 0, 11], [10, 0, 0, 1], 0),
        (ArpOperation::REQUEST, Mac::BROADCAST, [0; 4], [10, 0, 0, 12], 0),
        (ArpOperation::REQUEST, Mac::BROADCAST, [172, 16, 0, 9], [10, 0, 0, 1], 0),
    ] {
        lab.send(A, &arp(operation, station(1), to, sender, target));
        assert_eq!(lab.datapath.take_punts().count(), expected, "{sender:?} {target:?}");
    }
}
