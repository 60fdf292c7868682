use std::net::Ipv4Addr;

use smoltcp::wire::{DhcpMessageType as Kind, DhcpOpCode};

use super::*;
pub(super) use crate::services::dhcp4::PATIENCE;

/// A client's message.
fn message(kind: Kind, xid: u32, number: u8) -> Outgoing {
    let mut message = Outgoing::new(DhcpOpCode::Request, xid, mac(number));
    message.options.push((option::KIND, vec![kind.into()]));
    message
}

fn send(message: &Outgoing) -> Vec<u8> {
    let from = (message.ciaddr, 68).into();
    let to = "255.255.255.255:67".parse().unwrap();
    udp(Hop { from: message.chaddr, to: Mac::BROADCAST }, from, to, &message.encode().unwrap()).unwrap()
}

pub(super) fn discover(xid: u32, number: u8) -> Vec<u8> {
    send(&message(Kind::Discover, xid, number))
}

fn asking(xid: u32, number: u8, address: Ipv4Addr) -> Outgoing {
    let mut message = message(Kind::Request, xid, number);
    message.options.push((option::REQUESTED, address.octets().into()));
    message
}

pub(super) fn request(xid: u32, number: u8, address: &str) -> Vec<u8> {
    send(&asking(xid, number, address.parse().unwrap()))
}

fn naming_server(mut message: Outgoing, server: [u8; 4]) -> Vec<u8> {
    message.options.push((option::SERVER, server.into()));
    send(&message)
}

fn renewing(number: u8, address: Ipv4Addr) -> Outgoing {
    let mut message = message(Kind::Request, 5, number);
    message.ciaddr = address;
    message
}

/// What an answer says: its type, the address, and everything.
fn said(frame: &[u8]) -> (Kind, Ipv4Addr, Message<'_>) {
    let datagram = datagram(frame);
    assert_eq!(datagram.source, "10.10.0.1:67".parse().unwrap());
    let message = Message::parse(datagram.payload, DhcpOpCode::Reply).unwrap();
    (message.kind, message.yiaddr(), message)
}

impl Bench {
    fn answer4(&mut self, port: &str, frame: Vec<u8>) -> Option<(Kind, Ipv4Addr)> {
        self.frame(port, frame).map(|frame| {
            let (kind, address, _) = said(&frame);
            (kind, address)
        })
    }

    /// DISCOVER, OFFER, REQUEST, ACK.
    pub(super) fn lease4(&mut self, port: &str, number: u8) -> Ipv4Addr {
        let (kind, address) = self.answer4(port, discover(1, number)).unwrap();
        assert_eq!(kind, Kind::Offer);
        let request = naming_server(asking(1, number, address), [10, 10, 0, 1]);
        assert_eq!(self.answer4(port, request), Some((Kind::Ack, address)));
        address
    }
}

#[test]
fn a_station_gets_an_address_and_all_that_goes_with_it() {
    let mut bench = Bench::new();
    let frame = bench.frame("db", discover(0xabcd, 2)).unwrap();
    let (kind, address, message) = said(&frame);
    assert_eq!((kind, message.xid(), message.chaddr()), (Kind::Offer, 0xabcd, mac(2)));
    assert!(address > Ipv4Addr::new(10, 10, 0, 3) && address < Ipv4Addr::new(10, 10, 0, 255), "{address}");
    assert_eq!(datagram(&frame).destination, (address, 68).into());
    assert_eq!(destination(&frame), mac(2), "unicast, for it cannot be asked by ARP yet");
    let options = [
        (option::SUBNET_MASK, vec![255, 255, 255, 0]),
        (option::ROUTER, vec![10, 10, 0, 1]),
        (option::DNS, vec![10, 10, 0, 1]),
        (option::DOMAIN, b"br0.internal".to_vec()),
        (option::MTU, 1400_u16.to_be_bytes().into()),
        (option::BROADCAST, vec![10, 10, 0, 255]),
        (option::LEASE, 3600_u32.to_be_bytes().into()),
        (option::RENEWAL, 1800_u32.to_be_bytes().into()),
        (option::REBINDING, 3150_u32.to_be_bytes().into()),
        (option::SERVER, vec![10, 10, 0, 1]),
    ];
    for (code, data) in options {
        assert_eq!(message.option(code), Some(data.as_slice()), "option {code}");
    }
    assert_eq!(message.option(option::RELAY), None);
}

