//! The session table: a slab, four indexes, and the rings through it.
//!
//! A packet costs one look-up: by container and remote on its way out, by external port and remote on its way in. The other two
//! indexes serve a flow's first packet: the mapping of a container's port, and whom that mapping has sent to. All are hashed
//! with a seed. Slab and indexes are made for their full size at once, which is address space until it is used, so nothing
//! grows, moves or is rehashed under traffic.
//!
//! A session whose deadline has passed is no more, whether or not [`Table::expire`] got to it: a look-up that finds it removes
//! it.

use std::hash::{BuildHasher, Hasher};

use foldhash::fast::FixedState;

use crate::counters::{Counters, Denied};
use crate::groups::{Common, Groups};
use crate::index::Index;
use crate::key::{Endpoint, Kind, Transport};
use crate::ports::{Ports, Random, Wanted};
use crate::read::Flow;
use crate::rings::NONE;
use crate::session::{Binding, Class, Direction, Session};
use crate::sessions::Sessions;
use crate::settings::{Filtering, Settings};
use crate::sources::Sources;
use crate::tcp::Flags;
use crate::wheel::Wheel;

mod peek;

pub(crate) use peek::Peek;

#[derive(Debug)]
pub(crate) struct Table {
    seed: FixedState,
    sessions: Vec<Session>,
    free: Vec<u32>,
    /// By container and remote.
    inside: Index,
    /// By external port and remote.
    outside: Index,
    mappings: Groups,
    peers: Groups,
    wheel: Wheel,
    sources: Sources,
    pub(crate) ports: Ports,
    pub(crate) counters: Counters,
    limits: Limits,
}

/// What the table needs of the settings.
#[derive(Debug)]
struct Limits {
    sessions: usize,
    per_source: u32,
    /// By [`Class`].
    seconds: [u32; Class::ALL.len()],
    inbound_refresh: bool,
    /// Whether any remote is a peer of a mapping.
    open: bool,
}

/// How many sessions there are, of which one more is wanted.
#[derive(Clone, Copy, Debug)]
struct Room {
    /// The source that wants it, if it is known.
    source: Option<u32>,
    of_source: u32,
    in_all: usize,
}

impl Table {
    pub(crate) fn new(settings: &Settings, seed: u64) -> Self {
        let seed = FixedState::with_seed(seed);
        let sessions = settings.sessions.clamp(1, Settings::MOST_SESSIONS) as usize;
        let open = settings.filtering == Filtering::EndpointIndependent;
        let index = || Index::new(sessions);
        Self {
            sources: Sources::new(settings.sources.clamp(1, Settings::MOST_SESSIONS), seed.clone()),
            sessions: Vec::with_capacity(sessions),
            free: Vec::new(),
            inside: index(),
            outside: index(),
            mappings: Groups::mappings(sessions, &seed, settings.mapping),
            peers: Groups::peers(sessions, &seed, open),
            wheel: Wheel::new(),
            seed,
            ports: Ports::new(),
            counters: Counters::default(),
            limits: Limits {
                sessions,
                per_source: settings.per_source(),
                seconds: Class::ALL.map(|class| settings.timeouts.seconds(class)),
                inbound_refresh: settings.inbound_refresh,
                open,
            },
        }
    }

    /// The hash of what a packet in this direction is found by.
    pub(crate) fn hash(&self, direction: Direction, flow: &Flow) -> u64 {
        let Flow { kind, source, destination, .. } = *flow;
        match direction {
            Direction::Outbound => inside_hash(&self.seed, kind, source, destination),
            Direction::Inbound => outside_hash(&self.seed, kind, destination.port, source),
        }
    }

    /// The index that finds it.
    pub(crate) const fn index(&self, direction: Direction) -> &Index {
        match direction {
            Direction::Outbound => &self.inside,
            Direction::Inbound => &self.outside,
        }
    }

    fn alive(&mut self, now: u32, index: u32) -> Option<u32> {
        if self.session(index).deadline > now {
            return Some(index);
        }
        self.counters.expired += 1;
        self.remove(index);
        None
    }

    /// The session of a container's port with a remote, were it over or not.
    fn at_inside(&self, kind: Kind, inside: Endpoint, remote: Endpoint) -> Option<u32> {
        self.inside.find(inside_hash(&self.seed, kind, inside, remote), |index| {
            let session = self.session(index);
            session.kind == kind && session.inside() == inside && session.remote() == remote
        })
    }

    /// The session of an external port with a remote, were it over or not.
    fn at_outside(&self, kind: Kind, port: u16, remote: Endpoint) -> Option<u32> {
        self.outside.find(outside_hash(&self.seed, kind, port, remote), |index| {
            let session = self.session(index);
            session.kind == kind && session.port == port && session.remote() == remote
        })
    }

