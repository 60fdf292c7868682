//! The life of a vswitchd: start, serve, end.

use std::io::Write;
use std::ops::ControlFlow;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit};
use sd_notify::NotifyState;
use tokio::io::unix::{AsyncFd, AsyncFdReadyGuard};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use super::doors::{Doors, Served};
use super::handover::Handover;
use super::server::{AnswerTo, Call};
use super::takeover::{Label, Outcome, Takeover, TakeoverError};
use super::upgrade::Upgrade;
use super::workers::{self, DataPlane};
use super::{ControlError, Log, Start, Switch};
use crate::config;
use crate::confine::{Confinement, ConfinementError};
use crate::docker::daemon::Found;
use crate::host::Relay;
use crate::overlay;
use crate::services::Output;
use crate::stp::StpNews;
use api::{PortName, Reply, Request};
use plane::datapath::{Punt, Tickets};
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

/// Requests that may wait while one is carried out.
const CALLS: usize = 64;
/// Frames to the services and from them that may wait. One that finds no room is lost, as on a wire; to the services there is room for all
/// that have a ticket.
const FRAMES: usize = Tickets::MOST;
/// How often the control loop looks at the underlay of tunnels and at the host's bridges and addresses, of which no events tell everything.
const SURVEY: Duration = Duration::from_secs(2);
/// How often the control loop looks whether the namespaces of ports are still those that they were.
const ROLL_CALL: Duration = Duration::from_millis(400);
/// How often the control loop looks whether containers are still there.
const LOOK: Duration = Duration::from_secs(30);

/// How to run.
#[derive(Clone, Copy, Debug)]
pub struct RunMode {
    /// With threads in a [`Confinement`].
    pub confined: bool,
    /// In the place of the vswitchd that runs, which hands all over.
    pub takeover: bool,
}

