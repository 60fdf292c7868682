//! Destination NAT by rule.

use super::lab::*;
use crate::{Denied, Direction, Protocol, State};

const CLIENT: &str = "198.51.100.1:4000";

#[test]
fn a_forward_keeps_the_clients_address() {
    for (client, external, server) in
        [(CLIENT, "192.0.2.1:8085", "10.0.0.2:85"), ("[2001:db8:1::1]:4000", "[2001:db8::1]:8085", "[fd00::2]:85")]
    {
        let mut lab = Lab::new();
        lab.forward(&[(Protocol::Tcp, "8080-8090", "10.0.0.2:80"), (Protocol::Tcp, "8080-8090", "[fd00::2]:80")]);
        let syn = lab.inbound(&tcp(client, external, SYN)).unwrap().unwrap();
        assert_eq!((source(&syn), destination(&syn)), (client.parse().unwrap(), server.parse().unwrap()));
        assert!(is_intact(&syn));
        let answer = lab.out(&tcp(server, client, SYN | ACK)).unwrap();
        assert_eq!((source(&answer), destination(&answer)), (external.parse().unwrap(), client.parse().unwrap()));
        assert_eq!(lab.only(), (State::SynReceived, 241));
        lab.inbound(&tcp(client, external, ACK)).unwrap().unwrap();
        assert_eq!(lab.only(), (State::Established, 7441));
        let row = lab.rows()[0];
        assert!(row.forwarded && row.initiator == Direction::Inbound);
        assert_eq!(lab.nat.counters().ports_in_use, 0, "it costs no mapping");
        lab.nat.table.check();
    }
}

#[test]
fn a_forward_is_of_its_protocol_and_ports() {
    let mut lab = Lab::new();
    lab.forward(&[(Protocol::Tcp, "8080", "10.0.0.2:80")]);
    assert_eq!(lab.inbound(&tcp(CLIENT, "192.0.2.1:8081", SYN)), Ok(None));
    assert_eq!(lab.inbound(&udp(CLIENT, "192.0.2.1:8080", b"")), Ok(None));
    assert_eq!(lab.inbound(&tcp(CLIENT, "192.0.2.9:8080", SYN)), Ok(None), "not an external address");
    assert_eq!(lab.inbound(&tcp(CLIENT, "192.0.2.1:8080", RST)), Err(Denied::NoSession));
}

#[test]
fn mappings_never_get_a_forwards_port() {
    let mut lab = Lab::new();
    lab.forward(&[(Protocol::Udp, "1024-60000", "10.0.0.2:1024")]);
    for host in 3..200 {
        let port = lab.udp_port(&format!("10.0.0.{host}:5000"), CLIENT);
        assert!(port > 60000, "{port}");
    }
}

#[test]
fn a_server_sends_from_its_forwards_port() {
    let mut lab = Lab::new();
    lab.forward(&[(Protocol::Udp, "51820", "10.0.0.2:7000")]);
    assert_eq!(lab.udp_port("10.0.0.2:7000", CLIENT), 51820);
    assert!(lab.udp_in("203.0.113.1:1", "192.0.2.1:51820").unwrap().is_some(), "anybody may send to a forward");
    assert_eq!(lab.udp_port("10.0.0.2:7001", CLIENT), 7001);
    lab.nat.table.check();
}

#[test]
fn a_connection_older_than_the_switch_goes_on() {
    let mut lab = Lab::new();
    lab.forward(&[(Protocol::Tcp, "8080", "10.0.0.2:80")]);
    assert_eq!(source(&lab.out(&tcp("10.0.0.2:80", CLIENT, ACK)).unwrap()).port(), 8080);
    assert!(lab.inbound(&tcp(CLIENT, "192.0.2.1:8080", ACK)).unwrap().is_some());
    assert_eq!(lab.only(), (State::Established, 7441));
}

#[test]
fn only_the_sessions_of_a_removed_forward_end() {
    let mut lab = Lab::new();
    let (one, other) = ((Protocol::Udp, "1000", "10.0.0.2:80"), (Protocol::Udp, "2000-2010", "10.0.0.3:80"));
    lab.forward(&[one, other]);
    lab.udp_port("10.0.0.2:5000", CLIENT);
    lab.udp_in(CLIENT, "192.0.2.1:1000").unwrap().unwrap();
    lab.udp_in(CLIENT, "192.0.2.1:2005").unwrap().unwrap();
    lab.forward(&[other, one]);
    assert_eq!(lab.rows().len(), 3, "another order is no change");
    lab.forward(&[(Protocol::Udp, "2005-2006", "10.0.0.3:85")]);
    let mut ports: Vec<_> = lab.rows().iter().map(|row| row.external.port()).collect();
    ports.sort_unstable();
    assert_eq!(ports, [2005, 5000], "another rule says the same of 2005");
    lab.forward(&[(Protocol::Udp, "2005", "10.0.0.3:86"), (Protocol::Udp, "5000", "10.0.0.9:1")]);
    assert_eq!(lab.rows().iter().map(|row| row.external.port()).collect::<Vec<_>>(), [5000]);
    assert!(lab.udp_in(CLIENT, "192.0.2.1:5000").unwrap().is_some_and(|to| to.ip().to_string() == "10.0.0.2"));
    let stranger = lab.udp_in("203.0.113.7:1", "192.0.2.1:5000").unwrap().unwrap();
    assert_eq!(stranger.to_string(), "10.0.0.9:1", "what is new goes by the forward");
    lab.nat.table.check();
}

#[test]
fn two_ways_between_the_same_ports_clash() {
    let mut lab = Lab::new();
    lab.forward(&[(Protocol::Tcp, "8080", "10.0.0.2:80"), (Protocol::Tcp, "8081", "10.0.0.2:80")]);
    lab.inbound(&tcp(CLIENT, "192.0.2.1:8080", SYN)).unwrap().unwrap();
    assert_eq!(lab.inbound(&tcp(CLIENT, "192.0.2.1:8081", SYN)), Err(Denied::Clash));
    lab.out(&tcp("10.0.0.2:80", CLIENT, RST | ACK)).unwrap();
    assert!(lab.inbound(&tcp(CLIENT, "192.0.2.1:8081", SYN)).unwrap().is_some(), "the first is over");
    assert_eq!(lab.rows().len(), 1);
    lab.nat.table.check();
}

#[test]
fn both_sides_keep_a_forwarded_session() {
    let mut lab = Lab::new();
    lab.forward(&[(Protocol::Udp, "53", "10.0.0.2:53")]);
    lab.udp_in(CLIENT, "192.0.2.1:53").unwrap().unwrap();
    assert_eq!(lab.only(), (State::Unreplied, 121));
    lab.udp_port("10.0.0.2:53", CLIENT);
    lab.wait(200);
    lab.udp_in(CLIENT, "192.0.2.1:53").unwrap().unwrap();
    assert_eq!(lab.only(), (State::Replied, 301));
}
