//! The flight recorder: the last frames of every port of a worker, cut short, each with what became of it.
//!
//! # Theory of operation
//! A worker puts each frame once into a [`Recorder`], as a capture that takes every frame once does. Frames lie in chunks of 64, each of one port. When
//! the chunks are as many as the memory allows, the oldest chunk of the port that has most of them goes, so a busy port does not push out what a
//! quiet one did. A full chunk never changes again, so the control side gets the chunks as they are ([`Recorder::snapshot`]), not copies of them, and the
//! worker goes on; only the chunks that are being filled are copied. [`Replay`] makes a pcapng file of what all workers had.
//!
//! Memory: as much as the recorder is given, and as long as a replay runs once more what has been replaced since it began.

use std::collections::VecDeque;
use std::iter::Peekable;
use std::sync::Arc;
use std::vec::IntoIter;

use api::CapturePoint;
use packet::Offload;

use super::stream::Stream;
use super::{Captured, CapturedPort, Seen, Selection};
use crate::datapath::DropReason;

/// Bytes that are kept of a frame.
const KEPT: usize = 128;
/// Frames in a chunk.
const CHUNK: usize = 64;
/// Drops in one second that are a burst.
const BURST: u32 = 100;
/// Longest frame: a super-frame with its headers.
const LONGEST: usize = 1 << 17;
/// One second, in nanoseconds.
const SECOND: u64 = 1_000_000_000;

/// The last frames of a worker.
#[derive(Debug)]
pub struct Recorder {
    /// By port.
    rings: Vec<Ring>,
    chunks: usize,
    most: usize,
    /// The second of the last drop, and the drops in it.
    drops: (u64, u32),
    incident: Option<Incident>,
}

/// What a worker's recorder holds at one moment.
pub type Snapshot = Vec<Arc<Vec<Recorded>>>;

/// What makes the recorder write itself down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Incident {
    /// Many frames were dropped within a second.
    DropBurst,
    /// A NAT session found no room.
    SessionTableFull,
    /// An address moves to and fro, as in a loop.
    Loop,
}

impl Incident {
    /// The name that users see.
    pub const fn name(self) -> &'static str {
        match self {
            Self::DropBurst => "drop-burst",
            Self::SessionTableFull => "session-table-full",
            Self::Loop => "loop",
        }
    }
}

/// A frame that was recorded.
#[derive(Clone, Debug)]
pub struct Recorded {
    seen: Seen,
    offload: Offload,
    length: u32,
    kept: u8,
    bytes: [u8; KEPT],
}

impl Recorded {
    /// What is known of it.
    pub const fn seen(&self) -> &Seen {
        &self.seen
    }

    /// Its beginning, and zeros up to its length, so that its headers can be read.
    pub fn padded(&self) -> Vec<u8> {
        let mut bytes = self.bytes.get(..self.kept.into()).unwrap_or_default().to_vec();
        bytes.resize((self.length as usize).min(LONGEST), 0);
        bytes
    }

    /// The last frames that were dropped, the newest first, and at most so many.
    pub fn last_drops(snapshots: &[Snapshot], most: usize) -> Vec<&Self> {
        let recorded = snapshots.iter().flatten().flat_map(|chunk| chunk.iter());
        let mut drops: Vec<&Self> = recorded.filter(|frame| frame.seen.is_dropped()).collect();
        let newest = |frame: &&Self| std::cmp::Reverse(frame.seen.at);
        if drops.len() > most {
            drops.select_nth_unstable_by_key(most, newest);
            drops.truncate(most);
        }
        drops.sort_by_key(newest);
        drops
    }
}

/// The frames of one port, oldest first.
#[derive(Debug, Default)]
struct Ring {
    full: VecDeque<Arc<Vec<Recorded>>>,
    filling: Vec<Recorded>,
}

impl Recorder {
    /// A recorder of about so many bytes.
    pub fn new(bytes: usize) -> Self {
        let most = (bytes / (CHUNK * size_of::<Recorded>())).max(2);
        Self { rings: Vec::new(), chunks: 0, most, drops: (0, 0), incident: None }
    }

