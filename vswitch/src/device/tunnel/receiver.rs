use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Instant;

use foldhash::fast::RandomState;
use packet::{Batch, Capabilities, Checksum, Gso, GsoKind, IpVersion, Layers, Offload, Packet, Transport, checksum};
use rustix::io::Errno;
use vxlan::{Admission, DecodeError, Header, Vni, ecn};

use super::{Tunnel, UnderlayCounters, UnderlayDrop};
use crate::datapath::{DropReason, PortId};
use crate::device::{Device, ReceiveStatus, Received, Sent};
use crate::sys::udp;

/// One worker's socket on a UDP port, and the tunnels that meet there.
pub struct Receiver {
    fd: OwnedFd,
    changes: crossbeam_channel::Receiver<Change>,
    tunnels: HashMap<Vni, Member, RandomState>,
    /// The run that was read last.
    buffer: Box<[u8]>,
    /// What of it is not in a batch yet.
    rest: Range<usize>,
    segment: usize,
    source: IpAddr,
    class: u8,
    /// Set if the run is no run, but one datagram with a UDP super-frame inside, cut into payloads of this size.
    nested: Option<NonZeroU16>,
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
    /// Nobody has this network any more.
    Remove(Vni),
}

/// A tunnel on this socket.
struct Member {
    port: PortId,
    tunnel: Arc<Tunnel>,
    /// Who sent the datagram before, which is mostly who sends the next, and the tunnel's generation then.
    last: Option<(IpAddr, u16, u32)>,
}

/// The longest run that the kernel hands over.
const LONGEST: usize = 65_536;
/// Most datagrams thrown away in one call, so that a flood of bad ones cannot hold a worker.
const PATIENCE: usize = 1024;

impl Receiver {
    /// Takes a nonblocking socket as [`sys::udp`](crate::sys::udp) prepares it for receiving.
    pub fn new(fd: OwnedFd, changes: crossbeam_channel::Receiver<Change>, counters: Arc<UnderlayCounters>) -> Self {
        Self {
            fd,
            changes,
            tunnels: HashMap::default(),
            buffer: vec![0; LONGEST].into_boxed_slice(),
            rest: 0..0,
            segment: 1,
            source: IpAddr::from([0; 4]),
            class: 0,
            nested: None,
            counters,
            overflows: 0,
            drops: Vec::new(),
            now: Instant::now(),
        }
    }

    fn apply_changes(&mut self) {
        while let Ok(change) = self.changes.try_recv() {
            match change {
                Change::Add(port, tunnel) => drop(self.tunnels.insert(tunnel.vni, Member { port, tunnel, last: None })),
                Change::Remove(vni) => drop(self.tunnels.remove(&vni)),
            }
        }
    }

    /// Reads the next run.
    fn read(&mut self) -> Result<(), Errno> {
        let reception = udp::receive(self.fd.as_fd(), &mut self.buffer)?;
        if let Some(overflows) = reception.overflows {
            let missed = overflows.wrapping_sub(self.overflows);
            self.counters.count(UnderlayDrop::MissedByKernel, missed.into());
            self.overflows = overflows;
        }
        if reception.truncated {
            self.counters.count(UnderlayDrop::Malformed, 1);
            return Ok(());
        }
        // A datagram without a byte is one too.
        if reception.length == 0 {
            self.counters.count(UnderlayDrop::Malformed, 1);
        }
        (self.rest, self.segment) = (0..reception.length, reception.segment.max(1));
        (self.source, self.class) = (reception.source, reception.class);
        self.nested = nested(self.buffer.get(..reception.length).unwrap_or_default(), self.segment);
        Ok(())
    }

    /// Takes the next datagram of the run apart.
    fn take(&mut self, batch: &mut Batch) {
        let end = if self.nested.is_some() { self.rest.end } else { self.rest.end.min(self.rest.start + self.segment) };
        let Some(datagram) = self.buffer.get_mut(self.rest.start..end) else { return };
        self.rest.start = end;
        let vni = match Header::decode(datagram) {
            Ok((header, _)) => header.vni,
            Err(DecodeError::Truncated) => return self.counters.count(UnderlayDrop::Malformed, 1),
            Err(DecodeError::NoVni) => return self.counters.count(UnderlayDrop::NoVni, 1),
        };
        let Some(member) = self.tunnels.get_mut(&vni) else {
            return self.counters.count(UnderlayDrop::UnknownVni, 1);
        };
        let Some(peer) = member.sender(self.source, self.now) else {
            return drop_one(&mut self.drops, member.port, DropReason::UnknownVtep);
        };
        let frame = datagram.get_mut(vxlan::HEADER..).unwrap_or_default();
        if ecn::carry(frame, self.class).is_err() {
            return drop_one(&mut self.drops, member.port, DropReason::CongestionMark);
        }
        batch.push(frame, whole_offload(frame, member.tunnel.room(), self.nested));
        if let Some(frame) = batch.last_mut() {
            (frame.ingress, frame.peer) = (member.port.0, peer);
        }
    }
}

impl Member {
    fn sender(&mut self, source: IpAddr, now: Instant) -> Option<u16> {
        let generation = self.tunnel.generation();
        if let Some((address, peer, then)) = self.last
            && (address, then) == (source, generation)
        {
            return Some(peer);
        }
        match self.tunnel.peers.admit(source, self.tunnel.second(now)) {
            Admission::Known(peer) => {
                self.last = Some((source, peer, generation));
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
    fn descriptor(&self) -> Option<RawFd> {
        Some(self.fd.as_raw_fd())
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
    }

    fn receive(&mut self, batch: &mut Batch) -> Received {
        self.apply_changes();
        let received = |status| Received { status, malformed: 0, missed: 0 };
        for _ in 0..PATIENCE {
            if batch.is_full() {
                break;
            }
            if !self.rest.is_empty() {
                self.take(batch);
                continue;
            }
            match self.read() {
                Ok(()) => {}
                Err(Errno::AGAIN) => return received(ReceiveStatus::Drained),
                // Such as ECONNREFUSED, which tells of another datagram, or ENETDOWN; the socket itself stays.
                Err(_) => {}
            }
        }
        received(ReceiveStatus::More)
    }

    /// Nobody sends here: it is no port.
    fn send(&mut self, _packet: &Packet<'_>) -> Sent {
        Sent::Refused
    }

    fn report_drops(&mut self, count: &mut dyn FnMut(PortId, DropReason, u64)) {
        self.drops.drain(..).for_each(|(port, reason, datagrams)| count(port, reason, datagrams));
    }

    /// Whoever was heard as the last one is looked up again, which notes that he is still there.
    fn expire(&mut self, now: Instant) {
        self.now = now;
        for member in self.tunnels.values_mut() {
            member.last = None;
            member.tunnel.expire(now);
        }
    }
}
