//! A hash index of fixed size: from the hash of a key to the number of what has it.
//!
//! Eight bytes a place, number and hash beside each other, so that a look-up reads one cache line before it reads what it
//! found. Places are probed in line; taking one out moves those behind it up, so there are no gravestones, and no table is ever
//! rehashed under traffic. New memory is all zeros and costs nothing until it is used.

/// An index of numbers by the hashes of their keys.
#[derive(Debug)]
pub(crate) struct Index {
    /// The hash above, the number plus one below; 0: empty. A power of two of them, a quarter of which is never used.
    places: Box<[u64]>,
    length: usize,
}

impl Index {
    /// An empty index for as many numbers as `capacity`.
    pub(crate) fn new(capacity: usize) -> Self {
        Self { places: vec![0; (capacity + capacity / 3 + 1).next_power_of_two()].into_boxed_slice(), length: 0 }
    }

    pub(crate) const fn len(&self) -> usize {
        self.length
    }

    /// The number with a hash that is the right one.
    pub(crate) fn find(&self, hash: u64, is: impl Fn(u32) -> bool) -> Option<u32> {
        self.place(hash, is).map(|place| number(self.places[place]))
    }

    /// What is in the place where a number with this hash would be, were it alone: it is read, and means nothing.
    pub(crate) fn peek(&self, hash: u64) -> u64 {
        self.places[self.home(hash)]
    }

    /// Adds a number. There is room for it, and it is not in yet.
    pub(crate) fn insert(&mut self, hash: u64, number: u32) {
        let mut place = self.home(hash);
        while self.places[place] != 0 {
            place = self.behind(place);
        }
        self.places[place] = hash & HASH | (u64::from(number) + 1);
        self.length += 1;
    }

    /// Takes a number out, if it is in.
    pub(crate) fn remove(&mut self, hash: u64, number: u32) {
        let Some(mut hole) = self.place(hash, |other| other == number) else { return };
        self.length -= 1;
        let mut place = hole;
        loop {
            place = self.behind(place);
            let entry = self.places[place];
            if entry == 0 {
                break;
            }
            // It may move into the hole if that is not before its home.
            let mask = self.places.len() - 1;
            if place.wrapping_sub(self.home(entry)) & mask >= place.wrapping_sub(hole) & mask {
                self.places[hole] = entry;
                hole = place;
            }
        }
        self.places[hole] = 0;
    }

    /// Puts one number in the place of another with the same key, if that is in.
    pub(crate) fn replace(&mut self, hash: u64, old: u32, new: u32) {
        if let Some(place) = self.place(hash, |other| other == old) {
            self.places[place] = hash & HASH | (u64::from(new) + 1);
        }
    }

    /// All numbers, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = u32> {
        numbers(&self.places)
    }

    /// The numbers in so many places, and the first place behind those, if there is one.
    pub(crate) fn page(&self, from: usize, places: usize) -> (impl Iterator<Item = u32>, Option<usize>) {
        let end = from.saturating_add(places);
        let page = self.places.get(from..end.min(self.places.len())).unwrap_or_default();
        (numbers(page), Some(end).filter(|end| *end < self.places.len()))
    }

    /// The longest way from a number's home to its place.
    #[cfg(test)]
    pub(crate) fn longest(&self) -> usize {
        let used = self.places.iter().enumerate().filter(|(_, entry)| **entry != 0);
        used.map(|(place, entry)| place.wrapping_sub(self.home(*entry)) & (self.places.len() - 1)).max().unwrap_or(0)
    }

    fn place(&self, hash: u64, is: impl Fn(u32) -> bool) -> Option<usize> {
        let mut place = self.home(hash);
        loop {
            let entry = self.places[place];
            if entry == 0 {
                return None;
            }
            if entry & HASH == hash & HASH && is(number(entry)) {
                return Some(place);
            }
            place = self.behind(place);
        }
    }

    // The mask keeps it below the length, which fits.
    #[allow(clippy::cast_possible_truncation)]
    fn home(&self, hash: u64) -> usize {
        (hash >> 32) as usize & (self.places.len() - 1)
    }

    fn behind(&self, place: usize) -> usize {
        (place + 1) & (self.places.len() - 1)
    }
}

/// The part of an entry that is of its hash.
const HASH: u64 = 0xffff_ffff_0000_0000;

fn numbers(places: &[u64]) -> impl Iterator<Item = u32> {
    places.iter().filter(|entry| **entry != 0).map(|entry| number(*entry))
}

fn number(entry: u64) -> u32 {
    u32::try_from((entry & !HASH).wrapping_sub(1)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    proptest! {
        #[test]
        fn it_is_a_map(steps in prop::collection::vec((any::<bool>(), 0u32..24), 0..200), spread in 0u32..40) {
            let (mut index, mut model) = (Index::new(24), HashMap::new());
            // Few hashes, around the end of the array too, so that runs meet and wrap.
            let hash = |number: u32| (u64::from(number % (spread + 1)) + 20) << 32 | 7;
            for (add, number) in steps {
                if add && model.insert(number, ()).is_none() {
                    index.insert(hash(number), number);
                } else if !add {
                    model.remove(&number);
                    index.remove(hash(number), number);
                }
                prop_assert_eq!(index.len(), model.len());
                for number in 0..24 {
                    prop_assert_eq!(index.find(hash(number), |other| other == number).is_some(), model.contains_key(&number));
                }
                let mut all: Vec<_> = index.iter().collect();
                all.sort_unstable();
                all.dedup();
                prop_assert_eq!(all.len(), model.len());
            }
        }
    }

    #[test]
    fn a_number_is_replaced_under_its_key() {
        let mut index = Index::new(4);
        index.insert(5 << 32, 1);
        index.replace(5 << 32, 1, 2);
        assert_eq!((index.find(5 << 32, |_| true), index.len()), (Some(2), 1));
    }
}
