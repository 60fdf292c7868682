//! What vswitchd answers: one reply for each request, and the rows of its listings. The control side fills them in,
//! `vsctl` prints them or passes on their JSON.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use packet::{Mac, VlanId};
use serde::{Deserialize, Serialize};

use super::{
    AddressConflictsInfo, BridgeName, BridgeSpec, ChangeInfo, ClusterAnswer, ContainerInfo, ControlFrames, DockerPlace, Ending,
    EventInfo, FlannelInfo, ForwardInfo, InterfaceName, LeaseRow, LiveInfo, MacMovesInfo, NeighborInfo, Netns, OverlayName,
    PoolInfo, PortKind, PortName, PortPolicy, PortSpec, PortState, RouteInfo, RouteSpec, SessionInfo, Stp, StpInfo, StpState,
    TraceInfo, UplinkInfo, VlanList, VlanMode, VxlanInfo,
};

/// The answer to a [`Request`](super::Request).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// It is done. The notes say what the user should know besides, one sentence each.
    Done(Vec<String>),
    /// The bridges, by name.
    Bridges(Vec<BridgeInfo>),
    /// The ports, by name.
    Ports(Vec<PortInfo>),
    /// The tunnels, by name.
    Vxlans(Vec<VxlanInfo>),
    /// The whole switch.
    Switch(Box<SwitchInfo>),
    /// MAC addresses, by VLAN and address.
    Fdb(Vec<FdbEntry>),
    /// Counters, by port name.
    Stats(Vec<PortStats>),
    /// Counters, and how full the tables are.
    Live(Box<LiveInfo>),
    /// What happened, the oldest first.
    Events(Vec<EventInfo>),
    /// The uplinks, by name.
    Uplinks(Vec<UplinkInfo>),
    /// The forwards, by uplink, protocol and port.
    Forwards(Vec<ForwardInfo>),
    /// Sessions, in no order.
    Sessions(Vec<SessionInfo>),
    /// Neighbours, by bridge or uplink, and address.
    Neighbors(Vec<NeighborInfo>),
    /// A container's interface.
    Container(Box<ContainerInfo>),
    /// Addresses that gateways have given out, by bridge and address.
    Leases(Vec<LeaseRow>),
    /// Routes, by bridge, the longest prefix first.
    Routes(Vec<RouteInfo>),
    /// Spanning trees, by bridge.
    Stp(Vec<StpInfo>),
    /// What the cluster is.
    Cluster(Box<ClusterAnswer>),
    /// The network of flannel's.
    Flannel(Box<FlannelInfo>),
    /// The way of a frame.
    Trace(Box<TraceInfo>),
    /// A `switch.toml`.
    Export(String),
    /// What vsctl changed.
    Changes(Vec<ChangeInfo>),
    /// vswitchd has ended, but for its process, which is about to.
    Ended(Ending),
}

/// The whole switch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SwitchInfo {
    /// Version of vswitchd.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// Seconds since it started.
    pub uptime_seconds: u64,
    /// Data-plane threads.
    pub workers: usize,
    /// The file that it was started with.
    pub config: String,
    /// What its threads that take in frames are confined by, or `off`.
    pub sandbox: String,
    /// Its bridges, by name.
    pub bridges: Vec<BridgeInfo>,
    /// Its ports, by name.
    pub ports: Vec<PortInfo>,
    /// Its uplinks, by name.
    pub uplinks: Vec<UplinkInfo>,
    /// Its forwards.
    pub forwards: Vec<ForwardInfo>,
    /// Its tunnels, by name.
    pub vxlans: Vec<VxlanInfo>,
    /// Captures that are running.
    pub captures: usize,
    /// What is most likely a mistake, one sentence each.
    pub warnings: Vec<String>,
}

