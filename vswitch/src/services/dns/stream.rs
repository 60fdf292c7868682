//! DNS over TCP (RFC 7766): the connections of a bridge's stations to port 53 of their gateway.
//!
//! smoltcp's TCP, driven as the `host` uplink drives it: one `Interface` without addresses of its own, which answers for all, and for
//! each connection a set with nothing but its socket, so that a segment costs as much with many connections as with one. Time is an
//! argument; what is due without a segment (a repetition, the end of an idle connection) happens in the second's tick.
//!
//! A message has its length before it. Several questions may be on their way at a time, and an answer is written when it is there,
//! in whatever order (RFC 7766, section 7).
//!
//! **What bounds it.** [`MOST`] connections of a bridge, shared fairly among its ports ([`Shares`]); one more is refused with a reset.
//! A connection has two small buffers and at most [`PIPELINE`] questions without an answer; what it asks beyond that, or before it
//! has read what was said, waits at the station, whose window closes. One that asks nothing for [`IDLE`] is closed, and reset if
//! it is not gone after as long again; trickling bytes do not count as asking.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use packet::VlanId;
use smoltcp::iface::{Config, Interface, PollResult, SocketHandle, SocketSet};
use smoltcp::phy::{self, DeviceCapabilities, Medium};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::Instant;
use smoltcp::wire::HardwareAddress;

use super::{PORT, Shares};
use crate::services::wire::{self, Hop, Segment};
use api::PortName;

/// Most connections of a bridge.
pub(in crate::services) const MOST: usize = 64;
/// Questions of a connection that may be without an answer.
const PIPELINE: usize = 4;
/// A connection that asks nothing for so long is closed; RFC 7766, section 6.2.3, speaks of "a few seconds".
pub(in crate::services) const IDLE: Duration = Duration::from_secs(10);
/// What a connection may have received and not had answered, in bytes: a longer question ends it.
const QUESTIONS: usize = 4 << 10;
/// Bytes of the header of a message: nothing shorter is a question (RFC 1035, section 4.1.1).
const HEADER: usize = 12;
/// What a connection may have on its way to the station, in bytes.
const ANSWERS: usize = 16 << 10;
/// Bytes of answers that wait for that to become free, above which nothing more is asked.
const WAITING: usize = 64 << 10;

/// The connections of a bridge.
pub(in crate::services) struct Streams {
    interface: Interface,
    mtu: u16,
    open: HashMap<Ends, Stream>,
    shares: Shares,
    /// Of the last connection, so that an answer never reaches a later one between the same ends.
    number: u64,
}

/// The two ends of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Ends {
    station: SocketAddr,
    gateway: SocketAddr,
}

/// Names a connection for as long as it lives, and nothing afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::services) struct StreamId {
    ends: Ends,
    number: u64,
}

/// A frame for a station, with the VLAN that it is for.
pub(in crate::services) type Sent = (Option<VlanId>, Vec<u8>);

struct Stream {
    number: u64,
    /// Its socket alone.
    sockets: SocketSet<'static>,
    handle: SocketHandle,
    port: PortName,
    vlan: Option<VlanId>,
    hop: Hop,
    /// Questions without an answer.
    asked: usize,
    /// Answers for which there was no room.
    waiting: Vec<u8>,
    /// When it last asked, or was answered.
    used: Duration,
}

impl Streams {
    /// None yet, on a link with this MTU. `seed` should be random: sequence numbers come from it.
    pub(in crate::services) fn new(mtu: u16, seed: u64) -> Self {
        let interface = interface(mtu, seed);
        Self { interface, mtu, open: HashMap::new(), shares: Shares::new(MOST), number: seed }
    }

    /// Takes on another MTU, and forgets the connections to addresses that are no more the gateway's.
    pub(in crate::services) fn set_link(&mut self, mtu: u16, is_own: impl Fn(std::net::IpAddr) -> bool) {
        if self.mtu != mtu {
            (self.interface, self.mtu) = (interface(mtu, self.number), mtu);
        }
        let gone: Vec<Ends> = self.open.keys().filter(|ends| !is_own(ends.gateway.ip())).copied().collect();
        gone.iter().for_each(|ends| self.forget(ends));
    }

