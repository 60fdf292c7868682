//! Super-frames and unfinished checksums inside the packets of a tunnel, beside packets that are put together by hand.

use super::*;
use crate::checksum::Sum;
use crate::{IpVersion, UdpTunnel, coalesce};

/// What is around the inner packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Around {
    Vxlan { summed: bool },
    Gre { summed: bool },
    Ip,
}

#[derive(Clone, Copy, Debug)]
struct Tunnel {
    around: Around,
    outer_v6: bool,
    inner_v6: bool,
    udp: bool,
    tagged: bool,
}

/// How the checksums are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sums {
    /// All are right.
    Whole,
    /// As a kernel leaves them in a super-frame: the inner and the outer one hold the sums of pseudo headers.
    Super,
    /// As it leaves them in a frame: the inner one holds the sum of the pseudo header, the outer one counts on it to be finished.
    Inner,
}

fn ip(v6: bool, protocol: u8, id: u16, payload: &[u8]) -> Vec<u8> {
    if v6 {
        let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
        return [&[0x60, 0, 0, 0][..], &length, &[protocol, 64], &[1; 16], &[2; 16], payload].concat();
    }
    let length = u16::try_from(20 + payload.len()).unwrap().to_be_bytes();
    let mut header =
        [&[0x45, 0][..], &length, &id.to_be_bytes(), &[0, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]].concat();
    let sum = Sum::new().plus(&header).checksum().to_be_bytes();
    header[10..12].copy_from_slice(&sum);
    [&header, payload].concat()
}

fn pseudo(v6: bool, protocol: u8, length: usize) -> Sum {
    let addresses = if v6 { [[1; 16], [2; 16]].concat() } else { vec![10, 0, 0, 1, 10, 0, 0, 2] };
    Sum::new().plus(&addresses).plus_number(protocol.into()).plus_number(u16::try_from(length).unwrap())
}

