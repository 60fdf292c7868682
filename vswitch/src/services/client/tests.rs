use std::net::Ipv4Addr;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::services::dhcp4::{Outgoing, SERVER_PORT};
use crate::services::wire::{Hop, udp};
use conflict::request;

const CLIENT: Mac = Mac([0x02, 0, 0, 0, 2, 1]);
const SERVER: Mac = Mac([0x02, 0, 0, 0, 2, 9]);

struct Bench {
    client: Client,
    directory: TempDir,
    now: Duration,
    /// When it was given its address.
    given: Duration,
}

/// What the client said: its type, whether to all, and the message's parts.
#[derive(Debug, PartialEq, Eq)]
struct Said {
    kind: Kind,
    to_all: bool,
    ciaddr: Ipv4Addr,
    requested: Option<Ipv4Addr>,
    server: Option<Ipv4Addr>,
}

fn said(frame: &[u8]) -> Said {
    let Some(Received::Datagram(datagram)) = wire::parse(frame) else { panic!("no datagram") };
    assert_eq!((datagram.source.port(), datagram.destination.port()), (CLIENT_PORT, SERVER_PORT));
    let message = Message::parse(datagram.payload, DhcpOpCode::Request).unwrap();
    assert_eq!(datagram.source.ip(), std::net::IpAddr::V4(message.ciaddr()));
    assert_eq!((message.chaddr(), message.option(option::CLIENT).unwrap().len()), (CLIENT, 7));
    let to_all = packet::Ethernet::parse(frame).unwrap().destination.is_broadcast();
    assert_eq!(datagram.destination.ip() == Ipv4Addr::BROADCAST, to_all);
    let (requested, server) = (message.address(option::REQUESTED), message.address(option::SERVER));
    Said { kind: message.kind, to_all, ciaddr: message.ciaddr(), requested, server }
}

impl Bench {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let now = Duration::from_secs(1_700_000_000);
        let client = Client::new(now, Purpose::Uplink, CLIENT, directory.path().join("uplink-wan.json"), 1);
        Self { client, directory, now, given: now }
    }

    fn restart(&mut self) {
        self.client = Client::new(self.now, self.client.purpose, CLIENT, self.directory.path().join("uplink-wan.json"), 2);
    }

    /// Moves the clock to the next time that something is due; says how far that was, and what happened.
    fn next(&mut self) -> (u64, ClientStep) {
        let before = self.now;
        self.now = self.now.max(self.client.next());
        ((self.now - before).as_secs(), self.client.tick(self.now))
    }

    fn answer_of(&mut self, server: u8, kind: Kind, address: [u8; 4], lease: u32) -> ClientStep {
        let mut message = Outgoing::new(DhcpOpCode::Reply, self.client.xid, CLIENT);
        message.yiaddr = address.into();
        let mut put = |code, data: &[u8]| message.options.push((code, data.to_vec()));
        put(option::KIND, &[kind.into()]);
        put(option::SERVER, &[192, 0, 2, server]);
        put(option::LEASE, &lease.to_be_bytes());
        put(option::SUBNET_MASK, &[255, 255, 255, 0]);
        put(option::ROUTER, &[192, 0, 2, 254]);
        put(option::DNS, &[192, 0, 2, 53, 192, 0, 2, 54]);
        put(option::MTU, &1400_u16.to_be_bytes());
        let frame = udp(
            Hop { from: SERVER, to: CLIENT },
            (Ipv4Addr::new(192, 0, 2, server), SERVER_PORT).into(),
            (Ipv4Addr::from(address), CLIENT_PORT).into(),
            &message.encode().unwrap(),
        );
        self.client.receive(self.now, &frame.unwrap())
    }

    fn answer(&mut self, kind: Kind) -> ClientStep {
        self.answer_of(1, kind, [192, 0, 2, 10], 3600)
    }

    /// To BOUND.
    fn bind(&mut self) {
        self.next();
        self.answer(Kind::Offer);
        self.given = self.now;
        assert_eq!(self.answer(Kind::Ack), ClientStep::default(), "somebody may have it");
        let (steps, bound): (Vec<_>, Vec<_>) = (0..6).map(|_| self.next().1).partition(|step| step.events.is_empty());
        let arps: Vec<_> = steps.iter().flat_map(|step| &step.frames).map(|frame| asked(frame)).collect();
        assert_eq!(
            (arps, bound.len()),
            (vec![(NONE, ADDRESS), (NONE, ADDRESS), (NONE, ADDRESS), (ADDRESS, ADDRESS), (ADDRESS, ADDRESS)], 1)
        );
    }

    /// Another station's ARP frame.
    fn hears(&mut self, sender: Ipv4Addr, target: Ipv4Addr) -> ClientStep {
        self.client.receive(self.now, &request(OTHER, sender, target))
    }
}

