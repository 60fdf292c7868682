//! RFC 4787: NAT behaviour for UDP.

use super::lab::*;
use crate::{Denied, Filtering, Mapping, Protocol, Settings, State};

const EXTERNAL: std::net::IpAddr = std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

#[test]
fn req1_a_port_is_mapped_alike_for_every_remote() {
    for (inside, remotes) in [
        ("10.0.0.2:5000", ["198.51.100.1:80", "198.51.100.1:81", "203.0.113.9:80"]),
        ("[fd00::2]:5000", ["[2001:db8:1::1]:80", "[2001:db8:1::1]:81", "[2001:db8:2::1]:80"]),
    ] {
        let mut lab = Lab::new();
        let other = if inside.starts_with('[') { "[fd00::9]:5000" } else { "10.0.0.9:5000" };
        assert_eq!(lab.udp_port(other, remotes[0]), 5000);
        let ports = remotes.map(|remote| lab.udp_port(inside, remote));
        assert!(ports[0] != 5000 && ports.iter().all(|port| *port == ports[0]), "{ports:?}");
        lab.nat.table.check();
    }
}

#[test]
fn req1_another_port_for_each_remote_is_an_option() {
    let mut lab = Lab::with(Settings { mapping: Mapping::EndpointDependent, ..Settings::default() });
    assert_eq!(lab.udp_port("10.0.0.9:5000", "198.51.100.1:80"), 5000);
    assert_ne!(lab.udp_port("10.0.0.2:5000", "198.51.100.1:80"), 5000);
    assert_eq!(lab.udp_port("10.0.0.2:5000", "198.51.100.1:81"), 5000, "shared, for the remote is another");
    assert_eq!(lab.udp_in("198.51.100.1:81", "192.0.2.1:5000"), Ok(Some("10.0.0.2:5000".parse().unwrap())));
    assert_eq!(lab.udp_in("198.51.100.1:82", "192.0.2.1:5000"), Ok(None));
}

#[test]
fn a_port_s_remotes_have_a_port_each_as_long_as_there_are_enough() {
    let settings = Settings { mapping: Mapping::EndpointDependent, sessions_per_source: Some(5000), ..Settings::default() };
    for (inside, remotes) in [("10.0.0.2:5000", "198.51.100.1"), ("[fd00::2]:5000", "[2001:db8:1::1]")] {
        let mut lab = Lab::with(settings.clone());
        let [mut udp_ports, mut tcp_ports] = [(); 2].map(|()| std::collections::HashSet::new());
        for port in 1..2000 {
            let remote = format!("{remotes}:{port}");
            assert!(udp_ports.insert(lab.udp_port(inside, &remote)), "{remote}");
            assert!(tcp_ports.insert(source(&lab.out(&tcp(inside, &remote, SYN)).unwrap()).port()), "{remote}");
        }
        // The same remote has the same port, and once its session has ended the port is as good as any other.
        let first = lab.udp_port(inside, &format!("{remotes}:1"));
        assert_eq!((first, lab.udp_port(inside, &format!("{remotes}:1"))), (5000, 5000));
        lab.wait(121);
        assert_eq!(lab.udp_port(inside, &format!("{remotes}:77")), 5000);
        lab.nat.table.check();
    }
    // Five ports for eight remotes: no remote goes without.
    let mut lab = Lab::with(Settings { ports: "2000-2004".parse().unwrap(), ..settings });
    let ports: std::collections::HashSet<u16> =
        (1..=8).map(|port| lab.udp_port("10.0.0.2:2001", &format!("198.51.100.1:{port}"))).collect();
    assert!(ports.len() == 5 && ports.iter().all(|port| (2000..=2004).contains(port)), "{ports:?}");
    lab.nat.table.check();
}

