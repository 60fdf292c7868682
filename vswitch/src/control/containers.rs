//! What plugins ask for containers of Podman's and of CNI's, carried out: each request changes what is kept
//! ([`Containers`]), and the difference that this makes to the switch is applied as a reload's would be.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use super::refusal::hint;
use super::{ContainerRefusal, ControlError, Port, Switch};
use crate::attach::{self, AttachError};
use crate::config::Layout;
use crate::containers::{self, AddressError, Containers, Interface, Subnets};
use crate::docker::default_mac;
use api::{
    BridgeName, BridgeSpec, ContainerAddresses, ContainerInfo, ContainerKey, ContainerNetwork, ContainerSpec, ForwardKey,
    ForwardSpec, Netns, NetworkName, Origin, PortName, PortSpec, PortState, Reply, ResourceKey, Runtime, UplinkSpec,
};

impl Switch {
    pub(super) fn attach_container(&mut self, spec: ContainerSpec) -> Result<Reply, ControlError> {
        let key = spec.key.clone();
        let runtime = key.runtime;
        let mut wanted = self.ledger.state.containers.clone();
        let old = wanted.0.remove(&key);
        wanted.0.retain(|_, interface| interface.is_alive() || !may_be_in_the_way(interface, &spec));
        if wanted.0.len() >= containers::MOST_INTERFACES {
            return Err(ContainerRefusal::TooMany.into());
        }
        let interface = self.new_interface(spec, &wanted, old.as_ref())?;
        let same = |other: &ContainerKey, network: &ContainerNetwork| {
            let here = &interface.network;
            other.runtime == runtime && (&network.name, &network.bridge) == (&here.name, &here.bridge)
        };
        // A network may have been changed since its other containers came to it, but for where it is: they stay on their bridge.
        for (_, other) in wanted.0.iter_mut().filter(|(other, known)| same(other, &known.network)) {
            other.network.make.clone_from(&interface.network.make);
        }
        wanted.0.insert(key.clone(), interface);
        // What is different is made anew: routes, of which a port knows nothing, are set when its device is made.
        let has_device =
            |port: &PortName| self.inventory.find::<Port>(port).is_some_and(|port: &Port| port.presence.state().has_device());
        let old = old.filter(|old| wanted.0.get(&key) != Some(old) || !has_device(&old.port));
        if old.is_some() {
            self.change(Origin::Container, |state| state.containers.0.remove(&key))?;
        }
        if let Err(error) = self.change(Origin::Container, |state| state.containers = wanted) {
            self.bring_back(key, old);
            return Err(hint(runtime, error));
        }
        self.container_info(&key).inspect_err(|_| {
            // The error that counts is the first one.
            let _ = self.detach_container(&key);
        })
    }

    /// Makes an interface again that was removed to make place for another, which could not be made.
    fn bring_back(&mut self, key: ContainerKey, old: Option<Interface>) {
        let Some(old) = old.filter(Interface::is_alive) else { return };
        let name = key.to_string();
        if let Err(error) = self.change(Origin::Container, |state| state.containers.0.insert(key, old)) {
            tracing::warn!("interface {name} of a container is lost, for it cannot be made again: {error}");
        }
    }

