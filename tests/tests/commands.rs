//! The commands of every day, as they are typed: what they change, and what stations see of it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by them")]

use serde_json::{Value, json};
use vswitch_tests::{BROADCAST, Lab, Wire, frame, mac, needs, program};

const BRIDGE: &str = "[[bridge]]\nname = \"br0\"\naddresses = [\"10.10.0.1/24\", \"fd10::1/64\"]\n";

fn station(name: &str, number: u32, rest: &str) -> String {
    format!(
        "[[port]]\nname = \"{name}\"\nbridge = \"br0\"\nnetns = \"@{name}\"\naddresses = [\"10.10.0.{number}/24\", \"fd10::{number}/64\"]\n{rest}"
    )
}

fn two(rest: &str) -> String {
    format!("{BRIDGE}{}{}", station("a", 2, rest), station("b", 3, ""))
}

#[track_caller]
fn quietly(lab: &Lab, words: &str) {
    assert_eq!(lab.ctl(words).ok(), "", "{words}");
}

fn carrier(lab: &Lab, netns: &str) -> bool {
    lab.run_in(netns, "ip link show eth0").ok().contains("LOWER_UP")
}

fn reaches(lab: &Lab, netns: &str, address: &str) -> bool {
    lab.run_in(netns, &format!("ping -n -c 1 -W 1 {address}")).code == Some(0)
}

/// A MAC address as it is written.
fn shown(number: u16) -> String {
    mac(number).map(|byte| format!("{byte:02x}")).join(":")
}

fn state(lab: &Lab, port: &str) -> String {
    let ports = lab.json("list-ports");
    let row = ports.as_array().unwrap().iter().find(|row| row["name"] == port).unwrap_or_else(|| panic!("{ports}")).clone();
    row["state"].to_string()
}

#[test]
fn an_unplugged_port_has_no_carrier_and_carries_nothing_until_it_is_plugged_in_again() {
    needs!();
    for kind in ["", "kind = \"veth\"\n"] {
        let mut lab = Lab::with(&two(kind));
        assert!(reaches(&lab, "a", "10.10.0.3") && carrier(&lab, "a"));
        quietly(&lab, "set-port a --down");
        lab.until("its station sees it", |lab| !carrier(lab, "a"));
        assert!(!reaches(&lab, "b", "10.10.0.2") && reaches(&lab, "b", "10.10.0.1"));
        assert!(state(&lab, "a").contains("down"), "{}", state(&lab, "a"));
        assert!(lab.ctl("show").ok().contains("set-port a --up"));
        assert!(lab.ctl("export").ok().contains("down = true"));
        quietly(&lab, "set-port a --guard on");
        assert!(!carrier(&lab, "a"), "another change leaves it unplugged");
        quietly(&lab, "set-port a --up --guard off");
        lab.until("its station sees it", |lab| carrier(lab, "a"));
        lab.until("it reaches the other", |lab| reaches(lab, "a", "10.10.0.3"));
        assert!(!lab.ctl("export").ok().contains("down = true"));
        lab.stop();
    }
}

#[test]
fn a_port_stays_unplugged_over_a_restart_and_a_crash() {
    needs!();
    let mut lab = Lab::with(BRIDGE);
    for (name, number, kind) in [("a", 2, "tap"), ("b", 3, "veth"), ("c", 4, "tap")] {
        quietly(&lab, &format!("add-port br0 {name} --netns @{name} --kind {kind} --address 10.10.0.{number}/24"));
    }
    quietly(&lab, "set-port a --down");
    quietly(&lab, "set-port b --down");
    let exported = lab.ctl("export").ok();
    for crash in [false, true] {
        if crash {
            lab.kill()
        } else {
            assert!(lab.stop().success())
        }
        lab.start();
        assert_eq!(lab.ctl("export").ok(), exported);
        assert_eq!([carrier(&lab, "a"), carrier(&lab, "b"), carrier(&lab, "c")], [false, false, true], "crash: {crash}");
    }
    for port in ["a", "b"] {
        quietly(&lab, &format!("set-port {port} --up"));
        lab.until("it is back", |lab| reaches(lab, port, "10.10.0.4"));
    }
}

