//! The forwarding database: which MAC address is behind which port.
//!
//! **What it holds.** One entry for a VLAN and MAC address (independent learning, IEEE 802.1Q-2022, section 8.8), with the
//! place (the port, and behind a tunnel the peer) and the second of its last frame. Only [`Bridge`](super::bridge) asks and teaches it, once for each frame.
//!
//! **What bounds it.** `capacity` entries of 56 bytes, an array of chain heads of the same count, and a list head for each port.
//! Entries live in a slab that grows to the capacity and is reused; nothing else is allocated.
//!
//! **Ageing.** Each port's entries form a list from the most to the least recently refreshed. Time counts in whole seconds, so
//! a busy address moves to the front of its list once a second, not once a frame, and the oldest entries of all are found at
//! the lists' ends.
//!
//! **Fair eviction.** When the table is full, the port with the most entries loses its oldest one. A port that floods random
//! source addresses soon has the most, and from then on pushes out only its own; a port with a handful of stations keeps them.
//!
//! **Fixed entries** are those that the user gave for a tunnel. They are found first, never move, never age and take no part in
//! evictions; there are as many as the user gave.
//!
//! **Moves.** An address that is seen elsewhere is there from then on. One that moves to and fro, with a tunnel at either end, is held
//! where it was for a while ([`vxlan::Moves`]): two hosts with a loop between them would otherwise move it with every frame.
//!
//! **Hashing** is seeded, so that a station cannot choose addresses that fall into one chain.

use std::collections::HashMap;
use std::hash::BuildHasher;

use arrayvec::ArrayVec;
use foldhash::fast::FixedState;
use packet::{Batch, Mac, VlanId};
use vxlan::{Moves, Verdict};

use super::PortId;
use super::place::{Fixed, Learned, Place, Row};

/// The end of a list or chain.
const NONE: u32 = u32::MAX;
/// Entries with which a table is larger than a cache that is near.
const LARGE: u32 = 4096;
/// Addresses that are looked for ahead: those of a batch.
const FORESEEN: usize = 2 * Batch::FRAMES;

/// The forwarding database of one bridge.
#[derive(Debug)]
pub struct Fdb {
    seed: FixedState,
    capacity: u32,
    /// Seconds after which an unrefreshed entry is forgotten.
    ageing: u32,
    /// Chain heads, a power of two of them.
    heads: Box<[u32]>,
    entries: Vec<Entry>,
    /// Unused entries, chained.
    free: u32,
    owners: Vec<Owner>,
    length: u32,
    evictions: u64,
    fixed: HashMap<u64, Place, FixedState>,
}

/// Aligned so that none lies on two cache lines.
#[derive(Debug, Clone, Copy)]
#[repr(align(32))]
struct Entry {
    key: u64,
    place: Place,
    /// Where it was before it began to move.
    home: Place,
    moves: Moves,
    /// Second of the last frame.
    seen: u32,
    /// Second at which other workers were last told.
    told: u32,
    chain: u32,
    newer: u32,
    older: u32,
}

/// The entries of one port.
#[derive(Debug, Clone, Copy)]
struct Owner {
    count: u32,
    newest: u32,
    oldest: u32,
}

impl Fdb {
    /// An empty table for `capacity` addresses (at least 1), forgotten after `ageing` seconds. `seed` should be random.
    pub fn new(capacity: u32, ageing: u32, seed: u64) -> Self {
        let capacity = capacity.clamp(1, NONE - 1);
        Self {
            seed: FixedState::with_seed(seed),
            capacity,
            ageing,
            heads: vec![NONE; (capacity as usize).next_power_of_two()].into_boxed_slice(),
            entries: Vec::new(),
            free: NONE,
            owners: Vec::new(),
            length: 0,
            evictions: 0,
            fixed: HashMap::with_hasher(FixedState::with_seed(seed)),
        }
    }

    /// Number of addresses.
    pub const fn len(&self) -> usize {
        self.length as usize
    }

    /// Whether it knows no address.
    pub const fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Addresses put out because the table was full.
    pub const fn evictions(&self) -> u64 {
        self.evictions
    }

    /// Where an address is.
    pub fn find(&self, vlan: VlanId, mac: Mac) -> Option<Place> {
        let key = key(vlan, mac);
        if let Some(place) = self.fixed_at(key) {
            return Some(place);
        }
        self.position(key).and_then(|index| self.entries.get(index as usize)).map(|entry| entry.place)
    }

