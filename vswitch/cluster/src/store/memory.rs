//! A store in this process, with a clock that is moved by hand and links that are cut by hand: for tests of what hosts do.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::{Answer, Change, Entry, Follow, Listing, News, Outcome, Session, Step, Store, StoreError, StoreKind, Trouble};

/// The store that hosts share.
#[derive(Clone)]
pub struct Memory {
    ttl: Duration,
    state: Arc<Mutex<State>>,
    changed: Arc<Notify>,
}

/// What a host is told of the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Link {
    /// All.
    #[default]
    Up,
    /// Nothing, and the store nothing of the host.
    Cut,
    /// The store carries out what the host asks, but the answers are lost.
    Deaf,
}

/// A host's way to the store.
#[derive(Clone)]
pub struct MemoryHost {
    memory: Memory,
    link: Arc<Mutex<Link>>,
}

#[derive(Default)]
struct State {
    now: Duration,
    /// Which store this is: another after [`Memory::wipe`].
    life: u64,
    revision: u64,
    keys: BTreeMap<String, Held>,
    /// When each session ends.
    sessions: BTreeMap<u64, Duration>,
    next_session: u64,
    /// The changes since `compacted`.
    log: VecDeque<(u64, Change)>,
    compacted: u64,
}

#[derive(Clone)]
struct Held {
    value: String,
    version: u64,
    session: Option<u64>,
}

impl Memory {
    /// An empty store, whose sessions end when they were not renewed for so long.
    pub fn new(ttl: Duration) -> Self {
        Self { ttl, state: Arc::default(), changed: Arc::default() }
    }

    /// A way to the store for one more host.
    pub fn host(&self) -> MemoryHost {
        MemoryHost { memory: self.clone(), link: Arc::default() }
    }

    /// Moves the clock on. Sessions end by it.
    pub fn advance(&self, time: Duration) {
        let mut state = self.state();
        state.now += time;
        let over: Vec<u64> = state.sessions.iter().filter(|(_, end)| **end <= state.now).map(|(id, _)| *id).collect();
        over.into_iter().for_each(|session| state.end(session));
        drop(state);
        self.changed.notify_waiters();
    }

    /// The store comes back empty: keys, sessions and history are gone.
    pub fn wipe(&self) {
        let mut state = self.state();
        let (now, life, next_session) = (state.now, state.life + 1, state.next_session);
        *state = State { now, life, next_session, ..State::default() };
        drop(state);
        self.changed.notify_waiters();
    }

    /// Forgets history: who has not heard of it yet must begin with a list.
    pub fn compact(&self) {
        let mut state = self.state();
        state.compacted = state.revision;
        state.log.clear();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn list(&self, prefix: &str) -> Listing {
        let below = self.keys.range(prefix.to_owned()..).take_while(|(key, _)| key.starts_with(prefix));
        let entry =
            |(key, held): (&String, &Held)| Entry { key: key.clone(), value: held.value.clone(), version: held.version };
        Listing { entries: below.map(entry).collect(), revision: self.revision }
    }

    fn commit(&mut self, session: Option<u64>, steps: &[Step]) -> Result<Outcome, Trouble> {
        let announces = steps.iter().any(|step| matches!(step, Step::Announce { .. } | Step::Claim { .. }));
        if announces && !session.is_some_and(|session| self.sessions.contains_key(&session)) {
            return Err(Trouble::SessionLost);
        }
        let is_refused = |step: &Step| match step {
            Step::Create { key, .. } | Step::Claim { key, .. } => self.keys.contains_key(key),
            Step::Replace { key, version, .. } => self.keys.get(key).is_none_or(|held| held.version != *version),
            Step::Announce { .. } | Step::Remove { .. } => false,
        };
        if steps.iter().any(is_refused) {
            return Ok(Outcome::Refused);
        }
        self.revision += 1;
        for step in steps {
            match step {
                Step::Announce { key, value } | Step::Claim { key, value } => self.put(key, value, session),
                Step::Create { key, value } | Step::Replace { key, value, .. } => self.put(key, value, None),
                Step::Remove { key } => self.remove(key),
            }
        }
        Ok(Outcome::Done)
    }

    fn put(&mut self, key: &str, value: &str, session: Option<u64>) {
        let (value, version) = (value.to_owned(), self.revision);
        self.keys.insert(key.to_owned(), Held { value: value.clone(), version, session });
        self.log.push_back((version, Change::Is(Entry { key: key.to_owned(), value, version })));
    }

    fn remove(&mut self, key: &str) {
        if self.keys.remove(key).is_some() {
            self.log.push_back((self.revision, Change::Gone(key.to_owned())));
        }
    }

    fn end(&mut self, session: u64) {
        self.sessions.remove(&session);
        self.revision += 1;
        let gone: Vec<String> =
            self.keys.iter().filter(|(_, held)| held.session == Some(session)).map(|(key, _)| key.clone()).collect();
        gone.iter().for_each(|key| self.remove(key));
    }
}

impl MemoryHost {
    /// Cuts the link, or mends it.
    pub fn set_link(&self, link: Link) {
        *self.link.lock().unwrap_or_else(PoisonError::into_inner) = link;
        self.memory.changed.notify_waiters();
    }

