//! A network as Podman keeps it (netavark's `types::Network`).

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use packet::VlanId;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::Fault;
use crate::docker::message::Driver;
use crate::docker::{NetworkOptions, Rates};
use crate::plugin::first_host;
use api::{BridgeName, BridgeSpec, ContainerNetwork, ContainerRoute, ControlFrames, NetworkName, Stp, StpBridgePriority};

/// How many subnets are tried for a network that names none.
const TRIES: u32 = 16;
/// Those of which one is taken: 10.224.0.0/12, as for Docker, in parts of 256 addresses.
const POOL: (Ipv4Addr, u32) = (Ipv4Addr::new(10, 224, 0, 0), 1 << 12);

/// A network of Podman's.
#[derive(Clone, Debug)]
pub(super) struct PodmanNetwork {
    said: Said,
    options: NetworkOptions,
    subnets: Vec<Subnet>,
}

/// What the switch reads of it. What is absent comes as `null`.
#[derive(Clone, Debug, Deserialize)]
struct Said {
    name: NetworkName,
    id: String,
    internal: Option<bool>,
    ipv6_enabled: Option<bool>,
    dns_enabled: Option<bool>,
    network_interface: Option<String>,
    options: Option<Map<String, Value>>,
    ipam_options: Option<BTreeMap<String, String>>,
    subnets: Option<Vec<Subnet>>,
    routes: Option<Vec<Route>>,
}

#[derive(Clone, Debug, Deserialize)]
struct Subnet {
    subnet: IpNet,
    gateway: Option<IpAddr>,
}

#[derive(Clone, Debug, Deserialize)]
struct Route {
    destination: IpNet,
    gateway: Option<IpAddr>,
    route_type: Option<String>,
}

impl PodmanNetwork {
    /// Reads a network that Podman has.
    pub(super) fn read(document: &Value) -> Result<Self, Fault> {
        let said: Said =
            serde_path_to_error::deserialize(document).map_err(|error| format!("the network is not understood: {error}"))?;
        if !(8..=64).contains(&said.id.len()) || !said.id.chars().all(|c| c.is_ascii_alphanumeric()) {
            return Err(format!("the network's `id` is \"{}\": it has 8 to 64 letters and digits", said.id.escape_debug()));
        }
        let options = in_our_words(said.options.as_ref())?;
        let options = NetworkOptions::read(Driver::Bridge, &options).map_err(|error| error.to_string())?;
        let subnets = said.subnets.clone().unwrap_or_default();
        let network = Self { said, options, subnets };
        network.check()?;
        Ok(network)
    }

    /// The networks that a document may come to: one, or where a subnet is wanted and none is named, several to try.
    pub(super) fn candidates(document: &Value) -> Result<Vec<Self>, Fault> {
        let network = Self::read(document)?;
        let named = !network.subnets.is_empty() || network.options.bridge.is_some();
        if named || !network.chooses_addresses() {
            return Ok(vec![network.with_gateways()]);
        }
        let v6 = network.said.ipv6_enabled.unwrap_or(false);
        let number =
            network.said.id.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
        let with = |number: u32| {
            let subnets = std::iter::once(subnet(number)).chain(v6.then(|| subnet6(number)));
            let subnets = subnets.map(|subnet| Subnet { subnet, gateway: None }).collect();
            Self { subnets, ..network.clone() }.with_gateways()
        };
        Ok((0..TRIES).map(|more| with(number.wrapping_add(more))).collect())
    }

    fn check(&self) -> Result<(), Fault> {
        match self.ipam() {
            "" | "host-local" | "none" => {}
            other => return Err(format!("the IPAM driver is \"{}\": use host-local or none", other.escape_debug())),
        }
        if self.ipam() == "none" && !self.subnets.is_empty() {
            return Err("a network with the IPAM driver none has no subnets: leave out one of the two".to_owned());
        }
        let outside = |subnet: &&Subnet| subnet.gateway.is_some_and(|gateway| !subnet.subnet.contains(&gateway));
        if let Some(Subnet { subnet, gateway: Some(gateway) }) = self.subnets.iter().find(outside) {
            return Err(format!("the gateway {gateway} is not in the subnet {subnet}: use one that is"));
        }
        self.check_routes()?;
        match (self.internal(), &self.options.uplink, self.options.isolated) {
            (true, Some(_), _) => {
                Err("`vswitch.uplink` is no option of an internal network, which reaches nothing else".to_owned())
            }
            (true, _, Some(false)) => {
                Err("an internal network reaches no other: leave out `vswitch.isolated=false`".to_owned())
            }
            _ => Ok(()),
        }
    }

