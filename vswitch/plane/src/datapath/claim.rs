//! What a frame claims about its sender, beyond its header: that an address is the sender's (ARP, RFC 826; neighbour discovery, RFC 4861;
//! redirects), that it is a router, or that it is a DHCP server.
//!
//! Stations believe such messages from any sender. So these are dropped:
//! - on every port, a claim to an address of the gateway ([`SpoofedAddress`](DropReason::SpoofedAddress));
//! - a claim to an address that the configuration gives to other ports of the VLAN (the same reason);
//! - what a station says as a router, where the gateway is the router of IPv6 (a link or a tunnel may have routers behind it);
//! - what any port but the gateway says as a DHCP server, where the gateway gives out the addresses.
//!
//! Most frames claim nothing, which a glance tells ([`is_plain`]).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use packet::{Ethernet, IpPacket, VlanId, ethertype, protocol};

use super::bridge::Bridge;
use super::conflict::{AddressConflict, Holder, Saying, Speaker};
use super::router::Router;
use super::{BridgeId, DropReason, Mode, PortId};

/// Where DHCP's servers and relays speak to its clients (RFC 2131, section 4.1; RFC 8415, section 7.2).
const DHCP_CLIENTS: u16 = 68;
const DHCP6_CLIENTS: u16 = 546;
/// The types of neighbour discovery, of which these two are also of concern alone, and of a redirect in IPv4.
const DISCOVERY: std::ops::RangeInclusive<u8> = 133..=137;
const ROUTER_ADVERTISEMENT: u8 = 134;
const NEIGHBOR_SOLICITATION: u8 = 135;
const NEIGHBOR_ADVERTISEMENT: u8 = 136;
const REDIRECT: u8 = 5;

/// What a frame claims.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Claim {
    /// That these addresses are the sender's.
    Addresses([Option<IpAddr>; 2]),
    /// That the sender wants this address, if it is free (RFC 4862, section 5.4.2).
    Wanted(IpAddr),
    /// To be the router with this address.
    Router(IpAddr),
    /// To be a DHCP server, towards a client with this address, or a group.
    DhcpServer(IpAddr),
}

/// The sender of a claim.
#[derive(Debug, Clone, Copy)]
pub(super) struct Claimant {
    pub(super) bridge: BridgeId,
    pub(super) vlan: VlanId,
    pub(super) port: PortId,
    /// Now, in seconds of the tables.
    pub(super) second: u32,
    /// Whether the port leads to a station, and not to another network.
    pub(super) is_station: bool,
    /// Whether the port is a tunnel of whose stations other hosts tell: each of them may have a gateway with this one's address.
    pub(super) is_told: bool,
}

/// Whether a frame with its payload at this place certainly claims nothing.
pub(super) fn is_plain(payload: usize, frame: &[u8]) -> bool {
    let Some(rest) = frame.get(payload.saturating_sub(2)..) else { return true };
    let port = |at: usize| rest.get(at + 2..at + 4).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]));
    match rest {
        [0x08, 0x00, first, _, _, _, _, _, _, _, _, kind, ..] => {
            let transport = 2 + usize::from(first & 0x0f) * 4;
            match *kind {
                protocol::UDP => port(transport) != Some(DHCP_CLIENTS),
                protocol::ICMP => rest.get(transport) != Some(&REDIRECT),
                _ => true,
            }
        }
        [0x86, 0xdd, _, _, _, _, _, _, kind, ..] => match *kind {
            protocol::TCP => true,
            protocol::UDP => port(42) != Some(DHCP6_CLIENTS),
            protocol::ICMP6 => rest.get(42).is_none_or(|kind| !DISCOVERY.contains(kind)),
            _ => false,
        },
        [0x08, 0x06, ..] | [0x81, 0x00, ..] | [0x88, 0xa8, ..] => false,
        _ => true,
    }
}

