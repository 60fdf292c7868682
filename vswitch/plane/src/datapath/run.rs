//! Runs of frames with one header, of which the first is looked at and the rest go after it.

use packet::{Ethernet, Frame};

use super::claim::is_plain;
use super::port::exceeds;
use super::{Departure, PortId};

/// Bytes that decide where a frame goes: addresses, tag and type, or what comes in the place of a tag.
const HEADER: usize = 16;

/// A frame that was bridged to one place, from a port where nothing but its header and its length decided that. Limits on broadcasts and on
/// floods do not apply to frames that go to one place.
#[derive(Debug, Clone, Copy)]
pub(super) struct Run {
    ingress: u32,
    peer: u16,
    header: [u8; HEADER],
    ethernet: Ethernet,
    mtu: u16,
    /// Whether what a frame claims decides as well.
    watched: bool,
    to: PortId,
    departure: Departure,
}

impl Run {
    /// After `frame`, on a bridge with this MTU where what frames claim is `watched` or not.
    pub(super) fn after(
        frame: &Frame,
        ethernet: Ethernet,
        (mtu, watched): (u16, bool),
        to: PortId,
        departure: Departure,
    ) -> Option<Self> {
        let header = *frame.bytes().first_chunk()?;
        Some(Self { ingress: frame.ingress, peer: frame.peer, header, ethernet, mtu, watched, to, departure })
    }

    /// Where the next frame leaves if it goes the same way. Within one batch such a frame teaches nothing that the first did not, and no
    /// address is forgotten.
    pub(super) fn next(&self, index: usize, frame: &Frame) -> Option<(PortId, Departure)> {
        let same =
            (frame.ingress, frame.peer) == (self.ingress, self.peer) && frame.bytes().first_chunk() == Some(&self.header);
        let fits = frame.bytes().len() >= self.ethernet.payload && !exceeds(self.mtu, &self.ethernet, frame);
        let follows = same && fits && (!self.watched || is_plain(self.ethernet.payload, frame.bytes()));
        follows.then_some((self.to, Departure { frame: index, ..self.departure }))
    }
}
