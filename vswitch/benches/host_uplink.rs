//! One TCP stream between a container and a peer of the host, by the host uplink, by slirp4netns and by pasta, at MTU 1500:
//! `cargo bench -p vswitch --bench host_uplink` as root. `ROUNDS=9 SECONDS=2` say how often and how long.
//!
//! Everything is in namespaces: `host` with the uplink, or the other two; a container behind it; a peer that serves iperf3. The three
//! run alternately, and what counts is the median of the rounds' ratios, for the machine may have other things to do.
#![allow(missing_docs)]

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use api::{ControlFrames, Netns, PortKind, PortSpec, VlanMode};
use packet::Mac;
use plane::datapath::{BridgeId, BridgeSettings, PortId, PortSettings};
use plane::device::Device;
use plane::worker::{Command as Order, Handle, Worker};
use vswitch::attach::{Plan, attach, make_netns, remove_netns};
use vswitch::confine::Confinement;
use vswitch::host::{Capacity, HostUplink, Settings, open};

const HOST: &str = "vsb-uplink-host";
const PEER: &str = "vsb-uplink-peer";
const OURS: &str = "vsb-uplink-vswitch";
const SLIRP: &str = "vsb-uplink-slirp";
const PASTA: &str = "vsb-uplink-pasta";

fn main() {
    if !rustix::process::geteuid().is_root() {
        println!("SKIPPED host_uplink: needs root");
        return;
    }
    let number = |name: &str, default: usize| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default);
    let (rounds, seconds) = (number("ROUNDS", 5), number("SECONDS", 2));
    let _names: Vec<Name> = [HOST, PEER, OURS, SLIRP, PASTA].into_iter().map(Name::new).collect();
    prepare();
    let _ours = Ours::start();
    let _others = [start_slirp(), start_pasta(), server()];
    std::thread::sleep(Duration::from_secs(2));
    for (what, option) in [("container to peer", ""), ("peer to container", "-R")] {
        let mut figures = Vec::new();
        for _ in 0..rounds {
            figures.push([OURS, SLIRP, PASTA].map(|name| rate(name, option, seconds)));
        }
        let gigabits = |index: usize| median(figures.iter().map(|row| row[index]).collect()) / 1e9;
        let ratio = |index: usize| median(figures.iter().map(|row| row[0] / row[index]).collect());
        println!(
            "{what}: {:.2} Gb/s; slirp4netns {:.2}, ratio {:.1}; pasta {:.2}, ratio {:.2}",
            gigabits(0),
            gigabits(1),
            ratio(1),
            gigabits(2),
            ratio(2)
        );
    }
}

struct Name(&'static str);

impl Name {
    fn new(name: &'static str) -> Self {
        make_netns(name, "").expect("a namespace");
        Self(name)
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        let _ = remove_netns(self.0);
    }
}

/// A child that ends with its owner.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn prepare() {
    run(&format!("ip -n {HOST} link add up0 type veth peer name eth0 netns {PEER}"));
    run(&format!("ip -n {HOST} addr add 192.0.2.1/24 dev up0; ip -n {HOST} link set up0 up; ip -n {HOST} link set lo up"));
    run(&format!("ip -n {HOST} route add default via 192.0.2.2 dev up0"));
    run(&format!("ip -n {PEER} addr add 192.0.2.2/24 dev eth0; ip -n {PEER} link set eth0 up; ip -n {PEER} link set lo up"));
}

fn run(line: &str) -> String {
    let output = Command::new("sh").args(["-c", line]).output().expect("a shell");
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn spawn(line: &str) -> Running {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("exec {line}")]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Running(command.spawn().expect("started"))
}

fn server() -> Running {
    spawn(&format!("nsenter --net=/run/netns/{PEER} iperf3 -s"))
}

fn start_slirp() -> Running {
    spawn(&format!("nsenter --net=/run/netns/{HOST} slirp4netns -c --mtu=1500 --netns-type=path /run/netns/{SLIRP} tap0"))
}

fn start_pasta() -> Running {
    let options = "--config-net --runas 0 -f -m 1500 -t none -u none -T none -U none --no-map-gw";
    spawn(&format!("nsenter --net=/run/netns/{HOST} pasta {options} --netns /run/netns/{PASTA}"))
}

/// The uplink, bridged to a TAP.
struct Ours {
    _uplink: HostUplink,
    worker: Handle,
}

impl Ours {
    fn start() -> Self {
        let (mac, router) = (Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 10]));
        let tap = tap(router);
        let sandbox = Confinement::on(&std::env::temp_dir()).expect("threads are confined");
        let settings = Settings {
            name: "bench".to_owned(),
            mac,
            router,
            mtu: 1500,
            capacity: Capacity::default(),
            sandbox,
            inherited: std::sync::Arc::default(),
            holds: false,
        };
        let file = std::fs::File::open(format!("/run/netns/{HOST}")).expect("a namespace");
        let opened = std::thread::spawn(move || {
            sys::netns::enter(std::os::fd::AsFd::as_fd(&file)).expect("entered");
            open(settings).expect("an uplink")
        });
        let (uplink, device) = opened.join().expect("opened");
        let worker = bridge([tap, device]);
        run(&format!("ip -n {OURS} neigh replace 10.10.0.1 lladdr {mac} dev eth0 nud permanent"));
        Self { _uplink: uplink, worker }
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        self.worker.hint(Order::Stop);
    }
}

fn tap(mac: Mac) -> Box<dyn Device> {
    let spec = PortSpec {
        name: "c".parse().expect("a name"),
        bridge: "br0".parse().expect("a name"),
        kind: PortKind::Tap,
        netns: Some(Netns::Name(OURS.to_owned())),
        ifname: "eth0".parse().expect("a name"),
        mac: Some(mac),
        addresses: vec!["10.10.0.2/24".parse().expect("an address")],
        vlans: VlanMode::All,
        policy: api::PortPolicy::default(),
        offload: true,
    };
    let plan = Plan {
        spec,
        first_mac: None,
        mtu: 1500,
        workers: 1,
        held: Vec::new(),
        gateways: vec!["10.10.0.1/24".parse().expect("an address")],
        netns_mark: String::new(),
        routes: Vec::new(),
    };
    attach(&plan).expect("a TAP").queues.devices().remove(0)
}

fn bridge(devices: [Box<dyn Device>; 2]) -> Handle {
    let (worker, handle) = Worker::new(1, Box::new(|_| ())).expect("a worker");
    std::thread::spawn(move || worker.run());
    let settings = BridgeSettings {
        mtu: 1500,
        ageing: 300,
        max_macs: 16,
        control_frames: ControlFrames::Drop,
        ..BridgeSettings::default()
    };
    handle.tell(Order::SetBridge(BridgeId(0), settings)).expect("told");
    for (number, device) in (0..).zip(devices) {
        let settings = PortSettings::on(BridgeId(0));
        handle.ask(|reply| Order::Attach(PortId(number), settings, device, reply)).expect("told").expect("attached");
    }
    handle
}

/// Bits a second that the receiver saw.
fn rate(container: &str, option: &str, seconds: usize) -> f64 {
    let text = run(&format!("nsenter --net=/run/netns/{container} iperf3 -J -c 192.0.2.2 -t {seconds} {option}"));
    let report: serde_json::Value = serde_json::from_str(&text).expect("a report");
    report["end"]["sum_received"]["bits_per_second"].as_f64().expect("a rate")
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
