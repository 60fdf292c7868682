//! The gateways of all bridges and the routing table: which subnet is on which bridge, and which way a packet goes.
//! Only the router asks. The control side sets it, and frames change nothing here but the sessions of an uplink's NAT.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use nat::Nat;
use packet::{IpPacket, Mac, VlanId};

use super::Refusal;
use super::route::is_martian;
use super::routes::Routes;
use crate::datapath::claim::Claim;
use crate::datapath::{BridgeId, DropReason, Slots};

/// A bridge's gateway as the datapath needs to know it.
#[derive(Clone, Debug, PartialEq)]
pub struct GatewaySettings {
    /// Its MAC address.
    pub mac: Mac,
    /// The VLAN that it is in.
    pub vlan: VlanId,
    /// Longest packet that goes out by it, in bytes.
    pub mtu: u16,
    /// Its addresses and subnets. No two gateways have subnets that overlap.
    pub addresses: Vec<IpNet>,
    /// Subnets behind stations on its link that route, each with that station's address.
    pub routes: Vec<(IpNet, IpAddr)>,
    /// What lies behind it.
    pub side: Side,
}

/// Which side of the router a bridge is on.
#[derive(Clone, Debug, PartialEq)]
pub enum Side {
    /// Stations of the switch.
    Inside {
        /// The uplink that they reach the rest of the world by.
        uplink: Option<BridgeId>,
        /// Whether nothing is routed between this bridge and others.
        isolated: bool,
        /// Whether the services give out addresses, and so nothing else may.
        dhcp: bool,
    },
    /// The rest of the world.
    Outside {
        /// The routers that lead on from here.
        gateways: Vec<IpAddr>,
        /// How stations appear there.
        translation: Translation,
    },
    /// Hosts that route to subnets of one network, each behind a tunnel of its own; one of these subnets is that of a bridge here, and only between
    /// that bridge and those hosts are packets routed. The static routes of such a side are these subnets.
    Beyond {
        /// The bridge.
        of: BridgeId,
        /// The network. What its stations send there leaves by no uplink, also where no host has it.
        network: IpNet,
    },
}

/// How the stations of bridges appear at an uplink.
#[derive(Clone, Debug, PartialEq)]
pub enum Translation {
    /// Behind the uplink's own addresses.
    Nat(Box<nat::Settings>),
    /// As they are, to a far end with this MAC address, which does the rest: the host's own sockets.
    Host(Mac),
}

/// One bridge's gateway.
#[derive(Debug)]
pub(super) struct Interface {
    pub(super) settings: GatewaySettings,
    pub(super) link_local: Ipv6Addr,
    /// Sessions, at an uplink that translates.
    pub(super) nat: Option<Box<Nat>>,
}

impl Interface {
    pub(super) fn new(settings: GatewaySettings, nat: Option<Box<Nat>>) -> Self {
        Self { link_local: settings.mac.link_local(), settings, nat }
    }

