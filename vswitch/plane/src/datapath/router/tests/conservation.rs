//! Every frame is delivered, answered or dropped with its reason: none vanishes.

use packet::checksum::Sum;
use packet::protocol;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;

/// What became of one frame.
#[derive(Debug)]
struct Fate {
    /// How often it left.
    delivered: usize,
    /// Frames of the switch's own that came of it, at once or later.
    answered: usize,
    /// What the services got.
    punted: usize,
    dropped: u64,
    /// Whether it taught the gateway where a neighbour is.
    noted: bool,
}

impl Fate {
    fn of(lab: &mut Lab, port: PortId, frame: &[u8]) -> Self {
        let drops = |lab: &Lab| -> u64 {
            let all = |port| DropReason::ALL.map(|reason| lab.drops(port, reason)).iter().sum::<u64>();
            [A, B, C, WAN].map(all).iter().sum()
        };
        let neighbors = |lab: &Lab| [BridgeId(0), BridgeId(1), UPLINK].map(|bridge| lab.datapath.neighbors(lab.now, bridge));
        let (before, known) = (drops(lab), neighbors(lab));
        lab.forward(port, frame, Offload::default());
        let departures: Vec<_> =
            lab.outputs.used().iter().flat_map(|port| lab.outputs.queue(*port)).map(|next| next.frame).collect();
        let delivered = departures.iter().filter(|frame| **frame == 0).count();
        let noted = neighbors(lab) != known;
        lab.collect();
        // What waits for a neighbour or for another fragment is dropped in the end.
        let later: usize = (0..70).map(|_| lab.tick().len()).sum();
        let punted = lab.datapath.take_punts().count();
        Self { delivered, answered: departures.len() - delivered + later, punted, dropped: drops(lab) - before, noted }
    }

    fn is_known(&self) -> bool {
        let taken = self.answered + self.punted > 0 || self.noted;
        match (self.delivered, self.dropped) {
            (0, 0) => taken,
            (0, 1) | (_, 0) => true,
            _ => false,
        }
    }
}

fn macs() -> impl Strategy<Value = Mac> {
    let groups = [Mac::BROADCAST, Mac([0x33, 0x33, 0, 0, 0, 1]), Mac([1, 0, 0x5e, 0, 0, 1])];
    select([&[gateway(0), gateway(1), gateway(9), station(1), station(2), station(77)][..], &groups].concat())
}

fn v4() -> impl Strategy<Value = [u8; 4]> {
    select(vec![
        [10, 0, 0, 1],
        [10, 0, 0, 11],
        [10, 0, 0, 12],
        [10, 0, 0, 77],
        [10, 0, 0, 255],
        [10, 0, 1, 1],
        [10, 0, 1, 13],
        [10, 0, 1, 255],
        [192, 0, 2, 10],
        [192, 0, 2, 1],
        [192, 0, 2, 255],
        [255; 4],
        [224, 0, 0, 1],
        [239, 1, 2, 3],
        [240, 0, 0, 1],
        [127, 0, 0, 1],
        [169, 254, 1, 1],
        [0; 4],
        HOST,
    ])
}

fn v6() -> impl Strategy<Value = [u8; 16]> {
    let texts = vec![
        "fd00::1",
        "fd00::11",
        "fd00::77",
        "fd01::1",
        "2001:db8::10",
        "2001:db8::1",
        "2001:db9::7",
        "ff02::1",
        "ff02::2",
        "ff02::1:ff00:1",
        "ff0e::5",
        "fe80::1",
        "::",
        "::1",
    ];
    select(texts).prop_map(|text| text.parse::<std::net::Ipv6Addr>().unwrap().octets())
}

/// A protocol's number and its bytes, with a checksum where it has one.
fn transports() -> impl Strategy<Value = (u8, Vec<u8>)> {
    let numbers = select(vec![protocol::UDP, protocol::TCP, protocol::ICMP, protocol::ICMP6, 2, 47, 132, 255]);
    let ports = select(vec![53_u16, 67, 68, 123, 546, 547, 4789, 5000]);
    let types = prop_oneof![select(vec![0_u8, 3, 5, 8, 11, 128, 129, 130, 133, 134, 135, 136, 137, 143]), any::<u8>()];
    (numbers, ports.clone(), ports, types, any::<u8>(), prop::collection::vec(any::<u8>(), 0..40)).prop_map(
        |(number, from, to, kind, flags, rest)| {
            let ports = [from.to_be_bytes(), to.to_be_bytes()].concat();
            let length = u16::try_from(8 + rest.len()).unwrap().to_be_bytes();
            let head = match number {
                protocol::UDP => [&ports[..], &length, &[0, 0]].concat(),
                protocol::TCP => [&ports[..], &[0; 8], &[0x50, flags, 1, 0, 0, 0, 0, 0]].concat(),
                _ => vec![kind, 0, 0, 0, 0, 0, 0, 0],
            };
            (number, [head, rest].concat())
        },
    )
}

