//! What outlives the process: leases given out, and the uplinks' own.
//!
//! A crash at any moment leaves this version or the one before. A file that is not what was written costs what is in it and
//! nothing else: its clients are found again by the hash of their identifiers, and an uplink asks from the beginning.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::leases::Lease;
use crate::api::BridgeName;

/// Leases by bridge, IPv4 and IPv6 together.
pub(super) type Kept = BTreeMap<BridgeName, Vec<Lease>>;

/// No file of ours is longer.
const LONGEST: u64 = 64 << 20;

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
        match read(&self.path) {
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
        let failed = write(&self.path, &Document { vswitch: VERSION, value }).err();
        if let Some(error) = failed.as_ref().filter(|_| !self.failed) {
            tracing::warn!("{}: {error}: leases are not kept across a restart until it can be written", self.path.display());
        }
        self.failed = failed.is_some();
    }

    /// Forgets what was kept.
    pub(super) fn remove(&self) {
        // One that was never written is forgotten already.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> io::Result<T> {
    let mut bytes = Vec::new();
    File::open(path)?.take(LONGEST).read_to_end(&mut bytes)?;
    let document: Document<T> = serde_json::from_slice(&bytes)?;
    if document.vswitch == VERSION {
        Ok(document.value)
    } else {
        Err(io::Error::other(format!("format {} instead of {VERSION}", document.vswitch)))
    }
}

fn write<T: Serialize>(path: &Path, document: &Document<T>) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let new = path.with_extension("json.new");
    let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(&serde_json::to_vec(document)?)?;
    file.sync_all()?;
    std::fs::rename(&new, path)?;
    File::open(directory)?.sync_all()
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
            prop_assert_eq!(store.read::<Kept>(), Kept::new());
        }
    }
}
