//! The switch tells the truth about its devices: what `show`, the lists, JSON and the log say after something has happened to one, how soon,
//! and what a reload does about it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "what fails here fails its test")]

use std::time::{Duration, Instant};

use vswitch_tests::{BROADCAST, Lab, Wire, frame, mac, needs, ping};

/// How soon a state is true.
const SOON: Duration = Duration::from_secs(1);

/// What `vsctl list-ports` or `list-uplinks` says about one.
fn state(lab: &Lab, name: &str) -> String {
    let all = ["list-ports", "list-uplinks"].map(|list| lab.json(list));
    let rows = all.iter().flat_map(|list| list.as_array().unwrap());
    let row = rows.clone().find(|row| row["name"] == *name).unwrap_or_else(|| panic!("no {name}"));
    row["state"].as_str().unwrap_or_else(|| panic!("no word or sentence: {row}")).to_owned()
}

/// Does something to a device and waits until its port is said to be so: by whoever asks no later than a second after that, in the
/// lists, in `show`, and in the log with a line that it did not have before.
#[track_caller]
fn becomes(lab: &Lab, line: &str, name: &str, expected: &str) {
    let before = lab.log().len();
    lab.sh(line).ok();
    let done = Instant::now();
    loop {
        let asked = done.elapsed();
        let said = state(lab, name);
        if said == expected {
            break;
        }
        assert!(asked < SOON, "{line}: {name} is said to be {said:?} {asked:?} later instead of {expected:?}: {}", lab.log());
        std::thread::sleep(Duration::from_millis(20));
    }
    let shown = lab.ctl("show").ok();
    let words = [format!("  {name}: {expected}, "), format!("uplink {name}: {expected}, ")];
    assert!(words.iter().any(|words| shown.contains(words)), "{expected}: {shown}");
    let logged = match expected {
        "up" => "its link is up",
        "down" => "its link is down",
        "no carrier" => "its link has no carrier",
        gone => gone,
    };
    let is_it = |line: &&str| line.contains(logged) && line.ends_with(name);
    // One line a second for each port.
    lab.until(&format!("the log says that {name}: {logged}"), |lab| lab.log()[before..].lines().any(|line| is_it(&line)));
}

/// A TAP, a veth pair and a link on a bridge, and an uplink; the links' far ends are `lan2` and `wan2`, beside vswitchd.
const FOUR: &str = "[[uplink]]\nname = \"wan\"\nkind = \"link\"\ndevice = \"wan\"\naddress = \"192.0.2.10/24\"\n\
    [[bridge]]\nname = \"br0\"\naddresses = [\"10.0.0.254/24\", \"fd00::254/64\"]\nuplink = \"wan\"\n\
    [[port]]\nname = \"tap\"\nbridge = \"br0\"\nnetns = \"@tap\"\naddresses = [\"10.0.0.1/24\", \"fd00::1/64\"]\n\
    [[port]]\nname = \"veth\"\nbridge = \"br0\"\nkind = \"veth\"\nnetns = \"@veth\"\naddresses = [\"10.0.0.2/24\", \"fd00::2/64\"]\n\
    [[port]]\nname = \"lan\"\nbridge = \"br0\"\nkind = \"link\"\ndevice = \"lan\"\n";

const WIRES: &str = "ip -n @host link add lan type veth peer name eth0 netns @lan && ip -n @lan link set eth0 up && \
    ip -n @lan addr add 10.0.0.3/24 dev eth0 && \
    ip -n @host link add wan type veth peer name eth0 netns @wan && ip -n @wan link set eth0 up && \
    ip -n @wan addr add 192.0.2.1/24 dev eth0 && ip -n @host link set lan up && ip -n @host link set wan up";

fn four() -> Lab {
    let mut lab = Lab::new();
    for name in ["tap", "veth", "lan", "wan"] {
        lab.add_netns(name);
    }
    lab.sh(WIRES).ok();
    lab.write(FOUR);
    lab.start();
    for name in ["tap", "veth", "lan", "wan"] {
        assert_eq!(state(&lab, name), "up", "{name}");
    }
    lab
}

