//! IP addresses that two have: shown and logged, with both of them; those of an uplink are refused.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use ipnet::IpNet;

use super::{ControlError, Switch};
use crate::attach;
use api::{
    AddressConflictInfo, AddressConflictsInfo, AddressHolderInfo, BridgeName, EventFacts, EventKind, PortName, UplinkSpec,
};
use plane::datapath::{AddressConflict, AddressConflicts, Holder, PortId};

/// The shortest time between two lines of the log about one bridge, and between two about the same conflict.
const PAUSE: Duration = Duration::from_secs(10);
const REMINDER: Duration = Duration::from_secs(60);

/// The conflicts of one bridge as they were last looked at.
#[derive(Debug, Default)]
pub(super) struct SeenConflicts {
    conflicts: AddressConflicts,
    /// When the last one was noticed.
    noticed: Option<Instant>,
    /// What the log said last, and when.
    told: Option<(AddressConflict, Instant)>,
}

impl SeenConflicts {
    /// Takes note of how it is now, and returns what the log should say.
    pub(super) fn look(&mut self, conflicts: AddressConflicts, now: Instant) -> Option<AddressConflict> {
        let known = std::mem::replace(&mut self.conflicts, conflicts);
        if known.count == conflicts.count {
            return None;
        }
        self.noticed = Some(now);
        let last = conflicts.last?;
        if let Some((told, at)) = self.told {
            let pause = if is_same(&told, &last) { REMINDER } else { PAUSE };
            if now.saturating_duration_since(at) < pause {
                return None;
            }
        }
        self.told = Some((last, now));
        Some(last)
    }
}

/// Whether the same two have the same address, in whatever order they spoke.
fn is_same(one: &AddressConflict, other: &AddressConflict) -> bool {
    let place = |conflict: &AddressConflict| (conflict.vlan, conflict.address);
    let turned = matches!(one.holder, Holder::Station(holder) if holder == other.claimant)
        && matches!(other.holder, Holder::Station(holder) if holder == one.claimant);
    one == other || place(one) == place(other) && turned
}

impl Switch {
    /// Refuses addresses of an uplink that are in a range for leases, or that the host itself has: it answers ARP for them on each of its interfaces.
    pub(super) fn check_addresses_of(&self, uplink: &UplinkSpec) -> Result<(), ControlError> {
        let (name, addresses) = (&uplink.name, uplink.addresses());
        self.inventory.check_leases(name.as_str(), &format!("uplink \"{name}\""), addresses)?;
        if addresses.is_empty() {
            return Ok(());
        }
        // Where the kernel does not list them, the uplink is not done without.
        let own = attach::host_addresses(&BTreeSet::new()).unwrap_or_default();
        let both = addresses.iter().map(IpNet::addr).find(|address| own.contains(address));
        both.map_or(Ok(()), |address| Err(ControlError::AddressOfHost(name.clone(), address)))
    }

    pub(super) fn tell_of_conflict(&mut self, bridge: &BridgeName, conflict: &AddressConflict) {
        let name = |id: PortId| self.inventory.name_of(id).map_or("?", PortName::as_str);
        let AddressConflict { address, holder, claimant, .. } = conflict;
        let (mac, port) = (claimant.mac, name(claimant.port));
        let summary = match holder {
            Holder::Gateway => {
                format!("{address} is the gateway's, and {mac} at {port} claims it too: give that station another")
            }
            Holder::Port(owner) => format!(
                "{address} is that of {} by the configuration, and {mac} at {port} claims it too: give that station another",
                name(*owner)
            ),
            Holder::Station(holder) => format!(
                "{address} is claimed by {} at {} and by {mac} at {port} in turn: have two stations one address?",
                holder.mac,
                name(holder.port)
            ),
        };
        tracing::warn!(%bridge, "{summary}");
        let (bridge, port) = (Some(bridge.clone()), port.parse().ok());
        let (vlan, mac, address) = (Some(conflict.vlan), Some(mac), Some(*address));
        let facts = EventFacts { bridge, port, vlan, mac, address, ..EventFacts::new(summary) };
        self.views.events.record(EventKind::AddressConflict, facts);
    }

    pub(super) fn address_conflicts_info(&self, bridge: &BridgeName) -> AddressConflictsInfo {
        let Some(seen) = self.symptoms.address_conflicts.get(bridge) else { return AddressConflictsInfo::default() };
        let name = |id: PortId| self.inventory.name_of(id).cloned();
        let last = seen.conflicts.last.map(|AddressConflict { vlan, address, holder, claimant }| AddressConflictInfo {
            address,
            vlan,
            holder: match holder {
                Holder::Gateway => AddressHolderInfo { mac: Some(self.gateway_mac(bridge)), port: None },
                Holder::Port(id) => AddressHolderInfo { mac: None, port: name(id) },
                Holder::Station(holder) => AddressHolderInfo { mac: Some(holder.mac), port: name(holder.port) },
            },
            claimant: AddressHolderInfo { mac: Some(claimant.mac), port: name(claimant.port) },
            seconds_ago: seen.noticed.map_or(0, |at| at.elapsed().as_secs()),
        });
        AddressConflictsInfo { count: seen.conflicts.count, last }
    }
}

#[cfg(test)]
mod tests {
    use packet::{Mac, VlanId};

    use super::*;
    use plane::datapath::Speaker;

    #[test]
    fn the_log_has_a_line_for_a_conflict_and_is_reminded_once_a_minute() {
        let start = Instant::now();
        let station = |number: u8| Speaker { mac: Mac([2, 0, 0, 0, 0, number]), port: PortId(number.into()) };
        let conflict = |one, other, last| AddressConflict {
            vlan: VlanId::DEFAULT,
            address: std::net::Ipv4Addr::new(10, 0, 0, last).into(),
            holder: Holder::Station(station(one)),
            claimant: station(other),
        };
        let mut seen = SeenConflicts::default();
        let mut lines = Vec::new();
        for second in 0..180 {
            // They speak in turn; from the second minute on there is another conflict beside it.
            let last = match second {
                100.. if second % 2 == 0 => conflict(1, 3, 9),
                _ if second % 2 == 0 => conflict(1, 2, 5),
                _ => conflict(2, 1, 5),
            };
            let conflicts = AddressConflicts { count: 10 * (second + 1), last: Some(last) };
            lines.extend(seen.look(conflicts, start + Duration::from_secs(second)).map(|_| second));
            assert_eq!(seen.look(conflicts, start + Duration::from_secs(second)), None, "nothing new");
        }
        assert_eq!(lines.len(), 2 + 8, "{lines:?}");
    }
}
