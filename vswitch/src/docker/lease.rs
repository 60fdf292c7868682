//! The lease of a container on a LAN, as it is kept with its endpoint and told to Docker. `control/docker` makes it from what the DHCP client of
//! `services` got. Pure functions.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::services::client::Terms;

/// What a DHCP server of the LAN gave a container besides its address. It stays as it was first given, as Docker takes it only once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct LanLease {
    /// Who gave it.
    pub server: Ipv4Addr,
    /// The default router.
    pub gateway: Option<IpAddr>,
    /// Other routes; without a next hop: on the link.
    pub routes: Vec<Route>,
}

/// A route of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Route {
    net: Ipv4Net,
    via: Option<Ipv4Addr>,
}

/// Most routes of a container: more than a DHCP message holds.
const MOST_ROUTES: usize = 64;

impl LanLease {
    /// Reads what a server granted. Routes that the kernel would refuse are left out, for Docker would then refuse the container: those by a next
    /// hop that is not on the link, and those to where there is a route already.
    pub fn read(terms: &Terms) -> Self {
        let own = terms.address;
        let is_on_link = |address: &Ipv4Addr| own.trunc().contains(address) && *address != own.addr();
        let mut gateway = terms.routers.iter().copied().find(is_on_link).filter(|_| terms.routes.is_empty());
        let mut routes: Vec<Route> = Vec::new();
        for (net, next_hop) in terms.routes.iter().take(MOST_ROUTES) {
            let via = Some(*next_hop).filter(|address| !address.is_unspecified());
            if via.is_some_and(|address| !is_on_link(&address)) || net.addr().is_multicast() || net.addr().is_loopback() {
                continue;
            }
            match via {
                Some(_) if net.prefix_len() == 0 => gateway = gateway.or(via),
                None if net.prefix_len() == 0 => {}
                _ if *net == own.trunc() || routes.iter().any(|route| route.net == *net) => {}
                _ => routes.push(Route { net: *net, via }),
            }
        }
        Self { server: terms.server, gateway: gateway.map(IpAddr::V4), routes }
    }

    /// The routes as Docker reads them.
    pub fn static_routes(&self) -> Vec<Value> {
        let route = |Route { net, via }: &Route| match via {
            Some(via) => json!({ "Destination": net, "RouteType": 0, "NextHop": via }),
            None => json!({ "Destination": net, "RouteType": 1 }),
        };
        self.routes.iter().map(route).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(routers: &[&str], routes: &[(&str, &str)]) -> Terms {
        Terms {
            address: "192.0.2.10/24".parse().unwrap(),
            routers: routers.iter().map(|text| text.parse().unwrap()).collect(),
            routes: routes.iter().map(|(net, via)| (net.parse().unwrap(), via.parse().unwrap())).collect(),
            dns: vec![],
            mtu: None,
            server: "192.0.2.2".parse().unwrap(),
            seconds: 3600,
        }
    }

    #[test]
    fn the_gateway_is_on_the_link_and_routes_come_before_routers() {
        let gateway = |routers: &[&str], routes: &[(&str, &str)]| LanLease::read(&terms(routers, routes)).gateway;
        let first: Option<IpAddr> = "192.0.2.1".parse().ok();
        assert_eq!(gateway(&["198.51.100.1", "192.0.2.10", "192.0.2.1"], &[]), first);
        assert_eq!(gateway(&[], &[]), None);
        assert_eq!(gateway(&["192.0.2.3"], &[("0.0.0.0/0", "192.0.2.1")]), first);
        assert_eq!(gateway(&["192.0.2.3"], &[("10.0.0.0/8", "192.0.2.1"), ("0.0.0.0/0", "0.0.0.0")]), None);
    }

    #[test]
    fn routes_that_the_kernel_would_refuse_are_left_out() {
        let routes = [
            ("10.0.0.0/8", "192.0.2.1"),
            ("10.0.0.0/8", "192.0.2.3"),
            ("10.1.0.0/16", "198.51.100.1"),
            ("192.0.2.0/24", "192.0.2.1"),
            ("224.0.0.0/4", "192.0.2.1"),
            ("198.18.0.0/15", "0.0.0.0"),
        ];
        let lease = LanLease::read(&terms(&[], &routes));
        let expected = [
            json!({ "Destination": "10.0.0.0/8", "RouteType": 0, "NextHop": "192.0.2.1" }),
            json!({ "Destination": "198.18.0.0/15", "RouteType": 1 }),
        ];
        assert_eq!(lease.static_routes(), expected);
    }
}
