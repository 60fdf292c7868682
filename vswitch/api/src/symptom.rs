//! What is told of things that are most likely wrong: addresses that move or that two have, pools that are empty, peers that are silent.

use std::net::IpAddr;

use ipnet::IpNet;
use packet::{Mac, VlanId};
use serde::{Deserialize, Serialize};

use super::PortName;

/// How often MAC addresses of a bridge moved from one port to another.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MacMovesInfo {
    /// Since the bridge was made.
    pub count: u64,
    /// In the last second.
    pub per_second: u64,
    /// The last one.
    pub last: Option<MacMoveInfo>,
}

/// A MAC address that was seen at another port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MacMoveInfo {
    /// The address.
    pub mac: Mac,
    /// The VLAN.
    pub vlan: VlanId,
    /// The port where it was.
    pub from: PortName,
    /// The port where it was seen.
    pub to: PortName,
    /// How many seconds ago that was noticed.
    pub seconds_ago: u64,
}

/// The addresses of a subnet that a gateway gives out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolInfo {
    /// The subnet.
    pub subnet: IpNet,
    /// How many there are, at most 8192.
    pub size: usize,
    /// How many of them are in use.
    pub used: usize,
    /// Requests that got none because all were in use.
    pub exhausted: u64,
    /// Requests that got none because their port had its share, half of them.
    pub refused: u64,
}

/// IP addresses of a bridge that two stations have, or a station and the gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressConflictsInfo {
    /// How often that showed since the bridge was made.
    pub count: u64,
    /// The last one.
    pub last: Option<AddressConflictInfo>,
}

/// An IP address that two stations have, or a station and the gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressConflictInfo {
    /// The address.
    pub address: IpAddr,
    /// The VLAN.
    pub vlan: VlanId,
    /// The one that had it before, or has it by the configuration.
    pub holder: AddressHolderInfo,
    /// The other, which claimed it last.
    pub claimant: AddressHolderInfo,
    /// How many seconds ago that was noticed.
    pub seconds_ago: u64,
}

/// A station or gateway that has an IP address, or says so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressHolderInfo {
    /// The MAC address, if it is known.
    pub mac: Option<Mac>,
    /// The port; `None`: the gateway.
    pub port: Option<PortName>,
}

impl std::fmt::Display for AddressHolderInfo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.mac, &self.port) {
            (_, None) => f.write_str("the gateway"),
            (Some(mac), Some(port)) => write!(f, "{mac} at {port}"),
            (None, Some(port)) => write!(f, "{port}"),
        }
    }
}

/// A host at the other end of a tunnel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerInfo {
    /// Its address.
    pub address: IpAddr,
    /// Whether it was named; else it was heard through the group.
    pub named: bool,
    /// "up", "never heard", "silent", or why it cannot be reached.
    pub state: String,
    /// Seconds since it was heard; `None`: never.
    pub heard_seconds: Option<u64>,
    /// Frames that came from it.
    pub rx_frames: u64,
    /// Frames that were sent to it.
    pub tx_frames: u64,
    /// What the socket said last about what was sent to it.
    pub last_error: Option<String>,
}
