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
        let said = |why: String| {
            let path = self.0.join(FILE);
            (Elsewhere::default(), Some(format!("{}: {why}: what was known of overlay networks is forgotten", path.display())))
        };
        match Directory::open(&self.0).and_then(|directory| directory.read(FILE)) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_or_else(|error| said(error.to_string()), |tables| (tables, None)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => (Elsewhere::default(), None),
            Err(error) => said(error.to_string()),
        }
    }

    /// Keeps tables.
    ///
    /// # Errors
    /// The disk is full or read-only.
    pub(crate) fn write(&self, tables: &Elsewhere) -> io::Result<()> {
        Directory::make(&self.0)?.write(FILE, &serde_json::to_vec(tables)?, None)
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
