//! A contender, which takes part in a comparison, and a place where it runs.

use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use super::process;
use crate::lab::Lab;

/// A switch, router or tunnel that can be measured.
pub(crate) struct Contender {
    /// What it is called in tables.
    pub(crate) name: &'static str,
    /// Programs that it needs, each with the package that has it.
    pub(crate) needs: &'static [Need],
    /// The measures that it takes part in; `None`: all of its path.
    pub(crate) only: Option<&'static [&'static str]>,
    /// Starts it, with stations that reach each other.
    pub(crate) open: fn() -> Place,
}

/// A program that a contender needs.
#[derive(Clone, Copy)]
pub(crate) struct Need {
    /// Its name on the path.
    pub(crate) tool: &'static str,
    /// The package of Debian and Ubuntu that has it.
    pub(crate) package: &'static str,
}

/// A station: a namespace of the lab with this number.
pub(crate) type Station = (usize, &'static str);

/// Where a contender runs: labs, two stations, and the processes that carry the traffic.
pub(crate) struct Place {
    labs: Vec<Lab>,
    from: Station,
    to: Station,
    /// The address at which `from` reaches `to`.
    pub(crate) address: &'static str,
    /// The processes of the contender; none where it is the kernel.
    pub(crate) switch: Vec<u32>,
    /// How many stations' addresses it knows, where it can be asked.
    pub(crate) known_macs: Option<fn(&Lab) -> usize>,
    turn: AtomicU16,
}

impl Place {
    /// A place of one lab. Waits until the stations reach each other.
    ///
    /// # Panics
    /// If they do not within a minute.
    pub(crate) fn new(lab: Lab, (from, to): (&'static str, &'static str), address: &'static str, switch: Vec<u32>) -> Self {
        Self::across(vec![lab], ((0, from), (0, to)), address, switch)
    }

    /// As [`Place::new`] with stations that may be in different labs.
    ///
    /// # Panics
    /// If they do not reach each other within a minute.
    pub(crate) fn across(labs: Vec<Lab>, (from, to): (Station, Station), address: &'static str, switch: Vec<u32>) -> Self {
        let place = Self { labs, from, to, address, switch, known_macs: None, turn: AtomicU16::new(0) };
        let (lab, netns) = place.from();
        lab.until("the stations reach each other", |lab| crate::ping(lab, netns, address));
        place
    }

    /// The station that sends.
    pub(crate) fn from(&self) -> (&Lab, &str) {
        (&self.labs[self.from.0], self.from.1)
    }

    /// The station that it sends to.
    pub(crate) fn to(&self) -> (&Lab, &str) {
        (&self.labs[self.to.0], self.to.1)
    }

    /// A UDP port that no earlier measurement in this place used, so that no session is left of it.
    pub(crate) fn fresh_port(&self) -> u16 {
        9000 + self.turn.fetch_add(1, Ordering::Relaxed) % 20_000
    }

    /// CPU time that the contender has used so far; `None` where it is the kernel.
    ///
    /// # Panics
    /// If one of its processes has ended.
    pub(crate) fn cpu(&self) -> Option<Duration> {
        (!self.switch.is_empty()).then(|| self.switch.iter().map(|pid| process::cpu(*pid)).sum())
    }

    /// Memory of the contender, bytes that are resident; `None` where it is the kernel.
    ///
    /// # Panics
    /// If one of its processes has ended.
    pub(crate) fn memory(&self) -> Option<f64> {
        (!self.switch.is_empty()).then(|| self.switch.iter().map(|pid| process::resident(*pid)).sum())
    }
}
