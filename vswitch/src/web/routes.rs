//! What the web view answers.

use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Extension, Request as HttpRequest, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::sse::{KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinError;

use super::Shown;
use super::guard::Guard;
use super::live;
use crate::control::server::{self, Call, error, parse, pcapng};
use crate::http::Peer;
use crate::view::{self, METRICS_TYPE};
use api::{CaptureRequest, PortName, Reply, Request};

/// Largest request.
const LARGEST_REQUEST: usize = 1 << 16;
/// Most bytes of a guide.
const LARGEST_GUIDE: u64 = 1 << 20;
/// What a page of here may do: ask here, and nothing else.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data: blob:; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// The page.
const PAGE: [(&str, &str, &str); 5] = [
    ("/", "text/html; charset=utf-8", include_str!("page/index.html")),
    ("/app.js", "text/javascript; charset=utf-8", include_str!("page/app.js")),
    ("/draw.js", "text/javascript; charset=utf-8", include_str!("page/draw.js")),
    ("/style.css", "text/css; charset=utf-8", include_str!("page/style.css")),
    ("/icon.svg", "image/svg+xml", include_str!("page/icon.svg")),
];

/// What answers are made of.
#[derive(Clone)]
pub(super) struct Desk {
    pub(super) shown: Shown,
    pub(super) streams: Arc<Semaphore>,
    /// What stands beside the topology.
    pub(super) guide: Option<PathBuf>,
    /// Its sender is dropped at the end.
    pub(super) end: watch::Receiver<()>,
}

pub(super) fn routes(desk: Desk, guard: Arc<Guard>) -> Router {
    let question = |request: Request| get(async move |State(desk): State<Desk>, peer| answer(&desk, request, peer).await);
    let page = PAGE.into_iter().fold(Router::new(), |router, (path, kind, text)| {
        router.route(path, get(async move || ([(CONTENT_TYPE, kind)], text)))
    });
    let more = Router::new()
        .route("/api/request", post(request))
        .route("/api/capture", post(capture))
        .route_layer(from_fn_with_state(Arc::clone(&guard), check_token));
    page.merge(more)
        .route("/metrics", get(metrics))
        .route("/api/live", get(counters))
        .route("/api/events", get(events))
        .route("/api/show", question(Request::Show))
        .route("/api/fdb", question(Request::Fdb(Default::default())))
        .route("/api/sessions", question(Request::Sessions(None)))
        .route("/api/leases", question(Request::Leases(None)))
        .route("/api/last-drops", get(drops))
        .route("/api/trace", post(trace))
        .route("/api/guide", get(guide))
        .layer(DefaultBodyLimit::max(LARGEST_REQUEST))
        .fallback(async || error(StatusCode::NOT_FOUND, "there is nothing here: the page is at /, metrics at /metrics"))
        .layer(from_fn_with_state(guard, check_place))
        .layer(from_fn(dress))
        .with_state(desk)
}

async fn check_place(State(guard): State<Arc<Guard>>, request: HttpRequest, next: Next) -> Response {
    match guard.check_place(request.headers()) {
        Ok(()) => next.run(request).await,
        Err((status, sentence)) => error(status, &sentence),
    }
}

async fn check_token(State(guard): State<Arc<Guard>>, request: HttpRequest, next: Next) -> Response {
    match guard.check_token(request.headers()) {
        Ok(()) => next.run(request).await,
        Err((status, sentence)) => error(status, &sentence),
    }
}

/// Says what a browser may do with an answer.
async fn dress(request: HttpRequest, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = [
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (CACHE_CONTROL, "no-store"),
    ];
    response.headers_mut().extend(headers.map(|(name, value)| (name, HeaderValue::from_static(value))));
    response
}

async fn metrics(State(desk): State<Desk>) -> Response {
    ([(CONTENT_TYPE, METRICS_TYPE)], view::exposition(&desk.shown.board.live())).into_response()
}

async fn counters(State(desk): State<Desk>) -> Response {
    let Some(place) = live::place(&desk.streams) else { return too_many() };
    let counters = live::counters(Arc::clone(&desk.shown.board), desk.end.clone());
    Sse::new(live::placed(place, counters)).into_response()
}

async fn events(State(desk): State<Desk>, headers: HeaderMap) -> Response {
    let Some(place) = live::place(&desk.streams) else { return too_many() };
    // A browser whose connection broke says what it saw last.
    let after = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.parse().ok()).unwrap_or(0);
    match server::ask(&desk.shown.calls, |reply| Call::Follow { after, reply }).await {
        Ok((past, coming)) => {
            Sse::new(live::placed(place, view::event_stream(past, coming))).keep_alive(KeepAlive::new()).into_response()
        }
        Err(response) => *response,
    }
}

