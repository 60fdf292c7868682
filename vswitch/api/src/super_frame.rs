//! Super-frames: what a kernel hands over as one frame, and what travels as many.

use std::fmt;
use std::num::NonZeroU16;

use packet::{Gso, GsoKind};
use serde::{Deserialize, Serialize};

/// How a super-frame is cut. Captures say it in a comment of the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SuperFrame {
    /// Into what.
    pub kind: SegmentKind,
    /// Bytes of payload in each; the last may have fewer.
    pub segment_bytes: NonZeroU16,
}

/// What a super-frame is cut into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SegmentKind {
    /// Segments of TCP.
    Tcp,
    /// Datagrams of UDP.
    Udp,
}

/// A super-frame, and as how many frames it travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SuperFrameInfo {
    /// How many.
    pub segments: usize,
    /// What they are.
    #[serde(flatten)]
    pub cut: SuperFrame,
}

/// Begins the comment.
const COMMENT: &str = "super-frame: ";

impl SuperFrame {
    /// As a comment of a capture: `super-frame: TCP segments of 1448 bytes`.
    pub fn comment(self) -> String {
        format!("{COMMENT}{self}")
    }

    /// Reads such a comment; `None`: it is another.
    pub fn read(comment: &str) -> Option<Self> {
        let (what, bytes) = comment.strip_prefix(COMMENT)?.strip_suffix(" bytes")?.split_once(" of ")?;
        let kind = [SegmentKind::Tcp, SegmentKind::Udp].into_iter().find(|kind| kind.name() == what)?;
        Some(Self { kind, segment_bytes: bytes.parse().ok()? })
    }
}

impl SegmentKind {
    const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "TCP segments",
            Self::Udp => "UDP datagrams",
        }
    }
}

impl From<Gso> for SuperFrame {
    fn from(gso: Gso) -> Self {
        let kind = if gso.kind == GsoKind::Udp { SegmentKind::Udp } else { SegmentKind::Tcp };
        Self { kind, segment_bytes: gso.size }
    }
}

impl fmt::Display for SuperFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} bytes", self.kind.name(), self.segment_bytes)
    }
}

impl fmt::Display for SuperFrameInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.segments, self.cut)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_reads_as_it_was_written_and_another_is_none() {
        for kind in [SegmentKind::Tcp, SegmentKind::Udp] {
            let cut = SuperFrame { kind, segment_bytes: NonZeroU16::new(1448).unwrap() };
            assert_eq!(SuperFrame::read(&cut.comment()), Some(cut));
        }
        for other in [
            "",
            "id=7 in=a",
            "super-frame: ",
            "super-frame: TCP segments of 0 bytes",
            "super-frame: TCP segments of 70000 bytes",
        ] {
            assert_eq!(SuperFrame::read(other), None, "{other}");
        }
    }
}
