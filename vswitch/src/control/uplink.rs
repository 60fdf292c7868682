//! Uplinks and forwards: the router's outer sides.
//!
//! An uplink is a bridge with one port and a gateway, on the worker that routes. Its MAC address is the switch's own, so that the host's
//! stack, which hears the same frames, leaves them alone.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use packet::{Mac, VlanId};

use super::ports::port_vacancy;
use super::presence::Presence;
use super::{ControlError, Switch, sessions};
use crate::attach;
use crate::host::{self, HostUplink};
use api::{BridgeName, BridgeSpec, ControlFrames, Origin, PortName, SessionInfo, UplinkInfo, UplinkKind, UplinkSpec};
use plane::datapath::{BridgeId, BridgeSettings, GatewaySettings, PortId, PortSettings, Side, Translation};
use plane::device::Device;
use plane::worker::{Command, Stopped};

/// MAC addresses that an uplink remembers: those of the routers and servers of its link.
const MACS: u32 = 4096;
/// MTU of an uplink by the host's sockets: the longest IP packet, for nothing of it goes over a wire.
const HOST_MTU: u16 = 65_535;

/// MTU of an uplink that has no device.
const DOWN_MTU: u16 = 1500;

/// What an uplink's sessions come to. The uplink's thread has them, or the router's NAT.
pub(super) struct Counts {
    sessions: u64,
    ports_in_use: u64,
    /// Totals by name.
    pub(super) counters: BTreeMap<String, u64>,
}

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
    pub(super) presence: Presence,
    /// Addresses and gateways that DHCP gave.
    pub(super) lease: Option<(Vec<IpNet>, Vec<IpAddr>)>,
    /// The thread that has the host's sockets.
    pub(super) host: Option<HostUplink>,
}

impl Uplink {
    pub(super) fn addresses(&self) -> Vec<IpNet> {
        self.lease.as_ref().map_or_else(|| self.spec.addresses().to_vec(), |(addresses, _)| addresses.clone())
    }

    fn gateways(&self) -> Vec<IpAddr> {
        match (&self.lease, &self.spec.kind) {
            (Some((_, gateways)), _) => gateways.clone(),
            (None, UplinkKind::Link { gateways, .. }) => gateways.clone(),
            (None, UplinkKind::Host { .. }) => Vec::new(),
        }
    }
}

/// The bridge that an uplink is.
pub(super) fn bridge_settings(mtu: u16) -> BridgeSettings {
    BridgeSettings { mtu, ageing: 300, max_macs: MACS, control_frames: ControlFrames::Drop, ..BridgeSettings::default() }
}

/// What was opened for an uplink.
pub(super) struct Opened {
    pub(super) device: Box<dyn Device>,
    pub(super) mtu: u16,
    pub(super) features: Vec<String>,
    pub(super) host: Option<HostUplink>,
    pub(super) presence: Presence,
}

impl Switch {
    pub(super) fn make_uplink(&mut self, spec: UplinkSpec, origin: Origin) -> Result<(), ControlError> {
        self.check_addresses_of(&spec)?;
        let name = spec.name.clone();
        let mac = self.uplink_mac(&spec);
        let Opened { device, mtu, features, host, presence } = self.open_uplink(&spec, mac)?;
        let (bridge, port) = self.uplink_bridge(mtu)?;
        let settings = PortSettings::on(bridge);
        let router = self.plane.router()?;
        let attached = router.ask(|reply| Command::Attach(port, settings, device, reply))?;
        if let Err(error) = attached {
            router.tell(Command::RemoveBridge(bridge))?;
            return Err(ControlError::Poll(name, error));
        }
        self.plane.captures.add_uplink(port, &spec);
        self.connect_uplink(Uplink { bridge, port, spec, origin, mac, mtu, features, presence, lease: None, host })
    }

    /// An uplink without a device, so that bridges and forwards that name it have something to name.
    pub(super) fn add_uplink_down(
        &mut self,
        spec: UplinkSpec,
        origin: Origin,
        error: &ControlError,
    ) -> Result<(), ControlError> {
        let mac = self.uplink_mac(&spec);
        let mtu = DOWN_MTU;
        let (bridge, port) = self.uplink_bridge(mtu)?;
        let (presence, features) = (Presence::unusable(error), Vec::new());
        self.connect_uplink(Uplink { bridge, port, spec, origin, mac, mtu, features, presence, lease: None, host: None })
    }