    pub(super) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.settings.addresses.iter().map(IpNet::addr)
    }

    pub(super) fn has(&self, address: IpAddr) -> bool {
        address == IpAddr::V6(self.link_local) || self.addresses().any(|own| own == address)
    }

    /// Whether the rest of the world is on it.
    pub(super) const fn is_outside(&self) -> bool {
        matches!(self.settings.side, Side::Outside { .. })
    }

    /// Whether its far end is the host's own sockets.
    pub(super) const fn is_to_host(&self) -> bool {
        matches!(self.settings.side, Side::Outside { translation: Translation::Host(_), .. })
    }

    /// Whether the address is in one of its subnets, or link-local.
    pub(super) fn is_on_link(&self, address: IpAddr) -> bool {
        let link_local = matches!(address, IpAddr::V6(address) if address.is_unicast_link_local());
        link_local || self.settings.addresses.iter().any(|net| net.contains(&address))
    }

    /// Whether the address means every station of one of its IPv4 subnets.
    pub(super) fn is_broadcast(&self, address: IpAddr) -> bool {
        self.settings.addresses.iter().any(|net| match net {
            IpNet::V4(net) => net.prefix_len() < 31 && address == IpAddr::V4(net.broadcast()),
            IpNet::V6(_) => false,
        })
    }

    /// Whether a station may say that it has this address and this MAC address.
    pub(super) fn may_be_station(&self, address: IpAddr, mac: Mac) -> bool {
        self.is_on_link(address) && self.may_ask(address, mac)
    }

    /// Whether a station with this address and this MAC address may be answered. The address may be of any subnet, for a station may have
    /// several (RFC 826 asks only that the target of the question is the gateway's own).
    pub(super) fn may_ask(&self, address: IpAddr, mac: Mac) -> bool {
        let is_other = !self.has(address) && !self.is_broadcast(address) && mac != self.settings.mac;
        is_other && !is_martian(address) && !mac.is_group() && mac != Mac::ZERO
    }

    /// Why a claim that a station makes in the gateway's VLAN goes no further; `None` if it may pass. A message
    /// of a DHCP server to the gateway's MAC address reaches no station, unless it is for an address to which the gateway would send it on.
    pub(super) fn refusal(&self, claim: Claim, is_station: bool, to_gateway: bool) -> Option<DropReason> {
        let Side::Inside { dhcp, .. } = self.settings.side else { return None };
        match claim {
            Claim::Addresses(addresses) if addresses.into_iter().flatten().any(|address| self.has(address)) => {
                Some(DropReason::SpoofedAddress)
            }
            Claim::Router(source) if self.has(source) => Some(DropReason::SpoofedAddress),
            Claim::Router(_) if is_station && self.addresses().any(|own| own.is_ipv6()) => Some(DropReason::RogueRouter),
            Claim::DhcpServer(client) if dhcp && (!to_gateway || self.is_on_link(client)) => Some(DropReason::RogueDhcp),
            Claim::Addresses(_) | Claim::Wanted(_) | Claim::Router(_) | Claim::DhcpServer(_) => None,
        }
    }

    /// The own address to speak from to a station: one in its subnet, or any of its family.
    pub(super) fn source_towards(&self, station: IpAddr) -> Option<IpAddr> {
        if let IpAddr::V6(station) = station
            && station.is_unicast_link_local()
        {
            return Some(self.link_local.into());
        }
        let in_subnet = self.settings.addresses.iter().find(|net| net.contains(&station)).map(IpNet::addr);
        let fallback = station.is_ipv6().then_some(self.link_local.into());
        in_subnet.or_else(|| self.addresses().find(|own| own.is_ipv4() == station.is_ipv4())).or(fallback)
    }

    /// The own IPv4 address to ask for another by ARP.
    pub(super) fn arp_source(&self, target: Ipv4Addr) -> Option<Ipv4Addr> {
        match self.source_towards(target.into()) {
            Some(IpAddr::V4(address)) => Some(address),
            _ => None,
        }
    }
}

/// Where a packet goes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Way {
    pub(super) egress: BridgeId,
    pub(super) next_hop: IpAddr,
}

/// Every bridge's gateway, and which subnet is where.
#[derive(Debug, Default)]
pub(super) struct Interfaces {
    by_bridge: Slots<Interface>,
    /// By their first address; they do not overlap, so the one that starts nearest below an address is the only one that may hold it.
    subnets: BTreeMap<IpAddr, (IpNet, BridgeId)>,
    /// Those behind stations that route.
    routes: Routes,
    /// The networks of which a bridge has a part: mostly none.
    networks: Vec<Part>,
}

/// A bridge's part in a network of several hosts.
#[derive(Debug)]
struct Part {
    /// The side that leads to the others.
    beyond: BridgeId,
    of: BridgeId,
    network: IpNet,
}

impl Interfaces {
    pub(super) fn get(&self, bridge: BridgeId) -> Option<&Interface> {
        self.by_bridge.get(bridge.0)
    }

