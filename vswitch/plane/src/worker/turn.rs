//! One breath of a worker: receive from one port, forward, send to all that got something.

use std::time::Instant;

use api::CapturePoint;
use arrayvec::ArrayVec;
use packet::{Batch, Egress, Packet, Queued, TagEdit};

use super::capture::{Watch, nanoseconds};
use super::command::{Handover, Purpose};
use super::stops::Stop;
use super::{Event, Share, Slots, Worker};
use crate::capture::Direction;
use crate::datapath::{DropReason, Errand, PortId};
use crate::device::{Losses, ReceiveStatus, Received, Sent};
use crate::transit::Transit;

/// What sending a queue came to.
#[derive(Default)]
struct Tally {
    frames: u64,
    bytes: u64,
    losses: Losses,
}

impl Worker {
    /// Serves the port at the head of the queue.
    pub(super) fn turn(&mut self, now: Instant) {
        let Some(id) = self.ready.pop_front() else { return };
        let Some(share) = self.shares.get_mut(id.0) else { return };
        share.ready = false;
        let Some(device) = &mut share.device else { return };
        let captured = share.captured && self.watch.is_capturing();
        self.batch.set_ingress(id.0);
        self.batch.set_clock(captured.then_some(nanoseconds));
        let Received { status, malformed, missed } = device.receive(&mut self.batch);
        // A capture may begin while a frame is on a line.
        if self.watch.is_on() || self.stops.any() {
            self.watch.number(&mut self.batch);
        }
        if self.watch.takes_underlay() {
            show_underlay(&mut self.watch, &self.batch, &self.shares, &mut self.egress);
        }
        let Some(device) = self.shares.get_mut(id.0).and_then(|share| share.device.as_mut()) else { return };
        self.datapath.count_drops(id, DropReason::Malformed, malformed.into());
        self.datapath.count_drops(id, DropReason::MissedByKernel, missed.into());
        device.report_drops(&mut |port, reason, frames| self.datapath.count_drops(port, reason, frames));
        if self.stops.any_in() {
            self.hold_received(Stop::first(Direction::In), now);
        }
        self.pass(now);
        match status {
            ReceiveStatus::More => self.make_ready(id),
            ReceiveStatus::Drained => {}
            ReceiveStatus::Gone => {
                self.close(id);
                (self.notify)(Event::DeviceGone(id));
            }
        }
    }

    /// Decides about the frames of the batch, and sends what comes of it.
    pub(super) fn pass(&mut self, now: Instant) {
        self.datapath.forward(now, &mut self.batch, &mut self.outputs);
        // The worker that routes hears where the sender of a frame is before it answers the frame.
        self.tell_news();
        self.hand_over();
        if self.watch.is_on() {
            self.watch.received(&self.batch, &self.outputs, &self.datapath);
        }
        self.capture_late();
        self.flush(now);
    }

    /// Routes frames that other workers received, or puts them on impaired lines; says whether there were any.
    pub(super) fn route(&mut self, now: Instant) -> bool {
        self.inbox.take_in(now).into_iter().for_each(|frame| self.lose_handover(frame));
        let mut errands = ArrayVec::<Errand, { Batch::MOST }>::new();
        let (mut entered, mut late) = (0, Vec::new());
        while !self.batch.is_full() && entered < Batch::MOST {
            let Some(frame) = self.inbox.next_handover() else { break };
            let errand = match frame.purpose {
                Purpose::Route(errand) => errand,
                Purpose::Enter(port, direction) => {
                    entered += 1;
                    match direction {
                        // The line may have been taken away while this was on its way.
                        Direction::In if !self.stops.has(port, Stop::LineIn) => late.push(frame),
                        _ => self.enter_for_another(port, direction, &frame, now),
                    }
                    continue;
                }
            };
            self.batch.set_origin(frame.ingress, frame.peer);
            self.batch.push(&frame.bytes, frame.offload);
            self.batch.last_mut().into_iter().for_each(|pushed| (pushed.at, pushed.id) = (frame.at, frame.id));
            errands.push(errand);
        }
        if !errands.is_empty() {
            self.hear_news(now);
            self.datapath.route(now, &mut self.batch, &errands, &mut self.outputs);
            if self.watch.is_on() {
                self.watch.received(&self.batch, &self.outputs, &self.datapath);
            }
            self.capture_late();
            self.flush(now);
        }
        late.iter().for_each(|frame| self.receive_for_another(frame, now));
        !errands.is_empty() || entered > 0
    }

