//! The broker's process: how it is started, what it does, and how it ends.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::sync::Mutex;

use rustix::event::{PollFd, PollFlags};
use serde_json::Value;

use super::{BROKER, Envelope, Handler, descriptor};
use crate::wire;

/// The word by which this program is started as a broker.
pub const BROKER_WORD: &str = "--broker";

/// The broker of this process.
#[derive(Debug)]
pub struct Broker(Child);

impl Broker {
    /// Starts the broker, as this program with the words that this process was started with, and has it asked from now on.
    ///
    /// # Errors
    /// No process or socket is to be had.
    pub fn start() -> io::Result<Self> {
        let (ours, its) = UnixStream::pair()?;
        // What its own path leads to may be another program by now.
        let mut broker = Command::new("/proc/self/exe");
        let child =
            broker.arg0("vswitchd").arg(BROKER_WORD).args(std::env::args_os().skip(1)).stdin(OwnedFd::from(its)).spawn()?;
        BROKER.set(Mutex::new(ours)).map_err(|_| io::ErrorKind::AlreadyExists)?;
        Ok(Self(child))
    }

    /// Ends this process if the broker ends before it.
    ///
    /// # Errors
    /// No thread is to be had.
    pub fn end_with_it(mut self) -> io::Result<()> {
        let wait = move || {
            let status = self.0.wait();
            let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
            tracing::error!("the process that keeps the rights has ended ({status}): vswitchd ends");
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
pub(crate) fn serve(rooms: &[&[(&str, Handler)]]) -> io::Result<()> {
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

pub(super) fn serve_on(stream: &UnixStream, rooms: &[&[(&str, Handler)]]) -> io::Result<()> {
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
        let handler = rooms.iter().copied().flatten().find(|(known, _)| *known == name);
        let (_, carry_out) = handler.ok_or_else(|| io::Error::other(format!("there is no request \"{name}\"")))?;
        let (outcome, descriptors) = descriptor::collect(|| descriptor::with(descriptors, || carry_out(arguments)));
        let outcome = outcome?.map_err(|error| error.to_string());
        descriptor::send(stream, &(outcome, descriptors.len()), &descriptors)?;
    }
}
