//! Senders and receivers over the loopback.

mod sealed;

use std::io::IoSlice;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use etherparse::PacketBuilder;
use packet::{Batch, Checksum, Egress, Gso, GsoKind, Offload, Packet, Queued, Tag, TagEdit, checksum};
use proptest::prelude::*;

use super::*;
use crate::datapath::{DropReason, PortId};
use crate::device::{Device, Losses, ReceiveStatus, Sent};
use sys::udp;

/// Both ends of a tunnel, as two ports of one host.
struct Pair {
    sender: Sender,
    receiver: Receiver,
    near: Arc<Tunnel>,
    far: Arc<Tunnel>,
    counters: Arc<UnderlayCounters>,
    changes: crossbeam_channel::Sender<Change>,
    batch: Batch,
    to: SocketAddr,
}

const MTU: u16 = 1450;

impl Pair {
    fn new(address: &str, segmenting: bool) -> Self {
        let local: IpAddr = address.parse().unwrap();
        let socket = udp::open(local).unwrap();
        udp::prepare_receiving(socket.as_fd(), local).unwrap();
        sys::set_buffers(socket.as_fd(), 4 << 20).unwrap();
        let free = |port: &u16| udp::bind(socket.as_fd(), SocketAddr::new(local, *port)).is_ok();
        let port = (30_000..40_000).find(free).unwrap();
        let sources = (0..4).map(|_| {
            let source = udp::open(local).unwrap();
            udp::bind(source.as_fd(), SocketAddr::new(local, 0)).unwrap();
            source
        });
        let sources = Arc::new(Sources::new(sources.collect(), segmenting, SourceHeaders { hops: 64, is_summed: true }));
        let tunnel = || {
            let began = Instant::now().checked_sub(Duration::from_secs(60)).unwrap();
            let tunnel = Tunnel { epoch: began, ..Tunnel::new(Vni::try_from(7).unwrap(), port, None, MTU) };
            tunnel.set_peers(&[local]);
            Arc::new(tunnel)
        };
        let (near, far, counters) = (tunnel(), tunnel(), Arc::new(UnderlayCounters::default()));
        let (changes, changes_in) = crossbeam_channel::unbounded();
        changes.send(Change::Add(PortId(9), Arc::clone(&far))).unwrap();
        let receiver = Receiver::new(socket, changes_in, Arc::clone(&counters), None);
        let sender = Sender::new(Arc::clone(&near), sources, None);
        let to = SocketAddr::new(local, port);
        Self { sender, receiver, near, far, counters, changes, batch: Batch::new(), to }
    }

    fn send(&mut self, frame: &[u8], peer: u16) -> Sent {
        self.sender.send(&Packet { peer, ..Packet::whole(&[IoSlice::new(frame)]) })
    }

    /// What arrives, all of it.
    fn receive(&mut self) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        loop {
            let status = self.receiver.receive(&mut self.batch).status;
            for frame in self.batch.frames() {
                assert_eq!((frame.ingress, frame.peer), (9, 1));
                frames.push(frame.bytes().to_vec());
            }
            self.batch.clear();
            if status == ReceiveStatus::Drained {
                return frames;
            }
        }
    }

    fn drops(&mut self) -> Vec<(PortId, DropReason, u64)> {
        let mut drops = Vec::new();
        self.receiver.report_drops(&mut |port, reason, count| drops.push((port, reason, count)));
        drops
    }

    /// Sends bare datagrams past the sender.
    fn inject(&self, datagram: &[u8]) {
        let socket = udp::open(self.to.ip()).unwrap();
        udp::bind(socket.as_fd(), SocketAddr::new(self.to.ip(), 0)).unwrap();
        let segment = datagram.len().max(1);
        udp::send_run(socket.as_fd(), &udp::Run { bytes: datagram, segment, to: self.to, class: 0 }).unwrap();
    }
}

fn tcp(payload: &[u8]) -> Vec<u8> {
    tcp_at(3, payload)
}

fn tcp_at(sequence: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    let start = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64);
    start.tcp(1, 2, sequence, 4).ack(5).write(&mut frame, payload).unwrap();
    frame
}

#[test]
fn frames_arrive_as_they_were_sent() {
    for (address, segmenting) in [("127.0.0.1", true), ("::1", true), ("127.0.0.1", false)] {
        let mut pair = Pair::new(address, segmenting);
        let frames: Vec<Vec<u8>> = [60, 200, 200, 200, 100, 1464, 1464, 14, 0].map(|length| vec![7; length]).to_vec();
        for (index, frame) in frames.iter().enumerate() {
            assert_eq!(pair.send(frame, u16::from(index % 2 == 0)), Sent::Done);
        }
        assert_eq!(pair.sender.flush(), Losses::default());
        assert_eq!(pair.receive(), frames, "{address}");
    }
}

