//! Frames that the router makes itself: ARP, neighbour discovery, ICMP and TCP resets, in smoltcp's wire formats.
//!
//! Each function puts one whole Ethernet frame, without a tag, into a buffer that is reused.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use packet::{ETHERNET_HEADER, IpPacket, Mac};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol, EthernetRepr, Icmpv4Message,
    Icmpv4Packet, Icmpv6Message, Icmpv6Packet, Icmpv6Repr, IpProtocol, IpRepr, NdiscNeighborFlags, NdiscRepr, TcpControl,
    TcpPacket, TcpRepr, TcpSeqNumber,
};

/// From and to: a MAC address and an IP address each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Envelope<A> {
    pub(super) from: (Mac, A),
    pub(super) to: (Mac, A),
}

/// What the router has to say about a packet that goes no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Problem {
    /// Its hop limit is used up.
    HopLimit,
    /// There is no route.
    NoRoute,
    /// The next hop does not answer.
    HostUnreachable,
    /// No service listens on the port.
    PortUnreachable,
    /// The gateway does not speak the protocol.
    ProtocolUnreachable,
    /// The router has nothing left to send it on with (RFC 5508, REQ-8).
    Prohibited,
    /// It is longer than the MTU of the way on, in bytes.
    TooBig(u16),
}

/// Longest ICMP error: what every host takes (RFC 1812, section 4.3.2.3).
const LONGEST_V4: usize = 576;
/// Longest ICMPv6 error: the smallest MTU of IPv6 (RFC 4443, section 2.4 (c)).
const LONGEST_V6: usize = 1280;
/// Hop limit of what the router sends; `IPDEFTTL` of RFC 1700.
const HOPS: u8 = 64;
/// Hop limit that proves that a message was not routed (RFC 4861, section 11.2).
const NEVER_ROUTED: u8 = 255;

impl Problem {
    /// ICMP type, code, and the second half of the header (RFC 792; RFC 1191, section 4).
    const fn v4(self) -> (Icmpv4Message, u8, u16) {
        match self {
            Self::HopLimit => (Icmpv4Message::TimeExceeded, 0, 0),
            Self::NoRoute => (Icmpv4Message::DstUnreachable, 0, 0),
            Self::HostUnreachable => (Icmpv4Message::DstUnreachable, 1, 0),
            Self::ProtocolUnreachable => (Icmpv4Message::DstUnreachable, 2, 0),
            Self::PortUnreachable => (Icmpv4Message::DstUnreachable, 3, 0),
            Self::Prohibited => (Icmpv4Message::DstUnreachable, 13, 0),
            Self::TooBig(mtu) => (Icmpv4Message::DstUnreachable, 4, mtu),
        }
    }

    /// ICMPv6 type, code, and the second half of the header (RFC 4443, section 3). An unknown protocol is a parameter problem
    /// whose pointer is the offset of the "next header" field, 6 where there is no extension.
    const fn v6(self) -> (Icmpv6Message, u8, u32) {
        match self {
            Self::HopLimit => (Icmpv6Message::TimeExceeded, 0, 0),
            Self::NoRoute => (Icmpv6Message::DstUnreachable, 0, 0),
            Self::HostUnreachable => (Icmpv6Message::DstUnreachable, 3, 0),
            Self::PortUnreachable => (Icmpv6Message::DstUnreachable, 4, 0),
            Self::ProtocolUnreachable => (Icmpv6Message::ParamProblem, 1, 6),
            Self::Prohibited => (Icmpv6Message::DstUnreachable, 1, 0),
            Self::TooBig(mtu) => (Icmpv6Message::PktTooBig, 0, mtu as u32),
        }
    }
}

/// An ARP request for `target`, or the answer to one.
pub(super) fn arp(out: &mut Vec<u8>, answer: bool, between: Envelope<Ipv4Addr>) {
    let Envelope { from, to } = between;
    let operation = if answer { ArpOperation::Reply } else { ArpOperation::Request };
    let asked = if answer { to.0 } else { Mac::ZERO };
    let repr = ArpRepr::EthernetIpv4 {
        operation,
        source_hardware_addr: EthernetAddress(from.0.0),
        source_protocol_addr: from.1,
        target_hardware_addr: EthernetAddress(asked.0),
        target_protocol_addr: to.1,
    };
    let payload = ethernet(out, from.0, to.0, EthernetProtocol::Arp, repr.buffer_len());
    repr.emit(&mut ArpPacket::new_unchecked(payload));
}

