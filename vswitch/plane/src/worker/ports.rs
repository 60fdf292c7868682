//! Ports of a worker: their devices opened and closed, and what they are set to.

use std::io;
use std::time::Instant;

use mio::Interest;
use mio::unix::SourceFd;

use super::{Share, Worker, token};
use crate::datapath::{PortId, PortSettings};
use crate::device::Device;

impl Worker {
    /// Puts a device on a port that this makes.
    pub(super) fn attach(
        &mut self,
        id: PortId,
        settings: &PortSettings,
        device: Box<dyn Device>,
        now: Instant,
    ) -> io::Result<()> {
        self.open(id, device, false)?;
        self.set_port(id, settings, now);
        Ok(())
    }

    /// Makes or changes a port, and where its packets have to wait.
    pub(super) fn set_port(&mut self, id: PortId, settings: &PortSettings, now: Instant) {
        let is_moved = self.datapath.bridge_of(id).is_some_and(|bridge| bridge != settings.bridge);
        self.datapath.set_port(id, settings);
        if is_moved || settings.policy.down {
            self.cut_stops(id, now);
        }
        self.set_stops(id, &settings.policy.impair, now);
    }

    /// Reads from a device from now on.
    pub(super) fn open(&mut self, id: PortId, device: Box<dyn Device>, shared: bool) -> io::Result<()> {
        let descriptors = device.descriptors();
        for (place, descriptor) in descriptors.iter().enumerate() {
            self.poll.registry().register(&mut SourceFd(descriptor), token(id, place), Interest::READABLE)?;
        }
        if descriptors.is_empty() && device.receives() {
            self.polled.push(id);
        }
        let share = Share { device: Some(device), ready: false, captured: false, shared, told_too_big: false };
        self.shares.insert(id.0, share);
        self.mark_captured();
        // What came before the registration raises no edge.
        self.make_ready(id);
        Ok(())
    }

    /// Removes a port, and returns its device.
    pub(super) fn detach(&mut self, id: PortId, now: Instant) -> Option<Box<dyn Device>> {
        let device = self.close(id);
        self.shares.remove(id.0);
        self.stops.remove(id, now);
        self.ready.retain(|ready| *ready != id);
        self.datapath.remove_port(id);
        self.watch.forget(id);
        device
    }

    /// Takes the device of a port away.
    pub(super) fn close(&mut self, id: PortId) -> Option<Box<dyn Device>> {
        let device = self.shares.get_mut(id.0).and_then(|share| share.device.take())?;
        self.polled.retain(|polled| *polled != id);
        for descriptor in device.descriptors() {
            // Closing it ends the registration anyway.
            let _ = self.poll.registry().deregister(&mut SourceFd(&descriptor));
        }
        Some(device)
    }
}
