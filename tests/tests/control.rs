//! vsctl and vswitchd as their users meet them: every command, what it prints, how it fails, and what lasts.
#![allow(clippy::unwrap_used, clippy::panic, reason = "what fails here fails its test")]

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use vswitch_tests::{BROADCAST, Lab, Outcome, Wire, frame, mac, needs, ping, program};

const BRIDGE: &str = "[[bridge]]\nname = \"br0\"\n";

fn port(name: &str, more: &str) -> String {
    format!("[[port]]\nname = \"{name}\"\nbridge = \"br0\"\nnetns = \"@{name}\"\n{more}")
}

/// Runs a command that must succeed without a word.
#[track_caller]
fn quietly(lab: &Lab, words: &str) {
    let outcome = lab.ctl(words);
    assert_eq!((outcome.code, &*outcome.stdout, &*outcome.stderr), (Some(0), "", ""), "{words}");
}

/// Runs a command that must fail with one sentence that holds all of `parts`.
#[track_caller]
fn refused(outcome: Outcome, parts: &[&str]) {
    let sentence = outcome.refused();
    assert_eq!(sentence.lines().count(), 1, "{sentence}");
    assert!(parts.iter().all(|part| sentence.contains(part)), "{sentence:?} should hold {parts:?}");
}

/// All that a user could see of a switch, its counters, ages and process aside.
fn picture(lab: &Lab) -> (Value, Value, Vec<String>, String) {
    let mut bridges = lab.json("list-br");
    bridges.as_array_mut().unwrap().iter_mut().for_each(|bridge| bridge["macs"] = 0.into());
    (bridges, lab.json("list-ports"), lab.netns(), lab.sh("ip -n @host -o link | grep -o '^[0-9]*: [^:]*'").ok())
}

fn keys(value: &Value) -> BTreeSet<&str> {
    value.as_object().expect("an object").keys().map(String::as_str).collect()
}

