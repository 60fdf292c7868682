//! How fast a new address is probed, for the DHCP client and for `Probe`: as the RFC has it for an uplink, faster for a container.
//! Constants only.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::Purpose;

/// How long it takes to find out whether another station has an address (RFC 5227, section 1.1).
#[derive(Debug)]
pub(in crate::services) struct Pace {
    /// Milliseconds before the first probe (`PROBE_WAIT`).
    pub(super) before_probes: RangeInclusive<u64>,
    /// Milliseconds between two (`PROBE_MIN`, `PROBE_MAX`).
    pub(super) between_probes: RangeInclusive<u64>,
    /// From the last to the use of the address (`ANNOUNCE_WAIT`).
    pub(super) after_probes: Duration,
}

/// The RFC's own times.
const UPLINK: Pace = Pace { before_probes: 0..=1000, between_probes: 1000..=2000, after_probes: Duration::from_secs(2) };
/// The user waits for a container to start, and after it for others of its network, while a station on a LAN of today answers within milliseconds,
/// or a few hundred if it sleeps. The RFC's times allow for links of any kind; these are an eighth of them or less.
pub(in crate::services) const CONTAINER: Pace =
    Pace { before_probes: 0..=20, between_probes: 80..=120, after_probes: Duration::from_millis(250) };

impl Pace {
    pub(super) const fn of(purpose: Purpose) -> &'static Self {
        match purpose {
            Purpose::Uplink => &UPLINK,
            Purpose::Container(_) => &CONTAINER,
        }
    }
}
