//! The busiest flows are found, whoever does what beside them.

use std::collections::HashMap;

use etherparse::PacketBuilder;
use packet::{Batch, Offload};

use super::super::{BridgeId, BridgeSettings, PortSettings};
use super::*;

const WINDOW: Duration = Duration::from_millis(500);

/// A bridge of two ports, with stations 1 behind the first and 2 behind the second.
struct Lab {
    datapath: Datapath,
    now: Instant,
    batch: Batch,
    outputs: Outputs,
}

impl Lab {
    fn new() -> Self {
        let now = Instant::now();
        let mut datapath = Datapath::new(now, 7);
        datapath.set_bridge(now, BridgeId(0), BridgeSettings::default());
        (0..2).for_each(|port| datapath.set_port(PortId(port), &PortSettings::on(BridgeId(0))));
        let mut lab = Self { datapath, now, batch: Batch::new(), outputs: Outputs::new() };
        lab.send(0, &datagram(1, 1, 18));
        lab.send(1, &datagram(2, 1, 18));
        lab.end_window();
        lab
    }

    fn send(&mut self, port: u32, frame: &[u8]) {
        self.batch.set_ingress(port);
        self.batch.push(frame, Offload::default());
        self.datapath.forward(self.now, &mut self.batch, &mut self.outputs);
        self.outputs.clear();
        self.batch.clear();
    }

    fn end_window(&mut self) -> Vec<FlowRate> {
        self.now += WINDOW;
        self.datapath.take_flows(self.now)
    }
}

/// From one station to the other: a flow of its own for each number.
fn datagram(station: u8, number: u32, payload: usize) -> Vec<u8> {
    let (from, to) = ([2, 0, 0, 0, 0, station], [2, 0, 0, 0, 0, 3 - station]);
    let [_, host, high, low] = number.to_be_bytes();
    let mut bytes = Vec::new();
    let builder = PacketBuilder::ethernet2(from, to).ipv4([10, host, 0, station], [10, 0, 0, 3 - station], 64);
    builder.udp(u16::from_be_bytes([high, low]), 53).write(&mut bytes, &vec![0; payload]).unwrap();
    bytes
}

fn source_port(rate: &FlowRate) -> u16 {
    rate.flow.packet.and_then(|packet| packet.ports).unwrap().0
}

#[test]
fn two_elephants_are_found_in_a_flood_of_flows_of_one_frame_each() {
    let mut lab = Lab::new();
    let (large, small) = (datagram(1, 1, 1400), datagram(1, 2, 1400));
    let (mut mouse, mut flows) = (1000, Vec::new());
    for _ in 0..20 {
        for turn in 0..4000 {
            mouse += 1;
            lab.send(0, &datagram(1, mouse, 18));
            if turn % 20 == 0 {
                lab.send(0, &large);
            }
            if turn % 40 == 0 {
                lab.send(0, &small);
            }
        }
        flows = lab.end_window();
        let rows = lab.datapath.ports.get(0).unwrap().flows.table.len();
        assert!(rows <= table::ROWS && flows.len() <= MOST, "{rows}");
    }
    let [first, second, mice @ ..] = &flows[..] else { panic!("{flows:?}") };
    assert_eq!((source_port(first), source_port(second)), (1, 2));
    for (rate, frames) in [(first, 400.0), (second, 200.0)] {
        assert!((rate.frames / frames - 1.0).abs() < 0.2, "{rate:?}");
        assert!((rate.bytes / frames / 1442.0 - 1.0).abs() < 0.2, "{rate:?}");
        assert_eq!((rate.ingress, rate.fate, rate.egress), (PortId(0), Fate::Bridged(PortId(1)), Some(PortId(1))));
    }
    assert!(mice.iter().all(|mouse| mouse.bytes < second.bytes / 4.0), "{mice:?}");
}

#[test]
fn a_flood_at_one_port_takes_nothing_from_a_quiet_one_where_every_frame_counts() {
    let mut lab = Lab::new();
    let (mut mouse, mut flows) = (1000, Vec::new());
    for _ in 0..10 {
        for _ in 0..5000 {
            mouse += 1;
            lab.send(0, &datagram(1, mouse, 18));
        }
        lab.send(1, &datagram(2, 5, 58));
        flows = lab.end_window();
        let quiet = flows.iter().find(|rate| rate.ingress == PortId(1) && source_port(rate) == 5);
        let quiet = quiet.unwrap_or_else(|| panic!("{flows:?}"));
        assert!((quiet.bytes - 200.0).abs() < 1e-6 && (quiet.frames - 2.0).abs() < 1e-6, "{quiet:?}");
    }
    let flood = flows.iter().filter(|rate| rate.ingress == PortId(0)).count();
    assert_eq!(flood, 0, "of a flow of one frame nothing is known");
}

#[test]
fn many_busy_flows_of_one_port_leave_the_busiest_of_another_in_the_list() {
    let mut lab = Lab::new();
    (0..250).for_each(|number| lab.send(0, &datagram(1, number % 64 + 1, 1400)));
    lab.send(1, &datagram(2, 5, 18));
    let flows = lab.end_window();
    assert_eq!(flows.len(), MOST);
    assert!(flows.iter().any(|rate| rate.ingress == PortId(1)));
    assert!(flows.is_sorted_by(|one, other| one.bytes >= other.bytes));
}

#[test]
fn what_is_looked_at_once_in_a_while_is_not_taken_for_a_busy_flow() {
    let mut lab = Lab::new();
    let (mut mouse, mut shown) = (0, 0);
    for _ in 0..20 {
        // Ten thousand flows that never end, of one frame a second each.
        for _ in 0..5000 {
            mouse += 1;
            lab.send(0, &datagram(1, 1000 + mouse % 10_000, 18));
            lab.send(0, &datagram(1, 1, 18));
        }
        shown += lab.end_window().iter().filter(|rate| source_port(rate) >= 1000).count();
    }
    assert!(shown <= 2, "{shown}");
}