/// It is longer than a run, so it takes two.
#[test]
fn a_super_frame_crosses_as_segments_and_merges_again() {
    let mut pair = Pair::new("127.0.0.1", true);
    let payload: Vec<u8> = (0..64_000_u32).map(|number| number.to_le_bytes()[0]).collect();
    let bytes = tcp(&payload);
    let mut batch = Batch::new();
    let gso = Some(Gso { kind: GsoKind::Tcp4, size: 1396.try_into().unwrap(), ecn: false });
    batch.push(&bytes, Offload { checksum: Checksum::Partial { start: 34, offset: 16 }, gso });
    let queue = [Queued { frame: &batch.frames()[0], edit: TagEdit::Keep, peer: 1 }];
    let capabilities = pair.sender.capabilities();
    let lost = Egress::new().run(&queue, capabilities, &mut |packet| {
        assert_eq!(pair.sender.send(packet), Sent::Done);
    });
    assert_eq!((lost.len(), pair.sender.flush()), (0, Losses::default()));
    pair.receiver.receive(&mut pair.batch);
    let [frame] = pair.batch.frames() else { panic!("{}", pair.batch.frames().len()) };
    assert_eq!((&frame.bytes()[54..], frame.offload.gso), (&payload[..], gso));
    assert_eq!((frame.ingress, frame.peer), (9, 1));
}

#[test]
fn checksums_are_finished_wherever_a_tag_has_moved_them() {
    let mut pair = Pair::new("127.0.0.1", true);
    let mut untagged = tcp(b"payload");
    let pseudo = checksum::Sum::new().plus(&untagged[26..34]).plus_number(6).plus_number(27).folded();
    untagged[50..52].copy_from_slice(&pseudo.to_be_bytes());
    let tagged = [&untagged[..12], &[0x81, 0, 0, 7], &untagged[12..]].concat();
    let mut whole = untagged.clone();
    checksum::complete(&mut whole, 34, 16).unwrap();
    let whole_tagged = [&whole[..12], &[0x81, 0, 0, 7], &whole[12..]].concat();
    for (frame, start, edit, expected) in [
        (&untagged, 34, TagEdit::Keep, &whole),
        (&untagged, 34, TagEdit::Push(Tag(7)), &whole_tagged),
        (&tagged, 38, TagEdit::Pop, &whole),
        (&tagged, 38, TagEdit::Keep, &whole_tagged),
    ] {
        let mut batch = Batch::new();
        batch.push(frame, Offload { checksum: Checksum::Partial { start, offset: 16 }, gso: None });
        let queue = [Queued { frame: &batch.frames()[0], edit, peer: 1 }];
        let capabilities = pair.sender.capabilities();
        let lost = Egress::new().run(&queue, capabilities, &mut |packet| {
            assert_eq!(pair.sender.send(packet), Sent::Done);
        });
        assert_eq!((lost.len(), pair.sender.flush()), (0, Losses::default()));
        assert_eq!(pair.receive(), std::slice::from_ref(expected), "{edit:?}");
    }
}

#[test]
fn metadata_that_is_nonsense_changes_nothing() {
    let mut pair = Pair::new("127.0.0.1", true);
    let frame = tcp(b"payload");
    for (start, offset) in [(60, 16), (u16::MAX, u16::MAX), (54, 6)] {
        let parts = [IoSlice::new(&frame)];
        let offload = Offload { checksum: Checksum::Partial { start, offset }, gso: None };
        assert_eq!(pair.sender.send(&Packet { offload, peer: 1, ..Packet::whole(&parts) }), Sent::Done);
        assert_eq!((pair.sender.flush(), pair.receive()), (Losses::default(), vec![frame.clone()]));
    }
}

