//! A file of docker-compose with networks of the switch, as vswitchd sees it. What containers see of one is in `docker_compare`.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

use vswitch_tests::{DockerHost, needs};

const FILE: &str = "[docker]\nenabled = true\n";

/// Networks of every kind, and a service on the one that a file without networks has.
const COMPOSE: &str = r#"
services:
  web:
    image: httpd
    hostname: web
    networks: { default: { aliases: [www] }, front: { ipv4_address: 10.60.0.10, ipv6_address: "fd60::10" } }
    ports: ["8080:80", { target: 80, published: 8081, protocol: tcp, mode: host }]
  db:
    image: httpd
    hostname: db
    networks: { back: { aliases: [store] }, lab: {} }
networks:
  default: { driver: vswitch }
  front:
    driver: vswitch
    enable_ipv6: true
    driver_opts: { vswitch.mtu: "1400", vswitch.guard: "true" }
    ipam: { config: [{ subnet: 10.60.0.0/24, gateway: 10.60.0.1 }, { subnet: "fd60::/64" }] }
  back: { driver: vswitch, internal: true, ipam: { driver: vswitch } }
  lab: { external: true }
"#;

/// What vswitchd and the kernel have that is not there before the first network.
const ALL: &str =
    "vsctl list-br | tail -n +2 | wc -l; vsctl list-ports | tail -n +2 | wc -l; vsctl list-forwards | tail -n +2 | wc -l
    ip -o link | grep -c ep-; ss -ltnp | grep -c vswitchd; true";

const COMPOSE_WORD: &str =
    "compose() { docker-compose --ansi never -f /run/compose.yml -p shop \"$@\" 2>&1; }\nexport COMPOSE_HTTP_TIMEOUT=40";

#[track_caller]
fn say(host: &DockerHost, lines: &str) -> String {
    host.sh(&format!("{COMPOSE_WORD}\n{lines}")).ok().trim_end().to_owned()
}

#[test]
fn a_compose_file_comes_and_goes_and_leaves_nothing() {
    needs!("dockerd", "docker", "docker-compose", "unshare", "busybox", "dnsmasq", "iptables", "curl", "ss");
    let mut host = DockerHost::with(FILE);
    host.write("/run/compose.yml", COMPOSE);
    say(
        &host,
        "docker network create -d vswitch --subnet 10.62.0.0/24 -o vswitch.isolated=false lab > /dev/null; compose up -d",
    );
    host.until("the names are known", |host| host.sh("vsctl list-ports | grep -c ' shop_[a-z]*_1 '").stdout == "4\n");
    let networks = "vsctl list-ports | tail -n +2 | awk '{ print $(NF-1), $NF }' | sort";
    assert_eq!(say(&host, networks), "shop_db_1 lab\nshop_db_1 shop_back\nshop_web_1 shop_default\nshop_web_1 shop_front");
    // Each published port leads to both addresses of its container.
    assert_eq!(say(&host, ALL), "4\n4\n4\n0\n4");
    for (line, answer) in [
        ("outside curl -s http://192.0.2.1:8080/cgi-bin/who", "web 192.0.2.2"),
        ("outside curl -s -g http://[2001:db8::1]:8081/cgi-bin/who | cut -d ' ' -f 1", "web"),
        ("docker exec shop_web_1 ip -o addr show | grep -c -e 10.60.0.10/24 -e fd60::10/64", "2"),
        ("docker exec shop_db_1 ip route | grep default", "default via 10.62.0.1 dev eth1"),
    ] {
        let answered = say(&host, line);
        // Which network is eth0 is for Docker to choose.
        assert_eq!(answered.trim().replace("eth0", "eth1"), answer, "{line}");
    }

    // Whoever takes over after a crash knows what is up.
    host.stop("vswitchd", libc::SIGKILL);
    host.start_vswitchd();
    assert_eq!(say(&host, "outside curl -s http://192.0.2.1:8080/cgi-bin/who"), "web 192.0.2.2");
    assert_eq!(
        say(&host, "compose up -d --scale db=3 | grep -c 'Creating .* done'; vsctl list-ports | tail -n +2 | wc -l"),
        "2\n8"
    );
    say(&host, "compose restart -t 0 db");
    assert_eq!(say(&host, &format!("compose down -t 0 > /dev/null; {ALL}")), "1\n0\n0\n0\n0");
    assert_eq!(say(&host, "docker network rm lab; vsctl list-br | tail -n +2"), "lab");
}

#[test]
fn what_is_wrong_in_a_compose_file_is_said() {
    needs!("dockerd", "docker", "docker-compose", "unshare", "busybox", "dnsmasq", "iptables", "curl");
    let host = DockerHost::with(FILE);
    for (network, service, part) in [
        ("driver_opts: { vswitch.colour: red }", "", "unknown option `vswitch.colour`: the driver vswitch knows"),
        ("driver_opts: { vswitch.mtu: big }", "", "`vswitch.mtu`"),
        ("internal: true, driver_opts: { vswitch.uplink: wan }", "", "no option of an internal network"),
        ("ipam: { config: [{ subnet: 10.60.0.0/24 }] }", "ports: ['53:53/sctp']", "SCTP ports cannot be published"),
        ("ipam: { config: [{ subnet: 10.60.0.0/24 }] }", "ports: ['8000:80']", "0.0.0.0:8000 is in use by another program"),
    ] {
        let file = format!(
            "services: {{ web: {{ image: httpd, {service} }} }}\nnetworks: {{ default: {{ driver: vswitch, {network} }} }}\n"
        );
        host.write("/run/compose.yml", &file);
        let outcome = host.sh(&format!("{COMPOSE_WORD}\ncompose up -d; echo $?"));
        assert!(outcome.stdout.ends_with("1\n") && outcome.stdout.contains(part), "{network} {service}: {outcome:?}");
        say(&host, "compose down -t 0");
        assert_eq!(say(&host, "vsctl list-br | tail -n +2; vsctl list-ports | tail -n +2"), "", "{network}");
    }
}

#[test]
fn a_service_gets_its_address_from_the_lan() {
    needs!("dockerd", "docker", "docker-compose", "unshare", "busybox", "dnsmasq", "curl");
    let host = DockerHost::with(FILE);
    host.write(
        "/run/compose.yml",
        "services: { web: { image: httpd, hostname: web, mac_address: '02:00:00:00:00:07', networks: [lan] } }
networks: { lan: { driver: vswitch-lan, driver_opts: { parent: wan }, ipam: { driver: 'null' } } }",
    );
    let lines = "outside dnsmasq --conf-file=/dev/null --pid-file=/run/dhcp.pid --port=0 --interface=lan --bind-interfaces --no-ping \
            --dhcp-leasefile=/run/leases --dhcp-range=192.0.2.100,192.0.2.110,1h
        compose up -d > /dev/null
        for i in 1 2 3 4 5; do outside curl -s -m 2 http://$(awk '/02:00:00:00:00:07/ { print $3 }' /run/leases)/cgi-bin/who && break; sleep 0.2; done
        compose down -t 0 > /dev/null; vsctl list-br | tail -n +2";
    assert_eq!(say(&host, lines), "web 192.0.2.2");
}
