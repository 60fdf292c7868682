//! `docs/docker.md`, every command of it: typed in order on a host with a dockerd, and what the document says came back is compared with
//! what does.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

use vswitch_tests::{DockerHost, Engine, Tour, needs_engine, on_each_engine};

on_each_engine!(every_command_of_the_tour_does_what_it_says);

fn every_command_of_the_tour_does_what_it_says(engine: Engine) {
    needs_engine!(
        engine,
        "dockerd",
        "docker",
        "docker-compose",
        "unshare",
        "busybox",
        "dnsmasq",
        "iptables",
        "curl",
        "nc",
        "tcpdump"
    );
    let tour = Tour::of("docker.md");
    assert!(tour.len() > 40, "{}", tour.len());
    let mut host = DockerHost::bare(engine);
    host.start_dockerd(&[]);
    host.import();
    tour.run(&host, "export COMPOSE_COMPATIBILITY=1");
    // Its last command has removed everything.
    assert_eq!(host.sh("docker ps -aq; docker network ls -q --filter type=custom; ip -o link | grep ep-").stdout, "");
}
