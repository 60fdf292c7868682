//! The forwarding database: which MAC address is behind which port.
//!
//! **What it holds.** One entry for a VLAN and MAC address (independent learning, IEEE 802.1Q-2022, section 8.8), with the
//! place (the port, and behind a tunnel the peer) and the second of its last frame. Only [`Bridge`](super::bridge) asks and teaches it, once
//! for each frame.
//!
//! **How it is laid out.** What every frame needs is in buckets of one cache line (`lines`). What an address needs once a
//! second at most (its port's list, when others were told, how it moved) is in arrays beside them, by the same number of a slot. So a look-up,
//! and learning what is known already, cost one cache line each, and those of a batch are fetched together
//! ([`Fdb::prefetch`]): a large table is slower by what its lines take from the second or third cache, not by what memory takes.
//!
//! **What bounds it.** `capacity` addresses. The table doubles when half of its slots are used, and is made smaller again once
//! less than an eighth of it would do; so it has at most four slots, of 41 bytes each, for each of the most addresses it had,
//! and a hundred addresses are as near to the processor in a table made for a million as in one made for a hundred.
//! To double moves all addresses once, which takes a millisecond or less for 4,000 and about 10 for 65,536; nothing is allocated
//! otherwise.
//!
//! **Ageing.** Each port's entries form a list from the most to the least recently refreshed. Time counts in whole seconds, so
//! a busy address moves to the front of its list once a second, not once a frame, and the oldest entries of all are found at
//! the lists' ends.
//!
//! **Fair eviction.** When the table is full, the port with the most entries loses its oldest one. A port that floods random
//! source addresses soon has the most, and from then on pushes out only its own; a port with a handful of stations keeps them.
//!
//! **Fixed entries** are those that the user gave for a tunnel. They are found first, never move, never age and take no part in
//! evictions; there are as many as the user gave. Those that other hosts told of ([`Fdb::tell`]) are the same, but that they give way to a sight of
//! the address at another port: the station has moved here, and the others will hear of it.
//!
//! **Moves.** An address that is seen elsewhere is there from then on. One that moves to and fro is held where it was for a while
//! ([`vxlan::Moves`]). In a loop, of two ports or of two hosts, every frame would otherwise move it, go round again, and be sent to all.
//! While an address is held, the bridge lets little pass of what it floods ([`Fdb::is_held`]).
//!
//! **Hashing** is seeded, so that a station cannot choose addresses that fall into one bucket.

mod changes;
mod given;
mod lines;
mod lists;
mod persist;
mod sight;

use std::collections::HashMap;

use foldhash::fast::FixedState;
use packet::{Mac, VlanId};
use vxlan::Moves;

use super::PortId;
use super::place::{Fixed, Hold, Learned, MacMove, MacMoves, Place, Row};
pub use changes::{MacChange, MacChanges, MacNews};
use given::Given;
use lines::{Entry, Lines, Packed};
use lists::Lists;
use sight::Sight;

/// Most addresses for which a table can be made.
const MOST: u32 = 1 << 28;

/// The forwarding database of one bridge.
#[derive(Debug)]
pub struct Fdb {
    capacity: u32,
    /// Seconds after which an unrefreshed entry is forgotten.
    ageing: u32,
    lines: Lines,
    lists: Lists,
    /// For each slot, what is needed once a second at most.
    beside: Box<[Beside]>,
    evictions: u64,
    moves: MacMoves,
    changes: MacChanges,
    fixed: HashMap<u64, Given, FixedState>,
    /// What was held last, until it is taken.
    hold: Option<Hold>,
    /// The second in which nothing is held any more.
    held_until: u32,
}

/// What is kept of an address beside its line.
#[derive(Debug, Clone, Copy)]
struct Beside {
    /// Second at which other workers were last told.
    told: u32,
    /// Where it was before it began to move.
    home: Packed,
    moves: Moves,
}

impl Fdb {
    /// An empty table for `capacity` addresses (at least 1), forgotten after `ageing` seconds. `seed` should be random.
    pub fn new(capacity: u32, ageing: u32, seed: u64) -> Self {
        Self::empty(capacity, ageing, 0, FixedState::with_seed(seed))
    }

