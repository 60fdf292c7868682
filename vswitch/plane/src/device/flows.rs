//! The queues by which frames come to a worker's part of a device: one, or several, among which the kernel shares out the station's flows as the
//! switch says ([`steering`]), so that nothing waits behind a bulk flow. They are read in [`turns`].

mod steering;
mod turns;

use std::sync::Arc;

use packet::Batch;

use super::{ReceiveStatus, Received, Unread, receive_all};
pub use steering::{Steering, SteeringTable};
use turns::{Read, Turns};

/// The queues, by their numbers: 0 is the first.
#[derive(Debug)]
pub(super) struct FlowQueues {
    turns: Turns,
    steering: Option<Steering>,
    /// Frames for which the first has room.
    room: usize,
}

impl FlowQueues {
    /// One queue.
    pub(super) fn one() -> Self {
        Self { turns: Turns::of(1), steering: None, room: 0 }
    }

    /// So many more than one, to which `steering` sends bulk flows.
    pub(super) fn and(others: usize, room: usize, steering: Steering) -> Self {
        Self { turns: Turns::of(1 + others), steering: Some(steering), room }
    }

    /// Takes note that a queue may have something.
    pub(super) fn wake(&mut self, queue: usize) {
        self.turns.wake(queue);
    }

    /// Reads in one queue's turn, unless that brings nothing. `read` reads one frame of a queue.
    pub(super) fn receive(
        &mut self,
        batch: &mut Batch,
        mut read: impl FnMut(usize, &mut Batch) -> Result<(), Unread>,
    ) -> Received {
        let mut malformed = 0;
        if !self.turns.are_due() {
            // The caller wants to know whether the device is still there, which reading any of them tells.
            self.turns.wake(0);
        }
        while let Some(turn) = self.turns.next() {
            let received = self.take_turn(turn, batch, &mut read);
            malformed += received.malformed;
            let status = if self.turns.are_due() { ReceiveStatus::More } else { ReceiveStatus::Drained };
            match received.status {
                ReceiveStatus::Gone => return Received { malformed, ..received },
                ReceiveStatus::Drained if batch.frames().is_empty() => {}
                _ => return Received { status, malformed, missed: 0 },
            }
        }
        Received { status: ReceiveStatus::Drained, malformed, missed: 0 }
    }

    /// Reads one queue, as much as its turn allows.
    fn take_turn(
        &mut self,
        (queue, bytes): (usize, usize),
        batch: &mut Batch,
        read: &mut impl FnMut(usize, &mut Batch) -> Result<(), Unread>,
    ) -> Received {
        let (frames, before) = (batch.frames().len(), batch.bytes());
        batch.limit(before + bytes);
        let received = receive_all(batch, |batch| read(queue, batch));
        let drained = received.status != ReceiveStatus::More;
        self.turns.end(queue, Read { frames: batch.frames().len() - frames, bytes: batch.bytes() - before, drained });
        if !drained && let Some(other) = self.steering.as_mut().and_then(|steering| steering.filled(queue, batch)) {
            self.turns.hold(other, self.room);
        }
        received
    }

    /// What sends flows to them, where they are several.
    pub(super) fn steering(&self) -> Option<Arc<SteeringTable>> {
        self.steering.as_ref().map(|steering| Arc::clone(steering.table()))
    }

    /// Lets about a second pass.
    pub(super) fn expire(&mut self) {
        let turns = &self.turns;
        self.steering.iter_mut().for_each(|steering| steering.expire(|queue| !turns.is_due(queue)));
    }
}
