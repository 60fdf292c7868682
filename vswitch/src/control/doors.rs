//! The sockets by which requests come in: opened before anything else, served when the switch is there, and made again if their files
//! are removed.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::RecvFlags;
use tokio::io::Interest;
use tokio::net::{UnixListener, UnixStream};
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;

use super::server::{self, Call};
use super::socket::{self, Passed, Socket, SocketError, SocketFile, SocketPlace};
use super::takeover::{self, Label};
use crate::config::Config;
use crate::confine::Confinement;
use crate::docker::daemon::{self, Found};
use crate::docker::message::Driver;
use crate::docker::server::{self as docker_server, Ask};
use crate::http::{self, Acceptor};
use crate::inherited::Inherited;
use crate::view::Board;
use crate::web::{Shown, Web};

/// How long answers that are on their way may take at the end.
const PATIENCE: Duration = Duration::from_secs(2);

/// The clients that come in by a socket.
#[derive(Clone, Copy, Debug)]
enum Guest {
    Control,
    Docker(Driver),
    /// The vswitchd that is to come after this one.
    Successor,
}

/// The sockets by which requests come in.
pub(super) struct Doors {
    sockets: Vec<(Guest, Socket)>,
    /// That of Docker's own API, if Docker is served.
    api: Option<PathBuf>,
    web: Option<Web>,
}

impl Doors {
    /// Opens them, or takes them from what the service manager or the last vswitchd passed.
    pub(super) fn open(config: &Config, mut passed: Vec<Passed>, inherited: &Inherited) -> Result<Self, SocketError> {
        let group = config.switch.control_group.as_deref().map(socket::group).transpose()?;
        let mut places =
            vec![(Guest::Control, SocketPlace { path: config.switch.control.clone(), purpose: socket::CONTROL, group })];
        if config.docker.enabled {
            for (driver, path) in config.docker.sockets() {
                places.push((Guest::Docker(driver), SocketPlace { path, purpose: socket::DOCKER, group: None }));
            }
        }
        let mut open = |(guest, place): (Guest, SocketPlace)| Ok((guest, socket::open(&place, &mut passed)?));
        let mut sockets = places.into_iter().map(&mut open).collect::<Result<Vec<_>, SocketError>>()?;
        let place = SocketPlace { path: takeover::place(&config.switch.control), purpose: socket::TAKEOVER, group: None };
        match open((Guest::Successor, place)) {
            Ok(socket) => sockets.push(socket),
            Err(error) => tracing::warn!("no other vswitchd can take over from this one: {error}"),
        }
        let web = config.web.as_ref().map(|web| Web::open(web, &config.switch.state_dir, inherited)).transpose()?;
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
            let socket = web.duplicate().ok().map(|socket| (Label::Socket, socket));
            let shown = Shown { board, calls: served.calls.clone(), desk: Handle::current() };
            Door { guest: None, file: None, socket, task: tokio::spawn(web.serve_apart(shown, ended, sandbox)), end }
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
    /// For whom; `None`: for browsers.
    guest: Option<Guest>,
    /// The file that it has.
    file: Option<SocketFile>,
    /// The socket once more, for a successor.
    socket: Option<(Label, OwnedFd)>,
    task: JoinHandle<()>,
    end: watch::Sender<()>,
}

impl Served {
    fn let_in(&self, guest: Guest, mut socket: Socket) -> Door {
        socket.adopt();
        let (end, ended) = watch::channel(());
        let again = socket.listener.as_fd().try_clone_to_owned().ok();
        let again = again.map(|again| (Label::Door { ours: socket.file.is_some() }, again));
        let task = match guest {
            Guest::Successor => tokio::spawn(hear_successors(socket.listener, self.calls.clone(), ended)),
            Guest::Control => tokio::spawn(server::serve(socket.listener, self.calls.clone(), ended)),
            Guest::Docker(driver) => tokio::spawn(docker_server::serve(socket.listener, driver, self.asks.clone(), ended)),
        };
        Door { guest: Some(guest), file: socket.file, socket: again, task, end }
    }