    /// Routes have a next hop that is on the network.
    fn check_routes(&self) -> Result<(), Fault> {
        // The subnets of a bridge of switch.toml are known there.
        let is_reached =
            |via: IpAddr| self.subnets.is_empty() || self.subnets.iter().any(|subnet| subnet.subnet.contains(&via));
        let strange = |route: &&ContainerRoute| route.to.addr().is_ipv4() != route.via.is_ipv4() || !is_reached(route.via);
        match self.routes()?.iter().find(strange) {
            Some(ContainerRoute { to, via }) => Err(format!(
                "the route to {to} is by {via}, which is in no subnet of the network of its IP version: use one that is"
            )),
            None => Ok(()),
        }
    }

    /// A subnet without a gateway gets the first address of it, also on an internal network: names are asked for there.
    pub(super) fn with_gateways(mut self) -> Self {
        for subnet in &mut self.subnets {
            subnet.gateway = subnet.gateway.or_else(|| first_host(&subnet.subnet));
        }
        self
    }

    /// What Podman is to keep.
    pub(super) fn document(&self, asked: &Value) -> Value {
        let mut document = asked.clone();
        if self.options.bridge.is_none() {
            document["network_interface"] = json!(self.bridge_name());
        }
        if asked["subnets"].as_array().is_none_or(Vec::is_empty) {
            document["subnets"] = self.subnets.iter().map(|subnet| json!({ "subnet": subnet.subnet })).collect();
        }
        for (subnet, known) in document["subnets"].as_array_mut().into_iter().flatten().zip(&self.subnets) {
            subnet["gateway"] = json!(known.gateway);
        }
        if self.chooses_addresses() && !self.subnets.is_empty() {
            document["ipam_options"] = json!({ "driver": "host-local" });
        }
        if self.subnets.is_empty() {
            document["subnets"] = Value::Null;
        }
        let has_v6 = self.subnets.iter().any(|subnet| subnet.subnet.addr().is_ipv6());
        document["ipv6_enabled"] = json!(has_v6);
        document
    }

    /// As the switch knows it.
    pub(super) fn container_network(&self) -> Result<ContainerNetwork, Fault> {
        let options = &self.options;
        let make = if options.bridge.is_none() { Some(self.new_bridge()?) } else { None };
        Ok(ContainerNetwork {
            name: self.said.name.clone(),
            bridge: match &options.bridge {
                Some(bridge) => bridge.clone(),
                None => self.own_bridge()?,
            },
            make,
            internal: self.internal(),
            vlan: options.vlan,
            guard: options.guard,
            kind: options.attach.into(),
        })
    }

    fn new_bridge(&self) -> Result<BridgeSpec, Fault> {
        let net = |subnet: &Subnet| IpNet::new(subnet.gateway?, subnet.subnet.prefix_len()).ok();
        let spec = BridgeSpec {
            name: self.own_bridge()?,
            mtu: self.options.mtu.unwrap_or(1500),
            ageing: Duration::from_secs(300),
            max_macs: 8192,
            control_frames: ControlFrames::Drop,
            stp: Stp::Off,
            stp_priority: StpBridgePriority::default(),
            addresses: self.subnets.iter().filter_map(net).collect(),
            gateway_vlan: self.options.vlan.unwrap_or(VlanId::DEFAULT),
            // Podman gives the addresses.
            dhcp: false,
            uplink: self.options.uplink.clone(),
            isolated: self.internal() || self.options.isolated.unwrap_or(true),
            routes: Vec::new(),
            overlay: None,
            encrypt: false,
        };
        spec.checked().map_err(|error| error.to_string())
    }

    fn own_bridge(&self) -> Result<BridgeName, Fault> {
        self.bridge_name().parse().map_err(|error| format!("the network's interface: {error}"))
    }

    /// What Podman calls its bridge; else one that says whose it is.
    fn bridge_name(&self) -> String {
        let given = self.said.network_interface.as_deref().filter(|name| !name.is_empty());
        given.map_or_else(|| format!("podman-{}", &self.said.id[..8]), str::to_owned)
    }