    /// Counts a frame that was handed over and finds no room, and shows it to captures.
    pub(super) fn lose_handover(&mut self, frame: Handover) {
        let Handover { bytes, offload, ingress, peer, id, purpose, .. } = frame;
        let (port, direction, reason) = match purpose {
            Purpose::Route(_) => (PortId(ingress), Direction::In, DropReason::QueueFull),
            Purpose::Enter(port, direction) => (port, direction, DropReason::ImpairQueue),
        };
        match purpose {
            // It was counted as received where it came in.
            Purpose::Route(_) => self.datapath.count_drops(port, reason, 1),
            Purpose::Enter(..) => self.datapath.count_lost_at_stop(port, direction, (reason, bytes.len() as u64)),
        }
        if self.shares.get_mut(port.0).is_some_and(|share| share.captured) {
            self.watch.lost_at_stop(port, direction, &Transit { bytes, offload, ingress, peer, id }, reason);
        }
    }

    /// Tells of frames for the services and for spanning trees.
    pub(super) fn tell_punts(&mut self) {
        for punt in self.datapath.take_punts() {
            (self.notify)(Event::Punt(punt));
        }
        for bpdu in self.datapath.take_bpdus() {
            (self.notify)(Event::Bpdu(bpdu));
        }
    }

    /// Hands frames for gateways to the worker that routes.
    fn hand_over(&mut self) {
        let Some(router) = &self.router else { return };
        let mut lost = ArrayVec::<usize, { Batch::MOST }>::new();
        for (index, errand) in self.outputs.handed_over() {
            let Some(frame) = self.batch.frames().get(*index) else { continue };
            let (bytes, offload, purpose) = (frame.bytes().to_vec(), frame.offload, Purpose::Route(*errand));
            let (ingress, peer, at, id) = (frame.ingress, frame.peer, frame.at, frame.id);
            let handover = Handover { bytes, offload, ingress, peer, at, id, purpose };
            if !router.hand_over(handover) {
                self.datapath.count_drops(PortId(frame.ingress), DropReason::QueueFull, 1);
                lost.push(*index);
            }
        }
        lost.into_iter().for_each(|index| self.outputs.lose(index, DropReason::QueueFull));
    }

    /// Sends what the outputs hold, and empties them and the batch.
    pub(super) fn flush(&mut self, now: Instant) {
        let watched = self.watch.is_on();
        if watched || self.stops.any() {
            self.watch.number_own(&mut self.batch, &self.outputs);
        }
        if watched {
            self.watch.decided(&self.batch, &self.outputs, &self.datapath);
        }
        self.outputs.act(&mut self.batch);
        if watched {
            self.watch.translated(&self.batch, CapturePoint::PostNat);
        }
        for index in 0..self.outputs.used().len() {
            if let Some(egress) = self.outputs.used().get(index).copied() {
                self.send(egress, now);
            }
        }
        if watched {
            self.watch.end_batch();
        }
        self.outputs.clear();
        self.batch.clear();
    }

