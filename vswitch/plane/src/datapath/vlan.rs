//! Which VLAN a frame is in, and which tag it leaves with.

use packet::{Tag, TagEdit, VlanId};

use super::DropReason;
use api::VlanMode;

/// The VLANs of a port, ready for lookups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum PortVlans {
    All,
    Access(VlanId),
    Trunk { allowed: Box<VlanSet>, native: Option<VlanId> },
}

impl From<&VlanMode> for PortVlans {
    fn from(mode: &VlanMode) -> Self {
        match mode {
            VlanMode::All => Self::All,
            VlanMode::Access(vlan) => Self::Access(*vlan),
            VlanMode::Trunk { allowed, native } => {
                Self::Trunk { allowed: Box::new(allowed.iter().copied().collect()), native: *native }
            }
        }
    }
}

impl PortVlans {
    /// The VLAN of a frame that arrives with this tag. A priority tag (VID 0) counts as none (IEEE 802.1Q-2022, section 6.9.1).
    pub(super) fn classify(&self, tag: Option<Tag>) -> Result<VlanId, DropReason> {
        let tagged = tag.filter(|tag| !tag.is_priority());
        match (self, tagged.map(Tag::vlan)) {
            (_, Some(None)) => Err(DropReason::VlanNotAllowed),
            (Self::All, None) => Ok(VlanId::DEFAULT),
            (Self::All, Some(Some(vlan))) => Ok(vlan),
            (Self::Access(vlan), None) => Ok(*vlan),
            (Self::Access(_), Some(_)) => Err(DropReason::VlanNotAllowed),
            (Self::Trunk { native, .. }, None) => native.ok_or(DropReason::VlanNotAllowed),
            (Self::Trunk { allowed, native }, Some(Some(vlan))) => {
                if allowed.contains(vlan) || *native == Some(vlan) {
                    Ok(vlan)
                } else {
                    Err(DropReason::VlanNotAllowed)
                }
            }
        }
    }

    /// How a frame of `vlan`, which came with `tag`, leaves here; `None` if the port does not carry the VLAN.
    pub(super) fn egress(&self, vlan: VlanId, tag: Option<Tag>) -> Option<TagEdit> {
        let tagged = match self {
            // Such a port is transparent: what came tagged leaves tagged, VLAN 1 and priority tags too.
            Self::All if tag.is_some_and(|tag| tag.is_priority() || tag.vlan() == Some(vlan)) => {
                return Some(match tag {
                    Some(tag) if tag.is_priority() && vlan != VlanId::DEFAULT => TagEdit::Set(tag.with_vlan(vlan)),
                    _ => TagEdit::Keep,
                });
            }
            Self::All => vlan != VlanId::DEFAULT,
            Self::Access(only) if *only == vlan => false,
            Self::Trunk { native, .. } if *native == Some(vlan) => false,
            Self::Trunk { allowed, .. } if allowed.contains(vlan) => true,
            Self::Access(_) | Self::Trunk { .. } => return None,
        };
        Some(match (tagged, tag) {
            (false, None) => TagEdit::Keep,
            (false, Some(_)) => TagEdit::Pop,
            (true, None) => TagEdit::Push(Tag(vlan.number())),
            (true, Some(tag)) if tag.vlan() == Some(vlan) => TagEdit::Keep,
            (true, Some(tag)) => TagEdit::Set(tag.with_vlan(vlan)),
        })
    }
}

/// A set of VLANs, one bit each.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct VlanSet([u64; 64]);

impl VlanSet {
    fn contains(&self, vlan: VlanId) -> bool {
        let number = usize::from(vlan.number());
        self.0.get(number / 64).is_some_and(|word| word >> (number % 64) & 1 == 1)
    }
}

impl FromIterator<VlanId> for VlanSet {
    fn from_iter<I: IntoIterator<Item = VlanId>>(vlans: I) -> Self {
        let mut set = Self([0; 64]);
        for vlan in vlans {
            let number = usize::from(vlan.number());
            if let Some(word) = set.0.get_mut(number / 64) {
                *word |= 1 << (number % 64);
            }
        }
        set
    }
}

impl std::fmt::Debug for VlanSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries((1..4095).filter_map(|n| VlanId::try_from(n).ok()).filter(|vlan| self.contains(*vlan))).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vlan(number: u16) -> VlanId {
        VlanId::try_from(number).unwrap()
    }

    fn trunk(native: Option<u16>) -> PortVlans {
        (&VlanMode::Trunk { allowed: vec![vlan(10), vlan(20)], native: native.map(vlan) }).into()
    }

    #[test]
    fn frames_are_classified_by_port_and_tag() {
        let no = Err(DropReason::VlanNotAllowed);
        let access = PortVlans::Access(vlan(10));
        for (port, tag, expected) in [
            (PortVlans::All, None, Ok(vlan(1))),
            (PortVlans::All, Some(0xe000), Ok(vlan(1))),
            (PortVlans::All, Some(0x600a), Ok(vlan(10))),
            (PortVlans::All, Some(4095), no),
            (access.clone(), None, Ok(vlan(10))),
            (access.clone(), Some(0x2000), Ok(vlan(10))),
            (access.clone(), Some(10), no),
            (access, Some(11), no),
            (trunk(None), None, no),
            (trunk(None), Some(0), no),
            (trunk(None), Some(10), Ok(vlan(10))),
            (trunk(None), Some(30), no),
            (trunk(Some(7)), None, Ok(vlan(7))),
            (trunk(Some(7)), Some(7), Ok(vlan(7))),
        ] {
            assert_eq!(port.classify(tag.map(Tag)), expected, "{port:?} {tag:?}");
        }
    }

    #[test]
    fn frames_leave_with_the_tag_that_the_port_wants() {
        let access = PortVlans::Access(vlan(10));
        for (port, number, tag, expected) in [
            (PortVlans::All, 1, None, Some(TagEdit::Keep)),
            (PortVlans::All, 1, Some(1), Some(TagEdit::Keep)),
            (PortVlans::All, 1, Some(0xe000), Some(TagEdit::Keep)),
            (PortVlans::All, 10, None, Some(TagEdit::Push(Tag(10)))),
            (PortVlans::All, 10, Some(0xe000), Some(TagEdit::Set(Tag(0xe00a)))),
            (PortVlans::All, 10, Some(10), Some(TagEdit::Keep)),
            (access.clone(), 10, None, Some(TagEdit::Keep)),
            (access.clone(), 10, Some(10), Some(TagEdit::Pop)),
            (access, 11, None, None),
            (trunk(None), 10, None, Some(TagEdit::Push(Tag(10)))),
            (trunk(None), 10, Some(0x600a), Some(TagEdit::Keep)),
            (trunk(None), 10, Some(0x6000), Some(TagEdit::Set(Tag(0x600a)))),
            (trunk(None), 30, Some(30), None),
            (trunk(Some(7)), 7, Some(7), Some(TagEdit::Pop)),
            (trunk(Some(7)), 7, None, Some(TagEdit::Keep)),
        ] {
            assert_eq!(port.egress(vlan(number), tag.map(Tag)), expected, "{port:?} {number} {tag:?}");
        }
    }
}
