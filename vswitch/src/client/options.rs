//! The options of ports and tunnels.

use std::collections::BTreeSet;
use std::net::IpAddr;

use clap::Args;
use clap::builder::BoolishValueParser;
use ipnet::IpNet;
use packet::{Mac, VlanId};
use serde_json::{Value, json};

use crate::api::{BridgeName, InterfaceName, Netns, PortChange, PortKind, PortName, RateChange, StationSpec, VlanChange};

#[derive(Debug, Args)]
pub(super) struct PortOptions {
    /// tap, veth or link (an interface that exists already).
    #[arg(long)]
    kind: Option<PortKind>,
    /// The namespace of its device: a name, a path, or pid:N.
    #[arg(long, value_name = "NS")]
    netns: Option<Netns>,
    /// The name of its device there.
    #[arg(long, value_name = "IF")]
    ifname: Option<InterfaceName>,
    /// The interface that a link takes.
    #[arg(long, value_name = "IF")]
    device: Option<InterfaceName>,
    /// Its device's MAC address.
    #[arg(long)]
    mac: Option<Mac>,
    /// An address to set on its device, such as 10.0.0.2/24; may be repeated.
    #[arg(long, value_name = "CIDR")]
    address: Vec<IpNet>,
    /// Makes it an access port of this VLAN.
    #[arg(long, value_name = "N", conflicts_with_all = ["trunk", "native"])]
    vlan: Option<VlanId>,
    /// Makes it a trunk of these VLANs, tagged.
    #[arg(long, value_name = "N,N", value_delimiter = ',')]
    trunk: Vec<VlanId>,
    /// The VLAN of untagged frames on the trunk.
    #[arg(long, value_name = "N", requires = "trunk")]
    native: Option<VlanId>,
    /// Drops frames whose source is not this port's: on or off.
    #[arg(long, value_name = "ON", value_parser = BoolishValueParser::new())]
    guard: Option<bool>,
    /// Keeps frames from other protected ports of the bridge: on or off.
    #[arg(long, value_name = "ON", value_parser = BoolishValueParser::new())]
    protected: Option<bool>,
    /// Most broadcast frames a second; 0 lifts the limit.
    #[arg(long, value_name = "N")]
    broadcast_limit: Option<u32>,
    /// Most that it may send into the switch, such as 10mbit; none lifts the limit.
    #[arg(long, value_name = "RATE")]
    send_rate: Option<RateChange>,
    /// Most that may leave by it; none lifts the limit.
    #[arg(long, value_name = "RATE")]
    receive_rate: Option<RateChange>,
    /// Exchanges super-frames and partial checksums with the kernel: on or off.
    #[arg(long, value_name = "ON", value_parser = BoolishValueParser::new())]
    offload: Option<bool>,
}

impl PortOptions {
    /// As a `[[port]]` has it, so that one set of rules holds for both.
    pub(super) fn table(self, bridge: &BridgeName, name: &PortName) -> Value {
        let trunk = some(self.trunk);
        json!({
            "name": name, "bridge": bridge, "kind": self.kind, "netns": self.netns, "ifname": self.ifname, "device": self.device,
            "mac": self.mac, "addresses": self.address, "vlan": self.vlan, "trunk": trunk, "native": self.native,
            "guard": self.guard, "protected": self.protected, "broadcast-limit": self.broadcast_limit.filter(|limit| *limit > 0),
            "send-rate": self.send_rate.and_then(RateChange::rate), "receive-rate": self.receive_rate.and_then(RateChange::rate),
            "offload": self.offload,
        })
    }

