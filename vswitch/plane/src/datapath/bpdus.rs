//! What the spanning tree of a bridge hears, and what it stops: a port that it lets nothing pass takes in BPDUs, and only those.

use packet::Frame;
use rstp::State;

use super::forward::Headers;
use super::port::Port;
use super::{DropReason, Fate, Mode, PortId, Punt, Tickets};

/// BPDUs on their way to the control side, where the protocol is spoken. A port that floods them leaves others their share ([`Tickets`]).
#[derive(Debug, Default)]
pub(super) struct Bpdus {
    punts: Vec<Punt>,
    tickets: Tickets,
}

impl Bpdus {
    /// Takes a frame that came in by a port of a tree, if it is a BPDU: no check of stations' frames is for it, and no bridge sends it on. Any other
    /// goes its way (`None`).
    ///
    /// # Errors
    /// The port takes in nothing else, or nothing at all.
    pub(super) fn hear(
        &mut self,
        port: &Port,
        headers: &Headers,
        frame: &Frame,
        mode: Mode,
    ) -> Result<Option<Fate>, DropReason> {
        let is_bpdu = headers.ethernet.is_some_and(|header| header.destination == rstp::GROUP && header.tag.is_none());
        match (port.policy.down, is_bpdu, port.tree) {
            (true, ..) => Err(DropReason::PortDown),
            (false, false, Some(State::Discarding)) => Err(DropReason::StpDiscarding),
            (false, false, _) => Ok(None),
            (false, true, _) => self.punt(port, frame, mode).map(Some),
        }
    }

    fn punt(&mut self, port: &Port, frame: &Frame, mode: Mode) -> Result<Fate, DropReason> {
        let id = PortId(frame.ingress);
        if mode == Mode::Dry {
            return if self.tickets.has_one_for(id) { Ok(Fate::Punted) } else { Err(DropReason::QueueFull) };
        }
        let ticket = self.tickets.take(id).ok_or(DropReason::QueueFull)?;
        self.punts.push(Punt { bridge: port.bridge, port: id, vlan: None, frame: frame.bytes().to_vec(), ticket });
        Ok(Fate::Punted)
    }

    /// Those that came since it was last asked.
    pub(super) fn take(&mut self) -> std::vec::Drain<'_, Punt> {
        self.punts.drain(..)
    }
}
