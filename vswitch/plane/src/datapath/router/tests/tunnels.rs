//! What a gateway does for the tunnels of its bridge: it says what they do not carry, and answers for the stations that it has heard behind them.

use super::*;
use crate::datapath::{RemoteStation, TunnelSettings};

const MTU: u16 = 1400;

impl Lab {
    /// Port B is a tunnel, and station 2 was heard behind it.
    fn with_tunnel() -> Self {
        let mut lab = Self::new(true, nat());
        let tunnel = Some(TunnelSettings { learn: true, mtu: MTU, stations: [].into(), told: false });
        let vlans = VlanMode::Access(VlanId::DEFAULT);
        let settings = PortSettings { vlans, tunnel, ..PortSettings::on(BridgeId(0)) };
        lab.datapath.set_port(B, &settings);
        lab.introduce();
        lab
    }
}

/// A UDP packet of `length` bytes from station 1 to station 2.
fn packet(length: usize, dont_fragment: bool) -> Vec<u8> {
    let ends = ((station(1), [10, 0, 0, 11], 1), (station(2), [10, 0, 0, 12], 2));
    let mut frame = udp(ends.0, ends.1, 64, &vec![7; length - 28]);
    frame[20] = if dont_fragment { 0x40 } else { 0 };
    frame[24..26].fill(0);
    let sum = packet::checksum::Sum::new().plus(&frame[14..34]).checksum();
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    frame
}

#[test]
fn the_sender_hears_what_a_tunnel_does_not_carry() {
    let mut lab = Lab::with_tunnel();
    let left = lab.send(A, &packet(1401, true));
    let [Left(B, _), Left(A, answer)] = &left[..] else { panic!("{left:?}") };
    assert_eq!((icmp(answer), &answer[40..42]), (([10, 0, 0, 11], 3, 4), &MTU.to_be_bytes()[..]));
    assert_eq!(&answer[26..30], [10, 0, 0, 1], "the gateway says so");

    let mut frame = Vec::new();
    let addresses = ["fd00::b", "fd00::c"].map(|text| text.parse::<std::net::Ipv6Addr>().unwrap().octets());
    let builder = PacketBuilder::ethernet2(station(1).0, station(2).0).ipv6(addresses[0], addresses[1], 64);
    builder.udp(1, 2).write(&mut frame, &[7; 1353]).unwrap();
    let left = lab.send(A, &frame);
    let [Left(B, _), Left(A, answer)] = &left[..] else { panic!("{left:?}") };
    assert_eq!((answer[54], &answer[58..62]), (2, &u32::from(MTU).to_be_bytes()[..]));
}

#[test]
fn nobody_hears_of_what_fits_or_may_be_cut_or_goes_to_nobody_known() {
    let mut lab = Lab::with_tunnel();
    assert_eq!(lab.send(A, &packet(1400, true)).len(), 1);
    assert_eq!(lab.send(A, &packet(1401, false)).len(), 1);
    let mut unknown = packet(1401, true);
    unknown[..6].copy_from_slice(&station(99).0);
    assert_eq!(lab.send(A, &unknown).len(), 1);
    let gso = Some(Gso { kind: GsoKind::Udp, size: NonZeroU16::new(1000).unwrap(), ecn: false });
    let offload = Offload { checksum: Checksum::Partial { start: 34, offset: 6 }, gso };
    assert_eq!(lab.send_with(A, &packet(1500, true), offload).len(), 1, "its segments fit");
    let gso = Some(Gso { kind: GsoKind::Udp, size: NonZeroU16::new(1390).unwrap(), ecn: false });
    let offload = Offload { gso, ..offload };
    assert_eq!(lab.send_with(A, &packet(1500, true), offload).len(), 2, "they do not");
    assert_eq!(lab.send_with(A, &packet(1500, false), offload).len(), 1, "they may be cut");
}

#[test]
fn what_tunnels_do_not_carry_is_said_so_often_and_no_more() {
    let mut lab = Lab::with_tunnel();
    let answers = (0..2000).flat_map(|_| lab.send(A, &packet(1401, true))).filter(|Left(port, _)| *port == A).count();
    assert_eq!(answers, ERRORS as usize);
}

#[test]
fn another_worker_hands_over_what_a_tunnel_does_not_carry() {
    let mut lab = Lab::with_tunnel();
    lab.datapath.leave_routing();
    lab.batch.set_ingress(A.0);
    lab.batch.push(&packet(1401, true), Offload::default());
    lab.datapath.forward(lab.now, &mut lab.batch, &mut lab.outputs);
    assert_eq!(lab.outputs.handed_over(), [(0, Errand::Tell)]);
    lab.collect();
    let mut router = Lab::with_tunnel();
    router.batch.set_ingress(A.0);
    router.batch.push(&packet(1401, true), Offload::default());
    router.datapath.route(router.now, &mut router.batch, &[Errand::Tell], &mut router.outputs);
    let left = router.collect();
    assert_eq!(left.iter().map(|Left(port, frame)| (*port, icmp(frame))).collect::<Vec<_>>(), [(A, ([10, 0, 0, 11], 3, 4))]);
}

