//! Many small frames into one super-frame: the inverse of segmentation, for frames that stand next to each other in a queue or were
//! received together.
//!
//! The rules are those of the kernel's GRO (`inet_gro_receive`, `tcp_gro_receive`, `udp_gro_receive_segment`): same headers but
//! for lengths, checksums and identifications; segments of one size, of which only the last may be shorter; TCP in sequence,
//! and a FIN or PSH ends the run. Cutting the result gives the frames back, but for identifications that no receiver looks at. A
//! frame is merged only if the checksum of its IPv4 header is right, and that of its payload is still to be computed or was
//! verified: merging one that was not verified would give damaged bytes a good checksum. It must be the checksum of the frame's own
//! transport: one inside a tunnel would never be computed.
//!
//! Nothing waits: a run ends with its queue, or with the batch into which frames are received.

use std::num::NonZeroU16;

use crate::checksum::Sum;
use crate::layers::{IpVersion, Layers, Transport, number};
use crate::rewrite::Headers;
use crate::{Capabilities, Checksum, Gso, GsoKind, MAX_FRAME, Offload, TagEdit};

const FIN_PSH: u8 = 0x09;
/// SYN, RST, URG and CWR stand alone.
const ALONE: u8 = 0x02 | 0x04 | 0x20 | 0x80;
/// Most frames in a run; `UDP_MAX_SEGMENTS` of older kernels (linux/udp.h).
pub(crate) const MOST: usize = 64;
/// Longest IP packet.
const LONGEST: usize = 65_535;

/// Length of the run of mergeable frames at the head of these, each with its metadata; 1 where there is nothing to merge.
pub(crate) fn run_length<'a>(frames: impl IntoIterator<Item = (&'a [u8], Offload)>, capabilities: Capabilities) -> usize {
    let mut frames = frames.into_iter();
    let first = frames.next().filter(|(_, offload)| offload.gso.is_none());
    first.and_then(|first| Run::begin(first, capabilities)).map_or(1, |run| 1 + run.extend(frames))
}

/// How many of `frames` continue `first`, which is a frame or a super-frame that was merged.
pub(crate) fn continuation<'a>(first: (&[u8], Offload), frames: impl Iterator<Item = (&'a [u8], Offload)>) -> usize {
    Run::begin(first, Capabilities::ALL).map_or(0, |run| run.extend(frames))
}

/// Segments that can be one super-frame, and may be followed by others.
struct Run<'a> {
    first: &'a [u8],
    layers: Layers,
    /// Payload of each segment.
    size: usize,
    count: usize,
    /// Length of the IP packet.
    total: usize,
}

impl<'a> Run<'a> {
    /// A run of a frame, or of the segments of a super-frame; `None` if nothing may follow.
    fn begin((first, offload): (&'a [u8], Offload), capabilities: Capabilities) -> Option<Self> {
        if offload.checksum == Checksum::Unverified || !capabilities.checksum {
            return None;
        }
        let layers = Layers::parse(first).filter(|layers| is_known(offload.checksum, layers))?;
        let taken = match (layers.transport_kind, layers.version) {
            (Transport::Tcp, IpVersion::V4) => capabilities.tcp4,
            (Transport::Tcp, IpVersion::V6) => capabilities.tcp6,
            (Transport::Udp, _) => capabilities.udp,
        };
        let alone = match layers.transport_kind {
            Transport::Tcp => flags(first, &layers) & (ALONE | FIN_PSH) != 0,
            Transport::Udp => !has_udp_length_and_checksum(first, layers.transport),
        };
        let payload = layers.end - layers.payload;
        let size = offload.gso.map_or(payload, |gso| gso.size.get().into());
        let whole = layers.plain && has_ip_length(first, &layers) && payload > 0 && payload.is_multiple_of(size);
        let right = has_ip_checksum(first, &layers);
        let (count, total) = (payload.checked_div(size)?, layers.end - layers.network);
        (taken && whole && right && !alone).then_some(Self { first, layers, size, count, total })
    }

    /// How many of `frames` belong to it.
    fn extend<'b>(mut self, frames: impl Iterator<Item = (&'b [u8], Offload)>) -> usize {
        let before = self.count;
        let layers = self.layers;
        let known = frames.take_while(|(_, offload)| offload.gso.is_none() && is_known(offload.checksum, &layers));
        for (next, _) in known {
            let payload = next.len().saturating_sub(self.layers.payload);
            self.total += payload;
            // With more than two tags, the frame would be too long before the packet is.
            let long = self.total > LONGEST || self.layers.network + self.total > MAX_FRAME;
            let fits = (1..=self.size).contains(&payload) && self.count < MOST && !long;
            if !fits || !self.is_followed_by(next) {
                break;
            }
            self.count += 1;
            if payload < self.size || self.is_ended_by(next) {
                break;
            }
        }
        self.count - before
    }

    /// Whether a frame has the headers of the first but for what tells segments apart. Then they lie where those of the first do.
    fn is_followed_by(&self, next: &[u8]) -> bool {
        let Layers { network, transport, payload, transport_kind, version, .. } = self.layers;
        let same = |from: usize, to: usize| self.first.get(from..to) == next.get(from..to);
        let same_network = || match version {
            IpVersion::V6 => same(network, network + 4) && same(network + 6, network + 40),
            IpVersion::V4 => {
                same(network, network + 2)
                    && same(network + 6, network + 10)
                    && same(network + 12, network + 20)
                    // Identification matters only where the packet may be fragmented (RFC 6864, section 4).
                    && (self.dont_fragment() || self.counts_up(next))
                    && has_ip_checksum(next, &self.layers)
            }
        };
        let same_transport = || match transport_kind {
            Transport::Udp => same(transport, transport + 4) && has_udp_length_and_checksum(next, transport),
            Transport::Tcp => {
                same(transport, transport + 4)
                    && self.is_in_sequence(next)
                    && same(transport + 8, transport + 13)
                    && flags(self.first, &self.layers) == flags(next, &self.layers) & !FIN_PSH
                    && same(transport + 14, transport + 16)
                    && same(transport + 18, payload)
            }
        };
        same(0, network) && same_network() && has_ip_length(next, &self.layers) && same_transport()
    }

    fn dont_fragment(&self) -> bool {
        number(self.first, self.layers.network + 6).is_some_and(|field| field & 0x4000 != 0)
    }

    fn counts_up(&self, next: &[u8]) -> bool {
        let id = |bytes| number(bytes, self.layers.network + 4).unwrap_or_default();
        u16::try_from(self.count).is_ok_and(|count| id(next) == id(self.first).wrapping_add(count))
    }

    fn is_in_sequence(&self, next: &[u8]) -> bool {
        let at = self.layers.transport + 4;
        let sequence = |bytes: &[u8]| bytes.get(at..)?.first_chunk().map(|bytes| u32::from_be_bytes(*bytes));
        let gone = u32::try_from(self.count * self.size).unwrap_or(u32::MAX);
        sequence(self.first).map(|first| first.wrapping_add(gone)) == sequence(next)
    }

    /// Whether nothing may come behind this segment.
    fn is_ended_by(&self, next: &[u8]) -> bool {
        self.layers.transport_kind == Transport::Tcp && flags(next, &self.layers) & FIN_PSH != 0
    }
}

