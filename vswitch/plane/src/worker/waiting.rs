//! How packets come to where they have to wait, and go on from there (`stops`).
//!
//! An impaired line is between the station and its port: what comes in enters it before anything is decided, and what leaves enters it when all is
//! decided, on its way to the device. There packets are as they would be on a wire: super-frames are cut as they enter, and merged again, where they
//! still can be, as any other frames on their way out. Only a line that does no more than delay all packets alike keeps them whole. What holds a
//! port to its rates is between its line and the switch, and cuts them where the rate is low.
//!
//! What waits where there is nothing to wait for any more goes on by batches, as ever, and what comes meanwhile goes behind it. What waits at a port
//! that is unplugged, or moves to another bridge, is lost.
//!
//! A line has one owner, so that order and rate hold: the worker that routes has all of them. The others hand over what is to enter. A rate is shared
//! by all workers, each of which has queues of its own.

use std::time::Instant;

use arrayvec::ArrayVec;
use packet::{Batch, Capabilities, Offload, Packet, Queued, TagEdit};

use super::Worker;
use super::command::{Handover, Purpose};
use super::stops::Stop;
use super::turn::List;
use crate::capture::Direction;
use crate::datapath::{DropReason, PortId};
use crate::transit::Stage;

/// Most batches that go on from one place before others get their turn: about two super-frames each, and more than one turn takes in.
const BATCHES: usize = 16;
/// Most lost packets of one place that are counted at once. A batch loses fewer.
const TOLD: usize = 4096;
/// What a line is given: packets as they are on a wire, but for checksums, which the next device may finish.
const ON_A_WIRE: Capabilities = Capabilities { checksum: true, tcp4: false, tcp6: false, udp: false, tunnel: false };

impl Worker {
    /// Gives a port its lines and rates, changes them, or takes them away.
    pub(super) fn set_stops(&mut self, id: PortId, impair: &api::Impair, now: Instant) {
        let limits = self.datapath.limits(id);
        if !self.stops.concerns(id, impair, &limits) {
            return;
        }
        self.stops.set_lines(id, impair, self.router.is_none(), now);
        self.stops.set_rates(id, &limits, now);
        self.stops.changed(now);
        // As much as most hold that are taken away.
        self.release(now);
        self.stops.end_empty(now);
    }

    /// Loses what waits at a port whose cable is pulled.
    pub(super) fn cut_stops(&mut self, id: PortId, now: Instant) {
        self.stops.lose_all(id, DropReason::PortDown, now);
    }

    /// Lets all that waits for a rate go on at once: this worker stands still from now on.
    pub(super) fn open_rates(&mut self, now: Instant) {
        // What leaves the rate of one port may come to that of another.
        while self.stops.open_rates(now) {
            self.release(now);
        }
    }

    /// Puts what was received, or comes from a line, where it has to wait from this place on, and takes it out of the batch.
    pub(super) fn hold_received(&mut self, from: Stop, now: Instant) {
        let batch = std::mem::take(&mut self.batch);
        let (mut goes_on, mut entered) = (ArrayVec::<bool, { Batch::MOST }>::new(), None);
        for frame in batch.frames() {
            let id = PortId(frame.ingress);
            let stop = self.stops.stop(id, from, frame.bytes(), now);
            let _ = goes_on.try_push(stop.is_none());
            let Some(stop) = stop else { continue };
            self.enter(id, stop, &Queued { frame, edit: TagEdit::Keep, peer: frame.peer }, now);
            let before = entered.replace((id, stop)).filter(|before| *before != (id, stop));
            before.into_iter().for_each(|(id, stop)| self.end_entering(id, stop, now));
        }
        self.batch = batch;
        let Some((id, stop)) = entered else { return };
        self.batch.retain(|index| goes_on.get(index).copied().unwrap_or(true));
        self.end_entering(id, stop, now);
    }

