//! Gossip: hosts that find each other and know within seconds who lives, with no store, and what each of them announces.
//!
//! ```text
//!  swim     who lives: foca, the protocol SWIM
//!  table    what each host announces, copied by versions
//!  seal     whose gossip a datagram is, and its encryption
//!  node     a socket, a clock, and what waits for news
//! ```
//!
//! Two uses. With any store the hosts that it knows are asked whether they live, so that a death is known long before a lease ends. And with
//! `store = "gossip"` there is no store: hosts that know one address find all the others, and each keeps the tables of all
//! ([`store::gossip`](crate::store)).
//!
//! [`Gossip`] waits for nothing and reads no clock: datagrams and the time come in as arguments, datagrams go out as values.
//!
//! **What bounds it.** [`MOST_HOSTS`] hosts, each with a table of 16 MiB at most; a datagram is answered by three at most, none of them longer than
//! what a path carries whole, but for a single record that is longer.

mod member;
mod node;
mod seal;
mod swim;
mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use serde::{Deserialize, Serialize};

use crate::store::Entry;
pub use member::Life;
pub use node::{Node, milliseconds, not_here, seed};
use seal::{Seal, Unreadable};
use swim::{Malformed, Swim};
use table::{Item, Record, Replica, Table};

/// The UDP port of gossip, which Serf and Docker's swarms use for theirs as well.
pub const UDP_PORT: u16 = 7946;

/// Most hosts that one gossips with.
pub const MOST_HOSTS: usize = 1000;

/// How long a host that hears of no other waits before it goes on alone.
pub const ALONE: Duration = Duration::from_secs(5);

/// What a host is to the gossip.
#[derive(Clone)]
pub struct Profile {
    /// The address that its datagrams come from and go to.
    pub address: SocketAddr,
    /// A number that grows with each start: milliseconds since 1970.
    pub boot: u64,
    /// What tells this gossip from that of others.
    pub prefix: String,
    /// What its hosts share, if anything; with it datagrams are encrypted.
    pub secret: Option<String>,
    /// Whether hosts take in any other and share their tables, or only ask those that they are told of whether they live.
    pub is_store: bool,
}

/// The gossip of one host.
pub struct Gossip {
    profile: Profile,
    swim: Swim,
    seal: Seal,
    table: Table,
    replicas: BTreeMap<SocketAddr, Replica>,
    /// The hosts that it looks for, and which start of each it knows of.
    sought: BTreeMap<SocketAddr, String>,
    out: Vec<(SocketAddr, Vec<u8>)>,
    /// When those that are missed are asked again.
    next_round: Duration,
    rounds: usize,
    /// Datagrams that the secret does not open, and the last of them.
    refused: (u64, Option<(SocketAddr, Duration)>),
    /// Whether something can be seen that could not before.
    is_changed: bool,
}

/// What hosts say to each other.
#[derive(Serialize, Deserialize)]
enum Said {
    /// A message of SWIM.
    Swim(Vec<u8>),
    /// How far the sender's table has come.
    At { life: u64, version: u64 },
    /// What of your table came after that?
    Want { life: u64, after: u64 },
    /// That.
    Page { life: u64, after: u64, version: u64, items: Vec<Item> },
}

impl Gossip {
    /// A host that knows of no other. `random` is a number that no one can guess, or in tests a seed.
    pub fn new(profile: Profile, random: u64) -> Self {
        let Profile { address, boot, .. } = profile;
        Self {
            swim: Swim::new(address, boot, StdRng::seed_from_u64(random)),
            seal: Seal::new(&profile.prefix, profile.secret.as_deref()),
            profile,
            table: Table::new(random),
            replicas: BTreeMap::new(),
            sought: BTreeMap::new(),
            out: Vec::new(),
            next_round: Duration::ZERO,
            rounds: 0,
            refused: (0, None),
            is_changed: false,
        }
    }

    /// The hosts to look for, with a word for each start of them: of one that was started again it is not known whether it answers. What is more
    /// than [`MOST_HOSTS`] is left out.
    pub fn seek(&mut self, mut hosts: BTreeMap<SocketAddr, String>, now: Duration) {
        hosts.remove(&self.profile.address);
        for (address, _) in hosts.iter().filter(|(address, boot)| self.sought.get(address).is_some_and(|known| known != *boot))
        {
            self.swim.forget_answer(*address);
        }
        let is_news = hosts.keys().any(|address| !self.sought.contains_key(address));
        self.sought = hosts.into_iter().take(MOST_HOSTS).collect();
        if is_news {
            self.next_round = now;
        }
        self.is_changed = true;
    }

    /// A host that is silent is known to be there all the same: nothing follows until it answers.
    pub fn forgive(&mut self, host: SocketAddr) {
        self.swim.forget_answer(host);
        self.is_changed = true;
    }

