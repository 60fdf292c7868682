//! One learning, VLAN-aware bridge: its forwarding database and its ports.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Instant;

use packet::{Ethernet, Frame, Mac, Tag, TagEdit, VlanId};
use vxlan::Answer;

use super::conflict::Claims;
use super::fdb::Fdb;
use super::place::{Hold, Learned, Place};
use super::router::Arrival;
use super::tunnel::Reply;
use super::{Departure, DropReason, Limiter, Mode, Observer, Outputs, Port, PortId, PortSettings, RemoteStation, Slots, Step};
use api::{BridgeSpec, ControlFrames, VlanMode};

/// What the datapath needs to know about a bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BridgeSettings {
    /// Largest network-layer packet in bytes.
    pub mtu: u16,
    /// Seconds that a MAC address is remembered.
    pub ageing: u32,
    /// Most MAC addresses.
    pub max_macs: u32,
    /// What happens to link-local control frames.
    pub control_frames: ControlFrames,
    /// Whether its ports, but for tunnels, forward only what the spanning tree lets pass.
    pub stp: bool,
    /// What all addresses that are held may flood.
    pub held_floods: Arc<Limiter>,
}

impl From<&BridgeSpec> for BridgeSettings {
    fn from(spec: &BridgeSpec) -> Self {
        Self {
            mtu: spec.mtu,
            ageing: u32::try_from(spec.ageing.as_secs()).unwrap_or(u32::MAX),
            max_macs: spec.max_macs,
            control_frames: spec.control_frames,
            stp: spec.stp.is_on(),
            ..Self::default()
        }
    }
}

/// The defaults of a bridge in `switch.toml`, but for a small table.
impl Default for BridgeSettings {
    fn default() -> Self {
        let held_floods = Arc::new(Limiter::of_frames(HELD_FLOODS, Instant::now()));
        Self { mtu: 1500, ageing: 300, max_macs: 1024, control_frames: ControlFrames::Drop, stp: false, held_floods }
    }
}

#[derive(Debug)]
pub(super) struct Bridge {
    pub(super) settings: BridgeSettings,
    pub(super) fdb: Fdb,
    pub(super) claims: Claims,
    members: Vec<PortId>,
    /// Those members behind which the switch knows stations and answers for them.
    answering: Vec<PortId>,
    /// The addresses that the configuration gives to members, in the VLAN of their untagged frames.
    owners: BTreeSet<(VlanId, IpAddr, PortId)>,
    /// When an address was last said to be held.
    told: Option<u32>,
}

/// Seconds between two addresses that are said to be held.
const TELLING: u32 = 60;
/// Most flooded frames a second of all addresses that are held. A frame of such an address can go round a loop in the direction of its home
/// without moving the address, so only this limit stops it. Frames in a loop use the limit up at once and are dropped. The occasional frame
/// of a station passes.
const HELD_FLOODS: u32 = 100;

/// Where a frame that may pass goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Destination {
    Place(Place),
    Everyone,
}

impl From<Place> for Destination {
    fn from(place: Place) -> Self {
        Self::Place(place)
    }
}

impl Destination {
    /// Where it goes alone.
    pub(super) const fn place(self) -> Option<Place> {
        match self {
            Self::Place(place) => Some(place),
            Self::Everyone => None,
        }
    }
}

impl Bridge {
    pub(super) fn new(settings: BridgeSettings, seed: u64) -> Self {
        let (fdb, claims) = (Fdb::new(settings.max_macs, settings.ageing, seed), Claims::new(seed));
        let (members, answering, owners) = (Vec::new(), Vec::new(), BTreeSet::new());
        Self { settings, fdb, claims, members, answering, owners, told: None }
    }

    pub(super) fn change(&mut self, settings: BridgeSettings, now: u32) {
        self.fdb.resize(settings.max_macs, settings.ageing, now);
        let held_floods = if self.settings.held_floods == settings.held_floods {
            Arc::clone(&self.settings.held_floods)
        } else {
            settings.held_floods
        };
        self.settings = BridgeSettings { held_floods, ..settings };
    }

    pub(super) fn join(&mut self, port: PortId) {
        if !self.members.contains(&port) {
            self.members.push(port);
        }
    }

    pub(super) fn leave(&mut self, port: PortId) {
        self.members.retain(|member| *member != port);
        self.answering.retain(|member| *member != port);
        self.owners.retain(|(.., owner)| *owner != port);
        self.fdb.forget_port(port);
        self.claims.forget_port(port);
    }

