//! Offload metadata: the kernel's `virtio_net_hdr` read and written, and what the far side of a port can do itself.
//! Devices decode it as a frame comes in and encode it as the frame leaves.

use std::num::NonZeroU16;

use serde::{Deserialize, Serialize};

use crate::IpVersion;

/// Bytes of `struct virtio_net_hdr` (linux/virtio_net.h; virtio 1.2, section 5.1.6) as TAPs and packet sockets use it.
pub const VNET_HEADER: usize = 10;

/// Bytes of `struct virtio_net_hdr_v1_hash_tunnel` (linux/virtio_net.h; Linux 6.17), which begins with those of a `virtio_net_hdr`.
pub const TUNNEL_VNET_HEADER: usize = 24;

const NEEDS_CSUM: u8 = 1;
const DATA_VALID: u8 = 2;
const UDP_TUNNEL_CSUM: u8 = 8;
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
const GSO_UDP_TUNNEL_IPV4: u8 = 0x20;
const GSO_UDP_TUNNEL_IPV6: u8 = 0x40;
const GSO_ECN: u8 = 0x80;

/// What the kernel says about a frame beside its bytes: work that it left to the receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Offload {
    /// The state of the transport checksum.
    pub checksum: Checksum,
    /// Set if the frame is a super-frame: one header, a payload of many segments.
    pub gso: Option<Gso>,
}

/// State of the transport checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Checksum {
    /// The bytes hold what the sender computed, which was not verified.
    #[default]
    Unverified,
    /// The bytes hold a checksum that was verified.
    Valid,
    /// The field holds the folded pseudo header only; the ones' complement sum from `start` to the end of the frame goes to
    /// `start + offset`.
    Partial {
        /// Where summing begins, in bytes from the start of the frame.
        start: u16,
        /// Where the field is, in bytes from `start`.
        offset: u16,
    },
}

/// Which protocol a super-frame is cut by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GsoKind {
    /// TCP over IPv4.
    Tcp4,
    /// TCP over IPv6.
    Tcp6,
    /// UDP datagrams of equal size, the last may be shorter (`VIRTIO_NET_HDR_GSO_UDP_L4`).
    Udp,
}

/// How a super-frame is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gso {
    /// The transport.
    pub kind: GsoKind,
    /// Payload bytes of each segment behind the transport header; the last may have fewer.
    pub size: NonZeroU16,
    /// TCP only: CWR is set in the first segment only (`SKB_GSO_TCP_ECN`).
    pub ecn: bool,
}

/// Where a super-frame lies in the packet of a tunnel over UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UdpTunnel {
    /// Where the UDP header begins, in bytes from the start of the frame.
    pub transport: u16,
    /// Where the inner IP header begins.
    pub network: u16,
    /// Which IP is around it.
    pub version: IpVersion,
    /// Whether the UDP header has a checksum, whose field holds the sum of the pseudo header then.
    pub summed: bool,
}

/// What a port's kernel side takes off the switch's hands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Capabilities {
    /// It completes partial checksums.
    pub checksum: bool,
    /// It takes TCP over IPv4 super-frames.
    pub tcp4: bool,
    /// It takes TCP over IPv6 super-frames.
    pub tcp6: bool,
    /// It takes UDP super-frames (`VIRTIO_NET_HDR_GSO_UDP_L4`, Linux 6.2).
    pub udp: bool,
    /// It takes those inside a tunnel over UDP too (`TUN_F_UDP_TUNNEL_GSO`, Linux 6.17).
    pub tunnel: bool,
}

impl Capabilities {
    /// Everything.
    pub const ALL: Self = Self { checksum: true, tcp4: true, tcp6: true, udp: true, tunnel: true };
    /// Everything but what is inside a tunnel.
    pub const PLAIN: Self = Self { tunnel: false, ..Self::ALL };

    /// Whether a frame with this metadata, which speaks of its own transport, can go out as it is.
    pub const fn accept(self, offload: Offload) -> bool {
        (self.checksum || !matches!(offload.checksum, Checksum::Partial { .. }))
            && match offload.gso {
                None => true,
                Some(Gso { kind: GsoKind::Tcp4, .. }) => self.tcp4,
                Some(Gso { kind: GsoKind::Tcp6, .. }) => self.tcp6,
                Some(Gso { kind: GsoKind::Udp, .. }) => self.udp,
            }
    }
}

/// Offload metadata that contradicts itself or the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the virtio header does not fit the frame")]
pub struct BadOffload;

