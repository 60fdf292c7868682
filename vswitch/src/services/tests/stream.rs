//! DNS over TCP, with smoltcp's TCP as the station.

use domain::base::Rtype;
use smoltcp::iface::{Config, Interface, PollResult, SocketHandle, SocketSet};
use smoltcp::phy::{self, Medium};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::wire::HardwareAddress;

use super::*;
use crate::services::dns::{IDLE, Transport};
use crate::services::wire::ip;

/// A station's end of a connection.
struct Station {
    port: &'static str,
    interface: Interface,
    sockets: SocketSet<'static>,
    handle: SocketHandle,
}

/// Packets that are on their way to the station, and those that it sent.
#[derive(Default)]
struct Line {
    to: Vec<Vec<u8>>,
    from: Vec<Vec<u8>>,
}

struct Rx(Vec<u8>);
struct Tx<'a>(&'a mut Vec<Vec<u8>>);

impl phy::RxToken for Rx {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(&self.0)
    }
}

impl phy::TxToken for Tx<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, write: F) -> R {
        let mut packet = vec![0; length];
        let result = write(&mut packet);
        self.0.push(packet);
        result
    }
}

impl phy::Device for Line {
    type RxToken<'a> = Rx;
    type TxToken<'a> = Tx<'a>;

    fn receive(&mut self, _: smoltcp::time::Instant) -> Option<(Rx, Tx<'_>)> {
        let packet = if self.to.is_empty() { None } else { Some(self.to.remove(0)) };
        packet.map(|packet| (Rx(packet), Tx(&mut self.from)))
    }

    fn transmit(&mut self, _: smoltcp::time::Instant) -> Option<Tx<'_>> {
        Some(Tx(&mut self.from))
    }

    fn capabilities(&self) -> phy::DeviceCapabilities {
        let mut capabilities = phy::DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = 1400;
        capabilities
    }
}

fn time(now: Duration) -> smoltcp::time::Instant {
    smoltcp::time::Instant::from_micros(i64::try_from(now.as_micros()).unwrap())
}

impl Station {
    fn new(port: &'static str, number: u16, to: &str) -> Self {
        let mut interface = Interface::new(Config::new(HardwareAddress::Ip), &mut Line::default(), time(Duration::ZERO));
        interface.set_any_ip(true);
        let mut socket = Socket::new(SocketBuffer::new(vec![0; 4096]), SocketBuffer::new(vec![0; 8192]));
        socket.set_ack_delay(None);
        socket.set_nagle_enabled(false);
        let to: SocketAddr = to.parse().unwrap();
        let from: IpAddr = if to.is_ipv4() { [10, 10, 0, 9].into() } else { "fd10::9".parse().unwrap() };
        socket.connect(interface.context(), to, (from, number)).unwrap();
        let mut sockets = SocketSet::new(Vec::new());
        let handle = sockets.add(socket);
        Self { port, interface, sockets, handle }
    }

    fn socket(&mut self) -> &mut Socket<'static> {
        self.sockets.get_mut(self.handle)
    }

    /// Moves packets until neither side has any; returns what else the services want.
    fn talk(&mut self, bench: &mut Bench, outputs: Vec<Output>) -> Vec<Output> {
        let (mut line, mut rest, mut outputs) = (Line::default(), Vec::new(), outputs);
        loop {
            for output in outputs.drain(..) {
                match output {
                    Output::Answer(answer) => {
                        check_sums(&answer.frame);
                        assert_eq!((destination(&answer.frame), answer.vlan), (mac(9), VlanId::try_from(7).ok()));
                        line.to.push(answer.frame[14..].to_vec());
                    }
                    other => rest.push(other),
                }
            }
            let now = time(bench.now);
            while !line.to.is_empty() {
                self.interface.poll_ingress_single(now, &mut line, &mut self.sockets);
            }
            while self.interface.poll_egress(now, &mut line, &mut self.sockets) == PollResult::SocketStateChanged {}
            if line.from.is_empty() {
                return rest;
            }
            for packet in line.from.drain(..) {
                outputs.extend(bench.receive(self.port, ip(Hop { from: mac(9), to: GATEWAY }, &packet)));
            }
        }
    }

    /// A connection on which nothing was said yet.
    fn connected(bench: &mut Bench, port: &'static str, number: u16) -> Self {
        let mut station = Self::new(port, number, "10.10.0.1:53");
        assert_eq!(station.talk(bench, Vec::new()), []);
        station
    }

    fn ask(&mut self, bench: &mut Bench, message: &[u8]) -> Vec<Output> {
        let length = u16::try_from(message.len()).unwrap().to_be_bytes();
        assert_eq!(self.socket().send_slice(&[&length, message].concat()), Ok(message.len() + 2));
        self.talk(bench, Vec::new())
    }

    /// The next answer, read as it comes.
    fn answer(&mut self, bench: &mut Bench) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        loop {
            let before = bytes.len();
            let _ = self.socket().recv(|part| {
                bytes.extend_from_slice(part);
                (part.len(), ())
            });
            assert_eq!(self.talk(bench, Vec::new()), []);
            let length = bytes.first_chunk::<2>().map(|length| usize::from(u16::from_be_bytes(*length)));
            if length.is_some_and(|length| bytes.len() >= length + 2) {
                assert_eq!(bytes.len(), length? + 2);
                return Some(bytes.split_off(2));
            }
            if bytes.len() == before {
                return None;
            }
        }
    }
}

