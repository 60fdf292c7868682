//! The router between bridges and an uplink, frame by frame.

mod tunnels;

use std::num::NonZeroU16;
use std::time::{Duration, Instant};

use etherparse::{ArpHardwareId, ArpOperation, ArpPacket, EtherType, NetSlice, PacketBuilder, SlicedPacket, TransportSlice};
use ipnet::IpNet;
use packet::{Batch, Checksum, Gso, GsoKind, Offload, Queued};

mod beyond;
mod clients;
mod conservation;
mod gateway;
mod observed;
mod oversize;
mod persist;
mod static_routes;

use super::message::Envelope;
use super::*;
use crate::datapath::{BridgeSettings, Datapath, DryRun, Errand, Outputs, PortSettings, Step, Ticket};
use api::{ControlFrames, VlanMode};

const A: PortId = PortId(0);
const B: PortId = PortId(1);
const C: PortId = PortId(2);
const WAN: PortId = PortId(9);
const UPLINK: BridgeId = BridgeId(9);

/// Bridges 0 (ports A and B, 10.0.0.1/24) and 1 (port C, 10.0.1.1/24), and an uplink (192.0.2.10/24 by 192.0.2.1).
struct Lab {
    datapath: Datapath,
    batch: Batch,
    outputs: Outputs,
    now: Instant,
}

/// A frame that left, and where.
#[derive(Debug, PartialEq, Eq)]
struct Left(PortId, Vec<u8>);

/// What leaves, in the order of the ports.
fn leaves(outputs: &Outputs, batch: &Batch) -> Vec<Left> {
    let of = |port: &PortId| {
        let port = *port;
        outputs.queue(port).iter().map(move |departure| Left(port, batch.frames()[departure.frame].bytes().to_vec()))
    };
    outputs.used().iter().flat_map(of).collect()
}

fn gateway(number: u8) -> Mac {
    Mac([2, 0, 0, 0, 1, number])
}

fn station(number: u8) -> Mac {
    Mac([2, 0, 0, 0, 0, number])
}

fn nets(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn inside(number: u8, isolated: bool) -> GatewaySettings {
    GatewaySettings {
        mac: gateway(number),
        vlan: VlanId::DEFAULT,
        mtu: 1500,
        addresses: nets(&[&format!("10.0.{number}.1/24"), &format!("fd0{number}::1/64")]),
        routes: Vec::new(),
        side: Side::Inside { uplink: Some(UPLINK), isolated, dhcp: false },
    }
}

fn outside(translation: Translation) -> GatewaySettings {
    GatewaySettings {
        mac: gateway(9),
        vlan: VlanId::DEFAULT,
        mtu: 1400,
        addresses: nets(&["192.0.2.10/24", "2001:db8::10/64"]),
        routes: Vec::new(),
        side: Side::Outside { gateways: vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()], translation },
    }
}

fn nat() -> Translation {
    Translation::Nat(Box::default())
}

impl Lab {
    fn new(isolated: bool, translation: Translation) -> Self {
        let now = Instant::now();
        let mut datapath = Datapath::new(now, 1);
        for (bridge, mtu) in [(0, 1500), (1, 1500), (9, 1400)] {
            let settings = BridgeSettings {
                mtu,
                ageing: 300,
                max_macs: 100,
                control_frames: ControlFrames::Drop,
                ..BridgeSettings::default()
            };
            datapath.set_bridge(now, BridgeId(bridge), settings);
        }
        for (port, bridge) in [(A, 0), (B, 0), (C, 1), (WAN, 9)] {
            let bridge = BridgeId(bridge);
            let settings = PortSettings::on(bridge);
            datapath.set_port(port, &settings);
        }
        datapath.set_gateway(BridgeId(0), Some(inside(0, isolated)));
        datapath.set_gateway(BridgeId(1), Some(inside(1, isolated)));
        datapath.set_gateway(UPLINK, Some(outside(translation)));
        Self { datapath, batch: Batch::new(), outputs: Outputs::new(), now }
    }

    /// Forwards a frame, and holds what comes of it against what was foretold. Returns that.
    fn forward(&mut self, port: PortId, frame: &[u8], offload: Offload) -> DryRun {
        let beforehand = self.datapath.dry_run(self.now, port.into(), frame, offload).unwrap();
        self.batch.set_ingress(port.0);
        self.batch.push(frame, offload);
        self.datapath.forward(self.now, &mut self.batch, &mut self.outputs);
        let fate = self.outputs.fates()[0];
        let last = beforehand.steps.last().map(|(_, step)| step);
        assert_eq!((Some(beforehand.fate), last), (fate, fate.map(Step::Settled).as_ref()));
        for port in beforehand.outputs.used() {
            // What had waited may leave behind it.
            assert!(self.outputs.queue(*port).starts_with(beforehand.outputs.queue(*port)), "{fate:?}");
        }
        beforehand
    }

    fn send_with(&mut self, port: PortId, frame: &[u8], offload: Offload) -> Vec<Left> {
        let beforehand = self.forward(port, frame, offload);
        let left = self.collect();
        let foretold = leaves(&beforehand.outputs, &beforehand.batch);
        assert!(left.starts_with(&foretold), "{foretold:?} was foretold, and {left:?} left");
        left
    }

    fn send(&mut self, port: PortId, frame: &[u8]) -> Vec<Left> {
        self.send_with(port, frame, Offload::default())
    }

    fn collect(&mut self) -> Vec<Left> {
        self.outputs.act(&mut self.batch);
        let left = leaves(&self.outputs, &self.batch);
        self.outputs.clear();
        self.batch.clear();
        left
    }

    fn tick(&mut self) -> Vec<Left> {
        self.now += Duration::from_secs(1);
        self.datapath.expire(self.now, &mut self.batch, &mut self.outputs);
        self.collect()
    }

    /// The stations that the router may have to ask for have told it who they are.
    fn introduce(&mut self) {
        for (port, number, address, target) in [
            (A, 1, [10, 0, 0, 11], [10, 0, 0, 1]),
            (B, 2, [10, 0, 0, 12], [10, 0, 0, 1]),
            (C, 3, [10, 0, 1, 13], [10, 0, 1, 1]),
            (WAN, 4, [192, 0, 2, 1], [192, 0, 2, 10]),
        ] {
            let frame = arp(ArpOperation::REQUEST, station(number), Mac::BROADCAST, address, target);
            assert!(!self.send(port, &frame).is_empty(), "the gateway answers {address:?}");
        }
    }

    /// Station B's UDP port 80 is the uplink's 8080.
    fn publish(&mut self) {
        let to = "10.0.0.12:80".parse().unwrap();
        let forward = nat::Forward::new(nat::Protocol::Udp, "8080".parse().unwrap(), to).unwrap();
        self.datapath.set_forwards(UPLINK, vec![forward]);
    }

