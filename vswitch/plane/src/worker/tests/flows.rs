//! The busiest flows, as workers show them without being asked.

use etherparse::PacketBuilder;

use super::*;
use crate::datapath::{Fate, FlowRate, GatewaySettings, Side};

const GATEWAY: Mac = Mac([2, 0, 0, 0, 0, 0xfe]);

/// A datagram from port 0 to the station at port 1, of a flow with this number.
fn datagram(number: u32, payload: usize) -> Vec<u8> {
    let [_, host, high, low] = number.to_be_bytes();
    let mut bytes = Vec::new();
    let builder = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]).ipv4([10, host, 0, 1], [10, 0, 0, 2], 64);
    builder.udp(u16::from_be_bytes([high, low]), 53).write(&mut bytes, &vec![0; payload]).unwrap();
    bytes
}

/// The flows of all workers, the busiest first, by their numbers.
fn flows(plane: &Plane) -> Vec<(u16, FlowRate)> {
    let mut flows: Vec<FlowRate> = plane.workers.iter().flat_map(|worker| worker.counts().flows.clone()).collect();
    flows.sort_by(|one, other| other.bytes.total_cmp(&one.bytes));
    let number = |rate: &FlowRate| rate.flow.packet.and_then(|packet| packet.ports).map_or(0, |ports| ports.0);
    flows.iter().map(|rate| (number(rate), *rate)).collect()
}

#[test]
fn what_another_worker_routes_is_a_flow_of_the_port_that_it_came_in_by() {
    let plane = Plane::new(2, 2);
    let gateway = GatewaySettings {
        mac: GATEWAY,
        vlan: VlanId::DEFAULT,
        mtu: 1500,
        addresses: vec!["10.0.0.1/8".parse().unwrap()],
        routes: Vec::new(),
        side: Side::Inside { uplink: None, isolated: false, dhcp: false },
    };
    plane.tell(|| Command::SetGateway(BridgeId(0), Some(gateway.clone())));
    let mut ping = Vec::new();
    let builder = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], GATEWAY.0).ipv4([10, 9, 0, 1], [10, 0, 0, 1], 64);
    builder.icmpv4_echo_request(1, 1).write(&mut ping, &[7; 50]).unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut shown = Vec::new();
    while shown.is_empty() && Instant::now() < deadline {
        assert!(plane.far[0][1].push(&ping, Offload::default()));
        plane.settle(&[0]);
        plane.far.iter().flatten().for_each(|far| drop(far.drain()));
        std::thread::sleep(Duration::from_millis(20));
        shown = flows(&plane);
        shown.retain(|(_, rate)| rate.flow.packet.is_some());
    }
    let [(_, rate)] = &shown[..] else { panic!("{shown:?}") };
    assert_eq!((rate.ingress, rate.flow.destination), (PortId(0), GATEWAY), "once, though two workers had it");
    assert!(!matches!(rate.fate, Fate::HandedOver | Fate::Dropped(_)), "{rate:?}");
}

#[test]
fn two_elephants_are_shown_beside_a_flood_of_mice_by_any_number_of_workers() {
    for workers in [1, 2] {
        let plane = Plane::new(workers, 2);
        let hello = [&[0xff; 6][..], &[2, 0, 0, 0, 0, 2], &[0x88, 0xb5], &[0; 46]].concat();
        plane.far[1].iter().for_each(|far| assert!(far.push(&hello, Offload::default())));
        plane.settle(&[1]);
        let (elephants, mut mouse) = ([datagram(1, 1400), datagram(2, 1400)], 1000);
        let deadline = Instant::now() + Duration::from_secs(20);
        let mut shown = Vec::new();
        while Instant::now() < deadline {
            for turn in 0..400_usize {
                mouse += 1;
                plane.far[0][turn % workers].push(&datagram(mouse, 18), Offload::default());
                if turn % 10 == 0 {
                    // Each flow has its worker. The first has twice as many frames as the second.
                    plane.far[0][0].push(&elephants[0], Offload::default());
                    plane.far[0][0].push(&elephants[0], Offload::default());
                    plane.far[0][workers - 1].push(&elephants[1], Offload::default());
                }
            }
            plane.settle(&[0]);
            plane.far[1].iter().for_each(|far| drop(far.drain()));
            shown = flows(&plane);
            let is_right = matches!(shown[..], [(1, first), (2, second), ..] if first.bytes > 1.3 * second.bytes);
            if is_right && mouse > 20_000 {
                break;
            }
        }
        let [(1, first), (2, second), ..] = shown[..] else { panic!("{workers} workers: {shown:?}") };
        for rate in [first, second] {
            assert_eq!((rate.ingress, rate.fate, rate.egress), (PortId(0), Fate::Bridged(PortId(1)), Some(PortId(1))));
        }
        assert!(first.bytes > 1.3 * second.bytes, "{first:?} {second:?}");
    }
}
