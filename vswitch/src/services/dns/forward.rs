//! A station's question on its way to the host's resolvers, and the answer on its way back. `services/network.rs` makes it, and `services/run.rs` has
//! it asked. Pure functions.

use std::net::SocketAddr;

use domain::base::iana::Rcode;
use domain::base::{Message, Rtype};
use packet::VlanId;

use super::{StreamId, failure};
use crate::services::GatewayAnswer;
use crate::services::wire::{self, Hop};
use api::{BridgeName, PortName};

/// Most questions on their way to resolvers.
pub(in crate::services) const MOST: usize = 512;

/// How a question came, and is asked on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// In a datagram; an answer may be this long, in bytes, to need no fragments.
    Udp(u16),
    /// On a connection, which carries answers of any length.
    Tcp,
}

/// Where the answer to a question goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::services) enum Asker {
    /// To a station, in a datagram.
    Datagram(ReplyTo),
    /// On a connection of a bridge.
    Stream(BridgeName, StreamId),
}

/// Where the answer to a datagram goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::services) struct ReplyTo {
    pub(in crate::services) bridge: BridgeName,
    pub(in crate::services) vlan: Option<VlanId>,
    pub(in crate::services) hop: Hop,
    /// The gateway's address that was asked.
    pub(in crate::services) from: SocketAddr,
    /// The station.
    pub(in crate::services) to: SocketAddr,
    pub(in crate::services) mtu: u16,
}

/// A question for the host's resolvers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    pub(in crate::services) port: PortName,
    asker: Asker,
    message: Vec<u8>,
}

impl Query {
    pub(in crate::services) fn new(port: PortName, asker: Asker, message: &[u8]) -> Self {
        let mut message = message.to_vec();
        if let Asker::Datagram(reply_to) = &asker {
            limit_size(&mut message, reply_to.room());
        }
        Self { port, asker, message }
    }

    /// The question as a resolver is to be asked, but for its number.
    pub fn message(&self) -> &[u8] {
        &self.message
    }

    /// How a resolver is to be asked.
    pub fn transport(&self) -> Transport {
        match &self.asker {
            Asker::Datagram(reply_to) => Transport::Udp(reply_to.room()),
            Asker::Stream(..) => Transport::Tcp,
        }
    }

    pub(in crate::services) const fn asker(&self) -> &Asker {
        &self.asker
    }

    /// The message for the station: what the resolver said, or that none did.
    pub(in crate::services) fn answer(&self, said: Option<Vec<u8>>) -> Option<Vec<u8>> {
        let fits = |bytes: &Vec<u8>| match self.transport() {
            Transport::Udp(room) => bytes.len() <= usize::from(room),
            Transport::Tcp => true,
        };
        match said {
            Some(mut bytes) if fits(&bytes) => {
                bytes.get_mut(..2)?.copy_from_slice(self.message.get(..2)?);
                Some(bytes)
            }
            Some(_) => failure(&self.message, Rcode::NOERROR),
            None => failure(&self.message, Rcode::SERVFAIL),
        }
    }
}

impl ReplyTo {
    /// Longest answer that needs no fragments.
    pub(in crate::services) fn room(&self) -> u16 {
        self.mtu.saturating_sub(wire::overhead(&self.to))
    }

    pub(in crate::services) fn wrap(&self, message: &[u8]) -> Option<GatewayAnswer> {
        let frame = wire::udp(self.hop, self.from, self.to, message)?;
        Some(GatewayAnswer { bridge: self.bridge.clone(), vlan: self.vlan, frame })
    }
}

/// Lowers the size that the question's OPT allows (RFC 6891, section 6.1.2: it is in the place of the class).
fn limit_size(message: &mut [u8], room: u16) {
    if let Some(place) = size_of_opt(message)
        && let Some(size) = message.get_mut(place..).and_then(|rest| rest.first_chunk_mut::<2>())
    {
        *size = u16::from_be_bytes(*size).min(room).to_be_bytes();
    }
}

fn size_of_opt(message: &[u8]) -> Option<usize> {
    let message = Message::from_octets(message).ok()?;
    let mut records = message.additional().ok()?;
    loop {
        let place = records.pos();
        // The root's name is one byte, and the type two.
        if records.next()?.ok()?.rtype() == Rtype::OPT {
            return Some(place + 3);
        }
    }
}