    fn drops(&self, port: PortId, reason: DropReason) -> u64 {
        self.datapath.counters(port).unwrap().drops(reason)
    }
}

fn arp(operation: ArpOperation, from: Mac, to: Mac, sender: [u8; 4], target: [u8; 4]) -> Vec<u8> {
    let packet =
        ArpPacket::new(ArpHardwareId::ETHERNET, EtherType::IPV4, operation, &from.0, &sender, &[0; 6], &target).unwrap();
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(from.0, to.0).arp(packet).write(&mut frame).unwrap();
    frame
}

fn udp(from: (Mac, [u8; 4], u16), to: (Mac, [u8; 4], u16), ttl: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    let builder = PacketBuilder::ethernet2(from.0.0, to.0.0).ipv4(from.1, to.1, ttl);
    builder.udp(from.2, to.2).write(&mut frame, payload).unwrap();
    frame
}

fn ping(from: (Mac, [u8; 4]), to: (Mac, [u8; 4])) -> Vec<u8> {
    let mut frame = Vec::new();
    let builder = PacketBuilder::ethernet2(from.0.0, to.0.0).ipv4(from.1, to.1, 64);
    builder.icmpv4_echo_request(7, 1).write(&mut frame, b"hello").unwrap();
    frame
}

/// Addresses, ports and TTL of a UDP packet.
fn flow(frame: &[u8]) -> ([u8; 4], u16, [u8; 4], u16, u8) {
    let sliced = SlicedPacket::from_ethernet(frame).unwrap();
    let (Some(NetSlice::Ipv4(ip)), Some(TransportSlice::Udp(udp))) = (&sliced.net, &sliced.transport) else {
        panic!("no UDP in {frame:?}");
    };
    let header = ip.header();
    (header.source(), udp.source_port(), header.destination(), udp.destination_port(), header.ttl())
}

/// Destination, type and code of an ICMP message.
fn icmp(frame: &[u8]) -> ([u8; 4], u8, u8) {
    let sliced = SlicedPacket::from_ethernet(frame).unwrap();
    let (Some(NetSlice::Ipv4(ip)), Some(TransportSlice::Icmpv4(icmp))) = (&sliced.net, &sliced.transport) else {
        panic!("no ICMP in {frame:?}");
    };
    (ip.header().destination(), icmp.type_u8(), icmp.code_u8())
}

const HOST: [u8; 4] = [198, 51, 100, 7];

fn out(ttl: u8, payload: &[u8]) -> Vec<u8> {
    udp((station(1), [10, 0, 0, 11], 5000), (gateway(0), HOST, 53), ttl, payload)
}

#[test]
fn the_gateway_answers_arp_for_itself_and_nobody_else() {
    let mut lab = Lab::new(true, nat());
    let ask = |target| arp(ArpOperation::REQUEST, station(1), Mac::BROADCAST, [10, 0, 0, 11], target);
    let left = lab.send(A, &ask([10, 0, 0, 1]));
    let [Left(B, flooded), Left(A, answer)] = &left[..] else { panic!("{left:?}") };
    assert_eq!(*flooded, ask([10, 0, 0, 1]));
    assert_eq!((&answer[..6], &answer[22..28]), (&station(1).0[..], &gateway(0).0[..]));
    assert_eq!(lab.send(A, &ask([10, 0, 0, 77])).len(), 1, "flooded, and not answered");
    assert_eq!(lab.send(A, &ask([10, 0, 1, 1])).len(), 1, "another bridge's gateway is not here");
}

#[test]
fn the_gateway_answers_pings() {
    let mut lab = Lab::new(true, nat());
    let left = lab.send(A, &ping((station(1), [10, 0, 0, 11]), (gateway(0), [10, 0, 0, 1])));
    let [Left(A, answer)] = &left[..] else { panic!("{left:?}") };
    assert_eq!(icmp(answer), ([10, 0, 0, 11], 0, 0));
    // The other gateway's address is that of an isolated bridge.
    assert_eq!(lab.send(A, &ping((station(1), [10, 0, 0, 11]), (gateway(0), [10, 0, 1, 1]))), []);
    assert_eq!(lab.drops(A, DropReason::Isolated), 1);
    let mut open = Lab::new(false, nat());
    assert_eq!(open.send(A, &ping((station(1), [10, 0, 0, 11]), (gateway(0), [10, 0, 1, 1]))).len(), 1);
}

#[test]
fn a_packet_leaves_by_the_uplink_and_its_answer_comes_back() {
    let mut lab = Lab::new(true, nat());
    let left = lab.send(A, &out(64, b"query"));
    let [Left(WAN, question)] = &left[..] else { panic!("{left:?}") };
    assert_eq!((&question[12..14], &question[38..42]), (&[8, 6][..], &[192, 0, 2, 1][..]), "it asks for the next hop");
    let answer = arp(ArpOperation::REPLY, station(4), gateway(9), [192, 0, 2, 1], [192, 0, 2, 10]);
    let left = lab.send(WAN, &answer);
    let [Left(WAN, packet)] = &left[..] else { panic!("{left:?}") };
    assert_eq!(flow(packet), ([192, 0, 2, 10], 5000, HOST, 53, 63));
    assert_eq!((&packet[..6], &packet[6..12]), (&station(4).0[..], &gateway(9).0[..]));

    let back = udp((station(4), HOST, 53), (gateway(9), [192, 0, 2, 10], 5000), 60, b"answer");
    let left = lab.send(WAN, &back);
    let [Left(A, question), Left(B, _)] = &left[..] else { panic!("{left:?}") };
    assert_eq!(&question[38..42], [10, 0, 0, 11]);
    let answer = arp(ArpOperation::REPLY, station(1), gateway(0), [10, 0, 0, 11], [10, 0, 0, 1]);
    let left = lab.send(A, &answer);
    let [Left(A, packet)] = &left[..] else { panic!("{left:?}") };
    assert_eq!(flow(packet), (HOST, 53, [10, 0, 0, 11], 5000, 59));
    assert_eq!(lab.datapath.nat(UPLINK).unwrap().sessions(lab.now).count(), 1);

    let stray = udp((station(4), [198, 51, 100, 8], 53), (gateway(9), [192, 0, 2, 10], 5000), 60, b"spoof");
    assert_eq!(lab.send(WAN, &stray), []);
    assert_eq!(lab.drops(WAN, DropReason::NatFiltered), 1);
}

