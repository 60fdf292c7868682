//! What a translation changes in a packet, and the act of changing it.

use std::net::{IpAddr, SocketAddr};

use packet::checksum::Sum;
use packet::{Checksum, IpPacket, IpVersion, Offload};

use crate::icmp::Error;
use crate::key::{self, Endpoint, Kind, Transport};

/// The decision about a packet: which addresses and ports it leaves with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rewrite {
    version: IpVersion,
    source: Option<Endpoint>,
    destination: Option<Endpoint>,
    body: Body,
}

/// One end of a packet before and after: its address, and its port or identifier, which is 0 where the packet has none that changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndChange {
    /// As it comes.
    pub before: SocketAddr,
    /// As it leaves.
    pub after: SocketAddr,
}

/// What is behind the IP header. Offsets are from that header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Body {
    /// Nothing that changes.
    Fragment,
    /// Ports or an identifier.
    Flow { kind: Kind, transport: usize },
    /// An ICMP error. It goes back to the source of the packet in it: that one's source changes with the error's destination,
    /// and its destination with the error's source.
    Error { message: usize, network: usize, kind: Kind, transport: usize },
}

impl Rewrite {
    pub(crate) const fn flow(packet: &IpPacket, kind: Kind) -> Self {
        Self::of(packet, Body::Flow { kind, transport: packet.transport - packet.network })
    }

    pub(crate) const fn error(packet: &IpPacket, error: &Error) -> Self {
        let from = packet.network;
        let (message, network, transport) = (packet.transport - from, error.network - from, error.transport - from);
        Self::of(packet, Body::Error { message, network, kind: error.flow.kind, transport })
    }

    pub(crate) const fn fragment(packet: &IpPacket, source: Option<u128>, destination: Option<u128>) -> Self {
        let mut rewrite = Self::of(packet, Body::Fragment);
        if let Some(address) = source {
            rewrite.source = Some(Endpoint { address, port: 0 });
        }
        if let Some(address) = destination {
            rewrite.destination = Some(Endpoint { address, port: 0 });
        }
        rewrite
    }

    const fn of(packet: &IpPacket, body: Body) -> Self {
        Self { version: packet.version, source: None, destination: None, body }
    }

    #[must_use]
    pub(crate) const fn from(self, source: Endpoint) -> Self {
        Self { source: Some(source), ..self }
    }

    #[must_use]
    pub(crate) const fn to(self, destination: Endpoint) -> Self {
        Self { destination: Some(destination), ..self }
    }

    /// Where the packet goes now, if that changes.
    pub fn destination(&self) -> Option<IpAddr> {
        self.destination.map(|endpoint| key::address(self.version, endpoint.address))
    }

    /// The source and the destination with their ports, or an identifier of ICMP, as far as they change. A later fragment has no ports: 0.
    pub fn ends(&self) -> [Option<SocketAddr>; 2] {
        [self.source, self.destination].map(|end| end.map(|end| end.socket(self.version)))
    }

    /// Where it comes from now, if that changes.
    pub fn source(&self) -> Option<IpAddr> {
        self.source.map(|endpoint| key::address(self.version, endpoint.address))
    }

    /// What it changes of the source and of the destination of the packet whose IP header is at `network` of `frame`, which was not changed yet.
    pub fn changes(&self, frame: &[u8], network: usize) -> [Option<EndChange>; 2] {
        let bytes = frame.get(network..).unwrap_or_default();
        let (first, length) = match self.version {
            IpVersion::V4 => (12, 4),
            IpVersion::V6 => (8, 16),
        };
        let change = |number: usize, after: Option<Endpoint>| {
            let octets = bytes.get(first + number * length..)?.get(..length)?;
            let address = octets.iter().fold(0, |sum, octet| sum << 8 | u128::from(*octet));
            let port = match self.body {
                Body::Flow { kind, transport } if kind.transport == Transport::Icmp => word(bytes, transport + 4),
                Body::Flow { transport, .. } => word(bytes, transport + number * 2),
                Body::Fragment | Body::Error { .. } => None,
            };
            let show = |Endpoint { address, port }| SocketAddr::new(key::address(self.version, address), port);
            let before = Endpoint { address, port: port.unwrap_or_default() };
            let after = Endpoint { port: port.and(after).map_or(0, |after| after.port), ..after? };
            Some(EndChange { before: show(before), after: show(after) })
        };
        [change(0, self.source), change(1, self.destination)]
    }

