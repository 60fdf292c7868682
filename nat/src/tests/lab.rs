//! A NAT with two addresses, packets to put through it, and a look at what comes out.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use etherparse::{IcmpEchoHeader, Icmpv4Type, Icmpv6Type, IpHeaders, PacketBuilder, PacketBuilderStep};
use packet::checksum::Sum;
use packet::{Checksum, Ethernet, IpPacket, IpVersion, Offload};

use crate::{Denied, Forward, Nat, Protocol, SessionRow, Settings, State};

pub(crate) const EXTERNAL4: &str = "192.0.2.1";
pub(crate) const EXTERNAL6: &str = "2001:db8::1";

pub(crate) const FIN: u8 = 1;
pub(crate) const SYN: u8 = 2;
pub(crate) const RST: u8 = 4;
pub(crate) const ACK: u8 = 16;

pub(crate) struct Lab {
    pub(crate) nat: Nat,
    pub(crate) now: Instant,
}

/// Bytes before the IP header.
pub(crate) const NETWORK: usize = 14;

impl Lab {
    pub(crate) fn new() -> Self {
        Self::with(Settings::default())
    }

    pub(crate) fn with(settings: Settings) -> Self {
        let mut nat = Nat::new(settings, 7);
        nat.set_addresses(&[EXTERNAL4.parse().unwrap(), EXTERNAL6.parse().unwrap()]);
        Self { nat, now: Instant::now() }
    }

    pub(crate) fn forward(&mut self, rules: &[(Protocol, &str, &str)]) {
        let rule = |(protocol, ports, to): &(_, &str, &str)| {
            Forward::new(*protocol, ports.parse().unwrap(), to.parse().unwrap()).unwrap()
        };
        self.nat.set_forwards(rules.iter().map(rule).collect());
    }

    pub(crate) fn out(&mut self, frame: &[u8]) -> Result<Vec<u8>, Denied> {
        let beforehand = self.nat.peek_outbound(self.now, &parse(frame), frame);
        let rewrite = self.nat.outbound(self.now, &parse(frame), frame);
        assert_eq!(rewrite, beforehand, "what a look beforehand says is what happens");
        let rewrite = rewrite?;
        let mut frame = frame.to_vec();
        rewrite.apply(&mut frame, NETWORK, &Offload::default());
        assert_eq!(rewrite.source(), Some(parse(&frame).source));
        Ok(frame)
    }

    pub(crate) fn inbound(&mut self, frame: &[u8]) -> Result<Option<Vec<u8>>, Denied> {
        let beforehand = self.nat.peek_inbound(self.now, &parse(frame), frame);
        let rewrite = self.nat.inbound(self.now, &parse(frame), frame);
        assert_eq!(rewrite, beforehand, "what a look beforehand says is what happens");
        let rewrite = rewrite?;
        Ok(rewrite.map(|rewrite| {
            let mut frame = frame.to_vec();
            rewrite.apply(&mut frame, NETWORK, &Offload::default());
            assert_eq!(rewrite.destination(), Some(parse(&frame).destination));
            frame
        }))
    }

    pub(crate) fn hairpin(&mut self, frame: &[u8]) -> Result<Option<Vec<u8>>, Denied> {
        let evicted = self.nat.counters().evicted;
        let beforehand = self.nat.peek_hairpin(self.now, &parse(frame), frame);
        let rewrite = self.nat.hairpin(self.now, &parse(frame), frame);
        let is_full = self.nat.counters().evicted > evicted || rewrite.is_err_and(Denied::is_shortage);
        assert!(
            rewrite == beforehand || is_full,
            "what a look beforehand says is what happens, but {rewrite:?}, not {beforehand:?}"
        );
        let rewrite = rewrite?;
        Ok(rewrite.map(|rewrite| {
            let mut frame = frame.to_vec();
            rewrite.apply(&mut frame, NETWORK, &Offload::default());
            frame
        }))
    }

    /// Sends UDP out and says from which external port it came.
    pub(crate) fn udp_port(&mut self, from: &str, to: &str) -> u16 {
        source(&self.out(&udp(from, to, b"x")).unwrap()).port()
    }

    /// Whether UDP gets in, and where to.
    pub(crate) fn udp_in(&mut self, from: &str, to: &str) -> Result<Option<SocketAddr>, Denied> {
        self.inbound(&udp(from, to, b"x")).map(|frame| frame.map(|frame| destination(&frame)))
    }