#[test]
fn a_published_port_reaches_a_station_from_outside_and_by_hairpin() {
    let mut lab = Lab::new(true, nat());
    lab.introduce();
    lab.publish();
    let left = lab.send(WAN, &udp((station(4), HOST, 999), (gateway(9), [192, 0, 2, 10], 8080), 60, b"in"));
    let [Left(B, packet)] = &left[..] else { panic!("{left:?}") };
    assert_eq!(flow(packet), (HOST, 999, [10, 0, 0, 12], 80, 59));
    let left = lab.send(B, &udp((station(2), [10, 0, 0, 12], 80), (gateway(0), HOST, 999), 64, b"out"));
    let [Left(WAN, packet)] = &left[..] else { panic!("{left:?}") };
    assert_eq!(flow(packet), ([192, 0, 2, 10], 8080, HOST, 999, 63));

    for (port, number, source) in [(A, 1, [10, 0, 0, 11]), (B, 2, [10, 0, 0, 12])] {
        let sent = udp((station(number), source, 700), (gateway(0), [192, 0, 2, 10], 8080), 64, b"hairpin");
        let left = lab.send(port, &sent);
        let [Left(B, packet)] = &left[..] else { panic!("{left:?}") };
        let (from, from_port, to, to_port, _) = flow(packet);
        assert_eq!((from, to, to_port), ([192, 0, 2, 10], [10, 0, 0, 12], 80));
        let answer = udp((station(2), [10, 0, 0, 12], 80), (gateway(0), from, from_port), 64, b"back");
        let left = lab.send(B, &answer);
        let [Left(back, packet)] = &left[..] else { panic!("{left:?}") };
        assert_eq!((*back, flow(packet)), (port, ([192, 0, 2, 10], 8080, source, 700, 63)));
    }
}

#[test]
fn bridges_are_isolated_unless_both_are_open() {
    let across = || udp((station(1), [10, 0, 0, 11], 1), (gateway(0), [10, 0, 1, 13], 2), 64, b"x");
    let mut lab = Lab::new(true, nat());
    lab.introduce();
    assert_eq!(lab.send(A, &across()), []);
    assert_eq!(lab.drops(A, DropReason::Isolated), 1);
    lab.datapath.set_gateway(BridgeId(0), Some(inside(0, false)));
    assert_eq!(lab.send(A, &across()), [], "the other one is still isolated");
    let mut lab = Lab::new(false, nat());
    lab.introduce();
    let left = lab.send(A, &across());
    let [Left(C, packet)] = &left[..] else { panic!("{left:?}") };
    assert_eq!(flow(packet), ([10, 0, 0, 11], 1, [10, 0, 1, 13], 2, 63));
}

#[test]
fn the_sender_hears_why_a_packet_goes_no_further() {
    let mut lab = Lab::new(true, nat());
    lab.introduce();
    for (frame, reason, answer) in [
        (out(1, b""), DropReason::HopLimit, (11, 0)),
        (out(64, &[7; 1400]), DropReason::ExceedsMtu, (3, 4)),
        (udp((station(1), [10, 0, 0, 11], 5), (gateway(0), [10, 0, 0, 1], 7), 64, b""), DropReason::NoService, (3, 3)),
    ] {
        let left = lab.send(A, &frame);
        let [Left(A, packet)] = &left[..] else { panic!("{reason:?}: {left:?}") };
        assert_eq!(icmp(packet), ([10, 0, 0, 11], answer.0, answer.1), "{reason:?}");
        assert_eq!(lab.drops(A, reason), 1);
    }
    lab.datapath.set_gateway(UPLINK, None);
    let left = lab.send(A, &out(64, b""));
    assert_eq!(icmp(&left[0].1), ([10, 0, 0, 11], 3, 0), "no route");
}

#[test]
fn the_sender_hears_that_a_station_is_not_there() {
    let mut lab = Lab::new(false, nat());
    lab.introduce();
    let lost = udp((station(1), [10, 0, 0, 11], 1), (gateway(0), [10, 0, 1, 99], 2), 64, b"x");
    let asks = |left: &[Left]| left.iter().all(|Left(port, frame)| *port == C && frame[12..14] == [8, 6]);
    let left = lab.send(A, &lost);
    assert!(left.len() == 1 && asks(&left), "{left:?}");
    for _ in 0..2 {
        let left = lab.tick();
        assert!(left.len() == 1 && asks(&left), "{left:?}");
    }
    let left = lab.tick();
    let [Left(A, packet)] = &left[..] else { panic!("{left:?}") };
    assert_eq!(icmp(packet), ([10, 0, 0, 11], 3, 1));
    assert_eq!(lab.drops(A, DropReason::NeighborUnresolved), 1);
}

#[test]
fn icmp_errors_have_a_limit_and_are_not_sent_about_errors() {
    let mut lab = Lab::new(true, nat());
    lab.introduce();
    let answers = (0..2000).map(|_| lab.send(A, &out(1, b"")).len()).sum::<usize>();
    assert_eq!(answers, ERRORS as usize);
    lab.now += Duration::from_secs(1);
    let mut error = ping((station(1), [10, 0, 0, 11]), (gateway(0), HOST));
    (error[34], error[22]) = (11, 1);
    error[24..26].fill(0);
    let sum = packet::checksum::Sum::new().plus(&error[14..34]).checksum();
    error[24..26].copy_from_slice(&sum.to_be_bytes());
    assert_eq!(lab.send(A, &error), []);
    assert_eq!(lab.drops(A, DropReason::HopLimit), 2001);
}

#[test]
fn a_packet_that_may_be_cut_is() {
    let mut lab = Lab::new(true, nat());
    lab.introduce();
    let mut frame = out(64, &[7; 1472]);
    // Without DF.
    frame[20] = 0;
    frame[24..26].fill(0);
    let sum = packet::checksum::Sum::new().plus(&frame[14..34]).checksum();
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    let left = lab.send(A, &frame);
    assert_eq!(left.len(), 2);
    let parse = |frame: &[u8]| IpPacket::parse(frame, &Ethernet::parse(frame).unwrap()).unwrap();
    for Left(port, frame) in &left {
        let packet = parse(frame);
        assert_eq!((*port, packet.source, packet.hop_limit), (WAN, [192, 0, 2, 10].into(), 63));
        assert!(packet.length() <= 1400 && packet.fragment.is_some());
    }
}

/// Two fragments of `whole`, cut behind `at` bytes of its payload, a multiple of eight.
fn halves(whole: &[u8], at: usize) -> [Vec<u8>; 2] {
    let fragment = |offset: usize, more: u16, data: &[u8]| {
        let mut frame = [&whole[..34], data].concat();
        let bits = more << 13 | u16::try_from(offset / 8).unwrap();
        let length = u16::try_from(frame.len() - 14).unwrap();
        frame[16..18].copy_from_slice(&length.to_be_bytes());
        frame[18..22].copy_from_slice(&[&[0, 77][..], &bits.to_be_bytes()].concat());
        frame[24..26].fill(0);
        let sum = packet::checksum::Sum::new().plus(&frame[14..34]).checksum();
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
        frame
    };
    [fragment(0, 1, &whole[34..34 + at]), fragment(at, 0, &whole[34 + at..])]
}

