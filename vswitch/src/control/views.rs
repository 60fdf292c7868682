//! What others look at while the switch runs: events, which the control side writes down, and the roster by which the counters of workers get
//! their names.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::broadcast;

use super::uplink::Uplink;
use super::vxlan::{Run, TunnelPort};
use super::{Port, Switch};
use crate::http::Peer;
use crate::services::{LeaseNews, Usage};
use crate::view::{Board, EventLog, Roster, UplinkSource};
use api::{
    BridgeName, DockerPlace, EventFacts, EventInfo, EventKind, LeaseState, LiveBridge, LiveKind, LivePort, LiveTunnel,
    LiveUplink, PoolInfo, PortKind, PortName, PortState, Reply, Request,
};
use plane::datapath::{BridgeId, MacChange, MacChanges, MacNews, PortId};
use plane::worker::Handle;

/// The shortest time between two events about one table that is full.
const PAUSE: Duration = Duration::from_secs(60);

/// What others look at.
pub(super) struct Views {
    pub(super) events: EventLog,
    board: Arc<Board>,
    /// How far addresses are given out, as the services said last.
    pools: BTreeMap<BridgeName, Vec<PoolInfo>>,
    /// Tables that had no room, by what they are called.
    full: BTreeMap<String, FullTable>,
}

/// How often a table had no room.
#[derive(Debug, Default)]
struct FullTable {
    count: u64,
    told: Option<Instant>,
}

impl FullTable {
    /// Takes note of how often it had no room until now; whether that is worth an event.
    fn look(&mut self, count: u64, now: Instant) -> bool {
        let more = count > std::mem::replace(&mut self.count, count);
        let due = more && self.told.is_none_or(|told| now.saturating_duration_since(told) >= PAUSE);
        if due {
            self.told = Some(now);
        }
        due
    }
}

impl Views {
    pub(super) fn new(started: Instant, workers: &[Handle]) -> Self {
        let board = Arc::new(Board::new(started, workers.to_vec()));
        Self { events: EventLog::default(), board, pools: BTreeMap::new(), full: BTreeMap::new() }
    }
}

impl Switch {
    /// What is looked at without asking the switch.
    pub(super) fn board(&self) -> Arc<Board> {
        Arc::clone(&self.views.board)
    }

    pub(super) fn events(&self) -> Reply {
        Reply::Events(self.views.events.after(0))
    }

    /// The events after that number, and those to come.
    pub(super) fn follow_events(&self, after: u64) -> (Vec<EventInfo>, broadcast::Receiver<EventInfo>) {
        self.views.events.follow(after)
    }

    pub(super) fn live(&self) -> Reply {
        self.show_to_viewers();
        Reply::Live(Box::new(self.views.board.live()))
    }

    /// Writes down, and logs, who changed what.
    pub(super) fn record_change(&mut self, request: &Request, peer: Peer, refused: Option<&String>) {
        match (request.change(), refused) {
            (Some(change), None) => {
                tracing::info!("{change}, asked for by {peer}");
                self.note_change(change, &peer.to_string());
            }
            (Some(change), Some(why)) => {
                tracing::info!("refused: {change}, asked for by {peer}: {why}");
                self.note_change(format!("refused: {change}: {why}"), &peer.to_string());
            }
            (None, _) => tracing::debug!("{request:?}, asked by {peer}"),
        }
    }

    /// Writes down a change.
    pub(super) fn note_change(&mut self, change: impl Into<String>, by: &str) {
        let facts = EventFacts { by: Some(by.to_owned()), ..EventFacts::new(change) };
        self.views.events.record(EventKind::Change, facts);
    }

    /// Writes down what became of the state of a port or uplink.
    pub(super) fn note_link(&mut self, port: PortName, line: String) {
        let bridge = self.inventory.find::<Port>(&port).map(|port| port.spec.bridge.clone());
        self.views.events.record(EventKind::Link, EventFacts { bridge, port: Some(port), ..EventFacts::new(line) });
    }

