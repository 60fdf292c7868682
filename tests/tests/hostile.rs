//! The harness itself, on a machine with a Docker host's and a careful administrator's settings. It changes the machine, so it is
//! alone in its program.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::Command;
use std::sync::{Mutex, PoisonError};

use vswitch_tests::{DockerHost, Hostile, Lab, needs, ping, program, tcp};

const FILE: &str = r#"
[[uplink]]
name = "host"
kind = "host"
[[bridge]]
name = "br0"
addresses = ["10.10.0.1/24", "fd10::1/64"]
uplink = "host"
[[port]]
name = "a"
bridge = "br0"
netns = "@a"
addresses = ["10.10.0.2/24", "fd10::2/64"]
[[port]]
name = "b"
bridge = "br0"
kind = "veth"
netns = "@b"
addresses = ["10.10.0.3/24", "fd10::3/64"]
"#;

/// The tests of this program run one after the other.
static MACHINE: Mutex<()> = Mutex::new(());

#[test]
fn a_lab_has_the_settings_that_it_relies_on_whatever_the_machine_has() {
    needs!("ping", "iperf3", "unshare", "busybox", "dnsmasq", "dockerd", "docker", "iptables", "curl", "nc");
    let _machine = MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
    let hostile = Hostile::new();
    assert!(hostile.has("/proc/sys/net/ipv4/ip_forward") && hostile.has("/proc/sys/net/ipv6/conf/default/disable_ipv6"));

    let lab = Lab::new();
    lab.sh("netns @b && ip -n @host link add k0 type veth peer name k1 netns @b").ok();
    let mut lab = lab;
    lab.write(FILE);
    lab.start();
    for netns in ["host", "a", "b"] {
        let said = lab.run_in(netns, "cd /proc/sys/net; cat ipv4/ip_forward ipv4/conf/all/rp_filter ipv6/conf/all/forwarding ipv6/conf/default/disable_ipv6");
        assert_eq!(said.ok(), "0\n0\n0\n0\n", "{netns}");
    }
    assert!(ping(&lab, "a", "10.10.0.3") && ping(&lab, "a", "fd10::3") && ping(&lab, "b", "fd10::1"));
    assert!(tcp(&lab, "a", "b", "10.10.0.3", "-n 8M").bits > 0.0);
    assert!(lab.stop().success());

    // With forwarding on from the start, dockerd would leave the way in open, and its bridge would answer from outside.
    let mut host = DockerHost::new();
    assert_eq!(host.sh("cat /proc/sys/net/ipv4/ip_forward; outside cat /proc/sys/net/ipv4/ip_forward").ok(), "0\n0\n");
    host.start_dockerd(&[]);
    host.import();
    host.sh("docker run -d --name web httpd").ok();
    let address = host.sh("docker inspect -f '{{.NetworkSettings.Networks.bridge.IPAddress}}' web").ok();
    let ask = |from: &str| host.sh(&format!("{from} curl -s -m 2 http://{}/", address.trim()));
    assert!(host.sh("outside ip route add 172.17.0.0/16 via 192.0.2.1").code == Some(0));
    host.sh(&format!("until curl -s -m 2 http://{}/; do sleep 0.2; done", address.trim())).ok();
    assert_ne!(ask("outside").code, Some(0), "nobody outside reaches an address inside");
}

/// Any user may lock the directory of namespaces. Who waits for it does not wait for ever, and no broker is left.
#[test]
fn a_lock_on_the_directory_of_namespaces_holds_up_a_request_and_not_the_switch() {
    needs!("flock", "ping");
    let _machine = MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut lab = Lab::with(FILE);
    let broker = lab.broker();
    let mut locker = Command::new("flock").args(["--no-fork", "/run/netns", "sleep", "1000"]).spawn().unwrap();
    let is_locked = |lab: &Lab| lab.sh("flock --nonblock /run/netns true").code != Some(0);
    lab.until("it is locked", is_locked);
    let add = "add-port br0 c --netns @c --address 10.10.0.4/24";
    let said = lab.ctl(add).refused();
    assert!(said.contains("another program keeps /run/netns locked: `lslocks` says which"), "{said}");
    assert!(ping(&lab, "a", "10.10.0.3"));
    let place = lab.path("control.sock").display().to_string();
    let vsctl = program("vsctl").display().to_string();
    lab.spawn_in("host", &format!("{vsctl} --control {place} {add}"));
    lab.until("the broker waits for the lock", |lab| lab.log().matches("add-port br0 c").count() > 1);
    lab.kill();
    lab.until("the broker has ended", |_| !std::path::Path::new(&format!("/proc/{broker}/fd/0")).exists());
    locker.kill().unwrap();
    locker.wait().unwrap();
    lab.start();
    lab.ctl(add).ok();
    assert!(ping(&lab, "c", "10.10.0.2"));
}
