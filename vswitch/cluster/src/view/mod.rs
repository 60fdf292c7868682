//! What one host knows of the cluster: its own truth, which it keeps in the store, and what others put there, which its tunnels follow.
//!
//! A view has no clock and no store. It is told what is true here ([`View::join`], [`View::announce`]) and what was heard ([`View::hear`]); it says
//! what the store lacks ([`View::due`], which becomes [`View::committed`]) and how the tunnels must change ([`View::differences`]). All is compared
//! with the whole, never counted up: news may come late or twice, and a store may lose everything.
//!
//! **What bounds it.** [`MOST_RECORDS`] stations and [`MOST_PEERS`] hosts of a network; what is beyond them is not followed.

mod address;
mod cluster;
mod difference;
mod double;
mod look;
mod number;
mod segment;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use packet::Mac;

use crate::record::{self, CLUSTER, Host, Key, Name};
use crate::store::{Change, MOST_STEPS, News, Step};

pub use address::NoAddress;
use cluster::Cluster;
pub use difference::{Announced, Difference, Refusal, Station};
use segment::{Pending, Segment, Wish};

/// How long what a host knows outlives a store that has lost it: all hosts put their own truth there again meanwhile.
pub const HOLD: Duration = Duration::from_secs(60);

/// How long a host must have been gone before another takes over a block of its addresses. A host that was cut off from the store for half of it hands
/// out no more of its own.
pub const RECLAIM: Duration = Duration::from_secs(24 * 3600);

/// How long a host that knows of no cluster waits before it begins one in an empty store.
pub const SETTLE: Duration = Duration::from_secs(5);

/// Most stations of a network.
pub const MOST_RECORDS: usize = 1 << 16;

/// Most hosts of a network besides this one; a tunnel has no more peers.
pub const MOST_PEERS: usize = 1000;

/// What one host knows.
pub struct View {
    me: Name,
    host: Host,
    /// Which cluster this is, once it is known.
    id: Option<String>,
    /// The id of a cluster that begins with this host.
    new_id: String,
    cluster: Cluster,
    segments: BTreeMap<Name, Segment>,
    /// What was announced in the session that lasts, by key.
    put: BTreeMap<String, String>,
    /// Until when nothing is withdrawn.
    held: Option<Duration>,
    /// Whether that is because the store has lost something.
    has_lost: bool,
    refusal: Option<Refusal>,
    /// When the store was last heard to know this host.
    renewed: Duration,
    /// Whether hosts agree on nothing, so that a network's number is what follows from its name.
    is_apart: bool,
    /// Whether this host's address was none of it since the start.
    is_nowhere: bool,
}

impl View {
    /// The view of a host that knows nothing yet. `id` is the cluster that it remembers, `new_id` that of one which begins with it.
    pub fn new(me: Name, host: Host, id: Option<String>, new_id: String) -> Self {
        Self {
            me,
            host,
            id,
            new_id,
            cluster: Cluster::default(),
            segments: BTreeMap::new(),
            put: BTreeMap::new(),
            held: None,
            has_lost: false,
            refusal: None,
            renewed: Duration::ZERO,
            is_apart: false,
            is_nowhere: false,
        }
    }

    /// A view of hosts that only tell each other: no number is taken, so that of a network is the one that follows from its name.
    pub const fn apart(mut self) -> Self {
        self.is_apart = true;
        self
    }

    /// The host's name.
    pub fn me(&self) -> &Name {
        &self.me
    }

    /// The id to remember, once it is known.
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// Why the host takes no part in the cluster, if so.
    pub fn refusal(&self) -> Option<&Refusal> {
        self.refusal.as_ref()
    }

    /// Whether the store's list of hosts and networks was heard.
    pub fn is_heard(&self) -> bool {
        self.cluster.listed.is_some()
    }

    /// Whether withdrawals wait, because the store has lost what this host had put there.
    pub fn is_held(&self) -> bool {
        self.has_lost
    }

