//! DHCPv4 messages, read and written, for the server here and for the client in `services/client`. Pure functions of the bytes.

use std::net::Ipv4Addr;

use packet::Mac;
use smoltcp::wire::{ArpHardware, DhcpFlags, DhcpMessageType, DhcpOpCode, DhcpOption, DhcpPacket, EthernetAddress};

/// Codes of options (RFC 2132).
pub(in crate::services) mod option {
    pub(in crate::services) const SUBNET_MASK: u8 = 1;
    pub(in crate::services) const ROUTER: u8 = 3;
    pub(in crate::services) const DNS: u8 = 6;
    pub(in crate::services) const DOMAIN: u8 = 15;
    pub(in crate::services) const MTU: u8 = 26;
    pub(in crate::services) const BROADCAST: u8 = 28;
    pub(in crate::services) const REQUESTED: u8 = 50;
    pub(in crate::services) const LEASE: u8 = 51;
    pub(in crate::services) const KIND: u8 = 53;
    pub(in crate::services) const SERVER: u8 = 54;
    pub(in crate::services) const PARAMETERS: u8 = 55;
    pub(in crate::services) const MESSAGE: u8 = 56;
    pub(in crate::services) const MAX_SIZE: u8 = 57;
    pub(in crate::services) const RENEWAL: u8 = 58;
    pub(in crate::services) const REBINDING: u8 = 59;
    pub(in crate::services) const CLIENT: u8 = 61;
    pub(in crate::services) const RELAY: u8 = 82;
    pub(in crate::services) const ROUTES: u8 = 121;
}

/// A received message: Ethernet's, whole, with a type.
pub(in crate::services) struct Message<'a> {
    packet: DhcpPacket<&'a [u8]>,
    pub(in crate::services) kind: DhcpMessageType,
}

impl<'a> Message<'a> {
    /// Reads a message of this direction; `None` if it is none.
    pub(in crate::services) fn parse(payload: &'a [u8], direction: DhcpOpCode) -> Option<Self> {
        let packet = DhcpPacket::new_checked(payload).ok()?;
        let ethernet = packet.hardware_type() == ArpHardware::Ethernet && packet.hardware_len() == 6;
        let [kind] = *packet.options().find(|option| option.kind == option::KIND)?.data else { return None };
        let right = packet.opcode() == direction && packet.magic_number() == MAGIC && ethernet;
        (right && !Mac(packet.client_hardware_address().0).is_group()).then_some(Self { packet, kind: kind.into() })
    }

    pub(in crate::services) fn xid(&self) -> u32 {
        self.packet.transaction_id()
    }

    pub(in crate::services) fn chaddr(&self) -> Mac {
        Mac(self.packet.client_hardware_address().0)
    }

    pub(in crate::services) fn ciaddr(&self) -> Ipv4Addr {
        self.packet.client_ip()
    }

    pub(in crate::services) fn yiaddr(&self) -> Ipv4Addr {
        self.packet.your_ip()
    }

    pub(in crate::services) fn giaddr(&self) -> Ipv4Addr {
        self.packet.relay_agent_ip()
    }

    pub(in crate::services) fn wants_broadcast(&self) -> bool {
        self.packet.flags().contains(DhcpFlags::BROADCAST)
    }

    /// The first option of this code.
    pub(in crate::services) fn option(&self, code: u8) -> Option<&[u8]> {
        self.packet.options().find(|option| option.kind == code).map(|option| option.data)
    }

    /// An option that is an address, or a list of them, of which this is the first.
    pub(in crate::services) fn address(&self, code: u8) -> Option<Ipv4Addr> {
        self.option(code)?.first_chunk().map(|bytes: &[u8; 4]| Ipv4Addr::from(*bytes))
    }

    /// An option that is a list of addresses.
    pub(in crate::services) fn addresses(&self, code: u8) -> Vec<Ipv4Addr> {
        let (addresses, _) = self.option(code).unwrap_or_default().as_chunks::<4>();
        addresses.iter().map(|bytes| Ipv4Addr::from(*bytes)).collect()
    }

    /// An option that is a number of 32 bits.
    pub(in crate::services) fn number(&self, code: u8) -> Option<u32> {
        self.option(code)?.try_into().ok().map(u32::from_be_bytes)
    }

    /// What identifies the client: option 61, or type and address of its hardware (RFC 2131, section 4.2). The first byte
    /// keeps the two apart.
    pub(in crate::services) fn client(&self) -> Vec<u8> {
        match self.option(option::CLIENT).filter(|id| id.len() > 1) {
            Some(id) => [&[option::CLIENT], id].concat(),
            None => [&[0, 1][..], &self.chaddr().0].concat(),
        }
    }
}

/// A message to be sent.
#[derive(Clone, Debug)]
pub(in crate::services) struct Outgoing {
    pub(in crate::services) direction: DhcpOpCode,
    pub(in crate::services) xid: u32,
    pub(in crate::services) secs: u16,
    pub(in crate::services) broadcast: bool,
    pub(in crate::services) ciaddr: Ipv4Addr,
    pub(in crate::services) yiaddr: Ipv4Addr,
    pub(in crate::services) giaddr: Ipv4Addr,
    pub(in crate::services) chaddr: Mac,
    pub(in crate::services) options: Vec<(u8, Vec<u8>)>,
}

/// The fixed part.
const HEADER: usize = 240;
/// BOOTP's length (RFC 1542, section 2.1), which some clients insist on.
const SHORTEST: usize = 300;
/// `63 82 53 63`, before the options.
const MAGIC: u32 = 0x6382_5363;

impl Outgoing {
    /// An empty message about a client.
    pub(in crate::services) const fn new(direction: DhcpOpCode, xid: u32, chaddr: Mac) -> Self {
        let none = Ipv4Addr::UNSPECIFIED;
        let options = Vec::new();
        Self { direction, xid, secs: 0, broadcast: false, ciaddr: none, yiaddr: none, giaddr: none, chaddr, options }
    }

    /// The bytes; `None` if an option is longer than 255.
    pub(in crate::services) fn encode(&self) -> Option<Vec<u8>> {
        let options: usize = self.options.iter().map(|(_, data)| data.len() + 2).sum();
        let mut bytes = vec![0; (HEADER + options + 1).max(SHORTEST)];
        let mut packet = DhcpPacket::new_unchecked(bytes.as_mut_slice());
        packet.set_opcode(self.direction);
        packet.set_hardware_type(ArpHardware::Ethernet);
        packet.set_hardware_len(6);
        packet.set_transaction_id(self.xid);
        packet.set_secs(self.secs);
        packet.set_flags(if self.broadcast { DhcpFlags::BROADCAST } else { DhcpFlags::empty() });
        packet.set_client_ip(self.ciaddr);
        packet.set_your_ip(self.yiaddr);
        packet.set_relay_agent_ip(self.giaddr);
        packet.set_client_hardware_address(EthernetAddress(self.chaddr.0));
        packet.set_magic_number(MAGIC);
        let mut writer = packet.options_mut();
        for (kind, data) in &self.options {
            writer.emit(DhcpOption { kind: *kind, data }).ok()?;
        }
        writer.end().ok()?;
        Some(bytes)
    }
}