const OTHER: Mac = Mac([0x02, 0, 0, 0, 2, 7]);

/// Who asks for whom in an ARP frame to all.
fn asked(frame: &[u8]) -> (Ipv4Addr, Ipv4Addr) {
    let sliced = etherparse::SlicedPacket::from_ethernet(frame).unwrap();
    let Some(etherparse::NetSlice::Arp(arp)) = sliced.net else { panic!("{sliced:?}") };
    assert_eq!((arp.operation(), arp.sender_hw_addr()), (etherparse::ArpOperation::REQUEST, &CLIENT.0[..]));
    assert!(packet::Ethernet::parse(frame).unwrap().destination.is_broadcast());
    let address = |bytes: &[u8]| Ipv4Addr::from(<[u8; 4]>::try_from(bytes).unwrap());
    (address(arp.sender_protocol_addr()), address(arp.target_protocol_addr()))
}

fn kinds(step: &ClientStep) -> Vec<Kind> {
    step.frames.iter().map(|frame| said(frame).kind).collect()
}

const NONE: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
const FIRST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

#[test]
fn it_gets_an_address_in_four_messages() {
    let mut bench = Bench::new();
    let (wait, step) = bench.next();
    let discover = Said { kind: Kind::Discover, to_all: true, ciaddr: NONE, requested: None, server: None };
    assert_eq!((wait, said(&step.frames[0])), (0, discover));
    let step = bench.answer(Kind::Offer);
    let request = Said { kind: Kind::Request, to_all: true, ciaddr: NONE, requested: Some(ADDRESS), server: Some(FIRST) };
    assert_eq!(said(&step.frames[0]), request);
    let terms = Terms {
        address: "192.0.2.10/24".parse().unwrap(),
        routers: vec![Ipv4Addr::new(192, 0, 2, 254)],
        routes: vec![],
        dns: vec![Ipv4Addr::new(192, 0, 2, 53), Ipv4Addr::new(192, 0, 2, 54)],
        mtu: Some(1400),
        server: FIRST,
        seconds: 3600,
    };
    assert_eq!((bench.answer(Kind::Ack), bench.client.terms()), (ClientStep::default(), None), "somebody may have it");
    let begin = bench.now;
    let steps: Vec<ClientStep> = (0..4).map(|_| bench.next().1).collect();
    assert!(steps[..3].iter().all(|step| step.events.is_empty() && asked(&step.frames[0]) == (NONE, ADDRESS)), "{steps:?}");
    assert_eq!(steps[3], ClientStep { frames: vec![], events: vec![Event::Bound(terms.clone())] });
    assert!((4..=7).contains(&(bench.now - begin).as_secs()), "RFC 5227");
    assert_eq!(bench.client.terms(), Some(&terms));
    assert_eq!(bench.answer(Kind::Ack), ClientStep::default(), "once is enough");
}

#[test]
fn pauses_double_up_to_a_minute_and_never_end() {
    let mut bench = Bench::new();
    let waits: Vec<u64> = (0..9).map(|_| bench.next().0).collect();
    for (wait, pause) in waits[1..].iter().zip([4, 8, 16, 32, 64, 64, 64, 64]) {
        assert!((pause - 1..=pause + 1).contains(wait), "{waits:?}");
    }
    bench.client.tick(bench.now);
    assert_eq!(bench.client.tick(bench.now), ClientStep::default(), "nothing is due");
}

