//! Looks whether a stage is done: what must be so, and what was asked.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::LabError;
use crate::enter::{Entrance, Outcome};
use crate::file::{Answer, Check, Question, Stage, Task, TaskKind};
use crate::progress::TaskResult;

/// How often a check that may take its time is made again.
const AGAIN: Duration = Duration::from_millis(250);

/// Looks at every task of a stage. `patience` bounds how long a check may wait, whatever the lab says.
///
/// # Errors
/// A command could not be run at all.
pub(crate) fn stage(
    entrance: &Entrance<'_>,
    stage: &Stage,
    answers: &std::collections::BTreeMap<String, String>,
    patience: Duration,
) -> Result<Vec<TaskResult>, LabError> {
    let one = |task: &Task| {
        let saw = match &task.kind {
            TaskKind::Check(check) => wait(entrance, check, patience)?,
            TaskKind::Question(question) => ask(entrance, question, answers.get(&question.name))?,
        };
        Ok(TaskResult { says: task.says.clone(), passed: saw.is_none(), points: task.points, saw })
    };
    stage.tasks.iter().map(one).collect()
}

/// Whether a stage is not done, and does not come to be so in the time that a learner's check gives it. A check that takes long is waited for only
/// where no other shows it.
///
/// # Errors
/// A command could not be run at all.
pub(crate) fn stays_open(
    entrance: &Entrance<'_>,
    stage: &Stage,
    answers: &std::collections::BTreeMap<String, String>,
    (short, long): (Duration, Duration),
) -> Result<bool, LabError> {
    let first = self::stage(entrance, stage, answers, short)?;
    let mut open: Vec<&Check> = Vec::new();
    for (task, _) in stage.tasks.iter().zip(&first).filter(|(_, result)| !result.passed) {
        match &task.kind {
            TaskKind::Check(check) => open.push(check),
            TaskKind::Question(_) => return Ok(true),
        }
    }
    open.sort_by_key(|check| check.within);
    for check in open {
        if wait(entrance, check, long)?.is_some() {
            return Ok(true);
        }
    }
    // The last one took its time, in which another may have ceased to be so.
    Ok(self::stage(entrance, stage, answers, short)?.iter().any(|result| !result.passed))
}

/// What was seen instead of what must be so, once it has had the time that it may take.
fn wait(entrance: &Entrance<'_>, check: &Check, patience: Duration) -> Result<Option<String>, LabError> {
    let end = Instant::now() + check.within.min(patience);
    loop {
        let saw = instead(check, &entrance.run(&check.step)?);
        if saw.is_none() || Instant::now() >= end {
            return Ok(saw);
        }
        std::thread::sleep(AGAIN);
    }
}

/// What an outcome is instead of what it must be.
fn instead(check: &Check, outcome: &Outcome) -> Option<String> {
    if check.fails && !outcome.has_failed() {
        return Some(if outcome.is_well() { format!("it works: {}", outcome.seen()) } else { outcome.seen() });
    }
    if !check.fails && !outcome.is_well() {
        return Some(outcome.seen());
    }
    if check.hides.as_ref().is_some_and(|pattern| pattern.is_match(&outcome.text)) {
        return Some(outcome.seen());
    }
    let found = match &check.shows {
        None => return None,
        Some(pattern) => pattern.captures(&outcome.text),
    };
    let Some(found) = found else { return Some(outcome.seen()) };
    let [low, high] = check.between?;
    let number = found.get(1).and_then(|group| group.as_str().parse::<f64>().ok());
    match number {
        Some(number) if (low..=high).contains(&number) => None,
        Some(number) => Some(format!("{number}, and {low} to {high} is asked")),
        None => Some(outcome.seen()),
    }
}

/// What is wrong with the answer to a question. The right one is not told.
fn ask(entrance: &Entrance<'_>, question: &Question, given: Option<&String>) -> Result<Option<String>, LabError> {
    let Some(given) = given else {
        return Ok(Some(format!("not answered yet: vsctl lab answer {} ...", question.name)));
    };
    // A learner may have broken what would tell.
    let right = match answer(entrance, question) {
        Ok(right) => right,
        Err(LabError::Refused(why)) => return Ok(Some(why)),
        Err(other) => return Err(other),
    };
    Ok((!is_same(given, &right, question.tolerance)).then(|| format!("\"{given}\" is not right")))
}

