//! Interfaces of Podman's and CNI's containers: what a plugin asks for, and what it is told.
//! The plugins write these requests, the control side carries them out. Only values and the checks of their names are here.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use packet::{Mac, VlanId};
use serde::{Deserialize, Serialize};

use super::{BridgeName, BridgeSpec, InterfaceName, PortKind, PortName, Rate};

/// Longest identifier or name of a container or network, in bytes; Podman's identifiers have 64.
const LONGEST: usize = 255;

/// The container runtime that asks for an interface, through a plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Runtime {
    /// Podman, by netavark.
    Podman,
    /// A runtime that speaks CNI.
    Cni,
}

impl fmt::Display for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Podman => "podman",
            Self::Cni => "cni",
        })
    }
}

/// What an interface of a container is known by. Written `podman/ID/eth0`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContainerKey {
    /// The runtime that asked for it.
    pub runtime: Runtime,
    /// The runtime's identifier of the container: 1 to 255 letters, digits, `-`, `_` and `.`.
    container: String,
    /// What the interface is called in the container.
    pub ifname: InterfaceName,
}

/// What a container's interface cannot be, in one sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ContainerError {
    /// Not an identifier.
    #[error("\"{}\" is not the identifier of a container: use 1 to {LONGEST} letters, digits, '-', '_' and '.', a letter or digit first", .0.escape_debug())]
    Id(String),
    /// Not a network's name.
    #[error("\"{}\" cannot be the name of a network: use 1 to {LONGEST} letters, digits, '-', '_' and '.', a letter or digit first", .0.escape_debug())]
    Network(String),
    /// Not a key.
    #[error("\"{}\" is not an interface of a container: write podman/ID/eth0 or cni/ID/eth0", .0.escape_debug())]
    Key(String),
}

impl ContainerKey {
    /// The key of a container's interface.
    ///
    /// # Errors
    /// Not an identifier.
    pub fn new(runtime: Runtime, container: &str, ifname: InterfaceName) -> Result<Self, ContainerError> {
        if is_plain(container) {
            Ok(Self { runtime, container: container.to_owned(), ifname })
        } else {
            Err(ContainerError::Id(container.to_owned()))
        }
    }

    /// The runtime's identifier of the container.
    pub fn container(&self) -> &str {
        &self.container
    }

    /// Whether both are of one container.
    pub fn is_beside(&self, other: &Self) -> bool {
        (self.runtime, &self.container) == (other.runtime, &other.container)
    }
}

/// What CNI and Podman allow for identifiers and names.
fn is_plain(text: &str) -> bool {
    let plain = text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    plain && text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.len() <= LONGEST
}

impl fmt::Display for ContainerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.runtime, self.container, self.ifname)
    }
}

impl TryFrom<String> for ContainerKey {
    type Error = ContainerError;

    fn try_from(text: String) -> Result<Self, ContainerError> {
        let wrong = || ContainerError::Key(text.clone());
        let mut parts = text.splitn(3, '/');
        let (Some(runtime), Some(container), Some(ifname)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(wrong());
        };
        let runtime = match runtime {
            "podman" => Runtime::Podman,
            "cni" => Runtime::Cni,
            _ => return Err(wrong()),
        };
        Self::new(runtime, container, ifname.parse().map_err(|_| wrong())?)
    }
}

impl From<ContainerKey> for String {
    fn from(key: ContainerKey) -> Self {
        key.to_string()
    }
}

/// What a runtime calls a network: 1 to 255 letters, digits, `-`, `_` and `.`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NetworkName(String);

impl NetworkName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for NetworkName {
    type Error = ContainerError;

    fn try_from(text: String) -> Result<Self, ContainerError> {
        if is_plain(&text) { Ok(Self(text)) } else { Err(ContainerError::Network(text)) }
    }
}

impl fmt::Display for NetworkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl From<NetworkName> for String {
    fn from(name: NetworkName) -> Self {
        name.0
    }
}

