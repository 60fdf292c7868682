//! Super-frames inside a tunnel's packet, as a kernel's vxlan, geneve, gre, ipip or sit makes them.
//!
//! Such a frame is cut by its inner headers, and every segment is a packet of the tunnel's. Its metadata is that of a plain super-frame but
//! for `csum_start`, which lies in the inner transport; packet sockets say no more. What is between the two IP headers is the
//! tunnel's own and the same in every segment, so only its carrier has to be known: UDP (vxlan, geneve, fou), GRE, or IP
//! (RFC 2003, RFC 2473). The inner IP header is looked for from its end, before the transport. Kernels offload one tunnel, not one
//! in another (`NAPI_GRO_CB(skb)->encap_mark`, `hw_enc_features`).

use crate::checksum::Sum;
use crate::ip::protocol;
use crate::layers::{IpVersion, Layers, network, number};
use crate::segment::fits;
use crate::{Checksum, IpPacket, Offload, UdpTunnel};

/// The headers of a super-frame inside another packet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Encapsulated {
    pub(crate) outer: Outer,
    /// Of the inner packet.
    pub(crate) layers: Layers,
}

/// The packet around another one. Offsets are from the start of the frame.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outer {
    /// Where the IP header begins.
    pub(crate) network: usize,
    pub(crate) version: IpVersion,
    /// Where the carrier's header begins.
    pub(crate) transport: usize,
    pub(crate) carrier: Carrier,
}

/// What a tunnel puts behind the outer IP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Carrier {
    /// With a checksum, or without (RFC 6935).
    Udp { summed: bool },
    /// RFC 2784, with a checksum or without.
    Gre { summed: bool },
    /// Nothing.
    Ip,
}

const GRE: u8 = 47;
const IPV4: u8 = 4;
const IPV6: u8 = 41;
/// The bits of a GRE header whose fields may repeat in every segment: checksum and key (RFC 2784; RFC 2890).
const GRE_CHECKSUM: u16 = 0x8000;
const GRE_KEY: u16 = 0x2000;

impl Encapsulated {
    /// Finds the headers of a super-frame whose metadata speaks of an inner packet; `None` if there is none.
    pub(crate) fn parse(frame: &[u8], offload: Offload) -> Option<Self> {
        let (Some(gso), Checksum::Partial { start, .. }) = (offload.gso, offload.checksum) else { return None };
        let outer = Outer::parse(frame)?;
        let layers = inner(frame, outer.transport, start.into()).filter(|layers| fits(layers, gso.kind))?;
        Some(Self { outer, layers })
    }

    /// What a device is told that takes such a super-frame whole; `None` if the carrier is another.
    pub(crate) fn udp_tunnel(&self, shift: impl Fn(usize) -> Option<u16>) -> Option<UdpTunnel> {
        let Outer { version, transport, carrier: Carrier::Udp { summed }, .. } = self.outer else { return None };
        Some(UdpTunnel { transport: shift(transport)?, network: shift(self.layers.network)?, version, summed })
    }
}

impl Outer {
    fn parse(frame: &[u8]) -> Option<Self> {
        let (version, network) = network(frame)?;
        let packet = IpPacket::parse_embedded(frame, network).filter(|packet| packet.version == version)?;
        let transport = packet.transport;
        let carrier = match packet.protocol {
            _ if packet.fragment.is_some() => return None,
            protocol::UDP => Carrier::Udp { summed: number(frame, transport + 6)? != 0 },
            GRE => match number(frame, transport)? {
                bits if bits & !(GRE_CHECKSUM | GRE_KEY) == 0 => Carrier::Gre { summed: bits & GRE_CHECKSUM != 0 },
                _ => return None,
            },
            IPV4 | IPV6 => Carrier::Ip,
            _ => return None,
        };
        Some(Self { network, version, transport, carrier })
    }
}

/// The packet behind `from` whose transport begins at `start`, and which ends with the frame.
fn inner(frame: &[u8], from: usize, start: usize) -> Option<Layers> {
    let whole = |version, length: usize| {
        let network = start.checked_sub(length).filter(|network| *network >= from && (network - from).is_multiple_of(2))?;
        let layers = Layers::parse_packet(frame, version, network)?;
        let right = || Sum::new().plus(frame.get(network..start).unwrap_or_default()).folded() == 0xffff;
        let is_it = layers.transport == start && layers.end == frame.len() && (version == IpVersion::V6 || right());
        is_it.then_some(layers)
    };
    (5..=15).find_map(|words| whole(IpVersion::V4, words * 4)).or_else(|| whole(IpVersion::V6, 40))
}
