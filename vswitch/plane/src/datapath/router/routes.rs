//! Static routes, the longest prefix first: one look for each length of prefix that there is.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::datapath::BridgeId;

/// The static routes of every gateway. Two bridges may have one to the same subnet.
#[derive(Debug, Default)]
pub(super) struct Routes {
    table: BTreeMap<IpNet, Vec<(BridgeId, IpAddr)>>,
    /// The lengths of the prefixes in the table, longest first, of IPv4 and of IPv6.
    lengths: [Vec<u8>; 2],
}

impl Routes {
    pub(super) fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// Makes these the routes of a bridge instead of those before.
    pub(super) fn set(&mut self, bridge: BridgeId, routes: &[(IpNet, IpAddr)]) {
        for ways in self.table.values_mut() {
            ways.retain(|(owner, _)| *owner != bridge);
        }
        for (net, via) in routes {
            self.table.entry(net.trunc()).or_default().push((bridge, *via));
        }
        self.table.retain(|_, ways| !ways.is_empty());
        let lengths = |v4: bool| {
            let nets = self.table.keys().filter(|net| net.addr().is_ipv4() == v4);
            let mut lengths: Vec<u8> = nets.map(IpNet::prefix_len).collect();
            lengths.sort_unstable_by(|one, other| other.cmp(one));
            lengths.dedup();
            lengths
        };
        self.lengths = [lengths(true), lengths(false)];
    }

    /// The length of the longest prefix that holds the address and has a usable way, with its bridge and next hop.
    pub(super) fn find(&self, address: IpAddr, usable: impl Fn(u8, BridgeId) -> bool) -> Option<(u8, BridgeId, IpAddr)> {
        let [v4, v6] = &self.lengths;
        let lengths = if address.is_ipv4() { v4 } else { v6 };
        lengths.iter().find_map(|length| {
            let net = IpNet::new(address, *length).ok()?.trunc();
            let (bridge, via) = self.table.get(&net)?.iter().find(|(bridge, _)| usable(*length, *bridge))?;
            Some((*length, *bridge, *via))
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn routes(list: &[(u32, &str, &str)]) -> Routes {
        let mut routes = Routes::default();
        for bridge in 0..4 {
            let own = list.iter().filter(|(owner, ..)| *owner == bridge);
            let own: Vec<_> = own.map(|(_, net, via)| (net.parse().unwrap(), via.parse().unwrap())).collect();
            routes.set(BridgeId(bridge), &own);
        }
        routes
    }

    fn via(routes: &Routes, address: &str) -> Option<String> {
        routes.find(address.parse().unwrap(), |_, _| true).map(|(_, _, via)| via.to_string())
    }

    #[test]
    fn the_longest_prefix_wins_in_both_ip_versions() {
        let routes = routes(&[
            (0, "10.0.0.0/8", "192.0.2.1"),
            (0, "10.9.0.0/16", "192.0.2.2"),
            (1, "10.9.9.9/32", "192.0.2.3"),
            (0, "fd09::/48", "fd00::1"),
            (1, "fd09:0:0:9::/64", "fd00::2"),
            (0, "::/0", "fd00::3"),
        ]);
        for (address, next) in [
            ("10.1.1.1", Some("192.0.2.1")),
            ("10.9.1.1", Some("192.0.2.2")),
            ("10.9.9.9", Some("192.0.2.3")),
            ("11.0.0.1", None),
            ("fd09::1", Some("fd00::1")),
            ("fd09:0:0:9::1", Some("fd00::2")),
            ("2001:db8::1", Some("fd00::3")),
        ] {
            assert_eq!(via(&routes, address).as_deref(), next, "{address}");
        }
    }

    #[test]
    fn a_way_that_may_not_be_used_leaves_the_next_shorter_one() {
        let mut routes =
            routes(&[(0, "10.0.0.0/8", "192.0.2.1"), (1, "10.9.0.0/16", "192.0.2.2"), (2, "10.9.0.0/16", "192.0.2.3")]);
        let address = "10.9.1.1".parse().unwrap();
        let by =
            |routes: &Routes, bridge| routes.find(address, |_, owner| owner == BridgeId(bridge)).map(|(length, ..)| length);
        assert_eq!([by(&routes, 0), by(&routes, 1), by(&routes, 2), by(&routes, 3)], [Some(8), Some(16), Some(16), None]);
        routes.set(BridgeId(1), &[]);
        assert_eq!([by(&routes, 1), by(&routes, 2)], [None, Some(16)]);
        routes.set(BridgeId(2), &[]);
        routes.set(BridgeId(0), &[]);
        assert!(routes.is_empty() && routes.lengths.iter().all(Vec::is_empty));
    }

    proptest! {
        #[test]
        fn the_way_found_is_that_of_a_look_at_all(
            nets in prop::collection::vec((any::<u32>(), 0u8..=32), 1..40),
            address in any::<u32>(),
        ) {
            let nets: Vec<IpNet> = nets.iter().map(|(bits, length)| IpNet::new(IpAddr::V4((*bits).into()), *length).unwrap().trunc()).collect();
            let mut routes = Routes::default();
            let list: Vec<(IpNet, IpAddr)> = nets.iter().map(|net| (*net, net.addr())).collect();
            routes.set(BridgeId(0), &list);
            let address = IpAddr::V4(address.into());
            let best = nets.iter().filter(|net| net.contains(&address)).map(IpNet::prefix_len).max();
            prop_assert_eq!(routes.find(address, |_, _| true).map(|(length, ..)| length), best);
        }
    }
}
