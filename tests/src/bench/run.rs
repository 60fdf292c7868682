//! A run: contenders opened, measured in turns (A B C A B C), and closed, path by path.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use super::comparison::{Comparison, Series};
use super::contender::{Contender, Place};
use super::measure::{Figures, Measure, Metric};
use super::paths::{self, Path};
use super::report::{Machine, Report};
use super::{alone, scale};
use crate::interrupt::interrupted;
use crate::require::found;

/// How a run is made.
pub struct Options {
    /// Paths, measures or `path/measure`; none: all.
    pub only: Vec<String>,
    /// Rounds.
    pub pairs: usize,
    /// Seconds of the longest measure.
    pub seconds: u64,
    /// Leave out what takes long.
    pub quick: bool,
    /// Where Open vSwitch with DPDK is unpacked, if it is not installed.
    pub dpdk: std::path::PathBuf,
}

/// A run under way.
pub struct Run {
    /// How it is made.
    pub(crate) options: Options,
    comparisons: Vec<Comparison>,
    absent: BTreeSet<String>,
}

/// The user does not want the rest.
#[derive(Debug)]
pub struct Interrupted;

/// A contender of a comparison, and how it is measured once; it panics where it cannot.
pub(crate) struct Entry<'a> {
    /// Its name.
    pub(crate) contender: &'static str,
    /// Measures.
    pub(crate) run: Box<dyn Fn() -> Figures + 'a>,
}

