//! Published ports: which ports of the host `-p` and `-P` become.
//!
//! Docker reserves nothing for a remote driver: it says what will do, a port or a range or any, and the driver finds one that is free. Who
//! else has a port is known for certain only when it is opened, so [`choose`] is asked again with what was found taken.
//!
//! **IP versions.** Where a container has an IPv6 address, IPv6 clients go there and IPv4 clients to its IPv4 address, so that each is seen as
//! who it is; one with an IPv4 address only is given both.
//!
//! **A container on several networks.** From Docker 28 on, its IPv4 and its IPv6 gateway may be on different networks. Both endpoints are then
//! asked to publish all ports, the IPv4 one with a label ([`leaves_ipv6`]). The other is not told that it has IPv6 only, so it takes
//! what is left ([`Outside::siblings`]).
//!
//! **Ranges.** Docker asks for the ports of a range one by one. Those that follow each other inside and outside become one forward.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;

use nat::{PortRange, Protocol};
use serde::Deserialize;

use super::message::{self, Binding, NO_PROXY_6_TO_4, PORT_MAP};
use super::{DockerError, Endpoint};
use api::{ForwardKey, ForwardSpec, PortName, UplinkKindName, protocol_name};

/// Most published ports of one container.
pub(super) const MOST: usize = 65_535;
/// The ports for which the user leaves the choice: those that Linux gives out by default (ip(7), `ip_local_port_range`).
const ANY: RangeInclusive<u16> = 32_768..=60_999;

/// Reads the ports that a container publishes; the options may lack them. Fixed ports come first, and those of a range follow each other.
///
/// # Errors
/// Not a list of them, or too many.
pub fn bindings(options: &message::Options) -> Result<Vec<Binding>, DockerError> {
    let Some(value) = options.get(PORT_MAP).filter(|value| !value.is_null()) else { return Ok(Vec::new()) };
    let mut bindings: Vec<Binding> = Vec::deserialize(value).map_err(|error| DockerError::Malformed(error.to_string()))?;
    if bindings.len() > MOST {
        return Err(DockerError::Port(format!("the container publishes {} ports: use at most {MOST}", bindings.len())));
    }
    let order = |binding: &Binding| {
        let Binding { protocol, port, host_ip, first, last } = binding;
        (*first == 0, first != last, *protocol, host_ip.clone(), *first, *port)
    };
    bindings.sort_by_cached_key(order);
    Ok(bindings)
}

/// Whether another endpoint of the container has its IPv6 ports.
pub fn leaves_ipv6(options: &message::Options) -> bool {
    options.get(NO_PROXY_6_TO_4).and_then(serde_json::Value::as_bool).unwrap_or(false)
}

/// Where ports are published.
pub struct Outside<'a> {
    /// The uplink.
    pub uplink: &'a PortName,
    /// Its kind.
    pub kind: UplinkKindName,
    /// Where ports are published that name no address; `None`: everywhere.
    pub listen: Option<IpAddr>,
    /// Whether IPv6 is left to another endpoint of the container.
    pub leaves_ipv6: bool,
    /// Whether a port is another container's.
    pub is_taken: &'a dyn Fn(&ForwardKey) -> bool,
    /// What the container's other endpoints have published at this uplink, which need not be published again.
    pub siblings: &'a [ForwardSpec],
    /// Ports that were found in use.
    pub refused: &'a BTreeSet<(Protocol, u16)>,
}

/// Finds a port for each binding; all or none. A port that the container has already it keeps.
///
/// # Errors
/// A binding that cannot be, or whose ports are in use.
pub fn choose(bindings: &[Binding], endpoint: &Endpoint, outside: &Outside<'_>) -> Result<Vec<ForwardSpec>, DockerError> {
    let mut chosen: Vec<ForwardSpec> = Vec::new();
    let mut before: Option<(Wish, u16)> = None;
    for binding in bindings {
        let wish = Wish::read(binding, endpoint, outside)?;
        let is_free = |port: &u16| {
            !outside.refused.contains(&(wish.protocol, *port))
                && wish.at(*port, outside).all(|new| {
                    let meets = |old: &ForwardSpec| old.key.overlaps(&new.key, outside.kind);
                    !(outside.is_taken)(&new.key) && !chosen.iter().any(meets)
                })
        };
        let known = endpoint.published.iter().chain(outside.siblings);
        let known = known.filter_map(|spec| wish.port_of(spec)).filter(|port| wish.ports.contains(port));
        // A port that was not free for the binding before is not free for this one either.
        let from = before.as_ref().filter(|(other, _)| wish.seeks_like(other)).map_or(*wish.ports.start(), |(_, port)| *port);
        let port = known.chain(from..=*wish.ports.end()).find(is_free);
        let port = port.ok_or_else(|| DockerError::PortsTaken(wish.name()))?;
        for forward in wish.at(port, outside) {
            push(&mut chosen, forward);
        }
        before = Some((wish, port));
    }
    Ok(chosen)
}

/// Adds a forward, to the range that it follows if there is one.
fn push(chosen: &mut Vec<ForwardSpec>, new: ForwardSpec) {
    let key = |spec: &ForwardSpec, ports| (ForwardKey { ports, ..spec.key.clone() }, spec.to.ip());
    let follows = |old: &&mut ForwardSpec| {
        let count = old.key.ports.count();
        key(old, new.key.ports) == key(&new, new.key.ports)
            && u32::from(old.key.ports.first()) + count == u32::from(new.key.ports.first())
            && u32::from(old.to.port()) + count == u32::from(new.to.port())
    };
    // At most one forward of each IP version was added after the range.
    match chosen.iter_mut().rev().take(2).find(follows) {
        Some(old) => {
            if let Some(ports) = PortRange::new(old.key.ports.first(), new.key.ports.last()) {
                old.key.ports = ports;
            }
        }
        None => chosen.push(new),
    }
}

