//! Uplinks and forwards: the router's outer sides.
//!
//! An uplink is a bridge with one port and a gateway, on the worker that routes. Its MAC address is the switch's own, so that the host's
//! stack, which hears the same frames, leaves them alone.

use std::net::IpAddr;

use ipnet::IpNet;
use packet::{Mac, VlanId};

use super::apply::port_vacancy;
use super::plan::Step;
use super::services::Change as Lease;
use super::{ControlError, Switch, forget};
use crate::api::{
    BridgeName, BridgeSpec, ControlFrames, ForwardInfo, ForwardKey, ForwardSpec, NeighborInfo, Origin, PortName, PortState,
    Reply, SessionInfo, UplinkAddress, UplinkInfo, UplinkKind, UplinkSpec, VlanMode,
};
use crate::attach;
use crate::config::Change;
use crate::datapath::{BridgeId, BridgeSettings, GatewaySettings, PortId, PortSettings, Side, Translation};
use crate::device::Device;
use crate::host::{self, HostUplink};
use crate::services::client::Event;
use crate::worker::{Command, Handle};

/// MAC addresses that an uplink remembers: those of the routers and servers of its link.
const MACS: u32 = 4096;
/// MTU of an uplink by the host's sockets: the longest IP packet, for nothing of it goes over a wire.
const HOST_MTU: u16 = 65_535;

/// A way to the rest of the world.
pub(super) struct Uplink {
    pub(super) bridge: BridgeId,
    pub(super) port: PortId,
    pub(super) spec: UplinkSpec,
    pub(super) origin: Origin,
    /// Its own MAC address.
    pub(super) mac: Mac,
    pub(super) mtu: u16,
    pub(super) features: Vec<String>,
    pub(super) state: PortState,
    /// Addresses and gateways that DHCP gave.
    lease: Option<(Vec<IpNet>, Vec<IpAddr>)>,
    /// The thread that has the host's sockets.
    host: Option<HostUplink>,
}

impl Uplink {
    fn addresses(&self) -> Vec<IpNet> {
        self.lease.as_ref().map_or_else(|| self.spec.addresses().to_vec(), |(addresses, _)| addresses.clone())
    }

    fn gateways(&self) -> Vec<IpAddr> {
        match (&self.lease, &self.spec.kind) {
            (Some((_, gateways)), _) => gateways.clone(),
            (None, UplinkKind::Link { gateways, .. }) => gateways.clone(),
            (None, UplinkKind::Host) => Vec::new(),
        }
    }
}

/// What was opened for an uplink.
struct Opened {
    device: Box<dyn Device>,
    mtu: u16,
    features: Vec<String>,
    host: Option<HostUplink>,
}

impl Switch {
    pub(super) fn add_uplink(&mut self, spec: UplinkSpec) -> Result<Reply, ControlError> {
        if self.uplinks.contains_key(&spec.name) {
            return Err(ControlError::UplinkExists(spec.name));
        }
        self.layout().network().check_uplink(&spec)?;
        let change = Change::Set(spec.clone());
        self.remember(
            |state| state.uplinks.insert(spec.name.clone(), change),
            vec![Step::AddUplink(spec.clone(), Origin::Runtime)],
        )
    }

    pub(super) fn delete_uplink(&mut self, name: &PortName) -> Result<Reply, ControlError> {
        self.uplink(name)?;
        if let Some(bridge) = self.bridges.values().find(|bridge| bridge.spec.uplink.as_ref() == Some(name)) {
            let advice = "remove the bridge first, or its `uplink` in switch.toml, then reload".to_owned();
            return Err(ControlError::UplinkInUse(name.clone(), format!("bridge \"{}\"", bridge.spec.name), advice));
        }
        if let Some(key) = self.forwards.keys().find(|key| key.uplink == *name) {
            let advice = format!("remove it first with del-forward {key}");
            return Err(ControlError::UplinkInUse(name.clone(), format!("forward {key}"), advice));
        }
        let in_file = self.file.uplinks.iter().any(|spec| spec.name == *name);
        self.remember(|state| forget(&mut state.uplinks, name, in_file), vec![Step::DeleteUplink(name.clone())])
    }

