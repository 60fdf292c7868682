//! What a host announces, and what it has of the others: tables of keys that are copied by their versions.
//!
//! Each host writes its own table alone, and counts the changes to it. Another that hears of a higher count asks for what changed after the one that it
//! has, a page at a time. A table that has seen too many removals begins another life, and is then fetched as a whole.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// One key of a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Item {
    /// The count of changes when it was written last.
    pub(super) version: u64,
    pub(super) key: String,
    pub(super) record: Option<Record>,
}

/// What a key has.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Record {
    /// When it was first written, in milliseconds since 1970: where two hosts say different things of one key, the older counts.
    pub(super) since: u64,
    pub(super) value: String,
}

/// Records by their keys.
pub(super) type Records = BTreeMap<String, Record>;

/// What this host announces.
pub(super) struct Table {
    pub(super) life: u64,
    pub(super) version: u64,
    items: BTreeMap<String, Item>,
    /// The key of each version.
    changes: BTreeMap<u64, String>,
}

impl Table {
    /// An empty one. No two lives of one host are the same number.
    pub(super) const fn new(life: u64) -> Self {
        Self { life, version: 0, items: BTreeMap::new(), changes: BTreeMap::new() }
    }

    /// Writes a key, or removes it.
    pub(super) fn set(&mut self, key: &str, record: Option<Record>) {
        let before = self.items.get(key);
        if before.map(|item| &item.record) == Some(&record) || before.is_none() && record.is_none() {
            return;
        }
        self.write(key.to_owned(), record);
        if self.items.len() > 2 * self.records().count() + MOST_REMOVED {
            self.begin_again();
        }
    }

    fn write(&mut self, key: String, record: Option<Record>) {
        self.version += 1;
        let item = Item { version: self.version, key: key.clone(), record };
        self.changes.insert(self.version, key.clone());
        if let Some(before) = self.items.insert(key, item) {
            self.changes.remove(&before.version);
        }
    }

    /// Forgets what was removed.
    fn begin_again(&mut self) {
        let before = std::mem::replace(self, Self::new(self.life.wrapping_add(1)));
        before.items.into_values().filter(|item| item.record.is_some()).for_each(|item| self.write(item.key, item.record));
    }

    pub(super) fn records(&self) -> impl Iterator<Item = (&String, &Record)> {
        self.items.values().filter_map(|item| Some((&item.key, item.record.as_ref()?)))
    }

    /// What is below a prefix.
    pub(super) fn below(&self, prefix: &str) -> impl Iterator<Item = (&String, &Record)> {
        self.records().filter(move |(key, _)| key.starts_with(prefix))
    }

    pub(super) fn record(&self, key: &str) -> Option<&Record> {
        self.items.get(key)?.record.as_ref()
    }

    /// What changed after a version, as much as a datagram takes, and one change at least.
    pub(super) fn page(&self, after: u64) -> Vec<Item> {
        let newer = self.changes.range(after.saturating_add(1)..);
        let mut room = PAGE;
        let mut page = Vec::new();
        for item in newer.filter_map(|(_, key)| self.items.get(key)) {
            let size = item.key.len() + item.record.as_ref().map_or(0, |record| record.value.len()) + OVERHEAD;
            if size > room && !page.is_empty() {
                break;
            }
            room = room.saturating_sub(size);
            page.push(item.clone());
        }
        page
    }
}

/// What this host has of another's table.
#[derive(Default)]
pub(super) struct Replica {
    life: Option<u64>,
    /// How far the other has come, as it was heard.
    wanted: u64,
    /// How far this copy has.
    pub(super) seen: u64,
    records: Records,
    /// How much of memory they take.
    size: usize,
    /// What the life before had, until all of this one is here.
    before: Records,
    /// Whether all of this life was here once. One that has announced nothing yet does not count: its host is about to.
    is_whole: bool,
}

impl Replica {
    /// Takes in how far the other has come.
    pub(super) fn hear(&mut self, life: u64, version: u64) {
        if self.life != Some(life) {
            let before = std::mem::take(self);
            let before = if before.is_whole { before.records } else { before.before };
            *self = Self { life: Some(life), before, ..Self::default() };
        }
        self.wanted = self.wanted.max(version);
        self.look();
    }

    /// Takes in a page, which must go on where this copy is, and grow. True if it was one that was missing.
    pub(super) fn take(&mut self, life: u64, after: u64, version: u64, items: Vec<Item>) -> bool {
        if self.life != Some(life) || after != self.seen || items.is_empty() {
            return false;
        }
        for item in items {
            if item.version <= self.seen {
                return false;
            }
            self.seen = item.version;
            self.set(item);
        }
        self.wanted = self.wanted.max(version);
        self.look();
        true
    }

    /// What is more than a host may have is left out.
    fn set(&mut self, item: Item) {
        if let Some(before) = self.records.remove(&item.key) {
            self.size -= size(&item.key, &before);
        }
        let Some(record) = item.record else { return };
        let more = size(&item.key, &record);
        if self.size + more <= MOST_BYTES {
            self.size += more;
            self.records.insert(item.key, record);
        }
    }

    fn look(&mut self) {
        if self.wanted > 0 && self.seen >= self.wanted {
            self.is_whole = true;
            self.before.clear();
        }
    }

    /// Whether there is nothing to ask for.
    pub(super) const fn is_complete(&self) -> bool {
        self.life.is_some() && self.seen >= self.wanted
    }

