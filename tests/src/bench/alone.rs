//! The datapath alone: 64-byte frames of one flow from port to port in memory, by Open vSwitch between DPDK's null devices, and here
//! from a batch to the gathered frame. Both copy a frame in, learn or match, and hand it to a device that does nothing.
//!
//! Per second of CPU time of the one thread that does it, so that other work of the machine's does not count. DPDK polls a core
//! all the time, so it is started for each of its measurements.

use std::time::{Duration, Instant};

use api::ControlFrames;
use packet::{Batch, Capabilities, Egress, Mac, Offload, Queued};
use plane::datapath::{BridgeId, BridgeSettings, Datapath, Outputs, PortId, PortSettings};

use super::measure::{Figures, Metric};
use super::places::{appctl, start_ovs, vsctl};
use super::process::{self, THIS_THREAD};
use super::run::{Entry, Interrupted, Run, sleep};
use crate::lab::Lab;

/// The name of what is measured here.
pub(crate) const MEASURE: &str = "alone";
const METRICS: &[Metric] = &[Metric { name: "64 B frames, M per CPU second", less: false }];

/// Measures it.
///
/// # Errors
/// If the run was interrupted.
pub(crate) fn measure(run: &mut Run) -> Result<(), Interrupted> {
    let path = super::paths::DATAPATH.0;
    if !run.wants(path, MEASURE) {
        return Ok(());
    }
    let (time, root) = (Duration::from_secs(run.options.seconds.min(2)), run.options.dpdk.clone());
    let mut entries = vec![Entry { contender: "vswitch", run: Box::new(move || ours(time)) }];
    match Dpdk::find(&root) {
        Ok(dpdk) => entries.push(Entry { contender: DPDK, run: Box::new(move || dpdk.measure(time)) }),
        Err(reason) => run.lacks(DPDK, path, &reason),
    }
    run.compare(path, MEASURE, METRICS, usize::MAX, &entries)
}

fn ours(time: Duration) -> Figures {
    let mut datapath = Datapath::new(Instant::now(), 1);
    let settings = BridgeSettings {
        mtu: 1500,
        ageing: 300,
        max_macs: 1024,
        control_frames: ControlFrames::Drop,
        ..BridgeSettings::default()
    };
    datapath.set_bridge(Instant::now(), BridgeId(0), settings);
    let port = PortSettings::on(BridgeId(0));
    let [one, other] = [Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2])];
    let (mut batch, mut outputs, mut egress) = (Batch::new(), Outputs::new(), Egress::new());
    for (number, from, to) in [(0, one, other), (1, other, one)] {
        datapath.set_port(PortId(number), &port);
        fill(&mut batch, number, &frame(from, to));
        breathe(&mut datapath, &mut batch, &mut outputs, &mut egress);
    }
    let (bytes, mut frames) = (frame(one, other), 0_u64);
    let (begun, before) = (Instant::now(), process::cpu(THIS_THREAD));
    while begun.elapsed() < time {
        for _ in 0..64 {
            fill(&mut batch, 0, &bytes);
            frames += breathe(&mut datapath, &mut batch, &mut outputs, &mut egress);
        }
    }
    per_second(frames, process::cpu(THIS_THREAD) - before)
}

fn per_second(frames: u64, used: Duration) -> Figures {
    assert!(frames > 0, "no frame was forwarded");
    vec![Some(frames as f64 / used.as_secs_f64().max(0.01) / 1e6)]
}

fn frame(source: Mac, destination: Mac) -> [u8; 64] {
    let mut bytes = [0; 64];
    bytes[..6].copy_from_slice(&destination.0);
    bytes[6..12].copy_from_slice(&source.0);
    bytes[12..15].copy_from_slice(&[0x08, 0x00, 0x45]);
    bytes
}

fn fill(batch: &mut Batch, port: u32, bytes: &[u8]) {
    batch.clear();
    batch.set_ingress(port);
    (0..Batch::FRAMES).for_each(|_| batch.push(bytes, Offload::default()));
}

