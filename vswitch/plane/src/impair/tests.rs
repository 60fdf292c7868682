//! Lines under a hand-moved clock.

use std::collections::BTreeSet;
use std::io::IoSlice;

use etherparse::PacketBuilder;
use packet::Offload;

use super::*;

/// A line and its time.
struct Lab {
    line: Line,
    began: Instant,
    now: Instant,
    numbers: u64,
}

impl Lab {
    fn new(words: &str) -> Self {
        Self::seeded(words, 1)
    }

    fn seeded(words: &str, seed: u32) -> Self {
        let now = Instant::now();
        Self { line: Line::new(words.parse().unwrap(), seed, Direction::In, now), began: now, now, numbers: 0 }
    }

    fn at(&mut self, time: Duration) {
        self.now = self.began + time;
    }

    /// Puts a packet of so many bytes on the line; its number is one more than that of the one before.
    fn push(&mut self, bytes: usize) {
        self.push_bytes(&vec![0xaa; bytes]);
    }

    fn push_bytes(&mut self, bytes: &[u8]) {
        self.numbers += 1;
        let parts = [IoSlice::new(bytes)];
        self.line.push(&Packet { id: self.numbers, ..Packet::whole(&parts) }, self.now);
    }

    /// The numbers of all that is due now.
    fn due(&mut self) -> Vec<u64> {
        std::iter::from_fn(|| self.line.pop(self.now)).map(|transit| transit.id).collect()
    }

    /// Moves the clock from one thing to do to the next until there is nothing more, or the time is up. Returns what left, and when.
    fn run(&mut self, end: Duration) -> Vec<(u64, Duration)> {
        let mut left = Vec::new();
        loop {
            left.extend(self.due().into_iter().map(|id| (id, self.now - self.began)));
            match self.line.next() {
                Some(next) if next <= self.began + end => self.now = next.max(self.now),
                _ => return left,
            }
        }
    }

    fn lost(&mut self) -> Vec<(DropReason, u64)> {
        std::iter::from_fn(|| self.line.stock_mut().next_lost()).map(|(reason, transit)| (reason, transit.id)).collect()
    }
}

const SECOND: Duration = Duration::from_secs(1);

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

#[test]
fn a_delay_is_exact_and_what_is_said_next_is_when_it_ends() {
    let mut lab = Lab::new("delay 20ms");
    for number in 0..10 {
        lab.at(ms(number));
        lab.push(100);
    }
    assert_eq!(lab.line.next(), Some(lab.began + ms(20)));
    lab.at(ms(20) - Duration::from_nanos(1));
    assert!(lab.due().is_empty());
    let left = lab.run(SECOND);
    assert_eq!(left, (1..=10).map(|id| (id, ms(19 + id))).collect::<Vec<_>>());
    assert_eq!((lab.line.next(), lab.line.take_treated().delayed), (None, 10));
}

#[test]
fn jitter_stays_in_its_bounds_and_reorders_nothing() {
    for (words, least, most) in [
        ("delay 20ms jitter 5ms", ms(15), ms(25)),
        ("delay 20ms jitter 5ms distribution normal", ms(0), ms(40)),
        ("delay 20ms jitter 5ms distribution pareto", ms(16), ms(40)),
        ("delay 20ms jitter 5ms distribution paretonormal", ms(12), ms(40)),
    ] {
        let mut lab = Lab::new(words);
        // Far apart, no packet has to wait for the one before it.
        let mut delays = Vec::new();
        for number in 0..2000 {
            lab.at(ms(100 * number));
            lab.push(100);
            let came = lab.now - lab.began;
            delays.extend(lab.run(came + ms(99)).into_iter().map(|(_, at)| at - came));
        }
        let mean = delays.iter().sum::<Duration>() / 2000;
        assert!(delays.len() == 2000 && delays.iter().all(|delay| (least..=most).contains(delay)), "{words}");
        assert!(mean.abs_diff(ms(20)) < ms(20) / 20, "{words}: {mean:?}");
        assert!(delays.iter().collect::<BTreeSet<_>>().len() > 1900, "{words}");
        // Close together, order is kept.
        let mut lab = Lab::new(words);
        for number in 0..2000 {
            lab.at(Duration::from_micros(10 * number));
            lab.push(100);
        }
        let left = lab.run(SECOND);
        assert!(left.len() == 2000 && left.iter().map(|(id, _)| *id).is_sorted(), "{words}");
    }
}

