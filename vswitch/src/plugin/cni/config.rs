//! A network's configuration, as a runtime passes it on standard input.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use ipnet::IpNet;
use packet::{Mac, VlanId};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::fault::{Code, Fault};
use super::result::Previous;
use crate::json;
use crate::plugin::{askable, first_host};
use api::{
    BridgeName, BridgeSpec, ContainerAddresses, ContainerKey, ContainerNetwork, ContainerSpec, ControlFrames, NetworkName,
    PortKind, PortName, PublishedPort, Rate, Runtime, Stp, StpBridgePriority,
};

/// The versions of CNI that are spoken.
pub(super) const VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];
/// The name of the plugin, as `ipam.type` too.
const OWN: &str = "vswitch-cni";

/// What the configuration says. A runtime may write `null` for what is absent, and adds keys of its own.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct NetworkConfig {
    #[serde(skip)]
    call: Call,
    name: NetworkName,
    bridge: Option<BridgeName>,
    subnets: Option<Vec<IpNet>>,
    uplink: Option<PortName>,
    mtu: Option<u16>,
    isolated: Option<bool>,
    internal: Option<bool>,
    vlan: Option<VlanId>,
    guard: Option<bool>,
    attach: Option<PortKind>,
    ipam: Option<Ipam>,
    dns: Option<Map<String, Value>>,
}

/// What a runtime writes into it for one call.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Call {
    #[serde(default)]
    cni_version: String,
    runtime_config: Option<RuntimeConfig>,
    prev_result: Option<Previous>,
    #[serde(rename = "cni.dev/valid-attachments")]
    valid_attachments: Option<Vec<Attachment>>,
}

#[derive(Debug, Deserialize)]
struct Ipam {
    r#type: Option<String>,
    /// Only where the switch itself chooses; a delegate's are written otherwise.
    #[serde(default)]
    ranges: Value,
}

/// What the capabilities bring.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RuntimeConfig {
    port_mappings: Option<Vec<PortMapping>>,
    bandwidth: Option<Bandwidth>,
    mac: Option<String>,
    ips: Option<Vec<String>>,
    aliases: Option<BTreeMap<String, Vec<String>>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PortMapping {
    host_port: i64,
    container_port: i64,
    protocol: Option<String>,
    #[serde(rename = "hostIP")]
    host_ip: Option<String>,
}

/// Bits a second; 0: no limit. The bursts are the switch's own.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Bandwidth {
    ingress_rate: Option<u64>,
    egress_rate: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct Attachment {
    #[serde(rename = "containerID")]
    container: String,
    ifname: String,
}

/// The version of CNI that a configuration is of; where it is not to be had, the newest.
pub(super) fn version_of(document: &[u8]) -> String {
    let read: Value = serde_json::from_slice(document).unwrap_or_default();
    read["cniVersion"].as_str().filter(|version| VERSIONS.contains(version)).unwrap_or(VERSIONS[VERSIONS.len() - 1]).to_owned()
}

impl NetworkConfig {
    /// Reads a configuration.
    pub(super) fn read(document: &[u8]) -> Result<Self, Fault> {
        let malformed = |what| Fault::new(Code::Decode, format!("the network's configuration is not understood: {what}"));
        let config: Self = json::read(document).map_err(malformed)?;
        let config = Self { call: json::read(document).map_err(malformed)?, ..config };
        let version = &config.call.cni_version;
        if !VERSIONS.contains(&version.as_str()) {
            let (version, known) = (version.escape_debug(), VERSIONS.join(", "));
            return Err(Fault::new(Code::Version, format!("`cniVersion` is \"{version}\": this plugin speaks {known}")));
        }
        Ok(config)
    }

    pub(super) fn version(&self) -> &str {
        &self.call.cni_version
    }

    pub(super) const fn name(&self) -> &NetworkName {
        &self.name
    }

    /// What an earlier plugin of the chain, or ADD, came to.
    pub(super) const fn previous(&self) -> Option<&Previous> {
        self.call.prev_result.as_ref()
    }

    pub(super) fn is_internal(&self) -> bool {
        self.internal.unwrap_or(false)
    }

