//! What becomes one super-frame, and what does not.

use super::*;

proptest! {
    #[test]
    fn only_the_next_segment_from_the_same_sender_continues_a_super_frame(shape in shapes(), at in 0usize..40, bit in 0u8..8) {
        let kind = if shape.v6 { GsoKind::Tcp6 } else { GsoKind::Tcp4 };
        let shape = Shape { kind, fin: false, ..shape };
        let original = super_frame(shape, &bytes(3000), 1000);
        let segments = sent(std::slice::from_ref(&original), TagEdit::Keep, NONE);
        let header = Layers::parse(&segments[0].0).unwrap().payload;
        let push = |batch: &mut Batch, (bytes, offload, _): &(Vec<u8>, Offload, u16)| {
            batch.push_merged(std::iter::once((&bytes[..], *offload)));
            batch.frames().len()
        };
        let mut batch = Batch::new();
        prop_assert_eq!((push(&mut batch, &segments[0]), push(&mut batch, &segments[1])), (1, 1));
        batch.set_origin(0, 1);
        prop_assert_eq!(push(&mut batch, &segments[2]), 2, "another peer");
        batch.clear();
        batch.set_origin(0, 0);
        prop_assert_eq!((push(&mut batch, &segments[0]), push(&mut batch, &segments[2])), (1, 2), "out of sequence");
        batch.clear();
        // Any bit of the headers but those of the checksum, which others verify, and PSH and FIN.
        let mut changed = segments[1].clone();
        let layers = Layers::parse(&changed.0).unwrap();
        let at = at % header;
        changed.0[at] ^= 1 << bit;
        let free = [16, 17].map(|byte| layers.transport + byte).contains(&at)
            || at == layers.transport + 13 && [1, 8].contains(&(1 << bit));
        prop_assert_eq!((push(&mut batch, &segments[0]), push(&mut batch, &changed)), (1, if free { 1 } else { 2 }));
    }
}

/// Tags count too: with enough of them, what an IP packet may be is more than a frame may be.
#[test]
fn a_merged_frame_is_no_longer_than_frames_may_be() {
    let shape = Shape { kind: GsoKind::Udp, v6: false, tagged: false, fin: false, options: false };
    let mut frame = packet(shape, &bytes(1424)).0;
    crate::checksum::complete(&mut frame, 34, 6).unwrap();
    let merge = |tags: usize| {
        let tagged = [&frame[..12], &[0x81, 0, 0, 5].repeat(tags), &frame[12..]].concat();
        let run = vec![(&tagged[..], Offload { checksum: Checksum::Valid, gso: None }); 30];
        let mut batch = Batch::new();
        for _ in 0..3 {
            let mut rest = &run[..];
            while !rest.is_empty() {
                rest = &rest[batch.push_merged(rest.iter().copied())..];
            }
        }
        batch.frames().iter().map(|frame| frame.bytes().len()).max()
    };
    let length = |segments: usize, tags: usize| Some(14 + 4 * tags + 28 + segments * 1424);
    assert_eq!([0, 2, 3, 30].map(merge), [length(46, 0), length(46, 2), length(45, 3), length(45, 30)]);
}

fn udp(payload: usize) -> (Vec<u8>, Offload) {
    let shape = Shape { kind: GsoKind::Udp, v6: false, tagged: false, fin: false, options: false };
    let (mut frame, layers) = packet(shape, &bytes(payload));
    // Do not fragment, so that identifications do not matter.
    frame[20] = 0x40;
    (frame, Offload { checksum: partial(&layers), gso: None })
}

fn tcp(sequence: u32, flags: u8, payload: usize) -> (Vec<u8>, Offload) {
    let shape = Shape { kind: GsoKind::Tcp4, v6: false, tagged: false, fin: false, options: false };
    let (mut frame, layers) = packet(shape, &bytes(payload));
    frame[20] = 0x40;
    frame[layers.transport + 4..layers.transport + 8].copy_from_slice(&sequence.to_be_bytes());
    frame[layers.transport + 13] = flags;
    (frame, Offload { checksum: partial(&layers), gso: None })
}

