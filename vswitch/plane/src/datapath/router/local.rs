//! Packets for the router itself: neighbours are learned and answered, pings answered, services punted, the rest refused.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

use packet::{IpPacket, Mac, VlanId, protocol};
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, Icmpv4Packet, Icmpv6Message, Icmpv6Packet, NdiscNeighborFlags, NdiscRepr,
};

use super::interface::{Interface, Way};
use super::message::{self, Envelope, Problem};
use super::neighbor::Pending;
use super::oversize::finish;
use super::{
    Arrival, BridgeId, Decision, DropReason, ERRORS, Fate, Limiter, Mode, Observer, Paths, Plan, PortId, Router, Side,
};
use crate::datapath::Ticket;

/// A frame for the services, of a gateway or of containers that ask for an address, which run on the control side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Punt {
    /// The bridge.
    pub bridge: BridgeId,
    /// The port that it came in at.
    pub port: PortId,
    /// The VLAN that it is in.
    pub vlan: Option<VlanId>,
    /// The frame, with its tag if it had one, and with complete checksums.
    pub frame: Vec<u8>,
    /// Its place among those that wait for the services.
    pub ticket: Ticket,
}

/// UDP port of the DHCP client of an uplink (RFC 2131, section 4.1).
const DHCP_CLIENT: u16 = 68;

impl Router {
    /// ARP (RFC 826): a station that asks for the gateway is learned and answered; a station that answers the gateway is learned.
    pub(super) fn receive_arp(&mut self, at: &Arrival, paths: &mut Paths<'_, impl Observer>) -> Decision {
        let payload = paths.bytes(at.index).get(at.ethernet.payload..).unwrap_or_default();
        let message = ArpPacket::new_checked(payload).and_then(|packet| ArpRepr::parse(&packet));
        let Ok(ArpRepr::EthernetIpv4 { operation, source_hardware_addr, source_protocol_addr, target_protocol_addr, .. }) =
            message
        else {
            return Err(DropReason::Malformed);
        };
        let Some(interface) = self.interfaces.get(at.bridge) else { return Ok(Fate::Noted) };
        let (mac, sender) = (Mac(source_hardware_addr.0), source_protocol_addr);
        let (own, vlan) = (interface.settings.mac, interface.settings.vlan);
        // What may be about the address of an uplink's DHCP client, even one that it does not have yet (RFC 5227, sections 2.1.1 and
        // 2.4): a message from a host with that address, a probe for an address, or the answer to a probe.
        let is_probe = sender.is_unspecified() || target_protocol_addr.is_unspecified();
        let is_conflict = interface.is_outside() && mac != own && (is_probe || interface.has(sender.into()));
        let asked = interface.has(target_protocol_addr.into());
        let may_ask = sender.is_unspecified() || interface.may_ask(sender.into(), mac);
        let is_neighbor = interface.may_be_station(sender.into(), mac);
        let gives = matches!(interface.settings.side, Side::Inside { dhcp: true, .. });
        let noted = is_neighbor && self.heard(at, sender.into(), mac, asked, paths);
        // A probe (RFC 5227) has no sender address, and is answered all the same: the address is taken. A station that asks with an address
        // of another subnet, as Linux does, is answered too, but not learned: it is not to be reached here by that address.
        let answers = operation == ArpOperation::Request && asked && may_ask;
        if answers {
            message::arp(&mut self.scratch, true, Envelope { from: (own, target_protocol_addr), to: (mac, sender) });
            paths.emit(at.bridge, vlan, &self.scratch)?;
        }
        // The DHCP server hears of it, so that it does not give this station's address to another.
        let told = at.ethernet.destination.is_group() || target_protocol_addr.is_unspecified();
        if is_neighbor && told && gives {
            // If the services have no room for it, they do not learn of it.
            let _ = self.punt(at, paths);
        }
        match (is_conflict, answers, noted) {
            (true, ..) => self.punt(at, paths),
            (false, true, _) => Ok(Fate::Answered),
            (false, false, true) => Ok(Fate::Noted),
            (false, false, false) => Err(DropReason::NoService),
        }
    }

