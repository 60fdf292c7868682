//! The Internet checksum (RFC 1071) over bytes that lie in several pieces.

use crate::layers::number;
use crate::{Checksum, IpVersion, Layers, Transport};

/// A ones' complement sum in progress, over up to 16 GiB.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum {
    /// Of words in the machine's order, which ones' complement addition does not care for (RFC 1071, section 2); no carry was lost.
    total: u64,
    /// Whether an odd number of bytes was added so far, so that the next piece counts shifted by one byte.
    odd: bool,
}

impl Sum {
    /// Nothing added yet.
    pub const fn new() -> Self {
        Self { total: 0, odd: false }
    }

    /// Adds bytes which follow those added before.
    #[must_use]
    pub fn plus(self, bytes: &[u8]) -> Self {
        // A header is not worth finding out what the processor can do.
        const HEADER: usize = 128;
        let sum = if bytes.len() < HEADER { words(bytes) } else { blocks(bytes) };
        let sum = if self.odd { fold(sum).swap_bytes().into() } else { sum };
        Self { total: self.total + sum, odd: self.odd ^ (bytes.len() % 2 == 1) }
    }

    /// Adds a number of 16 bits, as of a pseudo header.
    #[must_use]
    pub const fn plus_number(self, number: u16) -> Self {
        Self { total: self.total + number.to_be() as u64, odd: self.odd }
    }

    /// The sum, not inverted: what a partial checksum's field holds.
    pub fn folded(self) -> u16 {
        u16::from_be(fold(self.total))
    }

    /// The checksum: the sum inverted.
    pub fn checksum(self) -> u16 {
        !self.folded()
    }
}

/// The sum of the words of four bytes; bytes that are missing in the last one are 0.
fn words(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<4>();
    let last = match *rest {
        [] => [0; 4],
        [a] => [a, 0, 0, 0],
        [a, b] => [a, b, 0, 0],
        [a, b, c, ..] => [a, b, c, 0],
    };
    let sum: u64 = words.iter().map(|word| u64::from(u32::from_ne_bytes(*word))).sum();
    sum + u64::from(u32::from_ne_bytes(last))
}

/// As [`words`], in eight lanes that are added up at the end: the compiler makes vector instructions of it.
#[multiversion::multiversion(targets("x86_64+avx2"))]
fn blocks(bytes: &[u8]) -> u64 {
    let mut lanes = [0_u64; 8];
    let (blocks, rest) = bytes.as_chunks::<32>();
    for block in blocks {
        for (lane, word) in lanes.iter_mut().zip(block.as_chunks::<4>().0) {
            *lane += u64::from(u32::from_ne_bytes(*word));
        }
    }
    lanes.iter().sum::<u64>() + words(rest)
}

/// Adds carries back in until 16 bits are left.
fn fold(sum: u64) -> u16 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    u16::try_from(sum).unwrap_or(u16::MAX)
}

/// Offset of the checksum in a UDP header; TCP's is at 16.
const UDP_FIELD: usize = 6;

/// Completes a partial checksum in place: sums from `start` to the end, with what the field holds, and puts the result into
/// the field at `start + offset`. A UDP checksum of zero is written as `0xffff` (RFC 768). Returns `None`, and changes nothing,
/// if the field is not inside `bytes`.
pub fn complete(bytes: &mut [u8], start: u16, offset: u16) -> Option<()> {
    let (start, offset) = (usize::from(start), usize::from(offset));
    let checksum = non_zero(Sum::new().plus(bytes.get(start..)?).checksum(), offset);
    bytes.get_mut(start + offset..start + offset + 2)?.copy_from_slice(&checksum.to_be_bytes());
    Some(())
}

/// Finishes a partial checksum in place that is not of the frame's own transport, but of a packet inside it, as a kernel's tunnels leave
/// it; returns what is known of the frame's own then. Others stay as they are.
///
/// Otherwise all code that cuts, merges, translates or takes apart the outer packet would have to know of it. And not every device computes
/// a checksum where it does not look for one.
pub(crate) fn finish_inner(frame: &mut [u8], checksum: Checksum) -> Checksum {
    match checksum {
        Checksum::Partial { start, offset } if Layers::is_inner_transport(frame, start) => {
            // With metadata that is nonsense it goes as it is.
            let _ = complete(frame, start, offset);
            examine(frame)
        }
        known => known,
    }
}

/// Finds out about the transport checksum of a frame that came without a word about it: [`Checksum::Valid`] if it is TCP or UDP with
/// the right one, [`Checksum::Partial`] if the field holds what a kernel leaves to its network card, the sum of the pseudo header;
/// else [`Checksum::Unverified`].
///
/// A kernel leaves it so inside a tunnel too. Where no card is between the kernel and the reader, as on a veth pair, it is never finished.
/// One wrong checksum in 65,536 looks like that by chance.
pub fn examine(frame: &[u8]) -> Checksum {
    examined(frame).unwrap_or(Checksum::Unverified)
}

