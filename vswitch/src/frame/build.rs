//! From words to a frame: checksums, lengths and the MAC addresses that the words leave open.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use etherparse::err::packet::BuildWriteError;
use etherparse::{ArpHardwareId, ArpOperation, ArpPacket, EtherType, PacketBuilder, PacketBuilderStep, TcpHeader};
use packet::{Mac, Tag, VlanId, solicited_node};

use super::words::{Body, FrameWords};

/// The MAC addresses of a frame's ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Endpoints {
    pub(crate) from: Mac,
    pub(crate) to: Mac,
}

/// A frame that cannot be.
#[derive(Debug, thiserror::Error)]
#[error("the frame cannot be built: {0}")]
pub(crate) struct NoFrame(String);

/// The local experimental EtherType 1 (IEEE 802, section 9.2.3).
const EXPERIMENTAL: [u8; 2] = [0x88, 0xb5];
/// What Linux offers as its window at first.
const WINDOW: u16 = 64_240;
/// Hops of a packet, if the words do not say: the default of Linux.
const TTL: u8 = 64;

impl FrameWords {
    /// The sender's and the receiver's IP address, as far as the words say.
    pub(crate) fn addresses(&self) -> (Option<IpAddr>, Option<IpAddr>) {
        match &self.body {
            Body::Raw(_) | Body::Experimental => (None, None),
            Body::WhoHas { tell, .. } => (*tell, None),
            Body::IsAt { address, to } => (Some(*address), *to),
            Body::Echo { source, destination, .. } => (Some(*source), Some(*destination)),
            Body::Tcp { source, destination, .. } | Body::Udp { source, destination } => {
                (Some(source.ip()), Some(destination.ip()))
            }
        }
    }

    /// The group that the frame is for by its nature, whatever the receiver's MAC address would be.
    pub(crate) fn group(&self) -> Option<Mac> {
        match &self.body {
            Body::WhoHas { target: IpAddr::V4(_), .. } => Some(Mac::BROADCAST),
            Body::WhoHas { target: IpAddr::V6(target), .. } => Some(Mac::of_group(solicited_node(*target).into())),
            Body::IsAt { to: None, address } => Some(match address {
                IpAddr::V4(_) => Mac::BROADCAST,
                IpAddr::V6(_) => Mac::of_group(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1).into()),
            }),
            _ => self.addresses().1.filter(|to| to.is_multicast() || is_broadcast(*to)).map(Mac::of_group),
        }
    }

    /// The frame, from this station, whose own address stands in where the words do not say who asks.
    ///
    /// # Errors
    /// What they say cannot be.
    pub(crate) fn build(&self, ends: Endpoints, own: Option<IpAddr>) -> Result<Vec<u8>, NoFrame> {
        let payload = vec![0; self.length.into()];
        let frame = match &self.body {
            Body::Raw(bytes) => return Ok(bytes.clone()),
            Body::Experimental => [&ends.to.0[..], &ends.from.0, &EXPERIMENTAL, &[0; 46]].concat(),
            Body::WhoHas { target, tell } => {
                let sender = tell.or(own).filter(|sender| sender.is_ipv4() == target.is_ipv4());
                neighbor(ends, (sender, *target), true)?
            }
            Body::IsAt { address, to } => neighbor(ends, (Some(*address), to.unwrap_or(*address)), false)?,
            Body::Echo { source, destination, reply, identifier, sequence } => {
                let ip = self.ip(ends, *source, *destination)?;
                let (id, seq) = (*identifier, *sequence);
                match (source, reply) {
                    (IpAddr::V4(_), false) => written(|out| ip.icmpv4_echo_request(id, seq).write(out, &payload))?,
                    (IpAddr::V4(_), true) => written(|out| ip.icmpv4_echo_reply(id, seq).write(out, &payload))?,
                    (IpAddr::V6(_), false) => written(|out| ip.icmpv6_echo_request(id, seq).write(out, &payload))?,
                    (IpAddr::V6(_), true) => written(|out| ip.icmpv6_echo_reply(id, seq).write(out, &payload))?,
                }
            }
            Body::Tcp { source, destination, flags } => self.tcp(ends, (*source, *destination), *flags, &payload)?,
            Body::Udp { source, destination } => {
                let ip = self.ip(ends, source.ip(), destination.ip())?;
                written(|out| ip.udp(source.port(), destination.port()).write(out, &payload))?
            }
        };
        Ok(match self.vlan {
            Some(vlan) => tagged(&frame, vlan),
            None => frame,
        })
    }

    fn tcp(
        &self,
        ends: Endpoints,
        (source, destination): (SocketAddr, SocketAddr),
        flags: u8,
        payload: &[u8],
    ) -> Result<Vec<u8>, NoFrame> {
        let ip = self.ip(ends, source.ip(), destination.ip())?;
        let mut header = TcpHeader::new(source.port(), destination.port(), 1, WINDOW);
        let is_set = |bit: u8| flags & bit != 0;
        (header.fin, header.syn, header.rst, header.psh) = (is_set(0x01), is_set(0x02), is_set(0x04), is_set(0x08));
        (header.ack, header.urg, header.ece, header.cwr) = (is_set(0x10), is_set(0x20), is_set(0x40), is_set(0x80));
        written(|out| ip.tcp_header(header).write(out, payload))
    }

    fn ip(
        &self,
        Endpoints { from, to }: Endpoints,
        source: IpAddr,
        destination: IpAddr,
    ) -> Result<PacketBuilderStep<etherparse::IpHeaders>, NoFrame> {
        let ethernet = PacketBuilder::ethernet2(from.0, to.0);
        let ttl = self.ttl.unwrap_or(TTL);
        match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let header = etherparse::Ipv4Header {
                    time_to_live: ttl,
                    source: source.octets(),
                    destination: destination.octets(),
                    dont_fragment: self.dont_fragment,
                    ..etherparse::Ipv4Header::default()
                };
                Ok(ethernet.ip(etherparse::IpHeaders::Ipv4(header, etherparse::Ipv4Extensions::default())))
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => Ok(ethernet.ipv6(source.octets(), destination.octets(), ttl)),
            _ => Err(NoFrame("its addresses are of two IP versions".to_owned())),
        }
    }
}

