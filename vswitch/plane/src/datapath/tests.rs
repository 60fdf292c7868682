//! The datapath as a whole, with made-up frames and a hand-moved clock.

use std::sync::Arc;
use std::time::Duration;

use packet::{Checksum, Gso, GsoKind, Offload, Tag, TagEdit};
use proptest::prelude::*;

use super::*;
use api::ControlFrames;
use rstp::State;

const BROADCAST: u64 = 0xffff_ffff_ffff;

struct Lab {
    datapath: Datapath,
    now: Instant,
}

impl Lab {
    /// One bridge, and a port for each VLAN mode.
    fn new(ports: &[VlanMode]) -> Self {
        let now = Instant::now();
        let mut datapath = Datapath::new(now, 1);
        let settings = BridgeSettings {
            mtu: 1500,
            ageing: 300,
            max_macs: 100,
            control_frames: ControlFrames::Drop,
            ..BridgeSettings::default()
        };
        datapath.set_bridge(now, BridgeId(0), settings);
        let mut lab = Self { datapath, now };
        for (number, vlans) in (0..).zip(ports) {
            lab.set(number, PortSettings { vlans: vlans.clone(), ..PortSettings::on(BridgeId(0)) });
        }
        lab
    }

    fn set(&mut self, port: u32, settings: PortSettings) {
        self.datapath.set_port(PortId(port), &settings);
    }

    /// Sends one frame; returns where it left and how, or why it did not.
    fn send(&mut self, port: u32, frame: &[u8], offload: Offload) -> Result<Vec<(u32, TagEdit)>, DropReason> {
        let mut batch = Batch::new();
        batch.set_ingress(port);
        batch.push(frame, offload);
        let mut outputs = Outputs::new();
        let beforehand = self.datapath.dry_run(self.now, PortId(port).into(), frame, offload);
        self.datapath.forward(self.now, &mut batch, &mut outputs);
        assert_eq!(
            beforehand.map(|dry| (Some(dry.fate), queues(&dry.outputs))),
            outputs.fates()[0].map(|fate| (Some(fate), queues(&outputs)))
        );
        match outputs.dropped().next() {
            Some((_, reason)) => Err(reason),
            None => Ok(outputs.used().iter().flat_map(|port| outputs.queue(*port).iter().map(|d| (port.0, d.edit))).collect()),
        }
    }

    fn carry(&mut self, port: u32, source: u64, destination: u64) -> Result<Vec<u32>, DropReason> {
        let sent = self.send(port, &frame(source, destination, None, 46), Offload::default());
        sent.map(|list| list.into_iter().map(|(port, _)| port).collect())
    }

    fn drops(&self, port: u32, reason: DropReason) -> u64 {
        self.datapath.counters(PortId(port)).unwrap().drops(reason)
    }
}

/// What leaves where.
fn queues(outputs: &Outputs) -> Vec<(PortId, Vec<Departure>)> {
    outputs.used().iter().map(|port| (*port, outputs.queue(*port).to_vec())).collect()
}

fn frame(source: u64, destination: u64, tag: Option<u16>, payload: usize) -> Vec<u8> {
    let mut bytes = [Mac::from_u64(destination).0, Mac::from_u64(source).0].concat();
    if let Some(tag) = tag {
        bytes.extend([0x81, 0]);
        bytes.extend(tag.to_be_bytes());
    }
    bytes.extend([0x08, 0]);
    bytes.resize(bytes.len() + payload, 0);
    bytes
}

/// A limit of so many frames a second.
fn limit(frames: u32, now: Instant) -> PortLimits {
    PortLimits { broadcast: Some(Arc::new(Limiter::of_frames(frames, now))), ..PortLimits::default() }
}

fn protected(vlans: VlanMode) -> PortSettings {
    let policy = PortPolicy { protected: true, ..PortPolicy::default() };
    PortSettings { vlans, policy, ..PortSettings::on(BridgeId(0)) }
}

fn vlan(number: u16) -> VlanId {
    VlanId::try_from(number).unwrap()
}

fn all(count: usize) -> Vec<VlanMode> {
    vec![VlanMode::All; count]
}

#[test]
fn unknown_destinations_flood_and_known_ones_do_not() {
    let mut lab = Lab::new(&all(4));
    assert_eq!(lab.carry(0, 2, 4), Ok(vec![1, 2, 3]));
    assert_eq!(lab.carry(2, 4, 2), Ok(vec![0]));
    assert_eq!(lab.carry(0, 2, 4), Ok(vec![2]));
    assert_eq!(lab.carry(0, 2, BROADCAST), Ok(vec![1, 2, 3]));
    assert_eq!(lab.carry(0, 2, 0x3333_0000_0001), Ok(vec![1, 2, 3]), "multicast");
    assert_eq!(lab.carry(2, 6, 4), Err(DropReason::SamePort));
}