    /// Takes a frame.
    pub fn record(&mut self, seen: &Seen, parts: &[&[u8]], offload: Offload) {
        self.note_drop(seen);
        let (mut bytes, mut kept) = ([0; KEPT], 0);
        for part in parts {
            let taken = part.len().min(KEPT - kept);
            bytes[kept..kept + taken].copy_from_slice(&part[..taken]);
            kept += taken;
        }
        let length = parts.iter().map(|part| part.len()).sum::<usize>();
        let (length, kept) = (u32::try_from(length).unwrap_or(u32::MAX), u8::try_from(kept).unwrap_or(u8::MAX));
        self.push(Recorded { seen: seen.clone(), offload, length, kept, bytes });
    }

    /// What happened since it was last asked that is worth writing down.
    pub fn take_incident(&mut self) -> Option<Incident> {
        self.incident.take()
    }

    /// All that it holds.
    pub fn snapshot(&self) -> Snapshot {
        let chunks = |ring: &Ring| {
            let filling = Some(&ring.filling).filter(|filling| !filling.is_empty()).map(|filling| Arc::new(filling.clone()));
            ring.full.iter().cloned().chain(filling).collect::<Vec<_>>()
        };
        self.rings.iter().flat_map(chunks).collect()
    }

    fn push(&mut self, recorded: Recorded) {
        let port = usize::try_from(recorded.seen.port).unwrap_or_default().min(usize::from(u16::MAX));
        if self.rings.len() <= port {
            self.rings.resize_with(port + 1, Ring::default);
        }
        let Some(ring) = self.rings.get_mut(port) else { return };
        let is_new = ring.filling.is_empty();
        if is_new {
            ring.filling.reserve_exact(CHUNK);
        }
        ring.filling.push(recorded);
        if ring.filling.len() >= CHUNK {
            ring.full.push_back(Arc::new(std::mem::take(&mut ring.filling)));
        }
        if is_new {
            self.chunks += 1;
            while self.chunks > self.most && self.forget(port) {}
        }
    }

    /// Forgets the oldest chunk of the port that has most; of one that fills its first, that one, unless it is this port.
    fn forget(&mut self, current: usize) -> bool {
        let fullest = self.rings.iter_mut().max_by_key(|ring| ring.full.len()).filter(|ring| !ring.full.is_empty());
        let gone = match fullest {
            Some(ring) => ring.full.pop_front().is_some(),
            None => {
                let others = self.rings.iter_mut().enumerate().filter(|(port, _)| *port != current);
                let oldest =
                    others.filter_map(|(_, ring)| Some((ring.filling.first()?.seen.at, ring))).min_by_key(|(at, _)| *at);
                oldest.map(|(_, ring)| ring.filling = Vec::new()).is_some()
            }
        };
        self.chunks -= usize::from(gone);
        gone
    }

    fn note_drop(&mut self, seen: &Seen) {
        let Some(reason) = seen.fate.and_then(crate::datapath::Fate::drop_reason) else { return };
        let second = seen.at / SECOND;
        let (last, drops) = self.drops;
        self.drops = (second, if last == second { drops.saturating_add(1) } else { 1 });
        if matches!(reason, DropReason::NatSessionCap | DropReason::NatNoPort) {
            self.incident = Some(Incident::SessionTableFull);
        } else if self.drops.1 == BURST {
            self.incident = Some(Incident::DropBurst);
        }
    }
}

/// A port, and the time in which its slot was its own, in nanoseconds since the epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotHolder {
    /// The port.
    pub port: CapturedPort,
    /// The first moment.
    pub since: u64,
    /// The last one.
    pub until: u64,
}

impl SlotHolder {
    /// Whether it had this slot at this time.
    pub fn has(&self, slot: u32, time: u64) -> bool {
        self.port.port == slot && self.held_at(time)
    }

    fn held_at(&self, time: u64) -> bool {
        (self.since..=self.until).contains(&time)
    }
}

/// A pcapng file of what recorders held.
#[derive(Debug)]
pub struct Replay {
    stream: Stream,
    selection: Selection,
    /// Those that the file does not have yet, by when they began.
    holders: Peekable<IntoIter<SlotHolder>>,
    /// Chunks, and places in them, by time.
    frames: IntoIter<(Arc<Vec<Recorded>>, usize)>,
    is_over: bool,
}

