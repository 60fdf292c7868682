//! What is known of the stations around a port, and the frame that comes of it: the words of a trace leave open whose MAC addresses it has.

use std::net::IpAddr;

use packet::Mac;

use crate::frame::{Endpoints, FrameWords, NoFrame, WordsError};
use api::{BridgeInfo, FdbEntry, NeighborInfo, PortInfo, PortName, TraceFrame, TraceRequest, UplinkInfo, VxlanInfo};

/// The switch as it is listed, as far as a frame's MAC addresses depend on it.
pub(super) struct Scene {
    pub(super) ports: Vec<PortInfo>,
    pub(super) bridges: Vec<BridgeInfo>,
    pub(super) uplinks: Vec<UplinkInfo>,
    pub(super) tunnels: Vec<VxlanInfo>,
    pub(super) neighbors: Vec<NeighborInfo>,
    /// Of the bridge that the port is on.
    pub(super) fdb: Vec<FdbEntry>,
}

/// Why there is no frame to trace.
#[derive(Debug, thiserror::Error)]
pub(super) enum TraceError {
    /// The words are no frame.
    #[error(transparent)]
    Words(WordsError),
    /// The frame cannot be built.
    #[error(transparent)]
    Build(NoFrame),
    /// Its sender is not known.
    #[error("no station behind \"{0}\" was seen yet, so the frame has no source MAC address: add `from MAC`")]
    NoSender(PortName),
    /// Its receiver is not known.
    #[error(
        "no station with {0} was seen on bridge \"{1}\", so the frame has no destination MAC address: trace what the sender says first, \
         `{kind} who-has {0}`, or add `to MAC`", kind = if .0.is_ipv4() { "arp" } else { "nd" }
    )]
    NoReceiver(IpAddr, String),
    /// Nothing routes.
    #[error(
        "bridge \"{1}\" has no gateway that routes to {0}, so a station there has nowhere to send it: give the bridge an address, as with \
         `vsctl set-br {1} --address 10.0.0.1/24`, or add `to MAC` if another station routes"
    )]
    NoGateway(IpAddr, String),
    /// The target of a frame is not known.
    #[error("\"{0}\" is no IP or MAC address, no port and no container{hint}", hint = .1)]
    NoTarget(String, String),
    /// The port's own address is not known.
    #[error("no {0} address of the station behind \"{1}\" is known: say the whole frame, such as `icmp echo A > B`")]
    NoOwn(&'static str, PortName),
}

impl Scene {
    /// The frame that is asked about.
    pub(super) fn frame(&self, request: &TraceRequest) -> Result<Vec<u8>, TraceError> {
        let words = match &request.frame {
            TraceFrame::Text(text) => FrameWords::read(text).map_err(TraceError::Words)?,
            TraceFrame::To(target) => self.words_to(&request.port, target)?,
        };
        let ends = if words.is_whole() {
            Endpoints { from: Mac::ZERO, to: Mac::ZERO }
        } else {
            Endpoints { from: self.sender(&request.port, &words)?, to: self.receiver(&request.port, &words)? }
        };
        let six = words.addresses().1.or(words.target()).is_some_and(|address| address.is_ipv6());
        let own = self.own_address(&request.port, six);
        words.build(ends, own).map_err(TraceError::Build)
    }

    /// A ping to a target, or a frame to its MAC address.
    fn words_to(&self, port: &PortName, target: &str) -> Result<FrameWords, TraceError> {
        if let Ok(mac) = target.parse::<Mac>() {
            return Ok(FrameWords::to_mac(mac));
        }
        let address = match target.parse::<IpAddr>() {
            Ok(address) => address,
            Err(_) => return self.words_to_name(port, target),
        };
        let version = if address.is_ipv4() { "IPv4" } else { "IPv6" };
        let own = self.own_address(port, address.is_ipv6()).ok_or_else(|| TraceError::NoOwn(version, port.clone()))?;
        Ok(FrameWords::ping(own, address))
    }

    fn words_to_name(&self, port: &PortName, name: &str) -> Result<FrameWords, TraceError> {
        let is_meant = |info: &&PortInfo| info.name.as_str() == name || info.docker.container.as_deref() == Some(name);
        let there = self.ports.iter().filter(is_meant);
        for info in there.clone() {
            for six in [false, true] {
                if let (Some(own), Some(address)) = (self.own_address(port, six), self.own_address(&info.name, six)) {
                    return Ok(FrameWords::ping(own, address));
                }
            }
        }
        let mac = there.filter_map(|info| info.mac.or_else(|| self.seen_at(&info.name))).next();
        mac.map(FrameWords::to_mac).ok_or_else(|| {
            let names = self.ports.iter().map(|info| info.name.as_str()).collect::<Vec<_>>().join(", ");
            TraceError::NoTarget(
                name.to_owned(),
                if names.is_empty() { String::new() } else { format!(": the ports are {names}") },
            )
        })
    }