    pub(super) fn add_forward(&mut self, spec: ForwardSpec) -> Result<Reply, ControlError> {
        if let Some((old, _)) = self.forwards.get(&spec.key) {
            return Err(ControlError::ForwardExists(spec.key, old.to));
        }
        self.layout().network().check_forward(&spec)?;
        let change = Change::Set(spec.clone());
        self.remember(
            |state| state.forwards.insert(spec.key.clone(), change),
            vec![Step::AddForward(spec.clone(), Origin::Runtime)],
        )
    }

    pub(super) fn delete_forward(&mut self, key: &ForwardKey) -> Result<Reply, ControlError> {
        // Who does not say which IP version means the one that there is.
        let other = ForwardKey { v6: true, ..key.clone() };
        let key = if self.forwards.contains_key(key) || !self.forwards.contains_key(&other) { key } else { &other };
        if !self.forwards.contains_key(key) {
            return Err(ControlError::NoForward(key.clone(), self.forwards.keys().map(ToString::to_string).collect()));
        }
        let in_file = self.file.forwards.iter().any(|spec| spec.key == *key);
        self.remember(|state| forget(&mut state.forwards, key, in_file), vec![Step::DeleteForward(key.clone())])
    }

    /// Whether no forward goes to a station of the bridge.
    pub(super) fn check_unforwarded(&self, name: &BridgeName) -> Result<(), ControlError> {
        let nets = &self.bridge(name)?.spec.addresses;
        let to_it = |spec: &&ForwardSpec| nets.iter().any(|net| net.contains(&spec.to.ip()));
        match self.forwards.values().map(|(spec, _)| spec).find(to_it) {
            Some(spec) => Err(ControlError::ForwardToBridge(name.clone(), spec.key.clone())),
            None => Ok(()),
        }
    }

    pub(super) fn make_uplink(&mut self, spec: UplinkSpec, origin: Origin) -> Result<Step, ControlError> {
        let name = spec.name.clone();
        let mac = self.uplink_mac(&spec);
        let (bridge, port) = (BridgeId(self.bridge_ids.vacancy()), port_vacancy(&self.port_ids)?);
        let opened = self.open_uplink(&spec, mac)?;
        let mtu = opened.mtu;
        let router = self.router()?;
        router.tell(Command::SetBridge(
            bridge,
            BridgeSettings { mtu, ageing: 300, max_macs: MACS, control_frames: ControlFrames::Drop },
        ))?;
        let settings = PortSettings { bridge, vlans: VlanMode::All, guard: None, broadcast_limit: None, tunnel: None };
        let attached = router.ask(|reply| Command::Attach(port, settings, opened.device, reply))?;
        if let Err(error) = attached {
            router.tell(Command::RemoveBridge(bridge))?;
            return Err(ControlError::Poll(name, error));
        }
        self.bridge_ids.insert(bridge.0, ());
        self.port_ids.insert(port.0, name.clone());
        let (features, host) = (opened.features, opened.host);
        let uplink = Uplink { bridge, port, spec, origin, mac, mtu, features, state: PortState::Up, lease: None, host };
        self.captures.add_uplink(port, &uplink.spec);
        self.uplinks.insert(name.clone(), uplink);
        self.refresh_uplink(&name)?;
        self.tell_gateways()?;
        self.tell_services();
        Ok(Step::DeleteUplink(name))
    }

