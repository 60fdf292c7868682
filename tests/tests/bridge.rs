//! What the bridge does with bare frames: VLANs, learning, flooding, checks. Where the kernel's bridge can say what is right, it
//! is asked.
#![allow(clippy::unwrap_used, clippy::panic, reason = "what fails here fails its test")]

use std::time::{Duration, Instant};

use vswitch_tests::{BROADCAST, Lab, Wire, frame, mac, mark, needs, ping};

/// EtherTypes, and the TPIDs of tags.
const EXPERIMENTAL: [u8; 2] = [0x88, 0xb6];
const IPV4: [u8; 2] = [0x08, 0x00];
const IPV6: [u8; 2] = [0x86, 0xdd];
const ARP: [u8; 2] = [0x08, 0x06];

/// Stations on `br0`, in the order of the ports. Their own stacks have no IPv6 and so say nothing by themselves: counters are
/// exact.
fn net(bridge: &str, ports: &[(&str, &str)]) -> (Lab, Vec<Wire>) {
    let mut lab = Lab::new();
    let mut file = format!("[[bridge]]\nname = \"br0\"\n{bridge}");
    for (name, options) in ports {
        lab.add_netns(name);
        lab.run_in(name, "echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6").ok();
        file += &format!("[[port]]\nname = \"{name}\"\nbridge = \"br0\"\nnetns = \"@{name}\"\n{options}");
    }
    lab.write(&file);
    lab.start();
    let wires = ports.iter().map(|(name, _)| Wire::open(&lab, name)).collect();
    (lab, wires)
}

/// An EtherType behind an 802.1Q tag of this priority and VLAN.
fn tagged(priority: u8, vlan: u16) -> Vec<u8> {
    let [high, low] = vlan.to_be_bytes();
    [&[0x81, 0, priority << 5 | high, low], &EXPERIMENTAL[..]].concat()
}

fn drops(lab: &Lab, port: &str, reason: &str) -> u64 {
    lab.json(&format!("stats {port}"))[0]["rx_drops"][reason].as_u64().unwrap()
}

/// Waits until the port has dropped so many frames for this reason, and no more.
#[track_caller]
fn dropped(lab: &Lab, port: &str, reason: &str, count: u64) {
    lab.until(&format!("{count} {reason} of {port}"), |lab| drops(lab, port, reason) >= count);
    assert_eq!(drops(lab, port, reason), count, "{reason} of {port}");
}

/// Sends `sent` from one station, and says what each of the others hears of it.
#[track_caller]
fn carried(from: &Wire, to: &[&Wire], sent: &[Vec<u8>], marker: &str) -> Vec<Vec<Vec<u8>>> {
    sent.iter().for_each(|frame| from.send(frame));
    from.send(&mark(mac(999), marker));
    to.iter().map(|wire| wire.heard_before(marker)).collect()
}

