//! An uplink as the file and `vsctl` ask for it: its keys as they are written, and their checks; also the errors of forwards.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use packet::Mac;
use serde::{Deserialize, Serialize};

use super::read::{Raw, Read, address as ip_address, cidr, read, word};
use super::{InterfaceName, PortName};

/// A way to the rest of the world, as `switch.toml` describes it. Its name is that of a port too: captures and counters know it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "UplinkTable", into = "UplinkTable")]
pub struct UplinkSpec {
    /// Its name.
    pub name: PortName,
    /// What it is made of.
    pub kind: UplinkKind,
}

/// What an uplink is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UplinkKind {
    /// Addresses of the switch's own on a real interface.
    Link {
        /// The interface.
        device: InterfaceName,
        /// Where its addresses come from.
        address: UplinkAddress,
        /// The routers that lead on from there; at most one of each family.
        gateways: Vec<IpAddr>,
        /// Its MAC address; `None`: one of the switch's own.
        mac: Option<Mac>,
    },
    /// The host's own sockets.
    Host {
        /// Whether they lead into no network of other containers and virtual machines of the host, which the host reaches by a bridge device.
        isolate_bridges: bool,
    },
}

/// Where the addresses of an uplink come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UplinkAddress {
    /// They are given.
    Static(Vec<IpNet>),
    /// DHCP (RFC 2131), which gives the gateway too.
    Dhcp,
}

/// The name of an uplink's kind, on the command line and in replies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UplinkKindName {
    /// [`UplinkKind::Link`].
    Link,
    /// [`UplinkKind::Host`].
    Host,
}

impl fmt::Display for UplinkKindName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Link => "link",
            Self::Host => "host",
        })
    }
}

impl Read for UplinkKindName {
    fn read(raw: Raw) -> Result<Self, String> {
        word(raw, &[("link", Self::Link), ("host", Self::Host)])
    }
}

impl FromStr for UplinkKindName {
    type Err = UplinkError;

    fn from_str(text: &str) -> Result<Self, UplinkError> {
        match text {
            "link" => Ok(Self::Link),
            "host" => Ok(Self::Host),
            _ => Err(UplinkError::Kind(text.to_owned())),
        }
    }
}

impl UplinkSpec {
    /// The name of its kind.
    pub const fn kind_name(&self) -> UplinkKindName {
        match self.kind {
            UplinkKind::Link { .. } => UplinkKindName::Link,
            UplinkKind::Host { .. } => UplinkKindName::Host,
        }
    }

    /// The interface that it takes.
    pub const fn device(&self) -> Option<&InterfaceName> {
        match &self.kind {
            UplinkKind::Link { device, .. } => Some(device),
            UplinkKind::Host { .. } => None,
        }
    }

    /// Whether its addresses come by DHCP.
    pub const fn is_by_dhcp(&self) -> bool {
        matches!(self.kind, UplinkKind::Link { address: UplinkAddress::Dhcp, .. })
    }

    /// Its addresses, where they are given.
    pub fn addresses(&self) -> &[IpNet] {
        match &self.kind {
            UplinkKind::Link { address: UplinkAddress::Static(addresses), .. } => addresses,
            _ => &[],
        }
    }
}

