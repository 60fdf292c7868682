//! Published ports: sockets of the host that listen for clients of containers.
//!
//! A forward without an address listens on all, with a socket for each version. A change opens what is new before it closes what
//! is gone, unless that is in its way, so that it happens whole or not at all; what did not change is not touched.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::{Arc, Weak};

use nat::Protocol;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use super::HostError;
use crate::sys::datagram;

/// Most sockets that listen.
pub(super) const MOST_LISTENERS: usize = 4096;
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
    pub(super) place: Place,
    pub(super) socket: Arc<OwnedFd>,
    /// The container's end.
    pub(super) to: SocketAddr,
}

/// What a socket listens on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) protocol: Protocol,
    pub(super) address: SocketAddr,
}

/// All that listen, and those that do so for a change that is not made yet.
#[derive(Default)]
pub(super) struct Listeners {
    /// By number, which is the token's; a number is used again only for another socket.
    pub(super) open: Vec<Option<Listener>>,
}

impl Listeners {
    /// Listens as `forwards` say. `watch` is told the new sockets and their numbers.
    pub(super) fn set(&mut self, forwards: &[Forward], watch: impl Fn(&Listener, usize) -> bool) -> Result<(), HostError> {
        let wanted = wanted(forwards)?;
        let (mut new, mut closed) = (Vec::new(), Vec::new());
        if let Err(error) = self.open_new(&wanted, &mut new, &mut closed) {
            drop(new);
            for (place, to) in closed {
                // A moment ago it was this uplink's. Whoever was quicker has it now.
                if let Ok(socket) = open(place) {
                    self.insert(Listener { place, socket: Arc::new(socket), to }, &watch)?;
                }
            }
            return Err(error);
        }
        for slot in &mut self.open {
            let target = slot.as_ref().and_then(|listener| target(&wanted, listener.place));
            match (slot.as_mut(), target) {
                (Some(listener), Some(to)) => listener.to = to,
                _ => *slot = None,
            }
        }
        for listener in new {
            self.insert(listener, &watch)?;
        }
        Ok(())
    }

    /// Opens what is wanted and not open. Where a socket that is to go is in the way, as that of all addresses is in the way of that
    /// of one, it is closed, and noted.
    fn open_new(
        &mut self,
        wanted: &[Wanted],
        new: &mut Vec<Listener>,
        closed: &mut Vec<(Place, SocketAddr)>,
    ) -> Result<(), HostError> {
        for (place, to, needed) in wanted {
            if self.find(*place).is_some() {
                continue;
            }
            let opened = match open(*place) {
                Err(Errno::ADDRINUSE) if self.make_way(*place, wanted, closed) => open(*place),
                opened => opened,
            };
            match opened {
                Ok(socket) => new.push(Listener { place: *place, socket: Arc::new(socket), to: *to }),
                // A host without IPv6 listens on all addresses that it has.
                Err(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL) if !needed => {}
                Err(error) => return Err(refusal(*place, error)),
            }
        }
        Ok(())
    }

    /// Closes sockets of this port that are not wanted; says whether there were any.
    fn make_way(&mut self, place: Place, wanted: &[Wanted], closed: &mut Vec<(Place, SocketAddr)>) -> bool {
        let before = closed.len();
        let same_port = |other: Place| other.protocol == place.protocol && other.address.port() == place.address.port();
        for slot in &mut self.open {
            if let Some(listener) =
                slot.take_if(|listener| same_port(listener.place) && target(wanted, listener.place).is_none())
            {
                closed.push((listener.place, listener.to));
            }
        }
        closed.len() > before
    }

    fn insert(&mut self, listener: Listener, watch: &impl Fn(&Listener, usize) -> bool) -> Result<(), HostError> {
        let number = self.open.iter().position(Option::is_none).unwrap_or(self.open.len());
        if number == self.open.len() {
            self.open.push(None);
        }
        if !watch(&listener, number) {
            return Err(refusal(listener.place, Errno::NOMEM));
        }
        if let Some(slot) = self.open.get_mut(number) {
            *slot = Some(listener);
        }
        Ok(())
    }

    pub(super) fn get(&self, number: usize) -> Option<&Listener> {
        self.open.get(number)?.as_ref()
    }

    fn find(&self, place: Place) -> Option<&Listener> {
        self.open.iter().flatten().find(|listener| listener.place == place)
    }

    /// Whether a socket listens for this container's end.
    pub(super) fn has(&self, socket: &Weak<OwnedFd>, to: SocketAddr) -> bool {
        self.open.iter().flatten().any(|listener| Arc::as_ptr(&listener.socket) == socket.as_ptr() && listener.to == to)
    }
}

/// Where to listen, for whom, and whether it must be possible.
type Wanted = (Place, SocketAddr, bool);

/// What is to listen; sorted.
fn wanted(forwards: &[Forward]) -> Result<Vec<Wanted>, HostError> {
    let count = |forward: &Forward| forward.rule.ports.count() as usize * if forward.listen.is_some() { 1 } else { 2 };
    let total = forwards.iter().map(count).sum();
    if total > MOST_LISTENERS {
        return Err(HostError::TooMany(total));
    }
    let mut wanted = Vec::with_capacity(total);
    for Forward { rule, listen } in forwards {
        let both = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
        let addresses = listen.as_ref().map_or(&both[..], std::slice::from_ref);
        for port in (1..=u16::MAX).filter(|port| rule.ports.contains(*port)) {
            let Some(to) = rule.target(port) else { continue };
            for (index, address) in addresses.iter().enumerate() {
                wanted.push((Place { protocol: rule.protocol, address: SocketAddr::new(*address, port) }, to, index == 0));
            }
        }
    }
    wanted.sort_by_key(|(place, ..)| *place);
    match wanted.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        Some(pair) => Err(HostError::Twice { protocol: pair[0].0.protocol, address: pair[0].0.address }),
        None => Ok(wanted),
    }
}

fn target(wanted: &[Wanted], place: Place) -> Option<SocketAddr> {
    let at = wanted.binary_search_by_key(&place, |(place, ..)| *place).ok()?;
    wanted.get(at).map(|(_, to, _)| *to)
}

fn open(place: Place) -> Result<OwnedFd, Errno> {
    let v6 = place.address.is_ipv6();
    let family = if v6 { AddressFamily::INET6 } else { AddressFamily::INET };
    let kind = if place.protocol == Protocol::Tcp { SocketType::STREAM } else { SocketType::DGRAM };
    let fd = rustix::net::socket_with(family, kind, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC, None)?;
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

fn refusal(Place { protocol, address }: Place, error: Errno) -> HostError {
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
