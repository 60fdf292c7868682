//! How it stands with the store: whether it is reached, and what to say about it.

use std::collections::BTreeMap;
use std::time::Duration;

use cluster::store::StoreError;
use cluster::view::Refusal;

/// How long a store may fail before it is said to be lost: the next of its members often takes over within that time.
const GRACE: Duration = Duration::from_secs(2);

/// How it stands with the store.
#[derive(Debug, Default)]
pub(crate) struct Standing {
    state: StoreState,
    since: Duration,
    /// What keeps the store from being opened or asked, and since when.
    asking: Option<(String, Duration)>,
    /// The same of each prefix that is followed.
    following: BTreeMap<String, (String, Duration)>,
    /// Whether the store was reached and heard before.
    was_up: bool,
    /// What was said last, without the member that said it.
    said: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum StoreState {
    /// The store was not reached since the start.
    #[default]
    Waiting,
    Up,
    /// It is not reached any more.
    Lost,
    /// It is not this host's.
    Refused,
}

impl StoreState {
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Up => "up",
            Self::Lost => "lost",
            Self::Refused => "refused",
        }
    }
}

/// What changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// The store is reached.
    Up {
        /// Not for the first time.
        again: bool,
    },
    /// It is not, or another thing is wrong with it than was said before.
    Down(StoreState, String),
}

impl Standing {
    /// Takes note of what came of asking. True if it works again.
    pub(crate) fn asked(&mut self, outcome: Result<(), String>, now: Duration) -> bool {
        let was_failing = self.asking.is_some();
        let since = self.asking.as_ref().map_or(now, |(_, since)| *since);
        self.asking = outcome.err().map(|sentence| (sentence, since));
        was_failing && self.asking.is_none()
    }

    /// The prefixes that cannot be followed.
    pub(crate) fn failing(&self) -> Vec<String> {
        self.following.keys().cloned().collect()
    }

    pub(crate) fn followed(&mut self, prefix: &str, outcome: Result<(), &StoreError>, now: Duration) {
        match outcome {
            Ok(()) => drop(self.following.remove(prefix)),
            Err(error) => {
                let since = self.following.get(prefix).map_or(now, |(_, since)| *since);
                self.following.insert(prefix.to_owned(), (error.to_string(), since));
            }
        }
    }

    pub(super) fn forget(&mut self, prefix: &str) {
        self.following.remove(prefix);
    }

    pub(crate) const fn state(&self) -> StoreState {
        self.state
    }

    pub(super) const fn since(&self) -> Duration {
        self.since
    }

    /// What is wrong now.
    pub(crate) fn problem(&self) -> Option<&str> {
        self.asking.iter().chain(self.following.values()).map(|(sentence, _)| sentence.as_str()).next()
    }

    /// Looks how it stands. `heard`: there is a session, and all was listed.
    pub(crate) fn look(&mut self, heard: bool, refusal: Option<&Refusal>, now: Duration) -> Option<Turn> {
        let first = self.asking.iter().chain(self.following.values()).min_by_key(|(_, since)| *since).cloned();
        let (state, sentence) = match (refusal, first) {
            (Some(refusal), _) => (StoreState::Refused, Some(refusal.to_string())),
            (None, Some((_, since))) if self.state == StoreState::Up && now < since + GRACE => return None,
            (None, Some((sentence, _))) => (if self.was_up { StoreState::Lost } else { StoreState::Waiting }, Some(sentence)),
            (None, None) if heard => (StoreState::Up, None),
            (None, None) => return None,
        };
        let plain = sentence.as_deref().map(without_member);
        if state == self.state && (plain == self.said || state == StoreState::Up) {
            return None;
        }
        if state != self.state {
            self.since = now;
        }
        let again = self.was_up;
        self.was_up |= state == StoreState::Up;
        (self.state, self.said) = (state, plain);
        Some(sentence.map_or(Turn::Up { again }, |sentence| Turn::Down(state, sentence)))
    }
}

/// A sentence about a store without the member that was asked, which is another each time.
fn without_member(sentence: &str) -> String {
    sentence.split_once(": ").map_or(sentence, |(_, rest)| rest).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use cluster::store::{StoreKind, Trouble};

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_store_is_lost_after_a_while_and_said_to_be_once() {
        let mut standing = Standing::default();
        let gone = |member: u32| Err(format!("etcd at http://192.0.2.{member}:2379: connection refused"));
        assert!(!standing.asked(gone(1), seconds(0)));
        assert!(matches!(standing.look(false, None, seconds(0)), Some(Turn::Down(StoreState::Waiting, _))));
        standing.asked(gone(2), seconds(1));
        assert_eq!(standing.look(false, None, seconds(1)), None, "the next member says the same");
        assert!(standing.asked(Ok(()), seconds(2)));
        assert_eq!(standing.look(false, None, seconds(2)), None, "nothing is listed yet");
        assert_eq!(standing.look(true, None, seconds(2)), Some(Turn::Up { again: false }));
        standing.asked(gone(1), seconds(10));
        assert_eq!(standing.look(true, None, seconds(11)), None, "the next member may do");
        assert!(matches!(standing.look(true, None, seconds(12)), Some(Turn::Down(StoreState::Lost, _))));
        assert_eq!((standing.state().word(), standing.since()), ("lost", seconds(12)));
        standing.asked(Ok(()), seconds(20));
        assert_eq!(standing.look(true, None, seconds(20)), Some(Turn::Up { again: true }));
    }

    #[test]
    fn what_may_not_be_read_is_a_trouble_although_it_may_be_written() {
        let mut standing = Standing::default();
        let trouble = Trouble::NoQuorum;
        let error = StoreError { store: StoreKind::Etcd, endpoint: "http://192.0.2.1:2379".to_owned(), trouble };
        standing.asked(Ok(()), seconds(0));
        standing.followed("cluster/", Err(&error), seconds(0));
        assert!(
            matches!(standing.look(false, None, seconds(0)), Some(Turn::Down(StoreState::Waiting, said)) if said.contains("leader"))
        );
        standing.followed("cluster/", Ok(()), seconds(1));
        assert_eq!(standing.look(true, None, seconds(1)), Some(Turn::Up { again: false }));
    }
}
