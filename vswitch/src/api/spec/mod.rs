//! Bridges and ports as `switch.toml` describes them, and what they may not be.

mod bridge;
mod netns;
mod port;
mod vlan;

use ipnet::IpNet;
use packet::Mac;

use super::{BridgeName, PortName};

pub(crate) use bridge::check_ipv6_mtu;
pub use bridge::{BridgeSpec, ControlFrames};
pub use netns::Netns;
pub use port::{PortKind, PortSpec};
pub use vlan::{VlanError, VlanMode};

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
    Mtu(u32, BridgeName),
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
    MaxMacs(u32, BridgeName),
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
    #[error("port \"{0}\" of kind link takes an interface as it is: leave out `{1}`")]
    NotForLink(PortName, &'static str),
    /// A MAC address that no station may have.
    #[error("MAC address {1} of port \"{0}\" is a group address or zero: use a unicast one, such as 02:00:00:00:00:0a")]
    GroupMac(PortName, Mac),
    /// A storm limit of zero.
    #[error("broadcast-limit of port \"{0}\" is 0, which would cut off ARP: use 1 or more frames a second, or leave it out")]
    ZeroLimit(PortName),
}

fn yes() -> bool {
    true
}
