//! Steps on the kernel, the workers and the kept state, and their inverses.

use std::collections::BTreeSet;

use ipnet::IpNet;

use super::plan::{self, Step};
use super::{Bridge, ControlError, Switch};
use crate::attach;
use crate::config::Layout;
use api::{BridgeName, BridgeSpec, Origin, PortName, check_ipv6_mtu};
use plane::datapath::{BridgeId, BridgeSettings};
use plane::worker::Command;

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
                (Err(error), Step::AddForward(_, Origin::Runtime | Origin::Docker | Origin::Container)) => {
                    notes.push(format!("{error} (added at run time; it is not published now)"));
                }
                (Err(error), Step::AddUplink(spec, origin @ (Origin::Runtime | Origin::Docker | Origin::Container))) => {
                    notes.push(format!("{error} (added at run time; it stays down)"));
                    errors.extend(self.add_uplink_down(spec, origin, &error).err());
                }
                (Err(error), Step::AddPort(spec, origin @ (Origin::Runtime | Origin::Docker | Origin::Container))) => {
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
        let has_device = |name: &PortName| self.ports.get(name).is_some_and(|port| port.presence.state().has_device());
        self.state.made.ports.retain(|name, _| left.contains(name) || has_device(name));
        if errors.is_empty() {
            self.state.forget_overruled(&self.file);
            let unkept = self.state_file.try_save(&self.state).err();
            notes.extend(
                unkept.map(|error| format!("{error}; the switch runs, but what vsctl and Docker want to change is refused")),
            );
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
        // Of a long list of steps each shows that this thread moves.
        self.feed_watchdog();
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
        self.tell_all(|| Command::SetBridge(id, settings.clone()))?;
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
        self.tell_all(|| Command::SetBridge(id, settings.clone()))?;
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
        let members = || self.ports.values().filter(|port| port.spec.bridge == *bridge && port.presence.state().has_device());
        for (done, port) in members().enumerate() {
            let spec = &port.spec;
            if let Err(error) = attach::reconfigure(spec, spec, new.0, &self.gateways_of(spec, new.1)) {
                for port in members().take(done) {
                    let spec = &port.spec;
                    if let Err(error) = attach::reconfigure(spec, spec, old.0, &self.gateways_of(spec, old.1)) {
                        tracing::error!(port = %spec.name, "its MTU and routes could not be set back: {error}");
                    }
                }
                return Err(ControlError::Attach(spec.name.clone(), error));
            }
        }
        Ok(())
    }
}
