//! HTTP for `vsctl`, Docker and browsers: what all of them need besides their routes.
//!
//! A socket holds so many connections and no more ([`Limits`]), so that those of one client, which may say nothing for ever, leave
//! descriptors to the other clients. When all places are taken, a new connection gets the place of the oldest that has no request in
//! progress; where all have one, it waits. A request is in progress until the last byte of its answer is on its way. One that came whole
//! is carried out even if its client is gone meanwhile.
//! At the end the requests in progress are answered, and all other connections closed.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{Notify, watch};
use tokio::task::{AbortHandle, JoinSet};

use crate::broker::requests;

/// How long it is waited where the kernel gives no connection, as without a free descriptor.
pub(crate) const PAUSE: Duration = Duration::from_millis(100);

/// What a socket's clients may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Most connections at a time.
    pub(crate) connections: usize,
    /// How long a connection may take for the headers of its next request; `None`: for ever.
    pub(crate) headers: Option<Duration>,
}

/// Who is at the other end of a connection; among the extensions of each request.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Peer {
    /// A process of this host (`SO_PEERCRED`, unix(7)).
    Process { uid: Option<u32>, pid: Option<i32> },
    /// What came by TCP.
    Web(SocketAddr),
}

impl Peer {
    /// Whether it is root's, or of the user of this process.
    pub(crate) fn is_trusted(self) -> bool {
        let own = rustix::process::geteuid().as_raw();
        matches!(self, Self::Process { uid: Some(uid), .. } if uid == 0 || uid == own)
    }
}

/// What connections come from.
pub(crate) trait Acceptor: Send + 'static {
    /// A connection.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// The next connection, and whose it is.
    fn accept(&self) -> impl Future<Output = io::Result<(Self::Stream, Peer)>> + Send;
}

impl Acceptor for UnixListener {
    type Stream = UnixStream;

    async fn accept(&self) -> io::Result<(UnixStream, Peer)> {
        let (stream, _) = Self::accept(self).await?;
        let known = stream.peer_cred().ok();
        let peer = Peer::Process { uid: known.map(|known| known.uid()), pid: known.and_then(|known| known.pid()) };
        Ok((stream, peer))
    }
}

impl Acceptor for TcpListener {
    type Stream = TcpStream;

    async fn accept(&self) -> io::Result<(TcpStream, Peer)> {
        let (stream, from) = Self::accept(self).await?;
        Ok((stream, Peer::Web(from)))
    }
}

requests! {
    /// The name of a process.
    fn process_name(pid: &i32 = i32) -> Option<String>, by name_of;
}

fn name_of(pid: &i32) -> Option<String> {
    std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (uid, pid) = match self {
            Self::Process { uid: Some(uid), pid } => (uid, pid),
            Self::Process { uid: None, .. } => return f.write_str("an unknown process"),
            Self::Web(from) => return write!(f, "web, {}", from.ip()),
        };
        write!(f, "uid {uid}")?;
        let Some(pid) = pid else { return Ok(()) };
        // Where processes of others are hidden (`hidepid=`, proc(5)), the broker sees them.
        let name = name_of(pid).or_else(|| process_name(pid)).unwrap_or_default();
        write!(f, ", {} ({pid})", name.trim_end().escape_debug())
    }
}

/// An open connection.
struct Connection {
    task: AbortHandle,
    /// Requests in progress.
    requests: Arc<AtomicUsize>,
}

impl Connection {
    fn is_idle(&self) -> bool {
        self.requests.load(Ordering::Relaxed) == 0
    }
}

/// Answers requests until the sender of `end` is dropped, and then those that are in progress.
pub(crate) async fn serve(listener: impl Acceptor, routes: Router, limits: Limits, mut end: watch::Receiver<()>) {
    let (mut tasks, mut connections) = (JoinSet::new(), Vec::<Connection>::new());
    let idle = Arc::new(Notify::new());
    loop {
        let has_room = connections.len() < limits.connections || connections.iter().any(Connection::is_idle);
        tokio::select! {
            biased;
            _ = end.changed() => break,
            Some(done) = tasks.join_next_with_id(), if !tasks.is_empty() => {
                let id = done.map_or_else(|error| error.id(), |(id, ())| id);
                connections.retain(|connection| connection.task.id() != id);
            }
            accepted = listener.accept(), if has_room => match accepted {
                Ok((stream, peer)) => {
                    make_room(&mut connections, limits.connections);
                    let requests = Arc::new(AtomicUsize::new(0));
                    let progress = Progress { requests: Arc::clone(&requests), idle: Arc::clone(&idle) };
                    let task = tasks.spawn(converse((stream, peer), routes.clone(), limits.headers, progress, end.clone()));
                    connections.push(Connection { task, requests });
                }
                Err(error) => {
                    tracing::debug!("a connection cannot be taken: {error}");
                    tokio::time::sleep(PAUSE).await;
                }
            },
            () = idle.notified(), if !has_room => {}
        }
    }
    drop(listener);
    connections.iter().filter(|connection| connection.is_idle()).for_each(|connection| connection.task.abort());
    while tasks.join_next().await.is_some() {}
}

/// Closes the oldest connection without a request, if there are as many as there may be.
fn make_room(connections: &mut Vec<Connection>, most: usize) {
    let oldest = connections.iter().position(Connection::is_idle).filter(|_| connections.len() >= most);
    if let Some(oldest) = oldest {
        connections.remove(oldest).task.abort();
    }
}