#[test]
fn protected_ports_reach_all_but_each_other() {
    let mut lab = Lab::new(&all(4));
    for port in [0, 1] {
        lab.set(port, protected(VlanMode::All));
    }
    assert_eq!(lab.carry(0, 2, BROADCAST), Ok(vec![2, 3]));
    assert_eq!(lab.carry(1, 4, 2), Err(DropReason::Protected));
    assert_eq!(lab.carry(2, 6, 2), Ok(vec![0]));
    assert_eq!(lab.carry(0, 2, 6), Ok(vec![2]));
    assert_eq!(lab.carry(2, 6, BROADCAST), Ok(vec![0, 1, 3]));
}

#[test]
fn what_is_for_the_owner_of_an_interface_goes_no_further() {
    let mut lab = Lab::new(&all(3));
    lab.set(0, PortSettings { owner: Some(Mac::from_u64(8)), ..PortSettings::on(BridgeId(0)) });
    assert_eq!(lab.carry(0, 2, 8), Err(DropReason::SamePort));
    assert_eq!(lab.carry(0, 2, 4), Ok(vec![1, 2]));
}

#[test]
fn an_address_that_moves_is_followed_at_once() {
    let mut lab = Lab::new(&all(3));
    lab.carry(0, 2, BROADCAST).unwrap();
    assert_eq!(lab.carry(1, 4, 2), Ok(vec![0]));
    lab.carry(2, 2, BROADCAST).unwrap();
    assert_eq!(lab.carry(1, 4, 2), Ok(vec![2]));
}

#[test]
fn a_quiet_address_is_forgotten() {
    let mut lab = Lab::new(&all(3));
    lab.carry(0, 2, BROADCAST).unwrap();
    lab.now += Duration::from_secs(299);
    lab.datapath.expire(lab.now, &mut Batch::new(), &mut Outputs::new());
    assert_eq!(lab.carry(1, 4, 2), Ok(vec![0]));
    lab.now += Duration::from_secs(1);
    lab.datapath.expire(lab.now, &mut Batch::new(), &mut Outputs::new());
    assert_eq!(lab.carry(1, 4, 2), Ok(vec![0, 2]));
}

#[test]
fn a_removed_port_takes_its_addresses_and_nothing_else() {
    let mut lab = Lab::new(&all(3));
    lab.carry(0, 2, BROADCAST).unwrap();
    lab.carry(1, 4, BROADCAST).unwrap();
    lab.datapath.remove_port(PortId(0));
    assert_eq!(lab.carry(2, 6, 2), Ok(vec![1]), "flooded to who is left");
    assert_eq!(lab.carry(2, 6, 4), Ok(vec![1]));
    assert_eq!(lab.carry(0, 2, 4), Ok(vec![]), "a port that is gone forwards nothing");
}

#[test]
fn bridges_do_not_mix() {
    let mut lab = Lab::new(&all(2));
    let settings = BridgeSettings {
        mtu: 1500,
        ageing: 300,
        max_macs: 10,
        control_frames: ControlFrames::Drop,
        ..BridgeSettings::default()
    };
    lab.datapath.set_bridge(lab.now, BridgeId(1), settings);
    for port in [2, 3] {
        let settings = PortSettings::on(BridgeId(1));
        lab.set(port, settings);
    }
    assert_eq!(lab.carry(0, 2, BROADCAST), Ok(vec![1]));
    assert_eq!(lab.carry(2, 4, 2), Ok(vec![3]), "the address is known on the other bridge only");
    lab.datapath.remove_bridge(BridgeId(1));
    assert_eq!(lab.carry(2, 4, 2), Ok(vec![3]), "a bridge with ports stays");
}

#[test]
fn vlans_are_kept_apart_and_learn_apart() {
    let access = |number| VlanMode::Access(vlan(number));
    let trunk = VlanMode::Trunk { allowed: vec![vlan(10), vlan(20)], native: None };
    let mut lab = Lab::new(&[access(10), access(20), access(10), trunk]);
    assert_eq!(lab.carry(0, 2, BROADCAST), Ok(vec![2, 3]));
    let tagged = lab.send(0, &frame(2, BROADCAST, None, 46), Offload::default());
    assert_eq!(tagged, Ok(vec![(2, TagEdit::Keep), (3, TagEdit::Push(Tag(10)))]));
    assert_eq!(lab.carry(1, 4, 2), Ok(vec![3]), "not known in VLAN 20");
    let untagged = lab.send(3, &frame(6, 2, Some(10), 46), Offload::default());
    assert_eq!(untagged, Ok(vec![(0, TagEdit::Pop)]));
    assert_eq!(lab.send(3, &frame(6, 2, Some(30), 46), Offload::default()), Err(DropReason::VlanNotAllowed));
    assert_eq!(lab.carry(3, 6, 2), Err(DropReason::VlanNotAllowed), "no native VLAN");
    assert_eq!(lab.drops(3, DropReason::VlanNotAllowed), 2);
}

