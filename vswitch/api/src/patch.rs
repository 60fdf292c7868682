//! Changes of a bridge or an uplink by the keys of `switch.toml`, as `vsctl set-br` and `set-uplink` send them.
//! The control side applies one to a specification, which then goes through the checks of the file again.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::read::about;

/// A change of a bridge or an uplink: keys as `switch.toml` has them, with their new values; `null` takes a key away, also one in a table that
/// is a value. What is not named stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Patch(pub Map<String, Value>);

/// A change that comes to nothing that could be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PatchError(String);

impl Patch {
    /// The specification with the change made to it, after the checks that one from a file goes through.
    ///
    /// # Errors
    /// What is wrong with a value, or contradicts itself.
    pub fn apply<T: Serialize + DeserializeOwned>(&self, spec: &T) -> Result<T, PatchError> {
        let mut table = match serde_json::to_value(spec) {
            Ok(Value::Object(table)) => table,
            Ok(_) | Err(_) => Map::new(),
        };
        if let Some(name) = self.0.get("name").filter(|name| table.get("name") != Some(*name)) {
            return Err(PatchError(format!("a name cannot be changed, here to {name}: add another and delete this one")));
        }
        merge(&mut table, &self.0);
        self.end_lone_seed(&mut table);
        from_table(table).map_err(PatchError)
    }
}

impl Patch {
    /// Takes away the seed of an impairment that this change ended. One that the change itself names is refused later.
    fn end_lone_seed(&self, table: &mut Map<String, Value>) {
        let is_said = |keys: &Map<String, Value>, key: &str| keys.get(key).is_some_and(|value| !value.is_null());
        let named = self.0.get("impair").and_then(Value::as_object).is_some_and(|keys| is_said(keys, "seed"));
        let is_lone = |value: &Value| value.as_object().is_some_and(|keys| !is_said(keys, "in") && !is_said(keys, "out"));
        if !named && table.get("impair").is_some_and(is_lone) {
            table.remove("impair");
        }
    }
}

/// Makes a change to a table, and to the tables in it (RFC 7396). One in which nothing is left goes.
fn merge(table: &mut Map<String, Value>, change: &Map<String, Value>) {
    for (key, value) in change {
        match (table.get_mut(key), value) {
            (_, Value::Null) => drop(table.remove(key)),
            (Some(Value::Object(inner)), Value::Object(change)) => {
                merge(inner, change);
                if inner.is_empty() {
                    table.remove(key);
                }
            }
            (None, Value::Object(change)) => {
                let mut inner = Map::new();
                merge(&mut inner, change);
                if !inner.is_empty() {
                    table.insert(key.clone(), Value::Object(inner));
                }
            }
            (_, value) => drop(table.insert(key.clone(), value.clone())),
        }
    }
}

/// Reads a table as the file has it; the error names the key whose value is wrong.
pub fn from_table<T: DeserializeOwned>(table: Map<String, Value>) -> Result<T, String> {
    let read = |table: Map<String, Value>| serde_json::from_value::<T>(Value::Object(table)).map_err(|error| error.to_string());
    read(table.clone()).map_err(|wrong| {
        // The value's own sentence goes on after its key: the one without which another sentence comes.
        let is_it = |key: &&String| {
            let mut others = table.clone();
            others.remove(*key);
            read(others).err() != Some(wrong.clone())
        };
        match table.keys().find(is_it) {
            Some(key) if is_of_value(&wrong) => about(key, &wrong),
            _ => wrong,
        }
    })
}

/// Whether a sentence is about a value, and does not name its key: it goes on after the key, or begins with the value.
fn is_of_value(sentence: &str) -> bool {
    let with_value = sentence.starts_with(|first: char| first == '"' || first == '-' || first.is_ascii_digit());
    sentence.starts_with("is ") || with_value && !sentence.contains('`')
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{BridgeSpec, UplinkSpec};

    fn patch(value: Value) -> Patch {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_change_names_what_is_new_and_the_rest_stays() {
        let text = "name = \"br0\"\nmtu = 9000\naddresses = [\"10.0.0.1/24\"]\nuplink = \"wan\"\ndhcp = true";
        let spec: BridgeSpec = toml::from_str(text).unwrap();
        assert_eq!(Patch::default().apply(&spec).unwrap(), spec);
        let changed = patch(json!({ "mtu": 1400, "uplink": null, "isolated": false })).apply(&spec).unwrap();
        assert_eq!(changed, BridgeSpec { mtu: 1400, uplink: None, isolated: false, ..spec.clone() });
        let uplink: UplinkSpec = toml::from_str("name = \"wan\"\nkind = \"host\"").unwrap();
        let link = patch(json!({ "kind": "link", "device": "eth0", "address": "dhcp" })).apply(&uplink).unwrap();
        assert_eq!(link.device().map(|device| device.as_str()), Some("eth0"));
    }

    #[test]
    fn a_seed_goes_with_what_it_is_of_and_is_refused_alone() {
        let text = "name = \"p\"\nbridge = \"br0\"\nimpair = { in = \"loss 1%\", seed = 7 }";
        let spec: crate::PortSpec = toml::from_str(text).unwrap();
        let set = |spec: &crate::PortSpec, impair: Value| patch(json!({ "impair": impair })).apply(spec);
        let ended = set(&spec, json!({ "in": null })).unwrap();
        assert_eq!(ended.policy.impair, crate::Impair::default());
        assert_eq!(set(&spec, json!({ "seed": 8 })).unwrap().policy.impair.seed, Some(8));
        for (spec, change) in [(&ended, json!({ "seed": 8 })), (&spec, json!({ "in": null, "seed": 8 }))] {
            let wrong = set(spec, change).unwrap_err().to_string();
            assert!(wrong.contains("`seed` stands alone: it is that of `in` or `out`"), "{wrong}");
        }
        assert_eq!(set(&ended, json!({ "seed": null })).unwrap(), ended);
    }

    #[test]
    fn a_change_to_what_cannot_be_is_told_with_its_key() {
        let spec: BridgeSpec = toml::from_str("name = \"br0\"").unwrap();
        let wrong = |value: Value| patch(value).apply(&spec).unwrap_err().to_string();
        assert_eq!(wrong(json!({ "mtu": 9 })), "MTU 9 of bridge \"br0\" is out of range: use 68 to 65535");
        assert_eq!(wrong(json!({ "mtu": "x" })), "`mtu` is \"x\": write a whole number");
        assert_eq!(
            wrong(json!({ "addresses": ["10.0.0.1"] })),
            "`addresses`: \"10.0.0.1\" has no prefix length: add it, such as /24"
        );
        assert!(wrong(json!({ "dhcp": true })).contains("has `dhcp` but no address"));
        assert!(wrong(json!({ "name": "br1" })).contains("a name cannot be changed"));
        assert!(wrong(json!({ "colour": 1 })).contains("colour"));
    }
}
