//! The directory of a user's labs: one that runs, and what was reached in those that ran.
//!
//! ```text
//! run/            the lab that runs; made by `start`, removed by `stop`
//!   lab.toml lab.md meta.json progress.json guide.html
//!   keeper inner ready failed what the keeper tells;  parent relay  two more processes
//!   hosts/NAME/               a host's own directory;  holders/NAME  its process;  etc/NAME/  its files in /etc
//!   switch/ switch-HOST/      a switch: switch.toml, control.sock, state/
//!   log/
//! results/        a report for each lab and seed
//! host-run/       where the lab sees the host's /run; empty outside. Never emptied by a command, which might be inside.
//! lock
//! ```

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::file::{HostName, Lab, Source, read};
use crate::{During, LabError};

/// What a command line may name another directory by.
pub(crate) const VARIABLE: &str = "VSWITCH_LAB_DIR";
/// What is set for all that runs inside of a lab.
pub(crate) const INSIDE: &str = "VSWITCH_LAB_INSIDE";

/// A user's labs.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    root: PathBuf,
}

/// What is known of a lab that runs, beside its file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Meta {
    pub(crate) name: String,
    /// As the lab's problems call its file.
    pub(crate) file: String,
    pub(crate) seed: String,
    /// Whether its users are its own, as it was not root that started it.
    pub(crate) rootless: bool,
    pub(crate) way_out: bool,
    /// The page of the web view.
    pub(crate) page: Option<String>,
}

/// A process, told from a later one of the same number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    /// In ticks since the host's start, as in /proc/PID/stat.
    born: u64,
    /// Which of the host's starts that was.
    #[serde(default)]
    boot: String,
}

/// How long a process may take to be gone once it is killed: one that waits for a disk takes its time.
const DYING: std::time::Duration = std::time::Duration::from_secs(10);

impl Process {
    /// The process of a number, if it runs.
    pub(crate) fn of(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The second field is a name in brackets, which may hold spaces.
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
        let is_dead = matches!(fields.next()?, "Z" | "X");
        let born = fields.nth(18)?.parse().ok()?;
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned();
        (!is_dead).then_some(Self { pid, born, boot })
    }

    pub(crate) fn runs(&self) -> bool {
        // An earlier vsctl did not write down which start of the host it was.
        let is_same = |now: Self| now.born == self.born && (self.boot.is_empty() || now.boot == self.boot);
        Self::of(self.pid).is_some_and(is_same)
    }

    /// Kills it, and waits until it is gone.
    ///
    /// # Errors
    /// It does not go, or may not be killed.
    pub(crate) fn kill(&self) -> Result<(), LabError> {
        use nix::sys::signal::{Signal, kill};
        let (end, mut last) = (std::time::Instant::now() + DYING, Ok(()));
        while self.runs() {
            if std::time::Instant::now() > end {
                let why = last.err().map_or_else(String::new, |errno: nix::Error| format!(" ({})", errno.desc()));
                let sentence = format!("process {} of the lab was killed and does not end{why}: try it again later", self.pid);
                return Err(LabError::Refused(sentence));
            }
            // It may have ended just now.
            last = kill(nix::unistd::Pid::from_raw(self.pid), Signal::SIGKILL);
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        Ok(())
    }
}

impl Place {
    /// That of the user.
    pub(crate) fn of_user() -> Result<Self, LabError> {
        let named = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let root = named(VARIABLE)
            .or_else(|| named("XDG_STATE_HOME").map(|home| home.join("vswitch/lab")))
            .or_else(|| named("HOME").map(|home| home.join(".local/state/vswitch/lab")))
            .ok_or_else(|| LabError::refused(format!("there is no HOME to keep a lab in: set {VARIABLE} to a directory")))?;
        let root = std::path::absolute(&root).during(|| format!("{} is no directory", root.display()))?;
        // Sockets in it have names of 107 bytes at most (unix(7)).
        if root.as_os_str().len() > 60 {
            return Err(LabError::refused(format!(
                "{} is too long for the sockets in it: set {VARIABLE} to a shorter one",
                root.display()
            )));
        }
        let place = Self { root };
        make(&place.root)?;
        Ok(place)
    }

