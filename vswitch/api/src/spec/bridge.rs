//! A bridge as the file, `vsctl`, Docker and the container plugins ask for it: its keys as they are written, and their checks.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use packet::VlanId;
use serde::{Deserialize, Serialize, Serializer};

use super::stp::{Stp, StpBridgePriority};
use super::{SpecError, yes};
use crate::read::{Raw, Read, read, word, write_seconds};
use crate::{BridgeName, OverlayName, PortName, RouteSpec, is_host};

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
    /// Whether it is part of a spanning tree.
    pub stp: Stp,
    /// Its priority there.
    pub stp_priority: StpBridgePriority,
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
    /// Subnets behind stations that route, no destination twice; each next hop is in one of its subnets, or link-local.
    pub routes: Vec<RouteSpec>,
    /// The overlay network that it is a part of, with the bridges of other hosts that name it too.
    pub overlay: Option<OverlayName>,
    /// Whether that network is an encrypted one.
    pub encrypt: bool,
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

impl BridgeSpec {
    /// The same, after the checks that a bridge from a file went through.
    ///
    /// # Errors
    /// What contradicts itself.
    pub fn checked(self) -> Result<Self, SpecError> {
        BridgeTable::from(self).try_into()
    }
}

/// A bridge as it is written: each value of its kind, but not yet whether they fit together.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct BridgeTable {
    #[serde(deserialize_with = "read")]
    name: BridgeName,
    #[serde(default, deserialize_with = "read", skip_serializing_if = "Option::is_none")]
    mtu: Option<i64>,
    #[serde(default, deserialize_with = "read", serialize_with = "write_ageing", skip_serializing_if = "Option::is_none")]
    ageing: Option<Duration>,
    #[serde(default, deserialize_with = "read", skip_serializing_if = "Option::is_none")]
    max_macs: Option<i64>,
    #[serde(default, deserialize_with = "read")]
    control_frames: ControlFrames,
    #[serde(default, deserialize_with = "read", skip_serializing_if = "Stp::is_off")]
    stp: Stp,
    #[serde(default, deserialize_with = "read", skip_serializing_if = "is_default")]
    stp_priority: StpBridgePriority,
    #[serde(default, deserialize_with = "read", skip_serializing_if = "Vec::is_empty")]
    addresses: Vec<IpNet>,
    #[serde(default, deserialize_with = "read", skip_serializing_if = "Option::is_none")]
    gateway_vlan: Option<VlanId>,
    #[serde(default, deserialize_with = "read")]
    dhcp: bool,
    #[serde(default, deserialize_with = "read", skip_serializing_if = "Option::is_none")]
    uplink: Option<PortName>,
    #[serde(default = "yes", deserialize_with = "read")]
    isolated: bool,
    #[serde(default, deserialize_with = "read", skip_serializing_if = "Vec::is_empty")]
    routes: Vec<RouteSpec>,
    #[serde(default, deserialize_with = "read", skip_serializing_if = "Option::is_none")]
    overlay: Option<OverlayName>,
    #[serde(default, deserialize_with = "read", skip_serializing_if = "std::ops::Not::not")]
    encrypt: bool,
}

fn is_default(priority: &StpBridgePriority) -> bool {
    *priority == StpBridgePriority::default()
}

fn write_ageing<S: Serializer>(value: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    write_seconds(&value.unwrap_or_default(), serializer)
}

impl Read for ControlFrames {
    fn read(raw: Raw) -> Result<Self, String> {
        word(raw, &[("drop", Self::Drop), ("pass", Self::Pass)])
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
        let max_macs = match u32::try_from(max_macs) {
            Ok(number @ 1..=0x10_0000) => number,
            _ => return Err(SpecError::MaxMacs(max_macs, name)),
        };
        check_gateway(&name, &addresses)?;
        check_ipv6_mtu(&name, &addresses, mtu)?;
        check_routes(&name, &addresses, &table.routes)?;
        if table.dhcp && addresses.is_empty() {
            return Err(SpecError::DhcpWithoutAddress(name));
        }
        if table.uplink.is_some() && addresses.is_empty() {
            return Err(SpecError::UplinkWithoutAddress(name));
        }
        if table.encrypt && table.overlay.is_none() {
            return Err(SpecError::EncryptWithoutOverlay(name));
        }
        Ok(Self {
            name,
            mtu,
            ageing: Duration::from_secs(ageing.as_secs()),
            max_macs,
            control_frames,
            stp: table.stp,
            stp_priority: table.stp_priority,
            addresses,
            gateway_vlan: table.gateway_vlan.unwrap_or(VlanId::DEFAULT),
            dhcp: table.dhcp,
            uplink: table.uplink,
            isolated: table.isolated,
            routes: table.routes,
            overlay: table.overlay,
            encrypt: table.encrypt,
        })
    }
}

