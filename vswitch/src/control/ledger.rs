//! What the switch should be: the file as it was last read, what is kept of run time and of containers' runtimes, and where both are. What
//! changes one of them saves it here before anything is done.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use super::ControlError;
use crate::config::{self, Config, FromHosts, Layout, Note, State, StateFile};
use crate::flannel::FlannelTables;
use crate::overlay::Elsewhere;
use api::{Kind, Origin, Reach, VxlanSpec};

/// The sources, and where they are kept.
pub(super) struct Ledger {
    /// Where the file is, for reloads.
    pub(super) path: PathBuf,
    /// The file as it was last read.
    pub(super) file: Config,
    pub(super) state: State,
    pub(super) state_file: StateFile,
    /// What is known of overlay networks.
    pub(super) tables: Arc<Elsewhere>,
    /// What is known of flannel's network.
    pub(super) flannel: Arc<FlannelTables>,
    /// Where the tunnels of hosts end that are dead.
    pub(super) dead: BTreeSet<IpAddr>,
}

impl Ledger {
    /// What the file and the changes at run time come to, and what to say about it.
    pub(super) fn wanted(&self) -> (Layout, Vec<String>) {
        let (mut layout, notes) = self.merged();
        self.leave_out_dead(&mut layout);
        (layout, notes.iter().map(ToString::to_string).collect())
    }

    /// The same, with what is dead.
    pub(super) fn merged(&self) -> (Layout, Vec<Note>) {
        config::merge(&self.file, &self.state, FromHosts { overlay: &self.tables, flannel: &self.flannel })
    }

    /// What is dead is no peer of the tunnels of overlay networks, and no station is behind it.
    fn leave_out_dead(&self, layout: &mut Layout) {
        let is_dead = |peer: &IpAddr| self.dead.contains(peer);
        let tunnels = layout.iter().filter(|(.., origin)| *origin == Origin::Cluster && !self.dead.is_empty());
        let tunnels: Vec<VxlanSpec> = tunnels.filter_map(|(_, resource, _)| VxlanSpec::of(resource).cloned()).collect();
        for mut tunnel in tunnels {
            tunnel.stations.retain(|station| !is_dead(&station.peer));
            if let Reach::Peers(peers) = &mut tunnel.reach {
                peers.retain(|peer| !is_dead(peer));
            }
            layout.insert(tunnel, Origin::Cluster);
        }
    }

    /// Keeps a state that is about to be, unless it is kept already.
    pub(super) fn keep(&mut self, state: State) -> Result<(), ControlError> {
        self.state_file.keep(state).map_err(ControlError::State)
    }

    /// Keeps the state for the next start, unless it is kept already.
    pub(super) fn save(&mut self) -> Result<(), ControlError> {
        self.state_file.save(&self.state).map_err(ControlError::State)
    }
}
