//! The life of a vswitchd: start, serve, end.

use std::io::Write;
use std::ops::ControlFlow;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit};
use sd_notify::NotifyState;
use tokio::io::unix::{AsyncFd, AsyncFdReadyGuard};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::doors::{Doors, Served};
use super::exit::{Ended, Exit, hand_over};
use super::handover::Handover;
use super::rights::{connect_to_broker, give_up_rights};
use super::server::Call;
use super::takeover::{Takeover, TakeoverError};
use super::upgrade::Upgrade;
use super::voices::{Hearing, Said, channels};
use super::workers::{self, DataPlane};
use super::{ControlError, Log, Start, Switch};
use crate::broker::Aide;
use crate::config;
use crate::confine::{Confinement, ConfinementError, OwnUser, UserError};
use crate::docker::daemon::Found;
use crate::docker::server::Ask;
use crate::stp::StpNews;
use api::{Reply, Request};
use plane::worker::Event;
use sys::{activation, netlink};

/// Why vswitchd ended early.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The switch could not be built.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// A socket could not be opened.
    #[error(transparent)]
    Socket(#[from] super::socket::SocketError),
    /// Nothing was taken over.
    #[error(transparent)]
    Takeover(#[from] TakeoverError),
    /// There is no broker where one should be.
    #[error("no process that keeps the rights is to be had at {place}: {1}: {next}", place = .0.display(), next = next_step(.1))]
    NoBroker(PathBuf, #[source] std::io::Error),
    /// The broker is another program.
    #[error(
        "the process that keeps the rights, at {}, is of another version of vswitchd: install this one where vswitchd-broker@.service has it",
        .0.display()
    )]
    OtherBroker(PathBuf),
    /// The broker is for another switch.
    #[error("the process that keeps the rights, at {}, reads {}: it is to have the same --config", .0.display(), .1.display())]
    BrokerOfOtherFile(PathBuf, PathBuf),
    /// It does not become the user that it is to be.
    #[error(transparent)]
    User(#[from] UserError),
    /// Threads that take in frames would keep rights.
    #[error(transparent)]
    Confinement(#[from] ConfinementError),
    /// Too few threads.
    #[error(
        "vswitchd needs {0} threads and does not get them ({1}): raise the limit of processes (`pids.max` of its control group, \
         TasksMax= of its unit, or `ulimit -u`)"
    )]
    Threads(usize, #[source] std::io::Error),
    /// The operating system refused something that every program needs.
    #[error("{0}: {1}")]
    System(&'static str, #[source] std::io::Error),
}

fn next_step(refused: &std::io::Error) -> &'static str {
    match refused.kind() {
        std::io::ErrorKind::PermissionDenied => "it is for the user of the service, and for root",
        _ => "`systemctl start vswitchd-broker.socket` listens there, or another program that starts vswitchd --broker-service",
    }
}

/// Requests that may wait while one is carried out.
const CALLS: usize = 64;
/// How often the control loop looks at the underlay of tunnels and at the host's bridges and addresses, of which no events tell everything.
const SURVEY: Duration = Duration::from_secs(2);
/// How often the control loop looks whether the namespaces of ports are still those that they were.
const ROLL_CALL: Duration = Duration::from_millis(400);
/// How often the control loop looks whether containers are still there.
const LOOK: Duration = Duration::from_secs(30);

/// Who keeps the rights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeper<'a> {
    /// This process, whose threads are not in a [`Confinement`] either.
    Itself,
    /// A broker that it starts.
    Broker,
    /// A broker that is started by who listens there.
    BrokerAt(&'a Path),
}

impl Keeper<'_> {
    /// The broker for the file at `path`, if it is there before this process asks for it.
    fn connect(self, path: &Path) -> Result<Option<Aide>, RunError> {
        match self {
            Self::BrokerAt(place) => connect_to_broker(place, path).map(Some),
            Self::Broker | Self::Itself => Ok(None),
        }
    }
}

/// How to run.
#[derive(Clone, Copy, Debug)]
pub struct RunMode<'a> {
    /// Who keeps the rights.
    pub keeper: Keeper<'a>,
    /// Whose the process becomes when it gives its rights up; else it stays that of the user that started it.
    pub user: Option<&'a OwnUser>,
    /// In the place of the vswitchd that runs, which hands all over.
    pub takeover: bool,
}

