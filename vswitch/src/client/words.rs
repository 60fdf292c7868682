//! How the values of options are read where the vocabulary alone does not say: by what stands for nothing, and by what is out of range.

use std::str::FromStr;
use std::time::Duration;

use serde::Serialize;

use api::StationSpec;
use api::read::{cidr, number, time};

/// Stands for nothing where something was.
pub(super) const NONE: &str = "none";

/// A value, or [`NONE`].
#[derive(Clone, Debug, Serialize)]
#[serde(transparent)]
pub(super) struct OrNone<T>(pub(super) Option<T>);

impl<T: FromStr> FromStr for OrNone<T> {
    type Err = T::Err;

    fn from_str(text: &str) -> Result<Self, T::Err> {
        if text == NONE { Ok(Self(None)) } else { text.parse().map(|value| Self(Some(value))) }
    }
}

/// An address with its prefix length, or [`NONE`], as the file has it.
pub(super) fn cidr_or_none(text: &str) -> Result<String, String> {
    if text == NONE { Ok(NONE.to_owned()) } else { cidr(text).map(|net| net.to_string()) }
}

/// A number of frames, of which none is the same as 0.
pub(super) fn frames_or_none(text: &str) -> Result<OrNone<u32>, String> {
    if text == NONE { Ok(OrNone(None)) } else { whole(text).map(|frames| OrNone(Some(frames).filter(|frames| *frames > 0))) }
}

pub(super) fn on_or_off(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "on" | "true" | "yes" | "y" | "1" => Ok(true),
        "off" | "false" | "no" | "n" | "0" => Ok(false),
        _ => Err(format!("\"{}\" is neither on nor off", text.escape_debug())),
    }
}

/// A whole number as large as its type.
pub(super) fn whole<T: TryFrom<i64> + Bound>(text: &str) -> Result<T, String> {
    let number = number(text)?;
    number.try_into().map_err(|_| format!("{number} is out of range: use a number from 0 to {}", T::MOST))
}

/// The largest number of a type that a command line can name.
pub(super) trait Bound {
    const MOST: u64;
}

impl Bound for u32 {
    const MOST: u64 = u32::MAX as u64;
}

impl Bound for u64 {
    const MOST: u64 = i64::MAX as u64;
}

/// A time that is waited, at most a day; a bare number is one of seconds.
pub(super) fn interval(text: &str) -> Result<Duration, String> {
    let waited = text.parse().map(Duration::from_secs).or_else(|_| time(text))?;
    let range = Duration::from_millis(100)..=Duration::from_secs(86_400);
    if range.contains(&waited) { Ok(waited) } else { Err(format!("{text} is out of range: use 100ms to 1day")) }
}

pub(super) fn station(text: &str) -> Result<StationSpec, String> {
    let mut parts = text.split('=');
    let wrong = || format!("\"{text}\" is not a station: write MAC=PEER or MAC=PEER=IP");
    let mac = parts.next().and_then(|part| part.parse().ok()).ok_or_else(wrong)?;
    let peer = parts.next().and_then(|part| part.parse().ok()).ok_or_else(wrong)?;
    let ip = parts.next().map(|part| part.parse().map_err(|_| wrong())).transpose()?;
    if parts.next().is_some() { Err(wrong()) } else { Ok(StationSpec { mac, peer, ip }) }
}
