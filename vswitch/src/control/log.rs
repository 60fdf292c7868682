//! The log on stderr, whose level may change while the switch runs.

use std::io::IsTerminal;

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, fmt, reload};

use api::{LogLevel, Reply};

/// A host that answers no handshake is shown by `vsctl cluster check`: the crate would have workers write a line about it every five seconds.
const SILENT: &str = "boringtun=off";

/// What lets the log through.
#[derive(Debug)]
pub struct Log(reload::Handle<EnvFilter, Registry>);

impl Log {
    /// Begins the log of this process: at `RUST_LOG`, or at `info`; in colours on a terminal only, and there not with `NO_COLOR`.
    pub fn start() -> Self {
        let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(format!("info,{SILENT}")));
        let (filter, handle) = reload::Layer::new(filter);
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let lines = fmt::layer().with_writer(std::io::stderr).with_target(false);
        let lines = lines.with_ansi(std::io::stderr().is_terminal() && !plain);
        tracing_subscriber::registry().with(filter).with(lines).init();
        Self(handle)
    }

    /// Lets through what has this level and those before it, whatever was let through.
    pub(super) fn set(&self, level: LogLevel) -> Reply {
        // It fails only after the subscriber, which is never dropped.
        let _ = self.0.reload(EnvFilter::new(format!("{level},{SILENT}")));
        Reply::Done(Vec::new())
    }
}
