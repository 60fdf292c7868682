//! `vsctl lab`: its commands, and what they print.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Subcommand;
use serde_json::json;

use crate::boot::{self, WebAt, check_outside};
use crate::enter::{self, Entrance};
use crate::file::{HostName, Lab, Source, TaskKind, read};
use crate::place::{Meta, Place, write};
use crate::progress::{Progress, StageProgress, TaskResult};
use crate::{During, LabError, check, course, grade, guide, keep, library, relay, verify};

/// How long a check may wait, whatever its lab says.
const PATIENCE: Duration = Duration::from_secs(60);

/// Teaching labs, each a network of its own to look at, break and mend. Nothing of the host's network is touched.
///
/// A lab runs as whoever starts it, without root where the kernel allows it. Its text and its tasks are in the terminal (text, check, hint) and
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
    },
    /// Holds a lab's namespaces.
    #[command(hide = true)]
    Keep,
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
            Self::Shell { host, words } => shell(host.as_deref(), &words),
            Self::Answer { question, answer } => Desk::open()?.answer(&question, &answer.join(" ")),
            Self::Check { stage, report } => Desk::open()?.check(stage, report.as_deref(), json),
            Self::Hint => Desk::open()?.hint(),
            Self::Goto { stage } => Desk::open()?.go_to(stage),
            Self::Reset => Desk::open()?.go_to(1),
            Self::Solve => Desk::open()?.solve(),
            Self::Stop => stop(),
            Self::Grade { directory, csv } => grade_class(&directory, csv, json),
            Self::New { name } => new(&name),
            Self::Verify { labs, seed } => verify_all(&labs, &seed),
            Self::Keep => keep::keep(&Place::of_user()?),
            Self::Relay { inner: true } => relay::inner(&Place::of_user()?.in_run("web.sock")),
            Self::Relay { inner: false } => {
                let listener =
                    std::io::stdin().as_fd().try_clone_to_owned().during(|| "the relay was given no socket".to_owned())?;
                relay::outer(&Place::of_user()?, listener.into())
            }
        }
    }
}

/// Prints to stdout; a reader that has seen enough is no failure.
fn print(text: &str) {
    let mut stdout = std::io::stdout().lock();
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}

fn print_json(value: &impl serde::Serialize) {
    print(&format!("{}\n", serde_json::to_string_pretty(value).unwrap_or_default()));
}

fn print_course(text: &str) {
    print(&course::for_terminal(text, std::io::stdout().is_terminal()));
}

fn list(as_json: bool) -> Result<(), LabError> {
    let labs: Vec<_> =
        library::LABS.iter().map(|lab| read(&lab.source(), "1").map(|lab| lab.about)).collect::<Result<_, _>>()?;
    if as_json {
        let rows = labs.iter().map(|lab| json!({ "name": lab.name, "title": lab.title, "summary": lab.summary, "minutes": lab.minutes, "root": lab.root, "needs": lab.needs }));
        print_json(&rows.collect::<Vec<_>>());
        return Ok(());
    }
    let width = labs.iter().map(|lab| lab.name.len()).max().unwrap_or(0);
    let rows = labs.iter().map(|lab| format!("{:<width$}  {:>2} min  {}\n", lab.name, lab.minutes, lab.title));
    print(&rows.collect::<String>());
    print("\nvsctl lab start NAME begins one.\n");
    Ok(())
}

fn start(name: &str, seed: Option<String>, web: WebAt, as_json: bool) -> Result<(), LabError> {
    check_outside()?;
    let place = Place::of_user()?;
    let _lock = place.lock()?;
    let source = library::find(name)?;
    let seed = seed.unwrap_or_else(any_seed);
    boot::start(&place, &source, &seed, web)?;
    let desk = Desk::open_locked(place)?;
    if as_json {
        print_json(&desk.status());
        return Ok(());
    }
    print_course(&desk.lab.introduction);
    print_course(&desk.lab.stages[0].text);
    print(&desk.how());
    Ok(())
}

/// A seed for who names none: small enough to be told to a neighbour.
fn any_seed() -> String {
    let time = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    (1000 + time.as_millis() % 9000).to_string()
}

