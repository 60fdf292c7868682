//! `smoltcp`'s TCP, driven one connection at a time.
//!
//! One `Interface` without addresses of its own (it answers for all) serves every connection in turn; each connection has a set
//! with its own socket only, so what happens on one costs nothing on the others. The interface believes that its MTU is 65,535,
//! and is told so of its peer: the MSS in a SYN is rewritten on its way in and out. So it speaks in super-frames, and the real MSS
//! is what they are cut by on their way to the container.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use packet::{ETHERNET_HEADER, IpPacket};
use smoltcp::iface::{Config, Interface, PollResult, SocketSet};
use smoltcp::phy::{self, ChecksumCapabilities, DeviceCapabilities, Medium};
use smoltcp::socket::tcp;
use smoltcp::wire::{HardwareAddress, IpProtocol, IpRepr, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber};

use super::link::Slot;
use super::outbox::Outbox;

/// What the interface takes for its MTU.
const MTU: usize = 65_535;
/// What it takes for its peer's MSS, IPv6 or not.
const MSS: u16 = 65_475;
/// The MSS of a peer that does not say (RFC 9293, section 3.7.1).
const DEFAULT_MSS: u16 = 536;

/// The stack of all connections.
pub(super) struct Stack {
    interface: Interface,
    epoch: Instant,
    seed: std::hash::RandomState,
}

/// What a SYN says, in a form that the stack can be given.
pub(super) struct Syn {
    pub(super) packet: Vec<u8>,
    /// The peer's real MSS.
    pub(super) mss: u16,
}

impl Stack {
    pub(super) fn new(now: Instant) -> Self {
        use std::hash::{BuildHasher, Hasher};
        let seed = std::hash::RandomState::new();
        let mut config = Config::new(HardwareAddress::Ip);
        // Initial sequence numbers come from this (RFC 9293, section 3.4.1): from a keyed hash, anew for each process.
        config.random_seed = seed.build_hasher().finish();
        let mut interface = Interface::new(config, &mut Mute, smoltcp::time::Instant::ZERO);
        interface.set_any_ip(true);
        Self { interface, epoch: now, seed }
    }

    /// A random number.
    pub(super) fn random(&self, salt: u64) -> u64 {
        use std::hash::BuildHasher;
        self.seed.hash_one(salt)
    }

    fn time(&self, now: Instant) -> smoltcp::time::Instant {
        let micros = now.saturating_duration_since(self.epoch).as_micros();
        smoltcp::time::Instant::from_micros(i64::try_from(micros).unwrap_or(i64::MAX))
    }

    /// Begins a connection from `from` to the container's `to`.
    pub(super) fn connect(
        &mut self,
        socket: &mut tcp::Socket<'_>,
        from: SocketAddr,
        to: SocketAddr,
    ) -> Result<(), tcp::ConnectError> {
        socket.connect(self.interface.context(), to, from)
    }

    /// Gives the connection a packet of its container.
    pub(super) fn receive(&mut self, now: Instant, sockets: &mut SocketSet<'_>, packet: &[u8], mss: u16, outbox: &mut Outbox) {
        let mut wire = Wire { incoming: Some(packet), outbox, mss };
        self.interface.poll_ingress_single(self.time(now), &mut wire, sockets);
    }

    /// Sends what the connection has to say, as far as there is room.
    pub(super) fn send(&mut self, now: Instant, sockets: &mut SocketSet<'_>, mss: u16, outbox: &mut Outbox) {
        let time = self.time(now);
        let mut wire = Wire { incoming: None, outbox, mss };
        while self.interface.poll_egress(time, &mut wire, sockets) == PollResult::SocketStateChanged {}
    }

    /// When the connection has something to say without being asked.
    pub(super) fn deadline(&mut self, now: Instant, sockets: &SocketSet<'_>) -> Option<Instant> {
        let time = self.time(now);
        let at = self.interface.poll_at(time, sockets)?;
        Some(self.epoch + Duration::from_micros(u64::try_from(at.total_micros()).unwrap_or(0)))
    }
}

impl Syn {
    /// Reads the SYN, or SYN and ACK, in `frame`.
    pub(super) fn parse(frame: &[u8], ip: &IpPacket) -> Option<Self> {
        let checksums = &ignored_checksums();
        let tcp = TcpPacket::new_checked(frame.get(ip.transport..ip.end)?).ok()?;
        let mut repr = TcpRepr::parse(&tcp, &ip.source.into(), &ip.destination.into(), checksums).ok()?;
        let mss = repr.max_seg_size.filter(|mss| *mss > 0).unwrap_or(DEFAULT_MSS).max(64);
        repr.max_seg_size = Some(MSS);
        repr.payload = &[];
        Some(Self { packet: written(ip, &repr)?, mss })
    }
}

