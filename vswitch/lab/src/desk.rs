//! What a learner does in a lab that runs: reads, answers, checks, takes hints, starts anew.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use serde_json::json;

use crate::boot::{self, WebAt, check_outside};
use crate::command::{print, print_course, print_json};
use crate::enter::Entrance;
use crate::file::{HostName, Lab, Stage, TaskKind};
use crate::place::{Meta, Place};
use crate::progress::{Progress, StageProgress, TaskResult};
use crate::{During, LabError, check, guide};

/// How long a check may wait, whatever its lab says.
const PATIENCE: Duration = Duration::from_secs(60);

/// A lab that was started, and how far its learner is.
pub(crate) struct Desk {
    place: Place,
    meta: Meta,
    pub(crate) lab: Lab,
    progress: Progress,
    /// Held for a command's time.
    _lock: Option<std::fs::File>,
}

impl Desk {
    pub(crate) fn open() -> Result<Self, LabError> {
        Self::at(Place::of_user()?)
    }

    /// The lab that was started at a place.
    pub(crate) fn at(place: Place) -> Result<Self, LabError> {
        let meta = place
            .meta()?
            .ok_or_else(|| LabError::refused("no lab runs: `vsctl lab list` has them, `vsctl lab start NAME` begins one"))?;
        let lab = place.lab(&meta)?;
        let progress = Progress::load(&place, &lab)?;
        Ok(Self { place, meta, lab, progress, _lock: None })
    }

    /// Where the tmux of its windows listens.
    pub(crate) fn tmux(&self) -> std::path::PathBuf {
        self.place.in_run("tmux")
    }

    /// Keeps others from changing the progress at the same time.
    fn lock(&mut self) -> Result<(), LabError> {
        self._lock = Some(self.place.lock()?);
        self.progress = Progress::load(&self.place, &self.lab)?;
        Ok(())
    }

