use std::net::Ipv6Addr;

use super::*;

/// Messages by number, options by code (RFC 8415).
const SOLICIT: u8 = 1;
const ADVERTISE: u8 = 2;
const REQUEST: u8 = 3;
const CONFIRM: u8 = 4;
const RENEW: u8 = 5;
const REBIND: u8 = 6;
const REPLY: u8 = 7;
const RELEASE: u8 = 8;
const DECLINE: u8 = 9;
const INFORMATION: u8 = 11;
const IA_NA: u16 = 3;
const STATUS: u16 = 13;

fn option(code: u16, data: &[u8]) -> Vec<u8> {
    [&code.to_be_bytes(), &u16::try_from(data.len()).unwrap().to_be_bytes(), data].concat()
}

fn address_option(address: Ipv6Addr) -> Vec<u8> {
    option(5, &[address.octets().as_slice(), &[0; 8]].concat())
}

fn association(code: u16, inner: &[u8]) -> Vec<u8> {
    option(code, &[&[0, 0, 0, 7], [0; 8].as_slice(), inner].concat())
}

fn client(number: u8) -> Vec<u8> {
    option(1, &[0, 3, 0, 1, 2, 0, 0, 0, 1, number])
}

fn server() -> Vec<u8> {
    option(2, &[&[0, 3, 0, 1], GATEWAY.0.as_slice()].concat())
}

fn message(kind: u8, number: u8, options: &[Vec<u8>]) -> Vec<u8> {
    let payload = [&[kind, 1, 2, 3], options.concat().as_slice()].concat();
    let hop = Hop { from: mac(number), to: Mac([0x33, 0x33, 0, 1, 0, 2]) };
    let from = SocketAddr::from((mac(number).link_local(), 546));
    udp(hop, from, "[ff02::1:2]:547".parse().unwrap(), &payload).unwrap()
}

pub(super) fn solicit(number: u8, rapid: bool) -> Vec<u8> {
    let rapid = if rapid { option(14, &[]) } else { Vec::new() };
    message(SOLICIT, number, &[client(number), association(IA_NA, &[]), rapid])
}

/// The options of a message, or inside an option.
fn options(mut bytes: &[u8]) -> Vec<(u16, Vec<u8>)> {
    let mut options = Vec::new();
    while let [c0, c1, l0, l1, rest @ ..] = bytes {
        let (data, rest) = rest.split_at(u16::from_be_bytes([*l0, *l1]).into());
        options.push((u16::from_be_bytes([*c0, *c1]), data.to_vec()));
        bytes = rest;
    }
    options
}

/// An answer: its type, addresses with their lifetimes, statuses within the association, statuses outside, and everything.
struct Said {
    kind: u8,
    addresses: Vec<(Ipv6Addr, u32)>,
    inner: Vec<u16>,
    outer: Vec<u16>,
    options: Vec<(u16, Vec<u8>)>,
}

fn status(options: &[(u16, Vec<u8>)]) -> Vec<u16> {
    let all = options.iter().filter(|(code, _)| *code == STATUS);
    all.map(|(_, data)| u16::from_be_bytes([data[0], data[1]])).collect()
}

impl Bench {
    fn said6(&mut self, port: &str, frame: Vec<u8>) -> Option<Said> {
        let station = packet::Ethernet::parse(&frame).unwrap().source;
        let frame = self.frame(port, frame)?;
        let datagram = datagram(&frame);
        assert_eq!(datagram.source, SocketAddr::from((GATEWAY.link_local(), 547)));
        assert_eq!(datagram.destination, SocketAddr::from((station.link_local(), 546)));
        assert_eq!((destination(&frame), &datagram.payload[1..4]), (station, [1, 2, 3].as_slice()));
        let options = options(&datagram.payload[4..]);
        let associations = options.iter().filter(|(code, _)| matches!(*code, IA_NA | 25));
        let inner: Vec<_> = associations.flat_map(|(_, data)| self::options(&data[12..])).collect();
        let lease = |data: &[u8]| {
            let address: [u8; 16] = data[..16].try_into().unwrap();
            (address.into(), u32::from_be_bytes(data[20..24].try_into().unwrap()))
        };
        Some(Said {
            kind: datagram.payload[0],
            addresses: inner.iter().filter(|(code, _)| *code == 5).map(|(_, data)| lease(data)).collect(),
            inner: status(&inner),
            outer: status(&options),
            options,
        })
    }

