//! What the services know of a bridge with a gateway. The control side makes it (`control/services.rs`), and every service reads it.
//! Pure functions.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use packet::Mac;

use super::dns;
use api::{BridgeName, PortName};

/// One bridge with a gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The bridge.
    pub bridge: BridgeName,
    /// Its MTU.
    pub mtu: u16,
    /// The gateway's address on it.
    pub mac: Mac,
    /// The gateway's own addresses with their subnets, both versions; the order is the configuration's.
    pub addresses: Vec<IpNet>,
    /// Whether addresses are given out.
    pub dhcp: bool,
    /// Whether routers and prefixes are advertised: not where a container's runtime, such as Docker, configures the stations.
    pub advertises: bool,
    /// The bridge's ports.
    pub members: Vec<Member>,
    /// What is left to other hosts; `None`: the bridge is in no overlay network.
    pub elsewhere: Option<Box<OverlayShare>>,
}

/// What other hosts of an overlay network leave to this one, and what stations of theirs have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OverlayShare {
    /// The blocks out of which this host may give an address that no client of its own has yet.
    pub blocks: BTreeSet<IpNet>,
    /// The addresses of stations at other hosts.
    pub taken: BTreeSet<IpAddr>,
    /// Those of them that have names.
    pub names: BTreeMap<String, BTreeSet<IpAddr>>,
}

/// A port of the bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its name, which is its station's too.
    pub port: PortName,
    /// Other names of the station, which it may share with others.
    pub names: Vec<String>,
    /// The station's address on the link, if it is known beforehand.
    pub mac: Option<Mac>,
    /// The station's addresses, if they are configured.
    pub addresses: Vec<IpNet>,
}

impl Member {
    /// Every name of the station.
    pub(super) fn all_names(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.port.as_str()).chain(self.names.iter().map(String::as_str))
    }
}

/// The domain in which a bridge's stations have their names: `br0.internal`.
pub fn domain_of(bridge: &BridgeName) -> String {
    format!("{bridge}.{}", dns::ZONE)
}

impl Link {
    /// `br0.internal`.
    pub(super) fn domain(&self) -> String {
        domain_of(&self.bridge)
    }

    /// The subnet whose addresses are given out, with the gateway's.
    pub(super) fn dhcp4_subnet(&self) -> Option<Ipv4Net> {
        self.addresses.iter().find_map(|net| match net {
            IpNet::V4(net) => Some(*net).filter(|_| self.dhcp),
            IpNet::V6(_) => None,
        })
    }

    /// As [`Link::dhcp4_subnet`], for IPv6.
    pub(super) fn dhcp6_subnet(&self) -> Option<Ipv6Net> {
        self.addresses6().next().filter(|_| self.dhcp)
    }

    /// The gateway's IPv6 addresses, those aside that are good on the link alone.
    pub(super) fn addresses6(&self) -> impl Iterator<Item = Ipv6Net> {
        self.addresses.iter().filter_map(|net| match net {
            IpNet::V6(net) => Some(*net).filter(|net| !net.addr().is_unicast_link_local()),
            IpNet::V4(_) => None,
        })
    }

    /// The prefixes that are advertised.
    pub(super) fn prefixes(&self) -> Vec<Ipv6Net> {
        let mut prefixes: Vec<_> = self.addresses6().filter(|_| self.advertises).map(|net| net.trunc()).collect();
        prefixes.sort();
        prefixes.dedup();
        prefixes
    }

    /// Addresses that no client may be given: the gateway's and those of the stations.
    pub(super) fn taken(&self) -> HashSet<IpAddr> {
        let stations = self.members.iter().flat_map(|member| &member.addresses);
        let elsewhere = self.elsewhere.iter().flat_map(|elsewhere| &elsewhere.taken).copied();
        self.addresses.iter().chain(stations).map(IpNet::addr).chain(elsewhere).collect()
    }

    /// The stations of other hosts that have names.
    pub(super) fn named_elsewhere(&self) -> impl Iterator<Item = (&str, &BTreeSet<IpAddr>)> {
        let elsewhere = self.elsewhere.iter().flat_map(|elsewhere| &elsewhere.names);
        elsewhere.map(|(name, addresses)| (name.as_str(), addresses))
    }

    /// The blocks out of which addresses are given; `None`: all of the subnet.
    pub(super) fn blocks(&self) -> Option<&BTreeSet<IpNet>> {
        self.elsewhere.as_ref().map(|elsewhere| &elsewhere.blocks)
    }

    /// Whether an address is the gateway's.
    pub(super) fn is_own(&self, address: IpAddr) -> bool {
        address == IpAddr::V6(self.mac.link_local()) || self.addresses.iter().any(|net| net.addr() == address)
    }

    /// Whether stations are told the same about the network.
    pub(super) fn advertises_as(&self, other: &Self) -> bool {
        let servers = |link: &Self| link.addresses6().next();
        (self.mtu, self.mac, self.dhcp) == (other.mtu, other.mac, other.dhcp)
            && self.prefixes() == other.prefixes()
            && servers(self) == servers(other)
    }
}
