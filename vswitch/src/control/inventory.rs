//! What the switch *is*: every resource as it runs, by what it is called, and the numbers by which the workers know bridges and ports. Steps put
//! things in and take them out; every other part of the control side only looks.
//!
//! Ports, tunnels and uplinks are kinds of one thing here, a [`Vport`]: they share one name space, and the workers number them alike. What holds
//! for one kind asks for it by type, as in `all::<Port>()`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use packet::Mac;

use super::ControlError;
use super::presence::Presence;
use super::uplink::Uplink;
use super::vxlan::TunnelPort;
use crate::config::Layout;
use api::{
    BridgeName, BridgeSpec, ForwardKey, ForwardSpec, Network, NetworkWarning, Origin, PortName, PortSpec, Resource, ResourceKey,
};
use plane::datapath::{BridgeId, PortId, Slots};

/// Everything that runs.
#[derive(Default)]
pub(super) struct Inventory {
    pub(super) bridges: BTreeMap<BridgeName, Bridge>,
    pub(super) forwards: BTreeMap<ForwardKey, (ForwardSpec, Origin)>,
    /// Whether a start left out forwards that are kept, because others had their ports.
    pub(super) lacks_forwards: bool,
    vports: BTreeMap<PortName, Vport>,
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
    /// Whether its guard against BPDUs has taken it down, until `set-port --up`.
    pub(super) tripped: bool,
    /// What random numbers of its impaired lines begin with, where no seed is given.
    pub(super) seed: u32,
}

/// What frames come and go by, of whichever kind.
pub(super) enum Vport {
    Port(Box<Port>),
    Tunnel(Box<TunnelPort>),
    Uplink(Box<Uplink>),
}

/// One kind of [`Vport`].
pub(super) trait VportKind: Sized + Into<Vport> {
    fn of(vport: &Vport) -> Option<&Self>;
    fn of_mut(vport: &mut Vport) -> Option<&mut Self>;
    /// Says that there is none of this name, and which there are.
    fn unknown(name: PortName, names: Vec<String>) -> ControlError;
}

macro_rules! vport_kinds {
    ($($kind:ident $type:ty, $unknown:ident;)*) => {$(
        impl VportKind for $type {
            fn of(vport: &Vport) -> Option<&Self> {
                match vport {
                    Vport::$kind(this) => Some(this),
                    _ => None,
                }
            }

            fn of_mut(vport: &mut Vport) -> Option<&mut Self> {
                match vport {
                    Vport::$kind(this) => Some(this),
                    _ => None,
                }
            }

            fn unknown(name: PortName, names: Vec<String>) -> ControlError {
                ControlError::$unknown(name, names)
            }
        }

        impl From<$type> for Vport {
            fn from(this: $type) -> Self {
                Self::$kind(Box::new(this))
            }
        }
    )*};
}

vport_kinds! {
    Port Port, NoPort;
    Tunnel TunnelPort, NoVxlan;
    Uplink Uplink, NoUplink;
}

impl Vport {
    pub(super) const fn name(&self) -> &PortName {
        match self {
            Self::Port(port) => &port.spec.name,
            Self::Tunnel(tunnel) => &tunnel.spec.name,
            Self::Uplink(uplink) => &uplink.spec.name,
        }
    }

    /// Its number; a tunnel that is not open has none.
    pub(super) fn id(&self) -> Option<PortId> {
        match self {
            Self::Port(port) => Some(port.id),
            Self::Tunnel(tunnel) => tunnel.live().map(|live| live.id),
            Self::Uplink(uplink) => Some(uplink.port),
        }
    }

    /// The bridge that it is on; an uplink is on none.
    pub(super) fn bridge(&self) -> Option<&BridgeName> {
        match self {
            Self::Port(port) => Some(&port.spec.bridge),
            Self::Tunnel(tunnel) => Some(&tunnel.spec.bridge),
            Self::Uplink(_) => None,
        }
    }