    /// Makes the bridge of an uplink to be, and chooses its port.
    fn uplink_bridge(&self, mtu: u16) -> Result<(BridgeId, PortId), ControlError> {
        let (bridge, port) = (BridgeId(self.inventory.bridge_ids.vacancy()), port_vacancy(&self.inventory.port_ids)?);
        self.plane.router()?.tell(Command::SetBridge(bridge, bridge_settings(mtu)))?;
        Ok((bridge, port))
    }

    /// Takes on an uplink and tells workers and services of it; if it is refused, the uplink is gone again.
    fn connect_uplink(&mut self, uplink: Uplink) -> Result<(), ControlError> {
        let name = uplink.spec.name.clone();
        self.inventory.bridge_ids.insert(uplink.bridge.0, ());
        self.inventory.port_ids.insert(uplink.port.0, name.clone());
        self.inventory.put(uplink);
        // Bridges may have known it by another number.
        let told = self.refresh_uplink(&name).and_then(|()| self.refresh_gateways());
        self.follow_bridges();
        if told.is_err() {
            self.drop_uplink(&name)?;
        }
        self.tell_services();
        told
    }

    pub(super) fn change_uplink(&mut self, spec: UplinkSpec, origin: Origin) -> Result<(), ControlError> {
        let old = self.inventory.uplink(&spec.name)?;
        let same_device =
            old.spec.device() == spec.device() && old.mac == self.uplink_mac(&spec) && old.presence.state().has_device();
        let name = spec.name.clone();
        if old.spec == spec && matches!(spec.kind, UplinkKind::Link { .. }) && !old.presence.state().has_device() {
            return self.try_uplink(&name);
        }
        self.check_addresses_of(&spec)?;
        if same_device && old.spec.kind_name() == spec.kind_name() {
            if let Some(uplink) = self.inventory.find_mut::<Uplink>(&name) {
                // A DHCP client that goes on says nothing until something changes.
                uplink.lease = uplink.lease.take().filter(|_| spec.is_by_dhcp());
                (uplink.spec, uplink.origin) = (spec, origin);
            }
            self.refresh_uplink(&name)?;
            self.follow_bridges();
            self.tell_services();
            return Ok(());
        }
        let (old, old_origin) = (old.spec.clone(), old.origin);
        self.drop_uplink(&name)?;
        let Err(error) = self.make_uplink(spec, origin) else { return Ok(()) };
        if let Err(again) = self.make_uplink(old.clone(), old_origin) {
            tracing::error!("could not be taken back: {again}");
            self.add_uplink_down(old, old_origin, &again)?;
        }
        Err(error)
    }

    pub(super) fn drop_uplink(&mut self, name: &PortName) -> Result<(), ControlError> {
        let (bridge, port) = (self.inventory.uplink(name)?.bridge, self.inventory.uplink(name)?.port);
        let router = self.plane.router()?;
        router.ask(|reply| Command::Detach(port, reply))?;
        router.tell(Command::SetGateway(bridge, None))?;
        router.tell(Command::RemoveBridge(bridge))?;
        self.inventory.bridge_ids.remove(bridge.0);
        self.plane.captures.remove_interface(port);
        self.inventory.port_ids.remove(port.0);
        self.inventory.remove(name);
        self.tell_services();
        Ok(())
    }

    /// The uplinks by the host's sockets.
    pub(super) fn host_uplinks(&self) -> impl Iterator<Item = (&PortName, &HostUplink)> {
        self.inventory.named::<Uplink>().filter_map(|(name, uplink)| Some((name, uplink.host.as_ref()?)))
    }

    /// Tells the uplinks by the host's sockets which gateways lead to them, and what the links of their stations take.
    pub(super) fn tell_gateways(&self) -> Result<(), ControlError> {
        for (name, uplink) in self.inventory.named::<Uplink>() {
            if let Some(host) = &uplink.host {
                let behind = self.inventory.bridges.values().filter(|bridge| bridge.spec.uplink.as_ref() == Some(name));
                let gateways = behind.flat_map(|bridge| {
                    let mtu = self.gateway_mtu(&bridge.spec);
                    bridge.spec.addresses.iter().map(move |address| host::Gateway { address: *address, mtu })
                });
                host.set_gateways(gateways.collect())?;
            }
        }
        Ok(())
    }

