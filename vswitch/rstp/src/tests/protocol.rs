//! Single traits of the protocol, each of which has been a fault of others.

use packet::Mac;

use super::network::*;
use crate::*;

/// A bridge with so many ports whose links are up, and what it has done by then.
fn bridge(ports: u16, edge: Edge) -> Bridge {
    let mut bridge = Bridge::new(settings(1, 32768, Version::Rstp));
    for number in 1..=ports {
        bridge.set_port(number, PortSettings { edge, ..PORT });
        bridge.set_link(number, true);
    }
    bridge
}

fn wait(bridge: &mut Bridge, milliseconds: u64) {
    (0..milliseconds / 250).for_each(|_| bridge.tick());
}

fn state(bridge: &Bridge, port: u16) -> State {
    bridge.port_status(port).unwrap().state
}

/// A message of another bridge that is a better root, or a worse one.
fn message(priority: u16, role: MessageRole, flags: u8) -> Message {
    let id = BridgeIdentifier { priority, address: Mac::from_u64(0x0200_0000_0001) };
    let vector = Vector { root: id, cost: 0, bridge: id, port: PortIdentifier::new(128, 7) };
    Message { flags: Flags(flags).of(role), vector, times: Times::DEFAULT }
}

fn sent(bridge: &mut Bridge) -> Vec<Bpdu> {
    let sent = |action| match action {
        Action::Send(_, bpdu) => Some(bpdu),
        _ => None,
    };
    bridge.take_actions().into_iter().filter_map(sent).collect()
}

#[test]
fn a_port_is_an_edge_only_after_three_seconds_of_silence() {
    let mut bridge = bridge(1, Edge::Auto);
    wait(&mut bridge, 2750);
    assert_eq!((state(&bridge, 1), bridge.port_status(1).unwrap().edge), (State::Discarding, false));
    wait(&mut bridge, 250);
    assert_eq!((state(&bridge, 1), bridge.port_status(1).unwrap().edge), (State::Forwarding, true));
}

/// Auto-edge must not win because the neighbour's BPDUs, or its answers, were lost after the first one.
#[test]
fn a_port_at_which_a_bridge_was_heard_is_never_an_edge() {
    let mut bridge = bridge(1, Edge::Auto);
    bridge.receive(1, &Bpdu::Rapid(message(61440, MessageRole::Designated, 0)));
    wait(&mut bridge, 3500);
    assert!(!bridge.port_status(1).unwrap().edge);
    assert_eq!(state(&bridge, 1), State::Discarding);
}

#[test]
fn a_bpdu_takes_the_edge_away_at_once() {
    for edge in [Edge::Auto, Edge::Yes] {
        let mut bridge = bridge(2, edge);
        wait(&mut bridge, 4000);
        assert_eq!(state(&bridge, 1), State::Forwarding);
        bridge.receive(2, &Bpdu::Rapid(message(0, MessageRole::Designated, Flags::PROPOSAL)));
        bridge.receive(1, &Bpdu::Rapid(message(0, MessageRole::Designated, Flags::PROPOSAL)));
        assert!(!bridge.port_status(1).unwrap().edge);
        let roles = [1, 2].map(|port| (bridge.port_status(port).unwrap().role, state(&bridge, port)));
        assert!(roles.contains(&(Role::Root, State::Forwarding)) && roles.contains(&(Role::Alternate, State::Discarding)));
    }
}

#[test]
fn an_edge_that_is_given_forwards_at_once_and_one_that_is_denied_waits() {
    let mut given = bridge(1, Edge::Yes);
    assert_eq!(state(&given, 1), State::Forwarding);
    assert!(!given.take_actions().iter().any(|action| matches!(action, Action::TopologyChange(_))), "stations come and go");
    let mut denied = bridge(1, Edge::No);
    wait(&mut denied, 19_000);
    assert_eq!(state(&denied, 1), State::Discarding);
    wait(&mut denied, 4000);
    assert_eq!(state(&denied, 1), State::Forwarding);
}

#[test]
fn before_an_agreement_all_other_ports_have_stopped() {
    let mut bridge = bridge(3, Edge::No);
    bridge.receive(2, &Bpdu::Rapid(message(0, MessageRole::Designated, 0)));
    for _ in 0..12 {
        wait(&mut bridge, 2000);
        bridge.receive(2, &Bpdu::Rapid(message(0, MessageRole::Designated, 0)));
    }
    assert_eq!([1, 2, 3].map(|port| state(&bridge, port)), [State::Forwarding; 3]);
    bridge.take_actions();
    // The root is another now, and worse.
    bridge.receive(2, &Bpdu::Rapid(message(4096, MessageRole::Designated, Flags::PROPOSAL | Flags::FORWARDING)));
    let actions = bridge.take_actions();
    let agrees =
        |action: &Action| matches!(action, Action::Send(2, Bpdu::Rapid(message)) if message.flags.has(Flags::AGREEMENT));
    let agreement = actions.iter().position(agrees).unwrap();
    for port in [1, 3] {
        let stop = actions.iter().position(|action| *action == Action::State(port, State::Discarding)).unwrap();
        assert!(stop < agreement, "{actions:?}");
    }
}

