//! TCP: the connections that containers open, and those that come in by forwards.
//!
//! **The truth.** A container's SYN is kept until the host's own `connect` has an answer: then it is answered itself, or reset, or
//! met with the ICMP error that fits. While no host out there answers, neither does the uplink, and the container's kernel gives up
//! as it would on any network. A container that has forgotten a connection, having died without a word, and asks for it anew is reminded
//! of it (RFC 9293, section 3.10.7.4), and then resets the old one. A forward's client has been accepted by the kernel before the
//! container is asked, so a container that refuses shows as a reset, as does one that the router does not find.
//!
//! **Work.** A packet, or a socket's readiness, touches one connection: it is found by hash and marked; after all packets that
//! wait have been taken in, the marked connections are pumped, each once. Timers are a heap with one live entry a connection,
//! which may ring early, never late.
//!
//! **Bounds.** `capacity` connections. A connection has two buffers of [`room`] bytes, allocated as they are first touched: 128
//! connections get 256 KiB each, those up to 1024 get 64 KiB, those beyond 32 KiB. When the table is full, the container with the
//! most connections, behind the port with the most, is refused; if another asks, it loses its idlest one by a reset.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Instant;

use mio::Interest;
use packet::protocol;
use rustix::net::sockopt;

use super::common::{Arrival, Behind, Common, forwarded};
use super::connection::{Connection, ConnectionFate, close_with_reset};
use super::engine;
use super::report::{Direction, Protocol, Session};
use super::segment::{ACK, FIN, Header, Key, RST, SYN, answer, open_and_connect, refuse};
use super::stack::{Stack, Syn};
use plane::table::{Owner, Table};

/// Every connection.
pub(super) struct Tcp {
    stack: Stack,
    table: Table<Key, Behind, Splice>,
    marked: Vec<usize>,
    /// Connections with something to say for which there was no room.
    blocked: Vec<usize>,
    timers: BinaryHeap<Reverse<(Instant, usize)>>,
}

struct Splice {
    stage: Stage,
    direction: Direction,
    marked: bool,
    blocked: bool,
    /// Its earliest entry among the timers.
    timer: Option<Instant>,
}

enum Stage {
    /// The host's socket is connecting.
    Connecting(OwnedFd, Syn),
    Open(Box<Connection>),
}

/// Bytes of each buffer of a connection that is opened when there are so many already.
const fn room(open: usize) -> usize {
    match open {
        0..128 => 256 << 10,
        128..1024 => 64 << 10,
        _ => 32 << 10,
    }
}

impl Tcp {
    pub(super) fn new(now: Instant, capacity: usize) -> Self {
        let (marked, blocked) = (Vec::new(), Vec::new());
        Self { stack: Stack::new(now), table: Table::new(capacity), marked, blocked, timers: BinaryHeap::new() }
    }

    /// Takes in a packet of a container.
    pub(super) fn receive(&mut self, common: &mut Common, arrival: &Arrival<'_>, now: Instant) {
        let Some(header) = Header::parse(arrival.frame, &arrival.ip).filter(|_| arrival.is_intact(protocol::TCP)) else {
            common.counters.malformed += 1;
            return;
        };
        let is_first = header.flags & (SYN | ACK | RST | FIN) == SYN;
        let found = self.table.find(&header.key);
        let over = found.and_then(|number| self.table.get(number)).is_some_and(|row| row.value.is_over());
        match found {
            Some(number) if over && is_first => {
                self.forget(number);
                self.begin(common, &header, arrival, now);
            }
            Some(number) => self.carry_on(common, number, &header, arrival, now),
            None if is_first => self.begin(common, &header, arrival, now),
            None if header.flags & RST == 0 => refuse(common, &header),
            None => {}
        }
    }

