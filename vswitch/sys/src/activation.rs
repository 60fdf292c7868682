//! Descriptors that the service manager passes (sd_listen_fds(3)): sockets that it opened, and what an earlier process gave it to keep.

use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// The descriptors that this process was started with, by their names, which are this call's to close. Later calls get none.
pub fn passed() -> Vec<(String, OwnedFd)> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if TAKEN.swap(true, Ordering::Relaxed) {
        return Vec::new();
    }
    let Ok(descriptors) = sd_notify::listen_fds_with_names() else { return Vec::new() };
    // SAFETY: LISTEN_PID says that these descriptors are for this process, they were found open just now, no other code
    // in it knows their numbers, and this line runs once.
    let owned = |descriptor| unsafe { OwnedFd::from_raw_fd(descriptor) };
    descriptors.map(|(descriptor, name)| (name, owned(descriptor))).collect()
}
