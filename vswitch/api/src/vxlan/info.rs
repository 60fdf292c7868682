//! What is told of a tunnel: as it was asked for, and how it stands with the other hosts.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{Reach, StationSpec, VxlanSpec};
use crate::{BridgeName, InterfaceName, Origin, PeerInfo, PortName, PortState, VlanInfo};

/// The way from a tunnel to the other hosts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnderlayInfo {
    /// The address of this host.
    pub local: IpAddr,
    /// The UDP port.
    pub port: u16,
    /// Whether outer UDP headers have a checksum.
    pub udp_checksum: bool,
    /// TTL or hop limit of outer packets.
    pub ttl: u8,
    /// The UDP port of WireGuard, inside which its frames go.
    #[serde(default)]
    pub wireguard: Option<u16>,
    /// MTU of the way.
    pub underlay_mtu: Option<u32>,
    /// What arrived at its UDP port, whichever tunnel it was meant for, and was dropped, by reason.
    pub underlay_drops: BTreeMap<String, u64>,
}

/// The other hosts of a tunnel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReachInfo {
    /// The hosts that were named.
    pub peers: Vec<IpAddr>,
    /// The hosts that were heard through the group.
    pub heard: Vec<IpAddr>,
    /// How it stands with each of both.
    pub remotes: Vec<PeerInfo>,
    /// The multicast group.
    pub group: Option<IpAddr>,
    /// The interface that it is joined on.
    pub device: Option<InterfaceName>,
}

/// A tunnel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VxlanInfo {
    /// Its name.
    pub name: PortName,
    /// Its bridge.
    pub bridge: BridgeName,
    /// The network.
    pub vni: u32,
    /// The way to the other hosts.
    #[serde(flatten)]
    pub underlay: UnderlayInfo,
    /// The other hosts.
    #[serde(flatten)]
    pub reach: ReachInfo,
    /// Whether MAC addresses are learned.
    pub learn: bool,
    /// Its VLANs; of an access port's kind, the one that it carries untagged.
    #[serde(flatten)]
    pub vlans: VlanInfo,
    /// Most frames a second that go to many.
    pub bum_limit: Option<u32>,
    /// Static entries.
    pub r#static: Vec<StationSpec>,
    /// Largest packet that it carries.
    pub mtu: Option<u16>,
    /// Whether it forwards.
    pub state: PortState,
    /// What the kernel was found to offer, such as `udp_gso` and `udp_gro`.
    pub features: Vec<String>,
    /// What asked for it.
    pub origin: Origin,
}

impl VxlanInfo {
    /// A row about a tunnel, without what only the running one knows.
    pub fn new(spec: &VxlanSpec, origin: Origin, state: PortState) -> Self {
        let (group, device) = match &spec.reach {
            Reach::Peers(_) => (None, None),
            Reach::Group(group, device) => (Some(*group), Some(device.clone())),
        };
        Self {
            name: spec.name.clone(),
            bridge: spec.bridge.clone(),
            vni: spec.vni.number(),
            underlay: UnderlayInfo {
                local: spec.local,
                port: spec.port,
                udp_checksum: spec.udp_checksum,
                ttl: spec.ttl,
                wireguard: spec.wireguard,
                underlay_mtu: None,
                underlay_drops: BTreeMap::new(),
            },
            reach: ReachInfo { peers: spec.reach.peers(), heard: Vec::new(), remotes: Vec::new(), group, device },
            learn: spec.learn,
            vlans: VlanInfo::from(&spec.vlans),
            bum_limit: spec.bum_limit,
            r#static: spec.stations.clone(),
            mtu: None,
            state,
            features: Vec::new(),
            origin,
        }
    }
}
