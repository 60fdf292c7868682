//! A packet's way through the router: from the interface that it came by to the next hop's MAC address. The router calls it for each packet that
//! is not for itself; it may touch sessions and neighbours, and gives frames to the outputs.

use std::net::IpAddr;

use packet::{Checksum, Ethernet, Frame, IpPacket, Mac, Offload, Tag};

use super::early::Waiting;
use super::hop::Hop;
use super::interface::Way;
use super::local::is_group;
use super::message::{self, Envelope, Problem};
use super::neighbor::Pending;
use super::{Arrival, Paths, Plan, Refusal, Router, Side, Translation};
use crate::datapath::{BridgeId, Decision, DropReason, Fate, Kept, LateDrop, Observer, Step, Wait};

impl Router {
    /// Lets a fragment that came too early wait for the first of its packet, and those that wait follow the first.
    pub(super) fn reorder(
        &mut self,
        at: &Arrival,
        packet: &IpPacket,
        received: Decision,
        paths: &mut Paths<'_, impl Observer>,
    ) -> Decision {
        if paths.is_dry() {
            let is_early = received == Err(DropReason::NatFragmentBeforeFirst);
            return if is_early { Ok(Fate::Waiting(Wait::Fragments)) } else { received };
        }
        if received == Err(DropReason::NatFragmentBeforeFirst) {
            let frame = paths.frame(at.index).ok_or(DropReason::Malformed)?;
            let displaced = self.early.keep(at, packet, frame);
            self.late_drops.extend(displaced.map(LateDrop::from));
            return Ok(Fate::Waiting(Wait::Fragments));
        }
        if packet.has_transport() {
            for waiting in self.early.take(at.bridge, packet) {
                if let Err(reason) = self.follow(at, &waiting, paths) {
                    self.late_drops.push(LateDrop { reason, ..waiting.into() });
                }
            }
        }
        received
    }

    /// Takes a fragment that waited for the first of its packet.
    pub(super) fn follow(&mut self, first: &Arrival, waiting: &Waiting, paths: &mut Paths<'_, impl Observer>) -> Decision {
        let Kept { bytes, offload, id } = &waiting.frame;
        let ethernet = Ethernet::parse(bytes).map_err(|_| DropReason::Runt)?;
        let packet = IpPacket::parse(bytes, &ethernet).ok_or(DropReason::Malformed)?;
        let index = paths.push_of((*id, waiting.port), bytes, *offload)?;
        self.receive_packet(&Arrival { index, port: waiting.port, ethernet, ..*first }, &packet, paths)
    }

    pub(super) fn receive_packet(&mut self, at: &Arrival, packet: &IpPacket, paths: &mut Paths<'_, impl Observer>) -> Decision {
        let Some(interface) = self.interfaces.get(at.bridge) else { return Err(DropReason::NoRoute) };
        // The host speaks from the gateway's address when a client on it is meant.
        let is_host = interface.is_to_host();
        let inside = match interface.settings.side {
            Side::Inside { uplink, .. } => Some(uplink),
            Side::Beyond { .. } => Some(None),
            Side::Outside { .. } => None,
        };
        // A unicast frame does not make a unicast packet (RFC 1122, section 3.3.6; RFC 6085).
        if is_group(packet.destination) || interface.is_broadcast(packet.destination) {
            return self.hear_packet(at, packet, paths);
        }
        if is_martian(packet.source) || !is_host && self.interfaces.is_own(at.bridge, packet.source) {
            return Err(DropReason::MartianSource);
        }
        if !is_host && !self.interfaces.is_from(at.bridge, packet.source) {
            return Err(DropReason::MartianSource);
        }
        match inside {
            Some(uplink) => self.receive_inside(at, packet, uplink, paths),
            None => self.receive_outside(at, packet, paths),
        }
    }

    pub(super) fn receive_inside(
        &mut self,
        at: &Arrival,
        packet: &IpPacket,
        uplink: Option<BridgeId>,
        paths: &mut Paths<'_, impl Observer>,
    ) -> Decision {
        if self.interfaces.is_own(at.bridge, packet.destination) {
            return match self.hairpin(at, packet, uplink, paths)? {
                Some(nat) => self.send_on(at, packet, Some(nat), paths),
                None => self.receive_local(at, packet, uplink, paths),
            };
        }
        self.send_on(at, packet, None, paths)
    }

