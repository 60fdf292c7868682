//! Packets with work left to the kernel.

use packet::{Checksum, Ethernet, Gso, GsoKind, IpPacket, Offload};

use super::lab::*;

/// Translates out with some offload metadata.
fn out(lab: &mut Lab, frame: &[u8], offload: Offload) -> Vec<u8> {
    let packet = IpPacket::parse(frame, &Ethernet::parse(frame).unwrap()).unwrap();
    let rewrite = lab.nat.outbound(lab.now, &packet, frame).unwrap();
    let mut frame = frame.to_vec();
    rewrite.apply(&mut frame, packet.network, &offload);
    frame
}

#[test]
fn a_super_frame_is_translated_whole() {
    let mut lab = Lab::new();
    let mut frame = tcp_with("10.0.0.2:5000", "198.51.100.1:80", ACK, &[7; 60_000]);
    let gso = Gso { kind: GsoKind::Tcp4, size: 1448.try_into().unwrap(), ecn: false };
    let offload = Offload { gso: Some(gso), ..make_partial(&mut frame) };
    let sent = out(&mut lab, &frame, offload);
    let mut expected = sent.clone();
    make_partial(&mut expected);
    assert_eq!(sent, expected, "the partial checksum is that of the new addresses");
    assert_eq!(lab.rows()[0].outbound.bytes, 60_040);
}

#[test]
fn a_super_frame_may_be_too_long_to_say() {
    let mut lab = Lab::new();
    let mut frame = tcp_with("[fd00::2]:5000", "[2001:db8:1::1]:80", ACK, &[7; 60_000]);
    let offload = make_partial(&mut frame);
    frame.resize(100_000, 7);
    frame[18..20].fill(0);
    let sent = out(&mut lab, &frame, offload);
    assert_eq!(parse(&sent).source.to_string(), EXTERNAL6);
    assert_eq!(lab.rows()[0].outbound.bytes, 100_000 - 14);
    assert_eq!(sent[74..], frame[74..], "the payload is as it was");
}

#[test]
fn a_partial_checksum_further_in_is_not_ours() {
    let mut lab = Lab::new();
    let frame = udp("10.0.0.2:5000", "198.51.100.1:4789", &[0; 100]);
    let sent = out(&mut lab, &frame, Offload { checksum: Checksum::Partial { start: 90, offset: 16 }, gso: None });
    assert!(is_intact(&sent), "a tunnel's own checksum is whole");
}

#[test]
fn around_a_super_frame_a_tunnel_s_own_checksum_is_partial_too() {
    let gso = Some(Gso { kind: GsoKind::Tcp4, size: 1398.try_into().unwrap(), ecn: false });
    let inner = Offload { checksum: Checksum::Partial { start: 90, offset: 16 }, gso };
    for (from, to) in [("10.0.0.2:5000", "198.51.100.1:4789"), ("[fd00::2]:5000", "[2001:db8:1::1]:4789")] {
        let mut lab = Lab::new();
        let mut frame = udp(from, to, &[7; 5000]);
        make_partial(&mut frame);
        let sent = out(&mut lab, &frame, inner);
        let mut expected = sent.clone();
        make_partial(&mut expected);
        assert_eq!(sent, expected, "it is the sum of the new addresses");
    }
    let mut lab = Lab::new();
    let mut frame = udp("10.0.0.2:5000", "198.51.100.1:4789", &[7; 5000]);
    frame[40..42].fill(0);
    assert_eq!(out(&mut lab, &frame, inner)[40..42], [0, 0], "none stays none");
}

#[test]
fn a_wrong_checksum_stays_wrong() {
    let mut lab = Lab::new();
    let mut frame = udp("10.0.0.2:5000", "198.51.100.1:80", b"payload");
    *frame.last_mut().unwrap() ^= 1;
    assert!(!is_intact(&out(&mut lab, &frame, Offload::default())), "a broken packet is not made good");
}

#[test]
fn a_tagged_packet_is_translated_behind_its_tag() {
    let mut lab = Lab::new();
    let mut frame = udp("10.0.0.2:5000", "198.51.100.1:80", b"payload");
    let expected = lab.out(&frame).unwrap();
    frame.splice(12..12, [0x81, 0, 0, 10]);
    let mut sent = out(&mut lab, &frame, Offload::default());
    sent.splice(12..16, []);
    assert_eq!(sent, expected);
}
