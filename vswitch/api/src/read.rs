//! Values of the file and of requests, read so that a wrong one is told in a sentence.
//!
//! serde says "invalid type: string, expected u32" of a value that its type does not take. So a key of `switch.toml` is read in two
//! steps: [`Raw`] takes whatever stands there, and [`Read`] says what it should be. A sentence that begins with "is" goes on after the
//! key; any other stands for itself, behind a colon ([`about`]).

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;
use packet::{Mac, VlanId};
use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serializer};

/// A value before it is known what it should be.
#[derive(Clone, Debug, PartialEq)]
pub enum Raw {
    /// JSON's `null`.
    Nothing,
    /// `true` or `false`.
    Flag(bool),
    /// A whole number.
    Number(i64),
    /// A number that is no whole one, or beyond all that are asked for.
    Fraction(f64),
    /// A string.
    Text(String),
    /// TOML's date or time, as it is written.
    Date(String),
    /// Several values, in order.
    List(Vec<Raw>),
    /// Keys and their values, in order.
    Table(Vec<(String, Raw)>),
}

/// What can be read from a [`Raw`] value.
pub trait Read: Sized {
    /// Reads it, or says what is wrong with it.
    fn read(raw: Raw) -> Result<Self, String>;
}

/// For `#[serde(deserialize_with = "read")]`.
pub fn read<'de, D: Deserializer<'de>, T: Read>(deserializer: D) -> Result<T, D::Error> {
    T::read(Raw::deserialize(deserializer)?).map_err(de::Error::custom)
}

/// A sentence about the value of a key.
pub fn about(key: &str, sentence: &str) -> String {
    if sentence.starts_with("is ") { format!("`{key}` {sentence}") } else { format!("`{key}`: {sentence}") }
}

/// For `#[serde(serialize_with = "write_seconds")]`.
pub fn write_seconds<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{}s", value.as_secs()))
}

/// Reads a number from a word of a command line.
pub fn number(text: &str) -> Result<i64, String> {
    text.parse().map_err(|_| format!("\"{}\" is not a whole number", text.escape_debug()))
}

/// Reads an address with its prefix length.
pub fn cidr(text: &str) -> Result<IpNet, String> {
    if let Ok(address) = text.parse::<IpAddr>() {
        let usual = if address.is_ipv4() { 24 } else { 64 };
        return Err(format!("\"{text}\" has no prefix length: add it, such as /{usual}"));
    }
    text.parse().map_err(|_| {
        let shown = text.escape_debug();
        format!("\"{shown}\" is not an address with its prefix length: write one such as 10.0.0.1/24 or fd00::1/64")
    })
}

/// Reads an address.
pub fn address(text: &str) -> Result<IpAddr, String> {
    let shown = text.escape_debug();
    if text.split_once('/').is_some_and(|(address, _)| address.parse::<IpAddr>().is_ok()) {
        return Err(format!("\"{shown}\" has a prefix length, and one address is meant: leave it out"));
    }
    text.parse().map_err(|_| format!("\"{shown}\" is not an IP address: write one such as 192.0.2.1 or 2001:db8::1"))
}

/// Reads a time.
pub fn time(text: &str) -> Result<Duration, String> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) && !text.is_empty() {
        return Err(format!("{text} has no unit: write \"{text}s\" if seconds are meant"));
    }
    humantime::parse_duration(text).map_err(|_| {
        format!("\"{}\" is not a time: write a number with a unit, such as \"300s\" or \"5m\"", text.escape_debug())
    })
}

/// Reads one of several words.
pub fn word<T: Copy>(raw: Raw, words: &[(&str, T)]) -> Result<T, String> {
    let list = words.iter().map(|(word, _)| format!("\"{word}\"")).collect::<Vec<_>>();
    let wanted = match &list[..] {
        [all @ .., last] if !all.is_empty() => format!("{} or {last}", all.join(", ")),
        _ => list.join(""),
    };
    let found = words.iter().find(|(word, _)| raw == Raw::Text((*word).to_owned()));
    found.map(|(_, value)| *value).ok_or_else(|| format!("is {raw}: write {wanted}"))
}