#[test]
fn a_device_that_is_set_down_and_up_again_is_said_to_be_within_a_second() {
    needs!("ping");
    let lab = four();
    for (name, device) in [
        ("tap", "-n @tap link set eth0"),
        ("veth", "-n @veth link set eth0"),
        ("veth", "-n @host link set vsw-veth"),
        ("lan", "-n @host link set lan"),
        ("wan", "-n @host link set wan"),
    ] {
        becomes(&lab, &format!("ip {device} down"), name, "down");
        let reloaded = lab.ctl("reload");
        assert!(reloaded.stderr.contains(&format!("\"{name}\" is down")), "{reloaded:?}");
        assert_eq!(state(&lab, name), "down", "who set it down had a reason");
        becomes(&lab, &format!("ip {device} up"), name, "up");
    }
    assert!(ping(&lab, "tap", "10.0.0.2") && ping(&lab, "tap", "10.0.0.3"));
}

#[test]
fn a_device_without_carrier_is_said_to_be_within_a_second() {
    needs!("ping");
    let lab = four();
    for (name, device, lost, found) in [
        ("tap", "-n @tap link set eth0", "carrier off", "carrier on"),
        ("lan", "-n @lan link set eth0", "down", "up"),
        ("wan", "-n @wan link set eth0", "down", "up"),
    ] {
        becomes(&lab, &format!("ip {device} {lost}"), name, "no carrier");
        let reloaded = lab.ctl("reload");
        assert!(reloaded.stderr.contains(&format!("\"{name}\" has no carrier")), "{reloaded:?}");
        becomes(&lab, &format!("ip {device} {found}"), name, "up");
    }
    assert!(ping(&lab, "tap", "10.0.0.3"));
    // What a bridge of the kernel's says as it lets a port go is no farewell.
    lab.sh("ip -n @host link add k type bridge && ip -n @host link set lan master k && ip -n @host link set lan nomaster").ok();
    assert_eq!(state(&lab, "lan"), "up");
}

#[test]
fn a_deleted_device_is_said_to_be_gone_within_a_second_and_a_reload_makes_it_again() {
    needs!("ping");
    let lab = four();
    for (name, line) in [("tap", "ip -n @tap link del eth0"), ("veth", "ip -n @veth link del eth0")] {
        becomes(&lab, line, name, "its device is gone");
        lab.ctl("reload").ok();
        assert_eq!(state(&lab, name), "up");
    }
    lab.until("they are back", |lab| ping(lab, "tap", "10.0.0.2"));
}

#[test]
fn somebody_elses_interface_is_taken_again_as_soon_as_it_is_back() {
    needs!("ping");
    let lab = four();
    assert!(ping(&lab, "lan", "10.0.0.1"));
    assert!(ping(&lab, "tap", "192.0.2.1"));
    let frames = |lab: &Lab, name: &str| lab.json(&format!("stats {name}"))[0]["rx_frames"].as_u64().unwrap();
    let before = [frames(&lab, "lan"), frames(&lab, "wan")];
    becomes(&lab, "ip -n @host link del lan", "lan", "its device is gone");
    becomes(&lab, "ip -n @host link del wan", "wan", "its device is gone");
    let refused = lab.ctl("reload").refused();
    assert!(refused.contains("no interface"), "{refused}");
    assert!([frames(&lab, "lan"), frames(&lab, "wan")] >= before, "counters go on");
    lab.sh(WIRES).ok();
    for name in ["lan", "wan"] {
        lab.until("it is taken again", |lab| state(lab, name) == "up");
        assert!(lab.log().lines().any(|line| line.contains("its interface is back") && line.ends_with(name)));
    }
    assert!([frames(&lab, "lan"), frames(&lab, "wan")] >= before, "counters go on");
    // Neighbours are asked for again.
    lab.until("frames pass", |lab| ping(lab, "lan", "10.0.0.1") && ping(lab, "tap", "192.0.2.1"));
}

