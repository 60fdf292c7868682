//! A port as the file, `vsctl`, Docker and the container plugins ask for it: its keys as they are written, and their checks.

use std::fmt;
use std::str::FromStr;

use ipnet::IpNet;
use packet::{Mac, VlanId};
use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::policy::read_beside;
use super::{Netns, PortPolicy, SpecError, VlanList, VlanMode, yes};
use crate::read::{Raw, Read, read, word};
use crate::{BridgeName, InterfaceName, Patch, PatchError, PortName, is_host};

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

    /// The same with a change made to it, after the checks that a port from a file goes through. A port that becomes one of another kind keeps the name
    /// of its device, which another key has then.
    ///
    /// # Errors
    /// As of [`Patch::apply`].
    pub fn changed(&self, patch: &Patch) -> Result<Self, PatchError> {
        let kind = patch.0.get("kind").and_then(|kind| PortKind::deserialize(kind).ok()).unwrap_or(self.kind);
        patch.apply(&Self { kind, ..self.clone() })
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
#[derive(Clone, Serialize)]
pub struct PortTable {
    #[serde(flatten)]
    own: OwnKeys,
    #[serde(flatten, serialize_with = "PortPolicy::write_keys")]
    policy: PortPolicy,
}

/// The keys of a port beside those of its policy.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct OwnKeys {
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
    #[serde(default = "yes", deserialize_with = "read")]
    offload: bool,
}

impl OwnKeys {
    const KEYS: [&'static str; 12] =
        ["name", "bridge", "kind", "netns", "ifname", "device", "mac", "addresses", "vlan", "trunk", "native", "offload"];
}

impl PortTable {
    /// Every key that a port may have.
    pub const KEYS: &'static [&'static str] = &{
        let mut all = [""; OwnKeys::KEYS.len() + PortPolicy::KEYS.len()];
        let (own, policy) = all.split_at_mut(OwnKeys::KEYS.len());
        own.copy_from_slice(&OwnKeys::KEYS);
        policy.copy_from_slice(PortPolicy::KEYS);
        all
    };
}

impl<'de> Deserialize<'de> for PortTable {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(TableVisitor)
    }
}

struct TableVisitor;

impl<'de> Visitor<'de> for TableVisitor {
    type Value = PortTable;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a port")
    }

    fn visit_map<M: MapAccess<'de>>(self, table: M) -> Result<PortTable, M::Error> {
        let (own, policy) = read_beside(table, PortTable::KEYS)?;
        Ok(PortTable { own, policy })
    }
}

impl TryFrom<PortTable> for PortSpec {
    type Error = SpecError;

    fn try_from(PortTable { own: table, policy }: PortTable) -> Result<Self, SpecError> {
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
        if table.kind == PortKind::Link && policy.guard {
            return Err(SpecError::NotForLink(name, "guard"));
        }
        check_addresses(&name, &table.addresses)?;
        match table.mac {
            Some(_) if table.kind == PortKind::Link => return Err(SpecError::NotForLink(name, "mac")),
            Some(mac) if mac.is_group() || mac == Mac::ZERO => return Err(SpecError::GroupMac(name, mac)),
            _ => {}
        }
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
            policy,
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
        let own = OwnKeys {
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
            offload: spec.offload,
        };
        Self { own, policy: spec.policy }
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
    fn every_key_is_read_by_the_port_or_by_its_policy() {
        let error = toml::from_str::<OwnKeys>("x = 1").err().map(|error| error.message().to_owned()).unwrap();
        let read: Vec<&str> = error.split('`').skip(3).step_by(2).collect();
        assert_eq!(read, OwnKeys::KEYS);
        let values =
            ["true", "true", "true", "5", "\"1mbit\"", "\"2mbit\"", "2000", "16", "false", "true", "{ in = \"loss 1%\" }"];
        for (key, value) in PortPolicy::KEYS.iter().zip(values) {
            let policy = port(&format!("{key} = {value}")).unwrap().policy;
            let [rule] = &policy.rules()[..] else { panic!("{policy:?}") };
            assert!(rule.starts_with(key), "{rule}");
            let listed = serde_json::to_value(&policy).unwrap();
            assert_ne!(
                listed[key.replace('-', "_")],
                serde_json::to_value(PortPolicy::default()).unwrap()[key.replace('-', "_")]
            );
            assert!(port(&format!("{key} = [{value}]")).unwrap_err().starts_with("is a list"), "{key}");
        }
        assert_eq!(values.len(), PortPolicy::KEYS.len(), "a value for each key");
        assert!(port("broadcast-limit = -1").unwrap_err().contains("is -1, out of range: use 1 to 4294967295"));
    }

    #[test]
    fn a_port_that_becomes_one_of_another_kind_keeps_the_name_of_its_device() {
        let changed = |spec: &PortSpec, patch: serde_json::Value| {
            let patch: Patch = serde_json::from_value(patch).unwrap();
            spec.changed(&patch).map_err(|error| error.to_string())
        };
        let tap = port("netns = \"x\"\nifname = \"eth7\"\nvlan = 5").unwrap();
        let link = changed(&tap, serde_json::json!({ "kind": "link" })).unwrap();
        assert_eq!(link, PortSpec { kind: PortKind::Link, ..tap.clone() });
        let other = changed(&tap, serde_json::json!({ "kind": "link", "device": "eth8", "vlan": null })).unwrap();
        assert_eq!((other.ifname.as_str(), other.vlans), ("eth8", VlanMode::All));
        assert_eq!(changed(&link, serde_json::json!({ "kind": "tap" })), Ok(tap.clone()));
        assert!(changed(&tap, serde_json::json!({ "device": "eth8" })).unwrap_err().contains("makes its own device"));
        assert!(changed(&link, serde_json::json!({ "guard": true })).unwrap_err().contains("guard"));
        assert!(changed(&tap, serde_json::json!({ "kind": "x" })).unwrap_err().contains("kind"));
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
