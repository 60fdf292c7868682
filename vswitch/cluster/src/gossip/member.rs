//! A host as SWIM knows it: an address, and which of its starts this is.

use std::net::SocketAddr;
use std::num::{NonZeroU8, NonZeroUsize};
use std::time::Duration;

use foca::{Config, Identity, PeriodicParams};
use serde::{Deserialize, Serialize};

/// A host of the gossip.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Member {
    /// Where its datagrams come from and go to.
    pub(super) address: SocketAddr,
    /// Grows with each start: what is said of an earlier one does not count. A host that is asked whether it is there is asked as 0.
    pub(super) boot: u64,
}

impl Identity for Member {
    type Addr = SocketAddr;

    /// The others took this host for dead, or knew of a later start of it, as after a clock was set back: then hours get past that in a few rounds.
    fn renew(&self) -> Option<Self> {
        Some(Self { boot: self.boot.saturating_add(HOUR), ..*self })
    }

    fn addr(&self) -> SocketAddr {
        self.address
    }

    fn win_addr_conflict(&self, other: &Self) -> bool {
        self.boot > other.boot
    }
}

/// An hour of a clock that counts milliseconds.
const HOUR: u64 = 3_600_000;

/// How SWIM goes: a host that has ended is asked within a second or so, is suspected 0.4 s later, and is dead 0.9 s after that if it has not said
/// otherwise meanwhile.
pub(super) fn pace() -> Config {
    let gossip = PeriodicParams { frequency: Duration::from_millis(200), num_members: FEW };
    Config {
        probe_period: Duration::from_millis(400),
        probe_rtt: Duration::from_millis(150),
        num_indirect_probes: FEW,
        max_transmissions: TIMES,
        suspect_to_down_after: Duration::from_millis(900),
        // Until then a host that was cut off is looked for.
        remove_down_after: Some(Duration::from_secs(24 * 3600)),
        max_packet_size: LONGEST,
        notify_down_members: true,
        periodic_announce: Some(PeriodicParams { frequency: Duration::from_secs(30), num_members: NonZeroUsize::MIN }),
        // `Gossip` asks for those that it seeks by itself.
        periodic_announce_to_down_members: None,
        periodic_gossip: Some(gossip),
    }
}

/// How many hosts are asked to ask for this one, or are told news at once.
const FEW: NonZeroUsize = NonZeroUsize::MIN.saturating_add(2);

/// How often news are passed on.
const TIMES: NonZeroU8 = NonZeroU8::MIN.saturating_add(9);

/// The longest message of SWIM, so that a datagram with its seal passes wherever IPv6 does (RFC 8200, section 5).
const LONGEST: NonZeroUsize = NonZeroUsize::MIN.saturating_add(1149);

/// How it stands with a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// It answers.
    Up,
    /// It has answered, and does not any more.
    Silent,
    /// It never answered, so nothing follows.
    NeverHeard,
}

impl Life {
    /// The word for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Silent => "silent",
            Self::NeverHeard => "never",
        }
    }
}
