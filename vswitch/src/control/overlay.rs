//! Overlay networks, as far as the switch itself is concerned: what it tells the thread that deals with the store, and what it makes of what that
//! thread hears.

mod check;
mod dead;
mod desk;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use packet::{Mac, VlanId};

use super::plan::{self, Step};
use super::vxlan::{Live, TunnelPort};
use super::{Bridge, ControlError, Port, Switch};
use crate::config::Config;
use crate::overlay::{GATEWAY, Happening, Local, LocalStation, OverlayNews, Truth};
use api::{
    BridgeName, BridgeSpec, ClusterAnswer, ClusterHost, ClusterQuestion, EventFacts, EventKind, LiveCluster, Origin, PortName,
    PortState, Reply, Resource, ResourceKey, VlanMode,
};
pub(super) use desk::ClusterWord;
pub(super) use desk::OverlayDesk;
use plane::datapath::{BridgeId, Fixed, Row};

impl Switch {
    /// Takes in what the thread has to say.
    pub(super) fn hear_overlay(&mut self, heard: OverlayNews) {
        // One that has ended may have said something last.
        if self.overlay.thread.is_none() {
            return;
        }
        if heard.tables.generation != self.ledger.tables.generation {
            let are_others = heard.tables.networks != self.ledger.tables.networks;
            self.ledger.tables = heard.tables;
            self.overlay.touch();
            if are_others {
                self.tell_services();
            }
        }
        heard.happened.into_iter().for_each(|happening| self.note_happening(happening));
        self.follow_overlay();
        self.answer_waiting();
    }

    fn note_happening(&mut self, happening: Happening) {
        let word = self.overlay.hear(happening);
        self.note_word(word);
    }

    pub(super) fn note_word(&mut self, ClusterWord { warning, summary, address }: ClusterWord) {
        match warning {
            Some(warning) => tracing::warn!("{warning}"),
            None => tracing::info!("{summary}"),
        }
        self.views.events.record(EventKind::Cluster, EventFacts { address, ..EventFacts::new(summary) });
    }

    /// Brings the tunnels to what is known of overlay networks, and tells the others what is here. To be called often; it does nothing if nothing
    /// has changed.
    pub(super) fn follow_overlay(&mut self) {
        if self.overlay.thread.is_none() || !self.life.started_up {
            return;
        }
        self.follow_dead();
        let now = Instant::now();
        if self.overlay.takes_tunnels(now) {
            self.set_overlay_tunnels();
        }
        // A tunnel that was made just now is something that is here.
        if self.overlay.takes_truth(now) {
            self.tell_overlay();
        }
    }

    /// Takes note that addresses were learned or moved on a bridge: the others hear of them at once.
    pub(super) fn note_overlay_macs(&mut self, id: BridgeId) {
        if self.inventory.bridges.values().any(|bridge| bridge.id == id && bridge.spec.overlay.is_some()) {
            self.overlay.is_stale = true;
            self.follow_overlay();
        }
    }

    fn set_overlay_tunnels(&mut self) {
        let (mut wanted, notes) = self.ledger.wanted();
        wanted.retain(|resource, origin| origin != Origin::Cluster || self.is_of_its_bridge(resource));
        let running = self.inventory.layout();
        let mut steps = plan::steps(&running, &wanted);
        steps.extend(plan::revival(&wanted, &steps, |key| self.inventory.lacks_device(key)));
        let steps = plan::only_of(Origin::Cluster, steps, &running, &wanted);
        let mut said: BTreeSet<String> = notes.into_iter().filter(|note| note.contains("an overlay network needs")).collect();
        for step in steps {
            said.extend(self.set_heard_tunnel(step).err().map(|error| error.to_string()));
        }
        self.set_wireguard_hosts();
        self.overlay.say(said).iter().for_each(|sentence| tracing::warn!("overlay networks: {sentence}"));
    }