fn message(name: &str) -> Vec<u8> {
    datagram(&dns::question(name, Rtype::A)).payload.to_vec()
}

/// An answer of `length` bytes to a question.
fn reply(question: &[u8], length: usize) -> Vec<u8> {
    let mut reply = question.to_vec();
    (reply[2], reply[3]) = (0x81, 0x80);
    reply.resize(length, 7);
    reply
}

fn query(outputs: Vec<Output>) -> Query {
    match <[Output; 1]>::try_from(outputs) {
        Ok([Output::Ask(query)]) => query,
        other => panic!("{other:?}"),
    }
}

#[test]
fn names_are_answered_on_a_connection_whole_and_in_both_versions() {
    let mut link = link();
    link.members[0].addresses = (2..252_u8).map(|host| format!("10.10.0.{host}/24").parse().unwrap()).collect();
    let mut bench = Bench::with(link);
    for to in ["10.10.0.1:53", "[fd10::1]:53"] {
        let mut station = Station::new("db", 4000, to);
        assert_eq!(station.talk(&mut bench, Vec::new()), []);
        for _ in 0..2 {
            assert_eq!(station.ask(&mut bench, &message("web")), []);
            let answer = domain::base::Message::from_octets(station.answer(&mut bench).unwrap()).unwrap();
            assert_eq!((answer.header_counts().ancount(), answer.header().tc()), (250, false));
        }
        station.socket().close();
        assert_eq!(station.talk(&mut bench, Vec::new()), []);
        assert_eq!(station.socket().state(), State::TimeWait, "both ends are closed");
    }
}

#[test]
fn questions_go_on_over_tcp_and_are_answered_as_their_answers_come() {
    let mut bench = Bench::new();
    let mut station = Station::connected(&mut bench, "db", 4000);
    let [first, second] = ["one.example", "two.example"].map(message);
    let one = query(station.ask(&mut bench, &first));
    let two = query(station.ask(&mut bench, &second));
    assert_eq!((one.transport(), one.message()), (Transport::Tcp, first.as_slice()));
    // Longer than all buffers together, and the station closes its side before it comes.
    let long = reply(&second, 60_000);
    station.socket().close();
    assert_eq!(station.talk(&mut bench, Vec::new()), []);
    let outputs = bench.services.resolved(bench.now, &two, Some(long.clone()));
    assert_eq!(station.talk(&mut bench, outputs), []);
    assert_eq!(station.answer(&mut bench), Some(long));
    assert_eq!(station.socket().state(), State::FinWait2, "the other question has no answer yet");
    let outputs = bench.services.resolved(bench.now, &one, None);
    assert_eq!(station.talk(&mut bench, outputs), []);
    assert_eq!(station.answer(&mut bench).unwrap()[3] & 15, 2, "SERVFAIL");
    assert_eq!(station.socket().state(), State::TimeWait);
}

#[test]
fn who_asks_faster_than_is_answered_waits() {
    let mut bench = Bench::new();
    let mut station = Station::connected(&mut bench, "db", 4000);
    let mut asked: Vec<_> = (0..10).flat_map(|_| station.ask(&mut bench, &message("one.example"))).collect();
    assert_eq!(asked.len(), 4);
    let first = query(vec![asked.remove(0)]);
    let outputs = bench.services.resolved(bench.now, &first, Some(reply(first.message(), 100)));
    assert_eq!(station.talk(&mut bench, outputs).len(), 1, "an answer makes room for a question");
    // An answer to a connection that is gone reaches no connection, least of all the next one between the same ends.
    station.socket().abort();
    station.talk(&mut bench, Vec::new());
    let mut again = Station::connected(&mut bench, "db", 4000);
    let late = query(vec![asked.remove(0)]);
    let outputs = bench.services.resolved(bench.now, &late, Some(reply(late.message(), 100)));
    assert_eq!(again.talk(&mut bench, outputs), []);
    assert_eq!(again.answer(&mut bench), None);
}

