//! A switch that lives for hours: traffic by every kind of way, changes without end, and what it holds, once a minute.
//!
//! In the first quarter it is also reloaded, upgraded and killed. From then on one process lives through all the rest, and what that process holds
//! late is compared with what it held early: that is what a leak is seen by.

mod place;
mod report;

use std::time::{Duration, Instant};

use crate::interrupt::interrupted;
use crate::{Footprint, Lab, median};
use place::Traffic;

pub use report::{Report, Sample, drifts, plot, table};

/// Between two samples.
const MINUTE: Duration = Duration::from_secs(60);

/// Changes that leave things as they were when all are made.
const ROUND: [&str; 14] = [
    "add-port br0 t1 --netns @t1 --address 10.0.0.101/24",
    "add-port br0 t2 --netns @t2 --kind veth --address 10.0.0.102/24 --vlan 7",
    "set-port a --receive-rate 900mbit",
    "add-forward wan tcp/8080 10.0.0.2:80",
    "add-br br9 --address 10.9.0.1/24 --dhcp",
    "add-route br0 10.99.0.0/16 via 10.0.0.1",
    "set-port t2 --vlan 8",
    "set-port a --receive-rate none",
    "del-route br0 10.99.0.0/16",
    "del-forward wan tcp/8080",
    "del-br br9",
    "fdb br0 --flush",
    "del-port t1",
    "del-port t2",
];

/// A place with a switch, its stations and their traffic.
pub struct Soak {
    lab: Lab,
    traffic: Traffic,
    changes: u64,
    /// How often another process took over, and how often it was killed.
    upgrades: u32,
    crashes: u32,
}

impl Soak {
    /// Starts everything.
    ///
    /// # Panics
    /// If something does not come up.
    pub fn begin() -> Self {
        let mut lab = place::lab();
        let traffic = Traffic::begin(&mut lab);
        Self { lab, traffic, changes: 0, upgrades: 0, crashes: 0 }
    }

    /// Lives for so long, or until it is interrupted, with a change at each `beat` or as soon as the one before is made.
    ///
    /// # Panics
    /// If the switch does not do what it is told.
    pub fn run(mut self, duration: Duration, beat: Duration) -> Report {
        let (begun, turbulent) = (Instant::now(), duration / 4);
        let mut samples = Vec::new();
        let (mut next, mut events) = (begun + MINUTE, 0_u32);
        while begun.elapsed() < duration && !interrupted() {
            let turn = Instant::now();
            self.change();
            // Eight events, in the first quarter, each between two rounds of changes: a reload takes back what was changed of the file's.
            if self.is_between_rounds() && begun.elapsed() < turbulent && begun.elapsed() > turbulent * events / 8 {
                self.event(events);
                events += 1;
            }
            // Ports that come and go would make figures of their own.
            if Instant::now() >= next && self.is_between_rounds() {
                next += MINUTE;
                let sample = self.sample(begun.elapsed());
                eprintln!("{}", report::line(&sample));
                samples.push(sample);
            }
            std::thread::sleep(beat.saturating_sub(turn.elapsed()));
        }
        let lived = begun.elapsed();
        while !self.is_between_rounds() {
            self.change();
        }
        let cut = Traffic::cut(&self.lab, self.crashes);
        let left = place::left(&self.lab);
        Report { samples, lived, turbulent, changes: self.changes, upgrades: self.upgrades, crashes: self.crashes, cut, left }
    }

    fn is_between_rounds(&self) -> bool {
        self.changes.is_multiple_of(ROUND.len() as u64)
    }

    /// Makes the next change of a round.
    fn change(&mut self) {
        let words = ROUND[usize::try_from(self.changes).unwrap_or_default() % ROUND.len()];
        self.changes += 1;
        self.lab.ctl(words).ok();
    }

    fn event(&mut self, number: u32) {
        match number % 4 {
            0 | 2 => drop(self.lab.ctl("reload").ok()),
            1 => {
                self.lab.take_over();
                self.upgrades += 1;
            }
            _ => {
                self.lab.kill();
                self.lab.start();
                self.crashes += 1;
            }
        }
    }

    fn sample(&mut self, since: Duration) -> Sample {
        let round_trips = self.traffic.round_trips(&self.lab).map(|mut times| {
            times.sort_by(f64::total_cmp);
            let late = times.get(times.len() * 99 / 100).copied().unwrap_or(f64::NAN);
            (if times.is_empty() { f64::NAN } else { median(times) }, late)
        });
        Sample { since, held: Footprint::of(&self.lab), round_trips }
    }
}
