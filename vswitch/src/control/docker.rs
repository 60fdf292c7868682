//! What Docker asks of the driver, carried out: each call changes what is kept ([`Docker`]), and the difference that this makes to the switch is
//! applied as a reload's would be.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use nat::Protocol;
use serde_json::{Value, json};

use super::plan::{self, Step};
use super::{ControlError, Port, Switch};
use crate::api::{BridgeName, ForwardKey, ForwardSpec, Origin, PortName, Reply, protocol_name};
use crate::config::{self, Change, State};
use crate::docker::message::{self, EndpointReference, Request};
use crate::docker::{self, Docker, DockerError, Endpoint, EndpointId, Network, NetworkId, Sandbox};
use crate::host::HostError;

/// How long an endpoint may be without a sandbox before its container counts as dead; Docker goes on at once.
const AWAITED: Duration = Duration::from_secs(60);
/// How many ports that turn out to be in use are passed over for a container that leaves the choice.
const TRIES: usize = 64;

impl Switch {
    /// Carries out a call of Docker's and answers it.
    ///
    /// # Errors
    /// Why it was not; nothing of it was done then.
    pub fn answer_docker(&mut self, request: Request) -> Result<Value, ControlError> {
        match request {
            Request::CreateNetwork(request) => self.create_network(&request),
            Request::DeleteNetwork(request) => self.delete_network(&request.network),
            Request::CreateEndpoint(request) => self.create_endpoint(&request),
            Request::DeleteEndpoint(request) => self.delete_endpoints(&[request.endpoint].into()),
            Request::Join(request) => self.join(&request),
            Request::Leave(request) => self.leave(&request.endpoint),
            Request::Publish(request) => self.publish_ports(&request),
            Request::Withdraw(request) => self.withdraw_ports(&request.endpoint),
            Request::Describe(request) => self.describe(&request),
            Request::RequestPool(request) => self.request_pool(&request),
            Request::ReleasePool(request) => self.change_pools(|pools| {
                pools.release_pool(&request.pool);
                Ok(json!({}))
            }),
            Request::RequestAddress(request) => self.change_pools(|pools| pools.request_address(&request)),
            Request::ReleaseAddress(request) => self.change_pools(|pools| {
                pools.release_address(&request);
                Ok(json!({}))
            }),
        }
    }

    fn create_network(&mut self, request: &message::CreateNetwork) -> Result<Value, ControlError> {
        let network = Network::read(request)?;
        let known = &self.state.docker.networks;
        match known.get(&request.network) {
            Some(same) if *same == network => return Ok(json!({})),
            Some(_) => return Err(DockerError::Different(format!("network {}", request.network)).into()),
            None if known.len() >= docker::MOST_NETWORKS => {
                return Err(DockerError::TooMany(format!("{} networks", docker::MOST_NETWORKS)).into());
            }
            None => {}
        }
        self.check_network(&request.network, &network)?;
        self.change_docker(|docker| docker.networks.insert(request.network.clone(), network))?;
        Ok(json!({}))
    }

    /// Whether a network fits what is there.
    fn check_network(&self, id: &NetworkId, network: &Network) -> Result<(), ControlError> {
        if network.options.bridge.is_some() {
            let bridge = self.bridges.get(&network.bridge).filter(|bridge| bridge.origin != Origin::Docker);
            let bridge = bridge.ok_or_else(|| DockerError::NoBridge(network.bridge.clone()))?;
            return Ok(network.check_bridge(&bridge.spec)?);
        }
        if self.bridges.contains_key(&network.bridge) {
            return Err(DockerError::BridgeTaken(network.bridge.clone()).into());
        }
        let mut state = self.state.clone();
        state.docker.networks.insert(id.clone(), network.clone());
        let (uplinks, bridges) = state.docker.bridges(&self.file.docker);
        let (wanted, _) = config::merge(&self.file, &state);
        let bridge = bridges.iter().find(|spec| spec.name == network.bridge);
        uplinks.iter().try_for_each(|spec| wanted.network().check_uplink(spec))?;
        bridge.map_or(Ok(()), |spec| wanted.network().check_bridge(spec))?;
        Ok(())
    }

