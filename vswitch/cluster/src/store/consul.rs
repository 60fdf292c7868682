//! Consul 1.8 or later: its key-value store, sessions, transactions and blocking queries.
//!
//! Beside each directory of keys there are `news/` of it, by which it is followed (`watch`).

mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hyper::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::http::{Ask, Members, Reply};
use super::{
    Answer, Change, Entry, Follow, Listing, News, Outcome, PATIENCE, Session, Settings, Step, Store, StoreError, StoreKind,
    Trouble,
};
use watch::{NewsWatch, Word, directory, writer};

pub(super) struct Consul(Arc<Inner>);

struct Inner {
    members: Members,
    /// What all keys begin with; it ends with a slash unless it is empty.
    root: String,
    token: Option<String>,
    ttl: Duration,
    /// What was last said of each directory, by the news' key.
    said: Mutex<BTreeMap<String, Word>>,
}

impl Consul {
    pub(super) fn new(settings: &Settings) -> Result<Self, String> {
        let members = Members::new(settings)?;
        let root = settings.root().trim_start_matches('/').to_owned();
        Ok(Self(Arc::new(Inner { members, root, token: settings.token.clone(), ttl: settings.ttl, said: Mutex::default() })))
    }
}

impl Store for Consul {
    fn list<'a>(&'a self, prefix: &'a str) -> Answer<'a, Listing> {
        Box::pin(async {
            let (entries, revision) = self.0.held(prefix).await?;
            Ok(Listing { entries: entries.into_values().map(|held| held.entry).collect(), revision })
        })
    }

    fn commit<'a>(&'a self, session: Option<&'a Session>, steps: &'a [Step]) -> Answer<'a, Outcome> {
        Box::pin(self.0.commit(session, steps))
    }

    fn open(&self) -> Answer<'_, Session> {
        Box::pin(async {
            // Without its own list of checks a session would also end with the health of the agent.
            let ttl = format!("{}s", self.0.ttl.as_secs().max(1));
            let ask = json!({ "Name": "vswitch", "TTL": ttl, "Behavior": "delete", "LockDelay": "0s", "Checks": [] });
            let reply = self.0.put("/v1/session/create", &ask).await?;
            if reply.status != 200 {
                return Err(self.0.error(&reply, "make a session"));
            }
            let made: Made = serde_json::from_slice(&reply.body).map_err(|_| self.0.error(&reply, "make a session"))?;
            Ok(Session(made.id))
        })
    }

    fn renew<'a>(&'a self, session: &'a Session) -> Answer<'a, bool> {
        Box::pin(async {
            let reply = self.0.put(&format!("/v1/session/renew/{}", session.0), &Value::Null).await?;
            match reply.status {
                200 => Ok(true),
                404 => Ok(false),
                _ => Err(self.0.error(&reply, "renew a session")),
            }
        })
    }

    fn close<'a>(&'a self, session: &'a Session) -> Answer<'a, ()> {
        Box::pin(async {
            let reply = self.0.put(&format!("/v1/session/destroy/{}", session.0), &Value::Null).await?;
            if reply.status == 200 { Ok(()) } else { Err(self.0.error(&reply, "end a session")) }
        })
    }

    fn follow(&self, prefix: &str) -> Box<dyn Follow> {
        Box::new(NewsWatch::new(Arc::clone(&self.0), prefix))
    }
}

impl Inner {
    /// What a prefix holds, and how far it has come.
    async fn held(&self, prefix: &str) -> Result<(BTreeMap<String, Held>, u64), StoreError> {
        let (entries, index) = self.list(prefix, None).await?;
        let held = entries.into_iter().filter_map(|kv| kv.held(&self.root));
        let held = held.filter(|held| !held.entry.key.starts_with(NEWS));
        Ok((held.map(|held| (held.entry.key.clone(), held)).collect(), index))
    }

    /// The news of all directories below a prefix, by their directories and writers, once there are other ones than at an index, or after the time
    /// that is given with it.
    async fn words(&self, prefix: &str, after: Option<(u64, Duration)>) -> Result<(BTreeMap<String, Word>, u64), StoreError> {
        let (entries, index) = self.list(&format!("{NEWS}{prefix}"), after).await?;
        let held = entries.into_iter().filter_map(|kv| kv.held(&self.root));
        let word = |Held { entry, .. }: Held| {
            let writer = entry.key.strip_prefix(NEWS)?.to_owned();
            Some((writer, serde_json::from_str(&entry.value).unwrap_or_else(|_| Word::strange(entry.version))))
        };
        Ok((held.filter_map(word).collect(), index))
    }