#[test]
fn why_a_flooded_frame_reaches_nobody_is_told_apart() {
    let mut lab = Lab::new(&[VlanMode::Access(vlan(10)), VlanMode::Access(vlan(10)), VlanMode::Access(vlan(20))]);
    assert_eq!(lab.carry(2, 6, BROADCAST), Err(DropReason::NoDestination), "it is alone in its VLAN");
    assert_eq!(lab.carry(2, 6, 8), Err(DropReason::NoDestination));
    for port in [0, 1] {
        let vlans = VlanMode::Access(vlan(10));
        lab.set(port, protected(vlans));
    }
    for destination in [BROADCAST, 8] {
        assert_eq!(lab.carry(0, 2, destination), Err(DropReason::Protected), "the only other one is protected too");
    }
    assert_eq!((lab.drops(0, DropReason::Protected), lab.drops(0, DropReason::NoDestination)), (2, 0));
    assert_eq!(lab.drops(2, DropReason::NoDestination), 2);
}

#[test]
fn a_port_that_is_unplugged_neither_sends_nor_gets_anything() {
    let mut lab = Lab::new(&all(3));
    lab.carry(0, 2, BROADCAST).unwrap();
    assert_eq!(lab.carry(1, 4, 2), Ok(vec![0]));
    lab.set(0, PortSettings { policy: PortPolicy { down: true, ..PortPolicy::default() }, ..PortSettings::on(BridgeId(0)) });
    assert_eq!(lab.carry(1, 4, 2), Ok(vec![2]), "its addresses are forgotten, and it gets no flood");
    assert_eq!(lab.carry(1, 4, BROADCAST), Ok(vec![2]));
    assert_eq!(lab.carry(0, 2, 4), Err(DropReason::PortDown));
    let news = News { bridge: BridgeId(0), vlan: vlan(1), mac: Mac::from_u64(2), place: Place { port: PortId(0), peer: 0 } };
    lab.datapath.hear(lab.now, news);
    assert_eq!(lab.carry(1, 4, 2), Ok(vec![2]), "another worker's late news bring nothing back");
    lab.set(0, PortSettings::on(BridgeId(0)));
    let mut reached = lab.carry(1, 4, 2).unwrap();
    reached.sort_unstable();
    assert_eq!(reached, [0, 2]);
    assert_eq!((lab.carry(0, 2, 4), lab.drops(0, DropReason::PortDown)), (Ok(vec![1]), 1));
    assert_eq!(lab.carry(1, 4, 2), Ok(vec![0]));
}

#[test]
fn a_port_that_changes_its_vlan_is_learned_anew() {
    let mut lab = Lab::new(&[VlanMode::Access(vlan(10)), VlanMode::Access(vlan(10)), VlanMode::Access(vlan(20))]);
    lab.carry(0, 2, BROADCAST).unwrap();
    let settings = PortSettings { vlans: VlanMode::Access(vlan(20)), ..PortSettings::on(BridgeId(0)) };
    lab.set(0, settings);
    assert_eq!(lab.carry(1, 4, 2), Err(DropReason::NoDestination));
    assert_eq!(lab.carry(2, 6, 2), Ok(vec![0]));
    assert_eq!(lab.datapath.counters(PortId(0)).unwrap().rx_frames, 1, "its counters go on");
}

#[test]
fn service_tags_pass_untouched() {
    let mut lab = Lab::new(&all(2));
    let mut bytes = frame(2, BROADCAST, Some(100), 1500);
    bytes[12..14].copy_from_slice(&[0x88, 0xa8]);
    assert_eq!(lab.send(0, &bytes, Offload::default()), Ok(vec![(1, TagEdit::Keep)]));
}

#[test]
fn two_tags_have_room_beside_the_mtu_and_a_third_has_not() {
    let mut lab = Lab::new(&all(2));
    let (customer, service) = ([0x81, 0, 0, 5], [0x88, 0xa8, 0, 6]);
    for outer in [customer, service] {
        let mut bytes = frame(2, BROADCAST, None, 1500);
        for tag in [customer, outer] {
            bytes.splice(12..12, tag);
            assert!(lab.send(0, &bytes, Offload::default()).is_ok());
        }
        bytes.splice(12..12, outer);
        assert_eq!(lab.send(0, &bytes, Offload::default()), Err(DropReason::Oversized));
    }
}

