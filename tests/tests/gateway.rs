//! The gateway of a bridge, and both kinds of uplink, as stations and the outside see them.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by them")]

use std::process::Stdio;

use serde_json::json;
use vswitch_tests::{Lab, needs, ping, tcp};

/// Outside: a host (192.0.2.1) on the far end of the veth pair whose near end, `wan`, the uplink takes.
const OUTSIDE: &str = "
netns @out
ip -n @host link add wan type veth peer name o0 netns @out && ip -n @host link set wan up
ip -n @out addr add 192.0.2.1/24 dev o0; ip -n @out addr add 2001:db8::1/64 dev o0 nodad; ip -n @out link set o0 up
ip -n @out addr add 198.51.100.1/32 dev lo
";

const WAN: &str = r#"
[[uplink]]
name = "wan"
kind = "link"
device = "wan"
address = ["192.0.2.10/24", "2001:db8::10/64"]
gateway = ["192.0.2.1", "2001:db8::1"]
"#;

const BRIDGE: &str = r#"
[[bridge]]
name = "br0"
addresses = ["10.10.0.1/24", "fd10::1/64"]
dhcp = true
uplink = "wan"
"#;

fn port(name: &str, rest: &str) -> String {
    format!("[[port]]\nname = \"{name}\"\nbridge = \"br0\"\nnetns = \"@{name}\"\n{rest}\n")
}

fn station(name: &str, number: u32) -> String {
    port(name, &format!("addresses = [\"10.10.0.{number}/24\", \"fd10::{number}/64\"]"))
}

fn lab_with(file: &str) -> Lab {
    let mut lab = Lab::new();
    lab.sh(OUTSIDE).ok();
    lab.write(file);
    lab.start();
    lab
}

/// A DHCP server of the outside world: 192.0.2.50 to .59, by way of 192.0.2.1.
fn serve_dhcp_outside(lab: &mut Lab, more: &str) {
    let lease = lab.path("leases").display().to_string();
    lab.spawn_in("out", &format!(
        "dnsmasq -k -p 0 -i o0 --bind-interfaces -F 192.0.2.50,192.0.2.59,255.255.255.0,1h --dhcp-option=3,192.0.2.1 -l {lease} --pid-file {more}"
    ));
}

/// A web server in a namespace, which says its name.
fn web(lab: &mut Lab, netns: &str, port: u16) {
    let root = lab.path(&format!("www-{netns}-{port}"));
    std::fs::create_dir_all(&root).unwrap();
    std::fs::write(root.join("who"), netns).unwrap();
    lab.spawn_in(netns, &format!("python3 -m http.server {port} --bind :: -d {}", root.display()));
    lab.until("a web server listens", |lab| !lab.run_in(netns, &format!("ss -Hltn sport = :{port}")).ok().is_empty());
}

fn get(lab: &Lab, netns: &str, place: &str) -> String {
    let outcome = lab.run_in(netns, &format!("curl -gs -m 5 http://{place}/who"));
    if outcome.code == Some(0) { outcome.stdout } else { format!("curl: {:?}", outcome.code.unwrap_or(-1)) }
}

/// The switch's own table, with state that survives the process.
fn state(lab: &Lab) -> String {
    format!(
        "[switch]\nworkers = 2\ncontrol = \"{}\"\nstate-dir = \"{}\"\n",
        lab.path("control.sock").display(),
        lab.path("state").display()
    )
}

