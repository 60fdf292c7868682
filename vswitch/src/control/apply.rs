//! Steps on the kernel, the workers and the kept state, and their inverses.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use ipnet::IpNet;

use super::plan::{self, Step};
use super::{Bridge, ControlError, Port, Switch};
use crate::api::{BridgeName, BridgeSpec, Netns, Origin, PortKind, PortName, PortSpec, PortState, check_ipv6_mtu};
use crate::attach::{self, Attachment, Plan};
use crate::config::Layout;
use crate::datapath::{BridgeId, BridgeSettings, Guard, Limiter, PortId, PortSettings, Slots};
use crate::worker::{Command, Stopped};

impl Switch {
    /// Carries out steps in order. If one fails, those before it are taken back. Returns what would take all of them back.
    pub(super) fn apply(&mut self, steps: Vec<Step>) -> Result<Vec<Step>, ControlError> {
        let mut undo = Vec::new();
        for step in steps {
            match self.perform(step) {
                Ok(inverse) => undo.push(inverse),
                Err(error) => {
                    self.take_back(undo);
                    return Err(error);
                }
            }
        }
        Ok(undo)
    }

    pub(super) fn take_back(&mut self, undo: Vec<Step>) {
        for step in undo.into_iter().rev() {
            if let Err(error) = self.perform(step) {
                tracing::error!("could not be taken back: {error}");
            }
        }
    }

    /// Carries out everything at a start. Every problem of the file is found, not only the first; what is wrong with ports
    /// that were added at run time becomes a note.
    pub(super) fn build(&mut self, wanted: Layout) -> Result<Vec<String>, ControlError> {
        let (mut errors, mut notes, mut undo) = (Vec::new(), Vec::new(), Vec::new());
        let steps = plan::steps(&Layout::default(), &wanted);
        let left: BTreeSet<PortName> = self.state.made.ports.keys().cloned().collect();
        self.journal_all(wanted.ports.into_values().map(|(spec, _)| spec))?;
        for step in steps {
            match (self.perform(step.clone()), step) {
                (Ok(inverse), _) => undo.push(inverse),
                (Err(error), Step::AddForward(_, Origin::Runtime | Origin::Docker)) => {
                    notes.push(format!("{error} (added at run time; it is not published now)"));
                }
                (Err(error), Step::AddUplink(spec, origin @ (Origin::Runtime | Origin::Docker))) => {
                    notes.push(format!("{error} (added at run time; it stays down)"));
                    errors.extend(self.add_uplink_down(spec, origin, &error).err());
                }
                (Err(error), Step::AddPort(spec, origin @ (Origin::Runtime | Origin::Docker))) => {
                    notes.push(format!("{error} (added at run time; it stays down)"));
                    self.add_down(spec, origin, &error);
                }
                (Err(error), Step::AddVxlan(spec, Origin::Runtime)) => {
                    notes.push(format!("{error} (added at run time; it stays down)"));
                    self.add_vxlan_down(spec, &error);
                }
                (Err(error), _) => errors.push(error),
            }
        }
        let is_up = |name: &PortName| self.ports.get(name).is_some_and(|port| port.state == PortState::Up);
        self.state.made.ports.retain(|name, _| left.contains(name) || is_up(name));
        if errors.is_empty() {
            self.state.forget_overruled(&self.file);
            self.state_file.save(&self.state).map_err(ControlError::State)?;
            return Ok(notes);
        }
        self.abandon(undo);
        Err(ControlError::Several(errors))
    }

    /// Takes back what a failed start made, but not what it found: a container that a killed vswitchd left keeps its device.
    fn abandon(&mut self, undo: Vec<Step>) {
        let undo = undo.into_iter().filter(|step| match step {
            Step::DeletePort(name) => self.ports.get(name).is_some_and(|port| !port.reopened),
            Step::DeleteVxlan(_) => true,
            _ => false,
        });
        let undo = undo.collect();
        self.take_back(undo);
        if let Err(error) = self.state_file.save(&self.state) {
            tracing::warn!("{error}");
        }
    }