#[test]
fn req2_a_container_has_one_external_address() {
    let mut lab = Lab::new();
    for (from, to) in [("10.0.0.2:1", "198.51.100.1:1"), ("10.0.0.2:2", "198.51.100.2:9")] {
        assert_eq!(source(&lab.out(&udp(from, to, b"")).unwrap()).ip(), EXTERNAL);
        assert_eq!(source(&lab.out(&tcp(from, to, SYN)).unwrap()).ip(), EXTERNAL);
    }
}

#[test]
fn req3_no_two_containers_share_a_port() {
    let mut lab = Lab::new();
    let mut seen = std::collections::HashSet::new();
    for host in 0..250 {
        for port in [5000, 5001, 700] {
            assert!(seen.insert(lab.udp_port(&format!("10.0.0.{host}:{port}"), "198.51.100.1:80")));
        }
    }
}

#[test]
fn req3_ports_keep_their_range() {
    let mut lab = Lab::new();
    for host in 2..100 {
        let port = lab.udp_port(&format!("10.0.0.{host}:1000"), "198.51.100.1:80");
        assert!((600..1024).contains(&port), "{port}");
        let port = lab.udp_port(&format!("10.0.0.{host}:1024"), "198.51.100.1:80");
        assert!(port >= 1024, "{port}");
    }
}

#[test]
fn req4_parity_is_kept() {
    let mut lab = Lab::new();
    for host in 2..200 {
        for port in [5004, 5005] {
            let external = lab.udp_port(&format!("10.0.0.{host}:{port}"), "198.51.100.1:80");
            assert_eq!(external % 2, port % 2);
        }
    }
}

#[test]
fn req5_a_mapping_lasts_five_minutes_and_two_without_a_reply() {
    let mut lab = Lab::new();
    lab.udp_port("10.0.0.2:5000", "198.51.100.1:80");
    lab.wait(120);
    assert_eq!(lab.only(), (State::Unreplied, 1));
    lab.wait(1);
    assert!(lab.rows().is_empty());
    lab.udp_port("10.0.0.2:5000", "198.51.100.1:80");
    lab.udp_in("198.51.100.1:80", "192.0.2.1:5000").unwrap().unwrap();
    lab.wait(300);
    assert_eq!(lab.only(), (State::Replied, 1));
    lab.wait(1);
    assert!(lab.rows().is_empty());
    assert_eq!(lab.nat.counters().ports_in_use, 0);
}

#[test]
fn req5a_a_query_for_a_name_is_over_sooner() {
    let mut lab = Lab::new();
    lab.udp_port("10.0.0.2:5000", "198.51.100.1:53");
    lab.udp_in("198.51.100.1:53", "192.0.2.1:5000").unwrap().unwrap();
    lab.wait(30);
    assert_eq!(lab.only(), (State::Replied, 1));
    lab.wait(1);
    assert!(lab.rows().is_empty());
}

#[test]
fn req6_only_outbound_packets_keep_a_mapping() {
    let mut lab = Lab::new();
    lab.udp_port("10.0.0.2:5000", "198.51.100.1:80");
    lab.udp_in("198.51.100.1:80", "192.0.2.1:5000").unwrap().unwrap();
    for _ in 0..3 {
        lab.wait(200);
        lab.udp_port("10.0.0.2:5000", "198.51.100.1:80");
    }
    lab.wait(200);
    lab.udp_in("198.51.100.1:80", "192.0.2.1:5000").unwrap().unwrap();
    lab.udp_in("198.51.100.1:99", "192.0.2.1:5000").unwrap().unwrap();
    lab.wait(101);
    assert!(lab.rows().is_empty(), "neither a reply nor another port of the remote kept it");
    assert_eq!(lab.udp_in("198.51.100.1:80", "192.0.2.1:5000"), Ok(None));
}

#[test]
fn req6_inbound_packets_keep_it_as_an_option() {
    let mut lab = Lab::with(Settings { inbound_refresh: true, ..Settings::default() });
    lab.udp_port("10.0.0.2:5000", "198.51.100.1:80");
    for _ in 0..3 {
        lab.udp_in("198.51.100.1:80", "192.0.2.1:5000").unwrap().unwrap();
        lab.wait(200);
    }
    assert_eq!(lab.only(), (State::Replied, 101));
}

