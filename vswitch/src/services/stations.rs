//! Containers on LANs that ask about their addresses there, with their MAC addresses in the VLAN of their network: a DHCP server for one, by a
//! [`Client`] each; or only whether another station has the one that Docker gave ([`Probe`]).
//!
//! Docker waits for the first address of each: what a server has not offered after [`PATIENCE`] or not granted after [`LIMIT`] is told, once. From
//! then on a client goes on for as long as the container has a place on its network, which is for the control side to say; a container
//! that has its address keeps it whatever servers say.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use packet::{Mac, VlanId};
use rand::RngExt;
use rand::rngs::StdRng;

use super::client::{CONTAINER, Client, ClientStep, Event, Probe, Purpose};
use super::{GatewayAnswer, Output, Punt};
use api::{BridgeName, PortName};

/// How long a server may take to offer the first address: two questions.
pub const PATIENCE: Duration = Duration::from_secs(8);
/// How long it may take until an address can be used, even if others before it turn out to be in use; Docker's API clients give up after a minute.
pub const LIMIT: Duration = Duration::from_secs(30);
/// What the names of files with leases begin with.
const PREFIX: &str = "lease-";

/// A container that asks about its address.
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
    /// What it asks.
    pub question: Question,
}

/// What is asked for a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// A DHCP server for an address; for this one, if the container has it already, for it cannot be changed.
    Lease(Option<Ipv4Addr>),
    /// Whether another station has this one.
    Free(Ipv4Addr),
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
    state: State,
}

#[derive(Debug)]
enum State {
    /// It asks a server.
    Leasing {
        client: Box<Client>,
        /// When it is told that it goes on too long; `None` once it has had an address.
        deadline: Option<Duration>,
        /// Whether a server has offered an address.
        answered: bool,
    },
    /// It asks whether the address is in use.
    Probing { address: Ipv4Addr, probe: Probe, next: Duration },
    /// It knows.
    Told,
}

impl Stations {
    /// Takes on the containers that ask from now on. One that goes gives its address back, unless another has its MAC address and so is the same
    /// client to the server: a container that came back before its death was noticed.
    pub(super) fn set(&mut self, now: Duration, stations: Vec<Station>, directory: &Path, random: &mut StdRng) -> Vec<Output> {
        let mut old = std::mem::take(&mut self.all);
        for station in stations {
            let port = station.port.clone();
            let asking = match old.remove(&port) {
                Some(asking) if asking.station.is_same(&station) => asking,
                _ => Asking::new(now, station, path(directory, &port), random),
            };
            self.all.insert(port, asking);
        }
        if !std::mem::replace(&mut self.swept, true) {
            self.sweep(directory);
        }
        let has_heir = |gone: &Asking| self.all.values().any(|asking| asking.station.is_same(&gone.station));
        let mut outputs = Vec::new();
        for mut asking in old.into_values() {
            // Its file goes in any case.
            let frames = asking.release(now);
            if !has_heir(&asking) {
                outputs.extend(frames);
            }
        }
        outputs
    }

    /// Removes the leases of containers that are gone since the last run: their servers find out by themselves.
    fn sweep(&self, directory: &Path) {
        let Ok(entries) = std::fs::read_dir(directory) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let port = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.strip_suffix(".json")?.parse().ok());
            if port.is_some_and(|port: PortName| !self.all.contains_key(&port)) {
                // What cannot be removed is in no container's way.
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }

    /// Takes a frame that may be for one of the containers on a bridge.
    pub(super) fn receive(&mut self, now: Duration, punt: &Punt) -> Vec<Output> {
        let mut outputs = Vec::new();
        let is_there = |asking: &&mut Asking| asking.station.bridge == punt.bridge && Some(asking.station.vlan) == punt.vlan;
        for asking in self.all.values_mut().filter(is_there) {
            outputs.extend(asking.receive(now, &punt.frame));
        }
        outputs
    }

    /// Does what is due.
    pub(super) fn tick(&mut self, now: Duration, random: &mut StdRng) -> Vec<Output> {
        self.all.values_mut().flat_map(|asking| asking.tick(now, random)).collect()
    }

