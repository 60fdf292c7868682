//! Containers for which the services ask a DHCP server of their LAN.

use super::*;

const LAN: BridgeId = BridgeId(5);
/// The interface of the LAN, and the container, if it is there.
const LINK: PortId = PortId(5);
const EP: PortId = PortId(6);

fn vlan(number: u16) -> VlanId {
    VlanId::try_from(number).unwrap()
}

/// A LAN without a gateway, on whose VLAN 7 station 1 is a container.
fn lan() -> Lab {
    let mut lab = Lab::new(true, nat());
    let settings = BridgeSettings {
        mtu: 1500,
        ageing: 300,
        max_macs: 100,
        control_frames: ControlFrames::Drop,
        ..BridgeSettings::default()
    };
    lab.datapath.set_bridge(lab.now, LAN, settings);
    for (port, vlans) in [(LINK, VlanMode::All), (EP, VlanMode::Access(vlan(7)))] {
        lab.datapath.set_port(port, &PortSettings { vlans, ..PortSettings::on(LAN) });
    }
    lab.datapath.set_clients(LAN, vec![(vlan(7), station(1))]);
    lab
}

fn tagged(frame: &[u8], number: u16) -> Vec<u8> {
    [&frame[..12], &[0x81, 0], &number.to_be_bytes(), &frame[12..]].concat()
}

fn reply(to: Mac, port: u16) -> Vec<u8> {
    udp((station(9), [192, 0, 2, 1], 67), (to, [192, 0, 2, 50], port), 64, b"offer")
}

fn arp(to: Mac, sender: [u8; 4], target: [u8; 4]) -> Vec<u8> {
    let packet = ArpPacket::new(
        ArpHardwareId::ETHERNET,
        EtherType::IPV4,
        ArpOperation::REPLY,
        &station(9).0,
        &sender,
        &station(1).0,
        &target,
    );
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(station(9).0, to.0).arp(packet.unwrap()).write(&mut frame).unwrap();
    frame
}

/// The ports that a frame leaves by, and the VLAN in which the services get it.
fn sent(lab: &mut Lab, frame: &[u8]) -> (Vec<PortId>, Option<u16>) {
    let left = lab.send(LINK, frame).into_iter().map(|Left(port, _)| port).collect();
    let punts: Vec<Punt> = lab.datapath.take_punts().collect();
    assert!(punts.iter().all(|punt| (punt.bridge, punt.frame.as_slice()) == (LAN, frame)) && punts.len() < 2);
    (left, punts.first().and_then(|punt| punt.vlan).map(VlanId::number))
}

#[test]
fn the_services_get_what_may_be_an_answer_and_the_container_all_else() {
    let mut lab = lan();
    let [own, all] = [station(1), Mac::BROADCAST];
    for (frame, leaves, punted) in [
        (tagged(&reply(own, 68), 7), vec![], Some(7)),
        (tagged(&reply(all, 68), 7), vec![EP], Some(7)),
        (tagged(&reply(own, 67), 7), vec![EP], None),
        (tagged(&reply(station(2), 68), 7), vec![EP], None),
        (tagged(&reply(own, 68), 8), vec![], None),
        (tagged(&arp(own, [192, 0, 2, 50], [0; 4]), 7), vec![EP], Some(7)),
        (tagged(&arp(all, [0; 4], [192, 0, 2, 50]), 7), vec![EP], Some(7)),
        (tagged(&arp(own, [192, 0, 2, 1], [192, 0, 2, 50]), 7), vec![EP], None),
        (tagged(&arp(all, [192, 0, 2, 1], [192, 0, 2, 51]), 7), vec![EP], None),
        (tagged(&reply(own, 68)[..40], 7), vec![EP], None),
    ] {
        assert_eq!(sent(&mut lab, &frame), (leaves, punted), "{frame:?}");
    }
    lab.datapath.set_clients(LAN, vec![]);
    assert_eq!(sent(&mut lab, &tagged(&reply(own, 68), 7)), (vec![EP], None));
}

#[test]
fn what_the_services_say_for_a_container_leaves_in_its_vlan() {
    let mut lab = lan();
    let discover = udp((station(1), [0, 0, 0, 0], 68), (Mac::BROADCAST, [255; 4], 67), 64, b"discover");
    lab.datapath.emit((LAN, Some(vlan(8))), &discover, &mut lab.batch, &mut lab.outputs);
    assert_eq!(lab.collect(), [Left(LINK, discover.clone())]);
    lab.datapath.emit((LAN, None), &discover, &mut lab.batch, &mut lab.outputs);
    assert_eq!(lab.collect(), [], "there is no gateway");
}

#[test]
fn a_worker_that_does_not_route_hands_answers_over() {
    let mut lab = lan();
    lab.datapath.leave_routing();
    let frame = tagged(&reply(station(1), 68), 7);
    lab.batch.set_ingress(LINK.0);
    lab.batch.push(&frame, Offload::default());
    lab.datapath.forward(lab.now, &mut lab.batch, &mut lab.outputs);
    assert_eq!((lab.outputs.handed_over(), lab.outputs.used().len()), (&[(0, Errand::Decide)][..], 0));
    let mut router = lan();
    router.batch.set_ingress(LINK.0);
    router.batch.push(&frame, Offload::default());
    router.datapath.route(router.now, &mut router.batch, &[Errand::Decide], &mut router.outputs);
    assert_eq!(router.datapath.take_punts().count(), 1);
}

#[test]
fn an_answer_behind_other_frames_of_the_server_is_found() {
    let mut lab = lan();
    let (talk, answer) = (tagged(&reply(station(1), 67), 7), tagged(&reply(station(1), 68), 7));
    let _ = lab.send(EP, &udp((station(1), [192, 0, 2, 50], 5), (station(9), [192, 0, 2, 1], 5), 64, b"hello"));
    lab.batch.set_ingress(LINK.0);
    for frame in [&talk, &talk, &answer, &talk] {
        lab.batch.push(frame, Offload::default());
    }
    lab.datapath.forward(lab.now, &mut lab.batch, &mut lab.outputs);
    let left: Vec<usize> = lab.outputs.queue(EP).iter().map(|departure| departure.frame).collect();
    assert_eq!((left, lab.datapath.take_punts().count()), (vec![0, 1, 3], 1));
}

#[test]
fn a_bridge_with_a_gateway_keeps_it() {
    let mut lab = Lab::new(true, nat());
    lab.datapath.set_clients(BridgeId(0), vec![(VlanId::DEFAULT, station(1))]);
    let left = lab.send(A, &ping((station(1), [10, 0, 0, 11]), (gateway(0), [10, 0, 0, 1])));
    let [Left(A, answer)] = &left[..] else { panic!("{left:?}") };
    assert_eq!(icmp(answer), ([10, 0, 0, 11], 0, 0));
}