    fn carry_on(&mut self, common: &mut Common, number: usize, header: &Header, arrival: &Arrival<'_>, now: Instant) {
        let Some(row) = self.table.get_mut(number) else { return };
        row.used = now;
        let connection = match &mut row.value.stage {
            Stage::Open(connection) => connection,
            Stage::Connecting(..) if header.flags & RST != 0 => return self.forget(number),
            // The SYN again, or that of a container that has forgotten the first.
            Stage::Connecting(_, first) => {
                if let Some(syn) = Syn::parse(arrival.frame, &arrival.ip).filter(|_| header.flags & (SYN | ACK) == SYN) {
                    *first = Syn { mss: syn.mss.min(common.outbox.mss(arrival.ip.source)), ..syn };
                }
                return;
            }
        };
        if header.flags & SYN == 0 {
            if header.flags & (ACK | RST) == ACK {
                connection.acknowledged = header.acknowledgment;
            }
            connection.receive(&mut self.stack, arrival.packet(), &mut common.outbox, now);
        } else if connection.is_synchronized() {
            connection.challenge(&mut self.stack, arrival, &mut common.outbox, now);
        } else if let Some(syn) = Syn::parse(arrival.frame, &arrival.ip) {
            if connection.is_calling() {
                connection.mss = syn.mss.min(common.outbox.mss(arrival.ip.source));
            }
            connection.receive(&mut self.stack, &syn.packet, &mut common.outbox, now);
        }
        self.mark(number);
    }

    /// Tries for the host what the container asks for.
    fn begin(&mut self, common: &mut Common, header: &Header, arrival: &Arrival<'_>, now: Instant) {
        let (_, remote) = header.key;
        if common.refuses(arrival) {
            return;
        }
        if common.is_gateway(remote.ip()) {
            return refuse(common, header);
        }
        let Some(mut syn) = Syn::parse(arrival.frame, &arrival.ip) else {
            common.counters.malformed += 1;
            return;
        };
        syn.mss = syn.mss.min(common.outbox.mss(arrival.ip.source));
        if !self.make_room(common, arrival.owner(), now) {
            return refuse(common, header);
        }
        match open_and_connect(remote) {
            Ok((fd, connected)) => {
                let stage = Stage::Connecting(fd, syn);
                let value = Splice { stage, direction: Direction::Out, marked: false, blocked: false, timer: None };
                let number = self.table.insert(header.key, arrival.owner(), now, value);
                if !self.watch(common, number) {
                    self.forget(number);
                    refuse(common, header);
                } else if connected {
                    self.establish(common, number, now);
                }
            }
            Err(error) => answer(common, header.key, &syn.packet, error),
        }
    }

    /// Carries a client that the host has accepted to a container.
    pub(super) fn forward(
        &mut self,
        common: &mut Common,
        fd: OwnedFd,
        client: SocketAddr,
        container: SocketAddr,
        now: Instant,
    ) {
        let open = self.table.occupied();
        let from = self.free_port(client, container);
        let (true, Some(from)) = (self.make_room(common, forwarded(container.ip()), now), from) else {
            common.counters.tcp_refused += 1;
            return close_with_reset(&fd);
        };
        // It fails for nothing that is a TCP socket.
        let _ = sockopt::set_tcp_nodelay(&fd, true).and_then(|()| sockopt::set_socket_keepalive(&fd, true));
        let mss = common.outbox.mss(container.ip());
        let Some(connection) = Connection::connect(fd, &mut self.stack, mss, (from, container), room(open), now) else {
            return;
        };
        common.counters.tcp_opened += 1;
        let stage = Stage::Open(Box::new(connection));
        let value = Splice { stage, direction: Direction::In, marked: false, blocked: false, timer: None };
        let number = self.table.insert((container, from), forwarded(container.ip()), now, value);
        if self.watch(common, number) {
            self.mark(number);
        } else {
            self.forget(number);
        }
    }

