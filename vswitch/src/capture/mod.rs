//! capture
mod filter;
mod operation;
pub use filter::{BadProgram, Program};

#[cfg(test)]
pub(crate) mod testing {
    /// A test that needs what this machine lacks says so; where everything must run, it fails.
    pub(crate) fn skipped(name: &str, reason: &str) {
        assert!(std::env::var_os("VSWITCH_REQUIRE_ALL").is_none_or(|value| value != "1"), "{name}: {reason}");
        println!("SKIPPED {name}: {reason}");
    }
}
