//! `send-rate` and `receive-rate` between stations and workers whose clock the test moves.

use api::PortPolicy;

use super::still::Still;
use super::*;
use crate::datapath::{Place, Step};

/// The policy of a port with these rates.
fn rates(send: Option<&str>, receive: Option<&str>) -> PortPolicy {
    let rate = |text: Option<&str>| text.map(|text| text.parse().unwrap());
    PortPolicy { send_rate: rate(send), receive_rate: rate(receive), ..PortPolicy::default() }
}

/// Sends so many frames of `bytes` by port 0, spread over all workers, in batches.
fn flood(still: &mut Still, frames: usize, bytes: usize) {
    for number in 0..frames {
        let workers = still.workers.len();
        let mut frame = frame(1, Mac::BROADCAST);
        frame.resize(bytes, 0);
        assert!(still.far[0][number % workers].push(&frame, Offload::default()));
        if number % 64 == 63 {
            let elapsed = still.now - still.began;
            still.work(elapsed);
        }
    }
    let elapsed = still.now - still.began;
    still.work(elapsed);
}

#[test]
fn a_rate_holds_for_all_workers_together_and_what_is_too_much_waits_or_is_counted() {
    for workers in [1, 2, 4] {
        for (send, receive) in [(Some("8mbit"), None), (None, Some("8mbit"))] {
            let mut still = Still::new(workers);
            still.hold(0, rates(send, None));
            still.hold(1, rates(None, receive));
            flood(&mut still, 4000, 1000);
            let reason = if send.is_some() { DropReason::SendRate } else { DropReason::ReceiveRate };
            let dropped = |still: &Still| still.counters(0).drops(reason) + still.counters(1).drops(reason);
            assert_eq!(still.drain(1).len(), 131, "128 KiB pass at once, {workers} workers");
            let waiting = 4000 - 131 - dropped(&still);
            // 400 kB for each worker, but for what was taken at once of a queue that was full.
            assert!((288..=356).contains(&(waiting / workers as u64)), "{waiting}");
            let second = Duration::from_millis(200);
            let began = still.now - still.began;
            for step in 0..=200 {
                still.work(began + second * step / 200);
            }
            let passed = still.drain(1).len();
            assert!((180..=202).contains(&passed), "{passed} in 200 ms at 1000 a second, {workers} workers");
            still.run();
            let treated = [still.counters(0).shaped[0], still.counters(1).shaped[1]];
            let left = 131 + passed + still.drain(1).len();
            assert_eq!(left as u64 + dropped(&still), 4000, "{workers} workers");
            assert_eq!(treated.iter().map(|treated| treated.delayed).sum::<u64>(), left as u64 - 131);
            assert_eq!(still.counters(0).rx_frames, 4000);
            assert_eq!(still.counters(1).tx_frames, left as u64);
        }
    }
}

#[test]
fn what_waits_is_let_go_without_a_rate_and_lost_where_the_port_is_unplugged() {
    for workers in [1, 2] {
        let mut still = Still::new(workers);
        still.hold(1, rates(None, Some("8mbit")));
        flood(&mut still, 300, 1000);
        assert_eq!(still.drain(1).len(), 131);
        still.hold(1, rates(None, None));
        let elapsed = still.now - still.began;
        still.work(elapsed);
        assert_eq!(still.drain(1).len(), 169, "{workers} workers");
        flood(&mut still, 100, 1000);
        assert_eq!(still.drain(1).len(), 100);
        assert!(still.workers.iter().all(|worker| !worker.stops.any()), "nothing is left of it");

        still.hold(0, rates(Some("8mbit"), None));
        flood(&mut still, 300, 1000);
        still.hold(0, PortPolicy { down: true, ..rates(Some("8mbit"), None) });
        let elapsed = still.now - still.began;
        still.work(elapsed);
        assert_eq!((still.drain(1).len(), still.counters(0).drops(DropReason::PortDown)), (131, 169));
    }
}