    /// What is missing: of which life, and after which version.
    pub(super) fn missing(&self) -> Option<(u64, u64)> {
        self.life.filter(|_| !self.is_complete()).map(|life| (life, self.seen))
    }

    /// What the other has, as far as is known.
    pub(super) const fn records(&self) -> &Records {
        if self.is_whole { &self.records } else { &self.before }
    }

    /// What is below a prefix.
    pub(super) fn below(&self, prefix: &str) -> impl Iterator<Item = (&String, &Record)> {
        self.records().range(prefix.to_owned()..).take_while(move |(key, _)| key.starts_with(prefix))
    }
}

fn size(key: &str, record: &Record) -> usize {
    key.len() + record.value.len() + OVERHEAD
}

/// Most removals that a table remembers besides as many as it has keys.
const MOST_REMOVED: usize = 1000;

/// How much of a datagram keys and values take, so that it passes wherever IPv6 does.
const PAGE: usize = 1100;

/// What an item takes besides its key and value, at most.
const OVERHEAD: usize = 32;

/// Most of a host's table that another keeps: as much as [`MOST_RECORDS`](crate::view::MOST_RECORDS) of usual length.
const MOST_BYTES: usize = 16 << 20;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(value: &str) -> Record {
        Record { since: 1, value: value.to_owned() }
    }

    fn whole(table: &Table) -> Records {
        table.records().map(|(key, record)| (key.clone(), record.clone())).collect()
    }

    fn fetch(table: &Table, replica: &mut Replica) {
        replica.hear(table.life, table.version);
        while !replica.is_complete() {
            assert!(replica.take(table.life, replica.seen, table.version, table.page(replica.seen)));
        }
    }

    #[test]
    fn two_hundred_stations_take_a_few_datagrams_and_a_change_takes_one() {
        let (mut table, mut replica) = (Table::new(7), Replica::default());
        for number in 0..200 {
            table.set(
                &format!("net/red/endpoint/h1/02:00:00:00:01:{number:02x}"),
                Some(record(r#"{"v":1,"ips":["10.0.0.1"]}"#)),
            );
        }
        replica.hear(7, table.version);
        let mut pages = 0;
        while !replica.is_complete() {
            assert!(replica.records().is_empty(), "what is not whole is not shown");
            let page = table.page(replica.seen);
            assert!(replica.take(7, replica.seen, table.version, page));
            pages += 1;
        }
        assert!((10..40).contains(&pages), "{pages}");
        table.set("net/red/endpoint/h1/02:00:00:00:01:07", None);
        replica.hear(7, table.version);
        let page = table.page(replica.seen);
        assert_eq!(page.len(), 1);
        assert!(!replica.take(7, 3, table.version, page.clone()), "a page of elsewhere");
        assert!(replica.take(7, replica.seen, table.version, page.clone()));
        assert!(!replica.take(7, replica.seen, table.version, page), "one that is there");
        assert_eq!(*replica.records(), whole(&table));
    }

    #[test]
    fn what_was_known_stays_until_another_life_is_whole() {
        let (mut table, mut replica) = (Table::new(1), Replica::default());
        table.set("a", Some(record("1")));
        fetch(&table, &mut replica);
        let mut second = Table::new(2);
        second.set("b", Some(record("2")));
        replica.hear(2, second.version);
        assert_eq!(*replica.records(), whole(&table));
        fetch(&second, &mut replica);
        assert_eq!(*replica.records(), whole(&second));
        replica.hear(3, 0);
        assert!(replica.is_complete(), "there is nothing to ask for");
        assert_eq!(*replica.records(), whole(&second), "a host that was started again has not said anything yet");
    }

    #[test]
    fn removals_do_not_pile_up() {
        let mut table = Table::new(1);
        table.set("stays", Some(record("1")));
        for number in 0..5000 {
            table.set(&number.to_string(), Some(record("x")));
            table.set(&number.to_string(), None);
        }
        assert!(table.items.len() < 2 * MOST_REMOVED && table.changes.len() == table.items.len(), "{}", table.items.len());
        assert!(table.life > 1 && table.records().count() == 1);
    }

    #[test]
    fn a_host_that_says_too_much_fills_no_memory() {
        let mut replica = Replica::default();
        replica.hear(1, 100);
        for version in 1..=100 {
            let item = Item { version, key: version.to_string(), record: Some(record(&"x".repeat(1 << 20))) };
            replica.take(1, version - 1, 100, vec![item]);
        }
        assert!(replica.size <= MOST_BYTES && replica.records.len() == 15, "{}", replica.records.len());
    }

    proptest! {
        #[test]
        fn a_copy_is_what_it_is_a_copy_of(steps in prop::collection::vec((0..20_u8, any::<Option<u8>>(), 0..4_u8), 1..200)) {
            let (mut table, mut replica) = (Table::new(1), Replica::default());
            for (key, value, what) in steps {
                table.set(&key.to_string(), value.map(|value| record(&value.to_string())));
                match what {
                    0 => fetch(&table, &mut replica),
                    // Pages that come late, or twice.
                    1 => drop(replica.take(table.life, replica.seen / 2, table.version, table.page(replica.seen / 2))),
                    _ => {}
                }
            }
            fetch(&table, &mut replica);
            prop_assert_eq!(replica.records(), &whole(&table));
        }
    }
}
