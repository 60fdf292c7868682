//! Received frames and the buffers that they live in.
//!
//! A batch is what one worker holds between receiving and sending: frames in the order in which they came, bounded in number
//! and, because 64 super-frames of 64 KiB would fall out of the L2 cache between read and write and make other ports wait, in
//! bytes. Buffers come in two sizes and are reused for ever, so a steady state allocates nothing: most frames fit the small one,
//! and a reader that cannot know the size of the next frame scatters it over a small buffer and the tail of a large one.

use crate::{Offload, TagEdit, checksum, coalesce, egress};

/// The longest frame that the switch takes: an IP packet of 65,535 bytes behind an Ethernet header with two tags.
pub const MAX_FRAME: usize = 65_535 + 14 + 8;

/// Bytes that stay free before a received frame, for a tag that the kernel delivers apart from the frame.
const HEADROOM: usize = 16;
/// Room for a frame in a small buffer: MTU 1500 with tags, in a buffer of 2 KiB.
const SMALL: usize = 2048 - HEADROOM;

/// One received frame.
#[derive(Debug)]
pub struct Frame {
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    /// What the kernel left to do.
    pub offload: Offload,
    /// The number of the port that it came in at.
    pub ingress: u32,
    /// Which of the peers behind that port sent it, where the port is a tunnel; 0 for every other port.
    pub peer: u16,
    /// What was around it, where the port is a tunnel.
    pub outer: OuterOrigin,
    /// When it was taken in, by the batch's clock; 0 without one.
    pub at: u64,
    /// The number by which captures know it; 0: it has none yet.
    pub id: u64,
}

/// What the headers around a frame said that came by a tunnel; 0 for every other frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OuterOrigin {
    /// The sender's UDP port.
    pub port: u16,
    /// TOS field or traffic class.
    pub class: u8,
}

impl Frame {
    /// The frame from its destination address on, without FCS.
    pub fn bytes(&self) -> &[u8] {
        self.buffer.get(self.start..self.end).unwrap_or_default()
    }

    /// As [`Frame::bytes`], to change.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.buffer.get_mut(self.start..self.end).unwrap_or_default()
    }

    /// Length of all headers up to the payload that is cut, of a super-frame.
    pub fn headers(&self) -> Option<u16> {
        egress::header_length(self.bytes(), self.offload)
    }

    /// How many frames it is on a way that takes no super-frames.
    pub fn segments(&self) -> usize {
        self.offload.segments(self.bytes())
    }

    /// Puts a tag of four bytes behind the two addresses. The kernel takes tags out of what packet sockets read.
    pub fn insert_tag(&mut self, tag: [u8; 4]) {
        if self.start < tag.len() || self.end - self.start < 12 {
            return;
        }
        let start = self.start - tag.len();
        self.buffer.copy_within(self.start..self.start + 12, start);
        if let Some(place) = self.buffer.get_mut(start + 12..start + 16) {
            place.copy_from_slice(&tag);
        }
        self.start = start;
        if let crate::Checksum::Partial { start, .. } = &mut self.offload.checksum {
            *start = start.saturating_add(4);
        }
    }
}

/// The frames of one turn of a worker.
#[derive(Debug)]
pub struct Batch {
    frames: Vec<Frame>,
    bytes: usize,
    /// Bytes at which it is full, this time.
    limit: usize,
    /// Port and peer of the frames to come.
    origin: (u32, u16),
    /// What was around them.
    outer: OuterOrigin,
    clock: Option<fn() -> u64>,
    shelves: Shelves,
}

/// Buffers that hold no frame, by size.
#[derive(Debug, Default)]
struct Shelves {
    small: Vec<Box<[u8]>>,
    large: Vec<Box<[u8]>>,
}

impl Batch {
    /// Most frames in a batch.
    pub const FRAMES: usize = 64;
    /// Bytes at which a batch is full; the frame that reaches it is still taken. More would save little, and make other ports wait:
    /// this much takes half a millisecond where it is slowest, through a tunnel that is cut into packets.
    pub const BYTES: usize = 512 * 1024;

