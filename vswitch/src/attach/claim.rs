//! Which devices are the switch's: the alias by which it knows its own.

use std::io;
use std::time::Duration;

use netlink_packet_route::link::InfoKind;

use super::error::{AttachError, Doing, NET_ADMIN, Place};
use super::netlink::{self, KernelLink, Netlink};
use super::netns::Namespace;
use api::{Netns, PortName, PortSpec};

/// How often and how long a TAP in use is waited for: a killed vswitchd closes its queues a little later.
const PATIENCE: (u32, Duration) = (20, Duration::from_millis(25));

/// The alias of a device that was made for a port (`ip link` shows it). It survives renaming and moving.
pub(super) fn mark(port: &PortName) -> String {
    format!("vswitch port {port}")
}

/// The port that an alias of [`mark`] is of.
pub(super) fn marked_port(alias: &str) -> Option<PortName> {
    alias.strip_prefix("vswitch port ")?.parse().ok()
}

/// The device of a port in its namespace, by name and mark, or else by its mark alone: a container's runtime renames it, and so may anybody.
pub(super) fn find(netlink: &Netlink, spec: &PortSpec, place: &Place) -> Result<Option<KernelLink>, AttachError> {
    let mut ours = marked(netlink, spec, place)?;
    if ours.is_empty() && spec.netns.is_none() {
        ours = with_mark(netlink.links(), spec, place)?;
    }
    let named = ours.iter().find(|link| link.name == spec.ifname.as_str());
    Ok(named.or(ours.first()).cloned())
}

/// The namespace that a port's device is in, or is to be made in. A device that is handed over is made in the namespace of
/// vswitchd. A container's runtime may have taken it to its sandbox since, or brought it back, or may be moving it just now: so a device that is
/// found in neither place is looked for in the sandbox once more.
pub(super) fn home(spec: &PortSpec) -> Result<Namespace, AttachError> {
    if !spec.is_handed_over() {
        return Namespace::open(spec.netns.as_ref());
    }
    if let Some((sandbox, _)) = sandbox(spec)? {
        return Ok(sandbox);
    }
    let own = Namespace::own();
    if own.with_netlink(|netlink| find(netlink, spec, &own.place))?.is_some() {
        return Ok(own);
    }
    sandbox(spec).map(|found| found.map_or(own, |(sandbox, _)| sandbox))
}

/// The namespace to which a device was to be brought, and the device, if it is there.
pub(super) fn sandbox(spec: &PortSpec) -> Result<Option<(Namespace, KernelLink)>, AttachError> {
    let found = Namespace::open(spec.netns.as_ref()).and_then(|sandbox| {
        let link = sandbox.with_netlink(|netlink| find(netlink, spec, &sandbox.place))?;
        Ok(link.map(|link| (sandbox, link)))
    });
    match found {
        // An empty file is left where a namespace was mounted.
        Err(AttachError::NoNetns { .. } | AttachError::NotNetns(_)) => Ok(None),
        found => found,
    }
}

/// What is left of an earlier vswitchd for this port, to be used again. Leftovers of another kind are removed, and in a
/// station's namespace those of another name. The TAP that is called `held` is open, in this vswitchd.
pub(super) fn claim(
    netlink: &Netlink,
    spec: &PortSpec,
    kind: &InfoKind,
    held: Option<&str>,
    place: &Place,
) -> Result<Option<KernelLink>, AttachError> {
    let (turns, pause) = PATIENCE;
    for _ in 1..turns {
        match claim_now(netlink, spec, kind, held, place) {
            Err(AttachError::InUse { .. }) => std::thread::sleep(pause),
            result => return result,
        }
    }
    claim_now(netlink, spec, kind, held, place)
}

fn claim_now(
    netlink: &Netlink,
    spec: &PortSpec,
    kind: &InfoKind,
    held: Option<&str>,
    place: &Place,
) -> Result<Option<KernelLink>, AttachError> {
    let ifname = spec.ifname.as_str();
    let link = netlink.link(ifname).doing(NET_ADMIN, || format!("look up interface \"{ifname}\" {place}"))?;
    if link.as_ref().is_some_and(|link| link.alias.as_deref() != Some(&mark(&spec.name))) {
        return Err(AttachError::Taken { ifname: ifname.to_owned(), place: place.clone() });
    }
    let (mut ours, mut held) = (marked(netlink, spec, place)?, held);
    if link.is_none()
        && !is_foreign(spec)
        && let Some(former) = call_again(netlink, spec, kind, held, &ours, place)?
    {
        held = held.map(|held| if held == former { ifname } else { held });
        ours = marked(netlink, spec, place)?;
    }
    let mut reusable = None;
    for link in ours {
        let right_name = link.name == ifname || is_foreign(spec);
        // A multi-queue TAP lets a second process attach queues of its own and then shares out the frames between both, so
        // nothing but its carrier tells that it is in use.
        let is_tap = link.kind == Some(InfoKind::Tun);
        if right_name && is_tap && link.carrier && held != Some(&link.name) {
            return Err(AttachError::InUse { ifname: link.name, place: place.clone() });
        }
        if right_name && link.kind.as_ref() == Some(kind) && reusable.is_none() {
            reusable = Some(link);
        } else if right_name || is_tap && !link.carrier {
            remove(netlink, &link, place)?;
        }
    }
    Ok(reusable)
}