impl Replay {
    /// Of what came since `since` (nanoseconds since the epoch) and passed one of `passed`, or any port. Each frame is of the port among `holders` that
    /// had its slot then; the stream has no interfaces yet.
    pub fn new(
        stream: Stream,
        selection: Selection,
        mut holders: Vec<SlotHolder>,
        passed: Option<&[SlotHolder]>,
        since: u64,
        snapshots: Vec<Snapshot>,
    ) -> Self {
        let is_wanted = |frame: &Recorded| {
            let seen = &frame.seen;
            let has_passed = |holder: &SlotHolder| {
                let port = holder.port.port;
                holder.held_at(seen.at) && (port == seen.port || seen.ways.has(port))
            };
            let is_point =
                selection.is_once() || selection.takes(seen.point) || selection.takes(CapturePoint::Drop) && seen.is_dropped();
            let is_there = seen.at >= since && selection.goes(seen.direction) && is_point;
            is_there && passed.is_none_or(|passed| passed.iter().any(has_passed))
        };
        let chunks = snapshots.into_iter().flatten();
        let places = chunks.flat_map(|chunk| (0..chunk.len()).map(move |place| (Arc::clone(&chunk), place)));
        let mut frames: Vec<_> = places.filter(|(chunk, place)| chunk.get(*place).is_some_and(is_wanted)).collect();
        frames.sort_by_key(|(chunk, place)| chunk.get(*place).map_or(0, |frame| frame.seen.at));
        holders.retain(|holder| holder.until >= since);
        holders.sort_by_key(|holder| holder.since);
        let (holders, frames) = (holders.into_iter().peekable(), frames.into_iter());
        let mut replay = Self { stream, selection, holders, frames, is_over: false };
        replay.announce(since);
        replay
    }

    /// The next bytes of the file; `None` is its end.
    pub fn next_chunk(&mut self) -> Option<Vec<u8>> {
        if self.is_over {
            return None;
        }
        while !self.stream.is_chunk_full() {
            let Some((chunk, place)) = self.frames.next() else {
                self.announce(u64::MAX);
                self.stream.finish();
                self.is_over = true;
                break;
            };
            let Some(frame) = chunk.get(place) else { continue };
            self.announce(frame.seen.at);
            if let Some(captured) = frame.captured(&self.selection, &self.stream) {
                self.stream.write(captured);
            }
            if self.stream.has_enough() {
                self.is_over = true;
                break;
            }
        }
        Some(self.stream.take())
    }

    /// Adds the interfaces of all that had slots until then.
    fn announce(&mut self, until: u64) {
        while let Some(holder) = self.holders.next_if(|holder| holder.since <= until) {
            self.stream.announce(&holder.port);
        }
    }
}

impl Recorded {
    fn captured(&self, selection: &Selection, stream: &Stream) -> Option<Captured> {
        let bytes = self.bytes.get(..self.kept.into())?;
        let kept =
            usize::try_from(stream.run(&selection.program, &self.seen, bytes).min(selection.snaplen)).ok()?.min(bytes.len());
        let (seen, offload, length) = (self.seen.clone(), self.offload, self.length);
        (kept > 0).then(|| Captured { seen, offload, length, missed: 0, bytes: bytes[..kept].into() })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Direction, Limits, Program, open};
    use super::*;

    fn frame(at: u64, port: u32) -> Seen {
        Seen::at(at, port, Direction::In)
    }

    fn holder(port: u32, name: &str, since: u64, until: u64) -> SlotHolder {
        SlotHolder { port: CapturedPort { port, name: name.to_owned(), ..CapturedPort::default() }, since, until }
    }

    fn replay(recorder: &Recorder, ports: Option<&[u32]>, since: u64) -> Vec<u8> {
        let holders: Vec<_> = (0..3).map(|port| holder(port, &format!("p{port}"), 0, u64::MAX)).collect();
        let wanted = ports.map(|ports| holders.iter().filter(|holder| ports.contains(&holder.port.port)).cloned().collect());
        replay_of(recorder, holders, wanted, since)
    }

    fn replay_of(recorder: &Recorder, holders: Vec<SlotHolder>, passed: Option<Vec<SlotHolder>>, since: u64) -> Vec<u8> {
        let program = || Program::new(&[]).unwrap();
        let (_, _, stream) = open(program(), Vec::new(), Limits::default());
        let snapshots = vec![recorder.snapshot()];
        let mut replay = Replay::new(stream, program().into(), holders, passed.as_deref(), since, snapshots);
        std::iter::from_fn(|| replay.next_chunk()).flatten().collect()
    }

