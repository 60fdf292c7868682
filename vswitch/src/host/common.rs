//! What the sessions of all protocols share.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use packet::{Checksum, IpPacket, Offload};
use rustix::io::Errno;
use rustix::net::sockopt::{self, Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery};

use super::apart::Apart;
use super::doors::Doorkeeper;
use super::engine::PATIENCE;
use super::outbox::{Outbox, Unreachable, pseudo};
use super::report::Counters;
use super::shares::Share;
use plane::table::Owner;
use sys::datagram::{self, Origin, QueuedError};

/// The way to the switch, the kernel's ear, and the counters.
pub(super) struct Common {
    pub(super) outbox: Outbox,
    pub(super) registry: Registry,
    pub(super) apart: Apart,
    pub(super) counters: Counters,
    pub(super) doors: Doorkeeper,
}

impl Common {
    /// Asks to be told when a socket becomes ready; says whether the kernel agreed.
    pub(super) fn watch(&self, descriptor: RawFd, token: Token, interest: Interest) -> bool {
        self.registry.register(&mut SourceFd(&descriptor), token, interest).is_ok()
    }

    /// Asks no more.
    pub(super) fn unwatch(&self, descriptor: RawFd) {
        // It fails for what is not watched.
        let _ = self.registry.deregister(&mut SourceFd(&descriptor));
    }

    /// Whether the address is a gateway's. What a container sends there is for a client of a forward, or has no receiver: the gateway's own
    /// services are the router's.
    pub(super) fn is_gateway(&self, address: IpAddr) -> bool {
        self.outbox.gateways.iter().any(|gateway| gateway.address.addr() == address)
    }

    /// Whether a packet is for an address that no container reaches by the host; if so, it is counted and its sender told.
    pub(super) fn refuses(&mut self, arrival: &Arrival<'_>) -> bool {
        let address = arrival.ip.destination;
        let refused = is_refused(address) || self.apart.has(address);
        if refused {
            self.counters.refused_addresses += 1;
            self.unreachable(Unreachable::Prohibited, arrival);
        }
        refused
    }

    /// Tells a container that no program listens there.
    pub(super) fn nobody_listens(&mut self, arrival: &Arrival<'_>) {
        // Port unreachable (RFC 792; RFC 4443, section 3.1).
        let (kind, code) = if arrival.ip.destination.is_ipv4() { (3, 3) } else { (1, 4) };
        self.unreachable(Unreachable::Said(kind, code, 0), arrival);
    }

    /// Who tells `container` that `destination` cannot be reached: its gateway, if that has an address of its version.
    pub(super) fn voice(&self, container: IpAddr, destination: IpAddr) -> IpAddr {
        self.gateway_of(container).unwrap_or(destination)
    }

    /// The address of a container's gateway: the one in its subnet, or any of its version.
    fn gateway_of(&self, container: IpAddr) -> Option<IpAddr> {
        let addresses = || self.outbox.gateways.iter().map(|gateway| gateway.address);
        let of_its_version = || addresses().find(|net| net.addr().is_ipv4() == container.is_ipv4());
        addresses().find(|net| net.contains(&container)).or_else(of_its_version).map(|net| net.addr())
    }

    /// Tells a container what became of its packet. A packet that was for many gets no answer (RFC 1122, section 3.2.2).
    pub(super) fn unreachable(&mut self, what: Unreachable, arrival: &Arrival<'_>) {
        let for_many = arrival.ip.destination.is_multicast() || arrival.ip.destination == Ipv4Addr::BROADCAST;
        if for_many || arrival.ip.source.is_unspecified() {
            return;
        }
        let voice = self.voice(arrival.ip.source, arrival.ip.destination);
        self.outbox.unreachable(what, voice, arrival.ip.source, arrival.packet());
    }

    /// How `client` is shown to `container`: by its own address, unless that means nothing there. A client on this host, or of the
    /// other version, speaks from the gateway's address.
    pub(super) fn seen(&self, client: SocketAddr, accepted_at: Option<IpAddr>, container: IpAddr) -> Option<SocketAddr> {
        let is_here = client.ip().is_loopback() || accepted_at == Some(client.ip()) || is_link_local(client.ip());
        let address =
            if is_here || client.is_ipv4() != container.is_ipv4() { self.gateway_of(container)? } else { client.ip() };
        Some(SocketAddr::new(address, client.port()))
    }
}

/// A packet of a container.
pub(super) struct Arrival<'a> {
    pub(super) frame: &'a [u8],
    pub(super) ip: IpPacket,
    pub(super) offload: Offload,
    /// Of the port that it came in at.
    pub(super) share: Share,
    /// Whether it came in fragments.
    pub(super) was_fragmented: bool,
}

/// What the container of a session is behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Behind {
    /// The port that it began the session at.
    Port(Share),
    /// A forward, which knows no ports: each container by itself.
    Forward(IpAddr),
}

/// The owner of a session that came in by a forward.
pub(super) const fn forwarded(container: IpAddr) -> Owner<Behind> {
    Owner { port: Behind::Forward(container), container }
}

