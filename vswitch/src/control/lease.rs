//! Addresses that uplinks get by DHCP, which must not be in a subnet of a bridge or of another uplink.

use std::net::IpAddr;

use ipnet::IpNet;

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
                match self.owner_of(net, &name) {
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

    /// Who has a subnet that overlaps `net`, other than the uplink `name`.
    fn owner_of(&self, net: IpNet, name: &PortName) -> Option<(String, IpNet)> {
        let bridges = self.inventory.bridges.values();
        let bridges = bridges.map(|bridge| (format!("bridge \"{}\"", bridge.spec.name), bridge.spec.addresses.clone()));
        let uplinks = self.inventory.all::<Uplink>().filter(|uplink| uplink.spec.name != *name);
        let uplinks = uplinks.map(|uplink| (format!("uplink \"{}\"", uplink.spec.name), uplink.addresses()));
        bridges.chain(uplinks).find_map(|(owner, nets)| Some((owner, *nets.iter().find(|own| overlap(own, &net))?)))
    }

    /// Whether subnets are apart from those that DHCP gave to uplinks, which no specification tells; `name` is their own.
    pub(super) fn check_leases(&self, name: &str, who: &str, nets: &[IpNet]) -> Result<(), ControlError> {
        for uplink in
            self.inventory.all::<Uplink>().filter(|uplink| uplink.lease.is_some() && uplink.spec.name.as_str() != name)
        {
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
