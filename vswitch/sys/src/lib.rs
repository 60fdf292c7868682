//! System calls that no safe crate wraps: every `unsafe` block of the workspace.
//!
//! Each function does one thing, takes what it touches by reference, and reports what the kernel said as an
//! [`Errno`]. What has a safe wrapper in rustix (`readv`, `writev`, `setns`, `mount`) is called from there.

pub mod activation;
pub mod bpf;
pub mod datagram;
pub mod ethtool;
pub mod netlink;
pub mod netns;
pub mod packet;
pub mod pcap;
pub mod tun;
pub mod udp;

use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::Errno;

/// A system call's result: `-1` means that `errno` says why.
fn check(result: libc::c_int) -> Result<libc::c_int, Errno> {
    if result >= 0 { Ok(result) } else { Err(last_error()) }
}

fn last_error() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

/// What the process that connected to a Unix socket is known by as long as it is open: no other process is meant by it, as with a number (Linux 6.5).
///
/// # Errors
/// `ENOPROTOOPT` on older kernels; `ESRCH` or `EINVAL` where it has ended.
pub fn peer_process(socket: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    /// `SO_PEERPIDFD` (asm-generic/socket.h).
    const SO_PEERPIDFD: libc::c_int = 77;
    let mut process: libc::c_int = -1;
    let mut length = length_of::<libc::c_int>()?;
    let value = std::ptr::from_mut(&mut process).cast();
    // SAFETY: the descriptor is open; the kernel writes at most `length` bytes, the size of an int, to `process`.
    check(unsafe { libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, SO_PEERPIDFD, value, &raw mut length) })?;
    // SAFETY: the kernel has just opened it for this process, and nothing else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(process) })
}

/// Asks for room for `bytes` in each direction of a socket: beyond the system's limits with `CAP_NET_ADMIN`, else up to them.
///
/// # Errors
/// What setsockopt(2) says.
pub fn set_buffers(fd: BorrowedFd<'_>, bytes: i32) -> Result<(), Errno> {
    let force = |force, plain| set(fd, libc::SOL_SOCKET, force, &bytes).or_else(|_| set(fd, libc::SOL_SOCKET, plain, &bytes));
    force(libc::SO_RCVBUFFORCE, libc::SO_RCVBUF)?;
    force(libc::SO_SNDBUFFORCE, libc::SO_SNDBUF)
}

fn set<T: Copy>(fd: BorrowedFd<'_>, level: libc::c_int, option: libc::c_int, value: &T) -> Result<(), Errno> {
    let length = length_of::<T>()?;
    // SAFETY: the descriptor is open; the kernel reads at most `length` bytes, the size of `value`.
    check(unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, std::ptr::from_ref(value).cast(), length) }).map(drop)
}

fn length_of<T>() -> Result<libc::socklen_t, Errno> {
    libc::socklen_t::try_from(size_of::<T>()).map_err(|_| Errno::INVAL)
}

/// Room for the few control messages that we ask for: each is of a header of 16 bytes and at most 24 of data.
const CONTROL: usize = 128;

/// Aligned as `struct cmsghdr` has to be.
#[repr(align(8))]
struct Control([MaybeUninit<u8>; CONTROL]);

/// An interface request (netdevice(7)) for `name`, cut to what the kernel holds, with a zeroed union.
fn request(name: &str) -> libc::ifreq {
    let union = libc::__c_anonymous_ifr_ifru { ifru_slave: [0; libc::IFNAMSIZ] };
    let mut request = libc::ifreq { ifr_name: [0; libc::IFNAMSIZ], ifr_ifru: union };
    for (place, byte) in request.ifr_name.iter_mut().take(libc::IFNAMSIZ - 1).zip(name.bytes()) {
        *place = libc::c_char::from_ne_bytes([byte]);
    }
    request
}

/// An ioctl that reads and writes an interface request and nothing else.
fn interface_ioctl(fd: BorrowedFd<'_>, operation: libc::Ioctl, request: &mut libc::ifreq) -> Result<(), Errno> {
    // SAFETY: the descriptor is open for the whole call, and every caller passes an operation whose argument is a pointer to
    // `struct ifreq`, which `request` is, exclusively borrowed; any pointer inside it is the caller's, valid while it waits.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), operation, std::ptr::from_mut(request)) }).map(drop)
}
