//! Headers copied aside and changed: for segments, merged frames and completed checksums. The frame itself never changes.

use crate::checksum::{Sum, non_zero};
use crate::encapsulated::{Carrier, Encapsulated, Outer};
use crate::layers::{IpVersion, Layers, Transport, number};
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
    /// What is around the packet, if it is a tunnel's.
    outer: Option<Outer>,
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
        Some(Self { bytes, length, layers, outer: None })
    }

    /// As [`Headers::copy`], for a packet inside another one.
    pub(crate) fn copy_encapsulated(frame: &[u8], headers: &Encapsulated, edit: TagEdit) -> Option<Self> {
        let copy = Self::copy(frame, &headers.layers, edit)?;
        let shift = |at: usize| at + copy.length - headers.layers.payload;
        let Outer { network, transport, .. } = headers.outer;
        let outer = Outer { network: shift(network), transport: shift(transport), ..headers.outer };
        Some(Self { outer: Some(outer), ..copy })
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }

    /// Says in every length field that `payload` bytes follow, and gives an IPv4 header its checksum again.
    pub(crate) fn set_payload_length(&mut self, payload: usize) {
        let Layers { network, version, transport, transport_kind, .. } = self.layers;
        self.set_packet_length(network, version, transport, payload);
        if transport_kind == Transport::Udp {
            self.put(transport + 4, clamp(self.length - transport + payload));
        }
        if let Some(Outer { network, version, transport, carrier }) = self.outer {
            self.set_packet_length(network, version, transport, payload);
            if let Carrier::Udp { .. } = carrier {
                self.put(transport + 4, clamp(self.length - transport + payload));
            }
        }
    }

    fn set_packet_length(&mut self, network: usize, version: IpVersion, transport: usize, payload: usize) {
        match version {
            IpVersion::V4 => {
                self.put(network + 2, clamp(self.length - network + payload));
                self.put(network + 10, 0);
                let sum = Sum::new().plus(self.bytes.get(network..transport).unwrap_or_default());
                self.put(network + 10, sum.checksum());
            }
            IpVersion::V6 => self.put(network + 4, clamp(self.length - network - 40 + payload)),
        }
    }

    /// Leaves the transport checksum to the receiver: its field gets the sum of the pseudo header.
    pub(crate) fn set_partial_checksum(&mut self, payload: usize) {
        self.put(self.checksum_field(), self.pseudo(payload).folded());
    }

    /// The sum of the pseudo header (RFC 9293, section 3.1; RFC 8200, section 8.1).
    fn pseudo(&self, payload: usize) -> Sum {
        let Layers { network, version, transport, transport_kind, .. } = self.layers;
        self.pseudo_of(network, version, transport_kind, self.length - transport + payload)
    }

    fn pseudo_of(&self, network: usize, version: IpVersion, kind: Transport, length: usize) -> Sum {
        let (from, addresses) = match version {
            IpVersion::V4 => (network + 12, 8),
            IpVersion::V6 => (network + 8, 32),
        };
        let sum = Sum::new().plus(self.bytes.get(from..from + addresses).unwrap_or_default());
        sum.plus_number(kind.protocol().into()).plus_number(clamp(length))
    }

    /// Computes the transport checksum over the headers and `payload`, and that of a packet around it.
    pub(crate) fn set_whole_checksum(&mut self, payload: &[u8]) {
        self.set_partial_checksum(payload.len());
        let header = self.bytes.get(self.layers.transport..self.length).unwrap_or_default();
        let sum = Sum::new().plus(header).plus(payload);
        self.put(self.checksum_field(), non_zero(sum.checksum(), self.layers.transport_kind.checksum_offset()));
        if let Some(outer) = self.outer {
            self.set_outer_checksum(outer, payload.len());
        }
    }

    /// Computes the checksum of a tunnel's carrier, if it has one. The payload is not looked at again: with its own checksum, the inner
    /// transport sums up to its pseudo header inverted (Documentation/networking/checksum-offloads.rst, "LCO").
    fn set_outer_checksum(&mut self, outer: Outer, payload: usize) {
        let Outer { network, version, transport, carrier } = outer;
        let (offset, pseudo) = match carrier {
            Carrier::Udp { summed: true } => {
                (6, self.pseudo_of(network, version, Transport::Udp, self.length - transport + payload))
            }
            Carrier::Gre { summed: true } => (4, Sum::new()),
            Carrier::Udp { .. } | Carrier::Gre { .. } | Carrier::Ip => return,
        };
        self.put(transport + offset, 0);
        let before = pseudo.plus(self.bytes.get(transport..self.layers.transport).unwrap_or_default());
        let sum = before.plus_number(!self.pseudo(payload).folded()).checksum();
        self.put(transport + offset, non_zero(sum, offset));
    }

    /// Counts the identifications up, of IPv4.
    pub(crate) fn count_up(&mut self) {
        let outer = self.outer.map(|outer| (outer.version, outer.network));
        for (version, network) in std::iter::once((self.layers.version, self.layers.network)).chain(outer) {
            if let (IpVersion::V4, Some(id)) = (version, number(&self.bytes, network + 4)) {
                self.put(network + 4, id.wrapping_add(1));
            }
        }
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
