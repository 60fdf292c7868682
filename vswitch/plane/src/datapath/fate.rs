//! What became of a frame: one closed value for each, which is counted in one place (`Datapath::settle`) and shown to captures in one
//! (`worker::turn`).
//!
//! While a frame is decided about, a function says `Ok` with a fate or `Err` with the reason of a drop, so that `?` ends the way of a
//! frame that goes no further. [`Fate::from`] makes one value of both.

use std::num::NonZeroU16;

use super::{BridgeId, DropReason, PortId};

/// What became of a frame that came in by a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It leaves by the one port where its destination was learned or fixed.
    Bridged(PortId),
    /// It leaves by so many other ports of its bridge that carry its VLAN.
    Flooded(NonZeroU16),
    /// It is sent on, with other MAC addresses and one hop less, into the bridge of its next hop, and `translated` if NAT changed it.
    Routed {
        /// The bridge, or uplink, that it leaves into.
        into: BridgeId,
        /// Whether NAT changed its addresses.
        translated: bool,
    },
    /// It was for the gateway, which answered.
    Answered,
    /// It was for the gateway, which took note of it and has nothing to say.
    Noted,
    /// It was for a service of the gateway (DHCP, DNS, router advertisements), or for the spanning tree of the bridge, which has it now.
    Punted,
    /// It waits, and what becomes of it is told later if it is a drop.
    Waiting(Wait),
    /// The worker that routes decides about it.
    HandedOver,
    /// It goes no further.
    Dropped(DropReason),
}

/// What a frame waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// The MAC address of its next hop.
    Neighbor,
    /// The other fragments of its packet.
    Fragments,
}

/// A frame that was dropped after it had waited, or in the queue of a port.
#[derive(Debug, PartialEq, Eq)]
pub struct LateDrop {
    /// The port that it came in at.
    pub port: PortId,
    /// Why.
    pub reason: DropReason,
    /// The frame as it waited.
    pub frame: Kept,
}

/// A frame that outlived its batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// From its destination address on.
    pub bytes: Vec<u8>,
    /// What the kernel left to do with it.
    pub offload: packet::Offload,
    /// The number by which captures know it.
    pub id: u64,
}

impl From<&packet::Frame> for Kept {
    fn from(frame: &packet::Frame) -> Self {
        Self { bytes: frame.bytes().to_vec(), offload: frame.offload, id: frame.id }
    }
}

/// What is decided about a frame: where it goes, or why nowhere.
pub(super) type Decision = Result<Fate, DropReason>;

impl Fate {
    /// The name that users see.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bridged(_) => "bridged",
            Self::Flooded(_) => "flooded",
            Self::Routed { .. } => "routed",
            Self::Answered => "answered",
            Self::Noted => "noted",
            Self::Punted => "service",
            Self::Waiting(Wait::Neighbor) => "waiting-for-neighbor",
            Self::Waiting(Wait::Fragments) => "waiting-for-fragments",
            Self::HandedOver => "handed-over",
            Self::Dropped(_) => "dropped",
        }
    }

    /// Why the frame went no further, if it did not.
    pub const fn drop_reason(self) -> Option<DropReason> {
        match self {
            Self::Dropped(reason) => Some(reason),
            _ => None,
        }
    }
}

impl From<Decision> for Fate {
    fn from(decision: Decision) -> Self {
        decision.unwrap_or_else(Self::Dropped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fate_is_as_small_as_a_pointer() {
        assert_eq!(size_of::<Option<Fate>>(), 8, "a batch has one for each frame");
    }
}
