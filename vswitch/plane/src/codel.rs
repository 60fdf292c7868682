//! CoDel (RFC 8289): which packets of a queue are dropped so that it stays short. Impaired lines and shapers ask it.

use std::time::{Duration, Instant};

/// How long a packet may wait (RFC 8289, section 4.4), where a packet takes no longer than that.
pub(crate) const TARGET: Duration = Duration::from_millis(5);
/// For how long all of them must have waited longer, before one is dropped.
pub(crate) const INTERVAL: Duration = Duration::from_millis(100);
/// With no more than a packet behind it, none is dropped.
const PACKET: usize = 1514;

/// The state of section 5.3 of the RFC.
#[derive(Debug, Default)]
pub(crate) struct Codel {
    /// When packets will have waited too long for an interval; `None`: the last one had not.
    first_above: Option<Instant>,
    dropping: bool,
    /// When the next one is dropped, while it drops.
    drop_next: Option<Instant>,
    /// Drops since it began to drop, and what that was when it began last.
    count: u32,
    last_count: u32,
}

/// What becomes of a packet at the head of the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Send,
    /// Drop it, or mark it.
    Drop,
}

impl Codel {
    /// Decides about a packet that has waited so long, where it may wait for `target`, and has so many bytes behind it, at the moment when it
    /// would be sent.
    pub(crate) fn decide(&mut self, (waited, target): (Duration, Duration), behind: usize, now: Instant) -> Verdict {
        let is_above = self.is_above((waited, target), behind, now);
        if !is_above {
            self.dropping = false;
            return Verdict::Send;
        }
        let next = self.drop_next.unwrap_or(now);
        if self.dropping {
            if now < next {
                return Verdict::Send;
            }
            self.count = self.count.saturating_add(1);
            self.drop_next = Some(next + pause(self.count));
            return Verdict::Drop;
        }
        // It goes on where it was if it stopped not long ago.
        let since = self.count.saturating_sub(self.last_count);
        let recently = self.drop_next.is_some_and(|next| now.saturating_duration_since(next) < 16 * INTERVAL);
        self.count = if since > 1 && recently { since } else { 1 };
        (self.dropping, self.last_count) = (true, self.count);
        self.drop_next = Some(now + pause(self.count));
        Verdict::Drop
    }

    /// Whether packets have waited too long for an interval.
    fn is_above(&mut self, (waited, target): (Duration, Duration), behind: usize, now: Instant) -> bool {
        if waited < target || behind <= PACKET {
            self.first_above = None;
            return false;
        }
        *self.first_above.get_or_insert(now + INTERVAL) <= now
    }
}

/// The time between two drops, after so many.
fn pause(count: u32) -> Duration {
    INTERVAL.div_f64(f64::from(count.max(1)).sqrt())
}
