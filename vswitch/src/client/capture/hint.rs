//! What a filter cannot match: tcpdump's `arp` and the like look where an untagged frame has it, and a trunk has tagged frames.

use crate::client::connection::Control;
use api::{CaptureRequest, PortInfo, Reply, Request};

/// Words of filters that say something about tags, see behind them, or do not look.
const FITTING: [&str; 7] = ["vlan", "ether", "len", "less", "greater", "inner", "vni"];

/// Says so on stderr where a filter cannot match the tagged frames of a trunk that is captured.
pub(super) async fn hint(control: &Control, request: &CaptureRequest, filter: &str) {
    if !is_blind(filter) || !request.containers.is_empty() && request.ports.is_empty() {
        return;
    }
    let Ok(Reply::Ports(ports)) = control.ask(&Request::ListPorts(None)).await else { return };
    let wanted = |port: &&PortInfo| request.ports.is_empty() || request.ports.contains(&port.name);
    if let Some(port) = ports.iter().filter(wanted).find(|port| port.vlans.trunk.is_some()) {
        eprintln!(
            "port {} is a trunk, whose tagged frames \"{filter}\" does not match: '({filter}) or (vlan and ({filter}))' does",
            port.name
        );
    }
}

/// Whether a filter looks for something behind the addresses, and not behind tags.
fn is_blind(filter: &str) -> bool {
    let mut words = filter.split(|c: char| !c.is_ascii_alphanumeric());
    !filter.trim().is_empty() && !words.any(|word| FITTING.contains(&word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_looks_behind_the_addresses_sees_no_tagged_frames() {
        assert!(["arp", "tcp port 80", "not (icmp)"].into_iter().all(is_blind));
        assert!(
            !["", " ", "vlan and arp", "arp or (vlan 10 and arp)", "ether src 02:00:00:00:00:01", "vni 42", "inner(arp)"]
                .into_iter()
                .any(is_blind)
        );
    }
}
