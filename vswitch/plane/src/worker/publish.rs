//! How a worker shows its counters without being asked: it puts a copy where readers find it, so that neither waits for the other.
//!
//! A worker that has work makes a copy twice a second, and one more when its work has ended; one that has none makes one a second, with what
//! expires. A reader sees what was counted until half a second ago at most.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

use super::births::Births;
use super::{Event, Worker};
use crate::datapath::WorkerCounts;

/// The shortest time between two copies.
const PERIOD: Duration = Duration::from_millis(500);

/// When a worker makes the next copy, and where it puts it.
pub(super) struct Publisher {
    counts: Arc<ArcSwap<WorkerCounts>>,
    next: Instant,
    /// Whether there may be something to show since the last copy.
    stale: bool,
    /// What was told of sessions that have begun.
    pub(super) births: Births,
}

impl Publisher {
    pub(super) fn new(counts: Arc<ArcSwap<WorkerCounts>>, now: Instant) -> Self {
        Self { counts, next: now, stale: true, births: Births::new(now) }
    }

    /// Whether a copy is due. Else how long it may wait; nothing, if there is none to be made.
    fn look(&mut self, worked: bool, now: Instant) -> Result<(), Option<Duration>> {
        self.stale |= worked;
        if !self.stale {
            return Err(None);
        }
        if now < self.next {
            return Err(Some(self.next.saturating_duration_since(now)));
        }
        (self.stale, self.next) = (false, now + PERIOD);
        Ok(())
    }
}

impl Worker {
    /// Shows the counters if it is time. Returns how long the worker may sleep at most.
    pub(super) fn publish(&mut self, worked: bool, now: Instant) -> Duration {
        match self.publisher.look(worked, now) {
            Ok(()) => {}
            Err(wait) => return wait.unwrap_or(Duration::MAX),
        }
        self.publisher.counts.store(Arc::new(self.datapath.counts(now)));
        // The worker that routes hears what the others learn; they need not tell it as well.
        for (bridge, changes) in self.datapath.take_mac_changes() {
            if self.router.is_none() {
                (self.notify)(Event::Macs(bridge, Box::new(changes)));
            }
        }
        Duration::MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_made_twice_a_second_while_there_is_work_and_once_when_it_ends() {
        let start = Instant::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let mut publisher = Publisher::new(Arc::default(), start);
        assert_eq!(publisher.look(false, at(0)), Ok(()), "a new worker has something to show");
        assert_eq!(publisher.look(false, at(1)), Err(None));
        let copies = (2..2000).filter(|now| publisher.look(true, at(*now)).is_ok()).count();
        assert_eq!(copies, 3);
        assert_eq!(publisher.look(false, at(2000)), Ok(()), "what came last is shown");
        assert_eq!(publisher.look(true, at(2001)), Err(Some(Duration::from_millis(499))), "it wakes for that");
        assert_eq!(publisher.look(false, at(2500)), Ok(()));
        assert_eq!(publisher.look(false, at(9000)), Err(None));
    }
}
