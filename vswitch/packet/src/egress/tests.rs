mod merging;
mod tunnels;

use std::num::NonZeroU16;

use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TransportSlice};
use proptest::prelude::*;

use super::*;
use crate::rewrite::Headers;
use crate::{Batch, Gso, GsoKind, Layers, Tag, Transport};

const NONE: Capabilities = Capabilities { checksum: false, tcp4: false, tcp6: false, udp: false, tunnel: false };
const CHECKSUM_ONLY: Capabilities = Capabilities { checksum: true, ..NONE };

/// What a queue sends: bytes and metadata of each packet.
fn sent(frames: &[(Vec<u8>, Offload)], edit: TagEdit, capabilities: Capabilities) -> Vec<(Vec<u8>, Offload, u16)> {
    let mut batch = Batch::new();
    frames.iter().for_each(|(bytes, offload)| batch.push(bytes, *offload));
    let queue: Vec<_> = batch.frames().iter().map(|frame| Queued { frame, edit, peer: frame.peer }).collect();
    let mut list = Vec::new();
    let mut count = 0;
    let lost = Egress::new().run(&queue, capabilities, &mut |packet| {
        assert!(packet.parts.len() <= MAX_PARTS && capabilities.accept(packet.offload));
        count += packet.frames;
        list.push((packet.to_vec(), packet.offload, packet.headers));
    });
    assert_eq!(count + lost.len(), frames.len(), "every frame is accounted for");
    list
}

#[derive(Clone, Copy, Debug)]
struct Shape {
    kind: GsoKind,
    v6: bool,
    tagged: bool,
    fin: bool,
    options: bool,
}

/// A packet whose transport checksum is left to the receiver.
fn packet(shape: Shape, payload: &[u8]) -> (Vec<u8>, Layers) {
    let mut bytes = Vec::new();
    let ethernet = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    let ip = if shape.v6 { ethernet.ipv6([1; 16], [2; 16], 64) } else { ethernet.ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64) };
    if shape.kind == GsoKind::Udp {
        ip.udp(1000, 2000).write(&mut bytes, payload).unwrap();
    } else {
        let mut tcp = ip.tcp(1000, 2000, u32::MAX - 3000, 500).ack(77);
        if shape.fin {
            tcp = tcp.fin().psh();
        }
        if shape.options {
            tcp = tcp.options(&[etherparse::TcpOptionElement::Timestamp(7, 9)]).unwrap();
        }
        tcp.write(&mut bytes, payload).unwrap();
    }
    if shape.tagged {
        bytes.splice(12..12, [0x81, 0, 0x60, 5]);
    }
    let layers = Layers::parse(&bytes).unwrap();
    let mut headers = Headers::copy(&bytes, &layers, TagEdit::Keep).unwrap();
    headers.set_partial_checksum(payload.len());
    bytes[..layers.payload].copy_from_slice(headers.bytes());
    (bytes, layers)
}

fn partial(layers: &Layers) -> Checksum {
    let offset = layers.transport_kind.checksum_offset();
    Checksum::Partial { start: u16::try_from(layers.transport).unwrap(), offset: u16::try_from(offset).unwrap() }
}

fn super_frame(shape: Shape, payload: &[u8], size: u16) -> (Vec<u8>, Offload) {
    let (bytes, layers) = packet(shape, payload);
    let size = NonZeroU16::new(size).unwrap();
    let offload = Offload { checksum: partial(&layers), gso: Some(Gso { kind: shape.kind, size, ecn: false }) };
    (bytes, offload)
}

