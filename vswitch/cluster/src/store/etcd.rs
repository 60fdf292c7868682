//! etcd 3.4 or later, by the JSON gateway that every member has on its client port.
//!
//! Keys and values are base64, numbers are strings, and what is zero, false or empty is absent. A session is a lease. Lists are read in pages of
//! one revision, so that a long list holds up no one else, and a watch begins with the revision behind its list.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http_body_util::BodyExt;
use hyper::Method;
use hyper::body::Incoming;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use super::http::{Ask, Members, Reply};
use super::{
    Answer, Change, Entry, Follow, Listing, News, Outcome, PATIENCE, Session, Settings, Step, Store, StoreError, StoreKind,
    Trouble,
};

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
        if settings.token.is_some() {
            return Err("`token-file` is for Consul: give `username` and `password-file` to etcd".to_owned());
        }
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
        Box::new(Watch {
            etcd: Arc::clone(&self.0),
            prefix: prefix.to_owned(),
            after: None,
            stream: None,
            told: VecDeque::new(),
        })
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
            // All pages are of the first one's revision.
            if listing.revision > 0 {
                ask["revision"] = json!(listing.revision);
            }
            let page: Range = self.call("/v3/kv/range", &ask, "read").await?;
            listing.revision = listing.revision.max(page.header.revision);
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
            success.push(match step {
                Step::Announce { key: name, value } => {
                    let lease = session.ok_or_else(|| self.failed(Trouble::SessionLost))?;
                    json!({ "requestPut": { "key": key(name), "value": encoded(value), "lease": lease.0 } })
                }
                Step::Create { key: name, value } => {
                    compare.push(json!({ "target": "CREATE", "key": key(name), "createRevision": 0, "result": "EQUAL" }));
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
        // An etcd that wants no passwords says so, and takes whoever comes.
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
        if says("CommonName") {
            Trouble::CommonName
        } else if says("authentication failed") {
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
            first => Trouble::Stranger(format!("HTTP status {}: {}", reply.status, first.chars().take(60).collect::<String>())),
        };
        trouble.at(StoreKind::Etcd, &reply.endpoint)
    }

    fn failed(&self, trouble: Trouble) -> StoreError {
        trouble.at(StoreKind::Etcd, self.members.endpoint())
    }
}

/// A watch, which begins with a list.
struct Watch {
    etcd: Arc<Inner>,
    prefix: String,
    /// The revision that was seen last; `None`: a list is due.
    after: Option<u64>,
    stream: Option<Stream>,
    /// What was read and not told yet.
    told: VecDeque<News>,
}

struct Stream {
    endpoint: String,
    body: Incoming,
    buffer: Vec<u8>,
}

impl Follow for Watch {
    fn next(&mut self) -> Answer<'_, News> {
        Box::pin(async {
            let news = self.read().await;
            if news.is_err() {
                self.stream = None;
            }
            news
        })
    }
}

impl Watch {
    async fn read(&mut self) -> Result<News, StoreError> {
        loop {
            if let Some(news) = self.told.pop_front() {
                return Ok(news);
            }
            let Some(after) = self.after else {
                let listing = self.etcd.list(&self.prefix).await?;
                (self.after, self.stream) = (Some(listing.revision), None);
                return Ok(News::All(listing));
            };
            let mut stream = match self.stream.take() {
                Some(stream) => stream,
                None => self.open(after).await?,
            };
            // A stream on which nothing comes may be one that lost its way; a new one misses nothing.
            match tokio::time::timeout(IDLE, stream.line(&self.etcd)).await {
                Ok(line) => self.hear(&line?, stream)?,
                Err(_) => continue,
            }
        }
    }

    async fn open(&self, after: u64) -> Result<Stream, StoreError> {
        let first = format!("{}{}", self.etcd.root, self.prefix);
        let (key, end) = (encoded(&first), encoded(past(&first)));
        let ask = json!({ "create_request": { "key": key, "range_end": end, "start_revision": after + 1 } });
        let header = self.etcd.token(false).await?.map(|token| ("authorization", token));
        let ask = Ask { method: Method::POST, path: "/v3/watch", header, body: ask.to_string(), patience: PATIENCE };
        let (endpoint, response) = self.etcd.members.stream(&ask).await?;
        let status = response.status().as_u16();
        let mut stream = Stream { endpoint, body: response.into_body(), buffer: Vec::new() };
        if status == 200 {
            return Ok(stream);
        }
        let body = stream.line(&self.etcd).await.unwrap_or_default();
        let reply = Reply { endpoint: stream.endpoint, status, index: 0, body: body.into() };
        let error = self.etcd.error(&reply, "watch");
        if error.trouble == Trouble::Anonymous {
            self.etcd.token(true).await?;
        }
        Err(error)
    }

