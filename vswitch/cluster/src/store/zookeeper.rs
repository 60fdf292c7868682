//! ZooKeeper 3.6 or later, by the crate zookeeper-client, which keeps the session alive and finds another member by itself.
//!
//! A key is a path of nodes, so those above it are made with it, and stay. What is announced is an ephemeral node. A recursive watch tells which
//! node has changed but not to what, and nothing of what happened while there was no connection: then all is listed again.

mod watch;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use zookeeper_client::{
    Acls, Client, CreateMode, CreateOptions, Error, MultiReadResult, MultiWriteError, MultiWriter, SessionState, Stat,
};

use watch::TreeWatch;

use super::{
    Answer, Change, Entry, Follow, Listing, News, Outcome, PATIENCE, Session, Settings, Step, Store, StoreError, StoreKind,
    Trouble,
};

pub(super) struct ZooKeeper(Arc<Inner>);

struct Inner {
    /// The members, with commas, as they were named.
    cluster: String,
    /// What all paths begin with, between slashes.
    root: String,
    ttl: Duration,
    user: Option<(String, String)>,
    /// The client whose session is the host's.
    writer: Mutex<Option<Client>>,
    /// Another, for what is read and watched: a session ends only with the last use of its client.
    reader: Mutex<Option<Client>>,
}

impl ZooKeeper {
    pub(super) fn new(settings: &Settings) -> Self {
        let (cluster, root, user) = (settings.endpoints.join(","), settings.root(), settings.user.clone());
        let (writer, reader) = (Mutex::default(), Mutex::default());
        // The client waits by a thread that is begun when something is waited for first. A confined thread could not begin it; this one can.
        async_io::block_on(async_io::Timer::after(Duration::from_millis(1)));
        Self(Arc::new(Inner { cluster, root, ttl: settings.ttl, user, writer, reader }))
    }
}

/// Whether an endpoint is an address and a port.
pub(super) fn check_endpoint(endpoint: &str) -> Result<(), String> {
    let port = endpoint.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
    if port.is_none() || endpoint.contains('/') || endpoint.contains(',') {
        return Err(format!("endpoint \"{}\" of ZooKeeper is not ADDRESS:PORT, as in 192.0.2.1:2181", endpoint.escape_debug()));
    }
    Ok(())
}

impl Store for ZooKeeper {
    fn list<'a>(&'a self, prefix: &'a str) -> Answer<'a, Listing> {
        Box::pin(async move {
            let client = self.0.client(&self.0.reader).await?;
            self.0.list(&client, prefix).await
        })
    }

    fn commit<'a>(&'a self, session: Option<&'a Session>, steps: &'a [Step]) -> Answer<'a, Outcome> {
        Box::pin(self.0.commit(session, steps))
    }

    fn open(&self) -> Answer<'_, Session> {
        Box::pin(async {
            let client = self.0.client(&self.0.writer).await?;
            Ok(Session(client.session_id().to_string()))
        })
    }

    fn renew<'a>(&'a self, session: &'a Session) -> Answer<'a, bool> {
        Box::pin(async {
            let kept = self.0.writer.lock().await.clone();
            let Some(client) = kept.filter(|client| client.session_id().to_string() == session.0) else { return Ok(false) };
            match client.state() {
                SessionState::SyncConnected | SessionState::ConnectedReadOnly => Ok(true),
                SessionState::Disconnected => Err(self.0.failed(&Error::ConnectionLoss, "renew a session")),
                SessionState::AuthFailed => Err(self.0.failed(&Error::AuthFailed, "log in")),
                SessionState::Expired | SessionState::Closed => Ok(false),
            }
        })
    }

    fn close<'a>(&'a self, session: &'a Session) -> Answer<'a, ()> {
        Box::pin(async {
            let ended = self.0.writer.lock().await.take_if(|client| client.session_id().to_string() == session.0);
            let Some(mut watcher) = ended.map(|client| client.state_watcher()) else { return Ok(()) };
            // The session ends with the last of its clients, which says so by a task that needs time for it.
            let is_over = async {
                while !watcher.changed().await.is_terminated() {}
                Ok(())
            };
            self.0.answer(is_over, "end a session").await
        })
    }

    fn follow(&self, prefix: &str) -> Box<dyn Follow> {
        Box::new(TreeWatch::new(Arc::clone(&self.0), prefix))
    }
}

