//! Where frames come from and go to.
//!
//! A [`Device`] is one queue of one port, owned by one worker. It is given open descriptors: opening and configuring devices
//! is the control side's work ([`attach`](crate::attach)). It never blocks.

use std::os::fd::RawFd;

use packet::{Batch, Capabilities, Offload};
use std::io::IoSlice;

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
