//! Which port had which slot of the data path, and when: a slot is given to another port once its own is removed, and the flight recorder still has
//! frames of the one before.

use std::collections::{BTreeMap, VecDeque};
use std::time::{SystemTime, UNIX_EPOCH};

use api::PortName;
use plane::capture::{CapturedPort, SlotHolder};
use plane::datapath::PortId;

/// Most removed ports that are remembered. The frames of one that is forgotten are shown under its slot's number.
const MOST_GONE: usize = 4096;

/// The ports by their slots, and those that had them before.
#[derive(Default)]
pub(super) struct Holders {
    now: BTreeMap<u32, SlotHolder>,
    /// In the order in which they went.
    gone: VecDeque<SlotHolder>,
    /// When the last one went that is forgotten.
    forgotten: u64,
}

impl Holders {
    /// A port has a slot from now on. Its frames may have come before this is said, but not before the last port that had the slot went.
    pub(super) fn came(&mut self, port: CapturedPort) {
        let before = self.gone.iter().rev().find(|gone| gone.port.port == port.port);
        let since = before.map_or(self.forgotten, |gone| gone.until.saturating_add(1));
        self.now.insert(port.port, SlotHolder { port, since, until: u64::MAX });
    }

    /// The port that has a slot goes; the workers know it no more.
    pub(super) fn went(&mut self, id: PortId) {
        self.went_at(id, now());
    }

    fn went_at(&mut self, id: PortId, until: u64) {
        let Some(holder) = self.now.remove(&id.0) else { return };
        self.gone.push_back(SlotHolder { until, ..holder });
        if self.gone.len() > MOST_GONE
            && let Some(oldest) = self.gone.pop_front()
        {
            self.forgotten = oldest.until.saturating_add(1);
        }
    }

    /// All that are remembered.
    pub(super) fn all(&self) -> impl Iterator<Item = &SlotHolder> {
        self.gone.iter().chain(self.now.values())
    }

    /// Those with this name.
    pub(super) fn named(&self, name: &PortName) -> impl Iterator<Item = &SlotHolder> {
        self.all().filter(move |holder| holder.port.name == name.as_str())
    }

    /// What had a slot at a time.
    pub(super) fn at(&self, slot: u32, time: u64) -> Option<&CapturedPort> {
        self.all().find(|holder| holder.has(slot, time)).map(|holder| &holder.port)
    }
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(slot: u32, name: &str) -> CapturedPort {
        CapturedPort { port: slot, name: name.to_owned(), ..CapturedPort::default() }
    }

    #[test]
    fn a_slot_is_at_each_time_the_port_that_had_it_then() {
        let mut holders = Holders::default();
        holders.came(port(2, "old"));
        holders.went_at(PortId(2), 100);
        let name = |holders: &Holders, time| holders.at(2, time).map(|port| port.name.clone());
        assert_eq!((name(&holders, 100).as_deref(), name(&holders, 101)), (Some("old"), None));
        holders.came(port(2, "new"));
        assert_eq!((name(&holders, 100).as_deref(), name(&holders, 101).as_deref()), (Some("old"), Some("new")));
        holders.went_at(PortId(3), 200);
        assert_eq!(holders.all().count(), 2, "a slot that had no port");
    }

    #[test]
    fn removed_ports_are_forgotten_one_day_and_their_frames_are_nobody_elses() {
        let mut holders = Holders::default();
        for time in 0..=u64::try_from(MOST_GONE).unwrap() {
            let slot = u32::from(time > 0);
            holders.came(port(slot, &format!("p{time}")));
            holders.went_at(PortId(slot), 10 * time + 10);
        }
        assert_eq!(holders.all().count(), MOST_GONE);
        holders.came(port(0, "new"));
        assert_eq!(holders.at(0, 10), None);
        assert_eq!(holders.at(0, 11).map(|port| port.name.as_str()), Some("new"));
    }
}
