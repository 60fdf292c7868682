//! Published ports: which ports of the host `-p` and `-P` become.
//!
//! Docker reserves nothing for a remote driver: it says what will do, a port or a range or any, and the driver finds one that is free. Who
//! else has a port is known for certain only when it is opened, so [`choose`] is asked again with what was found taken.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

use nat::Protocol;
use serde::Deserialize;

use super::message::{self, Binding, PORT_MAP};
use super::{DockerError, Endpoint};
use crate::api::{ForwardKey, ForwardSpec, PortName, UplinkKindName, protocol_name};

/// Most ports of one container.
const MOST: usize = 1024;
/// The ports for which the user leaves the choice: those that Linux gives out by default (ip(7), `ip_local_port_range`).
const ANY: RangeInclusive<u16> = 32_768..=60_999;

/// Reads the ports that a container publishes; the options may lack them.
///
/// # Errors
/// Not a list of them, or too many.
pub fn bindings(options: &message::Options) -> Result<Vec<Binding>, DockerError> {
    let Some(value) = options.get(PORT_MAP).filter(|value| !value.is_null()) else { return Ok(Vec::new()) };
    let bindings = Vec::deserialize(value).map_err(|error| DockerError::Malformed(error.to_string()))?;
    if bindings.len() > MOST {
        Err(DockerError::TooMany(format!("{MOST} published ports of one container")))
    } else {
        Ok(bindings)
    }
}

/// Where ports are published.
pub struct Outside<'a> {
    /// The uplink.
    pub uplink: &'a PortName,
    /// Its kind: the host's sockets listen for both IP versions at once.
    pub kind: UplinkKindName,
    /// Whether a port is in use.
    pub is_taken: &'a dyn Fn(&ForwardKey) -> bool,
    /// Ports that were found in use.
    pub refused: &'a BTreeSet<(Protocol, u16)>,
}

/// Finds a port for each binding; all or none.
///
/// # Errors
/// A binding that cannot be, or whose ports are in use.
pub fn choose(bindings: &[Binding], endpoint: &Endpoint, outside: &Outside<'_>) -> Result<Vec<ForwardSpec>, DockerError> {
    let mut chosen: Vec<ForwardSpec> = Vec::new();
    for binding in bindings {
        let wish = Wish::read(binding, endpoint, outside.kind)?;
        let is_free = |port: &u16| {
            !outside.refused.contains(&(wish.protocol, *port))
                && wish.at(*port, outside.uplink).is_some_and(|forwards| {
                    let meets = |new: &ForwardSpec, old: &ForwardSpec| old.key.overlaps(&new.key, outside.kind);
                    forwards.iter().all(|new| !(outside.is_taken)(&new.key) && !chosen.iter().any(|old| meets(new, old)))
                })
        };
        let port = wish.ports.clone().find(is_free);
        let forwards = port.and_then(|port| wish.at(port, outside.uplink));
        chosen.extend(forwards.ok_or_else(|| DockerError::PortsTaken(wish.name()))?);
    }
    Ok(chosen)
}

/// What one `-p` comes to.
struct Wish {
    protocol: Protocol,
    ports: RangeInclusive<u16>,
    listen: Option<IpAddr>,
    /// Of each IP version one at most.
    targets: Vec<SocketAddr>,
}

impl Wish {
    fn read(binding: &Binding, endpoint: &Endpoint, kind: UplinkKindName) -> Result<Self, DockerError> {
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
            "" => None,
            text => Some(text.parse().map_err(|_| DockerError::NotAnAddress(text.to_owned(), "an address of the host"))?),
        };
        let targets = targets(endpoint, binding.port, listen, kind)?;
        Ok(Self { protocol, ports, listen, targets })
    }

    /// The forwards that publish it at this port.
    fn at(&self, port: u16, uplink: &PortName) -> Option<Vec<ForwardSpec>> {
        let ports: nat::PortRange = port.to_string().parse().ok()?;
        let (protocol, listen) = (self.protocol, self.listen);
        let forward = |to: &SocketAddr| ForwardSpec {
            key: ForwardKey { uplink: uplink.clone(), protocol, ports, v6: to.is_ipv6(), listen },
            to: *to,
        };
        Some(self.targets.iter().map(forward).collect())
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

/// Where the traffic goes. A link translates within one IP version; the host's sockets lead from either to either.
fn targets(
    endpoint: &Endpoint,
    port: u16,
    listen: Option<IpAddr>,
    kind: UplinkKindName,
) -> Result<Vec<SocketAddr>, DockerError> {
    let other_version = |address: &IpAddr| listen.is_some_and(|listen| listen.is_ipv4() != address.is_ipv4());
    let mut addresses: Vec<IpAddr> = endpoint.addresses.iter().map(ipnet::IpNet::addr).collect();
    match kind {
        UplinkKindName::Host => {
            addresses.sort_by_key(other_version);
            addresses.truncate(1);
        }
        UplinkKindName::Link => addresses.retain(|address| !other_version(address)),
    }
    if addresses.is_empty() {
        let at = listen.map_or_else(|| "no address".to_owned(), |address| address.to_string());
        return Err(DockerError::Port(format!(
            "port {port} cannot be published at {at}: the container has no address of that IP version"
        )));
    }
    Ok(addresses.into_iter().map(|address| SocketAddr::new(address, port)).collect())
}
