//! `vsctl events`: what happened, and what happens, line by line.

use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::ClientError;
use super::connection::{Control, broken};
use api::{EventInfo, EventKind, Reply, Request};

/// What `vsctl events` was asked for.
#[derive(Debug)]
pub(super) struct Events {
    pub(super) follow: bool,
    /// Empty: all.
    pub(super) kinds: Vec<EventKind>,
}

/// Longest message of the stream; an event has some hundred bytes.
const LONGEST: usize = 1 << 16;

impl Events {
    pub(super) async fn run(self, control: Control, json: bool) -> Result<(), ClientError> {
        if self.follow {
            return self.follow(control.events().await?, json).await;
        }
        let Reply::Events(mut events) = control.ask(&Request::Events).await? else {
            return Err(ClientError::Answer("it has no events".to_owned()));
        };
        events.retain(|event| self.wants(event));
        super::show(&Reply::Events(events), json)
    }

    fn wants(&self, event: &EventInfo) -> bool {
        self.kinds.is_empty() || self.kinds.contains(&event.kind)
    }

    /// Prints what comes until vswitchd ends, or the reader of stdout has seen enough.
    async fn follow(&self, mut body: Incoming, json: bool) -> Result<(), ClientError> {
        let mut messages = Messages::default();
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(broken)?.into_data() else { continue };
            for message in messages.add(&data)? {
                let shown = match message {
                    Message::Event(event) if !self.wants(&event) => continue,
                    Message::Event(event) if json => serde_json::to_string(&event).unwrap_or_default() + "\n",
                    Message::Event(event) => line(&event),
                    Message::Missed(count) => {
                        eprintln!("{count} events went by unseen: they came faster than they were read");
                        continue;
                    }
                };
                if !super::print(shown.as_bytes())? {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

/// Events, each on one line.
pub(super) fn list(events: &[EventInfo]) -> String {
    events.iter().map(line).collect()
}

fn line(event: &EventInfo) -> String {
    let facts = &event.facts;
    let port = facts.port.as_ref().map(ToString::to_string);
    let place = port.or_else(|| facts.bridge.as_ref().map(ToString::to_string)).unwrap_or_else(|| "-".to_owned());
    let time = event.time.get(..19).unwrap_or(&event.time).replace('T', " ");
    let by = facts.by.as_ref().map(|by| format!(", by {by}")).unwrap_or_default();
    format!("{time}  {:<16}  {place:<8}  {}{by}\n", event.kind, facts.summary)
}

/// A message of the stream.
#[derive(Debug, PartialEq)]
enum Message {
    Event(Box<EventInfo>),
    Missed(u64),
}

/// Server-sent events (HTML, section 9.2) as they come in pieces.
#[derive(Default)]
struct Messages {
    unread: Vec<u8>,
}

impl Messages {
    /// The messages that are whole now.
    fn add(&mut self, bytes: &[u8]) -> Result<Vec<Message>, ClientError> {
        self.unread.extend_from_slice(bytes);
        let mut messages = Vec::new();
        while let Some(end) = self.unread.windows(2).position(|pair| pair == b"\n\n") {
            let text: Vec<u8> = self.unread.drain(..end + 2).collect();
            messages.extend(message(&String::from_utf8_lossy(&text))?);
        }
        if self.unread.len() > LONGEST {
            return Err(ClientError::Answer("an event has no end".to_owned()));
        }
        Ok(messages)
    }
}

fn message(text: &str) -> Result<Option<Message>, ClientError> {
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
    let Some(data) = field("data") else { return Ok(None) };
    let wrong = |error: &dyn std::fmt::Display| ClientError::Answer(error.to_string());
    if field("event") == Some("missed") {
        return data.parse().map(|count| Some(Message::Missed(count))).map_err(|error: std::num::ParseIntError| wrong(&error));
    }
    serde_json::from_str(data).map(|event| Some(Message::Event(event))).map_err(|error| wrong(&error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::EventFacts;

    #[test]
    fn messages_are_read_in_whatever_pieces_they_come() {
        let facts =
            EventFacts { port: Some("a".parse().unwrap()), by: Some("uid 0".to_owned()), ..EventFacts::new("set-port a") };
        let time = "2026-11-28T12:03:01.123Z".to_owned();
        let event = EventInfo { number: 7, time, kind: EventKind::Change, facts };
        let json = serde_json::to_string(&event).unwrap();
        let stream = format!("id: 7\ndata: {json}\n\n:\n\nevent: missed\ndata: 12\n\n");
        let mut messages = Messages::default();
        let read: Vec<Message> = stream.as_bytes().iter().flat_map(|byte| messages.add(&[*byte]).unwrap()).collect();
        assert_eq!(read, [Message::Event(Box::new(event.clone())), Message::Missed(12)]);
        assert_eq!(line(&event), "2026-11-28 12:03:01  change            a         set-port a, by uid 0\n");
        assert!(messages.add(&[b'x'; LONGEST + 1]).is_err(), "what has no end is not kept");
    }
}