    fn internal(&self) -> bool {
        self.said.internal.unwrap_or(false)
    }

    /// Whether its containers learn of a server for names.
    pub(super) fn has_names(&self) -> bool {
        self.said.dns_enabled.unwrap_or(true)
    }

    fn ipam(&self) -> &str {
        let driver = self.said.ipam_options.as_ref().and_then(|options| options.get("driver"));
        driver.map(String::as_str).unwrap_or_default()
    }

    /// Whether its containers have addresses.
    pub(super) fn chooses_addresses(&self) -> bool {
        self.ipam() != "none"
    }

    /// Its default gateways; `None`: those of its bridge.
    pub(super) fn gateways(&self) -> Option<Vec<IpAddr>> {
        self.internal().then(Vec::new)
    }

    /// Its other routes.
    pub(super) fn routes(&self) -> Result<Vec<ContainerRoute>, Fault> {
        let route = |route: &Route| match (&route.route_type.as_deref(), route.gateway) {
            (None | Some("" | "unicast"), Some(via)) => Ok(ContainerRoute { to: route.destination, via }),
            _ => Err(format!("the route to {} has no gateway: vswitch sets routes by one only", route.destination)),
        };
        self.said.routes.iter().flatten().map(route).collect()
    }

    /// The addresses that Podman gives, which come without prefixes.
    pub(super) fn with_prefixes(&self, addresses: &[String]) -> Result<Vec<IpNet>, Fault> {
        let with = |text: &String| {
            let wrong = |_| format!("`static_ips` has \"{}\": use an address, such as 10.89.0.5", text.escape_debug());
            let address: IpAddr = text.parse().map_err(wrong)?;
            let subnet = self.subnets.iter().map(|subnet| subnet.subnet).find(|subnet| subnet.contains(&address));
            let list = || self.subnets.iter().map(|subnet| subnet.subnet.to_string()).collect::<Vec<_>>().join(", ");
            let outside =
                || format!("the address {address} is in no subnet of the network, which has {}: use one that is", list());
            IpNet::new(address, subnet.ok_or_else(outside)?.prefix_len()).map_err(|error| error.to_string())
        };
        addresses.iter().map(with).collect()
    }

    /// How fast a container may be that has these options.
    pub(super) fn rates(&self, options: Option<&Map<String, Value>>) -> Result<Rates, Fault> {
        let options = options.into_iter().flatten().map(|(key, value)| (key.clone(), value.clone())).collect();
        Rates::read(&options, self.options.rates).map_err(|error| error.to_string())
    }
}

/// Podman's own options in the words of the switch.
fn in_our_words(options: Option<&Map<String, Value>>) -> Result<Map<String, Value>, Fault> {
    let word = |key: &str| match key {
        "mtu" => "vswitch.mtu".to_owned(),
        "vlan" => "vswitch.vlan".to_owned(),
        "isolate" => "vswitch.isolated".to_owned(),
        other => other.to_owned(),
    };
    let mut all = Map::new();
    for (key, value) in options.into_iter().flatten() {
        let known = all.insert(word(key), value.clone());
        if known.is_some_and(|known| known != *value) {
            return Err(format!("the option `{}` differs from Podman's own word for it: give one of the two", word(key)));
        }
    }
    Ok(all)
}

fn subnet(number: u32) -> IpNet {
    let (first, count) = POOL;
    let address = Ipv4Addr::from(u32::from(first) + (number % count) * 256);
    Ipv4Net::new_assert(address, 24).into()
}

