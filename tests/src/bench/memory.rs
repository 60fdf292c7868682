//! What a station's address and a session take of a switch's memory, by real frames: the growth of what is resident.

use std::time::{Duration, Instant};

use super::contender::Place;
use super::measure::{Figures, Measure, Metric};
use super::sessions;
use crate::wire::{Wire, frame};

/// Memory of an address that was learned.
pub(crate) static PER_MAC: Measure =
    fresh("mac-memory", &[Metric { name: "memory per MAC, B", less: true }], |place, _| per_mac(place));
/// Memory of a session.
pub(crate) static PER_SESSION: Measure = fresh("session-memory", &[SESSION], |place, _| per_session(place, 12_000));
/// Memory of a session that is a socket.
pub(crate) static PER_SESSION_OF_SOCKETS: Measure =
    fresh("session-memory", &[SESSION], |place, _| per_session(place, sessions::FEW));

const SESSION: Metric = Metric { name: "memory per session, B", less: true };

const fn fresh(name: &'static str, metrics: &'static [Metric], run: fn(&Place, u64) -> Figures) -> Measure {
    Measure { name, metrics, rounds: 1, run }
}

fn per_mac(place: &Place) -> Figures {
    let (Some(before), Some(known)) = (place.memory(), place.known_macs) else { return vec![None] };
    let (lab, netns) = place.from();
    let wire = Wire::open(lab, netns);
    for number in 0..MACS {
        let [_, a, b, c] = number.to_be_bytes();
        let source = [0x02, 0x54, 1, a, b, c];
        // To an address that no station has: it is flooded, and the other station does not answer.
        wire.send(&frame([0x02, 0x54, 2, 0, 0, 0], source, &[0x88, 0xb5], &[]));
        // What a burst overruns is not learned.
        if number % 64 == 63 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    let memory = settled(place);
    let known = known(lab);
    assert!(known >= ENOUGH_MACS, "it learned only {known} of {MACS} addresses");
    vec![Some((memory - before) / known as f64)]
}

fn per_session(place: &Place, count: u16) -> Figures {
    let Some(before) = place.memory() else { return vec![None] };
    let opened = sessions::open(place, count);
    vec![Some((settled(place) - before) / f64::from(opened.sessions))]
}

/// The memory when it grows no more.
fn settled(place: &Place) -> f64 {
    let begun = Instant::now();
    let mut last = place.memory();
    loop {
        std::thread::sleep(Duration::from_millis(300));
        let now = place.memory();
        if now == last || begun.elapsed() > Duration::from_secs(5) {
            return now.unwrap_or(0.0);
        }
        last = now;
    }
}

const MACS: u32 = 10_000;
/// A switch that is busy may miss some.
const ENOUGH_MACS: usize = 5000;
