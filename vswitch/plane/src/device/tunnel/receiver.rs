//! The way into tunnels: reads datagrams from one UDP socket, finds the tunnel and the peer of each, and puts the inner frames into the batch.
//! A worker calls it like any device; the control side adds and removes tunnels over a channel.

use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Instant;

use foldhash::fast::RandomState;
use packet::{
    Batch, Capabilities, Checksum, Gso, GsoKind, IpVersion, Layers, Offload, OuterOrigin, Packet, Transport, checksum,
};
use rustix::io::Errno;
use vxlan::{Admission, DecodeError, Header, Vni, ecn};

use super::wireguard::{Opened, Wireguard};
use super::{Tunnel, UnderlayCounters, UnderlayDrop};
use crate::datapath::{DropReason, PortId};
use crate::device::{Device, ReceiveStatus, Received, Sent};
use sys::udp::{self, RunReceived};

/// One worker's socket on a UDP port, and the tunnels that meet there.
pub struct Receiver {
    fd: OwnedFd,
    changes: crossbeam_channel::Receiver<Change>,
    tunnels: HashMap<Vni, Member, RandomState>,
    /// Of a socket that hears WireGuard alone: what comes in the clear there belongs to no tunnel.
    unsealing: Option<Unsealing>,
    /// The run that was read last.
    buffer: Box<[u8]>,
    /// The frames in it.
    frames: Vec<Found>,
    /// How many of them are in a batch already.
    taken: usize,
    counters: Arc<UnderlayCounters>,
    /// The kernel's count of lost datagrams when it was last read.
    overflows: u32,
    drops: Vec<(PortId, DropReason, u64)>,
    now: Instant,
}

/// What the control side changes about a receiver; before the next frame it is done.
#[derive(Clone, Debug)]
pub enum Change {
    /// Frames of this network are those of this port.
    Add(PortId, Arc<Tunnel>),
    /// No port has this network any more.
    Remove(Vni),
}

/// The way out of WireGuard's messages.
struct Unsealing {
    wireguard: Arc<Wireguard>,
    /// The run as it came.
    messages: Box<[u8]>,
}

/// A frame in the buffer.
struct Found {
    place: Range<usize>,
    offload: Offload,
    port: PortId,
    peer: u16,
    outer: OuterOrigin,
}

/// A tunnel on this socket.
struct Member {
    port: PortId,
    tunnel: Arc<Tunnel>,
    /// The sender of the datagram before, which mostly sends the next one too, its number, and the tunnel's generation then.
    last: Option<(IpAddr, u16, u32)>,
    /// Frames from that one that were not counted yet.
    frames: u64,
}

/// The longest run that the kernel hands over.
const LONGEST: usize = 65_536;
/// Most datagrams read in one call, so that neither a flood of bad ones nor one of small ones that are merged can hold a worker.
const PATIENCE: usize = 512;

impl Receiver {
    /// Takes a nonblocking socket as [`sys::udp`](sys::udp) prepares it for receiving. With `wireguard`, all that it hears is inside that.
    pub fn new(
        fd: OwnedFd,
        changes: crossbeam_channel::Receiver<Change>,
        counters: Arc<UnderlayCounters>,
        wireguard: Option<Arc<Wireguard>>,
    ) -> Self {
        let unsealing = |wireguard| Unsealing { wireguard, messages: vec![0; LONGEST].into_boxed_slice() };
        Self {
            fd,
            changes,
            unsealing: wireguard.map(unsealing),
            tunnels: HashMap::default(),
            buffer: vec![0; LONGEST].into_boxed_slice(),
            frames: Vec::new(),
            taken: 0,
            counters,
            overflows: 0,
            drops: Vec::new(),
            now: Instant::now(),
        }
    }

    fn apply_changes(&mut self) {
        while let Ok(change) = self.changes.try_recv() {
            match change {
                Change::Add(port, tunnel) => {
                    drop(self.tunnels.insert(tunnel.vni, Member { port, tunnel, last: None, frames: 0 }))
                }
                Change::Remove(vni) => {
                    self.tunnels.remove(&vni);
                    // What was read and not taken yet may be of a port whose number is given away again.
                    self.frames.clear();
                    self.taken = 0;
                }
            }
        }
    }

