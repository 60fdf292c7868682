//! Whom a container's UDP port has sent to, and so who may send to it.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;

use nat::Filtering;

/// Most peers that a port remembers; then it forgets those that it sent to first.
const MOST: usize = 1024;

/// The peers of one port, by a hash that is seeded for each, as far as the filtering asks for.
#[derive(Default)]
pub(super) struct Peers {
    seed: RandomState,
    hashes: VecDeque<u64>,
}

impl Peers {
    /// Takes note of whom a datagram goes to.
    pub(super) fn note(&mut self, filtering: Filtering, to: SocketAddr) {
        let Some(hash) = self.hash(filtering, to) else { return };
        if self.hashes.back() == Some(&hash) || self.hashes.contains(&hash) {
            return;
        }
        if self.hashes.len() >= MOST {
            self.hashes.pop_front();
        }
        self.hashes.push_back(hash);
    }

    /// Whether a datagram from there is heard.
    pub(super) fn let_in(&self, filtering: Filtering, from: SocketAddr) -> bool {
        self.hash(filtering, from).is_none_or(|hash| self.hashes.contains(&hash))
    }

    fn hash(&self, filtering: Filtering, peer: SocketAddr) -> Option<u64> {
        match filtering {
            Filtering::EndpointIndependent => None,
            Filtering::AddressDependent => Some(self.seed.hash_one(peer.ip())),
            Filtering::AddressAndPortDependent => Some(self.seed.hash_one((peer.ip(), peer.port()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_sent_to_is_heard_and_others_as_the_filtering_says() {
        let at = |host: u8, port| SocketAddr::from(([192, 0, 2, host], port));
        for (filtering, heard) in [
            (Filtering::EndpointIndependent, [true, true, true]),
            (Filtering::AddressDependent, [true, true, false]),
            (Filtering::AddressAndPortDependent, [true, false, false]),
        ] {
            let mut peers = Peers::default();
            peers.note(filtering, at(1, 80));
            assert_eq!([at(1, 80), at(1, 81), at(2, 80)].map(|peer| peers.let_in(filtering, peer)), heard, "{filtering:?}");
        }
    }

    #[test]
    fn a_port_with_very_many_peers_remembers_the_latest() {
        let (mut peers, filtering) = (Peers::default(), Filtering::AddressAndPortDependent);
        let at = |port| SocketAddr::from(([192, 0, 2, 1], port));
        (0..3000).for_each(|port| peers.note(filtering, at(port)));
        assert_eq!((0..3000).filter(|port| peers.let_in(filtering, at(*port))).count(), MOST);
        assert!(peers.let_in(filtering, at(2999)) && peers.let_in(filtering, at(3000 - 1024)));
    }
}
