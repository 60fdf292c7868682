//! The devices of ports: made, found again, changed in place and removed.
//!
//! Everything here may block and is called from ordinary threads; what comes out are open descriptors ([`Queues`]), of which
//! a worker gets a device that it reads and writes without ever opening anything. What takes rights is a request to the [broker](crate::broker):
//! the functions by which the control side asks are those of `requests`.
//!
//! - A TAP is made inside the namespace of its station, persistent, so that it survives a crash of vswitchd with its
//!   addresses and routes. A veth pair survives by nature. Both carry an alias (`ip link` shows it), by which the next vswitchd
//!   finds and reopens them, and without which it touches nothing.
//! - A namespace that is made has its mark too, the alias of its loopback ([`Plan::netns_mark`]), from before it has a name: so a start after a crash
//!   tells one that the switch made from one that a user made since under the same name.
//! - A device that is handed over ([`Netns::Sandbox`](api::Netns::Sandbox)) is made in vswitchd's own namespace and left down and without addresses: a
//!   container's runtime takes it to the container's namespace, renames it, and sets the rest. The queues go with it. It is found again by its
//!   alias, in either place. Queues that the last vswitchd left open ([`Plan::held`]) are taken as they are, so that its link stays up.
//! - A link is an interface that the switch did not make: it is set up and listened to, and nothing is changed that would have to be
//!   changed back.
//! - A [`Watch`], which holds no namespace, tells what becomes of a device afterwards.
//! - Every call does all or nothing: what it made before a failure, it removes again; what it changed, it changes back.

mod bridges;
mod claim;
mod error;
mod interface_id;
mod isolate;
mod lan;
mod link;
mod netlink;
mod netns;
mod port;
mod programs;
mod queues;
mod requests;
mod sockets;
mod station;
mod tap;
#[cfg(test)]
mod tests;
pub mod underlay;
mod uplink;
mod veth;
mod watch;

use std::io;
use std::os::fd::OwnedFd;

use ipnet::IpNet;
use packet::Mac;
use serde::{Deserialize, Serialize};

use crate::broker::Descriptor;
use api::{ContainerRoute, PortSpec};
use claim::mark;

pub use bridges::inner_bridges;
pub use error::{AttachError, Place, Right};
pub use lan::host_addresses;
pub use netns::{Identity, make_netns, name_namespaces_in, netns_inode, netns_to_make, own_netns_inode};
pub use queues::Queues;
pub use requests::*;
pub use station::default_gateways;
pub use uplink::UplinkAttachment;
pub use watch::{End, Heard, NamespaceNumber, News, Watch};

/// What a port needs of the kernel.
#[derive(Debug, Serialize, Deserialize)]
pub struct Plan {
    /// The port.
    pub spec: PortSpec,
    /// The MAC address of a device that has to be made, where the port is given none; `None`: the kernel's choice.
    pub first_mac: Option<Mac>,
    /// The MTU of its bridge, which a device made for it gets.
    pub mtu: u16,
    /// How many workers there are, each of which gets a device of its own.
    pub workers: usize,
    /// Queues of its TAP, or sockets on its interface, that are open already, left by the last vswitchd.
    pub held: Vec<Descriptor>,
    /// The bridge's own addresses: the first of each family in a subnet of the port becomes its default route.
    pub gateways: Vec<IpNet>,
    /// The mark of its namespace, if that has to be made.
    pub netns_mark: String,
    /// Other routes by the device.
    pub routes: Vec<ContainerRoute>,
}

/// Makes or finds the port's device and opens it.
///
/// # Errors
/// One sentence for the user. Nothing that this call made is left behind then.
pub fn attach(plan: &Plan) -> Result<Attachment, AttachError> {
    // What does not come here after it was made, nothing would remove.
    has_room(plan.workers * (1 + bulk_queues(plan.workers)) + BESIDES)?;
    requests::open_port(plan)
}

/// Whether this process may open so many files more.
fn has_room(files: usize) -> io::Result<()> {
    let more = || rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3);
    let all: Result<Vec<OwnedFd>, _> = (0..files).map(|_| more()).collect();
    all.map(drop).map_err(|error| io::Error::other(format!("{error}: raise the limit of open files")))
}

/// Descriptors of a port besides its queues: what places flows, and what is open for a moment meanwhile.
const BESIDES: usize = 6;

/// How many queues of a device each worker has for bulk flows, besides the one for everything else. Of a TAP's queues, each takes 64 KiB of the
/// kernel's memory.
fn bulk_queues(workers: usize) -> usize {
    (16 / workers.max(1)).clamp(2, 8) - 1
}

/// An open port.
#[derive(Debug, Serialize, Deserialize)]
pub struct Attachment {
    /// What is open, for the workers.
    pub queues: Queues,
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
