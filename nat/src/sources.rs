//! Sessions by their source, which is an inside address, and the source that has the most.
//!
//! Each source keeps its sessions in two rings, those that little is lost with and the others, oldest first. Sources with the
//! same number of sessions form a ring themselves, so the one with the most is found at once. After `capacity` sources every
//! further one belongs to the crowd, which counts as a single source. So a station that makes up source addresses competes with
//! itself only.

use std::hash::{BuildHasher, Hasher};

use foldhash::fast::FixedState;
use packet::IpVersion;

use crate::index::Index;
use crate::rings::{self, Link, Linked, NONE};
use crate::session::{Session, ring};

/// The source of all that are too many.
pub(crate) const CROWD: u32 = 0;

/// Sessions of lasting worth that an eviction compares.
const SAMPLE: usize = 8;

#[derive(Debug)]
pub(crate) struct Sources {
    seed: FixedState,
    capacity: usize,
    index: Index,
    sources: Vec<Source>,
    free: Vec<u32>,
    /// Rings of sources, by their number of sessions.
    by_count: Vec<u32>,
    most: u32,
}

#[derive(Clone, Copy, Debug)]
struct Source {
    version: IpVersion,
    address: u128,
    count: u32,
    /// Its sessions: transitory, lasting.
    heads: [u32; 2],
    link: Link,
}

impl Linked for Source {
    fn link(&mut self, _: usize) -> &mut Link {
        &mut self.link
    }

    fn place(&self, _: usize) -> Link {
        self.link
    }
}

impl Source {
    const fn new(version: IpVersion, address: u128) -> Self {
        Self { version, address, count: 0, heads: [NONE; 2], link: Link::OUT }
    }
}

impl Sources {
    pub(crate) fn new(capacity: u32, seed: FixedState) -> Self {
        Self {
            seed,
            capacity: capacity as usize,
            index: Index::new(capacity as usize),
            sources: vec![Source::new(IpVersion::V4, 0)],
            free: Vec::new(),
            by_count: vec![NONE],
            most: 0,
        }
    }

    /// The source of an address: its own, if it has sessions or there is room for another.
    pub(crate) fn find(&self, version: IpVersion, address: u128) -> Option<u32> {
        let same = |index: u32| is(&self.sources[index as usize], version, address);
        let found = self.index.find(hash(&self.seed, version, address), same);
        found.or_else(|| (self.index.len() >= self.capacity).then_some(CROWD))
    }

    /// As [`Sources::find`], and adds it.
    pub(crate) fn find_or_add(&mut self, version: IpVersion, address: u128) -> u32 {
        if let Some(source) = self.find(version, address) {
            return source;
        }
        let source = Source::new(version, address);
        let index = self.free.pop().unwrap_or_else(|| {
            self.sources.push(source);
            u32::try_from(self.sources.len() - 1).unwrap_or(CROWD)
        });
        self.sources[index as usize] = source;
        self.index.insert(hash(&self.seed, version, address), index);
        index
    }

    /// Number of its sessions.
    pub(crate) fn count(&self, source: u32) -> u32 {
        self.sources[source as usize].count
    }

    /// The source with the most sessions; `preferred`, if none has more.
    pub(crate) fn largest(&self, preferred: Option<u32>) -> u32 {
        let is_one = |source: &u32| self.count(*source) == self.most;
        preferred.filter(is_one).unwrap_or(self.by_count[self.most as usize])
    }

    /// Adds a session to its source.
    pub(crate) fn join(&mut self, sessions: &mut [Session], index: u32) {
        let Session { source, class, .. } = sessions[index as usize];
        let head = &mut self.sources[source as usize].heads[usize::from(!class.is_transitory())];
        rings::append(sessions, ring::SOURCE, head, index);
        self.recount(source, 1);
    }

    /// Takes a session from its source, which is forgotten with its last one.
    pub(crate) fn leave(&mut self, sessions: &mut [Session], index: u32) {
        self.unring(sessions, index);
        let source = sessions[index as usize].source;
        self.recount(source, -1);
        let Source { version, address, count, .. } = self.sources[source as usize];
        if count == 0 && source != CROWD {
            self.index.remove(hash(&self.seed, version, address), source);
            self.free.push(source);
        }
    }

