//! The state of a port, tunnel or uplink, in the words that users read. The control side finds it out, and replies carry it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Whether frames can pass a port, tunnel or uplink. As JSON it is the word or sentence that [`fmt::Display`] gives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum PortState {
    /// They can: its device is up and has carrier.
    Up,
    /// Its device is set down.
    Down,
    /// Its device is up, and nothing is at the other end.
    NoCarrier,
    /// Its device was deleted, or taken out of its namespace.
    DeviceGone,
    /// The namespace of its device was deleted, or another has its name now; or the process ended that it was named after.
    NamespaceGone,
    /// It has no device, or no way out; the sentence says why.
    Unusable(String),
}

impl PortState {
    /// Whether there is a device, in whatever state.
    pub const fn has_device(&self) -> bool {
        matches!(self, Self::Up | Self::Down | Self::NoCarrier)
    }
}

impl fmt::Display for PortState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::NoCarrier => "no carrier",
            Self::DeviceGone => "its device is gone",
            Self::NamespaceGone => "its namespace is gone",
            Self::Unusable(why) => why,
        })
    }
}

impl From<PortState> for String {
    fn from(state: PortState) -> Self {
        state.to_string()
    }
}

impl From<String> for PortState {
    fn from(text: String) -> Self {
        let words = [Self::Up, Self::Down, Self::NoCarrier, Self::DeviceGone, Self::NamespaceGone];
        words.into_iter().find(|state| state.to_string() == text).unwrap_or(Self::Unusable(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_a_word_or_a_sentence_in_json() {
        use PortState::{DeviceGone, Down, NamespaceGone, NoCarrier, Unusable, Up};
        let why = Unusable("port \"a\": there is no interface \"x\"".to_owned());
        for (state, json) in [
            (Up, "\"up\""),
            (Down, "\"down\""),
            (NoCarrier, "\"no carrier\""),
            (DeviceGone, "\"its device is gone\""),
            (NamespaceGone, "\"its namespace is gone\""),
            (why, r#""port \"a\": there is no interface \"x\"""#),
        ] {
            assert_eq!(serde_json::to_string(&state).unwrap(), json);
            assert_eq!(serde_json::from_str::<PortState>(json).unwrap(), state);
        }
    }
}