#[test]
fn control_frames_pass_only_where_asked_and_pause_never() {
    let mut lab = Lab::new(&all(2));
    assert_eq!(lab.carry(0, 2, 0x0180_c200_000e), Err(DropReason::ControlFrame));
    let settings = BridgeSettings {
        mtu: 1500,
        ageing: 300,
        max_macs: 100,
        control_frames: ControlFrames::Pass,
        ..BridgeSettings::default()
    };
    lab.datapath.set_bridge(lab.now, BridgeId(0), settings);
    for last in (0..16).filter(|last| *last != 1) {
        assert_eq!(lab.carry(0, 2, 0x0180_c200_0000 + last), Ok(vec![1]));
    }
    assert_eq!(lab.carry(0, 2, 0x0180_c200_0001), Err(DropReason::ControlFrame));
    assert_eq!(lab.drops(0, DropReason::ControlFrame), 2);
}

#[test]
fn bad_frames_are_counted_by_reason() {
    let mut lab = Lab::new(&all(2));
    assert_eq!(lab.send(0, &[0; 13], Offload::default()), Err(DropReason::Runt));
    assert_eq!(lab.send(0, &[], Offload::default()), Err(DropReason::Runt));
    assert_eq!(lab.carry(0, 0x0100_0000_0000, 4), Err(DropReason::InvalidSource));
    assert_eq!(lab.carry(0, 0, 4), Err(DropReason::InvalidSource));
    assert_eq!(lab.send(0, &frame(2, 4, None, 1501), Offload::default()), Err(DropReason::Oversized));
    assert_eq!(lab.send(0, &frame(2, 4, Some(5), 1501), Offload::default()), Err(DropReason::Oversized));
    assert!(lab.send(0, &frame(2, 4, Some(5), 1500), Offload::default()).is_ok());
    assert_eq!((lab.drops(0, DropReason::Runt), lab.drops(0, DropReason::Oversized)), (2, 2));
    assert_eq!(lab.datapath.counters(PortId(0)).unwrap().rx_frames, 7);
}

#[test]
fn a_super_frame_is_measured_by_its_segments() {
    let mut lab = Lab::new(&all(2));
    let offload = |size: u16| Offload {
        checksum: Checksum::Partial { start: 34, offset: 16 },
        gso: Some(Gso { kind: GsoKind::Tcp4, size: size.try_into().unwrap(), ecn: false }),
    };
    let mut bytes = frame(2, 4, None, 60_000);
    bytes[34 + 12] = 8 << 4;
    assert!(lab.send(0, &bytes, offload(1448)).is_ok());
    assert_eq!(lab.send(0, &bytes, offload(1449)), Err(DropReason::Oversized));
}

#[test]
fn the_storm_limit_is_for_all_that_is_flooded_and_for_nothing_else() {
    let mut lab = Lab::new(&all(2));
    let settings = PortSettings { limits: limit(5, lab.now), ..PortSettings::on(BridgeId(0)) };
    lab.set(0, settings);
    lab.carry(1, 4, BROADCAST).unwrap();
    for (round, destination) in (1..).zip([BROADCAST, 0x3333_0000_0001, 0x0100_5e00_0001, 8]) {
        let passed = (0..10).filter(|_| lab.carry(0, 2, destination).is_ok()).count();
        assert_eq!((passed, lab.drops(0, DropReason::StormLimit)), (5, 5 * round), "to {destination:x}");
        assert!(lab.carry(0, 2, 4).is_ok(), "to a station that is known");
        lab.now += Duration::from_secs(1);
    }
    assert!((0..5).all(|turn| lab.carry(0, 2, [BROADCAST, 0x3333_0000_0001, 8][turn % 3]).is_ok()));
    assert_eq!(lab.carry(0, 2, 8), Err(DropReason::StormLimit), "all of them together");
    assert!((0..10).all(|_| lab.carry(1, 4, 8).is_ok()), "the other port has no limit");
}

/// Lets a frame arrive at these ports, and at port 2 what leaves at 1, and the other way round, until nothing is left or `most` frames have
/// arrived; says how many.
fn go_round(lab: &mut Lab, frame: &[u8], arrivals: &[u32], most: usize) -> usize {
    let mut arriving: std::collections::VecDeque<u32> = arrivals.iter().copied().collect();
    let mut frames = 0;
    while let Some(port) = arriving.pop_front().filter(|_| frames < most) {
        frames += 1;
        let left = lab.send(port, frame, Offload::default()).unwrap_or_default();
        arriving.extend(left.iter().filter(|(port, _)| [1, 2].contains(port)).map(|(port, _)| 3 - port));
    }
    frames
}

