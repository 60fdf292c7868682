//! Published ports: their specification, and the key that says where one is published and whether two are in each other's way.
//! The file, `vsctl`, Docker and the container plugins ask for them; `ForwardSpec::rule` turns one into a rule for the crate `nat`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use nat::{Forward, PortRange, Protocol};
use serde::{Deserialize, Serialize};

use super::read::{Raw, Read, read};
use super::{PortName, UplinkError, UplinkKindName};

/// A published port: destination NAT on an uplink, as `switch.toml` describes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "ForwardTable", into = "ForwardTable")]
pub struct ForwardSpec {
    /// Where it is published.
    pub key: ForwardKey,
    /// Where the first of its ports goes; the others go to those that follow.
    pub to: SocketAddr,
}

/// Where a port is published; no two forwards share a port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ForwardKey {
    /// The uplink.
    pub uplink: PortName,
    /// The protocol.
    pub protocol: Protocol,
    /// The ports on the uplink.
    pub ports: PortRange,
    /// Whether it goes to an IPv6 address. At a link the two versions have ports of their own.
    pub v6: bool,
    /// The address there; `None`: every one that the uplink has. The unspecified one stands for all of its version.
    pub listen: Option<IpAddr>,
}

impl ForwardSpec {
    /// As NAT knows it.
    pub fn rule(&self) -> Result<Forward, UplinkError> {
        let mut rule = Forward::new(self.key.protocol, self.key.ports, self.to)?;
        if let Some(address) = self.key.listen.filter(|address| !is_of_a_host(*address)) {
            return Err(UplinkError::Listen(address.to_string()));
        }
        rule.external = self.key.listen.filter(|address| !address.is_unspecified());
        Ok(rule)
    }
}

/// As vsctl takes it.
impl fmt::Display for ForwardKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}{}/{}", self.uplink, protocol_name(self.protocol), if self.v6 { "6" } else { "" }, self.ports)?;
        self.listen.map_or(Ok(()), |address| write!(f, "{LISTEN}{address}"))
    }
}

/// Between the ports and the address of a key that is a text.
const LISTEN: &str = " --listen ";

impl ForwardKey {
    /// Reads `tcp/8080` or `udp/5000-5100`; `tcp6` and `udp6` say that it goes to an IPv6 address. `listen` is the address there.
    ///
    /// # Errors
    /// Neither, or not an address that an uplink or a host may have.
    pub fn parse(uplink: PortName, text: &str, listen: Option<&str>) -> Result<Self, UplinkError> {
        let (protocol, ports) = text.split_once('/').unwrap_or((text, ""));
        let (protocol, v6) = protocol.strip_suffix('6').map_or((protocol, false), |protocol| (protocol, true));
        let listen = listen.map(listen_of).transpose()?;
        Ok(Self { uplink, protocol: protocol_of(protocol)?, ports: ports.parse()?, v6, listen })
    }

    /// Whether both have a port of an address in common, on an uplink of this kind. All addresses are in the way of one, as for the
    /// sockets of a host.
    pub fn overlaps(&self, other: &Self, kind: UplinkKindName) -> bool {
        let mine = (&self.uplink, self.protocol);
        mine == (&other.uplink, other.protocol) && self.ports.overlaps(other.ports) && self.meets(other, kind)
    }

    /// Whether both listen on an address in common.
    fn meets(&self, other: &Self, kind: UplinkKindName) -> bool {
        match (self.listen, other.listen) {
            (Some(mine), Some(theirs)) => {
                let all = mine.is_unspecified() || theirs.is_unspecified();
                mine == theirs || all && mine.is_ipv4() == theirs.is_ipv4()
            }
            // At a host, no address is all of both versions.
            _ => kind == UplinkKindName::Host || self.v6 == other.v6,
        }
    }
}

fn listen_of(text: &str) -> Result<IpAddr, UplinkError> {
    let wrong = || UplinkError::Listen(text.to_owned());
    let address = text.parse::<IpAddr>().map_err(|_| wrong())?.to_canonical();
    if is_of_a_host(address) { Ok(address) } else { Err(wrong()) }
}

/// Whether a host may have the address, or it stands for all that it has.
fn is_of_a_host(address: IpAddr) -> bool {
    !address.is_multicast() && address != IpAddr::V4(Ipv4Addr::BROADCAST)
}

/// The name of a protocol.
pub const fn protocol_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    }
}

fn protocol_of(text: &str) -> Result<Protocol, UplinkError> {
    match text {
        "tcp" => Ok(Protocol::Tcp),
        "udp" => Ok(Protocol::Udp),
        _ => Err(UplinkError::Protocol(text.to_owned())),
    }
}

/// A port or a range of them, as a number or a text.
#[derive(Clone, Serialize)]
struct Ports(String);

impl Read for Ports {
    fn read(raw: Raw) -> Result<Self, String> {
        match raw {
            Raw::Number(number) => Ok(Self(number.to_string())),
            raw => raw.text("a port such as 8080, or a range such as 5000-5100").map(Self),
        }
    }
}

/// A forward as it is written: each value of its kind, but not yet whether they fit together.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ForwardTable {
    #[serde(deserialize_with = "read")]
    uplink: PortName,
    #[serde(deserialize_with = "read")]
    protocol: String,
    #[serde(deserialize_with = "read")]
    port: Ports,
    #[serde(default, deserialize_with = "read", skip_serializing_if = "Option::is_none")]
    listen: Option<String>,
    #[serde(deserialize_with = "read")]
    to: String,
}

impl TryFrom<String> for ForwardKey {
    type Error = UplinkError;

