//! Shapers under a hand-moved clock.

use std::collections::BTreeMap;
use std::io::IoSlice;

use etherparse::PacketBuilder;
use proptest::prelude::*;

use super::*;

/// A shaper and its time.
struct Lab {
    shaper: Shaper,
    now: Instant,
    numbers: u64,
}

impl Lab {
    fn new(rate: &str) -> Self {
        let now = Instant::now();
        let limiter = Arc::new(Limiter::of_bytes(rate.parse().unwrap(), now));
        let mut lab = Self { shaper: Shaper::new(limiter, DropReason::SendRate, now), now, numbers: 0 };
        lab.exhaust();
        lab
    }

    /// What may pass at once has passed.
    fn exhaust(&mut self) {
        while self.shaper.passes(1000, self.now) {}
    }

    /// Sends a datagram of so many bytes as it would come to the port; its number, if it has to wait.
    fn send(&mut self, flow: u16, bytes: usize, class: u8) -> Option<u64> {
        let frame = datagram(flow, bytes, class);
        if self.shaper.passes(frame.len(), self.now) {
            return None;
        }
        self.numbers += 1;
        self.shaper.begin(&frame);
        let parts = [IoSlice::new(&frame)];
        self.shaper.push(&Packet { id: self.numbers, ingress: flow.into(), ..Packet::whole(&parts) }, self.now);
        Some(self.numbers)
    }

    fn flood(&mut self, flow: u16, bytes: usize, datagrams: usize) {
        (0..datagrams).for_each(|_| _ = self.send(flow, bytes, 0));
    }

    fn due(&mut self) -> Vec<Transit> {
        std::iter::from_fn(|| self.shaper.pop(self.now)).collect()
    }

    fn lost(&mut self) -> Vec<(DropReason, Transit)> {
        std::iter::from_fn(|| self.shaper.stock_mut().next_lost()).collect()
    }

    /// Lets `each` send once a millisecond for a time, and tells it what left and was lost.
    fn run(&mut self, time: Duration, mut each: impl FnMut(&mut Self, Vec<Transit>)) {
        let (end, mut tick) = (self.now + time, self.now);
        while self.now < end {
            self.now = self.shaper.next().map_or(tick, |next| next.clamp(self.now, tick));
            let due = self.due();
            each(self, due);
            if self.now == tick {
                tick += Duration::from_millis(1);
            }
        }
    }
}

