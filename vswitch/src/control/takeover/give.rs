//! The old one's side.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use rustix::fs::MemfdFlags;
use rustix::net::sockopt;
use rustix::process::{Pid, Signal, kill_process};

use super::{Descriptors, FORMAT, Label, Message, PATIENCE, wire};
use crate::control::inventory::Vport;
use crate::control::{ControlError, Switch, Uplink};
use api::PortKind;
use plane::device::{Inheritance, SteeringTable};
use plane::worker::Command;
use sys::{packet, tun};

/// How a takeover ended.
#[derive(Debug)]
pub(in crate::control) enum Outcome {
    /// The process of this number goes on.
    Taken(u32),
    /// This one does, for this reason.
    Kept(String),
}

/// The queues of a port or uplink as this process has them.
struct Lent {
    is_tap: bool,
    queues: Vec<OwnedFd>,
    steering: Option<Arc<SteeringTable>>,
}

impl Lent {
    /// Sets right what another process may have changed.
    fn take_back(&self) {
        for queue in self.queues.iter().filter(|_| self.is_tap) {
            // Those that the other did not take away are there.
            let _ = tun::attach_queue_again(queue.as_fd());
        }
        let Some((steering, first)) = self.steering.as_ref().zip(self.queues.first()) else { return };
        let (first, program) = (first.as_fd(), steering.program());
        let set = if self.is_tap { tun::set_steering(first, Some(program)) } else { packet::steer_group(first, program) };
        if let Err(error) = set {
            tracing::warn!("bulk flows are not told from others any more: {error}");
        }
    }
}

impl Switch {
    /// Hands all over to the vswitchd at the other end, with the sockets in `doors`, and says who goes on. Nothing is forwarded until then.
    pub(in crate::control) fn hand_to(&mut self, stream: &UnixStream, doors: Descriptors) -> Outcome {
        if let Err(why) = self.hear_ask(stream) {
            let _ = wire::send(stream, &Message::Refused(why.clone()));
            return Outcome::Kept(why);
        }
        let mut lent = Vec::new();
        let outcome = match self.offer(stream, doors, &mut lent) {
            Ok(()) => hear_verdict(stream),
            Err(error) => end(stream, &error.to_string()),
        };
        if let Outcome::Kept(_) = outcome {
            self.go_on(&lent);
        }
        outcome
    }

    fn hear_ask(&self, stream: &UnixStream) -> Result<(), String> {
        let waits = stream.set_read_timeout(Some(PATIENCE)).and_then(|()| stream.set_write_timeout(Some(PATIENCE)));
        let ask = match waits.and_then(|()| wire::receive(stream)) {
            Ok(Message::Ask(ask)) => ask,
            Ok(_) => return Err("it does not ask".to_owned()),
            Err(error) => return Err(format!("what it asks cannot be read: {error}")),
        };
        let (workers, state_dir) = (self.plane.workers.len(), &self.ledger.file.switch.state_dir);
        if ask.format != FORMAT {
            return Err(format!("they speak format {} and {FORMAT}: restart instead", ask.format));
        }
        if ask.workers != workers {
            return Err(format!("`workers` would be {} instead of {workers}, which takes a restart", ask.workers));
        }
        if ask.state_dir != *state_dir {
            let (new, old) = (ask.state_dir.display(), state_dir.display());
            return Err(format!("`state-dir` would be {new} instead of {old}, which takes a restart"));
        }
        Ok(())
    }

    /// Stops, and sends all that the other one needs; `lent` is what it may have changed.
    fn offer(&mut self, stream: &UnixStream, mut descriptors: Descriptors, lent: &mut Vec<Lent>) -> Result<(), ControlError> {
        for worker in &self.plane.workers {
            worker.ask(Command::Pause)?;
        }
        self.lend(lent, &mut descriptors)?;
        let labels = descriptors.iter().map(|(label, _)| label.clone()).collect();
        let all: Vec<_> = descriptors.iter().map(|(_, descriptor)| descriptor.as_fd()).collect();
        let sent = wire::send(stream, &Message::Offer(labels)).and_then(|()| wire::send_descriptors(stream, &all));
        sent.map_err(ControlError::Takeover)
    }

