//! UDP: flows that containers begin, and those that come in by forwards.
//!
//! A container's address and port have one socket of the host, whomever they talk to: the mapping does not depend on the endpoint (RFC
//! 4787, REQ-1). Who is heard there is for [`Filtering`] to say (REQ-8), by whom the container has sent to. A flow is forgotten when
//! nothing has left by it for 300 s (REQ-5), or for 60 s if it only ever asked port 53. What the kernel learns about its datagrams, as an
//! ICMP error, the container is told.
//!
//! A forward's clients share the forward's socket; each has a row, so that the container sees the client's own address and an
//! answer goes back to it from the address that it spoke to.
//!
//! **Bounds.** `capacity` flows of each of the two kinds; [`Table`] says who loses one. Of a flow, [`Peers`] says whom it remembers.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use mio::Interest;
use nat::{Filtering, Settings};
use packet::{GsoKind, IpPacket, protocol};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use super::common::{Arrival, Behind, Common, HeardError, Manner, forwarded, hear, unsendable};
use super::engine::{self, PATIENCE};
use super::outbox::rebuilt_udp;
use super::peers::Peers;
use super::report::{Direction, Protocol, Session};
use plane::table::{Owner, Table};
use sys::datagram;

/// How long a flow is kept, and one that only asks for names.
const IDLE: Duration = Duration::from_secs(300);
const IDLE_NAMES: Duration = Duration::from_secs(60);
const NAMES: u16 = 53;
const HEADER: usize = 8;

/// Every flow.
pub(super) struct Udp {
    /// Who may send to a flow's port.
    pub(super) filtering: Filtering,
    flows: Table<SocketAddr, Behind, Flow>,
    served: Table<(SocketAddr, SocketAddr), Behind, Served>,
    buffer: Vec<u8>,
}

/// What a container's port is on the host.
struct Flow {
    fd: OwnedFd,
    manner: Manner,
    only_names: bool,
    /// The last that it sent to, and all.
    remote: SocketAddr,
    peers: Peers,
    sent: u64,
    received: u64,
}

/// A client of a forward, as a container sees it.
struct Served {
    socket: Weak<OwnedFd>,
    client: SocketAddr,
    /// The address of this host that it speaks to.
    at: Option<IpAddr>,
    sent: u64,
    received: u64,
}

impl Udp {
    pub(super) fn new(capacity: usize) -> Self {
        let (flows, served) = (Table::new(capacity), Table::new(capacity));
        Self { filtering: Settings::default().filtering, flows, served, buffer: vec![0; 65_536] }
    }

    /// Takes in a datagram of a container, or a super-frame of several.
    pub(super) fn receive(&mut self, common: &mut Common, arrival: &Arrival<'_>, now: Instant) {
        let Some((from, to, payload)) = parse(arrival) else {
            common.counters.malformed += 1;
            return;
        };
        let segment = arrival.offload.gso.filter(|gso| gso.kind == GsoKind::Udp).map(|gso| gso.size.get());
        if let Some(row) = self.served.find(&(from, to)).and_then(|number| self.served.get_mut(number)) {
            (row.used, row.value.sent) = (now, row.value.sent + payload.len() as u64);
            let Served { socket, client, at, .. } = &row.value;
            // Without its forward there is nothing to answer by.
            let sent = socket.upgrade().is_some_and(|socket| send(&socket, payload, *client, *at, segment).is_ok());
            common.counters.unsent += u64::from(!sent);
            return;
        }
        if common.refuses(arrival) {
            return;
        }
        if common.is_gateway(to.ip()) {
            return common.nobody_listens(arrival);
        }
        let Some(number) = self.flows.find(&from).or_else(|| self.begin(common, arrival.owner(), (from, to), now)) else {
            common.counters.unsent += 1;
            return;
        };
        let Some(row) = self.flows.get_mut(number) else { return };
        let flow = &mut row.value;
        (row.used, flow.remote, flow.sent) = (now, to, flow.sent + payload.len() as u64);
        flow.only_names &= to.port() == NAMES;
        flow.peers.note(self.filtering, to);
        flow.manner.follow(&flow.fd, arrival);
        let Err(error) = send(&flow.fd, payload, to, None, segment) else { return };
        let heard = hear_errors(common, &flow.fd, from, &mut self.buffer);
        // It may be one that a datagram before this one met.
        let again = heard.any && error != Errno::MSGSIZE;
        let Err(error) = (if again { send(&flow.fd, payload, to, None, segment) } else { Err(error) }) else { return };
        common.counters.unsent += 1;
        if let Some(what) = unsendable(error, heard) {
            common.unreachable(what, arrival);
        }
    }

