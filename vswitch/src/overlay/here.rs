//! Whether this host has the address that `underlay` names. Without it no tunnel of this host leaves it, and none of the others is to blame.

use std::io::ErrorKind;
use std::net::{IpAddr, UdpSocket};
use std::time::Duration;

use super::run::Room;

/// What is known of the address.
#[derive(Default)]
pub(super) struct Here {
    /// Whether this host does not have it now.
    pub(super) is_absent: bool,
    /// Whether it had it since the start.
    was_there: bool,
    next: Duration,
}

impl Here {
    /// What is wrong.
    pub(super) fn problem(&self, underlay: IpAddr) -> Option<String> {
        self.is_absent.then(|| cluster::gossip::not_here(underlay))
    }
}

impl Room {
    /// Looks whether the address is there. A host that never had it takes no part; one that has lost it is not to forget all for that.
    pub(super) fn look_here(&mut self, now: Duration) {
        if now < self.here.next {
            return;
        }
        let is_absent = !is_here(self.settings.underlay);
        let is_news = self.here.is_absent != is_absent;
        self.here = Here { is_absent, was_there: self.here.was_there || !is_absent, next: now + PAUSE };
        self.agent.view_mut().set_nowhere(!self.here.was_there);
        self.pace.eager |= is_news;
        self.pace.is_changed |= is_news;
    }
}

/// Whether a socket can have an address: the kernel refuses one that no interface has.
fn is_here(address: IpAddr) -> bool {
    let outcome = UdpSocket::bind((address, 0));
    outcome.err().is_none_or(|error| error.kind() != ErrorKind::AddrNotAvailable)
}

/// How often is looked.
const PAUSE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_no_interface_has_is_not_here() {
        assert!(is_here([127, 0, 0, 1].into()));
        // Set aside for documents (RFC 5737).
        assert!(!is_here([203, 0, 113, 77].into()));
        let here = Here { is_absent: true, ..Here::default() };
        let sentence = "`underlay` 203.0.113.77 is not an address of this host: `ip address` lists those that are";
        assert_eq!(here.problem([203, 0, 113, 77].into()).as_deref(), Some(sentence));
    }
}
