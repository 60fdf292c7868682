//! Interfaces on which the switch has an address of its own, beside their owner's.

use std::os::fd::OwnedFd;

use packet::Mac;

use super::error::{AttachError, Doing, NET_RAW};
use super::netns::Namespace;
use super::watch::{End, Watch};
use super::{link, sockets};
use plane::device::Device;

/// An interface with an address of the switch's own.
pub struct UplinkAttachment {
    /// Its one queue, which gets frames to the switch's MAC address and to groups, and no others.
    pub device: Box<dyn Device>,
    /// Its MTU in bytes.
    pub mtu: u16,
    /// What the kernel can do for it.
    pub features: Vec<String>,
    /// The interface, as it is now.
    pub end: End,
}

/// Listens on the interface `ifname` of the own namespace for `mac`, besides what the interface is used for; by the sockets that the last vswitchd
/// left, if they are `held`.
///
/// # Errors
/// One sentence for the user. Nothing that this call made is left behind then.
pub fn attach_uplink(ifname: &str, mac: Mac, held: &[OwnedFd], watch: Option<&Watch>) -> Result<UplinkAttachment, AttachError> {
    let namespace = Namespace::own().watched(watch);
    let place = &namespace.place;
    namespace.with_netlink(|netlink| {
        let found = link::look_up(netlink, ifname, place)?;
        let doing = || format!("open a packet socket on \"{ifname}\" {place}");
        let (device, features) =
            link::while_up(netlink, &found, place, || sockets::open_for(found.index, mac, held).doing(NET_RAW, doing))?;
        // It may have been down before.
        let found = link::look_up(netlink, ifname, place)?;
        let end = End::of(&found, &namespace);
        let mtu = u16::try_from(found.mtu).unwrap_or(u16::MAX);
        Ok(UplinkAttachment { device, mtu, features, end })
    })
}
