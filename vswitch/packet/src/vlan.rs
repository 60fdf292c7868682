//! VLAN identifiers: numbers from 1 to 4094, checked as they are made. The file, the API and the data plane share this type.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A VLAN identifier, 1 to 4094 (IEEE 802.1Q-2022, table 9-2: 0 means "priority only", 4095 is reserved).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct VlanId(u16);

impl VlanId {
    /// VLAN 1, to which untagged frames belong where nothing else is said (IEEE 802.1Q-2022, table 9-2, the default PVID).
    pub const DEFAULT: Self = Self(1);

    /// The identifier as a number, 1 to 4094.
    pub const fn number(self) -> u16 {
        self.0
    }
}

/// Something other than a number from 1 to 4094.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not a VLAN: use a number from 1 to 4094")]
pub struct VlanIdError(String);

impl TryFrom<u16> for VlanId {
    type Error = VlanIdError;

    fn try_from(number: u16) -> Result<Self, Self::Error> {
        match number {
            1..=4094 => Ok(Self(number)),
            _ => Err(VlanIdError(number.to_string())),
        }
    }
}

impl std::str::FromStr for VlanId {
    type Err = VlanIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let shown = || if text.parse::<i64>().is_ok() { text.to_owned() } else { format!("\"{}\"", text.escape_default()) };
        let number: u16 = text.parse().map_err(|_| VlanIdError(shown()))?;
        number.try_into()
    }
}

impl From<VlanId> for u16 {
    fn from(vlan: VlanId) -> Self {
        vlan.0
    }
}

impl fmt::Display for VlanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for VlanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_1_to_4094_exist() {
        for number in [0, 4095, u16::MAX] {
            assert_eq!(VlanId::try_from(number), Err(VlanIdError(number.to_string())));
        }
        for text in ["", "x", "0", "4095", "70000", "-1", "1 "] {
            assert!(text.parse::<VlanId>().is_err(), "{text:?}");
        }
        assert_eq!(VlanId::try_from(1).map(VlanId::number), Ok(1));
        assert_eq!(VlanId::try_from(4094).map(VlanId::number), Ok(4094));
    }
}
