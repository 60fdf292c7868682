//! What happened, as `vsctl events` tells it. The control side is the one owner: it writes every event and answers who asks.
//!
//! **What bounds it.** [`MOST`] events of the kinds that stations can cause as often as they like, and as many of the others, so that a flood of
//! MAC addresses does not hide that a link went down. The oldest go. Who follows and is slower than [`BEHIND`] events is told how many it missed.

use std::collections::{BTreeMap, VecDeque};
use std::time::SystemTime;

use tokio::sync::broadcast;

use api::{EventFacts, EventInfo, EventKind};

/// Most events of either sort.
const MOST: usize = 2048;
/// Events that wait for one who follows.
const BEHIND: usize = 1024;

/// The last events.
#[derive(Debug)]
pub(crate) struct EventLog {
    frequent: VecDeque<EventInfo>,
    others: VecDeque<EventInfo>,
    last: u64,
    counts: BTreeMap<EventKind, u64>,
    followers: broadcast::Sender<EventInfo>,
}

impl Default for EventLog {
    fn default() -> Self {
        let (frequent, others, counts) = (VecDeque::new(), VecDeque::new(), BTreeMap::new());
        Self { frequent, others, last: 0, counts, followers: broadcast::Sender::new(BEHIND) }
    }
}

impl EventLog {
    /// Writes down what happened now.
    pub(crate) fn record(&mut self, kind: EventKind, facts: EventFacts) {
        self.last += 1;
        *self.counts.entry(kind).or_default() += 1;
        let time = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
        let event = EventInfo { number: self.last, time, kind, facts };
        // It fails where nothing follows.
        let _ = self.followers.send(event.clone());
        let ring = if kind.is_frequent() { &mut self.frequent } else { &mut self.others };
        if ring.len() == MOST {
            ring.pop_front();
        }
        ring.push_back(event);
    }

    /// What is remembered of what came after the event with this number, the oldest first. A number that was not reached yet is that of an
    /// earlier vswitchd: everything came after it.
    pub(crate) fn after(&self, number: u64) -> Vec<EventInfo> {
        let number = if number > self.last { 0 } else { number };
        let new = self.frequent.iter().chain(&self.others).filter(|event| event.number > number);
        let mut events: Vec<EventInfo> = new.cloned().collect();
        events.sort_by_key(|event| event.number);
        events
    }

    /// The same, and all that comes from now on.
    pub(crate) fn follow(&self, number: u64) -> (Vec<EventInfo>, broadcast::Receiver<EventInfo>) {
        (self.after(number), self.followers.subscribe())
    }

    /// How many there were of each kind.
    pub(crate) fn counts(&self) -> BTreeMap<String, u64> {
        EventKind::ALL.into_iter().map(|kind| (kind.name().to_owned(), self.counts.get(&kind).copied().unwrap_or(0))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_addresses_hides_nothing_else_and_the_oldest_go() {
        let mut log = EventLog::default();
        log.record(EventKind::Link, EventFacts::new("its link is down"));
        (0..3 * MOST).for_each(|_| log.record(EventKind::MacLearned, EventFacts::default()));
        log.record(EventKind::Change, EventFacts::new("set-port a"));
        let all = log.after(0);
        assert_eq!(all.len(), MOST + 2);
        assert_eq!((all[0].kind, all[0].number), (EventKind::Link, 1));
        assert_eq!(all[1].number, 2 * MOST as u64 + 2, "of the addresses the newest stay");
        assert!(all.is_sorted_by_key(|event| event.number));
        assert_eq!(log.after(3 * MOST as u64 + 1).len(), 1, "only what is new");
        assert_eq!(log.after(u64::MAX).len(), MOST + 2, "an earlier vswitchd had more");
        assert_eq!((log.counts()["mac_learned"], log.counts()["lease"]), (3 * MOST as u64, 0));
    }

    #[test]
    fn what_follows_hears_the_past_once_and_then_everything() {
        let mut log = EventLog::default();
        log.record(EventKind::Change, EventFacts::new("one"));
        let (past, mut coming) = log.follow(0);
        log.record(EventKind::Change, EventFacts::new("two"));
        assert_eq!(past[0].facts.summary, "one");
        assert_eq!(coming.try_recv().unwrap().facts.summary, "two");
        assert!(coming.try_recv().is_err());
        drop(log);
        assert_eq!(coming.try_recv(), Err(broadcast::error::TryRecvError::Closed), "it ends with the switch");
    }
}
