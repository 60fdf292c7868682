use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use nat::Protocol;
use packet::VlanId;
use serde_json::{Value, json};

use super::message::{self, Binding, DockerCall, Driver, Request};
use super::*;
use api::{BridgeSpec, ForwardKey, PortKind, PortName, UplinkKindName, VlanMode};

const NETWORK: &str = "aaaaaaaa89abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const ENDPOINT: &str = "bbbbbbbb89abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

fn call(method: &str, body: Value) -> Request {
    match message::read(Driver::Bridge, &format!("/NetworkDriver.{method}"), body.to_string().as_bytes()).unwrap() {
        DockerCall::Request(request) => request,
        DockerCall::Answer(_) => panic!("{method} has an answer"),
    }
}

fn network(options: Value, internal: bool) -> Result<Network, DockerError> {
    let body = json!({
        "NetworkID": NETWORK,
        "Options": { "com.docker.network.generic": options, "com.docker.network.internal": internal },
        "IPv4Data": [{ "Pool": "10.78.0.0/24", "Gateway": "10.78.0.254/24" }],
        "IPv6Data": [{ "Pool": "fd00:78::/64", "Gateway": "fd00:78::1/64" }],
    });
    let Request::CreateNetwork(request) = call("CreateNetwork", body) else { panic!("another request") };
    Network::read(&request)
}

fn endpoint(interface: Value, options: Value, network: &Network) -> Result<Endpoint, DockerError> {
    let body = json!({ "NetworkID": NETWORK, "EndpointID": ENDPOINT, "Interface": interface, "Options": options });
    let Request::CreateEndpoint(request) = call("CreateEndpoint", body) else { panic!("another request") };
    Endpoint::read(&request, network)
}

fn web(network: &Network) -> Endpoint {
    endpoint(json!({ "Address": "10.78.0.2/24", "AddressIPv6": "fd00:78::2/64" }), json!({}), network).unwrap()
}

/// What Docker has asked for after the web server's container has started.
fn docker(network: Network, endpoint: Endpoint) -> Docker {
    let mut docker = Docker::default();
    docker.networks.insert(NETWORK.to_owned().try_into().unwrap(), network);
    docker.endpoints.insert(ENDPOINT.to_owned().try_into().unwrap(), endpoint);
    docker
}

#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T, DockerError>, part: &str) {
    let sentence = result.unwrap_err().to_string();
    assert!(sentence.contains(part), "{sentence:?} instead of {part:?}");
}

#[test]
fn a_network_is_a_bridge_with_the_gateway_of_each_subnet() {
    let network = network(json!({ "vswitch.vlan": "7", "vswitch.mtu": "1400" }), false).unwrap();
    let docker = docker(network, web(&self::network(json!({}), false).unwrap()));
    let (uplinks, bridges) = docker.bridges(&DockerSettings::default());
    let [bridge] = &bridges[..] else { panic!("{bridges:?}") };
    assert_eq!((bridge.name.as_str(), bridge.mtu, bridge.gateway_vlan.number()), ("docker-aaaaaaaa", 1400, 7));
    assert_eq!(bridge.addresses, ["10.78.0.254/24", "fd00:78::1/64"].map(|net| net.parse().unwrap()));
    assert_eq!((bridge.dhcp, bridge.isolated), (false, true));
    assert_eq!(
        uplinks.iter().map(|spec| (spec.name.as_str(), spec.kind_name())).collect::<Vec<_>>(),
        [("docker", UplinkKindName::Host)]
    );
    assert_eq!(bridge.uplink.as_ref(), Some(&uplinks[0].name));
    let settings = DockerSettings { uplink: Some("wan".parse().unwrap()), ..DockerSettings::default() };
    let (uplinks, bridges) = docker.bridges(&settings);
    assert_eq!((uplinks.len(), bridges[0].uplink.as_ref()), (0, settings.uplink.as_ref()));
}