#[test]
fn a_fragment_that_comes_before_the_first_waits_for_it() {
    let mut lab = Lab::new(true, nat());
    lab.introduce();
    let [first, later] = halves(&out(64, &[7; 1000]), 504);
    assert!(lab.send(A, &later).is_empty());
    let left = lab.send(A, &first);
    let sources: Vec<_> = left.iter().map(|Left(port, frame)| (*port, frame[26..30].to_vec(), frame.len())).collect();
    let external = vec![192, 0, 2, 10];
    assert_eq!(sources, [(WAN, external.clone(), first.len()), (WAN, external, later.len())], "both, translated, in order");
    assert_eq!(lab.drops(A, DropReason::NatFragmentBeforeFirst), 0);
    // The other way round nothing has to wait.
    assert_eq!((lab.send(A, &first).len(), lab.send(A, &later).len()), (1, 1));
}

#[test]
fn a_fragment_whose_first_never_comes_is_dropped_in_the_end() {
    let mut lab = Lab::new(true, nat());
    lab.introduce();
    let [_, later] = halves(&out(64, &[7; 1000]), 504);
    assert!(lab.send(A, &later).is_empty());
    (0..4).for_each(|_| drop(lab.tick()));
    assert_eq!(lab.drops(A, DropReason::NatFragmentBeforeFirst), 0);
    lab.tick();
    assert_eq!(lab.drops(A, DropReason::NatFragmentBeforeFirst), 1);
}

#[test]
fn a_flood_of_later_fragments_pushes_out_its_own() {
    let mut lab = Lab::new(true, nat());
    lab.introduce();
    let [first, later] = halves(&out(64, &[7; 1000]), 504);
    lab.send(A, &later);
    for number in 0..1000_u16 {
        let mut other = later.clone();
        other[26..30].copy_from_slice(&[10, 0, 0, 12]);
        other[18..20].copy_from_slice(&number.to_be_bytes());
        other[24..26].fill(0);
        let sum = packet::checksum::Sum::new().plus(&other[14..34]).checksum();
        other[24..26].copy_from_slice(&sum.to_be_bytes());
        assert!(lab.send(B, &other).is_empty());
    }
    assert!(lab.drops(B, DropReason::NatFragmentBeforeFirst) >= 1000 - 48, "what is held is bounded");
    assert_eq!(lab.send(A, &first).len(), 2, "another source's fragment still waits");
}

/// What the kernel leaves in the field of a checksum: the sum of the pseudo header.
fn pseudo(frame: &[u8]) -> u16 {
    let length = u16::try_from(frame.len() - 34).unwrap();
    packet::checksum::Sum::new().plus(&frame[26..34]).plus_number(frame[23].into()).plus_number(length).folded()
}

#[test]
fn a_super_frame_is_routed_whole_with_its_checksum_left_open() {
    let mut lab = Lab::new(true, nat());
    lab.introduce();
    let mut frame = Vec::new();
    let builder = PacketBuilder::ethernet2(station(1).0, gateway(0).0).ipv4([10, 0, 0, 11], HOST, 64);
    builder.tcp(5000, 80, 1, 100).write(&mut frame, &[7; 30_000]).unwrap();
    let sum = pseudo(&frame);
    frame[50..52].copy_from_slice(&sum.to_be_bytes());
    let gso = Gso { kind: GsoKind::Tcp4, size: NonZeroU16::new(1360).unwrap(), ecn: false };
    let offload = Offload { checksum: Checksum::Partial { start: 34, offset: 16 }, gso: Some(gso) };
    let left = lab.send_with(A, &frame, offload);
    let [Left(WAN, packet)] = &left[..] else { panic!("{} frames", left.len()) };
    assert_eq!(packet.len(), frame.len());
    assert_eq!(packet[50..52], pseudo(packet).to_be_bytes());
    let gso = Gso { size: NonZeroU16::new(1361).unwrap(), ..gso };
    let left = lab.send_with(A, &frame, Offload { gso: Some(gso), ..offload });
    assert_eq!(icmp(&left[0].1), ([10, 0, 0, 11], 3, 4), "its segments are too long");
}

#[test]
fn spoofed_sources_are_dropped() {
    let mut lab = Lab::new(true, nat());
    lab.introduce();
    for source in [[10, 0, 0, 1], [127, 0, 0, 1], [224, 0, 0, 1], [255, 255, 255, 255], [203, 0, 113, 5]] {
        let left = lab.send(A, &udp((station(1), source, 1), (gateway(0), HOST, 2), 64, b""));
        assert_eq!(left, [], "{source:?}");
    }
    assert_eq!(lab.drops(A, DropReason::MartianSource), 5);
    let left = lab.send(A, &udp((gateway(0), [10, 0, 0, 11], 1), (gateway(0), HOST, 2), 64, b""));
    assert_eq!((left, lab.drops(A, DropReason::InvalidSource)), (vec![], 1), "nobody else has the gateway's MAC address");
}

/// As two questions of one resolver that came through a tunnel one after the other.
#[test]
fn services_get_a_super_frame_datagram_by_datagram() {
    let mut lab = Lab::new(true, nat());
    lab.introduce();
    let mut query = udp((station(1), [10, 0, 0, 11], 9), (gateway(0), [10, 0, 0, 1], 53), 64, b"one?two?3");
    let sum = pseudo(&query);
    query[40..42].copy_from_slice(&sum.to_be_bytes());
    let gso = Some(Gso { kind: GsoKind::Udp, size: NonZeroU16::new(4).unwrap(), ecn: false });
    let offload = Offload { checksum: Checksum::Partial { start: 34, offset: 6 }, gso };
    assert_eq!(lab.send_with(A, &query, offload), []);
    let punts: Vec<Punt> = lab.datapath.take_punts().collect();
    let asked: Vec<_> = punts.iter().map(|punt| (&punt.frame[42..], packet::checksum::examine(&punt.frame))).collect();
    assert_eq!(asked, [&b"one?"[..], b"two?", b"3"].map(|payload| (payload, Checksum::Valid)));
}

