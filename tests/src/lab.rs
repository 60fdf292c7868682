//! A place of its own for one test: namespaces, a directory, and a vswitchd that is started, asked, signalled and ended there.
//! Most tests with a real vswitchd begin with it. It runs `ip`, shells and the programs of the build.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::interrupt::interrupted;
use crate::settings::SETTINGS;

/// How long anything may take before a test calls it stuck. It is generous, for a test machine may be slow and shared.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// What a command did.
#[derive(Debug)]
pub struct Outcome {
    /// How it ended; `None`: by a signal.
    pub code: Option<i32>,
    /// What it printed.
    pub stdout: String,
    /// What it complained about.
    pub stderr: String,
}

impl Outcome {
    /// Its output, if it succeeded.
    ///
    /// # Panics
    /// If it did not.
    #[track_caller]
    pub fn ok(self) -> String {
        assert!(self.code == Some(0), "it failed: {self:?}");
        self.stdout
    }

    /// Its one sentence on stderr, if it failed as a command must: exit 1, nothing on stdout.
    ///
    /// # Panics
    /// If it did not.
    #[track_caller]
    pub fn refused(self) -> String {
        assert_eq!((self.code, self.stdout.as_str()), (Some(1), ""), "it should have been refused: {self:?}");
        let sentence = self.stderr.trim_end().to_owned();
        assert!(!sentence.is_empty() && !sentence.contains("panicked"), "{self:?}");
        sentence
    }
}

/// A word for lines of the shell: makes a namespace.
const NETNS: &str =
    "netns() { ip netns add $1 && ip -n $1 link set lo up && nsenter --net=/run/netns/$1 sh -c \"$SETTINGS\"; }\n";

/// A vswitchd in a place of its own.
pub struct Lab {
    id: String,
    directory: tempfile::TempDir,
    daemon: Option<Child>,
    background: Vec<Child>,
}

impl Lab {
    /// An empty place, in which nothing runs yet.
    ///
    /// # Panics
    /// If namespaces cannot be made.
    pub fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let id = format!("vs{}-{}-", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let directory = tempfile::tempdir().expect("a temporary directory");
        let lab = Self { id, directory, daemon: None, background: Vec::new() };
        lab.add_netns("host");
        lab.run_in("host", crate::measure::CUBIC).ok();
        lab
    }

    /// A place with a vswitchd that runs `file`, which may use `@` before names of namespaces.
    ///
    /// # Panics
    /// If it does not become ready.
    #[track_caller]
    pub fn with(file: &str) -> Self {
        let mut lab = Self::new();
        lab.write(file);
        lab.start();
        lab
    }

    /// Writes its `switch.toml`. `[switch]` with the socket and the directory of this lab comes first, unless `file` has one.
    ///
    /// # Panics
    /// If the disk is full.
    pub fn write(&self, file: &str) {
        let directory = self.directory.path().display();
        let head = format!("[switch]\ncontrol = \"{directory}/control.sock\"\nstate-dir = \"{directory}/state\"\n");
        let head = if file.contains("[switch]") { String::new() } else { head };
        std::fs::write(self.file(), format!("{head}{}", self.named(file))).expect("a file written");
    }

    /// Starts vswitchd and waits until it is ready.
    ///
    /// # Panics
    /// If it does not become ready.
    #[track_caller]
    pub fn start(&mut self) {
        self.start_with(&[]);
    }

    /// The same, with more words.
    ///
    /// # Panics
    /// If it does not become ready.
    #[track_caller]
    pub fn start_with(&mut self, more: &[&str]) {
        assert!(self.daemon.is_none(), "vswitchd runs already");
        self.launch(more);
    }

    /// Has another vswitchd take over from the one that runs, which is returned: it ends soon, but for connections that it sees through.
    ///
    /// # Panics
    /// If the new one is not ready within a minute.
    #[track_caller]
    pub fn take_over(&mut self) -> Predecessor {
        self.take_over_with(&[])
    }

    /// The same, with more words.
    ///
    /// # Panics
    /// If the new one is not ready within a minute.
    #[track_caller]
    pub fn take_over_with(&mut self, more: &[&str]) -> Predecessor {
        let old = self.daemon.take().expect("vswitchd runs");
        self.launch(&[&["--takeover"], more].concat());
        Predecessor(old)
    }

    #[track_caller]
    fn launch(&mut self, more: &[&str]) {
        let before = self.netns();
        let log = self.path("log");
        let stderr = std::fs::File::options().create(true).append(true).open(&log).expect("a log");
        let mut command = self.daemon_command();
        let mut child = command.args(more).stdout(Stdio::piped()).stderr(stderr).spawn().expect("vswitchd started");
        let stdout = child.stdout.take().expect("a pipe");
        self.daemon = Some(child);
        let (sender, ready) = mpsc::channel();
        std::thread::spawn(move || {
            let mut lines = BufReader::new(stdout);
            let mut line = String::new();
            let _ = lines.read_line(&mut line);
            let _ = sender.send(line);
            let _ = lines.read_to_end(&mut Vec::new());
        });
        let line = ready.recv_timeout(PATIENCE).unwrap_or_default();
        assert!(line == "ready\n", "vswitchd is not ready within a minute; it said: {line}{}", self.log());
        // Those that it made.
        let made = self.netns().into_iter().filter(|name| before.binary_search(name).is_err());
        made.for_each(|name| drop(self.sh(&format!("nsenter --net=/run/netns/@{name} sh -c \"$SETTINGS\"")).ok()));
    }

