//! The gateway's slow services: DHCP in both versions, router advertisements, names; and the DHCP clients of uplinks and of containers.
//!
//! They live on the control side and may use the disk and the host's sockets. The router punts them the frames that are for the gateway
//! and that it does not answer itself ([`is_for_services`](plane::datapath::is_for_services)), over a bounded channel that is shared fairly
//! ([`Tickets`](plane::datapath::Tickets)), and sends what they answer.
//!
//! Everything but the questions to the host's resolvers is decided by [`Services`], which has no thread, no socket and no clock:
//! `now` is an argument, the time since the Unix epoch, since leases outlive the process. [`run`] is the thread around it, which
//! reads the wall clock once and from then on adds what the monotonic one counts, so that setting the clock expires nothing.
//!
//! - `dhcp4`: the rest of a bridge's first IPv4 subnet, given out; `leases` and `pool` have the rules.
//! - `ra`, `dhcp6`: prefixes, and addresses for stations that ask for them.
//! - `dns`: names of stations, and the way to the host's resolvers for all others.
//! - [`client`]: the address of an uplink; `stations`: those of containers on LANs.
//! - `wire`, `store`: frames, files.
//!
//! **What bounds them.** Each table has its limits and rules in its module. A frame is answered with at most one frame, but for
//! connections (`dns::stream`), whose stations say how much they can take; and nothing is kept about one that is not answered.
//!
//! **Wire formats.** smoltcp reads and writes DHCPv4, and is the TCP under DNS: its views check lengths once, allocate nothing and pass over
//! what they do not know. (`dhcproto` decodes into owned trees: a message with a wrong inner length panics in `len - 4`, nested options make
//! it recurse, and it brings the Unicode tables of its DNS library.) No crate of that kind reads DHCPv6, whose options are a
//! type and a length, so `dhcp6` does. `domain` reads and writes DNS: lazy views, names compared without allocation, no
//! resolver behind it. etherparse wraps the answers.

pub mod client;
mod dhcp4;
mod dhcp6;
mod dns;
mod leases;
mod link;
mod network;
mod news;
mod pool;
mod ra;
mod run;
mod shares;
mod stations;
mod store;
mod wire;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use packet::{Mac, VlanId};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

pub use dns::{Query, ResolverFile, ResolverOutcome, Resolvers, Transport};
pub use leases::Lease;
pub use link::{Link, Member, OverlayShare, domain_of};
pub use news::LeaseNews;
pub use run::{Input, Listing, run};
pub use stations::{LIMIT, PATIENCE, Question, Station};

use api::{BridgeName, PortName};
use client::{Client, Event, Purpose};
use dns::Asker;
use network::NetworkServices;
use news::Told;
use shares::Shares;
use stations::Stations;
use store::{KeptLeases, Store};
use wire::Received;

/// Seconds for which an address is given out.
pub const LEASE: u64 = 3600;

/// A frame for the gateway, or for a container on a LAN whose address comes from there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Punt {
    /// The bridge on which it came.
    pub bridge: BridgeName,
    /// The port at which it came.
    pub port: PortName,
    /// The VLAN in which it came; the answer goes there.
    pub vlan: Option<VlanId>,
    /// The frame.
    pub frame: Vec<u8>,
}

/// A frame from the gateway, or for a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayAnswer {
    /// The bridge that it is for.
    pub bridge: BridgeName,
    /// The VLAN that it is for; none: the gateway's.
    pub vlan: Option<VlanId>,
    /// The frame, untagged, with complete checksums; its destination says to whom, or to all.
    pub frame: Vec<u8>,
}

/// An uplink whose address comes from a DHCP server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeasedUplink {
    /// Its name, which obeys the same rules as a port's.
    pub name: PortName,
    /// Its address on the link.
    pub mac: Mac,
}

/// What the services want done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// This frame goes to a bridge's stations.
    Answer(GatewayAnswer),
    /// This frame goes out at an uplink.
    Uplink(PortName, Vec<u8>),
    /// The address of an uplink, or of the container at a port, has changed.
    Changed(PortName, Event),
    /// What became of addresses that gateways give out.
    Leases(Vec<LeaseNews>),
    /// How far the addresses of every bridge are given out, when that has changed.
    Usage(BTreeMap<BridgeName, Vec<Usage>>),
    /// The host's resolvers are to be asked; [`Services::resolved`] takes what they say. ([`run`] does both.)
    Ask(Query),
}

