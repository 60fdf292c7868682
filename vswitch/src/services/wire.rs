//! Frames to and from the services: Ethernet, IP, UDP and ICMPv6 around what they say.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use etherparse::PacketBuilder;
use packet::checksum::Sum;
use packet::{Ethernet, IpPacket, Mac, ethertype, protocol};
use smoltcp::wire::{ArpPacket, ArpRepr};

/// A frame that one of the services may answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Received<'a> {
    /// A UDP datagram.
    Datagram(Datagram<'a>),
    /// A TCP segment.
    Segment(Segment<'a>),
    /// A router solicitation.
    Solicitation(Solicitation),
    /// An ARP message from a station with an address.
    Arp(Arp),
}

/// A UDP datagram and where it came from.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Datagram<'a> {
    /// The station's address.
    pub(super) mac: Mac,
    /// Who sent it.
    pub(super) source: SocketAddr,
    /// Where it goes.
    pub(super) destination: SocketAddr,
    /// What it says.
    pub(super) payload: &'a [u8],
}

/// A TCP segment and where it came from.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Segment<'a> {
    /// The station's address.
    pub(super) mac: Mac,
    /// Who sent it.
    pub(super) source: SocketAddr,
    /// Where it goes.
    pub(super) destination: SocketAddr,
    /// Whether it asks for a connection.
    pub(super) opens: bool,
    /// It, with its IP header.
    pub(super) packet: &'a [u8],
}

/// A router solicitation (RFC 4861, section 4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Solicitation {
    /// The station's address.
    pub(super) mac: Mac,
    /// Who sent it; `::` for a station without an address.
    pub(super) source: Ipv6Addr,
}

/// What an ARP message says of its sender, and about whom it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Arp {
    /// The sender's address on the link, as the message has it.
    pub(super) mac: Mac,
    /// The address that the sender has; unspecified in a probe (RFC 5227).
    pub(super) sender: Ipv4Addr,
    /// The address that it asks for, or answers to.
    pub(super) target: Ipv4Addr,
}

/// The header of UDP.
const UDP_HEADER: usize = 8;
/// TCP's without options.
const TCP_HEADER: usize = 20;
/// Flags of TCP.
const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;
/// ICMPv6 type of a router solicitation.
const SOLICITATION: u8 = 133;
/// Type, code, checksum and four reserved bytes before the options.
const SOLICITATION_HEADER: usize = 8;
/// TTL and hop limit of answers, as the kernel's.
const HOPS: u8 = 64;

/// Reads a frame without a tag; `None` for what no service answers, or that is cut off, or a fragment. The checksums of UDP and TCP
/// are not looked at here.
pub(super) fn parse(frame: &[u8]) -> Option<Received<'_>> {
    let ethernet = Ethernet::parse(frame).ok()?;
    if ethernet.ethertype == ethertype::ARP {
        return arp(frame).filter(|arp| !arp.sender.is_unspecified()).map(Received::Arp);
    }
    let packet = IpPacket::parse(frame, &ethernet)?;
    if packet.fragment.is_some() || ethernet.source.is_group() {
        return None;
    }
    let transport = frame.get(packet.transport..packet.end)?;
    match packet.protocol {
        protocol::UDP => datagram(&ethernet, &packet, transport).map(Received::Datagram),
        protocol::TCP => segment(&ethernet, &packet, frame).map(Received::Segment),
        protocol::ICMP6 => solicitation(&ethernet, &packet, transport).map(Received::Solicitation),
        _ => None,
    }
}

/// Reads a frame with an ARP message about IPv4.
pub(super) fn arp(frame: &[u8]) -> Option<Arp> {
    let ethernet = Ethernet::parse(frame).ok().filter(|ethernet| ethernet.ethertype == ethertype::ARP)?;
    let message = ArpPacket::new_checked(frame.get(ethernet.payload..)?).ok()?;
    match ArpRepr::parse(&message).ok()? {
        ArpRepr::EthernetIpv4 { source_hardware_addr, source_protocol_addr: sender, target_protocol_addr: target, .. } => {
            Some(Arp { mac: Mac(source_hardware_addr.0), sender, target })
        }
        _ => None,
    }
}

