//! What one worker counts and how full its tables are, for those who watch: a copy that is made about twice a second and never for a frame.

use std::time::Instant;

use super::fdb::MacChanges;
use super::{BridgeId, Counters, Datapath, FlowRate, PortId};

/// The counters of one worker at one time.
#[derive(Clone, Debug, Default)]
pub struct WorkerCounts {
    /// When it was; `None`: before the worker ran.
    pub at: Option<Instant>,
    /// Of each port.
    pub ports: Vec<(PortId, Counters)>,
    /// Of each bridge; each uplink is one, too.
    pub bridges: Vec<(BridgeId, BridgeCounts)>,
    /// Of each uplink that translates. Only the worker that routes has any.
    pub nats: Vec<(BridgeId, nat::Counters)>,
    /// The flows that move most, the busiest first.
    pub flows: Vec<FlowRate>,
}

/// How full a bridge's table is, and what became of its addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BridgeCounts {
    /// MAC addresses that it knows.
    pub macs: usize,
    /// MAC addresses put out because the table was full.
    pub evictions: u64,
    /// How often MAC addresses moved from one port to another.
    pub moves: u64,
}

impl BridgeCounts {
    /// The same bridge as two workers see it. Each hears what the others learn, so that all of them see most of it.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            macs: self.macs.max(other.macs),
            evictions: self.evictions.max(other.evictions),
            moves: self.moves.max(other.moves),
        }
    }
}

impl Datapath {
    /// A copy of all that is counted, and the flows that move most. To be called about twice a second.
    pub fn counts(&mut self, now: Instant) -> WorkerCounts {
        let flows = self.take_flows(now);
        let ports = self.ports.iter().map(|(number, port)| (PortId(number), port.counters.clone()));
        let bridges = self.bridges.iter().map(|(number, bridge)| {
            let fdb = &bridge.fdb;
            let counts = BridgeCounts { macs: fdb.len(), evictions: fdb.evictions(), moves: fdb.moves().count };
            (BridgeId(number), counts)
        });
        let nats = self.router.nat_counters().collect();
        WorkerCounts { at: Some(now), ports: ports.collect(), bridges: bridges.collect(), nats, flows }
    }

    /// What became of the addresses of each bridge since it was last asked.
    pub fn take_mac_changes(&mut self) -> Vec<(BridgeId, MacChanges)> {
        let changes = self.bridges.iter_mut().map(|(number, bridge)| (BridgeId(number), bridge.fdb.take_changes()));
        changes.filter(|(_, changes)| !changes.is_empty()).collect()
    }
}
