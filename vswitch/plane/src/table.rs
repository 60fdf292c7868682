//! Sessions of one kind, bounded, and fair when they become too many.
//!
//! A row belongs to a container behind a port. When the table is full, the port that holds the most rows loses one: of the container there
//! that holds the most, the one that was idle longest. So a container that opens thousands soon pushes out only its own, whatever addresses
//! it makes up for itself, and one with a handful keeps them. Finding the victim looks at every row, which happens only for new sessions in a
//! full table and costs less than the socket that the session needs.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::time::Instant;

use foldhash::fast::RandomState;

/// Rows with a number each, found by a key.
#[derive(Debug)]
pub struct Table<K, P, V> {
    numbers: HashMap<K, usize, RandomState>,
    rows: Vec<Option<TableRow<K, P, V>>>,
    free: Vec<usize>,
    /// Rows of each port, and of each container behind it.
    ports: HashMap<P, usize, RandomState>,
    containers: HashMap<Owner<P>, usize, RandomState>,
    capacity: usize,
}

/// The owner of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Owner<P> {
    /// The port that it is behind.
    pub port: P,
    /// The container's address.
    pub container: IpAddr,
}

/// A session.
#[derive(Debug)]
pub struct TableRow<K, P, V> {
    /// What it is found by.
    pub key: K,
    /// The container that it belongs to.
    pub owner: Owner<P>,
    /// When it last moved a byte.
    pub used: Instant,
    /// What is kept of it.
    pub value: V,
}

impl<K: Copy + Eq + Hash, P: Copy + Eq + Hash, V> Table<K, P, V> {
    /// An empty table for so many rows.
    pub fn new(capacity: usize) -> Self {
        let (numbers, ports, containers) = (HashMap::default(), HashMap::default(), HashMap::default());
        Self { numbers, rows: Vec::new(), free: Vec::new(), ports, containers, capacity }
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
    pub fn get(&self, number: usize) -> Option<&TableRow<K, P, V>> {
        self.rows.get(number)?.as_ref()
    }

    /// As [`Table::get`], to change.
    pub fn get_mut(&mut self, number: usize) -> Option<&mut TableRow<K, P, V>> {
        self.rows.get_mut(number)?.as_mut()
    }

    /// All rows, with their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (usize, &TableRow<K, P, V>)> {
        self.rows.iter().enumerate().filter_map(|(number, row)| Some((number, row.as_ref()?)))
    }

    /// The row that has to go before another is put in; `None`: there is room.
    pub fn victim(&self) -> Option<usize> {
        if self.occupied() < self.capacity {
            return None;
        }
        let (port, _) = self.ports.iter().max_by_key(|(_, count)| **count)?;
        let containers = self.containers.iter().filter(|(owner, _)| owner.port == *port);
        let (owner, _) = containers.max_by_key(|(_, count)| **count)?;
        let rows = self.iter().filter(|(_, row)| row.owner == *owner);
        rows.min_by_key(|(_, row)| row.used).map(|(number, _)| number)
    }

    /// Puts a row in, for which there is room; one with the same key is replaced.
    pub fn insert(&mut self, key: K, owner: Owner<P>, used: Instant, value: V) -> usize {
        if let Some(number) = self.find(&key) {
            self.remove(number);
        }
        let row = Some(TableRow { key, owner, used, value });
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
        *self.ports.entry(owner.port).or_default() += 1;
        *self.containers.entry(owner).or_default() += 1;
        number
    }

    /// Takes a row out; its number may be given to another.
    pub fn remove(&mut self, number: usize) -> Option<TableRow<K, P, V>> {
        let row = self.rows.get_mut(number)?.take()?;
        self.numbers.remove(&row.key);
        self.free.push(number);
        take_one(&mut self.ports, &row.owner.port);
        take_one(&mut self.containers, &row.owner);
        Some(row)
    }

    /// The numbers of rows that are to go.
    pub fn which(&self, mut is: impl FnMut(&TableRow<K, P, V>) -> bool) -> Vec<usize> {
        self.iter().filter(|(_, row)| is(row)).map(|(number, _)| number).collect()
    }
}

/// Whether a port that has `own` of `all` that are in use, of `most`, may have one more: it may have as many as are left for the others.
/// Alone it gets half, two that grow together a third each, and each that comes to what the others hold half of what is left; so it takes
/// as many floods as `most` has binary digits until a newcomer finds no room.
pub const fn may_have_another(own: usize, all: usize, most: usize) -> bool {
    own < most.saturating_sub(all)
}

/// Counts one less, and forgets what there is none of.
fn take_one<O: Eq + Hash>(counts: &mut HashMap<O, usize, RandomState>, of: &O) {
    if let Some(count) = counts.get_mut(of) {
        *count -= 1;
        if *count == 0 {
            counts.remove(of);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// A container behind a port of its number.
    fn owner(number: u8) -> Owner<u8> {
        Owner { port: number, container: IpAddr::from([10, 0, 0, number]) }
    }

    #[test]
    fn the_container_with_the_most_sessions_loses_its_idlest() {
        let (now, mut table) = (Instant::now(), Table::new(100));
        let (modest, greedy) = (owner(1), owner(2));
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
    fn a_container_that_makes_up_addresses_pushes_out_only_its_own() {
        let (now, mut table) = (Instant::now(), Table::new(100));
        // Those of the modest one are the idlest of all, and it has more of them than any made-up address.
        for key in 0..20 {
            table.insert(key, owner(1), now, ());
        }
        for key in 20..10_000_u32 {
            if let Some(victim) = table.victim() {
                assert_eq!(table.remove(victim).unwrap().owner.port, 2);
            }
            let made_up = Owner { port: 2, container: IpAddr::from(u128::from(key).to_be_bytes()) };
            table.insert(key, made_up, now + Duration::from_millis(key.into()), ());
        }
        assert_eq!(table.iter().filter(|(_, row)| row.owner == owner(1)).count(), 20);
        assert_eq!((table.occupied(), table.containers.len(), table.ports.len()), (100, 81, 2));
    }

    #[test]
    fn behind_one_port_the_container_with_the_most_loses_its_idlest() {
        let (now, mut table) = (Instant::now(), Table::new(100));
        let other = Owner { container: IpAddr::from([10, 0, 0, 9]), ..owner(1) };
        for key in 0..20 {
            table.insert(key, other, now, ());
        }
        for key in 20..1000_u32 {
            if let Some(victim) = table.victim() {
                assert_eq!(table.remove(victim).unwrap().key, key - 80);
            }
            table.insert(key, owner(1), now + Duration::from_millis(key.into()), ());
        }
    }

    #[test]
    fn a_key_is_in_it_once() {
        let (now, mut table) = (Instant::now(), Table::new(10));
        let first = table.insert(7, owner(1), now, 'a');
        let second = table.insert(7, owner(1), now, 'b');
        assert_eq!((table.occupied(), table.get(second).map(|row| row.value)), (1, Some('b')));
        assert!(table.remove(first).is_some() && table.remove(first).is_none());
        assert!(table.ports.is_empty() && table.containers.is_empty() && table.find(&7).is_none());
    }
}
