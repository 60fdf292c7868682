//! The one-way path of a frame.
//!
//! [`Datapath::forward`] is the whole of it: parse once, find the VLAN, check, learn, look up or route, queue. It has no clock, no
//! descriptor, no lock, no randomness, and allocates nothing for a frame once its queues have grown, but for those that wait for a
//! neighbour, go to the services or are cut into fragments; so it runs whole in a test, on made-up frames with a hand-moved clock,
//! exactly as it runs in a worker. Each worker owns one.
//!
//! A frame with the header of the one before it goes where that one went, if nothing else decides (`run`).
//!
//! Deciding changes no frame: what a port does to a tag is written beside the frame in its [`Outputs`] queue and happens while
//! the frame is gathered for sending ([`packet::Egress`]); what `router` does to addresses is written there too, and happens when the
//! batch is decided ([`Outputs::act`]).

mod bridge;
mod claim;
mod conflict;
mod drop;
mod fdb;
mod guard;
mod outputs;
mod place;
mod port;
mod rate;
mod router;
mod run;
mod settings;
mod slots;
mod storm;
mod tunnel;
mod vlan;

#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use packet::{Batch, Ethernet, Mac, Tag, VlanId};

pub use bridge::BridgeSettings;
pub use conflict::{AddressConflict, AddressConflicts, Holder, Speaker};
pub use drop::{Counters, DropReason};
pub use fdb::Fdb;
pub use guard::Guard;
pub use outputs::{Departure, Outputs};
pub use place::{Fixed, Hold, Learned, MacMove, MacMoves, Place, Row};
pub use rate::Limiter;
pub use router::{GatewaySettings, NeighborRow, Punt, Side, Translation};
pub use slots::Slots;
pub use tunnel::{RemoteStation, TunnelSettings};

use crate::api::VlanMode;
use bridge::{Bridge, Destination};
use claim::Claimant;
use port::{Parsed, Port, exceeds};
use router::{Arrival, Attention, Paths, Router};
use run::Run;
use tunnel::Remote;

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
    /// The addresses that the configuration gives to whoever is behind it, which no other port of its VLAN may claim.
    pub addresses: Vec<IpAddr>,
    /// The source guard, if it is on.
    pub guard: Option<Guard>,
    /// Whether no frame goes from it to another protected port.
    pub protected: bool,
    /// The MAC address of somebody's interface that the port takes frames from. What comes in for it has reached its owner already.
    pub owner: Option<Mac>,
    /// Most frames a second into the switch that go to many: broadcast, multicast, and unicast to nobody known.
    pub broadcast_limit: Option<u32>,
    /// Whether it is unplugged: nothing comes in by it, and nothing leaves.
    pub down: bool,
    /// What all frames into the switch are held to.
    pub send_rate: Option<Arc<Limiter>>,
    /// What the frames that leave by it are held to.
    pub receive_rate: Option<Arc<Limiter>>,
    /// Set for a port that is a tunnel.
    pub tunnel: Option<TunnelSettings>,
}

