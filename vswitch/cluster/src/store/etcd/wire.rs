//! What the gateway says, in JSON.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::store::{Change, Entry};

/// The first key that does not begin with a text, which ends with a slash.
pub(super) fn past(text: &str) -> String {
    format!("{}0", text.trim_end_matches('/'))
}

pub(super) fn encoded(text: impl AsRef<[u8]>) -> String {
    BASE64.encode(text)
}

fn decoded(text: &str) -> Option<String> {
    Some(String::from_utf8_lossy(&BASE64.decode(text).ok()?).into_owned())
}

/// A number that is written as a string, or as itself.
fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let value = Value::deserialize(deserializer)?;
    let number = value.as_str().map_or_else(|| value.as_u64(), |text| text.parse().ok());
    number.ok_or_else(|| serde::de::Error::custom("not a number"))
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Header {
    #[serde(deserialize_with = "number")]
    pub(super) revision: u64,
}

#[derive(Deserialize)]
pub(super) struct Range {
    pub(super) header: Header,
    #[serde(default)]
    pub(super) kvs: Vec<Kv>,
    #[serde(default)]
    pub(super) more: bool,
}

#[derive(Deserialize)]
pub(super) struct Kv {
    pub(super) key: String,
    #[serde(default)]
    pub(super) value: String,
    #[serde(default, deserialize_with = "number")]
    pub(super) mod_revision: u64,
}

impl Kv {
    pub(super) fn entry(self, root: &str) -> Option<Entry> {
        let key = decoded(&self.key)?.strip_prefix(root)?.to_owned();
        Some(Entry { key, value: decoded(&self.value)?, version: self.mod_revision })
    }
}

#[derive(Deserialize)]
pub(super) struct Lease {
    #[serde(rename = "ID")]
    pub(super) id: String,
}

#[derive(Deserialize)]
pub(super) struct Kept {
    pub(super) result: Lifetime,
}

#[derive(Deserialize)]
pub(super) struct Lifetime {
    #[serde(rename = "TTL", default, deserialize_with = "number")]
    pub(super) ttl: u64,
}

#[derive(Deserialize)]
pub(super) struct Done {
    #[serde(default)]
    pub(super) succeeded: bool,
}

#[derive(Deserialize)]
pub(super) struct Granted {
    pub(super) token: String,
}

/// An error: 3.4 says it twice, later ones once.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Said {
    pub(super) error: String,
    pub(super) message: String,
    pub(super) code: i64,
}

#[derive(Deserialize)]
pub(super) struct Heard {
    pub(super) result: Option<Watched>,
    pub(super) error: Option<Broken>,
}

#[derive(Deserialize)]
pub(super) struct Broken {
    #[serde(default, alias = "grpc_code")]
    pub(super) code: i64,
    #[serde(default)]
    pub(super) message: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Watched {
    pub(super) header: Header,
    pub(super) events: Vec<Event>,
    pub(super) canceled: bool,
    pub(super) cancel_reason: String,
    #[serde(deserialize_with = "number")]
    pub(super) compact_revision: u64,
}

#[derive(Deserialize)]
pub(super) struct Event {
    #[serde(default)]
    pub(super) r#type: String,
    pub(super) kv: Kv,
}

impl Event {
    pub(super) fn change(self, root: &str) -> Option<Change> {
        let entry = self.kv.entry(root)?;
        Some(if self.r#type == "DELETE" { Change::Gone(entry.key) } else { Change::Is(entry) })
    }
}
