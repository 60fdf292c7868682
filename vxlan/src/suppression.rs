//! ARP and neighbour discovery answered at the near end of a tunnel. The bridge of the switch asks for frames that it would flood.
//! Frames are read and an answer is written; nothing is learned.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};

use etherparse::{ArpHardwareId, ArpOperation, ArpPacket, ArpPacketSlice, EtherType};
use packet::{Ethernet, Mac, ethertype, protocol};

/// Stations behind a tunnel whose IP and MAC addresses are known, so that no question for them has to go to all hosts: what RFC 7432,
/// section 10, calls ARP and ND suppression.
///
/// Only its owner changes it, from the tunnel's configuration or a control plane; nothing that the network sends does. So it is as
/// large as it was made, and needs no expiry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bindings(HashMap<IpAddr, Mac>);

/// One known station.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binding {
    /// Its IP address.
    pub ip: IpAddr,
    /// Its MAC address.
    pub mac: Mac,
}

/// A frame that answers a question, longest with its 14 + 40 + 32 bytes of neighbour advertisement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    bytes: [u8; Self::LONGEST],
    length: usize,
}

impl Answer {
    const LONGEST: usize = 86;

    /// The frame, untagged.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }

    fn new(parts: &[&[u8]]) -> Self {
        let mut answer = Self { bytes: [0; Self::LONGEST], length: 0 };
        for byte in parts.iter().copied().flatten() {
            if let Some(place) = answer.bytes.get_mut(answer.length) {
                *place = *byte;
                answer.length += 1;
            }
        }
        // The shortest frame without its FCS (IEEE 802.3-2022, section 3.2.8).
        answer.length = answer.length.max(60);
        answer
    }
}

const ECHO_OF_SOLICITATION: [u8; 2] = [135, 0];
const ADVERTISEMENT: [u8; 2] = [136, 0];
/// Solicited, override: the answer to a question, about the one station that has the address (RFC 4861, section 4.4).
const SOLICITED_OVERRIDE: u8 = 0x60;
/// The option that holds the target's link-layer address, in units of eight bytes (RFC 4861, section 4.6.1).
const TARGET_ADDRESS: [u8; 2] = [2, 1];

impl FromIterator<Binding> for Bindings {
    fn from_iter<I: IntoIterator<Item = Binding>>(bindings: I) -> Self {
        Self(bindings.into_iter().map(|binding| (binding.ip, binding.mac)).collect())
    }
}

impl Bindings {
    /// Whether no station is known.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The MAC address of a known station.
    pub fn mac_of(&self, address: IpAddr) -> Option<Mac> {
        self.0.get(&address).copied()
    }

    /// The answer to a frame that asks for one of these stations.
    pub fn answer(&self, frame: &[u8], ethernet: &Ethernet) -> Option<Answer> {
        if self.0.is_empty() { None } else { Answer::to(frame, ethernet, |address| self.mac_of(address)) }
    }
}

impl Answer {
    /// The answer to a frame that asks all stations for one whose MAC address is `known`; `None` for every other frame. A station
    /// that looks whether its own address is free, or says that it has it, is not answered.
    pub fn to(frame: &[u8], ethernet: &Ethernet, known: impl Fn(IpAddr) -> Option<Mac>) -> Option<Self> {
        if !ethernet.destination.is_group() {
            return None;
        }
        let known = |target| known(target).filter(|mac| *mac != ethernet.source);
        match ethernet.ethertype {
            ethertype::ARP => Self::to_arp(frame.get(ethernet.payload..)?, ethernet, known),
            ethertype::IPV6 => Self::to_solicitation(frame.get(ethernet.payload..)?, ethernet, known),
            _ => None,
        }
    }

    fn to_arp(payload: &[u8], ethernet: &Ethernet, known: impl Fn(IpAddr) -> Option<Mac>) -> Option<Self> {
        let arp = ArpPacketSlice::from_slice(payload).ok()?;
        let plain = arp.hw_addr_type() == ArpHardwareId::ETHERNET && arp.proto_addr_type() == EtherType::IPV4;
        if !plain || arp.operation() != ArpOperation::REQUEST {
            return None;
        }
        let (asker, target): ([u8; 4], [u8; 4]) =
            (arp.sender_protocol_addr().try_into().ok()?, arp.target_protocol_addr().try_into().ok()?);
        // An announcement (RFC 5227, section 3) asks for nothing.
        if asker == target {
            return None;
        }
        let asker_mac: [u8; 6] = arp.sender_hw_addr().try_into().ok()?;
        let mac = known(target.into())?;
        let kind = (ArpHardwareId::ETHERNET, EtherType::IPV4, ArpOperation::REPLY);
        let reply = ArpPacket::new(kind.0, kind.1, kind.2, &mac.0, &target, &asker_mac, &asker).ok()?;
        Some(Self::new(&[&ethernet.source.0, &mac.0, &ethertype::ARP.to_be_bytes(), &reply.to_bytes()]))
    }