    /// What these keys hold, as far as they are there.
    async fn find(&self, keys: &BTreeSet<String>) -> Result<BTreeMap<String, Held>, StoreError> {
        if keys.is_empty() {
            return Ok(BTreeMap::new());
        }
        // A key that is not there would end the transaction, were it asked for as one and not as a tree.
        let trees = keys.iter().map(|key| json!({ "KV": { "Verb": "get-tree", "Key": format!("{}{key}", self.root) } }));
        let reply = self.put("/v1/txn?consistent", &trees.collect()).await?;
        if reply.status != 200 {
            return Err(self.error(&reply, "read"));
        }
        let found: Found = serde_json::from_slice(&reply.body).map_err(|_| self.error(&reply, "read"))?;
        let held = found.results.into_iter().flatten().filter_map(|found| found.kv.held(&self.root));
        Ok(held.map(|held| (held.entry.key.clone(), held)).filter(|(key, _)| keys.contains(key)).collect())
    }

    /// The list of a prefix, once the store has come further than an index, or after the time that is given with it.
    async fn list(&self, prefix: &str, after: Option<(u64, Duration)>) -> Result<(Vec<Kv>, u64), StoreError> {
        let wait = after.map(|(after, time)| format!("&index={after}&wait={}ms", time.as_millis()));
        let path = format!("/v1/kv/{}{prefix}?recurse{}", self.root, wait.as_deref().unwrap_or("&consistent"));
        // The server adds up to a sixteenth to the time that it is given.
        let patience = after.map_or(PATIENCE, |(_, time)| time + time / 16 + PATIENCE);
        let reply = self.ask(Method::GET, &path, String::new(), patience).await?;
        let entries = match reply.status {
            200 => serde_json::from_slice(&reply.body).map_err(|_| self.error(&reply, "read"))?,
            404 if reply.body.is_empty() && reply.index > 0 => Vec::new(),
            _ => return Err(self.error(&reply, "read")),
        };
        Ok((entries, reply.index))
    }

    async fn commit(&self, session: Option<&Session>, steps: &[Step]) -> Result<Outcome, StoreError> {
        let mut operations = Vec::new();
        let mut push = |verb: &str, key: &str, rest: Value| {
            let mut operation = json!({ "Verb": verb, "Key": format!("{}{key}", self.root) });
            if let (Some(operation), Value::Object(rest)) = (operation.as_object_mut(), rest) {
                operation.extend(rest);
            }
            operations.push(json!({ "KV": operation }));
        };
        for step in steps {
            match step {
                Step::Claim { key, value } => {
                    let Some(Session(id)) = session else {
                        return Err(Trouble::SessionLost.at(StoreKind::Consul, self.members.endpoint()));
                    };
                    push("cas", key, json!({ "Value": BASE64.encode(value), "Index": 0 }));
                    push("lock", key, json!({ "Value": BASE64.encode(value), "Session": id }));
                }
                // A key that an earlier session of this host holds is let go first.
                Step::Announce { key, value } => {
                    let Some(Session(id)) = session else {
                        return Err(Trouble::SessionLost.at(StoreKind::Consul, self.members.endpoint()));
                    };
                    push("delete", key, Value::Null);
                    push("lock", key, json!({ "Value": BASE64.encode(value), "Session": id }));
                }
                Step::Create { key, value } => push("cas", key, json!({ "Value": BASE64.encode(value), "Index": 0 })),
                Step::Replace { key, value, version } => {
                    push("cas", key, json!({ "Value": BASE64.encode(value), "Index": version }));
                }
                Step::Remove { key } => push("delete", key, Value::Null),
            }
        }
        let words = self.next_words(session, steps);
        for (key, word) in &words {
            let value = BASE64.encode(json!(word).to_string());
            match session {
                Some(Session(id)) => push("lock", key, json!({ "Value": value, "Session": id })),
                None => push("set", key, json!({ "Value": value })),
            }
        }
        let reply = self.put("/v1/txn", &Value::Array(operations)).await;
        let outcome = reply.and_then(|reply| match (reply.status, reply.text()) {
            (200, _) => Ok(Outcome::Done),
            (409, text) if text.contains("is stale") => Ok(Outcome::Refused),
            _ => Err(self.error(&reply, "write")),
        });
        self.keep_words(words, outcome.as_ref().ok());
        outcome
    }

