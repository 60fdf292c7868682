//! A port's `send-rate` and `receive-rate`: what is too much waits, each flow in a queue of its own, and little of it.
//!
//! A [`Shaper`] is one worker's part of one direction of one port. All workers share its [`Limiter`].
//!
//! ```text
//!  nothing waits, and the limiter has room: the frame passes, uncopied and whole
//!  else: push ─▶ a queue for each flow, read in turns ─(CoDel, rate)─▶ pop
//! ```
//!
//! - **Fairness** among flows, and a short wait for those that send little, are those of FQ-CoDel (RFC 8290): [`FairQueue`].
//! - **Length**: CoDel keeps the queue of a flow that slows down short, by marks where the flow knows them (RFC 3168), else by drops. For one that
//!   does not there is a limit, and what is over it is taken from the longest queue.
//! - **Super-frames** are cut below [`WHOLE`], where one of them would take longer than what others may wait.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant};

use packet::Packet;

use crate::codel::{self, Verdict};
use crate::datapath::{DropReason, Limiter};
use crate::fair::FairQueue;
use crate::impair::Treated;
use crate::transit::{OVERHEAD, Stage, Stock, Transit};

/// The rate, in bytes in a millisecond, from which on super-frames stay whole: 1 Gbit/s, at which one takes half a millisecond.
const WHOLE: u64 = 125_000;
/// The longest packet on most ways, and the longest super-frame, with their Ethernet headers. A flow sends as much before it is another's turn.
const PACKET: u32 = 1514;
const SUPER_FRAME: u32 = 65_550;
/// How many packets' time at its flow's part of the rate a packet may wait at least, for CoDel. With 1.5, as RFC 8290 has it (section 5.2.2), one TCP
/// stream at 10 Mbit/s lost 800 of 6000 packets between two containers, with 8 of them 90, at the same rate and the same wait of a ping beside it.
const UNDER_WAY: u32 = 8;
/// How long packets that have to wait are left alone, so that not each of them wakes the worker.
const PAUSE: Duration = Duration::from_micros(200);
/// The time at the rate that the queues hold together, in bytes within these bounds. Streams that begin fill them until CoDel has waited for its
/// interval and dropped some packets of each: of four at 20 Mbit/s, 200 ms were too short, and one packet in five was lost.
const HELD: Duration = Duration::from_millis(400);
const LEAST_HELD: u64 = 256 << 10;
const MOST_HELD: u64 = 4 << 20;
/// Most packets that a longest queue loses at once.
const LOST: usize = 64;

/// What holds a direction of a port to a rate, as one worker knows it.
#[derive(Debug)]
pub(crate) struct Shaper {
    limiter: Arc<Limiter>,
    bounds: Bounds,
    /// Why what is lost here is lost.
    reason: DropReason,
    queue: FairQueue<Transit>,
    /// The flow of the frame that packets are cut from.
    flow: usize,
    stock: Stock,
    treated: Treated,
    /// When the packet at the head may pass, or later.
    next: Instant,
    /// Whether what is here may pass at once, until nothing is.
    open: bool,
    ends: bool,
}

/// What follows from a rate.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    /// Most bytes that may wait.
    held: u64,
    /// How long some packets take. Between containers nothing but this queue makes a round trip long, so the few packets that TCP always has under
    /// way are all here.
    under_way: Duration,
    /// Whether super-frames stay whole.
    whole: bool,
}

impl Bounds {
    fn of(limiter: &Limiter) -> Self {
        let in_time = u32::try_from(limiter.bytes_in(codel::TARGET)).unwrap_or(u32::MAX);
        Self {
            held: limiter.bytes_in(HELD).clamp(LEAST_HELD, MOST_HELD),
            under_way: codel::TARGET * (PACKET * UNDER_WAY) / in_time.max(1),
            whole: limiter.bytes_in(Duration::from_millis(1)) >= WHOLE,
        }
    }

    /// How long a packet may wait that shares the rate with so many flows: CoDel's time, or what those take that each of them has under way. Many
    /// flows do not switch CoDel off.
    fn target(self, flows: usize) -> Duration {
        let shared = self.under_way.saturating_mul(u32::try_from(flows).unwrap_or(u32::MAX)).min(codel::INTERVAL);
        codel::TARGET.max(self.under_way).max(shared)
    }

    /// What a flow sends before it is another's turn.
    fn turn(self) -> i64 {
        i64::from(if self.whole { SUPER_FRAME } else { PACKET })
    }
}

