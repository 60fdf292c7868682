//! One network as a host knows it: who has a part in it, which stations are where, and what its tunnel was told.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use packet::Mac;

use super::{Announced, Difference, MOST_PEERS, MOST_RECORDS, Refusal, Station};
use crate::record::{self, Block, Endpoint, Host, Key, Name, Network};
use crate::store::{Change, Entry, News};

#[derive(Default)]
pub(super) struct Segment {
    pub(super) wish: Wish,
    /// This host's truth.
    pub(super) ours: BTreeMap<Mac, Endpoint>,
    pub(super) addresses: Addresses,
    /// What the network had when it was last seen.
    pub(super) vni: Option<u32>,
    /// The store's records.
    pub(super) listed: bool,
    revision: u64,
    pub(super) members: BTreeSet<Name>,
    pub(super) endpoints: BTreeMap<(Mac, Name), Endpoint>,
    /// Whose each block is, and which version the record has. A block is never removed, so one that the store lacks is one that it has lost.
    pub(super) blocks: BTreeMap<IpNet, (Name, u64)>,
    /// The blocks that the store has.
    pub(super) stored: BTreeSet<IpNet>,
    /// Whether the store was heard to have this host's membership.
    confirmed: bool,
    pub(super) told: Told,
    /// What may differ from what the tunnel was told.
    pub(super) pending: Pending,
    /// Whether the network is not what this host wants it to be.
    pub(super) refusal: Option<Refusal>,
    /// How often stations came here from other hosts, and since when that is counted.
    moves: BTreeMap<Mac, (u32, Duration)>,
}

/// What this host will have the network be.
#[derive(Default, PartialEq, Eq)]
pub(super) struct Wish {
    pub(super) subnets: Vec<IpNet>,
    pub(super) encrypt: bool,
}

/// What a tunnel was told.
#[derive(Default)]
pub(super) struct Told {
    pub(super) peers: BTreeSet<IpAddr>,
    pub(super) stations: BTreeMap<Mac, Station>,
}

/// What has changed since the tunnel was told last. Where it is a few stations of many, only those are looked at.
#[derive(Default)]
pub(super) enum Pending {
    #[default]
    Nothing,
    Stations(BTreeSet<Mac>),
    /// Hosts came or went, or the whole list was read anew.
    All,
}

impl Pending {
    fn add(&mut self, mac: Mac) {
        match self {
            Self::Nothing => *self = Self::Stations(BTreeSet::from([mac])),
            Self::Stations(macs) if macs.len() < MOST_RECORDS => drop(macs.insert(mac)),
            Self::Stations(_) | Self::All => *self = Self::All,
        }
    }
}

/// The addresses that a host hands out, and those of its gateways.
#[derive(Default)]
pub(super) struct Addresses {
    pub(super) gateways: Vec<IpAddr>,
    /// Its blocks.
    pub(super) mine: BTreeSet<IpNet>,
    /// Those that were handed out, and not given back.
    pub(super) handed_out: BTreeSet<IpAddr>,
    /// The subnet that one more block is wanted of.
    pub(super) wanted: Option<IpNet>,
    /// Addresses that are wanted, each with the block that it is in.
    pub(super) claims: BTreeSet<IpAddr>,
}

impl Segment {
    /// Why this host takes no part, if the network is not what it wants it to be.
    pub(super) fn differs_from(&self, name: &Name, network: &Network) -> Option<Refusal> {
        let text = |subnets: &[IpNet]| subnets.iter().map(IpNet::to_string).collect::<Vec<_>>().join(" and ");
        let Wish { subnets, encrypt } = &self.wish;
        if *encrypt != network.encrypt {
            return Some(Refusal::Encryption { network: name.clone(), encrypt: network.encrypt });
        }
        let are_other = !subnets.is_empty() && !network.subnets.is_empty() && *subnets != network.subnets;
        let (theirs, ours) = (text(&network.subnets), text(subnets));
        are_other.then(|| Refusal::Subnets { network: name.clone(), theirs, ours })
    }

    /// The hosts that have blocks of addresses.
    pub(super) fn owners(&self) -> impl Iterator<Item = &Name> {
        self.blocks.values().map(|(host, _)| host)
    }