    /// A table without addresses, with slots for `length`.
    fn empty(capacity: u32, ageing: u32, length: u32, seed: FixedState) -> Self {
        let lines = Lines::new(length, seed);
        let slots = lines.slots() as usize;
        let beside = Beside { told: 0, home: Packed::default(), moves: Moves::default() };
        let (lists, beside) = (Lists::new(slots), vec![beside; slots].into());
        let fixed = HashMap::with_hasher(lines.seed());
        Self {
            capacity: capacity.clamp(1, MOST),
            ageing,
            lines,
            lists,
            beside,
            evictions: 0,
            moves: MacMoves::default(),
            changes: MacChanges::default(),
            fixed,
            hold: None,
            held_until: 0,
        }
    }

    /// Number of addresses.
    pub const fn len(&self) -> usize {
        self.lines.len() as usize
    }

    /// Whether it knows no address.
    pub const fn is_empty(&self) -> bool {
        self.lines.len() == 0
    }

    /// Addresses put out because the table was full.
    pub const fn evictions(&self) -> u64 {
        self.evictions
    }

    /// How often addresses moved.
    pub const fn moves(&self) -> MacMoves {
        self.moves
    }

    /// Where an address is.
    pub fn find(&self, vlan: VlanId, mac: Mac) -> Option<Place> {
        let key = key(vlan, mac);
        if let Some(given) = self.given_at(key) {
            return Some(given.place);
        }
        self.lines.find(key).map(|slot| self.lines.entry(slot).place.into())
    }

    /// Brings what is known about these addresses into the processor's cache: it waits for many of a batch at a time, where
    /// look-ups would wait for one after the other.
    pub fn prefetch(&self, addresses: impl Iterator<Item = (VlanId, Mac)>) {
        self.lines.touch(addresses.map(|(vlan, mac)| key(vlan, mac)));
    }

    /// Notes that a frame from `mac` came from `place` in second `now`.
    pub fn learn(&mut self, vlan: VlanId, mac: Mac, place: Place, now: u32) -> Learned {
        // No port is above the most.
        let (port, Some(place)) = (place.port, Packed::new(place)) else { return Learned::Known };
        let fresh = Entry { key: key(vlan, mac), place, seen: now };
        match self.given_at(fresh.key) {
            Some(given) if given.outlasts(port) => return Learned::Known,
            Some(_) => drop(self.fixed.remove(&fresh.key)),
            None => {}
        }
        let Some(slot) = self.lines.find(fresh.key) else {
            self.insert(fresh);
            return Learned::News;
        };
        let known = self.lines.entry(slot);
        if known.seen == now && known.place == place { Learned::Known } else { self.refresh(slot, known, fresh) }
    }

    /// What [`Fdb::learn`] would say now. Nothing changes.
    pub fn peek_learn(&self, vlan: VlanId, mac: Mac, place: Place, now: u32) -> Learned {
        let (port, Some(place)) = (place.port, Packed::new(place)) else { return Learned::Known };
        let seen = Entry { key: key(vlan, mac), place, seen: now };
        if self.given_at(seen.key).is_some_and(|given| given.outlasts(port)) {
            return Learned::Known;
        }
        match self.lines.find(seen.key) {
            Some(slot) => self.judge(slot, self.lines.entry(slot), seen).learned,
            None => Learned::News,
        }
    }

    /// Notes that an address was seen in another second or place than before.
    fn refresh(&mut self, slot: u32, known: Entry, seen: Entry) -> Learned {
        if known.place.port() != seen.place.port() {
            let ((vlan, mac), [from, to]) = (unkey(seen.key), [known.place, seen.place].map(|place| Place::from(place).port));
            self.moves = MacMoves { count: self.moves.count + 1, last: Some(MacMove { vlan, mac, from, to }) };
        }
        let Sight { beside, fresh, is_hold, learned } = self.judge(slot, known, seen);
        self.beside[slot as usize] = beside;
        let Some(fresh) = fresh else { return learned };
        if is_hold {
            self.held_until = seen.seen.saturating_add(Moves::HOLD);
            let away = if seen.place == beside.home { known.place } else { seen.place };
            let (vlan, mac) = unkey(seen.key);
            self.hold = Some(Hold { vlan, mac, home: fresh.place.into(), away: away.into() });
        }
        self.lines.set(slot, fresh);
        self.lists.remove(known.place.port(), slot);
        self.lists.push(fresh.place.port(), slot);
        let [from, to] = [known.place, fresh.place].map(|place| Place::from(place).port);
        if from != to {
            self.note(fresh, MacChange::Moved(from));
        }
        learned
    }

