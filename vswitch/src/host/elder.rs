//! Connections over an upgrade: the vswitchd that was there before sees them through.
//!
//! A connection that ends in this process has its state in `smoltcp` and in a socket of the host, and both would have to be taken apart and put together
//! elsewhere. So the one that is replaced, the *elder*, keeps the engines that have sessions, and ends with the last of these. Between the two is
//! a socket that carries frames, each behind a `virtio_net_hdr`: those that containers send for the elder's sessions go there, and what it has to
//! say to containers comes back. The elder listens to nothing and begins nothing, but what a container sends once more from the ports of one of its
//! sessions.
//!
//! A successor that is replaced in its turn passes its elders on.

use std::collections::HashSet;
use std::io::{IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::time::Duration;

use foldhash::fast::RandomState;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use packet::{Batch, Offload, Packet, VNET_HEADER, protocol};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType};
use serde::{Deserialize, Serialize};

use super::HostUplink;
use super::common::Arrival;
use super::outbox::Outbox;
use super::report::{Direction, Protocol, Session};
use crate::confine::{Confinement, Role};
use plane::device::{Device, ReceiveStatus};

/// Room for frames under way, in each direction.
const BUFFER: i32 = 4 << 20;
/// Most frames taken from an elder before others have their turn.
const TURN: usize = 64;
/// How often the elder looks whether it has any session left.
const LOOK: Duration = Duration::from_secs(1);
/// What a session of an elder is listed as.
const STATE: &str = "handed-over";

/// A session that an elder has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ElderSession {
    protocol: Protocol,
    direction: Direction,
    container: SocketAddr,
    remote: SocketAddr,
}

impl ElderSession {
    /// A session to be handed over: a connection, or the flow of datagrams from a container's port. What comes by a forward in datagrams needs no
    /// elder, for the forward's socket goes on; a ping is sent anew.
    pub(super) fn of(session: &Session) -> Option<Self> {
        let Session { protocol, direction, container, remote, state, .. } = *session;
        let stays = match protocol {
            // It has one already.
            _ if state == STATE => false,
            Protocol::Tcp => true,
            Protocol::Udp => direction == Direction::Out,
            Protocol::Echo => false,
        };
        stays.then_some(Self { protocol, direction, container, remote })
    }
}

/// An elder, from its successor's side.
#[derive(Debug)]
pub struct Elder {
    socket: OwnedFd,
    sessions: Vec<ElderSession>,
    connections: HashSet<(SocketAddr, SocketAddr), RandomState>,
    /// Ports of containers that send datagrams by it.
    senders: HashSet<SocketAddr, RandomState>,
}

impl Elder {
    /// The elder at the other end of a socket.
    pub fn new(socket: OwnedFd, sessions: Vec<ElderSession>) -> Self {
        let of = |protocol| sessions.iter().filter(move |session| session.protocol == protocol);
        let connections = of(Protocol::Tcp).map(|session| (session.container, session.remote)).collect();
        let senders = of(Protocol::Udp).map(|session| session.container).collect();
        Self { socket, sessions, connections, senders }
    }

    /// The same once more, for one who succeeds this process.
    pub(super) fn duplicate(&self) -> std::io::Result<(OwnedFd, Vec<ElderSession>)> {
        Ok((self.socket.try_clone()?, self.sessions.clone()))
    }

    pub(super) fn descriptor(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    /// Whether a packet of a container is for a session of the elder's.
    pub(super) fn takes(&self, arrival: &Arrival<'_>) -> bool {
        let Some([s0, s1, d0, d1]) = arrival.transport().first_chunk().copied() else { return false };
        let container = SocketAddr::new(arrival.ip.source, u16::from_be_bytes([s0, s1]));
        let remote = SocketAddr::new(arrival.ip.destination, u16::from_be_bytes([d0, d1]));
        match arrival.ip.protocol {
            protocol::TCP => self.connections.contains(&(container, remote)),
            protocol::UDP => self.senders.contains(&container),
            _ => false,
        }
    }

    /// Passes a packet on; one for which there is no room is lost, as on a wire.
    pub(super) fn send(&self, arrival: &Arrival<'_>) {
        let _ = send(&self.socket, arrival.frame, arrival.offload);
    }

    /// Takes what the elder says to containers; says whether there may be more, or that it has ended.
    pub(super) fn receive(&self, outbox: &mut Outbox, room: &mut [u8]) -> ElderState {
        for _ in 0..TURN {
            if !outbox.link.writer.has_room() {
                return ElderState::More;
            }
            match receive(&self.socket, room) {
                Ok(Some((length, offload))) => {
                    let frame = room.get(..length).unwrap_or_default();
                    let Some(mut slot) = outbox.link.writer.slot(length) else { continue };
                    slot.bytes_mut().copy_from_slice(frame);
                    slot.offload = offload;
                    outbox.link.send(slot);
                }
                Ok(None) => {}
                Err(Errno::AGAIN | Errno::INTR) => return ElderState::Drained,
                Err(_) => return ElderState::Gone,
            }
        }
        ElderState::More
    }

    /// Its sessions, as they were handed over.
    pub(super) fn listed(&self) -> impl Iterator<Item = Session> {
        self.sessions.iter().map(|session| Session {
            protocol: session.protocol,
            direction: session.direction,
            container: session.container,
            remote: session.remote,
            state: STATE,
            sent: 0,
            received: 0,
            idle: Duration::ZERO,
        })
    }
}

/// What reading from an elder came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ElderState {
    More,
    Drained,
    Gone,
}

