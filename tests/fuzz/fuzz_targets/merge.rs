//! Any row of TCP segments or UDP datagrams, some of them damaged or around a packet whose checksum is unfinished, into super-frames as a tunnel's receiver makes them, and out again of a
//! port that takes none: every frame comes back, in order and as it was, but for identifications.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use packet::{Batch, Capabilities, Checksum, Egress, Offload, Queued, TagEdit, Transport, checksum};

#[derive(Arbitrary, Debug)]
struct Row {
    v6: bool,
    udp: bool,
    /// Whether IPv4 packets may not be fragmented, so that identifications do not count.
    whole: bool,
    tags: u8,
    size: u16,
    next: Vec<Next>,
}

/// A frame of the row, by what tells it from a full segment that continues the one before.
#[derive(Arbitrary, Debug)]
struct Next {
    length: Option<u16>,
    gap: Option<u32>,
    flags: Option<u8>,
    /// A bit to turn over, and whether the checksums are made right again.
    damage: Option<(u16, bool)>,
    /// Where in the payload the transport of another packet begins, whose checksum is unfinished.
    inner: Option<u8>,
    /// Whether the receiver's read ends with it.
    ends_read: bool,
    other_peer: bool,
}

/// Where headers begin.
struct Places {
    network: usize,
    transport: usize,
    payload: usize,
}

impl Row {
    fn kind(&self) -> Transport {
        if self.udp { Transport::Udp } else { Transport::Tcp }
    }

    fn places(&self) -> Places {
        let network = 14 + 4 * usize::from(self.tags % 4);
        let transport = network + if self.v6 { 40 } else { 20 };
        Places { network, transport, payload: transport + if self.udp { 8 } else { 20 } }
    }

    fn frame(&self, number: u16, sequence: u32, flags: u8, length: usize) -> Vec<u8> {
        let Places { network, transport, payload } = self.places();
        let kind = if self.v6 { [0x86, 0xdd] } else { [8, 0] };
        let mut bytes = [&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2][..], &[0x81, 0, 0, 5].repeat(network / 4 - 3), &kind].concat();
        let behind = |from: usize| u16::try_from(payload + length - from).unwrap().to_be_bytes();
        let protocol = self.kind().protocol();
        if self.v6 {
            bytes.extend([&[0x60, 0, 0, 0][..], &behind(transport), &[protocol, 64], &[1; 16], &[2; 16]].concat());
        } else {
            let fragment = if self.whole { 0x40 } else { 0 };
            let id = number.to_be_bytes();
            bytes.extend(
                [&[0x45, 0][..], &behind(network), &id, &[fragment, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]].concat(),
            );
        }
        bytes.extend([3, 232, 7, 208]);
        if self.udp {
            bytes.extend([behind(transport), [0, 0]].concat());
        } else {
            bytes.extend([&sequence.to_be_bytes()[..], &[0, 0, 0, 77, 0x50, flags, 1, 244, 0, 0, 0, 0]].concat());
        }
        bytes.extend((0..length).map(|at| (at as u8).wrapping_add(number as u8)));
        self.sum(&mut bytes);
        bytes
    }

    /// Makes both checksums right.
    fn sum(&self, bytes: &mut [u8]) {
        let Places { network, transport, .. } = self.places();
        if !self.v6 {
            bytes[network + 10..network + 12].fill(0);
            let sum = checksum::Sum::new().plus(&bytes[network..transport]).checksum();
            bytes[network + 10..network + 12].copy_from_slice(&sum.to_be_bytes());
        }
        let offset = self.kind().checksum_offset();
        let field = transport + offset;
        bytes[field..field + 2].fill(0);
        let addresses = network + if self.v6 { 8 } else { 12 };
        let [length, start, offset] = [bytes.len() - transport, transport, offset].map(|number| u16::try_from(number).unwrap());
        let pseudo = checksum::Sum::new().plus(&bytes[addresses..transport]);
        let pseudo = pseudo.plus_number(self.kind().protocol().into()).plus_number(length).folded();
        bytes[field..field + 2].copy_from_slice(&pseudo.to_be_bytes());
        checksum::complete(bytes, start, offset).expect("the field is in the frame");
    }

    /// Leaves a checksum inside the payload unfinished, as a kernel's tunnel does: those around it count on its being finished.
    fn leave_inner(&self, bytes: &mut [u8], start: usize) -> Option<Offload> {
        let field = start + 6;
        let before: [u8; 2] = *bytes.get(field..)?.first_chunk()?;
        let start = u16::try_from(start).ok()?;
        checksum::complete(bytes, start, 6)?;
        self.sum(bytes);
        bytes[field..field + 2].copy_from_slice(&before);
        Some(Offload { checksum: Checksum::Partial { start, offset: 6 }, gso: None })
    }

    /// Without what merging may change: identification, and with it the header's checksum.
    fn masked(&self, bytes: &[u8]) -> Vec<u8> {
        let Places { network, .. } = self.places();
        let mut bytes = bytes.to_vec();
        if !self.v6 && bytes.get(network + 6).is_some_and(|field| field & 0x40 != 0) {
            bytes[network + 4..network + 6].fill(0);
            bytes[network + 10..network + 12].fill(0);
        }
        bytes
    }
}