/// What a connection says of its requests.
#[derive(Clone)]
struct Progress {
    requests: Arc<AtomicUsize>,
    idle: Arc<Notify>,
}

impl Progress {
    fn begin(&self) -> InProgress {
        self.requests.fetch_add(1, Ordering::Relaxed);
        InProgress(self.clone())
    }
}

/// A request, which is in progress until this is dropped.
struct InProgress(Progress);

impl Drop for InProgress {
    fn drop(&mut self) {
        self.0.requests.fetch_sub(1, Ordering::Relaxed);
        self.0.idle.notify_one();
    }
}

async fn converse<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    (stream, peer): (S, Peer),
    routes: Router,
    headers: Option<Duration>,
    progress: Progress,
    mut end: watch::Receiver<()>,
) {
    // With the connection, hyper drops what its client waited for.
    let service =
        service_fn(move |request: Request<Incoming>| tokio::spawn(answer(routes.clone(), request, peer, progress.begin())));
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(headers);
    let connection = http.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    tokio::select! {
        // The client broke the connection, so it cannot be told why.
        _ = connection.as_mut() => return,
        _ = end.changed() => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

async fn answer(routes: Router, mut request: Request<Incoming>, peer: Peer, progress: InProgress) -> Response<Body> {
    request.extensions_mut().insert(peer);
    let Ok(answer) = TowerToHyperService::new(routes).call(request).await;
    // The body has it until it was sent or given up.
    answer.map(|body| {
        Body::new(body.map_frame(move |frame| {
            let _ = &progress;
            frame
        }))
    })
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream as Blocking;
    use std::path::Path;

    use axum::routing::get;

    use super::*;

    const LIMITS: Limits = Limits { connections: 4, headers: Some(Duration::from_secs(60)) };

    fn ask(stream: &mut Blocking) -> String {
        let mut text = String::new();
        stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
        stream.read_to_string(&mut text).unwrap();
        text
    }

    /// Serves at `path` while `clients` runs.
    fn with_server(path: &Path, limits: Limits, routes: Router, clients: impl FnOnce() + Send + 'static) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(async {
            let (sender, end) = watch::channel(());
            let server = tokio::spawn(serve(UnixListener::bind(path).unwrap(), routes, limits, end));
            tokio::task::spawn_blocking(clients).await.unwrap();
            drop(sender);
            server.await.unwrap();
        });
    }

    #[test]
    fn connections_that_say_nothing_give_way_to_one_that_asks() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let place = path.clone();
        let routes = Router::new().route("/", get(async || "here"));
        with_server(&path, LIMITS, routes, move || {
            let mut silent: Vec<Blocking> = (0..100).map(|_| Blocking::connect(&place).unwrap()).collect();
            silent[99].write_all(b"GET / HT").unwrap();
            let answer = ask(&mut Blocking::connect(&place).unwrap());
            assert!(answer.ends_with("here"), "{answer}");
            // The oldest of them went first.
            assert_eq!(silent[0].read(&mut [0]).unwrap_or(0), 0);
        });
    }

    #[test]
    fn a_request_in_progress_keeps_its_place_and_is_answered_at_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let place = path.clone();
        let (begun, has_begun) = std::sync::mpsc::channel();
        let slow = async move || {
            let _ = begun.send(());
            tokio::time::sleep(Duration::from_millis(300)).await;
            "late"
        };
        let asked = std::sync::Arc::new(std::sync::Mutex::new(None));
        let waiting = Arc::clone(&asked);
        with_server(&path, Limits { connections: 1, ..LIMITS }, Router::new().route("/", get(slow)), move || {
            let mut stream = Blocking::connect(&place).unwrap();
            *waiting.lock().unwrap() = Some(std::thread::spawn(move || ask(&mut stream)));
            has_begun.recv().unwrap();
            drop(Blocking::connect(&place).unwrap());
        });
        let thread = asked.lock().unwrap().take().unwrap();
        assert!(thread.join().unwrap().ends_with("late"));
    }

    #[test]
    fn a_request_whose_client_is_gone_is_carried_out() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (sender, mut carried_out) = tokio::sync::mpsc::unbounded_channel();
        let routes = Router::new().route("/", axum::routing::post(async move |body: String| drop(sender.send(body))));
        runtime.block_on(async {
            let listener = UnixListener::bind(&path).unwrap();
            let mut client = Blocking::connect(&path).unwrap();
            client.write_all(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\nlate").unwrap();
            drop(client);
            let (_end, ended) = watch::channel(());
            let server = tokio::spawn(serve(listener, routes, LIMITS, ended));
            let body = tokio::time::timeout(Duration::from_secs(60), carried_out.recv()).await.unwrap();
            assert_eq!(body.as_deref(), Some("late"));
            server.abort();
        });
    }

    #[test]
    fn headers_have_their_time() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let place = path.clone();
        let limits = Limits { headers: Some(Duration::from_millis(50)), ..LIMITS };
        with_server(&path, limits, Router::new(), move || {
            let mut stream = Blocking::connect(&place).unwrap();
            stream.write_all(b"GET / HT").unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
            // It may be told why.
            while stream.read(&mut [0; 64]).unwrap() > 0 {}
        });
    }
}
