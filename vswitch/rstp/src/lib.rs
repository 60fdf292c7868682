//! The Rapid Spanning Tree Protocol (IEEE 802.1D-2004, clause 17) without I/O: state machines of a bridge and of its ports, as functions of
//! BPDUs, links and the ticks of a clock.
//!
//! **What it holds.** One [`Bridge`] for each bridge, with what it knows of the root, and for each port the variables of clause 17.19 under their
//! names there, in groups by the state machine that owns them.
//!
//! **Who calls it.** Its owner tells it of ports, links, BPDUs ([`Bridge::receive`]) and, [`TICK`] after [`TICK`], that time went on
//! ([`Bridge::tick`]). After each of these the machines run until none of them moves, and what is to be done stands in a list, in order
//! ([`Bridge::take_actions`]). A port that is to forward no more stands there before the BPDU that tells the neighbour so. The owner has to
//! carry them out in this order, and each to its end (clauses 17.21.3 and 17.21.4): else there is a loop for a moment.
//!
//! **What bounds it.** A bridge has at most [`Bridge::MOST_PORTS`] ports. A port keeps the last message and nothing else of its neighbour, and sends at
//! most six BPDUs a second, and what waits for that is one flag. The times that a neighbour asks for are kept within what the standard allows.
//!
//! **What differs from the standard.** The clock ticks four times a second, not once, so that a delay of three seconds is not one of two and a
//! bit. A port that hears its own BPDUs, which the standard of 2004 passes over, is taken for disputed and discards: every frame that it sends
//! comes back. All links count as point-to-point.
//!
//! | Module | Machine (clause) |
//! |---|---|
//! | `bridge` | timers (17.22), port receive (17.23), port state transition (17.30) |
//! | `edge` | bridge detection (17.25), port protocol migration (17.24) |
//! | `information` | port information (17.27) |
//! | `roles` | port role selection (17.28) |
//! | `transitions` | port role transitions (17.29) |
//! | `topology` | topology change (17.31) |
//! | `transmit` | port transmit (17.26) |
#![forbid(unsafe_code)]

mod bpdu;
mod bridge;
mod edge;
mod information;
mod port;
mod roles;
mod status;
#[cfg(test)]
mod tests;
mod topology;
mod transitions;
mod transmit;
mod vector;

use std::time::Duration;

pub use bpdu::{Bpdu, Flags, GROUP, Message, MessageRole};
pub use bridge::{Action, Bridge, BridgeSettings, Version};
pub use port::{Edge, PortSettings, Role, State, cost_of};
pub use status::{BridgeStatus, Peer, PortCounts, PortStatus};
pub use vector::{BridgeIdentifier, PortIdentifier, Times, Vector};

/// How often [`Bridge::tick`] is to be called.
pub const TICK: Duration = Duration::from_millis(250);
/// Ticks of a second.
const SECOND: u16 = 4;