    /// Reads what is wanted beside what the other containers have.
    fn new_interface(
        &self,
        spec: ContainerSpec,
        others: &Containers,
        old: Option<&Interface>,
    ) -> Result<Interface, ControlError> {
        let not_netns = || AttachError::NotNetns(spec.netns.clone());
        let inode = attach::netns_inode(&spec.netns).ok_or_else(not_netns);
        let mut layout = self.layout_beside(others);
        let free_port = || others.free_port(|name| layout.has_port(name));
        let port = old.map(|old| old.port.clone()).or_else(free_port).ok_or(ContainerRefusal::TooMany)?;
        let inode = inode.map_err(|error| ControlError::Attach(port.clone(), error))?;
        if attach::own_netns_inode() == Some(inode) {
            return Err(ContainerRefusal::OwnNetns(spec.netns).into());
        }
        let bridge = self.network_bridge((spec.key.runtime, Some(&spec.key)), &spec.network, &layout)?;
        layout.insert(bridge.clone(), Origin::Container);
        let addresses = self.container_addresses(&spec, &bridge, &layout, old)?;
        let mac = spec
            .mac
            .or_else(|| default_mac(&addresses))
            .unwrap_or_else(|| self.ledger.state.station_mac(&spec.key.to_string()));
        let taken = layout.all::<PortSpec>().find(|port| port.bridge == bridge.name && port.mac == Some(mac));
        if let Some(port) = taken {
            return Err(ContainerRefusal::MacTaken(mac, self.whose_port(port)).into());
        }
        let ContainerSpec { key, netns, network, names, gateways, routes, send_rate, receive_rate, publish, .. } = spec;
        let mut interface = Interface {
            network,
            port,
            netns,
            inode,
            names,
            mac,
            addresses,
            gateways,
            routes,
            send_rate,
            receive_rate,
            publish,
            published: Vec::new(),
        };
        interface.published = self.container_forwards(&key, &interface, others, &layout)?;
        layout.network().check_port(&interface.port_spec(&key)?)?;
        Ok(interface)
    }

    /// What runs, without what containers have that are not among these.
    fn layout_beside(&self, others: &Containers) -> Layout {
        let mut layout = self.inventory.layout();
        for (_, interface) in self.ledger.state.containers.0.iter().filter(|(key, _)| !others.0.contains_key(key)) {
            layout.remove(&ResourceKey::Port(interface.port.clone()));
            interface.published.iter().for_each(|forward| layout.remove(&ResourceKey::Forward(forward.key.clone())));
        }
        layout
    }

    /// The bridge of a network: one that is there, or one that is to be made and fits.
    fn network_bridge(
        &self,
        asker: (Runtime, Option<&ContainerKey>),
        network: &ContainerNetwork,
        layout: &Layout,
    ) -> Result<BridgeSpec, ControlError> {
        if let Some((spec, origin)) = layout.find::<BridgeSpec>(&network.bridge) {
            let is_same = network.make.as_ref().is_none_or(|make| make.addresses == spec.addresses);
            match (is_same, origin) {
                (false, Origin::Container) if self.is_free(asker, network) => {}
                (false, _) => return Err(ContainerRefusal::OtherBridge(spec.name.clone()).into()),
                (true, Origin::Container) if network.make.is_some() => {}
                (true, _) => return Ok(spec.clone()),
            }
        }
        let known = || layout.all::<BridgeSpec>().map(|spec| spec.name.to_string()).collect::<Vec<_>>().join(", ");
        let choices =
            || Some(known()).filter(|known| !known.is_empty()).map_or_else(String::new, |known| format!(" among {known}"));
        let missing = || ContainerRefusal::NoBridge(network.bridge.clone(), choices());
        let make = network.make.as_ref().ok_or_else(missing)?;
        let mut layout = layout.clone();
        let (uplink, spec) = containers::make_bridge(make, network.internal, self.ledger.file.docker.uplink.as_ref());
        if let Some(uplink) = uplink {
            layout.network().check_uplink(&uplink)?;
            layout.insert_new(uplink, Origin::Container);
        }
        self.check_apart(&spec.clone().into())?;
        layout.network().check_bridge(&spec)?;
        Ok(spec.checked()?)
    }

    /// Whether only this network of a runtime's is on its bridge, and no container that lives but this one, so that it may be made anew.
    fn is_free(&self, (runtime, key): (Runtime, Option<&ContainerKey>), network: &ContainerNetwork) -> bool {
        let on_it = self.ledger.state.containers.0.iter().filter(|(_, interface)| interface.network.bridge == network.bridge);
        on_it.into_iter().all(|(other, interface)| {
            let is_same = other.runtime == runtime && interface.network.name == network.name;
            is_same && (Some(other) == key || !interface.is_alive())
        })
    }