#[test]
fn a_loop_of_two_ports_ends_by_itself_and_is_named_once_a_minute() {
    let mut lab = Lab::new(&all(3));
    for (second, destination) in
        [(0, BROADCAST), (0, 0x3333_0000_0001), (0, 0x0200_0000_0077), (11, BROADCAST), (70, BROADCAST)]
    {
        lab.now += Duration::from_secs(second);
        let frames = go_round(&mut lab, &frame(2, destination, None, 46), &[0], 1000);
        assert!(frames < 20, "{frames} frames of a station went round");
        assert_eq!(lab.carry(2, 4, 2).map(|to| to[0]), Ok(0), "the station is still where it was");
        // One between the two ports sends into both; in one direction nothing moves.
        let frames = go_round(&mut lab, &frame(8, destination, None, 46), &[1, 2], 10_000);
        assert!(frames < 250, "{frames} frames of one in the loop went round");
    }
    lab.now += Duration::from_secs(1);
    assert!(lab.send(1, &frame(8, BROADCAST, None, 46), Offload::default()).is_ok(), "what it says now and then is heard");
    let holds: Vec<_> = lab.datapath.take_holds().map(|(_, hold)| (hold.mac, hold.home.port.0, hold.away.port.0)).collect();
    assert_eq!(holds.len(), 2, "{holds:?}");
    assert!(holds.iter().all(|(mac, home, away)| *mac == Mac::from_u64(2) && *home == 0 && [1, 2].contains(away)), "{holds:?}");
    assert!(lab.drops(1, DropReason::MacMove) + lab.drops(2, DropReason::MacMove) > 0);
}

#[test]
fn the_guard_stops_a_frame_before_it_is_learned() {
    let mut lab = Lab::new(&all(3));
    lab.carry(1, 4, BROADCAST).unwrap();
    let guard = Some(Guard { mac: Mac::from_u64(2), addresses: Vec::new() });
    lab.set(0, PortSettings { guard, ..PortSettings::on(BridgeId(0)) });
    let mut stolen = frame(4, BROADCAST, None, 46);
    stolen[12] = 0x90;
    assert_eq!(lab.send(0, &stolen, Offload::default()), Err(DropReason::GuardMac));
    assert_eq!(lab.carry(2, 6, 4), Ok(vec![1]), "the address is still where it was");
}

#[test]
fn what_one_worker_learns_another_hears() {
    let mut first = Lab::new(&all(3));
    let mut second = Lab::new(&all(3));
    first.carry(0, 2, BROADCAST).unwrap();
    let news: Vec<News> = first.datapath.take_news().collect();
    assert_eq!(news.len(), 1);
    for item in news {
        second.datapath.hear(second.now, item);
    }
    assert_eq!(second.carry(1, 4, 2), Ok(vec![0]));
    first.carry(0, 2, BROADCAST).unwrap();
    assert_eq!(first.datapath.take_news().count(), 0, "said once");
}

proptest! {
    #[test]
    fn any_bytes_are_forwarded_or_counted(
        frames in prop::collection::vec((0u32..4, prop::collection::vec(any::<u8>(), 0..80), any::<[u8; 10]>()), 1..60),
    ) {
        let mut lab = Lab::new(&[
            VlanMode::All,
            VlanMode::Access(vlan(1)),
            VlanMode::Trunk { allowed: vec![vlan(1), vlan(2)], native: Some(vlan(1)) },
            VlanMode::All,
        ]);
        let guard = Some(Guard { mac: Mac::from_u64(2), addresses: vec!["10.0.0.1".parse().unwrap()] });
        lab.set(3, PortSettings { guard, limits: limit(1, lab.now), ..PortSettings::on(BridgeId(0)) });
        for (port, bytes, header) in frames {
            let offload = Offload::decode(header, bytes.len()).unwrap_or_default();
            let before = lab.datapath.counters(PortId(port)).unwrap().clone();
            let sent = lab.send(port, &bytes, offload);
            let after = lab.datapath.counters(PortId(port)).unwrap();
            prop_assert_eq!(after.rx_frames, before.rx_frames + 1);
            let drops = |counters: &Counters| DropReason::ALL.iter().map(|reason| counters.drops(*reason)).sum::<u64>();
            prop_assert_eq!(drops(after) - drops(&before), u64::from(sent.is_err()));
            if let Ok(list) = sent {
                prop_assert!(!list.is_empty() && list.iter().all(|(egress, _)| *egress != port));
            }
        }
    }
}

