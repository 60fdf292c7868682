//! VLANs of a port or tunnel: the keys `vlan`, `trunk` and `native`, lists of VLANs as text, and what these keys come to.
//! The data plane sorts frames by the resulting `VlanMode`.

use std::fmt;
use std::str::FromStr;

use packet::{VlanId, VlanIdError};
use serde::{Serialize, Serializer};

use crate::read::{Raw, Read};

/// Which VLANs a port carries, and how its untagged frames count.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum VlanMode {
    /// Every VLAN, tagged; untagged frames are VLAN 1. What a port is when nothing is said.
    #[default]
    All,
    /// One VLAN, untagged. Tagged frames are dropped.
    Access(VlanId),
    /// The VLANs listed, tagged.
    Trunk {
        /// Sorted, without repeats, not empty.
        allowed: Vec<VlanId>,
        /// The VLAN of untagged frames; `None`: they are dropped.
        native: Option<VlanId>,
    },
}

impl VlanMode {
    /// What the keys `vlan`, `trunk` and `native` come to; `None`: nothing is said.
    pub(crate) fn from_keys(
        vlan: Option<VlanId>,
        trunk: Option<VlanList>,
        native: Option<VlanId>,
    ) -> Result<Option<Self>, VlanError> {
        Ok(Some(match (vlan, trunk, native) {
            (None, None, None) => return Ok(None),
            (Some(vlan), None, None) => Self::Access(vlan),
            (Some(_), ..) => return Err(VlanError::AccessAndTrunk),
            (None, None, Some(_)) => return Err(VlanError::NativeWithoutTrunk),
            (None, Some(trunk), _) if trunk.0.is_empty() => return Err(VlanError::EmptyTrunk),
            (None, Some(VlanList(allowed)), native) => Self::Trunk { allowed, native },
        }))
    }

    /// The keys `vlan`, `trunk` and `native` that come to it: the inverse of [`Self::from_keys`].
    pub(crate) fn keys(&self) -> (Option<VlanId>, Option<VlanList>, Option<VlanId>) {
        match self {
            Self::All => (None, None, None),
            Self::Access(vlan) => (Some(*vlan), None, None),
            Self::Trunk { allowed, native } => (None, Some(VlanList(allowed.clone())), *native),
        }
    }
}

/// VLANs as `trunk` lists them, sorted and without repeats: `"1-10,20"` or `[1, "3-5"]` in the file, `1-10,20` on a command line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VlanList(Vec<VlanId>);

impl VlanList {
    /// The VLANs, in order.
    pub fn into_vec(self) -> Vec<VlanId> {
        self.0
    }

    /// The VLANs, as the first and last of each run.
    fn runs(&self) -> impl Iterator<Item = (VlanId, VlanId)> {
        self.0.chunk_by(|one, next| one.number() + 1 == next.number()).filter_map(|run| Some((*run.first()?, *run.last()?)))
    }
}

impl FromIterator<VlanId> for VlanList {
    fn from_iter<I: IntoIterator<Item = VlanId>>(vlans: I) -> Self {
        let mut all = Vec::from_iter(vlans);
        all.sort_unstable();
        all.dedup();
        Self(all)
    }
}

impl FromStr for VlanList {
    type Err = VlanListError;

    fn from_str(text: &str) -> Result<Self, VlanListError> {
        let mut all = Vec::new();
        for part in text.split(',').map(str::trim) {
            let (first, last) = match part.split_once('-').filter(|(first, _)| !first.is_empty()) {
                Some((first, last)) => (first.trim().parse()?, last.trim().parse()?),
                None => (part.parse()?, part.parse()?),
            };
            if first > last {
                return Err(VlanListError::Backwards(first, last));
            }
            all.extend((first.number()..=last.number()).filter_map(|number| VlanId::try_from(number).ok()));
        }
        Ok(Self::from_iter(all))
    }
}

/// Not a list of VLANs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VlanListError {
    /// Something in it is no VLAN.
    #[error(transparent)]
    Vlan(#[from] VlanIdError),
    /// A range from a higher to a lower one.
    #[error("{0}-{1} goes backwards: write {1}-{0}")]
    Backwards(VlanId, VlanId),
}

impl fmt::Display for VlanList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (first, last)) in self.runs().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            match last.number() - first.number() {
                0 => write!(f, "{comma}{first}")?,
                1 => write!(f, "{comma}{first},{last}")?,
                _ => write!(f, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

impl Read for VlanList {
    fn read(raw: Raw) -> Result<Self, String> {
        let part = |raw: Raw| match raw {
            Raw::Number(number) => number.to_string().parse::<Self>().map_err(|error| error.to_string()),
            Raw::Text(text) => text.parse().map_err(|error: VlanListError| error.to_string()),
            other => Err(format!("is {other}: write VLANs, such as [10, 20] or \"10-20\"")),
        };
        match raw {
            Raw::List(parts) => {
                let parts = parts.into_iter().map(part).collect::<Result<Vec<_>, _>>()?;
                Ok(parts.into_iter().flat_map(Self::into_vec).collect())
            }
            other => part(other),
        }
    }
}

/// Numbers, or a text where ranges make it shorter.
impl Serialize for VlanList {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = self.to_string();
        if text.contains('-') { serializer.serialize_str(&text) } else { self.0.serialize(serializer) }
    }
}

/// VLANs that contradict each other; the sentence goes on after the name of the port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VlanError {
    /// Both access and trunk.
    #[error("has both `vlan` and `trunk`: an access port has `vlan`, a trunk has `trunk` and may have `native`")]
    AccessAndTrunk,
    /// A native VLAN without a trunk.
    #[error("has `native` but no `trunk`: list the tagged VLANs in `trunk`")]
    NativeWithoutTrunk,
    /// An empty trunk.
    #[error("has an empty `trunk`: list at least one VLAN, or leave it out")]
    EmptyTrunk,
}

impl VlanError {
    /// The keys that it is about.
    pub const fn keys(self) -> &'static [&'static str] {
        match self {
            Self::AccessAndTrunk => &["vlan", "trunk", "native"],
            Self::NativeWithoutTrunk => &["native", "trunk"],
            Self::EmptyTrunk => &["trunk"],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(raw: Raw) -> Result<String, String> {
        VlanList::read(raw).map(|list| list.to_string())
    }

    #[test]
    fn ranges_of_vlans_are_read_in_texts_and_lists() {
        let text = |text: &str| Raw::Text(text.to_owned());
        assert_eq!(read(text("1-10")).unwrap(), "1-10");
        assert_eq!(read(text("20, 1-3,2,4094")).unwrap(), "1-3,20,4094");
        assert_eq!(read(Raw::Number(7)).unwrap(), "7");
        assert_eq!(read(Raw::List(vec![Raw::Number(7), text("8-9"), text("1")])).unwrap(), "1,7-9");
        assert_eq!(read(text("1-4094")).unwrap(), "1-4094");
        for (wrong, part) in [
            ("", "\"\" is not a VLAN"),
            ("9-1", "write 1-9"),
            ("1-", "is not a VLAN"),
            ("-1", "-1 is not a VLAN"),
            ("1-5000", "5000 is not a VLAN"),
            ("x", "\"x\" is not a VLAN"),
        ] {
            let error = read(text(wrong)).unwrap_err();
            assert!(error.contains(part), "{wrong}: {error}");
        }
        assert_eq!(read(Raw::Flag(true)).unwrap_err(), "is true: write VLANs, such as [10, 20] or \"10-20\"");
    }
}
