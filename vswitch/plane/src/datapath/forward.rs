//! One way through: how a batch is decided, frame by frame.

use std::time::Instant;

use packet::{Batch, Ethernet, Frame, VlanId};

use super::bridge::{Bridge, Destination};
use super::claim::{self, Claimant};
use super::flows::Look;
use super::port::{Port, exceeds};
use super::router::{Arrival, Attention, Paths, Router};
use super::run::Run;
use super::tunnel::Remote;
use super::{
    BridgeId, Datapath, Decision, Departure, DropReason, Errand, Fate, Hold, Learned, Mode, News, Observer, Outputs, Place,
    PortId, Slots, Step, Unobserved,
};

/// What the headers of a frame say. They are read once, as a batch comes in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Headers {
    /// `None`: the frame ends before its Ethernet header does.
    pub(super) ethernet: Option<Ethernet>,
    /// The VLAN that the port takes it to be in.
    pub(super) vlan: Result<VlanId, DropReason>,
}

/// What became of a frame, and what that means for those like it which follow.
type Verdict = (Fate, Option<Run>);

impl Datapath {
    /// Forwards every frame of `batch` into `outputs`. What the router has to say is put behind them.
    pub fn forward(&mut self, now: Instant, batch: &mut Batch, outputs: &mut Outputs) {
        self.forward_observed(now, batch, outputs, &mut Unobserved);
    }

    /// As [`Datapath::forward`], with an observer. A frame that follows another with the same header takes no steps of its own.
    pub fn forward_observed<O: Observer>(&mut self, now: Instant, batch: &mut Batch, outputs: &mut Outputs, observer: &mut O) {
        self.parse(batch);
        let (second, mut run) = (self.second(now), None::<Run>);
        for index in 0..batch.frames().len() {
            let Some(frame) = batch.frames().get(index) else { return };
            let (ingress, length) = (PortId(frame.ingress), frame.bytes().len() as u64);
            let Some(port) = self.ports.get_mut(ingress.0) else {
                outputs.settle(None);
                continue;
            };
            if O::MODE == Mode::Live {
                port.counters.rx_frames += 1;
                port.counters.rx_bytes += length;
                if let Some(bytes) = port.flows.pass(port.counters.rx_bytes, length) {
                    self.looks.push(Look { frame: index, bytes });
                }
            }
            if let Some((egress, departure)) = run.as_ref().and_then(|run| run.next(index, frame)) {
                outputs.push(egress, departure);
                outputs.settle(Some(Fate::Bridged(egress)));
                continue;
            }
            let (fate, like_it) = self
                .decide(index, (now, second), batch, outputs, observer)
                .unwrap_or_else(|reason| (Fate::Dropped(reason), None));
            run = like_it;
            observer.see(index, || Step::Settled(fate));
            self.settle(ingress, fate, outputs, O::MODE);
        }
        self.note_flows(batch, outputs);
        self.count_late_drops();
    }

    /// Routes the frames of `batch`, which another worker received and handed over, each with an errand.
    pub fn route(&mut self, now: Instant, batch: &mut Batch, errands: &[Errand], outputs: &mut Outputs) {
        self.parse(batch);
        let second = self.second(now);
        for (index, errand) in errands.iter().enumerate() {
            let Some(frame) = batch.frames().get(index) else { return };
            let (ingress, length) = (PortId(frame.ingress), frame.bytes().len() as u64);
            if let (Errand::Decide, Some(port)) = (errand, self.ports.get_mut(ingress.0)) {
                let bytes = port.flows.pass_more(port.counters.rx_bytes, length);
                self.looks.extend(bytes.map(|bytes| Look { frame: index, bytes }));
            }
            let decided = self.decide_for_another(index, *errand, (now, second), batch, outputs, &mut Unobserved);
            match errand {
                Errand::Decide => self.settle(ingress, decided.into(), outputs, Mode::Live),
                Errand::Tell => outputs.settle(None),
            }
        }
        self.note_flows(batch, outputs);
        self.count_late_drops();
    }

    /// The one place where it is noted and counted what became of a frame of the batch.
    fn settle(&mut self, ingress: PortId, fate: Fate, outputs: &mut Outputs, mode: Mode) {
        if let Some(reason) = fate.drop_reason().filter(|_| mode == Mode::Live) {
            self.count_drops(ingress, reason, 1);
        }
        outputs.settle(Some(fate));
    }

