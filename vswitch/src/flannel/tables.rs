//! What a network of flannel's comes to for this host: the gateway of its bridge, and the tunnel to the other hosts.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use cluster::flannel::lease::FlannelLease;
use cluster::flannel::member::FlannelTable;
use ipnet::{IpNet, Ipv4Net};
use packet::{Mac, VlanId};
use serde::{Deserialize, Serialize};

use super::FlannelSettings;
use api::{BridgeSpec, Network, PortName, Reach, RouteSpec, RoutedTunnel, StationSpec, VlanMode, VxlanSpec};

/// What is known of the network, and outlives the process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlannelTables {
    /// Which network it is, by the prefix of its keys.
    pub prefix: String,
    /// The MAC address of this host's end of the tunnel: chosen once.
    pub mac: Mac,
    /// The network, this host's subnet, and the other hosts.
    pub table: FlannelTable,
}

impl Default for FlannelTables {
    fn default() -> Self {
        let mut mac = rand::random::<[u8; 6]>();
        // One that is made up, and of one station.
        mac[0] = mac[0] & 0xfc | 2;
        Self { prefix: String::new(), mac: Mac(mac), table: FlannelTable::default() }
    }
}

impl FlannelTables {
    /// The same for the network with this prefix: of another, only the MAC address is this host's.
    pub(crate) fn of(self, prefix: &str) -> Self {
        let table = if self.prefix == prefix { self.table } else { FlannelTable::default() };
        Self { prefix: prefix.to_owned(), mac: self.mac, table }
    }

    /// A bridge as the one that has this host's subnet: its gateway is the subnet's first address. Without a subnet it has no gateway.
    pub(crate) fn given(&self, settings: &FlannelSettings, bridge: &BridgeSpec) -> BridgeSpec {
        let gateway = self.table.own.and_then(|own| Some(IpNet::V4(Ipv4Net::new(own.hosts().next()?, own.prefix_len()).ok()?)));
        BridgeSpec {
            addresses: gateway.into_iter().collect(),
            dhcp: settings.dhcp && gateway.is_some(),
            uplink: settings.uplink.clone().filter(|_| gateway.is_some()),
            ..bridge.clone()
        }
    }

    /// The tunnel to the other hosts, if this one has a subnet. A host whose subnet overlaps what another bridge or an uplink has is not reached.
    pub(crate) fn tunnel(&self, settings: &FlannelSettings, all: &Network<'_>) -> Option<VxlanSpec> {
        let (net, own) = (self.table.net.as_ref()?, self.table.own?);
        let mut hosts = self.reached(settings);
        if self.clash(settings, all).is_some() {
            hosts.retain(|subnet, _| all.overlap(IpNet::V4(*subnet), &settings.bridge).is_none());
        }
        let hop = |subnet: &Ipv4Net| IpAddr::V4(subnet.network());
        let station = |(subnet, host): (&Ipv4Net, &FlannelLease)| StationSpec {
            mac: host.mac,
            peer: host.host.into(),
            ip: Some(hop(subnet)),
        };
        let routed = RoutedTunnel {
            mac: self.mac,
            address: hop(&own),
            network: net.network.into(),
            routes: hosts.keys().map(|subnet| RouteSpec { to: (*subnet).into(), via: hop(subnet) }).collect(),
            mtu: net.mtu.map(|mtu| mtu.saturating_sub(vxlan::overhead(settings.underlay.into()))),
        };
        Some(VxlanSpec {
            name: tunnel_name(net.vni)?,
            bridge: settings.bridge.clone(),
            vni: net.vni.try_into().ok()?,
            local: settings.underlay.into(),
            port: net.port,
            stations: hosts.iter().map(station).collect(),
            reach: Reach::Peers(hosts.values().map(|host| host.host.into()).collect()),
            learn: false,
            udp_checksum: true,
            ttl: 64,
            vlans: VlanMode::Access(VlanId::DEFAULT),
            bum_limit: Some(VxlanSpec::BUM_LIMIT),
            wireguard: None,
            routed: Some(routed),
        })
    }

    /// The hosts to which packets can be sent: of two that say that they have one MAC address, the first. This host may have the address of one by
    /// now.
    fn reached(&self, settings: &FlannelSettings) -> BTreeMap<Ipv4Net, FlannelLease> {
        let mut ends: BTreeMap<Mac, Ipv4Addr> = BTreeMap::new();
        let mut hosts = self.table.hosts.clone();
        hosts.retain(|_, host| VxlanSpec::may_have_peer(settings.underlay.into(), host.host.into()));
        hosts.retain(|_, host| *ends.entry(host.mac).or_insert(host.host) == host.host);
        hosts
    }

    /// Whether nothing else has this host's subnet: the bridge that is to have it can.
    pub(crate) fn is_apart(&self, settings: &FlannelSettings, all: &Network<'_>) -> bool {
        self.table.own.is_none_or(|own| all.overlap(IpNet::V4(own), &settings.bridge).is_none())
    }

    /// Why this host can have no part in the whole network: another bridge or an uplink has a subnet of it.
    pub(crate) fn clash(&self, settings: &FlannelSettings, all: &Network<'_>) -> Option<String> {
        let network = IpNet::V4(self.table.net.as_ref()?.network);
        let overlap = all.overlap(network, &settings.bridge)?;
        Some(format!("{network} overlaps {overlap}: give that a subnet that is apart"))
    }

    /// The subnet of the host at an address.
    pub(crate) fn host_at(&self, underlay: IpAddr) -> Option<String> {
        self.table.hosts.iter().find(|(_, host)| host.host == underlay).map(|(subnet, _)| subnet.to_string())
    }
}

