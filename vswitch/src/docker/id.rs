//! Docker's identifiers of networks and endpoints, checked as they are read from a message or from the kept state. Pure functions.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Characters of an identifier that go into the names of bridges and ports, as `docker ps` shows the first twelve.
const SHORT: usize = 8;
/// Most characters; Docker's have 64.
const LONGEST: usize = 64;

/// A text that is none of Docker's identifiers.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{}\" is not the identifier of a Docker {what}: {SHORT} to {LONGEST} letters and digits", .0.escape_default(), what = .1)]
pub struct IdError(String, &'static str);

macro_rules! id {
    ($(#[$docs:meta])* $name:ident, $what:literal) => {
        $(#[$docs])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Its first eight characters.
            pub fn short(&self) -> &str {
                &self.0[..SHORT]
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;

            fn try_from(text: String) -> Result<Self, IdError> {
                let plain = text.chars().all(|c| c.is_ascii_alphanumeric());
                if plain && (SHORT..=LONGEST).contains(&text.len()) { Ok(Self(text)) } else { Err(IdError(text, $what)) }
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.short())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

id!(
    /// The identifier of a network.
    NetworkId,
    "network"
);
id!(
    /// The identifier of an endpoint: one container's place on one network.
    EndpointId,
    "endpoint"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_those_of_docker() {
        let long = "0123456789abcdef".repeat(4);
        assert_eq!(NetworkId::try_from(long.clone()).unwrap().to_string(), "01234567");
        for bad in ["", "0123456", "0123456/", "0123456é", &format!("{long}0")] {
            assert!(EndpointId::try_from(bad.to_owned()).is_err(), "{bad:?}");
        }
    }
}