    pub(super) fn receive_outside(
        &mut self,
        at: &Arrival,
        packet: &IpPacket,
        paths: &mut Paths<'_, impl Observer>,
    ) -> Decision {
        // An uplink that has no address yet is offered one as if it had it (RFC 2131, section 4.1).
        if Self::is_for_dhcp_client(packet, paths.bytes(at.index)) {
            return self.punt(at, paths);
        }
        let own = self.interfaces.get(at.bridge).is_some_and(|interface| interface.has(packet.destination));
        let frame = paths.bytes(at.index);
        match self.nat_mut(at.bridge) {
            Some(nat) if own => {
                let rewrite =
                    if paths.is_dry() { nat.peek_inbound(at.now, packet, frame) } else { nat.inbound(at.now, packet, frame) };
                match seen(at.bridge, rewrite?, at, paths) {
                    Some(nat) => self.send_on(at, packet, Some(nat), paths),
                    None => self.receive_local(at, packet, None, paths),
                }
            }
            Some(_) => Err(DropReason::NoSession),
            None => self.send_on(at, packet, None, paths),
        }
    }

    /// What becomes of a packet from inside to an uplink's own address: a station that reaches a published port, its own or another's
    /// (RFC 4787, REQ-9).
    pub(super) fn hairpin(
        &mut self,
        at: &Arrival,
        packet: &IpPacket,
        uplink: Option<BridgeId>,
        paths: &mut Paths<'_, impl Observer>,
    ) -> Result<Option<nat::Rewrite>, DropReason> {
        let Some(uplink) = uplink else { return Ok(None) };
        let external = self.interfaces.get(uplink).is_some_and(|interface| interface.has(packet.destination));
        match self.nat_mut(uplink).filter(|_| external) {
            Some(nat) => {
                let frame = paths.bytes(at.index);
                let rewrite =
                    if paths.is_dry() { nat.peek_hairpin(at.now, packet, frame) } else { nat.hairpin(at.now, packet, frame) };
                Ok(seen(uplink, rewrite?, at, paths))
            }
            None => Ok(None),
        }
    }

    /// Sends a packet to its next hop; `nat` is what was decided about its addresses so far.
    pub(super) fn send_on(
        &mut self,
        at: &Arrival,
        packet: &IpPacket,
        nat: Option<nat::Rewrite>,
        paths: &mut Paths<'_, impl Observer>,
    ) -> Decision {
        if packet.hop_limit <= 1 {
            self.complain(at, packet, Problem::HopLimit, paths);
            return Err(DropReason::HopLimit);
        }
        let destination = nat.as_ref().and_then(nat::Rewrite::destination).unwrap_or(packet.destination);
        let found = self.interfaces.route(at.bridge, destination);
        let way = found.map(|way| (way.egress, way.next_hop)).ok();
        paths.observer.see(at.index, || Step::RouteLookedUp { destination, way });
        let way = match found {
            Ok(way) if is_routable(packet.source) && self.is_for_one(way, destination) => way,
            Ok(_) => return Err(DropReason::NoRoute),
            Err(refusal) => {
                if refusal == Refusal::NoRoute {
                    self.complain(at, packet, Problem::NoRoute, paths);
                }
                return Err(refusal.into());
            }
        };
        let mtu = self.interfaces.get(way.egress).map_or(u16::MAX, |interface| interface.settings.mtu);
        let length = paths.frame(at.index).map_or(0, |frame| longest_part(frame, packet));
        let too_long = length > usize::from(mtu);
        if too_long && packet.dont_fragment {
            self.complain(at, packet, Problem::TooBig(mtu), paths);
            return Err(DropReason::ExceedsMtu);
        }
        let nat = match nat {
            None => self.translate_outbound(at, packet, way, paths)?,
            decided => decided,
        };
        let plan = Plan { port: at.port, from: at.bridge, way, nat };
        if too_long {
            return self.send_in_parts(at, packet, plan, mtu, paths);
        }
        self.resolve(at.index, plan, packet, at, paths)
    }

