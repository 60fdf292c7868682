//! Published ports of containers.

use std::collections::BTreeSet;

use nat::Protocol;
use serde_json::{Value, json};

use super::super::{ControlError, Switch};
use crate::api::{ForwardKey, ForwardSpec, Reply};
use crate::docker::message;
use crate::docker::{self, DockerError, EndpointId};
use crate::host::HostError;

/// How many ports that turn out to be in use are passed over for a container that leaves the choice.
const TRIES: usize = 64;

impl Switch {
    /// Publishes ports instead of those that the container had.
    pub(super) fn publish_ports(&mut self, request: &message::Publish) -> Result<Value, ControlError> {
        let id = &request.reference.endpoint;
        if self.network(&self.endpoint(id)?.network)?.options.parent.is_some() {
            // As with macvlan: its ports are on the LAN as they are.
            return Ok(json!({}));
        }
        let bindings = docker::bindings(&request.options)?;
        let mut refused = BTreeSet::new();
        let mut last = None;
        while refused.len() < TRIES {
            let forwards = match self.choose_ports(id, &bindings, &refused) {
                Ok(forwards) => forwards,
                Err(error) => return Err(last.unwrap_or(error)),
            };
            if forwards == self.endpoint(id)?.published {
                return Ok(json!({}));
            }
            match self.change_endpoint(id, |endpoint| endpoint.published = forwards) {
                Ok(()) => return Ok(json!({})),
                Err(ControlError::Host(HostError::InUse { protocol, address })) => {
                    refused.insert((protocol, address.port()));
                    last = Some(ControlError::Host(HostError::InUse { protocol, address }));
                }
                Err(error) => return Err(error),
            }
        }
        Err(last.unwrap_or_else(|| DockerError::PortsTaken("every port that was tried is".to_owned()).into()))
    }

    fn choose_ports(
        &self,
        id: &EndpointId,
        bindings: &[message::Binding],
        refused: &BTreeSet<(Protocol, u16)>,
    ) -> Result<Vec<ForwardSpec>, ControlError> {
        if bindings.is_empty() {
            return Ok(Vec::new());
        }
        let endpoint = self.endpoint(id)?;
        let bridge = self.bridge(&self.network(&endpoint.network)?.bridge)?;
        let uplink = bridge.spec.uplink.as_ref().ok_or_else(|| {
            DockerError::Port(format!("no port can be published: bridge \"{}\" has no uplink", bridge.spec.name))
        })?;
        let kind = self.uplink(uplink)?.spec.kind_name();
        let own = |key: &ForwardKey| endpoint.forwards_at(uplink).any(|spec| spec.key == *key);
        let is_taken = |key: &ForwardKey| self.forwards.keys().any(|other| other.overlaps(key, kind) && !own(other));
        let chosen = docker::choose(bindings, endpoint, &docker::Outside { uplink, kind, is_taken: &is_taken, refused })?;
        let layout = self.layout();
        chosen.iter().try_for_each(|spec| layout.network().check_forward(spec))?;
        Ok(chosen)
    }

    pub(super) fn withdraw_ports(&mut self, id: &EndpointId) -> Result<Value, ControlError> {
        if self.state.docker.endpoints.get(id).is_some_and(|endpoint| !endpoint.published.is_empty()) {
            self.change_endpoint(id, |endpoint| endpoint.published.clear())?;
        }
        Ok(json!({}))
    }

    /// Takes one port of a container back, as vsctl asks.
    pub(in crate::control) fn withdraw_port(&mut self, key: &ForwardKey) -> Result<Reply, ControlError> {
        let target = self.forwards.get(key).map(|(spec, _)| spec.to);
        self.change_docker(|docker| {
            for endpoint in docker.endpoints.values_mut() {
                endpoint.published = endpoint.forwards_at(&key.uplink).collect();
                endpoint.published.retain(|spec| spec.key != *key || Some(spec.to) != target);
            }
        })?;
        Ok(Reply::Done(Vec::new()))
    }
}
