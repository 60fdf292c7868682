//! Where packets of a port may have to wait on their way: its impaired lines ([`crate::impair`]) and what holds it to its rates ([`crate::shape`]), as
//! one worker knows them. `waiting` lets packets in and out.

use std::sync::Arc;
use std::time::{Duration, Instant};

use api::{Impair, Impairment};
use packet::Batch;

use super::timer::Timer;
use crate::capture::Direction;
use crate::datapath::{DropReason, Limiter, PortId, PortLimits, Slots};
use crate::impair::Line;
use crate::shape::Shaper;
use crate::transit::Stage;

/// How soon before a packet is due the worker does not sleep any more: about what a wake-up takes.
const WAKE_UP: Duration = Duration::from_micros(50);

/// Where packets of a port may have to wait, in the order in which they come there. A line is between the station and its port; a rate is the port's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// The impaired line of what the station sends.
    LineIn,
    /// The `send-rate`.
    RateIn,
    /// The `receive-rate`.
    RateOut,
    /// The impaired line of what the station receives.
    LineOut,
}

impl Stop {
    const ALL: [Self; 4] = [Self::LineIn, Self::RateIn, Self::RateOut, Self::LineOut];

    /// The line of a direction.
    pub(super) const fn line(direction: Direction) -> Self {
        match direction {
            Direction::In => Self::LineIn,
            Direction::Out => Self::LineOut,
        }
    }

    /// What packets are held to on their way in this direction first.
    pub(super) const fn first(direction: Direction) -> Self {
        match direction {
            Direction::In => Self::LineIn,
            Direction::Out => Self::RateOut,
        }
    }

    /// Which way packets go here.
    pub(super) const fn direction(self) -> Direction {
        match self {
            Self::LineIn | Self::RateIn => Direction::In,
            Self::RateOut | Self::LineOut => Direction::Out,
        }
    }

    /// Whether it is an impaired line.
    pub(super) const fn is_line(self) -> bool {
        matches!(self, Self::LineIn | Self::LineOut)
    }

    /// Where packets come next, on the same side of the switch.
    pub(super) const fn next(self) -> Option<Self> {
        match self {
            Self::LineIn => Some(Self::RateIn),
            Self::RateOut => Some(Self::LineOut),
            Self::RateIn | Self::LineOut => None,
        }
    }
}

/// Where packets wait, of all ports.
pub(super) struct Stops {
    /// Wakes the worker when the first packet is due.
    timer: Timer,
    ports: Slots<Ways>,
    /// Whether any port has any.
    any: bool,
    /// Whether any port has one for what comes in.
    any_in: bool,
    /// Whether any is taken away, and not yet empty.
    any_ends: bool,
    /// When the first packet in any of them is due, or earlier.
    next: Option<Instant>,
    /// What goes on from them towards a device.
    pub(super) batch: Batch,
}

/// What a port has, by [`Stop`].
#[derive(Default)]
struct Ways([Option<Way>; 4]);

enum Way {
    Line(Box<Line>),
    Shaper(Box<Shaper>),
    /// A line that the worker that routes has.
    WithRouter,
}

impl Way {
    fn stage(&self) -> Option<&dyn Stage> {
        match self {
            Self::Line(line) => Some(&**line),
            Self::Shaper(shaper) => Some(&**shaper),
            Self::WithRouter => None,
        }
    }

    fn stage_mut(&mut self) -> Option<&mut dyn Stage> {
        match self {
            Self::Line(line) => Some(&mut **line),
            Self::Shaper(shaper) => Some(&mut **shaper),
            Self::WithRouter => None,
        }
    }
}

impl Stops {
    /// None yet.
    pub(super) fn new(timer: Timer) -> Self {
        Self { timer, ports: Slots::default(), any: false, any_in: false, any_ends: false, next: None, batch: Batch::new() }
    }

    /// Whether any port has any.
    pub(super) const fn any(&self) -> bool {
        self.any
    }

    /// Whether any port has one for what comes in.
    pub(super) const fn any_in(&self) -> bool {
        self.any_in
    }

    /// Whether a port has any for what leaves.
    pub(super) fn any_out(&self, port: PortId) -> bool {
        self.any && (self.has(port, Stop::RateOut) || self.has(port, Stop::LineOut))
    }

    /// Whether a port has this one.
    pub(super) fn has(&self, port: PortId, stop: Stop) -> bool {
        self.ports.get(port.0).is_some_and(|ways| ways.0[stop as usize].is_some())
    }

