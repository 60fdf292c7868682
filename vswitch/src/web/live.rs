//! What comes by itself: counters once a second, and events as they happen.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::response::sse::Event;
use futures_util::{Stream, StreamExt, stream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::view::Board;

/// How often counters come.
const PERIOD: Duration = Duration::from_secs(1);

/// The board, again and again until the sender of `end` is dropped.
pub(super) fn counters(board: Arc<Board>, end: watch::Receiver<()>) -> impl Stream<Item = Result<Event, Infallible>> {
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let next = async |(mut ticks, board, mut end): (Interval, Arc<Board>, watch::Receiver<()>)| {
        tokio::select! {
            _ = end.changed() => None,
            _ = ticks.tick() => {
                // Plain words and numbers are always JSON.
                let message = Event::default().json_data(board.live()).unwrap_or_default();
                Some((Ok(message), (ticks, board, end)))
            }
        }
    };
    stream::unfold((ticks, board, end), next)
}

/// A place among those that wait for news; `None`: all are taken.
pub(super) fn place(streams: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
    Arc::clone(streams).try_acquire_owned().ok()
}

/// The stream, which has its place for as long as it is there.
pub(super) fn placed<T>(place: OwnedSemaphorePermit, stream: impl Stream<Item = T>) -> impl Stream<Item = T> {
    stream.map(move |item| {
        let _ = &place;
        item
    })
}