impl Inner {
    /// The client, or a new one if its session has ended.
    async fn client(&self, place: &Mutex<Option<Client>>) -> Result<Client, StoreError> {
        let mut kept = place.lock().await;
        if let Some(client) = kept.as_ref().filter(|client| !client.state().is_terminated()) {
            return Ok(client.clone());
        }
        let mut connector =
            Client::connector().with_session_timeout(self.ttl).with_connection_timeout(PATIENCE).with_fail_eagerly();
        if let Some((name, password)) = &self.user {
            connector = connector.with_auth("digest", format!("{name}:{password}").as_bytes());
        }
        let members = self.members().await?;
        let client = self.answer(connector.connect(&members), "log in").await?;
        *kept = Some(client.clone());
        Ok(client)
    }

    /// The addresses of the members, with commas. The client itself would ask for them on a thread that it begins.
    async fn members(&self) -> Result<String, StoreError> {
        let (mut found, mut failure) = (Vec::new(), None);
        for member in self.cluster.split(',') {
            match tokio::time::timeout(PATIENCE, tokio::net::lookup_host(member)).await {
                Ok(Ok(addresses)) => found.extend(addresses.map(|address| address.to_string())),
                Ok(Err(error)) => failure = Some(Trouble::Unreachable(error.to_string()).at(StoreKind::ZooKeeper, member)),
                Err(_) => failure = Some(Trouble::Silent(PATIENCE.as_secs()).at(StoreKind::ZooKeeper, member)),
            }
        }
        failure.filter(|_| found.is_empty()).map_or_else(|| Ok(found.join(",")), Err)
    }

    /// What comes in time.
    async fn answer<T>(&self, asked: impl Future<Output = Result<T, Error>>, what: &'static str) -> Result<T, StoreError> {
        match tokio::time::timeout(PATIENCE, asked).await {
            Ok(answer) => answer.map_err(|error| self.failed(&error, what)),
            Err(_) => Err(Trouble::Silent(PATIENCE.as_secs()).at(StoreKind::ZooKeeper, &self.cluster)),
        }
    }

    fn failed(&self, error: &Error, what: &'static str) -> StoreError {
        let trouble = match error {
            Error::NoHosts => Trouble::Unreachable("no member takes a connection".to_owned()),
            Error::ConnectionLoss => Trouble::Unreachable("the connection was lost".to_owned()),
            Error::Timeout => Trouble::Silent(PATIENCE.as_secs()),
            Error::SessionExpired | Error::ClientClosed | Error::SessionMoved => Trouble::SessionLost,
            Error::NotReadOnly => Trouble::NoQuorum,
            Error::AuthFailed => Trouble::WrongSecret("user with that password".to_owned()),
            Error::NoAuth => {
                let user = self.user.as_ref().map(|(name, _)| format!("user {name:?}"));
                let who = user.unwrap_or_else(|| "whoever gives no password".to_owned());
                Trouble::Forbidden { who, what, prefix: self.root.clone() }
            }
            other => Trouble::Other(other.to_string()),
        };
        trouble.at(StoreKind::ZooKeeper, &self.cluster)
    }

    fn path(&self, key: &str) -> String {
        format!("{}{}", self.root, key.trim_end_matches('/'))
    }

