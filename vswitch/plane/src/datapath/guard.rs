//! The source guard: a station may speak only as itself.
//!
//! A guarded port's frames must carry the port's own MAC address, and, where the switch knows the port's IP addresses, one of
//! them: as source of IPv4 and IPv6 packets, as sender of ARP, as target of neighbour advertisements (the same checks that
//! RFC 7513 calls SAVI). Addresses that a host must use before it has one stay allowed: `0.0.0.0` for DHCP and ARP probes
//! (RFC 2131, RFC 5227), `::` for duplicate address detection, and the link-local address that follows from the MAC address.
//! Router advertisements and redirects are dropped: a station that is a router needs a port without the guard (RFC 6105). So is what
//! goes to DHCP clients (RFC 7610): one that is a DHCP server, or a relay for clients on its own bridge, needs one too.
//!
//! It looks through any number of VLAN tags, so that a frame cannot hide behind a second one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::icmpv6::NdpOptionsIterator;
use etherparse::{ArpPacketSlice, LaxIpv6Slice};
use packet::{Ethernet, Mac, ethertype};

use super::DropReason;
use super::claim::{Claim, behind_tags};

/// The addresses that a guarded port may speak from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guard {
    /// Its MAC address.
    pub mac: Mac,
    /// Its IP addresses, but for the link-local one of its MAC address; none means that they are not known and not checked.
    pub addresses: Vec<IpAddr>,
}

impl Guard {
    /// Whether the frame may pass.
    ///
    /// # Errors
    /// One of the guard's drop reasons.
    pub(super) fn check(&self, ethernet: &Ethernet, frame: &[u8]) -> Result<(), DropReason> {
        if ethernet.source != self.mac {
            return Err(DropReason::GuardMac);
        }
        let inner = innermost(ethernet, frame);
        let payload = frame.get(inner.payload..).unwrap_or_default();
        match inner.ethertype {
            ethertype::ARP => self.check_arp(payload)?,
            ethertype::IPV4 => self.check_ipv4(payload)?,
            ethertype::IPV6 => self.check_ipv6(payload)?,
            _ => {}
        }
        match Claim::of(&inner, frame)? {
            Some(Claim::DhcpServer(_)) => Err(DropReason::GuardDhcp),
            _ => Ok(()),
        }
    }

    fn check_arp(&self, payload: &[u8]) -> Result<(), DropReason> {
        let arp = ArpPacketSlice::from_slice(payload).map_err(|_| DropReason::GuardArp)?;
        let sender = <[u8; 4]>::try_from(arp.sender_protocol_addr()).map_err(|_| DropReason::GuardArp)?;
        let sender = Ipv4Addr::from(sender);
        if arp.sender_hw_addr() != self.mac.0 || !(sender.is_unspecified() || self.owns(sender.into())) {
            return Err(DropReason::GuardArp);
        }
        Ok(())
    }

    fn check_ipv4(&self, payload: &[u8]) -> Result<(), DropReason> {
        let source = payload.get(12..16).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok()).ok_or(DropReason::GuardIp)?;
        let source = Ipv4Addr::from(source);
        if source.is_unspecified() || self.owns(source.into()) { Ok(()) } else { Err(DropReason::GuardIp) }
    }

    fn check_ipv6(&self, payload: &[u8]) -> Result<(), DropReason> {
        let (packet, _) = LaxIpv6Slice::from_slice(payload).map_err(|_| DropReason::GuardIp)?;
        let source = packet.header().source_addr();
        if !(source.is_unspecified() || source == self.mac.link_local() || self.owns(source.into())) {
            return Err(DropReason::GuardIp);
        }
        let body = packet.payload();
        match (body.ip_number, body.payload.split_first()) {
            (etherparse::ip_number::IPV6_ICMP, Some((kind @ 133..=137, _))) => {
                self.check_neighbour_discovery(*kind, body.payload, body.fragmented)
            }
            _ => Ok(()),
        }
    }

    /// Neighbour discovery (RFC 4861); never in fragments (RFC 6980).
    fn check_neighbour_discovery(&self, kind: u8, message: &[u8], fragmented: bool) -> Result<(), DropReason> {
        let bad = Err(DropReason::GuardNd);
        let options = match kind {
            133 => message.get(8..),
            135 => message.get(24..),
            136 => {
                let target = message.get(8..24).and_then(|bytes| <[u8; 16]>::try_from(bytes).ok()).map(Ipv6Addr::from);
                let own = target.is_some_and(|target| target == self.mac.link_local() || self.owns(target.into()));
                if own { message.get(24..) } else { None }
            }
            _ => None,
        };
        let Some(options) = options.filter(|_| !fragmented) else { return bad };
        // Options 1 and 2: the link-layer address of the source and of the target (RFC 4861, section 4.6.1).
        let foreign = |option: &[u8]| matches!(option, [1 | 2, _, mac @ ..] if !mac.starts_with(&self.mac.0));
        for option in NdpOptionsIterator::from_slice(options) {
            match option {
                Ok(option) if foreign(option.as_bytes()) => return bad,
                Ok(_) => {}
                Err(_) => return bad,
            }
        }
        Ok(())
    }

    fn owns(&self, address: IpAddr) -> bool {
        self.addresses.is_empty() || self.addresses.contains(&address)
    }
}