    /// Makes sockets again whose files are gone. What was asked by way of the old ones is answered.
    pub(super) fn mend(&mut self) {
        for number in 0..self.open.len() {
            let Door { guest: Some(guest), file: Some(file), .. } = &self.open[number] else { continue };
            match file.remake() {
                Ok(None) => {}
                Ok(Some(socket)) => {
                    tracing::info!("a socket whose file was gone is made again");
                    self.open[number] = self.let_in(*guest, socket);
                }
                Err(error) => tracing::warn!("a socket whose file is gone is not made again: {error}"),
            }
        }
    }

    /// Lets no client in for now: those that come wait, to be let in here or by a successor. Returns the sockets once more.
    pub(super) fn hold(&mut self) -> Vec<(Label, OwnedFd)> {
        for door in self.open.iter_mut().filter(|door| door.guest.is_some()) {
            door.end = watch::channel(()).0;
        }
        let sockets = self.open.iter().filter_map(|door| door.socket.as_ref());
        sockets.filter_map(|(label, socket)| Some((label.clone(), socket.try_clone().ok()?))).collect()
    }

    /// Lets the clients in that waited.
    pub(super) fn let_in_again(&mut self) {
        for number in 0..self.open.len() {
            let door = &mut self.open[number];
            let (Some(guest), Some((_, socket))) = (door.guest, door.socket.take()) else { continue };
            match tokio::net::UnixListener::from_std(socket.into()) {
                Ok(listener) => {
                    let file = door.file.take();
                    self.open[number] = self.let_in(guest, Socket { listener, file, adopts: None });
                }
                Err(error) => tracing::error!("a socket cannot be served any more: {error}"),
            }
        }
    }

    /// Leaves the files of sockets to a successor.
    pub(super) fn leave_files(&mut self) {
        self.open.iter_mut().filter_map(|door| door.file.take()).for_each(SocketFile::leave);
    }

    /// Takes no more requests, and waits a moment for answers that are on their way.
    pub(super) async fn end(&mut self) {
        self.daemon.iter().for_each(JoinHandle::abort);
        let close = |Door { task, end, file, .. }: Door| {
            drop((end, file));
            task
        };
        let tasks: Vec<_> = std::mem::take(&mut self.open).into_iter().map(close).collect();
        for task in tasks {
            // A client that does not read its answer is not waited for.
            let _ = tokio::time::timeout(PATIENCE, task).await;
        }
    }
}

/// Passes on who wants to take over, if that is root or the same user, until the sender of `end` is dropped.
async fn hear_successors(listener: UnixListener, calls: mpsc::Sender<Call>, mut end: watch::Receiver<()>) {
    loop {
        let accepted = tokio::select! {
            _ = end.changed() => return,
            accepted = Acceptor::accept(&listener) => accepted,
        };
        let Ok((stream, peer)) = accepted else {
            tokio::time::sleep(http::PAUSE).await;
            continue;
        };
        // Who says nothing is not waited for by those who have something to do.
        if !peer.is_trusted() || tokio::time::timeout(PATIENCE, speaks(&stream)).await != Ok(true) {
            continue;
        }
        if let Ok(stream) = stream.into_std()
            && stream.set_nonblocking(false).is_ok()
            && calls.send(Call::Takeover(stream)).await.is_err()
        {
            return;
        }
    }
}

/// Waits until the other side has said something; says whether it did before it ended.
async fn speaks(stream: &UnixStream) -> bool {
    let peek = || Ok(rustix::net::recv(stream, &mut [0], RecvFlags::PEEK)?);
    loop {
        let ready = stream.readable().await;
        match ready.and_then(|()| stream.try_io(Interest::READABLE, peek)) {
            Ok((read, _)) => return read > 0,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return false,
        }
    }
}