    /// What vsctl added to the network's bridge goes with it: Docker removes the network whatever the answer is.
    fn delete_network(&mut self, id: &NetworkId) -> Result<Value, ControlError> {
        let Some(network) = self.state.docker.networks.get(id).cloned() else { return Ok(json!({})) };
        let nets: Vec<IpNet> = network.subnets.iter().map(|subnet| subnet.net).collect();
        let owned = network.options.bridge.is_none();
        self.change(|state| {
            state.docker.endpoints.retain(|_, endpoint| endpoint.network != *id);
            state.docker.networks.remove(id);
            if owned {
                forget_members(state, &network.bridge, &nets);
            }
        })?;
        Ok(json!({}))
    }

    fn create_endpoint(&mut self, request: &message::CreateEndpoint) -> Result<Value, ControlError> {
        let EndpointReference { network: network_id, endpoint: id } = &request.reference;
        let network = self.network(network_id)?;
        let endpoint = Endpoint::read(request, network)?;
        let interface =
            if request.interface.mac.is_empty() { json!({ "MacAddress": endpoint.mac.to_string() }) } else { json!({}) };
        let answer = json!({ "Interface": interface });
        let known = &self.state.docker.endpoints;
        match known.get(id) {
            Some(old) if (old.mac, &old.addresses) == (endpoint.mac, &endpoint.addresses) => return Ok(answer),
            Some(_) => return Err(DockerError::Different(format!("endpoint {id}")).into()),
            None if known.len() >= docker::MOST_ENDPOINTS => {
                return Err(DockerError::TooMany(format!("{} containers", docker::MOST_ENDPOINTS)).into());
            }
            None => {}
        }
        let stale = self.rivals(&endpoint)?;
        self.check_addresses(&endpoint, network)?;
        self.awaited.insert(id.clone(), Instant::now());
        self.change_docker(|docker| {
            docker.endpoints.retain(|id, _| !stale.contains(id));
            docker.endpoints.insert(id.clone(), endpoint);
        })?;
        Ok(answer)
    }

    /// Endpoints that have an address of a new one and whose containers are dead.
    fn rivals(&self, new: &Endpoint) -> Result<BTreeSet<EndpointId>, DockerError> {
        let mut stale = BTreeSet::new();
        for (id, old) in &self.state.docker.endpoints {
            let address = old.addresses.iter().find(|net| new.has(net.addr())).map(|net| net.addr().to_string());
            let mac = (old.mac == new.mac).then(|| old.mac.to_string());
            let Some(shared) = address.or(mac).filter(|_| old.network == new.network) else { continue };
            if self.is_alive(id, old) {
                return Err(DockerError::AddressTaken(shared, old.port.clone()));
            }
            stale.insert(id.clone());
        }
        Ok(stale)
    }

    /// Whether the addresses of an endpoint are free on its bridge, as far as others than Docker are concerned, and its port's name is.
    fn check_addresses(&self, endpoint: &Endpoint, network: &Network) -> Result<(), ControlError> {
        if self.layout().has_port(&endpoint.port) {
            return Err(DockerError::PortTaken(endpoint.port.clone()).into());
        }
        let others = self.ports.values().filter(|port| port.spec.bridge == network.bridge && port.origin != Origin::Docker);
        for port in others {
            if let Some(net) = port.spec.addresses.iter().find(|net| endpoint.has(net.addr())) {
                return Err(DockerError::AddressTaken(net.addr().to_string(), port.spec.name.clone()).into());
            }
        }
        let spec = endpoint.port_spec(network, "/".into())?;
        Ok(self.layout().network().check_port(&spec)?)
    }

    /// Removes endpoints; those that are gone are fine.
    fn delete_endpoints(&mut self, ids: &BTreeSet<EndpointId>) -> Result<Value, ControlError> {
        if ids.iter().any(|id| self.state.docker.endpoints.contains_key(id)) {
            self.change_docker(|docker| docker.endpoints.retain(|id, _| !ids.contains(id)))?;
        }
        self.awaited.retain(|id, _| !ids.contains(id));
        Ok(json!({}))
    }

    fn join(&mut self, request: &message::Join) -> Result<Value, ControlError> {
        let id = &request.reference.endpoint;
        let sandbox = Sandbox::at(&request.sandbox)?;
        let endpoint = self.endpoint(id)?;
        let network = self.network(&endpoint.network)?;
        let [v4, v6] = [true, false].map(|v4| endpoint.gateway(network, v4));
        let mut answer = json!({
            "InterfaceName": { "SrcName": endpoint.port, "DstPrefix": "eth" },
            // Else Docker adds an interface of its own where there is no gateway.
            "DisableGatewayService": v4.is_none(),
        });
        if let Some(gateway) = v4 {
            answer["Gateway"] = json!(gateway);
        }
        if let Some(gateway) = v6 {
            answer["GatewayIPv6"] = json!(gateway);
        }
        self.awaited.insert(id.clone(), Instant::now());
        self.change_endpoint(id, |endpoint| (endpoint.sandbox, endpoint.left) = (Some(sandbox), false))?;
        Ok(answer)
    }

