//! What Docker asks of overlay networks: subnets that the store's records have, networks that are made with them, and addresses of this host's
//! blocks. What the store is to say first, Docker waits for: the call is tried again whenever the store was heard, up to [`PATIENCE`].

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use serde_json::Value;

use super::super::{ControlError, Switch};
use crate::docker::message::{CreateNetwork, Request, RequestAddress, RequestPool};
use crate::docker::overlay::{self, Part};
use crate::docker::server::{Ask, Reply};
use crate::docker::{self, DockerError, Network};
use crate::overlay::{ClusterSettings, Local};
use api::OverlayName;

/// How long Docker may wait for the store: a host that begins a cluster takes five seconds for that.
const PATIENCE: Duration = Duration::from_secs(15);

/// A call that waits for the store.
pub(in crate::control) struct Waiting {
    request: Request,
    reply: Reply,
    since: Instant,
}

impl Switch {
    /// Has a call wait that may be answered in a moment, unless it has waited long enough.
    pub(super) fn wait_for_store(&mut self, (request, reply, since): (Request, Reply, Instant), error: DockerError) {
        if since.elapsed() >= PATIENCE || self.ledger.file.cluster.is_none() {
            let _ = reply.send(Err(error.to_string()));
            return;
        }
        // Docker's connections bound how many wait.
        self.docker.waiting.push(Waiting { request, reply, since });
        self.overlay.touch();
        self.follow_overlay();
    }

    /// Tries the calls again that wait for the store. The control loop calls it when the store was heard, and at every `ROLL_CALL`.
    pub(in crate::control) fn answer_waiting(&mut self) {
        // Those that have not had their turn stay in the list, for this host is part of their networks while they wait.
        for _ in 0..self.docker.waiting.len() {
            let Waiting { request, reply, since } = self.docker.waiting.remove(0);
            // What Docker does not hear of any more must not be given to it.
            if !reply.is_closed() {
                self.answer_since(Ask { request, reply }, since);
            }
        }
    }

    /// Gives a subnet of the overlay network that is named: what its record says, or else what is asked for or chosen.
    pub(super) fn join_pool(&mut self, request: &RequestPool) -> Result<Value, ControlError> {
        let name = overlay::named(&request.options)?;
        self.check_in_cluster()?;
        if !request.range.is_empty() {
            let sentence = "addresses of an overlay network come from blocks that the hosts share out: leave out --ip-range";
            return Err(DockerError::Ipam(sentence.to_owned()).into());
        }
        let wanted = docker::asked_subnet(request)?;
        let joined = match self.ledger.tables.known.get(&name) {
            Some(known) => overlay::subnet_of(&name, known, wanted, request.v6)?,
            None if !self.overlay.is_up() => return Err(self.not_heard(&name).into()),
            None => wanted,
        };
        let net = joined.map_or_else(|| self.choose_subnet(&name, request.v6), Ok)?;
        self.change_pools(|pools| pools.join(name, net))
    }

    fn choose_subnet(&self, name: &OverlayName, v6: bool) -> Result<IpNet, DockerError> {
        let used = self.used_subnets();
        let pools = &self.ledger.state.docker.pools;
        let is_used = |net: &IpNet| {
            let in_use = used.iter().any(|other| net.contains(&other.network()) || other.contains(&net.network()));
            in_use || pools.overlaps(net) || overlay::is_known(&self.ledger.tables, net)
        };
        overlay::choose(name, v6, is_used)
    }

    fn check_in_cluster(&self) -> Result<(), DockerError> {
        if self.ledger.file.cluster.is_none() { Err(DockerError::NoCluster) } else { Ok(()) }
    }

    fn not_heard(&self, name: &OverlayName) -> DockerError {
        let why = self.overlay.problem().unwrap_or("the store was not heard yet").to_owned();
        DockerError::NotYet(name.clone(), why)
    }

    /// Whether a new network can be the host's part of its overlay network. One that the store does not have begins with it.
    pub(super) fn check_part(&self, network: &Network) -> Result<(), ControlError> {
        let Some(name) = &network.options.net else { return Ok(()) };
        self.check_in_cluster()?;
        let pools = &self.ledger.state.docker.pools;
        let others = network.subnets.iter().filter_map(|subnet| pools.overlay_with(&subnet.net));
        if let Some(other) = others.into_iter().find(|other| *other != name) {
            return Err(overlay::other_name(name, other).into());
        }
        match self.ledger.tables.known.get(name) {
            Some(known) => Ok(overlay::check_record(name, known, network)?),
            None if !self.overlay.is_up() => Err(self.not_heard(name).into()),
            None => Err(DockerError::NotYet(name.clone(), "the store does not take it".to_owned()).into()),
        }
    }

    pub(super) fn request_address(&mut self, request: &RequestAddress) -> Result<Value, ControlError> {
        let tables = Arc::clone(&self.ledger.tables);
        let name = self.ledger.state.docker.pools.overlay_of(&request.pool).cloned();
        let is_shared = self.ledger.file.cluster.as_ref().is_none_or(ClusterSettings::shares_addresses);
        let is_made = name.as_ref().is_some_and(|name| self.ledger.state.docker.network_in(name).is_some());
        let part = name.as_ref().map(|name| {
            let (table, known) = (tables.networks.get(name), tables.known.get(name));
            Part { name, table, known, is_made, is_shared }
        });
        self.change_pools(|pools| pools.request_address(request, part))
    }

    /// The overlay networks that Docker is about to make, each as a part without a bridge: so the store hears of them before Docker is answered.
    pub(in crate::control) fn networks_to_come(&self) -> impl Iterator<Item = (OverlayName, Local)> {
        let creations = self.docker.waiting.iter().filter_map(|waiting| match &waiting.request {
            Request::CreateNetwork(request) => part_to_come(request),
            _ => None,
        });
        creations.into_iter()
    }

    /// The addresses of an overlay network that Docker has, and those that it waits for.
    pub(in crate::control) fn docker_addresses(&self, name: &OverlayName) -> (BTreeSet<IpAddr>, BTreeSet<IpAddr>) {
        let pools = &self.ledger.state.docker.pools;
        let claimed = |waiting: &Waiting| match &waiting.request {
            Request::RequestAddress(request) if pools.overlay_of(&request.pool) == Some(name) => {
                docker::asked_address(request).ok()
            }
            _ => None,
        };
        (pools.given_of(name), self.docker.waiting.iter().filter_map(claimed).collect())
    }
}

fn part_to_come(request: &CreateNetwork) -> Option<(OverlayName, Local)> {
    let network = Network::read(request).ok()?;
    let subnets = network.gateways();
    let given = network.subnets.iter().map(|subnet| subnet.net).collect();
    let encrypt = network.options.encrypt;
    Some((network.options.net?, Local { subnets, encrypt, given, ..Local::default() }))
}
