//! The options of ports and tunnels.

use std::net::IpAddr;

use clap::Args;
use packet::{Mac, VlanId};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::complete;
use super::impair::ImpairOptions;
use super::stp::StpOptions;
use super::words::{NONE, OrNone, cidr_or_none, frames_or_none, on_or_off, station};
use api::read::{address, number};
use api::{
    BridgeName, InterfaceName, Netns, Patch, PortKind, PortName, Rate, StationSpec, StpCost, StpEdge, StpPortPriority,
    UplinkKindName, VlanList,
};

/// The VLANs of a port.
#[derive(Debug, Args)]
struct VlanOptions {
    /// Makes it an access port of this VLAN.
    #[arg(long, value_name = "N", conflicts_with_all = ["trunk", "native"])]
    vlan: Option<VlanId>,
    /// Makes it a trunk of these VLANs, tagged.
    #[arg(long, value_name = "N,N-N")]
    trunk: Vec<VlanList>,
    /// The VLAN of untagged frames on the trunk.
    #[arg(long, value_name = "N", requires = "trunk")]
    native: Option<VlanId>,
}

#[derive(Debug, Args)]
pub(super) struct PortOptions {
    /// tap, veth or link (an interface that exists already).
    #[arg(long)]
    kind: Option<PortKind>,
    /// The namespace of its device: a name, a path, or pid:N.
    #[arg(long, value_name = "NS", value_parser = super::arguments::netns)]
    netns: Option<Netns>,
    /// The name of its device there.
    #[arg(long, value_name = "IF")]
    ifname: Option<InterfaceName>,
    /// The interface that a link takes.
    #[arg(long, value_name = "IF")]
    device: Option<InterfaceName>,
    /// Its device's MAC address, or none for one that vswitchd draws.
    #[arg(long)]
    mac: Option<OrNone<Mac>>,
    /// An address to set on its device, such as 10.0.0.2/24, instead of those that it has; may be repeated. none takes them away.
    #[arg(long, value_name = "CIDR", value_parser = cidr_or_none)]
    address: Vec<String>,
    #[command(flatten)]
    vlans: VlanOptions,
    /// Unplugs it: its station sees no carrier, and nothing passes.
    #[arg(long, conflicts_with = "up")]
    down: bool,
    /// Plugs it in again.
    #[arg(long)]
    up: bool,
    #[command(flatten)]
    policy: PolicyOptions,
    /// Exchanges super-frames and partial checksums with the kernel: on or off.
    #[arg(long, value_name = "ON", value_parser = on_or_off)]
    offload: Option<bool>,
}

/// The keys of a port's policy that were said, as `switch.toml` spells them; `null` takes one away.
#[derive(Debug, Args, Serialize)]
#[serde(rename_all = "kebab-case")]
struct PolicyOptions {
    /// Drops frames whose source is not this port's: on or off.
    #[arg(long, value_name = "ON", value_parser = on_or_off)]
    #[serde(skip_serializing_if = "Option::is_none")]
    guard: Option<bool>,
    /// Keeps frames from other protected ports of the bridge: on or off.
    #[arg(long, value_name = "ON", value_parser = on_or_off)]
    #[serde(skip_serializing_if = "Option::is_none")]
    protected: Option<bool>,
    /// Most broadcast frames a second; 0 lifts the limit.
    #[arg(long, value_name = "N", value_parser = frames_or_none)]
    #[serde(skip_serializing_if = "Option::is_none")]
    broadcast_limit: Option<OrNone<u32>>,
    /// Most that it may send into the switch, such as 10mbit; none lifts the limit.
    #[arg(long, value_name = "RATE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    send_rate: Option<OrNone<Rate>>,
    /// Most that may leave by it; none lifts the limit.
    #[arg(long, value_name = "RATE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    receive_rate: Option<OrNone<Rate>>,
    /// What the way through it costs in the spanning tree, or none for its speed's.
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    stp_cost: Option<OrNone<StpCost>>,
    /// Its priority in the spanning tree, a multiple of 16, or none for 128.
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    stp_priority: Option<OrNone<StpPortPriority>>,
    /// Whether it leads to a station, for the spanning tree: auto, on or off.
    #[arg(long, value_name = "WHAT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    stp_edge: Option<StpEdge>,
    /// Whether a BPDU that comes in, so a bridge where a station should be, takes it down until set-port --up: on or off.
    #[arg(long, value_name = "ON", value_parser = on_or_off)]
    #[serde(skip_serializing_if = "Option::is_none")]
    bpdu_guard: Option<bool>,
    #[command(flatten)]
    #[serde(skip)]
    impair: ImpairOptions,
}

impl PortOptions {
    /// As a `[[port]]` has it, so that one set of rules holds for both.
    pub(super) fn table(self, bridge: &BridgeName, name: &PortName) -> Value {
        let mut keys = self.patch(false).0;
        keys.extend([("name".to_owned(), json!(name)), ("bridge".to_owned(), json!(bridge))]);
        Value::Object(keys)
    }