#[test]
fn networks_on_one_interface_share_a_bridge_with_it_and_the_host_has_a_port_on_each() {
    let mut docker = Docker::default();
    for (id, subnet, vlan) in [("c", "192.0.2.0/24", "1"), ("d", "198.18.0.0/24", "20")] {
        let body = json!({
            "NetworkID": id.repeat(64),
            "Options": { "com.docker.network.generic": { "parent": "eth1", "vswitch.vlan": vlan } },
            "IPv4Data": [{ "Pool": subnet, "Gateway": subnet.replace(".0/24", ".1/24") }],
        });
        let read = message::read(Driver::Lan, "/NetworkDriver.CreateNetwork", body.to_string().as_bytes()).unwrap();
        let DockerCall::Request(Request::CreateNetwork(request)) = read else { panic!("another request") };
        docker.networks.insert(request.network.clone(), Network::read(&request).unwrap());
    }
    let first = docker.networks.keys().next().unwrap().clone();
    docker.hosts.insert(first, ["192.0.2.9".parse().unwrap()].into());
    let (uplinks, bridges) = docker.bridges(&DockerSettings::default());
    let [bridge] = &bridges[..] else { panic!("{bridges:?}") };
    assert_eq!((bridge.name.as_str(), bridge.addresses.len(), uplinks.len()), ("lan-eth1", 0, 0), "no gateway");
    let ports: BTreeMap<String, _> = docker.ports().map(|port| (port.name.to_string(), port)).collect();
    assert_eq!(ports.keys().collect::<Vec<_>>(), ["host-cccccccc", "lan-eth1"]);
    let (host, link) = (&ports["host-cccccccc"], &ports["lan-eth1"]);
    assert!(host.policy.protected && link.policy.protected);
    assert_eq!((host.kind, &host.vlans), (PortKind::Tap, &VlanMode::Access(VlanId::DEFAULT)));
    assert_eq!(host.addresses, ["192.0.2.9/32".parse().unwrap()]);
    assert_eq!((link.kind, link.ifname.as_str(), &link.vlans), (PortKind::Link, "eth1", &VlanMode::All));
}

#[test]
fn an_internal_network_has_no_way_out() {
    let network = network(json!({}), true).unwrap();
    let web = web(&network);
    assert_eq!((web.gateway(&network, true), web.gateway(&network, false)), (None, None));
    let (uplinks, bridges) = docker(network, web).bridges(&DockerSettings::default());
    assert_eq!((uplinks.len(), bridges[0].uplink.as_ref()), (0, None));
    refused(self::network(json!({ "vswitch.uplink": "wan" }), true), "no option of an internal network");
    refused(self::network(json!({ "vswitch.isolated": "false" }), true), "no option of an internal network");
}

#[test]
fn a_network_on_a_bridge_of_the_file_must_have_its_gateway() {
    let bridge = |rest: &str| -> BridgeSpec { toml::from_str(&format!("name = \"br0\"\n{rest}")).unwrap() };
    let network = network(json!({ "vswitch.bridge": "br0" }), false).unwrap();
    assert_eq!(network.bridge.as_str(), "br0");
    assert_eq!(network.own_bridge(None).unwrap(), None);
    network.check_bridge(&bridge("")).unwrap();
    network.check_bridge(&bridge("addresses = [\"10.78.0.254/24\"]")).unwrap();
    network.check_bridge(&bridge("addresses = [\"10.1.0.1/24\"]\ngateway-vlan = 9")).unwrap();
    let other = network.check_bridge(&bridge("addresses = [\"10.1.0.1/24\"]"));
    refused(other, "use --subnet 10.1.0.0/24 --gateway 10.1.0.1");
}

#[test]
fn what_is_no_network_is_refused() {
    let subnets = |v4: Value| {
        let Request::CreateNetwork(request) = call("CreateNetwork", json!({ "NetworkID": NETWORK, "IPv4Data": v4 })) else {
            panic!("another request")
        };
        Network::read(&request)
    };
    refused(subnets(json!([{ "Pool": "x" }])), "not a subnet");
    refused(subnets(json!([{ "Pool": "10.0.0.0/24", "Gateway": "10.0.0.1" }])), "not a gateway");
    refused(subnets(json!([{ "Pool": "10.0.0.0/24", "Gateway": "10.0.0.255/24" }])), "cannot have the address");
    refused(subnets(json!([{ "Pool": "10.0.0.0/24", "Gateway": "10.0.1.1/24" }])), "10.0.1.1 is not in the subnet 10.0.0.0/24");
    let body = json!({ "NetworkID": NETWORK, "Options": { "com.docker.network.internal": "maybe" } });
    let Request::CreateNetwork(maybe) = call("CreateNetwork", body) else { panic!("another request") };
    refused(Network::read(&maybe), "`com.docker.network.internal` is neither true nor false");
    let twice =
        json!([{ "Pool": "10.0.0.0/24", "Gateway": "10.0.0.1/24" }, { "Pool": "10.0.0.0/16", "Gateway": "10.0.1.1/16" }]);
    refused(subnets(twice), "are in one subnet");
}