fn datagram<'a>(ethernet: &Ethernet, packet: &IpPacket, transport: &'a [u8]) -> Option<Datagram<'a>> {
    let [s0, s1, d0, d1, l0, l1, ..] = *transport.first_chunk::<UDP_HEADER>()?;
    let length = usize::from(u16::from_be_bytes([l0, l1]));
    Some(Datagram {
        mac: ethernet.source,
        source: (packet.source, u16::from_be_bytes([s0, s1])).into(),
        destination: (packet.destination, u16::from_be_bytes([d0, d1])).into(),
        payload: transport.get(UDP_HEADER..length)?,
    })
}

fn segment<'a>(ethernet: &Ethernet, packet: &IpPacket, frame: &'a [u8]) -> Option<Segment<'a>> {
    let [s0, s1, d0, d1, .., flags, _, _, _, _, _, _] =
        *frame.get(packet.transport..packet.end)?.first_chunk::<TCP_HEADER>()?;
    Some(Segment {
        mac: ethernet.source,
        source: (packet.source, u16::from_be_bytes([s0, s1])).into(),
        destination: (packet.destination, u16::from_be_bytes([d0, d1])).into(),
        opens: flags & (FIN | SYN | RST | ACK) == SYN,
        packet: frame.get(packet.network..packet.end)?,
    })
}

/// The checks are those of RFC 4861, section 6.1.1.
fn solicitation(ethernet: &Ethernet, packet: &IpPacket, transport: &[u8]) -> Option<Solicitation> {
    let (IpAddr::V6(source), IpAddr::V6(destination)) = (packet.source, packet.destination) else { return None };
    let kind = transport.first_chunk::<2>()?;
    if *kind != [SOLICITATION, 0] || packet.hop_limit != u8::MAX || transport.len() < SOLICITATION_HEADER {
        return None;
    }
    let length = u16::try_from(transport.len()).ok()?;
    let pseudo = Sum::new().plus(&source.octets()).plus(&destination.octets()).plus_number(length);
    let sum = pseudo.plus_number(u16::from(protocol::ICMP6)).plus(transport).folded();
    let options = options_are_whole(transport.get(SOLICITATION_HEADER..)?);
    (sum == 0xffff && options).then_some(Solicitation { mac: ethernet.source, source })
}

/// Neighbour discovery's options count their length in units of eight bytes, and none may be zero.
fn options_are_whole(mut options: &[u8]) -> bool {
    while let Some(length) = options.get(1) {
        match options.get(usize::from(*length) * 8..) {
            Some(rest) if *length > 0 => options = rest,
            _ => return false,
        }
    }
    options.is_empty()
}

/// The two ends of an answer on the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hop {
    /// The gateway.
    pub(super) from: Mac,
    /// The station, or a group.
    pub(super) to: Mac,
}

/// Puts the link's header before a packet.
pub(super) fn ethernet(hop: Hop, kind: u16, packet: &[u8]) -> Vec<u8> {
    [&hop.to.0[..], &hop.from.0, &kind.to_be_bytes(), packet].concat()
}

/// As [`ethernet`], for an IP packet.
pub(super) fn ip(hop: Hop, packet: &[u8]) -> Vec<u8> {
    let kind = if packet.first().is_some_and(|byte| byte >> 4 == 6) { ethertype::IPV6 } else { ethertype::IPV4 };
    ethernet(hop, kind, packet)
}