    /// Whether Docker waits for one of them, so that [`tick`](Self::tick) should be called every tenth of a second.
    pub(super) fn is_hurried(&self) -> bool {
        let is_awaited = |asking: &Asking| match &asking.state {
            State::Leasing { deadline, .. } => deadline.is_some(),
            State::Probing { .. } => true,
            State::Told => false,
        };
        self.all.values().any(is_awaited)
    }
}

impl Station {
    /// Whether it is the same one, which may have got its address meanwhile.
    fn is_same(&self, other: &Self) -> bool {
        let same_question = match (self.question, other.question) {
            (Question::Lease(_), Question::Lease(_)) => true,
            (one, other) => one == other,
        };
        same_question && (&self.bridge, self.vlan, self.mac) == (&other.bridge, other.vlan, other.mac)
    }
}

impl Asking {
    fn new(now: Duration, station: Station, path: PathBuf, random: &mut StdRng) -> Self {
        let state = match station.question {
            Question::Lease(address) => {
                let client = Client::new(now, Purpose::Container(address), station.mac, path, random.random());
                let deadline = address.is_none().then(|| now + PATIENCE);
                State::Leasing { client: Box::new(client), deadline, answered: false }
            }
            Question::Free(address) => {
                let probe = Probe::new(station.mac, address, &CONTAINER);
                State::Probing { next: now + probe.wait(random), address, probe }
            }
        };
        Self { station, state }
    }

    /// Gives its address back. The container is gone, so no event tells of it.
    fn release(&mut self, now: Duration) -> Vec<Output> {
        let State::Leasing { client, .. } = &mut self.state else { return Vec::new() };
        let frames = client.release(now).frames;
        self.outputs(ClientStep { frames, events: Vec::new() })
    }

    fn receive(&mut self, now: Duration, frame: &[u8]) -> Vec<Output> {
        let step = match &mut self.state {
            State::Leasing { client, .. } => client.receive(now, frame),
            State::Probing { address, probe, .. } => match probe.rival(frame) {
                Some(mac) => ClientStep { frames: Vec::new(), events: vec![Event::Conflict(*address, mac)] },
                None => return Vec::new(),
            },
            State::Told => return Vec::new(),
        };
        self.take(now, step)
    }

    fn tick(&mut self, now: Duration, random: &mut StdRng) -> Vec<Output> {
        let step = match &mut self.state {
            State::Leasing { client, .. } => client.tick(now),
            State::Probing { next, .. } if now < *next => return Vec::new(),
            State::Probing { probe, next, .. } => match probe.next(random) {
                Some((frame, pause)) => {
                    *next = now + pause;
                    ClientStep { frames: vec![frame], events: Vec::new() }
                }
                None => ClientStep { frames: Vec::new(), events: vec![Event::Free] },
            },
            State::Told => return Vec::new(),
        };
        let mut outputs = self.take(now, step);
        if let State::Leasing { deadline, answered, .. } = &mut self.state
            && deadline.is_some_and(|deadline| now >= deadline)
        {
            *deadline = None;
            let event = if *answered { Event::Unfinished } else { Event::Unanswered };
            outputs.push(Output::Changed(self.station.port.clone(), event));
        }
        outputs
    }

    fn take(&mut self, now: Duration, step: ClientStep) -> Vec<Output> {
        match &mut self.state {
            State::Leasing { client, deadline, answered } => {
                if client.is_answered() && !std::mem::replace(answered, true) {
                    *deadline = deadline.map(|deadline| deadline + (LIMIT - PATIENCE)).filter(|deadline| *deadline > now);
                }
                if step.events.iter().any(|event| matches!(event, Event::Bound(_))) {
                    *deadline = None;
                }
            }
            State::Probing { .. } if step.events.is_empty() => {}
            State::Probing { .. } | State::Told => self.state = State::Told,
        }
        self.outputs(step)
    }

    fn outputs(&self, step: ClientStep) -> Vec<Output> {
        let Station { port, bridge, vlan, .. } = &self.station;
        let frames = step.frames.into_iter();
        let frames = frames.map(|frame| Output::Answer(GatewayAnswer { bridge: bridge.clone(), vlan: Some(*vlan), frame }));
        let events = step.events.into_iter().map(|event| Output::Changed(port.clone(), event));
        frames.chain(events).collect()
    }
}

fn path(directory: &Path, port: &PortName) -> PathBuf {
    directory.join(format!("{PREFIX}{port}.json"))
}
