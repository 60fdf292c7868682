//! A lease of the DHCP client: read from an OFFER or ACK, held while it lasts, and in the form in which `state-dir` keeps it.
//! The client alone calls it. Pure functions.

use std::net::Ipv4Addr;
use std::time::Duration;

use ipnet::Ipv4Net;
use packet::Mac;
use serde::{Deserialize, Serialize};

use crate::services::dhcp4::{Message, option};

/// What a server grants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// The address, with its subnet.
    pub address: Ipv4Net,
    /// Default routers, the first preferred.
    pub routers: Vec<Ipv4Addr>,
    /// Routes and their next hops; `0.0.0.0`: on the link (RFC 3442). Where there are some, `routers` do not count.
    #[serde(default)]
    pub routes: Vec<(Ipv4Net, Ipv4Addr)>,
    /// Name servers.
    pub dns: Vec<Ipv4Addr>,
    /// The link's MTU, if the server says it.
    pub mtu: Option<u16>,
    /// The server.
    pub server: Ipv4Addr,
    /// Seconds for which it was granted, from its last renewal.
    pub seconds: u32,
}

/// A lease with its times.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) terms: Terms,
    /// Where the server, or the relay to it, is on the link.
    pub(super) via: Mac,
    /// T1, T2, and the end.
    pub(super) renew: Duration,
    pub(super) rebind: Duration,
    pub(super) end: Duration,
}

/// A lease as it is kept.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Kept {
    mac: Mac,
    via: Mac,
    terms: Terms,
    until: u64,
}

/// Shortest lease that is taken; a server that grants less would be asked without end.
const SHORTEST: u32 = 10;

impl Held {
    /// What an OFFER or ACK says; `None` if it lacks an address, a server or a time, or if no station may have the address.
    pub(super) fn read(now: Duration, message: &Message<'_>, via: Mac) -> Option<Self> {
        let address = message.yiaddr();
        let unusable = address.is_unspecified() || address.is_multicast() || address.is_broadcast() || address.is_loopback();
        let mask = message.address(option::SUBNET_MASK).unwrap_or_else(|| classful(address));
        let seconds = message.number(option::LEASE)?.max(SHORTEST);
        let mtu = message.option(option::MTU).and_then(|data| data.try_into().ok()).map(u16::from_be_bytes);
        let terms = Terms {
            address: Ipv4Net::with_netmask(address, mask).ok().filter(|_| !unusable)?,
            routers: message.addresses(option::ROUTER),
            routes: routes(message.option(option::ROUTES).unwrap_or_default()),
            dns: message.addresses(option::DNS),
            // Less than 68 is no MTU (RFC 2132, section 5.1).
            mtu: mtu.filter(|mtu| *mtu >= 68),
            server: message.address(option::SERVER)?,
            seconds,
        };
        let (renew, rebind) = times(message, seconds);
        let after = |seconds: u32| now + Duration::from_secs(seconds.into());
        Some(Self { terms, via, renew: after(renew), rebind: after(rebind), end: after(seconds) })
    }
}

/// Classless routes (RFC 3442): the prefix's length, as many bytes of it as matter, the next hop. What is cut off or wrong ends them.
fn routes(mut data: &[u8]) -> Vec<(Ipv4Net, Ipv4Addr)> {
    let mut routes = Vec::new();
    while let [length, rest @ ..] = data {
        let significant = usize::from(length.div_ceil(8));
        let Some((prefix, rest)) = rest.split_at_checked(significant).filter(|_| *length <= 32) else { break };
        let Some((next_hop, rest)) = rest.split_first_chunk::<4>() else { break };
        let mut address = [0; 4];
        address[..significant].copy_from_slice(prefix);
        routes.extend(Ipv4Net::new(address.into(), *length).ok().map(|net| (net.trunc(), Ipv4Addr::from(*next_hop))));
        data = rest;
    }
    routes
}

/// T1 and T2, or their defaults (RFC 2131, section 4.4.5) where the server says none that fit.
fn times(message: &Message<'_>, lease: u32) -> (u32, u32) {
    let (renew, rebind) = (lease / 2, lease - lease / 8);
    let wished = message.number(option::RENEWAL).zip(message.number(option::REBINDING));
    wished.filter(|(renew, rebind)| *renew > 0 && renew < rebind && *rebind < lease).unwrap_or((renew, rebind))
}

/// The mask of an address whose server says none (RFC 950): the network's class.
fn classful(address: Ipv4Addr) -> Ipv4Addr {
    match address.octets()[0] {
        0..128 => Ipv4Addr::new(255, 0, 0, 0),
        128..192 => Ipv4Addr::new(255, 255, 0, 0),
        192.. => Ipv4Addr::new(255, 255, 255, 0),
    }
}

impl Kept {
    pub(super) fn new(mac: Mac, held: &Held) -> Self {
        Self { mac, via: held.via, terms: held.terms.clone(), until: held.end.as_secs() }
    }

    /// The lease, if it is this station's and has not ended.
    pub(super) fn held(self, mac: Mac, now: Duration) -> Option<Held> {
        let end = Duration::from_secs(self.until);
        let held = Held { terms: self.terms, via: self.via, renew: end, rebind: end, end };
        (self.mac == mac && now < end).then_some(held)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn classless_routes_are_read_as_far_as_they_are_whole() {
        let data = [0, 192, 0, 2, 1, 8, 10, 192, 0, 2, 2, 25, 198, 51, 100, 129, 0, 0, 0, 0, 32, 1, 2, 3];
        let read: Vec<String> = routes(&data).iter().map(|(net, via)| format!("{net} {via}")).collect();
        assert_eq!(read, ["0.0.0.0/0 192.0.2.1", "10.0.0.0/8 192.0.2.2", "198.51.100.128/25 0.0.0.0"]);
        assert_eq!(routes(&[33, 1, 2, 3, 4, 5, 6, 7, 8, 9]), []);
    }

    proptest! {
        #[test]
        fn no_routes_panic(data in prop::collection::vec(any::<u8>(), 0..255)) {
            prop_assert!(routes(&data).len() <= data.len() / 5);
        }
    }
}