    /// Reads the next run, and returns how many datagrams it has.
    fn read(&mut self) -> Result<usize, Errno> {
        self.frames.clear();
        self.taken = 0;
        let into = self.unsealing.as_mut().map_or(&mut self.buffer, |unsealing| &mut unsealing.messages);
        let reception = udp::receive(self.fd.as_fd(), into)?;
        if let Some(overflows) = reception.overflows {
            let missed = overflows.wrapping_sub(self.overflows);
            self.counters.count(UnderlayDrop::MissedByKernel, missed.into());
            self.overflows = overflows;
        }
        // A datagram without a byte is one too.
        if reception.truncated || reception.length == 0 {
            self.counters.count(UnderlayDrop::Malformed, 1);
            return Ok(1);
        }
        if let Some(unsealing) = self.unsealing.take() {
            self.unseal(&unsealing, &reception);
            self.unsealing = Some(unsealing);
            return Ok(reception.length.div_ceil(reception.segment.max(1)));
        }
        let nested = nested(self.buffer.get(..reception.length).unwrap_or_default(), reception.segment);
        let step = if nested.is_some() { reception.length } else { reception.segment.max(1) };
        for start in (0..reception.length).step_by(step) {
            self.open(start..reception.length.min(start + step), &reception, nested);
        }
        Ok(reception.length.div_ceil(step))
    }

    /// Finds the frames in the messages of a run.
    fn unseal(&mut self, unsealing: &Unsealing, reception: &RunReceived) {
        let step = reception.segment.max(1);
        for start in (0..reception.length).step_by(step) {
            let place = start..reception.length.min(start + step);
            let (Some(message), Some(plain)) = (unsealing.messages.get(place.clone()), self.buffer.get_mut(place)) else {
                continue;
            };
            match unsealing.wireguard.open(reception.source.ip(), message, plain) {
                Opened::Datagram(inside) => self.open(start + inside.start..start + inside.end, reception, None),
                Opened::Message => {}
                Opened::Refused(reason) => self.counters.count(reason, 1),
            }
        }
    }

    /// Finds the frame in a datagram, with its port and peer. If `nested` is set, it is a UDP super-frame, cut into payloads of this size.
    fn open(&mut self, place: Range<usize>, reception: &RunReceived, nested: Option<NonZeroU16>) {
        let Some(datagram) = self.buffer.get_mut(place.clone()) else { return };
        let vni = match Header::decode(datagram) {
            Ok((header, _)) => header.vni,
            Err(DecodeError::Truncated) => return self.counters.count(UnderlayDrop::Malformed, 1),
            Err(DecodeError::NoVni) => return self.counters.count(UnderlayDrop::NoVni, 1),
        };
        let Some(member) = self.tunnels.get_mut(&vni) else {
            return self.counters.count(UnderlayDrop::UnknownVni, 1);
        };
        let Some(peer) = member.sender(reception.source.ip(), self.now) else {
            return drop_one(&mut self.drops, member.port, DropReason::UnknownVtep);
        };
        let frame = datagram.get_mut(vxlan::HEADER..).unwrap_or_default();
        if ecn::carry(frame, reception.class).is_err() {
            return drop_one(&mut self.drops, member.port, DropReason::CongestionMark);
        }
        let offload = whole_offload(frame, member.tunnel.room(), nested);
        let outer = OuterOrigin { port: reception.source.port(), class: reception.class };
        self.frames.push(Found { place: place.start + vxlan::HEADER..place.end, offload, port: member.port, peer, outer });
    }

    /// Puts the next frame of the run into the batch, or the next ones that are one super-frame; says whether there was any.
    fn take(&mut self, batch: &mut Batch) -> bool {
        let rest = self.frames.get(self.taken..).unwrap_or_default();
        let Some(&Found { ref place, offload, port, peer, outer }) = rest.first() else { return false };
        let buffer = &self.buffer;
        let bytes = |place: &Range<usize>| buffer.get(place.clone()).unwrap_or_default();
        batch.set_origin(port.0, peer);
        batch.set_outer(outer);
        // What goes to many is limited by the frame.
        if bytes(place).first().is_some_and(|first| first & 1 == 1) {
            batch.push(bytes(place), offload);
            self.taken += 1;
            return true;
        }
        let together = rest.iter().take_while(|other| (other.port, other.peer) == (port, peer));
        self.taken += batch.push_merged(together.map(|found| (bytes(&found.place), found.offload)));
        true
    }
}

impl Member {
    /// Counts the frames of the last sender.
    fn count(&mut self) {
        if let Some((_, peer, _)) = self.last {
            self.tunnel.peers.count_received(peer, std::mem::take(&mut self.frames));
        }
    }