    /// Takes a segment that came at `port`; one to an address that is not `own`, or of no connection, is answered with a reset. Names
    /// the connection that it belongs to.
    pub(in crate::services) fn receive(
        &mut self,
        now: Duration,
        (port, vlan): (&PortName, Option<VlanId>),
        segment: &Segment<'_>,
        own: Hop,
        is_own: bool,
    ) -> (Option<StreamId>, Vec<Sent>) {
        let ends = Ends { station: segment.source, gateway: segment.destination };
        if segment.opens && is_own && !self.open.contains_key(&ends) && self.shares.begin(port) {
            self.number += 1;
            self.open.insert(ends, Stream::new(now, self.number, port.clone(), vlan, own));
        }
        let mut wire = Wire { incoming: Some(segment.packet), outgoing: Vec::new(), mtu: self.mtu };
        let Some(stream) = self.open.get_mut(&ends) else {
            self.interface.poll_ingress_single(instant(now), &mut wire, &mut SocketSet::new(Vec::new()));
            return (None, wire.sent(own, vlan));
        };
        self.interface.poll_ingress_single(instant(now), &mut wire, &mut stream.sockets);
        (Some(StreamId { ends, number: stream.number }), wire.sent(stream.hop, stream.vlan))
    }

    /// The next question of a connection, if it may ask one now; [`Streams::say`] is to follow.
    pub(in crate::services) fn question(&mut self, now: Duration, id: &StreamId) -> Option<(PortName, Vec<u8>)> {
        let stream = self.open.get_mut(&id.ends).filter(|stream| stream.number == id.number)?;
        let question = stream.question()?;
        stream.asked += 1;
        stream.used = now;
        Some((stream.port.clone(), question))
    }

    /// Writes the answer to a question; `None`: it gets none.
    pub(in crate::services) fn say(&mut self, now: Duration, id: &StreamId, answer: Option<&[u8]>) {
        let Some(stream) = self.open.get_mut(&id.ends).filter(|stream| stream.number == id.number) else { return };
        stream.asked -= 1;
        stream.used = now;
        if let Some((length, answer)) = answer.and_then(|answer| Some((u16::try_from(answer.len()).ok()?, answer))) {
            stream.waiting.extend(length.to_be_bytes());
            stream.waiting.extend(answer);
        }
    }

    /// What a connection has to send now.
    pub(in crate::services) fn send(&mut self, now: Duration, id: &StreamId) -> Vec<Sent> {
        match self.open.get(&id.ends) {
            Some(stream) if stream.number == id.number => self.pump(now, id.ends),
            _ => Vec::new(),
        }
    }

    /// Does what is due on all connections; returns what they send.
    pub(in crate::services) fn tick(&mut self, now: Duration) -> Vec<Sent> {
        let all: Vec<Ends> = self.open.keys().copied().collect();
        all.into_iter().flat_map(|ends| self.pump(now, ends)).collect()
    }

    fn pump(&mut self, now: Duration, ends: Ends) -> Vec<Sent> {
        let Some(stream) = self.open.get_mut(&ends) else { return Vec::new() };
        stream.write(now);
        let mut wire = Wire { incoming: None, outgoing: Vec::new(), mtu: self.mtu };
        while self.interface.poll_egress(instant(now), &mut wire, &mut stream.sockets) == PollResult::SocketStateChanged {}
        let sent = wire.sent(stream.hop, stream.vlan);
        // The side that closes first waits, lest its end be asked for again (RFC 9293, section 3.6.1). Here it does not: a reset says as much.
        if matches!(stream.socket().state(), State::Closed | State::Listen | State::TimeWait) {
            self.forget(&ends);
        }
        sent
    }

    fn forget(&mut self, ends: &Ends) {
        if let Some(stream) = self.open.remove(ends) {
            self.shares.end(&stream.port);
        }
    }
}

