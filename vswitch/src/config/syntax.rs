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

    /// Whether a key and its value are damaged, or in a line that is.
    pub(super) fn is_in_value(&self, text: &str, key: Range<usize>, value: Range<usize>) -> bool {
        let lines = line(text, key.start).start..line(text, value.end.max(key.end)).end + 1;
        self.at.iter().any(|at| lines.contains(at))
    }
}

/// The line that a byte is in, without its end.
fn line(text: &str, at: usize) -> Range<usize> {
    let at = at.min(text.len());
    let (before, after) = text.split_at_checked(at).unwrap_or((text, ""));
    before.rfind('\n').map_or(0, |newline| newline + 1)..at + after.find('\n').unwrap_or(after.len())
}
