//! Docker's networks that are part of a LAN (`vswitch-lan`): `wan` is the interface of the LAN, on which the outside is the router.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

use vswitch_tests::{DockerHost, FROM, needs};

const FILE: &str = "[docker]\nenabled = true\n";

/// Words that the lines use.
const WORDS: &str = r#"
# web NAME [OPTIONS]: a container that says who asks.
web() { local name=$1; shift; docker run -d --name $name --hostname $name "$@" httpd > /dev/null; }
# what NAME TEMPLATE: of a container's place on its network.
what() { docker inspect -f "{{range .NetworkSettings.Networks}}$2{{end}}" $1; }
"#;

/// The outside as a LAN with two VLANs, in each of which it has a leg: a kernel may know no VLANs.
const LAN: &str = r#"
switch = { control = "/run/lan.sock", state-dir = "/run/lan.state" }
bridge = [{ name = "lan" }]
port = [
    { name = "trunk", bridge = "lan", kind = "link", device = "lan", trunk = [10, 20] },
    { name = "lan.10", bridge = "lan", vlan = 10, addresses = ["198.18.10.1/24"] },
    { name = "lan.20", bridge = "lan", vlan = 20, addresses = ["198.18.20.1/24"] },
]
"#;

const CREATE: &str = "docker network create -d vswitch-lan --subnet 192.0.2.0/24 --gateway 192.0.2.2 --ip-range 192.0.2.192/27 \
    --ipv6 --subnet 2001:db8::/64 --gateway 2001:db8::2 --ip-range 2001:db8::200/120 -o parent=wan lan > /dev/null";

/// Runs lines; what they print.
#[track_caller]
fn say(host: &DockerHost, lines: &str) -> String {
    host.sh(&format!("{FROM}{WORDS}\n{lines}")).ok().trim_end().to_owned()
}

#[track_caller]
fn all_reach_each_other(host: &DockerHost) {
    for (line, answer) in [
        ("from outside 192.0.2.200", "aa 192.0.2.2"),
        ("from outside [2001:db8::2c8]", "aa 2001:db8::2"),
        ("from aa 198.51.100.1", "outside 192.0.2.200"),
        ("from aa [2001:db8:1::1]", "outside 2001:db8::2c8"),
        ("from bb 192.0.2.200 | grep -c '^aa 192.0.2.'", "1"),
        ("from host 192.0.2.200", "aa 192.0.2.1"),
        ("from aa 192.0.2.1:8000", "host 192.0.2.200"),
        ("from host [2001:db8::2c8]", "aa 2001:db8::1"),
        ("from aa [2001:db8::1]:8000", "host 2001:db8::2c8"),
        ("from host 198.51.100.1", "outside 192.0.2.1"),
        ("from outside 192.0.2.1:8000", "host 192.0.2.2"),
    ] {
        assert_eq!(say(host, line), answer, "{line}");
    }
}

#[test]
fn containers_are_on_the_lan_and_the_host_reaches_them() {
    needs!("dockerd", "docker", "unshare", "busybox", "dnsmasq", "curl");
    let mut host = DockerHost::with(FILE);
    say(
        &host,
        &format!("{CREATE}; web aa --network lan --ip 192.0.2.200 --ip6 2001:db8::2c8 -p 8080:80; web bb --network lan"),
    );
    let given = say(&host, "what bb {{.IPAddress}}");
    let last: u8 = given.strip_prefix("192.0.2.").unwrap().parse().unwrap();
    assert!((192..=223).contains(&last), "{given} is not in the range");
    assert_eq!(say(&host, "docker exec aa ip route | head -n 1"), "default via 192.0.2.2 dev eth0");
    all_reach_each_other(&host);

    // The LAN knows the host where it was, and hears nothing of the host's port.
    let mac = "ip -o link show wan | grep -o 'link/ether [^ ]*' | cut -c 12-; outside ip neigh show 192.0.2.1 | grep -o 'lladdr [^ ]*' | cut -c 8-";
    let macs = say(&host, mac);
    let (own, known) = macs.split_once('\n').unwrap();
    assert_eq!(own, known);
    // What is for the host is no matter of the switch.
    say(&host, "curl -s -o /dev/null http://198.51.100.1/");
    let taken = say(&host, "vsctl --json stats lan-wan | grep -o '\"same_port\": *[0-9]*' | grep -o '[0-9]*$'");
    assert!(taken.parse::<u64>().unwrap() > 0, "{taken}");

    host.stop("vswitchd", libc::SIGKILL);
    host.start_vswitchd();
    all_reach_each_other(&host);
    host.stop("vswitchd", libc::SIGTERM);
    let left = "ip -o link | grep -c host-; ip route show table all | grep -c host-; ip -o -4 addr show to 192.0.2.1 | wc -l";
    assert_eq!(host.sh(left).stdout, "0\n0\n1\n");
    host.start_vswitchd();
    all_reach_each_other(&host);

    let taken = host.sh("docker run --rm --network lan --ip 192.0.2.1 busybox true");
    assert!(taken.stderr.contains("the address 192.0.2.1 is the host's own on this LAN"), "{taken:?}");
    // Linux answers for all of its addresses at any interface.
    say(&host, "outside ip addr add 192.0.2.210/32 dev lo");
    let taken = host.sh("docker run --rm --network lan --ip 192.0.2.210 busybox true");
    assert!(taken.stderr.contains("the address 192.0.2.210 is that of the station"), "{taken:?}");
    say(&host, "outside ip addr del 192.0.2.210/32 dev lo; docker run --rm --network lan --ip 192.0.2.210 busybox true");
    let refused = say(&host, "vsctl del-port lan-wan 2>&1; vsctl del-br lan-wan 2>&1; true");
    assert_eq!(refused.matches("remove that with docker network rm").count(), 1, "{refused}");
    assert_eq!(refused.matches("remove it with docker network rm").count(), 1, "{refused}");
    say(&host, "docker rm -f aa > /dev/null");
    assert_eq!(say(&host, "ip route show 192.0.2.200; ip -6 route show 2001:db8::2c8"), "");
    say(&host, "docker rm -f bb > /dev/null; docker network rm lan > /dev/null");
    assert_eq!(host.sh(left).stdout, "0\n0\n1\n");
    assert_eq!(
        say(&host, "vsctl list-br | tail -n +2; vsctl list-ports | tail -n +2; from host 198.51.100.1"),
        "outside 192.0.2.1"
    );
}

