//! What captures see of a worker's frames: each as it was received, with the reason if it was dropped; each as it left, or was lost in the
//! queue of a port; and each that was dropped after it had waited.
//!
//! A frame that is handed over to the worker that routes is shown there, since only there it is known what becomes of it.

use std::time::{SystemTime, UNIX_EPOCH};

use arrayvec::ArrayVec;
use packet::{MAX_PARTS, Packet, Queued};

use super::{CaptureId, Worker};
use crate::capture::{CaptureTap, Direction};
use crate::datapath::{DropReason, Fate, PortId};

/// A capture, as one worker knows it.
pub(super) struct Capture {
    pub(super) id: CaptureId,
    /// `None`: all.
    pub(super) ports: Option<Vec<PortId>>,
    pub(super) tap: CaptureTap,
}

impl Worker {
    /// Shows the frames that the batch was received with, as they were received.
    pub(super) fn capture_received(&mut self) {
        for (frame, fate) in self.batch.frames().iter().zip(self.outputs.fates()) {
            let Some(fate) = fate.filter(|fate| *fate != Fate::HandedOver) else { continue };
            let (id, verdict) = (PortId(frame.ingress), fate.drop_reason().map(DropReason::name));
            for capture in self.captures.iter_mut().filter(|capture| capture.wants(id)) {
                capture.tap.offer(frame.at, id.0, Direction::In, verdict, &[frame.bytes()], frame.offload);
            }
        }
    }

    /// Shows frames that were dropped after they had waited.
    pub(super) fn capture_late(&mut self) {
        for late in self.datapath.take_late_drops() {
            let Some(frame) = &late.frame else { continue };
            for capture in self.captures.iter_mut().filter(|capture| capture.wants(late.port)) {
                let verdict = Some(late.reason.name());
                capture.tap.offer(nanoseconds(), late.port.0, Direction::In, verdict, &[&frame.bytes], frame.offload);
            }
        }
    }
}

impl Capture {
    pub(super) fn wants(&self, port: PortId) -> bool {
        self.ports.as_ref().is_none_or(|ports| ports.contains(&port))
    }

    fn offer_sent(&mut self, id: PortId, packet: &Packet<'_>, verdict: Option<DropReason>) {
        let parts: ArrayVec<&[u8], MAX_PARTS> = packet.parts.iter().map(|part| &**part).take(MAX_PARTS).collect();
        self.tap.offer(nanoseconds(), id.0, Direction::Out, verdict.map(DropReason::name), &parts, packet.offload);
    }
}

/// Shows a packet that left by a port, or why it did not.
pub(super) fn show_sent(captures: &mut [Capture], id: PortId, packet: &Packet<'_>, verdict: Option<DropReason>) {
    captures.iter_mut().filter(|capture| capture.wants(id)).for_each(|capture| capture.offer_sent(id, packet, verdict));
}

/// Shows frames that did not get to the device of a port, whole.
pub(super) fn show_lost<'a>(
    captures: &mut [Capture],
    id: PortId,
    lost: impl Iterator<Item = &'a Queued<'a>>,
    reason: DropReason,
) {
    if !captures.is_empty() {
        lost.for_each(|queued| queued.show(&mut |packet| show_sent(captures, id, packet, Some(reason))));
    }
}

/// Now, since the epoch.
pub(super) fn nanoseconds() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