    /// Another one, for a lab beside the user's own.
    pub(crate) fn at(root: PathBuf) -> Result<Self, LabError> {
        make(&root)?;
        Ok(Self { root })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn run(&self) -> PathBuf {
        self.root.join("run")
    }

    pub(crate) fn results(&self) -> PathBuf {
        self.root.join("results")
    }

    pub(crate) fn host_run(&self) -> PathBuf {
        self.root.join("host-run")
    }

    pub(crate) fn in_run(&self, name: &str) -> PathBuf {
        self.run().join(name)
    }

    pub(crate) fn home(&self, host: &HostName) -> PathBuf {
        self.in_run("hosts").join(host.as_str())
    }

    pub(crate) fn holder(&self, host: &HostName) -> PathBuf {
        self.in_run("holders").join(host.as_str())
    }

    pub(crate) fn etc(&self, host: &HostName) -> PathBuf {
        self.in_run("etc").join(host.as_str())
    }

    /// The keeper's number in the lab's /proc.
    pub(crate) fn inner(&self) -> PathBuf {
        self.in_run("inner")
    }

    /// Of the lab's own switch, or of one that runs in a host.
    pub(crate) fn switch(&self, host: Option<&HostName>) -> PathBuf {
        self.in_run(&host.map_or_else(|| "switch".to_owned(), |host| format!("switch-{host}")))
    }

    /// The control socket of the switch that is next to a host.
    pub(crate) fn control(&self, host: Option<&HostName>) -> PathBuf {
        let own = host.filter(|host| self.switch(Some(host)).exists());
        self.switch(own).join("control.sock")
    }

    /// Keeps other commands from changing what runs, until it is dropped.
    pub(crate) fn lock(&self) -> Result<File, LabError> {
        let path = self.root.join("lock");
        let what = || format!("{} cannot be locked", path.display());
        let file = File::options().create(true).append(true).open(&path).during(what)?;
        rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).map_err(|error| match error {
            rustix::io::Errno::WOULDBLOCK => LabError::refused("another `vsctl lab` is at work here: wait until it has ended"),
            other => LabError::System(what(), other.into()),
        })?;
        Ok(file)
    }

    /// The process that holds the lab, if it runs.
    pub(crate) fn keeper(&self) -> Option<Process> {
        self.load::<Process>("keeper").ok().flatten().filter(Process::runs)
    }

    /// Whether the lab runs. What is inside of it sees its keeper under another number, and would not run without it.
    pub(crate) fn runs(&self) -> bool {
        std::env::var_os(INSIDE).is_some() || self.keeper().is_some()
    }

    /// What was started, if anything was.
    pub(crate) fn meta(&self) -> Result<Option<Meta>, LabError> {
        self.load("meta.json")
    }

    /// The lab that was started, as its author wrote it.
    pub(crate) fn source(&self, meta: &Meta) -> Result<Source, LabError> {
        let text = |name: &str| {
            fs::read_to_string(self.in_run(name)).during(|| format!("{} cannot be read", self.in_run(name).display()))
        };
        Ok(Source { file: meta.file.clone(), toml: text("lab.toml")?, text: text("lab.md")? })
    }

    /// The lab that was started.
    pub(crate) fn lab(&self, meta: &Meta) -> Result<Lab, LabError> {
        read(&self.source(meta)?, &meta.seed)
    }

    pub(crate) fn load<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, LabError> {
        let path = self.in_run(name);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(LabError::System(format!("{} cannot be read", path.display()), error)),
        };
        let broken = |_| LabError::refused(format!("{} is not what a lab wrote: `vsctl lab stop` begins anew", path.display()));
        serde_json::from_slice(&bytes).map(Some).map_err(broken)
    }

    pub(crate) fn save<T: Serialize>(&self, name: &str, value: &T) -> Result<(), LabError> {
        let text = serde_json::to_vec_pretty(value).map_err(|error| LabError::System(name.to_owned(), error.into()))?;
        write(&self.in_run(name), &text)
    }
}

/// Makes a directory and those above it.
pub(crate) fn make(path: &Path) -> Result<(), LabError> {
    fs::create_dir_all(path).during(|| format!("{} cannot be made", path.display()))
}

/// Writes a file at once or not at all.
pub(crate) fn write(path: &Path, content: impl AsRef<[u8]>) -> Result<(), LabError> {
    let what = || format!("{} cannot be written", path.display());
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    fs::write(&new, content).during(what)?;
    fs::rename(&new, path).during(what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_of_another_start_of_the_host_is_another_process() {
        let own = Process::of(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert!(own.runs());
        let before = Process { boot: "11111111-2222-3333-4444-555555555555".to_owned(), ..own.clone() };
        assert!(!before.runs());
        // It is not killed, and nothing waits for it.
        before.kill().unwrap();
    }
}