#[test]
fn forwards_come_and_go_without_touching_other_sessions_and_survive_a_restart() {
    needs!("curl", "python3", "iperf3");
    let mut lab = Lab::new();
    lab.sh(OUTSIDE).ok();
    // Namespaces that are there before outlive the switch.
    ["a", "b"].iter().for_each(|netns| lab.add_netns(netns));
    lab.write(&format!("{WAN}{BRIDGE}{}{}", station("a", 2), station("b", 3)));
    lab.start();
    web(&mut lab, "b", 80);
    lab.spawn_in("out", "iperf3 -s");
    lab.until("iperf3 listens", |lab| !lab.run_in("out", "ss -Hltn sport = :5201").ok().is_empty());
    let log = lab.path("long").display().to_string();
    let mut long = lab.command_in("a", &format!("iperf3 -c 192.0.2.1 -b 50M -t 6 > {log} 2>&1")).spawn().unwrap();
    assert_eq!(get(&lab, "out", "192.0.2.10:8080"), "curl: 7", "refused");
    lab.ctl("add-forward wan tcp/8080 10.10.0.3:80").ok();
    assert_eq!(get(&lab, "out", "192.0.2.10:8080"), "b");
    assert_eq!(get(&lab, "a", "192.0.2.10:8080"), "b", "by hairpin");
    lab.ctl("add-forward wan tcp/8080 [fd10::3]:80").ok();
    assert_eq!(get(&lab, "out", "[2001:db8::10]:8080"), "b");
    let forwards = lab.json("list-forwards");
    assert_eq!(
        forwards[0],
        json!({
            "uplink": "wan", "protocol": "tcp", "ports": "8080", "listen": null, "to": "10.10.0.3:80", "origin": "runtime"
        })
    );
    lab.ctl("del-forward wan tcp6/8080").ok();
    assert_eq!(get(&lab, "out", "[2001:db8::10]:8080"), "curl: 7");
    assert!(lab.stop().success());
    lab.start();
    assert_eq!(get(&lab, "out", "192.0.2.10:8080"), "b", "kept");
    lab.ctl("del-forward wan tcp/8080").ok();
    assert_eq!(get(&lab, "out", "192.0.2.10:8080"), "curl: 7");
    let _ = long.wait();
    let mut again = lab.command_in("a", &format!("iperf3 -c 192.0.2.1 -b 50M -t 3 > {log} 2>&1")).spawn().unwrap();
    lab.until("it flows", |lab| lab.json("stats wan")[0]["tx_bytes"].as_u64().unwrap() > 1 << 20);
    for _ in 0..5 {
        lab.ctl("add-forward wan udp/5000-5100 10.10.0.3:5000").ok();
        lab.ctl("del-forward wan udp/5000-5100").ok();
    }
    assert!(again.wait().unwrap().success(), "{}", std::fs::read_to_string(&log).unwrap());
}

#[test]
fn a_packet_is_seen_before_and_after_its_translation() {
    needs!("ping", "tshark");
    let lab = lab_with(&format!("{WAN}{BRIDGE}{}", station("a", 2)));
    let file = lab.path("both.pcapng");
    let mut capture = lab.ctl_command();
    capture.args(["capture", "--port", "a", "--port", "wan", "--at", "ingress,egress", "--filter", "icmp"]);
    capture.args(["--count", "4", "-w"]).arg(&file);
    let mut capture = capture.stdout(Stdio::null()).spawn().unwrap();
    lab.until("the capture runs", |lab| lab.json("show")["captures"] == 1);
    assert!(ping(&lab, "a", "198.51.100.1"));
    assert!(capture.wait().unwrap().success());
    let fields = "-e frame.interface_name -e ip.src -e ip.dst -e ip.ttl -e icmp.checksum.status";
    let seen = lab.sh(&format!("tshark -r {} -T fields {fields} 2>/dev/null", file.display())).ok();
    let seen: Vec<Vec<&str>> = seen.lines().map(|line| line.split('\t').collect()).collect();
    assert_eq!(seen[0][..4], ["a", "10.10.0.2", "198.51.100.1", "64"]);
    assert_eq!(seen[1][..4], ["wan", "192.0.2.10", "198.51.100.1", "63"]);
    assert_eq!(seen[2][..4], ["wan", "198.51.100.1", "192.0.2.10", "64"]);
    assert_eq!(seen[3][..4], ["a", "198.51.100.1", "10.10.0.2", "63"]);
    assert!(seen.iter().all(|fields| fields[4] == "1"), "every checksum is good: {seen:?}");
    let sessions = lab.json("sessions --uplink wan");
    assert_eq!((&sessions[0]["protocol"], &sessions[0]["inside"].as_str().unwrap()[..10]), (&json!("icmp"), "10.10.0.2:"));
}

#[test]
fn several_workers_share_one_router() {
    needs!("ping", "curl", "python3", "iperf3");
    let forward = "[[forward]]\nuplink = \"wan\"\nprotocol = \"tcp\"\nport = 8080\nto = \"10.10.0.3:80\"\n";
    let mut lab = Lab::new();
    lab.sh(OUTSIDE).ok();
    lab.write(&format!("{}{WAN}{BRIDGE}{}{}{forward}", state(&lab), station("a", 2), station("b", 3)));
    lab.start();
    web(&mut lab, "b", 80);
    assert!(ping(&lab, "a", "198.51.100.1") && ping(&lab, "a", "10.10.0.1") && ping(&lab, "b", "2001:db8::1"));
    for _ in 0..20 {
        // Each connection has a port of its own, so that they come by both queues.
        assert_eq!((get(&lab, "out", "192.0.2.10:8080"), get(&lab, "a", "192.0.2.10:8080")), ("b".into(), "b".into()));
    }
    assert!(tcp(&lab, "a", "out", "192.0.2.1", "-P 4 -n 64M").bits > 20e6);
}

