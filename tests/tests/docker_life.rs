//! What Docker's networks live through: ends of vswitchd and of dockerd, wanted and unwanted, many containers at once; and what is left
//! of them afterwards, which is nothing.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use vswitch_tests::{DockerHost, Engine, needs_engine, on_each_engine};

on_each_engine!(
    containers_live_through_a_crash_and_a_restart_of_the_switch,
    containers_live_through_a_restart_of_docker,
    a_container_that_died_while_the_switch_was_down_is_forgotten,
    a_switch_killed_again_and_again_neither_hangs_docker_nor_leaks,
    a_hundred_containers_at_once_reach_their_own_and_leave_nothing,
    refusals_say_what_is_wrong_and_what_would_be_right,
);

const FILE: &str = "[docker]\nenabled = true\n";

/// Two containers on a network, the second of which is published at port 8080.
const TWO: &str = "docker network create -d vswitch --subnet 10.82.0.0/24 --subnet fd82::/64 --ipv6 net
docker run -d --name box --network net --ip 10.82.0.10 --ip6 fd82::10 busybox sleep 1000000
docker run -d --name web --network net --ip 10.82.0.11 --ip6 fd82::11 -p 8080:80 httpd";

/// Asks web by all ways: from box by name, from the host, from outside; and the outside from box.
const WAYS: &str = "docker exec box timeout 3 wget -q -O /dev/null http://web/cgi-bin/who &&
curl -sf -m 3 -o /dev/null http://127.0.0.1:8080/cgi-bin/who && outside curl -sf -m 3 -o /dev/null http://192.0.2.1:8080/cgi-bin/who &&
docker exec box timeout 3 wget -q -O /dev/null http://198.51.100.1/cgi-bin/who && docker exec box ping -c 1 -W 3 fd82::11";

/// What a container would notice.
const NOTICED: &str = "for x in box web; do docker exec $x ip -o link show eth0 | sed 's/state.*//; s/<.*>//'; docker exec $x ip -o addr show eth0;
docker exec $x ip route; docker inspect -f '{{.State.Pid}}' $x; done | grep -v fe80";

#[track_caller]
fn all_ways(host: &mut DockerHost) {
    host.until("every way leads to where it should", |host| host.sh(WAYS).code == Some(0));
}

/// What a container would notice, as soon as the switch has seen that its device came.
#[track_caller]
fn noticed(host: &mut DockerHost) -> String {
    let mut said = String::new();
    host.until("both devices send without a queueing discipline", |host| {
        said = host.sh(NOTICED).ok();
        said.matches("qdisc noqueue").count() == 2
    });
    said
}

/// What there is for containers: ports, forwards, endpoints in the state, devices on the host.
fn kept(host: &DockerHost) -> [usize; 4] {
    let list = |words: &str| -> Vec<Value> { serde_json::from_str(&host.sh(&format!("vsctl --json {words}")).ok()).unwrap() };
    let ports = list("list-ports").iter().filter(|port| port["name"].as_str().unwrap().starts_with("ep-")).count();
    let state = std::fs::read_to_string(host.file("/var/lib/vswitch/state.json")).unwrap();
    let state: Value = serde_json::from_str(&state).unwrap();
    let endpoints = state["docker"]["endpoints"].as_object().map_or(0, serde_json::Map::len);
    let devices = host.sh("ip -o link").ok().matches(": ep-").count();
    [ports, list("list-forwards").len(), endpoints, devices]
}

/// Descriptors of vswitchd, but for connections that dockerd keeps open for its next call.
fn descriptors(host: &DockerHost) -> usize {
    let calls = host.sh("ss -Hx state established | grep -c plugins/vswitch.sock").stdout.trim().parse::<usize>().unwrap();
    std::fs::read_dir(format!("/proc/{}/fd", host.pid("vswitchd"))).unwrap().count() - calls
}