    /// Runs vswitchd where it is expected to end by itself, with what else to put on the command line.
    ///
    /// # Panics
    /// If it does not end.
    #[track_caller]
    pub fn start_refused(&self, more: &[&str]) -> Outcome {
        run(self.daemon_command().args(more))
    }

    fn daemon_command(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}host", self.id)).arg(program("vswitchd")).arg("--config").arg(self.file());
        command.stdin(Stdio::null());
        command
    }

    /// Ends vswitchd as systemd would, and says how it ended.
    ///
    /// # Panics
    /// If it does not end.
    #[track_caller]
    pub fn stop(&mut self) -> ExitStatus {
        self.signal(libc::SIGTERM);
        let mut child = self.daemon.take().expect("vswitchd runs");
        wait(&mut child, "vswitchd")
    }

    /// Ends vswitchd by SIGKILL.
    ///
    /// # Panics
    /// If it does not run.
    pub fn kill(&mut self) {
        let mut child = self.daemon.take().expect("vswitchd runs");
        child.kill().expect("killed");
        child.wait().expect("ended");
    }

    /// Waits until vswitchd ends by itself, as after `vsctl shutdown`.
    ///
    /// # Panics
    /// If it does not end.
    #[track_caller]
    pub fn ended(&mut self) -> ExitStatus {
        wait(&mut self.daemon.take().expect("vswitchd runs"), "vswitchd")
    }

    /// Sends vswitchd a signal.
    ///
    /// # Panics
    /// If it does not run.
    pub fn signal(&self, signal: i32) {
        // SAFETY: the process is a child that was not waited for, so the pid is its own.
        assert_eq!(unsafe { libc::kill(self.pid().cast_signed(), signal) }, 0);
    }

    /// vswitchd's process.
    ///
    /// # Panics
    /// If it does not run.
    pub fn pid(&self) -> u32 {
        self.daemon.as_ref().expect("vswitchd runs").id()
    }

    /// The process of its broker.
    ///
    /// # Panics
    /// If there is none.
    #[track_caller]
    pub fn broker(&self) -> u32 {
        children_of(self.pid()).next().expect("vswitchd has a broker")
    }

    /// vswitchd's process, if it runs.
    pub fn running(&self) -> Option<u32> {
        self.daemon.as_ref().map(Child::id)
    }

    /// What vswitchd logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// Runs `vsctl` with these words; `@` before a name makes it a namespace of this lab.
    ///
    /// # Panics
    /// If it does not end.
    #[track_caller]
    pub fn ctl(&self, words: &str) -> Outcome {
        run(self.ctl_command().args(words.split_whitespace().map(|word| self.named(word))))
    }

    /// As [`Lab::ctl`] with `--json`: the document.
    ///
    /// # Panics
    /// If it fails or prints something else.
    #[track_caller]
    pub fn json(&self, words: &str) -> serde_json::Value {
        let text = self.ctl(&format!("--json {words}")).ok();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{words}: {error} in {text}"))
    }

    /// A `vsctl` of this lab, to be given arguments and run.
    pub fn ctl_command(&self) -> Command {
        let mut command = Command::new(program("vsctl"));
        command.env("VSWITCH_CONTROL", self.path("control.sock")).stdin(Stdio::null());
        command
    }

    /// Makes a namespace of this lab, with the kernel's own settings and its loopback up.
    ///
    /// # Panics
    /// If it cannot.
    #[track_caller]
    pub fn add_netns(&self, name: &str) {
        self.sh(&format!("netns @{name}")).ok();
    }

    /// Runs a line of shell outside of any namespace; `@` before a name makes it a namespace of this lab, and `netns @NAME` does what
    /// [`Lab::add_netns`] does.
    ///
    /// # Panics
    /// If it does not end.
    #[track_caller]
    pub fn sh(&self, line: &str) -> Outcome {
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!("{NETNS}{}", self.named(line))).env("SETTINGS", SETTINGS);
        run(command.stdin(Stdio::null()))
    }

    /// A line of shell in a namespace of this lab: `host` is where vswitchd runs.
    pub fn command_in(&self, netns: &str, line: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}{netns}", self.id)).args(["sh", "-c"]).arg(self.named(line));
        command.stdin(Stdio::null());
        command
    }

    /// Runs a line of shell in a namespace of this lab.
    ///
    /// # Panics
    /// If it does not end.
    #[track_caller]
    pub fn run_in(&self, netns: &str, line: &str) -> Outcome {
        run(&mut self.command_in(netns, line))
    }

    /// Runs a line of shell in a namespace of this lab, in the background, as the process that it returns; it is killed with the lab.
    ///
    /// # Panics
    /// If it cannot start.
    pub fn spawn_in(&mut self, netns: &str, line: &str) -> u32 {
        let mut command = self.command_in(netns, &format!("exec {line}"));
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("started");
        let pid = child.id();
        self.background.push(child);
        pid
    }

    /// Waits until `what` holds.
    ///
    /// # Panics
    /// If it does not within a minute.
    #[track_caller]
    pub fn until(&self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let begun = Instant::now();
        while !holds(self) {
            assert!(!interrupted(), "interrupted");
            assert!(begun.elapsed() < PATIENCE, "not within a minute: {what}; vswitchd said: {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Its `switch.toml`.
    pub fn file(&self) -> PathBuf {
        self.path("switch.toml")
    }

    /// A file in its directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The text with the names of namespaces that `@` stands before; they begin with no digit.
    pub fn named(&self, text: &str) -> String {
        let mut parts = text.split('@');
        let mut named = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            // An address behind it is a server's, as dig has it.
            named += if part.starts_with(|next: char| next.is_ascii_digit()) { "@" } else { &self.id };
            named += part;
        }
        named
    }

    /// The namespaces of this lab that exist, `host` included, without the lab's prefix, sorted.
    ///
    /// # Panics
    /// If /run/netns cannot be read.
    pub fn netns(&self) -> Vec<String> {
        let entries = std::fs::read_dir("/run/netns").expect("namespaces");
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let mut names: Vec<String> = names.filter_map(|name| name.strip_prefix(&self.id).map(str::to_owned)).collect();
        names.sort();
        names
    }
}

impl Default for Lab {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for mut child in self.background.drain(..).chain(self.daemon.take()) {
            let _ = child.kill();
            let _ = child.wait();
        }
        for name in self.netns() {
            // Ends what a failed test left running there.
            let line = format!("ip netns pids {0}{name} | xargs -r kill -9", self.id);
            // In a process group of its own: a second Ctrl-C must not end it.
            let _ = Command::new("sh").args(["-c", &line]).process_group(0).status();
            let _ = Command::new("ip").args(["netns", "del"]).arg(format!("{}{name}", self.id)).process_group(0).status();
        }
        let log = self.log();
        if std::thread::panicking() && !interrupted() && !log.is_empty() {
            let _ = writeln!(std::io::stderr(), "vswitchd said: {log}");
        }
    }
}