#[test]
fn every_frame_goes_where_the_kernels_bridge_sends_it() {
    needs!();
    let (mut lab, ours) = net("", &[("a", ""), ("b", "kind = \"veth\"\n"), ("c", ""), ("d", "offload = false\n")]);
    lab.add_netns("bridge");
    lab.sh("ip -n @bridge link add br0 type bridge mcast_snooping 0 forward_delay 0 && ip -n @bridge link set br0 up").ok();
    let theirs: Vec<Wire> = ["ka", "kb", "kc", "kd"]
        .iter()
        .map(|name| {
            lab.add_netns(name);
            lab.run_in(name, "echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6").ok();
            lab.sh(&format!(
                "ip -n @bridge link add {name} type veth peer name eth0 netns @{name} && ip -n @bridge link set {name} master br0 up \
                 && ip -n @{name} link set eth0 up"
            ))
            .ok();
            Wire::open(&lab, name)
        })
        .collect();
    lab.until("the kernel's bridge forwards", |_| {
        theirs[0].try_send(&mark(mac(998), "ready"));
        lab.sh("bridge -n @bridge link | grep -c 'state forwarding'").stdout.trim() == "4"
    });
    let mut random = 1_u32;
    let mut next = |below: u32| {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (random >> 8) % below
    };
    for round in 0..200 {
        // Eight stations that wander between four ports, half of them always in VLAN 10: without VLANs, the kernel has one
        // table for all. A service tag makes no difference to either.
        let from = next(4) as usize;
        let vlan = next(2) == 0;
        // Others after a while: one that moves to and fro would be held, which the kernel's bridge does not do.
        let era = u16::try_from(round / 20 * 100).unwrap();
        let group = |next: &mut dyn FnMut(u32) -> u32| u16::try_from(next(4)).unwrap() + era + if vlan { 10 } else { 20 };
        let source = match next(12) {
            0 => [0x03, 0x54, 0, 0, 0, 1],
            _ => mac(group(&mut next)),
        };
        // From control frames the kernel learns, so their source is nobody's destination.
        let (source, destination) = match next(8) {
            0 => (source, BROADCAST),
            1 => (source, [0x33, 0x33, 0, 0, 0, 1]),
            2 => (mac(78), [0x01, 0x80, 0xc2, 0, 0, 2]),
            3 => (source, mac(77)),
            _ => (source, mac(group(&mut next))),
        };
        let kind = match (vlan, next(3)) {
            (true, _) => tagged(u8::try_from(next(8)).unwrap(), 10),
            (false, 0) => vec![0x88, 0xa8, 0, 5, 0x81, 0, 0, 6, 0x88, 0xb6],
            (false, _) => EXPERIMENTAL.to_vec(),
        };
        let bytes = frame(destination, source, &kind, format!("round {round}").as_bytes());
        let name = format!("{round}");
        let heard = |wires: &[Wire]| -> Vec<Vec<Vec<u8>>> {
            wires[from].send(&bytes);
            // Of a station that stays where it is.
            wires[from].send(&mark(mac(990 + u16::try_from(from).unwrap()), &name));
            let others = wires.iter().enumerate().filter(|(n, _)| *n != from);
            others.map(|(_, wire)| wire.heard_before(&name)).collect()
        };
        let mut expected = heard(&theirs);
        expected.iter_mut().for_each(|frames| frames.retain(|frame| !frame.windows(11).any(|text| text == b"mark ready ")));
        assert_eq!(heard(&ours), expected, "round {round}: {bytes:02x?} from port {from}");
    }
    assert!(lab.stop().success());
}

#[test]
fn vlans_are_tagged_on_trunks_and_kept_apart_on_access_ports() {
    needs!();
    let (lab, wires) = net(
        "",
        &[
            ("a", "vlan = 10\n"),
            ("b", "vlan = 10\nkind = \"veth\"\n"),
            ("c", "vlan = 20\n"),
            ("trunk", "trunk = [10, 20]\nnative = 30\n"),
            ("u", "vlan = 30\n"),
            ("all", ""),
        ],
    );
    let [a, b, c, trunk, u, all] = &wires[..] else { panic!("six wires") };
    let of = |number: u16, kind: &[u8]| frame(BROADCAST, mac(number), kind, &[7; 100]);
    let untagged = |number| of(number, &EXPERIMENTAL);
    // From an access port: untagged in its VLAN, tagged where the port carries several.
    a.send(&untagged(1));
    a.send(&of(1, &tagged(5, 0)));
    a.send(&mark(mac(1), "from a"));
    assert_eq!(b.heard_before("from a"), [untagged(1), untagged(1)], "a priority tag is not for an access port");
    let with_tags = [of(1, &tagged(0, 10)), of(1, &tagged(5, 10))];
    assert_eq!(trunk.heard_before("from a"), with_tags, "a priority stays");
    assert_eq!(all.heard_before("from a"), with_tags);
    // From a trunk: its tags choose, untagged frames are in the native VLAN, and other tags are not its.
    trunk.send(&of(2, &tagged(3, 20)));
    trunk.send(&of(2, &tagged(0, 40)));
    trunk.send(&untagged(2));
    trunk.send(&of(2, &tagged(2, 30)));
    trunk.send(&of(2, &tagged(2, 0)));
    trunk.send(&mark(mac(2), "from trunk"));
    assert_eq!(u.heard_before("from trunk"), [untagged(2), untagged(2), untagged(2)]);
    assert_eq!(
        all.heard_before("from trunk"),
        [of(2, &tagged(3, 20)), of(2, &tagged(0, 30)), of(2, &tagged(2, 30)), of(2, &tagged(2, 30))]
    );
    dropped(&lab, "trunk", "vlan_not_allowed", 1);
    // An access port takes no tags, its own neither.
    a.send(&of(1, &tagged(0, 10)));
    a.send(&of(1, &tagged(0, 20)));
    dropped(&lab, "a", "vlan_not_allowed", 2);
    // What is for VLAN 20 was all that c heard, and nobody of VLAN 10 or 30 heard it.
    all.send(&of(9, &[0x81, 0, 0, 20, 0x88, 0xb5]));
    let end = of(9, &[0x88, 0xb5]);
    assert_eq!(c.heard_until(|frame| *frame == end[..]), [untagged(2)]);
    all.send(&of(9, &[0x81, 0, 0, 10, 0x88, 0xb5]));
    assert_eq!(a.heard_until(|frame| *frame == end[..]), Vec::<Vec<u8>>::new());
    assert_eq!(b.heard_until(|frame| *frame == end[..]), Vec::<Vec<u8>>::new());
}

