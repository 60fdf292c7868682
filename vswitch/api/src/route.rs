//! Static routes of a bridge's gateway, as the file and `vsctl` write them: a destination and the station that routes on from there.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use super::read::{Raw, Read, address, cidr, parsed};

/// A static route of a gateway, written `10.9.0.0/16 via 10.10.0.5`, or `default via 10.10.0.5`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RouteSpec {
    /// Where it leads; no bits beyond its prefix are set.
    pub to: IpNet,
    /// The station that routes on from there, of the same IP version.
    pub via: IpAddr,
}

/// Not a route.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// Other words.
    #[error("\"{}\" is not a route: write one such as \"10.9.0.0/16 via 10.10.0.5\"", .0.escape_debug())]
    Form(String),
    /// Not an address.
    #[error("route \"{}\": {wrong}", .0.escape_debug(), wrong = .1)]
    Address(String, String),
    /// Both IP versions.
    #[error("route to {0} goes via {1}, of the other IP version: use a next hop of the same")]
    Family(IpNet, IpAddr),
    /// Bits beyond the prefix.
    #[error("route to {0} has bits beyond its prefix: write {1}")]
    Bits(IpNet, IpNet),
}

impl RouteSpec {
    /// Reads the destination of a route: a subnet, or `default` with the IP version of the next hop.
    ///
    /// # Errors
    /// Neither, or bits beyond the prefix.
    pub fn destination(text: &str, v6: bool) -> Result<IpNet, RouteError> {
        if text == "default" {
            return Ok(if v6 {
                IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 0))
            } else {
                IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0))
            });
        }
        let net = cidr(text).map_err(|wrong| RouteError::Address(text.to_owned(), wrong))?;
        if net.trunc() == net { Ok(net) } else { Err(RouteError::Bits(net, net.trunc())) }
    }
}

impl FromStr for RouteSpec {
    type Err = RouteError;

    fn from_str(text: &str) -> Result<Self, RouteError> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let [to, "via", via] = words[..] else { return Err(RouteError::Form(text.to_owned())) };
        let via = address(via).map_err(|wrong| RouteError::Address(text.to_owned(), wrong))?;
        let to = Self::destination(to, via.is_ipv6())?;
        if to.addr().is_ipv4() != via.is_ipv4() {
            return Err(RouteError::Family(to, via));
        }
        Ok(Self { to, via })
    }
}

impl fmt::Display for RouteSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} via {}", self.to, self.via)
    }
}

impl Read for RouteSpec {
    fn read(raw: Raw) -> Result<Self, String> {
        parsed(raw, "a route such as \"10.9.0.0/16 via 10.10.0.5\"")
    }
}

impl TryFrom<String> for RouteSpec {
    type Error = RouteError;

    fn try_from(text: String) -> Result<Self, RouteError> {
        text.parse()
    }
}

impl From<RouteSpec> for String {
    fn from(route: RouteSpec) -> Self {
        route.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_read_as_ip_route_writes_them() {
        for text in ["10.9.0.0/16 via 10.10.0.5", "fd09::/48 via fd10::5", "0.0.0.0/0 via 10.10.0.5"] {
            assert_eq!(text.parse::<RouteSpec>().unwrap().to_string(), text);
        }
        assert_eq!("default via fd10::5".parse::<RouteSpec>().unwrap().to_string(), "::/0 via fd10::5");
        for (text, part) in [
            ("10.9.0.0/16", "is not a route: write one such as"),
            ("10.9.0.0/16 via", "is not a route"),
            ("10.9.0.0 via 10.10.0.5", "has no prefix length: add it, such as /24"),
            ("10.9.0.5/16 via 10.10.0.5", "write 10.9.0.0/16"),
            ("10.9.0.0/16 via fd10::5", "of the other IP version"),
            ("10.9.0.0/16 via 10.10.0.5/24", "has a prefix length, and one address is meant"),
            ("x via y", "is not an IP address"),
        ] {
            let error = text.parse::<RouteSpec>().unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
