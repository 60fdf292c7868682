//! The table `[port.impair]`: what happens to the packets of each direction of a port.

use serde::de::{self, Deserializer};
use serde::{Deserialize, Serialize};

use super::Impairment;
use crate::read::{Raw, Read};

/// What happens to the packets of a port, in each direction. By default nothing does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Impair {
    /// To those that the port's station sends into the switch.
    #[serde(rename = "in", serialize_with = "write")]
    pub incoming: Option<Box<Impairment>>,
    /// To those that it receives.
    #[serde(rename = "out", serialize_with = "write")]
    pub outgoing: Option<Box<Impairment>>,
    /// What the random numbers of both directions begin with; the same one, the same packets. `None`: one is drawn.
    pub seed: Option<u32>,
}

impl Impair {
    /// Whether it does anything.
    pub const fn is_some(&self) -> bool {
        self.incoming.is_some() || self.outgoing.is_some()
    }

    /// The same with a seed: this one, if it does anything and has none.
    #[must_use]
    pub fn or_seed(self, drawn: u32) -> Self {
        Self { seed: self.seed.or_else(|| self.is_some().then_some(drawn)), ..self }
    }

    fn read_key(&mut self, key: &str, raw: Raw) -> Result<(), String> {
        match key {
            "in" => self.incoming = read_words(key, raw)?,
            "out" => self.outgoing = read_words(key, raw)?,
            "seed" => self.seed = read_seed(raw)?,
            // What a newer vswitchd wrote is known by the beginning of this sentence, which is serde's.
            _ => return Err(format!("unknown field `{key}`, expected one of `in`, `out`, `seed`")),
        }
        Ok(())
    }
}

fn read_words(key: &str, raw: Raw) -> Result<Option<Box<Impairment>>, String> {
    if raw == Raw::Nothing {
        return Ok(None);
    }
    let such = "words such as \"delay 20ms loss 1%\"";
    let Raw::Text(text) = raw else { return Err(format!("`{key}` is {raw}: write {such}, in quotes")) };
    if matches!(&*text, "none" | "off") {
        return Err(format!("`{key}` is \"{text}\": leave it out where nothing happens"));
    }
    text.parse().map(|words| Some(Box::new(words))).map_err(|error| format!("`{key}` {error}"))
}

fn read_seed(raw: Raw) -> Result<Option<u32>, String> {
    let number = match raw {
        Raw::Nothing => return Ok(None),
        Raw::Number(number) => u32::try_from(number).ok(),
        _ => None,
    };
    number.map(Some).ok_or_else(|| format!("`seed` is {raw}: write a whole number from 0 to {}", u32::MAX))
}

impl Read for Impair {
    fn read(raw: Raw) -> Result<Self, String> {
        let Raw::Table(keys) = raw else {
            return Err(format!("is {raw}: write a table, such as {{ in = \"delay 20ms\", out = \"loss 1%\", seed = 7 }}"));
        };
        let mut read = Self::default();
        keys.into_iter().try_for_each(|(key, raw)| read.read_key(&key, raw))?;
        match read.seed {
            Some(_) if !read.is_some() => {
                Err("`seed` stands alone: it is that of `in` or `out`, so say one of them too".to_owned())
            }
            _ => Ok(read),
        }
    }
}

impl<'de> Deserialize<'de> for Impair {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::read(Raw::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

fn write<S: serde::Serializer>(words: &Option<Box<Impairment>>, serializer: S) -> Result<S::Ok, S::Error> {
    match words {
        Some(words) => serializer.collect_str(words),
        None => serializer.serialize_none(),
    }
}
