//! What a station sees of its device: MAC address, MTU, addresses, default routes.

use std::net::IpAddr;

use ipnet::IpNet;
use packet::Mac;
use rustix::io::Errno;

use super::error::{AttachError, Doing, NET_ADMIN, Place, is};
use super::netlink::{self, KernelLink, Netlink};
use api::{ContainerRoute, PortSpec};

/// A state of a station's device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StationSetup {
    /// `None`: whatever it is.
    pub(super) mac: Option<Mac>,
    mtu: u32,
    /// Those that the switch set or should set. Others are their owner's and are left alone.
    addresses: Vec<IpNet>,
    gateways: Vec<IpAddr>,
    /// Whether a container's runtime sets the device up, and its addresses and routes.
    handed_over: bool,
}

impl StationSetup {
    pub(super) fn wanted(spec: &PortSpec, mtu: u16, gateways: &[IpNet]) -> Self {
        let addresses = spec.addresses.clone();
        let gateways = default_gateways(&addresses, gateways);
        Self { mac: spec.mac, mtu: mtu.into(), addresses, gateways, handed_over: spec.is_handed_over() }
    }
}

/// The first gateway of each family that an address can reach directly.
pub fn default_gateways(addresses: &[IpNet], gateways: &[IpNet]) -> Vec<IpAddr> {
    let reachable = |gateway: &IpAddr| {
        addresses.iter().any(|net| net.contains(gateway)) && addresses.iter().all(|net| net.addr() != *gateway)
    };
    let usable: Vec<_> = gateways.iter().map(IpNet::addr).filter(reachable).collect();
    let first = |v4| usable.iter().copied().find(|gateway| gateway.is_ipv4() == v4);
    first(true).into_iter().chain(first(false)).collect()
}

/// A change of one device.
pub(super) struct StationChange<'a> {
    pub(super) netlink: &'a Netlink,
    pub(super) place: &'a Place,
    pub(super) link: &'a KernelLink,
    /// Addresses that the switch set, for kernels that do not remember who did.
    pub(super) known: &'a [IpNet],
}

