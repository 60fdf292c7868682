//! The one kind of limit: so much a second, with a burst after a quiet time. Floods that are too much are dropped, as tc's `police` does it; bytes
//! that are too much wait in a [`Shaper`](crate::shape::Shaper).
//!
//! All workers share a limiter, so it holds on whichever worker the flows are. It is the generic cell rate algorithm (ITU-T I.371, annex A),
//! and its whole state is one number. It outlives changes of its port that do not concern it ([`PortLimits::kept`]).
//!
//! Bytes count as they pass the switch, without the headers that segmentation will add. A super-frame passes or is dropped whole; where frames
//! are counted, it counts as its segments.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use api::{PortPolicy, Rate};

use super::Mode;

/// What may pass at once after a quiet time, in bytes, however small the rate is: two super-frames.
const LEAST_BURST: u64 = 128 << 10;
/// What may pass at once after a quiet time, in time at the full rate: as long as a worker that has other work may keep waiting packets waiting.
const BURST: Duration = Duration::from_millis(20);

/// Holds something to a rate.
#[derive(Debug)]
pub struct Limiter {
    /// Bits, or frames, that may pass in a second.
    per_second: u64,
    /// How far ahead of now, in nanoseconds, what passes may be.
    burst: u64,
    began: Instant,
    /// When, in nanoseconds since it began, all that has passed would have passed at the rate.
    due: AtomicU64,
}

impl Limiter {
    /// A limit on bytes, through which nothing has passed yet.
    pub fn of_bytes(rate: Rate, now: Instant) -> Self {
        let per_second = rate.bits_per_second();
        let burst = nanoseconds(BURST).max(time(LEAST_BURST * 8, per_second));
        Self { per_second, burst, began: now, due: AtomicU64::new(0) }
    }

    /// A limit on frames, of which one second's worth passes at once after a quiet time.
    pub fn of_frames(per_second: u32, now: Instant) -> Self {
        Self { per_second: per_second.into(), burst: 1_000_000_000, began: now, due: AtomicU64::new(0) }
    }

    /// The time until all that has passed would have passed at the rate: what a limiter that carries on begins with.
    pub fn debt(&self, now: Instant) -> Duration {
        let now = nanoseconds(now.saturating_duration_since(self.began));
        Duration::from_nanos(self.due.load(Ordering::Relaxed).saturating_sub(now))
    }

    /// The same limiter, through which passed already what makes this debt; no more than a burst makes.
    #[must_use]
    pub fn with_debt(self, debt: Duration) -> Self {
        Self { due: AtomicU64::new(nanoseconds(debt).min(self.burst)), ..self }
    }

    /// Whether a frame of so many bytes may pass; if so it is counted.
    pub(crate) fn admit_bytes(&self, bytes: usize, now: Instant) -> bool {
        self.admit(self.time_of(bytes), now, Mode::Live)
    }

    /// How long a frame of so many bytes waits until it may pass.
    pub(crate) fn wait(&self, bytes: usize, now: Instant) -> Duration {
        let now = nanoseconds(now.saturating_duration_since(self.began));
        let due = self.due.load(Ordering::Relaxed).max(now).saturating_add(self.time_of(bytes));
        Duration::from_nanos(due.saturating_sub(now.saturating_add(self.burst)))
    }

    /// Counts a frame of so many bytes that passes whether it may or not.
    pub(crate) fn charge(&self, bytes: usize, now: Instant) {
        let now = nanoseconds(now.saturating_duration_since(self.began));
        let after = |due: u64| Some(due.max(now).saturating_add(self.time_of(bytes)));
        let _ = self.due.fetch_update(Ordering::Relaxed, Ordering::Relaxed, after);
    }

    /// How many bytes pass in this time.
    pub(crate) fn bytes_in(&self, time: Duration) -> u64 {
        let bits = time.as_nanos() * u128::from(self.per_second) / 1_000_000_000;
        u64::try_from(bits / 8).unwrap_or(u64::MAX)
    }

    /// Nanoseconds that so many bytes take.
    fn time_of(&self, bytes: usize) -> u64 {
        time((bytes as u64).saturating_mul(8), self.per_second)
    }

    /// Whether so many frames, which are one super-frame, may pass; if so they are counted, as bytes are. A super-frame of more frames than a
    /// burst has passes when nothing passed for a second.
    pub(super) fn admit_frames(&self, frames: usize, now: Instant, mode: Mode) -> bool {
        self.admit(time((frames as u64).max(1), self.per_second).min(self.burst), now, mode)
    }

    fn admit(&self, cost: u64, now: Instant, mode: Mode) -> bool {
        let now = nanoseconds(now.saturating_duration_since(self.began));
        let ahead = now.saturating_add(self.burst);
        let after = |due: u64| Some(due.max(now).saturating_add(cost)).filter(|due| *due <= ahead);
        match mode {
            Mode::Live => self.due.fetch_update(Ordering::Relaxed, Ordering::Relaxed, after).is_ok(),
            Mode::Dry => after(self.due.load(Ordering::Relaxed)).is_some(),
        }
    }
}

/// What holds a port to the limits of its policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortLimits {
    /// For frames into the switch that go to many: broadcast, multicast, and unicast to an unknown address.
    pub broadcast: Option<Arc<Limiter>>,
    /// For all frames into the switch.
    pub send: Option<Arc<Limiter>>,
    /// For the frames that leave by the port.
    pub receive: Option<Arc<Limiter>>,
}

