//! Ports made, changed and removed: the steps of [`apply`](super::apply) that are about devices.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Instant;

use ipnet::IpNet;

use super::links;
use super::plan;
use super::presence::Presence;
use super::{Bridge, ControlError, Port, Switch, Uplink};
use crate::attach::{self, Attachment, Plan};
use crate::config::{Layout, Made};
use api::{Netns, Origin, PortKind, PortName, PortPolicy, PortSpec};
use plane::datapath::{Guard, PortId, PortSettings, Slots};
use plane::worker::Command;

impl Switch {
    pub(super) fn make_port(&mut self, spec: PortSpec, origin: Origin) -> Result<(), ControlError> {
        let id = port_vacancy(&self.inventory.port_ids)?;
        let name = spec.name.clone();
        let port = self.attach(id, spec, origin)?;
        self.inventory.port_ids.insert(id.0, name.clone());
        self.plane.captures.add_interface(id, &port.spec);
        self.inventory.put(port);
        self.tell_services();
        Ok(())
    }

    /// A port without a device. Its number never gets to a worker: [`Self::replace_port`] gives it another.
    pub(super) fn add_port_down(&mut self, spec: PortSpec, origin: Origin, error: &ControlError) {
        let id = PortId(self.inventory.port_ids.vacancy());
        self.inventory.port_ids.insert(id.0, spec.name.clone());
        let port = Port {
            id,
            origin,
            mac: spec.mac,
            features: Vec::new(),
            presence: Presence::unusable(error),
            reopened: true,
            tripped: false,
            seed: 0,
            spec,
        };
        self.inventory.put(port);
    }

    pub(super) fn change_port(&mut self, spec: PortSpec, origin: Origin) -> Result<(), ControlError> {
        let name = spec.name.clone();
        let port = self.inventory.port(&name)?;
        let (id, old, mac, seed, tripped) = (port.id, port.spec.clone(), port.mac, port.seed, port.tripped);
        let (mtu, gateways) = (
            self.inventory.port_mtu(&spec.bridge)?,
            self.gateways_of(&spec, &self.inventory.bridge(&spec.bridge)?.spec.addresses),
        );
        if spec == old && links::is_missing(port) {
            return self.try_port(&name);
        }
        if plan::needs_new_device(&old, &spec) || !port.presence.state().has_device() {
            return self.replace_port(spec, origin);
        }
        let touches_device = old.mac != spec.mac || old.addresses != spec.addresses || old.bridge != spec.bridge;
        // An address that is given no more makes room for the first one.
        let first = || self.ledger.state.station_mac(name.as_str());
        let is_bare = spec.mac.is_none() && old.mac.is_some() && spec.kind != PortKind::Link;
        let station_mac = if is_bare { Some(first()) } else { spec.mac };
        if touches_device {
            let station = PortSpec { mac: station_mac, ..spec.clone() };
            // The station speaks from its new MAC address at once, and the guard is to know it by then.
            self.set_guarded(id, &old, station_mac.or(mac), seed)?;
            if let Err(error) = attach::reconfigure(&old, &station, &mtu, &gateways) {
                self.set_guarded(id, &old, mac, seed)?;
                return Err(ControlError::Attach(name, error));
            }
        }
        let mac = station_mac.or(mac);
        let settings = self.settings(&spec, mac, seed)?;
        if old.policy.down != spec.policy.down {
            self.set_carrier(id, &spec, spec.policy.down || tripped)?;
        }
        self.plane.tell_all(|| Command::SetPort(id, settings.clone()))?;
        self.journal(&spec)?;
        if let Some(port) = self.inventory.find_mut::<Port>(&name) {
            (port.spec, port.origin, port.mac) = (spec, origin, mac);
        }
        self.tell_services();
        Ok(())
    }

    /// Tells the workers that the station of a guarded port has this MAC address.
    fn set_guarded(&self, id: PortId, spec: &PortSpec, mac: Option<packet::Mac>, seed: u32) -> Result<(), ControlError> {
        if !spec.policy.guard {
            return Ok(());
        }
        self.tell_port(id, spec, mac, seed)
    }

    fn tell_port(&self, id: PortId, spec: &PortSpec, mac: Option<packet::Mac>, seed: u32) -> Result<(), ControlError> {
        let settings = self.settings(spec, mac, seed)?;
        Ok(self.plane.tell_all(|| Command::SetPort(id, settings.clone()))?)
    }