/// The header as it is behind every VLAN tag.
fn innermost(ethernet: &Ethernet, frame: &[u8]) -> Ethernet {
    behind_tags(ethernet, frame, |_| true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::PacketBuilder;

    const OWN: Mac = Mac([2, 0, 0, 0, 0, 0x0a]);
    const OTHER: Mac = Mac([2, 0, 0, 0, 0, 0x0b]);

    fn guard() -> Guard {
        Guard { mac: OWN, addresses: vec!["10.0.0.2".parse().unwrap(), "fd00::2".parse().unwrap()] }
    }

    fn check(frame: &[u8]) -> Result<(), DropReason> {
        guard().check(&Ethernet::parse(frame).unwrap(), frame)
    }

    fn udp4(source_mac: Mac, source: [u8; 4]) -> Vec<u8> {
        let mut frame = Vec::new();
        let builder = PacketBuilder::ethernet2(source_mac.0, OTHER.0).ipv4(source, [10, 0, 0, 9], 64).udp(68, 67);
        builder.write(&mut frame, b"x").unwrap();
        frame
    }

    fn arp(hardware: Mac, sender: [u8; 4]) -> Vec<u8> {
        let mut frame = [&[0xff; 6][..], &OWN.0, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1]].concat();
        frame.extend([&hardware.0[..], &sender, &[0; 6], &[10, 0, 0, 9]].concat());
        frame
    }

    fn icmp6(source: &str, message: &[u8]) -> Vec<u8> {
        let source: Ipv6Addr = source.parse().unwrap();
        let mut frame = Vec::new();
        let builder = PacketBuilder::ethernet2(OWN.0, OTHER.0).ipv6(source.octets(), [0xff; 16], 255);
        let ip = builder.icmpv6_raw(message[0], message[1], message[4..8].try_into().unwrap());
        ip.write(&mut frame, &message[8..]).unwrap();
        frame
    }

    /// A neighbour solicitation (135) or advertisement (136) with a link-layer address option.
    fn nd(kind: u8, target: &str, mac: Mac) -> Vec<u8> {
        let target: Ipv6Addr = target.parse().unwrap();
        let option = if kind == 135 { 1 } else { 2 };
        [&[kind, 0, 0, 0, 0, 0, 0, 0][..], &target.octets(), &[option, 1], &mac.0].concat()
    }

    #[test]
    fn own_addresses_pass() {
        for frame in [
            udp4(OWN, [10, 0, 0, 2]),
            udp4(OWN, [0, 0, 0, 0]),
            arp(OWN, [10, 0, 0, 2]),
            arp(OWN, [0, 0, 0, 0]),
            icmp6("fd00::2", &[128, 0, 0, 0, 0, 1, 0, 1]),
            icmp6("::", &[&nd(135, "fd00::2", OWN)[..24]].concat()),
            icmp6(&OWN.link_local().to_string(), &nd(135, "fd00::9", OWN)),
            icmp6("fd00::2", &nd(136, "fd00::2", OWN)),
            icmp6("fd00::2", &[133, 0, 0, 0, 0, 0, 0, 0]),
        ] {
            assert_eq!(check(&frame), Ok(()), "{frame:02x?}");
        }
    }

    #[test]
    fn foreign_addresses_do_not() {
        for (frame, reason) in [
            (udp4(OTHER, [10, 0, 0, 2]), DropReason::GuardMac),
            (udp4(OWN, [10, 0, 0, 3]), DropReason::GuardIp),
            (arp(OTHER, [10, 0, 0, 2]), DropReason::GuardArp),
            (arp(OWN, [10, 0, 0, 1]), DropReason::GuardArp),
            (arp(OWN, [10, 0, 0, 2])[..30].to_vec(), DropReason::GuardArp),
            (icmp6("fd00::3", &[128, 0, 0, 0, 0, 1, 0, 1]), DropReason::GuardIp),
            (icmp6("fe80::1", &[128, 0, 0, 0, 0, 1, 0, 1]), DropReason::GuardIp),
            (icmp6("fd00::2", &nd(135, "fd00::9", OTHER)), DropReason::GuardNd),
            (icmp6("fd00::2", &nd(136, "fd00::9", OWN)), DropReason::GuardNd),
            (icmp6("fd00::2", &nd(136, "fd00::2", OTHER)), DropReason::GuardNd),
            (icmp6("fd00::2", &[134, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), DropReason::GuardNd),
            (udp4(OWN, [10, 0, 0, 2])[..20].to_vec(), DropReason::GuardIp),
        ] {
            assert_eq!(check(&frame), Err(reason), "{frame:02x?}");
        }
    }

    #[test]
    fn a_dhcp_server_is_heard_from_no_guarded_port() {
        let speech = |from: [u8; 4], ports: (u16, u16)| {
            let mut frame = Vec::new();
            let ip = PacketBuilder::ethernet2(OWN.0, [0xff; 6]).ipv4(from, [255; 4], 64);
            ip.udp(ports.0, ports.1).write(&mut frame, &[2; 240]).unwrap();
            frame
        };
        assert_eq!(check(&speech([10, 0, 0, 2], (67, 68))), Err(DropReason::GuardDhcp));
        assert_eq!(check(&speech([0; 4], (67, 68))), Err(DropReason::GuardDhcp));
        assert_eq!(check(&speech([0; 4], (68, 67))), Ok(()), "a client's");
        let mut tagged = speech([10, 0, 0, 2], (67, 68));
        tagged.splice(12..12, [0x81, 0, 0, 5]);
        assert_eq!(check(&tagged), Err(DropReason::GuardDhcp));
        let own: Ipv6Addr = "fd00::2".parse().unwrap();
        for (ports, expected) in [((547, 546), Err(DropReason::GuardDhcp)), ((546, 547), Ok(()))] {
            let mut frame = Vec::new();
            let ip = PacketBuilder::ethernet2(OWN.0, OTHER.0).ipv6(own.octets(), [0xfd; 16], 64);
            ip.udp(ports.0, ports.1).write(&mut frame, &[2; 40]).unwrap();
            assert_eq!(check(&frame), expected);
        }
    }

    #[test]
    fn a_second_tag_hides_nothing() {
        let mut frame = udp4(OWN, [10, 0, 0, 3]);
        for tag in [[0x81, 0, 0, 5], [0x88, 0xa8, 0, 6], [0x81, 0, 0, 7]] {
            frame.splice(12..12, tag);
            assert_eq!(check(&frame), Err(DropReason::GuardIp));
        }
    }

    #[test]
    fn unknown_addresses_are_not_checked() {
        let guard = Guard { mac: OWN, addresses: Vec::new() };
        let frame = udp4(OWN, [10, 0, 0, 3]);
        assert_eq!(guard.check(&Ethernet::parse(&frame).unwrap(), &frame), Ok(()));
        let frame = arp(OTHER, [10, 0, 0, 3]);
        assert_eq!(guard.check(&Ethernet::parse(&frame).unwrap(), &frame), Err(DropReason::GuardArp));
    }
}