    pub(super) fn change_uplink(&mut self, spec: UplinkSpec, origin: Origin) -> Result<Step, ControlError> {
        let old = self.uplink(&spec.name)?;
        let inverse = Step::SetUplink(old.spec.clone(), old.origin);
        let same_device = old.spec.device() == spec.device() && old.mac == self.uplink_mac(&spec) && old.state == PortState::Up;
        let name = spec.name.clone();
        if same_device && old.spec.kind_name() == spec.kind_name() {
            if let Some(uplink) = self.uplinks.get_mut(&name) {
                (uplink.spec, uplink.origin, uplink.lease) = (spec, origin, None);
            }
            self.refresh_uplink(&name)?;
            self.tell_services();
            return Ok(inverse);
        }
        let Step::AddUplink(old, old_origin) = self.drop_uplink(&name)? else { return Ok(inverse) };
        if let Err(error) = self.make_uplink(spec, origin) {
            if let Err(again) = self.make_uplink(old, old_origin) {
                tracing::error!("could not be taken back: {again}");
            }
            return Err(error);
        }
        self.refresh_gateways()?;
        Ok(inverse)
    }

    pub(super) fn drop_uplink(&mut self, name: &PortName) -> Result<Step, ControlError> {
        let (bridge, port) = (self.uplink(name)?.bridge, self.uplink(name)?.port);
        let router = self.router()?;
        router.ask(|reply| Command::Detach(port, reply))?;
        router.tell(Command::SetGateway(bridge, None))?;
        router.tell(Command::RemoveBridge(bridge))?;
        self.bridge_ids.remove(bridge.0);
        self.port_ids.remove(port.0);
        let uplink = self.uplinks.remove(name).ok_or_else(|| ControlError::NoUplink(name.clone(), Vec::new()))?;
        self.tell_services();
        Ok(Step::AddUplink(uplink.spec, uplink.origin))
    }

    pub(super) fn make_forward(&mut self, spec: ForwardSpec, origin: Origin) -> Result<Step, ControlError> {
        let key = spec.key.clone();
        let before = self.forwards.insert(key.clone(), (spec, origin));
        if let Err(error) = self.publish(&key.uplink) {
            match before {
                Some(before) => self.forwards.insert(key, before),
                None => self.forwards.remove(&key),
            };
            return Err(error);
        }
        Ok(match before {
            Some((spec, origin)) => Step::AddForward(spec, origin),
            None => Step::DeleteForward(key),
        })
    }

    pub(super) fn drop_forward(&mut self, key: &ForwardKey) -> Result<Step, ControlError> {
        let (spec, origin) = self.forwards.remove(key).ok_or_else(|| ControlError::NoForward(key.clone(), Vec::new()))?;
        self.publish(&key.uplink)?;
        Ok(Step::AddForward(spec, origin))
    }

    /// Tells an uplink all its forwards.
    fn publish(&self, name: &PortName) -> Result<(), ControlError> {
        let uplink = self.uplink(name)?;
        let specs = self.forwards.values().map(|(spec, _)| spec).filter(|spec| spec.key.uplink == *name);
        let rules = specs.map(ForwardSpec::rule).collect::<Result<Vec<_>, _>>()?;
        match &uplink.host {
            Some(host) => Ok(host.set_forwards(rules.into_iter().map(|rule| host::Forward { rule, listen: None }).collect())?),
            None => Ok(self.router()?.tell(Command::SetForwards(uplink.bridge, rules))?),
        }
    }

    /// Tells the uplinks by the host's sockets which gateways lead to them.
    pub(super) fn tell_gateways(&self) -> Result<(), ControlError> {
        for (name, uplink) in &self.uplinks {
            if let Some(host) = &uplink.host {
                let behind = self.bridges.values().filter(|bridge| bridge.spec.uplink.as_ref() == Some(name));
                host.set_gateways(behind.flat_map(|bridge| bridge.spec.addresses.clone()).collect())?;
            }
        }
        Ok(())
    }

    /// Tells the router again what every uplink is, as after a change of `[nat]`.
    pub(super) fn refresh_uplinks(&mut self) -> Result<(), ControlError> {
        let names: Vec<PortName> = self.uplinks.keys().cloned().collect();
        names.iter().try_for_each(|name| self.refresh_uplink(name))
    }

