//! What the tables of a bridge know, as plain values, for a data plane that carries on where another ended: after an upgrade, or a crash. Times
//! are what has passed or is left, so the clocks of the two have nothing in common.

use std::time::Instant;

use super::router::SavedNeighbor;
use super::{BridgeId, Datapath, Row};
use nat::SavedSession;

/// What one worker knows of a bridge or an uplink.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SavedBridge {
    /// The MAC addresses that it learned.
    pub addresses: Vec<Row>,
    /// The neighbours of its gateway.
    pub neighbors: Vec<SavedNeighbor>,
    /// The sessions of an uplink's NAT.
    pub sessions: Vec<SavedSession>,
}

impl Datapath {
    /// What is known of a bridge.
    pub fn export(&self, bridge: BridgeId, now: Instant) -> SavedBridge {
        let (mut saved, mut next) = self.export_page(bridge, 0, now);
        while let Some(from) = next {
            let (page, more) = self.export_page(bridge, from, now);
            saved.sessions.extend(page.sessions);
            next = more;
        }
        saved
    }

    /// As [`Datapath::export`], but only as much as takes a moment: with `from` 0 all but most sessions, then more of those. The number is that for the
    /// next call, if there is more ([`nat::Nat::export_page`]).
    pub fn export_page(&self, bridge: BridgeId, from: usize, now: Instant) -> (SavedBridge, Option<usize>) {
        let (sessions, next) = self.router.nat(bridge).map(|nat| nat.export_page(now, from)).unwrap_or_default();
        if from > 0 {
            return (SavedBridge { sessions, ..SavedBridge::default() }, next);
        }
        let second = self.second(now);
        let addresses = self.bridges.get(bridge.0).map(|bridge| bridge.fdb.export(second)).unwrap_or_default();
        (SavedBridge { addresses, neighbors: self.router.export_neighbors(bridge, second), sessions }, next)
    }

    /// Sessions that have begun at all uplinks with translation; `None`: there is no such uplink.
    pub fn sessions_created(&self) -> Option<u64> {
        self.router.nat_counters().map(|(_, counters)| counters.created).reduce(|sum, created| sum + created)
    }

    /// Takes on what another data plane knew of a bridge, as far as it fits the ports, addresses and forwards, which must have been set before.
    /// Returns how many sessions did not. The epoch must be before the oldest of it was seen.
    pub fn import(&mut self, bridge: BridgeId, saved: SavedBridge, now: Instant) -> usize {
        let second = self.second(now);
        let SavedBridge { mut addresses, neighbors, sessions } = saved;
        addresses.retain(|row| self.ports.get(row.place.port.0).is_some_and(|port| port.bridge == bridge));
        if let Some(bridge) = self.bridges.get_mut(bridge.0) {
            bridge.fdb.import(addresses, second);
        }
        self.router.import_neighbors(bridge, &neighbors, second);
        let Some(nat) = self.router.nat_mut(bridge) else { return sessions.len() };
        sessions.iter().filter(|session| nat.import(now, session).is_err()).count()
    }
}
