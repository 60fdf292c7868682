use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use packet::{Batch, Capabilities, Offload, Packet, VNET_HEADER};
use rustix::io::Errno;

use super::{Device, Received, Sent, Unread, receive_all, with_header};

/// One queue of a TAP (`drivers/net/tun.c`), each frame behind a `virtio_net_hdr`.
#[derive(Debug)]
pub struct Tap {
    fd: OwnedFd,
    capabilities: Capabilities,
    receives: bool,
}

impl Tap {
    /// Takes a nonblocking queue as [`sys::tun`](crate::sys::tun) opens it.
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
        receive_all(batch, |batch| batch.read(|small, large| read(&self.fd, small, large)))
    }

    fn send(&mut self, packet: &Packet<'_>) -> Sent {
        with_header(&packet.offload.encode(packet.headers), packet.parts, |parts| match rustix::io::writev(&self.fd, parts) {
            Ok(_) => Sent::Done,
            Err(error) => refusal(error),
        })
    }
}

/// The kernel puts a tag that it kept apart back into the frame (`tun_put_user`), so nothing comes beside it.
fn read(fd: &OwnedFd, small: &mut [u8], large: &mut [u8]) -> Result<(usize, Offload), Unread> {
    let mut header = [0; VNET_HEADER];
    let mut parts = [IoSliceMut::new(&mut header), IoSliceMut::new(small), IoSliceMut::new(large)];
    let length = rustix::io::readv(fd, &mut parts).map_err(|error| match error {
        Errno::AGAIN | Errno::INTR => Unread::Drained,
        // A frame that has no virtio header, such as a super-frame of a kind that we did not ask for, is lost in `tun_put_user`.
        Errno::INVAL => Unread::Malformed,
        // EBADFD: the device was deleted, or died with its namespace.
        _ => Unread::Gone,
    })?;
    let length = length.checked_sub(VNET_HEADER).ok_or(Unread::Malformed)?;
    let offload = Offload::decode(header, length).map_err(|_| Unread::Malformed)?;
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
