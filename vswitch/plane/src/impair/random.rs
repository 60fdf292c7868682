//! Random numbers that a seed repeats: a stream for each kind of decision, so that none of them changes another's.

use rand::rngs::Xoshiro256PlusPlus;
use rand::{Rng, SeedableRng};

use crate::capture::Direction;

/// One stream. The algorithm and how it is begun are the same in every release: a seed means the same packets.
#[derive(Debug)]
pub(super) struct Draws(Xoshiro256PlusPlus);

/// The streams of a line.
#[derive(Debug)]
pub(super) struct Streams {
    pub(super) loss: Draws,
    pub(super) duplicate: Draws,
    pub(super) corrupt: Draws,
    /// Which bit of a packet is turned.
    pub(super) bit: Draws,
    pub(super) jitter: Draws,
    pub(super) reorder: Draws,
}

impl Streams {
    pub(super) fn new(seed: u32, direction: Direction) -> Self {
        let way = if direction == Direction::In { 0 } else { 1 };
        let stream = |kind: u64| Draws(Xoshiro256PlusPlus::seed_from_u64(u64::from(seed) << 32 | way << 16 | kind));
        Self {
            loss: stream(1),
            duplicate: stream(2),
            corrupt: stream(3),
            bit: stream(4),
            jitter: stream(5),
            reorder: stream(6),
        }
    }
}

impl Draws {
    /// The next number, evenly from all that there are.
    pub(super) fn next(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// The next number between 0 and 1, neither of which it is.
    pub(super) fn fraction(&mut self) -> f64 {
        // As many bits as a number has, and half a step.
        ((self.next() >> 12) as f64 + 0.5) / (1_u64 << 52) as f64
    }

    /// The next number below `end`, which is not 0.
    pub(super) fn below(&mut self, end: usize) -> usize {
        let scaled = (u128::from(self.next()) * end as u128) >> 64;
        usize::try_from(scaled).unwrap_or_default()
    }
}
