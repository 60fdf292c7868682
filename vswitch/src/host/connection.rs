//! One TCP connection, spliced from a container to a socket of the host.
//!
//! The container's half is `smoltcp`'s, with a buffer in each direction; the other half is the kernel's. Bytes move when one side
//! has some and the other takes some, so a slow reader closes the window of its peer, whichever it is. What ends one half ends the
//! same half of the other: FIN for FIN, reset for reset.

use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{SendFlags, Shutdown};
use smoltcp::iface::{SocketHandle, SocketSet, SocketStorage};
use smoltcp::socket::tcp::{self, State};

use super::common::Arrival;
use super::outbox::Outbox;
use super::stack::{Stack, Syn, acknowledgement};

/// How long a container may take to complete a handshake.
const HANDSHAKE: Duration = Duration::from_secs(60);
/// How long a finished connection answers a repeated FIN. The peer is a bridge away, not the two maximum segment lifetimes of
/// RFC 9293, and its timers begin at 200 ms.
const LINGER: Duration = Duration::from_secs(2);
/// A silent container is probed this often, and given up after so long without any answer.
const PROBE: smoltcp::time::Duration = smoltcp::time::Duration::from_secs(120);
const PATIENCE: smoltcp::time::Duration = smoltcp::time::Duration::from_secs(600);

/// What became of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ConnectionFate {
    /// It goes on.
    Open,
    /// Both sides are done.
    Finished,
}

/// An open connection.
pub(super) struct Connection {
    /// The host's half; `None` once nothing more is to be done with it.
    fd: Option<OwnedFd>,
    sockets: SocketSet<'static>,
    handle: SocketHandle,
    /// The container's MSS.
    pub(super) mss: u16,
    /// What the container last acknowledged.
    pub(super) acknowledged: u32,
    /// What the kernel last said about its half; edges, as epoll tells them.
    pub(super) readable: bool,
    pub(super) writable: bool,
    /// Whether the host's peer has finished, and the container has.
    host_finished: bool,
    container_finished: bool,
    /// Whether the kernel has been told that the container has finished.
    shut: bool,
    /// When patience with a handshake, or with the last FIN, ends.
    ends: Option<Instant>,
    /// Bytes from the container, and to it.
    pub(super) sent: u64,
    pub(super) received: u64,
}

impl Connection {
    /// Answers a container's SYN, now that the host's socket is connected.
    pub(super) fn accept(fd: OwnedFd, syn: &Syn, to: SocketAddr, room: usize, now: Instant) -> Option<Self> {
        let mut connection = Self::new(fd, syn.mss, room, now);
        connection.socket().listen(to).ok()?;
        Some(connection)
    }

    /// Calls a container for a client whose connection the host has accepted.
    pub(super) fn connect(
        fd: OwnedFd,
        stack: &mut Stack,
        mss: u16,
        path: (SocketAddr, SocketAddr),
        room: usize,
        now: Instant,
    ) -> Option<Self> {
        let mut connection = Self::new(fd, mss, room, now);
        let (from, to) = path;
        stack.connect(connection.socket(), from, to).ok()?;
        Some(connection)
    }

    fn new(fd: OwnedFd, mss: u16, room: usize, now: Instant) -> Self {
        let buffer = || tcp::SocketBuffer::new(vec![0; room]);
        let mut socket = tcp::Socket::new(buffer(), buffer());
        socket.set_nagle_enabled(false);
        // One acknowledgement for all that the switch delivered at once; see `Tcp::pump`.
        socket.set_ack_delay(None);
        socket.set_keep_alive(Some(PROBE));
        socket.set_timeout(Some(PATIENCE));
        let mut sockets = SocketSet::new(vec![SocketStorage::EMPTY]);
        let handle = sockets.add(socket);
        Self {
            fd: Some(fd),
            sockets,
            handle,
            mss,
            acknowledged: 0,
            readable: true,
            writable: true,
            host_finished: false,
            container_finished: false,
            shut: false,
            ends: Some(now + HANDSHAKE),
            sent: 0,
            received: 0,
        }
    }

