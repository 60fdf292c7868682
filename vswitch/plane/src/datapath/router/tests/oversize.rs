//! Super-frames, and packets to neighbours not known yet, that are too long for the way out and may be cut.

use super::*;
use crate::fragments::Reassembly;

/// A packet of a station to the outside without "don't fragment", with a checksum left open, and its metadata.
fn super_frame(kind: GsoKind, size: u16, payload: &[u8]) -> (Vec<u8>, Offload) {
    let mut frame = Vec::new();
    let mut header = etherparse::Ipv4Header::new(0, 64, etherparse::IpNumber::TCP, [10, 0, 0, 11], HOST).unwrap();
    header.dont_fragment = false;
    let builder =
        PacketBuilder::ethernet2(station(1).0, gateway(0).0).ip(etherparse::IpHeaders::Ipv4(header, Default::default()));
    let (protocol, offset) = match kind {
        GsoKind::Udp => {
            builder.udp(5000, 53).write(&mut frame, payload).unwrap();
            (17, 6)
        }
        _ => {
            builder.tcp(5000, 80, 1, 100).write(&mut frame, payload).unwrap();
            (6, 16)
        }
    };
    let length = u16::try_from(frame.len() - 34).unwrap();
    let sum = packet::checksum::Sum::new().plus(&frame[26..34]).plus_number(protocol).plus_number(length).folded();
    let field = 34 + usize::from(offset);
    frame[field..field + 2].copy_from_slice(&sum.to_be_bytes());
    let gso = NonZeroU16::new(size).map(|size| Gso { kind, size, ecn: false });
    (frame, Offload { checksum: Checksum::Partial { start: 34, offset }, gso })
}

fn numbers(length: usize) -> Vec<u8> {
    (0..length).map(|number| u8::try_from(number % 251).unwrap()).collect()
}

/// The packets that fragments make up.
fn whole(left: &[Left], now: Instant) -> Vec<Vec<u8>> {
    let mut reassembly = Reassembly::default();
    let frames = left.iter().filter_map(|Left(port, frame)| {
        assert!(*port == WAN && frame.len() <= 14 + 1400, "{}", frame.len());
        let ip = IpPacket::parse(frame, &Ethernet::parse(frame).unwrap()).unwrap();
        reassembly.add((), frame, &ip, ip.fragment.unwrap(), now).whole.map(|(frame, _)| frame)
    });
    frames.collect()
}

#[test]
fn tcp_is_cut_into_segments_that_fit() {
    let mut lab = Lab::new(true, nat());
    lab.introduce();
    let payload = numbers(30_000);
    let (frame, offload) = super_frame(GsoKind::Tcp4, 1361, &payload);
    let mut said = Vec::new();
    for Left(port, frame) in lab.wire(A, &frame, offload) {
        assert!(port == WAN && frame.len() <= 14 + 1400 && is_sound(&frame));
        said.extend_from_slice(&frame[54..]);
    }
    assert_eq!(said, payload);
    assert_eq!(lab.drops(A, DropReason::ExceedsMtu), 0);
}

#[test]
fn datagrams_of_a_super_frame_go_in_fragments_each() {
    let mut lab = Lab::new(true, nat());
    lab.introduce();
    let payload = numbers(3 * 1400 + 20);
    let (frame, offload) = super_frame(GsoKind::Udp, 1400, &payload);
    let left = lab.wire(A, &frame, offload);
    assert_eq!(left.len(), 3 * 2 + 1, "the last one is short");
    let datagrams = whole(&left[..6], lab.now);
    assert_eq!(datagrams.len(), 3);
    for (frame, part) in datagrams.iter().zip(payload.chunks(1400)) {
        assert!(is_sound(frame) && flow(frame).0 == [192, 0, 2, 10] && frame[42..] == *part);
    }
    assert!(is_sound(&left[6].1) && left[6].1[42..] == payload[4200..]);
}

#[test]
fn all_fragments_wait_for_the_next_hop() {
    let mut lab = Lab::new(true, nat());
    let hello = arp(ArpOperation::REQUEST, station(1), Mac::BROADCAST, [10, 0, 0, 11], [10, 0, 0, 1]);
    lab.send(A, &hello);
    let payload = numbers(1472);
    let (frame, offload) = super_frame(GsoKind::Udp, 1, &payload);
    let left = lab.wire(A, &frame, Offload { gso: None, ..offload });
    assert!(left.len() == 1 && left[0].1[12..14] == [8, 6], "it is asked for: {left:?}");
    let left =
        lab.wire(WAN, &arp(ArpOperation::REPLY, station(4), gateway(9), [192, 0, 2, 1], [192, 0, 2, 10]), Offload::default());
    let frames = whole(&left, lab.now);
    assert!(left.len() == 2 && is_sound(&frames[0]) && frames[0][42..] == payload[..], "{left:?}");
}
