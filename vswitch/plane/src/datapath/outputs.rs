//! What is decided about a batch, beside the frames themselves: which port sends which, what happens to them on the way, and each one's fate.

use packet::{Batch, TagEdit};

use super::router::Hop;
use super::{DropReason, Fate, PortId};

/// For each port, which of the batch's frames leave there, in order, and with which tag; and the fate of each frame that came in.
///
/// A flooded frame is an entry in many queues and a copy in none. A queue holds each frame of the batch at most once, so the
/// batch bounds it.
#[derive(Debug, Default)]
pub struct Outputs {
    queues: Vec<Vec<Departure>>,
    used: Vec<PortId>,
    fates: Vec<Option<Fate>>,
    hops: Vec<(usize, Hop)>,
    handed_over: Vec<(usize, Errand)>,
}

/// A frame on its way out of one port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Departure {
    /// Its place in the batch.
    pub frame: usize,
    /// What happens to its tag.
    pub edit: TagEdit,
    /// Which of the peers behind a tunnel gets it; 0: all of them, or, for another port, the stations behind it.
    pub peer: u16,
}

/// What the worker that routes is to do with a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Errand {
    /// Decide what becomes of it.
    Decide,
    /// The frame has left by other ports. The gateway hears it too, or tells its sender that it is too long for the tunnel that it went into.
    Tell,
}

impl Outputs {
    /// Empty queues.
    pub fn new() -> Self {
        Self::default()
    }

    pub(super) fn push(&mut self, port: PortId, departure: Departure) {
        if port.index() >= self.queues.len() {
            self.queues.resize_with(port.index() + 1, Vec::new);
        }
        let Some(queue) = self.queues.get_mut(port.index()) else { return };
        if queue.is_empty() {
            self.used.push(port);
        }
        queue.push(departure);
    }

    /// Notes what happens to a routed frame.
    pub(super) fn rewrite(&mut self, frame: usize, hop: Hop) {
        self.hops.push((frame, hop));
    }

    /// Notes that a frame is for the worker that routes.
    pub(super) fn hand_over(&mut self, frame: usize, errand: Errand) {
        self.handed_over.push((frame, errand));
    }

    /// Changes the frames that were routed. To be called once, after captures have seen what came in and before anything is sent.
    pub fn act(&mut self, batch: &mut Batch) {
        for (index, hop) in self.hops.drain(..) {
            if let Some(frame) = batch.frames_mut().get_mut(index) {
                hop.apply(frame);
            }
        }
    }

    /// What NAT changes in frames of the batch, by their places, until [`Outputs::act`] has done it.
    pub(crate) fn translations(&self, batch: &Batch) -> impl Iterator<Item = (usize, [Option<nat::EndChange>; 2])> {
        self.hops.iter().filter_map(|(index, hop)| Some((*index, hop.changes(batch.frames().get(*index)?.bytes())?)))
    }

    /// Frames of the batch that the worker which routes should see, in order.
    pub fn handed_over(&self) -> &[(usize, Errand)] {
        &self.handed_over
    }

    /// Notes what became of the next frame of the batch; `None`: that is known from before, or there is nothing to say of it.
    pub(super) fn settle(&mut self, fate: Option<Fate>) {
        self.fates.push(fate);
    }

    /// Notes that a frame found no room on its way to the worker that routes.
    pub(crate) fn lose(&mut self, frame: usize, reason: DropReason) {
        if let Some(fate) = self.fates.get_mut(frame).filter(|fate| **fate == Some(Fate::HandedOver)) {
            *fate = Some(Fate::Dropped(reason));
        }
    }

    /// What became of each frame that the batch had before the switch put its own behind them.
    pub fn fates(&self) -> &[Option<Fate>] {
        &self.fates
    }

    /// The ports that have something to send, in the order in which they got it.
    pub fn used(&self) -> &[PortId] {
        &self.used
    }

    /// What leaves at `port`.
    pub fn queue(&self, port: PortId) -> &[Departure] {
        self.queues.get(port.index()).map_or(&[], Vec::as_slice)
    }

    /// Frames of the batch that go nowhere, and why.
    pub fn dropped(&self) -> impl Iterator<Item = (usize, DropReason)> {
        let reason = |fate: &Option<Fate>| fate.and_then(Fate::drop_reason);
        self.fates.iter().enumerate().filter_map(move |(frame, fate)| Some((frame, reason(fate)?)))
    }

    /// Empties the queues and keeps their memory.
    pub fn clear(&mut self) {
        for port in self.used.drain(..) {
            if let Some(queue) = self.queues.get_mut(port.index()) {
                queue.clear();
            }
        }
        self.fates.clear();
        self.hops.clear();
        self.handed_over.clear();
    }
}