    /// What is known of its device; a tunnel has sockets instead.
    pub(super) fn presence(&self) -> Option<&Presence> {
        match self {
            Self::Port(port) => Some(&port.presence),
            Self::Tunnel(_) => None,
            Self::Uplink(uplink) => Some(&uplink.presence),
        }
    }

    pub(super) fn presence_mut(&mut self) -> Option<&mut Presence> {
        match self {
            Self::Port(port) => Some(&mut port.presence),
            Self::Tunnel(_) => None,
            Self::Uplink(uplink) => Some(&mut uplink.presence),
        }
    }

    /// Whether it has its device, or its sockets.
    fn has_device(&self) -> bool {
        match self {
            Self::Tunnel(tunnel) => tunnel.live().is_some(),
            Self::Port(_) | Self::Uplink(_) => self.presence().is_some_and(|presence| presence.state().has_device()),
        }
    }

    /// Which resource it is.
    fn key(&self) -> ResourceKey {
        match self {
            Self::Port(port) => ResourceKey::Port(port.spec.name.clone()),
            Self::Tunnel(tunnel) => ResourceKey::Vxlan(tunnel.spec.name.clone()),
            Self::Uplink(uplink) => ResourceKey::Uplink(uplink.spec.name.clone()),
        }
    }

    fn resource(&self) -> (Resource, Origin) {
        match self {
            Self::Port(port) => (port.spec.clone().into(), port.origin),
            Self::Tunnel(tunnel) => (tunnel.spec.clone().into(), tunnel.origin),
            Self::Uplink(uplink) => (uplink.spec.clone().into(), uplink.origin),
        }
    }
}

impl Inventory {
    /// Ports, tunnels and uplinks, by name.
    pub(super) fn vports(&self) -> impl Iterator<Item = &Vport> {
        self.vports.values()
    }

    pub(super) fn vports_mut(&mut self) -> impl Iterator<Item = &mut Vport> {
        self.vports.values_mut()
    }

    /// The port, tunnel or uplink of this name.
    pub(super) fn vport(&self, name: &PortName) -> Option<&Vport> {
        self.vports.get(name)
    }

    pub(super) fn vport_mut(&mut self, name: &PortName) -> Option<&mut Vport> {
        self.vports.get_mut(name)
    }

