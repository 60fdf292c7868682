//! A timer by which a worker wakes on time: what it waits with counts in milliseconds, and an impaired packet is due to the microsecond.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime};

/// Becomes readable once after each time that it is set.
pub(super) struct Timer(OwnedFd);

impl Timer {
    /// One that makes waiting on `registry` end, with this token.
    ///
    /// # Errors
    /// The kernel gives no descriptor.
    pub(super) fn new(registry: &Registry, token: Token) -> io::Result<Self> {
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        // Readiness is edge-triggered, and each end of a time is an edge of its own: it need not be read.
        registry.register(&mut SourceFd(&timer.as_raw_fd()), token, Interest::READABLE)?;
        Ok(Self(timer))
    }

    /// Sets it anew. A time of nothing would stop it, so it is a nanosecond at least.
    pub(super) fn set(&self, time: Duration) {
        let time = time.max(Duration::from_nanos(1));
        let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        let once = Itimerspec {
            it_interval: Timespec { tv_sec: 0, tv_nsec: 0 },
            it_value: Timespec { tv_sec: seconds, tv_nsec: time.subsec_nanos().into() },
        };
        // With a descriptor of its own and a time in range it cannot fail.
        let _ = timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &once);
    }
}
