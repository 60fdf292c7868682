//! The processes beside vswitchd: how they are started, what they do, and how they end.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::Mutex;

use rustix::event::{PollFd, PollFlags};
use rustix::net::sockopt;
use rustix::process::{DumpableBehavior, PidfdFlags, pidfd_open, set_dumpable_behavior};
use serde_json::Value;

use super::{BROKER, Envelope, Rooms, STARTER, Way, carries_out, descriptor};
use crate::wire;

/// What a process beside vswitchd carries out for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Duty {
    /// All that takes rights.
    Broker,
    /// It starts the successor and nothing else, where a broker that another program has started is no place for that.
    Starter,
}

impl Duty {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Broker, Self::Starter];

    /// The word by which this program is started as that.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Broker => "--broker",
            Self::Starter => "--starter",
        }
    }

    /// What the process does, in a few words.
    const fn what(self) -> &'static str {
        match self {
            Self::Broker => "the process that keeps the rights",
            Self::Starter => "the process that starts successors",
        }
    }
}

/// A process that carries out requests of this one, until either ends.
#[derive(Debug)]
pub struct Aide {
    stream: UnixStream,
    /// Who it is, for messages.
    name: String,
    /// Where this process has started it.
    child: Option<Child>,
}

impl Aide {
    /// Starts one, as this program with the words that this process was started with.
    ///
    /// # Errors
    /// No process or socket is to be had.
    pub fn start(duty: Duty) -> io::Result<Self> {
        let (stream, its) = UnixStream::pair()?;
        // What its own path leads to may be another program by now.
        let mut aide = Command::new("/proc/self/exe");
        aide.arg0("vswitchd").arg(duty.word()).args(std::env::args_os().skip(1)).stdin(OwnedFd::from(its));
        Ok(Self { stream, name: duty.what().to_owned(), child: Some(aide.spawn()?) })
    }

    /// Has a broker started by who listens at `place`.
    ///
    /// # Errors
    /// No program listens there, or the place is not for this user.
    pub fn at(place: &Path) -> io::Result<Self> {
        let place_and_log =
            format!("at {} (`journalctl -u 'vswitchd-broker@*'` says more, where that is systemd's)", place.display());
        let name = format!("{}, {place_and_log}", Duty::Broker.what());
        Ok(Self { stream: UnixStream::connect(place)?, name, child: None })
    }

    /// Has it asked from now on for what these rooms list, or for all that takes rights.
    ///
    /// # Errors
    /// There is one for that, or no descriptor is to be had.
    pub(crate) fn ask_for(&self, rooms: Option<Rooms>) -> io::Result<()> {
        let way = Way { stream: Mutex::new(self.stream.try_clone()?), name: self.name.clone() };
        let is_first = match rooms {
            Some(rooms) => STARTER.set((rooms, way)).is_ok(),
            None => BROKER.set(way).is_ok(),
        };
        if is_first { Ok(()) } else { Err(io::ErrorKind::AlreadyExists.into()) }
    }

    /// Ends this process if that one ends before it.
    ///
    /// # Errors
    /// No thread is to be had.
    pub fn end_with_it(self) -> io::Result<()> {
        let wait = move || {
            while !has_ended(&self.stream, None) {}
            let status = self.child.and_then(|mut child| child.wait().ok()).map(|status| format!(" ({status})"));
            tracing::error!("{} has ended{}: vswitchd ends", self.name, status.unwrap_or_default());
            std::process::exit(1);
        };
        std::thread::Builder::new().name("broker".to_owned()).spawn(wait).map(drop)
    }
}

/// Carries out requests of these rooms that come by standard input, until the other side ends. Then this process ends at once, whatever it is doing:
/// what is half done is found as after any crash.
///
/// # Errors
/// It says something that is no request, or no thread is to be had.
pub(crate) fn serve(rooms: Rooms) -> io::Result<()> {
    // What runs as the same user without rights may not write into its memory.
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    let stream = UnixStream::from(rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?);
    // What this process starts reads nothing from there.
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    let other = stream.try_clone()?;
    // The other one may have left its end to a process that keeps it open, such as one that holds descriptors for others.
    let process = sys::peer_process(other.as_fd()).or_else(|_| {
        let peer = sockopt::socket_peercred(&other)?.pid;
        pidfd_open(peer, PidfdFlags::empty())
    });
    let process = process.ok();
    // A signal at the other one's end (PR_SET_PDEATHSIG) would not come: Landlock keeps that process from sending any (security_task_kill).
    std::thread::Builder::new().name("end".to_owned()).spawn(move || {
        while !has_ended(&other, process.as_ref()) {}
        std::process::exit(0);
    })?;
    serve_on(&stream, rooms)
}

/// Waits until the other side has closed its end or its process has ended, or for nothing.
fn has_ended(stream: &UnixStream, process: Option<&OwnedFd>) -> bool {
    let stream = PollFd::new(stream, PollFlags::empty());
    let process = process.map(|process| PollFd::new(process, PollFlags::IN));
    let mut poll: Vec<PollFd<'_>> = [stream].into_iter().chain(process).collect();
    let end = PollFlags::HUP | PollFlags::IN;
    rustix::event::poll(&mut poll, None).is_ok() && poll.iter().any(|poll| poll.revents().intersects(end))
}

pub(super) fn serve_on(stream: &UnixStream, rooms: Rooms) -> io::Result<()> {
    loop {
        let (name, arguments, count): Envelope = match wire::receive(stream) {
            // It may have been killed before it read the last outcome.
            Err(error) if matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset) => {
                return Ok(());
            }
            received => received?,
        };
        let descriptors = match wire::receive_descriptors(stream, count) {
            Err(error) if error.kind() == io::ErrorKind::QuotaExceeded => {
                descriptor::send(stream, &(Err::<Value, _>(error.to_string()), 0), &[])?;
                continue;
            }
            received => received?,
        };
        let carry_out = carries_out(rooms, &name).ok_or_else(|| io::Error::other(format!("there is no request \"{name}\"")))?;
        let (outcome, descriptors) = descriptor::collect(|| descriptor::with(descriptors, || carry_out(arguments)));
        let outcome = outcome?.map_err(|error| error.to_string());
        descriptor::send(stream, &(outcome, descriptors.len()), &descriptors)?;
    }
}
