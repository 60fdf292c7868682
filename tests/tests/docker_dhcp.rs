//! Containers on a LAN whose addresses come from its DHCP server (`vswitch-lan` with `--ipam-driver null`): dnsmasq or busybox's udhcpd, on the
//! outside, which is the router too.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

use vswitch_tests::{DockerHost, FROM, needs};

const FILE: &str = "[docker]\nenabled = true\n";

/// Words that the lines use.
const WORDS: &str = r#"
# web NAME [OPTIONS]: a container that says who asks.
web() { local name=$1; shift; docker run -d --name $name --hostname $name --network lan "$@" httpd > /dev/null; }
# address NAME: what Docker says is a container's.
address() { docker inspect -f '{{range .NetworkSettings.Networks}}{{.IPAddress}}/{{.IPPrefixLen}}{{end}}' $1; }
# dnsmasq_on RANGE [OPTIONS]: the LAN's DHCP server.
# It stays root, since its log is in a directory with the sticky bit, where no user may open what is another's (fs.protected_regular).
dnsmasq_on() {
    local range=$1; shift
    outside dnsmasq --user=root --conf-file=/dev/null --pid-file=/run/dhcp.pid --port=0 --interface=lan --bind-interfaces --no-ping \
        --dhcp-authoritative --dhcp-leasefile=/run/dhcp.leases --log-dhcp --log-facility=/run/dhcp.log --dhcp-range=$range "$@"
}
dnsmasq_off() { kill $(cat /run/dhcp.pid); while [ -e /run/dhcp.pid ]; do sleep 0.05; done; }
# ear, asked: listens for DHCP messages on the LAN; waits until there was one.
ear() {
    rm -f /run/asked
    outside tcpdump -nli lan -c 1 udp dst port 67 > /run/asked 2>&1 &
    until grep -qs listening /run/asked; do sleep 0.05; done
}
asked() { until grep -q BOOTP /run/asked; do sleep 0.05; done; }
# udhcpd_on FIRST LAST SECONDS: one that grants as short a lease as it is told.
udhcpd_on() {
    touch /run/udhcpd.leases
    cat > /run/udhcpd.conf <<END
start $1
end $2
interface lan
max_leases 20
min_lease 5
lease_file /run/udhcpd.leases
pidfile /run/udhcpd.pid
option subnet 255.255.255.0
option router 192.0.2.2
option lease $3
END
    outside busybox udhcpd -f /run/udhcpd.conf > /run/udhcpd.log 2>&1 &
}
"#;

const CREATE: &str = "docker network create -d vswitch-lan --ipam-driver null -o parent=wan lan > /dev/null";

/// Runs lines; what they print.
#[track_caller]
fn say(host: &DockerHost, lines: &str) -> String {
    host.sh(&format!("{FROM}{WORDS}\n{lines}")).ok().trim_end().to_owned()
}

/// Waits until a line prints this.
#[track_caller]
fn until(host: &mut DockerHost, line: &str, answer: &str) {
    host.until(line, |host| host.sh(&format!("{FROM}{WORDS}\n{line}")).stdout.trim_end() == answer);
}