impl Shaper {
    /// One in which nothing waits. `reason` is why packets are lost here.
    pub(crate) fn new(limiter: Arc<Limiter>, reason: DropReason, now: Instant) -> Self {
        let bounds = Bounds::of(&limiter);
        Self {
            limiter,
            bounds,
            reason,
            queue: FairQueue::new(bounds.turn()),
            flow: 0,
            stock: Stock::default(),
            treated: Treated::default(),
            next: now,
            open: false,
            ends: false,
        }
    }

    /// Goes on under this limit. What waits is due when that has room.
    pub(crate) fn change(&mut self, limiter: &Arc<Limiter>, now: Instant) {
        (self.open, self.ends) = (false, false);
        if !Arc::ptr_eq(&self.limiter, limiter) {
            (self.limiter, self.bounds, self.next) = (Arc::clone(limiter), Bounds::of(limiter), now);
            self.queue.set_turn(self.bounds.turn());
        }
    }

    /// Whether a frame of so many bytes passes without waiting. If so it is counted.
    pub(crate) fn passes(&self, bytes: usize, now: Instant) -> bool {
        self.queue.is_empty() && (self.ends || self.limiter.admit_bytes(bytes, now))
    }

    /// What would become of a frame: how long it would wait at least, or that it would be lost. Nothing changes.
    pub(crate) fn foretell(&self, frame: &[u8], now: Instant) -> Result<Duration, DropReason> {
        if self.queue.is_empty() {
            return Ok(self.limiter.wait(frame.len(), now));
        }
        let is_full = (self.queue.cost() + frame.len() + OVERHEAD) as u64 > self.bounds.held;
        match is_full && self.queue.is_longest(self.queue.flow_of(frame)) {
            true => Err(self.reason),
            false => Ok(self.next.saturating_duration_since(now)),
        }
    }

    /// Lets all that waits here pass at once.
    pub(crate) fn open(&mut self, now: Instant) {
        (self.open, self.next) = (self.ends || !self.queue.is_empty(), now);
    }

    /// Drops from the longest queue what is too much.
    fn shorten(&mut self) {
        while self.queue.cost() as u64 > self.bounds.held {
            let lost = self.queue.shorten_longest(LOST);
            lost.into_iter().for_each(|transit| self.stock.lose(self.reason, transit));
        }
    }
}

impl Stage for Shaper {
    fn stock(&self) -> &Stock {
        &self.stock
    }

    fn stock_mut(&mut self) -> &mut Stock {
        &mut self.stock
    }

    fn begin(&mut self, frame: &[u8]) {
        self.flow = self.queue.flow_of(frame);
    }

    fn push(&mut self, packet: &Packet<'_>, now: Instant) {
        let transit = self.stock.take_in(packet);
        if self.queue.is_empty() && !self.open {
            self.next = now + self.limiter.wait(transit.bytes.len(), now);
        }
        self.queue.push(self.flow, now, transit);
        if !self.open {
            self.shorten();
        }
    }

    fn pop(&mut self, now: Instant) -> Option<Transit> {
        while let Some(length) = self.queue.head() {
            let wait = self.limiter.wait(length, now);
            if !self.open && !wait.is_zero() {
                self.next = now + wait.max(PAUSE);
                return None;
            }
            let target = self.bounds.target(self.queue.flows());
            let (came, mut transit, behind, codel) = self.queue.pop()?;
            let waited = now.saturating_duration_since(came);
            if !self.open && codel.decide((waited, target), behind, now) == Verdict::Drop {
                if vxlan::ecn::mark(&mut transit.bytes) {
                    self.treated.marked += 1;
                } else {
                    self.stock.lose(self.reason, transit);
                    continue;
                }
            }
            self.limiter.charge(length, now);
            self.treated.delayed += 1;
            return Some(self.stock.let_out(transit));
        }
        self.open = self.ends;
        None
    }

    fn next(&self) -> Option<Instant> {
        (!self.queue.is_empty()).then_some(self.next)
    }

    fn take_treated(&mut self) -> Treated {
        std::mem::take(&mut self.treated)
    }

    fn keeps_whole(&self) -> bool {
        self.ends || self.bounds.whole
    }

    fn ends(&self) -> bool {
        self.ends
    }

    fn let_go(&mut self, now: Instant) {
        self.ends = true;
        self.open(now);
    }

    fn lose_all(&mut self, reason: DropReason) {
        let stock = &mut self.stock;
        self.queue.drain().for_each(|transit| stock.lose(reason, transit));
    }
}
