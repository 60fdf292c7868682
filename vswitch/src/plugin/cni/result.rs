//! What ADD prints, in the words of the version that is asked for, and what it printed before.

use std::net::IpAddr;
use std::path::Path;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::config::NetworkConfig;
use super::fault::{Code, Fault};
use api::{ContainerInfo, ContainerRoute};

/// What ADD printed, of this plugin or of an earlier one of the chain. What is absent may come as `null`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(expecting = "what ADD prints, an object with lists of `interfaces`, `ips` and `routes`")]
pub(super) struct Previous {
    #[serde(default, deserialize_with = "list")]
    interfaces: Vec<Value>,
    #[serde(default, deserialize_with = "list")]
    ips: Vec<Value>,
    #[serde(default, deserialize_with = "list")]
    routes: Vec<Value>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

fn list<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<Value>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// What a delegate gave.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Granted {
    /// Addresses with the prefixes of their subnets.
    pub(super) addresses: Vec<IpNet>,
    gateways: Vec<IpAddr>,
    /// Where to, and by which gateway; `None`: by the address's own.
    routes: Vec<(IpNet, Option<IpAddr>)>,
    dns: Value,
}

impl Granted {
    /// Reads a result of CNI.
    pub(super) fn read(answer: &Value) -> Result<Self, Fault> {
        let wrong = |what: &str, value: &Value| {
            Fault::new(Code::Decode, format!("the plugin of `ipam.type` gave {value} for {what}, which is none"))
        };
        let list = |key: &str| answer[key].as_array().cloned().unwrap_or_default();
        let (mut addresses, mut gateways, mut routes) = (Vec::new(), Vec::new(), Vec::new());
        for ip in list("ips") {
            let read = ip["address"].as_str().and_then(|text| text.parse::<IpNet>().ok());
            addresses.push(read.ok_or_else(|| wrong("an address", &ip["address"]))?);
            gateways.extend(next_hop(&ip["gateway"]).map_err(|()| wrong("a gateway", &ip["gateway"]))?);
        }
        for route in list("routes") {
            let to = route["dst"].as_str().and_then(|text| text.parse::<IpNet>().ok());
            let via = next_hop(&route["gw"]).map_err(|()| wrong("a next hop", &route["gw"]))?;
            routes.push((to.ok_or_else(|| wrong("a route", &route["dst"]))?, via));
        }
        Ok(Self { addresses, gateways, routes, dns: answer["dns"].clone() })
    }

    /// The default gateways, `None` for those of the bridge, and the other routes.
    pub(super) fn ways(&self, internal: bool) -> (Option<Vec<IpAddr>>, Vec<ContainerRoute>) {
        let by = |to: &IpNet, via: Option<IpAddr>| {
            let own = || self.gateways.iter().copied().find(|gateway| gateway.is_ipv4() == to.addr().is_ipv4());
            Some(ContainerRoute { to: *to, via: via.or_else(own)? })
        };
        let all = self.routes.iter().filter_map(|(to, via)| by(to, *via));
        let (default, others): (Vec<_>, Vec<_>) = all.partition(|route| route.to.prefix_len() == 0);
        let default = default.iter().map(|route| route.via).collect();
        match (internal, self.routes.is_empty()) {
            (true, _) => (Some(Vec::new()), others),
            (false, true) => (None, others),
            (false, false) => (Some(default), others),
        }
    }
}

fn next_hop(value: &Value) -> Result<Option<IpAddr>, ()> {
    match value.as_str() {
        None | Some("") => Ok(None),
        Some(text) => text.parse().map(Some).map_err(drop),
    }
}

