//! The server of one bridge: addresses of its first IPv6 subnet, the gateway as name server.
//!
//! As in IPv4 it is the only server and grants what is free, whether or not it remembers the client (RFC 8415, section 18.3.4,
//! "the server may choose to create a binding"). No prefixes are delegated and no relays are served.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use ipnet::{IpNet, Ipv6Net};
use packet::Mac;

use super::message::{Association, Message6, Status, kind, name, option, put, put_status};
use super::{CLIENT_PORT, SERVER_PORT};
use crate::services::leases::{Lease, Leases, Who};
use crate::services::pool::AddressPool;
use crate::services::wire::{self, Datagram, Hop};
use crate::services::{LEASE, Link};
use api::PortName;

/// All servers and relays of the link; no unicast is offered, so nothing else is answered (RFC 8415, section 16).
const ALL_SERVERS: IpAddr = IpAddr::V6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2));

/// The server of one bridge.
#[derive(Debug)]
pub(in crate::services) struct Server6 {
    subnet: Ipv6Net,
    /// The table, without the static addresses.
    pub(in crate::services) leases: Leases,
}

/// What becomes of an association's addresses.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Want {
    /// One is offered.
    Offer,
    /// One is given, even if not the one asked for.
    Assign,
    /// Those that the client has are extended.
    Extend,
}

impl Server6 {
    /// The server that `link` asks for, with what was kept of an earlier one.
    pub(in crate::services) fn new(link: &Link, kept: Vec<Lease>) -> Option<Self> {
        let subnet = link.dhcp6_subnet()?;
        Some(Self { subnet, leases: Leases::new(pool(link, subnet), kept) })
    }

    /// Takes on another configuration of its bridge.
    pub(in crate::services) fn set_link(&mut self, link: &Link, subnet: Ipv6Net) {
        self.subnet = subnet;
        self.leases.set_pool(pool(link, subnet));
    }

    /// Answers a datagram to port 547.
    pub(in crate::services) fn receive(
        &mut self,
        now: Duration,
        link: &Link,
        port: &PortName,
        datagram: &Datagram<'_>,
    ) -> Option<Vec<u8>> {
        if datagram.destination.ip() != ALL_SERVERS {
            return None;
        }
        let message = Message6::parse(datagram.payload)?;
        let asker = Asker { now: now.as_secs(), link, port, mac: datagram.mac, duid: message.client() };
        let reply = self.answer(&asker, &message)?;
        let hop = Hop { from: link.mac, to: datagram.mac };
        let to = (datagram.source.ip(), CLIENT_PORT).into();
        wire::udp(hop, (link.mac.link_local(), SERVER_PORT).into(), to, &reply)
    }

    /// Which messages must or must not name a server is RFC 8415, section 16.
    fn answer(&mut self, asker: &Asker<'_>, message: &Message6<'_>) -> Option<Vec<u8>> {
        let own = duid(asker.link.mac);
        let ours = message.server().is_some_and(|server| server == own);
        let nobodys = message.server().is_none();
        let known = asker.duid.is_some();
        let rapid = message.option(option::RAPID).is_some();
        let body = match message.kind {
            kind::SOLICIT if known && nobodys => {
                self.associations(asker, message, if rapid { Want::Assign } else { Want::Offer })
            }
            kind::REQUEST if known && ours => self.associations(asker, message, Want::Assign),
            kind::RENEW if known && ours => self.associations(asker, message, Want::Extend),
            kind::REBIND if known && nobodys => self.associations(asker, message, Want::Extend),
            kind::CONFIRM if known && nobodys => self.confirm(message)?,
            kind::RELEASE | kind::DECLINE if known && ours => self.end(asker, message),
            kind::INFORMATION if nobodys || ours => Vec::new(),
            _ => return None,
        };
        let advertise = message.kind == kind::SOLICIT && !rapid;
        let mut reply = vec![if advertise { kind::ADVERTISE } else { kind::REPLY }];
        reply.extend(message.transaction);
        put(&mut reply, option::SERVER, &own);
        asker.duid.iter().for_each(|client| put(&mut reply, option::CLIENT, client));
        if message.kind == kind::SOLICIT && rapid {
            put(&mut reply, option::RAPID, &[]);
        }
        reply.extend(body);
        if !matches!(message.kind, kind::CONFIRM | kind::RELEASE | kind::DECLINE) {
            put_parameters(&mut reply, asker.link);
        }
        Some(reply)
    }

    fn associations(&mut self, asker: &Asker<'_>, message: &Message6<'_>, want: Want) -> Vec<u8> {
        let mut body = Vec::new();
        for association in message.associations() {
            let mut inner = [association.id.as_slice(), &seconds(LEASE / 2), &seconds(LEASE / 5 * 4)].concat();
            self.association(asker, association, want, &mut inner);
            put(&mut body, option::IA_NA, &inner);
        }
        for id in message.delegations() {
            let mut inner = [id.as_slice(), &[0; 8]].concat();
            put_status(&mut inner, Status::NoPrefix);
            put(&mut body, option::IA_PD, &inner);
        }
        body
    }

