//! BPDUs as bytes (IEEE 802.1D-2004, clause 9.3): an 802.3 frame with a length, LLC `42 42 03`, and one of three messages.

use packet::Mac;

use crate::vector::{BridgeIdentifier, PortIdentifier, Times, Vector};

/// Where BPDUs go: the group of bridges. No bridge sends on what goes there.
pub const GROUP: Mac = Mac([0x01, 0x80, 0xc2, 0, 0, 0]);

/// The shortest frame, without its check sequence.
const SHORTEST: usize = 60;
/// LLC: both service access points of the spanning tree, and unnumbered information.
const LLC: [u8; 3] = [0x42, 0x42, 0x03];
/// Of a Configuration BPDU.
const CONFIGURATION: u8 = 0;
/// Of a Rapid Spanning Tree BPDU.
const RAPID: u8 = 2;
/// Of a Topology Change Notification BPDU.
const NOTIFICATION: u8 = 0x80;

/// A message between bridges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bpdu {
    /// Of a designated port that speaks the older protocol.
    Configuration(Message),
    /// Of a port that speaks RSTP.
    Rapid(Message),
    /// The older protocol's: the way to the stations has changed.
    TopologyChange,
}

/// What a port says of itself and of the root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// How it is related to its neighbours.
    pub flags: Flags,
    /// The way to the root.
    pub vector: Vector,
    /// What goes with it.
    pub times: Times,
}

/// The octet of flags (clauses 9.3.1 and 9.3.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(pub u8);

/// The role of the port that sent a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageRole {
    /// Alternate or backup.
    Blocked,
    /// Root.
    Root,
    /// Designated; also one that does not say.
    Designated,
}

impl Flags {
    /// The way to the stations has changed.
    pub const TOPOLOGY_CHANGE: u8 = 0x01;
    /// The sender would forward, if its neighbour agreed.
    pub const PROPOSAL: u8 = 0x02;
    /// The sender learns.
    pub const LEARNING: u8 = 0x10;
    /// The sender forwards.
    pub const FORWARDING: u8 = 0x20;
    /// The sender agrees with what its neighbour proposed.
    pub const AGREEMENT: u8 = 0x40;
    /// The sender heard of a change of topology.
    pub const ACKNOWLEDGEMENT: u8 = 0x80;

    /// Whether a flag is set.
    pub const fn has(self, flag: u8) -> bool {
        self.0 & flag != 0
    }

    /// The same with a flag, if that is so.
    #[must_use]
    pub const fn with(self, flag: u8, set: bool) -> Self {
        if set { Self(self.0 | flag) } else { self }
    }

    /// The same for a role.
    #[must_use]
    pub const fn of(self, role: MessageRole) -> Self {
        let role = match role {
            MessageRole::Blocked => 1,
            MessageRole::Root => 2,
            MessageRole::Designated => 3,
        };
        Self(self.0 & !0x0c | role << 2)
    }

    const fn role(self) -> MessageRole {
        match self.0 >> 2 & 3 {
            1 => MessageRole::Blocked,
            2 => MessageRole::Root,
            // One that does not say is treated as a Configuration BPDU (clause 9.2.9).
            _ => MessageRole::Designated,
        }
    }
}

impl Bpdu {
    /// Reads a whole frame, from its destination address on. `None`: it is none of the three, or is cut short.
    pub fn from_frame(frame: &[u8]) -> Option<Self> {
        let (destination, rest) = (frame.get(..6)?, frame.get(12..)?);
        let length = usize::from(u16::from_be_bytes(*rest.first_chunk()?));
        if destination != GROUP.0 {
            return None;
        }
        Self::parse(rest.get(2..2 + length)?.strip_prefix(&LLC)?)
    }

    /// Reads what is behind the LLC header (clause 9.3.4).
    fn parse(bytes: &[u8]) -> Option<Self> {
        let (protocol, version, kind) = (bytes.get(..2)?, *bytes.get(2)?, *bytes.get(3)?);
        if protocol != [0, 0] {
            return None;
        }
        match kind {
            NOTIFICATION => Some(Self::TopologyChange),
            CONFIGURATION => {
                let message = Message::parse(bytes)?;
                // Nothing is believed that is as old as it may become.
                (message.times.message_age < message.times.max_age).then_some(Self::Configuration(message))
            }
            // An octet of the length of what version 1 adds is behind it. That of MSTP (version 3) begins the same.
            RAPID if version >= 2 && bytes.len() >= 36 => Message::parse(bytes).map(Self::Rapid),
            _ => None,
        }
    }

    /// The frame that carries it from a port with this address.
    pub fn to_frame(&self, source: Mac) -> Vec<u8> {
        let mut body = LLC.to_vec();
        match self {
            Self::Configuration(message) => {
                body.extend([0, 0, 0, CONFIGURATION]);
                message.write(&mut body);
            }
            Self::Rapid(message) => {
                body.extend([0, 0, 2, RAPID]);
                message.write(&mut body);
                body.push(0);
            }
            Self::TopologyChange => body.extend([0, 0, 0, NOTIFICATION]),
        }
        // A body is 39 octets at most.
        let length = u16::try_from(body.len()).unwrap_or_default();
        let mut frame = [&GROUP.0[..], &source.0, &length.to_be_bytes(), &body].concat();
        frame.resize(frame.len().max(SHORTEST), 0);
        frame
    }
}

