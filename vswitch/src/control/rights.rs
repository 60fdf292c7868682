//! How vswitchd gives up its rights at the start, and what the processes beside it carry out from then on.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::run::{RunError, Signals, raise_descriptor_limit};
use super::{socket, takeover, upgrade};
use crate::broker::{self, Aide, Duty, Rooms, requests};
use crate::config::{self, Config};
use crate::confine::{self, Confinement, OwnUser};
use crate::docker::daemon;
use crate::keep::Directory;
use crate::{attach, host, http};

requests! {
    /// What the broker is.
    fn introduce() -> Option<Introduction>, by own_introduction;
}

/// By what a vswitchd knows whether a broker that it has not started is the right one.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Introduction {
    /// What its program is asked for, as a text.
    requests: String,
    /// What it reads.
    file: PathBuf,
}

/// What a starter carries out as well.
mod settling {
    use super::{Bounds, requests, set_bounds};

    requests! {
        /// Says, before anything of others is read, what is carried out. Later words change nothing.
        pub(super) fn settle(bounds: &Bounds = Bounds) -> (), by set_bounds;
    }
}

/// All that takes rights; what comes last a broker that is a service leaves to the starter, and does not carry out.
const OF_BROKER: Rooms = &[
    REQUESTS,
    attach::REQUESTS,
    config::REQUESTS,
    daemon::REQUESTS,
    host::REQUESTS,
    http::REQUESTS,
    socket::REQUESTS,
    takeover::REQUESTS,
    settling::REQUESTS,
    upgrade::REQUESTS,
];
/// What is left to a starter.
const OF_STARTER: Rooms = &[settling::REQUESTS, upgrade::REQUESTS];

/// What a broker carries out, and no more.
#[derive(Debug, Serialize, Deserialize)]
struct Bounds {
    /// Where it makes sockets.
    sockets: Vec<PathBuf>,
    /// Whose they are, and who asks, if not this process's own user.
    owner: Option<u32>,
    /// The one at which processes come in that it may kill.
    successors: PathBuf,
    /// To which it connects, if the switch serves Docker.
    docker: Option<PathBuf>,
    /// Below which it starts no program, for vswitchd itself may write there.
    writable: PathBuf,
}

impl Default for Bounds {
    /// Nothing.
    fn default() -> Self {
        Self { sockets: Vec::new(), owner: None, successors: PathBuf::new(), docker: None, writable: "/".into() }
    }
}

impl Bounds {
    fn of(config: &Config, user: Option<&OwnUser>) -> Self {
        let Config { switch, docker, .. } = config;
        let successors = takeover::place(&switch.control);
        let docker_sockets = docker.sockets().into_iter().map(|(_, place)| place).filter(|_| docker.enabled);
        Self {
            sockets: [switch.control.clone(), successors.clone()].into_iter().chain(docker_sockets).collect(),
            owner: user.map(OwnUser::uid),
            successors,
            docker: docker.enabled.then(|| docker.api.clone()),
            writable: confine::writable(&switch.state_dir).unwrap_or(&switch.state_dir).to_owned(),
        }
    }
}

fn set_bounds(bounds: &Bounds) {
    let Bounds { sockets, owner, successors, docker, writable } = bounds;
    socket::make_none_but(sockets.clone(), *owner);
    takeover::kill_none_but_at(successors.clone());
    daemon::connect_to_none_but(docker.clone());
    upgrade::start_none_below(writable.clone(), *owner);
}

fn own_requests() -> String {
    let listed = OF_BROKER.iter().copied().flatten().map(|(name, types, _)| format!("{name}: {types}\n"));
    [format!("{}\n", env!("CARGO_PKG_VERSION"))].into_iter().chain(listed).collect()
}

fn own_introduction() -> Option<Introduction> {
    Some(Introduction { requests: own_requests(), file: config::own()?.to_owned() })
}

/// Has the broker asked that is started by who listens at `place`, for the same file.
///
/// # Errors
/// There is none, or one of another version or for another file.
pub fn connect_to_broker(place: &Path, file: &Path) -> Result<Aide, RunError> {
    let broker = Aide::at(place).and_then(|broker| broker.ask_for(None).map(|()| broker));
    let broker = broker.map_err(|error| RunError::NoBroker(place.to_owned(), error))?;
    let introduction = introduce().filter(|introduction| introduction.requests == own_requests());
    match introduction {
        None => Err(RunError::OtherBroker(place.to_owned())),
        Some(other) if other.file != file => Err(RunError::BrokerOfOtherFile(place.to_owned(), other.file)),
        Some(_) => Ok(broker),
    }
}

/// Gives up the rights of this process, which has no other threads yet, and makes it `user`'s. Without a broker that is there it starts one; with it,
/// a starter.
pub(super) fn give_up_rights(config: &Config, user: Option<&OwnUser>, broker: Option<Aide>) -> Result<Confinement, RunError> {
    let (duty, rooms, what) = match broker {
        Some(_) => (Duty::Starter, Some(OF_STARTER), "the process that starts successors cannot start"),
        None => (Duty::Broker, None, "the process that keeps the rights cannot start (vswitchd --no-sandbox runs without)"),
    };
    let failed = |error| RunError::System(what, error);
    let started = Aide::start(duty).and_then(|aide| aide.ask_for(rooms).map(|()| aide)).map_err(failed)?;
    let state_dir = &config.switch.state_dir;
    user.map_or(Ok(()), |user| user.keep_in(state_dir))?;
    // A state that cannot be kept is told of later.
    let _ = Directory::make(state_dir);
    settling::settle(&Bounds::of(config, user));
    user.map_or(Ok(()), OwnUser::become_it)?;
    let sandbox = Confinement::on(state_dir)?;
    sandbox.close_process()?;
    // Without a starter the switch goes on.
    broker.unwrap_or(started).end_with_it().map_err(failed)?;
    Ok(sandbox)
}

/// Is the broker of a vswitchd that the file at `path` describes: carries out what takes rights, until that one ends.
///
/// A broker that `is_service` is not started by that vswitchd but at a socket, which one that runs an attacker's code may use as well. So it takes what
/// bounds it from the file, and not from who asks.
///
/// # Errors
/// What it was asked for was no request.
pub fn serve_as_broker(path: &Path, is_service: bool) -> std::io::Result<()> {
    config::set_own(path);
    if is_service {
        // What is wrong with it is told by vswitchd, and nothing is allowed until then.
        set_bounds(&config::load(path).map(|config| Bounds::of(&config, None)).unwrap_or_default());
    }
    serve(if is_service { &OF_BROKER[..OF_BROKER.len() - OF_STARTER.len()] } else { OF_BROKER })
}

/// Starts the successor of a vswitchd, until that one ends.
///
/// # Errors
/// As of [`serve_as_broker`].
pub fn serve_as_starter() -> std::io::Result<()> {
    serve(OF_STARTER)
}

fn serve(rooms: Rooms) -> std::io::Result<()> {
    // At these vswitchd ends, and then this process.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let _inside = runtime.enter();
    let _signals = Signals::new()?;
    raise_descriptor_limit();
    broker::serve(rooms)
}
