//! Any frames on any ports, between changes of ports, bridges, gateways and uplinks, through the whole datapath and out again.
#![no_main]

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use packet::{Batch, Capabilities, Egress, Ethernet, Frame, IpPacket, Mac, Offload, Queued, VlanId};
use api::{ControlFrames, FrameRate, PortPolicy, VlanMode};
use plane::datapath::{
    BridgeId, BridgeSettings, Datapath, Departure, Errand, GatewaySettings, Guard, Outputs, PortId, PortSettings, Side, Translation,
};

#[derive(Arbitrary, Debug)]
enum Step {
    Frames(u8, Vec<(Vec<u8>, [u8; 10])>),
    /// Frames that are nearly right.
    Packets(u8, Vec<Near>),
    SetPort {
        port: u8,
        bridge: u8,
        vlan: u16,
        trunk: u16,
        guard: bool,
        limit: Option<u8>,
    },
    RemovePort(u8),
    SetBridge {
        bridge: u8,
        mtu: u16,
        macs: u8,
        pass: bool,
    },
    RemoveBridge(u8),
    SetGateway {
        bridge: u8,
        vlan: u16,
        uplink: Option<bool>,
        host: bool,
        on: bool,
    },
    SetForwards(Vec<(bool, bool, u8, u8, u8)>),
    Emit(u8, Vec<u8>),
    Wait(u16),
    Flush(u8),
    /// What came is handed over to, and routed by, another worker.
    Route(bool),
}

/// A frame of the parts that gateways care for.
#[derive(Arbitrary, Debug)]
struct Near {
    macs: (u8, u8),
    tag: Option<u16>,
    kind: u8,
    ends: (u8, u8),
    hops: u8,
    fragment: u16,
    extension: Option<u8>,
    protocol: u8,
    ports: (u8, u8),
    flags: u8,
    payload: Vec<u8>,
    filling: u16,
    offload: Option<(u8, u16)>,
    quote: bool,
}

const BRIDGES: u8 = 4;
/// Bridges 2 and 3 are uplinks; 0 and 1 are isolated.
const NAT: BridgeId = BridgeId(2);
const HOST: BridgeId = BridgeId(3);

fn mac(number: u8) -> Mac {
    match number % 16 {
        0 => Mac::BROADCAST,
        1 => Mac([0x33, 0x33, 0, 0, 0, 1]),
        2 => Mac([1, 0, 0x5e, 0, 0, 1]),
        3 => Mac::ZERO,
        // Gateways of bridges 0 to 3.
        number @ 4..8 => Mac([2, 0, 0, 0, 1, number - 4]),
        number => Mac([2, 0, 0, 0, 0, number]),
    }
}

fn v4(number: u8) -> [u8; 4] {
    match (number / 64, number % 64) {
        (3, 0) => [255; 4],
        (3, 1) => [224, 0, 0, 1],
        (3, 2) => [127, 0, 0, 1],
        (3, 3) => [0; 4],
        (3, 4) => [240, 0, 0, 1],
        (3, 5) => [169, 254, 0, 1],
        (3, host) => [198, 51, 100, host],
        (2, host) => [192, 0, 2, host],
        (bridge, 63) => [10, 0, bridge, 255],
        (bridge, host) => [10, 0, bridge, host],
    }
}

fn v6(number: u8) -> [u8; 16] {
    let text = match (number / 64, number % 64) {
        (3, 0) => "ff02::1".to_owned(),
        (3, 1) => "::".to_owned(),
        (3, 2) => "::1".to_owned(),
        (3, 3) => "::ffff:10.0.1.2".to_owned(),
        (3, 4) => "fe80::ff:fe00:100".to_owned(),
        (3, 5) => "ff02::1:ff00:1".to_owned(),
        (3, host) => format!("2001:db8:1::{host:x}"),
        (2, host) => format!("2001:db8::{host:x}"),
        (bridge, host) => format!("fd0{bridge}::{host:x}"),
    };
    text.parse::<std::net::Ipv6Addr>().unwrap().octets()
}

