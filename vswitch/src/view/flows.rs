//! The flows that move most, with the names of ports.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use api::{LiveFlow, PortName};
use packet::{ethertype, protocol};
use plane::datapath::{Flow, FlowRate, PortId, WorkerCounts};

/// Flows that are shown at most.
const MOST: usize = 64;
/// IP's number of SCTP.
const SCTP: u8 = 132;

/// The busiest flows of all workers, the busiest first. Those of ports without a name are left out.
pub(super) fn flows(names: &BTreeMap<PortId, PortName>, counts: &[Arc<WorkerCounts>]) -> Vec<LiveFlow> {
    let mut all = HashMap::<(PortId, Flow), FlowRate>::new();
    // Of a flow that several workers met, the one that met it most often knows its way best.
    for rate in counts.iter().flat_map(|part| &part.flows) {
        let sum = all.entry((rate.ingress, rate.flow)).or_insert(FlowRate { bytes: 0.0, frames: 0.0, ..*rate });
        let way = if rate.bytes > sum.bytes { rate } else { &*sum };
        *sum = FlowRate { bytes: sum.bytes + rate.bytes, frames: sum.frames + rate.frames, ..*way };
    }
    let mut rates: Vec<FlowRate> = all.into_values().collect();
    rates.sort_by(|one, other| other.bytes.total_cmp(&one.bytes));
    rates.iter().filter_map(|rate| flow(names, rate)).take(MOST).collect()
}

fn flow(names: &BTreeMap<PortId, PortName>, rate: &FlowRate) -> Option<LiveFlow> {
    let Flow { vlan, source, destination, ethertype, packet } = rate.flow;
    let ports = packet.and_then(|packet| packet.ports);
    // More digits would be no more than noise.
    let rounded = |rate: f64| (rate * 10.0).round() / 10.0;
    Some(LiveFlow {
        r#in: names.get(&rate.ingress)?.clone(),
        out: rate.egress.and_then(|port| names.get(&port)).cloned(),
        verdict: rate.fate.name().replace('-', "_"),
        drop_reason: rate.fate.drop_reason().map(|reason| reason.json_name()),
        vlan,
        source_mac: source,
        destination_mac: destination,
        ethertype,
        protocol: word(ethertype, packet.map(|packet| packet.protocol)),
        source: packet.map(|packet| packet.source),
        destination: packet.map(|packet| packet.destination),
        source_port: ports.map(|ports| ports.0),
        destination_port: ports.map(|ports| ports.1),
        bytes_per_second: rounded(rate.bytes),
        frames_per_second: rounded(rate.frames),
    })
}

fn word(kind: u16, carried: Option<u8>) -> String {
    match (carried, kind) {
        (Some(protocol::TCP), _) => "tcp".to_owned(),
        (Some(protocol::UDP), _) => "udp".to_owned(),
        (Some(protocol::ICMP | protocol::ICMP6), _) => "icmp".to_owned(),
        (Some(SCTP), _) => "sctp".to_owned(),
        (Some(number), _) => format!("ip-{number}"),
        (None, ethertype::ARP) => "arp".to_owned(),
        (None, kind) => format!("0x{kind:04x}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use packet::{Mac, VlanId};
    use plane::datapath::{DropReason, Fate, FlowPacket};

    #[test]
    fn flows_of_all_workers_are_added_and_told_by_name() {
        let packet = |port| FlowPacket {
            source: "10.0.0.1".parse().unwrap(),
            destination: "10.0.0.2".parse().unwrap(),
            protocol: 6,
            ports: Some((port, 80)),
        };
        let (source, destination) = (Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2]));
        let rate = |ingress, packet: Option<FlowPacket>, fate, egress: Option<u32>, bytes| FlowRate {
            ingress: PortId(ingress),
            flow: Flow {
                vlan: Some(VlanId::DEFAULT),
                source,
                destination,
                ethertype: if packet.is_none() { 0x806 } else { 0x800 },
                packet,
            },
            fate,
            egress: egress.map(PortId),
            bytes,
            frames: bytes / 100.0,
        };
        let bridged = Fate::Bridged(PortId(2));
        let worker = |flows| Arc::new(WorkerCounts { flows, ..WorkerCounts::default() });
        let one = worker(vec![
            rate(1, Some(packet(5)), Fate::Noted, None, 100.0),
            rate(1, None, Fate::Dropped(DropReason::GuardArp), None, 50.0),
            rate(9, Some(packet(5)), bridged, Some(2), 1e9),
        ]);
        let other = worker(vec![rate(1, Some(packet(5)), bridged, Some(2), 300.0)]);
        let names = BTreeMap::from([(PortId(1), "a".parse().unwrap()), (PortId(2), "b".parse().unwrap())]);
        let told = flows(&names, &[one, other]);
        assert_eq!(told.len(), 2, "no port has the number 9");
        let [first, second] = &told[..] else { panic!("{told:?}") };
        assert_eq!((first.from().to_string(), first.to().to_string()), ("10.0.0.1:5".to_owned(), "10.0.0.2:80".to_owned()));
        assert_eq!((&*first.protocol, &*first.verdict, &*first.way()), ("tcp", "bridged", "a → b"));
        assert!((first.bytes_per_second - 400.0).abs() < 0.1 && (first.frames_per_second - 4.0).abs() < 0.1);
        assert_eq!((&*second.protocol, &*second.way(), second.from().to_string()), ("arp", "a: guard-arp", source.to_string()));
        assert_eq!(second.drop_reason.as_deref(), Some("guard_arp"));
    }
}
