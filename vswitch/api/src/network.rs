//! The rules between several bridges, ports, uplinks and forwards: what cannot be together, and what is most likely a mistake.
//! The reader of the file and the control side ask before anything is made; nothing here touches a device.

use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;
use packet::Mac;

use super::{
    BridgeName, BridgeSpec, ForwardKey, ForwardSpec, OverlayName, PortKind, PortName, PortSpec, UplinkKindName, UplinkSpec,
    VlanMode,
};

/// Most MTU of a TAP device: with its Ethernet header, a packet has 65535 bytes at most (the kernel's `tun_net_init`). A veth takes 65535 without.
pub const MOST_TAP_MTU: u16 = 65_521;

/// What must hold between bridges, ports, uplinks and forwards: the same rules for the file and for changes at run time.
///
/// Each check compares one specification with all others; one of the same name among them is what it replaces.
#[derive(Clone, Debug, Default)]
pub struct Network<'a> {
    /// The bridges.
    pub bridges: Vec<&'a BridgeSpec>,
    /// The ports.
    pub ports: Vec<&'a PortSpec>,
    /// The uplinks.
    pub uplinks: Vec<&'a UplinkSpec>,
    /// The forwards.
    pub forwards: Vec<&'a ForwardSpec>,
}

/// Two things that cannot be together, or one that misses another.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// Two gateways in one subnet.
    #[error("subnet {net} of {who} overlaps {other_net} of {other}: use one that is apart")]
    Overlap {
        /// The newcomer.
        who: String,
        /// Its subnet.
        net: IpNet,
        /// What had the subnet first.
        other: String,
        /// Its subnet.
        other_net: IpNet,
    },
    /// A bridge's uplink does not exist.
    #[error("bridge \"{0}\" has uplink \"{1}\", which does not exist: add [[uplink]] with that name, or vsctl add-uplink")]
    NoUplink(BridgeName, PortName),
    /// A forward's uplink does not exist.
    #[error("forward {0} is on uplink \"{uplink}\", which does not exist: add [[uplink]] with that name, or vsctl add-uplink", uplink = .0.uplink)]
    ForwardWithoutUplink(ForwardKey),
    /// A forward's target is on no bridge.
    #[error("forward {0} goes to {1}, which is no station's in a subnet of a bridge with uplink \"{uplink}\": use one of a station there, or remove the forward first", uplink = .0.uplink)]
    TargetOutside(ForwardKey, IpAddr),
    /// A forward's target is the gateway itself.
    #[error("forward {0} goes to {1}, which is the gateway of bridge \"{2}\": use an address of a station there")]
    TargetIsGateway(ForwardKey, IpAddr, BridgeName),
    /// Two forwards of one port.
    #[error("forward {0} has ports of forward {1}: use others, or let both listen on addresses of their own")]
    SamePort(ForwardKey, ForwardKey),
    /// A forward on an address that its link does not have.
    #[error("forward {0} listens where uplink \"{uplink}\" has no address: use {1}, or leave out the address for all", uplink = .0.uplink)]
    ListenElsewhere(ForwardKey, String),
    /// A forward from an IPv4 address to an IPv6 one, or the other way round.
    #[error(
        "forward {0} goes to {1}, of the other IP version than it listens on: a link translates within one version, so use two addresses of one"
    )]
    ListenAcross(ForwardKey, IpAddr),
    /// A port and an uplink of one name.
    #[error("uplink \"{0}\" has the name of a port: captures and counters know both by it, so use another")]
    NameOfPort(PortName),
    /// A port and an uplink of one name.
    #[error("port \"{0}\" has the name of an uplink: captures and counters know both by it, so use another")]
    NameOfUplink(PortName),
    /// A station with the gateway's address.
    #[error("port \"{0}\" has the address {1} of its bridge's gateway: use another")]
    AddressOfGateway(PortName, IpAddr),
    /// A bridge with an MTU that a device of it cannot have.
    #[error(
        "bridge \"{0}\" would have MTU {1}, but port \"{2}\" is on it, a TAP, which takes at most {MOST_TAP_MTU}: use that or less, or kind veth for the port"
    )]
    MtuOfTap(BridgeName, u16, PortName),
    /// Two bridges in one overlay network.
    #[error(
        "bridge \"{0}\" has overlay \"{1}\", as bridge \"{2}\" has: a host has one bridge in it; put the ports on that one"
    )]
    SameOverlay(BridgeName, OverlayName, BridgeName),
    /// Two uplinks on one interface.
    #[error(
        "uplink \"{0}\" has interface \"{1}\", which uplink \"{2}\" has already: use one uplink for both, or another interface"
    )]
    SameDevice(PortName, String, PortName),
}

