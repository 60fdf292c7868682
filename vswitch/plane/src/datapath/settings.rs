//! What the control side changes and asks, between two batches.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use packet::{Mac, VlanId};
use rstp::State;

use super::bridge::Bridge;
use super::flows::PortFlows;
use super::port::Port;
use super::tunnel::Remote;
use super::vlan::PortVlans;
use super::{
    BridgeId, BridgeSettings, Counters, Datapath, FdbListing, GatewaySettings, NeighborRow, Place, PortId, PortLimits,
    PortSettings, Symptoms,
};

impl Datapath {
    /// Makes a bridge, or changes the one that has this number.
    pub fn set_bridge(&mut self, now: Instant, id: BridgeId, settings: BridgeSettings) {
        let second = self.second(now);
        match self.bridges.get_mut(id.0) {
            Some(bridge) => {
                if bridge.settings.stp != settings.stp {
                    bridge.fdb.clear();
                    let ports = self.ports.iter_mut().map(|(_, port)| port).filter(|port| port.bridge == id);
                    ports.for_each(|port| port.tree = tree(settings.stp, port.remote.is_some(), None));
                }
                bridge.change(settings, second);
            }
            None => self.bridges.insert(id.0, Bridge::new(settings, self.seed)),
        }
    }

    /// Removes a bridge, if no port is on it.
    pub fn remove_bridge(&mut self, id: BridgeId) {
        if self.bridges.get(id.0).is_some_and(|bridge| !bridge.has_members()) {
            self.bridges.remove(id.0);
            self.router.set_gateway(id, None);
            self.router.set_clients(id, Vec::new());
        }
    }

    /// Makes a port, or changes the one that has this number. Its counters go on, and so do its limiters where their rates stay the same.
    pub fn set_port(&mut self, id: PortId, settings: &PortSettings) {
        let old = self.ports.get(id.0);
        let counters = old.map(|port| port.counters.clone()).unwrap_or_default();
        let limits = PortLimits::kept(old.map(|port| &port.limits), &settings.limits);
        let vlans = PortVlans::from(&settings.vlans);
        let is_moved = |port: &Port| port.bridge != settings.bridge || port.vlans != vlans || settings.policy.down;
        if self.ports.get(id.0).is_some_and(is_moved) {
            self.leave(id);
        }
        let Some(bridge) = self.bridges.get_mut(settings.bridge.0) else { return };
        if !settings.policy.down {
            bridge.join(id);
        }
        let remote = settings.tunnel.as_ref().map(Remote::new);
        // What was told of a port that is gone from where it was is forgotten with that.
        let same_place = |port: &&Port| port.bridge == settings.bridge && port.vlans == vlans && !settings.policy.down;
        let told = self.ports.get(id.0).filter(same_place).and_then(|port| port.remote.as_ref()).filter(|remote| remote.told);
        let told = told.map(|remote| Arc::clone(&remote.stations)).unwrap_or_default();
        let before = self.ports.get(id.0).filter(|port| port.bridge == settings.bridge).and_then(|port| port.tree);
        let tree = tree(bridge.settings.stp, remote.is_some(), before);
        bridge.set_known(id, settings, remote.as_ref().is_some_and(Remote::answers), &told);
        let flows = self.ports.get_mut(id.0).map(|port| std::mem::replace(&mut port.flows, PortFlows::new(0)));
        let port = Port {
            bridge: settings.bridge,
            vlans,
            guard: settings.guard.clone(),
            owner: settings.owner,
            policy: settings.policy.clone(),
            limits,
            remote,
            tree,
            counters,
            flows: flows.unwrap_or_else(|| PortFlows::new(self.seed ^ (u64::from(id.0) << 1))),
        };
        self.ports.insert(id.0, port);
    }

    /// The bridge of a port.
    pub(crate) fn bridge_of(&self, id: PortId) -> Option<BridgeId> {
        self.ports.get(id.0).map(|port| port.bridge)
    }

    /// Whether a port is unplugged.
    pub(crate) fn is_unplugged(&self, id: PortId) -> bool {
        self.ports.get(id.0).is_some_and(|port| port.policy.down)
    }

