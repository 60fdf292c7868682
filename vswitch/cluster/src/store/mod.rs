//! What the cluster asks of a store, whichever it is: lists, transactions, a session that dies with the host, and news.
//!
//! A key is a path below the store's prefix, such as `cluster/host/a`; a value is a short JSON document. Two kinds of keys are kept apart by use:
//! those that are *announced* or *claimed* belong to a session and go with it, and only their own host writes them; the others stay, and are written only by
//! [`Step::Create`] and [`Step::Replace`], so that two hosts never take the same thing. What is compared by version is never removed: the
//! versions of ZooKeeper begin again with each node.

mod consul;
mod error;
mod etcd;
mod gossip;
mod http;
pub mod memory;
mod zookeeper;

use std::fmt;
use std::path::PathBuf;
use std::pin::Pin;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use crate::gossip::{Node, UDP_PORT, seed};

pub use error::{StoreError, Trouble};

/// What a store is asked for, once it is there.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// Most steps of one transaction: Consul takes 64 operations, of which an announcement needs two, and news of it one more.
pub const MOST_STEPS: usize = 20;

/// How long one member of a store may take before the next is asked: a member without a quorum holds a request for seven seconds.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// A store of keys that several hosts share.
pub trait Store: Send + Sync {
    /// All that is below a prefix, which is empty or ends with `/`, by the order of the keys.
    fn list<'a>(&'a self, prefix: &'a str) -> Answer<'a, Listing>;

    /// Carries out all of the steps, or none. At most [`MOST_STEPS`], each on a key of its own; announcements need a session.
    ///
    /// An error leaves it open whether they were carried out: the answer may have been lost.
    fn commit<'a>(&'a self, session: Option<&'a Session>, steps: &'a [Step]) -> Answer<'a, Outcome>;

    /// Opens a session, which ends when it was not renewed for the time of [`Settings::ttl`], and with it all that was announced in it.
    fn open(&self) -> Answer<'_, Session>;

    /// Keeps a session alive; `false` if it has ended.
    fn renew<'a>(&'a self, session: &'a Session) -> Answer<'a, bool>;

    /// Ends a session now.
    fn close<'a>(&'a self, session: &'a Session) -> Answer<'a, ()>;

    /// Follows what is below a prefix.
    fn follow(&self, prefix: &str) -> Box<dyn Follow>;
}

/// What is heard of a prefix.
pub trait Follow: Send {
    /// Waits for news. After an error it is asked again, and goes on where it was, or begins with [`News::All`]. As soon as it works again there are
    /// news, if only that nothing has changed.
    ///
    /// News may be lost where the answer is dropped before it is there.
    fn next(&mut self) -> Answer<'_, News>;
}

/// A key that a store holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key, without the store's prefix.
    pub key: String,
    /// Its value.
    pub value: String,
    /// Grows with each change to a key that stays.
    pub version: u64,
}

/// What was below a prefix.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// The entries, by the order of their keys.
    pub entries: Vec<Entry>,
    /// How far the store had come. A smaller number than before says that the store is another, or older.
    pub revision: u64,
}

/// What has become of a prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// All that there is: at first, and whenever what happened meanwhile cannot be told.
    All(Listing),
    /// What has changed.
    Some(Vec<Change>),
}

/// One key that changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It has this value.
    Is(Entry),
    /// It is gone.
    Gone(String),
}

/// A part of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Writes a key that goes with the session. One of an earlier session of the same host is taken over.
    Announce {
        /// The key.
        key: String,
        /// Its value.
        value: String,
    },
    /// Writes a key that goes with the session, unless there is one.
    Claim {
        /// The key.
        key: String,
        /// Its value.
        value: String,
    },
    /// Writes a key that stays, unless there is one.
    Create {
        /// The key.
        key: String,
        /// Its value.
        value: String,
    },
    /// Writes a key that stays and has this version.
    Replace {
        /// The key.
        key: String,
        /// Its new value.
        value: String,
        /// [`Entry::version`] as it was seen.
        version: u64,
    },
    /// Removes a key that was announced, if it is there.
    Remove {
        /// The key.
        key: String,
    },
}

impl Step {
    /// The key that it is about.
    pub fn key(&self) -> &str {
        match self {
            Self::Announce { key, .. }
            | Self::Claim { key, .. }
            | Self::Create { key, .. }
            | Self::Replace { key, .. }
            | Self::Remove { key } => key,
        }
    }
}

/// How a transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All steps were carried out.
    Done,
    /// None was: a key was there that was to be created, or has another version.
    Refused,
}

/// A host's presence in a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session(pub String);

/// Which store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreKind {
    /// One in this process, for tests.
    Memory,
    /// etcd 3.4 or later, by its HTTP gateway.
    Etcd,
    /// Consul 1.8 or later.
    Consul,
    /// ZooKeeper 3.6 or later.
    ZooKeeper,
    /// None: hosts tell each other.
    Gossip,
}

impl StoreKind {
    /// The word for it in `switch.toml`.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Etcd => "etcd",
            Self::Consul => "consul",
            Self::ZooKeeper => "zookeeper",
            Self::Gossip => "gossip",
        }
    }
}

impl fmt::Display for StoreKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Memory => "memory",
            Self::Etcd => "etcd",
            Self::Consul => "Consul",
            Self::ZooKeeper => "ZooKeeper",
            Self::Gossip => "gossip",
        })
    }
}

