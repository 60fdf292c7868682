//! Queues for flows that are read in turns, as FQ-CoDel does (RFC 8290, section 4): a flow that has just begun, or sends little, goes before those that
//! always have something waiting.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::time::Instant;

use packet::{Ethernet, IpPacket};

use crate::codel::Codel;
use crate::datapath::FlowPacket;
use crate::transit::Transit;

/// Queues of one shaper (RFC 8290, section 5.2.6).
const FLOWS: usize = 1024;
/// Room for packets that an empty queue keeps.
const KEPT: usize = 32;

/// What waits, by flow.
#[derive(Debug)]
pub(super) struct FairQueue {
    /// Bytes that a flow may send before it is another's turn.
    turn: i64,
    /// None before the first packet waits.
    flows: Vec<FlowQueue>,
    /// Flows that have begun since they were last read to their end.
    fresh: VecDeque<usize>,
    /// Flows that took their first turn.
    old: VecDeque<usize>,
    /// Which flows share a queue is no sender's to choose.
    keys: RandomState,
    /// What all that waits takes of a limit on memory.
    cost: usize,
}

#[derive(Debug, Default)]
struct FlowQueue {
    packets: VecDeque<(Instant, Transit)>,
    bytes: usize,
    /// What it may still send of its turn.
    credit: i64,
    /// Whether it stands in one of the lists.
    stands: bool,
    codel: Codel,
}

impl FairQueue {
    /// Queues in which nothing waits; `turn` is how many bytes a flow may send before it is another's turn.
    pub(super) fn new(turn: i64) -> Self {
        let (fresh, old, keys) = (VecDeque::new(), VecDeque::new(), RandomState::new());
        Self { turn, flows: Vec::new(), fresh, old, keys, cost: 0 }
    }

    /// The same queues with other turns.
    pub(super) const fn set_turn(&mut self, turn: i64) {
        self.turn = turn;
    }

    /// Whether nothing waits.
    pub(super) const fn is_empty(&self) -> bool {
        self.cost == 0
    }

    /// What all that waits takes of a limit on memory.
    pub(super) const fn cost(&self) -> usize {
        self.cost
    }

    /// The queue of a frame: that of its ends, or of its MAC addresses and type where it carries no IP packet.
    pub(super) fn flow_of(&self, frame: &[u8]) -> usize {
        let Ok(ethernet) = Ethernet::parse(frame) else { return 0 };
        let packet = IpPacket::parse(frame, &ethernet).map(|packet| FlowPacket::of(frame, &packet));
        let hash = match packet {
            Some(packet) => self.keys.hash_one(packet),
            None => self.keys.hash_one((ethernet.source, ethernet.destination, ethernet.ethertype)),
        };
        usize::try_from(hash % FLOWS as u64).unwrap_or_default()
    }

    /// Whether none has more bytes waiting than this one.
    pub(super) fn is_longest(&self, flow: usize) -> bool {
        let own = self.flows.get(flow).map_or(0, |flow| flow.bytes);
        self.flows.iter().all(|flow| flow.bytes <= own)
    }

    /// Puts a packet at the end of its queue.
    pub(super) fn push(&mut self, flow: usize, now: Instant, transit: Transit) {
        if self.flows.is_empty() {
            self.flows.resize_with(FLOWS, FlowQueue::default);
        }
        let Some(queue) = self.flows.get_mut(flow) else { return };
        self.cost += transit.cost();
        queue.bytes += transit.bytes.len();
        queue.packets.push_back((now, transit));
        if !std::mem::replace(&mut queue.stands, true) {
            queue.credit = self.turn;
            self.fresh.push_back(flow);
        }
    }

    /// The length of the packet that is next.
    pub(super) fn head(&mut self) -> Option<usize> {
        if self.is_empty() {
            return None;
        }
        loop {
            let is_fresh = !self.fresh.is_empty();
            let list = if is_fresh { &mut self.fresh } else { &mut self.old };
            let flow = *list.front()?;
            let queue = self.flows.get_mut(flow)?;
            match queue.packets.front() {
                Some((_, transit)) if queue.credit > 0 => return Some(transit.bytes.len()),
                Some(_) => {
                    queue.credit += self.turn;
                    list.pop_front();
                    self.old.push_back(flow);
                }
                None => {
                    list.pop_front();
                    // One that has just begun waits for a turn of the others first, so that it cannot go ahead of them for ever.
                    if is_fresh && !self.old.is_empty() {
                        self.old.push_back(flow);
                    } else {
                        queue.stands = false;
                    }
                }
            }
        }
    }

    /// Takes the packet that is next: when it came, how many bytes of its flow are behind it, and what keeps its queue short.
    pub(super) fn pop(&mut self) -> Option<(Instant, Transit, usize, &mut Codel)> {
        let flow = *self.fresh.front().or_else(|| self.old.front())?;
        let queue = self.flows.get_mut(flow)?;
        let (came, transit) = queue.take()?;
        self.cost -= transit.cost();
        queue.credit -= i64::try_from(transit.bytes.len()).unwrap_or(i64::MAX);
        Some((came, transit, queue.bytes, &mut queue.codel))
    }

    /// Takes half of the longest queue, what waits longest of it, `most` packets at most.
    pub(super) fn shorten_longest(&mut self, most: usize) -> Vec<Transit> {
        let Some(longest) = self.flows.iter_mut().max_by_key(|flow| flow.bytes) else { return Vec::new() };
        let half = longest.packets.len().div_ceil(2).min(most);
        let taken: Vec<Transit> = (0..half).filter_map(|_| Some(longest.take()?.1)).collect();
        self.cost -= taken.iter().map(Transit::cost).sum::<usize>();
        taken
    }

    /// Takes all.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Transit> {
        self.cost = 0;
        let packets = self.flows.iter_mut().flat_map(|flow| std::iter::from_fn(|| flow.take()));
        packets.map(|(_, transit)| transit)
    }
}

impl FlowQueue {
    fn take(&mut self) -> Option<(Instant, Transit)> {
        let (came, transit) = self.packets.pop_front()?;
        self.bytes -= transit.bytes.len();
        if self.packets.is_empty() {
            self.packets.shrink_to(KEPT);
        }
        Some((came, transit))
    }
}
