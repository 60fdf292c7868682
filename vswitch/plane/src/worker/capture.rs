//! What captures see of a worker's frames: each as it was received, with what became of it; each as it left, or was lost in the queue of a port; each
//! that was dropped after it had waited; and what NAT makes of it in between.
//!
//! A frame gets its number when it is received, or when the switch makes it, and keeps it while it waits and when it is handed over. A frame that
//! is handed over to the worker that routes is shown there, since only there it is known what becomes of it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use api::CapturePoint;
use arrayvec::ArrayVec;
use packet::{Batch, Frame, MAX_PARTS, Offload, Packet, Queued};

use super::{CaptureId, Worker};
use crate::capture::{CaptureTap, Direction, Incident, Recorder, Seen, Snapshot, Ways};
use crate::datapath::{Datapath, DropReason, Fate, LateDrop, Outputs, PortId};
use crate::transit::Transit;

/// The last number that a frame got, in any worker.
static NUMBERS: AtomicU64 = AtomicU64::new(0);
/// The bit of a frame's number that says that the switch made it.
const OWN: u64 = 1 << 63;

/// What watches the frames of a worker.
#[derive(Default)]
pub(super) struct Watch {
    captures: Vec<Capture>,
    recorder: Option<Recorder>,
    /// What is known of each frame of the batch.
    notes: Vec<Note>,
}

/// A capture, as one worker knows it.
struct Capture {
    id: CaptureId,
    /// `None`: all.
    ports: Option<Vec<PortId>>,
    tap: CaptureTap,
    /// Frames that it took as they left, each at one port, while the batch is sent.
    taken: Vec<(u64, PortId)>,
}

/// What is known of a frame of the batch once all of it is decided.
#[derive(Clone, Default)]
struct Note {
    ways: Ways,
    vlan: Option<u16>,
    nat: Option<Box<[Option<nat::EndChange>; 2]>>,
}

impl Worker {
    /// Shows frames that were dropped after they had waited.
    pub(super) fn capture_late(&mut self) {
        for late in self.datapath.take_late_drops() {
            self.watch.late(&late);
        }
    }
}

impl Watch {
    pub(super) fn start(&mut self, id: CaptureId, ports: Option<Vec<PortId>>, tap: CaptureTap) {
        self.captures.push(Capture { id, ports, tap, taken: Vec::new() });
    }

    pub(super) fn stop(&mut self, id: CaptureId) {
        self.captures.retain(|capture| capture.id != id);
    }

    /// Takes a port out of all captures: a later one may get its number.
    pub(super) fn forget(&mut self, id: PortId) {
        for capture in &mut self.captures {
            if let Some(ports) = &mut capture.ports {
                ports.retain(|port| *port != id);
            }
        }
    }

    /// Keeps the last frames in so many bytes of memory, from now on, or no more.
    pub(super) fn set_recorder(&mut self, bytes: Option<usize>) {
        self.recorder = bytes.map(Recorder::new);
    }

    /// What the recorder holds.
    pub(super) fn snapshot(&self) -> Snapshot {
        self.recorder.as_ref().map(Recorder::snapshot).unwrap_or_default()
    }

    /// What the recorder found worth writing down.
    pub(super) fn take_incident(&mut self) -> Option<Incident> {
        self.recorder.as_mut()?.take_incident()
    }

    /// Whether any capture or the recorder runs.
    pub(super) fn is_on(&self) -> bool {
        self.recorder.is_some() || self.is_capturing()
    }

    /// Whether any capture runs.
    pub(super) fn is_capturing(&self) -> bool {
        !self.captures.is_empty()
    }

    /// Whether any capture wants the frames of a port, or the recorder what is lost there.
    pub(super) fn wants(&self, port: PortId) -> bool {
        self.recorder.is_some() || self.captures.iter().any(|capture| capture.wants(port))
    }

