//! The pcapng stream that a capture brings, cut into whole blocks, for `output.rs`, which writes them, and `live.rs`, which shows them.
//! Pure functions of the bytes.

use api::{FrameNote, SuperFrame};

/// Cuts a pcapng stream into whole blocks and counts what they say, so that what is written can be read at any moment.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    /// The start of a block whose rest is still to come.
    rest: Vec<u8>,
    /// Packets so far.
    pub(super) packets: u64,
    /// Packets that the capture missed, known when it ends.
    pub(super) missed: u64,
}

/// Section Header, Interface Description, Name Resolution, Interface Statistics and Enhanced Packet Block (draft-ietf-opsawg-pcapng, section 4).
const SECTION: u32 = 0x0a0d_0d0a;
pub(super) const INTERFACE: u32 = 1;
const NAMES: u32 = 4;
const STATISTICS: u32 = 5;
pub(super) const PACKET: u32 = 6;
/// `opt_comment` and `epb_flags` (sections 3.5 and 4.3).
const COMMENT: u16 = 1;
const FLAGS: u16 = 2;
/// Where the data of a packet begins.
const PACKET_DATA: usize = 28;
/// `isb_ifdrop` (section 4.6).
const DROPPED: u16 = 5;
/// Type, length, and length again.
const SMALLEST: usize = 12;

impl Blocks {
    /// Takes the next bytes and returns the blocks that are complete now. `None`: this is no pcapng of this machine's byte
    /// order.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        self.rest.extend_from_slice(bytes);
        let mut complete = 0;
        while let Some((kind, length)) = head(&self.rest[complete..]) {
            if length < SMALLEST || length % 4 != 0 {
                return None;
            }
            let Some(block) = self.rest.get(complete..complete + length) else { break };
            match kind {
                PACKET => self.packets += 1,
                STATISTICS => self.missed += dropped(block),
                _ => {}
            }
            complete += length;
        }
        let rest = self.rest.split_off(complete);
        Some(std::mem::replace(&mut self.rest, rest))
    }
}

fn head(bytes: &[u8]) -> Option<(u32, usize)> {
    let kind = u32::from_ne_bytes(*bytes.first_chunk()?);
    let length = u32::from_ne_bytes(*bytes.get(4..)?.first_chunk()?);
    Some((kind, usize::try_from(length).ok()?))
}

/// The blocks of a stream that was cut into whole ones, with their types.
pub(super) fn each(mut bytes: &[u8]) -> impl Iterator<Item = (u32, &[u8])> {
    std::iter::from_fn(move || {
        let (kind, length) = head(bytes)?;
        let (block, rest) = bytes.split_at_checked(length.max(SMALLEST))?;
        bytes = rest;
        Some((kind, block))
    })
}

/// Whether a file needs this block before the packets behind it can be read.
pub(super) const fn is_preamble(kind: u32) -> bool {
    matches!(kind, SECTION | INTERFACE | NAMES)
}

/// The options that begin at `from` of a block, with their codes.
pub(super) fn options(block: &[u8], from: usize) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = block.get(from..block.len().saturating_sub(4)).unwrap_or_default();
    std::iter::from_fn(move || {
        let code = u16::from_ne_bytes(*rest.first_chunk()?);
        let length = usize::from(u16::from_ne_bytes(*rest.get(2..)?.first_chunk()?));
        let value = rest.get(4..4 + length)?;
        rest = rest.get(4 + length.next_multiple_of(4)..).unwrap_or_default();
        (code > 0).then_some((code, value))
    })
}

/// A packet, with what vswitchd says about it.
#[derive(Debug, PartialEq)]
pub(super) struct NotedPacket<'a> {
    /// The place of its interface among those of the file.
    pub(super) interface: usize,
    /// When it was seen, in nanoseconds since the epoch: vswitchd's resolution.
    pub(super) at: u64,
    /// Whether it left there.
    pub(super) is_out: bool,
    pub(super) note: FrameNote,
    /// How it is cut, if it is a super-frame.
    pub(super) super_frame: Option<SuperFrame>,
    /// As much of it as was captured.
    pub(super) bytes: &'a [u8],
}

/// Reads an Enhanced Packet Block (section 4.3).
pub(super) fn packet(block: &[u8]) -> NotedPacket<'_> {
    let number =
        |at: usize| block.get(at..).and_then(|bytes| bytes.first_chunk()).map_or(0, |bytes| u32::from_ne_bytes(*bytes));
    let length = usize::try_from(number(20)).unwrap_or_default();
    let bytes = block.get(PACKET_DATA..PACKET_DATA + length).unwrap_or_default();
    let (mut note, mut super_frame, mut is_out) = (None, None, false);
    for (code, value) in options(block, PACKET_DATA + length.next_multiple_of(4)) {
        match code {
            COMMENT if note.is_none() => note = Some(FrameNote::read(&String::from_utf8_lossy(value))),
            COMMENT => super_frame = super_frame.or_else(|| SuperFrame::read(&String::from_utf8_lossy(value))),
            FLAGS => is_out = value.first_chunk().is_some_and(|bytes| u32::from_ne_bytes(*bytes) & 3 == 2),
            _ => {}
        }
    }
    let interface = usize::try_from(number(8)).unwrap_or(usize::MAX);
    let at = u64::from(number(12)) << 32 | u64::from(number(16));
    NotedPacket { interface, at, is_out, note: note.unwrap_or_default(), super_frame, bytes }
}

/// The packets that a statistics block says were dropped: its options come after interface and timestamp.
fn dropped(block: &[u8]) -> u64 {
    let value = options(block, 20).find(|(code, _)| *code == DROPPED).and_then(|(_, value)| value.first_chunk());
    value.map_or(0, |bytes| u64::from_ne_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(kind: u32, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + SMALLEST).unwrap().to_ne_bytes();
        [&kind.to_ne_bytes()[..], &length, body, &length].concat()
    }

    fn statistics(dropped: u64) -> Vec<u8> {
        let option = |code: u16, value: u64| [&code.to_ne_bytes()[..], &8u16.to_ne_bytes(), &value.to_ne_bytes()].concat();
        block(STATISTICS, &[vec![0; 12], option(4, 99), option(DROPPED, dropped), vec![0; 4]].concat())
    }

    #[test]
    fn blocks_come_whole_however_they_are_cut() {
        let stream =
            [block(0x0a0d_0d0a, &[1; 16]), block(PACKET, &[2; 40]), block(PACKET, &[3; 4]), statistics(7), statistics(1)];
        let stream = stream.concat();
        for size in [1, 3, 16, 1000] {
            let mut blocks = Blocks::default();
            let out: Vec<u8> = stream.chunks(size).flat_map(|chunk| blocks.push(chunk).unwrap()).collect();
            assert_eq!(out, stream, "{size}");
            assert_eq!((blocks.packets, blocks.missed), (2, 8), "{size}");
        }
    }

    #[test]
    fn what_is_no_pcapng_is_refused_and_what_is_cut_is_kept_back() {
        assert_eq!(Blocks::default().push(&[0; 16]), None);
        assert_eq!(Blocks::default().push(&block(PACKET, &[0; 4])[..15]), Some(Vec::new()));
        assert_eq!(Blocks::default().push(&block(STATISTICS, &[])), Some(block(STATISTICS, &[])));
    }
}