/// Runs the switch that the file at `path` describes, until SIGTERM, SIGINT or `vsctl shutdown`, or until another takes over.
///
/// # Errors
/// Why it could not start; nothing that it made stays then.
pub fn run(path: &Path, log: Log, mode: RunMode<'_>) -> Result<(), RunError> {
    // The file may be for those with rights.
    let broker = mode.keeper.connect(path)?;
    let config = config::load(path).map_err(ControlError::File)?;
    workers::check_threads(config.switch.workers).map_err(|(count, error)| RunError::Threads(count, error))?;
    raise_descriptor_limit();
    // No process beside this one is to inherit any of them.
    let passed = activation::passed();
    let sandbox = if mode.keeper == Keeper::Itself { Confinement::off() } else { give_up_rights(&config, mode.user, broker)? };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| RunError::System("the control side's threads cannot start", error))?;
    runtime.block_on(async {
        // An end that is asked for during the start comes right after it, with everything removed again.
        let signals = Signals::new().map_err(|error| RunError::System("signals cannot be received", error))?;
        let (voices, heard, bpdus) = channels(config.switch.workers);
        let plane = DataPlane::start(config.switch.workers, &voices, &sandbox)
            .map_err(|error| RunError::System("the data plane's threads cannot start", error))?;
        // The sockets come first: a vswitchd that finds another on one of them must not touch the other's devices.
        let (mut takeover, handover, passed) = if mode.takeover {
            let (takeover, handover, passed) = Takeover::begin(&config)?;
            (Some(takeover), handover, passed)
        } else {
            let (handover, passed) = Handover::sort(passed);
            (None, handover, passed)
        };
        let (trees, overlay, flannel) = (voices.trees.clone(), voices.overlay.clone(), voices.flannel.clone());
        let output = Box::new(move |output| voices.say(output));
        // What finds no room is missed by those who read events, and nothing else.
        let trees: (_, Box<dyn FnMut(StpNews) + Send>) = (bpdus, Box::new(move |news| drop(trees.try_send(news))));
        let (path, workers) = (path.to_owned(), plane.handles.clone());
        let built = tokio::task::block_in_place(|| {
            let doors = Doors::open(&config, passed, &handover.inherited)?;
            let start =
                Start { path, config, workers, sandbox: sandbox.clone(), handover, log, output, trees, overlay, flannel };
            let (mut switch, notes) = Switch::start(start)?;
            let legacy = takeover.as_mut().map(Takeover::go).transpose()?;
            switch.begin(legacy)?;
            Ok((doors, switch, notes))
        });
        let outcome = match built {
            Ok((doors, switch, notes)) => {
                takeover.into_iter().for_each(Takeover::succeed);
                notes.iter().for_each(|note| tracing::warn!("{note}"));
                Ok(serve(switch, (doors, sandbox), heard, signals).await)
            }
            Err(error) => {
                takeover.into_iter().for_each(|takeover| takeover.fail(&RunError::to_string(&error)));
                Err(error)
            }
        };
        plane.stop();
        let mut ended = outcome?;
        ended.tell().await;
        ended.see_through().await;
        Ok(())
    })
}

/// The limit that a service starts with is low only for the sake of select(2), which nothing here calls.
pub(super) fn raise_descriptor_limit() {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    // It fails only for more than the maximum.
    let _ = rustix::process::setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

/// What other processes may send.
pub(super) struct Signals {
    pub(super) term: Signal,
    pub(super) int: Signal,
    hup: Signal,
}

impl Signals {
    pub(super) fn new() -> std::io::Result<Self> {
        let [term, int, hup] = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()].map(signal);
        Ok(Self { term: term?, int: int?, hup: hup? })
    }
}

/// Answers requests until the end is asked for, then removes what was made.
async fn serve(mut switch: Switch, (doors, sandbox): (Doors, Confinement), mut heard: Hearing, mut signals: Signals) -> Ended {
    let ((calls, mut calls_in), (asks, mut asks_in)) = (mpsc::channel(CALLS), mpsc::channel(CALLS));
    let (found, mut found_in) = mpsc::channel(1);
    switch.show_to_viewers();
    let mut served = doors.serve(calls, asks, found, (switch.board(), sandbox));
    let watched = switch.watchdog_interval();
    let [mut look, mut survey, mut roll_call, mut feed] = [LOOK, SURVEY, ROLL_CALL, watched.unwrap_or(LOOK)].map(timer);
    let links = switch.link_news().and_then(|socket| netlink::readable(socket).ok());
    say_ready();
    let mut upgrade = None;
    let by_signal = Exit::Planned { keep: false, asker: None };
    let end = loop {
        tokio::select! {
            _ = signals.term.recv() => break by_signal,
            _ = signals.int.recv() => break by_signal,
            _ = signals.hup.recv() => {
                tokio::task::block_in_place(|| reload(&mut switch));
                served.mend();
            }
            _ = feed.tick(), if watched.is_some() => switch.feed_watchdog(),
            said = heard.next() => match said {
                Said::Event(event @ Event::Punt(_)) => switch.note(event),
                Said::Tree(news) => switch.note_tree(news),
                Said::Event(event) => tokio::task::block_in_place(|| switch.note(event)),
                Said::Output(output) => tokio::task::block_in_place(|| switch.speak(output)),
                Said::Overlay(news) => tokio::task::block_in_place(|| switch.hear_overlay(news)),
                Said::Flannel(news) => tokio::task::block_in_place(|| switch.hear_flannel(news)),
            },
            news = readable(links.as_ref()) => tokio::task::block_in_place(|| follow_links(&mut switch, news)),
            () = tokio::time::sleep_until(switch.image_due().into()) => tokio::task::block_in_place(|| switch.write_image()),
            _ = roll_call.tick() => {
                tokio::task::block_in_place(|| call_roll(&mut switch));
                upgrade = upgrade.take().and_then(Upgrade::look);
            }
            _ = survey.tick() => tokio::task::block_in_place(|| survey_world(&mut switch)),
            _ = look.tick() => {
                tokio::task::block_in_place(|| look_for_containers(&mut switch));
                if switch.may_be_renamed() {
                    served.unnamed.notify_one();
                }
            }
            Some(found) = found_in.recv() => tokio::task::block_in_place(|| learn_names(&mut switch, found)),
            Some(ask) = asks_in.recv() => {
                tokio::task::block_in_place(|| switch.answer_docker(ask));
                if switch.lacks_names() {
                    served.unnamed.notify_one();
                }
            }
            Some(call) = calls_in.recv() => {
                let answered = tokio::task::block_in_place(|| {
                    answer(call, &mut switch, (&mut served, &mut asks_in), &mut upgrade)
                });
                if let ControlFlow::Break(end) = answered {
                    break end;
                }
            }
        }
    };
    tokio::task::block_in_place(|| end.carry_out(switch, served, signals))
}