    fn socket(&mut self) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(self.handle)
    }

    fn state(&self) -> State {
        self.sockets.get::<tcp::Socket<'_>>(self.handle).state()
    }

    /// Whether a new SYN of the same addresses begins a new connection (RFC 9293, section 3.6.1, on TIME-WAIT).
    pub(super) fn is_over(&self) -> bool {
        matches!(self.state(), State::TimeWait | State::Closed)
    }

    /// Whether the container has not answered yet.
    pub(super) fn is_calling(&self) -> bool {
        self.state() == State::SynSent
    }

    /// Whether both sides know each other's sequence numbers, so that a SYN is none of this connection.
    pub(super) fn is_synchronized(&self) -> bool {
        !matches!(self.state(), State::Listen | State::SynReceived | State::SynSent)
    }

    pub(super) fn descriptor(&self) -> Option<RawFd> {
        self.fd.as_ref().map(AsRawFd::as_raw_fd)
    }

    /// A word for people.
    pub(super) fn describe(&self) -> &'static str {
        match self.state() {
            State::Listen | State::SynReceived | State::SynSent => "opening",
            State::Established => "established",
            State::FinWait1 | State::FinWait2 => "host finished",
            State::CloseWait => "container finished",
            State::Closing | State::LastAck | State::TimeWait | State::Closed => "closing",
        }
    }

    /// Gives it a packet of its container.
    pub(super) fn receive(&mut self, stack: &mut Stack, packet: &[u8], outbox: &mut Outbox, now: Instant) {
        stack.receive(now, &mut self.sockets, packet, self.mss, outbox);
    }

    /// Answers a SYN in the middle of it with what is expected instead (RFC 9293, section 3.10.7.4; RFC 5961, section 4.2): if its sender
    /// has forgotten the connection, a reset with the right sequence number comes back. The stack passes over a SYN there, but answers an
    /// acknowledgement of what it has not sent in just that way, once a second at most (RFC 5961, section 7).
    pub(super) fn challenge(&mut self, stack: &mut Stack, arrival: &Arrival<'_>, outbox: &mut Outbox, now: Instant) {
        let unsent = self.acknowledged.wrapping_add(1 << 30);
        if let Some(packet) = acknowledgement(arrival.frame, &arrival.ip, unsent) {
            self.receive(stack, &packet, outbox, now);
        }
    }

    /// Moves what can be moved, and says how it stands.
    pub(super) fn pump(&mut self, stack: &mut Stack, outbox: &mut Outbox, now: Instant) -> ConnectionFate {
        self.watch();
        let intact = self.carry_out().and_then(|()| self.carry_in());
        if intact.is_err() {
            return self.abort(stack, outbox, now);
        }
        stack.send(now, &mut self.sockets, self.mss, outbox);
        let patient = self.ends.is_none_or(|ends| now < ends);
        match self.state() {
            // Everything was said and acknowledged.
            State::Closed if self.host_finished && self.container_finished => self.close(),
            // The container reset it, or a SYN+ACK of ours, or has been silent for too long.
            State::Closed | State::Listen => self.reset(),
            State::TimeWait => self.linger(now),
            _ if patient => ConnectionFate::Open,
            _ => self.abort(stack, outbox, now),
        }
    }

    /// Notes what the container's half came to.
    fn watch(&mut self) {
        match self.state() {
            State::Listen | State::SynReceived | State::SynSent => return,
            State::CloseWait | State::LastAck | State::Closing | State::TimeWait => self.container_finished = true,
            State::Established | State::FinWait1 | State::FinWait2 | State::Closed => {}
        }
        // There was a handshake.
        self.ends = self.ends.filter(|_| self.fd.is_none());
    }

    /// Both sides have finished, and it is only there to answer a FIN that comes again.
    fn linger(&mut self, now: Instant) -> ConnectionFate {
        if self.shut && self.fd.take().is_some() {
            self.ends = Some(now + LINGER);
        }
        if self.ends.is_some_and(|ends| now >= ends) { self.close() } else { ConnectionFate::Open }
    }

    fn carry_out(&mut self) -> Result<(), Errno> {
        let Some(fd) = &self.fd else { return Ok(()) };
        let socket = self.sockets.get_mut::<tcp::Socket<'_>>(self.handle);
        while self.writable && socket.can_recv() {
            let written = socket.recv(|bytes| match rustix::net::send(fd, bytes, SendFlags::NOSIGNAL) {
                Ok(count) => (count, Ok(count)),
                Err(error) => (0, Err(error)),
            });
            match written {
                Ok(Ok(count)) => self.sent += count as u64,
                Ok(Err(Errno::AGAIN)) => self.writable = false,
                Ok(Err(Errno::INTR)) => {}
                Ok(Err(error)) => return Err(error),
                Err(_) => break,
            }
        }
        if self.container_finished && !self.shut && !socket.can_recv() {
            self.shut = true;
            rustix::net::shutdown(fd, Shutdown::Write)?;
        }
        Ok(())
    }

    fn carry_in(&mut self) -> Result<(), Errno> {
        let Some(fd) = &self.fd else { return Ok(()) };
        let socket = self.sockets.get_mut::<tcp::Socket<'_>>(self.handle);
        while self.readable && socket.can_send() {
            let read = socket.send(|place| match rustix::io::read(fd, place) {
                Ok(count) => (count, Ok(count)),
                Err(error) => (0, Err(error)),
            });
            match read {
                Ok(Ok(0)) => {
                    self.readable = false;
                    self.host_finished = true;
                    socket.close();
                }
                Ok(Ok(count)) => self.received += count as u64,
                Ok(Err(Errno::AGAIN)) => self.readable = false,
                Ok(Err(Errno::INTR)) => {}
                Ok(Err(error)) => return Err(error),
                Err(_) => break,
            }
        }
        Ok(())
    }

    /// Resets both halves.
    pub(super) fn abort(&mut self, stack: &mut Stack, outbox: &mut Outbox, now: Instant) -> ConnectionFate {
        self.socket().abort();
        stack.send(now, &mut self.sockets, self.mss, outbox);
        self.reset()
    }

    /// Closes the host's half with a reset.
    pub(super) fn reset(&mut self) -> ConnectionFate {
        if let Some(fd) = self.fd.take() {
            close_with_reset(&fd);
        }
        ConnectionFate::Finished
    }

    fn close(&mut self) -> ConnectionFate {
        self.fd = None;
        ConnectionFate::Finished
    }

    /// When it has to be pumped again, if nothing happens before.
    pub(super) fn deadline(&mut self, stack: &mut Stack, now: Instant) -> Option<Instant> {
        let stack = stack.deadline(now, &self.sockets);
        [stack, self.ends].into_iter().flatten().min()
    }
}

