//! No store: each host announces its own keys, and has those of all others that live by gossip.
//!
//! What a store promises by the agreement of its members is not promised here. A key is created where no host that is heard has it; hosts that
//! are apart may both do so, and what was there first counts as soon as they hear each other. Blocks of addresses are refused, for two hosts that are
//! apart would give one address to two stations. The number of a network is not taken, but follows from its name. A record that stays, which is
//! that of a network, is kept by each host that has a part in it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::{Answer, Change, Entry, Follow, Listing, News, Outcome, Session, Step, Store, StoreError, StoreKind, Trouble};
use crate::gossip::{Node, milliseconds};
use crate::record::Key;

pub(super) struct GossipStore {
    node: Arc<Node>,
    id: String,
}

impl GossipStore {
    pub(super) fn new(node: &Arc<Node>, prefix: &str) -> Self {
        Self { node: Arc::clone(node), id: id(prefix) }
    }

    fn entries(&self, prefix: &str) -> Vec<Entry> {
        let mut entries = self.node.ask(|gossip, _| gossip.list(prefix));
        let id = Entry { key: Key::Id.to_string(), value: self.id.clone(), version: 0 };
        if id.key.starts_with(prefix) {
            let place = entries.partition_point(|entry| entry.key < id.key);
            entries.insert(place, id);
        }
        entries
    }

    fn put(&self, steps: &[Step]) -> Outcome {
        self.node.tell(|gossip, _| {
            let is_refused = |step: &Step| match step {
                Step::Create { key, .. } => gossip.has(key) || !matches!(Key::parse(key), Some(Key::Network(_) | Key::Vni(_))),
                Step::Claim { .. } | Step::Replace { .. } => true,
                Step::Announce { .. } | Step::Remove { .. } => false,
            };
            if steps.iter().any(is_refused) {
                return Outcome::Refused;
            }
            let written = |step: &Step| match step {
                // A number is no one's but by the name.
                Step::Create { key, .. } if matches!(Key::parse(key), Some(Key::Vni(_))) => None,
                Step::Announce { key, value }
                | Step::Claim { key, value }
                | Step::Create { key, value }
                | Step::Replace { key, value, .. } => Some((key.clone(), Some(value.clone()))),
                Step::Remove { key } => Some((key.clone(), None)),
            };
            gossip.announce(steps.iter().filter_map(written), milliseconds());
            for step in steps {
                if let Step::Announce { key, .. } = step
                    && let Some(Key::Member(network, _)) = Key::parse(key)
                {
                    gossip.adopt(&Key::Network(network).to_string());
                }
            }
            Outcome::Done
        })
    }

    fn error(&self, trouble: String) -> StoreError {
        Trouble::NoSocket(trouble).at(StoreKind::Gossip, &self.node.address().to_string())
    }
}

/// The id of the cluster whose hosts share a prefix.
pub(super) fn id(prefix: &str) -> String {
    format!("gossip of {prefix}")
}

/// Waits until it is known what the hosts that are there have.
async fn ready(node: &Node) {
    while !node.ask(crate::gossip::Gossip::is_ready) {
        tokio::time::sleep(LOOK).await;
    }
}

impl Store for GossipStore {
    fn list<'a>(&'a self, prefix: &'a str) -> Answer<'a, Listing> {
        Box::pin(async { Ok(Listing { entries: self.entries(prefix), revision: 0 }) })
    }

    fn commit<'a>(&'a self, _: Option<&'a Session>, steps: &'a [Step]) -> Answer<'a, Outcome> {
        Box::pin(async { Ok(self.put(steps)) })
    }

    fn open(&self) -> Answer<'_, Session> {
        Box::pin(async {
            ready(&self.node).await;
            self.node.trouble().map_or_else(|| Ok(Session(self.id.clone())), |trouble| Err(self.error(trouble)))
        })
    }

    fn renew<'a>(&'a self, _: &'a Session) -> Answer<'a, bool> {
        Box::pin(async { self.node.trouble().map_or(Ok(true), |trouble| Err(self.error(trouble))) })
    }

    fn close<'a>(&'a self, _: &'a Session) -> Answer<'a, ()> {
        Box::pin(async {
            self.node.tell(|gossip, _| gossip.withdraw());
            Ok(())
        })
    }

    fn follow(&self, prefix: &str) -> Box<dyn Follow> {
        let store = Self { node: Arc::clone(&self.node), id: self.id.clone() };
        Box::new(Watch { news: self.node.news(), store, prefix: prefix.to_owned(), seen: None })
    }
}

struct Watch {
    store: GossipStore,
    prefix: String,
    news: watch::Receiver<()>,
    seen: Option<Vec<Entry>>,
}

impl Watch {
    fn look(&mut self) -> Option<News> {
        let after = self.store.entries(&self.prefix);
        let news = match self.seen.as_deref().map(|before| changes(before, &after)) {
            None => Some(News::All(Listing { entries: after.clone(), revision: 0 })),
            Some(changes) => (!changes.is_empty()).then_some(News::Some(changes)),
        };
        self.seen = Some(after);
        news
    }
}

impl Follow for Watch {
    fn next(&mut self) -> Answer<'_, News> {
        Box::pin(async {
            ready(&self.store.node).await;
            loop {
                self.news.borrow_and_update();
                if let Some(news) = self.look() {
                    return Ok(news);
                }
                // The node lives as long as the store.
                let _ = self.news.changed().await;
                tokio::time::sleep(BREATH).await;
            }
        })
    }
}

/// What becomes of entries that were `before`, once they are `after`. Both are in the order of their keys.
fn changes(before: &[Entry], after: &[Entry]) -> Vec<Change> {
    let at = |entries: &[Entry], key: &str| entries.binary_search_by(|entry| entry.key.as_str().cmp(key)).ok();
    let differs = |entry: &&Entry| at(before, &entry.key).is_none_or(|place| before[place] != **entry);
    let gone = before.iter().filter(|entry| at(after, &entry.key).is_none());
    let gone = gone.map(|entry| Change::Gone(entry.key.clone()));
    gone.chain(after.iter().filter(differs).cloned().map(Change::Is)).collect()
}

/// How often is looked whether the others have been heard.
const LOOK: Duration = Duration::from_millis(50);

/// How long changes are gathered.
const BREATH: Duration = Duration::from_millis(20);