#[test]
fn the_gateway_serves_addresses_and_names() {
    needs!("busybox", "dig", "ping");
    let mut lab = Lab::new();
    lab.sh(OUTSIDE).ok();
    lab.write(&format!("{WAN}{BRIDGE}{}{}", port("d", ""), station("web", 9)));
    lab.start();
    let hook = lab.path("hook");
    std::fs::write(&hook, "#!/bin/sh\n[ \"$1\" = bound ] && ip addr add $ip/$mask dev $interface && ip route add default via $router\nenv > $0.env\n").unwrap();
    lab.sh(&format!("chmod +x {}", hook.display())).ok();
    lab.run_in("d", &format!("busybox udhcpc -i eth0 -n -q -f -s {}", hook.display())).ok();
    assert!(ping(&lab, "d", "10.10.0.1") && ping(&lab, "d", "10.10.0.9") && ping(&lab, "d", "198.51.100.1"));
    // Longer than the link takes, in both directions.
    for address in ["10.10.0.1", "fd10::1"] {
        assert!(lab.run_in("web", &format!("ping -q -c 2 -W 2 -s 4000 {address}")).ok().contains(" 0% packet loss"));
    }
    let asked =
        |name: &str, kind: &str| lab.run_in("d", &format!("dig +short +time=2 $(printf '\\100')10.10.0.1 {name} {kind}")).ok();
    assert_eq!((asked("web.br0.internal", "A"), asked("web", "AAAA")), ("10.10.0.9\n".into(), "fd10::9\n".into()));
    assert_eq!(asked("web.br0.internal", "A +tcp"), "10.10.0.9\n");
    let leased = lab.run_in("d", "ip -4 -o addr show eth0").ok().split_whitespace().nth(3).unwrap().replace("/24", "\n");
    assert_eq!(asked("d", "A"), leased, "a station has a name as soon as it has an address");
    // Router advertisements: the kernel makes itself an address and a route.
    lab.until("SLAAC", |lab| lab.run_in("d", "ip -6 addr show scope global; ip -6 route").ok().contains("default via fe80"));
    lab.until("an address of the prefix", |lab| ping(lab, "d", "2001:db8::1"));
    // The lease is there after a crash.
    lab.kill();
    lab.start();
    lab.run_in("d", &format!("ip addr flush dev eth0; busybox udhcpc -i eth0 -n -q -f -s {}", hook.display())).ok();
    assert_eq!(lab.run_in("d", "ip -4 -o addr show eth0").ok().split_whitespace().nth(3).unwrap().replace("/24", "\n"), leased);
}

#[test]
fn an_uplink_gets_its_address_by_dhcp() {
    needs!("dnsmasq", "ping");
    let mut lab = Lab::new();
    lab.sh(OUTSIDE).ok();
    serve_dhcp_outside(&mut lab, "");
    let wan = "[[uplink]]\nname = \"wan\"\nkind = \"link\"\ndevice = \"wan\"\naddress = \"dhcp\"\n";
    lab.write(&format!("{wan}{BRIDGE}{}", station("a", 2)));
    lab.start();
    lab.until("an address", |lab| lab.json("list-uplinks")[0]["addresses"].as_array().is_some_and(|list| !list.is_empty()));
    let uplink = lab.json("list-uplinks")[0].clone();
    assert!(
        uplink["addresses"][0].as_str().unwrap().starts_with("192.0.2.5") && uplink["gateways"] == json!(["192.0.2.1"]),
        "{uplink}"
    );
    assert!(ping(&lab, "a", "198.51.100.1"));
}

#[test]
fn an_address_by_dhcp_that_somebody_has_is_declined() {
    needs!("dnsmasq", "ping");
    let mut lab = Lab::new();
    lab.sh(OUTSIDE).ok();
    lab.sh("netns @rival && ip -n @out link add m0 link o0 type macvlan mode bridge && ip -n @out link set m0 netns @rival")
        .ok();
    lab.sh("ip -n @rival addr add 192.0.2.99/24 dev m0; ip -n @rival link set m0 up").ok();
    // It gives the uplink what the rival has, and does not look.
    serve_dhcp_outside(&mut lab, "--dhcp-host=02:00:00:00:00:77,192.0.2.99 --no-ping");
    let wan =
        "[[uplink]]\nname = \"wan\"\nkind = \"link\"\ndevice = \"wan\"\naddress = \"dhcp\"\nmac = \"02:00:00:00:00:77\"\n";
    lab.write(&format!("{wan}{BRIDGE}{}", station("a", 2)));
    lab.start();
    lab.until("an address", |lab| lab.json("list-uplinks")[0]["addresses"].as_array().is_some_and(|list| !list.is_empty()));
    let address = lab.json("list-uplinks")[0]["addresses"][0].as_str().unwrap().to_owned();
    assert!(address.starts_with("192.0.2.5"), "another one: {address}");
    assert!(lab.log().contains("DHCP gave 192.0.2.99, which "), "{}", lab.log());
    assert!(ping(&lab, "a", "198.51.100.1"));
    // A macvlan does not reach its parent, but the uplink, and by the address that it kept.
    assert!(ping(&lab, "rival", address.trim_end_matches("/24")));
}

