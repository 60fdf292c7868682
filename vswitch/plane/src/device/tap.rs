//! The device of TAP ports: the queues of a TAP that one worker reads and writes. Frames to the station are all written to the first.

use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::Instant;

use packet::{Batch, Capabilities, Offload, Packet, TUNNEL_VNET_HEADER, VNET_HEADER};
use rustix::io::Errno;

use super::flows::{FlowQueues, Steering};
use super::{Device, Inheritance, Received, Sent, Unread, with_header};

/// A worker's queues of a TAP (`drivers/net/tun.c`), each frame behind a `virtio_net_hdr`, or the longer one of a TAP that takes tunnels'
/// super-frames.
#[derive(Debug)]
pub struct Tap {
    first: OwnedFd,
    /// Those of bulk flows.
    others: Vec<OwnedFd>,
    capabilities: Capabilities,
    receives: bool,
    flows: FlowQueues,
}

impl Tap {
    /// Takes a nonblocking queue as [`sys::tun`](sys::tun) opens it.
    pub fn new(first: OwnedFd, capabilities: Capabilities) -> Self {
        Self { first, others: Vec::new(), capabilities, receives: true, flows: FlowQueues::one() }
    }

    /// Takes a queue that another worker reads.
    pub fn write_only(fd: OwnedFd, capabilities: Capabilities) -> Self {
        Self { receives: false, ..Self::new(fd, capabilities) }
    }

    /// Adds queues, each with room for so many frames, to which `steering` sends bulk flows.
    #[must_use]
    pub fn with_bulk(self, others: Vec<OwnedFd>, room: usize, steering: Steering) -> Self {
        Self { flows: FlowQueues::and(others.len(), room, steering), others, ..self }
    }
}

impl Device for Tap {
    fn descriptors(&self) -> Vec<RawFd> {
        if self.receives {
            std::iter::once(&self.first).chain(&self.others).map(AsRawFd::as_raw_fd).collect()
        } else {
            Vec::new()
        }
    }

    fn wake(&mut self, descriptor: usize) {
        self.flows.wake(descriptor);
    }

    fn receives(&self) -> bool {
        self.receives
    }

    fn duplicate(&self) -> Option<Inheritance> {
        // Another worker's is the same.
        if self.receives { Inheritance::of(std::iter::once(&self.first).chain(&self.others), &self.flows) } else { None }
    }

    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    fn receive(&mut self, batch: &mut Batch) -> Received {
        let header = header_size(self.capabilities);
        let (first, others) = (&self.first, &self.others);
        self.flows.receive(batch, |queue, batch| {
            let fd = queue.checked_sub(1).and_then(|other| others.get(other)).unwrap_or(first);
            batch.read(|small, large| read(fd, header, small, large))
        })
    }

    fn send(&mut self, packet: &Packet<'_>) -> Sent {
        let header = packet.offload.encode_with(packet.headers, packet.tunnel);
        with_header(&header[..header_size(self.capabilities)], packet.parts, |parts| {
            match rustix::io::writev(&self.first, parts) {
                Ok(_) => Sent::Done,
                Err(error) => refusal(error),
            }
        })
    }

    fn expire(&mut self, _now: Instant) {
        self.flows.expire();
    }
}

/// The length of the header before each frame of a TAP that can do this.
pub const fn header_size(capabilities: Capabilities) -> usize {
    if capabilities.tunnel { TUNNEL_VNET_HEADER } else { VNET_HEADER }
}

/// The kernel puts a tag that it kept apart back into the frame (`tun_put_user`), so nothing comes beside it.
fn read(fd: &OwnedFd, size: usize, small: &mut [u8], large: &mut [u8]) -> Result<(usize, Offload), Unread> {
    let mut header = [0; TUNNEL_VNET_HEADER];
    let mut parts = [IoSliceMut::new(&mut header[..size]), IoSliceMut::new(small), IoSliceMut::new(large)];
    let length = rustix::io::readv(fd, &mut parts).map_err(|error| match error {
        Errno::AGAIN | Errno::INTR => Unread::Drained,
        // A frame that has no virtio header, such as a super-frame of a kind that we did not ask for, is lost in `tun_put_user`.
        Errno::INVAL => Unread::Malformed,
        // EBADFD: the device was deleted, or died with its namespace.
        _ => Unread::Gone,
    })?;
    let length = length.checked_sub(size).ok_or(Unread::Malformed)?;
    let offload = header
        .first_chunk()
        .ok_or(Unread::Malformed)
        .and_then(|first| Offload::decode(*first, length).map_err(|_| Unread::Malformed))?;
    Ok((length, offload))
}

/// What a failed write means (`tun_get_user`).
fn refusal(error: Errno) -> Sent {
    match error {
        Errno::AGAIN | Errno::NOBUFS | Errno::NOMEM | Errno::INTR => Sent::QueueFull,
        // EIO: administratively down. EBADFD: gone, which reading reports.
        Errno::IO | Errno::BADFD | Errno::NETDOWN => Sent::Down,
        _ => Sent::Refused,
    }
}
