//! Sockets that the service manager opened beforehand (sd_listen_fds(3)).

use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicBool, Ordering};

/// The Unix sockets that this process was started with, which are this call's to close. Later calls get none.
pub fn passed_sockets() -> Vec<UnixListener> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if TAKEN.swap(true, Ordering::Relaxed) {
        return Vec::new();
    }
    let Ok(descriptors) = sd_notify::listen_fds() else { return Vec::new() };
    // SAFETY: LISTEN_PID says that these descriptors are for this process, they were found open just now, nobody else
    // in it knows their numbers, and this line runs once.
    let owned = descriptors.map(|descriptor| unsafe { OwnedFd::from_raw_fd(descriptor) });
    owned.map(UnixListener::from).collect()
}
