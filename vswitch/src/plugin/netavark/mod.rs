//! Podman's netavark and its plugins (netavark's `plugin-API.md`): `info`, `create`, `setup NETNS` and `teardown NETNS`, as netavark 1.6 and
//! later call them.
//!
//! A network is Podman's alone: *create* says whether it could be and fills in what Podman leaves out, and there is no call when it is removed.
//! So its bridge is made with its first container and goes with the last.

mod network;

use std::ffi::OsString;
use std::io::Read;
use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{LONGEST, Outcome, Variable, ask, askable, sentence};
use crate::json;
use api::{ContainerAddresses, ContainerInfo, ContainerKey, ContainerSpec, PublishedPort, Reply, Request, Runtime};
use network::PodmanNetwork;

/// Why a call does not do what it is asked for, as Podman shows it.
type Fault = String;

/// What `setup` and `teardown` read. What is absent comes as `null`.
#[derive(Debug, Deserialize)]
struct Call {
    container_id: String,
    container_name: Option<String>,
    port_mappings: Option<Vec<PortMapping>>,
    network: Value,
    network_options: Place,
}

/// A container's place on the network.
#[derive(Debug, Deserialize)]
struct Place {
    aliases: Option<Vec<String>>,
    interface_name: String,
    static_ips: Option<Vec<String>>,
    static_mac: Option<String>,
    options: Option<serde_json::Map<String, Value>>,
}

#[derive(Debug, Deserialize)]
struct PortMapping {
    container_port: u16,
    host_ip: Option<String>,
    host_port: u16,
    protocol: Option<String>,
    range: Option<u16>,
}

/// Carries out a call.
pub fn run(arguments: &[OsString], variable: Variable<'_>, input: impl Read) -> Outcome {
    let mut words = arguments.iter().map(|word| word.to_string_lossy());
    let done = match (words.next().as_deref(), words.next()) {
        (None | Some("info"), _) => Ok(Some(json!({ "version": env!("CARGO_PKG_VERSION"), "api_version": "1.0.0" }))),
        (Some("create"), _) => read(input).and_then(|network| create(&network, variable)).map(Some),
        (Some("setup"), Some(netns)) => read(input).and_then(|call| setup(&call, Path::new(&*netns), variable)).map(Some),
        (Some("teardown"), Some(_)) => read(input).and_then(|call| teardown(&call, variable)).map(|()| None),
        (Some(command @ ("setup" | "teardown")), None) => {
            Err(format!("{command} needs the path of a network namespace after it"))
        }
        (Some(other), _) => {
            Err(format!("\"{}\" is no call of a netavark plugin: use info, create, setup or teardown", other.escape_debug()))
        }
    };
    match done {
        Ok(None) => Outcome { text: String::new(), is_done: true },
        Ok(Some(answer)) => Outcome { text: format!("{answer}\n"), is_done: true },
        Err(sentence) => Outcome { text: format!("{}\n", json!({ "error": sentence })), is_done: false },
    }
}

fn read<T: DeserializeOwned>(input: impl Read) -> Result<T, Fault> {
    let mut document = Vec::new();
    let read = input.take(LONGEST).read_to_end(&mut document);
    read.map_err(|error| format!("the request cannot be read: {error}"))?;
    json::read(&document).map_err(|what| format!("the request is not understood: {what}"))
}

/// Says whether a network can be, and what Podman is to keep of it.
fn create(network: &Value, variable: Variable<'_>) -> Result<Value, Fault> {
    let mut last = None;
    for candidate in PodmanNetwork::candidates(network)? {
        let wanted = Box::new(candidate.container_network()?);
        match ask(variable, &Request::CheckNetwork(Runtime::Podman, wanted)) {
            Ok(_) => return Ok(candidate.document(network)),
            Err(error) => last = last.or(Some(sentence(&error))),
        }
    }
    Err(last.unwrap_or_else(|| "there is no subnet left: give one with --subnet".to_owned()))
}