fn containers_live_through_a_crash_and_a_restart_of_the_switch(engine: Engine) {
    needs_engine!(engine, "dockerd", "docker", "unshare", "busybox", "dnsmasq", "iptables", "curl", "nc");
    let mut host = DockerHost::on(engine, FILE);
    host.sh(TWO).ok();
    all_ways(&mut host);
    let before = noticed(&mut host);
    for signal in [libc::SIGKILL, libc::SIGTERM, libc::SIGKILL] {
        host.stop("vswitchd", signal);
        assert_ne!(host.sh("docker exec box ping -c 1 -W 1 10.82.0.11").code, Some(0), "who forwarded that?");
        host.start_vswitchd();
        all_ways(&mut host);
        assert_eq!(host.sh(NOTICED).ok(), before);
    }
    // The kernel tells when a device comes to its container: nobody has to look for it from time to time.
    let come = "for i in 1 2 3 4; do docker run --rm --network net busybox sh -c 'sleep 1; ip -o link show eth0'; done";
    assert_eq!(host.sh(come).ok().matches("qdisc noqueue").count(), 4);
    // All that Docker can do still works.
    host.sh("docker restart -t 0 web && docker network disconnect net box && docker network connect net box").ok();
    host.until("web answers", |host| {
        host.sh("docker exec box timeout 3 wget -q -O /dev/null http://web/cgi-bin/who").code == Some(0)
    });
    host.sh("docker rm -f box web && docker network rm net").ok();
    assert_eq!(kept(&host), [0; 4]);
    assert_eq!(host.sh("vsctl --json list-br").ok().trim(), "[]");
}

fn containers_live_through_a_restart_of_docker(engine: Engine) {
    needs_engine!(engine, "dockerd", "docker", "unshare", "busybox", "dnsmasq", "iptables", "curl", "nc");
    let mut host = DockerHost::on(engine, FILE);
    host.sh(TWO).ok();
    host.sh("docker update --restart always box web").ok();
    all_ways(&mut host);
    // The end of Docker is the end of its containers, which it starts again with itself; killed, it leaves them to the next one.
    for signal in [libc::SIGTERM, libc::SIGKILL] {
        host.stop("dockerd", signal);
        host.start_dockerd(&[]);
        all_ways(&mut host);
    }
    host.stop("dockerd", libc::SIGTERM);
    host.start_dockerd(&["--live-restore"]);
    all_ways(&mut host);
    let before = noticed(&mut host);
    host.stop("dockerd", libc::SIGTERM);
    let pid = before.lines().find(|line| line.bytes().all(|byte| byte.is_ascii_digit())).unwrap();
    host.sh(&format!("nsenter -t {pid} -n busybox ping -c 1 -W 3 10.82.0.11")).ok();
    host.start_dockerd(&["--live-restore"]);
    all_ways(&mut host);
    assert_eq!(host.sh(NOTICED).ok(), before);
    host.sh("docker rm -f box web && docker network rm net").ok();
    host.until("nothing of them is left", |host| kept(host) == [0; 4]);
}

fn a_container_that_died_while_the_switch_was_down_is_forgotten(engine: Engine) {
    needs_engine!(engine, "dockerd", "docker", "unshare", "busybox", "dnsmasq", "iptables", "curl", "nc");
    let mut host = DockerHost::on(engine, FILE);
    host.sh(TWO).ok();
    assert_eq!(kept(&host), [2, 2, 2, 0]);
    let pid = host.sh("docker inspect -f '{{.State.Pid}}' web").ok();
    host.stop("vswitchd", libc::SIGKILL);
    // Docker, back from a crash of its own, throws away what web had and tells nobody.
    host.stop("dockerd", libc::SIGKILL);
    host.sh(&format!("kill -9 {pid}")).ok();
    host.start_dockerd(&[]);
    host.until("web has ended", |host| host.sh("docker inspect -f '{{.State.Running}}' web").stdout == "false\n");
    host.start_vswitchd();
    host.until("web is forgotten", |host| kept(host)[1] == 0);
    host.sh("docker start web").ok();
    host.sh("docker rm -f box web && docker network rm net").ok();
    host.until("nothing of them is left", |host| kept(host) == [0; 4]);
}

