//! VXLAN (RFC 7348) without I/O: what a tunnel endpoint decides, as functions of bytes, addresses and time.
//!
//! - [`Vni`], [`Header`]: the codec. Encapsulating is putting [`Header::encode`] before a frame, for UDP and IP are the kernel's.
//! - [`Inner`]: what a tunnel has to know about the frame inside: its flow, for the source port (RFC 7348, section 5), and the
//!   traffic class of its packet.
//! - [`ecn`]: how congestion marks cross a tunnel's ends (RFC 6040).
//! - [`Peers`]: the remote tunnel endpoints, by a small number that the forwarding database holds.
//! - [`Bindings`]: stations behind a tunnel for which ARP and neighbour discovery are answered at its near end.
//! - [`Moves`]: addresses that move to and fro, which is what a loop looks like.
#![forbid(unsafe_code)]

pub mod ecn;
mod inner;
mod moves;
mod peers;
mod suppression;

use std::fmt;
use std::net::IpAddr;

pub use inner::Inner;
pub use moves::{Moves, Verdict};
pub use peers::{Admission, PeerRow, Peers};
pub use suppression::{Answer, Binding, Bindings};

/// Bytes of a VXLAN header (RFC 7348, section 5).
pub const HEADER: usize = 8;
/// The UDP port that IANA assigned (RFC 7348, section 5).
pub const UDP_PORT: u16 = 4789;

/// Bytes of UDP.
const UDP: u16 = 8;
/// Bytes of an untagged Ethernet header.
const ETHERNET: u16 = 14;

/// How many bytes a tunnel to or from `address` takes from the underlay's MTU for the inner network layer: 50 over IPv4, 70 over
/// IPv6. An inner tag takes four more.
pub const fn overhead(address: IpAddr) -> u16 {
    let ip = match address {
        IpAddr::V4(_) => 20,
        IpAddr::V6(_) => 40,
    };
    // `HEADER` is 8.
    ip + UDP + 8 + ETHERNET
}

/// The flag that says that the VNI is valid.
const FLAG_I: u8 = 0x08;

/// A VXLAN network identifier, 0 to 16,777,215.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vni(u32);

impl Vni {
    /// The identifier as a number below 2^24.
    pub const fn number(self) -> u32 {
        self.0
    }
}

/// A number of more than 24 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not a VNI: use a number from 0 to 16777215")]
pub struct VniError(u32);

impl TryFrom<u32> for Vni {
    type Error = VniError;

    fn try_from(number: u32) -> Result<Self, VniError> {
        if number < 1 << 24 { Ok(Self(number)) } else { Err(VniError(number)) }
    }
}

impl fmt::Display for Vni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a VXLAN header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The segment that the inner frame belongs to.
    pub vni: Vni,
}

/// Why a datagram is not VXLAN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// It ends inside the header.
    #[error("the datagram ends inside its VXLAN header")]
    Truncated,
    /// The I flag is not set, so there is no VNI.
    #[error("the I flag is not set")]
    NoVni,
}

impl Header {
    /// Splits a datagram into its header and the inner frame. Reserved bits are ignored, as RFC 7348, section 5 demands.
    ///
    /// # Errors
    /// It is too short, or its I flag is not set.
    pub fn decode(datagram: &[u8]) -> Result<(Self, &[u8]), DecodeError> {
        let (header, frame) = datagram.split_first_chunk::<HEADER>().ok_or(DecodeError::Truncated)?;
        let [flags, _, _, _, high, middle, low, _] = *header;
        if flags & FLAG_I == 0 {
            return Err(DecodeError::NoVni);
        }
        Ok((Self { vni: Vni(u32::from_be_bytes([0, high, middle, low])) }, frame))
    }

    /// The header as it goes before an inner frame; reserved bits are zero.
    pub const fn encode(self) -> [u8; HEADER] {
        let [_, high, middle, low] = self.vni.0.to_be_bytes();
        [FLAG_I, 0, 0, 0, high, middle, low, 0]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_vni_has_24_bits() {
        assert_eq!(Vni::try_from(1 << 24), Err(VniError(1 << 24)));
        assert_eq!(Vni::try_from((1 << 24) - 1).map(Vni::number), Ok((1 << 24) - 1));
    }

    #[test]
    fn overhead_is_fifty_or_seventy() {
        assert_eq!(["192.0.2.1", "2001:db8::1"].map(|address| overhead(address.parse().unwrap())), [50, 70]);
    }

    #[test]
    fn a_header_without_vni_is_refused_and_reserved_bits_are_ignored() {
        assert_eq!(Header::decode(&[0xf7, 0, 0, 0, 0, 0, 42, 0]), Err(DecodeError::NoVni));
        let (header, frame) = Header::decode(&[0xff, 1, 2, 3, 0, 0, 42, 9, 7]).unwrap();
        assert_eq!((header.vni.number(), frame), (42, &[7][..]));
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes_to_itself(number in 0u32..1 << 24, frame in prop::collection::vec(any::<u8>(), 0..50)) {
            let header = Header { vni: Vni(number) };
            let datagram = [&header.encode()[..], &frame].concat();
            prop_assert_eq!(Header::decode(&datagram), Ok((header, &frame[..])));
        }

        #[test]
        fn any_bytes_are_decoded_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..20)) {
            prop_assert_eq!(Header::decode(&bytes).is_ok(), bytes.len() >= HEADER && bytes[0] & FLAG_I != 0);
        }
    }
}