    /// The host has ports in a network from now on. If the network is new, it has these subnets, and the addresses in them as gateways, and is
    /// encrypted if the host wishes so.
    pub fn join(&mut self, network: Name, addresses: &[IpNet], encrypt: bool) {
        let mut subnets: Vec<IpNet> = addresses.iter().map(IpNet::trunc).collect();
        subnets.sort_unstable();
        let gateways = addresses.iter().filter(|net| net.addr() != net.network()).map(IpNet::addr).collect();
        let (wish, segment) = (Wish { subnets, encrypt }, self.segments.get(&network));
        if segment.is_some_and(|segment| segment.wish == wish && segment.addresses.gateways == gateways) {
            return;
        }
        let segment = self.segments.entry(network).or_default();
        (segment.wish, segment.addresses.gateways) = (wish, gateways);
        self.admit();
    }

    /// What a network's tunnel was told before this host was started again. It stays until the store has been heard, and for [`HOLD`] what the
    /// store lacks of it; where there is no store, for [`SETTLE`].
    pub fn recall(
        &mut self,
        network: &Name,
        vni: u32,
        peers: BTreeSet<IpAddr>,
        stations: BTreeMap<Mac, Station>,
        now: Duration,
    ) {
        let Some(segment) = self.segments.get_mut(network) else { return };
        segment.vni = Some(vni);
        segment.told = segment::Told { peers, stations };
        // Where hosts only tell each other there is nothing to be put again, but for what was not heard at once.
        self.held = Some(now + if self.is_apart { SETTLE } else { HOLD });
    }

    /// The host has no more ports in a network. Its tunnel goes with it, so there are no differences to come.
    pub fn leave(&mut self, network: &Name) {
        self.segments.remove(network);
        // What was wrong with it is no matter any more.
        self.admit();
    }

    /// A station of this host: it was seen, or has other addresses.
    pub fn announce(
        &mut self,
        network: &Name,
        mac: Mac,
        ips: BTreeSet<IpAddr>,
        name: Option<String>,
        now: Duration,
    ) -> Announced {
        let me = &self.me;
        self.segments.get_mut(network).map_or(Announced::Ignored, |segment| segment.announce(me, mac, ips, name, now))
    }

    /// A station of this host is gone.
    pub fn withdraw(&mut self, network: &Name, mac: Mac) {
        if let Some(segment) = self.segments.get_mut(network) {
            segment.withdraw(mac);
        }
    }

    /// Takes in what was heard of a prefix: [`CLUSTER`], or that of a network.
    pub fn hear(&mut self, prefix: &str, news: &News, now: Duration) {
        if prefix == CLUSTER {
            self.hear_cluster(news, now);
        } else if !matches!(self.refusal, Some(Refusal::Foreign { .. })) {
            self.hear_segment(prefix, news, now);
        }
        self.forget_what_is_gone(prefix, news);
    }

    fn hear_cluster(&mut self, news: &News, now: Duration) {
        if self.cluster.hear(&self.me, news, now) {
            self.hold(now);
        }
        self.admit();
        self.segments.values_mut().for_each(|segment| segment.pending = Pending::All);
    }

    /// Whether this is the host's cluster, and the host the one of its name.
    fn admit(&mut self) {
        self.refusal = None;
        match (&self.cluster.id, &self.id) {
            (Some(store), Some(ours)) if store != ours => {
                self.refusal = Some(Refusal::Foreign { store: store.clone(), ours: ours.clone() });
                return;
            }
            (Some(store), None) => self.id = Some(store.clone()),
            _ => {}
        }
        let other = self.cluster.records.get(&self.me).filter(|other| other.underlay != self.host.underlay);
        if let Some(other) = other {
            self.refusal = Some(Refusal::NameTaken { name: self.me.clone(), underlay: other.underlay });
        } else {
            self.refusal = self.rival();
        }
        for (name, segment) in &mut self.segments {
            match self.cluster.networks.get(name) {
                Some(network) => segment.refusal = segment.differs_from(name, network),
                None if self.is_apart => segment.refusal = None,
                // What a store has lost comes again as it was.
                None => {}
            }
        }
        if self.is_apart {
            self.refuse_clashes();
        }
    }

