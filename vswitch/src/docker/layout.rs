//! What Docker asked for, as the kept state has it, and the uplinks, bridges, ports and forwards that it comes to. `config/merge.rs` puts these
//! beside those of `switch.toml`. Pure functions.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::ipam::Pools;
use super::{DockerSettings, Endpoint, EndpointId, Network, NetworkId};
use api::{BridgeName, BridgeSpec, ForwardSpec, OverlayName, PortName, PortSpec, UplinkKind, UplinkSpec};

/// Everything that Docker asked for and has not taken back. Kept in `state-dir`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct Docker {
    /// Its networks.
    pub networks: BTreeMap<NetworkId, Network>,
    /// Its containers' places on them.
    pub endpoints: BTreeMap<EndpointId, Endpoint>,
    /// The addresses that the host has in the subnets of networks on LANs, as they were last seen.
    pub hosts: BTreeMap<NetworkId, BTreeSet<IpAddr>>,
    /// Subnets and addresses that the driver chose (`--ipam-driver vswitch`).
    pub pools: Pools,
}

impl Docker {
    /// The bridges that it comes to, and the uplink that is made for them.
    pub fn bridges(&self, settings: &DockerSettings) -> (Vec<UplinkSpec>, Vec<BridgeSpec>) {
        let implied = implied_uplink();
        let default = settings.uplink.as_ref().or(implied.as_ref().map(|spec| &spec.name));
        // What contradicts itself was refused when Docker asked for it.
        let own = self.networks.values().filter_map(|network| network.own_bridge(default).ok().flatten());
        let mut bridges: BTreeMap<BridgeName, BridgeSpec> = BTreeMap::new();
        for spec in own {
            // Networks on one LAN share a bridge.
            let mtu = spec.mtu;
            let bridge = bridges.entry(spec.name.clone()).or_insert(spec);
            bridge.mtu = bridge.mtu.max(mtu);
        }
        let bridges: Vec<BridgeSpec> = bridges.into_values().collect();
        let uplinks =
            implied.into_iter().filter(|spec| bridges.iter().any(|bridge| bridge.uplink.as_ref() == Some(&spec.name)));
        let uplinks = uplinks.filter(|_| settings.uplink.is_none()).collect();
        (uplinks, bridges)
    }

    /// The ports that it comes to.
    pub fn ports(&self) -> impl Iterator<Item = PortSpec> {
        let containers = self.endpoints.values().filter_map(|endpoint| {
            let (network, sandbox) = (self.networks.get(&endpoint.network)?, endpoint.sandbox.as_ref()?);
            endpoint.port_spec(network, sandbox.path.clone()).ok()
        });
        containers.chain(self.lan_ports())
    }

    /// The forwards that it comes to, on the uplinks that `uplink_of` names for bridges.
    pub fn forwards(&self, uplink_of: impl Fn(&BridgeName) -> Option<PortName>) -> Vec<ForwardSpec> {
        let mut forwards = Vec::new();
        for endpoint in self.endpoints.values() {
            let uplink = self.networks.get(&endpoint.network).and_then(|network| uplink_of(&network.bridge));
            forwards.extend(uplink.iter().flat_map(|uplink| endpoint.forwards_at(uplink)));
        }
        forwards
    }

    /// The network that is this host's part of an overlay network.
    pub fn network_in(&self, overlay: &OverlayName) -> Option<&Network> {
        self.networks.values().find(|network| network.options.net.as_ref() == Some(overlay))
    }

    /// Takes back the addresses of containers that Docker has forgotten.
    pub fn forget_addresses(&mut self, gone: &[IpAddr]) {
        let is_in_use = |address: &&IpAddr| self.endpoints.values().any(|endpoint| endpoint.has(**address));
        let free: Vec<IpAddr> = gone.iter().filter(|address| !is_in_use(address)).copied().collect();
        free.into_iter().for_each(|address| self.pools.forget(address));
    }

    /// A network that is on this bridge.
    pub fn network_on(&self, bridge: &BridgeName) -> Option<&NetworkId> {
        self.networks.iter().find(|(_, network)| network.bridge == *bridge).map(|(id, _)| id)
    }
}

/// The uplink of networks for which neither Docker nor `switch.toml` names one.
fn implied_uplink() -> Option<UplinkSpec> {
    Some(UplinkSpec { name: "docker".parse().ok()?, kind: UplinkKind::Host { isolate_bridges: true } })
}
