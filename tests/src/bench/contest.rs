//! What single benchmarks (`cargo bench`) of the built programs have in common: two in turns, and the ratios.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, ExitCode};

use crate::interrupt::{self, interrupted};
use crate::lab::Lab;
use crate::measure::{AllowCubic, median};
use crate::require::missing;

/// A measurement of the switch and of what it is compared with, in a place that has both.
pub struct Contest<'a, Place = Lab> {
    /// What is measured.
    pub name: &'a str,
    /// What the switch is compared with.
    pub beside: &'a str,
    /// The unit of the figures.
    pub unit: &'a str,
    /// Measures the switch.
    pub ours: Box<dyn Fn(&Place) -> f64 + 'a>,
    /// Measures the other.
    pub theirs: Box<dyn Fn(&Place) -> f64 + 'a>,
}

/// The `main` of a benchmark: builds the programs, and runs `run`, which makes a lab; Ctrl-C leaves nothing behind.
pub fn main(tools: &[&str], run: fn()) -> ExitCode {
    // `cargo test --all-targets` runs benchmarks too, without the word.
    if !std::env::args().any(|word| word == "--bench") {
        println!("run it with `cargo bench -p vswitch-tests --bench NAME`");
        return ExitCode::SUCCESS;
    }
    if let Some(reason) = missing(tools) {
        eprintln!("{reason}");
        return ExitCode::FAILURE;
    }
    build();
    catch_interrupts();
    let _cubic = AllowCubic::for_now();
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) if interrupted() => ExitCode::from(130),
        Err(_) => ExitCode::FAILURE,
    }
}

/// `cargo bench` builds the benchmark, not the programs of the other packages.
fn build() {
    eprintln!("building vswitchd in release");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo).args(["build", "--release", "--quiet", "--package", "vswitch", "--bins"]).status();
    assert!(built.is_ok_and(|status| status.success()), "vswitchd cannot be built");
}

fn catch_interrupts() {
    interrupt::catch();
    // What an interrupted measurement says about itself is no news.
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !interrupted() {
            usual(panic);
        }
    }));
}

/// Measures all in turns and prints for each the medians, and the median, least and most of the ratios of neighbours: the speed of a
/// shared machine changes from minute to minute.
///
/// # Panics
/// After Ctrl-C.
pub fn compare<Place>(place: &Place, contests: &[Contest<'_, Place>]) {
    let pairs = setting("VSWITCH_BENCH_PAIRS", 5);
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    println!("{cores} cores, load {load}, {pairs} pairs of {} s each", seconds());
    for Contest { name, beside, unit, ours, theirs } in contests {
        let (mut our, mut their, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for pair in 1..=pairs {
            let [one, other] = [ours, theirs].map(|measure| {
                assert!(!interrupted(), "interrupted");
                measure(place)
            });
            eprintln!("  {name}, {pair} of {pairs}: {one:.2} and {other:.2} {unit}, ratio {:.2}", one / other);
            our.push(one);
            their.push(other);
            ratios.push(one / other);
        }
        let least = ratios.iter().copied().fold(f64::MAX, f64::min);
        let most = ratios.iter().copied().fold(0.0, f64::max);
        println!("{name}\n  vswitch {:.2} {unit}, {beside} {:.2} {unit}", median(our), median(their));
        println!("  ratio {:.2} ({least:.2} to {most:.2})", median(ratios));
    }
}

/// The length of a measurement in seconds: `VSWITCH_BENCH_SECONDS`, or 3.
pub fn seconds() -> u64 {
    setting("VSWITCH_BENCH_SECONDS", 3).max(1)
}

fn setting(name: &str, usual: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} is {text:?}: use a number")),
        Err(_) => usual,
    }
}
