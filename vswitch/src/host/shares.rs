//! Whose turn it is with something that takes time: of the shares that wait, that which has had the least of it.
//!
//! Time is counted for each share as it is spent. A share that comes back after a pause begins where the others are, so none saves up. Ports
//! are shared out by number: those of one share, 64 ports apart, compete with each other.

use std::collections::VecDeque;
use std::time::Duration;

/// A port's part of the thread's time and of the slots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Share(u8);

impl Share {
    pub(super) const COUNT: usize = 64;

    /// That of a port of the switch.
    pub(super) fn of(port: u32) -> Self {
        Self(u8::try_from(port % 64).unwrap_or_default())
    }

    pub(super) const fn index(self) -> usize {
        self.0 as usize
    }
}

/// What waits, by share.
pub(super) struct PortShares<T> {
    queues: [VecDeque<T>; Share::COUNT],
    /// Time that each has had, in nanoseconds, or would have had by now.
    had: [u64; Share::COUNT],
    /// Those with something in their queue.
    waiting: Vec<Share>,
    /// The time that the share which last had its turn had had before it.
    now: u64,
}

impl<T> PortShares<T> {
    pub(super) fn new() -> Self {
        Self { queues: std::array::from_fn(|_| VecDeque::new()), had: [0; Share::COUNT], waiting: Vec::new(), now: 0 }
    }

    pub(super) fn push(&mut self, share: Share, item: T) {
        let queue = &mut self.queues[share.index()];
        if queue.is_empty() {
            self.waiting.push(share);
            self.had[share.index()] = self.had[share.index()].max(self.now);
        }
        queue.push_back(item);
    }

    /// The oldest of the share that has had the least.
    pub(super) fn next(&mut self) -> Option<T> {
        let (place, share) = self.waiting.iter().copied().enumerate().min_by_key(|(_, share)| self.had[share.index()])?;
        self.now = self.had[share.index()];
        let queue = &mut self.queues[share.index()];
        let item = queue.pop_front();
        if queue.is_empty() {
            self.waiting.swap_remove(place);
        }
        item
    }

    /// Counts time that an item of a share has taken.
    pub(super) fn charge(&mut self, share: Share, time: Duration) {
        let had = &mut self.had[share.index()];
        *had = had.saturating_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Serves `count` turns, each as long as the item says in microseconds; returns what time each of the first ports had.
    fn serve(shares: &mut PortShares<(u32, u64)>, count: usize) -> [u64; 4] {
        let mut had = [0; 4];
        for _ in 0..count {
            let Some((port, cost)) = shares.next() else { break };
            shares.charge(Share::of(port), Duration::from_micros(cost));
            had[port as usize] += cost;
        }
        had
    }

    #[test]
    fn time_is_shared_whatever_a_turn_costs() {
        let mut shares = PortShares::new();
        for (port, cost) in [(1, 20), (2, 100), (3, 5)] {
            (0..1000).for_each(|_| shares.push(Share::of(port), (port, cost)));
        }
        let [_, one, two, three] = serve(&mut shares, 520);
        assert!(one.abs_diff(two) <= 100 && two.abs_diff(three) <= 100, "{one} {two} {three}");
    }

    #[test]
    fn who_comes_late_has_its_turn_at_once_and_no_more_than_the_others_from_then_on() {
        let mut shares = PortShares::new();
        (0..1000).for_each(|_| shares.push(Share::of(1), (1, 20)));
        serve(&mut shares, 500);
        (0..1000).for_each(|_| shares.push(Share::of(2), (2, 20)));
        assert_eq!(serve(&mut shares, 2)[2] / 20, 1);
        let [_, one, two, _] = serve(&mut shares, 200);
        assert!(one.abs_diff(two) <= 40, "the half hour that it was silent counts for nothing: {one} {two}");
    }

    #[test]
    fn what_a_share_has_comes_in_order_and_all_of_it() {
        let mut shares = PortShares::new();
        assert!(shares.is_empty());
        (0..10).for_each(|number| shares.push(Share::of(5), number));
        (10..20).for_each(|number| shares.push(Share::of(64 + 5), number));
        let all: Vec<i32> = std::iter::from_fn(|| shares.next()).collect();
        assert!(all == (0..20).collect::<Vec<_>>() && shares.is_empty());
    }
}
