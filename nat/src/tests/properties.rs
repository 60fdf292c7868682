//! What holds for any packet and any sequence of events.

use std::time::Duration;

use packet::Offload;
use proptest::prelude::*;

use super::lab::*;
use crate::{Filtering, Mapping, Protocol, Settings};

/// The addresses of a container and a remote, and the external one.
fn world(six: bool) -> [&'static str; 3] {
    if six { ["fd00::2", "2001:db8:1::1", EXTERNAL6] } else { ["10.0.0.2", "198.51.100.1", EXTERNAL4] }
}

fn packet(kind: u8, six: bool, port: u16, remote: u16, payload: &[u8]) -> Vec<u8> {
    let [inside, outside, _] = world(six);
    let at = |address: &str, port| std::net::SocketAddr::new(address.parse().unwrap(), port).to_string();
    match kind {
        0 => udp(&at(inside, port), &at(outside, remote), payload),
        1 => tcp_with(&at(inside, port), &at(outside, remote), SYN, payload),
        _ => ping(inside, outside, port, false),
    }
}

/// Events of a random life.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Out {
        kind: u8,
        host: u8,
        port: u8,
        remote: u8,
        flags: u8,
    },
    In {
        kind: u8,
        external: u8,
        remote: u8,
        flags: u8,
    },
    Hairpin {
        host: u8,
        port: u8,
        external: u8,
        flags: u8,
    },
    /// A packet to the external end of some session.
    Answer {
        session: prop::sample::Index,
        flags: u8,
    },
    Wait(u16),
    Forwards(u8),
    Addresses(u8),
    Flush(u8),
}

pub(super) fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0u8..3, 0u8..6, 0u8..6, 0u8..4, 0u8..32).prop_map(|(kind, host, port, remote, flags)| Step::Out { kind, host, port, remote, flags }),
        3 => (0u8..3, 0u8..12, 0u8..4, 0u8..32).prop_map(|(kind, external, remote, flags)| Step::In { kind, external, remote, flags }),
        2 => (0u8..6, 0u8..6, 0u8..12, 0u8..32).prop_map(|(host, port, external, flags)| Step::Hairpin { host, port, external, flags }),
        4 => (any::<prop::sample::Index>(), 0u8..32).prop_map(|(session, flags)| Step::Answer { session, flags }),
        2 => (0u16..9000).prop_map(Step::Wait),
        1 => any::<u8>().prop_map(Step::Forwards),
        1 => (0u8..3).prop_map(Step::Addresses),
        1 => (0u8..6).prop_map(Step::Flush),
    ]
}

