//! Whether somebody else on the link has the address (RFC 5227): ARP frames said and heard.

use std::net::Ipv4Addr;

use packet::{Ethernet, Mac, ethertype};
use smoltcp::wire::{ArpOperation, ArpPacket, ArpRepr, EthernetAddress};

use crate::services::wire::{Hop, ethernet};

/// A question who has `address`, from nobody, so that no station takes the asker for its owner (section 2.1.1).
pub(super) fn probe(mac: Mac, address: Ipv4Addr) -> Vec<u8> {
    request(mac, Ipv4Addr::UNSPECIFIED, address)
}

/// Tells all stations that `address` is this one's (section 2.3).
pub(super) fn announcement(mac: Mac, address: Ipv4Addr) -> Vec<u8> {
    request(mac, address, address)
}

pub(super) fn request(mac: Mac, sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let repr = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Request,
        source_hardware_addr: EthernetAddress(mac.0),
        source_protocol_addr: sender,
        target_hardware_addr: EthernetAddress(Mac::ZERO.0),
        target_protocol_addr: target,
    };
    let mut message = vec![0; repr.buffer_len()];
    repr.emit(&mut ArpPacket::new_unchecked(&mut message));
    ethernet(Hop { from: mac, to: Mac::BROADCAST }, ethertype::ARP, &message)
}

/// Who, other than `own`, says in an ARP frame that it has `address`; or, where that is only `probed` for, that it would have it.
pub(super) fn rival(frame: &[u8], own: Mac, address: Ipv4Addr, probed: bool) -> Option<Mac> {
    let ethernet = Ethernet::parse(frame).ok().filter(|ethernet| ethernet.ethertype == ethertype::ARP)?;
    let message = ArpPacket::new_checked(frame.get(ethernet.payload..)?).ok()?;
    let ArpRepr::EthernetIpv4 { source_hardware_addr, source_protocol_addr: sender, target_protocol_addr: target, .. } =
        ArpRepr::parse(&message).ok()?
    else {
        return None;
    };
    let mac = Mac(source_hardware_addr.0);
    let wants = probed && sender.is_unspecified() && target == address;
    (mac != own && (sender == address || wants)).then_some(mac)
}