impl FromStr for StoreKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "etcd" => Ok(Self::Etcd),
            "consul" => Ok(Self::Consul),
            "zookeeper" => Ok(Self::ZooKeeper),
            "gossip" => Ok(Self::Gossip),
            _ => Err(format!("\"{}\" is no store: use etcd, consul, zookeeper or gossip", text.escape_debug())),
        }
    }
}

/// Where a store is, and how it lets a host in.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Which store it is.
    pub kind: StoreKind,
    /// Its members, `http://ADDRESS:PORT` or `https://...`; of ZooKeeper `ADDRESS:PORT`, of gossip `ADDRESS` as well.
    pub endpoints: Vec<String>,
    /// What all keys begin with; slashes around it mean nothing.
    pub prefix: String,
    /// How long a host may be silent before it is taken for dead.
    pub ttl: Duration,
    /// A user and the password.
    pub user: Option<(String, String)>,
    /// A token of Consul's ACLs.
    pub token: Option<String>,
    /// A file of the certificates that a member's is checked by.
    pub ca: Option<PathBuf>,
    /// The files of a client certificate and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// The gossip of this host, which with [`StoreKind::Gossip`] is its store.
    pub node: Option<Arc<Node>>,
}

impl Settings {
    /// A store without passwords or TLS.
    pub fn new(kind: StoreKind, endpoints: Vec<String>) -> Self {
        let (prefix, ttl) = ("vswitch".to_owned(), Duration::from_secs(10));
        Self { kind, endpoints, prefix, ttl, user: None, token: None, ca: None, identity: None, node: None }
    }

    /// The store. It is not asked for anything yet.
    ///
    /// # Errors
    /// A setting that cannot work with this store, or a file that cannot be read, in a sentence.
    pub fn open(&self) -> Result<Arc<dyn Store>, String> {
        self.check().map_err(|(_, sentence)| sentence)?;
        match self.kind {
            StoreKind::Memory => Ok(Arc::new(memory::Memory::new(self.ttl).host())),
            StoreKind::Etcd => Ok(Arc::new(etcd::Etcd::new(self)?)),
            StoreKind::Consul => Ok(Arc::new(consul::Consul::new(self)?)),
            StoreKind::ZooKeeper => Ok(Arc::new(zookeeper::ZooKeeper::new(self))),
            StoreKind::Gossip => {
                let node = self.node.as_ref().ok_or("this host does not gossip")?;
                Ok(Arc::new(gossip::GossipStore::new(node, &self.prefix)))
            }
        }
    }

    /// Whether the settings can be those of this store, without a look at the files that they name.
    ///
    /// # Errors
    /// The key of `[cluster]` that is wrong, and a sentence.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        let wrong = |key, sentence: &str| Err((key, sentence.to_owned()));
        match self.kind {
            StoreKind::Memory => return Ok(()),
            _ if self.endpoints.is_empty() => return wrong("endpoints", "`endpoints` is empty: name the members of the store"),
            StoreKind::Etcd if self.token.is_some() => {
                return wrong("token-file", "`token-file` is for Consul: give `username` and `password-file` to etcd");
            }
            StoreKind::Consul if self.user.is_some() => {
                return wrong("username", "`username` is not for Consul: give it a token, in `token-file`");
            }
            StoreKind::ZooKeeper if self.token.is_some() => {
                return wrong("token-file", "`token-file` is for Consul: give `username` and `password-file` to ZooKeeper");
            }
            StoreKind::ZooKeeper if self.ca.is_some() || self.identity.is_some() => {
                return wrong("ca", "TLS to ZooKeeper is not built: remove `ca`, `cert` and `key`");
            }
            StoreKind::Gossip if self.user.is_some() || self.token.is_some() => {
                return wrong("username", "gossip has no users: give `secret-file` to all hosts");
            }
            StoreKind::Gossip if self.ca.is_some() || self.identity.is_some() => {
                return wrong(
                    "ca",
                    "gossip is without TLS: remove `ca`, `cert` and `key`, and give `secret-file` to all hosts",
                );
            }
            StoreKind::Etcd | StoreKind::Consul | StoreKind::ZooKeeper | StoreKind::Gossip => {}
        }
        let certificates = [("ca", self.ca.is_some()), ("cert", self.identity.is_some())];
        let plain = self.endpoints.iter().find(|endpoint| endpoint.starts_with("http://"));
        if let (Some((key, _)), Some(plain)) = (certificates.iter().find(|(_, is_there)| *is_there), plain) {
            let end = "is without TLS, and there are certificates for it: write https://, or remove `ca`, `cert` and `key`";
            return wrong(key, &format!("endpoint \"{}\" {end}", plain.escape_debug()));
        }
        let is_sound = |endpoint: &String| match self.kind {
            StoreKind::ZooKeeper => zookeeper::check_endpoint(endpoint),
            StoreKind::Gossip => seed(endpoint, UDP_PORT).map(drop),
            _ => http::checked(endpoint, self).map(drop),
        };
        self.endpoints.iter().try_for_each(is_sound).map_err(|sentence| ("endpoints", sentence))
    }

    /// The prefix between slashes, or one slash.
    fn root(&self) -> String {
        match self.prefix.trim_matches('/') {
            "" => "/".to_owned(),
            prefix => format!("/{prefix}/"),
        }
    }
}