    /// Most frames that the switch may put behind those which it received.
    pub const ANSWERS: usize = 192;
    /// Most frames of both kinds.
    pub const MOST: usize = Self::FRAMES + Self::ANSWERS;

    /// An empty batch without buffers; they are made as they are first needed.
    pub fn new() -> Self {
        let (frames, shelves) = (Vec::new(), Shelves::default());
        Self { frames, bytes: 0, limit: Self::BYTES, origin: (0, 0), outer: OuterOrigin::default(), clock: None, shelves }
    }

    /// Bytes of the frames.
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Makes it full with so many bytes already, until it is cleared. The frame that reaches the limit is still taken.
    pub fn limit(&mut self, bytes: usize) {
        self.limit = bytes.min(Self::BYTES);
    }

    /// Says at which port the frames to come are received.
    pub fn set_ingress(&mut self, port: u32) {
        self.set_origin(port, 0);
    }

    /// Says at which port, and from which of the peers behind it, the frames to come are received.
    pub fn set_origin(&mut self, port: u32, peer: u16) {
        self.origin = (port, peer);
        self.outer = OuterOrigin::default();
    }

    /// Says what was around the frames to come, until their origin is set again.
    pub fn set_outer(&mut self, outer: OuterOrigin) {
        self.outer = outer;
    }

    /// Says which clock each of the frames to come is stamped by; `None`: none is.
    pub fn set_clock(&mut self, clock: Option<fn() -> u64>) {
        self.clock = clock;
    }

    /// Whether it is time to forward before receiving more.
    pub fn is_full(&self) -> bool {
        self.frames.len() >= Self::FRAMES || self.bytes >= self.limit
    }

    /// The frames, oldest first.
    pub fn frames(&self) -> &[Frame] {
        &self.frames
    }

    /// The frames, to change.
    pub fn frames_mut(&mut self) -> &mut [Frame] {
        &mut self.frames
    }

    /// Whether one more frame of the switch's own may go behind those received.
    pub fn has_room(&self) -> bool {
        self.frames.len() < Self::MOST
    }

    /// Forgets the frames that are not to be kept, by their places.
    pub fn retain(&mut self, keep: impl Fn(usize) -> bool) {
        for index in (0..self.frames.len()).rev() {
            if !keep(index) {
                let frame = self.frames.remove(index);
                self.bytes = self.bytes.saturating_sub(frame.bytes().len());
                self.shelves.put(frame.buffer);
            }
        }
    }

    /// Forgets the frames and keeps their buffers.
    pub fn clear(&mut self) {
        for frame in self.frames.drain(..) {
            self.shelves.put(frame.buffer);
        }
        (self.bytes, self.limit) = (0, Self::BYTES);
    }

    /// Lets `read` scatter one frame over two buffers, the second continuing the first, and takes it in. `read` returns the
    /// frame's length and its metadata. Together the buffers hold [`MAX_FRAME`] bytes.
    ///
    /// # Errors
    /// What `read` returns; the batch is then as before.
    pub fn read<E>(&mut self, read: impl FnOnce(&mut [u8], &mut [u8]) -> Result<(usize, Offload), E>) -> Result<(), E> {
        let mut small = self.shelves.take(SMALL);
        let mut large = self.shelves.take(MAX_FRAME);
        let result = read(&mut small[HEADROOM..], &mut large[HEADROOM + SMALL..]);
        let (buffer, length, offload) = match result {
            Ok((length, offload)) if length > SMALL => {
                large[HEADROOM..HEADROOM + SMALL].copy_from_slice(&small[HEADROOM..]);
                self.shelves.put(small);
                (large, length.min(MAX_FRAME), offload)
            }
            Ok((length, offload)) => {
                self.shelves.put(large);
                (small, length, offload)
            }
            Err(error) => {
                self.shelves.put(small);
                self.shelves.put(large);
                return Err(error);
            }
        };
        self.take_in(buffer, HEADROOM + length, offload);
        Ok(())
    }