#[test]
fn an_offer_that_is_not_confirmed_is_given_up() {
    let mut bench = Bench::new();
    bench.next();
    let first = bench.client.xid;
    assert_eq!(kinds(&bench.answer(Kind::Offer)), [Kind::Request]);
    for _ in 0..3 {
        assert_eq!(kinds(&bench.next().1), [Kind::Request]);
    }
    assert_eq!(bench.next().1, ClientStep::default());
    assert_eq!(kinds(&bench.next().1), [Kind::Discover]);
    assert_ne!(bench.client.xid, first);
}

#[test]
fn it_renews_with_its_server_then_rebinds_with_anybody_then_lets_go() {
    let mut bench = Bench::new();
    bench.bind();
    let began = bench.given;
    let step = bench.next().1;
    let renew = Said { kind: Kind::Request, to_all: false, ciaddr: ADDRESS, requested: None, server: None };
    assert_eq!(((bench.now - began).as_secs(), said(&step.frames[0])), (1800, renew));
    let mut at = Vec::new();
    let mut last = ClientStep::default();
    while last.events.is_empty() {
        last = bench.next().1;
        for frame in &last.frames {
            at.push(((bench.now - began).as_secs(), said(frame).to_all));
        }
    }
    let expected = [
        (2475, false),
        (2812, false),
        (2981, false),
        (3065, false),
        (3125, false),
        (3150, true),
        (3375, true),
        (3487, true),
        (3547, true),
    ];
    assert_eq!(at, expected);
    assert_eq!((last.events, bench.now - began), (vec![Event::Lost], Duration::from_secs(3600)));
    assert_eq!(kinds(&bench.next().1), [Kind::Discover]);
}

#[test]
fn a_renewal_counts_from_its_answer() {
    let mut bench = Bench::new();
    bench.bind();
    bench.next();
    assert_eq!(bench.answer(Kind::Ack), ClientStep::default(), "nothing has changed");
    assert_eq!(bench.next().0, 1800);
    assert_eq!(
        bench.answer_of(1, Kind::Ack, [192, 0, 2, 11], 3600),
        ClientStep::default(),
        "another address was not asked for"
    );
    let step = bench.answer_of(1, Kind::Ack, [192, 0, 2, 10], 7200);
    assert!(matches!(step.events.as_slice(), [Event::Bound(terms)] if terms.seconds == 7200));
}

#[test]
fn a_no_counts_from_the_server_that_was_asked() {
    let mut bench = Bench::new();
    bench.bind();
    assert_eq!(bench.answer(Kind::Nak), ClientStep::default(), "nobody asked");
    bench.next();
    assert_eq!(bench.answer_of(2, Kind::Nak, [0; 4], 1), ClientStep::default());
    assert_eq!(bench.answer(Kind::Nak).events, [Event::Lost]);
    assert_eq!(bench.client.terms(), None);
    assert_eq!(kinds(&bench.next().1), [Kind::Discover]);
}

#[test]
fn a_restart_asks_for_the_last_address() {
    let mut bench = Bench::new();
    bench.bind();
    bench.now += Duration::from_secs(60);
    bench.restart();
    let (_, step) = bench.next();
    let reboot = Said { kind: Kind::Request, to_all: true, ciaddr: NONE, requested: Some(ADDRESS), server: None };
    assert_eq!(said(&step.frames[0]), reboot);
    assert_eq!(bench.answer(Kind::Ack).events.len(), 1, "without a pause");
    assert_eq!(
        [bench.next(), bench.next()].map(|(wait, step)| (wait, asked(&step.frames[0]))),
        [0, 2].map(|wait| (wait, (ADDRESS, ADDRESS)))
    );
    bench.restart();
    assert_eq!(kinds(&bench.next().1), [Kind::Request]);
    assert_eq!(kinds(&bench.next().1), [Kind::Request]);
    assert_eq!(bench.next().1, ClientStep::default());
    assert_eq!(kinds(&bench.next().1), [Kind::Discover], "nobody knows it");
    bench.restart();
    bench.next();
    assert_eq!(bench.answer_of(2, Kind::Nak, [0; 4], 1), ClientStep::default());
    assert_eq!(kinds(&bench.next().1), [Kind::Discover], "another network says no");
    bench.restart();
    assert_eq!(kinds(&bench.next().1), [Kind::Discover], "so it is forgotten");
}