    /// Tells the uplinks by the host's sockets which networks they are not to lead into. The control loop calls it at every `SURVEY`, for
    /// bridges come and go.
    pub(super) fn follow_bridges(&self) {
        let isolates = |uplink: &Uplink| uplink.spec.kind == UplinkKind::Host { isolate_bridges: true };
        let hosts: Vec<_> =
            self.inventory.all::<Uplink>().filter_map(|uplink| Some((uplink.host.as_ref()?, isolates(uplink)))).collect();
        if hosts.is_empty() {
            return;
        }
        let bridges = match attach::inner_bridges() {
            Ok(bridges) => bridges,
            // What they were told before stays.
            Err(error) => return tracing::warn!("the host's bridges are not known: {error}"),
        };
        for (host, isolates) in hosts {
            if let Err(error) = host.set_apart(if isolates { &bridges } else { &[] }) {
                tracing::warn!("{error}");
            }
        }
    }

    /// Tells the router again what every uplink is, as after a change of `[nat]`.
    pub(super) fn refresh_uplinks(&mut self) -> Result<(), ControlError> {
        let names: Vec<PortName> = self.inventory.names::<Uplink>().cloned().collect();
        names.iter().try_for_each(|name| self.refresh_uplink(name))
    }

    pub(super) fn refresh_uplink(&self, name: &PortName) -> Result<(), ControlError> {
        let uplink = self.inventory.uplink(name)?;
        let rules = self.ledger.file.nat.rules().map_err(|error| ControlError::Nat(error.to_string()))?;
        if let Some(host) = &uplink.host {
            host.set_filtering(rules.filtering)?;
        }
        let translation = match uplink.spec.kind {
            UplinkKind::Link { .. } => Translation::Nat(Box::new(rules)),
            UplinkKind::Host { .. } => Translation::Host(self.host_mac(name)),
        };
        let settings = GatewaySettings {
            mac: uplink.mac,
            vlan: VlanId::DEFAULT,
            mtu: uplink.mtu,
            addresses: uplink.addresses(),
            routes: Vec::new(),
            side: Side::Outside { gateways: uplink.gateways(), translation },
        };
        self.plane.router()?.tell(Command::SetGateway(uplink.bridge, Some(settings)))?;
        self.publish(name)
    }

    /// Tells the workers and uplinks again what every gateway is, as after a change of its uplink or of a tunnel.
    pub(super) fn refresh_gateways(&self) -> Result<(), ControlError> {
        for bridge in self.inventory.bridges.values() {
            let settings = self.gateway_settings(&bridge.spec)?;
            self.plane.tell_all(|| Command::SetGateway(bridge.id, settings.clone()))?;
        }
        self.tell_gateways()
    }

    /// The gateway of a bridge, as the datapath knows it.
    pub(super) fn gateway_settings(&self, spec: &BridgeSpec) -> Result<Option<GatewaySettings>, ControlError> {
        if spec.addresses.is_empty() {
            return Ok(None);
        }
        let uplink = spec.uplink.as_ref().map(|name| self.inventory.uplink(name)).transpose()?.map(|uplink| uplink.bridge);
        Ok(Some(GatewaySettings {
            mac: self.gateway_mac(&spec.name),
            vlan: spec.gateway_vlan,
            mtu: self.gateway_mtu(spec),
            addresses: spec.addresses.clone(),
            routes: spec.routes.iter().map(|route| (route.to, route.via)).collect(),
            side: Side::Inside { uplink, isolated: spec.isolated, dhcp: spec.dhcp },
        }))
    }

    /// The longest IP packet that all stations of a bridge can be sent.
    fn gateway_mtu(&self, spec: &BridgeSpec) -> u16 {
        self.inventory.tunnels_mtu(&spec.name).map_or(spec.mtu, |most| spec.mtu.min(most))
    }

