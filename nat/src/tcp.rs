//! Just enough of TCP to choose a timeout: the state machine of RFC 6146, section 3.5.2, with the resets of RFC 7857, section
//! 2.2.
//!
//! Sequence numbers are not followed, so nothing here may kill a connection: a RST shortens its time, and any later packet that
//! is not one gives it back. A connection with one FIN may still carry data for hours and keeps the time of an established one.

use crate::session::{Class, Direction, State};

/// What was seen of a connection. One bit for each fact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct Tcp(u8);

/// The flags that count (RFC 9293, section 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Flags(pub(crate) u8);

impl Flags {
    pub(crate) const fn fin(self) -> bool {
        self.0 & 1 != 0
    }

    pub(crate) const fn syn(self) -> bool {
        self.0 & 2 != 0
    }

    pub(crate) const fn rst(self) -> bool {
        self.0 & 4 != 0
    }

    /// A SYN that begins a connection, not one that answers.
    pub(crate) const fn opens(self) -> bool {
        self.0 & 0x16 == 2
    }
}

/// SYN seen, or, in a connection picked up on its way, anything. Shifted by one: from inside.
const SEEN: u8 = 1;
const FIN: u8 = 4;
const ESTABLISHED: u8 = 16;
const RESET: u8 = 32;
const PICKED_UP: u8 = 64;

impl Tcp {
    /// One bit for each fact.
    pub(crate) const fn bits(self) -> u8 {
        self.0
    }

    /// What [`Tcp::bits`] gave; no other bits mean anything.
    pub(crate) const fn from_bits(bits: u8) -> Self {
        Self(bits & ((3 * SEEN) | (3 * FIN) | ESTABLISHED | RESET | PICKED_UP))
    }

    /// The state after a connection's first packet.
    pub(crate) const fn first(direction: Direction, flags: Flags) -> Self {
        let begun = Self(SEEN << direction as u8);
        if flags.opens() { begun } else { Self(PICKED_UP | begun.0).after(direction, flags) }
    }

    /// The state after the next packet.
    #[must_use]
    pub(crate) const fn after(self, direction: Direction, flags: Flags) -> Self {
        if flags.rst() {
            return Self(self.0 | RESET);
        }
        if flags.opens() && self.is_over() {
            return Self::first(direction, flags);
        }
        let mut next = self.0 & !RESET;
        if flags.syn() || next & PICKED_UP != 0 {
            next |= SEEN << direction as u8;
        }
        if flags.fin() {
            next |= FIN << direction as u8;
        }
        if !flags.syn() && both(next, SEEN) {
            next |= ESTABLISHED;
        }
        Self(next)
    }

    /// Whether a new connection may take this one's place.
    pub(crate) const fn is_over(self) -> bool {
        self.0 & RESET != 0 || both(self.0, FIN)
    }

    pub(crate) const fn state(self) -> State {
        if self.0 & RESET != 0 {
            State::Reset
        } else if both(self.0, FIN) {
            State::TimeWait
        } else if self.0 & ESTABLISHED != 0 {
            if self.0 & (FIN | FIN << 1) != 0 { State::FinWait } else { State::Established }
        } else if self.0 & PICKED_UP != 0 {
            State::PickedUp
        } else if both(self.0, SEEN) {
            State::SynReceived
        } else {
            State::SynSent
        }
    }

    pub(crate) const fn class(self) -> Class {
        match self.state() {
            State::Established | State::FinWait => Class::TcpEstablished,
            State::TimeWait | State::Reset => Class::TcpClosing,
            _ => Class::TcpOpening,
        }
    }
}

const fn both(bits: u8, one: u8) -> bool {
    bits & (one | one << 1) == one | one << 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use Direction::{Inbound, Outbound};

    const ACK: u8 = 0x10;
    const SYN: u8 = 2;
    const RST: u8 = 4;
    const FIN: u8 = 1;

    fn run(packets: &[(Direction, u8)]) -> Tcp {
        let (first, rest) = packets.split_first().unwrap();
        rest.iter().fold(Tcp::first(first.0, Flags(first.1)), |tcp, (direction, flags)| tcp.after(*direction, Flags(*flags)))
    }

    #[test]
    fn a_connection_opens_and_closes() {
        let life = [
            ((Outbound, SYN), State::SynSent),
            ((Outbound, SYN), State::SynSent),
            ((Inbound, SYN | ACK), State::SynReceived),
            ((Outbound, ACK), State::Established),
            ((Inbound, FIN | ACK), State::FinWait),
            ((Outbound, ACK), State::FinWait),
            ((Outbound, FIN | ACK), State::TimeWait),
            ((Inbound, ACK), State::TimeWait),
            ((Outbound, SYN), State::SynSent),
        ];
        for length in 1..=life.len() {
            let packets: Vec<_> = life[..length].iter().map(|step| step.0).collect();
            assert_eq!(run(&packets).state(), life[length - 1].1, "{length}");
        }
    }

    #[test]
    fn both_may_open_at_once() {
        let tcp = run(&[(Outbound, SYN), (Inbound, SYN), (Outbound, SYN | ACK), (Inbound, SYN | ACK)]);
        assert_eq!(tcp.state(), State::SynReceived);
        assert_eq!(tcp.after(Outbound, Flags(ACK)).state(), State::Established);
    }

    #[test]
    fn a_reset_is_taken_back_by_the_next_packet() {
        let tcp = run(&[(Inbound, SYN), (Outbound, SYN | ACK), (Inbound, ACK), (Inbound, RST)]);
        assert_eq!((tcp.state(), tcp.class()), (State::Reset, Class::TcpClosing));
        let tcp = tcp.after(Outbound, Flags(ACK));
        assert_eq!((tcp.state(), tcp.class()), (State::Established, Class::TcpEstablished));
    }

    #[test]
    fn a_connection_picked_up_is_established_once_both_sides_were_heard() {
        let tcp = run(&[(Outbound, ACK)]);
        assert_eq!((tcp.state(), tcp.class()), (State::PickedUp, Class::TcpOpening));
        assert_eq!(tcp.after(Outbound, Flags(ACK)).state(), State::PickedUp);
        assert_eq!(tcp.after(Inbound, Flags(ACK)).state(), State::Established);
    }

    #[test]
    fn half_closed_keeps_its_time() {
        let tcp = run(&[(Outbound, SYN), (Inbound, SYN | ACK), (Outbound, ACK), (Outbound, FIN | ACK)]);
        assert_eq!((tcp.state(), tcp.class()), (State::FinWait, Class::TcpEstablished));
        assert!(!tcp.is_over());
    }
}