    /// Takes in a copy of `bytes`, cut at [`MAX_FRAME`].
    pub fn push(&mut self, bytes: &[u8], offload: Offload) {
        let bytes = bytes.get(..MAX_FRAME).unwrap_or(bytes);
        let mut buffer = self.shelves.take(bytes.len());
        let end = HEADROOM + bytes.len();
        buffer[HEADROOM..end].copy_from_slice(bytes);
        self.take_in(buffer, end, offload);
    }

    /// Takes in a frame of two pieces, which fit a buffer.
    pub(crate) fn push_pieces(&mut self, pieces: [&[u8]; 2], offload: Offload) {
        let mut buffer = self.shelves.take(pieces[0].len() + pieces[1].len());
        let mut end = HEADROOM;
        for piece in pieces {
            buffer[end..end + piece.len()].copy_from_slice(piece);
            end += piece.len();
        }
        self.take_in(buffer, end, offload);
    }

    /// Takes in a copy of the first of `frames`, or of as many as are segments of one super-frame, as that super-frame or as more of the
    /// one before. Returns how many it took.
    pub fn push_merged<'a>(&mut self, mut frames: impl Iterator<Item = (&'a [u8], Offload)> + Clone) -> usize {
        let more = self.extend_last(frames.clone());
        if more > 0 {
            return more;
        }
        let Some((bytes, offload)) = frames.next() else { return 0 };
        self.push(bytes, offload);
        1 + self.extend_last(frames)
    }

    /// Puts the payloads of those of `frames` that continue the last one behind it. Returns how many they are.
    fn extend_last<'a>(&mut self, frames: impl Iterator<Item = (&'a [u8], Offload)> + Clone) -> usize {
        let last = self.frames.last().filter(|last| (last.ingress, last.peer) == self.origin);
        let count = last.map_or(0, |last| coalesce::continuation((last.bytes(), last.offload), frames.clone()));
        if count == 0 {
            return 0;
        }
        self.append(frames.map(|(bytes, _)| bytes).take(count)).map_or(0, |()| count)
    }

    /// Merges a run of frames into the last one; `None` if they must stay as they are.
    fn append<'a>(&mut self, run: impl Iterator<Item = &'a [u8]> + Clone) -> Option<()> {
        let last = self.frames.last_mut()?;
        let size = last.offload.gso.map(|gso| gso.size);
        let merged = coalesce::merge(last.bytes(), size, run.clone(), TagEdit::Keep)?;
        let end = last.start + merged.length;
        if end > last.buffer.len() {
            let mut large = self.shelves.take(MAX_FRAME);
            large.get_mut(..last.end)?.copy_from_slice(last.buffer.get(..last.end)?);
            self.shelves.put(std::mem::replace(&mut last.buffer, large));
        }
        let (front, mut rest) = last.buffer.get_mut(last.start..end)?.split_at_mut_checked(last.end - last.start)?;
        let headers = merged.headers.bytes();
        front.get_mut(..headers.len())?.copy_from_slice(headers);
        for payload in run.map(|bytes| bytes.get(merged.payload..).unwrap_or_default()) {
            let (place, behind) = rest.split_at_mut_checked(payload.len())?;
            place.copy_from_slice(payload);
            rest = behind;
        }
        self.bytes += end - last.end;
        (last.end, last.offload) = (end, merged.offload);
        Some(())
    }

    fn take_in(&mut self, mut buffer: Box<[u8]>, end: usize, mut offload: Offload) {
        self.bytes += end - HEADROOM;
        let (ingress, peer) = self.origin;
        if let (None, Some(frame)) = (offload.gso, buffer.get_mut(HEADROOM..end)) {
            offload.checksum = checksum::finish_inner(frame, offload.checksum);
        }
        let at = self.clock.map_or(0, |clock| clock());
        self.frames.push(Frame { buffer, start: HEADROOM, end, offload, ingress, peer, outer: self.outer, at, id: 0 });
    }

    /// The frame taken in last, for metadata that comes after it.
    pub fn last_mut(&mut self) -> Option<&mut Frame> {
        self.frames.last_mut()
    }
}

impl Default for Batch {
    fn default() -> Self {
        Self::new()
    }
}

