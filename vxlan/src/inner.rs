//! What a tunnel reads of the frame that it carries: a hash of its flow, and its traffic class. The tunnel's sender and `ecn` ask. Bytes only.

use packet::ethertype;

/// What a tunnel has to know about the frame that it carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Inner {
    /// The same for all frames of one flow, and spread evenly over different ones.
    pub flow: u32,
    /// The TOS field or traffic class of the packet inside, which goes outside as well (RFC 6040, section 4.1); 0 where there is
    /// none.
    pub class: u8,
}

/// Most tags that are skipped.
const MOST_TAGS: usize = 2;
/// First protocol with ports, and the others.
const WITH_PORTS: [u8; 4] = [6, 17, 132, 136];

impl Inner {
    /// Looks at a frame. Fragments of one packet are one flow, of which only the first has ports; so all count without.
    pub fn of(frame: &[u8]) -> Self {
        let mut hash = Hash::default();
        hash.add(frame.get(..12).unwrap_or(frame));
        let Some((network, class)) = traffic_class(frame) else { return Self { flow: hash.finish(), class: 0 } };
        let packet = frame.get(network..).unwrap_or_default();
        match packet {
            [first, ..] if first >> 4 == 4 => {
                let fragment = packet.get(6..8).is_none_or(|field| field[0] & 0x3f != 0 || field[1] != 0);
                let transport = usize::from(first & 0x0f) * 4;
                hash.add(packet.get(12..20).unwrap_or_default());
                hash.add_transport(packet.get(9).copied(), packet.get(transport..).filter(|_| !fragment));
            }
            _ => {
                hash.add(packet.get(8..40).unwrap_or_default());
                hash.add_transport(packet.get(6).copied(), packet.get(40..));
            }
        }
        Self { flow: hash.finish(), class }
    }
}

/// Where the IP packet in a frame begins, and its TOS field or traffic class.
pub(crate) fn traffic_class(frame: &[u8]) -> Option<(usize, u8)> {
    let kind = |at: usize| frame.get(at..at + 2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]));
    let mut at = 12;
    for _ in 0..MOST_TAGS {
        if !matches!(kind(at)?, ethertype::VLAN | ethertype::SERVICE_VLAN) {
            break;
        }
        at += 4;
    }
    let network = at + 2;
    let [first, second] = *frame.get(network..)?.first_chunk()?;
    match (kind(at)?, first >> 4) {
        // A header shorter than it can be is none (RFC 791, section 3.1): where its transport seems to begin is still part of it.
        (ethertype::IPV4, 4) if first & 0x0f >= 5 && frame.len() >= network + 20 => Some((network, second)),
        (ethertype::IPV6, 6) if frame.len() >= network + 40 => Some((network, first << 4 | second >> 4)),
        _ => None,
    }
}

/// Words multiplied into each other; the high half of the last product spreads best. A station gains nothing by a collision: its own flows
/// lose the second path.
#[derive(Default)]
struct Hash(u64);

impl Hash {
    fn add(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<4>();
        words.iter().for_each(|word| self.mix(u32::from_be_bytes(*word)));
        rest.iter().for_each(|byte| self.mix(u32::from(*byte)));
    }

    fn add_transport(&mut self, protocol: Option<u8>, transport: Option<&[u8]>) {
        let protocol = protocol.unwrap_or_default();
        self.mix(protocol.into());
        if let Some(ports) = transport.and_then(|bytes| bytes.get(..4)).filter(|_| WITH_PORTS.contains(&protocol)) {
            self.add(ports);
        }
    }

    fn mix(&mut self, word: u32) {
        self.0 = (self.0.rotate_left(5) ^ u64::from(word)).wrapping_mul(0x517c_c1b7_2722_0a95);
    }

    fn finish(self) -> u32 {
        u32::try_from(self.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::PacketBuilder;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn udp(port: u16, payload: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        let start = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64);
        start.udp(port, 2).write(&mut frame, payload).unwrap();
        frame
    }

    #[test]
    fn flows_spread_over_few_sockets() {
        for sockets in [2, 8, 16] {
            let mut counts = vec![0; sockets];
            (1000..2000).for_each(|port| counts[Inner::of(&udp(port, b"")).flow as usize % sockets] += 1);
            let fair = 1000 / sockets;
            assert!(counts.iter().all(|count| (fair / 2..fair * 2).contains(count)), "{counts:?}");
        }
    }

    #[test]
    fn a_flow_is_one_whatever_it_carries() {
        let flows: BTreeSet<u32> = (0..50_u8).map(|fill| Inner::of(&udp(7, &vec![fill; fill.into()])).flow).collect();
        assert_eq!(flows.len(), 1);
    }

    #[test]
    fn fragments_of_a_packet_are_one_flow() {
        let (mut first, mut second) = (udp(7, b"abcdefgh"), udp(9, b"other"));
        (first[20], second[21]) = (0x20, 1);
        assert_eq!(Inner::of(&first).flow, Inner::of(&second).flow);
    }

    #[test]
    fn the_class_is_found_behind_tags() {
        let mut frame = udp(7, b"");
        frame[15] = 0xb9;
        frame.splice(12..12, [0x81, 0, 0, 5]);
        assert_eq!(Inner::of(&frame).class, 0xb9);
        frame.truncate(20);
        assert_eq!(Inner::of(&frame).class, 0);
    }

    #[test]
    fn a_header_that_is_too_short_is_none() {
        let mut frame = udp(7, b"");
        (frame[14], frame[15], frame[23]) = (0x42, 0xb9, 17);
        let inner = Inner::of(&frame);
        frame[24] ^= 1;
        assert_eq!((Inner::of(&frame), inner.class), (inner, 0), "its checksum counts for nothing");
    }

    proptest! {
        #[test]
        fn any_bytes_have_a_flow(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            prop_assert_eq!(Inner::of(&bytes), Inner::of(&bytes.clone()));
        }
    }
}
