//! The names of ports, bridges and interfaces, checked as they are parsed: what a name type holds can be a device's name.
//! The file, `vsctl` and the plugins give them as text, and everything behind them takes only the types.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::read::{Raw, Read, parsed};

/// Most bytes in the name of a network interface: `IFNAMSIZ` (linux/if.h) less its terminating zero.
const LONGEST: usize = 15;
/// Most bytes in the name of an overlay network, which is part of the keys of a store.
const LONGEST_OVERLAY: usize = 63;

/// A text that cannot be a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// No characters.
    #[error("a {0} name is empty: use 1 to {LONGEST} characters")]
    Empty(&'static str),
    /// Longer than an interface's name may be.
    #[error("{0} name \"{1}\" has {count} characters: use at most {LONGEST}, as for a network interface", count = .1.chars().count())]
    TooLong(&'static str, String),
    /// Longer than the name of an overlay network may be.
    #[error("overlay name \"{0}\" has {count} characters: use at most {LONGEST_OVERLAY}", count = .0.chars().count())]
    LongOverlay(String),
    /// A character that interface names, command lines or paths do not carry.
    #[error("{0} name \"{shown}\" holds {2:?}: use letters, digits, '-', '_' and '.', not '-' first and not '.' or '..' alone", shown = .1.escape_default())]
    Character(&'static str, String, char),
}

/// The rule of names that a network interface may have.
fn check(what: &'static str, text: &str) -> Result<(), NameError> {
    check_characters(what, text)?;
    if text.len() > LONGEST { Err(NameError::TooLong(what, text.to_owned())) } else { Ok(()) }
}

/// The rule of names that are a part of a store's keys.
fn check_overlay(what: &'static str, text: &str) -> Result<(), NameError> {
    check_characters(what, text)?;
    if text.len() > LONGEST_OVERLAY { Err(NameError::LongOverlay(text.to_owned())) } else { Ok(()) }
}

/// Letters, digits, `-`, `_` and `.`, as the kernel's `dev_valid_name` allows and a command line carries unquoted.
fn check_characters(what: &'static str, text: &str) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty(what));
    }
    let bad = text.chars().find(|c| !(c.is_ascii_alphanumeric() || "-_.".contains(*c)));
    let only_dots = matches!(text, "." | "..").then_some('.');
    let dash_first = text.starts_with('-').then_some('-');
    if let Some(bad) = bad.or(only_dots).or(dash_first) {
        return Err(NameError::Character(what, text.to_owned(), bad));
    }
    Ok(())
}

macro_rules! name {
    ($(#[$docs:meta])* $name:ident, $what:literal, $wanted:literal, $check:ident) => {
        $(#[$docs])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;

            fn try_from(text: String) -> Result<Self, NameError> {
                $check($what, &text)?;
                Ok(Self(text))
            }
        }

        impl std::str::FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                text.to_owned().try_into()
            }
        }

        impl Read for $name {
            fn read(raw: Raw) -> Result<Self, String> {
                parsed(raw, $wanted)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    };
}

name!(
    /// The name of a port of the switch, 1 to 15 characters; unique on the whole switch.
    PortName,
    "port",
    "the name of a port",
    check
);
name!(
    /// The name of a bridge, 1 to 15 characters.
    BridgeName,
    "bridge",
    "the name of a bridge",
    check
);
name!(
    /// The name of a network interface, 1 to 15 characters.
    InterfaceName,
    "interface",
    "the name of an interface",
    check
);

name!(
    /// The name of an overlay network, 1 to 63 characters; the same on every host of a cluster.
    OverlayName,
    "overlay",
    "the name of an overlay network",
    check_overlay
);

impl From<&PortName> for InterfaceName {
    /// Both obey one rule.
    fn from(port: &PortName) -> Self {
        Self(port.0.clone())
    }
}

impl InterfaceName {
    /// `eth0`, what a device in a namespace is called unless something else is said.
    pub fn eth0() -> Self {
        Self("eth0".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_the_kernel_takes() {
        for good in ["a", "eth0", "web.1", "A-b_c", "123456789012345"] {
            assert_eq!(good.parse::<PortName>().map(String::from), Ok(good.to_owned()));
        }
        for bad in ["", ".", "..", "a b", "a/b", "-w", "ä", "1234567890123456", "a\n", "a:b"] {
            assert!(bad.parse::<PortName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_error_names_the_rule() {
        assert!("a-name-of-18-chars".parse::<OverlayName>().is_ok());
        let error = "x".repeat(64).parse::<OverlayName>().unwrap_err().to_string();
        assert!(error.ends_with("has 64 characters: use at most 63"), "{error}");
        let error = "a-name-of-18-chars".parse::<BridgeName>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "bridge name \"a-name-of-18-chars\" has 18 characters: use at most 15, as for a network interface"
        );
    }
}