/// What an uplink hands to a successor.
#[derive(Debug)]
pub struct HostLoan {
    /// The sockets of published ports.
    pub listeners: Vec<OwnedFd>,
    /// Elders of this process.
    pub elders: Vec<(OwnedFd, Vec<ElderSession>)>,
}

/// The two ends of what carries frames between an elder and its successor.
///
/// # Errors
/// No descriptors are left.
pub fn wire() -> Result<(OwnedFd, OwnedFd), Errno> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let (one, other) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    for end in [&one, &other] {
        // Less room loses more.
        let _ = sys::set_buffers(end.as_fd(), BUFFER);
    }
    Ok((one, other))
}

/// An uplink that is an elder now: its engine, the device by which that reaches the switch, and the way to the successor.
pub struct Relay {
    /// The uplink.
    pub uplink: HostUplink,
    /// Its device.
    pub device: Box<dyn Device>,
    /// Towards the successor.
    pub socket: OwnedFd,
}

impl Relay {
    /// Carries frames until the uplink has no session left, or the successor has ended. `sandbox` is what the calling thread is confined by from here
    /// on.
    ///
    /// # Errors
    /// The kernel gives no descriptor for polling.
    pub fn run(mut self, sandbox: &Confinement) -> std::io::Result<()> {
        // What is published is the successor's now.
        let _ = self.uplink.set_forwards(Vec::new());
        let (mut poll, mut events) = (Poll::new()?, Events::with_capacity(8));
        for descriptor in self.device.descriptors().iter().chain([&self.socket.as_raw_fd()]) {
            poll.registry().register(&mut SourceFd(descriptor), Token(0), Interest::READABLE)?;
        }
        sandbox.enter(Role::Host);
        let (mut batch, mut room) = (Batch::new(), vec![0; packet::MAX_FRAME]);
        loop {
            if self.carry_out(&mut batch) == ElderState::Gone || self.carry_in(&mut room) == ElderState::Gone {
                return Ok(());
            }
            // Only EINTR happens here; the loop comes round again.
            let _ = poll.poll(&mut events, Some(LOOK));
            if events.is_empty() && !self.has_sessions() {
                return Ok(());
            }
        }
    }

    fn has_sessions(&self) -> bool {
        self.uplink.sessions().is_ok_and(|sessions| sessions.iter().any(|session| ElderSession::of(session).is_some()))
    }

    /// From the engine to the successor.
    fn carry_out(&mut self, batch: &mut Batch) -> ElderState {
        loop {
            batch.clear();
            let received = self.device.receive(batch);
            for frame in batch.frames() {
                match send(&self.socket, frame.bytes(), frame.offload) {
                    Ok(()) | Err(Errno::AGAIN | Errno::NOBUFS | Errno::MSGSIZE) => {}
                    Err(_) => return ElderState::Gone,
                }
            }
            match received.status {
                ReceiveStatus::More => {}
                ReceiveStatus::Drained => return ElderState::Drained,
                ReceiveStatus::Gone => return ElderState::Gone,
            }
        }
    }

    /// From the successor to the engine.
    fn carry_in(&mut self, room: &mut [u8]) -> ElderState {
        loop {
            match receive(&self.socket, room) {
                Ok(Some((length, offload))) => {
                    let frame = [IoSlice::new(room.get(..length).unwrap_or_default())];
                    // One for which there is no room is lost.
                    let _ = self.device.send(&Packet { offload, ..Packet::whole(&frame) });
                }
                Ok(None) => {}
                Err(Errno::AGAIN | Errno::INTR) => return ElderState::Drained,
                Err(_) => return ElderState::Gone,
            }
        }
    }
}

fn send(socket: &OwnedFd, frame: &[u8], offload: Offload) -> Result<(), Errno> {
    let header = offload.encode(0);
    let parts = [IoSlice::new(&header), IoSlice::new(frame)];
    let mut nothing = rustix::net::SendAncillaryBuffer::default();
    rustix::net::sendmsg(socket, &parts, &mut nothing, SendFlags::NOSIGNAL | SendFlags::DONTWAIT).map(drop)
}

/// Reads one frame; `None`: what came makes no sense. `EPIPE`: the other side has ended.
fn receive(socket: &OwnedFd, room: &mut [u8]) -> Result<Option<(usize, Offload)>, Errno> {
    let mut header = [0; VNET_HEADER];
    let length = rustix::io::readv(socket, &mut [IoSliceMut::new(&mut header), IoSliceMut::new(room)])?;
    if length == 0 {
        return Err(Errno::PIPE);
    }
    let Some(length) = length.checked_sub(VNET_HEADER) else { return Ok(None) };
    Ok(Offload::decode(header, length).ok().map(|offload| (length, offload)))
}
