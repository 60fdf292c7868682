//! `vsctl upgrade`: the vswitchd that runs starts its successor, which then takes over as any other ([`takeover`](super::takeover)).

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::server::AnswerTo;
use crate::broker::{BROKER_WORD, requests};
use crate::http::Peer;

/// How long a program may take to say whether it takes the file, and how often it is looked.
const PATIENCE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(5);
/// No more of what it says is passed on.
const LONGEST: u64 = 16 << 10;

/// The successor that this process started.
static SUCCESSOR: Mutex<Option<Child>> = Mutex::new(None);
/// The only place where a process without rights may write.
static WRITABLE: OnceLock<PathBuf> = OnceLock::new();

requests! {
    /// Starts a program as the successor, which takes the file and the words that this vswitchd was started with.
    fn start_successor(program: &Path = PathBuf) -> Result<(), String>, by start;
    /// Says, before anything of others is read, below which directory no program is started. Later words change nothing.
    pub(super) fn start_none_below(state_dir: &Path = PathBuf) -> (), by set_writable;
    /// How the successor has ended, if it has.
    fn successor_ended() -> Option<String>, by ended;
}

/// An upgrade under way.
pub(super) struct Upgrade {
    /// The client that asked for it.
    pub(super) asker: AnswerTo,
}

impl Upgrade {
    /// Starts the successor, unless another is `under_way`. If that cannot be, tells the client why, and returns it.
    pub(super) fn begin(under_way: &mut Option<Self>, program: &Path, peer: Peer, asker: AnswerTo) -> Option<String> {
        let started = if !peer.is_trusted() {
            Err("a program is started for root and for the user of vswitchd only: run vsctl as one of them".to_owned())
        } else if under_way.is_some() {
            Err("an upgrade is under way: try again when it is over".to_owned())
        } else {
            start_successor(program)
        };
        match started {
            Ok(()) => {
                *under_way = Some(Self { asker });
                None
            }
            Err(why) => {
                // The client that asked may have gone away.
                let _ = asker.send(Err(why.clone()));
                Some(why)
            }
        }
    }

    /// Looks whether the successor has ended without taking over, which its client is told.
    pub(super) fn look(self) -> Option<Self> {
        match successor_ended() {
            None => Some(self),
            Some(sentence) => {
                let _ = self.asker.send(Err(sentence));
                None
            }
        }
    }
}

fn set_writable(state_dir: &Path) {
    let _ = WRITABLE.set(state_dir.to_owned());
}

fn ended() -> Option<String> {
    let mut successor = SUCCESSOR.lock().unwrap_or_else(PoisonError::into_inner);
    match successor.as_mut()?.try_wait() {
        Ok(None) => None,
        Ok(Some(status)) => Some(format!("the new vswitchd has ended ({status}) and taken over nothing: the log says why")),
        Err(error) => Some(format!("what became of the new vswitchd is not known: {error}")),
    }
}

/// Starts a program in the place of this one, after it was asked whether it understands the file.
fn start(program: &Path) -> Result<(), String> {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    if WRITABLE.get().is_some_and(|writable| real(program).starts_with(real(writable))) {
        return Err(format!("{} is in `state-dir`, where programs are not started from: put it elsewhere", program.display()));
    }
    // What this process was told besides, it is told too.
    let mut own = std::env::args_os().skip(1);
    let (mut words, mut file) = (Vec::new(), PathBuf::new());
    while let Some(word) = own.next() {
        match word.to_str() {
            Some("--config") => file = own.next().unwrap_or_default().into(),
            Some("--takeover" | BROKER_WORD) => {}
            Some(word) if word.starts_with("--config=") => file = word["--config=".len()..].into(),
            _ => words.push(word),
        }
    }
    ask(program, &file)?;
    let mut successor = Command::new(program);
    successor.arg("--config").arg(file).args(words).arg("--takeover").stdin(Stdio::null());
    // The watchdog is to be the successor's; what was passed to this process was not passed to that one.
    for name in ["WATCHDOG_PID", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"] {
        successor.env_remove(name);
    }
    let child = successor.spawn().map_err(|error| not_started(program, &error))?;
    *SUCCESSOR.lock().unwrap_or_else(PoisonError::into_inner) = Some(child);
    Ok(())
}

/// Asks a program whether it takes a file; a program that does not say so in time is ended.
fn ask(program: &Path, file: &Path) -> Result<(), String> {
    let mut asked = Command::new(program);
    asked.arg("--config").arg(file).arg("--check").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut asked = asked.spawn().map_err(|error| not_started(program, &error))?;
    let until = Instant::now() + PATIENCE;
    let status = loop {
        match asked.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if Instant::now() < until => std::thread::sleep(PAUSE),
            _ => {
                // It may have ended just now.
                let _ = asked.kill().and_then(|()| asked.wait());
                let seconds = PATIENCE.as_secs();
                return Err(format!(
                    "{} does not say within {seconds} seconds whether it takes {}",
                    program.display(),
                    file.display()
                ));
            }
        }
    };
    if status.success() {
        return Ok(());
    }
    let mut said = Vec::new();
    // What cannot be read says nothing.
    let _ = asked.stderr.take().map(|stderr| stderr.take(LONGEST).read_to_end(&mut said));
    Err(format!("{} does not take {}: {}", program.display(), file.display(), String::from_utf8_lossy(&said).trim_end()))
}

fn not_started(program: &Path, error: &std::io::Error) -> String {
    format!("{} cannot be started: {error}", program.display())
}
