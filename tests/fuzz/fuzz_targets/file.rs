//! Any text as switch.toml: it is a switch, or problems that say where; and what a switch is written as is the same switch.
#![no_main]

use std::io::Write;

use libfuzzer_sys::fuzz_target;
use vswitch::config::{self, Config, Problem};

/// Reads the text from a file that is nowhere but in memory.
fn load(text: &[u8]) -> Result<Config, Vec<Problem>> {
    use std::os::fd::AsRawFd;
    let descriptor = rustix::fs::memfd_create("switch.toml", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    let path = format!("/proc/self/fd/{}", descriptor.as_raw_fd());
    std::fs::File::from(descriptor.try_clone().unwrap()).write_all(text).unwrap();
    config::load(path.as_ref())
}

fuzz_target!(|text: &[u8]| {
    match load(text) {
        Ok(config) => {
            let text = config::export(&config);
            let again = load(text.as_bytes()).expect("what is exported can be read");
            assert_eq!(config::export(&again), text);
        }
        Err(problems) => assert!(problems.iter().all(|problem| !problem.to_string().is_empty()) && !problems.is_empty()),
    }
});