    /// SOLICIT, ADVERTISE, REQUEST, REPLY.
    pub(super) fn lease6(&mut self, port: &str, number: u8) -> Ipv6Addr {
        let advertised = self.said6(port, solicit(number, false)).unwrap();
        assert_eq!(advertised.kind, ADVERTISE);
        let address = advertised.addresses[0].0;
        let request = message(REQUEST, number, &[client(number), server(), association(IA_NA, &address_option(address))]);
        let reply = self.said6(port, request).unwrap();
        assert_eq!((reply.kind, reply.addresses), (REPLY, vec![(address, 3600)]));
        address
    }
}

#[test]
fn a_station_gets_an_address_of_the_prefix_and_keeps_it() {
    let mut bench = Bench::new();
    let address = bench.lease6("db", 2);
    assert!("fd10::/64".parse::<ipnet::Ipv6Net>().unwrap().contains(&address));
    bench.restart();
    assert_eq!(bench.lease6("db", 2), address);
    bench.services = Bench::new().services;
    assert_eq!(bench.lease6("db", 2), address, "even without the table");
    assert_ne!(bench.lease6("cache", 4), address);
}

#[test]
fn rapid_commit_takes_one_step() {
    let mut bench = Bench::new();
    let reply = bench.said6("db", solicit(2, true)).unwrap();
    assert_eq!((reply.kind, reply.addresses.len()), (REPLY, 1));
    assert!(reply.options.contains(&(14, Vec::new())));
    assert_eq!(bench.services.leases(&"br0".parse().unwrap())[0].state, api::LeaseState::Bound);
}

#[test]
fn an_answer_tells_who_names_and_times() {
    let mut bench = Bench::new();
    let said = bench.said6("db", solicit(2, false)).unwrap();
    let find = |code| said.options.iter().find(|(found, _)| *found == code).map(|(_, data)| data.clone()).unwrap();
    assert_eq!([option(1, &find(1)), option(2, &find(2))], [client(2), server()]);
    assert_eq!(find(23), "fd10::1".parse::<Ipv6Addr>().unwrap().octets());
    assert_eq!(find(24), b"\x03br0\x08internal\x00");
    assert_eq!(find(IA_NA)[..12], [0, 0, 0, 7, 0, 0, 0x07, 0x08, 0, 0, 0x0b, 0x40], "IAID, T1 1800, T2 2880");
}

#[test]
fn the_configured_station_gets_its_address() {
    let mut bench = Bench::new();
    let own = "fd10::2".parse().unwrap();
    assert_eq!(bench.lease6("web", 1), own);
    assert_ne!(bench.lease6("db", 1), own, "only at its port");
    let renew = message(RENEW, 1, &[client(1), server(), association(IA_NA, &address_option(own))]);
    assert_eq!(bench.said6("web", renew).unwrap().addresses, [(own, 3600)]);
}

#[test]
fn what_may_not_be_had_is_taken_away() {
    let mut bench = Bench::new();
    let address = bench.lease6("db", 2);
    for (kind, who) in [(RENEW, server()), (REBIND, Vec::new())] {
        let extend =
            |number| message(kind, number, &[client(number), who.clone(), association(IA_NA, &address_option(address))]);
        assert_eq!(bench.said6("db", extend(2)).unwrap().addresses, [(address, 3600)]);
        assert_eq!(bench.said6("cache", extend(9)).unwrap().addresses, [(address, 0)]);
        let nothing = message(kind, 9, &[client(9), who.clone(), association(IA_NA, &[])]);
        assert_eq!(bench.said6("cache", nothing).unwrap().inner, [3], "NoBinding");
    }
}