/// Something that can be, and is most likely a mistake.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetworkWarning {
    /// Two stations of one bridge with one MAC address.
    #[error("port \"{0}\" has MAC address {1} as port \"{2}\" has: frames go to whichever spoke last; give each its own")]
    SameMac(PortName, Mac, PortName),
    /// Two stations with one IP address.
    #[error("port \"{0}\" has address {1} as port \"{2}\" has: packets go to whichever answers first; give each its own")]
    SameAddress(PortName, IpAddr, PortName),
    /// A station that its gateway does not reach.
    #[error("port \"{0}\" has address {1}, which is in none of the subnets of its bridge \"{2}\": it reaches no gateway there")]
    Outside(PortName, IpNet, BridgeName),
}

impl NetworkWarning {
    /// The port that it is about: of two, the later.
    pub const fn port(&self) -> &PortName {
        match self {
            Self::SameMac(port, ..) | Self::SameAddress(port, ..) | Self::Outside(port, ..) => port,
        }
    }

    /// Whether it is about this port, of two about either.
    pub fn concerns(&self, name: &PortName) -> bool {
        self.port() == name || matches!(self, Self::SameMac(_, _, other) | Self::SameAddress(_, _, other) if other == name)
    }

    /// The key in `switch.toml` whose value it is about.
    pub const fn key(&self) -> &'static str {
        match self {
            Self::SameMac(..) => "mac",
            Self::SameAddress(..) | Self::Outside(..) => "addresses",
        }
    }
}

impl NetworkError {
    /// The key in `switch.toml` whose value is wrong.
    pub const fn key(&self) -> &'static str {
        match self {
            Self::Overlap { .. } | Self::AddressOfGateway(..) => "addresses",
            Self::NoUplink(..) | Self::ForwardWithoutUplink(_) => "uplink",
            Self::TargetOutside(..) | Self::TargetIsGateway(..) => "to",
            Self::SamePort(..) => "port",
            Self::ListenElsewhere(..) | Self::ListenAcross(..) => "listen",
            Self::NameOfPort(_) | Self::NameOfUplink(_) => "name",
            Self::SameDevice(..) => "device",
            Self::SameOverlay(..) => "overlay",
            Self::MtuOfTap(..) => "mtu",
        }
    }
}

impl NetworkError {
    /// Whether something is missed, which may be among what could not be read.
    pub const fn is_of_absence(&self) -> bool {
        matches!(self, Self::NoUplink(..) | Self::ForwardWithoutUplink(_) | Self::TargetOutside(..))
    }
}