impl Offload {
    /// Reads a `virtio_net_hdr` in the machine's byte order, for a frame of `length` bytes.
    /// Its `hdr_len` is ignored: the kernel calls it a hint. So is what it says about a tunnel: packet sockets do not say it, and it is
    /// to be seen in the frame, where the checksum begins inside another packet.
    ///
    /// # Errors
    /// [`BadOffload`] for an unknown GSO type, a segment size of zero, a super-frame whose checksum is not partial, or a
    /// checksum field outside the frame.
    pub fn decode(header: [u8; VNET_HEADER], length: usize) -> Result<Self, BadOffload> {
        let [flags, gso_type, _, _, size0, size1, start0, start1, offset0, offset1] = header;
        let start = u16::from_ne_bytes([start0, start1]);
        let offset = u16::from_ne_bytes([offset0, offset1]);
        let checksum = if flags & NEEDS_CSUM != 0 {
            if usize::from(start) + usize::from(offset) + 2 > length {
                return Err(BadOffload);
            }
            Checksum::Partial { start, offset }
        } else if flags & DATA_VALID != 0 {
            Checksum::Valid
        } else {
            Checksum::Unverified
        };
        let kind = match gso_type & !(GSO_ECN | GSO_UDP_TUNNEL_IPV4 | GSO_UDP_TUNNEL_IPV6) {
            GSO_NONE => return Ok(Self { checksum, gso: None }),
            GSO_TCPV4 => GsoKind::Tcp4,
            GSO_TCPV6 => GsoKind::Tcp6,
            GSO_UDP_L4 => GsoKind::Udp,
            _ => return Err(BadOffload),
        };
        let size = NonZeroU16::new(u16::from_ne_bytes([size0, size1])).ok_or(BadOffload)?;
        if !matches!(checksum, Checksum::Partial { .. }) {
            return Err(BadOffload);
        }
        Ok(Self { checksum, gso: Some(Gso { kind, size, ecn: gso_type & GSO_ECN != 0 }) })
    }

    /// Writes a `virtio_net_hdr` in the machine's byte order. `headers` is the length of all headers up to the payload, which
    /// the kernel takes as the part to keep contiguous; 0 where there is no super-frame.
    pub fn encode(self, headers: u16) -> [u8; VNET_HEADER] {
        let (flags, start, offset) = match self.checksum {
            Checksum::Unverified => (0, 0, 0),
            Checksum::Valid => (DATA_VALID, 0, 0),
            Checksum::Partial { start, offset } => (NEEDS_CSUM, start, offset),
        };
        let (gso_type, size) = match self.gso {
            None => (GSO_NONE, 0),
            Some(gso) => {
                let kind = match gso.kind {
                    GsoKind::Tcp4 => GSO_TCPV4,
                    GsoKind::Tcp6 => GSO_TCPV6,
                    GsoKind::Udp => GSO_UDP_L4,
                };
                (kind | if gso.ecn { GSO_ECN } else { 0 }, gso.size.get())
            }
        };
        let [h0, h1] = headers.to_ne_bytes();
        let [g0, g1] = size.to_ne_bytes();
        let [s0, s1] = start.to_ne_bytes();
        let [o0, o1] = offset.to_ne_bytes();
        [flags, gso_type, h0, h1, g0, g1, s0, s1, o0, o1]
    }

    /// As [`Offload::encode`], with where a tunnel's headers are, which is little-endian on every machine.
    pub fn encode_with(self, headers: u16, tunnel: Option<UdpTunnel>) -> [u8; TUNNEL_VNET_HEADER] {
        let mut bytes = [0; TUNNEL_VNET_HEADER];
        if let Some(place) = bytes.first_chunk_mut() {
            *place = self.encode(headers);
        }
        if let Some(UdpTunnel { transport, network, version, summed }) = tunnel {
            bytes[0] |= if summed { UDP_TUNNEL_CSUM } else { 0 };
            bytes[1] |= if version == IpVersion::V4 { GSO_UDP_TUNNEL_IPV4 } else { GSO_UDP_TUNNEL_IPV6 };
            bytes[20..22].copy_from_slice(&transport.to_le_bytes());
            bytes[22..24].copy_from_slice(&network.to_le_bytes());
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_decodes_to_itself() {
        let partial = Checksum::Partial { start: 34, offset: 16 };
        let size = NonZeroU16::new(1448).unwrap();
        for checksum in [Checksum::Unverified, Checksum::Valid, partial] {
            let offload = Offload { checksum, gso: None };
            assert_eq!(Offload::decode(offload.encode(0), 100), Ok(offload));
        }
        for kind in [GsoKind::Tcp4, GsoKind::Tcp6, GsoKind::Udp] {
            let offload = Offload { checksum: partial, gso: Some(Gso { kind, size, ecn: kind == GsoKind::Tcp4 }) };
            assert_eq!(Offload::decode(offload.encode(66), 100), Ok(offload));
        }
    }

    #[test]
    fn contradictions_are_refused() {
        let outside = Offload { checksum: Checksum::Partial { start: 90, offset: 9 }, gso: None };
        assert_eq!(Offload::decode(outside.encode(0), 100), Err(BadOffload));
        let mut header = Offload { checksum: Checksum::Partial { start: 34, offset: 16 }, gso: None }.encode(0);
        header[1] = GSO_TCPV4;
        assert_eq!(Offload::decode(header, 100), Err(BadOffload), "segment size 0");
        header[1] = 3;
        assert_eq!(Offload::decode(header, 100), Err(BadOffload), "UFO is not asked for");
        let unsummed = [0, GSO_TCPV4, 0, 0, 1, 0, 0, 0, 0, 0];
        assert_eq!(Offload::decode(unsummed, 100), Err(BadOffload), "a super-frame has a partial checksum");
    }
}
