//! Every table is bounded, ends what is over, and is fair when it is full.

use std::time::Duration;

use super::lab::*;
use crate::{Denied, Settings, State};

const REMOTE: &str = "198.51.100.1:80";

fn small() -> Lab {
    Lab::with(Settings { sessions: 100, sessions_per_source: Some(100), sources: 8, ..Settings::default() })
}

/// Sends a SYN from a container, from the next port.
fn syn(lab: &mut Lab, host: &str, port: u16) -> Result<Vec<u8>, Denied> {
    lab.out(&tcp(&format!("{host}:{port}"), REMOTE, SYN))
}

fn count(lab: &Lab, host: &str) -> usize {
    lab.rows().iter().filter(|row| row.inside.ip().to_string() == host).count()
}

#[test]
fn the_session_cap_holds_and_a_flood_competes_with_itself() {
    let mut lab = small();
    for port in 1..=10 {
        lab.connect(&format!("10.0.0.2:{}", 5000 + port), REMOTE);
        syn(&mut lab, "10.0.0.3", 5000 + port).unwrap();
    }
    for port in 0..1000 {
        syn(&mut lab, "10.0.0.9", 10_000 + port).unwrap();
        assert!(lab.nat.counters().sessions <= 100);
    }
    assert_eq!((count(&lab, "10.0.0.2"), count(&lab, "10.0.0.3"), count(&lab, "10.0.0.9")), (10, 10, 80));
    let oldest = lab.rows().iter().filter(|row| row.inside.ip().to_string() == "10.0.0.9").map(|row| row.inside.port()).min();
    assert_eq!(oldest, Some(10_920), "its oldest went first");
    assert_eq!(lab.nat.counters().evicted, 920);
    lab.nat.table.check();
}

#[test]
fn the_largest_source_gives_way_to_a_smaller_one() {
    let mut lab = small();
    for port in 0..100 {
        lab.connect(&format!("10.0.0.2:{}", 5000 + port), REMOTE);
    }
    assert_eq!(syn(&mut lab, "10.0.0.2", 9000), Err(Denied::SourceCap), "not at the cost of its own connections");
    for port in 0..50 {
        lab.connect(&format!("10.0.0.3:{}", 5000 + port), REMOTE);
    }
    assert_eq!((count(&lab, "10.0.0.2"), count(&lab, "10.0.0.3")), (50, 50));
    lab.nat.table.check();
}

#[test]
fn a_source_with_most_sessions_keeps_its_connections_from_itself() {
    let mut lab = Lab::with(Settings { sessions: 100, sessions_per_source: Some(200), ..Settings::default() });
    for port in 0..100 {
        lab.connect(&format!("10.0.0.2:{}", 5000 + port), REMOTE);
    }
    assert_eq!(syn(&mut lab, "10.0.0.2", 9000), Err(Denied::SessionCap));
    assert_eq!(lab.nat.counters().denied(Denied::SessionCap), 1);
}

#[test]
fn transitory_sessions_go_before_established_ones() {
    let mut lab = small();
    for port in 0..50 {
        syn(&mut lab, "10.0.0.2", 6000 + port).unwrap();
        lab.connect(&format!("10.0.0.2:{}", 5000 + port), REMOTE);
    }
    for port in 0..50 {
        syn(&mut lab, "10.0.0.2", 7000 + port).unwrap();
    }
    assert_eq!(lab.rows().iter().filter(|row| row.state == State::Established).count(), 50);
    lab.nat.table.check();
}

#[test]
fn the_long_idle_go_before_the_busy() {
    let mut lab = small();
    for port in 0..100 {
        lab.connect(&format!("10.0.0.2:{}", 5000 + port), REMOTE);
    }
    lab.wait(60);
    for port in (0..100).filter(|port| port % 4 != 0) {
        lab.out(&tcp(&format!("10.0.0.2:{}", 5000 + port), REMOTE, ACK)).unwrap();
    }
    for port in 0..20 {
        lab.connect(&format!("10.0.0.3:{}", 5000 + port), REMOTE);
    }
    let idle = lab.rows().iter().filter(|row| row.inside.ip().to_string() == "10.0.0.2" && row.inside.port() % 4 == 0).count();
    assert_eq!((idle, count(&lab, "10.0.0.2")), (5, 80), "all twenty were idle ones");
}

