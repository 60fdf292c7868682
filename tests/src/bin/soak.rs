//! A switch that lives for hours with everything at once: `tests/soak` builds and runs it.
#![allow(clippy::panic, reason = "what a run finds is its result")]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use vswitch_tests::soak::{Soak, drifts, plot, table};
use vswitch_tests::{AllowCubic, interrupt, missing};

/// Runs a switch for hours: traffic through every kind of port, uplink and tunnel, changes without end, and now and then a new configuration, an
/// upgrade and a crash. Says what memory, descriptors and latency did, and ends with 1 if one of them drifted, or traffic ended.
///
/// Everything runs in namespaces of its own. Needs root, `iperf3` and `ping`. Nothing is left behind, also after Ctrl-C.
#[derive(Parser)]
#[command(name = "tests/soak")]
struct Arguments {
    /// For how long, in hours
    #[arg(value_name = "HOURS", default_value = "4", value_parser = hours)]
    hours: Duration,
    /// How many changes are made a second
    #[arg(long, value_name = "N", default_value = "10", value_parser = clap::value_parser!(u32).range(1..=100))]
    changes: u32,
    /// Writes a plot
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

fn hours(text: &str) -> Result<Duration, String> {
    let hours: f64 = text.parse().map_err(|_| format!("{text:?} is no number of hours"))?;
    if !(0.02..=1000.0).contains(&hours) {
        return Err("use 0.02 to 1000 hours".to_owned());
    }
    Ok(Duration::from_secs_f64(hours * 3600.0))
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(reason) = missing(&["ip", "nsenter", "iperf3", "ping", "ss", "nc"]) {
        eprintln!("{reason}");
        return ExitCode::FAILURE;
    }
    interrupt::catch();
    let _cubic = AllowCubic::for_now();
    let report = Soak::begin().run(arguments.hours, Duration::from_secs(1) / arguments.changes);
    print!("{}", table(&report));
    if let Some(path) = &arguments.svg
        && let Err(error) = std::fs::write(path, plot(&report))
    {
        eprintln!("{}: {error}", path.display());
        return ExitCode::FAILURE;
    }
    let found = drifts(&report);
    found.iter().for_each(|drift| println!("{drift}"));
    if found.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
