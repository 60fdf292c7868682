//! A hash table in buckets of one cache line each.
//!
//! **Where an address is.** In the bucket that its hash names, its home, or, where that is full, in the next bucket that has room.
//! Every bucket counts the addresses that had to pass it, as F14's do. A search ends at the first bucket that no address passed, and an
//! address can be taken out without moving another. So an address keeps its slot (the number of a bucket and of a way in it) until the
//! table is made anew.
//!
//! **What a look-up costs.** One cache line for an address in its home. With half of the slots in use, which is the
//! most, 93 of 100 addresses are there. (With three quarters it would be 83; lines that are no homes are not fetched ahead.)

use std::hash::BuildHasher;

use arrayvec::ArrayVec;
use foldhash::fast::FixedState;
use packet::Batch;

use super::PortId;
use crate::datapath::Place;

/// Addresses in a bucket.
const WAYS: usize = 4;
/// The key of no address: there is no VLAN 0.
const VACANT: u64 = 0;
/// Buckets that stay in the nearest cache anyhow.
const NEAR: usize = 2048;
/// Addresses that are looked for ahead: those of a batch.
const FORESEEN: usize = 2 * Batch::FRAMES;

#[derive(Debug)]
pub(super) struct Lines {
    seed: FixedState,
    /// The buckets, a power of two of them.
    lines: Box<[Line]>,
    /// For each bucket, the addresses that passed it.
    passed: Box<[u32]>,
    length: u32,
}

/// One cache line.
#[derive(Debug, Clone)]
#[repr(align(64))]
struct Line {
    keys: [u64; WAYS],
    places: [Packed; WAYS],
    seen: [u32; WAYS],
}

const _: () = assert!(size_of::<Line>() == 64);

/// A [`Place`] in four bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Packed {
    port: u16,
    peer: u16,
}

impl Packed {
    /// None for a port above [`PortId::MOST`].
    pub(super) fn new(place: Place) -> Option<Self> {
        Some(Self { port: u16::try_from(place.port.0).ok()?, peer: place.peer })
    }

    pub(super) const fn port(self) -> usize {
        self.port as usize
    }
}

impl From<Packed> for Place {
    fn from(Packed { port, peer }: Packed) -> Self {
        Self { port: PortId(port.into()), peer }
    }
}

/// One address.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub(super) key: u64,
    pub(super) place: Packed,
    /// Second of the last frame.
    pub(super) seen: u32,
}

impl Lines {
    /// An empty table with room for `length` addresses.
    pub(super) fn new(length: u32, seed: FixedState) -> Self {
        let line = Line { keys: [VACANT; WAYS], places: [Packed { port: 0, peer: 0 }; WAYS], seen: [0; WAYS] };
        let buckets = buckets(length);
        Self { seed, lines: vec![line; buckets].into(), passed: vec![0; buckets].into(), length: 0 }
    }

    pub(super) fn seed(&self) -> FixedState {
        self.seed.clone()
    }

    /// Number of addresses.
    pub(super) const fn len(&self) -> u32 {
        self.length
    }

    /// One above the highest slot.
    pub(super) fn slots(&self) -> u32 {
        u32::try_from(self.lines.len() * WAYS).unwrap_or(u32::MAX)
    }

    /// Whether one more address needs a larger table.
    pub(super) fn is_full(&self) -> bool {
        buckets(self.length + 1) > self.lines.len()
    }

    /// Whether less than an eighth of the table would do.
    pub(super) fn is_sparse(&self) -> bool {
        buckets(self.length) < self.lines.len() / 8
    }

    /// The slot of an address.
    pub(super) fn find(&self, key: u64) -> Option<u32> {
        let home = self.home(key);
        match self.lines[home].way(key) {
            Some(way) => Some(slot(home, way)),
            None => self.search(home, key),
        }
    }

    /// The slot of an address that is not in its home.
    fn search(&self, home: usize, key: u64) -> Option<u32> {
        let mut bucket = home;
        for _ in 0..self.lines.len() {
            if self.passed[bucket] == 0 {
                return None;
            }
            bucket = self.next(bucket);
            if let Some(way) = self.lines[bucket].way(key) {
                return Some(slot(bucket, way));
            }
        }
        None
    }

    /// Fetches the homes of addresses. No fetch depends on another.
    pub(super) fn touch(&self, keys: impl Iterator<Item = u64>) {
        if self.lines.len() <= NEAR {
            return;
        }
        let homes: ArrayVec<usize, FORESEEN> = keys.take(FORESEEN).map(|key| self.home(key)).collect();
        std::hint::black_box(homes.iter().fold(0, |sum, home| sum ^ self.lines[*home].keys[0]));
    }

    /// What a slot holds.
    pub(super) fn entry(&self, slot: u32) -> Entry {
        let (bucket, way) = parts(slot);
        let line = &self.lines[bucket];
        Entry { key: line.keys[way], place: line.places[way], seen: line.seen[way] }
    }

