//! Containers on LANs whose addresses come from a DHCP server there. *CreateEndpoint* is answered when there is one, and other calls go on
//! meanwhile.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use ipnet::IpNet;
use packet::Mac;
use serde_json::Value;

use super::super::{ControlError, Switch};
use super::endpoint::Begun;
use crate::api::{BridgeName, LeaseInfo, PortName};
use crate::docker::message::CreateEndpoint;
use crate::docker::server::Reply;
use crate::docker::{DockerError, Endpoint, EndpointId, Lease, Network, NetworkId};
use crate::services::Station;
use crate::services::client::{Event, Terms};

/// A container that waits for its address.
pub(in crate::control) struct Leasing {
    request: CreateEndpoint,
    endpoint: Endpoint,
    reply: Reply,
    /// The last address that it was given, and who has that.
    declined: Option<(Ipv4Addr, Mac)>,
}

impl Switch {
    /// Whether the address of a new endpoint is a DHCP server's to give.
    pub(super) fn is_by_dhcp(&self, request: &CreateEndpoint) -> bool {
        let network = self.state.docker.networks.get(&request.reference.network);
        network.is_some_and(Network::is_by_dhcp) && request.interface.v4.is_empty() && request.interface.v6.is_empty()
    }

    /// Begins to ask for the address of an endpoint; whoever wants it is answered when there is one.
    pub(super) fn lease_endpoint(&mut self, request: CreateEndpoint, reply: Reply) {
        // Docker may have been stopped meanwhile, here and below.
        match self.begin_endpoint(&request).and_then(|begun| self.check_unleased(begun)) {
            Ok(Begun::Known(answer)) => drop(reply.send(Ok(answer))),
            Ok(Begun::New(endpoint)) => {
                // Docker asks again after a connection broke: nobody hears the first answer any more.
                let id = request.reference.endpoint.clone();
                self.leasing.insert(id, Leasing { request, endpoint, reply, declined: None });
            }
            Err(error) => drop(reply.send(Err(error.to_string()))),
        }
    }

    /// Whether an endpoint can be, as far as that can be said without its address.
    fn check_unleased(&self, begun: Begun) -> Result<Begun, ControlError> {
        if let Begun::New(endpoint) = &begun {
            self.rivals(endpoint)?;
            let is_rival = |other: &&Endpoint| {
                other.port != endpoint.port && other.network == endpoint.network && other.mac == endpoint.mac
            };
            if let Some(other) = self.leasing.values().map(|leasing| &leasing.endpoint).find(is_rival) {
                return Err(DockerError::AddressTaken(endpoint.mac.to_string(), other.port.clone()).into());
            }
        }
        Ok(begun)
    }

    /// Takes note of what DHCP said about the address of a container.
    pub(in crate::control) fn lease_container(&mut self, port: &PortName, event: Event) {
        let waiting = self.leasing.iter().find(|(_, leasing)| leasing.endpoint.port == *port).map(|(id, _)| id.clone());
        match waiting {
            Some(id) => self.advance(&id, event),
            None => self.note_lease(port, event),
        }
        self.follow_lans();
        self.tell_stations();
    }

    /// Answers who waits for an address, if it is time.
    fn advance(&mut self, id: &EndpointId, event: Event) {
        match event {
            Event::Bound(terms) => {
                if let Some(leasing) = self.leasing.remove(id) {
                    self.grant(leasing, terms);
                }
            }
            Event::Conflict(address, mac) => {
                if let Some(leasing) = self.leasing.get_mut(id) {
                    leasing.declined = Some((address, mac));
                    tracing::warn!(port = %leasing.endpoint.port, "DHCP gave {address}, which {mac} has: another is asked for");
                }
            }
            // One that a crash left, before Docker had it: another is asked for.
            Event::Lost => {}
            Event::Unanswered => self.refuse(id, DockerError::Unanswered),
            Event::Unfinished => self.refuse(id, DockerError::Unfinished),
        }
    }

