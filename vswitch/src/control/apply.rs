//! Steps on the kernel, the workers and the kept state, and their inverses.

use std::collections::BTreeSet;

use ipnet::IpNet;

use super::plan::{self, Step};
use super::{Bridge, ControlError, Port, Switch};
use crate::attach;
use crate::config::Layout;
use api::{BridgeName, BridgeSpec, Origin, PortName, Resource, ResourceKey, check_ipv6_mtu};
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
        let left: BTreeSet<PortName> = self.ledger.state.made.ports.keys().cloned().collect();
        self.journal_all(wanted.all().cloned())?;
        for step in steps {
            match (self.perform(step.clone()), step) {
                (Ok(inverse), _) => undo.push(inverse),
                (Err(error), Step::Add(resource, origin)) if origin != Origin::File => {
                    match self.add_down(resource, origin, error) {
                        Ok(note) => notes.push(note),
                        Err(error) => errors.push(error),
                    }
                }
                (Err(error), _) => errors.push(error),
            }
        }
        let has_device =
            |name: &PortName| self.inventory.find::<Port>(name).is_some_and(|port| port.presence.state().has_device());
        self.ledger.state.made.ports.retain(|name, _| left.contains(name) || has_device(name));
        if errors.is_empty() {
            self.ledger.state.forget_overruled(&self.ledger.file);
            let unkept = self.ledger.state_file.try_save(self.ledger.state.clone()).err();
            notes.extend(
                unkept.map(|error| format!("{error}; the switch runs, but what vsctl and Docker want to change is refused")),
            );
            return Ok(notes);
        }
        self.abandon(undo);
        Err(ControlError::Several(errors))
    }

    /// Takes on what was added at run time and cannot be made now, for a reload to try it again. Returns what to say about it.
    fn add_down(&mut self, resource: Resource, origin: Origin, error: ControlError) -> Result<String, ControlError> {
        match resource {
            Resource::Uplink(spec) => self.add_uplink_down(spec, origin, &error)?,
            Resource::Port(spec) => self.add_port_down(spec, origin, &error),
            Resource::Vxlan(spec) => self.add_vxlan_down(spec, origin, &error),
            Resource::Forward(_) => return Ok(self.leave_out(&error)),
            // Others are on it.
            Resource::Bridge(_) => return Err(error),
        }
        Ok(format!("{error} (added at run time; it stays down)"))
    }

    /// Takes on that a forward that was added at run time cannot be had now. Returns what to say about it.
    fn leave_out(&mut self, error: &ControlError) -> String {
        self.inventory.lacks_forwards = true;
        format!("{error} (added at run time; it is not published now)")
    }

    /// Carries out each of these steps, which add all the forwards that there should be besides those that there are, as far as it can be done.
    /// Returns what to say about the others.
    pub(super) fn publish_what_can_be_had(&mut self, forwards: Vec<Step>) -> Vec<String> {
        self.inventory.lacks_forwards = false;
        let failed = forwards.into_iter().filter_map(|step| self.perform(step).err());
        let failed: Vec<ControlError> = failed.collect();
        failed.iter().map(|error| self.leave_out(error)).collect()
    }

    /// Takes back what a failed start made, but not what it found: a container that a killed vswitchd left keeps its device.
    fn abandon(&mut self, undo: Vec<Step>) {
        let undo = undo.into_iter().filter(|step| match step {
            Step::Delete(ResourceKey::Port(name)) => self.inventory.find::<Port>(name).is_some_and(|port| !port.reopened),
            Step::Delete(ResourceKey::Vxlan(_)) => true,
            _ => false,
        });
        let undo = undo.collect();
        self.take_back(undo);
        if let Err(error) = self.ledger.save() {
            tracing::warn!("{error}");
        }
    }

    /// Carries out one step and returns its inverse. A step that fails has changed nothing.
    pub(super) fn perform(&mut self, step: Step) -> Result<Step, ControlError> {
        // Of a long list of steps each shows that this thread moves.
        self.feed_watchdog();
        match step {
            Step::Add(resource, origin) => {
                let key = resource.key();
                self.make(resource, origin)?;
                Ok(Step::Delete(key))
            }
            Step::Set(resource, origin) => {
                let (old, old_origin) = self.inventory.resource(&resource.key())?;
                self.change_to(resource, origin)?;
                Ok(Step::Set(old, old_origin))
            }
            Step::Delete(key) => {
                let (old, origin) = self.inventory.resource(&key)?;
                self.remove(&key)?;
                Ok(Step::Add(old, origin))
            }
        }
    }

    fn make(&mut self, resource: Resource, origin: Origin) -> Result<(), ControlError> {
        match resource {
            Resource::Uplink(spec) => self.make_uplink(spec, origin),
            Resource::Bridge(spec) => self.make_bridge(spec, origin),
            Resource::Vxlan(spec) => self.make_vxlan(spec, origin),
            Resource::Port(spec) => self.make_port(spec, origin),
            Resource::Forward(spec) => self.make_forward(spec, origin),
        }
    }

    fn change_to(&mut self, resource: Resource, origin: Origin) -> Result<(), ControlError> {
        match resource {
            Resource::Uplink(spec) => self.change_uplink(spec, origin),
            Resource::Bridge(spec) => self.change_bridge(spec, origin),
            Resource::Vxlan(spec) => self.change_vxlan(spec, origin),
            Resource::Port(spec) => self.change_port(spec, origin),
            // A forward has nothing to keep.
            Resource::Forward(spec) => self.make_forward(spec, origin),
        }
    }

    fn remove(&mut self, key: &ResourceKey) -> Result<(), ControlError> {
        match key {
            ResourceKey::Uplink(name) => self.drop_uplink(name),
            ResourceKey::Bridge(name) => self.drop_bridge(name),
            ResourceKey::Vxlan(name) => self.drop_vxlan(name),
            ResourceKey::Port(name) => self.drop_station(name),
            ResourceKey::Forward(key) => self.drop_forward(key),
        }
    }

    fn make_bridge(&mut self, spec: BridgeSpec, origin: Origin) -> Result<(), ControlError> {
        self.inventory.check_leases("", &format!("bridge \"{}\"", spec.name), &spec.addresses)?;
        let id = BridgeId(self.inventory.bridge_ids.vacancy());
        let settings = BridgeSettings::from(&spec);
        let gateway = self.gateway_settings(&spec)?;
        self.plane.tell_all(|| Command::SetBridge(id, settings.clone()))?;
        self.plane.tell_all(|| Command::SetGateway(id, gateway.clone()))?;
        self.inventory.bridge_ids.insert(id.0, ());
        self.inventory.bridges.insert(spec.name.clone(), Bridge { id, spec, origin });
        self.tell_gateways()?;
        self.tell_services();
        Ok(())
    }

    fn drop_bridge(&mut self, name: &BridgeName) -> Result<(), ControlError> {
        let Some(bridge) = self.inventory.bridges.remove(name) else { return Ok(()) };
        self.inventory.bridge_ids.remove(bridge.id.0);
        self.plane.tell_all(|| Command::RemoveBridge(bridge.id))?;
        self.tell_gateways()?;
        self.tell_services();
        Ok(())
    }

    fn change_bridge(&mut self, spec: BridgeSpec, origin: Origin) -> Result<(), ControlError> {
        let Bridge { id, spec: old, .. } = self.inventory.bridge(&spec.name)?;
        let (id, old) = (*id, old.clone());
        self.inventory.check_leases("", &format!("bridge \"{}\"", spec.name), &spec.addresses)?;
        let settings = BridgeSettings::from(&spec);
        let gateway = self.gateway_settings(&spec)?;
        let (before, tunnels) = (self.inventory.port_mtu(&spec.name)?, self.inventory.tunnels_mtu(&spec.name));
        let mtu = tunnels.map_or(spec.mtu, |most| spec.mtu.min(most));
        if mtu != before || spec.addresses != old.addresses {
            self.change_stations(&spec.name, (mtu, &spec.addresses), (before, &old.addresses))?;
        }
        self.set_tunnels_ageing(&spec.name, settings.ageing);
        self.plane.tell_all(|| Command::SetBridge(id, settings.clone()))?;
        self.plane.tell_all(|| Command::SetGateway(id, gateway.clone()))?;
        let (name, has_other_subnets) = (spec.name.clone(), spec.addresses != old.addresses);
        self.inventory.bridges.insert(name.clone(), Bridge { id, spec, origin });
        self.tell_gateways()?;
        self.tell_services();
        // What their stations make themselves addresses in.
        let guarded = self.inventory.all::<Port>().filter(|port| port.spec.policy.guard && port.spec.bridge == name);
        let guarded = guarded.filter(|port| has_other_subnets && port.presence.state().has_device());
        let guarded: Vec<PortName> = guarded.map(|port| port.spec.name.clone()).collect();
        guarded.iter().try_for_each(|port| self.follow_bridge(port))
    }

    /// Gives the devices of a bridge another MTU; all or none.
    pub(super) fn change_mtu(&mut self, bridge: &BridgeName, mtu: u16, old: u16) -> Result<(), ControlError> {
        let gateways = self.inventory.bridge(bridge)?.spec.addresses.clone();
        self.change_stations(bridge, (mtu, &gateways), (old, &gateways))
    }

    /// Gives the devices of a bridge another MTU and other default routes; all or none.
    fn change_stations(&self, bridge: &BridgeName, new: (u16, &[IpNet]), old: (u16, &[IpNet])) -> Result<(), ControlError> {
        check_ipv6_mtu(bridge, new.1, new.0)?;
        let members =
            || self.inventory.all::<Port>().filter(|port| port.spec.bridge == *bridge && port.presence.state().has_device());
        for (done, port) in members().enumerate() {
            let spec = &port.spec;
            if let Err(error) = attach::reconfigure(spec, spec, &new.0, &self.gateways_of(spec, new.1)) {
                for port in members().take(done) {
                    let spec = &port.spec;
                    if let Err(error) = attach::reconfigure(spec, spec, &old.0, &self.gateways_of(spec, old.1)) {
                        tracing::error!(port = %spec.name, "its MTU and routes could not be set back: {error}");
                    }
                }
                return Err(ControlError::Attach(spec.name.clone(), error));
            }
        }
        Ok(())
    }
}
