//! Messages to the gateway's services and to the DHCP client of an uplink: DHCP in both versions, router solicitations, names over UDP and
//! TCP, ARP; and what resolvers say. Whatever comes, each is answered with frames that parse, and time goes on.
//!
//! An input is a row of steps: what it is, its length in two bytes, and its bytes.
#![no_main]

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use etherparse::PacketBuilder;
use libfuzzer_sys::fuzz_target;
use packet::{Ethernet, Mac};
use vswitch::services::{LeasedUplink, Link, Member, Output, Punt, Query, Services};

const GATEWAY: Mac = Mac([2, 0, 0, 0, 0, 1]);
const STATION: Mac = Mac([2, 0, 0, 0, 1, 9]);
const WAN: Mac = Mac([2, 0, 0, 0, 0, 99]);

fn link() -> Link {
    let member = |port: &str, mac, addresses: &[&str]| Member {
        port: port.parse().unwrap(),
        names: vec!["alias".to_owned()],
        mac,
        addresses: addresses.iter().map(|net| net.parse().unwrap()).collect(),
    };
    Link {
        bridge: "br0".parse().unwrap(),
        mtu: 1500,
        mac: GATEWAY,
        addresses: vec!["10.10.0.1/28".parse().unwrap(), "fd10::1/64".parse().unwrap()],
        dhcp: true,
        advertises: true,
        members: vec![member("web", None, &["10.10.0.2/28", "fd10::2/64"]), member("db", Some(STATION), &[])],
        elsewhere: None,
    }
}

/// A datagram around `payload`.
fn udp((from, to): (&str, &str), (source, destination): (Mac, Mac), payload: &[u8]) -> Vec<u8> {
    let (from, to): (SocketAddr, SocketAddr) = (from.parse().unwrap(), to.parse().unwrap());
    let ethernet = PacketBuilder::ethernet2(source.0, destination.0);
    let ip = match (from.ip(), to.ip()) {
        (std::net::IpAddr::V4(from), std::net::IpAddr::V4(to)) => ethernet.ipv4(from.octets(), to.octets(), 64),
        (std::net::IpAddr::V6(from), std::net::IpAddr::V6(to)) => ethernet.ipv6(from.octets(), to.octets(), 64),
        _ => unreachable!(),
    };
    let mut frame = Vec::new();
    ip.udp(from.port(), to.port()).write(&mut frame, payload).unwrap();
    frame
}

/// A message of ICMPv6 with a right checksum.
fn icmp6(message: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    let word = message.get(4..8).and_then(|bytes| bytes.try_into().ok()).unwrap_or_default();
    let ip = PacketBuilder::ethernet2(STATION.0, GATEWAY.0).ipv6(STATION.link_local().octets(), [0xff; 16], 255);
    let builder = ip.icmpv6_raw(message.first().copied().unwrap_or(133), 0, word);
    builder.write(&mut frame, message.get(8..).unwrap_or_default()).unwrap();
    frame
}

/// What comes to the client of the uplink is an answer to the last thing that it said.
fn to_client(payload: &[u8], said: &[u8]) -> Vec<u8> {
    let mut message = payload.to_vec();
    if let (Some(place), Some(number)) = (message.get_mut(4..8), said.get(42 + 4..42 + 8)) {
        place.copy_from_slice(number);
    }
    if let Some(place) = message.get_mut(28..34) {
        place.copy_from_slice(&WAN.0);
    }
    udp(("192.0.2.1:67", "255.255.255.255:68"), (STATION, WAN), &message)
}

struct Bench {
    services: Services,
    now: Duration,
    /// What the client of the uplink said last.
    said: Vec<u8>,
    asked: Vec<Query>,
}

impl Bench {
    fn new() -> Self {
        let now = Duration::from_secs(1_700_000_000);
        // Nothing is kept there.
        let mut services = Services::new(Path::new("/nonexistent"), 1);
        services.set_link(now, link());
        services.set_uplinks(now, &[LeasedUplink { name: "wan".parse().unwrap(), mac: WAN }]);
        let mut bench = Self { services, now, said: Vec::new(), asked: Vec::new() };
        let outputs = bench.services.tick(now);
        bench.take(outputs);
        bench
    }

    fn take(&mut self, outputs: Vec<Output>) {
        assert!(outputs.len() < 200, "one frame has so many answers");
        for output in outputs {
            match output {
                Output::Answer(answer) => drop(Ethernet::parse(&answer.frame).unwrap()),
                Output::Uplink(_, frame) => self.said = frame,
                Output::Changed(..) | Output::Leases(_) | Output::Usage(_) => {}
                Output::Ask(query) => self.asked.push(query),
            }
        }
    }

    fn step(&mut self, kind: u8, bytes: &[u8]) {
        let mut frame = |frame: Vec<u8>| {
            let port = if kind & 0x80 == 0 { "db" } else { "web" }.parse().unwrap();
            let punt = Punt { bridge: "br0".parse().unwrap(), port, vlan: None, frame };
            self.services.receive(self.now, &punt)
        };
        let outputs = match kind % 10 {
            0 => frame(udp(("0.0.0.0:68", "255.255.255.255:67"), (STATION, Mac::BROADCAST), bytes)),
            1 => frame(udp(("[fe80::9]:546", "[ff02::1:2]:547"), (STATION, GATEWAY), bytes)),
            2 => frame(udp(("10.10.0.9:4000", "10.10.0.1:53"), (STATION, GATEWAY), bytes)),
            3 => frame(udp(("[fd10::9]:4000", "[fd10::1]:53"), (STATION, GATEWAY), bytes)),
            4 => frame(icmp6(bytes)),
            5 => frame(bytes.to_vec()),
            6 => {
                let frame = to_client(bytes, &self.said);
                self.services.receive_uplink(self.now, &"wan".parse().unwrap(), &frame)
            }
            7 => self.services.receive_uplink(self.now, &"wan".parse().unwrap(), bytes),
            8 => {
                let tenths = bytes.first().copied().unwrap_or(1);
                self.now += Duration::from_millis(100) * u32::from(tenths) * u32::from(tenths);
                let mut outputs = self.services.hurry(self.now);
                outputs.extend(self.services.tick(self.now));
                outputs
            }
            _ => match self.asked.pop() {
                Some(query) => self.services.resolved(self.now, &query, Some(bytes.to_vec()).filter(|bytes| bytes.len() != 1)),
                None => Vec::new(),
            },
        };
        self.take(outputs);
    }
}

fuzz_target!(|input: &[u8]| {
    let (mut bench, mut rest) = (Bench::new(), input);
    while let [kind, high, low, more @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(more.len());
        bench.step(*kind, &more[..length]);
        rest = &more[length..];
    }
});
