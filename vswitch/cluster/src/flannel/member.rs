//! What one host knows of a flannel network, and what it has to say there.
//!
//! **What it holds.** The network, this host's subnet, and the other hosts with theirs. All three outlive what etcd says, and the process: a start goes
//! on with what was kept.
//!
//! **Who calls it.** The thread that deals with etcd, with news of all keys below the prefix ([`FlannelMember::hear`]), with what came of a step
//! ([`FlannelMember::done`]), and once a second ([`FlannelMember::expire`]).
//!
//! **A subnet is never given up while it is in use.** Stations have addresses of it. What is missing in etcd is put there again; where another host has
//! put itself there, or the network is another now, that is a sentence, and nothing is changed.
//!
//! **Nothing is withdrawn on a mass loss.** Where this host's own record is missing, or the network's, or etcd is older than it was, the other hosts stay for
//! [`HOLD`], in which each puts its record there again. One host that goes alone is withdrawn after [`GRACE`].
//!
//! **What bounds it.** [`MOST_HOSTS`] hosts, and [`MOST_SUBNETS`] records.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use ipnet::Ipv4Net;
use packet::Mac;
use serde::{Deserialize, Serialize};

use super::lease::{FlannelLease, key_of, subnet_of};
use super::net::FlannelNet;
use super::{CONFIG, PREFIX};
use crate::store::{Change, Entry, News, Outcome, Step};
use crate::view::HOLD;

/// How long a host stays that goes alone: what follows may show that it is not alone.
pub const GRACE: Duration = Duration::from_secs(2);

/// Most hosts: as many as a tunnel has peers.
pub const MOST_HOSTS: usize = 1024;

/// Most records that are looked at. A network with a /30 for each host has room for more, and no etcd.
pub const MOST_SUBNETS: usize = 1 << 16;

/// What is known of a network, and outlives the process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FlannelTable {
    /// The network.
    pub net: Option<FlannelNet>,
    /// This host's subnet.
    pub own: Option<Ipv4Net>,
    /// The other hosts, by subnet.
    pub hosts: BTreeMap<Ipv4Net, FlannelLease>,
}

/// One host of a flannel network.
#[derive(Debug)]
pub struct FlannelMember {
    me: FlannelLease,
    /// What the prefix is, for sentences.
    prefix: String,
    table: FlannelTable,
    /// What is wrong with the network's record.
    fault: Option<String>,
    /// The records of subnets, as etcd has them.
    stored: BTreeMap<Ipv4Net, Stored>,
    /// Hosts that etcd does not have any more, and since when.
    missing: BTreeMap<Ipv4Net, Duration>,
    /// How far etcd had come; none: it was not heard since the start.
    revision: Option<u64>,
    /// Whether this host's record belongs to the session that it has.
    is_bound: bool,
    /// Until when nothing is withdrawn.
    held: Option<Duration>,
    /// Whether there are hosts that found no room.
    is_full: bool,
}

/// A record as it is in etcd.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stored {
    key: String,
    /// Where the host is, whatever its backend.
    host: Option<Ipv4Addr>,
    lease: Option<FlannelLease>,
}

impl FlannelMember {
    /// A host that says this of itself, and goes on with what was known before.
    pub fn new(me: FlannelLease, prefix: &str, table: FlannelTable) -> Self {
        let prefix = if prefix.trim_matches('/').is_empty() { PREFIX } else { prefix }.trim_end_matches('/').to_owned();
        let (stored, missing) = (BTreeMap::new(), BTreeMap::new());
        Self { me, prefix, table, fault: None, stored, missing, revision: None, is_bound: false, held: None, is_full: false }
    }

    /// What is known.
    pub const fn table(&self) -> &FlannelTable {
        &self.table
    }

    /// Whether etcd was heard, and has this host's record.
    pub fn is_in(&self) -> bool {
        self.revision.is_some() && self.is_bound && self.table.own.is_some_and(|own| self.stored.contains_key(&own))
    }

    /// Whether nothing is withdrawn for now.
    pub const fn is_held(&self) -> bool {
        self.held.is_some()
    }

