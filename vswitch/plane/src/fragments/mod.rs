//! IP packets in fragments, put together where their way ends: at the gateway, and at the host uplink, whose sockets take them whole.

mod piece;
mod reassembly;

pub use piece::{Piece, cut, pieces, whole};
pub use reassembly::{Lost, Reassembly};
