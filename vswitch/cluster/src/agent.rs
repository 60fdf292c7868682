//! One host's dealings with a store: its session, and what is due.

use std::sync::Arc;
use std::time::Duration;

use crate::store::{Outcome, Session, Store, StoreError, Trouble};
use crate::view::View;

/// A host's session in a store, and the view that it serves.
pub struct Agent {
    store: Arc<dyn Store>,
    view: View,
    ttl: Duration,
    /// The session, and when it was renewed last.
    session: Option<(Session, Duration)>,
}

impl Agent {
    /// A host that is not in the store yet. `ttl` is that of the store's sessions.
    pub fn new(store: Arc<dyn Store>, view: View, ttl: Duration) -> Self {
        Self { store, view, ttl, session: None }
    }

    /// What the host knows.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// What the host knows, to be told more.
    pub fn view_mut(&mut self) -> &mut View {
        &mut self.view
    }

    /// The store.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// Keeps the session alive, and puts what is due into the store: at most [`MOST_TRANSACTIONS`], so that a full restart of many hosts leaves the
    /// store to others as well. True if there may be more to do.
    ///
    /// # Errors
    /// What the store could not do. It is tried again with the next turn.
    pub async fn turn(&mut self, now: Duration) -> Result<bool, StoreError> {
        let session = self.keep(now).await?;
        let due = self.view.due(now);
        let more = due.len() > MOST_TRANSACTIONS;
        for steps in due.iter().take(MOST_TRANSACTIONS) {
            match self.store.commit(Some(&session), steps).await {
                Ok(Outcome::Done) => self.view.committed(steps),
                Ok(Outcome::Refused) => {}
                Err(error) => {
                    self.view.perhaps_committed(steps);
                    if error.trouble == Trouble::SessionLost {
                        self.lose();
                    }
                    return Err(error);
                }
            }
        }
        Ok(more)
    }

    /// The session, renewed three times in its life, or a new one.
    async fn keep(&mut self, now: Duration) -> Result<Session, StoreError> {
        if let Some((session, renewed)) = self.session.clone() {
            if now < renewed + self.ttl / 3 {
                return Ok(session);
            }
            if self.store.renew(&session).await? {
                self.session = Some((session.clone(), now));
                self.view.renewed(now);
                return Ok(session);
            }
            self.lose();
        }
        let session = self.store.open().await?;
        self.session = Some((session.clone(), now));
        self.view.renewed(now);
        Ok(session)
    }

    fn lose(&mut self) {
        self.session = None;
        self.view.session_ended();
    }

    /// Leaves the store: what was announced goes at once.
    ///
    /// # Errors
    /// What the store could not do; the session then ends by itself.
    pub async fn leave(&mut self) -> Result<(), StoreError> {
        let Some((session, _)) = self.session.take() else { return Ok(()) };
        self.view.session_ended();
        self.store.close(&session).await
    }
}

/// Most transactions of one turn.
pub const MOST_TRANSACTIONS: usize = 20;
