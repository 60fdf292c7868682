//! `vswitch-netavark`: the plugin that Podman's netavark calls.

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let outcome = vswitch::plugin::netavark::run(&arguments, &|name| std::env::var_os(name), std::io::stdin());
    outcome.tell()
}