#[test]
fn a_port_with_many_connections_leaves_room_for_the_others() {
    let mut bench = Bench::new();
    let connect = |bench: &mut Bench, port, number| {
        let mut station = Station::new(port, number, "10.10.0.1:53");
        station.talk(bench, Vec::new());
        (station.socket().state() == State::Established).then_some(station)
    };
    let mut held: Vec<_> = (1..100).filter_map(|number| connect(&mut bench, "db", number)).collect();
    assert_eq!(held.len(), 32, "half; the others are refused with a reset");
    assert_eq!((1000..1100).filter_map(|number| connect(&mut bench, "cache", number)).count(), 16);
    assert!(connect(&mut bench, "web", 2000).is_some());
    // Those that say nothing make room.
    held.truncate(1);
    bench.pass(2 * IDLE.as_secs());
    bench.services.tick(bench.now);
    assert!(connect(&mut bench, "db", 3000).is_some());
}

#[test]
fn a_connection_that_asks_nothing_is_closed_even_if_bytes_trickle() {
    let mut bench = Bench::new();
    let mut station = Station::connected(&mut bench, "db", 4000);
    bench.pass(IDLE.as_secs() - 1);
    assert_eq!(station.ask(&mut bench, &message("web")), []);
    assert!(station.answer(&mut bench).is_some());
    for _ in 0..IDLE.as_secs() {
        assert!(station.socket().may_recv(), "it did ask");
        station.socket().send_slice(&[1]).unwrap();
        assert_eq!(station.talk(&mut bench, Vec::new()), []);
        bench.pass(1);
        let outputs = bench.services.tick(bench.now);
        station.talk(&mut bench, outputs.into_iter().filter(is_tcp).collect());
    }
    assert_eq!(station.socket().state(), State::CloseWait, "closed");
    bench.pass(IDLE.as_secs());
    let outputs = bench.services.tick(bench.now);
    station.talk(&mut bench, outputs.into_iter().filter(is_tcp).collect());
    assert_eq!(station.socket().state(), State::Closed, "reset");
}

fn is_tcp(output: &Output) -> bool {
    matches!(output, Output::Answer(answer) if matches!(parse(&answer.frame), Some(Received::Segment(_))))
}

#[test]
fn what_belongs_to_no_connection_or_is_no_question_is_reset() {
    let mut bench = Bench::new();
    for to in ["10.10.0.77:53", "192.0.2.1:53"] {
        let mut station = Station::new("db", 4000, to);
        station.talk(&mut bench, Vec::new());
        assert_eq!(station.socket().state(), State::Closed, "{to}");
    }
    for length in [0u16, 11, 4095, 0xffff] {
        let mut station = Station::connected(&mut bench, "db", 4000);
        station.socket().send_slice(&length.to_be_bytes()).unwrap();
        station.talk(&mut bench, Vec::new());
        assert_eq!(station.socket().state(), State::Closed, "{length}");
    }
    // The gateway forgot it, so it answers the rest with a reset.
    let mut station = Station::connected(&mut bench, "db", 4000);
    bench.services.remove_link(&link().bridge);
    bench.services.set_link(bench.now, link());
    station.ask(&mut bench, &message("web"));
    assert_eq!(station.socket().state(), State::Closed);
}

proptest! {
    #[test]
    fn no_segments_panic(steps in prop::collection::vec((0u32..9000, 0u32..9000, any::<u8>(), 0usize..600, 0u64..4), 1..40)) {
        let mut bench = Bench::new();
        let mut said = 0;
        for (sequence, acknowledged, flags, length, wait) in steps {
            let flags = if length % 3 == 0 { flags } else { 0x18 };
            let mut header = etherparse::TcpHeader::new(4000, 53, sequence, 4096);
            (header.fin, header.syn, header.rst) = (flags & 1 != 0, flags & 2 != 0, flags & 4 != 0);
            (header.ack, header.acknowledgment_number) = (flags & 16 != 0, said + acknowledged / 4000);
            let mut frame = Vec::new();
            let builder = etherparse::PacketBuilder::ethernet2(mac(9).0, GATEWAY.0).ipv4([10, 10, 0, 9], [10, 10, 0, 1], 64);
            builder.tcp_header(header).write(&mut frame, &vec![u8::try_from(length % 7).unwrap(); length]).unwrap();
            for output in bench.receive("db", frame) {
                if let Output::Answer(answer) = output {
                    let sliced = etherparse::SlicedPacket::from_ethernet(&answer.frame).unwrap();
                    if let Some(etherparse::TransportSlice::Tcp(tcp)) = sliced.transport {
                        said = tcp.sequence_number().wrapping_add(u32::from(tcp.syn())) & 0x7fff_ffff;
                    }
                }
            }
            bench.pass(wait);
            bench.services.tick(bench.now);
        }
    }
}
