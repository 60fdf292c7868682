//! Published ports of containers: after crashes of Docker, by both IP versions, on several networks, and very many of them.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

use vswitch_tests::{DockerHost, Engine, FROM, needs, needs_engine, on_each_engine};

on_each_engine!(
    containers_with_ports_come_back_after_every_crash_of_docker,
    both_ip_versions_of_a_client_are_seen_by_a_container_that_has_both,
    a_container_whose_gateways_are_on_two_networks_publishes_each_port_once,
    a_range_of_twenty_thousand_ports_is_one_forward,
);

const FILE: &str = "[docker]\nenabled = true\n";

/// Runs lines; what they print.
#[track_caller]
fn say(host: &DockerHost, lines: &str) -> String {
    host.sh(&format!("{FROM}\n{lines}")).ok().trim_end().to_owned()
}

/// What is forwarded: port, address, target.
const FORWARDS: &str = "vsctl list-forwards | tail -n +2 | awk '{ print $2, $3, $4 }' | sort";

fn containers_with_ports_come_back_after_every_crash_of_docker(engine: Engine) {
    needs_engine!(engine, "dockerd", "docker", "unshare", "busybox", "dnsmasq", "iptables", "curl");
    let mut host = DockerHost::on(engine, FILE);
    host.sh(
        "docker network create -d vswitch --subnet 10.70.0.0/24 net0 && docker network create -d vswitch --subnet 10.71.0.0/24 net1
        for n in $(seq 20); do
            docker run -d --restart always --name c$n --hostname c$n --network net$((n % 2)) -p $((9000 + n)):80 httpd > /dev/null &
        done; wait",
    )
    .ok();
    let silent =
        "for n in $(seq 20); do curl -s -m 3 http://127.0.0.1:$((9000 + n))/cgi-bin/who | grep -q \"^c$n \" || echo c$n; done";
    host.until("all answer", |host| host.sh(silent).stdout.is_empty());
    for _ in 0..5 {
        host.stop("dockerd", libc::SIGKILL);
        host.start_dockerd(&[]);
        host.until("all come back", |host| {
            host.sh("docker ps -q | wc -l").stdout == "20\n" && host.sh(silent).stdout.is_empty()
        });
    }
    host.sh("docker rm -f $(docker ps -aq) > /dev/null").ok();
    host.until("nothing is left", |host| {
        host.sh("vsctl list-forwards | tail -n +2; vsctl list-ports | tail -n +2").stdout.is_empty()
    });
}

fn both_ip_versions_of_a_client_are_seen_by_a_container_that_has_both(engine: Engine) {
    needs_engine!(engine, "dockerd", "docker", "unshare", "busybox", "dnsmasq", "iptables", "curl");
    let host = DockerHost::on(engine, FILE);
    host.sh(
        "docker network create -d vswitch --subnet 10.72.0.0/24 --subnet fd72::/64 --ipv6 net
        docker run -d --hostname web --network net -p 8080:80 -p 0.0.0.0:8081:80 httpd
        docker network create -d vswitch --subnet 10.73.0.0/24 old && docker run -d --hostname old --network old -p 8082:80 httpd",
    )
    .ok();
    let forwards =
        "tcp/8080 0.0.0.0 10.72.0.2:80\ntcp/8080 :: [fd72::2]:80\ntcp/8081 0.0.0.0 10.72.0.2:80\ntcp/8082 - 10.73.0.2:80";
    assert_eq!(say(&host, FORWARDS), forwards);
    for (line, answer) in [
        ("from outside 192.0.2.1:8080", "web 192.0.2.2"),
        ("from outside [2001:db8::1]:8080", "web 2001:db8::2"),
        ("from host [::1]:8080 | cut -d ' ' -f 1", "web"),
        ("from outside 192.0.2.1:8081", "web 192.0.2.2"),
        ("outside curl -g -s -m 1 http://[2001:db8::1]:8081/ || echo nobody", "nobody"),
        // Without an IPv6 address there is only the gateway to come from.
        ("from outside [2001:db8::1]:8082", "old 10.73.0.1"),
    ] {
        assert_eq!(say(&host, line), answer, "{line}");
    }
}