#[test]
fn what_waits_for_a_rate_goes_on_when_the_worker_is_to_stand_still() {
    let mut still = Still::new(2);
    still.hold(1, rates(None, Some("8mbit")));
    flood(&mut still, 300, 1000);
    for worker in &mut still.workers {
        let (reply, answer) = crossbeam_channel::bounded(1);
        worker.execute(Command::Pause(reply), still.now);
        answer.recv().unwrap();
    }
    assert_eq!(still.drain(1).len(), 300);
    still.workers.iter_mut().for_each(|worker| worker.execute(Command::Resume, still.now));
    flood(&mut still, 300, 1000);
    assert!(still.drain(1).is_empty(), "the rate holds again");
}

#[test]
fn however_much_waits_for_both_rates_goes_on_when_the_worker_is_to_stand_still() {
    let mut still = Still::new(1);
    still.hold(0, rates(Some("100mbit"), None));
    still.hold(1, rates(None, Some("100mbit")));
    // 250 KB pass at once, 2.5 MB wait at most.
    flood(&mut still, 12_000, 100);
    let (reply, _answer) = crossbeam_channel::bounded(1);
    let passed = still.drain(1).len();
    still.workers[0].execute(Command::Pause(reply), still.now);
    let let_go = still.drain(1).len();
    let lost = still.counters(0).drops(DropReason::SendRate) + still.counters(1).drops(DropReason::ReceiveRate);
    assert!(let_go > 5000, "{let_go}");
    assert_eq!((passed + let_go) as u64 + lost, 12_000);
}

#[test]
fn an_impaired_line_and_a_rate_come_one_after_the_other() {
    for workers in [1, 2] {
        let mut still = Still::new(workers);
        for port in 0..2 {
            let impair = serde_json::from_str(r#"{ "in": "delay 50ms", "out": "delay 50ms" }"#).unwrap();
            still.hold(port, PortPolicy { impair, ..rates(Some("8mbit"), Some("8mbit")) });
        }
        flood(&mut still, 300, 1000);
        still.run();
        let (from, to) = (still.counters(0), still.counters(1));
        // CoDel shortens what waits longer than 100 ms.
        let (lost, left) = (from.drops(DropReason::SendRate), still.drain(1).len() as u64);
        assert!(lost < 10 && left + lost == 300, "{left} left, {lost} were lost");
        assert_eq!((from.impaired[0].delayed, from.shaped[0].delayed, to.impaired[1].delayed), (300, 169 - lost, left));
        let took = still.now - still.began;
        assert!((260..275).contains(&took.as_millis()), "{took:?}: 100 ms, and 169 packets at 1000 a second");
    }
}

#[test]
fn a_rate_is_foretold_with_the_time_that_a_frame_waits() {
    let mut still = Still::new(1);
    still.hold(0, rates(Some("8mbit"), None));
    still.hold(1, rates(None, Some("8mbit")));
    let told = |still: &mut Still| {
        let place = Place::from(PortId(0));
        let mut frame = frame(1, Mac::BROADCAST);
        frame.resize(1000, 0);
        let foretold = still.workers[0].foretell(place, (&frame, Offload::default()), still.now).unwrap();
        let waits = foretold.steps.iter().filter_map(|(_, step)| match step {
            Step::Shaped { port, wait, .. } => Some((port.0, wait.as_micros())),
            _ => None,
        });
        (waits.collect::<Vec<_>>(), foretold.fate.drop_reason())
    };
    assert_eq!(told(&mut still), (vec![(0, 0), (1, 0)], None));
    flood(&mut still, 200, 1000);
    let (waits, reason) = told(&mut still);
    assert!(reason.is_none() && waits[0].1 > 0 && waits[1].1 > 0, "{waits:?}");
    flood(&mut still, 285, 1000);
    assert_eq!(told(&mut still).1, Some(DropReason::SendRate));
    let before = still.counters(0);
    told(&mut still);
    assert_eq!(still.counters(0), before, "nothing changes");
}