#[test]
fn services_get_what_is_for_them() {
    let mut lab = Lab::new(true, nat());
    lab.introduce();
    let discover = udp((station(1), [0, 0, 0, 0], 68), (Mac::BROADCAST, [255; 4], 67), 64, b"dhcp");
    assert_eq!(lab.send(A, &discover), [Left(B, discover.clone())]);
    let query = udp((station(1), [10, 0, 0, 11], 9), (gateway(0), [10, 0, 0, 1], 53), 64, b"dns");
    assert_eq!(lab.send(A, &query), []);
    let punts: Vec<Punt> = lab.datapath.take_punts().collect();
    let punt = |frame: &[u8]| Punt {
        bridge: BridgeId(0),
        port: A,
        vlan: Some(VlanId::DEFAULT),
        frame: frame.to_vec(),
        ticket: Ticket::default(),
    };
    assert_eq!(punts, [punt(&discover), punt(&query)]);
    let answer = udp((gateway(0), [10, 0, 0, 1], 53), (station(1), [10, 0, 0, 11], 9), 64, b"answer");
    lab.datapath.emit((BridgeId(0), None), &answer, &mut lab.batch, &mut lab.outputs);
    assert_eq!(lab.collect(), [Left(A, answer)]);
}

#[test]
fn a_tcp_segment_to_the_gateway_is_refused() {
    let mut lab = Lab::new(true, nat());
    let mut frame = Vec::new();
    let builder = PacketBuilder::ethernet2(station(1).0, gateway(0).0).ipv4([10, 0, 0, 11], [10, 0, 0, 1], 64);
    builder.tcp(5000, 22, 1, 100).syn().write(&mut frame, &[]).unwrap();
    let left = lab.send(A, &frame);
    let [Left(A, answer)] = &left[..] else { panic!("{left:?}") };
    let sliced = SlicedPacket::from_ethernet(answer).unwrap();
    let Some(TransportSlice::Tcp(tcp)) = sliced.transport else { panic!() };
    assert!(tcp.rst() && tcp.ack() && tcp.acknowledgment_number() == 2);
}

#[test]
fn the_host_s_sockets_get_packets_as_they_are() {
    let far = station(8);
    let mut lab = Lab::new(true, Translation::Host(far));
    lab.introduce();
    let left = lab.send(A, &out(64, b"query"));
    let [Left(WAN, packet)] = &left[..] else { panic!("{left:?}") };
    assert_eq!((&packet[..6], flow(packet)), (&far.0[..], ([10, 0, 0, 11], 5000, HOST, 53, 63)));
    let left = lab.send(WAN, &udp((far, HOST, 53), (gateway(9), [10, 0, 0, 11], 5000), 64, b"answer"));
    let [Left(A, packet)] = &left[..] else { panic!("{left:?}") };
    assert_eq!(flow(packet), (HOST, 53, [10, 0, 0, 11], 5000, 63));
    // A client on the host appears under the gateway's address; what is sent to it goes there.
    let left = lab.send(WAN, &udp((far, [10, 0, 0, 1], 4000), (gateway(9), [10, 0, 0, 11], 80), 64, b"local"));
    let [Left(A, packet)] = &left[..] else { panic!("{left:?}") };
    assert_eq!(flow(packet), ([10, 0, 0, 1], 4000, [10, 0, 0, 11], 80, 63));
    let left = lab.send(A, &udp((station(1), [10, 0, 0, 11], 80), (gateway(0), [10, 0, 0, 1], 4000), 64, b"back"));
    let [Left(WAN, packet)] = &left[..] else { panic!("{left:?}") };
    assert_eq!(flow(packet).2, [10, 0, 0, 1]);
}

#[test]
fn the_host_s_sockets_are_told_by_a_gateway_that_a_station_does_not_answer() {
    let far = station(8);
    let mut lab = Lab::new(true, Translation::Host(far));
    lab.datapath.set_gateway(UPLINK, Some(GatewaySettings { addresses: Vec::new(), ..outside(Translation::Host(far)) }));
    let told = |lab: &mut Lab, frame: &[u8]| {
        lab.send(WAN, frame);
        let left: Vec<Left> = (0..4).flat_map(|_| lab.tick()).filter(|Left(port, _)| *port == WAN).collect();
        let [Left(_, message)] = &left[..] else { panic!("{left:?}") };
        let packet = IpPacket::parse(message, &Ethernet::parse(message).unwrap()).unwrap();
        (packet.source.to_string(), packet.destination.to_string(), message[packet.transport], message[packet.transport + 1])
    };
    // A client elsewhere, and one on the host, which appears under the gateway's address.
    for client in [HOST, [10, 0, 0, 1]] {
        let frame = udp((far, client, 4000), (gateway(9), [10, 0, 0, 77], 80), 64, b"to nobody");
        let client = std::net::Ipv4Addr::from(client).to_string();
        assert_eq!(told(&mut lab, &frame), ("10.0.0.1".to_owned(), client, 3, 1));
    }
    let (client, nobody): (std::net::Ipv6Addr, std::net::Ipv6Addr) =
        ("2001:db8:1::7".parse().unwrap(), "fd00::77".parse().unwrap());
    let mut frame = Vec::new();
    let builder = PacketBuilder::ethernet2(far.0, gateway(9).0).ipv6(client.octets(), nobody.octets(), 64);
    builder.udp(4000, 80).write(&mut frame, b"to nobody").unwrap();
    assert_eq!(told(&mut lab, &frame), ("fd00::1".to_owned(), client.to_string(), 1, 3));
}

#[test]
fn a_worker_that_does_not_route_hands_over() {
    let mut first = Lab::new(true, nat());
    first.introduce();
    let mut second = Lab::new(true, nat());
    second.datapath.leave_routing();
    second.batch.set_ingress(A.0);
    second.batch.push(&out(64, b"query"), Offload::default());
    second
        .batch
        .push(&arp(ArpOperation::REQUEST, station(1), Mac::BROADCAST, [10, 0, 0, 11], [10, 0, 0, 1]), Offload::default());
    second.datapath.forward(second.now, &mut second.batch, &mut second.outputs);
    assert_eq!(second.outputs.handed_over(), [(0, Errand::Decide), (1, Errand::Tell)]);
    assert_eq!(second.outputs.used(), [B], "the broadcast is flooded by whoever received it");
    first.batch.set_ingress(A.0);
    for index in [0, 1] {
        first.batch.push(second.batch.frames()[index].bytes(), Offload::default());
    }
    first.datapath.route(first.now, &mut first.batch, &[Errand::Decide, Errand::Tell], &mut first.outputs);
    assert_eq!(first.outputs.fates(), [Some(Fate::Routed { into: UPLINK, translated: true }), None]);
    let left = first.collect();
    let [Left(WAN, packet), Left(A, answer)] = &left[..] else { panic!("{left:?}") };
    assert_eq!(flow(packet), ([192, 0, 2, 10], 5000, HOST, 53, 63));
    assert_eq!(answer[12..14], [8, 6]);
}