/// The addresses of one subnet that are given out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// The subnet.
    pub subnet: IpNet,
    /// How many there are, at most 8192.
    pub size: usize,
    /// How many of them are in use: given out, or had by stations that did not get them from here.
    pub used: usize,
    /// What could not be given out.
    pub shortages: Shortages,
}

/// What could not be given, counted since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shortages {
    /// Requests for an address when the pool was used up.
    pub exhausted: u64,
    /// Requests for an address from ports that had their share.
    pub refused: u64,
}

/// The services of all bridges and uplinks.
#[derive(Debug)]
pub struct Services {
    directory: PathBuf,
    store: Store,
    /// What was kept for bridges that have not come yet.
    kept: KeptLeases,
    networks: BTreeMap<BridgeName, NetworkServices>,
    uplinks: BTreeMap<PortName, Client>,
    stations: Stations,
    /// Questions on their way to resolvers.
    questions: Shares,
    told: Told,
    random: StdRng,
}

impl Services {
    /// Services without a bridge, uplink or container yet, with the leases that an earlier process kept in `state_dir`. `seed` should be random.
    pub fn new(state_dir: &Path, seed: u64) -> Self {
        let store = Store::new(state_dir.join("leases.json"));
        Self {
            directory: state_dir.to_owned(),
            kept: store.read(),
            store,
            networks: BTreeMap::new(),
            uplinks: BTreeMap::new(),
            stations: Stations::default(),
            questions: Shares::new(dns::MOST),
            told: Told::default(),
            random: StdRng::seed_from_u64(seed),
        }
    }

    /// Takes on a bridge that has a gateway now, or has become another. One that stays keeps its leases.
    pub fn set_link(&mut self, now: Duration, link: Link) -> Option<Output> {
        if let Some(network) = self.networks.get_mut(&link.bridge) {
            return network.set_link(now, link).map(Output::Answer);
        }
        let name = link.bridge.clone();
        let network = NetworkServices::new(now, link, self.kept.remove(&name).unwrap_or_default(), self.random.random());
        self.told.begin(&name, &network);
        self.networks.insert(name, network);
        None
    }

    /// A bridge has no gateway any more, which its stations are told.
    pub fn remove_link(&mut self, bridge: &BridgeName) -> Option<Output> {
        self.networks.remove(bridge)?.cease().map(Output::Answer)
    }

    /// Takes on the uplinks that ask for an address now; one that goes gives its address back.
    pub fn set_uplinks(&mut self, now: Duration, uplinks: &[LeasedUplink]) -> Vec<Output> {
        let mut old = std::mem::take(&mut self.uplinks);
        for uplink in uplinks {
            let path = self.directory.join(format!("uplink-{}.json", uplink.name));
            let kept = old.remove(&uplink.name).filter(|client| client.mac() == uplink.mac);
            let client = kept.unwrap_or_else(|| Client::new(now, Purpose::Uplink, uplink.mac, path, self.random.random()));
            self.uplinks.insert(uplink.name.clone(), client);
        }
        old.into_iter().flat_map(|(name, mut client)| outputs_of(&name, client.release(now))).collect()
    }

    /// Takes on the containers that ask about their addresses now; one that goes gives back what a server gave it.
    pub fn set_stations(&mut self, now: Duration, stations: Vec<Station>) -> Vec<Output> {
        self.stations.set(now, stations, &self.directory, &mut self.random)
    }

    /// Answers a frame that came on a bridge.
    pub fn receive(&mut self, now: Duration, punt: &Punt) -> Vec<Output> {
        let Some(network) = self.networks.get_mut(&punt.bridge) else { return self.stations.receive(now, punt) };
        let Some(received) = wire::parse(&punt.frame) else { return Vec::new() };
        let output = match received {
            Received::Segment(segment) => return network.heard(now, punt, &segment, &mut self.questions),
            Received::Arp(arp) => return network.seen(now, punt, arp).into_iter().map(Output::Answer).collect(),
            Received::Solicitation(from) => network.solicited(now, punt, from).map(Output::Answer),
            Received::Datagram(datagram) if datagram.destination.port() == dns::PORT => {
                network.asked(now, punt, &datagram, &mut self.questions)
            }
            Received::Datagram(datagram) => network.requested(now, punt, &datagram).map(Output::Answer),
        };
        output.into_iter().collect()
    }