    /// All of one kind, by name.
    pub(super) fn all<'a, T: VportKind + 'a>(&'a self) -> impl Iterator<Item = &'a T> + Clone {
        self.vports.values().filter_map(T::of)
    }

    pub(super) fn all_mut<'a, T: VportKind + 'a>(&'a mut self) -> impl Iterator<Item = &'a mut T> {
        self.vports.values_mut().filter_map(T::of_mut)
    }

    pub(super) fn named<'a, T: VportKind + 'a>(&'a self) -> impl Iterator<Item = (&'a PortName, &'a T)> {
        self.vports.iter().filter_map(|(name, vport)| Some((name, T::of(vport)?)))
    }

    pub(super) fn names<'a, T: VportKind + 'a>(&'a self) -> impl Iterator<Item = &'a PortName> {
        self.named::<T>().map(|(name, _)| name)
    }

    /// What has this name, if it is of this kind.
    pub(super) fn find<T: VportKind>(&self, name: &PortName) -> Option<&T> {
        self.vports.get(name).and_then(T::of)
    }

    pub(super) fn find_mut<T: VportKind>(&mut self, name: &PortName) -> Option<&mut T> {
        self.vports.get_mut(name).and_then(T::of_mut)
    }

    pub(super) fn has<T: VportKind>(&self, name: &PortName) -> bool {
        self.find::<T>(name).is_some()
    }

    fn known<T: VportKind>(&self, name: &PortName) -> Result<&T, ControlError> {
        let names = || self.names::<T>().map(ToString::to_string).collect();
        self.find(name).ok_or_else(|| T::unknown(name.clone(), names()))
    }

    /// What the workers know by this number.
    pub(super) fn by_id(&self, id: PortId) -> Option<&Vport> {
        self.vports.get(self.name_of(id)?)
    }

    /// The name of what the workers know by this number; the receiver of a tunnel has the tunnel's.
    pub(super) fn name_of(&self, id: PortId) -> Option<&PortName> {
        self.port_ids.get(id.0)
    }

    /// The number of a port, tunnel or uplink.
    pub(super) fn port_id(&self, name: &PortName) -> Result<PortId, ControlError> {
        let names = || self.vports.keys().map(ToString::to_string).collect();
        let vport = self.vports.get(name).ok_or_else(|| ControlError::NoPort(name.clone(), names()))?;
        vport.id().ok_or_else(|| ControlError::TunnelDown(name.clone()))
    }

    /// Takes on a port, tunnel or uplink, in the place of one of this name.
    pub(super) fn put(&mut self, vport: impl Into<Vport>) {
        let vport = vport.into();
        self.vports.insert(vport.name().clone(), vport);
    }

    /// Takes out a port, tunnel or uplink.
    pub(super) fn remove(&mut self, name: &PortName) -> Option<Vport> {
        self.vports.remove(name)
    }

    /// Drops every uplink, with its threads.
    pub(super) fn clear_uplinks(&mut self) {
        self.vports.retain(|_, vport| !matches!(vport, Vport::Uplink(_)));
    }

    pub(super) fn bridge(&self, name: &BridgeName) -> Result<&Bridge, ControlError> {
        let names = || self.bridges.keys().map(ToString::to_string).collect();
        self.bridges.get(name).ok_or_else(|| ControlError::NoBridge(name.clone(), names()))
    }

    pub(super) fn port(&self, name: &PortName) -> Result<&Port, ControlError> {
        self.known(name)
    }

    pub(super) fn uplink(&self, name: &PortName) -> Result<&Uplink, ControlError> {
        self.known(name)
    }

    pub(super) fn tunnel(&self, name: &PortName) -> Result<&TunnelPort, ControlError> {
        self.known(name)
    }

    pub(super) fn forward(&self, key: &ForwardKey) -> Result<&(ForwardSpec, Origin), ControlError> {
        let keys = || self.forwards.keys().map(ToString::to_string).collect();
        self.forwards.get(key).ok_or_else(|| ControlError::NoForward(key.clone(), keys()))
    }

    /// The address of a tunnel's peer.
    pub(super) fn remote(&self, name: &PortName, peer: u16) -> Option<IpAddr> {
        self.find::<TunnelPort>(name)?.live()?.shared.peers.address(peer)
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

    /// What must hold between all that runs.
    pub(super) fn network(&self) -> Network<'_> {
        Network {
            bridges: self.bridges.values().map(|bridge| &bridge.spec).collect(),
            ports: self.all::<Port>().map(|port| &port.spec).collect(),
            uplinks: self.all::<Uplink>().map(|uplink| &uplink.spec).collect(),
            forwards: self.forwards.values().map(|(spec, _)| spec).collect(),
        }
    }

    /// What is most likely a mistake about what runs. Of a port that is given no MAC address its device has one.
    pub(super) fn warnings(&self) -> Vec<NetworkWarning> {
        self.network().warnings(|spec| spec.mac.or_else(|| self.find::<Port>(&spec.name)?.mac))
    }

    /// Everything that runs, to be changed or compared.
    pub(super) fn layout(&self) -> Layout {
        let bridges = self.bridges.values().map(|bridge| (bridge.spec.clone().into(), bridge.origin));
        let forwards = self.forwards.values().map(|(spec, origin)| (spec.clone().into(), *origin));
        bridges.chain(self.vports().map(Vport::resource)).chain(forwards).collect()
    }

    /// Whether a resource is there and has no device, or no sockets.
    pub(super) fn lacks_device(&self, key: &ResourceKey) -> bool {
        match key {
            ResourceKey::Uplink(name) | ResourceKey::Port(name) | ResourceKey::Vxlan(name) => {
                self.vport(name).is_some_and(|vport| vport.key() == *key && !vport.has_device())
            }
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
        let on_it = self.all::<TunnelPort>().filter(|tunnel| tunnel.spec.bridge == *bridge);
        on_it.filter_map(|tunnel| Some(tunnel.live()?.mtu(&tunnel.spec))).min()
    }
}