    fn leave(&mut self, id: &EndpointId) -> Result<Value, ControlError> {
        if self.state.docker.endpoints.get(id).is_some_and(|endpoint| !endpoint.left) {
            self.change_endpoint(id, |endpoint| endpoint.left = true)?;
        }
        Ok(json!({}))
    }

    /// Publishes ports instead of those that the container had.
    fn publish_ports(&mut self, request: &message::Publish) -> Result<Value, ControlError> {
        let id = &request.reference.endpoint;
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
        let own = |key: &ForwardKey| endpoint.published.iter().any(|spec| spec.key == *key);
        let is_taken = |key: &ForwardKey| self.forwards.keys().any(|other| other.overlaps(key, kind) && !own(other));
        let chosen = docker::choose(bindings, endpoint, &docker::Outside { uplink, kind, is_taken: &is_taken, refused })?;
        let layout = self.layout();
        chosen.iter().try_for_each(|spec| layout.network().check_forward(spec))?;
        Ok(chosen)
    }

    fn withdraw_ports(&mut self, id: &EndpointId) -> Result<Value, ControlError> {
        if self.state.docker.endpoints.get(id).is_some_and(|endpoint| !endpoint.published.is_empty()) {
            self.change_endpoint(id, |endpoint| endpoint.published.clear())?;
        }
        Ok(json!({}))
    }

    /// Takes one port of a container back, as vsctl asks.
    pub(super) fn withdraw_port(&mut self, key: &ForwardKey) -> Result<Reply, ControlError> {
        let same = |spec: &ForwardSpec| ForwardKey { uplink: key.uplink.clone(), ..spec.key.clone() } == *key;
        let target = self.forwards.get(key).map(|(spec, _)| spec.to);
        self.change_docker(|docker| {
            for endpoint in docker.endpoints.values_mut() {
                endpoint.published.retain(|spec| !(same(spec) && Some(spec.to) == target));
            }
        })?;
        Ok(Reply::Done(Vec::new()))
    }

