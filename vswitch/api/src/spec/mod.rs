//! Bridges and ports as `switch.toml` describes them, and what they may not be.

mod bridge;
mod netns;
mod policy;
mod port;
mod stp;
mod vlan;

use std::net::IpAddr;

use ipnet::IpNet;
use packet::Mac;

use super::{BridgeName, PortName, RouteSpec};

pub use bridge::{BridgeSpec, ControlFrames};
pub use bridge::{BridgeTable, check_ipv6_mtu};
pub use netns::Netns;
pub use policy::PortPolicy;
pub use port::PortTable;
pub use port::{PortKind, PortSpec};
pub use stp::{Stp, StpBridgePriority, StpCost, StpEdge, StpPortPriority};
pub use vlan::{VlanError, VlanList, VlanListError, VlanMode};

/// A specification that contradicts itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// An unknown kind of port.
    #[error("\"{0}\" is not a kind of port: use tap, veth or link")]
    Kind(String),
    /// Not a namespace.
    #[error("\"{}\" is not a network namespace: use a name under /run/netns, a path, or pid:N", .0.escape_default())]
    Netns(String),
    /// MTU out of range.
    #[error("MTU {0} of bridge \"{1}\" is out of range: use 68 to 65535")]
    Mtu(i64, BridgeName),
    /// An IPv6 gateway on a link that IPv6 cannot use.
    #[error(
        "bridge \"{0}\" has an IPv6 address and would have MTU {1}, but IPv6 takes 1280 and more (RFC 8200, section 5): raise the MTU, or leave out its IPv6 addresses"
    )]
    Ipv6Mtu(BridgeName, u16),
    /// Ageing time out of range.
    #[error("ageing of bridge \"{0}\" is out of range: use 1s to 1000000s")]
    Ageing(BridgeName),
    /// MAC limit out of range.
    #[error("max-macs {0} of bridge \"{1}\" is out of range: use 1 to 1048576")]
    MaxMacs(i64, BridgeName),
    /// An address that no gateway may have.
    #[error(
        "bridge \"{0}\" cannot have the address {1}: it is that of a subnet, a group or everybody; use one of a host in it"
    )]
    NotAHost(BridgeName, IpNet),
    /// Two subnets of one bridge overlap.
    #[error("addresses {1} and {2} of bridge \"{0}\" are in one subnet: give it one address in each")]
    SameSubnet(BridgeName, IpNet, IpNet),
    /// DHCP without a subnet.
    #[error("bridge \"{0}\" has `dhcp` but no address to serve a subnet of: give it `addresses`")]
    DhcpWithoutAddress(BridgeName),
    /// An uplink without a gateway to it.
    #[error("bridge \"{0}\" has `uplink` but no address: give it `addresses`, its gateway's")]
    UplinkWithoutAddress(BridgeName),
    /// Nothing to encrypt.
    #[error("bridge \"{0}\" has `encrypt` but no `overlay`: it is for frames between hosts; give it `overlay`")]
    EncryptWithoutOverlay(BridgeName),
    /// Too many routes.
    #[error("bridge \"{0}\" has {1} routes: use at most 256")]
    Routes(BridgeName, usize),
    /// A next hop that the bridge does not reach.
    #[error("bridge \"{0}\" has route \"{1}\", whose next hop is in none of the bridge's subnets{hint}", hint = hint(.2))]
    NextHopOutside(BridgeName, RouteSpec, Vec<IpNet>),
    /// A next hop that is the gateway.
    #[error(
        "bridge \"{0}\" has route \"{1}\", whose next hop is the gateway itself: use the address of a station that routes on"
    )]
    NextHopIsGateway(BridgeName, RouteSpec),
    /// A route to the subnet that the gateway is in.
    #[error("bridge \"{0}\" has route \"{1}\", which is the bridge's own subnet: leave it out, or use a longer prefix")]
    RouteToSubnet(BridgeName, RouteSpec),
    /// Two routes to one destination.
    #[error("bridge \"{0}\" has route \"{2}\", which leads to the same subnet as \"{1}\": keep one")]
    SameRoute(BridgeName, RouteSpec, RouteSpec),
    /// Its VLANs.
    #[error("port \"{0}\" {1}")]
    Vlans(PortName, VlanError),
    /// A link without a device.
    #[error("port \"{0}\" of kind link needs `device`, the name of the interface that it takes")]
    LinkWithoutDevice(PortName),
    /// A device on a port that makes its own.
    #[error("port \"{0}\" of kind {1} makes its own device: `device` is for kind link; use `ifname` for the name")]
    DeviceNotLink(PortName, PortKind),
    /// Something that belongs to the owner of a link.
    #[error("port \"{0}\" of kind link takes an interface as it is: leave out `{1}`{by_vsctl}", by_vsctl = taken_away(.1))]
    NotForLink(PortName, &'static str),
    /// An address that no station may have.
    #[error("port \"{0}\" cannot have the address {1}: it is that of a subnet, a group or everybody; use one of a host in it")]
    NotAStation(PortName, IpNet),
    /// One address twice.
    #[error("port \"{0}\" has the address {1} twice: keep one")]
    SameAddress(PortName, IpAddr),
    /// A MAC address that no station may have.
    #[error("MAC address {1} of port \"{0}\" is a group address or zero: use a unicast one, such as 02:00:00:00:00:0a")]
    GroupMac(PortName, Mac),
}

impl SpecError {
    /// The keys of the table that it is about, the wrong one first.
    pub fn keys(&self) -> &'static [&'static str] {
        match self {
            Self::Kind(_) => &["kind"],
            Self::Netns(_) => &["netns"],
            Self::Mtu(..) => &["mtu"],
            Self::Ipv6Mtu(..) => &["mtu", "addresses"],
            Self::Ageing(_) => &["ageing"],
            Self::MaxMacs(..) => &["max-macs"],
            Self::NotAHost(..) | Self::SameSubnet(..) | Self::NotAStation(..) | Self::SameAddress(..) => &["addresses"],
            Self::DhcpWithoutAddress(_) => &["dhcp", "addresses"],
            Self::UplinkWithoutAddress(_) => &["uplink", "addresses"],
            Self::EncryptWithoutOverlay(_) => &["encrypt", "overlay"],
            Self::NextHopOutside(..) | Self::NextHopIsGateway(..) | Self::RouteToSubnet(..) => &["routes", "addresses"],
            Self::Routes(..) | Self::SameRoute(..) => &["routes"],
            Self::Vlans(_, error) => error.keys(),
            Self::LinkWithoutDevice(_) => &["kind", "device"],
            Self::DeviceNotLink(..) => &["device", "kind"],
            Self::NotForLink(_, "ifname") => &["ifname", "kind"],
            Self::NotForLink(_, "addresses") => &["addresses", "kind"],
            Self::NotForLink(_, "guard") => &["guard", "kind"],
            Self::NotForLink(..) => &["mac", "kind"],
            Self::GroupMac(..) => &["mac"],
        }
    }
}

/// What may be used instead of an address in none of these subnets.
fn hint(addresses: &[IpNet]) -> String {
    match addresses {
        [] => ": give the bridge `addresses` first".to_owned(),
        all => {
            let all = all.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ");
            format!(": use a station's address in {all}")
        }
    }
}

/// How vsctl takes from a port what a link cannot have.
fn taken_away(key: &str) -> &'static str {
    match key {
        "addresses" => " (vsctl set-port: --address none)",
        "mac" => " (vsctl set-port: --mac none)",
        "guard" => " (vsctl set-port: --guard off)",
        _ => "",
    }
}

fn yes() -> bool {
    true
}
