//! IP packets in fragments, for whoever ends their way: the gateway, and the host uplink, whose sockets take them whole.

mod piece;
mod reassembly;

pub(crate) use piece::{Piece, cut, pieces, whole};
pub(crate) use reassembly::{Lost, Reassembly};
