//! The contenders: how each is started, by hand and in namespaces of its own, so that nothing of the host's is touched.
//!
//! Where two stations are on one subnet they are 10.0.0.1 in `a` and 10.0.0.2 in `b`; where a router is between them, a station in `a`
//! reaches [`FAR`] in `out`, which knows nothing of the subnet behind the router.

mod bare;
mod gateway;
mod kernel;
mod openvswitch;
mod tunnel;
mod vde;
mod vswitch;

pub(crate) use bare::BARE;
pub(crate) use gateway::{NFTABLES, PASTA, SLIRP4NETNS, VSWITCH_HOST, VSWITCH_LINK};
pub(crate) use kernel::{BRIDGE, bridge_of};
pub(crate) use openvswitch::{OVS_TAP, OVS_VETH, appctl, ovs_of, start as start_ovs, vsctl};
pub(crate) use tunnel::{KERNEL_VXLAN, KERNEL_VXLAN_OFFLOAD, VSWITCH_VXLAN, VSWITCH_VXLAN_OFFLOAD};
pub use tunnel::{hosts, kernel_host, vswitch_host};
pub(crate) use vde::VDE;
pub(crate) use vswitch::{VSWITCH_TAP, VSWITCH_VETH, switch_of};

use super::contender::{Contender, Need, Place};
use crate::lab::Lab;

const IP: Need = Need { tool: "ip", package: "iproute2" };
const ETHTOOL: Need = Need { tool: "ethtool", package: "ethtool" };

/// The second station of a subnet.
const NEAR: &str = "10.0.0.2";
/// The station behind a router.
const FAR: &str = "198.51.100.1";

/// A switch and the devices of many quiet ports: how long it took until all forwarded.
pub(crate) struct Crowd {
    /// Owns what was started.
    pub(crate) _lab: Lab,
    /// From nothing to the last port.
    pub(crate) time: std::time::Duration,
    /// The processes of the switch; none where it is the kernel.
    pub(crate) switch: Vec<u32>,
}

/// A lab for many ports, in which none says anything: by IPv6 the kernel itself would.
fn silence() -> Lab {
    let lab = Lab::new();
    lab.run_in("host", "for scope in all default; do echo 1 > /proc/sys/net/ipv6/conf/$scope/disable_ipv6; done").ok();
    lab
}

/// Makes the far side of a router in the lab's `host`: by `wan`, 192.0.2.10 there if `address` says so, to [`FAR`] in `out`.
fn outside(lab: &Lab, address: bool) {
    lab.sh(&format!(
        "netns @out && ip -n @out addr add {FAR}/32 dev lo && \
         ip -n @host link add wan type veth peer name o0 netns @out && ip -n @host link set wan up && \
         ip -n @out link set o0 up && ip -n @out addr add 192.0.2.1/24 dev o0"
    ))
    .ok();
    if address {
        lab.sh("ip -n @host addr add 192.0.2.10/24 dev wan && ip -n @host route add default via 192.0.2.1").ok();
    }
}

/// Gives `eth0` of both stations its address.
fn address_stations(lab: &Lab) {
    for (name, address) in [("a", "10.0.0.1"), ("b", NEAR)] {
        lab.sh(&format!("ip -n @{name} addr add {address}/24 dev eth0 && ip -n @{name} link set eth0 up")).ok();
    }
}