    /// How it stands with a host.
    pub fn life(&self, host: SocketAddr) -> Life {
        match self.swim.lives(host) {
            None => Life::NeverHeard,
            Some(true) => Life::Up,
            Some(false) => Life::Silent,
        }
    }

    /// Takes in a datagram.
    pub fn receive(&mut self, from: SocketAddr, mut datagram: Vec<u8>, now: Duration) {
        let text = match self.seal.open(&mut datagram) {
            Ok(text) => text,
            Err(Unreadable::Stranger) => return,
            Err(Unreadable::Secret) => {
                self.refused = (self.refused.0 + 1, Some((from, now)));
                return;
            }
        };
        if let Ok(said) = postcard::from_bytes(text) {
            self.hear(from, said, now);
        }
        self.settle();
    }

    fn hear(&mut self, from: SocketAddr, said: Said, now: Duration) {
        match said {
            Said::Swim(message) => {
                let Self { profile, sought, .. } = self;
                // With room for more, any host is taken in.
                let full: Option<BTreeSet<SocketAddr>> = self.swim.remembered_if(MOST_HOSTS);
                let is_known = |address| full.as_ref().is_none_or(|known| known.contains(&address));
                let is_welcome = |address| sought.contains_key(&address) || profile.is_store && is_known(address);
                // What is malformed says nothing.
                let (Ok(()) | Err(Malformed)) = self.swim.receive(from, &message, is_welcome, now);
            }
            _ if !self.profile.is_store || !self.swim.is_member(from) => {}
            Said::At { life, version } => {
                let replica = self.replicas.entry(from).or_default();
                let was_complete = replica.is_complete();
                replica.hear(life, version);
                self.is_changed |= replica.is_complete() != was_complete;
                self.want(from);
            }
            Said::Want { life, after } if life == self.table.life && after < self.table.version => {
                let items = self.table.page(after);
                self.say(from, &Said::Page { life, after, version: self.table.version, items });
            }
            Said::Want { .. } => self.tell(from),
            Said::Page { life, after, version, items } => {
                let replica = self.replicas.entry(from).or_default();
                if replica.take(life, after, version, items) {
                    self.want(from);
                    self.is_changed = true;
                }
            }
        }
    }

    /// Asks a host for what is missing of its table.
    fn want(&mut self, host: SocketAddr) {
        if let Some((life, after)) = self.replicas.get(&host).and_then(Replica::missing) {
            self.say(host, &Said::Want { life, after });
        }
    }

    /// Tells a host how far this one's table has come.
    fn tell(&mut self, host: SocketAddr) {
        let Table { life, version, .. } = self.table;
        self.say(host, &Said::At { life, version });
    }

    fn say(&mut self, host: SocketAddr, said: &Said) {
        // Numbers and texts can all be written.
        if let Ok(text) = postcard::to_stdvec(said) {
            self.out.push((host, self.seal.seal(&text)));
        }
    }

    /// Does what is due.
    pub fn tick(&mut self, now: Duration) {
        self.swim.tick(now);
        if now >= self.next_round {
            self.next_round = now + ROUND;
            self.round();
        }
        self.settle();
    }

    /// Asks some of those that are missed, or were never heard to answer; tells some of those that are there how far this host's table has come; and
    /// asks again for what did not come.
    fn round(&mut self) {
        self.rounds += 1;
        let members: BTreeSet<SocketAddr> = self.swim.members().collect();
        let wanted: BTreeSet<SocketAddr> =
            self.sought.keys().copied().chain(self.swim.dead()).chain(members.iter().copied()).collect();
        let missed = wanted.iter().filter(|host| self.swim.lives(**host) != Some(true));
        let missed: Vec<SocketAddr> = in_turn(missed, self.rounds).collect();
        missed.into_iter().for_each(|host| self.swim.ask(host));
        if self.profile.is_store {
            in_turn(members.iter(), self.rounds).for_each(|host| self.tell(host));
            let hosts: Vec<SocketAddr> = self.replicas.keys().copied().collect();
            hosts.into_iter().for_each(|host| self.want(host));
        }
    }

    /// Brings what follows from SWIM in order.
    fn settle(&mut self) {
        for (host, is_there) in self.swim.take_turned() {
            self.is_changed = true;
            if !is_there {
                self.replicas.remove(&host);
            } else if self.profile.is_store {
                self.replicas.entry(host).or_default();
                self.tell(host);
            }
        }
        for (host, message) in self.swim.take_messages() {
            self.say(host, &Said::Swim(message));
        }
    }

    /// When something is due.
    pub fn due(&self) -> Duration {
        self.swim.due().map_or(self.next_round, |due| due.min(self.next_round))
    }

