//! The processes beside vswitchd: how they are started, what they do, and how they end.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::Mutex;

use rustix::event::{PollFd, PollFlags};
use serde_json::Value;

use super::{BROKER, Envelope, Rooms, STARTER, carries_out, descriptor};
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
}

/// A process that carries out requests of this one, until either ends.
#[derive(Debug)]
pub struct Aide {
    stream: UnixStream,
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
        Ok(Self { stream, child: Some(aide.spawn()?) })
    }

    /// Has one started by who listens at `place`.
    ///
    /// # Errors
    /// No program listens there, or the place is not for this user.
    pub fn at(place: &Path) -> io::Result<Self> {
        Ok(Self { stream: UnixStream::connect(place)?, child: None })
    }

    /// Has it asked from now on for what these rooms list, or for all that takes rights.
    ///
    /// # Errors
    /// There is one for that, or no descriptor is to be had.
    pub(crate) fn ask_for(&self, rooms: Option<Rooms>) -> io::Result<()> {
        let stream = Mutex::new(self.stream.try_clone()?);
        let is_first = match rooms {
            Some(rooms) => STARTER.set((rooms, stream)).is_ok(),
            None => BROKER.set(stream).is_ok(),
        };
        if is_first { Ok(()) } else { Err(io::ErrorKind::AlreadyExists.into()) }
    }

    /// Ends this process if that one ends before it.
    ///
    /// # Errors
    /// No thread is to be had.
    pub fn end_with_it(self) -> io::Result<()> {
        let wait = move || {
            while !has_ended(&self.stream) {}
            let status = self.child.and_then(|mut child| child.wait().ok()).map(|status| format!(" ({status})"));
            tracing::error!("the process that keeps the rights has ended{}: vswitchd ends", status.unwrap_or_default());
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
    let stream = UnixStream::from(rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?);
    // What this process starts reads nothing from there.
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    let other = stream.try_clone()?;
    // A signal at the other one's end (PR_SET_PDEATHSIG) would not come: Landlock keeps that process from sending any (security_task_kill).
    std::thread::Builder::new().name("end".to_owned()).spawn(move || {
        while !has_ended(&other) {}
        std::process::exit(0);
    })?;
    serve_on(&stream, rooms)
}

/// Waits until the other side has closed its end, or for nothing.
fn has_ended(stream: &UnixStream) -> bool {
    let mut poll = [PollFd::new(stream, PollFlags::empty())];
    rustix::event::poll(&mut poll, None).is_ok() && poll.iter().any(|poll| poll.revents().contains(PollFlags::HUP))
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
