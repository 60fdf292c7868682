//! What the client says, and to whom (RFC 2131, section 4.4.1, table 5).

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use packet::Mac;
use smoltcp::wire::{DhcpMessageType as Kind, DhcpOpCode};

use super::lease::Held;
use super::{Client, Purpose, Stage, State};
use crate::services::dhcp4::{CLIENT_PORT, Outgoing, SERVER_PORT, option};
use crate::services::wire::{self, Hop};

/// What it wants to know. Routes come before routers, as they must where a client asks for both (RFC 3442); only a container takes them on.
const PARAMETERS: [u8; 8] = [
    option::ROUTES,
    option::SUBNET_MASK,
    option::ROUTER,
    option::DNS,
    option::MTU,
    option::LEASE,
    option::RENEWAL,
    option::REBINDING,
];
/// Longest message that it takes: one frame.
const MAX_SIZE: u16 = 1500;

pub(super) fn discover(client: &Client, now: Duration) -> Option<Vec<u8>> {
    let mut message = asking(client, Kind::Discover, now);
    if let Some(address) = client.purpose.address() {
        put(&mut message, option::REQUESTED, &address.octets());
    }
    to_all(client, &message)
}

/// A request for an offer, for the last lease, or for more time.
pub(super) fn request(client: &Client, now: Duration) -> Option<Vec<u8>> {
    let mut message = asking(client, Kind::Request, now);
    match &client.state {
        State::Selecting { .. } | State::Probing { .. } => None,
        State::Requesting { offer, .. } => {
            put(&mut message, option::REQUESTED, &offer.terms.address.addr().octets());
            put(&mut message, option::SERVER, &offer.terms.server.octets());
            to_all(client, &message)
        }
        State::Rebooting { last, .. } => {
            put(&mut message, option::REQUESTED, &last.terms.address.addr().octets());
            to_all(client, &message)
        }
        State::Holding { held, stage, .. } => {
            message.ciaddr = held.terms.address.addr();
            if *stage == Stage::Rebinding { to_all(client, &message) } else { to_server(client, held, &message) }
        }
    }
}

pub(super) fn decline(client: &Client, held: &Held) -> Option<Vec<u8>> {
    let mut message = plain(client, Kind::Decline);
    put(&mut message, option::REQUESTED, &held.terms.address.addr().octets());
    put(&mut message, option::SERVER, &held.terms.server.octets());
    to_all(client, &message)
}

pub(super) fn release(client: &Client, held: &Held) -> Option<Vec<u8>> {
    let mut message = plain(client, Kind::Release);
    message.ciaddr = held.terms.address.addr();
    put(&mut message, option::SERVER, &held.terms.server.octets());
    to_server(client, held, &message)
}

fn plain(client: &Client, kind: Kind) -> Outgoing {
    let mut message = Outgoing::new(DhcpOpCode::Request, client.xid, client.mac);
    put(&mut message, option::KIND, &[kind.into()]);
    put(&mut message, option::CLIENT, &[&[1], client.mac.0.as_slice()].concat());
    message
}

fn asking(client: &Client, kind: Kind, now: Duration) -> Outgoing {
    let mut message = plain(client, kind);
    message.secs = u16::try_from(now.saturating_sub(client.began).as_secs()).unwrap_or(u16::MAX);
    let parameters = if client.purpose == Purpose::Uplink { &PARAMETERS[1..] } else { &PARAMETERS };
    put(&mut message, option::PARAMETERS, parameters);
    put(&mut message, option::MAX_SIZE, &MAX_SIZE.to_be_bytes());
    message
}

fn put(message: &mut Outgoing, code: u8, data: &[u8]) {
    message.options.push((code, data.to_vec()));
}

fn to_all(client: &Client, message: &Outgoing) -> Option<Vec<u8>> {
    // A client that rebinds has an address, and says so.
    let from = (message.ciaddr, CLIENT_PORT).into();
    send(client, Mac::BROADCAST, from, Ipv4Addr::BROADCAST, message)
}

fn to_server(client: &Client, held: &Held, message: &Outgoing) -> Option<Vec<u8>> {
    let from = (held.terms.address.addr(), CLIENT_PORT).into();
    send(client, held.via, from, held.terms.server, message)
}

fn send(client: &Client, to: Mac, from: SocketAddr, server: Ipv4Addr, message: &Outgoing) -> Option<Vec<u8>> {
    wire::udp(Hop { from: client.mac, to }, from, (server, SERVER_PORT).into(), &message.encode()?)
}
