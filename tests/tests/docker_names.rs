//! What `vsctl` says about Docker's containers.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

use serde_json::Value;
use vswitch_tests::{DockerHost, needs};

const FILE: &str = "[docker]\nenabled = true\n";

/// What `vsctl --json` answers.
fn asked(host: &DockerHost, words: &str) -> Value {
    serde_json::from_str(&host.sh(&format!("vsctl --json {words}")).ok()).unwrap()
}

#[test]
fn containers_have_the_rates_of_their_network_or_their_own() {
    needs!("dockerd", "docker", "unshare", "busybox", "dnsmasq", "iptables", "curl", "nc");
    let host = DockerHost::with(FILE);
    host.sh(
        "docker network create -d vswitch --subnet 10.88.0.0/24 -o vswitch.send-rate=10mbit -o vswitch.receive-rate=2mbit slow
        docker run -d --name box --network slow --ip 10.88.0.10 busybox sleep 1000000
        docker run -d --name other --network none busybox sleep 1000000
        docker network disconnect none other
        docker network connect --ip 10.88.0.11 --driver-opt vswitch.send-rate=1gbit slow other",
    )
    .ok();
    let ports = asked(&host, "list-ports");
    let rates = |port: &Value| format!("{} {}", port["send_rate"], port["receive_rate"]);
    let mut rates: Vec<String> = ports.as_array().unwrap().iter().map(rates).collect();
    rates.sort();
    assert_eq!(rates, ["\"10mbit\" \"2mbit\"", "\"1gbit\" \"2mbit\""]);
}

/// The service is of a user that may neither look into Docker's directories nor ask its socket: its broker does.
#[test]
fn a_switch_of_a_user_of_its_own_serves_docker_as_one_of_roots_does() {
    needs!("dockerd", "docker", "unshare", "busybox", "dnsmasq", "iptables", "curl", "nc", "setpriv");
    let mut host = DockerHost::new();
    host.write("/run/switch.toml", FILE);
    host.sh("chmod 600 /run/switch.toml").ok();
    host.start_vswitchd_as_service();
    host.start_dockerd(&[]);
    host.import();
    host.sh(
        "docker network create -d vswitch --subnet 10.95.0.0/24 net1
        docker run -d --name web --network net1 -p 80:80 httpd && docker run -d --name box --network net1 busybox sleep 1000000",
    )
    .ok();
    let works = |host: &mut DockerHost| {
        host.until("the names are known", |host| column(&asked(host, "list-ports"), "container") == ["\"box\"", "\"web\""]);
        host.sh("docker exec box ping -c 1 -W 5 web && outside curl -sSf http://192.0.2.1/cgi-bin/who").ok();
    };
    works(&mut host);
    let held = host.sh("cat /proc/$(pgrep -xo vswitchd)/task/*/status").ok();
    assert_eq!(held.matches("CapPrm:\t0000000000000000\n").count(), held.matches("Name:\t").count(), "{held}");
    host.sh("vsctl reload").ok();
    // Containers that run are not taken for dead by who may not see their sandboxes.
    for signal in [libc::SIGTERM, libc::SIGKILL] {
        host.stop("vswitchd", signal);
        host.start_vswitchd_as_service();
        works(&mut host);
    }
    let said = host.sh(&format!("vsctl upgrade {}", vswitch_tests::program("vswitchd").display())).stderr;
    assert!(said.contains(" has taken over from "), "{said}");
    works(&mut host);
    host.sh("docker rm -f web box && docker network rm net1 && vsctl shutdown").ok();
    assert_eq!(host.sh("ip -o link | grep -c ep-").stdout, "0\n");
}

/// What stands in one column of all rows, in order.
fn column(rows: &Value, key: &str) -> Vec<String> {
    let mut cells: Vec<String> = rows.as_array().unwrap().iter().map(|row| row[key].to_string()).collect();
    cells.sort();
    cells
}

#[test]
fn containers_and_networks_are_known_by_dockers_names() {
    needs!("dockerd", "docker", "unshare", "busybox", "dnsmasq", "iptables", "curl", "nc");
    let mut host = DockerHost::with(FILE);
    host.sh(
        "docker network create -d vswitch --subnet 10.89.0.0/24 net1 && docker network create -d vswitch --subnet 10.90.0.0/24 net2
        docker run -d --name box --network net1 --ip 10.89.0.10 busybox sleep 1000000
        docker run -d --name web --network net1 --ip 10.89.0.11 httpd && docker network connect --ip 10.90.0.11 net2 web",
    )
    .ok();
    let named = |host: &mut DockerHost, names: &[&str]| {
        let names: Vec<String> = names.iter().map(|name| format!("\"{name}\"")).collect();
        host.until("the names are known", |host| column(&asked(host, "list-ports"), "container") == names);
    };
    named(&mut host, &["box", "web", "web"]);
    assert_eq!(column(&asked(&host, "list-ports"), "network"), ["\"net1\"", "\"net1\"", "\"net2\""]);
    assert_eq!(column(&asked(&host, "list-br"), "networks"), ["[\"net1\"]", "[\"net2\"]"]);
    let show = host.sh("vsctl show").ok();
    assert!(show.contains(" (Docker's box on net1)") && show.contains(" (Docker's net2)"), "{show}");
    // Ports that are not Docker's have no name.
    assert_eq!(column(&asked(&host, "stats"), "container"), ["\"box\"", "\"web\"", "\"web\"", "null"]);
    assert_eq!(column(&asked(&host, "stats --container web"), "network"), ["\"net1\"", "\"net2\""]);
    assert_eq!(column(&asked(&host, "stats --container box"), "network"), ["\"net1\""]);
    host.sh("docker exec box timeout 3 wget -q -O /dev/null http://198.51.100.1/cgi-bin/who && docker exec box ping -c 1 198.51.100.1").ok();
    assert!(column(&asked(&host, "sessions"), "container").contains(&"\"box\"".to_owned()));
    for command in ["stats", "capture -w - --count 1"] {
        let refused = host.sh(&format!("vsctl {command} --container bix"));
        let sentence = "there is no container \"bix\" on a network of the switch: the containers are box, web\n";
        assert_eq!((refused.code, refused.stderr.as_str()), (Some(1), sentence));
    }
    // The capture of box holds what box sends, and nothing between web and the gateway.
    let frames = host
        .sh("vsctl capture --container box --filter 'icmp' --count 2 -w - 2> /dev/null | tcpdump -tnr - 2> /dev/null > /run/seen &
        until vsctl show | grep -q 'capture running'; do :; done
        docker exec web ping -c 1 10.89.0.1 > /dev/null; docker exec box ping -c 2 10.89.0.1 > /dev/null; wait; cat /run/seen")
        .ok();
    assert!(frames.contains("10.89.0.10 > 10.89.0.1") && !frames.contains("10.89.0.11"), "{frames}");
    // Docker tells nobody of another name; a switch that has just started has not heard any.
    host.sh("docker rename box crate").ok();
    host.stop("vswitchd", libc::SIGKILL);
    host.start_vswitchd();
    named(&mut host, &["crate", "web", "web"]);
    host.sh("docker network disconnect net2 web").ok();
    assert_eq!(column(&asked(&host, "list-ports"), "container"), ["\"crate\"", "\"web\""]);
    host.sh("docker rm -f crate web && docker network rm net1 net2").ok();
    assert_eq!(asked(&host, "list-ports"), serde_json::json!([]));
}