    /// The client's port, or another where clients share an address in front of the container.
    fn free_port(&self, client: SocketAddr, container: SocketAddr) -> Option<SocketAddr> {
        let free =
            |address: &SocketAddr| match self.table.find(&(container, *address)).and_then(|number| self.table.get(number)) {
                Some(row) => row.value.is_over(),
                None => address.port() > 0,
            };
        let others = (0..64).map(|salt| {
            let [low, high, ..] = self.stack.random(salt + u64::from(client.port())).to_le_bytes();
            SocketAddr::new(client.ip(), u16::from_le_bytes([low, high]) | 0x8000)
        });
        std::iter::once(client).chain(others).find(free)
    }

    /// Makes room for a connection of `owner`; says whether there is some.
    fn make_room(&mut self, common: &mut Common, owner: Owner<Behind>, now: Instant) -> bool {
        let Some(victim) = self.table.victim() else { return true };
        if self.table.get(victim).is_none_or(|row| row.owner == owner) {
            return false;
        }
        common.counters.tcp_evicted += 1;
        if let Some(Stage::Open(connection)) = self.table.get_mut(victim).map(|row| &mut row.value.stage) {
            connection.abort(&mut self.stack, &mut common.outbox, now);
        }
        self.forget(victim);
        true
    }

    /// Asks the kernel to tell of the connection's socket.
    fn watch(&self, common: &Common, number: usize) -> bool {
        let Some(descriptor) = self.table.get(number).and_then(|row| row.value.descriptor()) else { return false };
        common.watch(descriptor, engine::EventSource::Tcp.token(number), Interest::READABLE | Interest::WRITABLE)
    }

    /// Takes note of what the kernel says about a socket.
    pub(super) fn ready(&mut self, common: &mut Common, number: usize, readable: bool, writable: bool, now: Instant) {
        let Some(row) = self.table.get_mut(number) else { return };
        match &mut row.value.stage {
            Stage::Connecting(fd, syn) => match sockopt::socket_error(&*fd) {
                Ok(Ok(())) if rustix::net::getpeername(&*fd).is_ok() => self.establish(common, number, now),
                // Not yet.
                Ok(Ok(())) => {}
                Ok(Err(error)) | Err(error) => {
                    answer(common, row.key, &syn.packet, error);
                    self.forget(number);
                }
            },
            Stage::Open(connection) => {
                connection.readable |= readable;
                connection.writable |= writable;
                self.mark(number);
            }
        }
    }

    /// Answers the SYN of a container whose connection the host has got.
    fn establish(&mut self, common: &mut Common, number: usize, now: Instant) {
        let room = room(self.table.occupied());
        let Some(mut row) = self.table.remove(number) else { return };
        let Stage::Connecting(fd, syn) = row.value.stage else { return };
        let Some(mut connection) = Connection::accept(fd, &syn, row.key.1, room, now) else { return };
        connection.receive(&mut self.stack, &syn.packet, &mut common.outbox, now);
        common.counters.tcp_opened += 1;
        row.value.stage = Stage::Open(Box::new(connection));
        // It gets the number that it had, for that was freed last.
        let number = self.table.insert(row.key, row.owner, now, row.value);
        self.mark(number);
    }

    fn mark(&mut self, number: usize) {
        if let Some(row) = self.table.get_mut(number).filter(|row| !row.value.marked) {
            row.value.marked = true;
            self.marked.push(number);
        }
    }

    /// Pumps the connections to which something happened.
    pub(super) fn pump(&mut self, common: &mut Common, now: Instant) {
        while let Some(&Reverse((at, number))) = self.timers.peek().filter(|Reverse((at, _))| *at <= now) {
            self.timers.pop();
            if self.table.get_mut(number).is_some_and(|row| row.value.timer.take_if(|timer| *timer == at).is_some()) {
                self.mark(number);
            }
        }
        if !self.blocked.is_empty() && common.outbox.link.writer.has_room() {
            for number in std::mem::take(&mut self.blocked) {
                if let Some(row) = self.table.get_mut(number) {
                    row.value.blocked = false;
                }
                self.mark(number);
            }
        }
        let mut marked = std::mem::take(&mut self.marked);
        for number in marked.drain(..) {
            self.pump_one(common, number, now);
        }
        // Pumping marks nothing.
        self.marked = marked;
    }