    /// Tells the workers what a port is like, as its bridge has it now.
    pub(super) fn follow_bridge(&self, name: &PortName) -> Result<(), ControlError> {
        let Port { id, spec, mac, seed, .. } = self.inventory.port(name)?;
        self.tell_port(*id, spec, spec.mac.or(*mac), *seed)
    }

    /// Plugs a port in or unplugs it, as its guard against BPDUs has it now.
    pub(super) fn follow_guard(&self, name: &PortName) -> Result<(), ControlError> {
        self.follow_bridge(name)?;
        let Port { id, spec, tripped, .. } = self.inventory.port(name)?;
        self.set_carrier(*id, spec, spec.policy.down || *tripped)
    }

    /// Takes a port's device away and gives it another; if that fails, the first one comes back. What runs in its namespace goes on there.
    fn replace_port(&mut self, spec: PortSpec, origin: Origin) -> Result<(), ControlError> {
        let name = spec.name.clone();
        self.check_place(&spec)?;
        let old = self.inventory.port(&name)?;
        let (old, old_origin) = (old.spec.clone(), old.origin);
        self.drop_device(&name)?;
        let replaced = self.make_port(spec, origin);
        if replaced.is_err()
            && let Err(again) = self.make_port(old.clone(), old_origin)
        {
            tracing::error!("could not be taken back: {again}");
            self.add_port_down(old.clone(), old_origin, &again);
        }
        self.remove_idle_netns(old.netns.as_ref());
        replaced
    }

    /// Removes a port whose station is gone with it, and may soon give its addresses to another.
    pub(super) fn drop_station(&mut self, name: &PortName) -> Result<(), ControlError> {
        let port = self.inventory.port(name)?;
        let bridge = self.inventory.bridge(&port.spec.bridge)?.id;
        let addresses: Vec<IpAddr> = port.spec.addresses.iter().map(IpNet::addr).collect();
        self.drop_port(name)?;
        for host in self.inventory.all::<Uplink>().filter_map(|uplink| uplink.host.as_ref()) {
            // With its thread, its sessions have ended.
            let _ = host.forget(&addresses);
        }
        if let Some(router) = self.plane.workers.first() {
            router.hint(Command::ForgetStations(bridge, addresses));
        }
        Ok(())
    }

    fn drop_port(&mut self, name: &PortName) -> Result<(), ControlError> {
        let netns = self.inventory.port(name)?.spec.netns.clone();
        self.drop_device(name)?;
        self.remove_idle_netns(netns.as_ref());
        self.tell_services();
        Ok(())
    }

    /// Removes a port, and leaves its namespace.
    fn drop_device(&mut self, name: &PortName) -> Result<(), ControlError> {
        let port = self.inventory.port(name)?;
        let (id, spec) = (port.id, port.spec.clone());
        for worker in &self.plane.workers {
            worker.ask(|reply| Command::Detach(id, reply))?;
        }
        self.plane.captures.remove_interface(id);
        self.inventory.remove(name);
        self.inventory.port_ids.remove(id.0);
        if let Err(error) = attach::detach(&spec) {
            tracing::warn!(port = %name, "its device could not be removed: {error}");
        }
        self.ledger.state.made.ports.remove(name);
        Ok(())
    }

    /// Opens a port's device and puts a queue of it on each worker; all or nothing.
    pub(super) fn attach(&mut self, id: PortId, spec: PortSpec, origin: Origin) -> Result<Port, ControlError> {
        self.check_place(&spec)?;
        self.inventory.bridge(&spec.bridge)?;
        self.journal(&spec)?;
        let attachment = self.open(&spec)?;
        let presence = Presence::of(&attachment);
        let Attachment { queues, mac, features, made_netns, reopened, .. } = attachment;
        if let (true, Some(Netns::Name(netns))) = (made_netns, &spec.netns) {
            self.ledger.state.made.netns.insert(netns.clone());
            if let Err(error) = self.write_down(&Made { netns: [netns.clone()].into(), ..Made::default() }) {
                self.undo_attach(id, &spec, reopened);
                return Err(error);
            }
        }
        let seed = rand::random();
        let settings = self.settings(&spec, mac, seed)?;
        for (worker, device) in self.plane.workers.iter().zip(queues.devices()) {
            let attached = worker.ask(|reply| Command::Attach(id, settings.clone(), device, reply));
            let attached = attached.map_err(ControlError::from);
            let attached = attached.and_then(|done| done.map_err(|error| ControlError::Poll(spec.name.clone(), error)));
            if let Err(error) = attached {
                self.undo_attach(id, &spec, reopened);
                return Err(error);
            }
        }
        // A device that was found may be as another configuration left it.
        if (spec.policy.down || reopened)
            && let Err(error) = self.set_carrier(id, &spec, spec.policy.down)
        {
            self.undo_attach(id, &spec, reopened);
            return Err(error);
        }
        Ok(Port { id, spec, origin, mac, features, presence, reopened, tripped: false, seed })
    }

