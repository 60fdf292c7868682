//! The device of a port: made, found again, changed in place, let go of and removed.

use std::os::fd::AsFd;

use ipnet::IpNet;

use super::error::{AttachError, Doing, NET_ADMIN};
use super::netns::{self, Namespace};
use super::station::{self, StationSetup};
use super::watch::{End, NamespaceNumber, News};
use super::{Attachment, Plan, claim, link, tap, veth};
use crate::broker::Descriptor;
use api::{Netns, PortKind, PortSpec};

/// Makes or finds the port's device and opens it.
///
/// # Errors
/// One sentence for the user. Nothing that this call made is left behind then.
pub(super) fn attach(plan: &Plan) -> Result<Attachment, AttachError> {
    let netns = plan.spec.netns.as_ref();
    let namespace = match plan.spec.kind {
        PortKind::Link => Namespace::open(netns)?,
        PortKind::Tap | PortKind::Veth if plan.spec.is_handed_over() => claim::home(&plan.spec)?,
        PortKind::Tap | PortKind::Veth => Namespace::open_or_make(netns, &plan.netns_mark)?,
    };
    let namespace = namespace.numbered();
    let attached = match plan.spec.kind {
        PortKind::Tap => tap::attach(plan, &namespace),
        PortKind::Veth => veth::attach(plan, &namespace),
        PortKind::Link => link::attach(plan, &namespace),
    };
    match (&attached, netns) {
        (Ok(_), _) => attached.map(|attachment| Attachment {
            made_netns: namespace.made,
            namespace: namespace.identity().filter(|_| !plan.spec.is_handed_over()),
            ..attachment
        }),
        (Err(_), Some(Netns::Name(name))) if namespace.made => {
            // The error that counts is the first one.
            let _ = netns::remove_netns(name);
            attached
        }
        (Err(_), _) => attached,
    }
}

/// Whether a device that is handed over has come to its sandbox, and is still there. There it begins anew to keep its neighbours, and to send
/// without a queueing discipline.
///
/// # Errors
/// Mostly a missing `CAP_SYS_ADMIN`.
pub(super) fn has_arrived(spec: &PortSpec) -> Result<bool, AttachError> {
    let Some((sandbox, link)) = claim::sandbox(spec)? else { return Ok(false) };
    sandbox.run(|| {
        station::keep_neighbors(&link.name);
        Ok(())
    })?;
    let doing = || format!("set the queueing discipline of \"{}\" {}", link.name, sandbox.place);
    sandbox.with_netlink(|netlink| netlink.leave_unqueued(link.index).doing(NET_ADMIN, doing))?;
    Ok(true)
}

/// Every link in a namespace, and its number.
///
/// # Errors
/// The namespace is gone or cannot be entered.
pub(super) fn links_in(netns: &Option<Netns>) -> Result<(Option<NamespaceNumber>, Vec<News>), AttachError> {
    let namespace = Namespace::open(netns.as_ref())?.numbered();
    let doing = || format!("list interfaces {}", namespace.place);
    let links = namespace.with_netlink(|netlink| netlink.links().doing(NET_ADMIN, doing))?;
    Ok((namespace.number, links.iter().map(|link| News::of(link, namespace.number)).collect()))
}

/// The station's end of a device that is handed over, wherever it is now.
pub(super) fn moved_end(spec: &PortSpec) -> Option<End> {
    let home = claim::home(spec).ok()?.numbered();
    let link = home.with_netlink(|netlink| claim::find(netlink, spec, &home.place)).ok()??;
    Some(End::of(&link, &home))
}

/// Lets go of the device of a port whose namespace has lost its name, so that it cannot be found any more. The namespace may still be there,
/// held by programs in it or by what the switch has open. `queue` is one of a TAP's, which goes with its last queue.
///
/// # Errors
/// Mostly a missing `CAP_NET_ADMIN`.
pub(super) fn abandon(spec: &PortSpec, queue: &Option<Descriptor>) -> Result<(), AttachError> {
    match (spec.kind, queue) {
        (PortKind::Tap, Some(queue)) => {
            let doing = || format!("let go of TAP \"{}\" in a namespace that is gone", spec.ifname);
            sys::tun::set_persistent(queue.0.as_fd(), false).doing(NET_ADMIN, doing)
        }
        (PortKind::Veth, _) => veth::delete_switch_end(spec),
        (PortKind::Tap | PortKind::Link, _) => Ok(()),
    }
}