    /// Takes the datagrams that are to be sent.
    pub fn take_datagrams(&mut self) -> Vec<(SocketAddr, Vec<u8>)> {
        std::mem::take(&mut self.out)
    }

    /// Whether something can be seen that could not when this was asked last.
    pub fn take_change(&mut self) -> bool {
        std::mem::take(&mut self.is_changed)
    }

    /// Writes keys of this host's table, or removes them. `since` is the time of new ones, in milliseconds since 1970.
    pub(crate) fn announce(&mut self, keys: impl IntoIterator<Item = (String, Option<String>)>, since: u64) {
        let before = (self.table.life, self.table.version);
        for (key, value) in keys {
            let since = self.table.record(&key).map_or(since, |record| record.since);
            self.table.set(&key, value.map(|value| Record { since, value }));
        }
        self.tell_all_unless(before);
    }

    /// Makes a record of another host this host's own as well, so that it outlives the other.
    pub(crate) fn adopt(&mut self, key: &str) {
        let before = (self.table.life, self.table.version);
        if let Some(record) = self.record(key).cloned() {
            self.table.set(key, Some(record));
        }
        self.tell_all_unless(before);
    }

    /// Removes all that this host announces.
    pub(crate) fn withdraw(&mut self) {
        let keys: Vec<String> = self.table.records().map(|(key, _)| key.clone()).collect();
        self.announce(keys.into_iter().map(|key| (key, None)), 0);
    }

    fn tell_all_unless(&mut self, before: (u64, u64)) {
        if before != (self.table.life, self.table.version) {
            let members: Vec<SocketAddr> = self.swim.members().collect();
            members.into_iter().for_each(|host| self.tell(host));
            self.is_changed = true;
        }
    }

    /// Says goodbye: the others forget this host at once.
    pub fn leave(&mut self) {
        self.swim.leave();
        self.settle();
    }

    /// Whether what the hosts that are there announce is here, or there was time enough.
    pub fn is_ready(&self, now: Duration) -> bool {
        let is_whole = !self.replicas.is_empty() && self.replicas.values().all(Replica::is_complete);
        now >= ALONE || is_whole
    }

    /// What a key has: where hosts differ, what was there first.
    fn record(&self, key: &str) -> Option<&Record> {
        let others = self.replicas.values().filter_map(|replica| replica.records().get(key));
        self.table.record(key).into_iter().chain(others).min()
    }

    /// Whether a key is in any table.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.record(key).is_some()
    }

    /// All that is below a prefix, by the order of the keys.
    pub(crate) fn list(&self, prefix: &str) -> Vec<Entry> {
        let mut all: BTreeMap<&str, &Record> = BTreeMap::new();
        let others = self.replicas.values().flat_map(|replica| replica.below(prefix));
        for (key, record) in self.table.below(prefix).chain(others) {
            let first = all.entry(key).or_insert(record);
            *first = (*first).min(record);
        }
        let entry = |(key, record): (&str, &Record)| Entry { key: key.to_owned(), value: record.value.clone(), version: 0 };
        all.into_iter().map(entry).collect()
    }

    /// What is wrong, in a sentence.
    pub fn problem(&self, now: Duration) -> Option<String> {
        let lately = |(_, at): &(SocketAddr, Duration)| now < *at + LATELY;
        if let (count, Some((from, _))) = (self.refused.0, self.refused.1.filter(lately)) {
            let rest = "give all hosts the same `secret-file`, or none";
            return Some(format!(
                "gossip that was not sealed with this host's secret was dropped {count} times, the last from {}: {rest}",
                from.ip()
            ));
        }
        let is_lonely = self.profile.is_store && now >= ALONE && !self.sought.is_empty() && self.replicas.is_empty();
        is_lonely.then(|| {
            let seeds: Vec<String> = self.sought.keys().take(NAMED).map(ToString::to_string).collect();
            let rest = "or give this one the same `secret-file` as they have";
            let seeds = seeds.join(", ");
            format!("no other host answers at UDP {seeds}: start one there, or correct `endpoints` of [cluster], {rest}")
        })
    }
}

/// A few of many, others each time.
fn in_turn<'a>(all: impl Iterator<Item = &'a SocketAddr>, turn: usize) -> impl Iterator<Item = SocketAddr> {
    let all: Vec<SocketAddr> = all.copied().collect();
    let (start, count) = (turn.wrapping_mul(AT_ONCE).checked_rem(all.len()).unwrap_or_default(), all.len().min(AT_ONCE));
    all.into_iter().cycle().skip(start).take(count)
}

/// How often those that are missed are asked.
const ROUND: Duration = Duration::from_millis(500);

/// How many are asked or told in a round.
const AT_ONCE: usize = 8;

/// How many of those that do not answer are named.
const NAMED: usize = 4;

/// How long a wrong secret is spoken of.
const LATELY: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests;