/// What contradicts itself about an uplink or a forward.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UplinkError {
    /// An unknown kind.
    #[error("\"{0}\" is not a kind of uplink: use link or host")]
    Kind(String),
    /// A link without a device.
    #[error("uplink \"{0}\" of kind link needs `device`, the interface that it takes")]
    NoDevice(PortName),
    /// A link without addresses.
    #[error("uplink \"{0}\" of kind link needs `address`: write \"192.0.2.10/24\" or \"dhcp\"")]
    NoAddress(PortName),
    /// Something that the host's sockets have no use for.
    #[error("uplink \"{0}\" of kind host uses the host's own sockets: leave out `{1}`")]
    NotForHost(PortName, &'static str),
    /// Something that only the host's sockets have a use for.
    #[error("uplink \"{0}\" of kind link has addresses of its own, by which no bridge of the host is reached: leave out `{1}`")]
    NotForLink(PortName, &'static str),
    /// Not an address.
    #[error("`address` of uplink \"{0}\": {1}; write an address with its prefix, such as \"192.0.2.10/24\", or \"dhcp\"")]
    Address(PortName, String),
    /// Not a gateway's address.
    #[error("`gateway` of uplink \"{0}\": {1}")]
    Gateway(PortName, String),
    /// An address that no host may have.
    #[error("uplink \"{0}\" cannot have the address {1}: it is that of a subnet, a group or everybody")]
    NotAHost(PortName, IpNet),
    /// More addresses than NAT uses.
    #[error("uplink \"{0}\" has more than one {1} address: give it one")]
    TooMany(PortName, &'static str),
    /// A gateway that cannot be reached.
    #[error("gateway {1} of uplink \"{0}\" is not in the subnet of its address: use one that is")]
    GatewayOutside(PortName, IpAddr),
    /// A gateway that is the uplink itself.
    #[error("gateway {1} of uplink \"{0}\" is its own address: use that of the router there")]
    GatewayIsSelf(PortName, IpAddr),
    /// A gateway beside DHCP.
    #[error("uplink \"{0}\" gets its gateway by DHCP: leave out `gateway`, or give it an `address`")]
    GatewayWithDhcp(PortName),
    /// A MAC address that no station may have.
    #[error("MAC address {1} of uplink \"{0}\" is a group address or zero: use a unicast one, such as 02:00:00:00:00:0a")]
    GroupMac(PortName, Mac),
    /// A transport protocol without ports.
    #[error("\"{0}\" is not a protocol to forward: use tcp or udp")]
    Protocol(String),
    /// Ports that do not fit.
    #[error(transparent)]
    Ports(#[from] nat::ForwardError),
    /// Not an address of a host.
    #[error(
        "\"{0}\" is not an address to listen on: write one of the uplink's own, such as 192.0.2.10 or ::1, or leave it out for all"
    )]
    Listen(String),
    /// Not a target.
    #[error("\"{0}\" is not an address with a port: write 10.10.0.2:80 or [fd10::2]:80")]
    Target(String),
}

impl UplinkError {
    /// The keys of the table that it is about, the wrong one first.
    pub fn keys(&self) -> &'static [&'static str] {
        match self {
            Self::Kind(_) => &["kind"],
            Self::NoDevice(_) => &["kind", "device"],
            Self::NoAddress(_) => &["address", "kind"],
            Self::NotForHost(_, key) | Self::NotForLink(_, key) => match *key {
                "device" => &["device", "kind"],
                "address" => &["address", "kind"],
                "gateway" => &["gateway", "kind"],
                "mac" => &["mac", "kind"],
                _ => &["isolate-bridges", "kind"],
            },
            Self::Address(..) | Self::NotAHost(..) | Self::TooMany(_, "IPv4" | "IPv6") => &["address"],
            Self::Gateway(..) | Self::TooMany(..) => &["gateway"],
            Self::GatewayOutside(..) | Self::GatewayIsSelf(..) | Self::GatewayWithDhcp(_) => &["gateway", "address"],
            Self::GroupMac(..) => &["mac"],
            Self::Protocol(_) => &["protocol"],
            Self::Ports(_) => &["port"],
            Self::Listen(_) => &["listen"],
            Self::Target(_) => &["to"],
        }
    }
}

/// One text or several.
#[derive(Clone, Serialize)]
#[serde(untagged)]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

impl Read for OneOrMore {
    fn read(raw: Raw) -> Result<Self, String> {
        match raw {
            Raw::List(_) => Read::read(raw).map(Self::More),
            raw => raw.text("an address, or a list of them").map(Self::One),
        }
    }
}

impl OneOrMore {
    fn list(self) -> Vec<String> {
        match self {
            Self::One(text) => vec![text],
            Self::More(texts) => texts,
        }
    }

    fn of(texts: Vec<String>) -> Option<Self> {
        match <[String; 1]>::try_from(texts) {
            Ok([one]) => Some(Self::One(one)),
            Err(texts) => (!texts.is_empty()).then_some(Self::More(texts)),
        }
    }
}

/// An uplink as it is written: each value of its kind, but not yet whether they fit together.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct UplinkTable {
    #[serde(deserialize_with = "read")]
    name: PortName,
    #[serde(deserialize_with = "read")]
    kind: UplinkKindName,
    #[serde(default, deserialize_with = "read", skip_serializing_if = "Option::is_none")]
    device: Option<InterfaceName>,
    #[serde(default, deserialize_with = "read", skip_serializing_if = "Option::is_none")]
    address: Option<OneOrMore>,
    #[serde(default, deserialize_with = "read", skip_serializing_if = "Option::is_none")]
    gateway: Option<OneOrMore>,
    #[serde(default, deserialize_with = "read", skip_serializing_if = "Option::is_none")]
    mac: Option<Mac>,
    #[serde(default, deserialize_with = "read", skip_serializing_if = "Option::is_none")]
    isolate_bridges: Option<bool>,
}