    pub(super) fn announce(
        &mut self,
        me: &Name,
        mac: Mac,
        ips: BTreeSet<IpAddr>,
        name: Option<String>,
        now: Duration,
    ) -> Announced {
        if let Some(endpoint) = self.ours.get_mut(&mac) {
            let told = Endpoint { ips, name, sequence: endpoint.sequence };
            let is_known = *endpoint == told;
            *endpoint = told;
            return if is_known { Announced::Known } else { Announced::Told };
        }
        if self.ours.len() >= MOST_RECORDS {
            return Announced::Ignored;
        }
        let elsewhere = self.claims(mac).filter(|(host, _)| *host != me).map(|(_, endpoint)| endpoint.sequence).max();
        let mut sequence = 0;
        if let Some(highest) = elsewhere {
            if self.moves_too_often(mac, now) {
                return Announced::Duplicate;
            }
            sequence = highest.saturating_add(1);
        }
        self.ours.insert(mac, Endpoint { ips, name, sequence });
        self.pending.add(mac);
        Announced::Told
    }

    pub(super) fn withdraw(&mut self, mac: Mac) {
        self.ours.remove(&mac);
        self.pending.add(mac);
    }

    /// Five moves within three minutes are two stations with one address (RFC 7432, section 15.1).
    fn moves_too_often(&mut self, mac: Mac, now: Duration) -> bool {
        self.moves.retain(|_, (_, since)| now < *since + MOVES_WITHIN);
        let (count, _) = self.moves.entry(mac).or_insert((0, now));
        *count += 1;
        *count > MOST_MOVES
    }

    /// Every host that announces a station.
    fn claims(&self, mac: Mac) -> impl Iterator<Item = (&Name, &Endpoint)> {
        let all = self.endpoints.range((mac, Name::first())..).take_while(move |((of, _), _)| *of == mac);
        all.map(|((_, host), endpoint)| (host, endpoint))
    }

    /// Takes in news; true if the store has lost this host's part, or is older than it was.
    pub(super) fn hear(&mut self, me: &Name, news: &News) -> bool {
        let mut older = false;
        match news {
            News::All(listing) => {
                older = listing.revision < self.revision;
                (self.listed, self.revision) = (true, listing.revision);
                self.members.clear();
                self.endpoints.clear();
                self.stored.clear();
                self.pending = Pending::All;
                listing.entries.iter().for_each(|entry| self.is(me, entry));
            }
            News::Some(changes) => changes.iter().for_each(|change| match change {
                Change::Is(entry) => self.is(me, entry),
                Change::Gone(key) => self.gone(key),
            }),
        }
        let lost = self.confirmed && !self.members.contains(me);
        self.confirmed = self.members.contains(me);
        older || lost
    }

    fn is(&mut self, me: &Name, entry: &Entry) {
        match Key::parse(&entry.key) {
            Some(Key::Member(_, host)) => {
                self.members.insert(host);
                self.pending = Pending::All;
            }
            Some(Key::Endpoint(_, host, mac)) if !mac.is_group() && mac != Mac::ZERO => {
                let key = (mac, host);
                if self.endpoints.len() < MOST_RECORDS || self.endpoints.contains_key(&key) {
                    drop(record::read(&entry.value).map(|endpoint| self.endpoints.insert(key, endpoint)));
                    self.pending.add(mac);
                }
            }
            Some(Key::Block(_, subnet)) => {
                let Some(Block { host }) = record::read(&entry.value) else { return };
                // What was taken before this host was started again is its own still; what was taken from it is not.
                if host == *me {
                    self.addresses.mine.insert(subnet)
                } else {
                    self.addresses.mine.remove(&subnet)
                };
                self.blocks.insert(subnet, (host, entry.version));
                self.stored.insert(subnet);
            }
            _ => {}
        }
    }

    fn gone(&mut self, key: &str) {
        match Key::parse(key) {
            Some(Key::Member(_, host)) => {
                self.members.remove(&host);
                self.pending = Pending::All;
            }
            Some(Key::Endpoint(_, host, mac)) => {
                self.pending.add(mac);
                self.endpoints.remove(&(mac, host));
            }
            Some(Key::Block(_, subnet)) => drop(self.stored.remove(&subnet)),
            _ => {}
        }
    }