impl Network<'_> {
    /// What is most likely a mistake, in the order of the ports. `mac_of` says which MAC address the station of a port has, as far as that is known.
    pub fn warnings(&self, mac_of: impl Fn(&PortSpec) -> Option<Mac>) -> Vec<NetworkWarning> {
        let bridges: HashMap<&BridgeName, &BridgeSpec> = self.bridges.iter().map(|bridge| (&bridge.name, *bridge)).collect();
        let (mut macs, mut addresses) = (HashMap::<_, Vec<&PortSpec>>::new(), HashMap::<_, Vec<&PortSpec>>::new());
        let mut warnings = Vec::new();
        for port in &self.ports {
            if let Some(mac) = mac_of(port) {
                let others = macs.entry((&port.bridge, mac)).or_default();
                let other = others.iter().find(|other| meets(other, port));
                warnings.extend(other.map(|other| NetworkWarning::SameMac(port.name.clone(), mac, other.name.clone())));
                others.push(port);
            }
            for net in &port.addresses {
                let others = addresses.entry((&port.bridge, net.addr())).or_default();
                let other = others.iter().find(|other| meets(other, port));
                let same = |other: &&PortSpec| NetworkWarning::SameAddress(port.name.clone(), net.addr(), other.name.clone());
                warnings.extend(other.map(same));
                others.push(port);
                let bridge = bridges.get(&port.bridge).filter(|bridge| is_outside(port, net, bridge));
                warnings.extend(bridge.map(|bridge| NetworkWarning::Outside(port.name.clone(), *net, bridge.name.clone())));
            }
        }
        warnings
    }

    /// Whether a bridge fits.
    ///
    /// # Errors
    /// A subnet that overlaps, an uplink that is missing, a port with the gateway's address, or one that cannot have the bridge's MTU.
    pub fn check_bridge(&self, spec: &BridgeSpec) -> Result<(), NetworkError> {
        if let Some(uplink) = &spec.uplink
            && !self.uplinks.iter().any(|other| other.name == *uplink)
        {
            return Err(NetworkError::NoUplink(spec.name.clone(), uplink.clone()));
        }
        if let Some(overlay) = &spec.overlay
            && let Some(other) =
                self.bridges.iter().find(|other| other.name != spec.name && other.overlay.as_ref() == Some(overlay))
        {
            return Err(NetworkError::SameOverlay(spec.name.clone(), overlay.clone(), other.name.clone()));
        }
        let others = self.subnets().filter(|(owner, _)| *owner != Owner::Bridge(&spec.name));
        check_subnets(&Owner::Bridge(&spec.name), &spec.addresses, others)?;
        self.ports.iter().filter(|port| port.bridge == spec.name).try_for_each(|port| on_bridge(port, spec))
    }

    /// Whether a port fits.
    ///
    /// # Errors
    /// The name of an uplink, the address of its bridge's gateway, or a device that cannot have the bridge's MTU.
    pub fn check_port(&self, spec: &PortSpec) -> Result<(), NetworkError> {
        if self.uplinks.iter().any(|uplink| uplink.name == spec.name) {
            return Err(NetworkError::NameOfUplink(spec.name.clone()));
        }
        let bridge = self.bridges.iter().find(|bridge| bridge.name == spec.bridge);
        bridge.map_or(Ok(()), |bridge| on_bridge(spec, bridge))
    }

    /// Whether an uplink fits.
    ///
    /// # Errors
    /// The name of a port, an interface that another has, or a subnet that overlaps.
    pub fn check_uplink(&self, spec: &UplinkSpec) -> Result<(), NetworkError> {
        if self.ports.iter().any(|port| port.name == spec.name) {
            return Err(NetworkError::NameOfPort(spec.name.clone()));
        }
        let device = spec.device();
        let same = |other: &&&UplinkSpec| other.name != spec.name && device.is_some() && other.device() == device;
        if let (Some(other), Some(device)) = (self.uplinks.iter().find(same), device) {
            return Err(NetworkError::SameDevice(spec.name.clone(), device.to_string(), other.name.clone()));
        }
        let others = self.subnets().filter(|(owner, _)| *owner != Owner::Uplink(&spec.name));
        check_subnets(&Owner::Uplink(&spec.name), spec.addresses(), others)
    }

    /// Whether a forward fits.
    ///
    /// # Errors
    /// No such uplink, a target that is no station behind it, a port that is taken, or an address that the uplink does not have.
    pub fn check_forward(&self, spec: &ForwardSpec) -> Result<(), NetworkError> {
        let (key, target) = (&spec.key, spec.to.ip());
        let uplink = self.uplinks.iter().find(|uplink| uplink.name == key.uplink);
        let uplink = uplink.ok_or_else(|| NetworkError::ForwardWithoutUplink(key.clone()))?;
        let kind = uplink.kind_name();
        if let Some(other) = self.forwards.iter().find(|other| other.key != *key && other.key.overlaps(key, kind)) {
            return Err(NetworkError::SamePort(key.clone(), other.key.clone()));
        }
        check_listen(spec, uplink)?;
        let inside = |bridge: &&&BridgeSpec| {
            bridge.uplink.as_ref() == Some(&key.uplink)
                && (bridge.addresses.iter().any(|net| net.contains(&target))
                    || bridge.routes.iter().any(|route| route.to.contains(&target)))
        };
        match self.bridges.iter().find(inside) {
            Some(bridge) if bridge.addresses.iter().any(|net| net.addr() == target) => {
                Err(NetworkError::TargetIsGateway(key.clone(), target, bridge.name.clone()))
            }
            Some(bridge) if bridge.addresses.iter().any(|net| is_edge(net, target)) => {
                Err(NetworkError::TargetOutside(key.clone(), target))
            }
            Some(_) => Ok(()),
            None => Err(NetworkError::TargetOutside(key.clone(), target)),
        }
    }

    /// What has a subnet of a network, but for one bridge: the subnet, and who has it.
    pub fn overlap(&self, network: IpNet, except: &BridgeName) -> Option<String> {
        let overlaps = |net: &IpNet| network.contains(&net.network()) || net.contains(&network.network());
        let mut others = self.subnets().filter(|(owner, _)| *owner != Owner::Bridge(except));
        others.find(|(_, net)| overlaps(net)).map(|(owner, net)| format!("{net} of {owner}"))
    }

    fn subnets(&self) -> impl Iterator<Item = (Owner<'_>, IpNet)> {
        let bridges =
            self.bridges.iter().flat_map(|bridge| bridge.addresses.iter().map(|net| (Owner::Bridge(&bridge.name), *net)));
        let uplinks =
            self.uplinks.iter().flat_map(|uplink| uplink.addresses().iter().map(|net| (Owner::Uplink(&uplink.name), *net)));
        bridges.chain(uplinks)
    }
}

