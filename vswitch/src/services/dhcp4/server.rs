//! The server of one bridge: the rest of its first IPv4 subnet.
//!
//! It is the only server of its subnet, and says so: a client that asks for an address that it cannot have is told "no" even
//! if it never was a client of ours, so that it starts again at once (RFC 2131, section 4.3.2, leaves that to servers that know
//! the network); one that asks for a free address of the subnet gets it, so a lost table costs no client its address.
//!
//! Before a client is offered an address that it does not have yet, the link is asked by ARP whether a station uses it ([`Probing`]).

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};
use packet::Mac;
use smoltcp::wire::{DhcpMessageType as Kind, DhcpOpCode};

use super::probing::Probing;
use super::{CLIENT_PORT, Message, Outgoing, SERVER_PORT, option};
use crate::services::client::probe;
use crate::services::leases::{Lease, Leases, Who};
use crate::services::pool::AddressPool;
use crate::services::wire::{self, Arp, Datagram, Hop, Received};
use crate::services::{LEASE, Link, Punt};
use api::PortName;

/// Shortest lease that a client may ask for.
const SHORTEST: u64 = 120;

/// The server of one bridge.
#[derive(Debug)]
pub(in crate::services) struct Server {
    subnet: Ipv4Net,
    /// The table, without the static addresses.
    pub(in crate::services) leases: Leases,
    probing: Probing,
}

/// What the server says, and to whom.
enum Verdict {
    /// An offer of this address, unless a station has it.
    Probe(Ipv4Addr),
    Offer(Ipv4Addr, u64),
    Ack(Ipv4Addr, u64),
    /// An answer to INFORM: no address, no lease.
    Inform,
    No(&'static str),
    Silence,
}

impl Server {
    /// The server that `link` asks for, with what was kept of an earlier one.
    pub(in crate::services) fn new(link: &Link, kept: Vec<Lease>) -> Option<Self> {
        let subnet = link.dhcp4_subnet()?;
        let leases = Leases::new(pool(link, subnet), kept);
        Some(Self { subnet, leases, probing: Probing::default() })
    }

    /// Takes on another configuration of its bridge.
    pub(in crate::services) fn set_link(&mut self, link: &Link, subnet: Ipv4Net) {
        self.subnet = subnet;
        self.leases.set_pool(pool(link, subnet));
    }

    /// Answers a datagram to port 67, which came in `punt`, or asks about the address that is to be the answer.
    pub(in crate::services) fn receive(
        &mut self,
        now: Duration,
        link: &Link,
        punt: &Punt,
        datagram: &Datagram<'_>,
    ) -> Option<Vec<u8>> {
        let message = Message::parse(datagram.payload, DhcpOpCode::Request)?;
        // A relay's stations are in another subnet, of which there is no pool.
        let relayed = !message.giaddr().is_unspecified();
        if relayed && !self.subnet.contains(&message.giaddr()) {
            return None;
        }
        if message.kind != Kind::Discover {
            self.probing.forget(&message.client());
        } else if self.probing.replace(&message.client(), punt) {
            return None;
        }
        match self.decide(now.as_secs(), link, &punt.port, &message) {
            Verdict::Probe(address) => {
                self.probing.insert(now, message.client(), punt.clone(), address);
                Some(probe(link.mac, address))
            }
            verdict => reply(link, self.subnet, &message, datagram.mac, &verdict),
        }
    }

    /// Whether it waits for what the link says, so that [`Server::tick`] should be called soon.
    pub(in crate::services) fn is_probing(&self) -> bool {
        !self.probing.is_empty()
    }

    /// Makes the offers that no station has objected to; each frame goes where the message came from.
    pub(in crate::services) fn tick(&mut self, now: Duration, link: &Link) -> Vec<(Punt, Vec<u8>)> {
        self.leases.forget_unseen(now.as_secs());
        let due = self.probing.take_due(now);
        self.receive_again(now, link, due)
    }

    /// Takes note of a station that says by ARP which address it has. A client that was to be offered that address gets another.
    pub(in crate::services) fn see(&mut self, now: Duration, link: &Link, port: &PortName, arp: Arp) -> Vec<(Punt, Vec<u8>)> {
        let (second, address) = (now.as_secs(), IpAddr::V4(arp.sender));
        self.leases.see(second, address, arp.mac, port);
        if self.leases.row(address).is_none_or(|row| row.mac == arp.mac) {
            return Vec::new();
        }
        let refused = self.probing.take_refused(arp.sender);
        if !refused.is_empty() {
            self.leases.rest(second, address);
        }
        self.receive_again(now, link, refused)
    }