fn summed(addresses: &[u8], number: u8, mut bytes: Vec<u8>) -> Vec<u8> {
    let (offset, pseudo) = match number {
        protocol::UDP => (6, true),
        protocol::TCP => (16, true),
        protocol::ICMP => (2, false),
        protocol::ICMP6 => (2, true),
        _ => return bytes,
    };
    let sum = Sum::new().plus(&bytes);
    let length = u16::try_from(bytes.len()).unwrap();
    let sum = if pseudo {
        sum.plus_number(number.into()).plus_number(length).plus_number(Sum::new().plus(addresses).folded())
    } else {
        sum
    };
    bytes[offset..offset + 2].copy_from_slice(&sum.checksum().to_be_bytes());
    bytes
}

fn packets() -> impl Strategy<Value = (u16, Vec<u8>)> {
    let hops = || select(vec![0_u8, 1, 2, 64, 255]);
    let bits = prop_oneof![4 => Just(0_u16), 1 => select(vec![0x4000_u16, 0x2000, 0x2003, 7])];
    let packet4 = (v4(), v4(), hops(), bits, transports()).prop_map(|(from, to, hops, bits, (number, bytes))| {
        let addresses = [from, to].concat();
        let body = summed(&addresses, number, bytes);
        let length = u16::try_from(20 + body.len()).unwrap().to_be_bytes();
        let mut header = [&[0x45, 0][..], &length, &[0, 9], &bits.to_be_bytes(), &[hops, number, 0, 0], &addresses].concat();
        let sum = Sum::new().plus(&header).checksum().to_be_bytes();
        header[10..12].copy_from_slice(&sum);
        (0x0800, [header, body].concat())
    });
    let packet6 = (v6(), v6(), hops(), transports()).prop_map(|(from, to, hops, (number, bytes))| {
        let addresses = [from, to].concat();
        let body = summed(&addresses, number, bytes);
        let length = u16::try_from(body.len()).unwrap().to_be_bytes();
        (0x86dd, [&[0x60, 0, 0, 0][..], &length, &[number, hops], &addresses, &body].concat())
    });
    let arp = (1_u8..4, macs(), v4(), v4()).prop_map(|(operation, mac, sender, target)| {
        (0x0806, [&[0, 1, 8, 0, 6, 4, 0, operation][..], &mac.0, &sender, &[0; 6], &target].concat())
    });
    let kinds = select(vec![0x0800_u16, 0x0806, 0x86dd, 0x88cc, 0x8847, 0x9000, 60]);
    let other = (kinds, prop::collection::vec(any::<u8>(), 0..60));
    prop_oneof![4 => packet4, 3 => packet6, 2 => arp, 1 => other]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn no_frame_vanishes(
        port in select(vec![A, B, C, WAN]),
        destination in macs(),
        source in macs(),
        (kind, payload) in packets(),
        host: bool,
        isolated: bool,
    ) {
        let mut lab = Lab::new(isolated, if host { Translation::Host(station(8)) } else { nat() });
        lab.introduce();
        lab.publish();
        // A neighbour that is heard of again is seen to be younger.
        lab.tick();
        let frame = [&destination.0[..], &source.0, &kind.to_be_bytes(), &payload].concat();
        let fate = Fate::of(&mut lab, port, &frame);
        prop_assert!(fate.is_known(), "{:?}", fate);
    }
}

#[test]
fn a_packet_to_a_group_in_a_frame_to_the_gateway_is_counted() {
    let mut lab = Lab::new(true, nat());
    lab.introduce();
    let before = lab.drops(A, DropReason::NoService);
    for destination in [[10, 0, 0, 255], [255; 4], [224, 0, 0, 1]] {
        let from = (station(1), [10, 0, 0, 11]);
        assert_eq!(lab.send(A, &udp((from.0, from.1, 1), (gateway(0), destination, 2), 64, b"")), []);
        assert_eq!(lab.send(A, &ping(from, (gateway(0), destination))), []);
    }
    assert_eq!(lab.drops(A, DropReason::NoService) - before, 6);
}

#[test]
fn a_broadcast_that_no_other_port_and_no_gateway_wants_is_counted() {
    let mut lab = Lab::new(true, nat());
    lab.introduce();
    let before = lab.drops(C, DropReason::NoDestination);
    assert_eq!(lab.send(C, &udp((station(3), [10, 0, 1, 13], 1), (Mac::BROADCAST, [10, 0, 1, 255], 2), 64, b"")), []);
    assert_eq!(lab.drops(C, DropReason::NoDestination) - before, 1);
    // Where another port gets it, it was not dropped.
    assert_eq!(lab.send(A, &udp((station(1), [10, 0, 0, 11], 1), (Mac::BROADCAST, [10, 0, 0, 255], 2), 64, b"")).len(), 1);
    assert_eq!(lab.drops(A, DropReason::NoDestination) + lab.drops(A, DropReason::NoService), 0);
}