    /// Changes the packet whose IP header is at `network` of `frame`, which is the one that was decided about: its link-layer
    /// header may be another by now. Checksums change by the difference (RFC 1624, equation 3), so a wrong one stays wrong; a
    /// partial one, which `offload` tells, changes by that of the addresses only.
    pub fn apply(&self, frame: &mut [u8], network: usize, offload: &Offload) {
        let Some(bytes) = frame.get_mut(network..) else { return };
        let partial = match offload.checksum {
            Checksum::Partial { start, offset } => (usize::from(start) + usize::from(offset)).checked_sub(network),
            Checksum::Unverified | Checksum::Valid => None,
        };
        let (addresses, _) = self.put_addresses(bytes, 0, self.source, self.destination);
        match self.body {
            Body::Fragment => {}
            Body::Flow { kind, transport } => {
                let ports = put_ports(bytes, transport, kind, self.source, self.destination);
                let own = transport + kind.checksum();
                // Around a super-frame, a tunnel's header has one that is as partial as the inner one (`udp_set_csum`).
                let is_partial = partial == Some(own) || offload.gso.is_some() && partial.is_some_and(|at| at > own);
                put_checksum(bytes, transport, kind, addresses, ports, is_partial);
            }
            Body::Error { message, network, kind, transport } => {
                let (inner, changed) = self.put_addresses(bytes, network, self.destination, self.source);
                let ports = put_ports(bytes, transport, kind, self.destination, self.source);
                let checksum = put_checksum(bytes, transport, kind, inner, ports, false);
                let outer = Kind { transport: Transport::Icmp, version: self.version };
                let is_partial = partial == Some(message + outer.checksum());
                put_checksum(bytes, message, outer, addresses, plus(plus(changed, ports), checksum), is_partial);
            }
        }
    }

    /// Writes addresses, and IPv4's header checksum. Returns the differences of the addresses and of all that changed.
    fn put_addresses(
        &self,
        bytes: &mut [u8],
        at: usize,
        source: Option<Endpoint>,
        destination: Option<Endpoint>,
    ) -> (Sum, Sum) {
        let mut addresses = Sum::new();
        let (source_at, destination_at) = match self.version {
            IpVersion::V4 => (at + 12, at + 16),
            IpVersion::V6 => (at + 8, at + 24),
        };
        for (at, endpoint) in [(source_at, source), (destination_at, destination)] {
            if let Some(endpoint) = endpoint {
                addresses = put_address(bytes, at, self.version, endpoint.address, addresses);
            }
        }
        let mut changed = addresses;
        if let (IpVersion::V4, Some(old)) = (self.version, word(bytes, at + 10)) {
            changed = put(bytes, at + 10, plus(addresses, Sum::new().plus_number(!old)).checksum(), changed);
        }
        (addresses, changed)
    }
}

fn put_address(bytes: &mut [u8], at: usize, version: IpVersion, address: u128, mut sum: Sum) -> Sum {
    let octets = address.to_be_bytes();
    let skip = match version {
        IpVersion::V4 => 12,
        IpVersion::V6 => 0,
    };
    let (pairs, _) = octets.get(skip..).unwrap_or_default().as_chunks::<2>();
    for (number, pair) in pairs.iter().enumerate() {
        sum = put(bytes, at + number * 2, u16::from_be_bytes(*pair), sum);
    }
    sum
}

/// Writes ports, or the identifier of an ICMP query, which belongs to whichever side changes. Returns the difference.
fn put_ports(bytes: &mut [u8], at: usize, kind: Kind, source: Option<Endpoint>, destination: Option<Endpoint>) -> Sum {
    let places = match kind.transport {
        Transport::Icmp => [(at + 4, source.or(destination)), (at, None)],
        _ => [(at, source), (at + 2, destination)],
    };
    places.into_iter().fold(Sum::new(), |sum, (at, endpoint)| match endpoint {
        Some(endpoint) => put(bytes, at, endpoint.port, sum),
        None => sum,
    })
}

/// Corrects a transport's checksum, if it is there, and returns the difference of its field. ICMP for IPv4 has no pseudo
/// header; a UDP checksum of zero is none, and one that becomes zero is written as `0xffff` (RFC 768).
fn put_checksum(bytes: &mut [u8], transport: usize, kind: Kind, addresses: Sum, body: Sum, is_partial: bool) -> Sum {
    let at = transport + kind.checksum();
    let Some(old) = word(bytes, at) else { return Sum::new() };
    let is_udp = kind.transport == Transport::Udp;
    if is_udp && old == 0 {
        return Sum::new();
    }
    let pseudo = if (kind.transport, kind.version) == (Transport::Icmp, IpVersion::V4) { Sum::new() } else { addresses };
    if is_partial {
        return put(bytes, at, plus(pseudo, Sum::new().plus_number(old)).folded(), Sum::new());
    }
    let checksum = plus(plus(pseudo, body), Sum::new().plus_number(!old)).checksum();
    put(bytes, at, if is_udp && checksum == 0 { 0xffff } else { checksum }, Sum::new())
}

/// Writes two bytes, if they are there, and adds the difference to `sum`: the old ones inverted, and the new ones.
fn put(bytes: &mut [u8], at: usize, new: u16, sum: Sum) -> Sum {
    let Some(old) = word(bytes, at) else { return sum };
    if let Some(place) = bytes.get_mut(at..at + 2) {
        place.copy_from_slice(&new.to_be_bytes());
    }
    sum.plus_number(!old).plus_number(new)
}

fn plus(one: Sum, other: Sum) -> Sum {
    one.plus_number(other.folded())
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|bytes| u16::from_be_bytes(*bytes))
}
