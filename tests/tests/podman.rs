//! `vswitch-netavark`, called as netavark calls it, and by Podman itself.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use vswitch_tests::{DockerHost, Engine, Lab, Tour, needs, needs_engine, program};

/// Runs the plugin; its exit code and what it printed.
fn plugin(lab: &Lab, words: &[&str], document: &Value) -> (Option<i32>, Value) {
    let mut plugin = Command::new(program("vswitch-netavark"));
    plugin.env("VSWITCH_CONTROL", lab.path("control.sock")).args(words);
    let mut child = plugin.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // A call that needs no document may have ended.
    let _ = child.stdin.take().unwrap().write_all(document.to_string().as_bytes());
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{words:?}");
    let answer = if output.stdout.is_empty() { Value::Null } else { serde_json::from_slice(&output.stdout).unwrap() };
    (output.status.code(), answer)
}

#[track_caller]
fn ok((code, answer): (Option<i32>, Value)) -> Value {
    assert_eq!(code, Some(0), "{answer}");
    answer
}

#[track_caller]
fn refused((code, answer): (Option<i32>, Value)) -> String {
    assert_eq!(code, Some(1), "{answer}");
    let said = answer["error"].as_str().unwrap().to_owned();
    assert!(!said.contains('\n') && !said.contains("panicked"), "{said}");
    said
}

/// A network as Podman asks for one.
fn asked(more: Value) -> Value {
    let mut network = json!({
        "name": "net1", "id": "abcdef0123456789", "driver": "vswitch", "dns_enabled": true, "internal": false, "ipv6_enabled": false,
        "options": null, "ipam_options": null, "subnets": null, "network_interface": null, "routes": null, "network_dns_servers": null,
    });
    network.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    network
}

/// What netavark says about a container on a network.
fn place(container: &str, network: &Value, ips: &Value, more: Value) -> Value {
    let mut call = json!({
        "container_id": format!("{container}0123456789"), "container_name": container, "port_mappings": null, "network": network,
        "network_options": { "aliases": [format!("{container}-alias")], "interface_name": "eth0", "static_ips": ips, "static_mac": null, "options": null },
    });
    call.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    call
}

fn netns(lab: &Lab, container: &str) -> String {
    format!("/run/netns/{}", lab.named(&format!("@{container}")))
}

fn rows(lab: &Lab, words: &str) -> usize {
    lab.json(words).as_array().unwrap().len()
}

#[test]
fn containers_of_podman_come_and_go() {
    needs!("ping", "dig", "curl", "busybox");
    let mut lab = Lab::with("");
    ["web", "box"].iter().for_each(|name| lab.add_netns(name));
    assert_eq!(ok(plugin(&lab, &["info"], &json!(null)))["api_version"], "1.0.0");
    let subnets = json!([{ "subnet": "10.89.1.0/24" }, { "subnet": "fd89::/64" }]);
    let network = ok(plugin(&lab, &["create"], &asked(json!({ "subnets": subnets }))));
    assert_eq!(
        (&network["subnets"][0]["gateway"], &network["network_interface"]),
        (&json!("10.89.1.1"), &json!("podman-abcdef01"))
    );
    assert_eq!(rows(&lab, "list-br"), 0, "there is nothing of it yet");
    let ports =
        json!({ "port_mappings": [{ "container_port": 80, "host_ip": "", "host_port": 8080, "protocol": "tcp", "range": 2 }] });
    let web = place("web", &network, &json!(["10.89.1.7", "fd89::7"]), ports);
    let (path, other) = (netns(&lab, "web"), netns(&lab, "box"));
    let status = ok(plugin(&lab, &["setup", &path], &web));
    assert_eq!(status["interfaces"]["eth0"]["mac_address"], "02:42:0a:59:01:07");
    assert_eq!(status["interfaces"]["eth0"]["subnets"][0], json!({ "ipnet": "10.89.1.7/24", "gateway": "10.89.1.1" }));
    assert_eq!(status["dns_server_ips"], json!(["10.89.1.1", "fd89::1"]));
    let second = place("box", &network, &json!(["10.89.1.8"]), json!({}));
    ok(plugin(&lab, &["setup", &other], &second));

    lab.sh(&format!("mkdir -p {0} && echo hello > {0}/index.html", lab.path("www").display())).ok();
    lab.spawn_in("web", &format!("busybox httpd -f -p 80 -h {}", lab.path("www").display()));
    lab.until("it answers", |lab| lab.run_in("host", "curl -sf -m 3 http://127.0.0.1:8080/").stdout == "hello\n");
    lab.run_in("box", "ping -c 1 -W 5 10.89.1.7 && ping -c 1 -W 5 10.89.1.1").ok();
    for name in ["web", "web-alias", "web.podman-abcdef01.internal"] {
        assert_eq!(lab.run_in("box", &format!("dig +short @10.89.1.1 {name}")).ok(), "10.89.1.7\n", "{name}");
    }
    // `podman network reload`: the same living namespace.
    ok(plugin(&lab, &["teardown", &path], &web));
    assert_eq!(rows(&lab, "list-forwards"), 0);
    assert_eq!(ok(plugin(&lab, &["setup", &path], &web)), status);
    // A teardown that got lost, and the next setup.
    assert_eq!(ok(plugin(&lab, &["setup", &path], &web)), status);
    lab.until("it answers again", |lab| lab.run_in("host", "curl -sf -m 3 http://127.0.0.1:8080/").stdout == "hello\n");
    for (container, path) in [(&web, &path), (&second, &other), (&second, &other)] {
        assert_eq!(ok(plugin(&lab, &["teardown", path], container)), Value::Null);
    }
    assert_eq!((rows(&lab, "list-ports"), rows(&lab, "list-br"), rows(&lab, "list-uplinks")), (0, 0, 0));
}

