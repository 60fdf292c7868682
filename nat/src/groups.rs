//! Sessions that belong together: rings, found by what their sessions have in common.

use std::hash::{BuildHasher, Hasher};

use foldhash::fast::FixedState;

use crate::index::Index;
use crate::key::{Endpoint, Kind};
use crate::rings::{self, NONE};
use crate::session::{Session, ring};
use crate::settings::Mapping;

/// What the sessions of a group have in common: a kind and one end, or a part of one; and where it matters, the external port.
pub(crate) type Common = (Kind, Endpoint, u16);

/// Groups of one sort.
#[derive(Debug)]
pub(crate) struct Groups {
    seed: FixedState,
    ring: usize,
    common: fn(&Session) -> Common,
    heads: Index,
}

impl Groups {
    /// Sessions of the same container's port, which share a mapping; where a mapping is for one remote, those that have the same
    /// external port besides.
    pub(crate) fn mappings(capacity: usize, seed: &FixedState, mapping: Mapping) -> Self {
        let common: fn(&Session) -> Common = match mapping {
            Mapping::EndpointIndependent => |session| (session.kind, session.inside(), 0),
            Mapping::EndpointDependent => |session| (session.kind, session.inside(), session.port),
        };
        Self::new(capacity, seed, ring::MAPPING, common)
    }

    /// Sessions of the same external port with the same remote address, or with any, if every remote is as good as another.
    pub(crate) fn peers(capacity: usize, seed: &FixedState, any: bool) -> Self {
        if any {
            return Self::new(capacity, seed, ring::PEERS, |session| {
                (session.kind, Endpoint { address: 0, port: session.port }, 0)
            });
        }
        Self::new(capacity, seed, ring::PEERS, |session| {
            (session.kind, Endpoint { address: session.remote_address, port: session.port }, 0)
        })
    }

    fn new(capacity: usize, seed: &FixedState, ring: usize, common: fn(&Session) -> Common) -> Self {
        Self { seed: seed.clone(), ring, common, heads: Index::new(capacity) }
    }

    /// A session of a group.
    pub(crate) fn find(&self, sessions: &[Session], common: Common) -> Option<u32> {
        self.heads.find(hash(&self.seed, common), |head| (self.common)(&sessions[head as usize]) == common)
    }

    /// The sessions of a group, in the order in which they became the first of it.
    pub(crate) fn members(&self, sessions: &[Session], common: Common) -> impl Iterator<Item = u32> {
        rings::walk(sessions, self.ring, self.find(sessions, common).unwrap_or(NONE))
    }

    /// The group that a session belongs to.
    pub(crate) fn of(&self, session: &Session) -> Common {
        (self.common)(session)
    }

    /// Puts a session into its group.
    pub(crate) fn join(&mut self, sessions: &mut [Session], index: u32) {
        let common = (self.common)(&sessions[index as usize]);
        let mut head = self.find(sessions, common).unwrap_or(NONE);
        if head == NONE {
            self.heads.insert(hash(&self.seed, common), index);
        }
        rings::append(sessions, self.ring, &mut head, index);
    }

    /// Takes a session out of its group. True if that was the end of the group.
    pub(crate) fn leave(&mut self, sessions: &mut [Session], index: u32) -> bool {
        let common = (self.common)(&sessions[index as usize]);
        let mut head = index;
        rings::take(sessions, self.ring, &mut head, index);
        let hash = hash(&self.seed, common);
        if head == NONE {
            self.heads.remove(hash, index);
        } else {
            self.heads.replace(hash, index, head);
        }
        head == NONE
    }

    /// Checks that groups and sessions agree on which sessions belong together.
    #[cfg(test)]
    pub(crate) fn check(&self, sessions: &mut [Session], members: &[u32]) {
        let mut sizes = std::collections::HashMap::new();
        for index in members {
            let (kind, end, port) = (self.common)(&sessions[*index as usize]);
            *sizes.entry((kind.index(), end.address, end.port, port)).or_insert(0) += 1;
        }
        assert_eq!(self.heads.len(), sizes.len());
        for head in self.heads.iter() {
            let (kind, end, port) = (self.common)(&sessions[head as usize]);
            assert_eq!(rings::len(sessions, self.ring, head), sizes[&(kind.index(), end.address, end.port, port)]);
        }
    }
}

fn hash(seed: &FixedState, (kind, end, port): Common) -> u64 {
    let mut hasher = seed.build_hasher();
    hasher.write_u128(end.address);
    hasher.write_u64(u64::from(port) << 32 | u64::from(end.port) << 8 | u64::from(kind.number()));
    hasher.finish()
}
