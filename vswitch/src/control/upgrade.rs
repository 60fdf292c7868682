//! `vsctl upgrade`: the vswitchd that runs starts its successor, which then takes over as any other ([`takeover`](super::takeover)).

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::MemfdFlags;
use serde::{Deserialize, Serialize};

use super::server::AnswerTo;
use crate::broker::{Duty, requests};
use crate::http::Peer;

/// How long a program may take to say whether it takes the file.
const PATIENCE: Duration = Duration::from_secs(5);
/// What stands in every vswitchd: its help begins so. No other program is started, for many do what files in the asker's reach say.
const KNOWN_BY: &[u8] = b"A userspace virtual switch for containers, namespaces and VMs";
/// No program is larger.
const LARGEST: u64 = 1 << 30;
/// No more of what it says is passed on.
const LONGEST: u64 = 16 << 10;

/// The successor that this process starts.
static SUCCESSOR: Mutex<Option<Successor>> = Mutex::new(None);
/// Where a process without rights may write, and as which user, if not this one's. No program is started from there, nor one of that user's.
static WRITABLE: OnceLock<(PathBuf, Option<u32>)> = OnceLock::new();

requests! {
    /// Asks a program whether it takes the file that this vswitchd was started with. If so it is started as the successor, with the other words of this one.
    fn start_successor(program: &Path = PathBuf) -> Result<(), NotStarted>, by ask;
    /// Starts the program that was asked, once it has said yes; if there is no successor to come any more, the outcome is why. The control loop calls
    /// it at every `ROLL_CALL`.
    fn look_at_successor() -> Option<String>, by look;
}

/// Why a program is not started.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct NotStarted(String);

impl From<io::Error> for NotStarted {
    fn from(error: io::Error) -> Self {
        Self(error.to_string())
    }
}

/// A program that may become the successor.
enum Successor {
    /// It is asked whether it takes the file, until then. What it says of that is in the file.
    Asked(Child, File, PathBuf, Instant),
    Started(Child),
}

/// An upgrade under way.
pub(super) struct Upgrade {
    /// The client that asked for it.
    pub(super) asker: AnswerTo,
    /// Why something that came to take over did not; it may have been another than the one that is under way.
    pub(super) refused: Option<String>,
}

