//! Received frames and the buffers that they live in.
//!
//! A batch is what one worker holds between receiving and sending: frames in the order in which they came, bounded in number
//! and, because 64 super-frames of 64 KiB would fall out of the L2 cache between read and write and make other ports wait, in bytes. Buffers come in
//! two sizes and are reused for ever, so a steady state allocates nothing: most frames fit the small one, and a reader that
//! cannot know the size of the next frame scatters it over a small buffer and the tail of a large one.

use crate::{Capabilities, Offload, TagEdit, coalesce, egress};

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

    /// How many frames it is on a way that takes no super-frames.
    pub fn segments(&self) -> usize {
        let Some(gso) = self.offload.gso else { return 1 };
        let headers = egress::header_length(self.bytes(), self.offload).unwrap_or_default();
        self.bytes().len().saturating_sub(headers.into()).div_ceil(gso.size.get().into())
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
#[derive(Debug, Default)]
pub struct Batch {
    frames: Vec<Frame>,
    bytes: usize,
    origin: (u32, u16),
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
        Self::default()
    }

    /// Says at which port the frames to come are received.
    pub fn set_ingress(&mut self, port: u32) {
        self.set_origin(port, 0);
    }

    /// Says at which port, and from which of the peers behind it, the frames to come are received.
    pub fn set_origin(&mut self, port: u32, peer: u16) {
        self.origin = (port, peer);
    }

    /// Whether it is time to forward before receiving more.
    pub fn is_full(&self) -> bool {
        self.frames.len() >= Self::FRAMES || self.bytes >= Self::BYTES
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

    /// Forgets the frames and keeps their buffers.
    pub fn clear(&mut self) {
        for frame in self.frames.drain(..) {
            shelve(frame.buffer, &mut self.small, &mut self.large);
        }
        self.bytes = 0;
    }

    /// Lets `read` scatter one frame over two buffers, the second continuing the first, and takes it in. `read` returns the
    /// frame's length and its metadata. Together the buffers hold [`MAX_FRAME`] bytes.
    ///
    /// # Errors
    /// What `read` returns; the batch is then as before.
    pub fn read<E>(&mut self, read: impl FnOnce(&mut [u8], &mut [u8]) -> Result<(usize, Offload), E>) -> Result<(), E> {
        let mut small = self.small.pop().unwrap_or_else(|| buffer(SMALL));
        let mut large = self.large.pop().unwrap_or_else(|| buffer(MAX_FRAME));
        let result = read(&mut small[HEADROOM..], &mut large[HEADROOM + SMALL..]);
        let (buffer, length, offload) = match result {
            Ok((length, offload)) if length > SMALL => {
                large[HEADROOM..HEADROOM + SMALL].copy_from_slice(&small[HEADROOM..]);
                self.small.push(small);
                (large, length.min(MAX_FRAME), offload)
            }
            Ok((length, offload)) => {
                self.large.push(large);
                (small, length, offload)
            }
            Err(error) => {
                self.small.push(small);
                self.large.push(large);
                return Err(error);
            }
        };
        self.take_in(buffer, HEADROOM + length, offload);
        Ok(())
    }

    /// Takes in a copy of `bytes`, cut at [`MAX_FRAME`].
    pub fn push(&mut self, bytes: &[u8], offload: Offload) {
        self.gather(std::iter::once(bytes), bytes.len(), offload);
    }

    /// Takes in a copy of the first of `frames`, or of as many as are segments of one super-frame, as that super-frame or as more of the
    /// one before. Returns how many it took.
    pub fn push_merged<'a>(&mut self, frames: impl Iterator<Item = (&'a [u8], Offload)> + Clone) -> usize {
        let bytes = frames.clone().map(|(bytes, _)| bytes);
        let last = self.frames.last().filter(|last| (last.ingress, last.peer) == self.origin);
        let more = last.map_or(0, |last| coalesce::continuation((last.bytes(), last.offload), frames.clone()));
        if more > 0 && self.extend_last(bytes.clone().take(more)).is_some() {
            return more;
        }
        let count = coalesce::run_length(frames.clone(), Capabilities::ALL);
        if count > 1 && self.push_run(bytes.take(count)).is_some() {
            return count;
        }
        let Some((bytes, offload)) = frames.clone().next() else { return 0 };
        self.push(bytes, offload);
        1
    }

    /// Takes in a run of frames as one.
    fn push_run<'a>(&mut self, run: impl Iterator<Item = &'a [u8]> + Clone) -> Option<()> {
        let mut rest = run.clone();
        let merged = coalesce::merge(rest.next()?, None, rest, TagEdit::Keep)?;
        let headers = merged.headers.bytes();
        let payloads = run.map(|bytes| bytes.get(merged.payload..).unwrap_or_default());
        self.gather(std::iter::once(headers).chain(payloads), merged.length, merged.offload);
        Some(())
    }

    /// Puts the payloads of a run of frames behind the last one.
    fn extend_last<'a>(&mut self, run: impl Iterator<Item = &'a [u8]> + Clone) -> Option<()> {
        let last = self.frames.last_mut()?;
        let size = last.offload.gso.map(|gso| gso.size);
        let merged = coalesce::merge(last.bytes(), size, run.clone(), TagEdit::Keep)?;
        let payloads = run.map(|bytes| bytes.get(merged.payload..).unwrap_or_default());
        let more = merged.length.checked_sub(last.bytes().len())?;
        if last.end + more > last.buffer.len() {
            let mut large = self.large.pop().unwrap_or_else(|| buffer(MAX_FRAME));
            large.get_mut(..last.end)?.copy_from_slice(last.buffer.get(..last.end)?);
            shelve(std::mem::replace(&mut last.buffer, large), &mut self.small, &mut self.large);
        }
        let (front, rest) = last.buffer.split_at_mut_checked(last.end)?;
        fill(rest.get_mut(..more)?, payloads);
        let headers = merged.headers.bytes();
        front.get_mut(last.start..last.start + headers.len())?.copy_from_slice(headers);
        last.end += more;
        last.offload = merged.offload;
        self.bytes += more;
        Some(())
    }

    /// Takes in a frame of `length` bytes, cut at [`MAX_FRAME`], which are in pieces.
    fn gather<'a>(&mut self, pieces: impl Iterator<Item = &'a [u8]>, length: usize, offload: Offload) {
        let (shelf, room) = if length > SMALL { (&mut self.large, MAX_FRAME) } else { (&mut self.small, SMALL) };
        let mut buffer = shelf.pop().unwrap_or_else(|| self::buffer(room));
        let end = HEADROOM + length.min(MAX_FRAME);
        fill(&mut buffer[HEADROOM..end], pieces);
        self.take_in(buffer, end, offload);
    }

    fn take_in(&mut self, buffer: Box<[u8]>, end: usize, offload: Offload) {
        self.bytes += end - HEADROOM;
        let (ingress, peer) = self.origin;
        self.frames.push(Frame { buffer, start: HEADROOM, end, offload, ingress, peer });
    }

    /// The frame taken in last, for metadata that comes after it.
    pub fn last_mut(&mut self) -> Option<&mut Frame> {
        self.frames.last_mut()
    }
}

/// Puts a buffer back where it came from.
fn shelve(buffer: Box<[u8]>, small: &mut Vec<Box<[u8]>>, large: &mut Vec<Box<[u8]>>) {
    let shelf = if buffer.len() > HEADROOM + SMALL { large } else { small };
    shelf.push(buffer);
}

/// Copies pieces behind each other, as far as there is room.
fn fill<'a>(mut room: &mut [u8], pieces: impl Iterator<Item = &'a [u8]>) {
    for piece in pieces {
        let (place, rest) = room.split_at_mut(piece.len().min(room.len()));
        place.copy_from_slice(&piece[..place.len()]);
        room = rest;
    }
}

fn buffer(room: usize) -> Box<[u8]> {
    vec![0; HEADROOM + room].into_boxed_slice()
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
        assert!(batch.large.len() <= Batch::BYTES / 60_000 + 2 && batch.small.len() <= Batch::FRAMES + 1);
    }

    #[test]
    fn a_failed_read_changes_nothing() {
        let mut batch = Batch::new();
        assert_eq!(batch.read(|_, _| Err("no")), Err("no"));
        assert!(batch.frames().is_empty() && batch.small.len() == 1 && batch.large.len() == 1);
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
