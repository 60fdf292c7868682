//! Interfaces that exist already and belong to somebody else.

use super::error::{Doing, NET_ADMIN};
use super::netns::Namespace;
use super::{AttachError, Attachment, Plan, netlink, sockets};

pub(super) fn attach(plan: &Plan<'_>, namespace: &Namespace) -> Result<Attachment, AttachError> {
    let (spec, place) = (plan.spec, &namespace.place);
    let ifname = spec.ifname.as_str();
    namespace.with_netlink(|netlink| {
        let named = || (ifname.to_owned(), place.clone());
        let link = netlink.link(ifname).doing(NET_ADMIN, || format!("look up interface \"{ifname}\" {place}"))?;
        let link = link.ok_or_else(|| {
            let (ifname, place) = named();
            AttachError::NoInterface { ifname, place }
        })?;
        if link.loopback {
            let (ifname, place) = named();
            return Err(AttachError::Loopback { ifname, place });
        }
        if !link.ethernet {
            let (ifname, place) = named();
            return Err(AttachError::NotEthernet { ifname, place });
        }
        // Before the sockets: on an interface that is down they cannot form a group.
        if !link.up {
            netlink.change(netlink::up(link.index)).doing(NET_ADMIN, || format!("set \"{ifname}\" {place} up"))?;
        }
        let opened = sockets::open((ifname, link.index), plan.queues, spec.offload, place);
        let (devices, features) = opened.inspect_err(|_| {
            if !link.up {
                // The error that counts is the first one.
                let _ = netlink.change(netlink::change(link.index).down().build());
            }
        })?;
        let (ifname, ifindex, mac) = (link.name, link.index, link.mac);
        Ok(Attachment { devices, ifname, ifindex, mac, features, made_netns: false, reopened: false })
    })
}