    /// Brings what is known about these addresses into the processor's cache. In a large table every look-up waits for memory
    /// two or three times; here none depends on the one before, so the processor waits for many at a time.
    pub fn foresee(&self, addresses: impl Iterator<Item = (VlanId, Mac)>) {
        if self.length < LARGE {
            return;
        }
        let keys = addresses.map(|(vlan, mac)| key(vlan, mac));
        let mut places: ArrayVec<(u64, u32), FORESEEN> =
            keys.take(FORESEEN).map(|key| (key, self.heads[self.bucket(key)])).collect();
        // Most chains have one entry, nearly all have two.
        for _ in 0..2 {
            let touch = |sum, (_, place): &(u64, u32)| sum ^ self.entries.get(*place as usize).map_or(0, |entry| entry.key);
            std::hint::black_box(places.iter().fold(0, touch));
            places.retain(|(key, place)| match self.entries.get(*place as usize) {
                Some(entry) if entry.key != *key => {
                    *place = entry.chain;
                    true
                }
                _ => false,
            });
        }
    }

    /// Notes that a frame from `mac` came from `place` in second `now`.
    pub fn learn(&mut self, vlan: VlanId, mac: Mac, place: Place, now: u32) -> Learned {
        let key = key(vlan, mac);
        if self.fixed_at(key).is_some() {
            return Learned::Known;
        }
        let Some(index) = self.position(key) else {
            self.insert(key, place, now);
            return Learned::News;
        };
        let entry = &mut self.entries[index as usize];
        if entry.seen == now && entry.place == place {
            return Learned::Known;
        }
        let (mut place, from) = (place, place);
        if entry.place != place && (entry.place.peer | place.peer) != 0 {
            match entry.moves.note(now) {
                Verdict::First => entry.home = entry.place,
                Verdict::Again => {}
                Verdict::Hold => place = entry.home,
                Verdict::Held => return Learned::Held,
            }
        }
        let news = entry.place != place || now.saturating_sub(entry.told) > self.ageing / 4;
        if news {
            entry.told = now;
        }
        entry.seen = now;
        self.unlist(index);
        self.entries[index as usize].place = place;
        self.list(index);
        match (place == from, news) {
            (false, _) => Learned::Held,
            (true, true) => Learned::News,
            (true, false) => Learned::Known,
        }
    }

    /// Makes these the fixed addresses of a port, each in its VLAN behind a peer, instead of those before.
    pub fn fix(&mut self, port: PortId, addresses: impl Iterator<Item = (VlanId, Mac, u16)>) {
        self.fixed.retain(|_, place| place.port != port);
        for (vlan, mac, peer) in addresses {
            if let Some(index) = self.position(key(vlan, mac)) {
                self.remove(index);
            }
            self.fixed.insert(key(vlan, mac), Place { port, peer });
        }
    }

    fn fixed_at(&self, key: u64) -> Option<Place> {
        if self.fixed.is_empty() { None } else { self.fixed.get(&key).copied() }
    }

    /// Forgets addresses whose last frame is longer ago than the ageing time.
    pub fn expire(&mut self, now: u32) {
        for owner in 0..self.owners.len() {
            while let Some(entry) = self.entries.get(self.owners[owner].oldest as usize) {
                if now.saturating_sub(entry.seen) < self.ageing {
                    break;
                }
                self.remove(self.owners[owner].oldest);
            }
        }
    }

    /// Forgets what was learned at one place.
    pub fn forget_place(&mut self, place: Place) {
        let mut next = self.owners.get(place.port.index()).map_or(NONE, |owner| owner.newest);
        while let Some(entry) = self.entries.get(next as usize).copied() {
            if entry.place == place {
                self.remove(next);
            }
            next = entry.older;
        }
    }

    /// Forgets the addresses of a port, also those that were given.
    pub fn forget_port(&mut self, port: PortId) {
        self.fixed.retain(|_, place| place.port != port);
        while let Some(owner) = self.owners.get(port.index()).filter(|owner| owner.count > 0) {
            self.remove(owner.oldest);
        }
    }

    /// Forgets everything that was learned.
    pub fn clear(&mut self) {
        self.heads.fill(NONE);
        self.entries.clear();
        self.owners.clear();
        self.free = NONE;
        self.length = 0;
    }