pub(super) fn take(lab: &mut Lab, step: &Step) {
    let port = |number: u8| 5000 + u16::from(number);
    match *step {
        Step::Out { kind, host, port: number, remote, flags } => {
            let (from, to) =
                (format!("10.0.0.{host}:{}", port(number)), format!("198.51.100.{}:{}", remote / 2, 80 + remote % 2));
            let frame = match kind {
                0 => udp(&from, &to, b"x"),
                1 => tcp(&from, &to, flags),
                _ => ping(&format!("10.0.0.{host}"), &format!("198.51.100.{remote}"), port(number), flags % 8 == 0),
            };
            let _ = lab.out(&frame);
        }
        Step::In { kind, external, remote, flags } => {
            let (from, to) =
                (format!("198.51.100.{}:{}", remote / 2, 80 + remote % 2), format!("192.0.2.1:{}", port(external)));
            let frame = match kind {
                0 => udp(&from, &to, b"x"),
                1 => tcp(&from, &to, flags),
                _ => ping(&format!("198.51.100.{remote}"), EXTERNAL4, port(external), flags % 8 != 0),
            };
            let _ = lab.inbound(&frame);
        }
        Step::Hairpin { host, port: number, external, flags } => {
            let (from, to) = (format!("10.0.0.{host}:{}", port(number)), format!("192.0.2.1:{}", port(external)));
            let _ = lab.hairpin(&if flags % 2 == 0 { tcp(&from, &to, flags) } else { udp(&from, &to, b"") });
        }
        Step::Answer { session, flags } => {
            let rows = lab.rows();
            if !rows.is_empty() {
                let row = session.get(&rows);
                let frame = match row.transport {
                    crate::Transport::Tcp => tcp(&row.remote.to_string(), &row.external.to_string(), flags),
                    crate::Transport::Udp => udp(&row.remote.to_string(), &row.external.to_string(), b""),
                    crate::Transport::Icmp => ping(&row.remote.ip().to_string(), EXTERNAL4, row.external.port(), true),
                };
                let answer = lab.inbound(&frame);
                if row.external.ip().to_string() == EXTERNAL4 && row.transport != crate::Transport::Icmp {
                    assert_eq!(destination(&answer.unwrap().unwrap()), row.inside);
                }
            }
        }
        Step::Wait(seconds) => {
            lab.now += Duration::from_secs(seconds.into());
            lab.nat.expire(lab.now, 5);
        }
        Step::Forwards(bits) => {
            let rules = [
                (Protocol::Tcp, "5000-5003", "10.0.0.1:5000"),
                (Protocol::Udp, "5002", "10.0.0.2:5001"),
                (Protocol::Tcp, "5003-5008", "10.0.0.3:5003"),
                (Protocol::Udp, "5001-5002", "10.0.0.2:5000"),
            ];
            let chosen: Vec<_> =
                rules.into_iter().enumerate().filter(|(place, _)| bits >> place & 1 == 1).map(|(_, rule)| rule).collect();
            lab.forward(&chosen);
        }
        Step::Addresses(choice) => {
            let addresses = [vec![EXTERNAL4], vec!["192.0.2.2"], vec![]];
            let now: Vec<_> = addresses[usize::from(choice)].iter().map(|address| address.parse().unwrap()).collect();
            lab.nat.set_addresses(&now);
        }
        Step::Flush(host) => {
            let now = lab.now;
            lab.nat.flush(now, |row| row.inside.ip().to_string() == format!("10.0.0.{host}"));
        }
    }
}

/// Settings of all kinds, with few sessions and ports.
pub(super) fn settings() -> impl Strategy<Value = Settings> {
    (any::<bool>(), 0usize..3, 2u32..40, 1u32..5).prop_map(|(dependent, filtering, sessions, sources)| Settings {
        mapping: if dependent { Mapping::EndpointDependent } else { Mapping::EndpointIndependent },
        filtering: [Filtering::EndpointIndependent, Filtering::AddressDependent, Filtering::AddressAndPortDependent][filtering],
        sessions,
        sources,
        sessions_per_source: Some(sessions / 2),
        ports: "4998-5012".parse().unwrap(),
        ..Settings::default()
    })
}