    fn container_addresses(
        &self,
        spec: &ContainerSpec,
        bridge: &BridgeSpec,
        layout: &Layout,
        old: Option<&Interface>,
    ) -> Result<Vec<IpNet>, ControlError> {
        let on_it = || layout.all::<PortSpec>().filter(|port| port.bridge == bridge.name);
        let addresses = match &spec.addresses {
            ContainerAddresses::Given(addresses) => addresses.clone(),
            ContainerAddresses::Chosen { wishes, ranges } => {
                let mut taken: BTreeSet<IpAddr> = on_it().flat_map(|port| &port.addresses).map(IpNet::addr).collect();
                taken.extend(bridge.addresses.iter().map(IpNet::addr));
                taken.extend(self.heard_on(bridge));
                let kept: Vec<IpAddr> = old.iter().flat_map(|old| &old.addresses).map(IpNet::addr).collect();
                let subnets = Subnets { bridge: bridge.name.as_str(), gateways: &bridge.addresses };
                let is_wished = |address: IpAddr| wishes.iter().any(|wish| subnets.subnet(*wish) == subnets.subnet(address));
                let is_usable = |address: &IpAddr| subnets.subnet(*address).is_some() && !is_wished(*address);
                let wishes: Vec<IpAddr> = wishes.iter().copied().chain(kept.into_iter().filter(is_usable)).collect();
                subnets.choose(&wishes, ranges, &taken).map_err(ContainerRefusal::from)?
            }
        };
        for address in addresses.iter().map(IpNet::addr) {
            if let Some(port) = on_it().find(|port| port.addresses.iter().any(|net| net.addr() == address)) {
                return Err(ContainerRefusal::from(AddressError::Taken(address, self.whose_port(port))).into());
            }
        }
        Ok(addresses)
    }

    /// The addresses that the gateway of a bridge has heard from, whether they are of ports or of other stations behind them.
    fn heard_on(&self, bridge: &BridgeSpec) -> Vec<IpAddr> {
        let rows = self.inventory.bridges.get(&bridge.name).and_then(|bridge| self.neighbor_rows(bridge.id).ok());
        rows.into_iter().flatten().filter(|row| row.mac.is_some()).map(|row| row.address).collect()
    }

    /// What an interface is to publish on a layout that has its bridge. What other interfaces of its container publish stays theirs, for a runtime
    /// names all ports of a container with each of its networks.
    fn container_forwards(
        &self,
        key: &ContainerKey,
        interface: &Interface,
        others: &Containers,
        layout: &Layout,
    ) -> Result<Vec<ForwardSpec>, ControlError> {
        let internal = interface.network.internal;
        let Some((bridge, _)) = layout.find::<BridgeSpec>(&interface.network.bridge).filter(|_| !internal) else {
            return Ok(Vec::new());
        };
        let mut layout = layout.clone();
        let (uplink, _) = containers::make_bridge(bridge, internal, self.ledger.file.docker.uplink.as_ref());
        if let Some(uplink) = uplink {
            layout.insert_new(uplink, Origin::Container);
        }
        let beside = others.0.iter().filter(|(other, _)| other.is_beside(key));
        let theirs: Vec<&ForwardSpec> = beside.flat_map(|(_, other)| &other.published).collect();
        let mut published: Vec<ForwardSpec> = Vec::new();
        for port in &interface.publish {
            let uplink =
                bridge.uplink.as_ref().and_then(|name| layout.find::<UplinkSpec>(name)).map(|(uplink, _)| uplink.clone());
            let uplink = uplink.ok_or_else(|| ContainerRefusal::NoUplink(port.port, bridge.name.clone()))?;
            let kind = uplink.kind_name();
            let forwards = containers::forwards(port, &interface.addresses, (&uplink.name, kind))?;
            if forwards.is_empty() {
                return Err(ContainerRefusal::NoTarget(port.port).into());
            }
            let is_theirs = |forward: &ForwardSpec| theirs.iter().any(|other| other.key.overlaps(&forward.key, kind));
            for forward in forwards.into_iter().filter(|forward| !is_theirs(forward)) {
                if let Some((old, _)) = layout.find::<ForwardSpec>(&forward.key) {
                    return Err(ControlError::ForwardExists(forward.key, old.to));
                }
                layout.network().check_forward(&forward)?;
                layout.insert(forward.clone(), Origin::Container);
                published.push(forward);
            }
        }
        Ok(published)
    }

