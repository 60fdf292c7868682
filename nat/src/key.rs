//! What identifies a flow: protocol, addresses, ports. For an ICMP query the identifier stands for the port of the host that asks.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use packet::IpVersion;
use serde::{Deserialize, Serialize};

use crate::Protocol;

/// A transport in one of the IP versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kind {
    pub(crate) transport: Transport,
    pub(crate) version: IpVersion,
}

/// What is tracked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// Queries of ICMP or ICMPv6 and their replies.
    Icmp,
}

/// An address with a port, or with the identifier of an ICMP query. An IPv4 address is in the low bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) address: u128,
    pub(crate) port: u16,
}

impl Kind {
    /// Number of kinds.
    pub(crate) const COUNT: usize = 6;

    pub(crate) const fn index(self) -> usize {
        self.transport as usize * 2 + self.version as usize
    }

    /// The same in a byte.
    pub(crate) const fn number(self) -> u8 {
        self.transport as u8 * 2 + self.version as u8
    }

    pub(crate) const fn of(protocol: Protocol, version: IpVersion) -> Self {
        let transport = match protocol {
            Protocol::Tcp => Transport::Tcp,
            Protocol::Udp => Transport::Udp,
        };
        Self { transport, version }
    }

    /// Where the checksum is in the transport's header.
    pub(crate) const fn checksum(self) -> usize {
        match self.transport {
            Transport::Tcp => 16,
            Transport::Udp => 6,
            Transport::Icmp => 2,
        }
    }
}

impl Transport {
    /// The name that users see.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Icmp => "icmp",
        }
    }
}

impl Endpoint {
    pub(crate) const fn new(address: IpAddr, port: u16) -> Self {
        Self { address: bits(address), port }
    }

    pub(crate) fn socket(self, version: IpVersion) -> SocketAddr {
        SocketAddr::new(address(version, self.address), self.port)
    }
}

/// An address as a number.
pub(crate) const fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits() as u128,
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// A number as an address.
pub(crate) fn address(version: IpVersion, bits: u128) -> IpAddr {
    match version {
        IpVersion::V4 => Ipv4Addr::from_bits(u32::try_from(bits).unwrap_or_default()).into(),
        IpVersion::V6 => Ipv6Addr::from_bits(bits).into(),
    }
}

/// The version of an address.
pub(crate) const fn version(address: IpAddr) -> IpVersion {
    match address {
        IpAddr::V4(_) => IpVersion::V4,
        IpAddr::V6(_) => IpVersion::V6,
    }
}
