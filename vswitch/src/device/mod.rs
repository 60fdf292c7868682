//! Where frames come from and go to.
//!
//! A [`Device`] is one queue of one port, owned by one worker. It is given open descriptors: opening and configuring devices
//! is the control side's work ([`attach`](crate::attach)). It never blocks.

mod memory;
mod packet_socket;
mod tap;

use std::io::IoSlice;
use std::os::fd::RawFd;

use arrayvec::ArrayVec;
use packet::{Batch, Capabilities, Offload, VNET_HEADER};

pub use memory::{FarEnd, Memory};
pub use packet_socket::PacketSocket;
pub use tap::Tap;

/// One queue of one port.
pub trait Device: Send {
    /// The descriptor that becomes readable when frames wait; `None` for a device that is asked every turn.
    fn descriptor(&self) -> Option<RawFd>;

    /// What the far side does itself.
    fn capabilities(&self) -> Capabilities;

    /// Reads frames into `batch` until it is full or none waits.
    fn receive(&mut self, batch: &mut Batch) -> Received;

    /// Sends one frame, gathered from `parts`, which together start with the destination address. `headers` is the length of
    /// its headers up to the transport payload where `offload` has a GSO part, else 0.
    fn send(&mut self, parts: &[IoSlice<'_>], offload: Offload, headers: u16) -> Sent;
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
fn with_header<R>(header: &[u8; VNET_HEADER], parts: &[IoSlice<'_>], write: impl FnOnce(&[IoSlice<'_>]) -> R) -> R {
    let mut few = ArrayVec::<IoSlice<'_>, 8>::new();
    few.push(IoSlice::new(header));
    if few.try_extend_from_slice(parts).is_ok() {
        return write(&few);
    }
    let many: Vec<_> = few.iter().chain(parts).copied().collect();
    write(&many)
}
