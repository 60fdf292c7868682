//! The control socket: HTTP on a Unix socket, one JSON request after the other.
//!
//! `POST /v1/request` takes a [`Request`] and answers with a [`Reply`]; `POST /v1/capture` takes a [`CaptureRequest`] and answers
//! with a pcapng stream, whose number for [`Request::StopCapture`] is in its header `vswitch-capture`. A request that cannot be carried out is
//! answered with status 4xx and `{"error": "sentence"}`. The server only carries: requests wait in a bounded queue for the one thread that
//! owns the switch.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Extension, State};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, HeaderName};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use futures_util::stream;
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::net::UnixListener;
use tokio::sync::{mpsc, oneshot, watch};

use crate::http::{self, Limits, Peer};
use api::{CAPTURE_NUMBER, CaptureRequest, Reply, Request};

/// Largest request. The longest filter has 4096 instructions of at most 30 characters.
const LARGEST_REQUEST: usize = 1 << 20;
/// `vsctl` opens a connection for each question, and asks at once.
const LIMITS: Limits = Limits { connections: 128, headers: Some(Duration::from_secs(10)) };

/// What came in by the socket, and where its answer goes.
pub(super) enum Call {
    /// A change or a question, and whose it is.
    Request { request: Request, peer: Peer, reply: AnswerTo },
    /// A capture, which answers with its number and the chunks of its file.
    Capture { request: CaptureRequest, reply: oneshot::Sender<Result<(u64, mpsc::Receiver<Bytes>), String>> },
}

/// Where the answer to a request goes.
pub(super) type AnswerTo = oneshot::Sender<Result<Reply, String>>;

/// Answers requests until the sender of `end` is dropped.
pub(super) async fn serve(listener: UnixListener, calls: mpsc::Sender<Call>, end: watch::Receiver<()>) {
    let routes = Router::new()
        .route("/v1/request", post(request))
        .route("/v1/capture", post(capture))
        .layer(DefaultBodyLimit::max(LARGEST_REQUEST))
        .fallback(async || error(StatusCode::NOT_FOUND, "there are POST /v1/request and POST /v1/capture"))
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
        Ok((number, chunks)) => {
            let next =
                async |mut chunks: mpsc::Receiver<Bytes>| chunks.recv().await.map(|chunk| (Ok::<_, Infallible>(chunk), chunks));
            let headers = [
                (CONTENT_TYPE, "application/x-pcapng".to_owned()),
                (HeaderName::from_static(CAPTURE_NUMBER), number.to_string()),
            ];
            (headers, Body::from_stream(stream::unfold(chunks, next))).into_response()
        }
        Err(response) => *response,
    }
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Box<Response>> {
    serde_json::from_slice(body).map_err(|wrong| error(StatusCode::BAD_REQUEST, &format!("not a request: {wrong}")).into())
}

async fn ask<T>(
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

fn error(status: StatusCode, sentence: &str) -> Response {
    (status, Json(json!({ "error": sentence }))).into_response()
}
