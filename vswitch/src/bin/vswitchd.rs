//! `vswitchd`: a machine's whole container network.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use vswitch::attach;
use vswitch::client;
use vswitch::config;
use vswitch::confine::OwnUser;
use vswitch::control::{self, Keeper, Log, RunMode};

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
    /// The user that the process which reads what others send becomes, by name or number, where root starts it. `state-dir` is to be that user's, and
    /// so are files that the file names, for it to read them.
    #[arg(long, value_name = "USER", value_parser = OwnUser::find, conflicts_with = "no_sandbox")]
    user: Option<OwnUser>,
    /// Has another process keep the rights, from the start. The program that listens at this socket, such as systemd with `Accept=yes`, starts
    /// vswitchd --broker-service for each connection.
    #[arg(long, value_name = "SOCKET", conflicts_with_all = ["no_sandbox", "mounts"])]
    broker_at: Option<PathBuf>,
    /// Keeps the rights of a vswitchd with --broker-at, which is at the other end of standard input, and ends with it. The file says for which sockets
    /// it is.
    #[arg(long, conflicts_with_all = ["broker_at", "no_sandbox", "takeover", "check", "user", "broker", "starter"])]
    broker_service: bool,
    /// The mount namespace in which network namespaces that vswitchd makes get their names, for a service that has one of its own:
    /// /proc/1/ns/mnt. A name in vswitchd's own would be seen by no other program.
    #[arg(long, value_name = "FILE")]
    mounts: Option<PathBuf>,
    /// Is the process that keeps the rights of another vswitchd, by which alone it is started.
    #[arg(long, hide = true)]
    broker: bool,
    /// Is the process that starts the successor of another vswitchd, by which alone it is started.
    #[arg(long, hide = true)]
    starter: bool,
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
    let is_broker = arguments.broker || arguments.broker_service;
    let has_rights = is_broker || arguments.no_sandbox;
    let open = |mounts| if has_rights { attach::name_namespaces_in(mounts) } else { File::open(mounts).map(drop) };
    if let Some(mounts) = &arguments.mounts
        && let Err(error) = open(mounts)
    {
        eprintln!("--mounts: {} cannot be opened: {error}", mounts.display());
        return ExitCode::FAILURE;
    }
    control::end_with_any_thread();
    if arguments.starter {
        return be_beside(c"vswitchd-start", control::serve_as_starter);
    }
    if is_broker {
        return be_beside(c"vswitchd-broker", || control::serve_as_broker(&arguments.config, arguments.broker_service));
    }
    let Arguments { no_sandbox, takeover, broker_at, user, .. } = &arguments;
    let keeper = match broker_at {
        Some(place) => Keeper::BrokerAt(place),
        None if *no_sandbox => Keeper::Itself,
        None => Keeper::Broker,
    };
    let mode = RunMode { keeper, user: user.as_ref(), takeover: *takeover };
    match control::run(&arguments.config, Log::start(), mode) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Is a process beside a vswitchd, from which it is told by this name.
fn be_beside(name: &CStr, serve: impl FnOnce() -> io::Result<()>) -> ExitCode {
    let _ = rustix::thread::set_name(name);
    let _log = Log::start();
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{} ends: {error}", name.to_string_lossy());
            ExitCode::FAILURE
        }
    }
}

fn check(arguments: &Arguments) -> ExitCode {
    // The file may be for those with rights.
    let broker = arguments.broker_at.as_ref().map(|place| control::connect_to_broker(place, &arguments.config)).transpose();
    if let Err(error) = broker {
        eprintln!("{error}");
        return ExitCode::FAILURE;
    }
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
