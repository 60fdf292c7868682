//! Headers copied aside and changed: for segments, merged frames and completed checksums. The frame itself never changes.

use crate::checksum::{Sum, non_zero};
use crate::layers::{IpVersion, Layers, Transport};
use crate::{ETHERNET_HEADER, Tag, TagEdit, ethertype};

/// Longest headers that are rewritten: Ethernet with tags, IP with options or extensions, TCP with options.
const LONGEST: usize = 512;

/// The headers of a frame, copied, with the tag already as it leaves.
#[derive(Debug)]
pub(crate) struct Headers {
    bytes: [u8; LONGEST],
    length: usize,
    /// Where things are in the copy.
    pub(crate) layers: Layers,
}

impl Headers {
    /// Copies the headers of `frame`; `None` if they are longer than any that are rewritten.
    pub(crate) fn copy(frame: &[u8], layers: &Layers, edit: TagEdit) -> Option<Self> {
        let source = frame.get(..layers.payload)?;
        let mut bytes = [0; LONGEST];
        let mut length = 0;
        let (front, tag, rest) = tagged(source, edit);
        for part in [front, tag.as_ref().map_or(&[][..], |tag| tag), rest] {
            bytes.get_mut(length..length + part.len())?.copy_from_slice(part);
            length += part.len();
        }
        let shift = |at: usize| at + length - source.len();
        let layers = Layers {
            network: shift(layers.network),
            transport: shift(layers.transport),
            payload: shift(layers.payload),
            end: shift(layers.end),
            ..*layers
        };
        Some(Self { bytes, length, layers })
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }

    /// Says in every length field that `payload` bytes follow, and gives an IPv4 header its checksum again.
    pub(crate) fn set_payload_length(&mut self, payload: usize) {
        let layers = self.layers;
        let transport = clamp(self.length - layers.transport + payload);
        match layers.version {
            IpVersion::V4 => {
                self.put(layers.network + 2, clamp(self.length - layers.network + payload));
                self.put(layers.network + 10, 0);
                let sum = Sum::new().plus(self.bytes.get(layers.network..layers.transport).unwrap_or_default());
                self.put(layers.network + 10, sum.checksum());
            }
            IpVersion::V6 => self.put(layers.network + 4, clamp(self.length - layers.network - 40 + payload)),
        }
        if layers.transport_kind == Transport::Udp {
            self.put(layers.transport + 4, transport);
        }
    }

    /// Leaves the transport checksum to the receiver: its field gets the sum of the pseudo header (RFC 9293, section 3.1; RFC
    /// 8200, section 8.1).
    pub(crate) fn set_partial_checksum(&mut self, payload: usize) {
        let layers = self.layers;
        let (from, length) = match layers.version {
            IpVersion::V4 => (layers.network + 12, 8),
            IpVersion::V6 => (layers.network + 8, 32),
        };
        let pseudo = Sum::new()
            .plus(self.bytes.get(from..from + length).unwrap_or_default())
            .plus_number(layers.transport_kind.protocol().into())
            .plus_number(clamp(self.length - layers.transport + payload));
        self.put(self.checksum_field(), pseudo.folded());
    }

    /// Computes the transport checksum over the headers and `payload`.
    pub(crate) fn set_whole_checksum(&mut self, payload: &[u8]) {
        self.set_partial_checksum(payload.len());
        let header = self.bytes.get(self.layers.transport..self.length).unwrap_or_default();
        let sum = Sum::new().plus(header).plus(payload);
        self.put(self.checksum_field(), non_zero(sum.checksum(), self.layers.transport_kind.checksum_offset()));
    }

    pub(crate) fn ipv4_id(&self) -> u16 {
        crate::layers::number(&self.bytes, self.layers.network + 4).unwrap_or_default()
    }

    pub(crate) fn set_ipv4_id(&mut self, id: u16) {
        self.put(self.layers.network + 4, id);
    }

    pub(crate) fn tcp_sequence(&self) -> u32 {
        let at = self.layers.transport + 4;
        self.bytes.get(at..).and_then(|bytes| bytes.first_chunk()).map_or(0, |bytes| u32::from_be_bytes(*bytes))
    }

    pub(crate) fn set_tcp_sequence(&mut self, sequence: u32) {
        let at = self.layers.transport + 4;
        if let Some(place) = self.bytes.get_mut(at..at + 4) {
            place.copy_from_slice(&sequence.to_be_bytes());
        }
    }

    pub(crate) fn tcp_flags(&self) -> u8 {
        self.bytes.get(self.layers.transport + 13).copied().unwrap_or_default()
    }

    pub(crate) fn set_tcp_flags(&mut self, flags: u8) {
        if let Some(place) = self.bytes.get_mut(self.layers.transport + 13) {
            *place = flags;
        }
    }

    fn checksum_field(&self) -> usize {
        self.layers.transport + self.layers.transport_kind.checksum_offset()
    }

    fn put(&mut self, at: usize, number: u16) {
        if let Some(place) = self.bytes.get_mut(at..at + 2) {
            place.copy_from_slice(&number.to_be_bytes());
        }
    }
}

/// A frame in three pieces: its addresses, the tag that goes behind them, and the rest.
pub(crate) fn tagged(frame: &[u8], edit: TagEdit) -> (&[u8], Option<[u8; 4]>, &[u8]) {
    let (addresses, rest) = frame.split_at(frame.len().min(ETHERNET_HEADER - 2));
    let untagged = || rest.get(4..).unwrap_or_default();
    match edit {
        TagEdit::Keep => (frame, None, &[]),
        TagEdit::Push(tag) => (addresses, Some(on_wire(tag)), rest),
        TagEdit::Pop => (addresses, None, untagged()),
        TagEdit::Set(tag) => (addresses, Some(on_wire(tag)), untagged()),
    }
}

/// By how much an edit moves what is behind the tag.
pub(crate) const fn growth(edit: TagEdit) -> i32 {
    match edit {
        TagEdit::Keep | TagEdit::Set(_) => 0,
        TagEdit::Push(_) => 4,
        TagEdit::Pop => -4,
    }
}

fn on_wire(tag: Tag) -> [u8; 4] {
    let ([kind0, kind1], [tag0, tag1]) = (ethertype::VLAN.to_be_bytes(), tag.0.to_be_bytes());
    [kind0, kind1, tag0, tag1]
}

/// A length as a header holds it. Frames are bounded, so nothing real is cut.
fn clamp(length: usize) -> u16 {
    u16::try_from(length).unwrap_or(u16::MAX)
}
