//! A document that is typed as it is printed, and what it says came back, compared with what does.
//!
//! - In a `sh` block all is typed. In a `console` block, lines with `$ ` are typed on the host and lines with `other$ ` outside; the
//!   others are the output, which must hold them in this order, other lines between them or not.
//! - `…` stands for any text. Runs of blanks count as one, for columns are as wide as what is in them.

use std::path::Path;

use crate::{DockerHost, program};

/// Where one command's output ends and that of the next begins.
const MARK: char = '\u{1}';

/// The commands of a document of `docs`, or of one part of it.
pub struct Tour {
    name: String,
    steps: Vec<Step>,
}

/// What is typed, and the lines that come back.
#[derive(Default)]
struct Step {
    line: usize,
    typed: String,
    promised: Vec<String>,
}

impl Tour {
    /// All of `docs/NAME`.
    ///
    /// # Panics
    /// If it cannot be read.
    pub fn of(name: &str) -> Self {
        Self::between(name, |_| true)
    }

    /// What `docs/NAME` has under this heading of the second level.
    ///
    /// # Panics
    /// If it cannot be read.
    pub fn of_part(name: &str, heading: &str) -> Self {
        Self::between(name, |current| current == heading)
    }

    fn between(name: &str, is_wanted: impl Fn(&str) -> bool) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name);
        let text = std::fs::read_to_string(path).expect("a document");
        Self { name: name.to_owned(), steps: steps(&text, is_wanted) }
    }

    /// How many commands it has.
    pub fn len(&self) -> usize {
        self.steps.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Types all of it on a host, after lines that the document does not show, in a directory that looks like one of the sources in which all is built.
    ///
    /// # Panics
    /// If a command prints something else than the document promises, or all of them take more than five minutes.
    #[track_caller]
    pub fn run(&self, host: &DockerHost, before: &str) {
        let typed: String = self.steps.iter().map(|step| format!("printf '\\n{MARK}\\n'\n{}\n", step.typed)).collect();
        let built = program("vsctl");
        let built = built.parent().expect("a directory").display();
        let place = format!("mkdir -p /run/tour.d/target; cd /run/tour.d; ln -s {built} target/release");
        host.write("/run/tour", &format!("exec 2>&1\n{place}\n{before}\n{typed}exit 0\n"));
        let outcome = host.sh_within(300, "bash /run/tour");
        let outputs: Vec<&str> = outcome.stdout.split(MARK).skip(1).collect();
        assert_eq!((outputs.len(), outcome.code), (self.steps.len(), Some(0)), "it ended early: {outcome:#?}");
        let faults: Vec<String> = self.steps.iter().zip(outputs).filter_map(|(step, output)| fault(step, output)).collect();
        assert!(faults.is_empty(), "docs/{} promises otherwise:\n\n{}", self.name, faults.join("\n"));
    }
}

fn steps(text: &str, is_wanted: impl Fn(&str) -> bool) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let (mut block, mut heading) = ("", "");
    for (index, line) in text.lines().enumerate() {
        let line_number = index + 1;
        if block.is_empty() {
            heading = line.strip_prefix("## ").unwrap_or(heading);
        }
        if !is_wanted(heading) {
            continue;
        }
        if let Some(kind) = line.strip_prefix("```") {
            block = if block.is_empty() { kind } else { "" };
            if block == "sh" {
                steps.push(Step { line: line_number, ..Step::default() });
            }
        } else if block == "sh" {
            let step = steps.last_mut().expect("a command above it");
            step.typed += line;
            step.typed.push('\n');
        } else if block == "console" {
            let continued = steps.last().is_some_and(|step| step.typed.ends_with('\\') && step.promised.is_empty());
            match (line.strip_prefix("$ "), line.strip_prefix("other$ ")) {
                (Some(typed), _) => steps.push(Step { line: line_number, typed: typed.to_owned(), promised: Vec::new() }),
                (_, Some(typed)) => {
                    steps.push(Step { line: line_number, typed: format!("outside {typed}"), promised: Vec::new() })
                }
                _ if continued => steps.last_mut().expect("a command above it").typed += &format!("\n{line}"),
                _ => steps.last_mut().expect("a command above it").promised.push(line.to_owned()),
            }
        }
    }
    steps
}

/// What is wrong with the output of a step.
fn fault(step: &Step, output: &str) -> Option<String> {
    let mut lines = output.lines();
    let missing = step.promised.iter().find(|promised| !lines.any(|line| matches(&squeezed(promised), &squeezed(line))))?;
    Some(format!("line {}: {}\n  promised {missing}\n  but came\n{}", step.line, step.typed, output.trim()))
}

fn squeezed(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Whether the line is the pattern, with any text where that has `…`.
fn matches(pattern: &str, line: &str) -> bool {
    let mut parts = pattern.split('…');
    let Some(mut rest) = line.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let mut last = "";
    let mut is_whole = true;
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
        (last, is_whole) = (part, false);
    }
    if is_whole { rest.is_empty() } else { last.is_empty() || line.ends_with(last) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_what_they_should() {
        for (pattern, line, holds) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("a…", "ab", true),
            ("…b", "ab", true),
            ("…b", "bab", true),
            ("…b", "abc", false),
            ("a…c…e", "abcde", true),
            ("a…c…e", "abde", false),
        ] {
            assert_eq!(matches(pattern, line), holds, "{pattern} {line}");
        }
    }
}