#[test]
fn confirm_says_whether_the_link_is_the_right_one() {
    let mut bench = Bench::new();
    let mut confirm = |inner: &[u8]| bench.said6("db", message(CONFIRM, 2, &[client(2), association(IA_NA, inner)]));
    assert_eq!(confirm(&address_option("fd10::99".parse().unwrap())).unwrap().outer, [0]);
    assert_eq!(confirm(&address_option("fd99::99".parse().unwrap())).unwrap().outer, [4], "NotOnLink");
    assert!(confirm(&[]).is_none());
}

#[test]
fn a_released_address_can_be_had_and_a_declined_one_cannot() {
    let mut bench = Bench::new();
    let address = bench.lease6("db", 2);
    let with = |kind, number| message(kind, number, &[client(number), server(), association(IA_NA, &address_option(address))]);
    let reply = bench.said6("cache", with(RELEASE, 9)).unwrap();
    assert_eq!((reply.outer, reply.inner), (vec![0], vec![3]), "not its own");
    let reply = bench.said6("db", with(RELEASE, 2)).unwrap();
    assert_eq!((reply.outer, reply.inner), (vec![0], vec![]));
    assert_eq!(bench.said6("cache", with(REQUEST, 9)).unwrap().addresses, [(address, 3600)]);
    assert_eq!(bench.said6("cache", with(DECLINE, 9)).unwrap().outer, [0]);
    assert_ne!(bench.said6("db", with(REQUEST, 2)).unwrap().addresses[0].0, address);
}

#[test]
fn information_alone_needs_no_client() {
    let mut bench = Bench::new();
    let reply = bench.said6("db", message(INFORMATION, 9, &[])).unwrap();
    assert_eq!((reply.kind, reply.addresses.len()), (REPLY, 0));
    assert!(reply.options.iter().any(|(code, _)| *code == 23));
}

#[test]
fn prefixes_are_not_delegated() {
    let mut bench = Bench::new();
    let reply = bench.said6("db", message(SOLICIT, 9, &[client(9), association(25, &[])])).unwrap();
    assert_eq!(reply.inner, [6], "NoPrefixAvail");
}

#[test]
fn a_message_for_another_server_or_to_one_address_is_ignored() {
    let mut bench = Bench::new();
    let other = option(2, &[0, 3, 0, 1, 9, 9, 9, 9, 9, 9]);
    let address = association(IA_NA, &address_option("fd10::99".parse().unwrap()));
    for frame in [
        message(REQUEST, 9, &[client(9), other.clone(), address.clone()]),
        message(REQUEST, 9, &[client(9), address.clone()]),
        message(SOLICIT, 9, &[client(9), server(), address.clone()]),
        message(SOLICIT, 9, std::slice::from_ref(&address)),
        message(REBIND, 9, &[client(9), server(), address.clone()]),
        message(INFORMATION, 9, &[other]),
        message(SOLICIT, 9, &[option(1, &[0; 131]), address.clone()]),
        message(12, 9, &[client(9), address]),
    ] {
        assert!(bench.frame("db", frame).is_none());
    }
    let hop = Hop { from: mac(9), to: GATEWAY };
    let solicit = super::super::wire::parse(&solicit(9, false)).map(|received| match received {
        Received::Datagram(datagram) => datagram.payload.to_vec(),
        Received::Solicitation(_) | Received::Segment(_) | Received::Arp(_) => Vec::new(),
    });
    let frame = udp(hop, "[fe80::9]:546".parse().unwrap(), "[fd10::1]:547".parse().unwrap(), &solicit.unwrap()).unwrap();
    assert!(bench.frame("db", frame).is_none());
}