#[test]
fn a_network_without_subnets_is_a_bridge_without_gateway() {
    for v4 in [json!(null), json!([]), json!([{ "Pool": "0.0.0.0/0" }])] {
        let read = |options: Value| {
            let body = json!({ "NetworkID": NETWORK, "Options": { "com.docker.network.generic": options }, "IPv4Data": v4 });
            let Request::CreateNetwork(request) = call("CreateNetwork", body) else { panic!("another request") };
            Network::read(&request)
        };
        let network = read(json!({})).unwrap();
        let place = |interface: Value, options: Value| endpoint(interface, options, &network);
        let station = place(json!({}), json!({})).unwrap();
        assert_eq!((station.addresses.len(), &station.mac.0[..2]), (0, &[0x02, 0x42][..]));
        assert_eq!((station.gateway(&network, true), station.gateway(&network, false)), (None, None));
        let given = place(json!({}), json!({ "vswitch.mac": "02:00:00:00:00:07" })).unwrap();
        assert_eq!(given.mac.to_string(), "02:00:00:00:00:07");
        let same = place(json!({ "MacAddress": "02:00:00:00:00:07" }), json!({ "vswitch.mac": "02:00:00:00:00:07" }));
        assert_eq!(same.unwrap().mac, given.mac);
        refused(place(json!({ "MacAddress": "02:00:00:00:00:08" }), json!({ "vswitch.mac": "02:00:00:00:00:07" })), "differ");
        refused(place(json!({}), json!({ "vswitch.mac": "7" })), "use a MAC address");
        let (uplinks, bridges) = docker(network.clone(), station).bridges(&DockerSettings::default());
        assert_eq!((uplinks.len(), bridges[0].addresses.len(), bridges[0].uplink.as_ref()), (0, 0, None));
        refused(read(json!({ "vswitch.uplink": "wan" })), "leave it out");
    }
}

#[test]
fn options_of_dockers_bridge_are_carried_out() {
    let network = network(
        json!({
            "com.docker.network.bridge.enable_icc": "false",
            "com.docker.network.bridge.host_binding_ipv4": "127.0.0.1",
            "com.docker.network.bridge.name": "br-mine",
            "com.docker.network.bridge.enable_ip_masquerade": "true",
            "com.docker.network.container_iface_prefix": "lan",
            "com.docker.network.advertise_addr_nmsgs": "3",
            "com.docker.network.advertise_addr_ms": "1000",
        }),
        false,
    );
    let network = network.unwrap();
    assert_eq!((network.options.protected, network.options.publish_at), (true, "127.0.0.1".parse().ok()));
    let named = |options: Value| endpoint(json!({ "Address": "10.78.0.9/24" }), options, &network);
    assert_eq!(named(json!({})).unwrap().prefix.as_deref(), Some("lan"));
    assert!(web(&network).port_spec(&network, "/x".into()).unwrap().policy.protected);
    let ifname = |name: &str| named(json!({ message::IFNAME: name }));
    assert_eq!(ifname("wan0").unwrap().prefix.as_deref(), Some("wan"));
    for bad in ["wan1", "0", "", "with space0", "muchtoolongaprefix0"] {
        refused(ifname(bad), "use a name that ends in 0, such as wan0");
    }
    for (key, value, part) in [
        ("com.docker.network.bridge.enable_icc", "perhaps", "use true or false"),
        ("com.docker.network.bridge.enable_ip_masquerade", "false", "leave it out"),
        ("com.docker.network.bridge.host_binding_ipv4", "here", "use an address of the host"),
        ("com.docker.network.container_iface_prefix", "a/b", "what an interface may be called"),
    ] {
        refused(self::network(json!({ key: value }), false), part);
    }
    let all = self::network(json!({ "com.docker.network.bridge.host_binding_ipv4": "0.0.0.0" }), false).unwrap();
    assert_eq!(all.options.publish_at, None);
}

#[test]
fn the_gateway_of_a_lan_is_only_what_the_user_says() {
    let skips = |driver| match message::read(driver, "/NetworkDriver.GwAllocCheck", b"{}").unwrap() {
        DockerCall::Answer(answer) => answer["SkipIPv4"] == true && answer["SkipIPv6"] == true,
        DockerCall::Request(_) => panic!("a request"),
    };
    assert!(skips(Driver::Lan) && !skips(Driver::Bridge));
}