    /// Reads the headers of a batch, and has the tables prefetched that its frames need.
    fn parse(&mut self, batch: &Batch) {
        self.headers.clear();
        self.packets.clear();
        let ports = &self.ports;
        self.headers.extend(batch.frames().iter().map(|frame| {
            let ethernet = Ethernet::parse(frame.bytes()).ok();
            let vlan = match (&ethernet, ports.get(frame.ingress)) {
                (Some(ethernet), Some(port)) => port.vlans.classify(ethernet.tag),
                _ => Err(DropReason::Runt),
            };
            Headers { ethernet, vlan }
        }));
        // A batch comes from one port, or from tunnels of one socket.
        let Some(port) = batch.frames().first().and_then(|frame| ports.get(frame.ingress)) else { return };
        let Some(bridge) = self.bridges.get(port.bridge.0) else { return };
        let addresses = self.headers.iter().filter_map(|headers| {
            let (ethernet, vlan) = (headers.ethernet?, headers.vlan.ok()?);
            Some([(vlan, ethernet.source), (vlan, ethernet.destination)])
        });
        bridge.fdb.prefetch(addresses.flatten());
        if self.routes {
            self.router.parse(port.bridge, batch.frames(), &self.headers, &mut self.packets);
        }
    }

    /// Decides about one frame.
    fn decide<O: Observer>(
        &mut self,
        index: usize,
        (now, second): (Instant, u32),
        batch: &mut Batch,
        outputs: &mut Outputs,
        observer: &mut O,
    ) -> Result<Verdict, DropReason> {
        let received = batch.frames().get(index).ok_or(DropReason::Malformed)?;
        let headers = self.headers.get(index).ok_or(DropReason::Malformed)?;
        let place = Place { port: PortId(received.ingress), peer: received.peer };
        let port = self.ports.get(place.port.0).ok_or(DropReason::NoDestination)?;
        if port.tree.is_some()
            && let Some(fate) = self.bpdus.hear(port, headers, received, O::MODE)?
        {
            return Ok((fate, None));
        }
        let bridge = self.bridges.get_mut(port.bridge.0).ok_or(DropReason::NoDestination)?;
        let (ethernet, vlan) = port.admit(received, headers, &bridge.settings, (now, O::MODE))?;
        let at = Arrival { index, port: place.port, bridge: port.bridge, vlan, ethernet, now, second };
        let guarded = port.guard.is_some();
        observer.see(index, || Step::Admitted { port: at.port, bridge: at.bridge, vlan, guarded });
        let watched = check_sender(&self.router, bridge, port, (&at, received), O::MODE)?;
        if watched {
            observer.see(index, || Step::ClaimsChecked);
        }
        if port.learns() {
            let outcome = match O::MODE {
                Mode::Live => learn(bridge, &at, place, &mut self.news, &mut self.holds),
                Mode::Dry => bridge.fdb.peek_learn(vlan, ethernet.source, place, second),
            };
            observer.see(index, || Step::SourceLearned { mac: ethernet.source, place, outcome });
            if outcome == Learned::Held {
                return Err(DropReason::MacMove);
            }
        }
        if !port.forwards() {
            return Err(DropReason::StpDiscarding);
        }
        let attention = self.router.attention(&at, received.bytes());
        if attention != Attention::None {
            observer.see(index, || Step::ForGateway { alone: attention == Attention::Mine });
        }
        let destination = bridge.look_up_after(O::MODE, received, &self.ports, (vlan, ethernet.destination));
        if attention != Attention::Mine {
            observer.see(index, || Step::DestinationLookedUp { mac: ethernet.destination, place: destination.place() });
        }
        if attention != Attention::Mine && destination == Destination::Everyone {
            self.limit_flood(&at, batch, outputs, O::MODE)?;
        }
        match attention {
            Attention::None => self.bridge_on(&at, destination, watched, batch, outputs, observer),
            Attention::Mine => self.receive(&at, batch, outputs, observer).map(|fate| (fate, None)),
            Attention::Also => self.bridge_and_hear(&at, destination, batch, outputs, observer).map(|fate| (fate, None)),
        }
    }

    /// Checks the limits of a frame that goes to many. If the switch knows the answer to it, the answer is sent and the frame goes no further.
    fn limit_flood(&self, at: &Arrival, batch: &mut Batch, outputs: &mut Outputs, mode: Mode) -> Result<(), DropReason> {
        let received = batch.frames().get(at.index).ok_or(DropReason::Malformed)?;
        let (ethernet, segments) = (&at.ethernet, received.segments());
        if !ethernet.destination.is_group() {
            let port = self.ports.get(at.port.0).ok_or(DropReason::NoDestination)?;
            port.admit_flood(segments, at.now, mode)?;
        }
        let bridge = self.bridges.get(at.bridge.0).ok_or(DropReason::NoDestination)?;
        bridge.admit_flood((at.vlan, ethernet.source), segments, (at.now, at.second), mode)?;
        let neighbor = |address| self.router.confirmed(at.bridge, at.vlan, address, at.second);
        match bridge.answer(at, received.bytes(), &self.ports, neighbor) {
            Some(reply) => {
                reply.put(batch, outputs);
                Err(DropReason::Suppressed)
            }
            None => Ok(()),
        }
    }

