//! Hosts that say that one `underlay` is theirs, as after a file was copied and only `node` changed. One of them takes part, so that the others keep to
//! it. It is the one that was there first: who comes later hears of it and says of itself that it is idle. Of two that came at once it is the first in
//! the order of names.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::{Refusal, View};
use crate::record::{Host, Name};

/// The hosts that take part.
pub(super) fn parted(records: &BTreeMap<Name, Host>) -> BTreeMap<Name, Host> {
    let mut taken = BTreeSet::new();
    let parted = records.iter().filter(|(_, host)| !host.idle && taken.insert(host.underlay));
    parted.map(|(name, host)| (name.clone(), host.clone())).collect()
}

impl View {
    /// The host that has the address of this one, and comes before it.
    pub(super) fn rival(&self) -> Option<Refusal> {
        let is_there = self.cluster.records.get(&self.me).is_some_and(|here| !here.idle);
        let (other, host) = self.cluster.hosts.iter().find(|(_, host)| host.underlay == self.host.underlay)?;
        let is_before = *other != self.me && (!is_there || *other < self.me);
        is_before.then(|| Refusal::UnderlayTaken { other: other.clone(), underlay: host.underlay })
    }

    /// The address of this host is no address of it, and was none since the start; or it is one from now on.
    pub const fn set_nowhere(&mut self, is_nowhere: bool) {
        self.is_nowhere = is_nowhere;
    }

    /// Whether this host announces no more than that it is there.
    pub(super) const fn is_idle(&self) -> bool {
        self.is_nowhere || matches!(self.refusal, Some(Refusal::UnderlayTaken { .. }))
    }

    /// The addresses that several hosts say are theirs, and those hosts.
    pub fn doubles(&self) -> BTreeMap<IpAddr, BTreeSet<&Name>> {
        let mut hosts: BTreeMap<IpAddr, BTreeSet<&Name>> = BTreeMap::from([(self.host.underlay, BTreeSet::from([&self.me]))]);
        let others = self.cluster.records.iter().filter(|(name, _)| **name != self.me);
        for (name, host) in others {
            hosts.entry(host.underlay).or_default().insert(name);
        }
        hosts.retain(|_, names| names.len() > 1);
        hosts
    }
}
