//! System calls that no safe crate wraps: every `unsafe` block of the workspace.
//!
//! Each function does one thing, takes what it touches by reference, and reports what the kernel said as an
//! [`Errno`]. What has a safe wrapper in rustix (`readv`, `writev`, `setns`, `mount`) is called from there.

pub mod datagram;
pub mod ethtool;
pub mod netns;
pub mod packet;
pub mod pcap;
pub mod tun;

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;

/// A system call's result: `-1` means that `errno` says why.
fn check(result: libc::c_int) -> Result<libc::c_int, Errno> {
    if result >= 0 { Ok(result) } else { Err(last_error()) }
}

fn last_error() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

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