/// What a step of etherparse writes.
fn written(write: impl FnOnce(&mut Vec<u8>) -> Result<(), BuildWriteError>) -> Result<Vec<u8>, NoFrame> {
    let mut out = Vec::new();
    write(&mut out).map_err(|wrong| NoFrame(wrong.to_string()))?;
    Ok(out)
}

/// ARP (RFC 826), or neighbour discovery (RFC 4861, sections 4.3 and 4.4).
fn neighbor(
    Endpoints { from, to }: Endpoints,
    (sender, target): (Option<IpAddr>, IpAddr),
    asks: bool,
) -> Result<Vec<u8>, NoFrame> {
    match (sender, target) {
        (None | Some(IpAddr::V4(_)), IpAddr::V4(target)) => {
            let own = match sender {
                Some(IpAddr::V4(own)) => own.octets(),
                _ => [0; 4],
            };
            let (operation, whom) = if asks { (ArpOperation::REQUEST, [0; 6]) } else { (ArpOperation::REPLY, to.0) };
            let (hardware, protocol) = (ArpHardwareId::ETHERNET, EtherType::IPV4);
            let message = ArpPacket::new(hardware, protocol, operation, &from.0, &own, &whom, &target.octets());
            let message = message.map_err(|wrong| NoFrame(wrong.to_string()))?;
            Ok([&to.0[..], &from.0, &[0x08, 0x06], &message.to_bytes()].concat())
        }
        (sender, IpAddr::V6(target)) => {
            let own = match sender {
                Some(IpAddr::V6(own)) => own,
                _ => Ipv6Addr::UNSPECIFIED,
            };
            let ethernet = PacketBuilder::ethernet2(from.0, to.0);
            let all = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
            let (kind, flags, about, whom) = match asks {
                true => (135, [0; 4], target, solicited_node(target)),
                // An answer that overrides what was known.
                false => (136, [0x20, 0, 0, 0], own, if target == own { all } else { target }),
            };
            // The option says the sender's link-layer address (RFC 4861, section 4.6.1); one without an IP address gives none.
            let option = [&[if asks { 1 } else { 2 }, 1][..], &from.0].concat();
            let option = if asks && own.is_unspecified() { Vec::new() } else { option };
            let body = [&about.octets()[..], &option].concat();
            let message = ethernet.ipv6(own.octets(), whom.octets(), 255).icmpv6_raw(kind, 0, flags);
            written(|out| message.write(out, &body))
        }
        (Some(_), IpAddr::V4(_)) => Err(NoFrame("its addresses are of two IP versions".to_owned())),
    }
}

fn is_broadcast(address: IpAddr) -> bool {
    matches!(address, IpAddr::V4(address) if address.is_broadcast())
}

fn tagged(frame: &[u8], vlan: VlanId) -> Vec<u8> {
    let (addresses, rest) = frame.split_at(12.min(frame.len()));
    [addresses, &[0x81, 0], &Tag(vlan.number()).0.to_be_bytes(), rest].concat()
}
