//! `vswitch-cni`: the plugin that CNI runtimes call (containerd, CRI-O, Kubernetes).

use std::process::ExitCode;

fn main() -> ExitCode {
    let outcome = vswitch::plugin::cni::run(&|name| std::env::var_os(name), std::io::stdin());
    outcome.tell()
}
