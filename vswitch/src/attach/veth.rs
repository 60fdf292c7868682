//! Veth pairs: one end in the station's namespace, the other in vswitchd's, read through packet sockets.

use std::os::fd::AsFd;

use netlink_packet_route::link::InfoKind;

use super::error::{Doing, NET_ADMIN};
use super::isolate::isolate;
use super::netlink::{self, KernelLink, Netlink};
use super::netns::Namespace;
use super::queues::Queues;
use super::station::{StationChange, StationSetup};
use super::{AttachError, Attachment, End, Plan, claim, mark, sockets};
use api::{PortName, PortSpec};
use sys::ethtool;

pub(super) fn attach(plan: &Plan, station: &Namespace) -> Result<Attachment, AttachError> {
    let pair = Pair { plan, station, switch: &Namespace::own().numbered() };
    let reopened = pair.find()?;
    if !reopened {
        pair.make()?;
    }
    let attached = pair.configure().map(|attachment| Attachment { reopened, ..attachment });
    attached.inspect_err(|_| {
        if !reopened {
            // The error that counts is the first one.
            let _ = delete_switch_end(&plan.spec);
        }
    })
}

/// Removes the pair by its end in vswitchd's namespace.
pub(super) fn delete_switch_end(spec: &PortSpec) -> Result<(), AttachError> {
    let own = Namespace::own();
    own.with_netlink(|netlink| match switch_link(netlink, &own, spec)? {
        Some(link) if link.alias == Some(switch_mark(&spec.name)) => claim::remove(netlink, &link, &own.place),
        _ => Ok(()),
    })
}

/// The MTU of the switch's end: its packet socket, unlike a TAP, takes no frame whose tags do not fit (`packet_snd` makes room
/// for one 802.1Q tag), and two tags are no part of a bridge's MTU.
pub(super) fn switch_mtu(bridge: u16) -> u32 {
    (u32::from(bridge) + 8).min(65_535)
}

/// Sets the MTU of the switch's end and returns what it was.
pub(super) fn set_switch_mtu(spec: &PortSpec, mtu: u32) -> Result<u32, AttachError> {
    let own = Namespace::own();
    own.with_netlink(|netlink| {
        let name = switch_name(&spec.name);
        let link = switch_link(netlink, &own, spec)?;
        let link = link.ok_or_else(|| AttachError::NoInterface { ifname: name.clone(), place: own.place.clone() })?;
        let message = netlink::change(link.index).mtu(mtu).build();
        netlink.change(message).doing(NET_ADMIN, || format!("set MTU {mtu} on \"{name}\""))?;
        Ok(link.mtu)
    })
}

/// Sets the switch's end of a pair up or down, whose station has a carrier accordingly.
///
/// # Errors
/// The pair is gone, or `CAP_NET_ADMIN` is missing.
pub(super) fn set_switch_end(spec: &PortSpec, up: &bool) -> Result<(), AttachError> {
    let own = Namespace::own();
    own.with_netlink(|netlink| {
        let name = switch_name(&spec.name);
        let link = switch_link(netlink, &own, spec)?;
        let link = link.ok_or_else(|| AttachError::NoInterface { ifname: name.clone(), place: own.place.clone() })?;
        let message = netlink::change(link.index);
        let message = if *up { message.up() } else { message.down() };
        let doing = || format!("set \"{name}\" {}", if *up { "up" } else { "down" });
        netlink.change(message.build()).doing(NET_ADMIN, doing)
    })
}

fn switch_link(netlink: &Netlink, own: &Namespace, spec: &PortSpec) -> Result<Option<KernelLink>, AttachError> {
    let name = switch_name(&spec.name);
    netlink.link(&name).doing(NET_ADMIN, || format!("look up interface \"{name}\" {}", own.place))
}

/// What the switch's end is called: the port's name where it fits, else a hash of it.
fn switch_name(port: &PortName) -> String {
    let name = format!("vsw-{port}");
    if name.len() <= 15 { name } else { format!("vsw-{:011x}", fnv(port.as_str()) >> 20) }
}

/// FNV-1a, 64 bits: the name must be the same for every build.
fn fnv(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// The alias of the switch's end, apart from the station's, which may be in the same namespace.
fn switch_mark(port: &PortName) -> String {
    format!("{} (switch end)", mark(port))
}

struct Pair<'a> {
    plan: &'a Plan,
    station: &'a Namespace,
    switch: &'a Namespace,
}

