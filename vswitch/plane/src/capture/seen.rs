//! What a worker says of a frame beside its bytes, and which frames a capture takes. The worker makes both; the reader's end turns the first into words.

use api::{CapturePoint, FrameNote};
use arrayvec::ArrayVec;

use super::pcapng::SNAP_LENGTH;
use super::{Direction, Program};
use crate::datapath::{DropReason, Fate};

/// A frame at one point of its way.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Nanoseconds since the epoch.
    pub at: u64,
    /// The frame's number; 0: it has none.
    pub id: u64,
    /// The point.
    pub point: CapturePoint,
    /// The port under which a capture shows it.
    pub port: u32,
    /// Which way it goes there.
    pub direction: Direction,
    /// The port that it came in by; `None`: the switch made it.
    pub ingress: Option<u32>,
    /// The ports that it leaves by, as far as that is known.
    pub ways: Ways,
    /// Its VLAN.
    pub vlan: Option<u16>,
    /// What NAT changes of its source and of its destination.
    pub nat: Option<Box<[Option<nat::EndChange>; 2]>>,
    /// What became of it, if that is known here.
    pub fate: Option<Fate>,
}

/// Ports that a frame leaves by: the first few, and how many more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ways {
    first: ArrayVec<u16, 4>,
    more: u16,
}

impl Ways {
    /// Adds a port.
    pub fn add(&mut self, port: u32) {
        let is_full = u16::try_from(port).map_or(true, |port| self.first.try_push(port).is_err());
        if is_full {
            self.more = self.more.saturating_add(1);
        }
    }

    /// Whether a port is among the first few.
    pub fn has(&self, port: u32) -> bool {
        self.first.iter().any(|first| u32::from(*first) == port)
    }

    /// Its one port, or the first of several.
    pub fn first(&self) -> Option<u32> {
        self.first.first().map(|port| u32::from(*port))
    }
}

impl Seen {
    /// A frame of a port, of which nothing else is known.
    pub fn at(at: u64, port: u32, direction: Direction) -> Self {
        let (point, ingress) = match direction {
            Direction::In => (CapturePoint::Ingress, Some(port)),
            Direction::Out => (CapturePoint::Egress, None),
        };
        let (ways, vlan, nat, fate) = (Ways::default(), None, None, None);
        Self { at, id: 0, point, port, direction, ingress, ways, vlan, nat, fate }
    }

    /// As a frame that was dropped.
    #[must_use]
    pub fn dropped(self, reason: DropReason) -> Self {
        Self { fate: Some(Fate::Dropped(reason)), ..self }
    }

    /// Whether it was dropped.
    pub fn is_dropped(&self) -> bool {
        self.fate.and_then(Fate::drop_reason).is_some()
    }

    /// The ports that it leaves by, as far as they are known by number.
    fn leaves_by(&self) -> ArrayVec<u32, 4> {
        match self.direction {
            Direction::Out => std::iter::once(self.port).collect(),
            Direction::In => self.ways.first.iter().map(|way| u32::from(*way)).collect(),
        }
    }

    /// The network of the tunnel that it comes or leaves by, with the networks of ports by their slots.
    pub(super) fn network(&self, of: impl Fn(u32) -> Option<u32>) -> Option<u32> {
        self.ingress.and_then(&of).or_else(|| self.leaves_by().into_iter().find_map(&of))
    }

    /// What is said of it, with the names and networks of ports by their slots.
    pub(super) fn note(&self, name: impl Fn(u32) -> String, network: impl Fn(u32) -> Option<u32>) -> FrameNote {
        let came_in = self.ingress.map(&name);
        let vni = self.network(network);
        let mut out: Vec<String> = self.leaves_by().into_iter().map(&name).collect();
        if self.ways.more > 0 && self.direction == Direction::In {
            out.push(format!("+{}", self.ways.more));
        }
        let drop = self.fate.and_then(Fate::drop_reason).map(|reason| reason.name().to_owned());
        let ends = self.nat.iter().flat_map(|ends| ends.iter().flatten());
        let fate = self.fate.filter(|_| drop.is_none() && out.is_empty());
        FrameNote {
            id: Some(self.id).filter(|id| *id > 0),
            at: Some(self.point),
            came_in,
            out,
            vlan: self.vlan,
            vni,
            nat: ends.map(|end| format!("{}->{}", end.before, end.after)).collect(),
            fate: fate.map(|fate| fate.name().to_owned()),
            drop,
        }
    }
}

/// Which frames a capture takes, and how much of them.
#[derive(Clone, Debug)]
pub struct Selection {
    /// The filter.
    pub program: Program,
    /// The points; empty: each frame once, where it comes in, or where it leaves if only that port is captured, and once more if it is dropped later.
    pub points: Vec<CapturePoint>,
    /// Only this way.
    pub direction: Option<Direction>,
    /// Most bytes that are kept of a frame.
    pub snaplen: u32,
}

impl From<Program> for Selection {
    fn from(program: Program) -> Self {
        Self { program, points: Vec::new(), direction: None, snaplen: SNAP_LENGTH }
    }
}

impl Selection {
    /// Whether it takes each frame once.
    pub const fn is_once(&self) -> bool {
        self.points.is_empty()
    }

    /// Whether it takes frames at a point.
    pub fn takes(&self, point: CapturePoint) -> bool {
        self.points.contains(&point) || self.is_once() && matches!(point, CapturePoint::Ingress | CapturePoint::Drop)
    }

    /// Whether it takes frames that go this way.
    pub fn goes(&self, direction: Direction) -> bool {
        self.direction.is_none_or(|wanted| wanted == direction)
    }
}