/// A bridge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BridgeInfo {
    /// Its name.
    pub name: BridgeName,
    /// Its MTU in bytes.
    pub mtu: u16,
    /// The MTU that its TAP and veth devices get: less where a tunnel of the bridge carries less.
    pub port_mtu: u16,
    /// MAC addresses that move to and fro between ports, as they do in a loop, and are held for a while.
    pub moving_macs: usize,
    /// How often MAC addresses moved from one port to another.
    pub mac_moves: MacMovesInfo,
    /// IP addresses that two stations have, or a station and the gateway.
    pub address_conflicts: AddressConflictsInfo,
    /// Seconds that a MAC address is remembered.
    pub ageing_seconds: u64,
    /// MAC addresses that it knows.
    pub macs: usize,
    /// Most MAC addresses that it may know.
    pub max_macs: u32,
    /// MAC addresses put out because the table was full.
    pub evictions: u64,
    /// What it does with frames between bridges.
    #[serde(flatten)]
    pub between: BetweenInfo,
    /// Its gateway, if it has addresses.
    #[serde(flatten)]
    pub gateway: GatewayInfo,
    /// Number of its ports.
    pub ports: usize,
    /// What asked for it.
    pub origin: Origin,
    /// What Docker calls its networks that are on it.
    pub networks: Vec<String>,
}

impl BridgeInfo {
    /// A row about a bridge with so many ports and MAC addresses.
    pub fn new(spec: &BridgeSpec, origin: Origin, gateway: Mac, (ports, macs, evictions): (usize, usize, u64)) -> Self {
        Self {
            name: spec.name.clone(),
            mtu: spec.mtu,
            port_mtu: spec.mtu,
            moving_macs: 0,
            mac_moves: MacMovesInfo::default(),
            address_conflicts: AddressConflictsInfo::default(),
            ageing_seconds: spec.ageing.as_secs(),
            macs,
            max_macs: spec.max_macs,
            evictions,
            between: BetweenInfo {
                control_frames: spec.control_frames,
                stp: spec.stp,
                overlay: spec.overlay.clone(),
                encrypt: spec.encrypt,
            },
            gateway: GatewayInfo {
                addresses: spec.addresses.clone(),
                gateway_mac: Some(gateway).filter(|_| !spec.addresses.is_empty()),
                gateway_vlan: spec.gateway_vlan,
                dhcp: spec.dhcp,
                pools: Vec::new(),
                uplink: spec.uplink.clone(),
                isolated: spec.isolated,
                routes: spec.routes.clone(),
            },
            ports,
            origin,
            networks: Vec::new(),
        }
    }
}

/// What a bridge does with frames that bridges say to each other, and with which bridges of other hosts it is one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BetweenInfo {
    /// Link-local control frames.
    pub control_frames: ControlFrames,
    /// Those of a spanning tree, if it is part of one.
    #[serde(default)]
    pub stp: Stp,
    /// The overlay network that it is a part of.
    #[serde(default)]
    pub overlay: Option<OverlayName>,
    /// Whether that network is an encrypted one.
    #[serde(default)]
    pub encrypt: bool,
}

/// What asked for a bridge, port, uplink, forward or tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// `switch.toml`.
    File,
    /// A change at run time.
    Runtime,
    /// A network of Docker's.
    Docker,
    /// A container of Podman's, or of a runtime that speaks CNI.
    Container,
    /// The cluster, for the overlay network of a bridge.
    Cluster,
    /// A network of flannel's, for the bridge that has a subnet of it.
    Flannel,
}

impl Origin {
    /// Whether a user asked for it, in the file or by `vsctl`; else a container's runtime did.
    pub const fn is_of_users(self) -> bool {
        matches!(self, Self::File | Self::Runtime)
    }
}

/// The gateway of a bridge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayInfo {
    /// The addresses of its gateway.
    pub addresses: Vec<IpNet>,
    /// The MAC address of its gateway.
    pub gateway_mac: Option<Mac>,
    /// The VLAN of its gateway.
    pub gateway_vlan: VlanId,
    /// Whether its gateway gives addresses.
    pub dhcp: bool,
    /// How far those are given out, IPv4 first.
    pub pools: Vec<PoolInfo>,
    /// Its uplink.
    pub uplink: Option<PortName>,
    /// Whether nothing is routed between it and others.
    pub isolated: bool,
    /// The static routes of its gateway.
    #[serde(default)]
    pub routes: Vec<RouteSpec>,
}

/// The VLANs of a port or tunnel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VlanInfo {
    /// The VLAN of an access port.
    pub vlan: Option<VlanId>,
    /// The tagged VLANs of a trunk.
    pub trunk: Option<Vec<VlanId>>,
    /// The VLAN of untagged frames on a trunk.
    pub native: Option<VlanId>,
}