#[test]
fn a_namespace_that_is_deleted_or_made_again_leaves_no_ghost() {
    needs!("ping");
    let mut lab = four();
    assert!(ping(&lab, "veth", "10.0.0.1"));
    // Programs that run there keep the namespace, and its device, whatever its name.
    lab.spawn_in("tap", "sleep 1000");
    for again in ["", " && ip netns add @tap"] {
        becomes(&lab, &format!("ip netns del @tap{again}"), "tap", "its namespace is gone");
        assert!(!ping(&lab, "veth", "10.0.0.1"), "a ghost answers");
        assert_eq!(lab.ctl("reload").stderr, "");
        assert_eq!(state(&lab, "tap"), "up");
        lab.until("the new one answers", |lab| ping(lab, "veth", "10.0.0.1"));
        assert!(ping(&lab, "tap", "10.0.0.2"), "it is in the namespace that has the name now");
    }
    lab.spawn_in("veth", "sleep 1000");
    becomes(&lab, "ip netns del @veth && ip netns add @veth", "veth", "its namespace is gone");
    assert!(!ping(&lab, "tap", "10.0.0.2"), "a ghost answers");
    lab.ctl("reload").ok();
    lab.until("the new one answers", |lab| ping(lab, "tap", "10.0.0.2"));
    assert!(lab.stop().success());
    assert_eq!(lab.netns(), ["host", "lan", "tap", "veth", "wan"], "what the user made again is the user's");
}

#[test]
fn the_end_of_a_process_ends_the_port_in_its_namespace() {
    needs!("ping", "unshare");
    let mut lab = Lab::new();
    lab.add_netns("b");
    let pid = lab.spawn_in("host", "unshare -n sleep 1000");
    lab.until("it has a namespace", |lab| {
        let net = |pid: u32| std::fs::read_link(format!("/proc/{pid}/ns/net")).unwrap();
        net(pid) != std::fs::read_link(lab.named("/proc/self/ns/net")).unwrap()
            && lab.run_in("host", "readlink /proc/self/ns/net").ok().trim() != net(pid).to_str().unwrap()
    });
    lab.write(&format!(
        "[[bridge]]\nname = \"br0\"\n\
         [[port]]\nname = \"a\"\nbridge = \"br0\"\nnetns = \"pid:{pid}\"\naddresses = [\"10.0.0.1/24\"]\n\
         [[port]]\nname = \"b\"\nbridge = \"br0\"\nnetns = \"@b\"\naddresses = [\"10.0.0.2/24\"]\n"
    ));
    lab.start();
    lab.until("it answers", |lab| ping(lab, "b", "10.0.0.1"));
    becomes(&lab, &format!("kill {pid}"), "a", "its namespace is gone");
    let refused = lab.ctl("reload").refused();
    assert!(refused.contains("there is no such process"), "{refused}");
    assert!(lab.stop().success());
}

#[test]
fn addresses_and_routes_that_a_station_lost_come_back_at_a_reload() {
    needs!();
    let lab = four();
    for name in ["tap", "veth"] {
        let addresses = |lab: &Lab| {
            let all = lab
                .sh(&format!(
                    "ip -n @{name} -o addr show dev eth0 scope global && ip -n @{name} route && ip -n @{name} -6 route"
                ))
                .ok();
            let words = ["10.0.0.", "fd00::", "default via 10.0.0.254", "default via f"];
            words.map(|word| all.contains(word))
        };
        assert_eq!(addresses(&lab), [true; 4], "{name}");
        becomes(&lab, &format!("ip -n @{name} link set eth0 down"), name, "down");
        becomes(&lab, &format!("ip -n @{name} link set eth0 up"), name, "up");
        assert_ne!(addresses(&lab), [true; 4], "{name}: the kernel takes some of them away");
        assert_eq!(lab.ctl("reload").stderr, "");
        assert_eq!(addresses(&lab), [true; 4], "{name}");
        lab.sh(&format!("ip -n @{name} addr flush dev eth0 scope global")).ok();
        lab.ctl("reload").ok();
        assert_eq!(addresses(&lab), [true; 4], "{name}");
    }
}