    /// The session that has to end so that a source may have one more, among those that `may_go`; `None`: there is room. If the source has as many
    /// as it may, that is its oldest one that little is lost with. If the table is full, it is of the source with the most sessions: the oldest
    /// one that little is lost with; if there is none, and the room is for another source, one that was idle for long.
    fn victim(&self, room: Room, may_go: impl Fn(u32) -> bool) -> Result<Option<u32>, Denied> {
        let Room { source, of_source, in_all } = room;
        let transitory = |source| self.sources.transitory(&self.sessions, source).find(|index| may_go(*index));
        if of_source >= self.limits.per_source {
            return source.and_then(transitory).ok_or(Denied::SourceCap).map(Some);
        }
        if in_all < self.limits.sessions {
            return Ok(None);
        }
        let largest = self.sources.largest(source);
        let seconds = self.limits.seconds;
        // The deadline less the timeout is when it was last used; the earlier the better.
        let idle = move |session: &Session| u32::MAX - (session.deadline.saturating_sub(seconds[session.class as usize]));
        let lasting = || self.sources.lasting(&self.sessions, largest, idle).filter(|_| source != Some(largest));
        transitory(largest).or_else(lasting).ok_or(Denied::SessionCap).map(Some)
    }

    /// The group of the sessions of an external port that are peers to a remote address.
    fn peers_at(&self, kind: Kind, port: u16, address: u128) -> Common {
        (kind, Endpoint { address: if self.limits.open { 0 } else { address }, port }, 0)
    }

    /// Ends a session.
    pub(crate) fn remove(&mut self, index: u32) {
        let session = *self.session(index);
        self.inside.remove(session.inside_hash(&self.seed), index);
        self.outside.remove(session.outside_hash(&self.seed), index);
        match session.binding {
            Binding::Mapped => {
                self.peers.leave(&mut self.sessions, index);
                if self.mappings.leave(&mut self.sessions, index) {
                    self.ports.release(session.kind, session.port);
                }
            }
            Binding::Alone => {
                self.mappings.leave(&mut self.sessions, index);
            }
            Binding::Forwarded => {}
        }
        self.wheel.remove(&mut self.sessions, index);
        self.sources.leave(&mut self.sessions, index);
        self.free.push(index);
    }

    /// Ends at most `budget` sessions whose time is over. Returns how many.
    pub(crate) fn expire(&mut self, now: u32, budget: usize) -> usize {
        for ended in 0..budget {
            let Some(index) = self.wheel.due(&mut self.sessions, now) else { return ended };
            self.remove(index);
            self.counters.expired += 1;
        }
        budget
    }

    /// Ends the sessions that `keep` does not want. Returns how many.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(&Session) -> bool) -> usize {
        let gone: Vec<u32> = self.inside.iter().filter(|index| !keep(self.session(*index))).collect();
        for index in &gone {
            self.remove(*index);
        }
        self.counters.removed += gone.len() as u64;
        gone.len()
    }

    /// All sessions, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Session> {
        self.outside.iter().map(|index| self.session(index))
    }

    /// The sessions of so many places of the index, and where the others begin, if there are more.
    pub(crate) fn page(&self, from: usize, places: usize) -> (impl Iterator<Item = &Session>, Option<usize>) {
        let (numbers, next) = self.outside.page(from, places);
        (numbers.map(|index| self.session(index)), next)
    }

    /// Number of sessions.
    pub(crate) fn len(&self) -> usize {
        self.outside.len()
    }
}

impl Sessions for Table {
    fn session(&self, index: u32) -> &Session {
        &self.sessions[index as usize]
    }

    fn seconds(&self, class: Class) -> u32 {
        self.limits.seconds[class as usize]
    }

    fn find_inside(&mut self, now: u32, kind: Kind, inside: Endpoint, remote: Endpoint) -> Option<u32> {
        let found = self.at_inside(kind, inside, remote)?;
        self.alive(now, found)
    }

    fn find_outside(&mut self, now: u32, kind: Kind, port: u16, remote: Endpoint) -> Option<u32> {
        let found = self.at_outside(kind, port, remote)?;
        self.alive(now, found)
    }

    fn is_taken(&self, kind: Kind, port: u16, remote: Endpoint) -> bool {
        self.at_outside(kind, port, remote).is_some()
    }

    fn mapping(&mut self, now: u32, kind: Kind, inside: Endpoint) -> Option<u32> {
        loop {
            let found = self.mappings.find(&self.sessions, (kind, inside, 0))?;
            if self.alive(now, found).is_some() {
                return Some(found);
            }
        }
    }

    fn has_port(&self, kind: Kind, inside: Endpoint, port: u16) -> bool {
        self.mappings.find(&self.sessions, (kind, inside, port)).is_some()
    }

