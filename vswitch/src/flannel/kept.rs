//! The file that keeps this host's subnet, so that it has the same after a restart, with etcd or without.

use std::io;
use std::path::{Path, PathBuf};

use super::FlannelTables;
use crate::keep::Directory;

/// `flannel.json` in the directory of the state.
#[derive(Clone, Debug)]
pub(crate) struct FlannelFile(PathBuf);

const FILE: &str = "flannel.json";

impl FlannelFile {
    /// The file in this directory.
    pub(crate) fn new(directory: &Path) -> Self {
        Self(directory.to_owned())
    }

    /// What was kept of the network with this prefix, and what is to be said. The first start keeps the MAC address that it chose.
    pub(crate) fn read(&self, prefix: &str) -> (FlannelTables, Option<String>) {
        let fresh = || FlannelTables::default().of(prefix);
        match Directory::read_json::<FlannelTables>(&self.0, FILE) {
            Ok(Some(tables)) => (tables.of(prefix), None),
            Ok(None) => {
                let tables = fresh();
                let unkept = self.write(&tables).err();
                (tables, unkept.map(|error| format!("flannel's network cannot be kept for the next start: {error}")))
            }
            Err(why) => (fresh(), Some(format!("{why}: etcd is asked for this host's subnet"))),
        }
    }

    /// Keeps what is known.
    ///
    /// # Errors
    /// The disk is full or read-only.
    pub(crate) fn write(&self, tables: &FlannelTables) -> io::Result<()> {
        Directory::write_json(&self.0, FILE, tables)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subnet_comes_back_and_a_damaged_file_is_told() {
        let place = tempfile::tempdir().unwrap();
        let kept = FlannelFile::new(&place.path().join("state"));
        let (mut tables, note) = kept.read("/x");
        assert_eq!((note, kept.read("/x").0.mac), (None, tables.mac), "its MAC address is chosen once");
        tables.table.own = "10.244.5.0/24".parse().ok();
        kept.write(&tables).unwrap();
        assert_eq!(kept.read("/x"), (tables.clone(), None));
        assert_eq!((kept.read("/y").0.table.own, kept.read("/y").0.mac), (None, tables.mac));
        std::fs::write(place.path().join("state").join(FILE), "{").unwrap();
        let (tables, note) = kept.read("/x");
        assert!(tables.table.own.is_none() && note.unwrap().contains("flannel.json: "));
    }
}