    /// Takes in what etcd has below the prefix.
    pub fn hear(&mut self, news: &News, now: Duration) {
        let mut config = None;
        match news {
            News::All(listing) => {
                let is_older = self.revision.is_some_and(|revision| listing.revision < revision);
                (self.revision, self.held) = (Some(listing.revision), self.held.or_else(|| is_older.then(|| now + HOLD)));
                self.stored.clear();
                config = Some(None);
                for entry in &listing.entries {
                    self.take(entry, &mut config);
                }
            }
            News::Some(changes) => {
                for change in changes {
                    match change {
                        Change::Is(entry) => self.take(entry, &mut config),
                        Change::Gone(key) if key == CONFIG => config = Some(None),
                        Change::Gone(key) => self.forget(key),
                    }
                }
            }
        }
        if let Some(text) = config {
            self.read(text.as_deref());
        }
        self.refresh(now);
        if self.table.own.is_some_and(|own| !self.stored.contains_key(&own)) {
            self.held = Some(now + HOLD);
        }
    }

    /// A subnet may have had another key before, with an IPv6 subnet behind it or without.
    fn forget(&mut self, key: &str) {
        if let Some(subnet) = subnet_of(key).filter(|subnet| self.stored.get(subnet).is_some_and(|stored| stored.key == key)) {
            self.stored.remove(&subnet);
        }
    }

    fn take(&mut self, entry: &Entry, config: &mut Option<Option<String>>) {
        let Entry { key, value, version } = entry;
        self.revision = self.revision.max(Some(*version));
        if key == CONFIG {
            *config = Some(Some(value.clone()));
        } else if let Some(subnet) = subnet_of(key)
            && (self.stored.len() < MOST_SUBNETS || self.stored.contains_key(&subnet))
        {
            let (host, lease) = (FlannelLease::host_of(value), FlannelLease::read(value));
            self.stored.insert(subnet, Stored { key: key.clone(), host, lease });
        }
    }

    /// Takes in the record of the network. One that is wrong, or in which this host's subnet is none, changes nothing but what is said.
    fn read(&mut self, text: Option<&str>) {
        let about = |what: &str| format!("{}/{CONFIG} {what}", self.prefix);
        let Some(text) = text else {
            self.fault = Some(about("is not there: its administrator puts the network there, as for flanneld"));
            return;
        };
        match (FlannelNet::read(text), self.table.own) {
            (Ok(net), Some(own)) if !net.fits(own) => {
                let network = net.network;
                self.fault = Some(about(&format!(
                    "has the network {network}, in which this host's subnet {own} is none: it keeps that until `flannel.json` in state-dir is \
                     removed while vswitchd is stopped"
                )));
            }
            (Ok(net), _) => (self.table.net, self.fault) = (Some(net), None),
            (Err(fault), _) => self.fault = Some(about(&fault.to_string())),
        }
    }

    /// Brings the hosts to what etcd has. Those that it does not have are looked at later.
    fn refresh(&mut self, now: Duration) {
        let FlannelTable { net: Some(net), own, .. } = &self.table else { return };
        let (network, own, me) = (net.network, *own, self.me);
        let is_apart = |subnet: &Ipv4Net| own.is_none_or(|own| !own.contains(subnet) && !subnet.contains(&own));
        let lease = |subnet: &Ipv4Net, stored: &Stored| {
            let lease = stored.lease.filter(|lease| lease.host != me.host && lease.mac != me.mac)?;
            (network.contains(subnet) && is_apart(subnet)).then_some(lease)
        };
        self.is_full = false;
        for (subnet, stored) in &self.stored {
            let Some(lease) = lease(subnet, stored) else { continue };
            if self.table.hosts.len() >= MOST_HOSTS && !self.table.hosts.contains_key(subnet) {
                self.is_full = true;
                continue;
            }
            self.table.hosts.insert(*subnet, lease);
            self.missing.remove(subnet);
        }
        let is_there = |subnet: &Ipv4Net| self.stored.get(subnet).is_some_and(|stored| lease(subnet, stored).is_some());
        for subnet in self.table.hosts.keys().filter(|subnet| !is_there(subnet)) {
            self.missing.entry(*subnet).or_insert(now);
        }
    }

