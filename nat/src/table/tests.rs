//! What must hold of the table after anything at all.

use std::collections::{HashMap, HashSet};

use super::*;

impl Table {
    /// Checks every index, ring and count against the sessions.
    pub(crate) fn check(&mut self) {
        let live: HashSet<u32> = self.outside.iter().collect();
        assert_eq!(live, self.inside.iter().collect());
        assert_eq!(live.len() + self.free.len(), self.sessions.len());
        assert!(self.free.iter().all(|index| !live.contains(index)));
        assert!(live.len() <= self.limits.sessions);
        let (mut mappings, mut ports, mut mapped, mut grouped) = (HashMap::new(), HashSet::new(), Vec::new(), Vec::new());
        for index in &live {
            let session = *self.session(*index);
            assert!(session.listed <= session.deadline, "it is looked at in time");
            if session.binding == Binding::Mapped {
                let of = (session.kind.index(), session.inside_address, session.inside_port);
                assert_eq!(*mappings.entry(of).or_insert(session.port), session.port, "a mapping has one port");
                ports.insert((session.kind.index(), session.port));
                assert!(self.ports.is_used(session.kind, session.port));
                mapped.push(*index);
            }
            if session.binding != Binding::Forwarded {
                grouped.push(*index);
            }
        }
        assert_eq!(ports.len(), mappings.len(), "no two mappings have the same port");
        assert_eq!(self.ports.count(), ports.len() as u64, "no port is lost");
        self.mappings.check(&mut self.sessions, &grouped);
        self.peers.check(&mut self.sessions, &mapped);
        assert_eq!(self.wheel.check(&mut self.sessions), live.len());
        assert_eq!(self.sources.check(&mut self.sessions), live.len());
        assert_eq!(
            self.counters.created,
            self.counters.expired + self.counters.evicted + self.counters.removed + live.len() as u64
        );
    }
}

#[test]
fn a_session_costs_less_than_256_bytes() {
    // An index of n has less than 8 n / 3 places of 8 bytes, as does each of the four.
    let indexes = 4 * 8 * 8 / 3;
    let bytes = size_of::<Session>() + size_of::<u32>() + indexes;
    println!("{} bytes in the slab, {indexes} in indexes, {bytes} in all", size_of::<Session>());
    assert!(bytes <= 256, "{bytes}");
}

#[test]
fn ports_and_addresses_in_sequence_are_spread() {
    let seed = FixedState::with_seed(7);
    let kind = Kind { transport: Transport::Udp, version: packet::IpVersion::V4 };
    let (mut inside, mut outside) = (Index::new(60_000), Index::new(60_000));
    for number in 0..60_000_u16 {
        let at = Endpoint { address: 0x0a00_0002 + u128::from(number / 200), port: 5000 + number % 200 };
        let remote = Endpoint { address: 0xc633_6401, port: 80 };
        inside.insert(inside_hash(&seed, kind, at, remote), number.into());
        outside.insert(outside_hash(&seed, kind, number, remote), number.into());
    }
    assert!(inside.longest() < 50 && outside.longest() < 50, "{} {}", inside.longest(), outside.longest());
}