    fn begin(
        &mut self,
        common: &mut Common,
        owner: Owner<Behind>,
        (from, to): (SocketAddr, SocketAddr),
        now: Instant,
    ) -> Option<usize> {
        if let Some(victim) = self.flows.victim() {
            common.counters.flows_evicted += 1;
            self.flows.remove(victim);
        }
        let family = if from.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let fd = rustix::net::socket_with(family, SocketType::DGRAM, flags, None).ok()?;
        if from.is_ipv6() {
            sockopt::set_ipv6_v6only(&fd, true).ok()?;
        }
        datagram::ask_for_errors(fd.as_fd(), from.is_ipv6()).ok()?;
        let descriptor = fd.as_raw_fd();
        let flow =
            Flow { fd, manner: Manner::default(), only_names: true, remote: to, peers: Peers::default(), sent: 0, received: 0 };
        let number = self.flows.insert(from, owner, now, flow);
        if !common.watch(descriptor, engine::EventSource::Udp.token(number), Interest::READABLE) {
            self.flows.remove(number);
            return None;
        }
        Some(number)
    }

    /// Reads what waits at a flow's socket; says whether more may wait.
    pub(super) fn ready(&mut self, common: &mut Common, number: usize) -> bool {
        let Some(row) = self.flows.get_mut(number) else { return false };
        let (container, flow) = (row.key, &mut row.value);
        for _ in 0..PATIENCE {
            if !common.outbox.link.writer.has_room_for_datagram() {
                return true;
            }
            match datagram::receive(flow.fd.as_fd(), &mut self.buffer) {
                Ok(received) if !flow.peers.let_in(self.filtering, received.from) => common.counters.filtered += 1,
                Ok(received) => {
                    let payload = self.buffer.get(..received.length).unwrap_or_default();
                    flow.received += payload.len() as u64;
                    common.outbox.udp(received.from, container, payload);
                }
                Err(Errno::AGAIN) => return false,
                // What is in the error queue shows once as the result of a read.
                Err(_) => {
                    hear_errors(common, &flow.fd, container, &mut self.buffer);
                }
            }
        }
        true
    }

    /// Reads what clients sent to a forward's socket; says whether more may wait.
    pub(super) fn serve(&mut self, common: &mut Common, socket: &Arc<OwnedFd>, container: SocketAddr, now: Instant) -> bool {
        for _ in 0..PATIENCE {
            if !common.outbox.link.writer.has_room_for_datagram() {
                return true;
            }
            match datagram::receive(socket.as_fd(), &mut self.buffer) {
                Ok(received) => {
                    let Some(seen) = self.client(common, socket, &received, container, now) else { continue };
                    let payload = self.buffer.get(..received.length).unwrap_or_default();
                    common.outbox.udp(seen, container, payload);
                }
                Err(Errno::AGAIN) => return false,
                Err(_) => {}
            }
        }
        true
    }

    /// Finds or makes the row of a client; returns its address as the container sees it. Where another client has that address
    /// already, as two on this host with one port can, it gets another port.
    fn client(
        &mut self,
        common: &mut Common,
        socket: &Arc<OwnedFd>,
        received: &datagram::Datagram,
        container: SocketAddr,
        now: Instant,
    ) -> Option<SocketAddr> {
        let datagram::Datagram { from: client, to: at, length } = *received;
        let first = common.seen(client, at, container.ip())?;
        let others = (1..16_u16).map(|step| first.port().wrapping_mul(31).wrapping_add(step * 4099) | 0x8000);
        let mut places = std::iter::once(first.port()).chain(others).map(|port| SocketAddr::new(first.ip(), port));
        let seen =
            places.find(|seen| match self.served.find(&(container, *seen)).and_then(|number| self.served.get(number)) {
                Some(row) => row.value.client == client,
                None => true,
            })?;
        if let Some(row) = self.served.find(&(container, seen)).and_then(|number| self.served.get_mut(number)) {
            (row.used, row.value.at, row.value.received) = (now, at, row.value.received + length as u64);
            row.value.socket = Arc::downgrade(socket);
            return Some(seen);
        }
        if let Some(victim) = self.served.victim() {
            common.counters.flows_evicted += 1;
            self.served.remove(victim);
        }
        let served = Served { socket: Arc::downgrade(socket), client, at, sent: 0, received: length as u64 };
        self.served.insert((container, seen), forwarded(container.ip()), now, served);
        Some(seen)
    }

