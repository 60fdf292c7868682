//! Many ports: how long a switch takes to start with them, what they cost in memory, and what it does while they are quiet.

use std::time::Duration;

use super::measure::{Figures, Metric};
use super::places::{Crowd, bridge_of, ovs_of, switch_of};
use super::process;
use super::run::{Entry, Interrupted, Run};

/// A contender, the programs that it needs with their packages, and what starts it with so many ports.
type Who = (&'static str, &'static [(&'static str, &'static str)], MakeCrowd);
type MakeCrowd = fn(u32) -> Crowd;

const WHO: [Who; 3] = [
    ("vswitch", &[], switch_of),
    ("Linux bridge, veth", &[], bridge_of),
    ("OVS netdev, TAP", &[("ovs-vswitchd", "openvswitch-switch"), ("ovs-vsctl", "openvswitch-switch")], ovs_of),
];

const STARTS: [(&str, u32, &[Metric], usize); 3] = [
    ("start-1", 1, &[Metric { name: "start with 1 port, s", less: true }], 3),
    ("start-100", 100, &[Metric { name: "start with 100 ports, s", less: true }], 3),
    ("start-1000", 1000, &[Metric { name: "start with 1000 ports, s", less: true }], 1),
];

const QUIET: &str = "quiet";
const QUIET_METRICS: &[Metric] = &[
    Metric { name: "idle CPU, 200 ports, %", less: true },
    Metric { name: "memory with 200 ports, MiB", less: true },
    Metric { name: "memory per port, KiB", less: true },
    Metric { name: "  with the kernel's, KiB", less: true },
];
const QUIET_PORTS: u32 = 200;

/// The names of what is measured here.
pub(crate) fn measures() -> impl Iterator<Item = &'static str> {
    STARTS.iter().map(|start| start.0).chain([QUIET])
}

/// Measures it all.
///
/// # Errors
/// If the run was interrupted.
pub(crate) fn measure(run: &mut Run) -> Result<(), Interrupted> {
    let path = super::paths::PORTS.0;
    let quick = run.options.quick;
    for (name, ports, metrics, rounds) in STARTS.iter().filter(|start| !quick || start.1 <= 100) {
        let entries = here(run, |make| Box::new(move || vec![Some(start(make, *ports))]));
        run.compare(path, name, metrics, *rounds, &entries)?;
    }
    let time = Duration::from_secs(if quick { 2 } else { 10 });
    let entries = here(run, |make| Box::new(move || quiet(make, time)));
    run.compare(path, QUIET, QUIET_METRICS, 1, &entries)
}

/// Those whose programs are here, each with what it does.
fn here<'a>(run: &mut Run, what: impl Fn(MakeCrowd) -> Box<dyn Fn() -> Figures + 'a>) -> Vec<Entry<'a>> {
    let there = WHO
        .into_iter()
        .filter(|(name, needs, _)| needs.iter().all(|(tool, package)| run.has(name, super::paths::PORTS.0, tool, package)));
    there.map(|(contender, _, make)| Entry { contender, run: what(make) }).collect()
}

/// Seconds until so many ports forward.
///
/// # Panics
/// If they would take more memory than there is: the kernel's part of a port may be megabytes, and the machine has other users.
fn start(make: MakeCrowd, ports: u32) -> f64 {
    if ports > SAMPLE {
        let before = process::available();
        let sample = make(SAMPLE);
        let needed = (before - process::available()).max(0.0) / f64::from(SAMPLE) * f64::from(ports);
        drop(sample);
        let [needed, there] = [needed, before].map(|bytes| bytes / f64::from(1 << 30));
        assert!(needed < there / 2.0, "{ports} ports would take {needed:.0} GiB of memory, and {there:.0} GiB are free");
    }
    make(ports).time.as_secs_f64()
}

fn quiet(make: MakeCrowd, time: Duration) -> Figures {
    let memory = |crowd: &Crowd| -> f64 { crowd.switch.iter().map(|pid| process::resident(*pid)).sum() };
    let cpu = |crowd: &Crowd| -> Duration { crowd.switch.iter().map(|pid| process::cpu(*pid)).sum() };
    let alone = memory(&make(1));
    // The kernel takes a namespace apart when it has time.
    super::run::sleep(Duration::from_secs(1));
    let available = process::available();
    let crowd = make(QUIET_PORTS);
    let taken = (available - process::available()) / f64::from(QUIET_PORTS) / 1024.0;
    // Less than that is what the rest of the machine does.
    let taken = (taken >= 1.0).then_some(taken);
    if crowd.switch.is_empty() {
        return vec![None, None, None, taken];
    }
    // What is left of starting is over: duplicate address detection, router solicitations.
    super::run::sleep(SETTLING);
    let before = cpu(&crowd);
    super::run::sleep(time);
    let idle = (cpu(&crowd) - before).as_secs_f64() / time.as_secs_f64() * 100.0;
    let resident = memory(&crowd);
    let per_port = (resident - alone) / f64::from(QUIET_PORTS - 1);
    vec![Some(idle), Some(resident / f64::from(1 << 20)), Some(per_port / 1024.0), taken]
}

/// So many ports say what more would take.
const SAMPLE: u32 = 100;
const SETTLING: Duration = Duration::from_secs(3);