#[test]
fn a_mac_address_that_moves_to_and_fro_is_counted_shown_and_logged_with_both_ports() {
    needs!();
    let ports = ["l1", "l2"].map(|name| format!("[[port]]\nname = \"{name}\"\nbridge = \"br0\"\nnetns = \"@{name}\"\n"));
    let lab = Lab::with(&format!("[[bridge]]\nname = \"br0\"\n{}", ports.concat()));
    let wires = ["l1", "l2"].map(|name| Wire::open(&lab, name));
    let same = frame(BROADCAST, mac(7), &[0x88, 0xb6], b"round and round");
    wires[0].send(&same);
    assert_eq!(lab.json("show")["bridges"][0]["mac_moves"]["count"], 0);
    let begun = Instant::now();
    let logged =
        |lab: &Lab| lab.log().lines().any(|line| line.contains("moves between l") && line.contains("times a second: a loop?"));
    while !logged(&lab) {
        assert!(begun.elapsed() < 6 * SOON, "{}", lab.log());
        wires.iter().for_each(|wire| wire.send(&same));
        std::thread::sleep(Duration::from_millis(10));
    }
    let moves = &lab.json("list-br")[0]["mac_moves"];
    assert!(moves["count"].as_u64().unwrap() > 3, "{moves}");
    let mut ports = ["from", "to"].map(|key| moves["last"][key].as_str().unwrap());
    ports.sort_unstable();
    assert_eq!(ports, ["l1", "l2"]);
    assert_eq!(moves["last"]["mac"], "02:54:00:00:00:07");
    let shown = lab.ctl("show").ok();
    assert!(shown.contains("MAC moves, the last") && shown.contains("02:54:00:00:00:07 between l"), "{shown}");
    let lines = lab.log().lines().filter(|line| line.contains("a loop?")).count();
    assert!(lines <= 2, "{}", lab.log());
}

