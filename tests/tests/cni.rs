//! `vswitch-cni`, called as runtimes call it: each call of the specification by hand, and a real runtime, containerd's `ctr`.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use vswitch_tests::{DockerHost, Lab, Tour, needs, program};

/// A bridge with a way out, by the sockets of the lab's host.
const FILE: &str = "[[uplink]]\nname = \"host\"\nkind = \"host\"\n\
    [[bridge]]\nname = \"br0\"\naddresses = [\"10.10.0.1/24\", \"fd10::1/64\"]\nuplink = \"host\"\n";

/// What a call came to: its exit code and what it printed.
struct Answer {
    code: Option<i32>,
    document: Value,
}

/// Calls the plugin about a container of a lab, whose namespace is called as it is.
fn call(lab: &Lab, command: &str, container: &str, config: &Value, more: &[(&str, &str)]) -> Answer {
    let mut config = config.clone();
    for (key, value) in [("cniVersion", json!("1.1.0")), ("name", json!("net")), ("type", json!("vswitch-cni"))] {
        config.as_object_mut().unwrap().entry(key).or_insert(value);
    }
    let netns = format!("/run/netns/{}", lab.named(&format!("@{container}")));
    let mut plugin = Command::new(program("vswitch-cni"));
    plugin.env("VSWITCH_CONTROL", lab.path("control.sock")).env("CNI_COMMAND", command);
    plugin.env("CNI_CONTAINERID", container).env("CNI_IFNAME", "eth0").env("CNI_NETNS", netns).env("CNI_PATH", lab.path("cni"));
    plugin.envs(more.iter().copied()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = plugin.spawn().unwrap();
    // A call that needs no document may have ended.
    let _ = child.stdin.take().unwrap().write_all(config.to_string().as_bytes());
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{command}");
    let document = if output.stdout.is_empty() { Value::Null } else { serde_json::from_slice(&output.stdout).unwrap() };
    Answer { code: output.status.code(), document }
}

impl Answer {
    #[track_caller]
    fn ok(self) -> Value {
        assert_eq!(self.code, Some(0), "{}", self.document);
        self.document
    }

    /// The number and the sentence of a refusal.
    #[track_caller]
    fn refused(self) -> (u64, String) {
        assert_eq!(self.code, Some(1), "{}", self.document);
        assert!(self.document["cniVersion"].is_string(), "{}", self.document);
        (self.document["code"].as_u64().unwrap(), self.document["msg"].as_str().unwrap().to_owned())
    }
}

/// A lab with namespaces for containers.
fn lab(containers: &[&str]) -> Lab {
    let lab = Lab::with(FILE);
    containers.iter().for_each(|name| lab.add_netns(name));
    lab
}

fn net() -> Value {
    json!({ "bridge": "br0" })
}

fn rows(lab: &Lab, words: &str) -> usize {
    lab.json(words).as_array().unwrap().len()
}

#[test]
fn a_container_gets_an_interface_and_loses_it_again() {
    needs!("ping", "dig");
    let lab = lab(&["web", "box"]);
    let result = call(&lab, "ADD", "web", &net(), &[]).ok();
    let netns = format!("/run/netns/{}", lab.named("@web"));
    let (name, sandbox) = (&result["interfaces"][0]["name"], &result["interfaces"][0]["sandbox"]);
    assert_eq!((name, sandbox, &result["interfaces"][0]["mtu"]), (&json!("eth0"), &json!(netns), &json!(1500)));
    assert_eq!(result["ips"][0], json!({ "address": "10.10.0.2/24", "gateway": "10.10.0.1", "interface": 0 }));
    assert_eq!(result["ips"][1], json!({ "address": "fd10::2/64", "gateway": "fd10::1", "interface": 0 }));
    assert_eq!(result["routes"], json!([{ "dst": "0.0.0.0/0", "gw": "10.10.0.1" }, { "dst": "::/0", "gw": "fd10::1" }]));
    assert_eq!(result["dns"]["nameservers"], json!(["10.10.0.1", "fd10::1"]));

    let second = call(&lab, "ADD", "box", &net(), &[("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAME=pod-1")]).ok();
    assert_eq!(second["ips"][0]["address"], "10.10.0.3/24");
    lab.run_in("box", "ping -c 1 -W 5 10.10.0.2 && ping -c 1 -W 5 fd10::2 && ping -c 1 -W 5 10.10.0.1").ok();
    assert_eq!(
        lab.run_in("web", "dig +short @10.10.0.1 pod-1 && dig +short @10.10.0.1 box.br0.internal").ok(),
        "10.10.0.3\n10.10.0.3\n"
    );
    assert_eq!(lab.run_in("box", "dig +short @10.10.0.1 -x 10.10.0.2").ok(), "web.br0.internal.\n");
    let shown = lab.ctl("list-ports").ok();
    assert!(shown.lines().any(|line| line.contains("ct-2") && line.contains("pod-1") && line.ends_with("net")), "{shown}");

    // A call that comes again finds what it made.
    assert_eq!(call(&lab, "ADD", "web", &net(), &[]).ok(), result);
    call(&lab, "DEL", "web", &net(), &[]).ok();
    assert_ne!(lab.run_in("web", "ip link show eth0").code, Some(0));
    call(&lab, "DEL", "web", &net(), &[]).ok();
    call(&lab, "DEL", "web", &net(), &[("CNI_NETNS", "")]).ok();
    lab.sh("ip netns del @box").ok();
    call(&lab, "DEL", "box", &net(), &[]).ok();
    assert_eq!(rows(&lab, "list-ports"), 0);
}

#[test]
fn what_a_runtime_asks_for_besides_is_carried_out() {
    needs!("curl", "busybox", "ip");
    let mut lab = lab(&["web", "box"]);
    let config = json!({
        "bridge": "br0", "guard": true, "attach": "veth",
        "runtimeConfig": {
            "portMappings": [{ "hostPort": 8080, "containerPort": 80, "protocol": "tcp" }, { "hostPort": 8081, "containerPort": 80, "protocol": "tcp", "hostIP": "127.0.0.1" }],
            "bandwidth": { "ingressRate": 8_000_000, "ingressBurst": 1, "egressRate": 4_000_000, "egressBurst": 1 },
            "mac": "02:00:00:00:00:0a", "ips": ["10.10.0.77/24"], "aliases": { "net": ["www"] },
        },
    });
    let result = call(&lab, "ADD", "web", &config, &[]).ok();
    assert_eq!(
        (&result["interfaces"][0]["mac"], &result["ips"][0]["address"]),
        (&json!("02:00:00:00:00:0a"), &json!("10.10.0.77/24"))
    );
    let port = lab.json("list-ports")[0].clone();
    assert_eq!((&port["receive_rate"], &port["send_rate"]), (&json!("8mbit"), &json!("4mbit")));
    assert_eq!((&port["guard"], &port["kind"], &port["origin"]), (&json!(true), &json!("veth"), &json!("container")));
    lab.sh(&format!("mkdir -p {0} && echo hello > {0}/index.html", lab.path("www").display())).ok();
    lab.spawn_in("web", &format!("busybox httpd -f -p 80 -h {}", lab.path("www").display()));
    lab.until("it listens", |lab| lab.run_in("host", "curl -sf -m 3 http://127.0.0.1:8080/").stdout == "hello\n");
    assert_eq!(lab.run_in("host", "curl -sf -m 3 http://127.0.0.1:8081/").ok(), "hello\n");
    assert_eq!(
        lab.run_in("host", "curl -sf -m 3 'http://[::1]:8080/'").ok(),
        "hello\n",
        "both versions, of one of which the container is"
    );
    // What vsctl refuses, and what it does.
    for words in ["del-port ct-1", "set-port ct-1 --vlan 7"] {
        let said = lab.ctl(words).refused();
        assert!(said.contains("is interface cni/web/eth0 of a container: remove that with its runtime"), "{said}");
    }
    lab.ctl("del-forward host tcp/8081 --listen 127.0.0.1").ok();
    call(&lab, "CHECK", "web", &json!({ "bridge": "br0", "prevResult": result }), &[]).ok();
    call(&lab, "DEL", "web", &config, &[]).ok();
    assert_eq!((rows(&lab, "list-ports"), rows(&lab, "list-forwards")), (0, 0));
}

#[test]
fn of_what_is_refused_nothing_is_made() {
    needs!("nc", "ping");
    let mut lab = lab(&["web", "box"]);
    lab.spawn_in("host", "nc -lk 127.0.0.1 9000");
    lab.until("it listens", |lab| lab.run_in("host", "nc -z 127.0.0.1 9000").code == Some(0));
    call(
        &lab,
        "ADD",
        "web",
        &json!({ "bridge": "br0", "runtimeConfig": { "portMappings": [{ "hostPort": 8080, "containerPort": 80 }] } }),
        &[],
    )
    .ok();
    let before = (lab.json("show")["ports"].clone(), lab.json("list-forwards"), lab.json("list-br"));
    let map = |host: u16, more: Value| json!({ "bridge": "br0", "runtimeConfig": { "portMappings": [{ "hostPort": 8090, "containerPort": 80 }, { "hostPort": host, "containerPort": 80 }], "ips": more } });
    let (own, fifo) = (format!("/proc/{}/ns/net", lab.pid()), lab.path("fifo").display().to_string());
    lab.sh(&format!("mkfifo {fifo}")).ok();
    let (own, fifo) = ([("CNI_NETNS", own.as_str())], [("CNI_NETNS", fifo.as_str())]);
    for (config, more, code, part) in [
        (net(), &own[..], 100, "is the network namespace that vswitchd itself is in"),
        (net(), &fifo, 100, "is not a network namespace"),
        (net(), &[("CNI_NETNS", "/run/a\nb")], 100, "/run/a\\nb is not a network namespace"),
        (
            json!({ "bridge": "br0", "prevResult": [] }),
            &[],
            6,
            "`prevResult`: invalid type: sequence, expected what ADD prints",
        ),
        (json!({ "bridge": "br0", "name": "a\nb" }), &[], 6, "\"a\\nb\" cannot be the name of a network"),
        (map(8091, json!(["10.10.0.8", "10.10.0.9"])), &[], 100, "10.10.0.9 is a second one of the subnet 10.10.0.0/24"),
        (map(9000, json!(null)), &[][..], 100, ":9000 is in use"),
        (map(8080, json!(null)), &[], 100, "tcp/8080"),
        (map(8091, json!(["10.10.0.2"])), &[], 100, "the address 10.10.0.2 is that of container web already"),
        (map(8091, json!(["10.11.0.2"])), &[], 100, "in no subnet of the network, which has 10.10.0.0/24"),
        (json!({ "bridge": "br9" }), &[], 100, "there is no bridge \"br9\" among br0: add it to switch.toml"),
        (json!({ "bridge": "br9", "subnets": ["10.10.0.0/16"] }), &[], 100, "overlaps 10.10.0.1/24 of bridge \"br0\""),
        (
            json!({ "bridge": "br0", "subnets": ["10.12.0.0/16"] }),
            &[],
            100,
            "bridge \"br0\" is there already, with other subnets",
        ),
        (
            json!({ "bridge": "br9", "subnets": ["10.12.0.0/16"], "uplink": "wlan" }),
            &[],
            100,
            "uplink \"wlan\", which does not exist",
        ),
        (
            json!({ "bridge": "br0", "runtimeConfig": { "mac": "02:42:0a:0a:00:02" } }),
            &[],
            100,
            "that of container web already",
        ),
        (json!({}), &[], 7, "the network has no `bridge`"),
        (json!({ "bridge": "br0", "cniVersion": "9" }), &[], 1, "this plugin speaks 0.3.0"),
        (json!({ "bridge": 7 }), &[], 6, "is not understood"),
        (json!({ "bridge": "br0", "ipam": { "type": "nothing" } }), &[], 7, "there is no plugin \"nothing\" in"),
        (json!({ "bridge": "br0", "ipam": { "type": "../x" } }), &[], 7, "use the name of a plugin"),
        (net(), &[("CNI_NETNS", "")], 4, "CNI_NETNS is empty"),
        (net(), &[("CNI_NETNS", "/nowhere")], 100, "/nowhere is not a network namespace"),
        (net(), &[("CNI_NETNS", "/etc/passwd")], 100, "/etc/passwd is not a network namespace"),
        (net(), &[("CNI_IFNAME", "a/b")], 4, "CNI_IFNAME: interface name \"a/b\" holds '/'"),
        (net(), &[("CNI_IFNAME", "lo")], 100, "interface \"lo\" exists already"),
        (net(), &[("CNI_CONTAINERID", "../x")], 4, "CNI_CONTAINERID: \"../x\" is not the identifier"),
        (net(), &[("CNI_COMMAND", "MAKE")], 4, "CNI_COMMAND is \"MAKE\": use ADD"),
        (net(), &[("VSWITCH_CONTROL", "/nowhere")], 11, "no vswitchd answers at /nowhere"),
    ] {
        let (number, said) = call(&lab, "ADD", "box", &config, more).refused();
        assert!(number == code && said.contains(part), "{config}: {number} {said}");
        assert!(!said.contains('\n') && !said.contains("panicked"), "{said}");
        assert_eq!((lab.json("show")["ports"].clone(), lab.json("list-forwards"), lab.json("list-br")), before, "{config}");
        assert_eq!(lab.run_in("box", "ip -o link | wc -l").ok(), "1\n", "{config}");
    }
    // Nor is what is there already lost by a call that comes again and is refused.
    call(&lab, "ADD", "web", &map(9000, json!(null)), &[]).refused();
    assert_eq!((lab.json("list-forwards"), lab.json("list-br")), (before.1, before.2));
    lab.run_in("web", "ping -c 1 -W 5 10.10.0.1").ok();
    call(&lab, "ADD", "box", &net(), &[]).ok();
}

/// A network's file was changed while containers are on it: they keep what they have.
#[test]
fn a_network_that_is_another_now_takes_nothing_from_its_containers() {
    needs!("ping");
    let lab = lab(&["web", "box"]);
    let network = |bridge: &str, subnet: &str| json!({ "bridge": bridge, "subnets": [subnet] });
    call(&lab, "ADD", "web", &network("cni0", "10.87.0.0/29"), &[]).ok();
    let said = call(&lab, "ADD", "box", &network("cni0", "10.88.0.0/16"), &[]).refused().1;
    assert!(said.contains("bridge \"cni0\" is there already, with other subnets"), "{said}");
    call(&lab, "ADD", "box", &network("cni9", "10.99.0.0/24"), &[]).ok();
    lab.run_in("web", "ping -c 1 -W 5 10.87.0.1").ok();
    lab.run_in("box", "ping -c 1 -W 5 10.99.0.1").ok();
    call(&lab, "DEL", "box", &network("cni9", "10.99.0.0/24"), &[]).ok();
    call(&lab, "DEL", "web", &network("cni9", "10.99.0.0/24"), &[]).ok();
    assert_eq!((rows(&lab, "list-ports"), rows(&lab, "list-br")), (0, 1));
    // It comes anew when none is left.
    call(&lab, "ADD", "web", &network("cni0", "10.88.0.0/16"), &[]).ok();
}

#[test]
fn check_and_status_say_what_does_not_hold() {
    needs!("ip");
    let lab = lab(&["web"]);
    call(&lab, "STATUS", "", &net(), &[]).ok();
    let result = call(&lab, "ADD", "web", &net(), &[]).ok();
    let config = json!({ "bridge": "br0", "prevResult": result });
    call(&lab, "CHECK", "web", &config, &[]).ok();
    for (line, back, part) in [
        (
            "ip addr del 10.10.0.2/24 dev eth0",
            "ip addr add 10.10.0.2/24 dev eth0; ip route add default via 10.10.0.1 proto static",
            "lacks the address 10.10.0.2/24",
        ),
        ("ip route del default", "ip route add default via 10.10.0.1 proto static", "lacks the default route by 10.10.0.1"),
        (
            "ip link set eth0 address 02:00:00:00:00:99",
            "ip link set eth0 address 02:42:0a:0a:00:02",
            "its MAC address is not 02:42:0a:0a:00:02",
        ),
    ] {
        lab.run_in("web", line).ok();
        let (code, said) = call(&lab, "CHECK", "web", &config, &[]).refused();
        assert!(code == 100 && said.contains(part), "{line}: {said}");
        lab.run_in("web", back).ok();
        call(&lab, "CHECK", "web", &config, &[]).ok();
    }
    assert!(call(&lab, "CHECK", "web", &net(), &[]).refused().1.contains("CHECK needs `prevResult`"));
    lab.run_in("web", "ip link del eth0").ok();
    assert_eq!(call(&lab, "CHECK", "web", &config, &[]).refused().0, 100);
    assert_eq!(call(&lab, "STATUS", "", &json!({ "bridge": "br9" }), &[]).refused().0, 50);
    let (code, said) = call(&lab, "STATUS", "", &net(), &[("VSWITCH_CONTROL", "/nowhere")]).refused();
    assert!(code == 50 && said.contains("no vswitchd answers"), "{said}");
    let version = call(&lab, "VERSION", "", &json!({ "cniVersion": "1.0.0" }), &[]).ok();
    assert_eq!(version, json!({ "cniVersion": "1.0.0", "supportedVersions": ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"] }));
}

#[test]
fn whoever_died_untold_is_collected() {
    needs!("ping");
    let mut lab = lab(&["a", "b", "c", "d"]);
    for name in ["a", "b", "c"] {
        call(&lab, "ADD", name, &net(), &[]).ok();
    }
    let names = |lab: &Lab| {
        lab.json("list-ports")
            .as_array()
            .unwrap()
            .iter()
            .map(|port| port["container"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    // One whose namespace is gone goes at once, and not with the next look of every half minute.
    lab.add_netns("e");
    call(&lab, "ADD", "e", &net(), &[]).ok();
    let begun = Instant::now();
    lab.sh("ip netns del @e").ok();
    lab.until("it is collected", |lab| names(lab) == ["a", "b", "c"]);
    assert!(begun.elapsed() < Duration::from_secs(15));
    // Whoever wants what a dead one had gets it at once.
    lab.sh("ip netns del @a").ok();
    let wish = json!({ "bridge": "br0", "runtimeConfig": { "ips": ["10.10.0.2"] } });
    assert_eq!(call(&lab, "ADD", "d", &wish, &[]).ok()["ips"][0]["address"], "10.10.0.2/24");
    assert_eq!(names(&lab), ["d", "b", "c"]);
    // What the runtime does not know any more goes.
    let kept = json!({ "bridge": "br0", "cni.dev/valid-attachments": [{ "containerID": "c", "ifname": "eth0" }, { "containerID": "d", "ifname": "eth0" }] });
    call(&lab, "GC", "", &kept, &[]).ok();
    assert_eq!(names(&lab), ["d", "c"]);
    assert!(call(&lab, "GC", "", &net(), &[]).refused().1.contains("cni.dev/valid-attachments"));
    // Two networks of one bridge are apart.
    let mut other = kept.clone();
    (other["name"], other["cni.dev/valid-attachments"]) = (json!("other"), json!([]));
    call(&lab, "GC", "", &other, &[]).ok();
    assert_eq!(rows(&lab, "list-ports"), 2);
    // A start finds those whose namespaces are gone.
    lab.kill();
    lab.sh("ip netns del @c").ok();
    let gone = call(&lab, "DEL", "c", &net(), &[]);
    assert_eq!(gone.code, Some(0), "there is nothing left to do: {}", gone.document);
    assert_eq!(call(&lab, "DEL", "d", &net(), &[]).refused().0, 11, "its namespace is there");
    lab.start();
    assert_eq!(names(&lab), ["d"]);
    lab.run_in("d", "ping -c 1 -W 5 10.10.0.1").ok();
}

#[test]
fn containers_keep_their_network_over_an_end_and_a_crash_of_the_switch() {
    needs!("ping", "curl", "busybox");
    let mut lab = lab(&["web", "box"]);
    let made = |more: Value| {
        let mut config = json!({ "name": "made", "bridge": "cni0", "subnets": ["10.20.0.0/24"] });
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        config
    };
    let ports = json!({ "runtimeConfig": { "portMappings": [{ "hostPort": 8080, "containerPort": 80 }] } });
    call(&lab, "ADD", "web", &made(ports), &[]).ok();
    call(&lab, "ADD", "box", &made(json!({})), &[]).ok();
    lab.sh(&format!("mkdir -p {0} && echo hello > {0}/index.html", lab.path("www").display())).ok();
    lab.spawn_in("web", &format!("busybox httpd -f -p 80 -h {}", lab.path("www").display()));
    let works = |lab: &Lab| {
        lab.until("it answers", |lab| lab.run_in("host", "curl -sf -m 3 http://127.0.0.1:8080/").stdout == "hello\n");
        lab.run_in("box", "ping -c 1 -W 5 10.20.0.2").ok();
    };
    works(&lab);
    let noticed = |lab: &Lab| {
        lab.run_in("web", "ip -o link show eth0 | cut -d: -f1,2; ip -o addr show dev eth0 scope global; ip route").ok()
    };
    let before = noticed(&lab);
    lab.stop();
    assert_eq!(lab.run_in("web", "ip -o addr show dev eth0 scope global").code, Some(0));
    lab.start();
    works(&lab);
    lab.kill();
    lab.start();
    works(&lab);
    assert_eq!(noticed(&lab), before);
    // A file that would take their network away is not taken.
    lab.write(&format!("{FILE}[[bridge]]\nname = \"br1\"\naddresses = [\"10.20.0.9/16\"]\n"));
    let said = lab.ctl("reload").refused();
    assert!(said.contains("no room for the container cni/") && said.contains("on bridge \"cni0\""), "{said}");
    assert!(!lab.ctl("export").ok().contains("cni0"), "the runtime brings it");
    // The bridge, and the uplink that was made for it, go with the last one.
    call(&lab, "DEL", "web", &made(json!({})), &[]).ok();
    assert_eq!(rows(&lab, "list-br"), 2);
    call(&lab, "DEL", "box", &made(json!({})), &[]).ok();
    assert_eq!((rows(&lab, "list-br"), rows(&lab, "list-uplinks")), (1, 1));
}

/// A plugin that gives addresses and writes down how it was called.
const IPAM: &str = r#"#!/bin/sh
cat > /dev/null
echo "$CNI_COMMAND $CNI_CONTAINERID" >> "$(dirname "$0")/calls"
case $CNI_CONTAINERID in bad) echo '{ "cniVersion": "1.1.0", "code": 120, "msg": "no more addresses" }'; exit 1;; esac
[ "$CNI_COMMAND" = ADD ] || exit 0
echo '{ "cniVersion": "1.1.0", "ips": [{ "address": "10.10.0.50/24", "gateway": "10.10.0.1" }],
    "routes": [{ "dst": "0.0.0.0/0" }, { "dst": "10.99.0.0/16", "gw": "10.10.0.9" }], "dns": { "nameservers": ["192.0.2.53"] } }'
"#;

#[test]
fn another_plugin_gives_the_addresses_and_gets_them_back() {
    needs!("ip");
    let lab = lab(&["web", "box", "bad"]);
    std::fs::create_dir(lab.path("cni")).unwrap();
    std::fs::write(lab.path("cni/giver"), IPAM).unwrap();
    lab.sh(&format!("chmod +x {}", lab.path("cni/giver").display())).ok();
    let config = json!({ "bridge": "br0", "ipam": { "type": "giver", "ranges": [[{ "subnet": "10.10.0.0/24" }]] } });
    let calls = || std::mem::take(&mut std::fs::read_to_string(lab.path("cni/calls")).unwrap_or_default());
    let result = call(&lab, "ADD", "web", &config, &[]).ok();
    assert_eq!((result["ips"].as_array().unwrap().len(), &result["ips"][0]["address"]), (1, &json!("10.10.0.50/24")));
    assert_eq!(result["dns"]["nameservers"], json!(["192.0.2.53"]));
    assert_eq!(
        result["routes"],
        json!([{ "dst": "0.0.0.0/0", "gw": "10.10.0.1" }, { "dst": "10.99.0.0/16", "gw": "10.10.0.9" }])
    );
    let routes = lab.run_in("web", "ip route").ok();
    assert!(routes.contains("default via 10.10.0.1") && routes.contains("10.99.0.0/16 via 10.10.0.9"), "{routes}");
    // The switch refuses what another has, and the address goes back.
    assert!(call(&lab, "ADD", "box", &config, &[]).refused().1.contains("10.10.0.50 is that of container web"));
    // What the other plugin says reaches the runtime as it is.
    assert_eq!(call(&lab, "ADD", "bad", &config, &[]).refused(), (120, "no more addresses".to_owned()));
    call(&lab, "STATUS", "", &config, &[]).ok();
    call(&lab, "DEL", "web", &config, &[]).ok();
    assert_eq!(calls(), "ADD web\nADD box\nDEL box\nADD bad\nSTATUS \nDEL web\n");
    assert_eq!(rows(&lab, "list-ports"), 0);
}

/// A place for what containerd keeps, with both images. What the document does not show: they are copied and not mounted on each other, and are in a
/// control group that goes. On a loaded machine containerd may lose what a container says that ends at once; then another is asked.
const CONTAINERD: &str = r#"
set -e
cp -a /etc /run/etc && mount --bind /run/etc /etc && rm -rf /etc/cni
mkdir -p /run/opt /run/containerd /run/oci/blobs/sha256 /var/lib/containerd
mount -t tmpfs none /var/lib/containerd
mount --bind /run/opt /opt
cat > /run/containerd.toml <<END
version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
END
(containerd --config /run/containerd.toml > /run/containerd.log 2>&1 < /dev/null & disown)
cat > /run/bin/ctr <<END
#!/bin/sh
case "\$1 \$2" in
    "run --rm") times=3 ;;
    *) times=1 ;;
esac
[ "\$1" != run ] || { shift; set -- run --runc-binary runc --snapshotter native --cgroup /$cgroup "\$@"; }
while [ \$times -gt 1 ]; do
    said=\$($(command -v ctr) "\$@") code=\$?
    [ \$code = 0 ] && [ -z "\$said" ] || { echo "\$said"; exit \$code; }
    times=\$((times - 1))
done
exec $(command -v ctr) "\$@"
END
python3 - <<'END'
import hashlib, json, os, subprocess
def blob(data):
    name = hashlib.sha256(data).hexdigest()
    open("/run/oci/blobs/sha256/" + name, "wb").write(data)
    return {"digest": "sha256:" + name, "size": len(data)}
kind = "application/vnd.oci.image."
layer = blob(subprocess.run(["tar", "-c", "-C", "/run/image", "."], stdout=subprocess.PIPE, check=True).stdout)
machine = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
def image(name, command):
    config = blob(json.dumps({"architecture": machine, "os": "linux", "config": {"Cmd": command, "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]}}).encode())
    manifest = blob(json.dumps({"schemaVersion": 2, "mediaType": kind + "manifest.v1+json",
        "config": {"mediaType": kind + "config.v1+json", **config}, "layers": [{"mediaType": kind + "layer.v1.tar", **layer}]}).encode())
    return {"mediaType": kind + "manifest.v1+json", **manifest, "annotations": {"io.containerd.image.name": "docker.io/library/" + name + ":latest"}}
index = [image("busybox", ["sh"]), image("httpd", ["httpd", "-f", "-p", "80", "-h", "/www"])]
json.dump({"schemaVersion": 2, "manifests": index}, open("/run/oci/index.json", "w"))
json.dump({"imageLayoutVersion": "1.0.0"}, open("/run/oci/oci-layout", "w"))
END
until ctr version > /dev/null 2>&1; do sleep 0.1; done
tar -c -C /run/oci . | ctr image import -
chmod +x /run/bin/ctr
"#;

#[test]
fn every_command_of_containerds_tour_does_what_it_says() {
    needs!("containerd", "ctr", "runc", "unshare", "busybox", "dnsmasq", "curl", "nc", "python3", "iptables");
    let tour = Tour::of_part("containers.md", "CNI");
    assert!(tour.len() > 8, "{}", tour.len());
    let mut host = DockerHost::new();
    host.write("/run/switch.toml", "");
    host.start_vswitchd();
    host.make_image();
    host.sh(&format!("cgroup={}\n{CONTAINERD}", host.cgroup())).ok();
    tour.run(&host, "");
    // Its last commands have removed everything.
    let left = "ctr container list -q; vsctl --json list-ports; vsctl --json list-br; vsctl --json list-uplinks";
    assert_eq!(host.sh(left).stdout, "[]\n[]\n[]\n");
}

/// The port that one container had published is another program's at a start: the others come and go all the same.
#[test]
fn a_port_that_could_not_be_had_at_a_start_is_no_matter_of_other_containers() {
    needs!("ip", "busybox");
    let mut lab = lab(&["web", "box", "more"]);
    let published = |host: u16| json!({ "bridge": "br0", "runtimeConfig": { "portMappings": [{ "hostPort": host, "containerPort": 80, "protocol": "tcp" }] } });
    call(&lab, "ADD", "web", &published(8080), &[]).ok();
    lab.kill();
    lab.spawn_in("host", "busybox httpd -f -p 8080");
    lab.until("it listens", |lab| lab.run_in("host", "ss -Hltn sport = :8080").stdout.contains("8080"));
    lab.start();
    assert_eq!(rows(&lab, "list-forwards"), 0);
    call(&lab, "ADD", "box", &net(), &[]).ok();
    call(&lab, "ADD", "more", &published(8081), &[]).ok();
    assert_eq!((rows(&lab, "list-ports"), rows(&lab, "list-forwards")), (3, 2), "one for each IP version");
    call(&lab, "DEL", "box", &net(), &[]).ok();
    // The container itself comes anew, and is told.
    call(&lab, "DEL", "web", &published(8080), &[]).ok();
    let (_, said) = call(&lab, "ADD", "web", &published(8080), &[]).refused();
    assert!(said.contains("8080"), "{said}");
    assert_eq!((rows(&lab, "list-ports"), rows(&lab, "list-forwards")), (1, 2));
}
