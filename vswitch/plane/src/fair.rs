//! Queues for flows that are read in turns, as FQ-CoDel does (RFC 8290, section 4): a flow that has just begun, or sends little, goes before those that
//! always have something waiting. Shapers have them ([`crate::shape`]), and the worker that routes for what others hand over.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::time::Instant;

use packet::{Ethernet, IpPacket};

use crate::codel::Codel;
use crate::datapath::FlowPacket;

/// Queues of one (RFC 8290, section 5.2.6).
const FLOWS: usize = 1024;
/// Room for packets that an empty queue keeps.
const KEPT: usize = 32;

/// What may wait in such a queue.
pub(crate) trait Weighed {
    /// Its bytes.
    fn length(&self) -> usize;

    /// What it takes of a limit on memory; more than nothing.
    fn cost(&self) -> usize;
}

/// What waits, by flow.
#[derive(Debug)]
pub(crate) struct FairQueue<T> {
    /// Bytes that a flow may send before it is another's turn.
    turn: i64,
    /// None before the first packet waits.
    flows: Vec<FlowQueue<T>>,
    /// Flows that have begun since they were last read to their end.
    fresh: VecDeque<usize>,
    /// Flows that took their first turn.
    old: VecDeque<usize>,
    /// Which flows share a queue is no sender's to choose.
    keys: RandomState,
    /// What all that waits takes of a limit on memory.
    cost: usize,
}

#[derive(Debug)]
struct FlowQueue<T> {
    packets: VecDeque<(Instant, T)>,
    bytes: usize,
    /// What it may still send of its turn.
    credit: i64,
    /// Whether it stands in one of the lists.
    stands: bool,
    codel: Codel,
}

impl<T: Weighed> FairQueue<T> {
    /// Queues in which nothing waits; `turn` is how many bytes a flow may send before it is another's turn.
    pub(crate) fn new(turn: i64) -> Self {
        let (fresh, old, keys) = (VecDeque::new(), VecDeque::new(), RandomState::new());
        Self { turn, flows: Vec::new(), fresh, old, keys, cost: 0 }
    }

    /// The same queues with other turns.
    pub(crate) const fn set_turn(&mut self, turn: i64) {
        self.turn = turn;
    }

    /// Whether nothing waits.
    pub(crate) const fn is_empty(&self) -> bool {
        self.cost == 0
    }

    /// How many flows take turns.
    pub(crate) fn flows(&self) -> usize {
        self.fresh.len() + self.old.len()
    }

    /// What all that waits takes of a limit on memory.
    pub(crate) const fn cost(&self) -> usize {
        self.cost
    }

    /// The queue of a frame: that of the ends of its IP packet, or of its MAC addresses and type where it carries none. The fragments of a packet stay in
    /// their order, and only the first one has ports.
    pub(crate) fn flow_of(&self, frame: &[u8]) -> usize {
        let Ok(ethernet) = Ethernet::parse(frame) else { return 0 };
        let hash = match IpPacket::parse(frame, &ethernet) {
            Some(packet) if packet.fragment.is_some() => self.keys.hash_one((packet.source, packet.destination)),
            Some(packet) => self.keys.hash_one(FlowPacket::of(frame, &packet)),
            None => self.keys.hash_one((ethernet.source, ethernet.destination, ethernet.ethertype)),
        };
        usize::try_from(hash % FLOWS as u64).unwrap_or_default()
    }

    /// Whether none has more bytes waiting than this one.
    pub(crate) fn is_longest(&self, flow: usize) -> bool {
        let own = self.flows.get(flow).map_or(0, |flow| flow.bytes);
        self.flows.iter().all(|flow| flow.bytes <= own)
    }

    /// Puts a packet at the end of its queue.
    pub(crate) fn push(&mut self, flow: usize, now: Instant, packet: T) {
        if self.flows.is_empty() {
            self.flows.resize_with(FLOWS, FlowQueue::new);
        }
        let Some(queue) = self.flows.get_mut(flow) else { return };
        self.cost += packet.cost();
        queue.bytes += packet.length();
        queue.packets.push_back((now, packet));
        if !std::mem::replace(&mut queue.stands, true) {
            queue.credit = self.turn;
            self.fresh.push_back(flow);
        }
    }

