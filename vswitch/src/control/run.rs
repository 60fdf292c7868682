//! The life of a vswitchd: start, serve, end.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::io::unix::{AsyncFd, AsyncFdReadyGuard};
use tokio::net::UnixListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle as Task;
use tokio::time::{MissedTickBehavior, interval};

use super::handover::Handover;
use super::server::Call;
use super::socket::{self, Socket, SocketFile};
use super::{ControlError, Start, Switch, server};
use crate::api::{Reply, Request};
use crate::config::{self, Config};
use crate::docker::daemon::{self, Found};
use crate::docker::message::Driver;
use crate::docker::server::{self as docker_server, Ask};
use crate::services::{Output, Tickets};
use crate::sys::{activation, netlink};
use crate::worker::{Command, Event, Handle, Worker};

/// Why vswitchd ended early.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The switch could not be built.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// A socket could not be opened.
    #[error(transparent)]
    Socket(#[from] super::socket::SocketError),
    /// The operating system refused something that every program needs.
    #[error("{0}: {1}")]
    System(&'static str, #[source] std::io::Error),
}

/// Requests that may wait while one is carried out.
const CALLS: usize = 64;
/// Frames from the services that may wait, and for them; what finds no room is lost, as on a wire. Of the latter there is room for all
/// that have a ticket.
const FRAMES: usize = Tickets::MOST;
/// How often the underlay of tunnels and the host's bridges and addresses are looked at, of whose routes and ports no event tells as a whole.
const SURVEY: Duration = Duration::from_secs(2);
/// How often it is looked whether the namespaces of ports are still those that they were.
const ROLL_CALL: Duration = Duration::from_millis(400);
/// How often it is looked whether Docker's containers are still there.
const LOOK: Duration = Duration::from_secs(30);

/// Runs the switch that the file at `path` describes, until SIGTERM, SIGINT or `vsctl shutdown`.
///
/// # Errors
/// Why it could not start; nothing that it made stays then.
pub fn run(path: &Path) -> Result<(), RunError> {
    let config = config::load(path).map_err(ControlError::File)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| RunError::System("the control side's threads cannot start", error))?;
    runtime.block_on(async {
        // Whoever asks for the end during the start gets it right after, with everything removed again.
        let signals = Signals::new().map_err(|error| RunError::System("signals cannot be received", error))?;
        // The sockets come first: whoever finds another vswitchd on one must not touch that one's devices.
        let (handover, sockets) = Handover::sort(activation::passed());
        let doors = Doors::open(&config, sockets)?;
        let (voices, heard) = channels();
        let plane = DataPlane::start(config.switch.workers, &voices)
            .map_err(|error| RunError::System("the data plane's threads cannot start", error))?;
        let output = Box::new(move |output| voices.say(output));
        let start = Start { path: path.to_owned(), config, workers: plane.handles.clone(), handover, output };
        let outcome = match tokio::task::block_in_place(|| Switch::start(start)) {
            Ok((switch, notes)) => {
                notes.iter().for_each(|note| tracing::warn!("{note}"));
                serve(switch, doors, heard, signals).await
            }
            Err(error) => Err(error.into()),
        };
        plane.stop();
        outcome
    })
}

/// The sockets by which requests come in.
struct Doors {
    control: Socket,
    /// Docker's, one for each driver.
    docker: Vec<(Driver, Socket)>,
    /// That of Docker's own API, if Docker is served.
    api: Option<PathBuf>,
}

impl Doors {
    fn open(config: &Config, mut passed: Vec<std::os::unix::net::UnixListener>) -> Result<Self, RunError> {
        let control = socket::open(&config.switch.control, socket::CONTROL, &mut passed)?;
        let mut docker = Vec::new();
        if config.docker.enabled {
            for (driver, path) in [(Driver::Bridge, config.docker.socket.clone()), (Driver::Lan, config.docker.lan_socket())] {
                docker.push((driver, socket::open(&path, socket::DOCKER, &mut passed)?));
            }
        }
        let api = config.docker.enabled.then(|| config.docker.api.clone());
        Ok(Self { control, docker, api })
    }

    /// Lets requests in. The files are gone when what this returns is dropped.
    fn serve(self, calls: mpsc::Sender<Call>, asks: mpsc::Sender<Ask>, found: mpsc::Sender<Found>) -> Served {
        let mut served = Served { tasks: Vec::new(), files: Vec::new(), unnamed: Arc::new(Notify::new()) };
        served.add(self.control, |listener| tokio::spawn(server::serve(listener, calls)));
        for (driver, socket) in self.docker {
            let asks = asks.clone();
            served.add(socket, |listener| tokio::spawn(docker_server::serve(listener, driver, asks)));
        }
        if let Some(api) = self.api {
            served.tasks.push(tokio::spawn(daemon::follow(api, Arc::clone(&served.unnamed), found)));
        }
        served
    }
}

