//! Hosts with a vswitchd each, and one Ethernet across them.

use std::time::{Duration, Instant};

use vswitch_tests::{BROADCAST, Lab, Underlay, Wire, across, checksum_errors, frame, mac, mark, needs, ping};

/// Less than a tunnel reaches on a slow machine, more than one that loses its super-frames or checksums gets.
const FLOWING: f64 = 30e6;

/// A tunnel of host `number` to others.
fn tunnel(number: u8, vni: u32, peers: &[u8], more: &str) -> String {
    let peers: Vec<String> = peers.iter().map(|peer| format!("\"192.0.2.{peer}\"")).collect();
    let peers = peers.join(", ");
    format!(
        "[[vxlan]]\nname = \"vx{vni}\"\nbridge = \"br0\"\nvni = {vni}\nlocal = \"192.0.2.{number}\"\npeers = [{peers}]\n{more}\n"
    )
}

/// Hosts 1 to `count`, each with a tunnel to all others.
fn hosts(count: u8) -> (Underlay, Vec<Lab>) {
    let underlay = Underlay::new();
    let hosts = (1..=count).map(|number| {
        let peers: Vec<u8> = (1..=count).filter(|peer| *peer != number).collect();
        underlay.host(number, &tunnel(number, 42, &peers, ""))
    });
    let hosts = hosts.collect();
    (underlay, hosts)
}

/// iperf3 from a station of one lab to one of another.
#[track_caller]
fn flows(from: &Lab, to: &Lab, address: &str) {
    let before = checksum_errors(from, "a") + checksum_errors(to, "a");
    let transfer = across(from, to, address, "-n 32M");
    assert!(transfer > FLOWING, "to {address}: {transfer}");
    assert_eq!(checksum_errors(from, "a") + checksum_errors(to, "a"), before, "to {address}");
}

fn reaches(from: &Lab, address: &str) -> bool {
    ping(from, "a", address)
}

/// The remote host that a bridge has for an address.
fn remote(lab: &Lab, mac: &str) -> Option<String> {
    let table = lab.json("fdb br0");
    let row = table.as_array().expect("rows").iter().find(|row| row["mac"] == mac)?.clone();
    row["remote"].as_str().map(str::to_owned)
}

fn drops(lab: &Lab, port: &str, way: &str, reason: &str) -> u64 {
    lab.json(&format!("stats {port}"))[0][way][reason].as_u64().expect("a counter")
}

