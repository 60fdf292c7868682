//! A frame, read for people: its headers as values, and in the words that `vsctl trace` takes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use packet::{Ethernet, IpPacket, Offload, Transport, ethertype, protocol};

use super::words::FLAGS;
use api::{EthernetInfo, FrameInfo, IpInfo, L4Info, SegmentKind, SuperFrame, SuperFrameInfo};

/// IP's number of SCTP.
const SCTP: u8 = 132;

/// Reads a frame with nothing left to do on it.
pub(crate) fn read(bytes: &[u8]) -> FrameInfo {
    read_with(bytes, Offload::default())
}

/// Most frames that a super-frame is cut into where it is traced: 64 KiB in segments of 32 bytes. For more, the worker would stop too long.
const MOST_SEGMENTS: usize = 2048;

/// What is left to do on a frame: nothing, or to cut it as is said; `None`: so it cannot be cut.
pub(crate) fn offload(bytes: &[u8], super_frame: Option<SuperFrame>) -> Option<Offload> {
    let Some(SuperFrame { kind, segment_bytes }) = super_frame else { return Some(Offload::default()) };
    let transport = if kind == SegmentKind::Udp { Transport::Udp } else { Transport::Tcp };
    Offload::of_super_frame(bytes, transport, segment_bytes).filter(|offload| offload.segments(bytes) <= MOST_SEGMENTS)
}

/// Reads a frame on which this is left to do.
pub(crate) fn read_with(bytes: &[u8], offload: Offload) -> FrameInfo {
    let hex = api::hex(bytes);
    let super_frame = offload.gso.map(|gso| SuperFrameInfo { segments: offload.segments(bytes), cut: gso.into() });
    let Ok(ethernet) = Ethernet::parse(bytes) else {
        let summary = format!("{} bytes, too short for an Ethernet header", bytes.len());
        return FrameInfo { summary, length: bytes.len(), super_frame, ethernet: None, ip: None, l4: None, hex };
    };
    let packet =
        matches!(ethernet.ethertype, ethertype::IPV4 | ethertype::IPV6).then(|| IpPacket::parse(bytes, &ethernet)).flatten();
    let l4 = packet.as_ref().and_then(|packet| transport(packet, bytes));
    let vlan = ethernet.tag.and_then(packet::Tag::vlan);
    let body = match &packet {
        Some(packet) => summary_of_packet(packet, l4.as_ref(), bytes),
        None => summary_of_other(&ethernet, bytes),
    };
    let tag = vlan.map(|vlan| format!(" vlan {vlan}")).unwrap_or_default();
    FrameInfo {
        summary: body + &tag,
        length: bytes.len(),
        super_frame,
        ethernet: Some(EthernetInfo {
            source: ethernet.source,
            destination: ethernet.destination,
            vlan,
            ethertype: ethernet.ethertype,
        }),
        ip: packet.map(|packet| IpInfo {
            source: packet.source,
            destination: packet.destination,
            ttl: packet.hop_limit,
            protocol: packet.protocol,
        }),
        l4,
        hex,
    }
}

/// What is different in a frame from how it was before, a part a line.
pub(crate) fn changes(before: &FrameInfo, after: &FrameInfo) -> Vec<String> {
    let mut changes = Vec::new();
    let mut differs = |what: &str, one: String, other: String| {
        if one != other {
            changes.push(format!("{what} {one} -> {other}"));
        }
    };
    if let (Some(one), Some(other)) = (&before.ethernet, &after.ethernet) {
        differs("source MAC", one.source.to_string(), other.source.to_string());
        differs("destination MAC", one.destination.to_string(), other.destination.to_string());
        let tag = |vlan: Option<packet::VlanId>| vlan.map_or_else(|| "untagged".to_owned(), |vlan| vlan.to_string());
        differs("tag", tag(one.vlan), tag(other.vlan));
    }
    if let (Some(one), Some(other)) = (&before.ip, &after.ip) {
        let end = |address: IpAddr, port: Option<u16>| match port {
            Some(port) => SocketAddr::new(address, port).to_string(),
            None => address.to_string(),
        };
        let ports =
            |info: &FrameInfo| (info.l4.as_ref().map(|l4| l4.source_port), info.l4.as_ref().map(|l4| l4.destination_port));
        let ((from, to), (from_now, to_now)) = (ports(before), ports(after));
        differs("source", end(one.source, from), end(other.source, from_now));
        differs("destination", end(one.destination, to), end(other.destination, to_now));
        differs("ttl", one.ttl.to_string(), other.ttl.to_string());
    }
    changes
}

