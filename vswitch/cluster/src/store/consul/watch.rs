//! How a prefix is followed, although a blocking query of Consul's is given all that is below its prefix for each change.
//!
//! A host that writes keys of a directory says so in a short one below `news/`, in the same transaction: which of them changed last, with a count of its
//! transactions there. What is waited for are those; then only the keys that they name are read. Where a count has grown by more than a
//! word of news holds, its directory is read again, and the whole prefix where those are many. A writer's news go with its session, and so has all that it
//! announced.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{Answer, Change, Follow, Held, Inner, Listing, News, StoreError};

/// What a writer last did in a directory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Word {
    /// How many transactions of this writer there were.
    count: u64,
    /// The keys of the last of them, each with the count that its transaction had.
    keys: Vec<(u64, String)>,
}

impl Word {
    /// One more transaction, with these keys.
    #[must_use]
    pub(super) fn and<'a>(&self, keys: impl Iterator<Item = &'a str>) -> Self {
        let count = self.count + 1;
        let mut all = self.keys.clone();
        all.extend(keys.map(|key| (count, key.to_owned())));
        let surplus = all.len().saturating_sub(MOST_KEYS);
        // A transaction that is only named in part is none that can be followed.
        let torn = surplus.checked_sub(1).map(|last| all[last].0);
        all.retain(|(count, _)| torn.is_none_or(|torn| *count > torn));
        Self { count, keys: all }
    }

    /// The same after a transaction of which it is not known whether it was carried out: no keys are named.
    #[must_use]
    pub(super) fn unnamed(self) -> Self {
        Self::strange(self.count)
    }

    /// A word that cannot be read: that it is another than before is all that it says.
    pub(super) fn strange(version: u64) -> Self {
        Self { count: version, keys: Vec::new() }
    }

    /// The keys that changed since the word `before`; `None` if it does not say.
    fn since(&self, before: u64) -> Option<impl Iterator<Item = &str>> {
        let is_whole = (before + 1..=self.count).all(|count| self.keys.iter().any(|(of, _)| *of == count));
        (before <= self.count && is_whole)
            .then(|| self.keys.iter().filter(move |(of, _)| *of > before).map(|(_, key)| key.as_str()))
    }
}

/// A prefix that is followed, and what of it was told last.
pub(super) struct NewsWatch {
    consul: Arc<Inner>,
    prefix: String,
    known: Option<Known>,
    /// Whether nothing was heard since an error.
    has_failed: bool,
}

struct Known {
    entries: BTreeMap<String, Held>,
    /// The count of each word of news, by the directory and its writer.
    counts: BTreeMap<String, u64>,
    /// How far the news had come.
    index: u64,
    /// How long is waited before the next query.
    pause: Duration,
    /// When the whole prefix is read again: every few minutes, because keys that are written by hand bear no news, and soon after a writer has gone,
    /// because keys of other writers may have gone as well.
    check: Instant,
}

/// What is to be read.
#[derive(Debug, Default, PartialEq, Eq)]
struct Due {
    keys: BTreeSet<String>,
    /// Prefixes of which all is to be read.
    directories: BTreeSet<String>,
}

impl Follow for NewsWatch {
    fn next(&mut self) -> Answer<'_, News> {
        Box::pin(async {
            let news = self.read().await;
            self.has_failed = news.is_err();
            news
        })
    }
}

impl NewsWatch {
    pub(super) fn new(consul: Arc<Inner>, prefix: &str) -> Self {
        Self { consul, prefix: prefix.to_owned(), known: None, has_failed: false }
    }

    async fn read(&mut self) -> Result<News, StoreError> {
        loop {
            let Some(known) = &mut self.known else { return self.begin().await };
            tokio::time::sleep(known.pause).await;
            let index = Some(known.index.max(1)).filter(|_| !self.has_failed);
            let wait = WAIT.min(known.check.duration_since(Instant::now()).max(Duration::from_secs(1)));
            let (words, index) = self.consul.words(&self.prefix, index.map(|index| (index, wait))).await?;
            // An index that goes backwards is another store's, or an older one's.
            if index < known.index {
                self.known = None;
                continue;
            }
            known.index = index;
            let (went, mut due) = known.take(&words);
            let is_whole = known.check <= Instant::now() || self.has_failed || due.directories.len() > MOST_DIRECTORIES;
            known.pause = if is_whole { LONG_PAUSE } else { PAUSE };
            if is_whole {
                known.check = soon(CHECK_ALWAYS);
                due = Due { directories: BTreeSet::from([self.prefix.clone()]), ..Due::default() };
            }
            let changes = match known.read(&self.consul, &due).await {
                Ok(changes) => [went, changes].concat(),
                Err(error) => {
                    // What was taken in and not told is told with all the rest.
                    self.known = None;
                    return Err(error);
                }
            };
            if self.has_failed || !changes.is_empty() {
                return Ok(News::Some(changes));
            }
        }
    }

    /// The news first, and then all: what comes between the two is read twice rather than not at all.
    async fn begin(&mut self) -> Result<News, StoreError> {
        let (words, index) = self.consul.words(&self.prefix, None).await?;
        let (entries, revision) = self.consul.held(&self.prefix).await?;
        let listing = Listing { entries: entries.values().map(|held| held.entry.clone()).collect(), revision };
        let counts = words.into_iter().map(|(writer, word)| (writer, word.count)).collect();
        self.known = Some(Known { entries, counts, index, pause: PAUSE, check: soon(CHECK_ALWAYS) });
        Ok(News::All(listing))
    }
}