/// As flanneld's own, where that has room.
fn tunnel_name(vni: u32) -> Option<PortName> {
    format!("flannel.{vni}").parse().or_else(|_| format!("fl.{vni}").parse()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use cluster::flannel::net::FlannelNet;

    fn tables() -> (FlannelTables, FlannelSettings) {
        let text = "underlay = \"192.0.2.1\"\nbridge = \"br0\"\nendpoints = [\"http://127.0.0.1:2379\"]\ndhcp = true\nuplink = \"wan\"";
        let settings = toml::from_str::<super::super::FlannelSection>(text).unwrap().check().unwrap();
        let net = FlannelNet::read(r#"{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan","MTU":1400}}"#).unwrap();
        let host = |number: u8, mac: u8| FlannelLease { host: [192, 0, 2, number].into(), mac: Mac([2, 0, 0, 0, 0, mac]) };
        let hosts = [("10.244.6.0/24", host(2, 2)), ("10.244.7.0/24", host(3, 3)), ("10.244.8.0/24", host(4, 3))];
        let hosts = hosts.into_iter().map(|(subnet, host)| (subnet.parse().unwrap(), host)).collect();
        let table = FlannelTable { net: Some(net), own: "10.244.5.0/24".parse().ok(), hosts };
        (FlannelTables { prefix: "/x".to_owned(), table, ..FlannelTables::default() }, settings)
    }

    #[test]
    fn a_bridge_gets_the_subnet_and_a_tunnel_to_the_hosts() {
        let (tables, settings) = tables();
        let bare: BridgeSpec = toml::from_str("name = \"br0\"").unwrap();
        let bridge = tables.given(&settings, &bare);
        assert_eq!((bridge.addresses.len(), bridge.addresses[0].to_string().as_str()), (1, "10.244.5.1/24"));
        assert!(bridge.dhcp && bridge.uplink.is_some());
        let spec = tables.tunnel(&settings, &Network::default()).unwrap();
        assert_eq!((spec.name.as_str(), spec.vni.number(), spec.port), ("flannel.1", 1, 8472));
        let routed = spec.routed.unwrap();
        let routes: Vec<String> = routed.routes.iter().map(ToString::to_string).collect();
        // 192.0.2.4 says that it has the MAC address of 192.0.2.3.
        assert_eq!(routes, ["10.244.6.0/24 via 10.244.6.0", "10.244.7.0/24 via 10.244.7.0"]);
        assert_eq!((routed.mtu, routed.address.to_string().as_str(), spec.stations.len()), (Some(1350), "10.244.5.0", 2));
        assert_eq!(spec.reach.peers().len(), 2);
        let moved = FlannelSettings { underlay: [192, 0, 2, 2].into(), ..settings.clone() };
        assert_eq!(
            tables.tunnel(&moved, &Network::default()).unwrap().stations.len(),
            1,
            "this host has the address of one now"
        );
        assert_eq!(tunnel_name(16_777_215).unwrap().as_str(), "fl.16777215");
        assert_eq!(tables.host_at("192.0.2.3".parse().unwrap()).as_deref(), Some("10.244.7.0/24"));
        let none = FlannelTables { table: FlannelTable::default(), ..tables };
        assert_eq!((none.given(&settings, &bridge), none.tunnel(&settings, &Network::default())), (bare, None));
    }

    #[test]
    fn another_network_has_nothing_of_this_one_but_the_mac_address() {
        let (tables, _) = tables();
        assert_eq!(tables.clone().of("/x"), tables);
        let other = tables.clone().of("/y");
        assert_eq!((other.mac, other.table), (tables.mac, FlannelTable::default()));
        assert!(!tables.mac.is_group());
        let text = serde_json::to_string(&tables).unwrap();
        assert_eq!(serde_json::from_str::<FlannelTables>(&text).unwrap(), tables);
    }

    #[test]
    fn what_overlaps_the_network_is_named() {
        let (tables, settings) = tables();
        let bridge = |name: &str, address: &str| -> BridgeSpec {
            toml::from_str(&format!("name = \"{name}\"\naddresses = [\"{address}\"]")).unwrap()
        };
        let (own, other, apart) =
            (bridge("br0", "10.244.5.1/24"), bridge("br1", "10.244.200.1/24"), bridge("br2", "10.9.0.1/24"));
        let all = |bridges| Network { bridges, ..Network::default() };
        assert_eq!(tables.clash(&settings, &all(vec![&own, &apart])), None);
        let said = tables.clash(&settings, &all(vec![&own, &apart, &other])).unwrap();
        assert!(said.starts_with("10.244.0.0/16 overlaps 10.244.200.1/24 of bridge \"br1\""), "{said}");
        // What runs stays, but for the hosts that are in the way.
        let routes = |network: &Network<'_>| -> Vec<String> {
            let routed = tables.tunnel(&settings, network).and_then(|spec| spec.routed);
            routed.unwrap().routes.iter().map(|route| route.to.to_string()).collect()
        };
        let (far, near, taken) = (all(vec![&own, &other]), bridge("br3", "10.244.6.1/24"), bridge("br4", "10.244.5.9/30"));
        assert!(tables.is_apart(&settings, &far) && tables.is_apart(&settings, &all(vec![&own, &near])));
        assert_eq!(routes(&far), ["10.244.6.0/24", "10.244.7.0/24"]);
        assert_eq!(routes(&all(vec![&own, &near])), ["10.244.7.0/24"]);
        assert!(!tables.is_apart(&settings, &all(vec![&own, &taken])));
    }
}