#[test]
fn vlans_of_one_interface_are_apart() {
    needs!("dockerd", "docker", "unshare", "busybox", "dnsmasq", "curl");
    let mut host = DockerHost::with(FILE);
    host.switch_outside(LAN);
    say(
        &host,
        "docker network create -d vswitch-lan --subnet 198.18.10.0/24 --gateway 198.18.10.1 -o parent=wan.10 ten > /dev/null
         docker network create -d vswitch-lan --subnet 198.18.20.0/24 --gateway 198.18.20.1 -o parent=wan -o vswitch.vlan=20 twenty > /dev/null
         web aa --network ten --ip 198.18.10.9; web bb --network twenty --ip 198.18.20.9",
    );
    assert_eq!(say(&host, "vsctl list-br | tail -n +2 | wc -l; vsctl list-ports | grep -c lan-wan.*link"), "1\n1");
    for (line, answer) in [
        ("from outside 198.18.10.9", "aa 198.18.10.1"),
        ("from bb 198.51.100.1", "outside 198.18.20.9"),
        ("outside busybox arping -q -c 1 -w 2 -I lan.10 198.18.10.9 && echo yes", "yes"),
        ("outside busybox arping -q -c 1 -w 1 -I lan.20 198.18.10.9 || echo no", "no"),
        ("outside busybox arping -q -c 1 -w 1 -I lan 198.18.10.9 || echo no", "no"),
    ] {
        assert_eq!(say(&host, line), answer, "{line}");
    }
    // The host comes to the VLAN later, and leaves it again.
    say(&host, "ip link add leg type veth peer name other; ip addr add 198.18.10.5/32 dev leg; ip link set leg up");
    host.until("the host has its leg", |host| host.sh("ip route show 198.18.10.9 | grep host-").code == Some(0));
    assert_eq!(say(&host, "from host 198.18.10.9; from aa 198.18.10.5:8000"), "aa 198.18.10.5\nhost 198.18.10.9");
    say(&host, "ip link del leg");
    host.until("the host has left", |host| host.sh("ip -o link | grep host-").code == Some(1));
    assert_eq!(say(&host, "from outside 198.18.10.9"), "aa 198.18.10.1");
    say(&host, "docker rm -f aa > /dev/null; docker network rm ten > /dev/null");
    assert_eq!(say(&host, "from outside 198.18.20.9"), "bb 198.18.20.1");
}

#[test]
fn what_is_wrong_with_a_network_on_a_lan_is_said() {
    needs!("dockerd", "docker", "unshare", "busybox", "dnsmasq", "curl");
    let host = DockerHost::with(FILE);
    for (options, part) in [
        ("", "the network has no `parent`: add -o parent=eth0"),
        ("-o parent=eth9", "no interface \"eth9\""),
        ("-o parent=wan -o vswitch.uplink=x", "unknown option `vswitch.uplink`: the driver vswitch-lan knows parent,"),
        ("-o parent=wan --internal", "no option of an internal network"),
    ] {
        let create = format!("docker network create -d vswitch-lan --subnet 198.18.1.0/24 {options} bad 2>&1");
        let outcome = host.sh(&create);
        assert!(outcome.code == Some(1) && outcome.stdout.contains(part), "{options}: {outcome:?}");
    }
    assert_eq!(say(&host, "vsctl list-br | tail -n +2"), "");
}