/// Two flows, a damaged segment and a broadcast in one run.
#[test]
fn only_what_belongs_together_and_is_whole_is_merged() {
    let mut pair = Pair::new("127.0.0.1", true);
    let mut frames: Vec<Vec<u8>> = (0..6).map(|number| tcp_at(4 + 100 * number, &[7; 100])).collect();
    frames[3][60] ^= 1;
    let broadcast = [&[0xff; 6], &frames[0][6..]].concat();
    frames.extend([broadcast.clone(), broadcast]);
    for frame in &frames {
        assert_eq!(pair.send(frame, 1), Sent::Done);
    }
    pair.sender.flush();
    pair.receiver.receive(&mut pair.batch);
    let gso = |frame: &packet::Frame| frame.offload.gso.map(|gso| gso.size.get());
    let merged: Vec<_> = pair.batch.frames().iter().map(|frame| (frame.bytes().len(), gso(frame))).collect();
    let [super3, super2, alone] = [(54 + 300, Some(100)), (54 + 200, Some(100)), (154, None)];
    assert_eq!(merged, [super3, alone, super2, alone, alone]);
}

/// What another kernel on this machine hands over: one datagram, unfinished.
#[test]
fn a_super_frame_that_comes_whole_is_known_as_one() {
    let mut pair = Pair::new("127.0.0.1", true);
    let mut bytes = tcp(&[7; 20_000]);
    let pseudo = packet::checksum::Sum::new().plus(&bytes[26..34]).plus_number(6).plus_number(20_020).folded();
    bytes[50..52].copy_from_slice(&pseudo.to_be_bytes());
    let header = vxlan::Header { vni: pair.near.vni }.encode();
    pair.inject(&[&header[..], &bytes].concat());
    pair.receiver.receive(&mut pair.batch);
    let [frame] = pair.batch.frames() else { panic!() };
    let size = (MTU - 40).try_into().unwrap();
    assert_eq!(frame.offload.gso, Some(Gso { kind: GsoKind::Tcp4, size, ecn: false }));
    assert_eq!(frame.offload.checksum, Checksum::Partial { start: 34, offset: 16 });
}

#[test]
fn what_is_longer_than_the_way_carries_is_refused() {
    let mut pair = Pair::new("127.0.0.1", true);
    assert_eq!(pair.send(&[7; 1465], 1), Sent::TooBig);
    pair.near.set_mtu(1451);
    assert_eq!(pair.send(&[7; 1465], 1), Sent::Done);
}

#[test]
fn bad_datagrams_are_counted_and_no_frames() {
    let mut pair = Pair::new("127.0.0.1", true);
    pair.inject(&[8, 0, 0, 0, 0, 0, 7]);
    pair.inject(&[0, 0, 0, 0, 0, 0, 7, 0, 1, 2, 3]);
    pair.inject(&[8, 0, 0, 0, 0, 0, 8, 0, 1, 2, 3]);
    assert_eq!(pair.receive(), [[0_u8; 0]; 0]);
    assert_eq!(UnderlayDrop::ALL.map(|reason| pair.counters.read(reason)), [1, 1, 1, 0, 0, 0]);
    assert_eq!(pair.drops(), []);
}

#[test]
fn a_peer_that_is_taken_out_is_refused_at_once() {
    let mut pair = Pair::new("127.0.0.1", true);
    pair.send(&[7; 60], 1);
    pair.sender.flush();
    assert_eq!(pair.receive().len(), 1);
    assert_eq!(pair.far.set_peers(&[]), [1]);
    pair.send(&[7; 60], 1);
    pair.sender.flush();
    assert_eq!(pair.receive().len(), 0);
    assert_eq!(pair.drops(), [(PortId(9), DropReason::UnknownVtep, 1)]);
    pair.near.set_peers(&[]);
    assert_eq!(pair.send(&[7; 60], 1), Sent::Done);
    assert_eq!(pair.sender.flush(), Losses { down: 1, ..Losses::default() }, "there is nobody to send it to");
    pair.changes.send(Change::Remove(pair.far.vni)).unwrap();
    pair.inject(&[8, 0, 0, 0, 0, 0, 7, 0, 1]);
    assert_eq!(pair.receive().len(), 0);
    assert_eq!(pair.counters.read(UnderlayDrop::UnknownVni), 1);
}

/// A multicast packet, or a router solicitation, is answered by no host that has nothing to say to it.
#[test]
fn what_is_flooded_asks_no_peer_for_an_answer() {
    let mut pair = Pair::new("127.0.0.1", true);
    for (peer, asked) in [(0, false), (1, true)] {
        pair.send(&[7; 60], peer);
        pair.sender.flush();
        let row = pair.near.peers.rows().next().unwrap();
        assert_eq!((row.sent, row.asked_at >= 60), (u64::from(peer) + 1, asked), "{row:?}");
    }
}

