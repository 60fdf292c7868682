//! WireGuard between the hosts of encrypted networks.
//!
//! **What it holds.** A session for each other host that has a part in one of them, whichever networks they share: keys, counters, and what waits
//! for a handshake. The protocol is [`boringtun`]'s; here it is told what comes and when a second has passed, and what it answers is sent. What is
//! inside a message is what a tunnel in the clear would send: an IP packet with a VXLAN datagram.
//!
//! **Who calls.** The control side says which hosts there are. Senders and receivers of all workers seal and open; two that deal with one host at
//! the same time meet at its lock, for a session has one counter.
//!
//! **Who is let in.** A host is known by its address and its key: what comes from another address is dropped unread, so are messages that its key did
//! not seal, and those that came before. Handshakes are limited to [`HANDSHAKES`] a second, beyond which a host must prove its address first.
//!
//! **What bounds it.** The hosts that tunnels have as peers; [`MOST_WAITING`] packets that wait for a handshake with each, beyond which the newest is
//! dropped.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Tunn, TunnResult};
use boringtun::x25519::{PublicKey, StaticSecret};
use foldhash::fast::RandomState;
use packet::protocol;

use super::{Sources, UnderlayDrop};
use crate::device::{Losses, Sent};
use sys::udp::Run;

/// The private key of a host.
#[derive(Clone)]
pub struct PrivateKey(StaticSecret);

impl PrivateKey {
    /// The key that these bytes are: any will do (RFC 7748, section 5).
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes.into())
    }

    /// What others must know of it.
    pub fn public(&self) -> [u8; 32] {
        PublicKey::from(&self.0).to_bytes()
    }
}

/// The sessions with all other hosts. Senders, receivers and the control side share it.
pub struct Wireguard {
    key: PrivateKey,
    /// Where it hears, and the UDP port of the others.
    local: SocketAddr,
    pub(super) sources: Arc<Sources>,
    limiter: Arc<RateLimiter>,
    hosts: ArcSwap<HashMap<IpAddr, Arc<Host>, RandomState>>,
    begun: Instant,
    /// The second in which the sessions were last told of the time.
    ticked: AtomicU64,
}

/// Another host.
pub(super) struct Host {
    key: [u8; 32],
    session: Mutex<Session>,
}

/// What there is with another host.
pub(super) struct Session {
    tunn: Tunn,
    /// How many times more it is greeted each second, until it has answered.
    greetings: u8,
    /// Packets that wait for a handshake.
    waiting: usize,
}

/// What a message came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Opened {
    /// A VXLAN datagram, at this place of the buffer.
    Datagram(Range<usize>),
    /// It was between the hosts.
    Message,
    Refused(UnderlayDrop),
}

/// Most handshake messages a second that are answered unasked: with 0.3 ms for each, no more than a sixth of a processor.
const HANDSHAKES: u64 = 500;
/// What a message adds to a packet: its type, the session, a counter, and the tag by which it is known to be whole.
const MESSAGE: u16 = 32;
/// The same, as lengths are counted.
pub(super) const OVERHEAD: usize = MESSAGE as usize;
/// The longest message of a handshake.
pub(super) const HANDSHAKE: usize = 148;
/// The type of a message with a packet in it.
const DATA: [u8; 4] = [4, 0, 0, 0];
/// No message of a session has a higher number (REJECT_AFTER_MESSAGES in WireGuard's paper, section 6.1).
const LAST_MESSAGE: u64 = u64::MAX - (1 << 13);
/// Most packets that wait for a handshake with one host: a thousand hosts that are away hold 50 MB of them. [`Tunn`] would take 256.
pub(super) const MOST_WAITING: usize = 32;
/// A new host is greeted once a second this many times; then as seldom as WireGuard's paper says (section 6.4), or when there is something to send.
const GREETINGS: u8 = 5;

impl Wireguard {
    /// No hosts yet. `local` is the address of this host, with the UDP port of all.
    pub fn new(key: PrivateKey, local: SocketAddr, sources: Arc<Sources>) -> Self {
        let limiter = Arc::new(RateLimiter::new(&PublicKey::from(&key.0), HANDSHAKES));
        let hosts = ArcSwap::from_pointee(HashMap::default());
        Self { key, local, sources, limiter, hosts, begun: Instant::now(), ticked: AtomicU64::new(0) }
    }

