//! Resources added, changed and deleted at run time: the same for every kind, but for what is checked.

use super::inventory::Vport;
use super::plan::{self, Step};
use super::vxlan::TunnelPort;
use super::{Bridge, ControlError, Port, Switch};
use crate::config::{Change, State};
use api::{
    BridgeName, BridgeSpec, ForwardKey, NetworkError, Origin, Patch, PortName, Reply, Resource, ResourceKey, UplinkSpec,
    VxlanChange,
};

impl Switch {
    /// Adds a resource that is not there.
    pub(super) fn add(&mut self, resource: impl Into<Resource>) -> Result<Reply, ControlError> {
        let resource = resource.into();
        self.check_new(&resource)?;
        self.put(resource, Step::Add)
    }

    /// Keeps what vsctl wants of a resource, and does it. What the file says is no change of vsctl's.
    fn put(&mut self, resource: Resource, step: fn(Resource, Origin) -> Step) -> Result<Reply, ControlError> {
        let port = match &resource {
            Resource::Port(spec) => Some(spec.name.clone()),
            _ => None,
        };
        let mut steps = match &resource {
            Resource::Bridge(spec) if self.changes_overlay(spec) => self.without_overlay(&spec.name),
            _ => Vec::new(),
        };
        let is_files = self.ledger.file.says(&resource);
        steps.push(step(resource.clone(), if is_files { Origin::File } else { Origin::Runtime }));
        let keep = |state: &mut State| {
            if is_files {
                state.changes.0.remove(&resource.key());
            } else {
                state.changes.set(resource);
            }
        };
        let mut reply = self.with_mtu_notes(|switch| switch.remember(keep, steps))?;
        if let (Some(name), Reply::Done(notes)) = (port, &mut reply) {
            let all = self.inventory.warnings();
            notes.extend(all.iter().filter(|warning| warning.concerns(&name)).map(ToString::to_string));
        }
        Ok(reply)
    }

    /// Deletes a resource. One that vsctl added and the file left no room for is forgotten.
    pub(super) fn delete(&mut self, key: &ResourceKey) -> Result<Reply, ControlError> {
        let is_there = self.inventory.resource(key).is_ok();
        if !is_there && matches!(self.ledger.state.changes.0.get(key), Some(Change::Set(_))) {
            return self.remember(|state| state.changes.0.remove(key), Vec::new());
        }
        self.check_deletable(key)?;
        // That it was deleted matters only if the file names it, for the next start will say so.
        let in_file = self.ledger.file.has(key);
        let forget = |state: &mut State| match in_file {
            true => state.changes.0.insert(key.clone(), Change::Deleted),
            false => state.changes.0.remove(key),
        };
        let mut steps = match key {
            ResourceKey::Bridge(name) => self.without_overlay(name),
            _ => Vec::new(),
        };
        steps.push(Step::Delete(key.clone()));
        self.remember(forget, steps)
    }

    fn check_new(&self, resource: &Resource) -> Result<(), ControlError> {
        self.check_free(&resource.key())?;
        let network = self.inventory.network();
        if let Resource::Bridge(spec) = resource {
            self.check_overlay(spec)?;
        }
        self.check_apart(resource)?;
        match resource {
            Resource::Bridge(spec) if self.inventory.bridges.contains_key(&spec.name) => {
                return Err(ControlError::BridgeExists(spec.name.clone()));
            }
            Resource::Bridge(spec) => network.check_bridge(spec)?,
            Resource::Uplink(spec) => network.check_uplink(spec)?,
            Resource::Port(spec) => network.check_port(spec)?,
            Resource::Vxlan(_) => {}
            Resource::Forward(spec) => match self.inventory.forwards.get(&spec.key) {
                Some((old, _)) => return Err(ControlError::ForwardExists(spec.key.clone(), old.to)),
                None => network.check_forward(spec)?,
            },
        }
        Ok(())
    }

