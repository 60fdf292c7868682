//! Consul 1.8 or later: its key-value store, sessions, transactions and blocking queries.
//!
//! A watch waits until anything below its prefix has changed, and is then given all of it: what has changed is found by comparison. So a watch
//! asks at most every [`PAUSE`].

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hyper::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::http::{Ask, Members, Reply};
use super::{
    Answer, Entry, Follow, Listing, News, Outcome, PATIENCE, Session, Settings, Step, Store, StoreError, StoreKind, Trouble,
    changes,
};

pub(super) struct Consul(Arc<Inner>);

struct Inner {
    members: Members,
    /// What all keys begin with; it ends with a slash unless it is empty.
    root: String,
    token: Option<String>,
    ttl: Duration,
}

impl Consul {
    pub(super) fn new(settings: &Settings) -> Result<Self, String> {
        let members = Members::new(settings)?;
        let root = settings.root().trim_start_matches('/').to_owned();
        Ok(Self(Arc::new(Inner { members, root, token: settings.token.clone(), ttl: settings.ttl })))
    }
}

impl Store for Consul {
    fn list<'a>(&'a self, prefix: &'a str) -> Answer<'a, Listing> {
        Box::pin(self.0.list(prefix, None))
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
        Box::new(Watch { consul: Arc::clone(&self.0), prefix: prefix.to_owned(), known: None, has_failed: false })
    }
}

impl Inner {
    /// The list of a prefix, once the store has come further than `after`, or after [`WAIT`].
    async fn list(&self, prefix: &str, after: Option<u64>) -> Result<Listing, StoreError> {
        let wait = after.map(|after| format!("&index={after}&wait={}s", WAIT.as_secs()));
        let path = format!("/v1/kv/{}{prefix}?recurse{}", self.root, wait.as_deref().unwrap_or("&consistent"));
        // The server adds up to a sixteenth to the time that it is given.
        let patience = if after.is_some() { WAIT + WAIT / 16 + PATIENCE } else { PATIENCE };
        let reply = self.ask(Method::GET, &path, String::new(), patience).await?;
        let entries: Vec<Kv> = match reply.status {
            200 => serde_json::from_slice(&reply.body).map_err(|_| self.error(&reply, "read"))?,
            404 if reply.body.is_empty() && reply.index > 0 => Vec::new(),
            _ => return Err(self.error(&reply, "read")),
        };
        let mut entries: Vec<Entry> = entries.into_iter().filter_map(|kv| kv.entry(&self.root)).collect();
        entries.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(Listing { entries, revision: reply.index })
    }

    async fn commit(&self, session: Option<&Session>, steps: &[Step]) -> Result<Outcome, StoreError> {
        let mut operations = Vec::new();
        for step in steps {
            let mut push = |verb: &str, key: &str, rest: Value| {
                let mut operation = json!({ "Verb": verb, "Key": format!("{}{key}", self.root) });
                if let (Some(operation), Value::Object(rest)) = (operation.as_object_mut(), rest) {
                    operation.extend(rest);
                }
                operations.push(json!({ "KV": operation }));
            };
            match step {
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
        let reply = self.put("/v1/txn", &Value::Array(operations)).await?;
        match (reply.status, reply.text()) {
            (200, _) => Ok(Outcome::Done),
            (409, text) if text.contains("is stale") => Ok(Outcome::Refused),
            _ => Err(self.error(&reply, "write")),
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

/// A watch, which keeps what it told last to compare with.
struct Watch {
    consul: Arc<Inner>,
    prefix: String,
    known: Option<Listing>,
    /// Whether nothing was heard since an error.
    has_failed: bool,
}

impl Follow for Watch {
    fn next(&mut self) -> Answer<'_, News> {
        Box::pin(async {
            let news = self.read().await;
            self.has_failed = news.is_err();
            news
        })
    }
}

impl Watch {
    async fn read(&mut self) -> Result<News, StoreError> {
        loop {
            let Some(known) = &self.known else {
                let listing = self.consul.list(&self.prefix, None).await?;
                self.known = Some(listing.clone());
                return Ok(News::All(listing));
            };
            tokio::time::sleep(PAUSE).await;
            let index = Some(known.revision.max(1)).filter(|_| !self.has_failed);
            let listing = self.consul.list(&self.prefix, index).await?;
            // An index that goes backwards is another store's, or an older one's.
            if listing.revision < known.revision {
                self.known = None;
                continue;
            }
            let changes = changes(&known.entries, &listing.entries);
            self.known = Some(listing);
            if self.has_failed || !changes.is_empty() {
                return Ok(News::Some(changes));
            }
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Kv {
    key: String,
    value: Option<String>,
    modify_index: u64,
}

impl Kv {
    fn entry(self, root: &str) -> Option<Entry> {
        let value = BASE64.decode(self.value.unwrap_or_default()).ok()?;
        let (key, value) = (self.key.strip_prefix(root)?.to_owned(), String::from_utf8_lossy(&value).into_owned());
        Some(Entry { key, value, version: self.modify_index })
    }
}

#[derive(Deserialize)]
struct Made {
    #[serde(rename = "ID")]
    id: String,
}

/// How long a query waits for a change.
const WAIT: Duration = Duration::from_secs(10);

/// The least time between two queries of a watch, each of which is given all that is below its prefix.
const PAUSE: Duration = Duration::from_millis(100);