    fn refresh_uplink(&self, name: &PortName) -> Result<(), ControlError> {
        let uplink = self.uplink(name)?;
        let rules = self.file.nat.rules().map_err(|error| ControlError::Nat(error.to_string()))?;
        let translation = match uplink.spec.kind {
            UplinkKind::Link { .. } => Translation::Nat(Box::new(rules)),
            UplinkKind::Host => Translation::Host(self.host_mac(name)),
        };
        let settings = GatewaySettings {
            mac: uplink.mac,
            vlan: VlanId::DEFAULT,
            mtu: uplink.mtu,
            addresses: uplink.addresses(),
            side: Side::Outside { gateways: uplink.gateways(), translation },
        };
        self.router()?.tell(Command::SetGateway(uplink.bridge, Some(settings)))?;
        self.publish(name)
    }

    /// Tells the workers again what every gateway is, as after a change of its uplink or of a tunnel.
    pub(super) fn refresh_gateways(&self) -> Result<(), ControlError> {
        for bridge in self.bridges.values() {
            let settings = self.gateway_settings(&bridge.spec)?;
            self.tell_all(|| Command::SetGateway(bridge.id, settings.clone()))?;
        }
        Ok(())
    }

    /// The gateway of a bridge, as the datapath knows it.
    pub(super) fn gateway_settings(&self, spec: &BridgeSpec) -> Result<Option<GatewaySettings>, ControlError> {
        if spec.addresses.is_empty() {
            return Ok(None);
        }
        let uplink = spec.uplink.as_ref().map(|name| self.uplink(name)).transpose()?.map(|uplink| uplink.bridge);
        Ok(Some(GatewaySettings {
            mac: self.gateway_mac(&spec.name),
            vlan: spec.gateway_vlan,
            mtu: self.tunnels_mtu(&spec.name).map_or(spec.mtu, |most| spec.mtu.min(most)),
            addresses: spec.addresses.clone(),
            side: Side::Inside { uplink, isolated: spec.isolated },
        }))
    }

    /// Takes note of what DHCP said about the address of an uplink.
    pub(super) fn change_lease(&mut self, (name, event): Lease) {
        let Some(uplink) = self.uplinks.get_mut(&name) else { return };
        let mut taken = None;
        uplink.lease = match event {
            Event::Bound(terms) => {
                let net = IpNet::V4(terms.address);
                let gateways = terms.routers.first().copied().map(IpAddr::V4).into_iter().collect();
                let overlaps = |bridge: &super::Bridge| {
                    bridge.spec.addresses.iter().any(|own| own.contains(&net.network()) || net.contains(&own.network()))
                };
                taken = self.bridges.values().find(|bridge| overlaps(bridge)).map(|bridge| bridge.spec.name.clone());
                tracing::info!(uplink = %name, "DHCP gave {net}");
                Some((vec![net], gateways)).filter(|_| taken.is_none())
            }
            Event::Lost => {
                tracing::warn!(uplink = %name, "its DHCP lease is over: it has no address now");
                None
            }
        };
        if let Some(bridge) = taken {
            tracing::error!(uplink = %name, "its address by DHCP is in a subnet of bridge \"{bridge}\": give the bridge another");
        }
        if let Err(error) = self.refresh_uplink(&name) {
            tracing::error!(uplink = %name, "{error}");
        }
    }

    fn open_uplink(&self, spec: &UplinkSpec, mac: Mac) -> Result<Opened, ControlError> {
        match &spec.kind {
            UplinkKind::Link { device, .. } => {
                let attached = attach::attach_uplink(device.as_str(), mac);
                let attached = attached.map_err(|error| ControlError::AttachUplink(spec.name.clone(), error))?;
                let attach::UplinkAttachment { device, mtu, features } = attached;
                Ok(Opened { device, mtu, features, host: None })
            }
            UplinkKind::Host => {
                let settings = host::Settings {
                    name: spec.name.to_string(),
                    mac: self.host_mac(&spec.name),
                    router: mac,
                    mtu: HOST_MTU,
                    capacity: host::Capacity::default(),
                };
                let (host, device) = host::open(settings)?;
                Ok(Opened { device, mtu: HOST_MTU, features: Vec::new(), host: Some(host) })
            }
        }
    }