/// A contender that was opened, and where.
type Opened = (&'static Contender, Place);

impl Run {
    /// Runs all that the options ask for.
    ///
    /// # Errors
    /// If it was interrupted; by then all is cleared away.
    pub fn all(options: Options) -> Result<Report, Interrupted> {
        let machine = Machine::here();
        let mut run = Self { options, comparisons: Vec::new(), absent: BTreeSet::new() };
        for path in paths::PATHS {
            run.path(path)?;
        }
        scale::measure(&mut run)?;
        alone::measure(&mut run)?;
        let Self { options, comparisons, absent } = run;
        let Options { pairs, seconds, .. } = options;
        Ok(Report { machine, pairs, seconds, comparisons, absent: absent.into_iter().collect() })
    }

    fn path(&mut self, path: &'static Path) -> Result<(), Interrupted> {
        let measures: Vec<&Measure> =
            path.measures.iter().copied().filter(|measure| self.wants(path.name, measure.name)).collect();
        if measures.is_empty() {
            return Ok(());
        }
        let mut opened: Vec<Opened> = Vec::new();
        for contender in path.contenders {
            let needed = measures.iter().any(|measure| contender.takes_part(measure.name));
            if needed && contender.needs.iter().all(|need| self.has(contender.name, path.name, need.tool, need.package)) {
                eprintln!("{}: starting {}", path.name, contender.name);
                match attempt(contender.open)? {
                    Ok(place) => opened.push((contender, place)),
                    Err(reason) => self.lacks(contender.name, path.name, &format!("it did not start: {reason}")),
                }
            }
        }
        // Without the first contender there is nothing to compare with.
        if opened.first().is_none_or(|(contender, _)| contender.name != path.contenders[0].name) {
            return Ok(());
        }
        let seconds = self.options.seconds;
        for measure in measures {
            let part = opened.iter().filter(|(contender, _)| contender.takes_part(measure.name));
            let entries: Vec<Entry<'_>> = part.map(|opened| entry(opened, measure, seconds)).collect();
            self.compare(path.name, measure.name, measure.metrics, measure.rounds, &entries)?;
        }
        Ok(())
    }

    /// Measures contenders in turns, in as many rounds as the options say, at most `rounds`; nothing if it is not asked for.
    ///
    /// # Errors
    /// If the run was interrupted.
    pub(crate) fn compare(
        &mut self,
        path: &'static str,
        measure: &'static str,
        metrics: &'static [Metric],
        rounds: usize,
        entries: &[Entry<'_>],
    ) -> Result<(), Interrupted> {
        if !self.wants(path, measure) {
            return Ok(());
        }
        let mut series: Vec<Series> =
            entries.iter().map(|entry| Series { contender: entry.contender, runs: Vec::new() }).collect();
        let rounds = self.options.pairs.min(rounds);
        for round in 1..=rounds {
            for (entry, series) in entries.iter().zip(&mut series) {
                let begun = Instant::now();
                let figures = attempt(&entry.run)?;
                let time = begun.elapsed().as_secs_f64();
                eprintln!("{path}/{measure} {round}/{rounds}, {}: {} ({time:.1} s)", entry.contender, said(metrics, &figures));
                series.runs.push(figures);
            }
        }
        self.comparisons.push(Comparison { path, measure, metrics, series });
        Ok(())
    }

    /// Whether the options ask for a measure of a path.
    pub(crate) fn wants(&self, path: &str, measure: &str) -> bool {
        let names = |word: &String| word == path || word == measure || word.split_once('/') == Some((path, measure));
        self.options.only.is_empty() || self.options.only.iter().any(names)
    }

    /// Whether a program is there. If not, notes that the contender does not take part.
    pub(crate) fn has(&mut self, contender: &str, path: &str, tool: &str, package: &str) -> bool {
        let there = found(tool);
        if !there {
            self.lacks(contender, path, &format!("there is no {tool}; the package {package} has it"));
        }
        there
    }

    /// Notes that a contender does not take part in a path.
    pub(crate) fn lacks(&mut self, contender: &str, path: &str, reason: &str) {
        let sentence = format!("{contender} is not in {path}: {reason}");
        if self.absent.insert(sentence.clone()) {
            eprintln!("{sentence}");
        }
    }
}

fn entry<'a>((contender, place): &'a Opened, measure: &'a Measure, seconds: u64) -> Entry<'a> {
    Entry { contender: contender.name, run: Box::new(move || (measure.run)(place, seconds)) }
}

/// Does what may panic; the message is the reason why it failed.
fn attempt<T>(what: impl Fn() -> T) -> Result<Result<T, String>, Interrupted> {
    if interrupted() {
        return Err(Interrupted);
    }
    let outcome = catch_unwind(AssertUnwindSafe(what));
    // By then it has been cleared away, also what it made.
    if interrupted() {
        return Err(Interrupted);
    }
    Ok(outcome.map_err(|panic| {
        let message = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
        let message = message.unwrap_or("it says nothing").split_whitespace().collect::<Vec<_>>().join(" ");
        message.chars().take(MESSAGE).collect()
    }))
}

fn said(metrics: &[Metric], figures: &Result<Figures, String>) -> String {
    let figures = match figures {
        Ok(figures) => figures,
        Err(reason) => return format!("failed: {reason}"),
    };
    let one = |(metric, figure): (&Metric, &Option<f64>)| {
        let figure = figure.map_or_else(|| "n/a".to_owned(), super::table::short);
        format!("{} {figure}", metric.name.trim_start())
    };
    metrics.iter().zip(figures).map(one).collect::<Vec<_>>().join("; ")
}

/// Sleeps, but wakes up for Ctrl-C.
pub(crate) fn sleep(time: Duration) {
    let begun = Instant::now();
    while begun.elapsed() < time {
        assert!(!interrupted(), "interrupted");
        std::thread::sleep(Duration::from_millis(50).min(time));
    }
}

/// What of a reason is kept.
const MESSAGE: usize = 300;

#[cfg(test)]
mod tests {
    use super::*;

    fn run(only: &[&str]) -> Run {
        let only = only.iter().map(|word| (*word).to_owned()).collect();
        let options = Options { only, pairs: 3, seconds: 1, quick: true, dpdk: "/".into() };
        Run { options, comparisons: Vec::new(), absent: BTreeSet::new() }
    }

    #[test]
    fn words_choose_paths_measures_or_one_of_both() {
        let run = run(&["tap", "ping", "nat/tcp"]);
        assert!(run.wants("tap", "tcp") && run.wants("veth", "ping") && run.wants("nat", "tcp"));
        assert!(!run.wants("veth", "tcp") && !run.wants("nat", "sessions"));
        assert!(self::run(&[]).wants("any", "thing"));
    }

    #[test]
    fn contenders_take_turns_and_one_that_fails_says_why() {
        let order = std::cell::RefCell::new(String::new());
        let order_of_all = &order;
        let entry = |contender, word: char| Entry {
            contender,
            run: Box::new(move || {
                let mut order = order_of_all.borrow_mut();
                order.push(word);
                assert!(*order != "ABA", "it is\n\n  stuck");
                vec![Some(1.0)]
            }),
        };
        static METRICS: [Metric; 1] = [Metric { name: "x", less: false }];
        let mut run = run(&[]);
        let entries = [entry("one", 'A'), entry("other", 'B')];
        run.compare("p", "m", &METRICS, 2, &entries).expect("not interrupted");
        drop(entries);
        assert_eq!(*order.borrow(), "ABAB", "no more rounds than the measure wants");
        assert_eq!(run.comparisons[0].series[0].failures(), Some((1, "it is stuck")));
        assert_eq!(run.comparisons[0].series[1].failures(), None);
    }

    #[test]
    fn who_is_missing_is_named_once_with_the_package() {
        let mut run = run(&[]);
        assert!(!run.has("X", "p", "no-such-tool", "x-utils") && !run.has("X", "p", "no-such-tool", "x-utils"));
        let absent: Vec<&String> = run.absent.iter().collect();
        assert_eq!(absent, ["X is not in p: there is no no-such-tool; the package x-utils has it"]);
    }
}
