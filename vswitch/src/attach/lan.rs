//! The host's own part in a LAN on which it has containers.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::AttachError;
use super::error::{Doing, NET_ADMIN};
use super::netns::Namespace;
use api::PortName;

/// The addresses of vswitchd's own namespace but for loopback and link-local ones, and those of the devices of the ports `except`.
///
/// # Errors
/// The kernel does not list its links or addresses.
pub fn host_addresses(except: &BTreeSet<PortName>) -> Result<Vec<IpAddr>, AttachError> {
    Namespace::own().with_netlink(|netlink| {
        let links = netlink.links().doing(NET_ADMIN, || "list the network interfaces".to_owned())?;
        let is_ours = |name: &str| except.iter().any(|port| port.as_str() == name);
        let others = links.iter().filter(|link| !link.loopback && !is_ours(&link.name));
        let others: BTreeSet<u32> = others.map(|link| link.index).collect();
        let addresses = netlink.all_addresses().doing(NET_ADMIN, || "list the host's addresses".to_owned())?;
        Ok(addresses.into_iter().filter(|(index, _)| others.contains(index)).map(|(_, net)| net.addr()).collect())
    })
}

/// Sets the routes to single addresses by an interface of vswitchd's own namespace: these and no others.
///
/// # Errors
/// What the kernel says; some may be set then.
pub(super) fn set_host_routes(ifname: &str, wanted: &BTreeSet<IpAddr>) -> Result<(), AttachError> {
    let own = Namespace::own();
    own.with_netlink(|netlink| {
        let link = netlink.link(ifname).doing(NET_ADMIN, || format!("look up interface \"{ifname}\""))?;
        let link = link.ok_or_else(|| AttachError::NoInterface { ifname: ifname.to_owned(), place: own.place.clone() })?;
        let now = netlink.host_routes(link.index).doing(NET_ADMIN, || "list the routes".to_owned())?;
        for address in now.difference(wanted) {
            let done = netlink.delete_host_route(link.index, *address);
            done.doing(NET_ADMIN, || format!("remove the route to {address} by \"{ifname}\""))?;
        }
        for address in wanted.difference(&now) {
            let done = netlink.add_host_route(link.index, *address);
            done.doing(NET_ADMIN, || format!("set the route to {address} by \"{ifname}\""))?;
        }
        Ok(())
    })
}