    /// What is to be said of the directories of these steps.
    fn next_words(&self, session: Option<&Session>, steps: &[Step]) -> BTreeMap<String, Word> {
        let writer = session.map_or(NO_SESSION, |session| &session.0);
        let mut keys: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for key in steps.iter().map(Step::key) {
            keys.entry(format!("{NEWS}{}{writer}", directory(key))).or_default().push(key);
        }
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let none = Word::default();
        let next = |(name, keys): (String, Vec<&str>)| {
            let word = said.get(&name).unwrap_or(&none).and(keys.into_iter());
            (name, word)
        };
        keys.into_iter().map(next).collect()
    }

    /// Takes note of what was said, if it was; `None`: that is not known.
    fn keep_words(&self, words: BTreeMap<String, Word>, outcome: Option<&Outcome>) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let writers: BTreeSet<&str> = words.keys().map(|name| writer(name)).collect();
        // Those of an earlier session went with it.
        said.retain(|name, _| writer(name) == NO_SESSION || writers.contains(writer(name)));
        match outcome {
            Some(Outcome::Done) => said.extend(words),
            Some(Outcome::Refused) => {}
            None => said.extend(words.into_iter().map(|(name, word)| (name, word.unnamed()))),
        }
    }

    async fn put(&self, path: &str, ask: &Value) -> Result<Reply, StoreError> {
        self.ask(Method::PUT, path, if ask.is_null() { String::new() } else { ask.to_string() }, PATIENCE).await
    }

    async fn ask(&self, method: Method, path: &str, body: String, patience: Duration) -> Result<Reply, StoreError> {
        let header = self.token.clone().map(|token| ("x-consul-token", token));
        self.members.ask(&Ask { method, path, header, body, patience }).await
    }

    fn error(&self, reply: &Reply, what: &'static str) -> StoreError {
        let text = reply.text();
        let says = |part: &str| text.contains(part);
        let trouble = if says("ACL not found") {
            Trouble::WrongSecret("token as that of `token-file`".to_owned())
        } else if says("Permission denied") {
            let who = if self.token.is_some() { "the token" } else { "whoever gives no token" };
            Trouble::Forbidden { who: who.to_owned(), what, prefix: self.root.clone() }
        } else if says("invalid session") || says("Session id") && says("not found") {
            Trouble::SessionLost
        } else if says("No cluster leader") || says("leadership lost") || says("raft is not") {
            Trouble::NoQuorum
        } else if reply.status == 413 || says("too many operations") {
            Trouble::TooMuch("a transaction".to_owned())
        } else if says("HTTP request to an HTTPS server") {
            Trouble::Tls("the store speaks TLS only: write https:// in `endpoints`, and give `ca`".to_owned())
        } else if reply.status == 500 || reply.status == 409 || reply.status == 400 {
            Trouble::Other(text)
        } else {
            let first: String = text.lines().next().unwrap_or_default().chars().take(60).collect();
            Trouble::Stranger(format!("HTTP status {}: {first}", reply.status))
        };
        trouble.at(StoreKind::Consul, &reply.endpoint)
    }
}

/// What the store holds at a key, and by which session.
#[derive(Clone, Debug)]
struct Held {
    entry: Entry,
    session: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Kv {
    key: String,
    value: Option<String>,
    modify_index: u64,
    session: Option<String>,
}

impl Kv {
    fn held(self, root: &str) -> Option<Held> {
        let value = BASE64.decode(self.value.unwrap_or_default()).ok()?;
        let (key, value) = (self.key.strip_prefix(root)?.to_owned(), String::from_utf8_lossy(&value).into_owned());
        Some(Held { entry: Entry { key, value, version: self.modify_index }, session: self.session })
    }
}

/// What a transaction that reads has found.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Found {
    results: Option<Vec<FoundKey>>,
}

#[derive(Deserialize)]
struct FoundKey {
    #[serde(rename = "KV")]
    kv: Kv,
}

#[derive(Deserialize)]
struct Made {
    #[serde(rename = "ID")]
    id: String,
}

/// What the keys of news begin with.
const NEWS: &str = "news/";

/// Stands for the session of those who have none.
const NO_SESSION: &str = "none";