/// Forwards a batch and gathers every frame for its device; how many.
fn breathe(datapath: &mut Datapath, batch: &mut Batch, outputs: &mut Outputs, egress: &mut Egress) -> u64 {
    datapath.forward(Instant::now(), batch, outputs);
    outputs.act(batch);
    let mut sent = 0;
    for port in outputs.used() {
        let queue: Vec<Queued<'_>> = outputs
            .queue(*port)
            .iter()
            .map(|departure| Queued { frame: &batch.frames()[departure.frame], edit: departure.edit, peer: 0 })
            .collect();
        egress.run(&queue, Capabilities::ALL, &mut |packet| {
            std::hint::black_box(packet);
            sent += 1;
        });
    }
    outputs.clear();
    sent
}

const DPDK: &str = "OVS, DPDK null ports";

/// Open vSwitch with DPDK, below the directory where it is installed or unpacked.
struct Dpdk(String);

impl Dpdk {
    fn find(root: &std::path::Path) -> Result<Self, String> {
        let root = root.display().to_string();
        let root = root.trim_end_matches('/').to_owned();
        for (file, package) in [(PROGRAM, "openvswitch-switch-dpdk"), (&format!("{LIBRARIES}/{NULL}"), "librte-net-null23")] {
            if !std::path::Path::new(&format!("{root}{file}")).exists() {
                return Err(format!("there is no {root}{file}; the package {package} has it"));
            }
        }
        let pages = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let free = pages.lines().find_map(|line| line.strip_prefix("HugePages_Free:")?.trim().parse().ok()).unwrap_or(0);
        if free < PAGES {
            return Err(format!("it needs {PAGES} free huge pages, and there are {free}: sysctl vm.nr_hugepages={PAGES}"));
        }
        Ok(Self(root))
    }

    fn measure(&self, time: Duration) -> Figures {
        let root = &self.0;
        let mut lab = Lab::new();
        let libraries = format!("{root}{LIBRARIES}");
        // Where it is not installed it does not find its drivers by itself.
        let drivers = if root.is_empty() {
            String::new()
        } else {
            ["librte_bus_vdev.so.23", "librte_mempool_ring.so.23", NULL].map(|file| format!("-d {libraries}/{file} ")).concat()
        };
        let settings = format!(
            "-- set Open_vSwitch . other_config:dpdk-init=true other_config:pmd-cpu-mask=0x1 \
             'other_config:dpdk-extra=\"--no-pci -m 512 {drivers}\"'"
        );
        let switch = start_ovs(&mut lab, &format!("LD_LIBRARY_PATH={libraries} {root}{PROGRAM}"), &settings);
        vsctl(
            &lab,
            "add-br br0 -- set bridge br0 datapath_type=netdev \
             -- add-port br0 n0 -- set interface n0 type=dpdk options:dpdk-devargs=net_null0,size=64 \
             -- add-port br0 n1 -- set interface n1 type=dpdk options:dpdk-devargs=net_null1,size=64,no-rx=1",
        );
        // The frames have no addresses to learn.
        lab.run_in("host", &format!("ovs-ofctl add-flow unix:{} in_port=n0,actions=output:n1", lab.path("br0.mgmt").display()))
            .ok();
        lab.until("frames pass", |lab| sent(lab) > 0);
        let thread = polling_thread(switch);
        let (before, used) = (sent(&lab), process::cpu(&thread));
        sleep(time);
        per_second(sent(&lab) - before, process::cpu(&thread) - used)
    }
}

/// Frames that the second device was handed so far.
fn sent(lab: &Lab) -> u64 {
    // port 2: n1 (...)   RX packets:0 ...   TX packets:1 errors:0 ...
    let text = appctl(lab, "dpctl/show -s");
    let of = text.split(": n1 ").nth(1).and_then(|rest| rest.split("TX packets:").nth(1));
    of.and_then(|rest| rest.split(' ').next()?.parse().ok()).unwrap_or(0)
}

/// The thread of Open vSwitch that polls the devices, below /proc.
fn polling_thread(pid: u32) -> String {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("a process");
    let thread = tasks
        .filter_map(Result::ok)
        .find(|task| std::fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name.starts_with("pmd-")));
    format!("{pid}/task/{}", thread.expect("a polling thread").file_name().display())
}

const PROGRAM: &str = "/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk";
const LIBRARIES: &str = "/usr/lib/x86_64-linux-gnu";
const NULL: &str = "librte_net_null.so.23";
const PAGES: u32 = 400;

#[cfg(test)]
mod tests {
    #[test]
    fn a_frame_is_forwarded() {
        let figures = super::ours(std::time::Duration::from_millis(20));
        assert!(figures[0].is_some_and(|rate| rate > 0.0));
    }
}