fn setup(call: &Call, netns: &Path, variable: Variable<'_>) -> Result<Value, Fault> {
    let network = PodmanNetwork::read(&call.network)?.with_gateways();
    let spec = container(call, &network, netns)?;
    match ask(variable, &Request::AttachContainer(Box::new(spec))) {
        Ok(Reply::Container(info)) => Ok(status(&info, network.has_names())),
        Ok(_) => Err("vswitchd's answer cannot be read: it is about something else".to_owned()),
        Err(error) => Err(sentence(&error)),
    }
}

fn teardown(call: &Call, variable: Variable<'_>) -> Result<(), Fault> {
    ask(variable, &Request::DetachContainer(key(call)?)).map(drop).map_err(|error| sentence(&error))
}

fn key(call: &Call) -> Result<ContainerKey, Fault> {
    let ifname = call.network_options.interface_name.parse().map_err(|error| format!("`interface_name`: {error}"))?;
    ContainerKey::new(Runtime::Podman, &call.container_id, ifname).map_err(|error| error.to_string())
}

fn container(call: &Call, network: &PodmanNetwork, netns: &Path) -> Result<ContainerSpec, Fault> {
    let place = &call.network_options;
    let mac = place.static_mac.as_deref().filter(|text| !text.is_empty()).map(|text| {
        let wrong = format!("`static_mac` is \"{}\": use a MAC address, such as 02:00:00:00:00:0a", text.escape_debug());
        text.parse().map_err(|_| wrong)
    });
    let none = Vec::new();
    let addresses = place.static_ips.as_ref().unwrap_or(&none);
    let rates = network.rates(place.options.as_ref())?;
    let names = call.container_name.iter().chain(place.aliases.iter().flatten()).cloned();
    let mappings = call.port_mappings.iter().flatten();
    let publish = mappings.map(published).collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect();
    Ok(ContainerSpec {
        key: key(call)?,
        netns: netns.to_owned(),
        network: network.container_network()?,
        names: askable(names),
        mac: mac.transpose()?,
        addresses: match addresses.is_empty() && network.chooses_addresses() {
            true => ContainerAddresses::Chosen { wishes: Vec::new(), ranges: Vec::new() },
            false => ContainerAddresses::Given(network.with_prefixes(addresses)?),
        },
        gateways: network.gateways(),
        routes: network.routes()?,
        send_rate: rates.send,
        receive_rate: rates.receive,
        publish,
    })
}

/// One mapping may be of several protocols.
fn published(mapping: &PortMapping) -> Result<Vec<PublishedPort>, Fault> {
    let listen = mapping.host_ip.as_deref().filter(|text| !text.is_empty());
    let listen = listen
        .map(|text| text.parse().map_err(|_| format!("`host_ip` is \"{}\": use an address of the host", text.escape_debug())));
    let listen = listen.transpose()?;
    let protocols = mapping.protocol.as_deref().filter(|text| !text.is_empty()).unwrap_or("tcp");
    let port = |protocol: &str| match protocol {
        "tcp" | "udp" => Ok(PublishedPort {
            protocol: protocol.to_owned(),
            listen,
            port: mapping.host_port,
            to: mapping.container_port,
            count: mapping.range.unwrap_or(1).max(1),
        }),
        other => Err(format!("{} ports cannot be published: use tcp or udp", other.escape_debug())),
    };
    protocols.split(',').map(port).collect()
}