/// A neighbour solicitation for `target` (RFC 4861, section 4.3), to its solicited-node group or, where its MAC address is known,
/// to itself.
pub(super) fn solicitation(out: &mut Vec<u8>, from: (Mac, Ipv6Addr), target: Ipv6Addr, known: Option<Mac>) {
    let group = packet::solicited_node(target);
    let to = known.map_or((Mac::of_group(group.into()), group), |mac| (mac, target));
    let lladdr = Some(EthernetAddress(from.0.0).into());
    ndisc(out, Envelope { from, to }, NdiscRepr::NeighborSolicit { target_addr: target, lladdr });
}

/// A neighbour advertisement for an own address (RFC 4861, section 4.4). `solicited`: as an answer.
pub(super) fn advertisement(out: &mut Vec<u8>, between: Envelope<Ipv6Addr>, target: Ipv6Addr, solicited: bool) {
    let mut flags = NdiscNeighborFlags::ROUTER | NdiscNeighborFlags::OVERRIDE;
    flags.set(NdiscNeighborFlags::SOLICITED, solicited);
    let lladdr = Some(EthernetAddress(between.from.0.0).into());
    ndisc(out, between, NdiscRepr::NeighborAdvert { flags, target_addr: target, lladdr });
}

fn ndisc(out: &mut Vec<u8>, between: Envelope<Ipv6Addr>, message: NdiscRepr<'_>) {
    let repr = Icmpv6Repr::Ndisc(message);
    let (source, destination) = (between.from.1, between.to.1);
    let ends = Envelope { from: (between.from.0, source.into()), to: (between.to.0, destination.into()) };
    let payload = ip(out, ends, IpProtocol::Icmpv6, NEVER_ROUTED, repr.buffer_len());
    repr.emit(&source, &destination, &mut Icmpv6Packet::new_unchecked(payload), &ChecksumCapabilities::default());
}

/// The answer to an echo request, whose ICMP message is `request`.
pub(super) fn echo_reply(out: &mut Vec<u8>, between: Envelope<IpAddr>, request: &[u8]) {
    match (between.from.1, between.to.1) {
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let payload = ip(out, between, IpProtocol::Icmpv6, HOPS, request.len());
            payload.copy_from_slice(request);
            let mut message = Icmpv6Packet::new_unchecked(payload);
            message.set_msg_type(Icmpv6Message::EchoReply);
            message.fill_checksum(&source, &destination);
        }
        _ => {
            let payload = ip(out, between, IpProtocol::Icmp, HOPS, request.len());
            payload.copy_from_slice(request);
            let mut message = Icmpv4Packet::new_unchecked(payload);
            message.set_msg_type(Icmpv4Message::EchoReply);
            message.fill_checksum();
        }
    }
}

/// An ICMP error about `packet`, quoted from `bytes` as it came in.
pub(super) fn error(out: &mut Vec<u8>, between: Envelope<IpAddr>, problem: Problem, packet: &IpPacket, bytes: &[u8]) {
    let quoted = bytes.get(packet.network..packet.end).unwrap_or_default();
    match (between.from.1, between.to.1) {
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let quoted = quoted.get(..LONGEST_V6 - 48).unwrap_or(quoted);
            let payload = ip(out, between, IpProtocol::Icmpv6, HOPS, 8 + quoted.len());
            let (kind, code, rest) = problem.v6();
            payload[4..8].copy_from_slice(&rest.to_be_bytes());
            payload[8..].copy_from_slice(quoted);
            let mut message = Icmpv6Packet::new_unchecked(payload);
            message.set_msg_type(kind);
            message.set_msg_code(code);
            message.fill_checksum(&source, &destination);
        }
        _ => {
            let quoted = quoted.get(..LONGEST_V4 - 28).unwrap_or(quoted);
            let payload = ip(out, between, IpProtocol::Icmp, HOPS, 8 + quoted.len());
            let (kind, code, rest) = problem.v4();
            payload[6..8].copy_from_slice(&rest.to_be_bytes());
            payload[8..].copy_from_slice(quoted);
            let mut message = Icmpv4Packet::new_unchecked(payload);
            message.set_msg_type(kind);
            message.set_msg_code(code);
            message.fill_checksum();
        }
    }
}

