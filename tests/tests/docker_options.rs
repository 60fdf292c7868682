//! Networks as the options of Docker's own drivers describe them, and networks without addresses.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

use vswitch_tests::{DockerHost, Engine, FROM, needs_engine, on_each_engine};

on_each_engine!(a_network_without_addresses_is_a_plain_bridge, options_of_dockers_own_drivers_are_carried_out);

const FILE: &str = "[docker]\nenabled = true\n";

/// Runs lines; what they print.
#[track_caller]
fn say(host: &DockerHost, lines: &str) -> String {
    host.sh(&format!("{FROM}\n{lines}")).ok().trim_end().to_owned()
}

/// Two containers on the network `plain`, one of them connected with a MAC address; they give themselves addresses.
const PLAIN: &str = "
for name in one two; do docker run -d --name $name --cap-add NET_ADMIN --network none busybox sleep 1000000 && docker network disconnect none $name; done > /dev/null
docker network connect --driver-opt vswitch.mac=02:00:00:00:00:07 plain one && docker network connect plain two
docker exec one cat /sys/class/net/eth0/address; for name in one two; do docker exec $name ip -4 addr show eth0 | grep -c inet; docker exec $name ip route; done
docker exec one ip addr add 10.1.0.1/24 dev eth0; docker exec two ip addr add 10.1.0.2/24 dev eth0
docker exec one ping -c 1 -W 5 10.1.0.2 > /dev/null && echo reached";

fn a_network_without_addresses_is_a_plain_bridge(engine: Engine) {
    needs_engine!(engine, "dockerd", "docker", "unshare", "busybox", "dnsmasq", "iptables", "curl");
    let mut host = DockerHost::on(engine, FILE);
    let kinds = match engine {
        Engine::Installed => &["--ipam-driver null"][..],
        Engine::Newest => &["--ipam-driver null", "--ipv4=false"],
    };
    for kind in kinds {
        host.sh(&format!("docker network create -d vswitch {kind} plain")).ok();
        assert_eq!(say(&host, PLAIN), "02:00:00:00:00:07\n0\n0\nreached", "{kind}");
        assert_eq!(say(&host, "vsctl --json list-br | grep -c '\"addresses\": *\\[\\]'"), "1", "no gateway");
        host.stop("vswitchd", libc::SIGKILL);
        host.start_vswitchd();
        host.until("they reach each other again", |host| host.sh("docker exec two ping -c 1 -W 1 10.1.0.1").code == Some(0));
        host.sh("docker restart -t 0 one && docker exec one ls /sys/class/net/eth0 && docker rm -f one two && docker network rm plain")
            .ok();
    }
    let refused = host.sh("docker network create -d vswitch --ipam-driver null -o vswitch.uplink=host x");
    assert!(refused.stderr.contains("`vswitch.uplink` is for a network with a subnet"), "{refused:?}");
    assert_eq!(say(&host, "vsctl list-br | tail -n +2; vsctl list-ports | tail -n +2"), "");
}

fn options_of_dockers_own_drivers_are_carried_out(engine: Engine) {
    needs_engine!(engine, "dockerd", "docker", "unshare", "busybox", "dnsmasq", "iptables", "curl");
    let host = DockerHost::on(engine, FILE);
    let bridge = "com.docker.network.bridge";
    host.sh(&format!(
        "docker network create -d vswitch --subnet 10.79.0.0/24 -o {bridge}.enable_icc=false -o {bridge}.host_binding_ipv4=127.0.0.1 \
            -o {bridge}.name=br-mine -o {bridge}.enable_ip_masquerade=true -o com.docker.network.container_iface_prefix=lan \
            -o com.docker.network.advertise_addr_nmsgs=3 -o com.docker.network.advertise_addr_ms=1000 net
        docker run -d --name web --hostname web --network net -p 8080:80 -p 192.0.2.1:8081:80 httpd
        docker run -d --name box --network net busybox sleep 1000000"
    ))
    .ok();
    for (line, answer) in [
        ("docker exec box ls /sys/class/net", "lan0\nlo"),
        ("docker exec box ping -c 1 -W 1 10.79.0.2 > /dev/null || echo nobody", "nobody"),
        ("from box 198.51.100.1", "outside 192.0.2.1"),
        ("from host 127.0.0.1:8080 | cut -d ' ' -f 1", "web"),
        ("outside curl -s -m 1 http://192.0.2.1:8080/ || echo nobody", "nobody"),
        ("from outside 192.0.2.1:8081", "web 192.0.2.2"),
        ("grep -c 'Docker.s network is not called .*br-mine' /run/vswitchd.log", "1"),
        // A driver may name an interface only as far as the number.
        (
            "docker network create -d vswitch --subnet 10.80.0.0/24 second > /dev/null; docker network connect --driver-opt com.docker.network.endpoint.ifname=wan0 second box; docker exec box ls /sys/class/net",
            "lan0\nlo\nwan0",
        ),
    ] {
        assert_eq!(say(&host, line), answer, "{line}");
    }
    for (line, sentence) in [
        (
            "docker network connect --driver-opt com.docker.network.endpoint.ifname=wan1 second web",
            "use a name that ends in 0, such as wan0",
        ),
        ("docker network connect --driver-opt vswitch.mac=7 second web", "use a MAC address"),
        (
            "docker network create -d vswitch --subnet 10.81.0.0/24 -o com.docker.network.bridge.enable_ip_masquerade=false x",
            "an uplink translates always",
        ),
        (
            "docker network create -d vswitch --subnet 10.81.0.0/24 -o com.docker.network.bridge.enable_icc=no x",
            "use true or false",
        ),
        (
            "docker network create -d vswitch --subnet 10.81.0.0/24 -o com.docker.network.bridge.host_binding_ipv4=lo x",
            "use an address of the host",
        ),
    ] {
        let refused = host.sh(line);
        assert!(refused.code == Some(1) && refused.stderr.contains(sentence), "{line}\n{refused:?}");
    }
    assert_eq!(say(&host, "vsctl list-ports | tail -n +2 | wc -l"), "3", "of web one, of box two");
}
