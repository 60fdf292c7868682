//! IP packets in fragments, for whoever ends their way: the gateway, and the host uplink, whose sockets take them whole.

mod piece;
mod reassembly;

pub use piece::{Piece, cut, pieces, whole};
pub use reassembly::{Lost, Reassembly};