impl TryFrom<UplinkTable> for UplinkSpec {
    type Error = UplinkError;

    fn try_from(table: UplinkTable) -> Result<Self, UplinkError> {
        let UplinkTable { name, kind, device, address, gateway, mac, isolate_bridges } = table;
        if kind == UplinkKindName::Host {
            let given = [
                (device.is_some(), "device"),
                (address.is_some(), "address"),
                (gateway.is_some(), "gateway"),
                (mac.is_some(), "mac"),
            ];
            return match given.into_iter().find(|(given, _)| *given) {
                Some((_, key)) => Err(UplinkError::NotForHost(name, key)),
                None => Ok(Self { name, kind: UplinkKind::Host { isolate_bridges: isolate_bridges.unwrap_or(true) } }),
            };
        }
        if isolate_bridges.is_some() {
            return Err(UplinkError::NotForLink(name, "isolate-bridges"));
        }
        let device = device.ok_or_else(|| UplinkError::NoDevice(name.clone()))?;
        let address = addresses(&name, address.ok_or_else(|| UplinkError::NoAddress(name.clone()))?.list())?;
        let gateways = gateway.map(OneOrMore::list).unwrap_or_default();
        let gateways = gateways_of(&name, &address, &gateways)?;
        if let Some(mac) = mac.filter(|mac| mac.is_group() || *mac == Mac::ZERO) {
            return Err(UplinkError::GroupMac(name, mac));
        }
        Ok(Self { name, kind: UplinkKind::Link { device, address, gateways, mac } })
    }
}

fn addresses(name: &PortName, texts: Vec<String>) -> Result<UplinkAddress, UplinkError> {
    if matches!(&texts[..], [only] if only == "dhcp") {
        return Ok(UplinkAddress::Dhcp);
    }
    if texts.is_empty() {
        return Err(UplinkError::NoAddress(name.clone()));
    }
    let parse = |text: String| cidr(&text).map_err(|wrong| UplinkError::Address(name.clone(), wrong));
    let nets = texts.into_iter().map(parse).collect::<Result<Vec<_>, _>>()?;
    if let Some(bad) = nets.iter().find(|net| !is_host(net)) {
        return Err(UplinkError::NotAHost(name.clone(), *bad));
    }
    for (family, v4) in [("IPv4", true), ("IPv6", false)] {
        if nets.iter().filter(|net| net.addr().is_ipv4() == v4).count() > 1 {
            return Err(UplinkError::TooMany(name.clone(), family));
        }
    }
    Ok(UplinkAddress::Static(nets))
}

/// Whether a host may have the address.
pub fn is_host(net: &IpNet) -> bool {
    let address = net.addr();
    let bad = address.is_unspecified() || address.is_multicast() || address.is_loopback();
    let edge = match net {
        IpNet::V4(net) => net.prefix_len() < 31 && (net.addr() == net.network() || net.addr() == net.broadcast()),
        IpNet::V6(net) => net.prefix_len() < 127 && net.addr() == net.network(),
    };
    !bad && !edge
}

fn gateways_of(name: &PortName, address: &UplinkAddress, texts: &[String]) -> Result<Vec<IpAddr>, UplinkError> {
    let nets = match address {
        UplinkAddress::Dhcp if texts.is_empty() => return Ok(Vec::new()),
        UplinkAddress::Dhcp => return Err(UplinkError::GatewayWithDhcp(name.clone())),
        UplinkAddress::Static(nets) => nets,
    };
    let gateway = |text: &String| {
        let gateway = ip_address(text).map_err(|wrong| UplinkError::Gateway(name.clone(), wrong))?;
        if nets.iter().any(|net| net.addr() == gateway) {
            return Err(UplinkError::GatewayIsSelf(name.clone(), gateway));
        }
        let link_local = matches!(gateway, IpAddr::V6(address) if address.is_unicast_link_local());
        if !link_local && !nets.iter().any(|net| net.contains(&gateway)) {
            return Err(UplinkError::GatewayOutside(name.clone(), gateway));
        }
        Ok(gateway)
    };
    let gateways = texts.iter().map(gateway).collect::<Result<Vec<_>, _>>()?;
    for (family, v4) in [("IPv4 gateway", true), ("IPv6 gateway", false)] {
        if gateways.iter().filter(|gateway| gateway.is_ipv4() == v4).count() > 1 {
            return Err(UplinkError::TooMany(name.clone(), family));
        }
    }
    Ok(gateways)
}

