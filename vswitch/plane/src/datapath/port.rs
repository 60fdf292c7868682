//! One port: what it is set to, what it has counted, and what it lets into its bridge.

use std::time::Instant;

use packet::{Checksum, Ethernet, Frame, Mac, VlanId};
use rstp::State;

use super::flows::PortFlows;
use super::forward::Headers;
use super::tunnel::Remote;
use super::vlan::PortVlans;
use super::{BridgeId, BridgeSettings, Counters, DropReason, Guard, Mode, PortLimits};
use api::{ControlFrames, PortPolicy};

#[derive(Debug)]
pub(super) struct Port {
    pub(super) bridge: BridgeId,
    pub(super) vlans: PortVlans,
    pub(super) guard: Option<Guard>,
    pub(super) owner: Option<Mac>,
    pub(super) policy: PortPolicy,
    pub(super) limits: PortLimits,
    pub(super) remote: Option<Remote>,
    /// What the spanning tree lets pass; `None`: the port is part of none.
    pub(super) tree: Option<State>,
    pub(super) counters: Counters,
    /// What moves most of what comes in.
    pub(super) flows: PortFlows,
}

impl Port {
    /// Whether header and length alone decide about a frame, so that frames like it can go the same way.
    pub(super) const fn looks_at_headers_only(&self) -> bool {
        self.guard.is_none()
    }

    /// Whether its frames teach where their senders are.
    pub(super) fn learns(&self) -> bool {
        self.remote.as_ref().is_none_or(|remote| remote.learn)
    }

    /// Whether it leads to a station, and not to another network.
    pub(super) const fn is_station(&self) -> bool {
        self.owner.is_none() && self.remote.is_none()
    }

    /// Whether the spanning tree lets frames pass.
    pub(super) fn forwards(&self) -> bool {
        self.tree.is_none_or(|state| state == State::Forwarding)
    }

    /// Whether the spanning tree lets addresses be learned here.
    pub(super) fn may_teach(&self) -> bool {
        self.tree != Some(State::Discarding)
    }

    /// Checks everything that may keep a frame from entering the bridge, in this order. Returns the frame's headers if nothing does.
    pub(super) fn admit(
        &self,
        frame: &Frame,
        headers: &Headers,
        bridge: &BridgeSettings,
        (now, mode): (Instant, Mode),
    ) -> Result<(Ethernet, VlanId), DropReason> {
        if self.policy.down {
            return Err(DropReason::PortDown);
        }
        let bytes = frame.bytes();
        let ethernet = headers.ethernet.ok_or(DropReason::Runt)?;
        if exceeds(bridge.mtu, &ethernet, frame) {
            return Err(DropReason::Oversized);
        }
        let vlan = headers.vlan?;
        if ethernet.source.is_group() || ethernet.source == Mac::ZERO {
            return Err(DropReason::InvalidSource);
        }
        if ethernet.destination.is_link_local_control() && !passes(bridge, ethernet.destination) {
            return Err(DropReason::ControlFrame);
        }
        if self.owner == Some(ethernet.destination) {
            return Err(DropReason::SamePort);
        }
        if let Some(guard) = &self.guard {
            guard.check(&ethernet, bytes)?;
        }
        if ethernet.destination.is_group() {
            self.admit_flood(frame.segments(), now, mode)?;
        }
        Ok((ethernet, vlan))
    }

    /// Whether one more frame, or super-frame of so many segments, may go to many: to a group, or to a station not known.
    pub(super) fn admit_flood(&self, segments: usize, now: Instant, mode: Mode) -> Result<(), DropReason> {
        let admitted = self.limits.broadcast.as_ref().is_none_or(|limit| limit.admit_frames(segments, now, mode));
        admitted.then_some(()).ok_or(DropReason::StormLimit)
    }
}

/// Whether a frame, or a segment of a super-frame, is longer than the MTU. Its tags do not count, up to two of them, so that a
/// full packet of a customer's VLAN passes inside a provider's (IEEE 802.1ad).
pub(super) fn exceeds(mtu: u16, ethernet: &Ethernet, frame: &Frame) -> bool {
    let bytes = frame.bytes();
    if bytes.len() <= ethernet.payload + usize::from(mtu) {
        return false;
    }
    let room = usize::from(mtu) + inner_tags(ethernet, bytes);
    let length = match (frame.offload.gso, frame.offload.checksum) {
        (Some(gso), Checksum::Partial { start, offset }) => {
            // TCP's checksum is at 16 and its header length at 12; UDP's at 6 of 8 bytes.
            let start = usize::from(start);
            let transport = if offset == 16 { bytes.get(start + 12).map_or(20, |byte| usize::from(byte >> 4) * 4) } else { 8 };
            start + transport + usize::from(gso.size.get())
        }
        _ => bytes.len(),
    };
    length.min(bytes.len()) > ethernet.payload + room
}

/// Bytes of the tags, of either kind, that stay payload: as many as make two with the one that does not.
fn inner_tags(ethernet: &Ethernet, bytes: &[u8]) -> usize {
    let most = if ethernet.tag.is_some() { 1 } else { 2 };
    let kinds = bytes.get(ethernet.payload.saturating_sub(2)..).unwrap_or_default().chunks_exact(4);
    let is_tag = |kind: &[u8]| matches!(kind, [0x81, 0x00, ..] | [0x88, 0xa8, ..]);
    kinds.take(most).take_while(|kind| is_tag(kind)).count() * 4
}

/// Whether a frame to a link-local control address goes on. PAUSE never does, nor a BPDU of others where this bridge is part of a tree.
fn passes(bridge: &BridgeSettings, destination: Mac) -> bool {
    bridge.control_frames == ControlFrames::Pass && destination.0[5] != 1 && !(bridge.stp && destination == rstp::GROUP)
}