    /// Bridges a frame that is not for the gateway.
    fn bridge_on(
        &mut self,
        at: &Arrival,
        destination: Destination,
        watched: bool,
        batch: &mut Batch,
        outputs: &mut Outputs,
        observer: &mut impl Observer,
    ) -> Result<Verdict, DropReason> {
        let bridge = self.bridges.get(at.bridge.0).ok_or(DropReason::NoDestination)?;
        let (fate, like_it) = send(bridge, &self.ports, at, destination, (outputs, observer))?;
        // Where the services ask for containers, an answer may follow, which only its payload tells.
        let like_it = like_it.filter(|_| !self.router.has_clients(at.bridge));
        let received = batch.frames().get(at.index).ok_or(DropReason::Malformed)?;
        let mtu = bridge.settings.mtu;
        let run = like_it.and_then(|(to, departure)| Run::after(received, at.ethernet, (mtu, watched), to, departure));
        self.explain_tunnel(at, destination, batch, outputs, observer);
        Ok((fate, run))
    }

    /// Gives the router a frame that is for the gateway alone.
    fn receive(&mut self, at: &Arrival, batch: &mut Batch, outputs: &mut Outputs, observer: &mut impl Observer) -> Decision {
        if !self.routes {
            outputs.hand_over(at.index, Errand::Decide);
            return Ok(Fate::HandedOver);
        }
        let packet = self.packets.get(at.index).copied().flatten();
        self.router.receive(at, packet, &mut Paths { bridges: &self.bridges, ports: &self.ports, batch, outputs, observer })
    }

    /// Bridges a frame that is for all, the gateway among them.
    fn bridge_and_hear(
        &mut self,
        at: &Arrival,
        destination: Destination,
        batch: &mut Batch,
        outputs: &mut Outputs,
        observer: &mut impl Observer,
    ) -> Decision {
        let bridge = self.bridges.get(at.bridge.0).ok_or(DropReason::NoDestination)?;
        let sent = send(bridge, &self.ports, at, destination, (outputs, observer)).map(|(fate, _)| fate);
        if self.routes {
            let heard =
                self.router.hear(at, &mut Paths { bridges: &self.bridges, ports: &self.ports, batch, outputs, observer });
            return heard_beside(sent, heard);
        }
        outputs.hand_over(at.index, if sent.is_ok() { Errand::Tell } else { Errand::Decide });
        Ok(sent.unwrap_or(Fate::HandedOver))
    }

    /// Tells the sender of a frame that was bridged into a tunnel that the tunnel carries nothing as long as that.
    fn explain_tunnel(
        &mut self,
        at: &Arrival,
        destination: Destination,
        batch: &mut Batch,
        outputs: &mut Outputs,
        observer: &mut impl Observer,
    ) {
        let Destination::Place(place) = destination else { return };
        let Some(Remote { mtu, .. }) = self.ports.get(place.port.0).and_then(|port| port.remote.as_ref()) else { return };
        let mtu = *mtu;
        if !batch.frames().get(at.index).is_some_and(|frame| exceeds(mtu, &at.ethernet, frame)) {
            return;
        }
        if self.routes {
            let mut paths = Paths { bridges: &self.bridges, ports: &self.ports, batch, outputs, observer };
            self.router.explain_tunnel(at, mtu, &mut paths);
        } else {
            outputs.hand_over(at.index, Errand::Tell);
        }
    }