#[test]
fn a_link_that_is_unplugged_keeps_its_carrier_and_its_frames_are_told() {
    needs!();
    let mut lab = Lab::new();
    lab.add_netns("x");
    lab.sh(
        "ip -n @host link add l0 type veth peer name eth0 netns @x && ip -n @host link set l0 up && ip -n @x link set eth0 up",
    )
    .ok();
    lab.write(
        "[[bridge]]\nname = \"br0\"\n[[port]]\nname = \"l\"\nbridge = \"br0\"\nkind = \"link\"\ndevice = \"l0\"\ndown = true\n",
    );
    lab.start();
    let wire = Wire::open(&lab, "x");
    wire.send(&frame(BROADCAST, mac(1), &[0x88, 0xb6], b"nobody hears"));
    let drops = |lab: &Lab| lab.json("stats l")[0]["rx_drops"]["port_down"].as_u64().unwrap();
    lab.until("it is counted", |lab| drops(lab) >= 1);
    assert!(carrier(&lab, "x"));
    assert!(lab.ctl("stats l").ok().contains("port-down"));
    lab.stop();
}

#[test]
fn a_bridge_changes_while_frames_pass_and_the_change_survives() {
    needs!();
    let mut lab = Lab::with("");
    quietly(&lab, "add-br br0 --address 10.10.0.1/24 --ageing 5m");
    quietly(&lab, "add-port br0 a --netns @a --address 10.10.0.2/24");
    let device = lab.run_in("a", "ip link show eth0").ok();
    quietly(&lab, "set-br br0 --mtu 1400 --max-macs 77 --isolated off --address 10.10.0.1/24 --address fd10::1/64 --dhcp on");
    let check = |lab: &Lab| {
        let bridge = lab.json("show br0")["bridges"][0].clone();
        assert_eq!((&bridge["mtu"], &bridge["max_macs"], &bridge["isolated"]), (&json!(1400), &json!(77), &json!(false)));
        assert_eq!((&bridge["addresses"], &bridge["dhcp"]), (&json!(["10.10.0.1/24", "fd10::1/64"]), &json!(true)));
        assert_eq!(bridge["ageing_seconds"], json!(300), "what was not named stays");
        assert!(lab.run_in("a", "ip link show eth0").ok().contains("mtu 1400"));
        assert!(reaches(lab, "a", "10.10.0.1"));
    };
    check(&lab);
    let index = |text: &str| text.split(':').next().unwrap().to_owned();
    assert_eq!(index(&lab.run_in("a", "ip link show eth0").ok()), index(&device), "it is the same device");
    lab.stop();
    lab.start();
    check(&lab);
    for (words, part) in [
        ("set-br br0 --mtu 9", "MTU 9 of bridge \"br0\" is out of range"),
        ("set-br br0 --uplink wan", "has uplink \"wan\", which does not exist"),
        ("set-br br0 --address 10.10.0.1", "has no prefix length: add it, such as /24"),
        ("set-br br0 --address none", "has `dhcp` but no address"),
        ("set-br br9 --mtu 1500", "br9"),
        ("set-br br0 --address 10.10.0.2/24", "port \"a\" has the address 10.10.0.2 of its bridge's gateway"),
    ] {
        let told = lab.ctl(words).refused();
        assert!(told.contains(part), "{words}: {told}");
        check(&lab);
    }
}