/// What one `-p` comes to.
struct Wish {
    protocol: Protocol,
    port: u16,
    ports: RangeInclusive<u16>,
    /// Where to listen, and the container's address to lead to, of each IP version one at most; none: all is left to other endpoints.
    ends: Vec<(Option<IpAddr>, IpAddr)>,
}

impl Wish {
    fn read(binding: &Binding, endpoint: &Endpoint, outside: &Outside<'_>) -> Result<Self, DockerError> {
        let protocol = match binding.protocol {
            6 => Protocol::Tcp,
            17 => Protocol::Udp,
            132 => return Err(DockerError::Port("SCTP ports cannot be published: use tcp or udp".to_owned())),
            other => return Err(DockerError::Port(format!("IP protocol {other} has no ports to publish: use tcp or udp"))),
        };
        if binding.port == 0 {
            return Err(DockerError::Port("port 0 of a container cannot be published: use 1 to 65535".to_owned()));
        }
        let ports = match (binding.first, binding.last) {
            (0, _) => ANY,
            (first, last) => first..=last.max(first),
        };
        let listen: Option<IpAddr> = match binding.host_ip.as_str() {
            "" => outside.listen,
            text => Some(text.parse().map_err(|_| DockerError::NotAnAddress(text.to_owned(), "an address of the host"))?),
        };
        let ends = ends(endpoint, listen, outside).ok_or_else(|| no_address(binding.port, listen))?;
        Ok(Self { protocol, port: binding.port, ports, ends })
    }

    /// The forwards that publish it at this port, but for those that are published.
    fn at(&self, port: u16, outside: &Outside<'_>) -> impl Iterator<Item = ForwardSpec> {
        let uplink = outside.uplink;
        let forward = move |ports, (listen, to): &(Option<IpAddr>, IpAddr)| ForwardSpec {
            key: ForwardKey { uplink: uplink.clone(), protocol: self.protocol, ports, v6: to.is_ipv6(), listen: *listen },
            to: SocketAddr::new(*to, self.port),
        };
        let ports = PortRange::new(port, port);
        let all = ports.into_iter().flat_map(move |ports| self.ends.iter().map(move |end| forward(ports, end)));
        let is_a_siblings = |new: &ForwardSpec| outside.siblings.iter().any(|old| old.key.overlaps(&new.key, outside.kind));
        all.filter(move |new| outside.leaves_ipv6 || !is_a_siblings(new))
    }

    /// The port at which a forward publishes the same port of a container.
    fn port_of(&self, spec: &ForwardSpec) -> Option<u16> {
        let inside = self.port.checked_sub(spec.to.port()).filter(|_| spec.key.protocol == self.protocol)?;
        let port = spec.key.ports.first().checked_add(inside)?;
        spec.key.ports.contains(port).then_some(port)
    }

    /// Whether a port that is free for one is free for the other.
    fn seeks_like(&self, other: &Self) -> bool {
        let (mine, theirs) = ((self.protocol, &self.ports), (other.protocol, &other.ports));
        mine == theirs && self.ends == other.ends
    }

    /// `tcp port 80 is`, or `all tcp ports from 80 to 90 are`.
    fn name(&self) -> String {
        let (protocol, first, last) = (protocol_name(self.protocol), self.ports.start(), self.ports.end());
        if first == last {
            format!("{protocol} port {first} is")
        } else {
            format!("all {protocol} ports from {first} to {last} are")
        }
    }
}

/// Where to listen, and the container's address to lead to. A link translates within one IP version. The host's sockets lead from either to
/// either, but only where the user says so or the container has no address of the right version.
fn ends(endpoint: &Endpoint, listen: Option<IpAddr>, outside: &Outside<'_>) -> Option<Vec<(Option<IpAddr>, IpAddr)>> {
    let address = |v4: bool| endpoint.addresses.iter().map(ipnet::IpNet::addr).find(|address| address.is_ipv4() == v4);
    let (v4, v6) = (address(true), address(false));
    let mut ends: Vec<(Option<IpAddr>, IpAddr)> = match (outside.kind, listen) {
        (UplinkKindName::Link, None) => v4.into_iter().chain(v6).map(|address| (None, address)).collect(),
        (UplinkKindName::Link, Some(at)) => address(at.is_ipv4()).map(|address| (listen, address)).into_iter().collect(),
        (UplinkKindName::Host, None) => match (v4, v6) {
            (Some(v4), None) if !outside.leaves_ipv6 => vec![(None, v4)],
            _ => {
                let all = [IpAddr::from(Ipv4Addr::UNSPECIFIED), IpAddr::from(Ipv6Addr::UNSPECIFIED)];
                all.into_iter().zip([v4, v6]).filter_map(|(all, address)| Some((Some(all), address?))).collect()
            }
        },
        (UplinkKindName::Host, Some(at)) => {
            address(at.is_ipv4()).or(v4).or(v6).map(|address| (listen, address)).into_iter().collect()
        }
    };
    if ends.is_empty() {
        return None;
    }
    if outside.leaves_ipv6 {
        ends.retain(|(listen, to)| listen.unwrap_or(*to).is_ipv4());
    }
    Some(ends)
}

fn no_address(port: u16, listen: Option<IpAddr>) -> DockerError {
    let at = listen.map_or_else(|| "no address".to_owned(), |address| address.to_string());
    DockerError::Port(format!("port {port} cannot be published at {at}: the container has no address of that IP version"))
}
