//! What others look at while the switch runs, and by what: events, counters, metrics.
//!
//! - `events`: what happened, remembered as far as there is room and told to those who follow.
//! - `board`: counters and fill of tables. Workers and uplinks put copies where the board finds them, and the control side says which name goes with
//!   which number, so that a look waits for none of them.
//! - `flows`: the flows that move most, as the board shows them.
//! - `metrics`: the board for Prometheus.

mod board;
mod events;
mod flows;
mod metrics;
mod stream;

pub(crate) use board::{Board, Roster, UplinkSource};
pub(crate) use events::EventLog;
pub(crate) use metrics::{CONTENT_TYPE as METRICS_TYPE, exposition};
pub(crate) use stream::events as event_stream;
