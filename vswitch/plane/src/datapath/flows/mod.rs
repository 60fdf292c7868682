//! Which flows move most, of all traffic: estimates from a few of the frames that come in.
//!
//! Each port has a [`Sampler`], which says what frames are looked at and for how many bytes each of them stands, and a [`FlowTable`], which adds
//! these up by flow. A frame that is not looked at costs a comparison. On a port with little traffic every frame is looked at, and what is told is
//! no estimate.
//!
//! **What bounds it.** A port looks at about [`sampler::AIM`] frames in half a second, however many there are, and has at most [`table::ROWS`] flows.
//! A worker tells of [`MOST`].
//!
//! **Who may hide what.** Frames are chosen by their bytes, so one that is looked at speaks for as many as any other, and a flow of a hundredth of
//! what its port sends is found whatever the rest is. Each port has both for itself: the flood of one station takes neither looks nor rows
//! from others. Half of the flows that a worker tells of are the busiest; of the others, those come first that are the busiest of their ports.

mod flow;
mod sampler;
mod table;

#[cfg(test)]
mod tests;

use std::cmp::Ordering;
use std::time::{Duration, Instant};

use packet::Batch;

pub use flow::{Flow, FlowPacket, FlowRate};

use super::{Datapath, Fate, Outputs, PortId};
use sampler::Sampler;
use table::FlowTable;

/// Flows of which a worker tells.
const MOST: usize = 64;
/// How far back a rate reaches: what is older counts for a third.
const MEMORY: Duration = Duration::from_secs(2);

/// The flows of one port.
#[derive(Debug)]
pub(super) struct PortFlows {
    sampler: Sampler,
    table: FlowTable,
}

/// A frame of the batch that is looked at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    pub(super) frame: usize,
    /// Bytes for which it stands.
    pub(super) bytes: u64,
}

impl PortFlows {
    /// Without flows. Stations cannot know which of their frames are looked at, as long as they do not know the seed.
    pub(super) fn new(seed: u64) -> Self {
        Self { sampler: Sampler::new(seed), table: FlowTable::default() }
    }

    /// Whether a frame of this length, with which the port has received so many bytes, is to be looked at, and for how many bytes it then stands.
    #[inline]
    pub(super) fn pass(&mut self, received: u64, length: u64) -> Option<u64> {
        self.sampler.pass(received, length)
    }

    /// The same of a frame that another worker received.
    pub(super) fn pass_more(&mut self, received: u64, length: u64) -> Option<u64> {
        self.sampler.pass_more(received, length)
    }
}

impl Datapath {
    /// Adds the frames of the batch that are to be looked at to their flows. Where they go is decided, and they are as they came in.
    pub(super) fn note_flows(&mut self, batch: &Batch, outputs: &Outputs) {
        for Look { frame: index, bytes } in self.looks.drain(..) {
            let Some(frame) = batch.frames().get(index) else { continue };
            // What is handed over counts where it is routed, for only there is it known where it goes.
            let fate = outputs.fates().get(index).copied().flatten().filter(|fate| *fate != Fate::HandedOver);
            let Some(fate) = fate else { continue };
            let Some(flow) = self.headers.get(index).and_then(|headers| Flow::of(frame.bytes(), headers)) else { continue };
            let egress = egress(index, fate, outputs);
            if let Some(port) = self.ports.get_mut(frame.ingress) {
                port.flows.table.add(flow, (fate, egress), (bytes, frame.bytes().len() as u64));
            }
        }
    }

    /// The flows that move most now, the busiest first. To be called about twice a second: with each call the rates forget.
    pub(super) fn take_flows(&mut self, now: Instant) -> Vec<FlowRate> {
        let since = now.saturating_duration_since(self.flows_at);
        if since.is_zero() {
            return Vec::new();
        }
        self.flows_at = now;
        let mut flows = Vec::new();
        for (number, port) in self.ports.iter_mut() {
            let PortFlows { sampler, table } = &mut port.flows;
            sampler.end_window(port.counters.rx_bytes);
            table.end_window(since);
            let mut of_port: Vec<FlowRate> = table.rates(PortId(number)).collect();
            of_port.sort_unstable_by(busier);
            flows.extend(of_port.into_iter().enumerate());
        }
        told(flows)
    }
}

/// The flows to tell of, the busiest first, of flows with their places among those of their ports.
fn told(mut flows: Vec<(usize, FlowRate)>) -> Vec<FlowRate> {
    flows.sort_unstable_by(|(_, one), (_, other)| busier(one, other));
    if let Some(others) = flows.get_mut(MOST / 2..) {
        others.sort_by_key(|(place, _)| *place);
    }
    flows.truncate(MOST);
    let mut told: Vec<FlowRate> = flows.into_iter().map(|(_, flow)| flow).collect();
    told.sort_unstable_by(busier);
    told
}

fn busier(one: &FlowRate, other: &FlowRate) -> Ordering {
    other.bytes.total_cmp(&one.bytes)
}

/// The one port that a frame leaves by; `None`: several, or none.
fn egress(index: usize, fate: Fate, outputs: &Outputs) -> Option<PortId> {
    if let Fate::Bridged(port) = fate {
        return Some(port);
    }
    let leaves_by = |port: &&PortId| outputs.queue(**port).iter().any(|departure| departure.frame == index);
    let mut ports = outputs.used().iter().filter(leaves_by);
    ports.next().copied().filter(|_| ports.next().is_none())
}