    fn refuse(&mut self, id: &EndpointId, refusal: impl FnOnce(String) -> DockerError) {
        let Some(Leasing { endpoint, reply, declined, .. }) = self.leasing.remove(id) else { return };
        let lan = self.state.docker.networks.get(&endpoint.network).map_or_else(String::new, Network::lan);
        let refusal = match declined {
            Some((address, mac)) => DockerError::Declined(lan, address, mac),
            None => refusal(lan),
        };
        let _ = reply.send(Err(refusal.to_string()));
    }

    /// Gives a container its address. If nobody waits for it any more, it goes back.
    fn grant(&mut self, leasing: Leasing, terms: Terms) {
        let Leasing { request, endpoint, reply, .. } = leasing;
        if reply.is_closed() {
            return;
        }
        let (port, net) = (endpoint.port.clone(), IpNet::V4(terms.address));
        let endpoint = Endpoint { addresses: vec![net], lease: Some(Lease::read(&terms)), ..endpoint };
        let added: Result<Value, ControlError> = self.add_endpoint(&request, endpoint);
        if added.is_ok() {
            tracing::info!(%port, "DHCP gave {net}");
            self.granted.insert(port, terms);
        }
        let _ = reply.send(added.map_err(|error| error.to_string()));
    }

    /// What has become of a lease whose container runs.
    fn note_lease(&mut self, port: &PortName, event: Event) {
        let place = self.docker_places().remove(port).unwrap_or_default();
        let Some(endpoint) = self.state.docker.endpoints.values().find(|endpoint| endpoint.port == *port) else { return };
        let Some(address) = endpoint.addresses.first().map(IpNet::addr) else { return };
        match event {
            Event::Bound(terms) => {
                tracing::info!(%port, %place, "the DHCP server {} grants {address}", terms.server);
                self.granted.insert(port.clone(), terms);
            }
            Event::Conflict(_, mac) => {
                tracing::warn!(%port, %place, "the station {mac} has the address {address} of this container too: restart one of them");
            }
            Event::Lost | Event::Unanswered | Event::Unfinished => {
                self.granted.remove(port);
                tracing::warn!(
                    %port, %place,
                    "no DHCP server grants {address} any more, which the container keeps: it is asked for again, or docker restart gets another"
                );
            }
        }
    }

    /// The lease of a port.
    pub(in crate::control) fn lease_info(&self, port: &PortName) -> Option<LeaseInfo> {
        let endpoint = self.state.docker.endpoints.values().find(|endpoint| endpoint.port == *port)?;
        let granted = self.granted.get(port);
        let server = granted.map_or(endpoint.lease.as_ref()?.server, |terms| terms.server);
        Some(LeaseInfo { server, granted: granted.is_some(), seconds: granted.map(|terms| terms.seconds) })
    }

    /// Tells workers and services who asks for an address now, if that has changed. To be called now and then, for Docker goes without a word.
    pub(in crate::control) fn tell_stations(&mut self) {
        self.leasing.retain(|_, leasing| !leasing.reply.is_closed());
        let docker = &self.state.docker;
        let leased = docker.endpoints.values().filter(|endpoint| endpoint.lease.is_some());
        let asking = leased.chain(self.leasing.values().map(|leasing| &leasing.endpoint));
        let stations = asking.filter_map(|endpoint| Some(station(docker.networks.get(&endpoint.network)?, endpoint)));
        let stations: Vec<Station> = stations.collect();
        if stations == self.stations || !self.started_up {
            return;
        }
        self.granted.retain(|port, _| stations.iter().any(|station| station.port == *port));
        let bridges: BTreeSet<BridgeName> =
            stations.iter().chain(&self.stations).map(|station| station.bridge.clone()).collect();
        self.set_stations(&bridges, stations.clone());
        self.stations = stations;
    }
}

impl Leasing {
    /// Its network.
    pub(super) const fn network(&self) -> &NetworkId {
        &self.endpoint.network
    }
}

fn station(network: &Network, endpoint: &Endpoint) -> Station {
    let address = endpoint.addresses.iter().find_map(|net| if let IpNet::V4(net) = net { Some(net.addr()) } else { None });
    let (port, bridge) = (endpoint.port.clone(), network.bridge.clone());
    Station { port, bridge, vlan: network.vlan(), mac: endpoint.mac, address }
}
