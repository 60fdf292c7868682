//! The old one's side.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustix::fs::MemfdFlags;
use rustix::io::Errno;
use rustix::net::{SocketAddrUnix, sockopt};
use rustix::process::{Pid, Signal, kill_process, pidfd_send_signal};

use super::{Descriptors, FORMAT, Label, Message, PATIENCE};
use crate::broker::{Descriptor, requests};
use crate::config::StateError;
use crate::control::inventory::Vport;
use crate::control::{ControlError, Switch, Uplink};
use crate::host::{self, HostLoan, Relay};
use crate::wire;
use api::{PortKind, PortName};
use plane::device::{Inheritance, SteeringTable};
use plane::worker::Command;
use sys::{packet, tun};

/// How often and how long it is waited for `state-dir` where the other one has said that it ends.
const LOCKED: (u32, Duration) = (100, Duration::from_millis(20));

/// How a takeover ended.
#[derive(Debug)]
pub(in crate::control) enum Verdict {
    /// The process of this number goes on, and these wires lead to it from what this one sees through.
    Taken(u32, Vec<(PortName, OwnedFd)>),
    /// This one does, for this reason.
    Kept(String),
}

/// What was handed over.
#[derive(Default)]
struct Loan {
    /// Where the other one reads what the tables know.
    image: Option<File>,
    queues: Vec<Lent>,
    /// To the successor, of uplinks that have sessions to be seen through.
    wires: Vec<(PortName, OwnedFd)>,
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
        let (first, program) = (first.as_fd(), steering.program.as_fd());
        let set = if self.is_tap { tun::set_steering(first, Some(program)) } else { packet::steer_group(first, program) };
        if let Err(error) = set {
            tracing::warn!("bulk flows are not told from others any more: {error}");
        }
    }
}

impl Switch {
    /// Hands all over to the vswitchd at the other end, with the sockets in `doors`, and says who goes on. Nothing is forwarded until then.
    pub(in crate::control) fn hand_to(&mut self, stream: &UnixStream, doors: Descriptors) -> Verdict {
        if let Err(why) = self.hear_ask(stream) {
            let _ = wire::send(stream, &Message::Refused(why.clone()));
            return Verdict::Kept(why);
        }
        let mut loan = Loan::default();
        match self.see_off(stream, doors, &mut loan) {
            Ok(pid) => Verdict::Taken(pid, loan.wires),
            Err(why) => {
                self.go_on(&loan.queues);
                Verdict::Kept(why)
            }
        }
    }

    /// Returns the process that goes on instead of this one, or why this one does.
    fn see_off(&mut self, stream: &UnixStream, doors: Descriptors, loan: &mut Loan) -> Result<u32, String> {
        self.offer(stream, doors, loan).map_err(|error| end(stream, &error.to_string()))?;
        hear(stream, |message| matches!(message, Message::Ready))?;
        self.let_go(stream, loan).map_err(|error| end(stream, &error.to_string()))?;
        hear(stream, |message| matches!(message, Message::Alive))?;
        Ok(peer(stream).map_or(0, |process| process.as_raw_nonzero().get().unsigned_abs()))
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

    /// Sends all that the other one needs; `loan` is what it may change.
    fn offer(&mut self, stream: &UnixStream, mut descriptors: Descriptors, loan: &mut Loan) -> Result<(), ControlError> {
        self.lend(loan, &mut descriptors)?;
        let labels = descriptors.iter().map(|(label, _)| label.clone()).collect();
        let all: Vec<_> = descriptors.iter().map(|(_, descriptor)| descriptor.as_fd()).collect();
        let sent = wire::send(stream, &Message::Offer(labels)).and_then(|()| wire::send_descriptors(stream, &all));
        sent.map_err(ControlError::Takeover)
    }

    /// Stops, and says what is known by now.
    fn let_go(&mut self, stream: &UnixStream, loan: &mut Loan) -> Result<(), ControlError> {
        // The first one routes what the others hand over, so it is the last that stops.
        for worker in self.plane.workers.iter().rev() {
            worker.ask(Command::Pause)?;
        }
        let mut sessions = Vec::new();
        for (name, host) in self.host_uplinks() {
            sessions.push((name.clone(), host.handed_over()?));
        }
        sessions.retain(|(_, sessions)| !sessions.is_empty());
        loan.wires.retain(|(name, _)| sessions.iter().any(|(of, _)| of == name));
        let image = serde_json::to_vec(&self.image()?).map_err(io::Error::from);
        let written = image.and_then(|image| loan.image.as_mut().map_or(Ok(()), |file| file.write_all(&image)));
        written.and_then(|()| wire::send(stream, &Message::Go(sessions))).map_err(ControlError::Takeover)
    }

    fn lend(&mut self, loan: &mut Loan, descriptors: &mut Descriptors) -> Result<(), ControlError> {
        let copy = |socket: &OwnedFd| socket.try_clone().map_err(ControlError::Takeover);
        let image =
            rustix::fs::memfd_create("tables", MemfdFlags::CLOEXEC).map_err(|error| ControlError::Takeover(error.into()))?;
        descriptors.push((Label::Image, copy(&image)?));
        loan.image = Some(image.into());
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
            loan.queues.push(Lent { is_tap, queues, steering: parts.into_iter().find_map(|part| part.steering) });
        }
        let tunnels = self.plane.sockets.all().map_err(ControlError::Takeover)?;
        descriptors.extend(tunnels.into_iter().map(|socket| (Label::Socket, socket)));
        for (name, host) in self.host_uplinks() {
            let HostLoan { listeners, elders } = host.lend()?;
            descriptors.extend(listeners.into_iter().map(|socket| (Label::Socket, socket)));
            let (own, theirs) = host::wire().map_err(|error| ControlError::Takeover(error.into()))?;
            loan.wires.push((name.clone(), own));
            descriptors.push((Label::Elder { uplink: name.clone(), sessions: None }, theirs));
            for (socket, sessions) in elders {
                descriptors.push((Label::Elder { uplink: name.clone(), sessions: Some(sessions) }, socket));
            }
        }
        self.ledger.save()?;
        self.ledger.state_file.unlock();
        Ok(())
    }

