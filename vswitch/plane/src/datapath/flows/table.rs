//! Sums by flow, for the flows that matter: space-saving (Metwally, Agrawal, El Abbadi 2005), which forgets.
//!
//! A flow that has no row takes that of the lightest, and its weight: a flow with more than a [`ROWS`]th of what the port sent lately is never
//! without a row. What was taken over only keeps the row, and is not shown. A flood of flows of one frame each turns over the lightest rows, and
//! leaves the others alone.

use std::time::Duration;

use super::super::{Fate, PortId};
use super::{Flow, FlowRate, MEMORY};

/// Most flows of a port.
pub(super) const ROWS: usize = 64;
/// Bytes a second below which a flow is over.
const LEAST: f64 = 1.0;
/// Frames that must have been looked at lately, where they stand for others: three in half a second, or about one a second.
const FEWEST: f64 = 2.0;

/// The flows of a port that moved most lately.
#[derive(Debug, Default)]
pub(super) struct FlowTable(Vec<Row>);

#[derive(Debug)]
struct Row {
    flow: Flow,
    way: (Fate, Option<PortId>),
    /// Of this window.
    fresh: Amount,
    /// In a second, of the windows before. It begins at nothing, and so is too low by the share `unseen`.
    rate: Amount,
    unseen: f64,
    /// Bytes that were taken over with the row, as far as they are not forgotten.
    inherited: f64,
    /// Frames that were looked at, as far as they are not forgotten.
    looks: f64,
    /// Whether all of these stood for themselves alone.
    exact: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Amount {
    bytes: f64,
    frames: f64,
}

impl FlowTable {
    /// Adds a frame of this length that stands for so many bytes, and went this way.
    pub(super) fn add(&mut self, flow: Flow, way: (Fate, Option<PortId>), (bytes, length): (u64, u64)) {
        let Some(row) = self.row(flow, way) else { return };
        row.way = way;
        row.fresh.bytes += bytes as f64;
        row.fresh.frames += bytes as f64 / length.max(1) as f64;
        row.looks += 1.0;
        row.exact &= bytes == length;
    }

    fn row(&mut self, flow: Flow, way: (Fate, Option<PortId>)) -> Option<&mut Row> {
        let Self(rows) = self;
        if let Some(at) = rows.iter().position(|row| row.flow == flow) {
            return rows.get_mut(at);
        }
        if rows.len() < ROWS {
            rows.push(Row::new(flow, way, 0.0));
            return rows.last_mut();
        }
        let lightest = rows.iter_mut().min_by(|one, other| one.weight().total_cmp(&other.weight()))?;
        *lightest = Row::new(flow, way, lightest.weight());
        Some(lightest)
    }

    /// A window of this length is over: its frames become part of the rates, and flows that are over go.
    pub(super) fn end_window(&mut self, length: Duration) {
        let seconds = length.as_secs_f64();
        let kept = (-seconds / MEMORY.as_secs_f64()).exp();
        let mix = |rate: f64, fresh: f64| rate * kept + fresh / seconds * (1.0 - kept);
        self.0.retain_mut(|row| {
            let fresh = std::mem::take(&mut row.fresh);
            row.rate = Amount { bytes: mix(row.rate.bytes, fresh.bytes), frames: mix(row.rate.frames, fresh.frames) };
            row.unseen *= kept;
            row.inherited *= kept;
            row.looks *= kept;
            row.rate.bytes >= LEAST
        });
    }

    /// What passes in a second. Of a flow of which hardly a frame was looked at, and that for many, no more is known than that it was there: there are
    /// none of these.
    pub(super) fn rates(&self, ingress: PortId) -> impl Iterator<Item = FlowRate> {
        self.0.iter().filter(|row| row.exact || row.looks >= FEWEST).map(move |row| {
            let (Row { flow, rate, .. }, (fate, egress), seen) = (row, row.way, 1.0 - row.unseen);
            FlowRate { ingress, flow: *flow, fate, egress, bytes: rate.bytes / seen, frames: rate.frames / seen }
        })
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

impl Row {
    fn new(flow: Flow, way: (Fate, Option<PortId>), inherited: f64) -> Self {
        let (fresh, rate) = (Amount::default(), Amount::default());
        Self { flow, way, fresh, rate, unseen: 1.0, inherited, looks: 0.0, exact: true }
    }

    /// Bytes that were counted here lately, for whichever flow.
    fn weight(&self) -> f64 {
        self.rate.bytes * MEMORY.as_secs_f64() + self.fresh.bytes + self.inherited
    }
}