    fn lend(&mut self, lent: &mut Vec<Lent>, descriptors: &mut Descriptors) -> Result<(), ControlError> {
        let copy = |socket: &OwnedFd| socket.try_clone().map_err(ControlError::Takeover);
        descriptors.push((Label::Image, self.image_in_memory().map_err(ControlError::Takeover)?));
        for vport in self.inventory.vports().filter(|vport| !matches!(vport, Vport::Tunnel(_))) {
            let Some(id) = vport.id() else { continue };
            let parts = self.plane.workers.iter().map(|worker| worker.ask(|reply| Command::Duplicate(id, reply)));
            let parts: Vec<Inheritance> = parts.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect();
            let firsts = parts.iter().flat_map(|part| part.queues.iter().take(1));
            let others = parts.iter().flat_map(|part| part.queues.iter().skip(1));
            let queues: Vec<OwnedFd> = firsts.chain(others).map(copy).collect::<Result<_, _>>()?;
            for queue in &queues {
                descriptors.push((Label::Queue(vport.name().clone()), copy(queue)?));
            }
            let is_tap = matches!(vport, Vport::Port(port) if port.spec.kind == PortKind::Tap);
            lent.push(Lent { is_tap, queues, steering: parts.into_iter().find_map(|part| part.steering) });
        }
        let tunnels = self.plane.sockets.all().map_err(ControlError::Takeover)?;
        descriptors.extend(tunnels.into_iter().map(|socket| (Label::Socket, socket)));
        for host in self.inventory.all::<Uplink>().filter_map(|uplink| uplink.host.as_ref()) {
            descriptors.extend(host.lend_listeners()?.into_iter().map(|socket| (Label::Socket, socket)));
        }
        self.ledger.save()?;
        self.ledger.state_file.unlock();
        Ok(())
    }

    fn image_in_memory(&self) -> io::Result<OwnedFd> {
        let mut file = File::from(rustix::fs::memfd_create("tables", MemfdFlags::CLOEXEC)?);
        file.write_all(&serde_json::to_vec(&self.image().map_err(io::Error::other)?)?)?;
        Ok(file.into())
    }

    /// Goes on as if nothing had been.
    fn go_on(&mut self, lent: &[Lent]) {
        if let Err(error) = self.ledger.state_file.lock_again() {
            tracing::error!("{error}");
        }
        lent.iter().for_each(Lent::take_back);
        self.restore_stations().iter().for_each(|note| tracing::warn!("{note}"));
        for host in self.inventory.all::<Uplink>().filter_map(|uplink| uplink.host.as_ref()) {
            if let Err(error) = host.keep_listeners() {
                tracing::warn!("{error}");
            }
        }
        // Without the data plane vswitchd is about to end.
        let _ = self.plane.tell_all(|| Command::Resume);
        self.look_at_links();
    }

    /// Ends and leaves everything to the one that has taken over.
    pub(in crate::control) fn make_way(mut self) {
        self.overlay.end(false);
        self.plane.captures.stop_all(&self.plane.workers);
        self.inventory.clear_uplinks();
    }
}

/// Waits for what the other one says, and makes sure that only one goes on.
fn hear_verdict(stream: &UnixStream) -> Outcome {
    match wire::receive(stream) {
        Ok(Message::Alive) => Outcome::Taken(peer(stream).map_or(0, |process| process.as_raw_nonzero().get().unsigned_abs())),
        Ok(Message::Failed(why)) => Outcome::Kept(why),
        Ok(_) => end(stream, "it said something else than that it goes on"),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => end(stream, "it ended without a word"),
        Err(error) => end(stream, &format!("it did not say that it goes on: {error}")),
    }
}

/// Kills what may still believe that it is to go on.
fn end(stream: &UnixStream, why: &str) -> Outcome {
    if let Some(process) = peer(stream) {
        // It may be gone.
        let _ = kill_process(process, Signal::KILL);
    }
    Outcome::Kept(why.to_owned())
}

/// The process at the other end (`SO_PEERCRED`, unix(7)).
fn peer(stream: &UnixStream) -> Option<Pid> {
    sockopt::socket_peercred(stream).ok().map(|peer| peer.pid)
}