    /// What the configuration itself says about names.
    pub(super) const fn dns(&self) -> Option<&Map<String, Value>> {
        self.dns.as_ref()
    }

    /// The plugin that gives addresses; `None`: the switch itself does.
    pub(super) fn delegate(&self) -> Option<&str> {
        let kind = self.ipam.as_ref().and_then(|ipam| ipam.r#type.as_deref());
        kind.filter(|kind| !kind.is_empty() && *kind != OWN)
    }

    /// The interfaces that the runtime knows.
    pub(super) fn valid_attachments(&self) -> Result<BTreeSet<ContainerKey>, Fault> {
        let Some(attachments) = &self.call.valid_attachments else {
            return Err(Fault::config("GC needs `cni.dev/valid-attachments`, the list of what is to stay"));
        };
        let key = |Attachment { container, ifname }: &Attachment| {
            let ifname = ifname.parse().map_err(|error| Fault::config(format!("`ifname`: {error}")))?;
            ContainerKey::new(Runtime::Cni, container, ifname).map_err(|error| Fault::config(error.to_string()))
        };
        attachments.iter().map(key).collect()
    }

    /// The network that it describes.
    pub(super) fn network(&self) -> Result<ContainerNetwork, Fault> {
        let bridge = self.bridge.clone().ok_or_else(|| {
            Fault::config("the network has no `bridge`: name one of switch.toml, or one to be made, with its `subnets`")
        })?;
        let make = self.subnets.as_deref().filter(|subnets| !subnets.is_empty());
        let of_a_new_one =
            [(self.uplink.is_some(), "uplink"), (self.mtu.is_some(), "mtu"), (self.isolated.is_some(), "isolated")];
        if let (None, Some((_, key))) = (make, of_a_new_one.into_iter().find(|(given, _)| *given)) {
            return Err(Fault::config(format!(
                "`{key}` is for a bridge that the network makes, by `subnets`: bridge \"{bridge}\" is as switch.toml says, so leave it out"
            )));
        }
        let make = make.map(|subnets| self.new_bridge(&bridge, subnets)).transpose()?;
        let kind = match self.attach {
            Some(PortKind::Link) => return Err(Fault::config("`attach` is \"link\": use \"tap\" or \"veth\"")),
            kind => kind.unwrap_or_default(),
        };
        let (internal, guard) = (self.is_internal(), self.guard.unwrap_or(false));
        Ok(ContainerNetwork { name: self.name.clone(), bridge, make, internal, vlan: self.vlan, guard, kind })
    }

    /// The first address of a subnet is its gateway's, unless another one is written before the prefix.
    fn new_bridge(&self, name: &BridgeName, subnets: &[IpNet]) -> Result<BridgeSpec, Fault> {
        let first = |net: &IpNet| first_host(net).and_then(|first| IpNet::new(first, net.prefix_len()).ok());
        let gateway = |net: &IpNet| if *net == net.trunc() { first(net).unwrap_or(*net) } else { *net };
        if self.is_internal() && self.uplink.is_some() {
            return Err(Fault::config(
                "`uplink` is nothing to an `internal` network, which reaches nothing else: leave out one of the two",
            ));
        }
        let spec = BridgeSpec {
            name: name.clone(),
            mtu: self.mtu.unwrap_or(1500),
            ageing: Duration::from_secs(300),
            max_macs: 8192,
            control_frames: ControlFrames::Drop,
            stp: Stp::Off,
            stp_priority: StpBridgePriority::default(),
            addresses: subnets.iter().map(gateway).collect(),
            gateway_vlan: self.vlan.unwrap_or(VlanId::DEFAULT),
            dhcp: false,
            uplink: self.uplink.clone(),
            isolated: self.is_internal() || self.isolated.unwrap_or(true),
            routes: Vec::new(),
            overlay: None,
            encrypt: false,
        };
        spec.checked().map_err(|error| Fault::config(error.to_string()))
    }

    /// The interface that a container is to have. `arguments` are those of `CNI_ARGS`.
    pub(super) fn container(
        &self,
        key: ContainerKey,
        netns: &Path,
        arguments: &[(String, String)],
    ) -> Result<ContainerSpec, Fault> {
        let none = RuntimeConfig::default();
        let runtime = self.call.runtime_config.as_ref().unwrap_or(&none);
        let pod = arguments.iter().find(|(key, _)| key == "K8S_POD_NAME").map(|(_, name)| name.clone());
        let aliases = runtime.aliases.iter().flat_map(|aliases| aliases.get(self.name.as_str())).flatten().cloned();
        let names = pod.into_iter().chain(std::iter::once(key.container().to_owned())).chain(aliases);
        let rate = |bits: Option<u64>, what: &str| bits.filter(|bits| *bits > 0).map(|bits| rate(bits, what)).transpose();
        let bandwidth = runtime.bandwidth.as_ref();
        let publish = runtime.port_mappings.iter().flatten().map(published).collect::<Result<_, _>>()?;
        let publish = in_ranges(publish);
        Ok(ContainerSpec {
            names: askable(names),
            netns: netns.to_owned(),
            network: self.network()?,
            mac: runtime.mac.as_deref().filter(|text| !text.is_empty()).map(mac).transpose()?,
            addresses: self.addresses(runtime)?,
            gateways: self.is_internal().then(Vec::new),
            routes: Vec::new(),
            send_rate: rate(bandwidth.and_then(|bandwidth| bandwidth.egress_rate), "egressRate")?,
            receive_rate: rate(bandwidth.and_then(|bandwidth| bandwidth.ingress_rate), "ingressRate")?,
            publish,
            key,
        })
    }

    fn addresses(&self, runtime: &RuntimeConfig) -> Result<ContainerAddresses, Fault> {
        if self.delegate().is_some() {
            return Ok(ContainerAddresses::Given(Vec::new()));
        }
        let ranges = self.ipam.as_ref().map_or(Value::Null, |ipam| ipam.ranges.clone());
        let ranges: Option<Vec<IpNet>> = serde_json::from_value(ranges).map_err(|_| {
            Fault::config("`ipam.ranges` are parts of the bridge's subnets to choose from, such as [\"10.10.0.128/25\"]")
        })?;
        let wishes = runtime.ips.iter().flatten().map(|text| address(text)).collect::<Result<_, _>>()?;
        Ok(ContainerAddresses::Chosen { wishes, ranges: ranges.unwrap_or_default() })
    }
}

fn mac(text: &str) -> Result<Mac, Fault> {
    let read = text.parse::<Mac>().ok().filter(|mac| !mac.is_group() && *mac != Mac::ZERO);
    read.ok_or_else(|| {
        Fault::config(format!(
            "`mac` is \"{}\": use the address of one station, such as 02:00:00:00:00:0a",
            text.escape_debug()
        ))
    })
}

/// With a prefix or without: that of the subnet counts.
fn address(text: &str) -> Result<IpAddr, Fault> {
    let read = text.parse::<IpNet>().map(|net| net.addr()).or_else(|_| text.parse::<IpAddr>());
    read.map_err(|_| Fault::config(format!("`ips` has \"{}\": use an address, such as 10.10.0.5", text.escape_debug())))
}

fn rate(bits: u64, what: &str) -> Result<Rate, Fault> {
    format!("{bits}bit").parse().map_err(|error| Fault::config(format!("`bandwidth.{what}`: {error}")))
}

fn published(mapping: &PortMapping) -> Result<PublishedPort, Fault> {
    let port = |number: i64, key: &str| {
        let number = u16::try_from(number).ok().filter(|number| *number > 0);
        number.ok_or_else(|| Fault::config(format!("`{key}` of a port mapping is out of range: use 1 to 65535")))
    };
    let listen = mapping.host_ip.as_deref().filter(|text| !text.is_empty());
    let listen = listen.map(|text| {
        text.parse().map_err(|_| Fault::config(format!("`hostIP` is \"{}\": use an address of the host", text.escape_debug())))
    });
    let protocol = mapping.protocol.as_deref().filter(|text| !text.is_empty()).unwrap_or("tcp").to_ascii_lowercase();
    if !matches!(protocol.as_str(), "tcp" | "udp") {
        let protocol = protocol.escape_debug();
        return Err(Fault::config(format!("{protocol} ports cannot be published: use tcp or udp")));
    }
    let (port, to) = (port(mapping.host_port, "hostPort")?, port(mapping.container_port, "containerPort")?);
    Ok(PublishedPort { protocol, listen: listen.transpose()?, port, to, count: 1 })
}

/// Of ports that follow each other, a range each: the switch takes thousands as one.
fn in_ranges(ports: Vec<PublishedPort>) -> Vec<PublishedPort> {
    let mut ranges: Vec<PublishedPort> = Vec::new();
    for port in ports {
        match ranges.last_mut() {
            Some(range) if follows(range, &port) => range.count += 1,
            _ => ranges.push(port),
        }
    }
    ranges
}

fn follows(range: &PublishedPort, port: &PublishedPort) -> bool {
    let next = |first: u16| first.checked_add(range.count);
    let same = (&range.protocol, range.listen) == (&port.protocol, port.listen);
    same && (next(range.port), next(range.to)) == (Some(port.port), Some(port.to))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn key() -> ContainerKey {
        ContainerKey::new(Runtime::Cni, "box", "eth0".parse().unwrap()).unwrap()
    }

    fn container(mut config: Value) -> Result<ContainerSpec, String> {
        for (name, value) in [("cniVersion", json!("1.1.0")), ("name", json!("net"))] {
            config.as_object_mut().unwrap().entry(name).or_insert(value);
        }
        let sentence = |fault: Fault| fault.document("1.1.0")["msg"].as_str().unwrap().to_owned();
        let config = NetworkConfig::read(config.to_string().as_bytes()).map_err(sentence)?;
        config.container(key(), Path::new("/run/netns/x"), &[("K8S_POD_NAME".to_owned(), "pod".to_owned())]).map_err(sentence)
    }

    #[test]
    fn capabilities_become_what_the_switch_knows() {
        let spec = container(json!({
            "bridge": "br0", "vlan": 7, "guard": true, "ipam": null, "prevResult": null, "capabilities": { "mac": true },
            "runtimeConfig": {
                "portMappings": [{ "hostPort": 8080, "containerPort": 80, "protocol": "TCP", "hostIP": "127.0.0.1" }, { "hostPort": 53, "containerPort": 53, "protocol": "udp" }],
                "bandwidth": { "ingressRate": 8_000_000, "ingressBurst": 1, "egressRate": 0, "egressBurst": 0 },
                "mac": "02:00:00:00:00:0a", "ips": ["10.0.0.9/16", "fd00::9"], "aliases": { "net": ["www"], "other": ["x"] },
            },
        }))
        .unwrap();
        assert_eq!(spec.mac.unwrap().to_string(), "02:00:00:00:00:0a");
        assert_eq!(spec.receive_rate.unwrap().to_string(), "8mbit");
        assert_eq!((spec.send_rate, &spec.gateways, spec.names.join(" ")), (None, &None, "pod box www".to_owned()));
        let wishes = vec!["10.0.0.9".parse().unwrap(), "fd00::9".parse().unwrap()];
        assert_eq!(spec.addresses, ContainerAddresses::Chosen { wishes, ranges: Vec::new() });
        let ports: Vec<String> =
            spec.publish.iter().map(|port| format!("{}/{} {:?}", port.protocol, port.port, port.listen)).collect();
        assert_eq!(ports, ["tcp/8080 Some(127.0.0.1)", "udp/53 None"]);
        assert_eq!((spec.network.vlan.map(VlanId::number), spec.network.guard, spec.network.make), (Some(7), true, None));
    }

    #[test]
    fn ports_that_follow_each_other_are_one_range() {
        let port = |host: u16, to: u16, protocol: &str| json!({ "hostPort": host, "containerPort": to, "protocol": protocol });
        let all = (1..=65_535).map(|number| port(number, number, "tcp"));
        let others = [port(80, 80, "udp"), port(81, 82, "udp"), port(82, 83, "udp"), port(83, 84, "tcp"), port(83, 84, "tcp")];
        let mappings: Vec<Value> = all.chain(others).collect();
        let spec = container(json!({ "bridge": "br0", "runtimeConfig": { "portMappings": mappings } })).unwrap();
        let ranges: Vec<(u16, u16, u16)> = spec.publish.iter().map(|range| (range.port, range.to, range.count)).collect();
        assert_eq!(ranges, [(1, 1, 65_535), (80, 80, 1), (81, 82, 2), (83, 84, 1), (83, 84, 1)]);
    }

    #[test]
    fn a_bridge_that_is_to_be_made_has_the_first_address_or_the_one_that_is_written() {
        let make = |rest: Value| {
            let mut config = json!({ "bridge": "cni0", "subnets": ["10.1.0.0/24", "10.2.0.9/24", "fd00::/64"] });
            config.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
            container(config).unwrap()
        };
        let spec = make(json!({ "mtu": 9000, "isolated": false })).network.make.unwrap();
        assert_eq!(
            spec.addresses.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["10.1.0.1/24", "10.2.0.9/24", "fd00::1/64"]
        );
        assert_eq!((spec.mtu, spec.isolated, spec.uplink), (9000, false, None));
        assert_eq!(make(json!({ "internal": true })).gateways, Some(Vec::new()));
    }

    #[test]
    fn what_is_wrong_with_a_configuration_is_said() {
        for (config, part) in [
            (json!({}), "the network has no `bridge`"),
            (json!({ "bridge": "a/b" }), "bridge name \"a/b\" holds '/'"),
            (json!({ "bridge": "br0", "cniVersion": "0.1.0" }), "`cniVersion` is \"0.1.0\": this plugin speaks 0.3.0"),
            (json!({ "bridge": "br0", "name": "" }), "\"\" cannot be the name of a network: use 1 to 255 letters"),
            (json!({ "bridge": "br0", "name": "a\nb" }), "\"a\\nb\" cannot be the name of a network"),
            (json!({ "bridge": "br0", "prevResult": [] }), "expected what ADD prints, an object with lists"),
            (json!({ "bridge": "br0", "prevResult": { "ips": 7 } }), "invalid type: integer `7`, expected a sequence"),
            (json!({ "bridge": "br0", "dns": 7 }), "`dns`: invalid type: integer `7`"),
            (json!({ "bridge": "br0", "subnets": ["x"] }), "`subnets[0]`: invalid IP address syntax"),
            (json!({ "bridge": "br0", "mtu": 9000 }), "`mtu` is for a bridge that the network makes"),
            (json!({ "bridge": "br0", "vlan": 5000 }), "5000 is not a VLAN"),
            (json!({ "bridge": "br0", "attach": "link" }), "use \"tap\" or \"veth\""),
            (
                json!({ "bridge": "br0", "subnets": ["10.0.0.1/24"], "internal": true, "uplink": "wan" }),
                "leave out one of the two",
            ),
            (json!({ "bridge": "br0", "ipam": { "ranges": "x" } }), "`ipam.ranges` are parts"),
            (json!({ "bridge": "br0", "runtimeConfig": { "mac": "ff:ff:ff:ff:ff:ff" } }), "use the address of one station"),
            (json!({ "bridge": "br0", "runtimeConfig": { "ips": ["x"] } }), "`ips` has \"x\": use an address"),
            (
                json!({ "bridge": "br0", "runtimeConfig": { "bandwidth": { "egressRate": 1 } } }),
                "`bandwidth.egressRate`: \"1bit\" is no rate",
            ),
            (
                json!({ "bridge": "br0", "runtimeConfig": { "portMappings": [{ "hostPort": 0, "containerPort": 80 }] } }),
                "`hostPort` of a port mapping",
            ),
            (
                json!({ "bridge": "br0", "runtimeConfig": { "portMappings": [{ "hostPort": 80, "containerPort": 70_000 }] } }),
                "`containerPort` of",
            ),
            (
                json!({ "bridge": "br0", "runtimeConfig": { "portMappings": [{ "hostPort": 80, "containerPort": 80, "protocol": "sctp" }] } }),
                "sctp ports cannot",
            ),
        ] {
            let error = container(config.clone()).unwrap_err();
            assert!(error.contains(part), "{config}: {error}");
        }
    }
}