/// The lease of a container's address, as vswitchd sees it.
const GRANTED: &str = "vsctl --json list-ports | python3 -c '
import json, sys
print(*(port[\"lease\"][\"granted\"] for port in json.load(sys.stdin) if port[\"lease\"]))'";

#[track_caller]
fn all_reach_each_other(host: &DockerHost) {
    let [aa, bb] = ["aa", "bb"].map(|name| say(host, &format!("address {name}")).trim_end_matches("/24").to_owned());
    for (line, answer) in [
        (format!("from outside {aa}"), "aa 192.0.2.2".to_owned()),
        ("from aa 198.51.100.1".to_owned(), format!("outside {aa}")),
        (format!("from bb {aa}"), format!("aa {bb}")),
        (format!("from host {aa}"), "aa 192.0.2.1".to_owned()),
        ("from aa 192.0.2.1:8000".to_owned(), format!("host {aa}")),
    ] {
        assert_eq!(say(host, &line), answer, "{line}");
    }
}

#[test]
fn containers_get_their_addresses_from_the_lan_and_give_them_back() {
    needs!("dockerd", "docker", "unshare", "busybox", "dnsmasq", "curl", "python3");
    let mut host = DockerHost::with(&format!("{FILE}[switch]\nworkers = 2\n"));
    say(&host, &format!("{CREATE}; dnsmasq_on 192.0.2.100,192.0.2.110,255.255.255.0,1h --dhcp-option=option:router,192.0.2.2"));
    say(&host, "web aa --mac-address 02:00:00:00:00:aa & web bb & wait");
    let given = ["aa", "bb"].map(|name| say(&host, &format!("address {name}")));
    for address in &given {
        let last = address.strip_prefix("192.0.2.").and_then(|rest| rest.strip_suffix("/24"));
        assert!((100..=110).contains(&last.unwrap().parse::<u8>().unwrap()), "{given:?}");
    }
    assert_ne!(given[0], given[1]);
    assert_eq!(say(&host, "docker exec aa ip route | head -n 1"), "default via 192.0.2.2 dev eth0");
    assert_eq!(say(&host, "docker exec aa ip -o addr show eth0 | awk '{ print $4 }'"), given[0]);
    assert_eq!(
        say(&host, "docker network inspect -f '{{range .Containers}}{{.IPv4Address}} {{end}}' lan | xargs -n 1 | wc -l"),
        "2"
    );
    assert_eq!(say(&host, "wc -l < /run/dhcp.leases"), "2");
    assert_eq!(say(&host, GRANTED), "True True");
    assert!(say(&host, "vsctl show").contains("by DHCP from 192.0.2.2, for 3600 s at a time"));
    all_reach_each_other(&host);

    // Leases survive vswitchd, which asks for them again.
    let asked = "grep -c 'DHCPREQUEST(lan).*02:00:00:00:00:aa' /run/dhcp.log";
    for (signal, times) in [(libc::SIGKILL, "2"), (libc::SIGTERM, "3")] {
        host.stop("vswitchd", signal);
        host.start_vswitchd();
        until(&mut host, GRANTED, "True True");
        assert_eq!(say(&host, asked), times);
        assert_eq!(["aa", "bb"].map(|name| say(&host, &format!("address {name}"))), given);
        all_reach_each_other(&host);
    }
    assert_eq!(host.sh("grep -c -e DHCPRELEASE -e DHCPNAK -e DHCPDECLINE /run/dhcp.log").stdout, "0\n");

    // A MAC address of its own brings the same address again; what is not wanted any more goes back.
    say(&host, "docker restart -t 0 aa bb > /dev/null");
    assert_eq!(say(&host, "address aa"), given[0]);
    all_reach_each_other(&host);

    say(&host, "docker rm -f bb > /dev/null");
    until(&mut host, "wc -l < /run/dhcp.leases", "1");

    // One that comes back before anybody noticed its death has its lease, and the dead one does not give it back.
    host.stop("dockerd", libc::SIGKILL);
    host.start_dockerd(&[]);
    assert_eq!(say(&host, "docker restart -t 0 aa > /dev/null; address aa"), given[0]);
    assert_eq!(
        say(&host, "from aa 198.51.100.1; wc -l < /run/dhcp.leases"),
        format!("outside {}\n1", given[0].trim_end_matches("/24"))
    );
    say(&host, "docker rm -f aa > /dev/null");
    until(&mut host, "wc -l < /run/dhcp.leases; ls /var/lib/vswitch | grep -c lease-", "0\n0");
    assert_eq!(say(&host, &format!("ip route show {}", given[0].trim_end_matches("/24"))), "");
    say(&host, "docker network rm lan > /dev/null");
    assert_eq!(
        say(&host, "vsctl list-br | tail -n +2; vsctl list-ports | tail -n +2; ip -o link | grep -e host- -e ep- || true"),
        ""
    );
}

#[test]
fn without_a_server_it_is_said_in_time_and_nobody_else_waits() {
    needs!("dockerd", "docker", "unshare", "busybox", "dnsmasq", "curl", "tcpdump");
    let mut host = DockerHost::with(FILE);
    say(&host, &format!("{CREATE}; docker network create -d vswitch --subnet 10.70.0.0/24 net1 > /dev/null"));
    let lines = "ear; begin=$(date +%s%N)
        docker run --rm --network lan busybox true > /run/refused 2>&1 &
        waiting=$!; asked
        docker run --rm --network net1 busybox true && docker network create -d vswitch-lan --subnet 192.0.2.0/24 -o parent=wan other > /dev/null
        kill -0 $waiting && echo other calls went on
        wait $waiting; echo $? $(( ($(date +%s%N) - begin) / 1000000000 ))";
    let said = say(&host, lines);
    let (meanwhile, end) = said.split_once('\n').unwrap();
    let (code, seconds) = end.split_once(' ').unwrap();
    assert_eq!((meanwhile, code), ("other calls went on", "125"));
    // What Docker itself does before and after takes as long as the machine has other things to do.
    assert!((8..=30).contains(&seconds.parse::<u8>().unwrap()), "{said}");
    let refused = say(&host, "cat /run/refused");
    assert!(refused.contains("no DHCP server answered on wan within 8 s: start one there"), "{refused}");
    assert_eq!(say(&host, "vsctl list-ports | grep -c ep- || true; ls /var/lib/vswitch | grep -c lease- || true"), "0\n0");

    // One that comes in time is heard.
    let late = "ear; (asked; dnsmasq_on 192.0.2.100,192.0.2.110,255.255.255.0,1h) & web late; address late";
    assert!(say(&host, late).starts_with("192.0.2.1"));

    // Docker dies while it waits: nobody gets what it asked for.
    say(
        &host,
        "dnsmasq_off; docker rm -f late > /dev/null; rm /run/dhcp.log /run/dhcp.leases
        ear; docker run -d --network lan busybox true > /run/lost 2>&1 & asked",
    );
    host.stop("dockerd", libc::SIGKILL);
    host.start_dockerd(&[]);
    say(&host, "dnsmasq_on 192.0.2.100,192.0.2.110,255.255.255.0,1h; web again; address again");
    // A server that is slow to answer is asked again, but by one station.
    let askers = "grep DHCPDISCOVER /run/dhcp.log | grep -o '..:..:..:..:..:..' | sort -u | wc -l; wc -l < /run/dhcp.leases";
    assert_eq!(say(&host, askers), "1\n1");

    for (create, part) in [
        ("docker network create -d vswitch-lan --ipam-driver null -o parent=eth9 bad", "no interface \"eth9\""),
        ("docker run --rm --network lan --ip 192.0.2.77 busybox true", "user configured subnets"),
    ] {
        let outcome = host.sh(create);
        assert!(outcome.code != Some(0) && outcome.stderr.contains(part), "{create}: {outcome:?}");
    }
}

#[test]
fn an_address_that_somebody_has_is_declined() {
    needs!("dockerd", "docker", "unshare", "busybox", "dnsmasq", "curl");
    let host = DockerHost::with(FILE);
    // By ARP, Linux answers for all of its addresses at any interface.
    say(
        &host,
        &format!(
            "{CREATE}; outside ip addr add 192.0.2.100/32 dev lo
            dnsmasq_on 192.0.2.100,192.0.2.101,255.255.255.0,1h --dhcp-sequential-ip \
                --dhcp-option=121,0.0.0.0/0,192.0.2.2,203.0.113.0/24,192.0.2.2,198.18.0.0/15,0.0.0.0
            web aa"
        ),
    );
    assert_eq!(say(&host, "address aa; grep -c 'DHCPDECLINE(lan) 192.0.2.100' /run/dhcp.log"), "192.0.2.101/24\n1");
    assert!(host.log("vswitchd").contains("DHCP gave 192.0.2.100, which "));
    // Routes came with it.
    let routes = say(&host, "docker exec aa ip route");
    for route in ["default via 192.0.2.2 dev eth0", "203.0.113.0/24 via 192.0.2.2 dev eth0", "198.18.0.0/15 dev eth0"] {
        assert!(routes.contains(route), "{routes}");
    }
    // And none that is free is left.
    say(&host, "outside ip addr add 192.0.2.101/32 dev lo; docker rm -f aa > /dev/null");
    say(&host, "dnsmasq_off; rm /run/dhcp.leases; dnsmasq_on 192.0.2.100,192.0.2.101,255.255.255.0,1h");
    let refused = host.sh("docker run --rm --network lan busybox true");
    assert!(refused.stderr.contains("which DHCP gave on wan, is that of the station"), "{refused:?}");
}

#[test]
fn a_lease_is_renewed_and_a_lost_one_is_told_and_asked_for_again() {
    needs!("dockerd", "docker", "unshare", "busybox", "dnsmasq", "curl", "python3");
    let mut host = DockerHost::with(FILE);
    say(&host, &format!("{CREATE}; udhcpd_on 192.0.2.100 192.0.2.110 10; web aa"));
    let address = say(&host, "address aa");
    let acks = "[ $(grep -c 'sending ACK to' /run/udhcpd.log) -ge 3 ] && grep -c 'sending OFFER' /run/udhcpd.log";
    until(&mut host, acks, "1");
    assert_eq!(say(&host, GRANTED), "True");

    // Nobody is there any more: the container goes on, and the address comes back.
    let ip = address.trim_end_matches("/24").to_owned();
    say(&host, "kill $(cat /run/udhcpd.pid)");
    until(&mut host, GRANTED, "False");
    assert!(host.log("vswitchd").contains(&format!("no DHCP server grants {ip} any more, which the container keeps")));
    assert!(say(&host, "vsctl show").contains("which does not grant it now and is asked again"));
    assert_eq!(say(&host, &format!("from outside {ip}; address aa")), format!("aa 192.0.2.2\n{address}"));
    say(&host, "rm /run/udhcpd.leases; udhcpd_on 192.0.2.100 192.0.2.110 10");
    until(&mut host, GRANTED, "True");

    // Another server has other addresses and says no.
    say(&host, "kill $(cat /run/udhcpd.pid); rm /run/udhcpd.leases; udhcpd_on 192.0.2.150 192.0.2.159 10");
    until(&mut host, GRANTED, "False");
    assert_eq!(say(&host, &format!("from outside {ip}; address aa")), format!("aa 192.0.2.2\n{address}"));
    say(&host, "docker restart -t 0 aa > /dev/null");
    assert!(say(&host, "address aa").starts_with("192.0.2.15"));
}

/// The outside as a LAN with a gateway, and DHCP, in VLAN 10: that of a vswitchd.
const LAN: &str = r#"
switch = { control = "/run/lan.sock", state-dir = "/run/lan.state" }
bridge = [{ name = "lan", addresses = ["198.18.10.1/24"], gateway-vlan = 10, dhcp = true }]
port = [{ name = "trunk", bridge = "lan", kind = "link", device = "lan", trunk = [10, 20] }]
"#;

#[test]
fn a_server_in_a_vlan_is_asked_there() {
    needs!("dockerd", "docker", "unshare", "busybox", "dnsmasq", "curl");
    let mut host = DockerHost::with(FILE);
    host.switch_outside(LAN);
    say(
        &host,
        "docker network create -d vswitch-lan --ipam-driver null -o parent=wan.10 lan > /dev/null
         docker network create -d vswitch-lan --ipam-driver null -o parent=wan.20 twenty > /dev/null
         web aa",
    );
    assert!(say(&host, "address aa").starts_with("198.18.10."));
    assert_eq!(say(&host, "docker exec aa ping -c 1 -W 5 198.18.10.1 | grep -c 'from 198.18.10.1'"), "1");
    let refused = host.sh("docker run --rm --network twenty busybox true");
    assert!(refused.stderr.contains("no DHCP server answered on VLAN 20 of wan within 8 s"), "{refused:?}");
    assert_eq!(host.sh("grep -c released /run/lan.state/leases.json").stdout, "0\n");
    say(&host, "docker rm -f aa > /dev/null");
    until(&mut host, "grep -c released /run/lan.state/leases.json", "1");
}