#[test]
fn each_vlan_learns_for_itself() {
    needs!();
    let (lab, wires) =
        net("", &[("a10", "vlan = 10\n"), ("b10", "vlan = 10\n"), ("c20", "vlan = 20\n"), ("trunk", "trunk = [10, 20]\n")]);
    let [a10, b10, c20, trunk] = &wires[..] else { panic!("four wires") };
    // One address, at two places: in VLAN 10 behind a10, in VLAN 20 behind c20.
    a10.send(&frame(BROADCAST, mac(1), &EXPERIMENTAL, &[]));
    c20.send(&frame(BROADCAST, mac(1), &EXPERIMENTAL, &[]));
    lab.until("both are learned", |lab| lab.json("fdb br0").as_array().unwrap().len() == 2);
    let rows = lab.json("fdb br0");
    assert_eq!((&rows[0]["vlan"], &rows[0]["port"]), (&10.into(), &"a10".into()));
    assert_eq!((&rows[1]["vlan"], &rows[1]["port"]), (&20.into(), &"c20".into()));
    for vlan in [10, 20] {
        trunk.send(&frame(mac(1), mac(2), &tagged(0, vlan.into()), &[vlan; 100]));
    }
    for (wire, vlan) in [(a10, 10), (c20, 20)] {
        trunk.send(&frame(BROADCAST, mac(2), &[0x81, 0, 0, vlan, 0x88, 0xb5], b"mark over "));
        let mut heard = wire.heard_before("over");
        heard.retain(|frame| frame[6..12] == mac(2));
        assert_eq!(heard, [frame(mac(1), mac(2), &EXPERIMENTAL, &[vlan; 100])]);
    }
    let heard = b10.heard_before("over");
    assert_eq!(heard, [frame(BROADCAST, mac(1), &EXPERIMENTAL, &[])], "what is for one port goes to no other");
}

#[test]
fn service_tags_pass_untouched() {
    needs!();
    let (lab, wires) = net(
        "",
        &[("a", ""), ("b", "kind = \"veth\"\n"), ("x", "vlan = 10\n"), ("y", "vlan = 10\n"), ("trunk", "trunk = [10]\n")],
    );
    let [a, b, x, y, trunk] = &wires[..] else { panic!("five wires") };
    // Whoever sends full packets with service tags has an MTU that has room for them.
    ["a", "b", "x", "y", "trunk"].iter().for_each(|name| drop(lab.run_in(name, "ip link set eth0 mtu 1508").ok()));
    let service = |inner: &[u8]| frame(BROADCAST, mac(1), &[&[0x88, 0xa8, 0x60, 100], inner].concat(), &[7; 1500]);
    let frames = [service(&EXPERIMENTAL), service(&[0x81, 0, 0, 200, 0x88, 0xb6])];
    frames.iter().for_each(|frame| a.send(frame));
    a.send(&mark(mac(1), "a"));
    assert_eq!(b.heard_before("a"), frames);
    frames.iter().for_each(|frame| x.send(frame));
    x.send(&mark(mac(2), "x"));
    assert_eq!(y.heard_before("x"), frames, "an access port sees no tag of its own there");
    let mut with_tags = frames.to_vec();
    with_tags.iter_mut().for_each(|frame| drop(frame.splice(12..12, [0x81, 0, 0, 10])));
    assert_eq!(trunk.heard_before("x"), with_tags);
}

