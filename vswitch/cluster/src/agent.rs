//! One host's dealings with a store: its session, and what is due.
//!
//! An agent waits for nothing. It says which [`Errand`] is due, its caller has that carried out ([`carry_out`]), and tells what came of it
//! ([`Agent::done`]); meanwhile the view can be asked and told.

use std::sync::Arc;
use std::time::Duration;

use crate::store::{Outcome, Session, Step, Store, StoreError, Trouble};
use crate::view::View;

/// A host's session in a store, and the view that it serves.
pub struct Agent {
    view: View,
    ttl: Duration,
    /// The session, and when it was renewed last.
    session: Option<(Session, Duration)>,
}

/// What a store is to be asked for next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Errand {
    /// A session.
    Open,
    /// That the session goes on.
    Renew(Session),
    /// That these transactions are carried out, one after the other, in the session.
    Put(Session, Vec<Vec<Step>>),
}

/// What came of an errand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Carried {
    /// There is a session.
    Opened(Session),
    /// Whether the session goes on.
    Renewed(Session, bool),
    /// What came of each transaction, up to the first that the store could not do.
    Put(Vec<(Vec<Step>, Result<Outcome, StoreError>)>),
    /// The store could not do it.
    Failed(StoreError),
}

impl Agent {
    /// A host that is not in the store yet. `ttl` is that of the store's sessions.
    pub fn new(view: View, ttl: Duration) -> Self {
        Self { view, ttl, session: None }
    }

    /// What the host knows.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// What the host knows, to be told more.
    pub fn view_mut(&mut self) -> &mut View {
        &mut self.view
    }

    /// The session that lasts, as far as is known.
    pub fn session(&self) -> Option<&Session> {
        self.session.as_ref().map(|(session, _)| session)
    }

    /// What is due: a session, three renewals in its life, and what the store lacks, of which [`MOST_TRANSACTIONS`] at a time, so that a full restart
    /// of many hosts leaves the store to others as well. What the store lacks is looked for only if it `may_lack` something.
    pub fn errand(&self, may_lack: bool, now: Duration) -> Option<Errand> {
        let Some((session, renewed)) = &self.session else { return Some(Errand::Open) };
        if now >= *renewed + self.ttl / 3 {
            return Some(Errand::Renew(session.clone()));
        }
        if !may_lack {
            return None;
        }
        let due: Vec<Vec<Step>> = self.view.due(now).into_iter().take(MOST_TRANSACTIONS).collect();
        (!due.is_empty()).then(|| Errand::Put(session.clone(), due))
    }

    /// When the session is to be renewed; `None`: at once.
    pub fn renewal(&self) -> Option<Duration> {
        self.session.as_ref().map(|(_, renewed)| *renewed + self.ttl / 3)
    }

    /// Takes note of what came of an errand that ended now. True if more of what is due may follow at once.
    ///
    /// # Errors
    /// What the store could not do. It is tried again with the next errand.
    pub fn done(&mut self, done: Carried, now: Duration) -> Result<bool, StoreError> {
        match done {
            Carried::Opened(session) | Carried::Renewed(session, true) => {
                self.session = Some((session, now));
                self.view.renewed(now);
                Ok(true)
            }
            Carried::Renewed(_, false) => {
                self.lose();
                Ok(true)
            }
            Carried::Put(results) => self.put(results),
            Carried::Failed(error) => Err(error),
        }
    }

    fn put(&mut self, results: Vec<(Vec<Step>, Result<Outcome, StoreError>)>) -> Result<bool, StoreError> {
        let more = results.len() >= MOST_TRANSACTIONS && results.iter().all(|(_, result)| *result == Ok(Outcome::Done));
        for (steps, result) in results {
            match result {
                Ok(Outcome::Done) => self.view.committed(&steps),
                Ok(Outcome::Refused) => {}
                Err(error) => {
                    self.view.perhaps_committed(&steps);
                    if error.trouble == Trouble::SessionLost {
                        self.lose();
                    }
                    return Err(error);
                }
            }
        }
        Ok(more)
    }

    fn lose(&mut self) {
        self.session = None;
        self.view.session_ended();
    }

    /// The session ends here, and is to be closed: what was announced goes at once then.
    pub fn leave(&mut self) -> Option<Session> {
        let (session, _) = self.session.take()?;
        self.view.session_ended();
        Some(session)
    }
}

/// Asks a store for what an errand says.
pub async fn carry_out(store: Arc<dyn Store>, errand: Errand) -> Carried {
    match errand {
        Errand::Open => store.open().await.map_or_else(Carried::Failed, Carried::Opened),
        Errand::Renew(session) => match store.renew(&session).await {
            Ok(goes_on) => Carried::Renewed(session, goes_on),
            Err(error) => Carried::Failed(error),
        },
        Errand::Put(session, due) => {
            let mut results = Vec::new();
            for steps in due {
                let result = store.commit(Some(&session), &steps).await;
                let failed = result.is_err();
                results.push((steps, result));
                if failed {
                    break;
                }
            }
            Carried::Put(results)
        }
    }
}

/// Most transactions of one errand.
pub const MOST_TRANSACTIONS: usize = 20;