    /// Whether one host may be reached by this address. Broadcasts to another subnet are not passed on (RFC 2644).
    pub(super) fn is_for_one(&self, way: Way, destination: IpAddr) -> bool {
        is_routable(destination) && !self.interfaces.get(way.egress).is_some_and(|egress| egress.is_broadcast(destination))
    }

    /// What an uplink does to the addresses of a packet that leaves by it.
    pub(super) fn translate_outbound(
        &mut self,
        at: &Arrival,
        packet: &IpPacket,
        way: Way,
        paths: &mut Paths<'_, impl Observer>,
    ) -> Result<Option<nat::Rewrite>, DropReason> {
        let Some(nat) = self.nat_mut(way.egress).filter(|_| way.egress != at.bridge) else { return Ok(None) };
        let frame = paths.bytes(at.index);
        let rewrite =
            if paths.is_dry() { nat.peek_outbound(at.now, packet, frame) } else { nat.outbound(at.now, packet, frame) };
        match rewrite {
            Ok(rewrite) => Ok(seen(way.egress, Some(rewrite), at, paths)),
            Err(denied) => {
                if denied.is_shortage() {
                    self.complain(at, packet, Problem::Prohibited, paths);
                }
                Err(denied.into())
            }
        }
    }

    /// Queues a frame of the batch for its next hop, or lets it wait until that has a MAC address.
    pub(super) fn resolve(
        &mut self,
        index: usize,
        plan: Plan,
        packet: &IpPacket,
        at: &Arrival,
        paths: &mut Paths<'_, impl Observer>,
    ) -> Decision {
        let Way { egress, next_hop } = plan.way;
        let mac = self.mac_of(egress, next_hop, at.second, paths.is_dry());
        let mac = mac.or_else(|| self.told(egress, next_hop, at.second, paths));
        paths.observer.see(index, || Step::NeighborLookedUp { bridge: egress, address: next_hop, mac });
        if let Some(mac) = mac {
            return self.launch(index, plan, (packet, at.ethernet.tag), mac, paths);
        }
        let solicit = if paths.is_dry() {
            self.neighbors.would_ask(egress, next_hop)
        } else {
            let frame = paths.frame(index).ok_or(DropReason::Malformed)?;
            let asked = self.neighbors.ask(egress, next_hop, Pending { frame: frame.into(), plan }, at.second);
            self.late_drops.extend(asked.displaced.into_iter().map(Pending::unresolved));
            asked.solicit
        };
        if solicit {
            self.solicit((egress, next_hop, None), at.second, paths);
        }
        Ok(Fate::Waiting(Wait::Neighbor))
    }

    fn mac_of(&mut self, egress: BridgeId, next_hop: IpAddr, second: u32, dry: bool) -> Option<Mac> {
        match self.interfaces.get(egress)?.settings.side {
            Side::Outside { translation: Translation::Host(mac), .. } => Some(mac),
            // It follows from what is known of the hosts, which may change.
            Side::Beyond { .. } => None,
            _ if dry => self.neighbors.peek(egress, next_hop),
            _ => self.neighbors.find(egress, next_hop, second),
        }
    }

    /// The MAC address of a neighbour that is known beforehand behind a tunnel, from where it need not be asked. What waited for it is sent.
    pub(super) fn told(
        &mut self,
        bridge: BridgeId,
        address: IpAddr,
        second: u32,
        paths: &mut Paths<'_, impl Observer>,
    ) -> Option<Mac> {
        let mac = paths.known(bridge, self.vlan(bridge)?, address)?;
        if !paths.is_dry() {
            for pending in self.neighbors.learn(bridge, address, mac, true, second) {
                self.release(pending, mac, paths);
            }
        }
        Some(mac)
    }

    pub(super) fn launch(
        &self,
        index: usize,
        plan: Plan,
        (packet, tag): (&IpPacket, Option<Tag>),
        destination: Mac,
        paths: &mut Paths<'_, impl Observer>,
    ) -> Decision {
        let settings = &self.interfaces.get(plan.way.egress).ok_or(DropReason::NoRoute)?.settings;
        let (source, network, version) = (settings.mac, packet.network, packet.version);
        paths.deliver(plan.way.egress, (settings.vlan, tag), index, destination)?;
        paths.outputs.rewrite(index, Hop { source, destination, network, version, nat: plan.nat });
        Ok(Fate::Routed { into: plan.way.egress, translated: plan.nat.is_some() })
    }

