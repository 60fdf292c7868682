//! `vsctl upgrade`: the vswitchd that runs starts its successor, which then takes over as any other ([`takeover`](super::takeover)).

use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::server::AnswerTo;
use crate::http::Peer;

/// How long a program may take to say whether it takes the file, and how often it is looked.
const PATIENCE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(5);
/// No more of what it says is passed on.
const LONGEST: u64 = 16 << 10;

/// An upgrade under way.
pub(super) struct Upgrade {
    child: Child,
    /// The client that asked for it.
    pub(super) asker: AnswerTo,
}

impl Upgrade {
    /// Starts the successor, unless another is `under_way`. If that cannot be, tells the client why, and returns it.
    pub(super) fn begin(
        under_way: &mut Option<Self>,
        program: &Path,
        file: &Path,
        peer: Peer,
        asker: AnswerTo,
    ) -> Option<String> {
        let started = if !peer.is_trusted() {
            Err("a program is started for root and for the user of vswitchd only: run vsctl as one of them".to_owned())
        } else if under_way.is_some() {
            Err("an upgrade is under way: try again when it is over".to_owned())
        } else {
            start(program, file)
        };
        match started {
            Ok(child) => {
                *under_way = Some(Self { child, asker });
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
    pub(super) fn look(mut self) -> Option<Self> {
        match self.child.try_wait() {
            Ok(None) => Some(self),
            Ok(Some(status)) => {
                let sentence = format!("the new vswitchd has ended ({status}) and taken over nothing: the log says why");
                let _ = self.asker.send(Err(sentence));
                None
            }
            Err(error) => {
                let _ = self.asker.send(Err(format!("what became of the new vswitchd is not known: {error}")));
                None
            }
        }
    }
}

/// Starts a program in the place of this one, after it was asked whether it understands the file.
fn start(program: &Path, file: &Path) -> Result<Child, String> {
    ask(program, file)?;
    // What this process was told besides, it is told too.
    let mut own = std::env::args_os().skip(1);
    let mut words = Vec::new();
    while let Some(word) = own.next() {
        match word.to_str() {
            Some("--config") => drop(own.next()),
            Some(word) if word == "--takeover" || word.starts_with("--config=") => {}
            _ => words.push(word),
        }
    }
    let mut successor = Command::new(program);
    successor.arg("--config").arg(file).args(words).arg("--takeover").stdin(Stdio::null());
    // The watchdog is to be the successor's; what was passed to this process was not passed to that one.
    for name in ["WATCHDOG_PID", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"] {
        successor.env_remove(name);
    }
    successor.spawn().map_err(|error| not_started(program, &error))
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
