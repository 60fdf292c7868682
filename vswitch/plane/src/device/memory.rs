//! A device in memory, for tests of workers: frames go in and come out at its far end, without a kernel.

use std::collections::VecDeque;
use std::os::fd::RawFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use packet::{Batch, Capabilities, Offload, Packet};

use super::{Device, ReceiveStatus, Received, Sent};

/// A device without a kernel: tests hold its [`FarEnd`].
#[derive(Debug)]
pub struct Memory {
    wire: Arc<Mutex<Wire>>,
}

/// The far end of a [`Memory`] device. Clones are the same end.
#[derive(Clone, Debug)]
pub struct FarEnd {
    wire: Arc<Mutex<Wire>>,
}

#[derive(Debug)]
struct Wire {
    to_switch: VecDeque<(Vec<u8>, Offload)>,
    from_switch: VecDeque<(Vec<u8>, Offload)>,
    room: usize,
    capabilities: Capabilities,
    up: bool,
    gone: bool,
}

impl Memory {
    /// A device whose queues hold `room` frames in each direction, and its far end.
    pub fn new(capabilities: Capabilities, room: usize) -> (Self, FarEnd) {
        let (to_switch, from_switch) = (VecDeque::new(), VecDeque::new());
        let wire = Arc::new(Mutex::new(Wire { to_switch, from_switch, room, capabilities, up: true, gone: false }));
        (Self { wire: Arc::clone(&wire) }, FarEnd { wire })
    }
}

impl Device for Memory {
    fn descriptors(&self) -> Vec<RawFd> {
        Vec::new()
    }

    fn capabilities(&self) -> Capabilities {
        lock(&self.wire).capabilities
    }

    fn receive(&mut self, batch: &mut Batch) -> Received {
        let mut wire = lock(&self.wire);
        while !batch.is_full() {
            match wire.to_switch.pop_front() {
                Some((frame, offload)) => batch.push(&frame, offload),
                None => {
                    let status = if wire.gone { ReceiveStatus::Gone } else { ReceiveStatus::Drained };
                    return Received { status, malformed: 0, missed: 0 };
                }
            }
        }
        Received { status: ReceiveStatus::More, malformed: 0, missed: 0 }
    }

    fn send(&mut self, packet: &Packet<'_>) -> Sent {
        let mut wire = lock(&self.wire);
        if !wire.up || wire.gone {
            return Sent::Down;
        }
        if !wire.capabilities.accept(packet.offload) {
            return Sent::Refused;
        }
        if wire.from_switch.len() >= wire.room {
            return Sent::QueueFull;
        }
        wire.from_switch.push_back((packet.to_vec(), packet.offload));
        Sent::Done
    }
}

impl FarEnd {
    /// Hands a frame to the switch; returns whether there was room.
    pub fn push(&self, frame: &[u8], offload: Offload) -> bool {
        let mut wire = lock(&self.wire);
        let room = wire.to_switch.len() < wire.room;
        if room {
            wire.to_switch.push_back((frame.to_vec(), offload));
        }
        room
    }

    /// Whether the switch has fetched every frame.
    pub fn is_fetched(&self) -> bool {
        lock(&self.wire).to_switch.is_empty()
    }

    /// Takes the oldest frame that the switch sent.
    pub fn pop(&self) -> Option<(Vec<u8>, Offload)> {
        lock(&self.wire).from_switch.pop_front()
    }

    /// Takes all frames that the switch sent, oldest first.
    pub fn drain(&self) -> Vec<(Vec<u8>, Offload)> {
        lock(&self.wire).from_switch.drain(..).collect()
    }

    /// Changes what the device takes off the switch's hands from now on.
    pub fn set_capabilities(&self, capabilities: Capabilities) {
        lock(&self.wire).capabilities = capabilities;
    }

    /// Takes the link up or down, as seen by frames that the switch sends.
    pub fn set_up(&self, up: bool) {
        lock(&self.wire).up = up;
    }

    /// Removes the device, as it looks once the switch has fetched what still waits.
    pub fn remove(&self) {
        lock(&self.wire).gone = true;
    }
}

/// A test that panicked elsewhere does not make the queues wrong.
fn lock(wire: &Mutex<Wire>) -> MutexGuard<'_, Wire> {
    wire.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;

    use packet::{Checksum, Gso, GsoKind};

    use super::*;

    #[test]
    fn frames_cross_in_order_and_queues_are_bounded() {
        let (mut memory, far) = Memory::new(Capabilities::default(), 2);
        assert!(far.push(b"one", Offload::default()) && far.push(b"two", Offload::default()));
        assert!(!far.push(b"three", Offload::default()));
        let mut batch = Batch::new();
        assert_eq!(memory.receive(&mut batch).status, ReceiveStatus::Drained);
        assert_eq!(batch.frames().iter().map(packet::Frame::bytes).collect::<Vec<_>>(), [b"one", b"two"]);

        let parts = [IoSlice::new(b"head"), IoSlice::new(b"tail")];
        assert_eq!([(); 3].map(|()| memory.send(&Packet::whole(&parts))), [Sent::Done, Sent::Done, Sent::QueueFull]);
        assert_eq!(far.pop(), Some((b"headtail".to_vec(), Offload::default())));
        assert_eq!(far.drain().len(), 1);
    }

    #[test]
    fn what_the_far_side_cannot_do_is_refused() {
        let (mut memory, far) = Memory::new(Capabilities::default(), 2);
        let gso = Some(Gso { kind: GsoKind::Tcp4, size: 1448.try_into().unwrap(), ecn: false });
        let offload = Offload { checksum: Checksum::Partial { start: 34, offset: 16 }, gso };
        let parts = [IoSlice::new(&[0; 100])];
        let packet = Packet { offload, headers: 54, ..Packet::whole(&parts) };
        assert_eq!(memory.send(&packet), Sent::Refused);
        far.set_capabilities(Capabilities::ALL);
        assert_eq!(memory.send(&packet), Sent::Done);
        far.set_up(false);
        assert_eq!(memory.send(&packet), Sent::Down);
        far.remove();
        assert_eq!(memory.receive(&mut Batch::new()).status, ReceiveStatus::Gone);
    }
}
