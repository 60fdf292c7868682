//! The device of TAP ports: one queue of a TAP, which a worker reads and writes.

use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use packet::{Batch, Capabilities, Offload, Packet, TUNNEL_VNET_HEADER, VNET_HEADER};
use rustix::io::Errno;

use super::{Device, Received, Sent, Unread, receive_all, with_header};

/// One queue of a TAP (`drivers/net/tun.c`), each frame behind a `virtio_net_hdr`, or the longer one of a TAP that takes tunnels'
/// super-frames.
#[derive(Debug)]
pub struct Tap {
    fd: OwnedFd,
    capabilities: Capabilities,
    receives: bool,
}

impl Tap {
    /// Takes a nonblocking queue as [`sys::tun`](sys::tun) opens it.
    pub fn new(fd: OwnedFd, capabilities: Capabilities) -> Self {
        Self { fd, capabilities, receives: true }
    }

    /// Takes a queue that another worker reads.
    pub fn write_only(fd: OwnedFd, capabilities: Capabilities) -> Self {
        Self { fd, capabilities, receives: false }
    }
}

impl Device for Tap {
    fn descriptor(&self) -> Option<RawFd> {
        self.receives.then(|| self.fd.as_raw_fd())
    }

    fn receives(&self) -> bool {
        self.receives
    }

    fn duplicate(&self) -> Option<OwnedFd> {
        // Another worker's is the same.
        if self.receives { self.fd.try_clone().ok() } else { None }
    }

    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    fn receive(&mut self, batch: &mut Batch) -> Received {
        let header = header_size(self.capabilities);
        receive_all(batch, |batch| batch.read(|small, large| read(&self.fd, header, small, large)))
    }

    fn send(&mut self, packet: &Packet<'_>) -> Sent {
        let header = packet.offload.encode_with(packet.headers, packet.tunnel);
        with_header(&header[..header_size(self.capabilities)], packet.parts, |parts| {
            match rustix::io::writev(&self.fd, parts) {
                Ok(_) => Sent::Done,
                Err(error) => refusal(error),
            }
        })
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
