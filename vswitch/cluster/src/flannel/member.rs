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

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use ipnet::Ipv4Net;
use packet::Mac;
use serde::{Deserialize, Serialize};

use super::lease::{FlannelLease, LONGEST_KEY, LONGEST_VALUE, key_of, subnet_of};
use super::net::{FlannelNet, overlap};
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
    /// The records of subnets, as etcd has them, by key: a subnet may have several, with an IPv6 subnet behind it or without.
    stored: BTreeMap<String, Stored>,
    /// A record of another host that overlaps this host's subnet.
    intruder: Option<(String, Option<Ipv4Addr>)>,
    /// Why a record has no part, in a sentence.
    refused: Option<String>,
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
    subnet: Ipv4Net,
    /// Of several records of one subnet, the last that was written counts.
    version: u64,
    /// Where the host is, whatever its backend.
    host: Option<Ipv4Addr>,
    lease: Option<FlannelLease>,
}

impl FlannelMember {
    /// A host that says this of itself, and goes on with what was known before.
    pub fn new(me: FlannelLease, prefix: &str, table: FlannelTable) -> Self {
        let prefix = if prefix.trim_matches('/').is_empty() { PREFIX } else { prefix }.trim_end_matches('/').to_owned();
        let (stored, missing) = (BTreeMap::new(), BTreeMap::new());
        Self {
            me,
            prefix,
            table,
            fault: None,
            stored,
            intruder: None,
            refused: None,
            missing,
            revision: None,
            is_bound: false,
            held: None,
            is_full: false,
        }
    }

    /// What is known.
    pub const fn table(&self) -> &FlannelTable {
        &self.table
    }

    /// Whether etcd was heard, and has this host's record.
    pub fn is_in(&self) -> bool {
        self.revision.is_some() && self.is_bound && self.table.own.is_some_and(|own| self.own_record(own).is_some())
    }

    /// Whether all of the prefix was listed.
    pub const fn is_heard(&self) -> bool {
        self.revision.is_some()
    }

    /// The records of a subnet.
    fn records(&self, subnet: Ipv4Net) -> impl Iterator<Item = (&String, &Stored)> {
        let first = key_of(subnet);
        let keys = self.stored.range(first.clone()..).take_while(move |(key, _)| key.starts_with(&first));
        keys.filter(move |(_, stored)| stored.subnet == subnet)
    }

