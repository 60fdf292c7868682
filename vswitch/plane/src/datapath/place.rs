//! The words of the forwarding database: where an address is, what learning it changed, and the rows of its listing. Plain values.

use packet::{Mac, VlanId};

use super::PortId;

/// Where an address is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The port.
    pub port: PortId,
    /// Which of the peers behind that port, where it is a tunnel; 0 for every other port.
    pub peer: u16,
}

impl From<PortId> for Place {
    fn from(port: PortId) -> Self {
        Self { port, peer: 0 }
    }
}

/// What learning an address changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Learned {
    /// Nothing that others need to know.
    Known,
    /// The address is new, has moved here, or was last announced a quarter of the ageing time ago: other workers, which may
    /// never see a frame from it, should hear.
    News,
    /// It has moved to and fro too often and is held at another place: what comes from here in its name goes no further.
    Held,
}

/// Addresses of one bridge that were seen at another place than before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MacMoves {
    /// How often; also of those that are held where they were.
    pub count: u64,
    /// The last one.
    pub last: Option<MacMove>,
}

/// An address that was seen elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MacMove {
    /// The VLAN.
    pub vlan: VlanId,
    /// The address.
    pub mac: Mac,
    /// Where it was.
    pub from: PortId,
    /// Where it was seen.
    pub to: PortId,
}

/// What keeps an address where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fixed {
    /// Nothing: it is where it was seen last.
    No,
    /// The user gave it.
    Given,
    /// It moved to and fro, and is held for a while.
    Held,
}

/// An address that moved to and fro between ports, as it does where they are joined outside the switch as well, and is held at one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hold {
    /// The VLAN.
    pub vlan: VlanId,
    /// The address.
    pub mac: Mac,
    /// Where it was before it began to move, and is held.
    pub home: Place,
    /// Where it was seen besides.
    pub away: Place,
}

/// One address, as listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// The VLAN.
    pub vlan: VlanId,
    /// The address.
    pub mac: Mac,
    /// Where it is.
    pub place: Place,
    /// Seconds since its last frame.
    pub age: u32,
    /// Whether it stays there whatever is seen.
    pub fixed: Fixed,
}
