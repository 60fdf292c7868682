//! Interfaces that exist already and that the switch did not make: ports of kind link.

use super::error::{Doing, NET_ADMIN};
use super::netlink::{KernelLink, Netlink};
use super::netns::Namespace;
use super::{AttachError, Attachment, End, Place, Plan, netlink, sockets};

pub(super) fn attach(plan: &Plan, namespace: &Namespace) -> Result<Attachment, AttachError> {
    let (spec, place) = (&plan.spec, &namespace.place);
    let ifname = spec.ifname.as_str();
    namespace.with_netlink(|netlink| {
        let link = look_up(netlink, ifname, place)?;
        let opened = || sockets::open((ifname, link.index), plan, place);
        let (queues, features) = while_up(netlink, &link, place, opened)?;
        // It may have been down before.
        let link = look_up(netlink, ifname, place)?;
        let ends = vec![End::of(&link, namespace)];
        let (ifname, ifindex, mac) = (link.name, link.index, link.mac);
        Ok(Attachment { queues, ifname, ifindex, mac, features, made_netns: false, reopened: false, ends, namespace: None })
    })
}

/// The interface, if it is one that carries Ethernet frames.
pub(super) fn look_up(netlink: &Netlink, ifname: &str, place: &Place) -> Result<KernelLink, AttachError> {
    let named = || (ifname.to_owned(), place.clone());
    let link = netlink.link(ifname).doing(NET_ADMIN, || format!("look up interface \"{ifname}\" {place}"))?;
    let link = link.ok_or_else(|| {
        let (ifname, place) = named();
        AttachError::NoInterface { ifname, place }
    })?;
    let (ifname, place) = named();
    if link.loopback {
        return Err(AttachError::Loopback { ifname, place });
    }
    if !link.ethernet {
        return Err(AttachError::NotEthernet { ifname, place });
    }
    Ok(link)
}

/// Sets the interface up and opens sockets on it; if that fails, the interface is as it was. On one that is down, sockets cannot
/// form a group.
pub(super) fn while_up<T>(
    netlink: &Netlink,
    link: &KernelLink,
    place: &Place,
    open: impl FnOnce() -> Result<T, AttachError>,
) -> Result<T, AttachError> {
    if !link.up {
        netlink.change(netlink::up(link.index)).doing(NET_ADMIN, || format!("set \"{}\" {place} up", link.name))?;
    }
    open().inspect_err(|_| {
        if !link.up {
            // The error that counts is the first one.
            let _ = netlink.change(netlink::change(link.index).down().build());
        }
    })
}