fn checksum(bytes: &mut [u8], from: usize, field: usize) {
    bytes[field..field + 2].fill(0);
    let sum = packet::checksum::Sum::new().plus(&bytes[from..]).checksum();
    bytes[field..field + 2].copy_from_slice(&sum.to_be_bytes());
}

impl Near {
    fn transport(&self, pseudo: &[u8]) -> (u8, Vec<u8>, usize) {
        let ports = [0, self.ports.0 % 8 + 60, 0, self.ports.1 % 16 + 56];
        let (number, mut bytes, field) = match self.protocol % 6 {
            0 => (17, [&ports[..], &[0; 4]].concat(), 6),
            1 => (6, [&ports[..], &[0; 8], &[0x50, self.flags, 0, 0, 0, 0, 0, 0]].concat(), 16),
            2 => (1, [&[self.flags % 16, self.ports.0 % 5, 0, 0], &ports[..]].concat(), 2),
            3 => (58, [&[self.flags, self.ports.0 % 5, 0, 0], &ports[..]].concat(), 2),
            // Neighbour discovery.
            4 => {
                let option = [&[2 - self.flags % 2, 1][..], &mac(self.ports.1).0].concat();
                (58, [&[135 + self.flags % 2, 0, 0, 0, self.flags, 0, 0, 0], &v6(self.ports.0)[..], &option].concat(), 2)
            }
            _ => (self.flags, Vec::new(), 0),
        };
        bytes.extend(&self.payload);
        bytes.resize(bytes.len() + usize::from(self.filling) % 9000, 7);
        if number == 17 && field > 0 {
            let length = u16::try_from(bytes.len()).unwrap_or(0).to_be_bytes();
            bytes[4..6].copy_from_slice(&length);
        }
        if field > 0 {
            let ends = if number == 1 { &[][..] } else { pseudo };
            let [high, low] = u16::try_from(bytes.len()).unwrap_or(0).to_be_bytes();
            let tail = if ends.is_empty() { vec![] } else { vec![0, number, high, low] };
            let mut whole = [ends, &tail, &bytes].concat();
            let front = ends.len() + tail.len();
            if self.offload.is_some() {
                let sum = packet::checksum::Sum::new().plus(&whole[..front]).folded();
                bytes[field..field + 2].copy_from_slice(&sum.to_be_bytes());
            } else {
                checksum(&mut whole, 0, front + field);
                bytes = whole[front..].to_vec();
            }
        }
        (number, bytes, field)
    }

