//! ICMP echo: a container's ping, sent by a ping socket of the host (icmp(7), `ping_group_range`), or by a raw one where the group
//! may not ping but vswitchd may do more.
//!
//! A container's identifier and target have a socket, connected to the target so that it hears no other host. What comes back for a
//! request, an answer or an ICMP error, the container gets with its own identifier. Since the hop limit goes along, `traceroute -I`
//! works, as does that with UDP.
//!
//! **Bounds.** `capacity` flows, forgotten after 30 s without a request; [`Table`] says who loses one.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use mio::Interest;
use packet::{IpPacket, checksum::Sum, protocol};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType};

use super::common::{Arrival, Behind, Common, HeardError, Manner, hear, unsendable};
use super::doors::{Doorkeeper, Wish};
use super::engine::{self, PATIENCE};
use super::outbox::rebuilt;
use super::report::{Direction, Protocol, Session};
use plane::table::{Owner, Table};
use sys::datagram;

const IDLE: Duration = Duration::from_secs(30);
const HEADER: usize = 8;
/// Echo request and reply (RFC 792; RFC 4443, section 4).
const ECHO: [u8; 2] = [8, 0];
const ECHO6: [u8; 2] = [128, 129];

/// A container, its target, its identifier.
type Key = (IpAddr, IpAddr, u16);

/// Every flow of echo requests.
pub(super) struct Echo {
    flows: Table<Key, Behind, Ping>,
    buffer: Vec<u8>,
}

struct Ping {
    fd: OwnedFd,
    manner: Manner,
    /// The identifier on a raw socket; a ping socket has the kernel's.
    raw: Option<u16>,
    sent: u64,
    received: u64,
}

impl Echo {
    pub(super) fn new(capacity: usize) -> Self {
        Self { flows: Table::new(capacity), buffer: vec![0; 65_536] }
    }

    /// Takes in an echo request of a container; says whether it is one.
    pub(super) fn receive(&mut self, common: &mut Common, arrival: &Arrival<'_>, now: Instant) -> bool {
        let IpPacket { source, destination, .. } = arrival.ip;
        let Some((identifier, message)) = request(arrival) else { return false };
        if common.refuses(arrival) {
            return true;
        }
        let key = (source, destination, identifier);
        let found = self.flows.find(&key).map_or_else(|| self.begin(common, arrival.owner(), key, now), Ok);
        let mut heard = HeardError::default();
        let sent = found.and_then(|number| {
            let row = self.flows.get_mut(number).ok_or(Errno::NOENT)?;
            (row.used, row.value.sent) = (now, row.value.sent + message.len() as u64);
            row.value.manner.follow(&row.value.fd, arrival);
            row.value.send(message).or_else(|error| {
                heard = hear_errors(common, row.key, &row.value.fd, &mut self.buffer);
                // It may be one that a request before this one met.
                if heard.any && error != Errno::MSGSIZE { row.value.send(message) } else { Err(error) }
            })
        });
        if let Err(error) = sent {
            common.counters.unsent += 1;
            if let Some(what) = unsendable(error, heard) {
                common.unreachable(what, arrival);
            }
        }
        true
    }

    fn begin(&mut self, common: &mut Common, owner: Owner<Behind>, key: Key, now: Instant) -> Result<usize, Errno> {
        if let Some(victim) = self.flows.victim() {
            common.counters.flows_evicted += 1;
            self.flows.remove(victim);
        }
        let (_, target, identifier) = key;
        let (fd, is_raw) = open(target, &common.doors)?;
        let descriptor = fd.as_raw_fd();
        let raw = is_raw.then(|| identifier ^ u16::try_from(descriptor & 0x7fff).unwrap_or(0));
        let ping = Ping { fd, manner: Manner::default(), raw, sent: 0, received: 0 };
        let number = self.flows.insert(key, owner, now, ping);
        if !common.watch(descriptor, engine::EventSource::Echo.token(number), Interest::READABLE) {
            self.flows.remove(number);
            return Err(Errno::NOMEM);
        }
        Ok(number)
    }

    /// Reads what waits at a flow's socket; says whether more may wait.
    pub(super) fn ready(&mut self, common: &mut Common, number: usize) -> bool {
        let Some(row) = self.flows.get_mut(number) else { return false };
        let (container, target, identifier) = row.key;
        for _ in 0..PATIENCE {
            if !common.outbox.link.writer.has_room_for_datagram() {
                return true;
            }
            match datagram::receive(row.value.fd.as_fd(), &mut self.buffer) {
                Ok(received) => {
                    let bytes = self.buffer.get_mut(..received.length).unwrap_or_default();
                    let Some(message) = reply(bytes, target, row.value.raw) else { continue };
                    message[4..6].copy_from_slice(&identifier.to_be_bytes());
                    message[2..4].fill(0);
                    row.value.received += message.len() as u64;
                    common.outbox.icmp(target, container, message);
                }
                Err(Errno::AGAIN) => return false,
                Err(_) => {
                    hear_errors(common, row.key, &row.value.fd, &mut self.buffer);
                }
            }
        }
        true
    }

    /// Forgets flows that are idle.
    pub(super) fn expire(&mut self, now: Instant) {
        for number in self.flows.which(|row| now.saturating_duration_since(row.used) >= IDLE) {
            self.flows.remove(number);
        }
    }