fn too_many() -> Response {
    error(StatusCode::SERVICE_UNAVAILABLE, "too many pages look at this: close some of them")
}

/// Any request of `vsctl`'s.
async fn request(State(desk): State<Desk>, peer: Extension<Peer>, body: Bytes) -> Response {
    match parse(&body) {
        Ok(request) => answer(&desk, request, peer).await,
        Err(response) => *response,
    }
}

async fn answer(desk: &Desk, request: Request, Extension(peer): Extension<Peer>) -> Response {
    match server::ask(&desk.shown.calls, |reply| Call::Request { request, peer, reply }).await {
        Ok(Reply::Switch(info)) => Json(info).into_response(),
        Ok(Reply::Fdb(rows)) => Json(rows).into_response(),
        Ok(Reply::Sessions(rows)) => Json(rows).into_response(),
        Ok(Reply::Leases(rows)) => Json(rows).into_response(),
        Ok(Reply::Trace(way)) => Json(way).into_response(),
        Ok(reply) => Json(reply).into_response(),
        Err(response) => *response,
    }
}

/// What the switch would do with a frame: it looks and changes nothing, so it needs no token.
async fn trace(State(desk): State<Desk>, peer: Extension<Peer>, body: Bytes) -> Response {
    match parse(&body) {
        Ok(request) => answer(&desk, Request::Trace(request), peer).await,
        Err(response) => *response,
    }
}

/// The last frames that were dropped.
async fn drops(State(desk): State<Desk>) -> Response {
    match server::ask(&desk.shown.calls, Call::LastDrops).await {
        Ok(rows) => Json(rows).into_response(),
        Err(response) => *response,
    }
}

/// Has a thread with rights do what may wait: one of the web view may not even start another, as a runtime does on the thread that asks.
async fn elsewhere<T: Send + 'static>(desk: &Handle, work: impl FnOnce() -> T + Send + 'static) -> Result<T, JoinError> {
    desk.spawn(async { tokio::task::spawn_blocking(work).await }).await?
}

/// What stands beside the topology, if anything does.
async fn guide(State(desk): State<Desk>) -> Response {
    let Some(path) = desk.guide else { return StatusCode::NO_CONTENT.into_response() };
    let place = path.clone();
    let read = elsewhere(&desk.shown.desk, move || {
        let mut page = String::new();
        std::fs::File::open(&place)?.take(LARGEST_GUIDE).read_to_string(&mut page).map(|_| page)
    });
    match read.await.unwrap_or_else(|error| Err(error.into())) {
        Ok(page) => ([(CONTENT_TYPE, "text/html; charset=utf-8")], page).into_response(),
        Err(why) => error(StatusCode::NOT_FOUND, &format!("{}, the `guide` of [web], cannot be read: {why}", path.display())),
    }
}

/// What the page asks to be captured.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Wanted {
    ports: Vec<PortName>,
    /// In tcpdump's language.
    filter: String,
    count: Option<u64>,
    seconds: Option<u64>,
}

async fn capture(State(desk): State<Desk>, body: Bytes) -> Response {
    let Wanted { ports, filter, count, seconds } = match parse(&body) {
        Ok(wanted) => wanted,
        Err(response) => return *response,
    };
    let compiled = elsewhere(&desk.shown.desk, move || crate::filter::compile(&filter)).await;
    let filter = match compiled {
        Ok(Ok(filter)) => filter,
        Ok(Err(wrong)) => return error(StatusCode::UNPROCESSABLE_ENTITY, &wrong.to_string()),
        Err(wrong) => return error(StatusCode::INTERNAL_SERVER_ERROR, &wrong.to_string()),
    };
    let request = CaptureRequest { ports, filter, count, seconds, ..CaptureRequest::default() };
    match server::ask(&desk.shown.calls, |reply| Call::Capture { request, reply }).await {
        Ok(capture) => pcapng(capture),
        Err(response) => *response,
    }
}