    fn way(&mut self, port: PortId, stop: Stop) -> Option<&mut Way> {
        self.ports.get_mut(port.0)?.0[stop as usize].as_mut()
    }

    /// One of those of a port, if this worker has it.
    pub(super) fn stage(&mut self, port: PortId, stop: Stop) -> Option<&mut dyn Stage> {
        self.way(port, stop)?.stage_mut()
    }

    /// The line of a port, if this worker has it.
    pub(super) fn line(&mut self, port: PortId, direction: Direction) -> Option<&mut Line> {
        match self.way(port, Stop::line(direction))? {
            Way::Line(line) => Some(line),
            _ => None,
        }
    }

    /// What holds a port to its rate in this direction.
    pub(super) fn shaper(&self, port: PortId, direction: Direction) -> Option<&Shaper> {
        let stop = if direction == Direction::In { Stop::RateIn } else { Stop::RateOut };
        match self.ports.get(port.0)?.0[stop as usize].as_ref()? {
            Way::Shaper(shaper) => Some(shaper),
            _ => None,
        }
    }

    /// Where a frame has to wait, from this place on; `None`: it goes on. A rate counts what passes it.
    ///
    /// Without the hellos of spanning trees, which no rate keeps waiting, a neighbour would take a link for free and open a loop.
    pub(super) fn stop(&self, port: PortId, from: Stop, frame: &[u8], now: Instant) -> Option<Stop> {
        let ways = &self.ports.get(port.0)?.0;
        let stops = |stop: &Stop| match &ways[*stop as usize] {
            None => false,
            Some(Way::Shaper(shaper)) => !frame.starts_with(&rstp::GROUP.0) && !shaper.passes(frame.len(), now),
            Some(Way::Line(_) | Way::WithRouter) => true,
        };
        std::iter::successors(Some(from), |stop| stop.next()).find(stops)
    }

    /// When the first packet is due, or earlier.
    pub(super) const fn next(&self) -> Option<Instant> {
        self.next
    }

    /// Sets the timer for the first packet, and says how long the worker may sleep: not at all if the packet is due within [`WAKE_UP`].
    pub(super) fn patience(&self, now: Instant) -> Duration {
        let Some(next) = self.next else { return Duration::MAX };
        let time = next.saturating_duration_since(now);
        if time < WAKE_UP {
            return Duration::ZERO;
        }
        self.timer.set(time);
        time
    }

    /// Whether a port has any of them, or is to have.
    pub(super) fn concerns(&self, port: PortId, impair: &Impair, limits: &PortLimits) -> bool {
        let is_to_have = impair.is_some() || limits.send.is_some() || limits.receive.is_some();
        is_to_have || self.ports.get(port.0).is_some()
    }

    /// Gives a port its lines, changes them, or takes them away. Only the worker that routes has lines.
    pub(super) fn set_lines(&mut self, port: PortId, impair: &Impair, is_router: bool, now: Instant) {
        let rules =
            [(Direction::In, impair.incoming.as_deref().copied()), (Direction::Out, impair.outgoing.as_deref().copied())];
        let ways = self.ports.get_or_insert_with(port.0, Ways::default);
        for (direction, rules) in rules {
            let way = &mut ways.0[Stop::line(direction) as usize];
            match (rules, &mut *way) {
                (Some(_), _) if !is_router => *way = Some(Way::WithRouter),
                (Some(rules), _) => set_line(way, rules, impair.seed.unwrap_or_default(), direction, now),
                (None, Some(Way::Line(line))) => line.let_go(now),
                (None, _) => *way = None,
            }
        }
    }

    /// Holds a port to its rates, to others, or to none.
    pub(super) fn set_rates(&mut self, port: PortId, limits: &PortLimits, now: Instant) {
        let ways = self.ports.get_or_insert_with(port.0, Ways::default);
        let rates =
            [(Stop::RateIn, &limits.send, DropReason::SendRate), (Stop::RateOut, &limits.receive, DropReason::ReceiveRate)];
        for (stop, limiter, reason) in rates {
            set_rate(&mut ways.0[stop as usize], limiter.as_ref(), reason, now);
        }
    }