    /// Carries out one step and returns its inverse. A step that fails has changed nothing.
    pub(super) fn perform(&mut self, step: Step) -> Result<Step, ControlError> {
        match step {
            Step::AddBridge(spec, origin) => self.make_bridge(spec, origin),
            Step::SetBridge(spec, origin) => self.change_bridge(spec, origin),
            Step::DeleteBridge(name) => {
                let bridge = self.bridges.remove(&name).ok_or_else(|| ControlError::NoBridge(name, Vec::new()))?;
                self.bridge_ids.remove(bridge.id.0);
                self.tell_all(|| Command::RemoveBridge(bridge.id))?;
                self.tell_gateways()?;
                self.tell_services();
                Ok(Step::AddBridge(bridge.spec, bridge.origin))
            }
            Step::AddPort(spec, origin) => self.make_port(spec, origin),
            Step::SetPort(spec, origin) => self.change_port(spec, origin),
            Step::DeletePort(name) => self.drop_station(&name),
            Step::AddUplink(spec, origin) => self.make_uplink(spec, origin),
            Step::SetUplink(spec, origin) => self.change_uplink(spec, origin),
            Step::DeleteUplink(name) => self.drop_uplink(&name),
            Step::AddForward(spec, origin) => self.make_forward(spec, origin),
            Step::DeleteForward(key) => self.drop_forward(&key),
            Step::AddVxlan(spec, origin) => self.make_vxlan(spec, origin),
            Step::SetVxlan(spec, origin) => self.change_vxlan(spec, origin),
            Step::DeleteVxlan(name) => self.drop_vxlan(&name),
        }
    }

    fn make_bridge(&mut self, spec: BridgeSpec, origin: Origin) -> Result<Step, ControlError> {
        self.check_leases("", &format!("bridge \"{}\"", spec.name), &spec.addresses)?;
        let id = BridgeId(self.bridge_ids.vacancy());
        let settings = BridgeSettings::from(&spec);
        let gateway = self.gateway_settings(&spec)?;
        self.tell_all(|| Command::SetBridge(id, settings))?;
        self.tell_all(|| Command::SetGateway(id, gateway.clone()))?;
        self.bridge_ids.insert(id.0, ());
        let name = spec.name.clone();
        self.bridges.insert(name.clone(), Bridge { id, spec, origin });
        self.tell_gateways()?;
        self.tell_services();
        Ok(Step::DeleteBridge(name))
    }

    fn change_bridge(&mut self, spec: BridgeSpec, origin: Origin) -> Result<Step, ControlError> {
        let Bridge { id, spec: old, origin: old_origin } = self.bridge(&spec.name)?;
        let (id, old, old_origin) = (*id, old.clone(), *old_origin);
        self.check_leases("", &format!("bridge \"{}\"", spec.name), &spec.addresses)?;
        let settings = BridgeSettings::from(&spec);
        let gateway = self.gateway_settings(&spec)?;
        let (before, tunnels) = (self.port_mtu(&spec.name)?, self.tunnels_mtu(&spec.name));
        let mtu = tunnels.map_or(spec.mtu, |most| spec.mtu.min(most));
        if mtu != before || spec.addresses != old.addresses {
            self.change_stations(&spec.name, (mtu, &spec.addresses), (before, &old.addresses))?;
        }
        self.set_tunnels_ageing(&spec.name, settings.ageing);
        self.tell_all(|| Command::SetBridge(id, settings))?;
        self.tell_all(|| Command::SetGateway(id, gateway.clone()))?;
        self.bridges.insert(spec.name.clone(), Bridge { id, spec, origin });
        self.tell_gateways()?;
        self.tell_services();
        Ok(Step::SetBridge(old, old_origin))
    }

    /// Gives the devices of a bridge another MTU; all or none.
    pub(super) fn change_mtu(&mut self, bridge: &BridgeName, mtu: u16, old: u16) -> Result<(), ControlError> {
        let gateways = self.bridge(bridge)?.spec.addresses.clone();
        self.change_stations(bridge, (mtu, &gateways), (old, &gateways))
    }

