//! dockerd, asked what it calls its containers and networks.
//!
//! This is a task of its own, which holds nothing and for which the switch never waits: dockerd may be waiting for vswitchd at any time, and
//! answers late or not at all while it starts. The control side says that something has changed. A second later, so that many changes make one
//! question, dockerd is asked for everything, and again with growing pauses while a container or network has no name or no answer comes. After
//! the last pause it is not asked until the next change.
//!
//! A socket that systemd holds starts dockerd when a client connects. So dockerd is not asked unless it spoke just now or its pid file says that
//! it runs ([`is_running`]).

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::body::Bytes;
use axum::http::StatusCode;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use serde_json::Value;
use tokio::net::UnixStream;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{sleep, timeout};

use super::Names;
use crate::broker::{Descriptor, SystemError, requests};

/// When to ask.
struct Pace {
    /// From a change to the question.
    settle: Duration,
    /// Between questions, where one did not bring all names.
    pauses: [Duration; 4],
}

const PACE: Pace = Pace {
    settle: Duration::from_secs(1),
    pauses: [Duration::from_secs(2), Duration::from_secs(4), Duration::from_secs(8), Duration::from_secs(16)],
};
/// How long dockerd may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest answer: there may be as many containers as endpoints, each in about two kilobytes.
const LARGEST: usize = 64 << 20;

/// Names that were found, for the control side, which says whether all containers and networks have one.
pub struct Found {
    /// The names.
    pub names: Names,
    /// Gets whether they are complete.
    pub complete: oneshot::Sender<bool>,
}

/// Whether the dockerd with this socket runs, as its pid file beside it says.
pub fn is_running(api: &Path) -> bool {
    api.with_extension("pid").exists()
}

/// Asks for names whenever something `changed`, until the control side has gone.
pub async fn follow(api: PathBuf, changed: Arc<Notify>, found: mpsc::Sender<Found>) {
    follow_at(&PACE, &api, &changed, &found).await;
}

async fn follow_at(pace: &Pace, api: &Path, changed: &Notify, found: &mpsc::Sender<Found>) {
    let mut pauses = [].iter();
    loop {
        let is_new = match pauses.next() {
            Some(pause) => timeout(*pause, changed.notified()).await.is_ok(),
            None => {
                changed.notified().await;
                true
            }
        };
        if is_new {
            pauses = pace.pauses.iter();
            sleep(pace.settle).await;
        }
        match timeout(PATIENCE, ask(api)).await {
            Ok(Ok(names)) => {
                let (complete, answer) = oneshot::channel();
                if found.send(Found { names, complete }).await.is_err() {
                    return;
                }
                if answer.await.unwrap_or(true) {
                    pauses = [].iter();
                }
            }
            Ok(Err(error)) => tracing::debug!("Docker does not tell names at {}: {error}", api.display()),
            Err(_) => tracing::debug!("Docker does not tell names at {} in time", api.display()),
        }
    }
}

/// Why there are no names.
#[derive(Debug, thiserror::Error)]
enum AskError {
    #[error(transparent)]
    Connect(#[from] std::io::Error),
    #[error(transparent)]
    Http(#[from] hyper::Error),
    #[error(transparent)]
    Request(#[from] axum::http::Error),
    #[error("the answer is {0}")]
    Status(StatusCode),
    #[error("{0}")]
    Body(Box<dyn std::error::Error + Send + Sync>),
    #[error("not JSON: {0}")]
    Json(#[from] serde_json::Error),
}

/// The socket of Docker's API, in a broker; none where the switch does not serve Docker.
static API: OnceLock<Option<PathBuf>> = OnceLock::new();

/// Says, in a broker, which socket is Docker's.
pub(crate) fn connect_to_none_but(api: Option<PathBuf>) {
    // Said once.
    let _ = API.set(api);
}

requests! {
    /// Connects to the socket of Docker's own API, which is for root and Docker's group. It is the one that the file of the switch names; no other can
    /// be asked for.
    fn connect_to_docker() -> Result<Descriptor, SystemError>, by connect_as_broker;
}

fn connect_as_broker() -> Result<Descriptor, SystemError> {
    let refused = || SystemError(io::ErrorKind::PermissionDenied.into());
    let address = SocketAddrUnix::new(API.get().and_then(Option::as_ref).ok_or_else(refused)?).map_err(io::Error::from)?;
    // A dockerd that takes no connections is not waited for.
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).map_err(io::Error::from)?;
    rustix::net::connect(&socket, &address).map_err(io::Error::from)?;
    Ok(Descriptor(socket))
}

async fn connect(api: &Path) -> io::Result<UnixStream> {
    match UnixStream::connect(api).await {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let socket = tokio::task::block_in_place(connect_to_docker).map_err(|error| error.0)?;
            UnixStream::from_std(socket.0.into())
        }
        connected => connected,
    }
}

async fn ask(api: &Path) -> Result<Names, AskError> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(connect(api).await?)).await?;
    // What goes wrong with it comes out of the requests; it ends with them.
    tokio::spawn(connection);
    let networks = fetch(&mut sender, "/networks").await?;
    let containers = fetch(&mut sender, "/containers/json").await?;
    Ok(Names::read(&networks, &containers))
}

