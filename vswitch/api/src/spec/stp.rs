//! What a bridge and its ports are told of the spanning tree: whether there is one, priorities, costs, and where stations are.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use serde::{Deserialize, Serialize, Serializer};

use crate::read::{Raw, Read, word};

/// Whether a bridge is part of a spanning tree, and which protocol it speaks of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stp {
    /// It is part of none.
    #[default]
    Off,
    /// The protocol of 1998 (IEEE 802.1D-2004, clause 17.4), whose ports wait for half a minute.
    Stp,
    /// RSTP, and the older one with bridges that speak only that.
    Rstp,
}

impl Stp {
    /// Whether there is a tree.
    pub const fn is_on(self) -> bool {
        !matches!(self, Self::Off)
    }

    pub(super) const fn is_off(&self) -> bool {
        !self.is_on()
    }

    /// As the file has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Stp => "stp",
            Self::Rstp => "rstp",
        }
    }
}

impl fmt::Display for Stp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl Read for Stp {
    fn read(raw: Raw) -> Result<Self, String> {
        word(raw, &[("rstp", Self::Rstp), ("stp", Self::Stp), ("off", Self::Off)])
    }
}

/// The priority of a bridge, a multiple of 4096 from 0 to 61440. The bridge with the lowest is the root.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StpBridgePriority(u16);

impl StpBridgePriority {
    /// As a number.
    pub const fn number(self) -> u16 {
        self.0
    }
}

impl Default for StpBridgePriority {
    fn default() -> Self {
        Self(32_768)
    }
}

impl Read for StpBridgePriority {
    fn read(raw: Raw) -> Result<Self, String> {
        let priority = match raw {
            Raw::Number(number) => u16::try_from(number).ok(),
            _ => None,
        };
        let priority = priority.filter(|number| number % 4096 == 0).map(Self);
        priority.ok_or_else(|| format!("is {raw}: write a multiple of 4096 from 0 to 61440"))
    }
}

/// Whether a port leads to a station, so that it need not wait for other bridges.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Deserialize)]
#[serde(try_from = "Raw")]
pub enum StpEdge {
    /// It does when no bridge was heard there for three seconds.
    #[default]
    Auto,
    /// It does, until a bridge is heard there.
    Yes,
    /// It does not.
    No,
}

impl StpEdge {
    const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Yes => "true",
            Self::No => "false",
        }
    }
}

impl fmt::Display for StpEdge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for StpEdge {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::Yes => serializer.serialize_bool(true),
            Self::No => serializer.serialize_bool(false),
        }
    }
}

impl Read for StpEdge {
    fn read(raw: Raw) -> Result<Self, String> {
        match raw {
            Raw::Flag(true) => Ok(Self::Yes),
            Raw::Flag(false) => Ok(Self::No),
            Raw::Text(text) if text == "auto" => Ok(Self::Auto),
            other => Err(format!("is {other}: write \"auto\", true or false")),
        }
    }
}

impl TryFrom<Raw> for StpEdge {
    type Error = String;

    fn try_from(raw: Raw) -> Result<Self, String> {
        Self::read(raw)
    }
}

impl FromStr for StpEdge {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "on" | "true" | "yes" => Ok(Self::Yes),
            "off" | "false" | "no" => Ok(Self::No),
            other => Err(format!("\"{}\" is neither auto nor on nor off", other.escape_debug())),
        }
    }
}

/// What the way through a port costs, 1 to 200,000,000.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StpCost(NonZeroU32);

impl StpCost {
    /// As a number.
    pub const fn number(self) -> u32 {
        self.0.get()
    }

    fn new(number: i64) -> Option<Self> {
        u32::try_from(number).ok().filter(|number| *number <= 200_000_000).and_then(NonZeroU32::new).map(Self)
    }
}

/// The priority of a port, a multiple of 16 from 0 to 240; 128 by default.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StpPortPriority(u8);

impl StpPortPriority {
    /// As a number.
    pub const fn number(self) -> u8 {
        self.0
    }

    fn new(number: i64) -> Option<Self> {
        u8::try_from(number).ok().filter(|number| number % 16 == 0).map(Self)
    }
}

macro_rules! numbers {
    ($($type:ident $wanted:literal;)*) => {$(
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl Read for $type {
            fn read(raw: Raw) -> Result<Self, String> {
                let read = match raw {
                    Raw::Number(number) => Self::new(number),
                    _ => None,
                };
                read.ok_or_else(|| format!("is {raw}: write {}", $wanted))
            }
        }

        impl FromStr for $type {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                let read = text.parse().ok().and_then(Self::new);
                read.ok_or_else(|| format!("\"{}\" is not {}", text.escape_debug(), $wanted))
            }
        }
    )*};
}

numbers! {
    StpCost "a number from 1 to 200000000";
    StpPortPriority "a multiple of 16 from 0 to 240";
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BridgeSpec, PortSpec};

    #[test]
    fn a_bridge_has_a_tree_and_a_priority() {
        let bridge = |rest: &str| toml::from_str::<BridgeSpec>(&format!("name = \"br0\"\n{rest}"));
        let plain = bridge("").unwrap();
        assert_eq!((plain.stp, plain.stp_priority.number()), (Stp::Off, 32_768));
        let spec = bridge("stp = \"rstp\"\nstp-priority = 4096").unwrap();
        assert_eq!((spec.stp, spec.stp_priority.number()), (Stp::Rstp, 4096));
        let written = toml::to_string(&spec).unwrap();
        assert_eq!(toml::from_str::<BridgeSpec>(&written).unwrap(), spec);
        assert!(!toml::to_string(&plain).unwrap().contains("stp"));
        for (rest, part) in [
            ("stp = true", "is true: write \"rstp\", \"stp\" or \"off\""),
            ("stp-priority = 5000", "is 5000: write a multiple of 4096 from 0 to 61440"),
            ("stp-priority = 65536", "is 65536: write a multiple"),
        ] {
            let error = bridge(rest).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn a_port_has_a_cost_a_priority_and_may_be_an_edge() {
        let port = |rest: &str| toml::from_str::<PortSpec>(&format!("name = \"a\"\nbridge = \"br0\"\n{rest}"));
        let spec = port("stp-cost = 200000000\nstp-priority = 240\nstp-edge = true").unwrap();
        assert_eq!(spec.policy.rules(), ["stp-cost 200000000", "stp-priority 240", "stp-edge true"]);
        assert_eq!(toml::from_str::<PortSpec>(&toml::to_string(&spec).unwrap()).unwrap(), spec);
        let json = serde_json::to_value(&spec.policy).unwrap();
        assert_eq!((&json["stp_cost"], &json["stp_edge"]), (&200_000_000.into(), &true.into()));
        assert_eq!(serde_json::from_value::<crate::PortPolicy>(json).unwrap(), spec.policy);
        assert_eq!(port("stp-edge = \"auto\"").unwrap(), port("").unwrap());
        for (rest, part) in [
            ("stp-cost = 0", "is 0: write a number from 1 to 200000000"),
            ("stp-priority = 100", "is 100: write a multiple of 16 from 0 to 240"),
            ("stp-edge = \"yes\"", "is \"yes\": write \"auto\", true or false"),
        ] {
            let error = port(rest).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
