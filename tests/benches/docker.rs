//! Docker's networks on the switch beside Docker's own bridge, on the same daemon: `cargo bench -p vswitch-tests --bench docker`, as root.
//!
//! TCP between two containers of a network, out to a host behind a link, and in by a published port.
//! `VSWITCH_BENCH_PAIRS` (5) is the number of turns, `VSWITCH_BENCH_SECONDS` (3) the length of a measurement.
#![allow(clippy::unwrap_used, clippy::panic, reason = "what fails here ends the benchmark")]

use std::process::ExitCode;

use vswitch_tests::DockerHost;
use vswitch_tests::bench::{self, Contest, seconds};

const FILE: &str = "[docker]\nenabled = true\n";

/// An image with iperf3, and on either driver a network with a server, a client and a published port.
const CONTAINERS: &str = r#"
set -e
cp "$(command -v iperf3)" /run/image/bin/iperf3
ldd /run/image/bin/iperf3 | grep -o '/[^ ]*' | xargs -I@ cp --parents -L @ /run/image/
tar -c -C /run/image . | docker import - iperf3
for d in bridge vswitch; do
    [ $d = bridge ] && n=80 || n=81
    docker network create -d $d --subnet 10.$n.0.0/24 net-$d
    docker run -d --name server-$d --network net-$d --ip 10.$n.0.2 -p 52$n:5201 iperf3 iperf3 -s
    docker run -d --name client-$d --network net-$d --ip 10.$n.0.3 iperf3 sleep 1000000
done
outside sh -c 'iperf3 -s > /dev/null 2>&1 &'
"#;

fn main() -> ExitCode {
    bench::main(&["ip", "nsenter", "unshare", "dockerd", "docker", "busybox", "nc", "dnsmasq", "iptables", "iperf3"], run)
}

fn run() {
    let host = DockerHost::with(FILE);
    host.sh(CONTAINERS).ok();
    let contest = |name, ours: &'static str, theirs: &'static str, more: &'static str| Contest {
        name,
        beside: "Docker's bridge",
        unit: "Gbit/s",
        ours: Box::new(move |host: &DockerHost| stream(host, ours, more)),
        theirs: Box::new(move |host: &DockerHost| stream(host, theirs, more)),
    };
    let [own, bridge] = ["docker exec client-vswitch iperf3 -c 10.81.0.2", "docker exec client-bridge iperf3 -c 10.80.0.2"];
    let [out, bridge_out] = ["docker exec client-vswitch iperf3 -c 192.0.2.2", "docker exec client-bridge iperf3 -c 192.0.2.2"];
    let [into, bridge_into] = ["outside iperf3 -c 192.0.2.1 -p 5281", "outside iperf3 -c 192.0.2.1 -p 5280"];
    let contests = [
        contest("container to container, one TCP stream", own, bridge, ""),
        contest("container to container, four TCP streams", own, bridge, "-P 4"),
        contest("container to outside, one TCP stream", out, bridge_out, ""),
        contest("outside to a published port, one TCP stream", into, bridge_into, ""),
    ];
    bench::compare(&host, &contests);
}

/// The bits that arrived, in 10⁹ a second.
fn stream(host: &DockerHost, client: &str, more: &str) -> f64 {
    let outcome = host.sh(&format!("{client} -J -t {} {more}", seconds()));
    let report: serde_json::Value =
        serde_json::from_str(&outcome.stdout).unwrap_or_else(|error| panic!("{error}: {outcome:?}"));
    report["end"]["sum_received"]["bits_per_second"].as_f64().unwrap_or_else(|| panic!("{client}: {}", report["error"])) / 1e9
}