/// Ports that look at different things, and a bridge that knows who is behind some of them.
fn various() -> Lab {
    let trunk = VlanMode::Trunk { allowed: vec![vlan(1), vlan(2)], native: Some(vlan(1)) };
    let mut lab = Lab::new(&[VlanMode::All, VlanMode::Access(vlan(1)), trunk, VlanMode::All, VlanMode::All, VlanMode::All]);
    let guard = Some(Guard { mac: Mac::from_u64(0x0200_0000_0003), addresses: vec!["1.1.1.1".parse().unwrap()] });
    lab.set(3, PortSettings { guard, ..protected(VlanMode::All) });
    lab.set(4, protected(VlanMode::All));
    let tunnel = Some(TunnelSettings { learn: true, mtu: 1450, stations: [].into(), told: false });
    lab.set(
        5,
        PortSettings { vlans: VlanMode::Access(vlan(1)), limits: limit(3, lab.now), tunnel, ..PortSettings::on(BridgeId(0)) },
    );
    for port in 0..5 {
        let _ = lab.carry(port, 0x0200_0000_0000 + u64::from(port), BROADCAST);
    }
    lab
}

fn sent(lab: &mut Lab, batch: &mut Batch) -> (Vec<(u32, TagEdit, u16)>, Vec<DropReason>) {
    let mut outputs = Outputs::new();
    lab.datapath.forward(lab.now, batch, &mut outputs);
    let all = (0..6).flat_map(|port| outputs.queue(PortId(port)).iter().map(move |d| (d.frame, (port, d.edit, d.peer))));
    let mut all: Vec<_> = all.collect();
    all.sort_by_key(|(frame, _)| *frame);
    (all.into_iter().map(|(_, way)| way).collect(), outputs.dropped().map(|(_, reason)| reason).collect())
}

proptest! {
    #[test]
    fn a_frame_goes_the_same_way_in_a_run_and_alone(
        runs in prop::collection::vec(
            (
                (0_u32..6, 0_u16..2),
                prop::sample::select(vec![None, None, None, Some(2)]),
                0_u64..8,
                prop::sample::select(vec![None, None, Some(0), Some(1), Some(2)]),
                prop::collection::vec((prop::sample::select(vec![20, 46, 1450, 1451, 1500, 1501]), 1_u8..3), 1..5),
            ),
            1..16,
        ),
    ) {
        let (mut together, mut alone) = (various(), various());
        let (mut batch, mut expected) = (Batch::new(), (Vec::new(), Vec::new()));
        for ((port, peer), moved, destination, tag, packets) in runs {
            let source = 0x0200_0000_0000 + moved.unwrap_or(u64::from(port));
            let destination = if destination == 7 { BROADCAST } else { 0x0200_0000_0000 + destination };
            for (payload, address) in packets {
                let mut bytes = frame(source, destination, tag, payload);
                let start = bytes.len() - payload;
                bytes[start] = 0x45;
                bytes[start + 12..start + 16].fill(address);
                let mut single = Batch::new();
                for batch in [&mut batch, &mut single] {
                    batch.set_origin(port, if port == 5 { peer } else { 0 });
                    batch.push(&bytes, Offload::default());
                }
                let (ways, drops) = sent(&mut alone, &mut single);
                expected.0.extend(ways);
                expected.1.extend(drops);
            }
        }
        prop_assert_eq!(sent(&mut together, &mut batch), expected);
        for port in (0..6).map(PortId) {
            prop_assert_eq!(together.datapath.counters(port), alone.datapath.counters(port));
        }
    }
}

/// A local port 0 and a tunnel 1.
fn with_tunnel(tunnel: TunnelSettings, frames: Option<u32>) -> Lab {
    let mut lab = Lab::new(&[VlanMode::All, VlanMode::All]);
    let vlans = VlanMode::Access(VlanId::DEFAULT);
    let limits = frames.map_or_else(PortLimits::default, |frames| limit(frames, lab.now));
    lab.set(1, PortSettings { vlans, limits, tunnel: Some(tunnel), ..PortSettings::on(BridgeId(0)) });
    lab
}