    /// Nodes that hosts made with a password are for those that know it.
    fn options(&self, mode: CreateMode) -> CreateOptions<'static> {
        mode.with_acls(if self.user.is_some() { Acls::creator_all() } else { Acls::anyone_all() })
    }

    async fn list(&self, client: &Client, prefix: &str) -> Result<Listing, StoreError> {
        // A member reads from its own copy: one that is behind the others would look like a store that is older than it was.
        self.answer(client.sync(&self.path(prefix)), "read").await?;
        // What is written while the tree is read comes behind its revision.
        let mut listing = Listing::default();
        let mut level = vec![self.path(prefix)];
        while !level.is_empty() {
            let mut below = Vec::new();
            for page in level.chunks(PAGE) {
                self.read(client, page, &mut listing, &mut below).await?;
            }
            level = below;
        }
        listing.entries.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(listing)
    }

    /// Reads the nodes of a page, and which are below them.
    async fn read(
        &self,
        client: &Client,
        page: &[String],
        listing: &mut Listing,
        below: &mut Vec<String>,
    ) -> Result<(), StoreError> {
        let mut reader = client.new_multi_reader();
        for path in page {
            let added = reader.add_get_data(path).and_then(|()| reader.add_get_children(path));
            added.map_err(|error| self.failed(&error, "read"))?;
        }
        let results = self.answer(reader.commit(), "read").await?;
        for (path, pair) in page.iter().zip(results.chunks(2)) {
            match pair {
                [MultiReadResult::Data { data, stat }, MultiReadResult::Children { children }] => {
                    listing.revision = listing.revision.max(revision(stat.mzxid)).max(revision(stat.pzxid));
                    below.extend(children.iter().map(|child| format!("{}/{child}", path.trim_end_matches('/'))));
                    listing.entries.extend(self.entry(path, data, stat));
                }
                [MultiReadResult::Error { err }, _] if *err != Error::NoNode => return Err(self.failed(err, "read")),
                _ => {}
            }
        }
        Ok(())
    }

    /// What has become of nodes that have changed.
    async fn changes(&self, client: &Client, paths: &BTreeSet<String>) -> Result<Vec<Change>, StoreError> {
        if paths.is_empty() {
            return Ok(Vec::new());
        }
        let mut reader = client.new_multi_reader();
        for path in paths {
            reader.add_get_data(path).map_err(|error| self.failed(&error, "read"))?;
        }
        let results = self.answer(reader.commit(), "read").await?;
        let mut changes = Vec::new();
        for (path, result) in paths.iter().zip(results) {
            match result {
                MultiReadResult::Data { data, stat } => changes.extend(self.entry(path, &data, &stat).map(Change::Is)),
                MultiReadResult::Error { err: Error::NoNode } => {
                    changes.extend(path.strip_prefix(&self.root).map(|key| Change::Gone(key.to_owned())));
                }
                MultiReadResult::Error { err } => return Err(self.failed(&err, "read")),
                _ => {}
            }
        }
        Ok(changes)
    }

    /// A node as an entry, unless it is only there to have others below it.
    fn entry(&self, path: &str, data: &[u8], stat: &Stat) -> Option<Entry> {
        let key = path.strip_prefix(&self.root).filter(|_| !data.is_empty())?;
        // A node's own count of changes is what a transaction can compare.
        let version = u64::try_from(stat.version).ok()?;
        Some(Entry { key: key.to_owned(), value: String::from_utf8_lossy(data).into_owned(), version })
    }

    async fn commit(&self, session: Option<&Session>, steps: &[Step]) -> Result<Outcome, StoreError> {
        let client = self.client(&self.writer).await?;
        if session.is_some_and(|session| session.0 != client.session_id().to_string()) {
            return Err(Trouble::SessionLost.at(StoreKind::ZooKeeper, &self.cluster));
        }
        // Another host makes the same parents, or a session ends: what was looked up is looked up again.
        for _ in 0..ATTEMPTS {
            let mut writer = client.new_multi_writer();
            for step in steps {
                self.add(&client, &mut writer, session, step).await?;
            }
            match tokio::time::timeout(PATIENCE, writer.commit()).await {
                Ok(Ok(_)) => return Ok(Outcome::Done),
                Ok(Err(MultiWriteError::OperationFailed { index, source })) => match source {
                    Error::NodeExists | Error::BadVersion | Error::NoNode if self.is_refused(&client, steps).await? => {
                        return Ok(Outcome::Refused);
                    }
                    Error::NoNode => self.make_parents(&client, steps).await?,
                    Error::NodeExists | Error::BadVersion => {}
                    other => return Err(self.failed(&other, if index < steps.len() { "write" } else { "write so much" })),
                },
                Ok(Err(MultiWriteError::RequestFailed { source })) => return Err(self.failed(&source, "write")),
                Err(_) => return Err(Trouble::Silent(PATIENCE.as_secs()).at(StoreKind::ZooKeeper, &self.cluster)),
            }
        }
        Ok(Outcome::Refused)
    }

    async fn add(
        &self,
        client: &Client,
        writer: &mut MultiWriter<'_>,
        session: Option<&Session>,
        step: &Step,
    ) -> Result<(), StoreError> {
        let failed = |error| self.failed(&error, "write");
        match step {
            Step::Announce { key, value } => {
                if session.is_none() {
                    return Err(failed(Error::SessionExpired));
                }
                let path = self.path(key);
                match self.answer(client.check_stat(&path), "read").await? {
                    Some(stat) if stat.ephemeral_owner == client.session_id().0 => {
                        return writer.add_set_data(&path, value.as_bytes(), Some(stat.version)).map_err(failed);
                    }
                    Some(stat) => writer.add_delete(&path, Some(stat.version)).map_err(failed)?,
                    None => {}
                }
                writer.add_create(&path, value.as_bytes(), &self.options(CreateMode::Ephemeral)).map_err(failed)
            }
            Step::Claim { key, value } => {
                if session.is_none() {
                    return Err(failed(Error::SessionExpired));
                }
                writer.add_create(&self.path(key), value.as_bytes(), &self.options(CreateMode::Ephemeral)).map_err(failed)
            }
            Step::Create { key, value } => {
                writer.add_create(&self.path(key), value.as_bytes(), &self.options(CreateMode::Persistent)).map_err(failed)
            }
            Step::Replace { key, value, version } => {
                let version = i32::try_from(*version).unwrap_or(i32::MAX);
                writer.add_set_data(&self.path(key), value.as_bytes(), Some(version)).map_err(failed)
            }
            Step::Remove { key } => {
                let path = self.path(key);
                let is_there = self.answer(client.check_stat(&path), "read").await?.is_some();
                if is_there { writer.add_delete(&path, None).map_err(failed) } else { Ok(()) }
            }
        }
    }

    /// Whether the steps cannot be carried out as things are, and not only because a parent is missing.
    async fn is_refused(&self, client: &Client, steps: &[Step]) -> Result<bool, StoreError> {
        for step in steps {
            let (key, wanted) = match step {
                Step::Create { key, .. } | Step::Claim { key, .. } => (key, None),
                Step::Replace { key, version, .. } => (key, Some(*version)),
                Step::Announce { .. } | Step::Remove { .. } => continue,
            };
            let stat = self.answer(client.check_stat(&self.path(key)), "read").await?;
            if stat.and_then(|stat| u64::try_from(stat.version).ok()) != wanted {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn make_parents(&self, client: &Client, steps: &[Step]) -> Result<(), StoreError> {
        let mut parents = BTreeSet::new();
        for step in steps {
            if let Step::Announce { key, .. } | Step::Claim { key, .. } | Step::Create { key, .. } = step {
                parents.extend(
                    self.path(key).rsplit_once('/').map(|(parent, _)| parent.to_owned()).filter(|parent| !parent.is_empty()),
                );
            }
        }
        for parent in parents {
            self.make(client, &parent).await?;
        }
        Ok(())
    }

    async fn make(&self, client: &Client, path: &str) -> Result<(), StoreError> {
        let options = self.options(CreateMode::Persistent);
        self.answer(client.mkdir(path, &options), "make a node").await
    }
}

fn revision(zxid: i64) -> u64 {
    u64::try_from(zxid).unwrap_or(0)
}

/// Nodes that are read at once.
const PAGE: usize = 250;

/// How often a transaction is put together anew because the nodes around it have changed.
const ATTEMPTS: usize = 4;