fn examined(frame: &[u8]) -> Option<Checksum> {
    // Behind a routing header, the pseudo header has another destination (RFC 8200, section 8.1).
    let layers = Layers::parse(frame).filter(|layers| layers.plain)?;
    let addresses = match layers.version {
        IpVersion::V4 => frame.get(layers.network + 12..layers.network + 20),
        IpVersion::V6 => frame.get(layers.network + 8..layers.network + 40),
    };
    let offset = layers.transport_kind.checksum_offset();
    let field = number(frame, layers.transport + offset)?;
    if layers.transport_kind == Transport::Udp && field == 0 {
        return None;
    }
    let length = u16::try_from(layers.end - layers.transport).ok()?;
    let pseudo = Sum::new().plus(addresses?).plus_number(layers.transport_kind.protocol().into()).plus_number(length);
    if pseudo.plus(frame.get(layers.transport..layers.end)?).folded() == 0xffff {
        return Some(Checksum::Valid);
    }
    let (start, offset) = (u16::try_from(layers.transport).ok()?, u16::try_from(offset).ok()?);
    // A partial sum goes to the end of the frame, where there is no padding.
    (pseudo.folded() == field && layers.end == frame.len()).then_some(Checksum::Partial { start, offset })
}

/// For UDP a checksum of zero means that there is none, so the other zero stands for it.
pub(crate) const fn non_zero(checksum: u16, offset: usize) -> u16 {
    if checksum == 0 && offset == UDP_FIELD { 0xffff } else { checksum }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The definition, slowly.
    fn plain(bytes: &[u8]) -> u16 {
        let mut sum = 0_u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        u16::try_from(sum).unwrap()
    }

    /// Ones' complement has two zeros.
    fn same(one: u16, other: u16) -> bool {
        one == other || [one, other].iter().all(|sum| [0, 0xffff].contains(sum))
    }

    proptest! {
        #[test]
        fn it_agrees_with_the_definition_however_the_bytes_are_cut(
            bytes in prop::collection::vec(any::<u8>(), 0..2000),
            cuts in prop::collection::vec(0usize..2000, 0..4),
        ) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.sort_unstable();
            cuts.push(bytes.len());
            let (mut sum, mut from) = (Sum::new(), 0);
            for cut in cuts {
                sum = sum.plus(&bytes[from..cut]);
                from = cut;
            }
            prop_assert!(same(sum.folded(), plain(&bytes)));
        }

        #[test]
        fn a_completed_checksum_verifies(mut bytes in prop::collection::vec(any::<u8>(), 20..100), even in 0u16..5) {
            let (start, offset) = (even * 2, 6);
            let field = usize::from(start + offset);
            let pseudo = Sum::new().plus(&[bytes[field], bytes[field + 1]]).folded();
            complete(&mut bytes, start, offset).unwrap();
            let all = Sum::new().plus(&bytes[usize::from(start)..]).plus_number(pseudo);
            prop_assert!(same(all.folded(), 0xffff));
            prop_assert!(bytes[field..field + 2] != [0, 0]);
        }
    }

    #[test]
    fn only_a_right_checksum_is_valid() {
        use etherparse::PacketBuilder;
        let ethernet = || PacketBuilder::ethernet2([2; 6], [4; 6]);
        let (mut udp, mut tcp) = (Vec::new(), Vec::new());
        ethernet().ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64).udp(1, 2).write(&mut udp, b"abc").unwrap();
        ethernet().ipv6([1; 16], [2; 16], 64).tcp(1, 2, 3, 4).write(&mut tcp, b"abcd").unwrap();
        for frame in [&mut udp, &mut tcp] {
            assert_eq!(examine(frame), Checksum::Valid);
            for at in 26..frame.len() {
                frame[at] ^= 0x10;
                assert_eq!(examine(frame), Checksum::Unverified, "{at}");
                frame[at] ^= 0x10;
            }
        }
        let pseudo = Sum::new().plus(&udp[26..34]).plus_number(17).plus_number(11).folded();
        udp[40..42].copy_from_slice(&pseudo.to_be_bytes());
        assert_eq!(examine(&udp), Checksum::Partial { start: 34, offset: 6 }, "what a kernel leaves to a card");
        complete(&mut udp, 34, 6).unwrap();
        assert_eq!(examine(&udp), Checksum::Valid);
        udp[40..42].fill(0);
        assert_eq!(examine(&udp), Checksum::Unverified, "none is not a right one");
        assert_eq!(examine(&[0; 60]), Checksum::Unverified);
    }

    #[test]
    fn the_longest_frame_does_not_overflow() {
        assert_eq!(Sum::new().plus(&vec![0xff; 1 << 20]).folded(), 0xffff);
    }

    #[test]
    fn a_zero_sum_is_a_checksum_of_ones_only_for_udp() {
        let mut bytes = [0, 0, 0, 0, 0, 0, 0xff, 0xff];
        complete(&mut bytes, 0, 6).unwrap();
        assert_eq!(bytes[6..], [0xff, 0xff]);
        let mut bytes = [0, 0, 0xff, 0xff];
        complete(&mut bytes, 0, 2).unwrap();
        assert_eq!(bytes[2..], [0, 0]);
    }

    #[test]
    fn a_field_outside_is_left_alone() {
        let mut bytes = [1, 2, 3];
        assert_eq!(complete(&mut bytes, 0, 2), None);
        assert_eq!(complete(&mut bytes, 9, 0), None);
        assert_eq!(bytes, [1, 2, 3]);
    }
}
