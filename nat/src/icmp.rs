//! ICMP and ICMPv6: which messages are queries and which are errors, and the packet inside an error (RFC 5508, section 4).

use packet::checksum::Sum;
use packet::{IpPacket, IpVersion, protocol};

use crate::read::Flow;

/// An error about a packet of some flow.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Error {
    /// The flow, in the direction of the packet that met the error.
    pub(crate) flow: Flow,
    /// Where that packet's IP header is in the frame.
    pub(crate) network: usize,
    /// Where its transport is.
    pub(crate) transport: usize,
}

/// Bytes of an ICMP header, before the packet that an error is about.
const HEADER: usize = 8;

impl Error {
    /// Reads an error. `None` if its checksum is wrong (RFC 5508, REQ-3), or that of the IP header inside it (REQ-3a), or if
    /// what it is about is no flow. IP options and extension headers in it are passed over (REQ-3b), its transport's checksum
    /// is not looked at (REQ-3c).
    pub(crate) fn read(packet: &IpPacket, bytes: &[u8]) -> Option<Self> {
        if !is_intact(packet, bytes) {
            return None;
        }
        let network = packet.transport + HEADER;
        let inner = IpPacket::parse_embedded(bytes, network)?;
        if inner.version != packet.version || !inner.has_transport() {
            return None;
        }
        if inner.version == IpVersion::V4 && Sum::new().plus(bytes.get(network..inner.transport)?).folded() != 0xffff {
            return None;
        }
        Some(Self { flow: Flow::of(&inner, bytes)?, network, transport: inner.transport })
    }
}

/// Whether a packet is an error that is passed on: destination unreachable, packet too big, time exceeded, parameter problem. A
/// redirect or a source quench is not (RFC 5508, REQ-10; RFC 6633).
pub(crate) fn is_error(packet: &IpPacket, bytes: &[u8]) -> bool {
    match (packet.protocol, packet.version, bytes.get(packet.transport)) {
        (protocol::ICMP, IpVersion::V4, Some(kind)) => matches!(kind, 3 | 11 | 12),
        (protocol::ICMP6, IpVersion::V6, Some(kind)) => matches!(kind, 1..=4),
        _ => false,
    }
}

/// Whether a message replies to a query or is one; `None` if it is neither. Echo, and in IPv4 timestamps.
pub(crate) const fn is_reply(version: IpVersion, kind: u8) -> Option<bool> {
    match (version, kind) {
        (IpVersion::V4, 8 | 13) | (IpVersion::V6, 128) => Some(false),
        (IpVersion::V4, 0 | 14) | (IpVersion::V6, 129) => Some(true),
        _ => None,
    }
}

/// Whether an ICMP message has the checksum that it should; ICMPv6 sums a pseudo header as well (RFC 4443, section 2.3).
fn is_intact(packet: &IpPacket, bytes: &[u8]) -> bool {
    let Some(message) = bytes.get(packet.transport..packet.end) else { return false };
    let mut sum = Sum::new().plus(message);
    if packet.version == IpVersion::V6 {
        let addresses = bytes.get(packet.network + 8..packet.network + 40).unwrap_or_default();
        let length = u16::try_from(message.len()).unwrap_or_default();
        sum = Sum::new().plus(addresses).plus_number(length).plus_number(protocol::ICMP6.into()).plus(message);
    }
    sum.folded() == 0xffff
}