    /// Forgets the flows of containers that are gone.
    pub(super) fn forget(&mut self, containers: &[IpAddr]) {
        for number in self.flows.which(|row| containers.contains(&row.owner.container)) {
            self.flows.remove(number);
        }
    }

    /// Lists the flows.
    /// Number of sessions.
    pub(super) fn count(&self) -> usize {
        self.flows.iter().count()
    }

    pub(super) fn sessions(&self, now: Instant) -> Vec<Session> {
        let session = |(_, row): (_, &plane::table::TableRow<Key, Behind, Ping>)| {
            let (container, target, identifier) = row.key;
            Session {
                protocol: Protocol::Echo,
                direction: Direction::Out,
                container: SocketAddr::new(container, identifier),
                remote: SocketAddr::new(target, identifier),
                state: "open",
                sent: row.value.sent,
                received: row.value.received,
                idle: now.saturating_duration_since(row.used),
            }
        };
        self.flows.iter().map(session).collect()
    }
}

impl Ping {
    /// A ping socket writes identifier and checksum itself, a raw IPv6 one the checksum.
    fn send(&self, message: &[u8]) -> Result<(), Errno> {
        let Some(identifier) = self.raw else {
            return rustix::net::send(&self.fd, message, SendFlags::NOSIGNAL).map(drop);
        };
        let mut message = message.to_vec();
        message[2..4].fill(0);
        message[4..6].copy_from_slice(&identifier.to_be_bytes());
        let checksum = Sum::new().plus(&message).checksum();
        message[2..4].copy_from_slice(&checksum.to_be_bytes());
        rustix::net::send(&self.fd, &message, SendFlags::NOSIGNAL).map(drop)
    }
}

/// The identifier of an echo request whose checksum is right, and the whole message.
fn request<'a>(arrival: &'a Arrival<'_>) -> Option<(u16, &'a [u8])> {
    let message = arrival.transport();
    let [kind, code, _, _, i0, i1, ..] = *message.first_chunk::<HEADER>()?;
    let (expected, pseudo) = if arrival.ip.source.is_ipv4() { (ECHO[0], 0) } else { (ECHO6[0], protocol::ICMP6) };
    let is_one = kind == expected && code == 0 && arrival.is_intact(pseudo);
    is_one.then_some((u16::from_be_bytes([i0, i1]), message))
}

/// The echo reply in what a socket read. A raw IPv4 socket reads the IP header too.
fn reply(bytes: &mut [u8], target: IpAddr, raw: Option<u16>) -> Option<&mut [u8]> {
    let header = if raw.is_some() && target.is_ipv4() { usize::from(bytes.first()? & 0x0f) * 4 } else { 0 };
    let message = bytes.get_mut(header..).filter(|message| message.len() >= HEADER)?;
    let expected = if target.is_ipv4() { ECHO[1] } else { ECHO6[1] };
    let ours = raw.is_none_or(|identifier| message[4..6] == identifier.to_be_bytes());
    (message[0] == expected && ours).then_some(message)
}

/// A socket that pings `target`, and whether it is a raw one.
fn open(target: IpAddr, doors: &Doorkeeper) -> Result<(OwnedFd, bool), Errno> {
    let (fd, is_raw) = match socket(target, SocketType::DGRAM) {
        Ok(fd) => (fd, false),
        Err(Errno::ACCESS | Errno::PERM | Errno::PROTONOSUPPORT) => (doors.open(Wish::Ping(target))?, true),
        Err(error) => return Err(error),
    };
    datagram::ask_for_errors(fd.as_fd(), target.is_ipv6())?;
    rustix::net::connect(&fd, &SocketAddr::new(target, 0))?;
    Ok((fd, is_raw))
}

/// A raw socket for pings of `target`, not connected yet.
pub(super) fn open_raw(target: IpAddr) -> Result<OwnedFd, Errno> {
    let fd = socket(target, SocketType::RAW)?;
    datagram::only_echo_replies(fd.as_fd(), target.is_ipv6())?;
    Ok(fd)
}

fn socket(target: IpAddr, kind: SocketType) -> Result<OwnedFd, Errno> {
    let (family, protocol) = match target {
        IpAddr::V4(_) => (AddressFamily::INET, rustix::net::ipproto::ICMP),
        IpAddr::V6(_) => (AddressFamily::INET6, rustix::net::ipproto::ICMPV6),
    };
    rustix::net::socket_with(family, kind, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC, Some(protocol))
}

/// Tells a container what its requests met.
fn hear_errors(common: &mut Common, key: Key, fd: &OwnedFd, buffer: &mut [u8]) -> HeardError {
    let (container, target, identifier) = key;
    let kind = if target.is_ipv4() { protocol::ICMP } else { protocol::ICMP6 };
    hear(fd.as_fd(), buffer, |(message, _, what, offender)| {
        if let Some(place) = message.get_mut(4..6) {
            place.copy_from_slice(&identifier.to_be_bytes());
        }
        let voice = offender.unwrap_or_else(|| common.voice(container, target));
        common.outbox.unreachable(what, voice, container, &rebuilt(container, target, kind, message));
    })
}