#[test]
fn a_container_is_a_port_from_when_it_joins() {
    let network = network(json!({ "vswitch.vlan": "7", "vswitch.guard": "true", "vswitch.attach": "veth" }), false).unwrap();
    let web = web(&network);
    assert_eq!((web.port.as_str(), web.mac.to_string().as_str()), ("ep-bbbbbbbb", "02:42:0a:4e:00:02"));
    assert_eq!(web.gateway(&network, true), Some("10.78.0.254".parse().unwrap()));
    assert_eq!(web.gateway(&network, false), Some("fd00:78::1".parse().unwrap()));
    let mut docker = docker(network, web);
    assert_eq!(docker.ports().count(), 0);
    let sandbox = Sandbox::at("/var/run/docker/netns/0123").unwrap();
    docker.endpoints.values_mut().for_each(|endpoint| endpoint.sandbox = Some(sandbox.clone()));
    let port = docker.ports().next().unwrap();
    assert_eq!((port.bridge.as_str(), port.ifname.as_str(), port.kind), ("docker-aaaaaaaa", "ep-bbbbbbbb", PortKind::Veth));
    assert_eq!((port.policy.guard, port.vlans.clone()), (true, VlanMode::Access(7.try_into().unwrap())));
    assert!(port.is_handed_over());
    // What is kept reads back the same.
    assert_eq!(serde_json::from_str::<Docker>(&serde_json::to_string(&docker).unwrap()).unwrap(), docker);
}

#[test]
fn addresses_of_containers_are_checked() {
    let network = network(json!({}), false).unwrap();
    let with = |interface: Value| endpoint(interface, json!({}), &network);
    assert_eq!(with(json!({ "Address": "10.78.0.9/24", "MacAddress": "02:00:00:00:00:07" })).unwrap().mac.0[5], 7);
    let v6_only = with(json!({ "AddressIPv6": "fd00:78::9/64" })).unwrap();
    assert_eq!(v6_only.mac.0[..2], [0x02, 0x42]);
    refused(with(json!({ "Address": "10.79.0.9/24" })), "10.79.0.9 is in no subnet");
    refused(with(json!({ "Address": "10.78.0.9" })), "not an address with its prefix");
    refused(with(json!({ "MacAddress": "x", "Address": "10.78.0.9/24" })), "not a MAC address");
    refused(with(json!({})), "given no address");
    let slow = endpoint(json!({ "Address": "10.78.0.9/24" }), json!({ "vswitch.send-rate": "1mbit" }), &network).unwrap();
    assert_eq!((slow.rates.send.map(|rate| rate.to_string()), slow.rates.receive), (Some("1mbit".to_owned()), None));
    let option = endpoint(json!({ "Address": "10.78.0.9/24" }), json!({ "speed": "1" }), &network);
    refused(option, "unknown option `speed` of a container");
}

fn binding(protocol: u8, host_ip: &str, first: u16, last: u16) -> Binding {
    Binding { protocol, port: 80, host_ip: host_ip.to_owned(), first, last }
}

/// Where nothing is published, but for what is changed of it.
fn outside<'a>(uplink: &'a PortName, kind: UplinkKindName, refused: &'a BTreeSet<(Protocol, u16)>) -> Outside<'a> {
    Outside { uplink, kind, listen: None, leaves_ipv6: false, is_taken: &|_| false, siblings: &[], refused }
}

fn chosen(bindings: &[Binding], endpoint: &Endpoint, outside: &Outside<'_>) -> Result<Vec<String>, DockerError> {
    Ok(choose(bindings, endpoint, outside)?.into_iter().map(|spec| format!("{} {}", spec.key, spec.to)).collect())
}

fn published(bindings: &[Binding], kind: UplinkKindName, taken: &[u16], refused: &[u16]) -> Result<Vec<String>, DockerError> {
    let web = web(&network(json!({}), false).unwrap());
    let is_taken = |key: &ForwardKey| taken.iter().any(|port| key.ports.to_string() == port.to_string());
    let refused: BTreeSet<(Protocol, u16)> = refused.iter().map(|port| (Protocol::Tcp, *port)).collect();
    let uplink = "wan".parse().unwrap();
    chosen(bindings, &web, &Outside { is_taken: &is_taken, ..outside(&uplink, kind, &refused) })
}

/// A container without an IPv6 address.
fn v4_only() -> Endpoint {
    endpoint(json!({ "Address": "10.78.0.3/24" }), json!({}), &network(json!({}), false).unwrap()).unwrap()
}