/// What ADD prints: what was there before, and the interface.
pub(super) fn document(config: &NetworkConfig, info: &ContainerInfo, netns: &Path, granted: Option<&Granted>) -> Value {
    let mut result = config.previous().cloned().unwrap_or_default();
    let mut interface = json!({ "name": info.key.ifname, "mac": info.mac.to_string(), "sandbox": netns });
    if config.version() == "1.1.0" {
        interface["mtu"] = json!(info.mtu);
    }
    let index = result.interfaces.len();
    result.interfaces.push(interface);
    result.ips.extend(info.addresses.iter().map(|net| ip(config, info, *net, index)));
    result.routes.extend(routes(info));
    result.rest.insert("cniVersion".to_owned(), json!(config.version()));
    let delegates = || granted.and_then(|granted| granted.dns.as_object());
    let dns = config.dns().or_else(delegates).filter(|dns| says_something(dns));
    let own = || json!({ "nameservers": info.name_servers, "search": info.domain.as_slice() });
    if !result.rest.get("dns").and_then(Value::as_object).is_some_and(says_something) {
        result.rest.insert("dns".to_owned(), dns.map_or_else(own, |dns| json!(dns)));
    }
    json!(result)
}

/// An address; versions before 1.0 name its IP version as well.
fn ip(config: &NetworkConfig, info: &ContainerInfo, net: IpNet, index: usize) -> Value {
    let mut ip = json!({ "address": net, "interface": index });
    if let Some(gateway) = info.gateways.iter().find(|gateway| net.contains(*gateway)) {
        ip["gateway"] = json!(gateway);
    }
    if config.version().starts_with("0.") {
        ip["version"] = json!(if net.addr().is_ipv4() { "4" } else { "6" });
    }
    ip
}

fn routes(info: &ContainerInfo) -> impl Iterator<Item = Value> {
    let default = |via: &IpAddr| json!({ "dst": if via.is_ipv4() { "0.0.0.0/0" } else { "::/0" }, "gw": via });
    let other = |route: &ContainerRoute| json!({ "dst": route.to, "gw": route.via });
    info.gateways.iter().map(default).chain(info.routes.iter().map(other))
}

fn says_something(dns: &Map<String, Value>) -> bool {
    dns.values().any(|value| !value.is_null() && *value != json!([]) && *value != json!(""))
}

