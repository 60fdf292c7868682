//! Impaired lines between stations and workers whose clock the test moves.

use etherparse::PacketBuilder;
use packet::{Checksum, Gso, GsoKind};

use super::still::Still;
use super::*;
use crate::capture::Direction;
use crate::datapath::{Counters, Fate, Place, Step};

/// Segments of a super-frame, and the payload of each.
const SEGMENTS: usize = 44;
const SIZE: usize = 1448;

/// A TCP super-frame.
fn super_frame(sequence: u32) -> (Vec<u8>, Offload) {
    let mut bytes = Vec::new();
    let builder = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    let builder = builder.ipv4([10, 0, 0, 1], [10, 0, 0, 2], 9).tcp(1, 2, sequence, 1000).ack(7);
    builder.write(&mut bytes, &[5; SEGMENTS * SIZE]).unwrap();
    // Fragments would need the identification.
    bytes[20] |= 0x40;
    let sum = packet::checksum::Sum::new().plus(&bytes[14..24]).plus(&bytes[26..34]).checksum();
    bytes[24..26].copy_from_slice(&sum.to_be_bytes());
    let gso = Some(Gso { kind: GsoKind::Tcp4, size: 1448.try_into().unwrap(), ecn: false });
    (bytes, Offload { checksum: Checksum::Partial { start: 34, offset: 16 }, gso })
}

fn payload(frames: &[(Vec<u8>, Offload)]) -> usize {
    frames.iter().map(|(bytes, _)| bytes.len() - 54).sum()
}