/// The reset that refuses a TCP segment (RFC 9293, section 3.10.7.1); false if it deserves none, being a reset itself.
pub(super) fn reset(out: &mut Vec<u8>, between: Envelope<IpAddr>, segment: &[u8]) -> bool {
    let Ok(segment) = TcpPacket::new_checked(segment) else { return false };
    if segment.rst() {
        return false;
    }
    let (seq_number, ack_number) = if segment.ack() {
        (segment.ack_number(), None)
    } else {
        (TcpSeqNumber(0), Some(segment.seq_number() + segment.segment_len()))
    };
    let repr = TcpRepr {
        src_port: segment.dst_port(),
        dst_port: segment.src_port(),
        control: TcpControl::Rst,
        seq_number,
        ack_number,
        window_len: 0,
        window_scale: None,
        max_seg_size: None,
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload: &[],
    };
    let (source, destination) = (between.from.1, between.to.1);
    let payload = ip(out, between, IpProtocol::Tcp, HOPS, repr.buffer_len());
    repr.emit(&mut TcpPacket::new_unchecked(payload), &source.into(), &destination.into(), &ChecksumCapabilities::default());
    true
}

/// Begins a frame with an IP packet of `length` bytes of payload, zeroed, which it returns.
fn ip(out: &mut Vec<u8>, between: Envelope<IpAddr>, protocol: IpProtocol, hops: u8, length: usize) -> &mut [u8] {
    let Envelope { from, to } = between;
    let repr = IpRepr::new(from.1.into(), to.1.into(), protocol, length, hops);
    let kind = if from.1.is_ipv4() { EthernetProtocol::Ipv4 } else { EthernetProtocol::Ipv6 };
    let packet = ethernet(out, from.0, to.0, kind, repr.buffer_len());
    repr.emit(&mut *packet, &ChecksumCapabilities::default());
    &mut packet[repr.header_len()..]
}

