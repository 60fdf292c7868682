//! Networks and faults at random.

use proptest::prelude::*;

use super::network::*;
use crate::*;

#[derive(Clone, Copy, Debug)]
enum Fault {
    Down(usize),
    Up(usize),
    Kill(usize),
    Start(usize),
}

fn fault() -> impl Strategy<Value = (Fault, u64)> {
    let number = || 0_usize..20;
    let what = prop_oneof![
        number().prop_map(Fault::Down),
        number().prop_map(Fault::Up),
        number().prop_map(Fault::Kill),
        number().prop_map(Fault::Start),
    ];
    (what, prop_oneof![0_u64..100, 0_u64..3000, 0_u64..12_000])
}

prop_compose! {
    fn network()(bridges in 2_usize..7)(
        wires in prop::collection::vec((0..bridges, 0..bridges), 1..12),
        priorities in prop::collection::vec(0_u16..3, bridges),
        seed in any::<u64>(),
        old in prop::collection::vec(prop::bool::weighted(0.15), bridges),
    ) -> (Vec<BridgeSettings>, Vec<(usize, usize)>, u64) {
        let version = |old| if old { Version::Stp } else { Version::Rstp };
        let all = priorities.iter().zip(old).enumerate();
        let all = all.map(|(number, (priority, old))| settings(number, priority * 4096, version(old)));
        (all.collect(), wires.into_iter().filter(|(one, other)| one != other).collect(), seed)
    }
}

fn suffer(network: &mut Network, faults: &[(Fault, u64)]) {
    let (lans, bridges) = (network.lans.len().max(1), network.bridges.len());
    for (fault, pause) in faults {
        match *fault {
            Fault::Down(lan) if !network.lans.is_empty() => network.set_lan(lan % lans, false),
            Fault::Up(lan) if !network.lans.is_empty() => network.set_lan(lan % lans, true),
            Fault::Kill(bridge) => network.kill(bridge % bridges),
            Fault::Start(bridge) => network.start(bridge % bridges),
            _ => {}
        }
        network.run(*pause);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Whatever fails and comes back, no two ways are open at any moment, and in the end everything is joined.
    #[test]
    fn there_is_never_a_loop((settings, wires, seed) in network(), faults in prop::collection::vec(fault(), 0..12)) {
        let mut network = Network::with(settings, &wires).seed(seed);
        suffer(&mut network, &faults);
        network.run(90_000);
        prop_assert!(network.is_tree(), "{}", network.show());
    }

    /// Where wires are long, and no two as long, a root that fails leaves messages on them that contradict each other. A loop that comes of
    /// it is gone before a frame could go round.
    #[test]
    fn there_is_no_loop_that_a_frame_goes_round((settings, wires, seed) in network(), faults in prop::collection::vec(fault(), 0..12)) {
        let mut network = Network::with(settings, &wires).seed(seed);
        network.delay = 20;
        suffer(&mut network, &faults);
        network.run(90_000);
        prop_assert!(network.is_tree(), "{}", network.show());
    }

    /// Where one BPDU of ten is lost, a tree is found all the same. No protocol keeps that free of loops whose messages are what is lost.
    #[test]
    fn a_tree_is_found_though_bpdus_are_lost((settings, wires, seed) in network(), faults in prop::collection::vec(fault(), 0..6)) {
        let mut network = Network::with(settings, &wires).seed(seed);
        network.loss = 10;
        suffer(&mut network, &faults);
        network.run(40_000);
        network.loss = 0;
        network.run(90_000);
        prop_assert!(network.is_tree(), "{}", network.show());
    }
}