impl Stream {
    fn new(now: Duration, number: u64, port: PortName, vlan: Option<VlanId>, hop: Hop) -> Self {
        let mut socket = Socket::new(SocketBuffer::new(vec![0; QUESTIONS]), SocketBuffer::new(vec![0; ANSWERS]));
        // Answers are written whole, and a question is the only thing that a station waits to have confirmed.
        socket.set_nagle_enabled(false);
        socket.set_ack_delay(None);
        // It fails for port 0 and sockets that are open.
        let _ = socket.listen(PORT);
        let mut sockets = SocketSet::new(Vec::new());
        let handle = sockets.add(socket);
        Self { number, sockets, handle, port, vlan, hop, asked: 0, waiting: Vec::new(), used: now }
    }

    fn socket(&self) -> &Socket<'static> {
        self.sockets.get(self.handle)
    }

    /// Takes out a whole question, unless too much is unanswered.
    fn question(&mut self) -> Option<Vec<u8>> {
        let socket = self.sockets.get_mut::<Socket<'_>>(self.handle);
        let mut length = [0; 2];
        if self.asked >= PIPELINE || self.waiting.len() > WAITING || socket.peek_slice(&mut length) != Ok(2) {
            return None;
        }
        let length = usize::from(u16::from_be_bytes(length));
        if !(HEADER..=QUESTIONS - 2).contains(&length) {
            socket.abort();
            return None;
        }
        if socket.recv_queue() < length + 2 {
            return None;
        }
        let mut message = vec![0; length + 2];
        socket.recv_slice(&mut message).ok()?;
        message.drain(..2);
        Some(message)
    }

    /// Hands over what waits, as far as there is room, and closes what is through.
    fn write(&mut self, now: Duration) {
        let socket = self.sockets.get_mut::<Socket<'_>>(self.handle);
        let written = socket.send_slice(&self.waiting).unwrap_or_default();
        self.waiting.drain(..written);
        let (idle, through) = (now.saturating_sub(self.used), self.asked == 0 && self.waiting.is_empty());
        if self.asked == 0 && idle >= 2 * IDLE {
            socket.abort();
        } else if through && (idle >= IDLE || socket.state() == State::CloseWait && !socket.can_recv()) {
            socket.close();
        }
    }
}

fn interface(mtu: u16, seed: u64) -> Interface {
    let mut config = Config::new(HardwareAddress::Ip);
    config.random_seed = seed;
    let mut wire = Wire { incoming: None, outgoing: Vec::new(), mtu };
    let mut interface = Interface::new(config, &mut wire, Instant::ZERO);
    interface.set_any_ip(true);
    interface
}

fn instant(now: Duration) -> Instant {
    Instant::from_micros(i64::try_from(now.as_micros()).unwrap_or(i64::MAX))
}

/// The interface's device for the time of one call.
struct Wire<'a> {
    incoming: Option<&'a [u8]>,
    outgoing: Vec<Vec<u8>>,
    mtu: u16,
}

impl Wire<'_> {
    /// What was sent, as frames.
    fn sent(self, hop: Hop, vlan: Option<VlanId>) -> Vec<Sent> {
        self.outgoing.into_iter().map(|packet| (vlan, wire::ip(hop, &packet))).collect()
    }
}

impl phy::Device for Wire<'_> {
    type RxToken<'b>
        = Incoming<'b>
    where
        Self: 'b;
    type TxToken<'b>
        = Outgoing<'b>
    where
        Self: 'b;

    fn receive(&mut self, _: Instant) -> Option<(Incoming<'_>, Outgoing<'_>)> {
        Some((Incoming(self.incoming.take()?), Outgoing(&mut self.outgoing)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Outgoing<'_>> {
        Some(Outgoing(&mut self.outgoing))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = self.mtu.into();
        capabilities
    }
}

struct Incoming<'a>(&'a [u8]);

impl phy::RxToken for Incoming<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(self.0)
    }
}

struct Outgoing<'a>(&'a mut Vec<Vec<u8>>);

impl phy::TxToken for Outgoing<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, write: F) -> R {
        let mut packet = vec![0; length];
        let result = write(&mut packet);
        self.0.push(packet);
        result
    }
}

impl std::fmt::Debug for Streams {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Streams").field("open", &self.open.len()).finish_non_exhaustive()
    }
}
