//! etcd 3.4 or later, by the JSON gateway that every member has on its client port.
//!
//! Keys and values are base64, numbers are strings, and what is zero, false or empty is absent. A session is a lease. Lists are read in pages of
//! one revision, so that a long list holds up no one else, and a watch begins with the revision behind its list.

mod watch;
mod wire;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hyper::Method;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::http::{Ask, Members, Reply};
use super::{Answer, Follow, Listing, Outcome, PATIENCE, Session, Settings, Step, Store, StoreError, StoreKind, Trouble};
use watch::Watch;
use wire::{Done, Granted, Kept, Lease, Range, Said, encoded, past};

pub(super) struct Etcd(Arc<Inner>);

struct Inner {
    members: Members,
    /// What all keys begin with, between slashes.
    root: String,
    user: Option<(String, String)>,
    /// What the password was exchanged for.
    token: Mutex<Option<String>>,
    ttl: Duration,
}

impl Etcd {
    pub(super) fn new(settings: &Settings) -> Result<Self, String> {
        let members = Members::new(settings)?;
        let (root, user, token) = (settings.root(), settings.user.clone(), Mutex::default());
        Ok(Self(Arc::new(Inner { members, root, user, token, ttl: settings.ttl })))
    }
}

impl Store for Etcd {
    fn list<'a>(&'a self, prefix: &'a str) -> Answer<'a, Listing> {
        Box::pin(self.0.list(prefix))
    }

    fn commit<'a>(&'a self, session: Option<&'a Session>, steps: &'a [Step]) -> Answer<'a, Outcome> {
        Box::pin(self.0.commit(session, steps))
    }

    fn open(&self) -> Answer<'_, Session> {
        Box::pin(async {
            let ttl = self.0.ttl.as_secs().max(1);
            let lease: Lease = self.0.call("/v3/lease/grant", &json!({ "TTL": ttl }), "make a lease").await?;
            Ok(Session(lease.id))
        })
    }

    fn renew<'a>(&'a self, session: &'a Session) -> Answer<'a, bool> {
        Box::pin(async {
            let kept: Kept = self.0.call("/v3/lease/keepalive", &json!({ "ID": session.0 }), "renew a lease").await?;
            Ok(kept.result.ttl > 0)
        })
    }

    fn close<'a>(&'a self, session: &'a Session) -> Answer<'a, ()> {
        Box::pin(async {
            match self.0.call::<Value>("/v3/lease/revoke", &json!({ "ID": session.0 }), "end a lease").await {
                Ok(_) => Ok(()),
                Err(error) if error.trouble == Trouble::SessionLost => Ok(()),
                Err(error) => Err(error),
            }
        })
    }

    fn follow(&self, prefix: &str) -> Box<dyn Follow> {
        Box::new(Watch::new(Arc::clone(&self.0), prefix))
    }
}

impl Inner {
    async fn list(&self, prefix: &str) -> Result<Listing, StoreError> {
        let first = format!("{}{prefix}", self.root);
        let end = encoded(past(&first));
        let mut listing = Listing::default();
        let mut from = first.into_bytes();
        loop {
            let mut ask = json!({ "key": BASE64.encode(&from), "range_end": end, "limit": PAGE });
            if listing.revision > 0 {
                ask["revision"] = json!(listing.revision);
            }
            let page: Range = self.call("/v3/kv/range", &ask, "read").await?;
            // All pages are of the first one's revision; the header of each has the revision that the store has come to meanwhile.
            if listing.revision == 0 {
                listing.revision = page.header.revision;
            }
            let more = page.more;
            listing.entries.extend(page.kvs.into_iter().filter_map(|kv| kv.entry(&self.root)));
            match listing.entries.last() {
                Some(last) if more => from = format!("{}{}\0", self.root, last.key).into_bytes(),
                _ => return Ok(listing),
            }
        }
    }

    async fn commit(&self, session: Option<&Session>, steps: &[Step]) -> Result<Outcome, StoreError> {
        let (mut compare, mut success) = (Vec::new(), Vec::new());
        for step in steps {
            let key = |key: &String| encoded(format!("{}{key}", self.root));
            let absent = |name| json!({ "target": "CREATE", "key": key(name), "createRevision": 0, "result": "EQUAL" });
            success.push(match step {
                Step::Announce { key: name, value } | Step::Claim { key: name, value } => {
                    if matches!(step, Step::Claim { .. }) {
                        compare.push(absent(name));
                    }
                    let lease = session.ok_or_else(|| self.failed(Trouble::SessionLost))?;
                    json!({ "requestPut": { "key": key(name), "value": encoded(value), "lease": lease.0 } })
                }
                Step::Create { key: name, value } => {
                    compare.push(absent(name));
                    json!({ "requestPut": { "key": key(name), "value": encoded(value) } })
                }
                Step::Replace { key: name, value, version } => {
                    compare.push(json!({ "target": "MOD", "key": key(name), "modRevision": version, "result": "EQUAL" }));
                    json!({ "requestPut": { "key": key(name), "value": encoded(value) } })
                }
                Step::Remove { key: name } => json!({ "requestDeleteRange": { "key": key(name) } }),
            });
        }
        let done: Done = self.call("/v3/kv/txn", &json!({ "compare": compare, "success": success }), "write").await?;
        Ok(if done.succeeded { Outcome::Done } else { Outcome::Refused })
    }

