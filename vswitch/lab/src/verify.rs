//! Tries whether a lab can be passed, and only by who does it: before anything is done no stage holds, with its solution each does, and with
//! what only seems to be one it does not.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::boot::{self, WebAt};
use crate::check;
use crate::enter::Entrance;
use crate::file::{Lab, Source, Stage, TaskKind, read};
use crate::place::Place;
use crate::progress::TaskResult;
use crate::{During, LabError};
use std::collections::BTreeMap;

/// How long a check may wait that must not hold before anything is done.
pub(crate) const SHORT: Duration = Duration::from_millis(300);
/// How long one may wait that must; and one that a wrong solution must not make hold, as a learner's may.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// Answers by their questions.
type Answers = BTreeMap<String, String>;

/// Verifies a lab with two seeds, in a place of its own. Says what was tried as it goes.
///
/// # Errors
/// What does not hold, or why it could not be tried.
pub(crate) fn verify(
    place: &Place,
    source: &Source,
    (seed, wrong_may_take): (&str, Duration),
    mut say: impl FnMut(&str),
) -> Result<(), LabError> {
    let mut wrong = Vec::new();
    solved(place, source, seed, &mut say, &mut wrong)?;
    let other = format!("{seed}-other");
    let first = read(source, seed)?;
    for number in 0..first.stages.len() {
        if !first.stages[number].wrong.is_empty() {
            misled(place, source, (&other, wrong_may_take), number, &mut say, &mut wrong)?;
        }
    }
    if !first.values.is_empty() && first.values == read(source, &other)?.values {
        wrong.push(format!("the seeds {seed} and {other} draw the same: widen what [draw] has"));
    }
    if wrong.is_empty() { Ok(()) } else { Err(LabError::Refused(wrong.join("\n"))) }
}

/// Whether the user has had enough.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Once the user interrupts this process, ends the lab at a place, with all that waits for something in it; what is done next finds out.
///
/// # Errors
/// Signals cannot be waited for.
pub(crate) fn end_when_interrupted(place: Place) -> Result<(), LabError> {
    let what = || "signals cannot be waited for".to_owned();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().during(what)?;
    // From here on none ends this process.
    let entered = runtime.enter();
    let mut signals = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(signal);
    drop(entered);
    if let Some(error) = signals.iter_mut().find_map(|signal| signal.as_mut().err()) {
        return Err(LabError::System(what(), std::io::Error::new(error.kind(), error.to_string())));
    }
    let [interrupt, terminate, hangup] = signals.map(Result::ok);
    let wait = async move {
        let one = async |signal: Option<Signal>| {
            if let Some(mut signal) = signal {
                signal.recv().await;
            }
        };
        tokio::select! { () = one(interrupt) => {}, () = one(terminate) => {}, () = one(hangup) => {} }
        INTERRUPTED.store(true, Ordering::Relaxed);
        // The start of another lab says what stands in its way.
        let _ = boot::stop(&place);
    };
    std::thread::spawn(move || runtime.block_on(wait));
    Ok(())
}

/// # Errors
/// It was interrupted.
pub(crate) fn check_interrupted() -> Result<(), LabError> {
    if INTERRUPTED.load(Ordering::Relaxed) {
        Err(LabError::refused("interrupted: what was verified is stopped"))
    } else {
        Ok(())
    }
}

/// A lab that runs until this is dropped.
struct Run<'a> {
    place: &'a Place,
    lab: Lab,
}

impl<'a> Run<'a> {
    fn start(place: &'a Place, source: &Source, seed: &str) -> Result<Self, LabError> {
        check_interrupted()?;
        let meta = boot::start(place, source, seed, WebAt::Off)?;
        let lab = place.lab(&meta)?;
        let run = Self { place, lab };
        check_interrupted()?;
        Ok(run)
    }

    fn entrance(&self) -> Result<Entrance<'_>, LabError> {
        Entrance::new(self.place)
    }

    /// Does what solves a stage and answers its questions.
    fn solve(&self, stage: &Stage, answers: &mut Answers) -> Result<(), LabError> {
        let entrance = self.entrance()?;
        entrance.run_all(&stage.solve)?;
        for question in stage.questions() {
            answers.insert(question.name.clone(), check::answer(&entrance, question)?);
        }
        Ok(())
    }
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        // The start of the next one says what stands in its way.
        let _ = boot::stop(self.place);
    }
}

/// Each stage in turn: not done at first, done by its solution.
fn solved(
    place: &Place,
    source: &Source,
    seed: &str,
    say: &mut impl FnMut(&str),
    wrong: &mut Vec<String>,
) -> Result<(), LabError> {
    let run = Run::start(place, source, seed)?;
    let mut answers = Answers::new();
    for (number, stage) in run.lab.stages.iter().enumerate() {
        let title = format!("stage {} ({})", number + 1, stage.title);
        let before = check::stage(&run.entrance()?, stage, &answers, SHORT)?;
        for (task, result) in stage.tasks.iter().zip(&before) {
            let may_hold = matches!(&task.kind, TaskKind::Check(check) if check.holds);
            if result.passed && !may_hold {
                wrong.push(format!("{title}: \"{}\" holds before anything is done: ask for more, or say `holds = true` if it must only stay so", task.says));
            }
        }
        if before.iter().all(|result| result.passed) {
            wrong.push(format!("{title} is passed before anything is done"));
        }
        run.solve(stage, &mut answers)?;
        let after = check::stage(&run.entrance()?, stage, &answers, LONG)?;
        let failed: Vec<&TaskResult> = after.iter().filter(|result| !result.passed).collect();
        wrong.extend(failed.iter().map(|result| {
            format!(
                "{title}: its solution does not make \"{}\" hold; seen: {}",
                result.says,
                result.saw.as_deref().unwrap_or_default()
            )
        }));
        if !failed.is_empty() {
            // The next ones stand on it.
            return Ok(());
        }
        say(&format!("{title}: fails unsolved, passes solved"));
    }
    Ok(())
}

/// One stage, by what only seems to solve it.
fn misled(
    place: &Place,
    source: &Source,
    (seed, may_take): (&str, Duration),
    number: usize,
    say: &mut impl FnMut(&str),
    wrong: &mut Vec<String>,
) -> Result<(), LabError> {
    let run = Run::start(place, source, seed)?;
    let mut answers = Answers::new();
    for stage in &run.lab.stages[..number] {
        run.solve(stage, &mut answers)?;
    }
    let stage = &run.lab.stages[number];
    let title = format!("stage {} ({})", number + 1, stage.title);
    let entrance = run.entrance()?;
    // A learner goes on when one of the lines fails.
    let mut worked = false;
    for step in &stage.wrong {
        // These are the shell's for what cannot be run.
        worked |= !matches!(entrance.run(step)?.code, Some(126 | 127));
    }
    if !worked {
        wrong.push(format!("{title}: no line of `wrong` is a command that there is"));
    }
    // Its questions are answered as they should be: what was done must be found out by the checks.
    for question in stage.questions() {
        if let Ok(answer) = check::answer(&entrance, question) {
            answers.insert(question.name.clone(), answer);
        }
    }
    if check::stays_open(&entrance, stage, &answers, (SHORT, may_take))? {
        say(&format!("{title}: fails with a wrong solution"));
    } else {
        wrong.push(format!("{title} is passed by what only seems to solve it (`wrong`)"));
    }
    Ok(())
}