#[test]
fn a_tunnel_that_does_not_learn_knows_what_it_was_given() {
    let station = RemoteStation { mac: Mac::from_u64(0x0200_0000_0009), peer: 4, ip: None };
    let mut lab = with_tunnel(TunnelSettings { learn: false, mtu: 1450, stations: [station].into(), told: false }, None);
    assert_eq!(lab.carry(1, 0x0200_0000_0008, BROADCAST), Ok(vec![0]));
    let mut batch = Batch::new();
    batch.push(&frame(0x0200_0000_0001, 0x0200_0000_0009, None, 46), Offload::default());
    let mut outputs = Outputs::new();
    lab.datapath.forward(lab.now, &mut batch, &mut outputs);
    assert_eq!(outputs.queue(PortId(1)), [Departure { frame: 0, edit: TagEdit::Keep, peer: 4 }]);
    let rows = lab.datapath.fdb(lab.now, BridgeId(0)).rows;
    assert!(rows.iter().all(|row| row.mac != Mac::from_u64(0x0200_0000_0008)), "{rows:?}");
}

#[test]
fn a_question_for_a_known_station_is_answered_and_goes_no_further() {
    let (asker, known) = ([2, 0, 0, 0, 0, 1], Mac([2, 0, 0, 0, 0, 9]));
    let station = RemoteStation { mac: known, peer: 1, ip: Some([10, 0, 0, 9].into()) };
    let mut lab = with_tunnel(TunnelSettings { learn: true, mtu: 1450, stations: [station].into(), told: false }, None);
    let mut question = [&[0xff; 6][..], &asker, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1], &asker, &[10, 0, 0, 1]].concat();
    question.extend([0, 0, 0, 0, 0, 0, 10, 0, 0, 9]);
    let (mut batch, mut outputs) = (Batch::new(), Outputs::new());
    batch.push(&question, Offload::default());
    lab.datapath.forward(lab.now, &mut batch, &mut outputs);
    assert_eq!(outputs.fates(), [Some(Fate::Dropped(DropReason::Suppressed))]);
    assert_eq!((outputs.used(), outputs.queue(PortId(0)).len()), (&[PortId(0)][..], 1));
    let answer = &batch.frames()[outputs.queue(PortId(0))[0].frame];
    assert_eq!((&answer.bytes()[..6], &answer.bytes()[6..12]), (&asker[..], &known.0[..]));
    assert_eq!(lab.drops(0, DropReason::Suppressed), 1);
}

#[test]
fn what_floods_out_of_a_tunnel_is_limited_and_what_is_known_is_not() {
    let mut lab = with_tunnel(TunnelSettings { learn: true, mtu: 1450, stations: [].into(), told: false }, Some(5));
    lab.carry(0, 0x0200_0000_0001, BROADCAST).unwrap();
    let passed = (0..20).filter(|_| lab.carry(1, 0x0200_0000_0002, 0x0300_5e00_0001).is_ok()).count();
    assert_eq!((passed, lab.drops(1, DropReason::StormLimit)), (5, 15));
    assert!((0..20).all(|_| lab.carry(1, 0x0200_0000_0002, 0x0200_0000_0001).is_ok()));
    // A super-frame to an unknown address is as many frames as it has segments.
    lab.now += Duration::from_secs(1);
    let bytes = frame(0x0200_0000_0002, 0x0200_0000_0009, None, 28 + 4 * 100);
    let gso = Some(Gso { kind: GsoKind::Udp, size: 100.try_into().unwrap(), ecn: false });
    let offload = Offload { checksum: Checksum::Partial { start: 34, offset: 6 }, gso };
    assert!(lab.send(1, &bytes, offload).is_ok());
    assert!(lab.carry(1, 0x0200_0000_0002, 0x0300_5e00_0001).is_ok());
    assert_eq!(lab.carry(1, 0x0200_0000_0002, 0x0300_5e00_0001), Err(DropReason::StormLimit));
}

/// A bridge with a spanning tree, and what it lets pass each port.
fn tree(states: &[State]) -> Lab {
    let mut lab = Lab::new(&all(states.len()));
    let settings = BridgeSettings { stp: true, control_frames: ControlFrames::Pass, ..BridgeSettings::default() };
    lab.datapath.set_bridge(lab.now, BridgeId(0), settings);
    for (number, state) in (0..).zip(states) {
        lab.datapath.set_tree(BridgeId(0), PortId(number), *state);
    }
    lab
}

fn bpdu() -> Vec<u8> {
    rstp::Bpdu::TopologyChange.to_frame(Mac::from_u64(8))
}