#[test]
fn req7_sessions_of_an_address_that_went_end() {
    let mut lab = Lab::new();
    lab.udp_port("10.0.0.2:5000", "198.51.100.1:80");
    lab.udp_port("[fd00::2]:5000", "[2001:db8:1::1]:80");
    lab.nat.set_addresses(&["192.0.2.77".parse().unwrap(), EXTERNAL6.parse().unwrap()]);
    assert_eq!(lab.rows().len(), 1, "the other version's goes on");
    assert_eq!(lab.udp_in("198.51.100.1:80", "192.0.2.1:5000"), Ok(None));
    let frame = lab.out(&udp("10.0.0.2:5000", "198.51.100.1:80", b"")).unwrap();
    assert_eq!(source(&frame).to_string(), "192.0.2.77:5000");
    lab.nat.set_addresses(&[EXTERNAL6.parse().unwrap()]);
    assert_eq!(lab.out(&udp("10.0.0.2:5000", "198.51.100.1:80", b"")), Err(Denied::NoAddress));
    lab.nat.table.check();
}

#[test]
fn req8_only_addresses_that_were_sent_to_get_in() {
    let mut lab = Lab::new();
    assert_eq!(lab.udp_port("10.0.0.2:5000", "198.51.100.1:80"), 5000);
    let inside = Ok(Some("10.0.0.2:5000".parse().unwrap()));
    assert_eq!(lab.udp_in("198.51.100.1:81", "192.0.2.1:5000"), inside, "another port of that address");
    assert_eq!(lab.udp_in("198.51.100.2:80", "192.0.2.1:5000"), Err(Denied::Filtered));
    assert_eq!(lab.udp_in("198.51.100.1:80", "192.0.2.1:5001"), Ok(None), "no mapping");
    assert_eq!(lab.nat.counters().denied(Denied::Filtered), 1);
    lab.nat.table.check();
}

#[test]
fn req8_everybody_or_the_very_port_are_options() {
    let mut lab = Lab::with(Settings { filtering: Filtering::EndpointIndependent, ..Settings::default() });
    lab.udp_port("10.0.0.2:5000", "198.51.100.1:80");
    assert_eq!(lab.udp_in("203.0.113.1:9", "192.0.2.1:5000"), Ok(Some("10.0.0.2:5000".parse().unwrap())));
    lab.nat.table.check();
    let mut lab = Lab::with(Settings { filtering: Filtering::AddressAndPortDependent, ..Settings::default() });
    lab.udp_port("10.0.0.2:5000", "198.51.100.1:80");
    assert_eq!(lab.udp_in("198.51.100.1:81", "192.0.2.1:5000"), Err(Denied::Filtered));
    lab.udp_in("198.51.100.1:80", "192.0.2.1:5000").unwrap().unwrap();
}

#[test]
fn req9_containers_reach_each_other_by_external_addresses() {
    let mut lab = Lab::new();
    lab.udp_port("10.0.0.9:5000", "198.51.100.1:80");
    let one = lab.udp_port("10.0.0.2:5000", "198.51.100.1:80");
    let other = lab.udp_port("10.0.0.3:6000", "198.51.100.1:80");
    let to_other = udp("10.0.0.2:5000", &format!("192.0.2.1:{other}"), b"hello");
    assert_eq!(lab.hairpin(&to_other), Err(Denied::Filtered), "10.0.0.3 has not sent to it yet");
    let to_one = udp("10.0.0.3:6000", &format!("192.0.2.1:{one}"), b"hello");
    let frame = lab.hairpin(&to_one).unwrap().unwrap();
    let (from, to) = (source(&frame).to_string(), destination(&frame).to_string());
    assert_eq!((from, to), (format!("192.0.2.1:{other}"), "10.0.0.2:5000".into()), "from the external address");
    assert!(is_intact(&frame));
    let frame = lab.hairpin(&to_other).unwrap().unwrap();
    assert_eq!(destination(&frame).to_string(), "10.0.0.3:6000");
    assert_eq!(lab.hairpin(&udp("10.0.0.2:5000", "192.0.2.1:9", b"")), Ok(None), "nobody is there");
    lab.nat.table.check();
}

