//! Hosts of a flannel network: some with a vswitchd, others as flanneld sets them up, and a real etcd. Packets get from any to any, whatever becomes of hosts
//! and of etcd.
//!
//! Debian has no package of flannel. So the hosts without a vswitchd are made by hand, by what flanneld's backend vxlan does (pkg/backend/vxlan): the kernel's
//! device with its address, and for each other host a route, a neighbour and a row of the device's table. Their records are put into etcd as flanneld's
//! subnet manager does it (pkg/subnet/etcd).
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::PathBuf;

use serde_json::{Value, json};
use vswitch_tests::{Lab, Underlay, iperf3, needs, ping};

const PREFIX: &str = "/coreos.com/network";

const CONFIG: &str = r#"{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan"}}"#;

/// The first block of this kind in the section of `docs/overlay.md` about flannel.
fn document(kind: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/overlay.md");
    let text = std::fs::read_to_string(path).unwrap();
    let (_, section) = text.split_once("\n## Beside flannel\n").unwrap();
    let (_, block) = section.split_once(&format!("```{kind}\n")).unwrap();
    block.split_once("```").unwrap().0.to_owned()
}

/// The file of the document for host `number`, with more at its end.
fn file(number: u8, more: &str) -> String {
    let line = |line: &str| match line.split_whitespace().next() {
        Some("endpoints") => "endpoints = [\"http://192.0.2.9:2379\"]\n".to_owned(),
        Some("underlay") => format!("underlay = \"192.0.2.{number}\"\n"),
        Some("netns") => "netns = \"@a\"\n".to_owned(),
        _ => format!("{line}\n"),
    };
    document("toml").lines().map(line).collect::<String>() + more
}

/// An etcd of one member, at 192.0.2.9.
struct Store {
    lab: Lab,
    pid: Option<u32>,
    /// How often its data was begun anew.
    life: u32,
}

impl Store {
    fn new(underlay: &Underlay) -> Self {
        let lab = Lab::new();
        underlay.join(&lab, 9);
        let mut store = Self { lab, pid: None, life: 0 };
        store.start();
        store
    }

    fn start(&mut self) {
        let data = self.lab.path(&format!("data{}", self.life));
        let line = format!(
            "etcd --data-dir {} --listen-peer-urls http://127.0.0.1:2380 --listen-client-urls http://192.0.2.9:2379 \
             --advertise-client-urls http://192.0.2.9:2379 --unsafe-no-fsync --log-level error",
            data.display()
        );
        self.pid = Some(self.lab.spawn_in("host", &line));
        self.lab.until("etcd answers", |lab| lab.run_in("host", "curl -sf -m 2 http://192.0.2.9:2379/health").code == Some(0));
    }

    fn kill(&mut self) {
        self.lab.sh(&format!("kill -9 {}", self.pid.take().unwrap())).ok();
    }

    /// Asks its JSON gateway.
    #[track_caller]
    fn ask(&self, path: &str, body: &Value) -> Value {
        let line = format!("curl -sf -m 5 -d '{body}' http://192.0.2.9:2379{path}");
        serde_json::from_str(&self.lab.run_in("host", &line).ok()).unwrap()
    }

    fn put(&self, key: &str, value: &str) {
        self.ask("/v3/kv/put", &json!({ "key": base64(&format!("{PREFIX}/{key}")), "value": base64(value) }));
    }

    /// As flanneld does it: by a lease of a day, and only where no other host is.
    fn claim(&self, subnet: u8, value: &str) {
        let lease = self.ask("/v3/lease/grant", &json!({ "TTL": 86_400 }))["ID"].clone();
        let key = base64(&format!("{PREFIX}/subnets/10.244.{subnet}.0-24"));
        let done = self.ask(
            "/v3/kv/txn",
            &json!({
                "compare": [{ "target": "VERSION", "key": key, "version": 0, "result": "EQUAL" }],
                "success": [{ "requestPut": { "key": key, "value": base64(value), "lease": lease } }],
            }),
        );
        assert_eq!(done["succeeded"], true, "{done}");
    }