#[test]
fn an_uplink_changes_in_place_and_forwards_that_no_longer_fit_keep_it_from_that() {
    needs!();
    let mut lab = Lab::new();
    lab.sh("ip netns add @out; ip -n @host link add wan type veth peer name o0 netns @out; ip -n @host link set wan up; \
            ip -n @out link set o0 up; ip -n @out addr add 192.0.2.1/24 dev o0")
        .ok();
    lab.write("");
    lab.start();
    quietly(&lab, "add-uplink wan --kind link --device wan --address 192.0.2.10/24 --gateway 192.0.2.1");
    quietly(&lab, "add-br br0 --address 10.10.0.1/24 --uplink wan");
    quietly(&lab, "add-port br0 a --netns @a --address 10.10.0.2/24");
    assert!(reaches(&lab, "a", "192.0.2.1"));
    quietly(&lab, "set-uplink wan --address 192.0.2.20/24");
    assert_eq!(lab.json("list-uplinks")[0]["addresses"], json!(["192.0.2.20/24"]));
    assert_eq!(lab.json("list-uplinks")[0]["gateways"], json!(["192.0.2.1"]), "what was not named stays");
    assert!(reaches(&lab, "a", "192.0.2.1"));
    let neighbors = lab.json("neighbors wan");
    assert!(
        neighbors.as_array().unwrap().iter().any(|row| row["address"] == "192.0.2.1" && row["interface"] == "wan"),
        "{neighbors}"
    );
    let all = lab.ctl("neighbors").ok();
    assert!(all.contains("br0") && all.contains("wan") && all.contains("10.10.0.2"), "{all}");
    quietly(&lab, "add-forward wan tcp/80 10.10.0.2:80 --listen 192.0.2.20");
    let told = lab.ctl("set-uplink wan --address 192.0.2.30/24").refused();
    assert!(told.contains("listens where uplink \"wan\" has no address"), "{told}");
    let told = lab.ctl("set-uplink wan --gateway 198.51.100.1").refused();
    assert!(told.contains("not in the subnet"), "{told}");
    quietly(&lab, "del-forward wan tcp/80 --listen 192.0.2.20");
    quietly(&lab, "set-uplink wan --kind host");
    assert_eq!(lab.json("list-uplinks")[0]["kind"], "host");
    lab.stop();
    lab.start();
    assert_eq!(lab.json("list-uplinks")[0]["kind"], "host");
}

#[test]
fn leases_are_listed_with_whom_they_belong_to_and_how_long() {
    needs!("busybox");
    let file = format!(
        "{BRIDGE}dhcp = true\n[[bridge]]\nname = \"br1\"\naddresses = [\"10.11.0.1/24\"]\n[[port]]\nname = \"c\"\nbridge = \"br0\"\nnetns = \"@c\"\n"
    );
    let lab = Lab::with(&file);
    assert_eq!(lab.json("leases"), json!([]));
    lab.run_in("c", "busybox udhcpc -i eth0 -n -q -f -s /bin/true").ok();
    let leases = lab.json("leases br0");
    let lease = &leases[0];
    assert_eq!((&lease["bridge"], &lease["name"], &lease["state"]), (&json!("br0"), &json!("c"), &json!("bound")), "{leases}");
    assert!((3500..=3600).contains(&lease["seconds_left"].as_u64().unwrap()), "{leases}");
    let mac = lab.run_in("c", "ip -o link show eth0 | sed 's,.*link/ether \\([^ ]*\\).*,\\1,'").ok();
    assert_eq!(lease["mac"], json!(mac.trim()));
    let text = lab.ctl("leases").ok();
    assert!(text.contains(lease["address"].as_str().unwrap()) && text.contains("bound"), "{text}");
    assert_eq!(lab.json("leases br1"), json!([]));
    assert!(lab.ctl("leases br9").refused().contains("br9"));
}

