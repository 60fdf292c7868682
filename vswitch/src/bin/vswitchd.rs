//! `vswitchd`: a machine's whole container network in one process.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;
use vswitch::{config, control};

/// A userspace virtual switch for containers, namespaces and VMs.
///
/// Runs in the foreground until SIGINT or SIGTERM, which remove every device and namespace that it made. SIGHUP reads the
/// file again and applies the difference. Logs go to stderr; RUST_LOG=debug shows more.
#[derive(Parser)]
#[command(name = "vswitchd", version)]
struct Arguments {
    /// The file that describes the switch.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Reads the file, prints every problem with its line and column, and ends: exit 1 if there is any.
    #[arg(long)]
    check: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.check {
        return check(&arguments);
    }
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false).init();
    match control::run(&arguments.config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn check(arguments: &Arguments) -> ExitCode {
    match config::load(&arguments.config) {
        Ok(_) => ExitCode::SUCCESS,
        Err(problems) => {
            problems.iter().for_each(|problem| eprintln!("{problem}"));
            ExitCode::FAILURE
        }
    }
}
