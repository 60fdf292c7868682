//! The way out of one tunnel: gathers frames behind VXLAN headers into runs and sends each run to a peer, to all of them or to the group.
//! A worker calls it like any device; `Sources` has the sockets, `Tunnel` the peers.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use packet::{Batch, Capabilities, Checksum, OuterOrigin, Packet, checksum};
use rustix::io::Errno;
use vxlan::{HEADER, Header, Inner};

use super::outer::Outer;
use super::sealing::Sealing;
use super::wireguard::Wireguard;
use super::{Sources, Tunnel};
use crate::device::{Device, Losses, ReceiveStatus, Received, Sent};
use sys::udp::{self, Run};

/// One worker's way out of a tunnel.
///
/// Frames are copied behind each other into one buffer, each behind its VXLAN header, as long as they have one size, one destination
/// and one flow's socket; that is a run. It is sent when a frame comes that does not belong to it, or at the end of the queue.
pub struct Sender {
    tunnel: Arc<Tunnel>,
    sources: Arc<Sources>,
    /// Of an encrypted network: then nothing leaves by another way.
    sealing: Option<Sealing>,
    header: [u8; HEADER],
    /// The run's datagrams.
    bytes: Vec<u8>,
    run: Gathered,
    /// Of the frame before, for the segments that follow it.
    inner: Inner,
    losses: Losses,
    /// The second, as the peers' table counts them.
    now: u32,
}

/// What the datagrams of a run have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
struct Gathered {
    /// Length of each but the last; 0 where there is none yet.
    segment: usize,
    count: usize,
    /// The last one was shorter, so nothing may follow.
    over: bool,
    key: Key,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
struct Key {
    peer: u16,
    socket: usize,
    class: u8,
}

/// Most bytes of a run, with which UDP, IP and what may come around them stay below 64 KiB.
pub(super) const LONGEST_RUN: usize = 65_000;

impl Sender {
    /// Sends for `tunnel` from `sources`; with `wireguard`, inside that.
    pub fn new(tunnel: Arc<Tunnel>, sources: Arc<Sources>, wireguard: Option<Arc<Wireguard>>) -> Self {
        let header = Header { vni: tunnel.vni }.encode();
        let bytes = Vec::with_capacity(2 * (LONGEST_RUN + packet::MAX_FRAME));
        let (run, inner, losses) = (Gathered::default(), Inner::default(), Losses::default());
        let now = tunnel.second(Instant::now());
        Self { tunnel, sources, sealing: wireguard.map(Sealing::new), header, bytes, run, inner, losses, now }
    }

    /// Adds the datagram at `from` to the run, or begins another with it.
    fn take(&mut self, from: usize, key: Key) {
        let length = self.bytes.len() - from;
        let run = &mut self.run;
        let fits =
            run.key == key && !run.over && length <= run.segment && run.count < udp::MOST && self.bytes.len() <= LONGEST_RUN;
        if run.count > 0 && fits {
            run.over = length < run.segment;
            run.count += 1;
            return;
        }
        self.send_run(from);
        self.bytes.copy_within(from.., 0);
        self.bytes.truncate(length);
        self.run = Gathered { segment: length, count: 1, over: false, key };
    }

    /// Sends the run, which ends at `end`.
    fn send_run(&mut self, end: usize) {
        let Gathered { segment, count, key, .. } = std::mem::take(&mut self.run);
        if count == 0 {
            return;
        }
        let (tunnel, sources) = (&self.tunnel, &self.sources);
        let bytes = self.bytes.get(..end).unwrap_or_default();
        let (losses, now, sealing) = (&mut self.losses, self.now, &mut self.sealing);
        let mut send = |number: u16, address: IpAddr| {
            let run = Run { bytes, segment, to: SocketAddr::new(address, tunnel.port), class: key.class };
            let outcome = match sealing {
                None => sources.send(key.socket, &run, losses),
                Some(sealing) => sealing.send(key.socket, &run, losses),
            };
            if let Some(error) = outcome {
                tunnel.peers.note_error(number, error.raw_os_error(), now);
            }
            tunnel.peers.count_sent(number, count as u64);
        };
        if !tunnel.destinations(key.peer, &mut send) {
            // It was taken out while the frame was on its way.
            losses.count(Sent::Down, count as u64);
        }
        tunnel.peers.note_asked(key.peer, now);
    }

    /// A datagram with a frame, its checksum finished, put behind `bytes`.
    fn write(header: &[u8; HEADER], packet: &Packet<'_>, bytes: &mut Vec<u8>) {
        let from = bytes.len() + HEADER;
        bytes.extend_from_slice(header);
        packet.parts.iter().for_each(|part| bytes.extend_from_slice(part));
        if let (Checksum::Partial { start, offset }, Some(frame)) = (packet.offload.checksum, bytes.get_mut(from..)) {
            // With metadata that is nonsense it goes as it is.
            let _ = checksum::complete(frame, start, offset);
        }
    }

    fn key(&self, peer: u16) -> Key {
        let Inner { flow, class } = self.inner;
        Key { peer, socket: flow as usize % self.sources.sockets.len().max(1), class }
    }