impl Arrival<'_> {
    /// The owner of the session that it begins.
    pub(super) const fn owner(&self) -> Owner<Behind> {
        Owner { port: Behind::Port(self.share), container: self.ip.source }
    }

    /// It from its IP header on.
    pub(super) fn packet(&self) -> &[u8] {
        self.frame.get(self.ip.network..self.ip.end).unwrap_or_default()
    }

    /// It from its transport header on.
    pub(super) fn transport(&self) -> &[u8] {
        self.frame.get(self.ip.transport..self.ip.end).unwrap_or_default()
    }

    /// Whether its checksum is right, or was found so, or is still to be made because the packet never left this machine.
    /// `protocol` is that of the pseudo header, 0 if there is none.
    pub(super) fn is_intact(&self, protocol: u8) -> bool {
        let bytes = self.transport();
        let Ok(length) = u16::try_from(bytes.len()) else { return false };
        let pseudo = || match protocol {
            0 => packet::checksum::Sum::new(),
            _ => pseudo(self.ip.source, self.ip.destination, protocol, length),
        };
        self.offload.checksum != Checksum::Unverified || pseudo().plus(bytes).folded() == 0xffff
    }

    /// Whether it goes on in fragments where it must.
    pub(super) fn may_fragment(&self) -> bool {
        self.was_fragmented || !self.ip.dont_fragment
    }
}

/// Addresses that no container reaches by any host: an operating system takes some of them for itself, even from a container. An IPv4-mapped
/// IPv6 address would be one of those (RFC 4291, section 2.5.5.2).
pub(super) fn is_refused(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            address.is_loopback()
                || address.octets()[0] == 0
                || address.is_multicast()
                || address.is_broadcast()
                || address.is_link_local()
        }
        IpAddr::V6(v6) => {
            v6.is_loopback() || v6.is_unspecified() || v6.is_multicast() || v6.to_ipv4().is_some() || is_link_local(address)
        }
    }
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

/// How a flow of datagrams leaves the host: as the container wished for its last one. Changed only when it changes.
#[derive(Default)]
pub(super) struct Manner {
    may_fragment: Option<bool>,
    hops: Option<u8>,
}

impl Manner {
    /// Makes the socket send as the container sent `arrival`. A kernel that does not do so sends in its own way.
    pub(super) fn follow(&mut self, fd: &OwnedFd, arrival: &Arrival<'_>) {
        let (may, hops, v6) = (arrival.may_fragment(), arrival.ip.hop_limit.max(1), arrival.ip.source.is_ipv6());
        if self.may_fragment.replace(may) != Some(may) {
            let _ = match (v6, may) {
                (true, true) => sockopt::set_ipv6_mtu_discover(fd, Ipv6PathMtuDiscovery::DONT),
                (true, false) => sockopt::set_ipv6_mtu_discover(fd, Ipv6PathMtuDiscovery::DO),
                (false, true) => sockopt::set_ip_mtu_discover(fd, Ipv4PathMtuDiscovery::DONT),
                (false, false) => sockopt::set_ip_mtu_discover(fd, Ipv4PathMtuDiscovery::DO),
            };
        }
        if self.hops.replace(hops) != Some(hops) {
            let _ = if v6 { sockopt::set_ipv6_unicast_hops(fd, Some(hops)) } else { sockopt::set_ip_ttl(fd, hops.into()) };
        }
    }
}

/// What waited in a socket's error queue.
#[derive(Clone, Copy, Default)]
pub(super) struct HeardError {
    /// Whether anything did.
    pub(super) any: bool,
    /// The MTU that the last datagram was too long for. The kernel does not say which datagram it was, or to which port.
    pub(super) mtu: Option<u32>,
}

/// An ICMP error that came back for a datagram, as it is passed on: its payload, where it went, what became of it, who says so.
pub(super) type Returned<'a> = (&'a mut [u8], SocketAddr, Unreachable, Option<IpAddr>);

/// Reads a socket's error queue.
pub(super) fn hear(fd: BorrowedFd<'_>, buffer: &mut [u8], mut pass_on: impl FnMut(Returned<'_>)) -> HeardError {
    let mut heard = HeardError::default();
    for _ in 0..PATIENCE {
        let Ok(QueuedError { length, to, origin, info, errno }) = datagram::receive_error(fd, buffer) else { break };
        heard.any = true;
        match origin {
            Origin::Icmp(kind, code, offender) => {
                let payload = buffer.get_mut(..length).unwrap_or_default();
                let offender = offender.filter(|address| !is_refused(*address));
                // `info` is the MTU where the message had one.
                pass_on((payload, to, Unreachable::Said(kind, code, info), offender));
            }
            Origin::Local if errno == Errno::MSGSIZE => heard.mtu = Some(info),
            Origin::Local | Origin::Other => {}
        }
    }
    heard
}

/// What a container is told about a datagram that the kernel refused to send.
pub(super) fn unsendable(error: Errno, heard: HeardError) -> Option<Unreachable> {
    match error {
        Errno::MSGSIZE => heard.mtu.map(Unreachable::TooBig),
        Errno::NETUNREACH | Errno::NETDOWN | Errno::ADDRNOTAVAIL => Some(Unreachable::Network),
        Errno::HOSTUNREACH | Errno::HOSTDOWN => Some(Unreachable::Host),
        Errno::ACCESS | Errno::PERM => Some(Unreachable::Prohibited),
        _ => None,
    }
}