#[test]
fn control_frames_are_dropped_or_passed_as_the_bridge_says() {
    needs!();
    let (lab, wires) = net("", &[("a", ""), ("b", "")]);
    let [a, b] = &wires[..] else { panic!("two wires") };
    let control = |last| frame([0x01, 0x80, 0xc2, 0, 0, last], mac(1), &[0x88, 0xcc], b"hello");
    let all: Vec<Vec<u8>> = (0..16).map(control).collect();
    assert_eq!(carried(a, &[b], &all, "drop"), [Vec::<Vec<u8>>::new()]);
    dropped(&lab, "a", "control_frame", 16);
    // The neighbours of that range are multicast as any other.
    let outside = [frame([0x01, 0x80, 0xc2, 0, 0, 0x10], mac(1), &EXPERIMENTAL, &[])];
    assert_eq!(carried(a, &[b], &outside, "outside"), [outside.to_vec()]);
    let file = std::fs::read_to_string(lab.file()).unwrap();
    lab.write(&file.replace("name = \"br0\"\n[[", "name = \"br0\"\ncontrol-frames = \"pass\"\n[["));
    lab.ctl("reload").ok();
    let heard = carried(a, &[b], &all, "pass");
    let but_pause: Vec<Vec<u8>> = (0..16).filter(|last| *last != 1).map(control).collect();
    assert_eq!(heard, [but_pause]);
    dropped(&lab, "a", "control_frame", 17);
}

#[test]
fn a_broadcast_storm_is_held_to_its_limit() {
    needs!();
    let (lab, wires) = net("", &[("a", "broadcast-limit = 100\n"), ("b", "")]);
    let [a, b] = &wires[..] else { panic!("two wires") };
    b.send(&mark(mac(9), "known"));
    a.heard_before("known");
    let begun = Instant::now();
    for _ in 0..2000 {
        a.send(&frame(BROADCAST, mac(1), &EXPERIMENTAL, &[]));
    }
    // What is not flooded does not count, so the end of it gets through.
    let end = frame(mac(9), mac(1), &EXPERIMENTAL, b"end");
    a.send(&end);
    let heard = b.heard_until(|frame| *frame == end[..]).len();
    let earned = 100.0 * begun.elapsed().as_secs_f64();
    assert!((100.0..=101.0 + earned).contains(&(heard as f64)), "{heard} in {:?}", begun.elapsed());
    assert_eq!(drops(&lab, "a", "storm_limit"), 2000 - heard as u64);
    // The limit is lifted while it runs, and comes back.
    lab.ctl("set-port a --broadcast-limit 0").ok();
    let burst = vec![frame(BROADCAST, mac(1), &EXPERIMENTAL, &[]); 500];
    assert_eq!(carried(a, &[b], &burst, "lifted")[0].len(), 500);
    lab.ctl("set-port a --broadcast-limit 1").ok();
    burst.iter().for_each(|frame| a.send(frame));
    lab.until("it holds again", |lab| drops(lab, "a", "storm_limit") > 2000 - heard as u64 + 400);
}

/// An ARP message by a sender.
fn arp(source: [u8; 6], hardware: [u8; 6], address: [u8; 4]) -> Vec<u8> {
    let body = [&[0, 1, 8, 0, 6, 4, 0, 2][..], &hardware, &address, &[0; 6], &[10, 0, 0, 9]].concat();
    frame(BROADCAST, source, &ARP, &body)
}

fn ipv4(source: [u8; 6], address: [u8; 4]) -> Vec<u8> {
    let body = [&[0x45, 0, 0, 20, 0, 0, 0, 0, 64, 59, 0, 0][..], &address, &[10, 0, 0, 9]].concat();
    frame(BROADCAST, source, &IPV4, &body)
}

/// An ICMPv6 message of this kind about `target`.
fn icmp6(source: [u8; 6], address: &str, kind: u8, target: &str) -> Vec<u8> {
    let octets = |text: &str| text.parse::<std::net::Ipv6Addr>().unwrap().octets();
    let body = [&[kind, 0, 0, 0, 0x20, 0, 0, 0][..], &octets(target)].concat();
    let head = [0x60, 0, 0, 0, 0, u8::try_from(body.len()).unwrap(), 58, 255];
    frame(BROADCAST, source, &IPV6, &[&head[..], &octets(address), &octets("ff02::1"), &body].concat())
}

