//! Ports unplugged and plugged in again: what their stations see of it.

use std::os::fd::AsFd;

use super::{ControlError, Port, Switch};
use crate::attach;
use api::{PortKind, PortSpec, PortState};
use plane::datapath::PortId;
use plane::worker::Command;
use sys::tun;

impl Switch {
    /// Gives the station of a port its carrier, or takes it. The interface of a link, which the switch did not make, keeps its own.
    pub(super) fn set_carrier(&self, id: PortId, spec: &PortSpec, down: bool) -> Result<(), ControlError> {
        let failed = |error| ControlError::Attach(spec.name.clone(), error);
        match spec.kind {
            PortKind::Tap => {
                let router = self.plane.router()?;
                let Some(device) = router.ask(|reply| Command::Duplicate(id, reply))? else { return Ok(()) };
                let Some(queue) = device.queues.first() else { return Ok(()) };
                let set = tun::set_carrier(queue.as_fd(), !down);
                set.map_err(|errno| ControlError::Carrier(spec.name.clone(), errno.into()))
            }
            PortKind::Veth => attach::set_switch_end(spec, &!down).map_err(failed),
            PortKind::Link => Ok(()),
        }
    }
}

/// Why a port is down whose guard let no BPDU in.
pub(super) const TRIPPED: &str = "a BPDU came in, and bpdu-guard is set";

impl Port {
    /// Whether frames can pass it: it may be unplugged.
    pub(super) fn state(&self) -> PortState {
        match self.presence.state() {
            state if !state.has_device() => state.clone(),
            _ if self.spec.policy.down => PortState::Down,
            _ if self.tripped => PortState::Unusable(format!("{TRIPPED}: vsctl set-port {} --up", self.spec.name)),
            state => state.clone(),
        }
    }
}