/// Whether a link has the address that a forward listens on. Which one DHCP gives is not known: the forward waits for its own.
fn check_listen(spec: &ForwardSpec, uplink: &UplinkSpec) -> Result<(), NetworkError> {
    let Some(address) = spec.key.listen.filter(|_| uplink.kind_name() == UplinkKindName::Link) else { return Ok(()) };
    let own: Vec<IpAddr> = uplink.addresses().iter().map(IpNet::addr).collect();
    let known = if uplink.is_by_dhcp() { address.is_ipv4() } else { own.contains(&address) };
    if !known && !address.is_unspecified() {
        let own = own.iter().map(ToString::to_string).collect::<Vec<_>>();
        let advice = if own.is_empty() { "the one that DHCP gives, of IPv4".to_owned() } else { own.join(" or ") };
        return Err(NetworkError::ListenElsewhere(spec.key.clone(), advice));
    }
    if address.is_ipv4() != spec.to.is_ipv4() {
        return Err(NetworkError::ListenAcross(spec.key.clone(), spec.to.ip()));
    }
    Ok(())
}

/// What has a subnet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner<'a> {
    Bridge(&'a BridgeName),
    Uplink(&'a PortName),
}

impl std::fmt::Display for Owner<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bridge(name) => write!(f, "bridge \"{name}\""),
            Self::Uplink(name) => write!(f, "uplink \"{name}\""),
        }
    }
}

fn check_subnets<'a>(
    who: &Owner<'_>,
    nets: &[IpNet],
    others: impl Iterator<Item = (Owner<'a>, IpNet)>,
) -> Result<(), NetworkError> {
    for (other, other_net) in others {
        let overlaps = |net: &&IpNet| net.contains(&other_net.network()) || other_net.contains(&net.network());
        if let Some(net) = nets.iter().find(overlaps) {
            let (who, other) = (who.to_string(), other.to_string());
            return Err(NetworkError::Overlap { who, net: *net, other, other_net });
        }
    }
    Ok(())
}

