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
