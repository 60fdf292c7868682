//! Whose turn it is among the queues of a TAP: deficit round robin, in which a queue that had nothing before comes first (RFC 8290, sections
//! 4.1 and 4.2; CoDel itself has no place here, for what waits in a queue is the kernel's).
//!
//! A turn is so few bytes that what waits in the other queues need not wait for long. A queue that read more than its turn has so much less the
//! next time.

use std::collections::VecDeque;

use packet::MAX_FRAME;

/// Bytes of a turn.
pub(super) const TURN: usize = 256 * 1024;
/// So that a queue can always pay for the frame that went beyond its turn by its next one.
const _: () = assert!(TURN > MAX_FRAME);

/// The queues that may have something to read, in order.
#[derive(Debug)]
pub(super) struct Turns {
    queues: Vec<Standing>,
    /// Those that had nothing before.
    fresh: VecDeque<usize>,
    /// Those that have had a turn since.
    served: VecDeque<usize>,
}

/// How a queue stands.
#[derive(Clone, Copy, Debug, Default)]
struct Standing {
    /// Whether it is in one of the lists.
    is_due: bool,
    /// Whether that is the list of those that had nothing before.
    is_fresh: bool,
    /// Bytes that it has read beyond its last turn.
    debt: usize,
    /// Frames that have to be read from the first queue before this one may be read, for they are older.
    behind: usize,
}

/// What was read from a queue in its turn.
#[derive(Clone, Copy, Debug)]
pub(super) struct Read {
    pub(super) frames: usize,
    pub(super) bytes: usize,
    /// Whether nothing is left.
    pub(super) drained: bool,
}

impl Turns {
    /// The turns of so many queues, each of which may have something already.
    pub(super) fn of(count: usize) -> Self {
        let standing = Standing { is_due: true, is_fresh: true, ..Standing::default() };
        Self { queues: vec![standing; count], fresh: (0..count).collect(), served: VecDeque::new() }
    }

    /// Takes note that a queue may have something.
    pub(super) fn wake(&mut self, queue: usize) {
        if let Some(standing) = self.queues.get_mut(queue).filter(|standing| !standing.is_due) {
            (standing.is_due, standing.is_fresh) = (true, true);
            self.fresh.push_back(queue);
        }
    }

    /// The queue to be read now, and how many bytes of it. What it came to must be told by [`Turns::end`].
    pub(super) fn next(&mut self) -> Option<(usize, usize)> {
        [&mut self.fresh, &mut self.served].into_iter().find_map(|list| {
            let may_be_read = |queue: &usize| self.queues.get(*queue).is_some_and(|standing| standing.behind == 0);
            let queue = list.remove(list.iter().position(may_be_read)?)?;
            let debt = self.queues.get(queue).map_or(0, |standing| standing.debt);
            Some((queue, TURN - debt))
        })
    }

    /// Takes note of what a turn came to. A queue that had nothing before, and has nothing now, is asked once more behind the others: if it
    /// came first every time, it could keep them from ever having a turn.
    pub(super) fn end(&mut self, queue: usize, read: Read) {
        if queue == FIRST {
            let passed = if read.drained { usize::MAX } else { read.frames };
            self.queues.iter_mut().for_each(|standing| standing.behind = standing.behind.saturating_sub(passed));
        }
        let Some(standing) = self.queues.get_mut(queue) else { return };
        standing.debt = if read.drained { 0 } else { (standing.debt + read.bytes).saturating_sub(TURN) };
        standing.is_due = !read.drained || standing.is_fresh && !self.served.is_empty();
        standing.is_fresh = false;
        if standing.is_due {
            self.served.push_back(queue);
        }
    }

    /// Keeps a queue from being read before so many frames of the first one have been, or all that it has.
    pub(super) fn hold(&mut self, queue: usize, frames: usize) {
        if let Some(standing) = self.queues.get_mut(queue).filter(|_| queue != FIRST) {
            standing.behind = frames;
        }
    }

    /// Whether any queue may have something.
    pub(super) fn are_due(&self) -> bool {
        !self.fresh.is_empty() || !self.served.is_empty()
    }

    /// Whether this queue may have something.
    pub(super) fn is_due(&self, queue: usize) -> bool {
        self.queues.get(queue).is_some_and(|standing| standing.is_due)
    }
}

/// The queue behind which others may have to wait.
const FIRST: usize = 0;

#[cfg(test)]
mod tests {
    use super::*;

    const MORE: Read = Read { frames: 2, bytes: TURN, drained: false };
    const NOTHING: Read = Read { frames: 0, bytes: 0, drained: true };

    /// Turns of queues of which none has anything.
    fn quiet(count: usize) -> Turns {
        let mut turns = Turns::of(count);
        while let Some((queue, _)) = turns.next() {
            turns.end(queue, NOTHING);
        }
        turns
    }

    fn turn(turns: &mut Turns, read: Read) -> Option<usize> {
        let (queue, _) = turns.next()?;
        turns.end(queue, read);
        Some(queue)
    }

    #[test]
    fn all_are_asked_at_first() {
        let mut turns = Turns::of(3);
        assert_eq!([(); 4].map(|()| turn(&mut turns, NOTHING)), [Some(0), Some(1), Some(2), None]);
        assert!(!turns.are_due());
    }

    #[test]
    fn busy_queues_take_turns_and_what_had_nothing_comes_first() {
        let mut turns = quiet(4);
        [1, 2].into_iter().for_each(|queue| turns.wake(queue));
        assert_eq!([(); 5].map(|()| turn(&mut turns, MORE)), [1, 2, 1, 2, 1].map(Some));
        turns.wake(3);
        turns.wake(3);
        assert_eq!(turn(&mut turns, NOTHING), Some(3));
        assert_eq!([(); 2].map(|()| turn(&mut turns, MORE)), [2, 1].map(Some));
    }

    #[test]
    fn what_comes_and_goes_starves_no_other() {
        let mut turns = quiet(3);
        turns.wake(1);
        assert_eq!(turn(&mut turns, MORE), Some(1));
        let mut served = 0;
        for _ in 0..20 {
            turns.wake(2);
            let (queue, _) = turns.next().unwrap();
            served += usize::from(queue == 1);
            turns.end(queue, if queue == 1 { MORE } else { NOTHING });
        }
        assert!(served >= 6, "it had {served} of 20 turns");
    }

    #[test]
    fn a_turn_that_went_too_far_is_paid_for_by_the_next() {
        let mut turns = quiet(2);
        turns.wake(1);
        assert_eq!(turns.next(), Some((1, TURN)));
        turns.end(1, Read { bytes: TURN + 1000, ..MORE });
        assert_eq!(turns.next(), Some((1, TURN - 1000)));
        turns.end(1, Read { bytes: 60 * 64, frames: 64, drained: false });
        assert_eq!(turns.next(), Some((1, TURN)), "a turn of small frames leaves nothing for later");
    }

    #[test]
    fn a_queue_is_not_read_before_what_is_older() {
        let mut turns = quiet(3);
        turns.wake(0);
        assert_eq!(turn(&mut turns, MORE), Some(0));
        turns.hold(2, 3);
        turns.wake(2);
        assert_eq!([(); 3].map(|()| turn(&mut turns, MORE)), [0, 0, 2].map(Some), "two frames a turn");
        turns.hold(1, 8192);
        turns.wake(1);
        assert_eq!([(); 2].map(|()| turn(&mut turns, MORE)), [0, 2].map(Some));
        assert_eq!(turn(&mut turns, NOTHING), Some(0), "nothing older is left");
        assert_eq!(turn(&mut turns, MORE), Some(1));
    }
}
