use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;
use packet::{Mac, VlanId};
use serde::{Deserialize, Serialize};

use super::{BridgeName, InterfaceName, PortName, Rate};

/// A bridge as `switch.toml` describes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", try_from = "BridgeTable", into = "BridgeTable")]
pub struct BridgeSpec {
    /// Its name.
    pub name: BridgeName,
    /// Largest network-layer packet that it carries, in bytes, 68 to 65,535; 1500 by default. Its TAPs and veths get it.
    pub mtu: u16,
    /// How long a MAC address is remembered after its last frame, 1 s to 1,000,000 s; 300 s by default
    /// (IEEE 802.1Q-2022, table 8-6).
    pub ageing: Duration,
    /// Most MAC addresses, 1 to 1,048,576; 8192 by default.
    pub max_macs: u32,
    /// What happens to frames to `01:80:c2:00:00:0x`.
    pub control_frames: ControlFrames,
    /// Addresses of its gateway, the switch itself; none: no gateway.
    pub addresses: Vec<IpNet>,
    /// The VLAN of its gateway; 1 by default, that of untagged frames.
    pub gateway_vlan: VlanId,
    /// Whether its gateway gives addresses by DHCP.
    pub dhcp: bool,
    /// The uplink by which its stations reach the rest of the world.
    pub uplink: Option<PortName>,
    /// Whether nothing is routed between it and other bridges.
    pub isolated: bool,
}

/// What a bridge does with link-local control frames: STP, LACP, LLDP and the rest of `01:80:c2:00:00:0x`. PAUSE frames
/// (`…:01`) are dropped either way: they speak about one link only (IEEE 802.3-2022, annex 31B).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ControlFrames {
    /// Drops them, as a bridge must (IEEE 802.1Q-2022, section 8.6.3).
    #[default]
    Drop,
    /// Floods them, so that labs can run STP or LLDP across the switch.
    Pass,
}

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
    /// Whether frames whose source MAC, IP, ARP or ND addresses are not this port's are dropped.
    pub guard: bool,
    /// Whether no frame goes from it to another protected port of its bridge.
    pub protected: bool,
    /// Most broadcast frames a second that the port may send into the switch; `None`: no limit.
    pub broadcast_limit: Option<u32>,
    /// Most that it may send into the switch; `None`: no limit.
    pub send_rate: Option<Rate>,
    /// Most that may leave by it; `None`: no limit.
    pub receive_rate: Option<Rate>,
    /// Whether super-frames and partial checksums are exchanged with the kernel (TAP, veth, link). Off: every frame is read
    /// and written as it would be on a wire.
    pub offload: bool,
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

/// A network namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Netns {
    /// A name under `/run/netns`, as `ip netns` knows it.
    Name(String),
    /// A namespace file, such as a container's `/proc/1234/ns/net` or `/run/docker/netns/…`.
    Path(PathBuf),
    /// The namespace of a process, written `pid:1234`.
    Pid(u32),
    /// The namespace of a container whose runtime takes the device out of vswitchd's own namespace and brings it there, under
    /// another name; written `sandbox:/run/docker/netns/…`. Addresses and routes are set by the runtime as well.
    Sandbox(PathBuf),
}

impl Netns {
    /// The file that stands for the namespace.
    pub fn path(&self) -> PathBuf {
        match self {
            Self::Name(name) => PathBuf::from("/run/netns").join(name),
            Self::Path(path) | Self::Sandbox(path) => path.clone(),
            Self::Pid(pid) => PathBuf::from(format!("/proc/{pid}/ns/net")),
        }
    }
}

impl TryFrom<String> for Netns {
    type Error = SpecError;

    fn try_from(text: String) -> Result<Self, SpecError> {
        if let Some(pid) = text.strip_prefix("pid:") {
            return match pid.parse() {
                Ok(pid) if pid > 0 => Ok(Self::Pid(pid)),
                _ => Err(SpecError::Netns(text)),
            };
        }
        if let Some(path) = text.strip_prefix("sandbox:") {
            let sound = path.starts_with('/') && !path.contains('\0');
            return if sound { Ok(Self::Sandbox(PathBuf::from(path))) } else { Err(SpecError::Netns(text)) };
        }
        if text.starts_with('/') {
            return if text.contains('\0') { Err(SpecError::Netns(text)) } else { Ok(Self::Path(PathBuf::from(text))) };
        }
        let plain = |c: char| c.is_ascii_graphic() && c != '/';
        if text.is_empty() || text.len() > 255 || !text.chars().all(plain) || text == "." || text == ".." {
            return Err(SpecError::Netns(text));
        }
        Ok(Self::Name(text))
    }
}