/// A socket that is closed after this sends a reset (tcp(7), `SO_LINGER`).
pub(super) fn close_with_reset(fd: &OwnedFd) {
    // It fails for nothing that is a socket.
    let _ = rustix::net::sockopt::set_socket_linger(fd, Some(Duration::ZERO));
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;
    use std::sync::Arc;

    use etherparse::{IpNumber, PacketBuilder, TcpHeader};
    use packet::{Batch, Ethernet, IpPacket, Mac};
    use proptest::prelude::*;

    use super::*;
    use crate::host::link::{HostDevice, link};
    use crate::host::shares::Share;
    use plane::device::Device;

    const CONTAINER: ([u8; 4], u16) = ([10, 0, 0, 2], 4000);
    const REMOTE: ([u8; 4], u16) = ([192, 0, 2, 2], 80);
    const FIRST: u32 = 0xffff_ff00;

    /// A frame of the container. `number` is how far its sequence number is from the first, `ack` what it acknowledges.
    fn segment(number: u32, ack: u32, flags: u8, window: u16, payload: &[u8]) -> (Vec<u8>, IpPacket) {
        let mut header = TcpHeader::new(CONTAINER.1, REMOTE.1, FIRST.wrapping_add(number), window);
        (header.fin, header.syn, header.rst) = (flags & 1 != 0, flags & 2 != 0, flags & 4 != 0);
        (header.psh, header.ack, header.urg) = (flags & 8 != 0, flags & 16 != 0, flags & 32 != 0);
        header.acknowledgment_number = ack;
        let mut frame = Vec::new();
        let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4(CONTAINER.0, REMOTE.0, 64);
        builder.tcp_header(header).write(&mut frame, payload).unwrap();
        let ip = IpPacket::parse(&frame, &Ethernet::parse(&frame).unwrap()).unwrap();
        (frame, ip)
    }

    /// The sequence number of the last frame of ours, with what it occupies.
    fn heard(device: &mut HostDevice) -> Option<u32> {
        let mut batch = Batch::new();
        device.receive(&mut batch);
        let frame = batch.frames().last()?.bytes();
        let sliced = etherparse::SlicedPacket::from_ethernet(frame).unwrap();
        let Some(etherparse::TransportSlice::Tcp(tcp)) = sliced.transport else { panic!("not TCP") };
        assert_eq!(sliced.net.and_then(|net| net.ip_payload_ref().map(|payload| payload.ip_number)), Some(IpNumber::TCP));
        let length = u32::try_from(tcp.payload().len()).unwrap();
        Some(tcp.sequence_number() + length + u32::from(tcp.syn()) + u32::from(tcp.fin()))
    }

    /// What the uplink said last: acknowledgement, whether it is a bare one.
    fn said(device: &mut HostDevice) -> Option<(u32, bool)> {
        let mut batch = Batch::new();
        device.receive(&mut batch);
        let sliced = etherparse::SlicedPacket::from_ethernet(batch.frames().last()?.bytes()).unwrap();
        let Some(etherparse::TransportSlice::Tcp(tcp)) = sliced.transport else { panic!("not TCP") };
        Some((tcp.acknowledgment_number(), tcp.ack() && !tcp.rst() && !tcp.syn() && !tcp.fin()))
    }

    #[test]
    fn a_syn_in_the_middle_of_a_connection_is_challenged_and_the_reset_that_comes_ends_it() {
        for (container_finishes, host_finishes) in [(false, false), (true, false), (false, true)] {
            let poll = mio::Poll::new().unwrap();
            let waker = Arc::new(mio::Waker::new(poll.registry(), mio::Token(0)).unwrap());
            let (mut device, link) = link(waker).unwrap();
            let mut outbox = Outbox::new(link, Mac([2; 6]), Mac([4; 6]), 1500);
            let now = Instant::now();
            let mut stack = Stack::new(now);
            let (ours, peer) = UnixStream::pair().unwrap();
            ours.set_nonblocking(true).unwrap();
            let (frame, ip) = segment(0, 0, 2, 1000, &[]);
            let syn = Syn::parse(&frame, &ip).unwrap();
            let mut connection = Connection::accept(ours.into(), &syn, REMOTE.into(), 4096, now).unwrap();
            connection.receive(&mut stack, &syn.packet, &mut outbox, now);
            connection.pump(&mut stack, &mut outbox, now);
            let next = heard(&mut device).unwrap();
            let mut say = |connection: &mut Connection, outbox: &mut Outbox, number, flags| {
                let (frame, ip) = segment(number, next, flags, 1000, &[]);
                connection.acknowledged = next;
                connection.receive(&mut stack, &frame[ip.network..ip.end], outbox, now);
                let (frame, ip) = segment(3_000_000_000, 0, 2, 1000, &[]);
                let fate = connection.pump(&mut stack, outbox, now);
                let again = Arrival {
                    frame: &frame,
                    ip,
                    offload: packet::Offload::default(),
                    share: Share::default(),
                    was_fragmented: false,
                };
                (fate, connection.is_synchronized().then(|| connection.challenge(&mut stack, &again, outbox, now)))
            };
            if host_finishes {
                peer.shutdown(std::net::Shutdown::Write).unwrap();
            }
            let flags = if container_finishes { 0x11 } else { 0x10 };
            let (fate, challenged) = say(&mut connection, &mut outbox, 1, flags);
            assert_eq!((fate, challenged), (ConnectionFate::Open, Some(())));
            let expected = FIRST.wrapping_add(1 + u32::from(container_finishes));
            assert_eq!(said(&mut device), Some((expected, true)), "{container_finishes} {host_finishes}");
            let (fate, _) = say(&mut connection, &mut outbox, expected.wrapping_sub(FIRST), 4);
            assert_eq!(fate, ConnectionFate::Finished, "{container_finishes} {host_finishes}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn no_container_and_no_peer_brings_it_down(
            steps in prop::collection::vec((0u32..3000, -3000i32..3000, any::<u8>(), any::<u16>(), 0usize..2000, 0u64..400_000), 1..60),
        ) {
            let poll = mio::Poll::new().unwrap();
            let waker = Arc::new(mio::Waker::new(poll.registry(), mio::Token(0)).unwrap());
            let (mut device, link) = link(waker).unwrap();
            let mut outbox = Outbox::new(link, Mac([2; 6]), Mac([4; 6]), 1500);
            let mut now = Instant::now();
            let mut stack = Stack::new(now);
            let (ours, peer) = UnixStream::pair().unwrap();
            ours.set_nonblocking(true).unwrap();
            peer.set_nonblocking(true).unwrap();
            let (frame, ip) = segment(0, 0, 2, 1000, &[]);
            let syn = Syn::parse(&frame, &ip).unwrap();
            let mut connection = Connection::accept(ours.into(), &syn, REMOTE.into(), 4096, now).unwrap();
            connection.receive(&mut stack, &syn.packet, &mut outbox, now);
            let mut peer = Some(peer);
            let mut next = 0_u32;
            for (number, acknowledged, flags, window, length, wait) in steps {
                now += Duration::from_millis(wait);
                next = heard(&mut device).unwrap_or(next);
                let flags = if length % 3 == 0 { flags } else { 0x10 };
                let (frame, ip) = segment(number, next.wrapping_add_signed(acknowledged / 1000), flags, window, &vec![7; length]);
                match Syn::parse(&frame, &ip).filter(|_| flags & 2 != 0) {
                    Some(syn) => connection.receive(&mut stack, &syn.packet, &mut outbox, now),
                    None => connection.receive(&mut stack, &frame[ip.network..ip.end], &mut outbox, now),
                }
                match (wait % 16, &mut peer) {
                    (0, peer) => *peer = None,
                    (1..8, Some(peer)) => drop(std::io::Write::write(peer, &vec![1; length])),
                    (_, Some(peer)) => drop(std::io::Read::read(peer, &mut vec![0; length])),
                    (_, None) => {}
                }
                (connection.readable, connection.writable) = (true, true);
                if connection.pump(&mut stack, &mut outbox, now) == ConnectionFate::Finished {
                    return Ok(());
                }
                connection.deadline(&mut stack, now);
            }
        }
    }
}