    fn hear_segment(&mut self, prefix: &str, news: &News, now: Duration) {
        let me = &self.me;
        let found = self.segments.iter_mut().find(|(name, _)| record::network_prefix(name) == prefix);
        if found.is_some_and(|(_, segment)| segment.hear(me, news)) {
            self.hold(now);
        }
    }

    fn hold(&mut self, now: Duration) {
        (self.held, self.has_lost) = (Some(now + HOLD), true);
    }

    /// What this host put into the store, and is not there any more, is put there again.
    fn forget_what_is_gone(&mut self, prefix: &str, news: &News) {
        match news {
            News::All(listing) => {
                let there: BTreeMap<&str, &str> = listing.entries.iter().map(|entry| (&*entry.key, &*entry.value)).collect();
                self.put
                    .retain(|key, value| !key.starts_with(prefix) || value == UNKNOWN || there.get(&**key) == Some(&&**value));
            }
            News::Some(changes) => changes.iter().for_each(|change| match change {
                Change::Is(entry) => self.forget(&entry.key, |value| value != UNKNOWN && value != entry.value),
                Change::Gone(key) => self.forget(key, |value| value != UNKNOWN),
            }),
        }
    }

    fn forget(&mut self, key: &str, is_gone: impl Fn(&str) -> bool) {
        if self.put.get(key).is_some_and(|value| is_gone(value)) {
            self.put.remove(key);
        }
    }

    /// The store has just been heard to know this host's session.
    pub fn renewed(&mut self, now: Duration) {
        self.renewed = now;
    }

    /// The session has ended: what was announced in it is gone, or goes with it.
    pub fn session_ended(&mut self) {
        self.put.clear();
    }

    /// What the store lacks of this host's truth, as transactions in their order. One that is refused is due again after the next news, if at all.
    pub fn due(&self, now: Duration) -> Vec<Vec<Step>> {
        match (&self.refusal, &self.cluster.id) {
            (Some(refusal), _) if !matches!(refusal, Refusal::UnderlayTaken { .. }) => return Vec::new(),
            (_, None) => {
                // Hosts that know of an older cluster put its id there again first.
                let waits = self.id.is_none() && self.cluster.listed.is_some_and(|heard| now < heard + SETTLE);
                if waits || self.cluster.listed.is_none() {
                    return Vec::new();
                }
                let value = self.id.clone().unwrap_or_else(|| self.new_id.clone());
                return vec![vec![Step::Create { key: Key::Id.to_string(), value }]];
            }
            _ => {}
        }
        let is_new = |name: &Name, segment: &Segment| {
            !(self.cluster.networks.contains_key(name) || self.is_apart && segment.refusal.is_some())
        };
        let parts = || self.segments.iter().filter(|_| !self.is_idle());
        let networks = parts().filter(|(name, segment)| is_new(name, segment));
        let mut due: Vec<Vec<Step>> = networks.filter_map(|(name, segment)| self.new_network(name, segment)).collect();
        due.extend(parts().flat_map(|(name, segment)| self.new_blocks(name, segment, now)));
        let wanted = self.wanted();
        let strays = self.strays().chain(self.put.keys().cloned()).filter(|key| !wanted.contains_key(key));
        let removes = strays.collect::<BTreeSet<String>>().into_iter().map(|key| Step::Remove { key });
        let lacking = wanted.iter().filter(|(key, value)| self.put.get(*key) != Some(value));
        // The host's own record comes first, by the order of the keys.
        let announces = lacking.map(|(key, value)| Step::Announce { key: key.clone(), value: value.clone() });
        let steps: Vec<Step> = announces.chain(removes).collect();
        due.extend(steps.chunks(MOST_STEPS).map(<[Step]>::to_vec));
        due
    }