    /// A question and its answer. A token that has run out is renewed once.
    async fn call<T: DeserializeOwned>(&self, path: &str, ask: &Value, what: &'static str) -> Result<T, StoreError> {
        let mut fresh = false;
        loop {
            let token = self.token(fresh).await?;
            let reply = self.post(path, ask, token).await?;
            if reply.status == 200 {
                return serde_json::from_slice(&reply.body).map_err(|_| self.stranger(&reply));
            }
            let error = self.error(&reply, what);
            if fresh || self.user.is_none() || error.trouble != Trouble::Anonymous {
                return Err(error);
            }
            fresh = true;
        }
    }

    async fn post(&self, path: &str, ask: &Value, token: Option<String>) -> Result<Reply, StoreError> {
        let header = token.map(|token| ("authorization", token));
        let ask = Ask { method: Method::POST, path, header, body: ask.to_string(), patience: PATIENCE };
        self.members.ask(&ask).await
    }

    /// What the password is exchanged for; `fresh` if the last was not taken.
    async fn token(&self, fresh: bool) -> Result<Option<String>, StoreError> {
        let Some((name, password)) = &self.user else { return Ok(None) };
        let kept = self.token.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(token) = kept.filter(|_| !fresh) {
            return Ok(Some(token));
        }
        let reply = self.post("/v3/auth/authenticate", &json!({ "name": name, "password": password }), None).await?;
        // An etcd that wants no passwords says so, and lets everyone in.
        if reply.text().contains("authentication is not enabled") {
            return Ok(None);
        }
        if reply.status != 200 {
            return Err(self.error(&reply, "log in"));
        }
        let granted: Granted = serde_json::from_slice(&reply.body).map_err(|_| self.stranger(&reply))?;
        *self.token.lock().unwrap_or_else(PoisonError::into_inner) = Some(granted.token.clone());
        Ok(Some(granted.token))
    }

    fn error(&self, reply: &Reply, what: &'static str) -> StoreError {
        let text = reply.text();
        let Ok(said) = serde_json::from_str::<Said>(&text) else { return self.stranger(reply) };
        let message = if said.message.is_empty() { said.error } else { said.message };
        self.trouble(said.code, &message, what).at(StoreKind::Etcd, &reply.endpoint)
    }

    /// What an error of the gateway means; the codes are gRPC's.
    fn trouble(&self, code: i64, message: &str, what: &'static str) -> Trouble {
        let says = |part: &str| message.contains(part);
        let user = self.user.as_ref().map(|(name, _)| name.clone());
        if says("authentication failed") {
            Trouble::WrongSecret(format!("user {:?} with the password of `password-file`", user.unwrap_or_default()))
        } else if says("user name is empty") || says("invalid auth token") || code == 16 {
            Trouble::Anonymous
        } else if code == 7 || says("permission denied") {
            let who = user.map_or_else(|| "whoever gives no password".to_owned(), |user| format!("user {user:?}"));
            Trouble::Forbidden { who, what, prefix: self.root.clone() }
        } else if says("lease not found") {
            Trouble::SessionLost
        } else if says("no leader") || says("request timed out") || says("leader changed") {
            Trouble::NoQuorum
        } else if says("too many operations") || says("request is too large") {
            Trouble::TooMuch("a transaction".to_owned())
        } else {
            Trouble::Other(message.to_owned())
        }
    }

    fn stranger(&self, reply: &Reply) -> StoreError {
        let text = reply.text();
        let first = text.lines().next().unwrap_or_default();
        let trouble = match first {
            first if first.contains("HTTP request to an HTTPS server") => {
                Trouble::Tls("the store speaks TLS only: write https:// in `endpoints`, and give `ca`".to_owned())
            }
            first if first.contains("CommonName") => Trouble::CommonName,
            first => Trouble::Stranger(format!("HTTP status {}: {}", reply.status, first.chars().take(60).collect::<String>())),
        };
        trouble.at(StoreKind::Etcd, &reply.endpoint)
    }

    fn failed(&self, trouble: Trouble) -> StoreError {
        trouble.at(StoreKind::Etcd, self.members.endpoint())
    }
}

/// Entries of a page: 12 to 22 ms of a member's time each.
const PAGE: u32 = 500;