    /// Goes on as if nothing had been.
    fn go_on(&mut self, lent: &[Lent]) {
        if let Err(error) = self.keep_again() {
            tracing::error!("{error}");
        }
        lent.iter().for_each(Lent::take_back);
        self.restore_stations().iter().for_each(|note| tracing::warn!("{note}"));
        for (_, host) in self.host_uplinks() {
            if let Err(error) = host.go_on(Vec::new()) {
                tracing::warn!("{error}");
            }
        }
        // Without the data plane vswitchd is about to end.
        let _ = self.plane.tell_all(|| Command::Resume);
        self.look_at_links();
    }

    /// Takes `state-dir` back from the other one, which may be about to end, and may have written something else there.
    fn keep_again(&mut self) -> Result<(), StateError> {
        // It may not have come to that.
        self.ledger.state_file.unlock();
        let (turns, pause) = LOCKED;
        for _ in 1..turns {
            if self.ledger.state_file.lock_again().is_ok() {
                return self.ledger.state_file.try_save(self.ledger.state.clone());
            }
            std::thread::sleep(pause);
        }
        self.ledger.state_file.lock_again()?;
        self.ledger.state_file.try_save(self.ledger.state.clone())
    }

    /// Ends and leaves everything to the one that has taken over, but for the sessions that are seen through by these wires.
    pub(in crate::control) fn make_way(mut self, wires: Vec<(PortName, OwnedFd)>) -> Vec<Relay> {
        self.overlay.end(false);
        self.flannel.end();
        self.plane.captures.stop_all(&self.plane.workers);
        let relay = |(name, socket)| {
            let uplink = self.inventory.find_mut::<Uplink>(&name)?;
            let (port, uplink) = (uplink.port, uplink.host.take()?);
            let device = self.plane.router().ok()?.ask(|reply| Command::Take(port, reply)).ok()??;
            Some(Relay { uplink, device, socket })
        };
        let relays = wires.into_iter().filter_map(relay).collect();
        self.inventory.clear_uplinks();
        relays
    }
}

requests! {
    /// Kills the process at the other end of a connection that came in at the socket for successors. Landlock keeps this process from that.
    fn kill_peer(socket: &Descriptor = Descriptor) -> (), by kill_here;
}

/// Waits for what the other one says. If it is not what is `expected`, says why this one goes on, and makes sure that only this one does.
fn hear(stream: &UnixStream, expected: impl Fn(&Message) -> bool) -> Result<(), String> {
    match wire::receive(stream) {
        Ok(message) if expected(&message) => Ok(()),
        Ok(Message::Failed(why)) => Err(why),
        Ok(_) => Err(end(stream, "it said something else than it should")),
        // Its number may be another process's by now.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err("it ended without a word".to_owned()),
        Err(error) => Err(end(stream, &format!("it says nothing: {error}"))),
    }
}

/// Kills what may still believe that it is to go on, for this reason.
fn end(stream: &UnixStream, why: &str) -> String {
    if let Ok(socket) = stream.as_fd().try_clone_to_owned().map(Descriptor) {
        kill_peer(&socket);
    }
    why.to_owned()
}

/// Where successors connect, in a broker.
static PLACE: OnceLock<PathBuf> = OnceLock::new();

/// Says, in a broker, at which socket the processes come in that it may kill.
pub(in crate::control) fn kill_none_but_at(place: PathBuf) {
    // Said once.
    let _ = PLACE.set(place);
}

fn kill_here(socket: &Descriptor) {
    let own = rustix::net::getsockname(&socket.0).ok().and_then(|own| SocketAddrUnix::try_from(own).ok());
    let came_in = own.as_ref().and_then(SocketAddrUnix::path_bytes).map(|bytes| Path::new(OsStr::from_bytes(bytes)));
    if PLACE.get().is_some_and(|place| came_in != Some(place)) {
        return;
    }
    // It may be gone.
    let _ = match sys::peer_process(socket.0.as_fd()) {
        Ok(process) => pidfd_send_signal(process, Signal::KILL),
        Err(Errno::NOPROTOOPT) => sockopt::socket_peercred(&socket.0).and_then(|peer| kill_process(peer.pid, Signal::KILL)),
        Err(error) => Err(error),
    };
}

/// The process at the other end (`SO_PEERCRED`, unix(7)).
fn peer(stream: &UnixStream) -> Option<Pid> {
    sockopt::socket_peercred(stream).ok().map(|peer| peer.pid)
}
