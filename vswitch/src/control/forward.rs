//! Published ports: kept by uplink, and told it whole whenever one changes.

use super::{ControlError, Switch};
use crate::host;
use api::{BridgeName, ForwardInfo, ForwardKey, ForwardSpec, Origin, PortName};
use plane::worker::Command;

impl Switch {
    /// Whether no forward goes to a station of the bridge.
    pub(super) fn check_unforwarded(&self, name: &BridgeName) -> Result<(), ControlError> {
        let nets = &self.inventory.bridge(name)?.spec.addresses;
        let to_it = |spec: &&ForwardSpec| nets.iter().any(|net| net.contains(&spec.to.ip()));
        match self.inventory.forwards.values().map(|(spec, _)| spec).find(to_it) {
            Some(spec) => Err(ControlError::ForwardToBridge(name.clone(), spec.key.clone())),
            None => Ok(()),
        }
    }

    pub(super) fn make_forward(&mut self, spec: ForwardSpec, origin: Origin) -> Result<(), ControlError> {
        let key = spec.key.clone();
        self.inventory.forwards.insert(key.clone(), (spec, origin));
        self.publish(&key.uplink).inspect_err(|_| drop(self.inventory.forwards.remove(&key)))
    }

    pub(super) fn drop_forward(&mut self, key: &ForwardKey) -> Result<(), ControlError> {
        let Some(forward) = self.inventory.forwards.remove(key) else { return Ok(()) };
        self.publish(&key.uplink).inspect_err(|_| drop(self.inventory.forwards.insert(key.clone(), forward)))
    }

    /// Tells an uplink all its forwards.
    pub(super) fn publish(&self, name: &PortName) -> Result<(), ControlError> {
        let uplink = self.inventory.uplink(name)?;
        let specs = self.inventory.forwards.values().map(|(spec, _)| spec).filter(|spec| spec.key.uplink == *name);
        let rules = specs.map(|spec| Ok(host::Forward { rule: spec.rule()?, listen: spec.key.listen }));
        let rules = rules.collect::<Result<Vec<_>, ControlError>>()?;
        match &uplink.host {
            Some(host) => Ok(host.set_forwards(rules)?),
            None => {
                let rules = rules.into_iter().map(|forward| forward.rule).collect();
                Ok(self.plane.router()?.tell(Command::SetForwards(uplink.bridge, rules))?)
            }
        }
    }

    pub(super) fn forward_infos(&self) -> Vec<ForwardInfo> {
        self.inventory.forwards.values().map(|(spec, origin)| ForwardInfo::new(spec, *origin)).collect()
    }
}