fn a_switch_killed_again_and_again_neither_hangs_docker_nor_leaks(engine: Engine) {
    needs_engine!(engine, "dockerd", "docker", "unshare", "busybox", "dnsmasq", "iptables", "curl", "nc");
    let mut host = DockerHost::on(engine, FILE);
    host.sh(TWO).ok();
    let before = noticed(&mut host);
    let (done, runs) = (AtomicBool::new(false), 8);
    let script = "docker run --rm --network net busybox ping -c 1 -W 2 10.82.0.11 > /dev/null 2>&1; echo $?";
    let ends = std::thread::scope(|scope| {
        let command = |line: &str| {
            let mut command = host.command();
            command.args(["bash", "-c", line]);
            command
        };
        let mut commands: Vec<_> = (0..runs).map(|_| command(script)).collect();
        let done = &done;
        let runner = scope.spawn(move || {
            let mut ends = Vec::new();
            for command in &mut commands {
                let begun = Instant::now();
                let output = command.output().unwrap();
                ends.push((String::from_utf8(output.stdout).unwrap(), begun.elapsed()));
            }
            done.store(true, Ordering::Relaxed);
            ends
        });
        let mut number = 0_u64;
        while !done.load(Ordering::Relaxed) {
            number += 1;
            std::thread::sleep(Duration::from_millis(100 + number * 137 % 400));
            host.stop("vswitchd", libc::SIGKILL);
            host.start_vswitchd();
        }
        runner.join().unwrap()
    });
    // Docker tries again for 15 s before it gives up a call.
    let longest = ends.iter().map(|(_, took)| *took).max().unwrap();
    assert!(longest < Duration::from_secs(50), "{ends:?}");
    all_ways(&mut host);
    assert_eq!(host.sh(NOTICED).ok(), before);
    // What a crash in the middle of a call left is gone at the latest when the switch starts the next time.
    host.stop("vswitchd", libc::SIGTERM);
    host.start_vswitchd();
    assert_eq!(kept(&host), [2, 2, 2, 0], "{ends:?}\n{}", host.sh("ip -o link").stdout);
    assert_eq!(host.sh("docker run --rm --network net busybox ping -c 1 -W 3 10.82.0.11").code, Some(0));
    host.sh("docker rm -f box web && docker network rm net").ok();
    assert_eq!(kept(&host), [0; 4]);
}

fn a_hundred_containers_at_once_reach_their_own_and_leave_nothing(engine: Engine) {
    needs_engine!(engine, "dockerd", "docker", "unshare", "busybox", "dnsmasq", "iptables", "curl", "nc");
    let mut host = DockerHost::on(engine, FILE);
    // Once before, so that what the switch opens only once is open.
    host.sh("docker network create -d vswitch --subnet 10.83.0.0/24 first && docker run --rm --network first -p 8079:80 busybox true").ok();
    // The files of namespaces are removed by Docker within a minute, but what was mounted there, at once.
    let devices = |host: &DockerHost| host.sh("grep -o '/run/docker/netns/[^ ]*' /proc/mounts; ip -o link").stdout;
    host.until("Docker has tidied up", |host| devices(host).starts_with("1: lo"));
    let before = (descriptors(&host), devices(&host));
    host.sh("for n in 0 1 2 3 4 5 6 7 8 9; do docker network create -d vswitch --subnet 10.84.$n.0/24 n$n; done").ok();
    host.sh(
        "for c in $(seq 0 99); do docker run -d --name c$c --network n$((c % 10)) --ip 10.84.$((c % 10)).$((c + 10)) -p $((9000 + c)):80 httpd > /dev/null &
        done; wait; [ $(docker ps -q | wc -l) = 100 ]",
    )
    .ok();
    // Each asks all of its network, and one of every other.
    let matrix = "for c in $(seq 0 99); do
        nsenter -a -t $(docker inspect -f '{{.State.Pid}}' c$c) -- sh -c '
            for d in $(seq '$((c % 10))' 10 99); do ping -c 1 -W 5 10.84.'$((c % 10))'.$((d + 10)) > /dev/null || echo '$c' misses $d & done
            for n in 0 1 2 3 4 5 6 7 8 9; do
                [ $n = '$((c % 10))' ] || ! ping -c 1 -W 1 10.84.$n.$((n + 10)) > /dev/null || echo '$c' reaches a container of network $n &
            done; wait' &
        [ $((c % 10)) = 9 ] && wait
    done; wait; for c in $(seq 0 99); do curl -sf -m 5 -o /dev/null http://127.0.0.1:$((9000 + c))/cgi-bin/who || echo $c is not published & done; wait";
    let complaints = host.sh(matrix);
    assert_eq!((complaints.stdout.as_str(), complaints.code), ("", Some(0)), "{}", complaints.stderr);
    assert_eq!(kept(&host), [100, 100, 100, 0]);
    host.sh("docker ps -aq | xargs -P 8 -n 5 docker rm -f > /dev/null && docker network ls -q --filter name=^n[0-9] | xargs docker network rm").ok();
    assert_eq!(kept(&host), [0; 4]);
    assert_eq!(host.sh("vsctl --json sessions").ok().trim(), "[]");
    host.until("devices and namespaces are gone", |host| devices(host) == before.1);
    host.until("descriptors are closed", |host| descriptors(host) <= before.0);
}