#[test]
fn a_peer_of_a_tunnel_is_up_only_if_it_is_heard() {
    needs!("ping");
    let mut lab = Lab::new();
    for name in ["a", "far"] {
        // Without IPv6 they say nothing of their own accord.
        lab.add_netns(name);
        lab.run_in(name, "for of in all default; do echo 1 > /proc/sys/net/ipv6/conf/$of/disable_ipv6; done").ok();
    }
    lab.sh("ip -n @host link add u0 type veth peer name eth0 netns @far && ip -n @host addr add 192.0.2.1/24 dev u0 && \
         ip -n @host link set u0 up && ip -n @far link set eth0 up && ip -n @far addr add 192.0.2.2/24 dev eth0 && \
         ip -n @far link add vx type vxlan id 7 dstport 4789 local 192.0.2.2 remote 192.0.2.1 && ip -n @far link set vx up && \
         ip -n @far addr add 10.0.0.9/24 dev vx")
        .ok();
    lab.write(
        "[[bridge]]\nname = \"br0\"\n[[port]]\nname = \"a\"\nbridge = \"br0\"\nnetns = \"@a\"\naddresses = [\"10.0.0.1/24\"]\n\
         [[vxlan]]\nname = \"vx0\"\nbridge = \"br0\"\nvni = 7\nlocal = \"192.0.2.1\"\npeers = [\"192.0.2.2\", \"192.0.2.9\", \"198.51.100.1\"]\n",
    );
    lab.start();
    let peers = |lab: &Lab| -> Vec<String> {
        let all = lab.json("list-vxlan")[0]["remotes"].as_array().unwrap().clone();
        all.iter().map(|peer| peer["state"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(peers(&lab)[0], "never heard");
    assert_eq!(lab.json("list-vxlan")[0]["state"], "up", "nobody was asked for anything yet");
    lab.spawn_in("a", "ping -i 0.3 10.0.0.9");
    lab.until("the one that is there is up, and the others say why not", |lab| {
        // Floods go to all of them.
        lab.run_in("a", "ip neigh flush dev eth0").ok();
        peers(lab) == ["up", "no route to host", "network is unreachable"]
    });
    let there = &lab.json("list-vxlan")[0]["remotes"][0];
    assert!(["rx_frames", "tx_frames"].iter().all(|key| there[key].as_u64().unwrap() > 0), "{there}");
    assert!(there["heard_seconds"].as_u64().unwrap() < 5 && there["last_error"].is_null(), "{there}");
    assert_eq!(lab.json("list-vxlan")[0]["state"], "up");
    let shown = lab.ctl("show").ok();
    assert!(shown.contains("192.0.2.2: up, heard ") && shown.contains("192.0.2.9: no route to host, 0 frames in, "), "{shown}");
    lab.until("the log says so", |lab| lab.log().contains("peer 192.0.2.9: no route to host"));
    assert!(lab.ctl("reload").stderr.contains("vxlan \"vx0\": peer 192.0.2.9: no route to host"));
    assert!(ping(&lab, "a", "10.0.0.9"), "what comes back about one peer costs another nothing");
    lab.run_in("far", "ip route add blackhole 192.0.2.1").ok();
    lab.until("it is silent", |lab| peers(lab)[0] == "silent" && lab.log().contains("peer 192.0.2.2: silent"));
    lab.run_in("far", "ip route del blackhole 192.0.2.1").ok();
    lab.until("it is heard again", |lab| peers(lab)[0] == "up" && lab.log().contains("peer 192.0.2.2 is heard again"));
}

#[test]
fn what_is_most_likely_a_mistake_is_said_by_check_start_change_and_show() {
    needs!();
    let mut lab = Lab::new();
    lab.write(
        "[[bridge]]\nname = \"br0\"\naddresses = [\"10.0.0.254/24\"]\n\
         [[port]]\nname = \"a\"\nbridge = \"br0\"\nnetns = \"@a\"\nmac = \"02:00:00:00:00:01\"\naddresses = [\"10.0.0.1/24\"]\n\
         [[port]]\nname = \"b\"\nbridge = \"br0\"\nnetns = \"@b\"\nmac = \"02:00:00:00:00:01\"\naddresses = [\"10.9.0.1/24\"]\n",
    );
    let checked = lab.start_refused(&["--check"]);
    assert_eq!((checked.code, checked.stderr.lines().count()), (Some(0), 2), "{checked:?}");
    for part in [
        ":17:1: warning: port \"b\" has MAC address 02:00:00:00:00:01 as port \"a\" has",
        ":18:1: warning: port \"b\" has address 10.9.0.1/24",
    ] {
        assert!(checked.stderr.contains(part), "{part}: {checked:?}");
    }
    lab.start();
    assert!(lab.log().contains("port \"b\" has MAC address") && lab.log().contains("in none of the subnets"), "{}", lab.log());
    let added = lab.ctl("add-port br0 c --netns @c --address 10.0.0.1/24");
    assert!(added.code == Some(0) && added.stderr.contains("port \"c\" has address 10.0.0.1 as port \"a\" has"), "{added:?}");
    let shown = lab.ctl("show").ok();
    assert!(shown.contains("\nwarnings\n") && shown.contains("port \"c\" has address 10.0.0.1 as port \"a\""), "{shown}");
    lab.ctl("set-port c --address 10.0.0.3/24").ok();
    assert_eq!(lab.json("show")["warnings"].as_array().unwrap().len(), 2);
    // The MAC address of a port that was given none counts too.
    let own = lab.json("list-ports").as_array().unwrap().iter().find(|port| port["name"] == "c").unwrap()["mac"].clone();
    let own = own.as_str().unwrap();
    let added = lab.ctl(&format!("add-port br0 d --netns @d --mac {own} --address 10.0.0.4/24"));
    assert!(added.stderr.contains(&format!("port \"d\" has MAC address {own} as port \"c\" has")), "{added:?}");
}

#[test]
fn two_stations_with_one_ip_address_are_counted_shown_and_logged_with_both_ports() {
    needs!("ping");
    let ports = ["a", "b", "c"].map(|name| format!("[[port]]\nname = \"{name}\"\nbridge = \"br0\"\nnetns = \"@{name}\"\n"));
    let lab = Lab::with(&format!(
        "[[bridge]]\nname = \"br0\"\naddresses = [\"10.0.0.254/24\", \"fd00::fe/64\"]\n{}addresses = [\"10.0.0.3/24\"]\n",
        ports.concat()
    ));
    let conflicts = |lab: &Lab| lab.json("show")["bridges"][0]["address_conflicts"].clone();
    let mac_of =
        |name: &str| lab.run_in(name, "ip -o link show eth0 | grep -o 'ether [^ ]*' | cut -c7-").ok().trim().to_owned();
    // Speaks to someone that it has to ask for.
    let speak = |name: &str, from: &str, to: &str| {
        drop(lab.run_in(name, &format!("ip neigh flush all; ping -c 1 -W 1 -I {from} {to}")))
    };
    for name in ["a", "b"] {
        lab.run_in(name, "ip addr add 10.0.0.5/24 dev eth0").ok();
        speak(name, "10.0.0.5", "10.0.0.254");
    }
    assert_eq!(conflicts(&lab)["count"], 0, "it may have moved");
    speak("a", "10.0.0.5", "10.0.0.254");
    lab.until("it has not", |lab| conflicts(lab)["count"].as_u64().unwrap() > 0);
    let last = conflicts(&lab)["last"].clone();
    assert_eq!(
        (&last["address"], &last["claimant"]["port"], &last["holder"]["port"]),
        (&"10.0.0.5".into(), &"a".into(), &"b".into())
    );
    assert_eq!((&last["claimant"]["mac"], &last["holder"]["mac"]), (&mac_of("a").into(), &mac_of("b").into()));
    let line = format!("10.0.0.5 is claimed by {} at b and by {} at a in turn", mac_of("b"), mac_of("a"));
    lab.until("the log says so", |lab| lab.log().contains(&line));
    let shown = lab.ctl("show").ok();
    assert!(shown.contains("1 IP address conflict, the last ") && shown.contains("10.0.0.5 is claimed by "), "{shown}");

    // IPv6 stations ask first, and whoever has the address defends it.
    lab.run_in("a", "ip addr add fd00::5/64 dev eth0 nodad").ok();
    lab.run_in("b", "ip addr add fd00::5/64 dev eth0").ok();
    lab.until("it is defended", |lab| conflicts(lab)["last"]["address"] == "fd00::5");
    // What the gateway has, or the configuration gives to another port, is told at once.
    for (address, holder) in [("10.0.0.254", serde_json::Value::Null), ("10.0.0.3", "c".into())] {
        lab.run_in("b", &format!("ip addr add {address}/24 dev eth0")).ok();
        speak("b", address, "10.0.0.77");
        lab.until("it is claimed twice", |lab| {
            let last = &conflicts(lab)["last"];
            last["address"] == address && last["holder"]["port"] == holder && last["claimant"]["port"] == "b"
        });
    }
    assert_eq!(lab.log().lines().filter(|line| line.contains("is claimed by")).count(), 1, "{}", lab.log());
}

#[test]
fn a_pool_of_addresses_that_is_empty_says_so_in_show_and_once_in_the_log() {
    needs!("busybox");
    let ports = ["a", "b"].map(|name| format!("[[port]]\nname = \"{name}\"\nbridge = \"br0\"\nnetns = \"@{name}\"\n"));
    let lab = Lab::with(&format!("[[bridge]]\nname = \"br0\"\naddresses = [\"10.0.0.1/30\"]\ndhcp = true\n{}", ports.concat()));
    let ask = |name: &str| lab.run_in(name, "busybox udhcpc -i eth0 -n -q -f -t 2 -T 1 -A 1 -s /bin/true").code;
    let pool = || lab.json("list-br")[0]["pools"][0].clone();
    assert_eq!(pool(), serde_json::json!({ "subnet": "10.0.0.0/30", "size": 1, "used": 0, "exhausted": 0, "refused": 0 }));
    assert!(!lab.ctl("show").ok().contains("left to give out"));
    assert_eq!(ask("a"), Some(0));
    assert!(lab.ctl("show").ok().contains("no address of 10.0.0.0/30 is left to give out: 1 of 1 are in use\n"));
    assert_ne!(ask("b"), Some(0));
    let (pool, shown) = (pool(), lab.ctl("show br0").ok());
    assert!(pool["used"] == 1 && pool["exhausted"].as_u64().unwrap() > 1, "{pool}");
    assert!(shown.contains("1 of 1 are in use; ") && shown.contains(" requests got none\n"), "{shown}");
    let log = lab.log();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("got no address")).collect();
    assert!(lines.len() == 1 && lines[0].contains("give the bridge a larger subnet"), "{lines:?}");
}

#[test]
fn a_device_that_its_station_calls_otherwise_is_said_to_be_until_a_reload_gives_it_its_name_again() {
    needs!("ping");
    let lab = four();
    let port =
        |name: &str| lab.json("list-ports").as_array().unwrap().iter().find(|port| port["name"] == *name).unwrap().clone();
    let altered = |name: &str| port(name)["altered"].as_str().unwrap_or_default().to_owned();
    // An interface that is a link belongs to somebody else.
    lab.run_in("host", "ip link set lan name lan9").ok();
    for (name, address) in [("tap", "10.0.0.1"), ("veth", "10.0.0.2")] {
        let own = port(name)["mac"].as_str().unwrap().to_owned();
        if lab.run_in(name, "ip link set eth0 name other").code != Some(0) {
            // Linux before 6.2 renames no device that is up, and lets nobody else.
            return;
        }
        lab.run_in(name, "ip link set other address 02:11:11:11:11:11").ok();
        let said = "is called \"other\" and has MAC address 02:11:11:11:11:11 now: a reload makes it again what it was";
        lab.until("it is said", |_| altered(name) == said);
        assert!(lab.ctl("show").ok().contains(&format!("      its device {said}\n")));
        // It is still the port's, and can be changed.
        lab.ctl(&format!("set-port {name} --address {address}/24 --address 10.0.0.77/24")).ok();
        assert!(lab.run_in(name, "ip addr show dev other").ok().contains("10.0.0.77/24"));
        lab.ctl("reload").ok();
        let shown = lab.run_in(name, "ip addr show dev eth0").ok();
        assert!(shown.contains(&own) && shown.contains(address) && !shown.contains("10.0.0.77"), "{own}: {shown}");
        lab.until("nothing is otherwise", |_| altered(name).is_empty());
        assert!(ping(&lab, "lan", address), "{name}");
        // Also what is called otherwise goes with its port.
        lab.run_in(name, "ip link set eth0 name other").ok();
        lab.ctl(&format!("del-port {name}")).ok();
        assert!(lab.run_in(name, "ip link show other").code != Some(0), "{name}");
    }
    assert_eq!((altered("lan").as_str(), state(&lab, "lan").as_str()), ("", "up"));
}

#[test]
fn a_device_that_its_station_calls_otherwise_is_found_after_a_crash_and_by_a_successor() {
    needs!("ping");
    let mut lab = four();
    for is_crash in [true, false] {
        if ["tap", "veth"].iter().any(|name| lab.run_in(name, "ip link set eth0 name other").code != Some(0)) {
            // As above.
            return;
        }
        if is_crash {
            lab.kill();
            lab.start();
        } else {
            lab.take_over().ended();
        }
        for name in ["tap", "veth"] {
            let links = lab.run_in(name, "ip -o link").ok();
            assert!(links.contains(" eth0") && links.lines().count() == 2, "{name}: {links}");
        }
        assert!(ping(&lab, "tap", "10.0.0.2") && ping(&lab, "veth", "10.0.0.1"), "{is_crash}");
    }
}

#[test]
fn a_port_that_is_made_anew_leaves_its_namespace_to_what_runs_there() {
    needs!("ping");
    let station = |name: &str, number: u8| {
        format!("[[port]]\nname = \"{name}\"\nbridge = \"br0\"\nnetns = \"@{name}\"\naddresses = [\"10.0.0.{number}/24\"]\n")
    };
    let lab = Lab::with(&format!("[[bridge]]\nname = \"br0\"\n{}{}", station("a", 1), station("b", 2)));
    let namespace = || lab.run_in("a", "readlink /proc/self/ns/net").ok();
    let before = namespace();
    for change in ["--kind veth", "--ifname lan0", "--kind tap", "--offload off"] {
        lab.ctl(&format!("set-port a {change}")).ok();
        assert_eq!(namespace(), before, "{change}");
        assert!(ping(&lab, "b", "10.0.0.1"), "{change}");
    }
    lab.ctl("set-port a --kind link --device none-such --address none").refused();
    assert_eq!(namespace(), before);
    assert!(ping(&lab, "b", "10.0.0.1"));
    // With the last port it goes, as ever.
    lab.ctl("del-port a").ok();
    assert!(lab.run_in("a", "true").code != Some(0));
}
