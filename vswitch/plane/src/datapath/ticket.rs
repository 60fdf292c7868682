//! How many frames may be on their way to the services of the gateways, in all and of one port.

use std::sync::Arc;

use super::{PortId, Slots};
use crate::table::may_have_another;

/// Frames that are on their way to the services, by port.
///
/// **Fairness.** One port that floods gets half of [`Tickets::MOST`] and leaves half. The channels to the services hold as
/// many, so a frame with a ticket gets there.
#[derive(Debug, Default)]
pub struct Tickets {
    all: Arc<()>,
    ports: Slots<Arc<()>>,
}

/// Counts for a port until it is dropped, which is when the services have taken its frame.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ticket {
    all: Arc<()>,
    port: Arc<()>,
}

impl Tickets {
    /// Most frames on their way.
    pub const MOST: usize = 1024;

    /// A ticket for one more frame, if the port may have it.
    pub fn take(&mut self, port: PortId) -> Option<Ticket> {
        if !self.has_one_for(port) {
            return None;
        }
        let own = self.ports.get_or_insert_with(port.0, Arc::default);
        Some(Ticket { all: Arc::clone(&self.all), port: Arc::clone(own) })
    }

    /// Whether the port may have one more.
    pub fn has_one_for(&self, port: PortId) -> bool {
        let used = |count: &Arc<()>| Arc::strong_count(count) - 1;
        may_have_another(self.ports.get(port.0).map_or(0, used), used(&self.all), Self::MOST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_floods_leaves_room_for_the_others() {
        let mut tickets = Tickets::default();
        let mut flood = |port| (0..10_000).map_while(|_| tickets.take(PortId(port))).collect::<Vec<_>>();
        let (first, second) = (flood(1), flood(2));
        assert_eq!((first.len(), second.len()), (512, 256));
        assert_eq!(flood(3).len(), 128);
        drop(first);
        assert!(flood(1).len() > 256, "what was taken counts no more");
    }
}
