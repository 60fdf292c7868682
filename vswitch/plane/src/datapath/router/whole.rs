//! Packets to and from the router itself that are longer than a link takes: put together, and cut.

use std::time::Instant;

use packet::{ETHERNET_HEADER, Fragment, IpPacket, Offload, VlanId};

use super::{Arrival, BridgeId, Decision, DropReason, Fate, Kept, LateDrop, Observer, Paths, PortId, Router, Wait};
use crate::fragments;

impl Router {
    /// A part of a packet to one of the router's own addresses. It waits for the others.
    pub(super) fn receive_fragment(
        &mut self,
        at: &Arrival,
        packet: &IpPacket,
        fragment: Fragment,
        uplink: Option<BridgeId>,
        paths: &mut Paths<'_, impl Observer>,
    ) -> Decision {
        let (origin, bytes) = ((at.bridge, at.port), paths.bytes(at.index));
        let added = if paths.is_dry() {
            self.fragments.peek(origin, bytes, packet, fragment)
        } else {
            self.fragments.add(origin, bytes, packet, fragment, at.now)
        };
        self.lose(added.lost);
        if added.contradicts {
            return Err(DropReason::FragmentForGateway);
        }
        let Some((mut frame, packet)) = added.whole else { return Ok(Fate::Waiting(Wait::Fragments)) };
        // The services look at the MAC address of the sender.
        frame[..6].copy_from_slice(&at.ethernet.destination.0);
        frame[6..12].copy_from_slice(&at.ethernet.source.0);
        let index = paths.push(&frame, Offload::default())?;
        self.receive_local(&Arrival { index, ..*at }, &packet, uplink, paths)
    }

    /// Gives up packets whose rest did not come.
    pub(super) fn expire_fragments(&mut self, now: Instant) {
        let lost = self.fragments.expire(now);
        self.lose(lost);
    }

    fn lose(&mut self, lost: Vec<fragments::Lost<(BridgeId, PortId)>>) {
        let reason = DropReason::FragmentForGateway;
        for fragments::Lost { origin: (_, port), frames } in lost {
            let kept = frames.into_iter().map(|bytes| Kept { bytes, offload: Offload::default(), id: 0 });
            self.late_drops.extend(kept.map(|frame| LateDrop { port, reason, frame }));
        }
    }

    /// Sends the answer in `scratch` into a bridge, in fragments if it is longer than the bridge's MTU.
    pub(super) fn emit_scratch(
        &mut self,
        bridge: BridgeId,
        vlan: VlanId,
        paths: &mut Paths<'_, impl Observer>,
    ) -> Result<(), DropReason> {
        let mtu = self.interfaces.get(bridge).map_or(u16::MAX, |interface| interface.settings.mtu).into();
        if self.scratch.len() <= ETHERNET_HEADER + mtu {
            return paths.emit(bridge, vlan, &self.scratch);
        }
        let identification = self.identification.wrapping_add(1);
        if !paths.is_dry() {
            self.identification = identification;
        }
        let pieces = fragments::cut(&self.scratch, mtu, identification);
        pieces.iter().try_for_each(|piece| paths.emit(bridge, vlan, piece))
    }
}
