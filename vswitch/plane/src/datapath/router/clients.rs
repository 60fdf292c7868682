//! Which containers the services ask a DHCP server for, on bridges without a gateway. The router asks whether a frame may be an answer to them.

use std::collections::HashSet;

use foldhash::fast::FixedState;
use packet::{Ethernet, IpPacket, Mac, VlanId, ethertype};
use smoltcp::wire::{ArpPacket, ArpRepr};

use super::{Attention, Router};
use crate::datapath::{BridgeId, Slots};

/// Containers on bridges without a gateway for which the switch itself asks a DHCP server there.
///
/// These containers send and receive frames of their own by the same MAC addresses, so the switch takes only what may be an answer to it. A
/// DHCP message to one of them is for the switch alone. A DHCP message to all, and an ARP frame that may be about an address not in use yet
/// (RFC 5227), is for the switch as well.
#[derive(Debug, Default)]
pub(super) struct Clients(Slots<HashSet<(VlanId, Mac), FixedState>>);

impl Clients {
    pub(super) fn set(&mut self, bridge: BridgeId, clients: Vec<(VlanId, Mac)>) {
        if clients.is_empty() {
            self.0.remove(bridge.0);
        } else {
            self.0.insert(bridge.0, clients.into_iter().collect());
        }
    }

    /// Whether there are any on a bridge.
    pub(super) fn are_on(&self, bridge: BridgeId) -> bool {
        self.0.get(bridge.0).is_some()
    }

    pub(super) fn attention(&self, bridge: BridgeId, vlan: VlanId, ethernet: &Ethernet, frame: &[u8]) -> Attention {
        let Some(clients) = self.0.get(bridge.0) else { return Attention::None };
        let is_own = clients.contains(&(vlan, ethernet.destination));
        if !is_own && !ethernet.destination.is_group() {
            return Attention::None;
        }
        match ethernet.ethertype {
            ethertype::ARP if is_about_nobody(frame.get(ethernet.payload..).unwrap_or_default()) => Attention::Also,
            ethertype::IPV4 if is_dhcp(ethernet, frame) => {
                if is_own {
                    Attention::Mine
                } else {
                    Attention::Also
                }
            }
            _ => Attention::None,
        }
    }
}

/// A probe, or the answer to one.
fn is_about_nobody(message: &[u8]) -> bool {
    let message = ArpPacket::new_checked(message).and_then(|packet| ArpRepr::parse(&packet));
    match message {
        Ok(ArpRepr::EthernetIpv4 { source_protocol_addr, target_protocol_addr, .. }) => {
            source_protocol_addr.is_unspecified() || target_protocol_addr.is_unspecified()
        }
        _ => false,
    }
}

fn is_dhcp(ethernet: &Ethernet, frame: &[u8]) -> bool {
    IpPacket::parse(frame, ethernet)
        .is_some_and(|packet| packet.fragment.is_none() && Router::is_for_dhcp_client(&packet, frame))
}