/// Begins a frame with `length` bytes of payload, zeroed, which it returns.
fn ethernet(out: &mut Vec<u8>, from: Mac, to: Mac, kind: EthernetProtocol, length: usize) -> &mut [u8] {
    out.clear();
    out.resize(ETHERNET_HEADER + length, 0);
    let repr = EthernetRepr { src_addr: EthernetAddress(from.0), dst_addr: EthernetAddress(to.0), ethertype: kind };
    repr.emit(&mut EthernetFrame::new_unchecked(&mut out[..]));
    &mut out[ETHERNET_HEADER..]
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TransportSlice};
    use packet::Ethernet;

    const HERE: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const THERE: Mac = Mac([2, 0, 0, 0, 0, 2]);

    fn between(version: u8) -> Envelope<IpAddr> {
        let addresses: [IpAddr; 2] = match version {
            4 => [[10, 0, 0, 1].into(), [10, 0, 0, 2].into()],
            _ => ["fd00::1".parse().unwrap(), "fd00::2".parse().unwrap()],
        };
        Envelope { from: (HERE, addresses[0]), to: (THERE, addresses[1]) }
    }

    fn original(version: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        let builder = PacketBuilder::ethernet2(THERE.0, HERE.0);
        match version {
            4 => builder.ipv4([10, 0, 0, 2], [192, 0, 2, 1], 1).udp(7, 9).write(&mut frame, payload).unwrap(),
            _ => builder.ipv6([2; 16], [3; 16], 1).udp(7, 9).write(&mut frame, payload).unwrap(),
        }
        frame
    }

    /// Every checksum of a frame is right, as etherparse computes it.
    fn icmp(frame: &[u8]) -> (u8, u8, Vec<u8>) {
        let sliced = SlicedPacket::from_ethernet(frame).unwrap();
        match (&sliced.net, &sliced.transport) {
            (Some(NetSlice::Ipv4(ip)), Some(TransportSlice::Icmpv4(icmp))) => {
                assert_eq!(ip.header().header_checksum(), ip.header().to_header().calc_header_checksum());
                assert_eq!(icmp.icmp_type().calc_checksum(icmp.payload()), icmp.checksum());
                (icmp.type_u8(), icmp.code_u8(), icmp.slice()[4..].to_vec())
            }
            (Some(NetSlice::Ipv6(ip)), Some(TransportSlice::Icmpv6(icmp))) => {
                assert!(icmp.is_checksum_valid(ip.header().source(), ip.header().destination()));
                (icmp.type_u8(), icmp.code_u8(), icmp.slice()[4..].to_vec())
            }
            other => panic!("{other:?}"),
        }
    }

    /// Ports, RST and ACK, sequence and acknowledgment numbers.
    fn tcp(frame: &[u8]) -> ((u16, u16), (bool, bool), u32, u32) {
        let sliced = SlicedPacket::from_ethernet(frame).unwrap();
        let Some(TransportSlice::Tcp(tcp)) = &sliced.transport else { panic!("no TCP") };
        let ports = (tcp.source_port(), tcp.destination_port());
        (ports, (tcp.rst(), tcp.ack()), tcp.sequence_number(), tcp.acknowledgment_number())
    }

    #[test]
    fn an_error_quotes_what_came_and_stays_short() {
        for (version, longest, too_big) in [(4, 576, (3, 4)), (6, 1280, (2, 0))] {
            for length in [0, 20, 3000] {
                let frame = original(version, &vec![7; length]);
                let packet = IpPacket::parse(&frame, &Ethernet::parse(&frame).unwrap()).unwrap();
                let mut out = Vec::new();
                error(&mut out, between(version), Problem::TooBig(1280), &packet, &frame);
                assert!(out.len() <= 14 + longest);
                let (kind, code, rest) = icmp(&out);
                assert_eq!((kind, code), too_big);
                assert_eq!(rest[..4], [0, 0, 5, 0], "the MTU");
                assert_eq!(rest[4..], frame[14..14 + rest.len() - 4]);
            }
        }
    }

    #[test]
    fn every_problem_has_its_codes() {
        let codes = |version, problem| {
            let frame = original(version, &[]);
            let packet = IpPacket::parse(&frame, &Ethernet::parse(&frame).unwrap()).unwrap();
            let mut out = Vec::new();
            error(&mut out, between(version), problem, &packet, &frame);
            let (kind, code, _) = icmp(&out);
            (kind, code)
        };
        for (problem, v4, v6) in [
            (Problem::HopLimit, (11, 0), (3, 0)),
            (Problem::NoRoute, (3, 0), (1, 0)),
            (Problem::HostUnreachable, (3, 1), (1, 3)),
            (Problem::PortUnreachable, (3, 3), (1, 4)),
            (Problem::ProtocolUnreachable, (3, 2), (4, 1)),
            (Problem::Prohibited, (3, 13), (1, 1)),
        ] {
            assert_eq!((codes(4, problem), codes(6, problem)), (v4, v6), "{problem:?}");
        }
    }

    #[test]
    fn an_echo_comes_back_as_it_was() {
        let mut out = Vec::new();
        echo_reply(&mut out, between(4), &[8, 0, 1, 2, 0, 7, 0, 1, 9, 9, 9]);
        assert_eq!(icmp(&out), (0, 0, vec![0, 7, 0, 1, 9, 9, 9]));
        echo_reply(&mut out, between(6), &[128, 0, 1, 2, 0, 7, 0, 1, 9]);
        assert_eq!(icmp(&out), (129, 0, vec![0, 7, 0, 1, 9]));
    }

    #[test]
    fn a_solicitation_goes_to_the_group_of_its_target() {
        let target: Ipv6Addr = "fd00::12:3456".parse().unwrap();
        let mut out = Vec::new();
        solicitation(&mut out, (HERE, "fe80::1".parse().unwrap()), target, None);
        assert_eq!(out[..6], [0x33, 0x33, 0xff, 0x12, 0x34, 0x56]);
        assert_eq!((icmp(&out).0, out[21]), (135, 255));
        solicitation(&mut out, (HERE, "fe80::1".parse().unwrap()), target, Some(THERE));
        assert_eq!(out[..6], THERE.0);
        let Envelope { from: (_, IpAddr::V6(own)), to: (_, IpAddr::V6(asker)) } = between(6) else { panic!() };
        advertisement(&mut out, Envelope { from: (HERE, own), to: (THERE, asker) }, own, true);
        let (kind, _, rest) = icmp(&out);
        assert_eq!((kind, rest[0]), (136, 0xe0));
    }

    #[test]
    fn a_refused_segment_is_reset_and_a_reset_is_not() {
        for version in [4, 6] {
            let mut out = Vec::new();
            let mut syn = vec![0, 80, 1, 0, 0, 0, 0, 9, 0, 0, 0, 0, 5 << 4, 2, 0, 0, 0, 0, 0, 0];
            assert!(reset(&mut out, between(version), &syn));
            let (ports, flags, sequence, acknowledgment) = tcp(&out);
            assert_eq!((ports, flags, sequence, acknowledgment), ((256, 80), (true, true), 0, 10));
            syn[13] = 0x10;
            syn[11] = 77;
            assert!(reset(&mut out, between(version), &syn));
            let (_, flags, sequence, _) = tcp(&out);
            assert_eq!((flags, sequence), ((true, false), 77));
            syn[13] = 4;
            assert!(!reset(&mut out, between(version), &syn));
            assert!(!reset(&mut out, between(version), &syn[..19]));
        }
    }
}
