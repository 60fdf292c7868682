//! The devices of ports: made, found again, changed in place and removed.
//!
//! Everything here may block and is called from ordinary threads; what comes out are open descriptors, wrapped as
//! [`Device`]s, that a worker reads and writes without ever opening anything.
//!
//! - A TAP is made inside the namespace of its station, persistent, so that it survives a crash of vswitchd with its
//!   addresses and routes. A veth pair survives by nature. Both carry an alias (`ip link` shows it), by which the next vswitchd
//!   finds and reopens them, and without which it touches nothing.
//! - A namespace that is made has its mark too, the alias of its loopback ([`Plan::netns_mark`]), from before it has a name: so a start after a crash
//!   tells one that the switch made from one that a user made since under the same name.
//! - A device that is handed over ([`Netns::Sandbox`]) is made in vswitchd's own namespace and left down and without addresses: a
//!   container's runtime takes it to the container's namespace, renames it, and sets the rest. The queues go with it. It is found again by its
//!   alias, in either place. Queues that the last vswitchd left open ([`Plan::held`]) are taken as they are, so that its link stays up.
//! - A link is an interface that the switch did not make: it is set up and listened to, and nothing is changed that would have to be
//!   changed back.
//! - A [`Watch`], which holds no namespace, tells what becomes of a device afterwards.
//! - Every call does all or nothing: what it made before a failure, it removes again; what it changed, it changes back.

mod bridges;
mod claim;
mod error;
mod isolate;
mod lan;
mod link;
mod netlink;
mod netns;
mod programs;
mod sockets;
mod station;
mod tap;
#[cfg(test)]
mod tests;
pub mod underlay;
mod uplink;
mod veth;
mod watch;

use std::os::fd::{AsFd, OwnedFd};

use ipnet::IpNet;
use packet::Mac;

use api::{ContainerRoute, Netns, PortKind, PortSpec};
use claim::mark;
use error::{Doing, NET_ADMIN};
use netns::Namespace;
use plane::device::Device;
use station::StationSetup;

pub use bridges::inner_bridges;
pub use error::{AttachError, Place};
pub use lan::{host_addresses, set_host_routes};
pub use netns::{
    Identity, is_marked_netns, make_netns, mark_netns, name_namespaces_in, netns_inode, netns_to_make, netns_warning,
    own_netns_inode, remove_netns,
};
pub use programs::Programs;
pub use station::default_gateways;
pub use uplink::{UplinkAttachment, attach_uplink};
pub use veth::set_switch_end;
pub use watch::{End, Heard, NamespaceNumber, News, Watch};

/// What a port needs of the kernel.
#[derive(Clone, Copy)]
pub struct Plan<'a> {
    /// The port.
    pub spec: &'a PortSpec,
    /// The MAC address of a device that has to be made, where the port is given none; `None`: the kernel's choice.
    pub first_mac: Option<Mac>,
    /// The MTU of its bridge, which a device made for it gets.
    pub mtu: u16,
    /// How many workers there are, each of which gets a device of its own.
    pub workers: usize,
    /// Queues of its TAP, or sockets on its interface, that are open already, left by the last vswitchd.
    pub held: &'a [OwnedFd],
    /// The bridge's own addresses: the first of each family in a subnet of the port becomes its default route.
    pub gateways: &'a [IpNet],
    /// The mark of its namespace, if that has to be made.
    pub netns_mark: &'a str,
    /// Other routes by the device.
    pub routes: &'a [ContainerRoute],
    /// The watch that is to hear what becomes of its device.
    pub watch: Option<&'a Watch>,
}

/// How many queues of a device each worker has for bulk flows, besides the one for everything else. Of a TAP's queues, each takes 64 KiB of the
/// kernel's memory.
fn bulk_queues(workers: usize) -> usize {
    (16 / workers.max(1)).clamp(2, 8) - 1
}

/// An open port.
pub struct Attachment {
    /// A device for each worker, in no order.
    pub devices: Vec<Box<dyn Device>>,
    /// The name of the station's device; other than asked for if a container's runtime renamed it.
    pub ifname: String,
    /// The index of the station's device in its namespace.
    pub ifindex: u32,
    /// The MAC address of the station's device.
    pub mac: Option<Mac>,
    /// What the kernel can do for this port: `vnet_hdr`, `checksum`, `tso`, `uso`, `multi_queue`, `flow_queues`, `persistent`, `speed`,
    /// `vlan_auxdata`, `fanout`, `stack_isolated`.
    pub features: Vec<String>,
    /// Whether the port's namespace was made for it, and is to be removed after it.
    pub made_netns: bool,
    /// Whether the device was found, as a vswitchd that crashed leaves it.
    pub reopened: bool,
    /// The devices that its frames pass, as they are now.
    pub ends: Vec<End>,
    /// Which namespace the station's device is in; `None`: vswitchd's own, or one that a container's runtime rules over.
    pub namespace: Option<Identity>,
}

