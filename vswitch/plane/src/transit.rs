//! Packets that wait on their way between the station and its port, or the port and its device: in impaired lines ([`crate::impair`]) and in shapers
//! ([`crate::shape`]). The worker lets them in, and out again when they are due.

use std::collections::VecDeque;
use std::time::Instant;

use packet::{Offload, Packet};

use crate::datapath::DropReason;
use crate::fair::Weighed;
use crate::impair::Treated;

/// What a packet that waits costs in memory besides its bytes, about.
pub(crate) const OVERHEAD: usize = 128;
/// Most buffers that are kept for packets to come; a quarter as many for super-frames, of which each has more than the bytes of a packet.
const SPARE: usize = 256;
const SMALL: usize = 16 << 10;

/// One packet that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Transit {
    /// From its destination address on.
    pub(crate) bytes: Vec<u8>,
    /// What is left to do with it.
    pub(crate) offload: Offload,
    /// The port that it came in at.
    pub(crate) ingress: u32,
    /// Which of the peers behind a tunnel sent it, or gets it.
    pub(crate) peer: u16,
    /// The number by which captures know it.
    pub(crate) id: u64,
}

impl Weighed for Transit {
    fn length(&self) -> usize {
        self.bytes.len()
    }

    fn cost(&self) -> usize {
        self.bytes.len() + OVERHEAD
    }
}

/// Where packets wait.
pub(crate) trait Stage {
    /// The memory of those that are here.
    fn stock(&self) -> &Stock;

    /// The same, to change.
    fn stock_mut(&mut self) -> &mut Stock;

    /// Takes note of the frame that the next packets are cut from.
    fn begin(&mut self, _frame: &[u8]) {}

    /// Lets a packet in.
    fn push(&mut self, packet: &Packet<'_>, now: Instant);

    /// Takes a packet that is due.
    fn pop(&mut self, now: Instant) -> Option<Transit>;

    /// When there is something to do next.
    fn next(&self) -> Option<Instant>;

    /// What was done to packets since it was last asked.
    fn take_treated(&mut self) -> Treated;

    /// Whether super-frames are let in whole.
    fn keeps_whole(&self) -> bool;

    /// Counts the packets in a super-frame that was let in whole, besides the first.
    fn count_more(&mut self, _packets: u64) {}

    /// Whether it is taken away.
    fn ends(&self) -> bool;

    /// Takes the stage away: all that is here is due, and what comes until it is empty goes on at once, behind that.
    fn let_go(&mut self, now: Instant);

    /// Loses all that is here.
    fn lose_all(&mut self, reason: DropReason);
}

/// The memory of packets that wait, and of those that were lost and not yet told of.
#[derive(Debug, Default)]
pub(crate) struct Stock {
    held: usize,
    lost: VecDeque<(DropReason, Transit)>,
    spare: Vec<Vec<u8>>,
}

impl Stock {
    /// What all of them take.
    pub(crate) const fn held(&self) -> usize {
        self.held
    }

    /// A copy of a packet, in a buffer that was used before if there is one.
    pub(crate) fn take_in(&mut self, packet: &Packet<'_>) -> Transit {
        let mut bytes = self.spare.pop().unwrap_or_default();
        bytes.clear();
        packet.parts.iter().for_each(|part| bytes.extend_from_slice(part));
        let transit = Transit { bytes, offload: packet.offload, ingress: packet.ingress, peer: packet.peer, id: packet.id };
        self.held += transit.cost();
        transit
    }

    /// Takes note that a packet goes on, and gives it back.
    pub(crate) fn let_out(&mut self, transit: Transit) -> Transit {
        self.held = self.held.saturating_sub(transit.cost());
        transit
    }

    /// Takes note that a packet is lost.
    pub(crate) fn lose(&mut self, reason: DropReason, transit: Transit) {
        self.lost.push_back((reason, transit));
    }

    /// Whether packets were lost that are not yet told of.
    pub(crate) fn has_lost(&self) -> bool {
        !self.lost.is_empty()
    }

    /// A packet that was lost and not yet told of.
    pub(crate) fn next_lost(&mut self) -> Option<(DropReason, Transit)> {
        let (reason, transit) = self.lost.pop_front()?;
        Some((reason, self.let_out(transit)))
    }

    /// Takes back the buffer of a packet that has gone on, or was told of.
    pub(crate) fn reuse(&mut self, transit: Transit) {
        let most = if transit.bytes.capacity() > SMALL { SPARE / 4 } else { SPARE };
        if self.spare.len() < most {
            self.spare.push(transit.bytes);
        }
    }
}
