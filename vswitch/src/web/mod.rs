//! The web view: a page of the running switch, what it is made of as JSON, and metrics.
//!
//! It is off unless `[web]` turns it on, and then listens on loopback unless told otherwise. `guard` says who may ask what. Reading waits for no
//! worker where it is counters (`view`); tables are asked for by the same requests as `vsctl`'s, in the same queue.
//!
//! The page is a few files that are compiled in. They ask no other host for anything, and a browser is told to let them ask none.
//!
//! It has a thread of its own, confined ([`Confinement`]), for a page of anywhere may make a browser send something. What opens a file or loads
//! libpcap is done by the control side's threads.
//!
//! **What bounds it.** Connections, as on the control socket; of these, `STREAMS` may wait for news, which are never answered to the end.

mod guard;
mod live;
mod routes;
mod settings;
mod token;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::net::SocketType;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use crate::confine::{Confinement, Role};
use crate::control::server::Call;
use crate::http::{self, Limits};
use crate::inherited::Inherited;
use crate::view::Board;
use guard::Guard;

pub use settings::WebSettings;

/// A browser opens up to six connections for a page.
const LIMITS: Limits = Limits { connections: 96, headers: Some(Duration::from_secs(10)) };
/// Streams of counters and events at a time.
const STREAMS: usize = 32;

/// Why there is no web view.
#[derive(Debug, thiserror::Error)]
pub enum WebError {
    /// The address cannot be listened on.
    #[error("[web] cannot listen on {address}: {}", why(.source))]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// There is no token.
    #[error("[web]: its token, {0}, cannot be had: {1}")]
    Token(String, #[source] io::Error),
}

fn why(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => "another program has it: stop that one, or set another `listen`".to_owned(),
        io::ErrorKind::AddrNotAvailable => {
            "this host, or the namespace that vswitchd is in, does not have the address".to_owned()
        }
        _ => error.to_string(),
    }
}

/// A web view that listens.
pub(crate) struct Web {
    listener: TcpListener,
    guard: Guard,
    guide: Option<PathBuf>,
}

/// What a web view shows, and whom it asks for more.
#[derive(Clone)]
pub(crate) struct Shown {
    pub(crate) board: Arc<Board>,
    pub(crate) calls: mpsc::Sender<Call>,
    /// Where files are read, and filters compiled.
    pub(crate) desk: Handle,
}

/// Listens at an address; at a port below 1024 by the broker, where that is for those with rights.
fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).or_else(|error| match error.kind() {
        std::io::ErrorKind::PermissionDenied => match crate::host::open_listener(&address, &true) {
            Ok(socket) => Ok(socket.0.into()),
            Err(error) => Err(error.0),
        },
        _ => Err(error),
    })
}

impl Web {
    /// Listens, by the socket that the last vswitchd left if there is one. What comes before it is served waits.
    pub(crate) fn open(settings: &WebSettings, state_dir: &Path, inherited: &Inherited) -> Result<Self, WebError> {
        let place = state_dir.join(token::FILE).display().to_string();
        let token = token::token(state_dir).map_err(|error| WebError::Token(place.clone(), error))?;
        let left = inherited.take(SocketType::STREAM, settings.listen).into_iter().next();
        let listener = left.map_or_else(|| listen(settings.listen), |socket| Ok(socket.into()));
        let listener = listener.and_then(|listener| {
            listener.set_nonblocking(true)?;
            Ok(listener)
        });
        let listener = listener.map_err(|source| WebError::Listen { address: settings.listen, source })?;
        Ok(Self { listener, guard: Guard::new(settings, token, place), guide: settings.guide.clone() })
    }

    /// The socket once more.
    ///
    /// # Errors
    /// No descriptors are left.
    pub(crate) fn duplicate(&self) -> io::Result<OwnedFd> {
        Ok(self.listener.try_clone()?.into())
    }

    /// Answers requests, on a thread of its own, until the sender of `end` is dropped.
    pub(crate) async fn serve_apart(self, shown: Shown, end: watch::Receiver<()>, sandbox: Confinement) {
        let (done, ended) = oneshot::channel();
        let serve = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            sandbox.enter(Role::Web);
            runtime.block_on(self.serve(shown, end));
            // The control side may not wait for it.
            let _ = done.send(());
            io::Result::Ok(())
        };
        match std::thread::Builder::new().name("web".to_owned()).spawn(serve) {
            // Without an answer, it could not begin.
            Ok(_) if ended.await.is_ok() => {}
            Ok(_) => tracing::error!("the web view is not served: its thread has ended"),
            Err(error) => tracing::error!("the web view is not served: {error}"),
        }
    }

    /// Answers requests until the sender of `end` is dropped.
    async fn serve(self, shown: Shown, end: watch::Receiver<()>) {
        let listener = match tokio::net::TcpListener::from_std(self.listener) {
            Ok(listener) => listener,
            Err(error) => return tracing::error!("the web view is not served: {error}"),
        };
        let streams = Arc::new(Semaphore::new(STREAMS));
        let routes = routes::routes(routes::Desk { shown, streams, guide: self.guide, end: end.clone() }, Arc::new(self.guard));
        http::serve(listener, routes, LIMITS, end).await;
    }
}