impl PortLimits {
    /// Those of a policy, through which nothing has passed yet.
    pub fn of(policy: &PortPolicy, now: Instant) -> Self {
        let of_bytes = |rate: Option<Rate>| rate.map(|rate| Arc::new(Limiter::of_bytes(rate, now)));
        let broadcast = policy.broadcast_limit.map(|rate| Arc::new(Limiter::of_frames(rate.frames(), now)));
        Self { broadcast, send: of_bytes(policy.send_rate), receive: of_bytes(policy.receive_rate) }
    }

    /// Those of a port that is `set` anew: each old one that has the same rate.
    pub(super) fn kept(old: Option<&Self>, set: &Self) -> Self {
        let Some(old) = old else { return set.clone() };
        let kept = |of: fn(&Self) -> &Option<Arc<Limiter>>| {
            let (old, set) = (of(old), of(set));
            if old == set { old.clone() } else { set.clone() }
        };
        Self {
            broadcast: kept(|limits| &limits.broadcast),
            send: kept(|limits| &limits.send),
            receive: kept(|limits| &limits.receive),
        }
    }
}

/// Two that hold to the same rate are alike.
impl PartialEq for Limiter {
    fn eq(&self, other: &Self) -> bool {
        (self.per_second, self.burst) == (other.per_second, other.burst)
    }
}

impl Eq for Limiter {}

/// Nanoseconds that so many bits or frames take.
fn time(units: u64, per_second: u64) -> u64 {
    let time = u128::from(units) * 1_000_000_000 / u128::from(per_second.max(1));
    u64::try_from(time).unwrap_or(u64::MAX)
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limiter(rate: &str, now: Instant) -> Limiter {
        Limiter::of_bytes(rate.parse().unwrap(), now)
    }

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let start = Instant::now();
        let limiter = limiter("80mbit", start);
        let burst = (0..10_000).filter(|_| limiter.admit_bytes(1000, start)).count();
        assert_eq!(burst, 200, "a fiftieth of a second at 10 MB/s");
        let passed = (1..=20_000).filter(|step| limiter.admit_bytes(1000, start + Duration::from_micros(50 * step))).count();
        assert_eq!(passed, 10_000, "one second at 10 MB/s");
        let later = start + Duration::from_secs(3600);
        assert_eq!((0..10_000).filter(|_| limiter.admit_bytes(1000, later)).count(), 200, "quiet time is not saved up");
    }

    #[test]
    fn one_that_carries_on_lets_as_much_pass_as_the_one_before_would_have() {
        let start = Instant::now();
        for passed in [0, 50, 199, 200] {
            let old = limiter("80mbit", start);
            (0..passed).for_each(|_| assert!(old.admit_bytes(1000, start)));
            let now = start + Duration::from_millis(7);
            let later = now + Duration::from_secs(1000);
            let new = limiter("80mbit", later).with_debt(old.debt(now));
            let count = |limiter: &Limiter, at| (0..10_000).filter(|_| limiter.admit_bytes(1000, at)).count();
            assert_eq!(count(&new, later), count(&old, now), "{passed}");
        }
        let most = limiter("80mbit", start).with_debt(Duration::from_secs(3600));
        assert!(most.admit_bytes(1000, start + Duration::from_millis(1)), "nonsense is no more than a burst");
    }

    #[test]
    fn a_small_rate_lets_super_frames_pass() {
        let start = Instant::now();
        let limiter = limiter("8kbit", start);
        assert_eq!((0..10).filter(|_| limiter.admit_bytes(65_536, start)).count(), 2);
        assert!(!limiter.admit_bytes(1, start + Duration::from_micros(500)));
        assert!(limiter.admit_bytes(1, start + Duration::from_millis(1)), "a byte each millisecond");
    }

    #[test]
    fn what_is_dropped_is_not_counted() {
        let start = Instant::now();
        let limiter = limiter("8kbit", start);
        assert!(limiter.admit_bytes(131_000, start));
        assert!((0..1000).all(|_| !limiter.admit_bytes(1000, start)));
        assert!(limiter.admit_bytes(72, start));
    }

    #[test]
    fn the_far_future_does_not_overflow() {
        let start = Instant::now();
        let far = start + Duration::from_secs(1 << 40);
        assert!(limiter("1tbit", start).admit_bytes(1500, far));
        assert!(Limiter::of_frames(u32::MAX, start).admit_frames(1, far, Mode::Live));
    }

    #[test]
    fn a_burst_of_one_second_passes_and_then_so_many_frames_a_second() {
        let start = Instant::now();
        let limit = Limiter::of_frames(100, start);
        assert_eq!((0..1000).filter(|_| limit.admit_frames(1, start, Mode::Live)).count(), 100);
        assert!(!limit.admit_frames(1, start + Duration::from_millis(9), Mode::Live));
        assert!(limit.admit_frames(1, start + Duration::from_millis(10), Mode::Live));
        let later = start + Duration::from_secs(3600);
        assert_eq!((0..1000).filter(|_| limit.admit_frames(1, later, Mode::Live)).count(), 100, "quiet time is not saved up");
    }

    #[test]
    fn a_super_frame_counts_as_its_segments() {
        let start = Instant::now();
        let limit = Limiter::of_frames(100, start);
        assert_eq!((0..10).filter(|_| limit.admit_frames(40, start, Mode::Live)).count(), 2);
        assert!(limit.admit_frames(20, start, Mode::Live) && !limit.admit_frames(1, start, Mode::Live));
        let later = |millis| start + Duration::from_millis(millis);
        assert!(!limit.admit_frames(200, later(900), Mode::Live));
        assert!(limit.admit_frames(200, later(1000), Mode::Live), "as much as ever will be there");
        assert!(!limit.admit_frames(1, later(1000), Mode::Live));
    }
}