    /// An established connection from inside; returns its external port.
    pub(crate) fn connect(&mut self, from: &str, to: &str) -> u16 {
        let syn = self.out(&tcp(from, to, SYN)).unwrap();
        let external = source(&syn).to_string();
        self.inbound(&tcp(to, &external, SYN | ACK)).unwrap().unwrap();
        self.out(&tcp(from, to, ACK)).unwrap();
        source(&syn).port()
    }

    pub(crate) fn wait(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
        while self.nat.expire(self.now, 16) == 16 {}
        self.nat.table.check();
    }

    pub(crate) fn rows(&self) -> Vec<SessionRow> {
        self.nat.sessions(self.now).collect()
    }

    /// The only session's state and seconds left.
    pub(crate) fn only(&self) -> (State, u32) {
        let rows = self.rows();
        assert_eq!(rows.len(), 1, "{rows:?}");
        (rows[0].state, rows[0].seconds_left)
    }
}

pub(crate) fn parse(frame: &[u8]) -> IpPacket {
    IpPacket::parse(frame, &Ethernet::parse(frame).unwrap()).unwrap()
}

fn ip(source: IpAddr, destination: IpAddr) -> PacketBuilderStep<IpHeaders> {
    let builder = PacketBuilder::ethernet2([2; 6], [4; 6]);
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => builder.ipv4(source.octets(), destination.octets(), 64),
        (IpAddr::V6(source), IpAddr::V6(destination)) => builder.ipv6(source.octets(), destination.octets(), 64),
        _ => panic!("both of one version"),
    }
}

fn ends(from: &str, to: &str) -> (SocketAddr, SocketAddr) {
    (from.parse().unwrap(), to.parse().unwrap())
}

pub(crate) fn udp(from: &str, to: &str, payload: &[u8]) -> Vec<u8> {
    let (from, to) = ends(from, to);
    let mut frame = Vec::new();
    ip(from.ip(), to.ip()).udp(from.port(), to.port()).write(&mut frame, payload).unwrap();
    frame
}

pub(crate) fn tcp(from: &str, to: &str, flags: u8) -> Vec<u8> {
    tcp_with(from, to, flags, b"")
}

pub(crate) fn tcp_with(from: &str, to: &str, flags: u8, payload: &[u8]) -> Vec<u8> {
    let (from, to) = ends(from, to);
    let mut builder = ip(from.ip(), to.ip()).tcp(from.port(), to.port(), 1000, 500);
    for bit in [FIN, SYN, RST, ACK] {
        builder = match flags & bit {
            FIN => builder.fin(),
            SYN => builder.syn(),
            RST => builder.rst(),
            ACK => builder.ack(77),
            _ => builder,
        };
    }
    let mut frame = Vec::new();
    builder.write(&mut frame, payload).unwrap();
    frame
}

/// An ICMP or ICMPv6 echo request, or the reply.
pub(crate) fn ping(from: &str, to: &str, id: u16, is_reply: bool) -> Vec<u8> {
    let (from, to) = (from.parse().unwrap(), to.parse().unwrap());
    let echo = IcmpEchoHeader { id, seq: 3 };
    let mut frame = Vec::new();
    match (from, is_reply) {
        (IpAddr::V4(_), false) => ip(from, to).icmpv4(Icmpv4Type::EchoRequest(echo)).write(&mut frame, b"ping"),
        (IpAddr::V4(_), true) => ip(from, to).icmpv4(Icmpv4Type::EchoReply(echo)).write(&mut frame, b"ping"),
        (IpAddr::V6(_), false) => ip(from, to).icmpv6(Icmpv6Type::EchoRequest(echo)).write(&mut frame, b"ping"),
        (IpAddr::V6(_), true) => ip(from, to).icmpv6(Icmpv6Type::EchoReply(echo)).write(&mut frame, b"ping"),
    }
    .unwrap();
    frame
}

/// The identifier of an echo message.
pub(crate) fn id(frame: &[u8]) -> u16 {
    let at = parse(frame).transport + 4;
    u16::from_be_bytes([frame[at], frame[at + 1]])
}