impl Known {
    /// Takes in the news: what went with the sessions of writers that are gone, and what is to be read.
    fn take(&mut self, words: &BTreeMap<String, Word>) -> (Vec<Change>, Due) {
        let mut due = Due::default();
        for (writer, word) in words {
            let before = self.counts.get(writer).copied().unwrap_or_default();
            match word.since(before) {
                Some(keys) => due.keys.extend(keys.map(str::to_owned)),
                None => drop(due.directories.insert(directory(writer))),
            }
        }
        if due.keys.len() > MOST_READ {
            due.directories.extend(std::mem::take(&mut due.keys).iter().map(|key| directory(key)));
        }
        let gone = self.counts.keys().filter(|name| !words.contains_key(*name));
        let gone: BTreeSet<String> = gone.map(|name| writer(name).to_owned()).collect();
        if !gone.is_empty() {
            self.check = self.check.min(soon(CHECK));
        }
        self.counts = words.iter().map(|(writer, word)| (writer.clone(), word.count)).collect();
        let went = |_: &String, held: &mut Held| held.session.as_ref().is_some_and(|session| gone.contains(session));
        let went: Vec<String> = self.entries.extract_if(.., went).map(|(key, _)| key).collect();
        (went.into_iter().map(Change::Gone).collect(), due)
    }

    /// Reads what is due, and says what of it is another thing.
    async fn read(&mut self, consul: &Inner, due: &Due) -> Result<Vec<Change>, StoreError> {
        let found = consul.find(&due.keys).await?;
        let mut changes: Vec<Change> = due.keys.iter().filter_map(|key| self.set(key, found.get(key))).collect();
        for directory in &due.directories {
            let (entries, _) = consul.held(directory).await?;
            changes.extend(self.replace(directory, &entries));
        }
        Ok(changes)
    }

    /// Takes in what a key holds now, and says whether that is another thing.
    fn set(&mut self, key: &str, held: Option<&Held>) -> Option<Change> {
        match held {
            Some(held) => {
                let before = self.entries.insert(key.to_owned(), held.clone());
                before.is_none_or(|before| before.entry != held.entry).then(|| Change::Is(held.entry.clone()))
            }
            None => self.entries.remove(key).map(|_| Change::Gone(key.to_owned())),
        }
    }

    /// Takes in all that there is below a prefix now, and says what of it is another thing.
    fn replace(&mut self, prefix: &str, entries: &BTreeMap<String, Held>) -> Vec<Change> {
        let below = self.entries.range(prefix.to_owned()..).map(|(key, _)| key).take_while(|key| key.starts_with(prefix));
        let gone: Vec<String> = below.filter(|key| !entries.contains_key(*key)).cloned().collect();
        let mut changes: Vec<Change> = gone.iter().filter_map(|key| self.set(key, None)).collect();
        changes.extend(entries.iter().filter_map(|(key, held)| self.set(key, Some(held))));
        changes
    }
}

/// After this time, or up to twice as long, so that not all hosts ask at once.
fn soon(time: Duration) -> Instant {
    Instant::now() + time + time.mul_f64(rand::random())
}

/// The session of a writer, which is the last part of the name of its news.
pub(super) fn writer(name: &str) -> &str {
    name.rsplit_once('/').map_or(name, |(_, writer)| writer)
}

/// The directory of a key, with a slash at its end.
pub(super) fn directory(key: &str) -> String {
    key.rsplit_once('/').map_or_else(String::new, |(directory, _)| format!("{directory}/"))
}

/// How long a query waits for a change.
const WAIT: Duration = Duration::from_secs(10);

/// The least time between two queries of a watch.
const PAUSE: Duration = Duration::from_millis(100);

/// The same after all was read, for where there is so much news there is more to come.
const LONG_PAUSE: Duration = Duration::from_secs(1);

/// How long after a writer has gone all is read again, at least.
const CHECK: Duration = Duration::from_secs(5);

/// How often all is read again anyway, at most.
const CHECK_ALWAYS: Duration = Duration::from_secs(300);

/// Most keys that a word of news names.
const MOST_KEYS: usize = 32;

/// Most keys that are read by themselves: Consul takes 64 operations in a transaction.
const MOST_READ: usize = 64;

/// Most directories that are read by themselves.
const MOST_DIRECTORIES: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(word: &Word, before: u64) -> Option<Vec<&str>> {
        word.since(before).map(Iterator::collect)
    }

    #[test]
    fn a_word_names_what_changed_since_any_of_the_last() {
        let word = Word::default().and(["a", "b"].into_iter()).and(["c"].into_iter());
        assert_eq!(keys(&word, 0), Some(vec!["a", "b", "c"]));
        assert_eq!(keys(&word, 1), Some(vec!["c"]));
        assert_eq!(keys(&word, 2), Some(vec![]));
        assert_eq!(keys(&word, 3), None, "a writer that counts anew is another");
        let lost = word.and(["x"].into_iter()).unnamed().and(["d"].into_iter());
        assert_eq!(keys(&lost, 2), None);
        assert_eq!(keys(&lost, 3), Some(vec!["d"]));
    }

    #[test]
    fn a_word_is_short_and_never_tears_a_transaction() {
        let many: Vec<String> = (0..MOST_KEYS - 1).map(|number| number.to_string()).collect();
        let word = Word::default().and(["x"].into_iter()).and(many.iter().map(String::as_str));
        assert_eq!(word.keys.len(), MOST_KEYS);
        let next = word.and(["y", "z"].into_iter());
        assert!(next.keys.len() <= MOST_KEYS, "{}", next.keys.len());
        assert_eq!((keys(&next, 1), keys(&next, 2)), (None, Some(vec!["y", "z"])));
        let too_many: Vec<String> = (0..=MOST_KEYS).map(|number| number.to_string()).collect();
        assert_eq!(keys(&next.and(too_many.iter().map(String::as_str)), 3), None);
    }
}