    /// Learns a neighbour and sends what waited for it, in order. Returns whether the router keeps it in its table.
    fn heard(&mut self, at: &Arrival, address: IpAddr, mac: Mac, welcome: bool, paths: &mut Paths<'_, impl Observer>) -> bool {
        if paths.is_dry() {
            return self.neighbors.would_learn(at.bridge, address, welcome);
        }
        for pending in self.neighbors.learn(at.bridge, address, mac, welcome, at.second) {
            self.release(pending, mac, paths);
        }
        self.neighbors.confirmed(at.bridge, address, at.second).is_some()
    }

    /// A packet to a group. Packets to groups that the router does not belong to are not for it.
    pub(super) fn hear_packet(&mut self, at: &Arrival, packet: &IpPacket, paths: &mut Paths<'_, impl Observer>) -> Decision {
        if packet.fragment.is_some() {
            return Err(DropReason::NoService);
        }
        let transport = paths.bytes(at.index).get(packet.transport..packet.end).unwrap_or_default();
        match packet.protocol {
            protocol::ICMP6 => self.receive_icmp6(at, packet, paths),
            protocol::UDP if self.is_service(at.bridge, packet.protocol, transport) => self.punt(at, paths),
            // Linux answers a ping to the broadcast address of a subnet no more (icmp_echo_ignore_broadcasts).
            _ => Err(DropReason::NoService),
        }
    }

    /// A packet to one of the router's own addresses.
    pub(super) fn receive_local(
        &mut self,
        at: &Arrival,
        packet: &IpPacket,
        uplink: Option<BridgeId>,
        paths: &mut Paths<'_, impl Observer>,
    ) -> Decision {
        if let Some(fragment) = packet.fragment {
            return self.receive_fragment(at, packet, fragment, uplink, paths);
        }
        let transport = paths.bytes(at.index).get(packet.transport..packet.end).unwrap_or_default();
        match packet.protocol {
            protocol::ICMP => self.receive_icmp(at, packet, paths),
            protocol::ICMP6 => self.receive_icmp6(at, packet, paths),
            protocol::UDP | protocol::TCP if self.is_service(at.bridge, packet.protocol, transport) => self.punt(at, paths),
            protocol::UDP | protocol::TCP if self.has_host_behind(uplink) => self.send_to_host(at, packet, uplink, paths),
            protocol::UDP => self.refuse(at, packet, Problem::PortUnreachable, paths),
            protocol::TCP => {
                let between = reply_to(at, packet);
                let answered = self.answer(at, paths, |out, bytes| {
                    message::reset(out, between, bytes.get(packet.transport..packet.end).unwrap_or_default())
                });
                answered.and(Err(DropReason::NoService))
            }
            _ => self.refuse(at, packet, Problem::ProtocolUnreachable, paths),
        }
    }

    fn receive_icmp(&mut self, at: &Arrival, packet: &IpPacket, paths: &mut Paths<'_, impl Observer>) -> Decision {
        let bytes = paths.bytes(at.index).get(packet.transport..packet.end).unwrap_or_default();
        match Icmpv4Packet::new_checked(bytes) {
            Ok(message) if !message.verify_checksum() => Err(DropReason::Malformed),
            Ok(message) if message.msg_type() == smoltcp::wire::Icmpv4Message::EchoRequest => self.pong(at, packet, paths),
            Ok(_) => Err(DropReason::NoService),
            Err(_) => Err(DropReason::Malformed),
        }
    }