/// Whether the checksum of the transport itself, not that of a packet inside it, was verified or is still to be computed.
fn is_known(checksum: Checksum, layers: &Layers) -> bool {
    match checksum {
        Checksum::Unverified => false,
        Checksum::Valid => true,
        Checksum::Partial { start, .. } => usize::from(start) == layers.transport,
    }
}

/// The flags of a TCP segment.
fn flags(frame: &[u8], layers: &Layers) -> u8 {
    frame.get(layers.transport + 13).copied().unwrap_or_default()
}

/// Whether the IP header speaks of what is there. Padding would be taken for payload, and a packet that lost its end would seem whole: a
/// merged header gets another length.
fn has_ip_length(frame: &[u8], layers: &Layers) -> bool {
    let (at, from) = match layers.version {
        IpVersion::V4 => (layers.network + 2, layers.network),
        IpVersion::V6 => (layers.network + 4, layers.transport),
    };
    number(frame, at).map(usize::from) == frame.len().checked_sub(from)
}

/// Whether the checksum of an IPv4 header without options is right: a merged header gets a new one.
fn has_ip_checksum(frame: &[u8], layers: &Layers) -> bool {
    let header = || frame.get(layers.network..layers.transport).unwrap_or_default();
    layers.version == IpVersion::V6 || Sum::new().plus(header()).folded() == 0xffff
}

/// Whether a UDP datagram fills its frame, and has a checksum: without, it would get one.
fn has_udp_length_and_checksum(frame: &[u8], transport: usize) -> bool {
    let length = number(frame, transport + 4).map(usize::from);
    length == frame.len().checked_sub(transport) && number(frame, transport + 6) != Some(0)
}

/// A run as one super-frame, without its payload.
pub(crate) struct Merged {
    pub(crate) headers: Headers,
    pub(crate) offload: Offload,
    /// Where the payload of each frame begins, in the frame as it came.
    pub(crate) payload: usize,
    /// Length of it all.
    pub(crate) length: usize,
}

/// Merges the headers of a run as [`run_length`] and [`continuation`] find them, of which the first can be a super-frame of
/// segments of this `size`; `None` if they must stay as they are.
pub(crate) fn merge<'a>(
    first: &[u8],
    size: Option<NonZeroU16>,
    rest: impl Iterator<Item = &'a [u8]> + Clone,
    edit: TagEdit,
) -> Option<Merged> {
    let layers = Layers::parse(first)?;
    let mut headers = Headers::copy(first, &layers, edit)?;
    let size = size.or_else(|| NonZeroU16::new(u16::try_from(layers.end - layers.payload).ok()?))?;
    let more: usize = rest.clone().map(|next| next.len().saturating_sub(layers.payload)).sum();
    let payload = layers.end - layers.payload + more;
    let last = rest.last()?;
    if layers.transport_kind == Transport::Tcp {
        headers.set_tcp_flags(headers.tcp_flags() | flags(last, &layers) & FIN_PSH);
    }
    headers.set_payload_length(payload);
    headers.set_partial_checksum(payload);
    let kind = match (layers.transport_kind, layers.version) {
        (Transport::Tcp, IpVersion::V4) => GsoKind::Tcp4,
        (Transport::Tcp, IpVersion::V6) => GsoKind::Tcp6,
        (Transport::Udp, _) => GsoKind::Udp,
    };
    let checksum = crate::segment::left(&headers, true);
    let offload = Offload { checksum, gso: Some(Gso { kind, size, ecn: false }) };
    let length = headers.bytes().len() + payload;
    Some(Merged { headers, offload, payload: layers.payload, length })
}
