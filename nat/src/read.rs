//! What a packet is about, read from its headers and never from more than its own bytes.

use packet::{IpPacket, IpVersion, protocol};

use crate::counters::Denied;
use crate::icmp::{self, Error};
use crate::key::{Endpoint, Kind, Transport};
use crate::tcp::Flags;

/// What a packet is about.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Subject {
    /// A flow of its own.
    Flow(Flow),
    /// An error that a packet met.
    Error(Error),
    /// A fragment without ports.
    Fragment,
}

/// The two ends of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Flow {
    pub(crate) kind: Kind,
    pub(crate) source: Endpoint,
    pub(crate) destination: Endpoint,
    /// TCP's flags; none for others.
    pub(crate) flags: Flags,
    /// An ICMP reply, which begins nothing.
    pub(crate) is_reply: bool,
}

impl Subject {
    pub(crate) fn of(packet: &IpPacket, frame: &[u8]) -> Result<Self, Denied> {
        if !packet.has_transport() {
            return Ok(Self::Fragment);
        }
        let bytes = frame.get(..packet.end).ok_or(Denied::Malformed)?;
        let header = bytes.get(packet.transport..).ok_or(Denied::Malformed)?;
        if kind(packet).is_some_and(|kind| header.len() < least(kind.transport)) {
            return Err(Denied::Malformed);
        }
        match Flow::of(packet, bytes) {
            Some(flow) => Ok(Self::Flow(flow)),
            None if icmp::is_error(packet, bytes) => Error::read(packet, bytes).map(Self::Error).ok_or(Denied::StrayError),
            None => Err(Denied::UntrackedProtocol),
        }
    }
}

impl Flow {
    /// Whether it is a segment of a TCP connection that is under way.
    pub(crate) fn is_in_connection(&self) -> bool {
        self.kind.transport == Transport::Tcp && !self.flags.syn() && !self.flags.rst()
    }

    /// Reads the ports of a packet that may be cut behind the first eight bytes of its transport.
    pub(crate) fn of(packet: &IpPacket, bytes: &[u8]) -> Option<Self> {
        let kind = kind(packet)?;
        let header = bytes.get(packet.transport..packet.end)?;
        let [b0, b1, b2, b3, b4, b5, ..] = *header.first_chunk::<8>()?;
        let (source, destination, is_reply) = match kind.transport {
            Transport::Icmp => {
                let identifier = u16::from_be_bytes([b4, b5]);
                let is_reply = icmp::is_reply(kind.version, b0)?;
                if is_reply { (0, identifier, true) } else { (identifier, 0, false) }
            }
            _ => (u16::from_be_bytes([b0, b1]), u16::from_be_bytes([b2, b3]), false),
        };
        let flags = match kind.transport {
            Transport::Tcp => header.get(13).copied().unwrap_or_default(),
            _ => 0,
        };
        Some(Self {
            kind,
            source: Endpoint::new(packet.source, source),
            destination: Endpoint::new(packet.destination, destination),
            flags: Flags(flags),
            is_reply,
        })
    }
}

/// Shortest header of a transport. A first fragment with less is an attempt to get past a packet filter (RFC 1858).
const fn least(transport: Transport) -> usize {
    match transport {
        Transport::Tcp => 20,
        Transport::Udp | Transport::Icmp => 8,
    }
}

fn kind(packet: &IpPacket) -> Option<Kind> {
    let transport = match (packet.protocol, packet.version) {
        (protocol::TCP, _) => Transport::Tcp,
        (protocol::UDP, _) => Transport::Udp,
        (protocol::ICMP, IpVersion::V4) | (protocol::ICMP6, IpVersion::V6) => Transport::Icmp,
        _ => return None,
    };
    Some(Kind { transport, version: packet.version })
}
