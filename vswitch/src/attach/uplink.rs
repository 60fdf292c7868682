//! Interfaces on which the switch has an address of its own, beside their owner's.

use packet::Mac;
use serde::{Deserialize, Serialize};

use super::error::{AttachError, Doing, NET_RAW};
use super::netns::Namespace;
use super::queues::Queues;
use super::watch::End;
use super::{link, sockets};
use crate::broker::Descriptor;

/// An open uplink.
#[derive(Debug, Serialize, Deserialize)]
pub struct UplinkAttachment {
    /// What is open, for the worker that routes.
    pub queues: Queues,
    /// The interface's MTU.
    pub mtu: u16,
    /// What the kernel can do for it, as in [`Attachment`](super::Attachment).
    pub features: Vec<String>,
    /// The interface, as it is now.
    pub end: End,
}

/// Opens an interface for an uplink with this MAC address; `held` are its sockets that the last vswitchd left open.
///
/// # Errors
/// One sentence for the user.
pub(super) fn attach_uplink(ifname: &str, mac: &Mac, held: &[Descriptor]) -> Result<UplinkAttachment, AttachError> {
    let namespace = Namespace::own().numbered();
    let place = &namespace.place;
    namespace.with_netlink(|netlink| {
        let found = link::look_up(netlink, ifname, place)?;
        let doing = || format!("open a packet socket on \"{ifname}\" {place}");
        let open = || sockets::open_for(found.index, *mac, held).doing(NET_RAW, doing);
        let (queues, features) = link::while_up(netlink, &found, place, open)?;
        // It may have been down before.
        let found = link::look_up(netlink, ifname, place)?;
        let end = End::of(&found, &namespace);
        let mtu = u16::try_from(found.mtu).unwrap_or(u16::MAX);
        Ok(UplinkAttachment { queues, mtu, features, end })
    })
}
