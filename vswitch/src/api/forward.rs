use std::fmt;
use std::net::SocketAddr;

use nat::{Forward, PortRange, Protocol};
use serde::{Deserialize, Serialize};

use super::{PortName, UplinkError};

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
    /// Whether it is for IPv6: the two have ports of their own.
    pub v6: bool,
}

impl ForwardSpec {
    /// As NAT knows it.
    pub fn rule(&self) -> Result<Forward, UplinkError> {
        Ok(Forward::new(self.key.protocol, self.key.ports, self.to)?)
    }
}

impl fmt::Display for ForwardKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}{}/{}", self.uplink, protocol_name(self.protocol), if self.v6 { "6" } else { "" }, self.ports)
    }
}

impl ForwardKey {
    /// Reads `tcp/8080` or `udp/5000-5100`; `tcp6` and `udp6` say that it is for IPv6.
    ///
    /// # Errors
    /// Neither.
    pub fn parse(uplink: PortName, text: &str) -> Result<Self, UplinkError> {
        let (protocol, ports) = text.split_once('/').unwrap_or((text, ""));
        let (protocol, v6) = protocol.strip_suffix('6').map_or((protocol, false), |protocol| (protocol, true));
        Ok(Self { uplink, protocol: protocol_of(protocol)?, ports: ports.parse()?, v6 })
    }

    /// Whether both have a port in common.
    pub fn overlaps(&self, other: &Self) -> bool {
        let (mine, theirs) = ((&self.uplink, self.protocol, self.v6), (&other.uplink, other.protocol, other.v6));
        mine == theirs && self.ports.overlaps(other.ports)
    }
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

/// A port, as a number or a text.
#[derive(Clone, Serialize, Deserialize)]
#[serde(untagged)]
enum Ports {
    Number(u16),
    Text(String),
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct ForwardTable {
    uplink: PortName,
    protocol: String,
    port: Ports,
    to: String,
}

impl TryFrom<String> for ForwardKey {
    type Error = UplinkError;

    fn try_from(text: String) -> Result<Self, UplinkError> {
        let (uplink, rest) = text.split_once(' ').ok_or_else(|| UplinkError::Protocol(text.clone()))?;
        let uplink = uplink.parse().map_err(|_| UplinkError::Protocol(text.clone()))?;
        Self::parse(uplink, rest)
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
        let ForwardTable { uplink, protocol, port, to } = table;
        let ports = match port {
            Ports::Number(port) => port.to_string(),
            Ports::Text(text) => text,
        };
        let to: SocketAddr = to.parse().map_err(|_| UplinkError::Target(to))?;
        let key = ForwardKey { uplink, protocol: protocol_of(&protocol)?, ports: ports.parse()?, v6: to.is_ipv6() };
        let spec = Self { key, to };
        spec.rule()?;
        Ok(spec)
    }
}

impl From<ForwardSpec> for ForwardTable {
    fn from(spec: ForwardSpec) -> Self {
        let ForwardKey { uplink, protocol, ports, .. } = spec.key;
        let port = Ports::Text(ports.to_string());
        Self { uplink, protocol: protocol_name(protocol).to_owned(), port, to: spec.to.to_string() }
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
        ] {
            let spec = forward(rest).unwrap();
            assert_eq!(toml::from_str::<ForwardSpec>(&toml::to_string(&spec).unwrap()).unwrap(), spec);
            let key = serde_json::to_string(&spec.key).unwrap();
            assert_eq!(serde_json::from_str::<ForwardKey>(&key).unwrap(), spec.key);
        }
    }

    #[test]
    fn a_key_is_read_as_the_command_line_has_it() {
        let key = |text| ForwardKey::parse("wan".parse().unwrap(), text);
        assert_eq!(key("tcp/8080").unwrap().to_string(), "wan tcp/8080");
        assert_eq!(key("udp6/5-9").unwrap().to_string(), "wan udp6/5-9");
        assert!(!key("udp/5-9").unwrap().overlaps(&key("udp6/5-9").unwrap()));
        assert!(key("udp/5-9").unwrap().overlaps(&key("udp/9-10").unwrap()));
        assert!(!key("udp/5-9").unwrap().overlaps(&key("tcp/5-9").unwrap()));
        assert!(key("8080").is_err() && key("tcp/x").is_err() && key("tcp").is_err());
    }
}