    /// Gives the devices of a bridge another MTU and other default routes; all or none.
    fn change_stations(&self, bridge: &BridgeName, new: (u16, &[IpNet]), old: (u16, &[IpNet])) -> Result<(), ControlError> {
        check_ipv6_mtu(bridge, new.1, new.0)?;
        let members = || self.ports.values().filter(|port| port.spec.bridge == *bridge && port.state == PortState::Up);
        for (done, port) in members().enumerate() {
            let spec = &port.spec;
            if let Err(error) = attach::reconfigure(spec, spec, new.0, new.1) {
                for port in members().take(done) {
                    let spec = &port.spec;
                    if let Err(error) = attach::reconfigure(spec, spec, old.0, old.1) {
                        tracing::error!(port = %spec.name, "its MTU and routes could not be set back: {error}");
                    }
                }
                return Err(ControlError::Attach(spec.name.clone(), error));
            }
        }
        Ok(())
    }

    fn make_port(&mut self, spec: PortSpec, origin: Origin) -> Result<Step, ControlError> {
        let id = port_vacancy(&self.port_ids)?;
        let name = spec.name.clone();
        let port = self.attach(id, spec, origin)?;
        self.port_ids.insert(id.0, name.clone());
        self.captures.add_interface(id, &port.spec);
        self.ports.insert(name.clone(), port);
        self.tell_services();
        Ok(Step::DeletePort(name))
    }

    /// A port without a device. Its number never gets to a worker: [`Self::replace_port`] gives it another.
    fn add_down(&mut self, spec: PortSpec, origin: Origin, error: &ControlError) {
        let id = PortId(self.port_ids.vacancy());
        self.port_ids.insert(id.0, spec.name.clone());
        let state = PortState::Down(error.to_string());
        let port = Port { id, origin, mac: spec.mac, features: Vec::new(), state, reopened: true, spec };
        self.ports.insert(port.spec.name.clone(), port);
    }

    fn change_port(&mut self, spec: PortSpec, origin: Origin) -> Result<Step, ControlError> {
        let name = spec.name.clone();
        let port = self.port(&name)?;
        let (id, old, old_origin, mac) = (port.id, port.spec.clone(), port.origin, port.mac);
        let (mtu, gateways) = (self.port_mtu(&spec.bridge)?, self.bridge(&spec.bridge)?.spec.addresses.clone());
        let inverse = Step::SetPort(old.clone(), old_origin);
        if plan::needs_new_device(&old, &spec) || port.state != PortState::Up {
            return self.replace_port(spec, origin).map(|()| inverse);
        }
        let touches_device = old.mac != spec.mac || old.addresses != spec.addresses || old.bridge != spec.bridge;
        if touches_device {
            attach::reconfigure(&old, &spec, mtu, &gateways).map_err(|error| ControlError::Attach(name.clone(), error))?;
        }
        let mac = spec.mac.or(mac);
        let settings = self.settings(&spec, mac)?;
        self.tell_all(|| Command::SetPort(id, settings.clone()))?;
        self.journal(&spec)?;
        if let Some(port) = self.ports.get_mut(&name) {
            (port.spec, port.origin, port.mac) = (spec, origin, mac);
        }
        self.tell_services();
        Ok(inverse)
    }

    /// Takes a port's device away and gives it another; if that fails, the first one comes back.
    fn replace_port(&mut self, spec: PortSpec, origin: Origin) -> Result<(), ControlError> {
        let name = spec.name.clone();
        self.check_place(&spec)?;
        let back = self.drop_port(&name)?;
        if let Err(error) = self.make_port(spec, origin) {
            if let (Err(again), Step::AddPort(spec, origin)) = (self.perform(back.clone()), back) {
                tracing::error!("could not be taken back: {again}");
                self.add_down(spec, origin, &again);
            }
            return Err(error);
        }
        Ok(())
    }

    /// Removes a port whose station is gone with it, and may soon give its addresses to another.
    fn drop_station(&mut self, name: &PortName) -> Result<Step, ControlError> {
        let port = self.port(name)?;
        let bridge = self.bridge(&port.spec.bridge)?.id;
        let addresses: Vec<IpAddr> = port.spec.addresses.iter().map(IpNet::addr).collect();
        let inverse = self.drop_port(name)?;
        for host in self.uplinks.values().filter_map(|uplink| uplink.host.as_ref()) {
            // With its thread, its sessions have ended.
            let _ = host.forget(&addresses);
        }
        if let Some(router) = self.workers.first() {
            router.hint(Command::ForgetStations(bridge, addresses));
        }
        Ok(inverse)
    }

