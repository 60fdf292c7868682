//! What translating one packet costs, and what one session costs: `cargo bench -p nat --bench translate`.
//!
//! - `outbound/N`, `inbound/N`: packets of all N sessions of the table in random order, the worst case for caches, decided about and
//!   rewritten, 64 at a time as in the switch. Time goes on by a microsecond a packet.
//! - `outbound-busy/N`, `inbound-busy/N`: as many sessions, of which 1,000 at random have all the packets.
//! - `first/N`: packets that begin a session and end another, in a full table of N.
#![allow(missing_docs)]

use std::hint::black_box;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use etherparse::PacketBuilder;
use nat::{Direction, Nat, Settings};
use packet::{IpPacket, IpVersion, Offload};

/// Sessions of one container's port.
const REMOTES: u32 = 50;
/// Packets that come at a time.
const BATCH: usize = 64;

struct Traffic {
    nat: Nat,
    now: Instant,
    sessions: u32,
    busy: Vec<u32>,
    random: u32,
    /// By [`Direction`].
    frames: [Vec<u8>; 2],
    batch: Vec<(IpPacket, Vec<u8>)>,
}

fn frame(from: [u8; 4], to: [u8; 4]) -> Vec<u8> {
    let mut frame = Vec::new();
    let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4(from, to, 64).udp(5000, 80);
    builder.write(&mut frame, &[0; 18]).unwrap_or_default();
    frame
}

impl Traffic {
    fn new(sessions: u32, replied: bool) -> Self {
        let settings = Settings { sessions: sessions.max(1000), sessions_per_source: Some(sessions), ..Settings::default() };
        let mut nat = Nat::new(settings, 1);
        nat.set_addresses(&[[192, 0, 2, 1].into()]);
        let frames = [frame([198, 51, 0, 0], [192, 0, 2, 1]), frame([10, 0, 0, 0], [198, 51, 0, 0])];
        let mut traffic = Self { nat, now: Instant::now(), sessions, busy: Vec::new(), random: 1, frames, batch: Vec::new() };
        for number in 0..sessions {
            traffic.pass(Direction::Outbound, [number].into_iter());
            if replied {
                traffic.pass(Direction::Inbound, [number].into_iter());
            }
        }
        traffic.busy = (0..1000).map(|_| traffic.next()).collect();
        assert_eq!(traffic.nat.counters().sessions, u64::from(sessions));
        traffic
    }

    /// The number of a container's port and of a remote.
    fn ends(number: u32) -> ([u8; 2], u16, [u8; 2]) {
        let (inside, remote) = (number / REMOTES, number % REMOTES);
        let port = 2000 + u16::try_from(inside % 60_000).unwrap_or_default();
        let [_, _, high, low] = remote.to_be_bytes();
        ([0, u8::try_from(inside / 60_000 + 1).unwrap_or_default()], port, [high, low])
    }

    fn next(&mut self) -> u32 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 17;
        self.random ^= self.random << 5;
        self.now += Duration::from_micros(1);
        u32::try_from((u64::from(self.random) * u64::from(self.sessions)) >> 32).unwrap_or_default()
    }

    /// Translates a batch with a packet of each of these sessions.
    fn pass(&mut self, direction: Direction, numbers: impl Iterator<Item = u32>) {
        let Self { nat, now, frames, batch, .. } = self;
        let template = &frames[direction as usize];
        let mut count = 0;
        for number in numbers {
            if batch.len() == count {
                batch.push((packet(template, [0; 2], [0; 2]), template.clone()));
            }
            let (packet, frame) = &mut batch[count];
            frame.copy_from_slice(template);
            *packet = match direction {
                Direction::Outbound => outbound(frame, number),
                Direction::Inbound => inbound(frame, number),
            };
            count += 1;
        }
        let batch = &mut batch[..count];
        nat.prefetch(direction, batch.iter().map(|(packet, frame)| (*packet, &frame[..])));
        for (packet, frame) in batch {
            let rewrite = match direction {
                Direction::Outbound => nat.outbound(*now, packet, frame).ok(),
                Direction::Inbound => nat.inbound(*now, packet, frame).ok().flatten(),
            };
            if let Some(rewrite) = rewrite {
                rewrite.apply(black_box(frame), 14, &Offload::default());
            }
        }
    }

    /// The sessions of the next batch, from all of them or from the busy ones.
    fn draw(&mut self, busy: bool) -> [u32; BATCH] {
        std::array::from_fn(|_| {
            let number = self.next();
            if busy { self.busy[number as usize % 1000] } else { number }
        })
    }
}

