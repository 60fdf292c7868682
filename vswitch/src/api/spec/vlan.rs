use packet::VlanId;

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
    /// What the keys `vlan`, `trunk` (in any order and with repeats) and `native` come to; `None`: nothing is said.
    pub(in crate::api) fn from_keys(
        vlan: Option<VlanId>,
        trunk: Option<Vec<VlanId>>,
        native: Option<VlanId>,
    ) -> Result<Option<Self>, VlanError> {
        Ok(Some(match (vlan, trunk, native) {
            (None, None, None) => return Ok(None),
            (Some(vlan), None, None) => Self::Access(vlan),
            (Some(_), ..) => return Err(VlanError::AccessAndTrunk),
            (None, None, Some(_)) => return Err(VlanError::NativeWithoutTrunk),
            (None, Some(trunk), _) if trunk.is_empty() => return Err(VlanError::EmptyTrunk),
            (None, Some(mut allowed), native) => {
                allowed.sort_unstable();
                allowed.dedup();
                Self::Trunk { allowed, native }
            }
        }))
    }

    /// The keys `vlan`, `trunk` and `native` that come to it: the inverse of [`Self::from_keys`].
    pub(in crate::api) fn keys(&self) -> (Option<VlanId>, Option<Vec<VlanId>>, Option<VlanId>) {
        match self {
            Self::All => (None, None, None),
            Self::Access(vlan) => (Some(*vlan), None, None),
            Self::Trunk { allowed, native } => (None, Some(allowed.clone()), *native),
        }
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