#[test]
fn a_guarded_port_keeps_its_ipv6_whatever_its_station_calls_itself() {
    needs!("ping");
    let station = |name: &str, number: u8, more: &str| {
        let addresses = format!("addresses = [\"10.0.0.{number}/24\", \"fd00::{number}/64\"]");
        format!("[[port]]\nname = \"{name}\"\nbridge = \"br0\"\nnetns = \"@{name}\"\n{addresses}\n{more}")
    };
    for (kind, gateway) in [("tap", ""), ("veth", "addresses = [\"fd00::9/64\"]\n")] {
        let a = station("a", 1, &format!("guard = true\nkind = \"{kind}\"\nmac = \"02:54:00:00:00:01\"\n"));
        let lab = Lab::with(&format!("[[bridge]]\nname = \"br0\"\n{gateway}{a}{}", station("b", 2, "")));
        let addresses = |lab: &Lab| lab.run_in("a", "ip -6 addr show dev eth0").ok();
        let ready = |lab: &Lab, id: &str| {
            let all = addresses(lab);
            all.contains(&format!("fe80::{id}")) && (gateway.is_empty() || all.contains(&format!("fd00::{id}")))
        };
        let talks = |lab: &Lab| ping(lab, "a", "fd00::2") && ping(lab, "b", "fd00::1") && ping(lab, "b", "10.0.0.1");
        // What the kernel made of the gateway's advertisement it prefers to what it was given.
        lab.until("it has made its addresses", |lab| ready(lab, "54:ff:fe00:1") && talks(lab));
        lab.run_in("a", "ip neigh flush dev eth0").ok();
        assert_eq!((talks(&lab), drops(&lab, "a", "guard_ip")), (true, 0), "{kind}: {}", addresses(&lab));
        lab.ctl("set-port a --mac 02:54:00:00:00:07").ok();
        assert!(addresses(&lab).contains("fe80::54:ff:fe00:7"), "{kind}: {}", addresses(&lab));
        assert!(!addresses(&lab).contains("54:ff:fe00:1"), "{kind}: {}", addresses(&lab));
        assert!(talks(&lab), "{kind}");
        lab.until("it has made the others", |lab| ready(lab, "54:ff:fe00:7"));
        lab.run_in("a", "ip neigh flush dev eth0").ok();
        assert_eq!((talks(&lab), drops(&lab, "a", "guard_ip")), (true, 0), "{kind}: {}", addresses(&lab));
    }
}

#[test]
fn a_guarded_port_speaks_only_as_itself() {
    needs!("ping");
    let lab = Lab::with(
        "[[bridge]]\nname = \"br0\"\n\
         [[port]]\nname = \"a\"\nbridge = \"br0\"\nnetns = \"@a\"\nguard = true\nmac = \"02:54:00:00:00:01\"\n\
         addresses = [\"10.0.0.1/24\", \"fd00::1/64\"]\n\
         [[port]]\nname = \"b\"\nbridge = \"br0\"\nnetns = \"@b\"\nmac = \"02:aa:00:00:00:02\"\naddresses = [\"10.0.0.2/24\", \"fd00::2/64\"]\n",
    );
    // A station that behaves notices nothing, down to neighbour discovery.
    assert!(ping(&lab, "a", "10.0.0.2"));
    lab.until("IPv6 works", |lab| ping(lab, "a", "fd00::2"));
    lab.run_in("a", "ip neigh flush dev eth0").ok();
    assert!(ping(&lab, "b", "10.0.0.1") && ping(&lab, "b", "fd00::1"));
    let reasons = ["guard_mac", "guard_ip", "guard_arp", "guard_nd"];
    reasons.iter().for_each(|reason| assert_eq!(drops(&lab, "a", reason), 0, "{reason}"));
    // One that does not: another address of its own stack, and bare frames.
    let own = mac(1);
    let (a, b) = (Wire::open(&lab, "a"), Wire::open(&lab, "b"));
    let link_local = "fe80::54:ff:fe00:1";
    let lies = [
        (frame(BROADCAST, mac(2), &EXPERIMENTAL, &[]), "guard_mac"),
        (ipv4(mac(2), [10, 0, 0, 1]), "guard_mac"),
        (ipv4(own, [10, 0, 0, 7]), "guard_ip"),
        (ipv4(own, [127, 0, 0, 1]), "guard_ip"),
        (icmp6(own, "fd00::7", 128, "::"), "guard_ip"),
        (icmp6(own, "fe80::7", 128, "::"), "guard_ip"),
        (arp(own, own, [10, 0, 0, 2]), "guard_arp"),
        (arp(own, mac(2), [10, 0, 0, 1]), "guard_arp"),
        (frame(BROADCAST, own, &[&tagged(0, 5)[..4], &ARP[..]].concat(), &arp(own, own, [10, 0, 0, 2])[14..]), "guard_arp"),
        (icmp6(own, "fd00::1", 136, "fd00::2"), "guard_nd"),
        (icmp6(own, link_local, 134, "::"), "guard_nd"),
    ];
    let truths = [
        frame(BROADCAST, own, &EXPERIMENTAL, &[]),
        ipv4(own, [10, 0, 0, 1]),
        ipv4(own, [0, 0, 0, 0]),
        arp(own, own, [10, 0, 0, 1]),
        arp(own, own, [0, 0, 0, 0]),
        icmp6(own, "fd00::1", 136, "fd00::1"),
        icmp6(own, link_local, 136, link_local),
        icmp6(own, "::", 135, "fd00::1"),
    ];
    let both = lies.iter().map(|(frame, _)| frame).chain(&truths);
    both.for_each(|frame| a.send(frame));
    a.send(&mark(own, "end"));
    let mut heard = b.heard_before("end");
    // The station's own stack is there too.
    heard.retain(|frame| truths.contains(frame) || lies.iter().any(|(lie, _)| lie == frame));
    assert_eq!(heard, truths);
    for reason in reasons {
        dropped(&lab, "a", reason, lies.iter().filter(|(_, why)| *why == reason).count() as u64);
    }
    lab.ctl("set-port a --guard off").ok();
    lies.iter().for_each(|(frame, _)| a.send(frame));
    a.send(&mark(own, "free"));
    let heard = b.heard_before("free");
    // What the configuration gives to `b`, in its VLAN, is no other port's, guarded or not.
    let claims = [arp(own, own, [10, 0, 0, 2]), icmp6(own, "fd00::1", 136, "fd00::2")];
    assert!(lies.iter().all(|(lie, _)| heard.contains(lie) != claims.contains(lie)));
    dropped(&lab, "a", "spoofed_address", claims.len() as u64);
    assert_eq!(reasons.map(|reason| drops(&lab, "a", reason)).iter().sum::<u64>(), lies.len() as u64);
}