    /// The length of the packet that is next.
    pub(crate) fn head(&mut self) -> Option<usize> {
        if self.is_empty() {
            return None;
        }
        loop {
            let is_fresh = !self.fresh.is_empty();
            let list = if is_fresh { &mut self.fresh } else { &mut self.old };
            let flow = *list.front()?;
            let queue = self.flows.get_mut(flow)?;
            match queue.packets.front() {
                Some((_, packet)) if queue.credit > 0 => return Some(packet.length()),
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
    pub(crate) fn pop(&mut self) -> Option<(Instant, T, usize, &mut Codel)> {
        let flow = *self.fresh.front().or_else(|| self.old.front())?;
        let queue = self.flows.get_mut(flow)?;
        let (came, packet) = queue.take()?;
        self.cost -= packet.cost();
        queue.credit -= i64::try_from(packet.length()).unwrap_or(i64::MAX);
        Some((came, packet, queue.bytes, &mut queue.codel))
    }

    /// Takes half of the longest queue, what waits longest of it, `most` packets at most.
    pub(crate) fn shorten_longest(&mut self, most: usize) -> Vec<T> {
        let Some(longest) = self.flows.iter_mut().max_by_key(|flow| flow.bytes) else { return Vec::new() };
        let half = longest.packets.len().div_ceil(2).min(most);
        let taken: Vec<T> = (0..half).filter_map(|_| Some(longest.take()?.1)).collect();
        self.cost -= taken.iter().map(Weighed::cost).sum::<usize>();
        taken
    }

    /// Takes all.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = T> {
        self.cost = 0;
        let packets = self.flows.iter_mut().flat_map(|flow| std::iter::from_fn(|| flow.take()));
        packets.map(|(_, packet)| packet)
    }
}

impl<T: Weighed> FlowQueue<T> {
    fn new() -> Self {
        Self { packets: VecDeque::new(), bytes: 0, credit: 0, stands: false, codel: Codel::default() }
    }

    fn take(&mut self) -> Option<(Instant, T)> {
        let (came, packet) = self.packets.pop_front()?;
        self.bytes -= packet.length();
        if self.packets.is_empty() {
            self.packets.shrink_to(KEPT);
        }
        Some((came, packet))
    }
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;

    use super::*;

    struct Packet(u32);

    impl Weighed for Packet {
        fn length(&self) -> usize {
            1000
        }

        fn cost(&self) -> usize {
            1
        }
    }

    #[test]
    fn a_flow_is_its_ends_and_the_fragments_of_a_packet_are_one() {
        let queue = FairQueue::<Packet>::new(1500);
        let frame = |port: u16, fragment: [u8; 2]| {
            let mut bytes = Vec::new();
            let builder = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
            builder.ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64).udp(port, 53).write(&mut bytes, &[0; 64]).unwrap();
            bytes[20..22].copy_from_slice(&fragment);
            let header = etherparse::Ipv4HeaderSlice::from_slice(&bytes[14..]).unwrap().to_header();
            bytes[24..26].copy_from_slice(&header.calc_header_checksum().to_be_bytes());
            queue.flow_of(&bytes)
        };
        assert_eq!(frame(1, [0, 0]), frame(1, [0x40, 0]));
        assert!((2..20).any(|port| frame(port, [0, 0]) != frame(1, [0, 0])));
        let first = frame(1, [0x20, 0]);
        assert!((1..20).all(|port| frame(port, [0x20, 5]) == first && frame(port, [0, 9]) == first));
        assert_eq!(queue.flow_of(&[0; 9]), 0, "no frame at all");
    }

    #[test]
    fn one_that_begins_anew_does_not_go_ahead_of_the_others_for_ever() {
        let now = Instant::now();
        let mut queue = FairQueue::new(1500);
        (0..100).for_each(|_| queue.push(1, now, Packet(1)));
        let mut order = Vec::new();
        for _ in 0..60 {
            // There is a packet of the second flow each time.
            queue.push(2, now, Packet(2));
            assert_eq!(queue.head(), Some(1000));
            let (_, Packet(flow), _, _) = queue.pop().unwrap();
            order.push(flow);
        }
        let first = order.iter().filter(|flow| **flow == 1).count();
        assert!((25..=35).contains(&first), "{order:?}");
    }
}