/// A question of station 1 for station 2.
fn question() -> Vec<u8> {
    arp(ArpOperation::REQUEST, station(1), Mac::BROADCAST, [10, 0, 0, 11], [10, 0, 0, 12])
}

#[test]
fn a_question_for_a_neighbor_behind_a_tunnel_is_answered() {
    let mut lab = Lab::with_tunnel();
    let left = lab.send(A, &question());
    let [Left(A, answer)] = &left[..] else { panic!("{left:?}") };
    assert_eq!((&answer[..6], &answer[6..12], answer[21]), (&station(1).0[..], &station(2).0[..], 2));
    assert_eq!(lab.drops(A, DropReason::Suppressed), 1);
}

#[test]
fn a_question_goes_on_if_the_neighbor_is_in_doubt_or_near() {
    let mut lab = Lab::with_tunnel();
    lab.now += Duration::from_secs(31);
    assert_eq!(lab.send(A, &question()), [Left(B, question())], "not heard for long");

    let mut lab = Lab::new(true, nat());
    lab.introduce();
    assert_eq!(lab.send(A, &question()), [Left(B, question())], "not behind a tunnel");

    let mut lab = Lab::with_tunnel();
    let from_far = arp(ArpOperation::REQUEST, station(5), Mac::BROADCAST, [10, 0, 0, 15], [10, 0, 0, 12]);
    assert_eq!(lab.send(B, &from_far), [Left(A, from_far.clone())], "who asks is behind it too");
}

/// The address of station 9, which other hosts told of: it is behind peer 4 of the tunnel at port B.
const TOLD: [u8; 4] = [10, 0, 0, 19];

impl Lab {
    /// Port B is a tunnel of whose stations other hosts tell.
    fn with_told() -> Self {
        let mut lab = Self::new(false, nat());
        let known = RemoteStation { mac: station(9), peer: 4, ip: Some(TOLD.into()) };
        let tunnel = Some(TunnelSettings { learn: true, mtu: MTU, stations: [known].into(), told: true });
        let vlans = VlanMode::Access(VlanId::DEFAULT);
        lab.datapath.set_port(B, &PortSettings { vlans, tunnel, ..PortSettings::on(BridgeId(0)) });
        lab
    }
}

#[test]
fn a_station_that_other_hosts_told_of_is_routed_to_and_never_asked() {
    let mut lab = Lab::with_told();
    let frame = udp((station(3), [10, 0, 1, 13], 1), (gateway(1), TOLD, 2), 64, b"hello");
    let left = lab.send(C, &frame);
    let [Left(B, sent)] = &left[..] else { panic!("{left:?}") };
    assert_eq!((&sent[..6], &sent[30..34]), (&station(9).0[..], &TOLD[..]));
    // It is in use for long, and confirmed by what is told.
    for _ in 0..100 {
        lab.now += Duration::from_secs(1);
        assert_eq!(lab.send(C, &frame).len(), 1);
        assert_eq!(lab.tick(), []);
    }
}

#[test]
fn another_host_s_gateway_may_have_this_one_s_address_and_is_not_heard() {
    let mut lab = Lab::with_told();
    let claim = arp(ArpOperation::REQUEST, station(8), Mac::BROADCAST, [10, 0, 0, 1], [10, 0, 0, 77]);
    assert_eq!(lab.send(B, &claim), []);
    assert_eq!(lab.drops(B, DropReason::SpoofedAddress), 1);
    let conflicts = |lab: &Lab| lab.datapath.symptoms().iter().map(|(_, symptoms)| symptoms.conflicts.count).sum::<u64>();
    assert_eq!(conflicts(&lab), 0, "that is as it should be");
    assert_eq!(lab.send(A, &claim), []);
    assert_eq!(conflicts(&lab), 1, "a station of this host must not");
}

#[test]
fn a_station_that_other_hosts_told_of_may_come_here_with_its_address() {
    let mut lab = Lab::with_told();
    lab.send(A, &arp(ArpOperation::REQUEST, station(9), Mac::BROADCAST, TOLD, TOLD));
    assert_eq!(lab.drops(A, DropReason::SpoofedAddress), 0);
    let left = lab.send(C, &udp((station(3), [10, 0, 1, 13], 1), (gateway(1), TOLD, 2), 64, b"hello"));
    assert!(matches!(&left[..], [Left(A, _)]), "{left:?}");
}