#[test]
fn req9_a_container_reaches_a_forward_and_itself() {
    let mut lab = Lab::new();
    lab.forward(&[(Protocol::Udp, "8080", "10.0.0.3:80")]);
    let frame = lab.hairpin(&udp("10.0.0.2:5000", "192.0.2.1:8080", b"")).unwrap().unwrap();
    assert_eq!((source(&frame).to_string(), destination(&frame).to_string()), ("192.0.2.1:5000".into(), "10.0.0.3:80".into()));
    let back = lab.hairpin(&udp("10.0.0.3:80", "192.0.2.1:5000", b"")).unwrap().unwrap();
    assert_eq!((source(&back).to_string(), destination(&back).to_string()), ("192.0.2.1:8080".into(), "10.0.0.2:5000".into()));
    let own = lab.hairpin(&udp("10.0.0.3:80", "192.0.2.1:8080", b"")).unwrap().unwrap();
    assert_eq!((source(&own).to_string(), destination(&own).to_string()), ("192.0.2.1:8080".into(), "10.0.0.3:80".into()));
    lab.nat.table.check();
}

#[test]
fn req10_payloads_are_not_touched() {
    let mut lab = Lab::new();
    let payload = b"PORT 10,0,0,2,19,136 sip:me@10.0.0.2:5000";
    let frame = lab.out(&udp("10.0.0.2:5000", "198.51.100.1:5060", payload)).unwrap();
    assert!(frame.ends_with(payload));
}

#[test]
fn req11_a_mapping_is_the_same_however_full_the_table_is() {
    let mut lab = Lab::with(Settings { sessions: 64, sessions_per_source: Some(64), ..Settings::default() });
    let port = lab.udp_port("10.0.0.2:5000", "198.51.100.1:80");
    for number in 0..60 {
        lab.udp_port("10.0.0.3:5000", &format!("198.51.100.1:{}", 100 + number));
        assert_eq!(lab.udp_port("10.0.0.2:5000", &format!("198.51.100.7:{}", 100 + number % 3)), port);
    }
    lab.nat.table.check();
}

#[test]
fn req12_an_error_does_not_end_a_mapping() {
    let mut lab = Lab::new();
    let sent = lab.out(&udp("10.0.0.2:5000", "198.51.100.1:80", b"payload")).unwrap();
    let before = lab.only();
    lab.inbound(&error("198.51.100.1", EXTERNAL4, 3, &sent, 28)).unwrap().unwrap();
    assert_eq!(lab.only(), before);
    lab.udp_in("198.51.100.1:80", "192.0.2.1:5000").unwrap().unwrap();
}

#[test]
fn req13_an_error_about_the_size_gets_in() {
    let mut lab = Lab::new();
    let sent = lab.out(&udp("10.0.0.2:5000", "198.51.100.1:80", &[0; 1400])).unwrap();
    let frame = lab.inbound(&error("203.0.113.5", EXTERNAL4, 3, &sent, 28)).unwrap().unwrap();
    assert_eq!(parse(&frame).destination.to_string(), "10.0.0.2");
    let mtu = parse(&frame).transport + 6;
    assert_eq!(frame[mtu..mtu + 2], [5, 0], "the MTU is as it was");
}

