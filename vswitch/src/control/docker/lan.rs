//! What networks on LANs need of the host: its addresses there, and its routes to their containers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::super::{Port, Switch};
use crate::attach;
use crate::docker::{self, NetworkId};
use api::{PortName, PortState};

impl Switch {
    /// Gives the host a leg with its addresses in every network on a LAN, and a route to each container there. The control loop calls it at every
    /// `SURVEY`, for the host's addresses come and go.
    pub(in crate::control) fn follow_lans(&mut self) {
        if self.ledger.state.docker.lans().next().is_none() {
            return;
        }
        match self.hosts() {
            Ok(hosts) if hosts == self.ledger.state.docker.hosts => {}
            Ok(hosts) => {
                // Routes go with addresses.
                self.lans.forget_routes();
                if let Err(error) = self.change_docker(|docker| docker.hosts = hosts) {
                    tracing::warn!("the host does not reach the containers of its LANs: {error}");
                }
            }
            Err(error) => tracing::warn!("the host's addresses are not known: {error}"),
        }
        self.set_lan_routes();
    }

    /// The host's addresses in each network on a LAN, but for those that a network's own port has from here.
    fn hosts(&self) -> Result<BTreeMap<NetworkId, BTreeSet<IpAddr>>, attach::AttachError> {
        let own: BTreeSet<PortName> =
            self.ledger.state.docker.lans().filter_map(|(id, _)| docker::host_port_name(id)).collect();
        let addresses = attach::host_addresses(&own)?;
        let hosts = self.ledger.state.docker.lans().map(|(id, _)| {
            let subnets = self.ledger.state.docker.subnets_of(id);
            let inside = addresses.iter().copied().filter(|address| subnets.iter().any(|net| net.contains(address)));
            (id.clone(), inside.collect::<BTreeSet<IpAddr>>())
        });
        Ok(hosts.filter(|(_, addresses)| !addresses.is_empty()).collect())
    }

    fn set_lan_routes(&mut self) {
        let docker = &self.ledger.state.docker;
        let names = docker.lans().filter_map(|(id, _)| Some((docker::host_port_name(id)?, docker.addresses_on(id))));
        let is_up =
            |name: &PortName| self.inventory.find::<Port>(name).is_some_and(|port| *port.presence.state() == PortState::Up);
        let wanted: BTreeMap<PortName, BTreeSet<IpAddr>> = names.filter(|(name, _)| is_up(name)).collect();
        self.lans.set_routes(wanted, |name, containers| {
            let set = attach::set_host_routes(name.as_str(), containers);
            set.inspect_err(|error| tracing::warn!("the host does not reach the containers of its LANs: {error}")).is_ok()
        });
    }
}