#[test]
fn only_what_is_asked_for_is_told_but_the_mask() {
    let mut bench = Bench::new();
    let mut message = message(Kind::Discover, 1, 9);
    message.options.push((option::PARAMETERS, vec![option::ROUTER]));
    let frame = bench.frame("db", send(&message)).unwrap();
    let (.., answer) = said(&frame);
    let has = |code| answer.option(code).is_some();
    assert!(has(option::ROUTER) && has(option::SUBNET_MASK) && has(option::LEASE) && !has(option::DNS) && !has(option::MTU));
}

#[test]
fn the_configured_station_gets_its_address_at_its_port_only() {
    let mut bench = Bench::new();
    assert_eq!(bench.lease4("web", 1), Ipv4Addr::new(10, 10, 0, 2));
    let elsewhere = bench.lease4("db", 1);
    assert_ne!(elsewhere, Ipv4Addr::new(10, 10, 0, 2), "a stolen MAC is not enough");
    let other = naming_server(asking(1, 1, Ipv4Addr::new(10, 10, 0, 77)), [10, 10, 0, 1]);
    assert_eq!(bench.answer4("web", other).unwrap().0, Kind::Nak);
}

#[test]
fn the_configured_addresses_go_to_nobody_else() {
    let mut bench = Bench::new();
    for address in ["10.10.0.0", "10.10.0.1", "10.10.0.2", "10.10.0.3", "10.10.0.255", "10.11.0.1", "255.255.255.255"] {
        assert_eq!(bench.answer4("db", request(1, 9, address)).unwrap().0, Kind::Nak, "{address}");
    }
}

#[test]
fn a_station_that_reboots_keeps_its_address_and_a_stranger_is_told_no() {
    let mut bench = Bench::new();
    let address = bench.lease4("db", 9);
    let again = request(2, 9, &address.to_string());
    assert_eq!(bench.answer4("db", again.clone()), Some((Kind::Ack, address)));
    bench.restart();
    assert_eq!(bench.answer4("db", again), Some((Kind::Ack, address)));
    let frame = bench.frame("cache", request(2, 8, &address.to_string())).unwrap();
    assert_eq!(said(&frame).0, Kind::Nak);
    assert_eq!((destination(&frame), datagram(&frame).destination), (Mac::BROADCAST, "255.255.255.255:68".parse().unwrap()));
    assert!(said(&frame).2.wants_broadcast() && said(&frame).2.option(option::SUBNET_MASK).is_none());
}

#[test]
fn a_lease_that_was_lost_with_the_table_is_granted_again() {
    let mut bench = Bench::new();
    let address = bench.lease4("db", 9);
    bench.services = Bench::new().services;
    let frame = bench.frame("db", send(&renewing(9, address))).unwrap();
    assert_eq!((said(&frame).0, said(&frame).1), (Kind::Ack, address));
}

#[test]
fn a_renewal_is_answered_to_the_address() {
    let mut bench = Bench::new();
    let address = bench.lease4("db", 9);
    bench.pass(1800);
    let frame = bench.frame("db", send(&renewing(9, address))).unwrap();
    let (kind, granted, message) = said(&frame);
    assert_eq!((kind, granted, message.ciaddr()), (Kind::Ack, address, address));
    assert_eq!((destination(&frame), datagram(&frame).destination), (mac(9), (address, 68).into()));
    bench.pass(3000);
    assert_eq!(bench.answer4("cache", request(1, 8, &address.to_string())).unwrap().0, Kind::Nak, "it was extended");
    bench.pass(600);
    assert_eq!(bench.answer4("cache", request(1, 8, &address.to_string())).unwrap().0, Kind::Ack, "until now");
    assert_eq!(bench.answer4("db", send(&renewing(9, address))).unwrap().0, Kind::Nak, "which its old client hears");
}

#[test]
fn a_client_that_cannot_take_unicast_gets_a_broadcast() {
    let mut bench = Bench::new();
    let mut message = message(Kind::Discover, 1, 9);
    message.broadcast = true;
    let frame = bench.frame("db", send(&message)).unwrap();
    assert_eq!((destination(&frame), datagram(&frame).destination), (Mac::BROADCAST, "255.255.255.255:68".parse().unwrap()));
    assert!(said(&frame).2.wants_broadcast());
}

#[test]
fn a_client_identifier_counts_more_than_the_hardware() {
    let mut bench = Bench::new();
    let with_id = |number| {
        let mut message = message(Kind::Discover, 1, number);
        message.options.push((option::CLIENT, vec![1, 2, 3]));
        send(&message)
    };
    let first = bench.answer4("db", with_id(8)).unwrap();
    assert_eq!(bench.answer4("db", with_id(9)), Some(first));
    assert_ne!(bench.answer4("db", discover(1, 8)), Some(first));
}

