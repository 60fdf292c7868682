//! How vswitchd gives up its rights at the start, and what its broker carries out from then on.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::run::{RunError, Signals, raise_descriptor_limit};
use super::{socket, takeover, upgrade};
use crate::broker::{self, Broker, requests};
use crate::config::{self, Config};
use crate::confine::{self, Confinement};
use crate::docker::daemon;
use crate::keep::Directory;
use crate::{attach, host, http};

requests! {
    /// Says, before anything of others is read, what is carried out. Later words change nothing.
    fn settle(bounds: &Bounds = Bounds) -> (), by set_bounds;
}

/// What a broker carries out, and no more.
#[derive(Debug, Serialize, Deserialize)]
struct Bounds {
    /// Where it makes sockets.
    sockets: Vec<PathBuf>,
    /// The one at which processes come in that it may kill.
    successors: PathBuf,
    /// To which it connects, if the switch serves Docker.
    docker: Option<PathBuf>,
    /// Below which it starts no program, for vswitchd itself may write there.
    writable: PathBuf,
}

impl Bounds {
    fn of(config: &Config) -> Self {
        let Config { switch, docker, .. } = config;
        let successors = takeover::place(&switch.control);
        let docker_sockets = docker.sockets().into_iter().map(|(_, place)| place).filter(|_| docker.enabled);
        Self {
            sockets: [switch.control.clone(), successors.clone()].into_iter().chain(docker_sockets).collect(),
            successors,
            docker: docker.enabled.then(|| docker.api.clone()),
            writable: confine::writable(&switch.state_dir).unwrap_or(&switch.state_dir).to_owned(),
        }
    }
}

fn set_bounds(bounds: &Bounds) {
    let Bounds { sockets, successors, docker, writable } = bounds;
    socket::make_none_but(sockets.clone());
    takeover::kill_none_but_at(successors.clone());
    docker.iter().cloned().for_each(daemon::connect_to_none_but);
    upgrade::start_none_below(writable.clone());
}

/// Starts the broker, and gives up the rights of this process, which has no other threads yet.
pub(super) fn give_up_rights(config: &Config) -> Result<Confinement, RunError> {
    let failed =
        |error| RunError::System("the process that keeps the rights cannot start (vswitchd --no-sandbox runs without)", error);
    let broker = Broker::start().map_err(failed)?;
    let state_dir = &config.switch.state_dir;
    // A state that cannot be kept is told of later.
    let _ = Directory::make(state_dir);
    settle(&Bounds::of(config));
    let sandbox = Confinement::on(state_dir)?;
    sandbox.close_process()?;
    broker.end_with_it().map_err(failed)?;
    Ok(sandbox)
}

/// Is the broker of a vswitchd that the file at `path` describes: carries out what takes rights, until that one ends.
///
/// # Errors
/// What it was asked for was no request.
pub fn serve_as_broker(path: &Path) -> std::io::Result<()> {
    // At these vswitchd ends, and then this process.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let _inside = runtime.enter();
    let _signals = Signals::new()?;
    raise_descriptor_limit();
    config::own(path);
    broker::serve(&[
        REQUESTS,
        attach::REQUESTS,
        config::REQUESTS,
        daemon::REQUESTS,
        host::REQUESTS,
        http::REQUESTS,
        socket::REQUESTS,
        takeover::REQUESTS,
        upgrade::REQUESTS,
    ])
}
