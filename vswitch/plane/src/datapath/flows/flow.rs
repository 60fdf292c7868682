//! What frames of one flow have in common.

use std::net::IpAddr;

use packet::{Ethernet, IpPacket, Mac, VlanId, protocol};

use super::super::forward::Headers;
use super::super::{Fate, PortId};

/// IP's number of SCTP, whose ports are where those of TCP are.
const SCTP: u8 = 132;

/// Frames with the same ends that came in by one port, as they came in: before NAT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Flow {
    /// The VLAN; `None`: they got into none.
    pub vlan: Option<VlanId>,
    /// Whose they are.
    pub source: Mac,
    /// Whom they are for.
    pub destination: Mac,
    /// What they carry, behind the tag.
    pub ethertype: u16,
    /// Their IP packets, if they carry any.
    pub packet: Option<FlowPacket>,
}

/// The ends of IP packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlowPacket {
    /// Whose they are.
    pub source: IpAddr,
    /// Whom they are for.
    pub destination: IpAddr,
    /// What they carry (IANA, "Protocol Numbers").
    pub protocol: u8,
    /// The ports of TCP, UDP and SCTP, the source's first. Later fragments of a packet have none.
    pub ports: Option<(u16, u16)>,
}

/// A flow, and what of it passes in a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FlowRate {
    /// The port that it came in by.
    pub ingress: PortId,
    /// The flow.
    pub flow: Flow,
    /// What became of the last frame that was looked at.
    pub fate: Fate,
    /// The one port that it left by; `None`: several, or none.
    pub egress: Option<PortId>,
    /// Bytes a second.
    pub bytes: f64,
    /// Frames a second; a super-frame counts once.
    pub frames: f64,
}

impl Flow {
    /// That of a frame; `None`: it ends before its Ethernet header does.
    pub(in super::super) fn of(bytes: &[u8], headers: &Headers) -> Option<Self> {
        let ethernet = headers.ethernet?;
        let packet = IpPacket::parse(bytes, &ethernet).map(|packet| FlowPacket::of(bytes, &packet));
        let Ethernet { source, destination, ethertype, .. } = ethernet;
        Some(Self { vlan: headers.vlan.ok(), source, destination, ethertype, packet })
    }
}

impl FlowPacket {
    /// That of an IP packet in a frame.
    pub(crate) fn of(bytes: &[u8], packet: &IpPacket) -> Self {
        let has_ports = matches!(packet.protocol, protocol::TCP | protocol::UDP | SCTP) && packet.has_transport();
        let header = bytes.get(packet.transport..packet.end).and_then(<[u8]>::first_chunk::<4>).filter(|_| has_ports);
        let ports = header.map(|[a, b, c, d]| (u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d])));
        let IpPacket { source, destination, protocol, .. } = *packet;
        Self { source, destination, protocol, ports }
    }
}
