//! What the cluster comes to for this host: the other hosts of its networks, and their stations.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use cluster::key::PublicKey;
use cluster::record::{Host, Name};
use cluster::view::{Station, View};
use ipnet::IpNet;
use packet::{Mac, VlanId};
use serde::{Deserialize, Serialize};

use super::{ClusterSettings, GATEWAY};
use api::{BridgeName, BridgeSpec, OverlayName, PortName, Reach, StationSpec, VlanMode, VxlanSpec};

/// What the cluster comes to for this host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Elsewhere {
    /// Grows with each change.
    #[serde(skip)]
    pub generation: u64,
    /// Which cluster this is.
    pub cluster: Option<String>,
    /// The hosts, by name.
    pub hosts: BTreeMap<String, HostRow>,
    /// The networks that this host has a part in and whose VNI is known.
    pub networks: BTreeMap<OverlayName, NetworkTable>,
    /// Where the tunnels of hosts end that were heard to answer, and do not any more.
    #[serde(skip)]
    pub silent: BTreeSet<IpAddr>,
    /// Whether this host does not have the address that its `underlay` names.
    #[serde(skip)]
    pub is_absent: bool,
    /// All networks of the store, as it was last heard.
    #[serde(skip)]
    pub known: BTreeMap<OverlayName, KnownNetwork>,
}

/// A network as the host had it that began it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownNetwork {
    /// Its subnets.
    pub subnets: Vec<IpNet>,
    /// The gateways that it has there.
    pub gateways: Vec<IpAddr>,
    /// Whether it is encrypted.
    pub encrypt: bool,
}

/// A host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostRow {
    /// Where its tunnels end.
    pub underlay: IpAddr,
    /// The UDP port that they listen on.
    pub port: u16,
    /// The version of its vswitchd.
    pub version: String,
    /// The key by which others encrypt for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<PublicKey>,
    /// The UDP port at which it says whether it lives; none of older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gossip: Option<u16>,
    /// Which of its starts it is.
    #[serde(default)]
    pub boot: String,
}

impl From<&Host> for HostRow {
    fn from(host: &Host) -> Self {
        let Host { underlay, port, boot, program, key, gossip, .. } = host.clone();
        Self { underlay, port, version: program, key, gossip, boot }
    }
}

impl HostRow {
    /// Where it says whether it lives.
    pub(super) fn gossips_at(&self) -> Option<SocketAddr> {
        self.gossip.map(|port| SocketAddr::new(self.underlay, port))
    }
}

/// A network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkTable {
    /// Its number in frames.
    pub vni: u32,
    /// Whether it is encrypted.
    #[serde(default)]
    pub encrypt: bool,
    /// Where the tunnels of the other hosts end.
    pub peers: BTreeSet<IpAddr>,
    /// Of an encrypted one, the keys of those of them that have any.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub keys: BTreeMap<IpAddr, PublicKey>,
    /// The stations at other hosts.
    pub stations: BTreeMap<Mac, StationRow>,
    /// The blocks out of which this host gives addresses. They are not kept: only the store knows whether they are still this host's.
    #[serde(skip)]
    pub blocks: BTreeSet<IpNet>,
    /// The blocks of other hosts, which are not kept either.
    #[serde(skip)]
    pub others: BTreeMap<IpNet, String>,
}

impl NetworkTable {
    /// The addresses of stations at other hosts.
    pub fn addresses(&self) -> BTreeSet<IpAddr> {
        self.stations.values().flat_map(|row| &row.ips).copied().collect()
    }

    /// The addresses of those that have names, but for gateways, of which each host has its own.
    pub fn names(&self) -> BTreeMap<String, BTreeSet<IpAddr>> {
        let mut names: BTreeMap<String, BTreeSet<IpAddr>> = BTreeMap::new();
        for row in self.stations.values() {
            if let Some(name) = row.name.as_ref().filter(|name| *name != GATEWAY) {
                names.entry(name.clone()).or_default().extend(&row.ips);
            }
        }
        names
    }
}