    pub(super) fn check_container_network(&self, runtime: Runtime, network: &ContainerNetwork) -> Result<Reply, ControlError> {
        self.network_bridge((runtime, None), network, &self.inventory.layout()).map(|_| Reply::Done(Vec::new()))
    }

    pub(super) fn detach_container(&mut self, key: &ContainerKey) -> Result<Reply, ControlError> {
        let mut left = self.ledger.state.containers.clone();
        if left.0.remove(key).is_some_and(|gone| !gone.published.is_empty()) {
            self.hand_on_ports(key, &mut left);
        }
        if left != self.ledger.state.containers {
            self.change(Origin::Container, |state| state.containers = left)?;
        }
        Ok(Reply::Done(Vec::new()))
    }

    /// Has the interfaces that a container keeps publish what one that goes has published.
    fn hand_on_ports(&self, gone: &ContainerKey, left: &mut Containers) {
        let beside: Vec<ContainerKey> = left.0.keys().filter(|key| key.is_beside(gone)).cloned().collect();
        for key in beside {
            let Some(mut interface) = left.0.remove(&key) else { continue };
            let layout = self.layout_beside(left);
            match self.container_forwards(&key, &interface, left, &layout) {
                Ok(published) => interface.published = published,
                Err(error) => tracing::warn!("{key} cannot publish what {gone} published: {error}"),
            }
            left.0.insert(key, interface);
        }
    }

    pub(super) fn keep_containers(
        &mut self,
        runtime: Runtime,
        network: &NetworkName,
        kept: &BTreeSet<ContainerKey>,
    ) -> Result<Reply, ControlError> {
        let goes = |key: &ContainerKey, interface: &Interface| {
            key.runtime == runtime && interface.network.name == *network && !kept.contains(key)
        };
        if self.ledger.state.containers.0.iter().any(|(key, interface)| goes(key, interface)) {
            self.change(Origin::Container, |state| state.containers.0.retain(|key, interface| !goes(key, interface)))?;
        }
        Ok(Reply::Done(Vec::new()))
    }

    /// Describes an interface that is as it was made.
    pub(super) fn check_container(&self, key: &ContainerKey) -> Result<Reply, ControlError> {
        let unknown = || ContainerRefusal::Unknown(key.clone());
        let interface = self.ledger.state.containers.0.get(key).ok_or_else(unknown)?;
        let port = self.inventory.find::<Port>(&interface.port).ok_or_else(unknown)?;
        let changed = |what: String| ContainerRefusal::Changed(key.ifname.to_string(), what);
        let state = port.presence.state();
        if *state != PortState::Up {
            return Err(changed(state.to_string()).into());
        }
        let gateways = interface.gateways(&self.inventory.bridge(&port.spec.bridge)?.spec.addresses);
        let differs = attach::difference(&port.spec, &gateways).map_err(|error| changed(error.to_string()))?;
        match differs {
            Some(what) => Err(changed(what).into()),
            None => self.container_info(key),
        }
    }

    fn container_info(&self, key: &ContainerKey) -> Result<Reply, ControlError> {
        let unknown = || ContainerRefusal::Unknown(key.clone());
        let interface = self.ledger.state.containers.0.get(key).ok_or_else(unknown)?;
        self.inventory.port(&interface.port)?;
        let bridge = &self.inventory.bridge(&interface.network.bridge)?.spec;
        let gateways = attach::default_gateways(&interface.addresses, &interface.gateways(&bridge.addresses));
        let is_reached = |address: &IpAddr| interface.addresses.iter().any(|net| net.contains(address));
        let name_servers: Vec<IpAddr> = bridge.addresses.iter().map(IpNet::addr).filter(is_reached).collect();
        Ok(Reply::Container(Box::new(ContainerInfo {
            key: key.clone(),
            network: interface.network.name.clone(),
            port: interface.port.clone(),
            bridge: bridge.name.clone(),
            mac: interface.mac,
            mtu: self.inventory.port_mtu(&bridge.name)?,
            addresses: interface.addresses.clone(),
            gateways,
            routes: interface.routes.clone(),
            domain: (!name_servers.is_empty()).then(|| crate::services::domain_of(&bridge.name)),
            name_servers,
        })))
    }