impl Claim {
    /// Reads a frame.
    ///
    /// # Errors
    /// It hides what it says behind more extension headers than packets have, or in a later fragment (RFC 7112, section 5).
    pub(super) fn of(ethernet: &Ethernet, frame: &[u8]) -> Result<Option<Self>, DropReason> {
        // A station takes no notice of priority tags. Behind any other tag is another network.
        let ethernet = behind_tags(ethernet, frame, |tag| tag & 0x0fff == 0);
        if ethernet.ethertype == ethertype::ARP {
            // The sender of ARP for Ethernet and IPv4, the only one that stations read.
            let sender = frame.get(ethernet.payload + 14..).and_then(<[u8]>::first_chunk::<4>);
            return Ok(sender.map(|sender| Self::Addresses([Some(Ipv4Addr::from(*sender).into()), None])));
        }
        let Some(packet) = IpPacket::parse(frame, &ethernet) else { return Ok(None) };
        if packet.fragment.is_some_and(|fragment| fragment.offset > 0) {
            return Ok(None);
        }
        let message = frame.get(packet.transport..packet.end).unwrap_or_default();
        match (packet.source, packet.protocol) {
            (IpAddr::V6(_), 0 | 43 | 44 | 60) => Err(DropReason::Malformed),
            (IpAddr::V6(_), protocol::UDP | protocol::ICMP6) if message.len() < 8 => Err(DropReason::Malformed),
            (IpAddr::V4(_), protocol::ICMP) if message.first() == Some(&REDIRECT) => {
                Ok(Some(Self::Addresses([Some(packet.source), None])))
            }
            (IpAddr::V6(source), protocol::ICMP6) => Ok(Self::of_discovery(source, message)),
            (source, protocol::UDP) => {
                let clients = if source.is_ipv4() { DHCP_CLIENTS } else { DHCP6_CLIENTS };
                let speaks = message.get(2..4) == Some(&clients.to_be_bytes());
                Ok(speaks.then_some(Self::DhcpServer(packet.destination)))
            }
            _ => Ok(None),
        }
    }

    fn of_discovery(source: Ipv6Addr, message: &[u8]) -> Option<Self> {
        let kind = *message.first().filter(|kind| DISCOVERY.contains(kind))?;
        let target = message.get(8..24).and_then(<[u8]>::first_chunk::<16>).map(|bytes| Ipv6Addr::from(*bytes).into());
        Some(match kind {
            ROUTER_ADVERTISEMENT => Self::Router(source.into()),
            NEIGHBOR_ADVERTISEMENT => Self::Addresses([Some(source.into()), target]),
            NEIGHBOR_SOLICITATION if source.is_unspecified() => Self::Wanted(target?),
            _ => Self::Addresses([Some(source.into()), None]),
        })
    }
}

/// Checks what a frame that may pass claims, and takes note of it, but not in a dry run.
///
/// # Errors
/// The claim is one that others have.
pub(super) fn check(
    router: &Router,
    bridge: &mut Bridge,
    who: &Claimant,
    (ethernet, frame): (&Ethernet, &[u8]),
    mode: Mode,
) -> Result<(), DropReason> {
    if is_plain(ethernet.payload, frame) {
        return Ok(());
    }
    let Some(claim) = Claim::of(ethernet, frame)? else { return Ok(()) };
    if mode == Mode::Live {
        note(router, bridge, who, ethernet, claim);
    }
    if let Some(reason) = router.refusal(who, ethernet, claim) {
        return Err(reason);
    }
    let Claim::Addresses(addresses) = claim else { return Ok(()) };
    // Where the services ask a foreign DHCP server for containers, they must hear of a station that has a container's address.
    let taken = |address: IpAddr| bridge.other_owner(who.vlan, address, who.port).is_some();
    if addresses.into_iter().flatten().any(taken) && !router.has_clients(who.bridge) {
        return Err(DropReason::SpoofedAddress);
    }
    Ok(())
}

