//! Why a tunnel cannot be as it is described.

use std::net::IpAddr;

use packet::Mac;

use crate::{PortName, VlanError};

/// A tunnel that contradicts itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VxlanError {
    /// The local address is none of one host.
    #[error("`local` of vxlan \"{0}\" is {1}, which no host has: use an address of this host")]
    Local(PortName, IpAddr),
    /// An address that needs an interface besides.
    #[error(
        "{1} in `{2}` of vxlan \"{0}\" is a link-local address, which means nothing without its link: use a global or unique local one"
    )]
    LinkLocal(PortName, IpAddr, &'static str),
    /// A peer is this host.
    #[error("peer {1} of vxlan \"{0}\" is its own `local` address: list the other hosts only")]
    PeerIsLocal(PortName, IpAddr),
    /// A peer is none of one host.
    #[error("peer {1} of vxlan \"{0}\" is not the address of a host: list addresses of hosts, or use `group` for multicast")]
    Peer(PortName, IpAddr),
    /// Mixed families.
    #[error("{1} of vxlan \"{0}\" is not of the same IP version as `local` {2}: a tunnel runs over one of them")]
    Family(PortName, IpAddr, IpAddr),
    /// Too many peers.
    #[error("vxlan \"{0}\" has {1} peers: use at most {most}, or `group`", most = vxlan::Peers::MOST)]
    Peers(PortName, usize),
    /// Both ways of flooding.
    #[error("vxlan \"{0}\" has both `peers` and `group`: list the peers, or use a group and its `device`")]
    PeersAndGroup(PortName),
    /// Not a group.
    #[error("group {1} of vxlan \"{0}\" is not a multicast address: use one of 224.0.0.0/4 or ff00::/8")]
    Group(PortName, IpAddr),
    /// A group without an interface.
    #[error("vxlan \"{0}\" has a `group` but no `device`: name the interface that the group is joined on")]
    NoDevice(PortName),
    /// An interface without a group.
    #[error("vxlan \"{0}\" has a `device` but no `group`: `device` says where a group is joined; leave it out with `peers`")]
    DeviceWithoutGroup(PortName),
    /// Port out of range.
    #[error("`port` of vxlan \"{0}\" is {1}: use 4789, 8472 for hosts that use Linux's old one, or another of 1 to 65535")]
    Port(PortName, i64),
    /// TTL out of range.
    #[error("`ttl` of vxlan \"{0}\" is {1}: use 1 to 255; with 0 no packet leaves the host")]
    Ttl(PortName, i64),
    /// Limit of flooding out of range.
    #[error("`bum-limit` of vxlan \"{0}\" is {1}: use 0 to 4294967295 frames a second; 0 is no limit")]
    BumLimit(PortName, i64),
    /// Its VLANs.
    #[error("vxlan \"{0}\" {1}")]
    Vlans(PortName, VlanError),
    /// A station behind a host that is no peer.
    #[error(
        "static entry {1} of vxlan \"{0}\" is behind {2}, which is not one of its peers: add the peer, or correct the entry"
    )]
    StationPeer(PortName, Mac, IpAddr),
    /// A station that cannot be.
    #[error("static entry {1} of vxlan \"{0}\" is a group address or zero: use the address of one station")]
    StationMac(PortName, Mac),
    /// The same station twice.
    #[error("static entry {1} of vxlan \"{0}\" is behind two peers: leave one out")]
    StationTwice(PortName, Mac),
    /// A peer to be removed is not there.
    #[error("{1} is no peer of vxlan \"{0}\": `vsctl list-vxlan` lists them")]
    NoPeer(PortName, IpAddr),
    /// A station to be removed is not there.
    #[error("vxlan \"{0}\" has no static entry for {1}: `vsctl fdb` lists them")]
    NoStation(PortName, Mac),
}

impl VxlanError {
    /// The keys of the table that it is about, the wrong one first.
    pub fn keys(&self) -> &'static [&'static str] {
        match self {
            Self::Local(..) | Self::LinkLocal(_, _, "local") => &["local"],
            Self::LinkLocal(..) => &["peers"],
            Self::Family(..) => &["peers", "group", "local"],
            Self::PeerIsLocal(..) => &["peers", "local"],
            Self::Peer(..) | Self::Peers(..) | Self::NoPeer(..) => &["peers"],
            Self::PeersAndGroup(_) => &["group", "peers"],
            Self::Group(..) => &["group"],
            Self::NoDevice(_) => &["group", "device"],
            Self::DeviceWithoutGroup(_) => &["device", "group"],
            Self::Port(..) => &["port"],
            Self::Ttl(..) => &["ttl"],
            Self::BumLimit(..) => &["bum-limit"],
            Self::Vlans(_, error) => error.keys(),
            Self::StationPeer(..) => &["static", "peers"],
            Self::StationMac(..) | Self::StationTwice(..) | Self::NoStation(..) => &["static"],
        }
    }
}