    /// Forgets flows that are idle.
    pub(super) fn expire(&mut self, now: Instant) {
        let idle = |used: Instant| now.saturating_duration_since(used);
        let limit = |flow: &Flow| if flow.only_names { IDLE_NAMES } else { IDLE };
        for number in self.flows.which(|row| idle(row.used) >= limit(&row.value)) {
            self.flows.remove(number);
        }
        for number in self.served.which(|row| idle(row.used) >= IDLE) {
            self.served.remove(number);
        }
    }

    /// Forgets the flows of containers that are gone.
    pub(super) fn forget(&mut self, containers: &[IpAddr]) {
        for number in self.flows.which(|row| containers.contains(&row.owner.container)) {
            self.flows.remove(number);
        }
        for number in self.served.which(|row| containers.contains(&row.owner.container)) {
            self.served.remove(number);
        }
    }

    /// Forgets clients of forwards that are no more: those whose socket and container `stays` does not know.
    pub(super) fn retain(&mut self, stays: impl Fn(&Weak<OwnedFd>, SocketAddr) -> bool) {
        for number in self.served.which(|row| !stays(&row.value.socket, row.key.0)) {
            self.served.remove(number);
        }
    }

    /// Lists the flows.
    /// Number of sessions.
    pub(super) fn count(&self) -> usize {
        self.flows.iter().count() + self.served.iter().count()
    }

    pub(super) fn sessions(&self, now: Instant) -> Vec<Session> {
        let out = self
            .flows
            .iter()
            .map(|(_, row)| (Direction::Out, row.key, row.value.remote, row.value.sent, row.value.received, row.used));
        let served = self
            .served
            .iter()
            .map(|(_, row)| (Direction::In, row.key.0, row.key.1, row.value.sent, row.value.received, row.used));
        let session = |(direction, container, remote, sent, received, used)| Session {
            protocol: Protocol::Udp,
            direction,
            container,
            remote,
            state: "open",
            sent,
            received,
            idle: now.saturating_duration_since(used),
        };
        out.chain(served).map(session).collect()
    }
}

/// The addresses and the payload of a datagram whose checksum is right.
fn parse<'a>(arrival: &'a Arrival<'_>) -> Option<(SocketAddr, SocketAddr, &'a [u8])> {
    let bytes = arrival.transport();
    let [s0, s1, d0, d1, l0, l1, c0, c1] = *bytes.first_chunk::<HEADER>()?;
    let IpPacket { source, destination, .. } = arrival.ip;
    let none = source.is_ipv4() && [c0, c1] == [0, 0];
    if !none && !arrival.is_intact(protocol::UDP) {
        return None;
    }
    let length = if arrival.offload.gso.is_some() { bytes.len() } else { usize::from(u16::from_be_bytes([l0, l1])) };
    let payload = bytes.get(HEADER..length)?;
    let from = SocketAddr::new(source, u16::from_be_bytes([s0, s1]));
    Some((from, SocketAddr::new(destination, u16::from_be_bytes([d0, d1])), payload))
}

/// Sends a datagram, or several of `segment` bytes; where the kernel or the route cannot cut, one by one.
fn send(fd: &OwnedFd, payload: &[u8], to: SocketAddr, from: Option<IpAddr>, segment: Option<u16>) -> Result<(), Errno> {
    match segment.filter(|size| payload.len() > usize::from(*size)) {
        None => datagram::send(fd.as_fd(), payload, to, from, None),
        Some(size) => match datagram::send(fd.as_fd(), payload, to, from, Some(size)) {
            Err(Errno::INVAL | Errno::IO | Errno::MSGSIZE | Errno::OPNOTSUPP) => {
                payload.chunks(size.into()).try_for_each(|piece| datagram::send(fd.as_fd(), piece, to, from, None))
            }
            result => result,
        },
    }
}