#[test]
fn a_lease_that_ended_meanwhile_is_not_asked_for() {
    let mut bench = Bench::new();
    bench.bind();
    bench.now += Duration::from_secs(3600);
    bench.restart();
    assert_eq!(kinds(&bench.next().1), [Kind::Discover]);
}

#[test]
fn an_address_in_use_is_declined_and_another_one_asked_for_later() {
    // A station has it, or asks for it at the same time.
    for (sender, target) in [(ADDRESS, NONE), (ADDRESS, FIRST), (NONE, ADDRESS)] {
        let mut bench = Bench::new();
        bench.next();
        bench.answer(Kind::Offer);
        bench.answer(Kind::Ack);
        bench.next();
        assert_eq!(bench.hears(FIRST, ADDRESS), ClientStep::default(), "who asks for it has another");
        assert_eq!(
            bench.client.receive(bench.now, &conflict::probe(CLIENT, ADDRESS)),
            ClientStep::default(),
            "its own, come back"
        );
        let step = bench.hears(sender, target);
        let decline = Said { kind: Kind::Decline, to_all: true, ciaddr: NONE, requested: Some(ADDRESS), server: Some(FIRST) };
        assert_eq!((said(&step.frames[0]), step.events), (decline, vec![Event::Conflict(ADDRESS, OTHER)]));
        let (wait, step) = bench.next();
        assert_eq!((wait, kinds(&step)), (10, vec![Kind::Discover]));
    }
}

#[test]
fn an_address_is_defended_once_and_then_given_up() {
    let mut bench = Bench::new();
    bench.bind();
    assert_eq!(bench.hears(NONE, ADDRESS), ClientStep::default(), "a probe, which the router answers");
    for _ in 0..2 {
        let step = bench.hears(ADDRESS, ADDRESS);
        assert_eq!((asked(&step.frames[0]), step.events), ((ADDRESS, ADDRESS), vec![]));
        bench.now += DEFENCE;
    }
    bench.hears(ADDRESS, ADDRESS);
    bench.now += Duration::from_secs(1);
    assert_eq!(bench.hears(ADDRESS, ADDRESS).events, [Event::Conflict(ADDRESS, OTHER)]);
    bench.restart();
    assert_eq!(kinds(&bench.next().1), [Kind::Discover], "it is forgotten");
}

#[test]
fn a_release_goes_to_the_server() {
    let mut bench = Bench::new();
    bench.bind();
    let step = bench.client.release(bench.now);
    let release = Said { kind: Kind::Release, to_all: false, ciaddr: ADDRESS, requested: None, server: Some(FIRST) };
    assert_eq!((said(&step.frames[0]), step.events), (release, vec![Event::Lost]));
    bench.restart();
    assert_eq!(kinds(&bench.next().1), [Kind::Discover]);
    bench = Bench::new();
    bench.bind();
    bench.restart();
    assert_eq!(kinds(&bench.client.release(bench.now)), [Kind::Release], "the last one's");
}

#[test]
fn what_no_station_can_have_is_not_taken() {
    for address in [[0; 4], [127, 0, 0, 1], [224, 0, 0, 1], [255; 4]] {
        let mut bench = Bench::new();
        bench.next();
        assert_eq!(bench.answer_of(1, Kind::Offer, address, 3600), ClientStep::default(), "{address:?}");
    }
    let mut bench = Bench::new();
    bench.next();
    bench.client.xid ^= 1;
    let frame_for_another = bench.answer(Kind::Offer);
    assert_eq!(kinds(&frame_for_another), [Kind::Request]);
}

impl Bench {
    /// A container's client, with its address.
    fn container() -> Self {
        let mut bench = Self::new();
        bench.client.purpose = Purpose::Container(None);
        bench.bind();
        assert!(bench.now - bench.given < Duration::from_secs(4), "somebody waits");
        bench
    }
}

fn refused(bench: &mut Bench, address: [u8; 4]) {
    assert_eq!(bench.answer_of(1, Kind::Offer, address, 3600), ClientStep::default(), "its address cannot be changed");
}

