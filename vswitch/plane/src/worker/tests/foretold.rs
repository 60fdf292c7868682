//! What is foretold of a frame is what then happens to it, whichever worker receives it, and to foretell changes nothing.

use etherparse::PacketBuilder;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::*;
use crate::datapath::{FdbListing, GatewaySettings, Guard, NeighborRow, Place, Side, Translation, TunnelSettings};

const BRIDGE: BridgeId = BridgeId(0);
const UPLINK: BridgeId = BridgeId(9);
const GATEWAY: Mac = Mac([2, 0, 0, 0, 1, 0]);
const OUTSIDE: Mac = Mac([2, 0, 0, 0, 1, 9]);
/// Two stations in VLAN 1, of which the first has a guard; one in VLAN 10; a trunk of both; a tunnel in VLAN 10; the uplink.
const PORTS: u32 = 6;
const WAN: u32 = 5;

/// A frame that any of the stations may send.
#[derive(Clone, Debug)]
struct Sent {
    port: u32,
    source: u8,
    destination: u8,
    tag: Option<u16>,
    from: u8,
    to: u8,
    ports: (u8, u8),
    ttl: u8,
    kind: u8,
    length: usize,
}

fn sent() -> impl Strategy<Value = Sent> {
    let tag = prop_oneof![4 => Just(None), 2 => Just(Some(10)), 1 => Just(Some(1)), 1 => Just(Some(30))];
    let length = prop_oneof![8 => 0usize..200, 1 => 1300usize..1600];
    let ends = (0u8..8, 0u8..9, 0u8..8, 0u8..8);
    (0..PORTS, ends, tag, (0u8..4, 0u8..4), prop_oneof![6 => Just(64u8), 1 => 0u8..3], 0u8..5, length).prop_map(
        |(port, (source, destination, from, to), tag, ports, ttl, kind, length)| Sent {
            port,
            source,
            destination,
            tag,
            from,
            to,
            ports,
            ttl,
            kind,
            length,
        },
    )
}

/// MAC addresses of stations, of the gateways, and of groups.
fn mac(number: u8) -> Mac {
    match number {
        5 => GATEWAY,
        6 => OUTSIDE,
        7 => Mac::BROADCAST,
        8 => Mac([0x33, 0x33, 0, 0, 0, 1]),
        station => Mac([2, 0, 0, 0, 0, station]),
    }
}

/// IP addresses of stations, of the gateways, and of hosts outside.
fn address(number: u8) -> [u8; 4] {
    match number {
        5 => [10, 0, 0, 1],
        6 => [192, 0, 2, 10],
        7 => [198, 51, 100, 7],
        8 => [192, 0, 2, 1],
        // Those in VLAN 10 are not the gateway's neighbours: for them a packet would wait, and time would go on.
        2 | 4 => [10, 0, 0, 13],
        station => [10, 0, 0, 10 + station],
    }
}

impl Sent {
    fn bytes(&self) -> Vec<u8> {
        let (from, to) = (mac(self.source), mac(self.destination));
        let (source, destination) = (address(self.from), address(self.to));
        let (one, other) = (5000 + u16::from(self.ports.0), [80, 8080, 53, 9][usize::from(self.ports.1)]);
        let payload = vec![7; self.length];
        let ip = PacketBuilder::ethernet2(from.0, to.0).ipv4(source, destination, self.ttl);
        let mut bytes = Vec::new();
        match self.kind {
            0 => ip.udp(one, other).write(&mut bytes, &payload).unwrap(),
            1 => ip.tcp(one, other, 1, 1000).syn().write(&mut bytes, &payload).unwrap(),
            2 => ip.tcp(one, other, 1, 1000).ack(1).write(&mut bytes, &payload).unwrap(),
            3 => ip.icmpv4_echo_request(one, 1).write(&mut bytes, &payload).unwrap(),
            _ => {
                let operation = if self.ports.0.is_multiple_of(2) { [0, 1] } else { [0, 2] };
                bytes =
                    [&to.0[..], &from.0, &[8, 6, 0, 1, 8, 0, 6, 4], &operation, &from.0, &source, &to.0, &destination].concat();
            }
        }
        if let Some(tag) = self.tag {
            bytes.splice(12..12, [&[0x81, 0][..], &tag.to_be_bytes()].concat());
        }
        bytes
    }
}

