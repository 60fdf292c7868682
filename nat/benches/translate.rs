//! What translating one packet costs, and what one session costs: `cargo bench -p nat --bench translate`.
//!
//! - `outbound/N`, `inbound/N`: packets of all N sessions of the table in random order, the worst case for caches, decided about and
//!   rewritten. Time goes on by a microsecond a packet.
//! - `outbound-busy/N`, `inbound-busy/N`: as many sessions, of which 1,000 at random have all the packets.
//! - `first/N`: packets that begin a session and end another, in a full table of N.
#![allow(missing_docs)]

use std::hint::black_box;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use etherparse::PacketBuilder;
use nat::{Nat, Settings};
use packet::{IpPacket, IpVersion, Offload};

/// Sessions of one container's port.
const REMOTES: u32 = 50;

struct Traffic {
    nat: Nat,
    now: Instant,
    sessions: u32,
    busy: Vec<u32>,
    random: u32,
    outbound: Vec<u8>,
    inbound: Vec<u8>,
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
        let (outbound, inbound) = (frame([10, 0, 0, 0], [198, 51, 0, 0]), frame([198, 51, 0, 0], [192, 0, 2, 1]));
        let mut traffic = Self { nat, now: Instant::now(), sessions, busy: Vec::new(), random: 1, outbound, inbound };
        for number in 0..sessions {
            traffic.send(number);
            if replied {
                traffic.receive(number);
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

    fn send(&mut self, number: u32) {
        let (host, port, remote) = Self::ends(number);
        self.outbound[28..30].copy_from_slice(&host);
        self.outbound[32..34].copy_from_slice(&remote);
        self.outbound[34..36].copy_from_slice(&port.to_be_bytes());
        let packet = packet(&self.outbound, host, remote);
        if let Ok(rewrite) = self.nat.outbound(self.now, &packet, &self.outbound) {
            rewrite.apply(black_box(&mut self.outbound), 14, &Offload::default());
        }
        self.outbound[26..28].copy_from_slice(&[10, 0]);
    }

    fn receive(&mut self, number: u32) {
        let (_, port, remote) = Self::ends(number);
        self.inbound[28..30].copy_from_slice(&remote);
        self.inbound[30..34].copy_from_slice(&[192, 0, 2, 1]);
        self.inbound[34..36].copy_from_slice(&80_u16.to_be_bytes());
        self.inbound[36..38].copy_from_slice(&port.to_be_bytes());
        let packet = packet_in(&self.inbound, remote);
        if let Ok(Some(rewrite)) = self.nat.inbound(self.now, &packet, &self.inbound) {
            rewrite.apply(black_box(&mut self.inbound), 14, &Offload::default());
        }
    }
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
    group.throughput(Throughput::Elements(1));
    for sessions in [1_000, 10_000, 100_000, 1_000_000] {
        let before = resident();
        let mut traffic = Traffic::new(sessions, true);
        println!("{sessions} sessions: {} bytes each", (resident() - before) / u64::from(sessions));
        for (name, inbound, busy) in
            [("outbound", false, false), ("inbound", true, false), ("outbound-busy", false, true), ("inbound-busy", true, true)]
        {
            group.bench_function(BenchmarkId::new(name, sessions), |bencher| {
                bencher.iter(|| {
                    let number = traffic.next();
                    let number = if busy { traffic.busy[number as usize % 1000] } else { number };
                    if inbound { traffic.receive(number) } else { traffic.send(number) }
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
                traffic.send(number);
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