    /// The address that began to be held last, if it was not taken before.
    pub const fn take_hold(&mut self) -> Option<Hold> {
        self.hold.take()
    }

    /// What became of addresses since it was last asked.
    pub fn take_changes(&mut self) -> MacChanges {
        std::mem::take(&mut self.changes)
    }

    /// Whether an address is held where it is.
    pub fn is_held(&self, vlan: VlanId, mac: Mac, now: u32) -> bool {
        let moves = |slot: u32| self.beside[slot as usize].moves;
        now < self.held_until && self.lines.find(key(vlan, mac)).is_some_and(|slot| moves(slot).is_held(now))
    }

    /// Forgets addresses whose last frame is longer ago than the ageing time.
    pub fn expire(&mut self, now: u32) {
        for port in 0..self.lists.ports() {
            while let Some(slot) = self.lists.oldest(port)
                && now.saturating_sub(self.lines.entry(slot).seen) >= self.ageing
            {
                self.remove(port, slot);
            }
        }
        if self.lines.is_sparse() {
            self.rebuild(self.lines.len());
        }
    }

    /// Forgets what was learned at one place.
    pub fn forget_place(&mut self, place: Place) {
        let there = |slot: &u32| Place::from(self.lines.entry(*slot).place) == place;
        let gone: Vec<u32> = self.lists.slots().filter(there).collect();
        gone.into_iter().for_each(|slot| self.remove(place.port.index(), slot));
    }

    /// Forgets what was learned at a port, or of a MAC address in every VLAN; with both, of that address at that port.
    pub fn forget(&mut self, port: Option<PortId>, mac: Option<Mac>) {
        let there = |slot| {
            let Entry { key, place, .. } = self.lines.entry(slot);
            let at = Place::from(place).port;
            let meant = port.is_none_or(|port| port == at) && mac.is_none_or(|mac| unkey(key).1 == mac);
            meant.then_some((at, slot))
        };
        let gone: Vec<(PortId, u32)> = self.lists.slots().filter_map(there).collect();
        gone.into_iter().for_each(|(port, slot)| self.remove(port.index(), slot));
    }

    /// Forgets the addresses of a port, also those that were given.
    pub fn forget_port(&mut self, port: PortId) {
        self.fixed.retain(|_, given| given.place.port != port);
        while let Some(slot) = self.lists.oldest(port.index()) {
            self.remove(port.index(), slot);
        }
    }

    /// Forgets everything that was learned.
    pub fn clear(&mut self) {
        self.start_anew(0);
    }

    /// Takes on other limits; the oldest addresses of the largest ports go if there are too many.
    pub fn resize(&mut self, capacity: u32, ageing: u32, now: u32) {
        (self.capacity, self.ageing) = (capacity.clamp(1, MOST), ageing);
        self.expire(now);
        while self.lines.len() > self.capacity {
            self.evict();
        }
    }

    /// All addresses, in no order.
    pub fn rows(&self, now: u32) -> Vec<Row> {
        let row = |slot| {
            let Entry { key, place, seen } = self.lines.entry(slot);
            let (vlan, mac) = unkey(key);
            let fixed = if self.beside[slot as usize].moves.is_held(now) { Fixed::Held } else { Fixed::No };
            Row { vlan, mac, place: place.into(), age: now.saturating_sub(seen), fixed }
        };
        let given = self.fixed.iter().map(|(key, given)| {
            let (vlan, mac) = unkey(*key);
            Row { vlan, mac, place: given.place, age: 0, fixed: Fixed::Given }
        });
        given.chain(self.lists.slots().map(row)).collect()
    }

    fn insert(&mut self, entry: Entry) {
        if self.lines.len() >= self.capacity {
            self.evict();
        }
        if self.lines.is_full() {
            self.rebuild(self.lines.len() + 1);
        }
        self.note(entry, MacChange::Learned);
        self.put(entry, Beside { told: entry.seen, home: entry.place, moves: Moves::default() });
    }