    fn build(&self, depth: bool) -> (Vec<u8>, Offload) {
        let mut frame = [mac(self.macs.0).0, mac(self.macs.1).0].concat();
        if let Some(tag) = self.tag {
            frame.extend([0x81, 0]);
            frame.extend((tag & 0xf003).to_be_bytes());
        }
        let field = match self.kind % 3 {
            0 => {
                frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1 + self.flags % 2]);
                frame.extend([&mac(self.macs.1).0[..], &v4(self.ends.0), &mac(self.macs.0).0, &v4(self.ends.1)].concat());
                None
            }
            1 => {
                let ends = [v4(self.ends.0), v4(self.ends.1)].concat();
                let (protocol, transport, field) = self.quoting(depth, &ends);
                let length = u16::try_from(transport.len() + 20).unwrap_or(0).to_be_bytes();
                let fragment = (self.fragment & 0xe003).to_be_bytes();
                frame.extend([8, 0]);
                let network = frame.len();
                frame.extend([0x45, 0, length[0], length[1], 0, 1, fragment[0], fragment[1], self.hops, protocol, 0, 0]);
                frame.extend(&ends);
                checksum(&mut frame, network, network + 10);
                frame.extend(&transport);
                Some((network + 20, field))
            }
            _ => {
                let ends = [v6(self.ends.0), v6(self.ends.1)].concat();
                let (protocol, transport, field) = self.quoting(depth, &ends);
                let bits = (self.fragment & 0x19).to_be_bytes();
                let extension = self.extension.map(|_| [protocol, 0, bits[0], bits[1], 0, 0, 0, 1]);
                let extension = extension.as_ref().map_or(&[][..], |bytes| &bytes[..]);
                let length = u16::try_from(transport.len() + extension.len()).unwrap_or(0).to_be_bytes();
                let next = self.extension.map_or(protocol, |kind| [44, 0, 43, 60][usize::from(kind % 4)]);
                frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, length[0], length[1], next, self.hops]);
                frame.extend(&ends);
                frame.extend(extension);
                let start = frame.len();
                frame.extend(&transport);
                Some((start, field))
            }
        };
        let header = self.offload.zip(field).map(|((gso, size), (start, field))| {
            let (start, field) =
                (u16::try_from(start).unwrap_or(0).to_ne_bytes(), u16::try_from(field).unwrap_or(0).to_ne_bytes());
            let size = size.to_ne_bytes();
            [1, [0, 1, 4, 5][usize::from(gso % 4)], 0, 0, size[0], size[1], start[0], start[1], field[0], field[1]]
        });
        let offload = header.and_then(|header| Offload::decode(header, frame.len()).ok()).unwrap_or_default();
        (frame, offload)
    }

    /// The transport, with another packet behind it where an ICMP error quotes one.
    fn quoting(&self, depth: bool, pseudo: &[u8]) -> (u8, Vec<u8>, usize) {
        if !(self.quote && depth) {
            return self.transport(pseudo);
        }
        let quoted = Self { ends: (self.ends.1, self.ends.0), ports: (self.ports.1, self.ports.0), ..self.copy() };
        let (frame, _) = Self { protocol: self.protocol / 6, tag: None, ..quoted }.build(false);
        let payload = frame.get(14..).unwrap_or_default().iter().take(600).copied().collect();
        let protocol = if self.kind % 3 == 1 { 2 } else { 3 };
        Self { protocol, payload, filling: 0, ..self.copy() }.transport(pseudo)
    }

    fn copy(&self) -> Self {
        Self { payload: self.payload.clone(), ..*self }
    }
}

fn gateway(bridge: u8, vlan: u16, uplink: Option<bool>, host: bool) -> GatewaySettings {
    let nets = |texts: [String; 2]| texts.iter().map(|text| text.parse().unwrap()).collect();
    let (addresses, side) = match bridge {
        0 | 1 => {
            let uplink = uplink.map(|host| if host { HOST } else { NAT });
            (nets([format!("10.0.{bridge}.1/24"), format!("fd0{bridge}::1/64")]), Side::Inside { uplink, isolated: true, dhcp: true })
        }
        2 => {
            let gateways = vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
            let settings = nat::Settings { sessions: 64, sessions_per_source: Some(32), ..nat::Settings::default() };
            let translation = if host { Translation::Host(mac(9)) } else { Translation::Nat(Box::new(settings)) };
            (nets(["192.0.2.10/24".into(), "2001:db8::a/64".into()]), Side::Outside { gateways, translation })
        }
        _ => (Vec::new(), Side::Outside { gateways: Vec::new(), translation: Translation::Host(mac(9)) }),
    };
    let vlan = VlanId::try_from(vlan).unwrap_or(VlanId::DEFAULT);
    GatewaySettings { mac: mac(4 + bridge), vlan, mtu: if bridge == 2 { 1280 } else { 1500 }, addresses, routes: Vec::new(), side }
}

struct Bench {
    datapath: Datapath,
    now: Instant,
    batch: Batch,
    outputs: Outputs,
    /// The bridge of each port.
    ports: BTreeMap<u8, u8>,
    /// Whether what is received is routed at once, or as if another worker had it.
    routes: bool,
}

impl Bench {
    fn forward(&mut self, port: u8) {
        if self.routes {
            self.datapath.forward(self.now, &mut self.batch, &mut self.outputs);
        } else {
            let errands = vec![Errand::Decide; self.batch.frames().len()];
            self.datapath.route(self.now, &mut self.batch, &errands, &mut self.outputs);
        }
        assert!(self.batch.frames().len() <= Batch::MOST, "answers are bounded");
        for punt in self.datapath.take_punts() {
            assert_eq!(Some(u32::from(self.ports[&port])), Some(punt.bridge.0));
        }
        self.leave(Some(port));
    }

