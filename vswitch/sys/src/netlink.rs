//! Netlink sockets that hear of several network namespaces (`NETLINK_LISTEN_ALL_NSID`, netlink(7)).

use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::{CONTROL, Control, last_error};

/// What one read gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// Bytes in the buffer.
    pub length: usize,
    /// The number of the namespace that the messages are about, as the socket's own knows it; `None`: the socket's own.
    pub namespace: Option<i32>,
}

/// Makes tokio wait for what can be read from a socket.
///
/// # Errors
/// The kernel gives no room for another descriptor.
pub fn readable(socket: OwnedFd) -> std::io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the descriptor is owned, so it is open, and the same, until the `AsyncFd` is dropped, which nothing takes it out of.
    Ok(unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }?)
}

/// Receives without waiting; what is longer than `buffer` is cut.
///
/// # Errors
/// `EAGAIN` where nothing waits, `ENOBUFS` once where messages were lost.
pub fn receive(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<Heard, Errno> {
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let mut control = Control([MaybeUninit::uninit(); CONTROL]);
    // SAFETY: the structure is plain data, for which zero bytes are valid.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = CONTROL as _;
    // SAFETY: the descriptor is open; the message points to one part, which is `buffer`, exclusively borrowed, and to `control`, each with
    // its length.
    let length = unsafe { libc::recvmsg(fd.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT) };
    let length = usize::try_from(length).map_err(|_| last_error())?;
    Ok(Heard { length, namespace: namespace(&message) })
}

fn namespace(message: &libc::msghdr) -> Option<i32> {
    // SAFETY: recvmsg(2) has filled in `message`; its control buffer is still borrowed by the caller.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(message) };
    // SAFETY: the macros return null or a pointer to a whole header inside the control buffer, which the kernel wrote.
    while let Some(header) = unsafe { next.as_ref() } {
        if (header.cmsg_level, header.cmsg_type) == (libc::SOL_NETLINK, libc::NETLINK_LISTEN_ALL_NSID) {
            // SAFETY: as above; the kernel writes an int behind a header of this type (`netlink_cmsg_listen_all_nsid`).
            return Some(unsafe { libc::CMSG_DATA(header).cast::<i32>().read_unaligned() });
        }
        // SAFETY: `message` and `header` are those of this walk.
        next = unsafe { libc::CMSG_NXTHDR(message, header) };
    }
    None
}
