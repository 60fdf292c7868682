//! What is known of a super-frame without a word from the kernel that handed it over: as a capture has it.

use std::num::NonZeroU16;

use crate::egress::header_length;
use crate::encapsulated::Encapsulated;
use crate::layers::{IpVersion, Layers, Transport};
use crate::{Checksum, Gso, GsoKind, Offload};

/// Where the transport of a packet inside another one is looked for: behind the longest headers that kernels put around it.
const FARTHEST: usize = 512;

impl Offload {
    /// What a kernel says of a super-frame that is cut into segments of TCP, or datagrams of UDP, with so many bytes of payload each. Of a frame
    /// that is a tunnel's packet, the one inside is cut. `None`: the frame has no such transport.
    pub fn of_super_frame(frame: &[u8], transport: Transport, size: NonZeroU16) -> Option<Self> {
        let kinds: &[GsoKind] = if transport == Transport::Tcp { &[GsoKind::Tcp4, GsoKind::Tcp6] } else { &[GsoKind::Udp] };
        let said = |start, kind| {
            let offset = u16::try_from(transport.checksum_offset()).ok()?;
            let gso = Some(Gso { kind, size, ecn: false });
            Some(Self { checksum: Checksum::Partial { start: u16::try_from(start).ok()?, offset }, gso })
        };
        let of_inner = |start| {
            let mut said = kinds.iter().filter_map(|kind| said(start, *kind));
            said.find(|offload| Encapsulated::parse(frame, *offload).is_some())
        };
        // A packet inside is known by more than one sign: its header's checksum, and its end, which is that of the frame.
        (0..frame.len().min(FARTHEST)).step_by(2).find_map(of_inner).or_else(|| {
            let layers = Layers::parse(frame).filter(|layers| layers.transport_kind == transport)?;
            let kind = match (transport, layers.version) {
                (Transport::Udp, _) => GsoKind::Udp,
                (Transport::Tcp, IpVersion::V4) => GsoKind::Tcp4,
                (Transport::Tcp, IpVersion::V6) => GsoKind::Tcp6,
            };
            said(layers.transport, kind)
        })
    }

    /// How many frames a frame is on a way that takes no super-frames.
    pub fn segments(self, frame: &[u8]) -> usize {
        let Some(gso) = self.gso else { return 1 };
        let headers = header_length(frame, self).unwrap_or_default();
        frame.len().saturating_sub(headers.into()).div_ceil(gso.size.get().into())
    }

    /// The length of the longest of them, in bytes.
    pub fn longest_segment(self, frame: &[u8]) -> usize {
        let of_super_frame =
            self.gso.map(|gso| usize::from(header_length(frame, self).unwrap_or_default()) + usize::from(gso.size.get()));
        of_super_frame.unwrap_or(usize::MAX).min(frame.len())
    }
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;

    use super::*;

    const ENDS: ([u8; 6], [u8; 6]) = ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);

    fn said(frame: &[u8], transport: Transport) -> Option<(u16, GsoKind, usize, usize)> {
        let offload = Offload::of_super_frame(frame, transport, NonZeroU16::new(1000).unwrap())?;
        let Checksum::Partial { start, .. } = offload.checksum else { return None };
        Some((start, offload.gso?.kind, offload.segments(frame), offload.longest_segment(frame)))
    }

    #[test]
    fn a_super_frame_is_known_by_its_headers() {
        let (mut four, mut six, mut udp) = (Vec::new(), Vec::new(), Vec::new());
        let payload = [7; 2500];
        let ethernet = || PacketBuilder::ethernet2(ENDS.0, ENDS.1);
        ethernet().ipv4([10, 0, 0, 1], [10, 0, 0, 2], 9).tcp(1, 2, 3, 4).write(&mut four, &payload).unwrap();
        ethernet().ipv6([1; 16], [2; 16], 9).tcp(1, 2, 3, 4).write(&mut six, &payload).unwrap();
        ethernet().ipv4([10, 0, 0, 1], [10, 0, 0, 2], 9).udp(1, 2).write(&mut udp, &payload).unwrap();
        assert_eq!(said(&four, Transport::Tcp), Some((34, GsoKind::Tcp4, 3, 1054)));
        assert_eq!(said(&six, Transport::Tcp), Some((54, GsoKind::Tcp6, 3, 1074)));
        assert_eq!(said(&udp, Transport::Udp), Some((34, GsoKind::Udp, 3, 1042)));
        assert_eq!((said(&four, Transport::Udp), said(&udp, Transport::Tcp), said(&[], Transport::Tcp)), (None, None, None));
        let mut around = Vec::new();
        let inside = [&[8, 0, 0, 0, 0, 0, 42, 0][..], &four].concat();
        ethernet().ipv4([192, 0, 2, 1], [192, 0, 2, 2], 9).udp(5000, 4789).write(&mut around, &inside).unwrap();
        around[40..42].fill(0);
        assert_eq!(said(&around, Transport::Tcp), Some((84, GsoKind::Tcp4, 3, 1104)));
    }

    #[test]
    fn a_frame_that_is_none_is_one_frame() {
        assert_eq!((Offload::default().segments(&[0; 60]), Offload::default().longest_segment(&[0; 60])), (1, 60));
    }
}