#[test]
fn the_host_s_sockets_are_an_uplink() {
    needs!("curl", "python3", "ping", "dig");
    let host = "[[uplink]]\nname = \"wan\"\nkind = \"host\"\n";
    let forward = "[[forward]]\nuplink = \"wan\"\nprotocol = \"tcp\"\nport = 8080\nto = \"10.10.0.2:80\"\n";
    let mut lab = Lab::new();
    lab.sh(OUTSIDE).ok();
    lab.sh("ip -n @host addr add 192.0.2.2/24 dev wan; ip -n @host route add default via 192.0.2.1").ok();
    lab.write(&format!("{host}{BRIDGE}{}{forward}", station("a", 2)));
    lab.start();
    web(&mut lab, "out", 80);
    web(&mut lab, "a", 80);
    assert_eq!(get(&lab, "a", "198.51.100.1"), "out");
    assert_eq!(get(&lab, "a", "198.51.100.1:81"), "curl: 7", "refused as it is outside");
    assert!(ping(&lab, "a", "198.51.100.1"));
    for place in ["127.0.0.1:8080", "192.0.2.2:8080"] {
        assert_eq!(get(&lab, "host", place), "a", "from the host by {place}");
    }
    assert_eq!(get(&lab, "out", "192.0.2.2:8080"), "a", "from outside");
    // The gateway's own address is nobody out there.
    assert_eq!(get(&lab, "a", "10.10.0.1:81"), "curl: 7");
    let refused = "python3 -c \"import socket; s = socket.socket(2, 2); s.settimeout(3); s.connect(('10.10.0.1', 81)); s.send(b'x'); s.recv(9)\"";
    assert!(lab.run_in("a", refused).stderr.contains("ConnectionRefusedError"));
    // Who listens there already is named.
    lab.spawn_in("host", "python3 -m http.server 9090");
    lab.until("somebody listens", |lab| !lab.run_in("host", "ss -Hltn sport = :9090").ok().is_empty());
    let sentence = lab.ctl("add-forward wan tcp/9090 10.10.0.2:80").refused();
    assert!(sentence.contains("9090") && sentence.contains("in use by another program"), "{sentence}");
    assert_eq!(lab.json("list-forwards").as_array().unwrap().len(), 1);
    lab.ctl("del-forward wan tcp/8080").ok();
    assert_eq!(get(&lab, "host", "127.0.0.1:8080"), "curl: 7");
}

#[test]
fn a_forward_listens_on_one_address_only() {
    needs!("curl", "python3");
    let host = "[[uplink]]\nname = \"wan\"\nkind = \"host\"\n";
    let forward =
        "[[forward]]\nuplink = \"wan\"\nprotocol = \"tcp\"\nport = 8080\nlisten = \"127.0.0.1\"\nto = \"10.10.0.2:80\"\n";
    let mut lab = Lab::new();
    lab.sh(OUTSIDE).ok();
    lab.sh("ip -n @host addr add 192.0.2.2/24 dev wan").ok();
    ["a", "b"].iter().for_each(|netns| lab.add_netns(netns));
    let file = format!("{}{host}{BRIDGE}{}{}", state(&lab), station("a", 2), station("b", 3));
    lab.write(&format!("{file}{forward}"));
    lab.start();
    ["a", "b"].iter().for_each(|netns| web(&mut lab, netns, 80));
    lab.ctl("add-forward wan tcp/8080 10.10.0.3:80 --listen 192.0.2.2").ok();
    lab.ctl("add-forward wan tcp/8080 10.10.0.3:80 --listen ::1").ok();
    let where_to = |lab: &Lab| ["127.0.0.1:8080", "192.0.2.2:8080", "[::1]:8080"].map(|place| get(lab, "host", place));
    assert_eq!(where_to(&lab), ["a", "b", "b"]);
    assert_eq!(get(&lab, "out", "192.0.2.2:8080"), "b");
    for (words, part) in [
        ("add-forward wan tcp/8080 10.10.0.3:80", "wan tcp/8080 has ports of forward wan tcp/8080 --listen 127.0.0.1:"),
        ("add-forward wan tcp/8080 10.10.0.3:80 --listen 127.0.0.1", "exists already, to 10.10.0.2:80"),
        ("add-forward wan tcp/8080 10.10.0.3:80 --listen 192.0.2.3", "the host has no address 192.0.2.3"),
        ("del-forward wan tcp/8080", "there is no forward wan tcp/8080: the forwards are wan tcp/8080 --listen 127.0.0.1"),
    ] {
        let sentence = lab.ctl(words).refused();
        assert!(sentence.contains(part), "{words}: {sentence}");
    }
    // A restart and the export know them; a reload makes room for the same port on all addresses.
    assert!(lab.stop().success());
    lab.start();
    assert_eq!(where_to(&lab), ["a", "b", "b"]);
    let export = lab.ctl("export").ok();
    assert_eq!(export.matches("listen = ").count(), 3, "{export}");
    assert!(lab.ctl("list-forwards").ok().contains("wan     tcp/8080  127.0.0.1  10.10.0.2:80"));
    for listen in ["192.0.2.2", "::1"] {
        lab.ctl(&format!("del-forward wan tcp/8080 --listen {listen}")).ok();
    }
    assert_eq!(where_to(&lab), ["a", "curl: 7", "curl: 7"]);
    lab.write(&format!("{file}{}", forward.replace("listen = \"127.0.0.1\"\n", "")));
    lab.ctl("reload").ok();
    assert_eq!(where_to(&lab), ["a", "a", "a"]);
}

