//! Counters and fill of tables, looked at without waiting for a worker, an uplink or the control side.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;

use super::flows::flows;
use crate::host;
use api::{LiveBridge, LiveCluster, LiveInfo, LivePort, LiveTunnel, LiveUplink};
use plane::datapath::{BridgeCounts, BridgeId, Counters, PortId, WorkerCounts};
use plane::worker::Handle;

/// What the switch is, with its counters left at nothing, and the numbers by which workers count.
#[derive(Default)]
pub(crate) struct Roster {
    pub(crate) captures: usize,
    pub(crate) bridges: Vec<(BridgeId, LiveBridge)>,
    pub(crate) ports: Vec<(PortId, LivePort)>,
    /// Tunnels that could not be opened, of which nothing is counted.
    pub(crate) idle: Vec<LivePort>,
    pub(crate) uplinks: Vec<(UplinkSource, LiveUplink)>,
    pub(crate) tunnels: Vec<LiveTunnel>,
    pub(crate) events: BTreeMap<String, u64>,
    pub(crate) cluster: Option<LiveCluster>,
}

/// Where an uplink's sessions are counted.
pub(crate) enum UplinkSource {
    /// By the worker that routes.
    Nat(BridgeId),
    /// By the uplink's own thread.
    Host(Arc<ArcSwap<host::Totals>>),
}

/// What is looked at.
pub(crate) struct Board {
    started: Instant,
    workers: Vec<Handle>,
    roster: ArcSwap<Roster>,
}

impl Board {
    pub(crate) fn new(started: Instant, workers: Vec<Handle>) -> Self {
        Self { started, workers, roster: ArcSwap::default() }
    }

    /// Says what the switch is now.
    pub(crate) fn publish(&self, roster: Roster) {
        self.roster.store(Arc::new(roster));
    }

    /// The switch as it was counted last.
    pub(crate) fn live(&self) -> LiveInfo {
        let counts: Vec<Arc<WorkerCounts>> = self.workers.iter().map(Handle::counts).collect();
        let roster = self.roster.load_full();
        let counted = counts.iter().filter_map(|part| part.at).max().unwrap_or(self.started);
        LiveInfo {
            uptime_seconds: self.started.elapsed().as_secs(),
            counted_seconds: counted.saturating_duration_since(self.started).as_secs_f64(),
            ..live(&roster, &counts)
        }
    }
}

fn live(roster: &Roster, counts: &[Arc<WorkerCounts>]) -> LiveInfo {
    let (mut ports, mut bridges) = (BTreeMap::<PortId, Counters>::new(), BTreeMap::<BridgeId, BridgeCounts>::new());
    let mut nats = BTreeMap::new();
    for part in counts {
        part.ports.iter().for_each(|(id, counters)| ports.entry(*id).or_default().add(counters));
        for (id, counts) in &part.bridges {
            let known = bridges.entry(*id).or_default();
            *known = known.or(*counts);
        }
        nats.extend(part.nats.iter().copied());
    }
    let counted = roster.ports.iter().map(|(id, row)| ports.get(id).map_or_else(|| row.clone(), |now| port(row, now)));
    let names = roster.ports.iter().map(|(id, row)| (*id, row.name.clone())).collect();
    let mut rows: Vec<LivePort> = counted.chain(roster.idle.iter().cloned()).collect();
    rows.sort_by(|one, other| one.name.cmp(&other.name));
    let uplink = |(source, row): &(UplinkSource, LiveUplink)| match source {
        UplinkSource::Nat(id) => nats.get(id).map_or_else(|| row.clone(), |counters| by_nat(row, counters)),
        UplinkSource::Host(totals) => by_host(row, &totals.load()),
    };
    LiveInfo {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        workers: counts.len(),
        captures: roster.captures,
        bridges: roster.bridges.iter().map(|(id, row)| bridge(row, bridges.get(id).copied().unwrap_or_default())).collect(),
        ports: rows,
        uplinks: roster.uplinks.iter().map(uplink).collect(),
        tunnels: roster.tunnels.clone(),
        events: roster.events.clone(),
        cluster: roster.cluster,
        flows: flows(&names, counts),
        ..LiveInfo::default()
    }
}

fn bridge(row: &LiveBridge, BridgeCounts { macs, evictions, moves }: BridgeCounts) -> LiveBridge {
    LiveBridge { macs, evictions, mac_moves: moves, ..row.clone() }
}

fn port(row: &LivePort, counters: &Counters) -> LivePort {
    let drops = |ingress| counters.named_drops(ingress).filter(|(_, count)| *count > 0).collect();
    LivePort {
        rx_frames: counters.rx_frames,
        rx_bytes: counters.rx_bytes,
        tx_frames: counters.tx_frames,
        tx_bytes: counters.tx_bytes,
        rx_drops: drops(true),
        tx_drops: drops(false),
        ..row.clone()
    }
}

fn by_nat(row: &LiveUplink, counters: &nat::Counters) -> LiveUplink {
    let named = counters.rows().into_iter().map(|(name, count)| (name.to_owned(), count));
    LiveUplink { sessions: counters.sessions, ports_in_use: counters.ports_in_use, counters: named.collect(), ..row.clone() }
}

fn by_host(row: &LiveUplink, totals: &host::Totals) -> LiveUplink {
    LiveUplink {
        sessions: totals.sessions as u64,
        max_sessions: totals.capacity as u64,
        counters: totals.counters.rows().into_iter().map(|(name, count)| (name.to_owned(), count)).collect(),
        ..row.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::{LiveKind, PortState};
    use plane::datapath::DropReason;

    fn row(name: &str) -> LivePort {
        LivePort::new(name.parse().unwrap(), Some("br0".parse().unwrap()), LiveKind::Tap, PortState::Up)
    }

    #[test]
    fn the_counters_of_all_workers_are_added_and_their_tables_are_one() {
        let worker = |frames, macs| {
            let mut counters = Counters::default();
            counters.rx_frames = frames;
            counters.count_drops(DropReason::GuardIp, frames);
            counters.count_drops(DropReason::QueueFull, 1);
            let bridge = BridgeCounts { macs, evictions: 0, moves: 0 };
            let (ports, bridges) = (vec![(PortId(7), counters)], vec![(BridgeId(1), bridge)]);
            Arc::new(WorkerCounts { at: None, ports, bridges, ..WorkerCounts::default() })
        };
        let bridge = LiveBridge {
            name: "br0".parse().unwrap(),
            macs: 0,
            max_macs: 9,
            evictions: 0,
            mac_moves: 0,
            addresses: Vec::new(),
            uplink: None,
            pools: Vec::new(),
        };
        let roster = Roster {
            bridges: vec![(BridgeId(1), bridge)],
            ports: vec![(PortId(7), row("b")), (PortId(8), row("new"))],
            idle: vec![row("a")],
            ..Roster::default()
        };
        let live = live(&roster, &[worker(10, 3), worker(5, 4)]);
        let rows: Vec<(&str, u64, u64)> =
            live.ports.iter().map(|port| (port.name.as_str(), port.rx_frames, port.drops())).collect();
        assert_eq!(rows, [("a", 0, 0), ("b", 15, 17), ("new", 0, 0)]);
        assert_eq!(live.ports[1].rx_drops, BTreeMap::from([("guard_ip".to_owned(), 15)]), "others are left out");
        assert_eq!((live.bridges[0].macs, live.bridges[0].max_macs, live.workers), (4, 9, 2));
    }
}
