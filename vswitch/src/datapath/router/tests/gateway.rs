//! What is for the gateway itself.

use super::*;
use crate::services::Tickets;

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
    // It is no affair of a bridge's own, and what the uplink says itself comes back now and then.
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
        let mut reassembly = crate::fragments::Reassembly::new();
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
