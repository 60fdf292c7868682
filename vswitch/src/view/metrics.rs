//! The board in Prometheus's text format.
//!
//! **What bounds it.** Labels are names of the configuration and words of fixed lists, never an address, a flow or a container's id. Nothing is
//! remembered between two scrapes, so the series of a port that is gone go with it.

use std::collections::BTreeMap;
use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, prometheus_text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use api::{LiveCluster, LiveInfo, LivePort, LiveUplink, PeerInfo, PoolInfo, PortState};

/// The format's name in HTTP.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All metrics.
pub(crate) fn exposition(live: &LiveInfo) -> String {
    let mut registry = Registry::with_prefix("vswitch");
    registry.register_collector(Box::new(Families(families(live))));
    let mut text = String::new();
    // A `String` takes everything.
    let _ = prometheus_text::encode(&mut text, &registry);
    text
}

/// A metric with all its series.
#[derive(Debug)]
struct Family {
    name: &'static str,
    help: &'static str,
    sort: Sort,
    series: Vec<Series>,
}

#[derive(Clone, Copy, Debug)]
enum Sort {
    Counter,
    Gauge,
}

#[derive(Debug)]
struct Series {
    labels: Vec<(&'static str, String)>,
    value: u64,
}

/// A series of a metric.
fn series<const N: usize>(labels: [(&'static str, &str); N], value: u64) -> Series {
    Series { labels: labels.map(|(label, value)| (label, value.to_owned())).to_vec(), value }
}

/// A counter; the format adds `_total` to its name.
fn counter(name: &'static str, help: &'static str, series: Vec<Series>) -> Family {
    Family { name, help, sort: Sort::Counter, series }
}

fn gauge(name: &'static str, help: &'static str, series: Vec<Series>) -> Family {
    Family { name, help, sort: Sort::Gauge, series }
}

fn families(live: &LiveInfo) -> Vec<Family> {
    let mut families = of_switch(live);
    families.extend(of_ports(&live.ports));
    families.extend(of_bridges(live));
    families.extend(of_uplinks(&live.uplinks));
    families.extend(of_tunnels(live));
    // A metric without a series says nothing.
    families.retain(|family| !family.series.is_empty());
    families
}

fn of_switch(live: &LiveInfo) -> Vec<Family> {
    let events = live.events.iter().map(|(kind, count)| series([("kind", kind)], *count)).collect();
    let cluster =
        |value: fn(&LiveCluster) -> usize| live.cluster.iter().map(|cluster| series([], value(cluster) as u64)).collect();
    vec![
        gauge("cluster_up", "Whether the store of overlay networks is reached.", cluster(|cluster| cluster.up.into())),
        gauge("cluster_hosts", "Hosts of overlay networks that are known.", cluster(|cluster| cluster.hosts)),
        gauge("cluster_stations", "Stations at other hosts of overlay networks.", cluster(|cluster| cluster.stations)),
        gauge("info", "Which vswitchd this is.", vec![series([("version", &live.version)], 1)]),
        gauge("uptime_seconds", "Time since vswitchd started.", vec![series([], live.uptime_seconds)]),
        gauge("workers", "Data-plane threads.", vec![series([], live.workers as u64)]),
        gauge("captures", "Captures that are running.", vec![series([], live.captures as u64)]),
        counter("events", "What happened, by kind, as vsctl events lists it.", events),
    ]
}

fn of_ports(ports: &[LivePort]) -> Vec<Family> {
    let info = |port: &LivePort| {
        let bridge = port.bridge.as_ref().map_or("", |bridge| bridge.as_str());
        series([("port", port.name.as_str()), ("bridge", bridge), ("kind", port.kind.name())], 1)
    };
    let both = |count: fn(&LivePort) -> [u64; 2]| {
        let ways = |port: &LivePort| {
            let rows = ["receive", "transmit"].into_iter().zip(count(port));
            rows.map(|(way, count)| series([("port", port.name.as_str()), ("direction", way)], count)).collect::<Vec<_>>()
        };
        ports.iter().flat_map(ways).collect()
    };
    let drops = |port: &LivePort| {
        let of = |way: &'static str, drops: &BTreeMap<String, u64>| {
            let row = |(reason, count): (&String, &u64)| {
                series([("port", port.name.as_str()), ("direction", way), ("reason", reason)], *count)
            };
            drops.iter().map(row).collect::<Vec<_>>()
        };
        of("receive", &port.rx_drops).into_iter().chain(of("transmit", &port.tx_drops))
    };
    let up = |port: &LivePort| series([("port", port.name.as_str())], u64::from(port.state == PortState::Up));
    vec![
        gauge("port_info", "Ports, tunnels and uplinks, with their bridges and kinds.", ports.iter().map(info).collect()),
        gauge("port_up", "Whether frames can pass the port.", ports.iter().map(up).collect()),
        counter(
            "port_frames",
            "Frames that the switch received from the port, or transmitted by it. A super-frame counts once.",
            both(|port| [port.rx_frames, port.tx_frames]),
        ),
        counter("port_bytes", "Bytes of these frames.", both(|port| [port.rx_bytes, port.tx_bytes])),
        counter(
            "port_drops",
            "Frames dropped on their way in or out, by reason. A reason has a series from its first drop on.",
            ports.iter().flat_map(drops).collect(),
        ),
    ]
}

fn of_bridges(live: &LiveInfo) -> Vec<Family> {
    let each = |value: fn(&api::LiveBridge) -> u64| {
        live.bridges.iter().map(|bridge| series([("bridge", bridge.name.as_str())], value(bridge))).collect::<Vec<_>>()
    };
    let pools = |value: fn(&PoolInfo) -> u64| {
        let of = |bridge: &api::LiveBridge| {
            let row = |pool: &PoolInfo| {
                let family = if pool.subnet.addr().is_ipv4() { "ipv4" } else { "ipv6" };
                series([("bridge", bridge.name.as_str()), ("family", family)], value(pool))
            };
            bridge.pools.iter().map(row).collect::<Vec<_>>()
        };
        live.bridges.iter().flat_map(of).collect::<Vec<_>>()
    };
    vec![
        gauge("bridge_macs", "MAC addresses that the bridge knows.", each(|bridge| bridge.macs as u64)),
        gauge("bridge_macs_max", "Most MAC addresses that it may know.", each(|bridge| bridge.max_macs.into())),
        counter("bridge_mac_evictions", "MAC addresses put out because the table was full.", each(|bridge| bridge.evictions)),
        counter("bridge_mac_moves", "How often MAC addresses moved between ports.", each(|bridge| bridge.mac_moves)),
        gauge("pool_addresses", "Addresses that the bridge's gateway may give out.", pools(|pool| pool.size as u64)),
        gauge("pool_addresses_used", "How many of them are in use.", pools(|pool| pool.used as u64)),
        counter(
            "pool_refusals",
            "Requests that got no address, because none was left or the port had its share.",
            pools(|pool| pool.exhausted + pool.refused),
        ),
    ]
}

fn of_uplinks(uplinks: &[LiveUplink]) -> Vec<Family> {
    let each = |value: fn(&LiveUplink) -> u64| {
        uplinks.iter().map(|uplink| series([("uplink", uplink.name.as_str())], value(uplink))).collect::<Vec<_>>()
    };
    let events = |uplink: &LiveUplink| {
        let row = |(what, count): (&String, &u64)| series([("uplink", uplink.name.as_str()), ("reason", what)], *count);
        uplink.counters.iter().map(row).collect::<Vec<_>>()
    };
    vec![
        gauge("uplink_sessions", "Sessions of the uplink.", each(|uplink| uplink.sessions)),
        gauge("uplink_sessions_max", "Most sessions that it may have.", each(|uplink| uplink.max_sessions)),
        gauge(
            "uplink_ports_in_use",
            "External ports and ICMP identifiers in use, of all protocols.",
            each(|uplink| uplink.ports_in_use),
        ),
        counter(
            "uplink_events",
            "What became of sessions, and what the uplink's kind counts besides, as in vsctl stats.",
            uplinks.iter().flat_map(events).collect(),
        ),
    ]
}

fn of_tunnels(live: &LiveInfo) -> Vec<Family> {
    let each = |is_meant: fn(&PeerInfo) -> bool| {
        let count = |tunnel: &api::LiveTunnel| tunnel.peers.iter().filter(|peer| is_meant(peer)).count() as u64;
        live.tunnels.iter().map(|tunnel| series([("port", tunnel.name.as_str())], count(tunnel))).collect()
    };
    vec![
        gauge("tunnel_peers", "Hosts at the other end of the tunnel.", each(|_| true)),
        gauge("tunnel_peers_up", "How many of them are heard.", each(|peer| peer.state == "up")),
    ]
}

#[derive(Debug)]
struct Families(Vec<Family>);

impl Collector for Families {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for Family { name, help, sort, series } in &self.0 {
            let kind = match sort {
                Sort::Counter => MetricType::Counter,
                Sort::Gauge => MetricType::Gauge,
            };
            let mut metric = encoder.encode_descriptor(name, help, None, kind)?;
            for Series { labels, value } in series {
                match labels.as_slice() {
                    [] => sort.encode(*value, &mut metric)?,
                    labels => sort.encode(*value, &mut metric.encode_family(&labels)?)?,
                }
            }
        }
        Ok(())
    }
}

impl Sort {
    fn encode(self, value: u64, metric: &mut MetricEncoder<'_>) -> fmt::Result {
        match self {
            Self::Counter => metric.encode_counter::<[(&str, &str); 0], u64, u64>(&value, None),
            Self::Gauge => metric.encode_gauge(&value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::{LiveKind, LiveTunnel};

    #[test]
    fn a_scrape_has_help_types_and_values_and_only_bounded_labels() {
        let drops = BTreeMap::from([("guard_ip".to_owned(), 3)]);
        let port = LivePort::new("a".parse().unwrap(), Some("br0".parse().unwrap()), LiveKind::Tap, PortState::Down);
        let port = LivePort { rx_frames: 7, rx_drops: drops, ..port };
        let peer = PeerInfo {
            address: "192.0.2.2".parse().unwrap(),
            named: true,
            state: "silent".to_owned(),
            heard_seconds: None,
            rx_frames: 0,
            tx_frames: 0,
            last_error: None,
        };
        let tunnels = vec![LiveTunnel { name: "vx0".parse().unwrap(), peers: vec![peer] }];
        let text = exposition(&LiveInfo { version: "9".to_owned(), ports: vec![port], tunnels, ..LiveInfo::default() });
        for line in [
            "vswitch_info{version=\"9\"} 1",
            "# TYPE vswitch_port_frames_total counter",
            "vswitch_port_frames_total{port=\"a\",direction=\"receive\"} 7",
            "vswitch_port_drops_total{port=\"a\",direction=\"receive\",reason=\"guard_ip\"} 3",
            "vswitch_port_up{port=\"a\"} 0",
            "vswitch_port_info{port=\"a\",bridge=\"br0\",kind=\"tap\"} 1",
            "vswitch_tunnel_peers{port=\"vx0\"} 1",
            "vswitch_tunnel_peers_up{port=\"vx0\"} 0",
        ] {
            assert!(text.lines().any(|other| other == line), "{line} is not in:\n{text}");
        }
        assert!(!text.contains("192.0.2.2") && !text.contains("vswitch_pool"), "{text}");
    }
}
