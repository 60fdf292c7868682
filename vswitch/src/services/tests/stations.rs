//! Containers that ask, and the server of another switch's gateway on the same LAN.

use super::*;
use crate::services::client::Event;

/// The LAN, with a container at `ep-1` that asks in VLAN 7.
struct Lan {
    asking: Services,
    server: Bench,
    directory: TempDir,
    /// Whether the server hears what is said.
    connected: bool,
}

fn container(address: Option<[u8; 4]>) -> Station {
    Station {
        port: "ep-1".parse().unwrap(),
        bridge: "lan-wan".parse().unwrap(),
        vlan: VlanId::try_from(7).unwrap(),
        mac: mac(9),
        question: Question::Lease(address.map(Into::into)),
    }
}

impl Lan {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let asking = Services::new(directory.path(), 5);
        let mut lan = Self { asking, server: Bench::new(), directory, connected: true };
        lan.set(vec![container(None)]);
        lan
    }

    fn set(&mut self, stations: Vec<Station>) -> Vec<Event> {
        let outputs = self.asking.set_stations(self.server.now, stations);
        self.carry(outputs)
    }

    /// Lets time pass, in the steps in which hurried stations are served.
    fn pass(&mut self, tenths: u64) -> Vec<Event> {
        let mut events = Vec::new();
        for _ in 0..tenths {
            self.server.now += Duration::from_millis(100);
            let offers = self.server.services.hurry(self.server.now);
            events.extend(self.hear_all(offers));
            let outputs = self.asking.tick(self.server.now);
            events.extend(self.carry(outputs));
        }
        events
    }

    /// Carries frames to and fro until nothing is said any more.
    fn carry(&mut self, outputs: Vec<Output>) -> Vec<Event> {
        let mut events = Vec::new();
        for output in outputs {
            match output {
                Output::Changed(port, event) => events.extend(Some(event).filter(|_| port.as_str() == "ep-1")),
                Output::Answer(GatewayAnswer { bridge, vlan, frame }) => {
                    assert_eq!((bridge.as_str(), vlan), ("lan-wan", VlanId::try_from(7).ok()));
                    let answers = if self.connected { self.server.receive("db", frame) } else { Vec::new() };
                    events.extend(self.hear_all(answers));
                }
                other => panic!("{other:?}"),
            }
        }
        events
    }

    fn hear_all(&mut self, answers: Vec<Output>) -> Vec<Event> {
        let mut events = Vec::new();
        for answer in answers {
            let Output::Answer(GatewayAnswer { frame, .. }) = answer else { panic!("{answer:?}") };
            events.extend(self.hear("lan-wan", 7, frame));
        }
        events
    }

    /// What the container's client does about a frame on a bridge.
    fn hear(&mut self, bridge: &str, vlan: u16, frame: Vec<u8>) -> Vec<Event> {
        let punt =
            Punt { bridge: bridge.parse().unwrap(), port: "lan".parse().unwrap(), vlan: VlanId::try_from(vlan).ok(), frame };
        let outputs = self.asking.receive(self.server.now, &punt);
        self.carry(outputs)
    }

    fn leases(&self) -> Vec<Lease> {
        self.server.services.leases(&"br0".parse().unwrap())
    }

    fn files(&self) -> usize {
        std::fs::read_dir(self.directory.path()).unwrap().count()
    }
}

#[test]
fn a_container_has_its_address_within_two_seconds_and_gives_it_back() {
    let mut lan = Lan::new();
    let events = lan.pass(20);
    let [Event::Bound(terms)] = &events[..] else { panic!("{events:?}") };
    assert_eq!((terms.server, lan.leases().len(), lan.files()), ([10, 10, 0, 1].into(), 1, 1));
    assert!(!lan.asking.is_hurried());
    // The control side says that it has it; nothing begins anew.
    let address = terms.address.addr().octets();
    assert_eq!(lan.set(vec![container(Some(address))]), []);
    assert_eq!(lan.pass(20_000), [], "renewals are nobody's matter");
    assert_eq!(lan.leases()[0].state, api::LeaseState::Bound);
    assert_eq!(lan.set(vec![]), []);
    assert_eq!((lan.leases().iter().filter(|lease| lease.state == api::LeaseState::Bound).count(), lan.files()), (0, 0));
}

