//! Sessions of a whole batch, fetched ahead.
//!
//! In a large table nearly every packet waits for memory: for its place in an index, then for its session. Two packets' waits do
//! not depend on each other, but a packet that is translated before the next one is looked at makes them come one after the other.
//! So a batch is gone through twice before anything is decided: once for the places, once for the sessions.

use std::hint::black_box;

use packet::IpPacket;

use crate::Nat;
use crate::read::Flow;
use crate::session::Direction;
use crate::sessions::Sessions;
use crate::table::Table;

/// Most packets that are fetched for at a time; a batch of the switch has no more.
const PACKETS: usize = 64;
/// Fewer sessions stay in the processor's second cache by themselves.
const NEAR: usize = 8192;

impl Nat {
    /// Brings what is known about these packets, each with its frame, into the processor's cache. It decides and changes nothing.
    pub fn prefetch<'a>(&self, direction: Direction, packets: impl Iterator<Item = (IpPacket, &'a [u8])>) {
        if self.table.len() <= NEAR {
            return;
        }
        let mut hashes = [0; PACKETS];
        let mut count = 0;
        let flows = packets.filter(|(packet, _)| packet.has_transport()).filter_map(|(packet, frame)| Flow::of(&packet, frame));
        for (hash, flow) in hashes.iter_mut().zip(flows) {
            *hash = self.table.hash(direction, &flow);
            count += 1;
        }
        self.table.touch(direction, hashes.get(..count).unwrap_or_default());
    }
}

impl Table {
    /// Fetches the sessions that are likely to have these hashes. No fetch of a pass depends on another of the same pass.
    fn touch(&self, direction: Direction, hashes: &[u64]) {
        let index = self.index(direction);
        black_box(hashes.iter().fold(0, |sum, hash| sum ^ index.peek(*hash)));
        let likely = hashes.iter().filter_map(|hash| index.find(*hash, |_| true)).map(|index| self.session(index));
        // A field of each of its two cache lines.
        black_box(likely.fold(0, |sum, session| sum ^ session.inside_address ^ u128::from(session.remote_port)));
    }
}