    /// Asks the store, if there is a way to it and back.
    fn ask<T>(&self, ask: impl FnOnce(&mut State) -> Result<T, Trouble>) -> Result<T, StoreError> {
        let link = *self.link.lock().unwrap_or_else(PoisonError::into_inner);
        let cut = || Err(Trouble::Silent(super::PATIENCE.as_secs()));
        let answer = if link == Link::Cut { cut() } else { self.carried_out(ask) };
        let answer = if link == Link::Deaf { cut() } else { answer };
        answer.map_err(|trouble| trouble.at(StoreKind::Memory, "memory"))
    }

    /// Lets the followers know if anything has changed.
    fn carried_out<T>(&self, ask: impl FnOnce(&mut State) -> Result<T, Trouble>) -> Result<T, Trouble> {
        let mut state = self.memory.state();
        let before = state.revision;
        let answer = ask(&mut state);
        if state.revision != before {
            self.memory.changed.notify_waiters();
        }
        answer
    }
}

fn number(session: &Session) -> u64 {
    session.0.parse().unwrap_or_default()
}

impl Store for MemoryHost {
    fn list<'a>(&'a self, prefix: &'a str) -> Answer<'a, Listing> {
        Box::pin(async move { self.ask(|state| Ok(state.list(prefix))) })
    }

    fn commit<'a>(&'a self, session: Option<&'a Session>, steps: &'a [Step]) -> Answer<'a, Outcome> {
        Box::pin(async move { self.ask(|state| state.commit(session.map(number), steps)) })
    }

    fn open(&self) -> Answer<'_, Session> {
        Box::pin(async {
            self.ask(|state| {
                state.next_session += 1;
                let (session, end) = (state.next_session, state.now + self.memory.ttl);
                state.sessions.insert(session, end);
                Ok(Session(session.to_string()))
            })
        })
    }

    fn renew<'a>(&'a self, session: &'a Session) -> Answer<'a, bool> {
        Box::pin(async {
            self.ask(|state| {
                let end = state.now + self.memory.ttl;
                Ok(state.sessions.get_mut(&number(session)).map(|until| *until = end).is_some())
            })
        })
    }

    fn close<'a>(&'a self, session: &'a Session) -> Answer<'a, ()> {
        Box::pin(async {
            self.ask(|state| {
                state.end(number(session));
                Ok(())
            })
        })
    }

    fn follow(&self, prefix: &str) -> Box<dyn Follow> {
        Box::new(Watch { host: self.clone(), prefix: prefix.to_owned(), seen: None })
    }
}

struct Watch {
    host: MemoryHost,
    prefix: String,
    /// The life of the store, and the revision, that were seen last.
    seen: Option<(u64, u64)>,
}

impl Watch {
    fn look(&mut self) -> Result<Option<News>, StoreError> {
        let (prefix, seen) = (&self.prefix, self.seen);
        let (now, news) = self.host.ask(|state| {
            let now = (state.life, state.revision);
            let Some((_, after)) = seen.filter(|(life, after)| *life == state.life && *after >= state.compacted) else {
                return Ok((now, Some(News::All(state.list(prefix)))));
            };
            let ours = |change: &Change| match change {
                Change::Is(entry) => entry.key.starts_with(prefix),
                Change::Gone(key) => key.starts_with(prefix),
            };
            let newer = state.log.iter().filter(|(revision, change)| *revision > after && ours(change));
            let changes: Vec<Change> = newer.map(|(_, change)| change.clone()).collect();
            Ok((now, (!changes.is_empty()).then_some(News::Some(changes))))
        })?;
        self.seen = Some(now);
        Ok(news)
    }
}

impl Follow for Watch {
    fn next(&mut self) -> Answer<'_, News> {
        Box::pin(async {
            let changed = Arc::clone(&self.host.memory.changed);
            loop {
                // What changes between the look and the wait is heard too.
                let change = changed.notified();
                tokio::pin!(change);
                change.as_mut().enable();
                if let Some(news) = self.look()? {
                    return Ok(news);
                }
                change.await;
            }
        })
    }
}
