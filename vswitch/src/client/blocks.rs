//! The pcapng stream that a capture brings, cut into whole blocks, for `capture.rs`, which writes them to a file or to tcpdump.
//! Pure functions of the bytes.

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

/// Enhanced Packet Block and Interface Statistics Block (draft-ietf-opsawg-pcapng, sections 4.3 and 4.6).
const PACKET: u32 = 6;
const STATISTICS: u32 = 5;
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

/// The packets that a statistics block says were dropped: its options come after interface and timestamp.
fn dropped(block: &[u8]) -> u64 {
    let mut options = block.get(20..block.len() - 4).unwrap_or_default();
    while let (Some(code), Some(length)) = (options.first_chunk(), options.get(2..).and_then(|rest| rest.first_chunk())) {
        let length = usize::from(u16::from_ne_bytes(*length));
        let value = options.get(4..4 + length).unwrap_or_default();
        if u16::from_ne_bytes(*code) == DROPPED {
            return value.first_chunk().map_or(0, |bytes| u64::from_ne_bytes(*bytes));
        }
        options = options.get(4 + length.next_multiple_of(4)..).unwrap_or_default();
    }
    0
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