#[test]
fn with_a_bridge_of_the_older_protocol_the_port_speaks_that_and_goes_back() {
    let mut bridge = bridge(1, Edge::Auto);
    let old = Bpdu::Configuration(message(61440, MessageRole::Designated, 0));
    wait(&mut bridge, 1000);
    bridge.receive(1, &old);
    wait(&mut bridge, 2500);
    bridge.receive(1, &old);
    bridge.take_actions();
    wait(&mut bridge, 2500);
    let said = sent(&mut bridge);
    assert!(!said.is_empty() && said.iter().all(|bpdu| matches!(bpdu, Bpdu::Configuration(_))), "{said:?}");
    assert_eq!(bridge.port_status(1).unwrap().peer, Peer::Stp);
    assert_eq!(state(&bridge, 1), State::Discarding, "thirty seconds to go, as there");
    wait(&mut bridge, 31_000);
    assert_eq!(state(&bridge, 1), State::Forwarding);
    bridge.receive(1, &Bpdu::Rapid(message(61440, MessageRole::Designated, 0)));
    bridge.take_actions();
    wait(&mut bridge, 2500);
    let said = sent(&mut bridge);
    assert!(!said.is_empty() && said.iter().all(|bpdu| matches!(bpdu, Bpdu::Rapid(_))), "{said:?}");
}

#[test]
fn a_neighbour_that_does_not_hear_is_not_forwarded_to() {
    let mut network = Network::new(2, &[(0, 1), (0, 1)]);
    network.run(10_000);
    network.lans[0].deaf = true;
    network.run(30_000);
    assert!(network.loops.is_empty());
    assert_eq!(network.state((0, 1)), State::Discarding, "{}", network.show());
    assert_eq!(network.role((1, 2)), Role::Root);
}

#[test]
fn a_port_that_hears_itself_forwards_nothing() {
    let mut bridge = bridge(1, Edge::No);
    for _ in 0..200 {
        bridge.tick();
        for bpdu in sent(&mut bridge) {
            bridge.receive(1, &bpdu);
        }
        assert_ne!(state(&bridge, 1), State::Forwarding);
    }
}

#[test]
fn six_bpdus_a_second_are_the_most() {
    let mut bridge = bridge(2, Edge::Auto);
    bridge.take_actions();
    let mut said = 0;
    for number in 0..400_u16 {
        bridge.receive(1, &Bpdu::Rapid(message(number * 16, MessageRole::Designated, Flags::PROPOSAL)));
        if number % 40 == 0 {
            wait(&mut bridge, 1000);
        }
        said += bridge.take_actions().iter().filter(|action| matches!(action, Action::Send(1, _))).count();
    }
    assert!(said <= 6 * 11, "{said}");
}

#[test]
fn what_is_told_of_a_root_that_is_gone_dies_of_age() {
    let mut network = Network::new(5, &[(0, 1), (1, 2), (2, 3), (3, 4), (4, 1), (2, 4)]);
    network.run(10_000);
    network.kill(0);
    network.run(30_000);
    assert!(network.is_tree(), "{}", network.show());
}

#[test]
fn a_change_of_topology_flushes_where_it_is_not_heard_from() {
    let mut network = Network::new(4, &[(0, 1), (1, 2), (2, 3), (3, 0)]);
    network.run(10_000);
    network.flushes.clear();
    network.set_lan(0, false);
    network.run(2000);
    for bridge in 0..4 {
        assert!(network.flushes.iter().any(|(number, _)| *number == bridge), "bridge {bridge}: {:?}", network.flushes);
    }
    network.flushes.clear();
    network.run(60_000);
    assert_eq!(network.flushes, [], "it ends");
}

#[test]
fn another_priority_moves_the_root_and_a_cost_the_way() {
    let mut network = Network::new(3, &[(0, 1), (1, 2), (2, 0)]);
    network.run(10_000);
    assert_eq!(network.role((2, 1)), Role::Alternate);
    network.act(2, |bridge| bridge.set(settings(2, 0, Version::Rstp)));
    network.run(1000);
    assert!(network.is_tree());
    assert_eq!(network.bridges[0].as_ref().unwrap().status().root.priority, 0);
    assert_eq!(network.role((0, 2)), Role::Root);
    network.act(0, |bridge| bridge.set_port(2, PortSettings { cost: 20_000, ..PORT }));
    network.run(3000);
    assert!(network.is_tree());
    assert_eq!(network.role((0, 1)), Role::Root, "{}", network.show());
}

#[test]
fn a_port_that_is_removed_is_missed_like_a_link() {
    let mut network = Network::new(3, &[(0, 1), (1, 2), (2, 0)]);
    network.run(10_000);
    network.set_lan(0, false);
    network.act(1, |bridge| bridge.remove_port(1));
    network.ports.remove(&(1, 1));
    network.until(1000, Network::is_tree);
}

#[test]
fn the_older_protocol_alone_takes_its_time_and_opens_no_loop() {
    let all = (0..4).map(|number| settings(number, 4096, Version::Stp)).collect();
    let mut network = Network::with(all, &[(0, 1), (1, 2), (2, 3), (3, 0)]);
    network.run(29_000);
    assert!(!network.is_tree());
    network.run(10_000);
    assert!(network.is_tree(), "{}", network.show());
    network.set_lan(0, false);
    network.run(55_000);
    assert!(network.is_tree(), "{}", network.show());
}
