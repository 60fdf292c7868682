//! A frame's whole way, as an observer sees it.

use super::*;
use crate::datapath::{Fate, Guard, Learned, Observer, Place, Step};
use packet::TagEdit;

/// Keeps the steps of each frame.
#[derive(Default)]
struct Recorder(Vec<(usize, Step)>);

impl Observer for Recorder {
    fn see(&mut self, frame: usize, step: impl FnOnce() -> Step) {
        self.0.push((frame, step()));
    }
}

impl Recorder {
    fn forward(lab: &mut Lab, port: PortId, frame: &[u8]) -> Vec<Step> {
        let mut recorder = Self::default();
        lab.batch.set_ingress(port.0);
        lab.batch.push(frame, Offload::default());
        lab.datapath.forward_observed(lab.now, &mut lab.batch, &mut lab.outputs, &mut recorder);
        lab.collect();
        recorder.0.into_iter().filter(|(frame, _)| *frame == 0).map(|(_, step)| step).collect()
    }
}

#[test]
fn a_frames_whole_way_through_bridge_guard_router_and_nat_is_seen() {
    let mut lab = Lab::new(true, nat());
    lab.introduce();
    let guard = Guard { mac: station(1), addresses: vec![[10, 0, 0, 11].into()] };
    lab.datapath.set_port(A, &PortSettings { guard: Some(guard), ..PortSettings::on(BridgeId(0)) });
    let steps = Recorder::forward(&mut lab, A, &out(64, b"query"));
    let [
        Step::Admitted { port: A, bridge: BridgeId(0), vlan: VlanId::DEFAULT, guarded: true },
        Step::ClaimsChecked,
        Step::SourceLearned { mac, place, outcome: Learned::Known },
        Step::ForGateway { alone: true },
        Step::RouteLookedUp { destination, way: Some((UPLINK, _)) },
        Step::Translated { uplink: UPLINK, rewrite: Some(rewrite) },
        Step::NeighborLookedUp { bridge: UPLINK, mac: Some(_), .. },
        Step::Queued { port: WAN, edit: TagEdit::Keep, peer: 0 },
        Step::Settled(Fate::Routed { into: UPLINK, translated: true }),
    ] = &steps[..]
    else {
        panic!("{steps:#?}")
    };
    assert_eq!((*mac, *place, *destination), (station(1), Place::from(A), IpAddr::from(HOST)));
    assert_eq!(rewrite.destination(), None, "the source alone is translated");
}

#[test]
fn what_a_frame_is_dropped_for_is_its_last_step() {
    let mut lab = Lab::new(true, nat());
    lab.introduce();
    let guard = Guard { mac: station(1), addresses: vec![[10, 0, 0, 99].into()] };
    lab.datapath.set_port(A, &PortSettings { guard: Some(guard), ..PortSettings::on(BridgeId(0)) });
    let steps = Recorder::forward(&mut lab, A, &out(64, b"query"));
    assert_eq!(steps, [Step::Settled(Fate::Dropped(DropReason::GuardIp))]);
}

#[test]
fn an_observer_changes_nothing() {
    let frames = [
        out(64, b"query"),
        out(1, b"query"),
        ping((station(1), [10, 0, 0, 11]), (gateway(0), [10, 0, 0, 1])),
        arp(ArpOperation::REQUEST, station(1), Mac::BROADCAST, [10, 0, 0, 11], [10, 0, 0, 1]),
    ];
    let mut labs = [Lab::new(true, nat()), Lab::new(true, nat())];
    labs.iter_mut().for_each(Lab::introduce);
    let [seen, unseen] = &mut labs;
    for frame in &frames {
        seen.batch.set_ingress(A.0);
        seen.batch.push(frame, Offload::default());
        seen.datapath.forward_observed(seen.now, &mut seen.batch, &mut seen.outputs, &mut Recorder::default());
        assert_eq!(seen.collect(), unseen.send(A, frame));
    }
}