    fn delete(&self, key: &str) {
        self.ask("/v3/kv/deleterange", &json!({ "key": base64(&format!("{PREFIX}/{key}")) }));
    }

    /// The records of subnets, by the name of the key.
    fn subnets(&self) -> Vec<(String, Value)> {
        let first = format!("{PREFIX}/subnets/");
        let all =
            self.ask("/v3/kv/range", &json!({ "key": base64(&first), "range_end": base64(&format!("{PREFIX}/subnets0")) }));
        let row = |kv: &Value| {
            assert!(kv["lease"].is_string(), "it is for ever: {kv}");
            let key = plain(kv["key"].as_str().unwrap()).strip_prefix(&first).unwrap().to_owned();
            (key, serde_json::from_str(&plain(kv["value"].as_str().unwrap())).unwrap())
        };
        all["kvs"].as_array().map(|rows| rows.iter().map(row).collect()).unwrap_or_default()
    }
}

/// A text in base64, and back.
fn base64(text: &str) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let group = |bytes: &[u8]| {
        let number = bytes.iter().chain([0; 2].iter()).take(3).fold(0u32, |number, byte| number << 8 | u32::from(*byte));
        let digit =
            |index: usize| if index > bytes.len() { '=' } else { DIGITS[(number >> (18 - 6 * index) & 63) as usize] as char };
        (0..4).map(digit).collect::<String>()
    };
    text.as_bytes().chunks(3).map(group).collect()
}

fn plain(text: &str) -> String {
    const DIGITS: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bytes = Vec::new();
    for group in text.as_bytes().chunks(4) {
        let digits: Vec<u32> = group.iter().filter_map(|byte| u32::try_from(DIGITS.find(*byte as char)?).ok()).collect();
        let number = digits.iter().fold(0, |number, digit| number << 6 | digit) << (6 * (4 - digits.len()));
        bytes.extend_from_slice(&number.to_be_bytes()[1..digits.len()]);
    }
    String::from_utf8(bytes).unwrap()
}

/// A host as flanneld sets it up, with a pod at 10.244.SUBNET.2.
struct Flanneld {
    lab: Lab,
    number: u8,
    subnet: u8,
}

impl Flanneld {
    fn new(underlay: &Underlay, store: &Store, number: u8, subnet: u8) -> Self {
        let lab = Lab::new();
        underlay.join(&lab, number);
        let this = Self { lab, number, subnet };
        let (mac, pod) = (this.mac(), this.lab.named("@pod"));
        this.lab
            .sh(&format!(
                "netns @pod && ip -n @host link add flannel.1 address {mac} mtu 1450 type vxlan id 1 dev u0 local 192.0.2.{number} \
                 dstport 8472 nolearning && ip -n @host addr add 10.244.{subnet}.0/32 dev flannel.1 && ip -n @host link set flannel.1 up && \
                 ip -n @host link add cni0 mtu 1450 type bridge && ip -n @host link set cni0 up && \
                 ip -n @host addr add 10.244.{subnet}.1/24 dev cni0 && \
                 ip -n @host link add pod0 mtu 1450 type veth peer name eth0 mtu 1450 netns {pod} && \
                 ip -n @host link set pod0 master cni0 up && ip -n @pod link set eth0 up && \
                 ip -n @pod addr add 10.244.{subnet}.2/24 dev eth0 && ip -n @pod route add default via 10.244.{subnet}.1"
            ))
            .ok();
        this.lab.run_in("host", "sysctl -qw net.ipv4.ip_forward=1").ok();
        store.claim(subnet, &this.record());
        this
    }

    fn mac(&self) -> String {
        format!("de:ad:be:ef:00:{:02x}", self.number)
    }

    fn record(&self) -> String {
        let (number, mac) = (self.number, self.mac());
        format!(
            r#"{{"PublicIP":"192.0.2.{number}","PublicIPv6":null,"BackendType":"vxlan","BackendData":{{"VNI":1,"VtepMAC":"{mac}"}}}}"#
        )
    }