/// What is due every [`ROLL_CALL`].
fn call_roll(switch: &mut Switch) {
    switch.follow_namespaces();
    switch.follow_symptoms(Instant::now());
    switch.follow_peers();
    switch.follow_overlay();
    switch.follow_flannel();
    switch.answer_waiting();
    switch.show_to_viewers();
}

/// What is due every [`LOOK`].
fn look_for_containers(switch: &mut Switch) {
    switch.collect_dead();
    switch.tell_stations();
}

/// What is due every [`SURVEY`].
fn survey_world(switch: &mut Switch) {
    switch.follow_missing();
    switch.follow_underlay();
    switch.follow_bridges();
    switch.follow_lans();
    switch.follow_resolvers();
    switch.tell_stations();
    switch.note_arrivals();
    switch.follow_tables(Instant::now());
}

/// Something that is due so often. What was missed while the loop was busy is not made up for.
fn timer(every: Duration) -> Interval {
    let mut timer = interval(every);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    timer
}

fn learn_names(switch: &mut Switch, Found { names, complete }: Found) {
    // The task that asked Docker may have ended meanwhile.
    let _ = complete.send(switch.learn_names(names));
}

fn follow_links(switch: &mut Switch, mut news: AsyncFdReadyGuard<'_, OwnedFd>) {
    if !switch.follow_links() {
        news.clear_ready();
    }
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

fn answer(
    call: Call,
    switch: &mut Switch,
    (served, asks): (&mut Served, &mut mpsc::Receiver<Ask>),
    upgrade: &mut Option<Upgrade>,
) -> ControlFlow<Exit> {
    match call {
        Call::Takeover(stream) => {
            let doors = served.hold();
            // Who was let in before is answered here.
            while let Ok(ask) = asks.try_recv() {
                switch.answer_docker(ask);
            }
            return hand_over(switch, &stream, (served, doors), upgrade);
        }
        Call::Request { request: Request::Upgrade(program), peer, reply } => {
            let refusal = Upgrade::begin(upgrade, &program, peer, reply);
            switch.record_change(&Request::Upgrade(program), peer, refusal.as_ref());
        }
        Call::Request { request: request @ Request::Shutdown { keep }, peer, reply } => {
            switch.record_change(&request, peer, None);
            return ControlFlow::Break(Exit::Planned { keep, asker: Some(reply) });
        }
        Call::Request { request, peer, reply } => {
            let is_change = request.change().is_some();
            let outcome = switch.execute(request.clone()).map_err(|error| error.to_string());
            switch.record_change(&request, peer, outcome.as_ref().err());
            if is_change {
                switch.follow_overlay();
                switch.follow_flannel();
                switch.show_to_viewers();
            }
            // The client that asked may have gone away.
            let _ = reply.send(outcome);
        }
        Call::Follow { after, reply } => {
            let _ = reply.send(Ok(switch.follow_events(after)));
        }
        Call::LastDrops(reply) => {
            let _ = reply.send(switch.last_drops().map_err(|error| error.to_string()));
        }
        Call::Capture { request, reply } => {
            let _ = reply.send(switch.capture(&request).map_err(|error| error.to_string()));
        }
    }
    ControlFlow::Continue(())
}

/// SIGHUP: as `vsctl reload`, with the outcome in the log.
fn reload(switch: &mut Switch) {
    match switch.execute(Request::Reload) {
        Ok(Reply::Done(notes)) => {
            notes.iter().for_each(|note| tracing::warn!("{note}"));
            tracing::info!("reloaded {}, asked for by SIGHUP", switch.ledger.path.display());
            switch.note_change("reload", "SIGHUP");
        }
        Ok(_) => {}
        Err(error) => tracing::error!("not reloaded: {error}"),
    }
}

fn say_ready() {
    let mut stdout = std::io::stdout();
    // A closed stdout is no reason to stop switching.
    let _ = writeln!(stdout, "ready").and_then(|()| stdout.flush());
    if let Err(error) = sd_notify::notify(&[NotifyState::Ready]) {
        tracing::warn!("systemd could not be told that vswitchd is ready: {error}");
    }
}
