//! From the queue of a port to what its device sends.
//!
//! Most frames leave as they came, and cost a look at their metadata. For the others a few headers are copied and changed; the
//! payload is never copied, and the frame, which other ports may still send, never changes: what goes out is a list of slices.

use std::io::IoSlice;

use arrayvec::ArrayVec;

use crate::checksum::{Sum, non_zero};
use crate::encapsulated::Encapsulated;
use crate::rewrite::{growth, tagged};
use crate::segment::Unsegmentable;
use crate::{Batch, Capabilities, Checksum, Frame, MAX_FRAME, Offload, TagEdit, UdpTunnel, coalesce, segment};

/// Most slices of a [`Packet`]: headers, and the payloads of a run.
pub const MAX_PARTS: usize = coalesce::MOST + 2;

/// One frame of a queue.
#[derive(Clone, Copy, Debug)]
pub struct Queued<'a> {
    /// The frame as it was received.
    pub frame: &'a Frame,
    /// What happens to its tag.
    pub edit: TagEdit,
    /// Which of the peers behind a tunnel gets it; 0: all of them, or, for another port, the stations behind it.
    pub peer: u16,
}

impl Queued<'_> {
    /// Shows it as it leaves by a port that takes every frame whole.
    pub fn show(&self, see: &mut dyn FnMut(&Packet<'_>)) {
        send_tagged(self, None, see);
    }
}

/// One frame as a device sends it.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// Slices which follow each other; 1 to [`MAX_PARTS`].
    pub parts: &'a [IoSlice<'a>],
    /// What is left to do.
    pub offload: Offload,
    /// Length of all headers up to the transport's payload in a super-frame, else 0.
    pub headers: u16,
    /// Frames of the queue that it stands for; 0 for the segments of one behind its first.
    pub frames: usize,
    /// Which of the peers behind a tunnel gets it; 0: all of them, or, for another port, the stations behind it.
    pub peer: u16,
    /// The port that it came in at.
    pub ingress: u32,
    /// The number by which captures know its frame, or the first of them; 0: it has none.
    pub id: u64,
    /// Set if it is a super-frame inside a tunnel.
    pub tunnel: Option<UdpTunnel>,
}

impl<'a> Packet<'a> {
    /// One frame with nothing left to do, for the stations behind the port.
    pub fn whole(parts: &'a [IoSlice<'a>]) -> Self {
        Self { parts, offload: Offload::default(), headers: 0, frames: 1, peer: 0, ingress: 0, id: 0, tunnel: None }
    }

    /// A copy in one piece.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.parts.iter().map(|part| part.len()).sum());
        self.parts.iter().for_each(|part| bytes.extend_from_slice(part));
        bytes
    }
}

/// Sends queues. Holds buffers between two calls, and nothing else.
#[derive(Debug, Default)]
pub struct Egress {
    /// Segments of what was a super-frame inside a tunnel.
    segments: Batch,
}

