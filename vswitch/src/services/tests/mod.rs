//! What the services answer, with a hand-moved clock; `reality` has real clients.

mod dhcp4;
mod dhcp6;
mod dns;
mod ra;
mod reality;
mod stations;
mod stream;

use std::net::SocketAddr;

use proptest::prelude::*;
use tempfile::TempDir;

use super::dhcp4::{Message, Outgoing, option};
use super::wire::{Datagram, Hop, parse, udp};
use super::*;

/// The services of a bridge `br0` and its station `web` at a port of the same name.
struct Bench {
    services: Services,
    now: Duration,
    directory: TempDir,
}

/// The gateway.
const GATEWAY: Mac = Mac([0x02, 0, 0, 0, 0, 0x01]);

fn mac(number: u8) -> Mac {
    Mac([0x02, 0, 0, 0, 1, number])
}

fn link() -> Link {
    let member = |port: &str, number, addresses: &[&str]| Member {
        names: Vec::new(),
        port: port.parse().unwrap(),
        mac: Some(mac(number)),
        addresses: addresses.iter().map(|net| net.parse().unwrap()).collect(),
    };
    Link {
        bridge: "br0".parse().unwrap(),
        mtu: 1400,
        mac: GATEWAY,
        addresses: vec!["10.10.0.1/24".parse().unwrap(), "fd10::1/64".parse().unwrap()],
        dhcp: true,
        advertises: true,
        members: vec![
            member("web", 1, &["10.10.0.2/24", "fd10::2/64"]),
            member("db", 2, &[]),
            member("web.1", 3, &["10.10.0.3/24"]),
            member("cache", 4, &[]),
        ],
        elsewhere: None,
    }
}

impl Bench {
    fn new() -> Self {
        Self::with(link())
    }

    fn with(link: Link) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut services = Services::new(directory.path(), 1);
        let now = Duration::from_secs(1_700_000_000);
        services.set_link(now, link);
        Self { services, now, directory }
    }

    fn pass(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }

    /// As a new process finds it.
    fn restart(&mut self) {
        self.services.tick(self.now);
        self.services = Services::new(self.directory.path(), 2);
        self.services.set_link(self.now, link());
    }

    fn receive(&mut self, port: &str, frame: Vec<u8>) -> Vec<Output> {
        let vlan = VlanId::try_from(7).ok();
        let punt = Punt { bridge: "br0".parse().unwrap(), port: port.parse().unwrap(), vlan, frame };
        self.services.receive(self.now, &punt)
    }

    /// As [`Bench::receive`], where no station has the address that the link is asked about before it is offered.
    fn receive_in_peace(&mut self, port: &str, frame: Vec<u8>) -> Vec<Output> {
        let outputs = self.receive(port, frame);
        let is_probe = |output: &Output| matches!(output, Output::Answer(answer) if wire::arp(&answer.frame).is_some());
        if !outputs.iter().any(is_probe) {
            return outputs;
        }
        self.now += dhcp4::PATIENCE;
        self.services.hurry(self.now)
    }

    /// The one frame with which it is answered.
    fn frame(&mut self, port: &str, frame: Vec<u8>) -> Option<Vec<u8>> {
        let mut outputs = self.receive_in_peace(port, frame);
        assert!(outputs.len() <= 1);
        match outputs.pop() {
            Some(Output::Answer(answer)) => {
                assert_eq!((answer.bridge.as_str(), answer.vlan), ("br0", VlanId::try_from(7).ok()));
                check_sums(&answer.frame);
                Some(answer.frame)
            }
            None => None,
            Some(other) => panic!("{other:?}"),
        }
    }
}

/// Every checksum of a frame is complete.
fn check_sums(frame: &[u8]) {
    let headers = etherparse::PacketHeaders::from_ethernet_slice(frame).unwrap();
    let (net, transport) = (headers.net.unwrap(), headers.transport.unwrap());
    let payload = headers.payload.slice();
    match (net, transport) {
        (etherparse::NetHeaders::Ipv4(ip, _), etherparse::TransportHeader::Udp(udp)) => {
            assert_eq!(ip.header_checksum, ip.calc_header_checksum());
            assert_eq!(udp.checksum, udp.calc_checksum_ipv4(&ip, payload).unwrap());
        }
        (etherparse::NetHeaders::Ipv6(ip, _), etherparse::TransportHeader::Udp(udp)) => {
            assert_eq!(udp.checksum, udp.calc_checksum_ipv6(&ip, payload).unwrap());
        }
        (etherparse::NetHeaders::Ipv4(ip, _), etherparse::TransportHeader::Tcp(tcp)) => {
            assert_eq!(ip.header_checksum, ip.calc_header_checksum());
            assert_eq!(tcp.checksum, tcp.calc_checksum_ipv4(&ip, payload).unwrap());
        }
        (etherparse::NetHeaders::Ipv6(ip, _), etherparse::TransportHeader::Tcp(tcp)) => {
            assert_eq!(tcp.checksum, tcp.calc_checksum_ipv6(&ip, payload).unwrap());
        }
        (etherparse::NetHeaders::Ipv6(ip, _), etherparse::TransportHeader::Icmpv6(icmp)) => {
            let sum = icmp.icmp_type.calc_checksum(ip.source, ip.destination, payload).unwrap();
            assert_eq!(icmp.checksum, sum);
        }
        other => panic!("{other:?}"),
    }
}