    /// Takes on other limits; the oldest addresses of the largest ports go if there are too many.
    pub fn resize(&mut self, capacity: u32, ageing: u32, now: u32) {
        self.ageing = ageing;
        if capacity == self.capacity {
            return;
        }
        let mut rows = self.rows(now);
        rows.sort_by_key(|row| std::cmp::Reverse(row.age));
        let mut fresh = Self { seed: self.seed.clone(), evictions: self.evictions, ..Self::new(capacity, ageing, 0) };
        fresh.fixed = std::mem::replace(&mut self.fixed, HashMap::with_hasher(self.seed.clone()));
        for row in rows.into_iter().filter(|row| row.fixed != Fixed::Given) {
            fresh.learn(row.vlan, row.mac, row.place, now.saturating_sub(row.age));
        }
        *self = fresh;
    }

    /// All addresses, in no order.
    pub fn rows(&self, now: u32) -> Vec<Row> {
        let mut rows = Vec::with_capacity(self.len() + self.fixed.len());
        rows.extend(self.fixed.iter().map(|(key, place)| {
            let (vlan, mac) = unkey(*key);
            Row { vlan, mac, place: *place, age: 0, fixed: Fixed::Given }
        }));
        for owner in &self.owners {
            let mut next = owner.newest;
            while let Some(entry) = self.entries.get(next as usize) {
                let (vlan, mac) = unkey(entry.key);
                let fixed = if entry.moves.is_held(now) { Fixed::Held } else { Fixed::No };
                rows.push(Row { vlan, mac, place: entry.place, age: now.saturating_sub(entry.seen), fixed });
                next = entry.older;
            }
        }
        rows
    }

    fn bucket(&self, key: u64) -> usize {
        // The mask keeps it below the length, which fits.
        #[allow(clippy::cast_possible_truncation)]
        let hash = self.seed.hash_one(key) as usize;
        hash & (self.heads.len() - 1)
    }

    fn position(&self, key: u64) -> Option<u32> {
        let mut next = self.heads[self.bucket(key)];
        while let Some(entry) = self.entries.get(next as usize) {
            if entry.key == key {
                return Some(next);
            }
            next = entry.chain;
        }
        None
    }

    fn insert(&mut self, key: u64, place: Place, now: u32) {
        if self.length == self.capacity {
            self.evict();
        }
        let bucket = self.bucket(key);
        let chain = self.heads[bucket];
        let moves = Moves::default();
        let entry = Entry { key, place, home: place, moves, seen: now, told: now, chain, newer: NONE, older: NONE };
        let index = match self.entries.get(self.free as usize) {
            Some(unused) => std::mem::replace(&mut self.free, unused.chain),
            None => {
                self.entries.push(entry);
                u32::try_from(self.entries.len() - 1).unwrap_or(NONE)
            }
        };
        self.entries[index as usize] = entry;
        self.heads[bucket] = index;
        self.length += 1;
        self.list(index);
    }

    fn evict(&mut self) {
        if let Some(largest) = self.owners.iter().max_by_key(|owner| owner.count) {
            self.remove(largest.oldest);
            self.evictions += 1;
        }
    }

    fn remove(&mut self, index: u32) {
        self.unlist(index);
        let Entry { key, chain, .. } = self.entries[index as usize];
        let bucket = self.bucket(key);
        if self.heads[bucket] == index {
            self.heads[bucket] = chain;
        } else {
            let mut before = self.heads[bucket];
            while self.entries[before as usize].chain != index {
                before = self.entries[before as usize].chain;
            }
            self.entries[before as usize].chain = chain;
        }
        self.entries[index as usize].chain = self.free;
        self.free = index;
        self.length -= 1;
    }

    /// Puts an entry at the front of its port's list.
    fn list(&mut self, index: u32) {
        let port = self.entries[index as usize].place.port.index();
        if port >= self.owners.len() {
            self.owners.resize(port + 1, Owner { count: 0, newest: NONE, oldest: NONE });
        }
        let owner = &mut self.owners[port];
        let second = std::mem::replace(&mut owner.newest, index);
        owner.count += 1;
        if second == NONE {
            owner.oldest = index;
        } else {
            self.entries[second as usize].newer = index;
        }
        let entry = &mut self.entries[index as usize];
        (entry.newer, entry.older) = (NONE, second);
    }

    /// Takes an entry out of its port's list.
    fn unlist(&mut self, index: u32) {
        let Entry { place, newer, older, .. } = self.entries[index as usize];
        let owner = &mut self.owners[place.port.index()];
        owner.count -= 1;
        if newer == NONE {
            owner.newest = older;
        } else {
            self.entries[newer as usize].older = older;
        }
        if older == NONE {
            owner.oldest = newer;
        } else {
            self.entries[older as usize].newer = newer;
        }
    }
}