    /// Sends the queue of one port.
    fn send(&mut self, id: PortId, now: Instant) {
        let batch = std::mem::take(&mut self.batch);
        let frames = self.outputs.queue(id).iter().filter_map(|departure| {
            let frame = batch.frames().get(departure.frame)?;
            Some(Queued { frame, edit: departure.edit, peer: departure.peer })
        });
        let list: List<'_> = frames.take(Batch::MOST).collect();
        match self.stops.any_out(id) {
            true => self.send_on(id, Some(Stop::first(Direction::Out)), list.into_iter(), &batch, now),
            false => {
                self.transmit(id, &list, &batch);
                drop(list);
            }
        }
        self.batch = batch;
    }

    /// Sends frames of a batch by the device of a port.
    pub(super) fn transmit(&mut self, id: PortId, list: &List<'_>, batch: &Batch) {
        let Some(share) = self.shares.get_mut(id.0) else { return };
        let (watch, captured) = (&mut self.watch, share.captured);
        let Some(device) = &mut share.device else {
            watch.lost(id, list.iter().filter(|_| captured), batch, DropReason::DeviceDown);
            return self.datapath.count_drops(id, DropReason::DeviceDown, list.len() as u64);
        };
        let mut tally = Tally::default();
        let capabilities = device.capabilities();
        let uncut = self.egress.run(list, capabilities, &mut |packet: &Packet<'_>| {
            let sent = device.send(packet);
            tally.count(sent, packet);
            if captured {
                watch.sent(id, packet, batch, reason(sent));
                if sent == Sent::Done && watch.takes_underlay() {
                    device.show_sent(packet, &mut |bytes| watch.departed(id, packet, batch, bytes));
                }
            }
        });
        let places = uncut.iter().filter(|_| captured);
        watch.lost(id, places.filter_map(|place| list.get(*place)), batch, DropReason::Unsegmentable);
        self.datapath.count_drops(id, DropReason::Unsegmentable, uncut.len() as u64);
        tally.losses.add(device.flush());
        self.datapath.count_sent(id, tally.frames, tally.bytes);
        let Losses { full, down, refused, too_big } = tally.losses;
        if too_big > 0 && !std::mem::replace(&mut share.told_too_big, true) {
            (self.notify)(Event::PacketTooBig(id));
        }
        for (sent, count) in [(Sent::QueueFull, full), (Sent::Down, down), (Sent::Refused, refused), (Sent::TooBig, too_big)] {
            reason(sent).into_iter().for_each(|reason| self.datapath.count_drops(id, reason, count));
        }
    }
}

/// Shows the frames that came by tunnels with the headers around them, as many datagrams as they were.
fn show_underlay(watch: &mut Watch, batch: &Batch, shares: &Slots<Share>, egress: &mut Egress) {
    for frame in batch.frames().iter().filter(|frame| frame.outer.port != 0) {
        let Some(tunnel) = shares.get(frame.ingress).and_then(|share| share.device.as_ref()) else { continue };
        let queued = [Queued { frame, edit: TagEdit::Keep, peer: frame.peer }];
        // What cannot be cut did not come by a tunnel.
        egress.run(&queued, tunnel.capabilities(), &mut |packet| {
            tunnel.show_received(packet, frame.outer, &mut |bytes| watch.arrived(frame, bytes));
        });
    }
}

/// The frames of one port's queue.
pub(super) type List<'a> = ArrayVec<Queued<'a>, { Batch::MOST }>;

impl Tally {
    fn count(&mut self, sent: Sent, packet: &Packet<'_>) {
        if sent == Sent::Done {
            self.frames += 1;
            self.bytes += packet.parts.iter().map(|part| part.len() as u64).sum::<u64>();
        }
        self.losses.count(sent, 1);
    }
}

/// Why a packet did not leave, if sending it ended like this.
const fn reason(sent: Sent) -> Option<DropReason> {
    match sent {
        Sent::Done => None,
        Sent::QueueFull => Some(DropReason::QueueFull),
        Sent::Down => Some(DropReason::DeviceDown),
        Sent::Refused => Some(DropReason::Refused),
        Sent::TooBig => Some(DropReason::PacketTooBig),
    }
}
