//! Published ports: sockets of the host that listen for clients of containers.
//!
//! A forward without an address listens on all, with a socket for each version. A change opens what is new before it closes what
//! is gone, unless that is in its way, so that it happens whole or not at all; what did not change is not touched.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;

use nat::Protocol;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use super::HostError;
use super::doors::{Doorkeeper, Wish};
use sys::datagram;

/// Most sockets that listen: every port of one protocol on all addresses of both versions.
pub(super) const MOST_LISTENERS: usize = 1 << 17;
/// Clients that wait to be accepted; the kernel cuts it at `net.core.somaxconn`.
const BACKLOG: i32 = 1024;

/// A published port, or a range of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forward {
    /// Which ports go where.
    pub rule: nat::Forward,
    /// The address of the host; `None`: all, of both versions.
    pub listen: Option<IpAddr>,
}

/// A socket that listens.
pub(super) struct Listener {
    pub(super) place: ListenPlace,
    pub(super) socket: Arc<OwnedFd>,
    /// The container's end.
    pub(super) to: SocketAddr,
}

/// What a socket listens on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ListenPlace {
    pub(super) protocol: Protocol,
    pub(super) address: SocketAddr,
}

/// All that listen, and those that do so for a change that is not made yet.
pub(super) struct Listeners {
    /// By number, which is the token's; a number is used again only for another socket.
    open: Vec<Option<Listener>>,
    /// The numbers of what is open.
    numbers: BTreeMap<ListenPlace, usize>,
    /// Numbers that are not used.
    vacant: Vec<usize>,
    /// Most sockets that may be open.
    most: usize,
}

impl Listeners {
    /// None yet, of at most half as many as descriptors may be open: the others are for connections.
    pub(super) fn new(descriptors: usize) -> Self {
        let most = MOST_LISTENERS.min(descriptors / 2);
        Self { open: Vec::new(), numbers: BTreeMap::new(), vacant: Vec::new(), most }
    }

    /// Listens as `forwards` say. `watch` is told the new sockets and their numbers.
    pub(super) fn set(
        &mut self,
        forwards: &[Forward],
        doors: &Doorkeeper,
        watch: impl Fn(&Listener, usize) -> bool,
    ) -> Result<(), HostError> {
        let wanted = wanted(forwards, self.most)?;
        let (mut new, mut closed) = (Vec::new(), Vec::new());
        if let Err(error) = self.open_new(&wanted, doors, &mut new, &mut closed) {
            drop(new);
            for (place, to) in closed {
                // A moment ago the port was this uplink's. If another program was quicker, that has it now.
                if let Ok(socket) = open_or_ask(place, doors) {
                    self.insert(Listener { place, socket: Arc::new(socket), to }, &watch)?;
                }
            }
            return Err(error);
        }
        let mut gone = Vec::new();
        for listener in self.open.iter_mut().flatten() {
            match target(&wanted, listener.place) {
                Some(to) => listener.to = to,
                None => gone.push(listener.place),
            }
        }
        for place in gone {
            self.close(place);
        }
        for listener in new {
            self.insert(listener, &watch)?;
        }
        Ok(())
    }

    /// Opens what is wanted and not open. A socket that is to go may be in the way, as one on all addresses is in the way of one on a single
    /// address: it is closed, and noted.
    fn open_new(
        &mut self,
        wanted: &[Wanted],
        doors: &Doorkeeper,
        new: &mut Vec<Listener>,
        closed: &mut Vec<(ListenPlace, SocketAddr)>,
    ) -> Result<(), HostError> {
        for (place, to, needed) in wanted {
            if self.numbers.contains_key(place) {
                continue;
            }
            let opened = match open_or_ask(*place, doors) {
                Err(Errno::ADDRINUSE) if self.make_way(*place, wanted, closed) => open_or_ask(*place, doors),
                opened => opened,
            };
            match opened {
                Ok(socket) => new.push(Listener { place: *place, socket: Arc::new(socket), to: *to }),
                Err(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL) if !needed => {}
                Err(error) => return Err(refusal(*place, error)),
            }
        }
        Ok(())
    }

    /// Closes sockets of this port that are not wanted; says whether there were any.
    fn make_way(&mut self, place: ListenPlace, wanted: &[Wanted], closed: &mut Vec<(ListenPlace, SocketAddr)>) -> bool {
        let before = closed.len();
        let same_port = |other: &ListenPlace| other.protocol == place.protocol && other.address.port() == place.address.port();
        let in_the_way: Vec<ListenPlace> = self.numbers.keys().copied().filter(same_port).collect();
        for other in in_the_way.into_iter().filter(|other| target(wanted, *other).is_none()) {
            closed.extend(self.close(other).map(|listener| (listener.place, listener.to)));
        }
        closed.len() > before
    }

