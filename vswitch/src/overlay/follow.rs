//! How the thread follows the store: a task for each prefix, whose news it takes in.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use cluster::pace::Backoff;
use cluster::record::{CLUSTER, Name, network_prefix};
use cluster::store::{News, Store, StoreError};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::run::Room;
use super::thread::Happening;

/// What was heard of a prefix.
pub(crate) type Follows = (String, Result<News, StoreError>);

/// The store, once it is open, and the tasks that follow it.
pub(super) struct Lines {
    pub(super) store: Option<Arc<dyn Store>>,
    follows: BTreeMap<String, AbortHandle>,
    news: mpsc::Sender<Follows>,
}

impl Lines {
    /// Nothing is open. What is heard goes to `news`.
    pub(super) const fn new(news: mpsc::Sender<Follows>) -> Self {
        Self { store: None, follows: BTreeMap::new(), news }
    }

    /// The store is to be opened anew.
    pub(super) fn close(&mut self) {
        self.store = None;
        std::mem::take(&mut self.follows).into_values().for_each(|task| task.abort());
    }
}

/// Tells the news of a prefix, as long as the loop takes them.
pub(crate) async fn follow(store: Arc<dyn Store>, prefix: String, news: mpsc::Sender<Follows>) {
    let (mut follow, mut backoff) = (store.follow(&prefix), Backoff::default());
    loop {
        let heard = follow.next().await;
        let is_error = heard.is_err();
        if news.send((prefix.clone(), heard)).await.is_err() {
            return;
        }
        if is_error {
            tokio::time::sleep(backoff.wait(rand::random())).await;
        } else {
            backoff.reset();
        }
    }
}

impl Room {
    /// Begins to follow what is to be followed, and ends the rest.
    pub(super) fn set_follows(&mut self) {
        let Some(store) = &self.lines.store else { return };
        let wanted: BTreeSet<String> =
            std::iter::once(CLUSTER.to_owned()).chain(self.agent.view().joined().map(network_prefix)).collect();
        let over: Vec<String> = self.lines.follows.keys().filter(|prefix| !wanted.contains(*prefix)).cloned().collect();
        for prefix in over {
            self.standing.forget(&prefix);
            self.lines.follows.remove(&prefix).iter().for_each(AbortHandle::abort);
        }
        for prefix in wanted {
            let begin = || {
                let task = follow(Arc::clone(store), prefix.clone(), self.lines.news.clone());
                tokio::spawn(task).abort_handle()
            };
            self.lines.follows.entry(prefix.clone()).or_insert_with(begin);
        }
    }

    /// The store is back: what was lost of it is asked for at once.
    pub(super) fn follow_again(&mut self) {
        for prefix in self.standing.failing() {
            self.lines.follows.remove(&prefix).iter().for_each(AbortHandle::abort);
        }
    }

    /// Takes in what was heard of a prefix.
    pub(super) fn hear(&mut self, prefix: &str, news: Result<News, StoreError>) {
        let now = self.now();
        self.standing.followed(prefix, news.as_ref().map(drop), now);
        let Ok(news) = news else { return };
        let before = (prefix == CLUSTER && self.agent.view().is_heard()).then(|| self.hosts());
        self.agent.view_mut().hear(prefix, &news, now);
        (self.pace.eager, self.pace.is_changed) = (true, true);
        if let Some(before) = before {
            let after = self.hosts();
            let gone = before.iter().filter(|(name, _)| !after.contains_key(*name));
            let gone = gone.map(|(name, underlay)| Happening::Gone(name.to_string(), *underlay));
            let joined = after.iter().filter(|(name, _)| !before.contains_key(*name));
            let joined = joined.map(|(name, underlay)| Happening::Joined(name.to_string(), *underlay));
            self.pace.happened.extend(gone.chain(joined));
        }
    }

    fn hosts(&self) -> BTreeMap<Name, IpAddr> {
        let view = self.agent.view();
        let others = view.hosts().filter(|(name, _)| *name != view.me());
        others.map(|(name, host)| (name.clone(), host.underlay)).collect()
    }
}