    /// Takes in a line of the stream. One that ends the watch for want of history makes a list due.
    fn hear(&mut self, line: &[u8], stream: Stream) -> Result<(), StoreError> {
        let failed = |trouble: Trouble| trouble.at(StoreKind::Etcd, &stream.endpoint);
        let said: Heard = serde_json::from_slice(line).map_err(|error| failed(Trouble::Other(error.to_string())))?;
        if let Some(error) = said.error {
            return Err(failed(self.etcd.trouble(error.code, &error.message, "watch")));
        }
        let Some(watched) = said.result else { return Ok(()) };
        if watched.compact_revision > 0 {
            self.after = None;
            return Ok(());
        }
        if watched.canceled {
            let forbidden = watched.cancel_reason.contains("permission");
            return Err(failed(self.etcd.trouble(if forbidden { 7 } else { 0 }, &watched.cancel_reason, "watch")));
        }
        // A store that was put back to an older state has smaller revisions, and knows nothing of those that are waited for.
        if self.after.is_some_and(|after| watched.header.revision < after) {
            self.after = None;
            return Ok(());
        }
        let root = &self.etcd.root;
        let changes: Vec<Change> = watched.events.into_iter().filter_map(|event| event.change(root)).collect();
        if !changes.is_empty() {
            self.after = self.after.max(Some(watched.header.revision));
            self.told.push_back(News::Some(changes));
        }
        self.stream = Some(stream);
        Ok(())
    }
}

impl Stream {
    /// The next line, or what there is at the end.
    async fn line(&mut self, etcd: &Inner) -> Result<Vec<u8>, StoreError> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                return Ok(self.buffer.drain(..=end).collect());
            }
            let over = || Trouble::Unreachable("the connection ended".to_owned());
            match self.body.frame().await {
                Some(Ok(frame)) => self.buffer.extend_from_slice(frame.data_ref().map_or(&[], |data| data)),
                None if !self.buffer.is_empty() => return Ok(std::mem::take(&mut self.buffer)),
                None => return Err(over().at(StoreKind::Etcd, etcd.members.endpoint())),
                Some(Err(error)) => return Err(Trouble::Unreachable(error.to_string()).at(StoreKind::Etcd, &self.endpoint)),
            }
            if self.buffer.len() > LONGEST_LINE {
                return Err(Trouble::TooMuch("a change".to_owned()).at(StoreKind::Etcd, &self.endpoint));
            }
        }
    }
}

/// The first key that does not begin with a text, which ends with a slash.
fn past(text: &str) -> String {
    format!("{}0", text.trim_end_matches('/'))
}

fn encoded(text: impl AsRef<[u8]>) -> String {
    BASE64.encode(text)
}

fn decoded(text: &str) -> Option<String> {
    Some(String::from_utf8_lossy(&BASE64.decode(text).ok()?).into_owned())
}

/// A number that is written as a string, or as itself.
fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let value = Value::deserialize(deserializer)?;
    let number = value.as_str().map_or_else(|| value.as_u64(), |text| text.parse().ok());
    number.ok_or_else(|| serde::de::Error::custom("not a number"))
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Header {
    #[serde(deserialize_with = "number")]
    revision: u64,
}

#[derive(Deserialize)]
struct Range {
    header: Header,
    #[serde(default)]
    kvs: Vec<Kv>,
    #[serde(default)]
    more: bool,
}

#[derive(Deserialize)]
struct Kv {
    key: String,
    #[serde(default)]
    value: String,
    #[serde(default, deserialize_with = "number")]
    mod_revision: u64,
}

impl Kv {
    fn entry(self, root: &str) -> Option<Entry> {
        let key = decoded(&self.key)?.strip_prefix(root)?.to_owned();
        Some(Entry { key, value: decoded(&self.value)?, version: self.mod_revision })
    }
}

#[derive(Deserialize)]
struct Lease {
    #[serde(rename = "ID")]
    id: String,
}

#[derive(Deserialize)]
struct Kept {
    result: Lifetime,
}

#[derive(Deserialize)]
struct Lifetime {
    #[serde(rename = "TTL", default, deserialize_with = "number")]
    ttl: u64,
}

#[derive(Deserialize)]
struct Done {
    #[serde(default)]
    succeeded: bool,
}

#[derive(Deserialize)]
struct Granted {
    token: String,
}

/// An error: 3.4 says it twice, later ones once.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Said {
    error: String,
    message: String,
    code: i64,
}

#[derive(Deserialize)]
struct Heard {
    result: Option<Watched>,
    error: Option<Broken>,
}

#[derive(Deserialize)]
struct Broken {
    #[serde(default, alias = "grpc_code")]
    code: i64,
    #[serde(default)]
    message: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Watched {
    header: Header,
    events: Vec<Event>,
    canceled: bool,
    cancel_reason: String,
    #[serde(deserialize_with = "number")]
    compact_revision: u64,
}

#[derive(Deserialize)]
struct Event {
    #[serde(default)]
    r#type: String,
    kv: Kv,
}

impl Event {
    fn change(self, root: &str) -> Option<Change> {
        let entry = self.kv.entry(root)?;
        Some(if self.r#type == "DELETE" { Change::Gone(entry.key) } else { Change::Is(entry) })
    }
}

/// Entries of a page: 12 to 22 ms of a member's time each.
const PAGE: u32 = 500;

/// How long a watch may be silent before it is opened anew.
const IDLE: Duration = Duration::from_secs(10);

/// Most bytes of one change: what etcd takes in a transaction is far less.
const LONGEST_LINE: usize = 64 << 20;
