//! The uplink's thread: waits for the switch, the kernel and the clock, and hands what comes to the protocol or forward that it is for.

use std::collections::{BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use crossbeam_channel::{Receiver, Sender, TryRecvError};
use mio::{Events, Interest, Poll, Token};
use nat::{Filtering, Protocol};
use packet::{Ethernet, IpPacket, ethertype, protocol};
use rustix::io::Errno;
use rustix::net::SocketFlags;

use super::apart::Apart;
use super::common::{Arrival, Common};
use super::echo::Echo;
use super::elder::{Elder, HostLoan};
use super::forward::{Forward, Listeners};
use super::link::Slot;
use super::outbox::{Gateway, Unreachable};
use super::report::{Counters, Session, Totals};
use super::shares::Share;
use super::tcp::Tcp;
use super::udp::Udp;
use super::{Capacity, HostError};
use plane::fragments::Reassembly;

/// Most datagrams, clients or errors taken from one socket before the others have their turn.
pub(super) const PATIENCE: usize = 64;
/// Most frames taken from the switch before the sockets have their turn.
const FRAMES: usize = 128;
/// And how long it works on them: a new session costs a hundred times as much as a segment of one.
const TURN: Duration = Duration::from_millis(1);
/// How often idle sessions are looked for.
const TICK: Duration = Duration::from_secs(1);
pub(super) const WAKER: Token = Token(usize::MAX);
/// Where a token holds what kind of thing it stands for, above its number.
const KIND: u32 = 32;

/// What the control side wants.
pub(super) enum Order {
    SetForwards(Vec<Forward>, Sender<Result<(), HostError>>),
    Lend(Sender<Result<HostLoan, HostError>>),
    GoOn(Vec<Elder>, Sender<()>),
    SetGateways(Vec<Gateway>, Sender<()>),
    SetFiltering(Filtering, Sender<()>),
    SetApart(Apart, Sender<()>),
    Forget(Vec<IpAddr>, Sender<()>),
    Sessions(Sender<Vec<Session>>),
    Counters(Sender<Counters>),
    Stop,
}

/// What becomes ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EventSource {
    Tcp,
    Udp,
    Echo,
    Listener,
    Elder,
}

impl EventSource {
    pub(super) const fn token(self, number: usize) -> Token {
        Token((self as usize) << KIND | number)
    }

    pub(super) fn of(token: Token) -> Option<(Self, usize)> {
        let all = [Self::Tcp, Self::Udp, Self::Echo, Self::Listener, Self::Elder];
        let source = all.into_iter().find(|source| *source as usize == token.0 >> KIND)?;
        Some((source, token.0 & ((1 << KIND) - 1)))
    }
}

/// All that the thread owns.
pub(super) struct Engine {
    poll: Poll,
    commands: Receiver<Order>,
    pub(super) common: Common,
    tcp: Tcp,
    udp: Udp,
    echo: Echo,
    reassembly: Reassembly<Share>,
    pub(super) listeners: Listeners,
    /// Listeners whose clients could not be accepted for want of descriptors, which raise no new edge.
    pub(super) starved: BTreeSet<usize>,
    /// Sockets where more may wait, for which the kernel shows no new edge.
    pub(super) again: VecDeque<Token>,
    /// Those who see sessions through; `None`: it has ended.
    pub(super) elders: Vec<Option<Elder>>,
    /// Room for a frame of theirs.
    pub(super) elders_frame: Box<[u8]>,
    /// Whether nothing is taken in that comes to published ports.
    pub(super) holds: bool,
    watched: Watched,
}

/// What others see of the thread without asking it.
pub(super) struct Watched {
    /// How often it came round its loop.
    pub(super) turns: Arc<AtomicU64>,
    pub(super) totals: Arc<ArcSwap<Totals>>,
}

impl Engine {
    pub(super) fn new(
        poll: Poll,
        commands: Receiver<Order>,
        common: Common,
        capacity: Capacity,
        descriptors: usize,
        watched: Watched,
        holds: bool,
    ) -> Self {
        Self {
            poll,
            commands,
            common,
            tcp: Tcp::new(Instant::now(), capacity.tcp),
            udp: Udp::new(capacity.udp),
            echo: Echo::new(capacity.echo),
            reassembly: Reassembly::default(),
            listeners: Listeners::new(descriptors),
            starved: BTreeSet::new(),
            again: VecDeque::new(),
            elders: Vec::new(),
            elders_frame: Box::default(),
            holds,
            watched,
        }
    }

