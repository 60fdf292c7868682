//! What became of addresses since it was last asked: for those who watch. It is bounded, so that a station which invents addresses fills no
//! memory; what finds no room is counted.

use arrayvec::ArrayVec;
use packet::{Mac, VlanId};

use crate::datapath::PortId;

/// Most changes of one bridge that are told at a time.
const MOST: usize = 32;

/// What became of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MacChange {
    /// It is new at its port.
    Learned,
    /// It was at this port before.
    Moved(PortId),
    /// It had to make room for another.
    Evicted,
}

/// An address, where it is or was, and what became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MacNews {
    /// The VLAN.
    pub vlan: VlanId,
    /// The address.
    pub mac: Mac,
    /// The port.
    pub port: PortId,
    /// What became of it.
    pub change: MacChange,
}

/// The first changes since it was last asked, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MacChanges {
    /// Up to 32 of them.
    pub first: ArrayVec<MacNews, MOST>,
    /// How many there were besides.
    pub more: u64,
}

impl MacChanges {
    /// Whether there were none.
    pub fn is_empty(&self) -> bool {
        self.first.is_empty()
    }

    pub(super) fn note(&mut self, news: MacNews) {
        if self.first.try_push(news).is_err() {
            self.more += 1;
        }
    }
}