fuzz_target!(|row: Row| {
    let size = 1 + row.size % 1460;
    let payload = row.places().payload;
    let (mut sequence, mut frames, mut ends) = (0_u32, Vec::new(), Vec::new());
    for (number, next) in (0..150).zip(&row.next) {
        sequence = sequence.wrapping_add(next.gap.unwrap_or(0));
        let length = next.length.map_or(size, |length| length % 1461);
        let mut bytes = row.frame(number, sequence, next.flags.unwrap_or(0x10), length.into());
        if let Some((at, summed)) = next.damage {
            let at = usize::from(at) % (8 * payload);
            bytes[at / 8] ^= 1 << (at % 8);
            if summed {
                row.sum(&mut bytes);
            }
        }
        sequence = sequence.wrapping_add(length.into());
        let inner = next.inner.and_then(|at| row.leave_inner(&mut bytes, payload + usize::from(at)));
        let offload = inner.unwrap_or_else(|| Offload { checksum: checksum::examine(&bytes), gso: None });
        frames.push((bytes, offload, u16::from(next.other_peer)));
        ends.push(next.ends_read);
    }
    let mut batch = Batch::new();
    let mut read = &frames[..];
    while let Some((_, _, peer)) = read.first() {
        let end = 1 + ends[frames.len() - read.len()..].iter().position(|ends| *ends).unwrap_or(read.len() - 1);
        batch.set_origin(1, *peer);
        let together = read[..end].iter().take_while(|(_, _, other)| other == peer);
        let taken = batch.push_merged(together.map(|(bytes, offload, _)| (&bytes[..], *offload)));
        read = &read[taken..];
    }
    let queue: Vec<_> = batch.frames().iter().map(|frame| Queued { frame, edit: TagEdit::Keep, peer: frame.peer }).collect();
    let mut sent = frames.iter();
    for part in queue.chunks(Batch::FRAMES) {
        let lost = Egress::new().run(part, Capabilities::default(), &mut |packet| {
            let (bytes, offload, peer) = sent.next().expect("no frame is made");
            let mut whole = bytes.clone();
            if let Checksum::Partial { start, offset } = offload.checksum {
                checksum::complete(&mut whole, start, offset).expect("the field is in the frame");
            }
            assert_eq!((row.masked(&packet.to_vec()), packet.peer), (row.masked(&whole), *peer), "a frame is as it was");
        });
        assert!(lost.is_empty(), "what was merged can be cut");
    }
    assert!(sent.next().is_none(), "no frame is lost");
});