fn a_container_whose_gateways_are_on_two_networks_publishes_each_port_once(engine: Engine) {
    needs_engine!(engine, "dockerd", "docker", "unshare", "busybox", "dnsmasq", "iptables", "curl");
    let host = DockerHost::on(engine, FILE);
    // Up to Docker 27 one network has both gateways; from 28 on the first by name the IPv4 one, and the first that has IPv6 the other.
    host.sh(
        "docker network create -d vswitch --subnet 10.74.0.0/24 a && docker network create -d vswitch --subnet 10.75.0.0/24 --subnet fd75::/64 --ipv6 b
        docker create --name two --hostname two --network a --ip 10.74.0.10 -p 8080:80 -p 80 httpd
        docker network connect --ip 10.75.0.10 --ip6 fd75::10 b two && docker start two",
    )
    .ok();
    let both = "two 192.0.2.2\ntwo 2001:db8::2";
    let ask = "from outside 192.0.2.1:8080; from outside [2001:db8::1]:8080";
    let ports = "vsctl list-forwards | tail -n +2 | awk '{ print $2 }' | cut -d / -f 2 | sort -u | wc -l";
    assert_eq!(say(&host, ask), both);
    assert_eq!(say(&host, ports), "2", "one of them left to the driver, and the same for both versions");
    for change in [
        "docker restart -t 0 two",
        "docker network disconnect b two && docker network connect --ip 10.75.0.10 --ip6 fd75::10 b two",
    ] {
        host.sh(change).ok();
        assert_eq!(say(&host, ask), both, "{change}");
    }
    host.sh("docker network disconnect b two").ok();
    assert_eq!(say(&host, ask), "two 192.0.2.2\ntwo 10.74.0.1", "the only network that is left");
    host.sh("docker network connect --ip 10.75.0.10 --ip6 fd75::10 b two && docker network disconnect a two").ok();
    assert_eq!(say(&host, ask), "two 192.0.2.2\ntwo 2001:db8::2");
    host.sh("docker rm -f two").ok();
    assert_eq!(say(&host, FORWARDS), "");
}

