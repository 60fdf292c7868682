//! IPv4 and IPv6 headers, for what routes, translates and answers: the router, NAT, the services and the host uplink.
//! It reads packets of every protocol, also fragments and those quoted in ICMP errors, and changes nothing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::layers::number;
use crate::{Ethernet, IpVersion, ethertype};

/// An IP packet in its frame: the addresses, and where things lie. Unlike [`Layers`](crate::Layers) it takes every protocol and
/// fragments too. Every offset is from the start of the frame and inside it: `network < transport <= end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IpPacket {
    /// The address that it comes from.
    pub source: IpAddr,
    /// Where it goes.
    pub destination: IpAddr,
    /// Which IP; both addresses are of it.
    pub version: IpVersion,
    /// Where the IP header begins.
    pub network: usize,
    /// The protocol behind the IP header and its extensions (IANA, "Protocol Numbers").
    pub protocol: u8,
    /// Where that protocol's header begins; in a fragment that is not the first, its data.
    pub transport: usize,
    /// Where the packet ends by its own account, or the frame, if that is earlier. Padding may follow.
    pub end: usize,
    /// TTL or hop limit.
    pub hop_limit: u8,
    /// Set if it is a part of a packet.
    pub fragment: Option<Fragment>,
    /// IPv4: the DF bit. IPv6: always, for routers do not fragment (RFC 8200, section 5).
    pub dont_fragment: bool,
}

/// Which part of its packet a fragment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// What the fragments of a packet have in common, besides addresses and, in IPv4, the protocol.
    pub identification: u32,
    /// Where it begins in the packet, in bytes.
    pub offset: u16,
    /// Whether others follow.
    pub more: bool,
    /// Where its part of the packet begins in the frame.
    pub data: usize,
    /// What it says that the packet's payload begins with; in IPv6 the first fragment is right about it (RFC 8200, section 4.5).
    pub protocol: u8,
}

/// What the fragments of a packet have in common (RFC 791, section 3.2; RFC 8200, section 4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FragmentKey {
    /// The address that the packet comes from.
    pub source: IpAddr,
    /// Where it goes.
    pub destination: IpAddr,
    /// The protocol, which counts in IPv4 alone.
    pub protocol: Option<u8>,
    /// Its number among those of its source.
    pub identification: u32,
}

/// Numbers of protocols that the switch looks at (IANA, "Protocol Numbers").
pub mod protocol {
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// ICMPv6.
    pub const ICMP6: u8 = 58;
}

/// Most extension headers that are followed; real packets have one or two.
const MOST_EXTENSIONS: usize = 8;

impl IpPacket {
    /// Reads the IP header in `frame` that `ethernet` says is there; `None` if it is not IP, ends inside its header, has a wrong
    /// IPv4 header checksum, or claims more than the frame holds.
    pub fn parse(frame: &[u8], ethernet: &Ethernet) -> Option<Self> {
        match ethernet.ethertype {
            ethertype::IPV4 => Self::parse_v4(frame, ethernet.payload),
            ethertype::IPV6 => Self::parse_v6(frame, ethernet.payload),
            _ => None,
        }
    }

    /// As [`IpPacket::parse`], for a packet that begins at `network`, such as the one inside an ICMP error. A packet that is cut
    /// off behind its first eight bytes of transport is still one (RFC 792; RFC 4443, section 3).
    pub fn parse_embedded(bytes: &[u8], network: usize) -> Option<Self> {
        match bytes.get(network)? >> 4 {
            4 => Self::v4(bytes, network, true),
            6 => Self::v6(bytes, network, true),
            _ => None,
        }
    }

    fn parse_v4(frame: &[u8], network: usize) -> Option<Self> {
        let packet = Self::v4(frame, network, false)?;
        let header = usize::from(frame.get(network)? & 0x0f) * 4;
        let sum = crate::checksum::Sum::new().plus(frame.get(network..network + header)?).folded();
        (sum == 0xffff).then_some(packet)
    }

    fn parse_v6(frame: &[u8], network: usize) -> Option<Self> {
        Self::v6(frame, network, false)
    }