    fn peer(&mut self, now: u32, kind: Kind, port: u16, address: u128) -> Option<u32> {
        loop {
            let found = self.peers.find(&self.sessions, self.peers_at(kind, port, address))?;
            if self.alive(now, found).is_some() {
                return Some(found);
            }
        }
    }

    fn is_used(&self, kind: Kind, port: u16) -> bool {
        self.ports.is_used(kind, port)
    }

    fn free_port(&self, wanted: Wanted<'_>, random: &mut Random) -> Option<u16> {
        self.ports.find(wanted, random)
    }

    fn pass(&mut self, now: u32, index: u32, direction: Direction, flags: Flags, bytes: usize) {
        let before = *self.session(index);
        let session = &mut self.sessions[index as usize];
        session.count(direction, bytes);
        let class = session.follow(direction, flags);
        let refreshed = direction == Direction::Outbound
            || session.kind.transport == Transport::Tcp
            || session.binding == Binding::Forwarded
            || self.limits.inbound_refresh;
        let seconds = self.limits.seconds[class as usize];
        if refreshed {
            session.deadline = now.saturating_add(seconds);
        } else if class != before.class {
            let used = before.deadline.saturating_sub(self.limits.seconds[before.class as usize]);
            session.deadline = used.saturating_add(seconds);
        }
        if class.is_transitory() != before.class.is_transitory() {
            self.sources.unring(&mut self.sessions, index);
            self.sessions[index as usize].class = class;
            self.sources.ring(&mut self.sessions, index);
        }
        self.sessions[index as usize].class = class;
        self.wheel.advance(&mut self.sessions, index);
    }

    fn make_room(&mut self, kind: Kind, inside: u128) -> Result<(), Denied> {
        self.make_room_for(self.sources.find(kind.version, inside))
    }

    fn insert(&mut self, session: Session) {
        let source = self.sources.find_or_add(session.kind.version, session.inside_address);
        self.insert_of(source, session);
    }

    fn give_way(&mut self, index: u32) {
        self.remove(index);
        self.counters.removed += 1;
    }
}

impl Table {
    /// Sees to it that a source, if it has sessions, or else a new one may have one more, if need be by the end of another's.
    pub(crate) fn make_room_for(&mut self, source: Option<u32>) -> Result<(), Denied> {
        let room =
            Room { source, of_source: source.map_or(0, |source| self.sources.count(source)), in_all: self.outside.len() };
        let Some(victim) = self.victim(room, |_| true)? else { return Ok(()) };
        let Session { source, class, .. } = *self.session(victim);
        if !class.is_transitory() {
            self.sources.turn(&self.sessions, source);
        }
        self.remove(victim);
        self.counters.evicted += 1;
        Ok(())
    }

    /// As [`Sessions::insert`], and says whose it is.
    pub(crate) fn insert_of(&mut self, source: u32, session: Session) {
        let session = Session { source, ..session };
        let index = self.free.pop().unwrap_or_else(|| {
            self.sessions.push(session);
            u32::try_from(self.sessions.len() - 1).unwrap_or(NONE)
        });
        self.sessions[index as usize] = session;
        self.inside.insert(session.inside_hash(&self.seed), index);
        self.outside.insert(session.outside_hash(&self.seed), index);
        match session.binding {
            Binding::Mapped => {
                self.mappings.join(&mut self.sessions, index);
                self.peers.join(&mut self.sessions, index);
                self.ports.take(session.kind, session.port);
            }
            Binding::Alone => self.mappings.join(&mut self.sessions, index),
            Binding::Forwarded => {}
        }
        self.wheel.insert(&mut self.sessions, index);
        self.sources.join(&mut self.sessions, index);
        self.counters.created += 1;
    }
}

impl Session {
    fn inside_hash(&self, seed: &FixedState) -> u64 {
        inside_hash(seed, self.kind, self.inside(), self.remote())
    }

    fn outside_hash(&self, seed: &FixedState) -> u64 {
        outside_hash(seed, self.kind, self.port, self.remote())
    }
}

fn inside_hash(seed: &FixedState, kind: Kind, inside: Endpoint, remote: Endpoint) -> u64 {
    let mut hasher = seed.build_hasher();
    hasher.write_u128(inside.address);
    hasher.write_u128(remote.address);
    hasher.write_u64(numbers(kind, inside.port, remote.port));
    hasher.finish()
}

fn outside_hash(seed: &FixedState, kind: Kind, port: u16, remote: Endpoint) -> u64 {
    let mut hasher = seed.build_hasher();
    hasher.write_u128(remote.address);
    hasher.write_u64(numbers(kind, port, remote.port));
    hasher.finish()
}

fn numbers(kind: Kind, one: u16, other: u16) -> u64 {
    u64::from(kind.number()) << 32 | u64::from(one) << 16 | u64::from(other)
}

#[cfg(test)]
mod tests;
