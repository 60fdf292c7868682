//! What `vsctl add-port` takes where there are 300 ports, beside 30: `cargo bench -p vswitch-tests --bench add_port`, as root.
//!
//! Each port is in a namespace of its own, which is made with it, on a bridge with a gateway. What a change costs should hardly depend on how much
//! there is. `VSWITCH_BENCH_PAIRS` (5) is the number of turns.
#![allow(clippy::unwrap_used, clippy::panic, reason = "what fails here ends the benchmark")]

use std::process::ExitCode;
use std::time::Instant;

use vswitch_tests::bench::{self, Contest};
use vswitch_tests::{Lab, median};

const FILE: &str = "[[bridge]]\nname = \"br0\"\naddresses = [\"10.0.0.1/22\"]\n";
/// How many additions make one figure, their median.
const SAMPLES: usize = 9;

fn main() -> ExitCode {
    bench::main(&["ip"], run)
}

fn run() {
    let labs = (lab(299), lab(29));
    let contest = Contest::<(Lab, Lab)> {
        name: "add-port as the 300th",
        beside: "as the 30th",
        unit: "ms",
        ours: Box::new(|(many, _)| addition(many)),
        theirs: Box::new(|(_, few)| addition(few)),
    };
    bench::compare(&labs, &[contest]);
}

fn lab(ports: usize) -> Lab {
    let port = |number| format!("[[port]]\nname = \"p{number}\"\nbridge = \"br0\"\nnetns = \"@p{number}\"\n");
    Lab::with(&(FILE.to_owned() + &(0..ports).map(port).collect::<String>()))
}

/// Adds a port and removes it again, a few times; how long the addition takes, in ms.
fn addition(lab: &Lab) -> f64 {
    let sample = |_| {
        let mut add = lab.ctl_command();
        add.args(["add-port", "br0", "more", "--netns", &lab.named("@more"), "--address", "10.0.3.1/22"]);
        let start = Instant::now();
        // Its end is waited for: `Lab::ctl` looks for it every few milliseconds, which is too rarely here.
        assert!(add.status().unwrap().success());
        let took = start.elapsed().as_secs_f64() * 1e3;
        lab.ctl("del-port more").ok();
        took
    };
    median((0..SAMPLES).map(sample).collect())
}
