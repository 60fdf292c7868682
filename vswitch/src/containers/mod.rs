//! Containers of other runtimes than Docker: Podman's, and those of whatever speaks CNI.
//!
//! ```text
//!  netavark, libcni ── JSON, a process for each call ──▶ plugin (vswitch-netavark, vswitch-cni)
//!                                                            │ control socket: AttachContainer, DetachContainer, …
//!                                                            ▼
//!                                                       the owner of the switch (control) keeps Containers, then answers
//! ```
//!
//! **What is kept.** A plugin is told of one interface at a time, with all that concerns it, and forgets it. So the switch keeps each
//! ([`Containers`], a part of the [`State`](crate::config::State)); bridges, ports and forwards follow from it, as with
//! [`docker`](crate::docker). A network is there while one of its containers is: no runtime says when it removes one.
//!
//! **The life of an interface.** Its device is made in the container's namespace, which is there before the plugin is called, and keeps
//! its addresses and routes while vswitchd is away. The key is the container and the interface: a call that comes twice finds what
//! it made, and one that comes for another namespace, as after a call that got lost, makes it anew.
//!
//! **Deaths that no call tells of.** A call that fails never comes again. So namespaces are looked at when vswitchd starts, when a device goes and
//! every half minute ([`Interface::is_alive`]), and a new container that gets the address of a dead one takes it over.

mod addresses;
mod interface;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use api::{BridgeName, BridgeSpec, ContainerKey, DockerPlace, ForwardSpec, PortName, PortSpec, UplinkKind, UplinkSpec};

pub use addresses::{AddressError, Subnets};
pub use interface::{Interface, forwards};

/// Most interfaces of all containers.
pub const MOST_INTERFACES: usize = 16_384;

/// Everything that plugins asked for and have not taken back. Kept in `state-dir`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Containers(pub BTreeMap<ContainerKey, Interface>);

impl Containers {
    /// The bridges that they come to, which have `uplink` where they name none, and the uplink that is made for them.
    pub fn bridges(&self, uplink: Option<&PortName>) -> (Option<UplinkSpec>, Vec<BridgeSpec>) {
        let implied = implied_uplink().filter(|_| uplink.is_none());
        let default = uplink.or(implied.as_ref().map(|spec| &spec.name));
        let mut bridges: BTreeMap<BridgeName, BridgeSpec> = BTreeMap::new();
        for interface in self.0.values() {
            let Some(make) = &interface.network.make else { continue };
            bridges.entry(make.name.clone()).or_insert_with(|| with_uplink(make, interface.network.internal, default));
        }
        let is_used = |spec: &UplinkSpec| bridges.values().any(|bridge| bridge.uplink.as_ref() == Some(&spec.name));
        (implied.filter(is_used), bridges.into_values().collect())
    }

    /// The ports that they come to.
    pub fn ports(&self) -> impl Iterator<Item = PortSpec> {
        // What contradicts itself was refused when it was asked for.
        self.0.iter().filter_map(|(key, interface)| interface.port_spec(key).ok())
    }

    /// The forwards that they come to.
    pub fn forwards(&self) -> impl Iterator<Item = &ForwardSpec> {
        self.0.values().flat_map(|interface| &interface.published)
    }

    /// The interface of a port.
    pub fn of_port(&self, port: &PortName) -> Option<(&ContainerKey, &Interface)> {
        self.0.iter().find(|(_, interface)| interface.port == *port)
    }

    /// Where each port is.
    pub fn places(&self) -> impl Iterator<Item = (&Interface, DockerPlace)> {
        let place = |key: &ContainerKey, interface: &Interface| DockerPlace {
            container: Some(interface.names.first().map_or_else(|| key.container(), String::as_str).to_owned()),
            network: Some(interface.network.name.clone().into()),
        };
        self.0.iter().map(move |(key, interface)| (interface, place(key, interface)))
    }

    /// A name for another port: the first that none has.
    pub fn free_port(&self, is_taken: impl Fn(&PortName) -> bool) -> Option<PortName> {
        let mut names = (1..).map_while(|number: u32| format!("ct-{number}").parse().ok());
        names.find(|name| self.of_port(name).is_none() && !is_taken(name))
    }
}

/// A bridge as it is made for a network, and the uplink that is made for it; `uplink` is that of `[docker]`.
pub fn make_bridge(make: &BridgeSpec, internal: bool, uplink: Option<&PortName>) -> (Option<UplinkSpec>, BridgeSpec) {
    let implied = implied_uplink().filter(|_| uplink.is_none());
    let spec = with_uplink(make, internal, uplink.or(implied.as_ref().map(|spec| &spec.name)));
    (implied.filter(|implied| spec.uplink.as_ref() == Some(&implied.name)), spec)
}

/// A bridge that was asked for without an uplink, with one.
fn with_uplink(make: &BridgeSpec, internal: bool, default: Option<&PortName>) -> BridgeSpec {
    let default = default.filter(|_| !internal && !make.addresses.is_empty());
    BridgeSpec { uplink: make.uplink.clone().or_else(|| default.cloned()), ..make.clone() }
}

/// The uplink of networks for which neither the network nor `switch.toml` names one.
fn implied_uplink() -> Option<UplinkSpec> {
    Some(UplinkSpec { name: "containers".parse().ok()?, kind: UplinkKind::Host { isolate_bridges: true } })
}