#[test]
fn ipv6_neighbours_are_found_and_answered() {
    let mut lab = Lab::new(true, nat());
    let mut frame = Vec::new();
    let builder = PacketBuilder::ethernet2(station(1).0, gateway(0).0);
    let source: std::net::Ipv6Addr = "fd00::11".parse().unwrap();
    let target: std::net::Ipv6Addr = "2001:db8:1::7".parse().unwrap();
    builder.ipv6(source.octets(), target.octets(), 64).udp(5000, 53).write(&mut frame, b"query").unwrap();
    let left = lab.send(A, &frame);
    let [Left(WAN, question)] = &left[..] else { panic!("{left:?}") };
    assert_eq!((&question[..6], question[54]), (&[0x33, 0x33, 0xff, 0, 0, 1][..], 135));
    let (own, router) = ("2001:db8::10".parse().unwrap(), "2001:db8::1".parse().unwrap());
    let mut answer = Vec::new();
    message::advertisement(&mut answer, Envelope { from: (station(4), router), to: (gateway(9), own) }, router, true);
    let left = lab.send(WAN, &answer);
    let [Left(WAN, packet)] = &left[..] else { panic!("{left:?}") };
    let parsed = IpPacket::parse(packet, &Ethernet::parse(packet).unwrap()).unwrap();
    assert_eq!((parsed.source, parsed.hop_limit), ("2001:db8::10".parse().unwrap(), 63));

    // The gateway's global and link-local addresses are answered for, to an asker and to a probe.
    for (asked, asker) in [("fd00::1", source), ("fe80::ff:fe00:100", source), ("fd00::1", "::".parse().unwrap())] {
        let mut solicit = Vec::new();
        message::solicitation(&mut solicit, (station(1), asker), asked.parse().unwrap(), None);
        let left = lab.send(A, &solicit);
        let answer = left.iter().find(|Left(_, frame)| frame[6..12] == gateway(0).0).expect(asked);
        assert_eq!(answer.1[54], 136, "{asked}");
    }
}

#[test]
fn nobody_speaks_for_the_stations_of_another_bridge() {
    for translation in [nat(), Translation::Host(station(8))] {
        let mut lab = Lab::new(false, translation);
        lab.introduce();
        let to = [HOST, [10, 0, 1, 13], [192, 0, 2, 10], [10, 0, 0, 1]];
        for destination in to {
            // From the other bridge's subnet, and by the host to itself.
            for source in [[10, 0, 1, 14], [10, 0, 1, 1], [192, 0, 2, 1]] {
                let left = lab.send(A, &udp((station(1), source, 7), (gateway(0), destination, 9), 64, b"spoof"));
                assert_eq!(left, [], "{source:?} to {destination:?}");
            }
        }
        assert_eq!(lab.drops(A, DropReason::MartianSource), 12);
    }
}

#[test]
fn nobody_outside_speaks_for_a_station() {
    let mut lab = Lab::new(true, nat());
    lab.introduce();
    lab.publish();
    for source in [[10, 0, 0, 11], [10, 0, 1, 13], [10, 0, 0, 1], [224, 0, 0, 1], [192, 0, 2, 10]] {
        let left = lab.send(WAN, &udp((station(4), source, 999), (gateway(9), [192, 0, 2, 10], 8080), 60, b"in"));
        assert_eq!(left, [], "{source:?}");
    }
    assert_eq!(lab.drops(WAN, DropReason::MartianSource), 5);
}

#[test]
fn ipv4_in_ipv6_s_clothes_and_addresses_of_one_link_go_nowhere() {
    let mut lab = Lab::new(false, Translation::Host(station(8)));
    lab.introduce();
    for target in ["::ffff:10.0.1.13", "::ffff:127.0.0.1", "::10.0.1.13", "::1", "::", "fe80::1"] {
        let mut frame = Vec::new();
        let builder = PacketBuilder::ethernet2(station(1).0, gateway(0).0);
        let (source, target): (std::net::Ipv6Addr, std::net::Ipv6Addr) = ("fd00::11".parse().unwrap(), target.parse().unwrap());
        builder.ipv6(source.octets(), target.octets(), 64).udp(1, 2).write(&mut frame, b"x").unwrap();
        assert_eq!(lab.send(A, &frame), [], "{target}");
    }
    for target in [[0, 0, 0, 0], [0, 1, 2, 3], [127, 0, 0, 1], [127, 9, 9, 9], [169, 254, 169, 254]] {
        let left = lab.send(A, &udp((station(1), [10, 0, 0, 11], 1), (gateway(0), target, 2), 64, b""));
        assert_eq!(left, [], "{target:?}");
    }
    assert_eq!(lab.drops(A, DropReason::NoRoute), 11);
}

#[test]
fn a_broadcast_in_a_unicast_frame_is_not_answered() {
    for translation in [nat(), Translation::Host(station(8))] {
        let mut lab = Lab::new(false, translation);
        lab.introduce();
        for destination in [[10, 0, 0, 255], [255, 255, 255, 255], [224, 0, 0, 1]] {
            let from = (station(1), [10, 0, 0, 11]);
            assert_eq!(lab.send(A, &ping(from, (gateway(0), destination))), [], "{destination:?}");
            assert_eq!(lab.send(A, &udp((from.0, from.1, 1), (gateway(0), destination, 2), 1, b"")), [], "{destination:?}");
        }
        let mut frame = Vec::new();
        let builder = PacketBuilder::ethernet2(station(1).0, gateway(0).0).ipv4([10, 0, 0, 11], [10, 0, 0, 255], 64);
        builder.tcp(5000, 22, 1, 100).syn().write(&mut frame, &[]).unwrap();
        assert_eq!(lab.send(A, &frame), []);
        // The broadcast address of another bridge's subnet is no host either (RFC 2644).
        let across = udp((station(1), [10, 0, 0, 11], 1), (gateway(0), [10, 0, 1, 255], 2), 64, b"");
        assert_eq!(lab.send(A, &across), []);
    }
}