    /// Whether a tunnel is that of its bridge as it runs. vsctl may have said of a bridge of the file that it has left its network, or would have it
    /// otherwise.
    fn is_of_its_bridge(&self, resource: &Resource) -> bool {
        let Resource::Vxlan(spec) = resource else { return true };
        let (bridge, settings) = (self.inventory.bridges.get(&spec.bridge), self.ledger.file.cluster.as_ref());
        let has = |(bridge, settings): (&Bridge, _)| self.ledger.tables.tunnel(settings, &bridge.spec);
        bridge.zip(settings).and_then(has).is_some_and(|own| (own.vni, own.wireguard) == (spec.vni, spec.wireguard))
    }

    /// Tells WireGuard which hosts there are: the peers in encrypted networks, with their keys.
    fn set_wireguard_hosts(&self) {
        let keys = self.ledger.tables.networks.values().flat_map(|table| &table.keys);
        let keys = keys.map(|(peer, key)| (*peer, key.0)).collect();
        self.plane.sockets.wireguards().for_each(|wireguard| wireguard.set_hosts(&keys));
    }

    /// Makes, changes or removes a tunnel to other hosts that are heard of, of an overlay or of flannel's. One that cannot be made stays, down, and is tried again.
    pub(super) fn set_heard_tunnel(&mut self, step: Step) -> Result<(), ControlError> {
        let (spec, origin) = match &step {
            Step::Add(resource, origin) | Step::Set(resource, origin) => match resource {
                api::Resource::Vxlan(spec) => (spec.clone(), *origin),
                _ => return Ok(()),
            },
            Step::Delete(_) => return self.apply(vec![step]).map(drop),
        };
        let is_down = self.inventory.find::<TunnelPort>(&spec.name).is_some_and(|tunnel| tunnel.live().is_none());
        let step = match step {
            // There is nothing that could be taken back.
            Step::Set(resource, origin) if is_down => {
                self.drop_vxlan(&spec.name)?;
                Step::Add(resource, origin)
            }
            step => step,
        };
        let outcome = self.apply(vec![step]).map(drop);
        if let Err(error) = &outcome
            && !self.inventory.has::<TunnelPort>(&spec.name)
            && self.check_free(&ResourceKey::Vxlan(spec.name.clone())).is_ok()
        {
            self.add_vxlan_down(spec, origin, error);
        }
        outcome
    }

    /// Tells the thread what is here.
    fn tell_overlay(&mut self) {
        let Ok(truth) = self.truth() else { return };
        if let (Some(truth), Some(thread)) = (self.overlay.changed(truth), &self.overlay.thread) {
            thread.set(truth);
        }
    }

    fn truth(&self) -> Result<Truth, ControlError> {
        let networks = self.networks_to_come().collect();
        let mut truth = Truth { generation: self.ledger.tables.generation, networks };
        for bridge in self.inventory.bridges.values() {
            let Some(network) = &bridge.spec.overlay else { continue };
            let tunnels = self.inventory.all::<TunnelPort>();
            let mut tunnels =
                tunnels.filter(|tunnel| tunnel.origin == Origin::Cluster && tunnel.spec.bridge == bridge.spec.name);
            let (handed_out, claims) = self.docker_addresses(network);
            let local = Local {
                bridge: Some(bridge.spec.name.clone()),
                tunnel: tunnels.next().map(|tunnel| tunnel.spec.name.clone()),
                subnets: bridge.spec.addresses.clone(),
                encrypt: bridge.spec.encrypt,
                given: given(bridge),
                handed_out,
                claims,
                stations: self.stations_here(bridge)?,
            };
            truth.networks.insert(network.clone(), local);
        }
        Ok(truth)
    }

