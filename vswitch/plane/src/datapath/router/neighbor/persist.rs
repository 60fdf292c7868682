//! Neighbours handed over to another router: after an upgrade, or a crash. What waits for a neighbour that has not answered is not.

use std::net::IpAddr;

use packet::Mac;
use serde::{Deserialize, Serialize};

use super::{CONFIRMED, Known, MOST_KNOWN, Neighbors, UNUSED, forget_least_used};
use crate::datapath::BridgeId;

/// A known neighbour as it is handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedNeighbor {
    /// The address.
    pub address: IpAddr,
    /// Its MAC address.
    pub mac: Mac,
    /// Seconds since it was last heard of.
    pub confirmed: u32,
    /// Seconds since the last packet to it, or since it was learned.
    pub used: u32,
    /// Whether a packet was ever for it.
    pub wanted: bool,
}

impl Neighbors {
    /// The known neighbours on a bridge, in no order.
    pub(in crate::datapath) fn export(&self, bridge: BridgeId, now: u32) -> Vec<SavedNeighbor> {
        let known = self.tables.get(bridge.0).into_iter().flat_map(|table| &table.known);
        let saved = known.map(|(address, known)| SavedNeighbor {
            address: *address,
            mac: known.mac,
            confirmed: now.saturating_sub(known.confirmed),
            used: now.saturating_sub(known.used),
            wanted: known.wanted,
        });
        saved.collect()
    }

    /// Takes on neighbours of another router; what this one knows itself stays. `now` is in seconds of this table's clock, which must have begun
    /// before the oldest of them was heard of: else it is taken for younger than it is.
    pub(in crate::datapath) fn import(&mut self, bridge: BridgeId, saved: &[SavedNeighbor], now: u32) {
        let table = self.table(bridge);
        for &SavedNeighbor { address, mac, confirmed, used, wanted } in saved.iter().filter(|saved| saved.used < UNUSED) {
            if mac.is_group() || table.known.contains_key(&address) {
                continue;
            }
            if table.known.len() >= MOST_KNOWN {
                forget_least_used(&mut table.known);
            }
            // One in doubt is asked at once, and given up as any other.
            let confirmed = now.saturating_sub(confirmed.min(CONFIRMED));
            table.known.insert(address, Known { mac, confirmed, used: now.saturating_sub(used), wanted, tries: 0 });
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BRIDGE: BridgeId = BridgeId(3);

    fn sorted(mut saved: Vec<SavedNeighbor>) -> Vec<SavedNeighbor> {
        saved.sort_by_key(|neighbor| neighbor.address);
        saved
    }

    proptest! {
        #[test]
        fn a_router_that_took_on_another_s_neighbours_asks_and_forgets_as_that_would_have(
            heard in prop::collection::vec((0u32..30, any::<bool>(), 0u32..6), 0..60), start in 0u32..10_000,
        ) {
            let address = |number: u32| IpAddr::from(std::net::Ipv4Addr::from(0x0a00_0000 + number));
            let mut old = Neighbors::new(1);
            let mut now = 0;
            for (number, is_used, seconds) in heard {
                now += seconds;
                old.learn(BRIDGE, address(number), Mac::from_u64(0x0200_0000_0000 + u64::from(number)), true, now);
                if is_used {
                    old.find(BRIDGE, address(number), now);
                }
            }
            let mut new = Neighbors::new(2);
            let mut then = now + start;
            new.import(BRIDGE, &old.export(BRIDGE, now), then);
            let capped = |saved: Vec<SavedNeighbor>| {
                sorted(saved.into_iter().map(|saved| SavedNeighbor { confirmed: saved.confirmed.min(CONFIRMED), ..saved }).collect())
            };
            for _ in 0..70 {
                prop_assert_eq!(capped(new.export(BRIDGE, then)), capped(old.export(BRIDGE, now)));
                (now, then) = (now + 10, then + 10);
                let (mut due_old, mut due_new) = (Vec::new(), Vec::new());
                old.tick(now, &mut due_old);
                new.tick(then, &mut due_new);
                prop_assert_eq!(due_new.len(), due_old.len());
            }
            prop_assert_eq!(new.export(BRIDGE, then).len(), 0);
        }
    }
}
