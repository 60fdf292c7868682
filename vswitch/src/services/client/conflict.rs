//! Whether another station on the link has the address (RFC 5227): ARP frames said and heard.

use std::net::Ipv4Addr;
use std::time::Duration;

use packet::{Mac, ethertype};
use rand::RngExt;
use rand::rngs::StdRng;
use smoltcp::wire::{ArpOperation, ArpPacket, ArpRepr, EthernetAddress};

use super::pace::Pace;
use crate::services::wire::{Arp, Hop, arp, ethernet};

/// How often an address is asked for on the link (section 1.1: `PROBE_NUM`).
const PROBES: u32 = 3;

/// The questions to the link before an address is used (section 2.1).
#[derive(Debug)]
pub(in crate::services) struct Probe {
    mac: Mac,
    address: Ipv4Addr,
    pace: &'static Pace,
    sent: u32,
}

impl Probe {
    pub(in crate::services) const fn new(mac: Mac, address: Ipv4Addr, pace: &'static Pace) -> Self {
        Self { mac, address, pace, sent: 0 }
    }

    /// How long to wait before the first of them.
    pub(in crate::services) fn wait(&self, random: &mut StdRng) -> Duration {
        Duration::from_millis(random.random_range(self.pace.before_probes.clone()))
    }

    /// The next of them, and how long to wait after it; `None`: no station has the address.
    pub(in crate::services) fn next(&mut self, random: &mut StdRng) -> Option<(Vec<u8>, Duration)> {
        if self.sent == PROBES {
            return None;
        }
        self.sent += 1;
        let between = Duration::from_millis(random.random_range(self.pace.between_probes.clone()));
        let pause = if self.sent < PROBES { between } else { self.pace.after_probes };
        Some((probe(self.mac, self.address), pause))
    }

    /// Who says in a frame that it has the address, or would have it.
    pub(in crate::services) fn rival(&self, frame: &[u8]) -> Option<Mac> {
        rival(frame, self.mac, self.address, true)
    }
}

/// A question who has `address`, with no sender's address, so that no station takes the asker for its owner (section 2.1.1).
pub(in crate::services) fn probe(mac: Mac, address: Ipv4Addr) -> Vec<u8> {
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
    let Arp { mac, sender, target } = arp(frame)?;
    let wants = probed && sender.is_unspecified() && target == address;
    (mac != own && (sender == address || wants)).then_some(mac)
}