#[test]
fn every_command_does_what_it_says_without_a_word() {
    needs!("ping");
    let mut lab = Lab::with(BRIDGE);
    lab.sh("ip -n @host link add lan type veth peer name lan2 && ip -n @host link set lan2 up && ip -n @host link set lan up")
        .ok();
    quietly(&lab, "add-br br1 --mtu 9000 --ageing 5m --max-macs 100 --control-frames pass");
    quietly(&lab, "add-port br0 a --netns @a --address 10.0.0.1/24 --address fd00::1/64 --mac 02:00:00:00:00:0a");
    quietly(&lab, "add-port br0 b --kind veth --netns @b --ifname lan0 --address 10.0.0.2/24 --guard on --offload off");
    quietly(&lab, "add-port br1 lan --kind link --device lan --trunk 10,20 --native 1 --broadcast-limit 100 --send-rate 1gbit");
    quietly(&lab, "add-port br1 c --vlan 7");
    let ports = lab.json("list-ports");
    let names: Vec<&str> = ports.as_array().unwrap().iter().map(|port| port["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["a", "b", "c", "lan"]);
    assert_eq!(
        (&ports[0]["mac"], &ports[0]["addresses"]),
        (&json!("02:00:00:00:00:0a"), &json!(["10.0.0.1/24", "fd00::1/64"]))
    );
    assert_eq!((&ports[1]["kind"], &ports[1]["ifname"], &ports[1]["guard"]), (&json!("veth"), &json!("lan0"), &json!(true)));
    assert_eq!((&ports[2]["vlan"], &ports[2]["netns"]), (&json!(7), &Value::Null));
    let trunk = (&ports[3]["trunk"], &ports[3]["native"], &ports[3]["broadcast_limit"]);
    assert_eq!(trunk, (&json!([10, 20]), &json!(1), &json!(100)));
    assert_eq!((&ports[3]["send_rate"], &ports[3]["receive_rate"]), (&json!("1gbit"), &Value::Null));
    assert_eq!(lab.json("list-ports br1").as_array().unwrap().len(), 2);
    assert_eq!(lab.sh("ip -n @host -br link show c | wc -l").ok(), "1\n");
    assert!(ping(&lab, "a", "10.0.0.2") && ping(&lab, "b", "10.0.0.1"));
    // A change in place costs the station no link, and what is not named stays.
    let index = lab.run_in("a", "ip -o link show eth0 | cut -d: -f1").ok();
    quietly(
        &lab,
        "set-port a --address 10.0.0.7/24 --mac 02:00:00:00:00:0b --vlan 5 --broadcast-limit 9 --receive-rate 10mbit",
    );
    let now = lab.json("list-ports")[0].clone();
    assert_eq!((&now["send_rate"], &now["receive_rate"]), (&Value::Null, &json!("10mbit")));
    assert_eq!((&now["vlan"], &now["addresses"], &now["guard"]), (&json!(5), &json!(["10.0.0.7/24"]), &json!(false)));
    let state = lab.run_in("a", "ip -o link show eth0; ip -o addr show eth0").ok();
    assert!(state.contains("02:00:00:00:00:0b") && state.contains("10.0.0.7/24") && !state.contains("10.0.0.1/24"), "{state}");
    assert_eq!(lab.run_in("a", "ip -o link show eth0 | cut -d: -f1").ok(), index);
    assert!(!ping(&lab, "b", "10.0.0.7"), "it is in another VLAN");
    quietly(&lab, "set-port a --all-vlans --broadcast-limit 0 --receive-rate none");
    assert!(ping(&lab, "b", "10.0.0.7"));
    // One that needs another device.
    quietly(&lab, "set-port b --kind tap --ifname eth0");
    assert!(ping(&lab, "a", "10.0.0.2"));
    quietly(&lab, "set-port lan --trunk 30");
    assert_eq!((&lab.json("list-ports")[3]["trunk"], &lab.json("list-ports")[3]["native"]), (&json!([30]), &Value::Null));
    // What is there to be read.
    for (words, parts) in [
        ("list-br", &["BRIDGE", "br0", "br1", "9000"][..]),
        ("list-ports", &["PORT", "a", "eth0", "30 tagged", "up"]),
        ("show", &["vswitchd", "bridge br1: mtu 9000", "a: up, tap eth0 in", "10.0.0.7/24", "send-rate 1gbit", "(by vsctl)"]),
        ("fdb br0", &["MAC", "02:00:00:00:00:0b"]),
        ("stats a", &["a"]),
        ("stats", &["lan"]),
        ("export", &["[switch]", "[[bridge]]", "[[port]]"]),
    ] {
        let text = lab.ctl(words).ok();
        assert!(parts.iter().all(|part| text.contains(part)), "{words}: {text}");
        assert!(text.lines().all(|line| line.len() <= 140 && line == line.trim_end()), "{words}: {text}");
    }
    quietly(&lab, "fdb br0 --flush");
    quietly(&lab, "reload");
    for name in ["a", "b", "c", "lan"] {
        quietly(&lab, &format!("del-port {name}"));
    }
    quietly(&lab, "del-br br1");
    assert_eq!(lab.json("list-ports"), json!([]));
    assert_eq!((lab.netns(), lab.json("list-br").as_array().unwrap().len()), (vec!["host".to_owned()], 1));
    assert_eq!(lab.sh("ip -n @host -br link | wc -l").ok(), "3\n", "the link stays");
    // Nothing was made, so there is nothing to say.
    quietly(&lab, "shutdown");
    assert!(lab.ended().success());
}

#[test]
fn json_documents_have_their_fields() {
    needs!("ping");
    let lab = Lab::with(&format!(
        "{BRIDGE}{}{}",
        port("a", "addresses = [\"10.0.0.1/24\"]\n"),
        port("b", "addresses = [\"10.0.0.2/24\"]\n")
    ));
    assert!(ping(&lab, "a", "10.0.0.2"));
    let bridge = ["ageing_seconds", "control_frames", "evictions", "macs", "max_macs", "mtu", "name", "origin", "ports"]
        .map(str::to_owned);
    let has = |value: &Value, names: &[&str]| {
        let missing: Vec<&&str> = names.iter().filter(|name| !keys(value).contains(**name)).collect();
        assert!(missing.is_empty(), "{missing:?} missing in {value}");
    };
    let bridges = lab.json("list-br");
    has(&bridges[0], &bridge.each_ref().map(String::as_str));
    assert_eq!(
        (&bridges[0]["mtu"], &bridges[0]["ageing_seconds"], &bridges[0]["ports"]),
        (&json!(1500), &json!(300), &json!(2))
    );
    let port = [
        "name",
        "bridge",
        "kind",
        "netns",
        "ifname",
        "mac",
        "addresses",
        "vlan",
        "trunk",
        "native",
        "guard",
        "protected",
        "broadcast_limit",
        "send_rate",
        "receive_rate",
        "state",
        "features",
        "origin",
    ];
    let ports = lab.json("list-ports");
    has(&ports[0], &port);
    assert_eq!((&ports[0]["state"], &ports[0]["origin"]), (&json!("up"), &json!("file")));
    let switch = lab.json("show");
    has(&switch, &["version", "pid", "uptime_seconds", "workers", "config", "sandbox", "bridges", "ports", "captures"]);
    assert_eq!((&switch["pid"], &switch["ports"]), (&json!(lab.pid()), &ports));
    let fdb = lab.json("fdb br0");
    has(&fdb[0], &["mac", "vlan", "port", "age_seconds"]);
    assert!(fdb[0]["vlan"].is_u64() && fdb[0]["age_seconds"].is_u64());
    let before = lab.json("stats a");
    has(&before[0], &["port", "rx_frames", "rx_bytes", "tx_frames", "tx_bytes", "rx_drops", "tx_drops"]);
    has(
        &before[0]["rx_drops"],
        &["runt", "oversized", "malformed", "missed_by_kernel", "vlan_not_allowed", "guard_mac", "same_port"],
    );
    has(&before[0]["tx_drops"], &["queue_full", "device_down", "refused", "unsegmentable"]);
    assert!(before[0]["rx_drops"].as_object().unwrap().values().all(Value::is_u64));
    assert!(ping(&lab, "a", "10.0.0.2"));
    let after = lab.json("stats");
    assert_eq!(after.as_array().unwrap().len(), 2);
    assert!(
        ["rx_frames", "rx_bytes", "tx_frames", "tx_bytes"].iter().all(|key| after[0][key].as_u64() > before[0][key].as_u64())
    );
    has(&lab.json("export"), &["toml"]);
    // A command that says nothing says nothing in JSON either.
    quietly(&lab, "--json fdb br0 --flush");
    // The flag may stand on either side.
    let text = lab.ctl("list-ports --json").ok();
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), ports);
}

