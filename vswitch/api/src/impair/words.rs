//! An impairment in words: those that are read again, and those of a sentence.

use std::fmt;

use super::units::Time;
use super::{Delay, Distribution, Flap, Impairment, Loss, Percent, Reorder};

impl Distribution {
    /// All of them.
    pub(super) const ALL: [Self; 4] = [Self::Uniform, Self::Normal, Self::Pareto, Self::ParetoNormal];

    /// As it is written.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Uniform => "uniform",
            Self::Normal => "normal",
            Self::Pareto => "pareto",
            Self::ParetoNormal => "paretonormal",
        }
    }
}

impl fmt::Display for Impairment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            self.delay.map(|delay| delay.to_string()),
            self.loss.map(|loss| loss.to_string()),
            self.duplicate.map(|share| format!("duplicate {share}")),
            self.reorder.map(|reorder| reorder.to_string()),
            self.corrupt.map(|share| format!("corrupt {share}")),
            self.rate.map(|rate| format!("rate {rate}")),
            self.limit.map(|limit| format!("limit {}", String::from(limit))),
            self.codel.then(|| "codel".to_owned()),
            self.ecn.then(|| "ecn".to_owned()),
            self.flap.map(|flap| flap.to_string()),
        ];
        f.write_str(&parts.into_iter().flatten().collect::<Vec<_>>().join(" "))
    }
}

impl fmt::Display for Delay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "delay {}", Time(self.time))?;
        if !self.jitter.is_zero() {
            write!(f, " jitter {}", Time(self.jitter))?;
        }
        match self.distribution {
            Distribution::Uniform => Ok(()),
            other => write!(f, " distribution {}", other.name()),
        }
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Random(share) => write!(f, "loss {share}"),
            Self::Burst(share, burst) => write!(f, "loss burst {share} {}", burst.packets()),
            Self::GilbertElliott { p, r, bad: Percent::ALL, good: Percent::NONE } => write!(f, "loss gemodel {p} {r}"),
            Self::GilbertElliott { p, r, bad, good: Percent::NONE } => write!(f, "loss gemodel {p} {r} {bad}"),
            Self::GilbertElliott { p, r, bad, good } => write!(f, "loss gemodel {p} {r} {bad} {good}"),
        }
    }
}

impl fmt::Display for Reorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.gap {
            1 => write!(f, "reorder {}", self.share),
            gap => write!(f, "reorder {} gap {gap}", self.share),
        }
    }
}

impl fmt::Display for Flap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "flap {} every {}", Time(self.down), Time(self.every))
    }
}

impl Impairment {
    /// What it may do to a packet, as the end of a sentence.
    pub fn effects(&self) -> String {
        let parts = [
            self.flap.map(|flap| format!("lost for {} every {}", Time(flap.down), Time(flap.every))),
            self.loss.map(lost),
            self.duplicate.map(|share| format!("duplicated with {share}")),
            self.corrupt.map(|share| format!("corrupted with {share}")),
            self.rate.map(|rate| match (self.codel, self.ecn) {
                (false, _) => format!("sent at {rate}"),
                (true, false) => format!("sent at {rate} from a queue that CoDel keeps short"),
                (true, true) => format!("sent at {rate} from a queue that CoDel keeps short by marks"),
            }),
            self.delay.map(|delay| match delay.jitter.is_zero() {
                true => format!("delayed by {}", Time(delay.time)),
                false => format!("delayed by {} +- {}", Time(delay.time), Time(delay.jitter)),
            }),
            self.reorder.map(|reorder| format!("sent ahead of others with {}", reorder.share)),
        ];
        parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }
}

fn lost(loss: Loss) -> String {
    match loss {
        Loss::Random(share) => format!("lost with {share}"),
        Loss::Burst(share, burst) => format!("lost with {share}, in runs of {}", burst.packets()),
        Loss::GilbertElliott { p, r, bad, .. } => format!("lost with {bad} in a bad state (into it {p}, out of it {r})"),
    }
}
