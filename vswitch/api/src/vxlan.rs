//! A VXLAN tunnel as the file and `vsctl` ask for it, and what `vsctl set-vxlan` changes about it: keys, checks and errors.

mod error;
mod info;

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use packet::{Mac, VlanId};
use serde::{Deserialize, Serialize, Serializer};
use vxlan::Vni;

use super::read::{Raw, Read, about, read};
use super::{BridgeName, InterfaceName, PortName, RouteSpec, VlanList, VlanMode};

pub use error::VxlanError;
pub use info::{ReachInfo, UnderlayInfo, VxlanInfo};

/// A VXLAN tunnel as `switch.toml` describes it. It is a port of its bridge, and shares the ports' names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "VxlanTable", into = "VxlanTable")]
pub struct VxlanSpec {
    /// Its name.
    pub name: PortName,
    /// The bridge that it is on.
    pub bridge: BridgeName,
    /// The network.
    pub vni: Vni,
    /// The address of this host that it sends from and listens on.
    pub local: IpAddr,
    /// The UDP port of all hosts; 4789 by default.
    pub port: u16,
    /// How flooded frames reach the other hosts.
    pub reach: Reach,
    /// Whether MAC addresses are learned from what arrives.
    pub learn: bool,
    /// Whether outer UDP headers have a checksum.
    pub udp_checksum: bool,
    /// TTL or hop limit of outer packets; 64 by default, 1 for a group.
    pub ttl: u8,
    /// Its VLANs on the bridge; by default VLAN 1, untagged.
    pub vlans: VlanMode,
    /// Most frames a second out of the tunnel that go to many; `None`: no limit.
    pub bum_limit: Option<u32>,
    /// Stations that are known beforehand.
    pub stations: Vec<StationSpec>,
    /// The UDP port of WireGuard, inside which frames go: only the tunnels of encrypted overlay networks have one.
    pub wireguard: Option<u16>,
    /// Where it leads, if the hosts behind it route and none of its frames enters the bridge: only flannel's has this.
    pub routed: Option<RoutedTunnel>,
}

/// A tunnel to hosts that route: each has a subnet of one network, and the bridge of the tunnel another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoutedTunnel {
    /// The MAC address of this end, to which the other hosts send.
    pub mac: Mac,
    /// The IP address of this end, which no station has.
    pub address: IpAddr,
    /// The network.
    pub network: IpNet,
    /// The subnets of the other hosts, each by an address that is a station's of the tunnel.
    pub routes: Vec<RouteSpec>,
    /// The longest packet that it carries, where the underlay would carry a longer one.
    pub mtu: Option<u16>,
}

/// How flooded frames reach the other hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// One copy to each of these hosts. What other hosts send is dropped.
    Peers(BTreeSet<IpAddr>),
    /// By IP multicast, out of this interface. Every host that sends belongs to the tunnel.
    Group(IpAddr, InterfaceName),
}

impl Reach {
    /// The hosts that were named.
    pub fn peers(&self) -> Vec<IpAddr> {
        match self {
            Self::Peers(peers) => peers.iter().copied().collect(),
            Self::Group(..) => Vec::new(),
        }
    }
}

/// A station behind a tunnel: where it is, and, with its IP address, that the switch answers ARP and neighbour discovery for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct StationSpec {
    /// Its MAC address.
    pub mac: Mac,
    /// The host that it is on.
    pub peer: IpAddr,
    /// Its IP address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<IpAddr>,
}

/// What `vsctl set-vxlan` changes; what is empty or `None` stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub struct VxlanChange {
    /// Peers to add.
    pub add_peers: Vec<IpAddr>,
    /// Peers to remove, with their stations.
    pub remove_peers: Vec<IpAddr>,
    /// Stations to add; one whose MAC address is known takes its place.
    pub add_stations: Vec<StationSpec>,
    /// MAC addresses of stations to remove.
    pub remove_stations: Vec<Mac>,
    /// Whether addresses are learned.
    pub learn: Option<bool>,
    /// Another limit; 0 lifts it.
    pub bum_limit: Option<u32>,
}

impl VxlanSpec {
    /// The limit where none is given: far above what stations do, far below what a loop does.
    pub const BUM_LIMIT: u32 = 20_000;