#[test]
fn what_cannot_be_done_is_one_sentence_and_leaves_nothing() {
    needs!();
    let lab = Lab::with(&format!("{BRIDGE}{}", port("a", "addresses = [\"10.0.0.1/24\"]\n")));
    lab.sh("ip -n @host link add mine type veth peer name lan && ip -n @host tuntap add dev tunnel mode tun").ok();
    let before = picture(&lab);
    for (words, parts) in [
        ("add-port br0 a-name-of-18-chars", &["\"a-name-of-18-chars\"", "at most 15"][..]),
        ("add-port br0 a/b", &["\"a/b\"", "letters, digits"]),
        ("add-port br0 a", &["\"a\" exists already", "\"br0\""]),
        ("add-port br9 y", &["no bridge \"br9\"", "br0"]),
        ("add-port br0 x --netns /run/netns/nothing", &["/run/netns/nothing"]),
        ("add-port br0 x --netns /etc/passwd", &["/etc/passwd is not a network namespace"]),
        ("add-port br0 x --netns pid:999999999", &["pid:999999999", "no such process"]),
        ("add-port br0 x --netns a/../b", &["network namespace"]),
        ("add-port br0 x --ifname mine", &["\"mine\" exists already"]),
        ("add-port br0 x --netns @a", &["\"a\" has interface \"eth0\"", "@a"]),
        ("add-port br0 x --kind link", &["needs `device`"]),
        ("add-port br0 x --kind link --device nothing", &["no interface \"nothing\""]),
        ("add-port br0 x --kind link --device lo", &["\"lo\"", "loopback"]),
        ("add-port br0 x --kind link --device tunnel", &["\"tunnel\"", "not Ethernet"]),
        ("add-port br0 x --kind link --device mine --mac 02:00:00:00:00:01", &["leave out `mac`"]),
        ("add-port br0 x --kind bond", &["\"bond\"", "tap, veth or link"]),
        ("add-port br0 x --device mine", &["`device` is for kind link"]),
        ("add-port br0 x --mac 01:00:00:00:00:01", &["group address"]),
        ("add-port br0 x --mac 02:00", &["02:00"]),
        ("add-port br0 x --address 10.0.0.300/24", &["10.0.0.300/24"]),
        ("add-port br0 x --address 10.0.0.1/33", &["10.0.0.1/33"]),
        ("add-port br0 x --vlan 4095", &["4095"]),
        ("add-port br0 x --vlan 0", &["0"]),
        ("add-port br0 x --trunk 1,5000", &["5000"]),
        ("add-port br0 x --send-rate 10mbps", &["\"10mbps\" is no rate", "10mbit"]),
        ("set-port a --receive-rate 7kbit", &["\"7kbit\" is no rate", "8kbit to 1tbit"]),
        ("set-port nobody --vlan 1", &["no port \"nobody\"", "a"]),
        ("set-port a --device lan", &["`device`"]),
        ("set-port a --netns /run/netns/nothing", &["/run/netns/nothing"]),
        ("set-port a --ifname lo", &["\"lo\""]),
        ("del-port nobody", &["no port \"nobody\""]),
        ("list-ports br9", &["no bridge \"br9\""]),
        ("add-br br0", &["bridge \"br0\" exists already"]),
        ("add-br br1 --mtu 67", &["MTU 67", "68 to 65535"]),
        ("add-br br1 --mtu 65536", &["65536", "68 to 65535"]),
        ("add-br br1 --ageing soon", &["\"soon\" is not a time"]),
        ("add-br br1 --ageing 0s", &["ageing", "1s to 1000000s"]),
        ("add-br br1 --max-macs 0", &["max-macs 0"]),
        ("add-br br1 --control-frames eat", &["eat", "drop", "pass"]),
        ("add-br a-name-of-18-chars", &["at most 15"]),
        ("del-br br0", &["has 1 port", "del-port a"]),
        ("del-br br9", &["no bridge \"br9\""]),
        ("fdb br9", &["no bridge \"br9\""]),
        ("stats nobody", &["no port \"nobody\""]),
        ("capture --port nobody", &["no port \"nobody\""]),
    ] {
        eprintln!("{words}");
        let parts: Vec<String> = parts.iter().map(|part| lab.named(part)).collect();
        refused(lab.ctl(words), &parts.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(picture(&lab), before, "{words}");
    }
    for words in
        ["frobnicate", "add-port br0", "", "add-port br0 x --vlan 1 --trunk 2", "add-port br0 x --native 1", "show --colour"]
    {
        let outcome = lab.ctl(words);
        assert_eq!((outcome.code, &*outcome.stdout), (Some(2), ""), "{words}: {outcome:?}");
    }
    assert_eq!(picture(&lab), before);
    // Nor is anything written down for a later start to remove.
    let state: Value = serde_json::from_str(&std::fs::read_to_string(lab.path("state/state.json")).unwrap()).unwrap();
    assert_eq!(keys(&state["made"]["ports"]), BTreeSet::from(["a"]));
}

#[test]
fn a_device_that_another_switch_has_is_left_to_it() {
    needs!("ping");
    let mut first = Lab::with(&format!(
        "{BRIDGE}{}{}",
        port("a", "addresses = [\"10.0.0.1/24\"]\n"),
        port("b", "addresses = [\"10.0.0.2/24\"]\n")
    ));
    let second = Lab::with(BRIDGE);
    let path = first.named("/run/netns/@a");
    refused(second.ctl(&format!("add-port br0 a --netns {path} --ifname eth0")), &["\"eth0\"", "in use by another process"]);
    refused(second.ctl(&format!("add-port br0 z --netns {path} --ifname eth0")), &["\"eth0\" exists already"]);
    assert!(ping(&first, "a", "10.0.0.2"));
    assert_eq!(second.json("list-ports"), json!([]));
    assert!(first.stop().success());
}

#[test]
fn without_privilege_it_says_which_and_leaves_nothing() {
    needs!("setpriv");
    let lab = Lab::new();
    let vswitchd = program("vswitchd").display().to_string();
    let run = |caps: &str, file: &str| {
        lab.write(&format!("{BRIDGE}{file}"));
        // Root without capabilities owns its files and may do nothing else.
        let line = format!("setpriv --bounding-set={caps} --inh-caps=-all {vswitchd} --config {}", lab.file().display());
        lab.run_in("host", &line)
    };
    let tap = "[[port]]\nname = \"t\"\nbridge = \"br0\"\n";
    refused(run("-all", tap), &["port \"t\"", "CAP_NET_ADMIN"]);
    refused(run("-all", &port("n", "")), &["port \"n\"", "CAP_SYS_ADMIN"]);
    refused(run("-all,+net_admin", &format!("{tap}kind = \"veth\"\n")), &["port \"t\"", "CAP_NET_RAW"]);
    assert_eq!(lab.netns(), ["host"]);
    assert_eq!(lab.sh("ip -n @host -br link | wc -l").ok(), "1\n");
    assert!(!lab.path("control.sock").exists());
}

#[test]
fn a_broken_file_is_explained_by_line_and_column() {
    needs!();
    let mut lab = Lab::new();
    let good = format!("{BRIDGE}{}", port("a", ""));
    lab.write(&good);
    // The head that the lab writes has three lines.
    let check = |file: &str| {
        lab.write(file);
        let outcome = lab.start_refused(&["--check"]);
        let lines: Vec<String> = outcome.stderr.lines().map(|line| line.replace(&*lab.file().to_string_lossy(), "f")).collect();
        (outcome.code, outcome.stdout, lines)
    };
    assert_eq!(check(&good), (Some(0), String::new(), vec![]));
    for (file, starts) in [
        ("[[bridge]]\nname = \"br0\n", &["f:5:"][..]),
        ("[[bridge]]\nname = \"br0\"\nmut = 1500\n", &["f:6:1: unknown key `mut` in [bridge]: did you mean `mtu`?"]),
        ("[[bridge]]\nname = \"br0\"\nmtu = \"big\"\nageing = 5\n", &["f:6:1: `mtu`", "f:7:1: `ageing`"]),
        (
            "[[bridge]]\nname = \"br0\"\n[[port]]\nname = \"p\"\nbridge = \"br1\"\n[[port]]\nname = \"p\"\nbridge = \"br0\"\n",
            &["f:8:1: port \"p\" is on bridge \"br1\"", "f:10:1: port \"p\" is in line 7 already"],
        ),
        (
            "[[bridge]]\nname = \"br0\"\n[[port]]\nname = \"a-name-of-18-chars\"\nbridge = \"br0\"\nvlan = 5000\n",
            &["f:7:1: `name`: port name \"a-name-of-18-chars\" has 18 characters", "f:9:1: `vlan`"],
        ),
        (
            "[[bridge]]\nname = \"br0\"\n[[port]]\nname = \"p\"\nbridge = \"br0\"\nvlan = 1\ntrunk = [2]\n",
            &["f:9:1: port \"p\" has both"],
        ),
        ("\0", &["f:4:1: "]),
    ] {
        let (code, stdout, lines) = check(file);
        assert_eq!((code, &*stdout, lines.len()), (Some(1), "", starts.len()), "{lines:#?}");
        lines.iter().zip(starts).for_each(|(line, start)| assert!(line.starts_with(start), "{line:?} instead of {start:?}"));
        // A start says the same.
        let started = lab.start_refused(&[]);
        assert_eq!((started.code, started.stderr.lines().count()), (Some(1), starts.len()), "{started:?}");
    }
    std::fs::remove_file(lab.file()).unwrap();
    refused(lab.start_refused(&["--check"]), &["switch.toml: cannot be read"]);
    std::fs::write(lab.file(), b"\xff\xfe").unwrap();
    refused(lab.start_refused(&[]), &["not text in UTF-8"]);
    // A reload of a broken file changes nothing, and goes well when it is mended.
    lab.write(&good);
    lab.start();
    let before = picture(&lab);
    lab.write("[[bridge]]\nname = 7\n");
    refused(lab.ctl("reload"), &["switch.toml:5:1: `name`"]);
    lab.signal(libc::SIGHUP);
    lab.until("the log says so", |lab| lab.log().contains("not reloaded"));
    assert_eq!(picture(&lab), before);
    // So does one whose ports cannot all be had.
    let link = "[[port]]\nname = \"c\"\nbridge = \"br0\"\nkind = \"link\"\ndevice = \"none\"\n";
    lab.write(&format!("{BRIDGE}mtu = 1400\n{}{}{link}", port("a", ""), port("b", "")));
    refused(lab.ctl("reload"), &["\"none\""]);
    assert_eq!(picture(&lab), before);
    // What only a start reads is named.
    let file = std::fs::read_to_string(lab.file()).unwrap();
    std::fs::write(lab.file(), file.replace("[[bridge]]", "workers = 2\n[[bridge]]")).unwrap();
    refused(lab.ctl("reload"), &["`workers`", "restart"]);
    lab.write(&good);
    quietly(&lab, "reload");
    assert_eq!(picture(&lab), before);
}

#[test]
fn changes_at_run_time_last_and_the_file_wins() {
    needs!("ping");
    let address = |n: u8| format!("addresses = [\"10.0.0.{n}/24\"]\n");
    let mut lab = Lab::with(&format!("{BRIDGE}{}{}{}", port("a", &address(1)), port("b", &address(2)), port("f", &address(6))));
    quietly(&lab, "add-br br1 --mtu 2000");
    quietly(&lab, "add-port br1 p --netns @p --vlan 9");
    quietly(&lab, "add-port br0 c --kind veth --netns @c --address 10.0.0.3/24 --broadcast-limit 500");
    quietly(&lab, "set-port c --guard on");
    quietly(&lab, "set-port a --vlan 30");
    quietly(&lab, "del-port b");
    let ports = lab.json("list-ports");
    let of = |ports: &Value, name: &str| {
        ports.as_array().unwrap().iter().find(|port| port["name"] == name).cloned().unwrap_or_default()
    };
    // However it ends.
    for end in ["SIGTERM", "kill", "shutdown"] {
        match end {
            "SIGTERM" => assert!(lab.stop().success()),
            "kill" => lab.kill(),
            _ => {
                assert!(lab.ctl("shutdown").ok().contains("removed port \"c\""));
                assert!(lab.ended().success());
            }
        }
        let said = lab.log().len();
        lab.start();
        let after = lab.json("list-ports");
        for name in ["p", "c", "f"] {
            assert_eq!(of(&after, name), of(&ports, name), "{name} after {end}");
        }
        assert_eq!(lab.json("list-br")[1]["mtu"], 2000);
        assert!(ping(&lab, "f", "10.0.0.3") && ping(&lab, "c", "10.0.0.6"));
        // What the file names is as the file says, and whoever changed it is told, once.
        assert_eq!((&of(&after, "a")["vlan"], &of(&after, "b")["name"]), (&Value::Null, &json!("b")), "after {end}");
        let log = lab.log()[said..].to_owned();
        assert_eq!(log.contains("\"a\"") && log.contains("\"b\""), end == "SIGTERM", "after {end}: {log}");
    }
    // The file takes over what vsctl made, and says so; without it in the file again, it is gone.
    let file = std::fs::read_to_string(lab.file()).unwrap();
    std::fs::write(lab.file(), lab.named(&format!("{file}{}", port("c", &address(33))))).unwrap();
    let outcome = lab.ctl("reload");
    assert!(outcome.code == Some(0) && outcome.stderr.contains("\"c\""), "{outcome:?}");
    assert_eq!(
        (&of(&lab.json("list-ports"), "c")["origin"], &of(&lab.json("list-ports"), "c")["kind"]),
        (&json!("file"), &json!("tap"))
    );
    assert!(ping(&lab, "f", "10.0.0.33"));
    std::fs::write(lab.file(), &file).unwrap();
    quietly(&lab, "reload");
    assert_eq!(of(&lab.json("list-ports"), "c"), Value::Null);
    quietly(&lab, "del-port p");
    quietly(&lab, "del-br br1");
    assert!(lab.stop().success());
    lab.start();
    assert_eq!(lab.json("list-ports").as_array().unwrap().len(), 3);
    assert_eq!(lab.json("list-br").as_array().unwrap().len(), 1);
}

#[test]
fn a_port_whose_container_is_gone_stays_down_until_it_can_be_had() {
    needs!("ping");
    let mut lab = Lab::with(&format!("{BRIDGE}{}", port("a", "addresses = [\"10.0.0.1/24\"]\n")));
    lab.add_netns("theirs");
    quietly(&lab, "add-port br0 c --netns /run/netns/@theirs --ifname eth0 --address 10.0.0.3/24");
    assert!(lab.stop().success());
    lab.sh("ip netns del @theirs").ok();
    lab.start();
    assert!(lab.log().contains("stays down"), "{}", lab.log());
    let down = lab.json("list-ports")[1]["state"].as_str().unwrap().to_owned();
    assert!(down.contains("no network namespace"), "{down}");
    assert_eq!(lab.json("stats c")[0]["rx_frames"], 0);
    lab.add_netns("theirs");
    quietly(&lab, "reload");
    assert_eq!(lab.json("list-ports")[1]["state"], "up");
    assert!(ping(&lab, "a", "10.0.0.3"));
}

#[test]
fn a_reload_loses_no_frame_of_what_it_does_not_change() {
    needs!();
    let mut lab = Lab::new();
    let file = |more: &str, bridge: &str| format!("{BRIDGE}{bridge}{}{}{more}", port("a", ""), port("b", "kind = \"veth\"\n"));
    lab.write(&file(&port("d", ""), ""));
    lab.start();
    let (a, b) = (Wire::open(&lab, "a"), Wire::open(&lab, "b"));
    let device = |lab: &Lab| ["a", "b"].map(|name| lab.run_in(name, "ip -o link show eth0").ok());
    let before = device(&lab);
    // b's address is known, so that each frame is heard once and by it alone.
    b.send(&frame(BROADCAST, mac(2), &[0x88, 0xb6], &[]));
    let (stop, count) = (AtomicBool::new(false), 20_000_u32);
    let heard = std::thread::scope(|scope| {
        let sender = scope.spawn(|| {
            let mut number = 0_u32;
            while !stop.load(Ordering::Relaxed) || number < count {
                a.send(&frame(mac(2), mac(1), &[0x88, 0xb6], &number.to_be_bytes()));
                number += 1;
                if number.is_multiple_of(8) {
                    std::thread::sleep(Duration::from_micros(200));
                }
            }
            a.send(&frame(mac(2), mac(1), &[0x88, 0xb5], &[]));
            number
        });
        let receiver = scope.spawn(|| b.heard_until(|frame| frame[12..14] == [0x88, 0xb5]));
        for round in 0..10 {
            let more = if round % 2 == 0 { port("c", "") } else { port("d", "vlan = 7\n") };
            lab.write(&file(&more, if round % 3 == 0 { "ageing = \"60s\"\nmax-macs = 100\n" } else { "" }));
            if round < 8 {
                quietly(&lab, "reload");
            } else {
                let reloaded = |lab: &Lab| lab.log().matches("reloaded").count();
                let so_far = reloaded(&lab);
                lab.signal(libc::SIGHUP);
                lab.until("it is reloaded", |lab| reloaded(lab) > so_far);
            }
        }
        quietly(&lab, "add-port br0 e --netns @e");
        quietly(&lab, "del-port e");
        stop.store(true, Ordering::Relaxed);
        let sent = sender.join().unwrap();
        let heard = receiver.join().unwrap();
        let numbers: Vec<u32> =
            heard.iter().filter_map(|frame| Some(u32::from_be_bytes(*frame.get(14..)?.first_chunk()?))).collect();
        assert!(numbers.iter().copied().eq(0..sent), "{} of {sent} frames, or not in order", numbers.len());
        sent
    });
    assert!(heard >= count);
    let unchanged = |lines: [String; 2]| lines.map(|line| line.split(" qlen").next().unwrap_or_default().to_owned());
    assert_eq!(unchanged(device(&lab)), unchanged(before));
    assert_eq!(lab.json("list-ports").as_array().unwrap().len(), 3);
}

#[test]
fn an_export_recreates_the_same_switch() {
    needs!("ping");
    let mut lab = Lab::new();
    lab.sh("ip -n @host link add lan type veth peer name lan2 && ip -n @host link set lan2 up && ip -n @host link set lan up")
        .ok();
    lab.write(&format!(
        "{BRIDGE}mtu = 9000\nageing = \"1m\"\ncontrol-frames = \"pass\"\n{}{}",
        port("a", "addresses = [\"10.0.0.1/24\", \"fd00::1/64\"]\nmac = \"02:00:00:00:00:0a\"\n"),
        port("b", "kind = \"veth\"\noffload = false\naddresses = [\"10.0.0.2/24\"]\n"),
    ));
    lab.start();
    quietly(&lab, "add-br br1 --max-macs 77");
    quietly(&lab, "add-port br1 lan --kind link --device lan --trunk 20,10 --native 3");
    quietly(&lab, "add-port br1 c --netns @c --ifname web0 --vlan 10 --guard on --broadcast-limit 50 --send-rate 1500kbit");
    let scene = |lab: &Lab| {
        let (mut bridges, mut ports, netns, links) = picture(lab);
        for row in bridges.as_array_mut().unwrap().iter_mut().chain(ports.as_array_mut().unwrap()) {
            row["origin"] = Value::Null;
            // A station that was given no address has one of this state directory's.
            row["mac"] = if row["name"] == "a" { row["mac"].clone() } else { Value::Null };
        }
        let names: Vec<String> = links.lines().map(|line| line.split(' ').next_back().unwrap_or_default().to_owned()).collect();
        (bridges, ports, netns, BTreeSet::from_iter(names))
    };
    let (before, exported) = (scene(&lab), lab.ctl("export").ok());
    assert_eq!(lab.json("export")["toml"].as_str(), Some(&*exported));
    assert!(lab.stop().success());
    std::fs::remove_dir_all(lab.path("state")).unwrap();
    std::fs::write(lab.file(), &exported).unwrap();
    assert_eq!(lab.start_refused(&["--check"]).code, Some(0));
    let said = lab.log().len();
    lab.start();
    assert_eq!(scene(&lab), before);
    assert_eq!(lab.ctl("export").ok(), exported);
    assert!(ping(&lab, "a", "10.0.0.2"));
    assert_eq!(&lab.log()[said..], "", "nothing to say");
}

#[test]
fn readiness_is_told_to_systemd() {
    needs!();
    let mut lab = Lab::new();
    lab.write(&format!("{BRIDGE}{}", port("a", "")));
    let path = lab.path("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let line =
        format!("env NOTIFY_SOCKET={} {} --config {}", path.display(), program("vswitchd").display(), lab.file().display());
    lab.spawn_in("host", &line);
    let mut text = [0; 100];
    let length = socket.recv(&mut text).unwrap();
    assert_eq!(String::from_utf8_lossy(&text[..length]).trim(), "READY=1");
    assert_eq!(lab.json("list-ports")[0]["state"], "up");
    lab.ctl("shutdown").ok();
    lab.until("it is gone", |lab| !lab.path("control.sock").exists());
}

#[test]
fn the_programs_explain_themselves() {
    let run = |program_name: &str, words: &[&str]| {
        let output = std::process::Command::new(program(program_name)).args(words).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    for (name, words) in [("vswitchd", &["--config"][..]), ("vsctl", &["add-port", "capture", "fdb", "export"])] {
        let (code, text, _) = run(name, &["--version"]);
        assert_eq!((code, text.starts_with(name)), (Some(0), true), "{text}");
        let (code, text, _) = run(name, &["--help"]);
        assert!(code == Some(0) && words.iter().all(|word| text.contains(word)), "{text}");
    }
    for (shell, word) in [("bash", "complete"), ("zsh", "#compdef"), ("fish", "complete")] {
        let (code, text, _) = run("vsctl", &["completions", shell]);
        assert!(code == Some(0) && text.contains(word), "{shell}: {text}");
        // What the script has vsctl asked at Tab.
        let mut vsctl = std::process::Command::new(program("vsctl"));
        vsctl.env("VSCTL_COMPLETE", shell).env("_CLAP_COMPLETE_INDEX", "1").args(["--", "vsctl", "add-"]);
        let text = String::from_utf8(vsctl.output().unwrap().stdout).unwrap();
        assert!(text.contains("add-port"), "{shell}: {text}");
    }
    assert_eq!(run("vsctl", &["completions", "cmd"]).0, Some(2));
    let (code, stdout, stderr) = run("vswitchd", &[]);
    assert_eq!((code, &*stdout), (Some(2), ""), "{stderr}");
    // Nobody is there.
    let (code, stdout, stderr) = run("vsctl", &["--control", "/nowhere/control.sock", "show"]);
    assert_eq!((code, &*stdout, stderr.lines().count()), (Some(1), "", 1), "{stderr}");
    assert!(stderr.contains("no vswitchd answers at /nowhere/control.sock") && stderr.contains("--config"), "{stderr}");
}

#[test]
fn the_socket_is_for_its_group_and_the_state_for_its_owner() {
    needs!();
    let mut lab = Lab::with(BRIDGE);
    let mode = |name: &str| std::fs::metadata(lab.path(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("control.sock"), mode("state"), mode("state/lock")), (0o660, 0o700, 0o600));
    assert_eq!(mode("control.sock.takeover"), 0o600);
    quietly(&lab, "add-br br1");
    assert_eq!(mode("state/state.json"), 0o600);
    // After a kill, somebody who connects is told at once that nobody is there.
    lab.kill();
    refused(lab.ctl("show"), &["no vswitchd answers"]);
}

#[test]
fn a_change_is_written_down_by_one_write_also_what_is_made_for_it() {
    needs!();
    let lab = Lab::with(BRIDGE);
    let read = |name: &str| std::fs::read_to_string(lab.path(&format!("state/{name}"))).unwrap();
    quietly(&lab, "add-port br0 first --netns @first");
    let changes = [
        "add-port br0 second --netns @second --address 10.0.0.2/24",
        "set-port second --kind veth",
        "add-br br2",
        "add-port br0 third --netns @third",
        // With these, their devices and namespaces go.
        "del-port first",
        "del-port third",
        "del-br br2",
    ];
    for change in changes {
        let before = read("state.json");
        quietly(&lab, change);
        assert_ne!(read("state.json"), before, "{change}");
        assert_eq!(read("state.json.old"), before, "{change}: nothing was written between");
    }
    assert_eq!(lab.netns(), ["host", "second"]);
    // What could not be made is not written down either.
    let before = read("state.json");
    refused(lab.ctl("add-port br0 third --kind link --device nothing0 --netns @second"), &["nothing0"]);
    assert_eq!(read("state.json"), before);
}

#[test]
fn a_vswitchd_that_is_stopped_is_not_waited_for_without_end() {
    needs!();
    let lab = Lab::with(BRIDGE);
    lab.signal(libc::SIGSTOP);
    for command in ["show", "capture --count 1", "add-br later"] {
        refused(lab.ctl(&format!("--timeout 1 {command}")), &["has not answered for 1 s, and may still do", "--timeout"]);
    }
    lab.signal(libc::SIGCONT);
    lab.until("it goes on where it was", |lab| lab.ctl("list-br").ok().contains("later"));
    // A capture's end is asked for by the first signal, and not waited for after the second.
    let mut capture = lab.ctl_command().args(["capture", "-w", "/dev/null"]).spawn().unwrap();
    lab.until("it captures", |lab| lab.ctl("show").ok().contains("1 capture running"));
    lab.signal(libc::SIGSTOP);
    while capture.try_wait().unwrap().is_none() {
        // SAFETY: sends a signal to a child that was not waited for.
        assert_eq!(unsafe { libc::kill(capture.id().cast_signed(), libc::SIGINT) }, 0);
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    assert_eq!(capture.wait().unwrap().code(), Some(1));
    lab.signal(libc::SIGCONT);
}

#[test]
fn many_vsctl_at_once_get_one_answer_each() {
    needs!();
    let lab = Lab::with(BRIDGE);
    std::thread::scope(|scope| {
        for thread in 0..6 {
            let lab = &lab;
            scope.spawn(move || {
                for round in 0..8 {
                    quietly(lab, &format!("add-port br0 p{thread} --kind {}", ["tap", "veth"][round % 2]));
                    assert_eq!(lab.json(&format!("stats p{thread}"))[0]["port"], format!("p{thread}"));
                    quietly(lab, &format!("del-port p{thread}"));
                }
            });
        }
    });
    // Of several that want the same name, one gets it.
    let outcomes: Vec<Outcome> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..6).map(|_| scope.spawn(|| lab.ctl("add-port br0 same --netns @same"))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(outcomes.iter().filter(|outcome| outcome.code == Some(0)).count(), 1);
    outcomes.into_iter().filter(|outcome| outcome.code != Some(0)).for_each(|outcome| refused(outcome, &["exists already"]));
    quietly(&lab, "del-port same");
    assert_eq!(lab.netns(), ["host"]);
    assert_eq!(lab.sh("ip -n @host -br link | wc -l").ok(), "1\n");
}

#[test]
fn a_change_that_cannot_be_kept_is_not_made() {
    needs!();
    let lab = Lab::with(&format!("{BRIDGE}{}", port("a", "")));
    let before = picture(&lab);
    // Not even root can write a file over a directory.
    std::fs::create_dir(lab.path("state/state.json.new")).unwrap();
    for words in ["add-br br1", "add-port br0 b --netns @b", "set-port a --vlan 3", "del-port a"] {
        refused(lab.ctl(words), &["state.json", "`state-dir`"]);
        let now = picture(&lab);
        assert_eq!((now.0, now.1, now.2), (before.0.clone(), before.1.clone(), before.2.clone()), "{words}");
    }
    std::fs::remove_dir(lab.path("state/state.json.new")).unwrap();
    quietly(&lab, "set-port a --vlan 3");
}

#[test]
fn nonsense_on_the_socket_is_answered_and_forgotten() {
    needs!("curl");
    let lab = Lab::with(BRIDGE);
    let socket = lab.path("control.sock").display().to_string();
    let ask = |what: &str| lab.sh(&format!("curl -s -m 20 --unix-socket {socket} -o - -w ' %{{http_code}}' {what}")).stdout;
    let url = "http://vswitch/v1/request";
    for (what, status) in [
        (format!("-d '\"show\"' {url}"), "200"),
        (format!("-d '' {url}"), "400"),
        (format!("-d '{{' {url}"), "400"),
        (format!("-d '\"dance\"' {url}"), "400"),
        (format!("-d '{{\"add_port\":{{\"name\":\"x\",\"bridge\":\"br0\",\"colour\":1}}}}' {url}"), "400"),
        (format!("-d '{{\"delete_port\":\"x\"}}' {url}"), "422"),
        (format!("-X GET {url}"), "405"),
        ("http://vswitch/".to_owned(), "404"),
        ("-d '{\"filter\":[[6,0,0]]}' http://vswitch/v1/capture".to_owned(), "400"),
        ("-d '{\"ports\":[],\"filter\":{\"code\":[[255,0,0,0]],\"tunnels\":[]}}' http://vswitch/v1/capture".to_owned(), "422"),
    ] {
        let answer = ask(&what);
        assert!(answer.ends_with(status), "{what}: {answer}");
        assert!(status == "200" || status == "405" || answer.contains("\"error\""), "{what}: {answer}");
    }
    // Too long, cut off, not HTTP, and connections that say nothing.
    lab.sh(&format!("head -c 3000000 /dev/zero | curl -s -m 20 --unix-socket {socket} -T - -X POST {url}"));
    lab.sh(&format!(
        "printf 'POST /v1/request HTTP/1.1\\r\\nhost: x\\r\\ncontent-length: 100\\r\\n\\r\\n{{' | socat -t0 - UNIX:{socket}"
    ));
    lab.sh(&format!("head -c 100000 /dev/urandom | socat -t0 - UNIX:{socket}"));
    let silent: Vec<_> = (0..200).map(|_| std::os::unix::net::UnixStream::connect(&socket).unwrap()).collect();
    quietly(&lab, "add-br br1");
    drop(silent);
    assert_eq!(lab.json("list-br").as_array().unwrap().len(), 2);
}