#[test]
fn nobody_makes_the_router_take_its_own_mac_address_or_none_for_a_station_s() {
    let mut lab = Lab::new(false, nat());
    lab.introduce();
    for mac in [gateway(0), Mac::ZERO, Mac::BROADCAST] {
        for operation in [ArpOperation::REQUEST, ArpOperation::REPLY] {
            let mut frame = arp(operation, mac, gateway(0), [10, 0, 0, 12], [10, 0, 0, 1]);
            frame[6..12].copy_from_slice(&station(1).0);
            assert_eq!(lab.send(A, &frame), [], "{mac:?}");
        }
    }
    // Neither does anybody claim an address that cannot be a station's.
    for sender in [[10, 0, 0, 1], [10, 0, 0, 255]] {
        let frame = arp(ArpOperation::REQUEST, station(1), gateway(0), sender, [10, 0, 0, 1]);
        assert_eq!(lab.send(A, &frame), [], "{sender:?}");
    }
    // One on two bridges may ask here with its address there, and is answered, but not learned.
    let frame = arp(ArpOperation::REQUEST, station(1), gateway(0), [10, 0, 1, 13], [10, 0, 0, 1]);
    assert_eq!(lab.send(A, &frame).len(), 1);
    let own: std::net::Ipv6Addr = "fd00::1".parse().unwrap();
    let victim: std::net::Ipv6Addr = "fd00::12".parse().unwrap();
    let mut frame = Vec::new();
    message::solicitation(&mut frame, (station(2), victim), own, None);
    assert!(!lab.send(B, &frame).is_empty());
    message::advertisement(&mut frame, Envelope { from: (gateway(0), victim), to: (gateway(0), own) }, victim, true);
    frame[6..12].copy_from_slice(&station(1).0);
    lab.send(A, &frame);
    let rows = lab.datapath.neighbors(lab.now, BridgeId(0));
    let mac_of = |address: IpAddr| rows.iter().find(|row| row.address == address).and_then(|row| row.mac);
    assert_eq!((mac_of([10, 0, 0, 12].into()), mac_of(victim.into())), (Some(station(2)), Some(station(2))));
    assert_eq!(rows.len(), 3, "{rows:?}");
}

#[test]
fn a_new_bridge_hears_nothing_of_what_the_old_one_of_its_number_sent() {
    let mut lab = Lab::new(false, nat());
    lab.introduce();
    let lost = udp((station(1), [10, 0, 0, 11], 1), (gateway(0), [10, 0, 1, 99], 2), 64, b"secret");
    assert_eq!(lab.send(A, &lost).len(), 1);
    for port in [A, B] {
        lab.datapath.remove_port(port);
    }
    lab.datapath.remove_bridge(BridgeId(0));
    let settings = BridgeSettings {
        mtu: 1500,
        ageing: 300,
        max_macs: 100,
        control_frames: ControlFrames::Drop,
        ..BridgeSettings::default()
    };
    lab.datapath.set_bridge(lab.now, BridgeId(0), settings);
    let settings = PortSettings::on(BridgeId(0));
    lab.datapath.set_port(A, &settings);
    lab.datapath.set_gateway(BridgeId(0), Some(inside(0, false)));
    for _ in 0..5 {
        assert_eq!(lab.tick(), []);
    }
}

#[test]
fn a_gateway_that_moves_to_another_vlan_meets_its_neighbours_anew() {
    let mut lab = Lab::new(false, nat());
    lab.introduce();
    let vlan = VlanId::try_from(10).unwrap();
    lab.datapath.set_gateway(BridgeId(0), Some(GatewaySettings { vlan, ..inside(0, false) }));
    assert_eq!(lab.datapath.neighbors(lab.now, BridgeId(0)), []);
}

#[test]
fn a_frame_that_was_handed_over_before_its_port_moved_is_not_routed() {
    let mut lab = Lab::new(false, nat());
    lab.introduce();
    let settings = PortSettings::on(BridgeId(1));
    lab.datapath.set_port(A, &settings);
    lab.batch.set_ingress(A.0);
    lab.batch.push(&ping((station(1), [10, 0, 1, 11]), (gateway(0), [10, 0, 1, 1])), Offload::default());
    lab.datapath.route(lab.now, &mut lab.batch, &[Errand::Decide], &mut lab.outputs);
    assert_eq!(lab.outputs.fates(), [Some(Fate::Dropped(DropReason::NoRoute))], "and it is told");
    assert_eq!(lab.collect(), []);
}

#[test]
fn icmp_errors_of_one_bridge_leave_those_of_another() {
    let mut lab = Lab::new(true, nat());
    lab.introduce();
    (0..2000).for_each(|_| drop(lab.send(A, &out(1, b""))));
    assert_eq!(lab.send(A, &out(1, b"")), []);
    let other = udp((station(3), [10, 0, 1, 13], 5000), (gateway(1), HOST, 53), 1, b"");
    assert_eq!(lab.send(C, &other).len(), 1);
}

#[test]
fn a_batch_full_of_answers_drops_the_rest_and_goes_on() {
    let mut lab = Lab::new(true, nat());
    lab.introduce();
    // Each packet is cut in two, and displaces one that waits for a neighbour.
    for round in 0..10_u8 {
        lab.batch.set_ingress(A.0);
        for number in 0..Batch::FRAMES {
            let target = [192, 0, 2, u8::try_from(number + 20).unwrap()];
            let big = udp((station(1), [10, 0, 0, 11], 5), (gateway(0), target, 6), 64, &[round; 1400]);
            let mut frame = big;
            frame[20] = 0;
            frame[24..26].fill(0);
            let sum = packet::checksum::Sum::new().plus(&frame[14..34]).checksum();
            frame[24..26].copy_from_slice(&sum.to_be_bytes());
            lab.batch.push(&frame, Offload::default());
        }
        lab.datapath.forward(lab.now, &mut lab.batch, &mut lab.outputs);
        assert!(lab.batch.frames().len() <= Batch::MOST);
        lab.collect();
    }
    for _ in 0..4 {
        lab.tick();
    }
    assert_eq!(lab.send(A, &ping((station(1), [10, 0, 0, 11]), (gateway(0), [10, 0, 0, 1]))).len(), 1);
}

impl Lab {
    /// As [`Lab::send_with`], with what leaves as it is on the wire of a device that can do nothing itself.
    fn wire(&mut self, port: PortId, frame: &[u8], offload: Offload) -> Vec<Left> {
        self.batch.set_ingress(port.0);
        self.batch.push(frame, offload);
        self.datapath.forward(self.now, &mut self.batch, &mut self.outputs);
        self.outputs.act(&mut self.batch);
        let mut left = Vec::new();
        for port in self.outputs.used() {
            let frames = self.batch.frames();
            let queued =
                |next: &crate::datapath::Departure| Queued { frame: &frames[next.frame], edit: next.edit, peer: next.peer };
            let queue: Vec<Queued<'_>> = self.outputs.queue(*port).iter().map(queued).collect();
            packet::Egress::new().run(&queue, packet::Capabilities::default(), &mut |packet| {
                left.push(Left(*port, packet.to_vec()));
            });
        }
        self.outputs.clear();
        self.batch.clear();
        left
    }
}

fn tagged(frame: &[u8], tag: u16) -> Vec<u8> {
    [&frame[..12], &[0x81, 0], &tag.to_be_bytes(), &frame[12..]].concat()
}