    /// What `set-port` changes.
    pub(super) fn patch(self, all_vlans: bool) -> Patch {
        let VlanOptions { vlan, trunk, native } = self.vlans;
        let trunk = vlans(trunk);
        let mut keys = said(json!({
            "kind": self.kind, "netns": self.netns, "ifname": self.ifname, "device": self.device,
            "addresses": addresses(self.address), "offload": self.offload, "down": (self.down || self.up).then_some(self.down),
        }));
        keys.extend(self.mac.map(|mac| ("mac".to_owned(), json!(mac))));
        if all_vlans || vlan.is_some() || trunk.is_some() {
            // The new VLANs take the place of all that it had.
            keys.extend(
                [("vlan", json!(vlan)), ("trunk", json!(trunk)), ("native", json!(native))]
                    .map(|(key, value)| (key.to_owned(), value)),
            );
        }
        if let Ok(Value::Object(policy)) = serde_json::to_value(&self.policy) {
            keys.extend(policy);
        }
        keys.extend(self.policy.impair.table().map(|impair| ("impair".to_owned(), impair)));
        Patch(keys)
    }
}

#[derive(Debug, Args)]
pub(super) struct VxlanOptions {
    /// The network, 0 to 16777215.
    #[arg(long, value_name = "N", value_parser = number)]
    vni: i64,
    /// The address of this host that it uses.
    #[arg(long, value_name = "IP", value_parser = address)]
    local: IpAddr,
    /// Another host; may be repeated.
    #[arg(long, value_name = "IP", value_parser = address)]
    peer: Vec<IpAddr>,
    /// The multicast group that floods, instead of peers.
    #[arg(long, value_name = "IP", requires = "device", value_parser = address)]
    group: Option<IpAddr>,
    /// The interface that the group is joined on.
    #[arg(long, value_name = "IF", requires = "group")]
    device: Option<InterfaceName>,
    /// The UDP port of all hosts; 4789 by default.
    #[arg(long, value_name = "N", value_parser = number)]
    port: Option<i64>,
    /// Whether MAC addresses are learned from what arrives: on (default) or off.
    #[arg(long, value_name = "ON", value_parser = on_or_off)]
    learn: Option<bool>,
    /// Whether outer UDP headers have a checksum: on (default) or off.
    #[arg(long, value_name = "ON", value_parser = on_or_off)]
    udp_checksum: Option<bool>,
    /// TTL or hop limit of outer packets; 64 by default, 1 for a group.
    #[arg(long, value_name = "N", value_parser = number)]
    ttl: Option<i64>,
    /// The VLAN of the bridge that it carries, untagged; 1 by default.
    #[arg(long, value_name = "N", conflicts_with_all = ["trunk", "native"])]
    vlan: Option<VlanId>,
    /// The VLANs that it carries, tagged.
    #[arg(long, value_name = "N,N-N")]
    trunk: Vec<VlanList>,
    /// The VLAN of untagged frames on the trunk.
    #[arg(long, value_name = "N", requires = "trunk")]
    native: Option<VlanId>,
    /// Most frames a second out of the tunnel that go to many; 20000 by default, 0 for no limit.
    #[arg(long, value_name = "N", value_parser = number)]
    bum_limit: Option<i64>,
    /// A station known beforehand, MAC=PEER or MAC=PEER=IP; may be repeated.
    #[arg(long, value_name = "MAC=PEER[=IP]", value_parser = station)]
    r#static: Vec<StationSpec>,
}

impl VxlanOptions {
    /// As a `[[vxlan]]` has it, so that one set of rules holds for both.
    pub(super) fn table(self, bridge: &BridgeName, name: &PortName) -> Value {
        let trunk = vlans(self.trunk);
        json!({
            "name": name, "bridge": bridge, "vni": self.vni, "local": self.local, "peers": self.peer, "group": self.group,
            "device": self.device, "port": self.port, "learn": self.learn, "udp-checksum": self.udp_checksum, "ttl": self.ttl,
            "vlan": self.vlan, "trunk": trunk, "native": self.native, "bum-limit": self.bum_limit, "static": self.r#static,
        })
    }
}

/// What `set-br` changes.
#[derive(Debug, Args)]
pub(super) struct BridgeOptions {
    /// Another MTU in bytes, 68 to 65535, with TAPs to 65521.
    #[arg(long, value_name = "BYTES", value_parser = number)]
    mtu: Option<i64>,
    /// How long a MAC address is remembered, such as 300s or 5m.
    #[arg(long, value_name = "TIME")]
    ageing: Option<String>,
    /// Most MAC addresses that it remembers, 1 to 1048576.
    #[arg(long, value_name = "N", value_parser = number)]
    max_macs: Option<i64>,
    /// What happens to STP, LACP, LLDP and the like: drop or pass.
    #[arg(long, value_name = "WHAT")]
    control_frames: Option<String>,
    #[command(flatten)]
    tree: StpOptions,
    /// The addresses of its gateway instead of those that it has; may be repeated. none takes the gateway away.
    #[arg(long, value_name = "CIDR")]
    address: Vec<String>,
    /// The VLAN of its gateway.
    #[arg(long, value_name = "N")]
    gateway_vlan: Option<VlanId>,
    /// Its gateway gives addresses by DHCP: on or off.
    #[arg(long, value_name = "ON", value_parser = on_or_off)]
    dhcp: Option<bool>,
    /// The uplink by which its stations reach the rest of the world, or none.
    #[arg(long, value_name = "NAME", add = complete::uplinks())]
    uplink: Option<String>,
    /// The overlay network that it is a part of, with bridges of other hosts; or none.
    #[arg(long, value_name = "NAME")]
    overlay: Option<String>,
    /// That network is an encrypted one: on or off.
    #[arg(long, value_name = "ON", value_parser = on_or_off)]
    encrypt: Option<bool>,
    /// Nothing is routed between it and other bridges: on or off.
    #[arg(long, value_name = "ON", value_parser = on_or_off)]
    isolated: Option<bool>,
}

