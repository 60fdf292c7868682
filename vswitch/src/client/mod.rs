//! What `vsctl` is made of: a command line becomes a [`Request`], a [`Reply`] becomes text or JSON.
//!
//! Nothing is decided here. `vsctl` speaks HTTP over the control socket, as any script could; the sentences of errors are
//! vswitchd's.

mod arguments;
mod capture;
mod cluster;
mod command;
mod complete;
mod connection;
mod events;
mod extcap;
mod flannel;
mod gateway;
mod help;
mod impair;
mod options;
mod page;
mod pcap;
mod print;
mod stats;
mod stp;
mod symptoms;
mod table;
mod top;
mod trace;
mod words;

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::CommandFactory;

use api::{Reply, Request};

use arguments::Action;
pub use arguments::Arguments;
pub use complete::complete;
use connection::Control;

/// Why a command failed, in one sentence.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No vswitchd answers.
    #[error(
        "no vswitchd answers at {path}: {source}; start one with `vswitchd --config switch.toml`, or name its socket with --control"
    )]
    Unreachable {
        /// The control socket.
        path: String,
        /// What connecting said.
        source: io::Error,
    },
    /// The user may not use the socket.
    #[error("permission denied on vswitchd's socket {path}: {help}")]
    Denied {
        /// The control socket.
        path: String,
        /// For whom it is, and what would help.
        help: String,
    },
    /// The kernel took the connection, and vswitchd says nothing.
    #[error(
        "vswitchd at {path} has not answered for {seconds} s, and may still do what it was asked for: if `ps -o pid,stat -C vswitchd` says T, \
         `kill -CONT PID` lets it go on; else see its log, or wait longer with --timeout"
    )]
    Silent {
        /// The control socket.
        path: String,
        /// How long was waited.
        seconds: u64,
    },
    /// vswitchd said no.
    #[error("{0}")]
    Refused(String),
    /// The answer was cut off or is not one.
    #[error("vswitchd's answer cannot be read: {0}")]
    Answer(String),
    /// An argument cannot be one.
    #[error("{0}")]
    Argument(String),
    /// Not a filter.
    #[error(transparent)]
    Filter(#[from] crate::filter::FilterError),
    /// The capture has nowhere to go.
    #[error("cannot write {what}: {source}")]
    Write {
        /// The file or program.
        what: String,
        /// Why.
        source: io::Error,
    },
    /// The disk is full, or the like.
    #[error("cannot write {what}: {source}; it holds the {packets} packets before that, and can be read")]
    Full {
        /// The file.
        what: String,
        /// Why.
        source: io::Error,
        /// Packets in it.
        packets: u64,
    },
    /// tcpdump shows captures.
    #[error("captures are shown by tcpdump, which cannot be run ({0}): install it, or write to a file with -w FILE")]
    Tcpdump(#[source] io::Error),
    /// A lab could not be started, or is not done.
    #[error(transparent)]
    Lab(#[from] lab::LabError),
    /// The operating system refused something that every program needs.
    #[error("{0}: {1}")]
    System(&'static str, #[source] io::Error),
}

/// How long an answer may take if nothing else is said.
const PATIENCE: Duration = Duration::from_secs(60);

/// Carries out a command line.
///
/// # Errors
/// Why it could not be; nothing was printed then but, of a capture, what came before.
pub fn run(arguments: Arguments) -> Result<(), ClientError> {
    let (path, json) = (arguments.control.clone(), arguments.json);
    let patience = arguments.timeout.unwrap_or(PATIENCE);
    let action = match arguments.action()? {
        // It asks no vswitchd, and what it starts has threads of its own.
        Action::Lab(command) => return Ok(command.run(json)?),
        action => action,
    };
    // That of a watch is for its frames.
    let patience = if matches!(action, Action::Watch(_)) { PATIENCE } else { patience };
    let control = Control { path, patience };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| ClientError::System("the program's threads cannot start", error))?;
    runtime.block_on(async {
        match action {
            Action::Ask(request) => {
                let reply = control.ask(&request).await?;
                show(&reply, json)
            }
            Action::Shutdown { keep } => show(&control.shut_down(keep).await?, json),
            Action::Extcap(command) => command.run(control).await,
            Action::Capture(capture) => capture.run(control, json).await,
            Action::Stats(stats) => stats.run(control, json).await,
            Action::Top => top::run(control, json).await,
            Action::Events(events) => events.run(control, json).await,
            Action::Trace(trace) => trace.run(control, json).await,
            Action::Watch(watch) => watch.run(control, json).await,
            Action::Lab(command) => Ok(command.run(json)?),
            Action::Man(directory) => write_man(&directory),
            Action::Print(text) => print(&text).map(drop),
        }
    })
}

/// Asks vswitchd one thing, for a program that does nothing else.
///
/// # Errors
/// Why there is no answer, or why vswitchd says no.
pub fn ask(control: PathBuf, patience: Duration, request: &Request) -> Result<Reply, ClientError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| ClientError::System("the program cannot wait for an answer", error))?;
    runtime.block_on(Control { path: control, patience }.ask(request))
}

/// Writes the man pages of vsctl and of each command.
fn write_man(directory: &Path) -> Result<(), ClientError> {
    let wrong = |source| ClientError::Write { what: directory.display().to_string(), source };
    std::fs::create_dir_all(directory).map_err(wrong)?;
    clap_mangen::generate_to(Arguments::command(), directory).map_err(wrong)
}

/// Prints an answer; its notes go to stderr, so that a script's output holds nothing that was not asked for.
fn show(reply: &Reply, json: bool) -> Result<(), ClientError> {
    if let Reply::Done(notes) = reply {
        notes.iter().for_each(|note| eprintln!("{note}"));
        return Ok(());
    }
    let text = if json { print::json(reply) } else { print::text(reply) };
    print(text.as_bytes()).map(drop)
}

/// Prints to stdout, and returns whether there is still a reader.
fn print(text: &[u8]) -> Result<bool, ClientError> {
    lab::print(text).map_err(|source| ClientError::Write { what: "to stdout".to_owned(), source })
}

/// Prints what is said of a command line instead of carrying it out: help, the version, or what is wrong with it.
pub fn explain(error: &clap::Error) -> ExitCode {
    match error.print() {
        Err(failure) if !error.use_stderr() && failure.kind() != io::ErrorKind::BrokenPipe => {
            eprintln!("cannot write to stdout: {failure}");
            ExitCode::FAILURE
        }
        _ => u8::try_from(error.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from),
    }
}
