//! What one frame costs, without any device: `cargo bench -p vswitch --bench datapath`.
//!
//! - `unicast/N`: batches of 64-byte frames between random stations of N on 64 ports, from the receiving to the gathered frame; the
//!   ratio of N = 100,000 to N = 100 is what the size of the FDB costs.
//! - `flood`: one broadcast frame to 64 ports.
//! - `nat/outbound/N`, `nat/inbound/N`: batches of 64-byte UDP packets through the gateway and the NAT of an uplink, of all N sessions in
//!   random order; the ratio of N = 1,000,000 to N = 1,000 is what the size of the session table costs.
//! - `super-frame`: one 64 KiB TCP super-frame to a port that takes it, and to one that does not.
#![allow(missing_docs)]

use std::hint::black_box;
use std::time::Instant;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use etherparse::PacketBuilder;
use packet::{Batch, Capabilities, Checksum, Egress, Gso, GsoKind, Mac, Offload, Queued, TagEdit, VlanId};
use plane::datapath::{BridgeId, BridgeSettings, Datapath, GatewaySettings, Outputs, PortId, PortSettings, Side, Translation};

const PORTS: u32 = 64;

fn station(number: u64) -> Mac {
    Mac::from_u64(0x0200_0000_0000 + number)
}

fn frame(source: Mac, destination: Mac) -> [u8; 60] {
    let mut bytes = [0; 60];
    bytes[..6].copy_from_slice(&destination.0);
    bytes[6..12].copy_from_slice(&source.0);
    bytes[12..15].copy_from_slice(&[0x08, 0x00, 0x45]);
    bytes
}

fn bridge_settings() -> BridgeSettings {
    BridgeSettings { max_macs: 1 << 17, ..BridgeSettings::default() }
}

/// A bridge that knows `stations` addresses, spread over its ports.
fn bridge(now: Instant, stations: u64) -> Datapath {
    let mut datapath = Datapath::new(now, 1);
    datapath.set_bridge(now, BridgeId(0), bridge_settings());
    for port in 0..PORTS {
        datapath.set_port(PortId(port), &PortSettings::on(BridgeId(0)));
    }
    let (mut batch, mut outputs) = (Batch::new(), Outputs::new());
    for number in 0..stations {
        batch.set_ingress(port_of(number).0);
        batch.push(&frame(station(number), Mac([0x33, 0x33, 0, 0, 0, 1])), Offload::default());
        datapath.forward(now, &mut batch, &mut outputs);
        outputs.clear();
        batch.clear();
    }
    datapath.take_news();
    datapath
}

fn port_of(number: u64) -> PortId {
    PortId(u32::try_from(number % u64::from(PORTS)).unwrap_or(0))
}

/// Batches of frames from the stations of one port to stations of others, in no order.
fn batches(stations: u64, count: usize) -> Vec<(PortId, Vec<[u8; 60]>)> {
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    (0..count)
        .map(|_| {
            let ingress = next() % u64::from(PORTS);
            let mut batch = Vec::new();
            while batch.len() < Batch::FRAMES {
                let per_port = stations / u64::from(PORTS);
                let source = ingress + next() % per_port.max(1) * u64::from(PORTS);
                let destination = next() % stations;
                if port_of(destination) != port_of(ingress) {
                    batch.push(frame(station(source), station(destination)));
                }
            }
            (port_of(ingress), batch)
        })
        .collect()
}

/// Forwards a batch and gathers every frame for its device.
fn breathe(datapath: &mut Datapath, now: Instant, batch: &mut Batch, outputs: &mut Outputs, egress: &mut Egress) {
    datapath.forward(now, batch, outputs);
    outputs.act(batch);
    let mut queue = Vec::with_capacity(Batch::FRAMES);
    for port in outputs.used() {
        queue.clear();
        queue.extend(outputs.queue(*port).iter().map(|departure| Queued {
            frame: &batch.frames()[departure.frame],
            edit: departure.edit,
            peer: 0,
        }));
        egress.run(&queue, Capabilities::ALL, &mut |packet| {
            black_box(packet);
        });
    }
    outputs.clear();
}