    /// Whether the name of a port, tunnel or uplink to be is free, for only one may have it.
    pub(super) fn check_free(&self, key: &ResourceKey) -> Result<(), ControlError> {
        let (ResourceKey::Port(name) | ResourceKey::Vxlan(name) | ResourceKey::Uplink(name)) = key else { return Ok(()) };
        match (key, self.inventory.vport(name)) {
            (_, None) => Ok(()),
            (ResourceKey::Uplink(_), Some(Vport::Port(_))) => Err(NetworkError::NameOfPort(name.clone()).into()),
            (ResourceKey::Port(_), Some(Vport::Uplink(_))) => Err(NetworkError::NameOfUplink(name.clone()).into()),
            (_, Some(Vport::Port(port))) => Err(ControlError::PortExists(name.clone(), port.spec.bridge.clone())),
            (_, Some(Vport::Tunnel(tunnel))) => Err(ControlError::VxlanExists(name.clone(), tunnel.spec.bridge.clone())),
            (_, Some(Vport::Uplink(_))) => Err(ControlError::UplinkExists(name.clone())),
        }
    }

    fn check_deletable(&self, key: &ResourceKey) -> Result<(), ControlError> {
        match key {
            ResourceKey::Bridge(name) => self.check_unused_bridge(name),
            ResourceKey::Uplink(name) => self.check_unused_uplink(name),
            ResourceKey::Port(name) => self.own_port(name).map(drop),
            ResourceKey::Vxlan(name) => self.own_tunnel(name).map(drop),
            ResourceKey::Forward(_) => self.inventory.resource(key).map(drop),
        }
    }

    fn check_unused_bridge(&self, name: &BridgeName) -> Result<(), ControlError> {
        self.check_own_bridge(name)?;
        let on_it: Vec<_> = self.inventory.all::<Port>().filter(|port| port.spec.bridge == *name).collect();
        if let Some(first) = on_it.first() {
            return Err(ControlError::BridgeInUse(name.clone(), on_it.len(), first.spec.name.clone()));
        }
        self.check_unforwarded(name)?;
        let mut tunnels = self.inventory.all::<TunnelPort>().filter(|tunnel| tunnel.origin.is_of_users());
        match tunnels.find(|tunnel| tunnel.spec.bridge == *name) {
            Some(tunnel) => Err(ControlError::BridgeTunnelled(name.clone(), tunnel.spec.name.clone())),
            None => Ok(()),
        }
    }

    fn check_unused_uplink(&self, name: &PortName) -> Result<(), ControlError> {
        if !self.inventory.uplink(name)?.origin.is_of_users() {
            return Err(ControlError::DockersUplink(name.clone()));
        }
        let in_use = |by: String, advice: String| Err(ControlError::UplinkInUse(name.clone(), by, advice));
        // While there is a forward, no bridge can do without the uplink.
        if let Some(key) = self.inventory.forwards.keys().find(|key| key.uplink == *name) {
            return in_use(format!("forward {key}"), format!("remove it first with del-forward {key}"));
        }
        match self.inventory.bridges.values().find(|bridge| bridge.spec.uplink.as_ref() == Some(name)) {
            Some(Bridge { spec, .. }) => {
                let advice = format!("first give that another with set-br {} --uplink NAME, or none", spec.name);
                in_use(format!("bridge \"{}\"", spec.name), advice)
            }
            None => Ok(()),
        }
    }

    pub(super) fn set_bridge(&mut self, name: &BridgeName, patch: &Patch) -> Result<Reply, ControlError> {
        let spec = patch.apply(&self.inventory.bridge(name)?.spec)?;
        self.put_bridge(spec)
    }

    /// Makes a bridge what this says, if all that depends on it still fits.
    pub(super) fn put_bridge(&mut self, spec: BridgeSpec) -> Result<Reply, ControlError> {
        self.check_own_bridge(&spec.name)?;
        self.check_overlay(&spec)?;
        self.check_subnet(&spec)?;
        if self.inventory.bridge(&spec.name)?.spec.addresses != spec.addresses {
            self.check_apart(&spec.clone().into())?;
        }
        self.inventory.network().check_bridge(&spec)?;
        self.check_forwards_with(spec.clone())?;
        self.put(spec.into(), Step::Set)
    }

    pub(super) fn set_uplink(&mut self, name: &PortName, patch: &Patch) -> Result<Reply, ControlError> {
        let uplink = self.inventory.uplink(name)?;
        if uplink.origin == Origin::Docker {
            return Err(ControlError::DockersUplink(name.clone()));
        }
        let spec: UplinkSpec = patch.apply(&uplink.spec)?;
        if uplink.spec.addresses() != spec.addresses() {
            self.check_apart(&spec.clone().into())?;
        }
        self.inventory.network().check_uplink(&spec)?;
        self.check_forwards_with(spec.clone())?;
        self.put(spec.into(), Step::Set)
    }

