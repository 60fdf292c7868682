//! One session: a container's port, a remote's port, and the external port between them.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::key::{Endpoint, Kind, Transport};
use crate::rings::{Link, Linked};
use crate::tcp::{Flags, Tcp};

/// The rings that a session is in.
pub(crate) mod ring {
    /// Sessions that may end in the same second.
    pub(crate) const WHEEL: usize = 0;
    /// Sessions of the same source and worth.
    pub(crate) const SOURCE: usize = 1;
    /// Sessions of the same mapping.
    pub(crate) const MAPPING: usize = 2;
    /// Sessions of the same mapping, with the same remote address.
    pub(crate) const PEERS: usize = 3;
}

/// Which way a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum Direction {
    /// From outside to a container.
    Inbound = 0,
    /// From a container to the outside.
    Outbound = 1,
}

/// Which timeout a session has: those of [`Timeouts`](crate::Timeouts), the shortest first as usual.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Class {
    /// TCP that was closed or reset.
    TcpClosing,
    /// TCP that is not open yet.
    TcpOpening,
    /// One question to port 53.
    UdpDns,
    /// UDP in one direction only.
    UdpUnreplied,
    /// A query of ICMP or ICMPv6.
    Icmp,
    /// UDP in both directions.
    Udp,
    /// TCP that is open.
    TcpEstablished,
}

/// How a session's external port came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Binding {
    /// A mapping that all sessions of the container's port share.
    Mapped,
    /// Its own; others may have the same port with other remotes.
    Alone,
    /// A forward.
    Forwarded,
}

/// A session in the table. Two cache lines.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub(crate) struct Session {
    pub(crate) inside_address: u128,
    pub(crate) remote_address: u128,
    /// By [`Direction`].
    pub(crate) traffic: [Traffic; 2],
    pub(crate) links: [Link; 4],
    /// The first second in which it is no more.
    pub(crate) deadline: u32,
    /// Under which second the wheel has it.
    pub(crate) listed: u32,
    pub(crate) source: u32,
    pub(crate) inside_port: u16,
    /// The external port.
    pub(crate) port: u16,
    pub(crate) remote_port: u16,
    pub(crate) kind: Kind,
    pub(crate) class: Class,
    pub(crate) tcp: Tcp,
    pub(crate) binding: Binding,
    pub(crate) initiator: Direction,
}

/// What went in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Frames; a super-frame counts once.
    pub packets: u64,
    /// Bytes of their IP packets.
    pub bytes: u64,
}

/// How far a session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// TCP: one side wants a connection.
    SynSent,
    /// TCP: both sides want it.
    SynReceived,
    /// TCP: open.
    Established,
    /// TCP: under way when the switch first saw it, and one side not heard yet.
    PickedUp,
    /// TCP: closed by one side.
    FinWait,
    /// TCP: closed by both sides.
    TimeWait,
    /// TCP: reset by one side.
    Reset,
    /// UDP, ICMP: packets in one direction only.
    Unreplied,
    /// UDP, ICMP: packets in both directions.
    Replied,
}

/// A session, as listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionRow {
    /// The protocol.
    pub transport: Transport,
    /// Which way its first packet went.
    pub initiator: Direction,
    /// The container's address and port; for ICMP the identifier.
    pub inside: SocketAddr,
    /// The same as the outside sees it.
    pub external: SocketAddr,
    /// The other side.
    pub remote: SocketAddr,
    /// How far it is.
    pub state: State,
    /// Whether it exists by a forward.
    pub forwarded: bool,
    /// Seconds until it ends, if it stays idle.
    pub seconds_left: u32,
    /// From the container.
    pub outbound: Traffic,
    /// To the container.
    pub inbound: Traffic,
}

impl Session {
    pub(crate) const fn inside(&self) -> Endpoint {
        Endpoint { address: self.inside_address, port: self.inside_port }
    }

    pub(crate) const fn remote(&self) -> Endpoint {
        Endpoint { address: self.remote_address, port: self.remote_port }
    }

    /// Counts a packet.
    pub(crate) const fn count(&mut self, direction: Direction, bytes: usize) {
        let traffic = &mut self.traffic[direction as usize];
        traffic.packets += 1;
        traffic.bytes += bytes as u64;
    }

    /// Takes note of what a packet means for the session; returns the class that it has from now on.
    pub(crate) const fn follow(&mut self, direction: Direction, flags: Flags) -> Class {
        if let Transport::Tcp = self.kind.transport {
            if self.is_over() && flags.opens() {
                self.initiator = direction;
            }
            self.tcp = self.tcp.after(direction, flags);
            return self.tcp.class();
        }
        match (self.class, self.state()) {
            (Class::UdpUnreplied, State::Replied) => Class::Udp,
            (class, _) => class,
        }
    }

    /// Whether a new session between the same ports may take its place.
    pub(crate) const fn is_over(&self) -> bool {
        matches!(self.kind.transport, Transport::Tcp) && self.tcp.is_over()
    }

    pub(crate) const fn state(&self) -> State {
        match self.kind.transport {
            Transport::Tcp => self.tcp.state(),
            _ if self.traffic[0].packets > 0 && self.traffic[1].packets > 0 => State::Replied,
            _ => State::Unreplied,
        }
    }
}

impl Class {
    /// All classes, in the order of their numbers.
    pub(crate) const ALL: [Self; 7] =
        [Self::TcpClosing, Self::TcpOpening, Self::UdpDns, Self::UdpUnreplied, Self::Icmp, Self::Udp, Self::TcpEstablished];

    /// Whether little is lost with such a session: its connection is not open yet, or no more, or asks one question only.
    pub(crate) const fn is_transitory(self) -> bool {
        !matches!(self, Self::Udp | Self::TcpEstablished)
    }
}

impl Linked for Session {
    fn link(&mut self, ring: usize) -> &mut Link {
        &mut self.links[ring]
    }

    fn place(&self, ring: usize) -> Link {
        self.links[ring]
    }
}

impl State {
    /// The name that users see.
    pub const fn name(self) -> &'static str {
        match self {
            Self::SynSent => "syn-sent",
            Self::SynReceived => "syn-received",
            Self::Established => "established",
            Self::PickedUp => "picked-up",
            Self::FinWait => "fin-wait",
            Self::TimeWait => "time-wait",
            Self::Reset => "reset",
            Self::Unreplied => "unreplied",
            Self::Replied => "replied",
        }
    }
}
