//! A planned end and the start after it: the links of devices that stay do not go down in between.
//!
//! At the end the queues of TAPs that stay (see [`ending`](super::ending)) go to the service manager (`FDSTORE=1`, sd_notify(3)). It holds them
//! open, so that the device keeps its carrier and what programs send waits, and passes them to the next start, as it does its sockets. That
//! start takes them as its queues, and has the manager forget them. Where there is no such manager, or the end was not planned, devices are
//! opened again by their marks ([`attach`](crate::attach)); their links are down meanwhile. One that takes over while this one runs gets all of it, and more,
//! from this process itself ([`takeover`](super::takeover)).

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::sync::Arc;

use sd_notify::NotifyState;

use super::socket::Passed;
use super::takeover::Legacy;
use super::{ControlError, Port, Switch, image};
use crate::broker::Descriptor;
use crate::inherited::Inherited;
use api::{PortKind, PortName};
use plane::worker::Command;

/// What the name of a queue's descriptor begins with; its port's name follows.
const PREFIX: &str = "tap-";

/// What the last vswitchd left for this one: with the service manager, or directly ([`takeover`](super::takeover)).
#[derive(Debug, Default)]
pub struct Handover {
    queues: BTreeMap<PortName, Vec<OwnedFd>>,
    /// Whether the service manager holds them too.
    is_kept: bool,
    /// Whether it is all that the last one had, which runs until this one does.
    pub(super) is_complete: bool,
    /// Sockets with an IP address.
    pub(crate) inherited: Arc<Inherited>,
}

impl Handover {
    /// Tells queues from sockets among what was passed.
    pub(super) fn sort(passed: Vec<(String, OwnedFd)>) -> (Self, Vec<Passed>) {
        let (mut handover, mut sockets) = (Self { is_kept: true, ..Self::default() }, Vec::new());
        for (name, descriptor) in passed {
            match name.strip_prefix(PREFIX).and_then(|port| port.parse().ok()) {
                Some(port) => handover.put(port, descriptor),
                None => sockets.push(Passed { listener: UnixListener::from(descriptor), ours: false }),
            }
        }
        (handover, sockets)
    }

    /// Adds a queue of a port, behind those that it has.
    pub(super) fn put(&mut self, port: PortName, queue: OwnedFd) {
        self.queues.entry(port).or_default().push(queue);
    }

    /// The queues of a port, once more.
    pub(super) fn queues_of(&self, port: &PortName) -> Vec<Descriptor> {
        self.queues.get(port).into_iter().flatten().filter_map(|queue| Descriptor::of(queue).ok()).collect()
    }

    /// Closes what was not taken, and lets the service manager close its copies of all queues.
    pub(super) fn end(self) {
        self.inherited.close();
        for port in self.queues.keys().filter(|_| self.is_kept) {
            let name = format!("{PREFIX}{port}");
            if let Err(error) = sd_notify::notify(&[NotifyState::FdStoreRemove, NotifyState::FdName(&name)]) {
                tracing::warn!("systemd could not be told to close the queues of port \"{port}\": {error}");
            }
        }
    }
}

impl Switch {
    /// Lets frames in, after what the last vswitchd knew is known. `None`: what it wrote down.
    ///
    /// # Errors
    /// The data plane has stopped.
    pub(crate) fn begin(&mut self, legacy: Option<Legacy>) -> Result<(), ControlError> {
        let is_heir = legacy.is_some();
        let Legacy { image, mut elders } = legacy.unwrap_or_default();
        let image = image.or_else(|| self.ledger.state_file.directory().and_then(image::read));
        image.map_or(Ok(()), |image| self.restore_image(image))?;
        for (name, host) in self.host_uplinks() {
            host.go_on(elders.extract_if(.., |(of, _)| of == name).map(|(_, elder)| elder).collect())?;
        }
        self.plane.tell_all(|| Command::Resume)?;
        if is_heir {
            let (wanted, _) = self.ledger.wanted();
            self.remove_leftovers(&wanted, false);
            self.ledger.save().unwrap_or_else(|error| tracing::warn!("{error}"));
        }
        // What hosts answered before, the last vswitchd heard.
        self.plane.sockets.wireguards().filter(|_| is_heir).for_each(|wireguard| wireguard.greet());
        Ok(())
    }

    /// Leaves the queues of TAPs that stay with the service manager, if there is one.
    pub(super) fn hand_over<T>(&self, staying: &BTreeMap<PortName, T>) {
        let is_left = |port: &&Port| port.spec.kind == PortKind::Tap && staying.contains_key(&port.spec.name);
        for port in self.inventory.all::<Port>().filter(is_left) {
            let duplicate = |worker: &plane::worker::Handle| worker.ask(|reply| Command::Duplicate(port.id, reply)).ok()?;
            // Those of bulk flows go with the process, after which all flows are in the first ones.
            let devices = self.plane.workers.iter().filter_map(duplicate);
            let queues: Vec<OwnedFd> = devices.filter_map(|device| device.queues.into_iter().next()).collect();
            if queues.is_empty() {
                continue;
            }
            let borrowed: Vec<BorrowedFd<'_>> = queues.iter().map(AsFd::as_fd).collect();
            let name = format!("{PREFIX}{}", port.spec.name);
            let told = sd_notify::notify_with_fds(&[NotifyState::FdStore, NotifyState::FdName(&name)], &borrowed);
            if let Err(error) = told {
                tracing::warn!("the link of port \"{}\" goes down until the next start: systemd: {error}", port.spec.name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_are_told_from_sockets_by_their_names() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let socket: OwnedFd = UnixListener::bind(&path).unwrap().into();
        let queue = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        let passed = [("tap-ep-1", queue()), ("vswitchd-docker.socket", socket), ("tap-ep-1", queue()), ("tap-ep-2", queue())];
        let (handover, sockets) = Handover::sort(passed.map(|(name, descriptor)| (name.to_owned(), descriptor)).into());
        let count = |port: &str| handover.queues_of(&port.parse().unwrap()).len();
        assert_eq!((count("ep-1"), count("ep-2"), count("ep-3")), (2, 1, 0));
        let paths: Vec<_> = sockets.iter().map(|socket| socket.listener.local_addr().unwrap()).collect();
        assert_eq!(paths.iter().map(|address| address.as_pathname()).collect::<Vec<_>>(), [Some(path.as_path())]);
    }
}
