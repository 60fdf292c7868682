//! Where frames come from and go to.
//!
//! A [`Device`] is one worker's part of one port, which no other worker reads. It is given open descriptors: opening and configuring devices
//! is the control side's work (`attach` in the crate `vswitch`). It never blocks.

mod flows;
mod memory;
mod packet_socket;
mod tap;
mod tunnel;

use std::io::IoSlice;
use std::os::fd::{OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Instant;

use arrayvec::ArrayVec;
use packet::{Batch, Capabilities, OuterOrigin, Packet};

pub use flows::{Steering, SteeringTable};
pub use memory::{FarEnd, Memory};
pub use packet_socket::PacketSocket;
pub use tap::{Tap, header_size};
pub use tunnel::{
    Change, PrivateKey, Receiver, Sender, SourceHeaders, Sources, Tunnel, UnderlayCounters, UnderlayDrop, Wireguard,
    wireguard_overhead,
};

use crate::datapath::{DropReason, PortId};

/// One worker's part of one port.
pub trait Device: Send {
    /// The descriptors of which one becomes readable when frames wait; none for a device that is asked every turn.
    fn descriptors(&self) -> Vec<RawFd>;

    /// Takes note that one of them may be readable.
    fn wake(&mut self, _descriptor: usize) {}

    /// What another process needs to receive here instead; none where it opens something of its own.
    fn duplicate(&self) -> Option<Inheritance> {
        None
    }

    /// What the far side does itself.
    fn capabilities(&self) -> Capabilities;

    /// Reads frames into `batch` until it is full or none waits.
    fn receive(&mut self, batch: &mut Batch) -> Received;

    /// Sends one frame, whose parts together start with the destination address, or takes it to send it with the next ones.
    fn send(&mut self, packet: &Packet<'_>) -> Sent;

    /// Where the device is a tunnel, shows a packet that it was given last as it leaves, with the headers around it, to each of its peers.
    fn show_sent(&self, _packet: &Packet<'_>, _see: &mut dyn FnMut(&[u8])) {}

    /// Where the device is a tunnel, shows a packet that came by it as it came, with the headers around it.
    fn show_received(&self, _packet: &Packet<'_>, _outer: OuterOrigin, _see: &mut dyn FnMut(&[u8])) {}

    /// Sends what it took and did not send yet. The worker calls it after every queue.
    fn flush(&mut self) -> Losses {
        Losses::default()
    }

    /// Whether frames may arrive here at all. If not, the worker does not ask for any.
    fn receives(&self) -> bool {
        true
    }

    /// Says how many frames [`Device::receive`] dropped, of which ports and why, since it was last asked. Only a device that
    /// receives for others has anything to say.
    fn report_drops(&mut self, _count: &mut dyn FnMut(PortId, DropReason, u64)) {}

    /// Forgets what is too old. The worker calls it about once a second.
    fn expire(&mut self, _now: Instant) {}
}

/// What is open for a device, once more. A TAP stays up as long as any process holds one of its queues.
#[derive(Debug)]
pub struct Inheritance {
    /// Its queues, or its sockets: the first is that of what is sparse, the others are those of bulk flows.
    pub queues: Vec<OwnedFd>,
    /// What sends flows to those.
    pub steering: Option<Arc<SteeringTable>>,
}

impl Inheritance {
    /// The queues of one device; `None` without a descriptor for each.
    fn of<'a>(queues: impl Iterator<Item = &'a OwnedFd>, flows: &flows::FlowQueues) -> Option<Self> {
        let queues = queues.map(|queue| queue.try_clone().ok()).collect::<Option<_>>()?;
        Some(Self { queues, steering: flows.steering() })
    }
}

/// Frames that were not sent, by how it ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// The kernel had no room.
    pub full: u64,
    /// The device or the way is down.
    pub down: u64,
    /// The kernel did not take them.
    pub refused: u64,
    /// They were longer than what the way carries.
    pub too_big: u64,
}

impl Losses {
    /// Adds others.
    pub fn add(&mut self, other: Self) {
        self.full += other.full;
        self.down += other.down;
        self.refused += other.refused;
        self.too_big += other.too_big;
    }

    /// Counts `frames` that ended like this.
    pub fn count(&mut self, sent: Sent, frames: u64) {
        match sent {
            Sent::Done => {}
            Sent::QueueFull => self.full += frames,
            Sent::Down => self.down += frames,
            Sent::Refused => self.refused += frames,
            Sent::TooBig => self.too_big += frames,
        }
    }
}

/// How reading ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Whether more may wait.
    pub status: ReceiveStatus,
    /// Frames that were read and thrown away because they were cut or their offload metadata made no sense.
    pub malformed: u32,
    /// Frames that the kernel threw away since the last call, because the switch did not fetch them in time.
    pub missed: u32,
}

/// Whether more frames may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReceiveStatus {
    /// The batch is full; ask again.
    More,
    /// Nothing waits until the descriptor is readable again.
    Drained,
    /// The device is gone.
    Gone,
}

/// How sending one frame ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// The kernel has it.
    Done,
    /// The kernel has no room for it now.
    QueueFull,
    /// The device is down.
    Down,
    /// The kernel does not take this frame.
    Refused,
    /// It is longer than what the way carries.
    TooBig,
}

/// Most frames thrown away in one call of [`Device::receive`], so that a flood of bad ones cannot hold a worker.
const PATIENCE: u32 = 64;

/// Why one read gave no frame.
enum Unread {
    /// None waits.
    Drained,
    /// It was malformed.
    Malformed,
    /// It was not meant for the switch.
    Ignored,
    /// The device is gone.
    Gone,
}

/// Reads frames with `read` as [`Device::receive`] promises. `missed` is left to the caller.
fn receive_all(batch: &mut Batch, mut read: impl FnMut(&mut Batch) -> Result<(), Unread>) -> Received {
    let (mut malformed, mut ignored) = (0, 0);
    while !batch.is_full() && malformed + ignored < PATIENCE {
        let status = match read(batch) {
            Ok(()) => continue,
            Err(Unread::Malformed) => {
                malformed += 1;
                continue;
            }
            Err(Unread::Ignored) => {
                ignored += 1;
                continue;
            }
            Err(Unread::Drained) => ReceiveStatus::Drained,
            Err(Unread::Gone) => ReceiveStatus::Gone,
        };
        return Received { status, malformed, missed: 0 };
    }
    Received { status: ReceiveStatus::More, malformed, missed: 0 }
}

/// Calls `write` with `header` and `parts` in a row, without allocating for as many parts as the switch makes.
fn with_header<R>(header: &[u8], parts: &[IoSlice<'_>], write: impl FnOnce(&[IoSlice<'_>]) -> R) -> R {
    let mut few = ArrayVec::<IoSlice<'_>, 8>::new();
    few.push(IoSlice::new(header));
    if few.try_extend_from_slice(parts).is_ok() {
        return write(&few);
    }
    let many: Vec<_> = few.iter().chain(parts).copied().collect();
    write(&many)
}