    /// Writes down what became of addresses of a bridge.
    pub(super) fn note_macs(&mut self, id: BridgeId, changes: &MacChanges) {
        let Some((bridge, _)) = self.inventory.bridges.iter().find(|(_, bridge)| bridge.id == id) else { return };
        let name = |id: PortId| self.inventory.name_of(id).cloned();
        for MacNews { vlan, mac, port, change } in &changes.first {
            let port = name(*port);
            let place = port.as_ref().map_or("?", PortName::as_str);
            let (kind, summary) = match change {
                MacChange::Learned => (EventKind::MacLearned, format!("{mac} is at {place}")),
                MacChange::Moved(from) => {
                    let from = name(*from);
                    let from = from.as_ref().map_or("?", PortName::as_str);
                    (EventKind::MacMoved, format!("{mac} moved from {from} to {place}"))
                }
                MacChange::Evicted => (EventKind::MacEvicted, format!("{mac} at {place} made room for another")),
            };
            let (bridge, vlan, mac) = (Some(bridge.clone()), Some(*vlan), Some(*mac));
            self.views.events.record(kind, EventFacts { bridge, port, vlan, mac, ..EventFacts::new(summary) });
        }
        if changes.more > 0 {
            let summary = format!("and {} more addresses at the same time, which are not told one by one", changes.more);
            let facts = EventFacts { bridge: Some(bridge.clone()), ..EventFacts::new(summary) };
            self.views.events.record(EventKind::MacLearned, facts);
        }
    }

    /// Writes down what became of addresses that gateways give out.
    pub(super) fn note_leases(&mut self, news: Vec<LeaseNews>) {
        for LeaseNews { bridge, address, mac, port, state } in news {
            let what = match state {
                LeaseState::Offered => continue,
                LeaseState::Bound => format!("{address} was given to {mac} at {port}"),
                LeaseState::Released => format!("{mac} at {port} gave {address} back"),
                LeaseState::Declined => format!("{address} is in use by an unknown station"),
            };
            let (bridge, port, mac, address) = (Some(bridge), Some(port), Some(mac), Some(address));
            self.views.events.record(EventKind::Lease, EventFacts { bridge, port, mac, address, ..EventFacts::new(what) });
        }
    }

    /// Writes down what an uplink's own DHCP client found out.
    pub(super) fn note_uplink_lease(&mut self, uplink: &PortName, address: Option<IpAddr>, summary: impl Into<String>) {
        let facts = EventFacts { port: Some(uplink.clone()), address, ..EventFacts::new(summary) };
        self.views.events.record(EventKind::Lease, facts);
    }

    /// Takes note of how far addresses are given out.
    pub(super) fn note_usage(&mut self, usage: BTreeMap<BridgeName, Vec<Usage>>) {
        let infos = |pools: Vec<Usage>| pools.into_iter().map(PoolInfo::from).collect();
        self.views.pools = usage.into_iter().map(|(bridge, pools)| (bridge, infos(pools))).collect();
    }

    /// Writes down which tables had no room lately. The control loop calls it at every `SURVEY`.
    pub(super) fn follow_tables(&mut self, now: Instant) {
        let live = self.views.board.live();
        let mut rows: Vec<(String, u64, EventFacts)> = Vec::new();
        for bridge in live.bridges {
            let of = |summary: String| EventFacts { bridge: Some(bridge.name.clone()), ..EventFacts::new(summary) };
            let macs =
                format!("{} MAC addresses are all that it may know: the port with the most loses its oldest", bridge.max_macs);
            rows.push((format!("macs of {}", bridge.name), bridge.evictions, of(macs)));
            for pool in bridge.pools {
                let pooled = format!("a station got no address: {} of {} are in use in {}", pool.used, pool.size, pool.subnet);
                rows.push((format!("{} of {}", pool.subnet, bridge.name), pool.exhausted, of(pooled)));
            }
        }
        let denied = |reason: &str| live.ports.iter().filter_map(|port| port.rx_drops.get(reason)).sum::<u64>();
        for (reason, summary) in [
            ("nat_no_port", "a session was refused: every external port of its uplink is in use"),
            ("nat_session_cap", "a session was refused: its uplink has as many as it may have"),
            ("nat_source_cap", "a session was refused: its station has as many as it may have"),
        ] {
            rows.push((reason.to_owned(), denied(reason), EventFacts::new(summary)));
        }
        for uplink in live.uplinks {
            let evicted = ["sessions_evicted", "tcp_evicted", "flows_evicted"];
            let count = evicted.iter().filter_map(|name| uplink.counters.get(*name)).sum();
            let summary = format!("{} sessions are all that it may have: idle ones make room", uplink.max_sessions);
            let facts = EventFacts { port: Some(uplink.name.clone()), ..EventFacts::new(summary) };
            rows.push((format!("sessions of {}", uplink.name), count, facts));
        }
        let mut before = std::mem::take(&mut self.views.full);
        for (name, count, facts) in rows {
            let mut table = before.remove(&name).unwrap_or_default();
            if table.look(count, now) {
                self.views.events.record(EventKind::TableFull, facts);
            }
            self.views.full.insert(name, table);
        }
    }

