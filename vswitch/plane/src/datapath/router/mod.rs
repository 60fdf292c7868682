//! The router: the gateway of each bridge that has one, and the uplinks.
//!
//! **What it holds.** For each bridge with a gateway its MAC address, addresses and side ([`GatewaySettings`]); the neighbours
//! ([`neighbor`]); fragments that came [`early`]; for each uplink that translates, its [`nat::Nat`]. An uplink is a bridge too, with one
//! port and a gateway, and so is a tunnel to hosts that route: the router looks the same from all sides.
//!
//! **Who calls it.** [`Datapath::forward`](super::Datapath::forward), with frames to a gateway's MAC address ([`Router::receive`]), and
//! with broadcast and multicast frames, which also go their way across the bridge ([`Router::hear`]). Only the first worker
//! routes; others hand such frames over to it, so that sessions and neighbours have one owner.
//!
//! **The way of a packet.** Is it for the router itself? Then it is answered here ([`local`]), or punted to the services on the control
//! side. Else: hop limit, route, NAT, MTU, neighbour. What is decided is a [`Hop`], kept in the outputs beside the frame, which
//! changes when every decision of the batch is made and a capture has seen the frame as it came in. The frame is then queued at the
//! port where its next hop is; it never enters the bridge again, so that nothing can go round in circles.
//!
//! **Answers.** What the router says itself (ARP, neighbour discovery, ICMP, resets) is a frame of its own, put behind those of the
//! batch. At most [`packet::Batch::ANSWERS`] fit; ICMP errors have a rate limit too (RFC 1812, section 4.3.2.8). It never answers
//! for a host that is not there.

mod clients;
mod early;
mod fragment;
mod hop;
mod interface;
mod local;
mod message;
mod neighbor;
mod oversize;
mod paths;
mod route;
mod routes;
#[cfg(test)]
mod tests;
mod whole;

use std::net::IpAddr;
use std::time::Instant;

use nat::{Direction, Nat};
use packet::{Ethernet, Frame, IpPacket, Mac, VlanId, ethertype};

pub use interface::{GatewaySettings, Side, Translation};
pub use local::{Punt, is_for_services};
pub use neighbor::{NeighborRow, SavedNeighbor};

pub(super) use hop::Hop;
pub(super) use paths::Paths;

use super::claim::{Claim, Claimant};
use super::forward::Headers;
use super::{BridgeId, Decision, DropReason, Fate, Kept, LateDrop, Limiter, Mode, Observer, PortId, Slots, Tickets, Wait};
use crate::fragments::Reassembly;
use clients::Clients;
use early::Early;
use interface::{Interface, Interfaces, Way};
use message::Problem;
use neighbor::{Due, Neighbors};

/// Most ICMP errors a second into one bridge; `icmp_msgs_per_sec` of Linux.
const ERRORS: u32 = 1000;

/// Every gateway of the switch.
#[derive(Debug)]
pub(super) struct Router {
    interfaces: Interfaces,
    neighbors: Neighbors,
    clients: Clients,
    early: Early,
    /// By bridge, so that stations of one do not use up what those of another are to hear.
    errors: Slots<Limiter>,
    punts: Vec<Punt>,
    /// Of frames punted that the services have not taken yet.
    tickets: Tickets,
    /// Packets that waited in vain.
    late_drops: Vec<LateDrop>,
    due: Vec<Due>,
    /// Packets to the gateways that come in fragments, by where they came in.
    fragments: Reassembly<(BridgeId, PortId)>,
    /// Of the last packet that was sent in fragments.
    identification: u32,
    /// Where an answer is written before it goes into the batch.
    scratch: Vec<u8>,
    seed: u64,
}

/// A frame that the router looks at.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arrival {
    /// Its place in the batch.
    pub(super) index: usize,
    /// The port that it came in at.
    pub(super) port: PortId,
    /// The bridge of that port.
    pub(super) bridge: BridgeId,
    /// Its VLAN there.
    pub(super) vlan: VlanId,
    pub(super) ethernet: Ethernet,
    pub(super) now: Instant,
    /// Now, in seconds of the tables.
    pub(super) second: u32,
}

