//! How the spanning tree of a bridge stands, as `vsctl stp` lists it.

use packet::Mac;
use serde::{Deserialize, Serialize};

use super::{BridgeName, PortName, Stp};

pub use rstp::{Peer as StpPeer, Role as StpRole, State as StpState};

/// A bridge in a tree: its priority, and its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StpIdentifier {
    /// The lower, the nearer to being the root.
    pub priority: u16,
    /// Its address, the lower of which decides where priorities are the same.
    pub mac: Mac,
}

/// The tree, as one bridge sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StpInfo {
    /// The bridge.
    pub bridge: BridgeName,
    /// Which protocol it speaks of itself.
    pub stp: Stp,
    /// How it is known in the tree.
    pub id: StpIdentifier,
    /// The root.
    pub root: StpIdentifier,
    /// What the way there costs.
    pub root_cost: u32,
    /// The port that leads there; `None`: it is the root itself.
    pub root_port: Option<PortName>,
    /// How often the way to stations changed.
    pub topology_changes: u64,
    /// Its ports, by name.
    pub ports: Vec<StpPortInfo>,
}

/// A port of a tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StpPortInfo {
    /// The port.
    pub port: PortName,
    /// Its priority.
    pub priority: u8,
    /// Its number in the tree.
    pub number: u16,
    /// How it stands to the root.
    pub role: StpRole,
    /// What passes it.
    pub state: StpState,
    /// What the way through it costs.
    pub cost: u32,
    /// Whether it leads to a station.
    pub edge: bool,
    /// What bridge was heard there.
    pub peer: StpPeer,
    /// The bridge that speaks for its link.
    pub designated: StpIdentifier,
    /// BPDUs that came in.
    pub bpdus_in: u64,
    /// BPDUs that left.
    pub bpdus_out: u64,
    /// How often it began to forward, so that the way to stations changed.
    pub topology_changes: u64,
}