proptest! {
    #[test]
    fn a_reply_restores_what_was_sent(
        kind in 0u8..3, six: bool, port: u16, remote: u16, payload in prop::collection::vec(any::<u8>(), 0..60),
        partial: bool, crowded: bool,
    ) {
        let mut lab = Lab::new();
        let port = port.max(1);
        if crowded {
            let other = if six { "fd00::9" } else { "10.0.0.9" };
            let at = std::net::SocketAddr::new(other.parse().unwrap(), port).to_string();
            let to = std::net::SocketAddr::new(world(six)[1].parse().unwrap(), remote).to_string();
            for frame in [udp(&at, &to, b""), tcp(&at, &to, SYN), ping(other, world(six)[1], port, false)] {
                lab.out(&frame).unwrap();
            }
        }
        let mut original = packet(kind, six, port, remote, &payload);
        let offload = if partial && kind < 2 { make_partial(&mut original) } else { Offload::default() };
        let mut sent = original.clone();
        let rewrite = lab.nat.outbound(lab.now, &parse(&sent), &sent).unwrap();
        rewrite.apply(&mut sent, NETWORK, &offload);
        prop_assert_eq!(parse(&sent).source.to_string(), world(six)[2]);
        let mut expected = sent.clone();
        if offload == Offload::default() {
            prop_assert!(is_intact(&sent), "the corrected checksum is the computed one");
        } else {
            make_partial(&mut expected);
            prop_assert_eq!(&sent, &expected, "a partial checksum stays one");
        }
        let mut back = reply(&sent);
        let rewrite = lab.nat.inbound(lab.now, &parse(&back), &back).unwrap().unwrap();
        rewrite.apply(&mut back, NETWORK, &offload);
        prop_assert_eq!(reply(&back), original);
        lab.nat.table.check();
    }

    #[test]
    fn a_udp_packet_without_checksum_stays_so(port in 1u16.., payload in prop::collection::vec(any::<u8>(), 0..20)) {
        let mut lab = Lab::new();
        let mut frame = udp(&format!("10.0.0.2:{port}"), "198.51.100.1:80", &payload);
        frame[40..42].fill(0);
        let sent = lab.out(&frame).unwrap();
        prop_assert_eq!(&sent[40..42], [0, 0]);
    }

    #[test]
    fn a_udp_checksum_never_becomes_none(payload: [u8; 2]) {
        // The payload that makes the translated packet's sum 0xffff is among these, and its checksum is written as 0xffff.
        let mut lab = Lab::new();
        let first = lab.out(&udp("10.0.0.2:5000", "198.51.100.1:80", &[0, 0])).unwrap();
        let checksum = [first[40], first[41]];
        for payload in [payload, checksum] {
            let sent = lab.out(&udp("10.0.0.2:5000", "198.51.100.1:80", &payload)).unwrap();
            prop_assert!(sent[40..42] != [0, 0] && is_intact(&sent));
        }
    }

    #[test]
    fn any_life_leaves_the_table_consistent(
        steps in prop::collection::vec(step(), 1..120), settings in settings(),
    ) {
        let mut lab = Lab::with(settings);
        for step in &steps {
            take(&mut lab, step);
            lab.nat.table.check();
        }
        lab.wait(8000);
        let counters = lab.nat.counters();
        prop_assert_eq!((counters.sessions, counters.ports_in_use), (0, 0), "nothing is left behind");
    }

    #[test]
    fn any_bytes_are_survived(mut bytes in prop::collection::vec(any::<u8>(), 0..140), kind in 0usize..8, protocol in 0usize..5) {
        let mut lab = Lab::new();
        lab.forward(&[(Protocol::Udp, "1-65535", "10.0.0.1:1"), (Protocol::Udp, "1-65535", "[fd00::1]:1")]);
        let six = kind % 2 == 1;
        let hints: &[u8] = if six { &[0x86, 0xdd, 0x60] } else { &[8, 0, 0x45] };
        for (place, byte) in bytes.iter_mut().skip(12).zip(hints) {
            *place = *byte;
        }
        if bytes.len() < 54 {
            return Ok(());
        }
        let length = u16::try_from(bytes.len() - 14).unwrap();
        bytes[if six { 20 } else { 23 }] = [1, 6, 17, 58, 44][protocol];
        if six {
            bytes[18..20].copy_from_slice(&(length - 40).to_be_bytes());
            bytes[38..54].copy_from_slice(&"2001:db8::1".parse::<std::net::Ipv6Addr>().unwrap().octets());
        } else {
            bytes[16..18].copy_from_slice(&length.to_be_bytes());
            bytes[30..34].copy_from_slice(&[192, 0, 2, 1]);
            complete_header(&mut bytes);
        }
        let Some(packet) = packet::IpPacket::parse(&bytes, &packet::Ethernet::parse(&bytes).unwrap()) else { return Ok(()) };
        let results = [
            lab.nat.outbound(lab.now, &packet, &bytes).map(Some),
            lab.nat.inbound(lab.now, &packet, &bytes),
            lab.nat.hairpin(lab.now, &packet, &bytes),
        ];
        for rewrite in results.into_iter().flatten().flatten() {
            for length in [bytes.len(), 30, 14, 0] {
                let mut copy = bytes[..length].to_vec();
                rewrite.apply(&mut copy, NETWORK, &Offload::default());
            }
        }
        lab.nat.table.check();
    }
}
