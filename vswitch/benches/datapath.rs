//! What one frame costs, without any device: `cargo bench -p vswitch --bench datapath`.
//!
//! - `unicast/N`: batches of 64-byte frames between random stations of N on 64 ports, from the receiving to the gathered frame; the
//!   ratio of N = 100,000 to N = 100 is what the size of the FDB costs.
//! - `flood`: one broadcast frame to 64 ports.
//! - `super-frame`: one 64 KiB TCP super-frame to a port that takes it, and to one that does not.
#![allow(missing_docs)]

use std::hint::black_box;
use std::time::Instant;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use packet::{Batch, Capabilities, Checksum, Egress, Gso, GsoKind, Mac, Offload, Queued, TagEdit};
use vswitch::api::{ControlFrames, VlanMode};
use vswitch::datapath::{BridgeId, BridgeSettings, Datapath, Outputs, PortId, PortSettings};

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

/// A bridge that knows `stations` addresses, spread over its ports.
fn bridge(now: Instant, stations: u64) -> Datapath {
    let mut datapath = Datapath::new(now, 1);
    let settings = BridgeSettings { mtu: 1500, ageing: 300, max_macs: 1 << 17, control_frames: ControlFrames::Drop };
    datapath.set_bridge(now, BridgeId(0), settings);
    for port in 0..PORTS {
        let settings =
            PortSettings { bridge: BridgeId(0), vlans: VlanMode::All, guard: None, broadcast_limit: None, tunnel: None };
        datapath.set_port(now, PortId(port), &settings);
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

criterion_group!(benches, unicast, flood, super_frame);
criterion_main!(benches);
