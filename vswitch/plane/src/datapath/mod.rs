//! The one-way path of a frame.
//!
//! [`Datapath::forward`] is the whole of it: parse once, find the VLAN, check, learn, look up or route, queue. It has no clock, no
//! descriptor, no lock and no randomness. So it runs whole in a test, on made-up frames with a hand-moved clock, exactly as it runs in a
//! worker. Each worker owns one. Once its queues have grown it allocates nothing for a frame, unless the frame waits for a neighbour, goes
//! to the services or is cut into fragments.
//!
//! A frame with the header of the one before it goes where that one went, if nothing else decides (`run`). A few frames are looked at once more when
//! the batch is decided, to say which flows move most (`flows`).
//!
//! Deciding changes no frame. What a port does to a tag is written beside the frame in its [`Outputs`] queue, and happens while the frame is
//! gathered for sending ([`packet::Egress`]). What `router` does to addresses is written there too, and happens when the whole batch is
//! decided ([`Outputs::act`]).

mod bpdus;
mod bridge;
mod claim;
mod conflict;
mod counts;
mod drop;
mod dry_run;
mod fate;
mod fdb;
mod flows;
mod forward;
mod guard;
mod limiter;
mod observe;
mod outputs;
mod persist;
mod place;
mod port;
mod router;
mod run;
mod settings;
mod slots;
mod ticket;
mod tunnel;
mod vlan;

#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::time::Instant;

use packet::{Batch, IpPacket, Mac, Offload, TagEdit, VlanId};

pub use bridge::BridgeSettings;
pub use conflict::{AddressConflict, AddressConflicts, Holder, Speaker};
pub use counts::{BridgeCounts, WorkerCounts};
pub use drop::{Counters, DropReason};
pub use dry_run::DryRun;
pub use fate::{Fate, Kept, LateDrop, Wait};
pub use fdb::{Fdb, MacChange, MacChanges, MacNews};
pub use flows::{Flow, FlowPacket, FlowRate};
pub use guard::Guard;
pub use limiter::{Limiter, PortLimits};
pub use observe::{Mode, Observer, Step, Unobserved};
pub use outputs::{Departure, Errand, Outputs};
pub use persist::SavedBridge;
pub use place::{Fixed, Hold, Learned, MacMove, MacMoves, Place, Row};
pub use router::{GatewaySettings, NeighborRow, Punt, SavedNeighbor, Side, Translation, is_for_services};
pub use slots::Slots;
pub use ticket::{Ticket, Tickets};
pub use tunnel::{RemoteStation, TunnelSettings};

use crate::capture::Direction;
use crate::impair::Treated;
use api::{PortPolicy, VlanMode};
use bpdus::Bpdus;
use bridge::Bridge;
use fate::Decision;
use flows::Look;
use forward::Headers;
use port::Port;
use router::{Paths, Router};

/// A port's number, the same in every worker; reused after the port is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortId(pub u32);

impl PortId {
    /// The highest number: the forwarding database has two bytes for it.
    pub const MOST: u32 = u16::MAX as u32;

    const fn index(self) -> usize {
        self.0 as usize
    }
}

/// A bridge's number, the same in every worker; reused after the bridge is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BridgeId(pub u32);

/// What the datapath needs to know about a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortSettings {
    /// Its bridge.
    pub bridge: BridgeId,
    /// Its VLANs.
    pub vlans: VlanMode,
    /// The addresses that the configuration gives to the station behind it. No other port of its VLAN may claim them.
    pub addresses: Vec<IpAddr>,
    /// The source guard, if it is on.
    pub guard: Option<Guard>,
    /// The MAC address of the interface that the port shares with its owner (a link). A frame that comes in for it has reached the owner already.
    pub owner: Option<Mac>,
    /// What it may do, and how much.
    pub policy: PortPolicy,
    /// What holds it to that.
    pub limits: PortLimits,
    /// Set for a port that is a tunnel.
    pub tunnel: Option<TunnelSettings>,
}

impl PortSettings {
    /// A port of a bridge, for all VLANs and without limits.
    pub fn on(bridge: BridgeId) -> Self {
        Self {
            bridge,
            vlans: VlanMode::All,
            addresses: Vec::new(),
            guard: None,
            owner: None,
            policy: PortPolicy::default(),
            limits: PortLimits::default(),
            tunnel: None,
        }
    }

