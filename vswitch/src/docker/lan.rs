//! Networks that are part of a LAN of the host's (`vswitch-lan`), as macvlan's are.
//!
//! All networks on an interface share a bridge without a gateway, on which the interface is a `link` port; VLANs tell them apart. The host
//! has no part in what a packet socket sends, so each network also has a TAP on the host, with the addresses that the host has in the
//! network's subnets: by it, and by a route to each container, the host and the containers reach each other. To all other stations the host is
//! where it was, for the link and the TAPs are protected from each other.
//!
//! A network without subnets (`--ipam-driver null`) has its containers' addresses from a DHCP server of the LAN: a client of the switch
//! ([`services`](crate::services)) asks it with the MAC address that the container is going to have, and renews the lease for as long as the
//! container has its place. The network's subnets are those that come with the addresses.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use super::{Docker, DockerError, Network, NetworkId};
use api::{BridgeName, InterfaceName, PortKind, PortName, PortPolicy, PortSpec, VlanMode};

/// The bridge of the networks on an interface, whose name is that of the link port too.
pub(super) fn bridge(parent: &InterfaceName) -> Result<BridgeName, DockerError> {
    let name = format!("lan-{parent}");
    name.parse().map_err(|_| {
        DockerError::Option(format!("the parent \"{parent}\" has too long a name: use an interface with at most 11 characters"))
    })
}

impl Docker {
    /// The networks that are part of LANs.
    pub fn lans(&self) -> impl Iterator<Item = (&NetworkId, &Network)> {
        self.networks.iter().filter(|(_, network)| network.options.parent.is_some())
    }

    /// The subnets of a network: its own, or those of its containers' leases.
    pub fn subnets_of(&self, id: &NetworkId) -> BTreeSet<IpNet> {
        let own = self.networks.get(id).into_iter().flat_map(|network| &network.subnets).map(|subnet| subnet.net);
        let leased = self.endpoints.values().filter(|endpoint| endpoint.network == *id && endpoint.lease.is_some());
        own.chain(leased.flat_map(|endpoint| &endpoint.addresses).map(IpNet::trunc)).collect()
    }

    /// The containers' addresses on a network whose devices are there.
    pub fn addresses_on(&self, network: &NetworkId) -> BTreeSet<IpAddr> {
        let joined = self.endpoints.values().filter(|endpoint| endpoint.network == *network && endpoint.sandbox.is_some());
        joined.flat_map(|endpoint| endpoint.addresses.iter().map(ipnet::IpNet::addr)).collect()
    }

    /// The ports of LANs that are no container's.
    pub(super) fn lan_ports(&self) -> impl Iterator<Item = PortSpec> {
        self.lans().flat_map(|(id, network)| {
            let host = self.hosts.get(id).and_then(|addresses| host_port(id, network, addresses));
            link_port(network).into_iter().chain(host)
        })
    }
}

fn link_port(network: &Network) -> Option<PortSpec> {
    let name = String::from(network.bridge.clone()).try_into().ok()?;
    port(network, name, PortKind::Link, network.options.parent.clone()?).checked().ok()
}

/// The port by which the host reaches the containers of a network.
fn host_port(id: &NetworkId, network: &Network, addresses: &BTreeSet<IpAddr>) -> Option<PortSpec> {
    let name = host_port_name(id)?;
    let ifname = (&name).into();
    let addresses = addresses.iter().map(|address| (*address).into()).collect();
    PortSpec { addresses, vlans: network.vlans(), ..port(network, name, PortKind::Tap, ifname) }.checked().ok()
}

/// What the host's port on a network, and its device, is called.
pub fn host_port_name(id: &NetworkId) -> Option<PortName> {
    format!("host-{}", id.short()).parse().ok()
}

fn port(network: &Network, name: PortName, kind: PortKind, ifname: InterfaceName) -> PortSpec {
    PortSpec {
        name,
        bridge: network.bridge.clone(),
        kind,
        netns: None,
        ifname,
        mac: None,
        addresses: Vec::new(),
        vlans: VlanMode::All,
        policy: PortPolicy { protected: true, ..PortPolicy::default() },
        offload: true,
    }
}
