//! Many small frames into one super-frame: the inverse of segmentation, for frames that stand next to each other in a queue or were
//! received together.
//!
//! The rules are those of the kernel's GRO (`tcp_gro_receive`, `udp_gro_receive_segment`): same headers but for lengths,
//! checksums and identifications; segments of one size, of which only the last may be shorter; TCP in sequence, and a FIN or
//! PSH ends the run. Cutting the result gives the frames back. A frame is merged only if its checksum is still to be computed
//! or was verified: merging one that nobody looked at would give damaged bytes a good checksum.
//!
//! Nothing waits: a run ends with its queue. Nothing is copied but the headers of the first frame.

use std::num::NonZeroU16;

use crate::layers::{IpVersion, Layers, Transport, number};
use crate::rewrite::Headers;
use crate::{Capabilities, Checksum, Gso, GsoKind, Offload, TagEdit};

const FIN_PSH: u8 = 0x09;
/// SYN, RST, URG and CWR stand alone.
const ALONE: u8 = 0x02 | 0x04 | 0x20 | 0x80;
/// Most frames in a run; `UDP_MAX_SEGMENTS` of older kernels (linux/udp.h).
pub(crate) const MOST: usize = 64;
/// Longest IP packet.
const LONGEST: usize = 65_535;

/// A frame that can be part of a run.
struct Candidate<'a> {
    bytes: &'a [u8],
    layers: Layers,
}

/// Length of the run of mergeable frames at the head of these, each with its metadata; 1 where there is nothing to merge.
pub(crate) fn run_length<'a>(frames: impl IntoIterator<Item = (&'a [u8], Offload)>, capabilities: Capabilities) -> usize {
    let mut candidates = frames.into_iter().take(MOST).map(|(bytes, offload)| candidate(bytes, offload, capabilities));
    let Some(head) = candidates.next().flatten().filter(|head| !ends_run(head)) else { return 1 };
    let size = head.payload();
    let mut total = head.layers.end - head.layers.network;
    let mut count = 1;
    for next in candidates.map_while(|next| next) {
        total += next.payload();
        if next.payload() > size || total > LONGEST || !follows(&head, &next, count) {
            break;
        }
        count += 1;
        if next.payload() < size || ends_run(&next) {
            break;
        }
    }
    count
}

/// A run as one super-frame, without its payload.
pub(crate) struct Merged {
    pub(crate) headers: Headers,
    pub(crate) offload: Offload,
    /// Where the payload of each frame begins, in the frame as it came.
    pub(crate) payload: usize,
}

/// Merges the headers of a run, of which all frames have `bytes` together; `None` if it must be sent frame by frame.
pub(crate) fn merge(first: &[u8], last: &[u8], count: usize, bytes: usize, edit: TagEdit) -> Option<Merged> {
    let layers = Layers::parse(first)?;
    let mut headers = Headers::copy(first, &layers, edit)?;
    let size = NonZeroU16::new(u16::try_from(layers.end - layers.payload).ok()?)?;
    let payload = bytes.checked_sub(count * layers.payload)?;
    if layers.transport_kind == Transport::Tcp {
        let last_flags = last.get(layers.transport + 13)?;
        headers.set_tcp_flags(headers.tcp_flags() | last_flags & FIN_PSH);
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
    Some(Merged { headers, offload, payload: layers.payload })
}

fn candidate(bytes: &[u8], offload: Offload, capabilities: Capabilities) -> Option<Candidate<'_>> {
    if offload.gso.is_some() || offload.checksum == Checksum::Unverified || !capabilities.checksum {
        return None;
    }
    let layers = Layers::parse(bytes)?;
    let taken = match (layers.transport_kind, layers.version) {
        (Transport::Tcp, IpVersion::V4) => capabilities.tcp4,
        (Transport::Tcp, IpVersion::V6) => capabilities.tcp6,
        (Transport::Udp, _) => capabilities.udp,
    };
    let candidate = Candidate { bytes, layers };
    // Padding would be taken for payload; a UDP datagram without checksum would get one.
    let whole = layers.plain && layers.end == bytes.len() && candidate.payload() > 0;
    let alone = match layers.transport_kind {
        Transport::Tcp => candidate.flags() & ALONE != 0,
        Transport::Udp => {
            let consistent = number(bytes, layers.transport + 4).map(usize::from) == Some(layers.end - layers.transport);
            !consistent || number(bytes, layers.transport + 6) == Some(0)
        }
    };
    (taken && whole && !alone).then_some(candidate)
}