impl Message {
    /// What the sender's role is.
    pub(crate) const fn role(&self) -> MessageRole {
        self.flags.role()
    }

    /// Reads what both kinds have.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; 35] = bytes.first_chunk()?;
        let word = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        let bridge = |at: usize| {
            let mut address = [0; 6];
            address.copy_from_slice(&bytes[at + 2..at + 8]);
            BridgeIdentifier { priority: word(at), address: Mac(address) }
        };
        let cost = u32::from_be_bytes([bytes[13], bytes[14], bytes[15], bytes[16]]);
        let vector = Vector { root: bridge(5), cost, bridge: bridge(17), port: PortIdentifier(word(25)) };
        let times = Times { message_age: word(27), max_age: word(29), hello: word(31), forward_delay: word(33) };
        Some(Self { flags: Flags(bytes[4]), vector, times })
    }

    fn write(&self, out: &mut Vec<u8>) {
        let Self { flags, vector, times } = self;
        let mut bridge = |id: BridgeIdentifier, between: &[u8]| {
            out.extend(between);
            out.extend(id.priority.to_be_bytes());
            out.extend(id.address.0);
        };
        bridge(vector.root, &[flags.0]);
        bridge(vector.bridge, &vector.cost.to_be_bytes());
        out.extend(vector.port.0.to_be_bytes());
        for time in [times.message_age, times.max_age, times.hello, times.forward_delay] {
            out.extend(time.to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEAD: [u8; 12] = [0x01, 0x80, 0xc2, 0, 0, 0, 0x02, 0, 0, 0, 0, 9];

    fn message() -> impl Strategy<Value = Message> {
        let bridge =
            || (any::<u16>(), any::<[u8; 6]>()).prop_map(|(priority, mac)| BridgeIdentifier { priority, address: Mac(mac) });
        let vector = (bridge(), any::<u32>(), bridge(), any::<u16>());
        (any::<u8>(), vector, any::<[u16; 3]>()).prop_map(|(flags, (root, cost, bridge, port), [age, hello, delay])| Message {
            flags: Flags(flags),
            vector: Vector { root, cost, bridge, port: PortIdentifier(port) },
            times: Times { message_age: age.min(u16::MAX - 1), max_age: u16::MAX, hello, forward_delay: delay },
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(message in message(), kind in 0..3) {
            let bpdu = [Bpdu::Configuration(message), Bpdu::Rapid(message), Bpdu::TopologyChange][usize::try_from(kind).unwrap()];
            let frame = bpdu.to_frame(Mac([2, 0, 0, 0, 0, 9]));
            prop_assert_eq!(frame.len(), 60);
            prop_assert_eq!(Bpdu::from_frame(&frame), Some(bpdu));
            for length in 0..frame.len() {
                let _ = Bpdu::from_frame(&frame[..length]);
            }
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..80), length in 0_u8..80) {
            let _ = Bpdu::from_frame(&bytes);
            let _ = Bpdu::from_frame(&[&HEAD[..], &[0, length], &LLC, &bytes].concat());
            let _ = Bpdu::from_frame(&[&HEAD[..], &[0, length], &LLC, &[0, 0, 2, 2], &bytes].concat());
        }
    }

    /// As a bridge without RSTP sends it that is root, with priority 4096, from its first port (IEEE 802.1D-1998, 9.3.1).
    #[test]
    fn a_configuration_bpdu_is_read() {
        let mut frame = HEAD.to_vec();
        frame.extend([
            0, 0x26, 0x42, 0x42, 3, 0, 0, 0, 0, 0x01, 0x10, 0, 2, 0, 0, 0, 0, 1, 0, 0, 0, 4, 0x10, 0, 2, 0, 0, 0, 0, 2,
        ]);
        frame.extend([0x80, 1, 1, 0, 20, 0, 2, 0, 15, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        let Some(Bpdu::Configuration(message)) = Bpdu::from_frame(&frame) else { panic!("not read") };
        assert_eq!(message.vector.root.to_string(), "4096/02:00:00:00:00:01");
        assert_eq!((message.vector.cost, message.vector.port), (4, PortIdentifier::new(128, 1)));
        assert_eq!(message.times, Times { message_age: 256, ..Times::DEFAULT });
        assert!(message.flags.has(Flags::TOPOLOGY_CHANGE) && message.role() == MessageRole::Designated);
        frame[12 + 2 + 3 + 27] = 20;
        assert_eq!(Bpdu::from_frame(&frame), None, "too old");
        frame[13] = 0x25;
        assert_eq!(Bpdu::from_frame(&frame), None, "its length says that it is cut short");
    }

    #[test]
    fn what_is_not_for_bridges_is_not_read() {
        let good = Bpdu::TopologyChange.to_frame(Mac([2, 0, 0, 0, 0, 9]));
        for (at, byte) in [(5, 2), (13, 6), (14, 0xaa), (18, 1), (20, 7)] {
            let mut frame = good.clone();
            frame[at] = byte;
            assert_eq!(Bpdu::from_frame(&frame), None, "octet {at}");
        }
    }
}
