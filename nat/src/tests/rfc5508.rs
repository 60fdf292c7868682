//! RFC 5508: NAT behaviour for ICMP; and the same for ICMPv6.

use packet::checksum::Sum;

use super::lab::*;
use crate::{Denied, Protocol, Settings, State};

/// Of each IP version: a container, its router, a remote, a router outside, the external address, an error's type.
const WORLDS: [(&str, &str, &str, &str, &str, u8); 2] = [
    ("10.0.0.2", "10.0.0.254", "198.51.100.1", "203.0.113.5", EXTERNAL4, 11),
    ("fd00::2", "fd00::fe", "2001:db8:1::1", "2001:db8:5::5", EXTERNAL6, 3),
];

fn at(address: &str, port: u16) -> String {
    std::net::SocketAddr::new(address.parse().unwrap(), port).to_string()
}

#[test]
fn req1_queries_get_out_and_replies_in() {
    for (inside, _, remote, _, external, _) in WORLDS {
        let mut lab = Lab::new();
        let other = inside.replace('2', "9");
        lab.out(&ping(&other, remote, 77, false)).unwrap();
        let out = lab.out(&ping(inside, remote, 77, false)).unwrap();
        assert_ne!(id(&out), 77);
        assert!(is_intact(&out));
        let back = lab.inbound(&ping(remote, external, id(&out), true)).unwrap().unwrap();
        assert_eq!((id(&back), parse(&back).destination.to_string()), (77, inside.to_string()));
        assert!(is_intact(&back));
        let elsewhere = if inside.contains(':') { "2001:db8:1::2" } else { "198.51.100.2" };
        let elsewhere = lab.out(&ping(inside, elsewhere, 77, false)).unwrap();
        assert_eq!(id(&elsewhere), id(&out), "the same identifier for every remote (REQ-1a)");
    }
}

#[test]
fn req1_a_reply_that_nobody_asked_for_is_filtered() {
    let mut lab = Lab::new();
    lab.out(&ping("10.0.0.2", "198.51.100.1", 77, false)).unwrap();
    assert_eq!(lab.inbound(&ping("198.51.100.2", EXTERNAL4, 77, true)), Err(Denied::Filtered));
    assert_eq!(lab.inbound(&ping("198.51.100.2", EXTERNAL4, 78, true)), Ok(None), "perhaps the switch asked");
}

#[test]
fn req1_identifier_zero_is_no_other() {
    let mut lab = Lab::new();
    lab.out(&ping("10.0.0.2", "198.51.100.1", 0, false)).unwrap();
    assert_eq!(lab.inbound(&ping("198.51.100.1", EXTERNAL4, 0, false)), Ok(None), "a request is for the switch");
    assert!(lab.inbound(&ping("198.51.100.1", EXTERNAL4, 0, true)).unwrap().is_some());
}

#[test]
fn req2_a_query_lasts_sixty_seconds() {
    let mut lab = Lab::new();
    lab.out(&ping("10.0.0.2", "198.51.100.1", 77, false)).unwrap();
    lab.wait(60);
    assert_eq!(lab.only(), (State::Unreplied, 1));
    lab.wait(1);
    assert!(lab.rows().is_empty());
    assert_eq!(lab.nat.counters().ports_in_use, 0);
}

#[test]
fn req3_an_error_with_a_wrong_checksum_is_dropped() {
    for (inside, router, remote, hop, external, kind) in WORLDS {
        let mut lab = Lab::new();
        let sent = lab.out(&udp(&at(inside, 5000), &at(remote, 80), b"payload")).unwrap();
        let mut wrong = error(hop, external, kind, &sent, 60);
        *wrong.last_mut().unwrap() ^= 1;
        assert_eq!(lab.inbound(&wrong), Err(Denied::StrayError));
        let got = lab.inbound(&udp(&at(remote, 80), &at(external, 5000), b"payload")).unwrap().unwrap();
        let mut wrong = error(router, remote, kind, &got, 60);
        *wrong.last_mut().unwrap() ^= 1;
        assert_eq!(lab.out(&wrong), Err(Denied::StrayError));
    }
}

#[test]
fn req3a_a_wrong_header_checksum_inside_is_dropped() {
    let mut lab = Lab::new();
    let mut sent = lab.out(&udp("10.0.0.2:5000", "198.51.100.1:80", b"payload")).unwrap();
    sent[24] ^= 1;
    assert_eq!(lab.inbound(&error("203.0.113.5", EXTERNAL4, 11, &sent, 28)), Err(Denied::StrayError));
}