/// Whether an interface is what ADD printed.
pub(super) fn compare(previous: &Previous, info: &ContainerInfo, netns: &Path) -> Result<(), Fault> {
    let differs = |what: String| Err(Fault::new(Code::Refused, format!("interface \"{}\" {what}", info.key.ifname)));
    let interfaces = &previous.interfaces;
    let is_own = |interface: &Value| {
        interface["name"] == json!(info.key.ifname) && interface["sandbox"].as_str().is_some_and(|sandbox| !sandbox.is_empty())
    };
    let Some(index) = interfaces.iter().position(is_own) else {
        return differs("is not in `prevResult`".to_owned());
    };
    let text = |key: &str| interfaces[index][key].as_str().unwrap_or_default();
    let (sandbox, mac) = (text("sandbox"), text("mac"));
    if Path::new(sandbox) != netns {
        return differs(format!("was made in {}, not in {}", sandbox.escape_debug(), netns.display()));
    }
    if !mac.is_empty() && !mac.eq_ignore_ascii_case(&info.mac.to_string()) {
        return differs(format!("has the MAC address {}, not {}", info.mac, mac.escape_debug()));
    }
    for ip in previous.ips.iter().filter(|ip| ip["interface"] == json!(index)) {
        let address = ip["address"].as_str().unwrap_or_default();
        if !info.addresses.iter().any(|net| net.to_string() == address) {
            return differs(format!("has not the address {}", address.escape_debug()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(version: &str, rest: Value) -> NetworkConfig {
        let mut config = json!({ "cniVersion": version, "name": "net", "bridge": "br0" });
        config.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        NetworkConfig::read(config.to_string().as_bytes()).unwrap_or_else(|_| unreachable!())
    }

    fn info() -> ContainerInfo {
        serde_json::from_value(json!({
            "key": "cni/box/eth0", "network": "net", "port": "ct-1", "bridge": "br0", "mac": "02:42:0a:00:00:02", "mtu": 1500,
            "addresses": ["10.0.0.2/24", "fd00::2/64"], "gateways": ["10.0.0.1", "fd00::1"],
            "routes": [{ "to": "10.9.0.0/16", "via": "10.0.0.3" }], "name_servers": ["10.0.0.1"], "domain": "br0.internal",
        }))
        .unwrap()
    }

    const NETNS: &str = "/proc/7/ns/net";

    fn printed(version: &str, rest: Value) -> Value {
        document(&config(version, rest), &info(), Path::new(NETNS), None)
    }

    #[test]
    fn each_version_has_its_own_words() {
        let new = printed("1.1.0", json!({}));
        assert_eq!(new["interfaces"], json!([{ "name": "eth0", "mac": "02:42:0a:00:00:02", "mtu": 1500, "sandbox": NETNS }]));
        assert_eq!(new["ips"][1], json!({ "address": "fd00::2/64", "gateway": "fd00::1", "interface": 0 }));
        assert_eq!(new["routes"][2], json!({ "dst": "10.9.0.0/16", "gw": "10.0.0.3" }));
        assert_eq!(new["dns"], json!({ "nameservers": ["10.0.0.1"], "search": ["br0.internal"] }));
        let old = printed("0.4.0", json!({ "dns": { "nameservers": ["192.0.2.53"] } }));
        assert_eq!((&old["ips"][0]["version"], &old["ips"][1]["version"]), (&json!("4"), &json!("6")));
        assert_eq!((old["interfaces"][0].get("mtu"), &old["dns"]["nameservers"][0]), (None, &json!("192.0.2.53")));
    }

    #[test]
    fn a_chain_keeps_what_was_there() {
        let before = json!({ "interfaces": [{ "name": "lo", "sandbox": NETNS }], "ips": null, "dns": { "domain": "x" } });
        let both = printed("1.0.0", json!({ "prevResult": before }));
        assert_eq!((&both["interfaces"][0]["name"], &both["interfaces"][1]["name"]), (&json!("lo"), &json!("eth0")));
        assert_eq!((&both["ips"][0]["interface"], &both["dns"]), (&json!(1), &json!({ "domain": "x" })));
    }

    #[test]
    fn what_is_not_as_it_was_printed_is_said() {
        let before = printed("1.1.0", json!({}));
        assert_eq!(compare(&serde_json::from_value(before.clone()).unwrap(), &info(), Path::new(NETNS)), Ok(()));
        let change = |pointer: &str, value: &str| {
            let mut changed = before.clone();
            *changed.pointer_mut(pointer).unwrap() = json!(value);
            let changed = serde_json::from_value(changed).unwrap();
            compare(&changed, &info(), Path::new(NETNS)).unwrap_err().document("1.1.0")["msg"].to_string()
        };
        for (pointer, value, part) in [
            ("/interfaces/0/name", "eth1", "is not in `prevResult`"),
            ("/interfaces/0/sandbox", "/proc/8/ns/net", "was made in /proc/8/ns/net, not in /proc/7/ns/net"),
            ("/interfaces/0/mac", "02:00:00:00:00:01", "not 02:00:00:00:00:01"),
            ("/ips/0/address", "10.0.0.3/24", "has not the address 10.0.0.3/24"),
        ] {
            let said = change(pointer, value);
            assert!(said.contains(part), "{said}");
        }
    }

    #[test]
    fn a_delegate_says_which_routes_there_are() {
        let read = |routes: Value| {
            let answer = json!({ "ips": [{ "address": "10.0.0.5/24", "gateway": "10.0.0.1" }], "routes": routes });
            Granted::read(&answer).unwrap_or_else(|_| unreachable!()).ways(false)
        };
        let by = |text: &str| vec![text.parse::<IpAddr>().unwrap()];
        assert_eq!(read(json!([])), (None, vec![]));
        assert_eq!(read(json!([{ "dst": "0.0.0.0/0" }])), (Some(by("10.0.0.1")), vec![]));
        let (default, others) = read(json!([{ "dst": "10.9.0.0/16" }, { "dst": "10.8.0.0/16", "gw": "10.0.0.7" }]));
        assert_eq!((default, others.len(), others[1].via.to_string().as_str()), (Some(vec![]), 2, "10.0.0.7"));
        for wrong in [
            json!({ "ips": [{ "address": "x" }] }),
            json!({ "routes": [{ "dst": 7 }] }),
            json!({ "ips": [{ "address": "10.0.0.5/24", "gateway": "x" }] }),
        ] {
            assert!(Granted::read(&wrong).is_err(), "{wrong}");
        }
    }
}
