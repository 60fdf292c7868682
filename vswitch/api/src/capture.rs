//! What to capture, where, and what a capture says of each frame: one line of `key=value` words, written by the data plane and read by `vsctl` and
//! by Wireshark.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::name::PortName;

/// The header of the answer to a capture that has its number, which ends it.
pub const CAPTURE_NUMBER: &str = "vswitch-capture";

/// What to capture.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub struct CaptureRequest {
    /// The ports; with no container either, all, also those that are added later.
    pub ports: Vec<PortName>,
    /// Containers of Docker's by their names, whose ports are captured too.
    #[serde(default)]
    pub containers: Vec<String>,
    /// Which frames.
    pub filter: CaptureFilter,
    /// Stop after so many packets.
    pub count: Option<u64>,
    /// Stop after so many seconds.
    pub seconds: Option<u64>,
    /// Where frames are taken; empty: each once, where it comes in, or where it leaves if only that port is captured, and once more if it is
    /// dropped later.
    #[serde(default)]
    pub at: Vec<CapturePoint>,
    /// Only frames that go this way.
    #[serde(default)]
    pub direction: Option<CaptureDirection>,
    /// Bytes that are kept of a frame at most.
    #[serde(default)]
    pub snaplen: Option<u32>,
    /// Not what comes, but what the flight recorder has of the last so many milliseconds.
    #[serde(default)]
    pub last_milliseconds: Option<u64>,
}

/// Which frames a capture takes: a classic BPF program over Ethernet frames, none for all, and what the program asks about tunnels.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaptureFilter {
    /// The program. A load of any width at [`TUNNEL_TESTS`] plus `k` times [`TUNNEL_STEP`] gives 1 where the test with number `k` holds, else 0.
    pub code: Vec<Instruction>,
    /// The tests, at most [`CaptureFilter::MOST_TESTS`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tunnels: Vec<TunnelTest>,
}

/// Where a filter's program finds its tests: far behind the end of every frame, and before what Linux means by negative offsets.
pub const TUNNEL_TESTS: u32 = 0x4000_0000;
/// How far apart the tests are: further than any offset that libpcap may add to them.
pub const TUNNEL_STEP: u32 = 0x10_0000;

impl CaptureFilter {
    /// Most tests of one program.
    pub const MOST_TESTS: usize = 16;
    /// Most filters inside each other.
    pub const DEEPEST: usize = 4;
}

/// What a filter asks about the tunnel of a frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TunnelTest {
    /// The frame is in VXLAN with this network's number, or comes or leaves by a tunnel of the network.
    Vni(u32),
    /// The frame carries another one in VXLAN, which this filter takes.
    Inner(CaptureFilter),
}

/// One instruction of classic BPF, as `struct sock_filter` (linux/filter.h) has it: code, jump if true, jump if false, operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instruction(pub u16, pub u8, pub u8, pub u32);

/// Which way a frame goes, seen from the switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CaptureDirection {
    /// Received by the switch from a port.
    In,
    /// Sent by the switch to a port.
    Out,
}

/// A point on the way of a frame where it can be captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CapturePoint {
    /// As it came in by a port, with what became of it.
    Ingress,
    /// As it leaves by a port.
    Egress,
    /// As it was when it was dropped, with the reason.
    Drop,
    /// As it was before NAT changed it.
    PreNat,
    /// As it is after NAT changed it.
    PostNat,
    /// As it comes and leaves by the UDP socket of a tunnel, with the headers around it.
    Underlay,
}

impl CapturePoint {
    /// All, in the order in which a frame comes by.
    pub const ALL: [Self; 6] = [Self::Ingress, Self::Egress, Self::Drop, Self::PreNat, Self::PostNat, Self::Underlay];

    /// The name that users see.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
            Self::Drop => "drop",
            Self::PreNat => "pre-nat",
            Self::PostNat => "post-nat",
            Self::Underlay => "underlay",
        }
    }
}

/// A text that names no point.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is no point of a frame's way: use ingress, egress, drop, pre-nat, post-nat or underlay")]
pub struct PointError(String);

impl FromStr for CapturePoint {
    type Err = PointError;

    fn from_str(text: &str) -> Result<Self, PointError> {
        Self::ALL.into_iter().find(|point| point.name() == text).ok_or_else(|| PointError(text.to_owned()))
    }
}

/// What is said of one frame beside its bytes: the comment of a packet in a capture.
///
/// The grammar is words of `key=value` with one space between them, in the order of the fields here; what is not known is left out. A list has commas
/// between its items. No value holds a space. Readers pass over keys that they do not know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FrameNote {
    /// `id`: the frame's number, the same at every point of its way.
    pub id: Option<u64>,
    /// `at`: the point.
    pub at: Option<CapturePoint>,
    /// `in`: the port that it came in by; none for a frame that the switch made.
    pub came_in: Option<String>,
    /// `out`: the ports that it leaves by; of many the first few, and `+N` for the rest.
    pub out: Vec<String>,
    /// `vlan`: the VLAN that it is in on its bridge.
    pub vlan: Option<u16>,
    /// `vni`: the network of the tunnel that it came or leaves by.
    pub vni: Option<u32>,
    /// `nat`: what NAT changes, each as `before->after`.
    pub nat: Vec<String>,
    /// `fate`: what became of a frame that neither leaves nor is dropped.
    pub fate: Option<String>,
    /// `drop`: why it went no further, as `vsctl stats` names it.
    pub drop: Option<String>,
}

