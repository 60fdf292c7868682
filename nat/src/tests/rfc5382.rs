//! RFC 5382: NAT behaviour for TCP.

use super::lab::*;
use crate::{Denied, Direction, Protocol, State};

const REMOTE: &str = "198.51.100.1:80";

#[test]
fn req1_a_port_is_mapped_alike_for_every_remote() {
    let mut lab = Lab::new();
    lab.connect("10.0.0.9:5000", REMOTE);
    let ports = [REMOTE, "198.51.100.1:81", "203.0.113.1:80"].map(|remote| lab.connect("10.0.0.2:5000", remote));
    assert!(ports[0] != 5000 && ports.iter().all(|port| *port == ports[0]), "{ports:?}");
}

#[test]
fn req2_a_connection_in_both_directions() {
    for (inside, remote) in [("10.0.0.2:5000", REMOTE), ("[fd00::2]:5000", "[2001:db8:1::1]:80")] {
        let mut lab = Lab::new();
        assert_eq!(lab.connect(inside, remote), 5000);
        assert_eq!(lab.only().0, State::Established);
        let row = lab.rows()[0];
        assert_eq!((row.inside, row.remote, row.external.port()), (inside.parse().unwrap(), remote.parse().unwrap(), 5000));
        assert_eq!((row.outbound.packets, row.inbound.packets, row.initiator), (2, 1, Direction::Outbound));
        let length = (tcp(inside, remote, ACK).len() - NETWORK) as u64;
        assert_eq!((row.outbound.bytes, row.inbound.bytes), (2 * length, length));
    }
}

#[test]
fn req2_simultaneous_open() {
    let mut lab = Lab::new();
    lab.out(&tcp("10.0.0.2:5000", REMOTE, SYN)).unwrap();
    let syn = lab.inbound(&tcp(REMOTE, "192.0.2.1:5000", SYN)).unwrap().unwrap();
    assert_eq!(destination(&syn).to_string(), "10.0.0.2:5000");
    lab.out(&tcp("10.0.0.2:5000", REMOTE, SYN | ACK)).unwrap();
    lab.inbound(&tcp(REMOTE, "192.0.2.1:5000", SYN | ACK)).unwrap().unwrap();
    lab.out(&tcp("10.0.0.2:5000", REMOTE, ACK)).unwrap();
    assert_eq!(lab.only().0, State::Established);
}

#[test]
fn req3_only_addresses_that_were_sent_to_get_in() {
    let mut lab = Lab::new();
    lab.connect("10.0.0.2:5000", REMOTE);
    assert_eq!(lab.inbound(&tcp("198.51.100.2:80", "192.0.2.1:5000", SYN)), Err(Denied::Filtered));
    assert!(lab.inbound(&tcp("198.51.100.1:99", "192.0.2.1:5000", SYN)).unwrap().is_some());
    assert_eq!(lab.inbound(&tcp("198.51.100.1:98", "192.0.2.1:5000", ACK)), Err(Denied::Filtered), "it begins nothing");
}

#[test]
fn req4_an_unwanted_syn_is_dropped_in_silence() {
    let mut lab = Lab::new();
    lab.connect("10.0.0.2:5000", "203.0.113.1:80");
    let syn = tcp(REMOTE, "192.0.2.1:5000", SYN);
    assert_eq!(lab.inbound(&syn), Err(Denied::Filtered));
    assert!(!Denied::Filtered.is_shortage(), "nothing is answered");
    lab.wait(3);
    lab.out(&tcp("10.0.0.2:5000", REMOTE, SYN)).unwrap();
    assert!(lab.inbound(&syn).unwrap().is_some(), "its repetition opens at the same time");
}

#[test]
fn req5_established_lasts_two_hours_and_four_minutes() {
    let mut lab = Lab::new();
    lab.connect("10.0.0.2:5000", REMOTE);
    lab.wait(7440);
    assert_eq!(lab.only(), (State::Established, 1));
    lab.inbound(&tcp(REMOTE, "192.0.2.1:5000", ACK)).unwrap().unwrap();
    lab.wait(7440);
    assert_eq!(lab.only(), (State::Established, 1), "either side keeps it");
    lab.wait(1);
    assert!(lab.rows().is_empty());
}

#[test]
fn req5_opening_and_closing_last_four_minutes() {
    let mut lab = Lab::new();
    lab.out(&tcp("10.0.0.2:5000", REMOTE, SYN)).unwrap();
    lab.wait(240);
    assert_eq!(lab.only(), (State::SynSent, 1));
    lab.wait(1);
    assert!(lab.rows().is_empty());
    lab.connect("10.0.0.2:5000", REMOTE);
    lab.inbound(&tcp(REMOTE, "192.0.2.1:5000", FIN | ACK)).unwrap().unwrap();
    assert_eq!(lab.only(), (State::FinWait, 7441), "the container may go on sending");
    lab.out(&tcp("10.0.0.2:5000", REMOTE, FIN | ACK)).unwrap();
    assert_eq!(lab.only(), (State::TimeWait, 241));
    lab.wait(241);
    assert!(lab.rows().is_empty());
}