/// Whether a port fits its bridge.
fn on_bridge(port: &PortSpec, bridge: &BridgeSpec) -> Result<(), NetworkError> {
    if port.kind == PortKind::Tap && bridge.mtu > MOST_TAP_MTU {
        return Err(NetworkError::MtuOfTap(bridge.name.clone(), bridge.mtu, port.name.clone()));
    }
    let shared = port.addresses.iter().find(|net| bridge.addresses.iter().any(|own| own.addr() == net.addr()));
    shared.map_or(Ok(()), |net| Err(NetworkError::AddressOfGateway(port.name.clone(), net.addr())))
}

/// Whether the address is that of the subnet itself, or of all in it.
fn is_edge(net: &IpNet, address: IpAddr) -> bool {
    let whole = net.prefix_len() + 1 < net.max_prefix_len();
    whole && (address == net.network() || address.is_ipv4() && address == net.broadcast())
}

/// Whether two ports of one bridge can have a VLAN in common.
fn meets(one: &PortSpec, other: &PortSpec) -> bool {
    match (&one.vlans, &other.vlans) {
        (VlanMode::Access(one), VlanMode::Access(other)) => one == other,
        _ => true,
    }
}

/// Whether a station is where its gateway is, and in none of the subnets that the gateway has of that IP version.
fn is_outside(port: &PortSpec, net: &IpNet, bridge: &BridgeSpec) -> bool {
    let elsewhere = matches!(&port.vlans, VlanMode::Access(vlan) if *vlan != bridge.gateway_vlan);
    let v4 = net.addr().is_ipv4();
    let mut subnets = bridge.addresses.iter().filter(|subnet| subnet.addr().is_ipv4() == v4).peekable();
    !elsewhere && subnets.peek().is_some() && !subnets.any(|subnet| subnet.contains(&net.addr()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bridge(name: &str, rest: &str) -> BridgeSpec {
        toml::from_str(&format!("name = \"{name}\"\n{rest}")).unwrap()
    }

    fn uplink(name: &str, address: &str) -> UplinkSpec {
        toml::from_str(&format!("name = \"{name}\"\nkind = \"link\"\ndevice = \"e-{name}\"\naddress = \"{address}\"")).unwrap()
    }

    fn forward(ports: &str, to: &str) -> ForwardSpec {
        toml::from_str(&format!("uplink = \"wan\"\nprotocol = \"tcp\"\nport = \"{ports}\"\nto = \"{to}\"")).unwrap()
    }

    #[track_caller]
    fn refused<T>(result: Result<T, NetworkError>, part: &str) {
        let sentence = result.err().map(|error| error.to_string()).unwrap_or_default();
        assert!(sentence.contains(part), "{sentence:?} instead of {part:?}");
    }

    #[test]
    fn what_cannot_be_together_is_named() {
        let br0 = bridge("br0", "addresses = [\"10.0.0.1/24\", \"fd00::1/64\"]\nuplink = \"wan\"");
        let br1 = bridge("br1", "addresses = [\"10.1.0.1/24\"]");
        let (wan, lan) = (uplink("wan", "192.0.2.10/24"), uplink("lan", "198.51.100.1/24"));
        let port: PortSpec = toml::from_str("name = \"a\"\nbridge = \"br0\"\naddresses = [\"10.0.0.2/24\"]").unwrap();
        let web = forward("80-90", "10.0.0.2:80");
        let network =
            Network { bridges: vec![&br0, &br1], ports: vec![&port], uplinks: vec![&wan, &lan], forwards: vec![&web] };
        for spec in [&br0, &br1] {
            assert_eq!(network.check_bridge(spec), Ok(()));
        }
        assert_eq!(
            (network.check_uplink(&wan), network.check_forward(&web), network.check_port(&port)),
            (Ok(()), Ok(()), Ok(()))
        );

        refused(
            network.check_bridge(&bridge("br2", "addresses = [\"10.0.0.129/25\"]")),
            "overlaps 10.0.0.1/24 of bridge \"br0\"",
        );
        refused(network.check_bridge(&bridge("br2", "addresses = [\"192.0.0.1/16\"]")), "of uplink \"wan\"");
        refused(
            network.check_bridge(&bridge("br1", "addresses = [\"10.1.0.1/24\"]\nuplink = \"no\"")),
            "uplink \"no\", which does not exist",
        );
        refused(network.check_bridge(&bridge("br0", "addresses = [\"10.0.0.2/24\"]")), "port \"a\" has the address 10.0.0.2");
        refused(network.check_uplink(&uplink("up", "10.1.0.9/30")), "overlaps 10.1.0.1/24 of bridge \"br1\"");
        refused(network.check_uplink(&uplink("a", "203.0.113.1/24")), "has the name of a port");
        let same: UplinkSpec = toml::from_str("name = \"x\"\nkind = \"link\"\ndevice = \"e-wan\"\naddress = \"dhcp\"").unwrap();
        refused(network.check_uplink(&same), "interface \"e-wan\", which uplink \"wan\" has");
        refused(network.check_forward(&forward("85", "10.0.0.3:1")), "has ports of forward wan tcp/80-90");
        let listening = |address: &str, to: &str| {
            let mut spec = forward("80", to);
            spec.key.listen = Some(address.parse().unwrap());
            network.check_forward(&spec)
        };
        refused(listening("192.0.2.10", "10.0.0.2:80"), "wan tcp/80 --listen 192.0.2.10 has ports of forward wan tcp/80-90");
        refused(listening("192.0.2.11", "[fd00::2]:80"), "listens where uplink \"wan\" has no address: use 192.0.2.10");
        refused(listening("192.0.2.10", "[fd00::2]:80"), "of the other IP version than it listens on");
        refused(
            network.check_forward(&forward("1", "10.1.0.2:1")),
            "which is no station's in a subnet of a bridge with uplink \"wan\"",
        );
        refused(network.check_forward(&forward("1", "10.0.0.1:1")), "is the gateway of bridge \"br0\"");
        refused(network.check_forward(&forward("1", "10.0.0.255:1")), "use one of a station there");
        let named: PortSpec = toml::from_str("name = \"wan\"\nbridge = \"br0\"").unwrap();
        refused(network.check_port(&named), "has the name of an uplink");
        let taken: PortSpec = toml::from_str("name = \"b\"\nbridge = \"br0\"\naddresses = [\"10.0.0.1/24\"]").unwrap();
        refused(network.check_port(&taken), "has the address 10.0.0.1 of its bridge's gateway");
    }

    #[test]
    fn a_bridge_with_a_tap_has_no_mtu_that_a_tap_cannot_have() {
        let port = |kind: &str| -> PortSpec {
            let rest = if kind == "link" { "device = \"eth1\"" } else { "" };
            toml::from_str(&format!("name = \"a\"\nbridge = \"br0\"\nkind = \"{kind}\"\n{rest}")).unwrap()
        };
        for (kind, most) in [("tap", 65_521), ("veth", 65_535), ("link", 65_535)] {
            let port = port(kind);
            for mtu in [65_521, 65_522, 65_535] {
                let bridge = bridge("br0", &format!("mtu = {mtu}"));
                let network = Network { bridges: vec![&bridge], ports: vec![&port], ..Network::default() };
                for checked in [network.check_bridge(&bridge), network.check_port(&port)] {
                    assert_eq!(checked.is_ok(), mtu <= most, "{kind}, {mtu}: {checked:?}");
                    if let Err(error) = checked {
                        let sentence = format!(
                            "bridge \"br0\" would have MTU {mtu}, but port \"a\" is on it, a TAP, which takes at most 65521: use that or \
                             less, or kind veth for the port"
                        );
                        assert_eq!(error.to_string(), sentence);
                    }
                }
            }
        }
    }
}