/// The processes that this one has started, and that still are.
pub(crate) fn children_of(parent: u32) -> impl Iterator<Item = u32> {
    let parent = parent.to_string();
    let all = std::fs::read_dir("/proc")
        .expect("processes")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    all.filter(move |process| {
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        // Behind the name, which may be anything, come the state and the parent.
        stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(1)) == Some(&*parent)
    })
}

/// A program that was built with the tests.
///
/// # Panics
/// If it was not.
pub fn program(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("the test's own path");
    // Tests and benchmarks are in target/PROFILE/deps, programs in target/PROFILE.
    let candidates = own.ancestors().skip(1).take(2).map(|directory| directory.join(name));
    candidates.into_iter().find(|path| path.is_file()).unwrap_or_else(|| {
        panic!("{name} is not built for {}: run `cargo build --workspace --bins --tests` first, or tests/run", own.display())
    })
}

#[track_caller]
pub(crate) fn run(command: &mut Command) -> Outcome {
    run_within(command, PATIENCE)
}

#[track_caller]
pub(crate) fn run_within(command: &mut Command, patience: Duration) -> Outcome {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("a program started");
    let (stdout, stderr) = (drain(child.stdout.take()), drain(child.stderr.take()));
    let status = wait_within(&mut child, &format!("{command:?}"), patience);
    let text = |reader: std::thread::JoinHandle<Vec<u8>>| String::from_utf8_lossy(&reader.join().expect("read")).into_owned();
    Outcome { code: status.code(), stdout: text(stdout), stderr: text(stderr) }
}

fn drain(pipe: Option<impl Read + Send + 'static>) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.expect("a pipe").read_to_end(&mut bytes);
        bytes
    })
}

#[track_caller]
pub(crate) fn wait(child: &mut Child, what: &str) -> ExitStatus {
    wait_within(child, what, PATIENCE)
}

#[track_caller]
fn wait_within(child: &mut Child, what: &str, patience: Duration) -> ExitStatus {
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("a child") {
            return status;
        }
        let stuck = begun.elapsed() > patience;
        if stuck || interrupted() {
            let _ = child.kill();
            let _ = child.wait();
            assert!(!stuck, "{what} did not end within {patience:?}");
            panic!("interrupted");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A vswitchd from which another took over.
#[derive(Debug)]
pub struct Predecessor(Child);

impl Predecessor {
    /// Its process.
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        self.0.try_wait().is_ok_and(|status| status.is_none())
    }

    /// Waits until it has ended.
    ///
    /// # Panics
    /// If it does not end, or not well.
    #[track_caller]
    pub fn ended(mut self) {
        assert!(wait(&mut self.0, "the vswitchd from which another took over").success(), "it did not end well");
    }
}
