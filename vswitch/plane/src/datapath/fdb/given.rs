//! Addresses that were not learned: the user gave them, or other hosts told of them.

use packet::{Mac, VlanId};

use super::{Fdb, key};
use crate::datapath::{Place, PortId, RemoteStation};

/// Where a fixed entry is, and whether it stays there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Given {
    pub(super) place: Place,
    /// Whether other hosts told of it.
    pub(super) told: bool,
}

impl Given {
    /// Whether an address stays here although it was seen there.
    pub(super) fn outlasts(self, seen: PortId) -> bool {
        !self.told || self.place.port == seen
    }
}

impl Fdb {
    /// Makes these the fixed addresses of a port, each in its VLAN behind a peer, instead of those before.
    pub fn fix(&mut self, port: PortId, addresses: impl Iterator<Item = (VlanId, Mac, u16)>) {
        self.fixed.retain(|_, given| given.place.port != port);
        for (vlan, mac, peer) in addresses {
            self.give(key(vlan, mac), Given { place: Place { port, peer }, told: false });
        }
    }

    /// Makes these the addresses behind a port that other hosts told of, in one VLAN, instead of those that they told `before`; both by MAC address.
    /// What is the same in both is left as it is, for a station may have been seen elsewhere meanwhile.
    pub fn tell(&mut self, port: PortId, vlan: VlanId, before: &[RemoteStation], after: &[RemoteStation]) {
        let peer_in = |list: &[RemoteStation], mac: Mac| {
            list.binary_search_by_key(&mac, |station| station.mac)
                .ok()
                .and_then(|index| list.get(index))
                .map(|found| found.peer)
        };
        for gone in before.iter().filter(|station| peer_in(after, station.mac).is_none()) {
            let key = key(vlan, gone.mac);
            if self.given_at(key).is_some_and(|given| given.told && given.place.port == port) {
                self.fixed.remove(&key);
            }
        }
        for station in after.iter().filter(|station| peer_in(before, station.mac) != Some(station.peer)) {
            let place = Place { port, peer: station.peer };
            if self.given_at(key(vlan, station.mac)).is_none_or(|given| given.told) {
                self.give(key(vlan, station.mac), Given { place, told: true });
            }
        }
    }

    /// Puts a fixed entry in the place of what was learned.
    fn give(&mut self, key: u64, given: Given) {
        if let Some(slot) = self.lines.find(key) {
            self.remove(self.lines.entry(slot).place.port(), slot);
        }
        self.fixed.insert(key, given);
    }

    /// Whether the user gave an address.
    pub fn is_given(&self, vlan: VlanId, mac: Mac) -> bool {
        self.given_at(key(vlan, mac)).is_some_and(|given| !given.told)
    }

    pub(super) fn given_at(&self, key: u64) -> Option<Given> {
        if self.fixed.is_empty() { None } else { self.fixed.get(&key).copied() }
    }
}
