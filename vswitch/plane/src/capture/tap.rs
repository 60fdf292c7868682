//! The worker's end of a capture: filters a frame and puts a copy into the channel, or counts it as missed. It never waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use crossbeam_channel::{Sender, TrySendError};
use packet::Offload;

use super::tunnels::{Surroundings, Tunnels};
use super::{Captured, CapturedPort, Program, Seen, Selection};

/// The worker's end of a capture. Each worker has a clone and consults it only for ports that are captured.
#[derive(Clone, Debug)]
pub struct CaptureTap {
    pub(super) selection: Arc<Selection>,
    pub(super) frames: Sender<Captured>,
    pub(super) shared: Arc<Shared>,
    /// Where a frame in parts is put together for the filter.
    pub(super) whole: Vec<u8>,
}

/// What both ends of a capture look at. All of it is counted without order: the channel orders the frames.
#[derive(Debug)]
pub(super) struct Shared {
    /// Bytes of frames in the channel.
    in_flight: AtomicUsize,
    /// Most bytes in the channel.
    most_in_flight: usize,
    /// Frames that found no room, by port slot.
    missed: Box<[AtomicU64]>,
    /// The switch's tunnels.
    tunnels: Tunnels,
    /// The reader wants no more.
    over: AtomicBool,
}

impl CaptureTap {
    /// Takes a copy of a frame that the capture wants, without ever waiting for the reader: if the reader is behind, the frame
    /// is counted as missed and forgotten. `parts` are the frame, one after the other, as it is at that point; `offload` speaks
    /// of these bytes.
    pub fn offer(&mut self, seen: &Seen, parts: &[&[u8]], offload: Offload) {
        if self.is_over() || !self.selection.goes(seen.direction) {
            return;
        }
        let bytes = if let [bytes] = parts { bytes } else { gather(&mut self.whole, parts) };
        let kept = self.shared.run(&self.selection.program, seen, bytes).min(self.selection.snaplen);
        let kept = bytes.len().min(usize::try_from(kept).unwrap_or(usize::MAX));
        if kept == 0 {
            return;
        }
        if !self.shared.reserve(kept) {
            return self.shared.miss(seen.port);
        }
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let missed = self.shared.missed(seen.port);
        let captured = Captured { seen: seen.clone(), offload, length, missed, bytes: bytes[..kept].into() };
        if let Err(error) = self.frames.try_send(captured) {
            self.shared.release(kept);
            match error {
                TrySendError::Full(_) => self.shared.miss(seen.port),
                TrySendError::Disconnected(_) => self.shared.end(),
            }
        }
    }

    /// Which frames it takes.
    pub fn selection(&self) -> &Selection {
        &self.selection
    }

    /// Whether the capture has ended, so that the worker can let go of this end.
    pub fn is_over(&self) -> bool {
        self.shared.is_over()
    }
}

/// Puts the parts of a frame together.
fn gather<'a>(whole: &'a mut Vec<u8>, parts: &[&[u8]]) -> &'a [u8] {
    whole.clear();
    parts.iter().for_each(|part| whole.extend_from_slice(part));
    whole
}

impl Shared {
    /// Port slots with a counter of their own; higher ones share the last.
    const SLOTS: usize = 4096;

    pub(super) fn new(most_in_flight: usize) -> Self {
        Self {
            in_flight: AtomicUsize::new(0),
            most_in_flight,
            missed: (0..Self::SLOTS).map(|_| AtomicU64::new(0)).collect(),
            tunnels: Tunnels::new(),
            over: AtomicBool::new(false),
        }
    }

    /// Learns whether a port is a tunnel.
    pub(super) fn meet(&self, port: &CapturedPort) {
        self.tunnels.set(port.port, port.vni, port.vxlan_port);
    }

    /// The network of a port that is a tunnel.
    pub(super) fn network(&self, port: u32) -> Option<u32> {
        self.tunnels.network(port)
    }

    /// How many bytes of a frame to keep; 0 if the filter does not want it.
    pub(super) fn run(&self, program: &Program, seen: &Seen, bytes: &[u8]) -> u32 {
        let vni = if program.asks_about_tunnels() { seen.network(|port| self.network(port)) } else { None };
        program.run(bytes, &Surroundings { vni, tunnels: Some(&self.tunnels) })
    }

    /// Frames of a port that were missed so far.
    pub(super) fn missed(&self, port: u32) -> u64 {
        self.slot(port).load(Ordering::Relaxed)
    }

    /// Gives back the room of a frame that left the channel.
    pub(super) fn release(&self, bytes: usize) {
        self.in_flight.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub(super) fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    fn reserve(&self, bytes: usize) -> bool {
        let before = self.in_flight.fetch_add(bytes, Ordering::Relaxed);
        let fits = before.saturating_add(bytes) <= self.most_in_flight;
        if !fits {
            self.release(bytes);
        }
        fits
    }

    fn miss(&self, port: u32) {
        self.slot(port).fetch_add(1, Ordering::Relaxed);
    }

    fn slot(&self, port: u32) -> &AtomicU64 {
        let slot = usize::try_from(port).unwrap_or(usize::MAX).min(Self::SLOTS - 1);
        &self.missed[slot]
    }
}