#[test]
fn a_reload_does_not_fail_for_a_port_that_another_program_has() {
    needs!("curl", "python3");
    let file = format!("[[uplink]]\nname = \"wan\"\nkind = \"host\"\n{BRIDGE}{}", station("a", 2));
    let mut lab = Lab::new();
    lab.sh(OUTSIDE).ok();
    lab.add_netns("a");
    let file = format!("{}{file}", state(&lab));
    lab.write(&file);
    lab.start();
    web(&mut lab, "a", 80);
    lab.ctl("add-forward wan tcp/8080 10.10.0.2:80").ok();
    lab.ctl("add-forward wan tcp/8081 10.10.0.2:80").ok();
    assert!(lab.stop().success());
    let other = lab.spawn_in("host", "python3 -m http.server 8080");
    lab.until("somebody listens", |lab| !lab.run_in("host", "ss -Hltn sport = :8080").ok().is_empty());
    lab.start();
    assert!(lab.log().contains("not published now"), "{}", lab.log());
    // What is new in the file comes, the other forward stays, and what is missing is said.
    lab.write(&format!("{file}[[bridge]]\nname = \"br9\"\n"));
    let outcome = lab.ctl("reload");
    assert!(
        outcome.code == Some(0) && outcome.stderr.contains("8080") && outcome.stderr.contains("not published now"),
        "{outcome:?}"
    );
    assert_eq!((lab.json("list-br").as_array().unwrap().len(), get(&lab, "host", "127.0.0.1:8081")), (2, "a".to_owned()));
    lab.sh(&format!("kill -9 {other}")).ok();
    lab.until("the port is free", |lab| lab.run_in("host", "ss -Hltn sport = :8080").ok().is_empty());
    let outcome = lab.ctl("reload");
    assert!(outcome.code == Some(0) && outcome.stderr.is_empty(), "{outcome:?}");
    assert_eq!(get(&lab, "host", "127.0.0.1:8080"), "a");
}