fn unicast(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("unicast");
    group.throughput(Throughput::Elements(Batch::FRAMES as u64));
    for stations in [100, 1_000, 10_000, 100_000] {
        let now = Instant::now();
        let mut datapath = bridge(now, stations);
        let batches = batches(stations, 512);
        let (mut batch, mut outputs, mut egress) = (Batch::new(), Outputs::new(), Egress::new());
        let mut turn = 0;
        group.bench_function(BenchmarkId::from_parameter(stations), |bencher| {
            bencher.iter(|| {
                let (from, frames) = &batches[turn % batches.len()];
                turn += 1;
                // As a device does, into buffers that are warm.
                batch.set_ingress(from.0);
                frames.iter().for_each(|frame| batch.push(frame, Offload::default()));
                breathe(&mut datapath, now, &mut batch, &mut outputs, &mut egress);
                batch.clear();
            });
        });
    }
    group.finish();
}

/// One station, the router behind an uplink, and sessions between them; port 0 and bridge 0 are inside.
struct Gateway {
    datapath: Datapath,
    now: Instant,
    sessions: u32,
    /// By side: a packet to the gateway there.
    packets: [Vec<u8>; 2],
    random: u32,
}

impl Gateway {
    const STATIONS: [([u8; 4], [u8; 4]); 2] = [([10, 0, 0, 1], [10, 0, 0, 2]), ([192, 0, 2, 1], [192, 0, 2, 254])];
    const REMOTE: [u8; 4] = [198, 51, 100, 1];

    fn new(sessions: u32) -> Self {
        let now = Instant::now();
        let mut datapath = Datapath::new(now, 1);
        let rules =
            nat::Settings { sessions: sessions.max(1000), sessions_per_source: Some(sessions), ..nat::Settings::default() };
        let gateways = vec![Self::STATIONS[1].1.into()];
        let sides = [
            Side::Inside { uplink: Some(BridgeId(1)), isolated: true, dhcp: false },
            Side::Outside { gateways, translation: Translation::Nat(Box::new(rules)) },
        ];
        for ((number, side), (own, _)) in (0..).zip(sides).zip(Self::STATIONS) {
            datapath.set_bridge(now, BridgeId(number), bridge_settings());
            datapath.set_port(PortId(number), &PortSettings::on(BridgeId(number)));
            let addresses = vec![format!("{}/24", std::net::Ipv4Addr::from(own)).parse().expect("an address")];
            let settings =
                GatewaySettings { mac: gateway(number), vlan: VlanId::DEFAULT, mtu: 1500, addresses, routes: Vec::new(), side };
            datapath.set_gateway(BridgeId(number), Some(settings));
        }
        let inwards = packet(1, Self::REMOTE, Self::STATIONS[1].0);
        let packets = [packet(0, Self::STATIONS[0].1, Self::REMOTE), inwards];
        let mut gateway = Self { datapath, now, sessions, packets, random: 1 };
        gateway.open();
        gateway
    }

    /// Makes the neighbours and the sessions known.
    fn open(&mut self) {
        let (mut batch, mut outputs) = (Batch::new(), Outputs::new());
        for (side, (own, station)) in (0..).zip(Self::STATIONS) {
            batch.set_ingress(side);
            batch.push(&arp_request(side, station, own), Offload::default());
            self.datapath.forward(self.now, &mut batch, &mut outputs);
            (batch, outputs) = (Batch::new(), Outputs::new());
        }
        for side in [0, 1] {
            for number in 0..self.sessions {
                self.push(&mut batch, side, number);
                self.datapath.forward(self.now, &mut batch, &mut outputs);
                let sent = outputs.used().len();
                assert_eq!(sent, 1, "packet {number} of side {side} is sent on");
                outputs.clear();
                batch.clear();
            }
        }
        let known = self.datapath.nat(BridgeId(1)).map(|nat| nat.counters().sessions);
        assert_eq!(known, Some(u64::from(self.sessions)));
    }

    /// A packet of a session, as it comes in on a side. Without a checksum (RFC 768), so that only the ports differ.
    fn push(&mut self, batch: &mut Batch, side: u32, number: u32) {
        let ports = [2000 + number / 50, 8000 + number % 50].map(|port| u16::try_from(port).unwrap_or(0).to_be_bytes());
        let [ours, theirs] = ports;
        let frame = &mut self.packets[side as usize];
        let (source, destination) = if side == 0 { (ours, theirs) } else { (theirs, ours) };
        frame[34..36].copy_from_slice(&source);
        frame[36..38].copy_from_slice(&destination);
        batch.set_ingress(side);
        batch.push(frame, Offload::default());
    }