impl Egress {
    /// Ready to send.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sends a queue, in order, to a device that can do `capabilities`: tags are edited, super-frames cut where the device takes
    /// none, small segments of a flow merged where it does, checksums completed where they must be. Returns the places in the
    /// queue of frames that could not be cut.
    pub fn run(
        &mut self,
        mut queue: &[Queued<'_>],
        capabilities: Capabilities,
        send: &mut dyn FnMut(&Packet<'_>),
    ) -> Vec<usize> {
        let (length, mut uncut) = (queue.len(), Vec::new());
        while let Some((first, rest)) = queue.split_first() {
            let run = send_next(queue, capabilities, send);
            if run > 0 {
                queue = queue.get(run..).unwrap_or_default();
                continue;
            }
            let place = length - queue.len();
            queue = rest;
            let sent = if segment::is_tunnelled(first.frame.bytes(), first.frame.offload) {
                self.send_tunnelled(first, capabilities, send)
            } else {
                send_segments(first, capabilities, send)
            };
            uncut.extend(sent.is_err().then_some(place));
        }
        uncut
    }

    /// Sends a super-frame inside a tunnel: whole, or as the tunnel's packets, which are datagrams of one size and may be a super-frame
    /// of their own.
    fn send_tunnelled(
        &mut self,
        queued: &Queued<'_>,
        capabilities: Capabilities,
        send: &mut dyn FnMut(&Packet<'_>),
    ) -> Result<(), Unsegmentable> {
        let &Queued { frame, edit, peer } = queued;
        let tunnel =
            || Encapsulated::parse(frame.bytes(), frame.offload)?.udp_tunnel(|at| Some(shift(at.try_into().ok()?, edit)));
        let takes_whole = capabilities.tunnel && capabilities.accept(frame.offload);
        if let Some(tunnel) = takes_whole.then(tunnel).flatten() {
            send_tagged(queued, Some(tunnel), send);
            return Ok(());
        }
        // With a tag more, the longest would not fit a buffer.
        if !capabilities.udp || frame.bytes().len() > MAX_FRAME - 4 {
            return send_segments(queued, capabilities, send);
        }
        let segments = &mut self.segments;
        segments.clear();
        let mut frames = 1;
        let mut send = |packet: &Packet<'_>| {
            send(&Packet { frames, peer, ingress: frame.ingress, id: frame.id, ..*packet });
            frames = 0;
        };
        segment::segment(frame.bytes(), frame.offload, edit, false, &mut |headers, payload, offload| {
            segments.push_pieces([headers, payload], offload);
            if segments.frames().len() == coalesce::MOST {
                send_all(segments, capabilities, &mut send);
            }
        })?;
        send_all(segments, capabilities, &mut send);
        Ok(())
    }
}

/// Sends what the head of a queue is as one packet, and returns how many frames that was; 0 if the first is to be cut.
fn send_next(queue: &[Queued<'_>], capabilities: Capabilities, send: &mut dyn FnMut(&Packet<'_>)) -> usize {
    let Some(first) = queue.first() else { return 0 };
    let together = queue.iter().take_while(|other| (other.edit, other.peer) == (first.edit, first.peer));
    let run = coalesce::run_length(together.map(|other| (other.frame.bytes(), other.frame.offload)), capabilities);
    if run > 1 && send_run(queue.get(..run).unwrap_or_default(), send).is_some() {
        return run;
    }
    let offload = first.frame.offload;
    if capabilities.accept(offload) && !segment::is_tunnelled(first.frame.bytes(), offload) {
        send_tagged(first, None, send);
    } else if offload.gso.is_none() {
        send_completed(first, send);
    } else {
        return 0;
    }
    1
}

/// Sends frames whose checksums are finished, and forgets them.
fn send_all(frames: &mut Batch, capabilities: Capabilities, send: &mut dyn FnMut(&Packet<'_>)) {
    let queue: ArrayVec<_, { coalesce::MOST }> =
        frames.frames().iter().take(coalesce::MOST).map(|frame| Queued { frame, edit: TagEdit::Keep, peer: 0 }).collect();
    let mut rest = &queue[..];
    while !rest.is_empty() {
        let sent = send_next(rest, capabilities, send);
        rest = rest.get(sent.max(1)..).unwrap_or_default();
    }
    drop(queue);
    frames.clear();
}

/// A frame with nothing to change but its tag.
fn send_tagged(&Queued { frame, edit, peer }: &Queued<'_>, tunnel: Option<UdpTunnel>, send: &mut dyn FnMut(&Packet<'_>)) {
    let (bytes, offload) = (frame.bytes(), shifted(frame.offload, edit));
    let headers = header_length(bytes, frame.offload).map_or(0, |length| shift(length, edit));
    if edit == TagEdit::Keep {
        return send(&Packet {
            parts: &[IoSlice::new(bytes)],
            offload,
            headers,
            frames: 1,
            peer,
            ingress: frame.ingress,
            id: frame.id,
            tunnel,
        });
    }
    let (front, tag, rest) = tagged(bytes, edit);
    let tag = tag.as_ref().map_or(&[][..], |tag| tag);
    let parts = [front, tag, rest].map(IoSlice::new);
    send(&Packet { parts: &parts, offload, headers, frames: 1, peer, ingress: frame.ingress, id: frame.id, tunnel });
}

/// A frame whose partial checksum the device cannot complete.
fn send_completed(&Queued { frame, edit, peer }: &Queued<'_>, send: &mut dyn FnMut(&Packet<'_>)) {
    let bytes = frame.bytes();
    let Checksum::Partial { start, offset } = frame.offload.checksum else { return };
    let (start, offset) = (usize::from(start), usize::from(offset));
    let field = start + offset;
    let checksum = non_zero(Sum::new().plus(bytes.get(start..).unwrap_or_default()).checksum(), offset).to_be_bytes();
    let (front, tag, rest) = tagged(bytes, edit);
    let tag = tag.as_ref().map_or(&[][..], |tag| tag);
    // The field lies behind the tag unless the metadata is nonsense; then the frame goes as it is.
    let whole = if edit == TagEdit::Keep { front } else { rest };
    let before = bytes.len() - whole.len();
    let inside = field.checked_sub(before).filter(|at| at + 2 <= whole.len());
    let (head, value, tail) = match inside {
        Some(at) => (&whole[..at], &checksum[..], &whole[at + 2..]),
        None => (whole, &[][..], &[][..]),
    };
    let offload = Offload { checksum: Checksum::Unverified, gso: None };
    let front = if edit == TagEdit::Keep { &[][..] } else { front };
    let parts = [front, tag, head, value, tail].map(IoSlice::new);
    send(&Packet { parts: &parts, offload, headers: 0, frames: 1, peer, ingress: frame.ingress, id: frame.id, tunnel: None });
}

fn send_segments(
    &Queued { frame, edit, peer }: &Queued<'_>,
    capabilities: Capabilities,
    send: &mut dyn FnMut(&Packet<'_>),
) -> Result<(), Unsegmentable> {
    let mut frames = 1;
    segment::segment(frame.bytes(), frame.offload, edit, capabilities.checksum, &mut |headers, payload, offload| {
        send(&Packet {
            parts: &[IoSlice::new(headers), IoSlice::new(payload)],
            offload,
            headers: 0,
            frames,
            peer,
            ingress: frame.ingress,
            id: frame.id,
            tunnel: None,
        });
        frames = 0;
    })
}

/// Sends a run as one super-frame.
fn send_run(run: &[Queued<'_>], send: &mut dyn FnMut(&Packet<'_>)) -> Option<()> {
    let (first, rest) = run.split_first()?;
    let merged = coalesce::merge(first.frame.bytes(), None, rest.iter().map(|queued| queued.frame.bytes()), first.edit)?;
    let mut parts: ArrayVec<IoSlice<'_>, MAX_PARTS> = ArrayVec::new();
    parts.push(IoSlice::new(merged.headers.bytes()));
    for queued in run {
        parts.try_push(IoSlice::new(queued.frame.bytes().get(merged.payload..)?)).ok()?;
    }
    let headers = u16::try_from(merged.headers.bytes().len()).ok()?;
    send(&Packet {
        parts: &parts,
        offload: merged.offload,
        headers,
        frames: run.len(),
        peer: first.peer,
        ingress: first.frame.ingress,
        id: first.frame.id,
        tunnel: None,
    });
    Some(())
}

/// The length of a super-frame's headers: the metadata says where the transport begins.
pub(crate) fn header_length(bytes: &[u8], offload: Offload) -> Option<u16> {
    let (Some(gso), Checksum::Partial { start, .. }) = (offload.gso, offload.checksum) else { return None };
    let transport = match gso.kind {
        crate::GsoKind::Udp => 8,
        crate::GsoKind::Tcp4 | crate::GsoKind::Tcp6 => u16::from(*bytes.get(usize::from(start) + 12)? >> 4) * 4,
    };
    start.checked_add(transport)
}

/// The metadata of a frame whose tag was edited.
fn shifted(offload: Offload, edit: TagEdit) -> Offload {
    match offload.checksum {
        Checksum::Partial { start, offset } => {
            Offload { checksum: Checksum::Partial { start: shift(start, edit), offset }, ..offload }
        }
        _ => offload,
    }
}

fn shift(at: u16, edit: TagEdit) -> u16 {
    u16::try_from(i32::from(at) + growth(edit)).unwrap_or(at)
}

#[cfg(test)]
mod tests;
