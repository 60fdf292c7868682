//! When sessions end: one ring for each second, 8192 of them, two hours and a quarter.
//!
//! A packet only writes the session's new deadline; the session stays in its ring. When that ring's second comes, whatever got
//! a later deadline meanwhile moves on to the ring of that one. So a refresh costs nothing and touches no other session, the
//! end is exact to the second, and a session is looked at about once a timeout. A deadline beyond the wheel waits in its last
//! ring.

use crate::rings::{self, NONE};
use crate::session::{Session, ring};

/// Rings, a power of two.
const SLOTS: u32 = 8192;

#[derive(Debug)]
pub(crate) struct Wheel {
    heads: Box<[u32]>,
    /// The first second that is not over.
    second: u32,
}

impl Wheel {
    pub(crate) fn new() -> Self {
        Self { heads: vec![NONE; SLOTS as usize].into_boxed_slice(), second: 0 }
    }

    /// Lists a session under its deadline.
    pub(crate) fn insert(&mut self, sessions: &mut [Session], index: u32) {
        let session = &mut sessions[index as usize];
        let at = session.deadline.clamp(self.second, self.second.saturating_add(SLOTS - 1));
        session.listed = at;
        rings::append(sessions, ring::WHEEL, &mut self.heads[slot(at)], index);
    }

    /// Forgets a session.
    pub(crate) fn remove(&mut self, sessions: &mut [Session], index: u32) {
        let at = sessions[index as usize].listed;
        rings::take(sessions, ring::WHEEL, &mut self.heads[slot(at)], index);
    }

    /// Lists a session anew if its deadline is earlier than where it is listed; a later one is seen to when its ring's turn
    /// comes.
    pub(crate) fn advance(&mut self, sessions: &mut [Session], index: u32) {
        let session = &sessions[index as usize];
        if session.deadline < session.listed {
            self.remove(sessions, index);
            self.insert(sessions, index);
        }
    }

    /// A session whose deadline has come by `now`, if one is left. It stays listed until the caller removes it.
    pub(crate) fn due(&mut self, sessions: &mut [Session], now: u32) -> Option<u32> {
        while self.second <= now {
            let head = self.heads[slot(self.second)];
            if head == NONE {
                self.second += 1;
            } else if sessions[head as usize].deadline <= now {
                return Some(head);
            } else {
                self.remove(sessions, head);
                self.insert(sessions, head);
            }
        }
        None
    }

    /// Number of sessions; each is where it says.
    #[cfg(test)]
    pub(crate) fn check(&mut self, sessions: &mut [Session]) -> usize {
        let mut count = 0;
        for head in self.heads.iter().copied() {
            let length = rings::len(sessions, ring::WHEEL, head);
            let mut at = head;
            for _ in 0..length {
                assert_eq!(self.heads[slot(sessions[at as usize].listed)], head);
                at = rings::next(sessions, ring::WHEEL, at);
            }
            count += length as usize;
        }
        count
    }
}

const fn slot(second: u32) -> usize {
    (second % SLOTS) as usize
}
