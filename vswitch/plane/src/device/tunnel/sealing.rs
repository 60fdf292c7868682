//! The way out of an encrypted tunnel: the datagrams of a run, each inside a message of WireGuard's.

use std::net::SocketAddr;
use std::sync::Arc;

use rustix::io::Errno;

use super::outer::Outer;
use super::sender::LONGEST_RUN;
use super::wireguard::{HANDSHAKE, OVERHEAD, Session, Wireguard};
use crate::device::{Losses, Sent};
use sys::udp::Run;

/// One worker's way out of one encrypted tunnel.
///
/// Messages are gathered as datagrams are: those of one run have one size, but for the last, so they leave as a run too.
pub(super) struct Sealing {
    wireguard: Arc<Wireguard>,
    /// The packet that is sealed next.
    packet: Vec<u8>,
    /// The messages that are to be sent.
    messages: Vec<u8>,
    /// Length of the longest of them: that of each but the last.
    longest: usize,
}

/// Room for a message besides its packet; that of a handshake may come out instead.
const ROOM: usize = HANDSHAKE + OVERHEAD;

impl Sealing {
    pub(super) fn new(wireguard: Arc<Wireguard>) -> Self {
        Self { wireguard, packet: Vec::new(), messages: Vec::new(), longest: 0 }
    }

    /// Seals and sends a run that would leave from this socket, and returns what was wrong. For a host without a session it waits, up to the
    /// bounds of [`Wireguard`]; for one without a key it is lost.
    pub(super) fn send(&mut self, socket: usize, run: &Run<'_>, losses: &mut Losses) -> Option<Errno> {
        let (host, from) = (self.wireguard.host(run.to.ip()), self.wireguard.sources.name(socket));
        let (Some(host), Some(from)) = (host, from) else {
            losses.count(Sent::Down, run.bytes.len().div_ceil(run.segment) as u64);
            return None;
        };
        let headers = Outer { from, to: run.to, class: run.class, hops: self.wireguard.sources.headers.hops, is_summed: false };
        let (mut session, mut error) = (host.lock(), None);
        self.messages.clear();
        for datagram in run.bytes.chunks(run.segment) {
            if self.messages.len() + datagram.len() + ROOM > LONGEST_RUN {
                error = self.flush(socket, run, losses).or(error);
            }
            losses.count(self.seal(&mut session, &headers, datagram), 1);
        }
        drop(session);
        self.flush(socket, run, losses).or(error)
    }

    /// Puts a message behind the others.
    fn seal(&mut self, session: &mut Session, headers: &Outer, datagram: &[u8]) -> Sent {
        self.packet.clear();
        // A tunnel's addresses are of one family, and its MTU leaves room for them.
        let Some(()) = headers.packet(datagram, &mut self.packet) else { return Sent::TooBig };
        let start = self.messages.len();
        self.messages.resize(start + self.packet.len() + ROOM, 0);
        let room = self.messages.get_mut(start..).unwrap_or_default();
        let sealed = session.seal(&self.packet, room, |greeting| self.wireguard.send(headers.to.ip(), greeting));
        let length = sealed.unwrap_or_default();
        self.messages.truncate(start + length);
        self.longest = self.longest.max(length);
        sealed.err().unwrap_or(Sent::Done)
    }

    /// Sends the messages. What was inside may be marked by routers on the way (RFC 3168); the rest of its class is not for them to see.
    fn flush(&mut self, socket: usize, run: &Run<'_>, losses: &mut Losses) -> Option<Errno> {
        const CONGESTION: u8 = 3;
        let segment = std::mem::take(&mut self.longest);
        if segment == 0 {
            return None;
        }
        let to = SocketAddr::new(run.to.ip(), self.wireguard.port());
        let sealed = Run { bytes: &self.messages, segment, to, class: run.class & CONGESTION };
        let error = self.wireguard.sources.send(socket, &sealed, losses);
        self.messages.clear();
        error
    }
}
