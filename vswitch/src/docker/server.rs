//! HTTP on the plugin's socket: JSON bodies whatever their type says, several connections at a time.
//!
//! As [the control socket](crate::control), it only carries: what changes the switch waits in a bounded queue for its owner. A refusal is status 200
//! with the sentence, which Docker shows as it is: it looks for it at `Err` in answers of a network driver, and at `Error` in those of an IPAM driver.

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tokio::net::UnixListener;
use tokio::sync::{mpsc, oneshot, watch};

use super::message::{self, CallError, DockerCall, Driver, Request};
use crate::http::{self, Limits};

/// Largest request: a container may publish every port, each in two hundred bytes.
const LARGEST: usize = 16 << 20;
/// Docker keeps connections for its next calls, and takes one that is closed at the wrong moment for a failed call: they may be silent
/// for as long as there is room.
const LIMITS: Limits = Limits { connections: 512, headers: None };
/// The type of every answer, which Docker asks for.
const JSON: &str = "application/vnd.docker.plugins.v1.2+json";

/// A request, and where its answer goes.
pub struct Ask {
    /// What Docker asks.
    pub request: Request,
    /// Gets the answer, or the sentence why not.
    pub reply: Reply,
}

/// Where an answer goes.
pub type Reply = oneshot::Sender<Result<Value, String>>;

/// Serves a driver until the sender of `end` is dropped.
pub async fn serve(listener: UnixListener, driver: Driver, asks: mpsc::Sender<Ask>, end: watch::Receiver<()>) {
    let routes = Router::new().fallback(answer).layer(DefaultBodyLimit::max(LARGEST)).with_state((driver, asks));
    http::serve(listener, routes, LIMITS, end).await;
}

async fn answer(State((driver, asks)): State<(Driver, mpsc::Sender<Ask>)>, uri: Uri, body: Bytes) -> Response {
    let request = match message::read(driver, uri.path(), &body) {
        Ok(DockerCall::Answer(value)) => return respond(StatusCode::OK, &value),
        Ok(DockerCall::Request(request)) => request,
        Err(error @ CallError::Unknown(_)) => return respond(StatusCode::NOT_FOUND, &refusal(&error.to_string())),
        Err(error) => return respond(StatusCode::OK, &refusal(&error.to_string())),
    };
    tracing::debug!(?request, "Docker asks");
    let (reply, answer) = oneshot::channel();
    // The queue is closed and the answer dropped only at the end.
    let _ = asks.send(Ask { request, reply }).await;
    match answer.await.unwrap_or_else(|_| Err("vswitchd is ending, or the container is gone: try again".to_owned())) {
        Ok(value) => respond(StatusCode::OK, &value),
        Err(sentence) => respond(StatusCode::OK, &refusal(&sentence)),
    }
}

fn refusal(sentence: &str) -> Value {
    json!({ "Err": sentence, "Error": sentence })
}

fn respond(status: StatusCode, value: &Value) -> Response {
    (status, [(CONTENT_TYPE, JSON)], value.to_string()).into_response()
}