    /// Decides about a frame that another worker received and checked. The port and the gateway may have changed since then.
    fn decide_for_another(
        &mut self,
        index: usize,
        errand: Errand,
        (now, second): (Instant, u32),
        batch: &mut Batch,
        outputs: &mut Outputs,
        observer: &mut impl Observer,
    ) -> Decision {
        let received = batch.frames().get(index).ok_or(DropReason::Malformed)?;
        let headers = self.headers.get(index).ok_or(DropReason::Malformed)?;
        let (ethernet, vlan) = (headers.ethernet.ok_or(DropReason::Runt)?, headers.vlan?);
        let port = self.ports.get(received.ingress).ok_or(DropReason::NoDestination)?;
        let at = Arrival { index, port: PortId(received.ingress), bridge: port.bridge, vlan, ethernet, now, second };
        let bridge = self.bridges.get(at.bridge.0).ok_or(DropReason::NoDestination)?;
        match (self.router.attention(&at, received.bytes()), errand) {
            (Attention::Mine, Errand::Decide) => self.receive(&at, batch, outputs, observer),
            (Attention::Also, _) => {
                let alone = bridge.why_alone(Some(at.port), (vlan, ethernet.tag), &self.ports);
                let heard =
                    self.router.hear(&at, &mut Paths { bridges: &self.bridges, ports: &self.ports, batch, outputs, observer });
                heard_beside(Err(alone.unwrap_or(DropReason::NoDestination)), heard)
            }
            (Attention::None, Errand::Tell) => {
                let destination = bridge.look_up(vlan, ethernet.destination);
                self.explain_tunnel(&at, destination, batch, outputs, observer);
                Ok(Fate::Noted)
            }
            (Attention::None, Errand::Decide) | (Attention::Mine, Errand::Tell) => Err(DropReason::NoRoute),
        }
    }
}

/// Checks that the sender of a frame may have the addresses that it claims. Returns whether claims are watched on this bridge at all.
fn check_sender(
    router: &Router,
    bridge: &mut Bridge,
    port: &Port,
    (at, received): (&Arrival, &Frame),
    mode: Mode,
) -> Result<bool, DropReason> {
    if router.has_mac(at.bridge, at.ethernet.source) {
        return Err(DropReason::InvalidSource);
    }
    let watched = router.watches(at.bridge) || bridge.has_owners();
    if watched {
        let who = Claimant {
            bridge: at.bridge,
            vlan: at.vlan,
            port: at.port,
            second: at.second,
            is_station: port.is_station(),
            is_told: port.remote.as_ref().is_some_and(|remote| remote.told),
        };
        claim::check(router, bridge, &who, (&at.ethernet, received.bytes()), mode)?;
    }
    Ok(watched)
}

/// Learns where the sender of a frame is, and notes what others should hear of it.
fn learn(bridge: &mut Bridge, at: &Arrival, place: Place, news: &mut Vec<News>, holds: &mut Vec<(BridgeId, Hold)>) -> Learned {
    let learned = bridge.learn(at.vlan, at.ethernet.source, place, at.second);
    if learned != Learned::Known {
        holds.extend(bridge.take_hold(at.second).map(|hold| (at.bridge, hold)));
    }
    if learned == Learned::News {
        news.push(News { bridge: at.bridge, vlan: at.vlan, mac: at.ethernet.source, place });
    }
    learned
}

/// What became of a frame that was `sent` to other ports and `heard` by the gateway. It is dropped only if no other port got it and the
/// gateway had no use for it.
fn heard_beside(sent: Decision, heard: Result<Fate, DropReason>) -> Result<Fate, DropReason> {
    match (sent, heard) {
        (Ok(fate), _) | (Err(_), Ok(fate)) => Ok(fate),
        (Err(alone), Err(DropReason::NoService)) => Err(alone),
        (Err(_), Err(reason)) => Err(reason),
    }
}

/// Queues a frame where it goes. If that is one port, and frames like it may follow without being looked at, returns that port too.
fn send(
    bridge: &Bridge,
    ports: &Slots<Port>,
    at: &Arrival,
    destination: Destination,
    (outputs, observer): (&mut Outputs, &mut impl Observer),
) -> Result<(Fate, Option<(PortId, Departure)>), DropReason> {
    match destination {
        Destination::Place(place) if place.port == at.port => Err(DropReason::SamePort),
        Destination::Place(Place { port: id, peer }) => {
            let [from, port] = [at.port, id].map(|id| ports.get(id.0).ok_or(DropReason::NoDestination));
            let (from, port) = (from?, port?);
            if port.policy.protected && from.policy.protected {
                return Err(DropReason::Protected);
            }
            if !port.forwards() {
                return Err(DropReason::StpDiscarding);
            }
            let edit = port.vlans.egress(at.vlan, at.ethernet.tag).ok_or(DropReason::NoDestination)?;
            let departure = Departure { frame: at.index, edit, peer };
            observer.see(at.index, || Step::Queued { port: id, edit, peer });
            outputs.push(id, departure);
            // The length that a tunnel carries is checked for each frame.
            let alike = from.looks_at_headers_only() && port.remote.is_none();
            Ok((Fate::Bridged(id), alike.then_some((id, departure))))
        }
        Destination::Everyone => {
            let tag = (at.vlan, at.ethernet.tag);
            bridge.flood(Some(at.port), at.index, tag, ports, (outputs, observer)).map(|ports| (Fate::Flooded(ports), None))
        }
    }
}