    /// RFC 4861, section 7.1.1, says which solicitations count.
    fn to_solicitation(packet: &[u8], ethernet: &Ethernet, known: impl Fn(IpAddr) -> Option<Mac>) -> Option<Self> {
        let (header, message) = (packet.get(..40)?, packet.get(40..)?);
        let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
        let message = message.get(..length)?;
        let whole = header[0] >> 4 == 6 && header[6] == protocol::ICMP6 && header[7] == 255 && length >= 24;
        if !whole || !message.starts_with(&ECHO_OF_SOLICITATION) {
            return None;
        }
        let asker: [u8; 16] = header.get(8..24)?.try_into().ok()?;
        let target: [u8; 16] = message.get(8..24)?.try_into().ok()?;
        // A station without the address asks whether it is free (RFC 4862, section 5.4). The answer would be for all stations.
        if Ipv6Addr::from(asker).is_unspecified() {
            return None;
        }
        let mac = known(target.into())?;
        let mut advertisement = [0; 32];
        advertisement[..2].copy_from_slice(&ADVERTISEMENT);
        advertisement[4] = SOLICITED_OVERRIDE;
        advertisement[8..24].copy_from_slice(&target);
        advertisement[24..26].copy_from_slice(&TARGET_ADDRESS);
        advertisement[26..].copy_from_slice(&mac.0);
        let pseudo =
            packet::checksum::Sum::new().plus(&target).plus(&asker).plus_number(32).plus_number(protocol::ICMP6.into());
        let checksum = pseudo.plus(&advertisement).checksum();
        advertisement[2..4].copy_from_slice(&checksum.to_be_bytes());
        let ip = [0x60, 0, 0, 0, 0, 32, protocol::ICMP6, 255];
        let front = [&ethernet.source.0[..], &mac.0, &ethertype::IPV6.to_be_bytes()];
        Some(Self::new(&[front[0], front[1], front[2], &ip, &target, &asker, &advertisement]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ASKER: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const KNOWN: Mac = Mac([2, 0, 0, 0, 0, 9]);

    fn bindings() -> Bindings {
        ["10.0.0.9", "fd00::9"].map(|ip| Binding { ip: ip.parse().unwrap(), mac: KNOWN }).into_iter().collect()
    }

    fn arp(target: [u8; 4]) -> Vec<u8> {
        let packet = ArpPacket::new(
            ArpHardwareId::ETHERNET,
            EtherType::IPV4,
            ArpOperation::REQUEST,
            &ASKER.0,
            &[10, 0, 0, 1],
            &[0; 6],
            &target,
        );
        [&[0xff; 6][..], &ASKER.0, &[8, 6], &packet.unwrap().to_bytes()].concat()
    }

    fn solicitation(source: &str, target: &str) -> Vec<u8> {
        let address = |text: &str| text.parse::<Ipv6Addr>().unwrap().octets();
        let ip = [&[0x60, 0, 0, 0, 0, 32, 58, 255][..], &address(source), &address("ff02::1:ff00:9")].concat();
        let message = [&[135, 0, 0, 0, 0, 0, 0, 0][..], &address(target), &[1, 1], &ASKER.0].concat();
        [&[0x33, 0x33, 0xff, 0, 0, 9][..], &ASKER.0, &[0x86, 0xdd], &ip, &message].concat()
    }

    fn answer(frame: &[u8]) -> Option<Vec<u8>> {
        bindings().answer(frame, &Ethernet::parse(frame).unwrap()).map(|answer| answer.bytes().to_vec())
    }

    #[test]
    fn a_known_station_is_answered_for() {
        let reply = answer(&arp([10, 0, 0, 9])).unwrap();
        let ethernet = Ethernet::parse(&reply).unwrap();
        assert_eq!((ethernet.destination, ethernet.source, reply.len()), (ASKER, KNOWN, 60));
        let arp = ArpPacketSlice::from_slice(&reply[14..]).unwrap();
        assert_eq!(
            (arp.operation(), arp.sender_hw_addr(), arp.sender_protocol_addr()),
            (ArpOperation::REPLY, &KNOWN.0[..], &[10, 0, 0, 9][..])
        );
        assert_eq!(arp.target_hw_addr(), ASKER.0);

        let reply = answer(&solicitation("fd00::1", "fd00::9")).unwrap();
        let sliced = etherparse::SlicedPacket::from_ethernet(&reply).unwrap();
        let (Some(etherparse::NetSlice::Ipv6(ip)), Some(etherparse::TransportSlice::Icmpv6(icmp))) =
            (sliced.net, sliced.transport)
        else {
            panic!("{reply:02x?}")
        };
        assert!(icmp.is_checksum_valid(ip.header().source(), ip.header().destination()));
        assert_eq!(ip.header().destination_addr(), "fd00::1".parse::<Ipv6Addr>().unwrap());
    }

    #[test]
    fn nobody_else_is_and_nobody_hears_himself() {
        assert_eq!(answer(&arp([10, 0, 0, 8])), None);
        assert_eq!(answer(&solicitation("fd00::1", "fd00::8")), None);
        assert_eq!(answer(&solicitation("::", "fd00::9")), None, "who looks for duplicates");
        let mut own = arp([10, 0, 0, 9]);
        own[6..12].copy_from_slice(&KNOWN.0);
        assert_eq!(answer(&own), None);
        let mut unicast = arp([10, 0, 0, 9]);
        unicast[..6].copy_from_slice(&KNOWN.0);
        assert_eq!(answer(&unicast), None, "a question to one station is that station's");
        let mut announcement = arp([10, 0, 0, 9]);
        announcement[28..32].copy_from_slice(&[10, 0, 0, 9]);
        assert_eq!(answer(&announcement), None, "who says that he has the address now");
    }

    proptest! {
        #[test]
        fn damaged_questions_are_answered_or_not(which in any::<bool>(), cut in 14usize..90, at in 0usize..90, byte in any::<u8>()) {
            let mut frame = if which { arp([10, 0, 0, 9]) } else { solicitation("fd00::1", "fd00::9") };
            if let Some(place) = frame.get_mut(at) { *place = byte; }
            frame.truncate(cut);
            if let Ok(ethernet) = Ethernet::parse(&frame) {
                let _ = bindings().answer(&frame, &ethernet);
            }
        }
    }
}