    fn receive_again(&mut self, now: Duration, link: &Link, punts: Vec<Punt>) -> Vec<(Punt, Vec<u8>)> {
        let mut said = Vec::new();
        for punt in punts {
            let Some(Received::Datagram(datagram)) = wire::parse(&punt.frame) else { continue };
            let frame = self.receive(now, link, &punt, &datagram);
            said.extend(frame.map(|frame| (punt, frame)));
        }
        said
    }

    fn decide(&mut self, now: u64, link: &Link, port: &PortName, message: &Message<'_>) -> Verdict {
        let client = message.client();
        let asker = Asker {
            now,
            who: Who { client: &client, mac: message.chaddr(), port },
            fixed: fixed(link, self.subnet, port, message.chaddr()),
        };
        match message.kind {
            Kind::Discover => self.discover(&asker, message),
            Kind::Request => self.request(&asker, message),
            Kind::Decline => self.decline(&asker, message),
            Kind::Release => {
                self.leases.release(now, asker.who, message.ciaddr().into());
                Verdict::Silence
            }
            Kind::Inform if !message.ciaddr().is_unspecified() => Verdict::Inform,
            _ => Verdict::Silence,
        }
    }

    fn discover(&mut self, asker: &Asker<'_>, message: &Message<'_>) -> Verdict {
        let seconds = lease_time(message);
        if let Some(address) = asker.fixed {
            return Verdict::Offer(address, seconds);
        }
        let wish = message.address(option::REQUESTED).map(IpAddr::V4);
        let known = self.leases.live(asker.now, asker.who);
        match self.leases.offer(asker.now, asker.who, wish) {
            Ok(IpAddr::V4(address)) if known == Some(address.into()) => Verdict::Offer(address, seconds),
            Ok(IpAddr::V4(address)) => Verdict::Probe(address),
            Ok(IpAddr::V6(_)) | Err(_) => Verdict::Silence,
        }
    }

    /// RFC 2131, section 4.3.2: SELECTING names the server, INIT-REBOOT the address in option 50, RENEWING and REBINDING in
    /// `ciaddr`.
    fn request(&mut self, asker: &Asker<'_>, message: &Message<'_>) -> Verdict {
        if message.address(option::SERVER).is_some_and(|server| server != self.subnet.addr()) {
            self.leases.forget_offer(asker.who);
            return Verdict::Silence;
        }
        let ciaddr = Some(message.ciaddr()).filter(|address| !address.is_unspecified());
        let Some(address) = ciaddr.or_else(|| message.address(option::REQUESTED)) else { return Verdict::Silence };
        let seconds = lease_time(message);
        let granted = match asker.fixed {
            Some(fixed) => fixed == address,
            None => self.leases.bind(asker.now, asker.who, address.into(), asker.now + seconds),
        };
        match granted {
            true => Verdict::Ack(address, seconds),
            // That host answers.
            false if self.leases.is_of_another_host(address.into()) => Verdict::Silence,
            false => Verdict::No("this address is not for you here"),
        }
    }

    fn decline(&mut self, asker: &Asker<'_>, message: &Message<'_>) -> Verdict {
        if let Some(address) = message.address(option::REQUESTED) {
            self.leases.decline(asker.now, asker.who, address.into());
        }
        Verdict::Silence
    }
}

/// Who asks, and the address that the configuration has for it.
struct Asker<'a> {
    now: u64,
    who: Who<'a>,
    fixed: Option<Ipv4Addr>,
}

/// The address of the subnet that the configuration gives to the station with this MAC at this port. A station elsewhere that
/// has taken the MAC does not get it.
fn fixed(link: &Link, subnet: Ipv4Net, port: &PortName, mac: Mac) -> Option<Ipv4Addr> {
    let member = link.members.iter().find(|member| member.port == *port && member.mac == Some(mac))?;
    member.addresses.iter().find_map(|net| match net.addr() {
        IpAddr::V4(address) => Some(address).filter(|address| subnet.contains(address)),
        IpAddr::V6(_) => None,
    })
}

fn pool(link: &Link, subnet: Ipv4Net) -> AddressPool {
    AddressPool::new(IpNet::V4(subnet), link.taken()).within(link.blocks())
}