    /// Takes note of what is known beforehand behind a port, and whether the switch answers for it. `before` is what other hosts told of stations
    /// there.
    pub(super) fn set_known(&mut self, port: PortId, settings: &PortSettings, answers: bool, before: &[RemoteStation]) {
        self.answering.retain(|member| *member != port);
        if answers {
            self.answering.push(port);
        }
        let vlan = match &settings.vlans {
            VlanMode::Access(vlan) | VlanMode::Trunk { native: Some(vlan), .. } => *vlan,
            _ => VlanId::DEFAULT,
        };
        let told = settings.tunnel.as_ref().filter(|tunnel| tunnel.told);
        match told {
            Some(tunnel) => self.fdb.tell(port, vlan, before, &tunnel.stations),
            None => {
                let stations = settings.tunnel.iter().flat_map(|tunnel| tunnel.stations.iter());
                self.fdb.fix(port, stations.map(|station| (vlan, station.mac, station.peer)));
            }
        }
        // The addresses of a station that may move are its own wherever it is.
        let stations = settings.tunnel.iter().filter(|tunnel| !tunnel.told).flat_map(|tunnel| tunnel.stations.iter());
        self.owners.retain(|(.., owner)| *owner != port);
        let addresses = settings.addresses.iter().copied().chain(stations.filter_map(|station| station.ip));
        self.owners.extend(addresses.map(|address| (vlan, address, port)));
    }

    /// Whether the configuration gives addresses to any member.
    pub(super) fn has_owners(&self) -> bool {
        !self.owners.is_empty()
    }

    /// The member that the configuration gives an address to, if that is not this one.
    pub(super) fn other_owner(&self, vlan: VlanId, address: IpAddr, port: PortId) -> Option<PortId> {
        let mut owners =
            self.owners.range((vlan, address, PortId(0))..=(vlan, address, PortId(u32::MAX))).map(|(.., owner)| *owner);
        let first = owners.next()?;
        (first != port && owners.all(|owner| owner != port)).then_some(first)
    }

    /// The answer to a frame that asks for a station which is known behind a tunnel: beforehand, or as a `neighbor` of the gateway.
    pub(super) fn answer(
        &self,
        at: &Arrival,
        bytes: &[u8],
        ports: &Slots<Port>,
        neighbor: impl Fn(IpAddr) -> Option<Mac>,
    ) -> Option<Reply> {
        let asked_at = ports.get(at.port.0)?;
        let given = self.answering.iter().filter(|_| !self.answering.contains(&at.port)).find_map(|id| {
            let port = ports.get(id.0).filter(|port| port.vlans.egress(at.vlan, at.ethernet.tag).is_some())?;
            port.remote.as_ref()?.answer(bytes, &at.ethernet)
        });
        let is_remote = |mac: &Mac| match self.look_up(at.vlan, *mac) {
            Destination::Place(place) => ports.get(place.port.0).is_some_and(|port| port.remote.is_some()),
            Destination::Everyone => false,
        };
        let learned = || Answer::to(bytes, &at.ethernet, |address| neighbor(address).filter(is_remote));
        let answer = given.or_else(|| if asked_at.remote.is_none() { learned() } else { None })?;
        Some(Reply { answer, to: at.port, edit: asked_at.vlans.egress(at.vlan, None)? })
    }

    /// The MAC address of a station that is known beforehand behind a tunnel.
    pub(super) fn known(&self, vlan: VlanId, address: IpAddr, ports: &Slots<Port>) -> Option<Mac> {
        self.answering.iter().find_map(|id| {
            let port = ports.get(id.0).filter(|port| port.vlans.egress(vlan, None).is_some())?;
            port.remote.as_ref()?.mac_of(address)
        })
    }

    pub(super) fn has_members(&self) -> bool {
        !self.members.is_empty()
    }

    pub(super) fn learn(&mut self, vlan: VlanId, source: Mac, place: Place, now: u32) -> Learned {
        self.fdb.learn(vlan, source, place, now)
    }

    /// An address that is held from now on, if none was told of lately.
    pub(super) fn take_hold(&mut self, now: u32) -> Option<Hold> {
        let hold = self.fdb.take_hold()?;
        let due = self.told.is_none_or(|told| now.saturating_sub(told) >= TELLING);
        due.then(|| {
            self.told = Some(now);
            hold
        })
    }