/// A frame that was dropped, as the web view lists it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropInfo {
    /// When, in RFC 3339.
    pub time: String,
    /// The port that counts it.
    pub port: PortName,
    /// The port that it came in by; `None`: the switch made it.
    pub came_in: Option<PortName>,
    /// Why.
    pub reason: String,
    /// Its VLAN, if it got into one.
    pub vlan: Option<u16>,
    /// The frame, in words that `vsctl trace` takes, as far as there are any.
    pub frame: String,
}

impl fmt::Display for FrameNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut gap = "";
        let mut word = |key: &str, value: &dyn fmt::Display| {
            write!(f, "{gap}{key}={value}")?;
            gap = " ";
            Ok(())
        };
        if let Some(id) = self.id {
            word("id", &id)?;
        }
        if let Some(at) = self.at {
            word("at", &at.name())?;
        }
        if let Some(port) = &self.came_in {
            word("in", &Word(port))?;
        }
        if !self.out.is_empty() {
            word("out", &Word(&self.out.join(",")))?;
        }
        if let Some(vlan) = self.vlan {
            word("vlan", &vlan)?;
        }
        if let Some(vni) = self.vni {
            word("vni", &vni)?;
        }
        if !self.nat.is_empty() {
            word("nat", &Word(&self.nat.join(",")))?;
        }
        if let Some(fate) = &self.fate {
            word("fate", &Word(fate))?;
        }
        if let Some(reason) = &self.drop {
            word("drop", &Word(reason))?;
        }
        Ok(())
    }
}

/// A value without spaces.
struct Word<'a>(&'a str);

impl fmt::Display for Word<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| write!(f, "{}", if c.is_whitespace() { '-' } else { c }))
    }
}

impl FrameNote {
    /// Reads a comment. Words that are no part of the grammar are passed over.
    pub fn read(comment: &str) -> Self {
        let mut note = Self::default();
        let list = |value: &str| value.split(',').map(str::to_owned).collect();
        for (key, value) in comment.split_whitespace().filter_map(|word| word.split_once('=')) {
            match key {
                "id" => note.id = value.parse().ok(),
                "at" => note.at = value.parse().ok(),
                "in" => note.came_in = Some(value.to_owned()),
                "out" => note.out = list(value),
                "vlan" => note.vlan = value.parse().ok(),
                "vni" => note.vni = value.parse().ok(),
                "nat" => note.nat = list(value),
                "fate" => note.fate = Some(value.to_owned()),
                "drop" => note.drop = Some(value.to_owned()),
                _ => {}
            }
        }
        note
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_words_of_key_and_value_and_reads_as_it_was_written() {
        let note = FrameNote {
            id: Some(77),
            at: Some(CapturePoint::PreNat),
            came_in: Some("port 9".to_owned()),
            out: vec!["b".to_owned(), "c".to_owned(), "+3".to_owned()],
            vlan: Some(10),
            vni: Some(42),
            nat: vec!["10.0.0.2:40000->192.0.2.10:40000".to_owned()],
            fate: Some("routed".to_owned()),
            drop: Some("no-session".to_owned()),
        };
        let text = "id=77 at=pre-nat in=port-9 out=b,c,+3 vlan=10 vni=42 nat=10.0.0.2:40000->192.0.2.10:40000 fate=routed drop=no-session";
        assert_eq!(note.to_string(), text);
        assert_eq!(FrameNote::read(text), FrameNote { came_in: Some("port-9".to_owned()), ..note });
    }

    #[test]
    fn what_is_not_known_is_left_out_and_what_is_strange_is_passed_over() {
        assert_eq!(FrameNote::default().to_string(), "");
        let dropped = FrameNote { drop: Some("runt".to_owned()), ..FrameNote::default() };
        assert_eq!(dropped.to_string(), "drop=runt");
        assert_eq!(FrameNote::read("checksum left to the receiver"), FrameNote::default());
        assert_eq!(FrameNote::read("vlan=x colour=red  drop=runt"), dropped);
    }

    #[test]
    fn points_have_their_names() {
        for point in CapturePoint::ALL {
            assert_eq!(point.name().parse(), Ok(point));
            assert_eq!(serde_json::to_value(point).unwrap(), point.name());
        }
        assert!("nat".parse::<CapturePoint>().unwrap_err().to_string().contains("\"nat\" is no point"));
    }
}