#[test]
fn req3b_options_and_extensions_inside_are_passed_over() {
    let mut lab = Lab::new();
    let mut sent = lab.out(&udp("10.0.0.2:5000", "198.51.100.1:80", b"payload")).unwrap();
    sent.splice(34..34, [1, 1, 1, 0]);
    sent[14] = 0x46;
    sent[24..26].fill(0);
    let sum = Sum::new().plus(&sent[14..38]).checksum();
    sent[24..26].copy_from_slice(&sum.to_be_bytes());
    let frame = lab.inbound(&error("203.0.113.5", EXTERNAL4, 11, &sent, 32)).unwrap().unwrap();
    assert_eq!(quoted(&frame)[24..26], 5000_u16.to_be_bytes());
    assert!(is_intact(&frame));
    let mut sent = lab.out(&udp("[fd00::2]:5000", "[2001:db8:1::1]:80", b"payload")).unwrap();
    (sent[19], sent[20]) = (sent[19] + 8, 60);
    sent.splice(54..54, [17, 0, 1, 4, 0, 0, 0, 0]);
    let frame = lab.inbound(&error("2001:db8:5::5", EXTERNAL6, 3, &sent, 56)).unwrap().unwrap();
    assert!(is_intact(&frame));
}

#[test]
fn req3c_a_wrong_transport_checksum_inside_is_no_matter() {
    let mut lab = Lab::new();
    let mut sent = lab.out(&udp("10.0.0.2:5000", "198.51.100.1:80", b"payload")).unwrap();
    sent[40] ^= 0x55;
    assert!(lab.inbound(&error("203.0.113.5", EXTERNAL4, 11, &sent, 28)).unwrap().is_some());
}

/// What a container sent, as an error about it quotes it inside: byte by byte.
#[test]
fn req4_an_error_from_outside_quotes_what_the_container_sent() {
    for (inside, _, remote, hop, external, kind) in WORLDS {
        for source in [hop, remote] {
            let mut lab = Lab::new();
            let other = inside.replace('2', "9");
            for frame in [udp(&at(&other, 5000), &at(remote, 80), b""), ping(&other, remote, 5000, false)] {
                lab.out(&frame).unwrap();
            }
            let packets = [
                udp(&at(inside, 5000), &at(remote, 80), b"some payload"),
                tcp_with(&at(inside, 5000), &at(remote, 80), SYN, b"some payload"),
                ping(inside, remote, 5000, false),
            ];
            for (packet, quoted_bytes) in packets.iter().flat_map(|packet| [(packet, 28), (packet, 48), (packet, 200)]) {
                let quoted_bytes = quoted_bytes + if inside.contains(':') { 20 } else { 0 };
                let sent = lab.out(packet).unwrap();
                let frame = lab.inbound(&error(source, external, kind, &sent, quoted_bytes)).unwrap().unwrap();
                let expected = error(source, inside, kind, packet, quoted_bytes);
                assert_eq!(frame, expected, "{source} about {packet:?}");
            }
        }
    }
}

#[test]
fn req4_an_error_about_nothing_gets_nowhere() {
    let mut lab = Lab::new();
    let never = udp("192.0.2.1:5000", "198.51.100.1:80", b"");
    assert_eq!(lab.inbound(&error("203.0.113.5", EXTERNAL4, 11, &never, 28)), Ok(None), "perhaps the switch sent it");
    lab.out(&udp("10.0.0.2:5000", "198.51.100.1:80", b"")).unwrap();
    let other = udp("192.0.2.1:5000", "198.51.100.1:81", b"");
    assert_eq!(lab.inbound(&error("203.0.113.5", EXTERNAL4, 11, &other, 28)), Ok(None));
    let not_ours = udp("192.0.2.9:5000", "198.51.100.1:80", b"");
    assert_eq!(lab.inbound(&error("203.0.113.5", EXTERNAL4, 11, &not_ours, 28)), Ok(None));
}