fn transport(packet: &IpPacket, bytes: &[u8]) -> Option<L4Info> {
    let name = match packet.protocol {
        protocol::TCP => "tcp",
        protocol::UDP => "udp",
        SCTP => "sctp",
        _ => return None,
    };
    let header = bytes.get(packet.transport..packet.end).filter(|_| packet.has_transport())?;
    let [a, b, c, d] = *header.first_chunk::<4>()?;
    let flags = header.get(13).copied().filter(|_| packet.protocol == protocol::TCP).unwrap_or_default();
    Some(L4Info {
        protocol: name.to_owned(),
        source_port: u16::from_be_bytes([a, b]),
        destination_port: u16::from_be_bytes([c, d]),
        flags: FLAGS.iter().filter(|(_, bit)| flags & bit != 0).map(|(name, _)| (*name).to_owned()).collect(),
    })
}

fn summary_of_packet(packet: &IpPacket, l4: Option<&L4Info>, bytes: &[u8]) -> String {
    let (from, to) = (packet.source, packet.destination);
    let ttl = format!(" ttl {}", packet.hop_limit);
    if let Some(fragment) = packet.fragment.filter(|fragment| fragment.offset > 0) {
        return format!("fragment at {} of {from} > {to}{ttl}", fragment.offset);
    }
    if let Some(l4) = l4 {
        let [from, to] = [SocketAddr::new(from, l4.source_port), SocketAddr::new(to, l4.destination_port)];
        let flags: String = l4.flags.iter().map(|flag| format!(" {flag}")).collect();
        return format!("{} {from} > {to}{flags}{ttl}", l4.protocol);
    }
    let message = bytes.get(packet.transport..packet.end).unwrap_or_default();
    match (packet.protocol, message.first()) {
        (protocol::ICMP, Some(8)) | (protocol::ICMP6, Some(128)) => format!("icmp echo {from} > {to}{ttl}"),
        (protocol::ICMP, Some(0)) | (protocol::ICMP6, Some(129)) => format!("icmp echo reply {from} > {to}{ttl}"),
        (protocol::ICMP6, Some(kind @ (135 | 136))) => discovery(*kind, from, message),
        (protocol::ICMP, Some(kind)) => format!("icmp {} {from} > {to}{ttl}", icmp(*kind, message.get(1).copied())),
        (protocol::ICMP6, Some(kind)) => format!("icmp {} {from} > {to}{ttl}", icmp6(*kind)),
        (number, _) => format!("ip protocol {number} {from} > {to}{ttl}"),
    }
}

fn discovery(kind: u8, from: IpAddr, message: &[u8]) -> String {
    let target = message.get(8..24).and_then(<[u8]>::first_chunk::<16>).map(|bytes| Ipv6Addr::from(*bytes));
    let target = target.map_or_else(|| "?".to_owned(), |target| target.to_string());
    match kind {
        135 => format!("nd who-has {target} tell {from}"),
        _ => format!("nd reply {target}"),
    }
}

/// The message's name (RFC 792).
fn icmp(kind: u8, code: Option<u8>) -> String {
    match (kind, code) {
        (3, Some(0)) => "network unreachable".to_owned(),
        (3, Some(1)) => "host unreachable".to_owned(),
        (3, Some(2)) => "protocol unreachable".to_owned(),
        (3, Some(3)) => "port unreachable".to_owned(),
        (3, Some(4)) => "fragmentation needed".to_owned(),
        (3, Some(9 | 10 | 13)) => "administratively prohibited".to_owned(),
        (5, _) => "redirect".to_owned(),
        (11, _) => "time exceeded".to_owned(),
        (kind, code) => format!("type {kind} code {}", code.unwrap_or_default()),
    }
}

/// The message's name (RFC 4443, RFC 4861).
fn icmp6(kind: u8) -> String {
    match kind {
        1 => "unreachable".to_owned(),
        2 => "packet too big".to_owned(),
        3 => "time exceeded".to_owned(),
        4 => "parameter problem".to_owned(),
        133 => "router solicitation".to_owned(),
        134 => "router advertisement".to_owned(),
        137 => "redirect".to_owned(),
        kind => format!("type {kind}"),
    }
}

