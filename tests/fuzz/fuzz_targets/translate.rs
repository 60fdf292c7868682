//! Any packets from both sides through a small NAT, between changes of its rules and addresses.
#![no_main]

use std::net::IpAddr;
use std::time::{Duration, Instant};

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use nat::{Filtering, Forward, Mapping, Nat, Protocol, Settings};
use packet::{Ethernet, IpPacket, Offload};

#[derive(Arbitrary, Debug)]
enum Step {
    Packet {
        way: u8,
        header: [u8; 10],
        bytes: Vec<u8>,
    },
    /// A packet that is nearly right: version, protocol, ends, flags or type.
    Flow {
        way: u8,
        six: bool,
        protocol: u8,
        inside: u8,
        port: u8,
        remote: u8,
        flags: u8,
        quote: Option<u8>,
    },
    Forwards(Vec<(bool, u8, u8, u8)>),
    Addresses(u8),
    Wait(u16),
    Flush(u8),
}

/// Reads or writes of a packet must never panic; nothing else is asked of the bytes.
fn put_through(nat: &mut Nat, now: Instant, way: u8, frame: &mut [u8], offload: Offload) {
    let Ok(ethernet) = Ethernet::parse(frame) else { return };
    let Some(packet) = IpPacket::parse(frame, &ethernet) else { return };
    let rewrite = match way % 3 {
        0 => nat.outbound(now, &packet, frame).map(Some),
        1 => nat.inbound(now, &packet, frame),
        _ => nat.hairpin(now, &packet, frame),
    };
    let Ok(Some(rewrite)) = rewrite else { return };
    rewrite.apply(frame, packet.network, &offload);
    let after = IpPacket::parse(frame, &ethernet).expect("it is a packet still, with a right header checksum");
    assert_eq!(after.source, rewrite.source().unwrap_or(packet.source));
    assert_eq!(after.destination, rewrite.destination().unwrap_or(packet.destination));
    assert_eq!((after.network, after.transport, after.end), (packet.network, packet.transport, packet.end));
}

fn checksum(bytes: &mut [u8], from: usize, to: usize, field: usize) {
    bytes[field..field + 2].fill(0);
    let sum = packet::checksum::Sum::new().plus(&bytes[from..to]).checksum();
    bytes[field..field + 2].copy_from_slice(&sum.to_be_bytes());
}

fn address(six: bool, outside: u8, host: u8) -> Vec<u8> {
    match (six, outside) {
        (false, 0) => vec![10, 0, 0, host],
        (false, 1) => vec![198, 51, 100, host],
        (false, _) => vec![192, 0, 2, 1],
        (true, outside) => [&[0x20, 1, 0xd, 0xb8, outside][..], &[0; 10], &[if outside > 1 { 1 } else { host }]].concat(),
    }
}

fn build(six: bool, protocol: u8, ends: [Vec<u8>; 2], transport: &[u8]) -> Vec<u8> {
    let mut frame = [2; 12].to_vec();
    let length = u16::try_from(transport.len()).unwrap_or(0);
    if six {
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
        frame.extend(length.to_be_bytes());
        frame.extend([protocol, 64]);
        frame.extend(ends.concat());
    } else {
        frame.extend([8, 0, 0x45, 0]);
        frame.extend((length + 20).to_be_bytes());
        frame.extend([0, 0, 0, 0, 64, protocol, 0, 0]);
        frame.extend(ends.concat());
        checksum(&mut frame, 14, 34, 24);
    }
    frame.extend(transport);
    frame
}