#[test]
fn req5_an_error_from_inside_quotes_what_the_remote_sent() {
    for (inside, router, remote, _, external, kind) in WORLDS {
        for source in [inside, router] {
            let mut lab = Lab::new();
            lab.forward(&[(Protocol::Tcp, "8080", &at(inside, 80)), (Protocol::Udp, "8080", &at(inside, 80))]);
            let echo = lab.out(&ping(inside, remote, 9, false)).unwrap();
            let packets = [
                udp(&at(remote, 4000), &at(external, 8080), b"some payload"),
                tcp_with(&at(remote, 4000), &at(external, 8080), SYN, b"some payload"),
                ping(remote, external, id(&echo), true),
            ];
            for (packet, quoted_bytes) in packets.iter().flat_map(|packet| [(packet, 28), (packet, 48), (packet, 200)]) {
                let quoted_bytes = quoted_bytes + if inside.contains(':') { 20 } else { 0 };
                let got = lab.inbound(packet).unwrap().unwrap();
                let frame = lab.out(&error(source, remote, kind, &got, quoted_bytes)).unwrap();
                assert_eq!(frame, error(external, remote, kind, packet, quoted_bytes), "{source} about {packet:?}");
            }
        }
    }
}

#[test]
fn req5_an_error_from_inside_about_nothing_is_dropped() {
    let mut lab = Lab::new();
    let never = udp("198.51.100.1:80", "10.0.0.2:5000", b"");
    assert_eq!(lab.out(&error("10.0.0.2", "198.51.100.1", 3, &never, 28)), Err(Denied::StrayError));
    lab.out(&udp("10.0.0.2:5000", "198.51.100.1:80", b"")).unwrap();
    assert!(lab.out(&error("10.0.0.2", "198.51.100.1", 3, &never, 28)).is_ok());
    let elsewhere = error("10.0.0.2", "198.51.100.9", 3, &never, 28);
    assert_eq!(lab.out(&elsewhere), Err(Denied::StrayError), "not to whom it concerns");
}

#[test]
fn req6_an_error_neither_keeps_nor_ends_a_query() {
    let mut lab = Lab::new();
    let sent = lab.out(&ping("10.0.0.2", "198.51.100.1", 77, false)).unwrap();
    lab.wait(30);
    lab.inbound(&error("203.0.113.5", EXTERNAL4, 11, &sent, 28)).unwrap().unwrap();
    assert_eq!(lab.only(), (State::Unreplied, 31));
    let row = lab.rows()[0];
    assert_eq!((row.outbound.packets, row.inbound.packets), (1, 0));
}

#[test]
fn req7_errors_about_hairpinned_packets_come_back() {
    for (inside, _, _, _, external, kind) in WORLDS {
        let mut lab = Lab::new();
        let server = inside.replace('2', "3");
        lab.forward(&[(Protocol::Udp, "8080", &at(&server, 80))]);
        lab.out(&udp(&at(&inside.replace('2', "9"), 5000), &at(external, 1), b"")).unwrap();
        let packet = udp(&at(inside, 5000), &at(external, 8080), b"some payload");
        let got = lab.hairpin(&packet).unwrap().unwrap();
        let frame = lab.hairpin(&error(&server, external, kind, &got, 60)).unwrap().unwrap();
        assert_eq!(frame, error(external, inside, kind, &packet, 60));
    }
}

#[test]
fn req8_a_shortage_can_be_told_to_the_sender() {
    let ports = "2000-2001".parse().unwrap();
    let mut lab = Lab::with(Settings { ports, ..Settings::default() });
    lab.connect("10.0.0.2:5000", "198.51.100.1:80");
    lab.connect("10.0.0.2:5001", "198.51.100.1:80");
    let denied = lab.out(&tcp("10.0.0.2:5002", "198.51.100.1:80", SYN)).unwrap_err();
    assert_eq!(denied, Denied::NoPort);
    assert!(denied.is_shortage());
    assert_eq!(lab.nat.counters().denied(Denied::NoPort), 1);
}

#[test]
fn req10_what_is_not_passed_on() {
    let mut lab = Lab::new();
    let sent = lab.out(&udp("10.0.0.2:5000", "198.51.100.1:80", b"payload")).unwrap();
    for redirect_or_quench in [4, 5] {
        assert_eq!(lab.inbound(&error("203.0.113.5", EXTERNAL4, redirect_or_quench, &sent, 28)), Ok(None));
        assert_eq!(lab.out(&error("10.0.0.2", "198.51.100.1", redirect_or_quench, &sent, 28)), Err(Denied::UntrackedProtocol));
    }
}