    fn insert(&mut self, listener: Listener, watch: &impl Fn(&Listener, usize) -> bool) -> Result<(), HostError> {
        let number = self.vacant.pop().unwrap_or_else(|| {
            self.open.push(None);
            self.open.len() - 1
        });
        if !watch(&listener, number) {
            self.vacant.push(number);
            return Err(refusal(listener.place, Errno::NOMEM));
        }
        self.numbers.insert(listener.place, number);
        if let Some(slot) = self.open.get_mut(number) {
            *slot = Some(listener);
        }
        Ok(())
    }

    fn close(&mut self, place: ListenPlace) -> Option<Listener> {
        let number = self.numbers.remove(&place)?;
        self.vacant.push(number);
        self.open.get_mut(number)?.take()
    }

    /// All that are open, with their numbers.
    pub(super) fn all(&self) -> impl Iterator<Item = (usize, &Listener)> {
        self.open.iter().enumerate().filter_map(|(number, listener)| Some((number, listener.as_ref()?)))
    }

    pub(super) fn get(&self, number: usize) -> Option<&Listener> {
        self.open.get(number)?.as_ref()
    }

    /// Which container's end each socket listens for, by the address of the socket in memory.
    pub(super) fn targets(&self) -> BTreeMap<*const OwnedFd, SocketAddr> {
        self.open.iter().flatten().map(|listener| (Arc::as_ptr(&listener.socket), listener.to)).collect()
    }
}

/// Where to listen, for whom, and whether it must be possible.
type Wanted = (ListenPlace, SocketAddr, bool);

/// What is to listen, on `most` sockets at most; sorted.
fn wanted(forwards: &[Forward], most: usize) -> Result<Vec<Wanted>, HostError> {
    let count = |forward: &Forward| forward.rule.ports.count() as usize * if forward.listen.is_some() { 1 } else { 2 };
    let total = forwards.iter().map(count).sum();
    if total > most {
        return Err(HostError::TooMany(total, most));
    }
    let mut wanted = Vec::with_capacity(total);
    for Forward { rule, listen } in forwards {
        let both = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
        let addresses = listen.as_ref().map_or(&both[..], std::slice::from_ref);
        for port in rule.ports.first()..=rule.ports.last() {
            let Some(to) = rule.target(port) else { continue };
            for address in addresses {
                // A host without IPv6 listens on all addresses that it has.
                let needed = *address != IpAddr::from(Ipv6Addr::UNSPECIFIED);
                wanted.push((ListenPlace { protocol: rule.protocol, address: SocketAddr::new(*address, port) }, to, needed));
            }
        }
    }
    wanted.sort_by_key(|(place, ..)| *place);
    match wanted.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        Some(pair) => Err(HostError::Twice { protocol: pair[0].0.protocol, address: pair[0].0.address }),
        None => Ok(wanted),
    }
}

fn target(wanted: &[Wanted], place: ListenPlace) -> Option<SocketAddr> {
    let at = wanted.binary_search_by_key(&place, |(place, ..)| *place).ok()?;
    wanted.get(at).map(|(_, to, _)| *to)
}

/// As [`open`], also where that takes a right, or where the last vswitchd has left it.
fn open_or_ask(place: ListenPlace, doors: &Doorkeeper) -> Result<OwnedFd, Errno> {
    if let Some(socket) = doors.inherited(place) {
        return Ok(socket);
    }
    match open(place) {
        Err(Errno::ACCESS | Errno::PERM) => doors.open(Wish::Listen(place)),
        opened => opened,
    }
}

/// The kind of socket that listens for a protocol.
pub(super) fn kind(protocol: Protocol) -> SocketType {
    if protocol == Protocol::Tcp { SocketType::STREAM } else { SocketType::DGRAM }
}

pub(super) fn open(place: ListenPlace) -> Result<OwnedFd, Errno> {
    let v6 = place.address.is_ipv6();
    let family = if v6 { AddressFamily::INET6 } else { AddressFamily::INET };
    let fd = rustix::net::socket_with(family, kind(place.protocol), SocketFlags::NONBLOCK | SocketFlags::CLOEXEC, None)?;
    if v6 {
        sockopt::set_ipv6_v6only(&fd, true)?;
    }
    if place.protocol == Protocol::Tcp {
        // Connections of an earlier vswitchd in TIME-WAIT are no reason to refuse. For UDP it would let two listen.
        sockopt::set_socket_reuseaddr(&fd, true)?;
        rustix::net::bind(&fd, &place.address)?;
        rustix::net::listen(&fd, BACKLOG)?;
    } else {
        datagram::ask_for_addresses(fd.as_fd(), v6)?;
        rustix::net::bind(&fd, &place.address)?;
    }
    Ok(fd)
}

fn refusal(ListenPlace { protocol, address }: ListenPlace, error: Errno) -> HostError {
    match error {
        Errno::ADDRINUSE => HostError::InUse { protocol, address },
        Errno::ACCESS | Errno::PERM => HostError::Privileged { protocol, address },
        Errno::ADDRNOTAVAIL => HostError::NoAddress { protocol, address },
        error => HostError::Listen { protocol, address, source: error.into() },
    }
}

impl Listener {
    pub(super) fn descriptor(&self) -> i32 {
        self.socket.as_raw_fd()
    }
}
