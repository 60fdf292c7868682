//! The sockets by which requests come in: opened before anything else, served when the switch is there, and made again if their files
//! are removed.

use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;

use super::server::{self, Call};
use super::socket::{self, Socket, SocketError, SocketFile, SocketPlace};
use crate::config::Config;
use crate::confine::Confinement;
use crate::docker::daemon::{self, Found};
use crate::docker::message::Driver;
use crate::docker::server::{self as docker_server, Ask};
use crate::view::Board;
use crate::web::{Shown, Web};

/// How long answers that are on their way may take at the end.
const PATIENCE: Duration = Duration::from_secs(2);

/// The clients that come in by a socket.
#[derive(Clone, Copy, Debug)]
enum Guest {
    Control,
    Docker(Driver),
}

/// The sockets by which requests come in.
pub(super) struct Doors {
    sockets: Vec<(Guest, Socket)>,
    /// That of Docker's own API, if Docker is served.
    api: Option<PathBuf>,
    web: Option<Web>,
}

impl Doors {
    /// Opens them, or takes them from what the service manager passed.
    pub(super) fn open(config: &Config, mut passed: Vec<UnixListener>) -> Result<Self, SocketError> {
        let group = config.switch.control_group.as_deref().map(socket::group).transpose()?;
        let mut places =
            vec![(Guest::Control, SocketPlace { path: config.switch.control.clone(), purpose: socket::CONTROL, group })];
        if config.docker.enabled {
            for (driver, path) in [(Driver::Bridge, config.docker.socket.clone()), (Driver::Lan, config.docker.lan_socket())] {
                places.push((Guest::Docker(driver), SocketPlace { path, purpose: socket::DOCKER, group: None }));
            }
        }
        let open = |(guest, place): (Guest, SocketPlace)| Ok((guest, socket::open(&place, &mut passed)?));
        let sockets = places.into_iter().map(open).collect::<Result<_, SocketError>>()?;
        let web = config.web.as_ref().map(|web| Web::open(web, &config.switch.state_dir)).transpose()?;
        Ok(Self { sockets, api: config.docker.enabled.then(|| config.docker.api.clone()), web })
    }

    /// Lets requests in.
    pub(super) fn serve(
        self,
        calls: mpsc::Sender<Call>,
        asks: mpsc::Sender<Ask>,
        found: mpsc::Sender<Found>,
        (board, sandbox): (Arc<Board>, Confinement),
    ) -> Served {
        let unnamed = Arc::new(Notify::new());
        let daemon = self.api.map(|api| tokio::spawn(daemon::follow(api, Arc::clone(&unnamed), found)));
        let mut served = Served { calls, asks, open: Vec::new(), daemon, unnamed };
        let open = self.sockets.into_iter().map(|(guest, socket)| served.let_in(guest, socket));
        let web = self.web.map(|web| {
            let (end, ended) = watch::channel(());
            let shown = Shown { board, calls: served.calls.clone(), desk: Handle::current() };
            Door { file: None, task: tokio::spawn(web.serve_apart(shown, ended, sandbox)), end }
        });
        served.open = open.chain(web).collect();
        served
    }
}

/// Sockets that are served. Their files are gone when this is dropped.
pub(super) struct Served {
    calls: mpsc::Sender<Call>,
    asks: mpsc::Sender<Ask>,
    open: Vec<Door>,
    daemon: Option<JoinHandle<()>>,
    /// Told when Docker is to be asked for names.
    pub(super) unnamed: Arc<Notify>,
}

/// A socket that is served until `end` is dropped.
struct Door {
    /// The file that it has, and for whom.
    file: Option<(Guest, SocketFile)>,
    task: JoinHandle<()>,
    end: watch::Sender<()>,
}

impl Served {
    fn let_in(&self, guest: Guest, socket: Socket) -> Door {
        let (end, ended) = watch::channel(());
        let task = match guest {
            Guest::Control => tokio::spawn(server::serve(socket.listener, self.calls.clone(), ended)),
            Guest::Docker(driver) => tokio::spawn(docker_server::serve(socket.listener, driver, self.asks.clone(), ended)),
        };
        Door { file: socket.file.map(|file| (guest, file)), task, end }
    }

    /// Makes sockets again whose files are gone. What was asked by way of the old ones is answered.
    pub(super) fn mend(&mut self) {
        for number in 0..self.open.len() {
            let Some((guest, file)) = &self.open[number].file else { continue };
            match (file.remake(), *guest) {
                (Ok(None), _) => {}
                (Ok(Some(socket)), guest) => {
                    tracing::info!("a socket whose file was gone is made again");
                    self.open[number] = self.let_in(guest, socket);
                }
                (Err(error), _) => tracing::warn!("a socket whose file is gone is not made again: {error}"),
            }
        }
    }

    /// Takes no more requests, and waits a moment for answers that are on their way.
    pub(super) async fn end(mut self) {
        self.daemon.iter().for_each(JoinHandle::abort);
        for Door { task, end, file, .. } in std::mem::take(&mut self.open) {
            drop((end, file));
            // A client that does not read its answer is not waited for.
            let _ = tokio::time::timeout(PATIENCE, task).await;
        }
    }
}
