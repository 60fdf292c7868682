//! What `vsctl flannel` is answered: the network of flannel's that this host has a part in, as it knows it.

use std::net::IpAddr;

use ipnet::IpNet;
use packet::Mac;
use serde::{Deserialize, Serialize};

use super::{BridgeName, PortName};

/// A network of flannel's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlannelInfo {
    /// `up`: etcd is reached, and has this host's subnet; `waiting`: it was not since the start; `lost`: it is not any more.
    pub state: String,
    /// What is wrong, in a sentence.
    pub problem: Option<String>,
    /// The members of etcd, as the file names them.
    pub endpoints: Vec<String>,
    /// What all keys begin with.
    pub prefix: String,
    /// Where this host's tunnel ends.
    pub underlay: Option<IpAddr>,
    /// The bridge that has this host's subnet.
    pub bridge: Option<BridgeName>,
    /// Its tunnel, if it runs or could not be opened.
    pub tunnel: Option<PortName>,
    /// The network.
    pub network: Option<IpNet>,
    /// Its number in frames.
    pub vni: Option<u32>,
    /// The UDP port of all hosts.
    pub port: Option<u16>,
    /// This host's subnet.
    pub subnet: Option<IpNet>,
    /// The MAC address of this host's end of the tunnel.
    pub mac: Option<Mac>,
    /// Whether no host is withdrawn for a while, because etcd has lost what it had.
    pub held: bool,
    /// The other hosts, by subnet.
    pub hosts: Vec<FlannelHost>,
}

/// A host with a subnet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlannelHost {
    /// Its subnet.
    pub subnet: IpNet,
    /// Where its tunnel ends.
    pub underlay: IpAddr,
    /// The MAC address of that end.
    pub mac: Mac,
    /// How it stands with it as a peer: `up`, `never heard`, `silent`, or an error; none, if it is none.
    pub tunnel: Option<String>,
}