/// Runs the switch that the file at `path` describes, until SIGTERM, SIGINT or `vsctl shutdown`, or until another takes over.
///
/// # Errors
/// Why it could not start; nothing that it made stays then.
pub fn run(path: &Path, log: Log, mode: RunMode) -> Result<(), RunError> {
    let config = config::load(path).map_err(ControlError::File)?;
    workers::check_threads(config.switch.workers).map_err(|(count, error)| RunError::Threads(count, error))?;
    raise_descriptor_limit();
    let sandbox = if mode.confined { Confinement::on(&config.switch.state_dir)? } else { Confinement::off() };
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
            let (handover, passed) = Handover::sort(activation::passed());
            (None, handover, passed)
        };
        let (trees, overlay) = (voices.trees.clone(), voices.overlay.clone());
        let output = Box::new(move |output| voices.say(output));
        // What finds no room is missed by those who read events, and nothing else.
        let trees: (_, Box<dyn FnMut(StpNews) + Send>) = (bpdus, Box::new(move |news| drop(trees.try_send(news))));
        let (path, workers) = (path.to_owned(), plane.handles.clone());
        let built = tokio::task::block_in_place(|| {
            let doors = Doors::open(&config, passed, &handover.inherited)?;
            let start = Start { path, config, workers, sandbox: sandbox.clone(), handover, log, output, trees, overlay };
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
fn raise_descriptor_limit() {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    // It fails only for more than the maximum.
    let _ = rustix::process::setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

/// A switch that has ended, of which only the sockets are left.
struct Ended {
    /// What the client is told that asked for it, if that was by the socket.
    answer: Option<(AnswerTo, Reply)>,
    served: Served,
    /// The threads that see sessions through for the successor.
    relays: Vec<std::io::Result<JoinHandle<std::io::Result<()>>>>,
    signals: Signals,
}

impl Ended {
    /// Waits until the last session that is seen through has ended, or this process is told to end.
    async fn see_through(mut self) {
        if self.relays.is_empty() {
            return;
        }
        tracing::info!("the connections of its uplinks by the host's sockets go on here, until the last has ended");
        let relays = self.relays;
        let over = tokio::task::spawn_blocking(|| {
            for relay in relays {
                let outcome = relay.and_then(|relay| relay.join().unwrap_or(Ok(())));
                outcome.unwrap_or_else(|error| tracing::warn!("connections are cut: {error}"));
            }
        });
        tokio::select! {
            _ = over => {}
            _ = self.signals.term.recv() => {}
            _ = self.signals.int.recv() => {}
        }
    }

    /// Answers the client that asked for the end, when all else is over, and closes the sockets.
    async fn tell(&mut self) {
        if let Some((asker, answer)) = self.answer.take() {
            // The client that asked may have gone away.
            let _ = asker.send(Ok(answer));
        }
        self.served.end().await;
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

/// How workers and services reach the control side without ever waiting. What stations can cause as often as they like finds room in a bounded
/// queue or is lost. What they cannot has a queue without bounds, so that none of it is lost: a device goes once, leases change rarely, and
/// what is told of addresses is told twice a second at most.
#[derive(Clone)]
pub(super) struct Voices {
    punts: mpsc::Sender<Event>,
    gone: mpsc::UnboundedSender<Event>,
    said: mpsc::Sender<Output>,
    changed: mpsc::UnboundedSender<Output>,
    /// To the thread that speaks for spanning trees, past the control side.
    bpdus: crossbeam_channel::Sender<Punt>,
    trees: mpsc::Sender<StpNews>,
    overlay: mpsc::UnboundedSender<overlay::OverlayNews>,
}

/// The control side's end of it.
struct Heard {
    punts: mpsc::Receiver<Event>,
    gone: mpsc::UnboundedReceiver<Event>,
    said: mpsc::Receiver<Output>,
    changed: mpsc::UnboundedReceiver<Output>,
    trees: mpsc::Receiver<StpNews>,
    overlay: mpsc::UnboundedReceiver<overlay::OverlayNews>,
}

/// `workers` is how many of them punt BPDUs, each by tickets of its own.
fn channels(workers: usize) -> (Voices, Heard, crossbeam_channel::Receiver<Punt>) {
    let ((punts, punts_in), (said, said_in)) = (mpsc::channel(FRAMES), mpsc::channel(FRAMES));
    let ((gone, gone_in), (changed, changed_in)) = (mpsc::unbounded_channel(), mpsc::unbounded_channel());
    let ((trees, trees_in), (bpdus, bpdus_in)) = (mpsc::channel(FRAMES), crossbeam_channel::bounded(FRAMES * workers));
    let (overlay, overlay_in) = mpsc::unbounded_channel();
    let heard =
        Heard { punts: punts_in, gone: gone_in, said: said_in, changed: changed_in, trees: trees_in, overlay: overlay_in };
    (Voices { punts, gone, said, changed, bpdus, trees, overlay }, heard, bpdus_in)
}

impl Voices {
    /// What a worker tells. At the end the control side does not listen any more.
    pub(super) fn notify(&self, event: Event) {
        match event {
            Event::Punt(_) => drop(self.punts.try_send(event)),
            Event::Bpdu(punt) => drop(self.bpdus.try_send(punt)),
            Event::DeviceGone(_)
            | Event::PacketTooBig(_)
            | Event::Held(..)
            | Event::Macs(..)
            | Event::Incident(_)
            | Event::Sessions => drop(self.gone.send(event)),
        }
    }

    /// What the services say.
    fn say(&self, output: Output) {
        match output {
            Output::Changed(..) | Output::Leases(_) | Output::Usage(_) => drop(self.changed.send(output)),
            output => drop(self.said.try_send(output)),
        }
    }
}

/// Answers requests until the end is asked for, then removes what was made.
async fn serve(mut switch: Switch, (doors, sandbox): (Doors, Confinement), mut heard: Heard, mut signals: Signals) -> Ended {
    let ((calls, mut calls_in), (asks, mut asks_in)) = (mpsc::channel(CALLS), mpsc::channel(CALLS));
    let (found, mut found_in) = mpsc::channel(1);
    switch.show_to_viewers();
    let relay_sandbox = sandbox.clone();
    let mut served = doors.serve(calls, asks, found, (switch.board(), sandbox));
    let (mut look, mut survey, mut roll_call) = (interval(LOOK), interval(SURVEY), interval(ROLL_CALL));
    let watched = switch.watchdog_interval();
    let mut feed = interval(watched.unwrap_or(LOOK));
    for timer in [&mut survey, &mut roll_call, &mut feed] {
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    }
    let links = switch.link_news().and_then(|socket| netlink::readable(socket).ok());
    say_ready();
    let mut upgrade = None;
    let by_signal = End::Planned { keep: false, asker: None };
    let end = loop {
        tokio::select! {
            _ = signals.term.recv() => break by_signal,
            _ = signals.int.recv() => break by_signal,
            _ = signals.hup.recv() => {
                tokio::task::block_in_place(|| reload(&mut switch));
                served.mend();
            }
            _ = feed.tick(), if watched.is_some() => switch.feed_watchdog(),
            Some(event) = heard.gone.recv() => tokio::task::block_in_place(|| switch.note(event)),
            Some(event) = heard.punts.recv() => switch.note(event),
            Some(output) = heard.changed.recv() => tokio::task::block_in_place(|| switch.speak(output)),
            Some(news) = heard.trees.recv() => switch.note_tree(news),
            Some(heard) = heard.overlay.recv() => tokio::task::block_in_place(|| switch.hear_overlay(heard)),
            Some(output) = heard.said.recv() => tokio::task::block_in_place(|| switch.speak(output)),
            mut news = readable(links.as_ref()) => {
                if !tokio::task::block_in_place(|| switch.follow_links()) {
                    news.clear_ready();
                }
            }
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
            // The caller may have given up meanwhile.
            Some(Found { names, complete }) = found_in.recv() => drop(complete.send(switch.learn_names(names))),
            Some(ask) = asks_in.recv() => {
                tokio::task::block_in_place(|| switch.answer_docker(ask));
                if switch.lacks_names() {
                    served.unnamed.notify_one();
                }
            }
            Some(call) = calls_in.recv() => {
                let answered = tokio::task::block_in_place(|| match call {
                    Call::Takeover(stream) => {
                        let doors = served.hold();
                        // Who was let in before is answered here.
                        while let Ok(ask) = asks_in.try_recv() {
                            switch.answer_docker(ask);
                        }
                        hand_over(&mut switch, &stream, (&mut served, doors), upgrade.take())
                    }
                    Call::Request { request: Request::Upgrade(program), peer, reply } => {
                        let begun = Upgrade::begin(&mut upgrade, &program, &switch, peer, reply).map_err(|(why, asker)| {
                            // The client that asked may have gone away.
                            let _ = asker.send(Err(why.clone()));
                            why
                        });
                        switch.record_change(&Request::Upgrade(program), peer, begun.as_ref().err());
                        ControlFlow::Continue(())
                    }
                    call => answer(&mut switch, call),
                });
                if let ControlFlow::Break(end) = answered {
                    break end;
                }
            }
        }
    };
    tokio::task::block_in_place(|| match end {
        End::Planned { keep, asker } => {
            let ending = Reply::Ended(switch.shut_down(keep));
            Ended { answer: asker.map(|asker| (asker, ending)), served, relays: Vec::new(), signals }
        }
        End::TakenOver(wires, answer) => {
            let relays = switch.make_way(wires).into_iter().map(|relay| start_relay(relay, &relay_sandbox)).collect();
            served.leave_files();
            Ended { answer, served, relays, signals }
        }
    })
}

fn start_relay(relay: Relay, sandbox: &Confinement) -> std::io::Result<JoinHandle<std::io::Result<()>>> {
    let sandbox = sandbox.clone();
    std::thread::Builder::new().name("relay".to_owned()).spawn(move || relay.run(&sandbox))
}

/// Lets another vswitchd take over, if it can, and answers who asked for that.
fn hand_over(
    switch: &mut Switch,
    stream: &UnixStream,
    (served, doors): (&mut Served, Vec<(Label, OwnedFd)>),
    upgrade: Option<Upgrade>,
) -> ControlFlow<End> {
    match switch.hand_to(stream, doors) {
        Outcome::Taken(pid, wires) => {
            tracing::info!("process {pid} has taken over");
            if let Err(error) = sd_notify::notify(&[NotifyState::MainPid(pid)]) {
                tracing::warn!("systemd could not be told that process {pid} has taken over: {error}");
            }
            let answer = Reply::Done(vec![format!("process {pid} has taken over from process {}", std::process::id())]);
            ControlFlow::Break(End::TakenOver(wires, upgrade.map(|upgrade| (upgrade.asker, answer))))
        }
        Outcome::Kept(why) => {
            served.let_in_again();
            let sentence = format!("another vswitchd wanted to take over; this one goes on: {why}");
            tracing::warn!("{sentence}");
            // The client that asked may have gone away.
            let _ = upgrade.map(|upgrade| upgrade.asker.send(Err(sentence)));
            ControlFlow::Continue(())
        }
    }
}

/// What is due every [`ROLL_CALL`].
fn call_roll(switch: &mut Switch) {
    switch.follow_namespaces();
    switch.follow_symptoms(Instant::now());
    switch.follow_peers();
    switch.follow_overlay();
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

/// Waits until the kernel says something about links.
async fn readable(links: Option<&AsyncFd<OwnedFd>>) -> AsyncFdReadyGuard<'_, OwnedFd> {
    if let Some(links) = links
        && let Ok(guard) = links.readable().await
    {
        return guard;
    }
    std::future::pending().await
}

/// The end, as it was asked for.
enum End {
    /// By a signal or a client.
    Planned { keep: bool, asker: Option<AnswerTo> },
    /// Another vswitchd goes on, and these wires lead to it from what this one sees through. The client that asked for it gets an answer.
    TakenOver(Vec<(PortName, OwnedFd)>, Option<(AnswerTo, Reply)>),
}

fn answer(switch: &mut Switch, call: Call) -> ControlFlow<End> {
    match call {
        Call::Request { request: request @ Request::Shutdown { keep }, peer, reply } => {
            switch.record_change(&request, peer, None);
            return ControlFlow::Break(End::Planned { keep, asker: Some(reply) });
        }
        Call::Request { request, peer, reply } => {
            let is_change = request.change().is_some();
            let outcome = switch.execute(request.clone()).map_err(|error| error.to_string());
            switch.record_change(&request, peer, outcome.as_ref().err());
            if is_change {
                switch.follow_overlay();
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
        // It is answered where the sockets are.
        Call::Takeover(_) => {}
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
            tracing::info!("reloaded {}, asked for by SIGHUP", switch.path().display());
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::services::client;
    use plane::datapath::Ticket;
    use plane::datapath::{BridgeId, PortId};

    #[test]
    fn a_flood_of_frames_for_the_services_hides_no_lease_and_no_lost_device() {
        let (voices, mut heard, _bpdus) = channels(1);
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