#[test]
fn what_cannot_be_is_one_sentence_and_nothing_is_half_made() {
    needs!();
    let file = format!(
        "{WAN}{BRIDGE}{}[[forward]]\nuplink = \"wan\"\nprotocol = \"tcp\"\nport = \"80-90\"\nto = \"10.10.0.2:80\"\n",
        station("a", 2)
    );
    let lab = lab_with(&file);
    let before = lab.ctl("export").ok();
    for (words, part) in [
        ("add-br br9 --address 10.10.0.129/25", "overlaps 10.10.0.1/24 of bridge \"br0\""),
        ("add-br br9 --address 10.9.0.0/24", "that of a subnet"),
        ("add-br br9 --address fd99::1/64 --mtu 1279", "IPv6 takes 1280 and more"),
        ("add-br br9 --address 10.9.0.1/24 --uplink lan", "uplink \"lan\", which does not exist"),
        ("add-forward wan tcp/99 10.99.0.1:80", "which is no station's in a subnet of a bridge with uplink \"wan\""),
        ("add-forward wan tcp/99 10.10.0.1:80", "is the gateway of bridge \"br0\""),
        ("add-forward wan tcp/85-99 10.10.0.2:80", "has ports of forward wan tcp/80-90"),
        ("add-forward wan tcp/99 10.10.0.2:80 --listen 192.0.2.99", "has no address: use 192.0.2.10 or 2001:db8::10,"),
        ("add-forward wan tcp/99 10.10.0.2:80 --listen 2001:db8::10", "of the other IP version"),
        ("add-forward wan tcp/90 10.10.0.2:80 --listen 192.0.2.10", "has ports of forward wan tcp/80-90"),
        ("add-forward wan tcp/99 10.10.0.2:80 --listen wan", "is not an address to listen on"),
        ("add-forward wan tcp/0 10.10.0.2:80", "is not a port"),
        ("add-forward wan icmp/1 10.10.0.2:80", "use tcp or udp"),
        ("add-forward wan tcp/1-3 10.10.0.2:65534", "beyond 65535"),
        ("add-forward lan tcp/99 10.10.0.2:80", "uplink \"lan\", which does not exist"),
        ("del-forward wan tcp/1", "there is no forward wan tcp/1: the forwards are wan tcp/80-90"),
        ("del-uplink wan", "is used by forward wan tcp/80-90: remove it first with del-forward wan tcp/80-90"),
        ("del-uplink lan", "there is no uplink \"lan\": the uplinks are wan"),
        ("add-uplink lan --kind link --device nolan --address 203.0.113.1/24", "no interface \"nolan\""),
        ("add-uplink lan --kind link --device wan --address 203.0.113.1/24", "which uplink \"wan\" has already"),
        ("add-uplink lan --kind link --device lo --address 203.0.113.1/24", "loopback"),
        ("add-uplink lan --kind link --device wan --address 203.0.113.1/24 --gateway 203.0.114.1", "not in the subnet"),
        ("add-uplink a --kind host", "has the name of a port"),
        ("add-port br0 wan", "has the name of an uplink"),
        ("add-port br0 c --netns @c --address 10.10.0.1/24", "of its bridge's gateway"),
        ("sessions --uplink lan", "there is no uplink \"lan\""),
        ("neighbors br9", "there is no bridge and no uplink \"br9\""),
    ] {
        let sentence = lab.ctl(words).refused();
        assert!(sentence.contains(part) && sentence.lines().count() == 1, "{words}: {sentence}");
    }
    assert_eq!(lab.ctl("export").ok(), before);
    assert_eq!(lab.netns(), ["a", "host", "out"]);
}

#[test]
fn what_is_exported_makes_the_same_switch() {
    needs!("ping");
    let nat = "[nat]\nudp = \"60s\"\nmapping = \"endpoint-dependent\"\n";
    let forward = "[[forward]]\nuplink = \"wan\"\nprotocol = \"udp\"\nport = \"80-90\"\nto = \"10.10.0.2:80\"\n";
    let mut lab = lab_with(&format!("{nat}{WAN}{BRIDGE}{}{forward}", station("a", 2)));
    lab.ctl("add-br br1 --address 10.11.0.1/24 --uplink wan --open").ok();
    let exported = lab.ctl("export").ok();
    assert!(lab.stop().success());
    std::fs::remove_dir_all(lab.path("state")).unwrap();
    std::fs::write(lab.file(), &exported).unwrap();
    lab.start();
    assert_eq!(lab.ctl("export").ok(), exported);
    assert!(ping(&lab, "a", "198.51.100.1"));
    assert_eq!(lab.json("list-br")[1]["isolated"], json!(false));
}

#[test]
fn a_reload_changes_the_gateway_and_nothing_else() {
    needs!("ping");
    let mut lab = lab_with(&format!("{WAN}{BRIDGE}{}", station("a", 2)));
    assert!(ping(&lab, "a", "198.51.100.1"));
    let sessions = |lab: &Lab| lab.json("sessions").as_array().unwrap().len();
    assert_eq!(sessions(&lab), 1);
    lab.write(&format!("{WAN}{BRIDGE}{}{}", station("a", 2), station("b", 3)));
    lab.ctl("reload").ok();
    assert_eq!(sessions(&lab), 1, "the session is still there");
    assert!(ping(&lab, "b", "198.51.100.1"));
    // Without an uplink the bridge has no way out; the stations keep their addresses.
    lab.write(&format!("{WAN}{}{}{}", BRIDGE.replace("uplink = \"wan\"\n", ""), station("a", 2), station("b", 3)));
    lab.ctl("reload").ok();
    let said = lab.run_in("a", "ping -c1 -W1 198.51.100.1").stdout;
    assert!(said.contains("Destination Net Unreachable"), "{said}");
    assert!(ping(&lab, "a", "10.10.0.1"));
    // Another gateway address: the stations' default route follows.
    lab.write(&format!("{WAN}{}{}", BRIDGE.replace("10.10.0.1", "10.10.0.254"), station("a", 2)));
    lab.ctl("reload").ok();
    assert!(lab.run_in("a", "ip route").ok().contains("default via 10.10.0.254"));
    assert!(ping(&lab, "a", "198.51.100.1"));
    assert!(lab.stop().success());
}

