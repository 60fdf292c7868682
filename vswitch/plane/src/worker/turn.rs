//! One breath of a worker: receive from one port, forward, send to all that got something.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use arrayvec::ArrayVec;
use packet::{Batch, MAX_PARTS, Packet, Queued};

use super::command::Handover;
use super::{Capture, Event, Worker};
use crate::capture::Direction;
use crate::datapath::{DropReason, PortId};
use crate::device::{Losses, ReceiveStatus, Received, Sent};

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
        let Some(queue) = self.queues.get_mut(id.0) else { return };
        queue.ready = false;
        let Some(device) = &mut queue.device else { return };
        let captured = queue.captured;
        self.batch.set_ingress(id.0);
        self.batch.set_clock(captured.then_some(nanoseconds));
        let Received { status, malformed, missed } = device.receive(&mut self.batch);
        self.datapath.count_drops(id, DropReason::Malformed, malformed.into());
        self.datapath.count_drops(id, DropReason::MissedByKernel, missed.into());
        device.report_drops(&mut |port, reason, frames| self.datapath.count_drops(port, reason, frames));
        let count = self.batch.frames().len();
        self.datapath.forward(now, &mut self.batch, &mut self.outputs);
        if captured {
            self.capture_received(count);
        }
        self.hand_over();
        self.flush(now);
        match status {
            ReceiveStatus::More => self.make_ready(id),
            ReceiveStatus::Drained => {}
            ReceiveStatus::Gone => {
                self.close(id);
                (self.notify)(Event::DeviceGone(id));
            }
        }
    }

    /// Routes frames that other workers received; says whether there were any.
    pub(super) fn route(&mut self, now: Instant) -> bool {
        while !self.batch.is_full() {
            let Ok(frame) = self.inbox.handovers.try_recv() else { break };
            self.batch.set_origin(frame.ingress, frame.peer);
            self.batch.push(&frame.bytes, frame.offload);
        }
        let any = !self.batch.frames().is_empty();
        if any {
            self.datapath.route(now, &mut self.batch, &mut self.outputs);
            self.flush(now);
        }
        any
    }

    /// Hands frames for gateways to the worker that routes.
    fn hand_over(&mut self) {
        let Some(router) = &self.router else { return };
        for index in self.outputs.handed_over() {
            let Some(frame) = self.batch.frames().get(*index) else { continue };
            let (bytes, offload) = (frame.bytes().to_vec(), frame.offload);
            if !router.hand_over(Handover { bytes, offload, ingress: frame.ingress, peer: frame.peer }) {
                self.datapath.count_drops(PortId(frame.ingress), DropReason::QueueFull, 1);
            }
        }
    }

    /// Sends what the outputs hold, and empties them and the batch.
    pub(super) fn flush(&mut self, now: Instant) {
        self.outputs.act(&mut self.batch);
        for index in 0..self.outputs.used().len() {
            if let Some(egress) = self.outputs.used().get(index).copied() {
                self.send(egress, now);
            }
        }
        self.outputs.clear();
        self.batch.clear();
    }

    /// Sends the queue of one port.
    fn send(&mut self, id: PortId, now: Instant) {
        let departures = self.outputs.queue(id);
        let rate = self.datapath.receive_rate(id);
        let (mut list, mut held_back) = (ArrayVec::<Queued<'_>, { Batch::MOST }>::new(), 0);
        for departure in departures {
            let Some(frame) = self.batch.frames().get(departure.frame) else { continue };
            if rate.is_none_or(|rate| rate.admit(frame.bytes().len(), now)) {
                let _ = list.try_push(Queued { frame, edit: departure.edit, peer: departure.peer });
            } else {
                held_back += 1;
            }
        }
        if held_back > 0 {
            self.datapath.count_drops(id, DropReason::ReceiveRate, held_back);
        }
        let Some(queue) = self.queues.get_mut(id.0) else { return };
        let captures = if queue.captured { self.captures.as_mut_slice() } else { &mut [] };
        let Some(device) = &mut queue.device else {
            self.datapath.count_drops(id, DropReason::DeviceDown, list.len() as u64);
            return;
        };
        let mut tally = Tally::default();
        let capabilities = device.capabilities();
        let unsegmentable = self.egress.run(&list, capabilities, &mut |packet: &Packet<'_>| {
            let sent = device.send(packet);
            tally.count(sent, packet);
            for capture in captures.iter_mut().filter(|capture| capture.wants(id)) {
                capture.offer_sent(id, packet, sent);
            }
        });
        tally.losses.add(device.flush());
        self.datapath.count_sent(id, tally.frames, tally.bytes);
        let Losses { full, down, refused, too_big } = tally.losses;
        if too_big > 0 && !std::mem::replace(&mut queue.told_too_big, true) {
            (self.notify)(Event::PacketTooBig(id));
        }
        for (reason, count) in [
            (DropReason::QueueFull, full),
            (DropReason::DeviceDown, down),
            (DropReason::Refused, refused),
            (DropReason::PacketTooBig, too_big),
            (DropReason::Unsegmentable, unsegmentable as u64),
        ] {
            if count > 0 {
                self.datapath.count_drops(id, reason, count);
            }
        }
    }

    /// Offers the first `count` frames of the batch, as they were received, to the captures of the ports that they came from.
    fn capture_received(&mut self, count: usize) {
        let mut dropped = self.outputs.dropped().iter().peekable();
        for (index, frame) in self.batch.frames().iter().take(count).enumerate() {
            let verdict = dropped.next_if(|(at, _)| *at == index).map(|(_, reason)| reason.name());
            let id = PortId(frame.ingress);
            for capture in self.captures.iter_mut().filter(|capture| capture.wants(id)) {
                capture.tap.offer(frame.at, id.0, Direction::In, verdict, &[frame.bytes()], frame.offload);
            }
        }
    }
}

impl Tally {
    fn count(&mut self, sent: Sent, packet: &Packet<'_>) {
        if sent == Sent::Done {
            self.frames += 1;
            self.bytes += packet.parts.iter().map(|part| part.len() as u64).sum::<u64>();
        }
        self.losses.count(sent, 1);
    }
}

impl Capture {
    fn offer_sent(&mut self, id: PortId, packet: &Packet<'_>, sent: Sent) {
        let verdict = match sent {
            Sent::Done => None,
            Sent::QueueFull => Some(DropReason::QueueFull.name()),
            Sent::Down => Some(DropReason::DeviceDown.name()),
            Sent::Refused => Some(DropReason::Refused.name()),
            Sent::TooBig => Some(DropReason::PacketTooBig.name()),
        };
        let parts: ArrayVec<&[u8], MAX_PARTS> = packet.parts.iter().map(|part| &**part).take(MAX_PARTS).collect();
        self.tap.offer(nanoseconds(), id.0, Direction::Out, verdict, &parts, packet.offload);
    }
}

/// Now, since the epoch.
fn nanoseconds() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
