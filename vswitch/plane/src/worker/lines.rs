//! The impaired lines of ports (`plane::impair`), and how their packets come to them and go on.
//!
//! A line is between the station and its port: what comes in enters it before anything is decided, and what leaves enters it when all is decided, on
//! its way to the device. There packets are as they would be on a wire: super-frames are cut as they enter, and merged again, where they still can
//! be, as any other frames on their way out.
//!
//! A line has one owner, so that order and rate hold: the worker that routes has all of them. The others hand over what is to enter.

use std::time::{Duration, Instant};

use api::{Impair, Impairment};
use packet::{Batch, Capabilities, Offload, Packet, Queued, TagEdit};

use super::command::{Handover, Purpose};
use super::timer::Timer;
use super::turn::List;
use super::{SPIN, Worker};
use crate::capture::Direction;
use crate::datapath::{DropReason, PortId, Slots};
use crate::impair::Line;

/// Most batches that leave one line before other ports get their turn: about two super-frames each, and more than one turn takes in.
const BATCHES: usize = 16;
/// What a line is given: packets as they are on a wire, but for checksums, which the next device may finish.
const ON_A_WIRE: Capabilities = Capabilities { checksum: true, tcp4: false, tcp6: false, udp: false, tunnel: false };

/// The lines of all ports.
pub(super) struct ImpairedLines {
    /// Wakes the worker when the first packet is due.
    timer: Timer,
    ports: Slots<Ways>,
    /// Whether any port has one for what comes in.
    any_in: bool,
    /// When the first packet on any of them is due, or earlier.
    next: Option<Instant>,
    /// What leaves a line towards a device.
    batch: Batch,
}

/// The lines of a port, in and out.
#[derive(Default)]
struct Ways([Option<Way>; 2]);

/// A line, as one worker knows it.
enum Way {
    /// It is here.
    Here(Box<Line>),
    /// The worker that routes has it.
    WithRouter,
}

impl ImpairedLines {
    /// None yet.
    pub(super) fn new(timer: Timer) -> Self {
        Self { timer, ports: Slots::default(), any_in: false, next: None, batch: Batch::new() }
    }

    /// Whether any port has one for what comes in.
    pub(super) const fn any_in(&self) -> bool {
        self.any_in
    }

    /// Whether what goes this way at a port goes by a line.
    pub(super) fn has(&self, port: PortId, direction: Direction) -> bool {
        self.ports.get(port.0).is_some_and(|ways| ways.0[place(direction)].is_some())
    }

    /// The line of a port, if this worker has it.
    pub(super) fn line(&mut self, port: PortId, direction: Direction) -> Option<&mut Line> {
        match self.ports.get_mut(port.0)?.0[place(direction)].as_mut()? {
            Way::Here(line) => Some(line),
            Way::WithRouter => None,
        }
    }

    /// When the first packet is due, or earlier.
    #[cfg(test)]
    pub(super) const fn next(&self) -> Option<Instant> {
        self.next
    }

    /// How long the worker may sleep before a packet is due. The timer wakes it then; for a moment it does not sleep at all.
    pub(super) fn patience(&self, now: Instant) -> Duration {
        let Some(next) = self.next else { return Duration::MAX };
        let time = next.saturating_duration_since(now);
        if time < SPIN {
            return Duration::ZERO;
        }
        self.timer.set(time);
        time
    }

    /// Forgets a port, and what is on its lines.
    pub(super) fn remove(&mut self, port: PortId) {
        self.ports.remove(port.0);
        self.changed();
    }

    /// To be called when a port got lines or lost them.
    fn changed(&mut self) {
        self.any_in = self.ports.iter().any(|(_, ways)| ways.0[place(Direction::In)].is_some());
        self.reckon();
    }

    /// Takes note that something may be due at this time.
    fn note(&mut self, due: Option<Instant>) {
        self.next = [self.next, due].into_iter().flatten().min();
    }

    /// The lines of ports whose next packet is due.
    fn due(&self, now: Instant) -> Vec<(PortId, Direction)> {
        let mut due = Vec::new();
        for (number, Ways(ways)) in self.ports.iter() {
            for (way, direction) in ways.iter().zip([Direction::In, Direction::Out]) {
                if matches!(way, Some(Way::Here(line)) if line.next().is_some_and(|next| next <= now)) {
                    due.push((PortId(number), direction));
                }
            }
        }
        due
    }