async fn fetch(sender: &mut SendRequest<Empty<Bytes>>, path: &str) -> Result<Value, AskError> {
    let request = hyper::Request::get(path).header(hyper::header::HOST, "docker").body(Empty::new())?;
    let answer = sender.send_request(request).await?;
    if answer.status() != StatusCode::OK {
        return Err(AskError::Status(answer.status()));
    }
    let body = Limited::new(answer.into_body(), LARGEST).collect().await.map_err(AskError::Body)?;
    Ok(serde_json::from_slice(&body.to_bytes())?)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use axum::Router;
    use axum::routing::get;
    use serde_json::json;
    use tokio::net::UnixListener;

    use super::*;

    /// So short that a test need not wait, and silence after it is the end.
    const QUICK: Pace = Pace { settle: Duration::from_millis(1), pauses: [Duration::from_millis(1); 4] };
    const SILENCE: Duration = Duration::from_millis(300);

    /// A dockerd that answers this about its networks, and how often it was asked.
    fn dockerd(path: &Path, status: StatusCode, networks: Value) -> Arc<AtomicUsize> {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let networks = async move || {
            count.fetch_add(1, Ordering::Relaxed);
            (status, axum::Json(networks.clone()))
        };
        let routes = Router::new().route("/networks", get(networks));
        let routes = routes.route("/containers/json", get(async || axum::Json(json!([]))));
        let listener = UnixListener::bind(path).unwrap();
        tokio::spawn(async { axum::serve(listener, routes).await });
        asked
    }

    #[tokio::test]
    async fn missing_names_are_asked_for_a_while_and_complete_ones_once() {
        let directory = tempfile::tempdir().unwrap();
        let api = directory.path().join("docker.sock");
        let asked = dockerd(&api, StatusCode::OK, json!([{ "Name": "net1", "Id": "11111111aa" }]));
        let (changed, (found, mut found_in)) = (Arc::new(Notify::new()), mpsc::channel(1));
        let heard = Arc::clone(&changed);
        let task = tokio::spawn(async move { follow_at(&QUICK, &api, &heard, &found).await });
        assert!(timeout(SILENCE, found_in.recv()).await.is_err(), "nothing has changed");
        changed.notify_one();
        let Found { names, complete } = found_in.recv().await.unwrap();
        assert_ne!(names, Names::default());
        complete.send(true).unwrap();
        assert!(timeout(SILENCE, found_in.recv()).await.is_err(), "nothing was missing");
        changed.notify_one();
        for _ in 0..=QUICK.pauses.len() {
            found_in.recv().await.unwrap().complete.send(false).unwrap();
        }
        assert!(timeout(SILENCE, found_in.recv()).await.is_err(), "it does not give up");
        assert_eq!(asked.load(Ordering::Relaxed), 2 + QUICK.pauses.len());
        drop(found_in);
        changed.notify_one();
        task.await.unwrap();
    }

    #[tokio::test]
    async fn a_docker_that_does_not_tell_is_no_docker_without_names() {
        let directory = tempfile::tempdir().unwrap();
        let api = directory.path().join("docker.sock");
        assert!(matches!(ask(&api).await, Err(AskError::Connect(_))));
        dockerd(&api, StatusCode::INTERNAL_SERVER_ERROR, json!([]));
        assert!(matches!(ask(&api).await, Err(AskError::Status(_))));
    }

    #[test]
    fn docker_runs_while_its_pid_file_is_there() {
        let directory = tempfile::tempdir().unwrap();
        let api = directory.path().join("docker.sock");
        std::fs::write(&api, "").unwrap();
        assert!(!is_running(&api));
        std::fs::write(directory.path().join("docker.pid"), "1").unwrap();
        assert!(is_running(&api));
    }
}