impl Raw {
    /// The text, or what is wrong with it where a text should stand.
    pub fn text(self, wanted: &str) -> Result<String, String> {
        match self {
            Self::Text(text) => Ok(text),
            other => Err(format!("is {other}: write {wanted}, in quotes")),
        }
    }
}

/// As it is called in a sentence.
impl fmt::Display for Raw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("null"),
            Self::Flag(flag) => flag.fmt(f),
            Self::Number(number) => number.fmt(f),
            Self::Fraction(number) => number.fmt(f),
            Self::Text(text) if text.chars().count() > LONGEST_SHOWN => {
                let start: String = text.chars().take(LONGEST_SHOWN).collect();
                write!(f, "\"{}…\"", start.escape_debug())
            }
            Self::Text(text) => write!(f, "\"{}\"", text.escape_debug()),
            Self::Date(date) => write!(f, "the date {date}"),
            Self::List(_) => f.write_str("a list"),
            Self::Table(_) => f.write_str("a table"),
        }
    }
}

/// Most characters of a text that a sentence repeats.
const LONGEST_SHOWN: usize = 60;

/// The key under which the toml crate passes a date on (`toml_datetime::de`).
const DATE: &str = "$__toml_private_datetime";

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue)
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Nothing)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Raw, E> {
        Ok(Raw::Flag(flag))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Raw, E> {
        Ok(Raw::Number(number))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Raw, E> {
        Ok(i64::try_from(number).map_or(Raw::Fraction(number as f64), Raw::Number))
    }

    fn visit_i128<E>(self, number: i128) -> Result<Raw, E> {
        Ok(i64::try_from(number).map_or(Raw::Fraction(number as f64), Raw::Number))
    }

    fn visit_u128<E>(self, number: u128) -> Result<Raw, E> {
        Ok(i64::try_from(number).map_or(Raw::Fraction(number as f64), Raw::Number))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Raw, E> {
        Ok(Raw::Fraction(number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Raw, E> {
        Ok(Raw::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Raw, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Raw::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Raw, A::Error> {
        let mut table = Vec::new();
        while let Some(field) = fields.next_entry::<String, Raw>()? {
            table.push(field);
        }
        match &table[..] {
            [(key, Raw::Text(date))] if key == DATE => Ok(Raw::Date(date.clone())),
            _ => Ok(Raw::Table(table)),
        }
    }
}

impl<T: Read> Read for Option<T> {
    fn read(raw: Raw) -> Result<Self, String> {
        if raw == Raw::Nothing { Ok(None) } else { T::read(raw).map(Some) }
    }
}

impl<T: Read> Read for Vec<T> {
    fn read(raw: Raw) -> Result<Self, String> {
        match raw {
            Raw::List(items) => items.into_iter().map(T::read).collect(),
            other => {
                let example = match &other {
                    Raw::Flag(_) | Raw::Number(_) | Raw::Text(_) => format!("[{other}]"),
                    _ => "[...]".to_owned(),
                };
                Err(format!("is {other}, and a list is wanted: write it in brackets, {example}"))
            }
        }
    }
}

impl Read for bool {
    fn read(raw: Raw) -> Result<Self, String> {
        match raw {
            Raw::Flag(flag) => Ok(flag),
            other => Err(format!("is {other}: write true or false, without quotes")),
        }
    }
}

impl Read for i64 {
    fn read(raw: Raw) -> Result<Self, String> {
        match raw {
            Raw::Number(number) => Ok(number),
            Raw::Text(text) if text.parse::<i64>().is_ok() => Err(format!("is \"{text}\": write the number without quotes")),
            other => Err(format!("is {other}: write a whole number")),
        }
    }
}

impl Read for VlanId {
    fn read(raw: Raw) -> Result<Self, String> {
        let number = i64::read(raw)?;
        number.to_string().parse().map_err(|error: packet::VlanIdError| error.to_string())
    }
}

impl Read for Duration {
    fn read(raw: Raw) -> Result<Self, String> {
        match raw {
            Raw::Number(number) => time(&number.to_string()),
            raw => time(&raw.text("a time such as \"300s\"")?),
        }
    }
}

impl Read for String {
    fn read(raw: Raw) -> Result<Self, String> {
        raw.text("a text")
    }
}

impl Read for PathBuf {
    fn read(raw: Raw) -> Result<Self, String> {
        raw.text("a path").map(Self::from)
    }
}

impl Read for IpNet {
    fn read(raw: Raw) -> Result<Self, String> {
        cidr(&raw.text("an address such as \"10.0.0.1/24\"")?)
    }
}

impl Read for IpAddr {
    fn read(raw: Raw) -> Result<Self, String> {
        address(&raw.text("an address such as \"192.0.2.1\"")?)
    }
}

impl Read for Mac {
    fn read(raw: Raw) -> Result<Self, String> {
        parsed(raw, "a MAC address such as \"02:00:00:00:00:0a\"")
    }
}

/// What a text comes to whose type says itself what is wrong with it.
pub fn parsed<T: FromStr<Err: fmt::Display>>(raw: Raw, wanted: &str) -> Result<T, String> {
    raw.text(wanted)?.parse().map_err(|error: T::Err| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    #[allow(dead_code)]
    struct One<T: Read> {
        #[serde(deserialize_with = "read")]
        key: T,
    }

    fn wrong<T: Read + fmt::Debug>(value: &str) -> String {
        let by_toml = toml::from_str::<One<T>>(&format!("key = {value}")).unwrap_err().message().to_owned();
        if let Ok(json) = serde_json::from_str::<serde_json::Value>(&format!("{{\"key\": {value}}}")) {
            assert_eq!(serde_json::from_value::<One<T>>(json).unwrap_err().to_string(), by_toml);
        }
        by_toml
    }

    #[test]
    fn a_wrong_value_is_told_alike_in_the_file_and_in_a_request() {
        assert_eq!(wrong::<i64>("\"9\""), "is \"9\": write the number without quotes");
        assert_eq!(wrong::<i64>("1.5"), "is 1.5: write a whole number");
        assert_eq!(wrong::<i64>("1979-05-27"), "is the date 1979-05-27: write a whole number");
        assert_eq!(wrong::<bool>("\"true\""), "is \"true\": write true or false, without quotes");
        assert_eq!(
            wrong::<Vec<IpNet>>("\"10.0.0.1/24\""),
            "is \"10.0.0.1/24\", and a list is wanted: write it in brackets, [\"10.0.0.1/24\"]"
        );
        assert_eq!(wrong::<Vec<IpNet>>("[\"10.0.0.1\"]"), "\"10.0.0.1\" has no prefix length: add it, such as /24");
        assert_eq!(wrong::<IpNet>("\"fd00::1\""), "\"fd00::1\" has no prefix length: add it, such as /64");
        assert_eq!(
            wrong::<IpAddr>("\"10.0.0.1/8\""),
            "\"10.0.0.1/8\" has a prefix length, and one address is meant: leave it out"
        );
        assert_eq!(wrong::<Duration>("300"), "300 has no unit: write \"300s\" if seconds are meant");
        assert_eq!(wrong::<VlanId>("-1"), "-1 is not a VLAN: use a number from 1 to 4094");
        assert_eq!(wrong::<VlanId>("70000"), "70000 is not a VLAN: use a number from 1 to 4094");
        assert_eq!(wrong::<Mac>("{ a = 1 }"), "is a table: write a MAC address such as \"02:00:00:00:00:0a\", in quotes");
        assert_eq!(wrong::<String>("[1]"), "is a list: write a text, in quotes");
    }

    #[test]
    fn a_sentence_goes_on_after_the_key_or_stands_behind_it() {
        assert_eq!(about("mtu", "is 9: use 68"), "`mtu` is 9: use 68");
        assert_eq!(about("mac", "\"x\" is not one"), "`mac`: \"x\" is not one");
    }
}
