//! Names for stations: those of their bridge from the configuration and the leases, all others from the host's resolvers.
//!
//! `web.br0.internal`, and just `web`, is port `web` of bridge `br0`, for stations of `br0` alone; its address leads back to
//! `web.br0.internal`. Nothing that ends in `.internal` (reserved for this by ICANN in 2024), `.local` (RFC 6762) or `.localhost`
//! (RFC 6761) is ever forwarded, nor is a question who a link-local address or one of the bridge's own subnets is: the world outside has no
//! answer and need not know the question.
//!
//! Everything else goes to the servers of `/etc/resolv.conf` as it came, but for its transaction number and, lest the answer be
//! longer than the link's MTU, the size that it allows. An answer counts if it comes from the server asked, to the random port
//! that asked, with the random number and the question (RFC 5452).
//!
//! An answer that a datagram cannot carry is passed on truncated; the station then asks again over TCP, and so do we.

mod exchange;
mod forward;
mod names;
mod reply;
mod resolvers;
mod stream;

pub use exchange::ResolverOutcome;
pub(super) use exchange::exchange;
pub(super) use forward::{Asker, MOST, ReplyTo};
pub use forward::{Query, Transport};
pub(super) use names::NameDirectory;
pub(super) use reply::{Decision, decide, failure};
pub use resolvers::{ResolverFile, Resolvers};
#[cfg(test)]
pub(super) use stream::IDLE;
pub(super) use stream::{Sent, StreamId, Streams};

use super::shares::Shares;

/// Where the questions arrive.
pub(super) const PORT: u16 = 53;
/// The zone of multicast DNS, which stations ask each other about.
const LOCAL: &str = "local";
/// The zone of all bridges.
pub(super) const ZONE: &str = "internal";
