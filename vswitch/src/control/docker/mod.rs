//! What Docker asks of the driver, carried out: each call changes what is kept ([`Docker`]), and the difference that this makes to the switch is
//! applied as a reload's would be.

mod ask;
mod awaited;
mod endpoint;
mod lan;
mod lans;
mod names;
mod overlay;
mod publish;
mod questions;

use std::net::IpAddr;
use std::time::Instant;

use ipnet::IpNet;
use serde_json::{Value, json};

use super::{ControlError, Port, Switch, Uplink};
use crate::config::{Change, Layout, State};
use crate::docker::message::{self, Driver, Request};
use crate::docker::server::Ask;
use crate::docker::{self, Docker, DockerError, Endpoint, EndpointId, Names, Network, NetworkId};
use api::{BridgeName, Origin, PortName, Resource, ResourceKey};

use awaited::Awaited;
pub(super) use lans::Lans;
use overlay::Waiting;
use questions::LanQuestions;

/// What Docker has begun and not ended.
#[derive(Default)]
pub(super) struct DockerDesk {
    /// Endpoints whose devices have not been seen in a sandbox yet.
    awaited: Awaited,
    /// Containers that wait until a LAN was asked about their addresses.
    asking: LanQuestions,
    /// Calls that wait for the store of overlay networks.
    waiting: Vec<Waiting>,
    /// What Docker calls what is its own.
    pub(super) names: Names,
}

impl Switch {
    /// Carries out a call of Docker's and answers it: at once, but for an endpoint about whose address a LAN is asked, and for what the store of
    /// overlay networks must say first. Of what is refused nothing was done.
    pub fn answer_docker(&mut self, ask: Ask) {
        self.answer_since(ask, Instant::now());
    }

    fn answer_since(&mut self, Ask { request, reply }: Ask, since: Instant) {
        let change = request.change();
        match request {
            Request::CreateEndpoint(request) if self.asks_lan(&request) => self.ask_lan(request, reply),
            request => {
                let answer = match self.carry_out(&request) {
                    Err(ControlError::Docker(error @ DockerError::NotYet(..))) => {
                        return self.wait_for_store((request, reply, since), error);
                    }
                    answer => answer,
                };
                if let (Some(change), Ok(_)) = (change, &answer) {
                    tracing::info!("{change}, asked for by Docker");
                    self.note_change(change, "Docker");
                }
                self.follow_lans();
                self.follow_overlay();
                // Docker may have been stopped meanwhile.
                let _ = reply.send(answer.map_err(|error| error.to_string()));
            }
        }
        self.tell_stations();
        self.note_arrivals();
    }

    fn carry_out(&mut self, request: &Request) -> Result<Value, ControlError> {
        match request {
            Request::CreateNetwork(request) => self.create_network(request),
            Request::DeleteNetwork(request) => self.delete_network(&request.network),
            Request::CreateEndpoint(request) => self.create_endpoint(request),
            Request::DeleteEndpoint(request) => self.delete_endpoints(&[request.endpoint.clone()].into()),
            Request::Join(request) => self.join(request),
            Request::Leave(request) => self.leave(&request.endpoint),
            Request::Publish(request) => self.publish_ports(request),
            Request::Withdraw(request) => self.withdraw_ports(&request.endpoint),
            Request::Describe(request) => self.describe(request),
            Request::RequestPool(request) if request.driver == Driver::Overlay => self.join_pool(request),
            Request::RequestPool(request) => self.request_pool(request),
            Request::ReleasePool(request) => self.change_pools(|pools| {
                pools.release_pool(&request.pool);
                Ok(json!({}))
            }),
            Request::RequestAddress(request) => self.request_address(request),
            Request::ReleaseAddress(request) => self.change_pools(|pools| {
                pools.release_address(request);
                Ok(json!({}))
            }),
        }
    }

    fn create_network(&mut self, request: &message::CreateNetwork) -> Result<Value, ControlError> {
        let network = Network::read(request)?;
        let known = &self.ledger.state.docker.networks;
        match known.get(&request.network) {
            Some(same) if *same == network => return Ok(json!({})),
            Some(_) => return Err(DockerError::Different(format!("network {}", request.network)).into()),
            None if known.len() >= docker::MOST_NETWORKS => {
                return Err(DockerError::TooMany(format!("{} networks", docker::MOST_NETWORKS)).into());
            }
            None => {}
        }
        self.check_network(&request.network, &network)?;
        self.check_part(&network)?;
        self.change_docker(|docker| docker.networks.insert(request.network.clone(), network))?;
        Ok(json!({}))
    }

    /// Whether a network fits what is there.
    fn check_network(&self, id: &NetworkId, network: &Network) -> Result<(), ControlError> {
        if network.options.bridge.is_some() {
            let bridge = self.inventory.bridges.get(&network.bridge).filter(|bridge| bridge.origin != Origin::Docker);
            let bridge = bridge.ok_or_else(|| DockerError::NoBridge(network.bridge.clone()))?;
            return Ok(network.check_bridge(&bridge.spec)?);
        }
        let shared = self.ledger.state.docker.network_on(&network.bridge).is_some() && network.options.parent.is_some();
        if self.inventory.bridges.contains_key(&network.bridge) && !shared {
            return Err(DockerError::BridgeTaken(network.bridge.clone()).into());
        }
        let mut docker = Docker::default();
        docker.networks.insert(id.clone(), network.clone());
        let (uplinks, bridges) = docker.bridges(&self.ledger.file.docker);
        let (mut wanted, _) = self.ledger.wanted();
        for spec in &bridges {
            self.check_apart(&spec.clone().into())?;
        }
        for spec in uplinks {
            self.check_apart(&spec.clone().into())?;
            wanted.network().check_uplink(&spec)?;
            wanted.insert_new(spec, Origin::Docker);
        }
        Ok(bridges.iter().try_for_each(|spec| wanted.network().check_bridge(spec))?)
    }