fn status(as_json: bool) -> Result<(), LabError> {
    let desk = Desk::open()?;
    if as_json {
        print_json(&desk.status());
    } else {
        print(&desk.how());
    }
    Ok(())
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
    Err(LabError::System("nsenter cannot be run (it is in the package util-linux)".to_owned(), error))
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
        print_json(&reports);
    } else if csv {
        print(&grade::csv(&reports));
    } else {
        print(&grade::table(&reports));
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
    files.iter().try_for_each(|(path, text)| write(path, text))?;
    print(&format!("{name}.toml and {name}.md are a lab that works: vsctl lab verify {name}.toml\n"));
    Ok(())
}

fn verify_all(labs: &[String], seed: &str) -> Result<(), LabError> {
    check_outside()?;
    let own = Place::of_user()?;
    let mut wrong = Vec::new();
    for name in labs {
        let source = library::find(name)?;
        // Beside a lab that may run.
        let place = Place::at(own.root().join(format!("v{}", std::process::id())))?;
        let result = verify::verify(&place, &source, seed, |line| print(&format!("{name}: {line}\n")));
        // It is empty but for a directory or two.
        let _ = std::fs::remove_dir_all(place.results()).and_then(|()| std::fs::remove_dir(place.host_run()));
        let _ = std::fs::remove_dir(place.host_run()).and_then(|()| std::fs::remove_dir(place.root()));
        wrong.extend(
            result
                .err()
                .map(|error| error.to_string().lines().map(|line| format!("{name}: {line}")).collect::<Vec<_>>().join("\n")),
        );
    }
    if wrong.is_empty() { Ok(()) } else { Err(LabError::Refused(wrong.join("\n"))) }
}

/// A lab that was started, and how far its learner is.
struct Desk {
    place: Place,
    meta: Meta,
    lab: Lab,
    progress: Progress,
    /// Held for a command's time.
    _lock: Option<std::fs::File>,
}

impl Desk {
    fn open() -> Result<Self, LabError> {
        Self::open_locked(Place::of_user()?)
    }

    fn open_locked(place: Place) -> Result<Self, LabError> {
        let meta = place
            .meta()?
            .ok_or_else(|| LabError::refused("no lab runs: `vsctl lab list` has them, `vsctl lab start NAME` begins one"))?;
        let lab = place.lab(&meta)?;
        let progress = Progress::load(&place, &lab)?;
        Ok(Self { place, meta, lab, progress, _lock: None })
    }

    /// Keeps others from changing the progress at the same time.
    fn lock(&mut self) -> Result<(), LabError> {
        self._lock = Some(self.place.lock()?);
        self.progress = Progress::load(&self.place, &self.lab)?;
        Ok(())
    }