    /// The stations at the ports of a bridge, and its gateway: as the configuration has them, and as they were seen.
    fn stations_here(&self, bridge: &Bridge) -> Result<BTreeMap<Mac, LocalStation>, ControlError> {
        let mut stations = BTreeMap::new();
        let spec = &bridge.spec;
        if !spec.addresses.is_empty() && spec.gateway_vlan == VlanId::DEFAULT {
            let ips = spec.addresses.iter().map(ipnet::IpNet::addr).collect();
            stations.insert(self.gateway_mac(&spec.name), LocalStation { ips, name: Some(GATEWAY.to_owned()) });
        }
        let places = self.docker_places();
        let on_it = |port: &&Port| port.spec.bridge == spec.name && *port.presence.state() == PortState::Up && is_in(port);
        for port in self.inventory.all::<Port>().filter(on_it) {
            let Some(mac) = port.mac.or(port.spec.mac) else { continue };
            let ips = port.spec.addresses.iter().map(ipnet::IpNet::addr).collect();
            let container = places.get(&port.spec.name).and_then(|place| place.container.clone());
            let name = container.unwrap_or_else(|| port.spec.name.to_string());
            stations.insert(mac, LocalStation { ips, name: Some(name) });
        }
        let is_here = |row: &&Row| {
            row.vlan == VlanId::DEFAULT
                && row.fixed != Fixed::Given
                && self.inventory.by_id(row.place.port).is_some_and(is_port)
        };
        for row in self.table(bridge)?.rows.iter().filter(is_here) {
            stations.entry(row.mac).or_default();
        }
        if !spec.addresses.is_empty() {
            let neighbors = self.neighbor_rows(bridge.id)?;
            let known = neighbors.iter().filter_map(|row| Some((row.mac?, row.address)));
            for (mac, address) in known {
                stations.get_mut(&mac).map(|station| station.ips.insert(address));
            }
        }
        Ok(stations)
    }

    /// Has the thread deal with the store that the file names now.
    pub(super) fn change_cluster(&mut self, before: &Config) -> Option<String> {
        if before.cluster == self.ledger.file.cluster {
            return None;
        }
        self.overlay.end(true);
        let outcome = OverlayDesk::start(&self.ledger.file, self.overlay.news.clone(), &self.plane.sandbox);
        let note = match outcome {
            Ok((desk, tables, _)) => {
                (self.overlay, self.ledger.tables) = (desk, Arc::new(tables));
                self.ledger.dead.clear();
                None
            }
            Err(error) => Some(error.to_string()),
        };
        self.set_overlay_tunnels();
        self.follow_overlay();
        note
    }

    /// Bridges that are in overlay networks although the file has no cluster, or give addresses of them that are not this host's to give.
    pub(super) fn overlay_notes(&self) -> Vec<String> {
        self.inventory
            .bridges
            .values()
            .filter_map(|bridge| self.check_overlay(&bridge.spec).err())
            .map(|error| error.to_string())
            .collect()
    }

    /// Whether a bridge may be in an overlay network.
    pub(super) fn check_overlay(&self, spec: &BridgeSpec) -> Result<(), ControlError> {
        match &spec.overlay {
            Some(_) if self.is_of_flannel(&spec.name) => Err(ControlError::FlannelsBridge(spec.name.clone(), "overlay")),
            Some(overlay) => match &self.ledger.file.cluster {
                None => Err(ControlError::NoCluster(spec.name.clone(), overlay.clone())),
                Some(cluster) if spec.dhcp && !cluster.shares_addresses() => {
                    Err(ControlError::NoBlocks(spec.name.clone(), overlay.clone()))
                }
                Some(_) => Ok(()),
            },
            None => Ok(()),
        }
    }

    /// Whether a bridge that runs gets into another network, or has its network encrypted from now on, or not.
    pub(super) fn changes_overlay(&self, spec: &BridgeSpec) -> bool {
        let running = self.inventory.bridges.get(&spec.name).map(|bridge| &bridge.spec);
        running.is_some_and(|running| (&running.overlay, running.encrypt) != (&spec.overlay, spec.encrypt))
    }

    /// The steps that take the tunnels of a bridge to other hosts away that no user asked for.
    pub(super) fn without_overlay(&self, bridge: &BridgeName) -> Vec<Step> {
        let tunnels = self.inventory.all::<TunnelPort>();
        let its = tunnels
            .filter(|tunnel| matches!(tunnel.origin, Origin::Cluster | Origin::Flannel) && tunnel.spec.bridge == *bridge);
        its.map(|tunnel| Step::Delete(ResourceKey::Vxlan(tunnel.spec.name.clone()))).collect()
    }

