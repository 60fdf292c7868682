//! The headers around a frame in a tunnel, as captures show them. The kernel makes the real ones when a datagram is sent and takes them off when one
//! comes, so here they are written again from what the sockets say; what only the kernel knows is 0: MAC addresses and the identification of IPv4,
//! and of what came in, the hop limit.

use std::net::{IpAddr, SocketAddr};

use packet::checksum::Sum;
use packet::{ethertype, protocol};

/// Bytes of a UDP header.
const UDP: usize = 8;

/// What is around a frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outer {
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
    /// TOS field or traffic class.
    pub(super) class: u8,
    pub(super) hops: u8,
    /// Whether there is a UDP checksum.
    pub(super) is_summed: bool,
}

impl Outer {
    /// The whole frame with this UDP payload. `None`: addresses of two families, or more bytes than a packet has.
    pub(super) fn around(&self, payload: &[u8]) -> Option<Vec<u8>> {
        let ethertype = if self.to.is_ipv4() { ethertype::IPV4 } else { ethertype::IPV6 };
        let mut bytes = vec![0; 12];
        bytes.extend(ethertype.to_be_bytes());
        self.packet(payload, &mut bytes)?;
        Some(bytes)
    }

    /// Puts the IP packet with this UDP payload behind `bytes`. `None` as for [`Outer::around`].
    pub(super) fn packet(&self, payload: &[u8], bytes: &mut Vec<u8>) -> Option<()> {
        let length = u16::try_from(UDP + payload.len()).ok()?;
        let mut pseudo = Sum::new().plus_number(protocol::UDP.into()).plus_number(length);
        match (self.from.ip(), self.to.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let start = bytes.len();
                bytes.extend([0x45, self.class]);
                bytes.extend(length.checked_add(20)?.to_be_bytes());
                // Don't fragment (RFC 7348, section 4.3).
                bytes.extend([0, 0, 0x40, 0, self.hops, protocol::UDP, 0, 0]);
                bytes.extend(from.octets());
                bytes.extend(to.octets());
                pseudo = pseudo.plus(&from.octets()).plus(&to.octets());
                let sum = Sum::new().plus(bytes.get(start..)?).checksum();
                bytes.get_mut(start + 10..start + 12)?.copy_from_slice(&sum.to_be_bytes());
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                bytes.extend([0x60 | self.class >> 4, self.class << 4, 0, 0]);
                bytes.extend(length.to_be_bytes());
                bytes.extend([protocol::UDP, self.hops]);
                bytes.extend(from.octets());
                bytes.extend(to.octets());
                pseudo = pseudo.plus(&from.octets()).plus(&to.octets());
            }
            _ => return None,
        }
        let udp = [self.from.port().to_be_bytes(), self.to.port().to_be_bytes(), length.to_be_bytes()];
        let udp = udp.as_flattened();
        let sum = if self.is_summed {
            Some(pseudo.plus(udp).plus(payload).checksum()).filter(|sum| *sum > 0).unwrap_or(u16::MAX)
        } else {
            0
        };
        bytes.extend_from_slice(udp);
        bytes.extend(sum.to_be_bytes());
        bytes.extend_from_slice(payload);
        Some(())
    }
}