impl StationChange<'_> {
    /// Brings the device to the wanted state, or leaves it in the state that it was in.
    pub(super) fn make_or_undo(&self, wanted: &StationSetup) -> Result<(), AttachError> {
        let before = StationSetup { handed_over: wanted.handed_over, ..self.now()? };
        self.make(wanted, &before).inspect_err(|_| {
            if let Ok(now) = self.now() {
                // The error that counts is the first one.
                let _ = self.make(&before, &now);
            }
        })
    }

    /// Sets addresses and routes that are missing, after the MAC address and the name, if it is to have a certain one.
    pub(super) fn restore(&self, wanted: &StationSetup, ifname: Option<&str>) -> Result<(), AttachError> {
        let now = self.now()?;
        if let Some(mac) = wanted.mac.filter(|_| wanted.mac != now.mac) {
            self.change_mac(now.mac, mac)?;
        }
        self.set_addresses(wanted, &now)?;
        self.set_routes(wanted)?;
        // Linux renames no device that is up before 6.2.
        ifname.filter(|ifname| *ifname != self.link.name).map_or(Ok(()), |ifname| {
            let message = netlink::change(self.link.index).name(ifname).build();
            self.netlink.change(message).doing(NET_ADMIN, || format!("call {} \"{ifname}\" again", self.whom()))
        })
    }

    /// Sets other routes, unless they are there.
    pub(super) fn add_routes(&self, routes: &[ContainerRoute]) -> Result<(), AttachError> {
        for ContainerRoute { to, via } in routes {
            let added = self.netlink.add_route(self.link.index, *to, *via);
            added.doing(NET_ADMIN, || format!("set the route to {to} by {via} on {}", self.whom()))?;
        }
        Ok(())
    }

    /// What the device lacks of the wanted state, if it lacks anything.
    pub(super) fn lacks(&self, wanted: &StationSetup) -> Result<Option<String>, AttachError> {
        let (now, present) = (self.now()?, self.addresses()?);
        let address = wanted.addresses.iter().find(|address| !present.iter().any(|(net, _)| net == *address));
        let gateway = wanted.gateways.iter().find(|gateway| !now.gateways.contains(gateway));
        let mac = wanted.mac.filter(|mac| now.mac != Some(*mac));
        let down = (!self.link.up).then(|| "it is down".to_owned());
        let lacks = down
            .or_else(|| mac.map(|mac| format!("its MAC address is not {mac} any more")))
            .or_else(|| address.map(|address| format!("it lacks the address {address}")))
            .or_else(|| gateway.map(|gateway| format!("it lacks the default route by {gateway}")));
        Ok(lacks)
    }

    fn now(&self) -> Result<StationSetup, AttachError> {
        let addresses = self.addresses()?;
        let ours = addresses.iter().filter(|(net, ours)| *ours || self.known.contains(net)).map(|(net, _)| *net).collect();
        let gateways = self.netlink.gateways(self.link.index);
        let gateways = gateways.doing(NET_ADMIN, || format!("list the routes {}", self.place))?;
        let link = self.netlink.link(&self.link.name).ok().flatten();
        let link = link.as_ref().unwrap_or(self.link);
        Ok(StationSetup { mac: link.mac, mtu: link.mtu, addresses: ours, gateways, handed_over: false })
    }

    fn addresses(&self) -> Result<Vec<(IpNet, bool)>, AttachError> {
        let addresses = self.netlink.addresses(self.link.index);
        addresses.doing(NET_ADMIN, || format!("list the addresses of {}", self.whom()))
    }

    fn make(&self, wanted: &StationSetup, now: &StationSetup) -> Result<(), AttachError> {
        self.set_link(wanted, now)?;
        keep_neighbors(&self.link.name);
        if wanted.handed_over {
            return Ok(());
        }
        self.netlink.change(netlink::up(self.link.index)).doing(NET_ADMIN, || format!("set {} up", self.whom()))?;
        self.set_addresses(wanted, now)?;
        self.set_routes(wanted)
    }

    fn set_link(&self, wanted: &StationSetup, now: &StationSetup) -> Result<(), AttachError> {
        let index = self.link.index;
        if let Some(mac) = wanted.mac.filter(|_| wanted.mac != now.mac) {
            self.change_mac(now.mac, mac)?;
        }
        if wanted.mtu != now.mtu {
            let message = netlink::change(index).mtu(wanted.mtu).build();
            self.netlink.change(message).doing(NET_ADMIN, || format!("set MTU {} on {}", wanted.mtu, self.whom()))?;
        }
        Ok(())
    }

    /// Sets another MAC address, and with it what follows from the old one.
    fn change_mac(&self, old: Option<Mac>, new: Mac) -> Result<(), AttachError> {
        let index = self.link.index;
        let of = |mac: Mac| format!("the IPv6 addresses that follow from {mac} on {}", self.whom());
        let taken = old.map_or(Ok(false), |old| self.netlink.take_addresses_of(index, old));
        let had_link_local = taken.doing(NET_ADMIN, || format!("take away {}", of(old.unwrap_or(new))))?;
        let changed = telling_neighbors(&self.link.name, || {
            let message = netlink::change(index).address(new.0.to_vec()).build();
            self.netlink.change(message).doing(NET_ADMIN, || format!("set MAC address {new} on {}", self.whom()))
        });
        let now = if changed.is_ok() { Some(new) } else { old };
        let added = now.filter(|_| had_link_local).map_or(Ok(()), |mac| self.netlink.add_link_local_of(index, mac));
        // The error that counts is the first one.
        changed.and(added.doing(NET_ADMIN, || format!("set {}", of(new))))
    }

    /// Old addresses go first: a new one in the same subnet would be secondary to the old one and vanish with it
    /// (`inet_del_ifa`, unless `promote_secondaries` is set). What vanished against our will is set again.
    fn set_addresses(&self, wanted: &StationSetup, now: &StationSetup) -> Result<(), AttachError> {
        for address in now.addresses.iter().filter(|address| !wanted.addresses.contains(address)) {
            let deleted = self.netlink.delete_address(self.link.index, *address);
            deleted.doing(NET_ADMIN, || format!("remove address {address} from {}", self.whom()))?;
        }
        let present = self.addresses()?;
        for address in wanted.addresses.iter().filter(|address| !present.iter().any(|(net, _)| net == *address)) {
            self.add_address(*address)?;
        }
        Ok(())
    }

    fn add_address(&self, address: IpNet) -> Result<(), AttachError> {
        match self.netlink.add_address(self.link.index, address) {
            // `inet6_rtm_newaddr` says EACCES where IPv6 is disabled, EOPNOTSUPP where it is missing.
            Err(source) if matches!(address, IpNet::V6(_)) && (is(&source, Errno::ACCESS) || is(&source, Errno::OPNOTSUPP)) => {
                let (ifname, place) = (self.link.name.clone(), self.place.clone());
                Err(AttachError::NoIpv6 { address, ifname, place, source })
            }
            result => result.doing(NET_ADMIN, || format!("set address {address} on {}", self.whom())),
        }
    }

    /// Read anew: routes vanish with addresses.
    fn set_routes(&self, wanted: &StationSetup) -> Result<(), AttachError> {
        let index = self.link.index;
        let now = self.netlink.gateways(index).doing(NET_ADMIN, || format!("list the routes {}", self.place))?;
        for gateway in now.iter().filter(|gateway| !wanted.gateways.contains(gateway)) {
            let deleted = self.netlink.delete_default_route(index, *gateway);
            deleted.doing(NET_ADMIN, || format!("remove the default route by {gateway} on {}", self.whom()))?;
        }
        for gateway in wanted.gateways.iter().filter(|gateway| !now.contains(gateway)) {
            let added = self.netlink.add_default_route(index, *gateway);
            added.doing(NET_ADMIN, || format!("set the default route by {gateway} on {}", self.whom()))?;
        }
        Ok(())
    }

    fn whom(&self) -> String {
        format!("\"{}\" {}", self.link.name, self.place)
    }
}