#[test]
fn the_source_cap_holds() {
    let mut lab = Lab::with(Settings { sessions: 100, ..Settings::default() });
    for port in 0..60 {
        syn(&mut lab, "10.0.0.2", 5000 + port).unwrap();
    }
    assert_eq!(lab.rows().len(), 25, "a quarter");
    assert_eq!(count(&lab, "10.0.0.2"), 25);
    let ports = lab.rows().iter().map(|row| row.inside.port()).min();
    assert_eq!(ports, Some(5035));
    lab.nat.table.check();
}

#[test]
fn made_up_sources_compete_with_themselves() {
    let mut lab = Lab::with(Settings { sessions: 100, sources: 8, ..Settings::default() });
    for port in 0..5 {
        lab.connect(&format!("10.0.0.2:{}", 5000 + port), REMOTE);
        syn(&mut lab, "10.0.0.2", 6000 + port).unwrap();
    }
    for number in 0..1000 {
        syn(&mut lab, &format!("10.1.{}.{}", number / 250, number % 250), 5000).unwrap();
    }
    assert_eq!(count(&lab, "10.0.0.2"), 10);
    assert_eq!(lab.rows().len(), 10 + 7 + 25, "seven sources of their own, and a crowd with the sessions of one");
    lab.nat.table.check();
    lab.wait(8000);
    assert!(lab.rows().is_empty());
}

#[test]
fn expiry_keeps_to_its_budget() {
    let mut lab = Lab::new();
    for port in 0..10 {
        lab.udp_port(&format!("10.0.0.2:{}", 5000 + port), REMOTE);
    }
    lab.now += Duration::from_secs(121);
    assert_eq!([4, 4, 4].map(|budget| lab.nat.expire(lab.now, budget)), [4, 4, 2]);
    assert_eq!(lab.nat.counters().expired, 10);
    lab.nat.table.check();
}

#[test]
fn what_is_over_is_over_before_it_is_freed() {
    let mut lab = Lab::new();
    lab.udp_port("10.0.0.2:5000", REMOTE);
    lab.now += Duration::from_secs(121);
    assert!(lab.rows().is_empty());
    assert_eq!(lab.udp_in(REMOTE, "192.0.2.1:5000"), Ok(None));
    assert_eq!(lab.nat.expire(lab.now, 10), 0);
    lab.nat.table.check();
}

#[test]
fn a_timeout_beyond_the_wheel_is_kept() {
    let mut settings = Settings::default();
    settings.timeouts.tcp_established = Duration::from_secs(100_000);
    let mut lab = Lab::with(settings);
    lab.connect("10.0.0.2:5000", REMOTE);
    for _ in 0..10 {
        lab.wait(10_000);
    }
    assert_eq!(lab.only(), (State::Established, 1));
    lab.wait(1);
    assert!(lab.rows().is_empty());
}

#[test]
fn a_flood_of_fragments_competes_with_itself() {
    let mut lab = Lab::new();
    let fragment = |host: u8, number: u16, later: bool| {
        let mut frame = udp(&format!("10.0.0.{host}:5000"), REMOTE, b"12345678");
        put(&mut frame, 18, number.into());
        put(&mut frame, 20, if later { 1 } else { 0x2000 });
        complete_header(&mut frame);
        frame
    };
    for host in 10..110 {
        lab.out(&fragment(host, 1, false)).unwrap();
    }
    for number in 0..5000 {
        lab.out(&fragment(2, number, false)).unwrap();
    }
    lab.out(&fragment(2, 4999, true)).unwrap();
    assert_eq!(lab.out(&fragment(2, 1, true)), Err(Denied::FragmentBeforeFirst), "its oldest went");
    let kept = (10..110).filter(|host| lab.out(&fragment(*host, 1, true)).is_ok()).count();
    assert!(kept > 90, "{kept} of 100 others");
}

#[test]
fn sessions_are_flushed_by_choice() {
    let mut lab = Lab::new();
    lab.udp_port("10.0.0.2:5000", REMOTE);
    lab.udp_port("10.0.0.3:5000", REMOTE);
    let now = lab.now;
    assert_eq!(lab.nat.flush(now, |row| row.inside.ip().to_string() == "10.0.0.2"), 1);
    assert_eq!((count(&lab, "10.0.0.2"), count(&lab, "10.0.0.3")), (0, 1));
    assert_eq!(lab.nat.flush(now, |_| true), 1);
    assert_eq!(lab.nat.counters().ports_in_use, 0);
    lab.nat.table.check();
}
