//! What captures say of frames that were dropped, however late, in whatever queue, and by whichever of several workers.

use api::{CapturePoint, FrameNote};
use etherparse::{ArpHardwareId, ArpOperation, ArpPacket, EtherType, PacketBuilder};

use super::*;
use crate::datapath::{GatewaySettings, Side};

const GATEWAY: Mac = Mac([2, 0, 0, 0, 0, 0xfe]);
const STATION: Mac = Mac([2, 0, 0, 0, 0, 1]);

/// A gateway without an uplink, 10.0.0.1/24.
pub(super) fn gateway() -> GatewaySettings {
    GatewaySettings {
        mac: GATEWAY,
        vlan: VlanId::DEFAULT,
        mtu: 1500,
        addresses: vec!["10.0.0.1/24".parse().unwrap()],
        routes: Vec::new(),
        side: Side::Inside { uplink: None, isolated: false, dhcp: false },
    }
}

/// A datagram from the station, with the gateway's MAC address as its next hop.
pub(super) fn datagram(port: u16, to: [u8; 4]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let builder = PacketBuilder::ethernet2(STATION.0, GATEWAY.0).ipv4([10, 0, 0, 11], to, 64).udp(port, 53);
    builder.write(&mut bytes, b"question").unwrap();
    bytes
}

fn arp_request() -> Vec<u8> {
    let (hardware, protocol) = (ArpHardwareId::ETHERNET, EtherType::IPV4);
    let who = ArpPacket::new(hardware, protocol, ArpOperation::REQUEST, &STATION.0, &[10, 0, 0, 11], &[0; 6], &[10, 0, 0, 1]);
    let mut bytes = [&[0xff; 6][..], &STATION.0, &[8, 6]].concat();
    bytes.extend_from_slice(&who.unwrap().to_bytes());
    bytes
}

/// A capture of all ports.
struct Watch {
    stream: capture::Stream,
}

impl Watch {
    fn new(plane: &Plane) -> Self {
        Self::at(plane, None, &[])
    }

    /// A capture of these ports at these points.
    fn at(plane: &Plane, ports: Option<Vec<PortId>>, points: &[CapturePoint]) -> Self {
        let interfaces = (0..plane.far.len()).map(|port| u32::try_from(port).unwrap());
        let interfaces = interfaces.map(|port| CapturedPort { port, name: format!("p{port}"), ..CapturedPort::default() });
        let limits = Limits { count: None, seconds: None };
        let selection = Selection { points: points.to_vec(), ..Program::new(&[]).unwrap().into() };
        let (tap, _, stream) = capture::open(selection, interfaces.collect(), limits);
        plane.tell(|| Command::StartCapture(CaptureId(1), ports.clone(), tap.clone()));
        Self { stream }
    }

    /// Ends it, and gives the comment of each frame, and the frame, in the order of the file.
    fn frames(mut self, plane: &Plane) -> Vec<(Option<String>, Vec<u8>)> {
        plane.tell(|| Command::StopCapture(CaptureId(1)));
        let mut file = Vec::new();
        while let Some(chunk) = self.stream.next_chunk(Duration::from_secs(1)) {
            file.extend(chunk);
        }
        read(&file)
    }

    fn comments(self, plane: &Plane) -> Vec<String> {
        self.frames(plane).into_iter().filter_map(|(comment, _)| comment).collect()
    }
}