    pub(crate) fn entrance(&self) -> Result<Entrance<'_>, LabError> {
        Entrance::new(&self.place)
    }

    pub(crate) fn host(&self, name: &str) -> Result<HostName, LabError> {
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

    pub(crate) fn status(&self) -> serde_json::Value {
        json!({
            "lab": self.meta.name, "seed": self.meta.seed, "page": self.meta.page, "running": self.place.runs(),
            "stage": self.progress.current().map(|stage| stage + 1), "stages": self.lab.stages.len(),
            "points": self.progress.points(), "of": self.lab.points(),
            "hosts": self.lab.hosts.iter().map(|host| host.name.as_str()).collect::<Vec<_>>(),
            "control": self.place.control(None),
        })
    }

    /// What runs, and what one can do.
    pub(crate) fn how(&self) -> String {
        let hosts: Vec<&str> = self.lab.hosts.iter().map(|host| host.name.as_str()).collect();
        let stage = self
            .progress
            .current()
            .map_or_else(|| "done".to_owned(), |stage| format!("{} of {}", stage + 1, self.lab.stages.len()));
        let mut text =
            format!("\n{}: stage {stage}, {}, seed {}\n", self.meta.name, self.progress.score(&self.lab), self.meta.seed);
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

    pub(crate) fn text(&self, stage: Option<usize>) -> Result<(), LabError> {
        if let Some(number) = stage {
            return print_course(&self.lab.stages[self.stage(number)?].text);
        }
        print_course(&self.lab.introduction)?;
        let reached = self.progress.current().map_or(self.lab.stages.len(), |current| current + 1);
        self.lab.stages[..reached].iter().try_for_each(|stage| print_course(&stage.text))
    }

    pub(crate) fn answer(mut self, question: &str, answer: &str) -> Result<(), LabError> {
        self.lock()?;
        let names: Vec<String> =
            self.lab.stages.iter().flat_map(Stage::questions).map(|question| question.name.clone()).collect();
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

    pub(crate) fn check(mut self, stage: Option<usize>, report: Option<&Path>, as_json: bool) -> Result<(), LabError> {
        self.lock()?;
        let only = stage.map(|number| self.stage(number)).transpose()?;
        let mut next = only.or(self.progress.current());
        let mut seen = None;
        while let Some(number) = next {
            let results = check::stage(&self.entrance()?, &self.lab.stages[number], &self.progress.answers, PATIENCE)?;
            let passed = results.iter().all(|result| result.passed);
            seen = Some(passed);
            if !as_json {
                print(&self.shown(number, &results))?;
            }
            let reached = &mut self.progress.stages[number];
            // What was earned stays, whatever a later stage undid.
            if passed || !reached.passed {
                reached.tasks = results;
            }
            reached.passed |= passed;
            self.save()?;
            next = self.progress.current().filter(|_| passed && only.is_none());
            if let Some(next) = next.filter(|_| !as_json) {
                print("\n")?;
                print_course(&self.lab.stages[next].text)?;
                print("\n")?;
            }
        }
        if let Some(path) = report {
            let text = serde_json::to_vec_pretty(&self.progress.report(&self.lab, &self.meta)).unwrap_or_default();
            std::fs::write(path, text).during(|| format!("{} cannot be written", path.display()))?;
        }
        if as_json {
            print_json(&self.progress.report(&self.lab, &self.meta))?;
        }
        self.verdict(only.map(|stage| (stage, seen == Some(true))))
    }

    /// What the command ends with: about one stage, whether it is so now; about all, whether each was.
    fn verdict(&self, only: Option<(usize, bool)>) -> Result<(), LabError> {
        let points = self.progress.score(&self.lab);
        let open = match only {
            None => self.progress.current(),
            Some((stage, passes)) => Some(stage).filter(|_| !passes),
        };
        match open {
            None => {
                eprintln!("{points}");
                Ok(())
            }
            Some(stage) if self.progress.stages[stage].passed => {
                Err(LabError::refused(format!("{points}; stage {} was done, and is not so any more", stage + 1)))
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

    pub(crate) fn hint(mut self) -> Result<(), LabError> {
        self.lock()?;
        let current = self.current()?;
        let hints = &self.lab.stages[current].hints;
        let used = self.progress.stages[current].hints;
        let Some(hint) = hints.get(used) else {
            let sentence = format!("stage {} has no more hints: `vsctl lab solve` does it and shows how", current + 1);
            return Err(LabError::Refused(sentence));
        };
        print_course(&format!("{hint}\n"))?;
        self.progress.stages[current].hints += 1;
        self.save()
    }

    pub(crate) fn solve(mut self) -> Result<(), LabError> {
        self.lock()?;
        let current = self.current()?;
        self.do_stage(current, true)?;
        self.progress.stages[current].solved = true;
        let results = check::stage(&self.entrance()?, &self.lab.stages[current], &self.progress.answers, PATIENCE)?;
        print(&self.shown(current, &results))?;
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
        let say = |text: String| if aloud { print(&text) } else { Ok(()) };
        let entrance = self.entrance()?;
        let mut answers = Vec::new();
        for step in &self.lab.stages[number].solve {
            say(format!("{step}\n"))?;
            entrance.run_all(std::slice::from_ref(step))?;
        }
        for question in self.lab.stages[number].questions() {
            let answer = check::answer(&entrance, question)?;
            say(format!("{}: {answer}\n", question.name))?;
            answers.push((question.name.clone(), answer));
        }
        self.progress.answers.extend(answers);
        Ok(())
    }

    /// Starts anew with the stages before this one done.
    pub(crate) fn go_to(mut self, number: usize) -> Result<(), LabError> {
        check_outside()?;
        self.lock()?;
        let stage = self.stage(number)?;
        let source = self.place.source(&self.meta)?;
        let port = self.meta.page.as_ref().and_then(|page| page.trim_end_matches('/').rsplit(':').next()?.parse().ok());
        boot::stop(&self.place)?;
        self.meta = boot::start(&self.place, &source, &self.meta.seed, port.map_or(WebAt::Off, WebAt::Port))?;
        // What the lab answered is no answer of the learner's.
        let answered: Vec<String> = self
            .lab
            .stages
            .iter()
            .zip(&self.progress.stages)
            .skip(stage)
            .flat_map(|(stage, reached)| stage.questions().filter(|_| reached.solved).map(|question| question.name.clone()))
            .collect();
        self.progress.answers.retain(|name, _| !answered.contains(name));
        for before in 0..stage {
            self.do_stage(before, false)?;
            let reached = &mut self.progress.stages[before];
            // What was earned stays so.
            if !reached.passed {
                *reached = StageProgress { passed: true, solved: true, ..StageProgress::default() };
            }
        }
        for reached in &mut self.progress.stages[stage..] {
            *reached = StageProgress { hints: reached.hints, solved: reached.solved, ..StageProgress::default() };
        }
        self.save()?;
        print_course(&self.lab.stages[stage].text)?;
        print(&self.how())
    }
}