    fn v4(frame: &[u8], network: usize, cut: bool) -> Option<Self> {
        let header: &[u8; 20] = frame.get(network..)?.first_chunk()?;
        let length = usize::from(header[0] & 0x0f) * 4;
        let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
        if header[0] >> 4 != 4 || length < 20 || network + length > frame.len() {
            return None;
        }
        let end = end(network, total, frame.len(), cut).filter(|end| *end >= network + length)?;
        let bits = u16::from_be_bytes([header[6], header[7]]);
        let (offset, more) = ((bits & 0x1fff) * 8, bits & 0x2000 != 0);
        let identification = u32::from(u16::from_be_bytes([header[4], header[5]]));
        let [.., s0, s1, s2, s3, d0, d1, d2, d3] = *header;
        Some(Self {
            source: Ipv4Addr::new(s0, s1, s2, s3).into(),
            destination: Ipv4Addr::new(d0, d1, d2, d3).into(),
            version: IpVersion::V4,
            network,
            protocol: header[9],
            transport: network + length,
            end,
            hop_limit: header[8],
            fragment: (more || offset > 0).then_some(Fragment {
                identification,
                offset,
                more,
                data: network + length,
                protocol: header[9],
            }),
            dont_fragment: bits & 0x4000 != 0,
        })
    }

    fn v6(frame: &[u8], network: usize, cut: bool) -> Option<Self> {
        let header: &[u8; 40] = frame.get(network..)?.first_chunk()?;
        if header[0] >> 4 != 6 {
            return None;
        }
        let total = usize::from(u16::from_be_bytes([header[4], header[5]]));
        let end = end(network, if total == 0 { 0 } else { total + 40 }, frame.len(), cut)?;
        let address = |at: usize| header.get(at..)?.first_chunk::<16>().map(|bytes| Ipv6Addr::from(*bytes));
        let mut packet = Self {
            source: address(8)?.into(),
            destination: address(24)?.into(),
            version: IpVersion::V6,
            network,
            protocol: header[6],
            transport: network + 40,
            end,
            hop_limit: header[7],
            fragment: None,
            dont_fragment: true,
        };
        packet.skip_extensions(frame)?;
        Some(packet)
    }

    /// Hop-by-hop options, routing, fragment, destination options (RFC 8200, section 4).
    fn skip_extensions(&mut self, frame: &[u8]) -> Option<()> {
        for _ in 0..MOST_EXTENSIONS {
            if !matches!(self.protocol, 0 | 43 | 44 | 60) || self.fragment.is_some_and(|fragment| fragment.offset > 0) {
                break;
            }
            let next = *frame.get(self.transport)?;
            let mut length = (usize::from(*frame.get(self.transport + 1)?) + 1) * 8;
            if self.protocol == 44 {
                length = 8;
                let bits = number(frame, self.transport + 2)?;
                let high = u32::from(number(frame, self.transport + 4)?);
                let identification = high << 16 | u32::from(number(frame, self.transport + 6)?);
                let (offset, more, data) = (bits & 0xfff8, bits & 1 != 0, self.transport + length);
                let fragment = Fragment { identification, offset, more, data, protocol: next };
                // An atomic fragment is a whole packet (RFC 6946).
                self.fragment = (fragment.more || fragment.offset > 0).then_some(fragment);
            }
            self.protocol = next;
            self.transport += length;
        }
        (self.transport <= self.end).then_some(())
    }

    /// Bytes of the packet, from its IP header to its end.
    pub const fn length(&self) -> usize {
        self.end - self.network
    }

    /// What it shares with the other fragments of its packet, if it is one.
    pub fn fragment_key(&self) -> Option<FragmentKey> {
        self.fragment.map(|fragment| self.key_of(fragment))
    }

    /// What a fragment of it shares with the others.
    pub fn key_of(&self, fragment: Fragment) -> FragmentKey {
        FragmentKey {
            source: self.source,
            destination: self.destination,
            protocol: (self.version == IpVersion::V4).then_some(self.protocol),
            identification: fragment.identification,
        }
    }

    /// Whether the transport's header, which has the ports, is in it.
    pub fn has_transport(&self) -> bool {
        self.fragment.is_none_or(|fragment| fragment.offset == 0)
    }
}

