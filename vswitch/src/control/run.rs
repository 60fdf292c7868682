//! The life of a vswitchd: start, serve, end.

use std::io::Write;
use std::path::Path;
use std::thread::JoinHandle;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use super::server::{Call, Listener};
use super::{ControlError, Start, Switch};
use crate::api::{Reply, Request};
use crate::config;
use crate::services::Output;
use crate::worker::{Command, Event, Handle, Worker};

/// Why vswitchd ended early.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The switch could not be built.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The control socket could not be opened.
    #[error(transparent)]
    Server(#[from] super::server::ServerError),
    /// The operating system refused something that every program needs.
    #[error("{0}: {1}")]
    System(&'static str, #[source] std::io::Error),
}

/// Requests that may wait while one is carried out.
const CALLS: usize = 64;
/// Events of workers that may wait; a lost one costs a line in `vsctl show`.
const EVENTS: usize = 1024;

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
        // The socket comes first: whoever finds another vswitchd on it must not touch that one's devices.
        let listener = Listener::bind(&config.switch.control)?;
        let (events, events_in) = mpsc::channel(EVENTS);
        let plane = DataPlane::start(config.switch.workers, &events)
            .map_err(|error| RunError::System("the data plane's threads cannot start", error))?;
        let (said, said_in) = mpsc::channel(EVENTS);
        // What finds no room is lost, as on a wire.
        let output = Box::new(move |output| drop(said.try_send(output)));
        let start = Start { path: path.to_owned(), config, workers: plane.handles.clone(), output };
        let outcome = match tokio::task::block_in_place(|| Switch::start(start)) {
            Ok((switch, notes)) => {
                notes.iter().for_each(|note| tracing::warn!("{note}"));
                serve(switch, listener, events_in, said_in, signals).await
            }
            Err(error) => Err(error.into()),
        };
        plane.stop();
        outcome
    })
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

/// Answers requests until the end is asked for, then removes what was made.
async fn serve(
    mut switch: Switch,
    listener: Listener,
    mut events: mpsc::Receiver<Event>,
    mut said: mpsc::Receiver<Output>,
    mut signals: Signals,
) -> Result<(), RunError> {
    let (calls, mut calls_in) = mpsc::channel(CALLS);
    let server = tokio::spawn(listener.serve(calls));
    say_ready();
    loop {
        tokio::select! {
            _ = signals.term.recv() => break,
            _ = signals.int.recv() => break,
            _ = signals.hup.recv() => tokio::task::block_in_place(|| reload(&mut switch)),
            Some(event) = events.recv() => switch.note(event),
            Some(output) = said.recv() => tokio::task::block_in_place(|| switch.speak(output)),
            Some(call) = calls_in.recv() => {
                if tokio::task::block_in_place(|| answer(&mut switch, call)).is_break() {
                    break;
                }
            }
        }
    }
    tokio::task::block_in_place(|| switch.shut_down());
    // Answers that are on their way get out before the socket goes.
    server.abort();
    Ok(())
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
    fn start(count: usize, events: &mpsc::Sender<Event>) -> std::io::Result<Self> {
        let seed = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), count);
        let mut workers = Vec::new();
        for _ in 0..count {
            let events = events.clone();
            let notify = move |event| {
                let _ = events.try_send(event);
            };
            workers.push(Worker::new(seed, Box::new(notify))?);
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