    fn receive_icmp6(&mut self, at: &Arrival, packet: &IpPacket, paths: &mut Paths<'_, impl Observer>) -> Decision {
        let (IpAddr::V6(source), IpAddr::V6(destination)) = (packet.source, packet.destination) else {
            return Err(DropReason::Malformed);
        };
        let bytes = paths.bytes(at.index).get(packet.transport..packet.end).unwrap_or_default();
        let message = Icmpv6Packet::new_checked(bytes).map_err(|_| DropReason::Malformed)?;
        if !message.verify_checksum(&source, &destination) {
            return Err(DropReason::Malformed);
        }
        match message.msg_type() {
            Icmpv6Message::EchoRequest if !destination.is_multicast() => self.pong(at, packet, paths),
            // The hop limit of neighbour discovery proves that the message was never routed (RFC 4861, sections 6.1 and 7.1).
            kind if kind.is_ndisc() && packet.hop_limit != 255 => Err(DropReason::Malformed),
            Icmpv6Message::RouterSolicit if self.has_stations(at.bridge) => self.punt(at, paths),
            Icmpv6Message::NeighborSolicit | Icmpv6Message::NeighborAdvert => {
                let Ok(message) = NdiscRepr::parse(&Icmpv6Packet::new_unchecked(bytes)) else {
                    return Err(DropReason::Malformed);
                };
                match message {
                    NdiscRepr::NeighborSolicit { target_addr, lladdr } => {
                        let mac = lladdr.and_then(mac_of);
                        self.receive_solicitation(at, source, target_addr, mac, paths)
                    }
                    NdiscRepr::NeighborAdvert { target_addr, lladdr, flags } => {
                        let mac = lladdr.and_then(mac_of).unwrap_or(at.ethernet.source);
                        let known =
                            flags.contains(NdiscNeighborFlags::OVERRIDE) || flags.contains(NdiscNeighborFlags::SOLICITED);
                        let interface = self.interfaces.get(at.bridge);
                        let sane = interface.is_some_and(|interface| interface.may_be_station(target_addr.into(), mac));
                        let noted = known && sane && self.heard(at, target_addr.into(), mac, false, paths);
                        if noted { Ok(Fate::Noted) } else { Err(DropReason::NoService) }
                    }
                    _ => Err(DropReason::NoService),
                }
            }
            _ => Err(DropReason::NoService),
        }
    }

    /// A neighbour solicitation (RFC 4861, section 7.2.3): a station that asks for the gateway is learned and answered.
    fn receive_solicitation(
        &mut self,
        at: &Arrival,
        source: std::net::Ipv6Addr,
        target: std::net::Ipv6Addr,
        mac: Option<Mac>,
        paths: &mut Paths<'_, impl Observer>,
    ) -> Decision {
        let interface = self.interfaces.get(at.bridge).filter(|interface| interface.has(target.into()));
        let interface = interface.ok_or(DropReason::NoService)?;
        let (own, vlan) = (interface.settings.mac, interface.settings.vlan);
        // Duplicate address detection has no source address and is answered to all (RFC 4861, section 7.2.4).
        let probe = source.is_unspecified();
        let mac = mac.filter(|mac| !mac.is_group()).unwrap_or(at.ethernet.source);
        if !probe && !interface.may_ask(source.into(), mac) {
            return Err(DropReason::MartianSource);
        }
        let is_neighbor = interface.may_be_station(source.into(), mac);
        let all_nodes = std::net::Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
        let to = if probe {
            (Mac::of_group(all_nodes.into()), all_nodes)
        } else {
            if is_neighbor {
                self.heard(at, source.into(), mac, true, paths);
            }
            (mac, source)
        };
        message::advertisement(&mut self.scratch, Envelope { from: (own, target), to }, target, !probe);
        paths.emit(at.bridge, vlan, &self.scratch).map(|()| Fate::Answered)
    }

    fn pong(&mut self, at: &Arrival, packet: &IpPacket, paths: &mut Paths<'_, impl Observer>) -> Decision {
        let between = reply_to(at, packet);
        self.answer(at, paths, |out, bytes| {
            message::echo_reply(out, between, bytes.get(packet.transport..packet.end).unwrap_or_default());
            true
        })
    }

    fn has_stations(&self, bridge: BridgeId) -> bool {
        self.interfaces.get(bridge).is_some_and(|interface| matches!(interface.settings.side, Side::Inside { .. }))
    }