/// An interface that a container is to have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub struct ContainerSpec {
    /// What it is known by.
    pub key: ContainerKey,
    /// The container's network namespace.
    pub netns: PathBuf,
    /// The network.
    pub network: ContainerNetwork,
    /// What users call the container; the other names by which stations of its bridge may ask for it follow.
    pub names: Vec<String>,
    /// Its MAC address; `None`: one that follows from its first address.
    pub mac: Option<Mac>,
    /// Where its addresses come from.
    pub addresses: ContainerAddresses,
    /// Its default gateways; `None`: those of its bridge.
    pub gateways: Option<Vec<IpAddr>>,
    /// Its other routes.
    pub routes: Vec<ContainerRoute>,
    /// Most that it may send; `None`: no limit.
    pub send_rate: Option<Rate>,
    /// Most that it may receive; `None`: no limit.
    pub receive_rate: Option<Rate>,
    /// Its published ports.
    pub publish: Vec<PublishedPort>,
}

/// A network of a runtime's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub struct ContainerNetwork {
    /// What the runtime calls it.
    pub name: NetworkName,
    /// The bridge that it is on.
    pub bridge: BridgeName,
    /// The bridge to be made unless there is one of that name; it goes with its last container. Without an uplink it gets that of
    /// `[docker]` or, where that names none, one by the host's sockets.
    pub make: Option<BridgeSpec>,
    /// Whether its containers have no way out of it.
    pub internal: bool,
    /// The VLAN of its containers.
    pub vlan: Option<VlanId>,
    /// Whether each container is held to its own addresses.
    pub guard: bool,
    /// What its containers are attached by.
    pub kind: PortKind,
}

/// Where the addresses of a container come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ContainerAddresses {
    /// They are these; none is none.
    Given(Vec<IpNet>),
    /// The switch chooses one in each subnet of the bridge: one of these where one is in it, else the first free one, of this part
    /// of the subnet if there is one.
    Chosen {
        /// Addresses that are wished for.
        wishes: Vec<IpAddr>,
        /// Parts of subnets.
        ranges: Vec<IpNet>,
    },
}

/// A route of a container besides its default route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub struct ContainerRoute {
    /// Where it leads.
    pub to: IpNet,
    /// The next hop.
    pub via: IpAddr,
}

/// Ports of the host that lead to a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub struct PublishedPort {
    /// `tcp` or `udp`.
    pub protocol: String,
    /// The one address that they are published on; `None`: all.
    pub listen: Option<IpAddr>,
    /// The first port.
    pub port: u16,
    /// The first port of the container.
    pub to: u16,
    /// How many there are, from 1.
    pub count: u16,
}

/// An interface of a container as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerInfo {
    /// What it is known by.
    pub key: ContainerKey,
    /// The network.
    pub network: NetworkName,
    /// Its port.
    pub port: PortName,
    /// Its bridge.
    pub bridge: BridgeName,
    /// Its MAC address.
    pub mac: Mac,
    /// Its MTU in bytes.
    pub mtu: u16,
    /// Its addresses.
    pub addresses: Vec<IpNet>,
    /// Its default gateways, of each IP version one at most.
    pub gateways: Vec<IpAddr>,
    /// Its other routes.
    pub routes: Vec<ContainerRoute>,
    /// The name servers that the switch offers it; none: the switch answers no questions for names.
    pub name_servers: Vec<IpAddr>,
    /// In which domain the stations of its bridge have names; `None`: in none.
    pub domain: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_written_as_it_reads() {
        for text in ["podman/0123abc/eth0", "cni/k8s.io-web_1/net1"] {
            assert_eq!(ContainerKey::try_from(text.to_owned()).unwrap().to_string(), text);
        }
        for text in ["", "podman", "docker/a/eth0", "cni//eth0", "cni/-a/eth0", "cni/a b/eth0", "cni/a/eth0/x", "cni/a/"] {
            assert!(ContainerKey::try_from(text.to_owned()).is_err(), "{text:?}");
        }
    }
}