/// How many packets a queue becomes.
fn count(frames: &[(Vec<u8>, Offload)]) -> usize {
    sent(frames, TagEdit::Keep, Capabilities::ALL).len()
}

#[test]
fn a_short_datagram_closes_the_run() {
    assert_eq!(count(&[udp(100), udp(100), udp(50), udp(50)]), 2);
    assert_eq!(count(&[udp(100), udp(101)]), 2);
    assert_eq!(count(&[udp(0), udp(0)]), 2, "nothing to merge in empty datagrams");
}

#[test]
fn other_flows_are_not_merged() {
    let mut other = udp(100);
    other.0[35] ^= 1;
    assert_eq!(count(&[udp(100), other.clone(), udp(100)]), 3);
    let mut ttl = udp(100);
    ttl.0[22] -= 1;
    assert_eq!(count(&[udp(100), summed(ttl)]), 2);
}

/// With the checksum of its IPv4 header as it must be.
fn summed((mut frame, offload): (Vec<u8>, Offload)) -> (Vec<u8>, Offload) {
    frame[24..26].fill(0);
    let sum = crate::checksum::Sum::new().plus(&frame[14..34]).checksum();
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    (frame, offload)
}

#[test]
fn a_damaged_header_is_not_given_a_good_checksum() {
    for at in [15, 22, 24] {
        let mut damaged = udp(100);
        damaged.0[at] ^= 4;
        assert_eq!(count(&[damaged.clone(), damaged.clone()]), 2, "{at}");
        assert_eq!(count(&[udp(100), damaged]), 2, "{at}");
    }
}

#[test]
fn a_checksum_that_nobody_looked_at_is_not_laundered() {
    let mut unverified = udp(100);
    unverified.1.checksum = Checksum::Unverified;
    assert_eq!(count(&[unverified.clone(), unverified]), 2);
    let mut absent = udp(100);
    (absent.0[40], absent.0[41], absent.1.checksum) = (0, 0, Checksum::Valid);
    assert_eq!(count(&[absent.clone(), absent]), 2, "no checksum at all stays none");
}

#[test]
fn padding_is_not_merged() {
    let mut padded = udp(10);
    padded.0.resize(60, 0);
    assert_eq!(count(&[padded.clone(), padded]), 2);
}

#[test]
fn a_packet_that_lost_its_end_is_not_made_whole() {
    for length in [0, 129] {
        let mut cut = udp(100);
        cut.0[17] = length;
        let cut = summed(cut);
        assert_eq!(count(&[cut.clone(), udp(100)]), 2, "{length}");
        assert_eq!(count(&[udp(100), cut]), 2, "{length}");
    }
}

#[test]
fn identifications_must_count_up_where_fragments_are_allowed() {
    let with_id = |id: u8| {
        let mut frame = udp(100);
        (frame.0[19], frame.0[20]) = (id, 0);
        summed(frame)
    };
    assert_eq!(count(&[with_id(1), with_id(2), with_id(3)]), 1);
    assert_eq!(count(&[with_id(1), with_id(3)]), 2);
}

#[test]
fn tcp_is_merged_in_sequence_only() {
    const ACK: u8 = 0x10;
    assert_eq!(count(&[tcp(0, ACK, 100), tcp(100, ACK, 100), tcp(200, ACK, 30)]), 1);
    assert_eq!(count(&[tcp(0, ACK, 100), tcp(200, ACK, 100)]), 2, "a gap");
    assert_eq!(count(&[tcp(0, ACK, 100), tcp(100, ACK | PSH, 100), tcp(200, ACK, 100)]), 2, "PSH ends the run");
    assert_eq!(count(&[tcp(0, ACK, 0), tcp(0, ACK, 0)]), 2, "pure acknowledgements count each");
    assert_eq!(count(&[tcp(0, 0x02, 100), tcp(100, 0x02, 100)]), 2, "SYN");
    const PSH: u8 = 0x08;
}

#[test]
fn a_run_is_bounded() {
    assert_eq!(count(&vec![udp(10); 64]), 1);
    let large: Vec<_> = (0..5).map(|_| udp(20_000)).collect();
    assert_eq!(count(&large), 2, "an IP packet has 65,535 bytes at most");
}
