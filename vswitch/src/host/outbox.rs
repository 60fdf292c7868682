//! What the uplink says to the switch: frames to the router's address, with the headers of a host out there.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::ops::Range;

use etherparse::UdpHeader;
use ipnet::IpNet;
use packet::checksum::Sum;
use packet::{Checksum, ETHERNET_HEADER, Gso, GsoKind, IpVersion, Mac, Offload, ethertype, protocol};

use super::link::{Slot, SwitchLink};
use plane::fragments::{Piece, pieces};

/// Most bytes of a packet that an ICMP error quotes (RFC 1812, section 4.3.2.3; less than RFC 4443 allows).
const QUOTE: usize = 508;
/// Where the first option of a TCP header lies; in what `smoltcp` writes, of a SYN that is the MSS.
const FIRST_OPTION: usize = 20;
const SYN: u8 = 0x02;
const MSS_OPTION: [u8; 2] = [2, 4];

/// Why a packet of a container goes no further (RFC 792; RFC 1812, section 5.2.7; RFC 4443, section 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unreachable {
    Network,
    Host,
    Protocol,
    Prohibited,
    /// It is longer than this, and may not be fragmented.
    TooBig(u32),
    /// An ICMP message of the packet's version, passed on: type, code, and the four bytes behind the checksum.
    Said(u8, u8, u32),
}

/// A gateway whose stations reach the world by the uplink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gateway {
    /// Its address, with the subnet of its stations.
    pub address: IpNet,
    /// The longest IP packet that the stations' link takes.
    pub mtu: u16,
}

/// Writes frames and sends them. To the stations it seems to be on their links, so it cuts what is longer than those take. The router on the
/// way could only tell the sender, a peer of the host's sockets, which it does not reach.
pub(super) struct Outbox {
    pub(super) link: SwitchLink,
    pub(super) mac: Mac,
    pub(super) router: Mac,
    pub(super) mtu: u16,
    pub(super) gateways: Vec<Gateway>,
    /// Frames for which there was no room.
    pub(super) full: u64,
    identification: u32,
}

impl Outbox {
    pub(super) fn new(link: SwitchLink, mac: Mac, router: Mac, mtu: u16) -> Self {
        Self { link, mac, router, mtu, gateways: Vec::new(), full: 0, identification: 1 }
    }

    /// The longest IP packet that a station's link takes.
    fn mtu_to(&self, station: IpAddr) -> u16 {
        let gateway = self.gateways.iter().find(|gateway| gateway.address.contains(&station));
        gateway.map_or(self.mtu, |gateway| gateway.mtu.min(self.mtu))
    }

    /// Largest TCP payload of a segment that a station's link takes.
    pub(super) fn mss(&self, station: IpAddr) -> u16 {
        let headers = if station.is_ipv4() { 40 } else { 60 };
        self.mtu_to(station).saturating_sub(headers).max(64)
    }

    /// Sends a UDP datagram, in fragments if it must be.
    pub(super) fn udp(&mut self, from: SocketAddr, to: SocketAddr, payload: &[u8]) {
        let length = u16::try_from(payload.len() + 8).unwrap_or(u16::MAX);
        let header = UdpHeader { source_port: from.port(), destination_port: to.port(), length, checksum: 0 };
        let mut header = header.to_bytes();
        let pseudo = pseudo(from.ip(), to.ip(), protocol::UDP, length);
        let fits = usize::from(length) + header_length(from.ip()) <= usize::from(self.mtu_to(to.ip()));
        let sum = if fits { pseudo.folded() } else { non_zero(pseudo.plus(&header).plus(payload).checksum()) };
        header[6..].copy_from_slice(&sum.to_be_bytes());
        self.packet(from.ip(), to.ip(), protocol::UDP, [&header, payload], fits.then_some(6));
    }

    /// Sends an ICMP or ICMPv6 message of these bytes, whose checksum is still zero.
    pub(super) fn icmp(&mut self, from: IpAddr, to: IpAddr, message: &mut [u8]) {
        let length = u16::try_from(message.len()).unwrap_or(u16::MAX);
        let (kind, sum) = match from {
            IpAddr::V4(_) => (protocol::ICMP, Sum::new()),
            IpAddr::V6(_) => (protocol::ICMP6, pseudo(from, to, protocol::ICMP6, length)),
        };
        let checksum = sum.plus(message).checksum();
        if let Some(place) = message.get_mut(2..4) {
            place.copy_from_slice(&checksum.to_be_bytes());
        }
        self.packet(from, to, kind, [message, &[]], None);
    }