    pub(super) fn get_mut(&mut self, bridge: BridgeId) -> Option<&mut Interface> {
        self.by_bridge.get_mut(bridge.0)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (BridgeId, &Interface)> {
        self.by_bridge.iter().map(|(number, interface)| (BridgeId(number), interface))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Interface> {
        self.by_bridge.iter_mut().map(|(_, interface)| interface)
    }

    pub(super) fn insert(&mut self, bridge: BridgeId, interface: Interface) {
        self.clear(bridge);
        if let Side::Beyond { of, network } = interface.settings.side {
            // Its address is one of the subnet of that bridge.
            self.networks.push(Part { beyond: bridge, of, network });
        } else {
            self.subnets.extend(interface.settings.addresses.iter().map(|net| (net.network(), (*net, bridge))));
        }
        self.routes.set(bridge, &interface.settings.routes);
        self.by_bridge.insert(bridge.0, interface);
    }

    pub(super) fn remove(&mut self, bridge: BridgeId) -> Option<Interface> {
        self.clear(bridge);
        self.routes.set(bridge, &[]);
        self.by_bridge.remove(bridge.0)
    }

    fn clear(&mut self, bridge: BridgeId) {
        let gone: Vec<IpAddr> =
            self.subnets.extract_if(.., |_, (_, owner)| *owner == bridge).map(|(network, _)| network).collect();
        self.networks.retain(|part| part.beyond != bridge);
        // A subnet that moves from one bridge to another is both bridges' for a moment: the other's stays.
        let others = self.by_bridge.iter().map(|(number, interface)| (BridgeId(number), &interface.settings));
        let others = others.filter(|(other, settings)| *other != bridge && !matches!(settings.side, Side::Beyond { .. }));
        for (other, settings) in others.filter(|_| !gone.is_empty()) {
            for net in settings.addresses.iter().filter(|net| gone.contains(&net.network())) {
                self.subnets.entry(net.network()).or_insert((*net, other));
            }
        }
    }

    /// The subnet that holds the address, and its bridge.
    fn connected(&self, address: IpAddr) -> Option<(IpNet, BridgeId)> {
        let (_, (net, bridge)) = self.subnets.range(..=address).next_back()?;
        net.contains(&address).then_some((*net, *bridge))
    }

    /// The static route to an address that is better than its subnet's, of the bridges that may be used. A default route is for the
    /// stations of its own bridge.
    fn by_static_route(&self, own: BridgeId, address: IpAddr, may_use: impl Fn(BridgeId) -> bool) -> Option<Way> {
        if self.routes.is_empty() {
            return None;
        }
        let connected = self.connected(address).map(|(net, _)| net.prefix_len());
        let usable = |length: u8, bridge| if length == 0 { bridge == own } else { may_use(bridge) };
        let (length, egress, next_hop) = self.routes.find(address, usable)?;
        connected.is_none_or(|connected| length > connected).then_some(Way { egress, next_hop })
    }

    /// Whether packets from the stations of one bridge may go to another's.
    fn is_open(&self, from: BridgeId, to: BridgeId) -> bool {
        let isolated = |bridge| {
            let side = self.get(bridge).map(|interface| &interface.settings.side);
            !matches!(side, Some(Side::Inside { isolated: false, .. }))
        };
        let is_part = |part: &Part| (part.beyond, part.of) == (from, to) || (part.beyond, part.of) == (to, from);
        from == to || !isolated(from) && !isolated(to) || self.networks.iter().any(is_part)
    }

    /// The address from which the router tells the sender of a packet, which came in by bridge `from`, that it goes no further. The host's sockets
    /// know the router by the gateways behind it, and an uplink to them has no address: there the gateway speaks that the packet would leave by.
    pub(super) fn voice(&self, from: BridgeId, packet: &IpPacket) -> Option<IpAddr> {
        let interface = self.get(from)?;
        if !interface.is_to_host() {
            return interface.source_towards(packet.source);
        }
        let way = self.route(from, packet.destination).ok()?;
        self.get(way.egress)?.addresses().find(|own| own.is_ipv4() == packet.source.is_ipv4())
    }

    /// Whether an uplink is that of a bridge.
    fn is_uplink_of(&self, uplink: BridgeId, bridge: BridgeId) -> bool {
        let side = self.get(bridge).map(|interface| &interface.settings.side);
        matches!(side, Some(Side::Inside { uplink: Some(own), .. }) if *own == uplink)
    }

    /// The way of a packet from a station of bridge `from` to `destination`.
    pub(super) fn route(&self, from: BridgeId, destination: IpAddr) -> Result<Way, Refusal> {
        let uplink = match self.get(from).ok_or(Refusal::NoRoute)?.settings.side {
            Side::Inside { uplink, .. } => uplink,
            Side::Outside { .. } => return self.route_inwards(from, destination),
            Side::Beyond { of, .. } => return self.route_home(of, destination),
        };
        if let Some(way) = self.by_static_route(from, destination, |bridge| self.is_open(from, bridge)) {
            return Ok(way);
        }
        let Some((_, bridge)) = self.connected(destination) else {
            if self.networks.iter().any(|part| part.of == from && part.network.contains(&destination)) {
                return Err(Refusal::NoRoute);
            }
            return self.default_way(uplink.ok_or(Refusal::NoRoute)?, destination);
        };
        if uplink == Some(bridge) || self.is_open(from, bridge) {
            Ok(Way { egress: bridge, next_hop: destination })
        } else {
            Err(Refusal::Isolated)
        }
    }

    /// The way of a packet that came in by the uplink `from`, after its translation.
    fn route_inwards(&self, from: BridgeId, destination: IpAddr) -> Result<Way, Refusal> {
        if let Some(way) = self.by_static_route(from, destination, |bridge| self.is_uplink_of(from, bridge)) {
            return Ok(way);
        }
        let (_, bridge) = self.connected(destination).ok_or(Refusal::NoSession)?;
        let inwards = self.is_uplink_of(from, bridge);
        if inwards { Ok(Way { egress: bridge, next_hop: destination }) } else { Err(Refusal::NoSession) }
    }

    /// The way of a packet from another host of a network in which bridge `of` has a part.
    fn route_home(&self, of: BridgeId, destination: IpAddr) -> Result<Way, Refusal> {
        if let Some(way) = self.by_static_route(of, destination, |bridge| bridge == of) {
            return Ok(way);
        }
        let (_, bridge) = self.connected(destination).filter(|(_, bridge)| *bridge == of).ok_or(Refusal::NoRoute)?;
        Ok(Way { egress: bridge, next_hop: destination })
    }

    /// The way to what is on no subnet of the switch.
    fn default_way(&self, uplink: BridgeId, destination: IpAddr) -> Result<Way, Refusal> {
        let interface = self.get(uplink).ok_or(Refusal::NoRoute)?;
        let Side::Outside { gateways, translation } = &interface.settings.side else { return Err(Refusal::NoRoute) };
        let next_hop = match translation {
            Translation::Host(_) => Some(&destination),
            Translation::Nat(_) => gateways.iter().find(|gateway| gateway.is_ipv4() == destination.is_ipv4()),
        };
        next_hop.map(|next_hop| Way { egress: uplink, next_hop: *next_hop }).ok_or(Refusal::NoRoute)
    }

    /// Whether an answer to this source would go back by the bridge that the packet came from (RFC 2827; RFC 3704). No other packet
    /// is taken: a station that speaks for another bridge's would get round their isolation.
    pub(super) fn is_from(&self, bridge: BridgeId, source: IpAddr) -> bool {
        let is_inside = |interface: &Interface| matches!(interface.settings.side, Side::Inside { .. });
        match self.get(bridge) {
            Some(interface) if is_inside(interface) => {
                interface.is_on_link(source) || self.by_static_route(bridge, source, |owner| owner == bridge).is_some()
            }
            Some(Interface { settings: GatewaySettings { side: Side::Beyond { .. }, .. }, .. }) => {
                self.by_static_route(bridge, source, |owner| owner == bridge).is_some()
            }
            Some(_) => {
                let is_ours = self.connected(source).and_then(|(_, owner)| self.get(owner)).is_some_and(is_inside);
                !is_ours && self.by_static_route(bridge, source, |_| true).is_none()
            }
            None => false,
        }
    }

    /// Whether a packet from bridge `from` to `address` is for the router itself.
    pub(super) fn is_own(&self, from: BridgeId, address: IpAddr) -> bool {
        let Some(interface) = self.get(from) else { return false };
        if interface.has(address) || interface.is_broadcast(address) {
            return true;
        }
        // Another gateway's address answers where packets to its subnet would be let through.
        self.route(from, address)
            .is_ok_and(|way| way.next_hop == address && self.get(way.egress).is_some_and(|interface| interface.has(address)))
    }
}