fn datagram(flow: u16, bytes: usize, class: u8) -> Vec<u8> {
    let header = etherparse::Ipv4Header::new(8, 64, etherparse::IpNumber::UDP, [10, 0, 0, 1], [10, 0, 0, 2]).unwrap();
    let ip = etherparse::Ipv4Header { ecn: etherparse::IpEcn::try_new(class).unwrap(), ..header };
    let builder = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
        .ip(etherparse::IpHeaders::Ipv4(ip, Default::default()));
    let mut frame = Vec::new();
    builder.udp(flow, 9).write(&mut frame, &vec![0; bytes.saturating_sub(42)]).unwrap();
    frame
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_flood_gets_the_rate_and_a_ping_beside_it_waits_for_little_more_than_a_packet() {
    for (rate, bytes) in [("10mbit", 1_250_000), ("1mbit", 125_000), ("100mbit", 12_500_000), ("2gbit", 250_000_000)] {
        let mut lab = Lab::new(rate);
        let (mut left, mut waits, mut sent, mut bulk) = (0, Vec::new(), None, 0);
        lab.run(SECOND, |lab, due| {
            left += due.iter().map(|transit| transit.bytes.len()).sum::<usize>();
            if let Some((number, at)) = sent
                && due.iter().any(|transit| transit.id == number)
            {
                waits.push(lab.now - at);
                sent = None;
            }
            // As much again as fits.
            while lab.shaper.stock().held() + 3000 < usize::try_from(lab.shaper.bounds.held).unwrap() {
                bulk += usize::from(lab.send(1, 1514, 0).is_none()) * 1514;
            }
            if sent.is_none() {
                sent = lab.send(2, 98, 0).map(|number| (number, lab.now));
            }
        });
        let all = (left + bulk) as f64 / f64::from(bytes);
        assert!((0.98..1.03).contains(&all), "{rate}: {all}");
        let most = waits.iter().max().unwrap();
        let packet = Duration::from_secs_f64(1514.0 / f64::from(bytes));
        assert!(waits.len() > 40 && *most <= packet * 2 + Duration::from_millis(1), "{rate}: {} of {most:?}", waits.len());
    }
}

#[test]
fn flows_share_the_rate_whatever_the_length_of_their_packets_and_how_much_they_send() {
    let mut lab = Lab::new("10mbit");
    let mut left = BTreeMap::<u32, usize>::new();
    lab.run(SECOND * 2, |lab, due| {
        due.into_iter().for_each(|transit| *left.entry(transit.ingress).or_default() += transit.bytes.len());
        lab.flood(1, 1514, 4);
        lab.flood(2, 90, 40);
        lab.send(3, 1000, 0);
    });
    let share = 2_500_000.0 / 3.0;
    assert!(left.values().all(|bytes| (0.9..1.1).contains(&(*bytes as f64 / share))), "{left:?}");
}

#[test]
fn flows_with_a_few_packets_under_way_each_lose_none_and_many_flows_do_not_switch_codel_off() {
    for (flows, loses) in [(4, false), (100, true)] {
        let mut lab = Lab::new("20mbit");
        (1..=flows).for_each(|flow| lab.flood(flow, 1514, 6));
        lab.run(SECOND * 3, |lab, due| {
            due.into_iter().for_each(|transit| _ = lab.send(u16::try_from(transit.ingress).unwrap(), 1514, 0));
        });
        assert_eq!(!lab.lost().is_empty(), loses, "{flows}");
    }
}

#[test]
fn what_is_too_much_is_taken_from_the_longest_queue_and_all_is_accounted_for() {
    let mut lab = Lab::new("1mbit");
    let few: Vec<u64> = (0..50).filter_map(|_| lab.send(1, 200, 0)).collect();
    for _ in 0..5000 {
        lab.send(2, 1000, 0);
        assert!(lab.shaper.queue.cost() as u64 <= LEAST_HELD);
    }
    let lost = lab.lost();
    assert!(lost.len() > 4000 && lost.iter().all(|(reason, transit)| *reason == DropReason::SendRate && transit.ingress == 2));
    assert_eq!(lab.shaper.stock().held(), lab.shaper.queue.cost());
    let full = |lab: &Lab, flow| lab.shaper.foretell(&datagram(flow, 1000, 0), lab.now);
    while lab.shaper.stock().held() as u64 + 1100 < lab.shaper.bounds.held {
        lab.send(2, 1000, 0);
    }
    assert_eq!((full(&lab, 2), full(&lab, 1).is_ok()), (Err(DropReason::SendRate), true));
    lab.shaper.let_go(lab.now);
    let left = lab.due();
    assert_eq!(left.iter().filter(|transit| transit.ingress == 1).map(|transit| transit.id).collect::<Vec<_>>(), few);
    assert_eq!((left.len() + lost.len()) as u64, lab.numbers);
    assert_eq!((lab.shaper.stock().held(), lab.shaper.next()), (0, None));
}

#[test]
fn a_queue_that_stays_long_is_marked_where_its_flow_knows_marks_and_else_loses_packets() {
    for class in [0, 2] {
        let mut lab = Lab::new("10mbit");
        let (mut marks, mut lost) = (0, 0);
        lab.run(SECOND * 2, |lab, due| {
            marks += due.iter().filter(|transit| transit.bytes[15] & 3 == 3).count();
            lost += lab.lost().len();
            // 50 packets wait at any time: 60 ms.
            while lab.shaper.stock().held() < 50 * 1642 {
                lab.send(1, 1514, class);
            }
        });
        let treated = lab.shaper.take_treated();
        let (told, other) = if class == 2 { (marks, lost) } else { (lost, marks) };
        assert!(told > 20 && other == 0 && treated.marked == marks as u64, "class {class}: {marks} marks, {lost} lost");
    }
}

#[test]
fn a_short_queue_loses_nothing() {
    let mut lab = Lab::new("1mbit");
    lab.run(SECOND * 2, |lab, _| {
        if lab.shaper.stock().held() < 2000 {
            lab.send(1, 1514, 0);
        }
    });
    assert_eq!(lab.lost(), [], "two packets are more than CoDel's 5 ms at this rate");
}

#[test]
fn another_rate_holds_for_what_waits_already_and_none_lets_it_go() {
    let mut lab = Lab::new("1mbit");
    lab.flood(1, 1514, 100);
    let faster = Arc::new(Limiter::of_bytes("100mbit".parse().unwrap(), lab.now));
    while faster.wait(1514, lab.now).is_zero() {
        faster.charge(1514, lab.now);
    }
    lab.shaper.change(&faster, lab.now);
    let mut left = 0;
    lab.run(Duration::from_millis(13), |_, due| left += due.len());
    assert!((95..=100).contains(&left), "{left}: 12 ms' worth");
    lab.flood(1, 1514, 100);
    lab.shaper.let_go(lab.now);
    assert!(lab.send(1, 1514, 0).is_some(), "what comes now goes behind");
    assert!(lab.due().len() > 90 && lab.shaper.ends() && lab.send(1, 1514, 0).is_none());
    assert_eq!(lab.lost(), []);
    lab.shaper.change(&faster, lab.now);
    lab.shaper.open(lab.now);
    lab.exhaust();
    assert!(lab.send(1, 1514, 0).is_some() && lab.due().is_empty(), "a rate that is kept holds again");
}

proptest! {
    #[test]
    fn every_packet_leaves_once_or_is_lost_once_and_each_flow_keeps_its_order(
        steps in prop::collection::vec((0_u16..5, 60_usize..1514, 0_u64..3000), 1..400),
        rate in prop::sample::select(vec!["100kbit", "3mbit", "1gbit"]),
    ) {
        let mut lab = Lab::new(rate);
        let (mut seen, mut last) = (vec![], BTreeMap::new());
        for (flow, bytes, wait) in steps {
            lab.send(flow, bytes, 0);
            lab.now += Duration::from_micros(wait);
            seen.extend(lab.due());
        }
        lab.shaper.let_go(lab.now);
        seen.extend(lab.due());
        for transit in &seen {
            let before = last.insert(transit.ingress, transit.id);
            prop_assert!(before.is_none_or(|before| before < transit.id));
        }
        let mut numbers: Vec<u64> = seen.iter().map(|transit| transit.id).chain(lab.lost().iter().map(|(_, lost)| lost.id)).collect();
        numbers.sort_unstable();
        prop_assert_eq!(numbers, (1..=lab.numbers).collect::<Vec<_>>());
        prop_assert_eq!(lab.shaper.stock().held(), 0);
    }
}