    fn pod(&self) -> String {
        format!("10.244.{}.2", self.subnet)
    }

    /// Takes in the other hosts, in flanneld's order: neighbour, row, route.
    fn follow(&self, store: &Store) {
        let own = format!("192.0.2.{}", self.number);
        for (key, record) in store.subnets().into_iter().filter(|(_, record)| record["PublicIP"] != own.as_str()) {
            let subnet = key.replace('-', "/");
            let hop = subnet.split('/').next().unwrap().to_owned();
            let (mac, host) = (record["BackendData"]["VtepMAC"].as_str().unwrap(), record["PublicIP"].as_str().unwrap());
            assert_eq!(
                (&record["BackendType"], &record["PublicIPv6"], &record["BackendData"]["VNI"]),
                (&json!("vxlan"), &json!(null), &json!(1))
            );
            let line = format!(
                "ip neigh replace {hop} lladdr {mac} dev flannel.1 nud permanent && bridge fdb replace {mac} dev flannel.1 dst {host} && \
                 ip route replace {subnet} via {hop} dev flannel.1 onlink"
            );
            self.lab.run_in("host", &line).ok();
        }
    }
}

/// A host with a vswitchd and station `a`.
fn host(underlay: &Underlay, number: u8, more: &str) -> Lab {
    let mut lab = Lab::new();
    underlay.join(&lab, number);
    // The head of the file ends in [switch]. Of two workers one routes, and gets the frames of the other.
    let workers = if number == 2 { "workers = 2\n" } else { "" };
    lab.write(&format!("{workers}{}", file(number, more)));
    lab.start();
    lab
}

fn status(lab: &Lab) -> Value {
    lab.json("flannel")
}

fn subnet(lab: &Lab) -> String {
    status(lab)["subnet"].as_str().unwrap_or_default().to_owned()
}

fn hosts(lab: &Lab) -> usize {
    status(lab)["hosts"].as_array().unwrap().len()
}

fn problem(lab: &Lab) -> String {
    status(lab)["problem"].as_str().unwrap_or_default().to_owned()
}

/// Waits until etcd has this host's subnet, and gives station `a` an address of it.
fn settle(lab: &Lab) -> String {
    lab.until("this host has a subnet", |lab| !subnet(lab).is_empty() && status(lab)["state"] == "up");
    address(lab)
}

/// Gives station `a` the second address of its host's subnet, and returns that.
fn address(lab: &Lab) -> String {
    let net = subnet(lab).replace(".0/24", "");
    lab.until("the gateway answers", |lab| {
        lab.run_in("a", &format!("ip addr replace {net}.2/24 dev eth0 && ip route replace default via {net}.1"));
        ping(lab, "a", &format!("{net}.1"))
    });
    format!("{net}.2")
}

