//! The flows that move most.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use packet::{Mac, VlanId};
use serde::{Deserialize, Serialize};

use super::PortName;

/// Frames with the same ends that come in by one port, and an estimate of how many they are in a second. All else is as it came in: before NAT.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LiveFlow {
    /// The port, tunnel or uplink that they come in by.
    pub r#in: PortName,
    /// The one that they leave by; `None`: several, or none.
    pub out: Option<PortName>,
    /// What became of the last that was looked at: `bridged`, `flooded`, `routed`, `answered`, `noted`, `service`, `waiting_for_neighbor`,
    /// `waiting_for_fragments` or `dropped`.
    pub verdict: String,
    /// Why it was dropped, spelled as in the JSON of `vsctl stats`.
    pub drop_reason: Option<String>,
    /// Their VLAN, if they got into one.
    pub vlan: Option<VlanId>,
    /// Whose they are.
    pub source_mac: Mac,
    /// Whom they are for.
    pub destination_mac: Mac,
    /// What they carry, behind the tag.
    pub ethertype: u16,
    /// The same in a word: `tcp`, `udp`, `sctp`, `icmp`, `ip-N` of another protocol of IP, `arp`, or the EtherType, as in `0x88cc`.
    pub protocol: String,
    /// The IP address that they come from.
    pub source: Option<IpAddr>,
    /// The IP address that they are for.
    pub destination: Option<IpAddr>,
    /// The port of TCP, UDP or SCTP that they come from.
    pub source_port: Option<u16>,
    /// The one that they are for.
    pub destination_port: Option<u16>,
    /// Bytes in a second.
    pub bytes_per_second: f64,
    /// Frames in a second; a super-frame counts once.
    pub frames_per_second: f64,
}

/// One of the ends of a flow: an IP address, with its port where there is one, or a MAC address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowEnd {
    /// Of TCP, UDP or SCTP.
    Socket(SocketAddr),
    /// Of other packets.
    Address(IpAddr),
    /// Of other frames.
    Station(Mac),
}

impl LiveFlow {
    /// Where it comes from.
    pub fn from(&self) -> FlowEnd {
        FlowEnd::of(self.source, self.source_port, self.source_mac)
    }

    /// Where it goes.
    pub fn to(&self) -> FlowEnd {
        FlowEnd::of(self.destination, self.destination_port, self.destination_mac)
    }

    /// The ports of its way, or what becomes of it instead: `a → b`, `a: guard-ip`.
    pub fn way(&self) -> String {
        let from = &self.r#in;
        match (&self.drop_reason, &self.out) {
            (Some(reason), _) => format!("{from}: {}", reason.replace('_', "-")),
            (None, Some(out)) => format!("{from} → {out}"),
            (None, None) => format!("{from}: {}", self.verdict.replace('_', "-")),
        }
    }
}

impl FlowEnd {
    fn of(address: Option<IpAddr>, port: Option<u16>, station: Mac) -> Self {
        match (address, port) {
            (Some(address), Some(port)) => Self::Socket(SocketAddr::new(address, port)),
            (Some(address), None) => Self::Address(address),
            (None, _) => Self::Station(station),
        }
    }
}

impl fmt::Display for FlowEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(socket) => socket.fmt(f),
            Self::Address(address) => address.fmt(f),
            Self::Station(mac) => mac.fmt(f),
        }
    }
}
