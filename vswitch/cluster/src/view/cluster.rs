//! What the store says of the whole cluster: its id, hosts and networks.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::double;
use crate::record::{Host, Key, Name, Network};
use crate::store::{Change, Entry, News};

/// What the store says of the whole cluster.
#[derive(Default)]
pub(super) struct Cluster {
    /// When all of it was heard last; `None`: never.
    pub(super) listed: Option<Duration>,
    pub(super) revision: u64,
    pub(super) id: Option<String>,
    /// Every host that has a record.
    pub(super) records: BTreeMap<Name, Host>,
    /// Those of them that take part.
    pub(super) hosts: BTreeMap<Name, Host>,
    pub(super) networks: BTreeMap<Name, Network>,
    pub(super) vnis: BTreeSet<u32>,
    /// Since when the owner of a block is gone.
    pub(super) absent: BTreeMap<Name, Duration>,
    /// Whether the store was heard to have this host's record.
    pub(super) confirmed: bool,
}

impl Cluster {
    /// Takes in news; true if the store has lost this host's record, or is older than it was.
    pub(super) fn hear(&mut self, me: &Name, news: &News, now: Duration) -> bool {
        let mut older = false;
        match news {
            News::All(listing) => {
                let before = std::mem::take(self);
                older = listing.revision < before.revision;
                let (listed, revision) = (Some(now), listing.revision);
                *self = Self { listed, revision, absent: before.absent, confirmed: before.confirmed, ..Self::default() };
                listing.entries.iter().for_each(|entry| self.is(entry));
            }
            News::Some(changes) => changes.iter().for_each(|change| match change {
                Change::Is(entry) => self.is(entry),
                Change::Gone(key) => self.gone(key),
            }),
        }
        self.hosts = double::parted(&self.records);
        let lost = self.confirmed && !self.records.contains_key(me);
        self.confirmed = self.records.contains_key(me);
        older || lost
    }

    fn is(&mut self, entry: &Entry) {
        match Key::parse(&entry.key) {
            Some(Key::Id) => self.id = Some(entry.value.clone()),
            Some(Key::Host(name)) => drop(Host::read(&entry.value).map(|host| self.records.insert(name, host))),
            Some(Key::Network(name)) => drop(Network::read(&entry.value).map(|network| self.networks.insert(name, network))),
            Some(Key::Vni(vni)) => drop(self.vnis.insert(vni)),
            _ => {}
        }
    }

    fn gone(&mut self, key: &str) {
        match Key::parse(key) {
            Some(Key::Id) => self.id = None,
            Some(Key::Host(name)) => drop(self.records.remove(&name)),
            Some(Key::Network(name)) => drop(self.networks.remove(&name)),
            Some(Key::Vni(vni)) => drop(self.vnis.remove(&vni)),
            _ => {}
        }
    }

    /// Remembers since when the owners of blocks are gone.
    pub(super) fn note_absence<'a>(&mut self, owners: impl Iterator<Item = &'a Name>, now: Duration) {
        let gone: BTreeSet<&Name> = owners.filter(|owner| !self.hosts.contains_key(*owner)).collect();
        self.absent.retain(|host, _| gone.contains(host));
        for host in gone {
            self.absent.entry(host.clone()).or_insert(now);
        }
    }
}