#[test]
fn stations_and_pods_reach_each_other_whatever_becomes_of_hosts_and_of_etcd() {
    needs!("ping", "etcd", "curl", "iperf3", "bridge");
    let underlay = Underlay::new();
    let mut store = Store::new(&underlay);
    store.put("config", CONFIG);
    let third = Flanneld::new(&underlay, &store, 3, 30);
    let mut labs = [1, 2].map(|number| host(&underlay, number, ""));
    let own: Vec<String> = labs.iter().map(settle).collect();
    labs.iter().for_each(|lab| lab.until("it knows both others", |lab| hosts(lab) == 2));
    assert_eq!(store.subnets().len(), 3);
    third.follow(&store);

    all_reach_all(&labs, &own, &third);
    every_command_of_the_document_works(&labs[0]);
    what_is_shown_is_so(&labs[0], &own[0], &third);

    // One that comes later, and goes.
    let fourth = Flanneld::new(&underlay, &store, 4, 40);
    fourth.follow(&store);
    labs.iter().for_each(|lab| lab.until("a host that comes is known", |lab| hosts(lab) == 3 && ping(lab, "a", &fourth.pod())));
    assert!(ping(&fourth.lab, "pod", &own[1]));
    store.delete("subnets/10.244.40.0-24");
    labs.iter().for_each(|lab| lab.until("one that goes is dropped", |lab| hosts(lab) == 2));
    let said = labs[0].run_in("a", &format!("ping -n -c 1 -W 2 {}", fourth.pod())).stdout;
    assert!(said.contains("Net Unreachable"), "no other way leads there: {said}");

    // It keeps its subnet whatever ends it, and whatever becomes of etcd.
    let kept = subnet(&labs[0]);
    labs[0].kill();
    labs[0].start();
    assert_eq!(subnet(&labs[0]), kept);
    labs[0].until("it goes on", |lab| ping(lab, "a", &third.pod()) && ping(lab, "a", &own[1]));
    labs[0].until("its record is there", |lab| status(lab)["state"] == "up");
    store.kill();
    assert!(ping(&labs[0], "a", &third.pod()) && ping(&third.lab, "pod", &own[0]));
    labs[0].until("it is said that etcd is away", |lab| status(lab)["state"] == "lost" && problem(lab).contains("[flannel]"));
    assert!(labs[0].stop().success());
    labs[0].start();
    assert_eq!((subnet(&labs[0]), status(&labs[0])["state"].as_str()), (kept.clone(), Some("waiting")));
    // The namespace of its station, in which no program ran, went with vswitchd.
    assert_eq!(address(&labs[0]), own[0]);
    labs[0].until("it starts without etcd", |lab| ping(lab, "a", &third.pod()) && ping(lab, "a", &own[1]));
    let old = labs[0].take_over();
    assert!(ping(&labs[0], "a", &third.pod()), "its successor goes on");
    old.ended();
    store.start();
    labs.iter().for_each(|lab| lab.until("etcd is back", |lab| status(lab)["state"] == "up"));

    // It comes back empty.
    store.kill();
    store.life += 1;
    store.start();
    labs.iter().for_each(|lab| {
        lab.until("that there is no network is said", |lab| problem(lab).contains("/coreos.com/network/config is not there"))
    });
    store.lab.until("both have put themselves there again", |_| store.subnets().len() == 2);
    assert_eq!((subnet(&labs[0]), hosts(&labs[0]), &status(&labs[0])["held"]), (kept.clone(), 2, &json!(true)));
    assert!(ping(&labs[0], "a", &third.pod()) && ping(&third.lab, "pod", &own[1]), "no host is withdrawn");
    store.put("config", CONFIG);
    store.claim(30, &third.record());
    labs.iter().for_each(|lab| lab.until("all is said", |lab| problem(lab).is_empty() && status(lab)["state"] == "up"));
    all_reach_all(&labs, &own, &third);
}

fn all_reach_all(labs: &[Lab; 2], own: &[String], third: &Flanneld) {
    for (lab, other) in labs.iter().zip(own.iter().rev()) {
        lab.until("the pod answers", |lab| ping(lab, "a", &third.pod()));
        assert!(ping(lab, "a", other) && ping(lab, "a", &format!("10.244.{}.0", third.subnet)));
    }
    for address in own {
        assert!(ping(&third.lab, "pod", address) && ping(&third.lab, "host", address), "{address}");
    }
    let net = subnet(&labs[0]).replace(".0/24", "");
    for last in [0, 1] {
        assert!(ping(&third.lab, "pod", &format!("{net}.{last}")), "the host itself answers: {last}");
    }
    for (from, to, address) in [
        ((&labs[0], "a"), (&third.lab, "pod"), third.pod()),
        ((&third.lab, "pod"), (&labs[0], "a"), own[0].clone()),
        ((&labs[0], "a"), (&labs[1], "a"), own[1].clone()),
    ] {
        let rate = iperf3(from, to, &address, "-t 1")["end"]["sum_received"]["bits_per_second"].as_f64().unwrap();
        assert!(rate > 20e6, "TCP to {address}: {rate} bit/s");
    }
    // The tunnel's MTU is the station's, and a packet of that length passes whole.
    assert!(labs[0].run_in("a", &format!("ping -n -c 1 -W 2 -M do -s 1422 {}", third.pod())).code == Some(0));
}