    /// Lets the spanning tree of a bridge decide what passes a port, if the port is part of it.
    pub fn set_tree(&mut self, bridge: BridgeId, id: PortId, state: State) {
        let Some(port) = self.ports.get_mut(id.0).filter(|port| port.bridge == bridge && port.tree.is_some()) else { return };
        port.tree = Some(state);
        if state == State::Discarding {
            self.flush_fdb(bridge, Some(id), None);
        }
    }

    /// Removes a port and the addresses behind it.
    pub fn remove_port(&mut self, id: PortId) {
        self.leave(id);
        self.ports.remove(id.0);
        self.news.retain(|news| news.place.port != id);
    }

    /// The addresses that a bridge knows.
    pub fn fdb(&self, now: Instant, id: BridgeId) -> FdbListing {
        let second = self.second(now);
        self.bridges
            .get(id.0)
            .map(|bridge| FdbListing { rows: bridge.fdb.rows(second), evictions: bridge.fdb.evictions() })
            .unwrap_or_default()
    }

    /// What each bridge shows that is most likely a mistake.
    pub fn symptoms(&self) -> Vec<(BridgeId, Symptoms)> {
        let symptoms = |bridge: &Bridge| Symptoms { moves: bridge.fdb.moves(), conflicts: bridge.claims.conflicts() };
        self.bridges.iter().map(|(number, bridge)| (BridgeId(number), symptoms(bridge))).collect()
    }

    /// Forgets the addresses that a bridge learned; only those at a port, or only one, if these are given.
    pub fn flush_fdb(&mut self, id: BridgeId, port: Option<PortId>, mac: Option<Mac>) {
        let Some(bridge) = self.bridges.get_mut(id.0) else { return };
        match (port, mac) {
            (None, None) => bridge.fdb.clear(),
            _ => bridge.fdb.forget(port, mac),
        }
    }

    /// Forgets the addresses behind one peer of a tunnel.
    pub fn forget_peer(&mut self, id: PortId, peer: u16) {
        if let Some(bridge) = self.ports.get(id.0).and_then(|port| self.bridges.get_mut(port.bridge.0)) {
            bridge.fdb.forget_place(Place { port: id, peer });
        }
        self.news.retain(|news| news.place != Place { port: id, peer });
    }

    /// What a port did so far.
    pub fn counters(&self, id: PortId) -> Option<&Counters> {
        self.ports.get(id.0).map(|port| &port.counters)
    }

    /// Gives a bridge a gateway, changes it, or takes it away.
    pub fn set_gateway(&mut self, id: BridgeId, settings: Option<GatewaySettings>) {
        self.router.set_gateway(id, settings);
    }

    /// Takes note of containers, by VLAN and MAC address, for which the services ask a DHCP server on this bridge, which has no gateway.
    pub fn set_clients(&mut self, bridge: BridgeId, clients: Vec<(VlanId, Mac)>) {
        self.router.set_clients(bridge, clients);
    }

    /// Sets the published ports of an uplink that translates.
    pub fn set_forwards(&mut self, uplink: BridgeId, forwards: Vec<nat::Forward>) {
        self.router.set_forwards(uplink, forwards);
    }

    /// Forgets the neighbours and sessions of stations of a bridge that are gone: other stations may soon have their addresses.
    pub fn forget_stations(&mut self, now: Instant, bridge: BridgeId, addresses: &[IpAddr]) {
        self.router.forget_stations(now, bridge, addresses);
    }

    /// Forgets the neighbours of a gateway.
    pub fn forget_neighbors(&mut self, bridge: BridgeId) {
        self.router.forget_neighbors(bridge);
    }

    /// The sessions of an uplink that translates.
    pub fn nat(&self, uplink: BridgeId) -> Option<&nat::Nat> {
        self.router.nat(uplink)
    }

    /// The neighbours of a bridge's gateway, in no order.
    pub fn neighbors(&self, now: Instant, bridge: BridgeId) -> Vec<NeighborRow> {
        self.router.neighbors(bridge, self.second(now))
    }

    fn leave(&mut self, id: PortId) {
        if let Some(bridge) = self.ports.get(id.0).and_then(|port| self.bridges.get_mut(port.bridge.0)) {
            bridge.leave(id);
        }
    }
}

/// What the spanning tree lets pass a port of a bridge: nothing, until it says so. Tunnels are part of none.
fn tree(stp: bool, is_tunnel: bool, before: Option<State>) -> Option<State> {
    (stp && !is_tunnel).then(|| before.unwrap_or_default())
}
