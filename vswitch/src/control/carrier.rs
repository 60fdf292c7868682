//! Ports unplugged and plugged in again: what their stations see of it.

use std::os::fd::AsFd;

use super::{ControlError, Switch};
use crate::attach;
use api::{PortKind, PortSpec, PortState};
use plane::datapath::PortId;
use plane::worker::Command;
use sys::tun;

impl Switch {
    /// Gives the station of a port its carrier, or takes it. The interface of a link, which the switch did not make, keeps its own.
    pub(super) fn set_carrier(&self, id: PortId, spec: &PortSpec) -> Result<(), ControlError> {
        let failed = |error| ControlError::Attach(spec.name.clone(), error);
        match spec.kind {
            PortKind::Tap => {
                let router = self.plane.router()?;
                let Some(queue) = router.ask(|reply| Command::Duplicate(id, reply))? else { return Ok(()) };
                let set = tun::set_carrier(queue.as_fd(), !spec.policy.down);
                set.map_err(|errno| ControlError::Carrier(spec.name.clone(), errno.into()))
            }
            PortKind::Veth => attach::set_switch_end(spec, !spec.policy.down).map_err(failed),
            PortKind::Link => Ok(()),
        }
    }
}

/// The state of a port that may be unplugged.
pub(super) fn plugged(state: &PortState, down: bool) -> PortState {
    if down && state.has_device() { PortState::Down } else { state.clone() }
}