/// A station at another host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StationRow {
    /// The host.
    pub host: String,
    /// Where that host's tunnels end.
    pub vtep: IpAddr,
    /// Its addresses.
    pub ips: BTreeSet<IpAddr>,
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

impl Elsewhere {
    /// What a view has told the tunnels. Of networks that it knows nothing of yet, and of hosts until the store is heard, what was known `before`.
    pub(super) fn of(view: &View, before: &Self, blocks: &BTreeMap<OverlayName, BTreeSet<IpNet>>) -> Self {
        let hosts: BTreeMap<String, HostRow> = view.hosts().map(|(name, host)| (name.to_string(), host.into())).collect();
        let keys: BTreeMap<IpAddr, Option<PublicKey>> = view.hosts().map(|(_, host)| (host.underlay, host.key)).collect();
        let network = |name: &Name| {
            let key: OverlayName = name.as_str().parse().ok()?;
            let table = before.networks.get(&key);
            let encrypt = view.is_encrypted(name).unwrap_or_else(|| table.is_some_and(|table| table.encrypt));
            // A peer outlives its record while nothing is withdrawn, and so does its key.
            let kept = |peer: &IpAddr| table.and_then(|table| table.keys.get(peer).copied());
            let keyed = |peer: IpAddr| Some((peer, keys.get(&peer).copied().unwrap_or_else(|| kept(&peer))?));
            let table = NetworkTable {
                vni: view.vni(name)?,
                encrypt,
                keys: view.peers(name).filter(|_| encrypt).filter_map(keyed).collect(),
                peers: view.peers(name).collect(),
                stations: view.told(name).map(|(mac, station)| (mac, StationRow::from(station))).collect(),
                blocks: blocks.get(&key).cloned().unwrap_or_default(),
                others: view.blocks_of_others(name).map(|(block, host)| (block, host.to_string())).collect(),
            };
            Some((key, table))
        };
        let known = |(name, network): (&Name, &cluster::record::Network)| {
            let (subnets, gateways) = (network.subnets.clone(), network.gateways.clone());
            Some((name.as_str().parse().ok()?, KnownNetwork { subnets, gateways, encrypt: network.encrypt }))
        };
        Self {
            generation: before.generation,
            cluster: view.id().map(str::to_owned).or_else(|| before.cluster.clone()),
            hosts: if hosts.is_empty() { before.hosts.clone() } else { hosts },
            networks: view.joined().filter_map(network).collect(),
            silent: BTreeSet::new(),
            is_absent: false,
            known: view.networks().filter_map(known).collect(),
        }
    }

    /// The name of the host whose tunnels end there.
    pub fn host_at(&self, underlay: IpAddr) -> Option<&str> {
        self.hosts.iter().find(|(_, row)| row.underlay == underlay).map(|(name, _)| name.as_str())
    }

    /// The tunnel of a bridge that is in an overlay network whose VNI is known. There is none if the one is to be encrypted and the other not; and an
    /// encrypted network has no peers without keys.
    pub fn tunnel(&self, settings: &ClusterSettings, bridge: &BridgeSpec) -> Option<VxlanSpec> {
        let table = self.networks.get(bridge.overlay.as_ref()?).filter(|table| table.encrypt == bridge.encrypt)?;
        let may_be = |peer: &IpAddr| VxlanSpec::may_have_peer(settings.underlay, *peer);
        let is_peer = |peer: &IpAddr| may_be(peer) && (!table.encrypt || table.keys.contains_key(peer));
        let peers: BTreeSet<IpAddr> = table.peers.iter().copied().filter(is_peer).collect();
        let known = table.stations.iter().filter(|(_, row)| peers.contains(&row.vtep));
        Some(VxlanSpec {
            name: tunnel_name(&bridge.name, table.vni)?,
            bridge: bridge.name.clone(),
            vni: table.vni.try_into().ok()?,
            local: settings.underlay,
            port: settings.port,
            stations: known.flat_map(|(mac, row)| specs(*mac, row, bridge)).collect(),
            reach: Reach::Peers(peers),
            // What hosts do not say of themselves, because the store is away, the tunnel finds out.
            learn: true,
            udp_checksum: true,
            ttl: 64,
            vlans: VlanMode::Access(VlanId::DEFAULT),
            bum_limit: Some(VxlanSpec::BUM_LIMIT),
            wireguard: table.encrypt.then_some(settings.wireguard_port),
            routed: None,
        })
    }
}