    /// Says what the switch is now, for those who look.
    pub(super) fn show_to_viewers(&self) {
        let (places, states) = (self.docker_places(), self.tree_states());
        let row = |port: &Port| {
            let stp_state = states.get(&port.spec.name).copied();
            (port.id, LivePort { stp_state, ..live_port(port, places.get(&port.spec.name)) })
        };
        let ports = self.inventory.all::<Port>().map(row);
        let uplinks = self.inventory.all::<Uplink>();
        let uplink_ports = uplinks.clone().map(|uplink| (uplink.port, uplink_port(uplink)));
        let (live, idle): (Vec<_>, Vec<_>) =
            self.inventory.all::<TunnelPort>().map(tunnel_port).partition(|(id, _)| id.is_some());
        let tunnels = live.into_iter().filter_map(|(id, row)| Some((id?, row)));
        self.views.board.publish(Roster {
            captures: self.plane.captures.count(),
            bridges: self.inventory.bridges.values().map(|bridge| (bridge.id, self.live_bridge(bridge))).collect(),
            ports: ports.chain(uplink_ports).chain(tunnels).collect(),
            idle: idle.into_iter().map(|(_, row)| row).collect(),
            uplinks: uplinks.map(|uplink| self.live_uplink(uplink)).collect(),
            tunnels: self.inventory.all::<TunnelPort>().filter_map(live_tunnel).collect(),
            events: self.views.events.counts(),
            cluster: self.live_cluster(),
        });
    }

    fn live_bridge(&self, bridge: &super::Bridge) -> LiveBridge {
        LiveBridge {
            name: bridge.spec.name.clone(),
            macs: 0,
            max_macs: bridge.spec.max_macs,
            evictions: 0,
            mac_moves: 0,
            addresses: bridge.spec.addresses.clone(),
            uplink: bridge.spec.uplink.clone(),
            pools: self.views.pools.get(&bridge.spec.name).cloned().unwrap_or_default(),
        }
    }

    fn live_uplink(&self, uplink: &Uplink) -> (UplinkSource, LiveUplink) {
        let source = uplink.host.as_ref().map_or(UplinkSource::Nat(uplink.bridge), |host| UplinkSource::Host(host.totals()));
        // The rules were checked when the file was read.
        let max_sessions = self.ledger.file.nat.rules().map_or(0, |rules| rules.sessions.into());
        let (name, counters) = (uplink.spec.name.clone(), BTreeMap::new());
        (source, LiveUplink { name, sessions: 0, max_sessions, ports_in_use: 0, counters })
    }
}

fn live_port(port: &Port, container: Option<&DockerPlace>) -> LivePort {
    let kind = match port.spec.kind {
        PortKind::Tap => LiveKind::Tap,
        PortKind::Veth => LiveKind::Veth,
        PortKind::Link => LiveKind::Link,
    };
    let container = container.map(ToString::to_string).filter(|name| !name.is_empty());
    let place = container.or_else(|| Some(format!("netns {}", port.spec.netns.as_ref()?)));
    let state = port.state();
    LivePort { place, ..LivePort::new(port.spec.name.clone(), Some(port.spec.bridge.clone()), kind, state) }
}

fn uplink_port(uplink: &Uplink) -> LivePort {
    let place = uplink.spec.device().map_or_else(|| "the host's sockets".to_owned(), |device| format!("on {device}"));
    let state = uplink.presence.state().clone();
    LivePort { place: Some(place), ..LivePort::new(uplink.spec.name.clone(), None, LiveKind::Uplink, state) }
}

fn tunnel_port(tunnel: &TunnelPort) -> (Option<PortId>, LivePort) {
    let state = match &tunnel.run {
        Run::Up(live) => live.state(),
        Run::Down(why) => PortState::Unusable(why.clone()),
    };
    let (name, bridge) = (tunnel.spec.name.clone(), Some(tunnel.spec.bridge.clone()));
    let row = LivePort::new(name, bridge, LiveKind::Vxlan, state);
    (tunnel.live().map(|live| live.id), LivePort { place: Some(format!("vni {}", tunnel.spec.vni)), ..row })
}

fn live_tunnel(tunnel: &TunnelPort) -> Option<LiveTunnel> {
    Some(LiveTunnel { name: tunnel.spec.name.clone(), peers: tunnel.live()?.remotes() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_that_is_full_is_told_once_a_minute_while_it_is() {
        let start = Instant::now();
        let mut table = FullTable::default();
        let looks: Vec<u64> = (0..300)
            .filter(|second| {
                // Full from the tenth second on for two minutes, and once at the end.
                let count = if *second == 299 { 200 } else { u64::clamp(*second, 10, 130) - 10 };
                table.look(count, start + Duration::from_secs(*second))
            })
            .collect();
        assert_eq!(looks, [11, 71, 299]);
    }
}
