//! What a port may do, and how much: what a user would call its policy. One struct for its specification and for what is told of it.

use serde::{Deserialize, Serialize};

use crate::Rate;

/// The policy of a port; by default, everything passes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortPolicy {
    /// Whether frames whose source MAC, IP, ARP or ND addresses are not this port's are dropped.
    pub guard: bool,
    /// Whether no frame goes from it to another protected port of its bridge.
    pub protected: bool,
    /// Whether it is unplugged: its station sees no carrier, and nothing comes in by it or leaves.
    #[serde(default)]
    pub down: bool,
    /// Most broadcast frames a second that the port may send into the switch; `None`: no limit.
    pub broadcast_limit: Option<u32>,
    /// Most that it may send into the switch; `None`: no limit.
    pub send_rate: Option<Rate>,
    /// Most that may leave by it; `None`: no limit.
    pub receive_rate: Option<Rate>,
}