    /// How the tunnel must change. Nothing is withdrawn while that is `held`.
    pub(super) fn differences(
        &mut self,
        network: &Name,
        me: &Name,
        here: &Host,
        hosts: &BTreeMap<Name, Host>,
        held: bool,
        differences: &mut Vec<Difference>,
    ) {
        let macs = match std::mem::take(&mut self.pending) {
            Pending::Nothing => return,
            Pending::Stations(macs) => macs,
            Pending::All => self.macs(),
        };
        self.give_up_what_moved(&macs, network, me, here, hosts, differences);
        let peers = self.vteps(me, here, hosts);
        differences.extend(peers.difference(&self.told.peers).map(|peer| Difference::Joined(network.clone(), *peer)));
        let mut over = Vec::new();
        for mac in macs {
            match self.elsewhere(mac, &peers, me, here, hosts) {
                Some(station) if self.told.stations.get(&mac) != Some(&station) => {
                    differences.push(Difference::Is(network.clone(), mac, station.clone()));
                    self.told.stations.insert(mac, station);
                }
                // A station that is here now is at no other host, whatever the store has lost.
                None if !held || self.ours.contains_key(&mac) => over.push(mac),
                _ => {}
            }
        }
        let gone = over.into_iter().filter(|mac| self.told.stations.remove(mac).is_some());
        differences.extend(gone.map(|mac| Difference::Gone(network.clone(), mac)));
        let left: Vec<IpAddr> = self.told.peers.difference(&peers).copied().filter(|_| !held).collect();
        for peer in left {
            self.told.peers.remove(&peer);
            differences.push(Difference::Left(network.clone(), peer));
        }
        self.told.peers.extend(peers);
    }

    /// Every station that is somewhere, or of which the tunnel was told so.
    fn macs(&self) -> BTreeSet<Mac> {
        let stored = self.endpoints.keys().map(|(mac, _)| mac);
        stored.chain(self.ours.keys()).chain(self.told.stations.keys()).copied().collect()
    }

    /// A station that was announced here, and was seen at another host later, is here no more.
    fn give_up_what_moved(
        &mut self,
        macs: &BTreeSet<Mac>,
        network: &Name,
        me: &Name,
        here: &Host,
        hosts: &BTreeMap<Name, Host>,
        differences: &mut Vec<Difference>,
    ) {
        for mac in macs {
            let now_at = || self.best(*mac, me, here, hosts).map(|(host, ..)| host).filter(|host| *host != me);
            if let Some(host) = self.ours.contains_key(mac).then(now_at).flatten() {
                differences.push(Difference::Taken(network.clone(), *mac, host.clone()));
                self.ours.remove(mac);
            }
        }
    }

    /// Where the tunnel should lead.
    fn vteps(&self, me: &Name, here: &Host, hosts: &BTreeMap<Name, Host>) -> BTreeSet<IpAddr> {
        let others = self.members.iter().filter(|host| *host != me);
        let vteps = others.filter_map(|host| hosts.get(host)).map(|host| host.underlay).filter(|vtep| *vtep != here.underlay);
        vteps.take(MOST_PEERS).collect()
    }

    /// A station, if it is at another host that the tunnel leads to.
    fn elsewhere(
        &self,
        mac: Mac,
        peers: &BTreeSet<IpAddr>,
        me: &Name,
        here: &Host,
        hosts: &BTreeMap<Name, Host>,
    ) -> Option<Station> {
        let (host, vtep, endpoint) = self.best(mac, me, here, hosts)?;
        let station = || Station { host: host.clone(), vtep, ips: endpoint.ips.clone(), name: endpoint.name.clone() };
        (host != me && peers.contains(&vtep)).then(station)
    }

    /// Where a station is: the highest sequence number says so, and between equals the lowest address of a tunnel.
    fn best<'a>(
        &'a self,
        mac: Mac,
        me: &'a Name,
        here: &Host,
        hosts: &BTreeMap<Name, Host>,
    ) -> Option<(&'a Name, IpAddr, &'a Endpoint)> {
        let others = self.claims(mac).filter(|(host, _)| *host != me && self.members.contains(*host));
        let others = others.filter_map(|(host, endpoint)| Some((host, hosts.get(host)?.underlay, endpoint)));
        let ours = self.ours.get(&mac).map(|endpoint| (me, here.underlay, endpoint));
        others.chain(ours).max_by_key(|(_, vtep, endpoint)| (endpoint.sequence, std::cmp::Reverse(*vtep)))
    }
}

const MOST_MOVES: u32 = 5;
const MOVES_WITHIN: Duration = Duration::from_secs(180);