    pub(super) fn gateway_mac(&self, bridge: &BridgeName) -> Mac {
        self.state.station_mac(&format!("gateway:{bridge}"))
    }

    fn uplink_mac(&self, spec: &UplinkSpec) -> Mac {
        let own = || self.state.station_mac(&format!("uplink:{}", spec.name));
        match spec.kind {
            UplinkKind::Link { mac: Some(mac), .. } => mac,
            _ => own(),
        }
    }

    /// The far end of an uplink by the host's sockets.
    fn host_mac(&self, uplink: &PortName) -> Mac {
        self.state.station_mac(&format!("host:{uplink}"))
    }

    pub(super) fn uplink(&self, name: &PortName) -> Result<&Uplink, ControlError> {
        let names = || self.uplinks.keys().map(ToString::to_string).collect();
        self.uplinks.get(name).ok_or_else(|| ControlError::NoUplink(name.clone(), names()))
    }

    /// The worker that routes.
    fn router(&self) -> Result<&Handle, ControlError> {
        self.workers.first().ok_or(ControlError::Stopped(crate::worker::Stopped))
    }

    pub(super) fn uplink_infos(&self) -> Result<Vec<UplinkInfo>, ControlError> {
        self.uplinks.values().map(|uplink| self.uplink_info(uplink)).collect()
    }

    fn uplink_info(&self, uplink: &Uplink) -> Result<UplinkInfo, ControlError> {
        let (sessions, ports_in_use) = match &uplink.host {
            Some(host) => (host.sessions()?.len() as u64, 0),
            None => {
                let counters = self.router()?.ask(|reply| Command::Sessions(uplink.bridge, reply))?.counters;
                (counters.sessions, counters.ports_in_use)
            }
        };
        Ok(UplinkInfo {
            name: uplink.spec.name.clone(),
            kind: uplink.spec.kind_name(),
            device: uplink.spec.device().cloned(),
            mac: uplink.mac,
            mtu: uplink.mtu,
            addresses: uplink.addresses(),
            gateways: uplink.gateways(),
            dhcp: matches!(uplink.spec.kind, UplinkKind::Link { address: UplinkAddress::Dhcp, .. }),
            sessions,
            ports_in_use,
            state: uplink.state.clone(),
            features: uplink.features.clone(),
            origin: uplink.origin,
        })
    }

    pub(super) fn forward_infos(&self) -> Vec<ForwardInfo> {
        self.forwards.values().map(|(spec, origin)| ForwardInfo::new(spec, *origin)).collect()
    }

    pub(super) fn sessions(&self, name: Option<&PortName>) -> Result<Vec<SessionInfo>, ControlError> {
        let uplinks = match name {
            Some(name) => vec![self.uplink(name)?],
            None => self.uplinks.values().collect(),
        };
        let mut sessions = Vec::new();
        for uplink in uplinks {
            let name = &uplink.spec.name;
            match &uplink.host {
                Some(host) => sessions.extend(host.sessions()?.iter().map(|row| SessionInfo::by_host(name, row))),
                None => {
                    let listing = self.router()?.ask(|reply| Command::Sessions(uplink.bridge, reply))?;
                    sessions.extend(listing.rows.iter().map(|row| SessionInfo::by_nat(name, row)));
                }
            }
        }
        Ok(sessions)
    }

    pub(super) fn neighbors(&self, name: &BridgeName) -> Result<Vec<NeighborInfo>, ControlError> {
        let bridge = self.bridge(name)?.id;
        let mut rows = self.router()?.ask(|reply| Command::Neighbors(bridge, reply))?;
        rows.sort_by_key(|row| row.address);
        let info = |row: &crate::datapath::NeighborRow| NeighborInfo {
            address: row.address,
            mac: row.mac,
            age_seconds: row.age.into(),
        };
        Ok(rows.iter().map(info).collect())
    }
}