#[test]
fn two_hosts_share_a_segment() {
    needs!("ping", "iperf3");
    let (_underlay, hosts) = hosts(2);
    let [one, two] = &hosts[..] else { panic!() };
    assert!(reaches(one, "10.0.0.2") && reaches(two, "10.0.0.1"));
    one.until("IPv6 addresses are no longer tentative", |one| reaches(one, "fd00::2"));
    flows(one, two, "10.0.0.2");
    flows(two, one, "10.0.0.1");
    flows(one, two, "fd00::2");
    one.run_in("a", "ping -n -c 1 -W 2 -M do -s 1422 10.0.0.2").ok();
    one.run_in("a", "ping -n -c 1 -W 2 -s 20000 fd00::2").ok();
    assert!(across(one, two, "10.0.0.2", "-u -n 8M -b 50M") > FLOWING);
    let ports = one.json("list-ports");
    assert_eq!(remote(two, ports[0]["mac"].as_str().expect("a MAC")), Some("192.0.2.1".to_owned()));
    let shown = one.ctl("show").ok();
    for part in ["mtu 1500 (its devices 1450)", "vxlan 42, 192.0.2.1 port 4789 to 192.0.2.2", "mtu 1450, underlay mtu 1500"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let row = &one.json("list-vxlan")[0];
    assert_eq!((&row["mtu"], &row["underlay_mtu"], &row["vni"]), (&1450.into(), &1500.into(), &42.into()));
}

#[test]
fn three_hosts_share_a_segment_without_duplicates() {
    needs!("ping", "iperf3");
    let (_underlay, hosts) = hosts(3);
    for (from, to) in [(0, 2), (1, 3), (2, 1), (0, 3)] {
        assert!(reaches(&hosts[from], &format!("10.0.0.{to}")), "{from} {to}");
    }
    let many = hosts[0].run_in("a", "ping -n -c 20 -i 0.02 10.0.0.3").ok();
    assert!(!many.contains("DUP") && many.contains(" 0% packet loss"), "{many}");
    // Everybody hears multicast, and once.
    let wires: Vec<Wire> = hosts.iter().map(|lab| Wire::open(lab, "a")).collect();
    wires[0].send(&frame([1, 0, 0x5e, 1, 2, 3], mac(1), &[0x88, 0xb5], b"to many"));
    wires[0].send(&mark(mac(1), "end"));
    for wire in &wires[1..] {
        let heard = wire.heard_before("end");
        assert_eq!(heard.iter().filter(|frame| frame.windows(7).any(|bytes| bytes == b"to many")).count(), 1);
    }
}

#[test]
fn dhcp_crosses_hosts() {
    needs!("ping", "udhcpc", "dnsmasq");
    let (_underlay, mut hosts) = hosts(2);
    let leases = hosts[1].path("leases");
    hosts[1].spawn_in(
        "a",
        &format!(
            "dnsmasq -k -p 0 -i eth0 --bind-interfaces --dhcp-range=10.0.0.100,10.0.0.110,1h -l {} -C /dev/null --pid-file=",
            leases.display()
        ),
    );
    let line = "udhcpc -f -q -n -t 20 -T 1 -i eth0 -s /bin/true";
    let outcome = hosts[0].run_in("a", line);
    assert!(outcome.code == Some(0) && outcome.stderr.contains("10.0.0.1"), "{outcome:?}");
}

#[test]
fn two_hosts_over_ipv6_without_checksum() {
    needs!("ping", "iperf3");
    let underlay = Underlay::new();
    let tunnel = |number: u8, peer: u8, more: &str| {
        let more = format!("local = \"2001:db8::{number}\"\npeers = [\"2001:db8::{peer}\"]\n{more}");
        underlay.host(number, &format!("[[vxlan]]\nname = \"vx0\"\nbridge = \"br0\"\nvni = 7\n{more}\n"))
    };
    for more in ["", "udp-checksum = false"] {
        let (one, two) = (tunnel(1, 2, more), tunnel(2, 1, more));
        assert!(reaches(&one, "10.0.0.2"), "{more}");
        flows(&one, &two, "10.0.0.2");
        assert_eq!(one.json("list-vxlan")[0]["mtu"], 1430);
        for number in 1..=2 {
            underlay.fabric.sh(&format!("ip -n @host link del f{number}")).ok();
        }
    }
}

#[test]
fn several_workers_carry_one_tunnel() {
    needs!("ping", "iperf3");
    let underlay = Underlay::new();
    let host = |number: u8, peer: u8| {
        let mut lab = Lab::new();
        underlay.join(&lab, number);
        let directory = lab.path("").display().to_string();
        let head =
            format!("[switch]\nworkers = 2\ncontrol = \"{directory}/control.sock\"\nstate-dir = \"{directory}/state\"\n");
        lab.write(&format!("{head}{}", Underlay::file(number, &tunnel(number, 42, &[peer], ""))));
        lab.start();
        lab
    };
    let (one, two) = (host(1, 2), host(2, 1));
    assert!(reaches(&one, "10.0.0.2"));
    assert!(across(&one, &two, "10.0.0.2", "-n 32M -P 4") > FLOWING);
    assert!(across(&two, &one, "10.0.0.1", "-n 32M -P 4") > FLOWING);
}

#[test]
fn hosts_find_each_other_through_a_group() {
    needs!("ping", "iperf3");
    for (local, group) in [("192.0.2.", "239.1.1.1"), ("2001:db8::", "ff05::1:1")] {
        let underlay = Underlay::new();
        let hosts: Vec<Lab> = (1..=3)
            .map(|number| {
                let more = format!("local = \"{local}{number}\"\ngroup = \"{group}\"\ndevice = \"u0\"");
                underlay.host(number, &format!("[[vxlan]]\nname = \"vx0\"\nbridge = \"br0\"\nvni = 7\n{more}\n"))
            })
            .collect();
        for (from, to) in [(0, 2), (1, 3), (2, 1)] {
            assert!(reaches(&hosts[from], &format!("10.0.0.{to}")), "{from} {to} {group}");
        }
        flows(&hosts[0], &hosts[2], "10.0.0.3");
        let heard = hosts[0].json("list-vxlan")[0]["heard"].as_array().expect("a list").len();
        assert_eq!(heard, 2, "{group}");
    }
}

#[test]
fn a_host_killed_and_started_again_comes_back() {
    needs!("ping");
    let (_underlay, mut hosts) = hosts(2);
    assert!(reaches(&hosts[0], "10.0.0.2"));
    hosts[1].kill();
    assert!(hosts[0].run_in("a", "ping -n -c 1 -W 1 10.0.0.2").code != Some(0));
    hosts[1].start();
    let begun = Instant::now();
    hosts[0].until("the other host is back", |one| reaches(one, "10.0.0.2"));
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[test]
fn an_address_that_moves_to_another_host_is_followed_within_a_second() {
    needs!("ping");
    let (_underlay, hosts) = hosts(3);
    let wires: Vec<Wire> = hosts.iter().map(|lab| Wire::open(lab, "a")).collect();
    for round in 0..3 {
        for (place, host) in [(0, "192.0.2.1"), (1, "192.0.2.2")] {
            wires[place].send(&mark(mac(77), &format!("here {round}")));
            let begun = Instant::now();
            hosts[2].until("the move is seen", |lab| remote(lab, "02:54:00:00:00:4d").as_deref() == Some(host));
            assert!(begun.elapsed() < Duration::from_secs(1));
            wires[2].heard_before(&format!("here {round}"));
            wires[2].send(&frame(mac(77), mac(3), &[0x88, 0xb5], format!("mark to you {round} ").as_bytes()));
            wires[place].heard_before(&format!("to you {round}"));
        }
        // As long as moves count.
        std::thread::sleep(Duration::from_secs(3));
    }
}

#[test]
fn peers_come_and_go_while_frames_pass() {
    needs!("ping");
    let underlay = Underlay::new();
    let one = underlay.host(1, &tunnel(1, 42, &[], ""));
    let two = underlay.host(2, &tunnel(2, 42, &[1], ""));
    assert!(one.run_in("a", "ping -n -c 1 -W 1 10.0.0.2").code != Some(0));
    assert!(drops(&one, "vx42", "rx_drops", "unknown_vtep") > 0, "who is not listed is not listened to");
    one.ctl("set-vxlan vx42 --add-peer 192.0.2.2").ok();
    assert!(reaches(&one, "10.0.0.2"));
    assert_eq!(one.json("list-vxlan br0")[0]["peers"], serde_json::json!(["192.0.2.2"]));
    one.ctl("set-vxlan vx42 --add-peer 192.0.2.3").ok();
    one.ctl("set-vxlan vx42 --del-peer 192.0.2.2").ok();
    assert!(one.json("fdb br0").as_array().expect("rows").iter().all(|row| row["remote"].is_null()), "it is forgotten");
    assert!(two.run_in("a", "ping -n -c 1 -W 1 10.0.0.1").code != Some(0));
    one.ctl("set-vxlan vx42 --add-peer 192.0.2.2").ok();
    assert!(reaches(&two, "10.0.0.1"));
}

#[test]
fn tunnels_added_at_run_time_survive_and_are_exported() {
    needs!("ping");
    let underlay = Underlay::new();
    let mut one = underlay.host(1, "");
    let _two = underlay.host(2, &tunnel(2, 42, &[1], ""));
    one.ctl("add-vxlan br0 x --vni 42 --local 192.0.2.1 --peer 192.0.2.2").ok();
    assert!(reaches(&one, "10.0.0.2"));
    one.stop();
    one.start();
    assert!(reaches(&one, "10.0.0.2"));
    let text = one.ctl("export").ok();
    assert!(text.contains("[[vxlan]]") && text.contains("vni = 42"), "{text}");
    std::fs::write(one.file(), text).expect("written");
    one.ctl("reload").ok();
    assert!(reaches(&one, "10.0.0.2"));
    one.ctl("del-vxlan x").ok();
    assert_eq!(one.json("list-vxlan"), serde_json::json!([]));
    assert!(one.run_in("a", "ip -o link show eth0").ok().contains("mtu 1500"), "the devices have their MTU back");
    assert!(one.run_in("host", "ss -Hlun sport = :4789").ok().is_empty(), "the port is free");
}

#[test]
fn networks_on_one_udp_port_do_not_mix() {
    needs!("ping");
    let underlay = Underlay::new();
    let host = |number: u8, peer: u8| {
        let more = format!(
            "{}[[bridge]]\nname = \"br1\"\n[[port]]\nname = \"b\"\nbridge = \"br1\"\nnetns = \"@b\"\naddresses = [\"10.0.0.1{number}/24\"]\n{}",
            tunnel(number, 42, &[peer], ""),
            tunnel(number, 43, &[peer], "").replace("br0", "br1")
        );
        underlay.host(number, &more)
    };
    let (one, _two) = (host(1, 2), host(2, 1));
    assert!(ping(&one, "a", "10.0.0.2") && ping(&one, "b", "10.0.0.12"));
    assert!(one.run_in("a", "ping -n -c 1 -W 1 10.0.0.12").code != Some(0));
    one.ctl("del-vxlan vx42").ok();
    assert!(ping(&one, "b", "10.0.0.12"), "the other goes on");
}

#[test]
fn the_switch_answers_for_stations_that_are_known() {
    needs!("ping");
    let underlay = Underlay::new();
    let station = "static = [{ mac = \"02:00:00:00:00:09\", peer = \"192.0.2.2\", ip = \"10.0.0.9\" }, \
                   { mac = \"02:00:00:00:00:09\", peer = \"192.0.2.2\", ip = \"fd00::9\" }]";
    let one = underlay.host(1, &tunnel(1, 42, &[2], station));
    // Nobody is there to answer.
    one.run_in("a", "ping -n -c 1 -W 1 10.0.0.9");
    one.until("IPv6 addresses are no longer tentative", |one| {
        one.run_in("a", "ping -n -c 1 -W 1 fd00::9");
        one.run_in("a", "ip neigh show fd00::9").ok().contains("02:00:00:00:00:09")
    });
    assert!(one.run_in("a", "ip neigh show 10.0.0.9").ok().contains("02:00:00:00:00:09"));
    assert!(drops(&one, "a", "rx_drops", "suppressed") >= 2);
    let row = &one.json("fdb br0").as_array().expect("rows").iter().find(|row| row["static"] == true).cloned().expect("a row");
    assert_eq!((&row["mac"], &row["remote"]), (&"02:00:00:00:00:09".into(), &"192.0.2.2".into()));
}

#[test]
fn a_loop_between_hosts_is_bounded_reported_and_over_when_it_is_cut() {
    needs!("ping");
    let underlay = Underlay::new();
    let host = |number: u8, peer: u8| {
        underlay.host(number, &format!("{}{}", tunnel(number, 42, &[peer], ""), tunnel(number, 43, &[peer], "")))
    };
    let (one, two) = (host(1, 2), host(2, 1));
    let wire = Wire::open(&one, "a");
    for _ in 0..20 {
        wire.send(&mark(mac(1), "round"));
    }
    one.until("the loop is seen", |one| one.ctl("show").ok().contains("loop suspected"));
    let held = |lab: &Lab| lab.json("fdb br0").as_array().expect("rows").iter().any(|row| row["held"] == true);
    assert!(held(&one) || held(&two));
    one.ctl("del-vxlan vx43").ok();
    two.ctl("del-vxlan vx43").ok();
    std::thread::sleep(Duration::from_secs(11));
    assert!(reaches(&one, "10.0.0.2") && reaches(&two, "10.0.0.1"));
    assert!(!one.ctl("show").ok().contains("loop suspected"));
}

#[test]
fn a_flood_out_of_a_tunnel_is_bounded() {
    needs!("ping");
    let underlay = Underlay::new();
    let one = underlay.host(1, &tunnel(1, 42, &[2], "bum-limit = 50"));
    let two = underlay.host(2, &tunnel(2, 42, &[1], ""));
    assert!(reaches(&two, "10.0.0.1"));
    let wire = Wire::open(&two, "a");
    (0..500).for_each(|_| wire.send(&frame(BROADCAST, mac(1), &[0x88, 0xb5], b"flood")));
    one.until("the limit bites", |one| drops(one, "vx42", "rx_drops", "storm_limit") >= 300);
}

#[test]
fn what_is_too_long_for_the_tunnel_is_counted_and_logged_once() {
    needs!("ping");
    let underlay = Underlay::new();
    let mut one = Lab::new();
    underlay.join(&one, 1);
    one.add_netns("b");
    one.sh("ip -n @host link add lan type veth peer name eth0 netns @b && ip -n @host link set lan up && ip -n @b link set eth0 up").ok();
    let link = "[[port]]\nname = \"b\"\nbridge = \"br0\"\nkind = \"link\"\ndevice = \"lan\"\n";
    one.write(&Underlay::file(1, &format!("{link}{}", tunnel(1, 42, &[2], ""))));
    one.start();
    let wire = Wire::open(&one, "b");
    (0..5).for_each(|_| wire.send(&frame(BROADCAST, mac(1), &[0x88, 0xb5], &[0; 1451])));
    wire.send(&frame(BROADCAST, mac(1), &[0x88, 0xb5], &[0; 1450]));
    one.until("they are counted", |one| drops(one, "vx42", "tx_drops", "packet_too_big") == 5);
    assert_eq!(one.json("stats vx42")[0]["tx_frames"].as_u64().map(|frames| frames >= 1), Some(true));
    assert_eq!(one.log().matches("longer than the 1450 bytes").count(), 1, "{}", one.log());
}

/// A host whose bridge has a gateway, with a station `b` behind a link, which keeps its MTU of 1500.
fn with_gateway(underlay: &Underlay) -> Lab {
    let mut lab = Lab::new();
    underlay.join(&lab, 1);
    lab.add_netns("b");
    lab.sh("ip -n @host link add lan type veth peer name eth0 netns @b && ip -n @host link set lan up && ip -n @b link set eth0 up && \
         ip -n @b addr add 10.0.0.9/24 dev eth0 && ip -n @b addr add fd00::9/64 dev eth0 nodad")
        .ok();
    let link = "[[port]]\nname = \"b\"\nbridge = \"br0\"\nkind = \"link\"\ndevice = \"lan\"\n";
    let file = Underlay::file(1, &format!("{link}{}", tunnel(1, 42, &[2], "")));
    lab.write(&file.replacen("name = \"br0\"\n", "name = \"br0\"\naddresses = [\"10.0.0.254/24\", \"fd00::fe/64\"]\n", 1));
    lab.start();
    lab
}

#[test]
fn a_station_hears_from_the_gateway_what_the_tunnel_carries() {
    needs!("ping");
    let underlay = Underlay::new();
    let one = with_gateway(&underlay);
    let _two = underlay.host(2, &tunnel(2, 42, &[1], ""));
    one.until("the other host's station answers", |one| ping(one, "b", "10.0.0.2") && ping(one, "b", "fd00::2"));
    let text = one.run_in("b", "ping -n -c 1 -W 2 -M do -s 1460 10.0.0.2").stdout;
    assert!(text.contains("From 10.0.0.254") && text.contains("mtu = 1450"), "{text}");
    let text = one.run_in("b", "ping -n -c 1 -W 2 -M do -s 1440 fd00::2").stdout;
    assert!(text.contains("From fd00::fe") && text.contains("mtu=1450"), "{text}");
    one.run_in("b", "ping -n -c 1 -W 2 -s 1460 10.0.0.2").ok();
}

#[test]
fn the_switch_answers_for_stations_that_the_gateway_has_heard() {
    needs!("ping");
    let underlay = Underlay::new();
    let one = with_gateway(&underlay);
    let two = underlay.host(2, &tunnel(2, 42, &[1], ""));
    // The gateway hears who asks for it.
    two.until("the gateway answers across the tunnel", |two| ping(two, "a", "10.0.0.254"));
    assert!(reaches(&one, "10.0.0.2"));
    assert!(drops(&one, "a", "rx_drops", "suppressed") >= 1);
}

#[test]
fn the_underlays_mtu_is_followed() {
    needs!("ping");
    let (_underlay, hosts) = hosts(2);
    let [one, two] = &hosts[..] else { panic!() };
    assert!(reaches(one, "10.0.0.2"));
    for (outer, inner) in [(1400, 1350), (1500, 1450)] {
        one.run_in("host", &format!("ip link set u0 mtu {outer}")).ok();
        one.until("the tunnel has the new MTU", |one| one.json("list-vxlan")[0]["mtu"] == inner);
        assert_eq!(one.json("list-vxlan")[0]["underlay_mtu"], outer);
        assert!(one.ctl("show").ok().contains(&inner.to_string()));
        assert!(one.run_in("a", "ip -o link show eth0").ok().contains(&format!("mtu {inner} ")));
        one.run_in("a", &format!("ping -n -c 1 -W 2 -M do -s {} 10.0.0.2", inner - 28)).ok();
    }
    assert!(reaches(two, "10.0.0.1"));
}

#[test]
fn a_tunnel_whose_underlay_is_gone_says_so_until_it_is_back() {
    needs!("ping");
    let (underlay, hosts) = hosts(2);
    let [one, _two] = &hosts[..] else { panic!() };
    let group =
        "[[vxlan]]\nname = \"vx7\"\nbridge = \"br0\"\nvni = 7\nlocal = \"192.0.2.9\"\ngroup = \"239.1.1.1\"\ndevice = \"u0\"\n";
    let nine = underlay.host(9, group);
    let state = |lab: &Lab| lab.json("list-vxlan")[0]["state"].as_str().unwrap_or_default().to_owned();
    assert_eq!((reaches(one, "10.0.0.2"), state(one).as_str(), state(&nine).as_str()), (true, "up", "up"));
    let no_route = "there is no route to its peer: see `ip route get 192.0.2.2 from 192.0.2.1`";
    let no_address = "`local` 192.0.2.1 is not an address of this host: `ip address` lists those that are";
    for (line, back, sentence) in [
        ("ip addr del 192.0.2.1/24 dev u0", "ip addr add 192.0.2.1/24 dev u0", no_address),
        ("ip route del 192.0.2.0/24 dev u0", "ip route add 192.0.2.0/24 dev u0", no_route),
    ] {
        one.run_in("host", line).ok();
        one.until("it says what is gone", |one| state(one) == sentence);
        assert!(
            one.ctl("show")
                .ok()
                .contains(&format!("  vx42: down, vxlan 42, 192.0.2.1 port 4789 to 192.0.2.2\n      {sentence}\n"))
        );
        assert!(one.ctl("list-vxlan").ok().contains(" down\n"));
        let told = one.ctl("reload").stderr;
        assert!(told.contains(&format!("vxlan \"vx42\": {sentence}")), "{told}");
        one.run_in("host", back).ok();
        one.until("it goes on by itself", |one| reaches(one, "10.0.0.2") && state(one) == "up");
    }
    nine.run_in("host", "ip link set u0 down").ok();
    nine.until("it says that", |nine| state(nine) == "interface \"u0\", on which group 239.1.1.1 is, is down");
    nine.run_in("host", "ip link set u0 up").ok();
    nine.until("it goes on", |nine| state(nine) == "up");
}

#[test]
fn static_entries_come_and_go_while_frames_pass() {
    needs!("ping");
    let underlay = Underlay::new();
    let mut one = underlay.host(1, "");
    one.ctl("add-vxlan br0 vx42 --vni 42 --local 192.0.2.1 --peer 192.0.2.2 --peer 192.0.2.3").ok();
    let place = |one: &Lab| remote(one, "02:00:00:00:00:09");
    for peer in ["192.0.2.2", "192.0.2.3"] {
        one.ctl(&format!("set-vxlan vx42 --add-static 02:00:00:00:00:09={peer}=10.0.0.9")).ok();
        assert_eq!(place(&one).as_deref(), Some(peer));
    }
    one.run_in("a", "ping -n -c 1 -W 1 10.0.0.9");
    assert!(one.run_in("a", "ip neigh show 10.0.0.9").ok().contains("02:00:00:00:00:09"), "it is answered for");
    let sentence = one.ctl("set-vxlan vx42 --add-static 02:00:00:00:00:0a=192.0.2.9").refused();
    assert!(sentence.contains("192.0.2.9, which is not one of its peers"), "{sentence}");
    one.stop();
    one.start();
    assert_eq!(place(&one).as_deref(), Some("192.0.2.3"), "it survives");
    one.ctl("set-vxlan vx42 --del-static 02:00:00:00:00:09").ok();
    assert_eq!(place(&one), None);
    let sentence = one.ctl("set-vxlan vx42 --del-static 02:00:00:00:00:09").refused();
    assert!(sentence.contains("no static entry for 02:00:00:00:00:09"), "{sentence}");
}

#[test]
fn garbage_changes_no_table_and_stops_no_traffic() {
    needs!("ping", "iperf3", "python3");
    let (underlay, hosts) = hosts(2);
    assert!(reaches(&hosts[0], "10.0.0.2"));
    // The attacker is a third host, which also forges the address of the second.
    let mut attacker = Lab::new();
    underlay.join(&attacker, 66);
    let script = attacker.path("attack.py");
    std::fs::write(&script, ATTACK).expect("written");
    let before = macs(&hosts[0]);
    attacker.spawn_in("host", &format!("python3 {}", script.display()));
    let underlay_drop = |reason: &str| hosts[0].json("list-vxlan")[0]["underlay_drops"][reason].as_u64();
    let port_drop = |reason| drops(&hosts[0], "vx42", "rx_drops", reason);
    hosts[0].until("it arrives", |_| {
        let nameless = ["malformed", "no_vni", "unknown_vni"].iter().all(|reason| underlay_drop(reason) >= Some(1000));
        // Of the tunnel: not forged; forged, but no frames, from a group, with a tag where none is allowed.
        nameless
            && ["unknown_vtep", "runt", "invalid_source", "vlan_not_allowed"].iter().all(|reason| port_drop(reason) >= 1000)
    });
    // Meanwhile:
    assert!(reaches(&hosts[0], "10.0.0.2") && reaches(&hosts[1], "10.0.0.1"));
    across(&hosts[0], &hosts[1], "10.0.0.2", "-n 8M");
    across(&hosts[1], &hosts[0], "10.0.0.1", "-n 8M");
    let attacks = underlay_drop("malformed");
    hosts[0].until("it has not ended", |_| underlay_drop("malformed") > attacks);
    assert_eq!(macs(&hosts[0]), before);
}

fn macs(lab: &Lab) -> Vec<String> {
    let table = lab.json("fdb br0");
    table.as_array().expect("rows").iter().map(|row| row["mac"].as_str().expect("a MAC").to_owned()).collect()
}

const ATTACK: &str = r#"
import itertools, socket, struct
to = ("192.0.2.1", 4789)
own = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
own.bind(("192.0.2.66", 0))
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
vxlan = lambda vni, flags=8: struct.pack("!BxxxI", flags, vni << 8)
frame = b"\xff" * 6 + b"\x02\x54\x66\x66\x66\x66" + b"\x88\xb5" + b"x" * 46
def forge(payload):
    udp = struct.pack("!HHHH", 5555, 4789, 8 + len(payload), 0) + payload
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0, socket.inet_aton("192.0.2.2"), socket.inet_aton("192.0.2.1"))
    raw.sendto(ip + udp, ("192.0.2.1", 0))
for turn in itertools.count():
    own.sendto(vxlan(42)[:turn % 8], to)
    own.sendto(vxlan(42, 0xf7) + frame, to)
    own.sendto(vxlan(7) + frame, to)
    own.sendto(vxlan(42) + frame, to)
    forge(vxlan(42) + frame[:turn % 14])
    forge(vxlan(42) + frame[:6] + b"\x01" + frame[7:])
    forge(vxlan(42) + frame[:12] + b"\x81\x00\x00\x05" + frame[12:])
"#;

#[test]
fn bad_input_is_one_sentence() {
    needs!("ping");
    let underlay = Underlay::new();
    let lab = underlay.host(1, &tunnel(1, 42, &[2], ""));
    for (words, part) in [
        ("add-vxlan br0 x --vni 16777216 --local 192.0.2.1", "16777216 is not a VNI: use a number from 0 to 16777215"),
        ("add-vxlan br0 x --vni 42 --local 192.0.2.1", "has VNI 42 on UDP port 4789, as vxlan \"vx42\" has"),
        ("add-vxlan br0 x --vni 1 --local 192.0.2.77", "`local` 192.0.2.77 is not an address of this host"),
        (
            "add-vxlan br0 x --vni 1 --local 192.0.2.1 --peer 192.0.2.1",
            "peer 192.0.2.1 of vxlan \"x\" is its own `local` address",
        ),
        ("add-vxlan br0 x --vni 1 --local 192.0.2.1 --group 192.0.2.9 --device u0", "not a multicast address"),
        ("add-vxlan br0 x --vni 1 --local 192.0.2.1 --group 239.1.1.1 --device nix", "there is no interface \"nix\""),
        ("add-vxlan br9 x --vni 1 --local 192.0.2.1", "there is no bridge \"br9\""),
        ("add-vxlan br0 a --vni 1 --local 192.0.2.1", "port \"a\" exists already"),
        ("add-port br0 vx42", "vxlan \"vx42\" exists already"),
        ("add-uplink vx42 --kind host", "vxlan \"vx42\" exists already"),
        ("add-vxlan br0 vx42 --vni 1 --local 192.0.2.1", "vxlan \"vx42\" exists already"),
        ("del-vxlan nix", "there is no vxlan \"nix\": the tunnels are vx42"),
        ("set-vxlan vx42 --del-peer 192.0.2.9", "192.0.2.9 is no peer of vxlan \"vx42\""),
        ("del-br br0", "bridge \"br0\" has"),
    ] {
        let sentence = lab.ctl(words).refused();
        assert!(sentence.contains(part) && sentence.lines().count() == 1, "{words}: {sentence}");
    }
    lab.run_in("host", "ip link add k type vxlan id 9 local 192.0.2.1 remote 192.0.2.2 dstport 8472 && ip link set k up").ok();
    let sentence = lab.ctl("add-vxlan br0 x --vni 1 --local 192.0.2.1 --port 8472").refused();
    assert!(sentence.contains("UDP port 8472 of 192.0.2.1 is in use"), "{sentence}");
    assert_eq!(lab.json("list-vxlan").as_array().map(Vec::len), Some(1), "a failed change leaves nothing");
}

#[test]
fn a_capture_of_the_underlay_is_what_is_on_the_wire() {
    needs!("ping", "tshark");
    let (_underlay, hosts) = hosts(2);
    let [one, two] = &hosts[..] else { panic!() };
    assert!(reaches(one, "10.0.0.2") && reaches(two, "10.0.0.1"));
    let (ours, wire) = (one.path("ours.pcapng"), one.path("wire.pcap"));
    let (ours, wire) = (ours.display(), wire.display());
    let listen = format!("timeout -s INT 3 tcpdump -Z root -U -i u0 -w {wire} udp port 4789 2>/dev/null");
    let vsctl = vswitch_tests::program("vsctl");
    let socket = one.path("control.sock");
    let ask = format!(
        "{} --control {} capture --seconds 3 --at ingress,egress,underlay --filter 'icmp or inner(icmp)' -w {ours}",
        vsctl.display(),
        socket.display()
    );
    std::thread::scope(|scope| {
        scope.spawn(|| one.run_in("host", &listen));
        scope.spawn(|| one.sh(&ask).ok());
        std::thread::sleep(Duration::from_millis(1200));
        one.run_in("a", "ping -n -c 5 -i 0.1 -W 2 10.0.0.2").ok();
    });
    let read = |file: &dyn std::fmt::Display, filter: &str, fields: &str| {
        let text = one.sh(&format!("tshark -n -r {file} -Y '{filter}' -T fields {fields} 2>/dev/null")).ok();
        let mut rows: Vec<String> = text.lines().map(str::to_owned).collect();
        rows.sort();
        rows
    };
    let fields =
        "-E occurrence=f -e ip.src -e ip.dst -e udp.srcport -e udp.dstport -e udp.length -e vxlan.vni -e icmp.seq -e icmp.type";
    let (shown, real) = (read(&ours, "vxlan", fields), read(&wire, "vxlan && icmp", fields));
    assert!(shown.len() == 10 && shown == real, "{shown:?} is not {real:?}");
    // One frame has one id, once at each point.
    let ids = |filter: &str| read(&ours, filter, "-e frame.packet_id");
    let all = ids("vxlan");
    assert_eq!(all, ids("!vxlan && frame.comment contains \"at=ingress\""));
    assert_eq!(all, ids("frame.comment contains \"at=egress\""));
    assert!(
        read(&ours, "vxlan", "-e frame.comment").iter().all(|said| said.contains("at=underlay") && said.contains("vni=42"))
    );
}