/// A switch with everything that decides about a frame.
fn plane(workers: usize) -> Plane {
    let plane = Plane::new(workers, PORTS);
    let gateway = GatewaySettings {
        mac: GATEWAY,
        vlan: VlanId::DEFAULT,
        mtu: 1500,
        addresses: vec!["10.0.0.1/24".parse().unwrap()],
        routes: Vec::new(),
        side: Side::Inside { uplink: Some(UPLINK), isolated: false, dhcp: true },
    };
    let rules = nat::Settings { sessions: 1000, ..nat::Settings::default() };
    let outside = GatewaySettings {
        mac: OUTSIDE,
        mtu: 1400,
        addresses: vec!["192.0.2.10/24".parse().unwrap()],
        side: Side::Outside { gateways: vec!["192.0.2.1".parse().unwrap()], translation: Translation::Nat(Box::new(rules)) },
        ..gateway.clone()
    };
    let forward = nat::Forward::new(nat::Protocol::Tcp, "8080".parse().unwrap(), "10.0.0.11:80".parse().unwrap()).unwrap();
    plane.tell(|| Command::SetBridge(UPLINK, BridgeSettings { mtu: 1400, ..BridgeSettings::default() }));
    plane.tell(|| Command::SetGateway(BRIDGE, Some(gateway.clone())));
    plane.tell(|| Command::SetGateway(UPLINK, Some(outside.clone())));
    plane.tell(|| Command::SetForwards(UPLINK, vec![forward]));
    let ten = VlanId::try_from(10).unwrap();
    let on = PortSettings::on(BRIDGE);
    let one = VlanMode::Access(VlanId::DEFAULT);
    let guard = Guard { mac: mac(0), addresses: vec![address(0).into()] };
    let tunnel = TunnelSettings { learn: true, mtu: 1450, stations: [].into(), told: false };
    let policy = api::PortPolicy { protected: true, ..api::PortPolicy::default() };
    let settings = [
        PortSettings { vlans: one.clone(), guard: Some(guard), ..on.clone() },
        PortSettings { vlans: one, policy: policy.clone(), ..on.clone() },
        PortSettings { vlans: VlanMode::Access(ten), policy: policy.clone(), ..on.clone() },
        PortSettings { vlans: VlanMode::Trunk { allowed: vec![ten], native: Some(VlanId::DEFAULT) }, ..on.clone() },
        PortSettings { vlans: VlanMode::Access(ten), tunnel: Some(tunnel), ..on },
        PortSettings::on(UPLINK),
    ];
    for (number, settings) in (0..).zip(settings) {
        plane.tell(|| Command::SetPort(PortId(number), settings.clone()));
    }
    plane
}

/// All that a frame may change.
type Tables = (Vec<FdbListing>, Vec<Vec<NeighborRow>>, Vec<nat::SessionRow>, nat::Counters, Vec<crate::datapath::Counters>);

impl Plane {
    fn tables(&self) -> Tables {
        let [first, ..] = &self.workers[..] else { panic!("no worker") };
        let sorted = |mut listing: FdbListing| {
            listing.rows.iter_mut().for_each(|row| row.age = 0);
            listing.rows.sort_by_key(|row| (row.vlan, row.mac));
            listing
        };
        let fdb =
            |bridge| self.workers.iter().map(move |worker| sorted(worker.ask(|reply| Command::Fdb(bridge, reply)).unwrap()));
        let neighbors = |bridge| {
            let mut rows = first.ask(|reply| Command::Neighbors(bridge, reply)).unwrap();
            rows.iter_mut().for_each(|row| row.age = 0);
            rows.sort_by_key(|row| row.address);
            rows
        };
        let mut sessions = first.ask(|reply| Command::Sessions(UPLINK, reply)).unwrap();
        sessions.iter_mut().for_each(|row| row.seconds_left = 0);
        sessions.sort_by_key(|row| (row.inside, row.remote));
        (
            fdb(BRIDGE).chain(fdb(UPLINK)).collect(),
            vec![neighbors(BRIDGE), neighbors(UPLINK)],
            sessions,
            first.ask(|reply| Command::NatCounters(UPLINK, reply)).unwrap(),
            self.all_counters(),
        )
    }

