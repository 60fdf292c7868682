//! Bridges, ports and tunnels added, changed and deleted at run time.

use super::plan::{self, Step};
use super::{ControlError, Port, Switch, forget};
use crate::config::{Change, State};
use api::{
    BridgeName, BridgeSpec, Origin, Patch, PortChange, PortKind, PortName, PortSpec, RateChange, Reply, SpecError, VlanChange,
    VlanMode, VxlanChange, VxlanSpec,
};

impl Switch {
    pub(super) fn add_bridge(&mut self, spec: BridgeSpec) -> Result<Reply, ControlError> {
        if self.bridges.contains_key(&spec.name) {
            return Err(ControlError::BridgeExists(spec.name));
        }
        self.layout().network().check_bridge(&spec)?;
        let change = Change::Set(spec.clone());
        self.remember(
            |state| state.bridges.insert(spec.name.clone(), change),
            vec![Step::AddBridge(spec.clone(), Origin::Runtime)],
        )
    }

    pub(super) fn set_bridge(&mut self, name: &BridgeName, patch: &Patch) -> Result<Reply, ControlError> {
        let spec = patch.apply(&self.bridge(name)?.spec)?;
        self.put_bridge(spec)
    }

    /// Makes a bridge what this says, if all that depends on it still fits.
    pub(super) fn put_bridge(&mut self, spec: BridgeSpec) -> Result<Reply, ControlError> {
        self.check_own_bridge(&spec.name)?;
        let mut layout = self.layout();
        layout.network().check_bridge(&spec)?;
        layout.bridges.insert(spec.name.clone(), (spec.clone(), Origin::Runtime));
        layout.forwards.values().try_for_each(|(forward, _)| layout.network().check_forward(forward))?;
        let (name, kept) = (spec.name.clone(), Change::Set(spec.clone()));
        self.with_mtu_notes(|switch| {
            switch.remember(|state| state.bridges.insert(name, kept), vec![Step::SetBridge(spec, Origin::Runtime)])
        })
    }

    pub(super) fn delete_bridge(&mut self, name: BridgeName) -> Result<Reply, ControlError> {
        if let Some(done) = self.forget_left_out(self.bridges.contains_key(&name), |state| &mut state.bridges, &name) {
            return done;
        }
        self.check_own_bridge(&name)?;
        let on_it: Vec<&Port> = self.ports.values().filter(|port| port.spec.bridge == name).collect();
        if let Some(first) = on_it.first() {
            return Err(ControlError::BridgeInUse(name, on_it.len(), first.spec.name.clone()));
        }
        self.check_unforwarded(&name)?;
        if let Some(tunnel) = self.tunnels.values().find(|tunnel| tunnel.spec.bridge == name) {
            return Err(ControlError::BridgeTunnelled(name, tunnel.spec.name.clone()));
        }
        let in_file = self.file.bridges.iter().any(|spec| spec.name == name);
        self.remember(|state| forget(&mut state.bridges, &name, in_file), vec![Step::DeleteBridge(name.clone())])
    }

    pub(super) fn add_port(&mut self, spec: PortSpec) -> Result<Reply, ControlError> {
        if let Some(port) = self.ports.get(&spec.name) {
            return Err(ControlError::PortExists(spec.name, port.spec.bridge.clone()));
        }
        self.layout().network().check_port(&spec)?;
        if let Some(tunnel) = self.tunnels.get(&spec.name) {
            return Err(ControlError::VxlanExists(spec.name, tunnel.spec.bridge.clone()));
        }
        let change = Change::Set(spec.clone());
        let step = Step::AddPort(spec.clone(), Origin::Runtime);
        self.with_warnings(&spec.name, |switch| {
            switch.remember(|state| state.ports.insert(spec.name.clone(), change), vec![step])
        })
    }

    pub(super) fn set_port(&mut self, name: &PortName, change: PortChange) -> Result<Reply, ControlError> {
        let port = self.own_port(name)?;
        let spec = changed(port.spec.clone(), change)?;
        self.layout().network().check_port(&spec)?;
        let kept = Change::Set(spec.clone());
        let step = Step::SetPort(spec, Origin::Runtime);
        self.with_warnings(name, |switch| switch.remember(|state| state.ports.insert(name.clone(), kept), vec![step]))
    }

    pub(super) fn delete_port(&mut self, name: PortName) -> Result<Reply, ControlError> {
        if let Some(done) = self.forget_left_out(self.ports.contains_key(&name), |state| &mut state.ports, &name) {
            return done;
        }
        self.own_port(&name)?;
        let in_file = self.file.ports.iter().any(|spec| spec.name == name);
        self.remember(|state| forget(&mut state.ports, &name, in_file), vec![Step::DeletePort(name.clone())])
    }

