//! Fragments: only the first of a packet has ports, so what it became is remembered for those that follow.
//!
//! **What bounds it.** 2048 packets in 128 rows; which row a packet is in depends on its source alone, hashed with a seed. A
//! full row loses its oldest packet, so a source that sends nothing but first fragments pushes out its own, and those of the
//! few that share its row. An entry is good for 30 seconds (RFC 4787, REQ-14; RFC 791 and RFC 8200 reassemble for 15 to 60).
//!
//! A later fragment that comes before the first is denied. The router keeps it, and asks again once the first has come.

use std::hash::{BuildHasher, Hasher};

use foldhash::fast::FixedState;
use packet::{FragmentKey, IpPacket};

use crate::key::bits;
use crate::rewrite::Rewrite;

const ROWS: usize = 128;
const PER_ROW: usize = 16;
/// Seconds.
const LIFETIME: u32 = 30;

#[derive(Debug)]
pub(crate) struct Fragments {
    seed: FixedState,
    /// Rows, once the first fragment has come.
    entries: Vec<Option<Entry>>,
    /// First fragments so far.
    count: u64,
}

/// Where a packet was going when its first fragment came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Outbound,
    Inbound,
    Hairpin,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    key: Key,
    /// Which first fragment it was.
    number: u64,
    /// It is for the switch itself.
    is_ours: bool,
    source: Option<u128>,
    destination: Option<u128>,
    /// The first second in which it is no more.
    deadline: u32,
}

/// A packet on one of its ways.
type Key = (Way, FragmentKey);

impl Fragments {
    pub(crate) fn new(seed: u64) -> Self {
        Self { seed: FixedState::with_seed(seed), entries: Vec::new(), count: 0 }
    }

    /// Remembers what becomes of a packet, if this is its first fragment.
    pub(crate) fn remember(&mut self, now: u32, way: Way, packet: &IpPacket, rewrite: Option<&Rewrite>) {
        let Some(key) = packet.fragment_key().map(|key| (way, key)) else { return };
        if self.entries.is_empty() {
            self.entries = vec![None; ROWS * PER_ROW];
        }
        self.count += 1;
        let entry = Entry {
            key,
            number: self.count,
            is_ours: rewrite.is_none(),
            source: rewrite.and_then(Rewrite::source).map(bits),
            destination: rewrite.and_then(Rewrite::destination).map(bits),
            deadline: now.saturating_add(LIFETIME),
        };
        let row = self.row(&key);
        let row = self.entries.get_mut(row).unwrap_or_default();
        let again = row.iter().position(|other| other.is_some_and(|other| other.key == key));
        let oldest = || (0..row.len()).min_by_key(|place| row.get(*place).copied().flatten().map_or(0, |other| other.number));
        if let Some(place) = again.or_else(oldest).and_then(|place| row.get_mut(place)) {
            *place = Some(entry);
        }
    }

    /// What becomes of a later fragment: the same as of the first, if that is known.
    pub(crate) fn find(&self, now: u32, way: Way, packet: &IpPacket) -> Option<Option<Rewrite>> {
        let key = (way, packet.fragment_key()?);
        let row = self.entries.get(self.row(&key))?;
        let entry = row.iter().flatten().find(|entry| entry.key == key && entry.deadline > now)?;
        Some((!entry.is_ours).then(|| Rewrite::fragment(packet, entry.source, entry.destination)))
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.entries.fill(None);
    }

    fn row(&self, (_, key): &Key) -> std::ops::Range<usize> {
        let mut hasher = self.seed.build_hasher();
        hasher.write_u128(bits(key.source));
        let row = usize::try_from(hasher.finish() % ROWS as u64).unwrap_or_default();
        row * PER_ROW..(row + 1) * PER_ROW
    }
}