/// Gives the device of a port's station its name and MAC address again, and the addresses and default routes that it has lost, as a device does
/// when it is set down. On a device that is down, nothing is done.
///
/// # Errors
/// What the kernel said.
pub(super) fn restore(spec: &PortSpec, gateways: &[IpNet]) -> Result<(), AttachError> {
    if spec.kind == PortKind::Link || spec.is_handed_over() {
        return Ok(());
    }
    let namespace = claim::home(spec)?;
    let place = &namespace.place;
    namespace.with_netlink(|netlink| match claim::find(netlink, spec, place)? {
        Some(link) if link.up => {
            let wanted = StationSetup::wanted(spec, 0, gateways);
            let ifname = Some(spec.ifname.as_str()).filter(|_| !claim::is_foreign(spec));
            station::StationChange { netlink, place, link: &link, known: &spec.addresses }.restore(&wanted, ifname)
        }
        _ => Ok(()),
    })
}

/// Removes the device that was made for the port. A device or namespace that is gone is fine, and a link is left alone.
/// Queues that are still open read as gone afterwards.
///
/// # Errors
/// Mostly a missing `CAP_NET_ADMIN`.
pub(super) fn detach(spec: &PortSpec) -> Result<(), AttachError> {
    match spec.kind {
        PortKind::Tap => claim::delete(spec),
        PortKind::Veth => veth::delete_switch_end(spec).and_then(|()| claim::delete(spec)),
        PortKind::Link => Ok(()),
    }
}

/// Changes the MAC address, MTU, addresses and default routes of a port's device while frames go on. Whatever else differs
/// between `old` and `new` and is no matter of the kernel is left to the caller.
///
/// # Errors
/// [`AttachError::NotInPlace`] for what takes another device; else what the kernel said, with everything back as it was.
pub(super) fn reconfigure(old: &PortSpec, new: &PortSpec, mtu: &u16, gateways: &[IpNet]) -> Result<(), AttachError> {
    let mtu = *mtu;
    if let Some(what) = needs_another_device(old, new) {
        return Err(AttachError::NotInPlace(old.name.clone(), what.to_owned()));
    }
    match new.kind {
        PortKind::Link => Ok(()),
        PortKind::Tap => change_station(old, new, mtu, gateways),
        PortKind::Veth => {
            let before = veth::set_switch_mtu(old, veth::switch_mtu(mtu))?;
            change_station(old, new, mtu, gateways).inspect_err(|_| {
                // The error that counts is the first one.
                let _ = veth::set_switch_mtu(old, before);
            })
        }
    }
}

fn change_station(old: &PortSpec, new: &PortSpec, mtu: u16, gateways: &[IpNet]) -> Result<(), AttachError> {
    let namespace = claim::home(old)?;
    let place = &namespace.place;
    namespace.with_netlink(|netlink| {
        let link = claim::find(netlink, old, place)?
            .ok_or_else(|| AttachError::NoInterface { ifname: old.ifname.to_string(), place: place.clone() })?;
        let wanted = StationSetup::wanted(new, mtu, gateways);
        station::StationChange { netlink, place, link: &link, known: &old.addresses }.make_or_undo(&wanted)
    })
}

/// What about a port's device is not as it was made, if anything is.
///
/// # Errors
/// Mostly a missing `CAP_SYS_ADMIN`.
pub(super) fn difference(spec: &PortSpec, gateways: &[IpNet]) -> Result<Option<String>, AttachError> {
    let namespace = claim::home(spec)?;
    let place = &namespace.place;
    namespace.with_netlink(|netlink| match claim::find(netlink, spec, place)? {
        Some(link) => {
            let wanted = StationSetup::wanted(spec, 0, gateways);
            station::StationChange { netlink, place, link: &link, known: &spec.addresses }.lacks(&wanted)
        }
        None => Ok(Some("it is gone".to_owned())),
    })
}

fn needs_another_device(old: &PortSpec, new: &PortSpec) -> Option<&'static str> {
    let differences = [
        (old.name != new.name, "name"),
        (old.kind != new.kind, "kind"),
        (old.netns != new.netns, "namespace"),
        (old.ifname != new.ifname, "interface name"),
        (old.offload != new.offload, "offload"),
    ];
    differences.into_iter().find_map(|(differs, what)| differs.then_some(what))
}