#[test]
fn another_servers_choice_frees_the_offer() {
    let mut bench = Bench::new();
    let (_, address) = bench.answer4("db", discover(1, 9)).unwrap();
    assert_eq!(bench.answer4("db", naming_server(asking(1, 9, address), [10, 10, 0, 200])), None);
    assert_eq!(bench.answer4("cache", request(1, 8, &address.to_string())), Some((Kind::Ack, address)));
}

#[test]
fn a_released_address_can_be_had_and_a_declined_one_cannot() {
    let mut bench = Bench::new();
    let address = bench.lease4("db", 9);
    let mut release = renewing(9, address);
    release.options = vec![(option::KIND, vec![Kind::Release.into()])];
    assert_eq!(bench.answer4("db", send(&release)), None);
    assert_eq!(bench.answer4("cache", request(1, 8, &address.to_string())), Some((Kind::Ack, address)));
    let mut decline = asking(1, 8, address);
    decline.options[0] = (option::KIND, vec![Kind::Decline.into()]);
    assert_eq!(bench.answer4("cache", send(&decline)), None);
    for number in [7, 8] {
        assert_eq!(bench.answer4("db", request(1, number, &address.to_string())).unwrap().0, Kind::Nak);
        assert_ne!(bench.answer4("db", discover(1, number)).unwrap().1, address);
    }
    bench.pass(600);
    assert_eq!(bench.answer4("db", request(1, 8, &address.to_string())), Some((Kind::Ack, address)));
}

#[test]
fn inform_is_answered_without_an_address() {
    let mut bench = Bench::new();
    let mut inform = message(Kind::Inform, 1, 9);
    inform.ciaddr = Ipv4Addr::new(10, 10, 0, 3);
    let frame = bench.frame("db", send(&inform)).unwrap();
    let (kind, address, message) = said(&frame);
    assert_eq!((kind, address), (Kind::Ack, Ipv4Addr::UNSPECIFIED));
    assert_eq!(datagram(&frame).destination, "10.10.0.3:68".parse().unwrap());
    assert!(message.option(option::LEASE).is_none() && message.option(option::DNS).is_some());
}

#[test]
fn a_relay_gets_its_option_back_last_and_another_subnet_is_not_served() {
    let mut bench = Bench::new();
    let mut relayed = message(Kind::Discover, 1, 9);
    relayed.giaddr = Ipv4Addr::new(10, 10, 0, 9);
    relayed.options.push((option::RELAY, vec![1, 2, 7, 7]));
    let frame = bench.frame("db", send(&relayed)).unwrap();
    assert_eq!(datagram(&frame).destination, "10.10.0.9:67".parse().unwrap());
    assert_eq!(said(&frame).2.option(option::RELAY), Some([1, 2, 7, 7].as_slice()));
    assert!(datagram(&frame).payload.ends_with(&[82, 4, 1, 2, 7, 7, 255]) || datagram(&frame).payload.len() == 300);
    relayed.giaddr = Ipv4Addr::new(10, 99, 0, 9);
    assert_eq!(bench.frame("db", send(&relayed)), None);
}

#[test]
fn a_shorter_lease_may_be_asked_for_but_not_a_longer_one() {
    let mut bench = Bench::new();
    for (wish, granted) in [(600_u32, 600_u32), (1, 120), (u32::MAX, 3600)] {
        let mut message = message(Kind::Discover, 1, 9);
        message.options.push((option::LEASE, wish.to_be_bytes().into()));
        let frame = bench.frame("db", send(&message)).unwrap();
        assert_eq!(said(&frame).2.number(option::LEASE), Some(granted));
    }
}

#[test]
fn a_port_that_invents_clients_leaves_addresses_to_the_others() {
    let mut bench = Bench::new();
    for number in 10..200 {
        let address = bench.answer4("db", discover(1, number)).map(|(_, address)| address);
        address.map(|address| bench.answer4("db", naming_server(asking(1, number, address), [10, 10, 0, 1])));
    }
    let taken = bench.services.leases(&"br0".parse().unwrap()).len();
    assert_eq!(taken, 126, "half of 251");
    let pool = bench.services.pools(bench.now)[&"br0".parse().unwrap()][0];
    let shortages = Shortages { exhausted: 0, refused: 64 };
    assert_eq!(pool, Usage { subnet: "10.10.0.0/24".parse().unwrap(), size: 251, used: 126, shortages });
    bench.lease4("cache", 4);
}

