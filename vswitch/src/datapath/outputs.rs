use packet::TagEdit;

use super::{DropReason, PortId};

/// What a batch turned into: for each port, which of the batch's frames leave there, in order, and with which tag.
///
/// A flooded frame is an entry in many queues and a copy in none. A queue holds each frame of the batch at most once, so the
/// batch bounds it.
#[derive(Debug, Default)]
pub struct Outputs {
    queues: Vec<Vec<Departure>>,
    used: Vec<PortId>,
    dropped: Vec<(usize, DropReason)>,
}

/// A frame on its way out of one port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Departure {
    /// Its place in the batch.
    pub frame: usize,
    /// What happens to its tag.
    pub edit: TagEdit,
    /// Which of the peers behind a tunnel gets it; 0: all of them, or whoever is behind another port.
    pub peer: u16,
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

    pub(super) fn drop(&mut self, frame: usize, reason: DropReason) {
        self.dropped.push((frame, reason));
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
    pub fn dropped(&self) -> &[(usize, DropReason)] {
        &self.dropped
    }

    /// Empties the queues and keeps their memory.
    pub fn clear(&mut self) {
        for port in self.used.drain(..) {
            if let Some(queue) = self.queues.get_mut(port.index()) {
                queue.clear();
            }
        }
        self.dropped.clear();
    }
}