    pub(super) fn open_uplink(&self, spec: &UplinkSpec, mac: Mac) -> Result<Opened, ControlError> {
        match &spec.kind {
            UplinkKind::Link { device, .. } => {
                let held = self.handover.queues_of(&spec.name);
                let attached = attach::attach_uplink(device.as_str(), &mac, &held);
                let attached = attached.map_err(|error| ControlError::AttachUplink(spec.name.clone(), error))?;
                let attach::UplinkAttachment { queues, mtu, features, end } = attached;
                // They are those of one worker.
                let device = queues.devices().pop().ok_or(Stopped)?;
                Ok(Opened { device, mtu, features, host: None, presence: Presence::at(end) })
            }
            UplinkKind::Host { .. } => {
                let settings = host::Settings {
                    name: spec.name.to_string(),
                    mac: self.host_mac(&spec.name),
                    router: mac,
                    mtu: HOST_MTU,
                    capacity: host::Capacity::default(),
                    sandbox: self.plane.sandbox.clone(),
                    inherited: Arc::clone(&self.handover.inherited),
                    holds: !self.life.started_up,
                };
                let (host, device) = host::open(settings)?;
                let presence = Presence::without_device();
                Ok(Opened { device, mtu: HOST_MTU, features: Vec::new(), host: Some(host), presence })
            }
        }
    }

    pub(super) fn gateway_mac(&self, bridge: &BridgeName) -> Mac {
        self.ledger.state.station_mac(&format!("gateway:{bridge}"))
    }

    fn uplink_mac(&self, spec: &UplinkSpec) -> Mac {
        let own = || self.ledger.state.station_mac(&format!("uplink:{}", spec.name));
        match spec.kind {
            UplinkKind::Link { mac: Some(mac), .. } => mac,
            _ => own(),
        }
    }

    /// The far end of an uplink by the host's sockets.
    fn host_mac(&self, uplink: &PortName) -> Mac {
        self.ledger.state.station_mac(&format!("host:{uplink}"))
    }

    pub(super) fn uplink_infos(&self) -> Result<Vec<UplinkInfo>, ControlError> {
        self.inventory.all::<Uplink>().map(|uplink| self.uplink_info(uplink)).collect()
    }

    fn uplink_info(&self, uplink: &Uplink) -> Result<UplinkInfo, ControlError> {
        let Counts { sessions, ports_in_use, counters } = self.uplink_counts(uplink)?;
        Ok(UplinkInfo {
            name: uplink.spec.name.clone(),
            kind: uplink.spec.kind_name(),
            device: uplink.spec.device().cloned(),
            mac: uplink.mac,
            mtu: uplink.mtu,
            addresses: uplink.addresses(),
            gateways: uplink.gateways(),
            dhcp: uplink.spec.is_by_dhcp(),
            sessions,
            ports_in_use,
            counters,
            state: uplink.presence.state().clone(),
            features: uplink.features.clone(),
            origin: uplink.origin,
        })
    }

    pub(super) fn uplink_counts(&self, uplink: &Uplink) -> Result<Counts, ControlError> {
        fn named(rows: &[(&str, u64)]) -> BTreeMap<String, u64> {
            rows.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
        }
        if let Some(host) = &uplink.host {
            let sessions = host.sessions()?.len() as u64;
            return Ok(Counts { sessions, ports_in_use: 0, counters: named(&host.counters()?.rows()) });
        }
        let counters = self.plane.router()?.ask(|reply| Command::NatCounters(uplink.bridge, reply))?;
        Ok(Counts { sessions: counters.sessions, ports_in_use: counters.ports_in_use, counters: named(&counters.rows()) })
    }

    pub(super) fn sessions(&self, name: Option<&PortName>) -> Result<Vec<SessionInfo>, ControlError> {
        let uplinks = match name {
            Some(name) => vec![self.inventory.uplink(name)?],
            None => self.inventory.all::<Uplink>().collect(),
        };
        let mut sessions = Vec::new();
        for uplink in uplinks {
            let name = &uplink.spec.name;
            match &uplink.host {
                Some(host) => sessions.extend(host.sessions()?.iter().map(|row| sessions::by_host(name, row))),
                None => {
                    let rows = self.plane.router()?.ask(|reply| Command::Sessions(uplink.bridge, reply))?;
                    sessions.extend(rows.iter().map(|row| sessions::by_nat(name, row)));
                }
            }
        }
        self.name_sessions(&mut sessions);
        Ok(sessions)
    }
}
