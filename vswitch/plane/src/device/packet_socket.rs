//! The device of veth and link ports and of uplinks: packet sockets, from which a worker reads frames, and to the first of which it writes them.

use std::io::IoSliceMut;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::time::Instant;

use ::packet::{Batch, Capabilities, Offload, Packet, VNET_HEADER};
use rustix::io::Errno;

use super::flows::{FlowQueues, Steering};
use super::{Device, Inheritance, Received, Sent, Unread, with_header};
use sys::packet;

/// An interface that the switch shares with its owner, through `AF_PACKET` sockets (`net/packet/af_packet.c`): the far end
/// of a veth pair, or a NIC.
#[derive(Debug)]
pub struct PacketSocket {
    first: Socket,
    /// Those of bulk flows.
    others: Vec<Socket>,
    capabilities: Capabilities,
    flows: FlowQueues,
}

/// One socket.
#[derive(Debug)]
struct Socket {
    fd: OwnedFd,
    /// Whether frames have a `virtio_net_hdr` before them.
    virtio_header: bool,
    /// The kernel's count of lost frames when it was last read.
    overflows: u32,
    /// Whether the interface went down since the last frame.
    down: bool,
}

impl PacketSocket {
    /// Takes a nonblocking socket as [`sys::packet`](sys::packet) opens it, bound to one interface, with auxiliary data
    /// switched on, and with virtio headers if `virtio_header` says so.
    pub fn new(fd: OwnedFd, capabilities: Capabilities, virtio_header: bool) -> Self {
        let first = Socket { fd, virtio_header, overflows: 0, down: false };
        Self { first, others: Vec::new(), capabilities, flows: FlowQueues::one() }
    }

    /// Adds sockets of the same kind, each with room for at most so many frames, to which `steering` sends bulk flows.
    #[must_use]
    pub fn with_bulk(self, others: Vec<OwnedFd>, room: usize, steering: Steering) -> Self {
        let virtio_header = self.first.virtio_header;
        let flows = FlowQueues::and(others.len(), room, steering);
        let others = others.into_iter().map(|fd| Socket { fd, virtio_header, overflows: 0, down: false }).collect();
        Self { others, flows, ..self }
    }
}

impl Socket {
    fn read(&mut self, batch: &mut Batch) -> Result<(), Unread> {
        let mut beside = packet::Reception::default();
        batch.read(|small, large| {
            let frame = if self.virtio_header { self.read_with_header(small, large) } else { self.read_bare(small, large) };
            let (reception, offload) = frame?;
            beside = reception;
            Ok((reception.length, offload))
        })?;
        self.overflows = beside.overflows.unwrap_or(self.overflows);
        // The tag goes in last: the kernel's offsets count without it, and move with it.
        if let (Some(tag), Some(frame)) = (beside.tag, batch.last_mut()) {
            frame.insert_tag(tag);
        }
        Ok(())
    }

    fn read_with_header(&mut self, small: &mut [u8], large: &mut [u8]) -> Result<(packet::Reception, Offload), Unread> {
        let mut header = [0; VNET_HEADER];
        let parts = &mut [IoSliceMut::new(&mut header), IoSliceMut::new(small), IoSliceMut::new(large)];
        let mut reception = self.usable(packet::receive(self.fd.as_fd(), parts))?;
        reception.length = reception.length.checked_sub(VNET_HEADER).ok_or(Unread::Malformed)?;
        let offload = Offload::decode(header, reception.length).map_err(|_| Unread::Malformed)?;
        Ok((reception, offload))
    }

    /// Without headers nothing says how an unfinished checksum is finished.
    fn read_bare(&mut self, small: &mut [u8], large: &mut [u8]) -> Result<(packet::Reception, Offload), Unread> {
        let parts = &mut [IoSliceMut::new(small), IoSliceMut::new(large)];
        let reception = self.usable(packet::receive(self.fd.as_fd(), parts))?;
        if reception.unfinished { Err(Unread::Malformed) } else { Ok((reception, Offload::default())) }
    }

    /// The kernel reports a link that went down once, before the frames that still wait. If it is removed after that, it says
    /// nothing more (`packet_notifier`), but the socket is bound to nothing then.
    fn usable(&mut self, reception: Result<packet::Reception, Errno>) -> Result<packet::Reception, Unread> {
        self.down = matches!(reception, Err(Errno::NETDOWN)) || self.down && reception.is_err();
        match reception {
            Ok(frame) if frame.outgoing => Err(Unread::Ignored),
            Ok(frame) if frame.truncated => Err(Unread::Malformed),
            Ok(frame) => Ok(frame),
            // A frame whose offload has no place in a virtio header (`packet_rcv_vnet`) is lost.
            Err(Errno::INVAL) => Err(Unread::Malformed),
            Err(Errno::AGAIN) if !self.down => Err(Unread::Drained),
            Err(Errno::NETDOWN) if packet::bound_to(self.fd.as_fd()).is_some() => Err(Unread::Ignored),
            Err(_) if packet::bound_to(self.fd.as_fd()).is_some() => Err(Unread::Drained),
            Err(_) => Err(Unread::Gone),
        }
    }
}

impl Device for PacketSocket {
    fn descriptors(&self) -> Vec<RawFd> {
        std::iter::once(&self.first).chain(&self.others).map(|socket| socket.fd.as_raw_fd()).collect()
    }

    fn duplicate(&self) -> Option<Inheritance> {
        Inheritance::of(std::iter::once(&self.first).chain(&self.others).map(|socket| &socket.fd), &self.flows)
    }

    fn wake(&mut self, descriptor: usize) {
        self.flows.wake(descriptor);
    }

    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    fn receive(&mut self, batch: &mut Batch) -> Received {
        let (first, others, mut missed) = (&mut self.first, &mut self.others, 0);
        let received = self.flows.receive(batch, |queue, batch| {
            let socket = queue.checked_sub(1).and_then(|other| others.get_mut(other)).unwrap_or(first);
            let before = socket.overflows;
            let read = socket.read(batch);
            missed += socket.overflows.wrapping_sub(before);
            read
        });
        Received { missed, ..received }
    }

    fn send(&mut self, packet: &Packet<'_>) -> Sent {
        let fd = &self.first.fd;
        let sent = if self.first.virtio_header {
            with_header(&packet.offload.encode(packet.headers), packet.parts, |parts| rustix::io::writev(fd, parts))
        } else {
            rustix::io::writev(fd, packet.parts)
        };
        sent.map_or_else(refusal, |_| Sent::Done)
    }

    fn expire(&mut self, _now: Instant) {
        self.flows.expire();
    }
}

/// What a failed write means (`packet_snd`).
fn refusal(error: Errno) -> Sent {
    match error {
        // ENOBUFS: the queueing discipline dropped it. EAGAIN: the socket's own buffer is full.
        Errno::AGAIN | Errno::NOBUFS | Errno::NOMEM | Errno::INTR => Sent::QueueFull,
        // ENXIO, ENODEV: gone, which reading reports.
        Errno::NETDOWN | Errno::NXIO | Errno::NODEV => Sent::Down,
        _ => Sent::Refused,
    }
}
