//! What bridges compare: identifiers, priority vectors (clauses 17.5 and 17.6), and the times of the root. Plain values; the lower is the better.

use std::fmt;

use packet::Mac;

use crate::SECOND;

/// A bridge: its priority, and its address where priorities are the same (clause 9.2.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BridgeIdentifier {
    /// With the twelve bits of the system ID extension, of which this bridge has none set.
    pub priority: u16,
    /// Its address.
    pub address: Mac,
}

impl fmt::Display for BridgeIdentifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.priority, self.address)
    }
}

/// A port of a bridge: four bits of priority and twelve of its number (clause 9.2.7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortIdentifier(pub u16);

impl PortIdentifier {
    const NUMBER: u16 = 0x0fff;

    /// The port of this number, 1 to 4095, with a priority that is a multiple of 16.
    pub const fn new(priority: u8, number: u16) -> Self {
        Self((priority as u16) << 8 & !Self::NUMBER | number & Self::NUMBER)
    }

    /// Its number.
    pub const fn number(self) -> u16 {
        self.0 & Self::NUMBER
    }
}

/// What a message or a port says of the way to the root, the first four parts of a priority vector. They are compared in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Vector {
    /// The root.
    pub root: BridgeIdentifier,
    /// What the way there costs from the bridge that says so.
    pub cost: u32,
    /// The bridge that says so.
    pub bridge: BridgeIdentifier,
    /// And its port.
    pub port: PortIdentifier,
}

impl Vector {
    /// Whether both come from the same port of the same bridge (clause 17.6).
    pub(crate) fn is_of_same_port(&self, other: &Self) -> bool {
        (self.bridge.address, self.port.number()) == (other.bridge.address, other.port.number())
    }
}

/// Times that go with a vector, as they are written: in 256ths of a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// How old what it says is, which is the number of bridges that it passed.
    pub message_age: u16,
    /// How old it may be.
    pub max_age: u16,
    /// How often its sender says so.
    pub hello: u16,
    /// How long a port waits that has no answer: first to learn, then to forward.
    pub forward_delay: u16,
}

/// A second of [`Times`].
const UNIT: u16 = 256;

impl Times {
    /// The recommended ones (table 17-1).
    pub(crate) const DEFAULT: Self = Self { message_age: 0, max_age: 20 * UNIT, hello: 2 * UNIT, forward_delay: 15 * UNIT };

    /// The same, within what the standard allows, and the two seconds of delay that Linux does.
    pub(crate) fn bounded(self) -> Self {
        Self {
            message_age: self.message_age,
            max_age: self.max_age.clamp(6 * UNIT, 40 * UNIT),
            hello: self.hello.clamp(UNIT, 10 * UNIT),
            forward_delay: self.forward_delay.clamp(2 * UNIT, 30 * UNIT),
        }
    }

    /// A second older, rounded to whole seconds.
    pub(crate) fn aged(self) -> Self {
        let age = self.message_age.saturating_add(UNIT + UNIT / 2);
        Self { message_age: age - age % UNIT, ..self }
    }

    /// Whether what it goes with is too old once it has passed one more bridge.
    pub(crate) fn is_expired(self) -> bool {
        self.aged().message_age > self.max_age
    }

    pub(crate) fn hello(self) -> u16 {
        ticks(self.hello)
    }

    pub(crate) fn max_age(self) -> u16 {
        ticks(self.max_age)
    }

    pub(crate) fn forward_delay(self) -> u16 {
        ticks(self.forward_delay)
    }
}

/// Ticks of the clock, not fewer than what is written.
fn ticks(written: u16) -> u16 {
    (written / UNIT) * SECOND + (written % UNIT * SECOND).div_ceil(UNIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_grow_by_a_second_and_are_whole() {
        let age = |message_age| Times { message_age, ..Times::DEFAULT }.aged().message_age;
        assert_eq!([age(0), age(127), age(128), age(256), age(u16::MAX)], [256, 256, 512, 512, 255 * 256]);
        let expired = |message_age| Times { message_age, ..Times::DEFAULT }.is_expired();
        assert!(!expired(19 * UNIT) && expired(20 * UNIT));
    }

    #[test]
    fn part_of_a_tick_is_a_tick() {
        assert_eq!([ticks(0), ticks(1), ticks(64), ticks(65), ticks(512)], [0, 1, 1, 2, 8]);
    }
}
