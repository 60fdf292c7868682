use std::time::{Duration, Instant};

/// A limit on frames, as those that go to many: a token bucket that holds one second's worth, filled continuously.
#[derive(Debug, Clone)]
pub(super) struct StormLimit {
    per_second: u32,
    /// Frames that may pass now, in billionths.
    tokens: u64,
    filled: Instant,
}

const FRAME: u64 = 1_000_000_000;

impl StormLimit {
    /// A full bucket for `per_second` frames.
    pub(super) fn new(per_second: u32, now: Instant) -> Self {
        Self { per_second, tokens: u64::from(per_second) * FRAME, filled: now }
    }

    /// Whether so many more frames, which are one super-frame, may pass; if so they are counted. More than the bucket holds
    /// pass when it is full.
    pub(super) fn admit(&mut self, frames: usize, now: Instant) -> bool {
        let full = u64::from(self.per_second) * FRAME;
        let passed = now.saturating_duration_since(self.filled).min(Duration::from_secs(1));
        let gained = passed.as_nanos().saturating_mul(self.per_second.into());
        self.tokens = full.min(self.tokens.saturating_add(u64::try_from(gained).unwrap_or(full)));
        self.filled = now;
        let cost = full.min((frames as u64).saturating_mul(FRAME)).max(FRAME);
        let left = self.tokens.checked_sub(cost);
        self.tokens = left.unwrap_or(self.tokens);
        left.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_of_one_second_passes_and_then_the_rate() {
        let start = Instant::now();
        let mut limit = StormLimit::new(100, start);
        assert_eq!((0..1000).filter(|_| limit.admit(1, start)).count(), 100);
        assert!(!limit.admit(1, start + Duration::from_millis(9)));
        assert!(limit.admit(1, start + Duration::from_millis(10)));
        let later = start + Duration::from_secs(3600);
        assert_eq!((0..1000).filter(|_| limit.admit(1, later)).count(), 100, "quiet time is not saved up beyond a second");
    }

    #[test]
    fn a_super_frame_counts_as_its_segments() {
        let start = Instant::now();
        let mut limit = StormLimit::new(100, start);
        assert_eq!((0..10).filter(|_| limit.admit(40, start)).count(), 2);
        assert!(limit.admit(20, start) && !limit.admit(1, start));
        let later = |millis| start + Duration::from_millis(millis);
        assert!(!limit.admit(200, later(900)));
        assert!(limit.admit(200, later(1000)), "as much as ever will be there");
        assert!(!limit.admit(1, later(1000)));
    }

    #[test]
    fn the_largest_limit_does_not_overflow() {
        let start = Instant::now();
        let mut limit = StormLimit::new(u32::MAX, start);
        assert!(limit.admit(1, start + Duration::from_secs(1 << 40)));
    }
}