    /// Whether any capture wants what is around the frames of tunnels.
    pub(super) fn takes_underlay(&self) -> bool {
        self.captures.iter().any(|capture| capture.tap.selection().takes(CapturePoint::Underlay))
    }

    /// Shows a datagram in which a frame came.
    pub(super) fn arrived(&mut self, frame: &Frame, bytes: &[u8]) {
        self.at_underlay(Note::default().seen(frame, nanoseconds()), bytes);
    }

    /// Shows a datagram in which a packet leaves.
    pub(super) fn departed(&mut self, port: PortId, packet: &Packet<'_>, batch: &Batch, bytes: &[u8]) {
        self.at_underlay(sent(port, packet, batch, &self.notes), bytes);
    }

    fn at_underlay(&mut self, seen: Seen, bytes: &[u8]) {
        let seen = Seen { point: CapturePoint::Underlay, ..seen };
        for capture in self.captures.iter_mut().filter(|capture| capture.wants(PortId(seen.port))) {
            if capture.tap.selection().takes(CapturePoint::Underlay) {
                capture.tap.offer(&seen, &[bytes], Offload::default());
            }
        }
    }

    /// Gives the frames that a batch was received with their numbers.
    pub(super) fn number(&self, batch: &mut Batch) {
        number(batch.frames_mut().iter_mut().filter(|frame| frame.id == 0), 0);
    }

    /// Shows the frames that the batch was received with, as they were received.
    pub(super) fn received(&mut self, batch: &Batch, outputs: &Outputs, datapath: &Datapath) {
        self.take_notes(batch, outputs, datapath);
        let now = nanoseconds();
        for ((frame, note), fate) in batch.frames().iter().zip(&self.notes).zip(outputs.fates()) {
            let Some(fate) = fate.filter(|fate| *fate != Fate::HandedOver) else { continue };
            let seen = Seen { fate: Some(fate), ..note.seen(frame, now) };
            let dropped = fate.drop_reason().is_some();
            if let Some(recorder) = &mut self.recorder {
                recorder.record(&seen, &[frame.bytes()], frame.offload);
            }
            for capture in self.captures.iter_mut().filter(|capture| capture.wants(PortId(frame.ingress))) {
                let selection = capture.tap.selection();
                if selection.takes(CapturePoint::Ingress) {
                    capture.tap.offer(&seen, &[frame.bytes()], frame.offload);
                } else if dropped && selection.takes(CapturePoint::Drop) {
                    let seen = Seen { point: CapturePoint::Drop, ..seen.clone() };
                    capture.tap.offer(&seen, &[frame.bytes()], frame.offload);
                }
            }
        }
    }

    /// Gives the frames that the switch made their numbers.
    pub(super) fn number_own(&self, batch: &mut Batch, outputs: &Outputs) {
        number(batch.frames_mut().iter_mut().skip(outputs.fates().len()).filter(|frame| frame.id == 0), OWN);
    }

    /// Shows what NAT is about to change, and records what the switch itself says.
    pub(super) fn decided(&mut self, batch: &Batch, outputs: &Outputs, datapath: &Datapath) {
        if self.notes.len() < batch.frames().len() {
            self.take_notes(batch, outputs, datapath);
        }
        self.record_own(batch, outputs.fates().len());
        self.translated(batch, CapturePoint::PreNat);
    }

    /// Records what the switch itself says, by the first port that it leaves by.
    fn record_own(&mut self, batch: &Batch, received: usize) {
        let Some(recorder) = &mut self.recorder else { return };
        let now = nanoseconds();
        let own = batch.frames().iter().zip(&self.notes).skip(received).filter(|(frame, _)| frame.id & OWN != 0);
        for (frame, note) in own {
            let Some(port) = note.ways.first() else { continue };
            let seen = Seen { id: frame.id & !OWN, ..Seen::at(now, port, Direction::Out) };
            recorder.record(&seen, &[frame.bytes()], frame.offload);
        }
    }

