//! The control socket: HTTP on a Unix socket, one JSON request after the other.
//!
//! `POST /v1/request` takes a [`Request`] and answers with a [`Reply`]; `POST /v1/capture` takes a [`CaptureRequest`] and answers
//! with a pcapng stream, whose number for [`Request::StopCapture`] is in its header `vswitch-capture`. What cannot be done is status 4xx with `{"error": "sentence"}`. The server only carries: requests wait in a
//! bounded queue for the one thread that owns the switch.

use std::convert::Infallible;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream as BlockingStream;
use std::path::{Path, PathBuf};

use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, HeaderName};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use futures_util::stream;
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::net::UnixListener;
use tokio::sync::{mpsc, oneshot};

use crate::api::{CaptureRequest, Reply, Request};

/// Longest path of a socket: `sun_path` (unix(7)) less its terminating zero.
const LONGEST_PATH: usize = 107;
/// The header that names a capture.
pub(crate) const CAPTURE_NUMBER: HeaderName = HeaderName::from_static("vswitch-capture");
/// Largest request. The longest filter has 4096 instructions of at most 30 characters.
const LARGEST_REQUEST: usize = 1 << 20;

/// What came in by the socket, and where its answer goes.
pub(super) enum Call {
    /// A change or a question.
    Request { request: Request, reply: oneshot::Sender<Result<Reply, String>> },
    /// A capture, which answers with its number and the chunks of its file.
    Capture { request: CaptureRequest, reply: oneshot::Sender<Result<(u64, mpsc::Receiver<Bytes>), String>> },
}

/// Why there is no control socket.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The path does not fit a socket's address.
    #[error("control socket {}: its path has {} bytes; a Unix socket's may have {LONGEST_PATH}: set a shorter `control`", .0.display(), .0.as_os_str().len())]
    TooLong(PathBuf),
    /// Another process serves it.
    #[error("control socket {}: another vswitchd serves it: stop that one, or set another `control` and `state-dir`", .0.display())]
    InUse(PathBuf),
    /// Something else is there.
    #[error("control socket {}: there is a file that is not a socket: remove it, or set another `control`", .0.display())]
    NotASocket(PathBuf),
    /// The operating system refused.
    #[error("control socket {}: {source}", path.display())]
    Refused {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The socket; its file goes when this is dropped.
#[derive(Debug)]
pub(super) struct Listener {
    listener: UnixListener,
    _file: SocketFile,
}

#[derive(Debug)]
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // It may have been removed by hand.
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Listener {
    /// Opens the socket, replacing one that a killed vswitchd left.
    pub(super) fn bind(path: &Path) -> Result<Self, ServerError> {
        if path.as_os_str().len() > LONGEST_PATH {
            return Err(ServerError::TooLong(path.to_owned()));
        }
        let refused = |source| ServerError::Refused { path: path.to_owned(), source };
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory).map_err(refused)?;
        }
        make_way(path)?;
        let listener = UnixListener::bind(path).map_err(|source| match source.kind() {
            io::ErrorKind::AddrInUse => ServerError::InUse(path.to_owned()),
            _ => refused(source),
        })?;
        let file = SocketFile(path.to_owned());
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660)).map_err(refused)?;
        Ok(Self { listener, _file: file })
    }

    /// Serves until dropped.
    pub(super) async fn serve(self, calls: mpsc::Sender<Call>) {
        let routes = Router::new()
            .route("/v1/request", post(request))
            .route("/v1/capture", post(capture))
            .layer(DefaultBodyLimit::max(LARGEST_REQUEST))
            .fallback(async || error(StatusCode::NOT_FOUND, "there are POST /v1/request and POST /v1/capture"))
            .with_state(calls);
        // It ends only with the task that runs it.
        let _ = axum::serve(self.listener, routes).await;
    }
}

/// Removes a socket that nobody listens on.
fn make_way(path: &Path) -> Result<(), ServerError> {
    let refused = |source| ServerError::Refused { path: path.to_owned(), source };
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(refused(error)),
        Ok(metadata) if !metadata.file_type().is_socket() => return Err(ServerError::NotASocket(path.to_owned())),
        Ok(_) => {}
    }
    match BlockingStream::connect(path) {
        Ok(_) => Err(ServerError::InUse(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path).map_err(refused),
        Err(error) => Err(refused(error)),
    }
}

async fn request(State(calls): State<mpsc::Sender<Call>>, body: Bytes) -> Response {
    let request = match parse(&body) {
        Ok(request) => request,
        Err(response) => return *response,
    };
    match ask(&calls, |reply| Call::Request { request, reply }).await {
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
            let headers = [(CONTENT_TYPE, "application/x-pcapng".to_owned()), (CAPTURE_NUMBER, number.to_string())];
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

#[cfg(test)]
mod tests {
    use super::*;

    fn listener(path: &Path) -> Result<Listener, ServerError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { Listener::bind(path) })
    }

    #[test]
    fn a_stale_socket_makes_way_and_a_live_one_does_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deep/er/control.sock");
        drop(listener(&path).unwrap());
        assert!(!path.exists());
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let live = listener(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        assert!(listener(&path).unwrap_err().to_string().contains("another vswitchd serves it"));
        assert!(path.exists());
        drop(live);
    }

    #[test]
    fn nothing_but_a_socket_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, "precious").unwrap();
        assert!(matches!(listener(&path), Err(ServerError::NotASocket(_))));
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
        let long = directory.path().join("x".repeat(108));
        assert!(listener(&long).unwrap_err().to_string().contains("a Unix socket's may have 107"));
    }
}