#[test]
fn a_rate_is_right_at_once_and_a_flow_that_is_over_goes() {
    let mut lab = Lab::new();
    for _ in 0..4 {
        (0..10).for_each(|_| lab.send(0, &datagram(1, 7, 958)));
        let flows = lab.end_window();
        assert!((flows[0].bytes - 20_000.0).abs() < 1e-6 && (flows[0].frames - 20.0).abs() < 1e-6, "{flows:?}");
    }
    let later = (0..40).map(|_| lab.end_window()).collect::<Vec<_>>();
    assert!(later[1][0].bytes < 15_000.0 && later[39].is_empty(), "{later:?}");
    lab.datapath.set_port(PortId(0), &PortSettings::on(BridgeId(0)));
    lab.send(0, &datagram(1, 7, 958));
    lab.datapath.set_port(PortId(0), &PortSettings::on(BridgeId(0)));
    assert_eq!(lab.end_window().len(), 1, "a change of the port does not forget them");
}

#[test]
fn fragments_arp_and_what_is_no_ip_are_flows_and_runts_are_none() {
    let mut lab = Lab::new();
    let mut fragment = datagram(1, 9, 100);
    fragment[20..22].copy_from_slice(&[0, 100]);
    let sum = packet::checksum::Sum::new().plus(&fragment[14..24]).plus(&fragment[26..34]).checksum();
    fragment[24..26].copy_from_slice(&sum.to_be_bytes());
    let other = [&[0xff; 6][..], &[2, 0, 0, 0, 0, 1], &[0x88, 0xb5], &[0; 46]].concat();
    [&fragment[..], &other, &[1, 2, 3]].into_iter().for_each(|frame| lab.send(0, frame));
    let flows = lab.end_window();
    let new = |rate: &&FlowRate| rate.flow.packet.is_none_or(|packet| packet.ports.is_none());
    let packets: Vec<_> = flows.iter().filter(new).map(|rate| (rate.flow.packet.is_some(), rate.fate.name())).collect();
    assert_eq!(packets, [(true, "bridged"), (false, "flooded")]);
}

/// What a sampler makes of frames of these lengths in turn, by length, after so many windows of so many rounds.
fn sampled(lengths: &[u64], windows: u32, rounds: u32) -> HashMap<u64, f64> {
    let (mut sampler, mut received) = (Sampler::new(11), 0);
    let mut sums = HashMap::<u64, f64>::new();
    for _ in 0..windows {
        for _ in 0..rounds {
            for length in lengths {
                received += length;
                *sums.entry(*length).or_default() += sampler.pass(received, *length).unwrap_or(0) as f64;
            }
        }
        sampler.end_window(received);
    }
    sums
}

#[test]
fn bytes_are_estimated_right_for_frames_of_every_length() {
    for lengths in [&[60, 1514][..], &[60, 600, 65_226], &[1514, 1515], &[9014, 700, 64, 64, 64, 2000]] {
        for rounds in [200, 1000, 10_000] {
            let windows = 2_000_000 / rounds / 6;
            let mut times = HashMap::<u64, f64>::new();
            lengths.iter().for_each(|length| *times.entry(*length).or_default() += f64::from(windows * rounds));
            for (length, sum) in sampled(lengths, windows, rounds) {
                let right = times[&length] * length as f64;
                let share = right / times.iter().map(|(length, times)| *length as f64 * times).sum::<f64>();
                // Of those with few of the bytes, few are looked at: four standard deviations.
                let tolerance = (4.0 / (f64::from(windows * sampler::AIM) * share).sqrt()).max(0.03);
                assert!((sum / right - 1.0).abs() < tolerance, "{length} of {lengths:?}, {rounds}: {sum} for {right}");
            }
        }
    }
}

#[test]
fn a_burst_of_any_length_has_a_bounded_number_of_looks() {
    let (mut sampler, mut received) = (Sampler::new(3), 0);
    let looks = |sampler: &mut Sampler, received: &mut u64| {
        let mut looks = 0;
        for _ in 0..5_000_000 {
            *received += 1514;
            looks += usize::from(sampler.pass(*received, 1514).is_some());
        }
        sampler.end_window(*received);
        looks
    };
    let first = looks(&mut sampler, &mut received);
    assert!(first < 5000, "{first}");
    let second = looks(&mut sampler, &mut received);
    assert!((200..600).contains(&second), "{second}");
    (0..3).for_each(|_| sampler.end_window(received));
    assert_eq!(sampler.pass(received + 60, 60), Some(60), "after a pause every frame is looked at");
}

#[test]
fn frames_that_were_received_elsewhere_and_those_that_were_lost_before_change_no_estimate() {
    let (mut sampler, mut received, mut sums) = (Sampler::new(5), 0, [0.0; 2]);
    let rounds = 400_000;
    for round in 0..rounds {
        received += 1000;
        sums[0] += sampler.pass(received, 1000).unwrap_or(0) as f64;
        sums[1] += sampler.pass_more(received, 500).unwrap_or(0) as f64;
        // Lost on an impaired line, and counted.
        received += 300;
        if round % 2000 == 1999 {
            sampler.end_window(received);
        }
    }
    let right = [1000.0, 500.0].map(|length| length * f64::from(rounds));
    assert!((sums[0] / right[0] - 1.0).abs() < 0.04 && (sums[1] / right[1] - 1.0).abs() < 0.04, "{sums:?} for {right:?}");
}