/// Gives a device that was made for the port its name again, if it was called otherwise: one of those that are found by their mark, or that which is
/// held. Returns the name that it had instead.
fn call_again(
    netlink: &Netlink,
    spec: &PortSpec,
    kind: &InfoKind,
    held: Option<&str>,
    ours: &[KernelLink],
    place: &Place,
) -> Result<Option<String>, AttachError> {
    let open = match held {
        Some(held) if ours.is_empty() => with_mark(netlink.link(held).map(|link| link.into_iter().collect()), spec, place)?,
        _ => Vec::new(),
    };
    let is_free = |link: &KernelLink| *kind != InfoKind::Tun || !link.carrier || held == Some(&link.name);
    let found = ours.iter().chain(&open).find(|link| link.kind.as_ref() == Some(kind) && is_free(link));
    // Linux before 6.2 renames no device that is up. Then another one is made.
    let call = |link: &KernelLink| netlink.change(netlink::change(link.index).name(spec.ifname.as_str()).build());
    Ok(found.filter(|link| call(link).is_ok()).map(|link| link.name.clone()))
}

/// Removes the port's device where it should be, or where a container that ended has put it back. A container's runtime may be moving it
/// there or back meanwhile, so where there is one, it is looked for in both places until it is in neither.
pub(super) fn delete(spec: &PortSpec) -> Result<(), AttachError> {
    const ROUNDS: usize = 4;
    let delete_in = |namespace: &Namespace| {
        namespace.with_netlink(|netlink| match find(netlink, spec, &namespace.place)? {
            Some(link) => remove(netlink, &link, &namespace.place).map(|()| true),
            None => Ok(false),
        })
    };
    let delete_there = || match Namespace::open(spec.netns.as_ref()).and_then(|namespace| delete_in(&namespace)) {
        Err(AttachError::NoNetns { .. } | AttachError::NotNetns(_)) => Ok(false),
        result => result,
    };
    if !is_foreign(spec) {
        return delete_there().map(drop);
    }
    let own = Namespace::own();
    for round in 0..ROUNDS {
        let found = delete_there()? | delete_in(&own)?;
        // A device that was found in neither place the first time may have moved between the two looks.
        if !found && round > 0 {
            break;
        }
    }
    Ok(())
}

pub(super) fn remove(netlink: &Netlink, link: &KernelLink, place: &Place) -> Result<(), AttachError> {
    netlink.delete(link.index).doing(NET_ADMIN, || format!("delete interface \"{}\" {place}", link.name))
}

/// The devices that were made for a port. In a station's namespace there are few devices, and all are looked through. In vswitchd's own
/// there may be thousands, and no runtime renames those, so the kernel is asked for the one with the port's name: looking through all of
/// them for each port would make a start take time with the square of its ports.
fn marked(netlink: &Netlink, spec: &PortSpec, place: &Place) -> Result<Vec<KernelLink>, AttachError> {
    let found = match spec.netns {
        Some(_) => netlink.links(),
        None => netlink.link(spec.ifname.as_str()).map(|link| link.into_iter().collect()),
    };
    with_mark(found, spec, place)
}

/// Those of the links that are found which were made for a port.
fn with_mark(found: io::Result<Vec<KernelLink>>, spec: &PortSpec, place: &Place) -> Result<Vec<KernelLink>, AttachError> {
    let mut links = found.doing(NET_ADMIN, || format!("list interfaces {place}"))?;
    links.retain(|link| link.alias.as_deref() == Some(&mark(&spec.name)));
    Ok(links)
}

/// Whether another program, such as a container's runtime, rules in the port's namespace.
pub(super) fn is_foreign(spec: &PortSpec) -> bool {
    matches!(spec.netns, Some(Netns::Path(_) | Netns::Pid(_) | Netns::Sandbox(_)))
}