    /// Makes all that waits for a rate due now; whether anything does.
    pub(super) fn open_rates(&mut self, now: Instant) -> bool {
        let mut any = false;
        for way in self.ports.iter_mut().flat_map(|(_, ways)| ways.0.iter_mut().flatten()) {
            if let Way::Shaper(shaper) = way {
                shaper.open(now);
                any |= shaper.next().is_some();
            }
        }
        self.reckon(now);
        any
    }

    /// Forgets a port, and what waits there.
    pub(super) fn remove(&mut self, port: PortId, now: Instant) {
        self.ports.remove(port.0);
        self.changed(now);
    }

    /// To be called when a port got some or lost some.
    pub(super) fn changed(&mut self, now: Instant) {
        let has = |ways: &Ways, of: &dyn Fn(Stop) -> bool| {
            Stop::ALL.into_iter().any(|stop| of(stop) && ways.0[stop as usize].is_some())
        };
        self.any = self.ports.iter().any(|(_, ways)| has(ways, &|_| true));
        self.any_in = self.ports.iter().any(|(_, ways)| has(ways, &|stop| stop.direction() == Direction::In));
        let any_ends = self.stages().any(Stage::ends);
        self.any_ends = any_ends;
        self.reckon(now);
    }

    fn stages(&self) -> impl Iterator<Item = &dyn Stage> {
        self.ports.iter().flat_map(|(_, ways)| ways.0.iter().flatten()).filter_map(Way::stage)
    }

    /// Takes note that something may be due at this place.
    pub(super) fn note(&mut self, port: PortId, stop: Stop, now: Instant) {
        let due = self.stage(port, stop).and_then(|stage| wakes(stage, now));
        self.next = [self.next, due].into_iter().flatten().min();
    }

    /// Where the next packet is due.
    pub(super) fn due(&self, now: Instant) -> Vec<(PortId, Stop)> {
        let is_due = |way: &Way| way.stage().and_then(|stage| wakes(stage, now)).is_some_and(|next| next <= now);
        let mut due = Vec::new();
        for (number, Ways(ways)) in self.ports.iter() {
            let here = Stop::ALL.into_iter().filter(|stop| ways[*stop as usize].as_ref().is_some_and(is_due));
            due.extend(here.map(|stop| (PortId(number), stop)));
        }
        due
    }

    /// Finds out when the first packet is due.
    pub(super) fn reckon(&mut self, now: Instant) {
        self.next = self.stages().filter_map(|stage| wakes(stage, now)).min();
    }

    /// Removes what is taken away and empty.
    pub(super) fn end_empty(&mut self, now: Instant) {
        if !self.any_ends {
            return;
        }
        let is_over = |way: &Way| way.stage().is_some_and(|stage| stage.ends() && wakes(stage, now).is_none());
        let ways = self.ports.iter_mut().flat_map(|(_, ways)| &mut ways.0);
        ways.filter(|way| way.as_ref().is_some_and(is_over)).for_each(|way| *way = None);
        self.changed(now);
    }

    /// Loses all that waits at a port.
    pub(super) fn lose_all(&mut self, port: PortId, reason: DropReason, now: Instant) {
        let ways = self.ports.get_mut(port.0).into_iter().flat_map(|ways| ways.0.iter_mut().flatten());
        ways.filter_map(Way::stage_mut).for_each(|stage| stage.lose_all(reason));
        self.reckon(now);
    }
}

/// When there is something to do: at once, where packets were lost and not yet counted.
fn wakes(stage: &dyn Stage, now: Instant) -> Option<Instant> {
    if stage.stock().has_lost() { Some(now) } else { stage.next() }
}

fn set_line(way: &mut Option<Way>, rules: Impairment, seed: u32, direction: Direction, now: Instant) {
    match way {
        Some(Way::Line(line)) if line.is(&rules, seed) => {}
        Some(Way::Line(line)) => line.change(rules, seed, direction, now),
        _ => *way = Some(Way::Line(Box::new(Line::new(rules, seed, direction, now)))),
    }
}

fn set_rate(way: &mut Option<Way>, limiter: Option<&Arc<Limiter>>, reason: DropReason, now: Instant) {
    match (limiter, &mut *way) {
        (Some(limiter), Some(Way::Shaper(shaper))) => shaper.change(limiter, now),
        (Some(limiter), _) => *way = Some(Way::Shaper(Box::new(Shaper::new(Arc::clone(limiter), reason, now)))),
        (None, Some(Way::Shaper(shaper))) => shaper.let_go(now),
        (None, _) => {}
    }
}
