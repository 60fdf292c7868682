//! Hosts that are dead: they answered, and do not any more, and no frames of theirs come either. Their stations and their part in floods are left out,
//! long before a lease ends, and put back as soon as they answer.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::Switch;
use super::desk::ClusterWord;

/// For how many seconds after a frame a host lives that does not answer. A worker notes once a second who is heard, and seconds are whole ones: of
/// a host whose frames keep coming the last was noted up to two ago.
const HEARD: u64 = 2;

impl Switch {
    /// Takes note of who is dead. One that is stays so until it answers: its frames are not taken in any more.
    pub(super) fn follow_dead(&mut self) {
        let silent = &self.ledger.tables.silent;
        if silent.is_empty() && self.ledger.dead.is_empty() {
            return;
        }
        let heard = self.heard_lately();
        let is_dead = |vtep: &&IpAddr| self.ledger.dead.contains(*vtep) || !heard.contains(*vtep);
        let dead: BTreeSet<IpAddr> = silent.iter().filter(is_dead).copied().collect();
        if dead != self.ledger.dead {
            let before = std::mem::replace(&mut self.ledger.dead, dead.clone());
            self.overlay.touch();
            dead.difference(&before)
                .for_each(|vtep| self.note_word(self.word_of(*vtep, "is dead: it does not answer any more")));
            // Of one that is gone from the store that was told.
            let known = before.difference(&dead).filter(|vtep| self.ledger.tables.host_at(**vtep).is_some());
            let words: Vec<ClusterWord> = known.map(|vtep| self.word_of(*vtep, "is taken to live again")).collect();
            words.into_iter().for_each(|word| self.note_word(word));
        }
    }

    /// The hosts of which frames came just now.
    fn heard_lately(&self) -> BTreeSet<IpAddr> {
        let remotes = self.overlay_tunnels().flat_map(|(_, live)| live.remotes());
        let heard = remotes.filter(|peer| peer.heard_seconds.is_some_and(|seconds| seconds <= HEARD));
        heard.map(|peer| peer.address).collect()
    }

    fn word_of(&self, vtep: IpAddr, what: &str) -> ClusterWord {
        let host = self.ledger.tables.host_at(vtep).map_or_else(|| vtep.to_string(), str::to_owned);
        ClusterWord { warning: None, summary: format!("host {host} {what}"), address: Some(vtep) }
    }
}