#[test]
fn an_uplink_whose_device_goes_and_comes_back_is_kept_and_works_again() {
    needs!("ping", "curl", "python3");
    let forward = "[[forward]]\nuplink = \"wan\"\nprotocol = \"tcp\"\nport = 8080\nto = \"10.10.0.2:80\"\n";
    let file = format!("{WAN}{BRIDGE}{}{forward}", station("a", 2));
    let mut lab = lab_with(&file);
    web(&mut lab, "a", 80);
    assert!(ping(&lab, "a", "198.51.100.1"));
    let state = |lab: &Lab| lab.json("list-uplinks")[0]["state"].to_string();
    lab.sh("ip -n @host link del wan").ok();
    lab.until("it is down", |lab| state(lab).contains("is gone"));
    // Without the device nothing changes, however often somebody tries.
    for _ in 0..2 {
        let sentence = lab.ctl("reload").refused();
        assert!(sentence.contains("no interface \"wan\"") && sentence.lines().count() == 1, "{sentence}");
        assert!(state(&lab).contains("no interface"), "{}", state(&lab));
    }
    assert!(ping(&lab, "a", "10.10.0.1"));
    // A bridge made meanwhile takes a number that may have been the uplink's.
    lab.ctl("add-br br1 --address 10.11.0.1/24 --uplink wan").ok();
    lab.sh("ip -n @host link add wan type veth peer name o0 netns @out && ip -n @host link set wan up
         ip -n @out addr add 192.0.2.1/24 dev o0; ip -n @out addr add 2001:db8::1/64 dev o0 nodad; ip -n @out link set o0 up")
        .ok();
    lab.ctl("reload").ok();
    assert!(ping(&lab, "a", "198.51.100.1"));
    assert_eq!(get(&lab, "out", "192.0.2.10:8080"), "a");
    assert_eq!(lab.json("list-uplinks").as_array().unwrap().len(), 1);
}

#[test]
fn an_uplink_that_cannot_become_another_stays_what_it_is() {
    needs!("ping", "curl", "python3");
    let forward = "[[forward]]\nuplink = \"wan\"\nprotocol = \"tcp\"\nport = 8080\nto = \"10.10.0.2:80\"\n";
    let rest = format!("{BRIDGE}{}{forward}", station("a", 2));
    let mut lab = lab_with(&format!("{WAN}{rest}"));
    web(&mut lab, "a", 80);
    lab.spawn_in("host", "python3 -m http.server 8080");
    lab.until("somebody listens", |lab| !lab.run_in("host", "ss -Hltn sport = :8080").ok().is_empty());
    lab.write(&format!("[[uplink]]\nname = \"wan\"\nkind = \"host\"\n{rest}"));
    for _ in 0..2 {
        let sentence = lab.ctl("reload").refused();
        assert!(sentence.contains("8080") && sentence.lines().count() == 1, "{sentence}");
        assert_eq!(lab.json("list-uplinks")[0]["kind"], json!("link"));
        assert!(ping(&lab, "a", "198.51.100.1"));
        assert_eq!(get(&lab, "out", "192.0.2.10:8080"), "a");
    }
    // Where it can, it does, and back.
    let rest = rest.replace("8080", "8081");
    lab.write(&format!("[[uplink]]\nname = \"wan\"\nkind = \"host\"\n{rest}"));
    lab.ctl("reload").ok();
    assert_eq!(get(&lab, "host", "127.0.0.1:8081"), "a");
    lab.write(&format!("{WAN}{rest}"));
    lab.ctl("reload").ok();
    assert!(ping(&lab, "a", "198.51.100.1"));
    assert_eq!(get(&lab, "out", "192.0.2.10:8081"), "a");
    assert_eq!(get(&lab, "host", "127.0.0.1:8081"), "curl: 7");
}

#[test]
fn an_uplink_of_run_time_without_its_device_does_not_keep_the_switch_from_starting() {
    needs!("ping");
    let mut lab = Lab::new();
    lab.sh(OUTSIDE).ok();
    lab.write("");
    lab.start();
    lab.ctl("add-uplink wan --kind link --device wan --address 192.0.2.10/24 --gateway 192.0.2.1").ok();
    lab.ctl("add-br br0 --address 10.10.0.1/24 --uplink wan").ok();
    lab.ctl("add-port br0 a --netns @a --address 10.10.0.2/24").ok();
    lab.ctl("add-forward wan tcp/8080 10.10.0.2:80").ok();
    assert!(ping(&lab, "a", "198.51.100.1"));
    assert!(lab.stop().success());
    lab.sh("ip -n @host link set wan name other").ok();
    lab.start();
    assert!(lab.json("list-uplinks")[0]["state"].to_string().contains("no interface"));
    assert!(ping(&lab, "a", "10.10.0.1"));
    lab.sh("ip -n @host link set other name wan && ip -n @host link set wan up").ok();
    lab.ctl("reload").ok();
    assert!(ping(&lab, "a", "198.51.100.1"));
    assert_eq!(lab.json("list-forwards").as_array().unwrap().len(), 1);
}

#[test]
fn an_address_by_dhcp_outlives_a_reload_and_is_respected() {
    needs!("dnsmasq", "ping");
    let mut lab = Lab::new();
    lab.sh(OUTSIDE).ok();
    serve_dhcp_outside(&mut lab, "");
    lab.write("");
    lab.start();
    lab.ctl("add-uplink wan --kind link --device wan --address dhcp").ok();
    let addresses = |lab: &Lab| lab.json("list-uplinks")[0]["addresses"].to_string();
    lab.until("an address", |lab| addresses(lab).contains("192.0.2.5"));
    let first = addresses(&lab);
    // The file names now what was added at run time: another origin, the same uplink.
    lab.write(&format!(
        "[[uplink]]\nname = \"wan\"\nkind = \"link\"\ndevice = \"wan\"\naddress = \"dhcp\"\n{BRIDGE}{}",
        station("a", 2)
    ));
    lab.ctl("reload").ok();
    assert_eq!(lab.json("list-uplinks")[0]["origin"], json!("file"));
    assert_eq!(addresses(&lab), first);
    assert!(ping(&lab, "a", "198.51.100.1"));
    let before = lab.ctl("export").ok();
    for words in ["add-br br9 --address 192.0.2.129/25", "add-uplink two --kind link --device w2 --address 192.0.0.1/16"] {
        lab.sh("ip -n @host link show w2 || ip -n @host link add w2 type veth peer name w3").ok();
        let sentence = lab.ctl(words).refused();
        assert!(sentence.contains("overlaps 192.0.2.5") && sentence.contains("of uplink \"wan\""), "{sentence}");
    }
    assert_eq!(lab.ctl("export").ok(), before);
    // A fixed address instead, and back.
    let file = format!("{WAN}{BRIDGE}{}", station("a", 2));
    lab.write(&file);
    lab.ctl("reload").ok();
    assert!(addresses(&lab).contains("192.0.2.10/24"), "{}", addresses(&lab));
    assert!(ping(&lab, "a", "198.51.100.1"));
    lab.write(&file.replace(
        "address = [\"192.0.2.10/24\", \"2001:db8::10/64\"]\ngateway = [\"192.0.2.1\", \"2001:db8::1\"]",
        "address = \"dhcp\"",
    ));
    lab.ctl("reload").ok();
    lab.until("an address again", |lab| addresses(lab).contains("192.0.2.5"));
    assert!(ping(&lab, "a", "198.51.100.1"));
}

#[test]
fn a_station_gets_round_no_isolation_by_another_source_address() {
    needs!("ping", "python3");
    let host = "[[uplink]]\nname = \"wan\"\nkind = \"host\"\n";
    let other = "[[bridge]]\nname = \"br1\"\naddresses = [\"10.11.0.1/24\"]\nuplink = \"wan\"\n\
                 [[port]]\nname = \"c\"\nbridge = \"br1\"\nnetns = \"@c\"\naddresses = [\"10.11.0.2/24\"]\n";
    let mut lab = Lab::new();
    lab.sh(OUTSIDE).ok();
    lab.sh("ip -n @host addr add 192.0.2.2/24 dev wan; ip -n @host route add default via 192.0.2.1").ok();
    lab.write(&format!("{host}{BRIDGE}{}{other}", station("a", 2)));
    lab.start();
    assert!(ping(&lab, "a", "198.51.100.1"));
    lab.run_in("a", "ip addr add 10.11.0.2/32 dev eth0").ok();
    lab.run_in("a", "ping -c 2 -W 1 -I 10.11.0.2 198.51.100.1");
    let stats = lab.ctl("stats a").ok();
    assert!(stats.contains("martian"), "{stats}");
    assert!(lab.json("sessions").as_array().unwrap().iter().all(|row| !row["inside"].as_str().unwrap().starts_with("10.11.")));
}
