//! The kernel's bridges on which this host has networks of its own, as Docker's `docker0` and `br-…` are.

use std::collections::BTreeSet;

use ipnet::IpNet;
use netlink_packet_route::link::InfoKind;

use super::AttachError;
use super::error::{Doing, NET_ADMIN};
use super::netlink::KernelLink;
use super::netns::Namespace;

/// The addresses, with their subnets, that vswitchd's own namespace has on bridges that lead to containers and virtual machines of this host
/// only. A bridge with a port that is neither a veth nor a TAP, such as a network card, is the LAN.
///
/// # Errors
/// The kernel does not list its links or addresses.
pub fn inner_bridges() -> Result<Vec<IpNet>, AttachError> {
    Namespace::own().with_netlink(|netlink| {
        let links = netlink.links().doing(NET_ADMIN, || "list the network interfaces".to_owned())?;
        let inner = inner(&links);
        if inner.is_empty() {
            return Ok(Vec::new());
        }
        let addresses = netlink.all_addresses().doing(NET_ADMIN, || "list the host's addresses".to_owned())?;
        Ok(addresses.into_iter().filter(|(index, _)| inner.contains(index)).map(|(_, net)| net).collect())
    })
}

fn inner(links: &[KernelLink]) -> BTreeSet<u32> {
    let is_inner = |link: &&KernelLink| matches!(link.kind, Some(InfoKind::Veth | InfoKind::Tun));
    let lan: BTreeSet<u32> = links.iter().filter(|link| !is_inner(link)).filter_map(|link| link.bridge).collect();
    // The routes of one that is down lead elsewhere.
    let bridges = links.iter().filter(|link| link.kind == Some(InfoKind::Bridge) && link.up);
    bridges.map(|link| link.index).filter(|index| !lan.contains(index)).collect()
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::link::LinkMessage;

    use super::*;

    fn link(index: u32, kind: Option<InfoKind>, bridge: Option<u32>) -> KernelLink {
        KernelLink { index, kind, bridge, up: true, ..KernelLink::from(LinkMessage::default()) }
    }

    #[test]
    fn a_bridge_with_a_network_card_is_the_lan() {
        let mut links = vec![
            link(1, Some(InfoKind::Bridge), None),
            link(2, Some(InfoKind::Bridge), None),
            link(3, Some(InfoKind::Bridge), None),
            link(4, Some(InfoKind::Veth), Some(2)),
            link(5, Some(InfoKind::Tun), Some(2)),
            link(6, Some(InfoKind::Veth), Some(3)),
            link(7, None, Some(3)),
            link(8, Some(InfoKind::Dummy), None),
        ];
        assert_eq!(inner(&links), [1, 2].into());
        links[0].up = false;
        assert_eq!(inner(&links), [2].into());
    }
}
