//! Many ports, many changes, many addresses.
#![allow(clippy::unwrap_used, clippy::panic, reason = "what fails here fails its test")]

use std::collections::HashSet;
use std::time::Duration;

use vswitch_tests::{BROADCAST, Footprint, Lab, Wire, frame, mac, needs, ping, tcp};

const BRIDGE: &str = "[[bridge]]\nname = \"br0\"\n";

fn port(name: &str, address: &str) -> String {
    format!("[[port]]\nname = \"{name}\"\nbridge = \"br0\"\nnetns = \"@{name}\"\naddresses = [\"{address}/16\"]\n")
}

#[test]
fn two_hundred_stations_all_reach_each_other() {
    needs!("ping");
    let ports: String = (1..=200).map(|number| port(&format!("p{number}"), &format!("10.0.0.{number}"))).collect();
    let mut lab = Lab::with(&format!("{BRIDGE}{ports}"));
    // ARP for all pairs would overflow the kernel's one neighbour table, so the stations speak in bare frames.
    let wires: Vec<Wire> = (1..=200).map(|number| Wire::open(&lab, &format!("p{number}"))).collect();
    let pairs = (0..200).flat_map(|from| (0..200).map(move |to| (from, to)));
    for (number, wire) in (0..).zip(&wires) {
        wire.send(&frame(BROADCAST, mac(number), &[0x88, 0xb6], &[]));
    }
    lab.until("every address is learned", |lab| lab.json("fdb br0").as_array().unwrap().len() >= 400);
    for (from, to) in pairs.filter(|(from, to)| from != to) {
        wires[usize::from(from)].send(&frame(mac(to), mac(from), &[0x88, 0xb6], &[]));
    }
    for (number, wire) in (0..200u16).zip(&wires) {
        // What a station sends last comes behind all that it sent, so the last of those says that all is said.
        (0..200u16).zip(&wires).filter(|(other, _)| *other != number).for_each(|(other, from)| {
            from.send(&frame(mac(number), mac(other), &[0x88, 0xb5], &[]));
        });
        let mut ends = 0;
        let mut heard = wire.heard_until(|frame| {
            ends += usize::from(frame[..6] == mac(number) && frame[12..14] == [0x88, 0xb5]);
            ends == 199
        });
        heard.retain(|frame| frame[12..14] == [0x88, 0xb6] && frame[..6] != BROADCAST);
        let sources: HashSet<&[u8]> =
            heard.iter().filter(|frame| frame[..6] == mac(number)).map(|frame| &frame[6..12]).collect();
        assert_eq!((heard.len(), sources.len()), (199, 199), "station {number} hears one frame of each other, and no other's");
    }
    assert!(ping(&lab, "p1", "10.0.0.200") && ping(&lab, "p200", "10.0.0.1"));
    assert!(lab.stop().success());
    assert_eq!(lab.netns(), ["host"]);
}

#[test]
fn a_thousand_ports_come_and_go_without_a_trace() {
    needs!();
    let lab = Lab::with(BRIDGE);
    let devices = || lab.sh("ip -n @host -br link | wc -l").ok();
    let round = |number: usize| {
        let kind = ["tap", "veth"][number % 2];
        let place = ["", "--netns @x"][number / 2 % 2];
        lab.ctl(&format!("add-port br0 p --kind {kind} {place}")).ok();
        lab.ctl("del-port p").ok();
    };
    // The connection of the last vsctl, and what the kernel closes for the last port, are gone a moment later.
    let quiet = || {
        let counted = (0..10).map(|_| {
            std::thread::sleep(Duration::from_millis(20));
            Footprint::of(&lab)
        });
        counted.min_by_key(|footprint| footprint.descriptors).unwrap()
    };
    (0..100).for_each(round);
    let Footprint { descriptors: fds, memory, .. } = quiet();
    let before = devices();
    (0..1000).for_each(round);
    let Footprint { descriptors: fds_after, memory: memory_after, .. } = quiet();
    assert_eq!(fds_after, fds);
    assert!(memory_after < memory + 4096, "{memory} kB became {memory_after} kB");
    assert_eq!(devices(), before);
    assert_eq!(lab.netns(), ["host"]);
    assert_eq!(lab.json("list-ports"), serde_json::json!([]));
}

