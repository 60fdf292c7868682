//! A number of bytes as people write it, such as `64MiB`.

use std::str::FromStr;

use serde::Serialize;

use super::read::{Raw, Read, parsed};

/// A number of bytes, 1 to 1 TiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(into = "String")]
pub struct ByteSize(u64);

/// Not a size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is no size: use bytes with a unit, such as 64MiB, 100MB or 500kB")]
pub struct SizeError(String);

/// One letter alone means what it means to `head`, `split` and `tcpdump`'s kin: powers of 1024.
const UNITS: [(&str, u64); 10] = [
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("kb", 1000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
    ("k", 1 << 10),
    ("m", 1 << 20),
    ("g", 1 << 30),
    ("b", 1),
];

impl ByteSize {
    const MOST: u64 = 1 << 40;

    /// In bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for ByteSize {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Self, SizeError> {
        let wrong = || SizeError(text.escape_debug().to_string());
        let lower = text.to_ascii_lowercase();
        let unit = UNITS.iter().find_map(|(unit, bytes)| Some((lower.strip_suffix(unit)?, *bytes)));
        let (number, unit) = unit.unwrap_or((&lower, 1));
        if !number.starts_with(|first: char| first.is_ascii_digit()) {
            return Err(wrong());
        }
        let bytes = number.trim_end().parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
        bytes.filter(|bytes| (1..=Self::MOST).contains(bytes)).map(Self).ok_or_else(wrong)
    }
}

impl From<ByteSize> for String {
    fn from(ByteSize(bytes): ByteSize) -> Self {
        let unit = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)].into_iter().find(|(_, unit)| bytes % unit == 0);
        unit.map_or_else(|| format!("{bytes}B"), |(name, unit)| format!("{}{name}", bytes / unit))
    }
}

impl Read for ByteSize {
    fn read(raw: Raw) -> Result<Self, String> {
        parsed(raw, "a size such as \"64MiB\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        let size = |text: &str| text.parse::<ByteSize>().map(ByteSize::bytes);
        let read = ["64MiB", "1 kb", "10M", "3", "7B", "2GiB"].map(|text| size(text).unwrap());
        assert_eq!(read, [64 << 20, 1000, 10 << 20, 3, 7, 2 << 30]);
        for text in ["64MiB", "3GiB", "1000B"] {
            assert_eq!(String::from(text.parse::<ByteSize>().unwrap()), text);
        }
        for wrong in ["", "MiB", "-1k", "0", "1.5M", "2000g", "10s", "99999999999999999999k"] {
            assert!(size(wrong).unwrap_err().to_string().contains("is no size"), "{wrong}");
        }
    }
}