/// Puts a checksum at `at`.
fn summed(mut bytes: Vec<u8>, at: usize, pseudo: Sum, left: bool) -> Vec<u8> {
    bytes[at..at + 2].fill(0);
    let sum = if left { pseudo.folded() } else { crate::checksum::non_zero(pseudo.plus(&bytes).checksum(), at) };
    bytes[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    bytes
}

impl Tunnel {
    /// The frame of segment `number`, of how many bytes went before, and of this payload.
    fn frame(self, number: u16, before: usize, flags: u8, payload: &[u8], sums: Sums) -> Vec<u8> {
        let id = |first: u16| first.wrapping_add(number);
        let whole = self.inner(before, flags, payload, false);
        let inner = self.inner(before, flags, payload, sums != Sums::Whole);
        let protocol = if self.udp { 17 } else { 6 };
        let [whole, inner] = [whole, inner].map(|transport| ip(self.inner_v6, protocol, id(0xfffe), &transport));
        let (kind, [whole, inner]) = match self.around {
            Around::Vxlan { .. } => (17, [whole, inner].map(|packet| self.vxlan(&packet))),
            Around::Gre { summed } => (47, [whole, inner].map(|packet| self.gre(summed, &packet))),
            Around::Ip => (if self.inner_v6 { 41 } else { 4 }, [whole, inner]),
        };
        let pseudo = pseudo(self.outer_v6, kind, inner.len());
        let finished = |at: usize, pseudo: Sum| {
            let right = summed(whole.clone(), at, pseudo, false);
            [&inner[..at], &right[at..at + 2], &inner[at + 2..]].concat()
        };
        let outer = match (self.around, sums) {
            (Around::Vxlan { summed: true }, Sums::Super) => summed(inner, 6, pseudo, true),
            (Around::Vxlan { summed: true }, _) => finished(6, pseudo),
            (Around::Gre { summed: true }, Sums::Whole | Sums::Inner) => finished(4, Sum::new()),
            _ => inner,
        };
        let kind_of_packet: &[u8] = if self.outer_v6 { &[0x86, 0xdd] } else { &[8, 0] };
        let tag: &[u8] = if self.tagged { &[0x81, 0, 0, 7] } else { &[] };
        [&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2], tag, kind_of_packet, &ip(self.outer_v6, kind, id(7), &outer)].concat()
    }

    fn inner(self, before: usize, flags: u8, payload: &[u8], left: bool) -> Vec<u8> {
        if self.udp {
            let length = u16::try_from(8 + payload.len()).unwrap().to_be_bytes();
            let datagram = [&[3, 232, 7, 208][..], &length, &[0, 0], payload].concat();
            let pseudo = pseudo(self.inner_v6, 17, datagram.len());
            return summed(datagram, 6, pseudo, left);
        }
        let sequence = (u32::MAX - 3000).wrapping_add(u32::try_from(before).unwrap()).to_be_bytes();
        let options = [1, 1, 8, 10, 0, 0, 0, 7, 0, 0, 0, 9];
        let segment =
            [&[3, 232, 7, 208][..], &sequence, &[0, 0, 0, 77, 0x80, flags, 1, 244, 0, 0, 0, 0], &options, payload].concat();
        let pseudo = pseudo(self.inner_v6, 6, segment.len());
        summed(segment, 16, pseudo, left)
    }

    fn vxlan(self, packet: &[u8]) -> Vec<u8> {
        let kind = if self.inner_v6 { [0x86, 0xdd] } else { [8, 0] };
        let length = u16::try_from(8 + 8 + 14 + packet.len()).unwrap().to_be_bytes();
        let ethernet = [&[4; 6][..], &[6; 6], &kind].concat();
        [&[200, 1, 0x12, 0xb5][..], &length, &[0, 0], &[8, 0, 0, 0, 0, 0, 7, 0], &ethernet, packet].concat()
    }

    fn gre(self, summed: bool, packet: &[u8]) -> Vec<u8> {
        let kind = if self.inner_v6 { [0x86, 0xdd] } else { [8, 0] };
        let (bits, sum): (u8, &[u8]) = if summed { (0xa0, &[0; 4]) } else { (0x20, &[]) };
        [&[bits, 0], &kind[..], sum, &[0, 0, 0, 42], packet].concat()
    }

    fn kind(self) -> GsoKind {
        match (self.udp, self.inner_v6) {
            (true, _) => GsoKind::Udp,
            (false, false) => GsoKind::Tcp4,
            (false, true) => GsoKind::Tcp6,
        }
    }

    fn partial(self, frame: &[u8], payload: usize) -> Checksum {
        let (header, offset) = if self.udp { (8, 6) } else { (32, 16) };
        Checksum::Partial { start: u16::try_from(frame.len() - payload - header).unwrap(), offset }
    }

    /// A super-frame, and the frames that the kernel would have cut it into.
    fn super_frame(self, length: usize, size: u16, flags: u8) -> ((Vec<u8>, Offload), Vec<Vec<u8>>) {
        let payload = bytes(length);
        let frame = self.frame(0, 0, flags, &payload, Sums::Super);
        let gso = Some(Gso { kind: self.kind(), size: NonZeroU16::new(size).unwrap(), ecn: false });
        let offload = Offload { checksum: self.partial(&frame, length), gso };
        let count = length.div_ceil(size.into());
        let segments = (0..).zip(payload.chunks(size.into())).map(|(number, piece)| {
            let last = usize::from(number) + 1 == count;
            let first_only = if number > 0 { 0x80 } else { 0 };
            let flags = flags & !first_only & if last { 0xff } else { !0x09 };
            self.frame(number, usize::from(number) * usize::from(size), flags, piece, Sums::Whole)
        });
        ((frame, offload), segments.collect())
    }
}

fn tunnels() -> impl Strategy<Value = Tunnel> {
    (0..5, any::<[bool; 4]>()).prop_map(|(around, [outer_v6, inner_v6, udp, tagged])| {
        let around = match around {
            0 => Around::Vxlan { summed: true },
            1 => Around::Vxlan { summed: false },
            2 => Around::Gre { summed: true },
            3 => Around::Gre { summed: false },
            _ => Around::Ip,
        };
        Tunnel { around, outer_v6, inner_v6, udp, tagged }
    })
}