/// Asks the driver as dockerd does: `call METHOD JSON`, with `$net1`, `$net2`, `$a`, `$b` for identifiers.
const CALL: &str = r#"
net1=1111111111111111 net2=2222222222222222 a=aaaaaaaaaaaaaaaa b=bbbbbbbbbbbbbbbb
call() { curl -s --unix-socket /run/docker/plugins/vswitch.sock -d "$2" http://d/NetworkDriver.$1; echo; }
place() { echo "\"NetworkID\":\"$1\",\"EndpointID\":\"$2\""; }
map='{"Proto":6,"Port":80,"HostPort":8080,"HostPortEnd":8080},{"Proto":6,"Port":81}'
publish() { call ProgramExternalConnectivity "{$(place $1 $2),\"Options\":{\"com.docker.network.portmap\":[$map]$3}}"; }
only4=',"com.docker.network.driver.private.no_proxy_6to4":true'
"#;

#[test]
fn docker_29_asks_again_for_the_ports_of_a_container_that_runs() {
    needs!("unshare", "busybox", "dnsmasq", "curl");
    let mut host = DockerHost::new();
    host.write("/run/switch.toml", FILE);
    host.start_vswitchd();
    let ask = |lines: &str| say(&host, &format!("{CALL}\n{lines}\n{FORWARDS}"));
    let made = ask(r#"ip netns add box
        call CreateNetwork "{\"NetworkID\":\"$net1\",\"IPv4Data\":[{\"Pool\":\"10.76.0.0/24\",\"Gateway\":\"10.76.0.1/24\"}],\"IPv6Data\":[{\"Pool\":\"fd76::/64\",\"Gateway\":\"fd76::1/64\"}]}"
        call CreateNetwork "{\"NetworkID\":\"$net2\",\"IPv4Data\":[{\"Pool\":\"10.77.0.0/24\",\"Gateway\":\"10.77.0.1/24\"}],\"IPv6Data\":[{\"Pool\":\"fd77::/64\",\"Gateway\":\"fd77::1/64\"}]}"
        call CreateEndpoint "{$(place $net1 $a),\"Interface\":{\"Address\":\"10.76.0.2/24\",\"AddressIPv6\":\"fd76::2/64\",\"MacAddress\":\"02:00:00:00:00:01\"}}"
        call CreateEndpoint "{$(place $net2 $b),\"Interface\":{\"Address\":\"10.77.0.2/24\",\"AddressIPv6\":\"fd77::2/64\",\"MacAddress\":\"02:00:00:00:00:02\"}}"
        call Join "{$(place $net1 $a),\"SandboxKey\":\"/run/netns/box\"}" > /dev/null
        call Join "{$(place $net2 $b),\"SandboxKey\":\"/run/netns/box\"}" > /dev/null"#);
    assert_eq!(made, "{}\n{}\n{\"Interface\":{}}\n{\"Interface\":{}}");
    let (v4_a, v6_a) = (
        "tcp/32768 0.0.0.0 10.76.0.2:81\ntcp/8080 0.0.0.0 10.76.0.2:80",
        "tcp/32768 :: [fd76::2]:81\ntcp/8080 :: [fd76::2]:80",
    );
    let v6_b = "tcp/32768 :: [fd77::2]:81\ntcp/8080 :: [fd77::2]:80";
    // Both gateways are the first's; then the other has the IPv6 one, and is asked after or before; then it has none again.
    for (lines, forwards) in [
        ("publish $net1 $a", [v4_a, v6_a]),
        ("publish $net1 $a", [v4_a, v6_a]),
        ("publish $net1 $a $only4", [v4_a, ""]),
        ("publish $net2 $b", [v4_a, v6_b]),
        ("publish $net1 $a", [v4_a, v6_b]),
        ("call RevokeExternalConnectivity \"{$(place $net2 $b)}\"", [v4_a, ""]),
        ("publish $net1 $a", [v4_a, v6_a]),
        (
            "call RevokeExternalConnectivity \"{$(place $net1 $a)}\" > /dev/null; publish $net2 $b > /dev/null; publish $net1 $a $only4",
            [v4_a, v6_b],
        ),
    ] {
        let mut expected: Vec<&str> = forwards.iter().flat_map(|text| text.lines()).collect();
        expected.sort_unstable();
        assert_eq!(ask(lines), format!("{{}}\n{}", expected.join("\n")), "{lines}");
    }
    // A LAN has its gateway from the user; a network of the switch has it from Docker.
    let gateways = "curl -s --unix-socket /run/docker/plugins/vswitch-lan.sock -d '{\"Options\":{}}' http://d/NetworkDriver.GwAllocCheck; call GwAllocCheck '{\"Options\":{}}'";
    assert_eq!(
        say(&host, &format!("{CALL}\n{gateways}")),
        "{\"SkipIPv4\":true,\"SkipIPv6\":true}{\"SkipIPv4\":false,\"SkipIPv6\":false}"
    );
}

fn a_range_of_twenty_thousand_ports_is_one_forward(engine: Engine) {
    needs_engine!(engine, "dockerd", "docker", "unshare", "busybox", "dnsmasq", "iptables", "curl", "nc");
    // A link has no sockets; at the host there is one for each port, and a machine may allow less than twenty thousand.
    let link =
        "[[uplink]]\nname = \"wan\"\nkind = \"link\"\ndevice = \"wan\"\naddress = \"192.0.2.9/24\"\ngateway = \"192.0.2.2\"\n";
    let mut host = DockerHost::on(engine, &format!("{FILE}{link}"));
    for (uplink, address, last) in [("wan", "192.0.2.9", 37_999), ("docker", "192.0.2.1", 20_000)] {
        let option = if uplink == "wan" { "-o vswitch.uplink=wan" } else { "" };
        host.sh(&format!(
            "docker network create -d vswitch --subnet 10.78.0.0/24 {option} net
            docker run -d --name box --network net -p 18000-{last}:8000-{}/udp busybox sleep 1000000",
            last - 10_000
        ))
        .ok();
        let forward = format!("udp/18000-{last} - 10.78.0.2:8000");
        assert_eq!(say(&host, FORWARDS), forward);
        host.stop("vswitchd", libc::SIGKILL);
        host.start_vswitchd();
        assert_eq!(say(&host, FORWARDS), forward);
        let hello = format!(
            "docker exec box timeout 5 netcat -u -l -p {inside} > /run/got & until docker exec box netstat -lun | grep -q {inside}; do sleep 0.1; done
            echo hello | outside timeout 1 nc -u -w 1 {address} {last}; wait; cat /run/got",
            inside = last - 10_000
        );
        assert_eq!(say(&host, &hello), "hello");
        let refused = host.sh("docker run --rm --network net -p 20000:80/udp busybox true");
        assert!(refused.stderr.contains("udp port 20000 is in use: publish another port"), "{refused:?}");
        host.sh("docker rm -f $(docker ps -aq) && docker network rm net").ok();
        assert_eq!(say(&host, "vsctl list-forwards | tail -n +2; ss -Hlun | grep -c ':18...' || true"), "0");
    }
}
