//! The impaired lines of ports (`plane::impair`), and how their packets come to them and go on.
//!
//! A line is between the station and its port: what comes in enters it before anything is decided, and what leaves enters it when all is decided, on
//! its way to the device. There packets are as they would be on a wire: super-frames are cut as they enter, and merged again, where they still can
//! be, as any other frames on their way out. Only a line that does no more than delay all packets alike keeps them whole.
//!
//! What is on a line that is taken away goes on by batches, as ever, and what comes meanwhile goes behind it. What is on the lines of a port that is
//! unplugged, or moves to another bridge, is lost.
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
/// Most lost packets of a line that are counted at once. A batch loses fewer.
const TOLD: usize = 4096;
/// What a line is given: packets as they are on a wire, but for checksums, which the next device may finish.
const ON_A_WIRE: Capabilities = Capabilities { checksum: true, tcp4: false, tcp6: false, udp: false, tunnel: false };

/// The lines of all ports.
pub(super) struct ImpairedLines {
    /// Wakes the worker when the first packet is due.
    timer: Timer,
    ports: Slots<Ways>,
    /// Whether any port has one, and one for what comes in.
    any: bool,
    any_in: bool,
    /// Whether any is taken away, and not yet empty.
    any_ends: bool,
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
        Self { timer, ports: Slots::default(), any: false, any_in: false, any_ends: false, next: None, batch: Batch::new() }
    }

    /// Whether any port has one.
    pub(super) const fn any(&self) -> bool {
        self.any
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
    pub(super) fn remove(&mut self, port: PortId, now: Instant) {
        self.ports.remove(port.0);
        self.changed(now);
    }

    /// To be called when a port got lines or lost them.
    fn changed(&mut self, now: Instant) {
        self.any = self.ports.iter().any(|(_, ways)| ways.0.iter().any(Option::is_some));
        self.any_in = self.ports.iter().any(|(_, ways)| ways.0[place(Direction::In)].is_some());
        self.reckon(now);
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
                if matches!(way, Some(Way::Here(line)) if wakes(line, now).is_some_and(|next| next <= now)) {
                    due.push((PortId(number), direction));
                }
            }
        }
        due
    }

    /// Finds out when the first packet is due.
    fn reckon(&mut self, now: Instant) {
        let ways = self.ports.iter().flat_map(|(_, ways)| ways.0.iter().flatten());
        let next = |way: &Way| if let Way::Here(line) = way { wakes(line, now) } else { None };
        self.next = ways.filter_map(next).min();
    }

    /// Removes lines that are taken away and empty.
    fn end_empty(&mut self) {
        let is_over = |line: &Line| line.ends() && line.next().is_none() && !line.has_lost();
        let ways = self.ports.iter_mut().flat_map(|(_, ways)| &mut ways.0);
        ways.filter(|way| matches!(way, Some(Way::Here(line)) if is_over(line))).for_each(|way| *way = None);
        let mut ways = self.ports.iter().flat_map(|(_, ways)| ways.0.iter().flatten());
        self.any_ends = ways.any(|way| matches!(way, Way::Here(line) if line.ends()));
    }

    /// Loses all that is on the lines of a port.
    fn lose_all(&mut self, id: PortId, reason: DropReason, now: Instant) {
        let ways = self.ports.get_mut(id.0).into_iter().flat_map(|ways| ways.0.iter_mut().flatten());
        ways.for_each(|way| {
            if let Way::Here(line) = way {
                line.lose_all(reason)
            }
        });
        self.reckon(now);
    }
}

/// When there is something to do on a line: at once, where packets were lost and not yet counted.
fn wakes(line: &Line, now: Instant) -> Option<Instant> {
    if line.has_lost() { Some(now) } else { line.next() }
}

const fn place(direction: Direction) -> usize {
    match direction {
        Direction::In => 0,
        Direction::Out => 1,
    }
}

