//! Network and mount namespaces of threads.

use std::os::fd::BorrowedFd;

use rustix::io::Errno;
use rustix::thread::{LinkNameSpaceType, UnshareFlags};

/// Moves the calling thread, and no other, into the network namespace that `file` stands for.
///
/// # Errors
/// `EINVAL` if the file is no network namespace, `EPERM` without `CAP_SYS_ADMIN`.
pub fn enter(file: BorrowedFd<'_>) -> Result<(), Errno> {
    rustix::thread::move_into_link_name_space(file, Some(LinkNameSpaceType::Network))
}

/// Moves the calling thread, and no other, into the mount namespace that `file` stands for. Its root and working directories become its own.
///
/// # Errors
/// `EINVAL` if the file is no mount namespace, `EPERM` without `CAP_SYS_ADMIN` and `CAP_SYS_CHROOT`.
pub fn enter_mounts(file: BorrowedFd<'_>) -> Result<(), Errno> {
    // SAFETY: as for `unshare`; the flag is FS alone.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::FS) }?;
    rustix::thread::move_into_link_name_space(file, Some(LinkNameSpaceType::Mount))
}

/// Moves the calling thread, and no other, into a new network namespace.
///
/// # Errors
/// `EPERM` without `CAP_SYS_ADMIN`, `ENOSPC` above the limit of namespaces.
pub fn unshare() -> Result<(), Errno> {
    // SAFETY: unsharing is unsafe for the flag FILES only, which leaves threads with different descriptor tables. NEWNET
    // changes what sockets opened later belong to and no descriptor or memory.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }
}