impl PortSettings {
    /// A port of a bridge, for all VLANs and without limits.
    pub const fn on(bridge: BridgeId) -> Self {
        Self {
            bridge,
            vlans: VlanMode::All,
            addresses: Vec::new(),
            guard: None,
            protected: false,
            owner: None,
            broadcast_limit: None,
            down: false,
            send_rate: None,
            receive_rate: None,
            tunnel: None,
        }
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
    /// IP addresses that two have.
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
    router: Router,
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
            router,
            routes: true,
        }
    }

    /// Leaves routing to another worker: frames to gateways end up in [`Outputs::handed_over`].
    pub fn leave_routing(&mut self) {
        self.routes = false;
    }

    /// Forwards every frame of `batch` into `outputs`. What the router has to say is put behind them.
    pub fn forward(&mut self, now: Instant, batch: &mut Batch, outputs: &mut Outputs) {
        self.foresee(batch);
        let (second, mut run) = (self.second(now), None::<Run>);
        for index in 0..batch.frames().len() {
            let Some(frame) = batch.frames().get(index) else { return };
            let (ingress, length) = (PortId(frame.ingress), frame.bytes().len() as u64);
            let Some(port) = self.ports.get_mut(ingress.0) else { continue };
            port.counters.rx_frames += 1;
            port.counters.rx_bytes += length;
            if let Some((egress, departure)) = run.as_ref().and_then(|run| run.next(index, frame)) {
                outputs.push(egress, departure);
                continue;
            }
            run = self.forward_one(index, (now, second), batch, outputs).unwrap_or_else(|reason| {
                outputs.drop(index, reason);
                self.count_drops(ingress, reason, 1);
                None
            });
        }
        self.count_late_drops();
    }

    /// Has the tables fetched that the frames of a batch need.
    fn foresee(&self, batch: &Batch) {
        // A batch comes from one port, or from tunnels of one socket.
        let Some(port) = batch.frames().first().and_then(|frame| self.ports.get(frame.ingress)) else { return };
        let Some(bridge) = self.bridges.get(port.bridge.0) else { return };
        let addresses = batch.frames().iter().filter_map(|frame| {
            let ethernet = Ethernet::parse(frame.bytes()).ok()?;
            let vlan = port.vlans.classify(ethernet.tag).ok()?;
            Some([(vlan, ethernet.source), (vlan, ethernet.destination)])
        });
        bridge.fdb.foresee(addresses.flatten());
        if self.routes {
            self.router.foresee(port.bridge, batch.frames());
        }
    }

    /// Decides about one frame, and says what that means for those like it which follow.
    fn forward_one(
        &mut self,
        index: usize,
        (now, second): (Instant, u32),
        batch: &mut Batch,
        outputs: &mut Outputs,
    ) -> Result<Option<Run>, DropReason> {
        let received = batch.frames().get(index).ok_or(DropReason::Malformed)?;
        let place = Place { port: PortId(received.ingress), peer: received.peer };
        let port = self.ports.get_mut(place.port.0).ok_or(DropReason::NoDestination)?;
        let id = port.bridge;
        let bridge = self.bridges.get_mut(id.0).ok_or(DropReason::NoDestination)?;
        let frame = port.admit(index, received, &bridge.settings, now)?;
        let Parsed { ethernet, vlan, .. } = frame;
        if self.router.has_mac(id, ethernet.source) {
            return Err(DropReason::InvalidSource);
        }
        let watched = self.router.watches(id) || bridge.has_owners();
        if watched {
            let who = Claimant { bridge: id, vlan, port: place.port, second, is_station: port.is_station() };
            claim::check(&self.router, bridge, &who, &ethernet, received.bytes())?;
        }
        if port.remote.as_ref().is_none_or(|remote| remote.learn) {
            match bridge.learn(vlan, ethernet.source, place, second) {
                Learned::Known => {}
                learned => {
                    self.holds.extend(bridge.take_hold(second).map(|hold| (id, hold)));
                    if learned == Learned::Held {
                        return Err(DropReason::MacMove);
                    }
                    self.news.push(News { bridge: id, vlan, mac: ethernet.source, place });
                }
            }
        }
        let attention = self.router.attention(id, vlan, &ethernet, received.bytes());
        if attention != Attention::None && !self.routes {
            outputs.hand_over(index);
        }
        let destination = bridge.look_up(vlan, ethernet.destination);
        if attention != Attention::Mine && destination == Destination::Everyone {
            if !ethernet.destination.is_group() {
                port.admit_flood(received.segments(), now)?;
            }
            bridge.admit_flood((vlan, ethernet.source), received.segments(), (now, second))?;
            let neighbor = |address| self.router.confirmed(id, vlan, address, second);
            if let Some(reply) = bridge.answer(place.port, &frame, received.bytes(), &self.ports, neighbor) {
                reply.put(batch, outputs);
                return Err(DropReason::Suppressed);
            }
        }
        match attention {
            Attention::None => {
                let sent = send(bridge, &self.ports, place.port, &frame, destination, outputs)?;
                // Where the services ask for containers, an answer may follow, which only its payload tells.
                let sent = sent.filter(|_| !self.router.has_clients(id));
                let mtu = bridge.settings.mtu;
                let run = sent.and_then(|(to, departure)| Run::after(received, ethernet, (mtu, watched), to, departure));
                let at = Arrival { index, port: place.port, bridge: id, ethernet, now, second };
                self.explain_tunnel(&at, destination, batch, outputs);
                Ok(run)
            }
            Attention::Mine if !self.routes => Ok(None),
            Attention::Mine => {
                let at = Arrival { index, port: place.port, bridge: id, ethernet, now, second };
                let (bridges, ports) = (&self.bridges, &self.ports);
                self.router.receive(&at, &mut Paths { bridges, ports, batch, outputs }).map(|()| None)
            }
            Attention::Also => {
                let sent = send(bridge, &self.ports, place.port, &frame, destination, outputs);
                if !self.routes {
                    return Ok(None);
                }
                let at = Arrival { index, port: place.port, bridge: id, ethernet, now, second };
                let (bridges, ports) = (&self.bridges, &self.ports);
                let heard = self.router.hear(&at, &mut Paths { bridges, ports, batch, outputs });
                // Where there is nobody else, the gateway is who hears it; what others got was not dropped.
                match (heard, sent) {
                    (Ok(()), _) | (_, Ok(_)) => Ok(None),
                    (Err(DropReason::NoService), Err(reason)) | (Err(reason), Err(_)) => Err(reason),
                }
            }
        }
    }

    /// Has the sender of a frame told, which was bridged, that it is too long for the tunnel that it goes out of.
    fn explain_tunnel(&mut self, at: &Arrival, destination: Destination, batch: &mut Batch, outputs: &mut Outputs) {
        let (bridges, ports) = (&self.bridges, &self.ports);
        let Destination::Place(place) = destination else { return };
        let Some(Remote { mtu, .. }) = ports.get(place.port.0).and_then(|port| port.remote.as_ref()) else { return };
        if !batch.frames().get(at.index).is_some_and(|frame| exceeds(*mtu, &at.ethernet, frame)) {
            return;
        }
        if self.routes {
            self.router.explain_tunnel(at, *mtu, &mut Paths { bridges, ports, batch, outputs });
        } else {
            outputs.hand_over(at.index);
        }
    }

    /// Routes the frames of `batch`, which another worker received, bridged and handed over.
    pub fn route(&mut self, now: Instant, batch: &mut Batch, outputs: &mut Outputs) {
        let second = self.second(now);
        for index in 0..batch.frames().len() {
            let Some(frame) = batch.frames().get(index) else { return };
            let port = PortId(frame.ingress);
            let bytes = frame.bytes();
            let Ok(ethernet) = Ethernet::parse(bytes) else { continue };
            let Some(Port { bridge, vlans, .. }) = self.ports.get(port.0) else { continue };
            let bridge = *bridge;
            let vlan = match vlans.classify(ethernet.tag) {
                Ok(vlan) => vlan,
                // The port changed on its way here.
                Err(reason) => {
                    self.count_drops(port, reason, 1);
                    continue;
                }
            };
            let at = Arrival { index, port, bridge, ethernet, now, second };
            let attention = self.router.attention(bridge, vlan, &ethernet, bytes);
            let mut paths = Paths { bridges: &self.bridges, ports: &self.ports, batch, outputs };
            let routed = match attention {
                // It is bridged, by whoever received it, and too long for a tunnel.
                Attention::None => {
                    let destination = self.bridges.get(bridge.0).map(|bridge| bridge.look_up(vlan, ethernet.destination));
                    self.explain_tunnel(&at, destination.unwrap_or(Destination::Everyone), batch, outputs);
                    continue;
                }
                Attention::Mine => self.router.receive(&at, &mut paths),
                Attention::Also => {
                    let heard = self.router.hear(&at, &mut paths);
                    heard.or_else(|reason| match self.why_alone(bridge, port, (vlan, ethernet.tag)) {
                        None => Ok(()),
                        Some(alone) => Err(if reason == DropReason::NoService { alone } else { reason }),
                    })
                }
            };
            if let Err(reason) = routed {
                self.count_drops(port, reason, 1);
            }
        }
        self.count_late_drops();
    }

    /// Why a frame that came in at this port and was flooded left by no other; `None` if it did.
    fn why_alone(&self, bridge: BridgeId, ingress: PortId, place: (VlanId, Option<Tag>)) -> Option<DropReason> {
        self.bridges.get(bridge.0)?.why_alone(Some(ingress), place, &self.ports)
    }

    /// Sends a frame that the services made, in a VLAN of a bridge; none: its gateway's.
    pub fn emit(&mut self, (bridge, vlan): (BridgeId, Option<VlanId>), frame: &[u8], batch: &mut Batch, outputs: &mut Outputs) {
        let Some(vlan) = vlan.or_else(|| self.router.vlan(bridge)) else { return };
        // Whoever waits for it asks again.
        let _ = Paths { bridges: &self.bridges, ports: &self.ports, batch, outputs }.emit(bridge, vlan, frame);
    }

    /// Forgets what is too old, and lets the router do what is due. To be called about once a second, with an empty batch.
    pub fn expire(&mut self, now: Instant, batch: &mut Batch, outputs: &mut Outputs) {
        let second = self.second(now);
        for (_, bridge) in self.bridges.iter_mut() {
            bridge.fdb.expire(second);
        }
        self.router.tick(now, second, &mut Paths { bridges: &self.bridges, ports: &self.ports, batch, outputs });
        self.count_late_drops();
    }

    /// Frames for the services of gateways.
    pub fn take_punts(&mut self) -> std::vec::Drain<'_, Punt> {
        self.router.take_punts()
    }

    fn count_late_drops(&mut self) {
        for (port, reason) in self.router.take_late_drops() {
            if let Some(port) = self.ports.get_mut(port.0) {
                port.counters.count_drops(reason, 1);
            }
        }
    }

    /// Takes over what another worker learned, if it still makes sense here.
    pub fn hear(&mut self, now: Instant, news: News) {
        let second = self.second(now);
        let current = self.ports.get(news.place.port.0).is_some_and(|port| port.bridge == news.bridge && !port.down);
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

    /// What the frames that leave by a port are held to.
    pub(crate) fn receive_rate(&self, id: PortId) -> Option<&Limiter> {
        self.ports.get(id.0)?.receive_rate.as_deref()
    }

    /// Counts frames that left at a port.
    pub fn count_sent(&mut self, id: PortId, frames: u64, bytes: u64) {
        if let Some(port) = self.ports.get_mut(id.0) {
            port.counters.tx_frames += frames;
            port.counters.tx_bytes += bytes;
        }
    }

    /// Counts drops that a device reported.
    pub fn count_drops(&mut self, id: PortId, reason: DropReason, frames: u64) {
        if let Some(port) = self.ports.get_mut(id.0) {
            port.counters.count_drops(reason, frames);
        }
    }

    fn second(&self, now: Instant) -> u32 {
        u32::try_from(now.saturating_duration_since(self.epoch).as_secs()).unwrap_or(u32::MAX)
    }
}