impl FromStr for Netns {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        text.to_owned().try_into()
    }
}

impl From<Netns> for String {
    fn from(netns: Netns) -> Self {
        netns.to_string()
    }
}

impl fmt::Display for Netns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Path(path) => path.display().fmt(f),
            Self::Sandbox(path) => write!(f, "sandbox:{}", path.display()),
            Self::Pid(pid) => write!(f, "pid:{pid}"),
        }
    }
}

/// Which VLANs a port carries, and how its untagged frames count.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum VlanMode {
    /// Every VLAN, tagged; untagged frames are VLAN 1. What a port is when nothing is said.
    #[default]
    All,
    /// One VLAN, untagged. Tagged frames are dropped.
    Access(VlanId),
    /// The VLANs listed, tagged.
    Trunk {
        /// Sorted, without repeats, not empty.
        allowed: Vec<VlanId>,
        /// The VLAN of untagged frames; `None`: they are dropped.
        native: Option<VlanId>,
    },
}

impl VlanMode {
    /// What the keys `vlan`, `trunk` (in any order and with repeats) and `native` come to; `None`: nothing is said.
    pub(super) fn from_keys(
        vlan: Option<VlanId>,
        trunk: Option<Vec<VlanId>>,
        native: Option<VlanId>,
    ) -> Result<Option<Self>, VlanError> {
        Ok(Some(match (vlan, trunk, native) {
            (None, None, None) => return Ok(None),
            (Some(vlan), None, None) => Self::Access(vlan),
            (Some(_), ..) => return Err(VlanError::AccessAndTrunk),
            (None, None, Some(_)) => return Err(VlanError::NativeWithoutTrunk),
            (None, Some(trunk), _) if trunk.is_empty() => return Err(VlanError::EmptyTrunk),
            (None, Some(mut allowed), native) => {
                allowed.sort_unstable();
                allowed.dedup();
                Self::Trunk { allowed, native }
            }
        }))
    }
}

/// VLANs that contradict each other; the sentence goes on after the name of the port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VlanError {
    /// Both access and trunk.
    #[error("has both `vlan` and `trunk`: an access port has `vlan`, a trunk has `trunk` and may have `native`")]
    AccessAndTrunk,
    /// A native VLAN without a trunk.
    #[error("has `native` but no `trunk`: list the tagged VLANs in `trunk`")]
    NativeWithoutTrunk,
    /// An empty trunk.
    #[error("has an empty `trunk`: list at least one VLAN, or leave it out")]
    EmptyTrunk,
}