    fn put(&mut self, entry: Entry, beside: Beside) {
        let slot = self.lines.insert(entry);
        self.beside[slot as usize] = beside;
        self.lists.push(entry.place.port(), slot);
    }

    /// Moves all addresses to a table with slots for `length`.
    fn rebuild(&mut self, length: u32) {
        let old = self.start_anew(length);
        for slot in old.lists.slots() {
            self.put(old.lines.entry(slot), old.beside[slot as usize]);
        }
    }

    /// Puts an empty table with slots for `length` in the place of this one, which it returns without its fixed addresses.
    fn start_anew(&mut self, length: u32) -> Self {
        let fixed = std::mem::replace(&mut self.fixed, HashMap::with_hasher(self.lines.seed()));
        let empty = Self::empty(self.capacity, self.ageing, length, self.lines.seed());
        let changes = std::mem::take(&mut self.changes);
        let (evictions, moves, hold, held_until) = (self.evictions, self.moves, self.hold, self.held_until);
        std::mem::replace(self, Self { evictions, moves, changes, fixed, hold, held_until, ..empty })
    }

    fn evict(&mut self) {
        let largest = self.lists.largest();
        if let Some(slot) = self.lists.oldest(largest) {
            self.note(self.lines.entry(slot), MacChange::Evicted);
            self.remove(largest, slot);
            self.evictions += 1;
        }
    }

    fn note(&mut self, entry: Entry, change: MacChange) {
        let (vlan, mac) = unkey(entry.key);
        self.changes.note(MacNews { vlan, mac, port: Place::from(entry.place).port, change });
    }