#[test]
fn an_empty_pool_is_counted() {
    let mut link = link();
    link.addresses[0] = "10.10.0.1/30".parse().unwrap();
    let mut bench = Bench::with(link);
    assert_eq!(bench.answer4("db", discover(1, 9)), None, "the gateway and web have both addresses");
    let pool = bench.services.pools(bench.now)[&"br0".parse().unwrap()][0];
    assert_eq!((pool.size, pool.used, pool.shortages.exhausted), (0, 0, 1));
}

#[test]
fn leases_outlive_a_restart_and_not_their_time() {
    let mut bench = Bench::new();
    let address = bench.lease4("db", 9);
    bench.restart();
    let rows = bench.services.leases(&"br0".parse().unwrap());
    assert_eq!((rows.len(), rows[0].address, rows[0].mac), (1, IpAddr::V4(address), mac(9)));
    assert_eq!(bench.answer4("cache", request(1, 8, &address.to_string())).unwrap().0, Kind::Nak);
    bench.pass(3600);
    bench.restart();
    assert_eq!(bench.answer4("cache", request(1, 8, &address.to_string())).unwrap().0, Kind::Ack);
}

#[test]
fn a_live_change_keeps_leases_inside_the_new_subnet() {
    let mut bench = Bench::new();
    let address = bench.lease4("db", 9);
    let mut wider = link();
    wider.addresses[0] = "10.10.0.1/16".parse().unwrap();
    bench.services.set_link(bench.now, wider);
    assert_eq!(bench.lease4("db", 9), address);
    let mut off = link();
    off.dhcp = false;
    bench.services.set_link(bench.now, off);
    assert_eq!(bench.frame("db", discover(1, 9)), None);
}

#[test]
fn what_is_no_ethernet_client_is_ignored() {
    let mut bench = Bench::new();
    let good = message(Kind::Discover, 1, 9).encode().unwrap();
    for (at, byte) in [(0, 2), (1, 6), (2, 16), (28, 1), (236, 0), (242, 77)] {
        let mut bad = good.clone();
        bad[at] = byte;
        let hop = Hop { from: mac(9), to: Mac::BROADCAST };
        let frame = udp(hop, "0.0.0.0:68".parse().unwrap(), "255.255.255.255:67".parse().unwrap(), &bad).unwrap();
        assert_eq!(bench.frame("db", frame), None, "byte {at}");
    }
}

/// An ARP message of a station to all.
fn arp(number: u8, sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let mut frame = [&Mac::BROADCAST.0[..], &mac(number).0, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1]].concat();
    frame.extend([&mac(number).0[..], &sender.octets(), &[0; 6], &target.octets()].concat());
    frame
}

impl Bench {
    /// The address about which the link is asked, if it is, after a message.
    fn probe4(&mut self, port: &str, frame: Vec<u8>) -> Option<Ipv4Addr> {
        let outputs = self.receive(port, frame);
        let [Output::Answer(answer)] = &outputs[..] else { return None };
        assert_eq!((destination(&answer.frame), answer.vlan), (Mac::BROADCAST, VlanId::try_from(7).ok()));
        let probe = wire::arp(&answer.frame)?;
        assert_eq!((probe.mac, probe.sender), (GATEWAY, Ipv4Addr::UNSPECIFIED), "no station takes the gateway for its owner");
        Some(probe.target)
    }

    fn offers(&mut self) -> Vec<Ipv4Addr> {
        let outputs = self.services.hurry(self.now);
        let address = |output| match output {
            Output::Answer(answer) => said(&answer.frame).1,
            other => panic!("{other:?}"),
        };
        outputs.into_iter().map(address).collect()
    }
}

#[test]
fn the_link_is_asked_before_an_address_is_offered_and_a_client_with_a_lease_does_not_wait() {
    let mut bench = Bench::new();
    let address = bench.probe4("db", discover(1, 9)).unwrap();
    assert!(bench.services.is_hurried());
    bench.now += PATIENCE - Duration::from_millis(1);
    assert!(bench.offers().is_empty());
    assert_eq!(bench.receive("db", discover(2, 9)), [], "asked again, it waits no longer for that");
    bench.now += Duration::from_millis(1);
    assert_eq!((bench.offers(), bench.offers()), (vec![address], vec![]));
    assert!(!bench.services.is_hurried());
    assert_eq!(bench.answer4("db", naming_server(asking(2, 9, address), [10, 10, 0, 1])), Some((Kind::Ack, address)));
    let before = bench.now;
    assert_eq!(bench.answer4("db", discover(3, 9)), Some((Kind::Offer, address)));
    assert_eq!(bench.answer4("web", discover(4, 1)), Some((Kind::Offer, Ipv4Addr::new(10, 10, 0, 2))), "as configured");
    assert_eq!(bench.now, before, "at once");
}

