//! What the datapath knows of a port that is a tunnel: its MTU, whether it learns, and the stations that it answers ARP and
//! neighbour discovery for. The datapath sees no VXLAN here.

use std::net::IpAddr;

use packet::{Batch, Ethernet, Mac, Offload, TagEdit};
use vxlan::{Answer, Binding, Bindings};

use super::{Departure, Outputs, PortId};

/// What the datapath needs to know about a port that is a tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunnelSettings {
    /// Whether addresses behind it are learned from what arrives.
    pub learn: bool,
    /// Longest packet that it carries, in bytes.
    pub mtu: u16,
    /// Stations that are known beforehand.
    pub stations: Vec<RemoteStation>,
}

/// A station behind a tunnel that is known beforehand. Its address is never learned elsewhere and does not age.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteStation {
    /// Its MAC address.
    pub mac: Mac,
    /// The peer that it is behind.
    pub peer: u16,
    /// Its IP address, for which the switch answers.
    pub ip: Option<IpAddr>,
}

/// A port's part that only a tunnel has.
#[derive(Debug)]
pub(super) struct Remote {
    pub(super) learn: bool,
    pub(super) mtu: u16,
    bindings: Bindings,
}

/// An answer on its way to the station that asked.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) answer: Answer,
    pub(super) to: PortId,
    pub(super) edit: TagEdit,
}

impl Reply {
    /// Puts the answer behind the frames of the batch, if it has room; otherwise the station asks again.
    pub(super) fn put(&self, batch: &mut Batch, outputs: &mut Outputs) {
        if batch.has_room() {
            batch.push(self.answer.bytes(), Offload::default());
            outputs.push(self.to, Departure { frame: batch.frames().len() - 1, edit: self.edit, peer: 0 });
        }
    }
}

impl Remote {
    pub(super) fn new(settings: &TunnelSettings) -> Self {
        let bindings = settings.stations.iter().filter_map(|station| Some(Binding { ip: station.ip?, mac: station.mac }));
        Self { learn: settings.learn, mtu: settings.mtu, bindings: bindings.collect() }
    }

    pub(super) fn answers(&self) -> bool {
        !self.bindings.is_empty()
    }

    pub(super) fn answer(&self, frame: &[u8], ethernet: &Ethernet) -> Option<Answer> {
        self.bindings.answer(frame, ethernet)
    }
}