fn lease_time(message: &Message<'_>) -> u64 {
    message.number(option::LEASE).map_or(LEASE, |wish| u64::from(wish).clamp(SHORTEST, LEASE))
}

fn reply(link: &Link, subnet: Ipv4Net, message: &Message<'_>, via: Mac, verdict: &Verdict) -> Option<Vec<u8>> {
    let (kind, address, seconds) = match *verdict {
        Verdict::Offer(address, seconds) => (Kind::Offer, Some(address), Some(seconds)),
        Verdict::Ack(address, seconds) => (Kind::Ack, Some(address), Some(seconds)),
        Verdict::Inform => (Kind::Ack, None, None),
        Verdict::No(_) => (Kind::Nak, None, None),
        Verdict::Silence | Verdict::Probe(_) => return None,
    };
    let mut answer = Outgoing::new(DhcpOpCode::Reply, message.xid(), message.chaddr());
    answer.broadcast = message.wants_broadcast() || kind == Kind::Nak;
    answer.giaddr = message.giaddr();
    answer.yiaddr = address.unwrap_or(Ipv4Addr::UNSPECIFIED);
    if kind == Kind::Ack {
        answer.ciaddr = message.ciaddr();
    }
    let mut put = |code, data: &[u8]| answer.options.push((code, data.to_vec()));
    put(option::KIND, &[kind.into()]);
    put(option::SERVER, &subnet.addr().octets());
    if let Verdict::No(why) = verdict {
        put(option::MESSAGE, why.as_bytes());
    } else {
        for (code, seconds) in seconds.into_iter().flat_map(times) {
            put(code, &seconds.to_be_bytes());
        }
        answer.options.extend(parameters(link, subnet, message.option(option::PARAMETERS)));
    }
    // As it came, and last (RFC 3046, section 2.2).
    answer.options.extend(message.option(option::RELAY).map(|data| (option::RELAY, data.to_vec())));
    let (hop, to) = way_back(link, message, &answer, via);
    wire::udp(hop, (subnet.addr(), SERVER_PORT).into(), to, &answer.encode()?)
}

/// T1 and T2 are at a half and at seven eighths of the lease (RFC 2131, section 4.4.5).
fn times(lease: u64) -> [(u8, u32); 3] {
    let seconds = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
    [(option::LEASE, seconds(lease)), (option::RENEWAL, seconds(lease / 2)), (option::REBINDING, seconds(lease / 8 * 7))]
}

/// What a station needs to know about the network, as far as it asks; all of it if it does not say. The mask is first, for it
/// must precede the router (RFC 2132, section 3.3), and always there.
fn parameters(link: &Link, subnet: Ipv4Net, wanted: Option<&[u8]>) -> impl Iterator<Item = (u8, Vec<u8>)> {
    let gateway = subnet.addr().octets().to_vec();
    let all = [
        (option::SUBNET_MASK, subnet.netmask().octets().to_vec()),
        (option::ROUTER, gateway.clone()),
        (option::DNS, gateway),
        (option::DOMAIN, link.domain().into_bytes()),
        (option::MTU, link.mtu.to_be_bytes().to_vec()),
        (option::BROADCAST, subnet.broadcast().octets().to_vec()),
    ];
    let wanted = wanted.map(<[u8]>::to_vec);
    all.into_iter()
        .filter(move |(code, _)| *code == option::SUBNET_MASK || wanted.as_ref().is_none_or(|list| list.contains(code)))
}

/// RFC 2131, section 4.1: to the relay, to the address that the client has, to all stations, or to the address that it gets, which
/// it cannot yet be asked for by ARP.
fn way_back(link: &Link, message: &Message<'_>, answer: &Outgoing, via: Mac) -> (Hop, SocketAddr) {
    let hop = |to| Hop { from: link.mac, to };
    let refused = answer.yiaddr.is_unspecified() && answer.ciaddr.is_unspecified();
    if !answer.giaddr.is_unspecified() {
        (hop(via), (answer.giaddr, SERVER_PORT).into())
    } else if !message.ciaddr().is_unspecified() && !refused {
        (hop(message.chaddr()), (message.ciaddr(), CLIENT_PORT).into())
    } else if answer.broadcast || refused {
        (hop(Mac::BROADCAST), (Ipv4Addr::BROADCAST, CLIENT_PORT).into())
    } else {
        (hop(message.chaddr()), (answer.yiaddr, CLIENT_PORT).into())
    }
}