impl Upgrade {
    /// Starts the successor, unless another is `under_way`. If that cannot be, tells the client why, and returns it.
    pub(super) fn begin(under_way: &mut Option<Self>, program: &Path, peer: Peer, asker: AnswerTo) -> Option<String> {
        let started = if !peer.is_trusted() {
            Err("a program is started for root and for the user of vswitchd only: run vsctl as one of them".to_owned())
        } else if under_way.is_some() {
            Err("an upgrade is under way: try again when it is over".to_owned())
        } else {
            start_successor(program).map_err(|refusal| refusal.0)
        };
        match started {
            Ok(()) => {
                *under_way = Some(Self { asker, refused: None });
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
        match look_at_successor() {
            None => Some(self),
            Some(sentence) => {
                let _ = self.asker.send(Err(self.refused.unwrap_or(sentence)));
                None
            }
        }
    }
}

/// Says, in a broker, where a process without rights may write, and as which user, if not this one's.
pub(super) fn start_none_below(writable: PathBuf, user: Option<u32>) {
    // Said once.
    let _ = WRITABLE.set((writable, user));
}

/// The words that this process was started with and its successor gets, and the file among them.
fn own_words() -> (PathBuf, Vec<OsString>) {
    let mut own = std::env::args_os().skip(1);
    let (mut words, mut file) = (Vec::new(), PathBuf::new());
    while let Some(word) = own.next() {
        match word.to_str() {
            Some("--config") => file = own.next().unwrap_or_default().into(),
            Some("--takeover") => {}
            Some(word) if Duty::ALL.iter().any(|duty| duty.word() == word) => {}
            Some(word) if word.starts_with("--config=") => file = word["--config=".len()..].into(),
            _ => words.push(word),
        }
    }
    (file, words)
}

/// Where a program really is, if a process without rights cannot have put it there.
fn trusted(program: &Path) -> Result<PathBuf, String> {
    let real = program.canonicalize().map_err(|error| not_started(program, &error))?;
    let file = real.metadata().map_err(|error| not_started(program, &error))?;
    let (writable, user) = WRITABLE.get().map_or((None, None), |(writable, user)| (writable.canonicalize().ok(), *user));
    let user = user.unwrap_or(rustix::process::geteuid().as_raw());
    // Links below /proc lead to files that have no name any more, and a user's own files may be those of its other process.
    let is_strange = real.starts_with("/proc") || !file.is_file() || user != 0 && file.uid() == user;
    if is_strange || writable.is_some_and(|writable| real.starts_with(writable)) {
        return Err(format!(
            "{} is not started, for this vswitchd itself may have written it: put it where only others may, such as /usr/local/bin",
            program.display()
        ));
    }
    if !is_vswitchd(&real).map_err(|error| not_started(program, &error))? {
        return Err(format!("{} is not started: it is no vswitchd", program.display()));
    }
    Ok(real)
}

fn is_vswitchd(program: &Path) -> io::Result<bool> {
    let mut bytes = Vec::new();
    File::open(program)?.take(LARGEST).read_to_end(&mut bytes)?;
    Ok(bytes.windows(KNOWN_BY.len()).any(|part| part == KNOWN_BY))
}

fn ask(program: &Path) -> Result<(), NotStarted> {
    let program = trusted(program).map_err(NotStarted)?;
    let mut asked = Command::new(&program);
    let (file, words) = own_words();
    // By them it may find who reads a file that is for those with rights.
    asked.arg("--config").arg(file).args(words).arg("--check");
    // However much it says, it does not wait; and however long others have the file open, it can be read.
    let said = File::from(rustix::fs::memfd_create("said", MemfdFlags::CLOEXEC).map_err(std::io::Error::from)?);
    asked.stdin(Stdio::null()).stdout(Stdio::null()).stderr(said.try_clone()?);
    let asked = asked.spawn().map_err(|error| NotStarted(not_started(&program, &error)))?;
    set_successor(Some(Successor::Asked(asked, said, program, Instant::now() + PATIENCE)));
    Ok(())
}

/// Takes note of a successor, and ends one that was asked before and has not said anything.
fn set_successor(successor: Option<Successor>) {
    let before = std::mem::replace(&mut *SUCCESSOR.lock().unwrap_or_else(PoisonError::into_inner), successor);
    if let Some(Successor::Asked(mut child, ..)) = before {
        // It may have ended just now.
        let _ = child.kill().and_then(|()| child.wait());
    }
}

fn look() -> Option<String> {
    let mut successor = SUCCESSOR.lock().unwrap_or_else(PoisonError::into_inner);
    let over = match successor.as_mut()? {
        Successor::Started(child) => match child.try_wait() {
            Ok(None) => None,
            Ok(Some(status)) => Some(format!("the new vswitchd has ended ({status}) and taken over nothing: the log says why")),
            Err(error) => Some(format!("what became of the new vswitchd is not known: {error}")),
        },
        Successor::Asked(child, said, program, until) => match child.try_wait() {
            Ok(None) if Instant::now() < *until => None,
            Ok(Some(status)) if status.success() => match start(program) {
                Ok(child) => {
                    *successor = Some(Successor::Started(child));
                    None
                }
                Err(why) => Some(why),
            },
            Ok(Some(_)) => Some(does_not_take(program, said)),
            _ => {
                let _ = child.kill().and_then(|()| child.wait());
                let (seconds, file) = (PATIENCE.as_secs(), own_words().0);
                let (program, file) = (program.display(), file.display());
                Some(format!("{program} does not say within {seconds} seconds whether it takes {file}"))
            }
        },
    };
    if over.is_some() {
        *successor = None;
    }
    over
}

fn does_not_take(program: &Path, file: &mut File) -> String {
    let mut said = Vec::new();
    // What cannot be read says nothing.
    let _ = file.rewind().and_then(|()| file.take(LONGEST).read_to_end(&mut said));
    let file = own_words().0;
    format!("{} does not take {}: {}", program.display(), file.display(), String::from_utf8_lossy(&said).trim_end())
}

/// Starts a program in the place of this one.
fn start(program: &Path) -> Result<Child, String> {
    let (file, words) = own_words();
    let mut successor = Command::new(program);
    successor.arg("--config").arg(file).args(words).arg("--takeover").stdin(Stdio::null());
    // The watchdog is to be the successor's; what was passed to this process was not passed to that one.
    for name in ["WATCHDOG_PID", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"] {
        successor.env_remove(name);
    }
    successor.spawn().map_err(|error| not_started(program, &error))
}

fn not_started(program: &Path, error: &std::io::Error) -> String {
    format!("{} cannot be started: {error}", program.display())
}