impl Pair<'_> {
    /// Whether the pair is there as an earlier vswitchd left it. Half a pair, or one with another far end, is removed.
    fn find(&self) -> Result<bool, AttachError> {
        let spec = &self.plan.spec;
        let far =
            self.station.with_netlink(|netlink| claim::claim(netlink, spec, &InfoKind::Veth, None, &self.station.place))?;
        let near = self.switch.with_netlink(|netlink| switch_link(netlink, self.switch, spec))?;
        if let Some(near) = near.as_ref().filter(|near| near.alias.as_deref() != Some(&switch_mark(&spec.name))) {
            return Err(AttachError::Taken { ifname: near.name.clone(), place: self.switch.place.clone() });
        }
        if let (Some(near), Some(far)) = (&near, &far)
            && (near.peer, far.peer) == (Some(far.index), Some(near.index))
        {
            return Ok(true);
        }
        if near.is_some() {
            delete_switch_end(spec)?;
        }
        if let Some(far) = far {
            self.station.with_netlink(|netlink| claim::remove(netlink, &far, &self.station.place))?;
        }
        Ok(false)
    }

    fn make(&self) -> Result<(), AttachError> {
        let spec = &self.plan.spec;
        let name = switch_name(&spec.name);
        let namespace = self.station.descriptor()?;
        self.switch.with_netlink(|netlink| {
            let mac = spec.mac.or(self.plan.first_mac);
            let made = netlink.add_veth(&name, spec.ifname.as_str(), mac, namespace.as_fd());
            made.doing(NET_ADMIN, || format!("make the veth pair \"{name}\" and \"{}\" {}", spec.ifname, self.station.place))?;
            self.set_switch_mark(netlink, &name).inspect_err(|_| {
                // Without its mark no later start would find it. The error that counts is the first one.
                let _ = switch_link(netlink, self.switch, spec).map(|link| link.map(|link| netlink.delete(link.index)));
            })
        })
    }

    fn set_switch_mark(&self, netlink: &Netlink, name: &str) -> Result<(), AttachError> {
        let spec = &self.plan.spec;
        let Some(link) = switch_link(netlink, self.switch, spec)? else { return Ok(()) };
        let marked = netlink.change(netlink::change(link.index).alias(switch_mark(&spec.name)).build());
        marked.doing(NET_ADMIN, || format!("set the alias of \"{name}\""))
    }

    /// The switch listens before the station can speak.
    fn configure(&self) -> Result<Attachment, AttachError> {
        let (queues, features) = self.open_switch_end()?;
        let far = self.configure_station()?;
        let name = switch_name(&self.plan.spec.name);
        let near = self.switch.with_netlink(|netlink| {
            // Without its far end up it gets no carrier.
            if far.up {
                netlink.settle(&name).doing(NET_ADMIN, || format!("wait for \"{name}\" {}", self.switch.place))?;
            }
            let gone = || AttachError::NoInterface { ifname: name.clone(), place: self.switch.place.clone() };
            switch_link(netlink, self.switch, &self.plan.spec)?.ok_or_else(gone)
        })?;
        let ends = vec![End::of(&far, self.station), End::of(&near, self.switch)];
        let (ifname, ifindex, mac) = (far.name, far.index, far.mac);
        Ok(Attachment { queues, ifname, ifindex, mac, features, made_netns: false, reopened: false, ends, namespace: None })
    }

    fn configure_station(&self) -> Result<KernelLink, AttachError> {
        let (spec, place) = (&self.plan.spec, &self.station.place);
        self.station.with_netlink(|netlink| {
            let gone = || AttachError::NoInterface { ifname: spec.ifname.to_string(), place: place.clone() };
            let look_up =
                |name: &str| netlink.link(name).doing(NET_ADMIN, || format!("look up \"{name}\" {place}"))?.ok_or_else(gone);
            let is_named = |link: &KernelLink| link.name == spec.ifname.as_str() || claim::is_foreign(spec);
            let link = match claim::find(netlink, spec, place)?.filter(is_named) {
                Some(link) => link,
                None => look_up(spec.ifname.as_str())?,
            };
            let message = netlink::change(link.index).alias(mark(&spec.name)).build();
            netlink.change(message).doing(NET_ADMIN, || format!("set the alias of \"{}\" {place}", link.name))?;
            // Where the switch asks for finished frames, the station's kernel has to finish them before they leave.
            let offload = ethtool::set_checksum_offload(&link.name, spec.offload);
            offload.doing(NET_ADMIN, || format!("set the checksum offload of \"{}\" {place}", link.name))?;
            let wanted = StationSetup::wanted(spec, self.plan.mtu, &self.plan.gateways);
            let change = StationChange { netlink, place, link: &link, known: &[] };
            change.make_or_undo(&wanted)?;
            change.add_routes(&self.plan.routes)?;
            netlink.settle(&link.name).doing(NET_ADMIN, || format!("wait for \"{}\" {place}", link.name))?;
            look_up(&link.name)
        })
    }

    /// The switch's end is closed to the host before it is set up.
    fn open_switch_end(&self) -> Result<(Queues, sockets::Features), AttachError> {
        let (spec, place) = (&self.plan.spec, &self.switch.place);
        self.switch.with_netlink(|netlink| {
            let name = switch_name(&spec.name);
            let link = switch_link(netlink, self.switch, spec)?;
            let link = link.ok_or_else(|| AttachError::NoInterface { ifname: name.clone(), place: place.clone() })?;
            // A kernel without IPv6 has no such address to keep away.
            let _ = netlink.change(netlink::no_ipv6_address(link.index));
            let isolated = isolate(netlink, link.index).is_ok();
            let mtu = switch_mtu(self.plan.mtu);
            let message = netlink::change(link.index).mtu(mtu).up().build();
            netlink.change(message).doing(NET_ADMIN, || format!("set \"{name}\" {place} up with MTU {mtu}"))?;
            let (queues, mut features) = sockets::open((&name, link.index), self.plan, place)?;
            features.extend(isolated.then(|| "stack_isolated".to_owned()));
            Ok((queues, features))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_switch_end_has_a_name_that_fits_and_stays() {
        let name = |port: &str| switch_name(&port.parse().unwrap());
        assert_eq!(name("web"), "vsw-web");
        assert_eq!(name("12345678901"), "vsw-12345678901");
        assert_eq!(name("123456789012"), format!("vsw-{:011x}", fnv("123456789012") >> 20));
        assert_eq!(name("123456789012345").len(), 15);
        assert_ne!(name("123456789012345"), name("123456789012346"));
    }
}
