//! DHCPv6 (RFC 8415): the server for a bridge's stations.

mod message;
mod server;

pub(super) use server::Server6;

/// Where clients send.
pub(super) const SERVER_PORT: u16 = 547;
/// Where servers answer.
const CLIENT_PORT: u16 = 546;
