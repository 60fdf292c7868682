//! Limits hold for all workers together, and outlive changes that do not concern them.

use api::{FrameRate, PortPolicy};

use super::*;

/// Frames a second.
const LIMIT: u32 = 100;

/// What port 0, whose frames are spread over all workers, may flood.
fn limited(protected: bool) -> PortSettings {
    let policy = PortPolicy { broadcast_limit: FrameRate::new(LIMIT), protected, ..PortPolicy::default() };
    PortSettings::on(BridgeId(0)).under(policy, Instant::now())
}

/// Floods so many frames by port 0, over all workers; says how many may have passed at most since `began`.
fn flood(plane: &Plane, frames: usize, began: Instant) -> u64 {
    for number in 0..frames {
        let far = &plane.far[0][number % plane.workers.len()];
        while !far.push(&frame(1, Mac::BROADCAST), Offload::default()) {}
    }
    plane.settle(&[0]);
    plane.far[1].iter().for_each(|far| drop(far.drain()));
    let gained = began.elapsed().as_millis() * u128::from(LIMIT) / 1000;
    u64::from(LIMIT) + u64::try_from(gained).unwrap() + 1
}

#[test]
fn a_broadcast_limit_holds_whatever_workers_the_frames_are_on() {
    for workers in [1, 2, 4] {
        let plane = Plane::new(workers, 2);
        let (settings, began) = (limited(false), Instant::now());
        plane.tell(|| Command::SetPort(PortId(0), settings.clone()));
        let most = flood(&plane, 1600, began);
        let (passed, dropped) = (plane.counters(1).tx_frames, plane.counters(0).drops(DropReason::StormLimit));
        assert!((u64::from(LIMIT)..=most).contains(&passed), "{passed} of at most {most}, {workers} workers");
        assert_eq!(passed + dropped, 1600);
    }
}

#[test]
fn a_change_of_a_port_that_does_not_concern_its_limit_leaves_what_was_used_of_it() {
    for workers in [1, 2, 4] {
        let plane = Plane::new(workers, 2);
        let began = Instant::now();
        let mut most = 0;
        for turn in 0..15 {
            // Each change brings limiters of its own.
            let settings = limited(turn % 2 == 1);
            plane.tell(|| Command::SetPort(PortId(0), settings.clone()));
            most = flood(&plane, 200, began);
        }
        let passed = plane.counters(1).tx_frames;
        assert!(passed <= most, "{passed} of at most {most}, {workers} workers");
        let policy = PortPolicy { broadcast_limit: FrameRate::new(7), ..PortPolicy::default() };
        let other = PortSettings::on(BridgeId(0)).under(policy, Instant::now());
        plane.tell(|| Command::SetPort(PortId(0), other.clone()));
        flood(&plane, 200, began);
        assert!(plane.counters(1).tx_frames >= passed + 7, "another limit begins anew");
    }
}

#[test]
fn no_worker_knows_more_addresses_than_the_bridge_may_whatever_workers_they_came_by() {
    for workers in [1, 2, 4] {
        let plane = Plane::new(workers, 2);
        for (number, far) in (0..1000_u32).zip((0..workers).cycle()) {
            let mut bytes = frame(1, Mac::BROADCAST);
            bytes[8..12].copy_from_slice(&number.to_be_bytes());
            while !plane.far[0][far].push(&bytes, Offload::default()) {}
        }
        plane.settle(&[0]);
        for (number, worker) in plane.workers.iter().enumerate() {
            let table = worker.ask(|reply| Command::Fdb(BridgeId(0), reply)).unwrap();
            assert_eq!(table.rows.len(), 100, "worker {number} of {workers}");
            // What another worker learns too fast to be told does not reach this one.
            let put_out = table.evictions;
            assert!(put_out <= 900 && (put_out == 900 || workers > 1), "worker {number} of {workers}: {put_out}");
        }
    }
}