#[test]
fn a_port_is_published_to_the_address_of_each_ip_version() {
    let all = [binding(6, "", 8080, 8080)];
    let both = ["wan tcp/8080 --listen 0.0.0.0 10.78.0.2:80", "wan tcp6/8080 --listen :: [fd00:78::2]:80"];
    assert_eq!(published(&all, UplinkKindName::Host, &[], &[]).unwrap(), both);
    let both = ["wan tcp/8080 10.78.0.2:80", "wan tcp6/8080 [fd00:78::2]:80"];
    assert_eq!(published(&all, UplinkKindName::Link, &[], &[]).unwrap(), both);
    let v6 = [binding(17, "::", 53, 53)];
    assert_eq!(published(&v6, UplinkKindName::Host, &[], &[]).unwrap(), ["wan udp6/53 --listen :: [fd00:78::2]:80"]);
    let one = [binding(6, "192.0.2.1", 1, 1)];
    for kind in [UplinkKindName::Link, UplinkKindName::Host] {
        assert_eq!(published(&one, kind, &[], &[]).unwrap(), ["wan tcp/1 --listen 192.0.2.1 10.78.0.2:80"]);
    }
    // Where there is one address only, the host's sockets lead there from both versions.
    let (uplink, none) = ("wan".parse().unwrap(), BTreeSet::new());
    let host = outside(&uplink, UplinkKindName::Host, &none);
    assert_eq!(chosen(&all, &v4_only(), &host).unwrap(), ["wan tcp/8080 10.78.0.3:80"]);
    assert_eq!(chosen(&v6, &v4_only(), &host).unwrap(), ["wan udp/53 --listen :: 10.78.0.3:80"]);
    let at = Outside { listen: "192.0.2.9".parse().ok(), ..host };
    assert_eq!(chosen(&all, &v4_only(), &at).unwrap(), ["wan tcp/8080 --listen 192.0.2.9 10.78.0.3:80"]);
}

#[test]
fn the_endpoints_of_a_container_share_its_ports_by_ip_version() {
    let all = [binding(6, "", 8080, 8080)];
    let (uplink, none) = ("wan".parse().unwrap(), BTreeSet::new());
    let host = || outside(&uplink, UplinkKindName::Host, &none);
    let dual = web(&network(json!({}), false).unwrap());
    let labelled = Outside { leaves_ipv6: true, ..host() };
    let v4 = ["wan tcp/8080 --listen 0.0.0.0 10.78.0.3:80"];
    assert_eq!(chosen(&all, &v4_only(), &labelled).unwrap(), v4, "IPv6 is another's");
    assert_eq!(chosen(&[binding(6, "2001:db8::1", 1, 1)], &v4_only(), &labelled).unwrap(), Vec::<String>::new());
    let siblings = choose(&all, &v4_only(), &labelled).unwrap();
    let second = Outside { siblings: &siblings, ..host() };
    assert_eq!(chosen(&all, &dual, &second).unwrap(), ["wan tcp6/8080 --listen :: [fd00:78::2]:80"], "what is left");
    // A driver that is told that IPv4 is its own takes IPv4 even where the other was first.
    let siblings = choose(&all, &dual, &host()).unwrap();
    let second = Outside { siblings: &siblings, leaves_ipv6: true, ..host() };
    assert_eq!(chosen(&all, &v4_only(), &second).unwrap(), v4);
    // Of a port that Docker leaves to us, both have the same.
    let any = [binding(6, "", 0, 0)];
    let siblings =
        choose(&any, &v4_only(), &Outside { refused: &[(Protocol::Tcp, 32_768)].into(), leaves_ipv6: true, ..host() }).unwrap();
    let second = Outside { siblings: &siblings, ..host() };
    assert_eq!(chosen(&any, &dual, &second).unwrap(), ["wan tcp6/32769 --listen :: [fd00:78::2]:80"]);
}

#[test]
fn a_container_that_is_asked_again_keeps_its_ports() {
    let any = [binding(6, "", 0, 0), binding(6, "", 8000, 8009)];
    let (uplink, none) = ("wan".parse().unwrap(), BTreeSet::new());
    let host = || outside(&uplink, UplinkKindName::Host, &none);
    let mut web = v4_only();
    let refused = [(Protocol::Tcp, 32_768), (Protocol::Tcp, 8000)].into();
    web.published = choose(&any, &web, &Outside { refused: &refused, ..host() }).unwrap();
    assert_eq!(choose(&any, &web, &host()).unwrap(), web.published, "although others became free");
}