fn outbound(frame: &mut [u8], number: u32) -> IpPacket {
    let (host, port, remote) = Traffic::ends(number);
    frame[28..30].copy_from_slice(&host);
    frame[32..34].copy_from_slice(&remote);
    frame[34..36].copy_from_slice(&port.to_be_bytes());
    packet(frame, host, remote)
}

fn inbound(frame: &mut [u8], number: u32) -> IpPacket {
    let (_, port, remote) = Traffic::ends(number);
    frame[28..30].copy_from_slice(&remote);
    frame[34..36].copy_from_slice(&80_u16.to_be_bytes());
    frame[36..38].copy_from_slice(&port.to_be_bytes());
    packet_in(frame, remote)
}

/// The parsed packet of a frame whose addresses were just changed; the header's checksum is not what is measured.
fn packet(frame: &[u8], host: [u8; 2], remote: [u8; 2]) -> IpPacket {
    let source: SocketAddr = ([10, 0, host[0], host[1]], 0).into();
    let destination: SocketAddr = ([198, 51, remote[0], remote[1]], 0).into();
    of(frame, source, destination)
}

fn packet_in(frame: &[u8], remote: [u8; 2]) -> IpPacket {
    of(frame, ([198, 51, remote[0], remote[1]], 0).into(), ([192, 0, 2, 1], 0).into())
}

fn of(frame: &[u8], source: SocketAddr, destination: SocketAddr) -> IpPacket {
    IpPacket {
        source: source.ip(),
        destination: destination.ip(),
        version: IpVersion::V4,
        network: 14,
        protocol: 17,
        transport: 34,
        end: frame.len(),
        hop_limit: 64,
        fragment: None,
        dont_fragment: false,
    }
}

fn known(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("known");
    group.throughput(Throughput::Elements(BATCH as u64));
    for sessions in [1_000, 10_000, 100_000, 1_000_000] {
        let before = resident();
        let mut traffic = Traffic::new(sessions, true);
        println!("{sessions} sessions: {} bytes each", (resident() - before) / u64::from(sessions));
        let (out, back) = (Direction::Outbound, Direction::Inbound);
        for (name, direction, busy) in
            [("outbound", out, false), ("inbound", back, false), ("outbound-busy", out, true), ("inbound-busy", back, true)]
        {
            group.bench_function(BenchmarkId::new(name, sessions), |bencher| {
                bencher.iter(|| {
                    let numbers = traffic.draw(busy);
                    traffic.pass(direction, numbers.into_iter());
                });
            });
        }
    }
    group.finish();
}

fn first(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("first");
    group.throughput(Throughput::Elements(1));
    for sessions in [1_000, 1_000_000] {
        let mut traffic = Traffic::new(sessions, false);
        let mut number = sessions;
        group.bench_function(BenchmarkId::from_parameter(sessions), |bencher| {
            bencher.iter(|| {
                number = (number + 1) % (60_000 * REMOTES);
                traffic.pass(Direction::Outbound, [number].into_iter());
            });
        });
        assert!(traffic.nat.counters().evicted > 0);
    }
    group.finish();
}

/// Bytes of memory that the process has touched.
fn resident() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    pages.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or_default() * 4096
}

criterion_group!(benches, known, first);
criterion_main!(benches);
