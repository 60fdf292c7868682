//! Where a file is no TOML, so that the rest of it can be read all the same.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::table::TABLES;

/// The places of a file at which the parser stumbled, and what it made up around them.
#[derive(Debug, Default)]
pub(super) struct Damage {
    /// Bytes at which it stumbled.
    at: Vec<usize>,
    /// Where each table begins, in order, with its name.
    tables: Vec<(usize, String)>,
    /// Whether what it stumbled at heads a table, so that keys may be in another one than was meant.
    of_headers: bool,
}

impl Damage {
    /// What is damaged in a file with this text, from which `root` was read in spite of errors `at` these bytes.
    pub(super) fn of(text: &str, root: &DeTable<'_>, at: Vec<usize>) -> Self {
        let mut tables = Vec::new();
        for (name, value) in root {
            let mut begins = |value: &Spanned<DeValue<'_>>| tables.push((value.span().start, name.get_ref().to_string()));
            match value.get_ref() {
                DeValue::Array(entries) => entries.iter().for_each(&mut begins),
                _ => begins(value),
            }
        }
        tables.sort_unstable();
        let of_headers = at.iter().any(|at| text[line(text, *at)].trim_start().starts_with('['));
        Self { at, tables, of_headers }
    }

    /// Whether the table that begins there is damaged.
    pub(super) fn is_in_table(&self, start: usize) -> bool {
        let end = self.tables.iter().map(|(begin, _)| *begin).find(|begin| *begin > start).unwrap_or(usize::MAX);
        self.at.iter().any(|at| (start..end).contains(at))
    }

    /// Whether tables of this name may be among what is damaged.
    pub(super) fn may_hide(&self, name: &str) -> bool {
        let owner = |at: &usize| self.tables.iter().rev().find(|(begin, _)| begin <= at).map(|(_, name)| name.as_str());
        self.of_headers || self.at.iter().any(|at| owner(at).is_none_or(|owner| owner == name || !TABLES.contains(&owner)))
    }
}

/// What the parser stumbled at.
pub(super) struct Stumble {
    /// The byte.
    pub(super) at: usize,
    pub(super) message: String,
}

/// A text that parses as far as can be, with blanks in the place of the lines that do not, and what was wrong with those. The parser
/// itself goes on after an error, but gives up what follows some, and finds ten where one bracket is missing.
pub(super) fn repair(text: &str) -> (String, Vec<Stumble>) {
    let (mut repaired, mut stumbles, mut blank) = (text.to_owned(), Vec::new(), None::<Range<usize>>);
    for _ in 0..MOST_REPAIRS {
        let (_, errors) = DeTable::parse_recoverable(&repaired);
        let starts = errors.iter().map(|error| (error.span().unwrap_or_default().start, error.message()));
        let Some((at, message)) = starts.min_by_key(|(at, _)| *at) else { break };
        let lines = damaged_lines(&repaired, at);
        // The next line is only wrong because this one was.
        let follows = blank.as_ref().is_some_and(|blank| repaired[blank.end..lines.start.max(blank.end)].trim().is_empty());
        if !follows {
            stumbles.push(Stumble { at, message: message.to_owned() });
        }
        if repaired[lines.clone()].trim().is_empty() {
            break;
        }
        let spaces: String = repaired[lines.clone()].bytes().map(|byte| if byte == b'\n' { '\n' } else { ' ' }).collect();
        repaired.replace_range(lines.clone(), &spaces);
        blank = Some(lines);
    }
    (repaired, stumbles)
}

/// Most lines that are blanked out.
const MOST_REPAIRS: usize = 64;

/// The line that a byte is in; if it heads a table, up to the next heading, for what is between belongs to it.
fn damaged_lines(text: &str, at: usize) -> Range<usize> {
    let mut lines = line(text, at);
    if text[lines.clone()].trim_start().starts_with('[') {
        let next = text[lines.end..].find("\n[").map_or(text.len(), |next| lines.end + next);
        lines.end = next;
    }
    lines
}

/// The line that a byte is in, without its end.
fn line(text: &str, at: usize) -> Range<usize> {
    let at = at.min(text.len());
    let (before, after) = text.split_at_checked(at).unwrap_or((text, ""));
    before.rfind('\n').map_or(0, |newline| newline + 1)..at + after.find('\n').unwrap_or(after.len())
}
