//! A line that delays, loses, doubles, damages and holds back packets on purpose ([`api::Impairment`]): what tc-netem(8) does in a kernel.
//!
//! A [`Line`] is one direction of one port. Packets enter it one by one, as they would be on a wire, and leave it when they are due:
//!
//! ```text
//!  push ─▶ flap ─▶ loss ─▶ duplicate ─▶ corrupt ─▶ queue ─(rate, CoDel)─▶ delay ─▶ pop
//! ```
//!
//! - **Time** is given by the caller. A packet that waits for the rate is sent when the one before it has left, not when the caller comes to look, so
//!   a caller who is late costs no rate.
//! - **Order** is kept: a packet whose jitter would have it overtake another is due with that one. So both stages are queues in the order of time,
//!   and a packet costs the same however many there are. Packets that are to be reordered have a third queue, without the delay.
//! - **Random numbers** come from one stream for each kind of decision, all of them begun by the seed. A packet takes its numbers as it enters,
//!   whatever becomes of it, so the same seed loses the same packets of the same sequence, whatever other words say.
//! - **What bounds it**: the limit, in bytes; and [`Impairment::MOST_BYTES`] altogether, where each packet counts for `OVERHEAD` more.

mod corrupt;
mod flight;
mod jitter;
mod loss;
mod random;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use api::{Flap, Impairment, Rate};
use packet::Packet;

use crate::capture::Direction;
use crate::codel::{self, Codel, Verdict};
use crate::datapath::DropReason;
use crate::transit::{OVERHEAD, Stage, Stock, Transit};
use flight::Flight;
use loss::LossModel;
use random::Streams;

/// The smallest queue for a rate that no limit is given for: two super-frames.
const LEAST_QUEUE: u64 = 128 << 10;
/// The time at a rate that its queue holds if the delay is shorter and no limit is given.
const QUEUE_TIME: Duration = Duration::from_millis(100);
/// What was done to packets. Only ever grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Treated {
    /// Sent later than they came.
    pub delayed: u64,
    /// Sent twice.
    pub duplicated: u64,
    /// Sent with a bit turned.
    pub corrupted: u64,
    /// Sent before others that had come before them.
    pub reordered: u64,
    /// Sent with a congestion mark instead of being dropped.
    pub marked: u64,
}

impl Treated {
    /// Adds what was done elsewhere.
    pub fn add(&mut self, other: Self) {
        self.delayed += other.delayed;
        self.duplicated += other.duplicated;
        self.corrupted += other.corrupted;
        self.reordered += other.reordered;
        self.marked += other.marked;
    }

    /// Its counters, by name.
    pub const fn rows(&self) -> [(&'static str, u64); 5] {
        [
            ("delayed", self.delayed),
            ("duplicated", self.duplicated),
            ("corrupted", self.corrupted),
            ("reordered", self.reordered),
            ("marked", self.marked),
        ]
    }
}

/// One direction of a port whose packets are impaired.
#[derive(Debug)]
pub struct Line {
    rules: Impairment,
    seed: u32,
    streams: Streams,
    losses: LossModel,
    /// When the rules began: flaps are counted from here.
    began: Instant,
    queue: Queue,
    flight: Flight,
    stock: Stock,
    /// Whether it is taken away: what comes now goes on at once, behind what is still here.
    ends: bool,
    treated: Treated,
}

/// What waits for the rate.
#[derive(Debug)]
struct Queue {
    packets: VecDeque<(Instant, Transit)>,
    bytes: usize,
    /// When the packet before has left.
    free: Instant,
    codel: Codel,
}

impl Line {
    /// An empty line. `seed` and the direction decide about all that is random.
    pub fn new(rules: Impairment, seed: u32, direction: Direction, now: Instant) -> Self {
        Self {
            rules,
            seed,
            streams: Streams::new(seed, direction),
            losses: LossModel::new(rules.loss),
            began: now,
            queue: Queue { packets: VecDeque::new(), bytes: 0, free: now, codel: Codel::default() },
            flight: Flight::new(now),
            stock: Stock::default(),
            ends: false,
            treated: Treated::default(),
        }
    }