#[test]
fn as_many_are_lost_as_is_said_and_a_seed_says_which() {
    let lost = |words: &str, seed| {
        let mut lab = Lab::seeded(words, seed);
        for _ in 0..100_000 {
            lab.push(60);
            lab.due();
        }
        std::iter::from_fn(|| lab.line.stock_mut().next_lost())
            .map(|(reason, transit)| (reason, transit.id))
            .collect::<Vec<_>>()
    };
    let first = lost("loss 1%", 7);
    assert!((950..=1050).contains(&first.len()), "{}", first.len());
    assert!(first.iter().all(|(reason, _)| *reason == DropReason::ImpairLoss));
    assert_eq!(lost("loss 1%", 7), first);
    assert_eq!(lost("delay 20ms jitter 5ms loss 1% duplicate 3% corrupt 2%", 7), first, "whatever else is said");
    assert_ne!(lost("loss 1%", 8), first);
    assert_eq!((lost("loss 0%", 7).len(), lost("loss 100%", 7).len()), (0, 100_000));
}

#[test]
fn bursts_have_their_mean_length_and_their_share() {
    for (words, share, length) in [
        ("loss burst 2% 5", 0.02, 5.0),
        ("loss burst 10% 1", 0.1, 1.0),
        ("loss burst 50% 20", 0.5, 20.0),
        // Bad for 1 / (1 + 9) of the time, and then all are lost.
        ("loss gemodel 1% 9%", 0.1, 11.1),
    ] {
        let mut lab = Lab::new(words);
        let mut runs = Vec::new();
        let mut last = 0;
        for _ in 0..400_000 {
            lab.push(60);
            lab.due();
            for (_, id) in lab.lost() {
                if id == last + 1 {
                    *runs.last_mut().unwrap() += 1
                } else {
                    runs.push(1_u32)
                }
                last = id;
            }
        }
        let lost = f64::from(runs.iter().sum::<u32>());
        let (found, mean) = (lost / 400_000.0, lost / runs.len() as f64);
        assert!((found / share - 1.0).abs() < 0.05, "{words}: {found}");
        assert!((mean / length - 1.0).abs() < 0.05, "{words}: {mean}");
    }
    let mut lab = Lab::new("loss gemodel 10% 10% 50% 1%");
    (0..200_000).for_each(|_| {
        lab.push(60);
        lab.due();
    });
    let found = lab.lost().len() as f64 / 200_000.0;
    assert!((found / 0.255 - 1.0).abs() < 0.05, "half of one state and a hundredth of the other: {found}");
}

#[test]
fn a_rate_holds_however_late_its_caller_comes() {
    for step in [Duration::from_micros(100), ms(7)] {
        let mut lab = Lab::new("rate 10mbit limit 64MiB");
        (0..1000).for_each(|_| lab.push(1250));
        let mut count = 0;
        for turn in 1..=u32::try_from(SECOND.as_micros() / step.as_micros()).unwrap() {
            lab.now = lab.began + step * turn;
            count += lab.due().len();
        }
        assert!((993..=1000).contains(&count), "a packet each millisecond: {count}");
    }
    let mut lab = Lab::new("rate 10mbit delay 30ms");
    lab.push(1250);
    lab.push(2500);
    assert_eq!(lab.run(SECOND), [(1, ms(31)), (2, ms(33))], "its own time on the wire, and the delay");
    lab.at(SECOND);
    lab.push(1250);
    assert_eq!(lab.run(2 * SECOND), [(3, ms(1031))], "quiet time is not saved up");
}

#[test]
fn what_finds_the_queue_full_is_dropped() {
    let mut lab = Lab::new("rate 10mbit limit 10kB");
    (0..20).for_each(|_| lab.push(1000));
    // One is being sent, and ten wait.
    assert_eq!(lab.lost(), (12..=20).map(|id| (DropReason::ImpairQueue, id)).collect::<Vec<_>>());
    lab.at(Duration::from_micros(800));
    lab.push(1000);
    assert_eq!(lab.lost(), [], "there is room again");
    assert_eq!(lab.run(SECOND).len(), 12);
    // Without a rate it is what is under way.
    let mut lab = Lab::new("delay 10ms limit 10kB");
    (0..20).for_each(|_| lab.push(1000));
    assert_eq!((lab.lost().len(), lab.run(SECOND).len()), (10, 10));
    // By default, the delay's worth at the rate is never dropped.
    let mut lab = Lab::new("rate 100mbit delay 500ms");
    (0..6000).for_each(|_| lab.push(1000));
    assert_eq!((lab.lost().len(), lab.run(9 * SECOND).len()), (0, 6000));
}

#[test]
fn what_a_line_keeps_is_bounded() {
    let mut lab = Lab::new("delay 60s");
    (0..400_000).for_each(|_| lab.push(60));
    let kept = u64::try_from(400_000 - lab.lost().len()).unwrap();
    assert!(kept * 188 <= Impairment::MOST_BYTES && (kept + 1) * 188 > Impairment::MOST_BYTES, "{kept}");
    assert_eq!(lab.run(61 * SECOND).len() as u64, kept);
    assert_eq!((lab.line.stock.held(), lab.line.flight.bytes(), lab.line.queue.bytes), (0, 0, 0));
}

