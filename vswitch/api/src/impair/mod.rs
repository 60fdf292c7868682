//! What a port's line does to packets on purpose, as users write it: `delay 20ms jitter 5ms loss 1%`. The words are those of tc-netem(8)
//! where it has one. The data plane carries them out (`plane::impair`).

mod parse;
mod table;
mod units;
mod words;

use std::time::Duration;

use super::{ByteSize, Rate};
pub use parse::ImpairError;
pub use table::Impair;
pub use units::Percent;

/// What happens to the packets of one direction. Each word is there or not, and all of them combine; at least one is there.
///
/// Only [`str::parse`] makes one, so that every one of them is possible. [`ToString`] writes it so that it is read the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Impairment {
    /// How long packets are under way.
    pub delay: Option<Delay>,
    /// Which of them are lost.
    pub loss: Option<Loss>,
    /// How many arrive twice.
    pub duplicate: Option<Percent>,
    /// How many overtake those before them. Only with a delay.
    pub reorder: Option<Reorder>,
    /// How many have a bit turned.
    pub corrupt: Option<Percent>,
    /// How fast they are sent.
    pub rate: Option<Rate>,
    /// Most bytes that wait for the rate; without a rate, most that are under way. Only with a rate or a delay.
    pub limit: Option<ByteSize>,
    /// Whether CoDel (RFC 8289) keeps short what waits for the rate. Only with a rate.
    pub codel: bool,
    /// Whether CoDel marks packets that can be marked (RFC 3168) instead of dropping them. Only with CoDel.
    pub ecn: bool,
    /// When the line is interrupted.
    pub flap: Option<Flap>,
}

/// How long packets are under way, at most [`Impairment::LONGEST_DELAY`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delay {
    /// The mean.
    pub time: Duration,
    /// How far it strays from that; not more than the mean.
    pub jitter: Duration,
    /// How the jitter is distributed.
    pub distribution: Distribution,
}

/// The distribution of a jitter around the mean delay, as netem's tables have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Distribution {
    /// Evenly from one jitter less to one more.
    #[default]
    Uniform,
    /// The jitter is the standard deviation, cut at four of them.
    Normal,
    /// Pareto with the exponent 3, of mean 0, cut at four jitters: mostly early, seldom much too late.
    Pareto,
    /// A quarter normal, three quarters Pareto.
    ParetoNormal,
}

/// Which packets are lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Each on its own, with this probability.
    Random(Percent),
    /// This share of them, in runs of this mean length.
    Burst(Percent, Burst),
    /// By the Gilbert-Elliott model of two states, in percent of packets.
    GilbertElliott {
        /// From good to bad.
        p: Percent,
        /// From bad to good.
        r: Percent,
        /// Lost while it is bad; netem's `1-h`.
        bad: Percent,
        /// Lost while it is good; netem's `1-k`.
        good: Percent,
    },
}

/// The mean length of a run of lost packets, 1 to [`Burst::MOST`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Burst(u32);

/// How many packets overtake those before them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reorder {
    /// The share of those that may.
    pub share: Percent,
    /// Of so many packets, one may; 1 or more.
    pub gap: u32,
}

/// When a line is interrupted: for some time at the end of each period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flap {
    /// How long it is down.
    pub down: Duration,
    /// The period, longer than that.
    pub every: Duration,
}

impl Impairment {
    /// The longest delay.
    pub const LONGEST_DELAY: Duration = Duration::from_secs(60);
    /// The longest period of a flap.
    pub const LONGEST_PERIOD: Duration = Duration::from_secs(86_400);
    /// The smallest limit: a packet of 1500 bytes.
    pub const LEAST_BYTES: u64 = 1514;
    /// Most bytes that one direction of a port keeps, whatever its limit is.
    pub const MOST_BYTES: u64 = 64 << 20;

    /// Whether all packets are delayed alike, and nothing else happens to them.
    pub fn is_even_delay(&self) -> bool {
        let is_even = self.delay.is_some_and(|delay| delay.jitter.is_zero());
        is_even && Self { delay: None, ..*self } == Self::NOTHING
    }

    /// Nothing, to which words are added.
    const NOTHING: Self = Self {
        delay: None,
        loss: None,
        duplicate: None,
        reorder: None,
        corrupt: None,
        rate: None,
        limit: None,
        codel: false,
        ecn: false,
        flap: None,
    };
}

impl Burst {
    /// The longest.
    pub const MOST: u32 = 1_000_000;

    /// In packets.
    pub const fn packets(self) -> u32 {
        self.0
    }
}

#[cfg(test)]
mod tests;