/// Whether nothing may come behind this frame.
fn ends_run(candidate: &Candidate<'_>) -> bool {
    candidate.layers.transport_kind == Transport::Tcp && candidate.flags() & FIN_PSH != 0
}

/// Whether `next` is what follows `count` segments of the size of `head`.
fn follows(head: &Candidate<'_>, next: &Candidate<'_>, count: usize) -> bool {
    head.layers.transport_kind == next.layers.transport_kind
        && head.layers.payload == next.layers.payload
        && head.front() == next.front()
        && same_network(head, next, count)
        && match head.layers.transport_kind {
            Transport::Udp => head.at_transport(0, 4) == next.at_transport(0, 4),
            Transport::Tcp => same_tcp(head, next, count),
        }
}

fn same_network(head: &Candidate<'_>, next: &Candidate<'_>, count: usize) -> bool {
    let same = |from, to| head.at_network(from, to) == next.at_network(from, to);
    match head.layers.version {
        IpVersion::V6 => same(0, 4) && same(6, 40),
        // Identification matters only where the packet may be fragmented (RFC 6864, section 4).
        IpVersion::V4 => same(0, 2) && same(6, 10) && same(12, 20) && (head.dont_fragment() || counts_up(head, next, count)),
    }
}

fn counts_up(head: &Candidate<'_>, next: &Candidate<'_>, count: usize) -> bool {
    let id = |candidate: &Candidate<'_>| number(candidate.bytes, candidate.layers.network + 4).unwrap_or_default();
    u16::try_from(count).is_ok_and(|count| id(next) == id(head).wrapping_add(count))
}

fn same_tcp(head: &Candidate<'_>, next: &Candidate<'_>, count: usize) -> bool {
    let sequence = |candidate: &Candidate<'_>| {
        candidate.at_transport(4, 8).and_then(|bytes| bytes.first_chunk()).map(|bytes| u32::from_be_bytes(*bytes))
    };
    let gone = u32::try_from(count * head.payload()).unwrap_or(u32::MAX);
    let in_order = sequence(head).map(|first| first.wrapping_add(gone)) == sequence(next);
    let same = |from, to| head.at_transport(from, to) == next.at_transport(from, to);
    let header = head.layers.payload - head.layers.transport;
    in_order && same(0, 4) && same(8, 13) && head.flags() == next.flags() & !FIN_PSH && same(14, 16) && same(18, header)
}

impl<'a> Candidate<'a> {
    fn payload(&self) -> usize {
        self.layers.end - self.layers.payload
    }

    fn flags(&self) -> u8 {
        self.bytes.get(self.layers.transport + 13).copied().unwrap_or_default()
    }

    fn dont_fragment(&self) -> bool {
        number(self.bytes, self.layers.network + 6).is_some_and(|field| field & 0x4000 != 0)
    }

    /// Everything before the IP header.
    fn front(&self) -> Option<&'a [u8]> {
        self.bytes.get(..self.layers.network)
    }

    fn at_network(&self, from: usize, to: usize) -> Option<&'a [u8]> {
        self.bytes.get(self.layers.network + from..self.layers.network + to)
    }

    fn at_transport(&self, from: usize, to: usize) -> Option<&'a [u8]> {
        self.bytes.get(self.layers.transport + from..self.layers.transport + to)
    }
}