/// Where a packet ends. A length of 0 stands for a super-frame that is too long to say.
fn end(network: usize, total: usize, frame: usize, cut: bool) -> Option<usize> {
    match network + total {
        end if end <= frame && total > 0 => Some(end),
        _ if total == 0 || cut => Some(frame),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{IpFragOffset, PacketBuilder};
    use proptest::prelude::*;

    fn parse(frame: &[u8]) -> Option<IpPacket> {
        IpPacket::parse(frame, &Ethernet::parse(frame).ok()?)
    }

    fn udp4(payload: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64);
        builder.udp(1, 2).write(&mut frame, payload).unwrap();
        frame
    }

    fn udp6(payload: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv6([1; 16], [2; 16], 7);
        builder.udp(1, 2).write(&mut frame, payload).unwrap();
        frame
    }

    #[test]
    fn both_versions_are_read() {
        let mut frame = udp4(b"abc");
        frame.resize(60, 0);
        let packet = parse(&frame).unwrap();
        assert_eq!((packet.source, packet.destination), ([10, 0, 0, 1].into(), [10, 0, 0, 2].into()));
        assert_eq!((packet.network, packet.transport, packet.end, packet.protocol, packet.hop_limit), (14, 34, 45, 17, 64));
        let packet = parse(&udp6(b"abc")).unwrap();
        assert_eq!((packet.source, packet.transport, packet.end, packet.hop_limit), ([1; 16].into(), 54, 65, 7));
        assert!(packet.dont_fragment && packet.fragment.is_none());
    }

    #[test]
    fn a_wrong_header_checksum_or_length_is_no_packet() {
        let frame = udp4(b"abc");
        let mut wrong = frame.clone();
        wrong[22] ^= 1;
        assert_eq!(parse(&wrong), None);
        for length in 0..frame.len() {
            assert_eq!(parse(&frame[..length]), None, "{length}");
        }
        for length in 0..udp6(b"abc").len() {
            assert_eq!(parse(&udp6(b"abc")[..length]), None, "{length}");
        }
    }

    #[test]
    fn fragments_are_seen() {
        let mut header = etherparse::Ipv4Header::new(8, 64, 17.into(), [1, 2, 3, 4], [5, 6, 7, 8]).unwrap();
        header.fragment_offset = IpFragOffset::try_new(3).unwrap();
        (header.more_fragments, header.identification) = (true, 77);
        header.header_checksum = header.calc_header_checksum();
        let frame = [&[0; 12][..], &[8, 0], &header.to_bytes(), &[0; 8]].concat();
        let packet = parse(&frame).unwrap();
        assert_eq!(packet.fragment, Some(Fragment { identification: 77, offset: 24, more: true, data: 34, protocol: 17 }));
        assert!(!packet.has_transport());

        let mut frame = udp6(b"abcdefgh");
        frame[20] = 44;
        frame.splice(54..54, [17, 0, 0, 1, 0, 0, 1, 2]);
        frame[18..20].copy_from_slice(&24_u16.to_be_bytes());
        let packet = parse(&frame).unwrap();
        assert_eq!(packet.fragment, Some(Fragment { identification: 258, offset: 0, more: true, data: 62, protocol: 17 }));
        assert_eq!((packet.protocol, packet.transport, packet.has_transport()), (17, 62, true));
    }

    #[test]
    fn an_embedded_packet_may_be_cut() {
        let frame = udp4(&[7; 100]);
        let packet = IpPacket::parse_embedded(&frame[..42], 14).unwrap();
        assert_eq!((packet.transport, packet.end), (34, 42));
        assert_eq!(IpPacket::parse_embedded(&frame[..33], 14), None);
    }

    proptest! {
        #[test]
        fn offsets_are_in_order_and_inside(mut bytes in prop::collection::vec(any::<u8>(), 0..120), kind in 0usize..3) {
            let hints: [&[u8]; 3] = [&[8, 0, 0x45], &[0x86, 0xdd, 0x60], &[]];
            for (place, byte) in bytes.iter_mut().skip(12).zip(hints[kind]) {
                *place = *byte;
            }
            for packet in [parse(&bytes), IpPacket::parse_embedded(&bytes, 14)].into_iter().flatten() {
                prop_assert!(packet.network < packet.transport && packet.transport <= packet.end && packet.end <= bytes.len());
            }
        }
    }
}