    /// Forgets interfaces whose containers are dead, and what was theirs on the switch. A part of [`Self::collect_dead`].
    pub(super) fn collect_dead_containers(&mut self) {
        let dead: BTreeSet<ContainerKey> = self.dead_containers(Interface::is_alive);
        if dead.is_empty() {
            return;
        }
        tracing::info!(count = dead.len(), "containers are gone without a word: their ports are removed");
        let forget = |containers: &mut Containers| containers.0.retain(|key, _| !dead.contains(key));
        if let Err(error) = self.change(Origin::Container, |state| forget(&mut state.containers)) {
            tracing::warn!("ports of dead containers could not be removed: {error}");
        }
    }

    /// Forgets interfaces whose containers died before this start.
    pub(super) fn forget_dead_containers(&mut self) {
        let dead = self.dead_containers(|interface| interface.is_alive());
        self.ledger.state.containers.0.retain(|key, _| !dead.contains(key));
    }

    fn dead_containers(&self, is_alive: impl Fn(&Interface) -> bool) -> BTreeSet<ContainerKey> {
        let dead = self.ledger.state.containers.0.iter().filter(|(_, interface)| !is_alive(interface));
        dead.map(|(key, _)| key.clone()).collect()
    }

    /// Takes one port of a container back, as vsctl asks.
    pub(super) fn withdraw_container_port(&mut self, key: &ForwardKey) -> Result<Reply, ControlError> {
        self.change(Origin::Container, |state| {
            let interfaces = state.containers.0.values_mut();
            interfaces.for_each(|interface| interface.published.retain(|forward| forward.key != *key));
        })?;
        Ok(Reply::Done(Vec::new()))
    }

    /// What runtimes call their networks that are on a bridge.
    pub(super) fn networks_on(&self, bridge: &BridgeName) -> Vec<String> {
        let mut networks = self.docker.names.networks_on(bridge, &self.ledger.state.docker);
        let others = self.ledger.state.containers.0.values().map(|interface| &interface.network);
        networks.extend(others.filter(|network| network.bridge == *bridge).map(|network| network.name.clone().into()));
        networks.sort();
        networks.dedup();
        networks
    }

    /// Whether a layout leaves every running container its interfaces.
    pub(super) fn check_interfaces(&self, wanted: &Layout) -> Result<(), ControlError> {
        let ports = self.inventory.named::<Port>().filter(|(_, port)| port.origin == Origin::Container);
        let lost = ports.map(|(name, _)| name).find(|name| !wanted.has(&ResourceKey::Port((*name).clone())));
        match lost.and_then(|name| self.ledger.state.containers.of_port(name)) {
            None => Ok(()),
            Some((key, interface)) => {
                let ContainerNetwork { name, bridge, .. } = &interface.network;
                Err(ControlError::TakesContainer(key.clone(), name.clone(), bridge.clone()))
            }
        }
    }

    /// What to call a port in a sentence.
    fn whose_port(&self, port: &api::PortSpec) -> String {
        match self.ledger.state.containers.of_port(&port.name) {
            Some((key, interface)) => format!("container {}", interface.names.first().map_or(key.container(), String::as_str)),
            None => match &port.netns {
                Some(Netns::Sandbox(_)) => format!("port \"{}\", a container of Docker's,", port.name),
                _ => format!("port \"{}\"", port.name),
            },
        }
    }
}

/// Whether an interface has something that is wanted for another.
fn may_be_in_the_way(interface: &Interface, spec: &ContainerSpec) -> bool {
    interface.network.bridge == spec.network.bridge || !spec.publish.is_empty()
}