impl From<UplinkSpec> for UplinkTable {
    fn from(spec: UplinkSpec) -> Self {
        let name = spec.name.clone();
        let kind = spec.kind_name();
        match spec.kind {
            UplinkKind::Host { isolate_bridges } => {
                let isolate_bridges = (!isolate_bridges).then_some(false);
                Self { name, kind, device: None, address: None, gateway: None, mac: None, isolate_bridges }
            }
            UplinkKind::Link { device, address, gateways, mac } => {
                let address = match address {
                    UplinkAddress::Dhcp => Some(OneOrMore::One("dhcp".to_owned())),
                    UplinkAddress::Static(nets) => OneOrMore::of(nets.iter().map(ToString::to_string).collect()),
                };
                let gateway = OneOrMore::of(gateways.iter().map(ToString::to_string).collect());
                Self { name, kind, device: Some(device), address, gateway, mac, isolate_bridges: None }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uplink(rest: &str) -> Result<UplinkSpec, String> {
        toml::from_str(&format!("name = \"wan\"\n{rest}")).map_err(|error| error.message().to_owned())
    }

    #[test]
    fn contradictions_of_uplinks_are_named() {
        let link = "kind = \"link\"\ndevice = \"eth0\"\n";
        for (rest, part) in [
            ("kind = \"wifi\"".to_owned(), "is \"wifi\": write \"link\" or \"host\""),
            ("kind = \"link\"".to_owned(), "needs `device`"),
            (link.to_owned(), "needs `address`"),
            (
                format!("{link}address = \"192.0.2.10\""),
                "has no prefix length: add it, such as /24; write an address with its prefix",
            ),
            (format!("{link}address = \"192.0.2.0/24\""), "cannot have the address"),
            (format!("{link}address = \"192.0.2.255/24\""), "cannot have the address"),
            (format!("{link}address = [\"192.0.2.1/24\", \"192.0.2.2/24\"]"), "more than one IPv4 address"),
            (format!("{link}address = \"192.0.2.10/24\"\ngateway = \"192.0.3.1\""), "not in the subnet"),
            (format!("{link}address = \"192.0.2.10/24\"\ngateway = \"192.0.2.10\""), "its own address"),
            (format!("{link}address = \"dhcp\"\ngateway = \"192.0.2.1\""), "by DHCP"),
            (format!("{link}address = \"dhcp\"\nmac = \"01:00:00:00:00:00\""), "group address"),
            (format!("{link}address = \"dhcp\"\nisolate-bridges = true"), "leave out `isolate-bridges`"),
            ("kind = \"host\"\ndevice = \"eth0\"".to_owned(), "leave out `device`"),
        ] {
            let error = uplink(&rest).unwrap_err();
            assert!(error.contains(part), "{rest}: {error}");
        }
    }

    #[test]
    fn what_is_written_reads_back_the_same() {
        for rest in [
            "kind = \"host\"",
            "kind = \"host\"\nisolate-bridges = false",
            "kind = \"link\"\ndevice = \"eth0\"\naddress = \"dhcp\"",
            "kind = \"link\"\ndevice = \"eth0\"\naddress = [\"192.0.2.10/24\", \"2001:db8::10/64\"]\ngateway = \"192.0.2.1\"",
            "kind = \"link\"\ndevice = \"eth0\"\naddress = \"2001:db8::10/64\"\ngateway = \"fe80::1\"\nmac = \"02:00:00:00:00:01\"",
        ] {
            let spec = uplink(rest).unwrap();
            assert_eq!(toml::from_str::<UplinkSpec>(&toml::to_string(&spec).unwrap()).unwrap(), spec);
            assert_eq!(serde_json::from_str::<UplinkSpec>(&serde_json::to_string(&spec).unwrap()).unwrap(), spec);
        }
    }
}