impl From<BridgeSpec> for BridgeTable {
    fn from(spec: BridgeSpec) -> Self {
        Self {
            name: spec.name,
            mtu: Some(spec.mtu.into()),
            ageing: Some(spec.ageing),
            max_macs: Some(spec.max_macs.into()),
            control_frames: spec.control_frames,
            stp: spec.stp,
            stp_priority: spec.stp_priority,
            gateway_vlan: Some(spec.gateway_vlan).filter(|_| !spec.addresses.is_empty()),
            addresses: spec.addresses,
            dhcp: spec.dhcp,
            uplink: spec.uplink,
            isolated: spec.isolated,
            routes: spec.routes,
            overlay: spec.overlay,
            encrypt: spec.encrypt,
        }
    }
}

/// Whether a bridge with these addresses may have this MTU.
pub fn check_ipv6_mtu(name: &BridgeName, addresses: &[IpNet], mtu: u16) -> Result<(), SpecError> {
    let wrong = mtu < LEAST_IPV6_MTU && addresses.iter().any(|net| net.addr().is_ipv6());
    if wrong { Err(SpecError::Ipv6Mtu(name.clone(), mtu)) } else { Ok(()) }
}

/// Least MTU of a link for IPv6 (RFC 8200, section 5).
const LEAST_IPV6_MTU: u16 = 1280;

fn check_gateway(name: &BridgeName, addresses: &[IpNet]) -> Result<(), SpecError> {
    for (number, net) in addresses.iter().enumerate() {
        if !is_host(net) {
            return Err(SpecError::NotAHost(name.clone(), *net));
        }
        let same = |other: &&IpNet| net.contains(&other.network()) || other.contains(&net.network());
        if let Some(other) = addresses[..number].iter().find(same) {
            return Err(SpecError::SameSubnet(name.clone(), *other, *net));
        }
    }
    Ok(())
}

/// Most static routes of a bridge.
const MOST_ROUTES: usize = 256;

fn check_routes(name: &BridgeName, addresses: &[IpNet], routes: &[RouteSpec]) -> Result<(), SpecError> {
    if routes.len() > MOST_ROUTES {
        return Err(SpecError::Routes(name.clone(), routes.len()));
    }
    for (number, route) in routes.iter().enumerate() {
        let via = route.via;
        let link_local = matches!(via, IpAddr::V6(via) if via.is_unicast_link_local());
        let gateway = |v6: bool| addresses.iter().any(|net| net.addr().is_ipv6() == v6);
        let on_link = addresses.iter().any(|net| net.contains(&via)) || link_local && gateway(true);
        if !on_link || via.is_multicast() || via.is_unspecified() {
            return Err(SpecError::NextHopOutside(name.clone(), *route, addresses.to_vec()));
        }
        if addresses.iter().any(|net| net.addr() == via) {
            return Err(SpecError::NextHopIsGateway(name.clone(), *route));
        }
        if addresses.iter().any(|net| net.trunc() == route.to) {
            return Err(SpecError::RouteToSubnet(name.clone(), *route));
        }
        if let Some(other) = routes[..number].iter().find(|other| other.to == route.to) {
            return Err(SpecError::SameRoute(name.clone(), *other, *route));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_hop_of_a_route_is_on_the_bridge() {
        let with = |routes: &str| {
            let text = format!("name = \"br0\"\naddresses = [\"10.10.0.1/24\", \"fd10::1/64\"]\nroutes = [{routes}]");
            toml::from_str::<BridgeSpec>(&text).map_err(|error| error.message().to_owned())
        };
        let spec = with("\"10.9.0.0/16 via 10.10.0.5\", \"fd09::/48 via fd10::5\", \"fd08::/48 via fe80::5\"").unwrap();
        assert_eq!(toml::from_str::<BridgeSpec>(&toml::to_string(&spec).unwrap()).unwrap(), spec);
        for (routes, part) in [
            (
                "\"10.9.0.0/16 via 10.11.0.5\"",
                "is in none of the bridge's subnets: use a station's address in 10.10.0.1/24 or fd10::1/64",
            ),
            ("\"10.9.0.0/16 via 10.10.0.1\"", "is the gateway itself"),
            ("\"10.10.0.0/24 via 10.10.0.5\"", "is the bridge's own subnet"),
            ("\"10.9.0.0/16 via 10.10.0.5\", \"10.9.0.0/16 via 10.10.0.6\"", "leads to the same subnet as"),
            ("\"10.9.0.0/16\"", "is not a route"),
        ] {
            let error = with(routes).unwrap_err();
            assert!(error.contains(part), "{routes}: {error}");
        }
        assert!(toml::from_str::<BridgeSpec>("name = \"br0\"\nroutes = [\"10.9.0.0/16 via 10.10.0.5\"]").is_err());
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