    fn open(&mut self, spec: &PortSpec) -> Result<Attachment, ControlError> {
        let interface = self.ledger.state.containers.of_port(&spec.name);
        let opened = attach::attach(&Plan {
            spec: spec.clone(),
            first_mac: Some(self.ledger.state.station_mac(spec.name.as_str())),
            mtu: self.inventory.port_mtu(&spec.bridge)?,
            workers: self.plane.workers.len(),
            held: self.handover.queues_of(&spec.name),
            gateways: self.gateways_of(spec, &self.inventory.bridge(&spec.bridge)?.spec.addresses),
            netns_mark: self.ledger.state.netns_mark(),
            routes: interface.map_or_else(Vec::new, |(_, interface)| interface.routes.clone()),
        });
        opened.map_err(|error| {
            self.ledger.state.made.ports.remove(&spec.name);
            ControlError::Attach(spec.name.clone(), error)
        })
    }

    /// What the default routes of a port may lead to, of a bridge with these addresses.
    pub(super) fn gateways_of(&self, spec: &PortSpec, bridge: &[IpNet]) -> Vec<IpNet> {
        let interface = self.ledger.state.containers.of_port(&spec.name);
        interface.map_or_else(|| bridge.to_vec(), |(_, interface)| interface.gateways(bridge))
    }

    fn undo_attach(&mut self, id: PortId, spec: &PortSpec, reopened: bool) {
        for worker in &self.plane.workers {
            let _ = worker.ask(|reply| Command::Detach(id, reply));
        }
        if reopened {
            return;
        }
        if let Err(error) = attach::detach(spec) {
            tracing::warn!(port = %spec.name, "its device could not be removed: {error}");
        }
        self.ledger.state.made.ports.remove(&spec.name);
        self.remove_idle_netns(spec.netns.as_ref());
    }

    /// Writes down that a device is about to be made, so that a start after a crash finds it.
    fn journal(&mut self, spec: &PortSpec) -> Result<(), ControlError> {
        self.journal_all(std::iter::once(spec.clone()))
    }

    /// The same for many, at the price of one.
    pub(super) fn journal_all(&mut self, specs: impl Iterator<Item = PortSpec>) -> Result<(), ControlError> {
        let made = &mut self.ledger.state.made;
        let ports: BTreeMap<_, _> = specs.filter(|spec| made.expect(spec)).map(|spec| (spec.name.clone(), spec)).collect();
        if ports.is_empty() { Ok(()) } else { self.write_down(&Made { ports, ..Made::default() }) }
    }

    /// Forgets the namespaces that are gone, which the kept state may still name: what has their names now is a user's. Those that an earlier
    /// release made get their marks.
    fn forget_lost_netns(&mut self) {
        let mark = self.ledger.state.netns_mark();
        let made = &mut self.ledger.state.made;
        if !std::mem::replace(&mut made.marked, true) {
            for name in &made.netns {
                attach::mark_netns(name, &mark).unwrap_or_else(|error| tracing::debug!("{error}"));
            }
        }
        made.netns.retain(|name| attach::is_marked_netns(name, &mark).unwrap_or(true));
    }

    /// Removes devices that an earlier vswitchd made and left, and that no port wants now. While that one may go on, only those that are in the way of
    /// others are removed.
    pub(super) fn remove_leftovers(&mut self, wanted: &Layout, may_go_on: bool) {
        self.forget_lost_netns();
        let is_in_the_way = |spec: &PortSpec| {
            wanted.all::<PortSpec>().any(|now| now.name == spec.name || plan::place(now) == plan::place(spec))
        };
        let kept = |spec: &PortSpec| {
            let same = |now: &PortSpec| now.kind == spec.kind && plan::place(now) == plan::place(spec);
            wanted.find(&spec.name).is_some_and(|(now, _)| same(now))
        };
        let made = self.ledger.state.made.ports.values();
        let leftovers = made.filter(|spec| !kept(spec) && (!may_go_on || is_in_the_way(spec)));
        for spec in leftovers.cloned().collect::<Vec<_>>() {
            tracing::info!(port = %spec.name, "removing what an earlier run left");
            if let Err(error) = attach::detach(&spec) {
                tracing::warn!(port = %spec.name, "{error}");
            }
            self.ledger.state.made.ports.remove(&spec.name);
        }
        if may_go_on {
            return;
        }
        let used: BTreeSet<&Netns> = wanted.all::<PortSpec>().filter_map(|spec| spec.netns.as_ref()).collect();
        let idle = |name: &&String| !used.contains(&Netns::Name((*name).clone()));
        for name in self.ledger.state.made.netns.iter().filter(idle).cloned().collect::<Vec<_>>() {
            self.remove_netns(&name);
        }
    }

