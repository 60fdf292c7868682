//! Packets that the switch makes itself, whole or in fragments: IP headers without options. In IPv4 they may be cut further on their way: the
//! true sender may be elsewhere, and an ICMP error would not reach it.

use std::net::IpAddr;
use std::ops::Range;

use etherparse::{IpFragOffset, Ipv4Header, Ipv6FragmentHeader, Ipv6Header};
use packet::{ETHERNET_HEADER, Ethernet, IpPacket, ethertype};

/// Hop limit of what is said here.
const HOPS: u8 = 64;

/// An IP packet or a fragment of one.
#[derive(Clone, Copy)]
pub struct Piece {
    /// The sender's address.
    pub from: IpAddr,
    /// The receiver's address, of the same IP version.
    pub to: IpAddr,
    /// IP protocol of the payload.
    pub kind: u8,
    /// In eight bytes; `None`: not a fragment.
    pub offset: Option<u16>,
    /// Whether more fragments follow.
    pub more: bool,
    /// What the fragments of a packet share; in IPv4 its lower 16 bits.
    pub identification: u32,
}

impl Piece {
    /// The IP header with its extension, and its length.
    pub fn header(self, payload: usize) -> ([u8; 48], usize) {
        let mut bytes = [0; 48];
        let length = u16::try_from(payload).unwrap_or(u16::MAX);
        let offset = IpFragOffset::try_new(self.offset.unwrap_or(0)).unwrap_or_default();
        match (self.from, self.to) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let header = Ipv4Header {
                    total_len: length.saturating_add(20),
                    identification: u16::try_from(self.identification & 0xffff).unwrap_or(0),
                    more_fragments: self.more,
                    fragment_offset: offset,
                    time_to_live: HOPS,
                    protocol: self.kind.into(),
                    source: from.octets(),
                    destination: to.octets(),
                    ..Ipv4Header::default()
                };
                let mut header = header;
                header.header_checksum = header.calc_header_checksum();
                bytes[..20].copy_from_slice(&header.to_bytes());
                (bytes, 20)
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let fragment = self.offset.is_some();
                let header = Ipv6Header {
                    payload_length: length.saturating_add(if fragment { 8 } else { 0 }),
                    next_header: if fragment { etherparse::IpNumber::IPV6_FRAGMENTATION_HEADER } else { self.kind.into() },
                    hop_limit: HOPS,
                    source: from.octets(),
                    destination: to.octets(),
                    ..Ipv6Header::default()
                };
                bytes[..40].copy_from_slice(&header.to_bytes());
                if fragment {
                    let part = Ipv6FragmentHeader::new(self.kind.into(), offset, self.more, self.identification);
                    bytes[40..].copy_from_slice(&part.to_bytes());
                }
                (bytes, if fragment { 48 } else { 40 })
            }
            // Every caller has both addresses from one packet or socket.
            _ => (bytes, 0),
        }
    }
}

/// What a packet with `total` bytes of payload is sent as where none may be longer than `mtu`: itself, or fragments; each with its
/// part of the payload.
pub fn pieces(whole: Piece, total: usize, mtu: usize) -> impl Iterator<Item = (Piece, Range<usize>)> {
    let room = mtu.saturating_sub(header_length(whole.from));
    let extension = if whole.from.is_ipv6() { 8 } else { 0 };
    let fits = total <= room;
    let step = if fits { total.max(1) } else { (room.saturating_sub(extension) / 8 * 8).max(8) };
    (0..total.max(1)).step_by(step).map(move |start| {
        let end = total.min(start + step);
        let offset = if fits { None } else { u16::try_from(start / 8).ok() };
        (Piece { offset, more: end < total, ..whole }, start..end)
    })
}

/// Cuts the frame of a packet without options, extensions or a tag into fragments of at most `mtu` bytes. Empty if it is none.
pub fn cut(frame: &[u8], mtu: usize, identification: u32) -> Vec<Vec<u8>> {
    let packet = Ethernet::parse(frame).ok().and_then(|ethernet| IpPacket::parse(frame, &ethernet));
    let (Some(packet), Some(ethernet)) = (packet, frame.get(..ETHERNET_HEADER)) else { return Vec::new() };
    let (from, to, kind) = (packet.source, packet.destination, packet.protocol);
    let payload = frame.get(packet.transport..packet.end).unwrap_or_default();
    let whole = Piece { from, to, kind, offset: None, more: false, identification };
    let frames = pieces(whole, payload.len(), mtu).map(|(piece, part)| {
        let (header, length) = piece.header(part.len());
        [ethernet, header.get(..length).unwrap_or_default(), payload.get(part).unwrap_or_default()].concat()
    });
    frames.collect()
}

/// A frame with an IP packet, as if it had been sent whole; its Ethernet addresses are zero.
pub fn whole(from: IpAddr, to: IpAddr, kind: u8, payload: &[u8]) -> Vec<u8> {
    let piece = Piece { from, to, kind, offset: None, more: false, identification: 0 };
    let (header, length) = piece.header(payload.len());
    let ethertype = if from.is_ipv6() { ethertype::IPV6 } else { ethertype::IPV4 };
    [&[0; 12], &ethertype.to_be_bytes()[..], header.get(..length).unwrap_or_default(), payload].concat()
}

const fn header_length(address: IpAddr) -> usize {
    if address.is_ipv4() { 20 } else { 40 }
}
