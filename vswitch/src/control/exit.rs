//! How the control loop ends: as it was planned, or because another vswitchd has taken over.

use std::ops::ControlFlow;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;

use sd_notify::NotifyState;

use super::Switch;
use super::doors::Served;
use super::run::Signals;
use super::server::AnswerTo;
use super::takeover::{Label, Verdict};
use super::upgrade::Upgrade;
use crate::confine::Confinement;
use crate::host::Relay;
use api::{PortName, Reply};

/// The end, as it was asked for.
pub(super) enum Exit {
    /// By a signal or a client.
    Planned { keep: bool, asker: Option<AnswerTo> },
    /// Another vswitchd goes on, and these wires lead to it from what this one sees through. The client that asked for it gets an answer.
    TakenOver(Vec<(PortName, OwnedFd)>, Option<(AnswerTo, Reply)>),
}

impl Exit {
    pub(super) fn carry_out(self, switch: Switch, mut served: Served, signals: Signals) -> Ended {
        match self {
            Self::Planned { keep, asker } => {
                let ending = Reply::Ended(switch.shut_down(keep));
                Ended { answer: asker.map(|asker| (asker, ending)), served, relays: Vec::new(), signals }
            }
            Self::TakenOver(wires, answer) => {
                let sandbox = switch.plane.sandbox.clone();
                let relays = switch.make_way(wires).into_iter().map(|relay| start_relay(relay, &sandbox)).collect();
                served.leave_files();
                Ended { answer, served, relays, signals }
            }
        }
    }
}

/// A switch that has ended, of which only the sockets are left.
pub(super) struct Ended {
    /// What the client is told that asked for it, if that was by the socket.
    answer: Option<(AnswerTo, Reply)>,
    served: Served,
    /// The threads that see sessions through for the successor.
    relays: Vec<std::io::Result<JoinHandle<std::io::Result<()>>>>,
    signals: Signals,
}

impl Ended {
    /// Waits until the last session that is seen through has ended, or this process is told to end.
    pub(super) async fn see_through(mut self) {
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
    pub(super) async fn tell(&mut self) {
        if let Some((asker, answer)) = self.answer.take() {
            // The client that asked may have gone away.
            let _ = asker.send(Ok(answer));
        }
        self.served.end().await;
    }
}

fn start_relay(relay: Relay, sandbox: &Confinement) -> std::io::Result<JoinHandle<std::io::Result<()>>> {
    let sandbox = sandbox.clone();
    std::thread::Builder::new().name("relay".to_owned()).spawn(move || relay.run(&sandbox))
}

/// Lets another vswitchd take over, if it can, and answers who asked for that.
pub(super) fn hand_over(
    switch: &mut Switch,
    stream: &UnixStream,
    (served, doors): (&mut Served, Vec<(Label, OwnedFd)>),
    upgrade: &mut Option<Upgrade>,
) -> ControlFlow<Exit> {
    match switch.hand_to(stream, doors) {
        Verdict::Taken(pid, wires) => {
            tracing::info!("process {pid} has taken over");
            if let Err(error) = sd_notify::notify(&[NotifyState::MainPid(pid)]) {
                tracing::warn!("systemd could not be told that process {pid} has taken over: {error}");
            }
            let answer = Reply::Done(vec![format!("process {pid} has taken over from process {}", std::process::id())]);
            ControlFlow::Break(Exit::TakenOver(wires, upgrade.take().map(|upgrade| (upgrade.asker, answer))))
        }
        Verdict::Kept(why) => {
            served.let_in_again();
            let sentence = format!("another vswitchd wanted to take over; this one goes on: {why}");
            tracing::warn!("{sentence}");
            // If it was the successor that is under way, it ends, and the client is told.
            if let Some(upgrade) = upgrade {
                upgrade.refused = Some(sentence);
            }
            ControlFlow::Continue(())
        }
    }
}
