//! The file that keeps the tables, so that a start without the store goes on with them.

use std::io;
use std::path::{Path, PathBuf};

use super::Elsewhere;
use crate::keep::Directory;

/// `overlay.json` in the directory of the state.
#[derive(Clone, Debug)]
pub(crate) struct OverlayFile(PathBuf);

const FILE: &str = "overlay.json";

impl OverlayFile {
    /// The file in this directory.
    pub(crate) fn new(directory: &Path) -> Self {
        Self(directory.to_owned())
    }

    /// The tables that were kept, or none. What cannot be read is said, and forgotten: the store has it too.
    pub(crate) fn read(&self) -> (Elsewhere, Option<String>) {
        match Directory::read_json(&self.0, FILE) {
            Ok(tables) => (tables.unwrap_or_default(), None),
            Err(why) => (Elsewhere::default(), Some(format!("{why}: what was known of overlay networks is forgotten"))),
        }
    }

    /// Keeps tables.
    ///
    /// # Errors
    /// The disk is full or read-only.
    pub(crate) fn write(&self, tables: &Elsewhere) -> io::Result<()> {
        Directory::write_json(&self.0, FILE, tables)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_come_back_and_a_damaged_file_is_told() {
        let place = tempfile::tempdir().unwrap();
        let kept = OverlayFile::new(place.path());
        assert_eq!(kept.read(), (Elsewhere::default(), None));
        let tables = Elsewhere { cluster: Some("c1".to_owned()), ..Elsewhere::default() };
        kept.write(&tables).unwrap();
        assert_eq!(kept.read(), (tables, None));
        std::fs::write(place.path().join(FILE), "{").unwrap();
        let (tables, note) = kept.read();
        assert!(tables == Elsewhere::default() && note.unwrap().contains("overlay.json: "));
    }
}