    fn entrance(&self) -> Result<Entrance<'_>, LabError> {
        Entrance::new(&self.place, &self.lab, &self.meta)
    }

    fn host(&self, name: &str) -> Result<HostName, LabError> {
        let found = HostName::parse(name).ok().filter(|name| self.lab.host(name).is_some());
        found.ok_or_else(|| {
            let names: Vec<&str> = self.lab.hosts.iter().map(|host| host.name.as_str()).collect();
            LabError::refused(format!("there is no host \"{}\" in this lab: it has {}", name.escape_debug(), names.join(", ")))
        })
    }

    fn stage(&self, number: usize) -> Result<usize, LabError> {
        let count = self.lab.stages.len();
        if (1..=count).contains(&number) {
            return Ok(number - 1);
        }
        Err(LabError::refused(format!("there is no stage {number}: this lab has stages 1 to {count}")))
    }

    /// The stage that is to be done.
    fn current(&self) -> Result<usize, LabError> {
        self.progress.current().ok_or_else(|| {
            LabError::refused("all stages are done: `vsctl lab stop` ends the lab, `vsctl lab goto N` goes back")
        })
    }

    fn save(&self) -> Result<(), LabError> {
        self.progress.save(&self.place)?;
        self.progress.keep_report(&self.place, &self.lab, &self.meta)?;
        guide::write(&self.place, &self.lab, &self.meta, &self.progress)
    }

    fn status(&self) -> serde_json::Value {
        json!({
            "lab": self.meta.name, "seed": self.meta.seed, "page": self.meta.page, "running": self.place.runs(),
            "stage": self.progress.current().map(|stage| stage + 1), "stages": self.lab.stages.len(),
            "points": self.progress.points(), "of": self.lab.points(),
            "hosts": self.lab.hosts.iter().map(|host| host.name.as_str()).collect::<Vec<_>>(),
            "control": self.place.control(&self.lab, None),
        })
    }

    /// What runs, and what one can do.
    fn how(&self) -> String {
        let hosts: Vec<&str> = self.lab.hosts.iter().map(|host| host.name.as_str()).collect();
        let stage = self
            .progress
            .current()
            .map_or_else(|| "done".to_owned(), |stage| format!("{} of {}", stage + 1, self.lab.stages.len()));
        let mut text = format!(
            "\n{}: stage {stage}, {} of {} points, seed {}\n",
            self.meta.name,
            self.progress.points(),
            self.lab.points(),
            self.meta.seed
        );
        if !self.place.runs() {
            text += "  it has ended: vsctl lab reset starts it anew, vsctl lab stop removes it\n";
            return text;
        }
        if let Some(page) = &self.meta.page {
            // Writing into a string cannot fail.
            let _ = writeln!(text, "  web view   {page}");
        }
        let _ = writeln!(text, "  a shell    vsctl lab shell HOST    ({})", hosts.join(", "));
        text += "  its vsctl  vsctl lab shell         (beside the switch)\n";
        text += "  done?      vsctl lab check         (also: hint, text, solve, reset, stop)\n";
        text
    }

    fn text(&self, stage: Option<usize>) -> Result<(), LabError> {
        if let Some(number) = stage {
            print_course(&self.lab.stages[self.stage(number)?].text);
            return Ok(());
        }
        print_course(&self.lab.introduction);
        let reached = self.progress.current().map_or(self.lab.stages.len(), |current| current + 1);
        self.lab.stages[..reached].iter().for_each(|stage| print_course(&stage.text));
        Ok(())
    }

    fn answer(mut self, question: &str, answer: &str) -> Result<(), LabError> {
        self.lock()?;
        let names = self.lab.stages.iter().flat_map(|stage| &stage.tasks).filter_map(|task| match &task.kind {
            TaskKind::Question(question) => Some(question.name.clone()),
            TaskKind::Check(_) => None,
        });
        let names: Vec<String> = names.collect();
        if !names.iter().any(|name| name == question) {
            let known = if names.is_empty() { "it has none".to_owned() } else { format!("it has {}", names.join(", ")) };
            return Err(LabError::refused(format!(
                "there is no question \"{}\" in this lab: {known}",
                question.escape_debug()
            )));
        }
        self.progress.answers.insert(question.to_owned(), answer.to_owned());
        self.save()
    }

    fn check(mut self, stage: Option<usize>, report: Option<&Path>, as_json: bool) -> Result<(), LabError> {
        self.lock()?;
        let only = stage.map(|number| self.stage(number)).transpose()?;
        let first = only.or(self.progress.current());
        let mut next = first;
        while let Some(number) = next {
            let results = check::stage(&self.entrance()?, &self.lab.stages[number], &self.progress.answers, PATIENCE)?;
            let passed = results.iter().all(|result| result.passed);
            if !as_json {
                print(&self.shown(number, &results));
            }
            let reached = &mut self.progress.stages[number];
            reached.passed |= passed;
            reached.tasks = results;
            self.save()?;
            next = self.progress.current().filter(|_| passed && only.is_none());
            if let Some(next) = next.filter(|_| !as_json) {
                print("\n");
                print_course(&self.lab.stages[next].text);
                print("\n");
            }
        }
        if let Some(path) = report {
            let text = serde_json::to_vec_pretty(&self.progress.report(&self.lab, &self.meta)).unwrap_or_default();
            write(path, text)?;
        }
        if as_json {
            print_json(&self.progress.report(&self.lab, &self.meta));
        }
        self.verdict(only)
    }

    fn verdict(&self, only: Option<usize>) -> Result<(), LabError> {
        let points = format!("{} of {} points", self.progress.points(), self.lab.points());
        let open = only
            .filter(|stage| self.progress.stages[*stage].tasks.iter().any(|task| !task.passed))
            .or(self.progress.current().filter(|_| only.is_none()));
        match open {
            None => {
                eprintln!("{points}");
                Ok(())
            }
            Some(stage) => Err(LabError::refused(format!("{points}; stage {} is not done yet", stage + 1))),
        }
    }

    fn shown(&self, number: usize, results: &[TaskResult]) -> String {
        let stage = &self.lab.stages[number];
        let mut shown = format!("Stage {}: {}\n", number + 1, stage.title);
        for (task, result) in stage.tasks.iter().zip(results) {
            let mark = if result.passed { "✓" } else { "✗" };
            let _ = writeln!(shown, "  {mark} {}", result.says);
            let word = if matches!(task.kind, TaskKind::Check(_)) { "seen: " } else { "" };
            for (at, line) in result.saw.iter().flat_map(|saw| saw.lines()).enumerate() {
                let _ = writeln!(shown, "      {}{line}", if at == 0 { word } else { "      " });
            }
        }
        shown
    }

    fn hint(mut self) -> Result<(), LabError> {
        self.lock()?;
        let current = self.current()?;
        let hints = &self.lab.stages[current].hints;
        let used = self.progress.stages[current].hints;
        let Some(hint) = hints.get(used) else {
            let sentence = format!("stage {} has no more hints: `vsctl lab solve` does it and shows how", current + 1);
            return Err(LabError::Refused(sentence));
        };
        print_course(&format!("{hint}\n"));
        self.progress.stages[current].hints += 1;
        self.save()
    }

    fn solve(mut self) -> Result<(), LabError> {
        self.lock()?;
        let current = self.current()?;
        self.do_stage(current, true)?;
        self.progress.stages[current].solved = true;
        let results = check::stage(&self.entrance()?, &self.lab.stages[current], &self.progress.answers, PATIENCE)?;
        print(&self.shown(current, &results));
        let passed = results.iter().all(|result| result.passed);
        let reached = &mut self.progress.stages[current];
        (reached.passed, reached.tasks) = (passed, results);
        self.save()?;
        if passed {
            return Ok(());
        }
        Err(LabError::refused(format!(
            "that did not do it, as something else was changed: `vsctl lab goto {}`, then solve again",
            current + 1
        )))
    }

    /// Does what a stage asks for.
    fn do_stage(&mut self, number: usize, aloud: bool) -> Result<(), LabError> {
        let say = |text: String| {
            if aloud {
                print(&text)
            }
        };
        let entrance = self.entrance()?;
        let mut answers = Vec::new();
        for step in &self.lab.stages[number].solve {
            say(format!("{step}\n"));
            entrance.run_all(std::slice::from_ref(step))?;
        }
        for task in &self.lab.stages[number].tasks {
            if let TaskKind::Question(question) = &task.kind {
                let answer = check::answer(&entrance, question)?;
                say(format!("{} {answer}\n", task.says));
                answers.push((question.name.clone(), answer));
            }
        }
        self.progress.answers.extend(answers);
        Ok(())
    }

    /// Starts anew with the stages before this one done.
    fn go_to(mut self, number: usize) -> Result<(), LabError> {
        check_outside()?;
        self.lock()?;
        let stage = self.stage(number)?;
        let source = Source {
            file: self.meta.file.clone(),
            toml: std::fs::read_to_string(self.place.in_run("lab.toml")).during(|| "the lab's file is gone".to_owned())?,
            text: std::fs::read_to_string(self.place.in_run("lab.md")).during(|| "the lab's text is gone".to_owned())?,
        };
        let port = self.meta.page.as_ref().and_then(|page| page.trim_end_matches('/').rsplit(':').next()?.parse().ok());
        boot::stop(&self.place)?;
        self.meta = boot::start(&self.place, &source, &self.meta.seed, port.map_or(WebAt::Off, WebAt::Port))?;
        for before in 0..stage {
            self.do_stage(before, false)?;
            let reached = &mut self.progress.stages[before];
            // What was earned stays so.
            if !reached.passed {
                *reached = StageProgress { passed: true, solved: true, ..StageProgress::default() };
            }
        }
        for reached in &mut self.progress.stages[stage..] {
            *reached = StageProgress { hints: reached.hints, ..StageProgress::default() };
        }
        self.save()?;
        print_course(&self.lab.stages[stage].text);
        print(&self.how());
        Ok(())
    }
}
