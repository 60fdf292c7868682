//! Rates of traffic as users write them, such as `10mbit`. Port specifications hold them, and the limiters of the data plane are made from them.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::read::{Raw, Read};

/// A rate in bits a second, 8000 to 10^12, as tc(8) writes it: `10mbit`, `1gbit`, or a bare number of bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Rate(u64);

/// Not a rate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is no rate: use bits a second from 8kbit to 1tbit, such as 500kbit, 10mbit or 1gbit")]
pub struct RateError(String);

const UNITS: [(&str, u64); 5] =
    [("tbit", 1_000_000_000_000), ("gbit", 1_000_000_000), ("mbit", 1_000_000), ("kbit", 1000), ("bit", 1)];

impl Rate {
    const LEAST: u64 = 8000;
    const MOST: u64 = 1_000_000_000_000;

    /// The rate in bits a second.
    pub const fn bits_per_second(self) -> u64 {
        self.0
    }
}

impl FromStr for Rate {
    type Err = RateError;

    fn from_str(text: &str) -> Result<Self, RateError> {
        let wrong = || RateError(text.escape_debug().to_string());
        let lower = text.to_ascii_lowercase();
        let unit = UNITS.iter().find_map(|(unit, bits)| Some((lower.strip_suffix(unit)?, *bits)));
        let (number, bits) = unit.unwrap_or((&lower, 1));
        if !number.starts_with(|first: char| first.is_ascii_digit()) {
            return Err(wrong());
        }
        let rate = number.parse::<u64>().ok().and_then(|number| number.checked_mul(bits)).ok_or_else(wrong)?;
        if (Self::LEAST..=Self::MOST).contains(&rate) { Ok(Self(rate)) } else { Err(wrong()) }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, bits) = UNITS.into_iter().find(|(_, bits)| self.0.is_multiple_of(*bits)).unwrap_or(("bit", 1));
        write!(f, "{}{unit}", self.0 / bits)
    }
}

impl Read for Rate {
    fn read(raw: Raw) -> Result<Self, String> {
        let text = match raw {
            // A bare number is one of bits, as in tc(8).
            Raw::Number(bits) => bits.to_string(),
            raw => raw.text("a rate such as \"10mbit\"")?,
        };
        text.parse().map_err(|error: RateError| error.to_string())
    }
}

impl TryFrom<String> for Rate {
    type Error = RateError;

    fn try_from(text: String) -> Result<Self, RateError> {
        text.parse()
    }
}

impl From<Rate> for String {
    fn from(rate: Rate) -> Self {
        rate.to_string()
    }
}

/// A number of frames a second, 1 to 4294967295.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FrameRate(NonZeroU32);

impl FrameRate {
    /// So many frames a second; `None`: not even one.
    pub const fn new(frames: u32) -> Option<Self> {
        match NonZeroU32::new(frames) {
            Some(frames) => Some(Self(frames)),
            None => None,
        }
    }

    /// Frames in a second.
    pub const fn frames(self) -> u32 {
        self.0.get()
    }
}

impl fmt::Display for FrameRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/s", self.0)
    }
}

impl Read for FrameRate {
    fn read(raw: Raw) -> Result<Self, String> {
        let number = i64::read(raw)?;
        match u32::try_from(number).map(Self::new) {
            Ok(Some(rate)) => Ok(rate),
            Ok(None) => Err("is 0, which would cut off ARP: use 1 or more frames a second, or leave it out".to_owned()),
            Err(_) => Err(format!("is {number}, out of range: use 1 to 4294967295 frames a second, or leave it out")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_and_written_alike() {
        for (text, bits) in [("10mbit", 10_000_000), ("1gbit", 1_000_000_000), ("1500kbit", 1_500_000), ("8001bit", 8001)] {
            let rate: Rate = text.parse().unwrap();
            assert_eq!((rate.bits_per_second(), rate.to_string().as_str()), (bits, text));
        }
        assert_eq!("1000000".parse::<Rate>().unwrap().to_string(), "1mbit");
        assert_eq!("10MBit".parse::<Rate>().unwrap().to_string(), "10mbit");
    }

    #[test]
    fn what_is_no_rate_is_refused() {
        for text in
            ["", "0", "7kbit", "2tbit", "-1mbit", "+1mbit", "1.5mbit", "1mbps", "mbit", "1 mbit", "99999999999999999999gbit"]
        {
            let error = text.parse::<Rate>().unwrap_err().to_string();
            assert!(error.contains(text) && error.contains("10mbit"), "{error}");
        }
    }
}
