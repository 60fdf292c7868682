//! The services of gateways: a thread of their own, fed with what the router punts and with what the gateways are.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::thread::JoinHandle;

use ipnet::IpNet;
use packet::{Mac, VlanId};
use tokio::sync::mpsc;

use super::{Bridge, Port, Switch, Uplink};
use crate::confine::{Confinement, Role};
use crate::services::{self, Input, LeasedUplink, Link, Member, Output, OverlayShare, ResolverFile, Services, Station};
use api::{BridgeName, BridgeSpec, Origin, PortName};
use plane::datapath::{BridgeId, Punt, Tickets};
use plane::worker::Command;

/// What may wait for the services: frames, and a few changes.
const INPUTS: usize = Tickets::MOST + 16;
/// Where the host's resolvers are listed (resolv.conf(5)).
const RESOLVERS: &str = "/etc/resolv.conf";

/// What an uplink's DHCP client, on the services' thread, found out.
pub(super) type LeaseChange = (PortName, services::client::Event);

/// The way to the services' thread.
pub(super) struct ServicesThread {
    inputs: Option<mpsc::Sender<Input>>,
    thread: Option<JoinHandle<()>>,
    told: Told,
    /// The host's resolvers, as the thread was told.
    resolvers: ResolverFile,
}

/// What the thread was told last.
#[derive(Default)]
struct Told {
    links: BTreeMap<BridgeName, Link>,
    uplinks: Vec<LeasedUplink>,
}

impl Told {
    /// What the thread is to be told, for these to be its gateways and uplinks.
    fn difference(&mut self, links: BTreeMap<BridgeName, Link>, uplinks: Vec<LeasedUplink>) -> Vec<Input> {
        let gone = self.links.keys().filter(|bridge| !links.contains_key(*bridge)).cloned().map(Input::Unlink);
        let new = links.iter().filter(|(bridge, link)| self.links.get(*bridge) != Some(*link));
        let mut inputs: Vec<Input> = gone.chain(new.map(|(_, link)| Input::Link(link.clone()))).collect();
        inputs.extend((self.uplinks != uplinks).then(|| Input::Uplinks(uplinks.clone())));
        *self = Self { links, uplinks };
        inputs
    }
}

impl ServicesThread {
    /// Starts the thread in the network namespace of this one, confined. What it has to send goes to `output`.
    pub(super) fn start(
        services: Services,
        output: impl FnMut(Output) + Send + 'static,
        sandbox: Confinement,
    ) -> std::io::Result<Self> {
        let (inputs, inputs_in) = mpsc::channel(INPUTS);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let run = move || {
            sandbox.enter(Role::Services);
            runtime.block_on(services::run(services, inputs_in, output));
        };
        let thread = std::thread::Builder::new().name("services".to_owned()).spawn(run)?;
        let resolvers = ResolverFile::new(PathBuf::from(RESOLVERS));
        Ok(Self { inputs: Some(inputs), thread: Some(thread), told: Told::default(), resolvers })
    }

    /// Tells the thread which resolvers the host has now, if that has changed.
    pub(super) fn follow_resolvers(&mut self) {
        if let Some(text) = self.resolvers.changed() {
            self.tell(Input::Resolvers(text));
        }
    }

    /// Tells the thread something that may be lost.
    fn offer(&self, input: Input) {
        // Full of changes: the station that waits for an answer asks again, and so does the switch's DHCP client. Closed: the log has said why.
        let _ = self.inputs.as_ref().map(|inputs| inputs.try_send(input));
    }

    /// Tells the thread something that it must know.
    pub(super) fn tell(&self, input: Input) {
        let _ = self.inputs.as_ref().map(|inputs| inputs.blocking_send(input));
    }
}