/// Sockets that are served until this is dropped.
struct Served {
    tasks: Vec<Task<()>>,
    files: Vec<SocketFile>,
    /// Told when Docker is to be asked for names.
    unnamed: Arc<Notify>,
}

impl Served {
    fn add(&mut self, socket: Socket, serve: impl FnOnce(UnixListener) -> Task<()>) {
        self.tasks.push(serve(socket.listener));
        self.files.extend(socket.file);
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.tasks.iter().for_each(Task::abort);
        self.files.clear();
    }
}

/// What other processes may send.
struct Signals {
    term: Signal,
    int: Signal,
    hup: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        let [term, int, hup] = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()].map(signal);
        Ok(Self { term: term?, int: int?, hup: hup? })
    }
}

/// How workers and services reach the control side without ever waiting. What stations can cause as often as they like finds room or
/// is lost; what they cannot is never lost to it: a device goes once, and a lease changes now and then.
#[derive(Clone)]
struct Voices {
    punts: mpsc::Sender<Event>,
    gone: mpsc::UnboundedSender<Event>,
    said: mpsc::Sender<Output>,
    changed: mpsc::UnboundedSender<Output>,
}

/// The control side's end of it.
struct Heard {
    punts: mpsc::Receiver<Event>,
    gone: mpsc::UnboundedReceiver<Event>,
    said: mpsc::Receiver<Output>,
    changed: mpsc::UnboundedReceiver<Output>,
}

fn channels() -> (Voices, Heard) {
    let ((punts, punts_in), (said, said_in)) = (mpsc::channel(FRAMES), mpsc::channel(FRAMES));
    let ((gone, gone_in), (changed, changed_in)) = (mpsc::unbounded_channel(), mpsc::unbounded_channel());
    let heard = Heard { punts: punts_in, gone: gone_in, said: said_in, changed: changed_in };
    (Voices { punts, gone, said, changed }, heard)
}

impl Voices {
    /// What a worker tells. At the end nobody listens any more.
    fn notify(&self, event: Event) {
        match event {
            Event::Punt(_) => drop(self.punts.try_send(event)),
            Event::DeviceGone(_) | Event::PacketTooBig(_) | Event::Held(..) => drop(self.gone.send(event)),
        }
    }

    /// What the services say.
    fn say(&self, output: Output) {
        match output {
            Output::Changed(..) => drop(self.changed.send(output)),
            output => drop(self.said.try_send(output)),
        }
    }
}

/// Answers requests until the end is asked for, then removes what was made.
async fn serve(mut switch: Switch, doors: Doors, mut heard: Heard, mut signals: Signals) -> Result<(), RunError> {
    let ((calls, mut calls_in), (asks, mut asks_in)) = (mpsc::channel(CALLS), mpsc::channel(CALLS));
    let (found, mut found_in) = mpsc::channel(1);
    let served = doors.serve(calls, asks, found);
    let (mut look, mut survey, mut roll_call) = (interval(LOOK), interval(SURVEY), interval(ROLL_CALL));
    survey.set_missed_tick_behavior(MissedTickBehavior::Delay);
    roll_call.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let links = switch.link_news().and_then(|socket| netlink::readable(socket).ok());
    say_ready();
    loop {
        tokio::select! {
            _ = signals.term.recv() => break,
            _ = signals.int.recv() => break,
            _ = signals.hup.recv() => tokio::task::block_in_place(|| reload(&mut switch)),
            Some(event) = heard.gone.recv() => tokio::task::block_in_place(|| switch.note(event)),
            Some(event) = heard.punts.recv() => switch.note(event),
            Some(output) = heard.changed.recv() => tokio::task::block_in_place(|| switch.speak(output)),
            Some(output) = heard.said.recv() => tokio::task::block_in_place(|| switch.speak(output)),
            mut news = readable(links.as_ref()) => {
                if !tokio::task::block_in_place(|| switch.follow_links()) {
                    news.clear_ready();
                }
            }
            _ = roll_call.tick() => tokio::task::block_in_place(|| switch.follow_namespaces()),
            _ = survey.tick() => tokio::task::block_in_place(|| {
                switch.follow_missing();
                switch.follow_underlay();
                switch.follow_bridges();
                switch.follow_lans();
                switch.tell_stations();
                switch.note_arrivals();
            }),
            _ = look.tick() => {
                tokio::task::block_in_place(|| {
                    switch.collect_dead();
                    switch.tell_stations();
                });
                if switch.may_be_renamed() {
                    served.unnamed.notify_one();
                }
            }
            Some(Found { names, complete }) = found_in.recv() => {
                // It may have given up meanwhile.
                let _ = complete.send(switch.learn_names(names));
            }
            Some(ask) = asks_in.recv() => {
                tokio::task::block_in_place(|| switch.answer_docker(ask));
                if switch.lacks_names() {
                    served.unnamed.notify_one();
                }
            }
            Some(call) = calls_in.recv() => {
                if tokio::task::block_in_place(|| answer(&mut switch, call)).is_break() {
                    break;
                }
            }
        }
    }
    tokio::task::block_in_place(|| switch.shut_down());
    // Answers that are on their way get out before the sockets go.
    drop(served);
    Ok(())
}

