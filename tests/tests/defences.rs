//! What one station can do to the others: rogue DHCP servers, claims to addresses of others, floods; and what must go on beside it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by them")]

use serde_json::Value;
use vswitch_tests::{BROADCAST, Lab, Wire, frame, mac, needs, ping};

const BRIDGE: &str = "
[[bridge]]
name = \"br0\"
addresses = [\"10.10.0.1/24\", \"fd10::1/64\"]
";

fn port(name: &str, rest: &str) -> String {
    format!("[[port]]\nname = \"{name}\"\nbridge = \"br0\"\nnetns = \"@{name}\"\n{rest}\n")
}

fn station(name: &str, number: u32) -> String {
    port(name, &format!("addresses = [\"10.10.0.{number}/24\", \"fd10::{number}/64\"]"))
}

fn drops(lab: &Lab, port: &str, reason: &str) -> u64 {
    lab.json(&format!("stats {port}"))[0]["rx_drops"][reason].as_u64().unwrap()
}

/// A DHCP server in a namespace that gives out 10.10.0.200 to .209, and addresses of fd66::/64.
fn serve_dhcp(lab: &mut Lab, netns: &str) {
    let lease = lab.path(&format!("leases-{netns}")).display().to_string();
    lab.spawn_in(
        netns,
        &format!(
            "dnsmasq -k -p 0 -i eth0 --bind-dynamic -F 10.10.0.200,10.10.0.209,255.255.255.0,1h --dhcp-authoritative --no-ping \
             --dhcp-option=3,10.10.0.66 -F fd66::100,fd66::1ff,64,1h --enable-ra -l {lease} --pid-file"
        ),
    );
    lab.until("dnsmasq listens", |lab| !lab.run_in(netns, "ss -Hlun sport = :67").ok().is_empty());
}

/// Asks once for an address by DHCP and says which server gave which.
fn lease(lab: &Lab, netns: &str) -> Option<String> {
    let script = "#!/bin/sh\\n[ \"$1\" = bound ] && echo \"$ip from $serverid\"";
    let path = lab.path("udhcpc.sh").display().to_string();
    lab.sh(&format!("printf '{script}\\n' > {path} && chmod +x {path}")).ok();
    let said = lab.run_in(netns, &format!("busybox udhcpc -f -n -q -t 4 -T 2 -i eth0 -s {path}"));
    said.stdout.lines().find(|line| line.contains(" from ")).map(str::to_owned)
}

#[test]
fn a_rogue_dhcp_server_is_heard_by_no_station_of_a_bridge_with_dhcp() {
    needs!("dnsmasq", "busybox", "ss");
    let bridge = format!("{BRIDGE}dhcp = true\n");
    let mut lab = Lab::with(&format!("{bridge}{}{}", station("rogue", 66), port("client", "")));
    serve_dhcp(&mut lab, "rogue");
    let given = lease(&lab, "client").unwrap();
    assert!(given.ends_with(" from 10.10.0.1"), "{given}");
    assert!(drops(&lab, "rogue", "rogue_dhcp") > 0, "it did speak");
}

#[test]
fn the_guard_stops_a_rogue_dhcp_server_and_without_it_the_only_server_is_heard() {
    needs!("dnsmasq", "busybox", "ss");
    let bridge = "[[bridge]]\nname = \"br0\"\n";
    let guarded = port("rogue", "addresses = [\"10.10.0.66/24\"]\nguard = true");
    let mut lab = Lab::with(&format!("{bridge}{guarded}{}", port("client", "")));
    serve_dhcp(&mut lab, "rogue");
    assert_eq!(lease(&lab, "client"), None);
    assert!(drops(&lab, "rogue", "guard_dhcp") > 0);
    lab.ctl("set-port rogue --guard off").ok();
    let given = lease(&lab, "client").unwrap();
    assert!(given.ends_with(" from 10.10.0.66"), "{given}");
}

/// Says by ARP, again and again, that an address is the sender's.
fn claim(lab: &Lab, netns: &str, address: &str, to: &str) {
    for way in ["-U", "-A"] {
        lab.run_in(netns, &format!("arping -q -c 2 -w 3 {way} -I eth0 -s {address} {to}"));
    }
}

fn neighbor(lab: &Lab, netns: &str, address: &str) -> String {
    let rows: Value = serde_json::from_str(&lab.run_in(netns, &format!("ip -j neigh show {address}")).ok()).unwrap();
    rows[0]["lladdr"].as_str().unwrap_or("none").to_owned()
}

#[test]
fn no_station_becomes_the_gateway_or_another_station_by_claiming_it() {
    needs!("arping", "ping");
    let lab = Lab::with(&format!("{BRIDGE}{}{}{}", station("victim", 2), station("web", 3), station("thief", 66)));
    for address in ["10.10.0.1", "10.10.0.3", "fd10::1", "fd10::3"] {
        assert!(ping(&lab, "victim", address), "{address}");
    }
    let before =
        [neighbor(&lab, "victim", "10.10.0.1"), neighbor(&lab, "victim", "10.10.0.3"), neighbor(&lab, "victim", "fd10::1")];
    lab.run_in("thief", "ip addr add 10.10.0.1/32 dev eth0 && ip addr add 10.10.0.3/32 dev eth0").ok();
    claim(&lab, "thief", "10.10.0.1", "10.10.0.1");
    claim(&lab, "thief", "10.10.0.3", "10.10.0.3");
    // Without duplicate address detection it advertises what it has; and it asks the victim with that as its source.
    lab.run_in(
        "thief",
        "sysctl -qw net.ipv6.conf.eth0.ndisc_notify=1; ip addr add fd10::1/64 dev eth0 nodad; ip neigh flush all",
    )
    .ok();
    lab.run_in("thief", "ping -6 -c 1 -W 1 -I fd10::1 fd10::2");
    let after =
        [neighbor(&lab, "victim", "10.10.0.1"), neighbor(&lab, "victim", "10.10.0.3"), neighbor(&lab, "victim", "fd10::1")];
    assert_eq!(before, after);
    assert!(drops(&lab, "thief", "spoofed_address") >= 5, "{}", lab.json("stats thief"));
    // The gateway sends what is for the web server to it, and answers as before.
    let known = lab.json("neighbors br0").to_string();
    let thief = lab.run_in("thief", "cat /sys/class/net/eth0/address").ok();
    assert!(!known.contains(thief.trim()) || known.contains("10.10.0.66"), "{known}");
    for address in ["10.10.0.1", "10.10.0.3", "fd10::1"] {
        assert!(ping(&lab, "victim", address), "{address}");
    }
    assert!(ping(&lab, "thief", "10.10.0.2"), "with its own address it is one of them");
}

#[test]
fn an_address_that_a_station_typed_by_hand_is_not_given_to_another() {
    needs!("busybox", "arping");
    // The rest of the subnet is three addresses.
    let bridge = "[[bridge]]\nname = \"br0\"\naddresses = [\"10.10.0.1/29\"]\ndhcp = true\n";
    let file = format!("{bridge}{}{}{}{}", port("typed", ""), port("heard", ""), port("one", ""), station("two", 2));
    let lab = Lab::with(&file);
    // The one says nothing, the other asks for somebody else.
    lab.run_in("typed", "ip link set eth0 up && ip addr add 10.10.0.3/29 dev eth0 && ip addr add 10.10.0.4/29 dev eth0").ok();
    lab.run_in("heard", "ip addr add 10.10.0.5/29 dev eth0").ok();
    lab.run_in("heard", "arping -q -c 1 -w 1 -I eth0 -s 10.10.0.5 10.10.0.77");
    let given = lease(&lab, "one").unwrap();
    assert_eq!(given, "10.10.0.6 from 10.10.0.1");
}

#[test]
fn a_station_with_an_address_of_another_subnet_is_answered_when_it_asks_for_the_gateway() {
    needs!("arping");
    let lab = Lab::with(&format!("{BRIDGE}{}", station("a", 2)));
    lab.run_in("a", "ip addr add 172.16.9.9/32 dev eth0").ok();
    let said = lab.run_in("a", "arping -c 1 -w 2 -I eth0 -s 172.16.9.9 10.10.0.1");
    assert_eq!(said.code, Some(0), "{}", said.stdout);
    assert!(!lab.json("neighbors br0").to_string().contains("172.16.9.9"));
}

#[test]
fn all_that_is_flooded_counts_for_the_limit() {
    needs!("ping");
    let limited = port("a", "addresses = [\"10.10.0.2/24\"]\nbroadcast-limit = 50");
    let lab = Lab::with(&format!("[[bridge]]\nname = \"br0\"\n{limited}{}", station("b", 3)));
    assert!(ping(&lab, "a", "10.10.0.3"));
    // Multicast, then a neighbour that is not there.
    lab.run_in("a", "ping -q -c 500 -l 500 -w 2 -I eth0 224.0.0.1");
    let multicast = drops(&lab, "a", "storm_limit");
    assert!(multicast > 300, "{multicast}");
    lab.run_in("a", "ip neigh replace 10.10.0.77 lladdr 02:00:00:00:00:77 dev eth0").ok();
    lab.run_in("a", "ping -q -c 500 -l 500 -w 2 10.10.0.77");
    assert!(drops(&lab, "a", "storm_limit") > multicast + 300);
    assert!(ping(&lab, "a", "10.10.0.3"), "what goes to one station has no limit");
}

/// Ports `l1` and `l2` of the bridge, whose other ends lie in one namespace.
fn looped() -> String {
    let end = |name: &str| {
        format!("[[port]]\nname = \"{name}\"\nbridge = \"br0\"\nkind = \"veth\"\nnetns = \"@loop\"\nifname = \"{name}\"\n")
    };
    end("l1") + &end("l2")
}

#[test]
fn a_loop_of_two_ports_is_damped_and_named_and_the_others_are_reached() {
    needs!("ping");
    let lab = Lab::with(&format!("[[bridge]]\nname = \"br0\"\n{}{}{}", station("a", 2), station("b", 3), looped()));
    assert!(ping(&lab, "a", "10.10.0.3"));
    // A bridge of the kernel joins the two outside of the switch. It says nothing of its own.
    lab.run_in(
        "loop",
        "for name in all l1 l2; do echo 1 > /proc/sys/net/ipv6/conf/$name/disable_ipv6; done
         ip link add joined type bridge mcast_snooping 0
         ip link set l1 master joined && ip link set l2 master joined && ip link set joined up",
    )
    .ok();
    let wire = Wire::open(&lab, "a");
    let went_round = |lab: &Lab| -> u64 {
        ["l1", "l2"].iter().map(|end| lab.json(&format!("stats {end}"))[0]["rx_frames"].as_u64().unwrap()).sum()
    };
    // As long as it takes the two ends to forward.
    lab.until("a frame went round", |lab| {
        wire.send(&frame(BROADCAST, mac(1), &[0x88, 0xb6], &[]));
        went_round(lab) > 0
    });
    (0..100).for_each(|_| wire.send(&frame(BROADCAST, mac(1), &[0x88, 0xb6], &[])));
    lab.until("the loop is named", |lab| {
        let log = lab.log();
        log.contains("moves between") && log.contains("a loop?")
    });
    let before = went_round(&lab);
    assert!(ping(&lab, "b", "10.10.0.2") && ping(&lab, "a", "fd10::3"), "the stations are where they were");
    let round = went_round(&lab) - before;
    assert!(round < 1000, "{round} frames went round while others spoke a few");
    assert!(drops(&lab, "l1", "mac_move") + drops(&lab, "l2", "mac_move") > 0);
}