fn status(info: &ContainerInfo, names: bool) -> Value {
    let gateway = |net: &ipnet::IpNet| info.gateways.iter().find(|gateway| net.contains(*gateway));
    let subnets: Vec<Value> = info.addresses.iter().map(|net| json!({ "ipnet": net, "gateway": gateway(net) })).collect();
    let ifname = info.key.ifname.as_str();
    let servers = if names { &info.name_servers[..] } else { &[] };
    let domains = info.domain.iter().filter(|_| !servers.is_empty()).collect::<Vec<_>>();
    json!({
        "interfaces": { ifname: { "mac_address": info.mac.to_string(), "subnets": subnets } },
        "dns_server_ips": servers,
        "dns_search_domains": domains,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(rest: Value) -> Result<ContainerSpec, String> {
        let mut call = json!({
            "container_id": "0123456789ab", "container_name": "web", "port_mappings": null,
            "network": {
                "name": "net1", "id": "abcdef0123456789", "driver": "vswitch", "dns_enabled": true, "internal": false, "ipv6_enabled": true,
                "network_interface": "podman-abcdef01", "options": null, "ipam_options": { "driver": "host-local" }, "routes": null,
                "subnets": [{ "subnet": "10.89.0.0/24", "gateway": "10.89.0.1", "lease_range": null }],
            },
            "network_options": { "aliases": ["www", "0123456789ab"], "interface_name": "eth0", "static_ips": ["10.89.0.7"], "static_mac": null },
        });
        for (pointer, value) in rest.as_object().unwrap() {
            let (parent, key) = pointer.rsplit_once('/').unwrap();
            call.pointer_mut(parent).unwrap()[key] = value.clone();
        }
        let call: Call = serde_json::from_value(call).map_err(|error| error.to_string())?;
        container(&call, &PodmanNetwork::read(&call.network)?, Path::new("/run/netns/x"))
    }

    #[test]
    fn a_call_of_netavarks_becomes_what_the_switch_knows() {
        let spec = call(json!({ "/port_mappings": [{ "container_port": 80, "host_ip": "", "host_port": 8080, "protocol": "tcp,udp", "range": 101 }] })).unwrap();
        assert_eq!(spec.key.to_string(), "podman/0123456789ab/eth0");
        assert_eq!(spec.addresses, ContainerAddresses::Given(vec!["10.89.0.7/24".parse().unwrap()]));
        assert_eq!(spec.names, ["web", "www", "0123456789ab"]);
        let make = spec.network.make.unwrap();
        assert_eq!((make.name.as_str(), make.addresses), ("podman-abcdef01", vec!["10.89.0.1/24".parse().unwrap()]));
        let ports: Vec<(&str, u16, u16)> =
            spec.publish.iter().map(|port| (port.protocol.as_str(), port.port, port.count)).collect();
        assert_eq!(ports, [("tcp", 8080, 101), ("udp", 8080, 101)]);
        assert_eq!((spec.gateways, spec.network.internal), (None, false));
        assert_eq!(call(json!({ "/network/internal": true })).unwrap().gateways, Some(Vec::new()));
    }

    #[test]
    fn what_is_wrong_with_a_call_is_said() {
        for (change, part) in [
            (json!({ "/network_options/interface_name": "a/b" }), "`interface_name`: interface name \"a/b\" holds '/'"),
            (json!({ "/container_id": "../x" }), "not the identifier of a container"),
            (json!({ "/network_options/static_mac": "x" }), "`static_mac` is \"x\": use a MAC address"),
            (json!({ "/network_options/static_ips": ["10.90.0.7"] }), "10.90.0.7 is in no subnet of the network"),
            (json!({ "/network_options/static_ips": ["x"] }), "`static_ips` has \"x\""),
            (
                json!({ "/port_mappings": [{ "container_port": 80, "host_port": 80, "protocol": "sctp" }] }),
                "sctp ports cannot be published",
            ),
            (json!({ "/port_mappings": [{ "container_port": 80, "host_port": 80, "host_ip": "x" }] }), "`host_ip` is \"x\""),
            (json!({ "/network/options": { "vswitch.colour": "red" } }), "unknown option `vswitch.colour`"),
            (json!({ "/network/options": { "mtu": "many" } }), "is \"many\": use a number"),
            (json!({ "/network/ipam_options": { "driver": "dhcp" } }), "use host-local or none"),
            (json!({ "/network_options/options": { "x": "y" } }), "unknown option `x`"),
            (json!({ "/network/id": "x" }), "`id`"),
        ] {
            let error = call(change.clone()).unwrap_err();
            assert!(error.contains(part), "{change}: {error}");
        }
    }
}