    /// Whether a tunnel of the host with the address `local` may have this peer. What a file says is refused with a reason instead.
    pub fn may_have_peer(local: IpAddr, peer: IpAddr) -> bool {
        let is_written_so = peer == peer.to_canonical() && peer.is_ipv4() == local.is_ipv4();
        is_written_so && peer != local && is_of_one_host(peer) && !is_link_local(peer)
    }

    /// Whether frames of both would arrive at the same place with the same VNI.
    pub fn collides_with(&self, other: &Self) -> bool {
        let same_ear = self.local == other.local
            || matches!((&self.reach, &other.reach), (Reach::Group(a, x), Reach::Group(b, y)) if (a, x) == (b, y));
        self.vni == other.vni && self.port == other.port && same_ear
    }

    /// The same with a change made to it, after the checks that one from a file went through.
    ///
    /// # Errors
    /// What contradicts itself.
    pub fn changed(self, change: &VxlanChange) -> Result<Self, VxlanError> {
        let mut table = VxlanTable::from(self);
        if let Some(missing) = change.remove_peers.iter().find(|peer| !table.peers.contains(peer)) {
            return Err(VxlanError::NoPeer(table.name, *missing));
        }
        table.peers.extend(&change.add_peers);
        table.peers.retain(|peer| !change.remove_peers.contains(peer));
        let known = |mac: &Mac| table.r#static.iter().any(|station| station.mac == *mac);
        if let Some(missing) = change.remove_stations.iter().find(|mac| !known(mac)) {
            return Err(VxlanError::NoStation(table.name, *missing));
        }
        let replaced = |mac: Mac| change.remove_stations.contains(&mac) || change.add_stations.iter().any(|new| new.mac == mac);
        table.r#static.retain(|station| !change.remove_peers.contains(&station.peer) && !replaced(station.mac));
        table.r#static.extend(change.add_stations.iter().cloned());
        table.learn = change.learn.unwrap_or(table.learn);
        table.bum_limit = change.bum_limit.map(i64::from).or(table.bum_limit);
        table.try_into()
    }
}

/// A tunnel as it is written: each value of its kind, but not yet whether they fit together.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct VxlanTable {
    #[serde(deserialize_with = "read")]
    name: PortName,
    #[serde(deserialize_with = "read")]
    bridge: BridgeName,
    #[serde(deserialize_with = "read", serialize_with = "write_vni")]
    vni: Vni,
    #[serde(deserialize_with = "read")]
    local: IpAddr,
    #[serde(default = "assigned_port", deserialize_with = "read")]
    port: i64,
    #[serde(default, deserialize_with = "read", skip_serializing_if = "Vec::is_empty")]
    peers: Vec<IpAddr>,
    #[serde(default, deserialize_with = "read", skip_serializing_if = "Option::is_none")]
    group: Option<IpAddr>,
    #[serde(default, deserialize_with = "read", skip_serializing_if = "Option::is_none")]
    device: Option<InterfaceName>,
    #[serde(default = "yes", deserialize_with = "read")]
    learn: bool,
    #[serde(default = "yes", deserialize_with = "read")]
    udp_checksum: bool,
    #[serde(default, deserialize_with = "read", skip_serializing_if = "Option::is_none")]
    ttl: Option<i64>,
    #[serde(default, deserialize_with = "read", skip_serializing_if = "Option::is_none")]
    vlan: Option<VlanId>,
    #[serde(default, deserialize_with = "read", skip_serializing_if = "Option::is_none")]
    trunk: Option<VlanList>,
    #[serde(default, deserialize_with = "read", skip_serializing_if = "Option::is_none")]
    native: Option<VlanId>,
    #[serde(default, deserialize_with = "read", skip_serializing_if = "Option::is_none")]
    bum_limit: Option<i64>,
    #[serde(default, deserialize_with = "read", skip_serializing_if = "Vec::is_empty")]
    r#static: Vec<StationSpec>,
}

fn yes() -> bool {
    true
}

fn assigned_port() -> i64 {
    vxlan::UDP_PORT.into()
}

impl Read for Vni {
    fn read(raw: Raw) -> Result<Self, String> {
        let number = i64::read(raw)?;
        let vni = u32::try_from(number).ok().and_then(|number| Self::try_from(number).ok());
        vni.ok_or_else(|| format!("{number} is not a VNI: use a number from 0 to 16777215"))
    }
}

