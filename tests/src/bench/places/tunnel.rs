//! VXLAN between two hosts on one Ethernet, `a` on the one and `a` on the other.

use super::{Contender, ETHTOOL, IP, Place};
use crate::lab::Lab;
use crate::underlay::Underlay;

/// Two switches on an Ethernet that passes frames of the MTU and no larger, as real networks do.
pub(crate) static VSWITCH_VXLAN: Contender =
    Contender { name: "vswitch", needs: &[IP, ETHTOOL], only: None, open: || open(vswitch_host, false) };
/// Two switches on an Ethernet that passes super-frames whole.
pub(crate) static VSWITCH_VXLAN_OFFLOAD: Contender =
    Contender { name: "vswitch", needs: &[IP, ETHTOOL], only: None, open: || open(vswitch_host, true) };
/// The kernel's bridge and tunnel on the former.
pub(crate) static KERNEL_VXLAN: Contender =
    Contender { name: "kernel VXLAN, bridge", needs: &[IP, ETHTOOL], only: None, open: || open(kernel_host, false) };
/// The kernel's bridge and tunnel on the latter.
pub(crate) static KERNEL_VXLAN_OFFLOAD: Contender =
    Contender { name: "kernel VXLAN, bridge", needs: &[IP, ETHTOOL], only: None, open: || open(kernel_host, true) };

/// A host of an underlay that has a tunnel to another: what makes it, and its number and the other's.
type MakeHost = fn(&Underlay, u8, u8) -> Lab;

fn open(make: MakeHost, segmentation: bool) -> Place {
    let underlay = Underlay::new();
    let [one, other] = hosts(&underlay, make, [1, 2]);
    for (number, lab) in [(1, &one), (2, &other)] {
        underlay.set_segmentation(lab, number, segmentation);
    }
    let switch = [&one, &other].into_iter().filter_map(Lab::running).collect();
    Place::across(vec![one, other, underlay.fabric], ((0, "a"), (1, "a")), "10.0.0.2", switch)
}

/// Two hosts with these numbers.
///
/// # Panics
/// If they cannot be made.
pub fn hosts(underlay: &Underlay, make: MakeHost, [one, other]: [u8; 2]) -> [Lab; 2] {
    [make(underlay, one, other), make(underlay, other, one)]
}

/// A host with a switch and a TAP.
///
/// # Panics
/// If it cannot be made.
pub fn vswitch_host(underlay: &Underlay, number: u8, peer: u8) -> Lab {
    let tunnel = format!(
        "[[vxlan]]\nname = \"vx0\"\nbridge = \"br0\"\nvni = 42\nlocal = \"192.0.2.{number}\"\npeers = [\"192.0.2.{peer}\"]\n"
    );
    underlay.host(number, &tunnel)
}

/// A host with a bridge, a vxlan device and a veth.
///
/// # Panics
/// If it cannot be made.
pub fn kernel_host(underlay: &Underlay, number: u8, peer: u8) -> Lab {
    let lab = Lab::new();
    underlay.join(&lab, number);
    lab.add_netns("a");
    lab.sh(&format!(
        "ip -n @host link add vx0 type vxlan id 43 local 192.0.2.{number} remote 192.0.2.{peer} dstport 4789 udpcsum && \
         ip -n @host link add br0 type bridge && ip -n @host link set br0 up && ip -n @host link set vx0 master br0 up && \
         ip -n @host link add lan mtu 1450 type veth peer name eth0 mtu 1450 netns @a && \
         ip -n @host link set lan master br0 up && ip -n @a link set eth0 up && ip -n @a addr add 10.0.0.{number}/24 dev eth0"
    ))
    .ok();
    lab
}
