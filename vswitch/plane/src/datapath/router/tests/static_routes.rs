//! Subnets behind stations that route: which packets get there, and which are let through from there.

use super::*;

impl Lab {
    /// Behind station 2 (10.0.0.12, fd00::c) of bridge 0 are 10.9.0.0/16 and fd09::/48; nothing else is.
    fn with_route(isolated: bool) -> Self {
        let mut lab = Self::new(isolated, nat());
        lab.route(&["10.9.0.0/16 via 10.0.0.12", "fd09::/48 via fd00::c"], isolated);
        lab.introduce();
        lab
    }

    fn route(&mut self, routes: &[&str], isolated: bool) {
        let routes = routes.iter().map(|text| text.parse::<api::RouteSpec>().unwrap());
        let routes = routes.map(|route| (route.to, route.via)).collect();
        self.datapath.set_gateway(BridgeId(0), Some(GatewaySettings { routes, ..inside(0, isolated) }));
    }
}

/// From station 1 of bridge 0 to an address beyond.
fn to(destination: [u8; 4]) -> Vec<u8> {
    udp((station(1), [10, 0, 0, 11], 5000), (gateway(0), destination, 80), 64, b"x")
}

#[test]
fn a_packet_for_a_subnet_behind_a_station_goes_to_that_station() {
    let mut lab = Lab::with_route(true);
    let left = lab.send(A, &to([10, 9, 1, 2]));
    let [Left(B, frame)] = &left[..] else { panic!("{left:?}") };
    assert_eq!((&frame[..6], flow(frame)), (&station(2).0[..], ([10, 0, 0, 11], 5000, [10, 9, 1, 2], 80, 63)));

    let mut frame = Vec::new();
    let addresses = ["fd00::b", "fd09::7"].map(|text| text.parse::<std::net::Ipv6Addr>().unwrap().octets());
    let builder = PacketBuilder::ethernet2(station(1).0, gateway(0).0).ipv6(addresses[0], addresses[1], 64);
    builder.udp(1, 2).write(&mut frame, b"x").unwrap();
    let left = lab.send(A, &frame);
    let asked = left.iter().find(|left| left.1[54] == 135).unwrap_or_else(|| panic!("{left:?}"));
    assert_eq!(asked.1[62..78], "fd00::c".parse::<std::net::Ipv6Addr>().unwrap().octets(), "its next hop is asked for");
}

#[test]
fn a_packet_from_behind_a_station_is_no_martian_and_leaves_by_nat_and_comes_back() {
    let mut lab = Lab::with_route(true);
    let out = udp((station(2), [10, 9, 1, 2], 4000), (gateway(0), HOST, 53), 64, b"q");
    let left = lab.send(B, &out);
    let [Left(WAN, frame)] = &left[..] else { panic!("{left:?}") };
    let (source, port, ..) = flow(frame);
    assert_eq!(source, [192, 0, 2, 10]);
    let back = udp((station(4), HOST, 53), (gateway(9), [192, 0, 2, 10], port), 64, b"a");
    let left = lab.send(WAN, &back);
    let [Left(B, frame)] = &left[..] else { panic!("{left:?}") };
    assert_eq!((&frame[..6], flow(frame)), (&station(2).0[..], (HOST, 53, [10, 9, 1, 2], 4000, 63)));
    // The route says nothing of another subnet, and no host outside may have the addresses of this one.
    assert!(lab.send(B, &udp((station(2), [10, 8, 1, 2], 1), (gateway(0), HOST, 53), 64, b"q")).is_empty());
    assert!(lab.send(WAN, &udp((station(4), [10, 9, 1, 2], 1), (gateway(9), [192, 0, 2, 10], port), 64, b"q")).is_empty());
    assert_eq!((lab.drops(B, DropReason::MartianSource), lab.drops(WAN, DropReason::MartianSource)), (1, 1));
}

#[test]
fn the_longest_prefix_wins_over_the_subnets_too() {
    let mut lab = Lab::with_route(false);
    lab.route(&["10.0.0.128/25 via 10.0.0.12", "10.0.0.0/8 via 10.0.0.12", "10.0.0.200/32 via 10.0.0.11"], false);
    lab.introduce();
    let to_whom = |lab: &mut Lab, destination| {
        let left = lab.send(C, &udp((station(3), [10, 0, 1, 13], 1), (gateway(1), destination, 2), 64, b"x"));
        left.iter().map(|left| left.0).collect::<Vec<_>>()
    };
    assert_eq!(to_whom(&mut lab, [10, 0, 0, 11]), [A], "its own subnet is longer than /8");
    assert_eq!(to_whom(&mut lab, [10, 0, 0, 130]), [B]);
    assert_eq!(to_whom(&mut lab, [10, 0, 0, 200]), [A]);
    assert_eq!(to_whom(&mut lab, [10, 77, 0, 1]), [B]);
}

#[test]
fn the_routes_of_an_isolated_bridge_are_for_its_own_stations() {
    let mut lab = Lab::with_route(true);
    let from_other = udp((station(3), [10, 0, 1, 13], 1), (gateway(1), [10, 9, 1, 2], 2), 64, b"x");
    let left = lab.send(C, &from_other);
    assert!(left.iter().all(|left| left.0 == WAN), "it takes the uplink as any address that is unknown: {left:?}");
    let mut lab = Lab::with_route(false);
    let left = lab.send(C, &from_other);
    assert!(matches!(&left[..], [Left(B, _)]), "{left:?}");
}

#[test]
fn a_default_route_is_preferred_to_the_uplink_by_the_stations_of_its_bridge_alone() {
    let mut lab = Lab::with_route(false);
    lab.route(&["default via 10.0.0.12"], false);
    lab.introduce();
    let left = lab.send(A, &to(HOST));
    assert!(matches!(&left[..], [Left(B, _)]), "{left:?}");
    let left = lab.send(C, &udp((station(3), [10, 0, 1, 13], 1), (gateway(1), HOST, 2), 64, b"x"));
    assert!(matches!(&left[..], [Left(WAN, _)]), "{left:?}");
    lab.route(&[], false);
    lab.introduce();
    let left = lab.send(A, &to(HOST));
    assert!(matches!(&left[..], [Left(WAN, _)]), "{left:?}");
}