#[test]
fn a_container_keeps_its_address_and_asks_for_it_again() {
    let mut bench = Bench::container();
    // The end of the lease, or a no.
    for ends in [true, false] {
        let events = if ends {
            bench.now += Duration::from_secs(3600);
            bench.next().1.events
        } else {
            bench.next();
            bench.answer(Kind::Nak).events
        };
        assert_eq!(events, [Event::Lost]);
        let again = Said { kind: Kind::Discover, to_all: true, ciaddr: NONE, requested: Some(ADDRESS), server: None };
        assert_eq!(said(&bench.next().1.frames[0]), again);
        refused(&mut bench, [192, 0, 2, 11]);
        assert_eq!(said(&bench.next().1.frames[0]), again);
        assert_eq!(kinds(&bench.answer(Kind::Offer)), [Kind::Request]);
        bench.answer(Kind::Ack);
        let events: Vec<Event> = (0..6).flat_map(|_| bench.next().1.events).collect();
        assert!(matches!(&events[..], [Event::Bound(_)]), "{events:?}");
    }
}

#[test]
fn a_container_whose_lease_nobody_confirms_after_a_restart_is_told() {
    for no in [true, false] {
        let mut bench = Bench::container();
        bench.restart();
        assert_eq!(kinds(&bench.next().1), [Kind::Request]);
        let events = if no {
            bench.answer(Kind::Nak).events
        } else {
            bench.next();
            bench.next().1.events
        };
        assert_eq!(events, [Event::Lost]);
        assert_eq!(kinds(&bench.next().1), [Kind::Discover]);
        refused(&mut bench, [192, 0, 2, 11]);
    }
}

#[test]
fn a_container_defends_its_address_for_as_long_as_it_has_it() {
    let mut bench = Bench::container();
    for _ in 0..3 {
        let step = bench.hears(ADDRESS, ADDRESS);
        assert_eq!((asked(&step.frames[0]), step.events), ((ADDRESS, ADDRESS), vec![Event::Conflict(ADDRESS, OTHER)]));
        bench.now += Duration::from_secs(1);
        assert_eq!(bench.hears(ADDRESS, ADDRESS), ClientStep::default(), "not too often");
        bench.now += DEFENCE;
    }
    assert!(bench.client.terms().is_some());
}

#[test]
fn only_a_container_asks_for_routes() {
    for (purpose, asks) in [(Purpose::Uplink, false), (Purpose::Container(None), true)] {
        let mut bench = Bench::new();
        bench.client.purpose = purpose;
        let step = bench.next().1;
        let Some(Received::Datagram(datagram)) = wire::parse(&step.frames[0]) else { panic!("no datagram") };
        let message = Message::parse(datagram.payload, DhcpOpCode::Request).unwrap();
        assert_eq!(message.option(option::PARAMETERS).unwrap().contains(&option::ROUTES), asks);
    }
}

proptest! {
    #[test]
    fn whatever_servers_say_it_stays_well(steps in prop::collection::vec((0u8..8, 1u8..3, 0u32..100_000), 0..60)) {
        let mut bench = Bench::new();
        let mut bound = false;
        for (action, server, lease) in steps {
            let step = match action {
                0 => bench.answer_of(server, Kind::Offer, [192, 0, 2, 10], lease),
                1 | 2 => bench.answer_of(server, Kind::Ack, [192, 0, 2, 10], lease),
                3 => bench.answer_of(server, Kind::Nak, [0; 4], lease),
                4 => { bench.now += Duration::from_secs(lease.into()); bench.client.tick(bench.now) }
                5 => bench.hears(ADDRESS, ADDRESS),
                6 => { bench.restart(); bound = false; ClientStep::default() }
                _ => bench.next().1,
            };
            prop_assert!(step.frames.len() <= 1 && step.events.len() <= 1);
            for event in step.events {
                prop_assert!(bound || event != Event::Lost);
                bound = matches!(event, Event::Bound(_));
            }
            prop_assert_eq!(bound, bench.client.terms().is_some());
        }
    }
}
