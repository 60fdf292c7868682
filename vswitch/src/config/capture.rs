//! `[capture]` of `switch.toml`: the flight recorder.

use api::ByteSize;
use api::read::read;
use serde::{Deserialize, Deserializer, Serialize};

fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<ByteSize>, D::Error> {
    read(deserializer).map(Some)
}

/// How captures are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct CaptureSettings {
    /// Memory for the last frames of every port, of all workers together; `None`: the recorder is off.
    #[serde(deserialize_with = "size", skip_serializing_if = "Option::is_none")]
    pub recorder: Option<ByteSize>,
}

impl CaptureSettings {
    const LEAST: u64 = 1 << 20;
    const MOST: u64 = 16 << 30;

    /// What is wrong with it.
    pub(super) fn problem(&self) -> Option<String> {
        let is_wrong = self.recorder.is_some_and(|size| !(Self::LEAST..=Self::MOST).contains(&size.bytes()));
        is_wrong.then(|| "`recorder` is out of range: use 1MiB to 16GiB".to_owned())
    }

    /// Memory for each of so many workers, in bytes.
    pub fn recorder_of(&self, workers: usize) -> Option<usize> {
        let bytes = usize::try_from(self.recorder?.bytes()).ok()?;
        Some(bytes / workers.max(1))
    }
}