/// Cuts an IPv4 packet behind `first` bytes of its payload.
fn cut(frame: &[u8], first: usize, identification: u16) -> [Vec<u8>; 2] {
    let piece = |payload: &[u8], bits: usize| {
        let mut piece = [&frame[..34], payload].concat();
        let length = piece.len() - 14;
        put(&mut piece, 16, length);
        put(&mut piece, 18, identification.into());
        put(&mut piece, 20, bits);
        complete_header(&mut piece);
        piece
    };
    [piece(&frame[34..34 + first], 0x2000), piece(&frame[34 + first..], first / 8)]
}

fn join(pieces: &[Vec<u8>; 2]) -> Vec<u8> {
    let mut whole = [&pieces[0][..], &pieces[1][34..]].concat();
    let length = whole.len() - 14;
    put(&mut whole, 16, length);
    put(&mut whole, 20, 0);
    complete_header(&mut whole);
    whole
}

#[test]
fn req14_fragments_follow_the_first() {
    let mut lab = Lab::new();
    let whole = udp("10.0.0.2:5000", "198.51.100.1:80", &[7; 1000]);
    let out = cut(&whole, 504, 99).map(|piece| lab.out(&piece).unwrap());
    assert!(is_intact(&join(&out)), "the checksum of the whole is right");
    assert_eq!(parse(&out[1]).source, EXTERNAL);
    let back =
        cut(&udp("198.51.100.1:80", "192.0.2.1:5000", &[8; 1000]), 504, 7).map(|piece| lab.inbound(&piece).unwrap().unwrap());
    assert!(is_intact(&join(&back)));
    assert_eq!(parse(&back[1]).destination.to_string(), "10.0.0.2");
    let ours = cut(&udp("198.51.100.9:80", "192.0.2.1:9", &[8; 1000]), 504, 7).map(|piece| lab.inbound(&piece));
    assert_eq!(ours, [Ok(None), Ok(None)], "the switch gets whole packets too");
}

#[test]
fn req14_a_fragment_before_the_first_is_denied() {
    let mut lab = Lab::new();
    let [first, later] = cut(&udp("10.0.0.2:5000", "198.51.100.1:80", &[7; 1000]), 504, 99);
    assert_eq!(lab.out(&later), Err(Denied::FragmentBeforeFirst));
    lab.out(&first).unwrap();
    lab.wait(29);
    lab.out(&later).unwrap();
    lab.wait(1);
    assert_eq!(lab.out(&later), Err(Denied::FragmentBeforeFirst), "after 30 seconds it is forgotten");
    assert_eq!(lab.inbound(&later), Ok(None), "not its way");
}

#[test]
fn req14_a_first_fragment_without_ports_is_denied() {
    let mut lab = Lab::new();
    let [first, _] = cut(&tcp_with("10.0.0.2:5000", "198.51.100.1:80", SYN, &[7; 100]), 8, 99);
    assert_eq!(lab.out(&first), Err(Denied::Malformed), "RFC 1858");
}

#[test]
fn req14_fragments_of_ipv6() {
    let mut lab = Lab::new();
    let whole = udp("[fd00::2]:5000", "[2001:db8:1::1]:80", &[7; 1000]);
    let piece = |payload: &[u8], offset: u16, more: bool| {
        let mut piece = [&whole[..54], &[17, 0], &(offset | u16::from(more)).to_be_bytes(), &[1, 2, 3, 4], payload].concat();
        piece[20] = 44;
        let length = piece.len() - 54;
        put(&mut piece, 18, length);
        piece
    };
    let (first, later) = (piece(&whole[54..54 + 504], 0, true), piece(&whole[54 + 504..], 504, false));
    let out = [first, later].map(|piece| lab.out(&piece).unwrap());
    let mut joined = [&out[0][..54], &out[0][62..], &out[1][62..]].concat();
    joined[20] = 17;
    let length = joined.len() - 54;
    put(&mut joined, 18, length);
    assert!(is_intact(&joined));
    assert_eq!(parse(&out[1]).source.to_string(), EXTERNAL6);
}