    /// Begins anew under other rules. What is on the line stays, and is due when it was.
    pub fn change(&mut self, rules: Impairment, seed: u32, direction: Direction, now: Instant) {
        let old = std::mem::replace(self, Self::new(rules, seed, direction, now));
        (self.flight, self.stock, self.treated) = (old.flight.begun_anew(), old.stock, old.treated);
        self.queue = Queue { codel: Codel::default(), ..old.queue };
        // What the old rate would have kept back is ready for the new one.
        self.queue.free = self.queue.free.min(now);
        if rules.rate.is_none() {
            self.start(now);
        }
    }

    /// Whether it has these rules, begun by this seed, and is not taken away.
    pub fn is(&self, rules: &Impairment, seed: u32) -> bool {
        !self.ends && (&self.rules, self.seed) == (rules, seed)
    }

    /// Whether a packet of so many bytes that entered now would be lost for certain, and why. Only what time alone changes does.
    pub fn foretell(&mut self, length: usize, now: Instant) -> Option<DropReason> {
        self.start(now);
        let down = self.rules.flap.is_some_and(|flap| is_down(flap, now.saturating_duration_since(self.began)));
        let (certain, full) = (self.losses.is_certain(), !self.has_room(length, self.stock.held() + length + OVERHEAD, now));
        [(down, DropReason::ImpairFlap), (certain, DropReason::ImpairLoss), (full, DropReason::ImpairQueue)]
            .into_iter()
            .find_map(|(is, reason)| is.then_some(reason))
    }

    /// What happens here.
    pub const fn rules(&self) -> &Impairment {
        &self.rules
    }

    fn enqueue(&mut self, transit: Transit, now: Instant) {
        let length = transit.bytes.len();
        if !self.has_room(length, self.stock.held(), now) {
            return self.stock.lose(DropReason::ImpairQueue, transit);
        }
        if self.rules.rate.is_none() {
            return self.launch(transit, now);
        }
        self.queue.bytes += length;
        self.queue.packets.push_back((now, transit));
        self.start(now);
    }

    /// Whether the limit lets one more packet of this length wait, where with it all packets take `held`.
    fn has_room(&self, length: usize, held: usize, now: Instant) -> bool {
        let (used, waits) = match self.rules.rate {
            Some(_) => (self.queue.bytes, !self.queue.packets.is_empty() || self.queue.free > now),
            None => (self.flight.bytes(), self.flight.bytes() > 0),
        };
        let is_within = !waits || (used + length) as u64 <= self.limit();
        is_within && held as u64 <= Impairment::MOST_BYTES
    }

    /// Most bytes that may wait, or be under way where nothing waits.
    fn limit(&self) -> u64 {
        let Some(rate) = self.rules.rate else { return self.rules.limit.map_or(Impairment::MOST_BYTES, api::ByteSize::bytes) };
        let delay = self.rules.delay.map_or(Duration::ZERO, |delay| delay.time + delay.jitter);
        let bits = delay.max(QUEUE_TIME).as_nanos() * u128::from(rate.bits_per_second()) / 1_000_000_000;
        let usual = u64::try_from(bits / 8).unwrap_or(u64::MAX).clamp(LEAST_QUEUE, Impairment::MOST_BYTES);
        self.rules.limit.map_or(usual, api::ByteSize::bytes)
    }

    /// Sends what has waited for the rate long enough.
    fn start(&mut self, now: Instant) {
        while let Some((came, _)) = self.queue.packets.front() {
            let (came, at) = (*came, self.queue.free.max(*came));
            if at > now {
                return;
            }
            let Some((_, mut transit)) = self.queue.packets.pop_front() else { return };
            self.queue.bytes -= transit.bytes.len();
            let waited = at.saturating_duration_since(came);
            if self.rules.codel && self.queue.codel.decide((waited, codel::TARGET), self.queue.bytes, at) == Verdict::Drop {
                if self.rules.ecn && vxlan::ecn::mark(&mut transit.bytes) {
                    self.treated.marked += 1;
                } else {
                    self.stock.lose(DropReason::ImpairCodel, transit);
                    continue;
                }
            }
            self.queue.free = at + self.rules.rate.map_or(Duration::ZERO, |rate| time_at(rate, transit.bytes.len()));
            self.launch(transit, self.queue.free);
        }
    }