/// Has the kernel keep what it knows of a device's neighbours while the device has no carrier (`neigh_carrier_down`; Linux 5.16), as a TAP has
/// none between the end of one vswitchd and the start of the next. Else the first question for a neighbour is asked into the void, and the next
/// one comes a second later (`RETRANS_TIMER`). To be called in the device's namespace. Where /proc/sys cannot be written, it takes that second.
pub(super) fn keep_neighbors(ifname: &str) {
    for key in ["ipv4/conf/{}/arp_evict_nocarrier", "ipv6/conf/{}/ndisc_evict_nocarrier"] {
        let _ = std::fs::write(format!("/proc/sys/net/{}", key.replace("{}", ifname)), "0");
    }
}

/// Has the kernel tell a device's neighbours of its new MAC address while `change` gives it one (`arp_notify`, `ndisc_notify`). Otherwise the neighbours
/// send to the old one for half a minute. To be called in the device's namespace.
fn telling_neighbors<T>(ifname: &str, change: impl FnOnce() -> T) -> T {
    let keys = ["ipv4/conf/{}/arp_notify", "ipv6/conf/{}/ndisc_notify"].map(|key| key.replace("{}", ifname));
    let paths = keys.map(|key| format!("/proc/sys/net/{key}"));
    let before = paths.map(|path| (std::fs::read(&path).unwrap_or_default(), path));
    // Where /proc/sys cannot be written, it takes that half minute.
    before.iter().for_each(|(_, path)| drop(std::fs::write(path, "1")));
    let changed = change();
    before.iter().for_each(|(value, path)| drop(std::fs::write(path, value)));
    changed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(list: &[&str]) -> Vec<IpNet> {
        list.iter().map(|net| net.parse().unwrap()).collect()
    }

    #[test]
    fn the_default_route_goes_to_the_first_gateway_in_reach_of_each_family() {
        let addresses = nets(&["10.1.0.2/24", "fd00::2/64"]);
        let gateways = nets(&["10.9.0.1/24", "10.1.0.1/24", "10.1.0.254/24", "fd00::1/64"]);
        let expected: Vec<IpAddr> = vec!["10.1.0.1".parse().unwrap(), "fd00::1".parse().unwrap()];
        assert_eq!(default_gateways(&addresses, &gateways), expected);
        assert_eq!(default_gateways(&addresses, &[]), Vec::<IpAddr>::new());
        let itself = nets(&["10.9.0.1/24"]);
        assert_eq!(default_gateways(&itself, &gateways), Vec::<IpAddr>::new(), "not to itself");
    }
}
