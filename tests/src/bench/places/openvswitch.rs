//! Open vSwitch with its datapath in user space, with a database and sockets in the lab's own directory.

use std::fmt::Write;
use std::time::Instant;

use super::{Contender, Crowd, ETHTOOL, IP, NEAR, Need, Place, address_stations, silence};
use crate::lab::Lab;

const NEEDS: &[Need] = &[
    IP,
    ETHTOOL,
    Need { tool: "ovs-vswitchd", package: "openvswitch-switch" },
    Need { tool: "ovsdb-server", package: "openvswitch-switch" },
    Need { tool: "ovs-vsctl", package: "openvswitch-switch" },
];
const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";

/// With TAPs that it makes itself.
pub(crate) static OVS_TAP: Contender = Contender { name: "OVS netdev, TAP", needs: NEEDS, only: None, open: open_tap };
/// With veth pairs.
pub(crate) static OVS_VETH: Contender = Contender { name: "OVS netdev, veth", needs: NEEDS, only: None, open: open_veth };

fn open_tap() -> Place {
    let mut lab = Lab::new();
    let switch = start(&mut lab, "ovs-vswitchd", "");
    vsctl(&lab, &format!("{BRIDGE} -- set bridge br0 other_config:mac-table-size=65536{}{}", tap("a"), tap("b")));
    for name in ["a", "b"] {
        lab.add_netns(name);
        lab.sh(&format!("ip -n @host link set dev {name} netns @{name} name eth0")).ok();
    }
    opened(lab, switch)
}

fn open_veth() -> Place {
    let mut lab = Lab::new();
    let switch = start(&mut lab, "ovs-vswitchd", "");
    let mut words = BRIDGE.to_owned();
    for name in ["a", "b"] {
        lab.add_netns(name);
        lab.sh(&format!(
            "ip -n @host link add name {name} type veth peer name eth0 netns @{name} && ip -n @host link set dev {name} up"
        ))
        .ok();
        // It neither finishes checksums nor cuts super-frames that a veth hands it.
        lab.run_in(name, "for what in tx tso gso gro; do ethtool -K eth0 $what off; done");
        lab.run_in("host", &format!("for what in tx tso gso gro tx-udp-segmentation; do ethtool -K {name} $what off; done"));
        let _ = write!(words, " -- add-port br0 {name}");
    }
    vsctl(&lab, &words);
    opened(lab, switch)
}

fn opened(lab: Lab, switch: u32) -> Place {
    address_stations(&lab);
    let mut place = Place::new(lab, ("a", "b"), NEAR, vec![switch]);
    // One line is the heading.
    place.known_macs = Some(|lab| appctl(lab, "fdb/show br0").lines().count().saturating_sub(1));
    place
}

/// An Open vSwitch with so many TAPs, made by one `ovs-vsctl`.
///
/// # Panics
/// If they cannot be made.
pub(crate) fn ovs_of(ports: u32) -> Crowd {
    let mut lab = silence();
    let begun = Instant::now();
    let switch = vec![start(&mut lab, "ovs-vswitchd", "")];
    let taps: String = (0..ports).map(|number| tap(&format!("p{number}"))).collect();
    vsctl(&lab, &format!("{BRIDGE}{taps}"));
    let time = begun.elapsed();
    // The last port is what is waited for; that it is there is what makes the time one.
    let last = format!("ip -o link show p{}", ports.saturating_sub(1));
    assert_eq!(lab.run_in("host", &last).code, Some(0), "Open vSwitch has not made all its ports");
    Crowd { _lab: lab, time, switch }
}

/// Starts the database and the switch, whose program this is, after `ovs-vsctl` with these words; the process of the switch.
pub(crate) fn start(lab: &mut Lab, program: &str, settings: &str) -> u32 {
    let home = lab.path("").display().to_string();
    let run = environment(lab);
    lab.sh(&format!("ovsdb-tool create {home}/conf.db {SCHEMA}")).ok();
    let options = format!("--pidfile={home}/db.pid --unixctl={home}/db.ctl --log-file={home}/db.log");
    lab.spawn_in("host", &format!("{run} ovsdb-server {home}/conf.db --remote=punix:{home}/db.sock {options}"));
    lab.until("ovsdb-server listens", |lab| lab.path("db.sock").exists());
    lab.run_in("host", &format!("{run} ovs-vsctl --no-wait --db=unix:{home}/db.sock init {settings}")).ok();
    let options = format!("--pidfile={home}/ovs.pid --unixctl={home}/ovs.ctl --log-file={home}/ovs.log");
    let pid = lab.spawn_in("host", &format!("{run} {program} unix:{home}/db.sock {options}"));
    lab.until("ovs-vswitchd listens, or has ended", |lab| lab.path("ovs.ctl").exists() || !alive(pid));
    assert!(alive(pid), "ovs-vswitchd ended: {}", last_error(lab));
    pid
}

fn environment(lab: &Lab) -> String {
    let home = lab.path("");
    let home = home.display();
    format!("env OVS_RUNDIR={home} OVS_DBDIR={home} OVS_LOGDIR={home}")
}

/// Whether a child that was not waited for still runs.
fn alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

fn last_error(lab: &Lab) -> String {
    let log = std::fs::read_to_string(lab.path("ovs.log")).unwrap_or_default();
    log.lines().rfind(|line| line.contains("|ERR|") || line.contains("|EMER|")).unwrap_or("its log says nothing").to_owned()
}

/// Runs `ovs-vsctl`, which waits until the switch has done it. By a file, because a command line has an end.
pub(crate) fn vsctl(lab: &Lab, words: &str) {
    let home = lab.path("").display().to_string();
    let file = format!("{home}/words");
    std::fs::write(&file, words).expect("a file written");
    let line = format!("{} xargs -a {file} -s 2000000 ovs-vsctl --timeout=55 --db=unix:{home}/db.sock", environment(lab));
    lab.run_in("host", &line).ok();
}

/// Asks the switch.
pub(crate) fn appctl(lab: &Lab, words: &str) -> String {
    lab.run_in("host", &format!("ovs-appctl -t {} {words}", lab.path("ovs.ctl").display())).ok()
}

const BRIDGE: &str = "add-br br0 -- set bridge br0 datapath_type=netdev";

fn tap(name: &str) -> String {
    format!(" -- add-port br0 {name} -- set interface {name} type=tap")
}