    fn all_counters(&self) -> Vec<crate::datapath::Counters> {
        let ports: Vec<PortId> = (0..PORTS).map(PortId).collect();
        let mut sums = vec![crate::datapath::Counters::default(); ports.len()];
        for worker in &self.workers {
            let parts = worker.ask(|reply| Command::Counters(ports.clone(), reply)).unwrap();
            sums.iter_mut().zip(&parts).for_each(|(sum, part)| sum.add(part));
        }
        sums
    }

    /// What left since it was asked last, by port.
    fn left(&self) -> Vec<(u32, Vec<u8>)> {
        let drained = |port: u32| self.far[port as usize].iter().flat_map(FarEnd::drain).map(move |(bytes, _)| (port, bytes));
        let mut left: Vec<_> = (0..PORTS).flat_map(drained).collect();
        left.sort();
        left
    }

    /// Sends a frame by one of the workers and holds what comes of it against what was foretold.
    fn hold(&self, sent: &Sent, worker: usize) {
        let (bytes, place) = (sent.bytes(), Place { port: PortId(sent.port), peer: 0 });
        let before = self.tables();
        let foretold =
            self.workers[0].ask(|reply| Command::Foretell(place, bytes.clone(), Offload::default(), reply)).unwrap().unwrap();
        assert_eq!(self.tables(), before, "to foretell changes nothing");
        let dropped = drops(&before.4);
        assert!(self.far[sent.port as usize][worker].push(&bytes, Offload::default()));
        self.settle(&[sent.port as usize]);
        // What was handed over, and what others should hear, is through.
        (0..3).for_each(|_| self.settle(&[]));
        let mut exits: Vec<_> = foretold.exits.into_iter().map(|exit| (exit.port.0, exit.bytes)).collect();
        exits.sort();
        let mut left = self.left();
        // Whether a neighbour is still there is asked whenever it is time to.
        let asks = |frame: &[u8]| {
            frame[12..14] == [8, 6]
                && frame[20..22] == [0, 1]
                && [GATEWAY.0, OUTSIDE.0].contains(frame[6..].first_chunk().unwrap())
        };
        left.retain(|exit| !asks(&exit.1) || exits.contains(exit));
        let new = drops(&self.all_counters()).into_iter().filter(|drop| !dropped.contains(drop));
        let new: Vec<_> = new.map(|(port, reason, _)| (port, reason)).collect();
        let expected: Vec<_> = foretold.fate.drop_reason().map(|reason| (sent.port, reason)).into_iter().collect();
        let is_there = |exit: &(u32, Vec<u8>)| left.contains(exit);
        // The answer of a neighbour releases what waited for it.
        assert!(
            exits.iter().all(is_there) && (exits.len() == left.len() || sent.kind == 4),
            "{sent:?} {:?}\n{exits:?}\n{left:?}",
            foretold.fate
        );
        assert!(new == expected || sent.kind == 4, "{sent:?}: {new:?}, foretold {:?}", foretold.fate);
    }
}

/// What each port has dropped, by reason.
fn drops(counters: &[crate::datapath::Counters]) -> Vec<(u32, DropReason, u64)> {
    let of = |(port, counters): (u32, &crate::datapath::Counters)| {
        DropReason::ALL.map(|reason| (port, reason, counters.drops(reason)))
    };
    (0..).zip(counters).flat_map(of).filter(|(.., count)| *count > 0).collect()
}

#[test]
fn what_is_foretold_of_any_frame_is_what_happens_with_any_number_of_workers() {
    for workers in [1, 2] {
        let plane = plane(workers);
        // The gateways know their neighbours, so that no packet waits for one.
        for (port, source, from, to) in [(0, 0, 0, 5), (1, 1, 1, 5), (3, 3, 3, 5), (WAN, 4, 8, 6)] {
            let (tag, ports) = (None, (0, 0));
            let hello = Sent { port, source, destination: 7, tag, from, to, ports, ttl: 64, kind: 4, length: 0 };
            assert!(plane.far[port as usize][0].push(&hello.bytes(), Offload::default()));
            plane.settle(&[port as usize]);
        }
        plane.left();
        let mut runner = TestRunner::new(Config { cases: 20, failure_persistence: None, ..Config::default() });
        let frame = (sent(), 0..workers);
        let held = runner.run(&frame, |(sent, worker)| {
            plane.hold(&sent, worker);
            Ok(())
        });
        held.unwrap_or_else(|wrong| panic!("{workers} workers: {wrong}"));
    }
}
