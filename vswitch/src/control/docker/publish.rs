//! Published ports of containers.

use std::collections::BTreeSet;

use nat::Protocol;
use serde_json::{Value, json};

use super::super::{ControlError, Switch};
use crate::docker::message;
use crate::docker::{self, DockerError, Endpoint, EndpointId};
use crate::host::HostError;
use api::{ForwardKey, ForwardSpec, PortName, Reply, Resource, UplinkKindName};

/// How many ports that turn out to be in use are passed over for a container that leaves the choice.
const TRIES: usize = 64;

/// What a container wants to be published.
struct Wanted {
    bindings: Vec<message::Binding>,
    /// Whether another of its endpoints has the IPv6 ports.
    leaves_ipv6: bool,
}

impl Switch {
    /// Publishes ports instead of those that the container had.
    pub(super) fn publish_ports(&mut self, request: &message::Publish) -> Result<Value, ControlError> {
        let id = &request.reference.endpoint;
        if self.network(&self.endpoint(id)?.network)?.options.parent.is_some() {
            // As with macvlan: its ports are on the LAN as they are.
            return Ok(json!({}));
        }
        let wanted =
            Wanted { bindings: docker::bindings(&request.options)?, leaves_ipv6: docker::leaves_ipv6(&request.options) };
        match self.publish_wanted(id, &wanted) {
            // The container that has the port may be dead, of which Docker does not tell.
            Err(_) if self.collect_dead() => self.publish_wanted(id, &wanted),
            done => done,
        }
    }

