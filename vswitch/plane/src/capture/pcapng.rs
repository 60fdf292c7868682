//! pcapng (IETF draft-ietf-opsawg-pcapng), the five blocks that a capture needs, written into memory.
//!
//! Own code, because no released crate writes them all: pcap-file 2.0 and 3.0.0-rc1 swap the halves of the Interface
//! Statistics Block's timestamp on little-endian machines (section 4.6 wants the upper half first), 3.0.0-rc.3, which mends
//! that, is a pre-release that Cargo sorts before rc1, and pcapng-writer stopped at an early draft. Writing into memory cannot
//! fail, so nothing here returns an error.
//!
//! # Checksums that are not computed yet
//! A kernel that hands over a frame may leave its TCP or UDP checksum to the receiver ([`Checksum::Partial`]). Shown as it
//! is, every such frame looks broken. So the captured copy gets the checksum that a wire would have shown; the frame itself
//! goes on as it was. There are two exceptions, each told in a comment of the packet. A super-frame stays as it is, for no frame on a wire
//! ever carries a checksum over all its segments. So does a frame that was cut, for its sum needs the bytes that are gone.

use std::borrow::Cow;
use std::net::IpAddr;

use packet::checksum::complete;
use packet::{Checksum, Offload};

use super::{Captured, Direction};
use api::{FrameNote, SuperFrame};

/// Most bytes that are kept of a frame, as tcpdump has it; longer than any frame.
pub(super) const SNAP_LENGTH: u32 = 262_144;

/// pcapng blocks that wait to be read.
#[derive(Debug, Default)]
pub(super) struct Writer {
    out: Vec<u8>,
}

/// The numbers of an interface at the end of a capture.
pub(super) struct Statistics {
    /// When the capture began, in nanoseconds since the epoch.
    pub(super) from: u64,
    /// When it ended.
    pub(super) to: u64,
    /// Frames that the filter took.
    pub(super) received: u64,
    /// Those of them that are not in the capture because its reader was slow.
    pub(super) missed: u64,
}

impl Writer {
    /// Begins with a section header; its length is not known in advance.
    pub(super) fn new() -> Self {
        let mut writer = Self::default();
        writer.block(0x0a0d_0d0a, |out| {
            out.extend_from_slice(&0x1a2b_3c4d_u32.to_ne_bytes());
            out.extend_from_slice(&1u16.to_ne_bytes());
            out.extend_from_slice(&0u16.to_ne_bytes());
            out.extend_from_slice(&(-1i64).to_ne_bytes());
            text(out, 2, std::env::consts::ARCH);
            text(out, 3, &operating_system());
            text(out, 4, concat!("vswitchd ", env!("CARGO_PKG_VERSION")));
            end_of_options(out);
        });
        writer
    }

    /// Describes an interface. Interfaces count from 0 in the order in which they are described.
    pub(super) fn interface(&mut self, name: &str, description: &str) {
        const ETHERNET: u16 = 1;
        const NANOSECONDS: u8 = 9;
        self.block(1, |out| {
            out.extend_from_slice(&ETHERNET.to_ne_bytes());
            out.extend_from_slice(&0u16.to_ne_bytes());
            out.extend_from_slice(&SNAP_LENGTH.to_ne_bytes());
            text(out, 2, name);
            text(out, 3, description);
            option(out, 9, &[NANOSECONDS]);
            end_of_options(out);
        });
    }

    /// Writes a frame of an interface, before which `missed` frames of the same interface were not taken, with what is said of it.
    pub(super) fn packet(&mut self, interface: u32, missed: u64, captured: &mut Captured, said: &FrameNote) {
        let notes = finish_checksum(captured);
        let flags: u32 = match captured.seen.direction {
            Direction::In => 0b01,
            Direction::Out => 0b10,
        };
        self.block(6, |out| {
            out.extend_from_slice(&interface.to_ne_bytes());
            timestamp(out, captured.seen.at);
            out.extend_from_slice(&length(&captured.bytes).to_ne_bytes());
            out.extend_from_slice(&captured.length.to_ne_bytes());
            out.extend_from_slice(&captured.bytes);
            pad(out);
            option(out, 2, &flags.to_ne_bytes());
            if missed > 0 {
                option(out, 4, &missed.to_ne_bytes());
            }
            if let Some(id) = said.id {
                option(out, 5, &id.to_ne_bytes());
            }
            text(out, 1, &said.to_string());
            notes.iter().flatten().for_each(|note| text(out, 1, note));
            end_of_options(out);
        });
    }

    /// Gives addresses their names (section 4.5).
    pub(super) fn names(&mut self, names: &[(IpAddr, String)]) {
        self.block(4, |out| {
            for (address, name) in names {
                let (kind, mut value) = match address {
                    IpAddr::V4(address) => (1, address.octets().to_vec()),
                    IpAddr::V6(address) => (2, address.octets().to_vec()),
                };
                value.extend(name.bytes().filter(|byte| *byte != 0).take(255).chain([0]));
                option(out, kind, &value);
            }
            end_of_options(out);
        });
    }