/// Whether the headers and transport of a frame have the checksums that etherparse computes.
fn is_sound(frame: &[u8]) -> bool {
    let sliced = SlicedPacket::from_ethernet(frame).unwrap();
    let Some(NetSlice::Ipv4(ip)) = &sliced.net else { panic!("no IPv4") };
    let header = ip.header().to_header();
    let transport = match sliced.transport.unwrap() {
        TransportSlice::Udp(udp) => udp.checksum() == udp.to_header().calc_checksum_ipv4(&header, udp.payload()).unwrap(),
        TransportSlice::Tcp(tcp) => tcp.checksum() == tcp.to_header().calc_checksum_ipv4(&header, tcp.payload()).unwrap(),
        TransportSlice::Icmpv4(icmp) => icmp.checksum() == icmp.icmp_type().calc_checksum(icmp.payload()),
        other => panic!("{other:?}"),
    };
    transport && header.header_checksum == header.calc_header_checksum()
}

#[test]
fn a_gateway_in_a_vlan_is_there_for_access_and_trunk_ports_of_it_alone() {
    let mut lab = Lab::new(true, nat());
    lab.introduce();
    let vlan = VlanId::try_from(10).unwrap();
    for (port, vlans) in
        [(A, VlanMode::Access(vlan)), (B, VlanMode::Trunk { allowed: vec![vlan], native: Some(VlanId::DEFAULT) })]
    {
        let settings = PortSettings { vlans, ..PortSettings::on(BridgeId(0)) };
        lab.datapath.set_port(port, &settings);
    }
    lab.datapath.set_gateway(BridgeId(0), Some(GatewaySettings { vlan, ..inside(0, true) }));
    let by_b = |frame: &[u8]| tagged(frame, 0x600a);
    let request = ping((station(1), [10, 0, 0, 11]), (gateway(0), [10, 0, 0, 1]));
    // Untagged and with a priority tag at the access port; tagged at the trunk.
    for frame in [request.clone(), tagged(&request, 0x6000)] {
        let left = lab.wire(A, &frame, Offload::default());
        let [Left(A, answer)] = &left[..] else { panic!("{left:?}") };
        assert!(answer[12..14] == [8, 0] && is_sound(answer));
    }
    let request = ping((station(2), [10, 0, 0, 12]), (gateway(0), [10, 0, 0, 1]));
    let left = lab.wire(B, &by_b(&request), Offload::default());
    let [Left(B, answer)] = &left[..] else { panic!("{left:?}") };
    assert!(answer[12..16] == [0x81, 0, 0, 10] && is_sound(answer));
    // In the native VLAN there is no answer.
    assert!(lab.wire(B, &request, Offload::default()).iter().all(|Left(_, frame)| *frame == request));

    // A tagged packet with an unfinished checksum goes out untagged with a finished one, and an error about it is sound too.
    for (ttl, expected) in [(64, WAN), (1, B)] {
        let mut frame = by_b(&udp((station(2), [10, 0, 0, 12], 5000), (gateway(0), HOST, 6), ttl, b"data"));
        let pseudo = packet::checksum::Sum::new().plus(&frame[30..38]).plus_number(17).plus_number(12).folded();
        frame[44..46].copy_from_slice(&pseudo.to_be_bytes());
        let left = lab.wire(B, &frame, Offload { checksum: Checksum::Partial { start: 38, offset: 6 }, gso: None });
        let [Left(port, frame)] = &left[..] else { panic!("{left:?}") };
        assert!(*port == expected && is_sound(frame), "{frame:?}");
        assert_eq!(frame[12..14] == [0x81, 0], expected == B);
    }
    // And back: untagged from outside, tagged at the trunk, once its station is known there.
    let hello = by_b(&arp(ArpOperation::REQUEST, station(2), Mac::BROADCAST, [10, 0, 0, 12], [10, 0, 0, 1]));
    assert_eq!(lab.wire(B, &hello, Offload::default()).len(), 2, "flooded and answered");
    let back = udp((station(4), HOST, 6), (gateway(9), [192, 0, 2, 10], 5000), 60, b"answer");
    let left = lab.wire(WAN, &back, Offload::default());
    let [Left(B, frame)] = &left[..] else { panic!("{left:?}") };
    assert!(frame[12..16] == [0x81, 0, 0, 10] && is_sound(frame));
}

#[test]
fn the_smallest_mtu_and_the_last_hops_are_survived() {
    let mut lab = Lab::new(true, nat());
    lab.introduce();
    lab.datapath.set_gateway(UPLINK, Some(GatewaySettings { mtu: 68, ..outside(nat()) }));
    let mut frame = out(64, &[7; 1472]);
    frame[20] = 0;
    frame[24..26].fill(0);
    let sum = packet::checksum::Sum::new().plus(&frame[14..34]).checksum();
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    let left = lab.send(A, &frame);
    assert_eq!(left.len(), 31);
    assert!(left.iter().all(|Left(port, frame)| *port == WAN && frame.len() <= 14 + 68));
    for ttl in [0, 1] {
        let left = lab.send(A, &out(ttl, b""));
        let [Left(A, answer)] = &left[..] else { panic!("{left:?}") };
        assert_eq!(icmp(answer), ([10, 0, 0, 11], 11, 0));
    }
}

#[test]
fn ipv6_extensions_are_read_and_an_atomic_fragment_is_a_packet() {
    let mut lab = Lab::new(true, nat());
    let own: std::net::Ipv6Addr = "fd00::1".parse().unwrap();
    let mut frame = Vec::new();
    message::echo_reply(
        &mut frame,
        Envelope { from: (station(1), "fd00::11".parse().unwrap()), to: (gateway(0), own.into()) },
        &[128, 0, 0, 0, 0, 7, 0, 1],
    );
    // What the function made is a reply; a request has another type and checksum.
    frame[54] = 128;
    let sum = u16::from_be_bytes([frame[56], frame[57]]).wrapping_add(0x0100);
    frame[56..58].copy_from_slice(&sum.to_be_bytes());
    for (kind, extension) in [(44, [58, 0, 0, 0, 0, 0, 0, 9]), (0, [58, 0, 1, 4, 0, 0, 0, 0]), (60, [58, 0, 1, 4, 0, 0, 0, 0])]
    {
        let mut longer = [&frame[..54], &extension, &frame[54..]].concat();
        (longer[20], longer[19]) = (kind, 16);
        let left = lab.send(A, &longer);
        let answer = left.iter().find(|Left(_, frame)| frame[6..12] == gateway(0).0).unwrap_or_else(|| panic!("{kind}"));
        assert_eq!((answer.1[20], answer.1[54]), (58, 129), "{kind}");
    }
    // A part of a packet is not for the gateway, and no sender is told of a part that is not the first.
    let mut part = [&frame[..54], &[58, 0, 0, 8, 0, 0, 0, 9], &frame[54..]].concat();
    (part[20], part[19], part[21]) = (44, 16, 1);
    assert_eq!(lab.send(A, &part), []);
    (0..31).for_each(|_| drop(lab.tick()));
    assert_eq!(lab.drops(A, DropReason::FragmentForGateway), 1, "the rest did not come");
}
