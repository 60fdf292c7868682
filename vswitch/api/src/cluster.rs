//! What `vsctl cluster` asks, and what it is answered: the overlay networks of several hosts, as this host knows them.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use packet::Mac;
use serde::{Deserialize, Serialize};

use super::{BridgeName, OverlayName, PortName};

/// What is asked about the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClusterQuestion {
    /// The store, and how it stands with it.
    Status,
    /// The hosts.
    Hosts,
    /// The networks.
    Networks,
    /// The stations of one network, or of all that this host has a part in.
    Endpoints(Option<OverlayName>),
    /// Whether the store, the tables of the switch, and what is there agree.
    Check,
    /// What a host must be allowed in the store.
    Acl,
}

/// The answer to a [`ClusterQuestion`], in the same order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClusterAnswer {
    /// The store.
    Status(Box<ClusterStatus>),
    /// The hosts, by name.
    Hosts(Vec<ClusterHost>),
    /// The networks, by name.
    Networks(Vec<ClusterNetwork>),
    /// The stations, by network and MAC address.
    Endpoints(Vec<ClusterStation>),
    /// What does not agree.
    Check(Vec<Finding>),
    /// Commands or rules for the store's administrator, a line each.
    Acl(String),
}

/// The store, and how it stands with it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterStatus {
    /// Which store.
    pub store: String,
    /// Its members, as the file names them.
    pub endpoints: Vec<String>,
    /// What all keys begin with.
    pub prefix: String,
    /// The name of this host.
    pub node: String,
    /// Where its tunnels end.
    pub underlay: Option<IpAddr>,
    /// The public key of this host, by which others encrypt for it, in base64.
    #[serde(default)]
    pub key: Option<String>,
    /// `up`; `waiting`: the store was not reached since the start; `lost`: it is not reached any more; `refused`: it is not this host's.
    pub state: String,
    /// For how many seconds it has been so.
    pub since_seconds: u64,
    /// What is wrong, in a sentence.
    pub problem: Option<String>,
    /// Which cluster this is, once it is known.
    pub cluster_id: Option<String>,
    /// Whether nothing is withdrawn for a while, because the store has lost what it had.
    pub held: bool,
    /// Hosts that are known, this one among them.
    pub hosts: usize,
    /// Networks that are known.
    pub networks: usize,
    /// Stations at other hosts that this one's tunnels know.
    pub stations: usize,
}

/// A host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterHost {
    /// Its name.
    pub name: String,
    /// Where its tunnels end.
    pub underlay: IpAddr,
    /// The UDP port that they listen on.
    pub port: u16,
    /// The public key by which others encrypt for it, in base64; none: it has no part in encrypted networks.
    #[serde(default)]
    pub key: Option<String>,
    /// The version of its vswitchd.
    pub version: String,
    /// Whether it is this one.
    pub here: bool,
    /// Whether it takes no part: its `underlay` is that of another host, or none of its own addresses.
    #[serde(default)]
    pub idle: bool,
    /// Those of this host's networks that it has a part in.
    pub networks: Vec<String>,
    /// Its stations in them.
    pub stations: usize,
    /// How it stands with it as a peer of tunnels: `up`, `never heard`, `silent`, or an error; none, if it is a peer of none.
    pub tunnel: Option<String>,
    /// Whether it lives, by what it says itself: `up`, `silent`, or `never` if it never answered; none for this one and older versions.
    #[serde(default)]
    pub probe: Option<String>,
}

/// A network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterNetwork {
    /// Its name.
    pub name: String,
    /// Its number in frames; none until the store has it.
    pub vni: Option<u32>,
    /// Whether its frames are encrypted between hosts.
    #[serde(default)]
    pub encrypt: bool,
    /// Its subnets.
    pub subnets: Vec<IpNet>,
    /// This host's bridge in it.
    pub bridge: Option<BridgeName>,
    /// The tunnel of that bridge.
    pub tunnel: Option<PortName>,
    /// The hosts that have a part in it, if this one has.
    pub hosts: Vec<String>,
    /// Its stations, if this host has a part in it.
    pub stations: usize,
    /// Why this host takes no part in it.
    pub problem: Option<String>,
    /// What to type for a network of Docker's that is this host's part of it.
    #[serde(default)]
    pub docker: String,
}

/// A station.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterStation {
    /// The network.
    pub network: String,
    /// Its MAC address.
    pub mac: Mac,
    /// Its addresses, as far as they are known.
    pub ips: BTreeSet<IpAddr>,
    /// The host that announces it.
    pub host: String,
    /// Its name.
    pub name: Option<String>,
    /// How often it has moved from one host to another (RFC 7432, section 7.7).
    pub sequence: u32,
}

/// Something that does not agree with something else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The network, if it is about one.
    pub network: Option<String>,
    /// The MAC address, if it is about one.
    pub mac: Option<Mac>,
    /// The host, if it is about one.
    pub host: Option<String>,
    /// What does not agree, in a sentence.
    pub sentence: String,
}
