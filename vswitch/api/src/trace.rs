//! What `vsctl trace` asks, and what it is told: the way that a frame would take.

use std::fmt::Write;
use std::net::IpAddr;

use packet::{Mac, VlanId};
use serde::{Deserialize, Serialize};

use super::{PortName, SuperFrame, SuperFrameInfo};

/// A frame that did not come in, and by which port it would.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub struct TraceRequest {
    /// A port, a tunnel or an uplink.
    pub port: PortName,
    /// The frame.
    pub frame: TraceFrame,
    /// How it is cut, if it is a super-frame.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub super_frame: Option<SuperFrame>,
}

/// How a frame is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TraceFrame {
    /// In words, such as `tcp 10.10.0.2:40000 > 10.10.0.3:80 syn`, or in hex digits from the destination's MAC address on.
    Text(String),
    /// As one to this IP or MAC address, or to the station of the port or container with this name.
    To(String),
}

/// The way of a frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceInfo {
    /// Where it would come in.
    pub port: PortName,
    /// The frame.
    pub frame: FrameInfo,
    /// What the switch would look up and decide, in order.
    pub steps: Vec<TraceStep>,
    /// What would become of it.
    pub verdict: TraceVerdict,
    /// Why it would be dropped, spelled as in the JSON of `vsctl stats`.
    pub drop_reason: Option<String>,
    /// What would leave the switch: the frame, and what the switch itself has to say.
    pub exits: Vec<TraceExit>,
    /// What would become of it, in a sentence.
    pub conclusion: String,
    /// What to do about a drop, or whom to ask next.
    pub advice: Option<String>,
}

/// What becomes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TraceVerdict {
    /// It leaves by the port where its destination is.
    Bridged,
    /// It leaves by all other ports of its VLAN.
    Flooded,
    /// The gateway, or the uplink, sends it on.
    Routed,
    /// The gateway answers it.
    Answered,
    /// The gateway takes note of it.
    Noted,
    /// A service of the switch gets it: DHCP, DNS, router advertisements, the spanning tree.
    Punted,
    /// It waits for the MAC address of its next hop, or for the rest of its packet.
    Waiting,
    /// It goes no further.
    Dropped,
}

/// One step of a frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceStep {
    /// Its kind: `admitted`, `claims_checked`, `source_learned`, `destination_looked_up`, `for_gateway`, `route_looked_up`, `translated`,
    /// `neighbor_looked_up`, `queued`, `impaired`, `cut` or `dropped`.
    pub step: String,
    /// In words.
    pub text: String,
    /// Whether it is a step of a frame that the switch makes about the traced one.
    pub own: bool,
}

/// A frame that would leave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceExit {
    /// By which port, tunnel or uplink.
    pub port: PortName,
    /// To which host at the other end of a tunnel; `None` of a tunnel: to all of them.
    pub remote: Option<IpAddr>,
    /// The name of that host, in an overlay network.
    #[serde(default)]
    pub host: Option<String>,
    /// The number of the tunnel's network.
    pub vni: Option<u32>,
    /// Whether it goes there inside WireGuard.
    #[serde(default)]
    pub encrypted: bool,
    /// Whether the switch makes it: an answer, a question, an error message or a fragment.
    pub own: bool,
    /// As it leaves; of a super-frame that is cut, the first of its frames.
    pub frame: FrameInfo,
    /// How many frames it is: more than one of a super-frame that is cut.
    #[serde(default = "one")]
    pub frames: usize,
    /// What is different from how it came in, such as `ttl 64 -> 63`.
    pub changes: Vec<String>,
    /// Why it would not leave in the end.
    pub drop_reason: Option<String>,
}

const fn one() -> usize {
    1
}

/// A frame, read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrameInfo {
    /// In words that `vsctl trace` takes, as far as it has words for it.
    pub summary: String,
    /// Bytes without the frame check sequence.
    pub length: usize,
    /// What it travels as, if it is a super-frame.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub super_frame: Option<SuperFrameInfo>,
    /// Its Ethernet header; `None`: it is too short for one.
    pub ethernet: Option<EthernetInfo>,
    /// Its IP header.
    pub ip: Option<IpInfo>,
    /// The ports of its TCP, UDP or SCTP, in an unfragmented packet.
    pub l4: Option<L4Info>,
    /// All of it, in hex digits.
    pub hex: String,
}

/// An Ethernet header.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EthernetInfo {
    /// Whose it is.
    pub source: Mac,
    /// Whom it is for.
    pub destination: Mac,
    /// The VLAN of its tag.
    pub vlan: Option<VlanId>,
    /// What it carries, behind the tag.
    pub ethertype: u16,
}

/// An IP header.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpInfo {
    /// Whose it is.
    pub source: IpAddr,
    /// Whom it is for.
    pub destination: IpAddr,
    /// Hops that it may still take.
    pub ttl: u8,
    /// What it carries (IANA, "Protocol Numbers").
    pub protocol: u8,
}

/// The ports of a transport.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct L4Info {
    /// Its name: `tcp`, `udp` or `sctp`.
    pub protocol: String,
    /// The sender's.
    pub source_port: u16,
    /// The receiver's.
    pub destination_port: u16,
    /// Of TCP: those that are set.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<String>,
}

/// Bytes as hex digits, as the text of a frame takes them.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