    /// Changes what a slot holds.
    pub(super) fn set(&mut self, slot: u32, entry: Entry) {
        let (bucket, way) = parts(slot);
        let line = &mut self.lines[bucket];
        (line.keys[way], line.places[way], line.seen[way]) = (entry.key, entry.place, entry.seen);
    }

    /// Takes in an address that is not there yet, into a table that is not full; returns its slot.
    pub(super) fn insert(&mut self, entry: Entry) -> u32 {
        let mut bucket = self.home(entry.key);
        let way = loop {
            match self.lines[bucket].way(VACANT) {
                Some(way) => break way,
                None => self.passed[bucket] += 1,
            }
            bucket = self.next(bucket);
        };
        self.length += 1;
        let slot = slot(bucket, way);
        self.set(slot, entry);
        slot
    }

    /// Empties a slot.
    pub(super) fn remove(&mut self, slot: u32) {
        let (bucket, way) = parts(slot);
        let key = std::mem::replace(&mut self.lines[bucket].keys[way], VACANT);
        let mut passed = self.home(key);
        while passed != bucket {
            self.passed[passed] -= 1;
            passed = self.next(passed);
        }
        self.length -= 1;
    }

    fn home(&self, key: u64) -> usize {
        // The mask keeps it below the length, which fits.
        #[allow(clippy::cast_possible_truncation)]
        let hash = self.seed.hash_one(key) as usize;
        hash & (self.lines.len() - 1)
    }

    const fn next(&self, bucket: usize) -> usize {
        (bucket + 1) & (self.lines.len() - 1)
    }
}

impl Line {
    /// The way of a key. Which one it is cannot be predicted, so all are compared.
    fn way(&self, key: u64) -> Option<usize> {
        let found = (0..WAYS).fold(0, |found, way| found | u32::from(self.keys[way] == key) << way);
        (found != 0).then_some(found.trailing_zeros() as usize)
    }
}

/// Buckets for so many addresses: half of the slots are used at most.
const fn buckets(length: u32) -> usize {
    (length as usize).div_ceil(WAYS / 2).next_power_of_two()
}

fn slot(bucket: usize, way: usize) -> u32 {
    u32::try_from(bucket * WAYS + way).unwrap_or(u32::MAX)
}

const fn parts(slot: u32) -> (usize, usize) {
    (slot as usize / WAYS, slot as usize % WAYS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    fn entry(key: u64) -> Entry {
        Entry { key, place: Packed { port: 1, peer: 2 }, seen: 3 }
    }

    /// Keys that have their home in one of the last two buckets of `lines`, so that they go round its end.
    fn crowd(lines: &Lines) -> Vec<u64> {
        (1..).filter(|key| lines.home(*key) + 2 >= lines.lines.len()).take(40).collect()
    }

    proptest! {
        #[test]
        fn many_addresses_in_few_buckets_are_found_until_they_go(steps in prop::collection::vec(0usize..40, 0..400)) {
            let mut lines = Lines::new(50, FixedState::with_seed(5));
            let crowd = crowd(&lines);
            let mut slots = HashMap::new();
            for step in steps {
                let key = crowd[step];
                match slots.remove(&key) {
                    Some(slot) => lines.remove(slot),
                    None => _ = slots.insert(key, lines.insert(entry(key))),
                }
                prop_assert_eq!(lines.len() as usize, slots.len());
                for key in &crowd {
                    prop_assert_eq!(lines.find(*key), slots.get(key).copied(), "a slot stays an address's own");
                }
                prop_assert!(slots.iter().all(|(key, slot)| lines.entry(*slot).key == *key));
            }
            slots.values().for_each(|slot| lines.remove(*slot));
            prop_assert!(lines.passed.iter().all(|count| *count == 0), "none is left to search past");
        }
    }

    #[test]
    fn a_search_ends_where_every_bucket_was_passed() {
        let mut lines = Lines::new(4, FixedState::with_seed(5));
        let of = |home: usize| (1..).filter(|key| lines.home(*key) == home).take(5).collect::<Vec<u64>>();
        let (first, second) = (of(0), of(1));
        let slots: Vec<u32> = first.iter().map(|key| lines.insert(entry(*key))).collect();
        second[..3].iter().for_each(|key| _ = lines.insert(entry(*key)));
        lines.remove(slots[0]);
        lines.insert(entry(second[3]));
        assert_eq!(lines.passed[..], [1, 1]);
        assert_eq!((lines.find(second[4]), lines.find(first[0])), (None, None));
    }

    #[test]
    fn nine_of_ten_addresses_are_at_home_in_the_fullest_table() {
        let mut lines = Lines::new(1 << 16, FixedState::with_seed(5));
        (1..=1 << 16).for_each(|key| _ = lines.insert(entry(key)));
        assert_eq!(lines.slots(), 2 << 16);
        let at_home = (1..=1 << 16).filter(|key| lines.lines[lines.home(*key)].way(*key).is_some()).count();
        assert!(at_home >= (9 << 16) / 10, "{at_home}");
    }
}
