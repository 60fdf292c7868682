//! What changes all the time: counters, and how full the tables are. The control side reads it without asking the workers; `vsctl top`, the
//! web view and the metrics show it.

use std::collections::BTreeMap;
use std::fmt;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{BridgeName, LiveFlow, PeerInfo, PoolInfo, PortName, PortState, StpState};

/// The switch at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LiveInfo {
    /// Version of vswitchd.
    pub version: String,
    /// Seconds since it started.
    pub uptime_seconds: u64,
    /// The same when its workers counted what is told here; half a second ago at most. Rates are differences over this.
    pub counted_seconds: f64,
    /// Data-plane threads.
    pub workers: usize,
    /// Captures that are running.
    pub captures: usize,
    /// Its bridges, by name.
    pub bridges: Vec<LiveBridge>,
    /// Its ports, tunnels and uplinks, by name.
    pub ports: Vec<LivePort>,
    /// Its uplinks, by name.
    pub uplinks: Vec<LiveUplink>,
    /// Its tunnels, by name.
    pub tunnels: Vec<LiveTunnel>,
    /// How many events of each kind there were.
    pub events: BTreeMap<String, u64>,
    /// How it stands with the cluster, if this host is in one.
    #[serde(default)]
    pub cluster: Option<LiveCluster>,
    /// The flows that move most, the busiest first.
    #[serde(default)]
    pub flows: Vec<LiveFlow>,
}

/// How it stands with the cluster of overlay networks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveCluster {
    /// Whether its store is reached.
    pub up: bool,
    /// Hosts that are known, this one among them.
    pub hosts: usize,
    /// Stations at other hosts.
    pub stations: usize,
}

/// How full a bridge's tables are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveBridge {
    /// Its name.
    pub name: BridgeName,
    /// MAC addresses that it knows.
    pub macs: usize,
    /// Most MAC addresses that it may know.
    pub max_macs: u32,
    /// MAC addresses put out because the table was full.
    pub evictions: u64,
    /// How often MAC addresses moved from one port to another.
    pub mac_moves: u64,
    /// The subnets of its gateway.
    pub addresses: Vec<IpNet>,
    /// Its uplink.
    pub uplink: Option<PortName>,
    /// How far its addresses are given out, IPv4 first.
    pub pools: Vec<PoolInfo>,
}

/// What carries a port's frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LiveKind {
    /// A TAP device.
    Tap,
    /// A veth pair.
    Veth,
    /// An interface that was there before.
    Link,
    /// A tunnel.
    Vxlan,
    /// An uplink.
    Uplink,
}

impl LiveKind {
    /// As text and JSON have it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tap => "tap",
            Self::Veth => "veth",
            Self::Link => "link",
            Self::Vxlan => "vxlan",
            Self::Uplink => "uplink",
        }
    }
}

impl fmt::Display for LiveKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The counters of a port, tunnel or uplink since it was attached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LivePort {
    /// Its name.
    pub name: PortName,
    /// Its bridge; an uplink has none.
    pub bridge: Option<BridgeName>,
    /// What it is.
    pub kind: LiveKind,
    /// The container that it belongs to, or its namespace, or what it is called elsewhere.
    pub place: Option<String>,
    /// Whether frames can pass.
    pub state: PortState,
    /// What the spanning tree of its bridge lets pass, if it is part of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stp_state: Option<StpState>,
    /// Frames received from the device; a super-frame counts once.
    pub rx_frames: u64,
    /// Their bytes.
    pub rx_bytes: u64,
    /// Frames handed to the device.
    pub tx_frames: u64,
    /// Their bytes.
    pub tx_bytes: u64,
    /// Received frames that were dropped, by reason; reasons with none are left out.
    pub rx_drops: BTreeMap<String, u64>,
    /// Frames for this port that it could not send, likewise.
    pub tx_drops: BTreeMap<String, u64>,
}

impl LivePort {
    /// One that has counted nothing.
    pub fn new(name: PortName, bridge: Option<BridgeName>, kind: LiveKind, state: PortState) -> Self {
        Self {
            name,
            bridge,
            kind,
            place: None,
            state,
            stp_state: None,
            rx_frames: 0,
            rx_bytes: 0,
            tx_frames: 0,
            tx_bytes: 0,
            rx_drops: BTreeMap::new(),
            tx_drops: BTreeMap::new(),
        }
    }

    /// All frames that were dropped, on their way in and out.
    pub fn drops(&self) -> u64 {
        self.rx_drops.values().chain(self.tx_drops.values()).sum()
    }
}

/// How full an uplink's tables are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveUplink {
    /// Its name.
    pub name: PortName,
    /// Sessions that it has.
    pub sessions: u64,
    /// Most sessions that it may have.
    pub max_sessions: u64,
    /// External ports and ICMP identifiers in use.
    pub ports_in_use: u64,
    /// What became of sessions, and what its kind counts besides, since it was opened.
    pub counters: BTreeMap<String, u64>,
}

/// The other ends of a tunnel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveTunnel {
    /// Its name.
    pub name: PortName,
    /// The hosts there.
    pub peers: Vec<PeerInfo>,
}