    /// What vsctl added to the network's bridge goes with it: Docker removes the network whatever the answer is.
    fn delete_network(&mut self, id: &NetworkId) -> Result<Value, ControlError> {
        let Some(network) = self.ledger.state.docker.networks.get(id).cloned() else { return Ok(json!({})) };
        self.docker.asking.retain(|_, endpoint| endpoint.network != *id);
        let nets: Vec<IpNet> = network.subnets.iter().map(|subnet| subnet.net).collect();
        let others = self.ledger.state.docker.networks.values().filter(|other| other.bridge == network.bridge).count() > 1;
        let owned = network.options.bridge.is_none() && !others;
        self.change(Origin::Docker, |state| {
            state.docker.endpoints.retain(|_, endpoint| endpoint.network != *id);
            state.docker.networks.remove(id);
            state.docker.hosts.remove(id);
            if owned {
                forget_members(state, &network.bridge, &nets);
            }
        })?;
        Ok(json!({}))
    }

    /// The subnets of bridges and uplinks.
    fn used_subnets(&self) -> Vec<IpNet> {
        let bridges = self.inventory.bridges.values().flat_map(|bridge| bridge.spec.addresses.clone());
        bridges.chain(self.inventory.all::<Uplink>().flat_map(Uplink::addresses)).collect()
    }

    fn request_pool(&mut self, request: &message::RequestPool) -> Result<Value, ControlError> {
        let used = self.used_subnets();
        let is_used = |net: &IpNet| used.iter().any(|other| net.contains(&other.network()) || other.contains(&net.network()));
        self.change_pools(|pools| pools.request_pool(request, is_used))
    }

    fn change_pools(
        &mut self,
        change: impl FnOnce(&mut docker::Pools) -> Result<Value, DockerError>,
    ) -> Result<Value, ControlError> {
        let mut pools = self.ledger.state.docker.pools.clone();
        let answer = change(&mut pools)?;
        if pools != self.ledger.state.docker.pools {
            self.change_docker(|docker| docker.pools = pools)?;
        }
        Ok(answer)
    }

    fn change_docker<T>(&mut self, change: impl FnOnce(&mut Docker) -> T) -> Result<(), ControlError> {
        self.change(Origin::Docker, |state| change(&mut state.docker))
    }

    fn network(&self, id: &NetworkId) -> Result<&Network, DockerError> {
        self.ledger.state.docker.networks.get(id).ok_or_else(|| DockerError::NoNetwork(id.clone()))
    }

    fn endpoint(&self, id: &EndpointId) -> Result<&Endpoint, DockerError> {
        self.ledger.state.docker.endpoints.get(id).ok_or_else(|| DockerError::NoEndpoint(id.clone()))
    }

    /// Whether a layout leaves every running container on its network: a port that goes takes `eth0` out of it for good.
    pub(in crate::control) fn check_containers(&self, wanted: &Layout) -> Result<(), ControlError> {
        let ports = self.inventory.named::<Port>().filter(|(_, port)| port.origin == Origin::Docker);
        let mut lost =
            ports.filter(|(name, _)| !wanted.has(&ResourceKey::Port((*name).clone()))).map(|(_, port)| &port.spec.bridge);
        let Some(bridge) = lost.next() else { return self.check_interfaces(wanted) };
        let count = 1 + lost.filter(|other| *other == bridge).count();
        let network = self.ledger.state.docker.network_on(bridge).map_or_else(String::new, ToString::to_string);
        Err(ControlError::TakesNetwork { network, bridge: bridge.clone(), count })
    }

    /// Whether a bridge is vsctl's to remove.
    pub(in crate::control) fn check_own_bridge(&self, name: &BridgeName) -> Result<(), ControlError> {
        self.inventory.bridge(name)?;
        match self.ledger.state.docker.network_on(name) {
            Some(id) => Err(ControlError::DockersBridge(name.clone(), id.clone())),
            None => Ok(()),
        }
    }

    /// A port that is vsctl's to change.
    pub(in crate::control) fn own_port(&self, name: &PortName) -> Result<&Port, ControlError> {
        let port = self.inventory.port(name)?;
        if let Some((key, _)) = self.ledger.state.containers.of_port(name).filter(|_| port.origin == Origin::Container) {
            return Err(ControlError::ContainersPort(name.clone(), key.clone()));
        }
        let endpoint = self.ledger.state.docker.endpoints.values().find(|endpoint| endpoint.port == *name);
        match endpoint.filter(|_| port.origin == Origin::Docker) {
            Some(endpoint) => Err(ControlError::DockersPort(name.clone(), endpoint.network.clone())),
            None => match self.ledger.state.docker.network_on(&port.spec.bridge).filter(|_| port.origin == Origin::Docker) {
                Some(id) => Err(ControlError::DockersLan(name.clone(), id.clone())),
                None => Ok(port),
            },
        }
    }
}

/// Forgets what vsctl added to a bridge.
fn forget_members(state: &mut State, bridge: &BridgeName, nets: &[IpNet]) {
    let is_inside = |address: IpAddr| nets.iter().any(|net| net.contains(&address));
    let is_on_it = |resource: &Resource| match resource {
        Resource::Forward(spec) => is_inside(spec.to.ip()),
        resource => resource.bridge() == Some(bridge),
    };
    state.changes.0.retain(|_, change| !matches!(change, Change::Set(resource) if is_on_it(resource)));
}