    /// Shows what NAT changed, before or after it did.
    pub(super) fn translated(&mut self, batch: &Batch, point: CapturePoint) {
        let is_wanted = |capture: &Capture| capture.tap.selection().takes(point);
        if !self.captures.iter().any(is_wanted) {
            return;
        }
        let now = nanoseconds();
        for (frame, note) in batch.frames().iter().zip(&self.notes).filter(|(_, note)| note.nat.is_some()) {
            let mut seen = Seen { point, at: now, ..note.seen(frame, now) };
            if let (CapturePoint::PostNat, Some(port)) = (point, note.ways.first()) {
                (seen.port, seen.direction) = (port, Direction::Out);
            }
            for capture in self.captures.iter_mut().filter(|capture| capture.wants(PortId(seen.port)) && is_wanted(capture)) {
                capture.tap.offer(&seen, &[frame.bytes()], frame.offload);
            }
        }
    }

    /// Shows a packet that left by a port, or why it did not.
    pub(super) fn sent(&mut self, port: PortId, packet: &Packet<'_>, batch: &Batch, lost: Option<DropReason>) {
        let point = if lost.is_some() { CapturePoint::Drop } else { CapturePoint::Egress };
        let mut seen = None;
        if let (Some(recorder), Some(reason)) = (&mut self.recorder, lost) {
            let seen = Seen { point, ..sent(port, packet, batch, &self.notes) }.dropped(reason);
            let parts: ArrayVec<&[u8], MAX_PARTS> = packet.parts.iter().map(|part| &**part).take(MAX_PARTS).collect();
            recorder.record(&seen, &parts, packet.offload);
        }
        for capture in self.captures.iter_mut().filter(|capture| capture.wants(port)) {
            if !capture.tap.selection().takes(point) && !capture.takes_late(point, packet, port) {
                continue;
            }
            let seen = seen.get_or_insert_with(|| sent(port, packet, batch, &self.notes));
            let seen = Seen { point, fate: lost.map(Fate::Dropped), ..seen.clone() };
            let parts: ArrayVec<&[u8], MAX_PARTS> = packet.parts.iter().map(|part| &**part).take(MAX_PARTS).collect();
            capture.tap.offer(&seen, &parts, packet.offload);
        }
    }

    /// Shows frames that did not get to the device of a port, whole.
    pub(super) fn lost<'a>(
        &mut self,
        port: PortId,
        lost: impl Iterator<Item = &'a Queued<'a>>,
        batch: &Batch,
        reason: DropReason,
    ) {
        if self.is_on() {
            lost.for_each(|queued| queued.show(&mut |packet| self.sent(port, packet, batch, Some(reason))));
        }
    }

    /// The batch is sent.
    pub(super) fn end_batch(&mut self) {
        self.notes.clear();
        self.captures.iter_mut().for_each(|capture| capture.taken.clear());
    }

    /// Shows a frame that was dropped after it had waited.
    fn late(&mut self, late: &LateDrop) {
        let frame = &late.frame;
        if !self.is_on() {
            return;
        }
        let seen = Seen::at(nanoseconds(), late.port.0, Direction::In).dropped(late.reason);
        let seen = Seen { id: frame.id & !OWN, point: CapturePoint::Drop, ..seen };
        if let Some(recorder) = &mut self.recorder {
            recorder.record(&seen, &[&frame.bytes], frame.offload);
        }
        for capture in self.captures.iter_mut().filter(|capture| capture.wants(late.port)) {
            if capture.tap.selection().takes(CapturePoint::Drop) {
                capture.tap.offer(&seen, &[&frame.bytes], frame.offload);
            }
        }
    }

    /// Shows a packet that was lost where it had to wait. On its way in, no capture has seen it before.
    pub(super) fn lost_at_stop(&mut self, port: PortId, direction: Direction, transit: &Transit, reason: DropReason) {
        if !self.is_on() {
            return;
        }
        let ingress = Some(transit.ingress).filter(|_| transit.id & OWN == 0);
        let seen = Seen { ingress, id: transit.id & !OWN, ..Seen::at(nanoseconds(), port.0, direction) }.dropped(reason);
        let at_drop = Seen { point: CapturePoint::Drop, ..seen.clone() };
        if let Some(recorder) = &mut self.recorder {
            recorder.record(&at_drop, &[&transit.bytes], transit.offload);
        }
        for capture in self.captures.iter_mut().filter(|capture| capture.wants(port)) {
            let selection = capture.tap.selection();
            let as_it_came = direction == Direction::In && selection.takes(CapturePoint::Ingress);
            if as_it_came || selection.takes(CapturePoint::Drop) {
                capture.tap.offer(if as_it_came { &seen } else { &at_drop }, &[&transit.bytes], transit.offload);
            }
        }
    }

    /// Notes what is known of each frame of the batch.
    fn take_notes(&mut self, batch: &Batch, outputs: &Outputs, datapath: &Datapath) {
        self.notes.clear();
        self.notes.resize(batch.frames().len(), Note::default());
        for (index, note) in self.notes.iter_mut().enumerate().take(outputs.fates().len()) {
            note.vlan = datapath.vlan_of(index).map(Into::into);
        }
        for port in outputs.used() {
            for departure in outputs.queue(*port) {
                if let Some(note) = self.notes.get_mut(departure.frame) {
                    note.ways.add(port.0);
                }
            }
        }
        for (index, ends) in outputs.translations(batch) {
            if let Some(note) = self.notes.get_mut(index) {
                note.nat = Some(Box::new(ends));
            }
        }
    }
}

