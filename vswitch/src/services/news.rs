//! What the services tell others of leases: what became of addresses since they were last told, and how far they are given out.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use packet::Mac;

use super::network::NetworkServices;
use super::{Lease, Output, Usage};
use api::{BridgeName, LeaseState, PoolInfo, PortName};

/// What became of an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseNews {
    /// The bridge.
    pub bridge: BridgeName,
    /// The address.
    pub address: IpAddr,
    /// The client's Ethernet address.
    pub mac: Mac,
    /// Where it was seen.
    pub port: PortName,
    /// What the address is to it now.
    pub state: LeaseState,
}

/// What was told.
#[derive(Debug, Default)]
pub(super) struct Told {
    leases: BTreeMap<(BridgeName, IpAddr), (Mac, LeaseState)>,
    usage: BTreeMap<BridgeName, Vec<Usage>>,
    /// Whether leases may have changed since.
    outdated: bool,
}

impl Told {
    /// Takes note that leases have changed.
    pub(super) fn outdate(&mut self) {
        self.outdated = true;
    }

    /// What is different from what was told. A bridge's leases of an earlier process are no news: `begin` takes them.
    pub(super) fn leases(&mut self, networks: &BTreeMap<BridgeName, NetworkServices>) -> Option<Output> {
        if !std::mem::take(&mut self.outdated) {
            return None;
        }
        let (mut known, mut news) = (BTreeMap::new(), Vec::new());
        for (bridge, lease) in networks.iter().flat_map(|(bridge, network)| network.leases().map(move |lease| (bridge, lease)))
        {
            let (key, now) = (key(bridge, lease), (lease.mac, lease.state));
            if lease.state != LeaseState::Offered && self.leases.get(&key) != Some(&now) {
                let (mac, port, state) = (lease.mac, lease.port.clone(), lease.state);
                news.push(LeaseNews { bridge: bridge.clone(), address: lease.address, mac, port, state });
            }
            known.insert(key, now);
        }
        self.leases = known;
        (!news.is_empty()).then_some(Output::Leases(news))
    }

    /// Takes the leases that a bridge has from the start.
    pub(super) fn begin(&mut self, bridge: &BridgeName, network: &NetworkServices) {
        self.leases.extend(network.leases().map(|lease| (key(bridge, lease), (lease.mac, lease.state))));
    }

    /// How far addresses are given out, if that has changed.
    pub(super) fn usage(&mut self, now: Duration, networks: &BTreeMap<BridgeName, NetworkServices>) -> Option<Output> {
        let usage: BTreeMap<_, Vec<Usage>> =
            networks.iter().map(|(bridge, network)| (bridge.clone(), network.pools(now).collect())).collect();
        if usage == self.usage {
            return None;
        }
        self.usage.clone_from(&usage);
        Some(Output::Usage(usage))
    }
}

fn key(bridge: &BridgeName, lease: &Lease) -> (BridgeName, IpAddr) {
    (bridge.clone(), lease.address)
}

impl From<Usage> for PoolInfo {
    fn from(usage: Usage) -> Self {
        Self {
            subnet: usage.subnet,
            size: usage.size,
            used: usage.used,
            exhausted: usage.shortages.exhausted,
            refused: usage.shortages.refused,
        }
    }
}
