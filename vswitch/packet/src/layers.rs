//! Where the headers of a TCP or UDP packet lie. Cutting, merging and checksums ask for every frame that they work on;
//! other frames and fragments have no layers here (`IpPacket` reads those).

use crate::{Ethernet, ethertype};

/// Where the headers of a TCP or UDP packet lie in its frame. Every offset is from the start of the frame and inside it, in this
/// order: `network < transport < payload <= end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layers {
    /// Where the IP header begins, behind every tag.
    pub network: usize,
    /// Which IP.
    pub version: IpVersion,
    /// Which transport.
    pub transport_kind: Transport,
    /// Where the TCP or UDP header begins.
    pub transport: usize,
    /// Where the transport's payload begins.
    pub payload: usize,
    /// Where the IP packet ends by its own account, or the frame, if that is earlier. Padding may follow.
    pub end: usize,
    /// Whether the IP header has neither options nor extension headers.
    pub plain: bool,
}

/// The version of an IP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IpVersion {
    /// IPv4 (RFC 791).
    V4,
    /// IPv6 (RFC 8200).
    V6,
}

/// The transports that the switch cuts and merges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP (RFC 9293).
    Tcp,
    /// UDP (RFC 768).
    Udp,
}

impl Transport {
    /// Where the checksum lies in the header.
    pub const fn checksum_offset(self) -> usize {
        match self {
            Self::Tcp => 16,
            Self::Udp => 6,
        }
    }

    /// The protocol's number (IANA, "Protocol Numbers").
    pub const fn protocol(self) -> u8 {
        match self {
            Self::Tcp => TCP,
            Self::Udp => UDP,
        }
    }
}

const TCP: u8 = 6;
const UDP: u8 = 17;
/// Most extension headers that are followed; real packets have one or two.
const MOST_EXTENSIONS: usize = 8;

impl Layers {
    /// Finds the headers of an unfragmented TCP or UDP packet behind any VLAN tags; `None` for every other frame, and for one
    /// that ends inside its headers.
    pub fn parse(frame: &[u8]) -> Option<Self> {
        let (version, network) = network(frame)?;
        Self::parse_packet(frame, version, network)
    }

    /// As [`Layers::parse`], for the packet whose IP header begins at `network`.
    pub(crate) fn parse_packet(frame: &[u8], version: IpVersion, network: usize) -> Option<Self> {
        match version {
            IpVersion::V4 => Self::parse_v4(frame, network),
            IpVersion::V6 => Self::parse_v6(frame, network),
        }
    }

    /// Whether the transport that begins at `start` is not that of the IP packet in the frame, but of one inside it.
    pub(crate) fn is_inner_transport(frame: &[u8], start: u16) -> bool {
        match (start, frame.get(12..15)) {
            // Nearly every frame: no tag, no options.
            (34, Some([0x08, 0x00, 0x45])) | (54, Some([0x86, 0xdd, _])) => false,
            _ => network(frame).is_some_and(|(version, network)| {
                Self::parse_packet(frame, version, network).is_none_or(|layers| layers.transport != usize::from(start))
            }),
        }
    }

    fn parse_v4(frame: &[u8], network: usize) -> Option<Self> {
        let first = *frame.get(network)?;
        let header = usize::from(first & 0x0f) * 4;
        // More fragments, or an offset (RFC 791, section 3.1).
        let fragment = number(frame, network + 6)? & 0x3fff != 0;
        if first >> 4 != 4 || header < 20 || fragment {
            return None;
        }
        let end = network + declared(number(frame, network + 2)?, frame.len() - network);
        let protocol = *frame.get(network + 9)?;
        Self::finish(frame, network, IpVersion::V4, protocol, network + header, end, header == 20)
    }

    fn parse_v6(frame: &[u8], network: usize) -> Option<Self> {
        if *frame.get(network)? >> 4 != 6 || frame.len() < network + 40 {
            return None;
        }
        let end = network + 40 + declared(number(frame, network + 4)?, frame.len() - network - 40);
        let (mut protocol, mut transport) = (*frame.get(network + 6)?, network + 40);
        for _ in 0..MOST_EXTENSIONS {
            // Hop-by-hop options, routing, destination options (RFC 8200, section 4). A fragment header ends the search.
            if !matches!(protocol, 0 | 43 | 60) {
                break;
            }
            protocol = *frame.get(transport)?;
            transport += (usize::from(*frame.get(transport + 1)?) + 1) * 8;
        }
        Self::finish(frame, network, IpVersion::V6, protocol, transport, end, transport == network + 40)
    }