/// Takes note of which station claims which addresses: two stations may have the same one.
fn note(router: &Router, bridge: &mut Bridge, who: &Claimant, ethernet: &Ethernet, claim: Claim) {
    let (addresses, what) = match claim {
        Claim::Addresses([first, second]) => ([first, second.filter(|second| first != Some(*second))], Saying::Mine),
        Claim::Wanted(address) => ([Some(address), None], Saying::Wanted),
        Claim::Router(_) | Claim::DhcpServer(_) => return,
    };
    let (vlan, claimant) = (who.vlan, Speaker { mac: ethernet.source, port: who.port });
    for address in addresses.into_iter().flatten().filter(|address| !address.is_unspecified()) {
        let gateway = router.is_gateway(who.bridge, vlan, address).then_some(Holder::Gateway);
        let owner = || bridge.other_owner(vlan, address, who.port).map(Holder::Port);
        if gateway.is_some() && who.is_told {
            continue;
        }
        match gateway.or_else(owner) {
            Some(holder) => bridge.claims.count(AddressConflict { vlan, address, holder, claimant }),
            None => bridge.claims.hear(vlan, address, claimant, what, who.second),
        }
    }
}

/// The header as it is behind all tags, but for those at and behind the first that does not `pass`.
pub(super) fn behind_tags(ethernet: &Ethernet, frame: &[u8], pass: impl Fn(u16) -> bool) -> Ethernet {
    let mut header = *ethernet;
    while let (ethertype::VLAN | ethertype::SERVICE_VLAN, Some([high, low, kind @ ..])) =
        (header.ethertype, frame.get(header.payload..).and_then(<[u8]>::first_chunk::<4>))
        && pass(u16::from_be_bytes([*high, *low]))
    {
        (header.ethertype, header.payload) = (u16::from_be_bytes(*kind), header.payload + 4);
    }
    header
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;
    use packet::Mac;
    use proptest::prelude::*;

    use super::*;

    const ONE: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const TWO: Mac = Mac([2, 0, 0, 0, 0, 2]);

    fn of(frame: &[u8]) -> Result<Option<Claim>, DropReason> {
        let ethernet = Ethernet::parse(frame).unwrap();
        let claim = Claim::of(&ethernet, frame);
        assert!(!is_plain(ethernet.payload, frame) || claim == Ok(None), "a glance misses nothing");
        claim
    }

    fn udp(from: &str, to: &str) -> Vec<u8> {
        let (from, to): (std::net::SocketAddr, std::net::SocketAddr) = (from.parse().unwrap(), to.parse().unwrap());
        let ethernet = PacketBuilder::ethernet2(ONE.0, TWO.0);
        let ip = match (from.ip(), to.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => ethernet.ipv4(from.octets(), to.octets(), 64),
            (IpAddr::V6(from), IpAddr::V6(to)) => ethernet.ipv6(from.octets(), to.octets(), 64),
            _ => panic!("two families"),
        };
        let mut frame = Vec::new();
        ip.udp(from.port(), to.port()).write(&mut frame, &[2; 20]).unwrap();
        frame
    }

    /// An IPv6 packet with these headers behind its own, of which `first` is the type of the first.
    fn ipv6(first: u8, rest: &[u8]) -> Vec<u8> {
        let mut frame = [&TWO.0[..], &ONE.0, &[0x86, 0xdd, 0x60, 0, 0, 0]].concat();
        frame.extend(u16::try_from(rest.len()).unwrap().to_be_bytes());
        frame.extend([first, 255]);
        frame.extend(Ipv6Addr::from([0xfe80, 0, 0, 0, 0, 0, 0, 1]).octets());
        frame.extend(Ipv6Addr::from([0xff02, 0, 0, 0, 0, 0, 0, 1]).octets());
        frame.extend(rest);
        frame
    }

    #[test]
    fn a_message_to_dhcp_clients_is_a_servers() {
        let to = |text: &str| Ok(Some(Claim::DhcpServer(text.parse().unwrap())));
        assert_eq!(of(&udp("10.0.0.9:67", "255.255.255.255:68")), to("255.255.255.255"));
        assert_eq!(of(&udp("10.0.0.9:1067", "10.0.0.2:68")), to("10.0.0.2"), "clients do not look where it comes from");
        assert_eq!(of(&udp("[fe80::9]:547", "[fe80::2]:546")), to("fe80::2"));
        for (from, to) in [
            ("0.0.0.0:68", "255.255.255.255:67"),
            ("10.0.0.9:67", "10.0.0.1:67"),
            ("10.0.0.9:546", "10.0.0.1:546"),
            ("[fe80::9]:546", "[ff02::1:2]:547"),
            ("[fe80::9]:68", "[fe80::2]:68"),
        ] {
            assert_eq!(of(&udp(from, to)), Ok(None), "{from} {to}");
        }
    }

    #[test]
    fn what_is_said_behind_priority_tags_is_heard() {
        let offer = udp("10.0.0.9:67", "255.255.255.255:68");
        let tagged = |frame: &[u8], tag: [u8; 4]| [&frame[..12], &tag, &frame[12..]].concat();
        let once = tagged(&offer, [0x81, 0, 0x20, 0]);
        assert!(of(&once).unwrap().is_some());
        assert!(of(&tagged(&once, [0x81, 0, 0, 5])).unwrap().is_some());
        assert_eq!(of(&tagged(&tagged(&offer, [0x81, 0, 0, 7]), [0x81, 0, 0, 5])), Ok(None), "another network");
    }

    #[test]
    fn neighbour_discovery_is_found_behind_other_headers() {
        let target: Ipv6Addr = "fe80::77".parse().unwrap();
        let source: IpAddr = "fe80::1".parse().unwrap();
        let advertisement = [&[136, 0, 0, 0, 0x20, 0, 0, 0][..], &target.octets()].concat();
        let claim = Ok(Some(Claim::Addresses([Some(source), Some(target.into())])));
        assert_eq!(of(&ipv6(58, &advertisement)), claim);
        let options = [60, 0, 1, 4, 0, 0, 0, 0];
        let mut last = options;
        last[0] = 58;
        assert_eq!(of(&ipv6(60, &[&options[..], &last, &advertisement].concat())), claim);
        let router = [134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(of(&ipv6(58, &router)), Ok(Some(Claim::Router(source))));
        let hidden = [options.repeat(9).as_slice(), &last, &advertisement].concat();
        assert_eq!(of(&ipv6(60, &hidden)), Err(DropReason::Malformed), "behind more headers than are followed");
        let fragment =
            |next, offset: u16, more: bool| [&[next, 0][..], &(offset | u16::from(more)).to_be_bytes(), &[0, 0, 0, 9]].concat();
        let first = ipv6(44, &[fragment(60, 0, true), last.to_vec()].concat());
        assert_eq!(of(&first), Err(DropReason::Malformed), "what it is comes in the next fragment");
        assert_eq!(
            of(&ipv6(44, &[fragment(58, 8, false), advertisement].concat())),
            Ok(None),
            "nothing reads it without the first"
        );
    }

    #[test]
    fn who_asks_whether_an_address_is_free_wants_it() {
        let target: Ipv6Addr = "fe80::77".parse().unwrap();
        let solicitation = [&[135, 0, 0, 0, 0, 0, 0, 0][..], &target.octets()].concat();
        let mut frame = ipv6(58, &solicitation);
        assert_eq!(of(&frame), Ok(Some(Claim::Addresses([Some("fe80::1".parse().unwrap()), None]))));
        frame[14 + 8..14 + 24].fill(0);
        assert_eq!(of(&frame), Ok(Some(Claim::Wanted(target.into()))));
    }

    #[test]
    fn the_sender_of_arp_and_of_a_redirect_claims_its_address() {
        let mut frame = [&[0xff; 6][..], &ONE.0, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 2]].concat();
        frame.extend([&ONE.0[..], &[10, 0, 0, 1], &TWO.0, &[10, 0, 0, 2]].concat());
        let claim = Ok(Some(Claim::Addresses([Some("10.0.0.1".parse().unwrap()), None])));
        assert_eq!(of(&frame), claim);
        let mut frame = Vec::new();
        let redirect = PacketBuilder::ethernet2(ONE.0, TWO.0).ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64);
        redirect.icmpv4_raw(5, 1, [10, 0, 0, 9]).write(&mut frame, &[0; 28]).unwrap();
        assert_eq!(of(&frame), claim);
    }

    proptest! {
        #[test]
        fn no_bytes_panic_and_a_glance_misses_nothing(
            mut bytes in prop::collection::vec(any::<u8>(), 18..120),
            kind in prop::sample::select(vec![[8_u8, 0], [8, 6], [0x86, 0xdd], [0x81, 0]]),
        ) {
            bytes[12..14].copy_from_slice(&kind);
            let _ = of(&bytes);
        }
    }
}