    /// Whether a UDP datagram or a TCP segment is for the services.
    fn is_service(&self, bridge: BridgeId, protocol: u8, transport: &[u8]) -> bool {
        let Some(port) = destination_port(transport) else { return false };
        match self.interfaces.get(bridge).map(|interface| &interface.settings.side) {
            Some(Side::Inside { .. }) => is_for_services(protocol, port),
            Some(Side::Outside { .. }) => protocol == packet::protocol::UDP && port == DHCP_CLIENT,
            Some(Side::Beyond { .. }) | None => false,
        }
    }

    /// Whether a packet at an uplink is for its DHCP client. No session of NAT has that port.
    pub(super) fn is_for_dhcp_client(packet: &IpPacket, frame: &[u8]) -> bool {
        let transport = frame.get(packet.transport..packet.end).unwrap_or_default();
        packet.protocol == protocol::UDP && packet.has_transport() && destination_port(transport) == Some(DHCP_CLIENT)
    }

    /// Hands the frame to the services, which know nothing of super-frames and unfinished checksums.
    pub(super) fn punt(&mut self, at: &Arrival, paths: &Paths<'_, impl Observer>) -> Decision {
        let frame = paths.frame(at.index).ok_or(DropReason::Malformed)?;
        if paths.is_dry() {
            let has_room = self.tickets.has_one_for(at.port);
            return has_room.then_some(Fate::Punted).ok_or(DropReason::QueueFull);
        }
        let vlan = Some(at.vlan);
        let mut result = Ok(Fate::Punted);
        finish(frame, &mut |segment| match self.tickets.take(at.port) {
            Some(ticket) => {
                self.punts.push(Punt { bridge: at.bridge, port: at.port, vlan, frame: segment.to_vec(), ticket });
            }
            None => result = Err(DropReason::QueueFull),
        })?;
        result
    }

    fn refuse(&mut self, at: &Arrival, packet: &IpPacket, problem: Problem, paths: &mut Paths<'_, impl Observer>) -> Decision {
        self.complain(at, packet, problem, paths);
        Err(DropReason::NoService)
    }

    /// Whether an uplink's far end is the host's own sockets. A client on the host appears to stations under the gateway's address, so
    /// what they answer is for it.
    fn has_host_behind(&self, uplink: Option<BridgeId>) -> bool {
        uplink.and_then(|uplink| self.interfaces.get(uplink)).is_some_and(Interface::is_to_host)
    }

    /// Sends a packet to the host's end as it is.
    fn send_to_host(
        &mut self,
        at: &Arrival,
        packet: &IpPacket,
        uplink: Option<BridgeId>,
        paths: &mut Paths<'_, impl Observer>,
    ) -> Decision {
        let egress = uplink.ok_or(DropReason::NoRoute)?;
        let plan = Plan { port: at.port, from: at.bridge, way: Way { egress, next_hop: packet.destination }, nat: None };
        self.resolve(at.index, plan, packet, at, paths)
    }

    /// Tells the sender of a packet what became of it, if that is allowed and there is no flood of such messages (RFC 1122, section
    /// 3.2.2; RFC 4443, section 2.4).
    pub(super) fn complain(&mut self, at: &Arrival, packet: &IpPacket, problem: Problem, paths: &mut Paths<'_, impl Observer>) {
        let Some(interface) = self.interfaces.get(at.bridge) else { return };
        let Some(source) = self.interfaces.voice(at.bridge, packet) else { return };
        let quotable = packet.has_transport() && !at.ethernet.destination.is_group() && !is_group(packet.destination);
        if !quotable || is_icmp_error(packet, paths.bytes(at.index)) {
            return;
        }
        let may_say = if paths.is_dry() {
            self.errors.get(at.bridge.0).is_none_or(|limit| limit.admit_frames(1, at.now, Mode::Dry))
        } else {
            let limit = self.errors.get_or_insert_with(at.bridge.0, || Limiter::of_frames(ERRORS, at.now));
            limit.admit_frames(1, at.now, Mode::Live)
        };
        if !may_say {
            return;
        }
        let from = (interface.settings.mac, source);
        let between = Envelope { from, to: (at.ethernet.source, packet.source) };
        // The packet is dropped, and counted, whether this can be said or not.
        let _ = self.answer(at, paths, |out, bytes| {
            message::error(out, between, problem, packet, bytes);
            true
        });
    }