/// Wraps a UDP payload, with complete checksums; `None` if it is too long for a packet or the families differ.
pub(super) fn udp(hop: Hop, source: SocketAddr, destination: SocketAddr, payload: &[u8]) -> Option<Vec<u8>> {
    let ethernet = PacketBuilder::ethernet2(hop.from.0, hop.to.0);
    let builder = match (source.ip(), destination.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => ethernet.ipv4(from.octets(), to.octets(), HOPS),
        (IpAddr::V6(from), IpAddr::V6(to)) => ethernet.ipv6(from.octets(), to.octets(), HOPS),
        _ => return None,
    };
    let builder = builder.udp(source.port(), destination.port());
    let mut frame = Vec::with_capacity(builder.size(payload.len()));
    builder.write(&mut frame, payload).ok()?;
    Some(frame)
}

/// Wraps an ICMPv6 message of neighbour discovery: its type, the four bytes behind the checksum, and the rest.
pub(super) fn discovery(
    hop: Hop,
    addresses: (Ipv6Addr, Ipv6Addr),
    (kind, word): (u8, [u8; 4]),
    rest: &[u8],
) -> Option<Vec<u8>> {
    let (from, to) = addresses;
    // A hop limit of 255 shows that no router forwarded it (RFC 4861, section 6.1.2).
    let ethernet = PacketBuilder::ethernet2(hop.from.0, hop.to.0).ipv6(from.octets(), to.octets(), u8::MAX);
    let builder = ethernet.icmpv6_raw(kind, 0, word);
    let mut frame = Vec::with_capacity(builder.size(rest.len()));
    builder.write(&mut frame, rest).ok()?;
    Some(frame)
}

/// The Ethernet address of an IPv6 group (RFC 2464, section 7).
pub(super) fn group(address: Ipv6Addr) -> Mac {
    let [.., a, b, c, d] = address.octets();
    Mac([0x33, 0x33, a, b, c, d])
}

/// Bytes of the headers around a UDP payload, Ethernet's not counted.
pub(super) const fn overhead(of: &SocketAddr) -> u16 {
    if of.is_ipv4() { 28 } else { 48 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HOP: Hop = Hop { from: Mac([2, 0, 0, 0, 0, 1]), to: Mac([2, 0, 0, 0, 0, 2]) };

    #[test]
    fn a_datagram_survives_the_wire() {
        for (source, destination) in [("10.0.0.1:53", "10.0.0.2:4000"), ("[fd00::1]:53", "[fd00::2]:4000")] {
            let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
            let frame = udp(HOP, source, destination, b"hello").unwrap();
            let expected = Datagram { mac: HOP.from, source, destination, payload: b"hello" };
            assert_eq!(parse(&frame), Some(Received::Datagram(expected)));
            etherparse::PacketHeaders::from_ethernet_slice(&frame).unwrap();
        }
        assert_eq!(udp(HOP, "10.0.0.1:1".parse().unwrap(), "[::1]:1".parse().unwrap(), b""), None);
    }

    #[test]
    fn a_solicitation_that_breaks_a_rule_is_none() {
        let addresses = (HOP.from.link_local(), "ff02::2".parse().unwrap());
        let option = [1, 1, 2, 0, 0, 0, 0, 1];
        let good = discovery(HOP, addresses, (133, [0; 4]), &option).unwrap();
        let expected = Solicitation { mac: HOP.from, source: addresses.0 };
        assert_eq!(parse(&good), Some(Received::Solicitation(expected)));
        let mut forwarded = good.clone();
        forwarded[21] = 254;
        let mut wrong_sum = good;
        wrong_sum[60] ^= 1;
        let endless = discovery(HOP, addresses, (133, [0; 4]), &[1, 0, 0, 0, 0, 0, 0, 0]).unwrap();
        let other = discovery(HOP, addresses, (134, [0; 4]), &option).unwrap();
        for frame in [forwarded, wrong_sum, endless, other] {
            assert_eq!(parse(&frame), None);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), kind in prop::sample::select(vec![0x08_u8, 0x86])) {
            parse(&bytes);
            let mut frame = vec![2; 12];
            frame.extend([kind, if kind == 8 { 0 } else { 0xdd }]);
            frame.extend(bytes);
            parse(&frame);
        }
    }
}