impl BridgeOptions {
    pub(super) fn patch(self) -> Patch {
        let mut patch = said(json!({
            "mtu": self.mtu, "ageing": self.ageing, "max-macs": self.max_macs, "control-frames": self.control_frames,
            "gateway-vlan": self.gateway_vlan, "dhcp": self.dhcp, "isolated": self.isolated, "encrypt": self.encrypt,
            "stp": self.tree.stp, "stp-priority": self.tree.stp_priority, "addresses": addresses(self.address),
        }));
        if let Some(uplink) = self.uplink {
            patch.insert("uplink".to_owned(), if uplink == NONE { Value::Null } else { json!(uplink) });
        }
        if let Some(overlay) = self.overlay {
            // What is none of it is not encrypted either.
            let left = [("overlay".to_owned(), Value::Null), ("encrypt".to_owned(), json!(false))];
            if overlay == NONE { patch.extend(left) } else { drop(patch.insert("overlay".to_owned(), json!(overlay))) }
        }
        Patch(patch)
    }
}

/// What `set-uplink` changes.
#[derive(Debug, Args)]
pub(super) struct UplinkOptions {
    /// link (addresses of the switch's own on an interface) or host (the host's own sockets).
    #[arg(long)]
    kind: Option<UplinkKindName>,
    /// The interface of a link.
    #[arg(long, value_name = "IF")]
    device: Option<InterfaceName>,
    /// Addresses of a link instead of those that it has, or dhcp.
    #[arg(long, value_name = "CIDR")]
    address: Vec<String>,
    /// The next hop of a link instead of the one that it has, or none.
    #[arg(long, value_name = "IP")]
    gateway: Vec<String>,
    /// The MAC address of a link, or none for one that vswitchd draws.
    #[arg(long)]
    mac: Option<OrNone<Mac>>,
    /// Of the host's own sockets, whether they do not lead into networks of the host's other containers.
    #[arg(long, value_name = "BOOL", value_parser = on_or_off)]
    isolate_bridges: Option<bool>,
}

impl UplinkOptions {
    /// Another kind has no use for what the old one had; nor has DHCP for a gateway.
    pub(super) fn patch(self) -> Patch {
        let (kind, address) = (self.kind, some(self.address));
        let by_dhcp = address.as_ref().is_some_and(|address| address.iter().any(|address| address == "dhcp"));
        let mut patch = said(json!({
            "kind": kind, "device": self.device, "address": address, "isolate-bridges": self.isolate_bridges,
        }));
        patch.extend(self.mac.map(|mac| ("mac".to_owned(), json!(mac))));
        match &self.gateway[..] {
            [] if by_dhcp => drop(patch.insert("gateway".to_owned(), Value::Null)),
            [] => {}
            [none] if none == NONE => drop(patch.insert("gateway".to_owned(), Value::Null)),
            all => drop(patch.insert("gateway".to_owned(), json!(all))),
        }
        let useless: &[&str] = match kind {
            Some(UplinkKindName::Host) => &["device", "address", "gateway", "mac"],
            Some(UplinkKindName::Link) => &["isolate-bridges"],
            None => &[],
        };
        for key in useless {
            patch.entry(*key).or_insert(Value::Null);
        }
        Patch(patch)
    }
}

/// The keys of a table whose values are not null.
fn said(table: Value) -> Map<String, Value> {
    match table {
        Value::Object(table) => table.into_iter().filter(|(_, value)| !value.is_null()).collect(),
        _ => Map::new(),
    }
}

/// The addresses that were said: all that there are from now on.
fn addresses(said: Vec<String>) -> Option<Vec<String>> {
    match &said[..] {
        [none] if none == NONE => Some(Vec::new()),
        _ => some(said),
    }
}

/// The VLANs of all lists, if there are any.
fn vlans(lists: Vec<VlanList>) -> Option<VlanList> {
    some(lists).map(|lists| lists.into_iter().flat_map(VlanList::into_vec).collect())
}

/// A list, unless nothing is in it.
pub(super) fn some<T>(list: Vec<T>) -> Option<Vec<T>> {
    Some(list).filter(|list| !list.is_empty())
}
