//! Overlay networks: bridges of several hosts that are one segment, and what the switch does to be a part of them.
//!
//! ```text
//!  control ── Truth: what is here ──▶ thread ── Agent ──▶ store
//!     ▲                                 │
//!     └── Elsewhere: what the others have ┘──▶ overlay.json
//! ```
//!
//! Beside the store, hosts ask each other whether they live ([`cluster::gossip`]), and `store = "gossip"` does without one.
//!
//! The crate `cluster` knows what hosts say to each other; this room is where it meets the switch. A thread of its own deals with the
//! store, which may be slow or away. The control side tells it what is here: which bridges are in which networks, and their stations. It
//! tells the control side what is elsewhere, as [`Elsewhere`], which is one more source of tunnels in `config`. Neither waits for the other, and a
//! question is answered from memory.
//!
//! **Fail static.** The tables are kept in `state-dir`. Without the store, and after a restart without it, frames are forwarded by the last ones.
//!
//! **Encrypted networks.** This host's private key is made and kept here (`wireguard.key`); its public key stands in the host's record, and the tables
//! have those of the others. The record of a network says whether it is encrypted. A bridge that would have it otherwise gets no tunnel, whatever the
//! store says or has lost.
//!
//! **What bounds it.** [`cluster::view::MOST_RECORDS`] stations and [`cluster::view::MOST_PEERS`] hosts of a network; the tables are told
//! 50 ms apart at least.

mod acl;
mod answer;
mod believe;
mod follow;
mod here;
mod identity;
mod kept;
mod lives;
mod run;
mod settings;
mod standing;
mod tables;
mod thread;
mod truth;

pub(crate) use settings::NO_BLOCKS;
pub use settings::{Access, ClusterFault, ClusterSettings, ClusterTable};
pub use tables::{Elsewhere, HostRow, KnownNetwork, NetworkTable, StationRow};

pub(crate) use acl::rights;
pub(crate) use answer::GATEWAY;
pub(crate) use follow::{Follows, follow};
pub(crate) use identity::{private_key, public_key};
pub(crate) use kept::OverlayFile;
pub(crate) use run::finished;
pub(crate) use standing::{Standing, Turn};
pub(crate) use thread::{Happening, OverlayNews, Thread, runtime};
pub(crate) use truth::{Local, LocalStation, Truth};

#[cfg(test)]
mod tests {
    mod scale;
}