    fn packets(file: &[u8]) -> usize {
        let (mut at, mut packets) = (0, 0);
        while at < file.len() {
            let word = |at: usize| u32::from_ne_bytes(file[at..at + 4].try_into().unwrap());
            packets += usize::from(word(at) == 6);
            at += usize::try_from(word(at + 4)).unwrap();
        }
        packets
    }

    #[test]
    fn a_busy_port_does_not_push_out_a_quiet_one_and_memory_is_bounded() {
        let bytes = 8 * CHUNK * size_of::<Recorded>();
        let mut recorder = Recorder::new(bytes);
        (0..10).for_each(|at| recorder.record(&frame(at, 0), &[&[0; 60]], Offload::default()));
        (10..100_000).for_each(|at| recorder.record(&frame(at, 1), &[&[1; 60]], Offload::default()));
        let held: usize = recorder.snapshot().iter().map(|chunk| chunk.len()).sum();
        assert!(held <= 8 * CHUNK && held > 6 * CHUNK, "{held}");
        assert_eq!(packets(&replay(&recorder, Some(&[0]), 0)), 10, "the quiet port's frames are all there");
        let mut many = Recorder::new(bytes);
        (0..1000).for_each(|port| many.record(&frame(u64::from(port), port), &[&[0; 60]], Offload::default()));
        assert_eq!(many.snapshot().len(), 8, "also where each port has a few");
    }

    #[test]
    fn a_replay_has_the_wanted_frames_in_order_of_time() {
        let mut recorder = Recorder::new(1 << 20);
        for at in 0..100 {
            let mut seen = frame(at, u32::from(at % 2 == 0));
            seen.ways.add(2);
            recorder.record(&seen, &[&[u8::try_from(at).unwrap(); 10], &[0xee; 500]], Offload::default());
        }
        assert_eq!(packets(&replay(&recorder, None, 0)), 100);
        assert_eq!(packets(&replay(&recorder, Some(&[1]), 40)), 30);
        assert_eq!(packets(&replay(&recorder, Some(&[2]), 0)), 100, "by the port that they left by");
        let file = replay(&recorder, None, 0);
        let position = |byte: u8| file.windows(10).position(|window| window == [byte; 10]).unwrap();
        assert!((1..99).all(|byte| position(byte) < position(byte + 1)));
    }

    #[test]
    fn a_slot_that_went_to_another_port_is_two_interfaces() {
        let mut recorder = Recorder::new(1 << 20);
        (0..30).for_each(|at| recorder.record(&frame(at, 0), &[&[0; 60]], Offload::default()));
        let (old, new) = (holder(0, "oldp", 0, 9), holder(0, "newp", 15, u64::MAX));
        let of = |passed: &SlotHolder| replay_of(&recorder, vec![new.clone(), old.clone()], Some(vec![passed.clone()]), 5);
        assert_eq!((packets(&of(&old)), packets(&of(&new))), (5, 15));
        let file = of(&old);
        let position = |name: &str| file.windows(4).position(|window| window == name.as_bytes());
        assert!(position("oldp") < position("newp"), "{:?} {:?}", position("oldp"), position("newp"));
        let late = replay_of(&recorder, vec![old.clone(), new.clone()], None, 20);
        assert!(packets(&late) == 10 && !late.windows(4).any(|window| window == b"oldp"), "the one before is not in it");
    }

    #[test]
    fn a_burst_of_drops_and_a_full_table_are_incidents() {
        let mut recorder = Recorder::new(1 << 20);
        let mut drop = |at: u64, reason| {
            recorder.record(&frame(at, 0).dropped(reason), &[&[0; 60]], Offload::default());
            recorder.take_incident()
        };
        assert!((0..u64::from(BURST) - 1).all(|at| drop(at, DropReason::Runt).is_none()));
        assert_eq!(drop(SECOND - 1, DropReason::Runt), Some(Incident::DropBurst));
        assert_eq!(drop(SECOND, DropReason::Runt), None, "another second");
        assert_eq!(drop(SECOND, DropReason::NatSessionCap), Some(Incident::SessionTableFull));
    }
}
