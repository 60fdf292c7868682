//! What the datapath knows of a port that is a tunnel: its MTU, whether it learns, and the stations that it answers ARP and
//! neighbour discovery for. The datapath sees no VXLAN here.

use std::net::IpAddr;
use std::sync::Arc;

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
    /// Stations that are known beforehand, by MAC address.
    pub stations: Arc<[RemoteStation]>,
    /// Whether other hosts told of them, and not the user: then a station that is seen at another port is there, until they tell otherwise.
    pub told: bool,
}

/// A station behind a tunnel that is known beforehand. Its address does not age, and unless other hosts told of it, is never learned elsewhere.
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
    pub(super) told: bool,
    pub(super) stations: Arc<[RemoteStation]>,
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
        let (learn, mtu, told) = (settings.learn, settings.mtu, settings.told);
        Self { learn, mtu, told, stations: Arc::clone(&settings.stations), bindings: bindings.collect() }
    }

    pub(super) fn answers(&self) -> bool {
        !self.bindings.is_empty()
    }

    /// The MAC address of the station with this address.
    pub(super) fn mac_of(&self, address: IpAddr) -> Option<Mac> {
        self.bindings.mac_of(address)
    }

    pub(super) fn answer(&self, frame: &[u8], ethernet: &Ethernet) -> Option<Answer> {
        self.bindings.answer(frame, ethernet)
    }
}