/// Tells a container what its datagrams met.
fn hear_errors(common: &mut Common, fd: &OwnedFd, container: SocketAddr, buffer: &mut [u8]) -> HeardError {
    hear(fd.as_fd(), buffer, |(payload, to, what, offender)| {
        let voice = offender.unwrap_or_else(|| common.voice(container.ip(), to.ip()));
        common.outbox.unreachable(what, voice, container.ip(), &rebuilt_udp(container, to, payload));
    })
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;
    use packet::Ethernet;

    use super::*;
    use crate::host::shares::Share;
    use crate::host::tests::common;

    fn owner(port: u32, from: SocketAddr) -> Owner<Behind> {
        Owner { port: Behind::Port(Share::of(port)), container: from.ip() }
    }

    #[test]
    fn a_flow_expires_and_one_that_asks_for_names_does_so_sooner() {
        let (mut common, _device) = common();
        let (mut udp, now) = (Udp::new(10), Instant::now());
        let mut begin = |udp: &mut Udp, port, to| {
            let (from, to) = (SocketAddr::from(([10, 0, 0, 2], port)), SocketAddr::from(([192, 0, 2, 2], to)));
            udp.begin(&mut common, owner(1, from), (from, to), now).unwrap()
        };
        begin(&mut udp, 1, 53);
        let number = begin(&mut udp, 2, 443);
        udp.flows.get_mut(number).unwrap().value.only_names = false;
        let left = |udp: &mut Udp, seconds| {
            udp.expire(now + Duration::from_secs(seconds));
            udp.sessions(now).len()
        };
        assert_eq!([59, 60, 299, 300].map(|seconds| left(&mut udp, seconds)), [2, 1, 1, 0]);
    }

    #[test]
    fn the_container_with_the_most_flows_loses_its_idlest() {
        let (mut common, _device) = common();
        let (mut udp, now) = (Udp::new(10), Instant::now());
        let remote = SocketAddr::from(([192, 0, 2, 2], 443));
        let modest = SocketAddr::from(([10, 0, 0, 2], 1));
        udp.begin(&mut common, owner(1, modest), (modest, remote), now).unwrap();
        for port in 1..100 {
            let (from, later) = (SocketAddr::from(([10, 0, 0, 3], port)), now + Duration::from_millis(port.into()));
            udp.begin(&mut common, owner(2, from), (from, remote), later).unwrap();
        }
        let kept: Vec<_> = udp.sessions(now).iter().map(|session| session.container.port()).collect();
        assert_eq!((kept.len(), udp.flows.find(&SocketAddr::from(([10, 0, 0, 2], 1))).is_some()), (10, true));
        assert!(kept.iter().all(|port| *port == 1 || *port > 90), "{kept:?}");
        assert_eq!(common.counters.flows_evicted, 90);
    }

    #[test]
    fn a_container_that_makes_up_addresses_pushes_out_only_its_own_flows() {
        let Some(()) = crate::host::tests::prepare("a_container_that_makes_up_addresses_pushes_out_only_its_own_flows") else {
            return;
        };
        let (mut common, _device) = common();
        let (mut udp, now) = (Udp::new(10), Instant::now());
        // Nothing leaves the test's namespace, which has no route.
        let mut say = |udp: &mut Udp, share, (source, port): ([u8; 4], u16), milliseconds| {
            let mut frame = Vec::new();
            let datagram = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4(source, [192, 0, 2, 2], 64).udp(port, 443);
            datagram.write(&mut frame, b"x").unwrap();
            let ip = IpPacket::parse(&frame, &Ethernet::parse(&frame).unwrap()).unwrap();
            let offload = packet::Offload::default();
            let arrival = Arrival { frame: &frame, ip, offload, share: Share::of(share), was_fragmented: false };
            udp.receive(&mut common, &arrival, now + Duration::from_millis(milliseconds));
        };
        (1..=4).for_each(|port| say(&mut udp, 1, ([10, 0, 0, 2], port), 0));
        (0..200).for_each(|number| say(&mut udp, 2, ([10, 0, 1, number], 9), u64::from(number)));
        let kept = udp.sessions(now).iter().filter(|session| session.container.ip() == IpAddr::from([10, 0, 0, 2])).count();
        assert_eq!((kept, udp.sessions(now).len()), (4, 10));
    }
}