#[test]
fn an_address_that_moves_is_relearned_at_once() {
    needs!();
    let (_lab, wires) = net("", &[("a", ""), ("b", "kind = \"veth\"\n"), ("c", "")]);
    let [a, b, c] = &wires[..] else { panic!("three wires") };
    for round in 0..50 {
        let (here, there) = if round % 2 == 0 { (a, b) } else { (b, a) };
        let name = format!("at {round}");
        // Each moves as often as a station may that moves to and fro.
        let mover = mac(10 + round / 4);
        here.send(&mark(mover, &name));
        assert!(c.heard_before(&name).is_empty(), "nothing for the other was flooded");
        there.heard_before(&name);
        let question = frame(mover, mac(3), &EXPERIMENTAL, name.as_bytes());
        c.send(&question);
        c.send(&mark(mac(3), &name));
        assert_eq!(here.heard_before(&name), [question]);
        assert!(there.heard_before(&name).is_empty());
    }
}

#[test]
fn a_silent_address_is_forgotten_and_flooded_again() {
    needs!();
    let (lab, wires) = net("ageing = \"2s\"\n", &[("a", ""), ("b", ""), ("c", "")]);
    let [a, b, c] = &wires[..] else { panic!("three wires") };
    let begun = Instant::now();
    a.send(&mark(mac(1), "here"));
    c.heard_before("here");
    b.heard_before("here");
    let to_a = [frame(mac(1), mac(2), &EXPERIMENTAL, &[])];
    assert_eq!(carried(b, &[a, c], &to_a, "known"), [to_a.to_vec(), vec![]]);
    lab.until("it is forgotten", |lab| {
        let rows = lab.json("fdb br0");
        rows.as_array().unwrap().iter().all(|row| row["mac"] != "02:54:00:00:00:01")
    });
    assert!((Duration::from_secs(1)..Duration::from_secs(10)).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    assert_eq!(carried(b, &[a, c], &to_a, "unknown"), [to_a.to_vec(), to_a.to_vec()]);
    // A flush does the same at once.
    a.send(&mark(mac(1), "again"));
    c.heard_before("again");
    b.heard_before("again");
    lab.ctl("fdb br0 --flush").ok();
    assert_eq!(carried(b, &[a, c], &to_a, "flushed"), [to_a.to_vec(), to_a.to_vec()]);
}

#[test]
fn bad_frames_are_counted_by_reason_and_go_nowhere() {
    needs!();
    let (lab, wires) = net("", &[("a", ""), ("v", "kind = \"veth\"\n"), ("b", "")]);
    let [a, v, b] = &wires[..] else { panic!("three wires") };
    for (name, wire) in [("a", a), ("v", v)] {
        lab.run_in(name, "ip link set eth0 mtu 9000").ok();
        let long = |length: usize, kind: &[u8]| frame(BROADCAST, mac(1), kind, &vec![1; length]);
        // Of what is much longer than the switch's end may have, a veth pair itself lets nothing through.
        let longest = if name == "a" { 8000 } else { 1504 };
        let too_long = [long(1501, &EXPERIMENTAL), long(longest, &EXPERIMENTAL), long(1501, &tagged(0, 10))];
        let just = [long(1500, &EXPERIMENTAL), long(1500, &tagged(0, 10))];
        let sourceless =
            [frame(BROADCAST, [0; 6], &EXPERIMENTAL, &[]), frame(BROADCAST, [3, 0x54, 0, 0, 0, 1], &EXPERIMENTAL, &[])];
        let sent = [&too_long[..], &just, &sourceless].concat();
        let heard = carried(wire, &[b], &sent, name);
        assert_eq!(heard, [just.to_vec()], "{name}");
        dropped(&lab, name, "oversized", 3);
        dropped(&lab, name, "invalid_source", 2);
    }
    // The kernel lets a packet socket send less than a header; a tag without the rest is as bad.
    let before = lab.json("stats a")[0]["rx_frames"].as_u64().unwrap();
    let runts = [&frame(BROADCAST, mac(1), &[], &[])[..13], &frame(BROADCAST, mac(1), &[0x81, 0], &[])[..15]];
    let taken = runts.iter().filter(|runt| a.try_send(runt)).count() as u64;
    assert!(taken > 0, "no runt could be sent");
    dropped(&lab, "a", "runt", taken);
    assert_eq!(lab.json("stats a")[0]["rx_frames"].as_u64().unwrap(), before + taken);
    // To itself, and to nobody.
    a.send(&frame(BROADCAST, mac(5), &EXPERIMENTAL, &[]));
    a.send(&frame(mac(5), mac(6), &EXPERIMENTAL, &[]));
    dropped(&lab, "a", "same_port", 1);
    lab.ctl("del-port v").ok();
    lab.ctl("set-port b --vlan 7").ok();
    a.send(&frame(BROADCAST, mac(5), &EXPERIMENTAL, &[]));
    dropped(&lab, "a", "no_destination", 1);
}

#[test]
fn jumbo_frames_pass_up_to_the_mtu() {
    needs!();
    let (lab, wires) =
        net("mtu = 9000\n", &[("a", ""), ("b", "kind = \"veth\"\n"), ("c", "offload = false\n"), ("d", "vlan = 1\n")]);
    for name in ["a", "b", "c", "d"] {
        assert!(lab.run_in(name, "ip -o link show eth0").ok().contains("mtu 9000"), "{name}");
    }
    let [a, b, c, d] = &wires[..] else { panic!("four wires") };
    lab.run_in("a", "ip link set eth0 mtu 10000").ok();
    let long = |length: usize, kind: &[u8]| frame(BROADCAST, mac(1), kind, &vec![1; length]);
    let whole = [long(9000, &EXPERIMENTAL), long(8996, &[0x88, 0xa8, 0, 1, 0x88, 0xb6])];
    let sent = [&whole[..], &[long(9001, &EXPERIMENTAL)]].concat();
    assert_eq!(carried(a, &[b, c, d], &sent, "jumbo"), vec![whole.to_vec(); 3]);
    dropped(&lab, "a", "oversized", 1);
    // A smaller MTU holds at once, for stations and for frames.
    let file = std::fs::read_to_string(lab.file()).unwrap();
    lab.write(&file.replace("9000", "2000"));
    lab.ctl("reload").ok();
    assert!(lab.run_in("b", "ip -o link show eth0").ok().contains("mtu 2000"));
    lab.run_in("a", "ip link set eth0 mtu 10000").ok();
    assert_eq!(
        carried(a, &[b], &[long(2001, &EXPERIMENTAL), long(2000, &EXPERIMENTAL)], "smaller"),
        [[long(2000, &EXPERIMENTAL)]]
    );
}

#[test]
fn what_nobody_knows_reaches_everyone_once() {
    needs!();
    let mut lab = Lab::new();
    lab.add_netns("lan");
    lab.sh(
        "ip -n @host link add lan type veth peer name eth0 netns @lan && ip -n @host link set lan up && ip -n @lan link set eth0 up",
    )
    .ok();
    let port = |name: &str, kind: &str| format!("[[port]]\nname = \"{name}\"\nbridge = \"br0\"\nkind = \"{kind}\"\n");
    let inside = |name: &str, kind: &str| port(name, kind) + &format!("netns = \"@{name}\"\nmac = \"02:aa:00:00:00:01\"\n");
    lab.write(&format!(
        "[[bridge]]\nname = \"br0\"\n{}{}{}{}device = \"lan\"\n[[bridge]]\nname = \"br1\"\n{}",
        inside("t1", "tap"),
        inside("t2", "tap"),
        inside("v", "veth"),
        port("lan", "link"),
        inside("other", "tap").replace("br0", "br1"),
    ));
    lab.start();
    let wires: Vec<Wire> = ["t1", "t2", "v", "lan", "other"].iter().map(|name| Wire::open(&lab, name)).collect();
    for (number, from) in (0..4u16).zip(&wires) {
        let sent: Vec<Vec<u8>> = [mac(77), BROADCAST, [0x33, 0x33, 0, 0, 0, 5], [1, 0, 0x5e, 0, 0, 5]]
            .map(|destination| frame(destination, mac(number), &EXPERIMENTAL, &[]))
            .to_vec();
        let others: Vec<&Wire> = (0..4u16).zip(&wires).filter(|(other, _)| *other != number).map(|(_, wire)| wire).collect();
        for heard in carried(from, &others, &sent, &format!("from {number}")) {
            assert_eq!(heard, sent);
        }
        // Now its address is known: what is for it goes to it alone.
        let answer = [frame(mac(number), mac(50), &EXPERIMENTAL, &[])];
        let next = (usize::from(number) + 1) % 4;
        let rest: Vec<&Wire> = wires.iter().take(4).enumerate().filter(|(n, _)| *n != next).map(|(_, wire)| wire).collect();
        let heard = carried(&wires[next], &rest, &answer, &format!("to {number}"));
        let at: Vec<usize> = heard.iter().map(Vec::len).collect();
        assert_eq!((at.iter().sum::<usize>(), heard.concat()), (1, answer.to_vec()), "port {number}: {at:?}");
    }
    // The other bridge heard none of it.
    let count = lab.json("stats other")[0]["tx_frames"].as_u64().unwrap();
    assert_eq!(count, 0);
    assert!(lab.json("fdb br1").as_array().unwrap().iter().all(|row| !row["mac"].as_str().unwrap().starts_with("02:54")));
}

#[test]
fn what_one_worker_learns_all_know() {
    needs!();
    let mut lab = Lab::new();
    let port = |name: &str| {
        format!("[[port]]\nname = \"{name}\"\nbridge = \"br0\"\nnetns = \"@{name}\"\nmac = \"02:aa:00:00:00:01\"\n")
    };
    let directory = lab.path("").display().to_string();
    lab.write(&format!(
        "[switch]\nworkers = 3\ncontrol = \"{directory}/control.sock\"\nstate-dir = \"{directory}/state\"\n[[bridge]]\nname = \"br0\"\n{}{}{}",
        port("a"),
        port("b"),
        port("c")
    ));
    lab.start();
    let wires: Vec<Wire> = ["a", "b", "c"].iter().map(|name| Wire::open(&lab, name)).collect();
    let [a, b, c] = &wires[..] else { panic!("three wires") };
    a.send(&frame(BROADCAST, mac(1), &EXPERIMENTAL, &[]));
    lab.until("it is learned", |lab| {
        lab.json("fdb br0").as_array().unwrap().iter().any(|row| row["mac"] == "02:54:00:00:00:01")
    });
    std::thread::sleep(Duration::from_millis(200));
    // Many flows, so that every worker gets some.
    for flow in 0..64_u8 {
        let head =
            [&[0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0][..], &[10, 0, 0, flow], &[10, 0, 0, 9], &[flow, 1, 0, 9, 0, 8, 0, 0]];
        b.send(&frame(mac(1), mac(2), &IPV4, &head.concat()));
    }
    let mut count = 0;
    a.heard_until(|frame| {
        count += usize::from(frame[6..12] == mac(2));
        count == 64
    });
    std::thread::sleep(Duration::from_millis(100));
    b.send(&mark(mac(2), "end"));
    assert!(c.heard_before("end").iter().all(|frame| frame[6..12] != mac(2)), "nothing was flooded");
}
