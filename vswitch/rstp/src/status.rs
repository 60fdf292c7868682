//! How a bridge and its ports stand, for those who look.

use serde::{Deserialize, Serialize};

use crate::bridge::Bridge;
use crate::port::{Port, Role, State};
use crate::vector::{BridgeIdentifier, PortIdentifier};

/// What a port has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortCounts {
    /// BPDUs that it received.
    pub received: u64,
    /// BPDUs that it sent.
    pub sent: u64,
    /// Changes of the topology that began at it.
    pub topology_changes: u64,
}

/// What is known of the protocol behind a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Peer {
    /// No bridge was heard since its link is up.
    None,
    /// A bridge that speaks the protocol of 1998.
    Stp,
    /// A bridge that speaks RSTP.
    Rstp,
}

/// How a port stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortStatus {
    /// Its identifier.
    pub id: PortIdentifier,
    /// Its role.
    pub role: Role,
    /// What passes it.
    pub state: State,
    /// What the way through it costs.
    pub cost: u32,
    /// Whether it leads to a station.
    pub edge: bool,
    /// What is behind it.
    pub peer: Peer,
    /// The bridge that speaks for its link: this one, or its neighbour.
    pub designated: BridgeIdentifier,
    /// What it has counted.
    pub counts: PortCounts,
}

/// How a bridge stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BridgeStatus {
    /// Itself.
    pub id: BridgeIdentifier,
    /// The root.
    pub root: BridgeIdentifier,
    /// What the way there costs; 0 if it is the root.
    pub cost: u32,
    /// The port that leads there, by its number.
    pub root_port: Option<u16>,
    /// Changes of the topology that it found or heard of.
    pub topology_changes: u64,
}

impl Port {
    fn status(&self) -> PortStatus {
        PortStatus {
            id: self.id(),
            role: self.roles.role,
            state: self.roles.state,
            cost: self.settings.cost,
            edge: self.edge,
            peer: match (self.heard, self.migration.send_rapid) {
                (false, _) => Peer::None,
                (true, false) => Peer::Stp,
                (true, true) => Peer::Rstp,
            },
            designated: self.info.vector.bridge,
            counts: self.counts,
        }
    }
}

impl Bridge {
    /// How it stands.
    pub fn status(&self) -> BridgeStatus {
        let root_port = self.root.port.map(PortIdentifier::number);
        let topology_changes = self.topology_changes;
        BridgeStatus { id: self.id, root: self.root.vector.root, cost: self.root.vector.cost, root_port, topology_changes }
    }

    /// How a port stands, by its number.
    pub fn port_status(&self, number: u16) -> Option<PortStatus> {
        self.ports.iter().find(|port| port.number == number).map(Port::status)
    }
}
