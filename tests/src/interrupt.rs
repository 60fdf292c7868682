//! Ctrl-C and its like for programs that make labs: noted, so that what runs ends soon, unwinds, and the labs are cleared away.

use std::sync::atomic::{AtomicBool, Ordering};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Whether a signal asked the program to end. Harness functions that wait panic then.
pub fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// Notes SIGINT, SIGTERM and SIGHUP from now on, instead of dying by them.
pub fn catch() {
    extern "C" fn note(_: libc::c_int) {
        INTERRUPTED.store(true, Ordering::Relaxed);
    }
    let handler = note as extern "C" fn(libc::c_int);
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        // SAFETY: the handler stores one atomic, which a signal handler may.
        unsafe { libc::signal(signal, handler as libc::sighandler_t) };
    }
}