/// What a device that takes nothing is sent in the end.
fn cut(frames: Vec<(Vec<u8>, Offload, u16)>) -> Vec<Vec<u8>> {
    let frames: Vec<_> = frames.into_iter().map(|(bytes, offload, _)| (bytes, offload)).collect();
    sent(&frames, TagEdit::Keep, NONE).into_iter().map(|(bytes, _, _)| bytes).collect()
}

proptest! {
    #[test]
    fn a_super_frame_in_a_tunnel_is_cut_as_the_kernel_cuts_it(
        tunnel in tunnels(),
        size in 1u16..1400,
        count in 1usize..40,
        last in 1usize..1400,
        flags in prop::sample::select(vec![0x10_u8, 0x18, 0x19, 0x90]),
        choice: u8,
    ) {
        let length = usize::from(size) * (count - 1) + last.min(size.into());
        let (original, segments) = tunnel.super_frame(length, size, flags);
        let edit = edits(tunnel.tagged, choice);
        let expected: Vec<_> = segments.into_iter().map(|bytes| edited(bytes, edit)).collect();
        for capabilities in [NONE, CHECKSUM_ONLY, Capabilities { udp: false, ..Capabilities::PLAIN }] {
            let out = sent(std::slice::from_ref(&original), edit, capabilities);
            let valid = Offload { checksum: Checksum::Valid, gso: None };
            prop_assert!(out.iter().all(|(_, offload, _)| *offload == valid));
            let out: Vec<_> = out.into_iter().map(|(bytes, _, _)| bytes).collect();
            prop_assert_eq!(&out, &expected);
        }
        let datagrams = sent(std::slice::from_ref(&original), edit, Capabilities::PLAIN);
        if count > 1 && tunnel.around == (Around::Vxlan { summed: true }) {
            prop_assert_eq!(datagrams.len(), 1, "the tunnel's datagrams are a super-frame themselves");
            prop_assert_eq!(datagrams[0].1.gso.map(|gso| gso.kind), Some(GsoKind::Udp));
        }
        prop_assert_eq!(cut(datagrams), expected.clone());
        let whole = sent(std::slice::from_ref(&original), edit, Capabilities::ALL);
        if matches!(tunnel.around, Around::Vxlan { .. }) {
            prop_assert_eq!(whole.len(), 1);
            prop_assert_eq!(whole[0].1.gso, original.1.gso);
        }
        prop_assert_eq!(cut(whole), expected);
    }

    #[test]
    fn a_checksum_left_inside_a_tunnel_is_finished_as_the_frame_comes_in(tunnel in tunnels(), length in 0usize..1400, choice: u8) {
        let payload = bytes(length);
        let frame = tunnel.frame(0, 0, 0x10, &payload, Sums::Inner);
        let whole = tunnel.frame(0, 0, 0x10, &payload, Sums::Whole);
        let offload = Offload { checksum: tunnel.partial(&frame, length), gso: None };
        let edit = edits(tunnel.tagged, choice);
        for capabilities in [NONE, CHECKSUM_ONLY, Capabilities::ALL] {
            let out = sent(&[(frame.clone(), offload)], edit, capabilities);
            prop_assert_eq!(&out[0].0, &edited(whole.clone(), edit));
            let known = if tunnel.around == (Around::Vxlan { summed: true }) { Checksum::Valid } else { Checksum::Unverified };
            prop_assert_eq!(out[0].1, Offload { checksum: known, gso: None });
        }
    }

    /// Whatever comes out of a row of frames, of which some carry unfinished packets, is these frames, finished.
    #[test]
    fn what_a_tunnel_leaves_unfinished_is_never_merged_unfinished(
        tunnel in tunnels(),
        row in prop::collection::vec((any::<bool>(), 1usize..1400), 1..20),
    ) {
        let full = row[0].1;
        let (mut frames, mut expected) = (Vec::new(), Vec::new());
        for (number, (unfinished, length)) in (0..).zip(&row) {
            let payload = bytes(if number % 3 == 0 { *length } else { full });
            let sums = if *unfinished { Sums::Inner } else { Sums::Whole };
            let frame = tunnel.frame(number, usize::from(number) * full, 0x10, &payload, sums);
            let checksum = if *unfinished { tunnel.partial(&frame, payload.len()) } else { crate::checksum::examine(&frame) };
            frames.push((frame, Offload { checksum, gso: None }));
            expected.push(tunnel.frame(number, usize::from(number) * full, 0x10, &payload, Sums::Whole));
        }
        for capabilities in [NONE, CHECKSUM_ONLY, Capabilities::PLAIN, Capabilities::ALL] {
            prop_assert_eq!(&cut(sent(&frames, TagEdit::Keep, capabilities)), &expected);
        }
    }
}