    fn next(&mut self) -> u32 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 17;
        self.random ^= self.random << 5;
        u32::try_from((u64::from(self.random) * u64::from(self.sessions)) >> 32).unwrap_or(0)
    }
}

fn gateway(side: u32) -> Mac {
    Mac([2, 0xff, 0, 0, 0, u8::try_from(side).unwrap_or(0)])
}

fn packet(side: u32, from: [u8; 4], to: [u8; 4]) -> Vec<u8> {
    let mut frame = Vec::new();
    let builder = PacketBuilder::ethernet2(station(u64::from(side)).0, gateway(side).0).ipv4(from, to, 64).udp(1, 1);
    builder.write(&mut frame, &[0; 18]).expect("a packet");
    frame[40..42].fill(0);
    frame
}

fn arp_request(side: u32, from: [u8; 4], to: [u8; 4]) -> Vec<u8> {
    let mac = station(u64::from(side)).0;
    let head = [&[0xff; 6][..], &mac, &[0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1]].concat();
    [&head[..], &mac, &from, &[0; 6], &to].concat()
}

fn nat(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("nat");
    group.throughput(Throughput::Elements(Batch::FRAMES as u64));
    for sessions in [1_000, 1_000_000] {
        let mut gateway = Gateway::new(sessions);
        let (mut batch, mut outputs, mut egress) = (Batch::new(), Outputs::new(), Egress::new());
        for (side, name) in [(0, "outbound"), (1, "inbound")] {
            group.bench_function(BenchmarkId::new(name, sessions), |bencher| {
                bencher.iter(|| {
                    for _ in 0..Batch::FRAMES {
                        let number = gateway.next();
                        gateway.push(&mut batch, side, number);
                    }
                    breathe(&mut gateway.datapath, gateway.now, &mut batch, &mut outputs, &mut egress);
                    batch.clear();
                });
            });
        }
    }
    group.finish();
}

fn flood(criterion: &mut Criterion) {
    let now = Instant::now();
    let mut datapath = bridge(now, 100);
    let mut batch = Batch::new();
    batch.set_ingress(1);
    batch.push(&frame(station(1), Mac::BROADCAST), Offload::default());
    let (mut outputs, mut egress) = (Outputs::new(), Egress::new());
    criterion.bench_function("flood", |bencher| {
        bencher.iter(|| breathe(&mut datapath, now, &mut batch, &mut outputs, &mut egress));
    });
}

fn super_frame(criterion: &mut Criterion) {
    let mut bytes = [&station(2).0[..], &station(1).0, &[0x08, 0x00, 0x45, 0x00]].concat();
    bytes.resize(14 + 40 + 44 * 1448, 0);
    let total = u16::try_from(bytes.len() - 14).unwrap_or(0);
    bytes[16..18].copy_from_slice(&total.to_be_bytes());
    (bytes[23], bytes[46]) = (6, 5 << 4);
    let gso = Gso { kind: GsoKind::Tcp4, size: 1448.try_into().unwrap_or(std::num::NonZeroU16::MIN), ecn: false };
    let offload = Offload { checksum: Checksum::Partial { start: 34, offset: 16 }, gso: Some(gso) };
    let mut batch = Batch::new();
    batch.push(&bytes, offload);
    let mut egress = Egress::new();
    let mut group = criterion.benchmark_group("super-frame");
    group.throughput(Throughput::Bytes(bytes.len() as u64));
    for (name, capabilities) in [("whole", Capabilities::ALL), ("segmented", Capabilities::default())] {
        let queue = [Queued { frame: &batch.frames()[0], edit: TagEdit::Keep, peer: 0 }];
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                egress.run(&queue, capabilities, &mut |packet| {
                    black_box(packet.parts.len());
                })
            });
        });
    }
    group.finish();
}

criterion_group!(benches, unicast, nat, flood, super_frame);
criterion_main!(benches);
