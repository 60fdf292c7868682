//! The switch beside what users would take instead, on this machine: `tests/bench` builds and runs it.
#![allow(clippy::panic, reason = "what a measurement cannot do is its result")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use vswitch_tests::bench::{Options, Report, Run, chart, forward, list, table, unknown};
use vswitch_tests::{AllowCubic, interrupt, missing};

/// Compares vswitch with what users would take instead: the Linux bridge, nftables, kernel VXLAN, Open vSwitch in user space, VDE,
/// slirp4netns and pasta.
///
/// All run in namespaces of their own and take turns; what counts is the ratio of neighbouring runs, because the speed of a machine
/// changes. Who is not installed is left out, and said. Needs root. Nothing is left behind, also after Ctrl-C.
#[derive(Parser)]
#[command(name = "tests/bench")]
struct Arguments {
    /// Only these paths, measures, or single ones of the list: tap,ping,nat/tcp
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    only: Vec<String>,
    /// How often each measure is taken of each contender [default: 5, or 1 with --quick]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    pairs: Option<u16>,
    /// How long one TCP stream is measured; the rest takes a third of it [default: 3, or 1 with --quick]
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u64).range(1..=50))]
    seconds: Option<u64>,
    /// A look instead of a measurement: one round of a second, and at most 200 ports
    #[arg(long)]
    quick: bool,
    /// Writes every single figure
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Writes a chart
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Where the package openvswitch-switch-dpdk and its libraries are unpacked, if they are not installed
    #[arg(long, value_name = "DIR", default_value = "/")]
    dpdk: PathBuf,
    /// Prints the paths and measures, and ends
    #[arg(long)]
    list: bool,
    /// Is the bare forwarder between TAPs that it makes in two namespaces
    #[arg(long, hide = true, num_args = 2, value_name = "NETNS")]
    forward: Vec<PathBuf>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let [one, other] = arguments.forward.as_slice() {
        return end_of(forward([one, other]));
    }
    if arguments.list {
        print!("{}", list());
        return ExitCode::SUCCESS;
    }
    let refusal = unknown(&arguments.only).or_else(|| missing(&["ip", "nsenter", "iperf3", "ping", "ss"]));
    if let Some(reason) = refusal {
        eprintln!("{reason}");
        return ExitCode::FAILURE;
    }
    interrupt::catch();
    // The reason of a failed measurement is in its line; a panic's own report would be in the way.
    std::panic::set_hook(Box::new(|_| ()));
    let usual = if arguments.quick { (1, 1) } else { (5, 3) };
    let options = Options {
        only: arguments.only,
        pairs: arguments.pairs.map_or(usual.0, usize::from),
        seconds: arguments.seconds.unwrap_or(usual.1),
        quick: arguments.quick,
        dpdk: arguments.dpdk,
    };
    let _cubic = AllowCubic::for_now();
    let Ok(report) = Run::all(options) else {
        eprintln!("interrupted");
        return ExitCode::from(130);
    };
    print!("{}", table(&report));
    write(&report, arguments.json.as_deref(), arguments.svg.as_deref())
}

/// A forwarder ends when one of its devices does.
fn end_of(forwarder: std::io::Result<()>) -> ExitCode {
    match forwarder {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("the bare forwarder has ended: {error}");
            ExitCode::FAILURE
        }
    }
}

fn write(report: &Report, json: Option<&Path>, svg: Option<&Path>) -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    let json = json.map(|path| (path, format!("{:#}\n", report.json())));
    for (path, text) in json.into_iter().chain(svg.map(|path| (path, chart(report)))) {
        if let Err(error) = std::fs::write(path, text) {
            eprintln!("{} cannot be written: {error}", path.display());
            code = ExitCode::FAILURE;
        }
    }
    code
}
