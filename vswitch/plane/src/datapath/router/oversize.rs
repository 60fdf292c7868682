//! Packets that are longer than the way on allows, and may be cut there (IPv4 without "don't fragment").

use std::num::NonZeroU16;

use packet::{Capabilities, Egress, Frame, Gso, GsoKind, IpPacket, Offload, Packet, Queued, TagEdit};

use super::{Arrival, Decision, DropReason, Observer, Paths, Plan, Router};

impl Router {
    /// Sends a packet on in parts of at most `mtu` bytes. A super-frame of TCP gets a smaller segment size, and is cut later, by the egress
    /// or the device. The length of a datagram has a meaning, so each datagram of a super-frame goes in fragments, as the kernel sends them
    /// (`ip_finish_output_gso`).
    pub(super) fn send_in_parts(
        &mut self,
        at: &Arrival,
        packet: &IpPacket,
        plan: Plan,
        mtu: u16,
        paths: &mut Paths<'_, impl Observer>,
    ) -> Decision {
        let frame = paths.frame(at.index).ok_or(DropReason::Malformed)?;
        let Some(gso) = frame.offload.gso else {
            return self.send_in_fragments(at, (frame.bytes().to_vec(), frame.offload), plan, mtu, paths);
        };
        let headers = frame.headers().map(|headers| usize::from(headers).saturating_sub(packet.network));
        let size = headers.and_then(|headers| NonZeroU16::new(mtu.saturating_sub(u16::try_from(headers).ok()?)));
        if let Some(size) = size.filter(|_| gso.kind != GsoKind::Udp) {
            let (bytes, offload) = (frame.bytes().to_vec(), Offload { gso: Some(Gso { size, ..gso }), ..frame.offload });
            let index = paths.push_of((paths.id(at.index), plan.port), &bytes, offload)?;
            return self.resolve(index, plan, packet, at, paths);
        }
        let mut segments = Vec::new();
        finish(frame, &mut |segment| segments.push((segment.to_vec(), segment.offload)))?;
        let mut fate = Err(DropReason::Malformed);
        for segment in segments {
            fate = Ok(self.send_in_fragments(at, segment, plan, mtu, paths)?);
        }
        fate
    }
}

/// Shows a frame with its checksum finished, or each segment of a super-frame.
///
/// # Errors
/// The super-frame cannot be cut.
pub(super) fn finish(frame: &Frame, see: &mut dyn FnMut(&Packet<'_>)) -> Result<(), DropReason> {
    let queued = Queued { frame, edit: TagEdit::Keep, peer: 0 };
    let uncut = Egress::new().run(&[queued], Capabilities::default(), see);
    if !uncut.is_empty() { Err(DropReason::Unsegmentable) } else { Ok(()) }
}
