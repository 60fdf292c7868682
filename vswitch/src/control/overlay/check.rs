//! What the tables of the switch have otherwise than the cluster says.

use std::collections::BTreeMap;

use packet::Mac;

use super::{ControlError, Live, Switch};
use api::{Finding, PeerInfo, PortName};
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
        }
        // A host that lacks its own address hears no other, whatever those do.
        if self.ledger.tables.is_absent {
            return Ok(findings);
        }
        findings.extend(self.ledger.dead.iter().map(|vtep| Finding {
            network: None,
            mac: None,
            host: self.ledger.tables.host_at(*vtep).map(str::to_owned),
            sentence: "does not answer any more: its stations are left out until it does".to_owned(),
        }));
        for (tunnel, live) in self.overlay_tunnels() {
            let quiet = live.remotes().into_iter().filter(|peer| peer.named && !["up", "never heard"].contains(&&*peer.state));
            findings.extend(quiet.map(|peer| {
                let host = self.ledger.tables.host_at(peer.address).map(str::to_owned);
                let mut sentence = unheard(&peer, &tunnel.spec.name, host.is_some());
                sentence.push_str(&unmet(live, &peer));
                Finding { network: None, mac: None, host, sentence }
            }));
        }
        Ok(findings)
    }
}

/// How it stands with a peer that is not up. The host, if it is known, stands before it.
fn unheard(peer: &PeerInfo, tunnel: &PortName, is_known: bool) -> String {
    let PeerInfo { address, state, .. } = peer;
    let subject = if is_known { String::new() } else { format!("{address}: ") };
    let at = if is_known { format!(" at {address}") } else { String::new() };
    if state == SILENT {
        return format!("{subject}is not heard any more{at} by vxlan \"{tunnel}\"");
    }
    format!("{subject}is not reached{at} by vxlan \"{tunnel}\" ({state})")
}

/// What there is to add about a peer with which there is no session of WireGuard's, if what is sent there does not come back.
fn unmet(live: &Live, peer: &PeerInfo) -> String {
    let is_silent = peer.state == SILENT;
    let unmet = live.wireguard.as_ref().filter(|wireguard| is_silent && wireguard.since_handshake(peer.address).is_none());
    unmet.map_or_else(String::new, |wireguard| {
        format!(
            ", and answers no handshake of WireGuard's: does UDP port {} reach it, and is its key the store's?",
            wireguard.local().port()
        )
    })
}

/// How the state of a peer is called that was heard, and is not any more.
const SILENT: &str = "silent";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentence_about_a_peer_has_a_subject() {
        let peer = |state: &str| PeerInfo {
            address: [192, 0, 2, 1].into(),
            named: true,
            state: state.to_owned(),
            heard_seconds: None,
            rx_frames: 0,
            tx_frames: 0,
            last_error: None,
        };
        let tunnel: PortName = "ov-br0".parse().unwrap();
        let sentence = |state, is_known| unheard(&peer(state), &tunnel, is_known);
        let why = "network is unreachable";
        assert_eq!(sentence(why, true), "is not reached at 192.0.2.1 by vxlan \"ov-br0\" (network is unreachable)");
        assert_eq!(sentence(why, false), "192.0.2.1: is not reached by vxlan \"ov-br0\" (network is unreachable)");
        assert_eq!(sentence("silent", true), "is not heard any more at 192.0.2.1 by vxlan \"ov-br0\"");
    }
}