#[test]
fn a_container_that_came_back_before_its_death_was_noticed_keeps_its_address() {
    let mut lan = Lan::new();
    lan.pass(20);
    let std::net::IpAddr::V4(v4) = lan.leases()[0].address else { panic!("no address") };
    let (dead, new) = (Station { port: "ep-0".parse().unwrap(), ..container(Some(v4.octets())) }, container(None));
    lan = Lan { asking: Services::new(lan.directory.path(), 6), ..lan };
    lan.set(vec![dead.clone()]);
    lan.set(vec![dead, new.clone()]);
    let events = lan.pass(20);
    assert!(matches!(&events[..], [Event::Bound(terms)] if terms.address.addr() == v4), "{events:?}");
    lan.set(vec![new]);
    assert_eq!((lan.leases()[0].state, lan.files()), (api::LeaseState::Bound, 1));
}

#[test]
fn whoever_waits_is_told_after_eight_seconds_that_nobody_answers_and_once() {
    let mut lan = Lan::new();
    lan.connected = false;
    assert_eq!(lan.pass(79), []);
    assert_eq!(lan.pass(1), [Event::Unanswered]);
    assert_eq!(lan.pass(1000), []);
}

#[test]
fn an_offer_that_is_never_granted_is_told_after_half_a_minute() {
    let mut lan = Lan::new();
    let outputs = lan.asking.tick(lan.server.now);
    let Output::Answer(discover) = &outputs[0] else { panic!("{outputs:?}") };
    let Some(Output::Answer(offer)) = Bench::new().receive_in_peace("db", discover.frame.clone()).pop() else {
        panic!("no offer")
    };
    lan.connected = false;
    for (bridge, vlan) in [("lan-wan", 8), ("lan-eth9", 7)] {
        assert_eq!(lan.hear(bridge, vlan, offer.frame.clone()), []);
        assert_eq!(lan.asking.receive(lan.server.now, &Punt { vlan: None, ..punt(&offer.frame) }), [], "not for it");
    }
    assert_eq!(lan.hear("lan-wan", 7, offer.frame), []);
    assert_eq!(lan.pass(299), []);
    assert_eq!(lan.pass(1), [Event::Unfinished]);
}

fn punt(frame: &[u8]) -> Punt {
    Punt { bridge: "lan-wan".parse().unwrap(), port: "lan".parse().unwrap(), vlan: None, frame: frame.to_vec() }
}

#[test]
fn a_new_process_asks_for_the_lease_again_and_forgets_those_of_the_dead() {
    let mut lan = Lan::new();
    lan.pass(20);
    std::fs::write(lan.directory.path().join("lease-ep-2.json"), "{}").unwrap();
    std::fs::write(lan.directory.path().join("uplink-wan.json"), "{}").unwrap();
    let address = lan.leases()[0].address;
    let std::net::IpAddr::V4(v4) = address else { panic!("{address}") };
    lan.asking = Services::new(lan.directory.path(), 6);
    lan.set(vec![container(Some(v4.octets()))]);
    assert_eq!(lan.files(), 2);
    let events = lan.pass(10);
    assert!(matches!(&events[..], [Event::Bound(terms)] if terms.address.addr() == address), "{events:?}");
}

/// An ARP frame in which station 8 says that it has, or asks for, an address.
fn arp(sender: [u8; 4], target: [u8; 4]) -> Vec<u8> {
    let packet = etherparse::ArpPacket::new(
        etherparse::ArpHardwareId::ETHERNET,
        etherparse::EtherType::IPV4,
        etherparse::ArpOperation::REPLY,
        &mac(8).0,
        &sender,
        &mac(9).0,
        &target,
    );
    let mut frame = Vec::new();
    etherparse::PacketBuilder::ethernet2(mac(8).0, mac(9).0).arp(packet.unwrap()).write(&mut frame).unwrap();
    frame
}

#[test]
fn an_address_of_a_range_is_asked_for_and_one_that_somebody_has_is_told() {
    let address = [192, 0, 2, 50];
    for heard in [None, Some(arp(address, [0; 4])), Some(arp([0; 4], address)), Some(arp([192, 0, 2, 51], [0; 4]))] {
        let mut lan = Lan::new();
        lan.set(vec![Station { question: Question::Free(address.into()), ..container(None) }]);
        assert!(lan.asking.is_hurried());
        assert_eq!(lan.pass(2), []);
        let in_use = heard.as_ref().is_some_and(|frame| *frame != arp([192, 0, 2, 51], [0; 4]));
        let events = heard.map_or_else(Vec::new, |frame| lan.hear("lan-wan", 7, frame));
        let expected = if in_use { Event::Conflict(address.into(), mac(8)) } else { Event::Free };
        assert_eq!([events, lan.pass(20)].concat(), [expected]);
        assert_eq!((lan.leases().len(), lan.asking.is_hurried(), lan.pass(100)), (0, false, vec![]));
    }
}