    fn remove(&mut self, port: usize, slot: u32) {
        self.lists.remove(port, slot);
        self.lines.remove(slot);
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
    use crate::datapath::RemoteStation;
    use proptest::prelude::*;
    use std::collections::HashMap;
    use vxlan::Verdict;

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
    fn moves_are_counted_with_both_ports_also_of_what_is_held() {
        let mut fdb = Fdb::new(8, 300, 1);
        fdb.learn(ONE, mac(1), port(3), 0);
        fdb.learn(ONE, mac(1), port(3), 1);
        assert_eq!(fdb.moves(), MacMoves::default());
        fdb.learn(ONE, mac(1), port(4), 1);
        let last = Some(MacMove { vlan: ONE, mac: mac(1), from: PortId(3), to: PortId(4) });
        assert_eq!(fdb.moves(), MacMoves { count: 1, last });
        let tunnel = Place { port: PortId(5), peer: 1 };
        for _ in 0..20 {
            fdb.learn(ONE, mac(1), tunnel, 1);
            fdb.learn(ONE, mac(1), port(4), 1);
        }
        assert!(fdb.moves().count > 20, "{:?}", fdb.moves());
        fdb.clear();
        assert!(fdb.moves().count > 20, "a flush makes nothing undone");
    }

    #[test]
    fn what_became_of_addresses_is_told_once_and_never_more_than_fits() {
        let news = |number, port, change| MacNews { vlan: ONE, mac: mac(number), port: PortId(port), change };
        let mut fdb = Fdb::new(2, 300, 1);
        fdb.learn(ONE, mac(1), port(3), 0);
        fdb.learn(ONE, mac(1), port(3), 100);
        fdb.learn(ONE, mac(2), port(3), 100);
        fdb.learn(ONE, mac(1), port(4), 100);
        fdb.learn(ONE, mac(3), port(3), 101);
        let expected = [
            news(1, 3, MacChange::Learned),
            news(2, 3, MacChange::Learned),
            news(1, 4, MacChange::Moved(PortId(3))),
            news(1, 4, MacChange::Evicted),
            news(3, 3, MacChange::Learned),
        ];
        let told = fdb.take_changes();
        assert_eq!((told.first.as_slice(), told.more), (expected.as_slice(), 0));
        assert!(fdb.take_changes().is_empty());
        for number in 0..1000 {
            fdb.learn(ONE, mac(100 + number), port(3), 102);
        }
        let told = fdb.take_changes();
        assert_eq!(told.first.len() as u64 + told.more, 2 * 1000);
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

    #[test]
    fn what_other_hosts_told_gives_way_to_a_sight_of_it_here_until_they_tell_otherwise() {
        let told = |number, peer| RemoteStation { mac: mac(number), peer, ip: None };
        let (one, two) = ([told(1, 4), told(2, 4)], [told(1, 4), told(2, 5)]);
        let mut fdb = Fdb::new(8, 300, 1);
        fdb.learn(ONE, mac(1), port(3), 0);
        fdb.tell(PortId(9), ONE, &[], &one);
        assert_eq!(fdb.find(ONE, mac(1)), Some(behind(9, 4)), "it has moved away");
        assert_eq!(fdb.learn(ONE, mac(1), behind(9, 5), 1), Learned::Known, "its tunnel says nothing new");
        assert_eq!(fdb.peek_learn(ONE, mac(1), port(3), 1), Learned::News);
        assert_eq!(fdb.learn(ONE, mac(1), port(3), 1), Learned::News);
        assert_eq!(fdb.find(ONE, mac(1)), Some(port(3)), "it is back");
        // The others have not heard of it yet.
        fdb.tell(PortId(9), ONE, &one, &two);
        assert_eq!((fdb.find(ONE, mac(1)), fdb.find(ONE, mac(2))), (Some(port(3)), Some(behind(9, 5))));
        fdb.tell(PortId(9), ONE, &two, &two[1..]);
        assert_eq!(fdb.find(ONE, mac(1)), Some(port(3)));
        fdb.tell(PortId(9), ONE, &two[1..], &[]);
        assert_eq!((fdb.find(ONE, mac(2)), fdb.rows(1).len()), (None, 1));
        // What the user gave stays.
        fdb.fix(PortId(7), [(ONE, mac(5), 1)].into_iter());
        fdb.tell(PortId(9), ONE, &[], &[told(5, 4)]);
        assert_eq!(fdb.learn(ONE, mac(5), port(3), 1), Learned::Known);
        assert_eq!(fdb.find(ONE, mac(5)), Some(behind(7, 1)));
    }

    fn behind(port: u32, peer: u16) -> Place {
        Place { port: PortId(port), peer }
    }

    #[test]
    fn an_address_that_moves_to_and_fro_is_held_where_it_was_and_named() {
        for away in [behind(2, 1), port(2)] {
            let mut fdb = Fdb::new(8, 300, 1);
            let home = port(1);
            fdb.learn(ONE, mac(1), home, 100);
            let learned: Vec<Learned> =
                (0..20).map(|turn| fdb.learn(ONE, mac(1), if turn % 2 == 0 { away } else { home }, 100)).collect();
            assert_eq!(fdb.find(ONE, mac(1)), Some(home));
            assert_eq!(learned[..5], [Learned::News; 5]);
            assert!(learned[6..].iter().step_by(2).all(|learned| *learned == Learned::Held), "{learned:?}");
            assert!(learned[7..].iter().step_by(2).all(|learned| *learned != Learned::Held), "its home is heard");
            assert_eq!(fdb.rows(100)[0].fixed, Fixed::Held);
            assert!(fdb.is_held(ONE, mac(1), 109) && !fdb.is_held(ONE, mac(1), 110) && !fdb.is_held(ONE, mac(2), 100));
            assert_eq!(fdb.take_hold(), Some(Hold { vlan: ONE, mac: mac(1), home, away }));
            assert_eq!(fdb.take_hold(), None);
            assert_eq!(fdb.learn(ONE, mac(1), away, 110), Learned::News, "after a while it may move again");
        }
    }

    #[test]
    fn an_address_that_moves_now_and_then_is_always_followed() {
        let mut fdb = Fdb::new(8, 300, 1);
        for turn in 0..100 {
            assert_eq!(fdb.learn(ONE, mac(1), port(turn % 2), turn * 2), Learned::News);
        }
        assert_eq!(fdb.take_hold(), None);
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
    fn one_address_or_one_ports_addresses_can_be_forgotten() {
        let filled = || {
            let mut fdb = Fdb::new(64, 300, 1);
            for number in 0..12_u32 {
                fdb.learn(ONE, mac(number.into()), port(number % 3), 0);
            }
            fdb
        };
        let forgotten = |port, mac| {
            let mut fdb = filled();
            fdb.forget(port, mac);
            12 - fdb.len()
        };
        assert_eq!(forgotten(Some(PortId(1)), None), 4);
        assert_eq!(forgotten(None, Some(mac(7))), 1);
        assert_eq!(forgotten(Some(PortId(1)), Some(mac(7))), 1);
        assert_eq!(forgotten(Some(PortId(2)), Some(mac(7))), 0, "it is at another port");
        assert_eq!(forgotten(None, None), 12);
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
        assert!(fdb.lines.slots() <= 2048, "memory stays within the cap");
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

    #[test]
    fn a_tunnels_peers_are_places_of_their_own() {
        let behind = |peer| Place { port: PortId(3), peer };
        let mut fdb = Fdb::new(8, 300, 1);
        fdb.learn(ONE, mac(1), behind(65_535), 0);
        assert_eq!(fdb.find(ONE, mac(1)), Some(behind(65_535)));
        assert_eq!(fdb.learn(ONE, mac(1), behind(2), 0), Learned::News, "it moved");
        assert_eq!(fdb.find(ONE, mac(1)), Some(behind(2)));
        fdb.forget_port(PortId(3));
        assert!(fdb.is_empty());
    }

    #[test]
    fn the_highest_port_number_is_learned_and_none_above() {
        let mut fdb = Fdb::new(8, 300, 1);
        fdb.learn(ONE, mac(1), port(PortId::MOST), 0);
        assert_eq!(fdb.find(ONE, mac(1)), Some(port(PortId::MOST)));
        assert_eq!(fdb.learn(ONE, mac(2), port(PortId::MOST + 1), 0), Learned::Known);
        assert_eq!(fdb.find(ONE, mac(2)), None);
    }

    #[test]
    fn memory_grows_and_shrinks_with_the_number_of_addresses() {
        let mut fdb = Fdb::new(1 << 17, 300, 1);
        let slots = |fdb: &Fdb| fdb.lines.slots() as usize;
        for number in 0..100_000 {
            fdb.learn(ONE, mac(number), port(1), 0);
            assert!(slots(&fdb) <= fdb.len() * 4);
        }
        for number in 0..100 {
            fdb.learn(ONE, mac(number), port(1), 200);
        }
        fdb.expire(300);
        assert_eq!(fdb.len(), 100);
        assert_eq!(slots(&fdb), 256);
        assert!((0..100).all(|number| fdb.find(ONE, mac(number)) == Some(port(1))));
    }

    #[test]
    fn what_others_were_told_survives_a_larger_table() {
        let mut fdb = Fdb::new(1000, 300, 1);
        fdb.learn(ONE, mac(0), port(1), 0);
        fdb.learn(ONE, mac(0), port(1), 70);
        (1..500).for_each(|number| _ = fdb.learn(ONE, mac(number), port(1), 70));
        assert_eq!(fdb.learn(ONE, mac(0), port(1), 75), Learned::Known);
        assert_eq!(fdb.learn(ONE, mac(0), port(1), 76), Learned::News);
    }

    /// What a plain map knows of an address: its place, the second of its last frame, and of its last news.
    type Known = (Place, u32, u32);

    /// How a plain map takes note of a frame: what moves too often goes back to where it was before, and stays.
    struct Movement(Moves, Place);

    impl Movement {
        /// Where the address, which was at `known`, is after a frame at `place`; `None`: it is held, and the frame is as if it had not come.
        fn after(&mut self, known: Place, place: Place, now: u32) -> Option<Place> {
            if known == place {
                return Some(place);
            }
            match self.0.note(now) {
                Verdict::First => self.1 = known,
                Verdict::Again => {}
                Verdict::Hold => return Some(self.1),
                Verdict::Held => return None,
            }
            Some(place)
        }
    }

    fn count_of(map: &HashMap<u64, Known>, port: PortId) -> usize {
        map.values().filter(|(place, ..)| place.port == port).count()
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_plain_map(steps in prop::collection::vec((0u64..40, 0u32..5, 0u32..3, 0u8..20), 0..300)) {
            let mut fdb = Fdb::new(64, 30, 7);
            let mut map: HashMap<u64, (u32, u32)> = HashMap::new();
            let mut movements: HashMap<u64, Movement> = HashMap::new();
            let mut now = 0;
            for (number, owner, seconds, action) in steps {
                now += seconds;
                match action {
                    0 => { fdb.forget_port(PortId(owner)); map.retain(|_, (at, _)| *at != owner); }
                    1 => { fdb.expire(now); map.retain(|_, (_, seen)| now - *seen < 30); }
                    2 => { fdb.clear(); map.clear(); }
                    _ => {
                        fdb.learn(ONE, mac(number), port(owner), now);
                        let known = map.get(&number).map_or(port(owner), |(at, _)| port(*at));
                        let movement = movements.entry(number).or_insert(Movement(Moves::default(), known));
                        if let Some(at) = movement.after(known, port(owner), now) {
                            map.insert(number, (at.port.0, now));
                        }
                    }
                }
                movements.retain(|number, _| map.contains_key(number));
                prop_assert_eq!(fdb.len(), map.len());
                for (&number, &(owner, _)) in &map {
                    prop_assert_eq!(fdb.find(ONE, mac(number)), Some(port(owner)));
                }
                prop_assert_eq!(fdb.rows(now).len(), map.len());
            }
        }

        #[test]
        fn a_full_table_agrees_with_a_plain_map(
            capacity in 1u32..200,
            steps in prop::collection::vec((0u64..400, 0u32..4, 0u32..10, 0u8..100), 0..2000),
        ) {
            let mut fdb = Fdb::new(capacity, 30, 7);
            let mut map: HashMap<u64, Known> = HashMap::new();
            let mut movements: HashMap<u64, Movement> = HashMap::new();
            let (mut now, mut evictions) = (0, 0);
            for (number, owner, pause, action) in steps {
                let place = Place { port: PortId(owner), peer: 0 };
                now += u32::from(pause == 0);
                match action {
                    0 => { fdb.forget_port(place.port); map.retain(|_, (at, ..)| at.port != place.port); }
                    1..4 => { fdb.expire(now); map.retain(|_, (_, seen, _)| now - *seen < 30); }
                    4 => { fdb.clear(); map.clear(); }
                    _ => {
                        let known = map.get(&number).copied();
                        let before = known.map_or(place, |(at, ..)| at);
                        let movement = movements.entry(number).or_insert(Movement(Moves::default(), before));
                        let after = movement.after(before, place, now);
                        let told = known.filter(|(at, _, told)| Some(*at) == after && now - told <= 7).map(|(_, _, told)| told);
                        let learned = match (after == Some(place), told) {
                            (false, _) => Learned::Held,
                            (true, Some(_)) => Learned::Known,
                            (true, None) => Learned::News,
                        };
                        let full = known.is_none() && map.len() == capacity as usize;
                        prop_assert_eq!(fdb.learn(ONE, mac(number), place, now), learned);
                        if full {
                            evictions += 1;
                            let gone: Vec<u64> = map.keys().copied().filter(|at| fdb.find(ONE, mac(*at)).is_none()).collect();
                            let [gone] = gone[..] else { return Err(TestCaseError::fail("one goes, and only one")) };
                            let (loser, seen, _) = map[&gone];
                            prop_assert!((0..4).all(|port| count_of(&map, PortId(port)) <= count_of(&map, loser.port)));
                            prop_assert!(map.values().all(|(at, others, _)| at.port != loser.port || *others >= seen));
                            map.remove(&gone);
                        }
                        if let Some(after) = after {
                            map.insert(number, (after, now, told.unwrap_or(now)));
                        }
                    }
                }
                movements.retain(|number, _| map.contains_key(number));
                prop_assert_eq!(fdb.evictions(), evictions);
                let rows: HashMap<Mac, (Place, u32)> = fdb.rows(now).iter().map(|row| (row.mac, (row.place, row.age))).collect();
                let expected: HashMap<_, _> = map.iter().map(|(&at, &(place, seen, _))| (mac(at), (place, now - seen))).collect();
                prop_assert_eq!((fdb.len(), rows), (map.len(), expected));
            }
            prop_assert!((0..400).all(|number| fdb.find(ONE, mac(number)) == map.get(&number).map(|(place, ..)| *place)));
        }
    }
}