    /// Where it hears.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// Makes these its hosts, by address and public key. One that is new or has another key is greeted, so that it needs not wait for traffic to learn
    /// that this host has begun anew. To be called by one thread only.
    pub fn set_hosts(&self, keys: &BTreeMap<IpAddr, [u8; 32]>) {
        let before = self.hosts.load_full();
        let is_same =
            keys.len() == before.len() && keys.iter().all(|(at, key)| before.get(at).is_some_and(|host| host.key == *key));
        if is_same {
            return;
        }
        let known = |at: &IpAddr, key: &[u8; 32]| before.get(at).filter(|host| host.key == *key).cloned();
        let host = |(at, key): (&IpAddr, &[u8; 32])| (*at, known(at, key).unwrap_or_else(|| Arc::new(self.host_of(*key))));
        self.hosts.store(Arc::new(keys.iter().map(host).collect()));
        for (at, host) in self.hosts.load().iter().filter(|(at, host)| known(at, &host.key).is_none()) {
            host.lock().greet(|message| self.send(*at, message));
        }
    }

    /// Greets all hosts once more.
    pub fn greet(&self) {
        for (at, host) in self.hosts.load().iter() {
            host.lock().greet(|message| self.send(*at, message));
        }
    }

    fn host_of(&self, key: [u8; 32]) -> Host {
        // Sessions are told apart within a host alone, by the lower bits.
        let index = rand::random::<u32>() >> 8;
        let tunn = Tunn::new(self.key.0.clone(), key.into(), None, None, index, Some(Arc::clone(&self.limiter)));
        Host { key, session: Mutex::new(Session { tunn, greetings: GREETINGS, waiting: 0 }) }
    }

    /// How long ago the last handshake with a host was; `None`: there is no session.
    pub fn since_handshake(&self, with: IpAddr) -> Option<Duration> {
        self.host(with)?.lock().tunn.time_since_last_handshake()
    }

    pub(super) fn host(&self, at: IpAddr) -> Option<Arc<Host>> {
        self.hosts.load().get(&at).cloned()
    }

    /// Opens a message. What is inside stands in `plain` then, which is as long as the message.
    pub(super) fn open(&self, from: IpAddr, message: &[u8], plain: &mut [u8]) -> Opened {
        let Some(host) = self.host(from) else { return Opened::Refused(UnderlayDrop::UnknownHost) };
        let (mut session, mut answer) = (host.lock(), [0; HANDSHAKE + OVERHEAD]);
        let number = message.get(8..16).and_then(|bytes| Some(u64::from_le_bytes(bytes.try_into().ok()?)));
        if message.is_empty() || (is_data(message) && number.is_none_or(|number| number > LAST_MESSAGE)) {
            return Opened::Refused(UnderlayDrop::NotAuthentic);
        }
        match session.tunn.decapsulate(Some(from), message, if is_data(message) { plain } else { &mut answer }) {
            TunnResult::WriteToTunnelV4(packet, _) | TunnResult::WriteToTunnelV6(packet, _) => {
                return datagram(packet).map_or(Opened::Refused(UnderlayDrop::Malformed), Opened::Datagram);
            }
            TunnResult::WriteToNetwork(message) => self.send(from, message),
            TunnResult::Done => {}
            TunnResult::Err(_) => return Opened::Refused(UnderlayDrop::NotAuthentic),
        }
        session.send_waiting(|message| self.send(from, message));
        Opened::Message
    }

    /// Has the sessions look at the time, once a second however many workers say so.
    pub(super) fn tick(&self, now: Instant) {
        let second = now.saturating_duration_since(self.begun).as_secs();
        if self.ticked.swap(second, Ordering::Relaxed) == second {
            return;
        }
        self.limiter.reset_count();
        for (at, host) in self.hosts.load().iter() {
            host.lock().tick(|message| self.send(*at, message));
        }
    }

    /// Sends a message by itself. One that is lost is sent again by the protocol, or was a packet, which may be lost.
    pub(super) fn send(&self, to: IpAddr, message: &[u8]) {
        let run = Run { bytes: message, segment: message.len(), to: SocketAddr::new(to, self.local.port()), class: 0 };
        let _ = self.sources.send(0, &run, &mut Losses::default());
    }