#[test]
fn counters_of_several_ports_their_rates_and_what_was_added_since() {
    needs!();
    let mut lab = Lab::with(&two(""));
    assert!(reaches(&lab, "a", "10.10.0.3"));
    let names = |value: &Value| {
        value.as_array().unwrap().iter().map(|row| row["port"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(&lab.json("stats b a")), ["b", "a"]);
    assert_eq!(names(&lab.json("stats")), ["a", "b"]);
    assert!(lab.ctl("stats a nobody").refused().contains("nobody"));

    let before = lab.path("before.json");
    std::fs::write(&before, lab.ctl("--json stats").ok()).unwrap();
    let sent = |lab: &Lab| lab.json("stats a")[0]["rx_frames"].as_u64().unwrap();
    let first = sent(&lab);
    assert!(lab.run_in("a", "ping -n -q -i 0.05 -c 10 10.10.0.3").code == Some(0));
    let added = lab.json(&format!("stats a --since {}", before.display()));
    let count = added[0]["rx_frames"].as_u64().unwrap();
    assert!(count >= 10 && count <= sent(&lab) - first + 5, "{added}");
    std::fs::write(&before, "{}").unwrap();
    assert!(lab.ctl(&format!("stats --since {}", before.display())).refused().contains("holds no counters"));
    assert!(lab.ctl("stats --since /nowhere/x").refused().contains("/nowhere/x"));

    lab.spawn_in("a", "ping -n -q -i 0.05 10.10.0.3");
    let rates = lab.json("stats a --interval 1s");
    let rate = rates[0]["rx_frames_per_second"].as_f64().unwrap();
    assert!(rate > 2.0 && rate < 100.0 && rates[0]["seconds"].as_f64().unwrap() >= 1.0, "{rates}");
    let text = lab.ctl("stats a b --interval 200ms --count 2").ok();
    assert_eq!(text.matches("RX FRAMES/S").count(), 2, "{text}");
}

#[test]
fn reasons_are_spelled_alike_in_text_and_with_underscores_in_json() {
    needs!();
    let lab = Lab::with(&format!(
        "[[bridge]]\nname = \"br0\"\n{}{}",
        station("a", 2, "protected = true\n"),
        station("b", 3, "protected = true\n")
    ));
    let wire = Wire::open(&lab, "a");
    let drops = |lab: &Lab, reason: &str| lab.json("stats a")[0]["rx_drops"][reason].as_u64().unwrap();
    // The station's own stack speaks while `b` is not there yet.
    let (before, alone) = (drops(&lab, "protected"), drops(&lab, "no_destination"));
    wire.send(&frame(BROADCAST, mac(1), &[0x88, 0xb6], b"to the only other, which is protected too"));
    lab.until("it is told", |lab| drops(lab, "protected") > before);
    assert_eq!(drops(&lab, "no_destination"), alone);
    quietly(&lab, "set-port b --vlan 8");
    quietly(&lab, "set-port a --vlan 7");
    wire.send(&frame(BROADCAST, mac(1), &[0x88, 0xb6], b"alone in VLAN 7"));
    lab.until("it is told", |lab| drops(lab, "no_destination") > alone);
    let text = lab.ctl("stats a").ok();
    assert!(text.contains("no-destination") && !text.contains("no_destination"), "{text}");
}

#[test]
fn the_fdb_is_looked_at_and_flushed_by_bridge_port_and_address() {
    needs!();
    let other = "[[bridge]]\nname = \"br1\"\n[[port]]\nname = \"c\"\nbridge = \"br1\"\nnetns = \"@c\"\n";
    let lab = Lab::with(&format!("{}{other}", two("")));
    let wire = Wire::open(&lab, "c");
    let (hears, knows) = (
        |n| wire.send(&frame(BROADCAST, mac(n), &[0x88, 0xb6], b"here")),
        |lab: &Lab, words: &str| lab.json(words).as_array().unwrap().len(),
    );
    (1..=3).for_each(hears);
    assert!(reaches(&lab, "a", "10.10.0.3"));
    lab.until("all are known", |lab| knows(lab, "fdb br1") >= 3 && knows(lab, "fdb br0") >= 2);
    let all = lab.json("fdb");
    let on = |bridge: &str| all.as_array().unwrap().iter().filter(|row| row["bridge"] == bridge).count();
    assert!(on("br0") >= 2 && on("br1") >= 3, "{all}");
    assert!(lab.ctl("fdb").ok().starts_with("BRIDGE") && lab.ctl("fdb br0").ok().starts_with("MAC"));
    assert!(lab.json("fdb --port a").as_array().unwrap().iter().all(|row| row["port"] == "a"));
    assert_eq!(knows(&lab, &format!("fdb --mac {}", shown(2))), 1);
    assert_eq!(knows(&lab, &format!("fdb br0 --mac {}", shown(2))), 0);
    quietly(&lab, &format!("fdb --mac {} --flush", shown(2)));
    assert_eq!((knows(&lab, &format!("fdb --mac {}", shown(2))), knows(&lab, &format!("fdb --mac {}", shown(1)))), (0, 1));
    quietly(&lab, "fdb --port c --flush");
    assert_eq!(knows(&lab, &format!("fdb br1 --mac {}", shown(1))), 0);
    assert!(knows(&lab, "fdb br0") >= 2, "the other bridge's stay");
    assert!(lab.ctl("fdb br0 --port c").refused().contains("port \"c\" is on bridge \"br1\", not on \"br0\""));
    assert!(lab.ctl("fdb --port nobody").refused().contains("nobody"));
}

#[test]
fn one_bridge_is_shown_with_what_is_on_it() {
    needs!();
    let lab = Lab::with(&format!("{}[[bridge]]\nname = \"br1\"\n[[port]]\nname = \"c\"\nbridge = \"br1\"\n", two("")));
    let text = lab.ctl("show br1").ok();
    assert!(text.contains("bridge br1") && text.contains("  c: up") && !text.contains("br0"), "{text}");
    let ports = lab.json("show br0")["ports"].clone();
    assert_eq!(ports.as_array().unwrap().len(), 2, "{ports}");
    assert!(lab.ctl("show br9").refused().contains("the bridges are br0, br1"));
}

/// Behind router `r` (10.10.0.5) of br0 is 10.9.0.0/16, and fd09::/64, with a host `h`.
fn with_router(lab: &Lab) {
    lab.sh("ip netns add @h; ip -n @r link add r1 type veth peer name eth0 netns @h; ip -n @r link set r1 up; ip -n @h link set eth0 up; \
            ip -n @r addr add 10.9.0.1/16 dev r1; ip -n @r addr add fd09::1/64 dev r1 nodad; \
            ip -n @h addr add 10.9.0.2/16 dev eth0; ip -n @h addr add fd09::2/64 dev eth0 nodad; \
            ip -n @h route add default via 10.9.0.1; ip -n @h route add default via fd09::1").ok();
    lab.run_in("r", "echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding; \
                     for f in /proc/sys/net/ipv4/conf/*/rp_filter /proc/sys/net/ipv4/conf/*/send_redirects; do echo 0 > $f; done; \
                     ip route replace default via 10.10.0.1; ip -6 route replace default via fd10::1").ok();
}

#[test]
fn a_static_route_leads_to_a_subnet_behind_a_station_in_both_ip_versions() {
    needs!();
    let open = "[[bridge]]\nname = \"br1\"\naddresses = [\"10.11.0.1/24\", \"fd11::1/64\"]\nisolated = false\n\
                [[port]]\nname = \"c\"\nbridge = \"br1\"\nnetns = \"@c\"\naddresses = [\"10.11.0.2/24\", \"fd11::2/64\"]\n";
    let mut lab = Lab::with(&format!(
        "{BRIDGE}isolated = false\nroutes = [\"fd09::/64 via fd10::5\"]\n{}{}{open}",
        station("a", 2, ""),
        station("r", 5, "")
    ));
    with_router(&lab);
    assert!(!reaches(&lab, "a", "10.9.0.2"));
    quietly(&lab, "add-route br0 10.9.0.0/16 via 10.10.0.5");
    for address in ["10.9.0.2", "fd09::2"] {
        for from in ["a", "c"] {
            lab.until(&format!("{from} reaches {address}"), |lab| reaches(lab, from, address));
        }
    }
    let routes = lab.json("list-routes br0");
    let of = |kind: &str| routes.as_array().unwrap().iter().filter(|row| row["kind"] == kind).count();
    assert_eq!((of("static"), of("connected"), of("default")), (2, 2, 0), "{routes}");
    assert!(lab.ctl("show br0").ok().contains("route 10.9.0.0/16 via 10.10.0.5"));
    assert!(lab.ctl("export").ok().contains("10.9.0.0/16 via 10.10.0.5"));
    for (words, part) in [
        ("add-route br0 10.9.0.0/16 via 10.10.0.6", "has route \"10.9.0.0/16 via 10.10.0.5\" already"),
        ("add-route br0 10.8.0.0/16 via 10.12.0.6", "whose next hop is in none of the bridge's subnets"),
        ("add-route br0 10.8.0.0/16 via 10.10.0.1", "is the gateway itself"),
        ("add-route br0 10.8.0.1/16 via 10.10.0.5", "write 10.8.0.0/16"),
        ("del-route br0 10.8.0.0/16", "its routes are"),
        ("add-route br9 10.8.0.0/16 via 10.10.0.5", "br9"),
    ] {
        let told = lab.ctl(words).refused();
        assert!(told.contains(part), "{words}: {told}");
    }
    quietly(&lab, "del-route br0 10.9.0.0/16");
    assert!(!reaches(&lab, "a", "10.9.0.2") && reaches(&lab, "a", "fd09::2"));
    lab.stop();
}

#[test]
fn what_is_behind_a_station_gets_out_by_the_uplink() {
    needs!();
    let mut lab = Lab::new();
    lab.sh("ip netns add @out; ip -n @host link add wan type veth peer name o0 netns @out; ip -n @host link set wan up; \
            ip -n @out link set o0 up; ip -n @out addr add 192.0.2.1/24 dev o0")
        .ok();
    let wan = "[[uplink]]\nname = \"wan\"\nkind = \"link\"\ndevice = \"wan\"\naddress = \"192.0.2.10/24\"\n";
    lab.write(&format!("{BRIDGE}uplink = \"wan\"\nroutes = [\"10.9.0.0/16 via 10.10.0.5\"]\n{wan}{}", station("r", 5, "")));
    lab.start();
    with_router(&lab);
    lab.until("the host behind the station reaches the outside", |lab| reaches(lab, "h", "192.0.2.1"));
    quietly(&lab, "add-forward wan tcp/80 10.9.0.2:80");
    quietly(&lab, "del-forward wan tcp/80");
    let sessions = lab.json("sessions");
    assert!(
        sessions.as_array().unwrap().iter().any(|row| row["inside"].as_str().unwrap().starts_with("10.9.0.2:")),
        "{sessions}"
    );
}

#[test]
fn tab_completes_commands_and_the_names_of_what_runs() {
    needs!("bash");
    let lab = Lab::with(&format!("{}[[uplink]]\nname = \"out\"\nkind = \"host\"\n", two("")));
    let socket = lab.path("control.sock").display().to_string();
    // As bash does it: the registration is evaluated, then its function is called for a line.
    let completed = |line: &str| -> Vec<String> {
        let words = line.split(' ').map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" ");
        let count = line.split(' ').count() - 1;
        let script = format!(
            "PATH={}:$PATH; export VSWITCH_CONTROL={socket}; eval \"$(vsctl completions bash)\"; COMP_WORDS=({words}); COMP_CWORD={count}; \
             COMP_TYPE=9; f=$(complete -p vsctl | sed 's/.*-F \\([^ ]*\\).*/\\1/'); compopt() {{ :; }}; $f vsctl '' ''; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
            vswitch_tests::program("vsctl").parent().unwrap().display()
        );
        let output = std::process::Command::new("bash").arg("-c").arg(&script).output().unwrap();
        String::from_utf8(output.stdout).unwrap().lines().map(|line| line.trim().to_owned()).collect()
    };
    assert!(completed("vsctl add-").contains(&"add-port".to_owned()), "{:?}", completed("vsctl add-"));
    let names: Vec<String> = completed("vsctl set-port ").into_iter().filter(|word| !word.starts_with('-')).collect();
    assert_eq!(names, ["a", "b"]);
    assert!(completed("vsctl del-uplink ").contains(&"out".to_owned()));
    assert!(completed("vsctl fdb ").contains(&"br0".to_owned()));
    assert!(completed("vsctl stats ").contains(&"out".to_owned()));
    assert!(completed("vsctl capture --port ").contains(&"b".to_owned()));
}

#[test]
fn shells_are_told_how_to_complete() {
    for (shell, word) in [("bash", "complete"), ("zsh", "#compdef vsctl"), ("fish", "complete")] {
        let output = std::process::Command::new(vswitch_tests::program("vsctl")).args(["completions", shell]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && text.contains(word) && text.contains("VSCTL_COMPLETE"), "{shell}: {text}");
    }
}

#[test]
fn man_pages_and_the_help_have_every_command() {
    let vsctl = || std::process::Command::new(vswitch_tests::program("vsctl"));
    let directory = tempfile::tempdir().unwrap();
    let made = vsctl().arg("man").arg(directory.path()).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    let help = String::from_utf8(vsctl().arg("--help").output().unwrap().stdout).unwrap();
    for heading in ["Bridges:", "Ports:", "Tunnels", "Uplinks", "What goes on:", "The switch itself:", "Global options:"] {
        assert!(help.contains(heading), "{help}");
    }
    for command in ["add-br", "set-br", "set-uplink", "leases", "add-route", "stats", "fdb"] {
        let page = std::fs::read_to_string(directory.path().join(format!("vsctl-{command}.1"))).unwrap();
        assert!(page.starts_with(".ie") && page.contains(&command.replace('-', "\\-")), "{command}: {page}");
        assert!(help.lines().any(|line| line.trim_start().starts_with(&format!("{command} "))), "{help}");
    }
    assert!(directory.path().join("vsctl.1").exists());
    let sub = String::from_utf8(vsctl().args(["set-port", "--help"]).output().unwrap().stdout).unwrap();
    let (own, global) = sub.split_once("Global options:").unwrap_or_else(|| panic!("{sub}"));
    assert!(own.contains("--vlan") && !own.contains("--control") && global.contains("--control"), "{sub}");
    let show = String::from_utf8(vsctl().args(["show", "--help"]).output().unwrap().stdout).unwrap();
    assert!(show.contains("The words of `show`:") && show.contains("loop suspected"), "{show}");
}

#[test]
fn a_trunk_of_ranges_carries_them_and_is_shown_short() {
    needs!();
    let lab = Lab::with(
        "[[bridge]]\nname = \"br0\"\n[[port]]\nname = \"a\"\nbridge = \"br0\"\nnetns = \"@a\"\ntrunk = \"1-10,20\"\n",
    );
    quietly(&lab, "add-port br0 b --netns @b --trunk 5-7");
    let ports = lab.json("list-ports");
    assert_eq!(ports[0]["trunk"], json!([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 20]));
    assert_eq!(ports[1]["trunk"], json!([5, 6, 7]));
    assert!(lab.ctl("list-ports").ok().contains("1-10,20 tagged"));
    assert!(lab.ctl("export").ok().contains("trunk = \"1-10,20\""));
}

#[test]
fn every_problem_of_a_file_is_told_at_its_key() {
    let lab = Lab::new();
    lab.write(
        "[switch]\nworkers =\n[[bridge]]\nname = \"br0\"\n  addresses = [\"10.10.0.1\"]\nmtu = -5\nageing = 300\n\
               [[port]]\nname = \"a\"\nbridge = \"br0\"\nvlan = \"x\"\n[[port]]\nname = \"a\"\nbridge = \"br0\"\n",
    );
    let outcome = lab.start_refused(&["--check"]);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    let told = format!("{}{}", outcome.stdout, outcome.stderr);
    for part in [
        ":2:",
        ":5:3: `addresses`: \"10.10.0.1\" has no prefix length: add it, such as /24",
        ":6:1: MTU -5 of bridge \"br0\" is out of range: use 68 to 65535",
        ":7:1: `ageing`: 300 has no unit: write \"300s\"",
        ":11:1: `vlan` is \"x\": write a whole number",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
    assert_eq!(told.lines().filter(|line| line.contains("switch.toml:")).count(), 5, "{told}");
}

#[test]
fn what_cannot_be_printed_is_a_failure_but_a_reader_that_has_seen_enough_is_none() {
    needs!();
    let lab = Lab::with(&two(""));
    let full = |mut command: std::process::Command| {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let outcome = command.stdout(full).output().unwrap();
        (outcome.status.code(), String::from_utf8_lossy(&outcome.stderr).into_owned())
    };
    let sentence = "cannot write to stdout: No space left on device (os error 28)\n";
    let lines = [
        "export",
        "show",
        "--json stats",
        "trace --port a --to 10.10.0.3",
        "completions bash",
        "--json events",
        "--help",
        "lab list",
    ];
    for words in lines {
        let mut command = lab.ctl_command();
        command.args(words.split_whitespace());
        assert_eq!(full(command), (Some(1), sentence.to_owned()), "{words}");
    }
    for option in ["--help", "--version"] {
        let mut command = std::process::Command::new(program("vswitchd"));
        command.arg(option);
        assert_eq!(full(command), (Some(1), sentence.to_owned()), "vswitchd {option}");
    }
    let mut command = lab.ctl_command();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let outcome = command.arg("show").stdout(writer).output().unwrap();
    assert_eq!((outcome.status.code(), outcome.stderr.as_slice()), (Some(0), &b""[..]));
}

#[test]
fn an_argument_that_is_wrong_is_told_with_its_own_name() {
    needs!();
    let lab = Lab::with(&two(""));
    lab.ctl("add-uplink wan --kind host").ok();
    let sentence = lab.ctl("add-forward wan tcp/8081 10.10.0.99").refused();
    assert_eq!(sentence, "`to`: \"10.10.0.99\" is not an address with a port: write 10.10.0.2:80 or [fd10::2]:80");
    let sentence = lab.ctl("set-port a --netns none").refused();
    assert!(sentence.contains("a device is always in a namespace: leave --netns out"), "{sentence}");
    lab.write("[[switch]]\nworkers = 1\n");
    let sentence = lab.ctl("reload").refused();
    assert!(sentence.ends_with("switch is a table: write its keys below [switch]"), "{sentence}");
}
