//! Published ports: kept by uplink, and told it whole whenever one changes.

use super::plan::Step;
use super::{ControlError, Switch, forget};
use crate::config::Change;
use crate::host;
use api::{BridgeName, ForwardInfo, ForwardKey, ForwardSpec, Origin, PortName, Reply};
use plane::worker::Command;

impl Switch {
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
        // A user who does not say which IP version means the forward that there is.
        let other = ForwardKey { v6: true, ..key.clone() };
        let known = |key: &ForwardKey| self.forwards.contains_key(key) || self.state.forwards.contains_key(key);
        let key = if known(key) || !known(&other) { key } else { &other };
        if let Some(done) = self.forget_left_out(self.forwards.contains_key(key), |state| &mut state.forwards, key) {
            return done;
        }
        if !self.forwards.contains_key(key) {
            return Err(ControlError::NoForward(key.clone(), self.forwards.keys().map(ToString::to_string).collect()));
        }
        match self.forwards.get(key) {
            Some((_, Origin::Docker)) => return self.withdraw_port(key),
            Some((_, Origin::Container)) => return self.withdraw_container_port(key),
            _ => {}
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
        if let Err(error) = self.publish(&key.uplink) {
            self.forwards.insert(key.clone(), (spec, origin));
            return Err(error);
        }
        Ok(Step::AddForward(spec, origin))
    }

    /// Tells an uplink all its forwards.
    pub(super) fn publish(&self, name: &PortName) -> Result<(), ControlError> {
        let uplink = self.uplink(name)?;
        let specs = self.forwards.values().map(|(spec, _)| spec).filter(|spec| spec.key.uplink == *name);
        let rules = specs.map(|spec| Ok(host::Forward { rule: spec.rule()?, listen: spec.key.listen }));
        let rules = rules.collect::<Result<Vec<_>, ControlError>>()?;
        match &uplink.host {
            Some(host) => Ok(host.set_forwards(rules)?),
            None => {
                let rules = rules.into_iter().map(|forward| forward.rule).collect();
                Ok(self.router()?.tell(Command::SetForwards(uplink.bridge, rules))?)
            }
        }
    }

    pub(super) fn forward_infos(&self) -> Vec<ForwardInfo> {
        self.forwards.values().map(|(spec, origin)| ForwardInfo::new(spec, *origin)).collect()
    }
}