    /// The UDP port of all hosts.
    pub(super) fn port(&self) -> u16 {
        self.local.port()
    }
}

impl std::fmt::Debug for Wireguard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wireguard").field("local", &self.local).field("hosts", &self.hosts.load().len()).finish_non_exhaustive()
    }
}

impl Host {
    /// A panic of another thread leaves nothing half done that a handshake would not set right.
    pub(super) fn lock(&self) -> MutexGuard<'_, Session> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Session {
    fn tick(&mut self, mut send: impl FnMut(&[u8])) {
        let mut message = [0; HANDSHAKE];
        if let TunnResult::WriteToNetwork(message) = self.tunn.update_timers(&mut message) {
            send(message);
        } else if self.tunn.time_since_last_handshake().is_some() {
            self.greetings = 0;
            self.send_waiting(send);
        } else if self.greetings > 0 {
            self.greet(send);
        }
        // After 90 seconds it gives up, and forgets them.
        if self.tunn.is_expired() {
            self.waiting = 0;
        }
    }

    /// Seals a packet into `room`, which has [`HANDSHAKE`] bytes and more than the packet; returns the message's length. Without a session it waits,
    /// for which 0 is returned, and a handshake begins.
    ///
    /// # Errors
    /// Too many wait.
    pub(super) fn seal(&mut self, packet: &[u8], room: &mut [u8], mut send: impl FnMut(&[u8])) -> Result<usize, Sent> {
        let is_full = self.waiting >= MOST_WAITING && self.tunn.time_since_last_handshake().is_none();
        let result =
            if is_full { self.tunn.format_handshake_initiation(room, false) } else { self.tunn.encapsulate(packet, room) };
        match result {
            TunnResult::WriteToNetwork(message) if is_data(message) => return Ok(message.len()),
            TunnResult::WriteToNetwork(greeting) => send(greeting),
            _ => {}
        }
        if is_full {
            return Err(Sent::QueueFull);
        }
        self.waiting += 1;
        Ok(0)
    }

    /// Begins a handshake, whatever came of the one before.
    fn greet(&mut self, mut send: impl FnMut(&[u8])) {
        self.greetings = self.greetings.saturating_sub(1);
        if let TunnResult::WriteToNetwork(message) = self.tunn.format_handshake_initiation(&mut [0; HANDSHAKE], true) {
            send(message);
        }
    }

    /// Sends what has waited for a handshake, if there was one.
    fn send_waiting(&mut self, mut send: impl FnMut(&[u8])) {
        if self.waiting == 0 || self.tunn.time_since_last_handshake().is_none() {
            return;
        }
        self.waiting = 0;
        let mut message = vec![0; packet::MAX_FRAME + OVERHEAD];
        for _ in 0..=MOST_WAITING {
            let TunnResult::WriteToNetwork(message) = self.tunn.decapsulate(None, &[], &mut message) else { return };
            send(message);
        }
    }
}

/// How much shorter than without it a packet must be that goes inside WireGuard, to an address of this family: by an IP and a UDP header, and by what
/// a message adds.
pub fn wireguard_overhead(local: IpAddr) -> u16 {
    const UDP: u16 = 8;
    MESSAGE + UDP + if local.is_ipv4() { 20 } else { 40 }
}

/// Whether a message has a packet in it.
fn is_data(message: &[u8]) -> bool {
    message.starts_with(&DATA)
}

/// Where the UDP payload of an IP packet is, whose length is that which its header says; `None`: it has none, or is a fragment.
pub(super) fn datagram(packet: &[u8]) -> Option<Range<usize>> {
    const UDP: usize = 8;
    let is_four = packet.first()? >> 4 == 4;
    let (next, start) = if is_four { (9, usize::from(packet.first()? & 0xf) * 4) } else { (6, 40) };
    let is_piece = is_four && packet.get(6..8)? != [0x40, 0] && packet.get(6..8)? != [0, 0];
    let length = packet.get(start + 4..start + 6)?;
    let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
    let fits = length >= UDP && start + length <= packet.len();
    (*packet.get(next)? == protocol::UDP && !is_piece && fits).then_some(start + UDP..start + length)
}