    fn describe(&self, request: &EndpointReference) -> Result<Value, ControlError> {
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
        }}))
    }

    fn request_pool(&mut self, request: &message::RequestPool) -> Result<Value, ControlError> {
        let bridges = self.bridges.values().flat_map(|bridge| bridge.spec.addresses.clone());
        let uplinks = self.uplinks.values().flat_map(super::uplink::Uplink::addresses);
        let used: Vec<IpNet> = bridges.chain(uplinks).collect();
        let is_used = |net: &IpNet| used.iter().any(|other| net.contains(&other.network()) || other.contains(&net.network()));
        self.change_pools(|pools| pools.request_pool(request, is_used))
    }

    fn change_pools(
        &mut self,
        change: impl FnOnce(&mut docker::Pools) -> Result<Value, DockerError>,
    ) -> Result<Value, ControlError> {
        let mut pools = self.state.docker.pools.clone();
        let answer = change(&mut pools)?;
        if pools != self.state.docker.pools {
            self.change_docker(|docker| docker.pools = pools)?;
        }
        Ok(answer)
    }

    fn change_endpoint(&mut self, id: &EndpointId, change: impl FnOnce(&mut Endpoint)) -> Result<(), ControlError> {
        self.change_docker(|docker| docker.endpoints.get_mut(id).map(change))
    }

    fn change_docker<T>(&mut self, change: impl FnOnce(&mut Docker) -> T) -> Result<(), ControlError> {
        self.change(|state| change(&mut state.docker))
    }

    /// Keeps a change and applies what it makes different about what is Docker's; the rest of the switch is not touched, even where it is
    /// not what it should be.
    fn change<T>(&mut self, change: impl FnOnce(&mut State) -> T) -> Result<(), ControlError> {
        let steps = |switch: &Self| {
            let mut steps = plan::steps(&switch.layout(), &switch.wanted().0);
            steps.retain(concerns_docker);
            steps
        };
        self.remember_and_follow(change, steps).map(drop)
    }

    /// Forgets endpoints whose containers are dead, and what was theirs on the switch. To be called now and then.
    pub fn collect_dead(&mut self) {
        let dead = self.dead();
        if dead.is_empty() {
            return;
        }
        tracing::info!(count = dead.len(), "Docker's containers are gone without a word: their ports are removed");
        if let Err(error) = self.delete_endpoints(&dead) {
            tracing::warn!("ports of dead containers could not be removed: {error}");
        }
    }

    /// Forgets endpoints whose containers died before this start.
    pub(super) fn forget_dead(&mut self) {
        let dead = self.dead();
        self.state.docker.endpoints.retain(|id, _| !dead.contains(id));
    }

    fn dead(&self) -> BTreeSet<EndpointId> {
        let endpoints = self.state.docker.endpoints.iter();
        endpoints.filter(|(id, endpoint)| !self.is_alive(id, endpoint)).map(|(id, _)| id.clone()).collect()
    }

    fn is_alive(&self, id: &EndpointId, endpoint: &Endpoint) -> bool {
        let awaited = || self.awaited.get(id).is_some_and(|since| since.elapsed() < AWAITED);
        match &endpoint.sandbox {
            _ if endpoint.left => false,
            Some(sandbox) if sandbox.inode.is_some() => sandbox.is_alive(),
            Some(sandbox) => sandbox.is_alive() || awaited(),
            None => awaited(),
        }
    }

    fn network(&self, id: &NetworkId) -> Result<&Network, DockerError> {
        self.state.docker.networks.get(id).ok_or_else(|| DockerError::NoNetwork(id.clone()))
    }

    fn endpoint(&self, id: &EndpointId) -> Result<&Endpoint, DockerError> {
        self.state.docker.endpoints.get(id).ok_or_else(|| DockerError::NoEndpoint(id.clone()))
    }

    /// Whether a bridge is vsctl's to remove.
    pub(super) fn check_own_bridge(&self, name: &BridgeName) -> Result<(), ControlError> {
        self.bridge(name)?;
        match self.state.docker.network_of(name) {
            Some((id, _)) => Err(ControlError::DockersBridge(name.clone(), id.clone())),
            None => Ok(()),
        }
    }

    /// A port that is vsctl's to change.
    pub(super) fn own_port(&self, name: &PortName) -> Result<&Port, ControlError> {
        let port = self.port(name)?;
        let endpoint = self.state.docker.endpoints.values().find(|endpoint| endpoint.port == *name);
        match endpoint.filter(|_| port.origin == Origin::Docker) {
            Some(endpoint) => Err(ControlError::DockersPort(name.clone(), endpoint.network.clone())),
            None => Ok(port),
        }
    }
}

/// Whether a step is about something of Docker's. What is removed and is not Docker's was on a bridge of Docker's that goes.
fn concerns_docker(step: &Step) -> bool {
    match step {
        Step::AddBridge(_, origin) | Step::SetBridge(_, origin) => *origin == Origin::Docker,
        Step::AddPort(_, origin) | Step::SetPort(_, origin) => *origin == Origin::Docker,
        Step::AddUplink(_, origin) | Step::SetUplink(_, origin) => *origin == Origin::Docker,
        Step::AddVxlan(_, origin) | Step::SetVxlan(_, origin) => *origin == Origin::Docker,
        Step::AddForward(_, origin) => *origin == Origin::Docker,
        Step::DeleteBridge(_) | Step::DeletePort(_) | Step::DeleteUplink(_) | Step::DeleteForward(_) | Step::DeleteVxlan(_) => {
            true
        }
    }
}

/// Forgets what vsctl added to a bridge.
fn forget_members(state: &mut State, bridge: &BridgeName, nets: &[IpNet]) {
    fn keep<N: Ord, T>(changes: &mut BTreeMap<N, Change<T>>, is_on_it: impl Fn(&T) -> bool) {
        changes.retain(|_, change| !matches!(change, Change::Set(spec) if is_on_it(spec)));
    }
    keep(&mut state.ports, |spec| spec.bridge == *bridge);
    keep(&mut state.vxlans, |spec| spec.bridge == *bridge);
    let is_inside = |address: IpAddr| nets.iter().any(|net| net.contains(&address));
    keep(&mut state.forwards, |spec| is_inside(spec.to.ip()));
}
