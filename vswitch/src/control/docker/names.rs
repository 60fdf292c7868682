//! Docker's containers and networks by their names.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::super::{ControlError, Port, Switch};
use crate::docker::{Names, daemon};
use api::{DockerPlace, PortName, SessionInfo};

impl Switch {
    /// Takes note of what Docker calls things, and returns whether every network and container has its name.
    pub fn learn_names(&mut self, mut names: Names) -> bool {
        names.retain(&self.ledger.state.docker);
        if self.docker.names != names {
            self.docker.names = names;
            // Other hosts hear of them, and the gateways answer by them.
            self.tell_services();
            self.follow_overlay();
        }
        !self.lacks_names()
    }

    /// Whether a container or network of Docker's has no name yet.
    pub fn lacks_names(&self) -> bool {
        !self.docker.names.is_complete(&self.ledger.state.docker)
    }

    /// Whether there are names that Docker may have changed, and a Docker that could be asked.
    pub fn may_be_renamed(&self) -> bool {
        !self.ledger.state.docker.endpoints.is_empty() && daemon::is_running(&self.ledger.file.docker.api)
    }

    /// Where each port of Docker's is.
    pub(in crate::control) fn docker_places(&self) -> BTreeMap<PortName, DockerPlace> {
        let endpoints = self.ledger.state.docker.endpoints.iter();
        let docker = endpoints.map(|(id, endpoint)| (endpoint.port.clone(), self.docker.names.place(id, endpoint)));
        let others = self.ledger.state.containers.places().map(|(interface, place)| (interface.port.clone(), place));
        docker.chain(others).collect()
    }

    /// Says whose sessions they are.
    pub(in crate::control) fn name_sessions(&self, sessions: &mut [SessionInfo]) {
        let endpoints = self.ledger.state.docker.endpoints.iter();
        let docker = endpoints.flat_map(|(id, endpoint)| {
            endpoint.addresses.iter().map(move |net| (net.addr(), self.docker.names.place(id, endpoint)))
        });
        let others = self.ledger.state.containers.places();
        let others =
            others.flat_map(|(interface, place)| interface.addresses.iter().map(move |net| (net.addr(), place.clone())));
        let places: BTreeMap<IpAddr, DockerPlace> = docker.chain(others).collect();
        for session in sessions {
            session.docker = places.get(&session.inside.ip()).cloned().unwrap_or_default();
        }
    }

    /// The ports of a container.
    pub(in crate::control) fn ports_of_container(&self, name: &str) -> Result<Vec<PortName>, ControlError> {
        let mut known = Vec::new();
        let mut ports = Vec::new();
        for (port, place) in self.docker_places().into_iter().filter(|(port, _)| self.inventory.has::<Port>(port)) {
            let Some(container) = place.container else { continue };
            if container == name {
                ports.push(port);
            }
            known.push(container);
        }
        known.sort();
        known.dedup();
        if ports.is_empty() { Err(ControlError::NoContainer(name.to_owned(), known)) } else { Ok(ports) }
    }
}