    pub(super) fn change(self, all_vlans: bool) -> PortChange {
        let vlans = match (self.vlan, self.trunk.is_empty()) {
            (Some(vlan), _) => Some(VlanChange::Access(vlan)),
            (None, false) => Some(VlanChange::Trunk(BTreeSet::from_iter(self.trunk), self.native)),
            (None, true) => all_vlans.then_some(VlanChange::All),
        };
        PortChange {
            kind: self.kind,
            netns: self.netns,
            ifname: self.ifname,
            device: self.device,
            mac: self.mac,
            addresses: some(self.address),
            vlans,
            guard: self.guard,
            protected: self.protected,
            broadcast_limit: self.broadcast_limit,
            send_rate: self.send_rate,
            receive_rate: self.receive_rate,
            offload: self.offload,
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct VxlanOptions {
    /// The network, 0 to 16777215.
    #[arg(long, value_name = "N")]
    vni: i64,
    /// The address of this host that it uses.
    #[arg(long, value_name = "IP")]
    local: IpAddr,
    /// Another host; may be repeated.
    #[arg(long, value_name = "IP")]
    peer: Vec<IpAddr>,
    /// The multicast group that floods, instead of peers.
    #[arg(long, value_name = "IP", requires = "device")]
    group: Option<IpAddr>,
    /// The interface that the group is joined on.
    #[arg(long, value_name = "IF", requires = "group")]
    device: Option<InterfaceName>,
    /// The UDP port of all hosts; 4789 by default.
    #[arg(long, value_name = "N")]
    port: Option<u16>,
    /// Whether MAC addresses are learned from what arrives: on (default) or off.
    #[arg(long, value_name = "ON", value_parser = BoolishValueParser::new())]
    learn: Option<bool>,
    /// Whether outer UDP headers have a checksum: on (default) or off.
    #[arg(long, value_name = "ON", value_parser = BoolishValueParser::new())]
    udp_checksum: Option<bool>,
    /// TTL or hop limit of outer packets; 64 by default, 1 for a group.
    #[arg(long, value_name = "N")]
    ttl: Option<u8>,
    /// The VLAN of the bridge that it carries, untagged; 1 by default.
    #[arg(long, value_name = "N", conflicts_with_all = ["trunk", "native"])]
    vlan: Option<VlanId>,
    /// The VLANs that it carries, tagged.
    #[arg(long, value_name = "N,N", value_delimiter = ',')]
    trunk: Vec<VlanId>,
    /// The VLAN of untagged frames on the trunk.
    #[arg(long, value_name = "N", requires = "trunk")]
    native: Option<VlanId>,
    /// Most frames a second out of the tunnel that go to many; 20000 by default, 0 for no limit.
    #[arg(long, value_name = "N")]
    bum_limit: Option<u32>,
    /// A station known beforehand, MAC=PEER or MAC=PEER=IP; may be repeated.
    #[arg(long, value_name = "MAC=PEER[=IP]", value_parser = station)]
    r#static: Vec<StationSpec>,
}

impl VxlanOptions {
    /// As a `[[vxlan]]` has it, so that one set of rules holds for both.
    pub(super) fn table(self, bridge: &BridgeName, name: &PortName) -> Value {
        let trunk = some(self.trunk);
        json!({
            "name": name, "bridge": bridge, "vni": self.vni, "local": self.local, "peers": self.peer, "group": self.group,
            "device": self.device, "port": self.port, "learn": self.learn, "udp-checksum": self.udp_checksum, "ttl": self.ttl,
            "vlan": self.vlan, "trunk": trunk, "native": self.native, "bum-limit": self.bum_limit, "static": self.r#static,
        })
    }
}

/// A list, unless nothing is in it.
pub(super) fn some<T>(list: Vec<T>) -> Option<Vec<T>> {
    Some(list).filter(|list| !list.is_empty())
}

pub(super) fn station(text: &str) -> Result<StationSpec, String> {
    let mut parts = text.split('=');
    let wrong = || format!("\"{text}\" is not a station: write MAC=PEER or MAC=PEER=IP");
    let mac = parts.next().and_then(|part| part.parse().ok()).ok_or_else(wrong)?;
    let peer = parts.next().and_then(|part| part.parse().ok()).ok_or_else(wrong)?;
    let ip = parts.next().map(|part| part.parse().map_err(|_| wrong())).transpose()?;
    if parts.next().is_some() { Err(wrong()) } else { Ok(StationSpec { mac, peer, ip }) }
}