    fn publish_wanted(&mut self, id: &EndpointId, wanted: &Wanted) -> Result<Value, ControlError> {
        let mut refused = BTreeSet::new();
        let mut last = None;
        while refused.len() < TRIES {
            let forwards = match self.choose_ports(id, wanted, &refused) {
                Ok(forwards) => forwards,
                Err(error) => return Err(last.unwrap_or(error)),
            };
            if forwards == self.endpoint(id)?.published {
                return Ok(json!({}));
            }
            match self.change_ports(id, forwards) {
                Ok(()) => return Ok(json!({})),
                Err(ControlError::Host(HostError::InUse { protocol, address })) => {
                    let is_new = refused.insert((protocol, address.port()));
                    last = Some(ControlError::Host(HostError::InUse { protocol, address }));
                    // It is a port of another container, that could not be had at a start: another choice does not help.
                    if !is_new {
                        break;
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Err(last.unwrap_or_else(|| DockerError::PortsTaken("every port that was tried is".to_owned()).into()))
    }

    fn choose_ports(
        &self,
        id: &EndpointId,
        wanted: &Wanted,
        refused: &BTreeSet<(Protocol, u16)>,
    ) -> Result<Vec<ForwardSpec>, ControlError> {
        if wanted.bindings.is_empty() {
            return Ok(Vec::new());
        }
        let endpoint = self.endpoint(id)?;
        let network = self.network(&endpoint.network)?;
        let bridge = self.inventory.bridge(&network.bridge)?;
        let uplink = bridge.spec.uplink.as_ref().ok_or_else(|| {
            DockerError::Port(format!("no port can be published: bridge \"{}\" has no uplink", bridge.spec.name))
        })?;
        let kind = self.inventory.uplink(uplink)?.spec.kind_name();
        let siblings = self.siblings(id, endpoint);
        let own: BTreeSet<ForwardKey> =
            [id].into_iter().chain(&siblings).flat_map(|id| self.forwards_of(id)).map(|spec| spec.key).collect();
        let is_taken =
            |key: &ForwardKey| self.inventory.forwards.keys().any(|other| other.overlaps(key, kind) && !own.contains(other));
        let siblings: Vec<ForwardSpec> =
            siblings.iter().flat_map(|id| self.forwards_of(id)).filter_map(|spec| self.seen_at(uplink, kind, spec)).collect();
        let outside = docker::Outside {
            uplink,
            kind,
            listen: network.options.publish_at,
            leaves_ipv6: wanted.leaves_ipv6,
            is_taken: &is_taken,
            siblings: &siblings,
            refused,
        };
        let chosen = docker::choose(&wanted.bindings, endpoint, &outside)?;
        let mut layout = self.inventory.layout();
        layout.retain(|resource, _| !matches!(resource, Resource::Forward(spec) if own.contains(&spec.key)));
        let network = layout.network();
        chosen.iter().try_for_each(|spec| network.check_forward(spec))?;
        Ok(chosen)
    }

    /// The other endpoints of a container.
    fn siblings(&self, id: &EndpointId, endpoint: &Endpoint) -> Vec<EndpointId> {
        let path = endpoint.sandbox.as_ref().map(|sandbox| &sandbox.path);
        let is_sibling =
            |other: &Endpoint| path.is_some() && !other.left && other.sandbox.as_ref().map(|sandbox| &sandbox.path) == path;
        let others = self.ledger.state.docker.endpoints.iter().filter(|(other, endpoint)| *other != id && is_sibling(endpoint));
        others.map(|(id, _)| id.clone()).collect()
    }

    /// What an endpoint has published, at its network's uplink.
    fn forwards_of(&self, id: &EndpointId) -> Vec<ForwardSpec> {
        let endpoint = self.ledger.state.docker.endpoints.get(id);
        let bridge = endpoint
            .and_then(|endpoint| self.ledger.state.docker.networks.get(&endpoint.network))
            .and_then(|network| self.inventory.bridges.get(&network.bridge));
        let uplink = bridge.and_then(|bridge| bridge.spec.uplink.as_ref());
        endpoint.zip(uplink).into_iter().flat_map(|(endpoint, uplink)| endpoint.forwards_at(uplink)).collect()
    }

    /// A forward as one at this uplink, if it is in the way there. All uplinks by the host's sockets are in each other's way.
    fn seen_at(&self, uplink: &PortName, kind: UplinkKindName, spec: ForwardSpec) -> Option<ForwardSpec> {
        let both_host = kind == UplinkKindName::Host && self.inventory.uplink(&spec.key.uplink).ok()?.spec.kind_name() == kind;
        let key = ForwardKey { uplink: uplink.clone(), ..spec.key.clone() };
        (both_host || spec.key.uplink == *uplink).then_some(ForwardSpec { key, to: spec.to })
    }

    /// Gives an endpoint these forwards, which its siblings lose where they had them.
    fn change_ports(&mut self, id: &EndpointId, forwards: Vec<ForwardSpec>) -> Result<(), ControlError> {
        let mut kept: Vec<(EndpointId, Vec<ForwardSpec>)> = Vec::new();
        if let Some(new) = forwards.first() {
            let (uplink, kind) = (&new.key.uplink, self.inventory.uplink(&new.key.uplink)?.spec.kind_name());
            let is_met = |spec: &ForwardSpec| {
                let seen = self.seen_at(uplink, kind, spec.clone());
                seen.is_some_and(|seen| forwards.iter().any(|new| seen.key.overlaps(&new.key, kind)))
            };
            for sibling in self.siblings(id, self.endpoint(id)?) {
                let mut published = self.forwards_of(&sibling);
                published.retain(|spec| !is_met(spec));
                kept.push((sibling, published));
            }
        }
        kept.push((id.clone(), forwards));
        self.change_docker(|docker| {
            for (id, published) in kept {
                if let Some(endpoint) = docker.endpoints.get_mut(&id) {
                    endpoint.published = published;
                }
            }
        })
    }

    pub(super) fn withdraw_ports(&mut self, id: &EndpointId) -> Result<Value, ControlError> {
        if self.ledger.state.docker.endpoints.get(id).is_some_and(|endpoint| !endpoint.published.is_empty()) {
            self.change_endpoint(id, |endpoint| endpoint.published.clear())?;
        }
        Ok(json!({}))
    }

    /// Takes one port of a container back, as vsctl asks.
    pub(in crate::control) fn withdraw_port(&mut self, key: &ForwardKey) -> Result<Reply, ControlError> {
        let target = self.inventory.forwards.get(key).map(|(spec, _)| spec.to);
        self.change_docker(|docker| {
            for endpoint in docker.endpoints.values_mut() {
                endpoint.published = endpoint.forwards_at(&key.uplink).collect();
                endpoint.published.retain(|spec| spec.key != *key || Some(spec.to) != target);
            }
        })?;
        Ok(Reply::Done(Vec::new()))
    }
}