    /// Removes the namespace if this switch made it and no port is left in it.
    fn remove_idle_netns(&mut self, netns: Option<&Netns>) {
        let Some(Netns::Name(name)) = netns else { return };
        let in_use = self.inventory.all::<Port>().any(|port| port.spec.netns.as_ref() == netns);
        if !in_use && self.ledger.state.made.netns.contains(name) {
            self.remove_netns(name);
        }
    }

    fn remove_netns(&mut self, name: &str) {
        match attach::remove_netns(name) {
            Ok(()) => {
                self.ledger.state.made.netns.remove(name);
            }
            Err(error) => tracing::warn!(netns = name, "{error}"),
        }
    }

    fn check_place(&self, spec: &PortSpec) -> Result<(), ControlError> {
        let taken = |port: &&Port| port.spec.name != spec.name && plan::place(&port.spec) == plan::place(spec);
        match self.inventory.all::<Port>().find(taken) {
            None => Ok(()),
            Some(port) => Err(ControlError::PlaceTaken {
                port: port.spec.name.clone(),
                ifname: spec.ifname.to_string(),
                netns: spec.netns.as_ref().map_or_else(|| "the host".to_owned(), |netns| format!("namespace \"{netns}\"")),
            }),
        }
    }

    /// A port as the datapath sees it, with a seed that was drawn for it.
    fn settings(&self, spec: &PortSpec, mac: Option<packet::Mac>, seed: u32) -> Result<PortSettings, ControlError> {
        let guard = mac.or(spec.mac).filter(|_| spec.policy.guard);
        let addresses: Vec<_> = spec.addresses.iter().map(ipnet::IpNet::addr).collect();
        let bridge = self.inventory.bridge(&spec.bridge)?;
        let settings = PortSettings {
            vlans: spec.vlans.clone(),
            guard: guard.map(|mac| Guard { mac, addresses: guarded(&addresses, mac, bridge) }),
            addresses,
            owner: mac.filter(|_| spec.kind == PortKind::Link),
            ..PortSettings::on(bridge.id)
        };
        let down = spec.policy.down || self.inventory.find::<Port>(&spec.name).is_some_and(|port| port.tripped);
        let policy = PortPolicy { impair: spec.policy.impair.clone().or_seed(seed), down, ..spec.policy.clone() };
        Ok(settings.under(policy, Instant::now()))
    }
}

/// The addresses that a guarded station may speak from, where any are known: those that it was given, and those that its kernel makes of its MAC
/// address from the gateway's advertisements, and prefers.
fn guarded(given: &[IpAddr], mac: packet::Mac, bridge: &Bridge) -> Vec<IpAddr> {
    let advertised = bridge.spec.addresses.iter().filter(|_| !given.is_empty() && bridge.origin.is_of_users());
    let made = advertised.filter_map(|net| match net {
        IpNet::V6(net) if net.prefix_len() == 64 => Some(IpAddr::V6(mac.address_in(net.addr()))),
        _ => None,
    });
    given.iter().copied().chain(made).collect()
}

impl Port {
    /// Whether it is a container's, which keeps its device while vswitchd is away.
    pub(super) fn is_of_container(&self) -> bool {
        match self.origin {
            Origin::Docker => self.spec.is_handed_over(),
            Origin::Container => true,
            Origin::File | Origin::Runtime | Origin::Cluster | Origin::Flannel => false,
        }
    }
}

/// A number for another port or uplink.
pub(super) fn port_vacancy(ids: &Slots<PortName>) -> Result<PortId, ControlError> {
    match ids.vacancy() {
        id @ 0..=PortId::MOST => Ok(PortId(id)),
        taken => Err(ControlError::Ports(taken)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_beyond_the_last_number_are_refused() {
        let mut ids = Slots::default();
        for id in (0..=PortId::MOST).rev() {
            ids.insert(id, "p".parse().unwrap());
        }
        let error = port_vacancy(&ids).unwrap_err().to_string();
        assert_eq!(error, "there are 65536 ports and uplinks already, the most that a switch can have: remove one first");
        ids.remove(7);
        assert_eq!(port_vacancy(&ids).unwrap(), PortId(7));
    }
}
