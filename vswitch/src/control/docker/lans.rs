//! What is known of containers on LANs, and what is different when something about them has changed: decided here, carried out by `ask` and `lan`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::services::Station;
use crate::services::client::{Event, Terms};
use api::{BridgeName, PortName};

/// What is known of containers on LANs.
#[derive(Default)]
pub(in crate::control) struct Lans {
    /// Containers of which workers and services were told that a LAN is asked about them.
    stations: Vec<Station>,
    /// What DHCP servers grant containers now, by port.
    granted: BTreeMap<PortName, Terms>,
    /// The containers to which the host has routes, by the ports that they lead to.
    routes: BTreeMap<PortName, BTreeSet<IpAddr>>,
}

impl Lans {
    /// Takes on the containers about which LANs are asked now. If they are others than before, returns the bridges of both.
    pub(super) fn set_asked(&mut self, stations: &[Station]) -> Option<BTreeSet<BridgeName>> {
        if stations == self.stations {
            return None;
        }
        self.granted.retain(|port, _| stations.iter().any(|station| station.port == *port));
        let bridges = stations.iter().chain(&self.stations).map(|station| station.bridge.clone()).collect();
        self.stations = stations.to_vec();
        Some(bridges)
    }

    pub(super) fn grant(&mut self, port: PortName, terms: Terms) {
        self.granted.insert(port, terms);
    }

    pub(super) fn granted(&self, port: &PortName) -> Option<&Terms> {
        self.granted.get(port)
    }

    /// Takes note of what has become of the lease of a container that runs with this address, and returns what to say about it.
    ///
    /// # Errors
    /// What to say, if the container may not have the address.
    pub(super) fn hear(&mut self, port: &PortName, address: IpAddr, event: Event) -> Result<String, String> {
        match event {
            Event::Bound(terms) => {
                let sentence = format!("the DHCP server {} grants {address}", terms.server);
                self.grant(port.clone(), terms);
                Ok(sentence)
            }
            Event::Conflict(_, mac) => {
                Err(format!("the station {mac} has the address {address} of this container too: restart one of them"))
            }
            Event::Lost | Event::Unanswered | Event::Unfinished | Event::Free => {
                self.granted.remove(port);
                Err(format!(
                    "no DHCP server grants {address} any more, which the container keeps: it is asked for again, or docker restart gets another"
                ))
            }
        }
    }

    /// Has the routes set that are different now. Those that `set` cannot set are tried again the next time.
    pub(super) fn set_routes(
        &mut self,
        wanted: BTreeMap<PortName, BTreeSet<IpAddr>>,
        set: impl Fn(&PortName, &BTreeSet<IpAddr>) -> bool,
    ) {
        let is_set = |name: &PortName, to: &BTreeSet<IpAddr>| self.routes.get(name) == Some(to) || set(name, to);
        self.routes = wanted.into_iter().filter(|(name, to)| is_set(name, to)).collect();
    }

    /// Takes the host to have no routes any more: they go with its addresses.
    pub(super) fn forget_routes(&mut self) {
        self.routes.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use packet::{Mac, VlanId};

    use super::*;
    use crate::services::Question;

    fn name(text: &str) -> PortName {
        text.parse().unwrap()
    }

    fn station(port: &str, bridge: &str) -> Station {
        let (port, bridge) = (name(port), bridge.parse().unwrap());
        Station { port, bridge, vlan: VlanId::DEFAULT, mac: Mac([2, 0, 0, 0, 0, 1]), question: Question::Lease(None) }
    }

    fn terms() -> Terms {
        let (address, server) = ("192.0.2.7/24".parse().unwrap(), "192.0.2.1".parse().unwrap());
        Terms { address, routers: Vec::new(), routes: Vec::new(), dns: Vec::new(), mtu: None, server, seconds: 60 }
    }

    #[test]
    fn the_bridges_of_those_that_came_and_of_those_that_went_are_told() {
        let mut lans = Lans::default();
        assert_eq!(lans.set_asked(&[]), None);
        assert_eq!(lans.set_asked(&[station("a", "br0")]), Some(["br0".parse().unwrap()].into()));
        assert_eq!(lans.set_asked(&[station("a", "br0")]), None);
        let both = ["br0", "br1"].map(|bridge| bridge.parse().unwrap());
        assert_eq!(lans.set_asked(&[station("b", "br1")]), Some(both.into()));
    }

    #[test]
    fn a_lease_is_granted_until_it_is_lost_or_its_container_is_gone() {
        let (mut lans, address) = (Lans::default(), "192.0.2.7".parse().unwrap());
        lans.set_asked(&[station("a", "br0")]);
        assert!(lans.hear(&name("a"), address, Event::Bound(terms())).unwrap().contains("192.0.2.1 grants 192.0.2.7"));
        let rival = Event::Conflict("192.0.2.7".parse().unwrap(), Mac([2, 0, 0, 0, 0, 9]));
        assert!(lans.hear(&name("a"), address, rival).unwrap_err().contains("02:00:00:00:00:09"));
        assert!(lans.granted(&name("a")).is_some(), "the server has not taken it back");
        assert!(lans.hear(&name("a"), address, Event::Lost).unwrap_err().contains("asked for again"));
        assert!(lans.granted(&name("a")).is_none());
        lans.grant(name("a"), terms());
        lans.set_asked(&[station("b", "br0")]);
        assert!(lans.granted(&name("a")).is_none());
    }

    #[test]
    fn a_route_is_set_once_and_tried_again_where_it_could_not_be() {
        let (mut lans, asked) = (Lans::default(), RefCell::new(Vec::new()));
        let mut set = |ports: &[&str], works: bool| {
            let to = || BTreeSet::from(["192.0.2.7".parse().unwrap()]);
            lans.set_routes(ports.iter().map(|port| (name(port), to())).collect(), |port, _| {
                asked.borrow_mut().push(port.to_string());
                works
            });
            asked.take()
        };
        assert_eq!(set(&["a"], false), ["a"]);
        assert_eq!(set(&["a"], true), ["a"]);
        assert_eq!(set(&["a", "b"], true), ["b"]);
        // One that was away meanwhile has lost its routes.
        assert!(set(&["b"], true).is_empty());
        assert_eq!(set(&["a", "b"], true), ["a"]);
    }
}
