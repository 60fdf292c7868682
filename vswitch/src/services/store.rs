//! What outlives the process: leases given out, and the uplinks' own.
//!
//! A crash at any moment leaves this version or the one before. A file that is not what was written costs what is in it and
//! nothing else: its clients are found again by the hash of their identifiers, and an uplink asks from the beginning.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::leases::Lease;
use crate::keep::Directory;
use api::BridgeName;

/// Leases by bridge, IPv4 and IPv6 together.
pub(super) type KeptLeases = BTreeMap<BridgeName, Vec<Lease>>;

/// A file that holds one value as JSON.
#[derive(Debug)]
pub(super) struct Store {
    path: PathBuf,
    /// Whether the last write failed, so that a full disk is one line in the log.
    failed: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document<T> {
    vswitch: u32,
    value: T,
}

/// The format of the files.
const VERSION: u32 = 1;

impl Store {
    pub(super) const fn new(path: PathBuf) -> Self {
        Self { path, failed: false }
    }

    /// What was kept; nothing the first time, and, with a warning, if the file is damaged.
    pub(super) fn read<T: DeserializeOwned + Default>(&self) -> T {
        match self.read_value() {
            Ok(value) => value,
            Err(error) if error.kind() == io::ErrorKind::NotFound => T::default(),
            Err(error) => {
                let path = self.path.display();
                tracing::warn!("{path}: not what vswitchd wrote ({error}): starting without, it will be replaced");
                T::default()
            }
        }
    }

    /// Keeps a value. If that fails, the log says so once.
    pub(super) fn write<T: Serialize>(&mut self, value: &T) {
        let failed = self.write_value(value).err();
        if let Some(error) = failed.as_ref().filter(|_| !self.failed) {
            tracing::warn!("{}: {error}: leases are not kept across a restart until it can be written", self.path.display());
        }
        self.failed = failed.is_some();
    }

    /// Forgets what was kept.
    pub(super) fn remove(&self) {
        // One that was never written is forgotten already.
        let _ = Directory::open(self.directory()).and_then(|directory| directory.remove(self.name()));
    }
}

impl Store {
    fn name(&self) -> &str {
        self.path.file_name().and_then(OsStr::to_str).unwrap_or_default()
    }

    fn directory(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("."))
    }

    fn read_value<T: DeserializeOwned>(&self) -> io::Result<T> {
        let bytes = Directory::open(self.directory())?.read(self.name())?;
        let document: Document<T> = serde_json::from_slice(&bytes)?;
        if document.vswitch == VERSION {
            Ok(document.value)
        } else {
            Err(io::Error::other(format!("format {} instead of {VERSION}", document.vswitch)))
        }
    }

    fn write_value<T: Serialize>(&self, value: &T) -> io::Result<()> {
        let bytes = serde_json::to_vec(&Document { vswitch: VERSION, value })?;
        Directory::make(self.directory())?.write(self.name(), &bytes, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_value_is_found_again() {
        let directory = tempfile::tempdir().unwrap();
        let mut store = Store::new(directory.path().join("deep/leases.json"));
        assert!(store.read::<Vec<u32>>().is_empty());
        store.write(&vec![1, 2, 3]);
        assert_eq!(store.read::<Vec<u32>>(), [1, 2, 3]);
        store.remove();
        assert!(store.read::<Vec<u32>>().is_empty());
    }

    #[test]
    fn another_format_is_as_good_as_none() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::new(directory.path().join("leases.json"));
        std::fs::write(&store.path, r#"{"vswitch":2,"value":[1]}"#).unwrap();
        assert!(store.read::<Vec<u32>>().is_empty());
    }

    proptest! {
        #[test]
        fn a_damaged_file_is_as_good_as_none(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let directory = tempfile::tempdir().unwrap();
            let store = Store::new(directory.path().join("leases.json"));
            std::fs::write(&store.path, bytes).unwrap();
            prop_assert_eq!(store.read::<KeptLeases>(), KeptLeases::new());
        }
    }
}