/// A bare acknowledgement of `number` in the name of the sender of the segment in `frame`, with its sequence number.
pub(super) fn acknowledgement(frame: &[u8], ip: &IpPacket, number: u32) -> Option<Vec<u8>> {
    let tcp = TcpPacket::new_checked(frame.get(ip.transport..ip.end)?).ok()?;
    let repr = TcpRepr {
        src_port: tcp.src_port(),
        dst_port: tcp.dst_port(),
        control: TcpControl::None,
        seq_number: tcp.seq_number(),
        ack_number: Some(TcpSeqNumber(number.cast_signed())),
        window_len: tcp.window_len(),
        window_scale: None,
        max_seg_size: None,
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload: &[],
    };
    written(ip, &repr)
}

/// The IP packet of a segment between the ends of `ip`.
fn written(ip: &IpPacket, repr: &TcpRepr<'_>) -> Option<Vec<u8>> {
    let checksums = &ignored_checksums();
    let ip = IpRepr::new(ip.source.into(), ip.destination.into(), IpProtocol::Tcp, repr.buffer_len(), 64);
    let mut packet = vec![0; ip.buffer_len()];
    ip.emit(&mut packet[..], checksums);
    let mut tcp = TcpPacket::new_unchecked(packet.get_mut(ip.header_len()..)?);
    repr.emit(&mut tcp, &ip.src_addr(), &ip.dst_addr(), checksums);
    Some(packet)
}

/// Checksums are verified before a packet gets here and completed after one leaves.
fn ignored_checksums() -> ChecksumCapabilities {
    let mut checksums = ChecksumCapabilities::default();
    checksums.ipv4 = phy::Checksum::Tx;
    checksums.tcp = phy::Checksum::None;
    checksums
}

/// The stack's device for the time of one call.
struct Wire<'a> {
    incoming: Option<&'a [u8]>,
    outbox: &'a mut Outbox,
    mss: u16,
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

    fn receive(&mut self, _: smoltcp::time::Instant) -> Option<(Incoming<'_>, Outgoing<'_>)> {
        let packet = self.incoming.take()?;
        Some((Incoming(packet), Outgoing { outbox: self.outbox, mss: self.mss }))
    }

    fn transmit(&mut self, _: smoltcp::time::Instant) -> Option<Outgoing<'_>> {
        self.outbox.link.writer.has_room().then_some(Outgoing { outbox: self.outbox, mss: self.mss })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        capabilities()
    }
}

fn capabilities() -> DeviceCapabilities {
    let mut capabilities = DeviceCapabilities::default();
    capabilities.medium = Medium::Ip;
    capabilities.max_transmission_unit = MTU;
    capabilities.checksum = ignored_checksums();
    capabilities
}

struct Incoming<'a>(&'a [u8]);

impl phy::RxToken for Incoming<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(self.0)
    }
}

struct Outgoing<'a> {
    outbox: &'a mut Outbox,
    mss: u16,
}

impl phy::TxToken for Outgoing<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, write: F) -> R {
        match self.outbox.slot(length) {
            Some(mut slot) => {
                let result = write(packet_of(&mut slot));
                self.outbox.tcp(slot, self.mss);
                result
            }
            // An answer to a packet, which is sent without asking for room first; the peer will ask again.
            None => write(&mut vec![0; length]),
        }
    }
}

fn packet_of(slot: &mut Slot) -> &mut [u8] {
    slot.bytes_mut().get_mut(ETHERNET_HEADER..).unwrap_or_default()
}

/// What the interface is made with; it keeps the capabilities only.
struct Mute;

impl phy::Device for Mute {
    type RxToken<'a> = Incoming<'a>;
    type TxToken<'a> = Outgoing<'a>;

    fn receive(&mut self, _: smoltcp::time::Instant) -> Option<(Incoming<'_>, Outgoing<'_>)> {
        None
    }

    fn transmit(&mut self, _: smoltcp::time::Instant) -> Option<Outgoing<'_>> {
        None
    }

    fn capabilities(&self) -> DeviceCapabilities {
        capabilities()
    }
}
