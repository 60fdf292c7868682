//! What a test needs that not every machine has: root and tools. A test that misses one says so and is skipped.

use std::io::Write;
use std::path::Path;

/// Why a test that needs root and these tools cannot run here.
pub fn missing(tools: &[&str]) -> Option<String> {
    // SAFETY: it has no arguments and cannot fail.
    if unsafe { libc::geteuid() } != 0 {
        return Some("it makes namespaces and devices: run it as root".to_owned());
    }
    if !Path::new("/dev/net/tun").exists() {
        return Some("there is no /dev/net/tun".to_owned());
    }
    let absent = tools.iter().find(|tool| !found(tool))?;
    Some(format!("there is no {absent}: tests/run installs what is needed"))
}

/// Says that a test did not run and why, past what cargo keeps to itself of a test that passes; `tests/run` counts these lines.
pub fn skipped(test: &str, reason: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {reason}");
}

/// Whether a program is on the path.
pub(crate) fn found(tool: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(tool).is_file())
}
