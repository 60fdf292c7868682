//! Networks as the standard and cabling rooms have them: rings, dual-homed closets, rings on rings, shared media.

use super::network::*;
use crate::*;

/// A ring of so many bridges.
fn ring(bridges: usize) -> Network {
    let wires: Vec<(usize, usize)> = (0..bridges).map(|number| (number, (number + 1) % bridges)).collect();
    Network::new(bridges, &wires)
}

fn blocked(network: &Network) -> Vec<End> {
    network.ports.keys().copied().filter(|end| network.state(*end) == State::Discarding).collect()
}

#[test]
fn of_a_ring_one_port_is_blocked_and_it_stands_at_once() {
    for bridges in 3..9 {
        let mut network = ring(bridges);
        let took = network.until(1500, Network::is_tree);
        network.run(30_000);
        assert!(network.is_tree(), "{}", network.show());
        let blocked = blocked(&network);
        assert_eq!(blocked.len(), 1, "{bridges} bridges, {took} ms: {}", network.show());
        assert_eq!(network.role(blocked[0]), Role::Alternate);
    }
}

#[test]
fn a_link_that_goes_down_is_healed_within_a_second() {
    for bridges in 3..8 {
        for down in 0..bridges {
            for phase in [0, 111, 740] {
                let mut network = ring(bridges);
                network.run(10_000 + phase);
                network.set_lan(down, false);
                let took = network.until(1000, Network::is_tree);
                assert!(took < 500, "{bridges} bridges, wire {down}: {took} ms");
                network.run(5000);
                network.set_lan(down, true);
                network.until(5000, |network| network.is_tree() && blocked(network).len() == 1);
            }
        }
    }
}

#[test]
fn a_root_that_restarts_opens_no_loop() {
    for bridges in 3..7 {
        for away in [50, 500, 1000, 3000, 5900, 6100, 9000, 30_000] {
            let mut network = ring(bridges);
            network.run(8000);
            network.kill(0);
            network.run(away);
            network.start(0);
            network.run(30_000);
            assert!(network.is_tree(), "{bridges} bridges, away for {away} ms: {}", network.show());
        }
    }
}

/// Cuts each cable in turn and mends it: the others take over within a second.
fn cut_each(network: &mut Network) {
    for lan in 0..network.lans.len() {
        network.set_lan(lan, false);
        network.until(1000, Network::is_tree);
        network.set_lan(lan, true);
        network.run(6000);
        assert!(network.is_tree(), "{}", network.show());
    }
}

/// Two bridges of a core, joined twice, and closets on both.
#[test]
fn closets_on_a_doubled_core() {
    let closets: Vec<(usize, usize)> = (2..8).flat_map(|closet| [(0, closet), (1, closet)]).collect();
    let mut network = Network::new(8, &[&[(0, 1), (0, 1)][..], &closets].concat());
    network.until(1500, Network::is_tree);
    cut_each(&mut network);
    network.kill(0);
    network.run(20_000);
    assert!(network.is_tree(), "{}", network.show());
}

/// A ring as the backbone, with other rings on two neighbours of it each.
#[test]
fn rings_on_a_ring() {
    let backbone = [(0, 1), (1, 2), (2, 3), (3, 0)];
    let rings = [(0, 4), (4, 5), (5, 1), (2, 6), (6, 7), (7, 3), (1, 8), (8, 2)];
    let mut network = Network::new(9, &[&backbone[..], &rings].concat());
    network.until(2000, Network::is_tree);
    cut_each(&mut network);
}

/// Two ports of a bridge on one medium, with and without another bridge there: one of them is a backup.
#[test]
fn of_two_ports_on_one_medium_one_is_a_backup() {
    let mut network = Network::new(2, &[]);
    for bridges in [&[0, 0][..], &[0, 0, 1]] {
        network.join(bridges);
    }
    for number in 0..2 {
        network.kill(number);
        network.start(number);
    }
    network.run(30_000);
    assert!(network.is_tree(), "{}", network.show());
    assert_eq!(
        [(0, 1), (0, 2), (0, 3), (0, 4)].map(|end| network.role(end)),
        [Role::Designated, Role::Backup, Role::Designated, Role::Backup]
    );
    assert_eq!(network.role((1, 1)), Role::Root);
}

#[test]
fn every_pair_of_six_joined() {
    let pairs: Vec<(usize, usize)> = (0..6).flat_map(|one| (one + 1..6).map(move |other| (one, other))).collect();
    let mut network = Network::new(6, &pairs);
    network.until(2000, Network::is_tree);
    network.kill(0);
    network.run(30_000);
    assert!(network.is_tree(), "{}", network.show());
    network.start(0);
    network.run(30_000);
    assert!(network.is_tree(), "{}", network.show());
}
