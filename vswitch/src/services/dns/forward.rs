use std::collections::HashMap;
use std::net::SocketAddr;

use domain::base::iana::Rcode;
use domain::base::{Message, Rtype};
use packet::VlanId;

use super::failure;
use crate::api::{BridgeName, PortName};
use crate::services::Answer;
use crate::services::wire::{self, Hop};

/// Most questions on their way to resolvers.
pub(in crate::services) const MOST: usize = 512;

/// How many questions are on their way, by port.
///
/// **Fairness.** A port may have as many as are left for the others: alone it gets half, two busy ones a third each, and one
/// with its first question always finds room.
#[derive(Debug, Default)]
pub(in crate::services) struct InFlight {
    all: usize,
    ports: HashMap<PortName, usize>,
}

impl InFlight {
    /// Whether the port may ask now; counts the question if so.
    pub(in crate::services) fn begin(&mut self, port: &PortName) -> bool {
        let own = self.ports.get(port).copied().unwrap_or_default();
        let admitted = own < MOST.saturating_sub(self.all);
        if admitted {
            self.all += 1;
            self.ports.insert(port.clone(), own + 1);
        }
        admitted
    }

    /// A question of the port has its answer, or none.
    pub(in crate::services) fn end(&mut self, port: &PortName) {
        if let Some(own) = self.ports.get_mut(port) {
            *own -= 1;
            self.all -= 1;
            if *own == 0 {
                self.ports.remove(port);
            }
        }
    }
}

/// Where the answer to a question goes.
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
    reply_to: ReplyTo,
    message: Vec<u8>,
}

impl Query {
    pub(in crate::services) fn new(port: &PortName, reply_to: ReplyTo, message: &[u8]) -> Self {
        let mut message = message.to_vec();
        limit_size(&mut message, reply_to.room());
        Self { port: port.clone(), reply_to, message }
    }

    /// The question as a resolver is to be asked, but for its number.
    pub fn message(&self) -> &[u8] {
        &self.message
    }

    /// Longest answer that is of use.
    pub fn room(&self) -> u16 {
        self.reply_to.room()
    }

    /// The frame for the station: what the resolver said, or that none did.
    pub(in crate::services) fn answer(&self, said: Option<Vec<u8>>) -> Option<Answer> {
        let fits = |bytes: &Vec<u8>| bytes.len() <= usize::from(self.reply_to.room());
        let message = match said {
            Some(mut bytes) if fits(&bytes) => {
                bytes.get_mut(..2)?.copy_from_slice(self.message.get(..2)?);
                bytes
            }
            Some(_) => failure(&self.message, Rcode::NOERROR)?,
            None => failure(&self.message, Rcode::SERVFAIL)?,
        };
        self.reply_to.wrap(&message)
    }
}

impl ReplyTo {
    /// Longest answer that needs no fragments.
    fn room(&self) -> u16 {
        self.mtu.saturating_sub(wire::overhead(&self.to))
    }

    pub(in crate::services) fn wrap(&self, message: &[u8]) -> Option<Answer> {
        let frame = wire::udp(self.hop, self.from, self.to, message)?;
        Some(Answer { bridge: self.bridge.clone(), vlan: self.vlan, frame })
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
