//! What a newer vswitchd wrote into a file and this one does not know: it is read past, and written again.
//!
//! So an older release takes over from a newer one, and the newer one finds its own when it is back. What belongs to something that
//! is removed meanwhile goes with it.

use std::collections::BTreeMap;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_path_to_error::Segment;

/// Fields of a document that a reading of it does not have.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Carried(BTreeMap<String, Field>);

#[derive(Debug, PartialEq, Eq)]
enum Field {
    /// It is not known at all.
    Whole(Value),
    /// Something in it is not.
    Inside(Carried),
}

/// Reads a document, whatever fields it has besides the known ones, which are returned apart.
///
/// # Errors
/// Something that is known is not what it should be.
pub(super) fn read<T: DeserializeOwned + Serialize>(document: &Value) -> Result<(T, Carried), serde_json::Error> {
    let mut known = document.clone();
    loop {
        let error = match serde_path_to_error::deserialize::<_, T>(&known) {
            Ok(value) => {
                let carried = Carried::between(document, &serde_json::to_value(&value)?);
                return Ok((value, carried));
            }
            Err(error) => error,
        };
        let path: Vec<&Segment> = error.path().iter().collect();
        // serde tells it by its sentence alone (`Error::unknown_field`).
        let sentence = error.inner().to_string();
        let field = sentence.strip_prefix("unknown field `").and_then(|rest| rest.split_once('`'));
        if !field.is_some_and(|(field, _)| take_out(&mut known, &path, 0, field)) {
            return Err(error.into_inner());
        }
    }
}

/// Removes a field where the path leads, and where paths lead that differ in the second step, which is a name: what is new about
/// one port is new about all. Says whether there was any.
fn take_out(value: &mut Value, path: &[&Segment], depth: usize, field: &str) -> bool {
    let Value::Object(map) = value else { return false };
    match path {
        [] => map.remove(field).is_some(),
        // The path may lead to the field itself.
        [Segment::Map { key }] if key == field => map.remove(field).is_some(),
        [_, rest @ ..] if depth == 1 && !rest.is_empty() => {
            map.values_mut().filter_map(|value| take_out(value, rest, depth + 1, field).then_some(())).count() > 0
        }
        [Segment::Map { key } | Segment::Enum { variant: key }, rest @ ..] => {
            map.get_mut(key).is_some_and(|value| take_out(value, rest, depth + 1, field))
        }
        _ => false,
    }
}

impl Carried {
    fn between(document: &Value, reading: &Value) -> Self {
        let (Value::Object(all), Value::Object(known)) = (document, reading) else { return Self::default() };
        let field = |(name, value): (&String, &Value)| {
            let field = match known.get(name) {
                None => Field::Whole(value.clone()),
                Some(reading) => Field::Inside(Self::between(value, reading)),
            };
            (field != Field::Inside(Self::default())).then(|| (name.clone(), field))
        };
        Self(all.iter().filter_map(field).collect())
    }

    /// Adds the fields to a document, where what they belong to is still there.
    pub(super) fn add_to(&self, document: &mut Value) {
        let Value::Object(map) = document else { return };
        for (name, field) in &self.0 {
            match (field, map.get_mut(name)) {
                (Field::Whole(value), None) => drop(map.insert(name.clone(), value.clone())),
                (Field::Inside(carried), Some(inner)) => carried.add_to(inner),
                (Field::Whole(_), Some(_)) | (Field::Inside(_), None) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::State;

    fn state(document: &Value) -> (State, Carried) {
        read(document).unwrap()
    }

    #[test]
    fn what_is_not_known_is_written_again_and_goes_with_what_it_belongs_to() {
        let port = |name: &str| json!({ "set": { "name": name, "bridge": "br0", "shape": { "in": "1mbit" }, "colour": 1 } });
        let mut document = serde_json::to_value(State::default()).unwrap();
        document["ports"] = json!({ "a": port("a"), "b": port("b"), "c": "deleted" });
        document["labs"] = json!({ "running": "vlan" });
        document["made"]["queues"] = json!([1, 2]);
        let (mut state, carried) = state(&document);
        assert_eq!(state.changes.0.len(), 3);
        let written = |state: &State| {
            let mut written = serde_json::to_value(state).unwrap();
            carried.add_to(&mut written);
            written
        };
        let again = written(&state);
        for pointer in ["/ports/a/set/shape", "/ports/b/set/colour", "/labs", "/made/queues"] {
            assert_eq!(again.pointer(pointer), document.pointer(pointer), "{pointer}");
        }
        state.changes.0.remove(&api::ResourceKey::Port("a".parse().unwrap()));
        let again = written(&state);
        assert_eq!((again.pointer("/ports/a"), again.pointer("/ports/b/set/colour")), (None, Some(&json!(1))));
        // It is read again just so.
        assert_eq!(read::<State>(&again).unwrap().0, state);
    }

    #[test]
    fn what_is_known_must_be_what_it_should_be() {
        let mut document = serde_json::to_value(State::default()).unwrap();
        document["ports"] = json!({ "a/b": "deleted" });
        assert!(read::<State>(&document).is_err());
        document["ports"] = json!({ "a": { "set": { "name": "a", "bridge": 7 } } });
        assert!(read::<State>(&document).is_err());
        for document in [json!(null), json!([]), json!({}), json!("x")] {
            assert!(read::<State>(&document).is_err());
        }
    }
}