    pub(super) fn add_vxlan(&mut self, spec: VxlanSpec) -> Result<Reply, ControlError> {
        if let Some(tunnel) = self.tunnels.get(&spec.name) {
            return Err(ControlError::VxlanExists(spec.name, tunnel.spec.bridge.clone()));
        }
        let change = Change::Set(spec.clone());
        self.with_mtu_notes(|switch| {
            let step = Step::AddVxlan(spec.clone(), Origin::Runtime);
            switch.remember(|state| state.vxlans.insert(spec.name, change), vec![step])
        })
    }

    pub(super) fn set_vxlan(&mut self, name: &PortName, change: &VxlanChange) -> Result<Reply, ControlError> {
        let spec = self.tunnel(name)?.spec.clone().changed(change)?;
        let kept = Change::Set(spec.clone());
        self.with_mtu_notes(|switch| {
            switch.remember(|state| state.vxlans.insert(name.clone(), kept), vec![Step::SetVxlan(spec, Origin::Runtime)])
        })
    }

    pub(super) fn delete_vxlan(&mut self, name: PortName) -> Result<Reply, ControlError> {
        if let Some(done) = self.forget_left_out(self.tunnels.contains_key(&name), |state| &mut state.vxlans, &name) {
            return done;
        }
        self.tunnel(&name)?;
        let in_file = self.file.vxlans.iter().any(|spec| spec.name == name);
        self.remember(|state| forget(&mut state.vxlans, &name, in_file), vec![Step::DeleteVxlan(name.clone())])
    }

    /// Keeps a change, and applies what it makes different among the things of this origin. The rest of the switch is not touched, even where
    /// it is not what it should be.
    pub(super) fn change<T>(&mut self, origin: Origin, change: impl FnOnce(&mut State) -> T) -> Result<(), ControlError> {
        let steps = |switch: &Self| {
            let mut steps = plan::steps(&switch.layout(), &switch.wanted().0);
            steps.retain(|step| plan::concerns(step, origin));
            steps
        };
        self.remember_and_follow(change, steps)?;
        self.names.retain(&self.state.docker);
        Ok(())
    }

    /// Adds to the answer what is most likely a mistake about a port.
    fn with_warnings(
        &mut self,
        name: &PortName,
        change: impl FnOnce(&mut Self) -> Result<Reply, ControlError>,
    ) -> Result<Reply, ControlError> {
        let mut reply = change(self)?;
        if let Reply::Done(notes) = &mut reply {
            let all = self.layout().network().warnings();
            notes.extend(all.iter().filter(|warning| warning.concerns(name)).map(ToString::to_string));
        }
        Ok(reply)
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

/// A port's specification with a change made to it.
fn changed(spec: PortSpec, change: PortChange) -> Result<PortSpec, ControlError> {
    let vlans = match change.vlans {
        None => spec.vlans,
        Some(VlanChange::All) => VlanMode::All,
        Some(VlanChange::Access(vlan)) => VlanMode::Access(vlan),
        Some(VlanChange::Trunk(allowed, native)) => VlanMode::Trunk { allowed: allowed.into_iter().collect(), native },
    };
    let kind = change.kind.unwrap_or(spec.kind);
    let ifname = match (kind, change.device, change.ifname) {
        (PortKind::Link, _, Some(_)) => return Err(SpecError::NotForLink(spec.name, "ifname").into()),
        (PortKind::Tap | PortKind::Veth, Some(_), _) => return Err(SpecError::DeviceNotLink(spec.name, kind).into()),
        (_, device, ifname) => device.or(ifname).unwrap_or(spec.ifname),
    };
    let netns = change.netns.or(spec.netns);
    let limit = match change.broadcast_limit {
        None => spec.broadcast_limit,
        Some(0) => None,
        limit => limit,
    };
    let spec = PortSpec {
        kind,
        netns,
        ifname,
        mac: change.mac.or(spec.mac),
        addresses: change.addresses.unwrap_or(spec.addresses),
        vlans,
        guard: change.guard.unwrap_or(spec.guard),
        protected: change.protected.unwrap_or(spec.protected),
        down: change.down.unwrap_or(spec.down),
        broadcast_limit: limit,
        send_rate: change.send_rate.map_or(spec.send_rate, RateChange::rate),
        receive_rate: change.receive_rate.map_or(spec.receive_rate, RateChange::rate),
        offload: change.offload.unwrap_or(spec.offload),
        name: spec.name,
        bridge: spec.bridge,
    };
    Ok(spec.checked()?)
}