    fn association(&mut self, asker: &Asker<'_>, association: Association<'_>, want: Want, inner: &mut Vec<u8>) {
        let client = asker.client(association.id);
        let who = asker.who(&client);
        let wishes: Vec<_> = association.addresses().take(1).collect();
        let granted = match (asker.fixed(self.subnet), want) {
            (Some(fixed), Want::Extend) => wishes.first().filter(|wish| **wish == fixed).copied(),
            (Some(fixed), _) => Some(fixed),
            (None, Want::Extend) => wishes.first().copied().filter(|wish| self.bind(asker, who, *wish)),
            (None, _) => self.assign(asker, who, wishes.first().copied(), want),
        };
        match granted {
            Some(address) => put_address(inner, address, LEASE),
            None if want == Want::Extend && wishes.is_empty() => put_status(inner, Status::NoBinding),
            // An address that the client must give up has no time left (RFC 8415, section 18.3.4).
            None if want == Want::Extend => wishes.iter().for_each(|wish| put_address(inner, *wish, 0)),
            None => put_status(inner, Status::NoAddresses),
        }
    }

    fn bind(&mut self, asker: &Asker<'_>, who: Who<'_>, address: Ipv6Addr) -> bool {
        self.leases.bind(asker.now, who, address.into(), asker.now + LEASE)
    }

    fn assign(&mut self, asker: &Asker<'_>, who: Who<'_>, wish: Option<Ipv6Addr>, want: Want) -> Option<Ipv6Addr> {
        match self.leases.offer(asker.now, who, wish.map(IpAddr::V6)) {
            Ok(IpAddr::V6(address)) => (want == Want::Offer || self.bind(asker, who, address)).then_some(address),
            Ok(IpAddr::V4(_)) | Err(_) => None,
        }
    }

    /// Whether a client that has moved is still on the link of its addresses; one without addresses is not answered (RFC 8415,
    /// section 18.3.3).
    fn confirm(&self, message: &Message6<'_>) -> Option<Vec<u8>> {
        let addresses: Vec<_> = message.associations().flat_map(Association::addresses).collect();
        let here = addresses.iter().all(|address| self.subnet.contains(address));
        let mut body = Vec::new();
        put_status(&mut body, if here { Status::Success } else { Status::NotOnLink });
        (!addresses.is_empty()).then_some(body)
    }

    fn end(&mut self, asker: &Asker<'_>, message: &Message6<'_>) -> Vec<u8> {
        let mut body = Vec::new();
        put_status(&mut body, Status::Success);
        for association in message.associations() {
            let client = asker.client(association.id);
            let who = asker.who(&client);
            let end = if message.kind == kind::RELEASE { Leases::release } else { Leases::decline };
            let mut ended = false;
            for address in association.addresses() {
                ended |= asker.fixed(self.subnet) == Some(address) || end(&mut self.leases, asker.now, who, address.into());
            }
            if !ended {
                let mut inner = [association.id.as_slice(), &[0; 8]].concat();
                put_status(&mut inner, Status::NoBinding);
                put(&mut body, option::IA_NA, &inner);
            }
        }
        body
    }
}

/// Who asks.
struct Asker<'a> {
    now: u64,
    link: &'a Link,
    port: &'a PortName,
    mac: Mac,
    duid: Option<&'a [u8]>,
}

impl Asker<'_> {
    /// A client has one address for each association.
    fn client(&self, id: [u8; 4]) -> Vec<u8> {
        [id.as_slice(), self.duid.unwrap_or_default()].concat()
    }

    const fn who<'a>(&'a self, client: &'a [u8]) -> Who<'a> {
        Who { client, mac: self.mac, port: self.port }
    }

    /// The address that the configuration gives to this station.
    fn fixed(&self, subnet: Ipv6Net) -> Option<Ipv6Addr> {
        let mut members = self.link.members.iter();
        let member = members.find(|member| member.port == *self.port && member.mac == Some(self.mac))?;
        member.addresses.iter().find_map(|net| match net.addr() {
            IpAddr::V6(address) => Some(address).filter(|address| subnet.contains(address)),
            IpAddr::V4(_) => None,
        })
    }
}

fn pool(link: &Link, subnet: Ipv6Net) -> AddressPool {
    AddressPool::new(IpNet::V6(subnet), link.taken()).within(link.blocks())
}

/// DUID-LL of Ethernet (RFC 8415, section 11.4): the gateway's MAC stays, so this does.
fn duid(mac: Mac) -> Vec<u8> {
    [&[0, 3, 0, 1], mac.0.as_slice()].concat()
}

fn seconds(value: u64) -> [u8; 4] {
    u32::try_from(value).unwrap_or(u32::MAX).to_be_bytes()
}

fn put_address(bytes: &mut Vec<u8>, address: Ipv6Addr, lifetime: u64) {
    put(bytes, option::ADDRESS, &[address.octets().as_slice(), &seconds(lifetime), &seconds(lifetime)].concat());
}

fn put_parameters(bytes: &mut Vec<u8>, link: &Link) {
    let servers: Vec<u8> = link.addresses6().flat_map(|net| net.addr().octets()).collect();
    if !servers.is_empty() {
        put(bytes, option::DNS, &servers);
    }
    put(bytes, option::SEARCH, &name(&link.domain()));
}