    fn pump_one(&mut self, common: &mut Common, number: usize, now: Instant) {
        let Some(row) = self.table.get_mut(number) else { return };
        row.value.marked = false;
        let Stage::Open(connection) = &mut row.value.stage else { return };
        if connection.pump(&mut self.stack, &mut common.outbox, now) == ConnectionFate::Finished {
            return self.forget(number);
        }
        if !common.outbox.link.writer.has_room() {
            if !std::mem::replace(&mut row.value.blocked, true) {
                self.blocked.push(number);
            }
            return;
        }
        let Some(at) = connection.deadline(&mut self.stack, now) else { return };
        if row.value.timer.is_none_or(|timer| at < timer) {
            row.value.timer = Some(at);
            self.timers.push(Reverse((at, number)));
            self.drop_stale_timers();
        }
    }

    /// Entries of connections that are gone wait in the heap for their time, but not too many of them.
    fn drop_stale_timers(&mut self) {
        if self.timers.len() > 2 * self.table.occupied() + 1024 {
            let table = &self.table;
            let live = |at: Instant, number| table.get(number).is_some_and(|row| row.value.timer == Some(at));
            self.timers.retain(|Reverse((at, number))| live(*at, *number));
        }
    }

    /// Ends the connections of containers that are gone.
    pub(super) fn forget_containers(&mut self, containers: &[IpAddr]) {
        for number in self.table.which(|row| containers.contains(&row.owner.container)) {
            self.forget(number);
        }
    }

    fn forget(&mut self, number: usize) {
        // Dropping a connection closes its socket, which ends its registration.
        self.table.remove(number);
    }

    /// When the next timer rings.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.timers.peek().map(|Reverse((at, _))| *at)
    }

    /// An ICMP error that came for a packet of ours: the router found no container, or a smaller MTU.
    pub(super) fn failed(&mut self, common: &mut Common, key: Key, mtu: Option<u32>, now: Instant) {
        let Some(number) = self.table.find(&key) else { return };
        let Some(Stage::Open(connection)) = self.table.get_mut(number).map(|row| &mut row.value.stage) else { return };
        if let Some(mtu) = mtu {
            // No path takes less than 576 or 1280 bytes (RFC 791, section 3.1; RFC 8200, section 5).
            let (headers, least) = if key.0.is_ipv4() { (40, 536) } else { (60, 1220) };
            let mss = u16::try_from(mtu.saturating_sub(headers)).unwrap_or(u16::MAX).max(least);
            connection.mss = connection.mss.min(mss);
        } else if connection.is_calling() {
            connection.abort(&mut self.stack, &mut common.outbox, now);
            self.forget(number);
        }
    }

    /// Lists the connections.
    /// Number of sessions.
    pub(super) fn count(&self) -> usize {
        self.table.iter().count()
    }

    pub(super) fn sessions(&self, now: Instant) -> Vec<Session> {
        let session = |(_, row): (_, &plane::table::TableRow<Key, Behind, Splice>)| {
            let (state, sent, received) = match &row.value.stage {
                Stage::Connecting(..) => ("connecting", 0, 0),
                Stage::Open(connection) => (connection.describe(), connection.sent, connection.received),
            };
            let (container, remote) = row.key;
            let (direction, idle) = (row.value.direction, now.saturating_duration_since(row.used));
            Session { protocol: Protocol::Tcp, direction, container, remote, state, sent, received, idle }
        };
        self.table.iter().map(session).collect()
    }
}

impl Splice {
    fn is_over(&self) -> bool {
        matches!(&self.stage, Stage::Open(connection) if connection.is_over())
    }

    fn descriptor(&self) -> Option<i32> {
        match &self.stage {
            Stage::Connecting(fd, _) => Some(fd.as_raw_fd()),
            Stage::Open(connection) => connection.descriptor(),
        }
    }
}