fn datagram(frame: &[u8]) -> Datagram<'_> {
    match parse(frame) {
        Some(Received::Datagram(datagram)) => datagram,
        other => panic!("{other:?}"),
    }
}

fn destination(frame: &[u8]) -> Mac {
    packet::Ethernet::parse(frame).unwrap().destination
}

#[test]
fn services_want_what_they_answer_and_nothing_else() {
    for (protocol, port) in [(6, 53), (17, 53), (17, 67), (17, 547), (58, 133)] {
        assert!(plane::datapath::is_for_services(protocol, port));
    }
    for (protocol, port) in [(6, 67), (17, 68), (17, 546), (58, 135), (1, 8)] {
        assert!(!plane::datapath::is_for_services(protocol, port));
    }
}

#[test]
fn an_unknown_bridge_is_not_answered() {
    let mut bench = Bench::new();
    let frame = dhcp4::discover(1, 9);
    let punt = Punt { bridge: "br9".parse().unwrap(), port: "web".parse().unwrap(), vlan: None, frame };
    assert_eq!(bench.services.receive(bench.now, &punt), []);
}

#[test]
fn uplinks_come_and_go() {
    let mut bench = Bench::new();
    let wan = LeasedUplink { name: "wan".parse().unwrap(), mac: mac(99) };
    assert_eq!(bench.services.set_uplinks(bench.now, std::slice::from_ref(&wan)), []);
    let is_uplink = |output: &Output| matches!(output, Output::Uplink(name, _) if name.as_str() == "wan");
    assert_eq!(bench.services.tick(bench.now).iter().filter(|output| is_uplink(output)).count(), 1);
    assert_eq!(bench.services.set_uplinks(bench.now, &[wan]), [], "it goes on");
    assert_eq!(bench.services.tick(bench.now).iter().filter(|output| is_uplink(output)).count(), 0);
    bench.services.set_uplinks(bench.now, &[]);
    bench.pass(10);
    assert_eq!(bench.services.tick(bench.now).iter().filter(|output| is_uplink(output)).count(), 0);
}

/// Bytes behind the headers of a frame to one of the services.
fn to_service() -> impl Strategy<Value = Vec<u8>> {
    let port = prop::sample::select(vec![
        ("10.10.0.1:53", 53),
        ("255.255.255.255:67", 67),
        ("[ff02::1:2]:547", 547),
        ("[fd10::1]:53", 53),
    ]);
    (port, prop::collection::vec(any::<u8>(), 0..400)).prop_map(|((to, _), payload)| {
        let to: SocketAddr = to.parse().unwrap();
        let from = if to.is_ipv4() { "10.10.0.9:68" } else { "[fe80::9]:546" };
        udp(Hop { from: mac(9), to: GATEWAY }, from.parse().unwrap(), to, &payload).unwrap()
    })
}

proptest! {
    #[test]
    fn no_bytes_panic(frame in prop_oneof![to_service(), prop::collection::vec(any::<u8>(), 0..200)]) {
        let mut bench = Bench::new();
        bench.receive("db", frame.clone());
        bench.services.set_uplinks(bench.now, &[LeasedUplink { name: "wan".parse().unwrap(), mac: mac(9) }]);
        bench.services.tick(bench.now);
        bench.services.receive_uplink(bench.now, &"wan".parse().unwrap(), &frame);
    }

    #[test]
    fn no_broken_message_panics(which in 0..7usize, at in 0usize..600, byte: u8, length in 40usize..600) {
        let mut bench = Bench::new();
        let mut frame = match which {
            0 => dhcp4::discover(1, 9),
            1 => dhcp4::request(1, 9, "10.10.0.9"),
            2 => dhcp6::solicit(9, true),
            3 => dns::question("web.br0.internal", domain::base::Rtype::A),
            4 => dns::question("example.com", domain::base::Rtype::A),
            5 => ra::solicitation("fe80::9", mac(9)),
            _ => dns::extended_question("2.0.10.10.in-addr.arpa", domain::base::Rtype::PTR, 4096),
        };
        frame.truncate(length);
        let length = frame.len();
        frame[at % length] = byte;
        bench.receive("db", frame);
    }
}
