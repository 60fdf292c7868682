//! What happened in the switch, as `vsctl events` lists it. The control side keeps the last ones.

use std::fmt;
use std::net::IpAddr;

use packet::{Mac, VlanId};
use serde::{Deserialize, Serialize};

use super::{BridgeName, PortName};

/// What kind of thing happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// A request changed the switch, or was refused.
    Change,
    /// The link of a port or uplink came up, went down, or is gone.
    Link,
    /// A MAC address is new.
    MacLearned,
    /// A MAC address is at another port than before.
    MacMoved,
    /// A MAC address had to make room for another.
    MacEvicted,
    /// A MAC address moves to and fro between two ports and is held at one.
    LoopSuspected,
    /// Two stations have one IP address, or a station has the gateway's.
    AddressConflict,
    /// A tunnel's peer is heard no more, or again.
    Peer,
    /// A table has no room: MAC addresses, sessions, external ports, or addresses to give out.
    TableFull,
    /// An address was given out, given back, or found in use; or an uplink got or lost its own.
    Lease,
    /// A port has another role in a spanning tree, or the way to stations changed.
    Stp,
    /// A host of the cluster came or went, or the cluster's store was lost or is back.
    Cluster,
}

impl EventKind {
    /// All of them, in the order of their definition.
    pub const ALL: [Self; 12] = [
        Self::Change,
        Self::Link,
        Self::MacLearned,
        Self::MacMoved,
        Self::MacEvicted,
        Self::LoopSuspected,
        Self::AddressConflict,
        Self::Peer,
        Self::TableFull,
        Self::Lease,
        Self::Stp,
        Self::Cluster,
    ];

    /// As JSON has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Change => "change",
            Self::Link => "link",
            Self::MacLearned => "mac_learned",
            Self::MacMoved => "mac_moved",
            Self::MacEvicted => "mac_evicted",
            Self::LoopSuspected => "loop_suspected",
            Self::AddressConflict => "address_conflict",
            Self::Peer => "peer",
            Self::TableFull => "table_full",
            Self::Lease => "lease",
            Self::Stp => "stp",
            Self::Cluster => "cluster",
        }
    }

    /// Whether stations can make it happen as often as they like.
    pub const fn is_frequent(self) -> bool {
        matches!(self, Self::MacLearned | Self::MacMoved | Self::MacEvicted | Self::Lease | Self::Stp)
    }
}

/// As text has it.
impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.name().replace('_', "-"))
    }
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventInfo {
    /// Its number since vswitchd started; one that is missing was forgotten.
    pub number: u64,
    /// When, in UTC (RFC 3339).
    pub time: String,
    /// What kind of thing.
    pub kind: EventKind,
    /// What it is about, and what happened to it.
    #[serde(flatten)]
    pub facts: EventFacts,
}

/// What an event is about; what does not apply is none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventFacts {
    /// The bridge.
    pub bridge: Option<BridgeName>,
    /// The port, tunnel or uplink.
    pub port: Option<PortName>,
    /// The VLAN.
    pub vlan: Option<VlanId>,
    /// The MAC address.
    pub mac: Option<Mac>,
    /// The IP address: that was given out or that two have, or the tunnel's peer.
    pub address: Option<IpAddr>,
    /// Who asked for a change.
    pub by: Option<String>,
    /// What happened, in a few words.
    pub summary: String,
}

impl EventFacts {
    /// An event that these words tell.
    pub fn new(summary: impl Into<String>) -> Self {
        Self { summary: summary.into(), ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_spelled_alike_in_json_and_metrics_and_with_dashes_in_text() {
        for kind in EventKind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
        }
        assert_eq!(format!("{:<12}|", EventKind::MacLearned), "mac-learned |");
    }
}