    /// Tells the sender of `original`, an IP packet, what became of it. `from` says so.
    pub(super) fn unreachable(&mut self, what: Unreachable, from: IpAddr, to: IpAddr, original: &[u8]) {
        let (kind, code, more) = match to {
            IpAddr::V4(_) => what.icmp(),
            IpAddr::V6(_) => what.icmp6(),
        };
        let mut message = [0; 8 + QUOTE];
        let quote = original.get(..QUOTE).unwrap_or(original);
        (message[0], message[1]) = (kind, code);
        message[4..8].copy_from_slice(&more.to_be_bytes());
        if let Some(place) = message.get_mut(8..8 + quote.len()) {
            place.copy_from_slice(quote);
        }
        self.icmp(from, to, message.get_mut(..8 + quote.len()).unwrap_or_default());
    }

    /// Sends a bare TCP segment without payload, as a reset is.
    pub(super) fn bare_tcp(&mut self, from: SocketAddr, to: SocketAddr, sequence: u32, acknowledged: Option<u32>) {
        let mut header = etherparse::TcpHeader::new(from.port(), to.port(), sequence, 0);
        header.rst = true;
        if let Some(number) = acknowledged {
            (header.ack, header.acknowledgment_number) = (true, number);
        }
        let mut bytes = header.to_bytes();
        let sum = pseudo(from.ip(), to.ip(), protocol::TCP, 20).plus(&bytes).checksum();
        bytes[16..18].copy_from_slice(&sum.to_be_bytes());
        self.packet(from.ip(), to.ip(), protocol::TCP, [&bytes, &[]], None);
    }

    /// Sends an IP packet, in fragments if it is longer than the station's link takes. `partial` is where in the transport the checksum lies,
    /// if it is left to the receiver, which may be only in a packet that is not fragmented.
    fn packet(&mut self, from: IpAddr, to: IpAddr, kind: u8, payload: [&[u8]; 2], partial: Option<u16>) {
        let total = payload.iter().map(|part| part.len()).sum();
        self.identification = self.identification.wrapping_add(1);
        let whole = Piece { from, to, kind, offset: None, more: false, identification: self.identification };
        for (piece, part) in pieces(whole, total, self.mtu_to(to).into()) {
            self.piece(piece, payload, part, partial);
        }
    }

    /// Sends a part of the payload behind its IP header.
    fn piece(&mut self, piece: Piece, payload: [&[u8]; 2], part: Range<usize>, partial: Option<u16>) {
        let Range { start, end } = part;
        let (header, length) = piece.header(end - start);
        let whole = ETHERNET_HEADER + length + end - start;
        let Some(mut slot) = self.link.writer.slot(whole) else {
            self.full += 1;
            return;
        };
        self.write_ethernet(slot.bytes_mut(), piece.from.is_ipv6());
        let (_, place) = slot.bytes_mut().split_at_mut(ETHERNET_HEADER);
        let (network, mut place) = place.split_at_mut(length);
        network.copy_from_slice(header.get(..length).unwrap_or_default());
        let [first, second] = payload;
        let first = first.get(start.min(first.len())..end.min(first.len())).unwrap_or_default();
        let before = payload[0].len();
        let second = second.get(start.saturating_sub(before)..end.saturating_sub(before)).unwrap_or_default();
        for part in [first, second] {
            let (here, rest) = place.split_at_mut(part.len().min(place.len()));
            here.copy_from_slice(part);
            place = rest;
        }
        if let (Some(offset), Ok(start)) = (partial, u16::try_from(ETHERNET_HEADER + length)) {
            slot.offload = Offload { checksum: Checksum::Partial { start, offset }, gso: None };
        }
        self.link.send(slot);
    }

    /// A slot for an IP packet of `length` bytes, which begins behind the Ethernet header.
    pub(super) fn slot(&mut self, length: usize) -> Option<Slot> {
        let slot = self.link.writer.slot(ETHERNET_HEADER + length);
        self.full += u64::from(slot.is_none());
        slot
    }

    /// Sends a slot with a TCP packet whose checksum is still zero. Whatever its length, it reaches the container in segments of
    /// at most `mss` bytes.
    pub(super) fn tcp(&mut self, mut slot: Slot, mss: u16) {
        let own_mss = |station| self.mss(station);
        let Some(offload) = finish_tcp(slot.bytes_mut(), mss, own_mss) else { return };
        let v6 = slot.bytes().get(ETHERNET_HEADER).is_some_and(|first| first >> 4 == 6);
        self.write_ethernet(slot.bytes_mut(), v6);
        slot.offload = offload;
        self.link.send(slot);
    }

    fn write_ethernet(&self, frame: &mut [u8], v6: bool) {
        let kind = if v6 { ethertype::IPV6 } else { ethertype::IPV4 };
        if let Some(header) = frame.first_chunk_mut::<ETHERNET_HEADER>() {
            header[..6].copy_from_slice(&self.router.0);
            header[6..12].copy_from_slice(&self.mac.0);
            header[12..].copy_from_slice(&kind.to_be_bytes());
        }
    }
}

