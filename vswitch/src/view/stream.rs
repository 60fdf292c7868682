//! Events as a stream of HTTP (server-sent events), which the control socket and the web view serve alike.

use std::convert::Infallible;

use axum::response::sse::Event;
use futures_util::{Stream, StreamExt, stream};
use tokio::sync::broadcast::{Receiver, error::RecvError};

use api::EventInfo;

/// The name of the message that says how many events went by unseen.
const MISSED: &str = "missed";

/// The events that were, then those that come; it ends with the switch.
pub(crate) fn events(past: Vec<EventInfo>, coming: Receiver<EventInfo>) -> impl Stream<Item = Result<Event, Infallible>> {
    let next = async |mut coming: Receiver<EventInfo>| match coming.recv().await {
        Ok(event) => Some((message(&event), coming)),
        Err(RecvError::Lagged(count)) => Some((Event::default().event(MISSED).data(count.to_string()), coming)),
        Err(RecvError::Closed) => None,
    };
    let past: Vec<Event> = past.iter().map(message).collect();
    stream::iter(past).chain(stream::unfold(coming, next)).map(Ok)
}

fn message(event: &EventInfo) -> Event {
    let message = Event::default().id(event.number.to_string());
    // Plain words and numbers are always JSON.
    message.json_data(event).unwrap_or_default()
}
