use std::time::{Duration, Instant};

/// A limit on broadcast frames: a token bucket that holds one second's worth, filled continuously.
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

    /// Whether one more frame may pass; if so it is counted.
    pub(super) fn admit(&mut self, now: Instant) -> bool {
        let full = u64::from(self.per_second) * FRAME;
        let passed = now.saturating_duration_since(self.filled).min(Duration::from_secs(1));
        let gained = passed.as_nanos().saturating_mul(self.per_second.into());
        self.tokens = full.min(self.tokens.saturating_add(u64::try_from(gained).unwrap_or(full)));
        self.filled = now;
        let admitted = self.tokens >= FRAME;
        if admitted {
            self.tokens -= FRAME;
        }
        admitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_of_one_second_passes_and_then_the_rate() {
        let start = Instant::now();
        let mut limit = StormLimit::new(100, start);
        assert_eq!((0..1000).filter(|_| limit.admit(start)).count(), 100);
        assert!(!limit.admit(start + Duration::from_millis(9)));
        assert!(limit.admit(start + Duration::from_millis(10)));
        let later = start + Duration::from_secs(3600);
        assert_eq!((0..1000).filter(|_| limit.admit(later)).count(), 100, "quiet time is not saved up beyond a second");
    }

    #[test]
    fn the_largest_limit_does_not_overflow() {
        let start = Instant::now();
        let mut limit = StormLimit::new(u32::MAX, start);
        assert!(limit.admit(start + Duration::from_secs(1 << 40)));
    }
}