impl std::fmt::Debug for Attachment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Attachment")
            .field("queues", &self.devices.len())
            .field("ifname", &self.ifname)
            .field("ifindex", &self.ifindex)
            .field("mac", &self.mac)
            .field("features", &self.features)
            .field("made_netns", &self.made_netns)
            .field("reopened", &self.reopened)
            .field("ends", &self.ends)
            .field("namespace", &self.namespace)
            .finish()
    }
}

/// Makes or finds the port's device and opens it.
///
/// # Errors
/// One sentence for the user. Nothing that this call made is left behind then.
pub fn attach(plan: &Plan<'_>) -> Result<Attachment, AttachError> {
    let netns = plan.spec.netns.as_ref();
    let namespace = match plan.spec.kind {
        PortKind::Link => Namespace::open(netns)?,
        PortKind::Tap | PortKind::Veth if plan.spec.is_handed_over() => claim::home(plan.spec)?,
        PortKind::Tap | PortKind::Veth => Namespace::open_or_make(netns, plan.netns_mark)?,
    };
    let namespace = namespace.watched(plan.watch);
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
            let _ = remove_netns(name);
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
pub fn has_arrived(spec: &PortSpec) -> Result<bool, AttachError> {
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
pub fn links_in(netns: Option<&Netns>, watch: Option<&Watch>) -> Result<(Option<NamespaceNumber>, Vec<News>), AttachError> {
    let namespace = Namespace::open(netns)?.watched(watch);
    let doing = || format!("list interfaces {}", namespace.place);
    let links = namespace.with_netlink(|netlink| netlink.links().doing(NET_ADMIN, doing))?;
    Ok((namespace.number, links.iter().map(|link| News::of(link, namespace.number)).collect()))
}

/// The station's end of a device that is handed over, wherever it is now.
pub fn moved_end(spec: &PortSpec, watch: &Watch) -> Option<End> {
    let home = claim::home(spec).ok()?.watched(Some(watch));
    let link = home.with_netlink(|netlink| claim::find(netlink, spec, &home.place)).ok()??;
    Some(End::of(&link, &home))
}

/// Lets go of the device of a port whose namespace has lost its name, so that it cannot be found any more. The namespace may still be there,
/// held by programs in it or by what the switch has open. `queue` is one of a TAP's, which goes with its last queue.
///
/// # Errors
/// Mostly a missing `CAP_NET_ADMIN`.
pub fn abandon(spec: &PortSpec, queue: Option<OwnedFd>) -> Result<(), AttachError> {
    match (spec.kind, queue) {
        (PortKind::Tap, Some(queue)) => {
            let doing = || format!("let go of TAP \"{}\" in a namespace that is gone", spec.ifname);
            sys::tun::set_persistent(queue.as_fd(), false).doing(NET_ADMIN, doing)
        }
        (PortKind::Veth, _) => veth::delete_switch_end(spec),
        (PortKind::Tap | PortKind::Link, _) => Ok(()),
    }
}

/// Sets the addresses and default routes of a port again that its station's device has lost, as a device does when it is set down. On a
/// device that is down, nothing is done.
///
/// # Errors
/// What the kernel said.
pub fn restore(spec: &PortSpec, gateways: &[IpNet]) -> Result<(), AttachError> {
    if spec.kind == PortKind::Link || spec.is_handed_over() {
        return Ok(());
    }
    let namespace = claim::home(spec)?;
    let place = &namespace.place;
    namespace.with_netlink(|netlink| match claim::find(netlink, spec, place)? {
        Some(link) if link.up => {
            let wanted = StationSetup::wanted(spec, 0, gateways);
            station::StationChange { netlink, place, link: &link, known: &spec.addresses }.restore(&wanted)
        }
        _ => Ok(()),
    })
}

/// Removes the device that was made for the port. A device or namespace that is gone is fine, and a link is left alone.
/// Queues that are still open read as gone afterwards.
///
/// # Errors
/// Mostly a missing `CAP_NET_ADMIN`.
pub fn detach(spec: &PortSpec) -> Result<(), AttachError> {
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
pub fn reconfigure(old: &PortSpec, new: &PortSpec, mtu: u16, gateways: &[IpNet]) -> Result<(), AttachError> {
    if let Some(what) = needs_another_device(old, new) {
        return Err(AttachError::NotInPlace(old.name.clone(), what));
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
pub fn difference(spec: &PortSpec, gateways: &[IpNet]) -> Result<Option<String>, AttachError> {
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