    /// An IP address of the station behind a port: one that the switch gave it, or that the gateway heard of.
    fn own_address(&self, port: &PortName, six: bool) -> Option<IpAddr> {
        let fits = |address: &IpAddr| address.is_ipv6() == six;
        if let Some(uplink) = self.uplink(port) {
            return uplink.gateways.iter().copied().find(fits);
        }
        let info = self.port(port);
        let given = info.into_iter().flat_map(|info| &info.addresses).map(ipnet::IpNet::addr).find(fits);
        let macs: Vec<Mac> = info.and_then(|info| info.mac).into_iter().chain(self.all_at(port)).collect();
        let heard = self.neighbors.iter().filter(|row| row.mac.is_some_and(|mac| macs.contains(&mac)));
        given.or_else(|| heard.map(|row| row.address).find(fits))
    }

    fn port(&self, name: &PortName) -> Option<&PortInfo> {
        self.ports.iter().find(|info| info.name == *name)
    }

    fn uplink(&self, name: &PortName) -> Option<&UplinkInfo> {
        self.uplinks.iter().find(|uplink| uplink.name == *name)
    }

    fn all_at(&self, port: &PortName) -> impl Iterator<Item = Mac> {
        self.fdb.iter().filter(move |entry| entry.port == *port).map(|entry| entry.mac)
    }

    /// The MAC address that was seen last behind a port.
    fn seen_at(&self, port: &PortName) -> Option<Mac> {
        let there = self.fdb.iter().filter(|entry| entry.port == *port);
        there.min_by_key(|entry| entry.age_seconds).map(|entry| entry.mac)
    }

    /// The MAC address of a station with this IP address: a port's that was given it, or as a gateway heard it.
    fn mac_of(&self, address: IpAddr) -> Option<Mac> {
        let given = self.ports.iter().find(|info| info.addresses.iter().any(|net| net.addr() == address));
        let heard = self.neighbors.iter().find(|row| row.address == address).and_then(|row| row.mac);
        heard.or_else(|| given.and_then(|info| info.mac.or_else(|| self.seen_at(&info.name))))
    }

    /// The MAC address of a station at another host, as the tunnels of a bridge were told.
    fn mac_behind_tunnels(&self, bridge: &api::BridgeName, address: IpAddr) -> Option<Mac> {
        let tunnels = self.tunnels.iter().filter(|info| info.bridge == *bridge);
        tunnels.flat_map(|info| &info.r#static).find(|station| station.ip == Some(address)).map(|station| station.mac)
    }

    fn sender(&self, port: &PortName, words: &FrameWords) -> Result<Mac, TraceError> {
        if let Some(mac) = words.from {
            return Ok(mac);
        }
        let own = self.port(port).and_then(|info| info.mac);
        let by_address = words.addresses().0.and_then(|address| self.mac_of(address));
        let there = |mac: &Mac| own == Some(*mac) || self.all_at(port).any(|seen| seen == *mac);
        let known = by_address.filter(there).or(own).or_else(|| self.seen_at(port));
        if let Some(uplink) = self.uplink(port) {
            let router = uplink.gateways.iter().find_map(|gateway| self.mac_of(*gateway));
            return Ok(by_address.or(router).unwrap_or(OUTSIDE));
        }
        known.ok_or_else(|| TraceError::NoSender(port.clone()))
    }

    fn receiver(&self, port: &PortName, words: &FrameWords) -> Result<Mac, TraceError> {
        if let Some(mac) = words.to.or_else(|| words.group()) {
            return Ok(mac);
        }
        if let Some(uplink) = self.uplink(port) {
            return Ok(uplink.mac);
        }
        let to = words.addresses().1.ok_or_else(|| TraceError::NoSender(port.clone()))?;
        let bridge = self.bridge_of(port).ok_or_else(|| TraceError::NoSender(port.clone()))?;
        let gateway = &bridge.gateway;
        if gateway.addresses.iter().any(|net| net.addr() == to) {
            return gateway.gateway_mac.ok_or_else(|| TraceError::NoReceiver(to, bridge.name.to_string()));
        }
        let is_near = gateway.addresses.iter().any(|net| net.contains(&to)) || gateway.addresses.is_empty();
        let elsewhere = !is_near && !is_link_local(to);
        let there = self.mac_of(to).or_else(|| self.mac_behind_tunnels(&bridge.name, to));
        match (there, gateway.gateway_mac) {
            (_, Some(gateway)) if elsewhere => Ok(gateway),
            (Some(mac), _) => Ok(mac),
            (None, None) if !self.is_subnet_of_a_port(&bridge.name, to) => {
                Err(TraceError::NoGateway(to, bridge.name.to_string()))
            }
            (None, _) => Err(TraceError::NoReceiver(to, bridge.name.to_string())),
        }
    }

    fn bridge_of(&self, port: &PortName) -> Option<&BridgeInfo> {
        let of_port = self.port(port).map(|info| &info.bridge);
        let name = of_port.or_else(|| self.tunnels.iter().find(|info| info.name == *port).map(|info| &info.bridge))?;
        self.bridges.iter().find(|bridge| bridge.name == *name)
    }

    fn is_subnet_of_a_port(&self, bridge: &api::BridgeName, address: IpAddr) -> bool {
        let on_it = self.ports.iter().filter(|info| info.bridge == *bridge);
        on_it.flat_map(|info| &info.addresses).any(|net| net.contains(&address))
    }
}

/// A host outside that was not seen yet.
const OUTSIDE: Mac = Mac([2, 0, 0, 0, 0, 1]);

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}
