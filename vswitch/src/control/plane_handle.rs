//! The workers, and what they were given that is not a resource's: the sockets of tunnels, and captures.

use super::capture::Captures;
use super::sockets::Sockets;
use crate::confine::Confinement;
use plane::worker::{Command, Handle, Stopped};

/// The data plane, as the control side reaches it.
pub(super) struct PlaneHandle {
    pub(super) workers: Vec<Handle>,
    /// What threads that take in frames are confined by.
    pub(super) sandbox: Confinement,
    pub(super) sockets: Sockets,
    pub(super) captures: Captures,
}

impl PlaneHandle {
    /// Tells every worker.
    pub(super) fn tell_all(&self, command: impl Fn() -> Command) -> Result<(), Stopped> {
        self.workers.iter().try_for_each(|worker| worker.tell(command()))
    }

    /// The worker that routes.
    pub(super) fn router(&self) -> Result<&Handle, Stopped> {
        self.workers.first().ok_or(Stopped)
    }
}