#[test]
fn a_port_removed_under_full_load_takes_nothing_else_down() {
    needs!("ping", "iperf3");
    let ports: String =
        ["a", "b", "c", "d"].iter().enumerate().map(|(n, name)| port(name, &format!("10.0.0.{}", n + 1))).collect();
    let mut lab = Lab::with(&format!("{BRIDGE}{ports}"));
    for (server, client, address) in [("b", "a", "10.0.0.2"), ("d", "c", "10.0.0.4")] {
        lab.spawn_in(server, "iperf3 -s");
        lab.until("iperf3 listens", |lab| !lab.run_in(server, "ss -Hltn sport = :5201").ok().is_empty());
        lab.spawn_in(client, &format!("iperf3 -c {address} -t 60"));
    }
    let sent = |lab: &Lab, port: &str| lab.json(&format!("stats {port}"))[0]["tx_bytes"].as_u64().unwrap();
    lab.until("both streams flow", |lab| sent(lab, "b") > 1 << 24 && sent(lab, "d") > 1 << 24);
    // The receiver goes, then a sender: c's frames have no way any more, d's sender is gone.
    lab.ctl("del-port d").ok();
    let before = sent(&lab, "b");
    lab.until("the other stream flows on", |lab| sent(lab, "b") > before + (1 << 24));
    lab.ctl("del-port c").ok();
    let before = sent(&lab, "b");
    lab.until("the other stream flows on", |lab| sent(lab, "b") > before + (1 << 24));
    lab.ctl("add-port br0 d --netns @d --address 10.0.0.4/16").ok();
    assert!(ping(&lab, "a", "10.0.0.4"));
    assert!(lab.stop().success());
}

/// Floods a device with `count` small frames, each from another random address.
const FLOOD: &str = r#"
import os, socket, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
s.bind(("eth0", 0))
for n in range(int(sys.argv[1])):
    source = bytearray(os.urandom(6)); source[0] = source[0] & 0xfc | 2
    while True:
        # A full TAP says so to a sender of raw frames.
        try: s.send(b"\xff" * 6 + bytes(source) + b"\x88\xb5" + bytes(46)); break
        except OSError: pass
"#;

#[test]
fn a_flood_of_addresses_evicts_only_its_own() {
    needs!("ping", "python3", "iperf3");
    let ports: String =
        ["a", "b", "evil"].iter().enumerate().map(|(n, name)| port(name, &format!("10.0.0.{}", n + 1))).collect();
    let mut lab = Lab::with(&format!("{BRIDGE}max-macs = 500\n{ports}"));
    assert!(ping(&lab, "a", "10.0.0.2"));
    let owners = |lab: &Lab| -> Vec<String> {
        lab.json("fdb br0").as_array().unwrap().iter().map(|row| row["port"].as_str().unwrap().to_owned()).collect()
    };
    let Footprint { memory, .. } = Footprint::of(&lab);
    std::fs::write(lab.path("flood.py"), FLOOD).unwrap();
    let script = lab.path("flood.py").display().to_string();
    lab.run_in("evil", &format!("python3 {script} 100000")).ok();
    let after = owners(&lab);
    assert_eq!(after.len(), 500);
    assert!(["a", "b"].iter().all(|station| after.contains(&(*station).to_owned())), "a and b are not forgotten");
    assert!(lab.json("list-br")[0]["evictions"].as_u64().unwrap() > 10_000);
    assert!(Footprint::of(&lab).memory < memory + 4096, "{memory} kB became {} kB", Footprint::of(&lab).memory);
    // What a sends to b is not flooded to the third.
    let received = |lab: &Lab| lab.json("stats evil")[0]["tx_bytes"].as_u64().unwrap();
    let before = received(&lab);
    lab.spawn_in("evil", &format!("python3 {script} 100000000"));
    assert!(tcp(&lab, "a", "b", "10.0.0.2", "-n 64M").bits > 50e6);
    assert!(received(&lab) < before + (1 << 20), "unicast was flooded");
}