impl Read for StationSpec {
    fn read(raw: Raw) -> Result<Self, String> {
        const HINT: &str = "write { mac = \"02:00:00:00:00:0a\", peer = \"192.0.2.2\" }, and `ip` if it is known";
        let Raw::Table(fields) = raw else { return Err(format!("{raw} is not a station: {HINT}")) };
        let (mut mac, mut peer, mut ip) = (None, None, None);
        for (key, raw) in fields {
            let about_it = |wrong: String| about(&key, &wrong);
            match key.as_str() {
                "mac" => mac = Some(Mac::read(raw).map_err(about_it)?),
                "peer" => peer = Some(IpAddr::read(raw).map_err(about_it)?),
                "ip" => ip = Some(IpAddr::read(raw).map_err(about_it)?),
                _ => return Err(format!("a station has no key `{}`: {HINT}", key.escape_debug())),
            }
        }
        match (mac, peer) {
            (Some(mac), Some(peer)) => Ok(Self { mac, peer, ip }),
            (None, _) => Err(format!("a station has no `mac`: {HINT}")),
            (_, None) => Err(format!("a station has no `peer`: {HINT}")),
        }
    }
}

fn write_vni<S: Serializer>(vni: &Vni, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u32(vni.number())
}

impl TryFrom<VxlanTable> for VxlanSpec {
    type Error = VxlanError;

    fn try_from(table: VxlanTable) -> Result<Self, VxlanError> {
        let name = table.name.clone();
        let local = table.local.to_canonical();
        if !is_of_one_host(local) {
            return Err(VxlanError::Local(name, local));
        }
        if is_link_local(local) {
            return Err(VxlanError::LinkLocal(name, local, "local"));
        }
        let port = match u16::try_from(table.port) {
            Ok(port @ 1..) => port,
            _ => return Err(VxlanError::Port(name, table.port)),
        };
        let ttl = match table.ttl.map(u8::try_from) {
            None => None,
            Some(Ok(ttl @ 1..)) => Some(ttl),
            Some(_) => return Err(VxlanError::Ttl(name, table.ttl.unwrap_or_default())),
        };
        let bum_limit = match table.bum_limit.map(u32::try_from).transpose() {
            Ok(limit) => limit.unwrap_or(Self::BUM_LIMIT),
            Err(_) => return Err(VxlanError::BumLimit(name, table.bum_limit.unwrap_or_default())),
        };
        let reach = table.reach(local)?;
        table.check_stations(&reach)?;
        let vlans = VlanMode::from_keys(table.vlan, table.trunk, table.native);
        let vlans = vlans.map_err(|error| VxlanError::Vlans(name.clone(), error))?;
        Ok(Self {
            name,
            bridge: table.bridge,
            vni: table.vni,
            local,
            port,
            ttl: ttl.unwrap_or(if matches!(reach, Reach::Group(..)) { 1 } else { 64 }),
            reach,
            learn: table.learn,
            udp_checksum: table.udp_checksum,
            vlans: vlans.unwrap_or(VlanMode::Access(VlanId::DEFAULT)),
            bum_limit: Some(bum_limit).filter(|limit| *limit > 0),
            stations: table.r#static,
            wireguard: None,
            routed: None,
        })
    }
}

impl VxlanTable {
    fn reach(&self, local: IpAddr) -> Result<Reach, VxlanError> {
        let name = || self.name.clone();
        let same_family = |address: IpAddr| {
            let same = address.is_ipv4() == local.is_ipv4();
            if same { Ok(address) } else { Err(VxlanError::Family(name(), address, local)) }
        };
        match (self.group, &self.device) {
            (Some(_), _) if !self.peers.is_empty() => Err(VxlanError::PeersAndGroup(name())),
            (Some(group), _) if !group.is_multicast() => Err(VxlanError::Group(name(), group)),
            (Some(group), Some(device)) => Ok(Reach::Group(same_family(group)?, device.clone())),
            (Some(_), None) => Err(VxlanError::NoDevice(name())),
            (None, Some(_)) => Err(VxlanError::DeviceWithoutGroup(name())),
            (None, None) => {
                let mut peers = BTreeSet::new();
                for peer in self.peers.iter().map(IpAddr::to_canonical) {
                    if !is_of_one_host(peer) {
                        return Err(VxlanError::Peer(name(), peer));
                    }
                    if is_link_local(peer) {
                        return Err(VxlanError::LinkLocal(name(), peer, "peers"));
                    }
                    if peer == local {
                        return Err(VxlanError::PeerIsLocal(name(), peer));
                    }
                    peers.insert(same_family(peer)?);
                }
                let count = peers.len();
                if count > vxlan::Peers::MOST { Err(VxlanError::Peers(name(), count)) } else { Ok(Reach::Peers(peers)) }
            }
        }
    }