    /// Runs until it is told to stop, or the uplink's handle is gone, by which it would be told.
    pub(super) fn run(mut self) {
        let mut events = Events::with_capacity(256);
        let mut tick = Instant::now() + TICK;
        loop {
            self.watched.turns.fetch_add(1, Ordering::Relaxed);
            let now = Instant::now();
            if self.listen(now).is_break() {
                return;
            }
            let more = self.take_frames(now);
            self.tcp.pump(&mut self.common, now);
            if now >= tick {
                self.expire(now);
                tick = now + TICK;
            }
            let until = self.tcp.deadline().map_or(tick, |at| at.min(tick));
            // What waits for room in the link is rung for.
            let busy = !self.again.is_empty() && self.common.outbox.link.writer.has_room_for_datagram();
            let idle = !more && !busy && self.common.outbox.link.may_sleep();
            let patience = if idle { until.saturating_duration_since(Instant::now()) } else { Duration::ZERO };
            // Only EINTR happens here; the loop comes round again.
            let polled = self.poll.poll(&mut events, Some(patience));
            self.common.outbox.link.is_awake();
            let now = Instant::now();
            for _ in 0..self.again.len() {
                if let Some(token) = self.again.pop_front() {
                    self.ready(token, true, false, now);
                }
            }
            if polled.is_ok() {
                for event in &events {
                    let broken = event.is_error() || event.is_read_closed() && event.is_write_closed();
                    let readable = event.is_readable() || event.is_read_closed() || broken;
                    self.ready(event.token(), readable, event.is_writable() || broken, now);
                }
            }
        }
    }

    fn listen(&mut self, now: Instant) -> std::ops::ControlFlow<()> {
        loop {
            match self.commands.try_recv() {
                // The control side may have stopped waiting for an answer, which is no error.
                Ok(Order::SetForwards(forwards, reply)) => {
                    let _ = reply.send(self.set_forwards(&forwards));
                }
                Ok(Order::Lend(reply)) => {
                    let _ = reply.send(self.lend());
                }
                Ok(Order::GoOn(elders, reply)) => {
                    self.go_on(elders);
                    let _ = reply.send(());
                }
                Ok(Order::SetGateways(gateways, reply)) => {
                    self.common.outbox.gateways = gateways;
                    let _ = reply.send(());
                }
                Ok(Order::SetFiltering(filtering, reply)) => {
                    self.udp.filtering = filtering;
                    let _ = reply.send(());
                }
                Ok(Order::SetApart(apart, reply)) => {
                    self.common.apart = apart;
                    let _ = reply.send(());
                }
                Ok(Order::Forget(containers, reply)) => {
                    self.tcp.forget_containers(&containers);
                    self.udp.forget(&containers);
                    self.echo.forget(&containers);
                    let _ = reply.send(());
                }
                Ok(Order::Sessions(reply)) => {
                    let _ = reply.send(self.sessions(now));
                }
                Ok(Order::Counters(reply)) => {
                    let _ = reply.send(self.counters());
                }
                Ok(Order::Stop) | Err(TryRecvError::Disconnected) => return std::ops::ControlFlow::Break(()),
                Err(TryRecvError::Empty) => return std::ops::ControlFlow::Continue(()),
            }
        }
    }

    fn counters(&self) -> Counters {
        let (queue_full, fragments_dropped) = (self.common.outbox.full, self.reassembly.dropped);
        Counters { queue_full, fragments_dropped, ..self.common.counters }
    }

    fn sessions(&self, now: Instant) -> Vec<Session> {
        let elders = self.elders.iter().flatten().flat_map(Elder::listed).collect();
        [self.tcp.sessions(now), self.udp.sessions(now), self.echo.sessions(now), elders].concat()
    }

    fn set_forwards(&mut self, forwards: &[Forward]) -> Result<(), HostError> {
        let (common, holds) = (&self.common, self.holds);
        self.listeners.set(forwards, &common.doors, |listener, number| {
            holds || common.watch(listener.descriptor(), EventSource::Listener.token(number), Interest::READABLE)
        })?;
        let targets = self.listeners.targets();
        self.udp.retain(|socket, to| targets.get(&socket.as_ptr()) == Some(&to));
        Ok(())
    }

    fn expire(&mut self, now: Instant) {
        self.udp.expire(now);
        self.echo.expire(now);
        self.reassembly.expire(now);
        let sessions = self.tcp.count() + self.udp.count() + self.echo.count();
        let capacity = self.watched.totals.load().capacity;
        self.watched.totals.store(Arc::new(Totals { sessions, capacity, counters: self.counters() }));
        for number in std::mem::take(&mut self.starved) {
            self.ready(EventSource::Listener.token(number), true, false, now);
        }
    }

    /// Takes frames from the switch; says whether more wait.
    fn take_frames(&mut self, now: Instant) -> bool {
        let mut before = Instant::now();
        let end = before + TURN;
        for _ in 0..FRAMES {
            let Some(slot) = self.common.outbox.link.next() else { return false };
            self.take(&slot, now);
            let after = Instant::now();
            self.common.outbox.link.charge(slot.share, after.saturating_duration_since(before));
            self.common.outbox.link.give_back(slot);
            if after >= end {
                break;
            }
            before = after;
        }
        true
    }