    /// Sends what the outputs hold, as a worker does.
    fn leave(&mut self, ingress: Option<u8>) {
        let before: Vec<bool> = self.batch.frames().iter().map(is_right).collect();
        self.outputs.act(&mut self.batch);
        let frames = self.batch.frames();
        let from = ingress.and_then(|port| self.ports.get(&port));
        for port in self.outputs.used() {
            let queue = self.outputs.queue(*port);
            let mut numbers: Vec<usize> = queue.iter().map(|departure| departure.frame).collect();
            numbers.sort_unstable();
            numbers.dedup();
            assert_eq!(numbers.len(), queue.len(), "a queue holds each frame at most once");
            let to = u8::try_from(port.0).ok().and_then(|port| self.ports.get(&port)).expect("only to ports that there are");
            assert!(!matches!((from, to), (Some(0), 1) | (Some(1), 0)), "isolated bridges stay apart");
            let queued = |next: &Departure| Queued { frame: &frames[next.frame], edit: next.edit, peer: next.peer };
            let list: Vec<Queued<'_>> = queue.iter().map(queued).collect();
            for number in numbers {
                assert!(is_right(&frames[number]) || !before[number], "a right packet stays one");
            }
            for capabilities in [Capabilities::ALL, Capabilities::PLAIN, Capabilities::default()] {
                Egress::new().run(&list, capabilities, &mut |packet| assert!(!packet.parts.is_empty()));
            }
        }
        self.outputs.clear();
        self.batch.clear();
    }
}

/// Whether a frame has an IP packet with a right header checksum in it.
fn is_right(frame: &Frame) -> bool {
    Ethernet::parse(frame.bytes()).is_ok_and(|ethernet| IpPacket::parse(frame.bytes(), &ethernet).is_some())
}