/// The answer to a question.
pub(crate) fn answer(entrance: &Entrance<'_>, question: &Question) -> Result<String, LabError> {
    match &question.answer {
        Answer::Text(text) => Ok(text.clone()),
        Answer::Asked(step) => {
            let outcome = entrance.run(step)?;
            if !outcome.is_well() || outcome.text.trim().is_empty() {
                let sentence =
                    format!("what would answer \"{}\" is not there: \"{step}\" says {}", question.name, outcome.seen());
                return Err(LabError::Refused(sentence));
            }
            Ok(outcome.text.trim().to_owned())
        }
    }
}

/// Whether two answers mean the same: numbers, addresses, MAC addresses in any spelling, words in any case.
fn is_same(one: &str, other: &str, tolerance: f64) -> bool {
    if let (Ok(one), Ok(other)) = (one.trim().parse::<f64>(), other.trim().parse::<f64>()) {
        return (one - other).abs() <= other.abs() * tolerance;
    }
    if let (Ok(one), Ok(other)) = (one.trim().parse::<IpAddr>(), other.trim().parse::<IpAddr>()) {
        return one == other;
    }
    if let (Some(one), Some(other)) = (mac(one), mac(other)) {
        return one == other;
    }
    let plain = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase();
    plain(one) == plain(other)
}

fn mac(text: &str) -> Option<Vec<u8>> {
    let bytes: Option<Vec<u8>> = text.trim().split([':', '-']).map(|part| u8::from_str_radix(part, 16).ok()).collect();
    bytes.filter(|bytes| bytes.len() == 6)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::step::Step;

    fn check() -> Check {
        let step = Step::parse("$ x").unwrap();
        Check { step, fails: false, shows: None, hides: None, between: None, within: Duration::ZERO, holds: false }
    }

    fn seen(check: &Check, code: i32, text: &str) -> Option<String> {
        instead(check, &Outcome { code: Some(code), text: text.to_owned(), is_late: false })
    }

    #[test]
    fn a_check_says_what_it_saw_instead() {
        assert_eq!(seen(&check(), 0, ""), None);
        assert_eq!(seen(&check(), 1, "").as_deref(), Some("exit status 1"));
        assert_eq!(seen(&check(), 2, "a\nb\n").as_deref(), Some("a\nb"));
        let fails = Check { fails: true, ..check() };
        assert_eq!(seen(&fails, 1, "x"), None);
        assert_eq!(seen(&fails, 0, "x").as_deref(), Some("it works: x"));
        assert!(seen(&fails, 127, "sh: pign: not found").is_some(), "what does not run at all shows nothing");
        let hides = Check { hides: regex::Regex::new("b").ok(), ..check() };
        assert_eq!((seen(&hides, 0, "a"), seen(&hides, 0, "b")), (None, Some("b".to_owned())));
        let loss = Check { shows: regex::Regex::new(r"([\d.]+)% loss").ok(), between: Some([0.5, 1.5]), ..check() };
        assert_eq!(seen(&loss, 0, "1% loss"), None);
        assert_eq!(seen(&loss, 0, "2% loss").as_deref(), Some("2, and 0.5 to 1.5 is asked"));
        assert_eq!(seen(&loss, 0, "nothing lost").as_deref(), Some("nothing lost"));
    }

    #[test]
    fn an_answer_may_be_spelled_otherwise() {
        for (one, other) in
            [("42", " 42 "), ("02-00-0A:0:0:1", "02:00:0a:00:00:01"), ("FD00:0::1", "fd00::1"), ("Blue  Host", "blue host")]
        {
            assert!(is_same(one, other, 0.0), "{one} {other}");
        }
        for (one, other) in [("43", "42"), ("10.0.0.1", "10.0.0.2"), ("a", "b"), ("", "0")] {
            assert!(!is_same(one, other, 0.0), "{one} {other}");
        }
        assert!(is_same("104", "100", 0.05) && !is_same("106", "100", 0.05));
    }
}
