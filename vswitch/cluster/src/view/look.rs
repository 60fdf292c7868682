//! What a view knows, to be looked at.

use std::net::IpAddr;

use packet::Mac;

use super::{Refusal, Station, View};
use crate::key::PublicKey;
use crate::record::{Endpoint, Host, Name, Network};

impl View {
    /// This host's key for encrypted networks.
    pub fn key(&self) -> Option<PublicKey> {
        self.host.key
    }

    /// The hosts that the store knows, and that take part.
    pub fn hosts(&self) -> impl Iterator<Item = (&Name, &Host)> {
        self.cluster.hosts.iter()
    }

    /// The hosts that the store knows, and that take no part.
    pub fn idle(&self) -> impl Iterator<Item = (&Name, &Host)> {
        self.cluster.records.iter().filter(|(name, _)| !self.cluster.hosts.contains_key(*name))
    }

    /// The networks that the store knows.
    pub fn networks(&self) -> impl Iterator<Item = (&Name, &Network)> {
        self.cluster.networks.iter()
    }

    /// The networks that this host has a part in.
    pub fn joined(&self) -> impl Iterator<Item = &Name> {
        self.segments.keys()
    }

    /// The hosts that have a part in a network, as the store knows it.
    pub fn members(&self, network: &Name) -> impl Iterator<Item = &Name> {
        self.segments.get(network).into_iter().flat_map(|segment| &segment.members)
    }

    /// The VNI of a network that this host has a part in, once it is known.
    pub fn vni(&self, network: &Name) -> Option<u32> {
        self.segments.get(network)?.vni
    }

    /// Why this host has no part in networks that it would have one in: the store has them otherwise.
    pub fn refused_networks(&self) -> impl Iterator<Item = (&Name, &Refusal)> {
        self.segments.iter().filter_map(|(name, segment)| Some((name, segment.refusal.as_ref()?)))
    }

    /// Why this host has no part in a network.
    pub fn network_refusal(&self, network: &Name) -> Option<&Refusal> {
        self.segments.get(network)?.refusal.as_ref()
    }

    /// Whether the store has a network as an encrypted one; `None`: it has none of that name, as far as is known.
    pub fn is_encrypted(&self, network: &Name) -> Option<bool> {
        self.cluster.networks.get(network).map(|network| network.encrypt)
    }

    /// A station that this host announces.
    pub fn ours(&self, network: &Name) -> impl Iterator<Item = (Mac, &Endpoint)> {
        let segment = self.segments.get(network).into_iter();
        segment.flat_map(|segment| segment.ours.iter().map(|(mac, endpoint)| (*mac, endpoint)))
    }

    /// The stations of a network: the host that announced each, its MAC address, and the rest.
    pub fn endpoints(&self, network: &Name) -> impl Iterator<Item = (&Name, Mac, &Endpoint)> {
        let segment = self.segments.get(network).into_iter();
        segment.flat_map(|segment| segment.endpoints.iter().map(|((mac, host), endpoint)| (host, *mac, endpoint)))
    }

    /// The stations at other hosts as the tunnels were told.
    pub fn told(&self, network: &Name) -> impl Iterator<Item = (Mac, &Station)> {
        let segment = self.segments.get(network).into_iter();
        segment.flat_map(|segment| segment.told.stations.iter().map(|(mac, station)| (*mac, station)))
    }

    /// The other hosts of a network as the tunnels were told.
    pub fn peers(&self, network: &Name) -> impl Iterator<Item = IpAddr> {
        self.segments.get(network).into_iter().flat_map(|segment| segment.told.peers.iter().copied())
    }
}