const VXLAN: Tunnel =
    Tunnel { around: Around::Vxlan { summed: true }, outer_v6: false, inner_v6: false, udp: false, tagged: false };

#[test]
fn frames_whose_inner_checksum_is_unfinished_are_no_run() {
    let frame = VXLAN.frame(0, 0, 0x10, &bytes(100), Sums::Inner);
    let next = VXLAN.frame(1, 100, 0x10, &bytes(100), Sums::Inner);
    let inner = Offload { checksum: VXLAN.partial(&frame, 100), gso: None };
    let run = |checksum| {
        let offload = Offload { checksum, gso: None };
        let frames = [(&frame[..], offload), (&next[..], offload)];
        (coalesce::run_length(frames, Capabilities::ALL), coalesce::continuation(frames[0], std::iter::once(frames[1])))
    };
    assert_eq!(run(inner.checksum), (1, 0));
    assert_eq!(run(Checksum::Valid), (2, 1), "they are alike otherwise");
    let (original, _) = VXLAN.super_frame(300, 100, 0x10);
    let last = Offload { gso: original.1.gso, ..inner };
    assert_eq!(coalesce::continuation((&original.0, last), std::iter::once((&next[..], inner))), 0);
}

#[test]
fn a_device_that_takes_it_whole_is_told_where_the_inner_packet_is() {
    let (original, _) = Tunnel { tagged: true, ..VXLAN }.super_frame(5000, 1398, 0x10);
    let mut batch = Batch::new();
    batch.push(&original.0, original.1);
    let frame = &batch.frames()[0];
    assert_eq!(frame.segments(), 4);
    for (edit, shift) in [(TagEdit::Keep, 4_u16), (TagEdit::Pop, 0), (TagEdit::Set(Tag(9)), 4)] {
        let mut headers = Vec::new();
        Egress::new().run(&[Queued { frame, edit, peer: 0 }], Capabilities::ALL, &mut |packet| {
            let place = |at| at + shift;
            let expected = UdpTunnel { transport: place(34), network: place(64), version: IpVersion::V4, summed: true };
            assert_eq!((packet.tunnel, packet.headers), (Some(expected), place(116)));
            headers.push(packet.offload.encode_with(packet.headers, packet.tunnel));
        });
        assert_eq!(headers.len(), 1);
        assert_eq!(headers[0][..2], [1 | 8, 1 | 0x20], "a checksum each, TCP over IPv4 in UDP over IPv4");
        assert_eq!(headers[0][20..], [(34 + shift).to_le_bytes(), (64 + shift).to_le_bytes()].concat());
        assert_eq!(Offload::decode(*headers[0].first_chunk().unwrap(), 5000).unwrap().gso, original.1.gso);
    }
}

#[test]
fn what_is_in_no_tunnel_that_can_be_cut_is_counted() {
    let (mut numbered, offload) = Tunnel { around: Around::Gre { summed: false }, ..VXLAN }.super_frame(300, 100, 0x10).0;
    // Sequence numbers differ from packet to packet (RFC 2890).
    numbered[34] |= 0x10;
    let (mut elsewhere, _) = VXLAN.super_frame(300, 100, 0x10).0;
    elsewhere[64] = 0x46;
    let checksum = Checksum::Partial { start: 84, offset: 16 };
    for (frame, checksum) in [(numbered, offload.checksum), (elsewhere, checksum)] {
        for capabilities in [NONE, Capabilities::PLAIN, Capabilities::ALL] {
            assert_eq!(sent(&[(frame.clone(), Offload { checksum, ..offload })], TagEdit::Keep, capabilities), []);
        }
    }
}
