//! MAC addresses: six bytes, their text, and which of them are groups or reserved. The file, the API and the data plane share this type.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A 48-bit MAC address (IEEE 802-2014, section 8.2).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// `ff:ff:ff:ff:ff:ff`.
    pub const BROADCAST: Self = Self([0xff; 6]);
    /// `00:00:00:00:00:00`, which no station may use.
    pub const ZERO: Self = Self([0; 6]);

    /// Whether the group bit is set: multicast or broadcast. No frame may come *from* such an address.
    pub const fn is_group(self) -> bool {
        self.0[0] & 1 == 1
    }

    /// Whether this is the broadcast address.
    pub const fn is_broadcast(self) -> bool {
        matches!(self.0, [0xff, 0xff, 0xff, 0xff, 0xff, 0xff])
    }

    /// Whether this is one of the 16 addresses `01:80:c2:00:00:0x` that bridges keep to one link
    /// (IEEE 802.1Q-2022, table 8-1): STP, PAUSE, LACP, LLDP and their kin.
    pub const fn is_link_local_control(self) -> bool {
        matches!(self.0, [0x01, 0x80, 0xc2, 0x00, 0x00, last] if last < 0x10)
    }

    /// The address as a number below 2^48, most significant byte first.
    pub const fn to_u64(self) -> u64 {
        let [a, b, c, d, e, f] = self.0;
        u64::from_be_bytes([0, 0, a, b, c, d, e, f])
    }

    /// The inverse of [`Mac::to_u64`]; the upper 16 bits are ignored.
    pub const fn from_u64(value: u64) -> Self {
        let [_, _, a, b, c, d, e, f] = value.to_be_bytes();
        Self([a, b, c, d, e, f])
    }

    /// The MAC address of a group of IP addresses, or of a broadcast (RFC 1112, section 6.4; RFC 2464, section 7).
    pub const fn of_group(group: std::net::IpAddr) -> Self {
        match group {
            std::net::IpAddr::V4(group) if group.is_broadcast() => Self::BROADCAST,
            std::net::IpAddr::V4(group) => {
                let [_, a, b, c] = group.octets();
                Self([0x01, 0, 0x5e, a & 0x7f, b, c])
            }
            std::net::IpAddr::V6(group) => {
                let [.., a, b, c, d] = group.octets();
                Self([0x33, 0x33, a, b, c, d])
            }
        }
    }

    /// The IPv6 link-local address that a station with this MAC gives itself (RFC 4291, appendix A).
    pub const fn link_local(self) -> std::net::Ipv6Addr {
        let [a, b, c, d, e, f] = self.0;
        std::net::Ipv6Addr::new(
            0xfe80,
            0,
            0,
            0,
            u16::from_be_bytes([a ^ 2, b]),
            u16::from_be_bytes([c, 0xff]),
            u16::from_be_bytes([0xfe, d]),
            u16::from_be_bytes([e, f]),
        )
    }

    /// The IPv6 address that a station with this MAC makes itself in a /64, of which any address is given (RFC 4862, section 5.5.3).
    pub const fn address_in(self, subnet: std::net::Ipv6Addr) -> std::net::Ipv6Addr {
        let host = self.link_local().to_bits() & u64::MAX as u128;
        std::net::Ipv6Addr::from_bits(subnet.to_bits() >> 64 << 64 | host)
    }
}

/// The group that a neighbour solicitation for an address goes to (RFC 4291, section 2.7.1).
pub fn solicited_node(address: std::net::Ipv6Addr) -> std::net::Ipv6Addr {
    let [.., a, b, c] = address.octets();
    std::net::Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), u16::from_be_bytes([b, c]))
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is not a MAC address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not a MAC address: write six bytes in hexadecimal, like 02:00:00:00:00:0a")]
pub struct MacParseError(String);

impl FromStr for Mac {
    type Err = MacParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || MacParseError(text.to_owned());
        let mut bytes = [0; 6];
        let mut parts = text.split([':', '-']);
        for byte in &mut bytes {
            let part = parts.next().filter(|part| matches!(part.len(), 1 | 2)).ok_or_else(error)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| error())?;
        }
        if parts.next().is_some() || text.contains('+') {
            return Err(error());
        }
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for Mac {
    type Error = MacParseError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Mac> for String {
    fn from(mac: Mac) -> Self {
        mac.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_number_round_trip() {
        let mac: Mac = "02:00:5e:10:00:ff".parse().unwrap();
        assert_eq!(mac, Mac([0x02, 0, 0x5e, 0x10, 0, 0xff]));
        assert_eq!(mac.to_string(), "02:00:5e:10:00:ff");
        assert_eq!(Mac::from_u64(mac.to_u64()), mac);
        assert_eq!("2-0-5E-10-0-FF".parse(), Ok(mac));
    }

    #[test]
    fn bad_text_is_named() {
        for text in ["", "02:00:00:00:00", "02:00:00:00:00:00:00", "02:00:00:00:00:0g", "+2:00:00:00:00:00", "002:0:0:0:0:0"] {
            assert_eq!(text.parse::<Mac>(), Err(MacParseError(text.to_owned())));
        }
    }

    #[test]
    fn groups_and_control_addresses_are_told_apart() {
        assert!(Mac::BROADCAST.is_group() && Mac::BROADCAST.is_broadcast());
        assert!(Mac([0x33, 0x33, 0, 0, 0, 1]).is_group());
        assert!(!Mac([0x02, 0, 0, 0, 0, 1]).is_group());
        assert!(Mac([0x01, 0x80, 0xc2, 0, 0, 0x0f]).is_link_local_control());
        assert!(!Mac([0x01, 0x80, 0xc2, 0, 0, 0x10]).is_link_local_control());
    }

    #[test]
    fn link_local_address_is_the_modified_eui_64() {
        let mac = Mac([0x02, 0x11, 0x22, 0x33, 0x44, 0x55]);
        assert_eq!(mac.link_local().to_string(), "fe80::11:22ff:fe33:4455");
        assert_eq!(mac.address_in("fd10:0:0:7::9".parse().unwrap()).to_string(), "fd10::7:11:22ff:fe33:4455");
    }
}
