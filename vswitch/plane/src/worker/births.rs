//! When the control side hears that sessions have begun, which it writes down for a successor: soon, and once until it has written.

use std::time::{Duration, Instant};

use super::{Event, Worker};

/// The shortest time between two looks.
const LOOK: Duration = Duration::from_millis(10);

/// What the control side knows of sessions that have begun.
pub(super) struct Births {
    /// How many had begun when they were last exported; `None`: it knows that others have, or there is no uplink with sessions.
    pub(super) known: Option<u64>,
    looked: Instant,
    /// Whether the worker has worked since.
    worked: bool,
}

impl Births {
    pub(super) const fn new(now: Instant) -> Self {
        Self { known: None, looked: now, worked: false }
    }
}

impl Worker {
    /// Tells the control side, if it is time and there are any; says how soon it may be time.
    pub(super) fn tell_births(&mut self, worked: bool, now: Instant) -> Duration {
        let births = &mut self.publisher.births;
        births.worked |= worked;
        let Some(known) = births.known.filter(|_| births.worked) else { return Duration::MAX };
        let wait = LOOK.saturating_sub(now.saturating_duration_since(births.looked));
        if !wait.is_zero() {
            return wait;
        }
        (births.looked, births.worked) = (now, false);
        if self.datapath.sessions_created().is_some_and(|created| created != known) {
            self.publisher.births.known = None;
            (self.notify)(Event::Sessions);
        }
        Duration::MAX
    }
}
