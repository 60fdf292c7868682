//! What would become of a frame: it takes its way through the datapath as any other, and nothing changes ([`Mode::Dry`]).

use std::time::Instant;

use packet::{Batch, Offload};

use super::{Datapath, Fate, Mode, Observer, Outputs, Place, Step};

/// What would become of a frame.
#[derive(Debug)]
pub struct DryRun {
    /// The steps that it would take, and those of the frames that the switch would make about it, each by its place in the batch.
    pub steps: Vec<(usize, Step)>,
    /// What would become of it.
    pub fate: Fate,
    /// The frame, and behind it those that the switch would make about it, as they would leave but for their tags.
    pub batch: Batch,
    /// Where they would leave.
    pub outputs: Outputs,
}

/// Keeps the steps of a frame that changes nothing.
#[derive(Debug, Default)]
struct Steps(Vec<(usize, Step)>);

impl Observer for Steps {
    const MODE: Mode = Mode::Dry;

    fn see(&mut self, frame: usize, step: impl FnOnce() -> Step) {
        self.0.push((frame, step()));
    }
}

impl Datapath {
    /// What would become of a frame that came in at a place now. `None`: there is no such port.
    ///
    /// A packet that waits in the switch is not part of it: those that the frame would release (it is the answer of a neighbour, or the first
    /// fragment of their packet) would leave behind it.
    pub fn dry_run(&mut self, now: Instant, place: Place, frame: &[u8], offload: Offload) -> Option<DryRun> {
        let (mut batch, mut outputs, mut steps) = (Batch::new(), Outputs::new(), Steps::default());
        batch.set_origin(place.port.0, place.peer);
        batch.push(frame, offload);
        self.forward_observed(now, &mut batch, &mut outputs, &mut steps);
        let fate = outputs.fates().first().copied().flatten()?;
        outputs.act(&mut batch);
        Some(DryRun { steps: steps.0, fate, batch, outputs })
    }
}
