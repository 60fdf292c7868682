//! How long to wait before a store is asked again: longer each time, and no two hosts alike, so that a store that comes back is not overrun.

use std::time::Duration;

/// The waits between attempts.
#[derive(Clone, Debug, Default)]
pub struct Backoff {
    attempts: u32,
}

impl Backoff {
    /// The next wait: from 0.25 s, doubled each time, to 8 s at most, and between half and all of that as `random` (0 to 1) says.
    pub fn wait(&mut self, random: f64) -> Duration {
        let most = FIRST.saturating_mul(1 << self.attempts.min(DOUBLINGS)).min(LONGEST);
        self.attempts = self.attempts.saturating_add(1);
        most.mul_f64(0.5 + random.clamp(0.0, 1.0) / 2.0)
    }

    /// It has worked.
    pub fn reset(&mut self) {
        self.attempts = 0;
    }
}

const FIRST: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(8);
const DOUBLINGS: u32 = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_limit_and_differ() {
        let mut backoff = Backoff::default();
        let waits: Vec<u128> = (0..7).map(|_| backoff.wait(1.0).as_millis()).collect();
        assert_eq!(waits, [250, 500, 1000, 2000, 4000, 8000, 8000]);
        assert_eq!(backoff.wait(0.0).as_millis(), 4000);
        backoff.reset();
        assert_eq!(backoff.wait(0.5).as_micros(), 187_500);
    }
}
