//! One bit of a packet turned, where its receiver's checksum covers it.

use packet::{Checksum, Ethernet, IpPacket, Offload, checksum};

use super::Transit;
use super::random::Draws;

/// Turns one bit behind the IP header, or behind the Ethernet header of what is not IP: a frame with a wrong address would not reach the station that
/// is to find out. A checksum that is left to do is finished first, or it would be computed over the damage.
pub(super) fn turn_a_bit(transit: &mut Transit, stream: &mut Draws) {
    if transit.offload.gso.is_some() {
        // It could not be cut, and no device would take it with a whole checksum.
        return;
    }
    if let Checksum::Partial { start, offset } = transit.offload.checksum {
        // With metadata that is nonsense it goes as it is.
        let _ = checksum::complete(&mut transit.bytes, start, offset);
    }
    transit.offload = Offload::default();
    let (begin, end) = covered(&transit.bytes).unwrap_or((0, transit.bytes.len()));
    if begin >= end {
        return;
    }
    let bit = stream.below((end - begin) * 8);
    if let Some(byte) = transit.bytes.get_mut(begin + bit / 8) {
        *byte ^= 1 << (bit % 8);
    }
}

/// Where the part begins and ends that a checksum covers, as far as that is known.
fn covered(bytes: &[u8]) -> Option<(usize, usize)> {
    let ethernet = Ethernet::parse(bytes).ok()?;
    let packet = IpPacket::parse(bytes, &ethernet).map(|packet| (packet.transport, packet.end));
    Some(packet.filter(|(begin, end)| begin < end).unwrap_or((ethernet.payload, bytes.len())))
}
