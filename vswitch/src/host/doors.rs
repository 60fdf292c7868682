//! What takes rights that the uplink's own thread has given up: a thread beside it, that has the broker open the sockets of forwards
//! below `net.ipv4.ip_unprivileged_port_start`, and raw ones for pings where ping sockets are not for its group (`net.ipv4.ping_group_range`).
//!
//! It is asked only where the kernel refused the uplink's thread, takes in nothing that a network sends, and ends with the uplink.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::{Sender, bounded};
use nat::Protocol;
use rustix::io::Errno;

use super::forward::ListenPlace;
use super::{echo, forward};
use crate::broker::{Descriptor, SystemError, requests};
use crate::inherited::Inherited;

/// A socket that may take rights.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wish {
    /// One that listens.
    Listen(ListenPlace),
    /// A raw one that pings this address.
    Ping(IpAddr),
}

type Opened = Result<OwnedFd, Errno>;

requests! {
    /// Opens a socket that listens, of TCP or UDP; else what the kernel said.
    pub(crate) fn open_listener(address: &SocketAddr = SocketAddr, is_tcp: &bool = bool) -> Result<Descriptor, SystemError>, by listener;
    /// Opens a raw socket that pings this address; else what the kernel said.
    fn open_ping(target: &IpAddr = IpAddr) -> Result<Descriptor, SystemError>, by ping;
}

fn listener(address: &SocketAddr, is_tcp: &bool) -> Result<Descriptor, SystemError> {
    let protocol = if *is_tcp { Protocol::Tcp } else { Protocol::Udp };
    forward::open(ListenPlace { protocol, address: *address }).map(Descriptor).map_err(|errno| SystemError(errno.into()))
}

fn ping(target: &IpAddr) -> Result<Descriptor, SystemError> {
    echo::open_raw(*target).map(Descriptor).map_err(|errno| SystemError(errno.into()))
}

/// The way to the thread, which ends with it.
pub(super) struct Doorkeeper {
    inherited: Arc<Inherited>,
    wishes: Option<Sender<(Wish, Sender<Opened>)>>,
    thread: Option<JoinHandle<()>>,
}

impl Doorkeeper {
    /// Starts the thread, in the network namespace of this one.
    pub(super) fn start(name: &str, inherited: Arc<Inherited>) -> std::io::Result<Self> {
        let (wishes, wished) = bounded::<(Wish, Sender<Opened>)>(1);
        let open = move || {
            for (wish, reply) in wished {
                let opened = match wish {
                    Wish::Listen(place) => open_listener(&place.address, &(place.protocol == Protocol::Tcp)),
                    Wish::Ping(target) => open_ping(&target),
                };
                let opened =
                    opened.map(|socket| socket.0).map_err(|error| Errno::from_io_error(&error.0).unwrap_or(Errno::MFILE));
                // Who asked waits, or has ended.
                let _ = reply.send(opened);
            }
        };
        let thread = std::thread::Builder::new().name(format!("doors-{name}")).spawn(open)?;
        Ok(Self { inherited, wishes: Some(wishes), thread: Some(thread) })
    }

    /// The socket that the last vswitchd left for a published port.
    pub(super) fn inherited(&self, place: ListenPlace) -> Option<OwnedFd> {
        self.inherited.take(forward::kind(place.protocol), place.address).into_iter().next()
    }

    /// Opens a socket.
    pub(super) fn open(&self, wish: Wish) -> Opened {
        let (reply, opened) = bounded(1);
        let sent = self.wishes.as_ref().is_some_and(|wishes| wishes.send((wish, reply)).is_ok());
        // The thread ends only with this.
        opened.recv().ok().filter(|_| sent).unwrap_or(Err(Errno::PERM))
    }
}

impl Drop for Doorkeeper {
    fn drop(&mut self) {
        self.wishes = None;
        let _ = self.thread.take().map(JoinHandle::join);
    }
}
