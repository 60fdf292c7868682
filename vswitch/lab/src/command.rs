//! `vsctl lab`: its commands, and what they print.

use std::io::{IsTerminal, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Subcommand;
use serde_json::json;

use crate::boot::{self, WebAt, check_outside};
use crate::desk::Desk;
use crate::file::{HostName, read};
use crate::place::Place;
use crate::{During, LabError, course, enter, grade, keep, library, namespace, relay, verify};

/// Teaching labs: each a network of its own, to look at, to break and to mend.
///
/// A lab needs no root where the kernel lets users make namespaces. Its text and its tasks are in the terminal (text, check, hint) and
/// beside the web view, whose address start prints.
#[derive(Debug, Subcommand)]
pub enum LabCommand {
    /// The labs there are.
    List,
    /// Starts a lab, and prints its text and the first thing to do.
    Start {
        /// A lab of the list, or a file of your own, NAME.toml with NAME.md beside it.
        name: String,
        /// What is drawn, such as addresses: the same seed draws the same. Any by default; in a class, each learner's name.
        #[arg(long)]
        seed: Option<String>,
        /// The port of 127.0.0.1 for the web view; any that is free by default.
        #[arg(long, default_value_t = 0, hide_default_value = true)]
        port: u16,
        /// Without a web view.
        #[arg(long, conflicts_with = "port")]
        no_web: bool,
    },
    /// What runs, how far you are, and where its web view is.
    Status,
    /// The text as far as you are, or that of one stage.
    Text {
        /// Of this stage.
        #[arg(long, value_name = "N")]
        stage: Option<usize>,
    },
    /// A shell in a host of the lab, or beside its switch; behind -- one command instead.
    Shell {
        /// The host; none is where the switch is.
        host: Option<String>,
        /// One beside the switch and one in each host, as the windows of a tmux.
        #[arg(long, conflicts_with_all = ["host", "words"])]
        all: bool,
        /// A command, and its arguments.
        #[arg(last = true)]
        words: Vec<String>,
    },
    /// Answers a question of the text.
    Answer {
        /// The question's name.
        question: String,
        /// The answer.
        #[arg(required = true, allow_hyphen_values = true)]
        answer: Vec<String>,
    },
    /// Looks whether the stage is done, and says what it saw where it is not. Exit status 0 once all stages are.
    Check {
        /// Looks at this stage alone.
        #[arg(long, value_name = "N")]
        stage: Option<usize>,
        /// Writes what was reached to a file, to hand in.
        #[arg(long, value_name = "FILE")]
        report: Option<PathBuf>,
    },
    /// A hint for the stage, and each time one more.
    Hint,
    /// Starts the lab anew, as it is when the stages before this one are done.
    Goto {
        /// The stage, from 1.
        stage: usize,
    },
    /// Starts the lab anew from its beginning, with the same seed.
    Reset,
    /// Does the stage for you, and shows how. It gives no points.
    Solve,
    /// Ends the lab and removes all that it was made of, but for the report of what was reached.
    Stop,
    /// What a class has reached, from the reports in a directory and in those below it.
    Grade {
        /// The directory.
        directory: PathBuf,
        /// Prints a line of CSV for each task.
        #[arg(long)]
        csv: bool,
    },
    /// Writes a small lab to begin one of your own with: NAME.toml and NAME.md.
    New {
        /// Its name.
        name: String,
    },
    /// Tries whether a lab fails unsolved, passes solved, and fails with a wrong solution.
    Verify {
        /// Files, or labs of the list.
        #[arg(required = true)]
        labs: Vec<String>,
        /// What is drawn.
        #[arg(long, default_value = "1")]
        seed: String,
        /// Gives a wrong solution a moment only, instead of as long as a learner's check.
        #[arg(long)]
        quick: bool,
    },
    /// Holds a lab's namespaces.
    #[command(hide = true)]
    Keep,
    /// Holds a host's namespaces.
    #[command(hide = true)]
    Hold {
        /// The host.
        host: String,
    },
    /// Becomes a command inside of a lab.
    #[command(hide = true)]
    Enter {
        /// The keeper's number.
        #[arg(long)]
        keeper: String,
        /// The host.
        #[arg(long)]
        host: Option<String>,
        /// The command.
        #[arg(last = true)]
        words: Vec<String>,
    },
    /// Carries the web view's bytes.
    #[command(hide = true)]
    Relay {
        /// From the socket to the lab's vswitchd, instead of from a browser to the socket.
        #[arg(long)]
        inner: bool,
    },
}

impl LabCommand {
    /// Carries the command out and prints what it comes to; one JSON document with `json`.
    ///
    /// # Errors
    /// What failed, or what is not done yet.
    pub fn run(self, json: bool) -> Result<(), LabError> {
        match self {
            Self::List => list(json),
            Self::Start { name, seed, port, no_web } => {
                let web = if no_web { WebAt::Off } else { WebAt::Port(port) };
                start(&name, seed, web, json)
            }
            Self::Status => status(json),
            Self::Text { stage } => Desk::open()?.text(stage),
            Self::Shell { all: true, .. } => shells(),
            Self::Shell { host, words, all: false } => shell(host.as_deref(), &words),
            Self::Answer { question, answer } => Desk::open()?.answer(&question, &answer.join(" ")),
            Self::Check { stage, report } => Desk::open()?.check(stage, report.as_deref(), json),
            Self::Hint => Desk::open()?.hint(),
            Self::Goto { stage } => Desk::open()?.go_to(stage),
            Self::Reset => Desk::open()?.go_to(1),
            Self::Solve => Desk::open()?.solve(),
            Self::Stop => stop(),
            Self::Grade { directory, csv } => grade_class(&directory, csv, json),
            Self::New { name } => new(&name),
            Self::Verify { labs, seed, quick } => verify_all(&labs, &seed, if quick { verify::SHORT } else { verify::LONG }),
            Self::Keep => keep::keep(&Place::of_user()?),
            Self::Hold { host } => namespace::hold(&Place::of_user()?, &named(&host)?),
            Self::Enter { keeper, host, words } => {
                let host = host.as_deref().map(named).transpose()?;
                namespace::enter(&Place::of_user()?, &keeper, host.as_ref(), &words)
            }
            Self::Relay { inner: true } => relay::inner(&Place::of_user()?.in_run("web.sock")),
            Self::Relay { inner: false } => {
                let listener =
                    std::io::stdin().as_fd().try_clone_to_owned().during(|| "the relay was given no socket".to_owned())?;
                relay::outer(&Place::of_user()?, listener.into())
            }
        }
    }
}

fn named(host: &str) -> Result<HostName, LabError> {
    HostName::parse(host).map_err(LabError::Refused)
}

pub(crate) fn print(text: &str) -> Result<(), LabError> {
    crate::stdout::print(text.as_bytes()).map(drop).during(|| "cannot write to stdout".to_owned())
}

pub(crate) fn print_json(value: &impl serde::Serialize) -> Result<(), LabError> {
    print(&format!("{}\n", serde_json::to_string_pretty(value).unwrap_or_default()))
}

pub(crate) fn print_course(text: &str) -> Result<(), LabError> {
    print(&course::for_terminal(text, std::io::stdout().is_terminal()))
}

fn list(as_json: bool) -> Result<(), LabError> {
    let labs: Vec<_> =
        library::LABS.iter().map(|lab| read(&lab.source(), "1").map(|lab| lab.about)).collect::<Result<_, _>>()?;
    if as_json {
        let rows = labs.iter().map(|lab| json!({ "name": lab.name, "title": lab.title, "summary": lab.summary, "minutes": lab.minutes, "root": lab.root, "needs": lab.needs }));
        return print_json(&rows.collect::<Vec<_>>());
    }
    let width = labs.iter().map(|lab| lab.name.len()).max().unwrap_or(0);
    let rows = labs.iter().map(|lab| format!("{:<width$}  {:>2} min  {}\n", lab.name, lab.minutes, lab.title));
    print(&rows.collect::<String>())?;
    print("\nvsctl lab start NAME begins one.\n")
}

fn start(name: &str, seed: Option<String>, web: WebAt, as_json: bool) -> Result<(), LabError> {
    check_outside()?;
    let place = Place::of_user()?;
    let _lock = place.lock()?;
    let source = library::find(name)?;
    let seed = seed.unwrap_or_else(any_seed);
    boot::start(&place, &source, &seed, web)?;
    let desk = Desk::at(place)?;
    if as_json {
        return print_json(&desk.status());
    }
    print_course(&desk.lab.introduction)?;
    print_course(&desk.lab.stages[0].text)?;
    print(&desk.how())
}

/// A seed for who names none: small enough to be told to a neighbour.
fn any_seed() -> String {
    let time = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    (1000 + time.as_millis() % 9000).to_string()
}

fn status(as_json: bool) -> Result<(), LabError> {
    let desk = Desk::open()?;
    if as_json { print_json(&desk.status()) } else { print(&desk.how()) }
}

fn shell(host: Option<&str>, words: &[String]) -> Result<(), LabError> {
    let desk = Desk::open()?;
    let host = host.map(|name| desk.host(name)).transpose()?;
    let place = host.as_ref().map_or("switch", HostName::as_str);
    let bash = ["bash", "--norc", "-i"].map(str::to_owned);
    let sh = ["sh", "-i"].map(str::to_owned);
    let words = match (words.is_empty(), enter::is_there("bash")) {
        (false, _) => words,
        (true, true) => &bash[..],
        (true, false) => &sh[..],
    };
    let mut command = desk.entrance()?.command(host.as_ref(), words)?;
    let error = command.env("PS1", format!("{place}# ")).env("LAB_HOST", place).exec();
    Err(LabError::System("vsctl cannot be run".to_owned(), error))
}

/// A window for each place, in a tmux that ends with the last of them.
fn shells() -> Result<(), LabError> {
    let desk = Desk::open()?;
    if !enter::is_there("tmux") {
        return Err(LabError::refused(
            "the windows are tmux's, which is not installed: apt-get install tmux, or open one shell for each host",
        ));
    }
    let own = enter::vsctl()?;
    let mut command = std::process::Command::new("tmux");
    // A server of its own: one that runs already has other variables, and perhaps another lab's.
    command.arg("-S").arg(desk.tmux()).args(["new-session", "-n", "switch"]).arg(&own).args(["lab", "shell"]);
    for host in &desk.lab.hosts {
        command.args([";", "new-window", "-n", host.name.as_str()]).arg(&own).args(["lab", "shell", host.name.as_str()]);
    }
    let error = command.args([";", "select-window", "-t", ":0"]).env_remove("TMUX").exec();
    Err(LabError::System("tmux cannot be run".to_owned(), error))
}

fn stop() -> Result<(), LabError> {
    check_outside()?;
    let place = Place::of_user()?;
    let _lock = place.lock()?;
    if place.run().exists() {
        return boot::stop(&place);
    }
    Err(LabError::refused("no lab runs here"))
}

fn grade_class(directory: &Path, csv: bool, as_json: bool) -> Result<(), LabError> {
    let (reports, wrong) = grade::reports(directory)?;
    if as_json {
        print_json(&reports)?;
    } else if csv {
        print(&grade::csv(&reports))?;
    } else {
        print(&grade::table(&reports))?;
    }
    if reports.is_empty() && wrong.is_empty() {
        let sentence =
            format!("{} has no reports: learners write one with `vsctl lab check --report FILE.json`", directory.display());
        return Err(LabError::Refused(sentence));
    }
    if wrong.is_empty() { Ok(()) } else { Err(LabError::Refused(wrong.join("\n"))) }
}

fn new(name: &str) -> Result<(), LabError> {
    HostName::parse(name).map_err(|_| {
        LabError::refused(format!("\"{}\" is no name of a lab: use at most 15 of a-z, 0-9 and -", name.escape_debug()))
    })?;
    let files = [("toml", include_str!("new/lab.toml")), ("md", include_str!("new/lab.md"))];
    let files = files.map(|(extension, text)| (PathBuf::from(format!("{name}.{extension}")), text.replace("NAME", name)));
    if let Some((path, _)) = files.iter().find(|(path, _)| path.exists()) {
        return Err(LabError::refused(format!("{} is there already: choose another name", path.display())));
    }
    for (path, text) in &files {
        let file = std::fs::File::options().write(true).create_new(true).open(path);
        file.and_then(|mut file| file.write_all(text.as_bytes())).during(|| format!("{} cannot be written", path.display()))?;
    }
    print(&format!("{name}.toml and {name}.md are a lab that works: vsctl lab verify {name}.toml\n"))
}

fn verify_all(labs: &[String], seed: &str, wrong_may_take: Duration) -> Result<(), LabError> {
    check_outside()?;
    let own = Place::of_user()?;
    let mut wrong = Vec::new();
    // Beside a lab that may run.
    let place = Place::at(own.root().join(format!("v{}", std::process::id())))?;
    verify::end_when_interrupted(place.clone())?;
    for name in labs {
        let mut said = Ok(());
        let mut say = |line: &str| {
            if said.is_ok() {
                said = print(&format!("{name}: {line}\n"));
            }
        };
        let verified = library::find(name).and_then(|source| verify::verify(&place, &source, (seed, wrong_may_take), &mut say));
        let verified = verified.and(said);
        // What an interrupted one says is about what was taken from it.
        let result = verify::check_interrupted().and(verified);
        let is_over = verify::check_interrupted().is_err();
        wrong.extend(
            result
                .err()
                .map(|error| error.to_string().lines().map(|line| format!("{name}: {line}")).collect::<Vec<_>>().join("\n")),
        );
        if is_over {
            break;
        }
    }
    // It is empty but for one directory.
    let _ = std::fs::remove_dir(place.host_run()).and_then(|()| std::fs::remove_dir(place.root()));
    if wrong.is_empty() { Ok(()) } else { Err(LabError::Refused(wrong.join("\n"))) }
}