/// What is to become of a packet, but for the MAC address of its next hop.
#[derive(Debug, Clone, Copy)]
struct Plan {
    /// The port and bridge that it came in at.
    port: PortId,
    from: BridgeId,
    way: Way,
    nat: Option<nat::Rewrite>,
}

/// Whether the gateway of a bridge wants a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Attention {
    /// It is for others.
    None,
    /// It is for the gateway alone.
    Mine,
    /// It is for all, the gateway among them.
    Also,
}

/// Why a packet is not routed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    NoRoute,
    Isolated,
    NoSession,
}

impl From<Refusal> for DropReason {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NoRoute => Self::NoRoute,
            Refusal::Isolated => Self::Isolated,
            Refusal::NoSession => Self::NoSession,
        }
    }
}

impl Router {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            interfaces: Interfaces::default(),
            neighbors: Neighbors::new(seed),
            clients: Clients::default(),
            early: Early::new(seed),
            errors: Slots::default(),
            punts: Vec::new(),
            tickets: Tickets::default(),
            late_drops: Vec::new(),
            due: Vec::new(),
            fragments: Reassembly::default(),
            identification: 0,
            scratch: Vec::new(),
            seed,
        }
    }

    /// Gives a bridge a gateway, changes it, or takes it away. Sessions of an uplink go on unless the rules of its NAT change; then its
    /// forwards have to be set again too.
    pub(super) fn set_gateway(&mut self, bridge: BridgeId, settings: Option<GatewaySettings>) {
        let before = self.interfaces.remove(bridge);
        self.early.forget_bridge(bridge);
        let Some(settings) = settings else {
            return self.neighbors.forget_bridge(bridge);
        };
        let place = |settings: &GatewaySettings| (settings.vlan, settings.addresses.clone());
        if before.as_ref().is_some_and(|before| place(&before.settings) != place(&settings)) {
            self.neighbors.forget_bridge(bridge);
        }
        let nat = match &settings.side {
            Side::Outside { translation: Translation::Nat(rules), .. } => {
                let kept = before.and_then(|before| before.nat).filter(|nat| *nat.settings() == **rules);
                Some(kept.unwrap_or_else(|| Box::new(Nat::new((**rules).clone(), self.seed))))
            }
            _ => None,
        };
        let mut interface = Interface::new(settings, nat);
        let addresses: Vec<IpAddr> = interface.addresses().collect();
        if let Some(nat) = &mut interface.nat {
            nat.set_addresses(&addresses);
        }
        self.interfaces.insert(bridge, interface);
    }

    /// Sets the published ports of an uplink.
    pub(super) fn set_forwards(&mut self, uplink: BridgeId, forwards: Vec<nat::Forward>) {
        if let Some(nat) = self.nat_mut(uplink) {
            nat.set_forwards(forwards);
        }
    }

    /// Forgets the neighbours of a gateway.
    pub(super) fn forget_neighbors(&mut self, bridge: BridgeId) {
        self.neighbors.forget_bridge(bridge);
    }

    /// Forgets what is known of stations of a bridge that are gone: where they are, and their sessions.
    pub(super) fn forget_stations(&mut self, now: Instant, bridge: BridgeId, addresses: &[IpAddr]) {
        addresses.iter().for_each(|address| self.neighbors.forget(bridge, *address));
        for interface in self.interfaces.iter_mut() {
            if let Some(nat) = &mut interface.nat {
                nat.flush(now, |session| addresses.contains(&session.inside.ip()));
            }
        }
    }

    /// The sessions of an uplink.
    pub(super) fn nat(&self, uplink: BridgeId) -> Option<&Nat> {
        self.interfaces.get(uplink)?.nat.as_deref()
    }

    /// What each uplink's translation did so far.
    pub(super) fn nat_counters(&self) -> impl Iterator<Item = (BridgeId, nat::Counters)> {
        self.interfaces.iter().filter_map(|(id, interface)| Some((id, interface.nat.as_ref()?.counters())))
    }

    /// The sessions of an uplink, to be added to.
    pub(super) fn nat_mut(&mut self, uplink: BridgeId) -> Option<&mut Nat> {
        self.interfaces.get_mut(uplink)?.nat.as_deref_mut()
    }

    /// The neighbours of a bridge.
    pub(super) fn neighbors(&self, bridge: BridgeId, second: u32) -> Vec<NeighborRow> {
        self.neighbors.rows(bridge, second)
    }

    /// The known neighbours of a bridge, for another router.
    pub(super) fn export_neighbors(&self, bridge: BridgeId, second: u32) -> Vec<SavedNeighbor> {
        self.neighbors.export(bridge, second)
    }

    /// Takes on another router's, if the bridge has a gateway.
    pub(super) fn import_neighbors(&mut self, bridge: BridgeId, saved: &[SavedNeighbor], second: u32) {
        if self.interfaces.get(bridge).is_some() {
            self.neighbors.import(bridge, saved, second);
        }
    }

    /// The MAC address of a station in this VLAN of a bridge, if the gateway has lately heard from it.
    pub(super) fn confirmed(&self, bridge: BridgeId, vlan: VlanId, address: IpAddr, second: u32) -> Option<Mac> {
        let mac = self.neighbors.confirmed(bridge, address, second)?;
        (self.vlan(bridge) == Some(vlan)).then_some(mac)
    }

    /// Tells the sender of a frame that was bridged to a tunnel that the tunnel carries no packet as long as that (RFC 1191, section 4;
    /// RFC 8201, section 4). The sender of a packet that a router would cut is not told: a bridge cannot cut it.
    pub(super) fn explain_tunnel(&mut self, at: &Arrival, mtu: u16, paths: &mut Paths<'_, impl Observer>) {
        let Some(packet) = IpPacket::parse(paths.bytes(at.index), &at.ethernet) else { return };
        if packet.dont_fragment {
            self.complain(at, &packet, Problem::TooBig(mtu), paths);
        }
    }

    /// Takes note of containers, by VLAN and MAC address, for which the services ask a DHCP server on this bridge, which has no gateway.
    pub(super) fn set_clients(&mut self, bridge: BridgeId, clients: Vec<(VlanId, Mac)>) {
        self.clients.set(bridge, clients);
    }

    /// Whether the services ask for containers on this bridge, which a gateway keeps them from.
    pub(super) fn has_clients(&self, bridge: BridgeId) -> bool {
        self.clients.are_on(bridge) && self.interfaces.get(bridge).is_none()
    }

    /// Whether the gateway of a bridge, or the services that ask for its containers, want a frame in this VLAN.
    pub(super) fn attention(&self, at: &Arrival, frame: &[u8]) -> Attention {
        let destination = at.ethernet.destination;
        match self.interfaces.get(at.bridge) {
            Some(interface) if interface.settings.vlan == at.vlan => {
                if destination == interface.settings.mac {
                    Attention::Mine
                } else if destination.is_group() {
                    Attention::Also
                } else {
                    Attention::None
                }
            }
            Some(_) => Attention::None,
            None => self.clients.attention(at.bridge, at.vlan, &at.ethernet, frame),
        }
    }

    /// Whether a bridge's gateway has this MAC address, so that no station may.
    pub(super) fn has_mac(&self, bridge: BridgeId, mac: Mac) -> bool {
        self.interfaces.get(bridge).is_some_and(|interface| interface.settings.mac == mac)
    }

    /// Whether claims on a bridge are checked against its gateway: it has one, and is no uplink.
    pub(super) fn watches(&self, bridge: BridgeId) -> bool {
        self.interfaces.get(bridge).is_some_and(|interface| !interface.is_outside())
    }

    /// Whether an address in a VLAN of a bridge is its gateway's.
    pub(super) fn is_gateway(&self, bridge: BridgeId, vlan: VlanId, address: IpAddr) -> bool {
        let interface = self.interfaces.get(bridge).filter(|interface| interface.settings.vlan == vlan);
        interface.is_some_and(|interface| !interface.is_outside() && interface.has(address))
    }

    /// Why a claim goes no further, if it is the gateway's.
    pub(super) fn refusal(&self, who: &Claimant, ethernet: &Ethernet, claim: Claim) -> Option<DropReason> {
        let interface = self.interfaces.get(who.bridge).filter(|interface| interface.settings.vlan == who.vlan)?;
        interface.refusal(claim, who.is_station, ethernet.destination == interface.settings.mac)
    }

    /// Reads the packets of a batch from this bridge that are for its gateway, and has the sessions prefetched that they need.
    pub(super) fn parse(&self, bridge: BridgeId, frames: &[Frame], headers: &[Headers], packets: &mut Vec<Option<IpPacket>>) {
        let Some(interface) = self.interfaces.get(bridge) else { return };
        packets.extend(frames.iter().zip(headers).map(|(frame, headers)| {
            let ethernet = headers.ethernet.filter(|ethernet| ethernet.destination == interface.settings.mac)?;
            IpPacket::parse(frame.bytes(), &ethernet)
        }));
        let (uplink, direction) = match interface.settings.side {
            Side::Inside { uplink: Some(uplink), .. } => (uplink, Direction::Outbound),
            Side::Inside { uplink: None, .. } | Side::Beyond { .. } => return,
            Side::Outside { .. } => (bridge, Direction::Inbound),
        };
        let Some(nat) = self.nat(uplink) else { return };
        let read = packets.iter().zip(frames).filter_map(|(packet, frame)| Some(((*packet)?, frame.bytes())));
        nat.prefetch(direction, read);
    }

    /// Takes a frame to a gateway's MAC address, with the packet in it if that was parsed already.
    pub(super) fn receive(&mut self, at: &Arrival, packet: Option<IpPacket>, paths: &mut Paths<'_, impl Observer>) -> Decision {
        if self.has_clients(at.bridge) {
            return self.punt(at, paths);
        }
        match at.ethernet.ethertype {
            ethertype::ARP => self.receive_arp(at, paths),
            ethertype::IPV4 | ethertype::IPV6 => {
                let packet = packet.or_else(|| IpPacket::parse(paths.bytes(at.index), &at.ethernet));
                let packet = packet.ok_or(DropReason::Malformed)?;
                let received = self.receive_packet(at, &packet, paths);
                if packet.fragment.is_some() { self.reorder(at, &packet, received, paths) } else { received }
            }
            _ => Err(DropReason::NoService),
        }
    }

    /// Takes a copy of a frame to a group. It is not routed (RFC 1812, section 5.3.4), and whatever the router does not know was for
    /// others: [`DropReason::NoService`].
    pub(super) fn hear(&mut self, at: &Arrival, paths: &mut Paths<'_, impl Observer>) -> Decision {
        if self.has_clients(at.bridge) {
            return self.punt(at, paths);
        }
        match at.ethernet.ethertype {
            ethertype::ARP => self.receive_arp(at, paths),
            ethertype::IPV4 | ethertype::IPV6 => match IpPacket::parse(paths.bytes(at.index), &at.ethernet) {
                Some(packet) => self.hear_packet(at, &packet, paths),
                None => Err(DropReason::NoService),
            },
            _ => Err(DropReason::NoService),
        }
    }

    /// Does what is due in this second. To be called once a second.
    pub(super) fn tick(&mut self, now: Instant, second: u32, paths: &mut Paths<'_, impl Observer>) {
        for interface in self.interfaces.iter_mut() {
            if let Some(nat) = &mut interface.nat {
                nat.expire(now, EXPIRY_BUDGET);
            }
        }
        self.late_drops.extend(self.early.expire(second).map(LateDrop::from));
        self.expire_fragments(now);
        let mut due = std::mem::take(&mut self.due);
        self.neighbors.tick(second, &mut due);
        for item in due.drain(..) {
            match item {
                Due::Solicit(bridge, address, known) => self.solicit((bridge, address, known), second, paths),
                Due::Unreachable(pending) => {
                    self.complain_late(&pending, now, paths);
                    self.late_drops.push(pending.unresolved());
                }
            }
        }
        self.due = due;
    }

    /// Packets that were dropped after they had waited.
    pub(super) fn take_late_drops(&mut self) -> std::vec::Drain<'_, LateDrop> {
        self.late_drops.drain(..)
    }

    /// What the services should see.
    pub(super) fn take_punts(&mut self) -> std::vec::Drain<'_, Punt> {
        self.punts.drain(..)
    }

    /// The VLAN of a bridge's gateway, for what the services say there.
    pub(super) fn vlan(&self, bridge: BridgeId) -> Option<VlanId> {
        self.interfaces.get(bridge).map(|interface| interface.settings.vlan)
    }
}

/// Most sessions that are looked at in one second's tick.
const EXPIRY_BUDGET: usize = 100_000;
