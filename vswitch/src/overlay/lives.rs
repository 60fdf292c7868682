//! Which hosts live, by what they say themselves, apart from the store and its leases.
//!
//! The gossip looks for the hosts that are known, also by what was kept. One that has answered and does not any more is *silent*; what follows is the
//! control side's, which knows whether frames come from it. A host that stays in a store which is reached, for longer than a dead one could, lives: then
//! its port is closed, and nothing follows from its silence.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use cluster::gossip::{Life, Node};
use cluster::store::StoreKind;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::HostRow;
use super::run::Room;
use super::standing::StoreState;
use super::thread::Happening;

/// The gossip, and what it says.
#[derive(Default)]
pub(super) struct Lives {
    running: Option<Running>,
    /// The hosts that it looks for, and which start of each.
    sought: BTreeMap<SocketAddr, String>,
    /// Those that do not answer any more, and since when.
    silent: BTreeMap<SocketAddr, Duration>,
    /// Since when it has no socket, and whether that was said.
    mute: Option<(Duration, bool)>,
}

struct Running {
    node: Arc<Node>,
    news: watch::Receiver<()>,
    task: AbortHandle,
}

impl Lives {
    /// The gossip, once it runs.
    pub(super) fn node(&self) -> Option<Arc<Node>> {
        self.running.as_ref().map(|running| Arc::clone(&running.node))
    }

    /// Has the gossip run, if it does not yet.
    pub(super) fn begin(&mut self, node: Arc<Node>) {
        self.running.get_or_insert_with(|| {
            let (news, task) = (node.news(), tokio::spawn(Arc::clone(&node).run()).abort_handle());
            Running { node, news, task }
        });
    }

    /// Waits until the gossip has something new, for ever if there is none.
    pub(super) async fn heard(&mut self) {
        match &mut self.running {
            // The node lives as long as this.
            Some(running) => drop(running.news.changed().await),
            None => std::future::pending().await,
        }
    }

    /// What is wrong with it.
    pub(super) fn problem(&self) -> Option<String> {
        self.running.as_ref()?.node.problem()
    }

    /// Why it has no socket, once it has had none for a while: one that is taken over has it a moment longer.
    fn complaint(&mut self, now: Duration) -> Option<String> {
        let trouble = self.running.as_ref()?.node.trouble();
        let Some(trouble) = trouble else {
            self.mute = None;
            return None;
        };
        let (since, is_said) = self.mute.get_or_insert((now, false));
        let is_due = !*is_said && now >= *since + GRACE;
        *is_said |= is_due;
        is_due.then_some(trouble)
    }

    /// How it stands with a host that says whether it lives.
    pub(super) fn of(&self, host: &HostRow) -> Option<Life> {
        let (running, address) = (self.running.as_ref()?, host.gossips_at()?);
        Some(running.node.ask(|gossip, _| gossip.life(address)))
    }

    /// Where the tunnels of silent hosts end.
    pub(super) fn silent(&self) -> BTreeSet<IpAddr> {
        self.silent.keys().map(SocketAddr::ip).collect()
    }

    /// Says goodbye to the others.
    pub(super) fn leave(&self) {
        if let Some(running) = &self.running {
            running.node.leave();
        }
    }

    /// Looks for these hosts from now on.
    fn seek(&mut self, hosts: BTreeMap<SocketAddr, String>) {
        if let Some(Running { node, .. }) = self.running.as_ref().filter(|_| hosts != self.sought) {
            node.seek(hosts.clone());
            self.sought = hosts;
        }
    }

    /// Looks who is silent. True if others are than were before.
    fn look(&mut self, now: Duration) -> bool {
        let Some(Running { node, .. }) = &self.running else { return false };
        let is_silent = |host: &&SocketAddr| node.ask(|gossip, _| gossip.life(**host)) == Life::Silent;
        let silent = self.sought.keys().filter(is_silent).map(|host| (*host, self.silent.get(host).copied().unwrap_or(now)));
        let silent = silent.collect();
        let before = std::mem::replace(&mut self.silent, silent);
        !before.keys().eq(self.silent.keys())
    }

    /// Takes no notice any more of the silence of hosts that were silent for so long.
    fn forgive(&self, patience: Duration, now: Duration) {
        let Some(Running { node, .. }) = &self.running else { return };
        let long = self.silent.iter().filter(|(_, since)| now >= **since + patience);
        long.for_each(|(host, _)| node.tell(|gossip, _| gossip.forgive(*host)));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Room {
    /// Looks for the hosts that are known, and takes note of those that do not answer any more.
    pub(super) fn follow_lives(&mut self, now: Duration) {
        let seeds = self.settings.seeds().map(|seed| (seed, String::new()));
        let known = self.tables.hosts.values().filter_map(|row| Some((row.gossips_at()?, row.boot.clone())));
        let own = SocketAddr::new(self.settings.underlay, self.settings.gossip_port);
        let hosts = seeds.chain(known).filter(|(host, _)| *host != own).collect();
        self.lives.seek(hosts);
        self.pace.happened.extend(self.lives.complaint(now).map(Happening::Note));
        // Without a store the gossip itself forgets who is silent.
        if self.settings.store == StoreKind::Gossip {
            return;
        }
        self.pace.is_changed |= self.lives.look(now);
        if self.standing.state() == StoreState::Up {
            self.lives.forgive(self.settings.ttl * LEASES, now);
        }
    }
}

/// How long a port may be another's before that is said.
const GRACE: Duration = Duration::from_secs(5);

/// How many lives of a lease a silent host is in the store before it is taken to live. Consul's take twice as long as they say.
const LEASES: u32 = 3;
