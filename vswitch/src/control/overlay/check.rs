//! What the tables of the switch have otherwise than the cluster says.

use std::collections::BTreeMap;
use std::net::IpAddr;

use packet::Mac;

use super::{ControlError, Live, Switch};
use api::Finding;
use plane::datapath::{Fixed, Row};

impl Switch {
    /// What the tables of the switch have otherwise than the cluster says, and hosts that are not heard.
    pub(super) fn table_findings(&self) -> Result<Vec<Finding>, ControlError> {
        let mut findings = Vec::new();
        for bridge in self.inventory.bridges.values() {
            let Some((network, table)) =
                bridge.spec.overlay.as_ref().and_then(|network| Some((network, self.ledger.tables.networks.get(network)?)))
            else {
                continue;
            };
            let rows: BTreeMap<Mac, Row> = self.table(bridge)?.rows.into_iter().map(|row| (row.mac, row)).collect();
            let living = table.stations.iter().filter(|(_, station)| !self.ledger.dead.contains(&station.vtep));
            for (mac, station) in living {
                let row = rows.get(mac);
                let port = row.and_then(|row| self.inventory.name_of(row.place.port));
                let remote = row.zip(port).and_then(|(row, port)| self.inventory.remote(port, row.place.peer));
                let sentence = match (port, remote) {
                    (_, Some(remote)) if remote == station.vtep => continue,
                    (Some(port), None) => format!("is at port {port} here, and announced by {}", station.host),
                    (_, Some(remote)) => format!("is behind {remote} in the switch, and announced at {}", station.vtep),
                    (None, None) => "is announced, and the switch does not know it".to_owned(),
                };
                let (network, host) = (Some(network.to_string()), Some(station.host.clone()));
                findings.push(Finding { network, mac: Some(*mac), host, sentence });
            }
            let stale = rows.values().filter(|row| row.fixed == Fixed::Given && !table.stations.contains_key(&row.mac));
            findings.extend(stale.map(|row| Finding {
                network: Some(network.to_string()),
                mac: Some(row.mac),
                host: None,
                sentence: "is known to the switch, and no host announces it".to_owned(),
            }));
        // A host that lacks its own address hears no other, whatever those do.
        if self.ledger.tables.is_absent {
            return Ok(findings);
        }
        }
        findings.extend(self.ledger.dead.iter().map(|vtep| Finding {
            network: None,
            mac: None,
            host: self.ledger.tables.host_at(*vtep).map(str::to_owned),
            sentence: "does not answer any more: its stations are left out until it does".to_owned(),
        }));
        for (tunnel, live) in self.overlay_tunnels() {
            let quiet = live.remotes().into_iter().filter(|peer| peer.named && !["up", "never heard"].contains(&&*peer.state));
            findings.extend(quiet.map(|peer| Finding {
                network: None,
                mac: None,
                host: self.ledger.tables.host_at(peer.address).map(str::to_owned),
                sentence: format!(
                    "is {} as a peer of vxlan \"{}\" at {}{}",
                    peer.state,
                    tunnel.spec.name,
                    peer.address,
                    unmet(live, peer.address)
                ),
            }));
        }
        Ok(findings)
    }
}

/// What there is to add about a peer with which there is no session of WireGuard's.
fn unmet(live: &Live, peer: IpAddr) -> String {
    let unmet = live.wireguard.as_ref().filter(|wireguard| wireguard.since_handshake(peer).is_none());
    unmet.map_or_else(String::new, |wireguard| {
        format!(
            ", and answers no handshake of WireGuard's: does UDP port {} reach it, and is its key the store's?",
            wireguard.local().port()
        )
    })
}