    /// The same under this policy, of whose limits nothing was used yet.
    #[must_use]
    pub fn under(self, policy: PortPolicy, now: Instant) -> Self {
        Self { limits: PortLimits::of(&policy, now), policy, ..self }
    }
}

/// An address that one worker learned and the others should know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct News {
    /// The bridge.
    pub bridge: BridgeId,
    /// The VLAN.
    pub vlan: VlanId,
    /// The address.
    pub mac: Mac,
    /// Where it is.
    pub place: Place,
}

/// What a bridge, as one worker sees it, shows that is most likely a mistake.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Symptoms {
    /// MAC addresses that were seen at another place than before.
    pub moves: MacMoves,
    /// IP addresses that two stations have, or a station and the gateway.
    pub conflicts: AddressConflicts,
}

/// A bridge's table, as one worker sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FdbListing {
    /// The addresses, in no order.
    pub rows: Vec<Row>,
    /// Addresses put out because the table was full.
    pub evictions: u64,
}

/// All bridges and ports of one worker.
#[derive(Debug)]
pub struct Datapath {
    bridges: Slots<Bridge>,
    ports: Slots<Port>,
    /// Second 0 of the tables.
    epoch: Instant,
    /// Keeps stations from choosing addresses that collide.
    seed: u64,
    news: Vec<News>,
    holds: Vec<(BridgeId, Hold)>,
    /// Of the frames of the batch.
    headers: Vec<Headers>,
    /// The packets of those that are for the gateway; empty where there is none.
    packets: Vec<Option<IpPacket>>,
    /// Drops of frames that had waited, which captures have not seen yet.
    late_drops: Vec<LateDrop>,
    /// Frames of the batch that are to be added to their flows.
    looks: Vec<Look>,
    /// When the flows were asked for last.
    flows_at: Instant,
    router: Router,
    bpdus: Bpdus,
    /// Whether this worker routes; else it hands over what is to be routed.
    routes: bool,
}

impl Datapath {
    /// A datapath without bridges or ports. `seed` should be random.
    pub fn new(epoch: Instant, seed: u64) -> Self {
        let router = Router::new(seed);
        Self {
            bridges: Slots::default(),
            ports: Slots::default(),
            epoch,
            seed,
            news: Vec::new(),
            holds: Vec::new(),
            headers: Vec::new(),
            packets: Vec::new(),
            late_drops: Vec::new(),
            looks: Vec::new(),
            flows_at: epoch,
            router,
            bpdus: Bpdus::default(),
            routes: true,
        }
    }

    /// Leaves routing to another worker: frames to gateways end up in [`Outputs::handed_over`].
    pub fn leave_routing(&mut self) {
        self.routes = false;
    }

    /// Sends a frame that the services made, in a VLAN of a bridge; none: its gateway's.
    pub fn emit(&mut self, (bridge, vlan): (BridgeId, Option<VlanId>), frame: &[u8], batch: &mut Batch, outputs: &mut Outputs) {
        let Some(vlan) = vlan.or_else(|| self.router.vlan(bridge)) else { return };
        // The station that waits for it asks again.
        let _ = Paths { bridges: &self.bridges, ports: &self.ports, batch, outputs, observer: &mut Unobserved }
            .emit(bridge, vlan, frame);
    }

    /// Sends a BPDU by a port, whatever the spanning tree lets pass there.
    pub fn transmit(&mut self, id: PortId, bpdu: &[u8], batch: &mut Batch, outputs: &mut Outputs) {
        if self.ports.get(id.0).is_some_and(|port| !port.policy.down) && batch.has_room() {
            batch.push(bpdu, Offload::default());
            outputs.push(id, Departure { frame: batch.frames().len() - 1, edit: TagEdit::Keep, peer: 0 });
        }
    }

