//! Containers' places on networks: from *CreateEndpoint* to *DeleteEndpoint*, or to a death of which Docker does not tell.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Instant;

use ipnet::IpNet;
use serde_json::{Value, json};

use super::super::{ControlError, Port, Switch};
use super::awaited::Awaited;
use crate::attach;
use crate::docker::message::{self, EndpointReference};
use crate::docker::{self, Docker, DockerError, Endpoint, EndpointId, Network, Sandbox};
use api::{ForwardKey, Origin, PortName, protocol_name};

/// What a new endpoint comes to.
pub(super) enum Begun {
    /// It is there already, with this answer.
    Known(Value),
    /// It is to be added.
    New(Box<Endpoint>),
}

impl Switch {
    pub(super) fn create_endpoint(&mut self, request: &message::CreateEndpoint) -> Result<Value, ControlError> {
        match self.begin_endpoint(request)? {
            Begun::Known(answer) => Ok(answer),
            Begun::New(endpoint) => self.add_endpoint(request, *endpoint),
        }
    }

    /// Reads what is wanted; it may be there already.
    pub(super) fn begin_endpoint(&self, request: &message::CreateEndpoint) -> Result<Begun, ControlError> {
        let EndpointReference { network, endpoint: id } = &request.reference;
        let endpoint = Endpoint::read(request, self.network(network)?)?;
        let known = &self.ledger.state.docker.endpoints;
        match known.get(id) {
            Some(old) if old.mac == endpoint.mac && (old.lease.is_some() || old.addresses == endpoint.addresses) => {
                Ok(Begun::Known(interface(request, old)))
            }
            Some(_) => Err(DockerError::Different(format!("endpoint {id}")).into()),
            None if known.len() + self.docker.asking.len() >= docker::MOST_ENDPOINTS => {
                Err(DockerError::TooMany(format!("{} containers", docker::MOST_ENDPOINTS)).into())
            }
            None => Ok(Begun::New(Box::new(endpoint))),
        }
    }

    pub(super) fn add_endpoint(
        &mut self,
        request: &message::CreateEndpoint,
        endpoint: Endpoint,
    ) -> Result<Value, ControlError> {
        let id = &request.reference.endpoint;
        let stale = self.rivals(&endpoint)?;
        self.check_addresses(&endpoint, self.network(&endpoint.network)?)?;
        let answer = interface(request, &endpoint);
        self.docker.awaited.begin(id.clone(), Instant::now());
        self.change_docker(|docker| {
            docker.endpoints.retain(|id, _| !stale.contains(id));
            docker.endpoints.insert(id.clone(), endpoint);
        })?;
        Ok(answer)
    }

    /// Endpoints that have an address of a new one and whose containers are dead.
    pub(super) fn rivals(&self, new: &Endpoint) -> Result<BTreeSet<EndpointId>, DockerError> {
        let docker = &self.ledger.state.docker;
        self.docker.awaited.rivals(new, docker, Instant::now(), |old| has_arrived(docker, old))
    }

    /// Whether the addresses of an endpoint are free on its bridge, and the name of its port is. Ports of Docker's are not compared: Docker gave
    /// each its own address.
    pub(super) fn check_addresses(&self, endpoint: &Endpoint, network: &Network) -> Result<(), ControlError> {
        if self.inventory.vport(&endpoint.port).is_some() {
            return Err(DockerError::PortTaken(endpoint.port.clone()).into());
        }
        let others =
            self.inventory.all::<Port>().filter(|port| port.spec.bridge == network.bridge && port.origin != Origin::Docker);
        for port in others {
            if let Some(net) = port.spec.addresses.iter().find(|net| endpoint.has(net.addr())) {
                return Err(DockerError::AddressTaken(net.addr().to_string(), port.spec.name.clone()).into());
            }
        }
        let of_host = self.ledger.state.docker.hosts.get(&endpoint.network).into_iter().flatten();
        if let Some(address) = of_host.copied().find(|address| endpoint.has(*address)) {
            return Err(DockerError::AddressOfHost(address).into());
        }
        let spec = endpoint.port_spec(network, "/".into())?;
        Ok(self.inventory.network().check_port(&spec)?)
    }

    /// Removes endpoints; those that are gone are fine.
    pub(super) fn delete_endpoints(&mut self, ids: &BTreeSet<EndpointId>) -> Result<Value, ControlError> {
        self.docker.asking.retain(|id, _| !ids.contains(id));
        if ids.iter().any(|id| self.ledger.state.docker.endpoints.contains_key(id)) {
            self.change_docker(|docker| docker.endpoints.retain(|id, _| !ids.contains(id)))?;
        }
        Ok(json!({}))
    }

    pub(super) fn join(&mut self, request: &message::Join) -> Result<Value, ControlError> {
        let EndpointReference { network, endpoint: id } = &request.reference;
        let sandbox = Sandbox::at(&request.sandbox)?;
        let endpoint = self.endpoint(id)?;
        if endpoint.network != *network {
            return Err(DockerError::NoEndpoint(id.clone()).into());
        }
        let network = self.network(network)?;
        let [v4, v6] = [true, false].map(|v4| endpoint.gateway(network, v4));
        let mut answer = json!({
            "InterfaceName": { "SrcName": endpoint.port, "DstPrefix": endpoint.prefix.as_deref().unwrap_or("eth") },
            // Else Docker adds an interface of its own where there is no gateway.
            "DisableGatewayService": v4.is_none(),
        });
        if let Some(gateway) = v4 {
            answer["Gateway"] = json!(gateway);
        }
        if let Some(gateway) = v6 {
            answer["GatewayIPv6"] = json!(gateway);
        }
        if let Some(lease) = &endpoint.lease {
            answer["StaticRoutes"] = json!(lease.static_routes());
        }
        let (port, bridge) = (endpoint.port.clone(), network.bridge.clone());
        self.docker.awaited.begin(id.clone(), Instant::now());
        self.change_endpoint(id, |endpoint| (endpoint.sandbox, endpoint.left) = (Some(sandbox), false))?;
        // A later switch.toml may have left no room for the network.
        if self.inventory.has::<Port>(&port) { Ok(answer) } else { Err(DockerError::LeftOut(bridge).into()) }
    }

