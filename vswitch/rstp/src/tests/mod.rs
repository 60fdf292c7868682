//! Bridges against each other: no loop at any moment, and a tree in the end.

mod network;
mod protocol;
mod random;
mod topologies;
