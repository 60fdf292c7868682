//! What is here: which bridges are in which overlay networks, and the stations at their ports.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use cluster::view::View;
use ipnet::IpNet;
use packet::Mac;

use super::thread::name;
use api::{BridgeName, OverlayName, PortName};

/// What is here, as the control side last looked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Truth {
    /// Which [`Elsewhere`](super::Elsewhere) the switch had carried out by then.
    pub(crate) generation: u64,
    /// The networks that bridges name, and those that Docker is about to make.
    pub(crate) networks: BTreeMap<OverlayName, Local>,
}

impl Truth {
    /// The blocks out of which this host gives addresses, by network; one more is asked for where they are short.
    pub(super) fn blocks(&self, view: &mut View, now: Duration) -> BTreeMap<OverlayName, BTreeSet<IpNet>> {
        let mut blocks = BTreeMap::new();
        for (network, local) in &self.networks {
            let Some(key) = name(network) else { continue };
            let own = local.given.iter().flat_map(|subnet| view.blocks(&key, *subnet, now)).collect();
            blocks.insert(network.clone(), own);
        }
        blocks
    }
}

/// This host's part in a network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Local {
    /// The bridge, if there is one already.
    pub(crate) bridge: Option<BridgeName>,
    /// Its tunnel, if it runs.
    pub(crate) tunnel: Option<PortName>,
    /// The subnets of its gateway.
    pub(crate) subnets: Vec<IpNet>,
    /// Whether it is to be encrypted.
    pub(crate) encrypt: bool,
    /// Those of them out of which this host gives addresses.
    pub(crate) given: Vec<IpNet>,
    /// The addresses that Docker has of them.
    pub(crate) handed_out: BTreeSet<IpAddr>,
    /// Those that it asks for, and that are in no block of this host.
    pub(crate) claims: BTreeSet<IpAddr>,
    /// The stations at its ports, and the gateway.
    pub(crate) stations: BTreeMap<Mac, LocalStation>,
}

/// A station of this host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LocalStation {
    /// Its addresses, as far as they are known.
    pub(crate) ips: BTreeSet<IpAddr>,
    /// Its name: that of its port.
    pub(crate) name: Option<String>,
}