impl Plane {
    /// Waits until so many frames of a port were dropped for this reason.
    fn wait_for(&self, port: u32, reason: DropReason, frames: u64) {
        let deadline = Instant::now() + Duration::from_secs(15);
        while self.counters(port).drops(reason) < frames && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// The enhanced packet blocks of a file, with their comments (pcapng, sections 3.5 and 4.3).
fn read(file: &[u8]) -> Vec<(Option<String>, Vec<u8>)> {
    const ENHANCED_PACKET: u32 = 6;
    const COMMENT: u16 = 1;
    let long = |at: usize| u32::from_ne_bytes(file[at..at + 4].try_into().unwrap()) as usize;
    let short = |at: usize| u16::from_ne_bytes(file[at..at + 2].try_into().unwrap());
    let (mut at, mut frames) = (0, Vec::new());
    while at < file.len() {
        let end = at + long(at + 4);
        if long(at) == ENHANCED_PACKET as usize {
            let length = long(at + 20);
            let bytes = file[at + 28..at + 28 + length].to_vec();
            let (mut option, mut comment) = (at + 28 + length.next_multiple_of(4), None::<String>);
            while option + 4 < end && short(option) != 0 {
                let size = usize::from(short(option + 2));
                if short(option) == COMMENT {
                    let text = String::from_utf8_lossy(&file[option + 4..option + 4 + size]);
                    comment = Some(comment.unwrap_or_default() + &text);
                }
                option += 4 + size.next_multiple_of(4);
            }
            frames.push((comment, bytes));
        }
        at = end;
    }
    frames
}

#[test]
fn a_capture_has_the_reason_of_every_frame_that_is_not_routed_with_any_number_of_workers() {
    for workers in [1, 2, 4] {
        let plane = Plane::new(workers, 2);
        plane.tell(|| Command::SetGateway(BridgeId(0), Some(gateway())));
        let watch = Watch::new(&plane);
        for number in 0..320_u16 {
            let frame = datagram(40_000 + number % 64, [203, 0, 113, 9]);
            while !plane.far[0][usize::from(number) % workers].push(&frame, Offload::default()) {}
        }
        plane.wait_for(0, DropReason::NoRoute, 320);
        let comments = watch.comments(&plane);
        let told = comments.iter().filter(|comment| comment.contains("no-route")).count();
        assert_eq!((told, plane.counters(0).drops(DropReason::NoRoute)), (320, 320), "{workers} workers: {comments:?}");
    }
}

#[test]
fn a_frame_whose_next_hop_never_answers_is_in_the_capture_when_that_is_known() {
    for workers in [1, 2] {
        let plane = Plane::new(workers, 2);
        plane.tell(|| Command::SetGateway(BridgeId(0), Some(gateway())));
        // So that the gateway knows whom to tell.
        assert!(plane.far[0][0].push(&arp_request(), Offload::default()));
        assert!(plane.next(0).is_some());
        let watch = Watch::new(&plane);
        let frame = datagram(40_000, [10, 0, 0, 77]);
        assert!(plane.far[0][workers - 1].push(&frame, Offload::default()));
        plane.wait_for(0, DropReason::NeighborUnresolved, 1);
        let frames = watch.frames(&plane);
        let ours = frames.iter().filter(|(_, bytes)| *bytes == frame).map(|(comment, _)| comment.as_deref());
        let ours: Vec<bool> = ours.map(|comment| comment.is_some_and(|text| text.contains("neighbor-unresolved"))).collect();
        assert_eq!(ours, [false, true], "as it came and as it was given up, {workers} workers: {frames:?}");
    }
}

#[test]
fn a_capture_that_begins_while_frames_are_on_a_line_says_of_each_what_is_its_own() {
    let plane = Plane::new(1, 3);
    let impaired = |words: &str| {
        let policy = api::PortPolicy { impair: serde_json::from_str(words).unwrap(), ..Default::default() };
        PortSettings::on(BridgeId(0)).under(policy, Instant::now())
    };
    plane.tell(|| Command::SetPort(PortId(0), impaired(r#"{ "in": "delay 300ms" }"#)));
    plane.tell(|| Command::SetPort(PortId(1), impaired("{}")));
    let tagged = |vlan: u8| [&frame(1, Mac::BROADCAST)[..12], &[0x81, 0, 0, vlan, 0x90, 0], &[vlan; 60]].concat();
    [10, 20].iter().for_each(|vlan| assert!(plane.far[0][0].push(&tagged(*vlan), Offload::default())));
    plane.settle(&[0]);
    let watch = Watch::at(&plane, Some(vec![PortId(1)]), &[CapturePoint::Egress]);
    for _ in 0..2 {
        plane.next(1).unwrap();
    }
    let frames = watch.frames(&plane);
    let notes: Vec<FrameNote> = frames.iter().map(|(comment, _)| FrameNote::read(comment.as_deref().unwrap())).collect();
    let own = frames.iter().map(|(_, bytes)| Some(u16::from(bytes[15])));
    assert_eq!(notes.iter().map(|note| note.vlan).collect::<Vec<_>>(), own.collect::<Vec<_>>(), "{frames:?}");
    assert!(notes.len() == 2 && notes[0].id != notes[1].id && notes[0].id.is_some(), "{frames:?}");
}

#[test]
fn what_is_lost_in_the_queue_of_a_port_is_in_the_capture() {
    let plane = Plane::new(1, 3);
    let limiter = Arc::new(Limiter::of_bytes("8kbit".parse().unwrap(), Instant::now()));
    plane.tell(|| {
        let limits = PortLimits { receive: Some(limiter.clone()), ..PortLimits::default() };
        Command::SetPort(PortId(1), PortSettings { limits, ..PortSettings::on(BridgeId(0)) })
    });
    plane.workers[0].ask(|reply| Command::Take(PortId(2), reply)).unwrap();
    let big = |number: u8| {
        let mut bytes = frame(1, Mac::BROADCAST);
        bytes.resize(1500, number);
        bytes
    };
    let watch = Watch::new(&plane);
    (0..200).cycle().take(400).for_each(|number| while !plane.far[0][0].push(&big(number), Offload::default()) {});
    plane.settle(&[0]);
    let frames = watch.frames(&plane);
    let told = |reason: &str| {
        let is = |comment: &Option<String>| comment.as_ref().is_some_and(|text| text.contains(reason));
        frames.iter().filter(|(comment, _)| is(comment)).count() as u64
    };
    let (limited, down) = (plane.counters(1).drops(DropReason::ReceiveRate), plane.counters(2).drops(DropReason::DeviceDown));
    assert!(limited > 100, "128 KiB pass, and 256 KiB wait");
    assert_eq!((told("receive-rate"), told("device-down"), down), (limited, 400, 400));
}

#[test]
fn what_an_impaired_line_loses_is_in_the_capture_once_with_its_way() {
    for workers in [1, 2] {
        let plane = Plane::new(workers, 3);
        let impair = |port: u32, table: &str| {
            let policy = api::PortPolicy { impair: serde_json::from_str(table).unwrap(), ..Default::default() };
            let settings = PortSettings::on(BridgeId(0)).under(policy, Instant::now());
            plane.tell(|| Command::SetPort(PortId(port), settings.clone()));
        };
        impair(0, r#"{ "in": "loss 100%", "out": "flap 1h every 2h" }"#);
        impair(1, r#"{ "out": "loss 100%" }"#);
        let watch = Watch::new(&plane);
        assert!(plane.far[0][workers - 1].push(&frame(1, Mac::BROADCAST), Offload::default()));
        assert!(plane.far[2][workers - 1].push(&frame(2, Mac::BROADCAST), Offload::default()));
        plane.wait_for(1, DropReason::ImpairLoss, 1);
        plane.wait_for(0, DropReason::ImpairLoss, 1);
        plane.settle(&[0, 2]);
        let mut notes: Vec<FrameNote> = watch.comments(&plane).iter().map(|comment| FrameNote::read(comment)).collect();
        notes.sort_by_key(|note| note.drop.is_none());
        let seen = |note: &FrameNote| (note.came_in.clone(), note.out.join(","), note.drop.clone());
        let mut seen: Vec<_> = notes.iter().map(seen).collect();
        seen.sort();
        let (loss, name) = (Some("impair-loss".to_owned()), |port: &str| Some(port.to_owned()));
        let expected = [
            (name("p0"), String::new(), loss.clone()),
            (name("p2"), "p0,p1".to_owned(), None),
            (name("p2"), "p1".to_owned(), loss),
        ];
        assert_eq!(seen, expected, "{workers} workers");
        let counters = plane.counters(0);
        assert_eq!((counters.rx_frames, counters.drops_on(true, DropReason::ImpairLoss)), (1, 1), "it was received");
        let counters = plane.counters(1);
        assert_eq!((counters.tx_frames, counters.drops_on(false, DropReason::ImpairLoss)), (0, 1));
    }
}

#[test]
fn a_super_frame_that_cannot_be_cut_is_in_the_capture() {
    let plane = Plane::new(1, 1);
    let (near, far) = Memory::new(Capabilities::default(), 10);
    plane.workers[0]
        .ask(|reply| Command::Attach(PortId(1), PortSettings::on(BridgeId(0)), Box::new(near), reply))
        .unwrap()
        .unwrap();
    let watch = Watch::new(&plane);
    let gso = Some(packet::Gso { kind: packet::GsoKind::Tcp4, size: 100.try_into().unwrap(), ecn: false });
    // Its checksum, and so its transport, begins behind its end.
    let offload = Offload { checksum: packet::Checksum::Partial { start: 20, offset: 16 }, gso };
    let mut frame = frame(1, Mac::BROADCAST);
    frame.resize(1000, 0xff);
    assert!(plane.far[0][0].push(&frame, offload));
    plane.settle(&[0]);
    let comments = watch.comments(&plane);
    assert_eq!(plane.counters(1).drops(DropReason::Unsegmentable), 1);
    assert!(comments.iter().any(|comment| comment.contains("unsegmentable")), "{comments:?}");
    drop(far);
}

/// The notes of a capture of what three frames from port 0 came to: one to all, one to port 1, and one from a group.
fn notes(ports: Option<Vec<PortId>>, points: &[CapturePoint]) -> Vec<String> {
    let plane = Plane::new(1, 3);
    assert!(plane.far[1][0].push(&frame(2, Mac::BROADCAST), Offload::default()));
    plane.settle(&[1]);
    let watch = Watch::at(&plane, ports, points);
    for bytes in [frame(1, Mac::BROADCAST), frame(1, Mac([2, 0, 0, 0, 0, 2])), frame(0xff, Mac::BROADCAST)] {
        let bytes = if bytes[11] == 0xff { [&bytes[..6], &[0xff; 6], &bytes[12..]].concat() } else { bytes };
        assert!(plane.far[0][0].push(&bytes, Offload::default()));
    }
    plane.settle(&[0]);
    let notes: Vec<FrameNote> = watch.comments(&plane).iter().map(|comment| FrameNote::read(comment)).collect();
    let first = notes.iter().filter_map(|note| note.id).min().unwrap_or_default();
    let show = |note: FrameNote| FrameNote { id: note.id.map(|id| id - first + 1), ..note }.to_string();
    notes.into_iter().map(show).collect()
}

#[test]
fn a_frame_is_taken_once_unless_more_points_are_asked_for() {
    let at_ingress = [
        "id=1 at=ingress in=p0 out=p1,p2 vlan=1",
        "id=2 at=ingress in=p0 out=p1 vlan=1",
        "id=3 at=ingress in=p0 vlan=1 drop=invalid-source",
    ];
    assert_eq!(notes(None, &[]), at_ingress);
    assert_eq!(notes(None, &[CapturePoint::Ingress]), at_ingress);
    assert_eq!(notes(None, &[CapturePoint::Drop]), ["id=1 at=drop in=p0 vlan=1 drop=invalid-source"]);
    let mut everywhere = notes(None, &[CapturePoint::Ingress, CapturePoint::Egress]);
    everywhere.sort();
    let left =
        ["id=1 at=egress in=p0 out=p1 vlan=1", "id=1 at=egress in=p0 out=p2 vlan=1", "id=2 at=egress in=p0 out=p1 vlan=1"];
    let mut expected: Vec<&str> = left.into_iter().chain(at_ingress).collect();
    expected.sort_unstable();
    assert_eq!(everywhere, expected);
}

#[test]
fn a_frame_that_came_in_where_nothing_is_captured_is_taken_once_as_it_leaves() {
    let left = ["id=1 at=egress in=p0 out=p1 vlan=1", "id=2 at=egress in=p0 out=p1 vlan=1"];
    assert_eq!(notes(Some(vec![PortId(1)]), &[]), left);
    assert_eq!(notes(Some(vec![PortId(1), PortId(2)]), &[]), left, "of a flood, at one port");
    assert_eq!(notes(Some(vec![PortId(0), PortId(1)]), &[]).len(), 3, "where it came in");
}

#[test]
fn what_the_gateway_says_is_in_the_capture_once() {
    let plane = Plane::new(1, 2);
    plane.tell(|| Command::SetGateway(BridgeId(0), Some(gateway())));
    let watch = Watch::new(&plane);
    assert!(plane.far[0][0].push(&arp_request(), Offload::default()));
    assert!(plane.next(0).is_some());
    plane.settle(&[0]);
    let notes: Vec<FrameNote> = watch.comments(&plane).iter().map(|comment| FrameNote::read(comment)).collect();
    let shape = |note: &FrameNote| (note.came_in.clone(), note.out.clone());
    let shapes: Vec<_> = notes.iter().map(shape).collect();
    assert_eq!(shapes, [(Some("p0".to_owned()), vec!["p1".to_owned()]), (None, vec!["p0".to_owned()])], "{notes:?}");
    assert!(notes[0].id.is_some() && notes[0].id < notes[1].id);
}

#[test]
fn a_capture_has_the_fragments_of_a_packet_that_was_given_up() {
    let plane = Plane::new(1, 2);
    plane.tell(|| Command::SetGateway(BridgeId(0), Some(gateway())));
    let watch = Watch::new(&plane);
    // The second fragment overlaps the first, which ends the packet.
    let mut fragment = datagram(40_000, [10, 0, 0, 1]);
    fragment[14 + 6..14 + 8].copy_from_slice(&[0x20, 0]);
    for offset in [0, 0x01] {
        fragment[14 + 7] = offset;
        fragment[14 + 10..14 + 12].fill(0);
        let sum = packet::checksum::Sum::new().plus(&fragment[14..34]).checksum();
        fragment[14 + 10..14 + 12].copy_from_slice(&sum.to_be_bytes());
        while !plane.far[0][0].push(&fragment, Offload::default()) {}
    }
    plane.wait_for(0, DropReason::FragmentForGateway, 2);
    let told = watch.comments(&plane).into_iter().filter(|comment| comment.contains("fragment-for-gateway")).count();
    assert_eq!(told, 2, "one for each drop that was counted");
}