fn key(vlan: VlanId, mac: Mac) -> u64 {
    u64::from(vlan.number()) << 48 | mac.to_u64()
}

fn unkey(key: u64) -> (VlanId, Mac) {
    let [high, low, ..] = key.to_be_bytes();
    (VlanId::try_from(u16::from_be_bytes([high, low])).unwrap_or(VlanId::DEFAULT), Mac::from_u64(key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    const ONE: VlanId = VlanId::DEFAULT;

    fn mac(number: u64) -> Mac {
        Mac::from_u64(0x0200_0000_0000 + number)
    }

    fn port(number: u32) -> Place {
        PortId(number).into()
    }

    #[test]
    fn an_address_is_found_in_its_vlan_only() {
        let mut fdb = Fdb::new(8, 300, 1);
        assert_eq!(fdb.learn(ONE, mac(1), port(3), 0), Learned::News);
        assert_eq!(fdb.find(ONE, mac(1)), Some(port(3)));
        assert_eq!(fdb.find(VlanId::try_from(2).unwrap(), mac(1)), None);
        assert_eq!(fdb.find(ONE, mac(2)), None);
    }

    #[test]
    fn an_address_that_moves_is_relearned_at_once() {
        let mut fdb = Fdb::new(8, 300, 1);
        fdb.learn(ONE, mac(1), port(3), 0);
        assert_eq!(fdb.learn(ONE, mac(1), port(4), 0), Learned::News);
        assert_eq!(fdb.find(ONE, mac(1)), Some(port(4)));
        assert_eq!(fdb.len(), 1);
        fdb.forget_port(PortId(3));
        assert_eq!(fdb.len(), 1, "it no longer belongs to its first port");
    }

    #[test]
    fn an_address_ages_from_its_last_frame() {
        let mut fdb = Fdb::new(8, 300, 1);
        fdb.learn(ONE, mac(1), port(1), 0);
        fdb.learn(ONE, mac(2), port(1), 0);
        fdb.learn(ONE, mac(1), port(1), 200);
        fdb.expire(299);
        assert_eq!(fdb.len(), 2);
        fdb.expire(300);
        assert_eq!((fdb.find(ONE, mac(1)), fdb.find(ONE, mac(2))), (Some(port(1)), None));
        fdb.expire(500);
        assert!(fdb.is_empty());
    }

    #[test]
    fn others_hear_again_after_a_quarter_of_the_ageing_time() {
        let mut fdb = Fdb::new(8, 300, 1);
        fdb.learn(ONE, mac(1), port(1), 0);
        assert_eq!(fdb.learn(ONE, mac(1), port(1), 75), Learned::Known);
        assert_eq!(fdb.learn(ONE, mac(1), port(1), 76), Learned::News);
        assert_eq!(fdb.learn(ONE, mac(1), port(1), 77), Learned::Known);
    }

    fn behind(port: u32, peer: u16) -> Place {
        Place { port: PortId(port), peer }
    }

    #[test]
    fn an_address_that_moves_to_and_fro_with_a_tunnel_is_held_where_it_was() {
        let mut fdb = Fdb::new(8, 300, 1);
        let (home, tunnel) = (port(1), behind(2, 1));
        fdb.learn(ONE, mac(1), home, 100);
        let learned: Vec<Learned> =
            (0..20).map(|turn| fdb.learn(ONE, mac(1), if turn % 2 == 0 { tunnel } else { home }, 100)).collect();
        assert_eq!(fdb.find(ONE, mac(1)), Some(home));
        assert_eq!(learned[..5], [Learned::News; 5]);
        assert!(learned[6..].iter().step_by(2).all(|learned| *learned == Learned::Held), "{learned:?}");
        assert!(learned[7..].iter().step_by(2).all(|learned| *learned != Learned::Held), "its home is heard");
        assert_eq!(fdb.rows(100)[0].fixed, Fixed::Held);
        assert_eq!(fdb.learn(ONE, mac(1), tunnel, 110), Learned::News, "after a while it may move again");
    }

    #[test]
    fn between_local_ports_an_address_moves_as_often_as_it_likes() {
        let mut fdb = Fdb::new(8, 300, 1);
        for turn in 0..100 {
            assert_eq!(fdb.learn(ONE, mac(1), port(turn % 2), 0), Learned::News);
        }
    }

    #[test]
    fn a_fixed_address_neither_moves_nor_ages_and_survives_a_flush() {
        let mut fdb = Fdb::new(8, 300, 1);
        fdb.learn(ONE, mac(1), port(5), 0);
        fdb.fix(PortId(2), [(ONE, mac(1), 3)].into_iter());
        assert_eq!((fdb.find(ONE, mac(1)), fdb.len()), (Some(behind(2, 3)), 0));
        assert_eq!(fdb.learn(ONE, mac(1), port(5), 0), Learned::Known);
        fdb.expire(1000);
        fdb.clear();
        fdb.resize(4, 10, 1000);
        assert_eq!(fdb.find(ONE, mac(1)), Some(behind(2, 3)));
        fdb.fix(PortId(2), [].into_iter());
        assert_eq!(fdb.find(ONE, mac(1)), None);
        fdb.fix(PortId(2), [(ONE, mac(1), 3)].into_iter());
        fdb.forget_port(PortId(2));
        assert_eq!(fdb.find(ONE, mac(1)), None);
    }

    #[test]
    fn only_what_was_behind_a_peer_is_forgotten_with_it() {
        let mut fdb = Fdb::new(64, 300, 1);
        for number in 0..30_u16 {
            fdb.learn(ONE, mac(number.into()), behind(1, number % 3 + 1), 0);
        }
        fdb.forget_place(behind(1, 2));
        assert_eq!(fdb.len(), 20);
        assert!(fdb.rows(0).iter().all(|row| row.place.peer != 2));
    }

    #[test]
    fn a_flooding_port_pushes_out_only_its_own() {
        let mut fdb = Fdb::new(1000, 300, 1);
        for quiet in 0..10 {
            for station in 0..20 {
                fdb.learn(ONE, mac(u64::from(quiet) * 100 + station), port(quiet), 0);
            }
        }
        for random in 0..100_000 {
            fdb.learn(ONE, mac(1_000_000 + random), port(99), 1);
        }
        assert_eq!(fdb.len(), 1000);
        assert_eq!(fdb.evictions(), 100_200 - 1000);
        for quiet in 0..10 {
            for station in 0..20 {
                assert_eq!(fdb.find(ONE, mac(u64::from(quiet) * 100 + station)), Some(port(quiet)));
            }
        }
        assert!(fdb.entries.len() <= 1000, "memory stays within the cap");
    }

    #[test]
    fn a_newcomer_gets_room_from_the_largest_port() {
        let mut fdb = Fdb::new(10, 300, 1);
        for station in 0..10 {
            fdb.learn(ONE, mac(station), port(1), 0);
        }
        fdb.learn(ONE, mac(100), port(2), 0);
        assert_eq!(fdb.find(ONE, mac(100)), Some(port(2)));
        assert_eq!(fdb.find(ONE, mac(0)), None, "the oldest of the largest went");
        assert_eq!(fdb.find(ONE, mac(1)), Some(port(1)));
    }

    #[test]
    fn a_smaller_table_keeps_the_youngest() {
        let mut fdb = Fdb::new(100, 300, 1);
        for second in 0..100 {
            fdb.learn(ONE, mac(second), port(1), u32::try_from(second).unwrap());
        }
        fdb.resize(10, 60, 100);
        assert_eq!(fdb.len(), 10);
        assert_eq!(fdb.find(ONE, mac(99)), Some(port(1)));
        assert_eq!(fdb.find(ONE, mac(89)), None);
        fdb.expire(160);
        assert!(fdb.is_empty(), "the new ageing time counts");
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_plain_map(steps in prop::collection::vec((0u64..40, 0u32..5, 0u32..3, 0u8..20), 0..300)) {
            let mut fdb = Fdb::new(64, 30, 7);
            let mut map: HashMap<u64, (u32, u32)> = HashMap::new();
            let mut now = 0;
            for (number, owner, seconds, action) in steps {
                now += seconds;
                match action {
                    0 => { fdb.forget_port(PortId(owner)); map.retain(|_, (at, _)| *at != owner); }
                    1 => { fdb.expire(now); map.retain(|_, (_, seen)| now - *seen < 30); }
                    2 => { fdb.clear(); map.clear(); }
                    _ => { fdb.learn(ONE, mac(number), port(owner), now); map.insert(number, (owner, now)); }
                }
                prop_assert_eq!(fdb.len(), map.len());
                for (&number, &(owner, _)) in &map {
                    prop_assert_eq!(fdb.find(ONE, mac(number)), Some(port(owner)));
                }
                prop_assert_eq!(fdb.rows(now).len(), map.len());
            }
        }
    }
}