fuzz_target!(|steps: Vec<Step>| {
    let now = Instant::now();
    let (batch, outputs, ports) = (Batch::new(), Outputs::new(), BTreeMap::new());
    let mut bench = Bench { datapath: Datapath::new(now, 1), now, batch, outputs, ports, routes: true };
    // A switch that works to begin with: two ports on bridge 0, one on each other.
    for bridge in 0..BRIDGES {
        let settings = BridgeSettings { mtu: 1500, ageing: 300, max_macs: 100, control_frames: ControlFrames::Drop, ..BridgeSettings::default() };
        bench.datapath.set_bridge(now, BridgeId(bridge.into()), settings);
        bench.datapath.set_gateway(BridgeId(bridge.into()), Some(gateway(bridge, 1, Some(bridge == 1), false)));
    }
    for (port, bridge) in [(0, 0), (1, 0), (2, 1), (3, 2), (4, 3)] {
        let settings = PortSettings::on(BridgeId(bridge));
        bench.datapath.set_port(PortId(port), &settings);
        bench.ports.insert(u8::try_from(port).unwrap(), u8::try_from(bridge).unwrap());
    }
    let mut bridges = [true; BRIDGES as usize];
    for step in steps {
        let now = bench.now;
        match step {
            Step::Frames(port, frames) => {
                let port = port % 8;
                bench.batch.set_ingress(port.into());
                for (bytes, header) in frames.iter().take(Batch::FRAMES) {
                    bench.batch.push(bytes, Offload::decode(*header, bytes.len()).unwrap_or_default());
                }
                bench.forward(port);
            }
            Step::Packets(port, frames) => {
                let port = port % 8;
                bench.batch.set_ingress(port.into());
                for near in frames.iter().take(Batch::FRAMES) {
                    let (bytes, offload) = near.build(true);
                    bench.batch.push(&bytes, offload);
                }
                bench.forward(port);
            }
            Step::SetPort { port, bridge, vlan, trunk, guard, limit } => {
                let (port, bridge) = (port % 8, bridge % BRIDGES);
                let (vlan, trunk) = (VlanId::try_from(vlan % 8), VlanId::try_from(trunk % 8));
                let vlans = match (vlan, trunk) {
                    (Err(_), Err(_)) => VlanMode::All,
                    (Ok(vlan), Err(_)) => VlanMode::Access(vlan),
                    (native, Ok(vlan)) => VlanMode::Trunk { allowed: vec![vlan], native: native.ok() },
                };
                let guard = guard.then(|| Guard { mac: Mac([2, 0, 0, 0, 0, port]), addresses: vec![[10, 0, 0, port].into()] });
                let broadcast_limit = limit.and_then(|limit| FrameRate::new(u32::from(limit) + 1));
                let policy = PortPolicy { broadcast_limit, ..PortPolicy::default() };
                let settings = PortSettings { vlans, guard, ..PortSettings::on(BridgeId(bridge.into())).under(policy, now) };
                if bridges[usize::from(bridge)] {
                    bench.datapath.set_port(PortId(port.into()), &settings);
                    bench.ports.insert(port, bridge);
                }
            }
            Step::RemovePort(port) => {
                bench.datapath.remove_port(PortId((port % 8).into()));
                bench.ports.remove(&(port % 8));
            }
            Step::SetBridge { bridge, mtu, macs, pass } => {
                let bridge = bridge % BRIDGES;
                let control_frames = if pass { ControlFrames::Pass } else { ControlFrames::Drop };
                // The least that a bridge may have.
                let settings = BridgeSettings { mtu: mtu.max(68), ageing: 300, max_macs: u32::from(macs) + 1, control_frames, ..BridgeSettings::default() };
                bench.datapath.set_bridge(now, BridgeId(bridge.into()), settings);
                bridges[usize::from(bridge)] = true;
            }
            Step::RemoveBridge(bridge) => {
                let bridge = bridge % BRIDGES;
                bench.datapath.remove_bridge(BridgeId(bridge.into()));
                if !bench.ports.values().any(|on| *on == bridge) {
                    bridges[usize::from(bridge)] = false;
                }
            }
            Step::SetGateway { bridge, vlan, uplink, host, on } => {
                let bridge = bridge % BRIDGES;
                let settings = on.then(|| gateway(bridge, vlan % 8, uplink, host));
                bench.datapath.set_gateway(BridgeId(bridge.into()), settings);
            }
            Step::SetForwards(forwards) => {
                let forward = |(tcp, six, port, bridge, host): &(bool, bool, u8, u8, u8)| {
                    let protocol = if *tcp { nat::Protocol::Tcp } else { nat::Protocol::Udp };
                    let number = bridge % 2 * 64 + host % 64;
                    let to: IpAddr = if *six { v6(number).into() } else { v4(number).into() };
                    let ports = format!("{}-{}", port % 16 + 56, port % 16 + 58).parse().ok()?;
                    nat::Forward::new(protocol, ports, (to, 60).into()).ok()
                };
                bench.datapath.set_forwards(NAT, forwards.iter().take(8).filter_map(forward).collect());
            }
            Step::Emit(bridge, frame) => {
                bench.datapath.emit((BridgeId((bridge % BRIDGES).into()), None), &frame, &mut bench.batch, &mut bench.outputs);
                bench.leave(None);
            }
            Step::Wait(seconds) => {
                bench.now += Duration::from_secs((seconds % 700).into());
                bench.datapath.expire(bench.now, &mut bench.batch, &mut bench.outputs);
                assert!(bench.batch.frames().len() <= Batch::MOST);
                bench.leave(None);
            }
            Step::Flush(bridge) => bench.datapath.flush_fdb(BridgeId((bridge % BRIDGES).into()), None, None),
            Step::Route(routes) => bench.routes = routes,
        }
        for bridge in 0..BRIDGES {
            let bridge = BridgeId(bridge.into());
            assert!(bench.datapath.fdb(bench.now, bridge).rows.len() <= 256, "the table keeps its cap");
            assert!(bench.datapath.nat(bridge).is_none_or(|nat| nat.counters().sessions <= 64));
        }
    }
});