    pub(super) fn leave(&mut self, id: &EndpointId) -> Result<Value, ControlError> {
        if self.ledger.state.docker.endpoints.get(id).is_some_and(|endpoint| !endpoint.left) {
            self.change_endpoint(id, |endpoint| endpoint.left = true)?;
        }
        Ok(json!({}))
    }

    pub(super) fn describe(&self, request: &EndpointReference) -> Result<Value, ControlError> {
        let endpoint = self.endpoint(&request.endpoint)?;
        let network = self.network(&endpoint.network)?;
        let published = endpoint.published.iter().map(|spec| {
            let ForwardKey { protocol, ports, .. } = &spec.key;
            format!("{}/{ports} -> {}", protocol_name(*protocol), spec.to)
        });
        Ok(json!({ "Value": {
            "vswitch.port": endpoint.port,
            "vswitch.bridge": network.bridge,
            "vswitch.published": published.collect::<Vec<_>>(),
            "vswitch.lease": self.lease_info(&endpoint.port),
        }}))
    }

    pub(super) fn change_endpoint(&mut self, id: &EndpointId, change: impl FnOnce(&mut Endpoint)) -> Result<(), ControlError> {
        self.change_docker(|docker| docker.endpoints.get_mut(id).map(change))
    }

    /// Forgets endpoints whose containers are dead, and what was theirs on the switch; says whether there were any. Called at every
    /// `LOOK` of the control loop, when a device or a namespace goes, and when a port cannot be published.
    pub fn collect_dead(&mut self) -> bool {
        self.collect_dead_containers();
        let dead = self.docker.awaited.dead(&self.ledger.state.docker, Instant::now());
        if dead.is_empty() {
            return false;
        }
        let freed = self.addresses_of(&dead);
        tracing::info!(count = dead.len(), "Docker's containers are gone without a word: their ports are removed");
        let deleted = self.delete_endpoints(&dead).and_then(|_| self.change_docker(|docker| docker.forget_addresses(&freed)));
        deleted.inspect_err(|error| tracing::warn!("ports of dead containers could not be removed: {error}")).is_ok()
    }

    /// Withdraws what a container has published whose device is gone: it is dead, or has lost its way in.
    pub(in crate::control) fn withdraw_lost(&mut self, port: &PortName) {
        let lost = self.ledger.state.docker.endpoints.iter().find(|(_, endpoint)| endpoint.port == *port);
        if let Some(id) = lost.map(|(id, _)| id.clone())
            && let Err(error) = self.withdraw_ports(&id)
        {
            tracing::warn!(%port, "what it published could not be withdrawn: {error}");
        }
    }

    /// Stops awaiting the endpoints whose devices have come to their sandboxes, so that their deaths show. Docker does not say when a device
    /// comes. The kernel does, but for sandboxes that could not be watched, so the control loop calls this at every `SURVEY` too.
    pub(in crate::control) fn note_arrivals(&mut self) {
        let docker = &self.ledger.state.docker;
        self.docker.awaited.settle(docker, |endpoint| has_arrived(docker, endpoint));
    }

    /// Awaits the devices of all endpoints, which another vswitchd may have been asked for just now.
    pub(in crate::control) fn await_all(&mut self) {
        self.docker.awaited = Awaited::all(&self.ledger.state.docker, Instant::now());
    }

    /// Forgets endpoints whose containers died before this start.
    pub(in crate::control) fn forget_dead(&mut self) {
        let docker = &self.ledger.state.docker;
        let mut dead = self.docker.awaited.dead(docker, Instant::now());
        let lost = docker.endpoints.iter().filter(|(_, endpoint)| !has_arrived(docker, endpoint));
        dead.extend(lost.map(|(id, _)| id.clone()));
        let freed = self.addresses_of(&dead);
        self.ledger.state.docker.endpoints.retain(|id, _| !dead.contains(id));
        self.ledger.state.docker.forget_addresses(&freed);
    }

    fn addresses_of(&self, ids: &BTreeSet<EndpointId>) -> Vec<IpAddr> {
        let endpoints = self.ledger.state.docker.endpoints.iter().filter(|(id, _)| ids.contains(id));
        endpoints.flat_map(|(_, endpoint)| &endpoint.addresses).map(IpNet::addr).collect()
    }
}

/// Whether the device is in the sandbox. Docker takes it out of there even if vswitchd does not answer, and removes the sandbox only
/// a minute later.
fn has_arrived(docker: &Docker, endpoint: &Endpoint) -> bool {
    let network = docker.networks.get(&endpoint.network);
    let Some((network, sandbox)) = network.zip(endpoint.sandbox.as_ref()) else { return false };
    let spec = endpoint.port_spec(network, sandbox.path.clone());
    spec.is_ok_and(|spec| attach::has_arrived(&spec).unwrap_or(true))
}

/// What Docker is told of the addresses that it did not choose.
fn interface(request: &message::CreateEndpoint, endpoint: &Endpoint) -> Value {
    let mut interface = json!({});
    if request.interface.mac.is_empty() {
        interface["MacAddress"] = json!(endpoint.mac.to_string());
    }
    if let Some(net) = endpoint.addresses.first().filter(|_| endpoint.lease.is_some()) {
        interface["Address"] = json!(net);
    }
    json!({ "Interface": interface })
}