#[test]
fn ports_that_follow_each_other_are_one_forward() {
    let follow = |first: u16, port: u16| Binding { port, ..binding(17, "", first, first) };
    let mut all: Vec<Binding> = (0..20_000).map(|n| follow(18_000 + n, 8_000 + n)).collect();
    // As Docker may say it.
    all.reverse();
    let map: Vec<Value> = all.iter().map(|Binding { protocol, port, first, .. }| json!({ "Proto": protocol, "Port": port, "HostPort": first, "HostPortEnd": first })).collect();
    let all = bindings(&[(message::PORT_MAP.to_owned(), json!(map))].into()).unwrap();
    let both = ["wan udp/18000-37999 --listen 0.0.0.0 10.78.0.2:8000", "wan udp6/18000-37999 --listen :: [fd00:78::2]:8000"];
    assert_eq!(published(&all, UplinkKindName::Host, &[], &[]).unwrap(), both);
    refused(published(&all, UplinkKindName::Host, &[20_000], &[]), "udp port 20000 is in use");
    let apart = [follow(10, 10), follow(11, 11), follow(13, 13), follow(14, 13), follow(15, 15)];
    let apart = published(&apart, UplinkKindName::Link, &[], &[]).unwrap();
    let v4: Vec<&String> = apart.iter().filter(|text| text.contains("udp/")).collect();
    let ranges =
        ["wan udp/10-11 10.78.0.2:10", "wan udp/13 10.78.0.2:13", "wan udp/14 10.78.0.2:13", "wan udp/15 10.78.0.2:15"];
    assert_eq!(v4, ranges);
    let many = vec![json!({ "Proto": 6, "Port": 1 }); 65_536];
    refused(bindings(&[(message::PORT_MAP.to_owned(), json!(many))].into()), "use at most 65535");
}

#[test]
fn the_first_port_that_is_free_is_chosen() {
    let range = binding(6, "", 8000, 8002);
    let bindings = [range.clone(), range.clone()];
    let chosen = published(&bindings, UplinkKindName::Link, &[8000], &[]).unwrap();
    let both = [
        "wan tcp/8001 10.78.0.2:80",
        "wan tcp6/8001 [fd00:78::2]:80",
        "wan tcp/8002 10.78.0.2:80",
        "wan tcp6/8002 [fd00:78::2]:80",
    ];
    assert_eq!(chosen, both);
    let full = published(&bindings, UplinkKindName::Host, &[8000], &[8001]);
    refused(full, "all tcp ports from 8000 to 8002 are in use");
    let any = [binding(6, "", 0, 0), binding(17, "", 0, 0)];
    let chosen = published(&any, UplinkKindName::Link, &[], &[32_768]).unwrap();
    let both = [
        "wan tcp/32769 10.78.0.2:80",
        "wan tcp6/32769 [fd00:78::2]:80",
        "wan udp/32768 10.78.0.2:80",
        "wan udp6/32768 [fd00:78::2]:80",
    ];
    assert_eq!(chosen, both);
    refused(published(&[binding(6, "", 80, 80)], UplinkKindName::Host, &[80], &[]), "tcp port 80 is in use");
}

#[test]
fn what_cannot_be_published_is_told() {
    let one = |binding| published(&[binding], UplinkKindName::Host, &[], &[]);
    refused(one(binding(132, "", 80, 80)), "SCTP");
    refused(one(binding(1, "", 80, 80)), "IP protocol 1 has no ports");
    refused(one(binding(6, "here", 80, 80)), "not an address of the host");
    refused(one(Binding { port: 0, ..binding(6, "", 80, 80) }), "port 0");
    let value = json!({ message::PORT_MAP: "x" });
    let options: message::Options = serde_json::from_value(value).unwrap();
    refused(bindings(&options), "not understood");
    assert_eq!(bindings(&message::Options::new()).unwrap(), []);
}

#[test]
fn forwards_follow_their_network_to_its_uplink() {
    let network = network(json!({}), false).unwrap();
    let mut web = web(&network);
    let uplink = "old".parse().unwrap();
    let none = BTreeSet::new();
    web.published = choose(&[binding(6, "", 80, 80)], &web, &outside(&uplink, UplinkKindName::Link, &none)).unwrap();
    let docker = docker(network, web);
    let forwards = docker.forwards(|_| Some("new".parse().unwrap()));
    assert_eq!(forwards.iter().map(|spec| spec.key.to_string()).collect::<Vec<_>>(), ["new tcp/80", "new tcp6/80"]);
    assert_eq!(forwards[0].to.ip(), "10.78.0.2".parse::<IpAddr>().unwrap());
    assert_eq!(docker.forwards(|_| None), []);
}
