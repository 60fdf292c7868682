//! When an address that moves to and fro is held. The forwarding database of the switch keeps one of these for each address.

/// How often one address has moved lately.
///
/// A station that moves to another host does it once, and is followed at once. In a loop between two hosts the same frames arrive
/// here and there all the time, and every one of them moves the address. So an address that moved [`Moves::MOST`] times within
/// [`Moves::WINDOW`] seconds goes back to where it was before that and stays for [`Moves::HOLD`] seconds: frames from elsewhere that
/// bear it are dropped meanwhile, which opens the loop for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Moves {
    /// Second of the first move in the window, or in which the hold began.
    since: u32,
    count: u8,
    held: bool,
}

/// What becomes of a move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The address moves; it is the first one of a window, so where it was is its home.
    First,
    /// The address moves.
    Again,
    /// It has moved too often: it goes home and is held there.
    Hold,
    /// It is held.
    Held,
}

impl Moves {
    /// Most moves within a window.
    pub const MOST: u8 = 5;
    /// Seconds in which they count.
    pub const WINDOW: u32 = 5;
    /// Seconds for which the address then stays.
    pub const HOLD: u32 = 10;

    /// Takes note of a frame from another place than the last one.
    pub fn note(&mut self, now: u32) -> Verdict {
        let passed = now.saturating_sub(self.since);
        if self.is_held(now) {
            return Verdict::Held;
        }
        if self.held || self.count == 0 || passed >= Self::WINDOW {
            *self = Self { since: now, count: 1, held: false };
            return Verdict::First;
        }
        self.count += 1;
        if self.count > Self::MOST {
            *self = Self { since: now, count: 0, held: true };
            return Verdict::Hold;
        }
        Verdict::Again
    }

    /// Whether the address stays where it is, whatever arrives elsewhere.
    pub const fn is_held(&self, now: u32) -> bool {
        self.held && now.saturating_sub(self.since) < Self::HOLD
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_station_that_moves_now_and_then_is_always_followed() {
        let mut moves = Moves::default();
        for hour in 0..100 {
            assert_eq!(moves.note(hour * 3600), Verdict::First);
            assert_eq!(moves.note(hour * 3600 + 1), Verdict::Again);
        }
    }

    #[test]
    fn an_address_that_moves_to_and_fro_is_held_and_then_free_again() {
        let mut moves = Moves::default();
        let verdicts: Vec<Verdict> = (0..8).map(|_| moves.note(100)).collect();
        use Verdict::{Again, First, Held, Hold};
        assert_eq!(verdicts, [First, Again, Again, Again, Again, Hold, Held, Held]);
        assert!(moves.is_held(109) && moves.note(109) == Held);
        assert!(!moves.is_held(110));
        assert_eq!(moves.note(110), First);
    }
}