/// Queues a frame where it goes, and says where that is if it is one port to which any frame like it may follow.
fn send(
    bridge: &Bridge,
    ports: &Slots<Port>,
    ingress: PortId,
    frame: &Parsed,
    destination: Destination,
    outputs: &mut Outputs,
) -> Result<Option<(PortId, Departure)>, DropReason> {
    match destination {
        Destination::Place(place) if place.port == ingress => Err(DropReason::SamePort),
        Destination::Place(Place { port: id, peer }) => {
            let [from, port] = [ingress, id].map(|id| ports.get(id.0).ok_or(DropReason::NoDestination));
            let (from, port) = (from?, port?);
            if port.protected && from.protected {
                return Err(DropReason::Protected);
            }
            let edit = port.vlans.egress(frame.vlan, frame.ethernet.tag).ok_or(DropReason::NoDestination)?;
            let departure = Departure { frame: frame.index, edit, peer };
            outputs.push(id, departure);
            // How long it may be in a tunnel is asked for each.
            Ok((from.looks_at_headers_only() && port.remote.is_none()).then_some((id, departure)))
        }
        Destination::Everyone => {
            let tag = (frame.vlan, frame.ethernet.tag);
            bridge.flood(Some(ingress), frame.index, tag, ports, outputs).map(|()| None)
        }
    }
}