    /// BPDUs for the spanning trees of bridges.
    pub fn take_bpdus(&mut self) -> std::vec::Drain<'_, Punt> {
        self.bpdus.take()
    }

    /// Forgets what is too old, and lets the router do what is due. To be called about once a second, with an empty batch.
    pub fn expire(&mut self, now: Instant, batch: &mut Batch, outputs: &mut Outputs) {
        let second = self.second(now);
        for (_, bridge) in self.bridges.iter_mut() {
            bridge.fdb.expire(second);
        }
        self.router.tick(
            now,
            second,
            &mut Paths { bridges: &self.bridges, ports: &self.ports, batch, outputs, observer: &mut Unobserved },
        );
        self.count_late_drops();
    }

    /// The VLAN of a frame of the batch that came in last.
    pub(crate) fn vlan_of(&self, frame: usize) -> Option<VlanId> {
        self.headers.get(frame)?.vlan.ok()
    }

    /// Frames for the services of gateways.
    pub fn take_punts(&mut self) -> std::vec::Drain<'_, Punt> {
        self.router.take_punts()
    }

    /// Counts drops of frames that had waited, and keeps them for captures.
    fn count_late_drops(&mut self) {
        for late in self.router.take_late_drops() {
            if let Some(port) = self.ports.get_mut(late.port.0) {
                port.counters.count_drops(late.reason, 1);
            }
            self.late_drops.push(late);
        }
    }

    /// Drops of frames that had waited, since it was last asked. To be asked after each of [`Datapath::forward`], [`Datapath::route`] and
    /// [`Datapath::expire`].
    pub fn take_late_drops(&mut self) -> std::vec::Drain<'_, LateDrop> {
        self.late_drops.drain(..)
    }

    /// Takes over what another worker learned, if it still makes sense here.
    pub fn hear(&mut self, now: Instant, news: News) {
        let second = self.second(now);
        let current = self
            .ports
            .get(news.place.port.0)
            .is_some_and(|port| port.bridge == news.bridge && !port.policy.down && port.may_teach());
        if let Some(bridge) = self.bridges.get_mut(news.bridge.0).filter(|_| current) {
            bridge.learn(news.vlan, news.mac, news.place, second);
        }
    }

    /// What this worker learned since it was last asked.
    pub fn take_news(&mut self) -> std::vec::Drain<'_, News> {
        self.news.drain(..)
    }

    /// Addresses that moved to and fro and have been held since it was last asked; not more than one a minute for each bridge.
    pub fn take_holds(&mut self) -> std::vec::Drain<'_, (BridgeId, Hold)> {
        self.holds.drain(..)
    }

    /// What a port is held to.
    pub(crate) fn limits(&self, id: PortId) -> PortLimits {
        self.ports.get(id.0).map(|port| port.limits.clone()).unwrap_or_default()
    }

    /// Counts frames that left at a port.
    pub fn count_sent(&mut self, id: PortId, frames: u64, bytes: u64) {
        if let Some(port) = self.ports.get_mut(id.0) {
            port.counters.tx_frames += frames;
            port.counters.tx_bytes += bytes;
        }
    }

    /// Counts drops, also those that a device reported; of no frame, nothing.
    pub fn count_drops(&mut self, id: PortId, reason: DropReason, frames: u64) {
        if frames == 0 {
            return;
        }
        if let Some(port) = self.ports.get_mut(id.0) {
            port.counters.count_drops(reason, frames);
        }
    }

    /// Counts a packet that was lost where it had to wait. One that came in was received all the same.
    pub(crate) fn count_lost_at_stop(&mut self, id: PortId, direction: Direction, (reason, bytes): (DropReason, u64)) {
        let Some(port) = self.ports.get_mut(id.0) else { return };
        let ingress = direction == Direction::In;
        if ingress {
            port.counters.rx_frames += 1;
            port.counters.rx_bytes += bytes;
        }
        port.counters.count_drops_on(ingress, reason, 1);
    }

    /// Counts what was done to packets where they had to wait: on an impaired line, or else for a rate.
    pub(crate) fn count_treated(&mut self, id: PortId, is_line: bool, direction: Direction, treated: Treated) {
        if let Some(port) = self.ports.get_mut(id.0) {
            let ways = if is_line { &mut port.counters.impaired } else { &mut port.counters.shaped };
            ways[usize::from(direction == Direction::Out)].add(treated);
        }
    }

    fn second(&self, now: Instant) -> u32 {
        u32::try_from(now.saturating_duration_since(self.epoch).as_secs()).unwrap_or(u32::MAX)
    }
}
