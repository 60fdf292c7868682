//! A limit on the bytes of a port in one direction: a policer, as Open vSwitch's `ingress_policing_rate` and tc's `police` are.
//!
//! What is too much is dropped, not delayed, and TCP settles a little below the limit. Frames count as they pass the switch, without the
//! headers that segmentation will add; a super-frame passes or is dropped whole. All workers share a port's limiter, so the limit holds
//! whatever workers its flows are on: it is the generic cell rate algorithm (ITU-T I.371, annex A), whose whole state is one number.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use api::Rate;

/// What may pass at once after a quiet time, in bytes, however small the rate is: two super-frames.
const LEAST_BURST: u64 = 128 << 10;
/// What may pass at once after a quiet time, in time at the full rate. TCP that has lost the end of a burst is silent for 200 ms or more
/// (`TCP_RTO_MIN`); what it might have sent meanwhile must not be lost too, or it gets half the rate.
const BURST: Duration = Duration::from_millis(300);

/// Holds the frames of a port to a rate.
#[derive(Debug)]
pub struct Limiter {
    rate: Rate,
    /// How far ahead of now, in nanoseconds, what passes may be.
    burst: u64,
    began: Instant,
    /// When, in nanoseconds since it began, all that has passed would have passed at the rate.
    due: AtomicU64,
}

impl Limiter {
    /// A limiter through which nothing has passed yet.
    pub fn new(rate: Rate, now: Instant) -> Self {
        let burst = nanoseconds(BURST).max(time(rate, LEAST_BURST));
        Self { rate, burst, began: now, due: AtomicU64::new(0) }
    }

    /// Whether a frame of so many bytes may pass; if so it is counted.
    pub(crate) fn admit(&self, bytes: usize, now: Instant) -> bool {
        let now = nanoseconds(now.saturating_duration_since(self.began));
        let ahead = now.saturating_add(self.burst);
        let cost = time(self.rate, bytes as u64);
        let passed = self.due.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |due| {
            let due = due.max(now).saturating_add(cost);
            (due <= ahead).then_some(due)
        });
        passed.is_ok()
    }
}

/// Two that hold frames to the same rate are alike.
impl PartialEq for Limiter {
    fn eq(&self, other: &Self) -> bool {
        self.rate == other.rate
    }
}

impl Eq for Limiter {}

/// Nanoseconds that so many bytes take at a rate.
fn time(rate: Rate, bytes: u64) -> u64 {
    let time = u128::from(bytes) * 8 * 1_000_000_000 / u128::from(rate.bits_per_second());
    u64::try_from(time).unwrap_or(u64::MAX)
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limiter(rate: &str, now: Instant) -> Limiter {
        Limiter::new(rate.parse().unwrap(), now)
    }

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let start = Instant::now();
        let limiter = limiter("80mbit", start);
        let burst = (0..10_000).filter(|_| limiter.admit(1000, start)).count();
        assert_eq!(burst, 3000, "three tenths of a second at 10 MB/s");
        let passed = (1..=20_000).filter(|step| limiter.admit(1000, start + Duration::from_micros(50 * step))).count();
        assert_eq!(passed, 10_000, "one second at 10 MB/s");
        let later = start + Duration::from_secs(3600);
        assert_eq!((0..10_000).filter(|_| limiter.admit(1000, later)).count(), 3000, "quiet time is not saved up");
    }

    #[test]
    fn a_small_rate_lets_super_frames_pass() {
        let start = Instant::now();
        let limiter = limiter("8kbit", start);
        assert_eq!((0..10).filter(|_| limiter.admit(65_536, start)).count(), 2);
        assert!(!limiter.admit(1, start + Duration::from_micros(500)));
        assert!(limiter.admit(1, start + Duration::from_millis(1)), "a byte each millisecond");
    }

    #[test]
    fn what_is_dropped_is_not_counted() {
        let start = Instant::now();
        let limiter = limiter("8kbit", start);
        assert!(limiter.admit(131_000, start));
        assert!((0..1000).all(|_| !limiter.admit(1000, start)));
        assert!(limiter.admit(72, start));
    }

    #[test]
    fn the_far_future_does_not_overflow() {
        let start = Instant::now();
        let limiter = limiter("1tbit", start);
        assert!(limiter.admit(1500, start + Duration::from_secs(1 << 40)));
    }
}
