//! The harness of the tests that run the built programs against real peers.
//!
//! A [`Lab`] is a place of its own: a network namespace in which `vswitchd` runs (so no other test has its veth ends and links), a
//! directory for its file, socket and state, and namespaces for stations whose names begin with the lab's own. Everything is
//! gone when the lab is dropped, also after a failed test.
//!
//! In a lab's `switch.toml` and commands, `@` before a name makes it a namespace of this lab: `netns = "@a"`.
#![allow(clippy::panic, reason = "a harness fails the test that uses it")]

pub mod bench;
mod disk;
mod docker;
mod engine;
mod every_way;
pub mod interrupt;
mod lab;
mod measure;
mod require;
mod settings;
pub mod soak;
mod terminal;
mod tour;
mod underlay;
mod user;
mod wire;

pub use disk::Mounted;
pub use docker::{DockerHost, FROM};
pub use engine::Engine;
pub use every_way::{EVERY_WAY, Pings, Traffic, every_way};
pub use lab::{Lab, Outcome, Predecessor, program};
pub use measure::{AllowCubic, Footprint, Transfer, checksum_errors, iperf3, median, ping, tcp, udp, udp_is_well};
pub use require::{missing, skipped};
pub use settings::Hostile;
pub use terminal::Terminal;
pub use tour::Tour;
pub use underlay::{Underlay, across};
pub use user::ORDINARY;
pub use wire::{BROADCAST, Wire, frame, mac, mark};

/// Ends the test unless it runs as root, every tool is there and the engine can be had. An engine that cannot be reached is no failure, whatever
/// `VSWITCH_REQUIRE_ALL` is.
#[macro_export]
macro_rules! needs_engine {
    ($engine:expr, $($tool:literal),* $(,)?) => {
        match $engine {
            $crate::Engine::Installed => $crate::needs!($($tool),*),
            $crate::Engine::Newest => $crate::needs!("unshare", "pivot_root", "debootstrap"),
        }
        if let Err(reason) = $engine.root() {
            let test = std::thread::current().name().unwrap_or("test").to_owned();
            $crate::skipped(&test, &reason);
            return;
        }
    };
}

/// Makes each of these functions, which take an [`Engine`], a test on both: as `installed::NAME` and `newest::NAME`.
#[macro_export]
macro_rules! on_each_engine {
    ($($test:ident),* $(,)?) => {
        mod installed {
            $(#[test] fn $test() { super::$test($crate::Engine::Installed) })*
        }
        mod newest {
            $(#[test] fn $test() { super::$test($crate::Engine::Newest) })*
        }
    };
}

/// Ends the test unless it runs as root and every tool is there: prints `SKIPPED`, its name and the reason, or fails where
/// `VSWITCH_REQUIRE_ALL=1`.
#[macro_export]
macro_rules! needs {
    ($($tool:literal),* $(,)?) => {
        if let Some(reason) = $crate::missing(&["ip", "nsenter", $($tool),*]) {
            let test = std::thread::current().name().unwrap_or("test").to_owned();
            assert!(std::env::var_os("VSWITCH_REQUIRE_ALL").is_none_or(|value| value != "1"), "{test}: {reason}");
            $crate::skipped(&test, &reason);
            return;
        }
    };
}