    /// Sends a packet that waited for a neighbour.
    pub(super) fn release(&mut self, pending: Pending, mac: Mac, paths: &mut Paths<'_, impl Observer>) {
        let from = (pending.frame.id, pending.plan.port);
        let sent = match (pending.parse(), paths.push_of(from, &pending.frame.bytes, pending.frame.offload)) {
            (Some((ethernet, packet)), Ok(index)) => self.launch(index, pending.plan, (&packet, ethernet.tag), mac, paths),
            (None, _) => Err(DropReason::Malformed),
            (_, Err(reason)) => Err(reason),
        };
        if let Err(reason) = sent {
            self.late_drops.push(LateDrop { reason, ..pending.unresolved() });
        }
    }

    /// Asks for the MAC address of a neighbour, by ARP or neighbour discovery, unless it is known beforehand.
    pub(super) fn solicit(
        &mut self,
        (bridge, address, known): (BridgeId, IpAddr, Option<Mac>),
        second: u32,
        paths: &mut Paths<'_, impl Observer>,
    ) {
        if self.told(bridge, address, second, paths).is_some() {
            return;
        }
        let Some(interface) = self.interfaces.get(bridge) else { return };
        let (mac, vlan) = (interface.settings.mac, interface.settings.vlan);
        match address {
            IpAddr::V4(target) => {
                let Some(source) = interface.arp_source(target) else { return };
                let to = (known.unwrap_or(Mac::BROADCAST), target);
                message::arp(&mut self.scratch, false, Envelope { from: (mac, source), to });
            }
            IpAddr::V6(target) => {
                let Some(IpAddr::V6(source)) = interface.source_towards(address) else { return };
                message::solicitation(&mut self.scratch, (mac, source), target, known);
            }
        }
        // A question that does not fit into the batch is asked again in a second.
        let _ = paths.emit(bridge, vlan, &self.scratch);
    }
}

/// Tells the observer what the NAT of an uplink did, and says it.
pub(super) fn seen(
    uplink: BridgeId,
    rewrite: Option<nat::Rewrite>,
    at: &Arrival,
    paths: &mut Paths<'_, impl Observer>,
) -> Option<nat::Rewrite> {
    paths.observer.see(at.index, || Step::Translated { uplink, rewrite });
    rewrite
}

/// Whether no packet may come from this address (RFC 1812, section 5.3.7; RFC 4291, section 2).
pub(super) fn is_martian(source: IpAddr) -> bool {
    match source {
        // 240.0.0.0/4 passes but for its last address, as in Linux (`ipv4_is_lbcast`).
        IpAddr::V4(address) => address.is_loopback() || address.is_broadcast() || matches!(address.octets()[0], 0 | 224..240),
        // IPv4 in IPv6's clothes, in either cut, is never on a wire (RFC 4291, sections 2.5.5.1 and 2.5.5.2).
        IpAddr::V6(address) => address.is_multicast() || address.to_ipv4().is_some(),
    }
}

/// Whether packets from or to this address may pass a router (RFC 3927, section 7; RFC 4291, section 2.5.6).
pub(super) fn is_routable(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(own) => !own.is_link_local() && !is_martian(address),
        IpAddr::V6(own) => !own.is_unicast_link_local() && !is_martian(address),
    }
}

/// Length of the packet, or of the longest segment of a super-frame.
pub(super) fn longest_part(frame: &Frame, packet: &IpPacket) -> usize {
    match frame.offload {
        Offload { gso: Some(gso), checksum: Checksum::Partial { start, offset } } => {
            let start = usize::from(start);
            let tcp = || frame.bytes().get(start + 12).map_or(20, |byte| usize::from(byte >> 4) * 4);
            // TCP's checksum is at 16, UDP's at 6 of 8 bytes.
            let transport = if offset == 16 { tcp() } else { 8 };
            (start + transport + usize::from(gso.size.get())).saturating_sub(packet.network).min(packet.length())
        }
        _ => packet.length(),
    }
}
