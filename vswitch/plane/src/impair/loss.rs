//! Which packets of a line are lost: each on its own, or in bursts by a model of two states.

use api::{Loss, Percent};

use super::random::Draws;

/// The model of Gilbert and Elliott: while the line is good or bad, so many are lost, and after each packet it may change. Random loss is a line
/// that is always good.
#[derive(Debug)]
pub(super) struct LossModel {
    /// `None`: no packet is ever lost.
    model: Option<Model>,
    is_bad: bool,
}

#[derive(Debug)]
struct Model {
    /// The probability to become bad, while it is good.
    worsens: f64,
    /// The probability to become good, while it is bad.
    recovers: f64,
    /// The shares that are lost while it is good and while it is bad.
    lost: [Percent; 2],
}

impl LossModel {
    /// On a line that is good.
    pub(super) fn new(loss: Option<Loss>) -> Self {
        let model = loss.map(|loss| match loss {
            Loss::Random(share) => Model { worsens: 0.0, recovers: 1.0, lost: [share, share] },
            Loss::Burst(share, burst) => {
                // A run ends after each packet of it with the probability 1 / length. The line is bad for the share of time that
                // `worsens / (worsens + recovers)` is.
                let (share, recovers) = (share.probability(), 1.0 / f64::from(burst.packets()));
                let worsens = if share < 1.0 { recovers * share / (1.0 - share) } else { 1.0 };
                Model { worsens, recovers, lost: [Percent::NONE, Percent::ALL] }
            }
            Loss::GilbertElliott { p, r, bad, good } => {
                Model { worsens: p.probability(), recovers: r.probability(), lost: [good, bad] }
            }
        });
        Self { model, is_bad: false }
    }

    /// Whether the next packet is lost.
    pub(super) fn next(&mut self, stream: &mut Draws) -> bool {
        let Some(Model { worsens, recovers, lost }) = &self.model else { return false };
        let lost = lost[usize::from(self.is_bad)].takes(stream.next());
        let changes = if self.is_bad { *recovers } else { *worsens };
        self.is_bad ^= stream.fraction() < changes;
        lost
    }

    /// Whether every packet is lost.
    pub(super) fn is_certain(&self) -> bool {
        self.model.as_ref().is_some_and(|model| model.lost == [Percent::ALL; 2])
    }
}
