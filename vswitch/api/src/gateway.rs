//! What is told of gateways and uplinks: their state, forwards, sessions, neighbours, leases, routes.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use packet::Mac;
use serde::{Deserialize, Serialize};

use super::{BridgeName, DockerPlace, ForwardSpec, InterfaceName, Origin, PortName, PortState, UplinkKindName, protocol_name};

/// An uplink.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UplinkInfo {
    /// Its name.
    pub name: PortName,
    /// What it is made of.
    pub kind: UplinkKindName,
    /// The interface of a link.
    pub device: Option<InterfaceName>,
    /// Its MAC address.
    pub mac: Mac,
    /// Its MTU in bytes.
    pub mtu: u16,
    /// Its addresses now.
    pub addresses: Vec<IpNet>,
    /// The routers that lead on from there.
    pub gateways: Vec<IpAddr>,
    /// Whether addresses and gateways come from DHCP.
    pub dhcp: bool,
    /// Sessions that it has.
    pub sessions: u64,
    /// External ports and ICMP identifiers in use.
    pub ports_in_use: u64,
    /// What became of sessions, and what its kind counts besides, since it was opened.
    #[serde(default)]
    pub counters: BTreeMap<String, u64>,
    /// Whether it forwards.
    pub state: PortState,
    /// What the kernel was found to offer.
    pub features: Vec<String>,
    /// What asked for it.
    pub origin: Origin,
}

/// A published port, or a range of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForwardInfo {
    /// The uplink.
    pub uplink: PortName,
    /// `tcp` or `udp`.
    pub protocol: String,
    /// The ports there, such as `8080` or `5000-5100`.
    pub ports: String,
    /// The address there; none: every one that the uplink has.
    pub listen: Option<IpAddr>,
    /// Where the first of them goes.
    pub to: SocketAddr,
    /// What asked for it.
    pub origin: Origin,
}

impl ForwardInfo {
    /// A row about a forward.
    pub fn new(spec: &ForwardSpec, origin: Origin) -> Self {
        Self {
            uplink: spec.key.uplink.clone(),
            protocol: protocol_name(spec.key.protocol).to_owned(),
            ports: spec.key.ports.to_string(),
            listen: spec.key.listen,
            to: spec.to,
            origin,
        }
    }
}

/// A session of an uplink: a connection, a flow of datagrams, or pings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionInfo {
    /// The uplink.
    pub uplink: PortName,
    /// `tcp`, `udp` or `icmp`.
    pub protocol: String,
    /// `out`: a station began it; `in`: a host outside did.
    pub direction: String,
    /// The station's address and port; of pings, the identifier.
    pub inside: SocketAddr,
    /// The container that has this address.
    #[serde(flatten)]
    pub docker: DockerPlace,
    /// The same as the outside sees it; none where the host's own sockets stand for it.
    pub external: Option<SocketAddr>,
    /// The other end.
    pub remote: SocketAddr,
    /// How far it is.
    pub state: String,
    /// Seconds until it ends if it stays idle; none where that is up to the two ends.
    pub seconds_left: Option<u64>,
    /// Frames from the station; none where the host's own sockets count bytes only.
    pub out_frames: Option<u64>,
    /// Bytes from the station.
    pub out_bytes: u64,
    /// Frames to the station.
    pub in_frames: Option<u64>,
    /// Bytes to the station.
    pub in_bytes: u64,
}

/// What an address is to its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeaseState {
    /// Offered, and not yet asked for.
    Offered,
    /// Given out.
    Bound,
    /// In use by a station that does not have it from here: the client that had it says so, or that station.
    Declined,
    /// Given back; the client's when it returns.
    Released,
}

/// An address that a gateway has given out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseRow {
    /// The bridge.
    pub bridge: BridgeName,
    /// The address.
    pub address: IpAddr,
    /// The MAC address of the station that has it.
    pub mac: Mac,
    /// The name under which the bridge's stations find it: that of its port.
    pub name: PortName,
    /// What Docker calls it.
    #[serde(flatten)]
    pub docker: DockerPlace,
    /// `bound`: given out; `offered`: not asked for yet; `declined`: an unknown station has it, says a client.
    pub state: LeaseState,
    /// Seconds until that ends.
    pub seconds_left: u64,
}

/// A way by which packets of a bridge's stations go on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteInfo {
    /// The bridge whose stations it is for.
    pub bridge: BridgeName,
    /// Where it leads.
    pub to: IpNet,
    /// The next hop; none: the destination itself.
    pub via: Option<IpAddr>,
    /// The uplink by which it leads; none: the bridge.
    pub uplink: Option<PortName>,
    /// `connected`: a subnet of the bridge; `static`: one of its routes; `default`: its uplink.
    pub kind: String,
}

/// A neighbour of a gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NeighborInfo {
    /// The bridge or uplink that it is on.
    #[serde(default)]
    pub interface: String,
    /// Its address.
    pub address: IpAddr,
    /// Its MAC address; none: it does not answer.
    pub mac: Option<Mac>,
    /// Seconds since it was last heard of, or first asked for.
    pub age_seconds: u64,
}