fn flow(way: u8, six: bool, protocol: u8, inside: u8, port: u8, remote: u8, flags: u8) -> (u8, [Vec<u8>; 2], Vec<u8>) {
    let protocol = [6, 17, if six { 58 } else { 1 }][usize::from(protocol % 3)];
    let ends = match way % 3 {
        0 => [address(six, 0, inside % 4), address(six, 1, remote % 4)],
        1 => [address(six, 1, remote % 4), address(six, 2, 0)],
        _ => [address(six, 0, inside % 4), address(six, 2, 0)],
    };
    let mut transport =
        vec![0x13, 0x80 | port % 16, 0x13, 0x80 | remote % 16, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, flags, 0, 0, 0, 0, 0, 0];
    if protocol == 1 || protocol == 58 {
        transport[0] = if six { 128 + flags % 2 } else { flags % 2 * 8 };
    }
    (protocol, ends, transport)
}

fuzz_target!(|input: (bool, u8, Vec<Step>)| {
    let (dependent, choice, steps) = input;
    let settings = Settings {
        mapping: if dependent { Mapping::EndpointDependent } else { Mapping::EndpointIndependent },
        filtering: [Filtering::EndpointIndependent, Filtering::AddressDependent, Filtering::AddressAndPortDependent]
            [usize::from(choice % 3)],
        sessions: 16,
        sessions_per_source: Some(u32::from(choice % 16)),
        sources: u32::from(choice % 4),
        ..Settings::default()
    };
    let externals: [IpAddr; 2] = [[192, 0, 2, 1].into(), [0x20, 1, 0xd, 0xb8, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1].into()];
    let mut nat = Nat::new(settings, choice.into());
    nat.set_addresses(&externals);
    let mut now = Instant::now();
    for step in steps {
        match step {
            Step::Packet { way, header, mut bytes } => {
                let offload = Offload::decode(header, bytes.len()).unwrap_or_default();
                put_through(&mut nat, now, way, &mut bytes, offload);
            }
            Step::Flow { way, six, protocol, inside, port, remote, flags, quote } => {
                let (protocol, ends, transport) = flow(way, six, protocol, inside, port, remote, flags);
                let mut frame = build(six, protocol, ends.clone(), &transport);
                if let Some(kind) = quote {
                    let mut message = [&[kind % 16, 0, 0, 0, 0, 0, 0, 0][..], &frame[14..]].concat();
                    let end = message.len();
                    checksum(&mut message, 0, end, 2);
                    let [source, destination] = ends;
                    frame = build(six, if six { 58 } else { 1 }, [destination, source], &message);
                }
                put_through(&mut nat, now, way, &mut frame, Offload::default());
            }
            Step::Forwards(rules) => {
                let rule = |(udp, first, count, to): &(bool, u8, u8, u8)| {
                    let first = 0x1380 + u16::from(first % 16);
                    let ports = format!("{first}-{}", first + u16::from(count % 8)).parse().ok()?;
                    let protocol = if *udp { Protocol::Udp } else { Protocol::Tcp };
                    Forward::new(protocol, ports, ([10, 0, 0, to % 4], first).into()).ok()
                };
                nat.set_forwards(rules.iter().filter_map(rule).collect());
            }
            Step::Addresses(bits) => {
                let some: Vec<_> =
                    externals.iter().enumerate().filter(|(place, _)| bits >> place & 1 == 0).map(|(_, a)| *a).collect();
                nat.set_addresses(&some);
            }
            Step::Wait(seconds) => {
                now += Duration::from_secs(seconds.into());
                nat.expire(now, 4);
            }
            Step::Flush(port) => {
                nat.flush(now, |row| row.external.port() % 16 == u16::from(port));
            }
        }
        let counters = nat.counters();
        assert!(counters.sessions <= 16 && counters.ports_in_use <= counters.sessions);
        let ended = counters.expired + counters.evicted + counters.removed;
        assert_eq!(counters.created, ended + counters.sessions);
        assert!(nat.sessions(now).count() as u64 <= counters.sessions);
    }
    now += Duration::from_secs(10_000);
    nat.expire(now, usize::MAX);
    let counters = nat.counters();
    assert_eq!((counters.sessions, counters.ports_in_use), (0, 0), "nothing is left behind");
});
