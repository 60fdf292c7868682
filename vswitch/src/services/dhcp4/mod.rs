//! DHCPv4 (RFC 2131, RFC 2132): the server for a bridge's stations, and what it has in common with an uplink's client.

mod message;
mod probing;
mod server;

pub(super) use message::{Message, Outgoing, option};
#[cfg(test)]
pub(super) use probing::PATIENCE;
pub(super) use server::Server;

/// Where clients send.
pub(super) const SERVER_PORT: u16 = 67;
/// Where servers answer.
pub(super) const CLIENT_PORT: u16 = 68;
