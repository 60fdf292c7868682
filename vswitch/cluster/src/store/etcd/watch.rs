//! A watch: a list, then a stream of changes that goes on from the list's revision, on whichever member answers.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::Method;
use hyper::body::Incoming;
use serde_json::json;

use super::Inner;
use super::wire::{Heard, encoded, past};
use crate::store::http::{Ask, Reply};
use crate::store::{Answer, Change, Follow, News, PATIENCE, StoreError, StoreKind, Trouble};

/// A watch, which begins with a list.
pub(super) struct Watch {
    etcd: Arc<Inner>,
    prefix: String,
    /// The revision that was seen last; `None`: a list is due.
    after: Option<u64>,
    stream: Option<Stream>,
    /// Whether nothing was heard since an error.
    has_failed: bool,
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
            self.has_failed = news.is_err();
            news
        })
    }
}

impl Watch {
    pub(super) fn new(etcd: Arc<Inner>, prefix: &str) -> Self {
        Self { etcd, prefix: prefix.to_owned(), after: None, stream: None, has_failed: false, told: VecDeque::new() }
    }

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
        // The header has the store's own revision, and a watch that lags behind is told of older ones first.
        let last = watched.events.iter().map(|event| event.kv.mod_revision).max();
        self.after = self.after.max(last);
        let root = &self.etcd.root;
        let changes: Vec<Change> = watched.events.into_iter().filter_map(|event| event.change(root)).collect();
        if self.has_failed || !changes.is_empty() {
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

/// How long a watch may be silent before it is opened anew.
const IDLE: Duration = Duration::from_secs(10);

/// Most bytes of one change: what etcd takes in a transaction is far less.
const LONGEST_LINE: usize = 64 << 20;
