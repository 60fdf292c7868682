//! Shares and times as the words of an impairment have them.

use std::fmt;
use std::time::Duration;

/// A share of packets, 0 to 100 %, in millionths of a percent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Percent(u32);

impl Percent {
    /// None.
    pub const NONE: Self = Self(0);
    /// All.
    pub const ALL: Self = Self(Self::WHOLE);
    /// What makes all of them.
    const WHOLE: u32 = 100_000_000;

    /// As a probability from 0 to 1.
    pub fn probability(self) -> f64 {
        f64::from(self.0) / f64::from(Self::WHOLE)
    }

    /// Whether a packet belongs to the share, of a number drawn evenly from all that there are.
    pub const fn takes(self, drawn: u64) -> bool {
        // The upper half of the number, scaled to 0..WHOLE.
        ((drawn >> 32) * Self::WHOLE as u64) >> 32 < self.0 as u64
    }

    /// Reads a number with a percent sign.
    pub(super) fn read(word: &str) -> Result<Self, String> {
        let Some(number) = word.strip_suffix('%') else {
            return Err("write a share with a percent sign, such as 1% or 0.5%".to_owned());
        };
        let share = decimal(number, 1_000_000).ok_or("write a share such as 1% or 0.5%, with at most six decimals")?;
        match u32::try_from(share) {
            Ok(share) if share <= Self::WHOLE => Ok(Self(share)),
            _ => Err("that is more than all packets: use 0% to 100%".to_owned()),
        }
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", fraction(self.0.into(), 1_000_000))
    }
}

/// Units of time in nanoseconds; `s` ends others, so it is the last.
const UNITS: [(&str, u64); 6] =
    [("h", 3_600_000_000_000), ("min", 60_000_000_000), ("ms", 1_000_000), ("us", 1000), ("ns", 1), ("s", 1_000_000_000)];

/// Reads a time with its unit.
pub(super) fn read_time(word: &str) -> Result<Duration, String> {
    if word.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return Err(format!("a time needs its unit: write {word}ms if milliseconds are meant"));
    }
    let wrong = || "write a time such as 20ms, 500us or 1.5s".to_owned();
    let (number, unit) = UNITS.iter().find_map(|(unit, size)| Some((word.strip_suffix(unit)?, *size))).ok_or_else(wrong)?;
    decimal(number, unit).map(Duration::from_nanos).ok_or_else(wrong)
}

/// A time in the unit in which it is shortest to read.
pub(super) struct Time(pub(super) Duration);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = u64::try_from(self.0.as_nanos()).unwrap_or(u64::MAX);
        let (unit, size) = match time {
            0 => ("ms", 1),
            1..1000 => ("ns", 1),
            1000..1_000_000 => ("us", 1000),
            1_000_000..1_000_000_000 => ("ms", 1_000_000),
            _ => ("s", 1_000_000_000),
        };
        write!(f, "{}{unit}", fraction(time, size))
    }
}

/// Reads a decimal number, in parts of which `whole` make one; `None` if it is no such number, or has finer parts.
fn decimal(text: &str, whole: u64) -> Option<u64> {
    let (number, decimals) = text.split_once('.').map_or((text, None), |(number, decimals)| (number, Some(decimals)));
    let digits = |text: &str| (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())).then_some(());
    digits(number)?;
    let mut value = number.parse::<u64>().ok()?.checked_mul(whole)?;
    if let Some(decimals) = decimals {
        digits(decimals)?;
        let mut part = whole;
        for digit in decimals.trim_end_matches('0').bytes() {
            if !part.is_multiple_of(10) {
                // A minute has 6 x 10^10 ns, and no part of one is written finer than a nanosecond.
                return None;
            }
            part /= 10;
            value = value.checked_add(u64::from(digit - b'0') * part)?;
        }
    }
    Some(value)
}

/// A number of parts, of which `whole`, a power of ten, make one, as a decimal number.
fn fraction(parts: u64, whole: u64) -> String {
    let (number, rest) = (parts / whole, parts % whole);
    if rest == 0 {
        return number.to_string();
    }
    let width = whole.ilog10() as usize;
    format!("{number}.{}", format!("{rest:0width$}").trim_end_matches('0'))
}