fn summary_of_other(ethernet: &Ethernet, bytes: &[u8]) -> String {
    let (from, to) = (ethernet.source, ethernet.destination);
    if ethernet.ethertype == ethertype::ARP
        && let Some(message) = bytes.get(ethernet.payload..).and_then(<[u8]>::first_chunk::<28>)
    {
        let address = |at: usize| Ipv4Addr::new(message[at], message[at + 1], message[at + 2], message[at + 3]);
        return match message[7] {
            1 => format!("arp who-has {} tell {}", address(24), address(14)),
            2 => format!("arp reply {} for {}", address(14), address(24)),
            operation => format!("arp operation {operation} from {}", address(14)),
        };
    }
    let name = match ethernet.ethertype {
        ethertype::ARP => "arp, cut short,".to_owned(),
        ethertype::IPV4 => "broken IPv4".to_owned(),
        ethertype::IPV6 => "broken IPv6".to_owned(),
        0x88cc => "LLDP".to_owned(),
        ethertype::SERVICE_VLAN => "802.1ad".to_owned(),
        length @ ..=1500 => format!("802.3, {length} bytes,"),
        kind => format!("ethertype 0x{kind:04x}"),
    };
    format!("{name} from {from} to {to}")
}

#[cfg(test)]
mod tests {
    use super::super::{Endpoints, FrameWords};
    use super::*;
    use packet::Mac;

    const ENDS: Endpoints = Endpoints { from: Mac([2, 0, 0, 0, 0, 1]), to: Mac([2, 0, 0, 0, 0, 2]) };

    fn built(text: &str) -> FrameInfo {
        read(&FrameWords::read(text).unwrap().build(ENDS, Some("10.10.0.2".parse().unwrap())).unwrap())
    }

    #[test]
    fn what_words_build_reads_as_these_words() {
        for text in [
            "tcp 10.10.0.2:40000 > 10.10.0.3:80 syn ttl 64",
            "tcp 10.10.0.2:40000 > 10.10.0.3:80 psh ack ttl 3",
            "udp [fd00::2]:40000 > [fd00::3]:53 ttl 64",
            "icmp echo 10.10.0.2 > 10.10.0.3 ttl 64",
            "icmp echo fd00::2 > fd00::3 ttl 64",
            "icmp echo reply 10.10.0.2 > 10.10.0.3 ttl 64 vlan 10",
            "arp who-has 10.10.0.3 tell 10.10.0.2",
            "arp reply 10.10.0.2 for 10.10.0.3",
            "nd who-has fd00::3 tell fd00::2",
            "nd reply fd00::3",
        ] {
            assert_eq!(built(text).summary, text);
        }
        assert_eq!(built("arp who-has 10.10.0.3").summary, "arp who-has 10.10.0.3 tell 10.10.0.2", "its own address asks");
        assert_eq!(built("udp 10.10.0.2:1 > 10.10.0.3:2 len 100").length, 14 + 20 + 8 + 100);
    }

    #[test]
    fn a_super_frame_says_what_travels_and_one_of_too_many_segments_is_none() {
        let frame = FrameWords::read("udp 10.10.0.2:1 > 10.10.0.3:2 len 4000").unwrap().build(ENDS, None).unwrap();
        let cut = |kind, bytes: u16| Some(SuperFrame { kind, segment_bytes: bytes.try_into().unwrap() });
        let said = offload(&frame, cut(SegmentKind::Udp, 1472)).map(|offload| read_with(&frame, offload));
        assert_eq!(said.and_then(|info| info.super_frame).unwrap().to_string(), "3 UDP datagrams of 1472 bytes");
        assert_eq!(offload(&frame, cut(SegmentKind::Tcp, 1448)), None);
        assert_eq!(offload(&frame, cut(SegmentKind::Udp, 1)), None);
        assert_eq!(offload(&frame, None), Some(Offload::default()));
        assert_eq!(read(&frame).super_frame, None);
    }

    #[test]
    fn any_bytes_are_read() {
        assert!(read(&[1, 2, 3]).summary.contains("too short"));
        let frame = FrameWords::read("tcp 10.10.0.2:40000 > 10.10.0.3:80").unwrap().build(ENDS, None).unwrap();
        for length in 0..frame.len() {
            let info = read(&frame[..length]);
            assert_eq!((info.length, info.hex.len()), (length, length * 2));
        }
    }
}