/// Completes what `smoltcp` wrote without knowing the truth about segments: the MSS of a SYN, the sum of the pseudo header, and
/// the size by which the payload is to be cut.
fn finish_tcp(frame: &mut [u8], mss: u16, own_mss: impl Fn(IpAddr) -> u16) -> Option<Offload> {
    let network = ETHERNET_HEADER;
    let (version, transport, addresses) = match frame.get(network)? >> 4 {
        4 => (IpVersion::V4, network + 20, network + 12..network + 20),
        _ => (IpVersion::V6, network + 40, network + 8..network + 40),
    };
    let length = u16::try_from(frame.len().checked_sub(transport)?).ok()?;
    let header = usize::from(*frame.get(transport + 12)? >> 4) * 4;
    if frame.get(transport + 13)? & SYN != 0 && frame.get(transport + FIRST_OPTION..)?.starts_with(&MSS_OPTION) {
        let station = match version {
            IpVersion::V4 => IpAddr::from(*frame.get(network + 16..)?.first_chunk::<4>()?),
            IpVersion::V6 => IpAddr::from(*frame.get(network + 24..)?.first_chunk::<16>()?),
        };
        let place = frame.get_mut(transport + FIRST_OPTION + 2..transport + FIRST_OPTION + 4)?;
        place.copy_from_slice(&own_mss(station).to_be_bytes());
    }
    let sum = Sum::new().plus(frame.get(addresses)?).plus_number(protocol::TCP.into()).plus_number(length).folded();
    frame.get_mut(transport + 16..transport + 18)?.copy_from_slice(&sum.to_be_bytes());
    let kind = if version == IpVersion::V4 { GsoKind::Tcp4 } else { GsoKind::Tcp6 };
    let cut = usize::from(length) - header > usize::from(mss);
    let gso = NonZeroU16::new(mss).filter(|_| cut).map(|size| Gso { kind, size, ecn: false });
    Some(Offload { checksum: Checksum::Partial { start: u16::try_from(transport).ok()?, offset: 16 }, gso })
}

impl Unreachable {
    fn icmp(self) -> (u8, u8, u32) {
        match self {
            Self::Network => (3, 0, 0),
            Self::Host => (3, 1, 0),
            Self::Protocol => (3, 2, 0),
            Self::Prohibited => (3, 13, 0),
            Self::TooBig(mtu) => (3, 4, mtu.min(u16::MAX.into())),
            Self::Said(kind, code, more) => (kind, code, more),
        }
    }

    fn icmp6(self) -> (u8, u8, u32) {
        match self {
            Self::Network => (1, 0, 0),
            Self::Host => (1, 3, 0),
            // An unrecognised next header; the pointer is to the fixed header's field.
            Self::Protocol => (4, 1, 6),
            Self::Prohibited => (1, 1, 0),
            Self::TooBig(mtu) => (2, 0, mtu),
            Self::Said(kind, code, more) => (kind, code, more),
        }
    }
}

/// The sum over a pseudo header (RFC 9293, section 3.1; RFC 8200, section 8.1).
pub(super) fn pseudo(from: IpAddr, to: IpAddr, kind: u8, length: u16) -> Sum {
    let sum = [from, to].iter().fold(Sum::new(), |sum, address| match address {
        IpAddr::V4(address) => sum.plus(&address.octets()),
        IpAddr::V6(address) => sum.plus(&address.octets()),
    });
    sum.plus_number(kind.into()).plus_number(length)
}

/// The IP packet of a UDP datagram that went out by a socket, as the container sent it, for an ICMP error about it.
pub(super) fn rebuilt_udp(from: SocketAddr, to: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len() + 8).unwrap_or(u16::MAX);
    let header = UdpHeader { source_port: from.port(), destination_port: to.port(), length, checksum: 0 };
    rebuilt(from.ip(), to.ip(), protocol::UDP, &[&header.to_bytes(), payload].concat())
}

/// An IP packet as the container sent it, as far as an ICMP error quotes it. No receiver verifies checksums in there.
pub(super) fn rebuilt(from: IpAddr, to: IpAddr, kind: u8, payload: &[u8]) -> Vec<u8> {
    let piece = Piece { from, to, kind, offset: None, more: false, identification: 0 };
    let (header, length) = piece.header(payload.len());
    let mut packet = [header.get(..length).unwrap_or_default(), payload].concat();
    packet.truncate(QUOTE);
    packet
}

const fn header_length(address: IpAddr) -> usize {
    if address.is_ipv4() { 20 } else { 40 }
}

const fn non_zero(sum: u16) -> u16 {
    if sum == 0 { 0xffff } else { sum }
}
