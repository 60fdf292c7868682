//! What would become of a frame, from the port that it comes in by to the devices that it would leave by.

use std::time::Instant;

use packet::{Egress, Offload, Packet, Queued};

use super::Worker;
use crate::capture::Direction;
use crate::datapath::{DropReason, Fate, Mode, Place, PortId, Step};

/// What would become of a frame.
#[derive(Debug)]
pub struct Foretold {
    /// The steps that it would take, and those of the frames that the switch would make about it. Frame 0 is the one itself.
    pub steps: Vec<(usize, Step)>,
    /// What would become of it.
    pub fate: Fate,
    /// What would leave, in the order of the ports.
    pub exits: Vec<Exit>,
}

/// A frame that would leave by a port, or the frames that it would be cut into.
#[derive(Debug, PartialEq, Eq)]
pub struct Exit {
    /// Which one: 0 is the frame itself.
    pub frame: usize,
    /// The port.
    pub port: PortId,
    /// Which of the peers behind a tunnel gets it; 0: all of them, or, for another port, the stations behind it.
    pub peer: u16,
    /// As it would leave, from its destination address on; of several frames, the first.
    pub bytes: Vec<u8>,
    /// What would be left to do on it.
    pub offload: Offload,
    /// How many frames they are.
    pub frames: usize,
    /// Why it would not leave in the end.
    pub lost: Option<DropReason>,
}

impl Worker {
    /// What would become of a frame that came in at a place now. Nothing changes. `None`: there is no such port.
    pub(super) fn foretell(&mut self, place: Place, (frame, offload): (&[u8], Offload), now: Instant) -> Option<Foretold> {
        let dry = self.datapath.dry_run(now, place, frame, offload)?;
        // A line has room for a super-frame as for the frames that it travels as.
        let length = offload.longest_segment(frame);
        let (met, kept_out) = self.meet_line((0, place.port), Direction::In, (length, now)).unzip();
        if let Some(reason) = kept_out.flatten() {
            let fate = Fate::Dropped(reason);
            return Some(Foretold {
                steps: met.into_iter().chain([(0, Step::Settled(fate))]).collect(),
                fate,
                exits: Vec::new(),
            });
        }
        let mut steps: Vec<(usize, Step)> = met.into_iter().chain(dry.steps).collect();
        let mut exits = Vec::new();
        for port in dry.outputs.used() {
            for departure in dry.outputs.queue(*port) {
                let Some(frame) = dry.batch.frames().get(departure.frame) else { continue };
                let length = frame.offload.longest_segment(frame.bytes());
                let met = self.meet_line((departure.frame, *port), Direction::Out, (length, now));
                let lost_on_line = met.as_ref().and_then(|(_, lost)| *lost);
                met.into_iter().for_each(|(step, _)| add(&mut steps, step));
                let queued = Queued { frame, edit: departure.edit, peer: departure.peer };
                let admits = |rate: &crate::datapath::Limiter| rate.admit_bytes(frame.bytes().len(), now, Mode::Dry);
                let device = self.queues.get_mut(port.0).and_then(|queue| queue.device.as_ref());
                let mut lost = match device {
                    _ if !self.datapath.receive_rate(*port).is_none_or(admits) => Some(DropReason::ReceiveRate),
                    _ if lost_on_line.is_some() => lost_on_line,
                    None => Some(DropReason::DeviceDown),
                    Some(_) => None,
                };
                let capabilities = device.map(|device| device.capabilities()).unwrap_or_default();
                let (mut first, mut frames) = (None, 0);
                let mut show = |packet: &Packet<'_>| {
                    first.get_or_insert_with(|| (packet.to_vec(), packet.offload));
                    frames += 1;
                };
                if !Egress::new().run(&[queued], capabilities, &mut show).is_empty() {
                    queued.show(&mut show);
                    lost = Some(DropReason::Unsegmentable);
                }
                if frames > 1 {
                    add(&mut steps, (departure.frame, Step::Cut { port: *port, frames }));
                }
                let (frame, peer) = (departure.frame, departure.peer);
                exits.extend(first.map(|(bytes, offload)| Exit { frame, port: *port, peer, bytes, offload, frames, lost }));
            }
        }
        Some(Foretold { steps, fate: dry.fate, exits })
    }

    /// The step of a frame that meets the line of a port, if there is one, and why it would be lost there for certain. No number is drawn.
    fn meet_line(
        &mut self,
        (frame, port): (usize, PortId),
        direction: Direction,
        (length, now): (usize, Instant),
    ) -> Option<((usize, Step), Option<DropReason>)> {
        let line = self.lines.line(port, direction).filter(|line| !line.ends())?;
        Some(((frame, Step::Impaired { port, direction, rules: Box::new(*line.rules()) }), line.foretell(length, now)))
    }
}

/// Adds a step. What became of the frame is told last.
fn add(steps: &mut Vec<(usize, Step)>, step: (usize, Step)) {
    let end = steps.iter().position(|(_, step)| matches!(step, Step::Settled(_))).unwrap_or(steps.len());
    steps.insert(end, step);
}
