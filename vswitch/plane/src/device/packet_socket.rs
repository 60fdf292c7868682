//! The device of veth and link ports and of uplinks: one packet socket, from which a worker reads frames and to which it writes them.

use std::io::IoSliceMut;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use ::packet::{Batch, Capabilities, Offload, Packet, VNET_HEADER};
use rustix::io::Errno;

use super::{Device, Received, Sent, Unread, receive_all, with_header};
use sys::packet;

/// An interface that the switch shares with its owner, through an `AF_PACKET` socket (`net/packet/af_packet.c`): the far end
/// of a veth pair, or a NIC.
#[derive(Debug)]
pub struct PacketSocket {
    fd: OwnedFd,
    capabilities: Capabilities,
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
        Self { fd, capabilities, virtio_header, overflows: 0, down: false }
    }

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
            Err(Errno::NETDOWN) if packet::is_bound(self.fd.as_fd()) => Err(Unread::Ignored),
            Err(_) if packet::is_bound(self.fd.as_fd()) => Err(Unread::Drained),
            Err(_) => Err(Unread::Gone),
        }
    }
}

impl Device for PacketSocket {
    fn descriptors(&self) -> Vec<RawFd> {
        vec![self.fd.as_raw_fd()]
    }

    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    fn receive(&mut self, batch: &mut Batch) -> Received {
        let before = self.overflows;
        let received = receive_all(batch, |batch| self.read(batch));
        Received { missed: self.overflows.wrapping_sub(before), ..received }
    }

    fn send(&mut self, packet: &Packet<'_>) -> Sent {
        let sent = if self.virtio_header {
            with_header(&packet.offload.encode(packet.headers), packet.parts, |parts| rustix::io::writev(&self.fd, parts))
        } else {
            rustix::io::writev(&self.fd, packet.parts)
        };
        sent.map_or_else(refusal, |_| Sent::Done)
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
