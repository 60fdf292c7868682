//! What the switch *is*: every resource as it runs, by what it is called, and the numbers by which the workers know bridges and ports. Steps put
//! things in and take them out; every other part of the control side only looks.

use std::collections::BTreeMap;
use std::net::IpAddr;

use packet::Mac;

use super::ControlError;
use super::presence::Presence;
use super::uplink::Uplink;
use super::vxlan::TunnelPort;
use crate::config::Layout;
use api::{BridgeName, BridgeSpec, ForwardKey, ForwardSpec, Origin, PortName, PortSpec, Resource, ResourceKey};
use plane::datapath::{BridgeId, PortId, Slots};

/// Everything that runs.
#[derive(Default)]
pub(super) struct Inventory {
    pub(super) bridges: BTreeMap<BridgeName, Bridge>,
    pub(super) ports: BTreeMap<PortName, Port>,
    pub(super) uplinks: BTreeMap<PortName, Uplink>,
    pub(super) forwards: BTreeMap<ForwardKey, (ForwardSpec, Origin)>,
    pub(super) tunnels: BTreeMap<PortName, TunnelPort>,
    pub(super) bridge_ids: Slots<()>,
    pub(super) port_ids: Slots<PortName>,
}

/// A bridge as it runs.
pub(super) struct Bridge {
    pub(super) id: BridgeId,
    pub(super) spec: BridgeSpec,
    pub(super) origin: Origin,
}

/// A port as it runs.
pub(super) struct Port {
    pub(super) id: PortId,
    pub(super) spec: PortSpec,
    pub(super) origin: Origin,
    pub(super) mac: Option<Mac>,
    pub(super) features: Vec<String>,
    pub(super) presence: Presence,
    /// Whether its device was there before this start.
    pub(super) reopened: bool,
}

impl Inventory {
    pub(super) fn bridge(&self, name: &BridgeName) -> Result<&Bridge, ControlError> {
        let names = || self.bridges.keys().map(ToString::to_string).collect();
        self.bridges.get(name).ok_or_else(|| ControlError::NoBridge(name.clone(), names()))
    }

    pub(super) fn port(&self, name: &PortName) -> Result<&Port, ControlError> {
        let names = || self.ports.keys().map(ToString::to_string).collect();
        self.ports.get(name).ok_or_else(|| ControlError::NoPort(name.clone(), names()))
    }

    pub(super) fn uplink(&self, name: &PortName) -> Result<&Uplink, ControlError> {
        let names = || self.uplinks.keys().map(ToString::to_string).collect();
        self.uplinks.get(name).ok_or_else(|| ControlError::NoUplink(name.clone(), names()))
    }

    /// The address of a tunnel's peer.
    pub(super) fn remote(&self, name: &PortName, peer: u16) -> Option<IpAddr> {
        self.tunnels.get(name)?.live()?.shared.peers.address(peer)
    }

    pub(super) fn tunnel(&self, name: &PortName) -> Result<&TunnelPort, ControlError> {
        let names = || self.tunnels.keys().map(ToString::to_string).collect();
        self.tunnels.get(name).ok_or_else(|| ControlError::NoVxlan(name.clone(), names()))
    }

    pub(super) fn forward(&self, key: &ForwardKey) -> Result<&(ForwardSpec, Origin), ControlError> {
        let keys = || self.forwards.keys().map(ToString::to_string).collect();
        self.forwards.get(key).ok_or_else(|| ControlError::NoForward(key.clone(), keys()))
    }

    /// A resource as it runs, with who asked for it.
    pub(super) fn resource(&self, key: &ResourceKey) -> Result<(Resource, Origin), ControlError> {
        Ok(match key {
            ResourceKey::Uplink(name) => self.uplink(name).map(|uplink| (uplink.spec.clone().into(), uplink.origin))?,
            ResourceKey::Bridge(name) => self.bridge(name).map(|bridge| (bridge.spec.clone().into(), bridge.origin))?,
            ResourceKey::Vxlan(name) => self.tunnel(name).map(|tunnel| (tunnel.spec.clone().into(), tunnel.origin))?,
            ResourceKey::Port(name) => self.port(name).map(|port| (port.spec.clone().into(), port.origin))?,
            ResourceKey::Forward(key) => self.forward(key).map(|(spec, origin)| (spec.clone().into(), *origin))?,
        })
    }

    /// Everything that runs.
    pub(super) fn layout(&self) -> Layout {
        let uplinks = self.uplinks.values().map(|uplink| (uplink.spec.clone().into(), uplink.origin));
        let bridges = self.bridges.values().map(|bridge| (bridge.spec.clone().into(), bridge.origin));
        let tunnels = self.tunnels.values().map(|tunnel| (tunnel.spec.clone().into(), tunnel.origin));
        let ports = self.ports.values().map(|port| (port.spec.clone().into(), port.origin));
        let forwards = self.forwards.values().map(|(spec, origin)| (spec.clone().into(), *origin));
        uplinks.chain(bridges).chain(tunnels).chain(ports).chain(forwards).collect()
    }

    /// Whether a resource is there and has no device, or no sockets.
    pub(super) fn lacks_device(&self, key: &ResourceKey) -> bool {
        match key {
            ResourceKey::Uplink(name) => self.uplinks.get(name).is_some_and(|uplink| !uplink.presence.state().has_device()),
            ResourceKey::Port(name) => self.ports.get(name).is_some_and(|port| !port.presence.state().has_device()),
            ResourceKey::Vxlan(name) => self.tunnels.get(name).is_some_and(|tunnel| tunnel.live().is_none()),
            ResourceKey::Bridge(_) | ResourceKey::Forward(_) => false,
        }
    }

    /// The MTU that the devices of a bridge get: no more than its tunnels carry.
    pub(super) fn port_mtu(&self, bridge: &BridgeName) -> Result<u16, ControlError> {
        let own = self.bridge(bridge)?.spec.mtu;
        Ok(self.tunnels_mtu(bridge).map_or(own, |mtu| own.min(mtu)))
    }

    /// What the tunnels of a bridge carry, if it has any.
    pub(super) fn tunnels_mtu(&self, bridge: &BridgeName) -> Option<u16> {
        let on_it = self.tunnels.values().filter(|tunnel| tunnel.spec.bridge == *bridge);
        on_it.filter_map(|tunnel| Some(tunnel.live()?.mtu(&tunnel.spec))).min()
    }
}