    /// Takes a frame that arrived at an uplink.
    pub fn receive_uplink(&mut self, now: Duration, uplink: &PortName, frame: &[u8]) -> Vec<Output> {
        let step = self.uplinks.get_mut(uplink).map(|client| client.receive(now, frame));
        step.into_iter().flat_map(|step| outputs_of(uplink, step)).collect()
    }

    /// Takes what the host's resolvers say to a question; `None` if they say nothing.
    pub fn resolved(&mut self, now: Duration, query: &Query, said: Option<Vec<u8>>) -> Vec<Output> {
        self.questions.end(&query.port);
        let answer = query.answer(said);
        match query.asker() {
            Asker::Datagram(to) => answer.and_then(|message| to.wrap(&message)).map(Output::Answer).into_iter().collect(),
            Asker::Stream(bridge, stream) => match self.networks.get_mut(bridge) {
                Some(network) => network.resolved(now, stream, answer.as_deref(), &mut self.questions),
                None => Vec::new(),
            },
        }
    }

    /// Does what is due, and keeps what has changed; to be called about every second.
    pub fn tick(&mut self, now: Duration) -> Vec<Output> {
        let mut outputs = Vec::new();
        for network in self.networks.values_mut() {
            outputs.extend(network.tick(now, &mut self.random).into_iter().map(Output::Answer));
        }
        for (name, client) in &mut self.uplinks {
            outputs.extend(outputs_of(name, client.tick(now)));
        }
        outputs.extend(self.stations.tick(now, &mut self.random));
        self.keep();
        outputs
    }

    /// Whether a container or a station waits for what is asked for it, so that [`hurry`](Self::hurry) should be called every tenth of a second.
    pub fn is_hurried(&self) -> bool {
        self.stations.is_hurried() || self.networks.values().any(NetworkServices::is_probing)
    }

    /// Does what is due for them.
    pub fn hurry(&mut self, now: Duration) -> Vec<Output> {
        let mut outputs = self.stations.tick(now, &mut self.random);
        for network in self.networks.values_mut() {
            outputs.extend(network.offer(now).into_iter().map(Output::Answer));
        }
        outputs
    }

    /// Writes the leases down if they have changed. A crash may lose those of the last second: their clients ask again for what
    /// they had and get it, as from an empty table.
    pub fn keep(&mut self) {
        let mut changed = false;
        for network in self.networks.values_mut() {
            changed |= network.take_changed();
        }
        if changed {
            let mut all: BTreeMap<&BridgeName, Vec<&Lease>> =
                self.kept.iter().map(|(name, rows)| (name, rows.iter().collect())).collect();
            all.extend(self.networks.iter().map(|(name, network)| (name, network.leases().collect())));
            self.store.write(&all);
            self.told.outdate();
        }
    }

    /// What others should know of leases since it was last asked.
    pub fn news(&mut self, now: Duration) -> Vec<Output> {
        let leases = self.told.leases(&self.networks);
        leases.into_iter().chain(self.told.usage(now, &self.networks)).collect()
    }

    /// The leases of a bridge, IPv4 first, by address.
    pub fn leases(&self, bridge: &BridgeName) -> Vec<Lease> {
        self.networks.get(bridge).map(|network| network.leases().cloned().collect()).unwrap_or_default()
    }

    /// The leases of every bridge.
    pub fn all_leases(&self) -> BTreeMap<BridgeName, Vec<Lease>> {
        self.networks.keys().map(|bridge| (bridge.clone(), self.leases(bridge))).collect()
    }

    /// How far the addresses of every bridge are given out.
    pub fn pools(&self, now: Duration) -> BTreeMap<BridgeName, Vec<Usage>> {
        self.networks.iter().map(|(bridge, network)| (bridge.clone(), network.pools(now).collect())).collect()
    }

    /// What an uplink got from its server.
    pub fn terms(&self, uplink: &PortName) -> Option<&client::Terms> {
        self.uplinks.get(uplink).and_then(Client::terms)
    }

    /// Whether an address is one of the gateways'.
    pub fn is_own(&self, address: IpAddr) -> bool {
        self.networks.values().any(|network| network.link().is_own(address))
    }
}

fn outputs_of(uplink: &PortName, step: client::ClientStep) -> impl Iterator<Item = Output> + use<> {
    let frames = step.frames.into_iter().map({
        let uplink = uplink.clone();
        move |frame| Output::Uplink(uplink.clone(), frame)
    });
    let uplink = uplink.clone();
    frames.chain(step.events.into_iter().map(move |event| Output::Changed(uplink.clone(), event)))
}