#[test]
fn some_arrive_twice() {
    let mut lab = Lab::new("duplicate 10%");
    (0..10_000).for_each(|_| lab.push(60));
    let left = lab.due();
    let twice = left.windows(2).filter(|pair| pair[0] == pair[1]).count();
    assert!((950..=1050).contains(&twice) && left.len() == 10_000 + twice, "{twice}");
    assert_eq!(lab.line.take_treated(), Treated { duplicated: twice as u64, ..Treated::default() });
}

#[test]
fn some_overtake_the_others_and_those_stay_in_order() {
    let mut lab = Lab::new("delay 10ms reorder 25% gap 3");
    let mut left = Vec::new();
    for number in 0..3000 {
        lab.at(Duration::from_micros(100 * number));
        left.extend(lab.due());
        lab.push(60);
        let (ahead, at) = (lab.due(), lab.numbers);
        assert!(ahead.iter().filter(|id| **id == at).count() <= 1);
        left.extend(ahead);
    }
    left.extend(lab.run(SECOND).into_iter().map(|(id, _)| id));
    let mut highest = 0;
    let (mut late, mut early) = (Vec::new(), Vec::new());
    for id in left {
        if id < highest {
            late.push(id)
        } else {
            early.push(id)
        }
        highest = highest.max(id);
    }
    let reordered = lab.line.take_treated().reordered;
    assert!(late.is_sorted() && early.is_sorted() && late.len() + early.len() == 3000);
    // Two pass, and then each with a quarter: one in six.
    assert!((450..=550).contains(&reordered), "{reordered}");
    let mut every = Lab::new("delay 10ms reorder 100% gap 5");
    (0..20).for_each(|_| every.push(60));
    assert_eq!(every.due(), [5, 10, 15, 20]);
}

#[test]
fn a_damaged_packet_has_a_wrong_checksum() {
    for (six, tcp) in [(false, false), (false, true), (true, false), (true, true)] {
        let builder = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
        let builder = if six { builder.ipv6([1; 16], [2; 16], 9) } else { builder.ipv4([10, 0, 0, 1], [10, 0, 0, 2], 9) };
        let mut bytes = Vec::new();
        match tcp {
            true => builder.tcp(1, 2, 3, 4).write(&mut bytes, &[7; 200]).unwrap(),
            false => builder.udp(1, 2).write(&mut bytes, &[7; 200]).unwrap(),
        }
        assert_eq!(packet::checksum::examine(&bytes), packet::Checksum::Valid);
        let (start, offset) = (if six { 54 } else { 34 }, if tcp { 16 } else { 6 });
        // As a kernel leaves it to its network card: the pseudo header's sum is there.
        let field = usize::from(start + offset);
        let pseudo = packet::checksum::Sum::new().plus(&bytes[usize::from(start)..]).checksum();
        let mut partial = bytes.clone();
        partial[field..field + 2].copy_from_slice(&pseudo.to_be_bytes());
        let mut finished = partial.clone();
        packet::checksum::complete(&mut finished, start, offset).unwrap();
        assert_eq!(finished, bytes, "this is how it is left");

        let mut lab = Lab::new("corrupt 100%");
        for _ in 0..500 {
            let parts = [IoSlice::new(&partial)];
            let offload = Offload { checksum: packet::Checksum::Partial { start, offset }, gso: None };
            lab.line.push(&Packet { offload, ..Packet::whole(&parts) }, lab.now);
            let transit = lab.line.pop(lab.now).unwrap();
            let turned: u32 = bytes.iter().zip(&transit.bytes).map(|(one, other)| (one ^ other).count_ones()).sum();
            assert_eq!((turned, transit.offload), (1, Offload::default()));
            assert_eq!(packet::checksum::examine(&transit.bytes), packet::Checksum::Unverified);
            assert_eq!(transit.bytes[..usize::from(start)], bytes[..usize::from(start)]);
        }
        assert_eq!(lab.line.take_treated().corrupted, 500);
    }
    // What is not IP is damaged behind its Ethernet header, and what has nothing there is left alone.
    let mut lab = Lab::new("corrupt 100%");
    for length in [0, 5, 14, 15, 60] {
        lab.push(length);
        let transit = lab.line.pop(lab.now).unwrap();
        let turned: u32 = transit.bytes.iter().map(|byte| (byte ^ 0xaa).count_ones()).sum();
        assert_eq!(turned, u32::from(![0, 14].contains(&length)), "{length}");
    }
}

