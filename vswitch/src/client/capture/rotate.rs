//! When a capture goes on in another file, and what the files are called.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use api::ByteSize;
use api::read::time;

/// When another file begins, and how many stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rotation {
    pub(super) rotate: Rotate,
    /// `None`: all.
    pub(super) files: Option<usize>,
}

/// When another file begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rotate {
    /// When one has so many bytes.
    Bytes(u64),
    /// When one is so old.
    After(Duration),
}

/// Smallest size of a file: what is before its packets takes some of it.
const LEAST: u64 = 4096;

impl FromStr for Rotate {
    type Err = String;

    /// A size or a time. `10M` is a size and `10m` a time, as the units of both are written.
    fn from_str(text: &str) -> Result<Self, String> {
        let is_time = text.ends_with(|last: char| last.is_ascii_lowercase()) && !text.to_ascii_lowercase().ends_with('b');
        if is_time && !text.ends_with('k') {
            let after = time(text)?;
            return if after < Duration::from_secs(1) {
                Err(format!("{text} is too short: use 1s or more"))
            } else {
                Ok(Self::After(after))
            };
        }
        match text.parse::<ByteSize>() {
            Ok(size) if size.bytes() < LEAST => Err(format!("{text} is too small: use 4KiB or more")),
            Ok(size) => Ok(Self::Bytes(size.bytes())),
            Err(_) => Err(format!("\"{}\" is no size and no time: use one such as 100MB, or 10m", text.escape_debug())),
        }
    }
}

/// The file with this number, from 1: `dump.00001.pcapng` for `dump.pcapng`.
pub(super) fn numbered(path: &Path, number: u64) -> PathBuf {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let ending = path.extension().map(|ending| format!(".{}", ending.to_string_lossy())).unwrap_or_default();
    path.with_file_name(format!("{stem}.{number:05}{ending}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_or_a_time() {
        let read = |text: &str| text.parse::<Rotate>();
        assert_eq!(read("10M"), Ok(Rotate::Bytes(10 << 20)));
        assert_eq!(read("100MB"), Ok(Rotate::Bytes(100_000_000)));
        assert_eq!(read("64k"), Ok(Rotate::Bytes(65_536)));
        assert_eq!(read("10m"), Ok(Rotate::After(Duration::from_secs(600))));
        assert_eq!(read("90s"), Ok(Rotate::After(Duration::from_secs(90))));
        for wrong in ["", "x", "10ms", "1k", "0s", "ten"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn files_are_numbered_before_their_ending() {
        assert_eq!(numbered(Path::new("/tmp/dump.pcapng"), 7), Path::new("/tmp/dump.00007.pcapng"));
        assert_eq!(numbered(Path::new("dump"), 123_456), Path::new("dump.123456"));
    }
}