/// Waits until the kernel says something about links.
async fn readable(links: Option<&AsyncFd<OwnedFd>>) -> AsyncFdReadyGuard<'_, OwnedFd> {
    if let Some(links) = links
        && let Ok(guard) = links.readable().await
    {
        return guard;
    }
    std::future::pending().await
}

fn answer(switch: &mut Switch, call: Call) -> std::ops::ControlFlow<()> {
    match call {
        Call::Request { request, reply } => {
            let end = request == Request::Shutdown;
            // Whoever asked may have gone away.
            let _ = reply.send(switch.execute(request).map_err(|error| error.to_string()));
            if end {
                return std::ops::ControlFlow::Break(());
            }
        }
        Call::Capture { request, reply } => {
            let _ = reply.send(switch.capture(&request).map_err(|error| error.to_string()));
        }
    }
    std::ops::ControlFlow::Continue(())
}

/// SIGHUP: as `vsctl reload`, with the outcome in the log.
fn reload(switch: &mut Switch) {
    match switch.execute(Request::Reload) {
        Ok(Reply::Done(notes)) => {
            notes.iter().for_each(|note| tracing::warn!("{note}"));
            tracing::info!("reloaded {}", switch.path().display());
        }
        Ok(_) => {}
        Err(error) => tracing::error!("not reloaded: {error}"),
    }
}

fn say_ready() {
    let mut stdout = std::io::stdout();
    // A closed stdout is no reason to stop switching.
    let _ = writeln!(stdout, "ready").and_then(|()| stdout.flush());
    if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
        tracing::warn!("systemd could not be told that vswitchd is ready: {error}");
    }
}

/// The workers' threads.
struct DataPlane {
    handles: Vec<Handle>,
    threads: Vec<JoinHandle<()>>,
}

impl DataPlane {
    fn start(count: usize, voices: &Voices) -> std::io::Result<Self> {
        let seed = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), count);
        let mut workers = Vec::new();
        for _ in 0..count {
            let voices = voices.clone();
            workers.push(Worker::new(seed, Box::new(move |event| voices.notify(event)))?);
        }
        let handles: Vec<Handle> = workers.iter().map(|(_, handle)| handle.clone()).collect();
        let mut threads = Vec::new();
        for (number, (mut worker, _)) in workers.into_iter().enumerate() {
            let others = handles.iter().enumerate().filter(|(other, _)| *other != number);
            worker.set_peers(others.map(|(_, handle)| handle.clone()).collect());
            if let Some(router) = handles.first().filter(|_| number > 0) {
                worker.set_router(router.clone());
            }
            threads.push(std::thread::Builder::new().name(format!("worker-{number}")).spawn(move || worker.run())?);
        }
        Ok(Self { handles, threads })
    }

    fn stop(self) {
        self.handles.iter().for_each(|handle| handle.hint(Command::Stop));
        for thread in self.threads {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datapath::{BridgeId, PortId, Punt};
    use crate::services::{Ticket, client};

    #[test]
    fn a_flood_of_frames_for_the_services_hides_no_lease_and_no_lost_device() {
        let (voices, mut heard) = channels();
        for _ in 0..2 * FRAMES {
            voices.notify(Event::Punt(Punt {
                bridge: BridgeId(0),
                port: PortId(0),
                vlan: None,
                frame: Vec::new(),
                ticket: Ticket::default(),
            }));
            voices.say(Output::Uplink("wan".parse().unwrap(), Vec::new()));
        }
        voices.notify(Event::DeviceGone(PortId(1)));
        let lost = Output::Changed("wan".parse().unwrap(), client::Event::Lost);
        voices.say(lost.clone());
        assert_eq!(heard.gone.try_recv(), Ok(Event::DeviceGone(PortId(1))));
        assert_eq!(heard.changed.try_recv(), Ok(lost));
        assert_eq!((heard.punts.len(), heard.said.len()), (FRAMES, FRAMES));
    }
}
