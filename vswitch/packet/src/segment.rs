//! One super-frame into the segments that the kernel would have made of it.
//!
//! The rules are those of `tcp_gso_segment` (net/ipv4/tcp_offload.c), `__udp_gso_segment` (udp_offload.c) and `inet_gso_segment`
//! (af_inet.c): lengths and checksums anew; IPv4 identifications count up; TCP sequence numbers advance; FIN and PSH belong to
//! the last segment, CWR to the first. Inside a tunnel, those of `__skb_udp_tunnel_segment` and `gre_gso_segment` (gre_offload.c) besides: the
//! outer header is that of each segment too.

use crate::encapsulated::Encapsulated;
use crate::layers::{IpVersion, Layers, Transport};
use crate::rewrite::Headers;
use crate::{Checksum, GsoKind, Offload, TagEdit};

const FIN: u8 = 0x01;
const PSH: u8 = 0x08;
const CWR: u8 = 0x80;

/// A super-frame that cannot be cut: its headers are not what its metadata says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unsegmentable;

/// What takes a segment: its headers, its payload, its metadata.
pub(crate) type Emit<'a> = &'a mut dyn FnMut(&[u8], &[u8], Offload);

/// Cuts `frame` and hands each segment on. With `partial`, checksums are left to the receiver, but for those in a tunnel, which few
/// receivers would find.
pub(crate) fn segment(
    frame: &[u8],
    offload: Offload,
    edit: TagEdit,
    partial: bool,
    emit: Emit<'_>,
) -> Result<(), Unsegmentable> {
    let gso = offload.gso.ok_or(Unsegmentable)?;
    let tunnelled = is_tunnelled(frame, offload);
    let partial = partial && !tunnelled;
    let (layers, mut headers) =
        if tunnelled { inner(frame, offload, edit) } else { own(frame, gso.kind, edit) }.ok_or(Unsegmentable)?;
    let payload = frame.get(layers.payload..layers.end).ok_or(Unsegmentable)?;
    let (sequence, flags) = (headers.tcp_sequence(), headers.tcp_flags());
    let size = usize::from(gso.size.get());
    let count = payload.len().div_ceil(size).max(1);
    for number in 0..count {
        let from = number * size;
        let piece = payload.get(from..payload.len().min(from + size)).unwrap_or_default();
        if number > 0 {
            headers.count_up();
        }
        if layers.transport_kind == Transport::Tcp {
            headers.set_tcp_sequence(sequence.wrapping_add(u32::try_from(from).unwrap_or(0)));
            let not_last = if number + 1 < count { FIN | PSH } else { 0 };
            let not_first = if number > 0 { CWR } else { 0 };
            headers.set_tcp_flags(flags & !not_last & !not_first);
        }
        headers.set_payload_length(piece.len());
        if partial {
            headers.set_partial_checksum(piece.len());
        } else {
            headers.set_whole_checksum(piece);
        }
        emit(headers.bytes(), piece, Offload { checksum: left(&headers, partial), gso: None });
    }
    Ok(())
}

/// Whether a super-frame is that of a packet inside another one.
pub(crate) fn is_tunnelled(frame: &[u8], offload: Offload) -> bool {
    offload.gso.is_some()
        && matches!(offload.checksum, Checksum::Partial { start, .. } if Layers::is_inner_transport(frame, start))
}

fn own(frame: &[u8], kind: GsoKind, edit: TagEdit) -> Option<(Layers, Headers)> {
    let layers = Layers::parse(frame).filter(|layers| fits(layers, kind))?;
    Some((layers, Headers::copy(frame, &layers, edit)?))
}

fn inner(frame: &[u8], offload: Offload, edit: TagEdit) -> Option<(Layers, Headers)> {
    let headers = Encapsulated::parse(frame, offload)?;
    Some((headers.layers, Headers::copy_encapsulated(frame, &headers, edit)?))
}

/// The metadata of a checksum that was left or computed.
pub(crate) fn left(headers: &Headers, partial: bool) -> Checksum {
    let offset = u16::try_from(headers.layers.transport_kind.checksum_offset());
    match (partial, u16::try_from(headers.layers.transport), offset) {
        (true, Ok(start), Ok(offset)) => Checksum::Partial { start, offset },
        _ => Checksum::Valid,
    }
}

pub(crate) fn fits(layers: &Layers, kind: GsoKind) -> bool {
    matches!(
        (kind, layers.transport_kind, layers.version),
        (GsoKind::Tcp4, Transport::Tcp, IpVersion::V4)
            | (GsoKind::Tcp6, Transport::Tcp, IpVersion::V6)
            | (GsoKind::Udp, Transport::Udp, _)
    )
}