    fn take(&mut self, slot: &Slot, now: Instant) {
        let (frame, share) = (slot.bytes(), slot.share);
        let Ok(ethernet) = Ethernet::parse(frame) else { return };
        if !matches!(ethernet.ethertype, ethertype::IPV4 | ethertype::IPV6) {
            return;
        }
        let Some(ip) = IpPacket::parse(frame, &ethernet) else {
            self.common.counters.malformed += 1;
            return;
        };
        match ip.fragment {
            None => self.dispatch(&Arrival { frame, ip, offload: slot.offload, share, was_fragmented: false }, now),
            Some(fragment) => {
                if let Some((frame, ip)) = self.reassembly.add(share, frame, &ip, fragment, now).whole {
                    let offload = packet::Offload::default();
                    let arrival = Arrival { frame: &frame, ip, offload, share, was_fragmented: true };
                    self.dispatch(&arrival, now);
                }
            }
        }
    }

    fn dispatch(&mut self, arrival: &Arrival<'_>, now: Instant) {
        if let Some(elder) = self.elders.iter().flatten().find(|elder| elder.takes(arrival)) {
            return elder.send(arrival);
        }
        let common = &mut self.common;
        match (arrival.ip.protocol, arrival.ip.source) {
            (protocol::TCP, _) => self.tcp.receive(common, arrival, now),
            (protocol::UDP, _) => self.udp.receive(common, arrival, now),
            (protocol::ICMP, IpAddr::V4(_)) | (protocol::ICMP6, IpAddr::V6(_)) => {
                if !self.echo.receive(common, arrival, now) {
                    self.hear_error(arrival, now);
                }
            }
            _ => {
                common.counters.unknown_protocols += 1;
                common.unreachable(Unreachable::Protocol, arrival);
            }
        }
    }

    /// An ICMP error about a packet of ours, from a container or the router. Only TCP can do something with it; there is no way
    /// to pass one on to a peer of the host's sockets.
    fn hear_error(&mut self, arrival: &Arrival<'_>, now: Instant) {
        let message = arrival.transport();
        let Some([kind, code, _, _, m0, m1, m2, m3]) = message.first_chunk::<8>().copied() else { return };
        let more = u32::from_be_bytes([m0, m1, m2, m3]);
        let mtu = match (arrival.ip.source, kind, code) {
            (IpAddr::V4(_), 3, 4) => Some(more & 0xffff),
            (IpAddr::V6(_), 2, _) => Some(more),
            (IpAddr::V4(_), 3, _) | (IpAddr::V6(_), 1, _) => None,
            _ => return,
        };
        let Some(inner) = IpPacket::parse_embedded(message, 8).filter(|inner| inner.protocol == protocol::TCP) else { return };
        let Some([s0, s1, d0, d1]) = message.get(inner.transport..).and_then(|bytes| bytes.first_chunk::<4>()).copied() else {
            return;
        };
        let remote = SocketAddr::new(inner.source, u16::from_be_bytes([s0, s1]));
        let container = SocketAddr::new(inner.destination, u16::from_be_bytes([d0, d1]));
        // A container says nothing about the connections of others.
        let from = arrival.ip.source;
        if from != container.ip() && !self.common.is_gateway(from) {
            return;
        }
        self.tcp.failed(&mut self.common, (container, remote), mtu, now);
    }

    fn ready(&mut self, token: Token, readable: bool, writable: bool, now: Instant) {
        let Some((source, number)) = EventSource::of(token).filter(|_| token != WAKER) else { return };
        let common = &mut self.common;
        let more = match source {
            EventSource::Tcp => {
                self.tcp.ready(common, number, readable, writable, now);
                false
            }
            EventSource::Udp => self.udp.ready(common, number),
            EventSource::Echo => self.echo.ready(common, number),
            EventSource::Listener => self.serve(number, now),
            EventSource::Elder => self.hear_elder(number),
        };
        if more && !self.again.contains(&token) {
            self.again.push_back(token);
        }
    }

    /// Takes what clients brought to a forward; says whether more may wait.
    fn serve(&mut self, number: usize, now: Instant) -> bool {
        let Some(listener) = self.listeners.get(number) else { return false };
        let (socket, to) = (Arc::clone(&listener.socket), listener.to);
        if listener.place.protocol == Protocol::Udp {
            return self.udp.serve(&mut self.common, &socket, to, now);
        }
        for _ in 0..PATIENCE {
            match rustix::net::accept_with(&*socket, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
                Ok(fd) => {
                    let name = |name: Result<rustix::net::SocketAddrAny, Errno>| SocketAddr::try_from(name.ok()?).ok();
                    let at = name(rustix::net::getsockname(&fd)).map(|address| address.ip());
                    let client = name(rustix::net::getpeername(&fd).and_then(|peer| peer.ok_or(Errno::NOTCONN)));
                    let seen = client.and_then(|client| self.common.seen(client, at, to.ip()));
                    // A client that has gone already needs no answer; one that cannot be shown to the container is closed.
                    if let Some(seen) = seen {
                        self.tcp.forward(&mut self.common, fd, seen, to, now);
                    }
                }
                // ECONNABORTED and errors of the network that accept(2) passes on concern one client.
                Err(Errno::AGAIN) => return false,
                Err(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => {
                    self.starved.insert(number);
                    return false;
                }
                Err(_) => {}
            }
        }
        true
    }
}