    /// A group's members are not listed, so any host of the right family may be one.
    fn check_stations(&self, reach: &Reach) -> Result<(), VxlanError> {
        let name = || self.name.clone();
        for station in &self.r#static {
            let StationSpec { mac, peer, .. } = station;
            if mac.is_group() || *mac == Mac::ZERO {
                return Err(VxlanError::StationMac(name(), *mac));
            }
            let reached = match reach {
                Reach::Peers(peers) => peers.contains(peer),
                Reach::Group(group, _) => peer.is_ipv4() == group.is_ipv4() && !peer.is_multicast() && *peer != self.local,
            };
            if !reached {
                return Err(VxlanError::StationPeer(name(), *mac, *peer));
            }
            if self.r#static.iter().any(|other| other.mac == *mac && other.peer != *peer) {
                return Err(VxlanError::StationTwice(name(), *mac));
            }
        }
        Ok(())
    }
}

impl From<VxlanSpec> for VxlanTable {
    fn from(spec: VxlanSpec) -> Self {
        let peers = spec.reach.peers();
        let (group, device) = match spec.reach {
            Reach::Peers(_) => (None, None),
            Reach::Group(group, device) => (Some(group), Some(device)),
        };
        let (vlan, trunk, native) = spec.vlans.keys();
        Self {
            name: spec.name,
            bridge: spec.bridge,
            vni: spec.vni,
            local: spec.local,
            port: spec.port.into(),
            peers,
            group,
            device,
            learn: spec.learn,
            udp_checksum: spec.udp_checksum,
            ttl: Some(spec.ttl.into()),
            vlan,
            trunk,
            native,
            bum_limit: Some(spec.bum_limit.unwrap_or(0).into()),
            r#static: spec.stations,
        }
    }
}

fn is_of_one_host(address: IpAddr) -> bool {
    let is_broadcast = matches!(address, IpAddr::V4(address) if address.is_broadcast());
    !address.is_unspecified() && !address.is_multicast() && !is_broadcast
}

fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vxlan(rest: &str) -> Result<VxlanSpec, String> {
        let text = format!("name = \"vx0\"\nbridge = \"br0\"\n{rest}");
        toml::from_str(&text).map_err(|error| error.message().to_owned())
    }

    const BASE: &str = "vni = 42\nlocal = \"192.0.2.1\"\n";

    #[test]
    fn what_is_not_said_has_a_default() {
        let spec = vxlan(BASE).unwrap();
        assert_eq!((spec.vni.number(), spec.port, spec.ttl, spec.learn, spec.udp_checksum), (42, 4789, 64, true, true));
        assert_eq!((spec.vlans, spec.bum_limit), (VlanMode::Access(VlanId::DEFAULT), Some(VxlanSpec::BUM_LIMIT)));
        let spec = vxlan(&format!("{BASE}group = \"239.1.1.1\"\ndevice = \"eth0\"")).unwrap();
        assert_eq!(spec.ttl, 1);
    }

    #[test]
    fn contradictions_are_named() {
        for (rest, part) in [
            ("vni = 16777216\nlocal = \"192.0.2.1\"", "16777216 is not a VNI: use a number from 0 to 16777215"),
            ("vni = -1\nlocal = \"192.0.2.1\"", "-1 is not a VNI"),
            ("vni = 1\nlocal = \"0.0.0.0\"", "which no host has"),
            ("vni = 1\nlocal = \"fe80::1\"", "link-local"),
        ] {
            let error = vxlan(rest).unwrap_err();
            assert!(error.contains(part), "{rest}: {error}");
        }
        for (rest, part) in [
            ("peers = [\"192.0.2.1\"]", "peer 192.0.2.1 of vxlan \"vx0\" is its own `local` address"),
            ("peers = [\"239.1.1.1\"]", "use `group` for multicast"),
            ("peers = [\"fd00::1\"]", "not of the same IP version"),
            ("peers = [\"::ffff:192.0.2.1\"]", "its own `local`"),
            ("group = \"192.0.2.9\"\ndevice = \"eth0\"", "192.0.2.9 of vxlan \"vx0\" is not a multicast address"),
            ("group = \"239.1.1.1\"", "no `device`"),
            ("device = \"eth0\"", "no `group`"),
            ("group = \"239.1.1.1\"\ndevice = \"eth0\"\npeers = [\"192.0.2.2\"]", "both `peers` and `group`"),
            ("group = \"ff05::1\"\ndevice = \"eth0\"", "not of the same IP version"),
            ("port = 0", "`port`"),
            ("ttl = 0", "`ttl`"),
            ("vlan = 1\ntrunk = [2]", "both `vlan` and `trunk`"),
            ("native = 2", "vxlan \"vx0\" has `native` but no `trunk`"),
            ("trunk = []", "empty `trunk`"),
            ("static = [{ mac = \"02:00:00:00:00:01\", peer = \"192.0.2.7\" }]", "not one of its peers"),
            ("peers = [\"192.0.2.7\"]\nstatic = [{ mac = \"ff:ff:ff:ff:ff:ff\", peer = \"192.0.2.7\" }]", "group address"),
            ("colour = 1", "unknown field"),
        ] {
            let error = vxlan(&format!("{BASE}{rest}")).unwrap_err();
            assert!(error.contains(part), "{rest}: {error}");
        }
    }

    #[test]
    fn a_tunnel_written_reads_back_the_same() {
        for rest in [
            "",
            "peers = [\"192.0.2.3\", \"192.0.2.2\", \"192.0.2.3\"]\nlearn = false\nbum-limit = 0",
            "group = \"239.1.1.1\"\ndevice = \"eth0\"\nttl = 9\nudp-checksum = false\nport = 8472",
            "trunk = [20, 10]\nnative = 1",
            "peers = [\"192.0.2.2\"]\nstatic = [{ mac = \"02:00:00:00:00:01\", peer = \"192.0.2.2\", ip = \"10.0.0.1\" }]",
        ] {
            let spec = vxlan(&format!("{BASE}{rest}")).unwrap();
            assert_eq!(toml::from_str::<VxlanSpec>(&toml::to_string(&spec).unwrap()).unwrap(), spec);
            assert_eq!(serde_json::from_str::<VxlanSpec>(&serde_json::to_string(&spec).unwrap()).unwrap(), spec);
        }
    }

    #[test]
    fn stations_come_and_go() {
        let spec = vxlan(&format!("{BASE}peers = [\"192.0.2.2\", \"192.0.2.3\"]")).unwrap();
        let mac = |number: u64| Mac::from_u64(0x0200_0000_0000 + number);
        let station = |number, peer: &str| StationSpec { mac: mac(number), peer: peer.parse().unwrap(), ip: None };
        let add = |stations: &[StationSpec]| VxlanChange { add_stations: stations.to_vec(), ..VxlanChange::default() };
        let spec = spec.changed(&add(&[station(1, "192.0.2.2"), station(2, "192.0.2.2")])).unwrap();
        let spec = spec.changed(&add(&[station(1, "192.0.2.3")])).unwrap();
        assert_eq!(spec.stations, [station(2, "192.0.2.2"), station(1, "192.0.2.3")]);
        assert!(spec.clone().changed(&add(&[station(3, "192.0.2.9")])).is_err(), "behind nobody");
        let remove = VxlanChange { remove_stations: vec![mac(2)], ..VxlanChange::default() };
        let spec = spec.changed(&remove).unwrap();
        assert_eq!(spec.stations, [station(1, "192.0.2.3")]);
        let error = spec.changed(&remove).unwrap_err().to_string();
        assert!(error.contains("has no static entry for 02:00:00:00:00:02"), "{error}");
    }

    #[test]
    fn peers_come_and_go() {
        let spec = vxlan(&format!("{BASE}peers = [\"192.0.2.2\"]")).unwrap();
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let change = VxlanChange {
            add_peers: vec![address("192.0.2.3")],
            remove_peers: vec![address("192.0.2.2")],
            bum_limit: Some(0),
            ..VxlanChange::default()
        };
        let changed = spec.clone().changed(&change).unwrap();
        assert_eq!((changed.reach.peers(), changed.bum_limit), (vec![address("192.0.2.3")], None));
        let error = changed.changed(&change).unwrap_err().to_string();
        assert!(error.contains("192.0.2.2 is no peer"), "{error}");
        let own = VxlanChange { add_peers: vec![spec.local], ..VxlanChange::default() };
        assert!(spec.changed(&own).is_err());
    }
}