/// Checks every checksum and length with etherparse; returns the transport's payload.
fn verified(bytes: &[u8]) -> Vec<u8> {
    let sliced = SlicedPacket::from_ethernet(bytes).unwrap();
    let (tcp_sum, udp_sum) = match (&sliced.net, &sliced.transport) {
        (Some(NetSlice::Ipv4(ip)), Some(transport)) => {
            let header = ip.header().to_header();
            assert_eq!(header.calc_header_checksum(), header.header_checksum);
            match transport {
                TransportSlice::Tcp(tcp) => (tcp.calc_checksum_ipv4(header.source, header.destination).ok(), None),
                TransportSlice::Udp(udp) => (None, udp.to_header().calc_checksum_ipv4(&header, udp.payload()).ok()),
                _ => (None, None),
            }
        }
        (Some(NetSlice::Ipv6(ip)), Some(transport)) => {
            let header = ip.header().to_header();
            match transport {
                TransportSlice::Tcp(tcp) => (tcp.calc_checksum_ipv6(header.source, header.destination).ok(), None),
                TransportSlice::Udp(udp) => (None, udp.to_header().calc_checksum_ipv6(&header, udp.payload()).ok()),
                _ => (None, None),
            }
        }
        _ => panic!("not IP: {bytes:02x?}"),
    };
    match sliced.transport {
        Some(TransportSlice::Tcp(tcp)) => {
            assert_eq!(tcp_sum, Some(tcp.checksum()), "TCP checksum");
            tcp.payload().to_vec()
        }
        Some(TransportSlice::Udp(udp)) => {
            assert_eq!(udp_sum, Some(udp.checksum()), "UDP checksum");
            assert_eq!(usize::from(udp.length()), 8 + udp.payload().len());
            udp.payload().to_vec()
        }
        _ => panic!("no transport"),
    }
}

fn shapes() -> impl Strategy<Value = Shape> {
    (0..3, any::<[bool; 4]>()).prop_map(|(kind, [v6, tagged, fin, options])| {
        let (kind, v6) = match kind {
            0 => (GsoKind::Tcp4, false),
            1 => (GsoKind::Tcp6, true),
            _ => (GsoKind::Udp, v6),
        };
        Shape { kind, v6, tagged, fin, options }
    })
}

fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|number| u8::try_from(number * 31 % 251).unwrap()).collect()
}

fn edits(tagged: bool, choice: u8) -> TagEdit {
    match (tagged, choice % 3) {
        (_, 0) => TagEdit::Keep,
        (true, 1) => TagEdit::Pop,
        (true, _) => TagEdit::Set(Tag(9)),
        (false, _) => TagEdit::Push(Tag(9)),
    }
}

/// The frame with its tag edited, slowly.
fn edited(mut bytes: Vec<u8>, edit: TagEdit) -> Vec<u8> {
    match edit {
        TagEdit::Keep => {}
        TagEdit::Pop => drop(bytes.drain(12..16)),
        TagEdit::Set(tag) => bytes[14..16].copy_from_slice(&tag.0.to_be_bytes()),
        TagEdit::Push(tag) => drop(bytes.splice(12..12, [0x81, 0, tag.0.to_be_bytes()[0], tag.0.to_be_bytes()[1]])),
    }
    bytes
}