/// Types what the document has, on the first host; all of it must work.
fn every_command_of_the_document_works(lab: &Lab) {
    let vsctl = format!("{} --control {}", vswitch_tests::program("vsctl").display(), lab.path("control.sock").display());
    for line in document("sh").lines() {
        let line = line.replace("10.244.6.2", "10.244.30.2").replace("vsctl ", &format!("{vsctl} "));
        assert!(!lab.sh(&line).ok().is_empty(), "{line}");
    }
}

fn what_is_shown_is_so(lab: &Lab, own: &str, third: &Flanneld) {
    let text = lab.ctl("flannel").ok().split_whitespace().collect::<Vec<_>>().join(" ");
    for part in [
        "flannel by etcd: up",
        "network 10.244.0.0/16, VNI 1, UDP port 8472",
        "tunnel flannel.1",
        "10.244.30.0/24 192.0.2.3",
        "de:ad:be:ef:00:03 up",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let trace = lab.ctl(&format!("trace --port a --to {}", third.pod())).ok();
    for part in [
        "10.244.30.2 is reached by tunnel flannel.1, next hop 10.244.30.0",
        "10.244.30.0 on tunnel flannel.1 has de:ad:be:ef:00:03",
        "leaves by flannel.1 to host 10.244.30.0/24 at 192.0.2.3",
        "It is routed to tunnel flannel.1.",
    ] {
        assert!(trace.contains(part), "{part}: {trace}");
    }
    assert!(lab.ctl("list-routes br0").ok().contains("10.244.30.0"));
    let row = &lab.json("list-vxlan br0")[0];
    assert_eq!(
        (&row["name"], &row["origin"], &row["mtu"], &row["port"]),
        (&json!("flannel.1"), &json!("flannel"), &json!(1450), &json!(8472))
    );
    let leases = lab.run_in("a", "busybox udhcpc -f -q -n -t 5 -i eth0 -s /bin/true").code;
    assert_eq!(leases, Some(0), "the gateway gives out the rest of the subnet");
    // What is flannel's is not vsctl's to change.
    assert!(lab.ctl("del-vxlan flannel.1").refused().contains("goes with [flannel] of switch.toml"));
    assert!(lab.ctl("set-br br0 --address 10.1.0.1/24").refused().contains("its `addresses` cannot be changed"));
    assert!(lab.ctl("set-br br0 --overlay red").refused().contains("its `overlay` cannot be changed"));
    lab.ctl("set-br br0 --ageing 100s").ok();
    let exported = lab.ctl("export").ok();
    assert!(exported.contains("[flannel]") && !exported.contains(own.rsplit_once('.').unwrap().0), "{exported}");
    lab.ctl("reload").ok();
    assert!(ping(lab, "a", &third.pod()));
}

#[test]
fn what_leaves_the_network_is_translated_and_a_cluster_may_be_there_too() {
    needs!("ping", "etcd", "curl");
    let underlay = Underlay::new();
    let store = Store::new(&underlay);
    store.put("config", CONFIG);
    let more = |number: u8| {
        format!(
            "[[uplink]]\nname = \"out\"\nkind = \"host\"\n[cluster]\nstore = \"etcd\"\nendpoints = [\"http://192.0.2.9:2379\"]\nttl = \"3s\"\n\
             node = \"h{number}\"\nunderlay = \"192.0.2.{number}\"\n[[bridge]]\nname = \"br1\"\noverlay = \"red\"\n\
             [[port]]\nname = \"b\"\nbridge = \"br1\"\nnetns = \"@b\"\naddresses = [\"10.0.0.{number}/24\"]\n"
        )
    };
    let start = |number: u8| {
        let mut lab = Lab::new();
        underlay.join(&lab, number);
        lab.write(&file(number, &more(number)).replacen("dhcp ", "uplink = \"out\"\ndhcp ", 1));
        lab.start();
        lab
    };
    let labs = [1, 2].map(start);
    let own: Vec<String> = labs.iter().map(settle).collect();
    labs[0].until("both networks are there", |lab| ping(lab, "a", &own[1]) && ping(lab, "b", "10.0.0.2"));
    labs[0].until("the rest of the world, too", |lab| {
        lab.run_in("a", "curl -sf -m 5 http://192.0.2.9:2379/version").code == Some(0)
    });
    labs[0].ctl(&format!("add-forward out tcp/8080 {}:80", own[0])).ok();
    assert!(labs[0].ctl("del-br br0").refused().contains("br0"));
    assert!(labs[0].ctl("set-br br0 --uplink none").refused().contains("its `uplink` cannot be changed"));
    assert!(labs[0].run_in("a", "ping -n -c 1 -W 2 10.244.250.1").stdout.contains("Net Unreachable"), "never by the uplink");
    assert!(labs[1].run_in("b", "ping -n -c 1 -W 1 10.244.250.1").code != Some(0));

    // The file has no [flannel] any more, and then again.
    let kept = subnet(&labs[0]);
    labs[0].ctl("del-forward out tcp/8080").ok();
    labs[0]
        .write(&format!("[[bridge]]\nname = \"br0\"\n[[port]]\nname = \"a\"\nbridge = \"br0\"\nnetns = \"@a\"\n{}", more(1)));
    labs[0].ctl("reload").ok();
    assert!(labs[0].ctl("flannel").refused().contains("add [flannel] to switch.toml"));
    assert_eq!(labs[0].json("list-vxlan br0").as_array().unwrap().len(), 0);
    assert!(!ping(&labs[0], "a", &own[1]) && ping(&labs[0], "b", "10.0.0.2"));
    labs[0].write(&file(1, &more(1)));
    labs[0].ctl("reload").ok();
    assert_eq!(subnet(&labs[0]), kept);
    labs[0].until("it is back", |lab| ping(lab, "a", &own[1]));
}

#[test]
fn what_is_wrong_is_said_in_a_sentence_and_mended_without_a_restart() {
    needs!("etcd", "curl");
    let underlay = Underlay::new();
    let store = Store::new(&underlay);
    let mut lab = Lab::new();
    underlay.join(&lab, 1);
    lab.write(&file(1, "[[bridge]]\nname = \"br1\"\naddresses = [\"10.244.77.1/24\"]\n"));
    lab.start();
    let says = |part: &str| lab.until(part, |lab| problem(lab).contains(part) && lab.ctl("flannel").ok().contains(part));
    says("/coreos.com/network/config is not there: its administrator puts the network there");
    store.put("config", r#"{"Network":"10.244.0.0/16","Backend":{"Type":"host-gw"}}"#);
    says("has the backend \"host-gw\", and vswitchd takes part in networks with the backend vxlan alone");
    store.put("config", r#"{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan","DirectRouting":true}}"#);
    says("has DirectRouting");
    store.put("config", r#"{"Network":"10.244.0.0/33","Backend":{"Type":"vxlan"}}"#);
    says("`Network` must be such as");
    let other = r#"{"PublicIP":"192.0.2.3","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"de:ad:be:ef:00:03"}}"#;
    store.claim(1, other);
    store.put(
        "config",
        r#"{"Network":"10.244.0.0/22","SubnetMin":"10.244.1.0","SubnetMax":"10.244.1.0","Backend":{"Type":"vxlan"}}"#,
    );
    says("no /24 of 10.244.0.0/22 is free");
    store.put("config", CONFIG);
    says("10.244.0.0/16 overlaps 10.244.77.1/24 of bridge \"br1\": give that a subnet that is apart");
    assert!(lab.json("list-br")[0]["addresses"].as_array().unwrap().is_empty());
    lab.ctl("set-br br1 --address none").ok();
    lab.until("it has its subnet", |lab| {
        problem(lab).is_empty() && !lab.json("list-br")[0]["addresses"].as_array().unwrap().is_empty()
    });
    let kept = subnet(&lab).replace('/', "-");

    // Who comes later with a subnet of the network takes nothing from what runs. No host has the network's first.
    let sentence = lab.ctl("add-br zz --address 10.244.0.1/24").refused();
    assert!(sentence.contains("10.244.0.0/16 overlaps 10.244.0.1/24 of bridge \"zz\""), "{sentence}");
    for (rest, is_apart) in [("addresses = [\"10.244.0.1/24\"]\n", false), ("", true)] {
        lab.write(&file(1, &format!("[[bridge]]\nname = \"br1\"\n{rest}")));
        lab.ctl("reload").ok();
        lab.until("what is there is said", |lab| problem(lab).is_empty() == is_apart);
        assert_eq!((subnet(&lab).replace('/', "-"), status(&lab)["tunnel"].as_str()), (kept.clone(), Some("flannel.1")));
        assert!(!lab.json("list-br")[0]["addresses"].as_array().unwrap().is_empty());
    }

    // A host that has another address than the file says.
    let mut elsewhere = Lab::new();
    underlay.join(&elsewhere, 5);
    elsewhere.write(&file(55, ""));
    elsewhere.start();
    elsewhere.until("its tunnel is missed", |lab| problem(lab).contains("192.0.2.55"));
    assert_eq!(status(&elsewhere)["tunnel"], "flannel.1");
    std::thread::sleep(std::time::Duration::from_secs(3));
    assert!(elsewhere.log().lines().count() < 8, "{}", elsewhere.log());
    elsewhere.sh("ip -n @host addr add 192.0.2.55/24 dev u0").ok();
    elsewhere.until("it is there now", |lab| problem(lab).is_empty());

    // Another host takes it, or has this one's address.
    store.put(&format!("subnets/{kept}"), other);
    says("which is this host's subnet, is leased to 192.0.2.3 as well");
    let same = other.replace("192.0.2.3", "192.0.2.1");
    store.put(&format!("subnets/{kept}"), &same);
    says("does flanneld run here, or has another host this `underlay`?");
    store.delete(&format!("subnets/{kept}"));
    lab.until("it has put itself there again", |lab| problem(lab).is_empty() && status(lab)["state"] == "up");
    store.put("config", &CONFIG.replace("10.244", "10.5"));
    says("has the network 10.5.0.0/16, in which this host's subnet");
    assert_eq!(subnet(&lab).replace('/', "-"), kept);
    let events = lab.ctl("events --kind cluster").ok();
    assert!(events.contains("10.244.1.0/24"), "{events}");

    // The file.
    for (from, to, part) in [
        ("bridge    = \"br0\"", "bridge = \"br7\"", "`bridge` of [flannel] is \"br7\", which the file does not have"),
        ("dhcp ", "uplink = \"none\"\ndhcp ", "`uplink` of [flannel] is \"none\""),
        ("dhcp ", "prefix = \"x\"\ndhcp ", "write it as flanneld has it"),
        ("dhcp ", "secret-file = \"/x\"\ndhcp ", "is for gossip"),
        ("[[port]]", "addresses = [\"10.1.0.1/24\"]\n[[port]]", "which gets its subnet there: remove `addresses`"),
        ("[[port]]", "overlay = \"red\"\n[[port]]", "which gets its subnet there: remove `overlay`"),
    ] {
        let text = file(1, "");
        assert!(text.contains(from), "{from}: {text}");
        lab.write(&text.replacen(from, to, 1));
        let said = lab.start_refused(&["--check"]).stderr;
        assert!(said.contains(part), "{to}: {said}");
    }
    lab.write(&file(1, ""));
    assert_eq!(lab.start_refused(&["--check"]).code, Some(0));
    assert!(lab.ctl("reload").ok().is_empty());
}
