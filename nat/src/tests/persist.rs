//! What a NAT hands over, another takes on: whatever it lived through, and whatever it is given.

use std::time::Duration;

use proptest::prelude::*;

use super::lab::*;
use super::properties::{settings, step, take};
use crate::{Binding, Class, Denied, Direction, Protocol, SavedSession, SessionRow, Settings, Traffic, Transport};

/// What is listed of sessions, in an order.
fn listed(lab: &Lab) -> Vec<SessionRow> {
    let mut rows = lab.rows();
    rows.sort_by_key(|row| (row.inside, row.remote, row.transport, row.external));
    rows
}

/// Another NAT with the same settings and addresses, of which the seed and the clock differ, and what it did not take.
fn successor(lab: &Lab, settings: Settings, rules: &[(Protocol, &str, &str)]) -> (Lab, Vec<Denied>) {
    let mut next = Lab { nat: crate::Nat::new(settings, 1234), now: lab.now + Duration::from_millis(777_123) };
    next.nat.set_addresses(&lab.nat.addresses.into_iter().flatten().collect::<Vec<_>>());
    next.forward(rules);
    let saved: Vec<SavedSession> = lab.nat.export(lab.now).collect();
    let denied = saved.iter().filter_map(|session| next.nat.import(next.now, session).err()).collect();
    next.nat.table.check();
    (next, denied)
}

const RULES: [(Protocol, &str, &str); 2] =
    [(Protocol::Tcp, "5000-5003", "10.0.0.1:5000"), (Protocol::Udp, "5002", "10.0.0.2:5001")];

#[test]
fn a_connection_goes_on_by_the_same_port_for_as_long_as_before() {
    let mut lab = Lab::new();
    let port = lab.connect("10.0.0.2:5000", "198.51.100.1:80");
    // Another container's port, which is not kept because the first one has it.
    lab.out(&udp("10.0.0.3:5000", "198.51.100.1:53", b"?")).unwrap();
    lab.wait(100);
    let (next, denied) = successor(&lab, Settings::default(), &[]);
    assert_eq!((denied, listed(&next)), (Vec::new(), listed(&lab)));
    let mut next = next;
    let answer = tcp("198.51.100.1:80", &format!("{EXTERNAL4}:{port}"), ACK);
    assert_eq!(destination(&next.inbound(&answer).unwrap().unwrap()).to_string(), "10.0.0.2:5000");
    next.wait(8000);
    assert_eq!(next.nat.counters().ports_in_use, 0);
}

#[test]
fn the_crowd_stays_the_same() {
    let settings = Settings { sessions: 4, sessions_per_source: Some(2), sources: 1, ..Settings::default() };
    // In no order are sessions handed over, so the first of them is another's with almost any seed.
    for host in 2..20 {
        let mut lab = Lab::with(settings.clone());
        for (container, port) in [(0, 1), (0, 2), (1, 3), (2, 4)] {
            lab.out(&udp(&format!("10.0.0.{}:{port}", host + container), "198.51.100.1:80", b"?")).unwrap();
        }
        let (next, denied) = successor(&lab, settings.clone(), &[]);
        assert_eq!((denied, listed(&next)), (Vec::new(), listed(&lab)));
    }
}

#[test]
fn what_could_not_have_come_about_is_refused() {
    let mut lab = Lab::new();
    lab.connect("10.0.0.2:5000", "198.51.100.1:80");
    let saved = lab.nat.export(lab.now).next().unwrap();
    let mut other = Lab::new();
    let mut import = |session: SavedSession| other.nat.import(other.now, &session);
    assert_eq!(import(SavedSession { binding: Binding::Forwarded, ..saved }), Err(Denied::NoSession), "no forward says so");
    assert_eq!(import(SavedSession { binding: Binding::Alone, ..saved }), Err(Denied::Malformed), "of another mapping");
    assert_eq!(import(SavedSession { remote: "[2001:db8::9]:80".parse().unwrap(), ..saved }), Err(Denied::Malformed));
    assert_eq!(import(SavedSession { seconds_left: 0, ..saved }), Err(Denied::Malformed));
    assert_eq!(import(SavedSession { transport: Transport::Udp, ..saved }), Err(Denied::Malformed), "a timeout of TCP's");
    assert_eq!(import(saved), Ok(()));
    assert_eq!(import(saved), Err(Denied::Clash), "it is there");
    let elsewhere = SavedSession { inside: "10.0.0.9:7".parse().unwrap(), remote: "198.51.100.7:7".parse().unwrap(), ..saved };
    assert_eq!(import(elsewhere), Err(Denied::Clash), "the port is another's");
    other.nat.set_addresses(&[]);
    assert_eq!(other.nat.import(other.now, &saved), Err(Denied::NoAddress));
    other.nat.table.check();
}

prop_compose! {
    fn any_session()(
        transport in 0usize..3, outbound: bool, inside in 0u8..4, port in 0u16..6, remote in 0u8..4, binding in 0usize..3, class in 0usize..7,
        tcp: u8, seconds_left in prop_oneof![0u32..9000, any::<u32>()], packets: [u64; 2], six: bool, mixed in 0u8..8, crowded: bool,
    ) -> SavedSession {
        let address = |number: u8, six: bool| -> std::net::IpAddr {
            if six { format!("fd00::{number}").parse().unwrap() } else { format!("10.0.0.{number}").parse().unwrap() }
        };
        SavedSession {
            transport: [Transport::Tcp, Transport::Udp, Transport::Icmp][transport],
            initiator: if outbound { Direction::Outbound } else { Direction::Inbound },
            inside: (address(inside, six), 5000 + port).into(),
            port: 5000 + port,
            remote: (address(remote, six ^ (mixed == 0)), 80).into(),
            binding: [Binding::Mapped, Binding::Alone, Binding::Forwarded][binding],
            class: Class::ALL[class],
            tcp,
            seconds_left,
            traffic: packets.map(|packets| Traffic { packets, bytes: packets }),
            crowded,
        }
    }
}

proptest! {
    #[test]
    fn whatever_a_nat_lived_through_another_goes_on_with(steps in prop::collection::vec(step(), 1..120), settings in settings()) {
        let mut lab = Lab::with(settings.clone());
        lab.forward(&RULES);
        for step in &steps {
            take(&mut lab, step);
        }
        // What the last step left of them.
        lab.forward(&RULES);
        let (mut next, denied) = successor(&lab, settings, &RULES);
        prop_assert_eq!(denied, Vec::new());
        prop_assert_eq!(listed(&next), listed(&lab));
        prop_assert_eq!(next.nat.export(next.now).count(), lab.nat.export(lab.now).count());
        for step in &steps {
            take(&mut next, step);
            next.nat.table.check();
        }
        next.wait(8000);
        let counters = next.nat.counters();
        prop_assert_eq!((counters.sessions, counters.ports_in_use), (0, 0), "nothing is left behind");
    }

    #[test]
    fn any_sessions_leave_the_table_consistent(sessions in prop::collection::vec(any_session(), 1..60), settings in settings()) {
        let mut lab = Lab::with(settings);
        lab.forward(&RULES);
        for session in &sessions {
            let _ = lab.nat.import(lab.now, session);
            lab.nat.table.check();
        }
        lab.wait(8000);
        let counters = lab.nat.counters();
        prop_assert_eq!((counters.sessions, counters.ports_in_use), (0, 0), "nothing is left behind");
    }
}