    /// The record of a subnet that is this host's, if any of them is.
    fn own_record(&self, subnet: Ipv4Net) -> Option<(&String, &Stored)> {
        let mut own = self.records(subnet).filter(|(_, stored)| self.is_own(stored));
        let first = own.next();
        first.into_iter().chain(own).find(|(_, stored)| stored.lease == Some(self.me)).or(first)
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
                        Change::Gone(key) => drop(self.stored.remove(key)),
                    }
                }
            }
        }
        if let Some(text) = config {
            self.read(text.as_deref());
        }
        self.refresh(now);
        if self.table.own.is_some_and(|own| self.records(own).next().is_none()) {
            self.held = Some(now + HOLD);
        }
    }

    fn take(&mut self, entry: &Entry, config: &mut Option<Option<String>>) {
        let Entry { key, value, version } = entry;
        self.revision = self.revision.max(Some(*version));
        if key.len() > LONGEST_KEY || value.len() > LONGEST_VALUE {
            // It is as if it were not there.
            match key == CONFIG {
                true => *config = Some(None),
                false => drop(self.stored.remove(key)),
            }
            return;
        }
        if key == CONFIG {
            *config = Some(Some(value.clone()));
        } else if let Some(subnet) = subnet_of(key)
            && (self.stored.len() < MOST_SUBNETS || self.stored.contains_key(key))
        {
            let (host, lease) = (FlannelLease::host_of(value), FlannelLease::read(value));
            self.stored.insert(key.clone(), Stored { subnet, version: *version, host, lease });
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
            (Ok(net), _) if net.network.contains(&self.me.host) => {
                let (network, host) = (net.network, self.me.host);
                let what =
                    format!("has the network {network}, in which this host's `underlay` {host} is: use one that is apart");
                self.fault = Some(about(&what));
            }
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

    /// Brings the hosts to what etcd has. Those that it does not have are looked at later. Who is there already comes first, and stays where a newcomer
    /// has the same MAC address, or a subnet that overlaps.
    fn refresh(&mut self, now: Duration) {
        self.intruder = self.table.own.and_then(|own| {
            let mut near = self.stored.iter().filter(|(_, stored)| overlap(own, stored.subnet));
            near.find(|(_, stored)| !self.is_own(stored)).map(|(key, stored)| (key.clone(), stored.host))
        });
        let FlannelTable { net: Some(net), hosts, .. } = &self.table else { return };
        let (net, candidates) = (net.clone(), self.candidates(net.network));
        let mut ends: BTreeMap<Mac, (Ipv4Net, Ipv4Addr)> = BTreeMap::new();
        for (subnet, lease) in hosts {
            ends.entry(lease.mac).or_insert((*subnet, lease.host));
        }
        let (known, new): (Vec<_>, Vec<_>) = candidates.into_iter().partition(|(subnet, _)| hosts.contains_key(subnet));
        (self.is_full, self.refused) = (false, None);
        let mut there = BTreeSet::new();
        for (subnet, lease) in known.into_iter().chain(new) {
            if let Some(why) = self.refusal(&net, subnet, lease, &ends) {
                let FlannelLease { host, .. } = lease;
                self.refused.get_or_insert_with(|| format!("{subnet} of {host} is not reached: {why}"));
            } else if self.table.hosts.len() >= MOST_HOSTS && !self.table.hosts.contains_key(&subnet) {
                self.is_full = true;
            } else {
                ends.insert(lease.mac, (subnet, lease.host));
                self.table.hosts.insert(subnet, lease);
                self.missing.remove(&subnet);
                there.insert(subnet);
            }
        }
        for subnet in self.table.hosts.keys().filter(|subnet| !there.contains(subnet)) {
            self.missing.entry(*subnet).or_insert(now);
        }
    }

    /// The other hosts, as etcd has them: of several records of one subnet, as the last says.
    fn candidates(&self, network: Ipv4Net) -> BTreeMap<Ipv4Net, FlannelLease> {
        let (own, me) = (self.table.own, self.me);
        let mut found: BTreeMap<Ipv4Net, (u64, FlannelLease)> = BTreeMap::new();
        for Stored { subnet, version, lease, .. } in self.stored.values() {
            let is_apart = network.contains(subnet) && own.is_none_or(|own| !overlap(own, *subnet));
            let Some(lease) = lease.filter(|lease| is_apart && lease.host != me.host && lease.mac != me.mac) else { continue };
            if found.get(subnet).is_none_or(|(before, _)| before <= version) {
                found.insert(*subnet, (*version, lease));
            }
        }
        found.into_iter().map(|(subnet, (_, lease))| (subnet, lease)).collect()
    }

    /// Why a record has no part in the network. A host that has one keeps it when the network's lengths and bounds change.
    fn refusal(
        &self,
        net: &FlannelNet,
        subnet: Ipv4Net,
        lease: FlannelLease,
        ends: &BTreeMap<Mac, (Ipv4Net, Ipv4Addr)>,
    ) -> Option<String> {
        let hosts = &self.table.hosts;
        if !hosts.contains_key(&subnet) {
            // Those that are there do not overlap.
            let near = [hosts.range(..subnet).next_back(), hosts.range(subnet..).next()].into_iter().flatten();
            if let Some((other, there)) = near.into_iter().find(|(other, _)| overlap(**other, subnet)) {
                return Some(format!(
                    "it overlaps {other} of {}, which was there before: stop flanneld on one of the two",
                    there.host
                ));
            }
            if !net.fits(subnet) {
                let FlannelNet { network, subnet_length, first, last, .. } = net;
                return Some(format!("a host's subnet of {network} is a /{subnet_length} from {first} to {last}"));
            }
        }
        let (other, host) = ends.get(&lease.mac).filter(|(other, host)| *other != subnet && *host != lease.host)?;
        Some(format!(
            "it has the MAC address {} of {other} at {host}, which was there before: give one of the two hosts another",
            lease.mac
        ))
    }

    /// Withdraws the hosts that are gone, if it is time.
    pub fn expire(&mut self, now: Duration) {
        self.held = self.held.filter(|held| now < *held);
        if self.held.is_some() || self.revision.is_none() {
            return;
        }
        let gone: Vec<Ipv4Net> =
            self.missing.extract_if(.., |_, since| now >= *since + GRACE).map(|(subnet, _)| subnet).collect();
        for subnet in &gone {
            self.table.hosts.remove(subnet);
        }
        if !gone.is_empty() {
            // There may be room now for who was refused.
            self.refresh(now);
        }
    }

    /// What is to be put into etcd now. A subnet that is chosen is as `random` says.
    pub fn due(&self, random: u32) -> Option<Step> {
        self.revision?;
        let subnet = match self.table.own.or_else(|| self.left()) {
            Some(own) => own,
            None if self.fault.is_none() => {
                self.table.net.as_ref()?.choose(self.stored.values().map(|stored| stored.subnet), random)?
            }
            None => return None,
        };
        let value = self.me.written(self.table.net.as_ref()?.vni);
        match self.own_record(subnet) {
            None if self.records(subnet).next().is_none() => Some(Step::Claim { key: key_of(subnet), value }),
            Some((key, _)) if !self.is_bound => Some(Step::Announce { key: key.clone(), value }),
            _ => None,
        }
    }

    /// The subnet that etcd has as this host's, which has lost what it kept.
    fn left(&self) -> Option<Ipv4Net> {
        let net = self.table.net.as_ref().filter(|_| self.fault.is_none())?;
        self.stored.values().find(|stored| net.fits(stored.subnet) && self.is_own(stored)).map(|stored| stored.subnet)
    }

    /// Whether a record is this host's: it has its address, or its MAC address, where its address is another now.
    fn is_own(&self, stored: &Stored) -> bool {
        stored.host == Some(self.me.host) || stored.lease.is_some_and(|lease| lease.mac == self.me.mac)
    }

    /// Takes note that a step was carried out, or refused, which another host's record explains that is still to be heard of.
    pub fn done(&mut self, step: &Step, outcome: Outcome, now: Duration) {
        let (Some(subnet), Outcome::Done) = (subnet_of(step.key()), outcome) else { return };
        let version = self.revision.unwrap_or_default();
        self.stored.insert(step.key().to_owned(), Stored { subnet, version, host: Some(self.me.host), lease: Some(self.me) });
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
        if let (Some(own), Some((key, host))) = (self.table.own, &self.intruder) {
            let other = host.map_or_else(|| "another host".to_owned(), |host| host.to_string());
            return Some(format!(
                "{own}, which is this host's subnet, is leased to {other} as well: stop flanneld there and remove {}/{key}, or stop vswitchd \
                 here, remove `flannel.json` in state-dir, and give stations new addresses",
                self.prefix
            ));
        }
        let own = self.table.own.filter(|_| self.is_bound).and_then(|own| Some((own, self.own_record(own)?.1)));
        if let Some((own, _)) = own.filter(|(_, stored)| stored.lease != Some(self.me)) {
            return Some(format!(
                "another program has put itself into the record of this host's subnet {own}, with the address {}: does flanneld run here, \
                 or has another host this `underlay`? Stop it, and start vswitchd again",
                self.me.host
            ));
        }
        let is_out = self.revision.is_some() && self.table.own.is_none() && self.due(0).is_none();
        let net = self.table.net.as_ref().filter(|_| is_out);
        let no_room = net.map(|net| {
            let (network, length) = (net.network, net.subnet_length);
            format!("no /{length} of {network} is free: each has a record below {}/subnets", self.prefix)
        });
        let full = self.is_full.then(|| format!("the network has more than {MOST_HOSTS} hosts, of which some are not reached"));
        self.fault.clone().or(no_room).or(full).or_else(|| self.refused.clone())
    }

    /// The MAC address of this host's end of the tunnel.
    pub const fn mac(&self) -> Mac {
        self.me.mac
    }
}

#[cfg(test)]
mod tests;