/// An ICMP error, type and code as given, about the first `quoted` bytes of a packet.
pub(crate) fn error(from: &str, to: &str, kind: u8, about: &[u8], quoted: usize) -> Vec<u8> {
    let (from, to) = (from.parse().unwrap(), to.parse().unwrap());
    let packet = &about[NETWORK..about.len().min(NETWORK + quoted)];
    let mut frame = Vec::new();
    let rest = [0, 0, 5, 0];
    match from {
        IpAddr::V4(_) => ip(from, to).icmpv4_raw(kind, 1, rest).write(&mut frame, packet),
        IpAddr::V6(_) => ip(from, to).icmpv6_raw(kind, 1, rest).write(&mut frame, packet),
    }
    .unwrap();
    frame
}

/// The packet in an ICMP error.
pub(crate) fn quoted(frame: &[u8]) -> &[u8] {
    &frame[parse(frame).transport + 8..]
}

pub(crate) fn source(frame: &[u8]) -> SocketAddr {
    let packet = parse(frame);
    SocketAddr::new(packet.source, port(frame, packet.transport))
}

pub(crate) fn destination(frame: &[u8]) -> SocketAddr {
    let packet = parse(frame);
    SocketAddr::new(packet.destination, port(frame, packet.transport + 2))
}

fn port(frame: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([frame[at], frame[at + 1]])
}

/// The same packet on its way back: addresses and ports, or whatever identifies the flow, exchanged.
pub(crate) fn reply(frame: &[u8]) -> Vec<u8> {
    let packet = parse(frame);
    let mut frame = frame.to_vec();
    let (at, length) = if packet.version == IpVersion::V4 { (packet.network + 12, 4) } else { (packet.network + 8, 16) };
    swap(&mut frame, at, length);
    match packet.protocol {
        6 | 17 => swap(&mut frame, packet.transport, 2),
        _ => {
            frame[packet.transport] = match frame[packet.transport] {
                8 => 0,
                0 => 8,
                128 => 129,
                _ => 128,
            };
            complete(&mut frame);
        }
    }
    frame
}

fn swap(frame: &mut [u8], at: usize, length: usize) {
    let (one, other) = frame[at..at + 2 * length].split_at_mut(length);
    one.swap_with_slice(other);
}

fn field(packet: &IpPacket) -> usize {
    packet.transport
        + match packet.protocol {
            6 => 16,
            17 => 6,
            _ => 2,
        }
}

fn pseudo(frame: &[u8], packet: &IpPacket) -> Sum {
    let length = u16::try_from(packet.end - packet.transport).unwrap();
    let addresses = match packet.version {
        IpVersion::V4 if packet.protocol == 1 => return Sum::new(),
        IpVersion::V4 => packet.network + 12..packet.network + 20,
        IpVersion::V6 => packet.network + 8..packet.network + 40,
    };
    Sum::new().plus(&frame[addresses]).plus_number(length).plus_number(packet.protocol.into())
}

/// Computes the transport's checksum.
pub(crate) fn complete(frame: &mut [u8]) {
    let packet = parse(frame);
    let at = field(&packet);
    frame[at..at + 2].fill(0);
    let sum = pseudo(frame, &packet).plus(&frame[packet.transport..packet.end]).checksum();
    frame[at..at + 2].copy_from_slice(&if sum == 0 && packet.protocol == 17 { 0xffff } else { sum }.to_be_bytes());
}

/// Leaves the checksum to the receiver, as the kernel does.
pub(crate) fn make_partial(frame: &mut [u8]) -> Offload {
    let packet = parse(frame);
    let at = field(&packet);
    let sum = pseudo(frame, &packet).folded();
    frame[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    let start = u16::try_from(packet.transport).unwrap();
    let offset = u16::try_from(at - packet.transport).unwrap();
    Offload { checksum: Checksum::Partial { start, offset }, gso: None }
}

/// Writes a number into a packet built by hand.
pub(crate) fn put(frame: &mut [u8], at: usize, number: usize) {
    frame[at..at + 2].copy_from_slice(&u16::try_from(number).unwrap().to_be_bytes());
}

/// Gives an IPv4 header with no options its checksum again.
pub(crate) fn complete_header(frame: &mut [u8]) {
    frame[24..26].fill(0);
    let sum = Sum::new().plus(&frame[14..34]).checksum();
    put(frame, 24, sum.into());
}

/// Whether all checksums of a whole packet are right: [`parse`] looks at IPv4's.
pub(crate) fn is_intact(frame: &[u8]) -> bool {
    let mut fresh = frame.to_vec();
    let packet = parse(frame);
    complete(&mut fresh);
    let no_checksum = packet.protocol == 17 && frame[field(&packet)..field(&packet) + 2] == [0, 0];
    no_checksum || fresh == frame
}