    /// Finds out when the first packet is due.
    fn reckon(&mut self) {
        let ways = self.ports.iter().flat_map(|(_, ways)| ways.0.iter().flatten());
        let next = |way: &Way| if let Way::Here(line) = way { line.next() } else { None };
        self.next = ways.filter_map(next).min();
    }
}

const fn place(direction: Direction) -> usize {
    match direction {
        Direction::In => 0,
        Direction::Out => 1,
    }
}

impl Worker {
    /// Gives a port its lines, changes them, or takes them away. What is on a line that is taken away goes on at once.
    pub(super) fn set_lines(&mut self, id: PortId, impair: &Impair, now: Instant) {
        let rules =
            [(Direction::In, impair.incoming.as_deref().copied()), (Direction::Out, impair.outgoing.as_deref().copied())];
        for (direction, rules) in rules {
            if rules.is_none() {
                self.take_line_away(id, direction, now);
            }
        }
        if !impair.is_some() {
            return self.lines.remove(id);
        }
        let is_here = self.router.is_none();
        let ways = self.lines.ports.get_or_insert_with(id.0, Ways::default);
        for (direction, rules) in rules {
            let way = &mut ways.0[place(direction)];
            match rules {
                Some(_) if !is_here => *way = Some(Way::WithRouter),
                Some(rules) => set_line(way, rules, impair.seed.unwrap_or_default(), direction, now),
                None => *way = None,
            }
        }
        self.lines.changed();
    }

    fn take_line_away(&mut self, id: PortId, direction: Direction, now: Instant) {
        let Some(line) = self.lines.line(id, direction) else { return };
        line.let_go(now);
        while self.lines.line(id, direction).is_some_and(|line| line.next().is_some()) {
            self.let_out(id, direction, now);
        }
    }

    /// Puts what was received at ports whose lines in are impaired on these lines, and takes it out of the batch.
    pub(super) fn impair_received(&mut self, now: Instant) {
        let batch = std::mem::take(&mut self.batch);
        let mut entered = None;
        for frame in batch.frames() {
            let (id, queued) = (PortId(frame.ingress), Queued { frame, edit: TagEdit::Keep, peer: frame.peer });
            if self.lines.has(id, Direction::In) {
                self.enter(id, Direction::In, &queued, now);
                let before = entered.replace(id).filter(|before| *before != id);
                before.into_iter().for_each(|before| self.end_entering(before, Direction::In));
            }
        }
        self.batch = batch;
        let Some(id) = entered else { return };
        self.batch.retain(|frame| !self.lines.has(PortId(frame.ingress), Direction::In));
        self.end_entering(id, Direction::In);
    }

    /// Puts what leaves by a port whose line out is impaired on that line.
    pub(super) fn impair_sent(&mut self, id: PortId, list: &List<'_>, now: Instant) {
        list.iter().for_each(|queued| self.enter(id, Direction::Out, queued, now));
        self.end_entering(id, Direction::Out);
    }

    /// Puts what another worker handed over on a line.
    pub(super) fn enter_for_another(&mut self, id: PortId, direction: Direction, handover: &Handover, now: Instant) {
        let mut batch = std::mem::take(&mut self.lines.batch);
        take_again(&mut batch, (handover.ingress, handover.peer), (&handover.bytes, handover.offload), handover.id);
        let list: List<'_> = batch
            .frames()
            .iter()
            .map(|frame| Queued { frame, edit: TagEdit::Keep, peer: handover.peer })
            .take(Batch::MOST)
            .collect();
        // The line may have been taken away while this waited for its turn.
        match (self.lines.has(id, direction), direction) {
            (false, Direction::Out) => self.transmit(id, &list, &batch),
            _ => list.iter().for_each(|queued| self.enter(id, direction, queued, now)),
        }
        drop(list);
        batch.clear();
        self.lines.batch = batch;
        self.end_entering(id, direction);
    }

    /// Puts a frame on a line, cut into what it is on a wire. One that cannot be cut stays whole.
    fn enter(&mut self, id: PortId, direction: Direction, queued: &Queued<'_>, now: Instant) {
        let Some(line) = self.lines.line(id, direction) else { return self.hand_to_line(id, direction, queued) };
        let mut enter = |packet: &Packet<'_>| line.push(packet, now);
        let uncut = self.egress.run(std::slice::from_ref(queued), ON_A_WIRE, &mut enter);
        if !uncut.is_empty() {
            queued.show(&mut enter);
        }
    }

