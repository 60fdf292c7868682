//! A recursive watch: it tells which nodes have changed, and what has become of them is read, many at once.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use zookeeper_client::{AddWatchMode, Client, EventType, PersistentWatcher, SessionState};

use super::{Answer, Follow, Inner, News, PAGE, StoreError, StoreKind, Trouble};

/// A watch of a node and all that is below it.
pub(super) struct TreeWatch {
    zookeeper: Arc<Inner>,
    prefix: String,
    watched: Option<(Client, PersistentWatcher)>,
}

impl Follow for TreeWatch {
    fn next(&mut self) -> Answer<'_, News> {
        Box::pin(async {
            let news = self.read().await;
            if news.is_err() {
                self.watched = None;
            }
            news
        })
    }
}

impl TreeWatch {
    pub(super) fn new(zookeeper: Arc<Inner>, prefix: &str) -> Self {
        Self { zookeeper, prefix: prefix.to_owned(), watched: None }
    }

    async fn read(&mut self) -> Result<News, StoreError> {
        let zookeeper = Arc::clone(&self.zookeeper);
        loop {
            let Some((client, watcher)) = &mut self.watched else { return self.begin().await };
            let (mut paths, mut is_lost, mut event) = (BTreeSet::new(), false, Some(watcher.changed().await));
            let until = Instant::now() + BREATH;
            while let Some(heard) = event {
                match heard.event_type {
                    EventType::Session if heard.session_state.is_terminated() => {
                        return Err(Trouble::SessionLost.at(StoreKind::ZooKeeper, &zookeeper.cluster));
                    }
                    // The client does not tell the member that it came to of watches that last (`resend_watches` in zookeeper-client 0.11).
                    EventType::Session => is_lost |= heard.session_state == SessionState::SyncConnected,
                    EventType::NodeChildrenChanged => {}
                    _ => drop(paths.insert(heard.path)),
                }
                let is_full = is_lost || paths.len() >= PAGE;
                event = if is_full { None } else { tokio::time::timeout_at(until, watcher.changed()).await.ok() };
            }
            if is_lost {
                self.watched = None;
                continue;
            }
            let changes = zookeeper.changes(client, &paths).await?;
            if !changes.is_empty() {
                return Ok(News::Some(changes));
            }
        }
    }

    /// Watches, and then lists: what comes between the two is told twice rather than not at all.
    async fn begin(&mut self) -> Result<News, StoreError> {
        let client = self.zookeeper.client(&self.zookeeper.reader).await?;
        let path = self.zookeeper.path(&self.prefix);
        self.zookeeper.make(&client, &path).await?;
        let watcher = self.zookeeper.answer(client.watch(&path, AddWatchMode::PersistentRecursive), "watch").await?;
        let listing = self.zookeeper.list(&client, &self.prefix).await?;
        self.watched = Some((client, watcher));
        Ok(News::All(listing))
    }
}

/// How long changes are gathered before they are read.
const BREATH: Duration = Duration::from_millis(20);
