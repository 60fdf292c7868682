//! Addresses that uplinks get by DHCP, which must not be in a subnet of a bridge or of another uplink.

use std::net::IpAddr;

use ipnet::IpNet;

use super::inventory::Inventory;
use super::services::LeaseChange as Lease;
use super::{ControlError, Switch, Uplink};
use crate::services::client::Event;
use api::{NetworkError, PortName};

impl Switch {
    /// Takes note of what DHCP said about the address of an uplink.
    pub(super) fn change_lease(&mut self, (name, event): Lease) {
        // What a client said that has ended meanwhile counts no more.
        if !self.inventory.find::<Uplink>(&name).is_some_and(|uplink| uplink.spec.is_by_dhcp()) {
            return;
        }
        let lease = match event {
            Event::Bound(terms) => {
                let net = IpNet::V4(terms.address);
                let gateways = terms.routers.first().copied().map(IpAddr::V4).into_iter().collect();
                tracing::info!(uplink = %name, "DHCP gave {net}");
                self.note_uplink_lease(&name, Some(net.addr()), format!("DHCP gave {net}"));
                match self.inventory.owner_of(net, &name) {
                    None => Some((vec![net], gateways)),
                    Some((owner, _)) => {
                        tracing::error!(uplink = %name, "its address by DHCP is in a subnet of {owner}: give that another");
                        None
                    }
                }
            }
            Event::Conflict(address, mac) => {
                tracing::warn!(uplink = %name, "DHCP gave {address}, which {mac} has: another is asked for");
                None
            }
            Event::Lost | Event::Unanswered | Event::Unfinished | Event::Free => {
                tracing::warn!(uplink = %name, "its DHCP lease is over: it has no address now");
                self.note_uplink_lease(&name, None, "its DHCP lease is over: it has no address now");
                None
            }
        };
        if let Some(uplink) = self.inventory.find_mut::<Uplink>(&name) {
            uplink.lease = lease;
        }
        if let Err(error) = self.refresh_uplink(&name) {
            tracing::error!(uplink = %name, "{error}");
        }
    }
}

impl Inventory {
    /// Who has a subnet that overlaps `net`, other than the uplink `name`.
    fn owner_of(&self, net: IpNet, name: &PortName) -> Option<(String, IpNet)> {
        let bridges = self.bridges.values();
        let bridges = bridges.map(|bridge| (format!("bridge \"{}\"", bridge.spec.name), bridge.spec.addresses.clone()));
        let uplinks = self.all::<Uplink>().filter(|uplink| uplink.spec.name != *name);
        let uplinks = uplinks.map(|uplink| (format!("uplink \"{}\"", uplink.spec.name), uplink.addresses()));
        bridges.chain(uplinks).find_map(|(owner, nets)| Some((owner, *nets.iter().find(|own| overlap(own, &net))?)))
    }

    /// Whether subnets are apart from those that DHCP gave to uplinks, which no specification tells; `name` is their own.
    pub(super) fn check_leases(&self, name: &str, who: &str, nets: &[IpNet]) -> Result<(), ControlError> {
        for uplink in self.all::<Uplink>().filter(|uplink| uplink.lease.is_some() && uplink.spec.name.as_str() != name) {
            let leased = uplink.addresses();
            let both = nets.iter().flat_map(|net| leased.iter().map(move |other| (*net, *other)));
            if let Some((net, other_net)) = both.into_iter().find(|(net, other)| overlap(net, other)) {
                let (who, other) = (who.to_owned(), format!("uplink \"{}\"", uplink.spec.name));
                return Err(NetworkError::Overlap { who, net, other, other_net }.into());
            }
        }
        Ok(())
    }
}

fn overlap(one: &IpNet, other: &IpNet) -> bool {
    one.contains(&other.network()) || other.contains(&one.network())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::Bridge;
    use api::Origin;
    use plane::datapath::BridgeId;

    #[test]
    fn an_address_in_a_subnet_of_a_bridge_is_whose_it_is() {
        let mut inventory = Inventory::default();
        let spec: api::BridgeSpec = toml::from_str("name = \"br0\"\naddresses = [\"10.0.0.1/24\", \"fd00::1/64\"]").unwrap();
        inventory.bridges.insert(spec.name.clone(), Bridge { id: BridgeId(0), spec, origin: Origin::File });
        let owner = |net: &str| inventory.owner_of(net.parse().unwrap(), &"wan".parse().unwrap());
        let br0 = Some(("bridge \"br0\"".to_owned(), "10.0.0.1/24".parse().unwrap()));
        // One of two subnets may be within the other.
        for net in ["10.0.0.7/24", "10.0.0.129/25", "10.0.9.1/16"] {
            assert_eq!(owner(net), br0, "{net}");
        }
        assert_eq!(owner("10.0.1.7/24"), None);
        assert_eq!(owner("fd00::7/64").map(|(owner, _)| owner), br0.map(|(owner, _)| owner));
    }
}
