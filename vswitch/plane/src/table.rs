//! Sessions of one kind, bounded, and fair when they become too many.
//!
//! A row belongs to a container. When the table is full, the container that holds the most rows loses the one that was idle
//! longest; so one that opens thousands soon pushes out only its own, and one with a handful keeps them. Finding the victim
//! looks at every row, which happens only for new sessions in a full table and costs less than the socket that the session needs.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::time::Instant;

use foldhash::fast::RandomState;

/// Rows with a number each, found by a key.
#[derive(Debug)]
pub struct Table<K, V> {
    numbers: HashMap<K, usize, RandomState>,
    rows: Vec<Option<Row<K, V>>>,
    free: Vec<usize>,
    /// Rows that each container holds.
    held: HashMap<IpAddr, usize, RandomState>,
    capacity: usize,
}

/// A session.
#[derive(Debug)]
pub struct Row<K, V> {
    /// What it is found by.
    pub key: K,
    /// The container that it belongs to.
    pub owner: IpAddr,
    /// When it last moved a byte.
    pub used: Instant,
    /// What is kept of it.
    pub value: V,
}

impl<K: Copy + Eq + Hash, V> Table<K, V> {
    /// An empty table for so many rows.
    pub fn new(capacity: usize) -> Self {
        let (numbers, held) = (HashMap::default(), HashMap::default());
        Self { numbers, rows: Vec::new(), free: Vec::new(), held, capacity }
    }

    /// How many rows there are.
    pub fn occupied(&self) -> usize {
        self.numbers.len()
    }

    /// The number of the row with this key.
    pub fn find(&self, key: &K) -> Option<usize> {
        self.numbers.get(key).copied()
    }

    /// The row with this number.
    pub fn get(&self, number: usize) -> Option<&Row<K, V>> {
        self.rows.get(number)?.as_ref()
    }

    /// As [`Table::get`], to change.
    pub fn get_mut(&mut self, number: usize) -> Option<&mut Row<K, V>> {
        self.rows.get_mut(number)?.as_mut()
    }

    /// All rows, with their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (usize, &Row<K, V>)> {
        self.rows.iter().enumerate().filter_map(|(number, row)| Some((number, row.as_ref()?)))
    }

    /// The row that has to go before another is put in; `None`: there is room.
    pub fn victim(&self) -> Option<usize> {
        if self.occupied() < self.capacity {
            return None;
        }
        let (owner, _) = self.held.iter().max_by_key(|(_, count)| **count)?;
        let rows = self.iter().filter(|(_, row)| row.owner == *owner);
        rows.min_by_key(|(_, row)| row.used).map(|(number, _)| number)
    }

    /// Puts a row in, for which there is room; one with the same key is replaced.
    pub fn insert(&mut self, key: K, owner: IpAddr, used: Instant, value: V) -> usize {
        if let Some(number) = self.find(&key) {
            self.remove(number);
        }
        let row = Some(Row { key, owner, used, value });
        let number = match self.free.pop() {
            Some(number) => number,
            None => {
                self.rows.push(None);
                self.rows.len() - 1
            }
        };
        if let Some(place) = self.rows.get_mut(number) {
            *place = row;
        }
        self.numbers.insert(key, number);
        *self.held.entry(owner).or_default() += 1;
        number
    }

    /// Takes a row out; its number may be given to another.
    pub fn remove(&mut self, number: usize) -> Option<Row<K, V>> {
        let row = self.rows.get_mut(number)?.take()?;
        self.numbers.remove(&row.key);
        self.free.push(number);
        if let Some(count) = self.held.get_mut(&row.owner) {
            *count -= 1;
            if *count == 0 {
                self.held.remove(&row.owner);
            }
        }
        Some(row)
    }

    /// The numbers of rows that are to go.
    pub fn which(&self, mut is: impl FnMut(&Row<K, V>) -> bool) -> Vec<usize> {
        self.iter().filter(|(_, row)| is(row)).map(|(number, _)| number).collect()
    }
}

/// Whether a port that has `own` of `all` that are in use, of `most`, may have one more: it may have as many as are left for the others.
/// Alone it gets half, two that grow together a third each, and each that comes to what the others hold half of what is left; so it takes
/// as many floods as `most` has binary digits until a newcomer finds no room.
pub const fn may_have_another(own: usize, all: usize, most: usize) -> bool {
    own < most.saturating_sub(all)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_container_with_the_most_sessions_loses_its_idlest() {
        let (now, mut table) = (Instant::now(), Table::new(100));
        let (modest, greedy) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        table.insert(0, modest, now, ());
        for key in 1..1000_u32 {
            if let Some(victim) = table.victim() {
                let row = table.remove(victim).unwrap();
                assert_eq!((row.owner, row.key), (greedy, key - 99));
            }
            table.insert(key, greedy, now + Duration::from_millis(key.into()), ());
        }
        assert_eq!((table.occupied(), table.find(&0)), (100, Some(0)));
        assert!(table.rows.len() <= 100);
    }

    #[test]
    fn a_key_is_in_it_once() {
        let (now, mut table) = (Instant::now(), Table::new(10));
        let owner = IpAddr::from([10, 0, 0, 1]);
        let first = table.insert(7, owner, now, 'a');
        let second = table.insert(7, owner, now, 'b');
        assert_eq!((table.occupied(), table.get(second).map(|row| row.value)), (1, Some('b')));
        assert!(table.remove(first).is_some() && table.remove(first).is_none());
        assert!(table.held.is_empty() && table.find(&7).is_none());
    }
}
