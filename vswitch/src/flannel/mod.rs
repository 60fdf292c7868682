//! A network of flannel's, in which this host has a part beside hosts that run flanneld with the backend vxlan and etcd.
//!
//! ```text
//!  control ◀── FlannelTables: the network, this host's subnet, the others ── thread ── FlannelMember ──▶ etcd
//!                                                                              └──▶ flannel.json
//! ```
//!
//! flannel routes: each host has a subnet, and between hosts there is VXLAN from router to router. So this host's subnet becomes that of a bridge, whose
//! gateway is the router, and the tunnel leads from the gateway, not from the bridge (`control/routed.rs`): no frame of a station enters it, and none
//! that comes out of it reaches a station but by the gateway. Nothing is flooded, and no host is asked for a MAC address: etcd has said it.
//!
//! The crate `cluster` knows what flannel keeps in etcd and what one host makes of it; this room is where that meets the switch. A thread of its own deals
//! with etcd, which may be slow or away. What it hears is one more source in `config`: of the tunnel, and of the bridge's addresses.
//!
//! **Fail static.** The subnet and the hosts are kept in `state-dir`. Without etcd, and after a restart without it, packets are forwarded by the last
//! tables. A host keeps its subnet when vswitchd ends: etcd forgets it a day after it was last renewed.

mod kept;
mod run;
mod settings;
mod tables;
mod thread;

pub use settings::{FlannelSection, FlannelSettings};
pub use tables::FlannelTables;

pub(crate) use kept::FlannelFile;
pub(crate) use thread::{FlannelNews, FlannelThread};
