//! Offers that wait until the link was asked whether a station has the address (RFC 2131, section 2.2).
//!
//! Each has a row of its own in the table of leases, which bounds them, and lasts for [`PATIENCE`].

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use crate::services::Punt;

/// How long a station has to say that an address is its own: on a link it takes milliseconds, and clients ask again after seconds.
pub(in crate::services) const PATIENCE: Duration = Duration::from_millis(500);

/// The offers that wait, by client.
#[derive(Debug, Default)]
pub(super) struct Probing(BTreeMap<Vec<u8>, Waiting>);

/// An offer that waits.
#[derive(Debug)]
struct Waiting {
    /// The client's last DISCOVER.
    punt: Punt,
    address: Ipv4Addr,
    due: Duration,
}

impl Probing {
    /// Whether an offer to this client waits; if so, it will be the answer to this DISCOVER.
    pub(super) fn replace(&mut self, client: &[u8], punt: &Punt) -> bool {
        let waiting = self.0.get_mut(client);
        waiting.map(|waiting| waiting.punt = punt.clone()).is_some()
    }

    /// Lets an offer wait.
    pub(super) fn insert(&mut self, now: Duration, client: Vec<u8>, punt: Punt, address: Ipv4Addr) {
        self.0.insert(client, Waiting { punt, address, due: now + PATIENCE });
    }

    /// The client wants something else.
    pub(super) fn forget(&mut self, client: &[u8]) {
        self.0.remove(client);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The DISCOVERs whose addresses no station has said to have.
    pub(super) fn take_due(&mut self, now: Duration) -> Vec<Punt> {
        self.0.extract_if(.., |_, waiting| waiting.due <= now).map(|(_, waiting)| waiting.punt).collect()
    }

    /// The DISCOVERs that are to be answered with another address than this.
    pub(super) fn take_refused(&mut self, address: Ipv4Addr) -> Vec<Punt> {
        self.0.extract_if(.., |_, waiting| waiting.address == address).map(|(_, waiting)| waiting.punt).collect()
    }
}
