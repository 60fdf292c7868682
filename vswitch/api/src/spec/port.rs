//! A port as the file, `vsctl`, Docker and the container plugins ask for it: its keys as they are written, and their checks.

use std::fmt;
use std::str::FromStr;

use ipnet::IpNet;
use packet::{Mac, VlanId};
use serde::{Deserialize, Serialize};

use super::{Netns, PortPolicy, SpecError, VlanList, VlanMode, yes};
use crate::read::{Raw, Read, read, word};
use crate::{BridgeName, InterfaceName, PortName, Rate, is_host};

/// A port as `switch.toml` describes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "PortTable", into = "PortTable")]
pub struct PortSpec {
    /// Its name.
    pub name: PortName,
    /// The bridge that it is on.
    pub bridge: BridgeName,
    /// What carries its frames.
    pub kind: PortKind,
    /// Where the device is (TAP: made there; veth: the far end is put there; link: found there). `None`: where vswitchd runs.
    pub netns: Option<Netns>,
    /// The name of the device: the one that the station sees. For a link, the device that exists already.
    pub ifname: InterfaceName,
    /// The MAC address of the device; `None`: the kernel's choice.
    pub mac: Option<Mac>,
    /// Addresses set on the device.
    pub addresses: Vec<IpNet>,
    /// Its VLANs.
    pub vlans: VlanMode,
    /// What it may do, and how much.
    pub policy: PortPolicy,
    /// Whether super-frames and partial checksums are exchanged with the kernel (TAP, veth, link). Off: every frame is read
    /// and written as it would be on a wire.
    pub offload: bool,
}

impl PortSpec {
    /// Whether a container's runtime takes the device to its place.
    pub const fn is_handed_over(&self) -> bool {
        matches!(self.netns, Some(Netns::Sandbox(_)))
    }

    /// The same, after the checks that a port from a file went through.
    ///
    /// # Errors
    /// What contradicts itself.
    pub fn checked(self) -> Result<Self, SpecError> {
        PortTable::from(self).try_into()
    }
}

/// What carries the frames of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PortKind {
    /// A TAP device.
    #[default]
    Tap,
    /// A veth pair, the switch on one end through a packet socket.
    Veth,
    /// An interface that exists already, through a packet socket.
    Link,
}

impl fmt::Display for PortKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Tap => "tap",
            Self::Veth => "veth",
            Self::Link => "link",
        })
    }
}

impl Read for PortKind {
    fn read(raw: Raw) -> Result<Self, String> {
        word(raw, &[("tap", Self::Tap), ("veth", Self::Veth), ("link", Self::Link)])
    }
}

impl FromStr for PortKind {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        match text {
            "tap" => Ok(Self::Tap),
            "veth" => Ok(Self::Veth),
            "link" => Ok(Self::Link),
            _ => Err(SpecError::Kind(text.to_owned())),
        }
    }
}

/// A port as it is written: each value of its kind, but not yet whether they fit together.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct PortTable {
    #[serde(deserialize_with = "read")]
    name: PortName,
    #[serde(deserialize_with = "read")]
    bridge: BridgeName,
    #[serde(default, deserialize_with = "read")]
    kind: PortKind,
    #[serde(default, deserialize_with = "read", skip_serializing_if = "Option::is_none")]
    netns: Option<Netns>,
    #[serde(default, deserialize_with = "read", skip_serializing_if = "Option::is_none")]
    ifname: Option<InterfaceName>,
    #[serde(default, deserialize_with = "read", skip_serializing_if = "Option::is_none")]
    device: Option<InterfaceName>,
    #[serde(default, deserialize_with = "read", skip_serializing_if = "Option::is_none")]
    mac: Option<Mac>,
    #[serde(default, deserialize_with = "read", skip_serializing_if = "Vec::is_empty")]
    addresses: Vec<IpNet>,
    #[serde(default, deserialize_with = "read", skip_serializing_if = "Option::is_none")]
    vlan: Option<VlanId>,
    #[serde(default, deserialize_with = "read", skip_serializing_if = "Option::is_none")]
    trunk: Option<VlanList>,
    #[serde(default, deserialize_with = "read", skip_serializing_if = "Option::is_none")]
    native: Option<VlanId>,
    #[serde(default, deserialize_with = "read")]
    guard: bool,
    #[serde(default, deserialize_with = "read")]
    protected: bool,
    #[serde(default, deserialize_with = "read", skip_serializing_if = "is_up")]
    down: bool,
    #[serde(default, deserialize_with = "read", skip_serializing_if = "Option::is_none")]
    broadcast_limit: Option<i64>,
    #[serde(default, deserialize_with = "read", skip_serializing_if = "Option::is_none")]
    send_rate: Option<Rate>,
    #[serde(default, deserialize_with = "read", skip_serializing_if = "Option::is_none")]
    receive_rate: Option<Rate>,
    #[serde(default = "yes", deserialize_with = "read")]
    offload: bool,
}

/// Whether nothing has to be said about a port's being plugged in.
const fn is_up(down: &bool) -> bool {
    !*down
}

impl TryFrom<PortTable> for PortSpec {
    type Error = SpecError;

