//! What can be watched of a frame on its way: each step that looks something up, changes a table or queues the frame tells an [`Observer`].
//!
//! The path is generic over the observer. It is compiled once for [`Unobserved`], without any trace of the steps, and once for each other
//! observer. An observer changes nothing: what it sees is the way that the frame goes anyway.
//!
//! In a dry run ([`Mode::Dry`]) a frame takes the same way through the same code, but leaves no mark: tables are looked at and not changed, limits
//! are not used up, nothing is counted, and nothing goes to the services. What it would make the switch send is in the outputs.

use std::net::IpAddr;
use std::time::Duration;

use api::Impairment;
use packet::{Mac, TagEdit, VlanId};

use super::{BridgeId, Fate, Learned, Place, PortId};
use crate::capture::Direction;

/// Whether frames go their way, or only show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// They change what frames change.
    Live,
    /// They change nothing.
    Dry,
}

/// Sees what happens to frames.
pub trait Observer {
    /// Whether what it sees happens.
    const MODE: Mode = Mode::Live;

    /// Takes note of one step of a frame, which is known by its place in the batch. Frames that the switch makes itself have places behind
    /// those that came in.
    fn see(&mut self, frame: usize, step: impl FnOnce() -> Step);
}

/// Sees nothing, and costs nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unobserved;

impl Observer for Unobserved {
    #[inline(always)]
    fn see(&mut self, _: usize, _: impl FnOnce() -> Step) {}
}

/// One step on the way of a frame.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// The port let it in: headers, length, guard and limits.
    Admitted {
        /// The port.
        port: PortId,
        /// Its bridge.
        bridge: BridgeId,
        /// The VLAN that the frame is in there.
        vlan: VlanId,
        /// Whether a source guard looked at it.
        guarded: bool,
    },
    /// What its sender claims was held against the gateway's addresses and those that the configuration gives out.
    ClaimsChecked,
    /// Its source address was learned, or was known.
    SourceLearned {
        /// The address.
        mac: Mac,
        /// Where it came from.
        place: Place,
        /// What that changed.
        outcome: Learned,
    },
    /// Its destination was looked up in the bridge's table; `None`: it goes to all.
    DestinationLookedUp {
        /// The address.
        mac: Mac,
        /// Where the address is.
        place: Option<Place>,
    },
    /// It is for the gateway of the bridge, alone or among others.
    ForGateway {
        /// Whether it is for the gateway alone.
        alone: bool,
    },
    /// A route was looked up for it.
    RouteLookedUp {
        /// The destination, after what NAT did to it on its way in.
        destination: IpAddr,
        /// The bridge that it leaves into, and its next hop; `None`: there is no way there.
        way: Option<(BridgeId, IpAddr)>,
    },
    /// NAT decided what happens to its addresses; `None`: nothing.
    Translated {
        /// The uplink whose sessions were asked.
        uplink: BridgeId,
        /// What changes.
        rewrite: Option<nat::Rewrite>,
    },
    /// The MAC address of its next hop was looked up; `None`: the neighbour is asked.
    NeighborLookedUp {
        /// The bridge that it leaves into.
        bridge: BridgeId,
        /// The next hop.
        address: IpAddr,
        /// The MAC address.
        mac: Option<Mac>,
    },
    /// It was queued at a port.
    Queued {
        /// The port that it leaves by.
        port: PortId,
        /// What happens to its tag.
        edit: TagEdit,
        /// Which of the peers behind a tunnel gets it; 0: all of them, or, for another port, the stations behind it.
        peer: u16,
    },
    /// The device of the port takes no such super-frame: it leaves in pieces.
    Cut {
        /// The port.
        port: PortId,
        /// How many frames it becomes.
        frames: usize,
    },
    /// It meets the impaired line of a port: on its way in before everything else, or on its way to the device.
    Impaired {
        /// The port.
        port: PortId,
        /// Which of its lines.
        direction: Direction,
        /// What may happen to it there.
        rules: Box<Impairment>,
    },
    /// It meets a rate of a port: on its way in behind the line there, on its way out before it.
    Shaped {
        /// The port.
        port: PortId,
        /// Which of its rates.
        direction: Direction,
        /// How long it would wait at least; nothing, if no other frame waits there.
        wait: Duration,
    },
    /// What became of it; the last step of a frame that came in.
    Settled(Fate),
}