    /// Withdraws the hosts that are gone, if it is time.
    pub fn expire(&mut self, now: Duration) {
        self.held = self.held.filter(|held| now < *held);
        if self.held.is_some() || self.revision.is_none() {
            return;
        }
        let gone = self.missing.extract_if(.., |_, since| now >= *since + GRACE);
        for (subnet, _) in gone {
            self.table.hosts.remove(&subnet);
        }
    }

    /// What is to be put into etcd now. A subnet that is chosen is as `random` says.
    pub fn due(&self, random: u32) -> Option<Step> {
        self.revision?;
        let subnet = match self.table.own.or_else(|| self.left()) {
            Some(own) => own,
            None if self.fault.is_none() => self.table.net.as_ref()?.choose(self.stored.keys().copied(), random)?,
            None => return None,
        };
        let value = self.me.written(self.table.net.as_ref()?.vni);
        match self.stored.get(&subnet) {
            None => Some(Step::Claim { key: key_of(subnet), value }),
            Some(stored) if !self.is_bound && self.is_own(stored) => Some(Step::Announce { key: stored.key.clone(), value }),
            Some(_) => None,
        }
    }

    /// The subnet that etcd has as this host's, which has lost what it kept.
    fn left(&self) -> Option<Ipv4Net> {
        let net = self.table.net.as_ref().filter(|_| self.fault.is_none())?;
        self.stored.iter().find(|(subnet, stored)| net.fits(**subnet) && self.is_own(stored)).map(|(subnet, _)| *subnet)
    }

    /// Whether a record is this host's: it has its address, or its MAC address, where its address is another now.
    fn is_own(&self, stored: &Stored) -> bool {
        stored.host == Some(self.me.host) || stored.lease.is_some_and(|lease| lease.mac == self.me.mac)
    }

    /// Takes note that a step was carried out, or refused, which another host's record explains that is still to be heard of.
    pub fn done(&mut self, step: &Step, outcome: Outcome, now: Duration) {
        let (Some(subnet), Outcome::Done) = (subnet_of(step.key()), outcome) else { return };
        let stored = Stored { key: step.key().to_owned(), host: Some(self.me.host), lease: Some(self.me) };
        self.stored.insert(subnet, stored);
        (self.table.own, self.is_bound) = (Some(subnet), true);
        self.table.hosts.remove(&subnet);
        self.missing.remove(&subnet);
        self.refresh(now);
    }

    /// The session has ended in which this host's record was put, and maybe the record with it.
    pub fn session_ended(&mut self) {
        self.is_bound = false;
    }

    /// What is wrong, in a sentence.
    pub fn problem(&self) -> Option<String> {
        let stored = self.table.own.and_then(|own| Some((own, self.stored.get(&own)?)));
        match stored {
            Some((own, stored)) if !self.is_own(stored) => {
                let other = stored.host.map_or_else(|| "another host".to_owned(), |host| host.to_string());
                return Some(format!(
                    "{own}, which is this host's subnet, is leased to {other} as well: stop flanneld there and remove {}/{}, or stop vswitchd \
                     here, remove `flannel.json` in state-dir, and give stations new addresses",
                    self.prefix, stored.key
                ));
            }
            Some((own, stored)) if self.is_bound && stored.lease != Some(self.me) => {
                return Some(format!(
                    "another program has put itself into the record of this host's subnet {own}, with the address {}: does flanneld run here, \
                     or has another host this `underlay`? Stop it, and start vswitchd again",
                    self.me.host
                ));
            }
            _ => {}
        }
        let is_out = self.revision.is_some() && self.table.own.is_none() && self.due(0).is_none();
        let net = self.table.net.as_ref().filter(|_| is_out);
        let no_room = net.map(|net| {
            let (network, length) = (net.network, net.subnet_length);
            format!("no /{length} of {network} is free: each has a record below {}/subnets", self.prefix)
        });
        let full = self.is_full.then(|| format!("the network has more than {MOST_HOSTS} hosts, of which some are not reached"));
        self.fault.clone().or(no_room).or(full)
    }

    /// The MAC address of this host's end of the tunnel.
    pub const fn mac(&self) -> Mac {
        self.me.mac
    }
}

#[cfg(test)]
mod tests;