    fn sender(&mut self, source: IpAddr, now: Instant) -> Option<u16> {
        let generation = self.tunnel.generation();
        if let Some((address, peer, then)) = self.last
            && (address, then) == (source, generation)
        {
            self.frames += 1;
            return Some(peer);
        }
        self.count();
        match self.tunnel.peers.admit(source, self.tunnel.second(now)) {
            Admission::Known(peer) => {
                self.last = Some((source, peer, generation));
                self.frames = 1;
                Some(peer)
            }
            Admission::Refused => None,
        }
    }
}

/// The size of the payloads in a UDP super-frame that another kernel on this machine put into one datagram: then it is of that which
/// the kernel speaks as the segments' size. In a run, the first frame ends with the first segment.
fn nested(datagrams: &[u8], segment: usize) -> Option<NonZeroU16> {
    if datagrams.len() <= segment {
        return None;
    }
    let frame = datagrams.get(vxlan::HEADER..)?;
    let layers = Layers::parse(frame).filter(|layers| layers.transport_kind == Transport::Udp)?;
    let whole = layers.end == frame.len() && layers.end + vxlan::HEADER > segment;
    NonZeroU16::new(u16::try_from(segment).ok()?).filter(|_| whole)
}

/// What is left to do with a frame. Where no network card is on the way, as between two namespaces, a kernel's tunnel hands over
/// its super-frames whole and unfinished, and what it knows about them does not reach a UDP socket. Longer than the way allows and
/// with an unfinished checksum, a frame can only be one of those; its segments may have any size that the way carries.
fn whole_offload(frame: &[u8], room: usize, nested: Option<NonZeroU16>) -> Offload {
    let checksum = checksum::examine(frame);
    let super_frame = || {
        let layers = Layers::parse(frame)?;
        let most = u16::try_from(room.checked_sub(layers.payload)?).ok().and_then(NonZeroU16::new);
        Some(match (layers.transport_kind, layers.version) {
            (Transport::Tcp, IpVersion::V4) => Gso { kind: GsoKind::Tcp4, size: most?, ecn: false },
            (Transport::Tcp, IpVersion::V6) => Gso { kind: GsoKind::Tcp6, size: most?, ecn: false },
            (Transport::Udp, _) => Gso { kind: GsoKind::Udp, size: nested?, ecn: false },
        })
    };
    let gso = if frame.len() > room && matches!(checksum, Checksum::Partial { .. }) { super_frame() } else { None };
    Offload { checksum, gso }
}

/// Counts a drop; what is dropped in a row is mostly alike.
fn drop_one(drops: &mut Vec<(PortId, DropReason, u64)>, port: PortId, reason: DropReason) {
    match drops.last_mut() {
        Some((last_port, last_reason, count)) if (*last_port, *last_reason) == (port, reason) => *count += 1,
        _ => drops.push((port, reason, 1)),
    }
}

impl Device for Receiver {
    fn descriptors(&self) -> Vec<RawFd> {
        vec![self.fd.as_raw_fd()]
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
    }

    fn receive(&mut self, batch: &mut Batch) -> Received {
        self.apply_changes();
        let received = |status| Received { status, malformed: 0, missed: 0 };
        let mut patience = PATIENCE;
        while !batch.is_full() && patience > 0 {
            if self.take(batch) {
                continue;
            }
            match self.read() {
                Ok(datagrams) => patience = patience.saturating_sub(datagrams),
                Err(Errno::AGAIN) => return received(ReceiveStatus::Drained),
                // Such as ECONNREFUSED, which tells of another datagram, or ENETDOWN; the socket itself stays.
                Err(_) => patience -= 1,
            }
        }
        received(ReceiveStatus::More)
    }

    /// No worker sends here: it is no port.
    fn send(&mut self, _packet: &Packet<'_>) -> Sent {
        Sent::Refused
    }

    fn report_drops(&mut self, count: &mut dyn FnMut(PortId, DropReason, u64)) {
        self.drops.drain(..).for_each(|(port, reason, datagrams)| count(port, reason, datagrams));
    }

    /// The last sender of each tunnel is forgotten. Its next datagram is looked up, which notes that it is still there.
    fn expire(&mut self, now: Instant) {
        self.now = now;
        self.unsealing.iter().for_each(|unsealing| unsealing.wireguard.tick(now));
        for member in self.tunnels.values_mut() {
            member.count();
            member.last = None;
            member.tunnel.expire(now);
        }
    }
}