    /// Sends frames of a batch by a port, but for those that have to wait from this place on.
    pub(super) fn send_on<'a>(
        &mut self,
        id: PortId,
        from: Option<Stop>,
        frames: impl Iterator<Item = Queued<'a>>,
        batch: &Batch,
        now: Instant,
    ) {
        let mut list = List::new();
        for queued in frames {
            match from.and_then(|from| self.stops.stop(id, from, queued.frame.bytes(), now)) {
                None => {
                    let _ = list.try_push(queued);
                }
                Some(stop) => self.enter(id, stop, &queued, now),
            }
        }
        std::iter::successors(from, |stop| stop.next()).for_each(|stop| self.end_entering(id, stop, now));
        self.transmit(id, &list, batch);
    }

    /// Takes in what another worker handed over for a line that was taken away meanwhile.
    pub(super) fn receive_for_another(&mut self, handover: &Handover, now: Instant) {
        take_again(&mut self.batch, (handover.ingress, handover.peer), (&handover.bytes, handover.offload), handover.id);
        self.hold_received(Stop::RateIn, now);
        self.pass(now);
    }

    /// Puts what another worker handed over on a line.
    pub(super) fn enter_for_another(&mut self, id: PortId, direction: Direction, handover: &Handover, now: Instant) {
        let mut batch = std::mem::take(&mut self.stops.batch);
        take_again(&mut batch, (handover.ingress, handover.peer), (&handover.bytes, handover.offload), handover.id);
        let list: List<'_> = batch
            .frames()
            .iter()
            .map(|frame| Queued { frame, edit: TagEdit::Keep, peer: handover.peer })
            .take(Batch::MOST)
            .collect();
        let stop = Stop::line(direction);
        // The line may have been taken away while this waited for its turn.
        match (self.stops.has(id, stop), direction) {
            // So may the cable.
            (_, Direction::Out) if self.datapath.is_unplugged(id) => self.datapath.count_drops(id, DropReason::PortDown, 1),
            (false, Direction::Out) => self.transmit(id, &list, &batch),
            _ => list.iter().for_each(|queued| self.enter(id, stop, queued, now)),
        }
        drop(list);
        batch.clear();
        self.stops.batch = batch;
        self.end_entering(id, stop, now);
    }

    /// Lets a frame wait, cut into what it is on a wire. One that cannot be cut stays whole.
    fn enter(&mut self, id: PortId, stop: Stop, queued: &Queued<'_>, now: Instant) {
        let Some(stage) = self.stops.stage(id, stop) else { return self.hand_to_line(id, stop.direction(), queued) };
        stage.begin(queued.frame.bytes());
        let is_whole = stage.keeps_whole();
        let mut enter = |packet: &Packet<'_>| stage.push(packet, now);
        let capabilities = if is_whole { Capabilities::ALL } else { ON_A_WIRE };
        let uncut = self.egress.run(std::slice::from_ref(queued), capabilities, &mut enter);
        if !uncut.is_empty() {
            queued.show(&mut enter);
        }
        if is_whole {
            stage.count_more(queued.frame.segments().saturating_sub(1) as u64);
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
            self.datapath.count_lost_at_stop(id, direction, (DropReason::ImpairQueue, queued.frame.bytes().len() as u64));
        }
    }

    /// Counts, and shows to captures, what came of packets that had to wait here, or were due.
    pub(super) fn end_entering(&mut self, id: PortId, stop: Stop, now: Instant) {
        let direction = stop.direction();
        let Some(stage) = self.stops.stage(id, stop) else { return };
        self.datapath.count_treated(id, stop.is_line(), direction, stage.take_treated());
        let captured = self.shares.get_mut(id.0).is_some_and(|share| share.captured);
        for _ in 0..TOLD {
            let Some((reason, transit)) = stage.stock_mut().next_lost() else { break };
            self.datapath.count_lost_at_stop(id, direction, (reason, transit.bytes.len() as u64));
            if captured {
                self.watch.lost_at_stop(id, direction, &transit, reason);
            }
            stage.stock_mut().reuse(transit);
        }
        self.stops.note(id, stop, now);
    }

    /// Lets go on what is due anywhere; says whether anything was.
    pub(super) fn release(&mut self, now: Instant) -> bool {
        if self.stops.next().is_none_or(|next| next > now) {
            return false;
        }
        for (id, stop) in self.stops.due(now) {
            for _ in 0..BATCHES {
                if !self.let_out(id, stop, now) {
                    break;
                }
            }
        }
        self.stops.reckon(now);
        self.stops.end_empty(now);
        true
    }

    /// Lets a batch of what is due somewhere go on: into the switch, or to the device. Says whether more may be due.
    fn let_out(&mut self, id: PortId, stop: Stop, now: Instant) -> bool {
        let mut batch = match stop.direction() {
            Direction::In => std::mem::take(&mut self.batch),
            Direction::Out => std::mem::take(&mut self.stops.batch),
        };
        let stage = self.stops.stage(id, stop);
        let more = stage.is_some_and(|stage| fill(&mut batch, stage, now));
        if self.watch.is_on() {
            // A worker that did not yet know of this line may have handed it over without one.
            self.watch.number(&mut batch);
        }
        self.end_entering(id, stop, now);
        match stop.direction() {
            Direction::In => {
                self.batch = batch;
                stop.next().into_iter().for_each(|next| self.hold_received(next, now));
                self.pass(now);
            }
            Direction::Out => {
                let frames = batch.frames().iter().map(|frame| Queued { frame, edit: TagEdit::Keep, peer: frame.peer });
                self.send_on(id, stop.next(), frames, &batch, now);
                batch.clear();
                self.stops.batch = batch;
            }
        }
        more
    }
}

/// Fills a batch with what is due; says whether it is full.
fn fill(batch: &mut Batch, stage: &mut dyn Stage, now: Instant) -> bool {
    while !batch.is_full() {
        let Some(transit) = stage.pop(now) else { return false };
        take_again(batch, (transit.ingress, transit.peer), (&transit.bytes, transit.offload), transit.id);
        stage.stock_mut().reuse(transit);
    }
    true
}

/// Takes a packet into a batch that was taken in before, with its origin and the number by which captures know it.
fn take_again(batch: &mut Batch, (ingress, peer): (u32, u16), (bytes, offload): (&[u8], Offload), id: u64) {
    batch.set_origin(ingress, peer);
    batch.push(bytes, offload);
    batch.last_mut().into_iter().for_each(|pushed| pushed.id = id);
}