impl From<&VlanMode> for VlanInfo {
    fn from(vlans: &VlanMode) -> Self {
        let (vlan, trunk, native) = vlans.keys();
        Self { vlan, trunk: trunk.map(VlanList::into_vec), native }
    }
}

/// A port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortInfo {
    /// Its name.
    pub name: PortName,
    /// Its bridge.
    pub bridge: BridgeName,
    /// What carries its frames.
    pub kind: PortKind,
    /// The namespace of its device; `None`: that of vswitchd.
    pub netns: Option<Netns>,
    /// The name of its device.
    pub ifname: InterfaceName,
    /// The MAC address of its device.
    pub mac: Option<Mac>,
    /// Addresses that the switch set on the device.
    pub addresses: Vec<IpNet>,
    /// Its VLANs.
    #[serde(flatten)]
    pub vlans: VlanInfo,
    /// What it may do, and how much.
    #[serde(flatten)]
    pub policy: PortPolicy,
    /// Whether frames can pass.
    pub state: PortState,
    /// What the kernel was found to offer for this port, such as `vnet_hdr` or `uso`.
    pub features: Vec<String>,
    /// What asked for it.
    pub origin: Origin,
    /// The container that it belongs to.
    #[serde(flatten)]
    pub docker: DockerPlace,
    /// What is so just now.
    #[serde(flatten)]
    pub now: PortNow,
}

/// What is so of a port just now, and follows from nothing that it was given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortNow {
    /// The lease of its address, of a container on a LAN with DHCP.
    pub lease: Option<LeaseInfo>,
    /// What the spanning tree of its bridge lets pass; `None`: there is none.
    #[serde(default)]
    pub stp_state: Option<StpState>,
    /// How its device differs from what the switch had made, in a sentence without a subject.
    #[serde(default)]
    pub altered: Option<String>,
}

/// The lease of a container's address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseInfo {
    /// The DHCP server that gave it.
    pub server: Ipv4Addr,
    /// Whether it grants it now; else it is asked again.
    pub granted: bool,
    /// Seconds for which it grants it each time.
    pub seconds: Option<u32>,
}

impl PortInfo {
    /// A row about a port.
    pub fn new(spec: &PortSpec, origin: Origin, mac: Option<Mac>, state: PortState, features: Vec<String>) -> Self {
        Self {
            name: spec.name.clone(),
            bridge: spec.bridge.clone(),
            kind: spec.kind,
            netns: spec.netns.clone(),
            ifname: spec.ifname.clone(),
            mac,
            addresses: spec.addresses.clone(),
            vlans: VlanInfo::from(&spec.vlans),
            policy: spec.policy.clone(),
            state,
            features,
            origin,
            docker: DockerPlace::default(),
            now: PortNow::default(),
        }
    }
}

/// One MAC address that a bridge knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FdbEntry {
    /// The bridge that knows it.
    pub bridge: BridgeName,
    /// The address.
    pub mac: Mac,
    /// The VLAN in which it was seen.
    pub vlan: VlanId,
    /// Where it is.
    pub port: PortName,
    /// The remote host that it is on, behind a tunnel.
    pub remote: Option<IpAddr>,
    /// The name of that host, in an overlay network.
    #[serde(default)]
    pub host: Option<String>,
    /// Seconds since its last frame.
    pub age_seconds: u64,
    /// Whether it is a static entry.
    pub r#static: bool,
    /// Whether it moved to and fro and is held there for a while.
    pub held: bool,
}

/// Counters of one port since it was attached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortStats {
    /// The port.
    pub port: PortName,
    /// The container that it belongs to.
    #[serde(flatten)]
    pub docker: DockerPlace,
    /// Frames received from the device; a super-frame counts once.
    pub rx_frames: u64,
    /// Their bytes.
    pub rx_bytes: u64,
    /// Frames handed to the device, as the switch handed them.
    pub tx_frames: u64,
    /// Their bytes.
    pub tx_bytes: u64,
    /// Received frames that were dropped, by reason. Every reason is listed, also with 0.
    pub rx_drops: BTreeMap<String, u64>,
    /// Frames for this port that it could not send, by reason.
    pub tx_drops: BTreeMap<String, u64>,
    /// Of an uplink, what became of sessions and of what its kind counts besides; of a port whose line is or was impaired, what was done to
    /// packets there; else empty.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub counters: BTreeMap<String, u64>,
}