impl Note {
    /// A frame of the batch, as it came in.
    fn seen(&self, frame: &Frame, now: u64) -> Seen {
        let at = if frame.at > 0 { frame.at } else { now };
        let seen = Seen::at(at, frame.ingress, Direction::In);
        Seen { id: frame.id & !OWN, ways: self.ways.clone(), vlan: self.vlan, nat: self.nat.clone(), ..seen }
    }
}

impl Capture {
    fn wants(&self, port: PortId) -> bool {
        self.ports.as_ref().is_none_or(|ports| ports.contains(&port))
    }

    /// Whether a capture that takes each frame once takes this one only now, as it leaves: the switch made it, or it came in where nothing is captured.
    fn takes_late(&mut self, point: CapturePoint, packet: &Packet<'_>, port: PortId) -> bool {
        let selection = self.tap.selection();
        if !selection.is_once() || point != CapturePoint::Egress {
            return false;
        }
        let was_seen = packet.id & OWN == 0 && selection.goes(Direction::In) && self.wants(PortId(packet.ingress));
        if was_seen {
            return false;
        }
        match self.taken.iter().find(|(id, _)| *id == packet.id) {
            Some((_, first)) => *first == port,
            None => {
                self.taken.push((packet.id, port));
                true
            }
        }
    }
}

/// A packet as it leaves by a port.
fn sent(port: PortId, packet: &Packet<'_>, batch: &Batch, notes: &[Note]) -> Seen {
    let place = batch.frames().iter().position(|frame| frame.id == packet.id);
    let note = place.and_then(|place| notes.get(place)).cloned().unwrap_or_default();
    let ingress = Some(packet.ingress).filter(|_| packet.id & OWN == 0);
    let seen = Seen::at(nanoseconds(), port.0, Direction::Out);
    Seen { id: packet.id & !OWN, ingress, vlan: note.vlan, nat: note.nat, ..seen }
}

/// Gives frames the next numbers, with these bits.
fn number<'a>(frames: impl Iterator<Item = &'a mut Frame>, bits: u64) {
    for frame in frames {
        frame.id = (NUMBERS.fetch_add(1, Ordering::Relaxed) + 1) | bits;
    }
}

/// Now, since the epoch.
pub(super) fn nanoseconds() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
