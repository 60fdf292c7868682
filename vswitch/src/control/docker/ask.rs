//! Containers on LANs, which are asked about their addresses: a DHCP server for one, or all stations whether one has what Docker gave.
//! *CreateEndpoint* is answered when that is known, and other calls go on meanwhile.

use ipnet::IpNet;
use serde_json::Value;

use super::super::{ControlError, Switch};
use super::endpoint::Begun;
use super::questions::{Asking, LanVerdict};
use crate::docker::message::{CreateEndpoint, Request};
use crate::docker::server::Reply;
use crate::docker::{DockerError, Endpoint, LanLease, Network};
use crate::services::client::{Event, Terms};
use crate::services::{Question, Station};
use api::{LeaseInfo, PortName};

impl Switch {
    /// Whether a LAN has to be asked about the address of a new endpoint.
    pub(super) fn asks_lan(&self, request: &CreateEndpoint) -> bool {
        let network = self.ledger.state.docker.networks.get(&request.reference.network);
        let interface = &request.interface;
        network.is_some_and(|network| match network.is_by_dhcp() {
            true => interface.v4.is_empty() && interface.v6.is_empty(),
            false => network.options.parent.is_some() && !interface.v4.is_empty(),
        })
    }

    /// Begins to ask; Docker is answered when the LAN has answered.
    pub(super) fn ask_lan(&mut self, request: CreateEndpoint, reply: Reply) {
        // Docker may have been stopped meanwhile, here and below.
        match self.begin_endpoint(&request).and_then(|begun| self.check_begun(begun)) {
            Ok(Begun::Known(answer)) => drop(reply.send(Ok(answer))),
            Ok(Begun::New(endpoint)) => self.docker.asking.begin(request, *endpoint, reply),
            Err(error) => drop(reply.send(Err(error.to_string()))),
        }
    }

    /// Whether an endpoint can be, as far as that can be said without its LAN.
    fn check_begun(&self, begun: Begun) -> Result<Begun, ControlError> {
        if let Begun::New(endpoint) = &begun {
            self.rivals(endpoint)?;
            self.check_addresses(endpoint, self.network(&endpoint.network)?)?;
            let is_rival = |other: &&Endpoint| {
                other.port != endpoint.port && other.network == endpoint.network && other.mac == endpoint.mac
            };
            if let Some(other) = self.docker.asking.endpoints().find(is_rival) {
                return Err(DockerError::AddressTaken(endpoint.mac.to_string(), other.port.clone()).into());
            }
        }
        Ok(begun)
    }

    /// Takes note of what a LAN said about the address of a container.
    pub(in crate::control) fn note_lan(&mut self, port: &PortName, event: Event) {
        match self.docker.asking.hear(port, event, &self.ledger.state.docker) {
            Ok(LanVerdict::Wait) => {}
            Ok(LanVerdict::Grant(asking, terms)) => self.grant(asking, terms),
            Ok(LanVerdict::Admit(asking)) => drop(self.admit(asking)),
            Ok(LanVerdict::Refuse(reply, refusal)) => drop(reply.send(Err(refusal.to_string()))),
            Err(event) => self.note_lease(port, event),
        }
        self.follow_lans();
        self.tell_stations();
    }

    /// Gives a container what a DHCP server granted.
    fn grant(&mut self, mut asking: Asking, terms: Terms) {
        let (port, net) = (asking.endpoint.port.clone(), IpNet::V4(terms.address));
        asking.endpoint.addresses = vec![net];
        asking.endpoint.lease = Some(LanLease::read(&terms));
        if self.admit(asking) {
            tracing::info!(%port, "DHCP gave {net}");
            self.lans.grant(port, terms);
        }
    }

    /// Adds an endpoint whose address is known, and says whether it did. Where Docker no longer waits, nothing is added: a lease goes back.
    fn admit(&mut self, asking: Asking) -> bool {
        let Asking { request, endpoint, reply, .. } = asking;
        if reply.is_closed() {
            return false;
        }
        let added: Result<Value, ControlError> = self.add_endpoint(&request, endpoint);
        let is_added = added.is_ok();
        if let (true, Some(change)) = (is_added, Request::CreateEndpoint(request).change()) {
            tracing::info!("{change}, asked for by Docker");
            self.note_change(change, "Docker");
        }
        let _ = reply.send(added.map_err(|error| error.to_string()));
        is_added
    }

    /// What has become of a lease whose container runs.
    fn note_lease(&mut self, port: &PortName, event: Event) {
        let place = self.docker_places().remove(port).unwrap_or_default();
        let Some(endpoint) = self.ledger.state.docker.endpoints.values().find(|endpoint| endpoint.port == *port) else {
            return;
        };
        let Some(address) = endpoint.addresses.first().map(IpNet::addr) else { return };
        match self.lans.hear(port, address, event) {
            Ok(sentence) => tracing::info!(%port, %place, "{sentence}"),
            Err(sentence) => tracing::warn!(%port, %place, "{sentence}"),
        }
    }

    /// The lease of a port.
    pub(in crate::control) fn lease_info(&self, port: &PortName) -> Option<LeaseInfo> {
        let endpoint = self.ledger.state.docker.endpoints.values().find(|endpoint| endpoint.port == *port)?;
        let granted = self.lans.granted(port);
        let server = granted.map_or(endpoint.lease.as_ref()?.server, |terms| terms.server);
        Some(LeaseInfo { server, granted: granted.is_some(), seconds: granted.map(|terms| terms.seconds) })
    }

    /// Tells workers and services which containers' addresses LANs are asked about now, if that has changed. The control loop calls it at every
    /// `SURVEY`, for Docker stops waiting without a word.
    pub(in crate::control) fn tell_stations(&mut self) {
        self.docker.asking.retain(|_, _| true);
        let docker = &self.ledger.state.docker;
        let leased = docker.endpoints.values().filter(|endpoint| endpoint.lease.is_some());
        let asking = leased.chain(self.docker.asking.endpoints());
        let stations = asking.filter_map(|endpoint| Some(station(docker.networks.get(&endpoint.network)?, endpoint)));
        let stations: Vec<Station> = stations.collect();
        if self.life.started_up
            && let Some(bridges) = self.lans.set_asked(&stations)
        {
            self.set_stations(&bridges, stations);
        }
    }
}

fn station(network: &Network, endpoint: &Endpoint) -> Station {
    let address = endpoint.addresses.iter().find_map(|net| if let IpNet::V4(net) = net { Some(net.addr()) } else { None });
    let question = match address {
        Some(address) if endpoint.lease.is_none() => Question::Free(address),
        address => Question::Lease(address),
    };
    let (port, bridge) = (endpoint.port.clone(), network.bridge.clone());
    Station { port, bridge, vlan: network.vlan(), mac: endpoint.mac, question }
}