    /// Answers a question about the cluster.
    pub(super) fn cluster(&self, question: ClusterQuestion) -> Result<Reply, ControlError> {
        let thread = self.overlay.thread.as_ref().ok_or(ControlError::NotInCluster)?;
        let mut answer = thread.ask(question).ok_or(ControlError::ClusterBusy)?;
        match &mut answer {
            ClusterAnswer::Hosts(hosts) => hosts.iter_mut().for_each(|host| host.tunnel = self.tunnel_state(host)),
            ClusterAnswer::Check(findings) => findings.extend(self.table_findings()?),
            _ => {}
        }
        Ok(Reply::Cluster(Box::new(answer)))
    }

    fn overlay_tunnels(&self) -> impl Iterator<Item = (&TunnelPort, &Live)> {
        let tunnels = self.inventory.all::<TunnelPort>().filter(|tunnel| tunnel.origin == Origin::Cluster);
        tunnels.filter_map(|tunnel| Some((tunnel, tunnel.live()?)))
    }

    /// How it stands with a host as a peer of tunnels: the worst, if it is one of several. A host that takes no part is the peer of none, also if
    /// another has its address.
    fn tunnel_state(&self, host: &ClusterHost) -> Option<String> {
        if host.idle {
            return None;
        }
        let remotes = self.overlay_tunnels().flat_map(|(_, live)| live.remotes());
        let states: Vec<String> =
            remotes.filter(|peer| peer.address == host.underlay && peer.named).map(|peer| peer.state).collect();
        let is_up = |state: &&String| *state == "up";
        states.iter().find(is_up).or(states.first()).cloned()
    }

    /// How it stands with the cluster, for metrics.
    pub(super) fn live_cluster(&self) -> Option<LiveCluster> {
        self.overlay.thread.as_ref()?;
        let (up, tables) = (self.overlay.is_up, &self.ledger.tables);
        let stations = tables.networks.values().map(|table| table.stations.len()).sum();
        Some(LiveCluster { up, hosts: tables.hosts.len(), stations })
    }

    /// The name of a host behind the tunnel of an overlay network; of flannel's, its subnet.
    pub(super) fn host_behind(&self, tunnel: &PortName, peer: u16) -> Option<String> {
        let (origin, remote) = (self.inventory.find::<TunnelPort>(tunnel)?.origin, self.inventory.remote(tunnel, peer)?);
        match origin {
            Origin::Cluster => self.ledger.tables.host_at(remote).map(str::to_owned),
            Origin::Flannel => self.ledger.flannel.host_at(remote),
            Origin::File | Origin::Runtime | Origin::Docker | Origin::Container => None,
        }
    }
}

/// Whether untagged frames of a port are in the VLAN of overlay networks.
fn is_in(port: &Port) -> bool {
    match &port.spec.vlans {
        VlanMode::Access(vlan) => *vlan == VlanId::DEFAULT,
        VlanMode::Trunk { native, .. } => *native == Some(VlanId::DEFAULT),
        VlanMode::All => true,
    }
}

/// The subnets out of which this host gives addresses: by DHCP the gateway's first of each IP version, by Docker all.
fn given(Bridge { spec, origin, .. }: &Bridge) -> Vec<ipnet::IpNet> {
    let is_shared = |net: &&ipnet::IpNet| !matches!(net.addr(), IpAddr::V6(address) if address.is_unicast_link_local());
    let shared = || spec.addresses.iter().filter(is_shared);
    if *origin == Origin::Docker {
        return shared().map(ipnet::IpNet::trunc).collect();
    }
    let first = |four: bool| shared().find(|net| net.addr().is_ipv4() == four);
    [true, false].into_iter().filter(|_| spec.dhcp).filter_map(first).map(ipnet::IpNet::trunc).collect()
}

fn is_port(vport: &super::inventory::Vport) -> bool {
    matches!(vport, super::inventory::Vport::Port(_))
}
