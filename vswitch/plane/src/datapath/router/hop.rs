//! What routing does to the bytes of a frame: MAC addresses, hop limit, and NAT's rewrite. The router decides it,
//! and the outputs apply it once the whole batch is decided.

use packet::{Frame, IpVersion, Mac};

/// What happens to a frame that is sent on to its next hop: other MAC addresses, a hop limit less one, and what NAT decided.
#[derive(Debug, Clone, Copy)]
pub(in crate::datapath) struct Hop {
    pub(super) source: Mac,
    pub(super) destination: Mac,
    /// Where the IP header begins.
    pub(super) network: usize,
    pub(super) version: IpVersion,
    pub(super) nat: Option<nat::Rewrite>,
}

impl Hop {
    /// What NAT changes in the frame, if anything.
    pub(in crate::datapath) fn changes(&self, frame: &[u8]) -> Option<[Option<nat::EndChange>; 2]> {
        Some(self.nat?.changes(frame, self.network))
    }

    /// Changes the frame.
    pub(in crate::datapath) fn apply(&self, frame: &mut Frame) {
        let offload = frame.offload;
        let bytes = frame.bytes_mut();
        if let Some(addresses) = bytes.get_mut(..12) {
            addresses[..6].copy_from_slice(&self.destination.0);
            addresses[6..].copy_from_slice(&self.source.0);
        }
        match self.version {
            IpVersion::V4 => count_down_v4(bytes.get_mut(self.network..).unwrap_or_default()),
            IpVersion::V6 => count_down_v6(bytes.get_mut(self.network..).unwrap_or_default()),
        }
        if let Some(nat) = &self.nat {
            nat.apply(bytes, self.network, &offload);
        }
    }
}

/// A TTL less one is a header checksum more by 0x0100 (RFC 1141). What is for this very host may have none left.
fn count_down_v4(header: &mut [u8]) {
    let Some(header) = header.first_chunk_mut::<20>() else { return };
    let Some(left) = header[8].checked_sub(1) else { return };
    header[8] = left;
    let checksum = u32::from(u16::from_be_bytes([header[10], header[11]])) + 0x0100;
    let folded = (checksum & 0xffff) + (checksum >> 16);
    let [_, _, high, low] = folded.to_be_bytes();
    (header[10], header[11]) = (high, low);
}

fn count_down_v6(header: &mut [u8]) {
    if let Some(limit) = header.get_mut(7) {
        *limit = limit.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{Ipv4HeaderSlice, PacketBuilder};
    use packet::{Batch, Offload};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_header_checksum_stays_right(ttl: u8, id: u16, source: [u8; 4], destination: [u8; 4]) {
            let mut frame = Vec::new();
            let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4(source, destination, ttl);
            builder.udp(1, 2).write(&mut frame, &id.to_be_bytes()).unwrap();
            let mut batch = Batch::new();
            batch.push(&frame, Offload::default());
            let (here, there) = (Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2]));
            let hop = Hop { source: here, destination: there, network: 14, version: IpVersion::V4, nat: None };
            hop.apply(&mut batch.frames_mut()[0]);
            let bytes = batch.frames()[0].bytes();
            let header = Ipv4HeaderSlice::from_slice(&bytes[14..]).unwrap();
            prop_assert_eq!(header.ttl(), ttl.saturating_sub(1));
            let sum = packet::checksum::Sum::new().plus(&bytes[14..34]).folded();
            prop_assert_eq!(sum, 0xffff);
            prop_assert_eq!(&bytes[..12], &[there.0, here.0].concat()[..]);
            prop_assert_eq!(&bytes[34..], &frame[34..]);
        }
    }
}
