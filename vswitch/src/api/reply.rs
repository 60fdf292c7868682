use std::collections::BTreeMap;

use ipnet::IpNet;
use packet::{Mac, VlanId};
use serde::{Deserialize, Serialize};

use super::{
    BridgeName, BridgeSpec, ControlFrames, ForwardInfo, InterfaceName, NeighborInfo, Netns, PortKind, PortName, PortSpec,
    SessionInfo, UplinkInfo, VlanMode,
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
    /// The whole switch.
    Switch(Box<SwitchInfo>),
    /// MAC addresses, by VLAN and address.
    Fdb(Vec<FdbEntry>),
    /// Counters, by port name.
    Stats(Vec<PortStats>),
    /// The uplinks, by name.
    Uplinks(Vec<UplinkInfo>),
    /// The forwards, by uplink, protocol and port.
    Forwards(Vec<ForwardInfo>),
    /// Sessions, in no order.
    Sessions(Vec<SessionInfo>),
    /// Neighbours, by address.
    Neighbors(Vec<NeighborInfo>),
    /// A `switch.toml`.
    Export(String),
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
    /// Its bridges, by name.
    pub bridges: Vec<BridgeInfo>,
    /// Its ports, by name.
    pub ports: Vec<PortInfo>,
    /// Its uplinks, by name.
    pub uplinks: Vec<UplinkInfo>,
    /// Its forwards.
    pub forwards: Vec<ForwardInfo>,
    /// Captures that are running.
    pub captures: usize,
}

/// A bridge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BridgeInfo {
    /// Its name.
    pub name: BridgeName,
    /// Its MTU in bytes.
    pub mtu: u16,
    /// Seconds that a MAC address is remembered.
    pub ageing_seconds: u64,
    /// MAC addresses that it knows.
    pub macs: usize,
    /// Most MAC addresses that it may know.
    pub max_macs: u32,
    /// MAC addresses put out because the table was full.
    pub evictions: u64,
    /// What it does with link-local control frames.
    pub control_frames: ControlFrames,
    /// The addresses of its gateway.
    pub addresses: Vec<IpNet>,
    /// The MAC address of its gateway.
    pub gateway_mac: Option<Mac>,
    /// The VLAN of its gateway.
    pub gateway_vlan: VlanId,
    /// Whether its gateway gives addresses.
    pub dhcp: bool,
    /// Its uplink.
    pub uplink: Option<PortName>,
    /// Whether nothing is routed between it and others.
    pub isolated: bool,
    /// Number of its ports.
    pub ports: usize,
    /// Who asked for it.
    pub origin: Origin,
}

impl BridgeInfo {
    /// A row about a bridge with so many ports and MAC addresses.
    pub fn new(spec: &BridgeSpec, origin: Origin, gateway: Mac, (ports, macs, evictions): (usize, usize, u64)) -> Self {
        Self {
            name: spec.name.clone(),
            mtu: spec.mtu,
            ageing_seconds: spec.ageing.as_secs(),
            macs,
            max_macs: spec.max_macs,
            evictions,
            control_frames: spec.control_frames,
            addresses: spec.addresses.clone(),
            gateway_mac: Some(gateway).filter(|_| !spec.addresses.is_empty()),
            gateway_vlan: spec.gateway_vlan,
            dhcp: spec.dhcp,
            uplink: spec.uplink.clone(),
            isolated: spec.isolated,
            ports,
            origin,
        }
    }
}

/// Who asked for a bridge or port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// `switch.toml`.
    File,
    /// A change at run time.
    Runtime,
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
    /// The VLAN of an access port.
    pub vlan: Option<VlanId>,
    /// The tagged VLANs of a trunk.
    pub trunk: Option<Vec<VlanId>>,
    /// The VLAN of untagged frames on a trunk.
    pub native: Option<VlanId>,
    /// Whether the source guard is on.
    pub guard: bool,
    /// Most broadcast frames a second.
    pub broadcast_limit: Option<u32>,
    /// Whether it forwards.
    pub state: PortState,
    /// What the kernel was found to offer for this port, such as `vnet_hdr` or `uso`.
    pub features: Vec<String>,
    /// Who asked for it.
    pub origin: Origin,
}

/// Whether a port forwards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PortState {
    /// It does.
    Up,
    /// Its device is gone or cannot be used; the sentence says why.
    Down(String),
}

impl PortInfo {
    /// A row about a port.
    pub fn new(spec: &PortSpec, origin: Origin, mac: Option<Mac>, state: PortState, features: Vec<String>) -> Self {
        let (vlan, trunk, native) = match &spec.vlans {
            VlanMode::All => (None, None, None),
            VlanMode::Access(vlan) => (Some(*vlan), None, None),
            VlanMode::Trunk { allowed, native } => (None, Some(allowed.clone()), *native),
        };
        Self {
            name: spec.name.clone(),
            bridge: spec.bridge.clone(),
            kind: spec.kind,
            netns: spec.netns.clone(),
            ifname: spec.ifname.clone(),
            mac,
            addresses: spec.addresses.clone(),
            vlan,
            trunk,
            native,
            guard: spec.guard,
            broadcast_limit: spec.broadcast_limit,
            state,
            features,
            origin,
        }
    }
}

/// One MAC address that a bridge knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FdbEntry {
    /// The address.
    pub mac: Mac,
    /// The VLAN in which it was seen.
    pub vlan: VlanId,
    /// Where it is.
    pub port: PortName,
    /// Seconds since its last frame.
    pub age_seconds: u64,
}

/// Counters of one port since it was attached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortStats {
    /// The port.
    pub port: PortName,
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
}