/// Of `fd76:7377:6974::/48`, as for Docker.
fn subnet6(number: u32) -> IpNet {
    let [_, _, high, low] = number.to_be_bytes();
    let segment = u16::from_be_bytes([high, low]);
    Ipv6Net::new_assert([0xfd76, 0x7377, 0x6974, segment, 0, 0, 0, 0].into(), 64).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(rest: Value) -> Value {
        let mut asked = json!({
            "name": "net1", "id": "abcdef0123456789", "driver": "vswitch", "dns_enabled": true, "internal": false, "ipv6_enabled": false,
            "options": null, "ipam_options": null, "subnets": null, "network_interface": null,
        });
        asked.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        asked
    }

    fn created(rest: Value) -> Value {
        let asked = asked(rest);
        PodmanNetwork::candidates(&asked).unwrap()[0].document(&asked)
    }

    #[test]
    fn what_podman_leaves_out_is_filled_in() {
        let network = created(
            json!({ "subnets": [{ "subnet": "10.89.0.0/24" }, { "subnet": "fd89::/64", "gateway": "fd89::9" }], "labels": { "a": "b" } }),
        );
        assert_eq!(network["subnets"][0]["gateway"], "10.89.0.1");
        assert_eq!(network["subnets"][1]["gateway"], "fd89::9");
        assert_eq!((&network["network_interface"], &network["labels"]["a"]), (&json!("podman-abcdef01"), &json!("b")));
        assert_eq!((&network["ipam_options"]["driver"], &network["ipv6_enabled"]), (&json!("host-local"), &json!(true)));
        assert_eq!(
            created(json!({ "internal": true, "subnets": [{ "subnet": "10.89.0.0/24" }] }))["subnets"][0]["gateway"],
            "10.89.0.1"
        );
    }

    #[test]
    fn a_network_without_a_subnet_gets_one_and_the_same_each_time() {
        let (first, again) = (created(json!({})), created(json!({})));
        assert_eq!(first, again);
        let subnet: IpNet = first["subnets"][0]["subnet"].as_str().unwrap().parse().unwrap();
        assert!("10.224.0.0/12".parse::<IpNet>().unwrap().contains(&subnet), "{subnet}");
        assert_eq!(created(json!({ "ipv6_enabled": true }))["subnets"].as_array().unwrap().len(), 2);
        let others = PodmanNetwork::candidates(&asked(json!({}))).unwrap();
        assert!(others.len() > 8 && others[0].subnets[0].subnet != others[1].subnets[0].subnet);
        let none = created(json!({ "ipam_options": { "driver": "none" }, "ipv6_enabled": true }));
        assert_eq!((&none["subnets"], &none["ipv6_enabled"]), (&Value::Null, &json!(false)));
    }

    #[test]
    fn options_are_those_of_docker_and_podman() {
        let options =
            json!({ "mtu": "1400", "vlan": "7", "isolate": "false", "vswitch.guard": "true", "vswitch.attach": "veth" });
        let network =
            PodmanNetwork::read(&asked(json!({ "options": options, "subnets": [{ "subnet": "10.89.0.0/24" }] }))).unwrap();
        let network = network.with_gateways().container_network().unwrap();
        let make = network.make.unwrap();
        assert_eq!((make.mtu, make.isolated, make.gateway_vlan.number()), (1400, false, 7));
        assert_eq!(
            (network.guard, network.vlan.map(VlanId::number), network.kind.to_string().as_str()),
            (true, Some(7), "veth")
        );
        let route = |via: &str| json!({ "subnets": [{ "subnet": "10.89.0.0/24" }], "routes": [{ "destination": "10.9.0.0/16", "gateway": via }] });
        for (rest, part) in [
            (route("10.99.0.1"), "the route to 10.9.0.0/16 is by 10.99.0.1, which is in no subnet"),
            (route("fd00::1"), "is by fd00::1, which is in no subnet of the network of its IP version"),
            (json!({ "options": { "mtu": "1400", "vswitch.mtu": "68" } }), "`vswitch.mtu` differs from Podman's own word"),
            (json!({ "ipam_options": { "driver": 7 } }), "ipam_options.driver: invalid type: integer `7`"),
            (json!({ "id": "x".repeat(65) }), "it has 8 to 64 letters and digits"),
            (json!({ "name": "a\nb" }), "\"a\\nb\" cannot be the name of a network"),
            (
                json!({ "subnets": [{ "subnet": "10.89.0.0/24", "gateway": "10.90.0.1" }] }),
                "the gateway 10.90.0.1 is not in the subnet",
            ),
            (json!({ "internal": true, "options": { "vswitch.uplink": "wan" } }), "no option of an internal network"),
            (
                json!({ "ipam_options": { "driver": "none" }, "subnets": [{ "subnet": "10.89.0.0/24" }] }),
                "leave out one of the two",
            ),
            (json!({ "options": { "vlan": "0" } }), "use a number from 1 to 4094"),
            (json!({ "name": null }), "the network is not understood"),
        ] {
            let error = PodmanNetwork::read(&asked(rest.clone())).unwrap_err();
            assert!(error.contains(part), "{rest}: {error}");
        }
    }
}