    /// Hands a frame to the worker that has the line.
    fn hand_to_line(&mut self, id: PortId, direction: Direction, queued: &Queued<'_>) {
        let mut lost = self.router.is_none();
        queued.show(&mut |packet| {
            let Some(router) = &self.router else { return };
            let (bytes, offload, purpose) = (packet.to_vec(), packet.offload, Purpose::Enter(id, direction));
            let (ingress, peer, id) = (packet.ingress, packet.peer, packet.id);
            lost |= !router.hand_over(Handover { bytes, offload, ingress, peer, at: 0, id, purpose });
        });
        if lost {
            self.datapath.count_lost_on_line(id, direction, (DropReason::ImpairQueue, queued.frame.bytes().len() as u64));
        }
    }

    /// Counts, and shows to captures, what came of packets that entered a line, or of those that were due there.
    fn end_entering(&mut self, id: PortId, direction: Direction) {
        let Some(line) = self.lines.line(id, direction) else { return };
        let (next, lost, treated) = (line.next(), line.take_lost(), line.take_treated());
        self.lines.note(next);
        self.datapath.count_treated(id, direction, treated);
        let captured = self.queues.get_mut(id.0).is_some_and(|queue| queue.captured);
        for (reason, transit) in lost {
            self.datapath.count_lost_on_line(id, direction, (reason, transit.bytes.len() as u64));
            if captured {
                self.watch.lost_on_line(id, direction, &transit, reason);
            }
            if let Some(line) = self.lines.line(id, direction) {
                line.reuse(transit);
            }
        }
    }

    /// Lets go on what is due on any line; says whether anything was.
    pub(super) fn release(&mut self, now: Instant) -> bool {
        if self.lines.next.is_none_or(|next| next > now) {
            return false;
        }
        for (id, direction) in self.lines.due(now) {
            for _ in 0..BATCHES {
                if !self.let_out(id, direction, now) {
                    break;
                }
            }
        }
        self.lines.reckon();
        true
    }

    /// Lets a batch of what is due on a line go on: into the switch, or to the device. Says whether more may be due.
    fn let_out(&mut self, id: PortId, direction: Direction, now: Instant) -> bool {
        let mut batch = match direction {
            Direction::In => std::mem::take(&mut self.batch),
            Direction::Out => std::mem::take(&mut self.lines.batch),
        };
        let line = self.lines.line(id, direction);
        let more = line.is_some_and(|line| fill(&mut batch, line, now));
        self.end_entering(id, direction);
        match direction {
            Direction::In => {
                self.batch = batch;
                self.pass(now);
            }
            Direction::Out => {
                let frames = batch.frames().iter().map(|frame| Queued { frame, edit: TagEdit::Keep, peer: frame.peer });
                let list: List<'_> = frames.take(Batch::MOST).collect();
                self.transmit(id, &list, &batch);
                drop(list);
                batch.clear();
                self.lines.batch = batch;
            }
        }
        more
    }
}

fn set_line(way: &mut Option<Way>, rules: Impairment, seed: u32, direction: Direction, now: Instant) {
    match way {
        Some(Way::Here(line)) if line.is(&rules, seed) => {}
        Some(Way::Here(line)) => line.change(rules, seed, direction, now),
        _ => *way = Some(Way::Here(Box::new(Line::new(rules, seed, direction, now)))),
    }
}

/// Fills a batch with what is due; says whether it is full.
fn fill(batch: &mut Batch, line: &mut Line, now: Instant) -> bool {
    while !batch.is_full() {
        let Some(transit) = line.pop(now) else { return false };
        take_again(batch, (transit.ingress, transit.peer), (&transit.bytes, transit.offload), transit.id);
        line.reuse(transit);
    }
    true
}

/// Takes a packet into a batch that was taken in before, with its origin and the number by which captures know it.
fn take_again(batch: &mut Batch, (ingress, peer): (u32, u16), (bytes, offload): (&[u8], Offload), id: u64) {
    batch.set_origin(ingress, peer);
    batch.push(bytes, offload);
    batch.last_mut().into_iter().for_each(|pushed| pushed.id = id);
}