    /// Tells the sender of a packet that its next hop does not answer.
    pub(super) fn complain_late(&mut self, pending: &Pending, now: Instant, paths: &mut Paths<'_, impl Observer>) {
        let Plan { port, from: bridge, .. } = pending.plan;
        let (Some((ethernet, packet)), Some(vlan)) = (pending.parse(), self.vlan(bridge)) else { return };
        let Ok(index) = paths.push(&pending.frame.bytes, pending.frame.offload) else { return };
        let at = Arrival { index, port, bridge, vlan, ethernet, now, second: 0 };
        self.complain(&at, &packet, Problem::HostUnreachable, paths);
    }

    /// Writes a frame about one of the batch and sends it into the bridge that that came from.
    fn answer(
        &mut self,
        at: &Arrival,
        paths: &mut Paths<'_, impl Observer>,
        write: impl FnOnce(&mut Vec<u8>, &[u8]) -> bool,
    ) -> Decision {
        let Some(vlan) = self.vlan(at.bridge) else { return Ok(Fate::Noted) };
        if !write(&mut self.scratch, paths.bytes(at.index)) {
            return Ok(Fate::Noted);
        }
        self.emit_scratch(at.bridge, vlan, paths).map(|()| Fate::Answered)
    }
}

/// From the address that a packet was sent to, back to where it came from.
fn reply_to(at: &Arrival, packet: &IpPacket) -> Envelope<IpAddr> {
    Envelope { from: (at.ethernet.destination, packet.destination), to: (at.ethernet.source, packet.source) }
}

/// Whether the services of a gateway answer what is sent to it by this IP protocol at this port; of ICMPv6, with this type: DNS (RFC 1035,
/// section 4.2), DHCP (RFC 2131, section 4.1), DHCPv6 (RFC 8415, section 7.2), router solicitations (RFC 4861, section 4.1).
pub const fn is_for_services(number: u8, port_or_type: u16) -> bool {
    match number {
        protocol::UDP => matches!(port_or_type, 53 | 67 | 547),
        protocol::TCP => port_or_type == 53,
        protocol::ICMP6 => port_or_type == 133,
        _ => false,
    }
}

fn mac_of(address: smoltcp::wire::RawHardwareAddress) -> Option<Mac> {
    <[u8; 6]>::try_from(address.as_bytes()).ok().map(Mac)
}

fn destination_port(transport: &[u8]) -> Option<u16> {
    transport.get(2..4).and_then(|bytes| bytes.first_chunk()).map(|bytes| u16::from_be_bytes(*bytes))
}

/// Whether the address means several hosts, on whatever subnet.
pub(super) fn is_group(address: IpAddr) -> bool {
    address.is_multicast() || address == IpAddr::V4(Ipv4Addr::BROADCAST)
}

/// Whether the packet is an ICMP error, about which there is none.
fn is_icmp_error(packet: &IpPacket, bytes: &[u8]) -> bool {
    let kind = bytes.get(packet.transport).copied();
    match packet.protocol {
        // Destination unreachable, source quench, redirect, time exceeded, parameter problem (RFC 792).
        protocol::ICMP => matches!(kind, None | Some(3 | 4 | 5 | 11 | 12)),
        // Errors have the high bit clear (RFC 4443, section 2.1); redirects too are not answered (section 2.4 (e)).
        protocol::ICMP6 => kind.is_none_or(|kind| kind < 128 || kind == 137),
        _ => false,
    }
}
