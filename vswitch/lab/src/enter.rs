//! Runs commands inside of a lab, beside its switch or in one of its hosts, from inside or outside.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::Read;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::file::HostName;
use crate::place::{INSIDE, Place, VARIABLE};
use crate::step::Step;
use crate::{During, LabError};

/// How long a step may take, in seconds.
const PATIENCE: u64 = 60;
/// Largest file that a step or a daemon writes, in bytes; a process that would write more ends (`SIGXFSZ`).
pub(crate) const LARGEST: u64 = 1 << 30;
/// What is kept of what a step prints, in bytes.
const LONGEST: u64 = 1 << 16;

/// The way into a lab that runs.
#[derive(Debug)]
pub(crate) struct Entrance<'a> {
    pub(crate) place: &'a Place,
    /// The keeper's number in the /proc that this process sees.
    keeper: String,
}

/// What became of a step.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    /// The exit status; none if a signal ended it.
    pub(crate) code: Option<i32>,
    /// What it printed, on both ways.
    pub(crate) text: String,
    /// Whether it had to be ended.
    pub(crate) is_late: bool,
}

impl Outcome {
    pub(crate) fn is_well(&self) -> bool {
        self.code == Some(0)
    }

    /// Whether the command itself ran and said no, rather than that it is missing (126, 127), took too long or was killed.
    pub(crate) fn has_failed(&self) -> bool {
        self.code.is_some_and(|code| code != 0 && !matches!(code, 126 | 127 | 137) && !self.is_late)
    }

    /// What was seen, in a line or two.
    pub(crate) fn seen(&self) -> String {
        let text = self.text.trim();
        let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let last = lines[lines.len().saturating_sub(2)..].join("\n");
        match (self.code, last.is_empty()) {
            (Some(0), true) => "nothing".to_owned(),
            (Some(0), false) => last,
            _ if self.is_late => format!("no end within {PATIENCE} s"),
            (Some(code), true) => format!("exit status {code}"),
            (Some(_), false) => last,
            (None, _) => "it was killed".to_owned(),
        }
    }
}

impl<'a> Entrance<'a> {
    /// # Errors
    /// The lab does not run any more.
    pub(crate) fn new(place: &'a Place) -> Result<Self, LabError> {
        let is_inside = std::env::var_os(INSIDE).is_some();
        let keeper = match (is_inside, place.keeper()) {
            (true, _) => fs::read_to_string(place.inner()).during(|| format!("{} cannot be read", place.inner().display()))?,
            (false, Some(keeper)) => keeper.pid.to_string(),
            (false, None) => {
                return Err(LabError::refused("the lab has ended: `vsctl lab reset` starts it anew"));
            }
        };
        Ok(Self { place, keeper })
    }

    /// The command that runs words in a host, or beside the switch, in its directory and with what it needs in its environment.
    pub(crate) fn command(&self, host: Option<&HostName>, words: &[impl AsRef<OsStr>]) -> Result<Command, LabError> {
        let mut command = lab_command(self.place, &["enter", "--keeper", &self.keeper])?;
        if let Some(host) = host {
            command.args(["--host", host.as_str()]);
        }
        command.arg("--").args(words);
        Ok(command)
    }

    /// Runs a step to its end.
    pub(crate) fn run(&self, step: &Step) -> Result<Outcome, LabError> {
        // What it prints goes to a file (see `run`), which must not fill the disk. The limit is in blocks of 512 bytes (sh(1)).
        let limited = format!("ulimit -f {} 2> /dev/null; {}", LARGEST / 512, step.line);
        let mut command =
            self.command(step.host.as_ref(), &["timeout", "-k", "1", &PATIENCE.to_string(), "sh", "-c", &limited])?;
        run(self.place, &mut command)
    }

    /// Runs steps in their order, each of which must end well.
    pub(crate) fn run_all(&self, steps: &[Step]) -> Result<(), LabError> {
        for step in steps {
            let outcome = self.run(step)?;
            if !outcome.is_well() {
                return Err(LabError::refused(format!("\"{step}\" failed: {}", outcome.seen())));
            }
        }
        Ok(())
    }
}

/// What all that runs in a lab finds in its environment.
pub(crate) fn environment(place: &Place, host: Option<&HostName>) -> Vec<OsString> {
    let variable = |name: &str, value: &OsStr| {
        let mut variable = OsString::from(format!("{name}="));
        variable.push(value);
        variable
    };
    let mut path = programs().into_os_string();
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap_or_default());
    path.push(":/usr/sbin:/sbin");
    vec![
        variable("PATH", &path),
        variable("VSWITCH_CONTROL", place.control(host).as_os_str()),
        variable(VARIABLE, place.root().as_os_str()),
        variable(INSIDE, OsStr::new("1")),
    ]
}

/// This program.
pub(crate) fn vsctl() -> Result<PathBuf, LabError> {
    std::env::current_exe().during(|| "vsctl does not find itself".to_owned())
}

/// Another `vsctl lab`, about the labs at a place.
pub(crate) fn lab_command(place: &Place, words: &[&str]) -> Result<Command, LabError> {
    let mut command = Command::new(vsctl()?);
    command.arg("lab").args(words).env(VARIABLE, place.root());
    Ok(command)
}

/// Where vsctl is, and vswitchd beside it.
pub(crate) fn programs() -> PathBuf {
    std::env::current_exe().ok().and_then(|program| program.parent().map(PathBuf::from)).unwrap_or_default()
}

/// Whether a program is to be had.
pub(crate) fn is_there(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(usual).any(|directory| directory.join(program).is_file())
}

/// Runs a command to its end. What it prints goes through a file: what it leaves behind, such as a server, may keep that open.
pub(crate) fn run(place: &Place, command: &mut Command) -> Result<Outcome, LabError> {
    let said = Said::new(place)?;
    let program = command.get_program().to_string_lossy().into_owned();
    let what = || format!("{program} cannot be run");
    let begun = std::time::Instant::now();
    let status = command.stdin(Stdio::null()).stdout(said.open()?).stderr(said.open()?).status().during(what)?;
    Ok(Outcome { code: status.code(), text: said.text()?, is_late: begun.elapsed().as_secs() >= PATIENCE })
}

/// A file for what a command prints, which goes with this.
struct Said(PathBuf);

impl Said {
    fn new(place: &Place) -> Result<Self, LabError> {
        static COUNT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let said = Self(place.in_run(&format!("log/said-{}-{count}", std::process::id())));
        fs::write(&said.0, "").during(|| said.what())?;
        Ok(said)
    }

    fn what(&self) -> String {
        format!("{} cannot be used", self.0.display())
    }

    fn open(&self) -> Result<File, LabError> {
        File::options().append(true).open(&self.0).during(|| self.what())
    }

    fn text(&self) -> Result<String, LabError> {
        let mut bytes = Vec::new();
        File::open(&self.0).and_then(|file| file.take(LONGEST).read_to_end(&mut bytes)).during(|| self.what())?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

impl Drop for Said {
    fn drop(&mut self) {
        // It is in a directory that goes with the lab.
        let _ = fs::remove_file(&self.0);
    }
}