impl Worker {
    /// Gives a port its lines, changes them, or takes them away.
    pub(super) fn set_lines(&mut self, id: PortId, impair: &Impair, now: Instant) {
        let rules =
            [(Direction::In, impair.incoming.as_deref().copied()), (Direction::Out, impair.outgoing.as_deref().copied())];
        if !impair.is_some() && self.lines.ports.get(id.0).is_none() {
            return;
        }
        let is_here = self.router.is_none();
        let ways = self.lines.ports.get_or_insert_with(id.0, Ways::default);
        for (direction, rules) in rules {
            let way = &mut ways.0[place(direction)];
            match (rules, &mut *way) {
                (Some(_), _) if !is_here => *way = Some(Way::WithRouter),
                (Some(rules), _) => set_line(way, rules, impair.seed.unwrap_or_default(), direction, now),
                (None, Some(Way::Here(line))) => line.let_go(now),
                (None, _) => *way = None,
            }
        }
        self.lines.any_ends = true;
        self.lines.changed(now);
        // Most lines have no more than this.
        self.release(now);
        self.end_lines(now);
    }

    /// Loses what is on the lines of a port whose cable is pulled.
    pub(super) fn cut_lines(&mut self, id: PortId, now: Instant) {
        self.lines.lose_all(id, DropReason::PortDown, now);
    }

    /// Removes lines that are taken away and empty.
    fn end_lines(&mut self, now: Instant) {
        if self.lines.any_ends {
            self.lines.end_empty();
            self.lines.changed(now);
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
                before.into_iter().for_each(|before| self.end_entering(before, Direction::In, now));
            }
        }
        self.batch = batch;
        let Some(id) = entered else { return };
        self.batch.retain(|frame| !self.lines.has(PortId(frame.ingress), Direction::In));
        self.end_entering(id, Direction::In, now);
    }

    /// Puts what leaves by a port whose line out is impaired on that line.
    pub(super) fn impair_sent(&mut self, id: PortId, list: &List<'_>, now: Instant) {
        list.iter().for_each(|queued| self.enter(id, Direction::Out, queued, now));
        self.end_entering(id, Direction::Out, now);
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
            // So may the cable.
            (_, Direction::Out) if self.datapath.is_unplugged(id) => self.datapath.count_drops(id, DropReason::PortDown, 1),
            (false, Direction::Out) => self.transmit(id, &list, &batch),
            _ => list.iter().for_each(|queued| self.enter(id, direction, queued, now)),
        }
        drop(list);
        batch.clear();
        self.lines.batch = batch;
        self.end_entering(id, direction, now);
    }

    /// Puts a frame on a line, cut into what it is on a wire. One that cannot be cut stays whole.
    fn enter(&mut self, id: PortId, direction: Direction, queued: &Queued<'_>, now: Instant) {
        let Some(line) = self.lines.line(id, direction) else { return self.hand_to_line(id, direction, queued) };
        let is_whole = line.keeps_whole();
        let mut enter = |packet: &Packet<'_>| line.push(packet, now);
        let capabilities = if is_whole { Capabilities::ALL } else { ON_A_WIRE };
        let uncut = self.egress.run(std::slice::from_ref(queued), capabilities, &mut enter);
        if !uncut.is_empty() {
            queued.show(&mut enter);
        }
        if is_whole && !line.ends() {
            line.count_more(queued.frame.segments().saturating_sub(1) as u64);
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
    fn end_entering(&mut self, id: PortId, direction: Direction, now: Instant) {
        let Some(line) = self.lines.line(id, direction) else { return };
        let treated = line.take_treated();
        self.datapath.count_treated(id, direction, treated);
        let captured = self.queues.get_mut(id.0).is_some_and(|queue| queue.captured);
        for _ in 0..TOLD {
            let Some((reason, transit)) = line.next_lost() else { break };
            self.datapath.count_lost_on_line(id, direction, (reason, transit.bytes.len() as u64));
            if captured {
                self.watch.lost_on_line(id, direction, &transit, reason);
            }
            line.reuse(transit);
        }
        let next = wakes(line, now);
        self.lines.note(next);
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
        self.lines.reckon(now);
        self.end_lines(now);
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
        if self.watch.is_on() {
            // A worker that did not yet know of this line may have handed it over without one.
            self.watch.number(&mut batch);
        }
        self.end_entering(id, direction, now);
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
