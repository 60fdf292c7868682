//! Packet captures: where workers and the reader of a capture meet.
//!
//! # Theory of operation
//! [`open`] makes three ends. Each worker gets a clone of the [`CaptureTap`] and offers it the frames of captured ports, coming in
//! and going out; a port that is not captured costs one branch. The tap runs the filter, copies the frame and puts the copy
//! into a bounded channel. The control side reads the [`Stream`], which turns frames into pcapng chunk by chunk, and sends it to the
//! user. The [`Control`] stays with the control side, which announces ports that are added while the capture runs
//! and stops it.
//!
//! A worker never waits for a reader. The channel is bounded twice, by frames and by bytes (small frames would otherwise be
//! few, super-frames of 64 KiB too many), and a frame that finds no room is *missed*: it is counted for its port, the next
//! frame of that port says how many were lost before it (`epb_dropcount`), and the statistics at the end of the file have the
//! sum. So for every interface: frames that the filter took = frames in the file + frames missed. The newest frames are the
//! ones that are missed: to make room by throwing out older ones would have two sides take from the channel.
//!
//! A capture ends after its count (exactly: never a packet more), after its seconds, when it is stopped, or when every tap is
//! gone. Frames that wait in the channel are still written, except behind the last of a count. When the stream is dropped the
//! taps notice and take nothing more; [`CaptureTap::is_over`] lets a worker put its tap away.
//!
//! A frame has a number, which it keeps on its whole way: the packets of a file that are one frame have one packet id (`epb_packetid`), and a comment
//! ([`api::FrameNote`]) that says what became of it. Where a capture takes a frame is its [`Selection`].
//!
//! Ports are named by the slot that the datapath knows them by. A slot that is given to another port is announced again and
//! becomes another interface of the file; frames that still wait in the channel at that moment are shown under the new name.
//!
//! Memory: at most [`MOST_FRAMES`] frames and [`MOST_BYTES`] bytes of them, and a chunk, per capture.

mod filter;
mod operation;
mod pcapng;
mod recorder;
mod seen;
mod stream;
mod tap;
mod tunnels;

use std::sync::Arc;

use packet::Offload;

pub use api::CaptureDirection as Direction;
pub use filter::{BadProgram, Program};
pub use recorder::{Incident, Recorded, Recorder, Replay, SlotHolder, Snapshot};
pub use seen::{Seen, Selection, Ways};
pub use stream::{Control, Stream};
pub use tap::CaptureTap;
pub use tunnels::Surroundings;

/// Most frames between workers and the reader.
pub const MOST_FRAMES: usize = 4096;
/// Most bytes of frames between workers and the reader.
pub const MOST_BYTES: usize = 32 * 1024 * 1024;

/// Begins a capture of `interfaces`, whose first bytes can be read at once.
pub fn open(selection: impl Into<Selection>, interfaces: Vec<CapturedPort>, limits: Limits) -> (CaptureTap, Control, Stream) {
    open_bounded(selection.into(), interfaces, limits, MOST_FRAMES, MOST_BYTES)
}

fn open_bounded(
    selection: impl Into<Selection>,
    interfaces: Vec<CapturedPort>,
    limits: Limits,
    most_frames: usize,
    most_bytes: usize,
) -> (CaptureTap, Control, Stream) {
    let (sender, frames) = crossbeam_channel::bounded(most_frames);
    let (commander, commands) = crossbeam_channel::unbounded();
    let shared = Arc::new(tap::Shared::new(most_bytes));
    let selection = Arc::new(selection.into());
    let tap = CaptureTap { selection, frames: sender, shared: Arc::clone(&shared), whole: Vec::new() };
    let control = Control { commands: commander, shared: Arc::clone(&shared) };
    (tap, control, Stream::new(frames, commands, shared, interfaces, limits))
}

/// A port as the file shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CapturedPort {
    /// The port's slot in the datapath.
    pub port: u32,
    /// The port's name.
    pub name: String,
    /// What the port is, for example "tap eth0 in netns a".
    pub description: String,
    /// The network of a port that is a tunnel.
    pub vni: Option<u32>,
    /// Its UDP port.
    pub vxlan_port: Option<u16>,
}

/// When a capture ends by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// After so many packets.
    pub count: Option<u64>,
    /// After so many seconds.
    pub seconds: Option<u64>,
}

/// One frame as a worker saw it.
#[derive(Debug)]
struct Captured {
    seen: Seen,
    offload: Offload,
    /// Bytes of the whole frame.
    length: u32,
    /// Frames of this port that were missed so far.
    missed: u64,
    /// The frame, cut where the filter or the capture says.
    bytes: Box<[u8]>,
}

#[cfg(test)]
mod tests;