#[test]
fn a_line_that_flaps_is_down_at_the_end_of_each_period() {
    let mut lab = Lab::new("flap 2s every 10s");
    let mut passed = Vec::new();
    for second in 0..30 {
        lab.at(Duration::from_secs(second));
        assert_eq!(lab.line.foretell(100, lab.now).is_some(), second % 10 >= 8);
        lab.push(60);
        passed.extend(lab.due());
    }
    let up = (0..30).filter(|second| second % 10 < 8).map(|second| second + 1);
    assert_eq!(passed, up.collect::<Vec<_>>());
    assert!(lab.lost().iter().all(|(reason, _)| *reason == DropReason::ImpairFlap));
}

/// Offers twice the rate for ten seconds. Returns how long packets waited after the first two, what was lost, and what was marked.
fn overload(words: &str, bytes: &[u8]) -> (Vec<Duration>, usize, u64) {
    let mut lab = Lab::new(words);
    let (mut came, mut waits) = (Vec::new(), Vec::new());
    for number in 0..20_000_u32 {
        lab.at(Duration::from_micros(500) * number);
        came.push(lab.now - lab.began);
        lab.push_bytes(bytes);
        for id in lab.due() {
            let came = came[usize::try_from(id).unwrap() - 1];
            if came > 2 * SECOND {
                waits.push(lab.now - lab.began - came);
            }
        }
    }
    (waits, lab.lost().len(), lab.line.take_treated().marked)
}

#[test]
fn codel_keeps_the_queue_short_and_marks_what_can_be_marked() {
    let mut plain = Vec::new();
    let builder = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]).ipv4([10, 0, 0, 1], [10, 0, 0, 2], 9);
    builder.udp(1, 2).write(&mut plain, &[7; 1208]).unwrap();
    let mut capable = plain.clone();
    capable[15] = 0b10;
    let mean = |waits: &[Duration]| waits.iter().sum::<Duration>() / u32::try_from(waits.len()).unwrap();

    let (waits, lost, marked) = overload("rate 10mbit limit 1MB", &plain);
    assert!(mean(&waits) > ms(700) && marked == 0 && lost > 0, "a queue of 800 ms: {:?}", mean(&waits));
    // A sender that does not slow down is no match for CoDel: it drops more and more often, and does not get there in ten seconds.
    let (waits, lost, marked) = overload("rate 10mbit limit 1MB codel", &plain);
    assert!(lost > 100 && marked == 0 && !waits.is_empty());
    let (_, lost_of_capable, marked) = overload("rate 10mbit limit 64MiB codel ecn", &capable);
    assert!(lost_of_capable == 0 && marked > 100, "{lost_of_capable}, {marked}");
    let (_, lost, marked) = overload("rate 10mbit limit 64MiB codel ecn", &plain);
    assert!(lost > 100 && marked == 0, "{lost}, {marked}");
}

#[test]
fn a_change_keeps_what_is_under_way_and_its_order_and_letting_go_all_of_it() {
    let change = |lab: &mut Lab, words: &str| {
        let rules = words.parse().unwrap();
        lab.line.change(rules, 1, Direction::In, lab.now);
    };
    let mut lab = Lab::new("delay 100ms");
    (0..5).for_each(|_| lab.push(100));
    lab.at(ms(10));
    change(&mut lab, "delay 1ms");
    (0..5).for_each(|_| lab.push(100));
    assert_eq!(lab.run(SECOND), (1..=10).map(|id| (id, ms(100))).collect::<Vec<_>>());

    let mut lab = Lab::new("rate 8kbit delay 10ms");
    (0..5).for_each(|_| lab.push(100));
    change(&mut lab, "delay 20ms");
    lab.push(100);
    let left = lab.run(SECOND);
    assert!(left.iter().map(|(id, _)| *id).eq(1..=6) && left[5].1 < ms(200), "{left:?}");

    let mut lab = Lab::new("rate 8kbit delay 10s reorder 50%");
    (0..50).for_each(|_| lab.push(100));
    lab.line.let_go(lab.now);
    assert_eq!(lab.due().len(), 50);
    assert_eq!((lab.line.next(), lab.line.stock.held(), lab.line.flight.bytes(), lab.line.queue.bytes), (None, 0, 0, 0));
}

#[test]
fn directions_of_one_seed_lose_different_packets() {
    let now = Instant::now();
    let lost = |direction| {
        let mut line = Line::new("loss 50%".parse().unwrap(), 1, direction, now);
        let parts = [IoSlice::new(&[0; 60])];
        (0..64).for_each(|id| line.push(&Packet { id, ..Packet::whole(&parts) }, now));
        std::iter::from_fn(|| line.stock_mut().next_lost()).map(|(_, transit)| transit.id).collect::<Vec<_>>()
    };
    assert_ne!(lost(Direction::In), lost(Direction::Out));
}