#[test]
fn a_container_on_several_networks_publishes_its_ports_once() {
    needs!("curl", "busybox");
    let mut lab = Lab::with("");
    lab.add_netns("web");
    let path = netns(&lab, "web");
    let network = |name: &str, id: &str, number: u8, internal: bool| {
        let subnets = json!([{ "subnet": format!("10.89.{number}.0/24") }]);
        ok(plugin(&lab, &["create"], &asked(json!({ "name": name, "id": id, "subnets": subnets, "internal": internal }))))
    };
    let networks = [
        network("vault", "aaaaaaaa01234567", 1, true),
        network("net1", "bbbbbbbb01234567", 2, false),
        network("net2", "cccccccc01234567", 3, false),
    ];
    // So Podman says it to each of them.
    let ports = json!([{ "container_port": 80, "host_ip": "", "host_port": 8080, "protocol": "tcp", "range": 2 }]);
    let places: Vec<Value> = (0..3)
        .map(|index| {
            let options = json!({ "aliases": null, "interface_name": format!("eth{index}"), "static_ips": [format!("10.89.{}.7", index + 1)], "static_mac": null });
            place("web", &networks[index], &json!(null), json!({ "port_mappings": ports, "network_options": options }))
        })
        .collect();
    for place in &places {
        ok(plugin(&lab, &["setup", &path], place));
    }
    let published = |lab: &Lab| {
        let forwards = lab.json("list-forwards");
        forwards.as_array().unwrap().iter().map(|forward| forward["to"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(published(&lab), ["10.89.2.7:80"]);
    lab.sh(&format!("mkdir -p {0} && echo hello > {0}/index.html", lab.path("www").display())).ok();
    lab.spawn_in("web", &format!("busybox httpd -f -p 80 -h {}", lab.path("www").display()));
    let answers = |lab: &Lab| {
        lab.until("it answers", |lab| lab.run_in("host", "curl -sf -m 3 http://127.0.0.1:8080/").stdout == "hello\n");
    };
    answers(&lab);
    // `podman network disconnect net1 web`: the other one that has a way out goes on.
    ok(plugin(&lab, &["teardown", &path], &places[1]));
    assert_eq!(published(&lab), ["10.89.3.7:80"]);
    answers(&lab);
    ok(plugin(&lab, &["teardown", &path], &places[2]));
    assert_eq!((published(&lab).len(), rows(&lab, "list-ports")), (0, 1));
}

#[test]
fn a_network_without_a_way_out_has_names_and_no_default_route() {
    needs!("dig", "ip");
    let lab = Lab::with("");
    lab.add_netns("web");
    let network = ok(plugin(&lab, &["create"], &asked(json!({ "internal": true, "subnets": [{ "subnet": "10.89.2.0/24" }] }))));
    let status = ok(plugin(&lab, &["setup", &netns(&lab, "web")], &place("web", &network, &json!(["10.89.2.7"]), json!({}))));
    assert_eq!(status["interfaces"]["eth0"]["subnets"], json!([{ "ipnet": "10.89.2.7/24", "gateway": null }]));
    assert_eq!(lab.run_in("web", "ip route show default").ok(), "");
    assert_eq!(lab.run_in("web", "dig +short @10.89.2.1 web").ok(), "10.89.2.7\n");
    assert_eq!(rows(&lab, "list-uplinks"), 0);
}

#[test]
fn bad_input_gets_one_sentence_and_leaves_nothing() {
    needs!("nc", "ip");
    let mut lab = Lab::with("[[bridge]]\nname = \"br0\"\naddresses = [\"10.10.0.1/24\"]\n");
    lab.add_netns("web");
    lab.spawn_in("host", "nc -lk 127.0.0.1 9000");
    lab.until("it listens", |lab| lab.run_in("host", "nc -z 127.0.0.1 9000").code == Some(0));
    for (more, part) in [
        (json!({ "subnets": [{ "subnet": "10.10.0.0/16" }] }), "overlaps 10.10.0.1/24 of bridge \"br0\""),
        (json!({ "options": { "vswitch.colour": "red" } }), "unknown option `vswitch.colour`: the driver vswitch knows"),
        (json!({ "options": { "vswitch.bridge": "br9" } }), "there is no bridge \"br9\" among br0"),
        (json!({ "options": { "vswitch.uplink": "wlan" } }), "uplink \"wlan\", which does not exist"),
        (json!({ "ipam_options": { "driver": "dhcp" } }), "the IPAM driver is \"dhcp\": use host-local or none"),
        (json!({ "network_interface": "a/b" }), "interface: bridge name \"a/b\" holds '/'"),
        (json!({ "id": 7 }), "the network is not understood"),
    ] {
        let said = refused(plugin(&lab, &["create"], &asked(more.clone())));
        assert!(said.contains(part), "{more}: {said}");
    }
    let network = ok(plugin(&lab, &["create"], &asked(json!({ "subnets": [{ "subnet": "10.89.3.0/24" }] }))));
    let port = |number: u16, protocol: &str| json!({ "port_mappings": [{ "container_port": 80, "host_ip": "", "host_port": number, "protocol": protocol, "range": 1 }] });
    let (path, own) = (netns(&lab, "web"), format!("/proc/{}/ns/net", lab.pid()));
    for (ips, more, netns, part) in [
        (
            json!(["10.89.3.7"]),
            port(9000, "tcp"),
            path.as_str(),
            "`enable_port_reservation = false` under [engine] of containers.conf",
        ),
        (json!(["10.89.3.7"]), port(80, "sctp"), &path, "sctp ports cannot be published"),
        (json!(["10.99.3.7"]), json!({}), &path, "in no subnet of the network, which has 10.89.3.0/24"),
        (json!(["10.89.3.1"]), json!({}), &path, "of its bridge's gateway"),
        (json!(["10.89.3.0"]), json!({}), &path, "cannot have the address 10.89.3.0/24"),
        (json!(["10.89.3.7", "10.89.3.7"]), json!({}), &path, "has the address 10.89.3.7 twice"),
        (json!(["10.89.3.7"]), json!({}), own.as_str(), "is the network namespace that vswitchd itself is in"),
        (json!(["10.89.3.7"]), json!({}), "/run/a\nb", "/run/a\\nb is not a network namespace"),
        (json!(["10.89.3.7"]), json!({}), "/nowhere", "/nowhere is not a network namespace"),
        (json!(["10.89.3.7"]), json!({ "container_id": "../x" }), &path, "is not the identifier of a container"),
    ] {
        let said = refused(plugin(&lab, &["setup", netns], &place("web", &network, &ips, more.clone())));
        assert!(said.contains(part), "{more}: {said}");
        assert_eq!((rows(&lab, "list-ports"), rows(&lab, "list-br"), rows(&lab, "list-forwards")), (0, 1, 0), "{more}");
        assert_eq!(lab.run_in("web", "ip -o link | wc -l").ok(), "1\n", "{more}");
    }
    assert!(refused(plugin(&lab, &["frob"], &json!({}))).contains("use info, create, setup or teardown"));
    assert!(refused(plugin(&lab, &["setup"], &json!({}))).contains("needs the path of a network namespace"));
    assert!(refused(plugin(&lab, &["setup", &path], &json!({}))).contains("is not understood"));
    ok(plugin(&lab, &["setup", &path], &place("web", &network, &json!(["10.89.3.7"]), json!({}))));
    lab.stop();
    assert!(refused(plugin(&lab, &["create"], &asked(json!({})))).contains("no vswitchd answers at"));
}

#[test]
fn options_of_a_network_are_carried_out() {
    needs!("ip");
    let lab = Lab::with("[[bridge]]\nname = \"br0\"\naddresses = [\"10.10.0.1/24\"]\n");
    ["web", "box", "plain"].iter().for_each(|name| lab.add_netns(name));
    let options = json!({ "vswitch.attach": "veth", "vswitch.guard": "true", "mtu": "1400", "vswitch.receive-rate": "10mbit" });
    let network = ok(plugin(
        &lab,
        &["create"],
        &asked(
            json!({ "options": options, "routes": [{ "destination": "10.9.0.0/16", "gateway": "10.224.0.9", "metric": null }], "subnets": [{ "subnet": "10.224.0.0/24" }] }),
        ),
    ));
    let more = json!({ "network_options": { "aliases": null, "interface_name": "net0", "static_ips": ["10.224.0.7"], "static_mac": "02:00:00:00:00:07", "options": { "vswitch.send-rate": "1mbit" } } });
    ok(plugin(&lab, &["setup", &netns(&lab, "web")], &place("web", &network, &json!(null), more)));
    let port = lab.json("list-ports")[0].clone();
    assert_eq!(
        (&port["kind"], &port["guard"], &port["receive_rate"], &port["send_rate"]),
        (&json!("veth"), &json!(true), &json!("10mbit"), &json!("1mbit"))
    );
    let seen = lab.run_in("web", "ip -o link show net0; ip route").ok();
    assert!(
        seen.contains("mtu 1400") && seen.contains("02:00:00:00:00:07") && seen.contains("10.9.0.0/16 via 10.224.0.9"),
        "{seen}"
    );
    // On a bridge of the file, whose gateway it has.
    let shared = asked(
        json!({ "name": "net2", "id": "bbbbbbbb01234567", "options": { "vswitch.bridge": "br0" }, "subnets": [{ "subnet": "10.10.0.0/24", "gateway": "10.10.0.1" }] }),
    );
    let shared = ok(plugin(&lab, &["create"], &shared));
    ok(plugin(&lab, &["setup", &netns(&lab, "box")], &place("box", &shared, &json!(["10.10.0.7"]), json!({}))));
    assert_eq!(lab.run_in("box", "ip route show default").ok().trim(), "default via 10.10.0.1 dev eth0 proto static");
    // A plain segment.
    let plain =
        asked(json!({ "name": "net3", "id": "cccccccc01234567", "ipam_options": { "driver": "none" }, "ipv6_enabled": true }));
    let plain = ok(plugin(&lab, &["create"], &plain));
    let status = ok(plugin(&lab, &["setup", &netns(&lab, "plain")], &place("plain", &plain, &json!(null), json!({}))));
    assert_eq!((&status["interfaces"]["eth0"]["subnets"], &status["dns_server_ips"]), (&json!([]), &json!([])));
    assert_eq!(rows(&lab, "list-br"), 3);
}

/// A place for what Podman keeps. What the document does not show: there may be control groups of both versions, and what Podman leaves of them
/// is to go.
const PODMAN: &str = r#"
set -e
cp -a /etc/containers /run/etc && mount --bind /run/etc /etc/containers
mkdir -p /etc/containers/containers.conf.d /var/lib/containers /usr/local/libexec
for directory in /var/lib/containers /usr/local/libexec /dev/shm; do mount -t tmpfs none $directory; done
printf '[engine]\ncgroup_manager = "cgroupfs"\nruntime = "/usr/sbin/runc"\nevents_logger = "file"\n' > /etc/containers/containers.conf.d/here.conf
printf '[storage]\ndriver = "vfs"\nrunroot = "/run/containers/storage"\ngraphroot = "/var/lib/containers/storage"\n' > /etc/containers/storage.conf
cat > /run/bin/podman <<END
#!/bin/sh
[ "\$1" != run ] || { shift; set -- run --cgroup-parent=/$cgroup "\$@"; }
exec /usr/bin/podman "\$@"
END
chmod +x /run/bin/podman
"#;

#[test]
fn every_command_of_podmans_tour_does_what_it_says() {
    needs_engine!(Engine::Newest,);
    let tour = Tour::of_part("containers.md", "Podman");
    assert!(tour.len() > 20, "{}", tour.len());
    let mut host = DockerHost::bare(Engine::Newest);
    host.write("/run/switch.toml", "");
    host.start_vswitchd();
    host.sh(&format!("cgroup={}\n{PODMAN}", host.cgroup())).ok();
    host.make_image();
    host.import_with("podman", "docker.io/library/");
    tour.run(&host, "export PODMAN_IGNORE_CGROUPSV1_WARNING=1");
    // Its last commands have removed everything.
    let left = "podman ps -aq; vsctl --json list-ports; vsctl --json list-br; vsctl --json list-forwards; vsctl --json list-uplinks; ls /run/netns";
    assert_eq!(host.sh(left).stdout, "[]\n[]\n[]\n[]\noutside\n");
}
