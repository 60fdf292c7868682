//! RFC 7857: what ten years of NATs have taught.

use super::lab::*;
use crate::{Denied, State};

const REMOTE: &str = "198.51.100.1:80";

#[test]
fn section2_a_reset_is_believed_for_four_minutes() {
    let mut lab = Lab::new();
    lab.connect("10.0.0.2:5000", REMOTE);
    lab.inbound(&tcp(REMOTE, "192.0.2.1:5000", RST)).unwrap().unwrap();
    assert_eq!(lab.only(), (State::Reset, 241));
    lab.wait(100);
    lab.out(&tcp("10.0.0.2:5000", REMOTE, ACK)).unwrap();
    assert_eq!(lab.only(), (State::Established, 7441), "it was a forgery");
    lab.inbound(&tcp(REMOTE, "192.0.2.1:5000", RST)).unwrap().unwrap();
    lab.wait(241);
    assert!(lab.rows().is_empty());
}

#[test]
fn section2_a_new_connection_may_follow_a_closed_one() {
    let mut lab = Lab::new();
    lab.connect("10.0.0.2:5000", REMOTE);
    lab.out(&tcp("10.0.0.2:5000", REMOTE, FIN | ACK)).unwrap();
    lab.inbound(&tcp(REMOTE, "192.0.2.1:5000", FIN | ACK)).unwrap().unwrap();
    assert_eq!(lab.only().0, State::TimeWait);
    lab.connect("10.0.0.2:5000", REMOTE);
    assert_eq!(lab.only(), (State::Established, 7441));
}

#[test]
fn section5_protocols_have_mappings_of_their_own() {
    let mut lab = Lab::new();
    lab.udp_port("10.0.0.9:5000", REMOTE);
    assert_ne!(lab.udp_port("10.0.0.2:5000", REMOTE), 5000);
    assert_eq!(lab.connect("10.0.0.2:5000", REMOTE), 5000);
    assert_eq!(lab.inbound(&tcp("203.0.113.1:9", "192.0.2.1:5001", SYN)), Ok(None));
}

#[test]
fn section7_an_error_from_inside_keeps_nothing() {
    let mut lab = Lab::new();
    lab.udp_port("10.0.0.2:5000", REMOTE);
    let got = lab.inbound(&udp(REMOTE, "192.0.2.1:5000", b"x")).unwrap().unwrap();
    lab.wait(100);
    lab.out(&error("10.0.0.2", "198.51.100.1", 3, &got, 28)).unwrap();
    assert_eq!(lab.only(), (State::Replied, 201));
}

#[test]
fn section9_ports_are_chosen_by_chance() {
    let mut lab = Lab::new();
    let ports: Vec<_> = (0..100).map(|host| lab.udp_port(&format!("10.0.0.{host}:5000"), REMOTE)).collect();
    let steps: std::collections::HashSet<_> = ports.windows(2).map(|pair| pair[1].wrapping_sub(pair[0])).collect();
    assert!(steps.len() > 90, "{ports:?}");
}

#[test]
fn section12_hairpinned_pings_are_for_the_switch() {
    let mut lab = Lab::new();
    assert_eq!(lab.hairpin(&ping("10.0.0.2", EXTERNAL4, 7, false)), Ok(None));
    assert_eq!(lab.inbound(&ping("198.51.100.1", EXTERNAL4, 7, false)), Ok(None));
    assert_eq!(lab.out(&ping("10.0.0.2", "198.51.100.1", 7, true)), Err(Denied::NoSession));
}