    fn try_from(table: PortTable) -> Result<Self, SpecError> {
        let name = table.name;
        let ifname = match (table.kind, table.device, table.ifname) {
            (PortKind::Link, _, Some(_)) => return Err(SpecError::NotForLink(name, "ifname")),
            (PortKind::Link, None, None) => return Err(SpecError::LinkWithoutDevice(name)),
            (PortKind::Link, Some(device), None) => device,
            (kind, Some(_), _) => return Err(SpecError::DeviceNotLink(name, kind)),
            (_, None, Some(ifname)) => ifname,
            (_, None, None) if table.netns.is_some() => InterfaceName::eth0(),
            (_, None, None) => InterfaceName::from(&name),
        };
        if table.kind == PortKind::Link && !table.addresses.is_empty() {
            return Err(SpecError::NotForLink(name, "addresses"));
        }
        if table.kind == PortKind::Link && table.guard {
            return Err(SpecError::NotForLink(name, "guard"));
        }
        check_addresses(&name, &table.addresses)?;
        match table.mac {
            Some(_) if table.kind == PortKind::Link => return Err(SpecError::NotForLink(name, "mac")),
            Some(mac) if mac.is_group() || mac == Mac::ZERO => return Err(SpecError::GroupMac(name, mac)),
            _ => {}
        }
        let broadcast_limit = table.broadcast_limit.map(|limit| match u32::try_from(limit) {
            Ok(0) => Err(SpecError::ZeroLimit(name.clone())),
            Ok(limit) => Ok(limit),
            Err(_) => Err(SpecError::Limit(limit, name.clone())),
        });
        let broadcast_limit = broadcast_limit.transpose()?;
        let vlans = VlanMode::from_keys(table.vlan, table.trunk, table.native);
        let vlans = vlans.map_err(|error| SpecError::Vlans(name.clone(), error))?.unwrap_or_default();
        Ok(Self {
            name,
            bridge: table.bridge,
            kind: table.kind,
            netns: table.netns,
            ifname,
            mac: table.mac,
            addresses: table.addresses,
            vlans,
            policy: PortPolicy {
                guard: table.guard,
                protected: table.protected,
                down: table.down,
                broadcast_limit,
                send_rate: table.send_rate,
                receive_rate: table.receive_rate,
            },
            offload: table.offload,
        })
    }
}

fn check_addresses(name: &PortName, addresses: &[IpNet]) -> Result<(), SpecError> {
    for (index, net) in addresses.iter().enumerate() {
        if !is_host(net) {
            return Err(SpecError::NotAStation(name.clone(), *net));
        }
        if addresses[..index].iter().any(|other| other.addr() == net.addr()) {
            return Err(SpecError::SameAddress(name.clone(), net.addr()));
        }
    }
    Ok(())
}

impl From<PortSpec> for PortTable {
    fn from(spec: PortSpec) -> Self {
        let (ifname, device) = match spec.kind {
            PortKind::Link => (None, Some(spec.ifname)),
            PortKind::Tap | PortKind::Veth => (Some(spec.ifname), None),
        };
        let (vlan, trunk, native) = spec.vlans.keys();
        Self {
            name: spec.name,
            bridge: spec.bridge,
            kind: spec.kind,
            netns: spec.netns,
            ifname,
            device,
            mac: spec.mac,
            addresses: spec.addresses,
            vlan,
            trunk,
            native,
            guard: spec.policy.guard,
            protected: spec.policy.protected,
            down: spec.policy.down,
            broadcast_limit: spec.policy.broadcast_limit.map(i64::from),
            send_rate: spec.policy.send_rate,
            receive_rate: spec.policy.receive_rate,
            offload: spec.offload,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(rest: &str) -> Result<PortSpec, String> {
        toml::from_str(&format!("name = \"a\"\nbridge = \"br0\"\n{rest}")).map_err(|error| error.message().to_owned())
    }

    #[test]
    fn a_port_of_nothing_but_names_is_a_tap_on_the_host() {
        let spec = port("").unwrap();
        assert_eq!((spec.kind, spec.ifname.as_str(), spec.vlans), (PortKind::Tap, "a", VlanMode::All));
        assert_eq!(port("netns = \"a\"").unwrap().ifname.as_str(), "eth0");
        assert_eq!(port("kind = \"link\"\ndevice = \"eth1\"").unwrap().ifname.as_str(), "eth1");
    }

    #[test]
    fn contradictions_are_named() {
        for (rest, part) in [
            ("vlan = 1\ntrunk = [2]", "both `vlan` and `trunk`"),
            ("native = 1", "no `trunk`"),
            ("trunk = []", "empty"),
            ("vlan = 4095", "4095 is not a VLAN"),
            ("kind = \"link\"", "needs `device`"),
            ("device = \"eth1\"", "makes its own device"),
            ("mac = \"ff:ff:ff:ff:ff:ff\"", "group address"),
            ("addresses = [\"10.0.0.255/24\"]", "\"a\" cannot have the address 10.0.0.255/24"),
            ("addresses = [\"10.0.0.2/24\", \"10.0.0.2/16\"]", "has the address 10.0.0.2 twice"),
            ("broadcast-limit = 0", "cut off ARP"),
            ("colour = \"red\"", "unknown field `colour`"),
            ("netns = \"a/b\"", "not a network namespace"),
            ("netns = \"pid:x\"", "not a network namespace"),
        ] {
            let error = port(rest).unwrap_err();
            assert!(error.contains(part), "{rest}: {error}");
        }
    }

    #[test]
    fn a_port_written_reads_back_the_same() {
        for rest in [
            "",
            "vlan = 7\nguard = true\nprotected = true\ndown = true",
            "trunk = \"1-100,200\"",
            "trunk = [20, 10, 20]\nnative = 1",
            "kind = \"veth\"\nnetns = \"pid:7\"",
            "kind = \"link\"\ndevice = \"eth1\"\noffload = false",
            "mac = \"02:00:00:00:00:0a\"\naddresses = [\"10.0.0.1/8\", \"fd00::1/64\"]",
        ] {
            let spec = port(rest).unwrap();
            assert_eq!(toml::from_str::<PortSpec>(&toml::to_string(&spec).unwrap()).unwrap(), spec);
            assert_eq!(serde_json::from_str::<PortSpec>(&serde_json::to_string(&spec).unwrap()).unwrap(), spec);
        }
    }
}