    /// A frame with what was around it, from the socket with this number.
    fn around(&self, packet: &Packet<'_>, from: SocketAddr, to: SocketAddr, (class, hops): (u8, u8)) -> Option<Vec<u8>> {
        let mut datagram = Vec::new();
        Self::write(&self.header, packet, &mut datagram);
        Outer { from, to, class, hops, is_summed: self.sources.headers.is_summed }.around(&datagram)
    }
}

impl Sources {
    /// Sends a run from one of the sockets, and returns what was wrong.
    pub(super) fn send(&self, socket: usize, run: &Run<'_>, losses: &mut Losses) -> Option<Errno> {
        let socket = self.sockets.get(socket)?;
        let count = run.bytes.len().div_ceil(run.segment);
        if count == 1 || self.is_segmenting() {
            match past_news(|| udp::send_run(socket.as_fd(), run)) {
                Ok(()) => return None,
                // The device computes no checksums, or they are switched off (`udp_send_skb`).
                Err(Errno::IO | Errno::INVAL) if count > 1 => self.segmenting.store(false, Ordering::Relaxed),
                Err(error) => {
                    losses.count(refusal(error), count as u64);
                    return Some(error);
                }
            }
        }
        send_each(socket, run, count, losses)
    }
}

/// Sends the datagrams of a run one by one; one that is refused is passed over.
fn send_each(socket: &OwnedFd, run: &Run<'_>, count: usize, losses: &mut Losses) -> Option<Errno> {
    let (mut sent, mut last) = (0, None);
    while sent < count {
        let rest = Run { bytes: run.bytes.get(sent * run.segment..).unwrap_or_default(), ..*run };
        match past_news(|| udp::send_each(socket.as_fd(), &rest)) {
            Ok(0) => break,
            Ok(taken) => sent += taken,
            Err(error) => {
                losses.count(refusal(error), 1);
                last = Some(error);
                sent += 1;
            }
        }
    }
    last
}

/// Sends again where the first try brought only news of an earlier datagram, which may have gone to another peer (`sock_error`, with `IP_RECVERR`).
fn past_news<T>(mut send: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    match send() {
        Err(Errno::CONNREFUSED | Errno::HOSTUNREACH | Errno::NETUNREACH | Errno::ACCESS | Errno::PROTO) => send(),
        result => result,
    }
}

impl Device for Sender {
    fn descriptors(&self) -> Vec<RawFd> {
        Vec::new()
    }

    /// No host behind the tunnel cuts a super-frame or finishes a checksum. Checksums are finished here, over the copy of each frame, which
    /// is then in the nearest cache.
    fn capabilities(&self) -> Capabilities {
        Capabilities { checksum: true, ..Capabilities::default() }
    }

    fn receive(&mut self, _batch: &mut Batch) -> Received {
        Received { status: ReceiveStatus::Drained, malformed: 0, missed: 0 }
    }

    fn receives(&self) -> bool {
        false
    }

    fn send(&mut self, packet: &Packet<'_>) -> Sent {
        let length: usize = packet.parts.iter().map(|part| part.len()).sum();
        if length > self.tunnel.room() {
            return Sent::TooBig;
        }
        let from = self.bytes.len();
        Self::write(&self.header, packet, &mut self.bytes);
        // Segments of one super-frame are of one flow.
        if packet.frames > 0 {
            self.inner = Inner::of(self.bytes.get(from + HEADER..).unwrap_or_default());
        }
        self.take(from, self.key(packet.peer));
        Sent::Done
    }

    fn show_sent(&self, packet: &Packet<'_>, see: &mut dyn FnMut(&[u8])) {
        let Key { socket, class, .. } = self.key(packet.peer);
        let Some(from) = self.sources.name(socket) else { return };
        let hops = self.sources.headers.hops;
        self.tunnel.destinations(packet.peer, |_, address| {
            let to = SocketAddr::new(address, self.tunnel.port);
            self.around(packet, from, to, (class, hops)).iter().for_each(|bytes| see(bytes));
        });
    }

    fn show_received(&self, packet: &Packet<'_>, outer: OuterOrigin, see: &mut dyn FnMut(&[u8])) {
        let (Some(from), Some(here)) = (self.tunnel.peers.address(packet.peer), self.sources.name(0)) else { return };
        let (from, to) = (SocketAddr::new(from, outer.port), SocketAddr::new(here.ip(), self.tunnel.port));
        self.around(packet, from, to, (outer.class, 0)).iter().for_each(|bytes| see(bytes));
    }

    fn expire(&mut self, now: Instant) {
        self.now = self.tunnel.second(now);
    }

    fn flush(&mut self) -> Losses {
        self.send_run(self.bytes.len());
        self.bytes.clear();
        std::mem::take(&mut self.losses)
    }
}

/// What a failed send means (`udp_sendmsg`, `ip_send_skb`).
fn refusal(error: Errno) -> Sent {
    match error {
        Errno::AGAIN | Errno::NOBUFS | Errno::NOMEM | Errno::INTR => Sent::QueueFull,
        Errno::MSGSIZE => Sent::TooBig,
        Errno::NETUNREACH | Errno::HOSTUNREACH | Errno::NETDOWN | Errno::NODEV | Errno::ADDRNOTAVAIL => Sent::Down,
        _ => Sent::Refused,
    }
}
