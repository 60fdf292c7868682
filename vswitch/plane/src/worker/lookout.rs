//! How long a worker without work looks for more before it sleeps, by the gaps between what came last. In a quick exchange a wake-up takes longer than
//! the gap between two frames; where the gaps are long, looking would take the processor from the process that sends the next frame.

use std::time::{Duration, Instant};

/// Gaps that are longer on average are slept through, and none is looked through for longer. A round trip through a tunnel of two switches on two
/// cores is half of that.
const LONGEST: Duration = Duration::from_micros(100);
/// What is looked through however short the gaps are.
const SHORTEST: Duration = Duration::from_micros(20);
/// What a gap counts for at most, so that one pause is forgotten after a few frames.
const PAUSE: Duration = Duration::from_millis(1);

/// When there was work, and how far apart.
#[derive(Debug)]
pub(super) struct Lookout {
    worked: Instant,
    /// A moving mean of the gaps: the last one counts for a quarter, all before it for the rest.
    gap: Duration,
}

impl Lookout {
    /// Of a worker that has not had any work.
    pub(super) const fn new(now: Instant) -> Self {
        Self { worked: now, gap: PAUSE }
    }

    /// Takes note that there was work.
    pub(super) fn note_work(&mut self, now: Instant) {
        let gap = now.saturating_duration_since(self.worked).min(PAUSE);
        (self.worked, self.gap) = (now, (self.gap * 3 + gap) / 4);
    }

    /// Whether to look again instead of sleeping.
    pub(super) fn looks(&self, now: Instant) -> bool {
        let time = (self.gap * 2).clamp(SHORTEST, LONGEST);
        self.gap < LONGEST && now.saturating_duration_since(self.worked) < time
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A worker that had work so many times, so far apart.
    fn after(works: u32, gap: Duration) -> (Lookout, Instant) {
        let start = Instant::now();
        let mut lookout = Lookout::new(start);
        (1..=works).for_each(|work| lookout.note_work(start + gap * work));
        (lookout, start + gap * works)
    }

    fn looks_for(lookout: &Lookout, now: Instant) -> u128 {
        (0..300).map(Duration::from_micros).take_while(|time| lookout.looks(now + *time)).count() as u128
    }

    #[test]
    fn it_looks_for_as_long_as_the_next_frame_may_take_and_sleeps_through_long_gaps() {
        let of = |gap| {
            let (lookout, now) = after(50, Duration::from_micros(gap));
            looks_for(&lookout, now)
        };
        assert_eq!([of(2), of(30), of(45), of(80), of(120), of(1000), of(1_000_000)], [20, 60, 90, 100, 0, 0, 0]);
    }

    #[test]
    fn a_quick_exchange_is_known_after_some_frames_and_a_pause_ends_it() {
        let (lookout, now) = after(3, Duration::from_micros(10));
        assert_eq!(looks_for(&lookout, now), 0, "one frame after another may be chance");
        let (mut lookout, now) = after(20, Duration::from_micros(10));
        assert!(looks_for(&lookout, now) >= 20);
        lookout.note_work(now + Duration::from_secs(5));
        assert_eq!(looks_for(&lookout, now + Duration::from_secs(5)), 0);
    }
}