#[test]
fn an_address_that_a_silent_station_has_is_not_offered() {
    let mut bench = Bench::new();
    let taken = bench.probe4("db", discover(1, 9)).unwrap();
    // It answers a probe, which has no sender's address, so the frame has no target.
    let next = bench.probe4("cache", arp(77, taken, Ipv4Addr::UNSPECIFIED)).unwrap();
    assert_ne!(next, taken);
    bench.now += PATIENCE;
    assert_eq!(bench.offers(), [next]);
    let row = bench.services.leases(&"br0".parse().unwrap()).into_iter().find(|row| row.address == IpAddr::V4(taken)).unwrap();
    assert_eq!(row.state, api::LeaseState::Declined);
    assert_eq!(bench.answer4("db", request(1, 8, &taken.to_string())).unwrap().0, Kind::Nak);
}

#[test]
fn what_the_client_itself_says_about_its_address_is_no_objection() {
    let mut bench = Bench::new();
    let address = bench.probe4("db", discover(1, 9)).unwrap();
    assert_eq!(bench.receive("db", arp(9, address, Ipv4Addr::new(10, 10, 0, 1))), []);
    bench.now += PATIENCE;
    assert_eq!(bench.offers(), [address]);
}

#[test]
fn a_station_that_was_heard_keeps_its_address_for_ten_minutes() {
    let mut bench = Bench::new();
    let address = bench.lease4("db", 9);
    bench.pass(4000);
    assert_eq!(bench.receive("db", arp(77, address, Ipv4Addr::new(10, 10, 0, 9))), []);
    assert_ne!(bench.answer4("db", discover(1, 9)).unwrap().1, address, "its lease is over, and another station has it");
    assert_eq!(bench.answer4("cache", request(1, 8, &address.to_string())).unwrap().0, Kind::Nak);
    assert_eq!(bench.answer4("cache", request(1, 77, &address.to_string())).unwrap().0, Kind::Ack, "its own");
    let other = Ipv4Addr::new(10, 10, 0, 200);
    bench.receive("db", arp(78, other, Ipv4Addr::new(10, 10, 0, 9)));
    bench.pass(599);
    assert_eq!(bench.answer4("cache", request(1, 7, "10.10.0.200")).unwrap().0, Kind::Nak);
    bench.pass(1);
    assert_eq!(bench.answer4("cache", request(1, 7, "10.10.0.200")), Some((Kind::Ack, other)));
}

#[test]
fn a_port_that_claims_every_address_leaves_some_to_the_others() {
    let mut bench = Bench::new();
    for number in 1..=254 {
        bench.receive("db", arp(77, Ipv4Addr::new(10, 10, 0, number), Ipv4Addr::new(10, 10, 0, 1)));
    }
    for number in 0..50 {
        bench.lease4("cache", 100 + number);
    }
}

#[test]
fn what_becomes_of_leases_is_told_once_and_not_again_after_a_restart() {
    let mut bench = Bench::new();
    let told = |bench: &mut Bench| {
        bench.services.tick(bench.now);
        let mut said = Vec::new();
        for output in bench.services.news(bench.now) {
            match output {
                Output::Leases(news) => said.extend(news.into_iter().map(|news| (news.address.to_string(), news.state))),
                Output::Usage(usage) => {
                    said.push((format!("{} in use", usage[&"br0".parse().unwrap()][0].used), api::LeaseState::Bound))
                }
                other => panic!("{other:?}"),
            }
        }
        said
    };
    told(&mut bench);
    let (_, address) = bench.answer4("web", discover(1, 9)).unwrap();
    assert_eq!(told(&mut bench).iter().filter(|(what, _)| *what == address.to_string()).count(), 0, "an offer is no lease");
    bench.answer4("web", request(1, 9, &address.to_string())).unwrap();
    let first = told(&mut bench);
    assert!(first.contains(&(address.to_string(), api::LeaseState::Bound)), "{first:?}");
    assert_eq!(told(&mut bench), []);
    bench.restart();
    assert!(told(&mut bench).iter().all(|(what, _)| what.ends_with("in use")));
}