    fn try_from(text: String) -> Result<Self, UplinkError> {
        let (uplink, rest) = text.split_once(' ').ok_or_else(|| UplinkError::Protocol(text.clone()))?;
        let uplink = uplink.parse().map_err(|_| UplinkError::Protocol(text.clone()))?;
        let (ports, listen) = rest.split_once(LISTEN).map_or((rest, None), |(ports, listen)| (ports, Some(listen)));
        Self::parse(uplink, ports, listen)
    }
}

impl From<ForwardKey> for String {
    fn from(key: ForwardKey) -> Self {
        key.to_string()
    }
}

impl TryFrom<ForwardTable> for ForwardSpec {
    type Error = UplinkError;

    fn try_from(table: ForwardTable) -> Result<Self, UplinkError> {
        let ForwardTable { uplink, protocol, port, listen, to } = table;
        let to: SocketAddr = to.parse().map_err(|_| UplinkError::Target(to))?;
        let (protocol, ports, v6) = (protocol_of(&protocol)?, port.0.parse()?, to.is_ipv6());
        let key = ForwardKey { uplink, protocol, ports, v6, listen: listen.as_deref().map(listen_of).transpose()? };
        let spec = Self { key, to };
        spec.rule()?;
        Ok(spec)
    }
}

impl From<ForwardSpec> for ForwardTable {
    fn from(spec: ForwardSpec) -> Self {
        let ForwardKey { uplink, protocol, ports, listen, .. } = spec.key;
        let (port, listen) = (Ports(ports.to_string()), listen.map(|address| address.to_string()));
        Self { uplink, protocol: protocol_name(protocol).to_owned(), port, listen, to: spec.to.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forward(rest: &str) -> Result<ForwardSpec, String> {
        toml::from_str(&format!("uplink = \"wan\"\n{rest}")).map_err(|error| error.message().to_owned())
    }

    #[test]
    fn contradictions_of_forwards_are_named() {
        for (rest, part) in [
            ("protocol = \"icmp\"\nport = 1\nto = \"10.0.0.2:80\"", "use tcp or udp"),
            ("protocol = \"tcp\"\nport = \"0\"\nto = \"10.0.0.2:80\"", "not a port"),
            ("protocol = \"tcp\"\nport = \"5-1\"\nto = \"10.0.0.2:80\"", "not a port"),
            ("protocol = \"tcp\"\nport = \"1-10\"\nto = \"10.0.0.2:65530\"", "beyond 65535"),
            ("protocol = \"tcp\"\nport = \"1\"\nto = \"10.0.0.2\"", "not an address with a port"),
            ("protocol = \"tcp\"\nport = 1\nto = \"10.0.0.2:80\"\nlisten = \"lo\"", "\"lo\" is not an address to listen on"),
            ("protocol = \"udp\"\nport = 1\nto = \"10.0.0.2:80\"\nlisten = \"224.0.0.1\"", "not an address to listen on"),
        ] {
            let error = forward(rest).unwrap_err();
            assert!(error.contains(part), "{rest}: {error}");
        }
    }

    #[test]
    fn what_is_written_reads_back_the_same() {
        for rest in [
            "protocol = \"tcp\"\nport = 8080\nto = \"10.0.0.2:80\"",
            "protocol = \"udp\"\nport = \"5-9\"\nto = \"[fd00::2]:5\"",
            "protocol = \"tcp\"\nport = \"5-9\"\nto = \"10.0.0.2:5\"\nlisten = \"::1\"",
        ] {
            let spec = forward(rest).unwrap();
            assert_eq!(toml::from_str::<ForwardSpec>(&toml::to_string(&spec).unwrap()).unwrap(), spec);
            let key = serde_json::to_string(&spec.key).unwrap();
            assert_eq!(serde_json::from_str::<ForwardKey>(&key).unwrap(), spec.key);
        }
    }

    #[test]
    fn a_key_is_read_as_the_command_line_has_it() {
        let key = |text: &str| ForwardKey::try_from(format!("wan {text}"));
        for text in ["tcp/8080", "udp6/5-9", "tcp/80 --listen 127.0.0.1", "tcp6/80 --listen ::1"] {
            assert_eq!(key(text).unwrap().to_string(), format!("wan {text}"));
        }
        assert_eq!(key("tcp/80 --listen ::ffff:192.0.2.1").unwrap(), key("tcp/80 --listen 192.0.2.1").unwrap());
        for wrong in ["8080", "tcp/x", "tcp", "tcp/80 --listen x", "tcp/80 --listen "] {
            assert!(key(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn keys_overlap_where_the_sockets_of_a_host_would() {
        let key = |text: &str| ForwardKey::try_from(format!("wan {text}")).unwrap();
        let (link, host) = (UplinkKindName::Link, UplinkKindName::Host);
        for (one, other, expected) in [
            ("udp/5-9", "udp/9-10", [true, true]),
            ("udp/5-9", "tcp/5-9", [false, false]),
            ("udp/5-9", "udp6/5-9", [false, true]),
            ("tcp/80 --listen 127.0.0.1", "tcp/80 --listen 127.0.0.2", [false, false]),
            ("tcp/80 --listen 127.0.0.1", "tcp6/80 --listen 127.0.0.1", [true, true]),
            ("tcp/80 --listen 127.0.0.1", "tcp/80", [true, true]),
            ("tcp/80 --listen 127.0.0.1", "tcp6/80", [false, true]),
            ("tcp/80 --listen 0.0.0.0", "tcp/80 --listen 127.0.0.1", [true, true]),
            ("tcp/80 --listen 0.0.0.0", "tcp/80 --listen ::", [false, false]),
        ] {
            let both = |kind| [key(one).overlaps(&key(other), kind), key(other).overlaps(&key(one), kind)];
            assert_eq!([both(link), both(host)], expected.map(|it| [it; 2]), "{one}, {other}");
        }
    }
}
