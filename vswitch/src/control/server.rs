//! The control socket: HTTP on a Unix socket, one JSON request after the other.
//!
//! `POST /v1/request` takes a [`Request`] and answers with a [`Reply`]; `POST /v1/capture` takes a [`CaptureRequest`] and answers
//! with a pcapng stream, whose number for [`Request::StopCapture`] is in its header `vswitch-capture`; `GET /v1/events` follows what happens, as
//! server-sent events. A request that cannot be carried out is
//! answered with status 4xx and `{"error": "sentence"}`. The server only carries: requests wait in a bounded queue for the one thread that
//! owns the switch.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Extension, State};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, HeaderName};
use axum::response::sse::{KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures_util::stream;
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::net::UnixListener;
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use crate::http::{self, Limits, Peer};
use crate::view;
use api::{CAPTURE_NUMBER, CaptureRequest, DropInfo, EventInfo, Reply, Request};

/// Largest request. The longest filter has 4096 instructions of at most 30 characters.
const LARGEST_REQUEST: usize = 1 << 20;
/// `vsctl` opens a connection for each question, and asks at once.
const LIMITS: Limits = Limits { connections: 128, headers: Some(Duration::from_secs(10)) };

/// What came in by the socket, and where its answer goes.
pub(crate) enum Call {
    /// A change or a question, and whose it is.
    Request { request: Request, peer: Peer, reply: AnswerTo },
    /// A capture, which answers with its number and the chunks of its file.
    Capture { request: CaptureRequest, reply: oneshot::Sender<Result<(u64, mpsc::Receiver<Bytes>), String>> },
    /// Another vswitchd that wants to take over, at the other end.
    Takeover(std::os::unix::net::UnixStream),
    /// The last frames that were dropped, of those that the recorders have.
    LastDrops(oneshot::Sender<Result<Vec<DropInfo>, String>>),
    /// The events after one of that number, and those to come.
    Follow { after: u64, reply: oneshot::Sender<Result<Followed, String>> },
}

/// The events that were, and those to come.
pub(crate) type Followed = (Vec<EventInfo>, broadcast::Receiver<EventInfo>);

/// Where the answer to a request goes.
pub(crate) type AnswerTo = oneshot::Sender<Result<Reply, String>>;

/// Answers requests until the sender of `end` is dropped.
pub(super) async fn serve(listener: UnixListener, calls: mpsc::Sender<Call>, end: watch::Receiver<()>) {
    let routes = Router::new()
        .route("/v1/request", post(request))
        .route("/v1/capture", post(capture))
        .route("/v1/events", get(events))
        .layer(DefaultBodyLimit::max(LARGEST_REQUEST))
        .fallback(async || error(StatusCode::NOT_FOUND, "there are POST /v1/request, POST /v1/capture and GET /v1/events"))
        .with_state(calls);
    http::serve(listener, routes, LIMITS, end).await;
}

async fn request(State(calls): State<mpsc::Sender<Call>>, Extension(peer): Extension<Peer>, body: Bytes) -> Response {
    let request = match parse(&body) {
        Ok(request) => request,
        Err(response) => return *response,
    };
    match ask(&calls, |reply| Call::Request { request, peer, reply }).await {
        Ok(reply) => Json(reply).into_response(),
        Err(response) => *response,
    }
}

async fn capture(State(calls): State<mpsc::Sender<Call>>, body: Bytes) -> Response {
    let request = match parse(&body) {
        Ok(request) => request,
        Err(response) => return *response,
    };
    match ask(&calls, |reply| Call::Capture { request, reply }).await {
        Ok(capture) => pcapng(capture),
        Err(response) => *response,
    }
}

/// A capture as it comes.
pub(crate) fn pcapng((number, chunks): (u64, mpsc::Receiver<Bytes>)) -> Response {
    let next = async |mut chunks: mpsc::Receiver<Bytes>| chunks.recv().await.map(|chunk| (Ok::<_, Infallible>(chunk), chunks));
    let headers =
        [(CONTENT_TYPE, "application/x-pcapng".to_owned()), (HeaderName::from_static(CAPTURE_NUMBER), number.to_string())];
    (headers, Body::from_stream(stream::unfold(chunks, next))).into_response()
}

async fn events(State(calls): State<mpsc::Sender<Call>>) -> Response {
    match ask(&calls, |reply| Call::Follow { after: 0, reply }).await {
        Ok((past, coming)) => Sse::new(view::event_stream(past, coming)).keep_alive(KeepAlive::new()).into_response(),
        Err(response) => *response,
    }
}

pub(crate) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Box<Response>> {
    serde_json::from_slice(body).map_err(|wrong| error(StatusCode::BAD_REQUEST, &format!("not a request: {wrong}")).into())
}

pub(crate) async fn ask<T>(
    calls: &mpsc::Sender<Call>,
    call: impl FnOnce(oneshot::Sender<Result<T, String>>) -> Call,
) -> Result<T, Box<Response>> {
    let (sender, receiver) = oneshot::channel();
    let ends = || Box::new(error(StatusCode::SERVICE_UNAVAILABLE, "vswitchd is ending"));
    calls.send(call(sender)).await.map_err(|_| ends())?;
    match receiver.await {
        Ok(Ok(reply)) => Ok(reply),
        Ok(Err(sentence)) => Err(Box::new(error(StatusCode::UNPROCESSABLE_ENTITY, &sentence))),
        Err(_) => Err(ends()),
    }
}

pub(crate) fn error(status: StatusCode, sentence: &str) -> Response {
    (status, Json(json!({ "error": sentence }))).into_response()
}