#[test]
fn req6_payloads_are_not_touched() {
    let mut lab = Lab::new();
    let frame = lab.out(&tcp_with("10.0.0.2:5000", "198.51.100.1:21", ACK, b"PORT 10,0,0,2,19,136\r\n")).unwrap();
    assert!(frame.ends_with(b"PORT 10,0,0,2,19,136\r\n"));
}

#[test]
fn req7_no_two_containers_share_a_port() {
    let mut lab = Lab::new();
    let ports: std::collections::HashSet<_> =
        (0..250).map(|host| lab.connect(&format!("10.0.0.{host}:5000"), REMOTE)).collect();
    assert_eq!(ports.len(), 250);
}

#[test]
fn req8_a_container_connects_to_another_by_the_external_address() {
    let mut lab = Lab::new();
    lab.forward(&[(Protocol::Tcp, "8080", "10.0.0.3:80")]);
    let syn = lab.hairpin(&tcp("10.0.0.2:5000", "192.0.2.1:8080", SYN)).unwrap().unwrap();
    assert_eq!((source(&syn).to_string(), destination(&syn).to_string()), ("192.0.2.1:5000".into(), "10.0.0.3:80".into()));
    let answer = lab.hairpin(&tcp("10.0.0.3:80", "192.0.2.1:5000", SYN | ACK)).unwrap().unwrap();
    assert_eq!(
        (source(&answer).to_string(), destination(&answer).to_string()),
        ("192.0.2.1:8080".into(), "10.0.0.2:5000".into())
    );
    assert!(is_intact(&answer));
    lab.hairpin(&tcp("10.0.0.2:5000", "192.0.2.1:8080", ACK)).unwrap().unwrap();
    assert!(lab.rows().iter().all(|row| row.state == State::Established));
}

#[test]
fn req9_errors_get_in() {
    let mut lab = Lab::new();
    let sent = lab.out(&tcp("10.0.0.2:5000", REMOTE, SYN)).unwrap();
    let frame = lab.inbound(&error("203.0.113.5", EXTERNAL4, 11, &sent, 28)).unwrap().unwrap();
    assert_eq!(quoted(&frame)[12..16], [10, 0, 0, 2]);
    assert_eq!(quoted(&frame)[20..22], 5000_u16.to_be_bytes());
}

#[test]
fn req10_an_error_does_not_end_a_connection() {
    let mut lab = Lab::new();
    lab.connect("10.0.0.2:5000", REMOTE);
    let sent = lab.out(&tcp("10.0.0.2:5000", REMOTE, ACK)).unwrap();
    let before = lab.only();
    lab.inbound(&error("198.51.100.1", EXTERNAL4, 3, &sent, 40)).unwrap().unwrap();
    assert_eq!(lab.only(), before);
}

#[test]
fn a_connection_older_than_the_switch_is_not_reset_when_the_outside_speaks_first() {
    for (inside, remote, external) in
        [("10.0.0.2:5000", REMOTE, "192.0.2.1:5000"), ("[fd00::2]:5000", "[2001:db8:1::1]:80", "[2001:db8::1]:5000")]
    {
        let mut lab = Lab::new();
        // The switch looks at its clock as soon as it runs.
        lab.wait(0);
        for (seconds, flags) in [(0, ACK), (800, FIN | ACK), (99, ACK)] {
            lab.wait(seconds);
            assert_eq!(lab.inbound(&tcp(remote, external, flags)), Err(Denied::Older), "in silence");
        }
        assert_eq!(lab.nat.counters().denied(Denied::Older), 3);
        // What begins a connection, or answers, or resets, is for the switch.
        for flags in [SYN, SYN | ACK, RST] {
            assert_eq!(lab.inbound(&tcp(remote, external, flags)), Ok(None));
        }
        lab.out(&tcp(inside, remote, ACK)).unwrap();
        let back = lab.inbound(&tcp(remote, external, ACK)).unwrap().unwrap();
        assert_eq!((destination(&back).to_string().as_str(), lab.only().0), (inside, State::Established));
        // A stranger's segment, when there can be no older connection any more, is refused by the switch.
        lab.wait(2);
        assert_eq!(lab.inbound(&tcp(remote, &external.replace(":5000", ":6000"), ACK)), Ok(None));
    }
}

#[test]
fn a_connection_older_than_the_switch_goes_on() {
    let mut lab = Lab::new();
    lab.out(&tcp("10.0.0.2:5000", REMOTE, ACK)).unwrap();
    assert_eq!(lab.only(), (State::PickedUp, 241));
    lab.inbound(&tcp(REMOTE, "192.0.2.1:5000", ACK)).unwrap().unwrap();
    assert_eq!(lab.only(), (State::Established, 7441));
    assert_eq!(lab.out(&tcp("10.0.0.2:5001", REMOTE, RST)), Err(Denied::NoSession), "a reset has nothing to go on with");
}