    /// Sends a packet on its way, whose end it reaches after the delay.
    fn launch(&mut self, transit: Transit, at: Instant) {
        let mut due = at;
        if let Some(delay) = self.rules.delay {
            if self.flight.goes_ahead(self.rules.reorder, &mut self.streams.reorder) {
                self.treated.reordered += 1;
                return self.flight.push_ahead(at, transit);
            }
            due += jitter::draw(&delay, &mut self.streams.jitter);
        }
        self.treated.delayed += u64::from(self.rules.delay.is_some() || self.rules.rate.is_some());
        self.flight.push(due, transit);
    }
}

impl Stage for Line {
    fn stock(&self) -> &Stock {
        &self.stock
    }

    fn stock_mut(&mut self) -> &mut Stock {
        &mut self.stock
    }

    fn push(&mut self, packet: &Packet<'_>, now: Instant) {
        if self.ends {
            let transit = self.stock.take_in(packet);
            return self.flight.push(now, transit);
        }
        self.start(now);
        let is_lost = self.losses.next(&mut self.streams.loss);
        let draw =
            |share: Option<api::Percent>, stream: &mut random::Draws| share.is_some_and(|share| share.takes(stream.next()));
        let is_twice = draw(self.rules.duplicate, &mut self.streams.duplicate);
        let is_corrupt = draw(self.rules.corrupt, &mut self.streams.corrupt);
        let mut transit = self.stock.take_in(packet);
        if self.rules.flap.is_some_and(|flap| is_down(flap, now.saturating_duration_since(self.began))) {
            return self.stock.lose(DropReason::ImpairFlap, transit);
        }
        if is_lost {
            return self.stock.lose(DropReason::ImpairLoss, transit);
        }
        let copy = is_twice.then(|| self.stock.take_in(packet));
        if is_corrupt {
            corrupt::turn_a_bit(&mut transit, &mut self.streams.bit);
            self.treated.corrupted += 1;
        }
        self.enqueue(transit, now);
        if let Some(copy) = copy {
            self.treated.duplicated += 1;
            self.enqueue(copy, now);
        }
    }

    fn pop(&mut self, now: Instant) -> Option<Transit> {
        self.start(now);
        self.flight.pop(now).map(|transit| self.stock.let_out(transit))
    }

    fn next(&self) -> Option<Instant> {
        let sent = self.queue.packets.front().map(|(came, _)| self.queue.free.max(*came));
        [self.flight.next(), sent].into_iter().flatten().min()
    }

    fn take_treated(&mut self) -> Treated {
        std::mem::take(&mut self.treated)
    }

    /// One that does no more than delay all packets alike does so to a super-frame as to the packets in it, one after the other.
    fn keeps_whole(&self) -> bool {
        self.ends || self.rules.is_even_delay()
    }

    fn count_more(&mut self, packets: u64) {
        self.treated.delayed += if self.ends { 0 } else { packets };
    }

    fn ends(&self) -> bool {
        self.ends
    }

    fn let_go(&mut self, now: Instant) {
        self.ends = true;
        self.queue.bytes = 0;
        self.queue.packets.drain(..).for_each(|(_, transit)| self.flight.push(now, transit));
        self.flight.land(now);
    }

    fn lose_all(&mut self, reason: DropReason) {
        let waiting = self.queue.packets.drain(..).map(|(_, transit)| transit);
        self.flight.drain().chain(waiting).for_each(|transit| self.stock.lose(reason, transit));
        self.queue.bytes = 0;
    }
}

/// Whether a line that flaps is down, so long after it began.
fn is_down(Flap { down, every, .. }: Flap, since: Duration) -> bool {
    let period = every.as_nanos().max(1);
    since.as_nanos() % period >= period.saturating_sub(down.as_nanos())
}

/// How long a packet takes at a rate.
fn time_at(rate: Rate, bytes: usize) -> Duration {
    let nanoseconds = bytes as u128 * 8 * 1_000_000_000 / u128::from(rate.bits_per_second().max(1));
    Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
}
