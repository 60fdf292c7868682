//! A flannel network, as the hosts that run flanneld keep it in etcd: what a host must say there to be one of them, and what it makes of the others.
//!
//! ```text
//!  config                 the network: its addresses, how long a host's subnet is, how packets get from host to host    the administrator's
//!  subnets/SUBNET         a host: where it is, the MAC address of its end of the tunnel                                  as long as its lease
//! ```
//!
//! Keys are below `/coreos.com/network`. A host has one subnet, taken by a transaction, and routes: there are no stations and nothing is flooded. The
//! values are those of flannel 0.1 to 0.28 with its subnet manager for etcd, and its backend `vxlan`.
//!
//! - [`net`]: the network.
//! - [`lease`]: a host's subnet.
//! - [`member`]: what one host knows of it, and what it has to say. It has no clock, and asks no one.

pub mod lease;
pub mod member;
pub mod net;

use serde_json::Value;

/// The key of the network's record.
pub const CONFIG: &str = "config";

/// What the keys of leases begin with.
pub const SUBNETS: &str = "subnets/";

/// What all keys begin with, unless flanneld is told otherwise.
pub const PREFIX: &str = "/coreos.com/network";

/// A field of an object. Go, in which flannel is written, does not look at the case of its name.
fn field<'a>(object: &'a Value, name: &str) -> Option<&'a Value> {
    let found = object.as_object()?.iter().find(|(key, _)| key.eq_ignore_ascii_case(name))?.1;
    (!found.is_null()).then_some(found)
}
