//! What the router may touch of the rest of the datapath: it reads bridges and ports, and adds frames to the batch and to the outputs.

use std::net::IpAddr;

use packet::{Batch, Ethernet, Frame, Mac, Offload, Tag, VlanId};

use crate::datapath::bridge::{Bridge, Destination};
use crate::datapath::{BridgeId, Departure, DropReason, Mode, Observer, Outputs, Place, Port, PortId, Slots, Step};

/// What the router uses of the rest of the datapath: the batch, and the ways out.
pub(in crate::datapath) struct Paths<'a, O> {
    pub(in crate::datapath) bridges: &'a Slots<Bridge>,
    pub(in crate::datapath) ports: &'a Slots<Port>,
    pub(in crate::datapath) batch: &'a mut Batch,
    pub(in crate::datapath) outputs: &'a mut Outputs,
    pub(in crate::datapath) observer: &'a mut O,
}

impl<O: Observer> Paths<'_, O> {
    /// Whether nothing may change: see [`Mode`].
    pub(super) const fn is_dry(&self) -> bool {
        matches!(O::MODE, Mode::Dry)
    }

    pub(super) fn frame(&self, index: usize) -> Option<&Frame> {
        self.batch.frames().get(index)
    }

    pub(super) fn bytes(&self, index: usize) -> &[u8] {
        self.frame(index).map_or(&[], Frame::bytes)
    }

    /// Puts a frame behind those of the batch and returns its place.
    pub(super) fn push(&mut self, bytes: &[u8], offload: Offload) -> Result<usize, DropReason> {
        if !self.batch.has_room() {
            return Err(DropReason::QueueFull);
        }
        self.batch.push(bytes, offload);
        Ok(self.batch.frames().len() - 1)
    }

    /// As [`Paths::push`], for what is sent on of a frame that came in: captures know it by the number of that frame, `id`, and its `port`.
    pub(super) fn push_of(&mut self, (id, port): (u64, PortId), bytes: &[u8], offload: Offload) -> Result<usize, DropReason> {
        let index = self.push(bytes, offload)?;
        if let Some(frame) = self.batch.last_mut() {
            (frame.id, frame.ingress) = (id, port.0);
        }
        Ok(index)
    }

    /// The number by which captures know a frame of the batch.
    pub(super) fn id(&self, index: usize) -> u64 {
        self.frame(index).map_or(0, |frame| frame.id)
    }

    /// The MAC address of a station that is known beforehand behind a tunnel of a bridge.
    pub(super) fn known(&self, bridge: BridgeId, vlan: VlanId, address: IpAddr) -> Option<Mac> {
        self.bridges.get(bridge.0)?.known(vlan, address, self.ports)
    }

    /// Sends a frame that the gateway of a bridge made, in the gateway's VLAN.
    pub(in crate::datapath) fn emit(&mut self, bridge: BridgeId, vlan: VlanId, bytes: &[u8]) -> Result<(), DropReason> {
        let ethernet = Ethernet::parse(bytes).map_err(|_| DropReason::Runt)?;
        let index = self.push(bytes, Offload::default())?;
        self.deliver(bridge, (vlan, ethernet.tag), index, ethernet.destination)
    }

    /// Queues a frame of the batch, coming from the gateway of a bridge and tagged like this, where its destination is on that bridge; at every
    /// port if that is not known.
    pub(super) fn deliver(
        &mut self,
        bridge: BridgeId,
        place: (VlanId, Option<Tag>),
        index: usize,
        destination: Mac,
    ) -> Result<(), DropReason> {
        let bridge = self.bridges.get(bridge.0).ok_or(DropReason::NoRoute)?;
        let (vlan, tag) = place;
        let there = match self.batch.frames().first() {
            Some(received) => bridge.look_up_after(O::MODE, received, self.ports, (vlan, destination)),
            None => bridge.look_up(vlan, destination),
        };
        if let Destination::Place(Place { port: id, peer }) = there {
            let port = self.ports.get(id.0).ok_or(DropReason::NoDestination)?;
            if !port.forwards() {
                return Err(DropReason::StpDiscarding);
            }
            let edit = port.vlans.egress(vlan, tag).ok_or(DropReason::NoDestination)?;
            self.observer.see(index, || Step::Queued { port: id, edit, peer });
            self.outputs.push(id, Departure { frame: index, edit, peer });
            return Ok(());
        }
        bridge.flood(None, index, place, self.ports, (self.outputs, self.observer)).map(drop)
    }
}