/// A specification that contradicts itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// An unknown kind of port.
    #[error("\"{0}\" is not a kind of port: use tap, veth or link")]
    Kind(String),
    /// Not a namespace.
    #[error("\"{}\" is not a network namespace: use a name under /run/netns, a path, or pid:N", .0.escape_default())]
    Netns(String),
    /// MTU out of range.
    #[error("MTU {0} of bridge \"{1}\" is out of range: use 68 to 65535")]
    Mtu(u32, BridgeName),
    /// An IPv6 gateway on a link that IPv6 cannot use.
    #[error(
        "bridge \"{0}\" has an IPv6 address and would have MTU {1}, but IPv6 takes 1280 and more (RFC 8200, section 5): raise the MTU, or leave out its IPv6 addresses"
    )]
    Ipv6Mtu(BridgeName, u16),
    /// Ageing time out of range.
    #[error("ageing of bridge \"{0}\" is out of range: use 1s to 1000000s")]
    Ageing(BridgeName),
    /// MAC limit out of range.
    #[error("max-macs {0} of bridge \"{1}\" is out of range: use 1 to 1048576")]
    MaxMacs(u32, BridgeName),
    /// An address that no gateway may have.
    #[error(
        "bridge \"{0}\" cannot have the address {1}: it is that of a subnet, a group or everybody; use one of a host in it"
    )]
    NotAHost(BridgeName, IpNet),
    /// Two subnets of one bridge overlap.
    #[error("addresses {1} and {2} of bridge \"{0}\" are in one subnet: give it one address in each")]
    SameSubnet(BridgeName, IpNet, IpNet),
    /// DHCP without a subnet.
    #[error("bridge \"{0}\" has `dhcp` but no address to serve a subnet of: give it `addresses`")]
    DhcpWithoutAddress(BridgeName),
    /// An uplink without a gateway to it.
    #[error("bridge \"{0}\" has `uplink` but no address: give it `addresses`, its gateway's")]
    UplinkWithoutAddress(BridgeName),
    /// Its VLANs.
    #[error("port \"{0}\" {1}")]
    Vlans(PortName, VlanError),
    /// A link without a device.
    #[error("port \"{0}\" of kind link needs `device`, the name of the interface that it takes")]
    LinkWithoutDevice(PortName),
    /// A device on a port that makes its own.
    #[error("port \"{0}\" of kind {1} makes its own device: `device` is for kind link; use `ifname` for the name")]
    DeviceNotLink(PortName, PortKind),
    /// Something that belongs to the owner of a link.
    #[error("port \"{0}\" of kind link takes an interface as it is: leave out `{1}`")]
    NotForLink(PortName, &'static str),
    /// A MAC address that no station may have.
    #[error("MAC address {1} of port \"{0}\" is a group address or zero: use a unicast one, such as 02:00:00:00:00:0a")]
    GroupMac(PortName, Mac),
    /// A storm limit of zero.
    #[error("broadcast-limit of port \"{0}\" is 0, which would cut off ARP: use 1 or more frames a second, or leave it out")]
    ZeroLimit(PortName),
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct BridgeTable {
    name: BridgeName,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mtu: Option<u32>,
    #[serde(default, with = "ageing", skip_serializing_if = "Option::is_none")]
    ageing: Option<Duration>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max_macs: Option<u32>,
    #[serde(default)]
    control_frames: ControlFrames,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    addresses: Vec<IpNet>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gateway_vlan: Option<VlanId>,
    #[serde(default)]
    dhcp: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    uplink: Option<PortName>,
    #[serde(default = "yes")]
    isolated: bool,
}

mod ageing {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(value: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
        let seconds = value.map_or(0, |duration| duration.as_secs());
        serializer.collect_str(&format_args!("{seconds}s"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
        let text = String::deserialize(deserializer)?;
        humantime::parse_duration(&text).map(Some).map_err(|_| {
            de::Error::custom(format!("\"{text}\" is not a time: write a number with a unit, such as \"300s\" or \"5m\""))
        })
    }
}

impl TryFrom<BridgeTable> for BridgeSpec {
    type Error = SpecError;

    fn try_from(table: BridgeTable) -> Result<Self, SpecError> {
        let BridgeTable { name, mtu, ageing, max_macs, control_frames, addresses, .. } = table;
        let mtu = match mtu.unwrap_or(1500) {
            number @ 68..=65_535 => u16::try_from(number).map_err(|_| SpecError::Mtu(number, name.clone()))?,
            number => return Err(SpecError::Mtu(number, name)),
        };
        let ageing = ageing.unwrap_or(Duration::from_secs(300));
        if !(1..=1_000_000).contains(&ageing.as_secs()) {
            return Err(SpecError::Ageing(name));
        }
        let max_macs = max_macs.unwrap_or(8192);
        if !(1..=1 << 20).contains(&max_macs) {
            return Err(SpecError::MaxMacs(max_macs, name));
        }
        check_gateway(&name, &addresses)?;
        check_ipv6_mtu(&name, &addresses, mtu)?;
        if table.dhcp && addresses.is_empty() {
            return Err(SpecError::DhcpWithoutAddress(name));
        }
        if table.uplink.is_some() && addresses.is_empty() {
            return Err(SpecError::UplinkWithoutAddress(name));
        }
        Ok(Self {
            name,
            mtu,
            ageing: Duration::from_secs(ageing.as_secs()),
            max_macs,
            control_frames,
            addresses,
            gateway_vlan: table.gateway_vlan.unwrap_or(VlanId::DEFAULT),
            dhcp: table.dhcp,
            uplink: table.uplink,
            isolated: table.isolated,
        })
    }
}

/// Whether a bridge with these addresses may have this MTU.
pub(crate) fn check_ipv6_mtu(name: &BridgeName, addresses: &[IpNet], mtu: u16) -> Result<(), SpecError> {
    let wrong = mtu < LEAST_IPV6_MTU && addresses.iter().any(|net| net.addr().is_ipv6());
    if wrong { Err(SpecError::Ipv6Mtu(name.clone(), mtu)) } else { Ok(()) }
}

/// Least MTU of a link for IPv6 (RFC 8200, section 5).
const LEAST_IPV6_MTU: u16 = 1280;

fn check_gateway(name: &BridgeName, addresses: &[IpNet]) -> Result<(), SpecError> {
    for (number, net) in addresses.iter().enumerate() {
        if !super::is_host(net) {
            return Err(SpecError::NotAHost(name.clone(), *net));
        }
        let same = |other: &&IpNet| net.contains(&other.network()) || other.contains(&net.network());
        if let Some(other) = addresses[..number].iter().find(same) {
            return Err(SpecError::SameSubnet(name.clone(), *other, *net));
        }
    }
    Ok(())
}

impl From<BridgeSpec> for BridgeTable {
    fn from(spec: BridgeSpec) -> Self {
        Self {
            name: spec.name,
            mtu: Some(spec.mtu.into()),
            ageing: Some(spec.ageing),
            max_macs: Some(spec.max_macs),
            control_frames: spec.control_frames,
            gateway_vlan: Some(spec.gateway_vlan).filter(|_| !spec.addresses.is_empty()),
            addresses: spec.addresses,
            dhcp: spec.dhcp,
            uplink: spec.uplink,
            isolated: spec.isolated,
        }
    }
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct PortTable {
    name: PortName,
    bridge: BridgeName,
    #[serde(default)]
    kind: PortKind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    netns: Option<Netns>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ifname: Option<InterfaceName>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    device: Option<InterfaceName>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mac: Option<Mac>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    addresses: Vec<IpNet>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    vlan: Option<VlanId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    trunk: Option<Vec<VlanId>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    native: Option<VlanId>,
    #[serde(default)]
    guard: bool,
    #[serde(default)]
    protected: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    broadcast_limit: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    send_rate: Option<Rate>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    receive_rate: Option<Rate>,
    #[serde(default = "yes")]
    offload: bool,
}

fn yes() -> bool {
    true
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
        match table.mac {
            Some(_) if table.kind == PortKind::Link => return Err(SpecError::NotForLink(name, "mac")),
            Some(mac) if mac.is_group() || mac == Mac::ZERO => return Err(SpecError::GroupMac(name, mac)),
            _ => {}
        }
        if table.broadcast_limit == Some(0) {
            return Err(SpecError::ZeroLimit(name));
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
            guard: table.guard,
            protected: table.protected,
            broadcast_limit: table.broadcast_limit,
            send_rate: table.send_rate,
            receive_rate: table.receive_rate,
            offload: table.offload,
        })
    }
}

impl BridgeSpec {
    /// The same, after the checks that a bridge from a file went through.
    ///
    /// # Errors
    /// What contradicts itself.
    pub fn checked(self) -> Result<Self, SpecError> {
        BridgeTable::from(self).try_into()
    }
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

impl From<PortSpec> for PortTable {
    fn from(spec: PortSpec) -> Self {
        let (ifname, device) = match spec.kind {
            PortKind::Link => (None, Some(spec.ifname)),
            PortKind::Tap | PortKind::Veth => (Some(spec.ifname), None),
        };
        let (vlan, trunk, native) = match spec.vlans {
            VlanMode::All => (None, None, None),
            VlanMode::Access(vlan) => (Some(vlan), None, None),
            VlanMode::Trunk { allowed, native } => (None, Some(allowed), native),
        };
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
            guard: spec.guard,
            protected: spec.protected,
            broadcast_limit: spec.broadcast_limit,
            send_rate: spec.send_rate,
            receive_rate: spec.receive_rate,
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
            "vlan = 7\nguard = true\nprotected = true",
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

    #[test]
    fn a_bridge_has_ranges() {
        let bridge = |rest: &str| toml::from_str::<BridgeSpec>(&format!("name = \"br0\"\n{rest}"));
        let spec = bridge("").unwrap();
        assert_eq!((spec.mtu, spec.ageing.as_secs(), spec.max_macs), (1500, 300, 8192));
        assert_eq!(toml::from_str::<BridgeSpec>(&toml::to_string(&spec).unwrap()).unwrap(), spec);
        for bad in ["mtu = 67", "mtu = 65536", "ageing = \"0s\"", "ageing = \"soon\"", "max-macs = 0", "max-macs = 2000000"] {
            assert!(bridge(bad).is_err(), "{bad}");
        }
        let with = |address: &str, mtu: u16| bridge(&format!("addresses = [\"{address}\"]\nmtu = {mtu}"));
        assert!(with("fd00::1/64", 1280).is_ok() && with("10.0.0.1/24", 1279).is_ok());
        let error = with("fd00::1/64", 1279).unwrap_err().to_string();
        assert!(error.contains("would have MTU 1279, but IPv6 takes 1280 and more"), "{error}");
    }
}