    fn drop_port(&mut self, name: &PortName) -> Result<Step, ControlError> {
        let port = self.port(name)?;
        let (id, spec, origin) = (port.id, port.spec.clone(), port.origin);
        for worker in &self.workers {
            worker.ask(|reply| Command::Detach(id, reply))?;
        }
        self.ports.remove(name);
        self.port_ids.remove(id.0);
        if let Err(error) = attach::detach(&spec) {
            tracing::warn!(port = %name, "its device could not be removed: {error}");
        }
        self.state.made.ports.remove(name);
        self.remove_idle_netns(spec.netns.as_ref());
        self.tell_services();
        Ok(Step::AddPort(spec, origin))
    }

    /// Opens a port's device and puts a queue of it on each worker; all or nothing.
    fn attach(&mut self, id: PortId, spec: PortSpec, origin: Origin) -> Result<Port, ControlError> {
        self.check_place(&spec)?;
        self.journal(&spec)?;
        let attachment = self.open(&spec)?;
        let Attachment { devices, mac, features, made_netns, reopened, .. } = attachment;
        if let (true, Some(Netns::Name(netns))) = (made_netns, &spec.netns) {
            self.state.made.netns.insert(netns.clone());
            if let Err(error) = self.state_file.save(&self.state) {
                self.undo_attach(id, &spec, reopened);
                return Err(ControlError::State(error));
            }
        }
        let settings = self.settings(&spec, mac)?;
        for (worker, device) in self.workers.iter().zip(devices) {
            let attached = worker.ask(|reply| Command::Attach(id, settings.clone(), device, reply));
            let attached = attached.map_err(ControlError::from);
            let attached = attached.and_then(|done| done.map_err(|error| ControlError::Poll(spec.name.clone(), error)));
            if let Err(error) = attached {
                self.undo_attach(id, &spec, reopened);
                return Err(error);
            }
        }
        Ok(Port { id, spec, origin, mac, features, state: PortState::Up, reopened })
    }

    fn open(&mut self, spec: &PortSpec) -> Result<Attachment, ControlError> {
        let bridge = &self.bridge(&spec.bridge)?.spec;
        let first_mac = Some(self.state.station_mac(spec.name.as_str()));
        let (mtu, gateways) = (self.port_mtu(&spec.bridge)?, &bridge.addresses);
        let (queues, held) = (self.workers.len(), self.handover.queues_of(&spec.name));
        let opened = attach::attach(&Plan { spec, first_mac, mtu, queues, held, gateways });
        opened.map_err(|error| {
            self.state.made.ports.remove(&spec.name);
            ControlError::Attach(spec.name.clone(), error)
        })
    }

    fn undo_attach(&mut self, id: PortId, spec: &PortSpec, reopened: bool) {
        for worker in &self.workers {
            let _ = worker.ask(|reply| Command::Detach(id, reply));
        }
        if reopened {
            return;
        }
        if let Err(error) = attach::detach(spec) {
            tracing::warn!(port = %spec.name, "its device could not be removed: {error}");
        }
        self.state.made.ports.remove(&spec.name);
        self.remove_idle_netns(spec.netns.as_ref());
    }

    /// Writes down that a device is about to be made, so that a start after a crash finds it.
    fn journal(&mut self, spec: &PortSpec) -> Result<(), ControlError> {
        self.journal_all(std::iter::once(spec.clone()))
    }

    /// The same for many, at the price of one.
    fn journal_all(&mut self, specs: impl Iterator<Item = PortSpec>) -> Result<(), ControlError> {
        let made = &mut self.state.made.ports;
        let mut news = false;
        for spec in specs.filter(|spec| spec.kind != PortKind::Link || spec.netns.is_some()) {
            news |= made.get(&spec.name) != Some(&spec);
            made.insert(spec.name.clone(), spec);
        }
        if news { self.state_file.save(&self.state).map_err(ControlError::State) } else { Ok(()) }
    }