proptest! {
    #[test]
    fn segments_are_right_and_merge_back(
        shape in shapes(),
        size in 1u16..1460,
        count in 1usize..40,
        last in 1usize..1460,
        choice: u8,
        cuts in prop::collection::vec(0usize..40, 0..3),
    ) {
        let payload = bytes(usize::from(size) * (count - 1) + last.min(size.into()));
        let original = super_frame(shape, &payload, size);
        let edit = edits(shape.tagged, choice);

        let segments = sent(std::slice::from_ref(&original), edit, NONE);
        prop_assert_eq!(segments.len(), count);
        let joined: Vec<u8> = segments.iter().flat_map(|(bytes, _, _)| verified(bytes)).collect();
        prop_assert_eq!(&joined, &payload);

        let left = sent(std::slice::from_ref(&original), edit, CHECKSUM_ONLY);
        for ((whole, _, _), (mut left, offload, _)) in segments.iter().zip(left) {
            let Checksum::Partial { start, offset } = offload.checksum else { panic!("not left: {offload:?}") };
            crate::checksum::complete(&mut left, start, offset).unwrap();
            prop_assert_eq!(&left, whole);
        }

        let frames: Vec<_> = segments.into_iter().map(|(bytes, offload, _)| (bytes, offload)).collect();
        let merged = sent(&frames, TagEdit::Keep, Capabilities::ALL);
        prop_assert_eq!(merged.len(), 1);
        if count > 1 {
            let expected = edited(original.0.clone(), edit);
            let headers = Layers::parse(&expected).unwrap().payload;
            prop_assert_eq!(&merged[0].0, &expected);
            prop_assert_eq!(merged[0].1.gso, original.1.gso);
            prop_assert_eq!(usize::from(merged[0].2), headers);
        }

        let mut batch = Batch::new();
        let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(count)).chain([0, count]).collect();
        cuts.sort_unstable();
        for piece in cuts.windows(2).map(|cut| &frames[cut[0]..cut[1]]) {
            prop_assert_eq!(batch.push_merged(piece.iter().map(|(bytes, offload)| (&bytes[..], *offload))), piece.len());
        }
        prop_assert_eq!(batch.frames().len(), 1);
        prop_assert_eq!(batch.frames()[0].bytes(), &merged[0].0);
        prop_assert_eq!(batch.frames()[0].offload, merged[0].1);
    }

    #[test]
    fn a_whole_super_frame_passes_with_its_tag_edited(shape in shapes(), choice: u8) {
        let original = super_frame(shape, &bytes(5000), 1400);
        let edit = edits(shape.tagged, choice);
        let out = sent(std::slice::from_ref(&original), edit, Capabilities::ALL);
        let expected = edited(original.0, edit);
        let layers = Layers::parse(&expected).unwrap();
        prop_assert_eq!(out.len(), 1);
        prop_assert_eq!(&out[0].0, &expected);
        prop_assert_eq!(out[0].1.checksum, partial(&layers));
        prop_assert_eq!(usize::from(out[0].2), layers.payload);
    }

    #[test]
    fn a_left_checksum_is_completed(shape in shapes(), length in 0usize..1400, choice: u8) {
        let (frame, layers) = packet(shape, &bytes(length));
        let edit = edits(shape.tagged, choice);
        let out = sent(&[(frame, Offload { checksum: partial(&layers), gso: None })], edit, NONE);
        prop_assert_eq!(verified(&out[0].0), bytes(length));
    }

    #[test]
    fn nonsense_is_sent_or_counted(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        header: [u8; 10],
        hint in 0usize..4,
        capabilities: [bool; 5],
        choice: u8,
    ) {
        let mut bytes = bytes;
        let hints: [&[u8]; 4] = [&[8, 0, 0x45], &[0x86, 0xdd, 0x60], &[0x81, 0, 0, 5, 8, 0, 0x45], &[]];
        for (place, byte) in bytes.iter_mut().skip(12).zip(hints[hint]) {
            *place = *byte;
        }
        let [checksum, tcp4, tcp6, udp, tunnel] = capabilities;
        let offload = Offload::decode(header, bytes.len()).unwrap_or_default();
        let tagged = crate::Ethernet::parse(&bytes).is_ok_and(|ethernet| ethernet.tag.is_some());
        let frames = vec![(bytes.clone(), offload); 3];
        let out = sent(&frames, edits(tagged, choice), Capabilities { checksum, tcp4, tcp6, udp, tunnel });
        let total: usize = out.iter().map(|(bytes, _, _)| bytes.len()).sum();
        prop_assert!(total <= 3 * 200 * (bytes.len() + 4));
    }
}

#[test]
fn flags_and_identifications_are_distributed() {
    let shape = Shape { kind: GsoKind::Tcp4, v6: false, tagged: false, fin: true, options: true };
    let (mut frame, offload) = super_frame(shape, &bytes(300), 100);
    frame[18..20].copy_from_slice(&[0xff, 0xff]);
    frame[47] |= 0x80;
    let segments = sent(&[(frame, offload)], TagEdit::Keep, NONE);
    let flags: Vec<u8> = segments.iter().map(|(bytes, _, _)| bytes[47] & 0x89).collect();
    assert_eq!(flags, [0x80, 0, 0x09], "CWR first, FIN and PSH last");
    let ids: Vec<[u8; 2]> = segments.iter().map(|(bytes, _, _)| [bytes[18], bytes[19]]).collect();
    assert_eq!(ids, [[0xff, 0xff], [0, 0], [0, 1]]);
}

#[test]
fn a_super_frame_of_one_segment_stays_one() {
    let shape = Shape { kind: GsoKind::Udp, v6: true, tagged: false, fin: false, options: false };
    assert_eq!(sent(&[super_frame(shape, &bytes(50), 1000)], TagEdit::Keep, NONE).len(), 1);
    assert_eq!(Layers::parse(&packet(shape, b"x").0).map(|layers| layers.transport_kind), Some(Transport::Udp));
}

#[test]
fn a_super_frame_that_lies_is_counted() {
    let shape = Shape { kind: GsoKind::Udp, v6: false, tagged: false, fin: false, options: false };
    let (frame, mut offload) = super_frame(shape, &bytes(500), 100);
    offload.gso = offload.gso.map(|gso| Gso { kind: GsoKind::Tcp4, ..gso });
    assert_eq!(sent(&[(frame, offload)], TagEdit::Keep, NONE), []);
}