    /// Takes a session whose worth is about to change out of its ring; [`Sources::ring`] puts it back.
    pub(crate) fn unring(&mut self, sessions: &mut [Session], index: u32) {
        let Session { source, class, .. } = sessions[index as usize];
        let head = &mut self.sources[source as usize].heads[usize::from(!class.is_transitory())];
        rings::take(sessions, ring::SOURCE, head, index);
    }

    pub(crate) fn ring(&mut self, sessions: &mut [Session], index: u32) {
        let Session { source, class, .. } = sessions[index as usize];
        let head = &mut self.sources[source as usize].heads[usize::from(!class.is_transitory())];
        rings::append(sessions, ring::SOURCE, head, index);
    }

    /// The source's transitory sessions, oldest first.
    pub(crate) fn transitory(&self, sessions: &[Session], source: u32) -> impl Iterator<Item = u32> {
        rings::walk(sessions, ring::SOURCE, self.sources[source as usize].heads[0])
    }

    /// The longest idle of some of the source's lasting sessions.
    pub(crate) fn lasting(&self, sessions: &[Session], source: u32, idle: impl Fn(&Session) -> u32) -> Option<u32> {
        let sample = rings::walk(sessions, ring::SOURCE, self.sources[source as usize].heads[1]).take(SAMPLE);
        sample.fold(None, |best: Option<u32>, index| {
            let is_better = best.is_none_or(|best| idle(&sessions[index as usize]) > idle(&sessions[best as usize]));
            if is_better { Some(index) } else { best }
        })
    }

    /// Has the next call of [`Sources::lasting`] look at others, so that all have their turn.
    pub(crate) fn turn(&mut self, sessions: &[Session], source: u32) {
        let head = &mut self.sources[source as usize].heads[1];
        for _ in 0..SAMPLE {
            if *head != NONE {
                *head = rings::next(sessions, ring::SOURCE, *head);
            }
        }
    }

    fn recount(&mut self, source: u32, change: i32) {
        let count = self.count(source);
        if count > 0 {
            rings::take(&mut self.sources, 0, &mut self.by_count[count as usize], source);
        }
        let count = count.saturating_add_signed(change);
        self.sources[source as usize].count = count;
        if self.by_count.len() <= count as usize {
            self.by_count.push(NONE);
        }
        if count > 0 {
            rings::append(&mut self.sources, 0, &mut self.by_count[count as usize], source);
        }
        self.most = self.most.max(count);
        if self.most > 0 && self.by_count[self.most as usize] == NONE {
            self.most -= 1;
        }
    }

    /// What the tests believe in: counts are right, and every source with sessions is listed by their number.
    #[cfg(test)]
    pub(crate) fn check(&mut self, sessions: &mut [Session]) -> usize {
        let mut total = 0;
        for (number, source) in (0_u32..).zip(&self.sources) {
            let Source { count, heads, version, address, .. } = *source;
            let lengths: u32 = heads.iter().map(|head| rings::len(sessions, ring::SOURCE, *head)).sum();
            if !self.free.contains(&number) {
                assert_eq!(lengths, count, "source {number}");
                assert!(number == CROWD || self.find(version, address) == Some(number));
                assert!(number == CROWD || count > 0);
                total += count as usize;
            }
        }
        let counts: Vec<_> = self.sources.iter().map(|source| source.count).collect();
        assert_eq!(self.most, counts.iter().copied().max().unwrap_or(0));
        for (count, head) in self.by_count.clone().into_iter().enumerate().skip(1) {
            let same = counts.iter().filter(|other| **other as usize == count).count();
            assert_eq!(rings::len(&self.sources, 0, head) as usize, same);
        }
        assert!(self.index.len() <= self.capacity);
        total
    }
}

fn is(source: &Source, version: IpVersion, address: u128) -> bool {
    source.address == address && source.version == version
}

fn hash(seed: &FixedState, version: IpVersion, address: u128) -> u64 {
    let mut hasher = seed.build_hasher();
    hasher.write_u128(address);
    hasher.write_u8(version as u8);
    hasher.finish()
}