    /// Removes what an earlier vswitchd, which was killed, made and nobody wants now.
    pub(super) fn remove_leftovers(&mut self, wanted: &Layout) {
        let kept = |spec: &PortSpec| {
            let same = |now: &PortSpec| now.kind == spec.kind && plan::place(now) == plan::place(spec);
            wanted.ports.get(&spec.name).is_some_and(|(now, _)| same(now))
        };
        let leftovers: Vec<PortSpec> = self.state.made.ports.values().filter(|spec| !kept(spec)).cloned().collect();
        for spec in leftovers {
            tracing::info!(port = %spec.name, "removing what an earlier run left");
            if let Err(error) = attach::detach(&spec) {
                tracing::warn!(port = %spec.name, "{error}");
            }
            self.state.made.ports.remove(&spec.name);
        }
        let used: BTreeSet<&Netns> = wanted.ports.values().filter_map(|(spec, _)| spec.netns.as_ref()).collect();
        let idle = |name: &&String| !used.contains(&Netns::Name((*name).clone()));
        for name in self.state.made.netns.iter().filter(idle).cloned().collect::<Vec<_>>() {
            self.remove_netns(&name);
        }
    }

    /// Removes the namespace if this switch made it and no port is left in it.
    fn remove_idle_netns(&mut self, netns: Option<&Netns>) {
        let Some(Netns::Name(name)) = netns else { return };
        let in_use = self.ports.values().any(|port| port.spec.netns.as_ref() == netns);
        if !in_use && self.state.made.netns.contains(name) {
            self.remove_netns(name);
        }
    }

    fn remove_netns(&mut self, name: &str) {
        match attach::remove_netns(name) {
            Ok(()) => {
                self.state.made.netns.remove(name);
            }
            Err(error) => tracing::warn!(netns = name, "{error}"),
        }
    }

    fn check_place(&self, spec: &PortSpec) -> Result<(), ControlError> {
        let taken = |port: &&Port| port.spec.name != spec.name && plan::place(&port.spec) == plan::place(spec);
        match self.ports.values().find(taken) {
            None => Ok(()),
            Some(port) => Err(ControlError::PlaceTaken {
                port: port.spec.name.clone(),
                ifname: spec.ifname.to_string(),
                netns: spec.netns.as_ref().map_or_else(|| "the host".to_owned(), |netns| format!("namespace \"{netns}\"")),
            }),
        }
    }

    /// A port as the datapath sees it.
    fn settings(&self, spec: &PortSpec, mac: Option<packet::Mac>) -> Result<PortSettings, ControlError> {
        let guard = mac.or(spec.mac).filter(|_| spec.guard);
        Ok(PortSettings {
            bridge: self.bridge(&spec.bridge)?.id,
            vlans: spec.vlans.clone(),
            guard: guard.map(|mac| Guard { mac, addresses: spec.addresses.iter().map(ipnet::IpNet::addr).collect() }),
            protected: spec.protected,
            owner: mac.filter(|_| spec.kind == PortKind::Link),
            broadcast_limit: spec.broadcast_limit,
            send_rate: spec.send_rate.map(|rate| Arc::new(Limiter::new(rate, Instant::now()))),
            receive_rate: spec.receive_rate.map(|rate| Arc::new(Limiter::new(rate, Instant::now()))),
            tunnel: None,
        })
    }

    pub(super) fn tell_all(&self, command: impl Fn() -> Command) -> Result<(), Stopped> {
        self.workers.iter().try_for_each(|worker| worker.tell(command()))
    }
}

/// A number for another port or uplink.
pub(super) fn port_vacancy(ids: &Slots<PortName>) -> Result<PortId, ControlError> {
    match ids.vacancy() {
        id @ 0..=PortId::MOST => Ok(PortId(id)),
        taken => Err(ControlError::Ports(taken)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_beyond_the_last_number_are_refused() {
        let mut ids = Slots::default();
        for id in (0..=PortId::MOST).rev() {
            ids.insert(id, "p".parse().unwrap());
        }
        let error = port_vacancy(&ids).unwrap_err().to_string();
        assert_eq!(error, "there are 65536 ports and uplinks already, the most that a switch can have: remove one first");
        ids.remove(7);
        assert_eq!(port_vacancy(&ids).unwrap(), PortId(7));
    }
}