impl Drop for ServicesThread {
    fn drop(&mut self) {
        self.inputs = None;
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

impl Switch {
    /// Tells the services which resolvers the host has now.
    pub(super) fn follow_resolvers(&mut self) {
        self.services.follow_resolvers();
    }

    /// Passes a frame for a gateway on to the services.
    pub(super) fn serve(&self, punt: Punt) {
        let Some(port) = self.inventory.name_of(punt.port).cloned() else { return };
        if self.inventory.has::<Uplink>(&port) {
            return self.services.offer(Input::Uplink(port, punt.frame, punt.ticket));
        }
        let bridge = self.inventory.bridges.iter().find(|(_, bridge)| bridge.id == punt.bridge).map(|(name, _)| name.clone());
        if let Some(bridge) = bridge {
            let frame = services::Punt { bridge, port, vlan: punt.vlan, frame: punt.frame };
            self.services.offer(Input::Frame(frame, punt.ticket));
        }
    }

    /// Sends what the services have to say.
    pub(super) fn speak(&mut self, output: Output) {
        match output {
            Output::Answer(answer) => {
                self.emit(self.inventory.bridges.get(&answer.bridge).map(|bridge| bridge.id), answer.vlan, answer.frame);
            }
            Output::Uplink(name, frame) => {
                self.emit(self.inventory.find::<Uplink>(&name).map(|uplink| uplink.bridge), None, frame)
            }
            Output::Changed(name, event) if self.inventory.has::<Uplink>(&name) => self.change_lease((name, event)),
            Output::Changed(name, event) => self.note_lan(&name, event),
            Output::Leases(news) => self.note_leases(news),
            Output::Usage(usage) => self.note_usage(usage),
            Output::Ask(_) => {}
        }
    }

    fn emit(&self, bridge: Option<BridgeId>, vlan: Option<VlanId>, frame: Vec<u8>) {
        if let (Some(bridge), Some(router)) = (bridge, self.plane.workers.first()) {
            router.hint(Command::Emit(bridge, vlan, frame));
        }
    }

    /// Tells the services which gateways and uplinks there are now, and spanning trees which bridges and ports.
    pub(super) fn tell_services(&mut self) {
        self.tell_trees();
        self.overlay.touch();
        if !self.life.started_up {
            return;
        }
        let links = self.inventory.bridges.values().filter(|bridge| !bridge.spec.addresses.is_empty());
        let link = |bridge: &Bridge| Link {
            bridge: bridge.spec.name.clone(),
            mtu: self.inventory.port_mtu(&bridge.spec.name).unwrap_or(bridge.spec.mtu),
            mac: self.gateway_mac(&bridge.spec.name),
            addresses: bridge.spec.addresses.clone(),
            dhcp: bridge.spec.dhcp,
            advertises: bridge.origin.is_of_users(),
            members: self.members(&bridge.spec),
            elsewhere: self.overlay_share(&bridge.spec),
        };
        let links = links.map(|bridge| (bridge.spec.name.clone(), link(bridge))).collect();
        let by_dhcp = self.inventory.all::<Uplink>().filter(|uplink| uplink.spec.is_by_dhcp());
        let uplinks = by_dhcp.map(|uplink| LeasedUplink { name: uplink.spec.name.clone(), mac: uplink.mac });
        let inputs = self.services.told.difference(links, uplinks.collect());
        inputs.into_iter().for_each(|input| self.services.tell(input));
    }

    /// Tells workers and services about which containers' addresses LANs are asked now.
    pub(super) fn set_stations(&self, bridges: &BTreeSet<BridgeName>, stations: Vec<Station>) {
        for (name, bridge) in self.inventory.bridges.iter().filter(|(name, _)| bridges.contains(*name)) {
            let here = stations.iter().filter(|station| station.bridge == *name);
            let clients: Vec<(VlanId, Mac)> = here.map(|station| (station.vlan, station.mac)).collect();
            if self.plane.tell_all(|| Command::SetClients(bridge.id, clients.clone())).is_err() {
                // The data plane has stopped, and vswitchd is about to.
                return;
            }
        }
        self.services.tell(Input::Stations(stations));
    }

    /// What a bridge in an overlay network leaves to other hosts.
    fn overlay_share(&self, bridge: &BridgeSpec) -> Option<Box<OverlayShare>> {
        let table = self.ledger.tables.networks.get(bridge.overlay.as_ref()?);
        let share =
            table.map(|table| OverlayShare { blocks: table.blocks.clone(), taken: table.addresses(), names: table.names() });
        Some(Box::new(share.unwrap_or_default()))
    }

    /// The ports of a bridge. In an overlay network the containers of Docker's have their names, as at other hosts.
    fn members(&self, bridge: &BridgeSpec) -> Vec<Member> {
        let mut places = if bridge.overlay.is_some() { self.docker_places() } else { BTreeMap::new() };
        let member = |port: &Port| {
            let addresses: Vec<IpNet> = port.spec.addresses.clone();
            let interface = self.ledger.state.containers.of_port(&port.spec.name).filter(|_| port.origin == Origin::Container);
            let mut names = interface.map(|(_, interface)| interface.names.clone()).unwrap_or_default();
            names.extend(places.remove(&port.spec.name).and_then(|place| place.container));
            Member { port: port.spec.name.clone(), names, mac: port.mac.or(port.spec.mac), addresses }
        };
        self.inventory.all::<Port>().filter(|port| port.spec.bridge == bridge.name).map(member).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(bridge: &str, mtu: u16) -> (BridgeName, Link) {
        let name: BridgeName = bridge.parse().unwrap();
        let mac = Mac([2, 0, 0, 0, 0, 1]);
        let (addresses, members) = (vec!["10.0.0.1/24".parse().unwrap()], Vec::new());
        (name.clone(), Link { bridge: name, mtu, mac, addresses, dhcp: true, advertises: true, members, elsewhere: None })
    }

    #[test]
    fn the_services_are_told_what_is_different_and_nothing_else() {
        let mut told = Told::default();
        let mut difference = |links: &[(&str, u16)], uplinks: &[&str]| -> Vec<String> {
            let uplink = |name: &&str| LeasedUplink { name: name.parse().unwrap(), mac: Mac([2, 0, 0, 0, 0, 2]) };
            let links = links.iter().map(|(bridge, mtu)| link(bridge, *mtu)).collect();
            let inputs = told.difference(links, uplinks.iter().map(uplink).collect());
            let word = |input: &Input| match input {
                Input::Link(link) => format!("link {} {}", link.bridge, link.mtu),
                Input::Unlink(bridge) => format!("unlink {bridge}"),
                Input::Uplinks(uplinks) => format!("{} uplinks", uplinks.len()),
                other => format!("{other:?}"),
            };
            inputs.iter().map(word).collect()
        };
        assert_eq!(difference(&[("br0", 1500), ("br1", 1500)], &["wan"]), ["link br0 1500", "link br1 1500", "1 uplinks"]);
        assert!(difference(&[("br0", 1500), ("br1", 1500)], &["wan"]).is_empty());
        assert_eq!(difference(&[("br1", 1400)], &["wan"]), ["unlink br0", "link br1 1400"]);
        assert_eq!(difference(&[("br1", 1400)], &[]), ["0 uplinks"]);
    }
}