    fn finish(
        frame: &[u8],
        network: usize,
        version: IpVersion,
        protocol: u8,
        transport: usize,
        end: usize,
        plain: bool,
    ) -> Option<Self> {
        let (transport_kind, header) = match protocol {
            TCP => (Transport::Tcp, usize::from(*frame.get(transport + 12)? >> 4) * 4),
            UDP => (Transport::Udp, 8),
            _ => return None,
        };
        let payload = transport + header;
        let whole = header >= if transport_kind == Transport::Tcp { 20 } else { 8 } && payload <= end && end <= frame.len();
        whole.then_some(Self { network, version, transport_kind, transport, payload, end, plain })
    }
}

/// Where the IP header begins, behind every tag.
pub(crate) fn network(frame: &[u8]) -> Option<(IpVersion, usize)> {
    let ethernet = Ethernet::parse(frame).ok()?;
    let (mut kind, mut network) = (ethernet.ethertype, ethernet.payload);
    while matches!(kind, ethertype::VLAN | ethertype::SERVICE_VLAN) {
        kind = number(frame, network + 2)?;
        network += 4;
    }
    match kind {
        ethertype::IPV4 => Some((IpVersion::V4, network)),
        ethertype::IPV6 => Some((IpVersion::V6, network)),
        _ => None,
    }
}

/// The length that an IP header gives; 0 stands for a super-frame that is too long to say.
fn declared(length: u16, rest: usize) -> usize {
    if length == 0 { rest } else { usize::from(length).min(rest) }
}

/// Two bytes as a number.
pub(crate) fn number(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|bytes| u16::from_be_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{PacketBuilder, TransportSlice};
    use proptest::prelude::*;

    fn udp4(payload: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        PacketBuilder::ethernet2([2; 6], [4; 6])
            .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
            .udp(1, 2)
            .write(&mut frame, payload)
            .unwrap();
        frame
    }

    #[test]
    fn padding_is_not_payload() {
        let mut frame = udp4(b"abc");
        frame.resize(60, 0);
        let layers = Layers::parse(&frame).unwrap();
        assert_eq!((layers.payload, layers.end), (42, 45));
    }

    #[test]
    fn tags_are_skipped() {
        let mut frame = udp4(b"abc");
        frame.splice(12..12, [0x88, 0xa8, 0, 1, 0x81, 0, 0, 2]);
        assert_eq!(Layers::parse(&frame).map(|layers| (layers.network, layers.transport)), Some((22, 42)));
    }

    #[test]
    fn fragments_and_cut_headers_have_no_layers() {
        let mut frame = udp4(b"abc");
        for length in 0..42 {
            assert_eq!(Layers::parse(&frame[..length]), None, "{length}");
        }
        frame[20] = 0x20;
        assert_eq!(Layers::parse(&frame), None);
    }

    #[test]
    fn extension_headers_are_followed() {
        let mut frame = Vec::new();
        PacketBuilder::ethernet2([2; 6], [4; 6]).ipv6([1; 16], [2; 16], 64).udp(1, 2).write(&mut frame, b"abc").unwrap();
        frame[20] = 60;
        frame.splice(54..54, [17, 0, 1, 4, 0, 0, 0, 0]);
        frame[18..20].copy_from_slice(&19_u16.to_be_bytes());
        let layers = Layers::parse(&frame).unwrap();
        assert_eq!((layers.transport, layers.payload, layers.end, layers.plain), (62, 70, 73, false));
    }

    proptest! {
        #[test]
        fn offsets_are_in_order_and_inside(mut bytes in prop::collection::vec(any::<u8>(), 0..120), kind in 0usize..4) {
            let hints: [&[u8]; 4] = [&[8, 0, 0x45], &[0x86, 0xdd, 0x60], &[0x81, 0], &[]];
            for (place, byte) in bytes.iter_mut().skip(12).zip(hints[kind]) {
                *place = *byte;
            }
            if let Some(layers) = Layers::parse(&bytes) {
                prop_assert!(layers.network < layers.transport && layers.transport < layers.payload);
                prop_assert!(layers.payload <= layers.end && layers.end <= bytes.len());
            }
        }

        #[test]
        fn it_agrees_with_etherparse(payload in prop::collection::vec(any::<u8>(), 0..50)) {
            let frame = udp4(&payload);
            let sliced = etherparse::SlicedPacket::from_ethernet(&frame).unwrap();
            let layers = Layers::parse(&frame).unwrap();
            prop_assert!(matches!(sliced.transport, Some(TransportSlice::Udp(udp)) if udp.payload() == &frame[layers.payload..layers.end]));
        }
    }
}