#[test]
fn a_discarding_port_takes_in_bpdus_and_only_those() {
    use State::{Discarding, Forwarding, Learning};
    let mut lab = tree(&[Discarding, Forwarding, Forwarding, Learning]);
    assert_eq!(lab.carry(0, 2, BROADCAST), Err(DropReason::StpDiscarding));
    assert_eq!(lab.drops(0, DropReason::StpDiscarding), 1);
    assert_eq!(lab.carry(1, 4, BROADCAST), Ok(vec![2]), "nor does anything leave by it, or by one that learns");
    assert_eq!(lab.carry(1, 4, 2), Ok(vec![2]), "nothing was learned there");
    assert_eq!(lab.carry(3, 6, 4), Err(DropReason::StpDiscarding));
    assert_eq!(lab.carry(1, 4, 6), Err(DropReason::StpDiscarding), "the station is known, and not to be reached yet");
    for port in 0..4 {
        assert_eq!(lab.send(port, &bpdu(), Offload::default()), Ok(vec![]), "a BPDU is never sent on");
    }
    let heard: Vec<Punt> = lab.datapath.take_bpdus().collect();
    assert_eq!(heard.iter().map(|punt| punt.port.0).collect::<Vec<_>>(), [0, 1, 2, 3]);
    assert!(heard.iter().all(|punt| punt.frame == bpdu() && punt.bridge == BridgeId(0)));
    let (mut batch, mut outputs) = (Batch::new(), Outputs::new());
    lab.datapath.transmit(PortId(0), &bpdu(), &mut batch, &mut outputs);
    assert_eq!(queues(&outputs).len(), 1, "BPDUs leave by it");
}

#[test]
fn a_port_of_a_tree_begins_and_ends_discarding() {
    let mut lab = tree(&[State::Forwarding; 2]);
    assert_eq!(lab.carry(0, 2, BROADCAST), Ok(vec![1]));
    lab.set(2, PortSettings::on(BridgeId(0)));
    assert_eq!(lab.carry(2, 6, BROADCAST), Err(DropReason::StpDiscarding), "a new one waits for the tree");
    lab.set(0, protected(VlanMode::All));
    assert_eq!(lab.carry(0, 2, BROADCAST), Ok(vec![1]), "one that is changed goes on");
    lab.datapath.set_tree(BridgeId(0), PortId(0), State::Discarding);
    assert_eq!(lab.carry(1, 4, 2), Err(DropReason::StpDiscarding), "its addresses are forgotten, and no other port is left");
    lab.datapath.set_tree(BridgeId(1), PortId(0), State::Forwarding);
    assert_eq!(lab.carry(0, 2, 4), Err(DropReason::StpDiscarding), "what is said of another bridge is not about it");
    lab.datapath.set_bridge(lab.now, BridgeId(0), BridgeSettings::default());
    lab.datapath.set_tree(BridgeId(0), PortId(1), State::Discarding);
    assert_eq!(lab.carry(2, 6, BROADCAST), Ok(vec![0, 1]), "without a tree everything passes");
    assert_eq!(lab.send(1, &bpdu(), Offload::default()), Err(DropReason::ControlFrame));
}

#[test]
fn bpdus_pass_guards_and_limits_but_not_a_port_that_is_unplugged() {
    let mut lab = tree(&[State::Forwarding; 2]);
    let guard = Some(Guard { mac: Mac::from_u64(2), addresses: Vec::new() });
    let limits = limit(1, lab.now);
    lab.set(
        0,
        PortSettings {
            vlans: VlanMode::Trunk { allowed: vec![vlan(5)], native: None },
            guard,
            limits,
            ..PortSettings::on(BridgeId(0))
        },
    );
    for _ in 0..3 {
        assert_eq!(lab.send(0, &bpdu(), Offload::default()), Ok(vec![]));
    }
    let down = PortPolicy { down: true, ..PortPolicy::default() };
    lab.set(0, PortSettings { policy: down, ..PortSettings::on(BridgeId(0)) });
    assert_eq!(lab.send(0, &bpdu(), Offload::default()), Err(DropReason::PortDown));
}

#[test]
fn a_flood_of_bpdus_leaves_room_for_those_of_others() {
    let mut lab = tree(&[State::Forwarding; 2]);
    while lab.send(0, &bpdu(), Offload::default()).is_ok() {}
    assert_eq!(lab.drops(0, DropReason::QueueFull), 1);
    assert_eq!(lab.send(1, &bpdu(), Offload::default()), Ok(vec![]));
}

#[test]
fn a_tunnel_is_part_of_no_tree_and_brings_no_bpdus() {
    let mut lab = tree(&[State::Forwarding]);
    let tunnel = TunnelSettings { learn: true, mtu: 1450, stations: [].into(), told: false };
    lab.set(1, PortSettings { tunnel: Some(tunnel), ..PortSettings::on(BridgeId(0)) });
    assert_eq!(lab.carry(1, 4, BROADCAST), Ok(vec![0]));
    assert_eq!(lab.send(1, &bpdu(), Offload::default()), Err(DropReason::ControlFrame));
    assert_eq!(lab.datapath.take_bpdus().count(), 0);
}
