//! An upgrade in place: a new vswitchd takes over from the one that runs, and whatever happens, one of the two goes on.
//!
//! The new one, started with `--takeover`, first does all that needs nothing of the old one's: it reads the configuration and starts its threads. Then it
//! connects to a socket beside the control socket, and the two speak as follows, each [`Message`] behind its length:
//!
//! ```text
//!  new                                             old
//!  Ask: format, workers, state-dir ──────────────▶
//!       ◀─────────────────────────────────── Offer and all descriptors; or Refused
//!  builds the switch of them, as after a crash,    forwards as before; clients and Docker wait
//!  but reads from no device yet
//!  Ready ────────────────────────────────────────▶ reads from no device any more: what comes waits in queues and sockets
//!       ◀──────────────────────────────────────── Go: what the tables know by now
//!  reads from all devices
//!  Alive ────────────────────────────────────────▶ ends, and removes nothing
//! ```
//!
//! So frames wait for as long as it takes to copy the tables, however many ports there are. Instead of `Ready` the new one may say `Failed`, and why.
//! As long as the old one has not heard `Alive`, it can go on: it holds all that it has handed over. It does so when it hears `Failed`, when the new one
//! has ended without a word, and when that says nothing for [`PATIENCE`], after it was killed. The new one that has its offer needs the old one no
//! more: if that is killed, it goes on with what is in `state-dir`, as after any crash.
//!
//! What is handed over is an [`Image`](super::image) of the tables, every queue and socket of ports, links and tunnels, the sockets at which published
//! ports, Docker, `vsctl` and browsers are heard, and by the files of `state-dir` what is kept anyway. What goes with the old one: captures, and what was
//! under way inside it, such as packets on impaired lines. Spanning trees begin anew.

mod give;
mod take;

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::host::ElderSession;
use api::PortName;
pub(super) use give::{REQUESTS, Verdict, kill_none_but_at};
pub use take::TakeoverError;
pub(super) use take::{Legacy, Takeover};

/// What this vswitchd says and understands. Another number has another meaning; fields that are new need no other.
const FORMAT: u32 = 1;
/// How long each waits for the other; twice that is less than what the watchdog of the unit in `dist/` waits.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the two say.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Message {
    /// The new one wants to take over.
    Ask(Ask),
    /// What the descriptors are, that come behind this, in their order.
    Offer(Vec<Label>),
    /// The old one hands over nothing, for this reason.
    Refused(String),
    /// The new one is built, and waits for what the tables know.
    Ready,
    /// The old one waits; these are the sessions of its own that it sees through.
    Go(Vec<(PortName, Vec<ElderSession>)>),
    /// The new one goes on.
    Alive,
    /// The new one cannot, for this reason.
    Failed(String),
}

/// Who wants to take over.
#[derive(Debug, Serialize, Deserialize)]
struct Ask {
    format: u32,
    /// How many of them share out each device.
    workers: usize,
    state_dir: PathBuf,
}

/// What a descriptor is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Label {
    /// A file in memory, in which there is what the tables know when it is time.
    Image,
    /// A queue of a port or uplink. First come those of what is sparse, one for each worker, then those of bulk flows.
    Queue(PortName),
    /// A Unix socket that listens; `ours`: with a file that its last owner removes.
    Door { ours: bool },
    /// What leads to one who sees sessions of an uplink through: these of an earlier one's, or `None` for those that the old one names in the end.
    Elder { uplink: PortName, sessions: Option<Vec<ElderSession>> },
    /// A socket with an IP address that listens or receives.
    Socket,
}

/// The socket at which a vswitchd with this control socket hears of its successor.
pub(super) fn place(control: &Path) -> PathBuf {
    let mut place = control.as_os_str().to_owned();
    place.push(".takeover");
    place.into()
}

/// What is handed over.
type Descriptors = Vec<(Label, std::os::fd::OwnedFd)>;