fn refusals_say_what_is_wrong_and_what_would_be_right(engine: Engine) {
    needs_engine!(engine, "dockerd", "docker", "unshare", "busybox", "dnsmasq", "iptables", "curl", "nc");
    let host = DockerHost::on(engine, &format!("{FILE}[[bridge]]\nname = \"br0\"\naddresses = [\"10.85.0.1/24\"]\n"));
    let refused = |line: &str| {
        let outcome = host.sh(line);
        assert!(matches!(outcome.code, Some(1 | 125)), "{line}: {outcome:?}");
        outcome.stderr
    };
    host.sh("docker network create -d vswitch --subnet 10.86.0.0/24 net && docker run -d --name box --network net busybox sleep 1000").ok();
    for (line, sentence) in [
        (
            "docker network create -d vswitch --subnet 10.85.0.0/16 x",
            "overlaps 10.85.0.1/24 of bridge \"br0\": use one that is apart",
        ),
        (
            "docker network create -d vswitch -o vswitch.colour=red --subnet 10.87.0.0/24 x",
            "unknown option `vswitch.colour`: the driver vswitch knows vswitch.bridge",
        ),
        (
            "docker network create -d vswitch -o vswitch.uplink=wlan --subnet 10.87.0.0/24 x",
            "uplink \"wlan\", which does not exist: add [[uplink]]",
        ),
        (
            "docker network create -d vswitch -o vswitch.vlan=5000 --subnet 10.87.0.0/24 x",
            "the option `vswitch.vlan` is \"5000\": use a number from 1 to 4094",
        ),
        (
            "docker network create -d vswitch -o vswitch.mtu=many --subnet 10.87.0.0/24 x",
            "the option `vswitch.mtu` is \"many\": use a number from",
        ),
        ("docker network create -d vswitch -o vswitch.attach=string --subnet 10.87.0.0/24 x", "use tap or veth"),
        (
            "docker network create -d vswitch -o vswitch.send-rate=fast --subnet 10.87.0.0/24 x",
            "use bits a second, such as 500kbit, 10mbit or 1gbit",
        ),
        (
            "docker network create -d vswitch -o vswitch.bridge=br9 --subnet 10.87.0.0/24 x",
            "there is no bridge \"br9\" in switch.toml",
        ),
        (
            "docker network create -d vswitch --internal -o vswitch.uplink=host --subnet 10.87.0.0/24 x",
            "no option of an internal network",
        ),
        (
            "docker network create -d vswitch --ipam-driver null -o vswitch.uplink=host x",
            "`vswitch.uplink` is for a network with a subnet",
        ),
        ("docker run --rm --network net --ip 10.86.0.2 busybox true", "Address already in use"),
        ("docker run --rm --network net -p 8000:80 busybox true", "0.0.0.0:8000 is in use by another program"),
        ("docker run --rm --network net -p 80:80/sctp busybox true", "SCTP ports cannot be published: use tcp or udp"),
    ] {
        let said = refused(line);
        assert!(said.contains(sentence), "{line}\n{said}");
        assert!(!said.contains("panicked") && !said.contains("EOF"), "{line}\n{said}");
    }
    // A file that would take a running container's network away is not taken.
    host.write("/run/switch.toml", &format!("{FILE}[[bridge]]\nname = \"br0\"\naddresses = [\"10.86.0.1/16\"]\n"));
    let said = refused("vsctl reload");
    assert!(said.contains("no room for Docker's network") && said.contains("which has 1 running"), "{said}");
    host.sh("docker exec box ping -c 1 -W 3 10.86.0.1").ok();
    // Nothing of what was refused is left.
    assert_eq!(host.sh("docker network ls -q --filter driver=vswitch | wc -l; docker ps -q | wc -l").ok(), "1\n1\n");
    assert_eq!(kept(&host), [1, 0, 1, 0]);
}