    /// All that this host announces.
    fn wanted(&self) -> BTreeMap<String, String> {
        let host = Host { idle: self.is_idle(), ..self.host.clone() };
        let mut wanted = BTreeMap::from([(Key::Host(self.me.clone()).to_string(), host.written())]);
        if host.idle {
            return wanted;
        }
        let is_there = |name: &Name| self.cluster.networks.contains_key(name);
        for (name, segment) in self.segments.iter().filter(|(name, segment)| is_there(name) && segment.refusal.is_none()) {
            wanted.insert(Key::Member(name.clone(), self.me.clone()).to_string(), MEMBER.to_owned());
            for (mac, endpoint) in &segment.ours {
                wanted.insert(Key::Endpoint(name.clone(), self.me.clone(), *mac).to_string(), record::written(endpoint));
            }
        }
        wanted
    }

    /// Stations that the store has of this host, and the host has not.
    fn strays(&self) -> impl Iterator<Item = String> {
        self.segments.iter().flat_map(|(name, segment)| {
            let mine = segment.endpoints.keys().filter(|(mac, host)| *host == self.me && !segment.ours.contains_key(mac));
            mine.map(|(mac, host)| Key::Endpoint(name.clone(), host.clone(), *mac).to_string())
        })
    }

    /// Takes note of a transaction that was carried out.
    pub fn committed(&mut self, steps: &[Step]) {
        for step in steps {
            match step {
                Step::Announce { key, value } | Step::Claim { key, value } => drop(self.put.insert(key.clone(), value.clone())),
                Step::Remove { key } => {
                    self.put.remove(key);
                    if let Some(Key::Endpoint(network, host, mac)) = Key::parse(key) {
                        let segment = self.segments.get_mut(&network);
                        segment.map(|segment| segment.endpoints.remove(&(mac, host)));
                    }
                }
                Step::Create { .. } | Step::Replace { .. } => {}
            }
        }
    }

    /// Takes note of a transaction of which it is not known whether it was carried out: what it announced is announced again, or removed.
    pub fn perhaps_committed(&mut self, steps: &[Step]) {
        for step in steps {
            if let Step::Announce { key, .. } = step {
                self.put.insert(key.clone(), UNKNOWN.to_owned());
            }
        }
    }

    /// How the tunnels must change since this was asked last.
    pub fn differences(&mut self, now: Duration) -> Vec<Difference> {
        if self.held.is_some_and(|until| until <= now) {
            (self.held, self.has_lost) = (None, false);
            self.segments.values_mut().for_each(|segment| segment.pending = Pending::All);
        }
        self.cluster.note_absence(self.segments.values().flat_map(Segment::owners), now);
        if self.refusal.is_some() {
            return Vec::new();
        }
        let mut differences = Vec::new();
        for (name, segment) in &mut self.segments {
            let vni = self.cluster.networks.get(name).map(|network| network.vni);
            if vni.is_some() && vni != segment.vni {
                segment.vni = vni;
                differences.extend(vni.map(|vni| Difference::Vni(name.clone(), vni)));
            }
            if segment.listed && self.cluster.listed.is_some() && segment.refusal.is_none() {
                segment.differences(name, &self.me, &self.host, &self.cluster.hosts, self.held.is_some(), &mut differences);
            }
        }
        differences
    }
}

/// A number that is the same on every host (FNV-1a).
pub(crate) fn hash(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// Stands for the value of a key whose announcement got no answer: the store may have it, or still get it.
const UNKNOWN: &str = "";

/// The record of a member: there is no more to say.
const MEMBER: &str = r#"{"v":1}"#;

#[cfg(test)]
mod tests;
