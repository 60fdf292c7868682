//! Any frames to a `host` uplink, which speaks by the host's own sockets: it goes on, and what it says are frames that parse.
//!
//! It is in a network namespace of its own, where everything is this machine, and a server of TCP and one of UDP answer on port 80. An input
//! is a row of packets: what it is, its length in two bytes, and its bytes.
#![no_main]

use std::io::{IoSlice, Read, Write};
use std::net::{TcpListener, UdpSocket};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};

use etherparse::PacketBuilder;
use libfuzzer_sys::fuzz_target;
use packet::{Batch, Ethernet, IpPacket, Mac, Packet};
use plane::device::Device;
use sys::netns;
use vswitch::confine::Confinement;
use vswitch::host::{self, Capacity, Gateway, HostUplink, Settings};

const ROUTER: Mac = Mac([2, 0, 0, 0, 0, 1]);
const HOST: Mac = Mac([2, 0, 0, 0, 0, 2]);

struct Bench {
    _uplink: HostUplink,
    device: Box<dyn Device>,
    batch: Batch,
    /// The acknowledgment that the last segment asks for.
    next: u32,
}

static BENCH: LazyLock<Mutex<Bench>> = LazyLock::new(|| Mutex::new(Bench::new()));

/// Everything in the namespace is local, so that nothing leaves it.
fn local() {
    netns::unshare().expect("the host target needs root, or `unshare -r`");
    let lines = "ip link set lo up; ip route add local 198.51.100.0/24 dev lo; ip route add local 2001:db8::/32 dev lo";
    assert!(std::process::Command::new("sh").args(["-c", lines]).status().unwrap().success());
    let tcp = TcpListener::bind("[::]:80").unwrap();
    std::thread::spawn(move || {
        for stream in tcp.incoming().flatten() {
            std::thread::spawn(move || echo(stream));
        }
    });
    let udp = UdpSocket::bind("[::]:80").unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok((length, from)) = udp.recv_from(&mut buffer) {
            let _ = udp.send_to(&buffer[..length], from);
        }
    });
}

fn echo(mut stream: std::net::TcpStream) {
    let _ = stream.set_read_timeout(Some(Duration::from_secs(1)));
    let mut buffer = [0; 2048];
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        if stream.write_all(&buffer[..length]).is_err() {
            return;
        }
    }
}

impl Bench {
    fn new() -> Self {
        local();
        let capacity = Capacity { tcp: 32, udp: 32, echo: 8 };
        // As in production: it takes the longest packets, and the stations' link does not.
        let settings = Settings { name: "host".to_owned(), mac: HOST, router: ROUTER, mtu: 65_535, capacity, sandbox: Confinement::off(), inherited: Arc::default(), holds: false };
        let (uplink, device) = host::open(settings).unwrap();
        let gateways = ["10.10.0.1/24", "fd10::1/64"].map(|address| Gateway { address: address.parse().unwrap(), mtu: 1500 });
        uplink.set_gateways(gateways.to_vec()).unwrap();
        Self { _uplink: uplink, device, batch: Batch::new(), next: 0 }
    }

    /// Reads what the uplink says for a little while; what it acknowledges and sends is for later segments to use.
    fn hear(&mut self, patience: Duration) {
        let end = Instant::now() + patience;
        while Instant::now() < end {
            self.device.receive(&mut self.batch);
            for frame in self.batch.frames() {
                let ethernet = Ethernet::parse(frame.bytes()).unwrap();
                assert_eq!((ethernet.source, ethernet.destination), (HOST, ROUTER));
                let packet = IpPacket::parse(frame.bytes(), &ethernet).expect("it says whole packets");
                if packet.protocol == packet::protocol::TCP {
                    let sequence = &frame.bytes()[packet.transport + 4..packet.transport + 8];
                    self.next = u32::from_be_bytes(sequence.try_into().unwrap()).wrapping_add(1);
                }
                // What the station's link takes, unless it is still to be cut.
                assert!(frame.offload.gso.is_some() || packet.end - packet.network <= 1500);
            }
            let heard = !self.batch.frames().is_empty();
            self.batch.clear();
            if heard {
                return;
            }
        }
    }

    fn send(&mut self, frame: &[u8]) {
        self.device.send(&Packet::whole(&[IoSlice::new(frame)]));
        self.device.flush();
    }

    fn packet(&self, kind: u8, bytes: &[u8]) -> Vec<u8> {
        let [port, flags, a, b, payload @ ..] = bytes else { return bytes.to_vec() };
        let (own, other) = (u16::from(*port % 4) + 5000, if flags & 0x80 == 0 { 80 } else { 81 });
        let ethernet = PacketBuilder::ethernet2(ROUTER.0, HOST.0);
        let ip = match kind & 8 {
            0 => ethernet.ipv4([10, 10, 0, 2], [198, 51, 100, a % 8], 64),
            _ => ethernet.ipv6(
                "fd10::2".parse::<std::net::Ipv6Addr>().unwrap().octets(),
                [0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, *a],
                64,
            ),
        };
        let mut frame = Vec::new();
        match kind % 4 {
            0 => {
                let mut tcp = ip.tcp(own, other, u32::from(*b), 512);
                tcp = if flags & 2 != 0 { tcp.syn() } else { tcp.ack(self.next) };
                tcp = if flags & 1 != 0 { tcp.fin() } else { tcp };
                tcp = if flags & 0x24 == 0x24 { tcp.rst() } else { tcp };
                tcp.write(&mut frame, payload).unwrap();
            }
            1 => ip.udp(own, other).write(&mut frame, payload).unwrap(),
            2 if kind & 8 == 0 => ip.icmpv4_echo_request(own, u16::from(*b)).write(&mut frame, payload).unwrap(),
            2 => ip.icmpv6_echo_request(own, u16::from(*b)).write(&mut frame, payload).unwrap(),
            _ => {
                frame.extend([HOST.0, ROUTER.0].concat());
                frame.extend(if kind & 8 == 0 { [8, 0] } else { [0x86, 0xdd] });
                frame.extend(bytes);
            }
        }
        frame
    }
}

fuzz_target!(|input: &[u8]| {
    let mut bench = BENCH.lock().unwrap();
    let mut rest = input;
    while let [kind, high, low, more @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(more.len());
        let frame = bench.packet(*kind, &more[..length]);
        if frame.len() <= 1514 {
            bench.send(&frame);
        }
        bench.hear(Duration::from_micros(if kind & 0x40 == 0 { 50 } else { 500 }));
        rest = &more[length..];
    }
    assert!(bench._uplink.counters().is_ok(), "the uplink goes on");
});
