//! The Ethernet header: addresses, 802.1Q tag and EtherType. The datapath reads it once for each frame; bytes only.

use crate::{Mac, VlanId};

/// Bytes of an untagged Ethernet header: two addresses and the EtherType.
pub const ETHERNET_HEADER: usize = 14;

/// EtherTypes that the switch looks at (IANA, "IEEE 802 numbers").
pub mod ethertype {
    /// IPv4.
    pub const IPV4: u16 = 0x0800;
    /// ARP.
    pub const ARP: u16 = 0x0806;
    /// An 802.1Q customer tag.
    pub const VLAN: u16 = 0x8100;
    /// IPv6.
    pub const IPV6: u16 = 0x86dd;
    /// An 802.1ad service tag, which this switch carries as payload.
    pub const SERVICE_VLAN: u16 = 0x88a8;
}

/// The two bytes after an 802.1Q EtherType: priority (3 bits), drop eligible (1), VLAN (12).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag(pub u16);

impl Tag {
    /// The VLAN that the tag names; none for VID 0 (a priority tag) and the reserved 4095.
    pub fn vlan(self) -> Option<VlanId> {
        VlanId::try_from(self.0 & 0x0fff).ok()
    }

    /// Whether this tag carries a priority only (VID 0).
    pub const fn is_priority(self) -> bool {
        self.0 & 0x0fff == 0
    }

    /// The same priority with another VLAN.
    #[must_use]
    pub const fn with_vlan(self, vlan: VlanId) -> Self {
        Self(self.0 & 0xf000 | vlan.number())
    }
}

/// What a port does to the tag of a frame on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum TagEdit {
    /// The frame leaves as it came.
    #[default]
    Keep,
    /// An 802.1Q tag is put in.
    Push(Tag),
    /// The 802.1Q tag is taken out.
    Pop,
    /// The 802.1Q tag is replaced.
    Set(Tag),
}

/// The link-layer header of a frame, parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ethernet {
    /// Where the frame goes.
    pub destination: Mac,
    /// The station that sent it.
    pub source: Mac,
    /// The outermost 802.1Q tag. An 802.1ad tag is not one: it stays payload.
    pub tag: Option<Tag>,
    /// The EtherType, or a length below 0x600 (IEEE 802.3-2022, section 3.2.6), behind the tag.
    pub ethertype: u16,
    /// Where the payload begins: 14, or 18 behind a tag.
    pub payload: usize,
}

/// A frame that ends before its header does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the frame ends inside its Ethernet header")]
pub struct Runt;

impl Ethernet {
    /// Reads the header at the front of `bytes`.
    ///
    /// # Errors
    /// [`Runt`] if the header, with its tag, is not all there.
    pub fn parse(bytes: &[u8]) -> Result<Self, Runt> {
        let (header, rest) = bytes.split_first_chunk::<ETHERNET_HEADER>().ok_or(Runt)?;
        let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, t0, t1] = *header;
        let ethernet = Self {
            destination: Mac([d0, d1, d2, d3, d4, d5]),
            source: Mac([s0, s1, s2, s3, s4, s5]),
            tag: None,
            ethertype: u16::from_be_bytes([t0, t1]),
            payload: ETHERNET_HEADER,
        };
        if ethernet.ethertype != ethertype::VLAN {
            return Ok(ethernet);
        }
        let [v0, v1, t0, t1] = *rest.first_chunk::<4>().ok_or(Runt)?;
        Ok(Self {
            tag: Some(Tag(u16::from_be_bytes([v0, v1]))),
            ethertype: u16::from_be_bytes([t0, t1]),
            payload: ETHERNET_HEADER + 4,
            ..ethernet
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNTAGGED: [u8; 16] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 0x08, 0x00, 0xaa, 0xbb];

    #[test]
    fn an_untagged_header_is_fourteen_bytes() {
        let ethernet = Ethernet::parse(&UNTAGGED).unwrap();
        assert_eq!(ethernet.destination, Mac([1, 2, 3, 4, 5, 6]));
        assert_eq!(ethernet.source, Mac([7, 8, 9, 10, 11, 12]));
        assert_eq!((ethernet.tag, ethernet.ethertype, ethernet.payload), (None, ethertype::IPV4, 14));
    }

    #[test]
    fn a_tag_is_read_and_a_service_tag_is_payload() {
        let mut bytes = UNTAGGED.to_vec();
        bytes.splice(12..12, [0x81, 0x00, 0x60, 0x0a]);
        let ethernet = Ethernet::parse(&bytes).unwrap();
        let tag = ethernet.tag.unwrap();
        assert_eq!(tag.vlan().map(VlanId::number), Some(10));
        assert_eq!((ethernet.ethertype, ethernet.payload), (ethertype::IPV4, 18));
        assert_eq!(tag.with_vlan(VlanId::DEFAULT), Tag(0x6001));
        bytes[12..14].copy_from_slice(&ethertype::SERVICE_VLAN.to_be_bytes());
        assert_eq!(Ethernet::parse(&bytes).unwrap().tag, None);
    }

    #[test]
    fn every_cut_header_is_a_runt() {
        let mut bytes = UNTAGGED.to_vec();
        bytes.splice(12..12, [0x81, 0x00, 0x00, 0x0a]);
        for length in 0..18 {
            assert_eq!(Ethernet::parse(&bytes[..length]), Err(Runt), "{length} bytes");
        }
    }
}