#[test]
fn a_mark_on_a_packet_that_cannot_carry_it_costs_the_packet() {
    let mut pair = Pair::new("127.0.0.1", true);
    let socket = udp::open(pair.to.ip()).unwrap();
    udp::bind(socket.as_fd(), SocketAddr::new(pair.to.ip(), 0)).unwrap();
    let header = vxlan::Header { vni: pair.near.vni }.encode();
    for class in [0_u8, 2] {
        let mut frame = tcp(b"x");
        frame[15] = class;
        let bytes = [&header[..], &frame].concat();
        udp::send_run(socket.as_fd(), &udp::Run { segment: bytes.len(), bytes: &bytes, to: pair.to, class: 3 }).unwrap();
    }
    let frames = pair.receive();
    assert_eq!((frames.len(), frames[0][15]), (1, 3), "marked inside");
    assert_eq!(pair.drops(), [(PortId(9), DropReason::CongestionMark, 1)]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn any_queue_arrives_in_order(lengths in prop::collection::vec((0usize..1464, 1usize..5), 0..20), segmenting in any::<bool>()) {
        let mut pair = Pair::new("127.0.0.1", segmenting);
        let mut frames = Vec::new();
        for (fill, (length, times)) in (0_u8..).zip(lengths) {
            for _ in 0..times {
                frames.push(vec![fill; length]);
                prop_assert_eq!(pair.send(&vec![fill; length], 1), Sent::Done);
            }
        }
        prop_assert_eq!(pair.sender.flush(), Losses::default());
        // Each fill is a flow of its own, and only within one is there an order.
        let mut received = pair.receive();
        received.sort_by_key(|frame| frame.first().copied());
        frames.sort_by_key(|frame| frame.first().copied());
        prop_assert_eq!(received, frames);
    }

    #[test]
    fn any_datagram_is_taken_or_dropped(datagrams in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..120), 0..20)) {
        let mut pair = Pair::new("127.0.0.1", true);
        for mut datagram in datagrams {
            // Most get as far as the frame.
            for (place, byte) in datagram.iter_mut().zip([8, 0, 0, 0, 0, 0, 7]) { *place = byte; }
            pair.inject(&datagram);
        }
        pair.receive();
    }
}

/// What a capture is shown of a frame on both sides is the same datagram, with the real ports and good checksums.
#[test]
fn a_frame_is_shown_with_what_is_around_it() {
    use etherparse::{NetSlice, SlicedPacket, TransportSlice};
    for address in ["127.0.0.1", "::1"] {
        let mut pair = Pair::new(address, true);
        let frame = tcp(&[7; 100]);
        let parts = [IoSlice::new(&frame)];
        let packet = Packet { peer: 1, ..Packet::whole(&parts) };
        assert_eq!(pair.sender.send(&packet), Sent::Done);
        let mut shown = Vec::new();
        pair.sender.show_sent(&packet, &mut |bytes| shown.push(bytes.to_vec()));
        pair.sender.flush();
        while pair.batch.frames().is_empty() {
            pair.receiver.receive(&mut pair.batch);
        }
        let outer = pair.batch.frames()[0].outer;
        pair.sender.show_received(&packet, outer, &mut |bytes| shown.push(bytes.to_vec()));
        assert_eq!(shown.len(), 2, "{address}");
        for (bytes, hops) in shown.iter().zip([64, 0]) {
            let sliced = SlicedPacket::from_ethernet(bytes).unwrap();
            let Some(TransportSlice::Udp(udp)) = &sliced.transport else { panic!("{address}") };
            assert_eq!((udp.source_port(), udp.destination_port()), (outer.port, pair.to.port()));
            let wanted = match sliced.net.as_ref().unwrap() {
                NetSlice::Ipv4(ip) => {
                    assert_eq!((ip.header().ttl(), ip.header().dont_fragment()), (hops, true));
                    assert_eq!(ip.header().header_checksum(), ip.header().to_header().calc_header_checksum());
                    udp.to_header().calc_checksum_ipv4_raw(ip.header().source(), ip.header().destination(), udp.payload())
                }
                NetSlice::Ipv6(ip) => {
                    assert_eq!(ip.header().hop_limit(), hops);
                    udp.to_header().calc_checksum_ipv6_raw(ip.header().source(), ip.header().destination(), udp.payload())
                }
                _ => panic!("{address}"),
            };
            assert_eq!(udp.checksum(), wanted.unwrap(), "{address}");
            assert_eq!(udp.payload(), [&[8, 0, 0, 0, 0, 0, 7, 0], &frame[..]].concat());
        }
    }
}