    /// Whether one more frame of this source, or super-frame of so many segments, may go to many.
    pub(super) fn admit_flood(
        &self,
        (vlan, source): (VlanId, Mac),
        segments: usize,
        (now, second): (Instant, u32),
        mode: Mode,
    ) -> Result<(), DropReason> {
        if !self.fdb.is_held(vlan, source, second) {
            return Ok(());
        }
        self.settings.held_floods.admit_frames(segments, now, mode).then_some(()).ok_or(DropReason::MacMove)
    }

    pub(super) fn look_up(&self, vlan: VlanId, destination: Mac) -> Destination {
        if destination.is_group() {
            return Destination::Everyone;
        }
        self.fdb.find(vlan, destination).map_or(Destination::Everyone, Destination::Place)
    }

    /// As [`Bridge::look_up`], after a frame was received. In a dry run where its sender is was not learned, but is known all the same.
    pub(super) fn look_up_after(
        &self,
        mode: Mode,
        received: &Frame,
        ports: &Slots<Port>,
        (vlan, destination): (VlanId, Mac),
    ) -> Destination {
        let place = Place { port: PortId(received.ingress), peer: received.peer };
        let is_sender = || {
            let port = ports.get(place.port.0).filter(|port| self.members.contains(&place.port) && port.learns());
            let ethernet = Ethernet::parse(received.bytes()).ok().filter(|ethernet| ethernet.source == destination);
            let from = port.zip(ethernet).and_then(|(port, ethernet)| port.vlans.classify(ethernet.tag).ok());
            from == Some(vlan) && !self.fdb.is_given(vlan, destination)
        };
        if mode == Mode::Dry && is_sender() { place.into() } else { self.look_up(vlan, destination) }
    }

    /// Puts a frame, which has this tag, into the queue of every port but its own that carries its VLAN, and is not protected from
    /// its own. Says how many these are.
    ///
    /// # Errors
    /// Why there was none.
    pub(super) fn flood(
        &self,
        ingress: Option<PortId>,
        index: usize,
        (vlan, tag): (VlanId, Option<Tag>),
        ports: &Slots<Port>,
        (outputs, observer): (&mut Outputs, &mut impl Observer),
    ) -> Result<NonZeroU16, DropReason> {
        let mut reached = 0_u16;
        for (member, edit) in self.others(ingress, (vlan, tag), ports) {
            observer.see(index, || Step::Queued { port: member, edit, peer: 0 });
            outputs.push(member, Departure { frame: index, edit, peer: 0 });
            reached = reached.saturating_add(1);
        }
        let alone = || self.why_alone(ingress, (vlan, tag), ports).unwrap_or(DropReason::NoDestination);
        NonZeroU16::new(reached).ok_or_else(alone)
    }

    /// Why a flooded frame leaves by no port; `None` if it leaves by one.
    pub(super) fn why_alone(
        &self,
        ingress: Option<PortId>,
        (vlan, tag): (VlanId, Option<Tag>),
        ports: &Slots<Port>,
    ) -> Option<DropReason> {
        if self.others(ingress, (vlan, tag), ports).next().is_some() {
            return None;
        }
        let others = self.members.iter().filter(|member| Some(**member) != ingress).filter_map(|member| ports.get(member.0));
        let carrying = others.filter(|port| port.vlans.egress(vlan, tag).is_some());
        Some(match carrying.map(Port::forwards).max() {
            None => DropReason::NoDestination,
            Some(false) => DropReason::StpDiscarding,
            // A port that forwards and carries the VLAN was left out because both are protected.
            Some(true) => DropReason::Protected,
        })
    }

    /// The ports that a flooded frame leaves by, and what happens to its tag there.
    pub(super) fn others(
        &self,
        ingress: Option<PortId>,
        (vlan, tag): (VlanId, Option<Tag>),
        ports: &Slots<Port>,
    ) -> impl Iterator<Item = (PortId, TagEdit)> {
        let protected = ingress.and_then(|id| ports.get(id.0)).is_some_and(|port| port.policy.protected);
        self.members.iter().copied().filter(move |member| Some(*member) != ingress).filter_map(move |member| {
            let port = ports.get(member.0).filter(|port| port.forwards() && !(protected && port.policy.protected))?;
            Some((member, port.vlans.egress(vlan, tag)?))
        })
    }
}
