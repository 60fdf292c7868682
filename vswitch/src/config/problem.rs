//! A sentence about `switch.toml` with its place. `file.rs` makes them, and `control` and `vswitchd --check` print them. Touches nothing.

use std::fmt;
use std::path::{Path, PathBuf};

/// Something that is wrong with a file, and where: `file:line:column: sentence`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    path: PathBuf,
    /// Line and column, both from 1, the column in characters.
    position: Option<(usize, usize)>,
    sentence: String,
}

impl Problem {
    /// A problem with the file as a whole.
    pub(super) fn of_file(path: &Path, sentence: String) -> Self {
        Self { path: path.to_owned(), position: None, sentence }
    }

    /// A problem at a byte of the file's text.
    pub(super) fn at(path: &Path, text: &str, offset: usize, sentence: String) -> Self {
        let before = text.get(..offset).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let position = (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1);
        Self { path: path.to_owned(), position: Some(position), sentence }
    }

    /// Where it stands, for putting problems in the order of the file.
    pub(super) fn position(&self) -> Option<(usize, usize)> {
        self.position
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.path.display())?;
        if let Some((line, column)) = self.position {
            write!(f, "{line}:{column}:")?;
        }
        write!(f, " {}", self.sentence)
    }
}