impl Shelves {
    /// A buffer for a frame of up to `length` bytes.
    fn take(&mut self, length: usize) -> Box<[u8]> {
        let (shelf, room) = if length > SMALL { (&mut self.large, MAX_FRAME) } else { (&mut self.small, SMALL) };
        shelf.pop().unwrap_or_else(|| vec![0; HEADROOM + room].into_boxed_slice())
    }

    fn put(&mut self, buffer: Box<[u8]>) {
        let shelf = if buffer.len() > HEADROOM + SMALL { &mut self.large } else { &mut self.small };
        shelf.push(buffer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Checksum;

    #[test]
    fn frames_of_every_size_keep_their_bytes() {
        let mut batch = Batch::new();
        let lengths = [0, 1, 60, SMALL - 1, SMALL, SMALL + 1, 9014, MAX_FRAME];
        for (fill, &length) in (1u8..).zip(&lengths) {
            batch.push(&vec![fill; length], Offload::default());
        }
        for ((fill, &length), frame) in (1u8..).zip(&lengths).zip(batch.frames()) {
            assert_eq!(frame.bytes(), vec![fill; length]);
        }
    }

    #[test]
    fn a_full_batch_is_bounded_and_its_buffers_are_reused() {
        let mut batch = Batch::new();
        for _ in 0..10 {
            while !batch.is_full() {
                batch.push(&[7; 60_000], Offload::default());
            }
            assert!(batch.frames().len() <= Batch::BYTES / 60_000 + 1);
            batch.clear();
            while !batch.is_full() {
                batch.push(&[7; 60], Offload::default());
            }
            assert_eq!(batch.frames().len(), Batch::FRAMES);
            batch.clear();
        }
        assert!(batch.shelves.large.len() <= Batch::BYTES / 60_000 + 2 && batch.shelves.small.len() <= Batch::FRAMES + 1);
    }

    #[test]
    fn frames_are_stamped_one_by_one_while_there_is_a_clock() {
        static NOW: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(7);
        let mut batch = Batch::new();
        let times = |batch: &Batch| batch.frames().iter().map(|frame| frame.at).collect::<Vec<_>>();
        batch.set_clock(Some(|| NOW.fetch_add(1, std::sync::atomic::Ordering::Relaxed)));
        batch.push(&[0; 60], Offload::default());
        let _ = batch.read(|_, _| Ok::<_, ()>((60, Offload::default())));
        assert_eq!(times(&batch), [7, 8]);
        batch.set_clock(None);
        batch.push(&[0; 60], Offload::default());
        assert_eq!(times(&batch), [7, 8, 0]);
    }

    #[test]
    fn frames_that_are_not_kept_leave_their_buffers_and_the_others_their_order() {
        let mut batch = Batch::new();
        (1..=9_u8).for_each(|number| batch.push(&vec![number; usize::from(number) * 500], Offload::default()));
        batch.retain(|index| (index + 1) % 3 != 0);
        assert_eq!(batch.frames().iter().map(|frame| frame.bytes()[0]).collect::<Vec<_>>(), [1, 2, 4, 5, 7, 8]);
        assert_eq!((batch.bytes(), batch.shelves.small.len(), batch.shelves.large.len()), (27 * 500, 1, 2));
    }

    #[test]
    fn a_failed_read_changes_nothing() {
        let mut batch = Batch::new();
        assert_eq!(batch.read(|_, _| Err("no")), Err("no"));
        assert!(batch.frames().is_empty() && batch.shelves.small.len() == 1 && batch.shelves.large.len() == 1);
    }

    #[test]
    fn a_tag_goes_behind_the_addresses_and_moves_the_checksum() {
        let mut batch = Batch::new();
        let offload = Offload { checksum: Checksum::Partial { start: 34, offset: 16 }, gso: None };
        batch.push(&(0..60).collect::<Vec<u8>>(), offload);
        batch.last_mut().unwrap().insert_tag([0x81, 0, 0, 10]);
        let frame = &batch.frames()[0];
        let expected: Vec<u8> = (0..12).chain([0x81, 0, 0, 10]).chain(12..60).collect();
        assert_eq!(frame.bytes(), expected);
        assert_eq!(frame.offload.checksum, Checksum::Partial { start: 38, offset: 16 });
    }
}
