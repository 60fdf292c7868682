//! What would become of a frame, from the port that it comes in by to the devices that it would leave by.

use std::time::{Duration, Instant};

use packet::{Egress, Offload, Packet, Queued};

use super::Worker;
use crate::capture::Direction;
use crate::datapath::{DropReason, Fate, Place, PortId, Step};
use crate::transit::Stage;

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
        let (met, kept_out) = self.meet_stops(place.port, Direction::In, (frame, offload, now));
        if let Some(reason) = kept_out {
            let fate = Fate::Dropped(reason);
            return Some(Foretold {
                steps: met.into_iter().chain([Step::Settled(fate)]).map(|step| (0, step)).collect(),
                fate,
                exits: Vec::new(),
            });
        }
        let mut steps: Vec<(usize, Step)> = met.into_iter().map(|step| (0, step)).chain(dry.steps).collect();
        let mut exits = Vec::new();
        for port in dry.outputs.used() {
            for departure in dry.outputs.queue(*port) {
                let Some(frame) = dry.batch.frames().get(departure.frame) else { continue };
                let leaving = (frame.bytes(), frame.offload, now);
                let (met, kept_in) = self.meet_stops(*port, Direction::Out, leaving);
                met.into_iter().for_each(|step| add(&mut steps, (departure.frame, step)));
                let queued = Queued { frame, edit: departure.edit, peer: departure.peer };
                let device = self.shares.get_mut(port.0).and_then(|share| share.device.as_ref());
                let mut lost = kept_in.or_else(|| device.is_none().then_some(DropReason::DeviceDown));
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

    /// The steps of a frame where it may have to wait at a port, and why it would be lost there for certain. No number is drawn.
    fn meet_stops(
        &mut self,
        port: PortId,
        direction: Direction,
        (frame, offload, now): (&[u8], Offload, Instant),
    ) -> (Vec<Step>, Option<DropReason>) {
        let shaper = self.stops.shaper(port, direction);
        let shaped = shaper.map(|shaper| match shaper.foretell(frame, now) {
            Ok(wait) => (Step::Shaped { port, direction, wait }, None),
            Err(reason) => (Step::Shaped { port, direction, wait: Duration::ZERO }, Some(reason)),
        });
        let line = self.stops.line(port, direction).filter(|line| !line.ends());
        let impaired = line.map(|line| {
            // A line has room for a super-frame as for the frames that it travels as.
            let lost = line.foretell(offload.longest_segment(frame), now);
            (Step::Impaired { port, direction, rules: Box::new(*line.rules()) }, lost)
        });
        let met = if direction == Direction::In { [impaired, shaped] } else { [shaped, impaired] };
        let (mut steps, mut lost) = (Vec::new(), None);
        for (step, reason) in met.into_iter().flatten() {
            if lost.is_none() {
                steps.push(step);
                lost = reason;
            }
        }
        (steps, lost)
    }
}

/// Adds a step. What became of the frame is told last.
fn add(steps: &mut Vec<(usize, Step)>, step: (usize, Step)) {
    let end = steps.iter().position(|(_, step)| matches!(step, Step::Settled(_))).unwrap_or(steps.len());
    steps.insert(end, step);
}
