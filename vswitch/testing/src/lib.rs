//! What unit tests share: how a test says that it cannot run here.

use std::io::Write;

/// Says past what cargo keeps to itself of a test that passes, so that `tests/run` counts it, that a test did not run and why.
///
/// # Panics
/// Where everything must run: `VSWITCH_REQUIRE_ALL=1`.
pub fn skipped(test: &str, reason: &str) {
    assert!(std::env::var_os("VSWITCH_REQUIRE_ALL").is_none_or(|value| value != "1"), "{test}: {reason}");
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {reason}");
}
