//! Containers on LANs whose addresses come from a DHCP server there: a [`Client`] each, which speaks with the container's MAC address in the
//! network's VLAN.
//!
//! Somebody waits for the first address of each: what a server has not offered after [`PATIENCE`] or not granted after [`LIMIT`] is told, once. From
//! then on a client goes on for as long as the container has a place on its network, which is for the control side to say; a container
//! that has its address keeps it whatever servers say.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use packet::{Mac, VlanId};
use rand::RngExt;
use rand::rngs::StdRng;

use super::client::{Client, Event, Purpose, Step};
use super::{Answer, Output, Punt};
use crate::api::{BridgeName, PortName};

/// How long a server may take to offer the first address: two questions.
pub const PATIENCE: Duration = Duration::from_secs(8);
/// How long it may take until it can be used, with others before it that somebody else has; an API client of Docker's gives up after a minute.
pub const LIMIT: Duration = Duration::from_secs(30);
/// What the names of files with leases begin with.
const PREFIX: &str = "lease-";

/// A container that asks for an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Station {
    /// Its port.
    pub port: PortName,
    /// The bridge that the LAN is on.
    pub bridge: BridgeName,
    /// The VLAN in which it asks.
    pub vlan: VlanId,
    /// Its address on the link.
    pub mac: Mac,
    /// The address that it has already, and that cannot be changed.
    pub address: Option<Ipv4Addr>,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Stations {
    all: BTreeMap<PortName, Asking>,
    /// Whether files that no container has were looked for.
    swept: bool,
}

#[derive(Debug)]
struct Asking {
    station: Station,
    client: Client,
    /// When it is told that it goes on too long; `None` once it has had an address.
    deadline: Option<Duration>,
    /// Whether a server has offered an address.
    answered: bool,
}

impl Stations {
    /// Takes on the containers that ask from now on; one that goes gives its address back.
    pub(super) fn set(&mut self, now: Duration, stations: Vec<Station>, directory: &Path, random: &mut StdRng) -> Vec<Output> {
        let mut old = std::mem::take(&mut self.all);
        for station in stations {
            let port = station.port.clone();
            let asking = match old.remove(&port) {
                Some(asking) if asking.station.is_same(&station) => asking,
                _ => Asking::new(now, station, path(directory, &port), random.random()),
            };
            self.all.insert(port, asking);
        }
        if !std::mem::replace(&mut self.swept, true) {
            self.sweep(directory);
        }
        old.into_values()
            .flat_map(|mut asking| {
                let step = asking.client.release(now);
                // Nobody is left to be told.
                asking.outputs(Step { events: Vec::new(), ..step })
            })
            .collect()
    }

    /// Removes the leases of containers that are gone since the last run: their servers find out by themselves.
    fn sweep(&self, directory: &Path) {
        let Ok(entries) = std::fs::read_dir(directory) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let port = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.strip_suffix(".json")?.parse().ok());
            if port.is_some_and(|port: PortName| !self.all.contains_key(&port)) {
                // What cannot be removed is in nobody's way.
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }

    /// Takes a frame that may be for one of the containers on a bridge.
    pub(super) fn receive(&mut self, now: Duration, punt: &Punt) -> Vec<Output> {
        let mut outputs = Vec::new();
        let is_there = |asking: &&mut Asking| asking.station.bridge == punt.bridge && Some(asking.station.vlan) == punt.vlan;
        for asking in self.all.values_mut().filter(is_there) {
            let step = asking.client.receive(now, &punt.frame);
            outputs.extend(asking.take(now, step));
        }
        outputs
    }

    /// Does what is due.
    pub(super) fn tick(&mut self, now: Duration) -> Vec<Output> {
        self.all.values_mut().flat_map(|asking| asking.tick(now)).collect()
    }

    /// Whether somebody waits for one of them, so that [`tick`](Self::tick) should be called every tenth of a second.
    pub(super) fn is_hurried(&self) -> bool {
        self.all.values().any(|asking| asking.deadline.is_some())
    }
}

impl Station {
    /// Whether it is the same one, which may have got its address meanwhile.
    fn is_same(&self, other: &Self) -> bool {
        (&self.bridge, self.vlan, self.mac) == (&other.bridge, other.vlan, other.mac)
    }
}

impl Asking {
    fn new(now: Duration, station: Station, path: PathBuf, seed: u64) -> Self {
        let client = Client::new(now, Purpose::Container(station.address), station.mac, path, seed);
        let deadline = station.address.is_none().then(|| now + PATIENCE);
        Self { station, client, deadline, answered: false }
    }

    fn tick(&mut self, now: Duration) -> Vec<Output> {
        let step = self.client.tick(now);
        let mut outputs = self.take(now, step);
        if self.deadline.is_some_and(|deadline| now >= deadline) {
            let event = if self.answered { Event::Unfinished } else { Event::Unanswered };
            self.deadline = None;
            outputs.push(Output::Changed(self.station.port.clone(), event));
        }
        outputs
    }

    fn take(&mut self, now: Duration, step: Step) -> Vec<Output> {
        if self.client.is_answered() && !std::mem::replace(&mut self.answered, true) {
            self.deadline = self.deadline.map(|deadline| deadline + (LIMIT - PATIENCE)).filter(|deadline| *deadline > now);
        }
        if step.events.iter().any(|event| matches!(event, Event::Bound(_))) {
            self.deadline = None;
        }
        self.outputs(step)
    }

    fn outputs(&self, step: Step) -> Vec<Output> {
        let Station { port, bridge, vlan, .. } = &self.station;
        let frames = step.frames.into_iter();
        let frames = frames.map(|frame| Output::Answer(Answer { bridge: bridge.clone(), vlan: Some(*vlan), frame }));
        let events = step.events.into_iter().map(|event| Output::Changed(port.clone(), event));
        frames.chain(events).collect()
    }
}

fn path(directory: &Path, port: &PortName) -> PathBuf {
    directory.join(format!("{PREFIX}{port}.json"))
}
