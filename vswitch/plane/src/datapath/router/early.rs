//! Fragments that came before the first one of their packet, which alone has the ports that NAT decides by (RFC 4787, REQ-14).
//!
//! **What it holds.** Copies of such frames until the first fragment comes. Then they go the way that the first went. Senders of today
//! send the first one first, but paths of several links, and some old stacks, turn the order around.
//!
//! **What bounds it.** [`ROWS`] rows of [`PER_ROW`] frames, as many as a packet of 64 KiB has fragments on an Ethernet. Which row a
//! frame is in depends on its source alone, hashed with a seed; a full row loses its oldest frame. So a source that sends nothing
//! but later fragments pushes out its own, and those of the few that share its row. A frame waits [`PATIENCE`] seconds at most.

use std::hash::{BuildHasher, Hasher};
use std::net::IpAddr;

use foldhash::fast::FixedState;
use packet::{FragmentKey, Frame, IpPacket};

use super::{Arrival, BridgeId, DropReason, Kept, LateDrop, PortId};

const ROWS: usize = 16;
const PER_ROW: usize = 48;
/// Seconds; what is out of order by more is lost (RFC 791 asks receivers for 15 at least, and they wait for all of it).
const PATIENCE: u32 = 5;

/// Frames that wait for another.
#[derive(Debug)]
pub(super) struct Early {
    seed: FixedState,
    /// Rows, oldest first, once a frame has come.
    rows: Vec<Vec<Waiting>>,
}

/// A frame that waits.
#[derive(Debug)]
pub(super) struct Waiting {
    key: Key,
    pub(super) port: PortId,
    pub(super) frame: Kept,
    /// The second in which it came.
    came: u32,
}

/// A packet, by the bridge that it came from.
type Key = (BridgeId, FragmentKey);

impl From<Waiting> for LateDrop {
    fn from(waiting: Waiting) -> Self {
        Self { port: waiting.port, reason: DropReason::NatFragmentBeforeFirst, frame: waiting.frame }
    }
}

impl Early {
    pub(super) fn new(seed: u64) -> Self {
        Self { seed: FixedState::with_seed(seed), rows: Vec::new() }
    }

    /// Keeps a fragment. Returns one that had to go for it.
    pub(super) fn keep(&mut self, at: &Arrival, packet: &IpPacket, frame: &Frame) -> Option<Waiting> {
        let key = (at.bridge, packet.fragment_key()?);
        if self.rows.is_empty() {
            self.rows.resize_with(ROWS, Vec::new);
        }
        let row = self.row(&key)?;
        let displaced = (row.len() >= PER_ROW).then(|| row.remove(0));
        row.push(Waiting { key, port: at.port, frame: frame.into(), came: at.second });
        displaced
    }

    /// The fragments that waited for `first`, in the order in which they came.
    pub(super) fn take(&mut self, bridge: BridgeId, first: &IpPacket) -> Vec<Waiting> {
        let key = first.fragment_key().map(|key| (bridge, key));
        let row = key.and_then(|key| self.row(&key));
        row.map(|row| row.extract_if(.., |waiting| Some(waiting.key) == key).collect()).unwrap_or_default()
    }

    /// Those that have waited in vain.
    pub(super) fn expire(&mut self, now: u32) -> impl Iterator<Item = Waiting> {
        let is_late = move |waiting: &mut Waiting| now.saturating_sub(waiting.came) >= PATIENCE;
        self.rows.iter_mut().flat_map(move |row| row.extract_if(.., is_late))
    }

    /// Forgets what came from a bridge.
    pub(super) fn forget_bridge(&mut self, bridge: BridgeId) {
        self.rows.iter_mut().for_each(|row| row.retain(|waiting| waiting.key.0 != bridge));
    }

    fn row(&mut self, (_, key): &Key) -> Option<&mut Vec<Waiting>> {
        let mut hasher = self.seed.build_hasher();
        hasher.write_u128(match key.source {
            IpAddr::V4(source) => source.to_bits().into(),
            IpAddr::V6(source) => source.to_bits(),
        });
        let row = usize::try_from(hasher.finish() % ROWS as u64).unwrap_or_default();
        self.rows.get_mut(row)
    }
}
