//! NAT and connection tracking without I/O.
//!
//! So far this crate holds the vocabulary of destination NAT: a [`Forward`] maps a [`PortRange`] of an uplink to ports of a
//! container. Sessions and translation come with the gateway; `vswitchd` says so when a file asks for a forward.
#![forbid(unsafe_code)]

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

/// The transport protocols that have ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// One port, or several that follow each other. Port 0 is in none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortRange {
    first: u16,
    last: u16,
}

/// Destination NAT of a range of ports, `docker run -p 5000-5100:80-180` in one rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forward {
    /// The protocol.
    pub protocol: Protocol,
    /// The ports on the uplink.
    pub ports: PortRange,
    address: IpAddr,
    first: u16,
}

/// A forward that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ForwardError {
    /// Not a range of ports.
    #[error("\"{0}\" is not a port or a range of ports: write 8080 or 5000-5100, from 1 to 65535")]
    Ports(String),
    /// The last ports of the range would be beyond 65,535.
    #[error("{0} ports from {1} on go beyond 65535: choose a lower port")]
    BeyondLast(u32, u16),
    /// Not an address with a port.
    #[error("\"{0}\" is not an address with a port: write 10.10.0.2:80 or [fd10::2]:80")]
    Target(String),
}

impl PortRange {
    /// Number of ports, 1 to 65,535.
    pub const fn count(self) -> u32 {
        self.last as u32 - self.first as u32 + 1
    }

    /// Whether the port is one of them.
    pub const fn contains(self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }
}

impl FromStr for PortRange {
    type Err = ForwardError;

    fn from_str(text: &str) -> Result<Self, ForwardError> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let number = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0 && !text.starts_with('+'));
        match (number(first), number(last)) {
            (Some(first), Some(last)) if first <= last => Ok(Self { first, last }),
            _ => Err(ForwardError::Ports(text.to_owned())),
        }
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last { self.first.fmt(f) } else { write!(f, "{}-{}", self.first, self.last) }
    }
}

impl Forward {
    /// A forward of `ports` to as many ports from that of `target` on.
    ///
    /// # Errors
    /// The target's ports would go beyond 65,535, or its port is 0.
    pub fn new(protocol: Protocol, ports: PortRange, target: SocketAddr) -> Result<Self, ForwardError> {
        if target.port() == 0 {
            return Err(ForwardError::Target(target.to_string()));
        }
        if u32::from(target.port()) + ports.count() - 1 > u32::from(u16::MAX) {
            return Err(ForwardError::BeyondLast(ports.count(), target.port()));
        }
        Ok(Self { protocol, ports, address: target.ip(), first: target.port() })
    }

    /// Where a packet to `port` of the uplink goes; `None` if this forward does not cover it.
    pub fn target(&self, port: u16) -> Option<SocketAddr> {
        let inside = self.ports.contains(port).then(|| port - self.ports.first)?;
        Some(SocketAddr::new(self.address, self.first + inside))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ranges_are_parsed_or_named() {
        assert_eq!("8080".parse::<PortRange>().unwrap().count(), 1);
        assert_eq!("5000-5100".parse::<PortRange>().unwrap().to_string(), "5000-5100");
        for bad in ["", "0", "0-5", "5-4", "1-65536", "a", "1-2-3", "+80", "-5"] {
            assert_eq!(bad.parse::<PortRange>(), Err(ForwardError::Ports(bad.to_owned())));
        }
    }

    #[test]
    fn a_range_that_does_not_fit_is_refused() {
        let target = "10.0.0.2:65530".parse().unwrap();
        let error = Forward::new(Protocol::Tcp, "1-10".parse().unwrap(), target).unwrap_err();
        assert_eq!(error, ForwardError::BeyondLast(10, 65530));
    }

    proptest! {
        #[test]
        fn ports_map_one_to_one(first in 1u16.., count in 0u16..200, to in 1u16.., port: u16) {
            let last = first.saturating_add(count);
            let ports = PortRange { first, last };
            let target = SocketAddr::new([10, 0, 0, 2].into(), to);
            if let Ok(forward) = Forward::new(Protocol::Udp, ports, target) {
                let expected = ports.contains(port).then(|| SocketAddr::new([10, 0, 0, 2].into(), to + (port - first)));
                prop_assert_eq!(forward.target(port), expected);
            } else {
                prop_assert!(u32::from(to) + ports.count() > 65536);
            }
        }
    }
}
