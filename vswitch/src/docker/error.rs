//! Why the driver refuses what Docker asks, in sentences for its user. Everything in `docker` returns them, and so does `control/docker`.
//! Touches nothing.

use std::net::{IpAddr, Ipv4Addr};

use packet::Mac;

use super::id::IdError;
use super::{EndpointId, NetworkId};
use crate::services::{LIMIT, PATIENCE};
use api::{BridgeName, OverlayName, PortName, SpecError};

/// Why the driver does not do what Docker asks, in one sentence that the user reads after `docker: Error response from daemon`.
#[derive(Debug, thiserror::Error)]
pub enum DockerError {
    /// A message that Docker does not send.
    #[error("the request is not understood: {0}")]
    Malformed(String),
    /// Not an identifier.
    #[error(transparent)]
    Id(#[from] IdError),
    /// An option that is unknown, or that has no such value.
    #[error("{0}")]
    Option(String),
    /// Another network has the identifier's first characters.
    #[error("bridge \"{0}\" exists already: try again, and Docker gives the network another identifier")]
    BridgeTaken(BridgeName),
    /// Another port has the identifier's first characters.
    #[error("port \"{0}\" exists already: try again, and Docker gives the container another identifier")]
    PortTaken(PortName),
    /// A bridge that `switch.toml` does not have.
    #[error(
        "there is no bridge \"{0}\" in switch.toml: leave out `vswitch.bridge`, or add a [[bridge]] with that name and reload"
    )]
    NoBridge(BridgeName),
    /// A network whose gateway is not its bridge's.
    #[error("the gateway {gateway} is not that of bridge \"{bridge}\", which is {own}: use --subnet {subnet} --gateway {own}")]
    OtherGateway {
        /// What Docker gave.
        gateway: IpAddr,
        /// The bridge.
        bridge: BridgeName,
        /// What it has.
        own: IpAddr,
        /// Its subnet.
        subnet: ipnet::IpNet,
    },
    /// A gateway outside its subnet.
    #[error("the gateway {0} is not in the subnet {1}: use one that is")]
    GatewayOutside(IpAddr, ipnet::IpNet),
    /// A way out for a network that has no addresses.
    #[error(
        "`vswitch.uplink` is for a network with a subnet, which one with `--ipam-driver null` or `--ipv4=false` alone is not: leave it out"
    )]
    NoWayOut,
    /// Two MAC addresses for one interface.
    #[error("`vswitch.mac` and `--mac-address` differ: give one of them")]
    TwoMacs,
    /// An address that is none.
    #[error("\"{}\" is not {what}", .0.escape_debug(), what = .1)]
    NotAnAddress(String, &'static str),
    /// A network that contradicts itself.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// A network without a way out that is given one.
    #[error("`{0}` is no option of an internal network, which reaches nothing else: leave out one of the two")]
    Internal(&'static str),
    /// A network that Docker knows and the driver does not.
    #[error("the driver vswitch does not know network {0}: its state-dir was lost, so remove the network and create it again")]
    NoNetwork(NetworkId),
    /// A network that does not run.
    #[error("the network does not run, for its bridge \"{0}\" does not fit switch.toml: the log of vswitchd says why")]
    LeftOut(BridgeName),
    /// An endpoint that Docker knows and the driver does not.
    #[error(
        "the driver vswitch does not know endpoint {0}: its state-dir was lost, or its container was taken for dead; restart it"
    )]
    NoEndpoint(EndpointId),
    /// Something of that identifier is there and is different.
    #[error("{0} exists already and is different: remove it first")]
    Different(String),
    /// An address that another station has.
    #[error("the address {0} is that of port \"{1}\" already: use another")]
    AddressTaken(String, PortName),
    /// An address that the host has.
    #[error(
        "the address {0} is the host's own on this LAN: use another, and keep containers off it with --ip-range or --aux-address"
    )]
    AddressOfHost(IpAddr),
    /// An address outside the network.
    #[error("the address {0} is in no subnet of the network: use one that is")]
    AddressOutside(IpAddr),
    /// No DHCP server on a LAN.
    #[error(
        "no DHCP server answered on {0} within {seconds} s: start one there, or make the network with a --subnet and an --ip-range that is free",
        seconds = PATIENCE.as_secs()
    )]
    Unanswered(String),
    /// One that does not grant what it offers.
    #[error(
        "the DHCP server on {0} offered an address and did not grant one within {seconds} s: its log says why",
        seconds = LIMIT.as_secs()
    )]
    Unfinished(String),
    /// Addresses that others have.
    #[error(
        "the address {1}, which DHCP gave on {0}, is that of the station {2} already: have the server leave it alone, and try again"
    )]
    Declined(String, Ipv4Addr, Mac),
    /// An address that another station on the LAN has.
    #[error(
        "the address {1} is that of the station {2} on {0} already: use another, and an --ip-range that nobody else has addresses of"
    )]
    InUse(String, Ipv4Addr, Mac),
    /// An endpoint without an address.
    #[error("the container is given no address: the driver vswitch needs one")]
    NoAddress,
    /// No place for a sandbox.
    #[error("\"{}\" is not the file of a network namespace", .0.escape_debug())]
    Sandbox(String),
    /// A port that cannot be published.
    #[error("{0}")]
    Port(String),
    /// No port left.
    #[error("{0} in use: publish another port, or end what uses it (`vsctl list-forwards` and `ss -lnp` name it)")]
    PortsTaken(String),
    /// More than fits.
    #[error("the driver vswitch has {0} already, the most that it takes: remove some first")]
    TooMany(String),
    /// `vswitch-overlay` without a cluster.
    #[error(
        "this host is in no cluster, and so in no overlay network: add [cluster] to switch.toml, with `store`, `endpoints` and `underlay`, and reload"
    )]
    NoCluster,
    /// What the store may have in a moment. Docker waits for it a while.
    #[error("overlay network \"{0}\": {1}; `vsctl cluster status` says how it stands with the store")]
    NotYet(OverlayName, String),
    /// A subnet or address that cannot be given.
    #[error("{0}")]
    Ipam(String),
}
