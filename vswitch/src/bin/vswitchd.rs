//! `vswitchd`: a machine's whole container network.

use std::fs::File;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use vswitch::attach;
use vswitch::client;
use vswitch::config;
use vswitch::control::{self, Log, RunMode};

/// A userspace virtual switch for containers, namespaces and VMs.
///
/// Runs in the foreground until SIGINT or SIGTERM, which remove every device and namespace that it made, but for namespaces in which
/// programs run. SIGHUP reads the file again and applies the difference. Logs go to stderr; RUST_LOG=debug shows more.
#[derive(Parser)]
#[command(name = "vswitchd", version)]
struct Arguments {
    /// The file that describes the switch.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Reads the file, prints every problem with its line and column, and ends: exit 1 if there is any. What
    /// is most likely a mistake is printed as a warning.
    #[arg(long)]
    check: bool,
    /// Takes over from the vswitchd that runs with the same control socket, with all that it has open and knows. If that cannot be, it says why and
    /// ends, and the other one goes on as if nothing had been.
    #[arg(long)]
    takeover: bool,
    /// Runs as one process with all the rights that it was started with, for debuggers and tracers. By default the process that reads what others
    /// send gives them up, and asks another one for devices and namespaces.
    #[arg(long)]
    no_sandbox: bool,
    /// The mount namespace in which network namespaces that vswitchd makes get their names, for a service that has one of its own:
    /// /proc/1/ns/mnt. A name in vswitchd's own would be seen by no other program.
    #[arg(long, value_name = "FILE")]
    mounts: Option<PathBuf>,
    /// Is the process that keeps the rights of another vswitchd, by which alone it is started.
    #[arg(long, hide = true)]
    broker: bool,
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return client::explain(&error),
    };
    if arguments.check {
        return check(&arguments);
    }
    // Where there is a broker, that makes namespaces, and this process keeps none of it open.
    let has_rights = arguments.broker || arguments.no_sandbox;
    let open = |mounts| if has_rights { attach::name_namespaces_in(mounts) } else { File::open(mounts).map(drop) };
    if let Some(mounts) = &arguments.mounts
        && let Err(error) = open(mounts)
    {
        eprintln!("--mounts: {} cannot be opened: {error}", mounts.display());
        return ExitCode::FAILURE;
    }
    control::end_with_any_thread();
    if arguments.broker {
        return be_broker(&arguments);
    }
    let mode = RunMode { confined: !arguments.no_sandbox, takeover: arguments.takeover };
    match control::run(&arguments.config, Log::start(), mode) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn be_broker(arguments: &Arguments) -> ExitCode {
    // By this it is told from the vswitchd that it serves.
    let _ = rustix::thread::set_name(c"vswitchd-broker");
    let _log = Log::start();
    match control::serve_as_broker(&arguments.config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("the process that keeps the rights ends: {error}");
            ExitCode::FAILURE
        }
    }
}

fn check(arguments: &Arguments) -> ExitCode {
    match config::load(&arguments.config) {
        Ok(config) => {
            config.warnings.iter().for_each(|warning| eprintln!("{warning}"));
            ExitCode::SUCCESS
        }
        Err(problems) => {
            problems.iter().for_each(|problem| eprintln!("{problem}"));
            ExitCode::FAILURE
        }
    }
}