#[test]
fn a_line_that_only_delays_keeps_super_frames_whole_and_is_exact() {
    let delay = Duration::from_millis(1);
    for (words, whole) in [("delay 1ms", true), ("delay 1ms jitter 1us", false), ("delay 1ms loss 0.0001%", false)] {
        let mut still = Still::new(1);
        still.impair(0, &format!(r#"{{ "in": "{words}", "seed": 1 }}"#));
        let (bytes, offload) = super_frame(1);
        for number in 0..20 {
            assert!(still.far[0][0].push(&bytes, offload));
            still.work(Duration::from_micros(100) * number);
        }
        still.run();
        assert_eq!(still.counters(0).rx_frames, if whole { 20 } else { 20 * SEGMENTS as u64 }, "{words}");
        assert_eq!(still.counters(0).impaired[0].delayed, 20 * SEGMENTS as u64, "{words}");
        assert_eq!(payload(&still.drain(1)), 20 * SEGMENTS * SIZE, "{words}");
    }
    let mut still = Still::new(1);
    still.impair(0, r#"{ "in": "delay 1ms" }"#);
    for number in 0..50 {
        let (bytes, offload) = super_frame(number * 63_712);
        assert!(still.far[0][0].push(&bytes, offload));
        let sent = Duration::from_micros(1500) * number;
        still.work(sent);
        still.work(sent + delay - Duration::from_nanos(1));
        assert!(still.drain(1).is_empty());
        still.work(sent + delay);
        assert!(still.drain(1) == [(bytes, offload)], "as it was, after exactly a millisecond");
    }
}

#[test]
fn of_super_frames_each_packet_on_the_wire_is_lost_on_its_own() {
    for (port, table, ingress) in
        [(0, r#"{ "in": "loss 1%", "seed": 2 }"#, true), (1, r#"{ "out": "loss 1%", "seed": 2 }"#, false)]
    {
        let mut still = Still::new(1);
        still.impair(port, table);
        let (mut received, mut writes, mut whole) = (0, 0, 0);
        for number in 0..2273 {
            let (bytes, offload) = super_frame(number * 63_712);
            assert!(still.far[0][0].push(&bytes, offload));
            still.work(Duration::from_micros(number.into()));
            let frames = still.drain(1);
            (received, writes) = (received + payload(&frames), writes + frames.len());
            whole += frames.iter().filter(|(bytes, _)| bytes.len() == SEGMENTS * SIZE + 54).count();
        }
        let (lost, sent) = (still.counters(port).drops_on(ingress, DropReason::ImpairLoss), 2273 * SEGMENTS);
        assert!((950..=1050).contains(&lost), "of 100,012 packets: {lost}");
        assert_eq!(received, (sent - usize::try_from(lost).unwrap()) * SIZE);
        assert!(whole > 1000 && writes < 5000, "what is in sequence is merged again: {writes} frames, {whole} whole");
    }
}

#[test]
fn the_same_seed_loses_the_same_packets_whatever_the_delay_the_workers_and_the_traces() {
    let passed = |workers: usize, table: &str, traces: bool| {
        let mut still = Still::new(workers);
        still.impair(0, table);
        for number in 0..3000_u32 {
            let mut bytes = frame(1, Mac([2, 0, 0, 0, 0, 2]));
            bytes[20..24].copy_from_slice(&number.to_be_bytes());
            assert!(still.far[0][number as usize % workers].push(&bytes, Offload::default()));
            still.work(Duration::from_micros(number.into()));
            if traces {
                let place = Place { port: PortId(0), peer: 0 };
                assert!(still.workers[0].foretell(place, (&bytes, Offload::default()), still.now).is_some());
            }
        }
        still.run();
        let mut frames: Vec<_> = still.drain(1).into_iter().map(|(bytes, _)| bytes[20..24].to_vec()).collect();
        frames.sort();
        frames
    };
    let first = passed(1, r#"{ "in": "loss 10%", "seed": 7 }"#, false);
    assert!((2600..2800).contains(&first.len()), "{}", first.len());
    assert_eq!(passed(2, r#"{ "in": "loss 10%", "seed": 7 }"#, false), first);
    assert_eq!(passed(1, r#"{ "in": "loss 10% delay 20ms jitter 5ms", "seed": 7 }"#, true), first);
    assert_ne!(passed(1, r#"{ "in": "loss 10%", "seed": 8 }"#, false), first);
}

#[test]
fn a_delay_holds_for_each_direction_and_a_device_that_takes_nothing_gets_whole_packets() {
    for workers in [1, 2] {
        let mut still = Still::new(workers);
        still.attach(1, Capabilities::default());
        still.impair(0, r#"{ "in": "delay 20ms" }"#);
        still.impair(1, r#"{ "out": "delay 5ms" }"#);
        let (bytes, offload) = super_frame(1);
        assert!(still.far[0][workers - 1].push(&bytes, offload));
        still.work(Duration::ZERO);
        for wait in [Duration::from_micros(19_999), Duration::from_micros(20_000), Duration::from_micros(24_999)] {
            still.work(wait);
            assert_eq!(still.drain(1).len(), 0, "{wait:?}");
        }
        still.work(Duration::from_micros(25_000));
        let frames = still.drain(1);
        assert_eq!((frames.len(), payload(&frames)), (SEGMENTS, SEGMENTS * SIZE));
        assert!(frames.iter().all(|(bytes, _)| packet::checksum::examine(bytes) == Checksum::Valid));
        let [came, left] = [0, 1].map(|port| still.counters(port));
        assert_eq!((came.impaired[0].delayed, left.impaired[1].delayed), (44, 44));
        assert_eq!(
            (came.rx_frames, left.tx_frames, came.impaired[1], left.impaired[0]),
            (1, 44, Default::default(), Default::default()),
            "a line that only delays keeps super-frames whole"
        );
        // The other direction has no line.
        assert!(still.far[1][0].push(&frame(2, Mac::BROADCAST), Offload::default()));
        still.work(Duration::from_millis(30));
        assert_eq!(still.drain(0).len(), 1);
    }
}

#[test]
fn a_rate_and_the_order_hold_for_all_workers_together() {
    for workers in [1, 2] {
        let mut still = Still::new(workers);
        still.impair(1, r#"{ "out": "rate 100mbit" }"#);
        for number in 0..200_u32 {
            let (mut bytes, _) = super_frame(number);
            bytes.truncate(1250);
            assert!(still.far[0][number as usize % workers].push(&bytes, Offload::default()));
            still.work(Duration::from_micros(10) * number);
        }
        let mut left = Vec::new();
        for step in 200..1500_u32 {
            still.work(Duration::from_micros(10) * step);
            left.extend(still.drain(1));
        }
        // One each 100 us.
        assert!((148..=150).contains(&left.len()), "{} with {workers} workers", left.len());
        still.run();
        left.extend(still.drain(1));
        let sequence = |bytes: &[u8]| u32::from_be_bytes(bytes[38..42].try_into().unwrap());
        let numbers: Vec<u32> = left.iter().map(|(bytes, _)| sequence(bytes)).collect();
        assert!(numbers.is_sorted(), "{numbers:?}");
        assert_eq!(left.len(), 200);
    }
}

#[test]
fn a_trace_says_what_a_frame_meets_and_why_it_would_be_lost() {
    let mut still = Still::new(1);
    let ask = |still: &mut Still| {
        let place = Place { port: PortId(0), peer: 0 };
        still.workers[0].foretell(place, (&frame(1, Mac::BROADCAST), Offload::default()), still.now).unwrap()
    };
    let met = |steps: &[(usize, Step)]| {
        let met = |(place, (_, step)): (usize, &(usize, Step))| match step {
            Step::Impaired { port, direction, rules } => Some((place, port.0, *direction, rules.to_string())),
            _ => None,
        };
        steps.iter().enumerate().filter_map(met).collect::<Vec<_>>()
    };
    assert_eq!(met(&ask(&mut still).steps), []);
    still.impair(0, r#"{ "in": "delay 20ms loss 1%" }"#);
    still.impair(1, r#"{ "out": "flap 1s every 2s" }"#);
    let told = ask(&mut still);
    let end = told.steps.len() - 1;
    let expected =
        [(0, 0, Direction::In, "delay 20ms loss 1%".to_owned()), (end - 1, 1, Direction::Out, "flap 1s every 2s".to_owned())];
    assert_eq!(met(&told.steps), expected);
    assert!(matches!(told.steps[end].1, Step::Settled(Fate::Flooded(_))));
    assert_eq!(told.exits.iter().map(|exit| exit.lost).collect::<Vec<_>>(), [None]);
    still.now += Duration::from_millis(1500);
    assert_eq!(ask(&mut still).exits[0].lost, Some(DropReason::ImpairFlap));
    still.impair(0, r#"{ "in": "loss 100%" }"#);
    let told = ask(&mut still);
    assert_eq!((told.fate, told.exits.len()), (Fate::Dropped(DropReason::ImpairLoss), 0));
    assert_eq!(still.counters(0), Counters::default());
}

#[test]
fn a_line_that_is_taken_away_lets_go_of_what_it_has_and_an_unrelated_change_keeps_it() {
    let mut still = Still::new(1);
    still.impair(0, r#"{ "in": "delay 20ms", "seed": 3 }"#);
    let push = |still: &mut Still, count: u64| {
        (0..count).for_each(|_| assert!(still.far[0][0].push(&frame(1, Mac::BROADCAST), Offload::default())));
        still.work(Duration::ZERO);
    };
    push(&mut still, 100);
    still.impair(0, r#"{ "in": "delay 20ms", "seed": 3 }"#);
    assert_eq!(still.drain(1).len(), 0);
    still.impair(0, "{}");
    assert_eq!(still.drain(1).len(), 100);
    assert!(!still.workers[0].stops.any_in() && still.workers[0].stops.next().is_none());
    push(&mut still, 5);
    assert_eq!(still.drain(1).len(), 5);
    // What is on the line of a port that is removed goes with it.
    still.impair(0, r#"{ "in": "delay 20ms" }"#);
    push(&mut still, 5);
    still.workers[0].detach(PortId(0), still.now);
    still.work(Duration::from_secs(1));
    assert_eq!(still.drain(1).len(), 0);
}

/// A frame to all that has this number in it.
fn numbered(number: u32) -> Vec<u8> {
    let mut bytes = frame(1, Mac::BROADCAST);
    bytes[20..24].copy_from_slice(&number.to_be_bytes());
    bytes
}

fn numbers(frames: &[(Vec<u8>, Offload)]) -> Vec<u32> {
    frames.iter().map(|(bytes, _)| u32::from_be_bytes(bytes[20..24].try_into().unwrap())).collect()
}

#[test]
fn a_long_line_that_is_taken_away_empties_turn_by_turn_and_nothing_overtakes() {
    for (port, table) in [(0, r#"{ "in": "delay 20ms" }"#), (1, r#"{ "out": "rate 8kbit limit 10MB" }"#)] {
        let mut still = Still::new(1);
        still.impair(port, table);
        for number in 0..5000 {
            assert!(still.far[0][0].push(&numbered(number), Offload::default()));
        }
        still.work(Duration::ZERO);
        still.drain(1);
        still.impair(port, "{}");
        let mut left = still.drain(1);
        assert!((1..=1024).contains(&left.len()), "{} in the turn of the change", left.len());
        for number in 5000..5010 {
            assert!(still.far[0][0].push(&numbered(number), Offload::default()));
        }
        while still.workers[0].stops.any() {
            still.workers[0].make_all_ready();
            still.workers[0].turn(still.now);
            still.workers[0].release(still.now);
            let more = still.drain(1);
            assert!(more.len() <= 1100, "{}", more.len());
            left.extend(more);
        }
        assert!(numbers(&left).into_iter().eq(0..5010), "{} left, or not in order", left.len());
        assert_eq!(still.workers[0].stops.next(), None);
    }
}

#[test]
fn what_is_on_the_lines_of_a_port_that_is_unplugged_or_moved_is_lost_and_counted() {
    for workers in [1, 2] {
        let settings = |still: &Still, bridge, down| {
            let impair = serde_json::from_str(r#"{ "in": "delay 20ms", "out": "rate 8kbit limit 10MB" }"#).unwrap();
            PortSettings::on(BridgeId(bridge)).under(api::PortPolicy { impair, down, ..Default::default() }, still.now)
        };
        let mut still = Still::new(workers);
        let second = BridgeSettings { mtu: 1500, ageing: 300, max_macs: 100, ..BridgeSettings::default() };
        let set = |still: &mut Still, bridge, down| {
            let (settings, now) = (settings(still, bridge, down), still.now);
            still.workers.iter_mut().for_each(|worker| worker.execute(Command::SetPort(PortId(1), settings.clone()), now));
        };
        still.workers.iter_mut().for_each(|worker| worker.execute(Command::SetBridge(BridgeId(1), second.clone()), still.now));
        set(&mut still, 0, false);
        let mut lost = [0, 0];
        for (bridge, down) in [(0, true), (1, false)] {
            set(&mut still, 0, false);
            for number in 0..100 {
                assert!(still.far[0][workers - 1].push(&numbered(number), Offload::default()));
            }
            assert!(still.far[1][workers - 1].push(&frame(2, Mac::BROADCAST), Offload::default()));
            let after = still.now - still.began;
            still.work(after);
            let passed = still.drain(1).len() as u64;
            assert!(passed <= 1, "{passed}");
            set(&mut still, bridge, down);
            // It is as if the cable had been pulled: plugged in again at once, nothing of it comes.
            set(&mut still, bridge, false);
            still.run();
            assert_eq!((still.drain(0).len(), still.drain(1).len()), (0, 0));
            lost = [lost[0] + 1, lost[1] + 100 - passed];
            let counters = still.counters(1);
            let counted = [true, false].map(|ingress| counters.drops_on(ingress, DropReason::PortDown));
            assert_eq!(counted, lost, "{workers} workers, bridge {bridge}, down {down}");
        }
        // The line is as it was.
        set(&mut still, 0, false);
        assert!(still.far[0][0].push(&numbered(7), Offload::default()));
        let after = still.now - still.began;
        still.work(after);
        still.run();
        assert_eq!(numbers(&still.drain(1)), [7]);
    }
}

#[test]
fn a_trace_foretells_that_a_line_has_no_room() {
    let mut still = Still::new(1);
    still.impair(1, r#"{ "out": "rate 8kbit limit 2000B" }"#);
    let ask = |still: &mut Still| {
        let place = Place { port: PortId(0), peer: 0 };
        let told = still.workers[0].foretell(place, (&frame(1, Mac::BROADCAST), Offload::default()), still.now).unwrap();
        told.exits.iter().map(|exit| exit.lost).collect::<Vec<_>>()
    };
    assert_eq!(ask(&mut still), [None]);
    (0..50).for_each(|number| assert!(still.far[0][0].push(&numbered(number), Offload::default())));
    still.work(Duration::ZERO);
    // One has left, and 33 of 60 bytes wait.
    assert_eq!(still.counters(1).drops_on(false, DropReason::ImpairQueue), 16);
    assert_eq!(ask(&mut still), [Some(DropReason::ImpairQueue)]);
    // As what leaves by then makes room.
    still.now += Duration::from_millis(59);
    assert_eq!(ask(&mut still), [Some(DropReason::ImpairQueue)]);
    still.now += Duration::from_millis(1);
    assert_eq!(ask(&mut still), [None]);
    assert_eq!(still.counters(1).drops_on(false, DropReason::ImpairQueue), 16);
}

#[test]
fn a_worker_that_sleeps_wakes_when_a_packet_is_due() {
    let plane = Plane::new(1, 1);
    // A device that is polled would wake it each millisecond.
    let (socket, ours) = std::os::unix::net::UnixDatagram::pair().unwrap();
    let mut late = Vec::new();
    let device = Idle(socket);
    let settings = |words: &str| {
        let policy = api::PortPolicy { impair: serde_json::from_str(words).unwrap(), ..Default::default() };
        PortSettings::on(BridgeId(0)).under(policy, Instant::now())
    };
    let attach = |id: u32, device: Box<dyn Device>, words: &str| {
        plane.workers[0].ask(|reply| Command::Attach(PortId(id), settings(words), device, reply)).unwrap().unwrap();
    };
    plane.workers[0].ask(|reply| Command::Detach(PortId(0), reply)).unwrap();
    attach(7, Box::new(device), r#"{ "out": "delay 2500us" }"#);
    for _ in 0..20 {
        let began = Instant::now();
        plane.tell_without_waiting(Command::Emit(BridgeId(0), Some(VlanId::DEFAULT), frame(9, Mac::BROADCAST)));
        ours.recv(&mut [0; 100]).unwrap();
        late.push(began.elapsed().saturating_sub(Duration::from_micros(2500)));
    }
    // Where time is counted in milliseconds it would always be half of one. On a machine that is shared, some wait for a processor.
    let best = late.iter().min().unwrap();
    assert!(*best < Duration::from_micros(400), "{late:?}");
}

impl Plane {
    fn tell_without_waiting(&self, command: Command) {
        self.workers[0].tell(command).unwrap();
    }
}

/// A device by which frames leave, and none comes.
struct Idle(std::os::unix::net::UnixDatagram);

impl Device for Idle {
    fn descriptors(&self) -> Vec<std::os::fd::RawFd> {
        Vec::new()
    }

    fn receives(&self) -> bool {
        false
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
    }

    fn receive(&mut self, _: &mut packet::Batch) -> crate::device::Received {
        crate::device::Received { status: crate::device::ReceiveStatus::Drained, malformed: 0, missed: 0 }
    }

    fn send(&mut self, packet: &packet::Packet<'_>) -> crate::device::Sent {
        match self.0.send(&packet.to_vec()) {
            Ok(_) => crate::device::Sent::Done,
            Err(_) => crate::device::Sent::QueueFull,
        }
    }
}

#[test]
fn a_super_frame_is_foretold_as_what_travels() {
    let mut still = Still::new(1);
    still.attach(1, Capabilities::ALL);
    let (bytes, offload) = super_frame(1);
    let place = Place { port: PortId(0), peer: 0 };
    let ask = |still: &mut Still, offload| still.workers[0].foretell(place, (&bytes, offload), still.now).unwrap();
    let whole = ask(&mut still, offload);
    assert!(whole.fate.drop_reason().is_none() && whole.exits.iter().all(|exit| exit.offload.gso.is_some()), "{whole:?}");
    assert_eq!(ask(&mut still, Offload::default()).fate.drop_reason(), Some(DropReason::Oversized), "as one long frame");
    still.far[1][0].set_capabilities(Capabilities::default());
    let cut = ask(&mut still, offload);
    let [exit] = &cut.exits.iter().filter(|exit| exit.port == PortId(1)).collect::<Vec<_>>()[..] else { panic!("{cut:?}") };
    assert_eq!((exit.frames, exit.bytes.len(), exit.lost), (SEGMENTS, 54 + SIZE, None));
    let step = |step: &&(usize, Step)| matches!(step.1, Step::Cut { port: PortId(1), frames: SEGMENTS });
    assert_eq!(cut.steps.iter().filter(step).count(), 1, "{:?}", cut.steps);
    assert!(matches!(cut.steps.last(), Some((0, Step::Settled(_)))), "what became of it is told last");
}

#[test]
fn what_is_on_its_way_to_a_line_that_is_taken_away_goes_on_without_it() {
    let mut still = Still::new(2);
    still.impair(0, r#"{ "in": "delay 50ms", "out": "delay 50ms" }"#);
    for port in 0..2 {
        (0..20).for_each(|number| assert!(still.far[port][1].push(&frame(number, Mac::BROADCAST), Offload::default())));
    }
    // The second worker hands them over, and the first one loses its lines before it comes to them.
    still.workers[1].make_all_ready();
    while !still.workers[1].ready.is_empty() {
        still.workers[1].turn(still.now);
    }
    still.impair(0, "{}");
    still.work(Duration::ZERO);
    assert_eq!((still.drain(0).len(), still.drain(1).len()), (20, 20));
    assert_eq!(still.counters(0).drops(DropReason::ImpairQueue), 0);
    assert_eq!((still.counters(0).rx_frames, still.counters(0).tx_frames), (20, 20));
}