    /// Writes what is known of an interface when the capture ends.
    pub(super) fn statistics(&mut self, interface: u32, statistics: &Statistics) {
        self.block(5, |out| {
            out.extend_from_slice(&interface.to_ne_bytes());
            timestamp(out, statistics.to);
            for (code, time) in [(2u16, statistics.from), (3, statistics.to)] {
                out.extend_from_slice(&code.to_ne_bytes());
                out.extend_from_slice(&8u16.to_ne_bytes());
                timestamp(out, time);
            }
            option(out, 4, &statistics.received.to_ne_bytes());
            option(out, 5, &statistics.missed.to_ne_bytes());
            end_of_options(out);
        });
    }

    /// Bytes written and not yet taken.
    pub(super) fn len(&self) -> usize {
        self.out.len()
    }

    /// Takes what was written.
    pub(super) fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }

    /// Writes a block: its type, its length, its body padded to four bytes, its length again.
    fn block(&mut self, kind: u32, body: impl FnOnce(&mut Vec<u8>)) {
        let mut content = std::mem::take(&mut self.out);
        let start = content.len();
        content.extend_from_slice(&kind.to_ne_bytes());
        content.extend_from_slice(&[0; 4]);
        body(&mut content);
        let total = (length(&content[start..]) + 4).to_ne_bytes();
        content.extend_from_slice(&total);
        content[start + 4..start + 8].copy_from_slice(&total);
        self.out = content;
    }
}

/// Completes a partial checksum where that makes sense, and returns what is left to say about offloads.
fn finish_checksum(captured: &mut Captured) -> [Option<Cow<'static, str>>; 2] {
    let Offload { checksum, gso } = captured.offload;
    let segments = gso.map(|gso| Cow::Owned(SuperFrame::from(gso).comment()));
    let Checksum::Partial { start, offset } = checksum else { return [segments, None] };
    let whole = captured.length == length(&captured.bytes);
    if whole && gso.is_none() && complete(&mut captured.bytes, start, offset).is_some() {
        return [None, None];
    }
    [segments, Some(Cow::Borrowed("checksum left to the receiver"))]
}

/// A time, upper half first whatever the byte order.
fn timestamp(out: &mut Vec<u8>, nanoseconds: u64) {
    let [a, b, c, d, e, f, g, h] = nanoseconds.to_be_bytes();
    out.extend_from_slice(&u32::from_be_bytes([a, b, c, d]).to_ne_bytes());
    out.extend_from_slice(&u32::from_be_bytes([e, f, g, h]).to_ne_bytes());
}

/// An option with text, cut to a length that every reader takes.
fn text(out: &mut Vec<u8>, code: u16, text: &str) {
    const LONGEST: usize = 4096;
    let end = (0..=LONGEST.min(text.len())).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
    option(out, code, &text.as_bytes()[..end]);
}

fn option(out: &mut Vec<u8>, code: u16, value: &[u8]) {
    let size = u16::try_from(value.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&code.to_ne_bytes());
    out.extend_from_slice(&size.to_ne_bytes());
    out.extend_from_slice(&value[..size.into()]);
    pad(out);
}

fn end_of_options(out: &mut Vec<u8>) {
    out.extend_from_slice(&[0; 4]);
}

/// Pads to four bytes. Blocks are multiples of four, so the end of what is written tells how far.
fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(4), 0);
}

/// No frame and no block comes near 4 GiB.
fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

fn operating_system() -> String {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("Linux {}", release.trim()).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn long_texts_are_cut_between_characters() {
        let mut out = Vec::new();
        text(&mut out, 3, &"ä".repeat(3000));
        assert_eq!(out[2..4], 4096u16.to_ne_bytes());
        out.clear();
        text(&mut out, 3, &format!("x{}", "ä".repeat(3000)));
        assert_eq!((&out[2..4], out.len()), (&4095u16.to_ne_bytes()[..], 4 + 4096));
    }

    proptest! {
        /// What the sender leaves in the field is the folded sum of the pseudo header; etherparse knows the whole sum.
        #[test]
        fn a_partial_checksum_becomes_the_whole_one(payload in prop::collection::vec(any::<u8>(), 0..3000), v6: bool, udp: bool) {
            let ethernet = PacketBuilder::ethernet2([2; 6], [4; 6]);
            let step = if v6 { ethernet.ipv6([1; 16], [2; 16], 9) } else { ethernet.ipv4([10, 0, 0, 1], [10, 0, 0, 2], 9) };
            let mut frame = Vec::new();
            if udp {
                step.udp(53, 53).write(&mut frame, &payload).unwrap();
            } else {
                step.tcp(80, 80, 1, 2).write(&mut frame, &payload).unwrap();
            }
            let start = 14 + if v6 { 40 } else { 20 };
            let (offset, protocol) = if udp { (6, 17) } else { (16, 6) };
            let addresses = if v6 { 22..54 } else { 26..34 };
            let pseudo = [&frame[addresses], &[0, protocol], &u16::try_from(frame.len() - start).unwrap().to_be_bytes()].concat();
            let sum: u32 = pseudo.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
            let folded = u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
            let whole = frame.clone();
            frame[start + offset..start + offset + 2].copy_from_slice(&folded.to_be_bytes());
            complete(&mut frame, u16::try_from(start).unwrap(), u16::try_from(offset).unwrap()).unwrap();
            prop_assert_eq!(frame, whole);
        }
    }
}