/// A station with each of its addresses, but for those that the bridge's own gateway has too: that one is nearer.
fn specs(mac: Mac, row: &StationRow, bridge: &BridgeSpec) -> Vec<StationSpec> {
    let of = |ip: Option<IpAddr>| StationSpec { mac, peer: row.vtep, ip };
    let ips: Vec<StationSpec> =
        row.ips.iter().filter(|ip| bridge.addresses.iter().all(|net| net.addr() != **ip)).map(|ip| of(Some(*ip))).collect();
    if ips.is_empty() { vec![of(None)] } else { ips }
}

/// The name of a bridge's tunnel: after the bridge, or after its VNI where that is too long.
fn tunnel_name(bridge: &BridgeName, vni: u32) -> Option<PortName> {
    format!("ov-{bridge}").parse().or_else(|_| format!("ov-{vni}").parse()).ok()
}

impl From<&Station> for StationRow {
    fn from(station: &Station) -> Self {
        let Station { host, vtep, ips, name } = station;
        Self { host: host.to_string(), vtep: *vtep, ips: ips.clone(), name: name.clone() }
    }
}

impl StationRow {
    /// As a view has it; none, if the host's name cannot be one.
    pub(super) fn station(&self) -> Option<Station> {
        let Self { host, vtep, ips, name } = self;
        Some(Station { host: host.parse().ok()?, vtep: *vtep, ips: ips.clone(), name: name.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tunnel_is_made_of_what_the_cluster_knows_without_this_host_and_its_gateway() {
        let settings = "store = \"etcd\"\nunderlay = \"192.0.2.1\"\nnode = \"a\"\nendpoints = [\"http://127.0.0.1:2379\"]";
        let settings = toml::from_str::<super::super::ClusterTable>(settings).unwrap().check().unwrap();
        let bridge = "name = \"a-bridge-of-15c\"\naddresses = [\"10.0.0.1/24\"]\noverlay = \"red\"";
        let bridge: BridgeSpec = toml::from_str(bridge).unwrap();
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let mac = |last| Mac([2, 0, 0, 0, 0, last]);
        let row = |vtep: &str, ips: &[&str]| StationRow {
            host: "b".to_owned(),
            vtep: ip(vtep),
            ips: ips.iter().map(|text| ip(text)).collect(),
            name: None,
        };
        let stations = BTreeMap::from([
            (mac(1), row("192.0.2.2", &["10.0.0.1"])),
            (mac(2), row("192.0.2.2", &["10.0.0.9", "fd00::9"])),
            (mac(3), row("192.0.2.9", &["10.0.0.8"])),
        ]);
        // Of what hosts say of themselves, one is this host and most are no host.
        let peers =
            ["192.0.2.1", "192.0.2.2", "2001:db8::1", "0.0.0.0", "224.0.0.9", "255.255.255.255", "::ffff:192.0.2.7", "fe80::1"];
        let peers = peers.map(ip).into();
        let table = NetworkTable { vni: 5000, peers, stations, ..NetworkTable::default() };
        let mut tables = Elsewhere::default();
        assert_eq!(tables.tunnel(&settings, &bridge), None, "the VNI is not known yet");
        tables.networks.insert("red".parse().unwrap(), table);
        let spec = tables.tunnel(&settings, &bridge).unwrap();
        assert_eq!((spec.name.as_str(), spec.vni.number(), spec.local), ("ov-5000", 5000, ip("192.0.2.1")));
        assert_eq!(spec.reach.peers(), [ip("192.0.2.2")]);
        let told: Vec<_> = spec.stations.iter().map(|station| (station.mac, station.ip)).collect();
        assert_eq!(told, [(mac(1), None), (mac(2), Some(ip("10.0.0.9"))), (mac(2), Some(ip("fd00::9")))]);
        let text = serde_json::to_string(&tables).unwrap();
        assert_eq!(serde_json::from_str::<Elsewhere>(&text).unwrap(), tables);
        // An encrypted one is only for hosts with keys, and for a bridge that wants it so.
        let mut encrypted = tables.clone();
        encrypted.networks.values_mut().for_each(|table| table.encrypt = true);
        assert_eq!(encrypted.tunnel(&settings, &bridge), None, "the bridge would have it in the clear");
        let bridge = BridgeSpec { encrypt: true, ..bridge };
        assert_eq!(tables.tunnel(&settings, &bridge), None, "the network is in the clear");
        let spec = encrypted.tunnel(&settings, &bridge).unwrap();
        assert_eq!((spec.reach.peers(), spec.stations.len(), spec.wireguard), (vec![], 0, Some(51_820)));
        let peer = ip("192.0.2.2");
        encrypted.networks.values_mut().for_each(|table| table.keys = [(peer, PublicKey([7; 32]))].into());
        let spec = encrypted.tunnel(&settings, &bridge).unwrap();
        assert_eq!((spec.reach.peers(), spec.stations.len()), (vec![peer], 3));
        let plain: BridgeSpec = toml::from_str("name = \"br0\"\noverlay = \"blue\"").unwrap();
        assert_eq!(tables.tunnel(&settings, &plain), None);
    }

    /// The store has lost all, and hosts put their records there again one after the other.
    #[test]
    fn a_key_stays_as_long_as_its_peer_and_is_followed_when_it_is_another() {
        use cluster::record::{CLUSTER, Host, Key, written};
        use cluster::store::{Entry, Listing, News};
        let host = |last: u8, key| Host {
            underlay: [192, 0, 2, last].into(),
            port: 4789,
            boot: "1".to_owned(),
            program: "x".to_owned(),
            key,
            gossip: None,
            idle: false,
        };
        let (red, peer): (Name, IpAddr) = ("red".parse().unwrap(), [192, 0, 2, 2].into());
        let [old, new] = [7, 8].map(|byte| PublicKey([byte; 32]));
        let mut view = View::new("a".parse().unwrap(), host(1, None), None, "c".to_owned());
        view.join(red.clone(), &[], true);
        view.recall(&red, 5000, [peer].into(), BTreeMap::new(), std::time::Duration::ZERO);
        let kept = NetworkTable { vni: 5000, encrypt: true, keys: [(peer, old)].into(), ..NetworkTable::default() };
        let before = Elsewhere { networks: [("red".parse().unwrap(), kept)].into(), ..Elsewhere::default() };
        let keys = |view: &View| {
            let table = Elsewhere::of(view, &before, &BTreeMap::new()).networks.into_values().next().unwrap();
            (table.encrypt, table.keys.into_values().collect::<Vec<_>>())
        };
        assert_eq!(keys(&view), (true, vec![old]));
        let mut hear = |key| {
            let entry = Entry { key: Key::Host("b".parse().unwrap()).to_string(), value: written(&host(2, key)), version: 1 };
            view.hear(CLUSTER, &News::All(Listing { entries: vec![entry], revision: 1 }), std::time::Duration::ZERO);
            keys(&view)
        };
        assert_eq!(hear(Some(new)), (true, vec![new]));
        assert_eq!(hear(None), (true, vec![]), "it cannot encrypt any more");
    }
}