    /// Whether all forwards still fit if a resource becomes another.
    fn check_forwards_with(&self, resource: impl Into<Resource>) -> Result<(), ControlError> {
        let mut layout = self.inventory.layout();
        layout.insert(resource, Origin::Runtime);
        let network = layout.network();
        Ok(network.forwards.iter().try_for_each(|forward| network.check_forward(forward))?)
    }

    pub(super) fn set_port(&mut self, name: &PortName, patch: &Patch) -> Result<Reply, ControlError> {
        let spec = self.own_port(name)?.spec.changed(patch)?;
        self.inventory.network().check_port(&spec)?;
        let is_rearmed = patch.0.get("down") == Some(&serde_json::Value::Bool(false));
        let reply = self.put(spec.into(), Step::Set)?;
        if let Some(port) = self.inventory.find_mut::<Port>(name).filter(|port| is_rearmed && port.tripped) {
            port.tripped = false;
            self.follow_guard(name)?;
        }
        Ok(reply)
    }

    pub(super) fn set_vxlan(&mut self, name: &PortName, change: &VxlanChange) -> Result<Reply, ControlError> {
        let spec = self.own_tunnel(name)?.spec.clone().changed(change)?;
        self.put(spec.into(), Step::Set)
    }

    /// A tunnel that a user asked for.
    fn own_tunnel(&self, name: &PortName) -> Result<&TunnelPort, ControlError> {
        let tunnel = self.inventory.tunnel(name)?;
        match tunnel.origin {
            Origin::Cluster => Err(ControlError::ClustersVxlan(name.clone(), tunnel.spec.bridge.clone())),
            Origin::Flannel => Err(ControlError::FlannelsVxlan(name.clone(), tunnel.spec.bridge.clone())),
            _ => Ok(tunnel),
        }
    }

    /// Deletes a forward, whichever source asked for it: a container's runtime is not told.
    pub(super) fn delete_forward(&mut self, key: &ForwardKey) -> Result<Reply, ControlError> {
        // A key without an IP version means the one that there is.
        let other = ForwardKey { v6: true, ..key.clone() };
        let is_known = |key: &ForwardKey| {
            self.inventory.forwards.contains_key(key)
                || self.ledger.state.changes.0.contains_key(&ResourceKey::Forward(key.clone()))
        };
        let key = if is_known(key) || !is_known(&other) { key } else { &other };
        match self.inventory.forwards.get(key) {
            Some((_, Origin::Docker)) => self.withdraw_port(key),
            Some((_, Origin::Container)) => self.withdraw_container_port(key),
            _ => self.delete(&ResourceKey::Forward(key.clone())),
        }
    }

    /// Keeps a change, and applies what it makes different among the things of this origin. The rest of the switch is not touched, even where
    /// it is not what it should be.
    pub(super) fn change<T>(&mut self, origin: Origin, change: impl FnOnce(&mut State) -> T) -> Result<(), ControlError> {
        let steps = |switch: &Self| {
            let (running, wanted) = (switch.inventory.layout(), switch.ledger.wanted().0);
            plan::only_of(origin, plan::steps(&running, &wanted), &running, &wanted)
        };
        // Whether the port of another container can be had by now is no matter of this change's.
        let mut left_out = if self.inventory.lacks_forwards { steps(self) } else { Vec::new() };
        left_out.retain(|step| matches!(step, Step::Add(Resource::Forward(_), _)));
        let steps = |switch: &Self| {
            let mut steps = steps(switch);
            steps.retain(|step| !left_out.contains(step));
            steps
        };
        self.remember_and_follow(change, steps)?;
        self.docker.names.retain(&self.ledger.state.docker);
        Ok(())
    }

    /// Adds to the answer what the user should know about MTUs since the change.
    pub(super) fn with_mtu_notes(
        &mut self,
        change: impl FnOnce(&mut Self) -> Result<Reply, ControlError>,
    ) -> Result<Reply, ControlError> {
        let before = self.mtu_notes();
        let mut reply = change(self)?;
        if let Reply::Done(notes) = &mut reply {
            notes.extend(self.mtu_notes().into_iter().filter(|note| !before.contains(note)));
        }
        Ok(reply)
    }
}
